"""Text files to named splits of token ids.

Three rules hold for every corpus. A text stands in one split only: copies in the main file are dropped before it is
split (a published test file stays as it is; how many of its texts also stand in the training part is reported).
The vocabulary is that of the training part; what else the other splits hold is the unknown word. Nothing is dropped,
cut or replaced without being counted in the `CorpusReport`.
"""

import codecs
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from textgan_env.text.corpus_report import CorpusReport
from textgan_env.text.dataset import MOST_CELLS, PathLike, Split, TokenDataset, check_length
from textgan_env.text.vocabulary import EOS, MODES, Mode, Subwords, Vocabulary, tokenize
from textgan_env.utils.errors import InputError, MissingDataError, require, require_at_least, require_known

#: What happens to lines that are longer than T: cut to T, left out, or T grows.
Longer = Literal["cut", "drop", "grow"]
_LONGEST_LINE = 2**24  # bytes
_QUANTILES = {"shortest": 0.0, "median": 0.5, "99 %": 0.99, "longest": 1.0}  # of the lengths of texts


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


@dataclass(frozen=True)
class CorpusOptions:
    """How a corpus is read.

    Attributes:
        path: The file; or give ``texts``.
        texts: The texts themselves.
        mode: How a line is split into tokens (`textgan_env.text.vocabulary.tokenize`).
        lower: Whether to make the text lower case.
        tokenizer: A folder with a Hugging Face tokenizer, whose subwords are then the tokens
            (`textgan_env.text.vocabulary.Subwords`); it decides about lower case.
        min_count: Words that are rarer in the training part become the unknown word.
        max_vocab: At most this many tokens in the vocabulary, V, EOS and UNK counted.
        max_length: T, the most tokens of a text, EOS counted; None: the longest text of any split decides.
        longer: What happens to longer texts: ``"drop"`` leaves them out, ``"cut"`` keeps their first T tokens,
            ``"grow"`` raises T to the longest text.
        valid_share: Share of the different texts that becomes the validation split, 0..1; at least one text unless 0.
            Ignored when there is a ``valid_path``.
        test_share: Likewise for the test split and ``test_path``.
        valid_path: A validation file of its own, used as it is, copies included.
        test_path: Likewise a test file.
        seed: Decides which texts are held out.
        eos: Whether texts end with EOS; ``"auto"``: unless all have the same length.

    Raises:
        InputError: If a value is refused; the sentence names it.
    """

    path: PathLike | None = None
    texts: Sequence[str] | None = None
    mode: Mode = "word"
    lower: bool = True
    tokenizer: PathLike | None = None
    min_count: int = 1
    max_vocab: int | None = None
    max_length: int | None = None
    longer: Longer = "drop"
    valid_share: float = 0.1
    test_share: float = 0.1
    valid_path: PathLike | None = None
    test_path: PathLike | None = None
    seed: int = 0
    eos: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        one_of_two = "a corpus needs a path (a text file, one text a line) or texts, one of the two"
        require((self.path is None) != (self.texts is None), one_of_two)
        require_known("token mode", self.mode, MODES)
        own_rules = f"a tokenizer has rules of its own: leave out mode, found '{self.mode}'"
        require(self.tokenizer is None or self.mode == "word", own_rules)
        require_known("choice for longer texts", self.longer, get_args(Longer))
        require_at_least(1, max_length=self.max_length, min_count=self.min_count, max_vocab=self.max_vocab)
        require_at_least(0, seed=self.seed)
        check_length(self.max_length or 1)
        for name, share in self.shares.items():
            require(0 <= share < 1, f"{name}_share must be at least 0 and below 1, found {share}")
        both = sum(self.shares.values())
        require(both < 1, f"valid_share and test_share together must be below 1, found {both:g}")

    @property
    def files(self) -> dict[Split, PathLike]:
        """The splits that have files of their own."""
        paths: dict[Split, PathLike | None] = {"valid": self.valid_path, "test": self.test_path}
        return {split: path for split, path in paths.items() if path is not None}

    @property
    def shares(self) -> dict[Split, float]:
        """The share of the texts that is held out for each split that has no file."""
        shares: dict[Split, float] = {"valid": self.valid_share, "test": self.test_share}
        return {split: 0.0 if split in self.files else share for split, share in shares.items()}


