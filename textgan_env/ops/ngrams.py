"""N-grams of texts as numbers: what every score that counts n-grams begins with.

A text is a list of tokens, strings or ids (anything hashable). Axis letters: G n-grams read off the texts, one entry
each time one occurs, U different n-grams.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgan_env.utils.errors import InputError, require

#: Texts as lists of tokens, whatever tokens are.
Texts = Sequence[Sequence[Hashable]]
#: Arrays of int64.
Ints = NDArray[np.int64]
#: Arrays of float64.
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NumberedTexts:
    """Texts whose tokens are numbers, laid end to end: scores take them in the place of token lists, and are quicker.

    Texts that are compared with each other must have the same number for the same token.

    Attributes:
        tokens: Token numbers of all texts, int64, none below 0 and none much above their count.
        lengths: Tokens of each text, int64 [texts].
    """

    tokens: Ints
    lengths: Ints

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self.lengths)

    def first(self, count: int | None) -> "NumberedTexts":
        """The first texts; None: all."""
        lengths = self.lengths[:count]
        return NumberedTexts(self.tokens[: lengths.sum()], lengths)

    def followed_by(self, other: "NumberedTexts") -> "NumberedTexts":
        """These texts, and then others."""
        parts = ((self.tokens, other.tokens), (self.lengths, other.lengths))
        return NumberedTexts(*map(np.concatenate, parts))

    def whole(self) -> list[bytes]:
        """Each text as bytes that only equal texts share."""
        ends = np.concatenate(([0], np.cumsum(self.lengths))) * self.tokens.itemsize
        data = self.tokens.tobytes()
        return [data[start:end] for start, end in pairwise(ends.tolist())]


#: What scores take: token lists, or texts whose tokens have numbers.
AnyTexts = Texts | NumberedTexts


def require_order(name: str, value: int, least: int) -> None:
    """Refuse an order of n-grams below the least one.

    Raises:
        InputError: If it is.
    """
    enough = isinstance(value, (int, np.integer)) and value >= least
    require(enough, f"{name} must be a whole number of at least {least}, found {value!r}")


def token_lists(name: str, texts: Texts) -> list[tuple[Hashable, ...]]:
    """Check that texts are token lists and copy them, so that rows of arrays and tensors become plain ids."""
    if not _is_list(texts):
        raise InputError(f"{name} must be a list of token lists, found {texts!r:.40}")
    lists: list[tuple[Hashable, ...]] = []
    for text in texts:
        if not _is_list(text):
            raise InputError(f"{name}[{len(lists)}] must be a list of tokens, found {text!r:.40}")
        # A tensor's elements hash by identity: as tokens they would all differ.
        plain: Any = text.tolist() if hasattr(text, "tolist") else text
        lists.append(tuple(plain))
    require(len(lists) > 0, f"{name} must hold at least one text, found none")
    try:
        hash(tuple(lists))
    except TypeError as error:
        raise InputError(f"a token of {name} must be a string, an id or the like, found {error}") from None
    return lists


def _is_list(value: object) -> bool:
    """Whether it is a list of tokens or of texts."""
    # A string could be iterated too, but by character: never what was meant by a list of tokens.
    return hasattr(value, "__iter__") and not isinstance(value, (str, bytes))


def numbered(**named: AnyTexts) -> list[NumberedTexts]:
    """Texts with their tokens numbered alike, by the name that an error calls them.

    Raises:
        InputError: If there is no text of some name, they are not token lists, or some are numbered and others not.
    """
    lists = {name: token_lists(name, texts) for name, texts in named.items() if not isinstance(texts, NumberedTexts)}
    require(len(lists) in (0, len(named)), f"{' and '.join(named)} must all be numbered, or none of them")
    number, found = numbers(list(chain.from_iterable(lists.values()))), []
    for name, texts in named.items():
        found.append(texts if isinstance(texts, NumberedTexts) else laid_out(lists[name], number))
        require(len(found[-1]) > 0, f"{name} must hold at least one text, found none")
    return found


def numbers(lists: list[tuple[Hashable, ...]]) -> dict[Hashable, int]:
    """Numbers 0, 1, ... of the distinct tokens."""
    return {token: i for i, token in enumerate(dict.fromkeys(chain.from_iterable(lists)))}


def laid_out(lists: list[tuple[Hashable, ...]], number: Mapping[Hashable, int]) -> NumberedTexts:
    """Texts as numbers, -1 where a token has none."""
    tokens = np.fromiter((number.get(token, -1) for token in chain.from_iterable(lists)), dtype=np.int64)
    return NumberedTexts(tokens, np.fromiter(map(len, lists), dtype=np.int64, count=len(lists)))


def places(lengths: Ints) -> tuple[Ints, Ints]:
    """Of each token of texts laid end to end: the index of its text, and the tokens from it to the text's end."""
    text = np.repeat(np.arange(len(lengths)), lengths)
    return text, np.repeat(np.cumsum(lengths), lengths) - np.arange(len(text))


def ngrams(texts: NumberedTexts, max_n: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield for n = 1..max_n the n-grams of all texts, numbered so that equal ones have equal numbers.

    Args:
        texts: The texts.
        max_n: Highest order.

    Yields:
        gram_G: The number of each n-gram, below U; text_G: the index of the text it stands in; key_U: for each of the U
        different n-grams, sorted, (the number of its first n - 1 tokens, 0 for n = 1) * `key_base` + its last token.
    """
    text, tokens_left = places(texts.lengths)
    start_G = np.arange(len(texts.tokens))
    rank = ranks(texts)
    key_U, gram_G = np.flatnonzero(rank >= 0), rank[texts.tokens]
    for n in range(1, max_n + 1):
        if n > 1:
            fits = tokens_left[start_G] >= n
            start_G = start_G[fits]
            # The pair (number of the first n - 1 tokens, last token) as one integer. Both are below some 1e9, so it
            # fits into 63 bits; renumbering keeps that so.
            pair_G = gram_G[fits] * key_base(texts) + texts.tokens[start_G + n - 1]
            key_U, gram_G = np.unique(pair_G, return_inverse=True)
        yield gram_G, text[start_G], key_U


def ranks(texts: NumberedTexts) -> Ints:
    """Of each number up to one above the highest: its rank among those that occur; -1 where it does not."""
    occurs = np.bincount(texts.tokens, minlength=key_base(texts) + 1) > 0
    return np.where(occurs, np.cumsum(occurs) - 1, -1)


def key_base(texts: NumberedTexts) -> int:
    """A number above that of every token."""
    return int(texts.tokens.max(initial=-1)) + 1


def counts_per_text(gram_G: Ints, text_G: Ints, n_texts: int) -> tuple[Ints, Ints, Ints]:
    """Count each n-gram in each text that has it: arrays gram, text, count, one entry for each such pair."""
    pair, count = np.unique(gram_G * n_texts + text_G, return_counts=True)
    return pair // n_texts, pair % n_texts, count
