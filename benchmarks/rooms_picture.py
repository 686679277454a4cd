"""The rooms of the project and who imports whom, measured in the code: ``python -m benchmarks.rooms_picture``.

A room is a folder. An arrow runs from a room to one that it imports; arrows that follow from others are left out.
"""

import ast
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import image_path
from textgan_env.utils.errors import friendly_errors
from textgan_env.utils.options import read_words

PROJECT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Options:
    """Draw the rooms of the project."""

    name: str = "rooms"
    """Name of the picture in docs/images."""


def room_of(module: str) -> str | None:
    """The room of a dotted module name; None for what is not of this project, or lies in no room."""
    head, *rest = module.split(".")
    if head in ("agents", "benchmarks"):
        return head
    if head != "textgan_env" or not rest:
        return None
    return rest[0] if (PROJECT / "textgan_env" / rest[0]).is_dir() else None


def imports() -> tuple[dict[str, set[str]], dict[str, int]]:
    """Room -> rooms that it imports, and room -> how many lines of code it has."""
    found: dict[str, set[str]] = {}
    lines: dict[str, int] = {}
    for path in sorted(
        path for top in ("textgan_env", "agents", "benchmarks") for path in (PROJECT / top).rglob("*.py")
    ):
        room = room_of(".".join(path.relative_to(PROJECT).with_suffix("").parts))
        if room is None:
            continue
        text = path.read_text("utf-8")
        lines[room] = lines.get(room, 0) + len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            rooms = {other for name in names if (other := room_of(name)) not in (None, room)}
            found.setdefault(room, set()).update(room for room in rooms if room is not None)
    return found, lines


def floors(arrows: Mapping[str, set[str]]) -> dict[str, int]:
    """Room -> its floor: 0 imports nothing, every other stands one above the highest that it imports."""
    known: dict[str, int] = {}

    def floor(room: str, above: tuple[str, ...] = ()) -> int:
        """The floor of one room; a circle counts once."""
        if room not in known:
            below = [floor(other, (*above, room)) for other in arrows.get(room, ()) if other not in (*above, room)]
            known[room] = 1 + max(below, default=-1)
        return known[room]

    for room in arrows:
        floor(room)
    return known


def direct(arrows: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Arrows that do not follow from others."""
    reach: dict[str, set[str]] = {}

    def reached(room: str) -> set[str]:
        """All rooms below one."""
        if room not in reach:
            reach[room] = set()
            reach[room] = set().union(*({other} | reached(other) for other in arrows.get(room, ())))
        return reach[room]

    return [
        (room, other)
        for room, others in arrows.items()
        for other in sorted(others)
        if not any(other in reached(between) for between in others - {other})
    ]


def draw(options: Options) -> Path:
    """Draw the picture; returns its file."""
    from textgan_env.ops.plots import new_figure, save_figure

    arrows, lines = imports()
    floor, widest = floors(arrows), 5.0
    by_floor: dict[int, list[str]] = {}
    for room in sorted(floor):
        by_floor.setdefault(floor[room], []).append(room)
    places = {
        room: (widest * (at + 1) / (len(rooms) + 1), 0.8 * number)
        for number, rooms in by_floor.items()
        for at, room in enumerate(rooms)
    }
    figure = new_figure(7.0, 7.4)
    panel = figure.add_subplot()
    boxes = {}
    for room, (x, y) in places.items():
        look = {"boxstyle": "round,pad=0.45", "facecolor": "#e8eef6", "edgecolor": "#1c5190"}
        label = panel.text(x, y, f"{room}\n{lines[room]:,} lines", ha="center", va="center", fontsize=9, bbox=look)
        boxes[room] = label.get_bbox_patch()
    for room, other in direct(arrows):
        ends = {"patchA": boxes[room], "patchB": boxes[other], "shrinkA": 2, "shrinkB": 2}
        style = {"arrowstyle": "-|>", "color": "#70757a", "connectionstyle": "arc3,rad=0.08", **ends}
        panel.annotate("", xy=places[other], xytext=places[room], arrowprops=style, zorder=0)
    panel.set_xlim(0, widest)
    panel.set_ylim(-0.5, 0.8 * max(by_floor) + 0.5)
    panel.axis("off")
    path = image_path(options.name)
    save_figure(figure, path, "Rooms of the project: an arrow runs to what is imported")
    return path


def main(args: list[str] | None = None) -> None:
    """The command."""
    with friendly_errors():
        print(draw(read_words(Options, sys.argv[1:] if args is None else args, description=__doc__)))


if __name__ == "__main__":
    main()
