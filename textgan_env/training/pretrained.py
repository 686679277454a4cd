"""What agents share that pre-train G and then learn without a discriminator. Loads no torch when imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textgan_env.training.agent import PolicyAgent, PolicyConfig
from textgan_env.utils.options import SharedConfig, above_zero, at_least

if TYPE_CHECKING:
    from textgan_env.tasks import Task


@dataclass(frozen=True)
class PretrainedConfig(PolicyConfig, SharedConfig):
    """Options of every `PretrainedAgent`."""

    pretrained: Path | None = None
    """A finished run on the same task whose policy G begins as; None: pre-train here."""
    mle_epochs: int = 20
    """Epochs of pre-training of G by maximum likelihood; 0: begin from nothing."""
    mle_batch_size: int = 64
    """Real texts in a batch of maximum likelihood."""
    mle_learning_rate: float = 1e-2
    """Learning rate of G in maximum likelihood."""
    rounds: int = 20
    """Rounds after pre-training."""
    batch_size: int = 64
    """Texts in a step after pre-training (B)."""
    learning_rate: float = 1e-3
    """Learning rate of G after pre-training (Adam)."""


class PretrainedAgent(PolicyAgent):
    """G begins with maximum likelihood, or as the policy of a run, and goes on with an objective of the subclass.

    Args:
        config: Sizes and schedule.
        task: What to generate.

    Raises:
        InputError: If a number is out of its range, or the pre-trained policy is of another task or has a random
            initial state.
    """

    config: PretrainedConfig

    def __init__(self, config: PretrainedConfig, task: Task) -> None:
        from torch.optim import Adam

        from textgan_env.training.mle import trained

        at_least(1, config, "mle_batch_size")
        at_least(2, config, "batch_size")
        above_zero(config, "mle_learning_rate", "learning_rate")
        super().__init__(config, task, learning_rate=config.mle_learning_rate, batch_size=config.mle_batch_size)
        self.require_fixed_start()
        self.g_optimizer = Adam(trained(self.policy), lr=config.learning_rate, fused=True)
        self.optimizers["g"] = self.g_optimizer
        if config.ema_decay and config.pretrained is None:
            self.modules["average"] = self.average.policy
