"""Agents that learn by Stable-Baselines3: they find the best text, go on where they stopped, and are what they say."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import textgan_env.envs.sb3  # noqa: F401  importing SB3 draws from the global generator, once
from agents.a2c import A2C, A2CConfig
from agents.dqn import DQN, DQNConfig
from agents.mle import MLE, MLEConfig
from agents.ppo import PPO, PPOConfig
from agents.ppo import main as ppo_main
from conftest import assert_refused, assert_same_training, interrupted, mistake_of, step_of
from test_seqgan import TASK, exact_return, judge
from textgan_env.evaluation import nll
from textgan_env.policies import LSTMPolicy
from textgan_env.runs.loading import load_policy
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import CorpusTask, ToyTask
from textgan_env.text.corpus import load_corpus
from textgan_env.training.launch import launch
from textgan_env.training.sb3 import SB3Agent

SMALL: dict[str, Any] = {
    "preset": "smoke", "task": "toy", "mle_epochs": 1, "d_pretraining": 1, "d_batch_size": 500, "rounds": 2,
    "learn_steps": 1, "envs": 8, "embed_size": 4, "hidden_size": 4, "threads": 1, "show_samples": 0,
}  # fmt: skip
AGENTS: dict[str, tuple[Any, Any]] = {
    "ppo": (PPO, PPOConfig(**SMALL)),
    "maskable": (PPO, PPOConfig(**SMALL, kind="maskable")),
    "recurrent": (PPO, PPOConfig(**SMALL, kind="recurrent")),
    "a2c": (A2C, A2CConfig(**SMALL)),
    "dqn": (DQN, DQNConfig(**SMALL, temperature=0.2, buffer_size=64, gradient_steps=2, batch_size=16)),
}
EACH = pytest.mark.parametrize("name", AGENTS)


def expected_reward(agent: SB3Agent) -> float:
    """E[R] of the policy as it is, by listing all texts."""
    with torch.no_grad():
        return float(exact_return(agent.policy.eval(), judge().logits_S.sigmoid()))


def learner(name: str, **changes: Any) -> SB3Agent:
    """An agent that begins from nothing, with the judge whose every reward is known."""
    agent, config = AGENTS[name]
    known = {"transform": "prob", "learning_rate": 1e-2, "embed_size": 8, "hidden_size": 8, "envs": 64}
    if name == "dqn":
        known |= {"temperature": 0.05, "buffer_size": 4000, "gradient_steps": 20, "batch_size": 256}
    made: SB3Agent = agent(replace(config, **{**known, **changes}), TASK)
    made.discriminator = judge()  # type: ignore[assignment]
    return made


def reward_after(agent: SB3Agent, steps: int) -> float:
    for step in range(steps):
        agent.learn(step_of(0, "test", step))
    return expected_reward(agent)


# -- They learn -------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps", "changes"), [
    ("ppo", 20, {}), ("maskable", 20, {}), ("recurrent", 24, {}), ("a2c", 30, {"envs": 256}), ("dqn", 30, {}),
    ("ppo", 20, {"reward": "difference"}), ("ppo", 20, {"reward": "rollout"}),
], ids=["ppo", "maskable", "recurrent", "a2c", "dqn", "ppo-difference", "ppo-rollout"])  # fmt: skip
def test_every_learner_finds_the_best_text(name: str, steps: int, changes: dict[str, Any]) -> None:
    """The best text has a reward of .982, the second best .83, the random policy expects .52: beat all but the first.

    Rewards differ in what they pay when, not in what the best policy is.
    """
    agent = learner(name, **changes)
    assert expected_reward(agent) == pytest.approx(0.52, abs=0.05)
    assert reward_after(agent, steps) > 0.92


@EACH
def test_pre_training_is_maximum_likelihood_of_what_the_model_writes_by(name: str) -> None:
    """For DQN that is Boltzmann's distribution at its temperature; ln 3 nats a token is the uniform policy."""
    agent, config = AGENTS[name]
    made: SB3Agent = agent(replace(config, mle_batch_size=20, dropout=0.0), TASK)
    before = {key: part.clone() for key, part in made.model.policy.state_dict().items()}
    for epoch in range(6):
        made.mle_steps_of("mle_epoch").alone(epoch)
    texts_BT = TASK.split("valid").tokens_BT
    assert nll(made.policy, texts_BT, TASK.scored(texts_BT))[0] < 1.04
    assert made.policy.decoding.temperature == (0.2 if name == "dqn" else 1)
    after = made.model.policy.state_dict()
    assert any("embedding" in key and not torch.equal(before[key], after[key]) for key in after)


def test_a_reward_that_steps_cannot_pay_is_refused_before_anything_is_trained() -> None:
    assert_refused("q_interval=2", learner, "ppo", reward="rollout", q_interval=2)


# -- They run as every agent does -------------------------------------------------------------------------------------
@pytest.mark.slow
@EACH
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(name: str, tmp_path: Path) -> None:
    agent, config = AGENTS[name]
    config = replace(config, rounds=3)
    whole = launch(replace(config, runs=tmp_path / "whole"), agent)
    with interrupted(agent, "learn", lambda call, _: call == 3):
        launch(replace(config, runs=tmp_path / "cut", checkpoint_every=0.0), agent)
    (folder,) = (tmp_path / "cut").glob("*-toy-1")
    cut = launch(replace(config, resume=folder), agent)
    assert_same_training(whole, cut)


