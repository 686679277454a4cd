"""What policies have more than the one they began from, over temperatures, paired by seed: a table and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import results
from benchmarks.pictures import Differences, called
from benchmarks.report import over_seeds
from textgan_env.ops.confidence import interval
from textgan_env.ops.metric_table import METRICS
from textgan_env.ops.metrics import Floats
from textgan_env.ops.plots import new_figure, plain_axes, plot_look, save_figure
from textgan_env.utils.errors import require, require_known

#: (policy, seed, temperature) -> row.
Rows = Mapping[tuple[str, int, float], Mapping[str, Any]]
#: (policy, measure) -> temperature -> one number a seed.
Found = dict[tuple[str, str], dict[float, tuple[float, ...]]]


def draw_differences(options: Differences) -> Path:
    """Print the table and write the picture; returns its path."""
    rows = kept_rows(options.results)
    found = differences(rows, options.start, options.measures, options.policies)
    policies = tuple(dict.fromkeys(policy for policy, _ in found))
    names_of = called(options.names, policies, "policy", "policies")
    seeds = " ".join(map(str, seeds_of(rows, options.start)))
    names = {policy: f"{name}, seeds {seeds}" for policy, name in zip(policies, names_of, strict=True)}
    print(results.table([
        {"policy": names[policy], "measure": measure} | {f"T={at:g}": over_seeds(values) for at, values in by_T.items()}
        for (policy, measure), by_T in found.items()
    ]))  # fmt: skip
    return _draw(found, names, options)


def kept_rows(names: Sequence[str]) -> Rows:
    """The rows of single seeds of some kept results.

    Raises:
        InputError: If there is no such result, or the same row has other numbers in another of them.
    """
    rows: dict[tuple[str, int, float], Mapping[str, Any]] = {}
    for name in names:
        for row in results.kept(name)["rows"]:
            if isinstance(row["seed"], int):
                key = (row["policy"], row["seed"], row["temperature"])
                alike = rows.setdefault(key, row) == row
                require(alike, f"'{name}' has other numbers of {key} than the results before it: other code made them")
    return rows


def seeds_of(rows: Rows, policy: str) -> list[int]:
    """The seeds of a policy, in order."""
    return sorted({seed for name, seed, _ in rows if name == policy})


def differences(rows: Rows, start: str, measures: Sequence[str], policies: Sequence[str] = ()) -> Found:
    """What each policy has more than the start in each seed.

    Args:
        rows: Of `kept_rows`.
        start: The policy they began from.
        measures: Columns.
        policies: Which; none: all.

    Returns:
        By policy and measure, then by falling temperature: one number a seed.

    Raises:
        InputError: If there is no such policy, or one that is compared with it has other seeds.
    """
    seeds = seeds_of(rows, start)
    require(bool(seeds), f"no policy '{start}': expected one of {', '.join(dict.fromkeys(name for name, *_ in rows))}")
    found: Found = {}
    known = dict.fromkeys(name for name, *_ in rows if name != start)
    for policy in policies or known:
        require_known("policy", policy, known)
        its = seeds_of(rows, policy)
        require(its == seeds, f"'{policy}' has the seeds {its}, the start {seeds}: only the same seeds can be compared")
        both = [{at for name, _, at in rows if name == one} for one in (policy, start)]
        temperatures = sorted(set.intersection(*both), reverse=True)
        for measure in measures:
            found[policy, measure] = {
                at: tuple(rows[policy, seed, at][measure] - rows[start, seed, at][measure] for seed in seeds)
                for at in temperatures
            }
    return found


def _draw(found: Found, names: Mapping[str, str], options: Differences) -> Path:
    """Write the picture; returns its path."""
    one = len({at for points in found.values() for at in points}) == 1
    figure = _at_one_temperature(found, names, options) if one else _over_temperatures(found, names, options)
    path = results.image_path(options.name or options.results[0])
    save_figure(figure, path, options.title)
    return path


def _over_temperatures(found: Found, names: Mapping[str, str], options: Differences) -> Figure:
    """A panel a measure, the policies side by side at each temperature."""
    figure = new_figure(8.4, 1.0 + 2.6 * len(options.measures))
    panels = figure.subplots(len(options.measures), 1, sharex=True, squeeze=False)[:, 0]
    for panel, measure in zip(panels, options.measures, strict=True):
        panel.axhline(0, color="#8a8e93", linewidth=1)
        for number, (policy, name) in enumerate(names.items()):
            points = found[policy, measure]
            means, sides = bars(list(points.values()))
            # Side by side, so that intervals at one temperature can be told apart; the axis falls.
            x = [at - 0.012 * (number - (len(names) - 1) / 2) for at in points]
            panel.errorbar(x, means, sides, label=name, **_look(number))
        panel.set_ylabel(f"{measure}, less the start's (nats)")
        plain_axes(panel)
    panels[-1].set(xlabel="temperature", xticks=sorted({at for points in found.values() for at in points}))
    panels[-1].invert_xaxis()
    panels[0].legend(frameon=False, fontsize=9, loc="upper left")
    return figure


def _at_one_temperature(found: Found, names: Mapping[str, str], options: Differences) -> Figure:
    """A panel a measure side by side, a line a policy."""
    figure = new_figure(2.6 + 1.9 * len(options.measures), 1.2 + 0.32 * len(names))
    panels = figure.subplots(1, len(options.measures), sharey=True, squeeze=False)[0]
    for panel, measure in zip(panels, options.measures, strict=True):
        panel.axvline(0, color="#8a8e93", linewidth=1)
        for number, policy in enumerate(names):
            means, sides = bars(list(found[policy, measure].values()))
            panel.errorbar(means, [number], xerr=sides, **_look(number))
        panel.set_title(METRICS[measure].label, fontsize=10)
        panel.locator_params(axis="x", nbins=4)
        plain_axes(panel)
    panels[0].set_yticks(range(len(names)), list(names.values()))
    panels[0].invert_yaxis()
    figure.supxlabel("less the start's, nats per token", fontsize=10)
    return figure


def bars(values: Sequence[Sequence[float]]) -> tuple[Floats, Floats]:
    """Where the points of a picture lie, and how far their bars reach: the interval over seeds, of two the range.

    Args:
        values: Of each point, one number a seed.

    Returns:
        Means, float64 (P,), and lengths below and above them, float64 (2, P).
    """
    means = np.array([fmean(seeds) for seeds in values])
    ends = np.array([interval(seeds) or (min(seeds), max(seeds)) for seeds in values]).T
    return means, np.abs(ends - means)


def _look(number: int) -> dict[str, Any]:
    """Of the points of a policy."""
    return plot_look(number) | {"linestyle": "none", "markersize": 4.5, "elinewidth": 1.4, "capsize": 2.5}
