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


@dataclass(frozen=True)
class TaskOptions:
    """Which text: options of every command that reads a task."""

    task: str = "oracle"
    """oracle, oracle40 (long texts), seqgan-oracle, toy, corpus (with --corpus), wordnet, wordnet-glosses, coco, emnlp,
    poems, music."""
    corpus: str | None = None
    """Your text file, one text a line. (With another --task: the folder with its files, or seqgan-oracle's weights.)"""
    mode: Literal["word", "char", "whitespace"] | None = None
    """How the lines of your text become tokens [word]."""
    tokenizer: Path | None = None
    """A folder with a Hugging Face tokenizer, whose subwords are then the tokens of your text, instead of --mode."""
    max_length: int | None = None
    """T, the most tokens of a text [what the task says]."""
    longer: Literal["cut", "drop", "grow"] | None = None
    """What happens to longer lines of your text [drop]."""
    min_count: int | None = None
    """Words of your text seen less often become unknown [1]."""
    max_vocab: int | None = None
    """Words of your text beyond the most frequent ones become unknown [no limit]."""
    text_seed: int | None = None
    """Seed of an oracle's or the toy task's texts: other seeds draw other texts of the same distribution [that of the
    task]."""

    def task_options(self) -> dict[str, Any]:
        """The task's options that were given, as `textgan_env.tasks.make_task` takes them.

        Raises:
            InputError: If the task reads no file but one is given, or needs one.
        """
        require(self.task != "corpus" or self.corpus is not None, "no text: give --corpus FILE, one text a line")
        names = ("mode", "max_length", "longer", "min_count", "max_vocab", "text_seed")
        given = {name: getattr(self, name) for name in names}
        if self.corpus is not None:
            given[path_option(self.task)] = self.corpus
        if self.tokenizer is not None:
            given["tokenizer"] = str(self.tokenizer)
        return {name: value for name, value in given.items() if value is not None}


def path_option(task: str) -> str:
    """Which option of a task says where its text is: a file, a file of weights, or the folder with published files.

    Raises:
        InputError: If the task reads no file.
    """
    reads = task not in ORACLES or task == "seqgan-oracle"
    require(reads, f"task '{task}' reads no file: --corpus is for task corpus, your own text")
    return {"corpus": "path", "seqgan-oracle": "weights"}.get(task, "data_dir")


#: Tasks whose tokens are numbers, no words; presets choose other network sizes for them than for text.
ORACLES = ("oracle", "oracle40", "seqgan-oracle", "toy")


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

    #: Options that saved runs of earlier versions lack: their default is what those runs did.
    added: ClassVar[tuple[str, ...]] = ("d_learning_rate", "policy")
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
    """CPU threads [torch's choice]; beside other busy processes, 1 is often fastest."""
    runs: Path = Path("runs")
    """Where run folders are made."""
    resume: Path | None = None
    """A run folder to resume. Its options hold; only learning rates, --max-grad-norm, --device, --threads,
    --checkpoint-every, --patience and --stop-on-collapse can be changed."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints; one is always written at the end."""
    select: Literal["last", "best"] = "best"
    """Weights of the finished policy: the last, or those of the lowest NLL on the valid split."""
    eval_every: int = 0
    """Rounds between two evaluations of the policy (NLLs and samples); 0: about twenty evaluations a run."""
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
#: Options that have another name now: old -> new. Old ones are refused on the command line, and read in saved runs.
RENAMED = {
    "anew": "overrides", "average": "ema_decay", "buffer": "buffer_size", "clip_norm": "max_grad_norm",
    "critic": "vf_coef", "d_slower": "d_lr_scale", "entropy": "ent_coef", "judge": "discriminator", "kl": "kl_coef",
    "look_every": "eval_every", "minibatches": "num_minibatches", "mle_every": "mle_interval", "q_every": "q_interval",
}  # fmt: skip


@dataclass(frozen=True)
class _Head:
    """The options that decide the defaults of all others."""

    preset: str
    task: str | None = None
    corpus: str | None = None


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
    head, _ = _read(_Head, words, default=_Head(next(iter(presets))), return_unknown_args=True, add_help=False)
    require_known("preset", head.preset, presets)
    default = presets[head.preset](head.task or ("oracle" if head.corpus is None else "corpus"))
    known = {field.name for field in fields(default)}
    config = read_words(type(default), words, default=default, description=description)
    given = _named(words)
    if config.resume is not None:
        changed = sorted(given & known - {"resume"})
        refused = [_shown(name) for name in changed if not _may_be_overridden(name)]
        require(not refused, f"a resumed run keeps its options: leave out {', '.join(refused)}")
        return replace(config, overrides=tuple(changed))
    # A run is resumed, and its policy loaded, from any folder.
    if config.corpus is not None:
        config = replace(config, corpus=str(Path(config.corpus).expanduser().absolute()))
    if config.tokenizer is not None:
        config = replace(config, tokenizer=config.tokenizer.expanduser().absolute())
    return config


def _shown(name: str) -> str:
    """An option as it is typed."""
    return f"--{name.replace('_', '-')}"


def _may_be_overridden(option: str) -> bool:
    """Whether a resumed run may take another value: where it computes, how fast it learns, when it saves and stops."""
    others = ("max_grad_norm", "device", "threads", "checkpoint_every", "patience", "stop_on_collapse")
    return option.endswith("learning_rate") or option in others


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
