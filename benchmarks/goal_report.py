"""What `benchmarks.goals` tells of the arms that are finished: the table, the answers read from it, the picture."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.goal_arms import ARMS, REAL, REALS, REJECTED, START, Scale
from benchmarks.results import image_path, save, table
from textgan_env.utils.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from textgan_env.tasks import Task

#: Rows of one seed: arm -> what was measured.
Rows = Mapping[str, Mapping[str, Any]]
#: A line of a picture: x and y of each point.
Line = list[tuple[float, float]]

#: Columns of the table, as far as an arm has any of them: name of the number -> as it stands above.
COLUMNS: Mapping[str, str] = {
    "valid": "valid", "unique": "unique", "unique_10k": "unique@10k", "novel": "novel", "internal_diversity": "IntDiv",
    "scaffolds": "scaffolds", "scaffold_similarity": "Scaf", "snn": "SNN", "fcd": "FCD", "qed": "QED", "sa": "SA",
    "bleu_4": "BLEU-4", "self_bleu_4": "Self-BLEU-4", "frechet": "Frechet",
    "mean": "objective", "reached": "reached", "top 100": "top 100", "commonest": "commonest", "NLL-test": "NLL-test",
    "cover": "cover", "fit_valid": "fit of valid", "D on validity before": "D on validity before",
    "D on validity": "D on validity", "CPU s": "CPU s",
}  # fmt: skip
#: Lines of the picture: family -> how the picture calls it, its colour (a number of `LINE_COLOURS`) and its sign.
FAMILIES: Mapping[str, tuple[str, int, str]] = {
    "temperature": ("maximum likelihood, T = 1, .8, .6", 0, "o"), "longer": ("maximum likelihood, longer", 0, "*"),
    "selected": ("the same, on the best of 2, 4 real texts", 0, "s"),
    "best of n": ("best of n = 2, 4, 8", 1, "s"), "best of 4, learnt": ("best of 4, learnt", 2, "^"),
    "KL": ("REINFORCE, KL .1, .05, .02, 0", 3, "D"), "REINVENT": ("REINVENT, sigma 20", 3, "v"),
    "PPO": ("PPO", 3, "p"), "KL, slowly": ("REINFORCE, KL .05, 0 at rate 2e-4", 3, "d"),
    "D": ("D beside the goal (ORGAN), D alone", 4, "P"), "D shuffled": ("the same, D shuffled", 4, "P"),
    "other D": ("ORGAN, D .5 is a CNN or an LSTM", 4, "h"),
    "D, slowly": ("ORGAN, D .5 at rate 2e-4", 4, "X"), "D shuffled, slowly": ("the same, D shuffled", 4, "X"),
}  # fmt: skip
#: Those whose points are joined, from maximum likelihood on.
JOINED = ("temperature", "best of n", "KL")
#: What an arm that writes one text for each delivered is asked for, beside maximum likelihood: best-of-4's point.
VALID, UNIQUE, MORE_QED, MORE_FCD = 0.95, 0.99, 0.07, 0.4


def report(name: str, task: "Task", scale: Scale, seeds: Mapping[int, Rows]) -> None:
    """The table, the result files and the picture of the finished arms."""
    require(bool(seeds), "no arm is finished: maximum likelihood comes first")
    rows = filled([row for arm in (*REALS, *ARMS) for row in lines_of(arm, list(seeds.values()))])
    equal = beside_kl(list(seeds.values()))
    print(table(rows))
    print(table(equal))
    more = {
        "task": task.name,
        "scale": asdict(scale),
        "seeds": {str(seed): dict(found) for seed, found in seeds.items()},
        "equal": equal,
    }
    print(save(name, rows, notes=notes(task, scale, seeds, equal), more=more))
    draw(name, list(seeds.values()), task)


def draw_again(kept: Mapping[str, Any], path: Path) -> None:
    """Draw the picture of a kept result."""
    from textgan_env.tasks import make_task

    require("task" in kept, f"'{path.stem}' was kept without its task: report it again with --finished")
    draw(path.stem, list(kept["seeds"].values()), make_task(kept["task"]))


def filled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same rows without the columns that say nothing of any."""
    said = {column for row in rows for column, value in row.items() if value is not None}
    return [{column: value for column, value in row.items() if column in said} for row in rows]


