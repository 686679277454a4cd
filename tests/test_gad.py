"""The test of GAD's claim: what its table says of a cell, what its arms leave as it is, and that it can be killed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gad, gad_arms, results
from conftest import mistake_of
from textgan_env.evaluation import nll
from textgan_env.training.schedule import Steps

LAW = gad_arms.tiny(gad_arms.Law())
Curve = list[dict[str, float]]


def at_one_of(curve: Curve) -> dict[str, float]:
    """The point of temperature 1."""
    return dict(next(at for at in curve if at["temperature"] == 1.0))


def line(*points: tuple[float, float]) -> Curve:
    return [{"temperature": 1.0, "cover": cover, "fit": fit} for cover, fit in points]


def cell_of(law: str, seed: int, arms: dict[str, Curve]) -> dict[str, Any]:
    """A cell with these curves; all arms that are not given have that of the warm-up."""
    worth = {"auc": 0.6 + seed / 10, "bound": 0.02, "correlation": 0.2}
    return {
        "law": law, "seed": seed,
        "curves": dict.fromkeys(gad.ARMS, line((0.50, 0.80), (0.54, 0.70), (0.70, 0.60))) | arms,
        "worths": dict.fromkeys(("warm-up", "GAD", "GAD, random"), worth), "seconds": {"GAD": 2.0 + seed},
    }  # fmt: skip


def weights_of(law: gad_arms.Law) -> dict[str, torch.Tensor]:
    """Of a student that is the teacher."""
    return gad_arms.make_task(law, 0).oracle.state_dict()


@pytest.fixture(scope="module")
def start() -> dict[str, torch.Tensor]:
    return gad_arms.warm_up(LAW, {"dropout": 0.0, "weight_decay": 0.1, "policy": "lstm"}, 1)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


# ----------------------------------------------------------------------------------------------------
# The table
def test_a_row_compares_with_the_warm_up_and_with_the_best_likelihood_each_at_its_own_cover() -> None:
    # The best likelihood covers .45: at most .50 counts for it, where it has .70 and the warm-up .80.
    better = {gad.BEST: line((0.45, 0.75), (0.50, 0.70)), "GAD": line((0.50, 0.78))}
    rows = {row["arm"]: row for row in gad.rows_of([cell_of("a", 1, better)])}
    start_at_most = 0.70 - 0.1 / 16  # at the warm-up's limit of .55
    assert list(rows) == list(gad.ARMS)
    assert rows["GAD"]["gap to warm-up"] == f"{start_at_most - 0.78:.3f}"
    assert rows["GAD"]["gap to SeqKD, best valid"] == f"{0.70 - 0.78:.3f}"
    assert rows[gad.BEST]["gap to warm-up"] == f"{start_at_most - 0.70:.3f}"
    assert (rows[gad.BEST]["gap to SeqKD, best valid"], rows["warm-up"]["gap to warm-up"]) == (None, None)
    assert (rows["GAD"]["cover gain"], rows[gad.BEST]["cover gain"]) == ("-0.050", None)
    assert (rows["GAD"]["cover"], rows["GAD"]["fit"], rows["GAD"]["seconds"]) == (0.50, 0.78, "3.0")
    # The random control pays without a discriminator: what one says there is not shown.
    shown = [rows[arm]["AUC"] for arm in ("warm-up", "GAD", "GAD, random", "forward KL")]
    assert shown == [0.7, 0.7, None, None]


def test_the_rows_of_all_laws_are_means_over_laws_and_their_intervals_are_over_seeds_that_all_have() -> None:
    def fits(fit: float) -> dict[str, Curve]:
        return {"GAD": line((0.50, fit)), "warm-up": line((0.50, 0.80))}

    cells = [cell_of("a", seed, fits(0.70)) for seed in (1, 2, 3, 4)]
    cells += [cell_of("b", seed, fits(0.80 + seed / 100)) for seed in (1, 2, 3)]
    found = {(row["law"], row["arm"]): row for row in gad.rows_of(cells)}
    assert len(found) == 3 * len(gad.ARMS)
    assert [found[law, "GAD"]["seeds"] for law in ("a", "b", "all")] == [4, 3, 3]
    assert found["a", "GAD"]["gap to warm-up"] == "0.100 [0.100, 0.100]"
    # Seeds' means of .10 and -.01, -.02, -.03: .045, .040, .035; Student's t, 4.302653 * .005 / sqrt 3 = .0124.
    assert found["all", "GAD"]["gap to warm-up"] == "0.040 [0.028, 0.052]"
    assert found["all", "GAD"]["fit"] == pytest.approx((0.70 + 0.82) / 2)
    one_law = list(gad.rows_of(cells[:4]))
    assert {row["law"] for row in one_law} == {"a"}


def test_an_arm_that_never_covers_so_well_has_no_gap_and_is_drawn_all_the_same(tmp_path: Path) -> None:
    cells = [cell_of(law, seed, {"GAD": line((0.9, 0.1), (1.2, 0.05))}) for law in "ab" for seed in (1, 2)]
    rows = {(row["law"], row["arm"]): row for row in gad.rows_of(cells)}
    assert rows["a", "GAD"]["gap to warm-up"] is None is rows["all", "GAD"]["gap to warm-up"]
    gad.draw(cells, tmp_path / "gad.png")
    assert (tmp_path / "gad.png").stat().st_size > 1000


# ----------------------------------------------------------------------------------------------------
# The arms
def test_equal_time_is_whole_epochs_of_each_training_and_never_none() -> None:
    seconds = {"GAD": 0.5, "SeqKD": 0.2, "forward": 0.8, "reverse": 40.0}
    assert gad_arms.epochs_of(seconds, 10) == {"SeqKD": 25, "forward": 6, "reverse": 1}


def test_a_student_that_is_the_teacher_has_no_cover_and_no_fit_to_win_and_its_teaching_leaves_it_so() -> None:
    law = replace(LAW, student=LAW.teacher)
    for policy in (
        gad_arms.student(law, weights_of(law)),
        gad_arms.distilled(law, weights_of(law), "forward", 2, seed=1),
        gad_arms.distilled(law, weights_of(law), "reverse", 2, seed=1),
    ):
        found = at_one_of(gad_arms.measured(law, policy, seed=1))
        assert (found["cover"], found["fit"]) == pytest.approx((0, 0), abs=1e-3)


def test_teaching_brings_a_student_of_the_teachers_size_nearer_both_ways(
    start: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gad_arms, "DISTILL_RATES", dict.fromkeys(gad_arms.DISTILL_RATES, 2e-2))
    before = at_one_of(gad_arms.measured(LAW, gad_arms.student(LAW, start), seed=1))
    for divergence, measure in (("forward", "cover"), ("reverse", "fit")):
        taught = at_one_of(gad_arms.measured(LAW, gad_arms.distilled(LAW, start, divergence, 60, seed=1), seed=1))
        assert taught[measure] < 0.8 * before[measure], divergence


def test_more_likelihood_ends_with_its_best_weights_the_warm_up_among_them(start: dict[str, torch.Tensor]) -> None:
    recipe, task = {"dropout": 0.0, "weight_decay": 0.0, "policy": "lstm"}, gad_arms.make_task(LAW, 1)
    valid_BT = task.split("valid").tokens_BT

    def nll_valid(weights: dict[str, torch.Tensor]) -> float:
        return nll(gad_arms.student(LAW, weights), valid_BT, task.scored(valid_BT))[0]

    found = gad_arms.gone_on(LAW, start, recipe, 1e-2, 20, seed=1)
    assert found["nll_valid"] == pytest.approx(nll_valid(found["best"]))
    assert found["nll_valid"] <= min(nll_valid(start), nll_valid(found["last"])) + 1e-6
    assert not same(found["last"], start)
    far = gad_arms.gone_on(LAW, start, recipe, 10.0, 2, seed=1)  # a rate at which everything is worse
    assert same(far["best"], start)


def test_the_rate_of_more_likelihood_falls_to_zero_over_all_epochs() -> None:
    seen = []

    def batch(step: Any) -> dict[str, float]:
        seen.append(step.done)
        return {}

    for epoch in range(3):
        gad_arms.run_epoch(Steps(batch, batches=2), 1, epoch)
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_fixed_discriminator_and_that_of_random_rewards_stay_as_they_were(start: dict[str, torch.Tensor]) -> None:
    warm = gad_arms.warm_discriminator(LAW, start, 1)
    for arm, changes in gad_arms.ADVERSARIAL.items():
        policy, discriminator, seconds = gad_arms.adversarial(LAW, start, warm, {**gad_arms.GRID[3], **changes}, 1)
        learns = arm in ("GAD", "GAD, published KL", "GAD, shuffled")
        assert same(dict(discriminator.state_dict()), warm) != learns, arm  # type: ignore[attr-defined]
        assert not same(policy.state_dict(), start), arm
        assert seconds > 0


def test_the_adversarial_stage_begins_as_the_warm_up_and_measures_its_kl_from_there(
    start: dict[str, torch.Tensor],
) -> None:
    agent = gad_arms.adversary(LAW, start, gad_arms.GRID[-1], 1)
    assert same(agent.policy.state_dict(), start)
    assert same(agent.reference.state_dict(), start)
    assert (agent.config.kl_coef, agent.config.std, agent.config.group_size) == (1.0, False, 8)
    gad_arms.run_round(agent, 0, rate=0.0)
    assert same(agent.policy.state_dict(), start)  # the rate is the round's
    assert same(agent.reference.state_dict(), start)


# ----------------------------------------------------------------------------------------------------
# The command
@pytest.mark.moves_global_rng  # reading the words does
def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--out", str(tmp_path)]
    said = mistake_of(gad.main, ["--seeds", "0", "1", *words], capsys)
    assert said == "error: --seeds must be some, without 0: that was tuned on\n"
    assert "unknown law 'none'" in mistake_of(gad.main, ["--laws", "none", *words], capsys)
    said = mistake_of(gad.main, ["--finished", *words], capsys)
    assert said == f"error: no finished cell in '{tmp_path}'\n"
    said = mistake_of(gad.main, ["--small", *words], capsys)
    assert said == f"error: '{tmp_path}' holds a test of other sizes: give another folder with --out\n"


@pytest.mark.slow
@pytest.mark.moves_global_rng
@pytest.mark.parametrize("policy", ["lstm", "transformer"])
def test_a_killed_test_goes_on_where_it_was_and_ends_with_the_same_numbers(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "IMAGES", tmp_path)
    words = ["--small", "--laws", "V=50 T=10", "--seeds", "1", "--policy", policy, "--out"]
    gad.main([*words, str(tmp_path / "whole")])
    shutil.copytree(tmp_path / "whole", tmp_path / "killed", ignore=lambda *_: ["cell-1-v=50-t=10.json"])
    # How many epochs take as long as GAD is measured, so it is another number each time: that part is kept.
    for path in (tmp_path / "killed").iterdir():
        if path.name != "pace-v=50-t=10.json":
            path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(gad_arms, "distilled", interrupt)
        with pytest.raises(SystemExit):
            gad.main([*words, str(tmp_path / "killed")])
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").iterdir()}
    gad.main([*words, str(tmp_path / "killed")])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    whole, again = (json.loads((tmp_path / of / "cell-1-v=50-t=10.json").read_text()) for of in ("whole", "killed"))
    assert whole.pop("seconds").keys() == again.pop("seconds").keys()
    assert whole == again
    assert list(whole["curves"]) == list(gad.ARMS)
    for maker in ("searched", "warm_up", "pace", "adversarial", "gone_on"):
        monkeypatch.setattr(gad_arms, maker, interrupt)
    capsys.readouterr()
    gad.main([*words[:-1], "--finished", "--out", str(tmp_path / "killed")])
    assert capsys.readouterr().out.count("| V=50 T=10 | ") == len(gad.ARMS)
    assert (tmp_path / "gad.png").exists()


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt
