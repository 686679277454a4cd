"""TextGAN: kernels and discrepancies by hand, its expected gradient by enumeration, its fixed point, the controls."""

import itertools
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch

from agents.textgan import TextGAN, TextGANConfig
from conftest import assert_refused, step_of
from exact import (
    autograd_of,
    best_discriminator,
    expected_gradient,
    gradient_of_step,
    relative_error,
    table_policy,
)
from textgan_env.discriminators import Discriminator, PairDiscriminator, score_features
from textgan_env.ops.kernels import FeatureKernel, squared_mmd
from textgan_env.ops.relaxation import race_noise, soft_tokens
from textgan_env.policies import PolicyModule, TablePolicy
from textgan_env.rewards import Keys, Texts, WitnessCredit, witness
from textgan_env.tasks import ToyTask
from textgan_env.training.relaxed import RelaxedTexts
from textgan_env.training.schedule import Step

TASK = ToyTask(vocab_size=3, max_length=3, size=500)
SMALL = ToyTask(vocab_size=2, max_length=2, size=50)
TINY = TextGANConfig(
    preset="smoke", task="toy", mle_epochs=1, d_pretraining=1, rounds=2, g_steps=1, batch_size=8, d_batch_size=250,
    embed_size=4, hidden_size=4, threads=1, show_samples=0, max_grad_norm=1e8, real_texts=64,
)  # fmt: skip


def learner(policy: PolicyModule, task: ToyTask = TASK, **changes: Any) -> TextGAN:
    """The agent with a tabular policy, and a discriminator that stays as it was drawn: random features."""
    agent = TextGAN(replace(TINY, **changes), task)
    agent.policy = policy
    agent.g_optimizer = torch.optim.Adam(agent.policy.parameters(), lr=0.1)
    return agent


def whole(tokens_BT: torch.Tensor) -> Texts:
    """Finished texts without an end token."""
    rows, length = tokens_BT.shape
    return Texts.finished(tokens_BT, torch.full((rows,), length), Keys.counted(0, rows), None)


def gradient_of(agent: TextGAN, tokens_BT: torch.Tensor) -> torch.Tensor:
    """The gradient that a g-step follows when G writes these texts."""
    with patch.object(agent, "go_on", lambda *_: whole(tokens_BT)):
        return gradient_of_step(agent, "g_optimizer", tokens_BT)


def real_shares(task: ToyTask) -> torch.Tensor:
    """Share of each of the task's texts in the train split, float64 (S,)."""
    train_BT = task.writable("train")
    return (task.texts_ST[:, None] == train_BT).all(2).double().mean(1)


def test_features_are_compared_in_median_distances() -> None:
    kernel, mean = FeatureKernel("gaussian"), FeatureKernel("mean")
    real_RF = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]])  # distances 5, 4, 3
    for one in (kernel, mean):
        one.measure(real_RF)
        assert float(one.unit) == 4.0
    expected = sum(torch.tensor(-((5 / 4) ** 2) / (2 * width**2)).exp() for width in (0.5, 1, 2)) / 3
    assert float(kernel(real_RF, real_RF)[0, 1]) == pytest.approx(float(expected))
    assert float(mean(real_RF, real_RF)[1, 2]) == 1.0  # 16 / 4^2
    scaled = FeatureKernel("gaussian")
    scaled.measure(10 * real_RF + 7)
    torch.testing.assert_close(scaled(10 * real_RF + 7, 10 * real_RF + 7), kernel(real_RF, real_RF))
    kernel.measure(torch.zeros(3, 2))
    assert torch.isfinite(kernel(real_RF, real_RF)).all()


