"""Pictures of text: words coloured by their credit, for terminals and for videos, and learning curves.

Colours run from orange (low) over a pale middle to blue (high), which people with any common colour blindness
tell apart; how dark a colour is says how far from the middle its value lies. A value that is NaN (a token
that nobody has judged) is grey.
"""

import io
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textgan_env.utils.errors import require
from textgan_env.utils.files import write_safely

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import ImageDraw, ImageFont

#: Red, green, blue, 0..255.
Colour = tuple[int, int, int]
#: The credits that get the two ends of the scale of colours.
Limits = tuple[float, float]

_SCALE = np.array(  # (9, 3) sRGB, low to high; lightness rises evenly to the middle and falls evenly after it
    [
        (158, 66, 16),
        (205, 102, 38),
        (233, 147, 84),
        (246, 195, 149),
        (246, 240, 232),
        (176, 207, 232),
        (117, 168, 214),
        (64, 125, 186),
        (28, 81, 144),
    ],
    dtype=np.float64,
)
_NO_VALUE: Colour = (222, 222, 220)
_PAPER: Colour = (252, 251, 248)
_INK: Colour = (33, 37, 41)
_FAINT: Colour = (120, 124, 130)
_PALE: Colour = (255, 255, 255)
# Characters that act on a terminal or turn the direction of the text around them, instead of being shown.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def credit_limits(credit: Sequence[float]) -> Limits:
    """The range of values, for the ends of the colour scale.

    Args:
        credit: Values; NaN is left out.

    Returns:
        (lowest, highest), never equal; (0, 1) where there is no value.
    """
    values = [float(value) for value in credit if math.isfinite(value)]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def credit_colour(value: float, limits: Limits) -> Colour:
    """The colour of a credit.

    Args:
        value: The credit; beyond the limits it gets the colour of the nearer one.
        limits: The values of the two ends of the scale.

    Returns:
        (red, green, blue), 0 to 255 each; grey for NaN.
    """
    if math.isnan(value):
        return _NO_VALUE
    share = (value - limits[0]) / (limits[1] - limits[0])
    place = min(max(share, 0.0), 1.0) * (len(_SCALE) - 1)
    below = min(int(place), len(_SCALE) - 2)
    mixed = _SCALE[below] + (place - below) * (_SCALE[below + 1] - _SCALE[below])
    red, green, blue = (round(float(part)) for part in mixed)
    return red, green, blue


def ink_on(colour: Colour) -> Colour:
    """The text colour that reads well on a background.

    White wherever its contrast ratio (WCAG 2.1) is 3.6 or more: on middling blues and browns it reads better
    than the dark ink, whose ratio there is no larger than 4.3.

    Args:
        colour: The background.

    Returns:
        (red, green, blue): white or nearly black.
    """
    return _PALE if _contrast(_PALE, colour) >= 3.6 else _INK


def ansi(
    words: Sequence[str],
    credit: Sequence[float] | None = None,
    *,
    limits: Limits | None = None,
    separator: str = " ",
    colours: bool | None = None,
) -> str:
    """A text for a terminal, each word on the colour of its credit, and a legend below.

    Args:
        words: The text, one string a token; T of them.
        credit: One value a token, NaN where there is none; ``None`` shows the words plain.
        limits: The values of the ends of the scale; those of ``credit`` by default.
        separator: What stands between two words; nothing for characters.
        colours: Whether to colour; by default yes unless the environment says ``NO_COLOR`` or ``TERM=dumb``.
            Without colours the value stands behind its word.

    Returns:
        The text, without a line end behind it. Control characters in words are shown as escapes.

    Raises:
        InputError: If there are not as many values as words, or the limits are not a range.
    """
    shown = [_visible(word) for word in words]
    if credit is None:
        return separator.join(shown)
    limits = _checked(words, credit, limits)
    if colours is None:
        colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if not colours:
        return " ".join(f"{word}({value:.2f})" for word, value in zip(shown, credit, strict=True))
    pad = " " if separator else ""
    tiles = [
        _paint(f"{pad}{word}{pad}", credit_colour(value, limits)) for word, value in zip(shown, credit, strict=True)
    ]
    steps = np.linspace(limits[0], limits[1], 24)
    bar = "".join(_paint(" ", credit_colour(float(step), limits)) for step in steps)
    return f"{separator.join(tiles)}\nQ {limits[0]:.2f} {bar} {limits[1]:.2f}"


