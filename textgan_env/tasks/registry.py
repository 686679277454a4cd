"""Tasks: what real text is, in which tokens, how long, and, where one exists, the oracle that writes it.

Every task has the splits ``train``, ``valid`` and ``test``. Only ``train`` teaches, only ``valid`` chooses, and what is
reported is measured on ``test``.
"""

import inspect
import os
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from textgan_env.tasks.base import Task
from textgan_env.tasks.corpus import CorpusTask
from textgan_env.tasks.oracle import OracleTask
from textgan_env.tasks.toy import ToyTask
from textgan_env.text.corpora import CORPORA, ORACLE_FILE
from textgan_env.text.corpus import CorpusOptions, load_corpus
from textgan_env.text.fetch import fetch
from textgan_env.text.published import is_here, named_corpus
from textgan_env.utils.errors import MissingDataError, require, require_known
from textgan_env.utils.reading import get_typed, most_weights, preview, read_typed


def _corpus_task(**settings: Any) -> CorpusTask:
    """A task on a user's own text."""
    return CorpusTask(load_corpus(**settings), settings=settings)


def _seqgan_oracle(*, weights: str | os.PathLike[str] | None = None, **settings: Any) -> OracleTask:
    """The oracle with SeqGAN's published weights, or those of a file."""
    given = [name for name in ("vocab_size", "embed_size", "hidden_size") if name in settings]
    require(not given, f"task 'seqgan-oracle' has its sizes from its weights, {', '.join(given)} cannot be set")
    return OracleTask(weights=fetch(ORACLE_FILE) if weights is None else weights, **settings)


def _named(name: str, /, **settings: Any) -> CorpusTask:
    """The task of a named corpus."""
    return CorpusTask(named_corpus(name, **settings), name=name, settings=settings)


#: Name -> what makes the task, and the function whose arguments are its options.
TASKS: dict[str, tuple[Callable[..., Task], Callable[..., Any]]] = {
    "oracle": (OracleTask, OracleTask),
    "oracle40": (partial(OracleTask, max_length=40, embed_size=64, hidden_size=64), OracleTask),
    "seqgan-oracle": (_seqgan_oracle, OracleTask),
    "toy": (ToyTask, ToyTask),
    "corpus": (_corpus_task, CorpusOptions),
    **{name: (partial(_named, name), named_corpus) for name in CORPORA},
}


def make_task(name: str, **options: Any) -> Task:
    """Make a task by name.

    Args:
        name: A key of `TASKS`.
        options: Of that task.

    Raises:
        InputError: If there is no such task, it has no such option, or a value is refused.
        MissingDataError: If a file or package it needs is not here.
    """
    require_known("task", name, TASKS)
    make, described = TASKS[name]
    known = [option for option in inspect.signature(described).parameters if option != "name"]
    unknown = [option for option in options if option not in known]
    require(not unknown, f"task '{name}' has no option {', '.join(unknown)}; it has: {', '.join(known)}")
    for option, value in options.items():
        kind = inspect.signature(described, eval_str=True).parameters[option].annotation
        plain = value.item() if isinstance(value, np.generic) else value
        read_typed(kind, plain, f"option {option} of task '{name}'")
    return make(**options)


# Options of tasks that name a file to be read.
_FILE_OPTIONS = ("path", "valid_path", "test_path", "weights")
#: Options of tasks that say where their text lies, not which text it is.
PLACE_OPTIONS = (*_FILE_OPTIONS, "data_dir")
# Weights of an oracle that a file may ask for; users may ask for more.
_MOST_OF_A_FILE = 2**24


def saved_task(described: object, where: str, *, vocab_size: int | None = None) -> Task:
    """Make the task that somebody's file describes (`Task.config`): it may name texts on this machine, and no more.

    Nothing is fetched from the network, nothing is written into a folder that the file names, and what is read must be
    an ordinary file.

    Args:
        described: What stands in the file.
        where: What to begin a sentence with.
        vocab_size: V of the policy beside it; None: of no policy.

    Raises:
        InputError: If it is no description of a task, or not one with these tokens.
        MissingDataError: If its text is not here.
    """
    about = read_typed(dict[str, Any], described, where)
    name = get_typed(about, "name", str, where)
    options = {key: value for key, value in about.items() if key not in ("name", "about")}
    asked = options.get("vocab_size", vocab_size)
    require(vocab_size in (None, asked), f"{where} has V={preview(asked)}, but the policy beside it V={vocab_size}")
    for option in _FILE_OPTIONS:
        if isinstance(file := options.get(option), str):
            if not Path(file).exists():
                raise MissingDataError(f"{where} was made from '{file}', which is not here")
            require(Path(file).is_file(), f"{where} was made from '{file}', which is no ordinary file")
    folder = options.get("data_dir")
    named = name == "seqgan-oracle" and options.get("weights") is None
    if name in CORPORA:
        named = CORPORA[name].derive is None or folder is not None
    if named and isinstance(folder, str | None) and not is_here(name, data_dir=folder):
        raise MissingDataError(f"the text of task '{name}' is not here; to fetch it: textgan data fetch {name}")
    with most_weights(_MOST_OF_A_FILE):
        task = make_task(name, **options)
    # Words are compared one by one by whoever knows those of the policy.
    fits = vocab_size in (None, task.vocab_size) or task.vocabulary is not None
    require(fits, f"{where} has V={task.vocab_size} tokens, but the policy beside it V={vocab_size}")
    return task


def shared_task(task: str | Task, **options: Any) -> Task:
    """A task by name, made once in the life of the process for the same options; a `Task` is taken as it is.

    Raises:
        InputError: As `make_task`, or if options come with a finished task.
    """
    if isinstance(task, Task):
        require(not options, f"options {sorted(options)} come too late for a task that is already made")
        return task
    # A list cannot be looked up in a cache.
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return _shared(task, tuple(sorted(plain.items())))


@lru_cache(maxsize=8)
def _shared(name: str, options: tuple[tuple[str, Any], ...]) -> Task:
    """`make_task`, remembered."""
    return make_task(name, **dict(options))
