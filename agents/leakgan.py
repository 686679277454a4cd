"""LeakGAN: the discriminator leaks its features, a Manager makes goals of them, a Worker writes toward the goals.

Algorithm 2 of Guo et al. 2018: pre-train D and G in turn, then alternate g-steps (the Manager learns from Q of
completions, the Worker from how well its words follow the goals) and d-steps, with epochs of maximum likelihood
between. Presets:

  fast    a small judge that generalises, every c-th Q, baseline for the Worker (the default)
  paper   the published sizes and schedule with the paper's rules (or --variant reference); days a run on CPU
  smoke   seconds, to see that everything runs

--variant reference keeps what the published code does otherwise, see docs/leakgan.md. --control constant, random or
shuffled replaces the reward by one that knows nothing of the text; untrained leaves D as it was drawn.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textgan_env.training.adversarial import AdversarialAgent, AdversarialConfig, CreditConfig
from textgan_env.training.agent import Curves, run_command
from textgan_env.utils.options import ORACLES, above_zero, at_least

if TYPE_CHECKING:
    from torch import Tensor, nn

    from textgan_env.discriminators import DiscriminatorModule
    from textgan_env.envs import EpisodeBatch
    from textgan_env.ops.parallel import Sum
    from textgan_env.policies import LeakedPolicy, PolicyModule
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Schedule, Step

#: The CNN's default widths reach 20; for 40 tokens and for captions the published code adds one of 30.
WIDE = {
    "widths": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 30),
    "filters": (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160, 160),
}


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
    """What D's rate is multiplied by in adversarial rounds: G reads D's features, so they may not change faster than it
    learns to."""
    d_temperature: float = 1.0
    """G's temperature when it generates texts for D."""
    g_temperature: float = 1.0
    """G's temperature when it generates texts to learn from (alpha)."""
    mle_interval: int = 2
    """Adversarial rounds between two epochs of maximum likelihood; 0: no such epochs."""
    q_interval: int = 4
    """The Manager learns from one goal in so many of a text; which ones changes from g-step to g-step."""
    baseline: Literal["none", "leave-one-out"] = "leave-one-out"
    """What is subtracted from the Worker's reward: nothing, or the mean of the other texts at the position."""
    # Other defaults. Sizes: None is 32, or 64 where T is above 20, as published; learning rate: 1.5e-3 or 5e-4.
    policy: Literal["leaked"] = "leaked"
    mle_batch_size: int = 64
    embed_size: int | None = None
    hidden_size: int | None = None
    discriminator: Literal["pair", "conv"] = "pair"
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
    wide = {
        "embed_size": 128,
        "hidden_size": 128,
        "d_embed_size": 256,
        "learning_rate": 1e-3,
        "mle_learning_rate": 1e-3,
    }
    return config if task in (*ORACLES, "poems") else replace(config, **wide)  # type: ignore[arg-type]


