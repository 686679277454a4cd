"""Goals: how they are summed, what the Manager and the Worker are paid, and that a goal is a direction."""

import math

import pytest
import torch
from torch import Tensor

from textgan_env.ops.sampling import derived_generator, seeded
from textgan_env.policies.manager_worker import (
    Manager,
    Worker,
    block_cosines,
    block_reward,
    block_sum,
    intrinsic_reward,
    manager_cosines,
    outer_product,
    sliding_sum,
)

each_c = pytest.mark.parametrize("steps", [1, 3, 4, 7])
B, T, F = 2, 7, 5


def counted(rows: int = 1) -> Tensor:
    """Goals that are powers of ten, so that a sum says which are in it; what stands before the first is 0.5."""
    return (10.0 ** torch.arange(T, dtype=torch.float64))[None, :, None].expand(rows, T, 1)


BEFORE = torch.tensor([0.5], dtype=torch.float64)


def test_the_sliding_sum_holds_the_last_c_goals_and_not_the_present_one() -> None:
    assert sliding_sum(counted(), BEFORE, 1)[0, :, 0].tolist() == [0.5, 1, 10, 100, 1e3, 1e4, 1e5]
    assert sliding_sum(counted(), BEFORE, 3)[0, :, 0].tolist() == [1.5, 2, 11.5, 111, 1110, 11100, 111000]
    assert sliding_sum(counted(), BEFORE, 4)[0, :, 0].tolist() == [2, 2.5, 12, 111.5, 1111, 11110, 111100]
    assert sliding_sum(counted(2), BEFORE, 7)[1, :, 0].tolist() == [3.5, 4, 13.5, 113, 1112.5, 11112, 111111.5]


def test_the_block_sum_holds_a_block_of_goals_for_the_next_block() -> None:
    assert block_sum(counted(), BEFORE, 1)[0, :, 0].tolist() == [0.5, 1, 10, 100, 1e3, 1e4, 1e5]
    assert block_sum(counted(), BEFORE, 3)[0, :, 0].tolist() == [0.5, 0.5, 0.5, 111, 111, 111, 111000]
    assert block_sum(counted(), BEFORE, 4)[0, :, 0].tolist() == [0.5, 0.5, 0.5, 0.5, 1111, 1111, 1111]
    assert block_sum(counted(2), BEFORE, 7)[1, :, 0].tolist() == [0.5] * 7


def test_the_published_code_scores_under_blocks_that_come_one_position_late() -> None:
    assert block_sum(counted(), BEFORE, 3, late=1)[0, :, 0].tolist() == [0.5, 0.5, 0.5, 1110, 1110, 1110, 1110000]
    assert block_sum(counted(), BEFORE, 7, late=1)[0, :, 0].tolist() == [0.5] * 7


def cosine(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum() / (one.norm() * other.norm()))


def random_case() -> tuple[Tensor, Tensor]:
    generator = derived_generator(1)
    features_BSF = torch.randn(B, T + 1, F, generator=generator, dtype=torch.float64)
    return features_BSF, torch.randn(B, T, F, generator=generator, dtype=torch.float64)


@each_c
def test_the_managers_cosines_are_of_the_move_after_each_goal(steps: int) -> None:
    features_BSF, goals_BTF = random_case()
    found = manager_cosines(features_BSF, goals_BTF, steps)
    assert found.shape == (B, T - steps + 1)
    for row in range(B):
        for t in range(T - steps + 1):
            expected = cosine(features_BSF[row, t + steps] - features_BSF[row, t], goals_BTF[row, t])
            assert float(found[row, t]) == pytest.approx(expected, abs=1e-9)


@each_c
def test_the_workers_reward_is_the_mean_over_the_goals_that_are_there(steps: int) -> None:
    features_BSF, goals_BTF = random_case()
    found = intrinsic_reward(features_BSF, goals_BTF, steps)
    for row in range(B):
        for t in range(1, T + 1):
            parts = [
                cosine(features_BSF[row, t] - features_BSF[row, t - i], goals_BTF[row, t - i])
                for i in range(1, min(steps, t) + 1)
            ]
            assert float(found[row, t - 1]) == pytest.approx(sum(parts) / len(parts), abs=1e-9)


@each_c
def test_the_published_codes_cosines_go_block_by_block(steps: int) -> None:
    features_BSF, goals_BTF = random_case()
    sums_BTF = block_sum(goals_BTF, torch.ones(F, dtype=torch.float64), steps)
    manager, worker = block_cosines(features_BSF, sums_BTF, steps), block_reward(features_BSF, sums_BTF, steps)
    assert manager.shape == (B, T // steps)
    for row in range(B):
        for j in range(T):
            start = j // steps * steps
            summed = goals_BTF[row, start - steps : start].sum(0) if start else torch.ones(F, dtype=torch.float64)
            moved = features_BSF[row, j + 1] - features_BSF[row, start]
            assert float(worker[row, j]) == pytest.approx(cosine(moved, summed), abs=1e-9)
            if j + 1 == start + steps:
                assert float(manager[row, j // steps]) == pytest.approx(cosine(moved, summed), abs=1e-9)


def test_a_text_that_did_not_move_pays_nothing() -> None:
    features_BSF, goals_BTF = random_case()
    assert intrinsic_reward(torch.zeros_like(features_BSF), goals_BTF, 3).count_nonzero() == 0


def test_a_goal_is_a_unit_vector_and_gives_features_no_gradient() -> None:
    with seeded(0):
        manager = Manager(F, 3, 1.0)
    features_BTF = random_case()[0][:, 1:].float().requires_grad_(True)
    goals_BTF, _ = manager(features_BTF, manager.begin(B))
    torch.testing.assert_close(goals_BTF.norm(dim=2), torch.ones(B, T))
    goals_BTF[..., 0].sum().backward()
    assert features_BTF.grad is None
    assert manager.output.weight.grad is not None


def test_goals_and_hidden_states_meet_in_all_products() -> None:
    met = outer_product(torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0, 7.0]]))
    assert met.tolist() == [[10, 15, 5, 14, 21, 7]]


def test_weights_begin_as_published() -> None:
    with seeded(0):
        worker = Worker(
            50, 60, embed_size=20, hidden_size=20, goal_size=16, init_scale=0.1, dropout=0.0
        )  # fmt: skip
    for name, parameter in worker.named_parameters():
        if name == "lstm.bias_hh_l0":
            assert parameter.count_nonzero() == 0
            assert not parameter.requires_grad
        else:
            spread = 4 * 0.1 / math.sqrt(2 * parameter.numel())
            assert float(parameter.detach().std()) == pytest.approx(0.1, abs=spread)
