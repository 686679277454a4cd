"""LeakGAN's goals, each reading in one place: the paper's, and that of its published code.

A reading says how the goals set so far become what the Worker is given at a position, and what Manager and Worker learn
from. ``steps`` is c, the tokens in which a goal is to be reached; k numbers of a goal reach the Worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from textgan_env.ops.losses import baseline, masked_mean, masked_sum, nll_sum, policy_gradient_sum
from textgan_env.ops.parallel import Sum, by_rows
from textgan_env.policies import manager_worker

if TYPE_CHECKING:
    from textgan_env.policies.leaked import LeakedPolicy


class PaperGoals:
    """Every position has a goal, which holds for the next c tokens (Guo et al. 2018).

    Args:
        worker: Has the goal that stands for those before the first token.
        steps: c.
    """

    #: How many positions later than they are used goals are learnt from, see `block_sum`.
    late = 0
    #: What is usual of the options ``--baseline`` and ``--end-reward``.
    usual = ("leave-one-out", "none")

    def __init__(self, worker: manager_worker.Worker, steps: int) -> None:
        self.worker, self.steps = worker, steps

    # What the policy asks.
    def begin(self, batch_size: int) -> Tensor:
        """The embedded goals before the first token, the last c of them, float (B, c, k)."""
        return self.worker.first().expand(batch_size, self.steps, -1)

    def current(self, goals_BXk: Tensor) -> Tensor:
        """The embedded goal that the Worker is given now, float (B, k)."""
        return goals_BXk.sum(1)

    def next(self, goals_BXk: Tensor, goal_B1k: Tensor, position_B: Tensor) -> Tensor:
        """What to keep for the next position, after the goal of this one: as `begin`."""
        return torch.cat([goals_BXk[:, 1:], goal_B1k], dim=1)

    def in_time(self, max_length: int) -> int:
        """How many positions set goals that still reach a token: all but the last."""
        return max_length - 1

    def given(self, goals_BTk: Tensor, late: int = 0) -> Tensor:
        """The embedded goal that the Worker is given at each position, float (B, T, k)."""
        return manager_worker.sliding_sum(goals_BTk, self.worker.first(), self.steps)

    def scaled(self, goals: Tensor) -> Tensor:
        """An embedded goal (..., k) as the Worker uses it."""
        return goals

    # What the agent asks.
    def positions(self, max_length: int, interval: int, generator: torch.Generator) -> list[int]:
        """The last tokens of the prefixes whose Q is asked for: of moves that begin at every ``interval``-th t."""
        offset = int(torch.randint(interval, (), generator=generator)) % (max_length - self.steps + 1)
        return list(range(self.steps - 1 + offset, max_length, interval))

    def ends(self, max_length: int) -> slice:
        """The last token of each move, K of them."""
        return slice(self.steps - 1, max_length)

    def cosines(self, features_BSF: Tensor, goals_BTF: Tensor) -> Tensor:
        """How well each move went where its goal pointed, float (B, K)."""
        return manager_worker.manager_cosines(features_BSF, goals_BTF, self.steps)

    def worker_reward(self, features_BSF: Tensor, goals_BTF: Tensor) -> Tensor:
        """What the Worker is paid for each token, float (B, T)."""
        return manager_worker.intrinsic_reward(features_BSF, goals_BTF, self.steps)

    def paid(self, policy: LeakedPolicy, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """D's features of the prefixes, float (B, T + 1, F), and what each token is paid, float (B, T)."""
        features_BSF = policy.prefix_features(tokens_BT)
        return features_BSF, self.worker_reward(features_BSF, policy.goals(features_BSF))

    def shared_reward(self, reward_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """What the Worker learns from: each token's own reward."""
        return reward_BT

    def manager_weights(self, credit_BK: Tensor, known_BK: Tensor, rollouts: int) -> Mapping[str, float]:
        """What the Manager minimises: name of a mean of `generated_sums` -> weight."""
        return {"manager_loss": 1.0}

    def real_text_sums(
        self, policy: LeakedPolicy, tokens_BT: Tensor, written_BT: Tensor, scored_BT: Tensor
    ) -> dict[str, Sum]:
        """What both learn from real text.

        Args:
            policy: Manager and Worker.
            tokens_BT: int64.
            written_BT: bool; tokens, not PAD.
            scored_BT: bool; those whose likelihood counts.

        Returns:
            ``loss``, the Worker's negative log-likelihood, and ``manager_cosine`` of goals with where the text went.
        """
        features_BSF = policy.prefix_features(tokens_BT)
        goals_BTF = policy.goals(features_BSF)
        logp_BT = policy.worker_log_prob(tokens_BT, scored_BT, goals_BTF, late=self.late)
        known_BK = written_BT[:, self.ends(tokens_BT.shape[1])]
        cosine = masked_sum(self.cosines(features_BSF, goals_BTF), known_BK)
        return {"loss": nll_sum(logp_BT, scored_BT), "manager_cosine": cosine}

    def columns(
        self,
        policy: LeakedPolicy,
        tokens_BT: Tensor,
        mask_BT: Tensor,
        credit_BT: Tensor,
        positions: Sequence[int],
        less: str,
        end_reward: str,
    ) -> tuple[list[Tensor], Tensor]:
        """What both learn from of generated texts.

        Args:
            policy: Manager and Worker.
            tokens_BT: int64.
            mask_BT: bool; the tokens generated.
            credit_BT: float; Q.
            positions: Where Q is known.
            less: What is taken off the Worker's reward, a name of `baseline`.
            end_reward: What ending learns from; with ``q`` there is a column more.

        Returns:
            What `generated_sums` takes, and what each token is paid, float (B, T).
        """
        features_BSF, reward_BT = by_rows(partial(self.paid, policy), tokens_BT)
        reward_BT = self.shared_reward(reward_BT, mask_BT)
        advantage_BT = reward_BT - baseline(less, reward_BT, mask_BT)
        known_BT = torch.zeros_like(mask_BT)
        for position in positions:  # a list as an index would have to be brought to the device
            known_BT[:, position] = mask_BT[:, position]
        ends_K = self.ends(tokens_BT.shape[1])
        columns = [tokens_BT, mask_BT, features_BSF, advantage_BT, credit_BT[:, ends_K], known_BT[:, ends_K]]
        if end_reward == "q":
            # A text that is alone in its column cannot be compared.
            several_BT = known_BT & (known_BT.sum(0) > 1)
            columns.append((credit_BT - baseline("leave-one-out", credit_BT, known_BT)) * several_BT)
        return columns, reward_BT

    def generated_sums(
        self,
        policy: LeakedPolicy,
        tokens_BT: Tensor,
        mask_BT: Tensor,
        features_BSF: Tensor,
        advantage_BT: Tensor,
        credit_BK: Tensor,
        known_BK: Tensor,
        end_advantage_BT: Tensor | None = None,
        *,
        end_token: int | None = None,
    ) -> dict[str, Sum]:
        """What both learn from generated texts: the one's loss has no gradient for the other, neither has one for D.

        Args:
            policy: Manager and Worker.
            tokens_BT: int64.
            mask_BT: bool; the tokens generated.
            features_BSF: float; D's features of the prefixes.
            advantage_BT: float; the Worker's.
            credit_BK: float; Q at the last token of each move.
            known_BK: bool; where it is known.
            end_advantage_BT: float; that of ending or going on; None: neither becomes more probable.
            end_token: The token that ends texts, if ending is a decision apart; None: it is a token like all.

        Returns:
            ``manager_loss``, ``manager_cosine`` of moves and goals, and ``worker_loss``.
        """
        goals_BTF = policy.goals(features_BSF)
        cosines_BK = self.cosines(features_BSF, goals_BTF)
        log_prob = partial(policy.worker_log_prob, tokens_BT, goals_BTF=goals_BTF, late=self.late)
        loss, cosine = masked_sum(-credit_BK * cosines_BK, known_BK), masked_sum(cosines_BK, known_BK)
        # G(y | s) is the probability of going on times that of the word among all words. The reward of words teaches
        # the second factor: for the features an end is another move than a word, so one of the two would be paid more.
        if end_token is None:
            of_worker = policy_gradient_sum(log_prob(mask_BT), advantage_BT, mask_BT)
        else:
            word_BT = mask_BT & (tokens_BT != end_token)
            words_BT = log_prob(word_BT, given_not=end_token)
            of_worker = policy_gradient_sum(words_BT, advantage_BT, word_BT)
            if end_advantage_BT is not None:
                of_ends, _ = policy_gradient_sum(log_prob(mask_BT) - words_BT, end_advantage_BT, mask_BT)
                of_worker = of_worker[0] + of_ends, of_worker[1]
        return {"manager_loss": loss, "manager_cosine": cosine, "worker_loss": of_worker}


class ReferenceGoals(PaperGoals):
    """Goals are summed in blocks of c positions, and a sum holds for the next block: LeakGAN's published code."""

    late = 1
    usual = ("none", "intrinsic")

    def begin(self, batch_size: int) -> Tensor:
        """The sum that holds and the sum that grows, float (B, 2, k)."""
        first_k = self.worker.first()
        return torch.stack([first_k, torch.zeros_like(first_k)]).expand(batch_size, 2, -1)

    def current(self, goals_BXk: Tensor) -> Tensor:
        """The sum that holds."""
        return goals_BXk[:, 0]

    def next(self, goals_BXk: Tensor, goal_B1k: Tensor, position_B: Tensor) -> Tensor:
        """The sum grows; at the end of a block it takes the place of the one that held."""
        holds_B1k, grown_B1k = goals_BXk[:, :1], goals_BXk[:, 1:] + goal_B1k
        full_B11 = ((position_B + 1) % self.steps == 0)[:, None, None]
        return torch.cat([torch.where(full_B11, grown_B1k, holds_B1k), grown_B1k.masked_fill(full_B11, 0.0)], dim=1)

    def in_time(self, max_length: int) -> int:
        """All before the last block."""
        return (max_length - 1) // self.steps * self.steps

    def given(self, goals_BTk: Tensor, late: int = 0) -> Tensor:
        """The sum of the block before, see `block_sum`."""
        return manager_worker.block_sum(goals_BTk, self.worker.first(), self.steps, late)

    def scaled(self, goals: Tensor) -> Tensor:
        """Scaled to length 1."""
        return functional.normalize(goals, dim=-1)

    def positions(self, max_length: int, interval: int, generator: torch.Generator) -> list[int]:
        """The last token of every block."""
        return list(range(self.steps - 1, max_length, self.steps))

    def ends(self, max_length: int) -> slice:
        """The last token of each block."""
        return slice(self.steps - 1, max_length, self.steps)

    def cosines(self, features_BSF: Tensor, goals_BTF: Tensor) -> Tensor:
        """The paper's, taken over blocks."""
        return manager_worker.block_cosines(features_BSF, self._sums(goals_BTF), self.steps)

    def worker_reward(self, features_BSF: Tensor, goals_BTF: Tensor) -> Tensor:
        """The paper's, taken over blocks."""
        return manager_worker.block_reward(features_BSF, self._sums(goals_BTF), self.steps)

    def shared_reward(self, reward_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """The batch's mean, for every token."""
        return masked_mean(reward_BT, mask_BT).expand_as(reward_BT)

    def manager_weights(self, credit_BK: Tensor, known_BK: Tensor, rollouts: int) -> Mapping[str, float]:
        """The published code divides the rewards by N once more, and multiplies their mean with that of the cosines."""
        return {"manager_cosine": float(-masked_mean(credit_BK, known_BK) / rollouts)}

    def _sums(self, goals_BTF: Tensor) -> Tensor:
        """The goals as sums of blocks, float (B, T, F)."""
        return manager_worker.block_sum(goals_BTF, self.worker.goal_before().detach(), self.steps, self.late)


#: By the name of the variant.
GOALS: dict[str, type[PaperGoals]] = {"paper": PaperGoals, "reference": ReferenceGoals}
