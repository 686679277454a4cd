"""The notebooks run as programs, and their pages show what their cells show."""

import base64
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conftest import PROJECT

NOTEBOOKS = sorted((PROJECT / "docs" / "notebooks").glob("*.py"))


@pytest.fixture
def notebook_pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(PROJECT / "docs")
    return importlib.import_module("notebook_pages")


@pytest.mark.moves_global_rng  # importing Stable-Baselines3 does
@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_end_as_a_program(notebook: Path, tmp_path: Path) -> None:
    pytest.importorskip("marimo", reason="needs the extra notebooks")
    if notebook.stem == "ppo":
        pytest.importorskip("stable_baselines3", reason="needs the extra sb3")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(notebook)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("textgan_env ")
    said = {
        "compare": r"(Gain|No gain|Worse): ",
        "ideas": r"\nfollows D +0\.\d+",
        "own_text": r"page\.html \(\d+ kB\)",
        "ppo": r"\nD learns along +0\.\d+",
    }
    assert re.search(said[notebook.stem], done.stdout), done.stdout


def test_every_notebook_is_listed_on_its_page() -> None:
    listed = re.findall(r"\(notebooks/(\w+)\.py\)", (PROJECT / "docs" / "notebooks.md").read_text("utf-8"))
    assert sorted(listed) == [path.stem for path in NOTEBOOKS]


def test_a_page_has_prose_code_what_it_prints_and_its_pictures(
    notebook_pages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = tmp_path / "two.py"
    notebook.write_text("x = 1\n")
    monkeypatch.setattr(notebook_pages, "KEPT", tmp_path)
    assert "x = 1" in notebook_pages.page(notebook, tmp_path / "pictures")  # it was not run yet
    printed = {"output_type": "stream", "name": "stdout", "text": ["1\n", "2\n"]}
    warned = {"output_type": "stream", "name": "stderr", "text": ["slow\n"]}
    drawn = {"output_type": "display_data", "data": {"image/png": base64.b64encode(b"PNG").decode()}}
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "source": ["import os"], "outputs": []},
        {"cell_type": "markdown", "source": ["# Two\n", "Words."]},
        {"cell_type": "code", "source": ["print(1)\n", "print(2)"], "outputs": [warned, printed, drawn]},
    ]
    (tmp_path / "two.ipynb").write_text(json.dumps({"cells": cells}))
    page = notebook_pages.page(notebook, tmp_path / "pictures")
    assert "<details>" not in page
    order = [
        page.index(part)
        for part in ("# Two\nWords.", "import os", "python\nprint(1)\nprint(2)\n", "text\n1\n2\n", "![")
    ]
    assert order == sorted(order)
    (picture,) = (tmp_path / "pictures").iterdir()
    assert picture.read_bytes() == b"PNG"
    assert f"](pictures/{picture.name})" in page
    assert "slow" not in page
    printed["text"] = ["line\n"] * 31
    (tmp_path / "two.ipynb").write_text(json.dumps({"cells": cells}))
    assert "<summary>What it prints: 31 lines</summary>" in notebook_pages.page(notebook, tmp_path / "pictures")
    os.utime(tmp_path / "two.ipynb", (1, 1))  # older than the notebook
    assert "![" not in notebook_pages.page(notebook, tmp_path / "pictures")
    cells[2]["outputs"] = [{"output_type": "error", "ename": "ValueError", "evalue": "why"}]
    (tmp_path / "two.ipynb").write_text(json.dumps({"cells": cells}))
    with pytest.raises(RuntimeError, match="why"):
        notebook_pages.page(notebook, tmp_path / "pictures")
