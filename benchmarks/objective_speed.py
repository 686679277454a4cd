"""How fast objectives are asked: strings a second with and without worker processes, and their share of a g-step.

``python -m benchmarks.objective_speed --pretrained runs/mle-moses-1`` asks about different strings of that run's
policy, so that nothing is remembered from before. Workers are started and warm before the clock runs; the fastest of
some turns counts, since other things run on the machine, too. A g-step is timed in processor seconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from agents import class_of, module_of
from benchmarks.results import command, show
from textgan_env.utils.options import at_least

if TYPE_CHECKING:
    from textgan_env.objectives import Objective
    from textgan_env.show.saved import SavedRun


@dataclass(frozen=True)
class Options:
    """Time objectives."""

    pretrained: Path
    """A run of maximum likelihood, whose strings they are asked about."""
    objectives: tuple[str, ...] = ("smiles", "qed", "sa")
    """NAME:ARGUMENT, or FILE.py:NAME."""
    workers: tuple[int, ...] = (0, 1, 2)
    """Processes that ask; 0: the one that trains."""
    strings: int = 1_000
    """Strings a turn."""
    turns: int = 5
    """Turns; the fastest counts."""
    batch_size: int = 64
    """Texts a g-step."""
    g_steps: int = 10
    """g-steps that are timed, after one that is not."""
    name: str = "objective_speed"
    """Of the result files."""


@command
def main(options: Options) -> None:
    """The command."""
    import os

    import torch

    from textgan_env import load
    from textgan_env.evaluation import stream_texts
    from textgan_env.objectives import ask, typed_objective

    at_least(1, options, "strings", "turns", "g_steps")
    torch.set_num_threads(1)
    run = load(options.pretrained)
    texts = list(stream_texts(run.policy, run.task, options.strings, run.seed))
    rows = []
    for name in options.objectives:
        objective = typed_objective(name)
        rates = {f"{count} workers": rate(objective, texts, count, options.turns) for count in options.workers}
        alone = len(texts) / fastest(partial(ask, objective, texts), options.turns, process_time)
        rows.append({"objective": name, "a processor second": alone, **rates, **g_step(options, name, run)})
        print(rows[-1], flush=True)
    load_now = ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "not known"
    notes = (
        f"Strings that an objective is asked about in a processor second, and, by the clock on the wall, in a second "
        f"with so many workers (0: the process that trains asks); {options.strings:,} strings of a policy of maximum "
        f"likelihood on task '{run.task.name}', the fastest of {options.turns} turns. "
        f"{os.cpu_count()} processors; load averages at the end: {load_now}. g-step: processor seconds of a g-step of "
        f"REINFORCE with {options.batch_size} texts, mean of {options.g_steps}; share: of it spent in the objective "
        "(0 workers)."
    )
    show(options.name, rows, notes=notes)


def rate(objective: "Objective", texts: Sequence[str], workers: int, turns: int) -> float:
    """Texts a second by the fastest of some turns, started processes ready."""
    from textgan_env.objectives import Workers, ask

    if not workers:
        return len(texts) / fastest(lambda: ask(objective, texts), turns)
    processes = Workers(objective, workers)
    try:
        processes.ask(texts)  # they start, and load what they need
        return len(texts) / fastest(lambda: processes.ask(texts), turns)
    finally:
        processes.close()


def fastest(do: Callable[[], Any], turns: int, clock: Callable[[], float] = perf_counter) -> float:
    """Seconds of the fastest of some turns."""
    seconds = []
    for _ in range(turns):
        before = clock()
        do()
        seconds.append(clock() - before)
    return min(seconds)


def g_step(options: Options, objective: str, run: "SavedRun") -> dict[str, float]:
    """Processor seconds of a g-step, and the share of them that is spent in the objective."""
    from textgan_env.training.schedule import Step

    config = module_of("seqgan").PRESETS["fast"](run.task.name)
    given = {"pretrained": options.pretrained, "objective": objective, "objective_weight": 1.0, "rollouts": 0}
    given |= {"transform": "prob", "kl_coef": 0.05, "batch_size": options.batch_size, "device": "cpu"}
    agent = class_of("seqgan")(replace(config, **given), run.task)
    clock = Clock(agent.asked.objective)
    agent.asked.objective = replace(agent.asked.objective, score=clock)
    agent.g_step(Step(seed=0))
    clock.seconds, before = 0.0, process_time()
    for number in range(1, options.g_steps + 1):
        agent.g_step(Step(seed=number))
    spent = process_time() - before
    return {"g-step": spent / options.g_steps, "share": clock.seconds / spent}


class Clock:
    """An objective, and the processor seconds that it took."""

    def __init__(self, objective: Callable[[Sequence[str]], Any]) -> None:
        self.objective, self.seconds = objective, 0.0

    def __call__(self, texts: Sequence[str]) -> Any:
        """What it says."""
        before = process_time()
        try:
            return self.objective(texts)
        finally:
            self.seconds += process_time() - before


if __name__ == "__main__":
    main()
