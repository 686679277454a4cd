"""The command line of an agent: presets, the options that all agents share, and their parser. Loads no torch."""

import contextlib
import inspect
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

from tyro.conf import Suppress

from textgan_env.utils.errors import DEBUG, InputError, require, require_at_least, require_known
from textgan_env.utils.kinds import LANGUAGE_MODELS
from textgan_env.utils.reading import MOST_JSON, get_typed, parse_json, read_limited, read_typed
from textgan_env.utils.text_options import TextOptions


@dataclass(frozen=True)
class _Named:
    """Which text."""

    task: str = "oracle"
    """oracle, oracle40 (long texts), seqgan-oracle, toy, corpus (with --corpus), wordnet, wordnet-glosses, coco, emnlp,
    poems, music, moses (molecules), nci (molecules), arithmetic-grammar, json-grammar."""
    corpus: str | None = None
    """Your text file, one text a line, or a table; gzip, bzip2, xz and zip are unpacked. (With another --task: the
    folder with its files, or seqgan-oracle's weights.)"""


@dataclass(frozen=True)
class TaskOptions(TextOptions, _Named):
    """Which text: options of every command that reads a task."""

    split_seed: int | None = None
    """Decides which texts are held out [0]."""
    text_seed: int | None = None
    """Seed of the texts of an oracle, a grammar or the toy task: other seeds draw other texts of the same distribution
    [that of the task]."""

    def task_options(self) -> dict[str, Any]:
        """The task's options that were given, as `textgan_env.tasks.make_task` takes them.

        Raises:
            InputError: If the task reads no file but one is given, or needs one.
        """
        own = self.task == "corpus"
        require(not own or self.corpus is not None, "no text: give --corpus FILE, one text a line")
        names = [field.name for field in fields(TextOptions)]
        given: dict[str, Any] = {name: getattr(self, name) for name in (*names, "text_seed")}
        if self.split_seed is not None:
            drawn = f"task '{self.task}' draws its splits: --split-seed is for texts that are held out, see --text-seed"
            require(self.task not in DRAWN, drawn)
            given["seed"] = self.split_seed
        if self.corpus is not None:
            given[path_option(self.task)] = self.corpus
        if self.tokenizer is not None:
            given["tokenizer"] = str(self.tokenizer)
        # Of own text what a saved task without them would read otherwise (`saved_reading`) is always said.
        unsaid = {"lower": False, "blanks": "auto"} if not own or self.tokenizer is not None else {}
        return {name: value for name, value in given.items() if value is not None and value != unsaid.get(name)}


def saved_reading(saved: Mapping[str, Any]) -> dict[str, Any]:
    """How own text was read, of which a saved task or config says nothing.

    Earlier versions made every text lower case, and looked at blanks line by line.

    Args:
        saved: Options of task corpus, or a config.
    """
    earlier = {} if saved.get("tokenizer") is not None else {"lower": True, "blanks": "line"}
    return {name: value for name, value in earlier.items() if name not in saved}


def path_option(task: str) -> str:
    """Which option of a task says where its text is: a file, a file of weights, or the folder with published files.

    Raises:
        InputError: If the task reads no file.
    """
    reads = task not in DRAWN or task == "seqgan-oracle"
    require(reads, f"task '{task}' reads no file: --corpus is for task corpus, your own text")
    return {"corpus": "path", "seqgan-oracle": "weights"}.get(task, "data_dir")


#: Tasks whose tokens are numbers, no words; presets choose other network sizes for them than for text.
ORACLES = ("oracle", "oracle40", "seqgan-oracle", "toy")
#: Tasks whose texts are drawn from a law that is known, and whose seed is ``--text-seed``.
DRAWN = (*ORACLES, "arithmetic-grammar", "json-grammar")


def at_least(least: int, config: object, *names: str) -> None:
    """Refuse numbers of a config that are too small; None passes.

    Raises:
        InputError: If one is.
    """
    require_at_least(least, **{name: getattr(config, name) for name in names})


_MOST = 1e9  # a rate or a norm above this overflows