@pytest.mark.parametrize("kind", ["gaussian", "mean"])
def test_the_estimate_of_two_equal_distributions_has_mean_0_and_is_not_clamped(kind: str) -> None:
    """All pairs of two samples of two from three points: 81."""
    points_RF, shares = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]]), (0.2, 0.3, 0.5)
    kernel, total, lowest = FeatureKernel(kind), 0.0, 0.0
    for places in itertools.product(range(3), repeat=4):
        own_BF, real_RF = points_RF[[*places[:2]]], points_RF[[*places[2:]]]
        found = float(squared_mmd(kernel(own_BF, own_BF), kernel(own_BF, real_RF), kernel(real_RF, real_RF)))
        total += found * shares[places[0]] * shares[places[1]] * shares[places[2]] * shares[places[3]]
        lowest = min(lowest, found)
    assert total == pytest.approx(0.0, abs=1e-12)
    assert lowest < -0.1


def test_with_the_mean_kernel_it_is_the_squared_distance_of_the_means() -> None:
    """Less what comparing each text with itself adds."""
    generator = torch.Generator().manual_seed(3)
    own_BF, real_RF = (torch.randn(rows, 4, generator=generator, dtype=torch.float64) for rows in (5, 7))
    kernel = FeatureKernel("mean")
    found = squared_mmd(kernel(own_BF, own_BF), kernel(own_BF, real_RF), kernel(real_RF, real_RF))
    biased = (own_BF.mean(0) - real_RF.mean(0)).square().sum()
    spread = [one.var(0).sum() / len(one) for one in (own_BF, real_RF)]  # variances of the means
    torch.testing.assert_close(found, biased - spread[0] - spread[1])


@pytest.mark.parametrize("kind", ["gaussian", "mean"])
def test_the_expected_gradient_is_that_of_the_squared_discrepancy(kind: str) -> None:
    """All batches of three of the four texts; the real ones are the whole train split."""
    policy = table_policy(SMALL)
    agent = learner(policy, SMALL, batch_size=3, kernel=kind)
    real_S = real_shares(SMALL)
    assert agent.discriminator is not None
    features_SF = score_features(agent.discriminator, SMALL.texts_ST)
    found_P = expected_gradient(SMALL, policy, 3, partial(gradient_of, agent))
    k_SS: torch.Tensor = agent.kernel(features_SF, features_SF)  # measured by the steps above

    def discrepancy() -> torch.Tensor:
        far_S = SMALL.text_log_prob(policy).exp() - real_S
        return far_S @ k_SS @ far_S

    assert relative_error(found_P, autograd_of(policy, discrepancy)) < 1e-6


@pytest.mark.parametrize("kind", ["gaussian", "mean"])
def test_where_g_is_the_distribution_of_the_real_texts_it_expects_no_movement(kind: str) -> None:
    real_S = real_shares(SMALL).view(2, 2)  # first token, second token
    policy = table_policy(SMALL)
    first_V, second_VV = real_S.sum(1).log(), (real_S / real_S.sum(1, keepdim=True)).log()
    with torch.no_grad():
        policy.logits_PV.copy_(torch.cat([first_V[None], second_VV]))
    torch.testing.assert_close(SMALL.text_log_prob(policy).exp(), real_S.flatten())
    agent = learner(policy, SMALL, batch_size=3, kernel=kind)
    assert float(gradient_of(agent, SMALL.texts_ST[[0, 1, 3]]).norm()) > 1e-3
    assert float(expected_gradient(SMALL, policy, 3, partial(gradient_of, agent)).norm()) < 1e-6


