"""How soon settings of an agent reach a given NLL of unseen text.

For example: python -m benchmarks.time_to_quality --target 7.40 --tries preset=fast "batch-size=128 learning-rate=2e-2"

Each try is the agent's own command with these options, in this process, one after the other. Whenever a round has been
logged, the seconds since the start are noted: of the wall, and of the processor, which is what compares on a machine
that is busy with other things. The evaluations are included, as for anybody who trains.
"""

import importlib
import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agents import module_of
from agents.cli import AGENTS
from benchmarks.results import command, show
from textgan_env.runs.logs import MetricLog
from textgan_env.utils.errors import require, require_known


@dataclass(frozen=True)
class Options:
    """Time settings of an agent."""

    tries: tuple[str, ...]
    """Options of the agent, each as name=value, one string a try."""
    agent: str = "mle"
    """The file in agents/."""
    task: str = "seqgan-oracle"
    """What is learnt."""
    target: float = 7.40
    """NLL-valid to reach, nats per token."""
    seed: int = 0
    """Of all tries."""
    threads: int = 1
    """CPU threads."""
    name: str = "time_to_quality"
    """Of the result files."""


@dataclass(frozen=True)
class Evaluated:
    """What the log said at a moment.

    Attributes:
        round: Of the run.
        nll_valid: Nats per token.
        wall: Seconds since the start.
        processor: Seconds of this process since the start.
    """

    round: int
    nll_valid: float
    wall: float
    processor: float


@contextmanager
def timed_evaluations() -> Iterator[list[Evaluated]]:
    """Inside, every evaluation that a run logs is noted with the seconds since the start."""
    found: list[Evaluated] = []
    wall, processor, write = time.monotonic(), time.process_time(), MetricLog.write

    def noting(log: MetricLog, step: int, values: Mapping[str, Any], phase: str = "") -> None:
        """Log a row, and note it."""
        write(log, step, values, phase)
        if values.get("nll_valid") is not None:
            seconds = time.monotonic() - wall, time.process_time() - processor
            found.append(Evaluated(step, float(values["nll_valid"]), *seconds))

    with patch.object(MetricLog, "write", noting):
        yield found


@command
def main(options: Options) -> None:
    """The command."""
    require_known("agent", options.agent, AGENTS)
    for word in " ".join(options.tries).split():
        is_option = re.fullmatch(r"[^=]+=.+", word) is not None
        require(is_option, f"'{word}' of --tries is no option: expected name=value, such as batch-size=128")
    notes = (
        f"agents/{options.agent}.py on {options.task}, its options beside those named; seconds until NLL-valid was "
        f"{options.target:g}, and to the end of training; then the finished policy on the test split."
    )
    rows = [attempt(words, options) for words in options.tries]
    show(options.name, rows, notes=notes)


def attempt(words: str, options: Options) -> dict[str, Any]:
    """Train once; the row of the try."""
    importlib.import_module("textgan_env.training.loop")  # what loading the libraries takes is no try's own
    train = module_of(options.agent).main
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        told = ["--task", options.task, "--seed", str(options.seed), "--threads", str(options.threads)]
        with timed_evaluations() as evaluations:
            train([*told, *(f"--{word}" for word in words.split()), "--show-samples", "1", "--runs", str(runs)])
        measured = json.loads(next(runs.glob("*/evaluation.json")).read_text(encoding="utf-8"))["values"]
    of_interest = {name: measured[name] for name in ("nll_oracle", "nll_test", "cover", "fit") if name in measured}
    return {"options": words, **summary(evaluations, options.target), **of_interest}


def summary(evaluations: list[Evaluated], target: float) -> dict[str, Any]:
    """When the target was reached (None: never), the lowest NLL-valid, and what all rounds took."""
    there = next((one for one in evaluations if one.nll_valid <= target), None)
    return {
        "rounds to target": None if there is None else there.round,
        "seconds to target": None if there is None else there.wall,
        "processor seconds to target": None if there is None else there.processor,
        "lowest nll_valid": min(one.nll_valid for one in evaluations),
        "rounds": evaluations[-1].round,
        "processor seconds": evaluations[-1].processor,
    }


if __name__ == "__main__":
    main()
