"""LeakGAN: who learns from what, the published code's other rules, the whole agent, and what it refuses."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agents.leakgan import PRESETS, LeakGAN, LeakGANConfig
from agents.mle import MLE, MLEConfig
from conftest import WatchedToyTask, assert_refused, assert_same_training, interrupted, step_of, steps_of
from textgan_env.discriminators import ConvDiscriminator, fit_discriminator, score_logits
from textgan_env.envs import EpisodeBatch
from textgan_env.evaluation import evaluate
from textgan_env.ops.sampling import derived_generator
from textgan_env.policies import LaggedCopy, LeakedPolicy
from textgan_env.rewards import Keys, generate
from textgan_env.runs.loading import load_policy
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import CorpusTask, ToyTask, draw_oracle_weights, make_task
from textgan_env.text.corpus import load_corpus
from textgan_env.training.launch import launch
from textgan_env.training.schedule import Patience, Round, Steps
from textgan_env.utils.errors import InputError

V, T, C, B = 3, 5, 2, 6
TASK = ToyTask(vocab_size=V, max_length=T, size=120)
TINY = LeakGANConfig(
    preset="smoke", task="toy", pretrain_rounds=1, pretrain_epochs=1, rounds=2, g_steps=1, mle_interval=2,
    batch_size=16, mle_batch_size=16, rollouts=2, embed_size=4, hidden_size=4, goal_size=3, goal_steps=C, q_interval=1,
    d_batch_size=64, threads=1, show_samples=0, select="last", device="cpu",
)  # fmt: skip
each_variant = pytest.mark.parametrize("variant", ["paper", "reference"])


def pos(agent: LeakGAN, seed: int) -> list[int]:
    return agent.policy.rules.positions(agent.task.max_length, agent.config.q_interval, derived_generator(seed))


def written(agent: LeakGAN, lengths: list[int] | None = None) -> EpisodeBatch:
    """Texts of some lengths with a credit of its own in each cell."""
    tokens_BT = torch.randint(V, (B, T), generator=derived_generator(1))
    lengths_B = torch.tensor(lengths or [T] * B)
    mask_BT = torch.arange(T) < lengths_B[:, None]
    credit_BT = torch.rand(B, T, generator=derived_generator(2)) * mask_BT
    ended_B, keys = torch.ones(B, dtype=torch.bool), Keys.counted(0, B)
    texts = (tokens_BT.masked_fill(~mask_BT, V), lengths_B, ended_B, keys, None)
    return EpisodeBatch(*texts, credit_BT, credit_BT, credit_BT)


def sharp(variant: str = "paper", **changes: Any) -> LeakGAN:
    """An agent whose first weights are large enough to see a difference."""
    agent = LeakGAN(replace(TINY, variant=variant, **changes), TASK)  # type: ignore[arg-type]
    generator = derived_generator(5)
    with torch.no_grad():
        for parameter in (*agent.policy.manager.parameters(), *agent.policy.worker.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=generator))
        for name in ("left", "right", "single"):
            table = getattr(agent.policy.discriminator, name)
            table.add_(torch.randn(table.shape, generator=generator))
    agent.policy.eval()
    return agent


def learners(agent: LeakGAN) -> dict[str, list[torch.nn.Parameter]]:
    parts = {"manager": agent.policy.manager, "worker": agent.policy.worker, "leaking": agent.policy.discriminator}
    assert agent.discriminator is not None
    return {name: list(part.parameters()) for name, part in {**parts, "d": agent.discriminator}.items()}


def losses(agent: LeakGAN, batch: EpisodeBatch, positions: list[int]) -> tuple[Tensor, ...]:
    """The Manager's loss, the Worker's, and the mean cosine."""
    columns, minimise, _ = agent.columns(batch, positions)
    sums = agent.policy.rules.generated_sums(agent.learning, *columns)
    means = {name: total / count for name, (total, count) in sums.items()}
    manager = sum(weight * means[name] for name, weight in minimise.items() if name != "worker_loss")
    assert isinstance(manager, Tensor)
    return manager, means["worker_loss"], means["manager_cosine"]


@each_variant
def test_neither_objective_reaches_the_other_learner_or_the_discriminator(variant: str) -> None:
    agent = sharp(variant)
    for which, name in enumerate(("manager", "worker")):
        losses(agent, written(agent), list(range(C - 1, T)))[which].backward()
        for other, parameters in learners(agent).items():
            reached = [parameter for parameter in parameters if parameter.grad is not None]
            trained = [parameter for parameter in parameters if parameter.requires_grad]
            assert len(reached) == (len(trained) if other == name else 0)
            for parameter in reached:
                assert parameter.grad is not None
                assert parameter.grad.count_nonzero()
                parameter.grad = None


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return torch.as_tensor((one * other).sum() / (one.norm() * other.norm()))


@pytest.mark.parametrize("lengths", [[T] * B, [5, 1, 2, 3, 4, 5]])
def test_the_papers_losses_in_loops(lengths: list[int]) -> None:
    agent = sharp(baseline="none")
    batch, positions = written(agent, lengths), [1, 3, 4]
    manager_loss, worker_loss, _ = losses(agent, batch, positions)
    features_BSF = agent.policy.prefix_features(batch.tokens_BT)
    goals_BTF = agent.policy.goals(features_BSF)
    logp_BT = agent.sampling.log_prob(batch.tokens_BT, batch.mask_BT)
    parts, paid = [], torch.zeros(())
    for row, length in enumerate(lengths):
        f, g = features_BSF[row], goals_BTF[row]
        for t in range(T - C + 1):
            if t + C <= length and t + C - 1 in positions:
                parts.append(batch.credit_BT[row, t + C - 1] * cosine(f[t + C] - f[t], g[t]))
        for t in range(1, length + 1):
            back = range(1, min(C, t) + 1)
            reward = torch.stack([cosine(f[t] - f[t - i], g[t - i]) for i in back]).mean()
            paid = paid + reward.detach() * logp_BT[row, t - 1]
    torch.testing.assert_close(manager_loss, -sum(parts) / len(parts))
    torch.testing.assert_close(worker_loss, -paid / B)


def test_the_reference_cannot_tell_which_text_earned_a_reward() -> None:
    """Its rewards meet the cosines as means only (a scalar each), so D's order of the texts is lost."""
    order_B = torch.tensor([3, 0, 4, 2, 1, 5])
    for variant, same in (("reference", True), ("paper", False)):
        agent = sharp(variant)
        batch, positions = written(agent), pos(agent, 0)
        one = losses(agent, batch, positions)[0]
        other = losses(agent, replace(batch, credit_BT=batch.credit_BT[order_B]), positions)[0]
        assert torch.allclose(one, other, atol=1e-7) == same


