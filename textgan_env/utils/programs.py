"""Commands that are shown to be typed: they work where they are read, also where no environment is active."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path


def typed_program(name: str) -> str:
    """How a program that belongs to this Python is typed here.

    Args:
        name: python, textgan or torchrun.

    Returns:
        The name alone where the shell finds that very program by it, else its path, from the working folder where it
        lies below that. The name alone, too, where it is not beside this Python.
    """
    own = Path(sys.executable) if name == "python" else _beside_python(name)
    found = shutil.which(name)
    if own is None or (found is not None and Path(found).absolute() == own.absolute()):
        return name
    if name == "python" and found is not None and _same_python(Path(found), own):
        return name
    return typed_path(own)


def typed_path(path: str | os.PathLike[str]) -> str:
    """A path as a shell takes it: relative where it lies below the working folder, in quotes where it needs them."""
    shown, here = Path(path), Path.cwd()
    if shown.is_absolute() and shown.is_relative_to(here):
        shown = shown.relative_to(here)
    return subprocess.list2cmdline([str(shown)]) if os.name == "nt" else shlex.quote(str(shown))


def _beside_python(name: str) -> Path | None:
    """A program in the folder of this Python; None where there is none."""
    return next(
        (path for end in ("", ".exe") if (path := Path(sys.executable).parent / f"{name}{end}").is_file()), None
    )


def _same_python(one: Path, other: Path) -> bool:
    """Whether two names of an interpreter (python, python3, python3.12) lie in one folder and lead to one file."""
    same_folder = one.absolute().parent == other.absolute().parent
    return same_folder and one.resolve() == other.resolve()
