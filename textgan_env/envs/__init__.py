"""TextGAN as Gymnasium environments."""

from textgan_env.envs.defaults import default_discriminator as default_discriminator
from textgan_env.envs.defaults import default_rollout_policy as default_rollout_policy
from textgan_env.envs.game import EpisodeBatch as EpisodeBatch
from textgan_env.envs.game import TextGame as TextGame
from textgan_env.envs.single import TextGANEnv as TextGANEnv
from textgan_env.envs.vector import TextGANVectorEnv as TextGANVectorEnv
from textgan_env.envs.views import Observation as Observation
