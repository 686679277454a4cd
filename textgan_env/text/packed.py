"""Files that are packed: gzip, bzip2, xz, zip."""

import bz2
import errno
import gzip
import lzma
import zipfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from textgan_env.utils.errors import InputError, require

#: What reading a packed file can raise where it is not whole, see `is_broken`.
BROKEN = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, OSError)
# How packed files begin.
_MARKS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip", b"(\xb5/\xfd": "zstd"}
_OPENERS: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
_ENDINGS = (".gz", ".bz2", ".xz")


def unpacked(path: Path, held: ExitStack) -> tuple[IO[bytes], str, str | None]:
    """Open a file, and unpack it while it is read if its first bytes say that it is packed.

    Args:
        path: The file.
        held: Closes it.

    Returns:
        Its bytes; the name of what is in it; what it is packed with, None: it is not.

    Raises:
        InputError: If it cannot be unpacked here, or is an archive of several files.
    """
    file = held.enter_context(path.open("rb"))
    begin = file.peek(6)[:6]
    packing = next((name for mark, name in _MARKS.items() if begin.startswith(mark)), None)
    if packing is None:
        return file, path.name, None
    if packing == "zip":
        return *_only_member(path, file, held), packing
    require(packing in _OPENERS, f"'{path}' is packed with {packing}, expected gzip, bzip2, xz or zip: unpack it first")
    inside = path.stem if path.suffix.lower() in _ENDINGS else path.name
    return held.enter_context(_OPENERS[packing](file)), inside, packing


def is_broken(error: Exception) -> bool:
    """Whether one of `BROKEN` says that a file is not whole, and not that the disk cannot be read."""
    return not isinstance(error, OSError) or error.errno in (None, errno.EINVAL)


def _only_member(path: Path, file: IO[bytes], held: ExitStack) -> tuple[IO[bytes], str]:
    """The only file of a zip archive, and its name."""
    try:
        archive = held.enter_context(zipfile.ZipFile(file))
    except BROKEN as error:
        raise InputError(f"'{path}' is no whole zip archive: {error}") from None
    members = [member for member in archive.infolist() if not member.is_dir()]
    named = ", ".join(member.filename for member in members[:5])
    require(len(members) == 1, f"'{path}' holds {len(members)} files ({named}), expected one: unpack it first")
    require(not members[0].flag_bits & 1, f"'{path}' has a password: unpack it first")
    try:
        return held.enter_context(archive.open(members[0])), members[0].filename
    except (*BROKEN, NotImplementedError, RuntimeError) as error:
        raise InputError(f"'{path}' cannot be unpacked: {error}") from None
