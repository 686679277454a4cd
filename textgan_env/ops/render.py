"""Pictures of text: words on the colours of their credit, for terminals and for videos."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textgan_env.ops.colours import FAINT, INK, Colour, Limits, checked_limits, credit_colour, ink_on, short
from textgan_env.utils.errors import require
from textgan_env.utils.printing import printable

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont

#: Left, top, right and lower edge, in pixels.
Room = tuple[int, int, int, int]

_PAPER: Colour = (252, 251, 248)
_ZOOM = 2  # pictures are drawn larger and scaled down, which smooths the round corners
_EDGE = 32 * _ZOOM  # pixels around a picture


def ansi(
    words: Sequence[str],
    credit: Sequence[float] | None = None,
    *,
    limits: Limits | None = None,
    separator: str = " ",
) -> str:
    """A text for a terminal, each word on the colour of its credit, and a legend below.

    Where the environment says ``NO_COLOR`` or ``TERM=dumb`` there are no colours: the value stands behind its word.

    Args:
        words: The text, one string a token; T of them.
        credit: One value a token, NaN where there is none; ``None`` shows the words plain.
        limits: The values of the ends of the scale; by default with the middle at .5, see `credit_limits`.
        separator: What stands between two words; nothing for characters.

    Returns:
        The text, without a line end behind it. Control characters in words are shown as escapes.

    Raises:
        InputError: If there are not as many values as words, or the limits are not a range.
    """
    shown = [_visible(word) for word in words]
    if credit is None:
        return separator.join(shown)
    limits = checked_limits(words, credit, limits)
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return " ".join(f"{word}({value:.2f})" for word, value in zip(shown, credit, strict=True))
    pad, values = " " if separator else "", zip(shown, credit, strict=True)
    tiles = [_paint(f"{pad}{word}{pad}", credit_colour(value, limits)) for word, value in values]
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
        limits: The values of the ends of the scale; by default with the middle at .5, see `credit_limits`. A film
            needs fixed ones.
        title: A line above the text.
        label: What the values are, beside the scale.

    Returns:
        (height, width, 3) uint8.

    Raises:
        InputError: If there are not as many values as words, the limits are not a range, or the size is too
            small.
    """
    width, height = size
    fits = width >= 320 and height >= 200
    require(fits, f"a picture of text needs at least 320 x 200 pixels, got {width} x {height}")
    limits = (0.0, 1.0) if credit is None else checked_limits(words, credit, limits)
    picture, pen = _canvas(size)
    if title:
        _write(pen, (_EDGE, 22 * _ZOOM), title, 17, FAINT, "la")
    top = _EDGE + (30 * _ZOOM if title else 0)
    bottom = height * _ZOOM - (76 * _ZOOM if credit is not None else _EDGE)
    values = [None] * len(words) if credit is None else [float(value) for value in credit]
    for tile in _layout([_visible(word) for word in words], values, (_EDGE, top, width * _ZOOM - _EDGE, bottom)):
        _draw_tile(pen, tile, limits)
    if credit is not None:
        _draw_scale(pen, picture.size, limits, label)
    return _finished(picture)


def score_list(
    texts: Sequence[str], scores: Sequence[float], *, limits: Limits | None = None, title: str = ""
) -> np.ndarray:
    """A picture of texts one below the other, each behind its score on the score's colour.

    Args:
        texts: One a line; cut where it is wider than the picture.
        scores: One a text.
        limits: The values of the ends of the scale; by default with the middle at .5, see `credit_limits`.
        title: A line above.

    Returns:
        (height, 960, 3) uint8; the height follows from the number of texts.

    Raises:
        InputError: If there are not as many scores as texts, or the limits are not a range.
    """
    limits = checked_limits(texts, scores, limits)
    width, line = 960, 29
    picture, pen = _canvas((width, 52 + line * len(texts)))
    _write(pen, (_EDGE, 8 * _ZOOM), title, 17, FAINT, "la")
    for number, (text, score) in enumerate(zip(texts, scores, strict=True)):
        top = (38 + line * number) * _ZOOM
        left, right, middle = _EDGE, _EDGE + 54 * _ZOOM, top + 12.5 * _ZOOM
        colour = credit_colour(float(score), limits)
        pen.rounded_rectangle((left, top, right, top + 25 * _ZOOM), radius=5 * _ZOOM, fill=colour)
        _write(pen, ((left + right) / 2, middle), short(score), 14, ink_on(colour), "mm")
        shown = _cut(_visible(text), _font(_visible(text), 17 * _ZOOM), (width - 68) * _ZOOM - 2 * _EDGE)
        _write(pen, (right + 14 * _ZOOM, middle), shown, 17, INK, "lm")
    return _finished(picture)


def _visible(word: str) -> str:
    """The word with every acting character as its escape: text from anywhere is shown and does nothing."""
    return printable(word, line=True)


def _paint(text: str, colour: Colour) -> str:
    """Text on a background, in 24-bit terminal codes."""
    back, ink = ";".join(map(str, colour)), ";".join(map(str, ink_on(colour)))
    return f"\x1b[48;2;{back}m\x1b[38;2;{ink}m{text}\x1b[0m"


