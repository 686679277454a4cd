"""TextGAN: G's texts are to have the features of real ones.

After Zhang et al. 2017: G minimises the maximum mean discrepancy (MMD) between D's features of its texts and of real
ones, and D learns to tell them apart. By REINFORCE (--gradient score) a text is paid for being like real texts, and
unlike G's other texts; with --gradient relaxed words are made soft and the MMD is differentiated in them. Presets:

  fast    the small discriminator (the default)
  smoke   seconds, to see that everything runs

--kernel mean compares only the means of the features. --control constant, random or shuffled replaces the reward by one
that knows nothing of the text; untrained takes the features of a discriminator that has learnt nothing, which is a
method of its own: random features. A relaxed gradient has no reward: shuffled gives it to another text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from textgan_env.training.adversarial import SMOKE, PolicyGradientAgent, PolicyGradientConfig
from textgan_env.training.agent import run_command, sized_for
from textgan_env.training.relaxed import RelaxedAgent, require_relaxable
from textgan_env.utils.errors import require
from textgan_env.utils.kinds import DiscriminatorNetworkKind
from textgan_env.utils.options import above_zero, at_least

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.rewards import WitnessCredit
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Step


@dataclass(frozen=True)
class TextGANConfig(PolicyGradientConfig):
    """Train a policy by TextGAN."""

    discriminator: DiscriminatorNetworkKind = "pair"
    kernel: Literal["gaussian", "mean"] = "gaussian"
    """How features are compared: by Gaussians of three widths, or by their means alone."""
    real_texts: int = 512
    """Real texts that a g-step compares with (R)."""
    gradient: Literal["score", "relaxed"] = "score"
    """score: REINFORCE; relaxed: through each token as a mixture of all tokens (Gumbel-softmax)."""
    inverse_temperature: float = 5.0
    """How near to one token the mixtures of a relaxed gradient are (beta)."""


def fast(task: str) -> TextGANConfig:
    """Minutes on two cores: D, and with it the kernel, changes after 25 g-steps."""
    return sized_for(task, TextGANConfig(preset="fast", task=task, select="last", g_steps=25))


def smoke(task: str) -> TextGANConfig:
    """As small as it can be."""
    return TextGANConfig(task=task, real_texts=64, **(SMOKE | {"g_steps": 2}))


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "smoke": smoke}


class TextGAN(RelaxedAgent):
    """G learns from minus twice the witness ``mean_j k(F_i, F_j) - mean_r k(F_i, F_r)``, F the features of D."""

    config: TextGANConfig
    curves: ClassVar[tuple[str, ...]] = (*PolicyGradientAgent.curves, "squared_mmd")
    logit_pays: ClassVar = False  # its features do

    def __init__(self, config: TextGANConfig, task: Task) -> None:
        from textgan_env.ops.kernels import FeatureKernel

        at_least(3, config, "batch_size")
        at_least(2, config, "real_texts")
        above_zero(config, "inverse_temperature")
        no_reward = f"--gradient relaxed has no reward that could be {config.control}"
        require(config.gradient == "score" or config.control not in ("constant", "random"), no_reward)
        asks = config.gradient == "score" or config.objective is None
        require(asks, f"--gradient relaxed pays no text: it takes no objective, found {config.objective}")
        if config.gradient == "relaxed":
            require_relaxable(config.discriminator)
        super().__init__(config, task)
        self.modules["kernel"] = self.kernel = FeatureKernel(config.kernel).to(config.device)

    def witness(self, step: Step) -> WitnessCredit:
        """Compares with fresh real texts, by the features of D as it is now."""
        import torch

        from textgan_env.rewards import WitnessCredit

        real_RT = self.d_task.writable("train")
        chosen_R = torch.randperm(len(real_RT), generator=step.generator)[: self.config.real_texts]
        witness = WitnessCredit(self.scoring_discriminator, real_RT[chosen_R].to(self.policy.device), self.kernel)
        if step.repeat == 0:  # D is another one since the round before
            self.kernel.measure(witness.real_RF)
        return witness

    def g_step(self, step: Step) -> Numbers:
        """Generate B texts, and bring their features nearer to those of real ones."""
        return self.by_reward(step) if self.config.gradient == "score" else self.by_slope(step)

    def by_reward(self, step: Step) -> Numbers:
        """Make those texts more probable that look real and unlike the others."""
        from textgan_env.ops.losses import credit_numbers, group_advantage

        texts, witness = self.go_on(step, 0, 1), self.witness(step)
        reward_B = self.credit_texts(texts, lambda: witness)
        if self.config.control in ("constant", "random"):  # the witness comes less that of the others
            reward_B = group_advantage(reward_B, len(reward_B), std=False)
        reward_BT = reward_B[:, None] * texts.mask_BT
        numbers = {"squared_mmd": float(witness.squared_mmd(texts)), **self.ascend(texts, reward_BT)}
        return {**credit_numbers(reward_BT, texts.mask_BT), **numbers}

    def by_slope(self, step: Step) -> Numbers:
        """Follow the gradient of the discrepancy in the soft texts; all texts share it, so B times it is their sum."""
        from textgan_env.ops.kernels import squared_mmd

        fake = self.relaxed(step.generator, self.config.batch_size, self.config.inverse_temperature)
        real_RF, kernel = self.witness(step).real_RF, self.kernel

        def loss(soft_BTV: Tensor) -> Tensor:
            own_BF = self.scoring_discriminator.relaxed_features(soft_BTV, fake.texts.mask_BT)
            own_BB, cross_BR = kernel(own_BF, own_BF), kernel(own_BF, real_RF)
            return len(own_BF) * squared_mmd(own_BB, cross_BR, kernel(real_RF, real_RF))

        slope_BTV, total = self.slope(self.soft(fake), loss, step.generator)
        return {"squared_mmd": total / self.config.batch_size, **self.descend_slope(fake, slope_BTV)}


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(TextGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
