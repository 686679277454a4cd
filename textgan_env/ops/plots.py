"""Charts as small PNG files: learning curves, tables of numbers as colours. Loads matplotlib when one is drawn."""

import io
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from textgan_env.ops import colours
from textgan_env.ops.colours import FAINT, INK, Colour, credit_colour, ink_on, short
from textgan_env.utils.errors import require
from textgan_env.utils.files import write_safely

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

#: Rows of a log: name -> value.
Rows = Sequence[Mapping[str, object]]
#: Points of a line, (x, y).
Points = list[tuple[float, float]]

#: Of the lines of runs and arms in every picture and page, in turn: none of them means real or fake.
LINE_COLOURS = ("#2a7a4f", "#7b4aa0", "#a8326e", "#00707a", "#7a6a00", "#4c5157")
#: Of their dashes: lines whose colours look alike to someone never have the same (`line_look`).
LINE_DASHES: "tuple[str | tuple[float, tuple[float, ...]], ...]" = (
    "-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)),
)  # fmt: skip
#: Of their points: as many as share no factor with the colours, so that 42 lines differ.
LINE_MARKERS = "os^DvPX"
#: Of what D scores as real and as fake, the two ends of the colours of Q; nothing else has them.
REAL, FAKE = ("#1c5190", "#9e4210")
_GREY = "#b9bcc0"


def line_look(number: int) -> tuple[int, int]:
    """Which of `LINE_COLOURS` and which of `LINE_DASHES` a line has: 24 lines differ in one of them, or in both."""
    hues, dashes = len(LINE_COLOURS), len(LINE_DASHES)
    return number % hues, (number + number // math.lcm(hues, dashes)) % dashes


def plot_look(number: int, *, marked: bool = True) -> dict[str, Any]:
    """Colour, marker and dashes of a line as matplotlib takes them: with marked points it needs no dashes."""
    hue, dashes = line_look(number)
    marker, line = (LINE_MARKERS[number % len(LINE_MARKERS)], "-") if marked else ("", LINE_DASHES[dashes])
    return {"color": LINE_COLOURS[hue], "marker": marker, "linestyle": line}


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
    colour_of: Mapping[str, str] | None = None,
) -> bool:
    """Draw measurements over time as a PNG.

    Every unit has its own panel; the names of the lines and their last values stand beside it. Where the phase of the
    run changes, a thin line says so. Where rows hold ``KEY low`` and ``KEY high`` beside a key, a pale band lies
    between them: the range over seeds.

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
        colour_of: Key -> colour of a line whose colour says something, `REAL` or `FAKE`; others: `plot_look`.

    Returns:
        Whether a picture was written: without a single point there is none.

    Raises:
        OSError: If the file cannot be written; an older picture stays as it was.
    """
    panels: dict[str, dict[str, _Line]] = {}
    for unit, names in lines.items():
        found = _lines(rows, x, names, unit in log, colour_of or {})
        if found:
            panels[unit] = found
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
    figure = new_figure(2.2 + 0.62 * len(columns), 1.6 + 0.44 * len(rows))
    panel = figure.subplots()
    panel.set_facecolor(_hex(colours.NO_VALUE))  # where a value is NaN
    shown = panel.imshow(values_RC, cmap=diverging_map(), vmin=0, vmax=1, aspect="auto")
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


def diverging_map() -> "Colormap":
    """`colours.SCALE` as matplotlib takes it: orange below the middle, white in it, blue above."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("diverging", colours.SCALE / 255)


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


@dataclass(frozen=True)
class _Line:
    """A line of a panel: its points and how it is drawn; (x, lowest, highest) of a band, if it has one."""

    points: Points
    look: Mapping[str, Any]
    band: Sequence[tuple[float, float, float]] = ()


def _lines(
    rows: Rows, x: str, names: Mapping[str, str], positive: bool, colour_of: Mapping[str, str]
) -> dict[str, _Line]:
    """The lines of a panel that have points, by name. A line has its look by its place among all names."""
    found = {}
    for number, (key, name) in enumerate(names.items()):
        points = _points(rows, x, key, positive)
        if not points:
            continue
        low, high = (dict(_points(rows, x, f"{key} {end}", positive)) for end in ("low", "high"))
        look = {"linewidth": 1.8, "markersize": 3.5, **plot_look(number, marked=len(points) < 25)}
        look |= {"color": colour_of[key]} if key in colour_of else {}
        found[name] = _Line(points, look, [(at, low[at], high[at]) for at in low if at in high])
    return found


def _points(rows: Rows, x: str, key: str, positive: bool) -> Points:
    """What the rows hold of a quantity, in finite numbers; only what is above 0 if ``positive``."""
    pairs = [(row.get(x), row.get(key)) for row in rows]
    points = [(float(a), float(b)) for a, b in pairs if isinstance(a, int | float) and isinstance(b, int | float)]
    return [point for point in points if all(map(math.isfinite, point)) and (point[1] > 0 or not positive)]


def _draw_panel(panel: "Axes", unit: str, curves: Mapping[str, _Line], levels: Mapping[str, float]) -> None:
    """Draw the lines of one unit, and beside them their names, the highest last value on top."""
    last_values: dict[Line2D, float] = {}
    for name, one in curves.items():
        (line,) = panel.plot(*zip(*one.points, strict=True), label=name, **one.look)
        if one.band:
            at, low, high = zip(*one.band, strict=True)
            panel.fill_between(at, low, high, color=one.look["color"], alpha=0.15, linewidth=0)
        last_values[line] = one.points[-1][1]
    for name, value in levels.items():
        line = panel.axhline(value, color=_hex(FAINT), linewidth=1.0, linestyle=(0, (4, 3)), label=name)
        last_values[line] = value
    panel.set_ylabel(unit, color=_hex(INK))
    plain_axes(panel)
    panel.margins(x=0.01)
    lines = sorted(last_values, key=last_values.__getitem__, reverse=True)
    names = [f"{line.get_label()}  {_number(last_values[line])}" for line in lines]
    panel.legend(
        lines, names, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, labelcolor="linecolor", handlelength=3
    )


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
