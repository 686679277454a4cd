"""N-grams of texts as numbers: what every score that counts n-grams begins with.

A text is a list of tokens, strings or ids (anything hashable). Axis letters: G n-grams read off the texts, one entry
each time one occurs, U different n-grams.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import chain
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


def numbered(lists: list[tuple[Hashable, ...]]) -> tuple[Ints, Ints]:
    """Number the distinct tokens 0, 1, ... and lay all texts end to end, see `laid_out`."""
    return laid_out(lists, numbers(lists))


def numbers(lists: list[tuple[Hashable, ...]]) -> dict[Hashable, int]:
    """Numbers 0, 1, ... of the distinct tokens."""
    return {token: i for i, token in enumerate(dict.fromkeys(chain.from_iterable(lists)))}


def laid_out(lists: list[tuple[Hashable, ...]], number: Mapping[Hashable, int]) -> tuple[Ints, Ints]:
    """Token numbers of all texts end to end, shape [tokens], -1 where a token has none; lengths, shape [texts]."""
    tokens = np.fromiter((number.get(token, -1) for token in chain.from_iterable(lists)), dtype=np.int64)
    return tokens, np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))


def places(lengths: Ints) -> tuple[Ints, Ints]:
    """Of each token of texts laid end to end: the index of its text, and the tokens from it to the text's end."""
    text = np.repeat(np.arange(len(lengths)), lengths)
    return text, np.repeat(np.cumsum(lengths), lengths) - np.arange(len(text))


def ngrams(tokens: Ints, lengths: Ints, max_n: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield for n = 1..max_n the n-grams of all texts, numbered so that equal ones have equal numbers.

    Args:
        tokens: Token numbers of all texts end to end, each below ``len(tokens)``, every number up to the highest.
        lengths: Length of each text.
        max_n: Highest order.

    Yields:
        gram_G: The number of each n-gram; text_G: the index of the text it stands in; key_U: for each of the U
        different n-grams, sorted, (the number of its first n - 1 tokens) * len(tokens) + its last token.
    """
    text, tokens_left = places(lengths)
    start_G, gram_G = np.arange(len(tokens)), tokens
    key_U = np.unique(tokens)
    for n in range(1, max_n + 1):
        if n > 1:
            fits = tokens_left[start_G] >= n
            start_G = start_G[fits]
            # The pair (number of the first n - 1 tokens, last token) as one integer. Both are below the
            # number of tokens, so it fits into 63 bits up to 3e9 tokens; renumbering keeps that so.
            pair_G = gram_G[fits] * len(tokens) + tokens[start_G + n - 1]
            key_U, gram_G = np.unique(pair_G, return_inverse=True)
        yield gram_G, text[start_G], key_U


def counts_per_text(gram_G: Ints, text_G: Ints, n_texts: int) -> tuple[Ints, Ints, Ints]:
    """Count each n-gram in each text that has it: arrays gram, text, count, one entry for each such pair."""
    pair, count = np.unique(gram_G * n_texts + text_G, return_counts=True)
    return pair // n_texts, pair % n_texts, count
