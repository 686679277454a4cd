"""The command line of an agent: presets, the options all agents share, and how the words are read. Loads no torch."""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import Suppress

from textgan_env.utils.errors import DEBUG, InputError, require


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
    """Of an oracle's or the toy task's texts: other numbers give other texts of the same law [that of the task]."""

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


#: Tasks of tokens without words; presets size networks for them otherwise than for text.
ORACLES = ("oracle", "oracle40", "seqgan-oracle", "toy")


def at_least(least: int, config: object, *names: str) -> None:
    """Refuse numbers of a config that are too small; None passes.

    Raises:
        InputError: If one is.
    """
    for name in names:
        value = getattr(config, name)
        require(value is None or value >= least, f"{name} must be at least {least}, found {value}")


_MOST = 1e9  # of a rate or a norm: what is larger cannot be computed with


def above_zero(config: object, *names: str) -> None:
    """Refuse numbers of a config that are not above 0, or above any use; None passes.

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

    preset: str = "fast"
    """Where all other defaults come from; see the list above."""
    seed: int = 0
    """Everything random follows from it, the oracle task's weights and texts excepted (they have their own)."""
    temperature: float = 1.0
    """What the finished policy's logits are divided by when it is measured and writes its samples."""
    deterministic: bool = False
    """Let the finished policy write the most probable token always."""
    device: str | None = None
    """cpu, cuda, cuda:1 ... [cpu]"""
    threads: int | None = None
    """CPU threads [torch's choice]; with other busy processes beside it, 1 is often fastest."""
    runs: Path = Path("runs")
    """Where run folders are made."""
    resume: Path | None = None
    """A run folder to go on with. Its options hold; learning rates, --max-grad-norm, --device, --threads,
    --checkpoint-every, --patience and --stop-on-collapse can be given anew."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints; one is always written at the end."""
    select: Literal["last", "best"] = "best"
    """Weights of the finished policy: the last, or those of the lowest NLL on the valid split."""
    eval_every: int = 0
    """Rounds between two looks at the policy (NLLs and samples); 0: about twenty looks a run."""
    show_samples: int = 3
    """Texts printed at each look."""
    patience: int = 0
    """Stop the last phase after so many looks without a new low of NLL on the valid split, or of D's AUC on unseen
    texts; 0: never."""
    stop_on_collapse: bool = False
    """Stop when a look finds that the policy collapses: half as many different texts as real ones, or less, or an
    entropy of less than half of what real text costs it."""
    overrides: Annotated[tuple[str, ...], Suppress] = ()
    """Which options were given beside --resume; whoever makes a config in Python says it here."""


