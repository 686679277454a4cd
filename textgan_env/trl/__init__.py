"""A discriminator that learns along as a reward function of TRL's trainers, and the controls to run beside any reward.

Called ``textgan_env.trl``; TRL itself is needed by the trainer and by `textgan_env.trl.callbacks` only.
"""

from textgan_env.trl.asked import Completion as Completion
from textgan_env.trl.asked import RewardFunction as RewardFunction
from textgan_env.trl.controls import Controls as Controls
from textgan_env.trl.controls import controls as controls
from textgan_env.trl.reading import Reading as Reading
from textgan_env.trl.reading import TextReader as TextReader
from textgan_env.trl.reward import DiscriminatorReward as DiscriminatorReward