def above_zero(config: object, *names: str) -> None:
    """Refuse numbers of a config that are not above 0, or too large to compute with; None passes.

    Raises:
        InputError: If one is not.
    """
    for name in names:
        value = getattr(config, name)
        require(value is None or value > 0, f"{name} must be above 0, found {value}")
        require(value is None or value < _MOST, f"{name} must be below {_MOST:g}, found {value}")


@dataclass(frozen=True)
class CommonConfig(TaskOptions):
    """Options of every agent."""

    #: Options that saved runs of earlier versions lack: their default is what those runs did, but see `saved_reading`.
    added: ClassVar[tuple[str, ...]] = (
        "d_learning_rate", "policy", "lower", "blanks", "column", "encoding", "vocab_size", "valid_path", "test_path",
        "valid_share", "test_share", "eos", "split_seed", "lr_schedule", "held_back", "eval_samples", "name", "config",
    )  # fmt: skip
    preset: str = "fast"
    """Where all other defaults come from; see the list above."""
    seed: int = 0
    """Seed of everything random, except the weights and texts of an oracle task (they have seeds of their own)."""
    temperature: float = 1.0
    """What the finished policy's logits are divided by when it is evaluated and generates its samples."""
    deterministic: bool = False
    """Let the finished policy always choose the most probable token."""
    device: str | None = None
    """cpu, cuda, cuda:1 ... [cpu]"""
    threads: int | None = None
    """CPU threads [1, or all that torch would take where the first batches then take less than .8 of the time]. Chosen
    once, when the run begins, and kept by --resume."""
    runs: Path = Path("runs")
    """Where run folders are made."""
    name: str | None = None
    """What the run is called: its folder is NAME-1, or the next free number [the agent and the task, or the name of
    your text's file]."""
    config: Path | None = None
    """An earlier run of this agent, or its config.json: its options are the defaults, in place of a preset's. Not
    taken: where it computed and where it lies."""
    resume: Path | None = None
    """A run folder to resume. Its options hold; only learning rates, --max-grad-norm, --device, --threads,
    --checkpoint-every, --patience, --stop-on-collapse, --budget, --objective-workers and --objective-timeout can be
    changed. An objective of your own, FILE.py:NAME, is given again."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints; one is always written at the end."""
    select: Literal["last", "best"] = "best"
    """Weights of the finished policy: the last, or those of the lowest NLL on the valid split."""
    eval_every: int = 0
    """Rounds between two evaluations of the policy (NLLs and samples); 0: about twenty evaluations a run."""
    eval_samples: int | None = None
    """Texts that are measured at the end, and before the last phase: generated ones [10,000], which are compared with
    all real ones of the test split [with --preset smoke: 500 and 500]. Evaluations in between generate at most as many
    [1,000]."""
    show_samples: int = 3
    """Texts printed at each evaluation."""
    patience: int = 0
    """Stop the last phase after this many evaluations without a new low of NLL on the valid split, or of D's AUC on
    unseen texts; 0: never."""
    stop_on_collapse: bool = False
    """Stop when an evaluation finds that the policy collapses: at most half as many different texts as real ones, or
    an entropy below half of its NLL of real text."""
    overrides: Annotated[tuple[str, ...], Suppress] = ()
    """Names of the options that were given beside --resume; a config made in Python sets it itself."""


