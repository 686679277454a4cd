"""What every agent shares that learns against a discriminator: both warm starts, the d-step, and the g-step.

A policy-gradient agent says its schedule, if it is not the usual one, and `advantage`. Loads no torch when imported.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textgan_env.ops.reward_kinds import TransformName
from textgan_env.training.agent import PolicyAgent, PolicyConfig
from textgan_env.utils.errors import require
from textgan_env.utils.kinds import DiscriminatorKind
from textgan_env.utils.options import SharedConfig, above_zero, at_least

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from textgan_env.discriminators import DiscriminatorModule, ReplayedTexts
    from textgan_env.envs import EpisodeBatch, TextGANVectorEnv
    from textgan_env.ops.parallel import Sum
    from textgan_env.policies import PolicyModule
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Phase, Schedule, Step, Steps


@dataclass(frozen=True)
class RewardedConfig(PolicyConfig):
    """Options of every agent that learns from what a discriminator makes of its texts."""

    pretrained: Path | None = None
    """A finished run on the same task whose policy G begins as; None: pre-train here."""
    mle_batch_size: int = 128
    """Real texts in a batch of maximum likelihood."""
    mle_learning_rate: float = 1e-2
    """Learning rate of G in maximum likelihood."""
    discriminator: DiscriminatorKind = "pair"
    d_steps: int = 1
    """d-steps in a round; each takes fresh texts of G, as many as there are training texts."""
    d_epochs: int = 1
    """Passes over these texts in a d-step (k)."""
    d_batch_size: int = 64
    """Texts of each side in a batch of a d-step."""
    d_learning_rate: float | None = None
    """Learning rate of D; None: its own."""
    rounds: int = 20
    """Rounds after pre-training."""
    control: Literal["constant", "random", "shuffled", "untrained"] | None = None
    """A reward that knows nothing of the text instead."""


@dataclass(frozen=True)
class PretrainingConfig:
    """Options of agents that pre-train G, then D."""

    mle_epochs: int = 20
    """Epochs of pre-training of G; 0: begin from nothing."""
    d_pretraining: int = 10
    """Rounds of pre-training of D."""


@dataclass(frozen=True)
class CreditConfig:
    """Options of agents that take their credit as the environment gives it."""

    rollouts: int = 4
    """Completions of each prefix (N); 0: no completions, each token gets the whole text's reward."""
    transform: TransformName = "logit"
    """What the reward makes of D's logit."""


@dataclass(frozen=True)
class AdversarialConfig(RewardedConfig, SharedConfig):
    """Options of every agent of our own that learns against a discriminator."""

    g_steps: int = 5
    """g-steps in an adversarial round."""
    batch_size: int = 128
    """Texts in a g-step (B)."""
    learning_rate: float | None = 2e-3
    """Learning rate of G in g-steps (Adam)."""


@dataclass(frozen=True)
class PolicyGradientConfig(PretrainingConfig, AdversarialConfig):
    """Options of every `PolicyGradientAgent`."""


