"""The folder of a run: what was asked for, on which machine and code, and where each result lies."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, JsonValue

from textgan_env.runs.snapshot import library_versions
from textgan_env.runs.trained import find_run
from textgan_env.utils.errors import InputError, require
from textgan_env.utils.files import append_safely, locked, write_safely
from textgan_env.utils.machine import processor_name
from textgan_env.utils.reading import (
    MOST_JSON,
    MOST_LOG,
    check_json,
    parse_json,
    read_limited,
    read_typed,
    require_inside,
)


class _About(BaseModel, extra="allow"):
    """What config.json holds; `RunFolder.create` writes all of it."""

    config: dict[str, JsonValue]
    name: str
    agent: str | None = None
    task: dict[str, JsonValue] | None
    seed: Annotated[int, Field(gt=-(2**63), lt=2**63)] | None
    command: list[str] | None = None
    python: str | None = None
    versions: dict[str, str] | None = None
    source: dict[str, JsonValue] | None = None
    machine: dict[str, JsonValue] | None = None
    changes: list[dict[str, dict[str, JsonValue]]] = Field(default=[])


class _Evaluation(BaseModel, extra="allow"):
    """What evaluation.json holds; all but the first three only at a run's end, since runs have a verdict."""

    values: dict[str, float]
    missing: dict[str, str]
    settings: dict[str, JsonValue]
    start: dict[str, float] | None = None
    real: dict[str, float] = Field(default={})
    ends: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)] | None] = Field(default={})
    verdict: str | None = None
    sentence: str = ""


