"""Charts as small PNG files: learning curves, tables of numbers as colours. Loads matplotlib when one is drawn."""

import io
import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from textgan_env.ops import colours
from textgan_env.ops.colours import FAINT, INK, Colour, credit_colour, ink_on, short
from textgan_env.utils.errors import require
from textgan_env.utils.files import write_safely

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

#: Rows of a log: name -> value.
Rows = Sequence[Mapping[str, object]]
#: Points of a line, (x, y).
Points = list[tuple[float, float]]

#: Of the lines of a picture, in turn.
LINE_COLOURS = ("#1c5190", "#c2571a", "#2c7a4b", "#7b4ea3", "#a8326e", "#6b6f76")
_MARKERS = "os^DvP"
_GREY = "#b9bcc0"


def learning_curve(
    rows: Rows,
    path: str | os.PathLike[str],
    *,
    lines: Mapping[str, Mapping[str, str]],
    x: str = "step",
    x_label: str = "",
    title: str = "",
    levels: Mapping[str, float] | None = None,
    log: Collection[str] = (),
) -> bool:
    """Draw measurements over time as a PNG.

    Every unit has its own panel; the names of the lines and their last values stand beside it. Where the phase of the
    run changes, a thin line says so.

    Args:
        rows: Rows of a `MetricLog`. A row without ``x``, or with a value that is not a finite number, has no
            point.
        path: The file to write.
        lines: Unit with its quantity, as it shall stand at the axis -> key of the rows -> name of the line;
            for example ``{"nats per token": {"nll_test": "NLL-test", "nll_oracle": "NLL-oracle"}}``.
        x: The key that runs to the right.
        x_label: Its name and unit; the key itself by default.
        title: A line above.
        levels: Name -> value of dashed horizontal lines in the first panel, e.g. the entropy of the oracle.
        log: Units whose axis is logarithmic; there a value of 0 or below has no point, either.

    Returns:
        Whether a picture was written: without a single point there is none.

    Raises:
        OSError: If the file cannot be written; an older picture stays as it was.
    """
    panels: dict[str, dict[str, Points]] = {}
    for unit, names in lines.items():
        found = {name: _points(rows, x, key, positive=unit in log) for key, name in names.items()}
        if any(found.values()):
            panels[unit] = {name: points for name, points in found.items() if points}
    if not panels:
        return False
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(8.4, 1.1 + 3.0 * len(panels))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for number, (panel, (unit, curves)) in enumerate(zip(axes, panels.items(), strict=True)):
        panel.set_yscale("log" if unit in log else "linear")
        _draw_panel(panel, unit, curves, levels if levels and number == 0 else {})
        _mark_phases(panel, rows, x, named=number == 0)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel(x_label or x, color=_hex(INK))
    save_figure(figure, path, title)
    return True


def heat_map(
    values_RC: np.ndarray,
    path: str | os.PathLike[str],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    x_label: str = "",
    y_label: str = "",
    label: str = "",
    title: str = "",
) -> None:
    """Draw a table of numbers from 0 to 1 as a PNG, each on its colour.

    Args:
        values_RC: float; first row on top.
        path: The file to write.
        rows: Names, one a row.
        columns: Names, one a column.
        x_label: What the columns are.
        y_label: What the rows are.
        label: What the values are, beside the scale.
        title: A line above.

    Raises:
        InputError: If there are not as many names as rows and columns.
        OSError: If the file cannot be written; an older picture stays as it was.
    """
    names = len(rows), len(columns)
    require(values_RC.shape == names, f"a heat map needs a name a row and a column, got {names} for {values_RC.shape}")
    from matplotlib.colors import LinearSegmentedColormap

    figure = new_figure(2.2 + 0.62 * len(columns), 1.6 + 0.44 * len(rows))
    panel = figure.subplots()
    scale = LinearSegmentedColormap.from_list("credit", colours.SCALE / 255)
    panel.set_facecolor(_hex(colours.NO_VALUE))  # where a value is NaN
    shown = panel.imshow(values_RC, cmap=scale, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values_RC):
        ink = ink_on(credit_colour(float(value), (0.0, 1.0)))
        panel.text(column, row, short(float(value)), ha="center", va="center", fontsize=9.5, color=_hex(ink))
    panel.set_xticks(range(len(columns)), columns)
    panel.set_yticks(range(len(rows)), rows)
    panel.set_xlabel(x_label, color=_hex(INK))
    panel.set_ylabel(y_label, color=_hex(INK))
    panel.tick_params(length=0, labelcolor=_hex(INK), labelsize=9.5)
    panel.spines[:].set_visible(False)
    figure.colorbar(shown, ax=panel, shrink=0.8, pad=0.02).set_label(label, color=_hex(INK))
    save_figure(figure, path, title)


