"""The environment: one text by one, side by side or in one go, it is the same game; and Gymnasium's rules hold."""

import inspect
import json
import math
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

import textgan_env
from conftest import PROJECT, PositionDiscriminator, assert_refused
from textgan_env.discriminators import DiscriminatorModule, make_discriminator, score_logits
from textgan_env.envs import (
    TextGame,
    TextGANEnv,
    TextGANVectorEnv,
    default_discriminator,
    default_rollout_policy,
)
from textgan_env.ops.reward_kinds import CONTROLS, REWARDS, TRANSFORMS
from textgan_env.policies import LSTMPolicy, UniformPolicy
from textgan_env.rewards import EntropyCredit, KLCredit, RewardSpec, Source, Texts
from textgan_env.tasks import CorpusTask, OracleTask, Task, ToyTask
from textgan_env.text.corpus import load_corpus

# Three articles, four nouns, three verbs; "owl" is seen once, so it becomes the unknown word.
LINES = [
    " ".join(words)
    for number in range(48)
    for words in [
        (
            ("the", "a", "my")[number % 3],
            ("cat", "dog", "fox", "hen")[number % 4],
            ("ran", "sat", "ate")[number % 5 % 3],
        )
    ]
] + ["the owl sat", "a cat", "my dog", "the fox", "hen"]


@pytest.fixture(scope="module")
def words() -> Task:
    """A corpus of short lines, with an end token and an unknown word, T = 4."""
    return CorpusTask(load_corpus(texts=LINES, lower=True, min_count=2, max_length=4))


@pytest.fixture(scope="module")
def toy() -> Task:
    return ToyTask(vocab_size=4, max_length=4, size=50)


def policy_for(task: Task, seed: int = 3) -> LSTMPolicy:
    return LSTMPolicy(
        task.vocab_size,
        start_token=task.start_token,
        embed_size=4,
        hidden_size=4,
        init_scale=1.0,
        forbidden=task.forbidden,
        seed=seed,
    )


def options_for(task: Task, **options: Any) -> dict[str, Any]:
    """Everything that costs time made small, and D and policy given."""
    kind = "recurrent" if options.get("reward") == "dense" else "pair"  # the one with a logit for every prefix
    judge = make_discriminator(kind, vocab_size=task.vocab_size, max_length=task.max_length, seed=1)
    given = {"task": task, "rollouts": 2, "discriminator": judge, "rollout_policy": policy_for(task)}
    return {**given, "reward": "rollout", **options}


class ConstantDiscriminator:
    """Every text has the same probability of being real."""

    feature_size = 1

    def __init__(self, task: Task, score_real: float) -> None:
        self.vocab_size, self.max_length = task.vocab_size, task.max_length
        self.logit = float(torch.tensor(score_real, dtype=torch.float64).logit())

    def logits(self, tokens_BT: Tensor) -> Tensor:
        return torch.full((len(tokens_BT),), self.logit, dtype=torch.float64)

    def features(self, tokens_BT: Tensor) -> Tensor:
        return self.logits(tokens_BT)[:, None]


def action_of(env: TextGANEnv | TextGANVectorEnv, tokens: Any) -> Any:
    """The actions that generate some tokens."""
    return np.searchsorted(env.token_of_action, tokens)


def played(env: TextGANEnv, tokens: list[int]) -> tuple[list[float], dict[str, Any]]:
    """Rewards of a whole text, and the last info; every step but the last must go on."""
    rewards = []
    for number, token in enumerate(tokens):
        observation, reward, terminated, truncated, info = env.step(action_of(env, token))
        assert terminated == (number == len(tokens) - 1)
        assert not truncated
        assert observation["tokens"][: number + 1].tolist() == tokens[: number + 1]
        assert observation["length"].tolist() == [number + 1]
        rewards.append(float(reward))
    return rewards, info


# -- One game, three ways ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("task_name", ["words", "toy"])
def test_stepping_the_single_env_gives_what_collect_gives(
    task_name: str, reward: str, request: pytest.FixtureRequest
) -> None:
    task: Task = request.getfixturevalue(task_name)
    options = options_for(task, reward=reward, transform="logit")
    envs = TextGANVectorEnv(5, **options)
    envs.reset(seed=20)
    batch = envs.collect(options["rollout_policy"])
    env = TextGANEnv(**options)
    for row in range(5):
        env.reset(seed=20 + row)
        env.reset()  # `collect` begins a text of its own after `reset`
        length = int(batch.lengths_B[row])
        rewards, _ = played(env, batch.tokens_BT[row, :length].tolist())
        assert rewards == pytest.approx(batch.reward_BT[row, :length].tolist(), abs=1e-6)
        credit = env.game.credit_BT[0, :length]
        known = ~np.isnan(credit)
        assert known.sum() == (1 if reward == "terminal" else length)
        # What a prefix is paid says nothing yet of what later tokens are: only `collect` knows the credit to go.
        expected_BT = batch.reward_BT if reward == "dense" else batch.credit_BT
        assert credit[known].tolist() == pytest.approx(expected_BT[row, :length].numpy()[known].tolist(), abs=1e-6)


@pytest.mark.parametrize(("reward", "options"), [
    *((reward, options) for reward in REWARDS if reward != "dense"
      for options in ({"transform": "rank"}, *({"control": name} for name in CONTROLS))),
    ("dense", {"control": "shuffled"}), ("dense", {"gamma": 0.5}),
])  # fmt: skip
def test_stepping_the_vector_env_gives_what_collect_gives(toy: Task, reward: str, options: dict[str, Any]) -> None:
    options = options_for(toy, reward=reward, autoreset_mode="disabled", **options)
    envs, stepped = TextGANVectorEnv(6, **options), TextGANVectorEnv(6, **options)
    envs.reset(seed=[3, 1, 4, 1, 5, 9])
    batch = envs.collect(options["rollout_policy"])
    stepped.reset(seed=[3, 1, 4, 1, 5, 9])
    stepped.reset()
    rewards_TB = [stepped.step(batch.tokens_BT[:, column].numpy())[1] for column in range(toy.max_length)]
    np.testing.assert_allclose(np.stack(rewards_TB, axis=1), batch.reward_BT.numpy(), atol=1e-6)


