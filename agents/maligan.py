"""MaliGAN: maximum likelihood of G's own texts, weighed by how probably real D finds them.

Che et al. 2017: texts are weighed with D / (1 - D), normalised over the batch, less the mean weight. With --mixed M the
first tokens are those of real texts, fewer from round to round, and weights are normalised over the M texts that go on
from the same ones. Presets:

  fast    the small discriminator (the default)
  smoke   seconds, to see that everything runs

--control constant, random or shuffled replaces the reward by one that knows nothing of the text; untrained asks a
discriminator that has learnt nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textgan_env.training.adversarial import SMOKE, PolicyGradientAgent, PolicyGradientConfig
from textgan_env.training.agent import run_command, sized_for
from textgan_env.utils.errors import require
from textgan_env.utils.kinds import DiscriminatorNetworkKind
from textgan_env.utils.options import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.envs import EpisodeBatch
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Step


@dataclass(frozen=True)
class MaliGANConfig(PolicyGradientConfig):
    """Train a policy by MaliGAN."""

    discriminator: DiscriminatorNetworkKind = "pair"
    mixed: int = 0
    """Texts that go on from each real beginning (M), which is shorter from round to round; 0: all is G's own."""
    weight_cap: float | None = None
    """Largest weight of a text, in mean weights; None: any."""


def fast(task: str) -> MaliGANConfig:
    """Minutes on two cores."""
    return sized_for(task, MaliGANConfig(preset="fast", task=task, select="last"))


def smoke(task: str) -> MaliGANConfig:
    """As small as it can be."""
    return MaliGANConfig(task=task, **SMOKE)


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "smoke": smoke}


class MaliGAN(PolicyGradientAgent):
    """G learns the log-probability of its texts weighed with r / sum r - 1 / B, r = D / (1 - D) = exp(logit)."""

    config: MaliGANConfig

    def __init__(self, config: MaliGANConfig, task: Task) -> None:
        at_least(1, config, "weight_cap")
        at_least(0, config, "mixed")
        fits = config.mixed == 0 or (config.mixed > 1 and config.batch_size % config.mixed == 0)
        found = f"found {config.mixed} and {config.batch_size}"
        require(fits, f"mixed must be 0, or at least 2 and a divisor of batch_size, {found}")
        super().__init__(config, task)
        self.envs = self.make_envs(config.batch_size, reward="terminal", transform="logit")

    def advantage(self, batch: EpisodeBatch) -> Tensor:
        """The weight of its text, of mean 1, less 1, for each token, float (B, T)."""
        from textgan_env.ops.losses import normalised_weights

        logit_B = batch.credit_BT[:, 0]  # credit to go: at the first token that of the whole text
        return (normalised_weights(logit_B, most=self.config.weight_cap) - 1)[:, None] * batch.mask_BT

    def g_step(self, step: Step) -> Numbers:
        """Learn from G's own texts, or from what G makes of real beginnings."""
        return self.mixed_step(step) if self.config.mixed else super().g_step(step)

    def mixed_step(self, step: Step) -> Numbers:
        """Real beginnings are learnt as in maximum likelihood, what G makes of them by its weight among M."""
        import torch

        from textgan_env.ops.losses import credit_numbers, normalised_weights

        size, most = self.config.mixed, self.config.weight_cap
        given = round(self.task.max_length * (1 - (step.round + 1) / self.config.rounds))
        texts = self.go_on(step, given, size)
        logit_B, row_B = self.score_texts(texts), torch.arange(len(texts), device=self.policy.device)
        weight_B = normalised_weights(logit_B, row_B // size, most=most)
        real_T = torch.arange(self.task.max_length, device=self.policy.device) < given
        advantage_BT = torch.where(real_T, 1.0, weight_B[:, None] - 1) * texts.mask_BT
        numbers = self.ascend(texts, advantage_BT)
        return {**credit_numbers(logit_B[:, None] * texts.mask_BT, texts.mask_BT), **numbers}


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(MaliGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
