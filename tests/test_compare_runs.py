"""`textgan compare` and `textgan runs`: what is one setting, what is refused, and every form of the table."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.cli import main
from conftest import assert_refused, mistake_of
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.listing import ago, list_runs, table_of
from textgan_env.runs.measured import keep_per_text
from textgan_env.show.compare import compare_runs
from textgan_env.show.tables import csv_table, draw_plane, html_page, latex_table, tex, text_table
from textgan_env.utils.files import locked, write_safely

pytestmark = pytest.mark.moves_global_rng  # the library that reads command lines does
SETTINGS = {"split": "test", "samples": 40, "bleu_samples": 40, "references": 40, "bleu": "b", "tokens": "numbers"}


def finished(root: Path, name: str, seed: int, fit: float, *, end: bool = True, **changes: Any) -> Path:
    """A finished run, written down: cover 2, this fit, and 40 texts."""
    task = {"name": "toy", "about": "a toy", "files": {}} | changes.pop("task", {})
    settings = SETTINGS | changes.pop("settings", {})
    config = {"seed": seed, "task": task["name"], "runs": "x", "control": None, "pretrained": None} | changes
    run = RunFolder.create(root, name, agent=name.partition("-")[0], config=config, task=task, seed=seed)
    if end:
        values = {"nll_test": 5.0, "cover": 2.0, "fit": fit}
        document = {"values": values, "missing": {}, "settings": settings, "real": {"cover": 0.0, "fit": 0.0}}
        write_safely(run.evaluation_file, json.dumps(document))
        noise_B = np.random.default_rng(0).normal(0, 0.1, size=40)
        sums = {name: np.stack([value + noise_B, np.ones(40)]) for name, value in values.items()}
        keep_per_text(run, "end", sums)
    return run.path


def test_one_run_a_side_is_compared_over_its_texts(tmp_path: Path) -> None:
    found = compare_runs([finished(tmp_path, "mle-toy", 0, 3.0), finished(tmp_path, "seqgan-toy", 0, 2.5)])
    (one,) = found.differences
    assert (one.over, one.verdict) == ("the texts of one run each", "gain")
    assert one.sentence == "Gain: fit of seqgan-toy-1 is 2.500, of mle-toy-1 3.000 (better)."
    # The noise of both sides is the same text by text: paired, the difference is certain.
    assert next(row.ends for row in one.rows if row.name == "fit") == pytest.approx((-0.5, -0.5))


def test_runs_that_differ_in_their_seed_alone_are_one_setting_over_its_seeds(tmp_path: Path) -> None:
    before = [finished(tmp_path, "mle-toy", seed, 3.0) for seed in range(4)]
    fits = (2.0, 2.5, 3.0)
    now = [finished(tmp_path, "seqgan-toy", seed, fit, pretrained=str(before[seed])) for seed, fit in enumerate(fits)]
    (one,) = compare_runs([*before, *now]).differences
    assert (one.before.name, one.now.name, one.over) == ("mle-toy", "seqgan-toy", "3 seeds")
    fit = next(row for row in one.rows if row.name == "fit")
    reach = 4.302653 * 0.5 / 3**0.5  # Student's t at 2 degrees of freedom
    assert (fit.before, fit.now) == pytest.approx((3.0, 2.5))
    assert fit.ends == pytest.approx((-0.5 - reach, -0.5 + reach))
    assert one.verdict == "no gain"
    (two,) = compare_runs([*before[:2], *now[:2]]).differences
    assert (two.over, two.verdict) == ("", None)
    assert "two seeds have no interval" in two.sentence
    assert "3.0000" in text_table(compare_runs(before))  # one setting: its means
    text = latex_table(compare_runs([*before, *now]))
    assert "paired by seed" in text


def test_settings_of_one_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    runs = [finished(tmp_path, "seqgan-toy", seed, 3.0, control=c) for c in (None, "shuffled") for seed in (0, 1)]
    names = [group.name for group in compare_runs(runs).groups]
    assert names == ["seqgan-toy (control=None)", "seqgan-toy (control=shuffled)"]


def test_a_control_is_called_one_in_the_comparison_and_in_the_list(tmp_path: Path) -> None:
    plain, control = (finished(tmp_path, "seqgan-toy", 0, 3.0, control=one) for one in (None, "shuffled"))
    start = finished(tmp_path, "mle-toy", 0, 3.0)
    head = text_table(compare_runs([start, control])).split("compared with")[0]
    assert "seqgan-toy-2 (control shuffled, seed 0)" in head
    assert "seqgan-toy-1 (seed 0)" in text_table(compare_runs([start, plain]))
    seeds = [finished(tmp_path, "seqgan-toy", 1, 3.0, control=one) for one in (None, "shuffled")]
    by_name = text_table(compare_runs([plain, control, *seeds]))
    assert "seqgan-toy (control=shuffled) (seeds 0 1)" in by_name.replace("\n", " ")
    of = {run.name: run.control for run in list_runs(tmp_path)}
    assert (of["seqgan-toy-1"], of["seqgan-toy-2"], of["mle-toy-1"]) == (None, "shuffled", None)
    (line,) = [line for line in table_of(list_runs(tmp_path)).splitlines() if line.startswith("seqgan-toy-2")]
    assert line.split("  ")[1] == "seqgan, control shuffled"


def test_runs_that_cannot_be_compared_are_refused_in_a_sentence(tmp_path: Path) -> None:
    one = finished(tmp_path, "mle-toy", 0, 3.0)
    assert_refused("at least two", compare_runs, [one])
    assert_refused("not finished", compare_runs, [one, finished(tmp_path, "mle-toy", 1, 3.0, end=False)])
    other = finished(tmp_path, "mle-x", 0, 3.0, task={"name": "oracle"})
    assert_refused("of task 'toy' and 'oracle'", compare_runs, [one, other])
    texts = finished(tmp_path, "mle-x", 0, 3.0, task={"files": {"path": {"size": 3}}})
    assert_refused("same texts .* differ in files", compare_runs, [one, texts])
    fewer = finished(tmp_path, "mle-x", 0, 3.0, settings={"samples": 10})
    assert_refused("samples is 40 and 10", compare_runs, [one, fewer])
    assert_refused("one setting with one seed", compare_runs, [one, finished(tmp_path, "mle-toy", 0, 3.0)])
    alone = [finished(tmp_path, "seqgan-toy", seed, 3.0) for seed in (7, 8)]
    assert_refused("only the same seeds", compare_runs, [one, *alone])


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two runs to be compared, the second better; the name is one that LaTeX and HTML must not take for their own."""
    return [finished(tmp_path, "mle_50%", 0, 3.0), finished(tmp_path, "seqgan<b>", 0, 2.5)]