def rgb_array(
    words: Sequence[str],
    credit: Sequence[float] | None = None,
    *,
    size: tuple[int, int] = (960, 480),
    limits: Limits | None = None,
    title: str = "",
    label: str = "Q of the token",
) -> np.ndarray:
    """A picture of a text: words on tiles in the colour of their credit, values, and the colour scale.

    Every picture of one ``size`` has the same layout, so that pictures of a growing text make a film. Text
    too long for the picture is set smaller, and below a readable size its beginning is left out.

    Args:
        words: The text, one string a token; T of them.
        credit: One value a token, NaN where there is none; ``None`` leaves tiles and scale uncoloured.
        size: Width and height in pixels, at least 320 by 200.
        limits: The values of the ends of the scale; those of ``credit`` by default. A film needs fixed ones.
        title: A line above the text.
        label: What the values are, beside the scale.

    Returns:
        (height, width, 3) uint8.

    Raises:
        InputError: If there are not as many values as words, the limits are not a range, or the size is too
            small.
    """
    from PIL import Image, ImageDraw

    width, height = size
    require(
        width >= 320 and height >= 200,
        f"a picture of text needs at least 320 x 200 pixels, got {width} x {height}",
    )
    limits = (0.0, 1.0) if credit is None else _checked(words, credit, limits)
    zoom = 2  # drawn larger and scaled down, which smooths the round corners
    picture = Image.new("RGB", (width * zoom, height * zoom), _PAPER)
    pen = ImageDraw.Draw(picture)
    edge = 32 * zoom
    top = edge
    if title:
        pen.text((edge, 22 * zoom), _visible(title), font=_font(title, 17 * zoom), fill=_FAINT)
        top += 30 * zoom
    bottom = height * zoom - (76 * zoom if credit is not None else edge)
    shown = [_visible(word) for word in words]
    values = [None] * len(shown) if credit is None else [float(value) for value in credit]
    for tile in _layout(shown, values, (edge, top, width * zoom - edge, bottom), zoom):
        _draw_tile(pen, tile, limits)
    if credit is not None:
        _draw_scale(pen, picture.size, limits, label, zoom)
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))


