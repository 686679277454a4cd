"""Files that somebody else may have made: read whole, up to a limit, and checked before anything is done with them.

Whatever stands in such a file is data: it is compared with what was expected, and never executed, imported or
unpickled. What reading may cost is decided here, before it is paid.
"""

import json
import os
import stat
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from textgan_env.utils.errors import InputError, require

#: Bytes of one JSON text: a vocabulary of half a million words; parsed, at most some 200 MB.
MOST_JSON = 2**23
_MOST_CONTAINERS = 2**17  # lists and objects in one JSON text
_MOST_DIGITS = 100
_MOST_WEIGHTS = 2**28  # 1 GiB as float32

Kind = TypeVar("Kind")


def read_limited(path: str | os.PathLike[str], most: int) -> bytes:
    """Read a file whole.

    Args:
        path: An ordinary file; links to one are followed.
        most: Bytes that it may have.

    Raises:
        InputError: If it is no ordinary file (a device or a pipe may never end), or larger.
        OSError: If it cannot be read.
    """
    path = Path(path)
    # A pipe that nobody writes to would block already when it is opened.
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
        require(stat.S_ISREG(os.fstat(file.fileno()).st_mode), f"'{path}' is not an ordinary file")
        content = file.read(most + 1)
    require(len(content) <= most, f"'{path}' has more than the {most:,} bytes that such a file may have")
    return content


def parse_json(text: str | bytes, what: str) -> Any:
    """Parse JSON that somebody else wrote; NaN and infinities are taken, as Python writes them.

    Args:
        text: At most `MOST_JSON` bytes or characters.
        what: What it is, for the sentence.

    Raises:
        InputError: If it is too long, not JSON, too deep, has a name twice in one object, or a whole number of
            more than 100 digits.
    """
    require(len(text) <= MOST_JSON, f"{what} has more than {MOST_JSON:,} bytes of JSON")
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        require(
            text.count("[") + text.count("{") <= _MOST_CONTAINERS,
            f"{what} has more than {_MOST_CONTAINERS:,} lists and objects",
        )
        return json.loads(text, object_pairs_hook=_object, parse_int=_whole)
    except RecursionError:
        raise InputError(f"{what} is not JSON that can be read: it is nested too deeply") from None
    except _Refused as refused:
        raise InputError(f"{what} is not JSON that can be read: {refused}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not JSON: byte {error.start + 1} is not UTF-8") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{what} is not JSON: {error}") from None


class _Refused(Exception):
    """Why well-formed JSON is not taken."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _Refused(f"the name {shown(twice)} stands twice in one object")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise _Refused(f"a whole number has {len(digits):,} digits, more than {_MOST_DIGITS}")
    return int(digits)


def shown(value: object, most: int = 60) -> str:
    """A value from a file as a sentence can hold it: on one line, without control characters, short.

    Of what holds other things only its kind is said: written out, a few bytes of them can be endless.
    """
    if not isinstance(value, str | bytes | int | float | None):
        return _ENGLISH.get(type(value), type(value).__name__)
    text = repr(value[: most + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def member(holder: object, name: str, kind: type[Kind], where: str) -> Kind:
    """What stands under a name in a JSON object.

    Raises:
        InputError: If ``holder`` is no object, has no such name, or something of another kind there; the sentence
            begins with ``where``.
    """
    require(
        isinstance(holder, Mapping) and name in holder,
        f"{where} has no '{name}', expected {_ENGLISH.get(kind, kind.__name__)} there",
    )
    assert isinstance(holder, Mapping)
    found = holder[name]
    if not fits(found, kind):
        raise InputError(f"{where} must have {_ENGLISH.get(kind, kind.__name__)} as '{name}', found {shown(found)}")
    return found  # type: ignore[no-any-return]


_ENGLISH: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    tuple: "a list",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def fits(value: object, annotation: Any) -> bool:
    """Whether a value is of an annotated type; whole numbers are numbers, true and false are not.

    What is not known here (a class of our own, say) is taken as fitting: its owner checks it.
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if annotation is None or annotation is type(None):
        return value is None
    if annotation in (int, float):
        number = Integral if annotation is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if isinstance(origin, type) and issubclass(origin, Iterable):
        inner = [part for part in parts if part is not ...]
        is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return is_list and all(any(fits(one, part) for part in inner) for one in value)  # type: ignore[attr-defined]
    if origin in (os.PathLike, os.PathLike[str]) or annotation in (Path, os.PathLike):
        return isinstance(value, str | os.PathLike)
    if annotation in (str, bool, dict, list, bytes):
        return isinstance(value, annotation)
    return True


def told(annotation: Any) -> str:
    """An annotated type as a sentence can hold it."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


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
