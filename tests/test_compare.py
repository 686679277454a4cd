"""Statistics of the suite, against values by hand."""

import math
from typing import Any

import numpy as np
import pytest

from benchmarks import compare
from conftest import assert_refused


def test_interquartile_mean_by_hand() -> None:
    assert compare.interquartile_mean([9, 1, 2, 3, 100]) == pytest.approx((2 + 3 + 9) / 3)  # one off each end
    assert compare.interquartile_mean([1, 2, 3]) == 2  # a quarter of three is less than one
    assert compare.interquartile_mean(np.arange(8.0)) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert math.isnan(compare.interquartile_mean([]))


def test_interval_of_two_numbers_is_known() -> None:
    # Two draws of two: (0,0), (0,1), (1,0), (1,1): the quantiles of their means are the ends.
    assert (compare.interval([[0.0, 1.0]]), compare.interval([[5.0, 5.0, 5.0]])) == ((0.0, 1.0), (5.0, 5.0))


def test_interval_draws_within_strata_only() -> None:
    # Across strata the mean of a resample could be anything from 0 to 10; within them it is always 5.
    assert compare.interval([[0.0] * 4, [10.0] * 4], lambda values: float(values.mean())) == (5.0, 5.0)


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        ends = compare.interval(
            [rng.normal(size=40)], lambda values: float(values.mean()), resamples=300, level=0.8, seed=trial
        )
        assert ends is not None
        hits += ends[0] <= 0 <= ends[1]
    assert 140 <= hits <= 178  # 160 expected, standard deviation 5.7; the bootstrap is a little narrow


def test_one_seed_has_no_interval() -> None:
    assert compare.interval([[1.0]]) is None


def test_probability_of_improvement_by_hand() -> None:
    # Pairs (1,2) (1,1) (3,2) (3,1): won, tied, lost, lost.
    assert compare.probability_of_improvement([1, 3], [2, 1]) == 1.5 / 4
    assert compare.probability_of_improvement([math.inf], [1.0]) == 0
    assert compare.probability_of_improvement([1.0], [math.inf]) == 1
    assert math.isnan(compare.probability_of_improvement([], [1.0]))


def test_best_fit_by_hand() -> None:
    curve = [(1.0, 3.0), (2.0, 1.0), (4.0, 2.0)]
    assert (compare.best_fit(curve, 0.9), compare.best_fit(curve, 1.0)) == (math.inf, 3.0)
    assert compare.best_fit(curve, 1.5) == 2.0  # half of the way from the first to the second
    assert (compare.best_fit(curve, 3.0), compare.best_fit([(1.0, 3.0)], 5.0)) == (1.0, 3.0)
    # A curve that turns: only the part below the limit counts.
    assert compare.best_fit([(3.0, 0.0), (1.0, 2.0), (3.0, 4.0)], 2.0) == 1.0


def result(arm: str, seed: int, points: list[tuple[float, float, float]], **more: Any) -> dict[str, Any]:
    """A job's result with a curve of (temperature, cover, fit)."""
    curve = [{"temperature": at, "cover": cover, "fit": fit} for at, cover, fit in points]
    values = {"cover": 1.0, "fit": 2.0, "nll_oracle": 9.0, "nll_valid": 7.0} | more.pop("values", {})
    return {
        "label": f"{arm}.toy.s{seed}", "group": "mle", "how": "somehow", "tries": 1, "command": f"make {arm} {seed}",
        "other_code": False, "seconds": {"training": 60.0, "all": 70.0}, "peak_memory_mb": 100.0,
        "config": {"arm": arm, "task": "toy", "seed": seed, "member": 0},
        "rows": [{"variant": "", "values": values, "missing": {}, "samples": ["a b"]}],
        "curve": curve, "learning_curve": [], **more,
    }  # fmt: skip


MLE = [result("mle", seed, [(1.2, 1.1, 3.0), (1.0, 1.0, 2.0), (0.5, 1.1, 1.0)]) for seed in (0, 1)]


def test_gap_is_what_the_baseline_has_more_at_no_worse_cover() -> None:
    # The limit is 1.05. The baseline comes to a fit of 1.5 there (half of the way), ours to 1.2, 1.4.
    ours = [result("seqgan-n4", seed, [(1.0, 1.04, fit), (0.5, 1.2, 0.0)]) for seed, fit in ((0, 1.2), (1, 1.4))]
    lines = {line.name: line for line in compare.lines_of([*MLE, *ours])}
    assert lines["mle"].primary == pytest.approx([1.5, 1.5])
    found, ends = lines["seqgan-n4"].gaps["mle"]
    # Between the two points the fit falls from 1.2 to 0 over .16 of cover; .01 of that is below the limit.
    expected = [1.5 - 1.2 * 15 / 16, 1.5 - 1.4 * 15 / 16]
    assert found == pytest.approx(sum(expected) / 2)
    assert ends == pytest.approx((min(expected), max(expected)))
    assert (lines["seqgan-n4"].improvement, lines["mle"].gaps) == (1, {})


def test_an_arm_that_never_covers_so_well_has_no_gap_and_no_improvement() -> None:
    ours = [result("seqgan-n4", seed, [(1.0, 3.0, 0.1)]) for seed in (0, 1)]
    line = compare.lines_of([*MLE, *ours])[1]
    assert line.primary == [math.inf, math.inf]
    assert (line.gaps, line.improvement) == ({}, 0)


def test_an_arm_that_covers_so_well_in_some_seeds_only_has_no_gap() -> None:
    ours = [result("seqgan-n4", seed, [(1.0, cover, 0.1)]) for seed, cover in ((0, 1.0), (1, 3.0))]
    line = compare.lines_of([*MLE, *ours])[1]
    assert (line.primary, line.gaps) == ([0.1, math.inf], {})


def test_the_second_baseline_is_chosen_by_the_valid_split() -> None:
    large = [result("mle-large", seed, [(1.0, 0.9, 1.0)], values={"nll_valid": 6.5}) for seed in (0, 1)]
    assert compare.best_of_any_size([*MLE, *large], "toy") == "mle-large"
    worse = [result("mle-large", seed, [(1.0, 0.9, 1.0)], values={"nll_valid": 7.5}) for seed in (0, 1)]
    assert compare.best_of_any_size([*MLE, *worse], "toy") == "mle"
    assert compare.lines_of([*MLE, *large])[0].gaps["mle-large"][0] == pytest.approx(1.0 - 1.5)


def test_members_of_an_ensemble_are_no_rows_and_other_code_is_marked() -> None:
    member = result("mle", 0, [])
    member |= {"label": "mle.1.toy.s0", "config": {**member["config"], "member": 1}}
    lines = compare.lines_of([{**MLE[0], "other_code": True}, MLE[1], member])
    assert [line.name for line in lines] == ["mle"]
    assert (lines[0].seeds, lines[0].marks) == (2, ["results of another version of the code"])


def test_results_that_stand_twice_or_nowhere_are_refused() -> None:
    assert_refused(r"mle\.toy\.s0", compare.lines_of, [MLE[0], MLE[0]])
    assert_refused("job", compare.lines_of, [])
