"""GRPO against a discriminator that learns along: texts of one group are compared with each other, without a critic.

Shao et al. 2024 (GRPO) with the reward of GAD (2025): D learns which of two texts is real, its logit is the reward, and
a text's advantage is its reward less the mean of its group, divided by the group's standard deviation. A group is texts
of G that go on from the same real beginning; with --longest-beginning 0 it is G's whole texts. Presets:

  fast    the small discriminator (the default)
  gad     groups of 8 and the weights of GAD's published scripts
  smoke   seconds, to see that everything runs

--control constant, random or shuffled replaces the reward by one that knows nothing of the text; untrained asks a
discriminator that has learnt nothing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from textgan_env.training.adversarial import SMOKE, AdversarialAgent, PolicyGradientAgent, PolicyGradientConfig
from textgan_env.training.agent import run_command, sized_for
from textgan_env.utils.errors import require
from textgan_env.utils.kinds import DiscriminatorNetworkKind
from textgan_env.utils.options import above_zero, at_least

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.ops.parallel import Sum
    from textgan_env.rewards import Texts
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Step


@dataclass(frozen=True)
class GRPOConfig(PolicyGradientConfig):
    """Train a policy by GRPO."""

    discriminator: DiscriminatorNetworkKind = "pair"
    d_objective: Literal["cross-entropy", "pairs"] = "pairs"
    """What D learns: which texts are real, or which of two is (relativistic)."""
    group_size: int = 8
    """Texts in a group (N); a divisor of batch_size."""
    longest_beginning: int | None = None
    """Most tokens of a real text that a group begins with; each g-step draws 0 to this. None: half of T."""
    std: bool = True
    """Divide advantages by the standard deviation of their group."""
    epochs: int = 1
    """Steps of the optimizer on the same texts."""
    clip_range: float = 0.2
    """How far a token's probability may move from what it was, as a share of it, before its gradient stops."""
    kl_coef: float = 0.04
    """Weight of the KL divergence to the pre-trained policy, advantage units per nat."""


def fast(task: str) -> GRPOConfig:
    """Minutes on two cores."""
    return sized_for(task, GRPOConfig(preset="fast", task=task, select="last"))


def gad(task: str) -> GRPOConfig:
    """Groups, batch, KL weight and clipping of GAD's scripts; not their rate, 1e-6, which is for large models."""
    return replace(fast(task), preset="gad", batch_size=256, group_size=8, kl_coef=1e-3, max_grad_norm=0.2)


def smoke(task: str) -> GRPOConfig:
    """As small as it can be."""
    return GRPOConfig(task=task, group_size=4, **SMOKE)


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "gad": gad, "smoke": smoke}


class GRPO(PolicyGradientAgent):
    """G minimises ``-min(ratio A, clip(ratio) A) + kl_coef KL`` summed over tokens, A the same for all of a text."""

    config: GRPOConfig
    curves: ClassVar[tuple[str, ...]] = (*AdversarialAgent.curves, "kl")

    def __init__(self, config: GRPOConfig, task: Task) -> None:
        at_least(2, config, "group_size")
        at_least(1, config, "epochs")
        at_least(0, config, "kl_coef", "longest_beginning")
        above_zero(config, "clip_range")
        found = f"found {config.group_size} and {config.batch_size}"
        require(config.batch_size % config.group_size == 0, f"group_size must be a divisor of batch_size, {found}")
        longest = task.max_length // 2 if config.longest_beginning is None else config.longest_beginning
        expected = f"longest_beginning must be below T={task.max_length}"
        require(longest < task.max_length, f"{expected}, so that G has a token to choose, found {longest}")
        super().__init__(config, task)
        self.longest_beginning = longest
        self.reference = copy.deepcopy(self.policy).eval().requires_grad_(False)
        self.modules["reference"] = self.reference

    def end_pretraining(self, step: Step) -> Numbers:
        """Continue with the averaged weights; the reference is G as it is now."""
        self.take_average(step)
        self.reference.load_state_dict(self.policy.state_dict())
        return {}

    def g_step(self, step: Step) -> Numbers:
        """Groups of texts from one real beginning each, compared within the group."""
        import torch

        from textgan_env.ops.losses import credit_numbers, group_advantage

        given = int(torch.randint(self.longest_beginning + 1, (), generator=step.generator))
        texts = self.go_on(step, given, self.config.group_size)
        reward_B = self.score_texts(texts)
        advantage_B = group_advantage(reward_B, self.config.group_size, std=self.config.std)
        own_BT = texts.mask_BT & (torch.arange(self.task.max_length, device=texts.mask_BT.device) >= given)
        numbers = self.learn_groups(texts, own_BT, advantage_B)
        return {**credit_numbers(reward_B[:, None] * own_BT, own_BT), **numbers}

    def learn_groups(self, texts: Texts, own_BT: Tensor, advantage_B: Tensor) -> Numbers:
        """Some steps on the same texts; probabilities are compared with those that they were written with."""
        import torch

        from textgan_env.rewards import for_texts

        with torch.no_grad():
            started = (for_texts(one, texts.keys) for one in (self.policy, self.reference))
            then_BT, kept_BT = (one.log_prob(texts.tokens_BT, own_BT) for one in started)
        columns = (texts.tokens_BT, own_BT, advantage_B, then_BT, kept_BT, texts.keys.seed_B, texts.keys.episode_B)
        minimise = {"loss": 1.0, "kl": self.config.kl_coef}
        for _ in range(self.config.epochs):
            means, (norm,) = self.descend([self.g_optimizer], columns, self._clipped, minimise)
        return {"gradient_norm": norm, "kl": means["kl"], "clipped": means["clipped"]}

    def _clipped(
        self,
        tokens_BT: Tensor,
        own_BT: Tensor,
        advantage_B: Tensor,
        then_BT: Tensor,
        kept_BT: Tensor,
        seed_B: Tensor,
        episode_B: Tensor,
    ) -> dict[str, Sum]:
        """PPO's clipped objective, and the low-variance estimate of the KL, both summed over a text's own tokens."""
        from textgan_env.ops.losses import masked_sum
        from textgan_env.rewards import Keys, for_texts

        logp_BT = for_texts(self.policy, Keys(seed_B, episode_B)).log_prob(tokens_BT, own_BT)
        rows, reach = float(len(tokens_BT)), self.config.clip_range
        ratio_BT, advantage_B1 = (logp_BT - then_BT).exp(), advantage_B[:, None]
        clipped_BT = ratio_BT.clamp(1 - reach, 1 + reach)
        gain_BT = (ratio_BT * advantage_B1).minimum(clipped_BT * advantage_B1)
        # Schulman 2020: r - 1 - log r with r = reference / G has the KL as its mean, and is never negative.
        kl_BT = (kept_BT - logp_BT).expm1() - (kept_BT - logp_BT)
        return {
            "loss": (-(gain_BT * own_BT).sum(), rows),
            "kl": ((kl_BT * own_BT).sum(), rows),
            "clipped": masked_sum((ratio_BT != clipped_BT).float(), own_BT),
        }


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(GRPO, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
