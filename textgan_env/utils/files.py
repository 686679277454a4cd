"""Files that a reader finds whole: replaced in one step, added to at the end; and a lock that one process has.

Where this process holds the lock of a folder, nothing is written below that folder's path unless the lock that lies
there still is the one held: a folder that was renamed may have given its name to another one.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from textgan_env.utils.errors import InputError, require

# The locks that this process holds: absolute path -> which file it is, by device and number.
_held: dict[Path, tuple[int, int] | None] = {}


def write_safely(
    path: str | os.PathLike[str], content: bytes | str, *, keep: str | os.PathLike[str] | None = None
) -> None:
    """Replace a file in one step.

    The content goes to a hidden file in the same folder, is forced onto the disk, and then takes the place of
    the old file by a rename, which the file system does whole or not at all. A kill or a power cut at any
    moment leaves the old file or the new one. A kill may also leave the hidden file; the next write of the
    same path takes it over, which is why its name is fixed and why only one process may write a given path at
    a time.

    Args:
        path: The file to write; its folder must exist.
        content: What it will hold; text is written as UTF-8 with its line ends as they are.
        keep: The name that the old file has from then on; ``None``: it is gone.

    Raises:
        InputError: As `check_lock`.
        OSError: If the content cannot be written (disk full, no permission); the old file is then as it was,
            the hidden file is gone, and the error names ``path``.
    """
    check_lock(path)
    path = Path(path)
    beside = path.with_name(f".{path.name}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        # Made overrides: in a folder from somebody else the name could be a link to another file.
        beside.unlink(missing_ok=True)
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        check_lock(path)  # a large file takes a while
        if keep is not None and path.exists():
            _rename_too(path, Path(keep))
        _replace(beside, path)
        _sync_folder(path.parent)
    except BaseException as error:  # Ctrl-C, too, must not leave the hidden file
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise


def append_safely(path: str | os.PathLike[str], text: str) -> None:
    """Add text to the end of a file, or nothing at all.

    The text is handed to the operating system before the call returns, so that killing the process loses none
    of it (a power cut may lose the last seconds).

    Args:
        path: The file; it is made when it is not there.
        text: What to add, written as UTF-8 with its line ends as they are.

    Raises:
        InputError: As `check_lock`.
        OSError: If the text cannot be written; the file is then as long as before, and the error names
            ``path``.
    """
    check_lock(path)
    path = Path(path)
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(text.encode())
    except OSError as error:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        error.filename = str(path)
        raise


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], refusal: Callable[[], str]) -> Iterator[None]:
    """Keep every other process out while a file is locked; the lock ends with the process, however it ends.

    Args:
        path: The lock, an empty file that stays; its folder must exist.
        refusal: Makes the sentence for whoever comes while another process has it.

    Raises:
        InputError: If another process has it, or the lock is a link.
        OSError: If the lock cannot be made, e.g. because the folder is read-only.
    """
    from filelock import FileLock, Timeout  # 20 ms that `--help` need not wait

    path = Path(path).absolute()
    # Some versions empty the file that is opened, and a folder of somebody else may hold a link to another one.
    require(not path.is_symlink(), f"the lock '{path}' is a link: remove it")
    require(path.is_file() or not path.exists(), f"the lock '{path}' is no ordinary file: remove it")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(refusal()) from None
    try:
        _held[path] = _which_file(path)
        yield
    finally:
        _held.pop(path, None)
        lock.release()


def check_lock(path: str | os.PathLike[str]) -> None:
    """Refuse to write a file into a folder that this process has locked and that is not there any more.

    Args:
        path: The file.

    Raises:
        InputError: If the lock that now lies in the folder is not the one that is held.
    """
    for lock, held in list(_held.items()):
        if lock.parent in Path(path).absolute().parents:
            gone = f"folder '{lock.parent}' is not the one any more that this process began to write"
            how = "it was moved or removed, so nothing more is written; what was saved before is whole, where it is now"
            require(_which_file(lock) == held, f"{gone}: {how}")


def _which_file(path: Path) -> tuple[int, int] | None:
    """Device and number of a file; None where there is none."""
    try:
        about = path.lstat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def force_to_disk(path: str | os.PathLike[str]) -> None:
    """Wait until what was appended to a file would outlive a power cut; a file that is not there is none.

    Args:
        path: The file.

    Raises:
        InputError: As `check_lock`.
        OSError: If the disk cannot take it.
    """
    check_lock(path)
    if Path(path).exists():
        with Path(path).open("ab") as file:
            os.fsync(file.fileno())


def _replace(new: Path, old: Path) -> None:
    """Let a file take the place of another; on Windows, wait until nobody reads that (a virus scanner, Excel)."""
    for wait in (0.05, 0.2, 0.75) if os.name == "nt" else ():
        with contextlib.suppress(PermissionError):
            os.replace(new, old)
            return
        time.sleep(wait)
    os.replace(new, old)


def _rename_too(path: Path, name: Path) -> None:
    """Give a file a second name, in place of what had that name; at no moment is ``path`` not there."""
    beside = name.with_name(f".{name.name}.tmp")
    beside.unlink(missing_ok=True)
    try:
        os.link(path, beside)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        _replace(path, name)  # a file system without second names (FAT, some network folders)
        return
    _replace(beside, name)


def _sync_folder(folder: Path) -> None:
    """Force a rename onto the disk; Windows, where folders cannot be opened, does it by itself."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
