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
from torch.nn import functional

from textgan_env.discriminators import Discriminator, score_completions, score_logits, score_token_logits
from textgan_env.ops.parallel import by_rows
from textgan_env.ops.reward_kinds import TRANSFORMS, PrecisionName
from textgan_env.ops.sampling import evaluating
from textgan_env.ops.tiles import numbers_of
from textgan_env.policies.base import Policy, PolicyModule
from textgan_env.rewards.intervals import next_column, q_tokens
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

    With an interval k above 1 only each k-th token and the last have a Q of their own, for 1/k of the completions; the
    tokens between are given that of the next, gamma^s of it s tokens on. Where the policy that completes is the one
    that generates, the policy gradient stays without bias: the tokens up to the next Q are one more sample of what the
    policy would have completed. The variance of a token's credit grows by (1 - 1/N) Var(next Q | the text up to the
    token). Another policy's completions are k tokens shorter then, so they say less of that policy. Interpolating
    between the Q before and after a token would have a bias: see docs/seqgan.md.

    Args:
        policy: Completes the texts.
        discriminator: D.
        transform: f, a name of `TRANSFORMS`.
        rollouts: N.
        gamma: Discount: a completion counts gamma^k R when it ends k tokens after this one.
        interval: Tokens from one Q to the next.
        precision: What D's scores of completions are computed in, see `score_completions`; a finished text's own score
            is always float32.

    Raises:
        InputError: If the name is unknown, N or the interval is below 1, gamma is out of range, or policy and D speak
            of different vocabularies.
    """

    policy: Policy
    discriminator: Discriminator
    transform: str = "prob"
    rollouts: int = 16
    gamma: float = 1.0
    interval: int = 1
    precision: PrecisionName = "float32"

    def __post_init__(self) -> None:
        """Check names and sizes."""
        require_known("reward transform", self.transform, TRANSFORMS)
        check_gamma(self.gamma)
        require_at_least(1, rollouts=self.rollouts, interval=self.interval)
        writes, reads = self.policy.vocab_size, self.discriminator.vocab_size
        require(writes == reads, f"the rollout policy writes V={writes} tokens, but the discriminator reads V={reads}")

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """Q of the wanted tokens, float32 (B, T).

        Raises:
            InputError: If a token's next Q is that of a prefix which is not generated yet.
        """
        next_BT, length = next_column(q_tokens(texts, self.interval)), wanted_BT.shape[1]
        behind = "the newest tokens of an unfinished text have no Q yet: ask at every"
        known = self.interval == 1 or bool((next_BT < length)[wanted_BT].all())
        require(known, f"{behind} {self.interval}-th token, and at the end")
        next_BT = next_BT.clamp(max=length - 1)
        asked_BT = torch.zeros_like(next_BT).scatter_add_(1, next_BT, wanted_BT.long()) > 0
        q_BT = _by_rows(lambda some, mask_BT: self.estimate(some, mask_BT).q_BT, texts, asked_BT)
        ahead_BT = next_BT - torch.arange(length, device=next_BT.device)
        credit_BT = q_BT.gather(1, next_BT) * self.gamma ** ahead_BT.clamp(min=0) * wanted_BT
        return _compared(self.transform, credit_BT, wanted_BT)

    def estimate(self, texts: Texts, wanted_BT: Tensor) -> Estimate:
        """Q of the wanted tokens, each text by itself, and the completions behind it."""
        final_BT = wanted_BT & texts.last_BT
        # A prefix of p tokens ends with the token in column p - 1.
        prefixes_BT = (wanted_BT & ~final_BT).roll(1, dims=1)
        of_batch = partial(complete, self.policy, texts.tokens_BT, prefixes_BT, keys=texts.keys)
        done = of_batch(rollouts=self.rollouts, end_token=texts.end_token)
        final_row_F = numbers_of(final_BT.any(1))
        reward_R, final_F = map(self._reward, self._score(done, texts.tokens_BT[final_row_F], texts.end_token))
        return_R = reward_R * self.gamma ** (done.lengths_R - done.prefix_R)
        q_BT = torch.zeros_like(wanted_BT, dtype=torch.float32)
        row_R, column_R = done.row_R[:: self.rollouts], done.prefix_R[:: self.rollouts] - 1
        q_BT[row_R, column_R] = return_R.view(-1, self.rollouts).mean(1)
        final_B = torch.zeros_like(q_BT[:, 0]).index_copy(0, final_row_F, final_F)
        q_BT = torch.where(final_BT, final_B[:, None], q_BT)
        return Estimate(q_BT, done, reward_R)

    def _reward(self, logits_R: Tensor) -> Tensor:
        """R = f(logit), float32 (R,)."""
        return TRANSFORMS[self.transform](logits_R).float()

    def _score(self, done: Completions, final_FT: Tensor, end_token: int | None) -> tuple[Tensor, Tensor]:
        """D's logits of the completions, float (R,), and of texts that are finished, float (F,).

        Where texts end early, many completions of a likely sentence are equal, and what follows most prefixes is short:
        a costly D scores each text once, as a whole. Where none does, few are equal: the completions of a prefix share.
        """
        score = partial(score_completions, self.discriminator, precision=self.precision)
        each_once = end_token is not None and getattr(self.discriminator, "costly", False)
        # On a GPU one call is faster than two, and is waited for once.
        together = not done.tokens_RT.is_cpu and self.precision == "float32"
        texts_XT = torch.cat([done.tokens_RT, final_FT]) if together else done.tokens_RT
        if each_once:
            texts_UT, place_X = torch.unique(texts_XT, dim=0, return_inverse=True)
            logits_X = score(texts_UT[:, None], torch.zeros_like(texts_UT[:, 0]))[place_X, 0]
        elif together:
            logits_X = score_logits(self.discriminator, texts_XT)
        else:
            texts_GNT = texts_XT.view(-1, self.rollouts, texts_XT.shape[1])
            logits_X = score(texts_GNT, done.prefix_R[:: self.rollouts]).flatten()
        if together or not len(final_FT):
            return logits_X[: len(done.tokens_RT)], logits_X[len(done.tokens_RT) :]
        # Few rows: a whole tile would cost as much as the completions of a token.
        return logits_X, score_logits(self.discriminator, final_FT, tile=32)


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
        require_known("reward transform", self.transform, TRANSFORMS)
        check_gamma(self.gamma)

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """R at the wanted tokens, float32 (B, T); raises InputError if one belongs to an unfinished text."""
        asked_B = wanted_BT.any(1)
        require(
            bool((texts.ended_B | ~asked_B).all()), "the reward of a whole text is not known before the text has ended"
        )
        credit_BT = _by_rows(self._of_each, texts, wanted_BT)
        return _compared(self.transform, credit_BT, wanted_BT)

    def _of_each(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """R by the texts alone, float32 (B, T)."""
        asked_R = numbers_of(wanted_BT.any(1))
        logits_R = score_logits(self.discriminator, texts.tokens_BT[asked_R])
        reward_B = torch.zeros_like(texts.lengths_B, dtype=torch.float32)
        reward_B.index_copy_(0, asked_R, TRANSFORMS[self.transform](logits_R).float())
        after_BT = texts.lengths_B[:, None] - 1 - torch.arange(wanted_BT.shape[1], device=wanted_BT.device)
        return reward_B[:, None] * self.gamma ** after_BT.clamp(min=0) * wanted_BT


@dataclass(frozen=True)
class DenseCredit:
    """What each token is paid by a D that scores every prefix, and what later tokens are still to be paid.

    ScratchGAN (de Masson d'Autume et al. 2019, section 2.2): r_t = f(D(y_1..y_t)), with f = 2D - 1 there, and the
    credit of token t is the sum over s >= t of gamma^(s - t) r_s, with gamma .23.

    Args:
        discriminator: D, with a ``token_logits`` beside its ``logits``.
        transform: f, a name of `TRANSFORMS`.
        gamma: Discount of what later tokens are paid; 0: each token has its own reward only.

    Raises:
        InputError: If the name is unknown, or gamma out of range.
    """

    discriminator: Discriminator
    transform: str = "2p-1"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Check name and number."""
        require_known("reward transform", self.transform, TRANSFORMS)
        check_gamma(self.gamma)

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """Credit to go as far as the texts go, float32 (B, T)."""
        return _compared(self.transform, _by_rows(self._of_each, texts, wanted_BT), wanted_BT)

    def _of_each(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """The same by each text alone."""
        paid_BT = TRANSFORMS[self.transform](score_token_logits(self.discriminator, texts.tokens_BT)) * texts.mask_BT
        return to_go(paid_BT, self.gamma) * wanted_BT


@dataclass(frozen=True)
class KLCredit:
    """Minus the KL divergence from a reference policy, as it is still to come, times a weight.

    Token t pays ``weight * (log G(y_t | s_t) - log G_ref(y_t | s_t))``; its credit sums what t and all later tokens
    pay. Keeps a policy near the one it started from (Jaques et al. 2017). Both are read at the temperature that the
    texts were generated at: a G at 1.5 that equals its reference at 1 would be pulled away from it.

    Args:
        policy: G, the policy that generated the texts.
        reference: G_ref, at G's temperature (`PolicyModule.at_temperature`).
        weight: Reward units per nat.
        gamma: Discount of what later tokens pay.

    Raises:
        InputError: If a number is out of range, or the two policies have different vocabularies or temperatures.
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
        modules = [one for one in (self.policy, self.reference) if isinstance(one, PolicyModule)]
        found = list(dict.fromkeys(module.decoding.temperature for module in modules))
        advice = "reference.at_temperature(...) reads the reference as G generates"
        require(len(found) < 2, f"KL needs policy and reference at one temperature, found {found}: {advice}")

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        """Minus the KL to go at the wanted tokens, float32 (B, T); raises InputError if a text is unfinished."""
        paid_BT = _log_prob(self.policy, texts) - _log_prob(self.reference, texts)
        return -self.weight * to_go(paid_BT, self.gamma) * wanted_BT


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
        return -self.weight * to_go(_log_prob(self.policy, texts), self.gamma) * wanted_BT


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


def to_go(paid_BT: Tensor, gamma: float) -> Tensor:
    """What each token and, discounted, all later ones pay; float32 (B, T).

    Args:
        paid_BT: float; 0 after the end.
        gamma: Discount for each token from one to the other.
    """
    to_go_TB = [torch.zeros_like(paid_BT[:, 0])]
    for paid_B in reversed(paid_BT.unbind(1)):
        to_go_TB.append(paid_B + gamma * to_go_TB[-1])
    return torch.stack(to_go_TB[:0:-1], dim=1).float()


def rank_rescaled(credit_BT: Tensor, mask_BT: Tensor, delta: float = 16.0) -> Tensor:
    """Bootstrapped rescaled activation: each column's credits replaced by a fixed function of their rank.

    ``sigmoid(delta * (0.5 - (rank - 0.5) / n))``, rank 1 for the best of the n texts that reach this column; ties share
    the mean of the values at their ranks. LeakGAN (Guo et al. 2018), section "Bootstrapped Rewards", has ``rank / B``:
    all its B texts have T tokens, and the mean is 0.5 - 1/(2B) or so. Where texts end early that would pay for the
    number of texts left (the last one alone .0003): half a rank less makes the mean 0.5 in every column. The published
    code numbers the rewards without sorting them.

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
    above_BT, equal_BT = above_BBT.sum(1), equal_BBT.sum(1)
    ranks_B1 = torch.arange(1, len(credit_BT) + 1, device=credit_BT.device, dtype=torch.float64)[:, None]
    values_BT = torch.sigmoid(delta * (0.5 - (ranks_B1 - 0.5) / mask_BT.sum(0).clamp(min=1)))
    # The sum of the values at the first r ranks, r = 0 to B: ties hold the ranks from above + 1 to above + equal.
    sums_BT = functional.pad(values_BT.cumsum(0), (0, 0, 1, 0))
    tied_BT = sums_BT.gather(0, above_BT + equal_BT) - sums_BT.gather(0, above_BT)
    return (tied_BT / equal_BT.clamp(min=1)).float() * mask_BT


def check_gamma(gamma: float) -> None:
    """Refuse a discount that is not between 0 and 1.

    Raises:
        InputError: If it is not.
    """
    require(0 <= gamma <= 1, f"gamma must be 0 to 1, found {gamma}")
