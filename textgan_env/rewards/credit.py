"""Where credit comes from: completions judged by the discriminator, the whole text's score, KL, and the controls.

Credit is what a token is worth from here to the end. It is a return to go, so credits of several sources add up, and
adding one source up over the tokens of a text would count it again and again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from textgan_env.discriminators import Discriminator, score_logits
from textgan_env.ops.parallel import by_rows
from textgan_env.ops.reward_kinds import TRANSFORMS
from textgan_env.ops.sampling import Stream, derived_generator, evaluating, keyed_uniform
from textgan_env.policies.base import Policy
from textgan_env.rewards.rollouts import Completions, complete, for_texts
from textgan_env.rewards.texts import Texts
from textgan_env.utils.errors import require, require_at_least, require_known


class CreditSource(Protocol):
    """Says what tokens are worth."""

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """Credit to go of some tokens.

        Args:
            texts: The batch.
            wanted_BT: bool; the tokens asked about, all of them generated.

        Returns:
            credit_BT: float32; 0 where not wanted.
        """


@dataclass(frozen=True)
class Estimate:
    """Q of some tokens, and the completions behind it.

    Attributes:
        q_BT: float32; the mean of the completions' discounted rewards, R itself at the last token; 0 where not wanted.
        completions: R of them, N for each token that is not the last of its text.
        reward_R: float32; R = f(D(text)) of each completion.
    """

    q_BT: Tensor
    completions: Completions
    reward_R: Tensor


@dataclass(frozen=True)
class RolloutCredit:
    """Q(prefix, token): the mean of R = f(D(text)) over N completions by the policy; R itself at the last token.

    SeqGAN (Yu et al. 2017) eq. 4. f and the logit are taken text by text, before the mean.

    Args:
        policy: Completes the texts.
        discriminator: D.
        transform: f, a name of `TRANSFORMS`.
        rollouts: N.
        gamma: Discount: a completion counts gamma^k R when it ends k tokens after this one.

    Raises:
        InputError: If the name is unknown, N is below 1, gamma is out of range, or policy and D speak of different
            vocabularies.
    """

    policy: Policy
    discriminator: Discriminator
    transform: str = "prob"
    rollouts: int = 16
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Check names and sizes."""
        check_transform(self.transform)
        check_gamma(self.gamma)
        require_at_least(1, rollouts=self.rollouts)
        writes, reads = self.policy.vocab_size, self.discriminator.vocab_size
        require(writes == reads, f"the rollout policy writes V={writes} tokens, but the discriminator reads V={reads}")

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """Q of the wanted tokens, float32 (B, T)."""
        credit_BT = _by_rows(lambda some, mask_BT: self.estimate(some, mask_BT).q_BT, texts, wanted_BT)
        return _compared(self.transform, credit_BT, wanted_BT)

    def estimate(self, texts: Texts, wanted_BT: Tensor) -> Estimate:
        """Q of the wanted tokens, each text by itself, and the completions behind it."""
        final_BT = wanted_BT & texts.last_BT
        # A prefix of p tokens ends with the token in column p - 1.
        prefixes_BT = (wanted_BT & ~final_BT).roll(1, dims=1)
        of_batch = partial(complete, self.policy, texts.tokens_BT, prefixes_BT, keys=texts.keys)
        done = of_batch(rollouts=self.rollouts, end_token=texts.end_token)
        final_row_R = final_BT.nonzero()[:, 0]
        logits_R = score_logits(self.discriminator, torch.cat([done.tokens_RT, texts.tokens_BT[final_row_R]]))
        reward_R, final_R = TRANSFORMS[self.transform](logits_R).float().tensor_split([len(done.row_R)])
        return_R = reward_R * self.gamma ** (done.lengths_R - done.prefix_R)
        q_BT = torch.zeros_like(wanted_BT, dtype=torch.float32)
        row_R, column_R = done.row_R[:: self.rollouts], done.prefix_R[:: self.rollouts] - 1
        q_BT[row_R, column_R] = return_R.view(-1, self.rollouts).mean(1)
        q_BT[final_BT] = final_R
        return Estimate(q_BT, done, reward_R)


