"""What the commands here share: how one is made, and how a measurement is kept with all that it takes to repeat it."""

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from textgan_env.utils.errors import friendly_errors
from textgan_env.utils.files import write_safely
from textgan_env.utils.options import read_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
IMAGES = Path(__file__).parent.parent / "docs" / "images"


def command(do: Callable[[Any], object]) -> Callable[..., None]:
    """Make a command of a function of one argument, ``options``, whose type says what can be given.

    The help is the docstring of the module, and those of the options. The command takes its words, or those of
    ``sys.argv``, and shows a person's mistake as one line.
    """

    def main(args: list[str] | None = None) -> None:
        """The command."""
        with friendly_errors():
            program = f"python -m benchmarks.{Path(do.__code__.co_filename).stem}"
            kind, about = get_type_hints(do)["options"], do.__globals__["__doc__"]
            do(read_words(kind, sys.argv[1:] if args is None else args, description=about, program=program))

    return main


def save(name: str, rows: Sequence[Mapping[str, Any]], *, module: str, notes: str, device: str = "cpu") -> Path:
    """Write ``results/<name>.json`` and a Markdown table beside it.

    Args:
        name: Of the files.
        rows: One mapping a row; columns are the names in the order they first appear.
        module: What was run, e.g. "benchmarks.policies".
        notes: What the rows are, and what they are not.
        device: Where it was measured.

    Returns:
        The JSON file.
    """
    words, made = f"python -m {module} {shlex.join(sys.argv[1:])}".strip(), origin(device)
    document = {"command": words, "notes": notes, **made, "rows": list(rows)}
    file = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)
    write_safely(file, json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n")
    text = f"# {name}\n\n{notes}\n\n{table(rows)}\n\n`{words}`, {commit_of(made['source'])}, {made['machine']['cpu']}\n"
    write_safely(file.with_suffix(".md"), text)
    return file


def origin(device: str) -> dict[str, Any]:
    """What a result was made with: source, machine and versions."""
    from textgan_env.runs.folder import machine, source_state
    from textgan_env.runs.snapshot import library_versions

    return {"source": source_state(), "machine": machine(device), "versions": library_versions()}


def commit_of(source: Mapping[str, Any] | None) -> str:
    """The state of the code that made a result, as a person reads it."""
    return f"commit {source['commit'][:10]}{' with changes' * source['dirty']}" if source else "not under git"


def show(name: str, rows: Sequence[Mapping[str, Any]], *, module: str, notes: str, device: str = "cpu") -> None:
    """Print rows as a table, and keep them as `save` does."""
    print(table(rows))
    print(save(name, rows, module=module, notes=notes, device=device))


def image_path(name: str) -> Path:
    """Where a picture of the docs lies; its folder is made when it is not there."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    return IMAGES / f"{name}.png"


def save_picture(figure: "Figure", name: str, title: str = "") -> Path:
    """Write a figure of `new_figure` as a picture of the docs; returns its path."""
    from textgan_env.ops.plots import save_figure

    path = image_path(name)
    save_figure(figure, path, title)
    return path


def peak_memory_mb() -> float | None:
    """The most memory this process had at once, in MiB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; a dash where a row has no such value."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    lines = [f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *cells]]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    """A value in a Markdown table."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
