"""How often the 95 % interval over seeds covers the true mean, by simulation: ``python -m benchmarks.coverage``."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import command, table
from textgan_env.ops.confidence import interval

Floats = NDArray[np.float64]

#: Laws of the difference of two arms in one seed; the mean of each is 0.
LAWS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "uniform": lambda rng, size: rng.uniform(-1, 1, size),
    "heavy tails (t, 3 degrees)": lambda rng, size: rng.standard_t(3, size),
    "skewed (exponential)": lambda rng, size: rng.exponential(size=size) - 1,
    "very skewed (log-normal)": lambda rng, size: rng.lognormal(size=size) - math.exp(0.5),
    "one seed in ten fails": lambda rng, size: rng.normal(size=size) + 10.0 * (rng.random(size) < 0.1) - 1,
}


@dataclass(frozen=True)
class Options:
    """How often the interval over seeds covers the true mean."""

    seeds: tuple[int, ...] = (3, 5, 7, 10, 20)
    """Numbers of seeds."""
    trials: int = 20_000
    """Intervals for each."""


@command
def main(options: Options) -> None:
    """The command."""
    rows = [
        {"law": law, **{f"{seeds} seeds": f"{coverage(law, seeds, options.trials):.1%}" for seeds in options.seeds}}
        for law in LAWS
    ]
    print(table(rows))


def coverage(law: str, seeds: int, trials: int, *, resamples: int = 1000) -> float:
    """The share of intervals of so many seeds that hold the true mean; always the same for the same arguments."""
    rng = np.random.default_rng(seeds)
    hits = 0
    for trial in range(trials):
        ends = interval(LAWS[law](rng, seeds), resamples=resamples, seed=trial)
        hits += ends is not None and ends[0] <= 0 <= ends[1]
    return hits / trials


if __name__ == "__main__":
    main()