@pytest.mark.slow
@EACH
def test_a_finished_run_is_an_lstm_policy_that_needs_no_stable_baselines3(name: str, tmp_path: Path) -> None:
    agent, config = AGENTS[name]
    run = launch(replace(config, runs=tmp_path, select="last"), agent)
    policy, task = load_policy(run.path)
    assert isinstance(policy, LSTMPolicy)
    assert policy.decoding.temperature == (0.2 if name == "dqn" else 1)
    texts = (task.split("test").tokens_BT[:500], task.split("test").mask_BT[:500])  # as many as preset smoke measures
    values = json.loads((run.path / "evaluation.json").read_text())["values"]
    assert nll(policy, *texts)[0] == pytest.approx(values["nll_test"], abs=1e-6)
    last = read_metrics(run.path)[-1]
    loss = "train/policy_loss" if name == "a2c" else "train/loss"
    assert {"reward", "length", loss, "d_auc", "nll_oracle"} <= set(last)
    assert last["length"] == 4


def test_the_model_begins_as_a_run_of_maximum_likelihood(tmp_path: Path) -> None:
    mle = MLEConfig(
        task="toy", epochs=2, embed_size=5, hidden_size=6, layers=2, threads=1, show_samples=0, runs=tmp_path
    )
    run = launch(mle, MLE)
    begun = load_policy(run.path)[0]
    for name, (agent, config) in AGENTS.items():
        made = agent(replace(config, pretrained=run.path), ToyTask())
        assert [phase.rounds for phase in made.schedule().phases] == [0, 1, 2]
        tensors = made.policy.state_dict()
        assert all(torch.equal(tensors[key], part) for key, part in begun.state_dict().items()), name


def test_prefixes_are_completed_by_the_actor_as_it_is_and_judged_by_a_copy() -> None:
    for agent, config in AGENTS.values():
        made = agent(replace(config, reward="difference", rollouts=2), TASK)
        made.learn(step_of(0, "learn"))
        game = made.envs.game
        assert game.rollout_policy is made.policy
        assert made.discriminator not in game.discriminators.versions
        assert [version.training for version in game.discriminators.versions] == [False, False]


@pytest.mark.slow
@EACH
def test_texts_with_an_end_and_unknown_words_are_learnt(name: str, tmp_path: Path) -> None:
    words = ("cat", "dog", "fox", "hen")
    lines = [f"{['the', 'a', 'my'][n % 3]} {words[n % 4]} {n % 5 * 'ran '}" for n in range(60)] + ["the owl", "an ox"]
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    agent, config = AGENTS[name]
    config = replace(config, task="corpus", corpus=str(path), min_count=2, max_length=5, runs=tmp_path, texts=2)
    run = launch(config, agent)
    length = read_metrics(run.path)[-1]["length"]
    assert isinstance(length, float)
    assert 1 < length < 5
    assert "<unk>" not in (run.path / "final_samples.txt").read_text()


# -- What is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "field", "value"), [
    ("ppo", "envs", 0), ("a2c", "texts", 0), ("a2c", "learning_rate", 0.0), ("a2c", "d_steps", -1),
    ("ppo", "epochs", 0), ("ppo", "clip_range", 0.0), ("ppo", "gae_lambda", 1.5), ("a2c", "gae_lambda", -0.1),
    ("ppo", "num_minibatches", 5), ("dqn", "buffer_size", 7), ("dqn", "batch_size", 0),
    ("dqn", "temperature", 0), ("ppo", "rollouts", 0),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(name: str, field: str, value: float) -> None:
    agent, config = AGENTS[name]
    assert_refused(f"{field} .* found {value}", agent, replace(config, **{field: value}), TASK)


@pytest.mark.parametrize(
    ("options", "named"), [({"transform": "rank"}, "rank transform"), ({"control": "shuffled"}, "shuffled control")]
)
def test_rewards_that_compare_texts_are_refused_before_training_where_texts_end_early(
    options: dict[str, Any], named: str
) -> None:
    lines = [f"{a} {b}" for a in "abcdefgh" for b in "ijklmnop"]
    task = CorpusTask(load_corpus(texts=[*lines, *(f"{line} q" for line in lines)]))
    assert_refused(f"the {named} compares texts at one position", PPO, replace(PPOConfig(**SMALL), **options), task)


def test_a_pre_trained_run_of_another_task_is_refused(tmp_path: Path) -> None:
    run = launch(MLEConfig(task="toy", epochs=1, threads=1, show_samples=0, runs=tmp_path), MLE)
    assert_refused(r"V=4, T=4; expected task .*V=3, T=3", PPO, PPOConfig(**SMALL, pretrained=run.path), TASK)


@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_without_stable_baselines3_the_agent_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sb3_contrib" else find(name))
    said = mistake_of(ppo_main, ["--task", "toy", "--preset", "smoke"], capsys)
    assert "needs the package sb3_contrib: pip install 'textgan-env[sb3]'" in said
