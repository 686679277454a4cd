"""TextGAN as Gymnasium environments."""

from textgan_env.envs.defaults import (
    DEFAULT_DISCRIMINATOR_BATCH,
    DEFAULT_DISCRIMINATOR_STEPS,
    default_discriminator,
    default_rollout_policy,
)
from textgan_env.envs.game import EpisodeBatch, TextGame
from textgan_env.envs.queue import DiscriminatorQueue
from textgan_env.envs.single import TextGANEnv
from textgan_env.envs.vector import TextGANVectorEnv
from textgan_env.envs.views import Observation
from textgan_env.rewards import REWARDS, RewardSpec

__all__ = [
    "DEFAULT_DISCRIMINATOR_BATCH", "DEFAULT_DISCRIMINATOR_STEPS", "REWARDS", "DiscriminatorQueue", "EpisodeBatch",
    "Observation", "RewardSpec", "TextGANEnv", "TextGANVectorEnv", "TextGame", "default_discriminator",
    "default_rollout_policy",
]  # fmt: skip
