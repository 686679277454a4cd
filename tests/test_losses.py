"""Losses against hand calculations and against torch's own cross entropy."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from conftest import assert_refused
from textgan_env.ops import losses
from textgan_env.ops.losses import (
    baseline,
    effective_sample_size,
    linear_log_prob,
    masked_mean,
    masked_sum,
    nll_sum,
    normalised_weights,
    policy_gradient_sum,
)
from textgan_env.ops.sampling import derived_generator
from textgan_env.ops.tiles import Tile, tiled_sum
from textgan_env.policies import LSTMPolicy

TILE = losses.TILE.cpu

MASK_BT = torch.tensor([[True, True, False], [True, False, False]])


def test_masked_mean_counts_only_what_the_mask_shows() -> None:
    values_BT = torch.tensor([[1.0, 2.0, 100.0], [6.0, 100.0, 100.0]])
    assert masked_mean(values_BT, MASK_BT).item() == 3.0
    assert [float(part) for part in masked_sum(values_BT, MASK_BT)] == [9.0, 3.0]


def test_masked_mean_of_nothing_is_zero() -> None:
    assert masked_mean(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)).item() == 0.0


def test_nll_counts_tokens_not_texts() -> None:
    # Text 1 has two tokens of probability 1/2, text 2 one of probability 1/4: 1 + 1 + 2 bits for 3 tokens.
    logp_BT = torch.tensor([[0.5, 0.5, 1.0], [0.25, 1.0, 1.0]]).log()
    total, tokens = nll_sum(logp_BT, MASK_BT)
    assert float(total) == pytest.approx(4 * math.log(2))
    assert int(tokens) == 3


def test_policy_gradient_loss_is_the_mean_over_texts_of_credit_times_log_probability() -> None:
    logp_BT = torch.tensor([[-1.0, -2.0, -50.0], [-3.0, -50.0, -50.0]], requires_grad=True)
    credit_BT = torch.tensor([[0.5, 1.0, 9.0], [2.0, 9.0, 9.0]], requires_grad=True)
    total, texts = policy_gradient_sum(logp_BT, credit_BT, MASK_BT)
    loss = total / texts
    # ((0.5 * 1 + 1 * 2) + 2 * 3) / 2
    assert loss.item() == pytest.approx(4.25)
    loss.backward()
    # Half the credit (mean over two texts) with the sign turned, nothing after the end.
    assert logp_BT.grad is not None
    assert logp_BT.grad.tolist() == [[-0.25, -0.5, 0.0], [-1.0, 0.0, 0.0]]
    assert credit_BT.grad is None


def test_weights_are_ratios_over_their_mean_whatever_is_added_to_the_logits() -> None:
    logits_B = torch.tensor([0.0, math.log(2), math.log(5)])
    expected_B = torch.tensor([3 / 8, 6 / 8, 15 / 8])
    for shift in (0.0, 88.0, -500.0, 1e4):
        torch.testing.assert_close(normalised_weights(logits_B + shift), expected_B, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(normalised_weights(logits_B), expected_B)
    assert normalised_weights(torch.tensor([100.0, -100.0])).tolist() == [2.0, 0.0]
    assert normalised_weights(torch.full((5,), 3.0)).tolist() == [1.0] * 5


def test_weights_are_normalised_in_each_group_by_itself() -> None:
    logits_B, groups_B = torch.tensor([0.0, 1000.0, math.log(3), 1000.0]), torch.tensor([0, 2, 0, 2])
    torch.testing.assert_close(normalised_weights(logits_B, groups_B), torch.tensor([0.5, 1.0, 1.5, 1.0]))


def test_weights_above_the_most_are_cut_and_divided_again() -> None:
    weights_B = normalised_weights(torch.tensor([0.0, 0.0, 0.0, 100.0]), most=2.0)  # 0, 0, 0, 4 before
    torch.testing.assert_close(weights_B, torch.tensor([0.0, 0.0, 0.0, 4.0]))
    logits_B = torch.tensor([1.0, 1.0, 2.0, 8.0]).log()  # over their mean: 1/3, 1/3, 2/3, 8/3
    expected_B = torch.tensor([1 / 3, 1 / 3, 2 / 3, 2.0]) / (10 / 12)
    torch.testing.assert_close(normalised_weights(logits_B, most=2.0), expected_B)
    assert_refused("most must be at least 1, found 0.5", normalised_weights, logits_B, most=0.5)


def test_the_effective_sample_size_counts_texts_of_equal_weight() -> None:
    assert effective_sample_size(torch.ones(7)) == pytest.approx(7)
    assert effective_sample_size(torch.tensor([3.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_sample_size(torch.tensor([1.0, 3.0])) == pytest.approx(16 / 10)


def test_baseline_is_taken_off_the_credit_and_gets_no_gradient() -> None:
    logp_BT = torch.tensor([[-1.0, -2.0, 0.0], [-3.0, 0.0, 0.0]], requires_grad=True)
    credit_BT = torch.tensor([[0.5, 1.0, 9.0], [2.0, 9.0, 9.0]])
    baseline_BT = torch.full((2, 3), 1.5, requires_grad=True)
    total, texts = policy_gradient_sum(logp_BT, credit_BT - baseline_BT, MASK_BT)
    loss = total / texts
    # ((-1 * 1 - 0.5 * 2) + 0.5 * 3) / 2
    assert loss.item() == pytest.approx(-0.25)
    loss.backward()
    assert logp_BT.grad is not None
    assert logp_BT.grad.tolist() == [[0.5, 0.25, 0.0], [-0.25, 0.0, 0.0]]
    assert baseline_BT.grad is None


def random_inputs(
    rows: int, dtype: torch.dtype, *, vocab_size: int = 7, units: int = 5
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = derived_generator(rows)
    hidden_RH, weight_VH, bias_V = (
        torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()
        for shape in ((rows, units), (vocab_size, units), (vocab_size,))
    )
    return hidden_RH, weight_VH, bias_V, torch.randint(vocab_size, (rows,), generator=generator)


@pytest.mark.parametrize("rows", [0, 1, TILE - 1, TILE, TILE + 1, 2 * TILE + 3])
@pytest.mark.parametrize("last_slope", [-1.0, 2.0], ids=["rows weigh alike", "rows weigh otherwise"])
@pytest.mark.parametrize("expect_alike", [True, False])
@pytest.mark.parametrize("units", [5, losses._NARROW + 1])
def test_linear_log_prob_equals_cross_entropy_forward_and_backward(
    rows: int, last_slope: float, expect_alike: bool, units: int
) -> None:
    hidden_RH, weight_VH, bias_V, tokens_R = random_inputs(rows, torch.float64, units=units)
    slope_R = torch.linspace(-1, last_slope, rows, dtype=torch.float64)
    inputs = (hidden_RH, weight_VH, bias_V)

    logp_R = linear_log_prob(*inputs, tokens_R, expect_alike=expect_alike)
    expected_R = -functional.cross_entropy(hidden_RH @ weight_VH.t() + bias_V, tokens_R, reduction="none")
    torch.testing.assert_close(logp_R, expected_R)
    found = torch.autograd.grad((logp_R * slope_R).sum(), inputs)
    torch.testing.assert_close(found, torch.autograd.grad((expected_R * slope_R).sum(), inputs))
    assert all(gradient.is_contiguous() for gradient in found)  # fused Adam reads them in the order of their memory


def test_gradients_of_linear_log_prob_can_be_asked_for_again_with_other_weights_of_the_rows() -> None:
    hidden_RH, weight_VH, bias_V, tokens_R = random_inputs(TILE + 3, torch.float64)
    inputs = (hidden_RH, weight_VH, bias_V)
    logp_R = linear_log_prob(*inputs, tokens_R, expect_alike=True)
    alike = torch.autograd.grad(logp_R.mean(), inputs, retain_graph=True)
    otherwise = torch.autograd.grad(logp_R[: TILE + 1].sum(), inputs, retain_graph=True)
    rest = torch.autograd.grad(logp_R[TILE + 1 :].sum(), inputs)
    for mean, first, second in zip(alike, otherwise, rest, strict=True):
        torch.testing.assert_close(mean * (TILE + 3), first + second)


def test_linear_log_prob_in_float32_is_as_exact_as_cross_entropy() -> None:
    hidden_RH, weight_VH, bias_V, tokens_R = random_inputs(TILE, torch.float32, vocab_size=5000)
    exact_R = -functional.cross_entropy(
        hidden_RH.double() @ weight_VH.t().double() + bias_V.double(), tokens_R, reduction="none"
    )
    torch.testing.assert_close(
        linear_log_prob(hidden_RH, weight_VH, bias_V, tokens_R).double(), exact_R, atol=5e-6, rtol=1e-6
    )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[slice]:
    """The tiles whose gradient has been made."""
    tiles: list[slice] = []
    add = losses._LinearGradients.add

    def counted(self: Any, tile: slice, *rest: Any) -> None:
        tiles.append(tile)
        add(self, tile, *rest)

    monkeypatch.setattr(losses._LinearGradients, "add", counted)
    return tiles


def test_the_gradient_is_made_once_if_the_loss_weighs_rows_as_expected(made: list[slice]) -> None:
    hidden_RH, weight_VH, bias_V, tokens_R = random_inputs(3, torch.float64)
    inputs = (hidden_RH, weight_VH, bias_V)
    for expect_alike, weights, times in ((True, 1, 1), (True, torch.arange(3), 2), (False, 1, 1)):
        made.clear()
        (linear_log_prob(*inputs, tokens_R, expect_alike=expect_alike) * weights).sum().backward()
        assert len(made) == times


@pytest.mark.parametrize("learns_by", ["maximum likelihood", "policy gradient"])
def test_both_ways_of_learning_make_their_gradient_once(learns_by: str, made: list[slice]) -> None:
    policy = LSTMPolicy(7, start_token=0, embed_size=4, hidden_size=4)
    tokens_BT, mask_BT = torch.tensor([[1, 2, 7], [3, 7, 7]]), MASK_BT
    if learns_by == "maximum likelihood":
        nll_sum(policy.train().log_prob(tokens_BT, mask_BT), mask_BT)[0].backward()
    else:
        credit_BT = torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]])
        policy_gradient_sum(policy.eval().log_prob(tokens_BT, mask_BT), credit_BT, mask_BT)[0].backward()
    assert len(made) == 1


def test_second_derivatives_of_linear_log_prob_are_refused_rather_than_wrong() -> None:
    hidden_RH, weight_VH, bias_V, tokens_R = random_inputs(3, torch.float64)
    square = linear_log_prob(hidden_RH, weight_VH, bias_V, tokens_R).square().sum()
    (slope_RH,) = torch.autograd.grad(square, hidden_RH, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope_RH.sum().backward()


def test_gradient_of_linear_log_prob_agrees_with_finite_differences() -> None:
    hidden_RH, weight_VH, bias_V, tokens_R = random_inputs(TILE + 2, torch.float64, vocab_size=3)

    def function(hidden_RH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> Tensor:
        return linear_log_prob(hidden_RH, weight_VH, bias_V, tokens_R)

    assert torch.autograd.gradcheck(function, (hidden_RH, weight_VH, bias_V), fast_mode=True)


def test_barred_token_has_no_probability_and_no_gradient() -> None:
    hidden_RH, weight_VH, bias_V, tokens_R = random_inputs(TILE + 5, torch.float64)
    tokens_R = tokens_R.clamp(min=1)
    barred_V = bias_V.index_fill(0, torch.tensor([0]), -math.inf)
    logp_R = linear_log_prob(hidden_RH, weight_VH, barred_V, tokens_R)
    without_0 = (hidden_RH @ weight_VH.t() + bias_V)[:, 1:]
    expected_R = -functional.cross_entropy(without_0, tokens_R - 1, reduction="none")
    torch.testing.assert_close(logp_R, expected_R)
    inputs = (hidden_RH, weight_VH, bias_V)
    found = torch.autograd.grad(logp_R.sum(), inputs)
    torch.testing.assert_close(found, torch.autograd.grad(expected_R.sum(), inputs))
    assert (found[1][0].tolist(), found[2][0].item()) == ([0.0] * 5, 0.0)


def test_writing_a_barred_token_has_log_probability_minus_infinity() -> None:
    hidden_RH, weight_VH, bias_V, _ = random_inputs(2, torch.float32)
    barred_V = bias_V.index_fill(0, torch.tensor([0]), -math.inf)
    logp_R = linear_log_prob(hidden_RH, weight_VH, barred_V, torch.tensor([0, 1]))
    assert logp_R[0] == -math.inf
    assert torch.isfinite(logp_R[1])


def test_large_logits_do_not_overflow() -> None:
    hidden_RH = torch.tensor([[1000.0], [-1000.0]])
    weight_VH = torch.tensor([[1.0], [-1.0], [0.0]])
    logp_R = linear_log_prob(hidden_RH, weight_VH, torch.zeros(3), torch.tensor([0, 0]))
    assert logp_R.tolist() == [0.0, -2000.0]


def test_baselines_by_hand() -> None:
    credit_BT = torch.tensor([[1.0, 4.0], [2.0, 0.0], [6.0, 8.0]])
    mask_BT = torch.tensor([[True, True], [True, False], [True, True]])
    assert baseline("none", credit_BT, mask_BT).tolist() == [[0, 0], [0, 0], [0, 0]]
    assert baseline("position", credit_BT, mask_BT).tolist() == [[3, 6], [3, 6], [3, 6]]
    others = baseline("leave-one-out", credit_BT, mask_BT)
    assert (others[:, 0].tolist(), others[[0, 2], 1].tolist()) == ([4, 3.5, 1.5], [8, 4])


def test_an_unknown_baseline_is_refused() -> None:
    assert_refused("baseline", baseline, "mean", torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))


def test_a_gpu_works_on_more_rows_at_once_than_a_cpu() -> None:
    tile = Tile(cpu=2, gpu=5)
    assert [tile.on(torch.device(name)) for name in ("cpu", "cuda", "cuda:1", "mps")] == [2, 5, 5, 5]


@pytest.mark.parametrize("rows", [1, 3, 7, 50])
def test_a_sum_made_in_tiles_has_the_value_and_gradient_of_the_whole(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    used, spare, fixed = (nn.Parameter(torch.randn(4, generator=generator).double()) for _ in range(3))
    fixed.requires_grad_(False)
    inputs_B4, weight_B = torch.randn(7, 4, generator=generator).double(), torch.rand(7, generator=generator).double()

    def value(some_b4: Tensor, weight_b: Tensor) -> Tensor:
        return (some_b4 @ used).sin() * weight_b * fixed.sum()

    expected_B = value(inputs_B4, weight_B)
    (expected,) = torch.autograd.grad(2 * expected_B.sum(), [used])
    total, value_B = tiled_sum(value, (inputs_B4, weight_B), [used, fixed, spare], rows=rows)
    found, unused = torch.autograd.grad(2 * total, [used, spare])
    torch.testing.assert_close(value_B, expected_B.detach())
    torch.testing.assert_close(total, expected_B.sum())
    torch.testing.assert_close(found, expected)
    assert (fixed.grad, unused.tolist()) == (None, [0.0] * 4)


def test_a_sum_in_tiles_holds_no_more_than_a_tile() -> None:
    weight = nn.Parameter(torch.ones(1))
    seen: list[int] = []

    def value(some_b: Tensor) -> Tensor:
        seen.append(len(some_b))
        return some_b * weight

    tiled_sum(value, (torch.ones(10),), [weight], rows=4)
    assert seen == [4, 4, 2]


def test_a_sum_in_tiles_without_gradients_is_made_too() -> None:
    weight = nn.Parameter(torch.full((1,), 3.0))
    with torch.no_grad():
        total, value_B = tiled_sum(lambda some_b: some_b * weight, (torch.arange(4.0),), [weight], rows=3)
    assert (float(total), value_B.tolist(), total.requires_grad) == (18.0, [0.0, 3.0, 6.0, 9.0], False)


@pytest.mark.parametrize("offset", [-1e4, -60.0, -41.0, -35.0, -20.0, -19.0, 0.0, 35.0, 41.0, 60.0, 61.0, 1e4])
@pytest.mark.parametrize("threads", [1, 2])
def test_likelihoods_are_exact_however_high_the_logits_are(offset: float, threads: int) -> None:
    hidden_RH, weight_VH = (torch.randn(rows, 4, generator=derived_generator(rows)) for rows in (9, 50))
    tokens_R, bias_V = torch.arange(9), torch.full((50,), offset)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found_R = linear_log_prob(hidden_RH, weight_VH, bias_V, tokens_R)
    finally:
        torch.set_num_threads(before)
    # In the precision that the logits themselves have.
    logits_RV = (functional.pad(hidden_RH, (0, 1), value=1.0) @ torch.cat([weight_VH, bias_V[:, None]], 1).t()).double()
    expected_R = logits_RV.log_softmax(1)[torch.arange(9), tokens_R].float()
    torch.testing.assert_close(found_R, expected_R, rtol=1e-5, atol=1e-5 + abs(offset) * 1e-6)
