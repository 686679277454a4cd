"""Tasks: what real text is, in which tokens, how long, and, where one exists, the oracle that writes it.

Every task has the splits ``train``, ``valid`` and ``test``. Only ``train`` teaches, only ``valid`` chooses, and what is
reported is measured on ``test``.
"""

import inspect
import os
import sys
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from textgan_env.tasks.base import Task
from textgan_env.tasks.corpus import CorpusTask
from textgan_env.tasks.grammar import GrammarTask
from textgan_env.tasks.oracle import OracleTask
from textgan_env.tasks.toy import ToyTask
from textgan_env.text.corpora import CORPORA
from textgan_env.text.corpus import load_corpus
from textgan_env.text.corpus_options import CorpusOptions, as_texts
from textgan_env.text.grammars import GRAMMARS
from textgan_env.text.language_models import TOKENIZER, is_named
from textgan_env.text.published import is_here, named_corpus
from textgan_env.utils.errors import MissingDataError, require, require_known
from textgan_env.utils.options import saved_reading
from textgan_env.utils.printing import say
from textgan_env.utils.reading import FileHash, file_hash, get_typed, is_file_of, most_weights, preview, read_typed


def _corpus_task(**settings: Any) -> CorpusTask:
    """A task on a user's own text."""
    corpus = load_corpus(**settings)
    # What an earlier version would have done is not said, so that its runs are of the same task (`saved_reading`).
    said = {**settings, "lower": corpus.vocabulary.lower, **corpus.decided}
    earlier = saved_reading({"tokenizer": settings.get("tokenizer")}) or {"lower": False, "blanks": "auto"}
    said = {name: value for name, value in said.items() if name not in earlier or value != earlier[name]}
    return CorpusTask(corpus, settings=said)


def _seqgan_oracle(*, weights: str | os.PathLike[str] | None = None, **settings: Any) -> OracleTask:
    """The oracle with SeqGAN's published weights, or those of a file."""
    given = [name for name in ("vocab_size", "embed_size", "hidden_size") if name in settings]
    require(not given, f"task 'seqgan-oracle' has its sizes from its weights, {', '.join(given)} cannot be set")
    return OracleTask.released(**settings) if weights is None else OracleTask(weights=weights, **settings)


def _named(name: str, /, **settings: Any) -> CorpusTask:
    """The task of a named corpus."""
    return CorpusTask(named_corpus(name, **settings), name=name, settings=settings)