def smoke(task: str) -> LeakGANConfig:
    """As small as it can be."""
    return LeakGANConfig(
        preset="smoke", task=task, select="last", pretrain_rounds=1, pretrain_epochs=1, embed_size=8, hidden_size=8,
        goal_size=4, rounds=2, g_steps=1, batch_size=64, mle_batch_size=256, rollouts=2, d_batch_size=256,
    )  # fmt: skip


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS: dict[str, Callable[[str], LeakGANConfig]] = {"fast": fast, "paper": paper, "smoke": smoke}


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
    curves: ClassVar[Curves] = {
        **AdversarialAgent.curves,
        "cosine": {"manager_cosine": "moves and goals", "intrinsic_reward": "the Worker's reward"},
    }

    def __init__(self, config: LeakGANConfig, task: Task) -> None:
        from torch.optim import Adam

        from textgan_env.policies import Decoding
        from textgan_env.policies.manager_worker import check_goal_steps
        from textgan_env.training.mle import trained
        from textgan_env.training.schedule import Patience

        at_least(1, config, "g_steps", "rollouts", "q_interval", "pretrain_epochs")
        at_least(0, config, "pretrain_d_steps", "mle_interval", "pretrain_patience")
        above_zero(config, "d_lr_scale")
        check_goal_steps(config.goal_steps, task.max_length)
        super().__init__(config, task)
        self.rules = self.policy.rules
        self.patience = Patience(config.pretrain_patience)
        self.modules |= {"patience": self.patience} | ({"average": self.average.policy} if config.ema_decay else {})
        rate = config.learning_rate or (1.5e-3 if task.max_length <= 20 else 5e-4)
        self.manager_optimizer = Adam(trained(self.policy.manager), lr=rate)
        self.worker_optimizer = Adam(trained(self.policy.worker), lr=rate)
        self.optimizers |= {"manager": self.manager_optimizer, "worker": self.worker_optimizer}
        # Views of one policy: to generate what it learns from, to complete prefixes and learn, to generate for D.
        reference = config.variant == "reference"  # the published code generates at one temperature, learns at another
        sampling = self.policy.with_decoding(Decoding(config.g_temperature))
        self.sampling = sampling.with_first_inverse_temperature(1.5) if reference else sampling
        self.learning = self.policy.with_decoding(Decoding()) if reference else sampling
        self.for_d = Decoding(config.d_temperature)
        self.envs = self.make_envs(
            config.batch_size, rollouts=config.rollouts, transform=config.transform, leak_features=True,
            discriminator=self.policy.discriminator, rollout_policy=self.learning,
        )  # fmt: skip

    def new_policy(self, **_: Any) -> PolicyModule:
        """Manager and Worker around a D."""
        options: dict[str, Any] = {}
        if self.config.discriminator == "conv":
            # Neither dropout nor L2, as published: its "keep" is 1, and its L2 is declared but never used.
            options = {"embed_size": self.config.d_embed_size, "dropout": 0.0, "l2": 0.0}
            options |= WIDE if self.task.max_length > 30 else {}
        discriminator = super().new_discriminator(**options)
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
        return self.policy.with_decoding(self.for_d)

    def taught(self) -> nn.Module:
        """The Worker learns by maximum likelihood."""
        return self.policy.worker

    def averaged(self) -> nn.Module:
        """Both: a Worker that lags behind its Manager's goals would misunderstand them."""
        from torch import nn

        return nn.ModuleDict({"manager": self.policy.manager, "worker": self.policy.worker})

    def schedule(self) -> Schedule:
        """Pre-train D and G in turn, then g-steps, d-steps and now and then an epoch of maximum likelihood."""
        from textgan_env.training.schedule import Phase, Schedule, Steps

        config, batches = self.config, self.mle_steps_of("").batches
        pretrain_d = self.d_steps_of(config.pretrain_d_steps, "pretrain_d")
        pretrain_g = Steps(self.pretrain_g, batches=config.pretrain_epochs * batches)
        rounds = 0 if config.pretrained is not None else config.pretrain_rounds
        end = (Steps(self.take_average),)
        first = Phase("pretrain", rounds, (pretrain_d, pretrain_g), at_end=end, until=self.patience.over)
        d_steps = self.d_steps_of(config.d_steps, lr_scale=config.d_lr_scale)
        mle = [Steps(self.interleaved_mle, batches=batches, every=config.mle_interval)] if config.mle_interval else []
        return Schedule(
            (first, Phase("adversarial", config.rounds, (Steps(self.g_step, config.g_steps), d_steps, *mle)))
        )

    def d_batch(self, step: Step, lr_scale: float = 1.0) -> Numbers:
        """A batch of a d-step; after the last G reads the features of the new D."""
        numbers = super().d_batch(step, lr_scale)
        if step.is_last and self.discriminator is not None:
            self.policy.leak(self.discriminator)
        return numbers

    def pretrain_g(self, step: Step) -> Numbers:
        """A batch of some epochs of maximum likelihood; the numbers are those of the last epoch."""
        from textgan_env.evaluation import nll
        from textgan_env.ops.parallel import from_first

        numbers = self._mle_batch(step, self.config.pretrain_epochs)
        self.update_average(step)
        if step.is_last and self.config.pretrain_patience:
            valid_BT = self.task.split("valid").head(2000).tokens_BT
            with self.average.applied(self.averaged()) if self.config.ema_decay else nullcontext():
                self.patience.note(from_first(nll(self.policy, valid_BT, self.task.scored(valid_BT))[0]))
        return numbers if step.batches - step.batch <= step.batches // self.config.pretrain_epochs else {}

    def interleaved_mle(self, step: Step) -> Numbers:
        """A batch of an epoch of maximum likelihood between adversarial rounds, averaged from where G is now."""
        numbers = self._mle_batch(step)
        self.average.update(self.averaged())
        return {**numbers, **self.take_average(step)} if step.is_last else numbers

    def _mle_batch(self, step: Step, count: int = 1) -> Numbers:
        """A batch of real text: the Worker learns its likelihood, the Manager where the features really went."""
        from textgan_env.training.mle import epochs

        seed, tokens_BT = step.item(partial(epochs, self.task, self.mle_batch_size, count=count))
        tokens_BT = tokens_BT.to(self.policy.device)
        columns = (tokens_BT, tokens_BT != self.task.vocab_size, self.task.scored(tokens_BT))
        optimizers, minimise = (self.manager_optimizer, self.mle_optimizer), {"loss": 1.0, "manager_cosine": -1.0}
        self.policy.train()
        with step.dropout(seed):
            return self.descend(optimizers, columns, self._likelihood, minimise, dropout=True)[0]

    def _likelihood(self, tokens_BT: Tensor, written_BT: Tensor, scored_BT: Tensor) -> dict[str, Sum]:
        """The Worker's negative log-likelihood, and the cosine of the Manager's goals with where the text went."""
        from textgan_env.ops.losses import masked_sum, nll_sum

        features_BSF = self.policy.prefix_features(tokens_BT)
        goals_BTF = self.policy.goals(features_BSF)
        known_BK = written_BT[:, self.rules.ends(self.task.max_length)]
        logp_BT = self.policy.worker_log_prob(tokens_BT, scored_BT, goals_BTF, late=self.rules.late)
        cosine = masked_sum(self.rules.cosines(features_BSF, goals_BTF), known_BK)
        return {"loss": nll_sum(logp_BT, scored_BT), "manager_cosine": cosine}

    def g_step(self, step: Step) -> Numbers:
        """Generate B texts; the Manager learns from their Q, the Worker from how well they followed the goals."""
        from textgan_env.ops.losses import credit_numbers, masked_mean

        self.begin_texts(step)
        positions = self.rules.positions(self.task.max_length, self.config.q_interval, step.generator)
        batch = self.envs.collect(self.sampling, positions)
        columns, minimise = self.columns(batch, positions)
        optimizers = (self.manager_optimizer, self.worker_optimizer)
        means, norms = self.descend(optimizers, tuple(columns.values()), self._objective, minimise)
        # An epoch of maximum likelihood averages from here on.
        self.average.policy.load_state_dict(self.averaged().state_dict())
        return {
            "manager_cosine": means["manager_cosine"],
            "intrinsic_reward": masked_mean(columns["reward_BT"], batch.mask_BT),
            "manager_norm": norms[0],
            "worker_norm": norms[1],
            **credit_numbers(batch.credit_BT[:, positions], batch.mask_BT[:, positions]),
            "unique": len({tuple(tokens) for tokens in batch.tokens_BT.tolist()}) / len(batch.tokens_BT),
        }

    def columns(self, batch: EpisodeBatch, positions: list[int]) -> tuple[dict[str, Tensor], Mapping[str, float]]:
        """What `_objective` takes, by name, and what a g-step minimises: name of a mean -> weight.

        Args:
            batch: Generated texts, with credit at the positions.
            positions: The last tokens of the prefixes whose Q is known.
        """
        import torch

        from textgan_env.ops.losses import baseline
        from textgan_env.ops.parallel import by_rows

        tokens_BT, mask_BT, rules = batch.tokens_BT, batch.mask_BT, self.rules
        features_BSF, reward_BT = by_rows(len(tokens_BT), lambda rows: self._paid(tokens_BT[rows]))
        reward_BT = rules.shared_reward(reward_BT, mask_BT)
        ends_K = rules.ends(self.task.max_length)
        known_BK = mask_BT[:, ends_K] & torch.isin(ends_K, torch.tensor(positions)).to(mask_BT.device)
        columns = {
            "tokens_BT": tokens_BT, "mask_BT": mask_BT, "features_BSF": features_BSF, "reward_BT": reward_BT,
            "advantage_BT": reward_BT - baseline(self.config.baseline, reward_BT, mask_BT),
            "credit_BK": batch.credit_BT[:, ends_K], "known_BK": known_BK,
        }  # fmt: skip
        weights = rules.manager_weights(columns["credit_BK"], known_BK, self.config.rollouts)
        return columns, {**weights, "worker_loss": 1.0}

    def _paid(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """D's features of all prefixes of some texts, and what the Worker is paid for each token."""
        features_BSF = self.policy.prefix_features(tokens_BT)
        return features_BSF, self.rules.worker_reward(features_BSF, self.policy.goals(features_BSF))

    def _objective(self, tokens_BT: Tensor, mask_BT: Tensor, features_BSF: Tensor, _: Tensor, advantage_BT: Tensor,
                   credit_BK: Tensor, known_BK: Tensor) -> dict[str, Sum]:  # fmt: skip
        """What Manager and Worker minimise: the one's has no gradient for the other, neither has one for D."""
        from textgan_env.ops.losses import masked_sum, policy_gradient_sum

        goals_BTF = self.policy.goals(features_BSF)
        cosines_BK = self.rules.cosines(features_BSF, goals_BTF)
        logp_BT = self.learning.worker_log_prob(tokens_BT, mask_BT, goals_BTF, late=self.rules.late)
        return {
            "manager_loss": masked_sum(-credit_BK * cosines_BK, known_BK),
            "manager_cosine": masked_sum(cosines_BK, known_BK),
            "worker_loss": policy_gradient_sum(logp_BT, advantage_BT, mask_BT),
        }


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(LeakGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
