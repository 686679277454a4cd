"""Charts of the page of a suite, which needs no library: where their ticks and lines lie; report.html draws them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from textgan_env.ops.plots import line_look

Point = tuple[float, float]

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 420, 310, 46, 16, 34, 20
NAMES, ROW = 150, 18  # room for the names of intervals, and the height of one


@dataclass(frozen=True)
class Axis:
    """An axis with round numbers along it.

    Attributes:
        ticks: The numbers, rising.
        start: Where the first one lies, in pixels.
        end: Where the last one lies.
    """

    ticks: Sequence[float]
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where a value lies, in pixels."""
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return round(self.start + share * (self.end - self.start), 1)


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
class Chart:
    """Lines in a plane.

    Attributes:
        title: Above it.
        about: Behind the title.
        x: Name of the axis that runs to the right.
        y: Name of the axis that runs upwards.
        lines: What is drawn.
        seen: Lines that must be seen whole; others may leave the picture. Empty: all.
    """

    title: str
    about: str
    x: str
    y: str
    lines: Sequence[Drawn]
    seen: Sequence[Drawn] = ()

    @cached_property
    def across(self) -> Axis:
        """The axis that runs to the right."""
        values = [x for line in self.seen or self.lines for x, _ in line.points]
        return Axis(round_numbers(values), LEFT, WIDTH - RIGHT)

    @cached_property
    def up(self) -> Axis:
        """The axis that runs upwards."""
        values = [y for line in self.seen or self.lines for _, y in line.points]
        return Axis(round_numbers(values), HEIGHT - BOTTOM, TOP)

    def places(self, line: Drawn) -> list[Point]:
        """Where the points of a line lie, in pixels."""
        return [(self.across.place(x), self.up.place(y)) for x, y in line.points]


def across_intervals(intervals: Sequence[tuple[float, Point | None]]) -> Axis:
    """The axis of values, each with the ends of its interval, 0 among them."""
    values = [end for value, ends in intervals for end in (value, *(ends or ()), 0.0)]
    return Axis(round_numbers(values), NAMES, WIDTH - 8)


def style(number: int) -> str:
    """The classes of colour and dashes of an arm."""
    hue, dashes = line_look(number)
    return f"c{hue} d{dashes}"


def round_numbers(values: Sequence[float]) -> list[float]:
    """Round numbers from below the lowest value to above the highest, about five."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(4, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high)
    return [round(float(tick), 10) for tick in ticks]
