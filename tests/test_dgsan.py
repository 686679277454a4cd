"""DGSAN: half the gradient of maximum likelihood at first, its optimum, what it is without real text."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.dgsan import DGSAN, DGSANConfig
from conftest import assert_refused, step_of
from exact import autograd_of, relative_error, table_policy
from textgan_env.policies import LSTMPolicy, PolicyModule, TablePolicy
from textgan_env.tasks import ToyTask

TASK = ToyTask(vocab_size=2, max_length=2, size=4000)
TINY = DGSANConfig(
    preset="smoke", task="toy", mle_epochs=1, rounds=1, g_steps=2, batch_size=8, embed_size=4, hidden_size=4, threads=1,
    show_samples=0, max_grad_norm=1e8,
)  # fmt: skip


def learner(policy: PolicyModule, old: PolicyModule, **changes: Any) -> DGSAN:
    """The agent with a G and a G_old whose every probability is known."""
    agent = DGSAN(replace(TINY, **changes), TASK)
    agent.policy, agent.old = policy, old
    agent.g_optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    return agent


def slope(agent: DGSAN, real_BT: Tensor, written_BT: Tensor) -> Tensor:
    """The gradient of the objective on these texts, float (P,)."""
    columns: list[Tensor] = []
    for tokens_BT in (real_BT, written_BT):
        mask_BT = tokens_BT != 2
        columns += [tokens_BT, mask_BT, agent.old.log_prob(tokens_BT, mask_BT).sum(1).detach()]
    total, count = agent.objective(*columns)["loss"]
    return autograd_of(agent.policy, lambda: total / count)


def expected_slope(agent: DGSAN) -> Tensor:
    """Its mean over all pairs of a text of the law and one of G_old."""
    with torch.no_grad():
        real_S, old_S = (TASK.text_log_prob(one).double().exp() for one in (TASK.oracle, agent.old))
    texts_S = TASK.texts_ST
    return torch.stack([
        real_S[one] * old_S[other] * slope(agent, texts_S[[one]], texts_S[[other]])
        for one in range(len(texts_S)) for other in range(len(texts_S))
    ]).sum(0)  # fmt: skip


def test_the_expected_gradient_is_that_of_the_cross_entropy_of_g_over_g_and_g_old() -> None:
    policy, old = table_policy(TASK, seed=1), table_policy(TASK, seed=2)

    def cross_entropy() -> Tensor:
        real_S, old_S = (TASK.text_log_prob(one).double().exp().detach() for one in (TASK.oracle, old))
        now_S = TASK.text_log_prob(policy).exp()
        d_S = now_S / (now_S + old_S)
        return -(real_S * d_S.log() + old_S * (1 - d_S).log()).sum()

    expected_P = autograd_of(policy, cross_entropy)
    assert relative_error(expected_slope(learner(policy, old)), expected_P) < 1e-6


def test_at_the_start_of_a_round_it_is_half_of_the_gradient_of_maximum_likelihood() -> None:
    policy = table_policy(TASK)
    with torch.no_grad():
        real_S = TASK.text_log_prob(TASK.oracle).double().exp()
    likelihood_P = autograd_of(policy, lambda: -(real_S * TASK.text_log_prob(policy)).sum())
    agent = learner(policy, table_policy(TASK))
    assert relative_error(expected_slope(agent), likelihood_P / 2) < 1e-6


def test_whatever_g_was_the_law_is_the_optimum() -> None:
    law = TablePolicy(2, max_length=2, logits_PV=TASK.oracle.logits_PV).double()
    agent = learner(law, table_policy(TASK, spread=2.0))
    assert float(expected_slope(agent).abs().max()) < 1e-6


def test_within_a_round_g_comes_to_the_law() -> None:
    policy, old = TablePolicy(2, max_length=2), TablePolicy(2, max_length=2)
    agent = learner(policy, old, batch_size=256)
    before = sum(TASK.divergences(policy))
    for number in range(60):
        agent.g_step(step_of(0, "test", number))
    assert sum(TASK.divergences(policy)) < 0.2 * before
    assert not any(weight.any() for weight in old.parameters())
    agent.remember(step_of(0, "test"))
    assert torch.equal(old.logits_PV, policy.logits_PV)


def test_under_the_control_self_no_real_text_is_read_and_g_stays_near(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, old = TablePolicy(2, max_length=2), TablePolicy(2, max_length=2)
    agent = learner(policy, old, batch_size=256, control="self")
    monkeypatch.setattr(agent, "real_texts", None)
    before = sum(TASK.divergences(policy))
    for number in range(60):
        agent.g_step(step_of(0, "test", number))
    assert sum(TASK.divergences(policy)) > 0.8 * before


def test_neither_pad_nor_the_order_of_the_texts_changes_the_gradient() -> None:
    policy, old = (
        LSTMPolicy(2, start_token=2, embed_size=3, hidden_size=4, init_scale=1.0, seed=seed).double() for seed in (1, 2)
    )
    agent = learner(policy, old)
    real_BT, written_BT = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0, 0], [0, 1]])
    plain_P = slope(agent, real_BT, written_BT)
    pads_BT = torch.full((2, 2), 2)
    padded = [torch.cat([tokens_BT, pads_BT], dim=1) for tokens_BT in (real_BT, written_BT)]
    torch.testing.assert_close(slope(agent, *padded), plain_P)
    torch.testing.assert_close(slope(agent, real_BT.flip(0), written_BT.flip(0)), plain_P)


def test_texts_that_became_impossible_or_certain_give_finite_numbers() -> None:
    logits_PV = torch.tensor([[400.0, 0.0], [400.0, 0.0], [0.0, 400.0]])
    agent = learner(TablePolicy(2, max_length=2, logits_PV=logits_PV), table_policy(TASK).float())
    assert torch.isfinite(slope(agent, TASK.texts_ST, TASK.texts_ST)).all()


@pytest.mark.parametrize(("options", "sentence"), [
    ({"g_steps": 0}, "g_steps must be at least 1"), ({"batch_size": 1}, "batch_size must be at least 2"),
    ({"learning_rate": 0.0}, "learning_rate must be above 0"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, DGSAN, replace(TINY, **options), TASK)