@dataclass(frozen=True)
class SharedConfig(CommonConfig):
    """Options of agents that several processes can train together."""

    shards: int | None = None
    """Parts that each batch is cut into and that the processes of torchrun share. Results depend on the number of
    shards, not on the number of processes [one a process]."""

    def batch_sizes(self) -> dict[str, int]:
        """Name of each batch size option -> rows of its batches."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name.endswith("batch_size")}


Config = TypeVar("Config", bound=CommonConfig)


def evaluation_sizes(preset: str, eval_samples: int | None) -> dict[str, int | None]:
    """How many texts a run measures at its end: generated ones, and references of the test split (None: all).

    Args:
        preset: Of the run.
        eval_samples: Its option; None: as the preset says.

    Raises:
        InputError: If so many cannot be measured.
    """
    fits = eval_samples is None or 2 <= eval_samples <= 1_000_000
    require(fits, f"eval_samples must be 2 to 1,000,000, found {eval_samples}")
    small = 500 if preset == "smoke" else None
    return {"samples": eval_samples or small or 10_000, "references": small}


#: Options that have another name now: old -> new. Old ones are refused on the command line, and read in saved runs.
RENAMED = {
    "anew": "overrides", "average": "ema_decay", "buffer": "buffer_size", "clip_norm": "max_grad_norm",
    "critic": "vf_coef", "d_slower": "d_lr_scale", "entropy": "ent_coef", "judge": "discriminator", "kl": "kl_coef",
    "look_every": "eval_every", "minibatches": "num_minibatches", "mle_every": "mle_interval", "q_every": "q_interval",
}  # fmt: skip


# What a resumed run may change beside learning rates: where it computes, how far a step goes, when it saves and stops.
_CHANGEABLE = (
    "max_grad_norm", "device", "threads", "checkpoint_every", "patience", "stop_on_collapse", "objective", "budget",
    "objective_workers", "objective_timeout",
)  # fmt: skip


# What a new run does not take from an earlier one's config: where that lay and computed, and how it was resumed.
_NOT_TAKEN = ("runs", "name", "resume", "config", "overrides", "device", "threads")


@dataclass(frozen=True)
class _Head:
    """The options that decide the defaults of all others."""

    preset: str | None = None
    task: str | None = None
    corpus: str | None = None
    config: Path | None = None


def parse(presets: Mapping[str, Callable[[str], Config]], description: str, args: list[str] | None = None) -> Config:
    """Read the command line of an agent: the preset and the task first, then what differs from their defaults.

    Args:
        presets: Name -> function that makes the config from the name of the task; the first is the default.
        description: For ``--help``.
        args: The words; ``sys.argv`` without the program by default.

    Returns:
        The config.

    Raises:
        InputError: If a word is wrong, there is no such preset, or a resumed run is given an option that it must keep.
        SystemExit: After ``--help``.
    """
    words = sys.argv[1:] if args is None else args
    head, _ = _read(_Head, words, default=_Head(), return_unknown_args=True, add_help=False)
    preset = next(iter(presets)) if head.preset is None else head.preset
    require_known("preset", preset, presets)
    default = presets[preset](head.task or ("oracle" if head.corpus is None else "corpus"))
    if head.config is not None:
        require(head.preset is None, "--config is given in place of --preset: leave one of them out")
        default = _like(head.config, default, head)
    known = {field.name for field in fields(default)}
    left_out = "An option that is left out is what stands in [brackets], and without brackets its default."
    config = read_words(type(default), words, default=default, description=f"{description.strip()}\n\n{left_out}")
    given = _named(words)
    if config.resume is not None:
        changed = sorted(given & known - {"resume"})
        refused = [_shown(name) for name in changed if not name.endswith("learning_rate") and name not in _CHANGEABLE]
        require(not refused, f"a resumed run keeps its options: leave out {', '.join(refused)}")
        return replace(config, overrides=tuple(changed))
    # A run is resumed, and its policy loaded, from any folder.
    places = {name: getattr(config, name) for name in ("corpus", "valid_path", "test_path", "tokenizer", "config")}
    given_places = {
        name: place for name, place in places.items() if not (place is None or str(place) in LANGUAGE_MODELS)
    }
    return replace(config, **{name: type(at)(Path(at).expanduser().absolute()) for name, at in given_places.items()})


def _like(file: Path, default: Config, head: _Head) -> Config:
    """The config of an earlier run, to be the default of a new one.

    Raises:
        InputError: If the file is no config of a run, or that of another agent.
    """
    path = file / "config.json" if file.is_dir() else file
    try:
        document = parse_json(read_limited(path, MOST_JSON), f"'{path}'")
    except OSError as error:
        raise InputError(f"--config {path} cannot be read: {error.strerror or error}") from None
    saved = get_typed(document, "config", dict, f"'{path}'")
    saved = {name: value for name, value in saved.items() if name not in _NOT_TAKEN}
    own = {name: getattr(default, name) for name in _NOT_TAKEN}
    written = {name: str(value) if isinstance(value, Path) else value for name, value in own.items()}
    config = replace(default, **saved_options(type(default), written | saved, default, f"'{path}'") | own)
    if head.corpus is not None and head.corpus != config.corpus:  # another text, with splits of its own
        config = replace(config, valid_path=None, test_path=None)
    return replace(config, task="corpus") if head.corpus is not None and head.task is None else config


def saved_options(kind: type[Config], saved: Mapping[str, Any], usual: Config, where: str) -> dict[str, Any]:
    """The options of a saved run, also one of an earlier version.

    Args:
        kind: The agent's config.
        saved: As config.json has them.
        usual: Has the options that earlier versions lack.
        where: What to begin a sentence with.

    Raises:
        InputError: If they are of another agent or version, or one is of another type.
    """
    renamed: dict[str, Any] = {RENAMED.get(name, name): value for name, value in saved.items()}
    if renamed.get("policy") == "relational" and renamed.get("layers") == 1:
        renamed["layers"] = None  # earlier versions wrote 1 for a network that has no layers to choose
    reading = saved_reading(renamed) if renamed.get("task") == "corpus" else {}
    known = {name: getattr(usual, name) for name in kind.added if hasattr(usual, name)} | reading | renamed
    different = sorted(set(known) ^ {field.name for field in fields(kind)})
    named = ", ".join(different[:4]) + (f" and {len(different) - 4} others" if len(different) > 4 else "")
    require(not different, f"{where} was not made by this agent in this version: its config differs in {named}")
    return dict(vars(read_typed(kind, known, f"the config of {where}")))


def _shown(name: str) -> str:
    """An option as it is typed."""
    return f"--{name.replace('_', '-')}"


Read = TypeVar("Read")


def _named(words: Sequence[str]) -> set[str]:
    """Which options are given."""
    return {word.split("=")[0][2:].replace("-", "_") for word in words if word.startswith("--")}


def read_words(
    what: Callable[..., Read],
    words: Sequence[str],
    *,
    default: Read | None = None,
    description: str | None = None,
    program: str | None = None,
) -> Read:
    """Read a command line into a config dataclass, or another thing whose arguments have types and docstrings.

    Args:
        what: What is made of the words; its docstrings are the help.
        words: The command line without the program.
        default: The config that the words change; None: what ``what`` says itself.
        description: On top of the help; None: the docstring of ``what``.
        program: What the help calls the program; None: the name of the script.

    Raises:
        InputError: If an option does not exist, is missing, or has a value of another kind.
        SystemExit: After ``--help``.
    """
    known = inspect.signature(what).parameters if callable(what) else {}  # or several commands, by their union
    for old in sorted(_named(words) - known.keys()):
        new = RENAMED.get(old)
        require(new not in known, f"{_shown(old)} is called {_shown(new or old)} now")
    given = {"prog": program, "default": default, "description": description}
    settings = {name: value for name, value in given.items() if value is not None}
    words = [word for word in words if word != DEBUG]  # is for `friendly_errors`
    return cast(Read, _read(what, words, **settings))


def _read(what: Callable[..., Any], words: Sequence[str], **settings: Any) -> Any:
    """Call tyro, and turn the box of many lines that it prints at a mistake into one sentence."""
    import tyro

    markers = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(what, args=words, config=markers, **settings)
    except SystemExit as leaving:
        if leaving.code and box.getvalue():
            raise InputError(_sentence(box.getvalue())) from None
        raise


def _sentence(box: str) -> str:
    """The first paragraph below the title of a box, and the first option that is like an unknown one."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)  # on a terminal it has colours
    text = "\n".join(line.strip("│ ") for line in plain.splitlines()[1:])
    said, *rest = [part for part in re.split(r"^[─╰-]{4}.*$", text, flags=re.MULTILINE) if part.strip()] or [plain]
    sentence = " ".join(said.split()).removesuffix(".")
    like = re.match(r"\s*(?:Perhaps you meant|Arguments similar to .*):\s+(--[\w-]+)", rest[0] if rest else "")
    meant = f" (did you mean {like[1]}?)" if like else ""
    return f"{sentence[:1].lower()}{sentence[1:]}{meant}; --help lists the options"