def learning_curve(
    rows: Sequence[Mapping[str, object]],
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

    Every unit has its own panel; the name of a line and its last value stand at its end. Where the phase of
    the run changes, a thin line says so.

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
    panels = {}
    for unit, names in lines.items():
        curves = [_Curve.of(rows, x, key, name, positive=unit in log) for key, name in names.items()]
        panels[unit] = [curve for curve in curves if curve.xs]
    panels = {unit: curves for unit, curves in panels.items() if curves}
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
    axes[-1].set_xlabel(x_label or x, color=_hex(_INK))
    save_figure(figure, path, title)
    return True


def heat_map(
    values_RC: np.ndarray,
    path: str | os.PathLike[str],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: Limits = (0.0, 1.0),
    x_label: str = "",
    y_label: str = "",
    label: str = "",
    title: str = "",
) -> None:
    """Draw a table of numbers as a PNG, each on its colour.

    Args:
        values_RC: float; first row on top.
        path: The file to write.
        rows: Names, one a row.
        columns: Names, one a column.
        limits: The values of the ends of the scale.
        x_label: What the columns are.
        y_label: What the rows are.
        label: What the values are, beside the scale.
        title: A line above.

    Raises:
        InputError: If there are not as many names as rows and columns, or the limits are not a range.
        OSError: If the file cannot be written; an older picture stays as it was.
    """
    require(
        values_RC.shape == (len(rows), len(columns)),
        f"a heat map needs a name a row and a column, got {len(rows)} x {len(columns)} names for {values_RC.shape}",
    )
    _checked([], [], limits)
    from matplotlib.colors import LinearSegmentedColormap

    figure = new_figure(2.2 + 0.62 * len(columns), 1.6 + 0.44 * len(rows))
    panel = figure.subplots()
    colours = LinearSegmentedColormap.from_list("credit", _SCALE / 255)
    panel.set_facecolor(_hex(_NO_VALUE))  # where a value is NaN
    shown = panel.imshow(values_RC, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    for (row, column), value in np.ndenumerate(values_RC):
        ink = ink_on(credit_colour(float(value), limits))
        panel.text(column, row, _short(float(value)), ha="center", va="center", fontsize=9.5, color=_hex(ink))
    panel.set_xticks(range(len(columns)), columns)
    panel.set_yticks(range(len(rows)), rows)
    panel.set_xlabel(x_label, color=_hex(_INK))
    panel.set_ylabel(y_label, color=_hex(_INK))
    panel.tick_params(length=0, labelcolor=_hex(_INK), labelsize=9.5)
    panel.spines[:].set_visible(False)
    figure.colorbar(shown, ax=panel, shrink=0.8, pad=0.02).set_label(label, color=_hex(_INK))
    save_figure(figure, path, title)


def score_list(
    texts: Sequence[str], scores: Sequence[float], *, limits: Limits | None = None, title: str = "", width: int = 960
) -> np.ndarray:
    """A picture of texts one below the other, each behind its score on the score's colour.

    Args:
        texts: One a line; cut where it is wider than the picture.
        scores: One a text.
        limits: The values of the ends of the scale; those of ``scores`` by default.
        title: A line above.
        width: In pixels, at least 320.

    Returns:
        (height, width, 3) uint8; the height follows from the number of texts.

    Raises:
        InputError: If there are not as many scores as texts, the limits are not a range, or the width is too small.
    """
    from PIL import Image, ImageDraw

    require(width >= 320, f"a list of texts needs at least 320 pixels, got {width}")
    limits = _checked(texts, scores, limits)
    zoom, edge, line = 2, 32, 29
    height = 52 + line * len(texts)
    picture = Image.new("RGB", (width * zoom, height * zoom), _PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((edge * zoom, 8 * zoom), _visible(title), font=_font(title, 17 * zoom), fill=_FAINT)
    for number, (text, score) in enumerate(zip(texts, scores, strict=True)):
        top = (38 + line * number) * zoom
        box = (edge * zoom, top, (edge + 54) * zoom, top + 25 * zoom)
        colour = credit_colour(float(score), limits)
        pen.rounded_rectangle(box, radius=5 * zoom, fill=colour)
        middle = top + 12.5 * zoom
        number_font = _font("0", 14 * zoom)
        pen.text(((box[0] + box[2]) / 2, middle), _short(score), font=number_font, fill=ink_on(colour), anchor="mm")
        text = _visible(text)
        font = _font(text, 17 * zoom)
        shown = _cut(text, font, (width - 2 * edge - 68) * zoom)
        pen.text((box[2] + 14 * zoom, middle), shown, font=font, fill=_INK, anchor="lm")
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))


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
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=_hex(_INK))
    figure.canvas.draw()
    save_png(np.asarray(figure.canvas.buffer_rgba())[:, :, :3], path)  # type: ignore[attr-defined]  # of Agg's canvas


def _checked(words: Sequence[str], credit: Sequence[float], limits: Limits | None) -> Limits:
    require(
        len(credit) == len(words),
        f"credit needs one value a word, got {len(credit)} values for {len(words)} words",
    )
    limits = credit_limits(credit) if limits is None else limits
    require(
        math.isfinite(limits[0]) and math.isfinite(limits[1]) and limits[0] < limits[1],
        f"the limits of a colour scale must be two finite numbers, the lower first, got {limits}",
    )
    return limits


def _visible(word: str) -> str:
    """The word with every acting character as its escape: text from anywhere is shown and does nothing."""
    return _ACTING.sub(lambda found: found[0].encode("unicode_escape").decode(), word)


def _contrast(one: Colour, other: Colour) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.1)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2.1)."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (c / 255 for c in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _paint(text: str, colour: Colour) -> str:
    """Text on a background, in 24-bit terminal codes."""
    back, ink = ";".join(map(str, colour)), ";".join(map(str, ink_on(colour)))
    return f"\x1b[48;2;{back}m\x1b[38;2;{ink}m{text}\x1b[0m"


@dataclass(frozen=True)
class _Tile:
    """A word in its place: box in pixels, the baseline of the word, and the fonts of word and value."""

    word: str
    value: float | None
    box: tuple[float, float, float, float]
    baseline: float
    font: "ImageFont.FreeTypeFont"
    small: "ImageFont.FreeTypeFont"


