"""RelGAN: its gradient by finite differences, its bias by enumeration, where it stops, and its controls."""

import copy
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from agents.relgan import PRESETS, RelGAN, RelGANConfig
from conftest import assert_refused, step_of, steps_of
from exact import autograd_of, best_discriminator, gradient_of_step, relative_error, table_policy
from textgan_env.discriminators import PairDiscriminator
from textgan_env.ops.relaxation import race_noise, soft_tokens
from textgan_env.policies import PolicyModule, TablePolicy
from textgan_env.rewards import Keys, Texts
from textgan_env.tasks import ToyTask
from textgan_env.training.relaxed import RelaxedTexts
from textgan_env.training.schedule import Step

TASK = ToyTask(vocab_size=3, max_length=3, size=500)
TINY = RelGANConfig(
    preset="smoke", task="toy", mle_epochs=1, d_pretraining=1, rounds=2, g_steps=2, batch_size=8, d_batch_size=50,
    d_steps=0, d_batches=1, embed_size=4, hidden_size=4, threads=1, show_samples=0, max_grad_norm=1e8,
)  # fmt: skip


def learner(policy: PolicyModule, task: ToyTask = TASK, **changes: Any) -> RelGAN:
    """The agent with a tabular policy, and no steps of D unless asked for."""
    agent = RelGAN(replace(TINY, **{"d_batches": 0, **changes}), task)
    agent.policy = policy
    agent.g_optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    return agent


def relaxed(tokens_BT: Tensor, beta: float, seed: int = 0) -> RelaxedTexts:
    """These whole texts with some noise."""
    length_B = (tokens_BT != TASK.vocab_size).sum(1)
    texts = Texts.finished(tokens_BT, length_B, Keys.counted(0, len(tokens_BT)), None)
    return RelaxedTexts(texts, race_noise(tokens_BT, 3, torch.Generator().manual_seed(seed)), beta)


@pytest.mark.parametrize("relaxation", ["soft", "straight-through"])
def test_its_gradient_is_that_of_the_relativistic_loss_with_noise_and_tokens_as_they_are(relaxation: str) -> None:
    """By finite differences of a plain version: texts of 3, 1 and 2 tokens."""
    policy, beta = table_policy(TASK), 2.5
    agent = learner(policy, batch_size=3, relaxation=relaxation)
    pair = PairDiscriminator(3, 3, rank=2, seed=4).double()
    torch.nn.init.normal_(pair.single, generator=torch.Generator().manual_seed(1))
    agent.discriminator = pair
    tokens_BT = torch.tensor([[0, 2, 1], [1, 3, 3], [2, 0, 3]])
    real_BT = torch.tensor([[1, 1, 0], [2, 2, 2], [0, 1, 3]])
    fake = relaxed(tokens_BT, beta)
    with patch.object(agent, "relaxed", lambda *_: fake), patch.object(agent, "real_texts", lambda *_, **__: real_BT):
        found_P = gradient_of_step(agent, "g_optimizer", tokens_BT)
    weight_PV, real_B = policy.logits_PV.detach().clone(), pair.logits(real_BT).detach()

    def soft(logits_PV: Tensor) -> Tensor:
        """Each row by itself: log-probabilities, arrival times, and the softmax of what is less late."""
        moved_policy = copy.deepcopy(policy)
        with torch.no_grad():
            moved_policy.logits_PV.copy_(logits_PV)
            moved, still = (one.all_log_probs(tokens_BT) for one in (moved_policy, policy))
        noise, rows = fake.noise_BTV.double(), []
        for row, place in np.ndindex(3, 3):
            token = int(tokens_BT[row, place])
            late = [float(noise[row, place, min(token, 2)]) for _ in range(3)]
            for other in {0, 1, 2} - {token}:
                late[other] += float(noise[row, place, other] / still[row, place, other].exp())
            shift = (moved - still)[row, place]
            rows.append((beta * (shift - torch.tensor(late, dtype=torch.float64).log())).softmax(0))
        return torch.stack(rows).view(3, 3, 3)

    def loss(logits_PV: Tensor) -> float:
        soft_BTV = soft(logits_PV)
        if relaxation == "straight-through":  # linear in the mixtures, with the slope at the tokens
            hard_BTV = functional.one_hot(tokens_BT.clamp(max=2), 3).double().requires_grad_()
            (slope,) = torch.autograd.grad(at(hard_BTV), hard_BTV)
            return float((slope * soft_BTV).sum())
        return float(at(soft_BTV).detach())

    def at(read_BTV: Tensor) -> Tensor:
        fake_B = pair.relaxed_logits(read_BTV, tokens_BT != 3)
        return -(fake_B - real_B).sigmoid().log().sum() / 3

    expected_P = torch.zeros_like(weight_PV)
    for cell in np.ndindex(*weight_PV.shape):
        nudge = torch.zeros_like(weight_PV)
        nudge[cell] = 1e-5
        expected_P[cell] = (loss(weight_PV + nudge) - loss(weight_PV - nudge)) / 2e-5
    assert relative_error(found_P, expected_P.flatten()) < 1e-6


