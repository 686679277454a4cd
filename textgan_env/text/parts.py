"""The texts of a corpus as tokens, file by file."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from textgan_env.text.corpus_options import CorpusOptions
from textgan_env.text.dataset import PathLike, Split
from textgan_env.text.files import TextFile
from textgan_env.text.subwords import Subwords, train_byte_pairs
from textgan_env.text.token_texts import LineReader, TokenTexts
from textgan_env.text.vocabulary import prepare, tokenize, written_apart
from textgan_env.utils.errors import require
from textgan_env.utils.text_options import Blanks

_BYTE_PAIRS = 1000  # V of mode bpe where nothing else is said
_LOOKED_AT = 100  # lines that hints are taken from


@dataclass(frozen=True)
class Parts:
    """Everything that was read, before anything is left out for its length.

    Attributes:
        main: The texts of the main file; already split in mode bpe, whose pairs are those of the training split.
        own: The splits that have files of their own.
        reader: Holds the words, and counts what was changed.
        copies: Lines that are left out already, as copies.
        begin: The first lines of the main file, as they stand there.
        files: What each file was found to be.
        column: Of the main file; None where it is no table.
        blanks: What blanks are in mode char.
        merges: Of mode bpe.
        subwords: What splits lines, unless word rules do.
    """

    main: Mapping[Split, TokenTexts]
    own: Mapping[Split, TokenTexts]
    reader: LineReader
    copies: int
    begin: list[str]
    files: list[str]
    column: str | None
    blanks: Blanks
    merges: tuple[str, ...]
    subwords: Subwords | None

    @property
    def all(self) -> list[TokenTexts]:
        """All of them in order."""
        return [*self.main.values(), *self.own.values()]


def read_parts(asked: CorpusOptions) -> Parts:
    """Read the file or the texts, and the files of splits that have one.

    Raises:
        InputError: If a file is not as it should be; the sentence names it (and the line).
        MissingDataError: If a file is not there, or a package that reads it.
    """
    name, source = ("texts", asked.texts or ()) if asked.path is None else _file(asked.path, asked)
    unread = iter(source)
    begin = list(islice(unread, _LOOKED_AT))
    lines: Iterator[str] = chain(begin, unread)
    blanks = asked.blanks
    if asked.mode == "char" and blanks == "auto":
        blanks, lines = _blanks_of(lines)
    merges: tuple[str, ...] = ()
    subwords: Subwords | None = None
    copies = 0
    if asked.mode == "bpe":
        reader, main, copies, merges, subwords = _byte_pairs(name, lines, asked)
    else:
        if asked.tokenizer is not None:
            subwords = Subwords.of_folder(asked.tokenizer)
        reader = _reader(asked, blanks, subwords)
        main = {"train": reader.read(name, reader.prepared(lines))}
    files = {split: _file(path, asked) for split, path in asked.files.items()}
    own = {split: reader.read(named, reader.prepared(file)) for split, (named, file) in files.items()}
    read = [(name, source)] if isinstance(source, TextFile) else []
    found = [f"{named}: {', '.join(file.found) or 'plain text'}" for named, file in [*read, *files.values()]]
    column = source.column if isinstance(source, TextFile) else None
    return Parts(main, own, reader, copies, begin, found, column, blanks, merges, subwords)


def split_rows(count: int, source: str, asked: CorpusOptions) -> dict[Split, NDArray[np.int64]]:
    """Hold out texts at random; each split keeps the order of the file.

    Args:
        count: How many different texts there are.
        source: What to begin a sentence with.
        asked: Says which shares, and the seed.

    Returns:
        Split -> the rows of its texts, int64, rising.

    Raises:
        InputError: If there are too few.
    """
    held_out = {split: max(1, round(share * count)) for split, share in asked.shares.items() if share > 0}
    needed, names = 1 + len(held_out), ", ".join(["train", *held_out])
    few = f"{source} has too few different texts to split: expected at least {needed} (one each for {names})"
    require(count >= needed, f"{few}, found {count}")
    taken = sum(held_out.values())
    require(taken < count, f"{source}: valid_share and test_share take all {count} texts, none is left to train on")
    order = np.random.default_rng(asked.seed).permutation(count)
    *held, left = map(np.sort, np.split(order, np.cumsum(list(held_out.values()), dtype=int)))
    return {"train": left, **dict(zip(held_out, held, strict=True))}


def _file(path: PathLike, asked: CorpusOptions) -> tuple[str, TextFile]:
    """A file as sentences name it, and its texts."""
    return f"'{os.fspath(path)}'", TextFile(path, encoding=asked.encoding, column=asked.column)


def _blanks_of(lines: Iterator[str]) -> tuple[Literal["apart", "keep"], Iterator[str]]:
    """What blanks are in a file of characters, and its lines: apart where all are written as single characters."""
    seen = []
    for line in lines:
        seen.append(line)
        if not written_apart(prepare(line)):
            return "keep", chain(seen, lines)
    several = any(len(line.split()) > 1 for line in seen)
    return ("apart" if several else "keep"), iter(seen)


def _reader(asked: CorpusOptions, blanks: Blanks, subwords: Subwords | None) -> LineReader:
    """What makes tokens of lines by rules that are known before they are read."""
    if subwords is not None:
        return LineReader(str, subwords.tokenize, lower=False, keeps_blanks=True)
    split = partial(tokenize, mode=asked.mode, blanks="line" if blanks == "auto" else blanks)
    prepared = partial(prepare, mode=asked.mode, lower=asked.lower)
    if asked.mode == "smiles":
        return LineReader(prepared, split, asked.lower, keeps_blanks=True, mends="names behind molecules left out")
    return LineReader(prepared, split, asked.lower, keeps_blanks=asked.mode == "char" and blanks != "line")


def _byte_pairs(
    name: str, lines: Iterable[str], asked: CorpusOptions
) -> tuple[LineReader, dict[Split, TokenTexts], int, tuple[str, ...], Subwords]:
    """Split the texts first, as byte pairs are learnt from the training split only."""
    reader = LineReader(partial(prepare, mode="bpe", lower=asked.lower), list, asked.lower, keeps_blanks=True)
    every = list(reader.prepared(lines))
    require(len(every) > 0, f"{name} is empty, expected one text a line")
    given = [line for line in every if line.strip()]
    require(len(given) > 0, f"{name} holds nothing but blank lines ({len(every):,}), expected one text a line")
    texts = list(dict.fromkeys(given))
    by_split = {split: [texts[row] for row in rows] for split, rows in split_rows(len(texts), name, asked).items()}
    size = (asked.vocab_size or _BYTE_PAIRS) - (asked.eos is not False)
    pieces, merges = train_byte_pairs(by_split["train"], size)
    subwords = Subwords.of_pairs(pieces, merges)
    reader.words.update({piece: number for number, piece in enumerate(pieces)})
    reader.split = subwords.tokenize
    main = {split: reader.read(name, part) for split, part in by_split.items()}
    main["train"] = replace(main["train"], lines=len(by_split["train"]) + len(every) - len(given))
    return reader, main, len(given) - len(texts), merges, subwords
