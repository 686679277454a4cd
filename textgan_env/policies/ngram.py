"""Policies that count: uniform over the tokens, and n-grams with interpolated Witten-Bell smoothing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from textgan_env.policies.base import PolicyModule, State, number_ranges
from textgan_env.utils.errors import require, require_at_least
from textgan_env.utils.reading import check_weights

# Above every packed context, so that a search among the sorted keys always ends at one of them.
_NO_CONTEXT = 2**63 - 1


class UniformPolicy(PolicyModule):
    """Every token with the same probability: what a policy that knows nothing scores.

    Args:
        vocab_size: V.
        start_token: 0 to V; makes no difference.
        forbidden: Tokens that are never generated, such as UNK.

    Raises:
        InputError: If V is below 1 or a token out of range.
    """

    kind: ClassVar[str] = "uniform"

    def begin(self, batch_size: int) -> State:
        """Nothing to remember."""
        return ()

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Zeros."""
        return torch.zeros(len(tokens_B), self.vocab_size, device=tokens_B.device), state


class NGramPolicy(PolicyModule):
    """The next token given the n-1 before it, counted in a corpus.

    Interpolated Witten-Bell smoothing (Witten and Bell 1991, method C; in the recursive form of Chen and Goodman 1999,
    "An empirical study of smoothing techniques for language modeling"): with c(h, w) the times w followed the context
    h, c(h) their sum over w, and u(h) the number of different tokens seen after h::

        p(w | h) = (c(h, w) + u(h) p(w | h')) / (c(h) + u(h))

    h' is h without its oldest token. A context never seen says what h' says, and the empty context falls back on the
    uniform distribution 1/V, so that every token has a probability above 0 and every text a finite NLL.

    The constructor makes a policy that has seen nothing (it is uniform); `fit` makes one from a corpus.

    Args:
        vocab_size: V.
        start_token: 0 to V; the context of the first token. What stands before it is PAD.
        order: n, at least 1.
        sizes: For contexts of 1, 2, ... n-1 tokens: how many contexts were seen, and how many pairs of context and
            next token. Empty: none of any length.
        forbidden: Tokens that are never generated, such as UNK; their probability goes to the others in proportion.

    Raises:
        InputError: If a number or a token is out of range, or n tokens do not fit into a 63-bit key.
    """

    kind: ClassVar[str] = "ngram"

    def __init__(
        self,
        vocab_size: int,
        *,
        start_token: int,
        order: int = 3,
        sizes: Sequence[Sequence[int]] = (),
        forbidden: Sequence[int] = (),
    ) -> None:
        super().__init__(vocab_size, start_token, forbidden)
        require_at_least(1, order=order)
        fits = order < 63 and (vocab_size + 1) ** order < 2**63
        require(fits, f"order must be lower: {order} tokens of a vocabulary of {vocab_size} do not fit into 63 bits")
        sizes = sizes or [(0, 0)] * (order - 1)
        require(len(sizes) == order - 1, f"order {order} needs sizes of {order - 1} lengths, found {len(sizes)}")
        counts = [len(pair) for pair in sizes]
        require(set(counts) <= {2}, f"sizes must be pairs (contexts, pairs), found lists of {counts}")
        require(min((min(pair) for pair in sizes), default=0) >= 0, "sizes must be at least 0, found a negative one")
        check_weights(vocab_size + sum(3 * contexts + 4 + 2 * pairs for contexts, pairs in sizes), "an n-gram policy")
        if not forbidden and type(self).raw_step is NGramPolicy.raw_step:
            self._furthest = math.log(vocab_size)  # logits are log-probabilities: the highest of V is at least 1 / V
        self.order = order
        self.levels = nn.ModuleList(_Level(contexts, pairs) for contexts, pairs in sizes)
        self.log_unigram_V = nn.Buffer(torch.full((vocab_size,), -math.log(vocab_size)))

    @classmethod
    def fit(
        cls,
        tokens_BT: Tensor,
        mask_BT: Tensor,
        *,
        vocab_size: int,
        start_token: int,
        order: int = 3,
        forbidden: Sequence[int] = (),
    ) -> Self:
        """Count a corpus.

        Args:
            tokens_BT: int64; one text a row, each read from its first column on.
            mask_BT: bool; the tokens that are counted, each with what stands before it in its row.
            vocab_size: V.
            start_token: 0 to V.
            order: n.
            forbidden: Tokens that are never generated.

        Raises:
            InputError: If shapes differ, no token or one outside 0 to V-1 is to be counted, or the constructor refuses
                its arguments.
        """
        policy = cls(vocab_size, start_token=start_token, order=order, forbidden=forbidden).to(tokens_BT.device)
        shape, of_mask = tuple(tokens_BT.shape), tuple(mask_BT.shape)
        require(shape == of_mask, f"tokens and mask must have one shape, found {shape} and {of_mask}")
        next_E = tokens_BT[mask_BT]
        require(len(next_E) > 0, "an n-gram policy needs at least one token to count, found none")
        lowest, highest = int(next_E.min()), int(next_E.max())
        known = lowest >= 0 and highest < vocab_size
        require(known, f"tokens to count must be 0 to {vocab_size - 1}, found {lowest} to {highest}")
        padding = tokens_BT.new_full((len(tokens_BT), order - 1), vocab_size)
        start_B1 = tokens_BT.new_full((len(tokens_BT), 1), start_token)
        history_BT = torch.cat([padding, start_B1, tokens_BT[:, :-1]], dim=1)
        context_EL = history_BT.unfold(1, order, 1)[mask_BT][:, 1:]

        times_V = next_E.bincount(minlength=vocab_size).double()
        types = times_V.count_nonzero()
        probability_V = (times_V + types / vocab_size) / (times_V.sum() + types)
        counted = _Counted(torch.arange(vocab_size, device=next_E.device), probability_V)
        levels = []
        for length in range(1, order):
            level, counted = _count(context_EL[:, order - 1 - length :], next_E, counted, vocab_size)
            levels.append(level)

        policy.levels = nn.ModuleList(levels)
        policy.log_unigram_V.copy_(probability_V.log())
        return policy

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain data."""
        sizes = [[len(level.keys_C) - 1, len(level.next_P)] for level in self._levels()]
        return {**super().config(), "order": self.order, "sizes": sizes}

    def require_sound(self, weights: Mapping[str, Tensor]) -> None:
        """Refuse what any policy refuses; and the numbers of contexts, pairs and tokens lie in their tables.

        Raises:
            InputError: If one does not, or a log-probability is not finite.
        """
        super().require_sound(weights)
        for at, level in enumerate(self._levels()):
            keys_C, first_C, next_P = (weights[f"levels.{at}.{name}"] for name in ("keys_C", "first_C", "next_P"))
            rising = bool((keys_C.diff() > 0).all()) and bool((first_C.diff() >= 0).all())
            ends = int(keys_C[-1]) == _NO_CONTEXT and int(first_C[0]) == 0
            ends = ends and int(first_C[-2]) == int(first_C[-1]) == len(level.next_P)
            known = bool(((next_P >= 0) & (next_P < self.vocab_size)).all())
            require(rising and ends and known, f"the counts of contexts of {at + 1} tokens do not fit one another")

    def begin(self, batch_size: int) -> State:
        """The last n-1 tokens, int64 (B, n-1); before a text there are PADs."""
        return torch.full((batch_size, self.order - 1), self.vocab_size, device=self.device)

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Log-probabilities; one dense operation, then the pairs that were counted are put in."""
        state = torch.cat([state, tokens_B[:, None]], dim=1)[:, 1:]
        contexts = [
            level.find(_pack(state[:, self.order - 1 - length :], self.vocab_size + 1))
            for length, level in enumerate(self._levels(), start=1)
        ]
        # What longer contexts leave to each length, as a logarithm: 0 for the longest.
        left = [torch.zeros_like(self.log_unigram_V[:1]).expand(len(tokens_B))]
        for level, context_B in zip(reversed(self._levels()), reversed(contexts), strict=True):
            left.append(left[-1] + level.log_left_C[context_B])
        logits_BV = self.log_unigram_V + left.pop()[:, None]
        # A token seen after a context was also seen after the shorter one: the longer length overwrites it.
        for level, context_B in zip(self._levels(), contexts, strict=True):
            row_P, pair_P = number_ranges(level.first_C[context_B], level.first_C[context_B + 1])
            logp_P = level.log_prob_P.index_select(0, pair_P) + left.pop()[row_P]
            logits_BV.view(-1).scatter_(0, row_P * self.vocab_size + level.next_P.index_select(0, pair_P), logp_P)
        return logits_BV, state

    def _levels(self) -> list["_Level"]:
        """The tables by length of context, shortest first."""
        return [cast(_Level, level) for level in self.levels]


