"""SeqGAN: policy gradient on a discriminator's score of Monte-Carlo completions.

Algorithm 1 of Yu et al. 2017: pre-train G by maximum likelihood, pre-train D against G, then alternate g-steps
(REINFORCE with Q from completions) and d-steps (refit D on fresh texts of G). Presets:

  fast    a small D that generalises, its logit as reward, KL to the pre-trained policy, baseline (the default)
  tuned   the same from the best maximum likelihood of this size, with many texts a step and more of them
  paper   the published code: the CNN, probability as reward, no baseline; hours a run on CPU
  smoke   seconds, to see that everything runs

--control constant, random or shuffled replaces the reward by one that knows nothing of the text; untrained asks a
discriminator that has learnt nothing. What such a run reaches, the discriminator had no part in.
--discriminator bleu is the paper's baseline PG-BLEU: the same with BLEU as the reward, and no discriminator.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from textgan_env.training.adversarial import SMOKE, PolicyGradientAgent, PolicyGradientConfig
from textgan_env.training.agent import run_command, sized_for
from textgan_env.training.rewarded import CreditConfig
from textgan_env.utils.errors import require
from textgan_env.utils.options import ORACLES, above_zero, at_least

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.envs import EpisodeBatch
    from textgan_env.policies import Policy, PolicyModule
    from textgan_env.rewards import CreditSource
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Step, Steps


@dataclass(frozen=True)
class SeqGANConfig(CreditConfig, PolicyGradientConfig):
    """Train a policy by SeqGAN."""

    baseline: Literal["none", "position", "leave-one-out", "prefix"] = "leave-one-out"
    """What is subtracted from the credit: nothing, the batch's mean at the position, the mean of the other texts, or
    the Q of the prefix before."""
    initial_state: Literal["zeros", "random"] = "zeros"
    """First state of G's LSTM. random: another for each text, kept by its completions; NLLs are then upper bounds."""
    negatives: Literal["current", "replayed"] = "current"
    """What D learns to tell from real: texts of G as it is, or, replayed, half of them kept from earlier d-steps."""
    mle_steps: int = 0
    """Steps of maximum likelihood in an adversarial round."""
    gamma: float = 1.0
    """Discount: a reward counts gamma^k at the token that k others follow."""
    kl_coef: float = 1.0
    """Weight of the KL divergence to the pre-trained policy, reward units per nat."""
    ent_coef: float = 0.0
    """Weight of the entropy of G's texts, reward units per nat."""
    writing_temperature: float = 1.0
    """G's temperature while it generates for D and learns from rewards; above 1 it explores."""
    rollout_lag: float = 0.0
    """Share of old weights that the policy which completes prefixes keeps at each g-step; 0: the current policy."""


def fast(task: str) -> SeqGANConfig:
    """Minutes on two cores."""
    return sized_for(task, SeqGANConfig(preset="fast", task=task, select="last"))


def tuned(task: str) -> SeqGANConfig:
    """From MLE `tuned`; the whole text's reward of 1,024 texts a g-step says more in a second than completions do."""
    config = replace(fast(task), preset="tuned", mle_epochs=60, mle_batch_size=64)
    config = replace(config, batch_size=1024, rollouts=0, g_steps=10)
    return config if task in ORACLES else replace(config, mle_learning_rate=3e-3, weight_decay=0.2, dropout=0.5)


def paper(task: str) -> SeqGANConfig:
    """The published code's sizes, schedule and rates; its rollout policy is the current one (its lag is dead code)."""
    return SeqGANConfig(
        preset="paper", task=task, select="last", batch_size=64, mle_batch_size=64, mle_epochs=120, weight_decay=0.0,
        dropout=0.0, ema_decay=0.0, discriminator="conv", d_pretraining=50, d_steps=5, d_epochs=3, d_batch_size=32,
        rounds=200, g_steps=1, learning_rate=1e-2, rollouts=16, transform="prob", baseline="none", kl_coef=0.0,
    )  # fmt: skip


def smoke(task: str) -> SeqGANConfig:
    """As small as it can be."""
    return SeqGANConfig(task=task, rollouts=2, **SMOKE)


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "tuned": tuned, "paper": paper, "smoke": smoke}


