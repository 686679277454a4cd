"""SeqGAN: the estimator against enumeration, baselines and controls by hand, the whole agent, and what it refuses."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.mle import MLE, MLEConfig
from agents.seqgan import SeqGAN, SeqGANConfig
from conftest import WatchedToyTask, assert_same_training, interrupted, step_of, steps_of
from textgan_env import load
from textgan_env.discriminators import ReplayedTexts, discriminator_report
from textgan_env.envs import EpisodeBatch, TextGANVectorEnv
from textgan_env.ops import metrics
from textgan_env.ops.losses import policy_gradient_sum
from textgan_env.ops.sampling import derived_seed, draw_seed
from textgan_env.policies import LSTMPolicy, PolicyModule, TablePolicy
from textgan_env.rewards import EntropyCredit, Keys, generate
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import ToyTask
from textgan_env.training.launch import launch
from textgan_env.training.schedule import Steps
from textgan_env.utils.errors import InputError

V, T = 3, 3
TASK = ToyTask(vocab_size=V, max_length=T, size=200)
TINY = SeqGANConfig(
    preset="smoke", task="toy", mle_epochs=1, d_pretraining=1, rounds=2, g_steps=1, batch_size=8, rollouts=2,
    d_batch_size=250, embed_size=4, hidden_size=4, threads=1, show_samples=0,
)  # fmt: skip


class TableJudge(nn.Module):
    """The logit of each of the V^T texts, from a table: the reward of every text is known."""

    def __init__(self, logits_S: Tensor) -> None:
        super().__init__()
        self.logits_S = nn.Parameter(logits_S, requires_grad=False)
        self.vocab_size, self.max_length, self.feature_size = V, T, 1

    def logits(self, tokens_BT: Tensor) -> Tensor:
        number_B = torch.zeros_like(tokens_BT[:, 0])
        for tokens_B in tokens_BT.clamp(max=V - 1).unbind(1):
            number_B = number_B * V + tokens_B
        return self.logits_S[number_B]

    def features(self, tokens_BT: Tensor) -> Tensor:
        return self.logits(tokens_BT)[:, None]


def judge() -> TableJudge:
    """Finds one text real (reward .982), the others at random, .52 on average with it."""
    logits_S = torch.randn(V**T, generator=torch.Generator().manual_seed(3))
    logits_S[17] = 4.0
    return TableJudge(logits_S)


def exact_return(policy: PolicyModule, reward_S: Tensor) -> Tensor:
    """E[R] by listing all texts, differentiable."""
    texts_ST = TASK.texts_ST
    probability_S = policy.log_prob(texts_ST, torch.ones_like(texts_ST, dtype=torch.bool)).sum(1).exp()
    return (probability_S * reward_S).sum()


def learner(**changes: object) -> SeqGAN:
    """The agent on the toy task, with a tabular policy and the judge whose every reward is known."""
    options: dict[str, Any] = {"batch_size": 64, "kl_coef": 0.0, "transform": "prob", "learning_rate": 0.1} | changes
    config = replace(TINY, **options)
    agent = SeqGAN(config, TASK)
    agent.policy = TablePolicy(V, max_length=T)
    agent.g_optimizer = torch.optim.Adam(agent.policy.parameters(), lr=options["learning_rate"])
    if agent.envs.game.reward.judged:
        agent.discriminator = judge()  # type: ignore[assignment]
    return agent


def reward_after(agent: SeqGAN, steps: int) -> float:
    for step in range(steps):
        agent.g_step(step_of(0, "test", step))
    with torch.no_grad():
        return float(exact_return(agent.policy, judge().logits_S.sigmoid()))


def test_reinforce_with_rollouts_reaches_the_enumerated_optimum() -> None:
    """The best text has a reward of .982; a uniform policy expects .52 and stays there under the constant reward."""
    reward_S = judge().logits_S.sigmoid()
    optimum, uniform = float(reward_S.max()), float(reward_S.mean())
    assert reward_after(learner(), 0) == pytest.approx(uniform) == pytest.approx(0.52, abs=0.03)
    assert reward_after(learner(rollouts=4), 80) > optimum - 0.02


@pytest.mark.slow
def test_the_whole_texts_reward_without_rollouts_reaches_it_too() -> None:
    assert reward_after(learner(rollouts=0, learning_rate=0.2), 150) > float(judge().logits_S.sigmoid().max()) - 0.02


@pytest.mark.slow
def test_with_bleu_as_the_reward_it_reaches_the_text_of_the_highest_bleu() -> None:
    """All 27 texts against three training texts: the best BLEU is that of a copy, and no judge learns."""
    task = ToyTask(vocab_size=V, max_length=T, size=3)
    training = task.split("train").tokens_BT.tolist()
    reward_S = torch.tensor([metrics.bleu([text], training, 4)[4] for text in task.texts_ST.tolist()])
    optimum, uniform = float(reward_S.max()), float(reward_S.mean())
    assert optimum == pytest.approx(0.1**0.25) == pytest.approx(metrics.bleu(training, training, 4)[4])
    options = {"batch_size": 64, "kl_coef": 0.0, "transform": "prob", "learning_rate": 0.1, "discriminator": "bleu"}
    agent = SeqGAN(replace(TINY, rollouts=4, **options), task)  # type: ignore[arg-type]
    assert steps_of(agent) == {"mle_epoch", "g_step"}
    agent.policy = TablePolicy(V, max_length=T)
    agent.g_optimizer = torch.optim.Adam(agent.policy.parameters(), lr=0.1)
    for step in range(60):
        agent.g_step(step_of(0, "test", step))
    with torch.no_grad():
        assert float(exact_return(TablePolicy(V, max_length=T), reward_S)) == pytest.approx(uniform)
        assert uniform < optimum - 0.1
        assert float(exact_return(agent.policy, reward_S)) > optimum - 0.02


def test_a_run_with_bleu_as_the_reward_goes_on_and_has_no_discriminator(tmp_path: Path) -> None:
    run = launch(replace(TINY, runs=tmp_path, discriminator="bleu", control="shuffled"), SeqGAN)
    assert not any("d_auc" in row for row in read_metrics(run.path))
    assert launch(replace(TINY, resume=run.path), SeqGAN).path == run.path
    assert load(run.path).discriminator is None


@pytest.mark.parametrize("control", ["constant", "random"])
def test_a_reward_that_knows_nothing_learns_nothing(control: str) -> None:
    """With the leave-one-out baseline these rewards have no gradient in expectation; the optimum is .982."""
    assert reward_after(learner(control=control), 50) < 0.75  # .97 with its own reward


def test_a_constant_reward_has_exactly_no_gradient_with_the_leave_one_out_baseline() -> None:
    agent = learner(control="constant")
    assert agent.g_step(step_of(0, "test"))["gradient_norm"] == 0
    assert torch.equal(agent.policy.logits_PV, torch.zeros_like(agent.policy.logits_PV))


def test_the_untrained_control_asks_a_discriminator_that_never_learns() -> None:
    agent = SeqGAN(replace(TINY, control="untrained"), TASK)
    assert agent.discriminator is not None
    weights = {name: value.clone() for name, value in agent.discriminator.state_dict().items()}
    assert steps_of(agent) == {"mle_epoch", "g_step"}
    agent.g_step(step_of(0, "a"))
    assert agent.envs.game.reward.judged
    assert all(torch.equal(weights[name], value) for name, value in agent.discriminator.state_dict().items())


@pytest.mark.slow
def test_signal_and_noise_of_the_gradient_are_what_many_batches_show() -> None:
    """A ratio of two estimates, so too high on average where, as here, the noise has few dimensions."""
    agent = learner(rollouts=0, learning_rate=1e-12, batch_size=256)
    snr, gradients = [], []
    for step in range(60):
        snr.append(agent.g_step(step_of(1, step))["gradient_snr"])
        assert agent.policy.logits_PV.grad is not None
        gradients.append(agent.policy.logits_PV.grad.flatten().double().clone())
    batches = torch.stack(gradients)
    variance = float(batches.var(0).sum())
    signal = float(batches.mean(0).square().sum()) - variance / len(batches)
    assert signal / variance < sum(snr) / len(snr) < 1.6 * signal / variance
    noise = learner(control="random", learning_rate=1e-12)
    nothing = [noise.g_step(step_of(1, step))["gradient_snr"] for step in range(100)]
    assert 0.35 < sum(value > 0 for value in nothing) / 100 < 0.65


def assert_estimates(
    envs: TextGANVectorEnv, policy: TablePolicy, objective: Callable[[EpisodeBatch, Tensor], Tensor], exact: Tensor
) -> None:
    """The mean gradient of 60 batches is the exact one, within four standard errors."""
    envs.reset(seed=0)
    estimates = []
    for _ in range(60):
        batch = envs.collect(policy)
        policy.zero_grad()
        objective(batch, policy.log_prob(batch.tokens_BT, batch.mask_BT)).backward()
        assert policy.logits_PV.grad is not None
        estimates.append(policy.logits_PV.grad.clone())
    mean, error = torch.stack(estimates).mean(0), torch.stack(estimates).std(0) / len(estimates) ** 0.5
    assert ((mean - exact).abs() <= 4 * error + 1e-6).all()


def test_the_entropy_of_texts_rises_along_the_estimated_gradient_of_entropy() -> None:
    logits_PV = torch.randn(13, V, generator=torch.Generator().manual_seed(1))
    policy = TablePolicy(V, max_length=T, logits_PV=logits_PV)
    texts_ST = TASK.texts_ST
    logp_S = policy.log_prob(texts_ST, torch.ones_like(texts_ST, dtype=torch.bool)).sum(1)
    (-(logp_S.exp() * logp_S).sum()).backward()
    assert policy.logits_PV.grad is not None
    exact = policy.logits_PV.grad.clone()

    def entropy(batch: EpisodeBatch, logp_BT: Tensor) -> Tensor:
        credit_BT = EntropyCredit(policy, 1.0).credit(batch, batch.mask_BT)
        total, rows = policy_gradient_sum(logp_BT, credit_BT, batch.mask_BT)
        return -total / rows

    assert_estimates(TextGANVectorEnv(200, TASK, control="constant"), policy, entropy, exact)


@pytest.mark.parametrize("options", [
    {"rollouts": 0}, {"rollouts": 2}, {"rollouts": 2, "q_interval": 2}, {"rollouts": 2, "baseline": "prefix"},
    {"rollouts": 1, "baseline": "prefix", "q_interval": 2},
], ids=str)  # fmt: skip
def test_the_estimated_gradient_is_the_exact_one_within_four_standard_errors(options: dict[str, Any]) -> None:
    reward_S = judge().logits_S.sigmoid()
    policy = TablePolicy(V, max_length=T, logits_PV=torch.randn(13, V, generator=torch.Generator().manual_seed(1)))
    exact_return(policy, reward_S).backward()
    assert policy.logits_PV.grad is not None
    exact = policy.logits_PV.grad.clone()
    agent = learner(batch_size=200, **options)
    agent.queue_discriminator()

    def advantage(batch: EpisodeBatch, logp_BT: Tensor) -> Tensor:
        total, rows = policy_gradient_sum(logp_BT, agent.advantage(batch), batch.mask_BT)
        return -total / rows

    assert_estimates(agent.envs, policy, advantage, exact)


def test_the_baseline_of_the_prefix_before_by_hand() -> None:
    """Texts of three tokens and of one, a Q at every second token; further sources are compared with the other text."""
    agent = learner(baseline="prefix", q_interval=2)
    own_BT, more_BT = torch.tensor([[3.0, 3.0, 5.0], [7.0, 0.0, 0.0]]), torch.tensor([[0.3, 0.2, 0.1], [0.5, 0.0, 0.0]])
    texts = (torch.tensor([[0, 1, 2], [2, V, V]]), torch.tensor([3, 1]), torch.tensor([True, True]), Keys.counted(0, 2))
    batch = EpisodeBatch(*texts, 2, own_BT + more_BT, own_BT, own_BT)
    # Before the first Q there is that of the other text, where it reaches the token; the third token has 5 - 3.
    expected = [[3 - 7 + 0.3 - 0.5, 3 + 0.2, 5 - 3 + 0.1], [7 - 3 + 0.5 - 0.3]]
    found = agent.advantage(batch)
    assert found[0].tolist() == pytest.approx(expected[0], abs=1e-6)
    assert found[1, :1].tolist() == pytest.approx(expected[1], abs=1e-6)


@pytest.mark.parametrize("options", [{"q_interval": 2}, {"baseline": "prefix"}])
def test_what_needs_q_is_refused_without_completions(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--rollouts 0 completes no prefix"):
        SeqGAN(replace(TINY, rollouts=0, **options), TASK)
    with pytest.raises(InputError, match="q_interval"):
        SeqGAN(replace(TINY, q_interval=0), TASK)


def test_discriminators_that_judge_are_copies_and_steps_of_d_change_the_next_one() -> None:
    agent = SeqGAN(TINY, TASK)
    agent.g_step(step_of(0, "a"))
    before = agent.envs.game.discriminator
    weights = {name: value.clone() for name, value in before.state_dict().items()}  # type: ignore[attr-defined]
    report = agent.d_steps_of(1).alone(derived_seed(0, "b"))
    assert all(torch.equal(weights[name], value) for name, value in before.state_dict().items())  # type: ignore[attr-defined]
    agent.g_step(step_of(0, "c"))
    assert agent.envs.game.discriminator is not before
    assert 0 <= report["d_auc"] <= 1


def test_a_d_step_reports_on_valid_texts_and_texts_of_g_that_d_was_not_fitted_to() -> None:
    task = ToyTask(vocab_size=V, max_length=T, size=50)
    agent = SeqGAN(replace(TINY, device="cpu"), task)
    assert agent.discriminator is not None
    seed = derived_seed(0, "report")
    found = agent.d_steps_of(1).alone(seed)
    train, valid = len(task.writable("train")), len(task.writable("valid"))
    keys = Keys.counted(draw_seed(torch.Generator().manual_seed(seed)), train + valid)
    texts_BT, _ = generate(agent.policy, keys, T, end_token=None)
    expected = discriminator_report(agent.discriminator, task.writable("valid"), texts_BT[train:])
    assert (found["d_auc"], found["d_value"]) == pytest.approx((expected.auc, expected.value))
    for real_BT, fake_BT in ((task.writable("train"), texts_BT[train:]), (task.writable("valid"), texts_BT[:valid])):
        assert discriminator_report(agent.discriminator, real_BT, fake_BT).value != pytest.approx(expected.value)


def test_no_step_of_learning_ever_asks_for_the_test_split() -> None:
    task = WatchedToyTask(vocab_size=V, max_length=T, size=50)
    MLE(MLEConfig(task="toy", embed_size=4, hidden_size=4, device="cpu"), task).mle_steps_of("epoch").alone(0)
    assert task.asked == {"train"}
    agent = SeqGAN(replace(TINY, device="cpu"), task)
    for steps in (agent.mle_steps_of("mle_epoch"), agent.d_steps_of(1), Steps(agent.g_step)):
        steps.alone(0)
    assert task.asked == {"train", "valid"}


def test_the_kl_holds_the_policy_near_the_pre_trained_one() -> None:
    moved = {}
    for kl in (0.0, 50.0):
        agent = SeqGAN(replace(TINY, kl_coef=kl, learning_rate=0.05, batch_size=64), TASK)
        agent.discriminator = judge()  # type: ignore[assignment]
        for step in range(20):
            agent.g_step(step_of(0, "test", step))
        texts_ST = TASK.texts_ST
        everywhere = torch.ones_like(texts_ST, dtype=torch.bool)
        with torch.no_grad():
            logp_S = agent.policy.log_prob(texts_ST, everywhere).sum(1)
            moved[kl] = float((logp_S.exp() * (logp_S - agent.reference.log_prob(texts_ST, everywhere).sum(1))).sum())
    assert moved[50.0] < 0.1 * moved[0.0]


@pytest.mark.slow
def test_an_entropy_bonus_keeps_the_texts_different() -> None:
    entropy = {}
    for weight in (0.0, 0.3):
        agent = learner(rollouts=0, ent_coef=weight)
        for step in range(30):
            agent.g_step(step_of(0, "test", step))
        texts_ST = TASK.texts_ST
        with torch.no_grad():
            logp_S = agent.policy.log_prob(texts_ST, torch.ones_like(texts_ST, dtype=torch.bool)).sum(1)
        entropy[weight] = -float((logp_S.exp() * logp_S).sum())
    assert entropy[0.3] > entropy[0.0] + 0.5


def test_a_writing_temperature_is_the_one_texts_are_written_and_scored_at() -> None:
    agent = SeqGAN(replace(TINY, writing_temperature=2.0, rollout_lag=0.5), TASK)
    assert agent.behaviour_policy().decoding.temperature == 2.0
    assert agent.envs.game.rollout_policy.decoding.temperature == 2.0  # type: ignore[union-attr]
    assert agent.policy.decoding.temperature == 1.0
    agent.g_step(step_of(0, "test"))


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_a_reward_that_says_nothing_moves_no_bit_of_a_g_that_is_its_reference_at_any_temperature(
    temperature: float,
) -> None:
    agent = SeqGAN(replace(TINY, control="constant", kl_coef=1.0, writing_temperature=temperature), TASK)
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    for step in range(3):
        assert agent.g_step(step_of(0, "test", step))["gradient_norm"] == 0
    assert [name for name, value in agent.policy.state_dict().items() if not torch.equal(value, before[name])] == []


def test_pre_training_ends_with_the_averaged_weights_and_the_reference_there() -> None:
    agent = SeqGAN(replace(TINY, ema_decay=0.9), TASK)
    agent.mle_steps_of("mle_epoch").alone(derived_seed(0, "a"))
    assert not torch.equal(agent.policy.projection.bias, agent.average.policy.projection.bias)
    agent.end_pretraining(step_of(0, "b"))
    for policy in (agent.policy, agent.reference):
        assert torch.equal(policy.projection.bias, agent.average.policy.projection.bias)


def test_interleaved_maximum_likelihood_follows_the_real_texts() -> None:
    agent = SeqGAN(replace(TINY, mle_steps=3, batch_size=64, mle_learning_rate=0.05), TASK)
    assert ("mle_step", 3) in [(steps.name, steps.times) for steps in agent.schedule().phases[-1].steps]
    losses = [float(agent.mle_step(step_of(0, "a", step))["loss"]) for step in range(60)]
    assert sum(losses[-10:]) / 10 < losses[0] - 0.05


def test_replayed_negatives_keep_half_of_what_the_discriminator_saw() -> None:
    replay = ReplayedTexts(1000, 2, V)
    generator = torch.Generator().manual_seed(0)
    old, new = torch.zeros(1000, 2, dtype=torch.int64), torch.ones(1000, 2, dtype=torch.int64)
    assert torch.equal(replay.renew(old, generator), old)
    mixed = replay.renew(new, generator)
    assert 0.4 < float((mixed[:, 0] == 0).float().mean()) < 0.6
    assert torch.equal(mixed[:, 0], mixed[:, 1])
    assert torch.equal(mixed, replay.tokens_RT)


def test_a_random_initial_state_belongs_to_the_text_its_completions_and_its_gradient() -> None:
    agent = SeqGAN(replace(TINY, initial_state="random", batch_size=4, rollouts=3, kl_coef=0.0), TASK)
    given: list[Tensor] = []

    class Watched(LSTMPolicy):
        def begin(self, batch_size: int) -> tuple[Tensor, Tensor]:
            state: tuple[Tensor, Tensor] = super().begin(batch_size)
            given.append(state[0])
            return state

    agent.policy.__class__ = Watched
    agent.g_step(step_of(0, "test"))
    written, completed, *halves = given
    assert torch.equal(written, completed)
    assert torch.equal(written, torch.cat(halves))
    assert len({tuple(row) for row in written.flatten(1).tolist()}) == 4


def test_a_lagged_rollout_policy_trails_the_learner() -> None:
    agent = SeqGAN(replace(TINY, rollout_lag=0.8), TASK)
    assert agent.lagged is not None
    assert agent.envs.game.rollout_policy.projection.bias is agent.lagged.policy.projection.bias  # type: ignore[union-attr]
    start = agent.policy.projection.bias.clone()
    agent.g_step(step_of(0, "test"))
    learnt, lagged = agent.policy.projection.bias, agent.lagged.policy.projection.bias
    assert torch.allclose(lagged, 0.8 * start + 0.2 * learnt, atol=1e-6)


@pytest.mark.parametrize("options", [
    pytest.param({}, marks=pytest.mark.slow), {"negatives": "replayed", "mle_steps": 1, "rollout_lag": 0.5},
])  # fmt: skip
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(options: dict[str, Any], tmp_path: Path) -> None:
    whole = launch(replace(TINY, runs=tmp_path / "whole", **options), SeqGAN)
    with interrupted(SeqGAN, "g_step", lambda call, _: call == 2):
        launch(replace(TINY, runs=tmp_path / "cut", checkpoint_every=0.0, **options), SeqGAN)
    cut = launch(replace(TINY, resume=tmp_path / "cut" / "seqgan-toy-1"), SeqGAN)
    assert_same_training(whole, cut)


def test_it_begins_as_a_pre_trained_run_and_says_what_d_can_tell(tmp_path: Path) -> None:
    first = launch(MLEConfig(task="toy", epochs=1, embed_size=4, hidden_size=4, threads=1, runs=tmp_path), MLE)
    run = launch(replace(TINY, runs=tmp_path, pretrained=first.path, rounds=1), SeqGAN)
    rows = read_metrics(run.path)
    assert [row["phase"] for row in rows] == ["pretrain_d", "adversarial"]
    assert launch(replace(TINY, resume=run.path), SeqGAN).path == run.path
    assert {"credit", "credit_spread", "gradient_norm", "d_auc", "d_accuracy", "d_value"} <= set(rows[-1])
    assert "nll_test" in json.loads((run.path / "evaluation.json").read_text())["values"]


def test_a_pre_trained_run_of_another_task_is_refused(tmp_path: Path) -> None:
    first = launch(MLEConfig(task="toy", epochs=1, embed_size=4, hidden_size=4, threads=1, runs=tmp_path), MLE)
    with pytest.raises(InputError, match=r"is of task 'toy', V=4, T=\d; expected task 'toy', V=3, T=3"):
        SeqGAN(replace(TINY, pretrained=first.path), TASK)


def test_a_d_step_takes_as_many_fresh_texts_as_are_asked_for() -> None:
    """Seven of them in batches of four: two batches; the last one measures on the valid split's as many others."""
    agent = SeqGAN(replace(TINY, d_texts=7, d_batch_size=4, negatives="replayed"), ToyTask(size=60))
    steps = agent.d_steps_of(1)
    assert steps.batches == 2
    assert "d_auc" in steps.alone(derived_seed(0, "b"))
    assert agent.replay is not None
    assert agent.replay.tokens_RT.shape == (7, 4)
