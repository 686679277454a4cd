"""Charts as SVG, drawn here so that the page of a suite needs no library: lines in a plane, and intervals."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 420, 310, 46, 16, 34, 20
_COLOURS = 8


def escaped(text: object) -> str:
    """Text as HTML can hold it."""
    return html.escape(str(text))


@dataclass(frozen=True)
class Drawn:
    """One line of a chart.

    Attributes:
        arm: Whose; its colour, and what the legend switches.
        number: Of the arm in the legend.
        points: Of the line; a single one is drawn as a dot.
    """

    arm: str
    number: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Interval:
    """One value with its interval.

    Attributes:
        name: Whose.
        value: The number.
        ends: Of its interval; None: there is none.
        hollow: Whether the dot is hollow.
    """

    name: str
    value: float
    ends: Point | None
    hollow: bool


def chart(lines: Sequence[Drawn], x: str, y: str, seen: Sequence[Drawn] = ()) -> str:
    """An SVG picture of lines.

    Args:
        lines: What is drawn.
        x: Name of the axis that runs to the right.
        y: Name of the axis that runs upwards.
        seen: Lines that must be seen whole; others may leave the picture. Empty: all.
    """
    if not lines:
        return ""
    across = axis([px for line in seen or lines for px, _ in line.points])
    up = axis([py for line in seen or lines for _, py in line.points])

    def place(px: float, py: float) -> Point:
        """Where a point lies, in pixels."""
        right, above = (px - across[0]) / (across[-1] - across[0]), (py - up[0]) / (up[-1] - up[0])
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - above * (HEIGHT - BOTTOM - TOP)

    grid = [
        *(_tick(place(value, up[0]), value, "x") for value in across),
        *(_tick(place(across[0], value), value, "y") for value in up),
        f'<text class=axis x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">{escaped(x)} →</text>',
        f'<text class=axis x="4" y="11">↑ {escaped(y)}</text>',
    ]
    drawn = [_line(line, [place(*point) for point in line.points]) for line in lines]
    inside = f'<svg x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT}" height="{HEIGHT - BOTTOM - TOP}" '
    inside += f'viewBox="{LEFT} {TOP} {WIDTH - LEFT} {HEIGHT - BOTTOM - TOP}">{"".join(drawn)}</svg>'
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(grid)}{inside}</svg>'


def _style(number: int) -> str:
    """The classes of colour and dashes of an arm."""
    return f"c{number % _COLOURS} d{number // _COLOURS % 3}"


def _line(line: Drawn, places: Sequence[Point]) -> str:
    """One line with its dots, in pixels."""
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 if len(places) > 1 else 4}"/>' for x, y in places)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    opening = f'<g data-arm="{escaped(line.arm)}" class="{_style(line.number)}"><title>{escaped(line.arm)}</title>'
    return f'{opening}<polyline points="{path}"/>{dots}</g>'


def _tick(at: Point, value: float, along: str) -> str:
    """A line of the grid with its number."""
    x, y = at
    if along == "x":
        line = f'<line class=grid x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{y:.1f}"/>'
        return f'{line}<text x="{x:.1f}" y="{y + 13:.1f}" text-anchor="middle">{value:g}</text>'
    line = f'<line class=grid x1="{x:.1f}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
    return f'{line}<text x="{x - 5:.1f}" y="{y + 3:.1f}" text-anchor="end">{value:g}</text>'


def axis(values: Sequence[float]) -> list[float]:
    """Round numbers from below the lowest value to above the highest, about five."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def figure(title: str, about: str, svg: str) -> str:
    """A chart with its title; nothing where there is nothing to draw."""
    return f"<figure><figcaption><b>{escaped(title)}</b> {escaped(about)}</figcaption>{svg}</figure>" if svg else ""


def legend(names: Sequence[str]) -> str:
    """Boxes that switch the lines of each arm on and off."""
    boxes = "".join(
        f'<label class="{_style(number)}"><input type=checkbox checked data-of="{escaped(name)}">'
        f'<svg viewBox="0 0 24 8"><polyline points="0,4 24,4"/></svg>{escaped(name)}</label>'
        for number, name in enumerate(names)
    )
    return f"<div class=legend>{boxes}<button type=button data-all>all or none</button></div>"


def intervals(rows: Sequence[Interval]) -> str:
    """An SVG picture of values with their intervals, a line each, and a mark at 0; "" where there are none."""
    if not rows:
        return ""
    ticks = axis([end for row in rows for end in (row.value, *(row.ends or ()), 0.0)])
    height, left, width = 18 * len(rows) + 30, 150, WIDTH - 158

    def across(value: float) -> float:
        """Where a value lies on the axis, in pixels."""
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * width

    parts = [
        f'<line class="{"zero" if tick == 0 else "grid"}" x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="4" '
        f'y2="{height - 24}"/><text x="{across(tick):.1f}" y="{height - 12}" text-anchor="middle">{tick:g}</text>'
        for tick in ticks
    ]
    for number, row in enumerate(rows):
        y, (low, high) = 16 + 18 * number, row.ends or (row.value, row.value)
        parts.append(
            f'<g class="gap{" control" if row.hollow else ""}">'
            f'<text x="{left - 8}" y="{y + 3}" text-anchor="end">{escaped(row.name)}</text>'
            f'<polyline points="{across(low):.1f},{y} {across(high):.1f},{y}"/>'
            f'<circle cx="{across(row.value):.1f}" cy="{y}" r="3.5"/></g>'
        )
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'
