"""GRPO: advantages by hand, its expected gradient by enumeration with and without the standard deviation, clipping."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from agents.grpo import GRPO, GRPOConfig
from conftest import assert_refused, step_of
from exact import (
    autograd_of,
    best_discriminator,
    expected_gradient,
    relative_error,
    table_policy,
)
from textgan_env.ops.losses import group_advantage
from textgan_env.policies import LSTMPolicy, PolicyModule, TablePolicy
from textgan_env.rewards import Keys, Texts, complete
from textgan_env.tasks import ToyTask
from textgan_env.training.mle import trained

TASK = ToyTask(vocab_size=3, max_length=3, size=200)
SMALL = ToyTask(vocab_size=2, max_length=2, size=50)
TINY = GRPOConfig(
    preset="smoke", task="toy", mle_epochs=1, d_pretraining=1, rounds=2, g_steps=1, batch_size=8, group_size=4,
    d_batch_size=32, embed_size=4, hidden_size=4, threads=1, show_samples=0, max_grad_norm=1e8, kl_coef=0.0,
    longest_beginning=0,
)  # fmt: skip


def learner(policy: PolicyModule, task: ToyTask = TASK, **changes: Any) -> GRPO:
    """The agent with a tabular policy and the best discriminator against it as it is now."""
    agent = GRPO(replace(TINY, **changes), task)
    agent.policy = policy
    agent.g_optimizer = torch.optim.Adam(agent.policy.parameters(), lr=0.05)
    agent.reference = TablePolicy(task.vocab_size, max_length=task.max_length).double()
    agent.discriminator = best_discriminator(task, policy)  # type: ignore[assignment]
    return agent


def test_an_advantage_is_the_reward_less_the_mean_of_its_group_over_its_spread() -> None:
    reward_B = torch.tensor([1.0, 3.0, 7.0, 7.0, -2.0, 4.0])
    assert group_advantage(reward_B, 2, std=False).tolist() == [-1.0, 1.0, 0.0, 0.0, -3.0, 3.0]
    expected_B = torch.tensor([-1.0, 1.0, 0.0, 0.0, -1.0, 1.0])
    torch.testing.assert_close(group_advantage(reward_B, 2), expected_B, atol=1e-5, rtol=0)
    of_three = group_advantage(torch.tensor([0.0, 0.0, 3.0]), 3)
    torch.testing.assert_close(of_three, torch.tensor([-1.0, -1.0, 2.0]) / 2**0.5, atol=1e-5, rtol=0)


def gradient_of(agent: GRPO, tokens_BT: torch.Tensor) -> torch.Tensor:
    """The gradient that a step on these whole texts follows, by a step of plain descent that is taken back."""
    before = [weight.detach().clone() for weight in agent.policy.parameters()]
    agent.g_optimizer = torch.optim.SGD(agent.policy.parameters(), lr=1.0)  # type: ignore[assignment]
    rows, length = tokens_BT.shape
    texts = Texts.finished(tokens_BT, torch.full((rows,), length), Keys.counted(0, rows), None)
    advantage_B = group_advantage(agent.score_texts(texts), agent.config.group_size, std=agent.config.std)
    agent.learn_groups(texts, texts.mask_BT, advantage_B)
    moved = [(old - new.detach()).flatten() for old, new in zip(before, agent.policy.parameters(), strict=True)]
    agent.policy.load_state_dict(dict(zip(agent.policy.state_dict(), before, strict=True)))
    return torch.cat(moved)


def test_without_std_the_expected_gradient_is_that_of_the_reward_times_one_less_one_over_n() -> None:
    policy = table_policy(SMALL)
    agent = learner(policy, SMALL, std=False, batch_size=3, group_size=3)
    reward_S = best_discriminator(SMALL, policy).logits(SMALL.texts_ST)
    exact_P = autograd_of(policy, lambda: -(SMALL.text_log_prob(policy).exp() * reward_S).sum())
    found_P = expected_gradient(SMALL, policy, 3, partial(gradient_of, agent))
    assert relative_error(found_P, 2 / 3 * exact_P) < 1e-6


def test_dividing_by_the_spread_is_another_objective() -> None:
    """Its direction is another one, too; by how much is computed here, and said on the page."""
    policy = table_policy(SMALL)
    agent = learner(policy, SMALL, batch_size=3, group_size=3)
    reward_S = best_discriminator(SMALL, policy).logits(SMALL.texts_ST)
    exact_P = autograd_of(policy, lambda: -(SMALL.text_log_prob(policy).exp() * reward_S).sum())
    found_P = expected_gradient(SMALL, policy, 3, partial(gradient_of, agent))
    assert float(torch.cosine_similarity(found_P, exact_P, dim=0)) == pytest.approx(0.985, abs=0.003)


def test_with_the_kl_at_its_weight_of_one_it_comes_to_the_law_without_std() -> None:
    """G maximises E[log p / q_0] - KL(q | q_0), q_0 uniform and D the best one against it: the best q is p."""
    policy = TablePolicy(3, max_length=3).double()
    agent = learner(policy, batch_size=256, group_size=256, std=False, kl_coef=1.0)
    before = sum(TASK.divergences(policy))
    for number in range(80):
        agent.g_step(step_of(0, "test", number))
    assert sum(TASK.divergences(policy)) < 0.1 * before


def test_the_low_variance_kl_has_the_kl_as_its_mean() -> None:
    policy = table_policy(SMALL)
    agent = learner(policy, SMALL)
    reference = table_policy(SMALL, seed=2)
    texts_ST, mask_ST = SMALL.texts_ST, torch.ones_like(SMALL.texts_ST, dtype=torch.bool)
    logq_ST, logr_ST = (one.log_prob(texts_ST, mask_ST).detach() for one in (policy, reference))
    mass_S = logq_ST.sum(1).exp()
    exact = (mass_S * (logq_ST - logr_ST).sum(1)).sum()
    zeros_S = torch.zeros(len(texts_ST), dtype=torch.float64)
    columns = (texts_ST, mask_ST, zeros_S, logq_ST, logr_ST, zeros_S.long(), zeros_S.long())
    of_each = [agent._clipped(*(column[[s]] for column in columns)) for s in range(4)]
    found = sum(float(mass) * float(one["kl"][0].detach()) for mass, one in zip(mass_S, of_each, strict=True))
    assert found == pytest.approx(float(exact))


def test_a_token_that_moved_too_far_has_no_gradient_and_at_first_none_has_moved() -> None:
    policy = TablePolicy(2, max_length=2).double()
    agent = learner(policy, SMALL)
    texts_ST, mask_ST = SMALL.texts_ST[:2], torch.ones(2, 2, dtype=torch.bool)
    now_ST = policy.log_prob(texts_ST, mask_ST).detach()
    advantage_S = torch.tensor([1.0, -1.0], dtype=torch.float64)
    keys_S = (torch.zeros(2, dtype=torch.int64),) * 2
    there = agent._clipped(texts_ST, mask_ST, advantage_S, now_ST, now_ST, *keys_S)
    assert float(there["clipped"][0]) == 0
    assert float(there["loss"][0].detach()) == pytest.approx(0.0)  # 2 tokens x (-1 + 1)
    # Each token is half as probable again as it was: beyond 1.2 the gain of the first text is cut.
    far = agent._clipped(texts_ST, mask_ST, advantage_S, now_ST - torch.tensor(1.5).log(), now_ST, *keys_S)
    assert float(far["loss"][0].detach()) == pytest.approx(-(2 * 1.2 - 2 * 1.5))
    assert float(far["clipped"][0]) == 4


def test_groups_go_on_from_real_beginnings_which_are_not_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = learner(TablePolicy(3, max_length=3), longest_beginning=2)
    seen: list[tuple[Texts, torch.Tensor]] = []

    def learn_groups(texts: Texts, own_BT: torch.Tensor, _: torch.Tensor) -> dict[str, float]:
        seen.append((texts, own_BT))
        return {}

    monkeypatch.setattr(agent, "learn_groups", learn_groups)
    for number in range(12):
        agent.g_step(step_of(0, "test", number))
    lengths = {int((~own_BT[0]).sum()) for _, own_BT in seen}
    assert lengths == {0, 1, 2}
    for texts, own_BT in seen:
        given = int((~own_BT[0]).sum())
        assert own_BT.eq(torch.arange(3) >= given).all()
        assert all(len({tuple(text[:given].tolist()) for text in some}) == 1 for some in texts.tokens_BT.split(4))


def test_texts_are_scored_from_the_random_states_that_they_were_written_from(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = GRPO(replace(TINY, epochs=2, longest_beginning=1), TASK)
    start = {"start_token": 0, "hidden_size": 4, "init_scale": 1.0, "initial_state": "random"}
    agent.policy = LSTMPolicy(3, **start)  # type: ignore[arg-type]
    agent.reference = copy.deepcopy(agent.policy).eval()
    agent.g_optimizer = torch.optim.SGD(trained(agent.policy), lr=0.0)  # type: ignore[assignment]
    clipped, seen, cut = agent._clipped, [], []

    def watched(*columns: torch.Tensor) -> dict[str, Any]:
        sums = clipped(*columns)
        seen.append(columns)
        cut.append(float(sums["clipped"][0]))
        return sums

    monkeypatch.setattr(agent, "_clipped", watched)
    numbers = agent.g_step(step_of(0, "test"))
    tokens_BT, own_BT, _, then_BT, kept_BT, seed_B, episode_B = seen[0]
    given_BT = own_BT & (own_BT.cumsum(1) == 1)
    # Its texts again, by stepping, each draw with its probability.
    again = complete(agent.policy, tokens_BT, given_BT, keys=Keys(seed_B, episode_B), scored=True)
    assert again.logp_RT is not None
    assert torch.equal(again.tokens_RT, tokens_BT[again.row_R])
    for scored_BT in (then_BT, kept_BT):
        torch.testing.assert_close(scored_BT[again.row_R].double(), again.logp_RT, atol=1e-6, rtol=1e-5)
    # Nothing moves, so each token is as probable in both epochs as it was, and as the reference finds it.
    assert cut == [0.0, 0.0]
    assert float(numbers["kl"]) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("control", ["constant", "random", "shuffled", "untrained"])
def test_every_control_runs_and_a_constant_reward_moves_no_bit(control: str) -> None:
    agent = GRPO(replace(TINY, control=control), TASK)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    agent.g_step(step_of(0, "test"))
    moved = any(not before[name].equal(value) for name, value in agent.policy.state_dict().items())
    assert moved == (control != "constant")


@pytest.mark.parametrize(("options", "sentence"), [
    ({"group_size": 3}, "a divisor of batch_size, found 3 and 8"), ({"group_size": 1}, "group_size must be at least 2"),
    ({"epochs": 0}, "epochs"), ({"clip_range": 0.0}, "clip_range"), ({"kl_coef": -1.0}, "kl_coef"),
    ({"longest_beginning": 3}, "longest_beginning must be below T=3"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, GRPO, replace(TINY, **options), TASK)
