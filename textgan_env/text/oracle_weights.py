"""The weights of an oracle: SeqGAN's published ones, and a user's own."""

import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgan_env.text.corpora import ORACLE_FILE
from textgan_env.text.dataset import PathLike
from textgan_env.utils.errors import InputError, MissingDataError, require, require_at_least
from textgan_env.utils.reading import check_weights, read_limited

#: Names of the arrays of an oracle's weights, in the order of SeqGAN's file.
ORACLE_ARRAYS = ("embedding", *(f"{kind}_{gate}" for gate in "ifoc" for kind in "WUb"), "W_out", "b_out")
_MOST_BYTES = 2**28  # of the file
_MOST_COMPRESSED = 20  # how far random weights can be compressed, with room
_MOST_FILES = 1000  # in an archive: each is kept as an object
_MOST_ITEM = 8  # bytes of a number
_NPY_HEADER = 128  # bytes, as numpy writes it


def read_oracle_weights(path: PathLike) -> dict[str, NDArray[np.float32]]:
    """Read the weights of an oracle LSTM from ``.npz``, or from the pickle that SeqGAN published.

    Nothing that stands in an ``.npz`` is executed, and sizes are checked before memory is taken. A pickle is a program:
    the published file alone, known by its checksum, is unpickled.

    Args:
        path: The file. An ``.npz`` holds the arrays by the names of `ORACLE_ARRAYS`.

    Returns:
        float32 arrays by name, for a vocabulary V, embedding E and hidden size H: ``embedding`` [V, E], input
        ``W_g`` [E, H], recurrent ``U_g`` [H, H], bias ``b_g`` [H] of the gates g = i, f, o, c; ``W_out`` [H, V],
        ``b_out`` [V].

    Raises:
        InputError: If the file is neither, or arrays are missing, not finite floats, or of shapes that do not fit.
        MissingDataError: If there is no file.
    """
    path = Path(path)
    require(not path.is_dir(), f"'{path}' is a folder, expected the weights of an oracle (.npz)")
    if not path.exists():
        raise MissingDataError(f"there is no file '{path}', expected the weights of an oracle (.npz)")
    content = read_limited(path, _MOST_BYTES)
    try:
        if content.startswith(b"PK"):
            arrays = _read_npz(content)
        else:
            published = hashlib.sha256(content).hexdigest() == ORACLE_FILE.sha256  # the only pickle that is read
            convert = "np.savez('oracle.npz', **dict(zip(textgan_env.text.oracle_weights.ORACLE_ARRAYS, arrays)))"
            require(published, f"it is no .npz file, and no pickle but SeqGAN's is read; to convert yours: {convert}")
            arrays = dict(zip(ORACLE_ARRAYS, _Unpickler(io.BytesIO(content), encoding="latin1").load(), strict=True))
        _check_arrays(arrays)
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused
            weights = {name: np.ascontiguousarray(arrays[name], dtype=np.float32) for name in ORACLE_ARRAYS}
        for name, values in weights.items():
            require(bool(np.isfinite(values).all()), f"{name} holds numbers that are not finite")
    except InputError as error:
        raise InputError(f"'{path}': {error}") from None
    except Exception as error:  # broken files, and those made to do harm, show themselves in many ways
        reason = str(error)[:200] or type(error).__name__
        raise InputError(f"'{path}' is not a .npz file of plain arrays: {reason}") from None
    return weights


class _Unpickler(pickle.Unpickler):
    """Gives numpy arrays, and looks up nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """A name that arrays are made of; their function for it has lain in different modules."""
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return np.empty(0).__reduce__()[0]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")):
            return super().find_class(module, name)
        raise InputError(f"it asks for {module}.{name}, which arrays do not need")


def _read_npz(content: bytes) -> Mapping[str, NDArray[Any]]:
    """The arrays of an archive, whose sizes are known from its directory before anything is unpacked."""
    require(content.count(b"PK\x01\x02") <= _MOST_FILES, f"it holds more than {_MOST_FILES:,} files")
    entries = zipfile.ZipFile(io.BytesIO(content)).infolist()
    # Other packings may ask for gigabytes before they give a byte.
    plain = all(entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries)
    require(plain, "it is packed in another way than numpy packs")
    names = {entry.filename.removesuffix(".npy") for entry in entries}
    missing, unknown = set(ORACLE_ARRAYS) - names, names - set(ORACLE_ARRAYS)
    wrong = f"missing: {', '.join(sorted(missing)) or 'none'}, unknown: {', '.join(sorted(unknown)) or 'none'}"
    require(not missing and not unknown, f"it must hold the arrays {', '.join(ORACLE_ARRAYS)}; {wrong[:300]}")
    whole, most = sum(entry.file_size for entry in entries), _MOST_COMPRESSED * len(content)
    require(whole <= most, f"it unpacks to {whole:,} bytes, more than {_MOST_COMPRESSED} times its {len(content):,}")
    check_weights((whole - _NPY_HEADER * len(entries)) // _MOST_ITEM, "an oracle")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in ORACLE_ARRAYS}


def oracle_shapes(vocab_size: int, embed_size: int, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """The shape of each array of an oracle, in the order of `ORACLE_ARRAYS`."""
    gate = {"W": (embed_size, hidden_size), "U": (hidden_size, hidden_size), "b": (hidden_size,)}
    ends = {"embedding": (vocab_size, embed_size), "W_out": (hidden_size, vocab_size), "b_out": (vocab_size,)}
    return {name: ends.get(name) or gate[name[0]] for name in ORACLE_ARRAYS}


def _check_arrays(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse what is no LSTM.

    Raises:
        InputError: If types or shapes do not fit; the sentence names the array.
    """
    for name, values in arrays.items():
        require(values.dtype.kind == "f", f"{name} must hold floats, found {values.dtype}")
    for name in ("embedding", "U_i"):
        require(arrays[name].ndim == 2, f"{name} must have 2 axes, found {arrays[name].ndim}")
    (size, inputs), hidden = arrays["embedding"].shape, len(arrays["U_i"])
    for name, expected in oracle_shapes(size, inputs, hidden).items():
        found = arrays[name].shape
        require(found == expected, f"{name} must have the shape {expected}, found {found}")
    require_at_least(1, V=size, E=inputs, H=hidden)
    check_weights(sum(values.size for values in arrays.values()), "an oracle")