def _layout(
    words: Sequence[str], values: Sequence[float | None], room: tuple[int, int, int, int], zoom: int
) -> list[_Tile]:
    """Place the words in lines, at the largest type in which they fit the room."""
    tiles: list[_Tile] = []
    for points in (30, 26, 22, 18, 15):
        tiles = _place(words, values, room, points * zoom)
        if not tiles or tiles[-1].box[3] <= room[3]:
            return tiles
    # Still too long: what is written now matters more than the beginning.
    line = tiles[0].box[3] - tiles[0].box[1]
    step = min((t.box[1] - tiles[0].box[1] for t in tiles if t.box[1] > tiles[0].box[1]), default=line)
    first = tiles[0].box[1] + step * math.ceil((tiles[-1].box[3] - room[3]) / step)
    start = next((number for number, tile in enumerate(tiles) if tile.box[1] >= first - 0.5), len(tiles) - 1)
    return _place(["…", *words[start + 1 :]], [None, *values[start + 1 :]], room, 15 * zoom)


def _place(
    words: Sequence[str], values: Sequence[float | None], room: tuple[int, int, int, int], points: int
) -> list[_Tile]:
    """Place the words in lines of the given type size (pixels), from the left upper corner of the room on."""
    pad, gap = 0.32 * points, 0.24 * points
    valued = any(value is not None for value in values)
    height = points * (2.05 if valued else 1.6)
    small = _font("0", max(round(points * 0.46), 20))
    tiles = []
    left, top = float(room[0]), float(room[1])
    for word, value in zip(words, values, strict=True):
        font = _font(word, points)
        word = _cut(word, font, room[2] - room[0] - 2 * pad)
        inside = max(font.getlength(word), 0.0 if value is None else small.getlength(_short(value)), 0.4 * points)
        if left > room[0] and left + inside + 2 * pad > room[2]:
            left, top = float(room[0]), top + height + gap
        box = (left, top, left + inside + 2 * pad, top + height)
        tiles.append(_Tile(word, value, box, top + 1.13 * points, font, small))
        left = box[2] + gap
    return tiles


def _cut(word: str, font: "ImageFont.FreeTypeFont", room: float) -> str:
    """The word, shortened where it is wider than the room."""
    if font.getlength(word) <= room:
        return word
    while word and font.getlength(word + "…") > room:
        word = word[: len(word) * 9 // 10]
    return word + "…"


def _draw_tile(pen: "ImageDraw.ImageDraw", tile: _Tile, limits: Limits) -> None:
    """Draw a word on its tile, with its value below it."""
    x0, y0, x1, y1 = tile.box
    middle = (x0 + x1) / 2
    ink = _INK
    if tile.value is not None:
        colour = credit_colour(tile.value, limits)
        ink = ink_on(colour)
        pen.rounded_rectangle(tile.box, radius=(y1 - y0) * 0.14, fill=colour)
        if math.isfinite(tile.value):
            base = y1 - 0.34 * tile.small.size
            pen.text((middle, base), _short(tile.value), font=tile.small, fill=ink, anchor="ms")
    pen.text((middle, tile.baseline), tile.word, font=tile.font, fill=ink, anchor="ms")


def _draw_scale(pen: "ImageDraw.ImageDraw", size: tuple[int, int], limits: Limits, label: str, zoom: int) -> None:
    """Draw the colour scale with its numbers at the foot of a picture of ``size`` pixels."""
    font = _font("0", 14 * zoom)
    left, top = 32 * zoom, size[1] - 52 * zoom
    wide, high = min(300 * zoom, size[0] - 2 * left), 12 * zoom
    for column in range(wide):
        value = limits[0] + (limits[1] - limits[0]) * column / (wide - 1)
        pen.line((left + column, top, left + column, top + high), fill=credit_colour(value, limits))
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        value = limits[0] + share * (limits[1] - limits[0])
        pen.text((left + share * wide, top + high + 5 * zoom), _short(value), font=font, fill=_FAINT, anchor=anchor)
    if size[0] > wide + 3 * left + font.getlength(label):
        pen.text((left + wide + 16 * zoom, top + high / 2), _visible(label), font=font, fill=_FAINT, anchor="lm")


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.3g}"


def _font(word: str, pixels: int) -> "ImageFont.FreeTypeFont":
    """A font of the given size that has the characters of the word, as far as one is installed."""
    return _load_font(
        next((file for char in word if (file := _font_file(char)) != _usual_font()), _usual_font()), pixels
    )


@lru_cache(maxsize=64)
def _load_font(file: str, pixels: int) -> "ImageFont.FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.truetype(file, pixels)


