"""What agents of our own share that learn against a discriminator: how texts are taken, and the g-step.

A policy-gradient agent says its schedule, if it is not the usual one, and `advantage`. Loads no torch when imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from textgan_env.training.rewarded import PretrainingConfig, RewardedAgent, RewardedConfig
from textgan_env.utils.errors import require
from textgan_env.utils.options import SharedConfig, above_zero, at_least

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.envs import EpisodeBatch
    from textgan_env.ops.parallel import Sum
    from textgan_env.rewards import Texts
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Schedule, Step, Steps


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


#: Options of the preset smoke of every `PolicyGradientAgent`: as small as it can be.
SMOKE: dict[str, Any] = {
    "preset": "smoke", "select": "last", "mle_epochs": 1, "embed_size": 8, "hidden_size": 8, "d_pretraining": 1,
    "rounds": 2, "g_steps": 1, "batch_size": 16, "d_batch_size": 256,
}  # fmt: skip


class AdversarialAgent(RewardedAgent):
    """A `RewardedAgent` of our own, whose batches several processes can share."""

    curves: ClassVar[tuple[str, ...]] = (*RewardedAgent.curves, "credit", "credit_spread")

    def __init__(self, config: AdversarialConfig, task: Task) -> None:
        at_least(1, config, "batch_size")
        at_least(0, config, "g_steps")
        above_zero(config, "learning_rate")
        compares = getattr(config, "baseline", "mean") != "none"
        expected = "a baseline compares texts: batch_size must be at least 2"
        require(config.batch_size >= 2 or not compares, f"{expected}, found {config.batch_size}")
        super().__init__(config, task)

    def begin_texts(self, step: Step) -> None:
        """Make ready to collect: G in eval mode, the environment seeded."""
        from textgan_env.ops.sampling import draw_seed

        self.policy.eval()
        self.envs.reset(seed=draw_seed(step.generator) % 2**31)

    def go_on(self, step: Step, given: int, size: int) -> Texts:
        """B texts that begin as real ones: the first tokens of each are real, and G goes on from them several times.

        Args:
            step: The texts follow from its seed.
            given: Tokens that are real; a text that has no more than these stays as it is.
            size: Texts that go on from the same beginning; they stand side by side. A divisor of B.
        """
        import torch

        from textgan_env.ops.sampling import draw_seed
        from textgan_env.rewards import Keys, Texts, complete

        self.policy.eval()
        real_BT = self.real_texts(step.generator, self.config.batch_size // size).repeat_interleave(size, 0)
        keys = Keys.counted(draw_seed(step.generator), len(real_BT), device=real_BT.device)
        length_B = (real_BT != self.task.vocab_size).sum(1)
        columns_T = torch.arange(self.task.max_length, device=real_BT.device)
        unfinished_BT = (columns_T == given) & (length_B > given)[:, None]
        done = complete(self.behaviour_policy(), real_BT, unfinished_BT, keys=keys, end_token=self.task.end_token)
        tokens_BT = real_BT.index_copy(0, done.row_R, done.tokens_RT)
        length_B = length_B.index_copy(0, done.row_R, done.lengths_R)
        return Texts.finished(tokens_BT, length_B, keys, self.task.end_token)


class PolicyGradientAgent(AdversarialAgent):
    """REINFORCE on an advantage: a subclass says what each token's is, and the rest is here."""

    config: PolicyGradientConfig
    curves: ClassVar[tuple[str, ...]] = (*AdversarialAgent.curves, "gradient_snr")

    def __init__(self, config: PolicyGradientConfig, task: Task) -> None:
        from torch.optim import Adam

        from textgan_env.training.mle import trained

        super().__init__(config, task)
        self.g_optimizer = Adam(trained(self.policy), lr=config.learning_rate or 2e-3, fused=True)
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
        from textgan_env.ops.losses import credit_numbers

        batch = self.collect(step)
        numbers = self.ascend(batch, self.advantage(batch))
        return {**credit_numbers(batch.own_credit_BT, batch.mask_BT), **numbers}

    def collect(self, step: Step) -> EpisodeBatch:
        """B texts of G, with their credit by D as it is now."""
        self.queue_discriminator()
        self.begin_texts(step)
        return self.envs.collect(self.behaviour_policy())

    def ascend(self, texts: Texts, advantage_BT: Tensor) -> Numbers:
        """One step of G up the mean over texts of ``sum_t advantage_t log G(y_t | s_t)``."""
        return self.ascend_on(texts.tokens_BT, texts.mask_BT, advantage_BT, texts.keys.seed_B, texts.keys.episode_B)

    def ascend_on(self, *columns: Tensor) -> Numbers:
        """The same on the columns that `_objective` takes, axis B first."""
        from textgan_env.ops.losses import gradient_snr
        from textgan_env.ops.parallel import backward
        from textgan_env.training.mle import trained

        _, halves_P = backward(trained(self.policy), columns, self._objective, halves=True)
        snr = gradient_snr(*halves_P) if len(halves_P) == 2 else 0.0
        return {"gradient_norm": self.update(self.g_optimizer)[0], "gradient_snr": snr}

    def _objective(self, tokens_BT: Tensor, mask_BT: Tensor, advantage_BT: Tensor, *more: Tensor) -> dict[str, Sum]:
        """What a g-step minimises, for some texts; here the keys of their draws, seeds and episodes, come last."""
        from textgan_env.ops.losses import policy_gradient_sum
        from textgan_env.rewards import Keys, for_texts

        logp_BT = for_texts(self.learning_policy(), Keys(*more)).log_prob(tokens_BT, mask_BT)
        return {"loss": policy_gradient_sum(logp_BT, advantage_BT, mask_BT)}
