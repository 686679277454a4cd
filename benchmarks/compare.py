"""From raw results to what is claimed: one primary measure, curves, gaps to the baselines, intervals over seeds.

The primary measure, named before anything was run, is the fit at no worse cover: the lowest fit, KL(policy||oracle)/T,
that an arm reaches at any temperature where its cover, KL(oracle||policy)/T, is at most what the baseline has at
temperature 1, plus `SLACK`. Every other column is exploratory.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from benchmarks.arms import ALL_CONTROLS, ARMS, BASELINE, BASELINES
from benchmarks.results import commit_of
from textgan_env.ops.confidence import FEWEST_SEEDS, interval
from textgan_env.ops.metric_table import SLACK
from textgan_env.ops.metrics import roc_auc
from textgan_env.utils.errors import require

Curve = Sequence[tuple[float, float]]
#: Results of jobs.
Results = Sequence[Mapping[str, Any]]

#: Measures that a table takes from the end of a learning curve.
OF_CURVE = ("d_auc", "d_accuracy")


# ----------------------------------------------------------------------------------------------------
# Over seeds
def probability_of_improvement(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Probability that a seed of ours is lower than a seed of theirs, a tie counting one half; low is good here.

    Source: Agarwal et al. (2021); the Mann-Whitney statistic.

    Args:
        ours: One number a seed; infinity for a seed that never came there.
        theirs: Those of the other arm.

    Returns:
        0 to 1; NaN where either has no seed.
    """
    return roc_auc(theirs, ours) if len(ours) and len(theirs) else math.nan


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
        values: The means of these, and of what training cost.
        primary: Fit at no worse cover, one a seed; empty where it does not apply.
        gaps: Baseline -> (gap, its interval): the baseline's fit at no worse cover less ours, paired by seed.
        improvement: Probability that a seed of ours has a lower primary measure than one of the baseline.
        how: How it was made.
        commands: How to make each seed again.
        tries: Settings tried; None: not counted.
        marks: What a reader must know: results of other code, other seeds than the baseline's, no control.
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
    values = {name: fmean(numbers) for name, numbers in each.items()} | _costs(group)
    ours = _primary(group, results, variant)
    gaps, improvement = {}, math.nan
    for name in dict.fromkeys([BASELINE, best_baseline(results, task)]):
        if name is None or name == arm:
            continue
        theirs = _primary(_of_arm(results, task, name), results, None)
        both = [seed for seed in ours if seed in theirs]
        gap = [theirs[seed] - ours[seed] for seed in both]
        # An arm that never covers enough in one of the seeds has no gap: the others alone would flatter it.
        if gap and all(map(math.isfinite, gap)):
            gaps[name] = fmean(gap), interval(gap)
        if name == BASELINE:
            improvement = probability_of_improvement([ours[seed] for seed in both], [theirs[seed] for seed in both])
    commands, made = [result["command"] for result in group], group[0]
    return Line(
        name=f"{arm} {variant}".strip(), group=made["group"], task=task, seeds=len(group), each=each, values=values,
        primary=[ours[seed] for seed in sorted(ours)], gaps=gaps, improvement=improvement, how=made["how"],
        commands=commands, tries=made["tries"], marks=_marks(group, _of_arm(results, task, BASELINE), results),
    )  # fmt: skip


def _marks(group: Results, baseline: Results, results: Results) -> list[str]:
    """Why a row cannot be read beside the baseline's as it stands."""
    found = []
    if group[0]["group"] != "scored":  # texts of others have neither seed nor commit
        seeds, theirs = ({result["config"]["seed"] for result in some} for some in (group, baseline))
        code, of_baseline = _code(group), _code(baseline)
        if baseline and code != of_baseline:
            found.append(f"code: {code}; of {BASELINE}: {of_baseline}")
        elif any(result["other_code"] for result in group):
            found.append("results of another version of the code")
        elif any(result.get("source") is None for result in group):
            found.append(f"code: {code}")
        if baseline and seeds != theirs:
            found.append(f"seeds {_listed(seeds)}, of {BASELINE} {_listed(theirs)}: gap and P on those of both")
        if len(seeds) < FEWEST_SEEDS:
            found.append(f"interval n/a, fewer than {FEWEST_SEEDS} seeds")
    return found if _controlled(group, results) else [*found, "no control"]


def _code(group: Results) -> str:
    """The states of the code that made some results, each once."""
    return ", ".join(sorted({commit_of(result.get("source")).removeprefix("commit ") for result in group}))


def _listed(seeds: Iterable[int]) -> str:
    """Seeds in order."""
    return " ".join(map(str, sorted(seeds)))


def _controlled(group: Results, results: Results) -> bool:
    """Whether each seed of an arm that learns from a reward stands beside the same with one that knows nothing."""
    arm, task = group[0]["config"]["arm"], group[0]["config"]["task"]
    kind = ARMS[arm].group if arm in ARMS else group[0]["group"]  # results may be older than the groups
    if kind not in ("adversarial", "agents", "hierarchical", "sb3") or arm.endswith("-mle"):
        return True
    stem = "control" if kind == "adversarial" else arm
    seeds = {result["config"]["seed"] for result in group}
    controls = (_of_arm(results, task, f"{stem}-{reward}") for reward in ALL_CONTROLS)
    return any(seeds <= {result["config"]["seed"] for result in control} for control in controls)


def _costs(group: Results) -> dict[str, float]:
    """What training cost, and how well D did on texts that neither it nor G had seen, at the end."""
    seeds = []
    for result in group:
        seconds, peak = result["seconds"]["training"], result["peak_memory_mb"]
        costs = {"training_minutes": None if seconds is None else seconds / 60, "peak_memory_mb": peak}
        for name in OF_CURVE:
            costs[name] = next((row[name] for row in reversed(result["learning_curve"]) if name in row), None)
        seeds.append(costs)
    known = [name for name in seeds[0] if all(costs[name] is not None for costs in seeds)]
    return {name: fmean([costs[name] for costs in seeds]) for name in known}


def _of_arm(results: Results, task: str, arm: str) -> Results:
    """The results of an arm on a task, without further members of an ensemble."""
    asked = {"task": task, "arm": arm, "member": 0}
    return [result for result in results if asked.items() <= result["config"].items()]


def best_baseline(results: Results, task: str) -> str | None:
    """The second baseline: that with the lowest mean NLL on the valid split."""
    means = baseline_nlls(results, task)
    return min(means, key=means.__getitem__, default=None)


def baseline_nlls(results: Results, task: str) -> dict[str, float]:
    """The arms of `BASELINES` that have all seeds of the first -> their mean NLL on the valid split."""
    seeds = {result["config"]["seed"] for result in _of_arm(results, task, BASELINE)}
    means = {}
    for arm in BASELINES:
        found = {result["config"]["seed"]: result for result in _of_arm(results, task, arm)}
        nlls = [result["rows"][0]["values"].get("nll_valid") for result in found.values()]
        if nlls and None not in nlls and found.keys() >= seeds:
            means[arm] = fmean(nlls)
    return means


def cover_limits(results: Results, task: str) -> dict[int, float]:
    """Seed -> the most cover that counts as no worse: the baseline's at temperature 1, plus the slack."""
    return {
        result["config"]["seed"]: values["cover"] + SLACK
        for result in _of_arm(results, task, BASELINE)
        for values in result["curve"]
        if values["temperature"] == 1 and "cover" in values
    }


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