def _canvas(size: tuple[int, int]) -> "tuple[Image.Image, ImageDraw.ImageDraw]":
    """An empty picture of ``size`` pixels, drawn larger, and what draws on it."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (size[0] * _ZOOM, size[1] * _ZOOM), _PAPER)
    return picture, ImageDraw.Draw(picture)


def _finished(picture: "Image.Image") -> np.ndarray:
    """A picture at its final size, (height, width, 3) uint8."""
    from PIL import Image

    size = (picture.size[0] // _ZOOM, picture.size[1] // _ZOOM)
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))


def _write(
    pen: "ImageDraw.ImageDraw", place: tuple[float, float], text: str, points: int, colour: Colour, anchor: str
) -> None:
    """Write one line of text; ``anchor`` says which point of it stands at the place."""
    pen.text(place, _visible(text), font=_font(text, points * _ZOOM), fill=colour, anchor=anchor)


@dataclass(frozen=True)
class _Tile:
    """A word in its place: box in pixels, the baseline of the word, and the fonts of word and value."""

    word: str
    value: float | None
    box: tuple[float, float, float, float]
    baseline: float
    font: "Font"
    small: "Font"


def _layout(words: Sequence[str], values: Sequence[float | None], room: Room) -> list[_Tile]:
    """Place the words in lines, at the largest type in which they fit the room."""
    tiles: list[_Tile] = []
    for points in (30, 26, 22, 18, 15):
        tiles = _place(words, values, room, points * _ZOOM)
        if not tiles or tiles[-1].box[3] <= room[3]:
            return tiles
    # Still too long: what is written now matters more than the beginning.
    line = tiles[0].box[3] - tiles[0].box[1]
    step = min((t.box[1] - tiles[0].box[1] for t in tiles if t.box[1] > tiles[0].box[1]), default=line)
    first = tiles[0].box[1] + step * math.ceil((tiles[-1].box[3] - room[3]) / step)
    start = next((number for number, tile in enumerate(tiles) if tile.box[1] >= first - 0.5), len(tiles) - 1)
    return _place(["…", *words[start + 1 :]], [None, *values[start + 1 :]], room, 15 * _ZOOM)


def _place(words: Sequence[str], values: Sequence[float | None], room: Room, points: int) -> list[_Tile]:
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
        inside = max(font.getlength(word), 0.0 if value is None else small.getlength(short(value)), 0.4 * points)
        if left > room[0] and left + inside + 2 * pad > room[2]:
            left, top = float(room[0]), top + height + gap
        box = (left, top, left + inside + 2 * pad, top + height)
        tiles.append(_Tile(word, value, box, top + 1.13 * points, font, small))
        left = box[2] + gap
    return tiles


def _cut(word: str, font: "Font", room: float) -> str:
    """The word, shortened where it is wider than the room."""
    if font.getlength(word) <= room:
        return word
    while word and font.getlength(word + "…") > room:
        word = word[: len(word) * 9 // 10]
    return word + "…"


def _draw_tile(pen: "ImageDraw.ImageDraw", tile: _Tile, limits: Limits) -> None:
    """Draw a word on its tile, with its value below it."""
    x0, y0, x1, y1 = tile.box
    middle, ink = (x0 + x1) / 2, INK
    if tile.value is not None:
        colour = credit_colour(tile.value, limits)
        ink = ink_on(colour)
        pen.rounded_rectangle(tile.box, radius=(y1 - y0) * 0.14, fill=colour)
        if math.isfinite(tile.value):
            base = y1 - 0.34 * tile.small.size
            pen.text((middle, base), short(tile.value), font=tile.small, fill=ink, anchor="ms")
    pen.text((middle, tile.baseline), tile.word, font=tile.font, fill=ink, anchor="ms")


def _draw_scale(pen: "ImageDraw.ImageDraw", size: tuple[int, int], limits: Limits, label: str) -> None:
    """Draw the colour scale with its numbers at the foot of a picture of ``size`` pixels."""
    left, top = _EDGE, size[1] - 52 * _ZOOM
    wide, high = min(300 * _ZOOM, size[0] - 2 * left), 12 * _ZOOM
    for column in range(wide):
        value = limits[0] + (limits[1] - limits[0]) * column / (wide - 1)
        pen.line((left + column, top, left + column, top + high), fill=credit_colour(value, limits))
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        value = limits[0] + share * (limits[1] - limits[0])
        _write(pen, (left + share * wide, top + high + 5 * _ZOOM), short(value), 14, FAINT, anchor)
    if size[0] > wide + 3 * left + _font("0", 14 * _ZOOM).getlength(label):
        _write(pen, (left + wide + 16 * _ZOOM, top + high / 2), label, 14, FAINT, "lm")


def _font(word: str, pixels: int) -> "Font":
    """A font of the given size that has the characters of the word, as far as one is installed."""
    special = (file for char in word if (file := _font_file(char)) != _usual_font())
    return _load_font(next(special, _usual_font()), pixels)


@lru_cache(maxsize=64)
def _load_font(file: str, pixels: int) -> "Font":
    """A font file at a size in pixels; read once."""
    from PIL import ImageFont

    return ImageFont.truetype(file, pixels)


@cache
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
