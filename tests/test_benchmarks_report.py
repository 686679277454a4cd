"""The page and the tables of a suite, and texts of other systems in them."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import charts, measure, report, results, score
from conftest import PROJECT, assert_refused, mistake_of
from test_compare import MLE, result
from textgan_env.ops.plots import LINE_COLOURS
from textgan_env.tasks import make_task
from textgan_env.utils.options import TaskOptions

SEQGAN = [
    result("seqgan-n4", seed, [(1.0, 1.04, 1.2), (0.5, 1.2, 0.9)], values={"nll_test": 7.0 + seed, "unique": 0.9})
    | {"learning_curve": [{"step": 1, "phase": "mle", "fit": 3.0, "d_auc": 0.6}, {"step": 2, "phase": "x", "fit": 2.5}]}
    for seed in (0, 1, 2)
]
MLE = [*MLE, result("mle", 2, [(1.2, 1.1, 3.0), (1.0, 1.0, 2.0), (0.5, 1.1, 1.0)])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A suite's folder with two arms and one failed job."""
    document = {
        "options": {"preset": "smoke"},
        "failed": {"leakgan.toy.s0": "exit code 2: <oops> (log: a)"},
        "results": [*MLE, *SEQGAN],
    }
    (tmp_path / "results.json").write_text(json.dumps(document))
    return tmp_path


def cells(text: str, name: str) -> list[dict[str, str]]:
    """Rows of a policy in all Markdown tables of a text, by column."""
    found, columns = [], []
    for line in text.splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        if line.startswith("| policy"):
            columns = parts
        elif line.startswith(f"| {name} |"):
            found.append(dict(zip(columns, parts, strict=True)))
    return found


def test_tables_have_the_primary_measure_the_gap_and_its_interval_and_dashes_where_nothing_applies(
    folder: Path,
) -> None:
    text = report.write_tables(folder)
    assert (folder / "tables.md").read_text() == text
    head, more, made = cells(text, "seqgan-n4")
    assert (head["seeds"], head["nll_test"]) == (
        "3",
        f"8.000 [{8 - 4.302653 / 3**0.5:.3f}, {8 + 4.302653 / 3**0.5:.3f}]",
    )
    # The curve crosses the limit of 1.05 a sixteenth of the way from 1.2 down to 0.9.
    assert head["fit at no worse cover"] == f"{1.2 - 0.3 / 16:.3f} [{1.2 - 0.3 / 16:.3f}, {1.2 - 0.3 / 16:.3f}]"
    assert head["gap to mle"].startswith(f"{1.5 - 1.2 + 0.3 / 16:.3f} [")
    assert (head["P"], head["tries"], cells(text, "mle")[0]["gap to mle"]) == ("1.00", "1", "-")
    assert (more["unique"], more["d_auc"], more["bleu_2"]) == ("0.900", "0.600", "-")
    assert made["command"] == "`make seqgan-n4 0`"
    assert "Failed: leakgan.toy.s0: exit code 2" in text
    assert "Primary measure, named beforehand" in text


def test_a_terminal_gets_a_few_columns_of_the_first_table(folder: Path) -> None:
    text = report.summary(report.load(folder))
    (head,) = cells(text, "seqgan-n4")
    measures = ["nll_test", "cover", "fit", "fit at no worse cover", "gap to mle", "P"]
    assert list(head) == ["policy", "seeds", *measures, "note"]
    assert head["note"] == "no control"
    assert head["gap to mle"] == cells(report.write_tables(folder), "seqgan-n4")[0]["gap to mle"]
    assert max(map(len, text.splitlines()[4:])) < 120


def test_one_seed_is_marked_and_has_no_interval(folder: Path) -> None:
    document = json.loads((folder / "results.json").read_text())
    document["results"] = [MLE[0], SEQGAN[0]]
    (folder / "results.json").write_text(json.dumps(document))
    head = cells(report.write_tables(folder), "seqgan-n4")[0]
    assert head["note"] == "interval n/a, fewer than 3 seeds; no control"
    assert "[" not in head["fit at no worse cover"] + head["gap to mle"]