def load_corpus(path: PathLike | None = None, **options: Any) -> Corpus:
    """Read a corpus: one text a line, UTF-8 (a byte order mark and Windows line ends are fine).

    The same options give the same corpus. A text that is cut ends at T without EOS: its end is not there.

    Args:
        path: The file; or give ``texts``.
        options: The other fields of `CorpusOptions`.

    Returns:
        The corpus; ``print(corpus.report)`` says what became of every line.

    Raises:
        InputError: If an option or a file is not as described; the sentence names it (and the line).
        MissingDataError: If a file is not there.
    """
    asked = CorpusOptions(path, **options)
    subwords = None if asked.tokenizer is None else Subwords(asked.tokenizer)
    if subwords is not None:
        asked = replace(asked, mode="whitespace", lower=False, tokenizer=None)
    split_line = partial(tokenize, mode=asked.mode, lower=asked.lower) if subwords is None else subwords.tokenize
    texts = _checked(asked.texts or ()) if asked.path is None else read_lines(asked.path)
    named = {"texts" if asked.path is None else f"'{os.fspath(asked.path)}'": texts}
    sources = [*named.items(), *((f"'{os.fspath(file)}'", read_lines(file)) for file in asked.files.values())]
    words: dict[str, int] = {}
    parts = [_read(name, lines, split_line, words) for name, lines in sources]
    width, with_eos = _width(parts, asked)
    fitted = [part.fit(width, with_eos, asked.longer) for part in parts]
    _check_memory(fitted, width)
    unique = fitted[0].unique()
    found = _split(unique, asked) | dict(zip(asked.files, fitted[1:], strict=True))
    by_split = {split: found[split] for split in get_args(Split) if split in found}
    vocabulary, ids = _vocabulary(words, by_split, asked, with_eos)
    train, lengths = by_split["train"].flat, np.concatenate([part.lengths for part in parts])
    report = CorpusReport(
        source=" and ".join(part.source for part in parts),
        lines=sum(part.lines for part in parts),
        blank=sum(part.lines - len(part) for part in parts),
        dropped=sum(len(part) - len(kept) for part, kept in zip(parts, fitted, strict=True)),
        cut=sum(kept.cut for kept in fitted),
        duplicates=len(fitted[0]) - len(unique),
        overlap=sum(by_split[split].copies_from(by_split["train"]) for split in asked.files),
        texts={split: len(part) for split, part in by_split.items()},
        unknown={split: part.share_of(ids, vocabulary.unk) for split, part in by_split.items()},
        words=len(np.unique(train)),
        once=int((np.bincount(train) == 1).sum()),
        lengths={name: int(np.quantile(lengths, share, method="higher")) for name, share in _QUANTILES.items()},
        vocabulary=vocabulary.size,
        max_length=width,
        fixed_length=not with_eos,
    )
    splits = {split: part.dataset(split, ids, width, vocabulary) for split, part in by_split.items()}
    return Corpus(vocabulary, splits, width, report, subwords)


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
        """How many texts there are."""
        return len(self.lengths)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each text begins in ``flat``."""
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
        """The sentence for when every text is too long."""
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
    """Texts that were handed over.

    Raises:
        InputError: If one is no text; the sentence says which.
    """
    require(not isinstance(texts, str), "texts must be a list of strings, found one string")
    for number, text in enumerate(texts, start=1):
        require(isinstance(text, str), f"text {number} must be a string, found {type(text).__name__}")
        require("\0" not in text, f"text {number} holds a NUL character")
        yield text


def _width(parts: Sequence[_Texts], asked: CorpusOptions) -> tuple[int, bool]:
    """Decide T and whether texts end with EOS."""
    max_length, longer, eos = asked.max_length, asked.longer, asked.eos
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


def _check_memory(parts: Sequence[_Texts], width: int) -> None:
    """Refuse a table that one very long line blows up."""
    rows = sum(len(part) for part in parts)
    common = int(np.quantile(np.concatenate([part.lengths for part in parts]), 0.99))
    need = f"{rows:,} texts of up to {width:,} tokens need more than {MOST_CELLS * 8 / 2**30:.0f} GiB"
    advice = f"set max_length (99 % of the texts have at most {common:,} words)"
    require(rows * width <= MOST_CELLS, f"{parts[0].source}: {need}: {advice}")


def _split(texts: _Texts, asked: CorpusOptions) -> dict[Split, _Texts]:
    """Hold out texts at random; each split keeps the order of the file."""
    held_out = {split: max(1, round(share * len(texts))) for split, share in asked.shares.items() if share > 0}
    needed, names = 1 + len(held_out), ", ".join(["train", *held_out])
    few = f"{texts.source} has too few different texts to split: expected at least {needed} (one each for {names})"
    require(len(texts) >= needed, f"{few}, found {len(texts)}")
    taken = sum(held_out.values())
    all_taken = f"{texts.source}: valid_share and test_share take all {len(texts)} texts, none is left to train on"
    require(taken < len(texts), all_taken)
    order = np.random.default_rng(asked.seed).permutation(len(texts))
    by_split: dict[Split, _Texts] = {"train": texts.take(np.sort(order[taken:]))}
    start = 0
    for split, count in held_out.items():
        by_split[split] = texts.take(np.sort(order[start : start + count]))
        start += count
    return by_split


def _vocabulary(
    words: Mapping[str, int], by_split: Mapping[Split, _Texts], asked: CorpusOptions, with_eos: bool
) -> tuple[Vocabulary, NDArray[np.int64]]:
    """Build the vocabulary of the training part, and the table from reading ids to its ids."""
    counted = np.bincount(by_split["train"].flat, minlength=len(words)).tolist()
    counts = {word: counted[index] for word, index in words.items() if counted[index]}
    used = np.unique(np.concatenate([part.flat for part in by_split.values()]))
    source = by_split["train"].source
    # Looked for in every split: in a test file, too, it would end a text in its middle.
    require(not (with_eos and EOS in words), f"{source}: the text holds {EOS!r}, which stands for the end of a text")

    make = partial(Vocabulary.from_counts, counts, mode=asked.mode, lower=asked.lower, eos=with_eos)

    def build(unk: bool | Literal["auto"]) -> tuple[Vocabulary, NDArray[np.int64]]:
        """With or without an unknown word."""
        try:
            vocabulary = make(min_count=asked.min_count, max_size=asked.max_vocab, unk=unk)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        unknown = -1 if vocabulary.unk is None else vocabulary.unk
        known = {token: index for index, token in enumerate(vocabulary.tokens)}
        return vocabulary, np.array([known.get(word, unknown) for word in words], dtype=np.int64)

    vocabulary, ids = build("auto")
    return build(True) if (ids[used] < 0).any() else (vocabulary, ids)
