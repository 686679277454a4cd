"""Many texts end to end, as numbers of their words, and what makes them of lines."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.text.vocabulary import Vocabulary, one_line
from textgan_env.utils.errors import require


@dataclass(frozen=True)
class TokenTexts:
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
        """How many texts there are."""
        return len(self.lengths)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each text begins in ``flat``."""
        return np.cumsum(self.lengths) - self.lengths

    def take(self, rows: NDArray[np.int64], most: int | None = None, cut: int = 0) -> "TokenTexts":
        """Give some texts, each up to ``most`` words."""
        lengths = self.lengths[rows] if most is None else np.minimum(self.lengths[rows], most)
        ends = np.cumsum(lengths)
        places = np.arange(int(ends[-1]) if len(ends) else 0)
        places += np.repeat(self.starts[rows] - (ends - lengths), lengths)
        return TokenTexts(self.source, self.flat[places], lengths, self.lines, cut)

    def fit(self, width: int, with_eos: bool, longer: str) -> "TokenTexts":
        """Drop or cut what is longer than ``width`` tokens."""
        too_long = self.lengths + with_eos > width
        if longer == "cut":
            return self.take(np.arange(len(self)), most=width, cut=int(too_long.sum()))
        require(not too_long.all(), self.none_fits(width, with_eos))
        return self.take(np.flatnonzero(~too_long))

    def none_fits(self, width: int, with_eos: bool) -> str:
        """The sentence for when every text is too long."""
        shortest = f"{int(self.lengths.min()):,} words{' and its EOS' if with_eos else ''}"
        return f"{self.source}: every text is longer than max_length {width}, the shortest has {shortest}"

    def keys(self) -> Iterator[bytes]:
        """Give something to tell each text by."""
        words, size = self.flat.tobytes(), self.flat.itemsize
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            yield words[start * size : (start + length) * size]

    def unique(self, seen: set[bytes]) -> "TokenTexts":
        """Leave out copies of an earlier text; ``seen`` holds the keys of earlier ones, and grows."""
        rows = []
        for row, key in enumerate(self.keys()):
            if key not in seen:
                seen.add(key)
                rows.append(row)
        return self.take(np.array(rows, dtype=np.int64))

    def copies_from(self, other: "TokenTexts") -> int:
        """Count the texts that ``other`` holds, too."""
        theirs = set(other.keys())
        return sum(key in theirs for key in self.keys())

    def share_of(self, ids: NDArray[np.int64], token: int | None) -> float:
        """The share of the words that become one token, 0..1."""
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


@dataclass
class LineReader:
    """Makes tokens of lines, and counts in how many lines it changes something.

    Attributes:
        prepare: Brings a line into the form in which it is split.
        split: Gives the tokens of a line that is prepared.
        lower: Whether ``prepare`` makes lower case.
        keeps_blanks: Whether the tokens tell where how many blanks stood.
        mends: What ``prepare`` does to a line besides, for the report.
        words: Token -> its number, in the order in which they were first seen; grows.
        changed: What was changed -> lines.
    """

    prepare: Callable[[str], str]
    split: Callable[[str], Sequence[str]]
    lower: bool
    keeps_blanks: bool
    mends: str = "accents put together"
    words: dict[str, int] = field(default_factory=dict)
    changed: Counter[str] = field(default_factory=Counter)

    def prepared(self, lines: Iterable[str]) -> Iterator[str]:
        """Lines as they are split."""
        for line in lines:
            single = one_line(line)
            cased = single.lower() if self.lower else single
            prepared = self.prepare(single)
            self.changed["line ends in a text became blanks"] += single != line.strip("\r\n")
            self.changed["made lower case"] += cased != single
            self.changed[self.mends] += prepared != cased
            if not self.keeps_blanks:
                apart = prepared.split()
                self.changed["runs or ends of blanks left out"] += bool(apart) and " ".join(apart) != prepared
            yield prepared

    def read(self, name: str, prepared: Iterable[str]) -> TokenTexts:
        """Split lines that are prepared.

        Raises:
            InputError: If there is no line, or none with a token.
        """
        flat, lengths, count = array("i"), array("q"), 0
        for line in prepared:
            count += 1
            tokens = self.split(line) if line.strip() else ()
            if tokens:
                flat.extend([self.words.setdefault(token, len(self.words)) for token in tokens])
                lengths.append(len(tokens))
        require(count > 0, f"{name} is empty, expected one text a line")
        require(len(lengths) > 0, f"{name} holds nothing but blank lines ({count:,}), expected one text a line")
        return TokenTexts(name, np.array(flat, dtype=np.int32), np.array(lengths, dtype=np.int64), count)
