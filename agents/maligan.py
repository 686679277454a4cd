"""MaliGAN: maximum likelihood of G's own texts, weighed by how probably real D finds them.

Che et al. 2017: texts are weighed with D / (1 - D), normalised over the batch, less the mean. Presets:

  fast    the small judge (the default)
  smoke   seconds, to see that everything runs
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textgan_env.training.adversarial import AdversarialConfig, PolicyGradientAgent, run_command

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.envs import EpisodeBatch
    from textgan_env.policies import PolicyModule
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Schedule


@dataclass(frozen=True)
class MaliGANConfig(AdversarialConfig):
    """Train a policy by MaliGAN."""

    mle_epochs: int = 20
    """Epochs of pre-training."""
    d_pretraining: int = 10
    """Rounds of pre-training of D."""


def fast(task: str) -> MaliGANConfig:
    """Minutes on two cores."""
    return MaliGANConfig(preset="fast", task=task, select="last")


def smoke(task: str) -> MaliGANConfig:
    """As small as it can be."""
    return MaliGANConfig(
        preset="smoke", task=task, mle_epochs=1, embed_size=8, hidden_size=8, d_pretraining=1, rounds=2, g_steps=1,
        batch_size=16, d_batch_size=256,
    )  # fmt: skip


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS: dict[str, Callable[[str], MaliGANConfig]] = {"fast": fast, "smoke": smoke}


class MaliGAN(PolicyGradientAgent):
    """G learns the log-probability of its texts weighed with r / sum r - 1 / B, r = D / (1 - D) = exp(logit)."""

    config: MaliGANConfig

    def __init__(self, config: MaliGANConfig, task: Task) -> None:
        super().__init__(config, task)
        self.envs = self.make_envs(reward="terminal", discriminator=self.judge())

    def new_policy(self) -> PolicyModule:
        """An LSTM."""
        return self.new_lstm()

    def schedule(self) -> Schedule:
        """Pre-train G, pre-train D, then g-steps and d-steps in turn."""
        from textgan_env.training.schedule import Phase, Schedule

        config = self.config
        first = (
            self.warm_start(config.mle_epochs, "take_average"),
            Phase("pretrain_d", config.d_pretraining, (("d_step", 1),)),
        )
        steps = (("g_step", config.g_steps), ("d_step", config.d_steps))
        return Schedule((*first, Phase("adversarial", config.rounds, steps)))

    def advantage(self, batch: EpisodeBatch) -> Tensor:
        """B times the weight of its text, for each token."""
        logit_B = batch.credit_BT.gather(1, batch.lengths_B[:, None] - 1)[:, 0]
        return ((logit_B.softmax(0) - 1 / len(logit_B)) * len(logit_B))[:, None] * batch.mask_BT


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(MaliGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
