"""The command line of an agent: presets, the options all agents share, and how the words are read. Loads no torch."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from textgan_env.errors import InputError, require


@dataclass(frozen=True)
class CommonConfig:
    """Options of every agent."""

    preset: str = "fast"
    """Where all other defaults come from; see the list above."""
    task: str = "oracle"
    """oracle, seqgan-oracle, toy, corpus (when there is a --path), wordnet, wordnet-glosses, coco, emnlp, poems."""
    path: str | None = None
    """Your text file, one text a line (task corpus), the weights file (seqgan-oracle), or the folder with its files."""
    mode: Literal["word", "char", "whitespace"] | None = None
    """How the lines of --path become tokens [word]."""
    max_length: int | None = None
    """T, the most tokens of a text [what the task says]."""
    longer: Literal["cut", "drop", "grow"] | None = None
    """What happens to longer lines of --path [drop]."""
    min_count: int | None = None
    """Words of --path seen less often become unknown [1]."""
    max_vocab: int | None = None
    """Words of --path beyond the most frequent ones become unknown [no limit]."""
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
    """A run folder to go on with; its options hold, and only --device and --threads can be given anew."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints; one is always written at the end."""
    select: Literal["last", "best"] = "best"
    """Weights of the finished policy: the last, or those of the lowest NLL on the valid split."""
    look_every: int = 0
    """Rounds between two looks at the policy (NLLs and samples); 0: about twenty looks a run."""
    show_samples: int = 3
    """Texts printed at each look."""
    patience: int = 0
    """Stop the last phase after so many looks without a new low of NLL on the valid split, or of D's AUC on unseen
    texts; 0: never."""

    def task_options(self) -> dict[str, Any]:
        """The task's options that were given."""
        given = {name: getattr(self, name) for name in ("mode", "max_length", "longer", "min_count", "max_vocab")}
        if self.path is not None:
            given[path_option(self.task)] = self.path
        return {name: value for name, value in given.items() if value is not None}


def path_option(task: str) -> str:
    """Which option of a task says where its text is: a file, a file of weights, or the folder with published files.

    Raises:
        InputError: If the task reads no file.
    """
    require(task not in ("oracle", "toy"), f"task '{task}' reads no file: --path is for task corpus, your own text")
    return {"corpus": "path", "seqgan-oracle": "weights"}.get(task, "data_dir")


Config = TypeVar("Config", bound=CommonConfig)


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
    import tyro

    words = sys.argv[1:] if args is None else args
    own_text = any(word.split("=")[0] == "--path" for word in words)
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
    config = tyro.cli(type(default), default=default, description=description, args=words)
    if config.resume is not None:
        options = {f"--{field.name.replace('_', '-')}" for field in fields(default)}
        given = sorted((options - {"--resume", "--device", "--threads"}) & {word.split("=")[0] for word in words})
        require(not given, f"a run goes on with the options it began with: leave out {', '.join(given)}")
    if config.path is None:
        return config
    # A run is gone on with, and its policy loaded, from any folder.
    return replace(config, path=str(Path(config.path).expanduser().absolute()))
