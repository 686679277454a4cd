"""SeqGAN's published oracle weights, and those of others, read from files that may be anybody's."""

import ast
import io
import math
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from textgan_env.text.dataset import PathLike
from textgan_env.utils.errors import InputError, MissingDataError, require
from textgan_env.utils.reading import check_weights, read_limited, shown

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
        self.content_of = io.BytesIO(content)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> object:
        """What the pickle holds.

        Raises:
            Exception: Of any kind, if it is not a pickle of arrays.
        """
        for _ in range(self._MOST_INSTRUCTIONS):
            code = self._CODES.get(self.content_of.read(1).decode("latin1"))
            require(code is not None, "it holds something that is no instruction of a pickle, or ends too early")
            assert code is not None
            if code.name == "STOP":
                (found,) = self._stack
                return found
            if code.name == "STRING":  # Python 2's, with bytes as \x escapes
                argument = ast.literal_eval("b" + self.content_of.readline().decode("ascii").strip()).decode("latin1")
                self._stack.append(argument)
                continue
            argument = None if code.arg is None else code.arg.reader(self.content_of)
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
