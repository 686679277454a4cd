"""The vector environment in other people's hands: worker processes, Gymnasium's vector wrappers, SB3's workers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import RecordVideo
from gymnasium.wrappers.vector import NormalizeReward, RecordEpisodeStatistics, TransformReward
from gymnasium.wrappers.vector import RecordVideo as VectorRecordVideo
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from textgan_env.discriminators import make_discriminator
from textgan_env.envs import TextGANEnv, TextGANVectorEnv
from textgan_env.policies import TablePolicy
from textgan_env.tasks import ToyTask

OPTIONS: dict[str, Any] = {"size": 40, "rollouts": 2, "reward": "difference", "transform": "logit"}
ACTIONS = np.random.default_rng(0).integers(4, size=(9, 2))


def make_toy() -> gym.Env[Any, Any]:
    """By the name of the package: a fresh process has imported nothing."""
    return gym.make("textgan_env:TextGAN/Toy-v0", **OPTIONS)


def outputs(envs: VectorEnv[Any, Any, Any]) -> list[tuple[Any, ...]]:
    """Observations, rewards and ends of a run with fixed actions."""
    found = []
    observation, _ = envs.reset(seed=3)
    for actions in ACTIONS:
        observation, reward, terminated, truncated, _ = envs.step(actions)
        assert not truncated.any()
        found.append((observation["tokens"].tolist(), reward.tolist(), terminated.tolist()))
    envs.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP], ids=lambda mode: mode.value)
def test_spawned_workers_do_what_one_process_does(mode: AutoresetMode) -> None:
    spawned = AsyncVectorEnv([make_toy] * 2, context="spawn", shared_memory=False, autoreset_mode=mode)
    together = SyncVectorEnv([make_toy] * 2, autoreset_mode=mode)
    native = TextGANVectorEnv(2, "toy", autoreset_mode=mode, **OPTIONS)
    found = outputs(spawned)
    assert found == outputs(together)
    for (tokens, rewards, ends), (others, paid, finished) in zip(found, outputs(native), strict=True):
        assert (tokens, ends) == (others, finished)
        assert rewards == pytest.approx(paid, abs=1e-6)


@pytest.mark.slow
def test_sb3s_spawned_workers_do_what_one_process_does() -> None:
    spawned, together = SubprocVecEnv([make_toy] * 2, start_method="spawn"), DummyVecEnv([make_toy] * 2)
    for envs in (spawned, together):
        envs.seed(3)
        envs.reset()
    for actions in ACTIONS:
        found, expected = (envs.step(actions) for envs in (spawned, together))
        np.testing.assert_array_equal(found[0]["tokens"], expected[0]["tokens"])  # type: ignore[call-overload]
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
        assert found[2].tolist() == expected[2].tolist()
        for row in found[2].nonzero()[0]:
            last, same = (told[3][row]["terminal_observation"]["tokens"].tolist() for told in (found, expected))
            assert last == same
    assert spawned.env_method("action_masks")[1].tolist() == [True] * 4
    spawned.close()


@pytest.mark.slow
def test_a_worker_holds_the_judge_and_the_policy_as_they_were_when_it_was_given_them() -> None:
    """What is trained here does not reach another process; `call` gives it a new snapshot."""
    task = ToyTask(size=40)
    judge = make_discriminator("pair", vocab_size=4, max_length=4, seed=1)
    policy = TablePolicy(4, max_length=4)

    def make() -> TextGANEnv:
        return TextGANEnv(
            task, reward="rollout", rollouts=2, transform="logit", discriminator=judge, rollout_policy=policy
        )

    def first_reward(envs: VectorEnv[Any, Any, Any]) -> float:
        envs.reset(seed=0)
        return float(envs.step(np.array([1]))[1][0])

    here, there = SyncVectorEnv([make]), AsyncVectorEnv([make], context="spawn", shared_memory=False)
    assert first_reward(here) == first_reward(there)
    policy.logits_PV.data[:, 2] = 1e4  # whatever begins goes on with token 2
    assert first_reward(here) != first_reward(there)
    there.call("set_rollout_policy", policy)
    assert first_reward(here) == first_reward(there)
    there.close()


# -- Videos -----------------------------------------------------------------------------------------------------------
def frames(path: Path) -> tuple[list[int], int]:
    """Width and height of a video, and how many frames it has."""
    from moviepy import VideoFileClip

    with VideoFileClip(str(path)) as clip:
        return list(clip.size), clip.n_frames


@pytest.mark.slow
def test_a_text_is_recorded_as_a_video(tmp_path: Path) -> None:
    """The empty text and one picture a token, all of one size."""
    env = gym.make("TextGAN/Toy-v0", size=40, rollouts=1, render_mode="rgb_array")
    recorded = RecordVideo(env, str(tmp_path / "videos"), episode_trigger=lambda number: number == 1)
    for _ in range(2):
        recorded.reset(seed=0)
        for token in (0, 3, 2, 1):
            recorded.step(np.int64(token))
    height, width, _ = env.render().shape  # type: ignore[union-attr]
    recorded.close()  # type: ignore[no-untyped-call]
    (path,) = (tmp_path / "videos").iterdir()
    size, number = frames(path)
    assert (size, number) == ([width - width % 2, height - height % 2], 5)


def test_texts_side_by_side_are_recorded_as_a_video(tmp_path: Path) -> None:
    envs = gym.make_vec(
        "TextGAN/Toy-v0", num_envs=4, size=40, rollouts=1, render_mode="rgb_array", autoreset_mode="next_step"
    )
    recorded = VectorRecordVideo(envs, str(tmp_path / "videos"), episode_trigger=lambda number: number == 0)
    recorded.reset(seed=0)
    for _ in range(6):
        recorded.step(np.array([0, 1, 2, 3]))
    recorded.close()
    (path,) = (tmp_path / "videos").iterdir()
    assert frames(path)[1] == 5


# -- Gymnasium's vector wrappers --------------------------------------------------------------------------------------

NATIVE_AND_SYNC: dict[str, Callable[..., VectorEnv[Any, Any, Any]]] = {
    "native": lambda **options: TextGANVectorEnv(2, "toy", size=40, reward="rollout", **options),
    "sync": lambda **options: SyncVectorEnv(
        [lambda: TextGANEnv("toy", size=40, reward="rollout", **options)] * 2, autoreset_mode=AutoresetMode.SAME_STEP
    ),
}
BOTH = pytest.mark.parametrize("make", NATIVE_AND_SYNC.values(), ids=NATIVE_AND_SYNC)


@BOTH
def test_episode_statistics_count_each_text(make: Callable[..., VectorEnv[Any, Any, Any]]) -> None:
    """The constant control pays 1 a token, so a text of 4 tokens returns 4."""
    envs = RecordEpisodeStatistics(make(control="constant"))
    envs.reset(seed=0)
    told = [envs.step(np.array([0, 1]))[4] for _ in range(8)]
    ends = [number for number, infos in enumerate(told) if "episode" in infos]
    assert ends == [3, 7]
    for number in ends:
        episode = told[number]["episode"]
        assert (episode["r"].tolist(), episode["l"].tolist()) == ([4, 4], [4, 4])


@pytest.mark.parametrize("make", [
    NATIVE_AND_SYNC["native"], pytest.param(NATIVE_AND_SYNC["sync"], marks=pytest.mark.slow),
], ids=NATIVE_AND_SYNC)  # fmt: skip
def test_rewards_can_be_transformed_and_normalised(make: Callable[..., VectorEnv[Any, Any, Any]]) -> None:
    envs: VectorEnv[Any, Any, Any] = TransformReward(make(control="constant"), lambda reward: 3 * reward - 1)
    envs.reset(seed=0)
    assert envs.step(np.array([0, 1]))[1].tolist() == [2, 2]
    envs = NormalizeReward(make(control="random"), gamma=1.0)
    envs.reset(seed=0)
    rewards = np.array([envs.step(np.array([0, 1]))[1] for _ in range(400)])
    # Of the return so far, 0 to 4 tokens of mean 1/2, the variance becomes 1; the sign stays.
    plain = make(control="random")
    plain.reset(seed=0)
    paid = np.array([plain.step(np.array([0, 1]))[1] for _ in range(400)])
    late = slice(300, None)
    ratio = rewards[late] / paid[late]
    assert ratio.min() > 0
    assert ratio.max() / ratio.min() < 1.1
