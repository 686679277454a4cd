"""Pages of the notebooks in docs/notebooks: what their cells say, show and print, as Markdown without any script.

marimo's own HTML loads its program from the network, and these pages must open without one. So `make notebooks` lets
marimo run each notebook and keep it with its outputs (``build/notebooks/NAME.ipynb``), and `page` makes Markdown of it.
"""

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
NOTEBOOKS = DOCS / "notebooks"
KEPT = DOCS.parent / "build" / "notebooks"


def run(names: Sequence[str]) -> None:
    """Run notebooks, all of them where none is named, and keep them with what they show."""
    KEPT.mkdir(parents=True, exist_ok=True)
    for notebook in sorted(NOTEBOOKS.glob("*.py")):
        if not names or notebook.stem in names:
            print(f"running {notebook.relative_to(DOCS.parent)}", flush=True)
            words = ["export", "ipynb", str(notebook), "--include-outputs", "--sort", "top-down", "--force"]
            command = [sys.executable, "-m", "marimo", *words, "-o", f"{notebook.stem}.ipynb"]
            subprocess.run(command, cwd=KEPT, check=True, stdin=subprocess.DEVNULL)


def is_notebook(file: Path) -> bool:
    """Whether a file is one of the notebooks."""
    return file.parent == NOTEBOOKS


def page(notebook: Path, pictures: Path) -> str:
    """Markdown of a notebook.

    Args:
        notebook: The Python file.
        pictures: The folder that gets its pictures, beside the page.
    """
    about = f"`python docs/notebooks/{notebook.name}` runs this page, `marimo edit` opens it."
    kept = KEPT / f"{notebook.stem}.ipynb"
    if not kept.is_file() or kept.stat().st_mtime < notebook.stat().st_mtime:
        code = notebook.read_text("utf-8")
        return f"# {notebook.stem}\n\n{about} `make notebooks` puts here what it shows.\n\n``````python\n{code}``````\n"
    cells = json.loads(kept.read_text("utf-8"))["cells"]
    title = next(cell for cell in cells if cell["cell_type"] == "markdown")
    cells.sort(key=lambda cell: cell is not title)
    return "\n\n".join([part for cell in cells for part in _parts(cell, pictures)] + [about]) + "\n"


def _parts(cell: dict[str, Any], pictures: Path) -> Iterator[str]:
    """A cell and what it shows, in the order in which they are read."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"``````python\n{source}\n``````"
    printed = "".join("".join(out["text"]) for out in cell["outputs"] if out.get("name") == "stdout").rstrip()
    if printed:
        yield _folded(f"``````text\n{printed}\n``````", printed.count("\n") + 1)
    for output in cell["outputs"]:
        if output["output_type"] == "error":
            raise RuntimeError(f"a cell of the notebook failed: {output['evalue']}")
        if "image/png" in (data := output.get("data", {})):
            content = base64.b64decode(data["image/png"])
            file = pictures / f"{hashlib.sha256(content).hexdigest()[:16]}.png"
            pictures.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            yield f"![What the cell above draws]({pictures.name}/{file.name})"


def _folded(block: str, lines: int, most: int = 30) -> str:
    """A block that is opened by a click where it is long."""
    return (
        block
        if lines <= most
        else f"<details>\n<summary>What it prints: {lines} lines</summary>\n\n{block}\n\n</details>"
    )


if __name__ == "__main__":
    run(sys.argv[1:])
