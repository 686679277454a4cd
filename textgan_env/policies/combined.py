"""Policies made of others without any training: a memoriser of texts, the mean of several policies, their mixture."""

import copy
import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, ClassVar, Self, cast, get_args

import torch
from torch import Tensor, nn

from textgan_env.policies.base import Decoding, PolicyModule, State, number_ranges, where_rows
from textgan_env.utils.errors import require, require_known
from textgan_env.utils.kinds import MeanName


class MemoriserPolicy(PolicyModule):
    """Generates the texts it was given, each as often as it was given: what copying the training texts scores.

    Every other text has probability 0, so NLL-test is infinite wherever a text is new.

    Args:
        tokens_BT: int64; the texts, PAD after the end.
        vocab_size: V.
        start_token: 0 to V; makes no difference.
        forbidden: Tokens that are never generated.

    Raises:
        InputError: If there is no text, or one holds a forbidden token.
    """

    kind: ClassVar[str] = "memoriser"

    def __init__(self, tokens_BT: Tensor, *, vocab_size: int, start_token: int, forbidden: Sequence[int] = ()) -> None:
        super().__init__(vocab_size, start_token, forbidden)
        require(tokens_BT.dim() == 2 and len(tokens_BT) > 0, f"a memoriser needs texts, found {tuple(tokens_BT.shape)}")
        writable = not torch.isin(tokens_BT, torch.tensor(forbidden, dtype=torch.int64)).any()
        require(bool(writable), "a memoriser cannot be given texts with forbidden tokens")
        # In lexical order the texts that begin with a prefix stand side by side.
        different_ST, times_S = torch.unique(tokens_BT, dim=0, return_counts=True)
        self.tokens_ST, self.times_S = nn.Buffer(different_ST), nn.Buffer(times_S.double())

    def begin(self, batch_size: int) -> State:
        """The first text that begins so, the one after the last, and how many tokens were read (-1: no start yet)."""
        zeros_B = torch.zeros(batch_size, dtype=torch.int64, device=self.device)
        return zeros_B, zeros_B + len(self.tokens_ST), zeros_B - 1

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Logarithms of counts; where no text continues the prefix, all tokens alike."""
        first_B, end_B, read_B = state
        read_B = read_B + 1
        row_P, text_P = number_ranges(first_B, end_B)
        read_P = read_B[row_P]
        as_read_P = (read_P == 0) | (self.tokens_ST[text_P, (read_P - 1).clamp(min=0)] == tokens_B[row_P])
        row_P, text_P = row_P[as_read_P], text_P[as_read_P]
        first_B = torch.full_like(first_B, len(self.tokens_ST)).scatter_reduce(0, row_P, text_P, "amin")
        state = first_B, first_B + row_P.bincount(minlength=len(first_B)), read_B

        next_P = self.tokens_ST[text_P, read_B[row_P].clamp(max=self.tokens_ST.shape[1] - 1)]
        goes_on_P = next_P < self.vocab_size
        cell_P = (row_P * self.vocab_size + next_P)[goes_on_P]
        times_BV = torch.zeros(len(first_B), self.vocab_size, dtype=torch.float64, device=self.device)
        times_BV.view(-1).index_add_(0, cell_P, self.times_S[text_P[goes_on_P]])
        return torch.where(times_BV.any(1)[:, None], times_BV.log(), 0.0).float(), state


class _Combination(PolicyModule):
    """What ensemble and mixture share: policies of one task, and weights that add up to 1."""

    def __init__(self, policies: Sequence[PolicyModule], weights: Sequence[float]) -> None:
        require(len(policies) == len(weights) >= 1, f"expected a weight for each of {len(policies)} policies")
        shares = all(weight > 0 for weight in weights) and abs(sum(weights) - 1) < 1e-6
        require(shares, f"weights must be above 0 and add up to 1, found {list(weights)}")
        first = policies[0]
        for other in policies:
            require(not other.random_start, "policies with a random initial state cannot be combined")
            same = (other.vocab_size, other.start_token) == (first.vocab_size, first.start_token)
            require(same, "only policies of one task can be combined: V or the start token differ")
        super().__init__(first.vocab_size, first.start_token)
        self.members = nn.ModuleList(policies)
        # Policies may be combined where they are, not on the CPU only.
        self.forbidden = nn.Buffer(self.forbidden.to(first.device), persistent=False)
        self.log_weights_K = nn.Buffer(torch.tensor(weights, dtype=torch.float64).log().to(first.device))

    @property
    def policies(self) -> list[PolicyModule]:
        """The policies."""
        return [cast(PolicyModule, member) for member in self.members]


class EnsemblePolicy(_Combination):
    """The mean, token by token, of the next-token probabilities of several policies.

    Unlike the `MixturePolicy` of whole texts, every policy has the same say at each token, whatever it thinks of the
    prefix.

    Args:
        policies: Policies of one task, each with its own decoding; the ensemble's decoding comes on top.
        mean: ``arithmetic``: a token is probable where one policy finds it so. ``geometric``: the product of the
            probabilities to the power 1/K, normalised over V: where all do.

    Raises:
        InputError: If they do not fit together, or there is no such mean.
    """

    kind: ClassVar[str] = "ensemble"

    def __init__(self, policies: Sequence[PolicyModule], mean: MeanName = "arithmetic") -> None:
        require_known("mean", mean, get_args(MeanName))
        require(len(policies) > 0, "an ensemble needs at least one policy")
        super().__init__(policies, [1 / len(policies)] * len(policies))
        self.mean = mean
        self._prepared: list[PolicyModule] | None = None

    @property
    def policies(self) -> list[PolicyModule]:
        """The policies, prepared where the ensemble is."""
        return super().policies if self._prepared is None else self._prepared

    def prepared(self) -> Self:
        """The same with each policy prepared."""
        view = copy.copy(self)
        view._prepared = [policy.prepared() for policy in self.policies]
        return view

    def begin(self, batch_size: int) -> State:
        """The states of all."""
        return [policy.begin(batch_size) for policy in self.policies]

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """The logarithm of the mean, up to a constant."""
        stepped = [policy.step(tokens_B, part) for policy, part in zip(self.policies, state, strict=True)]
        return self._of_logits([logits_BV for logits_BV, _ in stepped]), [part for _, part in stepped]

    def log_prob(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """An arithmetic mean needs no more of each policy than the token that stands there (see `Policy.log_prob`)."""
        if self.mean == "geometric" or self.decoding != Decoding():
            return super().log_prob(tokens_BT, mask_BT)
        logp_BT = self._mean([policy.log_prob(tokens_BT, mask_BT) for policy in self.policies])
        return logp_BT.masked_fill(~mask_BT, 0.0)

    def all_logits(self, tokens_BT: Tensor) -> Tensor:
        """From those of each policy, float (B, T, V) (see `PolicyModule.all_logits`)."""
        return self._decoded(self._of_logits([policy.all_logits(tokens_BT) for policy in self.policies]))

    def _of_logits(self, logits: Sequence[Tensor]) -> Tensor:
        """`_mean` from logits of one shape, V last; a geometric one needs no probabilities."""
        if self.mean == "geometric":
            return self._mean(logits)
        return self._mean([part.log_softmax(-1) for part in logits])

    def _mean(self, logps: Sequence[Tensor]) -> Tensor:
        """The logarithm of the mean of K log-probabilities of one shape; a geometric one is not normalised."""
        if self.mean == "geometric":
            return reduce(torch.add, logps) / len(logps)
        return torch.stack([*logps]).logsumexp(0) - math.log(len(logps))


class MixturePolicy(_Combination):
    """Each whole text is generated by one of several policies, drawn by weight: the distribution is exact.

    Token by token it is the mean of the policies' next tokens, weighted by how probable each policy makes the prefix,
    so NLLs need no draw. Mixing a policy with itself at a low temperature games the pair (NLL-oracle, NLL-test): see
    docs/benchmarks.md.

    Args:
        policies: Policies of one task, each with its own decoding.
        weights: Probability of each.

    Raises:
        InputError: If they do not fit together.
    """

    kind: ClassVar[str] = "mixture"

    def begin(self, batch_size: int) -> State:
        """The states before and after the token read last, that token (-1: none yet), and log-weights (B, K)."""
        states = [policy.begin(batch_size) for policy in self.policies]
        last_B = torch.full((batch_size,), -1, device=self.device)
        return states, last_B, self.log_weights_K.repeat(batch_size, 1)

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """The state is that of the prefix before its last token: so its logits need not be kept, only made again."""
        states, last_B, log_weights_BK = state
        fresh_B = last_B < 0
        logp_BKV, after = self._steps(torch.where(fresh_B, self.start_token, last_B), states)
        written_B11 = tokens_B.clamp(max=self.vocab_size - 1)[:, None, None].expand(-1, logp_BKV.shape[1], 1)
        seen_BK = log_weights_BK + logp_BKV.gather(2, written_B11)[..., 0]
        log_weights_BK = torch.where(fresh_B[:, None], log_weights_BK, seen_BK)
        kept = where_rows(fresh_B, states, after)
        logp_BKV, _ = self._steps(tokens_B, kept)
        share_BK = log_weights_BK.log_softmax(1)
        return (share_BK[..., None] + logp_BKV).logsumexp(1).float(), (kept, tokens_B, log_weights_BK)

    def log_prob(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """From the log-probabilities of each policy, read at once (see `Policy.log_prob`)."""
        if self.decoding != Decoding():
            return super().log_prob(tokens_BT, mask_BT)
        logp_BTK = torch.stack([policy.log_prob(tokens_BT, mask_BT).double() for policy in self.policies], dim=2)
        after_BT = (logp_BTK.cumsum(1) + self.log_weights_K).logsumexp(2)
        before_BT = torch.cat([torch.zeros_like(after_BT[:, :1]), after_BT[:, :-1]], dim=1)
        return (after_BT - before_BT).masked_fill(~mask_BT, 0.0).float()

    def _steps(self, tokens_B: Tensor, states: State) -> tuple[Tensor, list[Any]]:
        """Log-probabilities of the next token under each policy, float64 (B, K, V), and the new states."""
        stepped = [policy.step(tokens_B, state) for policy, state in zip(self.policies, states, strict=True)]
        logp_BKV = torch.stack([logits_BV.double().log_softmax(1) for logits_BV, _ in stepped], dim=1)
        return logp_BKV, [state for _, state in stepped]
