"""The page about runs: what is in its data, what its HTML lets happen, and what is refused."""

import base64
import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from agents.cli import main
from agents.mle import MLE
from agents.mle import smoke as mle_smoke
from agents.seqgan import SeqGAN
from agents.seqgan import smoke as seqgan_smoke
from conftest import assert_refused, make_run
from textgan_env import load
from textgan_env.envs import defaults
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import read_metrics
from textgan_env.show import report
from textgan_env.show.report import page, report_data, write_report
from textgan_env.show.traces import RunDiscriminator, write_traces
from textgan_env.utils.molecules import picture_address

# The library that reads command lines draws from the global generators.
pytestmark = pytest.mark.moves_global_rng

NASTY = "</script><script>document.title='broken'</script>"
LINES = [
    f"the {noun} {verb} {thing}" for noun in ("cat", "dog", "fox") for verb in ("saw", "ate") for thing in "abcdef"
]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "my.txt"
    file.write_text("\n".join([*LINES, *[f"{line} {NASTY}" for line in LINES]]))
    return file


@pytest.fixture(scope="module")
def seqgan(text: Path) -> RunFolder:
    return make_run(SeqGAN, seqgan_smoke, text, mode="whitespace", mle_epochs=2)


@pytest.fixture(scope="module")
def mle(text: Path) -> RunFolder:
    return make_run(MLE, mle_smoke, text, mode="whitespace", epochs=3)


@pytest.fixture(autouse=True)
def quick_default_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "DEFAULT_DISCRIMINATOR_STEPS", 3)


@pytest.fixture(scope="module")
def data(seqgan: RunFolder) -> dict[str, Any]:
    return report_data([seqgan.path], texts=3, rollouts=4, seed=5)


# -- The data ---------------------------------------------------------------------------------------------------------
def test_the_data_are_the_traces_of_the_run(seqgan: RunFolder, data: dict[str, Any]) -> None:
    run = load(seqgan.path)
    discriminator = RunDiscriminator.of_run(run, seed=5)
    traces = write_traces(run.policy, run.task, discriminator.network, 3, rollouts=4, seed=5)
    (shown,) = data["runs"]
    assert shown["discriminator"]["own"]
    assert discriminator.report is not None
    assert shown["discriminator"]["auc"] == pytest.approx(discriminator.report.auc, rel=1e-3)
    assert [one["text"] for one in shown["texts"]] == run.sample(3, seed=5)
    for one, found in zip(shown["texts"], traces, strict=True):
        assert one["q"] == pytest.approx(found.q, abs=5e-5)
        assert one["stopped"] == pytest.approx(found.stopped, abs=5e-5)
        assert len(one["path"]) == len(one["tokens"]) + 1
        for q, completions in zip(one["q"][:-1], one["completions"][:-1], strict=True):
            assert q == pytest.approx(sum(score for score, _ in completions) / 4, abs=1e-4)
        words = [data["words"][token] for token in one["tokens"] if token != data["end"]]
        assert " ".join(words) == one["text"]
        first_score, first_tokens = one["completions"][0][0]
        assert first_score == pytest.approx(found.completions[0][0].score_real, abs=5e-5)
        whole = [*found.tokens[:1], *found.completions[0][0].tokens]
        words = [data["words"][token] for token in first_tokens if token != data["end"]]
        assert data["glue"].join([run.task.words(whole[:1])[0], *words]) == run.task.text(whole)
        parts = one["parts"]
        total = parts["constant"] + parts["rest"] + sum(value for _, _, value in parts["strongest"])
        assert total == pytest.approx(parts["logit"], abs=0.01)
        sizes = [abs(value) for _, _, value in parts["strongest"]]
        assert sizes == sorted(sizes, reverse=True)


def test_a_molecule_is_drawn_in_the_page_and_other_text_is_not(data: dict[str, Any]) -> None:
    pytest.importorskip("rdkit")
    drawn = picture_address("CCO")
    assert drawn is not None
    kind, _, image = drawn.partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert "<svg" in base64.b64decode(image).decode()
    assert picture_address("C1CC") is None
    assert {text["picture"] for text in data["runs"][0]["texts"]} == {None}


