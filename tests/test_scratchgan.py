"""ScratchGAN: its expected gradient by enumeration, its fixed point, the toy task, and its baseline by hand."""

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from agents.scratchgan import ScratchGAN, ScratchGANConfig
from conftest import assert_refused, step_of
from exact import (
    autograd_of,
    best_discriminator,
    expected_gradient,
    gradient_of_step,
    relative_error,
    table_policy,
)
from textgan_env.discriminators import RecurrentDiscriminator, recurrent
from textgan_env.ops.averages import MovingAverage
from textgan_env.policies import PolicyModule, RatioDiscriminator, TablePolicy
from textgan_env.tasks import ToyTask

TASK = ToyTask(vocab_size=3, max_length=3, size=200)
SMALL = ToyTask(vocab_size=2, max_length=3, size=200)  # all batches of two texts are 64
TINY = ScratchGANConfig(
    preset="smoke", task="toy", mle_epochs=1, d_pretraining=1, rounds=2, g_steps=1, d_steps=0, d_batches=0,
    batch_size=8, d_batch_size=32, embed_size=4, hidden_size=4, threads=1, show_samples=0, max_grad_norm=1e8,
)  # fmt: skip


def learner(policy: PolicyModule, task: ToyTask = TASK, **changes: Any) -> ScratchGAN:
    """The agent with a tabular policy and the best discriminator against it as it is now."""
    agent = ScratchGAN(replace(TINY, **changes), task)
    agent.policy = policy
    agent.g_optimizer = torch.optim.Adam(agent.policy.parameters(), lr=0.1)
    agent.discriminator = best_discriminator(task, policy)  # type: ignore[assignment]
    return agent


@pytest.mark.parametrize("all_actions", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.23, 1.0])
def test_the_expected_gradient_is_that_of_the_discounted_rewards(gamma: float, all_actions: bool) -> None:
    """E_q of sum_t credit_t log q(y_t | y_<t), the credit held fixed, over all texts; without a baseline, exactly."""
    policy = table_policy(SMALL)
    agent = learner(policy, SMALL, baseline="none", gamma=gamma, batch_size=2, all_actions=all_actions)
    texts_ST = SMALL.texts_ST
    reward_ST = (best_discriminator(SMALL, policy).token_logits(texts_ST) / 2).tanh()
    credit_ST = torch.zeros_like(reward_ST)
    for t in range(3):
        for s in range(t, 3):
            credit_ST[:, t] += gamma ** (s - t) * reward_ST[:, s]
    mass_S = SMALL.text_log_prob(policy).exp().detach()

    def objective() -> torch.Tensor:
        logp_ST = policy.log_prob(texts_ST, torch.ones_like(texts_ST, dtype=torch.bool))
        return -(mass_S[:, None] * credit_ST * logp_ST).sum()

    found_P = expected_gradient(SMALL, policy, 2, partial(gradient_of_step, agent, "g_optimizer"))
    assert relative_error(found_P, autograd_of(policy, objective)) < 1e-6


@pytest.mark.parametrize(("gamma", "most"), [(0.0, 0.3), (0.23, 0.35), (1.0, 0.7)])
def test_all_actions_take_noise_out_of_the_gradient(gamma: float, most: float) -> None:
    """The variance of the gradient of one text, listed: E |g|^2 - |E g|^2."""
    policy = table_policy(SMALL)
    variances = []
    for all_actions in (False, True):
        agent = learner(policy, SMALL, gamma=gamma, batch_size=1, baseline="none", all_actions=all_actions)
        gradient = partial(gradient_of_step, agent, "g_optimizer")
        mean_P = expected_gradient(SMALL, policy, 1, gradient)
        square = expected_gradient(SMALL, policy, 1, lambda tokens_BT: gradient(tokens_BT).square().sum())  # noqa: B023
        variances.append(float(square - mean_P.square().sum()))
    assert variances[1] < most * variances[0]


