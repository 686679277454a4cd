"""DGSAN (arXiv 1908.09127), a teaching case: G learns to be told apart from what it was a round ago.

Where two distributions G and G_old are known, the best discriminator between them is known, too:
D = G / (G + G_old). So none is trained: G learns so that this D tells real text from that of G_old. Presets:

  fast    from a generator pre-trained by maximum likelihood (the default)
  smoke   seconds, to see that everything runs

--control self takes texts of G_old for the real ones: G must stay where it is, but for noise.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from textgan_env.training.agent import run_command, sized_for
from textgan_env.training.pretrained import PretrainedAgent, PretrainedConfig
from textgan_env.utils.options import at_least

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.ops.parallel import Sum
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Schedule, Step


@dataclass(frozen=True)
class DGSANConfig(PretrainedConfig):
    """Train a policy by DGSAN."""

    g_steps: int = 75
    """Steps of G in a round; G_old is G as it was before them."""
    control: Literal["self"] | None = None
    """self: texts of G_old in place of real ones."""


def fast(task: str) -> DGSANConfig:
    """Minutes on two cores."""
    return sized_for(task, DGSANConfig(preset="fast", task=task, select="last"))


def smoke(task: str) -> DGSANConfig:
    """As small as it can be."""
    return DGSANConfig(
        preset="smoke", task=task, select="last", mle_epochs=1, mle_batch_size=256, rounds=2, g_steps=2, embed_size=8,
        hidden_size=8,
    )  # fmt: skip


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "smoke": smoke}


class DGSAN(PretrainedAgent):
    """G minimises ``-E_real log D - E_old log(1 - D)`` with ``D = G / (G + G_old)`` of whole texts."""

    config: DGSANConfig
    curves: ClassVar[tuple[str, ...]] = ("nll_valid", "nll_oracle")

    def __init__(self, config: DGSANConfig, task: Task) -> None:
        at_least(1, config, "g_steps")
        super().__init__(config, task)
        self.modules["old"] = self.old = copy.deepcopy(self.policy).eval().requires_grad_(False)

    def schedule(self) -> Schedule:
        """Pre-train G, then rounds against G as it was before each."""
        from textgan_env.training.schedule import Phase, Schedule, Steps

        steps = Steps(self.remember), Steps(self.g_step, self.config.g_steps)
        return Schedule((self.mle_phase(), Phase("self-adversarial", self.config.rounds, steps)))

    def remember(self, _: Step) -> Numbers:
        """G_old becomes G."""
        self.old.load_state_dict(self.policy.state_dict())
        return {}

    def g_step(self, step: Step) -> Numbers:
        """B real texts and B of G_old, and a step that lets D tell them apart."""
        import torch

        size, generator = self.config.batch_size, step.generator
        written_BT = self.generated(generator, size, self.old).tokens_BT
        if self.config.control == "self":
            real_BT = self.generated(generator, size, self.old).tokens_BT
        else:
            real_BT = self.real_texts(generator, size, writable=False)
        scored_BT, mask_BT = self.task.scored(real_BT), written_BT != self.task.vocab_size
        with torch.no_grad():
            old_B = self.old.log_prob(real_BT, scored_BT).sum(1), self.old.log_prob(written_BT, mask_BT).sum(1)
        self.policy.eval()
        columns = (real_BT, scored_BT, old_B[0], written_BT, mask_BT, old_B[1])
        return self.descend([self.g_optimizer], columns, self.objective)[0]

    def objective(
        self, real_BT: Tensor, scored_BT: Tensor, old_real_B: Tensor, written_BT: Tensor, mask_BT: Tensor, old_B: Tensor
    ) -> dict[str, Sum]:
        """D's cross entropy on a real and a written text, nats; log G - log G_old is its logit.

        Args:
            real_BT: int64, PAD after the end.
            scored_BT: bool; its tokens, but for unknown words.
            old_real_B: float; log G_old of the real texts.
            written_BT: int64; texts of G_old.
            mask_BT: bool; their tokens.
            old_B: float; log G_old of them.
        """
        from torch.nn.functional import softplus

        logit_real_B = self.policy.log_prob(real_BT, scored_BT).sum(1) - old_real_B
        logit_B = self.policy.log_prob(written_BT, mask_BT).sum(1) - old_B
        return {"loss": ((softplus(-logit_real_B) + softplus(logit_B)).sum(), float(len(real_BT)))}


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(DGSAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
