"""REINVENT: G's log-probability of a text is pulled to that of the pre-trained policy plus a multiple of the reward.

Olivecrona et al. 2017: with the prior P, G as pre-training left it, a g-step makes ``(log P + sigma R - log G)^2`` of
its texts smaller, their "augmented likelihood". R is what the environment pays for a whole text: the objective that
--objective names, or beside it the discriminator (--objective-weight below 1, or no objective). Presets:

  fast    the objective alone, sigma 10 (the default)
  smoke   seconds, to see that everything runs

--objective-control shuffled or random replaces what the objective says by what knows nothing of the text, --control
what the discriminator says.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textgan_env.training.adversarial import SMOKE, PolicyGradientAgent, PolicyGradientConfig
from textgan_env.training.agent import run_command, sized_for
from textgan_env.utils.options import above_zero

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.envs import EpisodeBatch
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Step


@dataclass(frozen=True)
class ReinventConfig(PolicyGradientConfig):
    """Train a policy by REINVENT."""

    objective_weight: float = 1.0
    sigma: float = 10.0
    """Nats that a reward of 1 is worth: G ends at P exp(sigma R) / Z. 1 / sigma is the weight of a KL."""
    transform: Literal["prob", "logit", "log", "minimax", "2p-1"] = "prob"
    """What the reward makes of D's logit, where D has a part in it."""
    baseline: Literal["none", "leave-one-out"] = "leave-one-out"
    """What the augmented difference is compared with: nothing, as published, or its mean over the other texts."""


def fast(task: str) -> ReinventConfig:
    """Minutes on two cores."""
    return sized_for(task, ReinventConfig(preset="fast", task=task, select="last"))


def smoke(task: str) -> ReinventConfig:
    """As small as it can be."""
    return ReinventConfig(task=task, **SMOKE)


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "smoke": smoke}


class Reinvent(PolicyGradientAgent):
    """G minimises ``(log P(y) + sigma R(y) - log G(y))^2`` of its own texts, which are taken as given.

    The gradient is ``-2 (log P + sigma R - log G) grad log G``, and its expectation over texts of G that of
    ``2 KL(G || P exp(sigma R) / Z)``: the same optimum as REINFORCE with the weight 1 / sigma on the KL to P. A mean
    that is subtracted, as the default baseline does, changes nothing in expectation and takes variance away.
    """

    config: ReinventConfig

    def __init__(self, config: ReinventConfig, task: Task) -> None:
        above_zero(config, "sigma")
        super().__init__(config, task)
        self.prior = copy.deepcopy(self.policy).eval().requires_grad_(False)
        self.modules["prior"] = self.prior
        self.envs = self.make_envs(config.batch_size, reward="terminal", transform=config.transform)

    def end_pretraining(self, step: Step) -> Numbers:
        """Continue with the averaged weights; the prior is G as it is now."""
        self.take_average(step)
        self.prior.load_state_dict(self.policy.state_dict())
        return {}

    def advantage(self, batch: EpisodeBatch) -> Tensor:
        """Twice the augmented difference of its text for each token, float (B, T)."""
        import torch

        from textgan_env.ops.losses import group_advantage
        from textgan_env.rewards import for_texts

        with torch.no_grad():
            prior_B, own_B = (
                for_texts(one, batch.keys).log_prob(batch.tokens_BT, batch.mask_BT).sum(1)
                for one in (self.prior, self.policy)
            )
        difference_B = prior_B + self.config.sigma * batch.credit_BT[:, 0] - own_B
        if self.config.baseline != "none":
            # The mean of the others: the difference to the mean of all, times B / (B - 1).
            rows = len(difference_B)
            difference_B = group_advantage(difference_B, rows, std=False) * rows / (rows - 1)
        return 2 * difference_B[:, None] * batch.mask_BT


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(Reinvent, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