class _Level(nn.Module):
    """Contexts of one length: C sorted keys, and the P pairs (context, next token) in the order of their contexts.

    The last of the C+1 keys is no context and has no pairs: what was never seen is found there.
    """

    def __init__(self, contexts: int, pairs: int) -> None:
        super().__init__()
        self.keys_C = nn.Buffer(torch.full((contexts + 1,), _NO_CONTEXT))
        self.first_C = nn.Buffer(torch.zeros(contexts + 2, dtype=torch.int64))
        self.log_left_C = nn.Buffer(torch.zeros(contexts + 1))
        self.next_P = nn.Buffer(torch.zeros(pairs, dtype=torch.int64))
        self.log_prob_P = nn.Buffer(torch.zeros(pairs))

    def find(self, key_B: Tensor) -> Tensor:
        """Number of each context; C for one never seen."""
        place_B = torch.searchsorted(self.keys_C, key_B)
        return torch.where(self.keys_C[place_B] == key_B, place_B, len(self.keys_C) - 1)


def _pack(context: Tensor, base: int) -> Tensor:
    """One number for the tokens along the last axis, the newest in the lowest place."""
    places = base ** torch.arange(context.shape[-1] - 1, -1, -1, device=context.device)
    return (context * places).sum(-1)


class _Counted(NamedTuple):
    """Pairs (context, next token) of one context length: their sorted joint keys, and p(next token | context)."""

    joint_P: Tensor
    probability_P: Tensor


