"""The map of regimes: what its table says of a cell, and that a killed command goes on where it was."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import regime_arms, regimes, results
from conftest import assert_refused, mistake_of
from textgan_env.policies import LSTMPolicy, RatioDiscriminator
from textgan_env.tasks import OracleTask


def line(*points: tuple[float, float]) -> list[dict[str, float]]:
    return [{"temperature": 1 - at / 10, "cover": cover, "fit": fit} for at, (cover, fit) in enumerate(points)]


def cell_of(seed: int, arms: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """A cell with these curves; all arms that are not given have that of the start."""
    start = line((0.50, 0.80), (0.54, 0.70), (0.70, 0.60))
    names = ("MLE", *(name for one in regimes.TAUGHT for name in (one, f"{one}, shuffled")), *regimes.DISTILLED)
    worth = {"auc": 0.7, "bound": 0.03, "gain": 0.01, "scaled_gain": 0.02, "effective_share": 0.5, "correlation": 0.2}
    return {
        "texts": 100, "student": 8, "seed": seed, "recipe": {"dropout": 0.2, "weight_decay": 0.1}, "epochs": 7,
        "curves": dict.fromkeys(names, start) | arms, "worths": dict.fromkeys(regimes.KNOWS, worth),
    }  # fmt: skip


def test_a_gap_is_at_no_worse_cover_and_a_cover_gain_at_temperature_one() -> None:
    # At most .55 of cover counts; the start has a fit of .70 - .10 * .01 / .16 there, the arm .60 at .52.
    cell = cell_of(0, {"same": line((0.47, 0.90), (0.52, 0.60), (0.60, 0.10))})
    assert regimes.gap(cell, "same") == pytest.approx((0.70 - 0.1 / 16) - (0.60 - 0.5 * 3 / 8))
    assert regimes.cover_gain(cell, "same") == pytest.approx(0.03)
    assert regimes.gap(cell, "law") == 0.0


def test_a_row_has_the_control_beside_the_arm_and_an_interval_from_three_seeds_on() -> None:
    better = {"same": line((0.50, 0.70), (0.54, 0.60), (0.70, 0.50))}
    for seeds, interval in ((2, False), (3, True)):
        rows = {row["arm"]: row for row in regimes.rows_of([cell_of(seed, better) for seed in range(seeds)])}
        others = [f"{name}, resampled" for name in regimes.KNOWS]
        assert list(rows) == ["same", "crossed", "more", "law", *others, *regimes.DISTILLED]
        assert rows["same"]["gap"] == "0.100" + " [0.100, 0.100]" * interval
        assert rows["same"]["gap, shuffled"] == "0.000" + " [0.000, 0.000]" * interval
        assert (rows["same"]["seeds"], rows["same"]["bound"], rows["same"]["start"]) == (seeds, 0.03, "0.500/0.800")


def test_an_arm_that_is_colder_than_its_start_is_read_where_it_is_warmed() -> None:
    warmed = [{"temperature": 1.25, "cover": 0.52, "fit": 0.5}, *line((0.60, 0.45), (0.80, 0.44))]
    cell = cell_of(0, {"law": warmed})
    assert regimes.gap(cell, "law") == pytest.approx((0.70 - 0.1 / 16) - (0.5 - 0.05 * 3 / 8))
    assert regimes.cover_gain(cell, "law") == pytest.approx(-0.10)


def test_texts_that_are_resampled_by_the_law_teach_cover_and_by_shuffled_scores_nothing() -> None:
    scale = regime_arms.Scale(6, 4, distill_steps=300, samples=400)
    task = regime_arms.make_task(scale, 500, 0)
    start = LSTMPolicy(6, start_token=0, embed_size=8, hidden_size=8, seed=1).eval()
    assert task.oracle is not None
    law = RatioDiscriminator(task.oracle, copy.deepcopy(start), task.max_length)
    covers = []
    for shuffled in (False, True):
        policy = regime_arms.resampled(scale, task, start, law, 0, shuffled=shuffled)
        covers.append(regime_arms.curve(scale, task, policy, 0)[regime_arms.TEMPERATURES.index(1.0)]["cover"])
    before = regime_arms.curve(scale, task, start, 0)[regime_arms.TEMPERATURES.index(1.0)]["cover"]
    assert covers[0] < before / 3
    assert covers[1] > before * 0.8


def test_a_crossed_discriminator_reads_every_text_beside_those_of_a_policy_that_has_not_learnt_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[list[list[int]]] = []

    def learns(scale: regime_arms.Scale, task: OracleTask, size: int, recipe: object, seed: int) -> dict[str, Tensor]:
        """Note the texts instead."""
        learnt.append(task.split("train").tokens_BT.tolist())
        return LSTMPolicy(6, start_token=0, embed_size=size, hidden_size=size, seed=len(learnt)).state_dict()

    monkeypatch.setattr(regime_arms, "best_likelihood", learns)
    monkeypatch.setattr(regime_arms, "search", lambda *args, **how: {"recipe": {}})
    scale = regime_arms.Scale(6, 4, samples=50)
    task, start = regime_arms.make_task(scale, 41, 0), LSTMPolicy(6, start_token=0, embed_size=3, hidden_size=3)
    sides = regimes._Parts(regimes.Options(out=tmp_path), scale).sides("crossed", task, start, 0, 41, 3)
    read = [side.split("train").tokens_BT.tolist() for side, _ in sides]
    for seed, (_, author) in zip((1, 2), sides, strict=True):
        learner = LSTMPolicy(6, start_token=0, embed_size=3, hidden_size=3, seed=seed)
        assert torch.equal(author.embedding.weight, learner.embedding.weight)
    assert read[0] + read[1] == learnt[1] + learnt[0] == task.split("train").tokens_BT.tolist()
    assert (len(read[0]), len(learnt[0])) == (20, 21)


def test_an_arm_that_covers_worse_at_every_temperature_has_no_gap_and_is_drawn_all_the_same(tmp_path: Path) -> None:
    cell = cell_of(0, {"law": line((0.60, 0.5), (0.9, 0.4))})
    rows, pairs = [*regimes.rows_of([cell])], [regimes._pair(cell, knows) for knows in regimes.KNOWS]
    assert [row["gap"] for row in rows] == ["0.000", "0.000", "0.000", None, *["0.000"] * 6]
    assert [pair[f"gap of {pair['knows']}"] for pair in pairs] == [0.0, 0.0, 0.0, None]
    assert [pair[f"gap of {pair['knows']}, resampled"] for pair in pairs] == [0.0, 0.0, 0.0, 0.0]
    regimes.draw(rows, pairs, tmp_path / "map.png", "")
    assert (tmp_path / "map.png").stat().st_size > 1000


@pytest.mark.moves_global_rng  # reading the words does
def test_numbers_that_make_no_map_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = mistake_of(regimes.main, ["--texts", "0", "--out", str(tmp_path)], capsys)
    assert said == "error: numbers of texts, students and seeds must be above 0, and there must be some of each\n"
    (tmp_path / "scale.json").write_text("{}")
    said = mistake_of(regimes.main, ["--out", str(tmp_path)], capsys)
    assert said == f"error: '{tmp_path}' holds a map of other sizes: give another folder with --out\n"
    options = regimes.Options(out=tmp_path)
    assert_refused("no finished cell in", regimes.report, options, regime_arms.Scale())


@pytest.mark.slow
@pytest.mark.moves_global_rng
def test_a_killed_map_goes_on_where_it_was_and_ends_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "IMAGES", tmp_path)
    words = ["--small", "--texts", "40", "--students", "4", "--seeds", "0", "--out"]
    regimes.main([*words, str(tmp_path / "whole")])
    with monkeypatch.context() as patch:
        patch.setattr(regime_arms, "distilled", interrupt)
        with pytest.raises(SystemExit):
            regimes.main([*words, str(tmp_path / "killed")])
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").iterdir()}
    assert sorted(path.name.split("-")[0] for path in kept) == [
        "MLE", "crossed", "half", "half", "law", "mle", "mle", "more", "same", "scale.json", "search",
    ]  # fmt: skip
    regimes.main([*words, str(tmp_path / "killed")])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    whole, again = (json.loads((tmp_path / of / "cell-0-40-4.json").read_text()) for of in ("whole", "killed"))
    assert whole == again
    monkeypatch.setattr(regime_arms, "search", interrupt)
    capsys.readouterr()
    regimes.main([*words[:-1], "--finished", "--out", str(tmp_path / "killed")])
    assert capsys.readouterr().out.count("| 40 | 4 | 1 |") == 10
    assert (tmp_path / "regimes.png").exists()


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