def test_the_page_needs_no_network_and_shows_every_part(folder: Path) -> None:
    page = report.write_page(folder).read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href|url)\s*[=(]", page) == []
    assert "http" not in page
    for part in ("Curves", "Gap to mle", "While they learnt", "Texts, side by side", "How each row was made"):
        assert part in page
    assert "&lt;oops&gt;" in page
    assert "<oops>" not in page
    # A line a seed in the plane of cover and fit, and in the learning curves of fit and AUC.
    assert page.count('<g data-arm="seqgan-n4"') == 3 * 3


def test_a_column_of_zeros_is_shown_and_one_without_numbers_is_not() -> None:
    assert report.filled([{"unique": 0.0, "cover": None}, {"unique": 0.0, "fit": 1.0}]) == ["unique", "fit"]


def test_an_axis_is_round_and_holds_its_values() -> None:
    assert charts.round_numbers([1.02, 1.97]) == [1.0, 1.25, 1.5, 1.75, 2.0]
    assert charts.round_numbers([0.0, 7.0]) == [0, 2, 4, 6, 8]
    assert charts.round_numbers([3.0, 3.0])[0] < 3 < charts.round_numbers([3.0, 3.0])[-1]


def test_a_line_runs_where_its_numbers_say() -> None:
    line = charts.Drawn("a", 0, [(0.0, 0.0), (4.0, 4.0)])
    (left, bottom), (right, top) = charts.Chart("", "", "x", "y", [line]).places(line)
    assert (left, bottom) == (charts.LEFT, charts.HEIGHT - charts.BOTTOM)
    assert (right, top) == (charts.WIDTH - charts.RIGHT, charts.TOP)


@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_kept_results_are_the_raw_ones_with_their_tables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (results, report):
        monkeypatch.setattr(module, "RESULTS", folder / "kept")
    path = report.keep(folder, "mine")
    rows = json.loads(path.read_text())["rows"]
    assert [row["label"] for row in rows] == [f"{arm}.toy.s{seed}" for arm in ("mle", "seqgan-n4") for seed in range(3)]
    assert rows[3]["curve"] == SEQGAN[0]["curve"]
    assert "samples" not in rows[0]["rows"][0]
    expected = report.tables(report.load(folder))
    assert path.with_suffix(".md").read_text() == expected
    # What is kept is all that the tables need.
    path.with_suffix(".md").unlink()
    report.main(["--again", "mine"])
    assert path.with_suffix(".md").read_text() == expected


def test_rows_of_an_earlier_result_stand_beside_those_of_a_suite_that_has_no_such_job(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (results, report):
        monkeypatch.setattr(module, "RESULTS", folder / "kept")
    report.keep(folder, "earlier")
    document = json.loads((folder / "results.json").read_text())
    changed = {**MLE[0], "rows": [{**MLE[0]["rows"][0], "missing": {"cover": "was measured again"}}]}
    (folder / "results.json").write_text(json.dumps({**document, "results": [changed, *MLE[1:]]}))
    rows = json.loads(report.keep(folder, "both", ["earlier"]).read_text())["rows"]
    assert [row["label"] for row in rows] == [f"{arm}.toy.s{seed}" for arm in ("mle", "seqgan-n4") for seed in range(3)]
    assert rows[0]["rows"][0]["missing"] == {"cover": "was measured again"}
    assert_refused("nothing", report.keep, folder, "none", ["nothing"])
    assert not (folder / "kept" / "none.json").exists()


@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_a_folder_without_results_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        report.main([str(tmp_path)])
    assert "no results in" in capsys.readouterr().err


@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_texts_of_a_file_stand_in_the_table_beside_the_arms(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = folder / "theirs.txt"
    theirs.write_text("0 1 2 3\n1 1 1 1\n\n2 2 0 1\n")
    monkeypatch.setattr("sys.argv", ["benchmarks/score.py", "theirs.txt", "--task", "toy"])
    score.main([str(theirs), "--task", "toy", "--into", str(folder), "--name", "theirs"])
    said = capsys.readouterr().out
    assert "| theirs |" in said
    assert "references: 1000" in said
    head, more, made = cells(report.write_tables(folder), "theirs")
    assert float(head["nll_oracle"]) > 0
    assert (head["cover"], head["gap to mle"], head["tries"]) == ("-", "-", "-")
    assert float(more["adjacent_repeats"]) == pytest.approx(4 / 9, abs=1e-3)
    assert made["what"] == "3 texts of a file"
    assert made["command"] == "`python -m benchmarks.score theirs.txt --task toy`"
    assert "theirs" in report.write_page(folder).read_text()


@pytest.mark.usefixtures("without_embeddings")
def test_scored_texts_of_words_get_the_scores_of_text_whatever_words_they_have(tmp_path: Path) -> None:
    nouns, verbs = ("cat", "dog", "bird", "cow", "hen"), ("sits", "runs", "eats", "is")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f"the {noun} {verb} here\n" for noun in nouns for verb in verbs) + "the cat is\n")
    options = TaskOptions(task="corpus", corpus=str(corpus))
    found = score.scored(["the cat sits here", "a zebra sings", "a zebra is"], options, "theirs", "")["rows"][0]
    assert {"lstm_forward", "lstm_reverse", "frechet_lstm", "bleu_4", "unknown_words"} <= set(found["values"])
    assert "read 2 texts of the valid split and is asked about 3 of the policy's" in found["settings"]["lstm"]


@pytest.mark.usefixtures("without_embeddings")
def test_training_texts_in_a_file_score_as_the_row_of_real_text_does(tmp_path: Path) -> None:
    """Their end counts as a policy's does, and unknown words, which the test split may have, as there."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f"{a} {b} {c}\n{c} {a}\n" for a in "abcd" for b in "efgh" for c in "ijk"))
    options = TaskOptions(task="corpus", corpus=str(corpus))
    task = make_task(options.task, **options.task_options())
    real = measure.real_row(task, measure.SIZES["fast"], 0)["values"]
    lines = [task.text(tokens) for tokens in task.split("train").tokens_BT.tolist()]
    scored = score.scored(lines, options, "real", "")["rows"][0]["values"]
    for name in ("lstm_forward", "lstm_reverse", "frechet_lstm", "bleu_4", "self_bleu_4"):
        assert scored[name] == pytest.approx(real[name], abs=1e-9), name


def test_words_that_a_task_cannot_say_are_left_out_of_texts_as_its_policies_write_them() -> None:
    class Plain:
        vocab_size, end_token, forbidden = 5, None, ()

    tokens_BT = torch.tensor([[1, 7, 2, 5], [8, 5, 5, 5]])
    assert score.as_written(tokens_BT, Plain()).tolist() == [[1, 2], [5, 5]]  # type: ignore[arg-type]
    Plain.end_token, Plain.forbidden = 0, (4,)  # type: ignore[assignment]
    assert score.as_written(tokens_BT, Plain()).tolist() == [[1, 4, 2, 0], [4, 0, 5, 5]]  # type: ignore[arg-type]


@pytest.mark.moves_global_rng  # the library that reads command lines does
@pytest.mark.parametrize(("words", "sentence"), [
    (["missing.txt", "--task", "toy"], "missing.txt"),
    (["FILE", "--task", "nothing"], "nothing"),
    (["FILE", "--task", "toy", "--into", "FOLDER/nowhere"], "no results in"),
    (["FILE", "--task", "oracle", "--into", "FOLDER"], "oracle"),
])  # fmt: skip
def test_score_refuses_bad_input_in_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    if "oracle" in words:  # a small one
        small = make_task("oracle", train_size=9, valid_size=9, test_size=9)
        monkeypatch.setattr("textgan_env.tasks.make_task", lambda name: small)
    file = folder / "theirs.txt"
    file.write_text(f"{'0 ' * 20}\n{'1 ' * 20}\n" if "oracle" in words else "0 1 2 3\n1 1 1 1\n")
    given = [word.replace("FILE", str(file)).replace("FOLDER", str(folder)) for word in words]
    assert sentence in mistake_of(score.main, given, capsys)


@pytest.mark.slow
def test_a_browser_shows_the_page_on_a_telephone_and_the_legend_switches_lines(folder: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium, which is not installed")
    page = report.write_page(folder).read_text(encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(f"""<iframe width=390 height=900 srcdoc="{html.escape(page)}"></iframe><script>
document.querySelector("iframe").onload = (event) => {{
  const inside = event.target.contentDocument;
  const box = inside.querySelector('[data-of="seqgan-n4"]');
  box.click();
  const hidden = [...inside.querySelectorAll('[data-arm="seqgan-n4"]')].every((line) => line.matches(".off"));
  const others = inside.querySelectorAll('[data-arm="mle"].off').length;
  const wider = inside.documentElement.scrollWidth - inside.documentElement.clientWidth;
  document.body.dataset.said = [wider, hidden, others].join(" ");
}};</script>""")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=600)
    (said,) = re.findall(r'data-said="([^"]*)"', done.stdout)
    assert said == "0 true 0"


def test_the_page_of_a_text_task_shows_quality_over_diversity(tmp_path: Path) -> None:
    points: list[Any] = [
        {"temperature": at, "bleu_4": at, "self_bleu_4": 1 - at, "lstm_forward": at, "lstm_reverse": 2 - at}
        for at in (1.0, 0.5)
    ]
    text_values = {"nll_test": 3.0, "bleu_4": 0.5, "self_bleu_4": 0.4, "nll_valid": 3.0, "lstm_forward": 4.25}
    one = result("mle", 0, [])
    one["rows"][0] |= {
        "values": text_values,
        "missing": {"frechet_minilm": "it needs the extra embed"},
        "settings": {
            "samples": 9000, "split": "test", "bleu": "nltk's", "bleu_samples": 2000, "references": 8000,
            "tokens": "word rules", "lstm": "LSTM of this size",
        },
    }  # fmt: skip
    one |= {"curve": points, "config": {**one["config"], "task": "coco"}}
    document = {"options": {"preset": "smoke"}, "failed": {}, "results": [one]}
    (tmp_path / "results.json").write_text(json.dumps(document))
    page = report.write_page(tmp_path).read_text()
    assert "bleu_4 over self_bleu_4" in page
    assert "lstm_forward over lstm_reverse" in page
    for told in (page, report.write_tables(tmp_path)):
        assert "Measured on 9,000 texts a policy against the test split." in told
        assert "2,000 texts, 8,000 references, word rules." in told
        assert "lstm: LSTM of this size." in told
        assert "No frechet_minilm: it needs the extra embed." in told
    assert "Gap to" not in page
    assert "All seeds have the same training texts" in page
    head, more, _ = cells(report.write_tables(tmp_path), "mle")
    assert (head["self_bleu_4"], head["lstm_forward"], head["frechet_minilm"]) == ("0.400", "4.250", "-")
    assert set(head) & set(more) == {"policy"}


def test_results_without_any_row_are_refused(folder: Path) -> None:
    (folder / "results.json").write_text(json.dumps({"options": {}, "failed": {}, "results": []}))
    assert_refused("job", report.write_page, folder)


# -- Colours ----------------------------------------------------------------------------------------------------------
def test_lines_of_arms_have_the_colours_of_runs_in_the_report_light_and_dark() -> None:
    page = (PROJECT / "benchmarks" / "report.css").read_text("utf-8")
    shared = (PROJECT / "textgan_env" / "show" / "viewer" / "style.css").read_text("utf-8")
    light, dark = zip(*re.findall(r"--run\d: light-dark\((#\w+), (#\w+)\)", shared), strict=True)
    assert light == LINE_COLOURS
    assert tuple(re.findall(r"--c\d: (#\w+)", page)) == light + dark
    styles = {charts.style(number) for number in range(24)}
    assert len(styles) == 24
    for name in {name for style in styles for name in style.split()} - {"d0"}:  # d0: without dashes
        assert f".{name} " in page
