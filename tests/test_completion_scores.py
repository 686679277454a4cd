"""Scores of completions: what a prefix's completions share is computed once, and nobody's score depends on others."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import assert_refused
from textgan_env.discriminators import (
    ConvDiscriminator,
    PairDiscriminator,
    RecurrentDiscriminator,
    require_precision,
    score_completions,
    score_logits,
)
from textgan_env.discriminators.windows import BestMatch, best_match
from textgan_env.envs import TextGANVectorEnv
from textgan_env.ops.reward_kinds import PrecisionName
from textgan_env.policies import LSTMPolicy
from textgan_env.rewards import Keys, RewardSpec, RolloutCredit, Texts, generate
from textgan_env.tasks import make_task

V, T = 9, 12


@pytest.fixture(autouse=True)
def bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every processor can compute in bf16, but not fast."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})


def conv(seed: int = 0) -> ConvDiscriminator:
    """Widths from a single token to the whole text, so that windows lie on both sides of every prefix's end."""
    return ConvDiscriminator(V, T, embed_size=8, widths=(1, 2, 5, 7, 12), filters=(5, 6, 7, 8, 9), seed=seed).eval()


def completions(prefixes: int, rollouts: int, *, end: bool) -> tuple[Tensor, Tensor]:
    """Random prefixes of 0 to T - 1 tokens in no order, and N random texts that go on from each: (G, N, T) and (G,)."""
    draws = torch.Generator().manual_seed(prefixes)
    given_G = torch.randint(T, (prefixes,), generator=draws)
    begun_G1T = torch.randint(V, (prefixes, 1, T), generator=draws)
    fresh_GNT = torch.randint(V, (prefixes, rollouts, T), generator=draws)
    tokens_GNT = torch.where(torch.arange(T) < given_G[:, None, None], begun_G1T, fresh_GNT)
    if end:
        left_GN1 = torch.randint(1, T + 1, (prefixes, rollouts, 1), generator=draws)
        tokens_GNT = tokens_GNT.masked_fill(torch.arange(T) >= given_G[:, None, None] + left_GN1, V)
    return tokens_GNT, given_G


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize(("prefixes", "rollouts"), [(40, 3), (7, 1), (3, 16), (2, 300), (0, 4)])
def test_completions_score_as_whole_texts_do(prefixes: int, rollouts: int, end: bool) -> None:
    tokens_GNT, given_G = completions(prefixes, rollouts, end=end)
    pair = PairDiscriminator(V, T)
    for judge in (conv(), pair, RecurrentDiscriminator(V, T)):
        expected_R = judge.eval().logits(tokens_GNT.flatten(0, 1)).detach()
        found_GN = score_completions(judge, tokens_GNT, given_G)
        torch.testing.assert_close(found_GN.flatten(), expected_R, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rollouts", [1, 3, 5, 16, 19])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_completions_score_is_bitwise_the_same_whatever_is_scored_with_it(
    rollouts: int, precision: PrecisionName
) -> None:
    tokens_GNT, given_G = completions(150, rollouts, end=True)
    judge = conv()
    all_GN = score_completions(judge, tokens_GNT, given_G, precision=precision)
    order_G = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    for some_G in (order_G, order_G[:1], order_G[:90]):
        found_GN = score_completions(judge, tokens_GNT[some_G], given_G[some_G], precision=precision)
        assert found_GN.equal(all_GN[some_G])


def test_bf16_rounds_a_little_and_not_at_all_where_it_is_not_asked_for() -> None:
    tokens_GNT, given_G = completions(50, 4, end=False)
    judge = conv()
    plain_GN = score_completions(judge, tokens_GNT, given_G)
    rounded_GN = score_completions(judge, tokens_GNT, given_G, precision="bf16")
    assert 0 < (rounded_GN - plain_GN).abs().max() < 0.05 * plain_GN.std()
    assert rounded_GN.dtype == plain_GN.dtype == torch.float32


