"""ColdGAN: weights at most 1 / e, an expected gradient that cautious writing does not change, its fixed point."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from agents.coldgan import ColdGAN, ColdGANConfig
from conftest import assert_refused, step_of
from exact import (
    autograd_of,
    best_discriminator,
    expected_gradient,
    gradient_of_step,
    relative_error,
    table_policy,
)
from textgan_env.policies import PolicyModule, TablePolicy
from textgan_env.rewards import Keys, Texts
from textgan_env.tasks import ToyTask

TASK = ToyTask(vocab_size=3, max_length=3, size=200)
SMALL = ToyTask(vocab_size=2, max_length=2, size=50)
TINY = ColdGANConfig(
    preset="smoke", task="toy", mle_epochs=1, d_pretraining=1, rounds=2, g_steps=1, batch_size=8, d_batch_size=250,
    embed_size=4, hidden_size=4, threads=1, show_samples=0, max_grad_norm=1e8,
)  # fmt: skip
WRITING = [
    {"plain_share": 1.0},
    {"plain_share": 0.25},
    {"plain_share": 0.5, "cold_top_p": 0.6, "cold_temperature": 1.0},
]


def learner(policy: PolicyModule, task: ToyTask = TASK, **changes: Any) -> ColdGAN:
    """The agent with a tabular policy and the best discriminator against it as it is now."""
    agent = ColdGAN(replace(TINY, **changes), task)
    agent.policy = policy
    agent.g_optimizer = torch.optim.Adam(agent.policy.parameters(), lr=0.1)
    agent.discriminator = best_discriminator(task, policy)  # type: ignore[assignment]
    return agent


def every_text(task: ToyTask) -> Texts:
    lengths_S = torch.full((len(task.texts_ST),), task.max_length)
    return Texts.finished(task.texts_ST, lengths_S, Keys.counted(0, len(lengths_S)), None)


@pytest.mark.parametrize("options", WRITING)
def test_weights_are_g_over_the_mixture_of_mean_one_and_at_most_one_over_e(options: dict[str, Any]) -> None:
    policy = table_policy(TASK, spread=2.0)
    agent = learner(policy, **options)
    weight_S = agent.weights(every_text(TASK)).double()
    with torch.no_grad():
        plain_S = TASK.text_log_prob(policy).exp()
        cold_S = TASK.text_log_prob(policy.with_decoding(agent.cold)).exp()
        share = agent.config.plain_share
        mixture_S = share * plain_S + (1 - share) * cold_S
    torch.testing.assert_close(weight_S, plain_S / mixture_S, atol=1e-5, rtol=1e-5)
    assert float(weight_S.max()) <= 1 / share + 1e-5
    assert float((mixture_S * weight_S).sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("options", WRITING)
def test_however_cautiously_it_writes_the_expected_gradient_is_that_of_the_reward(options: dict[str, Any]) -> None:
    policy = table_policy(SMALL)
    agent = learner(policy, SMALL, batch_size=2, **options)
    reward_S = best_discriminator(SMALL, policy).logits(SMALL.texts_ST)
    exact_P = autograd_of(policy, lambda: -(SMALL.text_log_prob(policy).exp() * reward_S).sum())
    one_batch = partial(gradient_of_step, agent, "g_optimizer")
    found_P = expected_gradient(SMALL, agent.behaviour_policy(), 2, one_batch)
    assert relative_error(found_P, exact_P) < 1e-5


def test_without_weights_it_follows_another_gradient() -> None:
    policy = table_policy(SMALL)
    agent = learner(policy, SMALL, batch_size=2, weigh=False, plain_share=0.25)
    reward_S = best_discriminator(SMALL, policy).logits(SMALL.texts_ST)
    exact_P = autograd_of(policy, lambda: -(SMALL.text_log_prob(policy).exp() * reward_S).sum())
    one_batch = partial(gradient_of_step, agent, "g_optimizer")
    found_P = expected_gradient(SMALL, agent.behaviour_policy(), 2, one_batch)
    assert relative_error(found_P, exact_P) > 0.1  # 0.13


def test_where_g_is_right_no_text_moves_it() -> None:
    policy = TablePolicy(2, max_length=2, logits_PV=SMALL.oracle.logits_PV).double()
    agent = learner(policy, SMALL, batch_size=2)
    assert float(gradient_of_step(agent, "g_optimizer", SMALL.texts_ST[[0, 3]]).abs().max()) < 1e-6


@pytest.mark.slow
def test_against_the_best_discriminator_it_comes_nearer_to_the_law() -> None:
    policy = TablePolicy(3, max_length=3)
    agent = learner(policy, batch_size=256)
    before = sum(TASK.divergences(policy))
    for number in range(60):
        agent.discriminator = best_discriminator(TASK, policy)  # type: ignore[assignment]
        agent.g_step(step_of(0, "test", number))
    assert sum(TASK.divergences(policy)) < 0.2 * before


@pytest.mark.parametrize("control", ["constant", "random", "shuffled", "untrained"])
def test_every_control_runs_and_a_constant_reward_moves_no_bit(control: str) -> None:
    agent = ColdGAN(replace(TINY, control=control), TASK)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    assert 0 < float(agent.g_step(step_of(0, "test"))["effective_share"]) <= 1
    gone = max(float((value - before[name]).abs().max()) for name, value in agent.policy.state_dict().items())
    assert (gone > 1e-3) == (control != "constant")


@pytest.mark.parametrize(("options", "sentence"), [
    ({"plain_share": 0.0}, "plain_share"), ({"plain_share": 1.5}, "plain_share must be at most 1"),
    ({"cold_temperature": 0.0}, "cold_temperature"), ({"cold_top_p": 2.0}, "top_p must be"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, ColdGAN, replace(TINY, **options), TASK)