@dataclass(frozen=True)
class TextCredit:
    """R = f(D(text)) of the finished text, at each of its tokens: no completions, more variance.

    Args:
        discriminator: D.
        transform: f, a name of `TRANSFORMS`.
        gamma: Discount: R counts gamma^k at the token that k others follow.

    Raises:
        InputError: If the name is unknown or gamma out of range.
    """

    discriminator: Discriminator
    transform: str = "prob"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Check name and number."""
        check_transform(self.transform)
        check_gamma(self.gamma)

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """R at the wanted tokens, float32 (B, T); raises InputError if one belongs to an unfinished text."""
        asked_B = wanted_BT.any(1)
        require(bool(texts.ended_B[asked_B].all()), "the reward of a whole text is not known before the text has ended")
        credit_BT = _by_rows(self._of_each, texts, wanted_BT)
        return _compared(self.transform, credit_BT, wanted_BT)

    def _of_each(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """R by the texts alone, float32 (B, T)."""
        asked_B = wanted_BT.any(1)
        reward_B = torch.zeros_like(texts.lengths_B, dtype=torch.float32)
        logits_R = score_logits(self.discriminator, texts.tokens_BT[asked_B])
        reward_B[asked_B] = TRANSFORMS[self.transform](logits_R).float()
        after_BT = texts.lengths_B[:, None] - 1 - torch.arange(wanted_BT.shape[1], device=wanted_BT.device)
        return reward_B[:, None] * self.gamma ** after_BT.clamp(min=0) * wanted_BT


@dataclass(frozen=True)
class KLCredit:
    """Minus the KL divergence from a reference policy, as it is still to come, times a weight.

    Token t pays ``weight * (log G(y_t | s_t) - log G_ref(y_t | s_t))``; its credit sums what t and all later tokens
    pay. Keeps a policy near the one it started from (Jaques et al. 2017).

    Args:
        policy: G, the policy that generated the texts.
        reference: G_ref.
        weight: Reward units per nat.
        gamma: Discount of what later tokens pay.

    Raises:
        InputError: If a number is out of range or the two policies have different vocabularies.
    """

    policy: Policy
    reference: Policy
    weight: float
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Check numbers and sizes."""
        check_gamma(self.gamma)
        require_at_least(0, weight=self.weight)
        ours, theirs = self.policy.vocab_size, self.reference.vocab_size
        require(ours == theirs, f"policy and reference must write one vocabulary, found V={ours} and V={theirs}")

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """Minus the KL to go at the wanted tokens, float32 (B, T); raises InputError if a text is unfinished."""
        paid_BT = _log_prob(self.policy, texts) - _log_prob(self.reference, texts)
        return -self.weight * _to_go(paid_BT, self.gamma) * wanted_BT


@dataclass(frozen=True)
class EntropyCredit:
    """The entropy of the rest of the text, one sample of it: minus the weighted log-probability of what was generated.

    Token t pays ``-weight * log G(y_t | s_t)``; its credit sums what t and all later tokens pay. In expectation its
    policy gradient is that of the entropy of whole texts (maximum-entropy learning, Haarnoja et al. 2017).

    Args:
        policy: G, the policy that generated the texts.
        weight: Reward units per nat.
        gamma: Discount of what later tokens pay.

    Raises:
        InputError: If a number is out of range.
    """

    policy: Policy
    weight: float
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_gamma(self.gamma)
        require_at_least(0, weight=self.weight)

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """The entropy to go at the wanted tokens, float32 (B, T); raises InputError if a text is unfinished."""
        return -self.weight * _to_go(_log_prob(self.policy, texts), self.gamma) * wanted_BT


def _log_prob(policy: Policy, texts: Texts) -> Tensor:
    """Log-probability of each token, float (B, T), dropout off, without gradients."""
    require(bool(texts.ended_B.all()), "what is still to come is not known before the text has ended")
    with evaluating(policy), torch.no_grad():
        return _by_rows(
            lambda some, mask_BT: for_texts(policy, some.keys).log_prob(some.tokens_BT, mask_BT), texts, texts.mask_BT
        )


def _compared(transform: str, credit_BT: Tensor, wanted_BT: Tensor) -> Tensor:
    """Credit, or its rank among the texts where the transform compares them; float32 (B, T)."""
    return rank_rescaled(credit_BT, wanted_BT) if TRANSFORMS[transform].compares_rows else credit_BT


