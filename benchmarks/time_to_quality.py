"""How soon settings of an agent reach a given NLL of unseen text.

For example::

    python -m benchmarks.time_to_quality --target 7.40 --tries preset=fast "batch-size=128 learning-rate=2e-2"

Each try is the agent's own command with these options, in this process, one after the other. Whenever a round has been
logged, the seconds since the start are noted: of the wall, and of the processor, which is what compares on a machine
that is busy with other things. The evaluations are included, as for anybody who trains.
"""

import importlib
import json
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textgan_env.utils.errors import friendly_errors, require


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


class Watch:
    """Reads the log of a run as it grows, in a thread of its own, while ``with`` is entered.

    Attributes:
        evaluations: In order.
    """

    def __init__(self, runs: Path, every: float = 0.2) -> None:
        self.evaluations: list[Evaluated] = []
        self._runs, self._every = runs, every
        self._began = time.monotonic(), time.process_time()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        """Start to read."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and read what is left."""
        self._over.set()
        self._thread.join()
        self._read()

    def _watch(self) -> None:
        """Read again and again until the end."""
        while not self._over.wait(self._every):
            self._read()

    def _read(self) -> None:
        """Note evaluations that were logged since the last time."""
        now = time.monotonic() - self._began[0], time.process_time() - self._began[1]
        for log in self._runs.glob("*/metrics.jsonl"):
            lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
            rows = [json.loads(line) for line in lines if line.endswith("\n")]
            evaluations = [(row["step"], row["nll_valid"]) for row in rows if row.get("nll_valid") is not None]
            self.evaluations += [
                Evaluated(number, value, *now) for number, value in evaluations[len(self.evaluations) :]
            ]


def main(args: list[str] | None = None) -> None:
    """The command."""
    import tyro

    with friendly_errors():
        options = tyro.cli(Options, description=__doc__, args=args)
        known = sorted(path.stem for path in (Path(__file__).parents[1] / "agents").glob("[a-z]*.py"))
        require(options.agent in known, f"unknown agent '{options.agent}', expected one of: {', '.join(known)}")
        from benchmarks.results import show

        rows = [attempt(words, options) for words in options.tries]
        notes = (
            f"agents/{options.agent}.py on {options.task}, its options beside those named; seconds until NLL-valid was "
            f"{options.target:g}, and to the end of training; then the finished policy on the test split."
        )
        show(options.name, rows, module="benchmarks.time_to_quality", notes=notes)


def attempt(words: str, options: Options) -> dict[str, Any]:
    """Train once; the row of the try."""
    importlib.import_module("textgan_env.training.loop")  # what loading the libraries takes is no try's own
    options_of_try = [part for word in words.split() for part in _option(word)]
    train = importlib.import_module(f"agents.{options.agent}").main
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        told = ["--task", options.task, "--seed", str(options.seed), "--threads", str(options.threads)]
        with Watch(runs) as watch:
            train([*told, *options_of_try, "--show-samples", "1", "--runs", str(runs)])
        measured = json.loads(next(runs.glob("*/evaluation.json")).read_text(encoding="utf-8"))["values"]
    return {"options": words, **summary(watch.evaluations, options.target), **_of_interest(measured)}


def _option(word: str) -> tuple[str, str]:
    """One option of a try, as words of a command."""
    name, equals, value = word.partition("=")
    require(bool(name and equals), f"'{word}' of --tries is no option: expected name=value, such as batch-size=128")
    return f"--{name}", value


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


def _of_interest(measured: dict[str, float]) -> dict[str, float]:
    """What is kept of the final evaluation."""
    return {name: measured[name] for name in ("nll_oracle", "nll_test", "cover", "fit") if name in measured}


if __name__ == "__main__":
    main()