class RewardedAgent(PolicyAgent):
    """G begins with maximum likelihood, then learns from what D makes of its texts, and D from telling them apart.

    Args:
        config: Sizes, schedule, reward.
        task: What to generate.

    Raises:
        InputError: If a number is out of its range, or the pre-trained policy is of another task.
    """

    envs: TextGANVectorEnv
    #: Kinds of policy that the agent can train; (): all that learn.
    kinds: ClassVar[tuple[str, ...]] = ()
    #: Options in which a pre-trained policy must be as this run's.
    same: ClassVar[tuple[str, ...]] = ()
    curves: ClassVar[tuple[str, ...]] = ("nll_valid", "nll_oracle", "d_auc", "d_accuracy")

    def __init__(self, config: RewardedConfig, task: Task) -> None:
        from textgan_env.evaluation import BleuDiscriminator

        require(
            (config.discriminator, config.control) != ("bleu", "untrained"),
            "--control untrained asks a discriminator before it has learnt: --discriminator bleu never learns",
        )
        at_least(1, config, "mle_batch_size", "d_batch_size", "d_epochs")
        at_least(0, config, "d_steps")
        above_zero(config, "mle_learning_rate", "d_learning_rate")
        super().__init__(config, task, learning_rate=config.mle_learning_rate, batch_size=config.mle_batch_size)
        self.discriminator = self.new_discriminator()
        self.bleu = BleuDiscriminator(task) if config.discriminator == "bleu" else None
        self.replay: ReplayedTexts | None = None
        if self.discriminator is not None:
            self.modules["discriminator"] = self.discriminator
            self.d_optimizer = self.optimizers["d"] = self.discriminator.make_optimizer(config.d_learning_rate)
        if config.ema_decay and config.pretrained is None:
            self.modules["average"] = self.average.policy

    def first_policy(self) -> PolicyModule:
        """G as it begins: that of a run, or a new one."""
        from textgan_env.runs.loading import pretrained_policy

        config = self.config
        require(
            not self.kinds or config.policy in self.kinds,
            f"policy must be of a kind that this agent trains ({', '.join(self.kinds)}), found {config.policy}",
        )
        if config.pretrained is None:
            return self.new_policy()
        same = {name: getattr(config, name) for name in self.same}
        return pretrained_policy(config.pretrained, self.task, kinds=self.kinds, same=same)

    def new_discriminator(self, **options: Any) -> DiscriminatorModule | None:
        """D as it is drawn, with options of its kind; None where BLEU takes its place."""
        from textgan_env.discriminators import make_discriminator

        task, kind = self.task, self.config.discriminator
        if kind == "bleu":
            return None
        sizes = {"vocab_size": task.vocab_size, "max_length": task.max_length, "seed": self.seed("discriminator")}
        return make_discriminator(kind, **sizes, **options).to(self.config.device)

    def frozen_discriminator(self) -> Any:
        """D as it is now, for rewards: a copy that is never trained. BLEU is what it always was."""
        if self.discriminator is None:
            return self.bleu
        return copy.deepcopy(self.discriminator).eval().requires_grad_(False)

    def make_envs(self, rows: int, **options: Any) -> TextGANVectorEnv:
        """The environment that pays, for B texts side by side; ``untrained`` is a D that never learns."""
        from textgan_env.envs import TextGANVectorEnv

        control = self.config.control
        if control not in ("constant", "random") and "discriminator" not in options:
            options["discriminator"] = self.frozen_discriminator()
        return TextGANVectorEnv(rows, self.task, control=None if control == "untrained" else control, **options)

    def queue_discriminator(self) -> None:
        """Let D as it is now score the texts that the environment starts from now on."""
        if self.envs.game.judged:
            self.envs.game.queue_discriminator(self.frozen_discriminator())

    def behaviour_policy(self) -> PolicyModule:
        """G as it generates the texts that it learns from."""
        return self.policy  # type: ignore[no-any-return]

    def policy_for_d(self) -> PolicyModule:
        """G as it generates the texts that D learns from."""
        return self.behaviour_policy()

    @property
    def d_learns(self) -> bool:
        """Whether D has a part in the reward, and is trained for it."""
        return self.config.control in (None, "shuffled") and self.discriminator is not None

    def d_steps_of(self, times: int, key: str = "d_step", lr_scale: float = 1.0) -> Steps:
        """Some d-steps as an entry of the schedule, at a part of D's learning rate; their draws follow from the key."""
        from textgan_env.training.discriminator import refit_batches
        from textgan_env.training.schedule import Steps

        batches = refit_batches(self.task, self.config.d_epochs, self.config.d_batch_size)
        run = partial(self.d_batch, lr_scale=lr_scale)
        return Steps(run, times=times * self.d_learns, batches=batches, key=key)

    def pretraining(self) -> tuple[Phase, Phase]:
        """The phases before the adversarial one: G by maximum likelihood, unless a run was given, then D."""
        from textgan_env.training.schedule import Phase, Steps

        epochs = 0 if self.config.pretrained is not None else self.config.mle_epochs
        mle = Phase("mle", epochs, (self.mle_steps_of("mle_epoch"),), (Steps(self.end_pretraining),))
        return mle, Phase("pretrain_d", self.config.d_pretraining * self.d_learns, (self.d_steps_of(1),))

    def end_pretraining(self, step: Step) -> Numbers:
        """What follows pre-training of G."""
        return self.take_average(step)

    def d_batch(self, step: Step, lr_scale: float = 1.0) -> Numbers:
        """A batch of refitting D on fresh texts of G.

        Args:
            step: Which batch of which d-step; the last one reports what D makes of texts that it has not seen.
            lr_scale: What D's learning rate is multiplied by.
        """
        from textgan_env.training.discriminator import refit_batch

        assert self.discriminator is not None
        for group in self.d_optimizer.param_groups:
            group["lr"] = lr_scale * self.d_optimizer.defaults["lr"]
        networks = (self.discriminator, self.d_optimizer, self.policy_for_d(), self.task)
        return refit_batch(step, *networks, batch_size=self.config.d_batch_size, replay=self.replay)


