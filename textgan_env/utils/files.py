"""Files that a reader finds whole: replaced in one step, added to at the end; and a lock that one process has."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from textgan_env.utils.errors import InputError, require


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
        OSError: If the content cannot be written (disk full, no permission); the old file is then as it was,
            the hidden file is gone, and the error names ``path``.
    """
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
        if keep is not None and path.exists():
            _rename_too(path, Path(keep))
        os.replace(beside, path)
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
        OSError: If the text cannot be written; the file is then as long as before, and the error names
            ``path``.
    """
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

    # Opening the lock empties the file that it is, and a folder of somebody else may hold a link to another one.
    require(not Path(path).is_symlink(), f"the lock '{os.fspath(path)}' is a link: remove it")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(refusal()) from None
    try:
        yield
    finally:
        lock.release()


def force_to_disk(path: str | os.PathLike[str]) -> None:
    """Wait until what was appended to a file would outlive a power cut; a file that is not there is none.

    Args:
        path: The file.

    Raises:
        OSError: If the disk cannot take it.
    """
    if Path(path).exists():
        with Path(path).open("ab") as file:
            os.fsync(file.fileno())


def _rename_too(path: Path, name: Path) -> None:
    """Give a file a second name, in place of what had that name; at no moment is ``path`` not there."""
    beside = name.with_name(f".{name.name}.tmp")
    beside.unlink(missing_ok=True)
    try:
        os.link(path, beside)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        os.replace(path, name)  # a file system without second names (FAT, some network folders)
        return
    os.replace(beside, name)


def _sync_folder(folder: Path) -> None:
    """Force a rename onto the disk; Windows, where folders cannot be opened, does it by itself."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