def notes(task: "Task", scale: Scale, seeds: Mapping[int, Rows], equal: Sequence[Mapping[str, Any]]) -> str:
    """How the table was made, and what stands in it."""
    of = f"the first {scale.samples:,} {'valid ones' if task.language == 'molecules' else 'of them'}"
    text = (
        f"Objective {scale.objective} on task '{task.name}', seed(s) {' '.join(map(str, seeds))}, each from a run of "
        f"maximum likelihood of its own: {scale.rounds} rounds of {scale.g_steps} g-steps of {scale.batch_size} texts; "
        f"policy gradients at rate {scale.learning_rate:g}, best of 4 learnt at 2e-3; D learns from "
        f"{scale.d_share:.0%} of the training texts a round; longer: {scale.longer} epochs more. "
        f"{scale.strings:,} texts of each arm (six tenths as many of best of n), measured on {of}, so that FCDs "
        f"are of equal numbers{fewer_of(seeds, scale)}. Means over the seeds that a row names, from three seeds on "
        "with a 95 % interval; a row stands only where its control does. objective, reached, top 100: mean, share at "
        "the best value, mean of the 100 best different texts; NLL-test, cover, fit: nats a token; D on "
        "validity: AUC of D's logit, valid texts of maximum likelihood against its others, before the first g-step and "
        "at the end; calls: different texts that the objective was asked about, for each delivered where 1,000 and "
        "where 100,000 are; texts: written for each delivered; CPU s: of training, processor seconds. The picture "
        "leaves out what reaches far less than maximum likelihood."
    )
    if task.language == "molecules":
        text += (
            f" asked: which of valid {VALID}, unique@10k {UNIQUE}, QED {MORE_QED} above and FCD at most {MORE_FCD} "
            "above maximum likelihood hold of the means."
        )
    return f"{text}\n\nD beside KL where both reach as much:\n\n{table(equal)}" if equal else text


def fewer_of(seeds: Mapping[int, Rows], scale: Scale) -> str:
    """Which arms had fewer texts that could be measured, and how many; FCD is biased upwards for few."""
    least = 0.95 * min(scale.samples, scale.strings)
    few = [
        f"{arm} (seed {seed}: {row['measured']:,})"
        for seed, rows in seeds.items()
        for arm, row in rows.items()
        if row.get("measured", least) < least and (arm in REALS or ARMS[arm].best_of == 1)
    ]
    return f" but for {', '.join(few)}" if few else ""


def lines_of(arm: str, seeds: Sequence[Rows]) -> list[dict[str, Any]]:
    """The line of an arm in the table, if a seed has it; after maximum likelihood that of its valid texts, too."""
    from benchmarks.report import over_seeds

    found = [rows[arm] for rows in seeds if arm in rows]
    if not found:
        return []
    row: dict[str, Any] = {"arm": arm, "seeds": len(found)}
    for key, column in COLUMNS.items():
        values = [one[key] for one in found if one.get(key) is not None]
        row[column] = over_seeds(tuple(values)) if len(values) == len(found) else None
    row |= calls_of(arm, found)
    if arm not in (REAL, START):
        row["asked"] = asked(arm, seeds)
    if arm != START or "valid" not in found[0]:
        return [row]
    valid = fmean(one["valid"] for one in found)
    fits = {key: row[key] if found[0].get("qed") is not None else None for key in row if key not in ("arm", "seeds")}
    rejected = fits | {"valid": "1.000", "texts": 1 / valid if valid else None, "NLL-test": None}
    return [row, {"arm": REJECTED, "seeds": len(found), **rejected}]


