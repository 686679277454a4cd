"""TextGAN as Gymnasium environments."""

from textgan_env.envs.game import (
    DEFAULT_DISCRIMINATOR_BATCH,
    DEFAULT_DISCRIMINATOR_STEPS,
    REWARDS,
    EpisodeBatch,
    Observation,
    TextGame,
    default_discriminator,
    default_rollout_policy,
    step_rewards,
)
from textgan_env.envs.single import TextGANEnv
from textgan_env.envs.vector import TextGANVectorEnv

__all__ = [
    "DEFAULT_DISCRIMINATOR_BATCH",
    "DEFAULT_DISCRIMINATOR_STEPS",
    "REWARDS",
    "EpisodeBatch",
    "Observation",
    "TextGANEnv",
    "TextGANVectorEnv",
    "TextGame",
    "default_discriminator",
    "default_rollout_policy",
    "step_rewards",
]