def test_a_credit_is_minus_twice_the_witness_less_that_of_the_others_among_themselves() -> None:
    """By plain loops, over texts of several lengths; permuting rows permutes it, and filling has none."""
    generator = torch.Generator().manual_seed(5)
    lengths_B = torch.tensor([1, 4, 2, 4, 3])
    tokens_BT = torch.randint(5, (5, 4), generator=generator)
    tokens_BT[torch.arange(4) >= lengths_B[:, None]] = 5
    real_RT = torch.randint(5, (6, 4), generator=generator)
    discriminator, kernel = PairDiscriminator(5, 4, seed=1), FeatureKernel()
    source = WitnessCredit(discriminator, real_RT, kernel)
    kernel.measure(source.real_RF)
    texts = Texts.finished(tokens_BT, lengths_B, Keys.counted(0, 5), None)
    with torch.no_grad():
        all_RF = discriminator.features(torch.cat([tokens_BT, real_RT]))
    k: list[list[float]] = kernel(all_RF, all_RF).tolist()
    others = {i: [j for j in range(5) if j != i] for i in range(5)}

    def witness(i: int, among: list[int]) -> float:
        return sum(k[i][j] for j in among) / len(among) - sum(k[i][r] for r in range(5, 11)) / 6

    expected = []
    for i, rest in others.items():
        without = [witness(j, [one for one in rest if one != j]) for j in rest]
        expected.append(-2 * (witness(i, rest) - sum(without) / 4))
    found_BT = source.credit(texts, texts.mask_BT)
    torch.testing.assert_close(found_BT, torch.tensor(expected)[:, None] * texts.mask_BT)
    order_B = torch.tensor([3, 0, 4, 2, 1])
    permuted = Texts.finished(tokens_BT[order_B], lengths_B[order_B], Keys.counted(0, 5), None)
    torch.testing.assert_close(source.credit(permuted, permuted.mask_BT), found_BT[order_B])


def test_a_relaxed_gradient_is_that_of_the_discrepancy_of_soft_texts() -> None:
    """Here in one piece; the agent takes the gradient in the texts first."""
    policy, beta = table_policy(TASK), 2.0
    agent = learner(policy, batch_size=5, gradient="relaxed", inverse_temperature=beta)
    discriminator = agent.discriminator = PairDiscriminator(3, 3, seed=2).double()
    tokens_BT, generator = TASK.texts_ST[[3, 8, 14, 20, 3]], torch.Generator().manual_seed(0)
    fake = RelaxedTexts(whole(tokens_BT), race_noise(tokens_BT, 3, generator), beta)
    with patch.object(agent, "relaxed", lambda *_: fake):
        found_P = gradient_of_step(agent, "g_optimizer", tokens_BT)
        step = step_of(0, "exact")
        real_RF = agent.witness(step).real_RF

    def discrepancy() -> torch.Tensor:
        soft_BTV = soft_tokens(policy.all_log_probs(tokens_BT), tokens_BT, fake.noise_BTV, beta)
        own_BF = discriminator.relaxed_features(soft_BTV, torch.ones(5, 3, dtype=torch.bool))
        k = agent.kernel
        return squared_mmd(k(own_BF, own_BF), k(own_BF, real_RF), k(real_RF, real_RF))

    assert relative_error(found_P, autograd_of(policy, discrepancy)) < 1e-6


def distance_after(agent: TextGAN, steps: int, best: bool) -> float:
    """Cover + fit over what they were, after some g-steps, with the best discriminator of each or one that stays."""
    before = sum(TASK.divergences(agent.policy))
    for number in range(steps):
        if best:
            agent.discriminator = best_discriminator(TASK, agent.policy)  # type: ignore[assignment]
        agent.g_step(step_of(0, "test", number))
    return sum(TASK.divergences(agent.policy)) / before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "mean"])
def test_matching_the_logit_of_the_best_discriminator_comes_nearer_to_the_law(kind: str) -> None:
    agent = learner(TablePolicy(3, max_length=3), batch_size=256, kernel=kind, real_texts=100)
    assert distance_after(agent, 60, best=True) < 0.2  # .04 and .01


@pytest.mark.slow
@pytest.mark.parametrize(("beta", "least", "most"), [(5.0, 0.0, 0.2), (1.0, 1.0, 2.0)])  # .09 and 1.19
def test_mixtures_that_are_too_soft_have_other_features_than_words(beta: float, least: float, most: float) -> None:
    """Real texts are hard: with Gaussians over the best logit, G is led away from the law at beta 1."""
    options: dict[str, Any] = {"gradient": "relaxed", "inverse_temperature": beta}
    agent = learner(TablePolicy(3, max_length=3), batch_size=256, real_texts=100, **options)
    assert least < distance_after(agent, 30, best=True) < most


