"""Published files: found in the data folder or downloaded there, each known by its checksum."""

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from textgan_env.text.dataset import PathLike
from textgan_env.utils.errors import MissingDataError, require
from textgan_env.utils.files import write_safely

# --------------------------------------------------------------------------------------------- named corpora


@dataclass(frozen=True)
class DataFile:
    """A published file, by its checksum.

    Attributes:
        name: What it is called in the data folder.
        repo: The GitHub repository that has it, ``owner/name``.
        commit: The commit it was read at (its first digits), for the record.
        path: Its path there.
        sha256: Its checksum.
        instead: Name and checksum of a file that holds the same in another form and is taken where it lies.
    """

    name: str
    repo: str
    commit: str
    path: str
    sha256: str
    instead: tuple[str, str] | None = None

    @property
    def url(self) -> str:
        """Where it is downloaded from: the main branch, because an address needs all digits of a commit.

        The checksum decides whether that still is the file meant.
        """
        return f"https://raw.githubusercontent.com/{self.repo}/master/{self.path}"


#: The published files by name.
FILES: dict[str, DataFile] = {
    "coco-train": DataFile(
        "coco_train.txt",
        "geek-ai/Texygen",
        "3104e22",
        "data/image_coco.txt",
        "2c0fd1f0f43aac6a9dc3926a535516ccf395de535e15ac1fd17cd569420736f5",
    ),
    "coco-test": DataFile(
        "coco_test.txt",
        "geek-ai/Texygen",
        "3104e22",
        "data/testdata/test_coco.txt",
        "72e25c9fb4d2cd43182ac602c92f6ffc377762147f9709572943b0b09174bcae",
    ),
    "emnlp-train": DataFile(
        "emnlp_train10k.txt",
        "pclucas14/GansFallingShort",
        "e6be915",
        "real_data_experiments/data/news/valid.txt",
        "e66a6fdd1f6cb15cb8f851051e5c49062270e0de1e69213289ce50b88a1d7281",
    ),
    "emnlp-test": DataFile(
        "emnlp_test.txt",
        "geek-ai/Texygen",
        "3104e22",
        "data/testdata/test_emnlp.txt",
        "03c646d08f766f4140443db4419b1f0ee292bc0db514208873e9f2e166b95bd2",
    ),
    "poems": DataFile(
        "poems.txt",
        "geek-ai/Texygen",
        "3104e22",
        "data/shi.txt",
        "ac03c5fbb07776f0e43cb1ccfc74732f5313ab3d832df81c8e0db327df35e666",
    ),
    "oracle": DataFile(
        "target_params_py3.pkl",
        "LantaoYu/SeqGAN",
        "e2b52fb",
        "save/target_params_py3.pkl",
        "5ac794a695dd6e0eb2bb689f3dfda55e4e0053e8c0399e6242630a95f1e60e8a",
        ("oracle_seqgan.npz", "4f1a3c02bcce12b528caa4f38505393ab6d276c8501b18539b69023e34c433d4"),
    ),
}


def find_file(name: str, *, data_dir: PathLike | None = None) -> Path:
    """Find one of the published `FILES`, or `fetch` it.

    Raises:
        InputError: If the name is unknown, or the file is not the published one.
        MissingDataError: If it is not in the folder and cannot be downloaded or kept.
    """
    require(name in FILES, f"unknown file {name!r}, expected one of: {', '.join(FILES)}")
    return fetch(FILES[name], data_dir=data_dir)


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


def fetch(file: DataFile, *, data_dir: PathLike | None = None, progress: bool = True) -> Path:
    """Find a published file in the data folder, or download it there.

    What is downloaded is checked before it is written, and it is written whole or not at all.

    Args:
        file: Which one.
        data_dir: The folder; None: `cache_dir`.
        progress: Whether to show a progress bar (on a terminal).

    Returns:
        The path of the file, whose checksum is right.

    Raises:
        InputError: If the file in the folder, or what was downloaded, has another checksum.
        MissingDataError: If it is not in the folder and cannot be downloaded or kept.
    """
    folder = data_folder(data_dir)
    for name, sha256 in filter(None, (file.instead, (file.name, file.sha256))):
        if (folder / name).exists():
            return _verified(folder / name, sha256)
    path = folder / file.name
    by_hand = f"download {file.url} and save it as '{path}', or set TEXTGAN_DATA to the folder that holds {file.name}"
    try:
        content = _download(file, progress)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)  # without "<urlopen error ...>" around it
        raise MissingDataError(f"{file.name} is not here and cannot be fetched ({reason}): {by_hand}") from None
    found = hashlib.sha256(content).hexdigest()
    require(
        found == file.sha256,
        f"{file.url} gave another file (SHA-256 {found}, expected {file.sha256}), so nothing was kept",
    )
    try:
        keep_file(path, content)
    except OSError as error:
        raise MissingDataError(f"{file.name} cannot be kept ({error.strerror or error}): {by_hand}") from None
    return path


_MOST_DOWNLOADED = 2**26


def _download(file: DataFile, progress: bool) -> bytes:
    content = bytearray()
    with urllib.request.urlopen(file.url, timeout=30) as answer:
        said = answer.headers.get("Content-Length") or ""
        size = int(said) if said.isascii() and said.isdecimal() and len(said) < 12 else None
        hidden = None if progress else True  # None: shown on a terminal only
        with tqdm(total=size, desc=file.name, unit="B", unit_scale=True, disable=hidden) as bar:
            while chunk := answer.read(1 << 16):
                content += chunk
                bar.update(len(chunk))
                # Far above the largest of `FILES`: what never ends is not kept in memory.
                require(len(content) <= _MOST_DOWNLOADED, f"{file.url} gave more than {_MOST_DOWNLOADED:,} bytes")
    return bytes(content)


def _verified(path: Path, sha256: str) -> Path:
    require(path.is_file(), f"'{path}' is no file, expected the published {path.name}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    require(
        found == sha256,
        f"'{path}' is not the published file (SHA-256 {found}, expected {sha256}): remove it to fetch it again",
    )
    return path


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
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def content_of(texts: Iterable[str]) -> bytes:
    """Texts as the bytes of a file, one a line."""
    return "".join(f"{text}\n" for text in texts).encode()
