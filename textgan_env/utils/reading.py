"""Files that somebody else may have made: read whole, up to a limit, and checked before anything is done with them.

What stands in such a file is data: it is compared with what was expected, and never executed or imported. What reading
may cost is decided here, before it is paid.
"""

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from textgan_env.utils.errors import InputError, require

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

#: Bytes of one JSON text: a vocabulary of half a million words; parsed, at most some 200 MB.
MOST_JSON = 2**23
_MOST_CONTAINERS = 2**17  # lists and objects in one JSON text
_MOST_COMMAS = 2**19  # values in one JSON text, about
#: Bytes of a log or of samples: half a million rows.
MOST_LOG = 2**28
_LITTLE = 2**26  # bytes; below it nothing is large
_MOST_DIGITS = 100
_MOST_WEIGHTS = 2**28  # 1 GiB as float32

Kind = TypeVar("Kind")


def read_limited(path: str | os.PathLike[str], most: int, *, inside: str | os.PathLike[str] | None = None) -> bytes:
    """Read a file whole.

    Args:
        path: An ordinary file; links to one are followed.
        most: Bytes that it may have.
        inside: The folder that no link may lead out of; None: any link may.

    Raises:
        InputError: If it is no ordinary file (a device or a pipe may never end), larger, mostly never written, or a
            link leads out of ``inside``.
        OSError: If it cannot be read.
    """
    if inside is not None:
        require_inside(path, inside)
    with open_ordinary(path) as file:
        content = file.read(most + 1)
    require(len(content) <= most, f"'{path}' has more than the {most:,} bytes that such a file may have")
    return content


def require_inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Refuse a path out of a folder that somebody else may have made, by links or by dots.

    Raises:
        InputError: If it leads out of the folder.
    """
    led = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    require(led, f"'{os.fspath(path)}' leads out of its folder by a link: remove the link")


@contextmanager
def open_ordinary(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file to read it.

    Raises:
        InputError: If it is no ordinary file, or large and mostly never written: a file of terabytes can be made
            without writing any.
        OSError: If it cannot be opened.
    """
    # A pipe that nobody writes to would block already when it is opened.
    how = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    require("\0" not in os.fspath(path), f"{preview(os.fspath(path))} is no path: it holds a NUL character")
    with open(os.open(path, how), "rb") as file:
        about = os.fstat(file.fileno())
        require(stat.S_ISREG(about.st_mode), f"'{os.fspath(path)}' is not an ordinary file")
        written = 512 * getattr(about, "st_blocks", about.st_size)
        filled = about.st_size <= _LITTLE or 2 * written >= about.st_size
        require(filled, f"most of the {about.st_size:,} bytes of '{os.fspath(path)}' were never written")
        yield file


@dataclass(frozen=True)
class FileHash:
    """What a file is known by.

    Attributes:
        bytes: Its size.
        sha256: Of its bytes, in hexadecimal digits.
    """

    bytes: int
    sha256: str


def file_hash(path: str | os.PathLike[str]) -> FileHash:
    """What an ordinary file is known by.

    Raises:
        InputError: If it is no ordinary file.
        OSError: If it cannot be read.
    """
    with open_ordinary(path) as file:
        size = os.fstat(file.fileno()).st_size
        return FileHash(size, hashlib.file_digest(file, "sha256").hexdigest())  # type: ignore[arg-type]


def is_file_of(path: str | os.PathLike[str], known: FileHash) -> bool:
    """Whether a file is the one that is known; one of another size is not opened."""
    return os.path.isfile(path) and os.path.getsize(path) == known.bytes and file_hash(path) == known


