"""LeakGAN: the discriminator leaks its features, a Manager makes goals of them, a Worker generates toward the goals.

Algorithm 2 of Guo et al. 2018: pre-train D and G in turn, then alternate g-steps (the Manager learns from Q of
completions, the Worker from how well its words follow the goals) and d-steps, with epochs of maximum likelihood
between. Presets:

  fast    a small discriminator that generalises, every c-th Q, baseline for the Worker (the default)
  paper   the published sizes and schedule with the paper's rules (or --variant reference); days a run on CPU
  smoke   seconds, to see that everything runs

--variant reference keeps what the published code does otherwise, see docs/leakgan.md. --control constant, random or
shuffled replaces the reward by one that knows nothing of the text; untrained leaves D as it was drawn.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textgan_env.training.adversarial import AdversarialAgent, AdversarialConfig
from textgan_env.training.agent import run_command
from textgan_env.training.rewarded import CreditConfig
from textgan_env.utils.errors import require
from textgan_env.utils.kinds import DiscriminatorNetworkKind
from textgan_env.utils.options import ORACLES, above_zero, at_least

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from textgan_env.discriminators import DiscriminatorModule
    from textgan_env.envs import EpisodeBatch
    from textgan_env.policies import LeakedPolicy, PolicyModule
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Schedule, Step


@dataclass(frozen=True)
class LeakGANConfig(CreditConfig, AdversarialConfig):
    """Train a policy by LeakGAN."""

    variant: Literal["paper", "reference"] = "paper"
    """The paper's rules, or those of its published code."""
    pretrain_rounds: int = 10
    """Rounds of pre-training: in each D, then G."""
    pretrain_d_steps: int = 1
    """d-steps in a round of pre-training."""
    pretrain_epochs: int = 3
    """Epochs of G in a round of pre-training."""
    pretrain_patience: int = 3
    """Rounds of pre-training without a better NLL-valid after which it ends; 0: never."""
    goal_size: int = 16
    """k, the numbers that the Worker is given of the goals."""
    goal_steps: int = 4
    """c, the tokens in which a goal is to be reached."""
    d_embed_size: int = 64
    """Width of the CNN's embedding."""
    d_lr_scale: float = 0.1
    """What D's rate is multiplied by in adversarial rounds: G must have time to learn to read D's new features."""
    d_temperature: float = 1.0
    """G's temperature when it generates texts for D."""
    g_temperature: float = 1.0
    """G's temperature when it generates texts to learn from (alpha)."""
    mle_interval: int = 2
    """Adversarial rounds between two epochs of maximum likelihood; 0: no such epochs."""
    q_interval: int = 4
    """The Manager learns from one goal in so many of a text; which ones changes from g-step to g-step."""
    baseline: Literal["none", "leave-one-out"] | None = None
    """What is subtracted from the Worker's reward: nothing, or the mean of the other texts at the position [that mean;
    `reference` pays all texts alike, so it has none]."""
    end_reward: Literal["none", "intrinsic", "q"] | None = None
    """What the decision to end a text learns from in g-steps: nothing, so that maximum likelihood alone teaches it; the
    intrinsic reward like all tokens, as published; or Q [none; `reference`: intrinsic]."""
    # Other defaults; None is as published: sizes 32, or 64 where T is above 20, learning rate 1.5e-3 or 5e-4.
    policy: Literal["leaked"] = "leaked"
    mle_batch_size: int = 64
    embed_size: int | None = None
    hidden_size: int | None = None
    discriminator: DiscriminatorNetworkKind = "pair"
    rounds: int = 10
    g_steps: int = 10
    learning_rate: float | None = 1e-4
    transform: Literal["rank", "prob", "logit"] = "rank"


def fast(task: str) -> LeakGANConfig:
    """Minutes on two cores for 20 tokens."""
    # k multiplies the cost of every token: the published 16 took a two-core machine four times as long.
    config = LeakGANConfig(preset="fast", task=task, select="last", goal_size=4, d_temperature=0.8)
    return config if task in ORACLES else replace(config, embed_size=64, hidden_size=64)


def paper(task: str) -> LeakGANConfig:
    """The published code's sizes, schedule and rates, with the paper's rules for goals, Q and rewards."""
    config = LeakGANConfig(
        preset="paper", task=task, select="last", pretrain_d_steps=5, pretrain_epochs=8, pretrain_patience=0,
        mle_learning_rate=1.5e-3, weight_decay=0.0, dropout=0.0, ema_decay=0.0, discriminator="conv", d_steps=5,
        d_learning_rate=5e-5, d_lr_scale=1.0, d_epochs=3, d_batch_size=32, d_temperature=1 / 1.5, rounds=800, g_steps=1,
        mle_interval=15, batch_size=64, learning_rate=None, q_interval=1, baseline="none",
    )  # fmt: skip
    if task in (*ORACLES, "poems"):
        return config
    wide = replace(config, embed_size=128, hidden_size=128, d_embed_size=256)
    return replace(wide, learning_rate=1e-3, mle_learning_rate=1e-3)


