"""The picture of the rooms (folders) of the project and who imports whom, measured in the code."""

from pathlib import Path

import grimp
import networkx

from benchmarks.pictures import Rooms
from benchmarks.results import PROJECT
from textgan_env.ops.plots import LINE_COLOURS, new_figure, save_figure


def folders() -> dict[str, Path]:
    """Room -> its folder."""
    of_library = sorted(path.parent for path in PROJECT.glob("textgan_env/*/__init__.py"))
    return {path.name: path for path in [PROJECT / "agents", PROJECT / "benchmarks", *of_library]}


def imports() -> networkx.DiGraph:
    """An arrow from each room to each that it imports."""
    graph = grimp.build_graph("textgan_env", "agents", "benchmarks", cache_dir=None)
    rooms = {".".join(path.relative_to(PROJECT).parts): name for name, path in folders().items()}
    for module in rooms:
        graph.squash_module(module)
    arrows = networkx.DiGraph()
    for module, room in rooms.items():
        arrows.add_node(room)
        imported = graph.find_modules_directly_imported_by(module) - {module}
        arrows.add_edges_from((room, rooms[other]) for other in sorted(imported) if other in rooms)
    return arrows


def draw_rooms(options: Rooms) -> Path:
    """Draw the picture; returns its path."""
    arrows, widest = imports(), 5.0
    # The lowest floor imports nothing, every other room stands one above the highest that it imports.
    by_floor = [sorted(rooms) for rooms in networkx.topological_generations(arrows.reverse())]
    floor = {room: number for number, rooms in enumerate(by_floor) for room in rooms}
    places = {
        room: (widest * (at + 1) / (len(rooms) + 1), 0.8 * number)
        for number, rooms in enumerate(by_floor)
        for at, room in enumerate(rooms)
    }
    figure = new_figure(7.0, 7.4)
    panel = figure.add_subplot()
    boxes = {}
    for room, folder in folders().items():
        lines = sum(len(path.read_text("utf-8").splitlines()) for path in folder.rglob("*.py"))
        look = {"boxstyle": "round,pad=0.45", "facecolor": "#f4f1ea", "edgecolor": LINE_COLOURS[5]}
        x, y = places[room]
        label = panel.text(x, y, f"{room}\n{lines:,} lines", ha="center", va="center", fontsize=9, bbox=look)
        boxes[room] = label.get_bbox_patch()
    panel.set(xlim=(0, widest), ylim=(-0.5, 0.8 * len(by_floor) - 0.3))
    panel.axis("off")
    for room, other in networkx.transitive_reduction(arrows).edges:
        ends = {"patchA": boxes[room], "patchB": boxes[other], "shrinkA": 1, "shrinkB": 1}
        bend = 0.08 if floor[room] - floor[other] < 3 else -0.35  # round the rooms between
        style = {"arrowstyle": "-|>", "color": "#70757a", "connectionstyle": f"arc3,rad={bend}", **ends}
        # Above the boxes: they are drawn first, which gives them the sizes at which arrows end.
        panel.annotate("", xy=places[other], xytext=places[room], arrowprops=style, zorder=5)
    save_figure(figure, options.path, "Rooms of the project: an arrow runs to what is imported")
    return options.path