def test_windows_in_padding_change_neither_a_match_nor_its_gradient() -> None:
    draws = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(V, (6, T), generator=draws).masked_fill(torch.arange(T) >= 5, V)
    judge = conv()
    kernels = [kernel.detach() for kernel in judge.kernels]
    embedded_BTE = judge.embedding.detach()[tokens_BT]
    assert best_match(embedded_BTE, kernels, 5).equal(best_match(embedded_BTE, kernels, T))
    weights_BF = torch.randn(6, judge.feature_size, generator=draws)
    gradients = []
    for longest in (5, T):
        leaves = [part.clone().requires_grad_() for part in (embedded_BTE, *kernels)]
        best_BF = BestMatch.apply(leaves[0], longest, *leaves[1:])  # type: ignore[no-untyped-call]
        grad_BTE, *grad_kernels = torch.autograd.grad((best_BF * weights_BF).sum(), leaves)
        # Which of several equal windows a gradient reaches does not matter: PAD is one row of the table.
        table_VE = torch.zeros(V + 1, 8).index_add(0, tokens_BT.flatten(), grad_BTE.flatten(0, 1))
        gradients.append([table_VE, *grad_kernels])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradients_of_the_best_match_are_those_of_plain_windows() -> None:
    draws = torch.Generator().manual_seed(0)
    judge = conv()
    leaves = [torch.randn(5, T, 8, generator=draws), *(kernel.detach().clone() for kernel in judge.kernels)]
    for leaf in leaves:
        leaf.requires_grad_()
    embedded_BTE, *kernels = leaves
    windows = [embedded_BTE.unfold(1, kernel.shape[1] // 8, 1).transpose(2, 3).flatten(2) for kernel in kernels]
    plain_BF = torch.cat([(part @ kernel.t()).amax(1) for part, kernel in zip(windows, kernels, strict=True)], dim=1)
    best_BF = BestMatch.apply(embedded_BTE, T, *kernels)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(best_BF, plain_BF)
    weights_BF = torch.randn(best_BF.shape, generator=draws)
    expected = torch.autograd.grad((plain_BF * weights_BF).sum(), leaves)
    torch.testing.assert_close(torch.autograd.grad((best_BF * weights_BF).sum(), leaves), expected)


class Counting(ConvDiscriminator):
    """Counts the texts, empty ones aside, that it is asked to score as completions."""

    asked = 0

    def completion_scorer(self, precision: PrecisionName = "float32") -> Any:
        scorer = super().completion_scorer(precision)

        def counted(tokens_GNT: Tensor, given_G: Tensor) -> Tensor:
            self.asked += int((tokens_GNT[..., 0] != V).sum())
            return scorer(tokens_GNT, given_G)

        return counted


def texts_of(policy: LSTMPolicy, end_token: int | None) -> Texts:
    keys = Keys.counted(0, 6)
    return Texts.finished(*generate(policy, keys, T, end_token=end_token), keys, end_token)


def test_equal_completions_are_scored_once_where_texts_end_early() -> None:
    policy, judge = LSTMPolicy(V, start_token=V, seed=0), Counting(V, T, embed_size=8, widths=(1, 3), filters=(4, 4))
    texts = texts_of(policy, end_token=0)
    found = RolloutCredit(policy, judge, "logit", rollouts=8).estimate(texts, texts.mask_BT)
    tokens_RT = found.completions.tokens_RT
    assert judge.asked == len(tokens_RT.unique(dim=0)) < len(tokens_RT)
    torch.testing.assert_close(found.reward_R, score_logits(judge, tokens_RT), atol=1e-5, rtol=0)


def test_bf16_is_for_completions_and_a_finished_texts_own_score_is_not_rounded() -> None:
    policy = LSTMPolicy(V, start_token=V, seed=0)
    texts = texts_of(policy, end_token=None)
    plain = RolloutCredit(policy, conv(), "logit", rollouts=2)
    rounded_BT = replace(plain, precision="bf16").credit(texts, texts.mask_BT)
    difference_BT = (rounded_BT - plain.credit(texts, texts.mask_BT)).abs()
    assert (difference_BT[:, :-1] > 0).any()
    assert (difference_BT[:, -1] == 0).all()


def test_a_score_precision_that_is_not_at_hand_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused("pair scores completions in float32, found", require_precision, "bf16", PairDiscriminator(V, T))
    assert_refused("conv scores completions in float32 or bf16, found", require_precision, "bf8", conv())
    assert_refused("score precision", RewardSpec, "rollout", score_precision="bf8")
    assert_refused("reward='terminal' makes none", RewardSpec, "terminal", score_precision="bf16")
    task = make_task("toy")
    options: Mapping[str, Any] = {"reward": "rollout", "rollouts": 2, "score_precision": "bf16"}
    assert_refused("pair scores completions in float32", TextGANVectorEnv, 2, task, **options)
    require_precision("bf16", conv())
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert_refused("avx512_bf16.*found cpu without it", require_precision, "bf16", conv())
    require_precision("float32", conv())