def _by_rows(of_each: Callable[[Texts, Tensor], Tensor], texts: Texts, mask_BT: Tensor) -> Tensor:
    """What ``of_each`` says of each text, float (B, T); processes that train together share the texts out."""
    return by_rows(lambda some, some_BT: (of_each(some, some_BT),), texts, mask_BT)[0]


def _to_go(paid_BT: Tensor, gamma: float) -> Tensor:
    """What each token and, discounted, all later ones pay; float32 (B, T)."""
    to_go_TB = [torch.zeros_like(paid_BT[:, 0])]
    for paid_B in reversed(paid_BT.unbind(1)):
        to_go_TB.append(paid_B + gamma * to_go_TB[-1])
    return torch.stack(to_go_TB[:0:-1], dim=1).float()


@dataclass(frozen=True)
class ConstantCredit:
    """1 for every token: a control. Whatever learning it causes, the discriminator had no part in it."""

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """1 at the wanted tokens, float32 (B, T)."""
        return wanted_BT.float()


@dataclass(frozen=True)
class RandomCredit:
    """A uniform random number between 0 and 1 for every token: a control."""

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """U(0, 1) at the wanted tokens, float32 (B, T), keyed like every other draw."""
        positions_T = torch.arange(wanted_BT.shape[1], device=wanted_BT.device)
        seed_B1, episode_B1 = texts.keys.seed_B[:, None], texts.keys.episode_B[:, None]
        return keyed_uniform(seed_B1, episode_B1, position=positions_T, stream=Stream.REWARD).float() * wanted_BT


@dataclass(frozen=True)
class ShuffledCredit:
    """The credit of another text: whole rows of a source, permuted once a batch. A control.

    It keeps the values and how they run along a text, and takes away what they say about this one. A text longer than
    the one whose credit it is given keeps that one's last value to its end: 0 would punish length.

    Args:
        source: Whose rows are permuted.
    """

    source: CreditSource

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """Permuted credit at the wanted tokens, float32 (B, T).

        Raises:
            InputError: If there is only one row.
        """
        rows = len(wanted_BT)
        require(rows >= 2, "the shuffled control needs at least 2 texts side by side, found 1")
        seed, episode = int(texts.keys.seed_B[0]), int(texts.keys.episode_B[0])
        order_B = torch.randperm(rows, generator=derived_generator(seed, "shuffled", episode)).to(wanted_BT.device)
        credit_BT = self.source.credit(texts, wanted_BT)
        last_B1 = credit_BT.gather(1, (texts.lengths_B[:, None] - 1).clamp(min=0))
        return torch.where(texts.mask_BT, credit_BT, last_B1)[order_B] * wanted_BT


def rank_rescaled(credit_BT: Tensor, mask_BT: Tensor, delta: float = 16.0) -> Tensor:
    """Bootstrapped rescaled activation: each column's credits replaced by a fixed function of their rank.

    ``sigmoid(delta * (0.5 - rank / B))``, rank 1 for the best, ties share their average rank, B the texts that reach
    this column. LeakGAN (Guo et al. 2018), section "Bootstrapped Rewards"; its published code numbers the rewards
    without sorting them.

    Args:
        credit_BT: float.
        mask_BT: bool; the cells that take part.
        delta: Steepness; 16 in the published code.

    Returns:
        float32 (B, T); 0 where the mask is False.

    Raises:
        InputError: If there is only one row.
    """
    require(len(credit_BT) >= 2, "the rank transform compares texts: it needs at least 2 side by side, found 1")
    above_BBT = (credit_BT[None] > credit_BT[:, None]) & mask_BT[None]
    equal_BBT = (credit_BT[None] == credit_BT[:, None]) & mask_BT[None]
    rank_BT = above_BBT.sum(1) + (equal_BBT.sum(1) + 1) / 2
    return torch.sigmoid(delta * (0.5 - rank_BT / mask_BT.sum(0).clamp(min=1))).float() * mask_BT


def check_gamma(gamma: float) -> None:
    """Refuse a discount that is not between 0 and 1.

    Raises:
        InputError: If it is not.
    """
    require(0 <= gamma <= 1, f"gamma must be 0 to 1, found {gamma}")


def check_transform(name: str) -> None:
    """Refuse a name that is not in `TRANSFORMS`.

    Raises:
        InputError: If it is not.
    """
    require_known("reward transform", name, TRANSFORMS)
