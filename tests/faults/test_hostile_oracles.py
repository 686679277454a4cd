"""Files of oracle weights made to do harm: each is refused, runs nothing, and takes next to no memory or time."""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from faults.corruptions import MARKER, Harm
from faults.watching import Meter, nothing_happens
from textgan_env.text.oracle_weights import ORACLE_ARRAYS, read_oracle_weights
from textgan_env.utils.errors import InputError
from textgan_env.utils.reading import most_weights

_ARRAY = pickle.dumps(np.zeros(3, np.float32), 2)[2:-1]  # the instructions that make one
_TWICE = b"h\x00h\x00\x86q\x00"  # a pair of what is kept at 0, kept at 0
_LATIN1 = b"c_codecs\nencode\n"


def _npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ORACLE_ARRAYS:
            archive.writestr(f"{name}.npy", members.get(name, _npy("(2, 2)", bytes(16))))
    return file.getvalue()


def _npy(shape: str, content: bytes, kind: str = "<f4") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def _packed_otherwise() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        for name in ORACLE_ARRAYS:
            archive.writestr(f"{name}.npy", _npy("(2, 2)", bytes(16)))
    return file.getvalue()


def _many_files() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(3000):
            archive.writestr(f"{number}", b"")
    return file.getvalue()


HOSTILE: dict[str, bytes | Callable[[], bytes]] = {
    # A pickle is a program; these ask for something to be run.
    "calls os.system": b"cos\nsystem\n(S'mkdir harm'\ntR.",
    "calls builtins by protocol 4": pickle.dumps([Harm()], 4),
    "calls what it names without a name": b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93\x8c\x04harm\x85R.",
    "numpy.load": b"cnumpy\nload\n(S'x.npy'\ntR.",
    "numpy.memmap writes a file": b"cnumpy\nmemmap\n(S'harm'\nS'f4'\nS'w+'\nI0\n(I4\nttR.",
    "numpy's own helper": b"cnumpy.core.multiarray\nscalar\n(S'x'\ntR.",
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93.",
    "instance instruction": b"(S'mkdir harm'\nios\nsystem\n.",
    "object instruction": b"(cos\nsystem\nS'mkdir harm'\no.",
    "newobj": b"\x80\x02cnumpy\nndarray\nI5\n\x85\x81.",
    "newobj with keywords": b"\x80\x04cnumpy\nndarray\n)}\x92.",
    "extension registry": b"\x80\x02\x82\x01.",
    "persistent id": b"Psomething\n.",
    "out-of-band buffer": b"\x80\x05\x97.",
    # These change what later reads would do.
    "sets attributes of our function": _LATIN1 + b"}S'x'\nI1\nsb.",
    "sets slots of our function": _LATIN1 + b"(N}S'__defaults__'\n(S'latin1'\ntstb.",
    "gives a class a state": b"cnumpy\ndtype\n(I1\nI2\nI3\ntb.",
    "calls an array": _ARRAY + b"(tR.",
    "calls the type of arrays as a class": b"cnumpy\nndarray\n(I1099511627776\ntR.",
    "appends to a tuple": b")I1\na.",
    "stack is empty": b"\x80\x02a.",
    "mark without end": b"\x80\x02((((.",
    "get before put": b"\x80\x02h\x05.",
    # These are small and ask for much.
    "memo of four thousand million": b"\x80\x02Nr\xff\xff\xff\xff.",
    "memo of a thousand million": b"\x80\x02Nr\xff\xff\xff\x3f.",
    "bytes of 2^60": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".",
    "text of 4 GB": b"\x80\x04X\xff\xff\xff\xff.",
    "array of bytes of 2^40": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "frame of 2^60": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
    "long of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f1.",
    "long of many digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "a pair of a pair of ...": b"\x80\x02)q\x00" + _TWICE * 2000 + b".",
    "a pair of a pair of ... as a name": b"\x80\x04)q\x00" + _TWICE * 60 + b"h\x00\x93.",
    "a pair of a pair of ... as a type": b"\x80\x02]" + b")q\x00" + _TWICE * 60 + b"cnumpy\ndtype\nh\x00\x85Ra.",
    "millions of instructions": b"\x80\x02" + b"N0" * 5_000_000,
    "millions of marks": b"(" * 10_000_000,
    "deep lists": b"]" * 9000 + b"a" * 8999 + b".",
    "objects in an array": pickle.dumps([np.array([Harm()], dtype=object)], 2),
    "array of 2^60": _ARRAY.replace(b"K\x03\x85", b"\x8a\x08" + b"\0" * 7 + b"\x10\x85") + b".",
    "array of minus one": _ARRAY.replace(b"K\x03\x85", b"J\xff\xff\xff\xff\x85") + b".",
    "array whose state is short": b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\ntb.",
    "literal that is no text": b"S9**9**9**9\n.",
    "literal that calls": b"S__import__('os').mkdir('harm')\n.",
    # Archives.
    "zip bomb": lambda: _npz(embedding=_npy("(10000, 10000)", bytes(400_000_000))),
    "zip that lies about shapes": lambda: _npz(embedding=_npy("(1099511627776, 1099511627776)", bytes(16))),
    "zip with a negative shape": lambda: _npz(embedding=_npy("(-1, -4)", bytes(16))),
    "zip with objects": lambda: _npz(embedding=_npy("(2, 2)", pickle.dumps([Harm()]), "|O")),
    "zip with a header that calls": lambda: _npz(embedding=_npy("__import__('os').mkdir('harm')", bytes(16))),
    "zip with a deep header": lambda: _npz(embedding=_npy("(" * 9000, bytes(16))),
    "zip of empty arrays": lambda: _npz(**{name: _npy("(0, 1099511627776)", b"") for name in ORACLE_ARRAYS}),
    "zip packed by lzma": _packed_otherwise,
    "zip of thousands of files": _many_files,
    "zip cut": lambda: _npz()[:-40],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_of_weights_is_refused_in_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = HOSTILE[name]
    path = tmp_path / "oracle.pkl"
    path.write_bytes(made() if callable(made) else made)
    functions = {
        name: (vars(thing).copy() if hasattr(thing, "__dict__") else None) for name, thing in vars(data).items()
    }
    with nothing_happens(), Meter() as meter, pytest.raises(InputError) as caught:
        read_oracle_weights(path)
    assert str(caught.value).startswith(f"'{path}'")
    assert len(str(caught.value)) < 1000
    assert meter.memory < 200 * 2**20, f"{meter.memory / 2**20:.0f} MB"
    assert os.listdir(tmp_path) == ["oracle.pkl"]
    after = {name: (vars(thing).copy() if hasattr(thing, "__dict__") else None) for name, thing in vars(data).items()}
    assert after == functions
    assert not (tmp_path / MARKER).exists()


