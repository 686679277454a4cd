"""From raw results to what is claimed: one primary measure, curves, gaps to the baselines, intervals over seeds.

The primary measure, named before anything was run, is the fit at no worse cover: the lowest fit, KL(policy||oracle)/T,
that an arm reaches at any temperature where its cover, KL(oracle||policy)/T, is at most what the baseline has at
temperature 1, plus `SLACK`. Every other column is exploratory.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.arms import BASELINE, BASELINES
from textgan_env.utils.errors import require

Floats = NDArray[np.float64]
Curve = Sequence[tuple[float, float]]
#: Results of jobs.
Results = Sequence[Mapping[str, Any]]

SLACK = 0.05  # nats a token of cover; two seeds of tuned maximum likelihood differed by 0.001 when this was chosen
RESAMPLES = 2_000
LEVEL = 0.95


# ----------------------------------------------------------------------------------------------------
# Over seeds
def interquartile_mean(values: ArrayLike) -> float:
    """Mean of what is left when the lowest and the highest quarter (rounded down) are taken off.

    Source: Agarwal et al. (2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice".

    Args:
        values: Numbers, any shape.

    Returns:
        The mean; NaN of nothing.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean()) if len(ordered) else math.nan


def interval(
    strata: Sequence[ArrayLike],
    statistic: Callable[[Floats], float] = interquartile_mean,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile interval of a statistic by the stratified bootstrap: seeds are drawn again within each stratum.

    Source: Agarwal et al. (2021), where a stratum is a task.

    Args:
        strata: Numbers of each stratum, one a seed.
        statistic: Of all numbers together.
        resamples: How often they are drawn.
        level: Share of the resamples between the ends.
        seed: Of the draws.

    Returns:
        Lower and upper end; None where no stratum has two numbers.
    """
    arrays = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not any(len(array) > 1 for array in arrays):
        return None
    rng = np.random.default_rng(seed)
    found = [
        statistic(np.concatenate([array[rng.integers(len(array), size=len(array))] for array in arrays]))
        for _ in range(resamples)
    ]
    lower, upper = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(lower), float(upper)


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Probability that a seed of ours is lower than a seed of theirs, a tie counting one half; low is good here.

    Source: Agarwal et al. (2021); the Mann-Whitney statistic.

    Args:
        ours: One number a seed; infinity for a seed that never came there.
        theirs: Those of the other arm.

    Returns:
        0 to 1; NaN where either has no seed.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if not len(a) or not len(b):
        return math.nan
    return float(np.mean((a[:, None] < b) + 0.5 * (a[:, None] == b)))


# ----------------------------------------------------------------------------------------------------
# Curves
def best_fit(curve: Curve, most_cover: float) -> float:
    """The lowest fit on a curve of (cover, fit) where the cover is not above a limit.

    Between neighbours the curve is a straight line.

    Args:
        curve: Points, neighbours beside each other.
        most_cover: The limit.

    Returns:
        The fit; infinity where the curve never covers so well.
    """
    found = [fit for cover, fit in curve if cover <= most_cover]
    for (cover_a, fit_a), (cover_b, fit_b) in pairwise(curve):
        if (cover_a - most_cover) * (cover_b - most_cover) < 0:
            share = (most_cover - cover_a) / (cover_b - cover_a)
            found.append(fit_a + share * (fit_b - fit_a))
    return min(found, default=math.inf)


def points_of(result: Mapping[str, Any], x: str, y: str, variant: str | None = None) -> list[tuple[float, float]]:
    """A result's points in a plane: along its temperatures, else its rows.

    Args:
        result: Of one job.
        x: A measure.
        y: Another.
        variant: Of a row, if only that one is asked for.

    Returns:
        Points by falling temperature, or in the order of the rows; those that lack a measure are left out.
    """
    rows = [row for row in result["rows"] if variant in (None, row["variant"])]
    sources = result["curve"] or [row["values"] for row in rows]
    return [(values[x], values[y]) for values in sources if x in values and y in values]


# ----------------------------------------------------------------------------------------------------
# The table
@dataclass(frozen=True)
class Line:
    """One line of a table: an arm (or a variant of it) on a task, over its seeds.

    Attributes:
        name: Arm and variant.
        group: Of the arm.
        task: The task.
        seeds: How many.
        each: Measure -> its numbers, one a seed, of those that every seed has.
        values: The interquartile means of these, and of what training cost.
        primary: Fit at no worse cover, one a seed; empty where it does not apply.
        gaps: Baseline -> (gap, its interval): the baseline's fit at no worse cover less ours, paired by seed.
        improvement: Probability that a seed of ours has a lower primary measure than one of the baseline.
        how: How it was made.
        commands: How to make each seed again.
        tries: Settings tried; None: not counted.
        marks: What a reader must know, such as results of other code.
    """

    name: str
    group: str
    task: str
    seeds: int
    each: Mapping[str, tuple[float, ...]]
    values: Mapping[str, float]
    primary: Sequence[float]
    gaps: Mapping[str, tuple[float, tuple[float, float] | None]]
    improvement: float
    how: str
    commands: Sequence[str]
    tries: int | None
    marks: Sequence[str]


def lines_of(results: Results) -> list[Line]:
    """Every line of the tables of all tasks, in the order of the results.

    Args:
        results: Of jobs, as results.json holds them.

    Raises:
        InputError: If there is none, or one job stands twice.
    """
    require(bool(results), "no finished job: there is nothing to compare")
    seen = [result["label"] for result in results]
    twice = next((label for label in seen if seen.count(label) > 1), None)
    require(twice is None, f"the results of '{twice}' stand here twice")
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for result in results:
        if not result["config"]["member"]:
            for row in result["rows"]:
                key = result["config"]["task"], result["config"]["arm"], row["variant"]
                groups.setdefault(key, []).append(result)
    return [_line(task, arm, variant, group, results) for (task, arm, variant), group in groups.items()]


def _line(task: str, arm: str, variant: str, group: Results, results: Results) -> Line:
    """One line of a table, from the results of its seeds."""
    measured = [next(row["values"] for row in result["rows"] if row["variant"] == variant) for result in group]
    shared = [name for name in measured[0] if all(name in values for values in measured)]
    each = {name: tuple(row[name] for row in measured) for name in shared}
    values = {name: interquartile_mean(numbers) for name, numbers in each.items()} | _costs(group)
    ours = _primary(group, results, variant)
    baselines = {name: _of_arm(results, task, name) for name in (BASELINE, best_of_any_size(results, task)) if name}
    gaps = {}
    for name, others in baselines.items():
        theirs = _primary(others, results, None)
        both = [theirs[seed] - ours[seed] for seed in ours if seed in theirs]
        # An arm that never covers enough in one of the seeds has no gap: the others alone would flatter it.
        if both and all(map(math.isfinite, both)) and arm != name:
            gaps[name] = interquartile_mean(both), interval([both])
    of_baseline = list(_primary(baselines.get(BASELINE, []), results, None).values())
    own = [ours[seed] for seed in sorted(ours)]
    marks = ["results of another version of the code"] if any(result["other_code"] for result in group) else []
    improvement = probability_of_improvement(own, of_baseline) if arm != BASELINE else math.nan
    commands, made = [result["command"] for result in group], group[0]
    return Line(
        name=f"{arm} {variant}".strip(), group=made["group"], task=task, seeds=len(group), each=each, values=values,
        primary=own, gaps=gaps, improvement=improvement, how=made["how"], commands=commands, tries=made["tries"],
        marks=marks,
    )  # fmt: skip


def _costs(group: Results) -> dict[str, float]:
    """What training cost, and how well D did on texts that neither it nor G had seen, at the end."""
    found: dict[str, list[float]] = {}
    for result in group:
        seconds, peak = result["seconds"]["training"], result["peak_memory_mb"]
        known = {"training_minutes": None if seconds is None else seconds / 60, "peak_memory_mb": peak}
        for name in ("d_auc", "d_accuracy"):
            known[name] = next((row[name] for row in reversed(result["learning_curve"]) if name in row), None)
        for name, value in known.items():
            found.setdefault(name, []).extend([] if value is None else [value])
    return {name: interquartile_mean(values) for name, values in found.items() if len(values) == len(group)}


def _of_arm(results: Results, task: str, arm: str) -> Results:
    """The results of an arm on a task, without further members of an ensemble."""
    asked = {"task": task, "arm": arm, "member": 0}
    return [result for result in results if asked.items() <= result["config"].items()]


def best_of_any_size(results: Results, task: str) -> str | None:
    """The maximum likelihood arm with the lowest mean NLL on the valid split: the second baseline."""
    means = {}
    for arm in BASELINES:
        nlls = [result["rows"][0]["values"].get("nll_valid") for result in _of_arm(results, task, arm)]
        if nlls and None not in nlls:
            means[arm] = sum(nlls) / len(nlls)
    return min(means, key=means.__getitem__, default=None)


def cover_limits(results: Results, task: str) -> dict[int, float]:
    """Seed -> the most cover that counts as no worse: the baseline's at temperature 1, plus the slack."""
    limits = {}
    for result in _of_arm(results, task, BASELINE):
        at_one = [values for values in result["curve"] if values["temperature"] == 1 and "cover" in values]
        if at_one:
            limits[result["config"]["seed"]] = at_one[0]["cover"] + SLACK
    return limits


def _primary(group: Results, results: Results, variant: str | None) -> dict[int, float]:
    """Seed -> fit at no worse cover; infinity where the curve never covers so well."""
    found = {}
    for result in group:
        seed = result["config"]["seed"]
        limit = cover_limits(results, result["config"]["task"]).get(seed)
        points = points_of(result, "cover", "fit", variant)
        if limit is not None and (points or any("cover" in row["missing"] for row in result["rows"])):
            found[seed] = best_fit(points, limit)
    return found