@pytest.mark.parametrize(("reward", "options"), [
    *((reward, {"transform": "rank"}) for reward in REWARDS if reward != "dense"),
    *((reward, {"control": "shuffled"}) for reward in REWARDS),
])  # fmt: skip
def test_texts_at_different_positions_are_not_compared(words: Task, reward: str, options: dict[str, str]) -> None:
    envs = TextGANVectorEnv(2, **options_for(words, reward=reward, **options))
    envs.reset(seed=0)
    envs.collect(policy_for(words))  # side by side from the beginning: fine
    envs.reset()
    actions = np.array([words.end_token, 2])
    if reward != "terminal":
        envs.step(actions)  # the first tokens of both
    assert_refused("compare texts at one position", envs.step, actions)


def test_collecting_again_writes_other_texts_and_the_same_seed_the_same(words: Task) -> None:
    options = options_for(words)
    envs = TextGANVectorEnv(8, **options)
    policy = options["rollout_policy"]
    envs.reset(seed=1)
    first, second = envs.collect(policy), envs.collect(policy)
    assert not torch.equal(first.tokens_BT, second.tokens_BT)
    envs.reset(seed=1)
    again = envs.collect(policy)
    assert torch.equal(first.tokens_BT, again.tokens_BT)
    assert torch.equal(first.credit_BT, again.credit_BT)