def test_next_logits_are_those_of_the_prefix_with_each_token_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "_MOST_GATES", 300)  # several tiles
    network = RecurrentDiscriminator(4, 3, embed_size=3, hidden_size=5, seed=1).eval()
    policy = table_policy(ToyTask(vocab_size=4, max_length=3))
    ratio = RatioDiscriminator(ToyTask(vocab_size=4, max_length=3).oracle, policy, 3)
    tokens_BT = torch.tensor([[0, 3, 1], [2, 2, 0], [1, 4, 4]])
    for discriminator in (network, ratio):
        found_BTV = discriminator.next_logits(tokens_BT)
        assert found_BTV.shape == (3, 3, 4)
        for row, length in ((0, 3), (1, 3), (2, 1)):
            for position, token in itertools.product(range(length), range(4)):
                text_1T = tokens_BT[row : row + 1].clone()
                text_1T[0, position], text_1T[0, position + 1 :] = token, 4
                expected = discriminator.token_logits(text_1T)[0, position]
                torch.testing.assert_close(found_BTV[row, position, token], expected)


@pytest.mark.parametrize("control", ["constant", "random", "shuffled"])
def test_all_actions_have_no_control_that_scores_texts_only(control: Any) -> None:
    assert_refused(
        "--all-actions asks D about every next token",
        learner,
        TablePolicy(3, max_length=3),
        all_actions=True,
        control=control,
    )


def test_where_g_is_right_every_prefix_is_paid_nothing() -> None:
    policy = TablePolicy(3, max_length=3, logits_PV=TASK.oracle.logits_PV).double()
    agent = learner(policy, baseline="none", batch_size=2)
    found_P = gradient_of_step(agent, "g_optimizer", TASK.texts_ST[[3, 17]])
    assert float(found_P.abs().max()) < 1e-6  # whatever the texts: not only in expectation


@pytest.mark.slow
def test_against_the_best_discriminator_it_comes_to_the_law() -> None:
    policy = TablePolicy(3, max_length=3)
    agent = learner(policy, batch_size=256)
    before = sum(TASK.divergences(policy))
    for number in range(60):
        agent.discriminator = best_discriminator(TASK, policy)  # type: ignore[assignment]
        agent.g_step(step_of(0, "test", number))
    assert sum(TASK.divergences(policy)) < 0.05 * before


@pytest.mark.parametrize("control", ["constant", "random"])
def test_a_reward_that_knows_nothing_brings_it_no_nearer(control: str) -> None:
    policy = TablePolicy(3, max_length=3)
    agent = learner(policy, batch_size=64, control=control)
    before = sum(TASK.divergences(policy))
    for number in range(20):
        agent.g_step(step_of(0, "test", number))
    assert sum(TASK.divergences(policy)) > 0.9 * before


def test_the_average_baseline_keeps_a_little_of_the_old_value() -> None:
    average = MovingAverage(0.08)
    assert float(average.update(torch.tensor(5.0))) == 5.0
    assert float(average.update(torch.tensor(1.0))) == pytest.approx(0.08 * 5 + 0.92 * 1)
    agent = learner(TablePolicy(3, max_length=3), batch_size=4)
    before = torch.zeros(())
    for number, kept in enumerate((0.0, 0.08)):
        agent.begin_texts(step_of(0, "test", number))
        batch = agent.envs.collect(agent.policy)
        before = kept * before + (1 - kept) * batch.credit_BT.mean()
        torch.testing.assert_close(agent.advantage(batch), batch.credit_BT - before)


def test_d_takes_its_batches_after_each_g_step_and_is_asked_once_a_round() -> None:
    agent = ScratchGAN(replace(TINY, d_batches=2), TASK)
    assert agent.discriminator is not None
    before = {name: value.clone() for name, value in agent.discriminator.state_dict().items()}
    numbers = agent.g_step(step_of(0, "test"))
    assert float(numbers["d_loss"]) > 0
    assert any(not before[name].equal(value) for name, value in agent.discriminator.state_dict().items())
    assert [steps.times for steps in agent.round_steps()] == [1, 0, 1]
    assert set(agent.ask_d(step_of(0, "ask"))) == {"d_auc", "d_accuracy", "d_value"}
    for control in ("constant", "untrained"):
        blind = ScratchGAN(replace(TINY, d_batches=2, control=control), TASK)
        assert "d_loss" not in blind.g_step(step_of(0, "test"))
        assert [steps.times for steps in blind.round_steps()] == [1, 0, 0]


@pytest.mark.parametrize(("options", "sentence"), [
    ({"gamma": 1.5}, "gamma must be"), ({"d_batches": -1}, "d_batches must be at least 0"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, ScratchGAN, replace(TINY, **options), TASK)
