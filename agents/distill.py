"""Distillation: a student learns all next-token probabilities of a teacher, which is one saved run or an ensemble.

For example: textgan train distill --teachers runs/mle-oracle-1 runs/mle-oracle-2 --task oracle. Presets:

  fast    minutes on two cores (the default)
  smoke   seconds, to see that everything runs

--divergence forward: the student learns what the teacher would write next, at prefixes of the teacher's own texts or of
real ones. reverse: it learns at prefixes of its own texts, and to stay where it and the teacher agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textgan_env.training.agent import LikelihoodAgent, PolicyConfig, run_command
from textgan_env.utils.errors import require
from textgan_env.utils.kinds import MeanName
from textgan_env.utils.options import ORACLES, SharedConfig, above_zero

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from textgan_env.ops.parallel import Sum
    from textgan_env.policies import PolicyModule
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Schedule, Step


@dataclass(frozen=True)
class DistillConfig(PolicyConfig, SharedConfig):
    """Train a policy to be like other ones."""

    teachers: tuple[Path, ...] = ()
    """Finished runs on the same task, at temperature 1: one, or several that make an ensemble."""
    mean: MeanName = "geometric"
    """How an ensemble's next-token probabilities are made: arithmetic, their mean; geometric, the product's root."""
    teacher_temperature: float = 1.0
    """What the teacher's logits are divided by."""
    divergence: Literal["forward", "reverse"] = "forward"
    """forward: KL(teacher || student); reverse: KL(student || teacher), at prefixes of the student's own texts."""
    texts: Literal["teacher", "real"] = "teacher"
    """Whose prefixes the forward divergence is learnt at: those of fresh texts of the teacher, or of real ones."""
    pretrained: Path | None = None
    """A finished run on the same task whose policy the student begins as; None: from nothing."""
    epochs: int = 20
    """Rounds of as many batches as the training texts have."""
    batch_size: int = 64
    """Texts a step."""
    learning_rate: float = 1e-2
    """Learning rate of Adam at the start; it falls to 0 along a cosine."""
    dropout: float = 0.0
    weight_decay: float = 0.0


def fast(task: str) -> DistillConfig:
    """The sizes of `fast` maximum likelihood."""
    if task in ORACLES:
        return DistillConfig(preset="fast", task=task)
    return DistillConfig(preset="fast", task=task, embed_size=128, hidden_size=128, learning_rate=5e-3)


def smoke(task: str) -> DistillConfig:
    """As small as it can be."""
    return DistillConfig(preset="smoke", task=task, epochs=1, embed_size=8, hidden_size=8, batch_size=256)


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "smoke": smoke}


class Distill(LikelihoodAgent):
    """The student minimises a divergence from the teacher, exact over all V tokens at each prefix.

    Forward, p the teacher and q the student: the mean over tokens of ``KL(p(. | s) || q(. | s))``. Reverse: that of
    whole texts, ``E_q sum_t KL(q(. | s_t) || p(. | s_t)) / T``; its gradient has a second part, since q decides which
    prefixes it meets: REINFORCE with what the tokens after this one cost.

    Args:
        config: Sizes and optimizer.
        task: What to generate.
        teachers: Policies on the task to learn from; none: those of the config's runs.

    Raises:
        InputError: If a number is out of its range, or a teacher cannot be read or is of another task.
    """

    config: DistillConfig

    def __init__(self, config: DistillConfig, task: Task, teachers: Sequence[PolicyModule] = ()) -> None:
        from textgan_env.policies import Decoding, EnsemblePolicy
        from textgan_env.runs.checkpointing import TEACHER
        from textgan_env.runs.loading import teacher_policies

        above_zero(config, "teacher_temperature")
        own = config.divergence == "forward" or config.texts == "teacher"
        require(own, "the reverse divergence is learnt at prefixes of the student's own texts: leave out --texts real")
        ensemble = EnsemblePolicy(teachers or teacher_policies(config.teachers, task), config.mean)
        members = {f"{TEACHER}{number}": member for number, member in enumerate(ensemble.policies)}
        self.teacher: PolicyModule = ensemble.with_decoding(Decoding(config.teacher_temperature)).to(config.device)
        self.teacher.eval().requires_grad_(False)
        super().__init__(config, task)
        self.require_fixed_start()
        self.modules |= members

    def schedule(self) -> Schedule:
        """One phase, an epoch a round."""
        from textgan_env.training.mle import mle_batches
        from textgan_env.training.schedule import Phase, Schedule, Steps

        steps = Steps(self.distill, batches=mle_batches(self.task, self.mle_batch_size), key="epoch")
        return Schedule((Phase("distill", self.config.epochs, (steps,)),))

    def distill(self, step: Step) -> Numbers:
        """One batch; dropout, if asked for, is on where the divergence is forward."""
        from textgan_env.ops.sampling import draw_seed
        from textgan_env.training.mle import epochs

        def batches(generator: torch.Generator) -> Iterator[tuple[int, Tensor]]:
            """A seed and real texts."""
            for _, real_BT in epochs(self.task, self.mle_batch_size, generator):
                yield draw_seed(generator), real_BT

        seed, real_BT = step.item(batches)
        tokens_BT = self.texts(seed, real_BT)
        # A student that begins as another run's policy has the dropout of that run, which is not asked for here.
        self.policy.train(self.config.divergence == "forward" and self.config.dropout > 0)
        self.anneal(step, self.config.epochs)
        with step.dropout(seed):
            batch = (tokens_BT, tokens_BT != self.task.vocab_size)
            numbers, _ = self.descend([self.mle_optimizer], batch, self.objective, dropout=True)
        self.update_average(step)
        return {"loss": numbers["loss"]}

    def texts(self, seed: int, real_BT: Tensor) -> Tensor:
        """Texts whose prefixes are learnt at, int64 (B, T): real ones, or as many of the teacher or the student."""
        from textgan_env.rewards import Keys, generate

        if self.config.texts == "real":
            return real_BT.to(self.policy.device)
        author = self.teacher if self.config.divergence == "forward" else self.policy
        keys = Keys.counted(seed, len(real_BT), device=self.policy.device)
        return generate(author, keys, self.task.max_length, end_token=self.task.end_token)[0]

    def objective(self, tokens_BT: Tensor, mask_BT: Tensor) -> dict[str, Sum]:
        """The divergence in nats, with its gradient, and what makes a mean of it: tokens, or T for each text.

        Args:
            tokens_BT: int64, PAD after the end.
            mask_BT: bool; the tokens of the texts.
        """
        from textgan_env.ops.losses import baseline, policy_gradient_sum
        from textgan_env.training.divergence import prefix_kl

        forward = self.config.divergence == "forward"
        total, kl_BT = prefix_kl(self.policy, self.teacher, tokens_BT, mask_BT, forward=forward)
        if forward:
            return {"loss": (total, mask_BT.sum().clamp(min=1))}
        later_BT = kl_BT.flip(1).cumsum(1).flip(1) - kl_BT
        advantage_BT = baseline("leave-one-out", later_BT, mask_BT) - later_BT
        met, _ = policy_gradient_sum(self.policy.log_prob(tokens_BT, mask_BT), advantage_BT, mask_BT)
        # Which prefixes are met has a gradient, but its value is no divergence.
        return {"loss": (total + met - met.detach(), float(mask_BT.numel()))}


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(Distill, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