def test_difference_sums_to_the_reward_of_the_text(words: Task) -> None:
    options = options_for(words, transform="logit")
    summed, paid = (TextGANVectorEnv(16, **options | {"reward": reward}) for reward in ("difference", "terminal"))
    for envs in (summed, paid):
        envs.reset(seed=0)
    summed_batch, paid_batch = (envs.collect(options["rollout_policy"]) for envs in (summed, paid))
    assert len(summed_batch.lengths_B.unique()) > 1
    torch.testing.assert_close(summed_batch.reward_BT.sum(1), paid_batch.reward_BT.sum(1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("task_name", ["words", "toy"])
@pytest.mark.parametrize("interval", [2, 3])
def test_difference_pays_at_every_kth_token_and_at_the_end_and_still_sums_to_the_reward(
    task_name: str, interval: int, request: pytest.FixtureRequest
) -> None:
    task: Task = request.getfixturevalue(task_name)
    options = options_for(task, reward="difference", transform="logit")
    every, envs = (TextGANVectorEnv(12, **options, q_interval=number) for number in (1, interval))
    every.reset(seed=20)
    envs.reset(seed=20)
    q_BT, batch = every.collect(options["rollout_policy"]).credit_BT, envs.collect(options["rollout_policy"])
    env = TextGANEnv(**options, q_interval=interval)
    for row, length in enumerate(batch.lengths_B.tolist()):
        known = [at for at in range(length) if (at + 1) % interval == 0 or at == length - 1]
        expected = [0.0] * length
        for before, at in zip([None, *known], known, strict=False):
            expected[at] = float(q_BT[row, at]) - (0.0 if before is None else float(q_BT[row, before]))
        assert batch.reward_BT[row, :length].tolist() == pytest.approx(expected, abs=1e-6)
        env.reset(seed=20 + row)
        env.reset()
        assert played(env, batch.tokens_BT[row, :length].tolist())[0] == pytest.approx(expected, abs=1e-6)
    assert (batch.reward_BT[~batch.mask_BT] == 0).all()


@pytest.mark.parametrize("options", [{"transform": "rank"}, {"control": "shuffled"}, {"control": "random"}])
def test_stepping_pays_every_kth_difference_of_compared_texts_as_collect_does(
    toy: Task, options: dict[str, Any]
) -> None:
    options = options_for(toy, reward="difference", autoreset_mode="disabled", q_interval=3, **options)
    envs, stepped = TextGANVectorEnv(6, **options), TextGANVectorEnv(6, **options)
    envs.reset(seed=1)
    batch = envs.collect(options["rollout_policy"])
    stepped.reset(seed=1)
    stepped.reset()
    rewards_TB = [stepped.step(batch.tokens_BT[:, column].numpy())[1] for column in range(toy.max_length)]
    np.testing.assert_allclose(np.stack(rewards_TB, axis=1), batch.reward_BT.numpy(), atol=1e-6)
    assert (batch.reward_BT[:, [2, 3]] != 0).any()
    assert (batch.reward_BT[:, :2] == 0).all()


def test_rollout_credit_that_is_known_later_is_paid_by_collect_and_refused_by_step(toy: Task) -> None:
    options = options_for(toy, q_interval=2)
    env, envs = TextGANEnv(**options), TextGANVectorEnv(2, **options)
    for stepped, action in ((env, np.int64(0)), (envs, np.zeros(2, dtype=np.int64))):
        stepped.reset(seed=0)
        assert_refused("q_interval=2 knows the worth of a token some tokens later", stepped.step, action)
    batch = envs.collect(options["rollout_policy"])
    assert torch.equal(batch.reward_BT, batch.credit_BT)
    assert torch.equal(batch.credit_BT[:, 0], batch.credit_BT[:, 1])
    assert_refused("q_interval", TextGANEnv, **options | {"q_interval": 0})


def test_terminal_pays_at_the_end_only(words: Task) -> None:
    options = options_for(words, reward="terminal", transform="logit")
    envs = TextGANVectorEnv(16, **options)
    envs.reset(seed=0)
    batch = envs.collect(options["rollout_policy"])
    last_BT = torch.arange(words.max_length) == batch.lengths_B[:, None] - 1
    assert (batch.reward_BT[~last_BT] == 0).all()
    judged_B = options["discriminator"].logits(batch.tokens_BT)
    torch.testing.assert_close(batch.reward_BT[last_BT], judged_B.detach(), atol=1e-5, rtol=0)


def test_a_dense_reward_needs_a_logit_for_every_prefix_and_pays_each_token_as_it_comes(toy: Task) -> None:
    judge = make_discriminator("pair", vocab_size=toy.vocab_size, max_length=toy.max_length)
    message = "such as recurrent, found PairDiscriminator"
    assert_refused(message, TextGANVectorEnv, 2, toy, reward="dense", discriminator=judge)
    assert_refused("compares whole returns", TextGANVectorEnv, 2, toy, reward="dense", transform="rank")
    envs = TextGANVectorEnv(2, toy, reward="dense", control="constant")
    envs.reset(seed=0)
    assert_refused("under the 'constant' control works in collect only", envs.step, np.array([0, 0]))
    options = options_for(toy, reward="dense", transform="logit")
    envs = TextGANVectorEnv(3, **options)
    envs.reset(seed=0)
    for column in range(1, toy.max_length):  # the last step would begin other texts
        rewards_B = envs.step(np.array([0, 1, 2]))[1]
        prefixes_BT = torch.tensor([[token] * column + [toy.vocab_size] * (4 - column) for token in range(3)])
        logits_B = options["discriminator"].eval().logits(prefixes_BT)
        np.testing.assert_allclose(rewards_B, logits_B.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("reward", REWARDS)
def test_nothing_is_paid_after_the_end(words: Task, reward: str) -> None:
    options = options_for(words, reward=reward, transform="logit")
    envs = TextGANVectorEnv(16, **options)
    envs.reset(seed=0)
    batch = envs.collect(options["rollout_policy"])
    columns_T = torch.arange(words.max_length)
    assert torch.equal(batch.mask_BT, columns_T < batch.lengths_B[:, None])
    assert not batch.mask_BT.all()
    for part in (batch.credit_BT, batch.reward_BT):
        assert (part[~batch.mask_BT] == 0).all()
    assert (batch.tokens_BT[~batch.mask_BT] == words.vocab_size).all()
    ends_B = batch.tokens_BT[torch.arange(16), batch.lengths_B - 1] == words.end_token
    assert (ends_B | (batch.lengths_B == words.max_length)).all()


def test_every_credit_cell_of_a_batch_belongs_to_its_own_text(toy: Task) -> None:
    judge = PositionDiscriminator(toy.vocab_size, toy.max_length)
    envs = TextGANVectorEnv(5, task=toy, rollouts=1, transform="logit", discriminator=judge)
    envs.reset(seed=2)
    batch = envs.collect(policy_for(toy))
    for row in range(5):
        completed_TT = judge.decode(batch.credit_BT[row])  # one rollout: the credit spells the completed text
        for column in range(toy.max_length):
            assert completed_TT[column, : column + 1].tolist() == batch.tokens_BT[row, : column + 1].tolist()


def test_collecting_moves_no_weight_no_mode_and_no_gradient(words: Task) -> None:
    options = options_for(words)
    policy = LSTMPolicy(
        words.vocab_size, start_token=words.start_token, embed_size=4, hidden_size=4, dropout=0.5
    ).train()
    judge = options["discriminator"].train()
    before = [tensor.clone() for module in (policy, judge) for tensor in module.state_dict().values()]
    envs = TextGANVectorEnv(4, **options | {"rollout_policy": None})
    envs.reset(seed=0)
    batch = envs.collect(policy)
    envs.step(np.zeros(4, dtype=np.int64)) if not envs.game.episodes.ended_B.any() else None
    after = [tensor for module in (policy, judge) for tensor in module.state_dict().values()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert policy.training
    assert judge.training
    assert not batch.credit_BT.requires_grad
    assert all(parameter.grad is None for parameter in (*policy.parameters(), *judge.parameters()))


# -- Further sources of credit ----------------------------------------------------------------------------------------
class PlaceCredit:
    """100 at the first token of a text, 101 at the second, and so on."""

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        return (100.0 + torch.arange(wanted_BT.shape[1])) * wanted_BT


@pytest.mark.parametrize("reward", ["rollout", "terminal"])
def test_credit_of_further_sources_is_added_in_their_order(words: Task, reward: str) -> None:
    policy, reference = policy_for(words), policy_for(words, seed=4)
    sources: tuple[Source, ...] = (
        lambda generating: KLCredit(generating, reference, 0.7),
        lambda generating: EntropyCredit(generating, 0.3, 0.9),
    )
    plain, more = (
        TextGANVectorEnv(8, **options_for(words, reward=reward, rollout_policy=policy, sources=given))
        for given in ((), sources)
    )
    for envs in (plain, more):
        envs.reset(seed=0)
    for bias in (0.0, 1.0):  # the second time the policy has learnt, and is asked as it is
        with torch.no_grad():
            policy.projection.bias[0] = bias
        alone, batch = plain.collect(policy), more.collect(policy)
        kl_BT = KLCredit(policy, reference, 0.7).credit(alone, alone.mask_BT)
        entropy_BT = EntropyCredit(policy, 0.3, 0.9).credit(alone, alone.mask_BT)
        assert torch.equal(batch.tokens_BT, alone.tokens_BT)
        assert torch.equal(batch.credit_BT, (alone.credit_BT + kl_BT) + entropy_BT)
        assert torch.equal(batch.own_credit_BT, alone.credit_BT)
        assert torch.equal(alone.own_credit_BT, alone.credit_BT)
        added_BT = kl_BT + entropy_BT
        paid_BT = added_BT if reward == "rollout" else added_BT[:, :1] * alone.last_BT
        torch.testing.assert_close(batch.reward_BT, alone.reward_BT + paid_BT, atol=1e-5, rtol=0)


@pytest.mark.parametrize("reward", ["rollout", "terminal"])
def test_a_source_of_ones_own_is_paid_by_step_as_by_collect(words: Task, reward: str) -> None:
    options = options_for(words, reward=reward, sources=[PlaceCredit()], autoreset_mode="disabled")
    envs = TextGANVectorEnv(1, **options)
    envs.reset(seed=2)
    batch = envs.collect(options["rollout_policy"])
    envs.reset(seed=2)
    envs.reset()
    length = int(batch.lengths_B[0])
    actions_BT = action_of(envs, batch.tokens_BT[:, :length].numpy())
    rewards = [float(envs.step(actions_B)[1][0]) for actions_B in actions_BT.T]
    assert rewards == pytest.approx(batch.reward_BT[0, :length].tolist(), abs=1e-4)
    added = [reward - own for reward, own in zip(rewards, batch.own_credit_BT[0, :length].tolist(), strict=True)]
    if reward == "rollout":
        assert added == pytest.approx([100 + column for column in range(length)], abs=1e-4)
    else:
        assert added[-1] == pytest.approx(100, abs=1e-4)  # what the source says of the whole text: its first token


def test_a_source_pays_for_the_text_after_a_given_prefix(words: Task) -> None:
    env = TextGANEnv(**options_for(words, reward="terminal", sources=[PlaceCredit()], control="constant"))
    env.reset(seed=0, options={"prefix": "the cat"})
    assert [env.step(np.int64(token))[1] for token in (2, words.end_token or 0)] == [0, 1 + 102]


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (lambda wanted_BT: torch.where(wanted_BT, math.nan, 0.0), "must be finite, found nan at token 1 of text 1"),
        (lambda wanted_BT: torch.where(wanted_BT, -math.inf, 0.0), "must be finite, found -inf at token 1 of text 1"),
        (lambda wanted_BT: torch.ones(len(wanted_BT), 1), r"shape \(B, T\)=\(2, \d\), found \(2, 1\)"),
        (lambda wanted_BT: 1.0, "found float"),
    ],
)
def test_a_source_that_does_not_give_a_finite_number_a_token_is_refused(
    toy: Task, said: Callable[[Tensor], Tensor], sentence: str
) -> None:
    class OwnCredit:
        def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
            return said(wanted_BT)

    envs = TextGANVectorEnv(2, **options_for(toy, sources=[OwnCredit()]))
    envs.reset(seed=0)
    assert_refused(f"the credit of OwnCredit .*{sentence}", envs.collect, policy_for(toy))


def test_sources_that_need_what_is_not_known_are_refused(toy: Task) -> None:
    policy = policy_for(toy)
    options = options_for(toy, rollout_policy=policy)
    for source, sentence in (
        (lambda generating: KLCredit(generating, policy, 1.0), "work in collect only"),
        (EntropyCredit(policy, 1.0), "before the text has ended"),
    ):
        env = TextGANEnv(**options, sources=[source])
        env.reset(seed=0)
        assert_refused(sentence, env.step, np.int64(0))
    assert_refused("sources", TextGANEnv, **options | {"reward": "difference"}, sources=[EntropyCredit(policy, 1.0)])
    assert_refused("sources", TextGANEnv, **options, sources=[0.5])


# -- The arguments ----------------------------------------------------------------------------------------------------
def test_the_manual_lists_every_argument_with_its_default() -> None:
    listed = dict(re.findall(r"^ +\| (\w+) \| (\S+) \|", TextGANEnv.__doc__ or "", re.MULTILINE))
    assert TextGANVectorEnv.__doc__ is not None
    assert all(f"| {name} | {default} |" in TextGANVectorEnv.__doc__ for name, default in listed.items())
    own = {one.name: one.default for one in fields(RewardSpec)}
    for function in (TextGame, TextGANEnv):
        parts = inspect.signature(function).parameters.values()
        own |= {part.name: part.default for part in parts if part.kind == part.KEYWORD_ONLY}
    own["task"] = inspect.signature(TextGANEnv).parameters["task"].default
    del listed["name"]
    assert listed == {name: repr(default).replace("'", '"') for name, default in own.items()}
    assert f"| f: {', '.join(TRANSFORMS)} |" in (TextGANEnv.__doc__ or "")


def test_every_transform_is_in_the_docs() -> None:
    page = (PROJECT / "docs" / "environment.md").read_text("utf-8")
    assert [name for name in TRANSFORMS if f"\n| `{name}` |" not in page] == []


# -- The vector environment is the single one, many times -------------------------------------------------------------
def assert_same(left: Any, right: Any, where: str = "") -> None:
    """Equal in structure, dtype and value; rewards and scores up to float32 rounding."""
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert set(left) == set(right), where
        for key in left:
            assert_same(left[key], right[key], f"{where}/{key}")
    elif isinstance(left, tuple) or (isinstance(left, np.ndarray) and left.dtype == object):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{where}/{index}")
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype, where
        np.testing.assert_allclose(left, right, atol=1e-6, rtol=0, err_msg=where)
    else:
        assert left == right, where


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.value)
@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("task_name", ["words", "toy"])
def test_vector_env_equals_sync_vector_env(
    task_name: str, reward: str, mode: AutoresetMode, request: pytest.FixtureRequest
) -> None:
    task: Task = request.getfixturevalue(task_name)
    options = options_for(task, reward=reward)
    ours = TextGANVectorEnv(3, autoreset_mode=mode, **options)
    theirs = SyncVectorEnv([lambda: TextGANEnv(**options)] * 3, autoreset_mode=mode)
    assert ours.single_observation_space == theirs.single_observation_space
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    rng = np.random.default_rng(0)
    assert_same(ours.reset(seed=[4, 2, 9]), theirs.reset(seed=[4, 2, 9]), "reset")
    ends = []
    for number in range(14):
        actions = rng.integers(len(ours.token_of_action), size=3)
        found = ours.step(actions)
        assert_same(found, theirs.step(actions), f"step {number}")
        ends.append(found[2])
        if mode == AutoresetMode.DISABLED and found[2].any():
            masks = [{"reset_mask": found[2].copy()} for _ in range(2)]
            assert_same(ours.reset(options=masks[0]), theirs.reset(options=masks[1]), f"partial reset {number}")
    assert np.sum(ends, axis=0).min() >= 2
    if task_name == "words":
        assert any(ended_B.any() and not ended_B.all() for ended_B in ends)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP], ids=lambda mode: mode.value)