def check_json(text: str, what: str, *, most: int = MOST_JSON) -> None:
    """Refuse JSON that would cost too much to parse; the number of its parts is limited in proportion to its length.

    Raises:
        InputError: If it is longer than ``most``, or has too many parts.
    """
    require(len(text) <= most, f"{what} has more than {most:,} bytes of JSON")
    containers, commas = text.count("[") + text.count("{"), text.count(",")
    most_containers, most_commas = (limit * most // MOST_JSON for limit in (_MOST_CONTAINERS, _MOST_COMMAS))
    require(containers <= most_containers, f"{what} has more than {most_containers:,} lists and objects")
    require(commas <= most_commas, f"{what} has more than {most_commas:,} values")


def parse_json(text: str | bytes, what: str, *, most: int = MOST_JSON) -> Any:
    """Parse JSON that somebody else wrote; NaN and infinities are taken, as Python writes them.

    Args:
        text: The JSON.
        what: What it is, for the sentence.
        most: Bytes or characters that it may have.

    Raises:
        InputError: If it is too long, not JSON, too deep, has a name twice in one object, or a whole number of
            more than 100 digits.
    """
    require(len(text) <= most, f"{what} has more than {most:,} bytes of JSON")
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not JSON: byte {error.start + 1} is not UTF-8") from None
    check_json(text, what, most=most)
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_whole)
    except RecursionError:
        raise InputError(f"{what} is not JSON that can be read: it is nested too deeply") from None
    except InputError as refused:
        raise InputError(f"{what} is not JSON that can be read: {refused}") from None
    except ValueError as error:
        raise InputError(f"{what} is not JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, each of whose names stands there once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise InputError(f"the name {preview(twice)} stands twice in one object")
    return found


def _whole(digits: str) -> int:
    """A whole number; Python takes time for long ones that grows with the square of their length."""
    require(len(digits) <= _MOST_DIGITS, f"a whole number has {len(digits):,} digits, more than {_MOST_DIGITS}")
    return int(digits)


def preview(value: object, most: int = 60) -> str:
    """A value from a file as a sentence can hold it: on one line, without control characters, short.

    Of what holds other things only its type is named: written out, a few bytes of them can be endless.
    """
    if not isinstance(value, str | bytes | int | float | None):
        return _ENGLISH.get(type(value), type(value).__name__)
    text = repr(value[: most + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


_ENGLISH: dict[type, str] = {dict: "an object", list: "a list", tuple: "a list"}


def read_typed(kind: type[Kind], value: object, where: str) -> Kind:
    """Check a value from a file against a type.

    Nothing is converted from another kind: "3" is no number and true is none, but whole numbers are numbers. A
    dataclass is made of a JSON object: in it lists become tuples and text becomes a path where the fields say so.

    Args:
        kind: Any type that pydantic knows: ``dict``, ``list[str]``, a TypedDict, a dataclass ...
        value: What `parse_json` gave.
        where: What the value is; the sentence begins with it.

    Returns:
        The value, as that type.

    Raises:
        InputError: If it is of another type; the sentence says where, what was expected and what was found.
    """
    from pydantic import ValidationError  # 0.1 s that `--help` need not wait

    adapter: TypeAdapter[Kind] = _adapter(kind)  # type: ignore[arg-type]
    try:
        if is_dataclass(kind):
            return adapter.validate_json(json.dumps(value), strict=True)
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        cause = error.errors()[0].get("ctx", {}).get("error") if error.error_count() == 1 else None
        raise cause if isinstance(cause, InputError) else InputError(f"{where} {_complaint(error, value)}") from None
    except RecursionError:
        raise InputError(f"{where} is nested too deeply") from None


def get_typed(holder: object, name: str, kind: type[Kind], where: str) -> Kind:
    """What stands under a name in a JSON object, as `read_typed` checks it.

    Raises:
        InputError: If ``holder`` is no object, has no such name, or something of another type there.
    """
    found = read_typed(dict, holder, where)
    require(name in found, f"{where} has no '{name}'")
    return read_typed(kind, found[name], f"'{name}' in {where}")


@lru_cache(maxsize=100)
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    """What checks values against a type; making it takes longer than using it."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _complaint(error: "ValidationError", value: Any) -> str:
    """The first of the errors that pydantic found, as the end of a sentence; a file may hold a million."""
    if error.error_count() > 1000:
        return f"holds {error.error_count():,} values of another type"
    first = error.errors(include_url=False)[0]
    place = []
    for part in first["loc"]:  # also says which type of a union did not fit
        try:
            value = value[part]
        except (TypeError, LookupError):
            break
        place.append(part)
    named = preview(".".join(map(str, place)))
    if first["type"] == "missing":
        return f"has no {preview(first['loc'][-1])}"
    if first["type"] == "extra_forbidden":
        return f"has an unknown part {named}"
    message = first["msg"]
    if not message.startswith("Input should be "):
        return f"cannot be read at {named}: {message[:200]}" if place else f"cannot be read: {message[:200]}"
    expected, found = message.removeprefix("Input should be "), preview(first["input"])
    return f"must have {expected} as {named}, found {found}" if place else f"must be {expected}, found {found}"


_most_weights: ContextVar[int] = ContextVar("most_weights", default=_MOST_WEIGHTS)


@contextmanager
def most_weights(number: int) -> Iterator[None]:
    """Refuse to build larger networks inside the ``with``: what a file describes may be no larger than the file.

    Args:
        number: Weights of one network; at most what is allowed outside.
    """
    token = _most_weights.set(min(number, _most_weights.get()))
    try:
        yield
    finally:
        _most_weights.reset(token)


def check_weights(number: int, what: str) -> None:
    """Refuse a network before memory is taken for it.

    Args:
        number: Its weights.
        what: What it is, for the sentence.

    Raises:
        InputError: If it would have more than `most_weights` (2^28 where nothing else is said).
    """
    most = _most_weights.get()
    require(number <= most, f"{what} of these sizes would have {number:,} weights, expected at most {most:,}")
