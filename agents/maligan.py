"""MaliGAN: maximum likelihood of G's own texts, weighed by how probably real D finds them.

Che et al. 2017: texts are weighed with D / (1 - D), normalised over the batch, less the mean weight. Presets:

  fast    the small discriminator (the default)
  smoke   seconds, to see that everything runs

--control constant, random or shuffled replaces the reward by one that knows nothing of the text; untrained asks a
discriminator that has learnt nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textgan_env.training.adversarial import PolicyGradientAgent, PolicyGradientConfig
from textgan_env.training.agent import run_command
from textgan_env.utils.kinds import DiscriminatorNetworkKind
from textgan_env.utils.options import ORACLES

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.envs import EpisodeBatch
    from textgan_env.tasks import Task


@dataclass(frozen=True)
class MaliGANConfig(PolicyGradientConfig):
    """Train a policy by MaliGAN."""

    discriminator: DiscriminatorNetworkKind = "pair"


def fast(task: str) -> MaliGANConfig:
    """Minutes on two cores."""
    config = MaliGANConfig(preset="fast", task=task, select="last")
    return config if task in ORACLES else replace(config, embed_size=128, hidden_size=128, mle_learning_rate=5e-3)


def smoke(task: str) -> MaliGANConfig:
    """As small as it can be."""
    return MaliGANConfig(
        preset="smoke", task=task, select="last", mle_epochs=1, embed_size=8, hidden_size=8, d_pretraining=1, rounds=2,
        g_steps=1, batch_size=16, d_batch_size=256,
    )  # fmt: skip


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS: dict[str, Callable[[str], MaliGANConfig]] = {"fast": fast, "smoke": smoke}


class MaliGAN(PolicyGradientAgent):
    """G learns the log-probability of its texts weighed with r / sum r - 1 / B, r = D / (1 - D) = exp(logit)."""

    config: MaliGANConfig

    def __init__(self, config: MaliGANConfig, task: Task) -> None:
        super().__init__(config, task)
        self.envs = self.make_envs(config.batch_size, reward="terminal", transform="logit")

    def advantage(self, batch: EpisodeBatch) -> Tensor:
        """B times the weight of its text, for each token, float (B, T)."""
        logit_B = batch.credit_BT[:, 0]  # credit to go: at the first token it is that of the whole text
        return ((logit_B.softmax(0) - 1 / len(logit_B)) * len(logit_B))[:, None] * batch.mask_BT


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(MaliGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
