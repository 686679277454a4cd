"""Subwords by the package tokenizers: those of a Hugging Face tokenizer, and byte pairs trained on the text itself."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from os import PathLike, fspath
from typing import TYPE_CHECKING, Self

from textgan_env.text.language_models import TOKENIZER, model_folder
from textgan_env.utils.errors import InputError, require, require_package

if TYPE_CHECKING:
    import tokenizers

# How byte-level tokenizers spell bytes that stand in no text of one line: NUL, line ends, those that UTF-8 has not.
_NEVER = frozenset(["\u0100", "\u010a", "\u010d", "\u00c0", "\u00c1", *map(chr, range(0xF5, 0x100))])


class Subwords:
    """How lines become subwords, and subwords a text again.

    The subwords of a folder are called by their number there, so "464 3797" may be "The cat"; byte pairs are called as
    byte-level tokenizers spell them, a blank as "Ġ".

    Args:
        tokenizer: Of the package tokenizers.
        pieces: Byte pair -> its number in the tokenizer; None: subwords are called by their numbers.
    """

    def __init__(self, tokenizer: "tokenizers.Tokenizer", pieces: Mapping[str, int] | None = None) -> None:
        self._tokenizer, self._pieces = tokenizer, pieces

    @classmethod
    def of_folder(cls, folder: str | PathLike[str]) -> Self:
        """The subwords of a Hugging Face tokenizer.

        Args:
            folder: With a ``tokenizer.json``, as ``save_pretrained`` writes it; or a language model by name.

        Raises:
            InputError: If there is no such file, or it is no tokenizer.
            MissingDataError: If the package tokenizers is not installed, or as `model_folder`.
        """
        require_package("tokenizers", "hf", "a tokenizer")
        from tokenizers import Tokenizer

        path = model_folder(folder) / TOKENIZER
        require(path.is_file(), f"no tokenizer at '{fspath(folder)}': it has no {TOKENIZER}")
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises nothing narrower
            raise InputError(f"'{path}' is no tokenizer: {error}") from None

    @classmethod
    def of_pairs(cls, pieces: Sequence[str], merges: Sequence[str]) -> Self:
        """Byte pairs that were trained before.

        Args:
            pieces: All of them, single bytes among them.
            merges: Which two pieces make a new one, with a blank between them; earlier ones come first.

        Raises:
            InputError: If a merge is not of two pieces that make a third.
            MissingDataError: If the package tokenizers is not installed.
        """
        numbers = {piece: number for number, piece in enumerate(pieces)}
        pairs = [tuple(merge.split(" ")) for merge in merges]
        fits = all(len(pair) == 2 and {*pair, "".join(pair)} <= numbers.keys() for pair in pairs)
        require(fits, "the byte pairs of the vocabulary do not fit together")
        return cls(_byte_level(numbers, [(first, second) for first, second in pairs]), numbers)

    def tokenize(self, line: str, *, strip: bool = True) -> list[str]:
        """Split a line, without anything at its ends.

        Args:
            line: The text.
            strip: Whether a tokenizer of a folder is shown no blanks at the ends.
        """
        if self._pieces is not None:
            return list(self._tokenizer.encode(line).tokens)
        line = line.strip() if strip else line
        return [str(number) for number in self._tokenizer.encode(line, add_special_tokens=False).ids]

    def same_numbers(self, other: "Subwords") -> bool:
        """Whether another tokenizer calls the same subwords by the same numbers."""
        mine, theirs = (one._tokenizer.get_vocab(with_added_tokens=True) for one in (self, other))
        return bool(mine == theirs)

    @property
    def special(self) -> list[int]:
        """The numbers that stand for no text: marks of beginnings, of ends, of who speaks."""
        return [number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special]

    def numbers(self, text: str) -> list[int]:
        """The numbers of a text's subwords in the tokenizer."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def piece(self, word: str) -> str:
        """One subword as a person reads it: as the tokenizer spells it, byte pairs as the text they are."""
        if self._pieces is not None:
            return self.join([word]) if word in self._pieces else word
        return str(self._tokenizer.id_to_token(int(word)) or word) if word.isdecimal() else word

    def join(self, words: Sequence[str]) -> str:
        """Subwords as text: byte pairs letter for letter, others as the tokenizer does it."""
        if self._pieces is not None:
            return str(self._tokenizer.decode([self._pieces[word] for word in words], skip_special_tokens=False))
        parts = []
        for known, run in groupby(words, key=str.isdecimal):
            numbers = list(run)
            parts.append(self._tokenizer.decode([int(word) for word in numbers]) if known else " ".join(numbers))
        return " ".join(parts).strip()


def train_byte_pairs(lines: Iterable[str], size: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Learn byte pairs from texts; the same texts give the same ones.

    Every text of one line can be split into them, as all bytes that such a text can have are among them.

    Args:
        lines: The texts.
        size: How many pieces, bytes counted; fewer if the texts have no further pair that comes twice.

    Returns:
        The pieces, and the merges, as `Subwords.of_pairs` takes them.

    Raises:
        InputError: If there is no room for the bytes.
        MissingDataError: If the package tokenizers is not installed.
    """
    tokenizer = _byte_level({}, [])
    from tokenizers import pre_tokenizers, trainers

    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - _NEVER)
    require(size > len(alphabet), f"vocab_size must be at least {len(alphabet) + 2} (every byte is a token)")
    # Its pool of threads warns whenever the process forks later.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, show_progress=False, initial_alphabet=alphabet, special_tokens=[]
    )
    tokenizer.train_from_iterator(lines, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"])
    return tuple(sorted(model["vocab"], key=model["vocab"].get)), tuple(merges)


def _byte_level(numbers: Mapping[str, int], merges: list[tuple[str, str]]) -> "tokenizers.Tokenizer":
    """A byte-level tokenizer with these pieces."""
    require_package("tokenizers", "bpe", "mode bpe")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(dict(numbers), merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