@pytest.mark.parametrize("control", ["constant", "random"])
def test_vector_env_without_a_judge_equals_sync_vector_env(words: Task, control: str, mode: AutoresetMode) -> None:
    options: dict[str, Any] = {"task": words, "control": control}
    ours = TextGANVectorEnv(2, autoreset_mode=mode, **options)
    theirs = SyncVectorEnv([lambda: TextGANEnv(**options)] * 2, autoreset_mode=mode)
    assert_same(ours.reset(seed=7), theirs.reset(seed=7))
    for number in range(9):
        actions = np.array([0, words.end_token]) if number % 3 else np.array([2, 2])
        assert_same(ours.step(actions), theirs.step(actions), f"step {number}")


def test_a_partial_reset_with_seeds_and_a_prefix_equals_sync_vector_env(words: Task) -> None:
    options = options_for(words)
    ours = TextGANVectorEnv(3, autoreset_mode="disabled", **options)
    theirs = SyncVectorEnv([lambda: TextGANEnv(**options)] * 3, autoreset_mode=AutoresetMode.DISABLED)
    for envs in (ours, theirs):
        envs.reset(seed=1)
        envs.step(np.array([2, 2, 2]))
    results = [
        envs.reset(seed=[8, None, 9], options={"reset_mask": np.array([True, True, False]), "prefix": "the cat"})
        for envs in (ours, theirs)
    ]
    assert_same(results[0], results[1])
    assert results[0][0]["length"].tolist() == [[2], [2], [1]]
    assert_same(ours.step(np.array([0, 2, 2])), theirs.step(np.array([0, 2, 2])))


def test_one_seed_counts_up_row_by_row_and_a_list_is_taken_as_it_is(toy: Task) -> None:
    policy = policy_for(toy)

    def texts(seed: Any) -> list[list[int]]:
        envs = TextGANVectorEnv(3, task=toy, control="constant")
        envs.reset(seed=seed)
        return envs.collect(policy).tokens_BT.tolist()

    assert texts(5) == texts([5, 6, 7]) == texts(np.int64(5))
    assert texts([7, 6, 5]) == texts(5)[::-1]
    assert texts(None) != texts(None) or texts(None) != texts(None)


