"""Bound against gain: what is said of a logit's shape, and that a killed command goes on where it was."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import bound, bound_arms, results
from conftest import mistake_of

ROW: dict[str, Any] = {
    "law": "a", "policy": "good", "discriminator": "pair, 50 steps", "AUC": 0.6, "bound": 0.02, "gain": 0.01,
    "scale": 2.0, "scaled": 0.018, "any use": 0.024, "share": 0.5, "correlation": 0.2,
    "few": 0.013, "its spread": 0.004,
}  # fmt: skip


def gaussian(mean: float, deviation: float) -> Tensor:
    """The middles of 40,000 equally probable parts of a Gaussian, float64; every second one is such a Gaussian, too."""
    parts_B = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000
    normal_B: Tensor = torch.special.ndtri(parts_B)
    return mean + deviation * normal_B


def test_the_best_use_of_a_logit_wins_the_divergence_of_its_two_laws_whatever_its_scale() -> None:
    # A quarter of the one and a half of the other are 0, in each half of the texts.
    real_B = torch.tensor([0.0, 1.0, 1.0, 1.0]).double().repeat_interleave(2).repeat(4_000)
    fake_B = torch.tensor([0.0, 1.0]).double().repeat_interleave(2).repeat(8_000)
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    for logits in ((real_B, fake_B), (-50 * real_B, -50 * fake_B)):  # turned round, and far too sure
        assert bound_arms.any_use(*logits) == pytest.approx(expected, abs=1e-3)


def test_the_best_use_of_a_gaussian_logit_wins_the_bound_and_that_of_one_that_knows_nothing_wins_nothing() -> None:
    real_B, fake_B = gaussian(0.32, 0.8), gaussian(-0.32, 0.8)
    assert bound_arms.any_use(real_B, fake_B) == pytest.approx(0.8**2 / 2, rel=0.03)
    assert bound_arms.any_use(fake_B, fake_B) == pytest.approx(0.0, abs=1e-3)


def test_a_shape_has_spreads_of_both_sides_and_the_skew_of_the_policys_texts() -> None:
    fake_B = torch.tensor([0.0, 0.0, 0.0, 4.0]).double()  # of mean 1: deviations -1, -1, -1 and 3
    found = bound_arms.shape(torch.tensor([0.0, 2.0]).double().repeat(2), fake_B, tokens=2.0)
    assert found["skew"] == pytest.approx((-3 + 27) / 4 / (12 / 4) ** 1.5)
    assert (found["spread_real"], found["spread_fake"]) == pytest.approx((math.sqrt(4 / 3), 2.0))


def test_discriminators_are_summed_up_without_quotients_by_a_bound_that_is_as_good_as_none() -> None:
    rows = [ROW, ROW | {"policy": "narrow", "bound": 0.04, "gain": 0.04}, ROW | {"policy": "bad", "bound": 0.0005}]
    (found,) = bound.by_discriminator(rows)
    assert (found["pairs"], found["bound above .001"]) == (3, 2)
    assert found["bound"] == "0.02 (0.0005 to 0.04)"
    assert found["gain / bound"] == "0.75 (0.5 to 1)"
    assert found["any use / bound"] == "0.9 (0.6 to 1.2)"
    (none,) = bound.by_discriminator(rows[2:])
    assert none["gain / bound"] is None


def test_the_error_of_few_texts_has_their_spread_and_how_far_their_mean_is_off() -> None:
    assert bound._off(ROW) == pytest.approx(0.005)


@pytest.mark.moves_global_rng  # reading the words does
def test_what_cannot_be_measured_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mistake_of(bound.main, ["--laws", "mine"], capsys).startswith("error: unknown law 'mine'")
    said = mistake_of(bound.main, ["--repeats", "1", "--out", str(tmp_path)], capsys)
    assert said == "error: --few and --repeats must be at least 2\n"
    words = ["--laws", "V=50 T=10", "--finished", "--out", str(tmp_path)]
    assert mistake_of(bound.main, words, capsys) == f"error: no finished pair in '{tmp_path}'\n"
    said = mistake_of(bound.main, [*words, "--few", "9"], capsys)
    assert said == f"error: '{tmp_path}' holds pairs of other settings: give another folder with --out\n"


@pytest.mark.slow
@pytest.mark.moves_global_rng
def test_killed_measurements_go_on_where_they_were_and_end_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    law = bound_arms.LAWS["V=50 T=10"]
    fits = {name: law.fits[name] for name in ("pair, 50 steps", "log ratio of a good policy", "the law")}
    small = replace(law, fits=fits, policies={name: law.policies[name] for name in ("good", "overfitted")})
    monkeypatch.setattr(bound_arms, "LAWS", {"mine": small})
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "IMAGES", tmp_path)
    words = ["--small", "--few", "20", "--repeats", "2", "--out"]
    bound.main([*words, str(tmp_path / "whole")])
    whole = json.loads((tmp_path / "bound.json").read_text())["rows"]
    with monkeypatch.context() as patch:
        patch.setattr(bound_arms.Measured, "fitted", interrupted_at(bound_arms.Measured.fitted, 4))
        with pytest.raises(SystemExit):
            bound.main([*words, str(tmp_path / "killed")])
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").iterdir()}
    assert sum(path.name.startswith("pair-") for path in kept) == 4
    bound.main([*words, str(tmp_path / "killed")])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert json.loads((tmp_path / "bound.json").read_text())["rows"] == whole
    assert [(row["policy"], row["discriminator"]) for row in whole] == [
        (policy, fit) for policy in ("good", "overfitted") for fit in fits
    ]
    assert (tmp_path / "bound.png").stat().st_size > 1000
    law_rows = [row for row in whole if row["discriminator"] == "the law"]
    assert all(row["correlation"] == pytest.approx(1.0, abs=1e-3) for row in law_rows)


def interrupted_at(make: Any, times: int) -> Any:
    """The same, but the call after so many is a Ctrl-C."""
    calls: list[Any] = []

    def once_too_often(*given: Any) -> Any:
        calls.append(given)
        if len(calls) > times:
            raise KeyboardInterrupt
        return make(*given)

    return once_too_often
