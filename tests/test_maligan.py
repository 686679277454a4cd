"""MaliGAN: weights by hand, the expected gradient by enumeration, and the toy task, whose best text is known."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agents.maligan import MaliGAN, MaliGANConfig, main
from conftest import assert_same_training, interrupted, mistake_of, step_of
from test_seqgan import TASK, T, V, exact_return, judge
from textgan_env.policies import TablePolicy
from textgan_env.runs.logs import read_metrics
from textgan_env.training.launch import launch

TINY = MaliGANConfig(
    preset="smoke", task="toy", mle_epochs=1, d_pretraining=1, rounds=2, g_steps=1, batch_size=8, embed_size=4,
    hidden_size=4, threads=1, show_samples=0,
)  # fmt: skip


def learner(**changes: object) -> MaliGAN:
    """The agent with a tabular policy and a discriminator whose logit of every text is known."""
    config = replace(TINY, **({"batch_size": 256, "learning_rate": 0.05} | changes))  # type: ignore[arg-type]
    agent = MaliGAN(config, TASK)
    agent.policy = TablePolicy(V, max_length=T)
    agent.g_optimizer = torch.optim.Adam(agent.policy.parameters(), lr=0.05)
    if agent.envs.game.judged:
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


def expected_reward(agent: MaliGAN) -> float:
    with torch.no_grad():
        return float(exact_return(agent.policy, judge().logits_S.sigmoid()))


def reward_after(agent: MaliGAN, steps: int) -> float:
    for step in range(steps):
        agent.g_step(step_of(0, "test", step))
    return expected_reward(agent)


def test_it_reaches_the_text_of_the_highest_ratio() -> None:
    """The best text has a reward of .982; a uniform policy expects .52."""
    agent = learner()
    assert expected_reward(agent) == pytest.approx(0.52, abs=0.03)
    assert reward_after(agent, 150) > float(judge().logits_S.sigmoid().max()) - 0.02


@pytest.mark.parametrize("control", ["constant", "random"])
def test_a_reward_that_knows_nothing_learns_nothing(control: str) -> None:
    assert reward_after(learner(control=control), 60) < 0.75


def test_under_a_constant_reward_not_a_bit_moves() -> None:
    agent = learner(control="constant")
    before = agent.policy.logits_PV.detach().clone()
    agent.g_step(step_of(0))
    assert torch.equal(agent.policy.logits_PV, before)


def test_a_whole_run_is_resumed_to_the_same_weights(tmp_path: Path) -> None:
    whole = launch(replace(TINY, runs=tmp_path / "whole"), MaliGAN)
    assert [row["phase"] for row in read_metrics(whole.path)] == ["mle", "pretrain_d", "adversarial", "adversarial"]
    with interrupted(MaliGAN, "d_batch", lambda _, step: (step.round, step.batch) == (1, 3)):
        launch(replace(TINY, runs=tmp_path / "cut", checkpoint_every=0.0), MaliGAN)
    cut = launch(replace(TINY, resume=tmp_path / "cut" / "maligan-toy-1"), MaliGAN)
    assert_same_training(whole, cut)


@pytest.mark.moves_global_rng  # the library that reads command lines does
@pytest.mark.parametrize(("words", "field"), [
    (["--batch-size", "1"], "batch_size"),
    (["--discriminator", "bleu"], "discriminator"),
    (["--rollouts", "3"], "rollouts"),
])  # fmt: skip
def test_a_mistake_on_the_command_line_is_one_sentence(
    words: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert field in mistake_of(main, ["--task", "toy", "--preset", "smoke", *words], capsys)