def test_the_csv_has_a_line_a_measure(pair: list[Path]) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table(compare_runs(pair)))))
    assert [row["measure"] for row in rows] == ["nll_test", "cover", "fit"]
    fit = rows[2]
    assert (fit["better"], float(fit["real_text"]), float(fit["difference"])) == ("lower", 0.0, -0.5)
    assert (fit["baseline"], fit["runs"], fit["unit"]) == ("mle_50%-1", "seqgan<b>-1", "nats per token")
    assert float(fit["low"]) <= -0.5 <= float(fit["high"])
    assert rows[0]["real_text"] == ""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    assert pandas.read_csv(io.StringIO(csv_table(compare_runs(pair))))["difference"].dtype == float


def test_the_latex_is_a_whole_table_with_as_many_cells_in_each_row(pair: list[Path]) -> None:
    text = latex_table(compare_runs(pair))
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert r"\begin{tabular}{p{0.27\linewidth}rrrr}" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {4}
    assert len(rows) == 1 + 3
    assert r"mle\_50\%-1" in text
    assert text.count("$") % 2 == text.replace(r"\{", "").count("{") - text.replace(r"\}", "").count("}") == 0
    assert tex("a_b\\{c}~^") == r"a\_b\textbackslash{}\{c\}\textasciitilde{}\textasciicircum{}"


