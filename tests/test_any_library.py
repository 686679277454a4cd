"""What any RL library may do with every id and with own text: take each action at each step, and ask for no mask."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import SubprocVecEnv

import textgan_env
from conftest import assert_refused, small_music
from textgan_env.discriminators import make_discriminator
from textgan_env.envs import TextGANEnv, TextGANVectorEnv, default_discriminator
from textgan_env.envs.sb3 import SB3VecEnv
from textgan_env.ops.reward_kinds import REWARDS, TRANSFORMS
from textgan_env.tasks import Task, shared_task
from textgan_env.utils.errors import MissingDataError

SMALL = {"train_size": 40, "valid_size": 10, "test_size": 10}
SMALL_OPTIONS: dict[str, dict[str, Any]] = {
    "TextGAN-v0": {"vocab_size": 12, "max_length": 5, **SMALL},
    "TextGAN/Oracle40-v0": {"vocab_size": 12, **SMALL},
    "TextGAN/SeqGANOracle-v0": {"max_length": 5, **SMALL},
    "TextGAN/Toy-v0": {"size": 50},
    **{
        f"TextGAN/{name}-v0": {"max_vocab": 1000, "max_length": 8, "longer": "cut"}
        for name in ("WordNet", "WordNetGlosses", "COCO", "EMNLP", "Poems")
    },
}


def mixed(words: str, most: int, separator: str = " ", number: int = 40) -> list[str]:
    """Lines of 1 to ``most`` of the words, the last words rarer than the first."""
    rng, known = np.random.default_rng(0), words.split()
    share = 1 / np.arange(1, len(known) + 1)
    return [separator.join(rng.choice(known, rng.integers(1, most + 1), p=share / share.sum())) for _ in range(number)]


#: Own text of many kinds: options of ``TextGAN/Corpus-v0``. A further kind of token is one more row.
OWN_TEXTS: dict[str, dict[str, Any]] = {
    "words with UNK": {"texts": [*mixed("the cat ran my dog sat", 5), "an owl"], "min_count": 2},
    "V=74 with UNK": {"texts": mixed(" ".join(f"w{n}" for n in range(150)), 8, number=600), "max_vocab": 74},
    "DNA of one length": {
        "texts": [line[:4] for line in mixed("A C G T", 4, "", 400) if len(line) == 4],
        "mode": "char",
    },
    "SMILES": {"texts": mixed("C N O c1ccccc1 ( ) =", 4, ""), "mode": "char", "lower": False},
    "Chinese": {"texts": mixed("床 前 明 月 光 疑 是 地 上 霜", 6, ""), "mode": "char", "min_count": 5},
    "Thai and combining marks": {"texts": mixed("ก ข ค ที่ น้ำ e\u0301", 5, ""), "mode": "char"},
    "Greek, cut": {"texts": mixed("το ένα και άλλο ίσως", 7), "max_length": 3, "longer": "cut"},
    "emoji with UNK": {"texts": [*mixed("🙂 🙃 🎻", 5, ""), "🦉🙂"], "mode": "char", "min_count": 2},
    "two characters": {"texts": mixed("a b", 6, ""), "mode": "char"},
    "numbers between blanks": {"texts": mixed("1 22 333 -4 5.5", 5), "mode": "whitespace"},
    "byte pairs": {"texts": mixed("the cat ran my dog sat", 5, number=200), "mode": "bpe", "vocab_size": 250},
    "no end token": {
        "texts": [one for one in mixed("the cat ran", 4, number=200) if one.count(" ") == 2],
        "eos": False,
    },
}


@pytest.fixture
def make(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[..., Any]:
    """`gym.make` of an id or a name of `OWN_TEXTS`, all small; skips where an id lacks its data."""
    data = tmp_path_factory.getbasetemp() / "data"  # of all tests, so that what is derived is derived once

    def make_small(name: str, **options: Any) -> gym.Env[Any, Any]:
        data.mkdir(exist_ok=True)
        monkeypatch.setenv("TEXTGAN_DATA", str(data))
        if name in OWN_TEXTS or name == "TextGAN/Corpus-v0":
            return gym.make("TextGAN/Corpus-v0", **OWN_TEXTS.get(name, OWN_TEXTS["words with UNK"]), **options)
        if textgan_env.ENVIRONMENTS[name]["task"] in ("seqgan-oracle", "coco", "emnlp", "poems"):
            for file in request.getfixturevalue("shared_data").iterdir():
                if not (data / file.name).exists():
                    (data / file.name).symlink_to(file)
        if name == "TextGAN/Music-v0":
            small_music(monkeypatch)
        try:
            return gym.make(name, **SMALL_OPTIONS.get(name, {}), **options)
        except MissingDataError as error:
            pytest.skip(f"{name} lacks its data: {error}")

    return make_small


def own_task(name: str) -> Task:
    return shared_task("corpus", **OWN_TEXTS[name])


#: Ids of which a smaller one, or own text, has the same kinds of tokens and ends.
LARGE = {*textgan_env.ENVIRONMENTS} - {"TextGAN-v0", "TextGAN/Toy-v0", "TextGAN/Corpus-v0"}
ALL = pytest.mark.parametrize("name", [
    *(pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in textgan_env.ENVIRONMENTS),
    *OWN_TEXTS,
])  # fmt: skip


@pytest.mark.parametrize("check", [check_env, sb3_check_env], ids=["gymnasium", "stable-baselines3"])
@ALL
def test_the_checkers_of_gymnasium_and_stable_baselines3_find_nothing_wrong(
    name: str, check: Callable[[gym.Env[Any, Any]], None], make: Callable[..., gym.Env[Any, Any]]
) -> None:
    env = make(name, render_mode="ansi")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(env.unwrapped)
    assert [str(one.message) for one in caught] == []


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("name", OWN_TEXTS)
def test_every_action_can_be_taken_at_every_step_under_every_reward(name: str, reward: str) -> None:
    """Each action is the first of some text, and drawn at random afterwards; each token is one that a text may hold."""
    task = own_task(name)
    kind = "recurrent" if reward == "dense" else "pair"
    judge = make_discriminator(kind, vocab_size=task.vocab_size, max_length=task.max_length)
    options: dict[str, Any] = {"reward": reward, "rollouts": 1, "discriminator": judge}
    given: list[dict[str, Any]] = [{"transform": "logit"}, *([{"control": "random"}] if kind == "pair" else [])]
    if reward == "terminal":  # the others take longer
        given += [{"control": "constant"}, {"leak_features": True}]
        given += [{"transform": one} for one in TRANSFORMS if not TRANSFORMS[one].compares_rows]
    for more in given:
        rows = task.vocab_size - len(task.forbidden)
        envs = TextGANVectorEnv(rows, task, **options, **more)
        assert envs.single_action_space == gym.spaces.Discrete(rows)
        _, infos = envs.reset(seed=0)
        actions, rng = np.arange(rows), np.random.default_rng(1)
        for _ in range(task.max_length + 2):
            assert infos["action_mask"].all()
            observation, reward_B, _, _, infos = envs.step(actions)
            assert observation in envs.observation_space
            assert np.isfinite(reward_B).all()
            assert not np.isin(observation["tokens"], task.forbidden).any()
            actions = rng.integers(rows, size=rows)


def test_text_of_one_character_is_refused_in_a_sentence() -> None:
    assert_refused("at least 2|two", gym.make, "TextGAN/Corpus-v0", texts=["a" * n for n in range(1, 20)], mode="char")


def small_model(algorithm: Any, env: Any, **options: Any) -> Any:
    plain = {"learning_starts": 200, "buffer_size": 2000, "train_freq": 16} if algorithm is DQN else {"n_epochs": 1}
    return algorithm("MultiInputPolicy", env, policy_kwargs={"net_arch": [8]}, seed=0, **plain, **options)


@pytest.mark.slow
@pytest.mark.moves_global_rng  # SB3 draws from the global generators
@pytest.mark.parametrize("algorithm", [PPO, DQN], ids=["PPO", "DQN"])
@ALL
def test_plain_sb3_learns_for_thousands_of_steps(name: str, algorithm: Any, make: Callable[..., Any]) -> None:
    assert small_model(algorithm, make(name)).learn(5000).num_timesteps >= 5000


@pytest.mark.slow
@pytest.mark.moves_global_rng  # SB3 draws from the global generators
@pytest.mark.parametrize("algorithm", [PPO, DQN, MaskablePPO], ids=lambda one: one.__name__)
def test_plain_sb3_learns_side_by_side(algorithm: Any) -> None:
    native = SB3VecEnv(gym.make_vec("TextGAN/Corpus-v0", num_envs=8, **OWN_TEXTS["V=74 with UNK"]))
    assert small_model(algorithm, native).learn(5000).num_timesteps >= 5000


def make_own() -> gym.Env[Any, Any]:
    """By the name of the package: a fresh process has imported nothing."""
    return gym.make("textgan_env:TextGAN/Corpus-v0", **OWN_TEXTS["words with UNK"])


@pytest.mark.slow
@pytest.mark.moves_global_rng  # SB3 draws from the global generators
def test_plain_sb3_learns_in_worker_processes() -> None:
    workers = SubprocVecEnv([make_own] * 2, start_method="spawn")
    assert small_model(PPO, workers).learn(5000).num_timesteps >= 5000
    workers.close()


@pytest.mark.slow
def test_workers_share_the_default_discriminator_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Fresh processes at once, others afterwards, then this one: it is fitted once, and all have the same."""
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path))
    at_once = SubprocVecEnv([make_own] * 2, start_method="spawn")
    later = AsyncVectorEnv([make_own] * 2, context="spawn", shared_memory=False, autoreset_mode=AutoresetMode.DISABLED)
    scores: list[float] = []
    vectors: tuple[Any, ...] = (at_once, later)
    for envs in vectors:
        envs.reset()
        *_, infos = envs.step(np.zeros(2, dtype=np.int64))  # the empty text
        scores += infos["score_real"].tolist() if isinstance(infos, dict) else [one["score_real"] for one in infos]
        envs.close()
    env = make_own()
    env.reset(seed=0)
    scores.append(env.step(np.int64(0))[4]["score_real"])
    assert len(scores) == 5
    assert len(set(scores)) == 1
    assert len([*(tmp_path / "fitted").glob("*.safetensors")]) == 1
    assert capfd.readouterr().err.count("making the default discriminator") == 1


def test_the_action_of_each_word_generates_that_word() -> None:
    """Beside UNK: an action is the place of its token among those that are generated."""
    env = TextGANEnv(own_task("words with UNK"), control="constant")
    unk = env.task.forbidden[0]
    assert env.action_space == gym.spaces.Discrete(env.task.vocab_size - 1)
    for action in range(env.task.vocab_size - 1):
        token = action if action < unk else action + 1
        env.reset(seed=0)
        assert env.step(np.int64(action))[0]["tokens"][0] == token == env.token_of_action[action]


def test_where_there_is_no_unk_an_action_is_its_token() -> None:
    env = TextGANEnv(own_task("two characters"), control="constant")
    assert env.token_of_action.tolist() == [0, 1, 2]
    assert default_discriminator(env.task, 0).vocab_size == 3
