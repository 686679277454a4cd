"""Stable-Baselines3: the adapter beside the vector environment, the networks beside plain ones, models as policies."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecMonitor
from torch import nn

from conftest import StubPolicy, assert_refused, global_rng_state
from textgan_env.envs import TextGANEnv, TextGANVectorEnv
from textgan_env.envs.sb3 import (
    BoltzmannDQNPolicy,
    LastTokenExtractor,
    ReplayState,
    SB3RolloutPolicy,
    SB3VecEnv,
    TokenExtractor,
    global_seeds_kept,
    share_weights,
)
from textgan_env.envs.wrappers import DiscriminatorVectorTraining
from textgan_env.evaluation import evaluate
from textgan_env.ops.sampling import seeded
from textgan_env.policies import Decoding, LSTMPolicy
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import CorpusTask, Task, ToyTask
from textgan_env.text.corpus import load_corpus
from textgan_env.utils.errors import InputError

TOY = ToyTask(vocab_size=4, max_length=4, size=50)
ALGORITHMS: tuple[type[BaseAlgorithm], ...] = (PPO, A2C, DQN, MaskablePPO, RecurrentPPO)
EACH = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.__name__)


@pytest.fixture(scope="module")
def words() -> Task:
    """Short lines with an end token and an unknown word, T = 4."""
    lines = [f"{('the', 'a', 'my')[n % 3]} {('cat', 'dog', 'fox')[n % 5 % 3]} {n % 4 * 'ran '}" for n in range(60)]
    return CorpusTask(load_corpus(texts=[*lines, "the owl sat"], min_count=2, max_length=4))


def vector_env(task: Task = TOY, rows: int = 4, **options: Any) -> TextGANVectorEnv:
    return TextGANVectorEnv(rows, task, **{"control": "random", "reward": "difference", **options})


def model_of(algorithm: type[BaseAlgorithm], task: Task = TOY, seed: int = 0, **options: Any) -> Any:
    """A model whose actor is the network of an `LSTMPolicy` of width 5."""
    recurrent, q = algorithm is RecurrentPPO, algorithm is DQN
    policy_options: dict[str, Any] = {
        "features_extractor_class": LastTokenExtractor if recurrent else TokenExtractor,
        "features_extractor_kwargs": {"embed_size": 3} | ({} if recurrent else {"hidden_size": 5}),
        "net_arch": [],
    }
    if not q:
        policy_options["share_features_extractor"] = False
    if recurrent:
        policy_options["lstm_hidden_size"] = 5
    kind = "MultiInputLstmPolicy" if recurrent else BoltzmannDQNPolicy if q else "MultiInputPolicy"
    given: dict[str, Any] = {"n_steps": 8} if algorithm is A2C else {"n_steps": 8, "batch_size": 16}
    if q:
        given = {"learning_starts": 0, "train_freq": (4, "step"), "buffer_size": 400}
        given |= {"exploration_initial_eps": 0.0, "exploration_final_eps": 0.0}
    envs = VecMonitor(SB3VecEnv(vector_env(task, **options)))
    with global_seeds_kept():
        given |= {"gamma": 1.0}
        return algorithm(kind, envs, policy_kwargs=policy_options, seed=seed, **given)


def lstm_policy(task: Task = TOY, **options: Any) -> LSTMPolicy:
    sizes = {"embed_size": 3, "hidden_size": 5, "init_scale": 1.0, "seed": 7}
    return LSTMPolicy(task.vocab_size, start_token=task.vocab_size, forbidden=task.forbidden, **{**sizes, **options})


# -- The adapter ------------------------------------------------------------------------------------------------------
def test_the_adapter_says_what_the_vector_env_says(words: Task) -> None:
    native, adapted = vector_env(words, rows=3, control=None), SB3VecEnv(vector_env(words, rows=3, control=None))
    adapted.seed(8)
    first, _ = native.reset(seed=8)
    assert {name: part.tolist() for name, part in adapted.reset().items()} == {n: p.tolist() for n, p in first.items()}
    ended = 0
    for number in range(9):
        actions = np.array([1, words.end_token if number % 2 else 2, 1 + number % 3])
        observation, reward_B, terminated_B, _, told = native.step(actions)
        theirs, rewards, dones, infos = adapted.step(actions)
        assert isinstance(theirs, dict)
        for name in observation:
            np.testing.assert_array_equal(theirs[name], observation[name])
        assert rewards.dtype == np.float32
        np.testing.assert_allclose(rewards, reward_B, rtol=1e-6)
        np.testing.assert_array_equal(dones, terminated_B)
        for row, info in enumerate(infos):
            if not terminated_B[row]:
                assert info == {}
                continue
            ended += 1
            final = info.pop("terminal_observation")
            np.testing.assert_array_equal(final["tokens"], told["final_obs"][row]["tokens"])
            assert info.pop("action_mask").tolist() == [1] * (words.vocab_size - 1)
            assert info == {"TimeLimit.truncated": False, "score_real": told["final_info"]["score_real"][row]}
    assert ended > 4


def test_a_text_cut_off_by_a_wrapper_is_truncated_and_one_that_ended_is_not() -> None:
    def make(limit: int) -> gym.Env[Any, Any]:
        return TimeLimit(TextGANEnv(TOY, control="constant"), limit)

    for limit, truncated in ((2, True), (4, False)):
        envs = SB3VecEnv(SyncVectorEnv([partial(make, limit)] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
        envs.reset()
        for _ in range(limit):
            _, _, dones, infos = envs.step(np.array([0, 1]))
        assert dones.all()
        assert [info["TimeLimit.truncated"] for info in infos] == [truncated] * 2
        assert infos[1]["terminal_observation"]["tokens"].tolist() == [1] * limit + [4] * (4 - limit)


def test_a_seed_is_used_at_the_next_reset_and_only_there() -> None:
    """The random control shows every draw in its rewards."""

    def rewards(envs: SB3VecEnv) -> list[list[float]]:
        envs.reset()
        return [envs.step(np.zeros(2, dtype=np.int64))[1].tolist() for _ in range(4)]

    envs = SB3VecEnv(vector_env(rows=2))
    envs.seed(5)
    first, second = rewards(envs), rewards(envs)
    assert first != second
    assert all(row[0] != row[1] for row in first)
    envs.seed(5)
    assert rewards(envs) == first
    native = vector_env(rows=2)
    native.reset(seed=[5, 6])
    np.testing.assert_allclose(first[0], native.step(np.zeros(2, dtype=np.int64))[1], rtol=1e-6)


def test_options_are_for_all_rows(words: Task) -> None:
    envs = SB3VecEnv(vector_env(words, rows=2))
    envs.set_options({"prefix": "the cat"})
    assert envs.reset()["length"].tolist() == [[2], [2]]
    assert envs.reset()["length"].tolist() == [[0], [0]]
    envs.set_options([{"prefix": "the cat"}, {}])
    assert_refused("options", envs.reset)


def test_masks_are_one_array_a_row(words: Task) -> None:
    native = vector_env(words, rows=3)
    envs = VecMonitor(SB3VecEnv(native))
    assert envs.has_attr("action_masks")
    np.testing.assert_array_equal(get_action_masks(envs), native.action_masks())
    (only,) = envs.env_method("action_masks", indices=1)
    np.testing.assert_array_equal(only, native.action_masks()[1])


def test_attributes_and_methods_are_found_through_gymnasiums_wrappers() -> None:
    native = vector_env(rows=2, control=None, rollouts=1)
    envs = SB3VecEnv(DiscriminatorVectorTraining(native, every=5))
    assert (envs.get_attr("task"), envs.get_attr("stats", indices=0)) == ([TOY, TOY], [{}])
    policy = StubPolicy([0.0] * 4)
    assert envs.env_method("set_rollout_policy", policy) == [None, None]
    assert native.game.rollout_policy is policy
    envs.set_attr("render_mode", "ansi")
    assert native.render_mode == "ansi"
    assert_refused("indices", envs.set_attr, "render_mode", None, indices=0)
    assert envs.env_is_wrapped(DiscriminatorVectorTraining) == [True, True]  # type: ignore[arg-type]
    assert envs.env_is_wrapped(TimeLimit) == [False, False]
    assert not envs.has_attr("nonsense")


def test_what_is_no_batch_with_same_step_autoreset_is_refused() -> None:
    assert_refused("envs", SB3VecEnv, TextGANEnv(TOY, control="constant"))
    assert_refused("autoreset_mode", SB3VecEnv, vector_env(autoreset_mode="next_step"))


@pytest.mark.moves_global_rng  # SB3 seeds the global generators
def test_the_discriminator_learns_while_sb3_trains() -> None:
    envs = DiscriminatorVectorTraining(vector_env(rows=4, control=None, reward="terminal"), every=20, steps=2)
    policy = {"features_extractor_class": TokenExtractor}
    model = PPO("MultiInputPolicy", SB3VecEnv(envs), n_steps=8, batch_size=32, gamma=1.0, policy_kwargs=policy, seed=0)
    model.learn(200)
    assert envs.stats["refits"] == 2


# -- The networks -----------------------------------------------------------------------------------------------------
def observations() -> dict[str, torch.Tensor]:
    """Three prefixes as SB3 gives them, in floats; what stands behind a prefix is no token at all."""
    tokens_BT = torch.tensor([[1, 2, 3, 3], [2] * 4, [3, 0, 2, 1]])
    return {"tokens": tokens_BT.float(), "length": torch.tensor([[2.0], [0.0], [4.0]])}


@pytest.mark.parametrize("layers", [1, 2])
def test_the_extractor_reads_the_prefix_and_nothing_behind_it(layers: int) -> None:
    space: Any = vector_env().single_observation_space
    with seeded(1):
        extractor = TokenExtractor(space, embed_size=3, hidden_size=5, num_layers=layers, start_token=0)
    found = extractor(observations())
    for row, prefix in enumerate(([0, 1, 2], [0], [0, 3, 0, 2, 1])):
        read = extractor.embedding(torch.tensor([prefix]))
        torch.testing.assert_close(found[row], extractor.lstm(read)[1][0][-1, 0])


@pytest.mark.moves_global_rng  # SB3 draws from the global generators
def test_leaked_features_are_joined_to_what_the_prefix_says() -> None:
    envs = TextGANVectorEnv(4, ToyTask(size=40), reward="terminal", leak_features=True)
    width = envs.single_observation_space["features"].shape[0]  # type: ignore[index]
    with seeded(0):
        extractor = TokenExtractor(envs.single_observation_space, hidden_size=3)  # type: ignore[arg-type]
    assert extractor.features_dim == 3 + width
    observation = {name: torch.from_numpy(part) for name, part in envs.reset(seed=0)[0].items()}
    joined_BF = extractor(observation)
    assert torch.equal(joined_BF[:, 3:], observation["features"])
    assert torch.equal(joined_BF[:, :3], extractor({name: observation[name] for name in ("tokens", "length")}))
    policy = {"features_extractor_class": TokenExtractor}
    model = PPO("MultiInputPolicy", SB3VecEnv(envs), n_steps=4, batch_size=16, gamma=1.0, policy_kwargs=policy)
    assert model.learn(16).num_timesteps == 16
    assert_refused("model must read", SB3RolloutPolicy, model)


def test_the_start_is_pad_unless_told_otherwise() -> None:
    space: Any = vector_env().single_observation_space
    with seeded(1):
        extractors = [kind(space, embed_size=3) for kind in (TokenExtractor, LastTokenExtractor)]
    assert [extractor.start_token for extractor in extractors] == [4, 4]


def test_the_last_token_is_all_that_a_model_with_memory_needs() -> None:
    with seeded(1):
        space: Any = vector_env().single_observation_space
        extractor = LastTokenExtractor(space, embed_size=3, start_token=0)
    assert torch.equal(extractor(observations()), extractor.embedding.weight[torch.tensor([2, 0, 1])])


@pytest.mark.parametrize("kind", [TokenExtractor, LastTokenExtractor])
def test_other_spaces_and_sizes_are_refused(kind: type[nn.Module]) -> None:
    assert_refused("observation_space", kind, gym.spaces.Box(0, 1, (4,)))
    assert_refused("embed_size", kind, vector_env().single_observation_space, embed_size=0)


def test_dqn_draws_tokens_by_the_exponential_of_q() -> None:
    """Q is ln 3 times the temperature for token 1 and 0 for the three others: probabilities 1/2 and 1/6 each."""
    space = vector_env(rows=1)
    with seeded(3):
        policy = BoltzmannDQNPolicy(
            space.single_observation_space,
            space.single_action_space,
            lambda _: 1e-3,
            temperature=0.1,
            net_arch=[],
            features_extractor_class=TokenExtractor,
        )
        head: Any = policy.q_net.q_net[-1]
        nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor([0.0, 0.1 * math.log(3.0), 0.0, 0.0])
        many = {"tokens": torch.full((6000, 4), 4), "length": torch.zeros(6000, 1, dtype=torch.int64)}
        share_V = torch.bincount(policy._predict(many, deterministic=False), minlength=4) / 6000
        assert (policy._predict(many) == 1).all()
    # Four standard errors of 6000 draws.
    torch.testing.assert_close(share_V, torch.tensor([1, 3, 1, 1]) / 6, atol=4 * (0.25 / 6000) ** 0.5, rtol=0)
    with pytest.raises(InputError, match="temperature"):
        BoltzmannDQNPolicy(space.single_observation_space, space.single_action_space, lambda _: 1e-3, temperature=0)


# -- Models as policies -----------------------------------------------------------------------------------------------
@EACH
@pytest.mark.moves_global_rng  # SB3 draws from the global generators
def test_a_model_and_the_policy_that_shares_its_weights_are_one(algorithm: type[BaseAlgorithm]) -> None:
    """Two ways to ask one network: the whole prefix at each step, and going on from the last state."""
    model, policy = model_of(algorithm), lstm_policy()
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    share_weights(model, policy)
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())
    asked = SB3RolloutPolicy(model)
    for trained in (False, True):
        if trained:
            model.learn(64)
            assert not all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())
        ones_BT = torch.ones_like(TOY.texts_ST, dtype=torch.bool)
        logp_BT = policy.log_prob(TOY.texts_ST, ones_BT)
        torch.testing.assert_close(asked.log_prob(TOY.texts_ST, ones_BT), logp_BT)
        keys = Keys.counted(3, 40)
        assert torch.equal(generate(policy, keys, 4)[0], generate(asked, keys, 4)[0])


@EACH
def test_the_policy_of_sb3_itself_is_the_same_distribution(algorithm: type[BaseAlgorithm]) -> None:
    """Over all prefixes of two tokens, what SB3 calls most probable is what the policy calls most probable."""
    model, policy = model_of(algorithm), lstm_policy()
    nn.init.zeros_(policy.projection.bias)
    share_weights(model, policy)
    prefixes = [(a, b) for a in range(4) for b in range(4)]
    best = []
    for prefix in prefixes:
        memory, start = None, np.ones(1, dtype=bool)
        for length in range(3):
            tokens = np.array([*prefix[:length]] + [4] * (4 - length))
            action, memory = model.predict(
                {"tokens": tokens[None], "length": np.array([[length]])}, memory, start, deterministic=True
            )
            start[:] = False
        best.append(int(action[0]))
    state = policy.begin(16)
    for column_B in (torch.full((16,), 4), *torch.tensor(prefixes).unbind(1)):
        with torch.no_grad():
            logits_BV, state = policy.step(column_B, state)
    assert best == logits_BV.argmax(1).tolist()
    assert len(set(best)) > 1


@EACH
@pytest.mark.moves_global_rng  # SB3 draws from the global generators
def test_unknown_words_are_never_written(algorithm: type[BaseAlgorithm], words: Task) -> None:
    model, policy = model_of(algorithm, words), lstm_policy(words)
    with torch.no_grad():
        policy.projection.bias[list(words.forbidden)] = 20.0  # what it would love to write
    share_weights(model, policy)
    model.learn(64)
    asked = SB3RolloutPolicy(model)
    assert asked.forbidden.tolist() == list(words.forbidden)
    tokens_BT, _ = generate(asked, Keys.counted(0, 200), 4, end_token=words.end_token)
    assert not torch.isin(tokens_BT, torch.tensor(words.forbidden)).any()
    torch.testing.assert_close(
        asked.log_prob(tokens_BT, words.scored(tokens_BT)), policy.log_prob(tokens_BT, words.scored(tokens_BT))
    )


@EACH
def test_actions_of_a_model_are_the_tokens_but_unk(algorithm: type[BaseAlgorithm], words: Task) -> None:
    """After any prefix the model's numbers are the policy's of the same tokens, also in the target of DQN."""
    model, policy = model_of(algorithm, words), lstm_policy(words)
    with torch.no_grad():
        policy.projection.bias.copy_(torch.arange(words.vocab_size))
    share_weights(model, policy)
    tokens = np.delete(np.arange(words.vocab_size), words.forbidden)
    assert model.get_env().get_attr("token_of_action")[0].tolist() == tokens.tolist()
    network, seen = model.policy, {"tokens": np.full((1, 4), words.vocab_size), "length": np.zeros((1, 1), dtype=int)}
    memory, start = None, np.ones(1, dtype=bool)
    assert model.predict(seen, memory, start, deterministic=True)[0].tolist() == [len(tokens) - 1]
    if algorithm is DQN:
        tensors = {name: torch.from_numpy(part) for name, part in seen.items()}
        hidden = network.q_net.features_extractor(tensors)
        expected = policy.projection(hidden)[0][torch.from_numpy(tokens)]
        for net in (network.q_net, network.q_net_target):
            torch.testing.assert_close(net(tensors)[0], expected)
    trained = {id(weight) for group in network.optimizer.param_groups for weight in group["params"]}
    assert {id(policy.projection.weight), id(policy.projection.bias)} <= trained


def test_a_model_without_its_environment_cannot_say_which_tokens_its_actions_are(words: Task) -> None:
    model = model_of(PPO, words)
    model.env = None
    assert_refused("must have its environment .* 8 actions for 9 tokens", SB3RolloutPolicy, model)


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_a_saved_model_whose_actions_had_unk_is_refused_by_stable_baselines3(
    algorithm: type[BaseAlgorithm], words: Task, tmp_path: Path
) -> None:
    model = model_of(algorithm, words)
    model.action_space = gym.spaces.Discrete(words.vocab_size)
    model.save(tmp_path / "old")
    with pytest.raises(ValueError, match="Action spaces do not match"):
        algorithm.load(tmp_path / "old", env=model.get_env())


def test_a_replay_buffer_that_was_saved_while_unk_was_an_action_has_another_name(words: Task) -> None:
    """So that it is refused: its numbers would be read as other tokens."""
    names = [{*ReplayState(model_of(DQN, task).replay_buffer).state_dict()} for task in (TOY, words)]
    assert names[0] - names[1] == {"actions"}
    assert names[1] - names[0] == {"actions_without_unk"}


def test_adding_up_returns_is_warned_of() -> None:
    model = model_of(PPO, control=None, reward="rollout", rollouts=1)
    for take in (SB3RolloutPolicy, lambda one: share_weights(one, lstm_policy())):
        with pytest.warns(UserWarning, match="gamma 0: the model adds them up with gamma 1"):
            take(model)
    model.gamma = 0.0
    SB3RolloutPolicy(model)
    SB3RolloutPolicy(model_of(PPO, control=None, reward="terminal"))


def test_the_model_completes_prefixes_and_can_be_measured() -> None:
    model = model_of(PPO, control=None, reward="rollout", rollouts=2)
    model.gamma = 0.0
    policy = SB3RolloutPolicy(model)
    model.get_env().env_method("set_rollout_policy", policy)
    envs = model.get_env()
    envs.seed(0)
    envs.reset()
    _, rewards, _, _ = envs.step(np.array([0, 1, 2, 3]))
    assert ((rewards > 0) & (rewards < 1)).all()
    assert evaluate(policy, TOY, samples=100).values["nll_test"] > 0
    sharper = policy.with_decoding(Decoding(temperature=0.5))
    texts = (TOY.texts_ST, torch.ones_like(TOY.texts_ST, dtype=torch.bool))
    assert sharper.log_prob(*texts).exp().sum() > 0
    assert not torch.allclose(sharper.log_prob(*texts), policy.log_prob(*texts))


@pytest.mark.parametrize("algorithm", [PPO, DQN, RecurrentPPO])
def test_an_actor_of_other_sizes_cannot_share(algorithm: type[BaseAlgorithm]) -> None:
    policy = lstm_policy(hidden_size=6)
    before = policy.projection
    assert_refused("model must have the actor", share_weights, model_of(algorithm), policy)
    assert policy.projection is before


def test_dqns_target_is_a_network_of_its_own() -> None:
    model, policy = model_of(DQN), lstm_policy()
    share_weights(model, policy)
    assert torch.equal(model.q_net_target.q_net[-1].weight, policy.projection.weight)
    assert model.q_net_target.q_net[-1].weight is not policy.projection.weight
    assert model.q_net.q_net[-1].weight is policy.projection.weight


def test_global_generators_are_given_back_as_they_were() -> None:
    before = global_rng_state()
    with global_seeds_kept():
        model_of(PPO).learn(32)
        assert global_rng_state() != before
    assert global_rng_state() == before
