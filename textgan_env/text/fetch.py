"""Published files: found in the data folder or downloaded there, each known by its checksum."""

import hashlib
import http.client
import os
import urllib.request
from pathlib import Path

from tqdm import tqdm

from textgan_env.text.corpora import DataFile
from textgan_env.text.dataset import PathLike
from textgan_env.utils.errors import MissingDataError, require
from textgan_env.utils.files import write_safely
from textgan_env.utils.reading import file_hash


def cache_dir() -> Path:
    """Give the folder of downloaded and derived files.

    It is ``$TEXTGAN_DATA``, else ``$XDG_CACHE_HOME/textgan_env``, else ``~/.cache/textgan_env``; it need not exist.
    """
    if own := os.environ.get("TEXTGAN_DATA"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "textgan_env"


def data_folder(data_dir: PathLike | None) -> Path:
    """The folder that was given, or `cache_dir`."""
    return cache_dir() if data_dir is None else Path(data_dir).expanduser()


def fetch(file: DataFile, *, data_dir: PathLike | None = None) -> Path:
    """Find a published file in the data folder, or download it there.

    What is downloaded is checked before it is written, and it is written whole or not at all.

    Args:
        file: Which one.
        data_dir: The folder; None: `cache_dir`.

    Returns:
        The path of the file, whose checksum is right.

    Raises:
        InputError: If the file in the folder, or what was downloaded, has another checksum.
        MissingDataError: If it is not in the folder and cannot be downloaded or kept.
    """
    folder = data_folder(data_dir)
    for form in (file.instead, file):
        if form is not None and (folder / form.name).exists():
            path = folder / form.name
            require(path.is_file(), f"'{path}' is no file, expected the published {path.name}")
            why = f"'{path}' is not the published file (SHA-256 is not {form.sha256}): remove it to fetch it again"
            require(is_whole(path, form.sha256), why)
            return path
    path = folder / file.name
    by_hand = f"download {file.url} and save it as '{path}', or set TEXTGAN_DATA to the folder that holds {file.name}"
    try:
        content = _download(file)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)  # without "<urlopen error ...>" around it
        raise MissingDataError(f"{file.name} is not here and cannot be fetched ({reason}): {by_hand}") from None
    found = hashlib.sha256(content).hexdigest()
    other = f"{file.url} gave another file (SHA-256 {found}, expected {file.sha256}), so nothing was kept"
    require(found == file.sha256, other)
    try:
        keep_file(path, content)
    except OSError as error:
        raise MissingDataError(f"{file.name} cannot be kept ({error.strerror or error}): {by_hand}") from None
    return path


_MOST_DOWNLOADED = 2**26  # bytes, far above the largest file: what never ends is not kept in memory


def _download(file: DataFile) -> bytes:
    """The bytes of a published file, with a progress bar on a terminal; what never ends is given up."""
    content = bytearray()
    with urllib.request.urlopen(file.url, timeout=30) as answer:
        said = answer.headers.get("Content-Length") or ""
        size = int(said) if said.isascii() and said.isdecimal() and len(said) < 12 else None
        with tqdm(total=size, desc=file.name, unit="B", unit_scale=True, disable=None) as bar:
            while chunk := answer.read(1 << 16):
                content += chunk
                bar.update(len(chunk))
                require(len(content) <= _MOST_DOWNLOADED, f"{file.url} gave more than {_MOST_DOWNLOADED:,} bytes")
    return bytes(content)


def keep_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also when several processes do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_safely(own, content)
        os.replace(own, path)
    finally:
        own.unlink(missing_ok=True)


def is_whole(path: Path, sha256: str) -> bool:
    """Whether a file is there and has this checksum."""
    return path.is_file() and file_hash(path).sha256 == sha256