@dataclass(frozen=True)
class SharedConfig(CommonConfig):
    """Options of agents that several processes can train together."""

    shards: int | None = None
    """Parts that each batch is cut into, for the processes of torchrun to share out. What is learnt depends on it,
    and not on how many processes there are [as many as processes]."""

    def batch_sizes(self) -> dict[str, int]:
        """Option -> rows of the batches that are cut."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name.endswith("batch_size")}


Config = TypeVar("Config", bound=CommonConfig)

#: Options that saved runs of earlier versions lack: their default is what those runs did.
ADDED = ("d_learning_rate", "policy")

#: Options that have another name now: old -> new. Old ones are refused on the command line, and read in saved runs.
RENAMED = {
    "anew": "overrides",
    "average": "ema_decay",
    "buffer": "buffer_size",
    "clip_norm": "max_grad_norm",
    "critic": "vf_coef",
    "d_slower": "d_lr_scale",
    "entropy": "ent_coef",
    "kl": "kl_coef",
    "look_every": "eval_every",
    "minibatches": "num_minibatches",
    "mle_every": "mle_interval",
    "q_every": "q_interval",
}


def parse(presets: Mapping[str, Callable[[str], Config]], description: str, args: list[str] | None = None) -> Config:
    """Read the command line of an agent: the preset first, then what differs from it.

    Args:
        presets: Name -> function that makes the config from the name of the task.
        description: For ``--help``.
        args: The words; ``sys.argv`` without the program by default.

    Returns:
        The config.

    Raises:
        InputError: If there is no such preset, or options come with a run to go on with.
        SystemExit: After ``--help``, or at an option that does not exist.
    """
    words = sys.argv[1:] if args is None else args
    own_text = any(word.split("=")[0] == "--corpus" for word in words)
    chosen = {"preset": next(iter(presets)), "task": "corpus" if own_text else "oracle"}
    for at, word in enumerate(words):
        for name in chosen:
            if word == f"--{name}" and at + 1 < len(words):
                chosen[name] = words[at + 1]
            elif word.startswith(f"--{name}="):
                chosen[name] = word.split("=", 1)[1]
    if chosen["preset"] not in presets:
        raise InputError(f"unknown preset '{chosen['preset']}', expected one of: {', '.join(presets)}")
    default = presets[chosen["preset"]](chosen["task"])
    _refuse_renamed(words, {field.name for field in fields(default)})
    config = read_words(type(default), words, default=default, description=description)
    if config.resume is not None:
        options = {f"--{field.name.replace('_', '-')}": field.name for field in fields(default)}
        given = sorted({word.split("=")[0] for word in words} & options.keys() - {"--resume"})
        refused = [option for option in given if not _may_be_overridden(options[option])]
        require(not refused, f"a run goes on with the options it began with: leave out {', '.join(refused)}")
        return replace(config, overrides=tuple(options[option] for option in given))
    # A run is gone on with, and its policy loaded, from any folder.
    if config.corpus is not None:
        config = replace(config, corpus=str(Path(config.corpus).expanduser().absolute()))
    if config.tokenizer is not None:
        config = replace(config, tokenizer=config.tokenizer.expanduser().absolute())
    return config


def _refuse_renamed(words: Sequence[str], known: set[str]) -> None:
    """Refuse options that are called otherwise now.

    Raises:
        InputError: If there is one; it says the new name.
    """
    for word in words:
        old = word.split("=")[0].removeprefix("--").replace("-", "_")
        new = RENAMED.get(old) if word.startswith("--") and old not in known else None
        if new in known:
            raise InputError(f"--{old.replace('_', '-')} is called --{new.replace('_', '-')} now")


def _may_be_overridden(option: str) -> bool:
    """Whether a run may go on with another value: where it computes, how fast it learns, when it saves and stops."""
    others = ("max_grad_norm", "device", "threads", "checkpoint_every", "patience", "stop_on_collapse")
    return option.endswith("learning_rate") or option in others


Read = TypeVar("Read")


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
    import tyro

    words = [word for word in words if word != DEBUG]  # is for `friendly_errors`
    settings: dict[str, Any] = {} if default is None else {"default": default}
    if description is not None:
        settings["description"] = description
    markers = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            read: Read = tyro.cli(what, args=words, prog=program, config=markers, **settings)
            return read
    except SystemExit as leaving:
        if leaving.code and box.getvalue():
            raise InputError(_sentence(box.getvalue())) from None
        raise


def _sentence(box: str) -> str:
    """What tyro says about a wrong command line in a box of many lines, as one line.

    Below its title the box says what is wrong, down to a rule or an empty line. Where options of like names follow, the
    first is kept.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)  # on a terminal it has colours
    lines = [line.strip("│ ") for line in plain.splitlines()[1:]]
    first = next((at for at, line in enumerate(lines) if _says_something(line)), len(lines))
    said = list(takewhile(_says_something, lines[first:]))
    rest = filter(_says_something, lines[first + len(said) :])
    like = next((line.split()[0] for line in rest if line.startswith("--")), None)
    sentence = " ".join(said).removesuffix(".")
    meant = f" (did you mean {like}?)" if like and sentence.startswith("Unrecognized") else ""
    return f"{sentence[:1].lower()}{sentence[1:]}{meant}; --help lists the options"


def _says_something(line: str) -> bool:
    return any(character.isalnum() for character in line)
