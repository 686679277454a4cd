"""A person's own objective: a function of a Python file, named on a command line; or any function in Python."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from textgan_env.objectives.base import Objective
from textgan_env.objectives.registry import named_objective
from textgan_env.utils.errors import InputError, require

#: What an objective can be given as: itself, a function of texts, or the name of a row of `OBJECTIVES`.
ObjectiveLike: TypeAlias = Objective | Callable[[Sequence[str]], Any] | str


def as_objective(given: ObjectiveLike) -> Objective:
    """An objective of what was given in Python; a name never loads code.

    Args:
        given: An `Objective`, a function that gives numbers from 0 to 1, or ``NAME:ARGUMENT`` of `OBJECTIVES`.

    Raises:
        InputError: If it is none of these.
    """
    if isinstance(given, Objective):
        return given
    if isinstance(given, str):
        return named_objective(given)
    require(callable(given), f"an objective must be a function, an Objective or a name, found {type(given).__name__}")
    return Objective(getattr(given, "__name__", type(given).__name__), given)


def names_code(given: str | None) -> bool:
    """Whether the words of a command name a function of a file, ``my.py:score``, and no row of `OBJECTIVES`."""
    return given is not None and given.rpartition(":")[0].endswith(".py")


def typed_objective(given: str) -> Objective:
    """The objective that a person typed: ``NAME:ARGUMENT``, or ``my.py:score``, whose file is run.

    Only for words that the person who starts the process typed: never for what a file says.

    Raises:
        InputError: If there is no such row, file or function, or the file cannot be run.
    """
    if not names_code(given):
        return named_objective(given)
    place, _, name = given.rpartition(":")
    path = Path(place).expanduser().absolute()
    require(path.is_file(), f"objective '{given}': no file '{place}'")
    found = _function_of(str(path), name)
    require(callable(found), f"objective '{given}' must be a function of texts, found {type(found).__name__}")
    own = FunctionOfFile(str(path), name)
    if isinstance(found, Objective):
        return replace(found, score=own)
    return Objective(name, own)


@dataclass(frozen=True)
class FunctionOfFile:
    """A function of a Python file; a worker process that is sent it runs the file itself.

    Attributes:
        path: The file.
        name: The function, or an `Objective`.
    """

    path: str
    name: str

    def __call__(self, texts: Sequence[str]) -> Any:
        """What the function says of some texts."""
        return _function_of(self.path, self.name)(texts)


@lru_cache
def _function_of(path: str, name: str) -> Any:
    """Run a file, once in a process, and take a name from it."""
    from runpy import run_path

    try:
        names = run_path(path)
    except Exception as error:  # whatever a person's file raises
        raise InputError(f"'{path}' cannot be run: {type(error).__name__}: {error}") from None
    require(name in names, f"'{path}' has no '{name}'")
    return names[name]
