"""The folder of a run: what was asked for, on which machine and code, and where each result lies."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch

from textgan_env.runs.snapshot import library_versions
from textgan_env.utils.errors import InputError, require
from textgan_env.utils.files import append_safely, force_to_disk, locked, write_safely
from textgan_env.utils.reading import MOST_JSON, get_typed, parse_json, read_limited, read_typed


class RunFolder:
    """One run on disk.

    ::

        runs/seqgan-3/
          config.json                       what was run, with what, where
          metrics.jsonl  metrics.csv  tb/   measurements (`textgan_env.runs.logs`)
          checkpoints/last.safetensors      from where the run goes on
          checkpoints/previous.safetensors  the one before, for when that cannot be read
          checkpoints/best.safetensors      the best by the rule fixed before the run
          samples.txt  curve.png            to look at

    Args:
        path: The folder.

    Attributes:
        config_file: What was run.
        samples_file: Texts generated during the run.
        curve_file: The picture of the learning curve.
        last_checkpoint: From where the run is resumed.
        previous_checkpoint: The last checkpoint but one.
        best_checkpoint: The best weights, by the rule that was fixed before the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file, self.samples_file, self.curve_file = (
            path / name for name in ("config.json", "samples.txt", "curve.png")
        )
        self.last_checkpoint, self.previous_checkpoint, self.best_checkpoint = (
            path / "checkpoints" / f"{name}.safetensors" for name in ("last", "previous", "best")
        )

    @classmethod
    def create(
        cls,
        root: str | os.PathLike[str],
        name: str,
        *,
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
            config: The settings of the run, as JSON can hold them; paths and dataclasses are taken, too.
            task: Description of the task, alike.
            seed: The seed everything is drawn from.
            command: The command line; ``sys.argv`` by default.
            device: Where the run computes.

        Returns:
            The new folder.

        Raises:
            InputError: If the name is empty or not a plain folder name, or the folder cannot be made or
                written; no folder is left behind then.
            TypeError: If ``config`` or ``task`` holds what JSON cannot; no folder is left behind then.
        """
        root = Path(root)
        plain = bool(name.strip()) and not re.search(r"[/\\\x00-\x1f]", name) and name.strip(". ") == name
        require(plain, f"a run needs a name that can be a folder name, got {name!r}")
        require(not root.is_file(), f"'{root}' is a file, but runs need a folder")
        asked = {"name": name, "config": config, "task": task, "seed": seed}
        code = {"python": platform.python_version(), "versions": library_versions(), "source": source_state()}
        words = list(sys.argv if command is None else command)
        text = _json_text({**asked, "command": words, **code, "machine": machine(device)})
        made: Path | None = None
        try:
            root.mkdir(parents=True, exist_ok=True)
            made = _next_folder(root, name)
            (made / "checkpoints").mkdir()
            write_safely(made / "config.json", text)
        except BaseException as error:
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)
            if isinstance(error, OSError):
                reason = error.strerror or error
                raise InputError(f"a run folder cannot be made in '{root}': {reason}") from error
            raise
        return cls(made)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """Use the folder of an earlier run.

        Args:
            path: The folder.

        Returns:
            The run.

        Raises:
            InputError: If it is not the folder of a run.
        """
        folder = cls(Path(path))
        require(folder.path.is_dir(), f"no run folder at '{path}'")
        require(folder.config_file.is_file(), f"'{path}' is not a run folder: it has no config.json")
        _ = folder.about  # refuses a file that cannot be read
        return folder

    @property
    def about(self) -> dict[str, Any]:
        """The content of config.json: "config", "task", "seed", "command", "versions", "source", "machine".

        Raises:
            InputError: If the file cannot be read or is not what `create` writes.
        """
        try:
            about = parse_json(read_limited(self.config_file, MOST_JSON), f"'{self.config_file}'")
        except OSError as error:
            raise InputError(f"'{self.config_file}' cannot be read: {error.strerror or error}") from None
        get_typed(about, "config", dict, f"'{self.config_file}'")
        return read_typed(dict[str, Any], about, f"'{self.config_file}'")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from training in this folder; the lock ends with the process, however it ends.

        Raises:
            InputError: If another process has it; names it. If the lock is a link.
            OSError: If the lock cannot be made, e.g. because the folder is read-only.
        """
        owner = self.path / ".owner"

        def refusal() -> str:
            """Who uses the run."""
            who = owner.read_text(encoding="utf-8").strip() if owner.is_file() else "another process"
            return f"run '{self.path}' is in use by {who}: wait until that has ended, or stop it"

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

    def append_samples(self, step: int, texts: Sequence[str]) -> None:
        """Add texts to samples.txt, one a line, below a line that names the step.

        Args:
            step: Counter of the whole run.
            texts: Readable texts; line breaks inside one become blanks, so that a line stays a text.

        Raises:
            OSError: If they cannot be written; the file is then as it was.
        """
        append_safely(self.samples_file, _samples_text(step, texts))

    def force_samples(self) -> None:
        """Wait until the samples so far would outlive a power cut.

        Raises:
            OSError: If the disk cannot take them.
        """
        force_to_disk(self.samples_file)

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
        lines = self.samples_file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
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
    computer = {"system": platform.platform(), "cpu": _cpu_name(), "cores": os.cpu_count()}
    return {**computer, "threads": torch.get_num_threads(), "device": name}


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
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_name() -> str:
    """What the processor is called."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


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