def test_curves_samples_phases_and_the_run_itself_are_in_the_data(seqgan: RunFolder, data: dict[str, Any]) -> None:
    (shown,) = data["runs"]
    valid = [(row["step"], row["nll_valid"]) for row in read_metrics(seqgan.path) if "nll_valid" in row]
    steps, values = shown["curves"]["nll_valid"]
    assert steps == [step for step, _ in valid]
    assert values == pytest.approx([value for _, value in valid], rel=1e-3)
    assert [(phase["name"], phase["first"], phase["last"]) for phase in shown["phases"]] == [
        ("mle", 1, 2), ("pretrain_d", 3, 3), ("adversarial", 4, 5),
    ]  # fmt: skip
    assert shown["samples"] == [[step, texts] for step, texts in seqgan.samples()]
    about = seqgan.about
    assert (shown["made"]["command"], shown["made"]["source"]) == (about["command"], about["source"])
    kept = json.loads((seqgan.path / "evaluation.json").read_text())
    assert shown["evaluation"]["values"]["nll_test"] == pytest.approx(kept["values"]["nll_test"], rel=1e-3)
    assert shown["evaluation"]["settings"] == kept["settings"]


def test_several_runs_share_words_and_colours_and_one_judge_if_asked(seqgan: RunFolder, mle: RunFolder) -> None:
    mixed = report_data([seqgan.path, mle.path], texts=2, rollouts=2)
    assert [run["discriminator"]["own"] for run in mixed["runs"]] == [True, False]
    assert mixed["limits"] == [0, 1]  # the pale middle is .5, whatever the texts score
    one = report_data([seqgan.path, mle.path], texts=2, rollouts=2, discriminator="default")
    assert [run["discriminator"]["own"] for run in one["runs"]] == [False, False]
    assert one["runs"][0]["real"] == one["runs"][1]["real"]  # one discriminator, so one plane
    assert one["runs"][1]["texts"][0]["q"] == mixed["runs"][1]["texts"][0]["q"]


def test_long_curves_keep_their_ends_and_say_nothing_of_what_is_not_a_number() -> None:
    rows: list[Any] = [{"step": step, "phase": "a", "x": float(step)} for step in range(1, 1001)]
    rows[-1]["x"] = float("nan")
    steps, values = report._curve(rows, "x")
    assert len(steps) == report._POINTS
    assert (steps[0], steps[-1]) == (1, 999)
    assert (values, report._curve(rows, "y")) == (steps, [])


def test_the_run_that_one_began_from_stands_before_it(seqgan: RunFolder, mle: RunFolder, text: Path) -> None:
    run = make_run(SeqGAN, seqgan_smoke, text, mode="whitespace", pretrained=mle.path, embed_size=8)
    (shown,) = report_data([run.path], texts=1, rollouts=1)["runs"]
    own, before = read_metrics(run.path), read_metrics(mle.path)
    last = int(before[-1]["step"])
    assert shown["phases"][0] == {"name": f"mle in {mle.path.name}", "first": 1, "last": last}
    assert shown["phases"][-1]["last"] == last + int(own[-1]["step"])
    expected = [row["nll_valid"] for row in [*before, *own] if "nll_valid" in row]
    assert shown["curves"]["nll_valid"][1] == pytest.approx(expected, rel=1e-3)
    # Beside the run itself, each round is drawn once.
    later, _ = report_data([run.path, mle.path], texts=1, rollouts=1)["runs"]
    assert later["curves"]["nll_valid"][0] == shown["curves"]["nll_valid"][0][len(expected) - len(own_evaluated(own)) :]


def own_evaluated(rows: list[Any]) -> list[Any]:
    """The rows of evaluations."""
    return [row for row in rows if "nll_valid" in row]