class SeqGAN(PolicyGradientAgent):
    """G learns from credit that D gives to its texts, D from telling them from real ones.

    A g-step maximises, by REINFORCE, the mean over B texts of ``sum_t (credit_t - baseline_t) log G(y_t | s_t)``, where
    credit_t is Q(s_t, y_t) less the KL and plus the entropy still to come (Yu et al. 2017, eq. 6 and 7; KL, entropy,
    discount and baseline are ours). The published code sums over texts where this takes the mean; Adam does not care,
    the clipping of the gradient does.
    """

    config: SeqGANConfig
    curves: ClassVar[tuple[str, ...]] = (*PolicyGradientAgent.curves, "cover", "fit")
    network_options: ClassVar = {"initial_state": "initial_state"}

    def __init__(self, config: SeqGANConfig, task: Task) -> None:
        from textgan_env.policies import LaggedCopy

        at_least(0, config, "rollouts", "mle_steps", "kl_coef", "ent_coef")
        at_least(1, config, "q_interval")
        above_zero(config, "writing_temperature")
        asks_q = config.q_interval > 1 or config.baseline == "prefix"
        none = "--rollouts 0 completes no prefix: --q-interval above 1 and --baseline prefix need Q"
        require(config.rollouts > 0 or not asks_q, none)
        super().__init__(config, task)
        # G as it was after pre-training: what the KL is measured from.
        self.reference = copy.deepcopy(self.policy).eval().requires_grad_(False)
        self.modules["reference"] = self.reference
        self.lagged = LaggedCopy(self.policy, config.rollout_lag) if config.rollout_lag else None
        if self.lagged is not None:
            self.modules["lagged"] = self.lagged.policy
        self.replay_negatives(config.negatives)
        self.envs = self.make_envs(
            config.batch_size,
            reward="rollout" if config.rollouts else "terminal",
            rollouts=max(1, config.rollouts),
            q_interval=config.q_interval,
            transform=config.transform,
            score_precision=config.score_precision,
            gamma=config.gamma,
            sources=self._sources(),
            rollout_policy=None if self.lagged is None else self._exploring(self.lagged.policy),
        )

    def behaviour_policy(self) -> PolicyModule:
        """G at the temperature at which it explores."""
        return self._exploring(self.policy)

    def _exploring(self, policy: PolicyModule) -> PolicyModule:
        """G, or a policy that is compared with it or completes its texts, at the temperature at which G generates."""
        return policy.at_temperature(self.config.writing_temperature)

    def round_steps(self) -> tuple[Steps, ...]:
        """g-steps, d-steps and steps of maximum likelihood."""
        from textgan_env.training.schedule import Steps

        return *super().round_steps(), Steps(self.mle_step, self.config.mle_steps)

    def end_pretraining(self, step: Step) -> Numbers:
        """Continue with the averaged weights; the reference, and the policy that follows, are G as it is now."""
        self.take_average(step)
        for follower in (self.reference, *([] if self.lagged is None else [self.lagged.policy])):
            follower.load_state_dict(self.policy.state_dict())
        return {}

    def mle_step(self, step: Step) -> Numbers:
        """One step of maximum likelihood on some real texts."""
        from textgan_env.ops.sampling import draw_seed, seeded
        from textgan_env.training.mle import mle_step

        real_BT = self.real_texts(step.generator, self.mle_batch_size, writable=False)
        self.policy.train()
        with seeded(draw_seed(step.generator)):
            norm = self.config.max_grad_norm
            loss = mle_step(self.policy, self.mle_optimizer, self.task, real_BT, max_grad_norm=norm)
        return {"loss": loss}

    def g_step(self, step: Step) -> Numbers:
        """The g-step of every policy-gradient agent; then the policy that completes prefixes follows."""
        numbers = super().g_step(step)
        if self.lagged is not None:
            self.lagged.update(self.policy)
        return numbers

    def advantage(self, batch: EpisodeBatch) -> Tensor:
        """Credit less the baseline, float (B, T)."""
        from textgan_env.ops.losses import baseline
        from textgan_env.rewards import q_before, q_tokens

        if self.config.baseline != "prefix":
            return batch.credit_BT - baseline(self.config.baseline, batch.credit_BT, batch.mask_BT)
        own_BT, more_BT = batch.own_credit_BT, batch.credit_BT - batch.own_credit_BT
        # No prefix was completed before the first Q, and none says anything of what further sources give.
        others_BT, more_others_BT = (baseline("leave-one-out", part, batch.mask_BT) for part in (own_BT, more_BT))
        before_BT = q_before(own_BT, q_tokens(batch, self.config.q_interval), others_BT)
        return own_BT - before_BT + more_BT - more_others_BT

    def _sources(self) -> list[Callable[[Policy], CreditSource]]:
        """The KL to the pre-trained policy and the entropy that are still to come, of the policy that generates."""
        from textgan_env.rewards import EntropyCredit, KLCredit

        config = self.config
        sources: list[Callable[[Policy], CreditSource]] = []
        if config.kl_coef:
            reference = self._exploring(self.reference)
            sources.append(lambda policy: KLCredit(policy, reference, config.kl_coef, config.gamma))
        if config.ent_coef:
            sources.append(lambda policy: EntropyCredit(policy, config.ent_coef, config.gamma))
        return sources


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(SeqGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
