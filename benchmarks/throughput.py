"""How fast the pieces are, each beside a plain version of the published algorithm in the same run.

``python -m benchmarks.throughput`` takes SeqGAN's published sizes and times every piece; ours and the plain one
(benchmarks/reference.py) take turns, so their ratio holds on a machine that is busy with other things, too. Also:

  --works rollouts --max-length 51 --vocab-size 30000 --no-plain   what one piece takes, memory included
  --grow                                                           how the cost grows with B, N, T and V, ours alone
"""

import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.results import command, image_path, peak_memory_mb, show
from textgan_env.ops.plots import LINE_COLOURS, new_figure, plain_axes, plot_look, save_figure
from textgan_env.utils.errors import require_known
from textgan_env.utils.options import at_least

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.works import Work

LETTERS = {"rows": "B", "rollouts": "N", "max_length": "T", "vocab_size": "V"}
# What grows, together, and the values it takes.
GROWTH = {
    ("rows",): (16, 32, 64, 128),
    ("rollouts", "leakgan_rollouts"): (2, 4, 8, 16),
    ("max_length",): (10, 20, 40),
    ("vocab_size",): (500, 1500, 5000, 15000),
}


@dataclass(frozen=True)
class Options:
    """Time the pieces of adversarial training."""

    rows: int = 64
    """B, also the texts of a step of D (half real, half written) and of maximum likelihood."""
    rollouts: int = 16
    """N of SeqGAN's generator step."""
    leakgan_rollouts: int = 4
    """N of LeakGAN's step, which takes Q after every c-th token."""
    max_length: int = 20
    """T."""
    vocab_size: int = 5000
    """V."""
    hidden_size: int = 32
    """Of embedding and LSTM."""
    samples: int = 10_000
    """Texts that are written in one go."""
    envs: int = 1024
    """Environments side by side where their steps are counted."""
    device: str = "cpu"
    """cpu, cuda ..."""
    works: tuple[str, ...] = ()
    """Which pieces; none: all."""
    repeats: int = 5
    """Turns that are timed, after one that is not."""
    plain: bool = True
    """Time the plain version, too."""
    grow: bool = False
    """Change B, N, T and V one at a time instead, ours alone."""
    threads: int | None = None
    """CPU threads [torch's choice]."""
    name: str = "throughput"
    """Of the result files, and of the picture in docs/images."""


@command
def main(options: Options) -> None:
    """The command."""
    import torch

    from benchmarks.works import WORKS

    for name in options.works:
        require_known("work", name, WORKS)
    at_least(1, options, *(field.name for field in fields(options) if field.type is int))
    torch.set_num_threads(options.threads or torch.get_num_threads())
    works = list(options.works or WORKS)
    rows = grow(options, works) if options.grow else [_row(name, WORKS[name](options), options) for name in works]
    notes = (
        "Seconds of wall clock, median of the turns (lowest - highest); the ratio is the median, over turns, "
        "of plain seconds by ours, for the same amount of work; peak resident memory of the process so far."
    )
    show(options.name, rows, notes=notes, device=options.device)
    path = image_path(options.name)
    draw_again({"rows": rows}, path)
    print(path)


def draw_again(kept: Mapping[str, Any], path: Path) -> None:
    """Draw the picture of a kept result."""
    rows = kept["rows"]
    save_figure(_growth_figure(rows) if "changed" in rows[0] else _ratio_figure(rows), path)


def grow(options: Options, works: list[str]) -> list[dict[str, Any]]:
    """A row for each piece and each value that B, N, T and V take in turn, where it has such; ours alone."""
    from benchmarks.works import WORKS

    rows = []
    for name in works:
        for what, values in GROWTH.items():
            for value in values:
                options_then = replace(options, plain=False, **{size: value for size in what})  # type: ignore[arg-type]
                work, letter = WORKS[name](options_then), LETTERS[what[0]]
                if f"{letter}={value} " in f"{work.sizes} ":
                    rows.append({"changed": letter, "value": value} | _row(name, work, options_then))
    return rows


def _row(name: str, work: "Work", options: Options) -> dict[str, Any]:
    """Time a piece: ours and the plain one in turn."""
    import torch

    print(f"timing {name} ...", file=sys.stderr, flush=True)
    sides = {"ours": work.ours} | ({"plain": work.plain} if options.plain else {})
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(-1, options.repeats):
        for side, run in sides.items():
            started = time.perf_counter()
            run(turn + 1)
            if torch.device(options.device).type == "cuda":
                torch.cuda.synchronize(options.device)
            if turn >= 0:
                seconds[side].append(time.perf_counter() - started)
    peak = peak_memory_mb()
    middle = statistics.median(seconds["ours"])
    row: dict[str, Any] = {"work": name, "sizes": work.sizes, "seconds": middle}
    row |= {"range": f"{min(seconds['ours']):.3f} - {max(seconds['ours']):.3f}"}
    row |= {"a second": f"{work.count / middle:,.0f} {work.unit}"}
    if "plain" in sides:
        share = (work.plain_count or work.count) / work.count
        ratios = [slow / share / fast for fast, slow in zip(seconds["ours"], seconds["plain"], strict=True)]
        row |= {"plain seconds": statistics.median(seconds["plain"]) / share, "ratio": statistics.median(ratios)}
        row["ratios"] = f"{min(ratios):.1f} - {max(ratios):.1f}"
    return row | {"peak MiB": None if peak is None else round(peak), "threads": torch.get_num_threads()}


def _ratio_figure(rows: list[dict[str, Any]]) -> "Figure":
    """A bar a piece, ours and plain, on a logarithmic scale."""
    figure = new_figure(8, 0.9 + 0.55 * len(rows))
    axes = figure.subplots()
    sides = ((-0.2, "seconds", "ours", LINE_COLOURS[0]), (0.2, "plain seconds", "plain", "#b9bcc0"))
    for shift, key, label, colour in sides:
        known = {place + shift: row[key] for place, row in enumerate(rows) if row.get(key) is not None}
        if known:
            axes.barh(list(known), list(known.values()), height=0.38, label=label, color=colour)
    for place, row in enumerate(rows):
        if "ratio" in row:
            end = (max(row["seconds"], row["plain seconds"]), place)
            axes.annotate(f"{row['ratio']:.1f} times", end, xytext=(4, 0), textcoords="offset points", va="center")
    axes.set(xscale="log", xlabel="seconds", yticks=range(len(rows)), yticklabels=[row["work"] for row in rows])
    axes.margins(x=0.2)
    axes.invert_yaxis()
    plain_axes(axes)
    axes.legend(frameon=False)
    return figure


def _growth_figure(rows: list[dict[str, Any]]) -> "Figure":
    """A panel for each of B, N, T and V, a line a piece."""
    figure = new_figure(10, 3.6)
    names = list(dict.fromkeys(row["work"] for row in rows))
    letters = list(dict.fromkeys(row["changed"] for row in rows))
    panels = figure.subplots(1, len(letters), sharey=True, squeeze=False)[0]
    for axes, letter in zip(panels, letters, strict=True):
        for number, name in enumerate(names):
            line = [(row["value"], row["seconds"]) for row in rows if row["changed"] == letter and row["work"] == name]
            axes.plot(*(zip(*line, strict=True) if line else ((), ())), label=name, **plot_look(number))
        ticks = sorted({row["value"] for row in rows if row["changed"] == letter})
        axes.set(xscale="log", yscale="log", xlabel=letter)
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
        plain_axes(axes)
    panels[0].set_ylabel("seconds")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(names), frameon=False)
    return figure


if __name__ == "__main__":
    main()
