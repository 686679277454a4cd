"""Texts written by search, in proportion to what they are worth: weighed and drawn again, whole or while they grow."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from textgan_env.ops.losses import effective_sample_size, normalised_weights
from textgan_env.ops.sampling import Stream, keyed_uniform, systematic_sample
from textgan_env.policies.base import Policy, PolicyModule
from textgan_env.rewards.rollouts import complete, generate
from textgan_env.rewards.texts import Keys, Texts, have_ended
from textgan_env.utils.errors import require, require_at_least

#: Texts -> log of the weight of each, float (R,), up to a constant.
LogWeight = Callable[[Texts], Tensor]


def resample(
    policy: Policy,
    keys: Keys,
    max_length: int,
    log_weight: LogWeight,
    *,
    count: int,
    every: int | None = None,
    end_token: int | None = None,
) -> tuple[Texts, float]:
    """Write R texts and draw B of them again by weight: samples of ``G(y) w(y) / Z``, exact as R grows.

    With ``every``, sequential Monte Carlo (Doucet, de Freitas, Gordon 2001): each k tokens all R prefixes are drawn
    again, in proportion to what the newest tokens have added to their weights; those that promise nothing are dropped
    early. The weights of prefixes guide the search and change nothing in its target, as those of whole texts come last.

    Args:
        policy: G.
        keys: Of the draws, one for each of the R texts written.
        max_length: T.
        log_weight: Of whole texts, log w; with ``every``, also asked about texts that have not ended: best
            is the log of what w is expected to be (see `look_ahead`). Ended and unfinished texts come in one call.
        count: B, texts to draw.
        every: k; None: once, when the texts are whole.
        end_token: The token that ends a text before T tokens, or None.

    Returns:
        The B texts, and the smallest effective sample size of the weights over R.

    Raises:
        InputError: If k is below 1, or prefixes of a policy with a random initial state are to be drawn again.
    """
    every = max_length if every is None else every
    require_at_least(1, every=every, count=count)
    fixed = every >= max_length or not (isinstance(policy, PolicyModule) and policy.random_start)
    require(fixed, "prefixes that start from random states of their own cannot be drawn again: resample whole texts")
    tokens_RT = torch.full((len(keys), max_length), policy.vocab_size, device=keys.seed_B.device)
    length_R = torch.zeros_like(keys.seed_B)
    texts, before_R, shares = Texts(tokens_RT, length_R, length_R > 0, keys, end_token), torch.zeros(()), []
    for given in range(0, max_length, every):
        end = min(given + every, max_length)
        texts = _longer(policy, texts, given, end)
        now_R = log_weight(texts)
        weight_R = normalised_weights(now_R - before_R.to(now_R.device))
        shares.append(effective_sample_size(weight_R) / len(weight_R))
        uniform = keyed_uniform(keys.seed_B[0], keys.episode_B[0], position=end, stream=Stream.SEARCH)
        row_X = systematic_sample(weight_R, count if end == max_length else len(weight_R), uniform)
        texts, before_R = texts[row_X], now_R[row_X]
        if end < max_length:  # a row draws with its own key, else copies of a prefix would go on alike
            texts = Texts(texts.tokens_BT, texts.lengths_B, texts.ended_B, keys, end_token)
    return texts, min(shares)


def best_of(
    policy: Policy,
    keys: Keys,
    max_length: int,
    worth: LogWeight,
    *,
    proposals: int,
    end_token: int | None = None,
) -> Texts:
    """Of each M texts the one that is worth most: the first of them where several are.

    Its KL to the policy is at most ``log M - (M - 1) / M`` nats a text (Beirami et al. 2024); learnt round after round,
    it goes ever further.

    Args:
        policy: Writes.
        keys: Of the draws, one for each text written; M that stand side by side are compared.
        max_length: T.
        worth: Of whole texts.
        proposals: M, a divisor of the number of keys.
        end_token: The token that ends a text before T tokens, or None.

    Returns:
        The best texts.
    """
    tokens_RT, length_R = generate(policy, keys, max_length, end_token=end_token)
    texts = Texts.finished(tokens_RT, length_R, keys, end_token)
    best_B = worth(texts).view(-1, proposals).argmax(1)
    return texts[torch.arange(len(best_B), device=best_B.device) * proposals + best_B]


def _longer(policy: Policy, texts: Texts, given: int, end: int) -> Texts:
    """The texts, of which those that have not ended are written on to so many tokens."""
    columns_T = torch.arange(end, device=texts.tokens_BT.device)
    wanted_RT = (columns_T == given) & ~texts.ended_B[:, None]
    begun_RT, end_token = texts.tokens_BT[:, :end], texts.end_token
    done = complete(policy, begun_RT, wanted_RT, keys=texts.keys, end_token=end_token, stream=Stream.TEXT)
    tokens_RT, length_R = texts.tokens_BT.clone(), texts.lengths_B.index_copy(0, done.row_R, done.lengths_R)
    tokens_RT[done.row_R, :end] = done.tokens_RT
    return Texts(tokens_RT, length_R, have_ended(tokens_RT, length_R, end_token), texts.keys, end_token)


def look_ahead(policy: Policy, texts: Texts, log_weight: LogWeight, rollouts: int) -> Tensor:
    """Log of the weight that each text can be expected to have once it is whole, estimated by N completions.

    Args:
        policy: Completes.
        texts: R; some may have ended, and have their own weight.
        log_weight: Of whole texts.
        rollouts: N.

    Returns:
        float (R,): ``log mean_n w(completion n)``.
    """
    columns_T = torch.arange(texts.tokens_BT.shape[1], device=texts.tokens_BT.device)
    wanted_RT = (columns_T == texts.lengths_B[:, None]) & ~texts.ended_B[:, None]
    how: Any = {"keys": texts.keys, "rollouts": rollouts, "end_token": texts.end_token}
    done, ended_E = complete(policy, texts.tokens_BT, wanted_RT, **how), texts.ended_B.nonzero()[:, 0]
    tokens_XT = torch.cat([done.tokens_RT, texts.tokens_BT[ended_E]])
    length_X = torch.cat([done.lengths_R, texts.lengths_B[ended_E]])
    keys = texts.keys[torch.cat([done.row_R, ended_E])]
    log_X = log_weight(Texts.finished(tokens_XT, length_X, keys, texts.end_token))
    of_completions_X, of_ended_E = log_X.split([len(done.row_R), len(ended_E)])
    found_R = torch.empty_like(log_X[:1]).expand(len(texts)).clone()
    found_R[done.row_R[::rollouts]] = of_completions_X.view(-1, rollouts).logsumexp(1) - math.log(rollouts)
    found_R[ended_E] = of_ended_E
    return found_R