def smoke(task: str) -> LeakGANConfig:
    """As small as it can be."""
    return LeakGANConfig(
        preset="smoke", task=task, select="last", pretrain_rounds=1, pretrain_epochs=1, embed_size=8, hidden_size=8,
        goal_size=4, rounds=2, g_steps=1, batch_size=64, mle_batch_size=256, rollouts=2, d_batch_size=256,
    )  # fmt: skip


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "paper": paper, "smoke": smoke}


class LeakGAN(AdversarialAgent):
    """The Manager learns where texts should go, the Worker to go there, D to tell them from real ones.

    With f_t D's features of the first t tokens and g_t the Manager's goals, a g-step makes larger

    - for the Manager, the mean over texts and t of Q(s_t, g_t) cos(f_{t+c} - f_t, g_t). Q is what completions of the
      first t + c tokens are worth, by their rank in the batch;
    - for the Worker, the mean over texts of sum_t (r_t - baseline_t) log G(y_t | s_t), r_t the cosine of its moves with
      the goals it had.

    Neither learns from the other's objective. See docs/leakgan.md for the published code's rules.
    """

    config: LeakGANConfig
    policy: LeakedPolicy
    kinds = ("leaked",)
    same = ("goal_size", "goal_steps", "variant", "discriminator")
    network_options: ClassVar = {name: name for name in ("goal_size", "goal_steps", "variant")}
    curves: ClassVar[tuple[str, ...]] = (*AdversarialAgent.curves, "manager_cosine", "intrinsic_reward")

    def __init__(self, config: LeakGANConfig, task: Task) -> None:
        from torch.optim import Adam

        from textgan_env.training.mle import trained
        from textgan_env.training.schedule import Patience

        at_least(1, config, "g_steps", "rollouts", "q_interval", "pretrain_epochs")
        at_least(0, config, "pretrain_d_steps", "mle_interval", "pretrain_patience")
        above_zero(config, "d_lr_scale", "d_temperature", "g_temperature")
        alike = "--variant reference pays all texts alike, so that a baseline would leave nothing: expected none, found"
        require(config.variant == "paper" or config.baseline in (None, "none"), f"{alike} --baseline {config.baseline}")
        super().__init__(config, task)
        usual_baseline, usual_end_reward = self.policy.rules.usual
        self.baseline, self.end_reward = config.baseline or usual_baseline, config.end_reward or usual_end_reward
        self.patience = Patience(config.pretrain_patience)
        self.modules |= {"patience": self.patience} | ({"average": self.average.policy} if config.ema_decay else {})
        rate = config.learning_rate or (1.5e-3 if task.max_length <= 20 else 5e-4)
        self.manager_optimizer = self.optimizers["manager"] = Adam(trained(self.policy.manager), lr=rate, fused=True)
        self.worker_optimizer = self.optimizers["worker"] = Adam(trained(self.policy.worker), lr=rate, fused=True)
        # Views of one policy: to generate what it learns from, to complete prefixes and learn, to generate for D.
        reference = config.variant == "reference"  # the published code generates at one temperature, learns at another
        sampling = self.policy.at_temperature(config.g_temperature)
        self.sampling = sampling.with_first_inverse_temperature(1.5) if reference else sampling
        self.learning = self.policy.at_temperature(1.0) if reference else sampling
        self.envs = self.make_envs(
            config.batch_size, reward="rollout", rollout_policy=self.learning, leak_features=True,
            discriminator=self.policy.discriminator, rollouts=config.rollouts, transform=config.transform,
            score_precision=config.score_precision,
        )  # fmt: skip

    @property
    def end_apart(self) -> int | None:
        """The token that ends a text, if whether to end is learnt apart from the words."""
        return None if self.end_reward == "intrinsic" else self.task.end_token

    def new_policy(self, **_: Any) -> PolicyModule:
        """Manager and Worker around a D."""
        from textgan_env.discriminators.conv import leakgan_options

        published = {"embed_size": self.config.d_embed_size, **leakgan_options(self.task.max_length)}
        discriminator = super().new_discriminator(**published if self.config.discriminator == "conv" else {})
        assert discriminator is not None
        discriminator.begin_features(1)  # refused by one that has no features of prefixes
        return super().new_policy(discriminator=discriminator, manager_size=self.config.hidden_size)

    def new_discriminator(self, **_: Any) -> DiscriminatorModule:
        """The D that learns; the one that leaks and is asked for rewards is the policy's copy."""
        return copy.deepcopy(self.policy.discriminator).requires_grad_(True)

    @property
    def d_learns(self) -> bool:
        """D's features are read whatever the reward is."""
        return self.config.control != "untrained"

    def policy_for_d(self) -> PolicyModule:
        """G at its temperature for D."""
        return self.policy.at_temperature(self.config.d_temperature)

    def taught(self) -> nn.Module:
        """The Worker learns by maximum likelihood."""
        return self.policy.worker

    def averaged(self) -> nn.Module:
        """Both: a Worker that lags behind its Manager's goals would misunderstand them."""
        return self.policy.learners

    def schedule(self) -> Schedule:
        """Pre-train D and G in turn, then g-steps, d-steps and now and then an epoch of maximum likelihood."""
        from textgan_env.training.schedule import Phase, Schedule, Steps

        config, batches = self.config, self.mle_steps_of("").batches
        pre_d = self.d_steps_of(config.pretrain_d_steps, "pretrain_d")
        pre_g = Steps(self.pretrain_g, batches=config.pretrain_epochs * batches)
        rounds = 0 if config.pretrained is not None else config.pretrain_rounds
        before = Phase("pretrain", rounds, (pre_d, pre_g), at_end=(Steps(self.take_average),), until=self.patience.over)
        d_steps = self.d_steps_of(config.d_steps, lr_scale=config.d_lr_scale)
        mle = [Steps(self.interleaved_mle, batches=batches, every=config.mle_interval)] if config.mle_interval else []
        after = Phase("adversarial", config.rounds, (Steps(self.g_step, config.g_steps), d_steps, *mle))
        return Schedule((before, after))

    def d_batch(self, step: Step, lr_scale: float = 1.0) -> Numbers:
        """A batch of a d-step; after the last G reads the features of the new D."""
        numbers = super().d_batch(step, lr_scale)
        if step.is_last and self.discriminator is not None:
            self.policy.leak(self.discriminator)
        return numbers

    def pretrain_g(self, step: Step) -> Numbers:
        """A batch of some epochs of maximum likelihood; the numbers are those of the last epoch."""
        from textgan_env.ops.torchrun import from_first

        numbers = self.mle_batch(step)
        self.update_average(step)
        if step.is_last and self.config.pretrain_patience:
            self.patience.note(from_first(self.nll_of_average()))
        return numbers if step.batches - step.batch <= step.batches // self.config.pretrain_epochs else {}

    def interleaved_mle(self, step: Step) -> Numbers:
        """A batch of an epoch of maximum likelihood between adversarial rounds, averaged from where G is now."""
        loss = self.mle_batch(step)["loss"]
        self.average.update(self.averaged())
        if step.is_last:
            self.take_average(step)
        return {"loss": loss}  # the cosine in the log is that of the g-steps

    def mle_batch(self, step: Step, own_share: float = 0.0) -> Numbers:
        """A batch of real text: the Worker learns its likelihood, the Manager where the features really went."""
        from textgan_env.training.mle import epochs

        seed, tokens_BT = step.item(partial(epochs, self.g_task, self.mle_batch_size))
        tokens_BT = tokens_BT.to(self.policy.device)
        columns = (tokens_BT, tokens_BT != self.task.vocab_size, self.task.scored(tokens_BT))
        optimizers, minimise = (self.manager_optimizer, self.mle_optimizer), {"loss": 1.0, "manager_cosine": -1.0}
        objective = partial(self.policy.rules.real_text_sums, self.policy.train())
        with step.dropout(seed):
            return self.descend(optimizers, columns, objective, minimise, dropout=True)[0]

    def g_step(self, step: Step) -> Numbers:
        """Generate B texts; the Manager learns from their Q, the Worker from how well they followed the goals."""
        import torch

        from textgan_env.ops.losses import credit_numbers, masked_mean

        self.begin_texts(step)
        positions = self.policy.rules.positions(self.task.max_length, self.config.q_interval, step.generator)
        with self.remembering():
            batch = self.envs.collect(self.sampling, positions)
            columns, minimise, reward_BT = self.columns(batch, positions)
        objective = partial(self.policy.rules.generated_sums, self.learning, end_token=self.end_apart)
        means, norms = self.descend((self.manager_optimizer, self.worker_optimizer), columns, objective, minimise)
        # Column by column: a list as an index would have to be brought to the device.
        asked = (torch.stack([part_BT[:, at] for at in positions], 1) for part_BT in (batch.credit_BT, batch.mask_BT))
        self.average.policy.load_state_dict(self.averaged().state_dict())  # an epoch of MLE averages from here on
        return {
            "manager_cosine": means["manager_cosine"],
            "intrinsic_reward": masked_mean(reward_BT, batch.mask_BT),
            **dict(zip(("manager_norm", "worker_norm"), norms, strict=True)),
            **credit_numbers(*asked),
            "unique": len({tuple(tokens) for tokens in self.envs.game.episodes.tokens_BT.tolist()}) / len(batch),
        }

    def remembering(self) -> AbstractContextManager[None]:
        """Inside, the features of the texts of a g-step are computed when they are written, and not again."""
        return self.policy.discriminator.remembering(self.config.batch_size * self.task.max_length)

    def columns(self, batch: EpisodeBatch, positions: list[int]) -> tuple[list[Tensor], dict[str, float], Tensor]:
        """What `generated_sums` takes of texts with Q at some positions, what is minimised, the Worker's pay (B, T)."""
        rules, texts = self.policy.rules, (batch.tokens_BT, batch.mask_BT, batch.credit_BT)
        columns, reward_BT = rules.columns(self.policy, *texts, positions, self.baseline, self.end_reward)
        minimise = {**rules.manager_weights(columns[4], columns[5], self.config.rollouts), "worker_loss": 1.0}
        return columns, minimise, reward_BT


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(LeakGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