def _count(context_EL: Tensor, next_E: Tensor, shorter: _Counted, vocab_size: int) -> tuple[_Level, _Counted]:
    """One level from E events, and what the next longer one needs of it.

    Args:
        context_EL: int64; the L tokens before each event.
        next_E: int64; what followed.
        shorter: The pairs of the same events with contexts of L-1 tokens.
        vocab_size: V.
    """
    base = vocab_size + 1
    joint_P, times_P = torch.unique(_pack(context_EL, base) * vocab_size + next_E, return_counts=True)
    keys_C, context_P, types_C = torch.unique_consecutive(
        joint_P // vocab_size, return_inverse=True, return_counts=True
    )
    total_C = torch.zeros_like(types_C).index_add(0, context_P, times_P)
    # Without the highest place, the oldest token, a key is that of the shorter context.
    shorter_P = torch.searchsorted(shorter.joint_P, joint_P % (base ** (context_EL.shape[1] - 1) * vocab_size))
    probability_P = (times_P + types_C[context_P] * shorter.probability_P[shorter_P]) / (total_C + types_C)[context_P]

    level = _Level(len(keys_C), len(joint_P)).to(next_E.device)
    level.keys_C[:-1] = keys_C
    level.first_C[1:-1] = types_C.cumsum(0)
    level.first_C[-1] = len(joint_P)
    level.log_left_C[:-1] = (types_C / (total_C + types_C)).log()
    level.next_P.copy_(joint_P % vocab_size)
    level.log_prob_P.copy_(probability_P.log())
    return level, _Counted(joint_P, probability_P)
