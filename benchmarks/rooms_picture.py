"""The rooms of the project and who imports whom, measured in the code: ``python -m benchmarks.rooms_picture``.

A room is a folder. An arrow runs from a room to one that it imports; arrows that follow from others are left out.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from benchmarks.results import command, save_picture
from textgan_env.ops.plots import new_figure

PROJECT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Options:
    """Draw the rooms of the project."""

    name: str = "rooms"
    """Name of the picture in docs/images."""


def room_of(module: str) -> str | None:
    """The room of a dotted module name; None for what is not of this project, or lies in no room."""
    head, room = [*module.split("."), ""][:2]
    if head in ("agents", "benchmarks"):
        return head
    return room if head == "textgan_env" and room and (PROJECT / head / room).is_dir() else None


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
            found.setdefault(room, set()).update(
                other for name in names if (other := room_of(name)) not in (None, room)
            )
    return found, lines


def floors(arrows: Mapping[str, set[str]]) -> dict[str, int]:
    """Room -> its floor: 0 imports nothing, every other stands one above the highest that it imports."""
    known: dict[str, int] = {}
    for room in TopologicalSorter(arrows).static_order():
        known[room] = 1 + max((known[other] for other in arrows.get(room, ())), default=-1)
    return {room: known[room] for room in arrows}


def direct(arrows: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Arrows that do not follow from others."""
    below: dict[str, set[str]] = {}
    for room in TopologicalSorter(arrows).static_order():
        below[room] = set().union(*({other} | below[other] for other in arrows.get(room, ())))
    every = [(room, other) for room, others in arrows.items() for other in sorted(others)]
    return [(room, other) for room, other in every if not any(other in below[one] for one in arrows[room] - {other})]


def draw(options: Options) -> Path:
    """Draw the picture; returns its file."""
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
    panel.set(xlim=(0, widest), ylim=(-0.5, 0.8 * max(by_floor) + 0.5))
    panel.axis("off")
    for room, other in direct(arrows):
        ends = {"patchA": boxes[room], "patchB": boxes[other], "shrinkA": 1, "shrinkB": 1}
        bend = 0.08 if floor[room] - floor[other] < 3 else -0.35  # round the rooms between
        style = {"arrowstyle": "-|>", "color": "#70757a", "connectionstyle": f"arc3,rad={bend}", **ends}
        # Above the boxes: they are drawn first, which gives them the sizes at which arrows end.
        panel.annotate("", xy=places[other], xytext=places[room], arrowprops=style, zorder=5)
    return save_picture(figure, options.name, "Rooms of the project: an arrow runs to what is imported")


@command
def main(options: Options) -> None:
    """The command."""
    print(draw(options))


if __name__ == "__main__":
    main()
