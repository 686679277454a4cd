"""The numbers of a run, sent to a tracker of experiments: trackio, on this machine, or Weights & Biases."""

import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from textgan_env.runs.folder import RunFolder
from textgan_env.runs.listing import agent_of, is_locked
from textgan_env.runs.logs import read_metrics
from textgan_env.utils.errors import require, require_known, require_package

#: Packages with ``init(project, name, config)``, ``log(numbers, step)`` and ``finish()``; each is an extra of its name.
TrackerName = Literal["trackio", "wandb"]
_POLL = 2.0  # seconds between two looks at a run that is followed


def track(
    run: RunFolder,
    tracker: TrackerName = "trackio",
    project: str = "textgan",
    *,
    follow: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Send what a run has measured, round by round, and what was measured at its end.

    The run is only read: it can be running, stopped or finished, of today or of last year, and where it trains
    nothing needs a network. Each call makes a run of its own in the tracker.

    Args:
        run: The run.
        tracker: Where to.
        project: What the tracker puts runs together under.
        follow: Whether to wait for further rounds as long as a process trains in the folder.
        wait: Called with seconds between two looks.

    Returns:
        How many rounds were sent.

    Raises:
        InputError: If the tracker is unknown or not installed, or the run cannot be read, or has measured nothing yet
            and is not followed.
    """
    require_known("tracker", tracker, get_args(TrackerName))
    require_package(tracker, tracker, f"tracking by {tracker}")
    require(follow or _has_rows(run), f"run '{run.path}' has measured nothing yet: give --follow to wait for it")
    to = importlib.import_module(tracker)
    about = run.about
    known = {"agent": agent_of(about), "seed": about.get("seed"), "versions": about.get("versions")}
    to.init(project=project, name=run.path.name, config={**about["config"], **known})
    sent = last = 0
    try:
        while True:
            # Asked first: what the process writes before it ends is then still read.
            ended = not (follow and is_locked(run))
            for row in read_metrics(run.path) if _has_rows(run) else ():
                if int(row["step"]) > last:
                    sent, last = sent + 1, int(row["step"])
                    to.log(_numbers(row), step=last)
            if ended:
                break
            wait(_POLL)
        evaluation = run.evaluation
        if evaluation is not None:
            to.log({f"end/{name}": value for name, value in _numbers(evaluation["values"]).items()}, step=last)
    finally:
        to.finish()
    return sent


def _has_rows(run: RunFolder) -> bool:
    return (run.path / "metrics.jsonl").is_file()


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """What a tracker draws: the numbers, without the counter that they are drawn over."""
    return {name: value for name, value in values.items() if name != "step" and isinstance(value, int | float)}