@pytest.mark.slow
def test_the_latex_compiles_fits_its_page_and_shows_every_number(pair: list[Path], tmp_path: Path) -> None:
    """Two differences in a document without any package; skips where neither tectonic nor pdflatex is installed."""
    program = shutil.which("tectonic") or shutil.which("pdflatex")
    if program is None:
        pytest.skip("neither tectonic nor pdflatex is installed")
    runs = [*pair, finished(tmp_path, "a-run-with-a-rather-long-name", 0, 2.75)]
    main(["compare", *map(str, runs), "--latex", "-o", str(tmp_path / "table.tex")])
    document = ["\\documentclass{article}", "\\begin{document}", "\\input{table.tex}", "\\end{document}"]
    (tmp_path / "paper.tex").write_text("\n".join(document) + "\n")
    options = ["--keep-logs"] if Path(program).name == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run([program, *options, "paper.tex"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
    assert "Overfull" not in (tmp_path / "paper.log").read_text("utf-8", "replace")
    reader = shutil.which("pdftotext")
    if reader is not None:
        said = subprocess.run(
            [reader, "-layout", "paper.pdf", "-"], cwd=tmp_path, capture_output=True, text=True
        ).stdout
        assert "50%-1" in said  # its underscore is drawn as a line
        assert "2.5000" in said


def test_the_page_needs_no_network_and_takes_names_for_text(pair: list[Path], tmp_path: Path) -> None:
    found = compare_runs(pair)
    page = html_page(found)
    assert "seqgan<b>" not in page
    assert "seqgan&lt;b&gt;-1" in page
    assert re.findall(r"(?:src|href)=\"(?!data:)", page) == []
    assert "Gain: fit" in page
    assert draw_plane(found, tmp_path / "plane.png").read_bytes()[1:4] == b"PNG"


def test_the_command_prints_or_writes_what_is_asked_for(
    pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", *map(str, pair)]
    main(words)
    said = capsys.readouterr().out
    assert "Gain: fit" in said
    assert "KL(policy || oracle)" in said
    main([*words, "--csv", "-o", str(tmp_path / "table.csv"), "--picture", str(tmp_path / "plane.png")])
    assert (tmp_path / "table.csv").read_text().startswith("measure,about")
    assert (tmp_path / "plane.png").stat().st_size > 1000
    assert "give one of" in mistake_of(main, [*words, "--csv", "--html"], capsys)
    assert "no folder" in mistake_of(main, [*words, "-o", str(tmp_path / "no" / "where")], capsys)


def test_runs_are_listed_with_state_and_numbers_the_newest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [finished(tmp_path, name, 3, 2.5, end=name != "b") for name in ("a", "b", "c")]
    for path, at in zip(paths, (3e9, 2e9, 1e9), strict=True):
        for file in path.rglob("*"):
            os.utime(file, (at, at))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "config.json").write_text("{")
    os.utime(tmp_path / "d", (1e8, 1e8))
    with locked(paths[1] / ".lock", lambda: ""):
        found = {run.name: run for run in list_runs(tmp_path)}
    assert {name: run.state for name, run in found.items()} == {
        "a-1": "finished", "b-1": "running", "c-1": "finished", "d": "unreadable",
    }  # fmt: skip
    assert list(found) == ["a-1", "b-1", "c-1", "d"]
    assert (found["a-1"].seed, found["a-1"].agent, (found["a-1"].numbers or {})["fit"]) == (3, "a", 2.5)
    table = table_of(list_runs(tmp_path), now=3e9 + 7300)
    assert "2 hours ago" in table.splitlines()[1]
    main(["runs", str(tmp_path), "--json"])
    assert '"state": "stopped"' in capsys.readouterr().out  # b, whose lock is free again
    assert "no folder" in mistake_of(main, ["runs", str(tmp_path / "nowhere")], capsys)
    (tmp_path / "empty").mkdir()
    assert "no run in" in mistake_of(main, ["runs", str(tmp_path / "empty")], capsys)
    assert [ago(seconds) for seconds in (5, 60, 90_000)] == ["just now", "1 minute ago", "1 day ago"]