def calls_of(arm: str, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Calls of the objective for each delivered text, and texts that are written for one."""
    if arm in REALS:
        return {}
    each = ARMS[arm].best_of if ARMS[arm].best_of > 1 and not ARMS[arm].shuffled else 0
    calls = fmean(one.get("calls", 0) for one in found)
    per = {f"calls, {count:,}": each + calls / count for count in (1_000, 100_000)}
    return {**per, "texts": float(ARMS[arm].best_of)}


def asked(arm: str, seeds: Sequence[Rows]) -> str | None:
    """Which of the four things that are asked of an arm hold of its means; None where it is not asked."""
    pairs = [(rows[arm], rows[START]) for rows in seeds if arm in rows and "fcd" in rows[arm] and "fcd" in rows[START]]
    if not pairs:
        return None

    def gain(key: str) -> float:
        """Mean difference to maximum likelihood of the same seed."""
        return fmean(row[key] - start[key] for row, start in pairs)

    holds = {
        "valid": fmean(row["valid"] for row, _ in pairs) >= VALID,
        "unique": fmean(row["unique_10k"] for row, _ in pairs) >= UNIQUE,
        "QED": gain("qed") >= MORE_QED,
        "FCD": gain("fcd") <= MORE_FCD,
    }
    return "all" if all(holds.values()) else ", ".join(name for name, held in holds.items() if held) or "none"


# ----------------------------------------------------------------------------------------------------
# D beside KL
def beside_kl(seeds: Sequence[Rows]) -> list[dict[str, Any]]:
    """For each arm with D or learnt from best-of-n, what REINFORCE costs where its KL lets it reach as much.

    The curve over weights of the KL, maximum likelihood its end, is read at the arm's mean of the objective, seed by
    seed; a seed whose curve does not reach so far is left out. A slower arm stands beside the curve of its rate.
    """
    lines = []
    for arm, about in ARMS.items():
        if about.family in ("control", "KL", "KL, slowly", "best of n") or arm == START:
            continue
        for key in (
            ("fcd", "scaffolds", "NLL-test") if any("fcd" in row for row in seeds[0].values()) else ("NLL-test",)
        ):
            pairs = [pair for rows in seeds if (pair := _pair(rows, arm, key)) is not None]
            if pairs:
                reached, own, kl = (fmean(column) for column in zip(*pairs, strict=True))
                line = {"arm": arm, "seeds": len(pairs), "objective": reached, "of": COLUMNS[key]}
                lines.append(line | {"the arm's": own, "KL's there": kl, "difference": own - kl})
    return lines


def _pair(rows: Rows, arm: str, key: str) -> tuple[float, float, float] | None:
    """What an arm reaches, its number, and that of the KL curve where it reaches as much."""
    family = "KL, slowly" if ARMS[arm].family.endswith("slowly") else "KL"
    its = [name for name in rows if name == START or (name in ARMS and ARMS[name].family == family)]
    curve = [(rows[name]["mean"], rows[name][key]) for name in its if {"mean", key} <= rows[name].keys()]
    if arm not in rows or not {"mean", key} <= rows[arm].keys() or len(curve) < 2:
        return None
    there = at_equal(curve, rows[arm]["mean"])
    return None if there is None else (rows[arm]["mean"], rows[arm][key], there)


def at_equal(curve: Line, x: float) -> float | None:
    """The height at x of a line through points, straight between neighbours; None outside of them."""
    points = sorted(curve)
    for (left, low), (right, high) in pairwise(points):
        if left <= x <= right:
            return low if left == right else low + (high - low) * (x - left) / (right - left)
    return None


# ----------------------------------------------------------------------------------------------------
# The picture
def draw(name: str, seeds: Sequence[Rows], task: "Task") -> None:
    """The plane of what is reached against what it costs in text: mean QED and FCD, or validity, cover and fit."""
    from textgan_env.ops.plots import new_figure, plain_axes, save_figure

    if task.language == "molecules":
        panels = [("mean QED of valid molecules", "FCD to the test split", "qed", "fcd", True)]
    elif task.oracle is not None:
        panels = [("share of valid texts", f"{what} (nats a token)", "valid", key, True)
                  for key, what in (("cover", "cover, KL(p||q)"), ("fit_valid", "fit of valid texts"))]  # fmt: skip
    else:
        panels = [("mean of the objective", "NLL-test (nats a token)", "mean", "NLL-test", False)]
    figure = new_figure(6.6 * len(panels) + 2.0, 4.6)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (x_label, y_label, x, y, log) in zip(axes, panels, strict=True):
        _plane(panel, lambda arm, x=x, y=y: _mean(seeds, arm, x, y))  # type: ignore[misc]
        panel.set(xlabel=x_label, ylabel=y_label, yscale="log" if log else "linear")
        plain_axes(panel)
        if log:
            _plain_numbers(panel)
    if task.language == "molecules":
        _target(axes[0], _mean(seeds, START, "qed", "fcd"))
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, image_path(name), f"What the goal costs in text ({task.name}, {len(seeds)} seed(s))")


def _mean(seeds: Sequence[Rows], arm: str, *keys: str) -> tuple[float, float] | None:
    """The point of an arm: means over the seeds that have it; None where none has, or a number is missing."""
    found = [tuple(rows[arm].get(key) for key in keys) for rows in seeds if arm in rows]
    if not found or any(value is None or not math.isfinite(value) for values in found for value in values):
        return None
    x, y = (fmean(column) for column in zip(*found, strict=True))
    return x, y


def _plane(panel: "Axes", point: Callable[[str], tuple[float, float] | None]) -> None:
    """A line for each family in the order of what it reaches, from maximum likelihood on; controls as crosses."""
    from textgan_env.ops.plots import LINE_COLOURS

    start, reached = point(START), []
    for family, (label, colour, sign) in FAMILIES.items():
        points = sorted(at for arm, about in ARMS.items() if about.family == family and (at := point(arm)))
        line = sorted({*points, *([start] if start and family in JOINED else [])})
        if not points:
            continue
        reached += [x for x, _ in line]
        look: dict[str, Any] = {"color": LINE_COLOURS[colour], "marker": sign, "markersize": 6, "label": label}
        look |= {"fillstyle": "none" if family.startswith("D shuffled") else "full"}
        panel.plot(*zip(*line, strict=True), linewidth=1.2 if family in JOINED else 0.0, **look)
    crosses = [at for arm, about in ARMS.items() if about.family == "control" and (at := point(arm))]
    if crosses:
        look = {"color": LINE_COLOURS[5], "linewidth": 0.0, "markersize": 6, "label": "controls: objective shuffled"}
        panel.plot(*zip(*crosses, strict=True), "x", **look)
    reals = [at for name in REALS if (at := point(name))]
    if reals:
        label = "real text" if len(reals) == 1 else "real text, best of 1, 2, 4"
        panel.plot(*zip(*reals, strict=True), "*-", color="black", markersize=9, linewidth=0.8, label=label)
    if start and max(reached) > start[0]:  # an arm that is ruined would press all others together
        panel.set_xlim(left=start[0] - 0.6 * (max(reached) - start[0]))


def _plain_numbers(panel: "Axes") -> None:
    """A logarithmic axis that says .05 and not 5 x 10^-2."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _target(panel: "Axes", start: tuple[float, float] | None) -> None:
    """A frame around what is asked for: best-of-4's point or better."""
    if start is None:
        return
    left, top = start[0] + MORE_QED, start[1] + MORE_FCD
    low, right = panel.get_ylim()[0], panel.get_xlim()[1]
    x, y = [left, left, max(right, left)], [low, top, top]
    panel.plot(x, y, color="#8a8e93", linewidth=1, linestyle="--", label="asked: QED + .07, FCD + .4")
