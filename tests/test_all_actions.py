"""REINFORCE beside the gradient over all actions: what a row says of some curves, and that both point one way."""

from pathlib import Path

import pytest
import torch

from benchmarks import all_actions, results


def curve(*points: tuple[float, float]) -> list[dict[str, float]]:
    return [
        {"steps": 5 * number, "seconds": seconds, "fit": fit, "cover": 1 - fit}
        for number, (seconds, fit) in enumerate(points)
    ]


def test_steps_and_seconds_to_a_target_are_those_of_the_first_look_below_it_over_the_seeds_that_reach_it() -> None:
    curves = [
        curve((0, 1.0), (2, 0.4), (4, 0.6)),
        curve((0, 1.0), (3, 0.7), (6, 0.3)),
        curve((0, 1.0), (1, 0.9), (2, 0.8)),
    ]
    found = all_actions.summary(curves, target=0.5, given=[2.5, 9.0, 0.5])
    assert (found["seconds to target"], found["reached"]) == ("4.00 (2.00 to 6.00)", "2 of 3")
    assert found["steps to target"] == "8 (5 to 10)"  # the mean is 7.5
    assert found["seconds"] == pytest.approx((4 + 6 + 2) / 3)
    assert found["fit"] == pytest.approx((0.6 + 0.3 + 0.8) / 3)
    assert found["fit of equal time"] == pytest.approx((0.4 + 0.3 + 1.0) / 3)
    assert all_actions.summary(curves, target=0.1, given=[1, 1, 1])["seconds to target"] is None


@pytest.mark.slow
def test_both_gradients_have_one_expectation_and_that_over_all_actions_less_noise() -> None:
    options = all_actions.Options(vocab_size=6, max_length=3, rows=64, epochs=1)
    first = all_actions.begun(options, 0)
    agents = {
        name: all_actions.taken_over(options, first, learnt=False, all_actions=every)
        for every, name in all_actions.ARMS.items()
    }
    found = {name: torch.stack([all_actions._gradient(one, at) for at in range(60)]) for name, one in agents.items()}
    plain_MP, all_MP = found["REINFORCE"], found["all actions"]
    assert all_MP.var(0).sum() < 0.5 * plain_MP.var(0).sum()
    off_P = plain_MP.mean(0) - all_MP.mean(0)
    noise = (
        plain_MP.var(0) + all_MP.var(0)
    ).sum() / 60  # what the squared distance of two such means is expected to be
    assert off_P.square().sum() < 3 * noise
    assert all_MP.mean(0).square().sum() > 10 * noise


@pytest.mark.slow
@pytest.mark.moves_global_rng  # reading the words does
def test_the_command_keeps_a_table_of_noise_and_one_of_learning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    sizes = "--vocab-size 6 --max-length 3 --rows 8 --epochs 1 --d-epochs 1 --batches 3 --signal-batches 3"
    sizes += " --gammas 0.23 --rates 0.01 --steps 2 --every 1 --seeds 0 1"
    all_actions.main(sizes.split())
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["all_actions.json", "all_actions_noise.json"]
    assert capsys.readouterr().out.count("| all actions |") == 3
