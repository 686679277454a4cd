"""The runs of a folder: what each is, whether it runs, and its last numbers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from textgan_env.runs.folder import RunFolder, runs_in
from textgan_env.runs.logs import read_metrics
from textgan_env.utils.errors import InputError, require
from textgan_env.utils.files import locked

#: What is shown of a run, in this order, as far as it has it.
_NUMBERS = ("nll_test", "nll_valid", "cover", "fit", "bleu_4", "self_bleu_4")


@dataclass(frozen=True)
class Listed:
    """A run of a folder.

    Attributes:
        name: Of its folder.
        agent: What trains it.
        task: The task, or the file of an own text.
        seed: Its seed; None: it has none.
        control: Which reward that knows nothing of the text took the place of its own; None: it is no control.
        state: running: a process trains in it; finished: it was measured at its end; stopped: it can be resumed.
        round: Rounds done.
        numbers: Its last numbers: those of its end, else of its last evaluation.
        verdict: gain, no gain or worse; None: not known.
        changed: When it last wrote something, seconds since 1970.
        error: Why it cannot be read; "" where it can.
    """

    name: str
    agent: str = ""
    task: str = ""
    seed: int | None = None
    control: str | None = None
    state: Literal["running", "finished", "stopped", "unreadable"] = "unreadable"
    round: int = 0
    numbers: Mapping[str, float] | None = None
    verdict: str | None = None
    changed: float = 0.0
    error: str = ""

    def document(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return asdict(self)


def agent_of(about: Mapping[str, Any]) -> str:
    """Which agent made a run, from its config.json; runs of earlier versions say so in their name only."""
    agent = about.get("agent")
    return agent if isinstance(agent, str) else str(about.get("name")).partition("-")[0]


def list_runs(root: str | Path) -> list[Listed]:
    """The runs in a folder, the newest first; one that cannot be read is listed with the reason.

    Args:
        root: The folder of run folders.

    Raises:
        InputError: If there is no such folder.
    """
    root = Path(root)
    require(root.is_dir(), f"no folder '{root}': runs are made there by textgan train")
    return sorted(map(_listed, runs_in(root)), key=lambda run: (-run.changed, run.name))


def _listed(path: Path) -> Listed:
    """One run."""
    try:
        run = RunFolder.open(path)
        about, evaluation, changed = run.about, run.evaluation, _changed(run)
        rows = read_metrics(path) if (path / "metrics.jsonl").is_file() else []
        measured = [row for row in rows if "nll_valid" in row]
        found: Mapping[str, Any] = evaluation["values"] if evaluation else measured[-1] if measured else {}
        state: Literal["running", "finished", "stopped"] = "finished" if evaluation else "stopped"
        return Listed(
            name=path.name, agent=agent_of(about), task=_text_of(about), seed=about.get("seed"),
            control=about["config"].get("control"), state="running" if is_locked(run) else state,
            round=int(rows[-1]["step"]) if rows else 0,
            numbers={name: float(found[name]) for name in _NUMBERS if name in found},
            verdict=evaluation.get("verdict") if evaluation else None, changed=changed,
        )  # fmt: skip
    except InputError as error:
        return Listed(path.name, error=str(error), changed=path.stat().st_mtime)


def _text_of(about: Mapping[str, Any]) -> str:
    """The task, or the file of an own text."""
    config = about["config"]
    own = config.get("task") == "corpus" and isinstance(config.get("corpus"), str)
    return Path(config["corpus"]).name if own else str(config.get("task", "?"))


def _changed(run: RunFolder) -> float:
    """When the run last wrote something."""
    written = (run.config_file, run.evaluation_file, run.last_checkpoint, run.path / "metrics.jsonl")
    return max(file.stat().st_mtime for file in written if file.exists())


def is_locked(run: RunFolder) -> bool:
    """Whether a process trains in the folder; the lock is taken for a moment where none does."""
    lock = run.path / ".lock"
    if not lock.exists():
        return False
    try:
        with locked(lock, lambda: "it runs"):
            return False
    except (InputError, OSError):
        return True


def table_of(runs: Sequence[Listed], now: float | None = None) -> str:
    """The runs as a table for a terminal.

    Args:
        runs: Of `list_runs`.
        now: Seconds since 1970; None: it is asked of the clock.
    """
    now = time.time() if now is None else now
    rows = [("run", "agent", "task", "seed", "state", "round", "when", "last numbers")]
    for run in runs:
        numbers = [f"{name} {value:.3f}" for name, value in (run.numbers or {}).items()][:4]
        said = run.error or ", ".join([*numbers, *([run.verdict] if run.verdict else [])])
        seed = "" if run.seed is None else str(run.seed)
        agent = f"{run.agent}, control {run.control}" if run.control else run.agent
        rows.append((run.name, agent, run.task, seed, run.state, str(run.round), ago(now - run.changed), said))
    widths = [max(len(row[at]) for row in rows) for at in range(7)]
    return "\n".join("  ".join([*map(str.ljust, row[:7], widths), row[7]]).rstrip() for row in rows)


def ago(seconds: float) -> str:
    """A time that has passed, in one unit: "3 minutes ago"."""
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' * (count > 1)} ago"
    return "just now"