@lru_cache(maxsize=1)
def _usual_font() -> str:
    """DejaVu Sans, which comes with matplotlib."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@lru_cache(maxsize=1)
def _installed_fonts() -> tuple[str, ...]:
    """Font files of this machine, upright sans-serif ones of usual weight first."""
    from matplotlib import font_manager

    special = re.compile("bold|italic|oblique|light|thin|black|medium|mono|condensed|serif", re.IGNORECASE)
    files = font_manager.findSystemFonts()
    return tuple(sorted(files, key=lambda file: (bool(special.search(Path(file).stem)), file)))


@cache
def _font_file(char: str) -> str:
    """The first font that can show the character; DejaVu Sans, which shows a box, where none can."""
    from matplotlib.ft2font import FT2Font

    for file in (_usual_font(), *_installed_fonts()):
        try:
            font = FT2Font(file)
        except (OSError, RuntimeError):  # a broken font file is no reason to stop
            continue
        if font.scalable and font.get_char_index(ord(char)):
            return file
    return _usual_font()


@dataclass(frozen=True)
class _Curve:
    """The points of one line."""

    name: str
    xs: list[float]
    ys: list[float]

    @classmethod
    def of(
        cls, rows: Sequence[Mapping[str, object]], x: str, key: str, name: str, *, positive: bool = False
    ) -> "_Curve":
        """Collect what the rows hold of a quantity; only what is above 0 if ``positive``."""
        pairs = [(row.get(x), row.get(key)) for row in rows]
        points = [(float(a), float(b)) for a, b in pairs if isinstance(a, int | float) and isinstance(b, int | float)]
        points = [point for point in points if all(map(math.isfinite, point)) and (point[1] > 0 or not positive)]
        return cls(name, [a for a, _ in points], [b for _, b in points])


#: Of the lines of a picture, in turn.
LINE_COLOURS = ("#1c5190", "#c2571a", "#2c7a4b", "#7b4ea3", "#a8326e", "#6b6f76")
_MARKERS = "os^DvP"


def _draw_panel(panel: "Axes", unit: str, curves: Sequence[_Curve], levels: Mapping[str, float]) -> None:
    """Draw the lines of one unit, with their names at their ends."""
    ends = []
    for number, curve in enumerate(curves):
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        marker = _MARKERS[number % len(_MARKERS)] if len(curve.xs) < 25 else ""
        panel.plot(curve.xs, curve.ys, color=colour, linewidth=1.8, marker=marker, markersize=3.5)
        ends.append((curve.ys[-1], f"{curve.name}  {_number(curve.ys[-1])}", colour))
    for name, value in levels.items():
        panel.axhline(value, color=_hex(_FAINT), linewidth=1.0, linestyle=(0, (4, 3)))
        ends.append((value, f"{name}  {_number(value)}", _hex(_FAINT)))
    panel.set_ylabel(unit, color=_hex(_INK))
    plain_axes(panel)
    panel.margins(x=0.01)
    to_share = panel.transData + panel.transAxes.inverted()
    places = _apart([to_share.transform((panel.get_xlim()[1], value))[1] for value, _, _ in ends], 0.075)
    for place, (_, text, colour) in zip(places, ends, strict=True):
        panel.annotate(
            text,
            (1.015, place),
            xycoords="axes fraction",
            color=colour,
            fontsize=9.5,
            va="center",
            annotation_clip=False,
        )


def plain_axes(panel: "Axes") -> None:
    """Two quiet axes and horizontal lines behind: the look of every chart here."""
    panel.grid(axis="y", color="#e9e9e6", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(color="#b9bcc0", labelcolor=_hex(_INK), labelsize=9)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#b9bcc0")


def _apart(places: Sequence[float], least: float) -> list[float]:
    """Move places on an axis apart, keeping their order, until neighbours are ``least`` from each other."""
    order = sorted(range(len(places)), key=lambda number: places[number])
    moved = list(places)
    for _ in range(100):
        for below, above in pairwise(order):
            lack = least - (moved[above] - moved[below])
            if lack > 1e-9:
                moved[below] -= lack / 2
                moved[above] += lack / 2
    return moved


def _mark_phases(panel: "Axes", rows: Sequence[Mapping[str, object]], x: str, named: bool) -> None:
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
            panel.axvline(place, color="#b9bcc0", linewidth=0.9, zorder=1)
        if named and place >= free_from:
            panel.annotate(phase, (place, 1.02), xycoords=("data", "axes fraction"), fontsize=8.5, color=_hex(_FAINT))
            free_from = place + (right - left) * (0.02 + 0.011 * len(phase))


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
