"""The two readings of LeakGAN's goals, each in one place: the paper's, and that of its published code."""

from __future__ import annotations

import torch
from torch import Tensor

from textgan_env.ops.losses import masked_mean
from textgan_env.policies.manager_worker import (
    Worker,
    block_cosines,
    block_reward,
    block_sum,
    intrinsic_reward,
    manager_cosines,
)


class PaperGoals:
    """Every position has a goal, which holds for the next c tokens (Guo et al. 2018).

    Args:
        worker: Has the goal that stands for those before the first token.
        steps: c.
    """

    late = 0

    def __init__(self, worker: Worker, steps: int) -> None:
        self.worker, self.steps = worker, steps

    def cosines(self, features_BSF: Tensor, goals_BTF: Tensor) -> tuple[Tensor, Tensor]:
        """How well goals foretold the moves, float (B, K), and the position of the last token of each move, (K,)."""
        cosines_BK = manager_cosines(features_BSF, goals_BTF, self.steps)
        return cosines_BK, torch.arange(cosines_BK.shape[1], device=goals_BTF.device) + self.steps - 1

    def worker_reward(self, features_BSF: Tensor, goals_BTF: Tensor) -> Tensor:
        """What the Worker is paid for each token, float (B, T)."""
        return intrinsic_reward(features_BSF, goals_BTF, self.steps)

    def shared_reward(self, reward_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """What is learnt from: each token's own reward."""
        return reward_BT

    def manager_loss(
        self, credit_BK: Tensor, cosines_BK: Tensor, known_BK: Tensor, rows: slice, rollouts: int
    ) -> Tensor:
        """These rows' share of minus the mean of Q times cosine."""
        return -masked_mean(credit_BK[rows] * cosines_BK, known_BK[rows], known_BK)

    def positions(self, max_length: int, every: int, generator: torch.Generator) -> list[int]:
        """The last tokens of the prefixes whose Q is asked for: of moves that begin at every ``every``-th t."""
        offset = int(torch.randint(every, (), generator=generator)) % (max_length - self.steps + 1)
        return list(range(self.steps - 1 + offset, max_length, every))


class ReferenceGoals(PaperGoals):
    """Goals are summed in blocks of c positions, and a sum holds for the next block: LeakGAN's published code."""

    late = 1

    def _sums(self, goals_BTF: Tensor) -> Tensor:
        return block_sum(goals_BTF, self.worker.goal_before().detach(), self.steps, self.late)

    def cosines(self, features_BSF: Tensor, goals_BTF: Tensor) -> tuple[Tensor, Tensor]:
        """As in the paper, of blocks."""
        cosines_BK = block_cosines(features_BSF, self._sums(goals_BTF), self.steps)
        return cosines_BK, (torch.arange(cosines_BK.shape[1], device=goals_BTF.device) + 1) * self.steps - 1

    def worker_reward(self, features_BSF: Tensor, goals_BTF: Tensor) -> Tensor:
        """As in the paper, of blocks."""
        return block_reward(features_BSF, self._sums(goals_BTF), self.steps)

    def shared_reward(self, reward_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """The batch's mean, for every token."""
        return masked_mean(reward_BT, mask_BT).expand_as(reward_BT)

    def manager_loss(
        self, credit_BK: Tensor, cosines_BK: Tensor, known_BK: Tensor, rows: slice, rollouts: int
    ) -> Tensor:
        """The published code divides the rewards by N once more, and a mean over everything meets another."""
        cosine = masked_mean(cosines_BK, known_BK[rows], known_BK)
        return -masked_mean(credit_BK, known_BK) / rollouts * cosine

    def positions(self, max_length: int, every: int, generator: torch.Generator) -> list[int]:
        """The last token of every block."""
        return list(range(self.steps - 1, max_length, self.steps))


#: By the name of the variant.
GOALS: dict[str, type[PaperGoals]] = {"paper": PaperGoals, "reference": ReferenceGoals}