@pytest.mark.slow
def test_random_features_lead_nearer_to_the_law_than_their_means() -> None:
    options: dict[str, Any] = {"batch_size": 256, "control": "untrained", "real_texts": 100}
    left = [
        distance_after(learner(TablePolicy(3, max_length=3), kernel=kind, **options), 60, best=False)
        for kind in ("gaussian", "mean")
    ]
    assert left[0] < 0.2 < left[1] < 0.8  # .10 and .41


@pytest.mark.parametrize("control", ["constant", "random", "shuffled"])
def test_a_reward_that_knows_nothing_brings_it_no_nearer(control: str) -> None:
    agent = learner(TablePolicy(3, max_length=3), batch_size=64, control=control)
    assert distance_after(agent, 20, best=False) > 0.9


@pytest.mark.parametrize("control", ["constant", "random", "shuffled", "untrained"])
def test_every_control_runs_and_a_constant_reward_moves_no_bit(control: str) -> None:
    agent = TextGAN(replace(TINY, control=control), TASK)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    assert "squared_mmd" in agent.g_step(step_of(0, "test"))
    gone = max(float((value - before[name]).abs().max()) for name, value in agent.policy.state_dict().items())
    assert (gone > 1e-3) == (control != "constant")


def test_the_unit_of_the_kernel_is_measured_once_a_round_and_belongs_to_a_checkpoint() -> None:
    agent = learner(TablePolicy(3, max_length=3))
    units = []
    for at, repeat in enumerate((0, 1, 2, 0)):
        agent.g_step(Step(seed=at, repeat=repeat))
        units.append(float(agent.modules["kernel"].state_dict()["unit"]))
    assert units[0] == units[1] == units[2] != units[3]


def test_a_g_step_reads_the_texts_once_for_their_credit_and_for_the_discrepancy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent, read = TextGAN(TINY, TASK), []

    def counted(discriminator: Discriminator, tokens_BT: torch.Tensor) -> torch.Tensor:
        read.append(len(tokens_BT))
        return score_features(discriminator, tokens_BT)

    monkeypatch.setattr(witness, "score_features", counted)
    agent.g_step(step_of(0, "test"))
    assert sorted(read) == [TINY.batch_size, TINY.real_texts]
    first, other = (agent.generated(torch.Generator().manual_seed(seed), 8) for seed in (0, 1))
    fresh = agent.witness(step_of(0, "test"))
    expected = float(fresh.squared_mmd(other))
    fresh.credit(first, first.mask_BT)
    assert float(fresh.squared_mmd(other)) == expected != float(fresh.squared_mmd(first))


def test_what_cannot_be_compared_is_refused() -> None:
    discriminator, real_RT = PairDiscriminator(3, 3), TASK.texts_ST[:4]
    assert_refused("at least 2 real texts, found 1", WitnessCredit, discriminator, real_RT[:1], FeatureKernel())
    texts = whole(TASK.texts_ST[:2])
    source = WitnessCredit(discriminator, real_RT, FeatureKernel())
    assert_refused("at least 3 side by side, found 2", source.credit, texts, texts.mask_BT)
    unfinished = Texts(TASK.texts_ST[:3], torch.tensor([3, 3, 2]), torch.tensor([True, True, False]), texts.keys, None)
    assert_refused("before the text has ended", source.credit, unfinished, unfinished.mask_BT)
    assert_refused("unknown kernel 'cosine'", FeatureKernel, "cosine")


@pytest.mark.parametrize(("options", "sentence"), [
    ({"batch_size": 2}, "batch_size must be at least 3"), ({"real_texts": 1}, "real_texts must be at least 2"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, TextGAN, replace(TINY, **options), TASK)


def test_a_relaxed_gradient_refuses_a_discriminator_that_has_none_in_its_tokens() -> None:
    config = TextGANConfig(task="toy", discriminator="lm", gradient="relaxed")
    only = "a gradient reaches the tokens through pair, conv, recurrent only: found --discriminator lm"
    assert_refused(only, TextGAN, config, ToyTask(size=10))
    # By its features' score it can learn: there it is the task that is refused.
    assert_refused(
        "reads words, the tokens of task 'toy' are numbers",
        TextGAN,
        replace(config, gradient="score"),
        ToyTask(size=10),
    )