#: Name -> what makes the task, and the function whose arguments are its options.
TASKS: dict[str, tuple[Callable[..., Task], Callable[..., Any]]] = {
    "oracle": (OracleTask, OracleTask),
    "oracle40": (partial(OracleTask, max_length=40, embed_size=64, hidden_size=64), OracleTask),
    "seqgan-oracle": (_seqgan_oracle, OracleTask),
    "toy": (ToyTask, ToyTask),
    **{name: (partial(GrammarTask, name), GrammarTask) for name in GRAMMARS},
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
    parameters = inspect.signature(described, eval_str=True).parameters
    known = [option for option in parameters if option != "name"]
    unknown = [option for option in options if option not in known]
    require(not unknown, f"task '{name}' has no option {', '.join(unknown)}; it has: {', '.join(known)}")
    options = _with_texts(options)
    for option, value in options.items():
        plain = value.item() if isinstance(value, np.generic) else value
        read_typed(parameters[option].annotation, plain, f"option {option} of task '{name}'")
    task = make(**options)
    # A pipe was read, and cannot be read again.
    task.files = {option: file_hash(file) for option, file in _files(options).items() if file.is_file()}
    return task


def _with_texts(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the texts among them, if there are any, as strings."""
    return options if options.get("texts") is None else options | {"texts": as_texts(options["texts"])}


# Options of tasks that name a file to be read; the last names the folder that a file lies in.
_FILE_OPTIONS = ("path", "valid_path", "test_path", "weights", "tokenizer")
#: Options of tasks that say where their text lies, not which text it is.
PLACE_OPTIONS = (*_FILE_OPTIONS, "data_dir")
# Weights of an oracle that a file may ask for; users may ask for more.
_MOST_OF_A_FILE = 2**24


def _files(options: Mapping[str, Any]) -> dict[str, Path]:
    """The files that the options of a task name."""
    named = {option: Path(options[option]) for option in _FILE_OPTIONS if options.get(option) is not None}
    if (tokenizer := named.pop("tokenizer", None)) is not None and not is_named(tokenizer):  # whose name is enough
        named["tokenizer"] = tokenizer / TOKENIZER
    return named


def saved_task(described: object, where: str, *, files: object = None, vocab_size: int | None = None) -> Task:
    """Make the task that somebody's file describes (`Task.config`): it may name texts on this machine, and no more.

    Nothing is fetched from the network and nothing is written. A text is read if it is an ordinary file with the hash
    that ``files`` says. Runs of earlier versions say none: their text is read, and the task is not `Task.proven`.

    Args:
        described: What stands in the file.
        where: What to begin a sentence with.
        files: `Task.files`, as JSON; None: of an earlier version.
        vocab_size: V of the policy beside it; None: of no policy.

    Raises:
        InputError: If it is no description of a task, or not one with these tokens, or its text has changed.
        MissingDataError: If its text is not here.
    """
    about = read_typed(dict[str, Any], described, where)
    name = get_typed(about, "name", str, where)
    options = {key: value for key, value in about.items() if key not in ("name", "about")}
    if name == "corpus":
        options = saved_reading(options) | options
    asked = options.get("vocab_size", vocab_size)
    require(vocab_size in (None, asked), f"{where} has V={preview(asked)}, but the policy beside it V={vocab_size}")
    for option in PLACE_OPTIONS:
        read_typed(_Place, options.get(option), f"option {option} of {where}")
    proven = _known(_files(options), files, where)
    published = name in CORPORA or (name == "seqgan-oracle" and options.get("weights") is None)
    if published and not is_here(name, data_dir=options.get("data_dir")):
        raise MissingDataError(f"the text of task '{name}' is not here; to fetch it: textgan data fetch {name}")
    with most_weights(_MOST_OF_A_FILE):
        task = make_task(name, **options)
    task.proven = proven
    # Words are compared one by one by whoever knows those of the policy.
    fits = vocab_size in (None, task.vocab_size) or task.vocabulary is not None
    require(fits, f"{where} has V={task.vocab_size} tokens, but the policy beside it V={vocab_size}")
    return task


_Place: Any = str | None


def _known(named: Mapping[str, Path], files: object, where: str) -> bool:
    """Whether the files that a saved task names are those that it was made from.

    Raises:
        InputError: If one has changed, or is named without a hash by what never was without.
        MissingDataError: If one is not here.
    """
    hashes = {} if files is None else read_typed(dict[str, Any], files, f"the files of {where}")
    proven = True
    for option, file in named.items():
        if not os.path.exists(file):
            raise MissingDataError(f"{where} was made from '{file}', which is not here")
        require(file.is_file(), f"{where} was made from '{file}', which is no ordinary file")
        if option in hashes:
            known = read_typed(FileHash, hashes[option], f"the hash of '{file}' in {where}")
            changed = f"{where} was made from '{file}', which has changed: put it back as it was"
            require(is_file_of(file, known), changed)
            continue
        require(files is None and option not in ("valid_path", "test_path"), f"{where} names '{file}' without its hash")
        say(f"note: {where} keeps no hash of '{file}', as in earlier versions: it may have changed", file=sys.stderr)
        proven = False
    return proven


def shared_task(task: str | Task, **options: Any) -> Task:
    """A task by name, made once in the life of the process for the same options; a `Task` is taken as it is.

    Raises:
        InputError: As `make_task`, or if options come with a finished task.
    """
    if isinstance(task, Task):
        require(not options, f"options {sorted(options)} come too late for a task that is already made")
        return task
    # A list cannot be looked up in a cache.
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in _with_texts(options).items()}
    if all(isinstance(value, Hashable) for value in plain.values()):
        return _shared(task, tuple(sorted(plain.items())))
    return make_task(task, **options)


@lru_cache(maxsize=8)
def _shared(name: str, options: tuple[tuple[str, Any], ...]) -> Task:
    """`make_task`, remembered."""
    return make_task(name, **dict(options))