def save_png(pixels_HWC: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write a picture as a PNG of 256 colours: enough for lines and text, in a quarter of the bytes.

    Args:
        pixels_HWC: uint8, (height, width, 3).
        path: The file to write.

    Raises:
        OSError: If the file cannot be written; an older picture stays as it was.
    """
    from PIL import Image

    file = io.BytesIO()
    few = Image.fromarray(pixels_HWC).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(file, format="png", optimize=True)
    write_safely(path, file.getvalue())


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, its size in inches; pyplot's global state stays as it is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: str | os.PathLike[str], title: str = "") -> None:
    """Write a figure of `new_figure` as a small PNG, with a title on its left.

    Raises:
        OSError: If the file cannot be written; an older picture stays as it was.
    """
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=_hex(INK))
    figure.canvas.draw()
    save_png(np.asarray(figure.canvas.buffer_rgba())[:, :, :3], path)  # type: ignore[attr-defined]  # of Agg's canvas


def _points(rows: Rows, x: str, key: str, *, positive: bool) -> Points:
    """What the rows hold of a quantity, in finite numbers; only what is above 0 if ``positive``."""
    pairs = [(row.get(x), row.get(key)) for row in rows]
    points = [(float(a), float(b)) for a, b in pairs if isinstance(a, int | float) and isinstance(b, int | float)]
    return [point for point in points if all(map(math.isfinite, point)) and (point[1] > 0 or not positive)]


def _draw_panel(panel: "Axes", unit: str, curves: Mapping[str, Points], levels: Mapping[str, float]) -> None:
    """Draw the lines of one unit, and beside them their names, the highest last value on top."""
    last_values: dict[Line2D, float] = {}
    for number, (name, points) in enumerate(curves.items()):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        marker = _MARKERS[number % len(_MARKERS)] if len(points) < 25 else ""
        xy = zip(*points, strict=True)
        style = "-" if number < len(LINE_COLOURS) else "--"
        look: dict[str, Any] = {
            "color": colour,
            "linestyle": style,
            "linewidth": 1.8,
            "marker": marker,
            "markersize": 3.5,
        }
        (line,) = panel.plot(*xy, label=name, **look)
        last_values[line] = points[-1][1]
    for name, value in levels.items():
        line = panel.axhline(value, color=_hex(FAINT), linewidth=1.0, linestyle=(0, (4, 3)), label=name)
        last_values[line] = value
    panel.set_ylabel(unit, color=_hex(INK))
    plain_axes(panel)
    panel.margins(x=0.01)
    lines = sorted(last_values, key=last_values.__getitem__, reverse=True)
    names = [f"{line.get_label()}  {_number(last_values[line])}" for line in lines]
    panel.legend(lines, names, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, labelcolor="linecolor")


def plain_axes(panel: "Axes") -> None:
    """Two quiet axes and horizontal lines behind: the look of every chart here."""
    panel.grid(axis="y", color="#e9e9e6", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(color=_GREY, labelcolor=_hex(INK), labelsize=9)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[:].set_color(_GREY)


def _mark_phases(panel: "Axes", rows: Rows, x: str, named: bool) -> None:
    """Draw a thin line where a phase of the run first begins, with its name where there is room."""
    starts: dict[str, float] = {}
    for row in rows:
        phase, place = row.get("phase"), row.get(x)
        if phase and isinstance(place, int | float):
            starts.setdefault(str(phase), place)
    left, right = panel.get_xlim()
    free_from = left
    for number, (phase, place) in enumerate(starts.items()):
        if number:
            panel.axvline(place, color=_GREY, linewidth=0.9, zorder=1)
        if named and place >= free_from:
            panel.annotate(phase, (place, 1.02), xycoords=("data", "axes fraction"), fontsize=8.5, color=_hex(FAINT))
            free_from = place + (right - left) * (0.02 + 0.011 * len(phase))


def _number(value: float) -> str:
    """A value at the end of a line."""
    if 0 < abs(value) < 0.001:
        return f"{value:.0e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def _hex(colour: Colour) -> str:
    """A colour as matplotlib takes it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