class RunFolder:
    """One run on disk.

    ::

        runs/seqgan-3/
          config.json                       what was run, with what, where
          metrics.jsonl  metrics.csv  tb/   measurements (`textgan_env.runs.logs`)
          checkpoints/last.safetensors      from where the run goes on
          checkpoints/previous.safetensors  the one before, for when that cannot be read
          checkpoints/best.safetensors      the best by the rule fixed before the run
          start.json                        what was measured of the policy that its last phase began with
          evaluation.json                   what was measured at its end, and the verdict
          per_text.safetensors              both, text by text
          samples.txt  curve.png            to look at

    Args:
        path: The folder.

    Attributes:
        config_file: What was run.
        start_file: What was measured of the policy that its last phase began with.
        evaluation_file: What was measured at its end.
        per_text_file: Both, text by text; see `textgan_env.runs.measured`.
        pretraining_file: The metrics.jsonl of the run whose policy this one began with.
        samples_file: Texts generated during the run.
        curve_file: The picture of the learning curve.
        last_checkpoint: From where the run is resumed.
        previous_checkpoint: The last checkpoint but one.
        best_checkpoint: The best weights, by the rule that was fixed before the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file, self.evaluation_file, self.samples_file, self.curve_file = (
            path / name for name in ("config.json", "evaluation.json", "samples.txt", "curve.png")
        )
        self.pretraining_file, self.start_file = path / "pretraining.jsonl", path / "start.json"
        self.per_text_file = path / "per_text.safetensors"
        self.last_checkpoint, self.previous_checkpoint, self.best_checkpoint = (
            path / "checkpoints" / f"{name}.safetensors" for name in ("last", "previous", "best")
        )

    @classmethod
    def create(
        cls,
        root: str | os.PathLike[str],
        name: str,
        *,
        agent: str | None = None,
        config: Mapping[str, Any],
        task: Mapping[str, Any] | None = None,
        seed: int | None = None,
        command: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
    ) -> "RunFolder":
        """Make a new run folder ``<root>/<name>-<n>`` with the next free number, and write its config.json.

        Args:
            root: The folder of all runs; it is made when it is not there.
            name: What the run is, e.g. "seqgan".
            agent: What trains it; None: the name says it.
            config: The settings of the run, as JSON can hold them; paths and dataclasses are taken, too.
            task: Description of the task, alike.
            seed: The seed everything is drawn from.
            command: The command line; ``sys.argv`` by default.
            device: Where the run computes.

        Returns:
            The new folder.

        Raises:
            InputError: If the name is empty or not a plain folder name, the folder cannot be made or
                written, or config.json could not be read back; no folder is left behind then.
            TypeError: If ``config`` or ``task`` holds what JSON cannot; no folder is left behind then.
        """
        root = Path(root)
        plain = bool(name.strip()) and not re.search(r"[/\\\x00-\x1f]", name) and name.strip(". ") == name
        require(plain, f"a run needs a name that can be a folder name, got {name!r}")
        require(not root.is_file(), f"'{root}' is a file, but runs need a folder")
        asked = {"name": name, "agent": agent or name.partition("-")[0], "config": config, "task": task, "seed": seed}
        code = {"python": platform.python_version(), "versions": library_versions(), "source": source_state()}
        words = list(sys.argv if command is None else command)
        text = _json_text({**asked, "command": words, **code, "machine": machine(device)})
        check_json(text, "the config of a run")
        try:
            root.mkdir(parents=True, exist_ok=True)
            with ExitStack() as undo:
                made = cls(_next_folder(root, name))
                undo.callback(shutil.rmtree, made.path, ignore_errors=True)
                made.last_checkpoint.parent.mkdir()
                write_safely(made.config_file, text)
                undo.pop_all()
        except OSError as error:
            raise InputError(f"a run folder cannot be made in '{root}': {error.strerror or error}") from error
        return made

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """Use the folder of an earlier run.

        Args:
            path: The folder, or a name of trained weights, see `textgan_env.runs.trained.find_run`.

        Returns:
            The run.

        Raises:
            InputError: If it is not the folder of a run.
            MissingDataError: If trained weights are asked for and not here.
        """
        folder = cls(find_run(Path(path)))
        require(folder.path.is_dir(), f"no run folder at '{path}'")
        if not folder.config_file.is_file():
            inside = runs_in(folder.path)
            hint = f"; name the runs in it, such as '{inside[0]}'" if inside else ""
            raise InputError(f"'{path}' is not a run folder: it has no config.json{hint}")
        _ = folder.about  # refuses a file that cannot be read
        return folder

    @property
    def about(self) -> dict[str, Any]:
        """The content of config.json: "config", "task", "seed", "command", "versions", "source", "machine".

        Raises:
            InputError: If the file cannot be read or is not what `create` writes.
        """
        return self._document(self.config_file, _About)

    @property
    def start(self) -> dict[str, Any] | None:
        """The content of start.json, as `evaluation`; None where the run has no other policy to begin with.

        Raises:
            InputError: If the file cannot be read or is not what a run writes.
        """
        return self._document(self.start_file, _Evaluation) if self.start_file.exists() else None

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The content of evaluation.json: "values", "missing", "settings"; None where the run has not ended.

        Raises:
            InputError: If the file cannot be read or is not what a run writes.
        """
        return self._document(self.evaluation_file, _Evaluation) if self.evaluation_file.exists() else None

    def _document(self, file: Path, kind: type[BaseModel]) -> dict[str, Any]:
        """A JSON file of the run, as it is written and of the type that it must have."""
        where = f"'{file}'"
        try:
            found = parse_json(read_limited(file, MOST_JSON, inside=self.path), where)
        except OSError as error:
            raise InputError(f"{where} cannot be read: {error.strerror or error}") from None
        read_typed(kind, found, where)
        return dict(found)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from training in this folder; the lock ends with the process, however it ends.

        Raises:
            InputError: If another process has it; names it. If the lock or a folder of the run is a link that leads
                out of it.
            OSError: If the lock cannot be made, e.g. because the folder is read-only.
        """
        owner = self.path / ".owner"

        def refusal() -> str:
            """Who uses the run."""
            who = "another process"
            with suppress(OSError, InputError):
                who = read_limited(owner, 1000, inside=self.path).decode("utf-8", "replace").strip()
            return f"run '{self.path}' is in use by {who}: wait until that has ended, or stop it"

        for inside in (self.last_checkpoint.parent, self.path / "tb"):
            require_inside(inside, self.path)
        with locked(self.path / ".lock", refusal):
            write_safely(owner, f"process {os.getpid()} on {platform.node()}\n")
            yield

    def record_options(self, changed: Mapping[str, Any]) -> None:
        """Put options that a run goes on with into config.json: "config" holds them, "changes" what they were.

        Args:
            changed: Option -> new value.

        Raises:
            OSError: If it cannot be written.
        """
        about = self.about
        before = {name: about["config"].get(name) for name in changed}
        about["config"] |= changed
        about.setdefault("changes", []).append({"from": before, "to": dict(changed)})
        write_safely(self.config_file, _json_text(about))

    def keep_pretraining(self, run: str | os.PathLike[str]) -> None:
        """Keep what the run measured whose policy this one begins with: nothing reads that run again.

        Args:
            run: Its folder.

        Raises:
            OSError: If it cannot be read or written.
        """
        theirs = Path(run) / "metrics.jsonl"
        if theirs.is_file():
            write_safely(self.pretraining_file, read_limited(theirs, MOST_LOG, inside=run))

    def append_samples(self, step: int, texts: Sequence[str]) -> None:
        """Add texts to samples.txt, one a line, below a line that names the step.

        Args:
            step: Counter of the whole run.
            texts: Readable texts; line breaks inside one become blanks, so that a line stays a text.

        Raises:
            OSError: If they cannot be written; the file is then as it was.
        """
        append_safely(self.samples_file, _samples_text(step, texts))

    def samples(self) -> list[tuple[int, list[str]]]:
        """Read samples.txt.

        Returns:
            (step, texts) in the order they were written; none where nothing was written yet. A last line that
            a crash cut off is left out.

        Raises:
            InputError: If a line is not what `append_samples` writes; names the line.
        """
        if not self.samples_file.exists():
            return []
        found: list[tuple[int, list[str]]] = []
        content = read_limited(self.samples_file, MOST_LOG, inside=self.path)
        lines = content.decode("utf-8", "replace").split("\n")[:-1]
        for number, line in enumerate(lines, start=1):
            step = re.fullmatch(r"step ([0-9]{1,18})", line)
            if step:
                found.append((int(step[1]), []))
            elif line.startswith("  ") and found:
                found[-1][1].append(line[2:])
            elif line:
                raise InputError(f"line {number} of '{self.samples_file}' is neither 'step <n>' nor an indented text")
        return found

    def rewind(self, step: int) -> None:
        """Drop the samples written after a step, which a run that goes on from there writes again.

        Args:
            step: The step of the checkpoint.

        Raises:
            InputError: If samples.txt cannot be understood.
            OSError: If it cannot be written.
        """
        kept = [(at, texts) for at, texts in self.samples() if at <= step]
        write_safely(self.samples_file, "".join(_samples_text(at, texts) for at, texts in kept))


def source_state() -> dict[str, Any] | None:
    """The git commit of the source tree that runs.

    Returns:
        "commit" and "dirty" (tracked files differ from the commit), or ``None`` where the package does not
        run from its own git checkout.
    """
    root = Path(__file__).resolve().parents[2]
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    # An installed package may lie inside somebody else's repository, whose commit says nothing about it.
    if top is None or commit is None or Path(top).resolve() != root:
        return None
    return {"commit": commit, "dirty": _git(root, "status", "--porcelain", "--untracked-files=no") != ""}


def machine(device: str | torch.device = "cpu") -> dict[str, Any]:
    """What the run computes on.

    Args:
        device: The device of the run.

    Returns:
        "system", "cpu", "cores", "threads" (of torch) and "device".
    """
    device = torch.device(device)
    name = str(device)
    if device.type == "cuda" and torch.cuda.is_available():
        name += f" ({torch.cuda.get_device_name(device)})"
    computer = {"system": platform.platform(), "cpu": processor_name(), "cores": os.cpu_count()}
    return {**computer, "threads": torch.get_num_threads(), "device": name}


def runs_in(root: Path) -> list[Path]:
    """The run folders in a folder, by name."""
    return sorted(path for path in root.iterdir() if (path / "config.json").is_file())


def _next_folder(root: Path, name: str) -> Path:
    """Make ``<name>-<n>``, n one above the highest there; several processes may do so at once."""
    pattern = re.compile(re.escape(name) + r"-([0-9]{1,9})")
    number = max((int(taken[1]) for entry in root.iterdir() if (taken := pattern.fullmatch(entry.name))), default=0)
    while True:
        number += 1
        folder = root / f"{name}-{number}"
        with suppress(FileExistsError):
            folder.mkdir()
            return folder


def _samples_text(step: int, texts: Sequence[str]) -> str:
    """A part of samples.txt."""
    lines = "".join(f"  {' '.join(text.splitlines())}\n" for text in texts)
    return f"step {step}\n{lines}\n"


def _git(folder: Path, *arguments: str) -> str | None:
    """The answer of a git command, ``None`` where there is none."""
    try:
        command = ["git", "-C", str(folder), *arguments]
        # Git speaks UTF-8, whatever the code page of the machine is.
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _json_text(document: Mapping[str, Any]) -> str:
    """A document as config.json holds it."""
    return json.dumps(document, indent=2, ensure_ascii=False, default=_jsonable) + "\n"


def _jsonable(value: object) -> object:
    """What `json` cannot write by itself and a config may hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path | torch.device):
        return str(value)
    raise TypeError(f"a run's config holds a {type(value).__name__}, which JSON cannot hold")
