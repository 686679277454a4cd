"""What an objective pays, and what it pays beside a discriminator."""

from dataclasses import dataclass

import torch
from torch import Tensor

from textgan_env.ops.torchrun import rank_and_size
from textgan_env.policies.base import Policy
from textgan_env.rewards.asked import AskedObjective
from textgan_env.rewards.credit import CreditSource, RolloutCredit, check_gamma
from textgan_env.rewards.texts import Texts
from textgan_env.utils.errors import require


@dataclass(frozen=True)
class ObjectiveCredit:
    """O(text) as a share of its range: of the finished text at each of its tokens, or the mean over N completions.

    Args:
        asked: The objective.
        gamma: Discount: O counts gamma^k at the token that k others follow.
        completing: Completes prefixes; None: O is asked about finished texts only.
        rollouts: N.
        interval: Tokens from one Q to the next, see `RolloutCredit`.

    Raises:
        InputError: If a number is out of its range.
    """

    asked: AskedObjective
    gamma: float = 1.0
    completing: Policy | None = None
    rollouts: int = 1
    interval: int = 1

    def __post_init__(self) -> None:
        """Check the number."""
        check_gamma(self.gamma)

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """O to go at the wanted tokens, float32 (B, T).

        Raises:
            InputError: If a wanted token belongs to an unfinished text, and nobody completes it; or as
                `AskedObjective.values`.
        """
        if self.completing is not None:
            alone = "an objective is asked about completions in one process: take --rollouts 0, or no torchrun"
            require(rank_and_size()[1] == 1, alone)
            reader = _Reader(self.asked, self.completing.vocab_size, texts.tokens_BT.shape[1])
            how = ("logit", self.rollouts, self.gamma, self.interval)
            return RolloutCredit(self.completing, reader, *how).credit(texts, wanted_BT)
        asked_B = wanted_BT.any(1)
        ended = bool((texts.ended_B | ~asked_B).all())
        require(ended, "what an objective says of a text is not known before the text has ended")
        paid_B = torch.zeros_like(texts.lengths_B, dtype=torch.float32)
        paid_B[asked_B] = self.asked.pays(texts.tokens_BT[asked_B]).float().to(paid_B.device)
        after_BT = texts.lengths_B[:, None] - 1 - torch.arange(wanted_BT.shape[1], device=wanted_BT.device)
        return paid_B[:, None] * self.gamma ** after_BT.clamp(min=0) * wanted_BT


@dataclass(frozen=True)
class _Reader:
    """An objective in the place of a discriminator, so that completions are scored as by one: its logit is O."""

    asked: AskedObjective
    vocab_size: int
    max_length: int
    feature_size: int = 1
    #: Completions of a likely sentence are often equal: each is asked about once, as a whole.
    costly: bool = True

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """O of each text, float32 (B,); 0 for the empty ones that fill up a tile."""
        filled_B = (tokens_BT != self.vocab_size).any(1)
        paid_B = torch.zeros(len(tokens_BT))
        paid_B[filled_B.cpu()] = self.asked.pays(tokens_BT[filled_B], repeats=False).float()
        return paid_B.to(tokens_BT.device)

    def features(self, tokens_BT: Tensor) -> Tensor:
        """The same, float32 (B, 1)."""
        return self.logits(tokens_BT)[:, None]


@dataclass(frozen=True)
class MixedCredit:
    """``(1 - w)`` of what D says and ``w`` of what the objective says: ORGAN (Guimaraes et al. 2017), lambda = 1 - w.

    Args:
        of_discriminator: Says what D says.
        of_objective: Says what the objective says.
        weight: w.
    """

    of_discriminator: CreditSource
    of_objective: CreditSource
    weight: float

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """The weighted sum at the wanted tokens, float32 (B, T)."""
        d_BT, o_BT = (source.credit(texts, wanted_BT) for source in (self.of_discriminator, self.of_objective))
        return (1 - self.weight) * d_BT + self.weight * o_BT