def nodes(policy: PolicyModule, text_T: Tensor, points: int = 120) -> tuple[Tensor, Tensor]:
    """Noise that stands for all noise of a text over two tokens, float64 (R, T, 2), and its weights (R,).

    How much later the other token is, on a logarithmic scale, has a logistic distribution cut off at 0; Gauss-Legendre
    points of its distribution function, denser where the two arrive together.
    """
    point, weight = np.polynomial.legendre.leggauss(points)
    at = torch.from_numpy((point + 1) / 2)
    share_U, weight_U = at**3, 3 * at**2 * torch.from_numpy(weight / 2)
    token_T = policy.log_prob(text_T[None], torch.ones(1, len(text_T), dtype=torch.bool))[0].detach().exp()
    noise_R, weight_R = torch.ones(1, 0, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for token, probability in zip(text_T.tolist(), token_T, strict=True):
        gap_U = torch.logit(probability) - torch.logit(probability * (1 - share_U))
        noise_U2 = torch.ones(points, 2, dtype=torch.float64)
        noise_U2[:, 1 - token] = (1 - probability) * torch.expm1(gap_U)
        before, after = noise_R.repeat_interleave(points, 0), noise_U2.repeat(len(noise_R), 1)
        noise_R = torch.cat([before, after[:, None]], dim=1)
        weight_R = (weight_R[:, None] * weight_U).flatten()
    return noise_R, weight_R


@pytest.mark.parametrize(("length", "beta", "off"), [
    (1, 1.0, 0.3176), (1, 5.0, 0.0271), (1, 100.0, 0.0001),
    (2, 1.0, 0.3339), (2, 5.0, 0.0685), (2, 100.0, 0.0533),
])  # fmt: skip
def test_its_gradient_is_off_by_so_much_of_its_length(length: int, beta: float, off: float) -> None:
    """Against the true gradient of the relativistic loss, the best D: all texts, all noise.

    A text of one token: the bias goes with the temperature. Of two: what the first does to the second stays unseen.
    """
    task = ToyTask(vocab_size=2, max_length=length, size=50)
    policy = table_policy(task)
    best, p_S = best_discriminator(task, policy), task.logp_S.exp()
    z_S = best.logits(task.texts_ST).double()

    def true() -> Tensor:
        q_S = task.text_log_prob(policy).exp()
        return q_S @ functional.softplus(z_S - z_S[:, None]) @ p_S

    parts = [nodes(policy, text_T) for text_T in task.texts_ST]
    tokens_RT = torch.cat([text_T.expand(len(part[1]), -1) for text_T, part in zip(task.texts_ST, parts, strict=True)])
    q_S = task.text_log_prob(policy).detach().exp()
    weight_R = torch.cat([q * weight for q, (_, weight) in zip(q_S, parts, strict=True)])
    assert float(weight_R.sum()) == pytest.approx(1, abs=1e-9)

    def followed() -> Tensor:
        noise_RTV = torch.cat([noise for noise, _ in parts])
        soft_RTV = soft_tokens(policy.all_log_probs(tokens_RT), tokens_RT, noise_RTV, beta)
        fake_R = best.relaxed_logits(soft_RTV, torch.ones_like(tokens_RT, dtype=torch.bool))
        return weight_R @ functional.softplus(z_S - fake_R[:, None]) @ p_S

    found_P, expected_P = autograd_of(policy, followed), autograd_of(policy, true)
    assert relative_error(found_P, expected_P) == pytest.approx(off, abs=2e-4)
    assert float(functional.cosine_similarity(found_P, expected_P, dim=0)) > 0.999


def test_where_g_is_the_true_distribution_the_best_discriminator_moves_no_text() -> None:
    policy = TablePolicy.from_text_probabilities(TASK.logp_S.exp(), vocab_size=3, max_length=3)
    agent = learner(policy, batch_size=32)
    agent.discriminator = best_discriminator(TASK, policy)  # type: ignore[assignment]
    agent.g_step(step_of(0, "test"))
    assert sum(TASK.divergences(policy)) < 1e-6


@pytest.mark.parametrize("relaxation", ["soft", "straight-through"])
def test_it_comes_nearer_to_the_law_against_the_best_discriminator(relaxation: str) -> None:
    agent = learner(
        TablePolicy(3, max_length=3), batch_size=128, relaxation=relaxation, rounds=20, inverse_temperature=9
    )
    before = sum(TASK.divergences(agent.policy))
    for number in range(40):
        agent.discriminator = best_discriminator(TASK, agent.policy)  # type: ignore[assignment]
        agent.g_step(Step(seed=number, round=number // 2, repeat=number % 2))
    assert sum(TASK.divergences(agent.policy)) < 0.2 * before


def test_beta_rises_from_1_as_a_power_and_ends_where_it_was_said() -> None:
    agent = learner(TablePolicy(3, max_length=3), rounds=2, g_steps=2, inverse_temperature=16.0)
    found = [agent.beta(Step(0, round=round_, repeat=repeat)) for round_ in range(2) for repeat in range(2)]
    assert found == pytest.approx([2, 4, 8, 16])
    agent = learner(TablePolicy(3, max_length=3), inverse_temperature=16.0, anneal=False)
    assert agent.beta(Step(0)) == 16
    assert [PRESETS["paper"](task).inverse_temperature for task in ("oracle", "coco")] == pytest.approx(
        [15.85, 6.31], abs=0.01
    )


@pytest.mark.parametrize("relaxation", ["soft", "straight-through"])
def test_it_takes_turns_with_d_unless_d_is_never_to_learn(relaxation: str) -> None:
    for control in (None, "shuffled", "untrained"):
        agent = RelGAN(replace(TINY, control=control, relaxation=relaxation), TASK)  # type: ignore[arg-type]
        before = {name: value.clone() for name, value in agent.modules["discriminator"].state_dict().items()}
        numbers = agent.g_step(step_of(0, "test"))
        after = agent.modules["discriminator"].state_dict()
        learns = control != "untrained"
        assert any(not torch.equal(after[name], value) for name, value in before.items()) == learns
        assert ("d_loss" in numbers) == ("ask_d" in steps_of(agent)) == learns


def test_shuffled_gives_each_text_the_gradient_of_another() -> None:
    soft_BTV = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(0))
    weight_BTV = torch.arange(36.0).view(4, 3, 3)
    found = {}
    for control in (None, "shuffled"):
        agent = learner(TablePolicy(3, max_length=3), control=control)
        slope, total = agent.slope(soft_BTV, lambda soft: (soft * weight_BTV).sum(), torch.Generator().manual_seed(1))
        assert float(total) == pytest.approx(float((soft_BTV * weight_BTV).sum()))
        found[control] = slope
    assert torch.equal(found[None], weight_BTV)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(found["shuffled"], weight_BTV[order])
    assert not torch.equal(found["shuffled"], weight_BTV)


@pytest.mark.parametrize("kind", ["lm", "rank"])
def test_a_discriminator_without_a_gradient_in_its_tokens_is_refused_before_anything_is_trained(kind: str) -> None:
    only = f"a gradient reaches the tokens through pair, conv, recurrent only: found --discriminator {kind}"
    assert_refused(only, RelGAN, replace(PRESETS["smoke"]("toy"), discriminator=kind), ToyTask(size=10))