class AdversarialAgent(RewardedAgent):
    """A `RewardedAgent` of our own, whose batches several processes can share."""

    curves: ClassVar[tuple[str, ...]] = (*RewardedAgent.curves, "credit", "credit_spread")

    def __init__(self, config: AdversarialConfig, task: Task) -> None:
        at_least(1, config, "batch_size")
        at_least(0, config, "g_steps")
        above_zero(config, "learning_rate")
        compares = getattr(config, "baseline", "mean") != "none"
        require(
            config.batch_size >= 2 or not compares,
            f"a baseline compares texts: batch_size must be at least 2, found {config.batch_size}",
        )
        super().__init__(config, task)

    def begin_texts(self, step: Step) -> None:
        """Make ready to collect: G in eval mode, the environment seeded."""
        from textgan_env.ops.sampling import draw_seed

        self.policy.eval()
        self.envs.reset(seed=draw_seed(step.generator) % 2**31)

    def descend(
        self,
        optimizers: Sequence[Optimizer],
        columns: Sequence[Tensor],
        objective: Callable[..., Mapping[str, Sum]],
        minimise: Mapping[str, float],
        *,
        dropout: bool = False,
    ) -> tuple[dict[str, Tensor], list[float]]:
        """One step of some optimizers down a weighted sum of means.

        Args:
            optimizers: Those of the weights that learn.
            columns: What the objective takes, axis B first.
            objective: Some rows -> name -> `Sum`.
            minimise: Name -> weight of its mean.
            dropout: Whether the objective draws from the global generators (see `backward`).

        Returns:
            The means by name, and the norm of each optimizer's gradient before it was clipped.
        """
        from textgan_env.ops.parallel import backward

        weights = [weight for optimizer in optimizers for weight in optimizer.param_groups[0]["params"]]
        means, _ = backward(weights, columns, objective, minimise=minimise, dropout=dropout)
        return means, [self.update(optimizer) for optimizer in optimizers]

    def update(self, optimizer: Optimizer) -> float:
        """One step along the gradient that is there; returns its norm before it was clipped."""
        import torch

        norm = torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self.config.max_grad_norm)
        require(bool(torch.isfinite(norm)), f"the gradient of G is {float(norm)}: try a smaller --learning-rate")
        optimizer.step()
        return float(norm)


class PolicyGradientAgent(AdversarialAgent):
    """REINFORCE on an advantage: a subclass says what each token's is, and the rest is here."""

    config: PolicyGradientConfig
    curves: ClassVar[tuple[str, ...]] = (*AdversarialAgent.curves, "gradient_snr")

    def __init__(self, config: PolicyGradientConfig, task: Task) -> None:
        from torch.optim import Adam

        from textgan_env.training.mle import trained

        super().__init__(config, task)
        self.g_optimizer = Adam(trained(self.policy), lr=config.learning_rate or 2e-3)
        self.optimizers["g"] = self.g_optimizer

    def advantage(self, batch: EpisodeBatch) -> Tensor:
        """What each token's log-probability is weighed with, float (B, T)."""
        raise NotImplementedError

    def schedule(self) -> Schedule:
        """Pre-train G, pre-train D, then g-steps and d-steps in turn."""
        from textgan_env.training.schedule import Phase, Schedule

        return Schedule((*self.pretraining(), Phase("adversarial", self.config.rounds, self.round_steps())))

    def round_steps(self) -> tuple[Steps, ...]:
        """What an adversarial round does."""
        from textgan_env.training.schedule import Steps

        return Steps(self.g_step, self.config.g_steps), self.d_steps_of(self.config.d_steps)

    def g_step(self, step: Step) -> Numbers:
        """Generate B texts, and make those with more advantage than the others more probable."""
        from textgan_env.ops.losses import credit_numbers, gradient_snr
        from textgan_env.ops.parallel import backward
        from textgan_env.training.mle import trained

        self.queue_discriminator()
        self.begin_texts(step)
        batch = self.envs.collect(self.behaviour_policy())
        columns = (batch.tokens_BT, batch.mask_BT, self.advantage(batch), batch.keys.seed_B, batch.keys.episode_B)
        _, halves_P = backward(trained(self.policy), columns, self._objective, halves=True)
        snr = gradient_snr(*halves_P) if len(halves_P) == 2 else 0.0
        norm = self.update(self.g_optimizer)
        return {**credit_numbers(batch.own_credit_BT, batch.mask_BT), "gradient_norm": norm, "gradient_snr": snr}

    def _objective(
        self, tokens_BT: Tensor, mask_BT: Tensor, advantage_BT: Tensor, seed_B: Tensor, episode_B: Tensor
    ) -> dict[str, Sum]:
        """What a g-step minimises, for some texts."""
        from textgan_env.ops.losses import policy_gradient_sum
        from textgan_env.rewards import Keys, for_texts

        logp_BT = for_texts(self.behaviour_policy(), Keys(seed_B, episode_B)).log_prob(tokens_BT, mask_BT)
        return {"loss": policy_gradient_sum(logp_BT, advantage_BT, mask_BT)}
