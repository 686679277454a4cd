"""What a budget of calls finds: measures by hand, arms that ask alike, and that a killed command goes on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import budget, goal_arms, results
from conftest import assert_refused, mistake_of
from textgan_env import load
from textgan_env.ops.top import area, of_different, top_means
from textgan_env.tasks import make_task


def test_the_top_is_a_mean_in_which_places_without_a_value_are_0() -> None:
    assert top_means([0.2, 0.6, 0.4, 0.1, 0.8], 2).tolist() == pytest.approx([0.1, 0.4, 0.5, 0.5, 0.7])
    assert top_means([0.2, 0.6, 0.4], 1).tolist() == [0.2, 0.6, 0.6]
    assert top_means([], 3).tolist() == []
    assert_refused("count must be at least 1", lambda: top_means([1.0], 0))


def test_tops_are_those_of_a_plain_sort() -> None:
    values = np.random.default_rng(0).random(200)
    plain = [sum(sorted(values[: calls + 1])[-10:]) / 10 for calls in range(200)]
    assert top_means(values, 10) == pytest.approx(plain)


def test_what_was_found_before_and_what_is_nothing_count_0() -> None:
    assert of_different([0.5, 0.7, 0.5, 0.9, 0.1], ["a", "b", "a", None, "c"]).tolist() == [0.5, 0.7, 0.0, 0.0, 0.1]
    assert_refused("a value for each of 2 names", lambda: of_different([0.5], ["a", "b"]))


def test_the_area_is_a_share_of_the_budget_and_calls_that_were_not_made_have_the_last_height() -> None:
    assert area([0.0, 0.5, 1.0, 1.0], 4) == pytest.approx(0.625)
    assert area([0.0, 0.5], 5) == pytest.approx((0.0 + 0.5 + 3 * 0.5) / 5)
    assert area([1.0] * 3, 3) == 1.0
    assert_refused("expected 1 to 2 calls, found 3", lambda: area([1.0] * 3, 2))
    assert_refused("expected 1 to 2 calls, found 0", lambda: area([], 2))


def test_one_molecule_that_is_written_in_two_ways_is_two_calls_and_counts_once() -> None:
    pytest.importorskip("rdkit")
    texts, share_C = ["CCO", "OCC", "C1CC", "c1ccccc1C"], np.array([0.5, 0.5, 0.0, 0.7])
    found = budget.measure(texts, share_C, make_task("nci"), 10)
    assert (found["calls"], found["different"], found["valid"]) == (4, 2, 0.75)
    assert (found["top 1"], found["top 10"]) == (0.7, pytest.approx(0.12))
    assert found["AUC top 1"] == pytest.approx((0.5 + 0.5 + 0.5 + 0.7 + 6 * 0.7) / 10)
    assert found["curve"] == pytest.approx({"1": 0.05, "2": 0.05, "3": 0.05, "4": 0.12})
    assert found["best"][:2] == ["c1ccccc1C", "CCO"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*budget.BUDGET_ARMS])
def test_an_arm_asks_about_different_texts_within_its_budget(name: str, grammar_run: Path, tmp_path: Path) -> None:
    run = load(grammar_run)
    scale = goal_arms.Scale("length:5", 9, 2, 8, 1e-3, 1.0, 0, 0, 0)
    found = budget.Parts(tmp_path, scale, run, 60)._answers(budget.BUDGET_ARMS[name], 3)
    # What is left is not enough for the next batch: of best of 4 that is 32 texts.
    assert 60 - 32 < len(found) <= 60
    assert found == {text: float(len(text.split()) in range(1, 6)) for text in found}
    assert found == budget.Parts(tmp_path, scale, run, 60)._answers(budget.BUDGET_ARMS[name], 3)


@pytest.mark.slow
@pytest.mark.moves_global_rng  # reading the words does
def test_a_killed_command_goes_on_and_ends_in_the_same_numbers(
    grammar_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "IMAGES", tmp_path / "images")
    words = ["--pretrained", str(grammar_run), "--goals", "length:5", "arithmetic", "--small", "--seeds", "1", "2"]
    words += ["--only", budget.SCREENING, "REINVENT"]
    budget.main([*words, "--out", str(tmp_path / "whole"), "--name", "whole"])
    calls, answers = iter(range(99)), budget.Parts._answers

    def once_too_often(*given: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return answers(*given)

    with monkeypatch.context() as patch:
        patch.setattr(budget.Parts, "_answers", once_too_often)
        with pytest.raises(SystemExit):
            budget.main([*words, "--out", str(tmp_path / "cut"), "--name", "cut"])
    budget.main([*words, "--out", str(tmp_path / "cut"), "--name", "cut"])
    whole, cut = (json.loads((tmp_path / f"results/{name}.json").read_text()) for name in ("whole", "cut"))
    for found in (whole, cut):
        for row in found["rows"]:
            row.pop("CPU s")
    assert whole["rows"] == cut["rows"]
    assert [(row["goal"], row["arm"], row["seeds"]) for row in whole["rows"]] == [
        (goal, arm, 2) for goal in ("length:5", "arithmetic") for arm in (budget.SCREENING, "REINVENT")
    ]
    picture = tmp_path / "images/whole.png"
    first = picture.read_bytes()
    budget.draw_again(whole, picture)
    assert picture.read_bytes() == first
    other = ["--learning-rate", "0.5", "--out", str(tmp_path / "cut")]
    assert "holds arms of another scale" in mistake_of(budget.main, [*words, *other], capsys)
    assert "unknown arm" in mistake_of(budget.main, [*words, "nothing"], capsys)
