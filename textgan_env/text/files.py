"""Files of texts, one after the other: plain or packed, one text a line or in a column of a table."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from textgan_env.text.dataset import PathLike
from textgan_env.text.packed import BROKEN, is_broken, unpacked
from textgan_env.utils.errors import InputError, MissingDataError, require, require_package

_LONGEST_LINE = 2**24  # characters
_BLOCK = 2**20  # characters that are decoded in one go
_UNDECODED = re.compile("[\udc80-\udcff]")
_LOOKED_AT = 100  # rows of a table, before it is decided which column holds texts
_TABLES = {".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet"}
_TABLES |= dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSON lines")
# Byte order marks; the longer one first where two begin alike.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_LINE_ENDS = {"\n": "\\n", "\r": "\\r", "\u2028": "U+2028", "\u0085": "U+0085"}


class TextFile:
    """The texts of a file, read while they are asked for.

    What a file is packed with is seen by its first bytes, a table by the end of its name (``.csv``, ``.tsv``,
    ``.jsonl``, ``.parquet``, also before ``.gz``) or by being asked for a column.

    Args:
        path: The file.
        encoding: None: UTF-8, with or without a byte order mark.
        column: Of a table: a name, or a number from 1; None: the only one that holds text.

    Attributes:
        column: The column that is read, once it is known; None where there is no table.
        found: What the file turned out to be, in a few words each.

    Raises:
        InputError: If it is a folder, or the encoding is unknown; and while it is read, if it is not what it should be.
        MissingDataError: If it is not there, or is Parquet and the package pyarrow is not installed.
    """

    def __init__(self, path: PathLike, *, encoding: str | None = None, column: str | None = None) -> None:
        self.path, self.column, self.found = Path(path), column, list[str]()
        self._encoding = "utf-8" if encoding is None else _known_encoding(encoding)
        self._guessed = encoding is None
        self._line = 0  # the one that is read, counted from 1
        require(not self.path.is_dir(), f"'{self.path}' is a folder, expected a text file")
        if not self.path.exists():
            raise MissingDataError(f"there is no file '{self.path}', expected a UTF-8 text file with one text a line")

    def __iter__(self) -> Iterator[str]:
        """Read it from its beginning."""
        self.found, self._line = [], 0
        with ExitStack() as held:
            file, name, packing = unpacked(self.path, held)
            self.found += [] if packing is None else [packing]
            kind = _TABLES.get(Path(name).suffix.lower())
            if kind == "Parquet":
                yield from self._parquet(file)
                return
            lines = self._lines(file)
            if kind is None and self.column is not None:
                first = next(lines, "")
                lines, kind = chain([first], lines), "JSON lines" if first.lstrip().startswith("{") else "CSV"
            if kind is None:
                yield from lines
            elif kind == "JSON lines":
                yield from self._json_lines(lines)
            else:
                yield from self._csv(lines, kind)

    def _blocks(self, file: IO[bytes]) -> Iterator[str]:
        """The text, some of it at a time, and "" at its end; a byte that cannot be decoded is half a character."""
        with io.TextIOWrapper(file, self._encoding, errors="surrogateescape", newline="") as text:
            while True:
                try:
                    block = text.read(_BLOCK)
                except UnicodeError as error:
                    raise InputError(f"'{self.path}' is not {self._encoding.upper()}: {error}") from None
                except BROKEN as error:
                    if not is_broken(error):
                        raise
                    raise InputError(f"'{self.path}' is no whole {(self.found or ['text'])[0]} file: {error}") from None
                yield block
                if not block:
                    return

    def _lines(self, file: IO[bytes]) -> Iterator[str]:
        """The lines without their ends; what they end in is decided by the first block."""
        pending, end, windows = "", "", 0
        for block in self._blocks(file):
            if not end and block:
                if block.startswith("\ufeff"):
                    block = block[1:]
                    self.found.append("byte order mark")
                # A block may end between \r and \n.
                end = next((each for each in _LINE_ENDS if each in (block[:-1] if each == "\r" else block)), "\n")
            *whole, pending = (pending + block).split(end or "\n")
            if not block and pending:
                whole.append(pending)
            for line in whole:
                self._line += 1
                self._check_line(line, self._line)
                if end == "\n" and line.endswith("\r"):
                    line, windows = line[:-1], windows + 1
                yield line
            self._check_line(pending, self._line + 1)
        if windows:
            mixed = f" ({windows:,} of {self._line:,})" if windows < self._line - 1 else ""
            self.found.append(f"lines end in \\r\\n{mixed}")
        elif end not in ("", "\n"):
            self.found.append(f"lines end in {_LINE_ENDS[end]}")

    def _check_line(self, line: str, number: int) -> None:
        """Refuse what is no text, and say which encoding the file may have."""
        where, name = f"'{self.path}' line {number}", self._encoding.upper()
        require(len(line) <= _LONGEST_LINE, f"{where} has more than {_LONGEST_LINE:,} characters, expected one text")
        if number == 1 and self._guessed:
            begin = line[:4].encode(errors="surrogateescape")
            mark = next((encoding for mark, encoding in _MARKS.items() if begin.startswith(mark)), "")
            advice = f"set encoding to {mark} (--encoding {mark})"
            require(not mark, f"{where} begins with the byte order mark of {mark.upper()}, expected UTF-8: {advice}")
        if "\0" in line:
            advice = "is it binary? If it is UTF-16, set encoding to utf-16-le (--encoding utf-16-le)"
            raise InputError(f"{where} holds a NUL byte, expected {name} text: {advice}")
        if undecoded := None if line.isascii() else _UNDECODED.search(line):
            at = undecoded.start()
            found = f"found byte 0x{ord(line[at]) - 0xDC00:02x} at place {at + 1} of the line"
            raise InputError(f"{where} is not {name}: {found}{self._encoding_advice(line[max(0, at - 40) : at + 40])}")

    def _encoding_advice(self, undecoded: str) -> str:
        """Which encoding a file may have that holds this."""
        if not self._guessed:
            return ""
        try:
            seen = undecoded.encode(errors="surrogateescape").decode("cp1252").strip()
        except UnicodeDecodeError:
            return "; set encoding to what it is (--encoding NAME)"
        return f"; if '{seen}' is right, set encoding to cp1252 (--encoding cp1252), else to what it is"

    def _csv(self, lines: Iterator[str], kind: str) -> Iterator[str]:
        """The texts of a table with commas, semicolons, bars or tabs."""
        first = next(lines, None)
        if first is None:
            return
        marks = "\t" if kind == "TSV" else ",;\t|"
        rows = self._csv_rows(chain([first], lines), max(marks, key=first.count))
        names = next(rows, [])
        if not names:
            return
        numbers = [str(number) for number in range(1, len(names) + 1)]
        if self.column in numbers and self.column not in names:
            rows, names = chain([names], rows), numbers
        head = list(islice(rows, _LOOKED_AT))
        named = [dict(zip(names, row, strict=False)) for row in head]
        at = names.index(self._choose(kind, names, named))
        for row in chain(head, rows):
            yield row[at] if at < len(row) else ""

    def _csv_rows(self, lines: Iterator[str], mark: str) -> Iterator[list[str]]:
        """The fields of each row that is not blank."""
        reader, width = csv.reader((f"{line}\n" for line in lines), delimiter=mark, strict=True), 0
        try:
            for row in reader:
                where = f"'{self.path}' line {reader.line_num}"
                width = width or len(row)
                advice = f"a text that holds {mark!r} needs quotes around it"
                require(len(row) <= width, f"{where} has {len(row)} fields, the first line {width}: {advice}")
                if row:
                    yield row
        except csv.Error as error:
            raise InputError(f"'{self.path}' line {reader.line_num} is no row of a table: {error}") from None

    def _json_lines(self, lines: Iterator[str]) -> Iterator[str]:
        """The texts of a file with a JSON object (or a string) a line."""
        rows = (self._json_row(line) for line in lines if line.strip())
        head = list(islice(rows, _LOOKED_AT))
        objects = [row for row in head if isinstance(row, dict)]
        if not objects and self.column is None:
            self.found.append("JSON lines")
            yield from (self._text_of(row) for row in chain(head, rows))
            return
        column = self._choose("JSON lines", list(dict.fromkeys(chain.from_iterable(objects))), objects)
        for row in chain(head, rows):
            require(isinstance(row, dict), f"'{self.path}' has a line that is no JSON object, as its first lines are")
            yield self._text_of(row.get(column))

    def _json_row(self, line: str) -> Any:
        """What a line of JSON says."""
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            one = self._line == 1 and line.lstrip().startswith("[")
            advice = " (is it one list? Expected are lines, an object each)" if one else ""
            raise InputError(f"'{self.path}' line {self._line} is not JSON: {error}{advice}") from None

    def _text_of(self, value: object) -> str:
        """A text of a table; what is missing is blank."""
        found = f"found {type(value).__name__}"
        require(isinstance(value, str | None), f"'{self.path}' near line {self._line}: expected a text, {found}")
        return value if isinstance(value, str) else ""

    def _parquet(self, file: IO[bytes]) -> Iterator[str]:
        """The texts of a Parquet file."""
        require_package("pyarrow", "parquet", "Parquet")
        from pyarrow import ArrowException, parquet

        try:
            table = parquet.ParquetFile(file if file.seekable() else io.BytesIO(file.read()))
            names = list(table.schema_arrow.names)
            head = next(table.iter_batches(_LOOKED_AT)).to_pylist() if table.metadata.num_rows else []
            column = self._choose("Parquet", names, head)
            for batch in table.iter_batches(columns=[column]):
                yield from map(self._text_of, batch.column(0).to_pylist())
        except (ArrowException, UnicodeDecodeError, *BROKEN) as error:
            if not is_broken(error):
                raise
            raise InputError(f"'{self.path}' is no whole Parquet file: {str(error).splitlines()[0]}") from None

    def _choose(self, kind: str, names: list[str], rows: list[dict[str, Any]]) -> str:
        """The column to read: the one that was asked for, or the only one that holds texts."""
        listed = ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
        if self.column is not None:
            require(self.column in names, f"'{self.path}' has no column '{self.column}', only: {listed}")
        else:
            values = {name: [row[name] for row in rows if row.get(name) not in (None, "")] for name in names}
            likely = [name for name in names if name.lower() == "text" or len(names) == 1]
            likely = likely or [name for name in names if _holds_words(values[name])]
            likely = likely or [name for name in names if any(map(_is_text, values[name]))]
            unsure = f"'{self.path}' is a table ({kind}), and which column holds the texts is not sure"
            require(len(likely) == 1, f"{unsure}: set column (--column) to one of {listed}")
            self.column = likely[0]
        self.found.append(f"{kind}, column '{self.column}'" + (f" of {listed}" if len(names) > 1 else ""))
        return self.column


def _holds_words(values: Sequence[object]) -> bool:
    """Whether the values of a column look like texts: words, and seldom the same ones."""
    texts = [value for value in values if _is_text(value)]
    return len(texts) > 0.8 * len(values) and len(set(texts)) > 0.5 * len(texts)


def _is_text(value: object) -> bool:
    """Whether a value is text and no number: it has a letter."""
    return isinstance(value, str) and any(map(str.isalpha, value))


def _known_encoding(name: str) -> str:
    """The name of an encoding of text, if there is one."""
    try:
        known = codecs.lookup(name)
    except (LookupError, ValueError):
        known = None
    sentence = f"unknown encoding '{name}', expected for example utf-8, utf-16, cp1252 or gb18030"
    require(known is not None and known._is_text_encoding, sentence)
    return name