def test_without_a_seed_the_next_texts_follow_from_the_last_seed(toy: Task) -> None:
    policy = policy_for(toy)
    envs = TextGANVectorEnv(3, task=toy, control="constant")
    runs = []
    for _ in range(2):
        envs.reset(seed=5)
        envs.reset()
        runs.append(envs.collect(policy).tokens_BT)
    assert torch.equal(*runs)


@pytest.mark.parametrize(("mask", "where"), [
    ([True, False], "list"), (np.array([1, 0]), "numbers"), (np.array([True]), "shape"),
    (np.array([False, False]), "nobody"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_a_wrong_reset_mask_is_refused(toy: Task, mask: Any, where: str) -> None:
    envs = TextGANVectorEnv(2, task=toy, control="constant")
    assert_refused("reset_mask", envs.reset, options={"reset_mask": mask})


def test_a_list_of_seeds_must_fit(toy: Task) -> None:
    assert_refused("seeds", TextGANVectorEnv(2, task=toy, control="constant").reset, seed=[1, 2, 3])


# -- Gymnasium's rules ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", textgan_env.ENVIRONMENTS)
def test_specs_survive_json(name: str) -> None:
    spec = gym.spec(name)
    assert EnvSpec.from_json(spec.to_json()) == spec
    assert json.loads(spec.to_json())["kwargs"] == textgan_env.ENVIRONMENTS[name]


def test_an_env_is_made_again_from_its_spec() -> None:
    env = gym.make("TextGAN/Toy-v0", size=50)
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    rewards = []
    for one in (env, again):
        one.reset(seed=3)
        rewards.append([float(one.step(np.int64(token))[1]) for token in (0, 3, 2, 1)])
    assert rewards[0] == rewards[1]
    assert rewards[0][-1] > 0


def test_own_text_can_be_given_as_a_list() -> None:
    one, other = (
        gym.make("TextGAN/Corpus-v0", texts=LINES, control="constant").get_wrapper_attr("task") for _ in range(2)
    )
    assert one is other
    assert one.words(one.encode("the cat")) == ["the", "cat"]


def test_every_id_is_in_the_docs() -> None:
    page = (PROJECT / "docs" / "environment.md").read_text("utf-8")
    assert not [name for name in textgan_env.ENVIRONMENTS if f"`{name}`" not in page]


def test_registering_twice_changes_nothing() -> None:
    before = dict(gym.registry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        textgan_env.register_environments()
    assert dict(gym.registry) == before
    assert set(textgan_env.ENVIRONMENTS) <= set(gym.registry)


def test_a_fresh_process_finds_the_ids_by_the_name_of_the_package_and_loads_no_music21() -> None:
    program = """
import gymnasium as gym
env = gym.make("textgan_env:TextGAN/Toy-v0", size=50)
env.reset(seed=0)
for token in (0, 3, 2, 1):
    observation, reward, terminated, truncated, info = env.step(token)
print(terminated, observation["tokens"].tolist(), 0 < reward < 1, 0 < info["score_real"] < 1)
import sys, textgan_env.text.published
print("music21" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.splitlines() == ["True [0, 3, 2, 1] True True", "False"]


def test_make_vec_takes_the_native_vector_env() -> None:
    options: dict[str, Any] = {"control": "constant", "reward": "rollout"}
    envs = gym.make_vec("TextGAN/Toy-v0", num_envs=3, vectorization_mode="vector_entry_point", **options)
    assert isinstance(envs.unwrapped, TextGANVectorEnv)
    envs.reset(seed=0)
    assert envs.step(np.array([0, 1, 2]))[1].tolist() == [1, 1, 1]
    envs.close()
    assert isinstance(gym.make_vec("TextGAN/Toy-v0", num_envs=2, control="constant"), TextGANVectorEnv)


def test_two_envs_of_one_seed_are_one_and_of_another_seed_are_not(toy: Task) -> None:
    """The random control shows every draw in its rewards."""
    runs = []
    for seed in (1, 1, 2):
        env = TextGANEnv(toy, control="random")
        env.reset(seed=seed)
        runs.append([env.step(np.int64(0))[1] for _ in range(4)])
        env.reset()
        runs[-1] += [env.step(np.int64(0))[1] for _ in range(4)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert runs[0][:4] != runs[0][4:]


def test_observations_are_fresh_and_in_their_space(words: Task) -> None:
    env = TextGANEnv(words, control="constant")
    first, _ = env.reset(seed=0)
    second, *_ = env.step(np.int64(1))
    assert first["tokens"].tolist() == [words.vocab_size] * 4
    assert first in env.observation_space
    assert second in env.observation_space
    second["tokens"][:] = 0
    third, *_ = env.step(np.int64(2))
    assert third["tokens"].tolist() == [2, 3, words.vocab_size, words.vocab_size]


# -- Prefixes, masks, pictures ----------------------------------------------------------------------------------------
def test_a_text_can_begin_with_given_words_or_tokens(words: Task) -> None:
    env = TextGANEnv(**options_for(words))
    tokens = words.encode("the cat")
    for prefix in ("the cat", "The CAT", tokens, np.array(tokens)):
        observation, _ = env.reset(seed=0, options={"prefix": prefix})
        assert observation["tokens"].tolist() == [*tokens, words.vocab_size, words.vocab_size]
        assert observation["length"].tolist() == [2]
    assert env.reset(options={"prefix": None})[0]["length"].tolist() == [0]
    assert env.reset(options={})[0]["length"].tolist() == [0]


@pytest.mark.parametrize("interval", [1, 2, 3])
def test_after_a_prefix_difference_still_sums_to_the_reward_of_the_text(words: Task, interval: int) -> None:
    env, paid = (
        TextGANEnv(**options_for(words, reward=reward, q_interval=interval)) for reward in ("difference", "terminal")
    )
    totals = []
    for one in (env, paid):
        one.reset(seed=0, options={"prefix": "the cat"})
        assert words.end_token is not None
        totals.append(sum([float(one.step(np.int64(token))[1]) for token in (2, words.end_token or 0)]))
    assert totals[0] == pytest.approx(totals[1], abs=1e-6)


@pytest.mark.parametrize("prefix", [
    "the cat sat ate", [2] * 4, [2, 99], [[2, 2]], [[2], [2, 2]], [0.5], ["the"], 7,
], ids=["words", "tokens", "out of range", "nested", "ragged", "fractions", "strings", "a number"])  # fmt: skip
def test_a_prefix_that_does_not_fit_is_refused(words: Task, prefix: Any) -> None:
    for env in (TextGANEnv(words, control="constant"), TextGANVectorEnv(2, words, control="constant")):
        assert_refused("prefix", env.reset, seed=0, options={"prefix": prefix})


def test_a_prefix_may_not_hold_the_end(words: Task) -> None:
    assert_refused("prefix", TextGANEnv(words, control="constant").reset, options={"prefix": [2, words.end_token]})


def test_words_need_a_vocabulary_that_has_them(toy: Task) -> None:
    assert_refused("numbers without words", TextGANEnv(toy, control="constant").reset, options={"prefix": "the cat"})
    task = CorpusTask(load_corpus(texts=[f"{a} {b}" for a in ("the", "a", "my") for b in ("cat", "dog", "fox")]))
    assert not task.forbidden
    assert_refused("zebra", TextGANEnv(task, control="constant").reset, options={"prefix": "the zebra"})


def test_the_unknown_word_may_stand_in_a_prefix_but_is_never_written(words: Task) -> None:
    (unk,) = words.forbidden
    env = TextGANEnv(words, control="constant")
    observation, _ = env.reset(seed=0, options={"prefix": "the zebra"})
    assert observation["tokens"][1] == unk
    assert unk not in env.token_of_action
    assert sorted([*env.token_of_action, unk]) == [*range(words.vocab_size)]
    assert env.step(np.int64(unk))[0]["tokens"][2] == unk + 1  # the action after EOS is the first word


def test_an_action_mask_is_given_in_every_info_and_bars_nothing(words: Task) -> None:
    env = TextGANEnv(words, control="constant")
    infos = [env.reset(seed=0)[1], env.step(np.int64(1))[4], env.step(np.int64(0))[4]]
    for info in infos:
        mask_A = info["action_mask"]
        assert (mask_A.dtype, mask_A.shape) == (np.int8, (words.vocab_size - 1,))
        assert env.action_space.sample(mask_A) in env.action_space
        mask_A[:] = 0
    assert env.reset()[1]["action_mask"].all()
    assert env.action_masks().tolist() == [True] * (words.vocab_size - 1)
    envs = TextGANVectorEnv(2, words, control="constant")
    assert np.array_equal(envs.action_masks(), np.stack([env.action_masks()] * 2))


def test_the_default_reward_puts_texts_in_their_order_for_a_library_with_gamma_99() -> None:
    """All texts, paid as `step` pays; returns that are added up again put them in another order."""
    task = ToyTask(seed=5)
    real_S = score_logits(default_discriminator(task, 0), task.texts_ST).sigmoid()
    sums: dict[str, Any] = {}
    given: dict[str, dict[str, Any]] = {"default": {}, "rollout": {"reward": "rollout"}}
    for name, options in given.items():
        envs = gym.make_vec("TextGAN/Toy-v0", num_envs=256, task=task, autoreset_mode="disabled", **options)
        envs.reset(seed=0)
        sums[name] = sum(0.99**t * envs.step(actions_S)[1] for t, actions_S in enumerate(task.texts_ST.T.numpy()))
    assert np.argsort(sums["default"], kind="stable").tolist() == real_S.argsort(stable=True).tolist()
    assert np.corrcoef(sums["rollout"], real_S)[0, 1] < 0.95


@pytest.mark.slow
def test_what_gamma_99_makes_of_each_reward_on_ten_toy_tasks() -> None:
    """By listing all texts: how often the best text stays the best, as the page says, and what `difference` sums to."""
    still_best = dict.fromkeys(("terminal", "difference", "rollout"), 0)
    gamma_T = 0.99 ** torch.arange(4.0, dtype=torch.float64)
    for seed in range(10):
        task = ToyTask(seed=seed)
        real_S = score_logits(default_discriminator(task, 0), task.texts_ST).sigmoid().double()
        q_of_lengths = task.exact_q(default_rollout_policy(task), real_S)
        q_ST = torch.stack([q.flatten().repeat_interleave(256 // q.numel()) for q in q_of_lengths], dim=1)
        paid = {
            "terminal": torch.cat([torch.zeros(256, 3), real_S[:, None]], dim=1),
            "difference": q_ST.diff(dim=1, prepend=torch.zeros(256, 1)),
            "rollout": q_ST,
        }
        sums = {reward: (paid_ST * gamma_T).sum(1) for reward, paid_ST in paid.items()}
        torch.testing.assert_close(
            sums["difference"], 0.99**3 * real_S + 0.01 * (q_ST[:, :3] * gamma_T[:3]).sum(1), atol=1e-6, rtol=0
        )
        for reward, sum_S in sums.items():
            still_best[reward] += int(sum_S.argmax() == real_S.argmax())
    assert still_best == {"terminal": 10, "difference": 10, "rollout": 3}


def test_pictures_of_the_text(words: Task, capsys: pytest.CaptureFixture[str]) -> None:
    options = options_for(words)
    tokens = words.encode("my dog")
    for mode in ("ansi", "human", "rgb_array"):
        env = TextGANEnv(render_mode=mode, **options)
        env.reset(seed=0)
        for token in tokens:
            env.step(action_of(env, token))
        frame = env.render()
        if mode == "rgb_array":
            assert frame.dtype == np.uint8
            assert frame.ndim == 3
            assert frame.shape[2] == 3
        else:
            shown = capsys.readouterr().out if mode == "human" else frame
            assert "my" in shown
            assert "dog" in shown
            assert (frame is None) == (mode == "human")


def test_the_vector_env_shows_every_row(words: Task) -> None:
    envs = TextGANVectorEnv(2, render_mode="ansi", autoreset_mode="disabled", **options_for(words))
    envs.reset(seed=0)
    envs.step(action_of(envs, [words.encode(word)[0] for word in ("cat", "dog")]))
    first, second = envs.render() or ()
    assert "cat" in first
    assert "dog" in second


def test_rendering_without_a_mode_warns(toy: Task) -> None:
    for env in (TextGANEnv(toy, control="constant"), TextGANVectorEnv(2, toy, control="constant")):
        env.reset(seed=0)
        with pytest.warns(UserWarning, match="render_mode"):
            assert env.render() is None


# -- What is refused --------------------------------------------------------------------------------------------------
def one_step(env: TextGANEnv, action: Any) -> None:
    env.reset(seed=0)
    env.step(action)


@pytest.mark.parametrize(("action", "found"), [
    (1.0, "float 1.0"), (np.float32(1), "float32 1.0"), (np.array([1, 2]), r"int64 of shape \(2,\)"), ("1", "str '1'"),
    (True, "bool True"), (None, "NoneType None"), (4, "4"), (-1, "-1"), (np.array([1]), r"int64 of shape \(1,\)"),
    ([[1], [1, 2]], "several lengths"),
], ids=["float", "float32", "two", "string", "bool", "None", "PAD", "negative", "in an array", "ragged"])  # fmt: skip
def test_an_action_that_is_no_token_is_refused(toy: Task, action: Any, found: str) -> None:
    env = TextGANEnv(toy, control="constant")
    assert_refused(f"^an action must be one whole number from 0 to 3, found .*{found}", one_step, env, action)
    assert env.game.episodes.lengths_B.tolist() == [0]


@pytest.mark.parametrize(
    "action", [2, np.int64(2), np.int32(2), np.array(2), np.uint8(2)], ids=lambda action: type(action).__name__
)
def test_whole_numbers_of_any_kind_are_tokens(toy: Task, action: Any) -> None:
    env = TextGANEnv(toy, control="constant")
    one_step(env, action)
    assert env.game.episodes.tokens_BT[0, 0] == 2


def test_the_vector_env_needs_one_action_a_row(toy: Task) -> None:
    envs = TextGANVectorEnv(2, toy, control="constant")
    envs.reset(seed=0)
    expected = "^actions must be 2 whole numbers from 0 to 3, found"
    for actions, found in (
        (np.array([0, 1, 2]), r"int64 of shape \(3,\)"), (np.array([[0], [1]]), r"int64 of shape \(2, 1\)"),
        (np.array([0.0, 1.0]), r"float64 of shape \(2,\)"), (np.array([0, 4]), "4"), (1, r"int64 of shape \(\)"),
    ):  # fmt: skip
        assert_refused(f"{expected} {found}", envs.step, actions)


def test_stepping_before_reset_and_after_the_end_is_refused(toy: Task) -> None:
    single: Any = TextGANEnv(toy, control="constant")
    together: Any = TextGANVectorEnv(2, toy, control="constant")
    action: Any
    for env, action in ((single, np.int64(0)), (together, np.array([0, 0]))):
        assert_refused("step was called before reset", env.step, action)
    assert_refused("collect was called before reset", together.collect, UniformPolicy(4, start_token=4))
    for env, action in (
        (single, 0),
        (TextGANVectorEnv(2, toy, control="constant", autoreset_mode="disabled"), np.array([0, 0])),
    ):
        env.reset(seed=0)
        for _ in range(4):
            env.step(action)
        assert_refused("after the end", env.step, action)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"task": "oracles"}, "task"), ({"reward": "sparse"}, "reward mode"),
    ({"transform": "square"}, "reward transform"), ({"control": "zero"}, "control"),
    ({"rollouts": 0}, "rollouts"), ({"rollouts": -3}, "rollouts"), ({"render_mode": "html"}, "render mode"),
    ({"vocab_sise": 5}, "vocab_sise"), ({"vocab_size": 1}, "vocab_size"), ({"max_length": 0}, "max_length"),
    ({"control": "shuffled"}, "shuffled control"), ({"transform": "rank"}, "rank transform"),
], ids=lambda value: next(iter(value.items()))[0] if isinstance(value, dict) else "")  # fmt: skip
def test_unknown_names_and_numbers_out_of_range_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, TextGANEnv, **{"task": "toy", **options})


def test_what_only_a_vector_env_can_be_told_wrong(toy: Task) -> None:
    assert_refused("autoreset mode", TextGANVectorEnv, 2, toy, control="constant", autoreset_mode="never")
    assert_refused("number of texts", TextGANVectorEnv, 0, toy, control="constant")
    assert_refused("render mode", TextGANVectorEnv, 2, toy, control="constant", render_mode="human")


def test_an_unknown_reset_option_is_refused(toy: Task) -> None:
    for env in (TextGANEnv(toy, control="constant"), TextGANVectorEnv(2, toy, control="constant")):
        assert_refused("prefiks", env.reset, seed=0, options={"prefiks": [1]})
        assert_refused("unknown reset options", env.reset, seed=0, options={"a": 1, 2: 3})
        for odd in ("prefix", ["prefix"], 3):
            assert_refused("options of reset must be None or a dict", env.reset, seed=0, options=odd)


@pytest.mark.parametrize("seed", [1.5, -1, "7", float("nan")])
def test_a_seed_that_is_no_whole_number_is_refused(toy: Task, seed: Any) -> None:
    for env in (TextGANEnv(toy, control="constant"), TextGANVectorEnv(2, toy, control="constant")):
        assert_refused("a seed must be None or a whole number of at least 0, found", env.reset, seed=seed)
    assert_refused("a seed must be None", TextGANVectorEnv(2, toy, control="constant").reset, seed=[0, seed])
    one, other = (TextGANEnv(toy, control="random", reward="rollout") for _ in range(2))
    one.reset(seed=5)
    other.reset(seed=np.int64(5))  # type: ignore[arg-type]
    assert one.step(np.int64(0))[1] == other.step(np.int64(0))[1]


def test_an_unknown_id_names_its_neighbours() -> None:
    with pytest.raises(gym.error.Error, match="TextGAN"):
        gym.make("TextGAN/Toys-v0")


def test_what_reads_or_writes_another_task_is_refused(toy: Task) -> None:
    other = ToyTask(vocab_size=3, max_length=4, size=20)
    longer = ToyTask(vocab_size=4, max_length=5, size=20)
    judge = ConstantDiscriminator(toy, 0.5)
    assert_refused("vocab_size", TextGANEnv, toy, discriminator=ConstantDiscriminator(other, 0.5))
    assert_refused("max_length", TextGANEnv, toy, discriminator=ConstantDiscriminator(longer, 0.5))
    assert_refused("policy must write", TextGANEnv, toy, discriminator=judge, rollout_policy=policy_for(other))
    assert_refused("gamma", TextGANEnv, toy, discriminator=judge, reward="difference", gamma=0.9)
    assert_refused("gamma", TextGANVectorEnv, 2, toy, discriminator=judge, gamma=2)
    envs = TextGANVectorEnv(2, toy, discriminator=judge)
    envs.reset(seed=0)
    assert_refused("policy must write", envs.collect, policy_for(other))
    assert_refused("no use for a discriminator", TextGANEnv(toy, control="constant").game.queue_discriminator, judge)


def test_a_discriminator_that_is_not_on_one_device_is_refused(toy: Task) -> None:
    """On another one it may be: what it is shown is brought there, see below."""
    for places, moved in (("cpu and meta", "output"), ("meta", None)):
        judge = make_discriminator("pair", vocab_size=4, max_length=4)
        (judge if moved is None else judge.get_submodule(moved)).to("meta")
        assert_refused(f"discriminator .* {places}$", TextGANEnv, toy, discriminator=judge)


# -- The discriminator: the default one, and its successors -----------------------------------------------------------
def test_the_default_judge_is_fitted_once_and_knows_real_text() -> None:
    task = OracleTask(vocab_size=12, max_length=6, train_size=300, valid_size=300, test_size=1)
    judge = TextGANEnv(task, rollouts=1).game.discriminator
    assert judge is default_discriminator(task, 0) is TextGANVectorEnv(2, task, rollouts=1).game.discriminator
    assert default_discriminator(task, 1) is not judge
    assert isinstance(judge, DiscriminatorModule)
    assert not any(parameter.requires_grad for parameter in judge.parameters())
    assert not judge.training
    noise_BT = torch.randint(12, (300, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert judge.logits(task.split("valid").tokens_BT).mean() > judge.logits(noise_BT).mean() + 0.5


def test_no_text_is_judged_by_two(toy: Task) -> None:
    old, new = ConstantDiscriminator(toy, 0.25), ConstantDiscriminator(toy, 0.75)
    options: dict[str, Any] = {"reward": "rollout", "rollouts": 1, "autoreset_mode": "disabled"}
    envs = TextGANVectorEnv(2, toy, discriminator=old, **options)
    envs.reset(seed=0)
    actions = np.array([0, 0])
    assert envs.step(actions)[1].tolist() == [0.25, 0.25]
    assert envs.game.queue_discriminator(new)
    assert envs.game.discriminator is new
    assert envs.step(actions)[1].tolist() == [0.25, 0.25]
    envs.reset(options={"reset_mask": np.array([True, False])})
    assert envs.step(actions)[1].tolist() == [0.75, 0.25]
    *_, infos = envs.step(actions)
    assert (infos["score_real"].tolist(), infos["_score_real"].tolist()) == ([0, 0.25], [False, True])
    envs.reset(options={"reset_mask": np.array([False, True])})
    assert envs.step(actions)[1].tolist() == [0.75, 0.75]


def test_a_third_judge_has_to_wait_until_the_first_has_done_its_work(toy: Task) -> None:
    first, second, third, fourth = (ConstantDiscriminator(toy, score) for score in (0.2, 0.4, 0.6, 0.8))
    options: dict[str, Any] = {"reward": "rollout", "rollouts": 1, "autoreset_mode": "disabled"}
    envs = TextGANVectorEnv(2, toy, discriminator=first, **options)
    game, actions = envs.game, np.array([0, 0])
    envs.reset(seed=0)
    assert game.queue_discriminator(second)
    envs.reset(options={"reset_mask": np.array([True, False])})
    assert not game.queue_discriminator(third)
    assert game.discriminator is second
    assert envs.step(actions)[1].tolist() == pytest.approx([0.4, 0.2])
    envs.reset(options={"reset_mask": np.array([False, True])})
    assert game.queue_discriminator(third)
    assert envs.step(actions)[1].tolist() == pytest.approx([0.4, 0.4])
    assert game.queue_discriminator(fourth)  # nobody has begun under the third
    envs.reset()
    assert envs.step(actions)[1].tolist() == pytest.approx([0.8, 0.8])
    assert len(game.discriminators.versions) == 2


def test_a_new_judge_judges_the_next_batch(toy: Task) -> None:
    envs = TextGANVectorEnv(2, toy, discriminator=ConstantDiscriminator(toy, 0.25), rollouts=1)
    envs.reset(seed=0)
    policy = policy_for(toy)
    for score in (0.75, 0.5, 0.125):
        assert envs.game.queue_discriminator(ConstantDiscriminator(toy, score))
        assert (envs.collect(policy).credit_BT == score).all()


def test_a_rollout_policy_can_be_exchanged_and_its_training_shows_at_once(toy: Task) -> None:
    judge = PositionDiscriminator(4, 4)
    env = TextGANEnv(toy, discriminator=judge, reward="rollout", rollouts=1, transform="logit")
    policy = policy_for(toy)
    env.set_rollout_policy(policy)

    def completed() -> list[int]:
        env.reset(seed=0)
        return judge.decode(torch.tensor([env.step(np.int64(0))[1]]))[0].tolist()

    for token in (1, 3):
        with torch.no_grad():
            policy.projection.bias.copy_(torch.eye(4)[token] * 1e4)
        assert completed() == [0, token, token, token]
    env.set_rollout_policy(None)
    assert env.game.rollout_policy is None
    completed()


def test_the_default_rollout_policy_can_be_gone_back_to_by_an_env_that_began_with_another(toy: Task) -> None:
    judge, policy = PositionDiscriminator(4, 4), policy_for(toy)
    options: dict[str, Any] = {"discriminator": judge, "reward": "rollout"}
    began, never = (TextGANEnv(toy, rollout_policy=first, **options) for first in (policy, None))
    began.set_rollout_policy(None)
    rewards = []
    for env in (began, never):
        env.reset(seed=0)
        rewards.append(env.step(np.int64(0))[1])
    assert rewards[0] == rewards[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("given", [None, "cpu", "cuda"])
def test_policy_rollout_policy_and_discriminator_may_be_on_different_devices(toy: Task, given: str | None) -> None:
    judge = make_discriminator("pair", vocab_size=4, max_length=4)
    completing = None if given is None else policy_for(toy).to(given)
    envs = TextGANVectorEnv(2, toy, discriminator=judge, rollout_policy=completing)
    envs.reset(seed=0)
    batch = envs.collect(policy_for(toy).to("cuda"))
    assert batch.credit_BT.is_cuda
    assert batch.reward_BT.is_cuda
    envs.reset(seed=0)
    envs.step(np.array([0, 1]))


def test_a_discriminator_reads_a_text_once_where_its_probability_is_what_is_paid(
    toy: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    for transform, readings in (("prob", 1), ("logit", 2)):
        env = TextGANEnv(**options_for(toy, reward="terminal", transform=transform))
        judge: Any = env.game.discriminator
        asked: list[int] = []
        expected = float(score_logits(judge, torch.tensor([[0, 1, 2, 3]])).sigmoid())

        def logits(tokens_BT: Tensor, judge: Any = judge, asked: list[int] = asked) -> Tensor:
            asked.append(len(tokens_BT))
            return type(judge).logits(judge, tokens_BT)  # type: ignore[no-any-return]

        monkeypatch.setattr(judge, "logits", logits)
        env.reset(seed=0)
        _, info = played(env, [0, 1, 2, 3])
        assert (info["score_real"], len(asked)) == (expected, readings)