def test_another_temperature_is_that_of_the_texts_and_of_the_completions(mle: RunFolder) -> None:
    (shown,) = report_data([mle.path], texts=2, rollouts=3, temperature=1e-4)["runs"]
    assert shown["decoding"]["temperature"] == 1e-4
    assert shown["texts"][0]["text"] == shown["texts"][1]["text"]  # the most probable one
    assert all(len({tuple(tokens) for _, tokens in each}) <= 1 for each in shown["texts"][0]["completions"])


# -- The page ---------------------------------------------------------------------------------------------------------
def script_data(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_text_of_the_corpus_never_becomes_html(data: dict[str, Any]) -> None:
    assert any(NASTY in word for word in data["words"])
    named = copy.deepcopy(data)
    named["runs"][0]["name"] = NASTY
    html = page(named)
    assert NASTY not in html
    assert html.count("<script") == html.count("</script>") == 2  # the data and the page's own
    assert script_data(html) == named
    assert "<title>&lt;/script&gt;" in html


def test_the_page_lets_only_its_own_script_and_style_in(data: dict[str, Any]) -> None:
    html = page(data)
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    assert policy is not None
    allowed = dict(part.split(" ", 1) for part in policy[1].split("; "))
    assert allowed["default-src"] == "'none'"
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert allowed[kind] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", html)
    assert " style=" not in html  # the policy would refuse it


def test_the_same_seed_makes_the_same_page_and_another_one_does_not(seqgan: RunFolder, tmp_path: Path) -> None:
    files = [
        write_report([seqgan.path], tmp_path / f"{at}.html", texts=2, rollouts=2, seed=seed).read_bytes()
        for at, seed in enumerate((1, 1, 2))
    ]
    assert files[0] == files[1] != files[2]


# -- The command ------------------------------------------------------------------------------------------------------
def test_the_command_says_which_file_it_wrote(mle: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    main(["report", str(mle.path), "--texts", "1", "--rollouts", "2"])
    said = capsys.readouterr()
    file = mle.path / "report.html"
    assert said.out == f"{file} ({file.stat().st_size // 1000} kB): open it in a browser\n"
    assert "fitting the default discriminator" in said.err
    assert script_data(file.read_text("utf-8"))["rollouts"] == 2


def test_a_run_that_was_stopped_is_shown_without_results(seqgan: RunFolder, text: Path) -> None:
    run = make_run(MLE, mle_smoke, text, mode="whitespace")
    (run.path / "evaluation.json").unlink()
    (shown,) = report_data([run.path], texts=1, rollouts=1)["runs"]
    assert shown["evaluation"] is None


@pytest.mark.parametrize(("words", "field"), [
    ([], "run folder"), (["nowhere"], "nowhere"), (["RUN", "--texts", "0"], "texts"),
    (["RUN", "--rollouts", "65"], "rollouts"), (["RUN", "--temperature", "0"], "temperature"),
    (["RUN", "--discriminator", "mine"], "discriminator"), (["RUN", "-o", "no/such/page.html"], "no/such"),
    (["RUN", "-o", "."], "'.' is a folder"), (["RUN"] * 7, "found 7"), (["OTHER", "RUN"], "one task"),
    (["NOTHING"], "config.json"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence_and_nothing_is_written(
    mle: RunFolder, tmp_path: Path, words: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "OTHER" in words:
        (tmp_path / "other.txt").write_text("\n".join(LINES))
        other = str(make_run(MLE, mle_smoke, tmp_path / "other.txt").path)
    else:
        other = ""
    (tmp_path / "nothing").mkdir()
    places = {"RUN": str(mle.path), "OTHER": other, "NOTHING": str(tmp_path / "nothing")}
    before = sorted(mle.path.iterdir())
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["report", *(places.get(word, word) for word in words)])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert re.search(field, said.err)
    assert said.err.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said.err
    assert sorted(mle.path.iterdir()) == before


def test_an_evaluation_that_cannot_be_read_is_named(text: Path) -> None:
    run = make_run(MLE, mle_smoke, text, mode="whitespace")
    (run.path / "evaluation.json").write_text("[]")
    assert_refused("evaluation", report_data, [run.path], texts=1, rollouts=1)
