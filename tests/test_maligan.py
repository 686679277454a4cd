"""MaliGAN: weights by hand, the expected gradient by enumeration, and the toy task, whose best text is known."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.maligan import MaliGAN, MaliGANConfig
from conftest import assert_refused, assert_same_training, interrupted, step_of
from exact import (
    autograd_of,
    best_discriminator,
    expected_gradient,
    gradient_of_step,
    relative_error,
    table_policy,
)
from test_seqgan import TASK, T, V, exact_return, judge
from textgan_env.policies import PolicyModule, TablePolicy
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import ToyTask
from textgan_env.training.launch import launch
from textgan_env.training.schedule import Step

SMALL = ToyTask(vocab_size=2, max_length=2, size=50)
TINY = MaliGANConfig(
    preset="smoke", task="toy", mle_epochs=1, d_pretraining=1, rounds=2, g_steps=1, batch_size=8, embed_size=4,
    hidden_size=4, threads=1, show_samples=0,
)  # fmt: skip


def learner(**changes: object) -> MaliGAN:
    """The agent with a tabular policy and a discriminator whose logit of every text is known."""
    agent = MaliGAN(replace(TINY, **({"batch_size": 256} | changes)), TASK)  # type: ignore[arg-type]
    agent.policy = TablePolicy(V, max_length=T)
    agent.g_optimizer = torch.optim.Adam(agent.policy.parameters(), lr=0.2)
    if agent.envs.game.reward.judged:
        agent.discriminator = judge()  # type: ignore[assignment]
    return agent


def test_each_token_has_its_texts_normalised_ratio_less_the_mean() -> None:
    agent = learner(batch_size=4)
    agent.envs.game.queue_discriminator(judge())
    agent.begin_texts(step_of(0))
    batch = agent.envs.collect(agent.policy)
    ratios = [float(logit.exp()) for logit in judge().logits(batch.tokens_BT)]
    expected_B = torch.tensor([4 * ratio / sum(ratios) - 1 for ratio in ratios])
    torch.testing.assert_close(agent.advantage(batch), expected_B[:, None].expand(4, T))


def test_the_expected_advantage_of_a_text_is_its_ratio_over_the_mean_ratio_less_one() -> None:
    """The weights are normalised over the batch, which biases them by order 1 / B: at B = 4,096 by less than .02."""
    agent = learner(batch_size=4096)
    agent.envs.game.queue_discriminator(judge())
    ratio_S = judge().logits_S.exp()
    expected_S = ratio_S / ratio_S.mean() - 1  # the policy is uniform
    agent.begin_texts(step_of(0))
    batch = agent.envs.collect(agent.policy)
    found_B, logits_B = agent.advantage(batch)[:, 0], judge().logits(batch.tokens_BT)
    for logit, expected in zip(judge().logits_S.tolist(), expected_S.tolist(), strict=True):
        same_B = logits_B == logit
        assert same_B.any()
        assert float(found_B[same_B][0]) == pytest.approx(expected, abs=0.02 * (1 + abs(expected)) + 0.05)


def reward_after(agent: MaliGAN, steps: int) -> float:
    for step in range(steps):
        agent.g_step(step_of(0, "test", step))
    with torch.no_grad():
        return float(exact_return(agent.policy, judge().logits_S.sigmoid()))


def test_it_reaches_the_text_of_the_highest_ratio() -> None:
    """The best text has a reward of .982; a uniform policy expects .52."""
    agent = learner()
    assert reward_after(agent, 0) == pytest.approx(0.52, abs=0.03)
    assert reward_after(agent, 40) > float(judge().logits_S.sigmoid().max()) - 0.02


@pytest.mark.parametrize("control", ["constant", "random"])
def test_a_reward_that_knows_nothing_learns_nothing(control: str) -> None:
    assert reward_after(learner(control=control), 20) < 0.75  # .97 with its own reward


def test_under_a_constant_reward_not_a_bit_moves() -> None:
    agent = learner(control="constant")
    before = agent.policy.logits_PV.detach().clone()
    agent.g_step(step_of(0))
    assert torch.equal(agent.policy.logits_PV, before)


@pytest.mark.slow
def test_a_whole_run_is_resumed_to_the_same_weights(tmp_path: Path) -> None:
    config = replace(TINY, d_batch_size=250)
    whole = launch(replace(config, runs=tmp_path / "whole"), MaliGAN)
    assert [row["phase"] for row in read_metrics(whole.path)] == ["mle", "pretrain_d", "adversarial", "adversarial"]
    with interrupted(MaliGAN, "d_batch", lambda _, step: (step.round, step.batch) == (1, 3)):
        launch(replace(config, runs=tmp_path / "cut", checkpoint_every=0.0), MaliGAN)
    cut = launch(replace(TINY, resume=tmp_path / "cut" / "maligan-toy-1"), MaliGAN)
    assert_same_training(whole, cut)


def exact_agent(policy: PolicyModule, batch_size: int) -> MaliGAN:
    """Two words, two tokens: few enough texts that all batches can be listed; the discriminator is the best one."""
    agent = MaliGAN(replace(TINY, batch_size=batch_size, max_grad_norm=1e8), SMALL)
    agent.policy = policy
    agent.discriminator = best_discriminator(SMALL, policy)  # type: ignore[assignment]
    return agent


def test_with_the_best_discriminator_it_follows_the_gradient_of_maximum_likelihood_up_to_1_over_b() -> None:
    """Over all batches of B texts. Normalising over the batch biases the weights, less the more texts there are."""
    policy = table_policy(SMALL)
    likelihood_P = autograd_of(policy, lambda: -(SMALL.logp_S.exp() * SMALL.text_log_prob(policy)).sum())
    found = []
    for rows in (2, 4):
        agent = exact_agent(policy, rows)
        one_batch = partial(gradient_of_step, agent, "g_optimizer")
        found.append(expected_gradient(SMALL, policy, rows, one_batch))
    of_two, of_four = (relative_error(gradient_P, likelihood_P) for gradient_P in found)
    assert of_four < 0.6 * of_two < 0.4  # 0.36 and 0.63
    assert float(torch.cosine_similarity(found[1], likelihood_P, dim=0)) > 0.98


def test_where_g_is_right_nothing_moves() -> None:
    policy = TablePolicy(2, max_length=2, logits_PV=SMALL.oracle.logits_PV).double()
    agent = exact_agent(policy, 2)
    found_P = expected_gradient(SMALL, policy, 2, partial(gradient_of_step, agent, "g_optimizer"))
    assert float(found_P.norm()) < 1e-6


def test_mixed_training_learns_real_beginnings_as_they_are_and_their_ends_by_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In round 1 of 3 a third of the three tokens is real; four texts go on from each, and are compared."""
    agent = learner(batch_size=8, mixed=4, rounds=3)
    seen: dict[str, Any] = {}
    monkeypatch.setattr(agent, "ascend", lambda texts, advantage_BT: seen.update(texts=texts, of=advantage_BT) or {})
    agent.g_step(Step(seed=5, round=1))
    tokens_BT, advantage_BT = seen["texts"].tokens_BT, seen["of"]
    real = {tuple(text) for text in TASK.writable("train").tolist()}
    for group in (slice(0, 4), slice(4, 8)):
        assert len({int(first) for first in tokens_BT[group, 0]}) == 1
        assert any(text[0] == int(tokens_BT[group][0, 0]) for text in real)
        ratios = [float(logit.exp()) for logit in judge().logits(tokens_BT[group])]
        expected_b = torch.tensor([4 * ratio / sum(ratios) - 1 for ratio in ratios])
        torch.testing.assert_close(advantage_BT[group, 1:], expected_b[:, None].expand(4, T - 1))
    assert advantage_BT[:, 0].eq(1).all()
    assert len({tuple(text) for text in tokens_BT.tolist()}) > 2


@pytest.mark.slow
def test_mixed_training_against_the_best_discriminator_comes_to_the_law() -> None:
    agent = MaliGAN(replace(TINY, batch_size=128, mixed=8, rounds=60), TASK)
    agent.policy = TablePolicy(V, max_length=T)
    agent.g_optimizer = torch.optim.Adam(agent.policy.parameters(), lr=0.1)
    before = sum(TASK.divergences(agent.policy))
    for number in range(60):
        agent.discriminator = best_discriminator(TASK, agent.policy)  # type: ignore[assignment]
        agent.g_step(Step(seed=number, round=number))
    assert sum(TASK.divergences(agent.policy)) < 0.1 * before


@pytest.mark.parametrize(("options", "sentence"), [
    ({"mixed": 3, "batch_size": 8}, "a divisor of batch_size, found 3 and 8"),
    ({"mixed": 1}, "mixed must be 0, or at least 2"), ({"mixed": -1}, "mixed must be at least 0"),
    ({"weight_cap": 0.5}, "weight_cap must be at least 1"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, MaliGAN, replace(TINY, **options), TASK)
