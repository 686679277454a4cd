"""Temperature curves of a kept result as a picture: cover to the right, fit upwards, one line a policy.

For example ``python -m benchmarks.curves --result seqgan_tuned`` draws docs/images/seqgan_tuned.png from
benchmarks/results/seqgan_tuned.json. A policy that is better at every temperature lies nearer to the lower left.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results
from textgan_env.ops.plots import LINE_COLOURS, new_figure, plain_axes
from textgan_env.utils.errors import require


@dataclass(frozen=True)
class Options:
    """Draw the temperature curves of a kept result."""

    result: str
    """Its name in benchmarks/results."""
    x: str = "cover"
    """The column that runs to the right."""
    y: str = "fit"
    """The column that runs upwards."""
    title: str = ""
    """A line above."""


@results.command
def main(options: Options) -> None:
    """The command."""
    print(draw(options))


def curves(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> dict[str, dict[int, list[tuple[float, float, float]]]]:
    """Points of each policy that has several temperatures.

    Args:
        rows: Of a kept result.
        x: A column.
        y: Another.

    Returns:
        Policy -> seed -> (temperature, x, y), temperatures falling.
    """
    found: dict[str, dict[int, list[tuple[float, float, float]]]] = {}
    for row in rows:
        if isinstance(row["seed"], int) and row.get(x) is not None and row.get(y) is not None:
            found.setdefault(row["policy"], {}).setdefault(row["seed"], []).append((row["temperature"], row[x], row[y]))
    return {
        policy: {seed: sorted(points, reverse=True) for seed, points in seeds.items()}
        for policy, seeds in found.items()
        if all(len(points) > 1 for points in seeds.values())
    }


def draw(options: Options) -> Path:
    """Write the picture; returns its path."""
    kept = results.RESULTS / f"{options.result}.json"
    require(kept.exists(), f"no kept result '{options.result}': expected the file {kept}")
    lines = curves(json.loads(kept.read_text())["rows"], options.x, options.y)
    require(bool(lines), f"no policy of '{options.result}' has {options.x} and {options.y} at several temperatures")
    figure = new_figure(8.4, 5.4)
    panel = figure.subplots()
    for number, (policy, seeds) in enumerate(lines.items()):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        for order, points in enumerate(seeds.values()):
            label = f"{policy} ({len(seeds)} seeds)" if len(seeds) > 1 else policy
            xs, ys = [at for _, at, _ in points], [at for _, _, at in points]
            look: dict[str, Any] = {"linewidth": 1.3, "marker": "o", "markersize": 3.5, "alpha": 0.8}
            panel.plot(xs, ys, color=colour, label="" if order else label, **look)
    for temperature, x, y in next(iter(next(iter(lines.values())).values())):
        panel.annotate(f"T={temperature:g}", (x, y), xytext=(5, -11), textcoords="offset points", fontsize=8.5)
    panel.set(xlabel=f"{options.x} (nats per token)", ylabel=f"{options.y} (nats per token)")
    plain_axes(panel)
    panel.legend(frameon=False, fontsize=9)
    return results.save_picture(figure, options.result, options.title)


if __name__ == "__main__":
    main()
