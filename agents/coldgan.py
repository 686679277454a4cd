"""ColdGAN: G writes cautiously, near its modes, and importance weights undo it.

Scialom et al. 2020: texts come from a mixture of G and of G at a low temperature or cut to its likeliest tokens; each
is weighed with how much more probable G itself makes it. Presets:

  fast    the small discriminator (the default)
  smoke   seconds, to see that everything runs

--control constant, random or shuffled replaces the reward by one that knows nothing of the text; untrained asks a
discriminator that has learnt nothing. --no-weigh leaves the weights out: then G learns to write as it writes, colder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textgan_env.ops.reward_kinds import TransformName
from textgan_env.training.adversarial import SMOKE, PolicyGradientAgent, PolicyGradientConfig
from textgan_env.training.agent import run_command, sized_for
from textgan_env.utils.errors import require
from textgan_env.utils.options import above_zero

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.envs import EpisodeBatch
    from textgan_env.policies import PolicyModule
    from textgan_env.rewards import Texts
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task


@dataclass(frozen=True)
class ColdGANConfig(PolicyGradientConfig):
    """Train a policy by ColdGAN."""

    transform: TransformName = "logit"
    """What the reward makes of D's logit."""
    plain_share: float = 0.25
    """Share of texts that G writes as it is (e); no weight is above 1 / e."""
    cold_temperature: float = 0.5
    """Temperature of the others."""
    cold_top_p: float | None = None
    """Mass of the likeliest tokens that the others are cut to; None: they are not cut."""
    negatives: Literal["current", "replayed"] = "replayed"
    """What D learns to tell from real: texts of G as it is, or, replayed, half of them kept from earlier d-steps."""
    weigh: bool = True
    """Undo the cautious writing by importance weights."""


def fast(task: str) -> ColdGANConfig:
    """Minutes on two cores."""
    return sized_for(task, ColdGANConfig(preset="fast", task=task, select="last"))


def smoke(task: str) -> ColdGANConfig:
    """As small as it can be."""
    return ColdGANConfig(task=task, **SMOKE)


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "smoke": smoke}


class ColdGAN(PolicyGradientAgent):
    """G learns from ``w (R - b)`` of texts of the mixture m, w = G / m, b the weighted mean reward of the others."""

    config: ColdGANConfig

    def __init__(self, config: ColdGANConfig, task: Task) -> None:
        from textgan_env.policies import Decoding

        above_zero(config, "plain_share", "cold_temperature")
        require(config.plain_share <= 1, f"plain_share must be at most 1, found {config.plain_share}")
        self.cold = Decoding(config.cold_temperature, top_p=config.cold_top_p)
        super().__init__(config, task)
        if config.plain_share < 1:  # a text of the mixture would have a state under each of its two policies
            self.require_fixed_start()
        self.replay_negatives(config.negatives)
        self.envs = self.make_envs(config.batch_size, reward="terminal", transform=config.transform)

    def behaviour_policy(self) -> PolicyModule:
        """G, or G when it is cautious, drawn for each text."""
        from textgan_env.policies import MixturePolicy

        share = self.config.plain_share
        if share == 1:
            return self.policy  # type: ignore[no-any-return]
        return MixturePolicy([self.policy, self.policy.with_decoding(self.cold)], [share, 1 - share])

    def learning_policy(self) -> PolicyModule:
        """G as it is: what it learns, and what D learns from, is not the mixture."""
        return self.policy  # type: ignore[no-any-return]

    policy_for_d = learning_policy

    def weights(self, texts: Texts) -> Tensor:
        """How much more probable G makes each text than the mixture, float (B,): at most 1 / e."""
        import torch

        if not self.config.weigh or self.config.plain_share == 1:
            return torch.ones(len(texts), device=texts.tokens_BT.device)
        with torch.no_grad():
            logs = [
                one.log_prob(texts.tokens_BT, texts.mask_BT).sum(1) for one in (self.policy, self.behaviour_policy())
            ]
        return (logs[0] - logs[1]).exp()

    def advantage(self, batch: EpisodeBatch) -> Tensor:
        """The weight of its text times the reward less what the others expect, for each token, float (B, T)."""
        weight_B, reward_B = self.weights(batch), batch.credit_BT[:, 0]
        # Of the other texts alone: so the baseline adds no bias.
        gain_B, mass_B = (weight_B * reward_B).sum() - weight_B * reward_B, weight_B.sum() - weight_B
        return (weight_B * (reward_B - gain_B / mass_B))[:, None] * batch.mask_BT

    def ascend(self, texts: Texts, advantage_BT: Tensor) -> Numbers:
        """A step, and how many texts of G the weighted ones are worth."""
        from textgan_env.ops.losses import effective_sample_size

        share = effective_sample_size(self.weights(texts)) / len(texts)
        return {**super().ascend(texts, advantage_BT), "effective_share": share}


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(ColdGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