def test_arrays_that_share_their_bytes_may_ask_for_no_more_than_an_oracle_has(tmp_path: Path) -> None:
    side = 1000
    array = np.zeros((side, side), np.float16)
    flat = np.zeros(side, np.float16)
    arrays = [flat if name[0] == "b" else array for name in ORACLE_ARRAYS]
    path = tmp_path / "oracle.pkl"
    path.write_bytes(pickle.dumps(arrays, 2))
    assert path.stat().st_size < 2.1 * array.nbytes
    with most_weights(4 * side**2), pytest.raises(InputError, match="would have 10,005,000 weights, expected at most"):
        read_oracle_weights(path)


def test_a_pipe_in_place_of_weights_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "oracle.pkl")
    with pytest.raises(InputError, match="is not an ordinary file"):
        read_oracle_weights(tmp_path / "oracle.pkl")
    with pytest.raises(InputError, match="is not an ordinary file"):
        read_oracle_weights("/dev/zero")


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_what_python_2_wrote_is_read_in_each_of_its_protocols(tmp_path: Path, protocol: int) -> None:
    arrays = {name: np.full((2, 2), at + 0.5, "<f4") for at, name in enumerate(ORACLE_ARRAYS)}
    arrays |= {name: np.full(2, -1.5, "<f4") for name in ORACLE_ARRAYS if name.startswith("b")}
    path = tmp_path / "oracle.pkl"
    path.write_bytes(pickle.dumps(["numpy", 1], protocol))  # the opening of the protocol
    opening = {0: b"", 1: b"", 2: b"\x80\x02"}[protocol]
    path.write_bytes(
        opening + b"(l" + b"".join(_as_python_2(array, protocol) + b"a" for array in arrays.values()) + b"."
    )
    found = read_oracle_weights(path)
    assert all(np.array_equal(found[name], arrays[name]) for name in ORACLE_ARRAYS)


def _as_python_2(array: np.ndarray, protocol: int) -> bytes:
    """How Python 2 wrote an array: names of its day, and bytes as 8-bit strings."""

    def string(content: bytes) -> bytes:
        if protocol == 0:
            return b"S" + repr(content)[1:].encode() + b"\n"
        return b"U" + bytes([len(content)]) + content

    shape = b"(" + b"".join(b"I%d\n" % size for size in array.shape) + b"t"
    kind = b"cnumpy\ndtype\n(" + string(b"f4") + b"I0\nI1\ntR(I3\n" + string(b"<") + b"NNNI-1\nI-1\nI0\ntb"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt" + string(b"b") + b"tR"
    return made + b"(I1\n" + shape + kind + b"I00\n" + string(array.tobytes()) + b"tb"
