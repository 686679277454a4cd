"""What the commands here share: how one is made, and how a measurement is kept with all that it takes to repeat it.

A command loads torch and matplotlib in the functions that compute and draw, so that ``--help`` is there at once.
"""

import json
import pkgutil
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from textgan_env.utils.errors import friendly_errors, require
from textgan_env.utils.files import write_safely
from textgan_env.utils.options import read_words

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.pictures import Again

PROJECT = Path(__file__).resolve().parent.parent
#: How this package is called on a command line: in a checkout, or where it is installed.
PACKAGE = "textgan_env.benchmarks" if (PROJECT / "show").is_dir() else "benchmarks"
RESULTS = PROJECT / "benchmarks" / "results"
IMAGES = PROJECT / "docs" / "images"
#: Command that made a result -> what draws its picture from the kept numbers.
DRAWN_BY = {
    f"benchmarks.{name}": f"benchmarks.{name}:draw_again"
    for name in ("bound", "budget", "gad", "regimes", "throughput")
}
DRAWN_BY |= {"benchmarks.goals": "benchmarks.goal_report:draw_again"}


def command(do: Callable[[Any], object]) -> Callable[..., None]:
    """Make a command of a function of one argument, ``options``, whose type says what can be given.

    The help is the docstring of the module, and those of the options. The command takes its words, or those of
    ``sys.argv``, and shows a person's mistake as one line.
    """

    def main(args: list[str] | None = None, program: str | None = None) -> None:
        """The command; its help calls it as ``program`` says, or as a module."""
        with friendly_errors():
            program = program or f"python -m {PACKAGE}.{Path(do.__code__.co_filename).stem}"
            kind, about = get_type_hints(do)["options"], do.__globals__["__doc__"]
            do(read_words(kind, sys.argv[1:] if args is None else args, description=about, program=program))

    return main


def command_line() -> str:
    """The command that this process was started with."""
    return f"python -m benchmarks.{Path(sys.argv[0]).stem} {shlex.join(sys.argv[1:])}".strip()


def save(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    notes: str,
    device: str = "cpu",
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``results/<name>.json`` and a Markdown table beside it.

    Args:
        name: Of the files.
        rows: One mapping a row; columns are the names in the order they first appear.
        notes: What the rows are, and what they are not.
        device: Where it was measured.
        more: What else the document holds.

    Returns:
        The JSON file.
    """
    words, made = command_line(), origin(device)
    document = {"command": words, "notes": notes, **made, **(more or {}), "rows": list(rows)}
    file = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)
    write_safely(file, json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n")
    text = f"# {name}\n\n{notes}\n\n{table(rows)}\n\n`{words}`, {commit_of(made['source'])}, {made['machine']['cpu']}\n"
    write_safely(file.with_suffix(".md"), text)
    return file


def kept(name: str) -> dict[str, Any]:
    """What `save` wrote under a name.

    Raises:
        InputError: If there is no such result.
    """
    path = RESULTS / f"{name}.json"
    require(path.exists(), f"no kept result '{name}': expected the file {path}")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def made_once(path: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What stands in a JSON file; where there is none it is made and written, so that a killed command goes on."""
    if not path.exists():
        write_safely(path, json.dumps(make(), indent=1) + "\n")
    return dict(json.loads(path.read_text("utf-8")))


def weights_once(path: Path, make: "Callable[[], Mapping[str, Tensor]]") -> "dict[str, Tensor]":
    """The same of a file of weights, name -> tensor."""
    import safetensors.torch

    if not path.exists():
        write_safely(path, safetensors.torch.save(dict(make())))
    return safetensors.torch.load(path.read_bytes())


def origin(device: str) -> dict[str, Any]:
    """What a result was made with: source, machine and versions."""
    from textgan_env.runs.folder import machine, source_state
    from textgan_env.runs.snapshot import library_versions

    return {"source": source_state(), "machine": machine(device), "versions": library_versions()}


def commit_of(source: Mapping[str, Any] | None) -> str:
    """The state of the code that made a result, as a person reads it."""
    return f"commit {source['commit'][:10]}{' with changes' * source['dirty']}" if source else "not under git"


def show(name: str, rows: Sequence[Mapping[str, Any]], *, notes: str, device: str = "cpu") -> None:
    """Print rows as a table, and keep them as `save` does."""
    print(table(rows))
    print(save(name, rows, notes=notes, device=device))


def image_path(name: str) -> Path:
    """Where a picture of the docs lies; its folder is made when it is not there."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    return IMAGES / f"{name}.png"


def draw_kept(options: "Again") -> Path:
    """Draw the picture of a kept result again; returns its path.

    Raises:
        InputError: If there is no such result, or its command draws no picture.
    """
    document, path = kept(options.result), image_path(options.name or options.result)
    made_by = shlex.split(document["command"])[2]
    require(made_by in DRAWN_BY, f"'{options.result}' has no picture: {made_by} draws none from kept numbers")
    pkgutil.resolve_name(DRAWN_BY[made_by])(document, path)
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
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *cells])


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