def test_the_references_losses_in_loops() -> None:
    agent = sharp("reference", baseline="none")
    batch = written(agent)
    manager_loss, worker_loss, _ = losses(agent, batch, [1, 3])
    f_BSF = agent.policy.prefix_features(batch.tokens_BT)
    g_BTF = agent.policy.goals(f_BSF)
    before_F = agent.policy.worker.goal_before()
    sums = [before_F.expand(B, -1), g_BTF[:, 1] + g_BTF[:, 2], g_BTF[:, 3] + g_BTF[:, 4]]  # one position late
    blocks = [cosine(f_BSF[b, (k + 1) * C] - f_BSF[b, k * C], sums[k][b]) for b in range(B) for k in range(2)]
    q = batch.credit_BT[:, [1, 3]].mean() / agent.config.rollouts
    torch.testing.assert_close(manager_loss, -q * torch.stack(blocks).mean())
    moves = [cosine(f_BSF[b, j + 1] - f_BSF[b, j // C * C], sums[j // C][b]) for b in range(B) for j in range(T)]
    # Learnt from at temperature 1, whatever it was written at.
    logp_BT = agent.policy.worker_log_prob(batch.tokens_BT, batch.mask_BT, g_BTF, late=1)
    torch.testing.assert_close(worker_loss, -torch.stack(moves).mean().detach() * logp_BT.sum(1).mean())
    for other_BT in (
        agent.policy.log_prob(batch.tokens_BT, batch.mask_BT),  # no block late
        agent.sampling.worker_log_prob(batch.tokens_BT, batch.mask_BT, g_BTF, late=1),  # at the writer's temperatures
    ):
        assert not torch.allclose(logp_BT, other_BT, atol=1e-3)


def test_q_is_asked_for_after_every_goal_or_after_some_of_them_that_change() -> None:
    assert (pos(sharp(), 0), pos(sharp("reference"), 0)) == ([1, 2, 3, 4], [1, 3])
    assert pos(sharp("reference", goal_steps=3), 0) == [2]
    agent = sharp(q_interval=3)
    assert {tuple(pos(agent, seed)) for seed in range(30)} == {(1, 4), (2,), (3,)}
    assert pos(sharp(q_interval=9, goal_steps=T), 0) == [T - 1]


def test_the_reference_writes_completes_and_feeds_d_at_three_temperatures() -> None:
    agent = sharp("reference", g_temperature=0.9, d_temperature=0.5)
    assert (agent.sampling.decoding.temperature, agent.sampling.first_inverse_temperature) == (0.9, 1.5)
    assert (agent.learning.decoding.temperature, agent.learning.first_inverse_temperature) == (1.0, None)
    for_d: Any = agent.policy_for_d()
    assert (for_d.decoding.temperature, for_d.first_inverse_temperature) == (0.5, None)
    assert agent.envs.game.rollout_policy is agent.learning
    agent = sharp(g_temperature=0.9)
    assert agent.learning is agent.sampling
    assert agent.sampling.first_inverse_temperature is None


@each_variant
@pytest.mark.parametrize("goal_steps", [1, 3, 4, 5])
def test_every_step_runs_for_every_c(variant: str, goal_steps: int) -> None:
    agent = LeakGAN(replace(TINY, variant=variant, goal_steps=goal_steps), TASK)  # type: ignore[arg-type]
    before = {name: part.clone() for name, part in agent.policy.state_dict().items()}
    values = agent.d_steps_of(1).alone(step_of(0, "d").seed) | agent.mle_steps_of("mle_epoch").alone(0)
    values |= {name: float(value) for name, value in agent.g_step(step_of(0, "g")).items()}
    assert all(np.isfinite(float(value)) for value in values.values())
    moved = {name for name, part in agent.policy.state_dict().items() if not torch.equal(part, before[name])}
    assert {"worker.output", "worker.psi.weight", "discriminator.left"} <= moved
    # The first block of the reference is held against the goal before the text: no goal of the Manager's is in it.
    assert ("manager.output.weight" in moved) == (variant == "paper" or T // goal_steps > 1)
    assert agent.discriminator is not None
    own, learning = (module.state_dict() for module in (agent.policy.discriminator, agent.discriminator))
    assert all(torch.equal(own[name], learning[name]) for name in own)


@each_variant
@pytest.mark.parametrize("preset", PRESETS)
def test_a_g_step_moves_the_worker_under_every_variant_and_preset(variant: Any, preset: str) -> None:
    task = ToyTask(vocab_size=4, max_length=8, size=40)
    small = {"batch_size": 8, "rollouts": 1, "goal_size": 2, "d_embed_size": 2, "embed_size": 4, "hidden_size": 4}
    agent = LeakGAN(replace(PRESETS[preset]("toy"), variant=variant, device="cpu", **small), task)  # type: ignore[arg-type]
    before = {name: part.clone() for name, part in agent.policy.worker.named_parameters() if part.requires_grad}
    norm = float(agent.g_step(step_of(0, "g"))["worker_norm"])
    assert norm > 1e-6
    after = dict(agent.policy.worker.named_parameters())
    assert all(not torch.equal(part, after[name]) for name, part in before.items())


def test_the_published_rules_refuse_a_baseline_that_leaves_nothing() -> None:
    for baseline, variant in product((None, "none"), ("paper", "reference")):
        agent = LeakGAN(replace(TINY, variant=variant, baseline=baseline), TASK)  # type: ignore[arg-type]
        assert agent.baseline == ("leave-one-out" if (variant, baseline) == ("paper", None) else "none")
    with pytest.raises(InputError, match=r"pays all texts alike.*: expected none, found --baseline leave"):
        LeakGAN(replace(TINY, variant="reference", baseline="leave-one-out"), TASK)


END = V - 1


def expected_end_gradient(end_reward: str, credit_of_ends: float = 0.5) -> Tensor:
    """Gradient of the Worker's loss by the logits of END, all texts enumerated, each as probable as it is.

    Credit is .5; the last token of a text that ended by itself has another.
    """
    agent, words = sharp(), range(V - 1)
    texts = [[*text, END] for length in range(T) for text in product(words, repeat=length)]
    texts += [list(text) for text in product(words, repeat=T)]
    lengths_B = torch.tensor([len(text) for text in texts])
    tokens_BT = torch.tensor([text + [V] * (T - len(text)) for text in texts])
    mask_BT = torch.arange(T) < lengths_B[:, None]
    credit_BT = torch.where(tokens_BT == END, credit_of_ends, 0.5) * mask_BT
    positions = list(range(C - 1, T))
    columns, _ = agent.policy.rules.columns(agent.policy, tokens_BT, mask_BT, credit_BT, positions, "none", end_reward)
    probability_B = agent.policy.log_prob(tokens_BT, mask_BT).sum(1).exp().detach()
    assert float(probability_B.sum()) == pytest.approx(1)
    columns[3:4] = [columns[3] * probability_B[:, None] * len(texts)]
    columns[6:] = [advantage_BT * probability_B[:, None] * len(texts) for advantage_BT in columns[6:]]
    end_token = None if end_reward == "intrinsic" else END
    total, count = agent.policy.rules.generated_sums(agent.policy, *columns, end_token=end_token)["worker_loss"]
    return torch.autograd.grad(total / count, agent.policy.worker.output)[0][END]


def test_only_by_the_published_rule_does_a_reward_that_knows_nothing_teach_when_to_end() -> None:
    assert expected_end_gradient("intrinsic").abs().max() > 1e-3
    assert not expected_end_gradient("none").any()
    assert not expected_end_gradient("q").any()
    # What D says of texts that end reaches the decision by Q alone.
    assert not expected_end_gradient("none", 0.9).any()
    assert torch.equal(expected_end_gradient("intrinsic", 0.9), expected_end_gradient("intrinsic"))
    better, worse = expected_end_gradient("q", 0.9), expected_end_gradient("q", 0.1)
    assert better.abs().max() > 1e-3
    torch.testing.assert_close(better, -worse)
    # And what is better is learnt: a step down the loss makes ends more probable.
    agent, probability = sharp(), []
    for _ in range(2):
        ended_BT = torch.tensor([[END] + [V] * (T - 1)])
        probability.append(float(agent.policy.log_prob(ended_BT, ended_BT == END)[0, 0].detach()))
        agent.policy.worker.output.data[END] -= 0.1 * better
    assert probability[1] > probability[0] + 1e-4


def test_without_the_published_rule_words_learn_as_among_words_alone() -> None:
    """A text of the end token only teaches nothing; the others' words are as probable as if there were no END."""
    agent = sharp()
    goals_BTF = agent.policy.goals(agent.policy.prefix_features(torch.tensor([[0, 1, END, V, V]])))
    tokens_BT, mask_BT = torch.tensor([[0, 1, END, V, V]]), torch.tensor([[True, True, False, False, False]])
    every = [torch.tensor([[token, other, END, V, V]]) for token, other in product(range(V), repeat=2)]
    logp = [agent.policy.worker_log_prob(one_BT, mask_BT, goals_BTF)[0] for one_BT in every]
    first_V = torch.stack([logp[token * V][0] for token in range(V)])
    second_V = torch.stack([logp[0 * V + other][1] for other in range(V)])
    known_BT = agent.policy.worker_log_prob(tokens_BT, mask_BT, goals_BTF, given_not=END)
    expected = [first_V[0] - first_V[:END].logsumexp(0), second_V[1] - second_V[:END].logsumexp(0)]
    torch.testing.assert_close(known_BT[0, :2], torch.stack(expected))


def test_texts_that_end_early_and_unknown_words_are_learnt_from() -> None:
    words = ["a", "b", "c", "d"]
    lines = [" ".join(line) for length in (1, 2, 3) for line in product(words, repeat=length)] + ["rare b", "a once"]
    task = CorpusTask(load_corpus(texts=lines, min_count=2, max_length=5))
    assert task.end_token is not None
    assert task.forbidden
    for variant, end_reward in product(("paper", "reference"), ("none", "intrinsic", "q")):
        rules = {"variant": variant, "end_reward": end_reward}
        agent = LeakGAN(replace(TINY, **rules, discriminator="conv", d_embed_size=4), task)  # type: ignore[arg-type]
        values = agent.d_steps_of(1).alone(step_of(0, "d").seed) | agent.mle_steps_of("mle_epoch").alone(0)
        values |= {name: float(value) for name, value in agent.g_step(step_of(0, "g")).items()}
        assert all(np.isfinite(float(value)) for value in values.values())


def test_an_untrained_discriminator_stays_as_it_was_drawn() -> None:
    agent = LeakGAN(replace(TINY, control="untrained"), TASK)
    before = {name: part.clone() for name, part in agent.policy.discriminator.state_dict().items()}
    assert steps_of(agent) == {"pretrain_g", "g_step", "interleaved_mle"}
    agent.mle_steps_of("mle_epoch").alone(step_of(0, "m").seed)
    assert agent.g_step(step_of(0, "g"))["credit_spread"] > 0
    after = agent.policy.discriminator.state_dict()
    assert all(torch.equal(part, after[name]) for name, part in before.items())


def test_pre_training_ends_with_the_average_of_its_weights() -> None:
    agent = LeakGAN(replace(TINY, mle_batch_size=40, ema_decay=0.5), TASK)
    seen = []

    def keep(agent: LeakGAN = agent, step: Any = agent.update) -> Any:
        def learning(*optimizers: torch.optim.Optimizer) -> list[float]:
            norms: list[float] = step(*optimizers)
            if agent.mle_optimizer in optimizers:
                seen.append(agent.policy.worker.output.detach().clone())
            return norms

        return learning

    expected = agent.policy.worker.output.detach().clone()
    agent.update = keep()  # type: ignore[method-assign]
    Steps(agent.pretrain_g, batches=3).alone(0)
    assert len(seen) == 3  # 120 texts
    for step, weights in enumerate(seen, start=1):
        rate = min(0.5, step / (step + 10))
        expected = rate * expected + (1 - rate) * weights
    assert not torch.allclose(agent.policy.worker.output, expected, atol=1e-4)
    agent.take_average(step_of(0))
    torch.testing.assert_close(agent.policy.worker.output.detach(), expected)


def test_an_interleaved_epoch_moves_the_worker_by_the_share_of_its_average() -> None:
    agents = [LeakGAN(replace(TINY, mle_interval=1, ema_decay=average), TASK) for average in (0.0, 0.9)]
    moved = []
    for agent in agents:
        agent.g_step(step_of(0, "g"))
        before = agent.policy.worker.output.detach().clone()
        Steps(agent.interleaved_mle, batches=8).alone(0)
        moved.append((agent.policy.worker.output - before).norm())
    assert 0 < moved[1] < 0.8 * moved[0]


def test_maximum_likelihood_comes_after_every_few_rounds() -> None:
    phase = LeakGAN(replace(TINY, mle_interval=3, rounds=6), TASK).schedule().phases[1]
    happened = ["interleaved_mle" in {steps.name for steps, _ in Round(phase, index, 0).steps(0)} for index in range(6)]
    assert happened == [False, False, True, False, False, True]
    assert "interleaved_mle" not in steps_of(LeakGAN(replace(TINY, mle_interval=0), TASK))


def test_pre_training_ends_when_it_has_stopped_helping() -> None:
    patience = Patience(2)
    over = []
    for value in (3.0, 2.0, 2.5, 1.0, 1.0, 1.5):
        patience.note(value)
        over.append(patience.over())
    assert over == [False, False, False, False, False, True]
    agent = LeakGAN(replace(TINY, pretrain_patience=2), TASK)
    assert [current.phase.name for current in agent.schedule().after(0)] == ["pretrain", "adversarial", "adversarial"]
    agent = LeakGAN(replace(TINY, pretrain_patience=2, pretrain_rounds=5), TASK)
    agent.patience.rounds_since.fill_(2)
    assert [(current.phase.name, current.number) for current in agent.schedule().after(3)] == [
        ("adversarial", 6), ("adversarial", 7),
    ]  # fmt: skip
    forever = Patience(0)
    for value in (1.0, 2.0, 3.0):
        forever.note(value)
    assert not forever.over()


def test_a_run_that_ends_with_its_pre_training_is_whole_however_early_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patience, "over", lambda _: True)
    run = launch(replace(TINY, runs=tmp_path, pretrain_rounds=3, pretrain_patience=1, rounds=0), LeakGAN)
    assert len(read_metrics(run.path)) == 1
    assert load_policy(run.path)[0].kind == "leaked"


def test_no_step_of_learning_ever_asks_for_the_test_split() -> None:
    task = WatchedToyTask(vocab_size=V, max_length=T, size=50)
    agent = LeakGAN(TINY, task)
    for phase in agent.schedule().phases:
        for steps in phase.steps:
            steps.alone(0)
    assert task.asked == {"train", "valid"}


# -- Learning. --------------------------------------------------------------------------------------------------------
def fond_judge(task: ToyTask, turned: bool) -> ConvDiscriminator:
    """A CNN fitted to prefer texts that are mostly made of tokens 1 and 3 to uniform ones; turned, 1 less its D."""
    generator, shape = derived_generator(5), (2000, task.max_length)
    uniform_BT = torch.randint(task.vocab_size, shape, generator=generator)
    fond_BT = torch.where(torch.rand(shape, generator=generator) < 0.5, 1, 3)
    fond_BT = torch.where(torch.rand(shape, generator=generator) < 0.6, fond_BT, uniform_BT)
    fake_BT = torch.randint(task.vocab_size, shape, generator=generator)
    judge = ConvDiscriminator(
        task.vocab_size, task.max_length, embed_size=6, widths=(1, 2, 3), filters=(8, 8, 8), dropout=0.0, l2=0.0, seed=3
    )
    fit_discriminator(judge, judge.make_optimizer(3e-3), fond_BT, fake_BT, steps=300, generator=generator)
    if turned:
        with torch.no_grad():
            judge.output.weight.neg_()
            judge.output.bias.neg_()
    return judge


def reward_after(steps: int, *, turned: bool = False, control: str | None = None, seed: int = 0) -> float:
    """E[D(text)] of the generator after some g-steps against that judge, which stays as it is."""
    task = ToyTask(vocab_size=5, max_length=6, size=10)
    config = replace(TINY, seed=seed, embed_size=8, hidden_size=8, goal_size=4, batch_size=64, rollouts=4, dropout=0.0)
    agent = LeakGAN(replace(config, learning_rate=1e-2, control=control), task)  # type: ignore[arg-type]
    judge = fond_judge(task, turned)
    agent.policy = LeakedPolicy(
        5, start_token=0, discriminator=judge, embed_size=8, hidden_size=8, manager_size=8, goal_size=4, goal_steps=C,
        seed=seed,
    )  # fmt: skip
    agent.sampling = agent.learning = agent.policy
    agent.average = LaggedCopy(agent.averaged(), 0.0)
    agent.envs.game.discriminators.versions = [agent.policy.discriminator]
    agent.envs.set_rollout_policy(agent.policy)
    agent.worker_optimizer = torch.optim.Adam([p for p in agent.policy.worker.parameters() if p.requires_grad], 1e-2)
    agent.manager_optimizer = torch.optim.Adam([p for p in agent.policy.manager.parameters() if p.requires_grad], 1e-2)
    for step in range(steps):
        agent.g_step(step_of(0, "test", step))
    tokens_BT, _ = generate(agent.policy, Keys.counted(9, 2000), 6)
    return float(score_logits(judge, tokens_BT).sigmoid().mean())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("turned", [False, True])
def test_goals_lead_the_generator_to_what_the_discriminator_likes(turned: bool) -> None:
    """A random policy expects .27 (.73 turned); seeds 0 to 3 reached .98, .95, .95 and .95 (turned .98 each).

    Turned, D has the same features and the opposite opinion, so a reward that knows nothing cannot do both.
    """
    assert reward_after(0, turned=turned) == pytest.approx(0.73 if turned else 0.27, abs=0.03)
    assert reward_after(100, turned=turned) > 0.85


@pytest.mark.slow
def test_a_reward_that_knows_nothing_cannot_tell_the_turned_discriminator() -> None:
    for control in ("constant", "random"):
        both = [reward_after(10, turned=turned, control=control) for turned in (False, True)]
        assert sum(both) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@each_variant
def test_maximum_likelihood_learns_the_distribution_of_the_toy_task(variant: Any) -> None:
    """KL(p||q) / T: 0 at best; 0.42 nats for uniform text."""
    task = ToyTask(vocab_size=4, max_length=4, size=4000)
    config = replace(
        TINY, variant=variant, embed_size=16, hidden_size=16, dropout=0.0, weight_decay=0.0, mle_batch_size=64
    )
    agent = LeakGAN(config, task)
    agent.d_steps_of(1).alone(step_of(0, "d").seed)
    first = agent.mle_steps_of("mle_epoch").alone(step_of(0, 0).seed)
    for epoch in range(1, 12):
        last = agent.mle_steps_of("mle_epoch").alone(step_of(0, epoch).seed)
    assert last["loss"] < first["loss"]
    assert last["manager_cosine"] > first["manager_cosine"]
    assert evaluate(agent.policy, task, samples=1000).values["cover"] < 0.05


# -- Whole runs. ------------------------------------------------------------------------------------------------------
FEW_BATCHES = replace(TINY, mle_batch_size=250, d_batch_size=250)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    config = replace(FEW_BATCHES, pretrain_rounds=2, pretrain_patience=1)
    whole = launch(replace(config, runs=tmp_path / "whole"), LeakGAN)
    with interrupted(LeakGAN, "g_step", lambda call, _: call == 2):
        launch(replace(config, runs=tmp_path / "cut", checkpoint_every=0.0), LeakGAN)
    cut = launch(replace(config, resume=tmp_path / "cut" / "leakgan-toy-1"), LeakGAN)
    assert_same_training(whole, cut)


def test_a_finished_run_is_loaded_as_it_was_and_can_be_begun_with(tmp_path: Path) -> None:
    run = launch(replace(FEW_BATCHES, runs=tmp_path, temperature=0.5), LeakGAN)
    rows = read_metrics(run.path)
    assert [row["phase"] for row in rows] == ["pretrain", "adversarial", "adversarial"]
    assert {"manager_cosine", "intrinsic_reward", "credit", "d_auc", "manager_norm", "worker_norm"} <= set(rows[-1])
    values = json.loads((run.path / "evaluation.json").read_text())["values"]
    policy, task = load_policy(run.path)
    assert isinstance(policy, LeakedPolicy)
    assert policy.decoding.temperature == 0.5
    assert evaluate(policy, task, samples=500, references=500, seed=0).values == values
    next_config = replace(FEW_BATCHES, runs=tmp_path, pretrained=run.path, rounds=1, control="shuffled")
    next_run = launch(next_config, LeakGAN)
    assert [row["phase"] for row in read_metrics(next_run.path)] == ["adversarial"]
    for changes, sentence in (
        ({"goal_size": 5}, "goal_size"),
        ({"discriminator": "conv"}, "discriminator=conv"),
        ({"variant": "reference"}, "variant=reference"),
    ):
        assert_refused(sentence, launch, replace(next_config, **changes), LeakGAN)
    with pytest.raises(InputError, match=r"is of task 'toy', V=4, T=4; expected task 'toy', V=3, T=5"):
        LeakGAN(replace(TINY, pretrained=run.path), TASK)
    mle = launch(MLEConfig(task="toy", epochs=1, embed_size=4, hidden_size=4, threads=1, runs=tmp_path), MLE)
    own = "kind leaked, found lstm; without --pretrained the agent pre-trains its own"
    assert_refused(own, LeakGAN, replace(TINY, pretrained=mle.path), ToyTask())


def test_an_oracle_of_any_size_comes_from_a_file_of_weights(tmp_path: Path) -> None:
    """The oracle for 40 tokens: 64/64, drawn by numpy from a seed, written to a file that every agent takes."""
    np.savez(tmp_path / "oracle40.npz", **draw_oracle_weights(30, 6, 7, seed=40))  # type: ignore[arg-type]
    options = {"weights": str(tmp_path / "oracle40.npz"), "max_length": 40, "train_size": 4, "valid_size": 4}
    task = make_task("seqgan-oracle", **options)
    assert (task.vocab_size, task.max_length) == (30, 40)
    agent = LeakGAN(replace(TINY, embed_size=None, hidden_size=None, learning_rate=None, rollouts=1), task)
    assert agent.policy.config()["hidden_size"] == agent.policy.config()["embed_size"] == 64
    assert agent.worker_optimizer.param_groups[0]["lr"] == agent.manager_optimizer.param_groups[0]["lr"] == 5e-4
    assert len(agent.task.split("train")) == 4


def test_presets_know_what_a_task_needs() -> None:
    assert PRESETS["paper"]("coco").hidden_size == 128
    assert PRESETS["paper"]("oracle").hidden_size is None
    assert PRESETS["fast"]("poems").embed_size == 64


def test_the_published_cnn_has_1720_features_and_1880_for_long_text() -> None:
    for length, size in ((20, 1720), (40, 1880)):
        task = ToyTask(vocab_size=2, max_length=4, size=4)
        task.max_length = length
        assert LeakGAN(replace(TINY, discriminator="conv", d_embed_size=2), task).policy.feature_size == size
