"""What a policy is: the protocol the environment rolls out, decoding, and the base of our own policies."""

import copy
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.utils.errors import InputError, require, require_at_least

#: Tensors with axis B first, nested in tuples, lists and dicts as the policy likes; () for a policy without memory.
State = Any


@runtime_checkable
class Policy(Protocol):
    """The generator G: prefix -> distribution of the next token, at its own temperature.

    Whatever has these members can be rolled out, be it a network, a table or another library's model. A policy knows
    nothing of T, of rewards or of how many completions are made of it.
    """

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens that can be generated; V itself is PAD."""

    @property
    def start_token(self) -> int:
        """What `step` is fed before the first token: 0 to V."""

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""

    def begin(self, batch_size: int) -> State:
        """The state of B empty prefixes."""

    def reset_rows(self, state: State, mask_B: Tensor) -> State:
        """``state`` with the rows where the bool mask is True back at the empty prefix."""

    def step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token a row and say what may come next.

        Args:
            tokens_B: int64; the last token of each prefix, `start_token` for an empty one.
            state: What the step before returned.

        Returns:
            Logits, float (B, V), and the state of the prefix that ends with ``tokens_B``. The logits are
            log-probabilities of the next token up to a constant a row, exactly those sampled from: temperature,
            truncation and forbidden tokens are in them. The caller may overwrite them.
        """

    def log_prob(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Log-probability (nats) of each token given the ones before it, under what `step` samples from.

        Args:
            tokens_BT: int64, PAD after the end.
            mask_BT: bool; the cells asked for.

        Returns:
            float (B, T); 0 where the mask is False.
        """


def map_state(function: Callable[..., Tensor], *states: State) -> State:
    """Apply ``function`` to the tensors at the same place of equally nested states."""
    first = states[0]
    if isinstance(first, Tensor):
        return function(*states)
    if isinstance(first, dict):
        return {key: map_state(function, *(state[key] for state in states)) for key in first}
    if isinstance(first, (tuple, list)):
        return type(first)(map_state(function, *parts) for parts in zip(*states, strict=True))
    raise InputError(f"a policy's state must be tensors in tuples, lists or dicts, found {type(first).__name__}")


def where_rows(mask_B: Tensor, chosen: State, other: State) -> State:
    """Rows of ``chosen`` where the mask is True, else of ``other``."""
    return map_state(lambda one, two: torch.where(mask_B.view(-1, *[1] * (one.dim() - 1)), one, two), chosen, other)


def step_rows(policy: Policy, tokens_r: Tensor, state: State, rows: Tensor | slice) -> Tensor:
    """Step some rows of a state, which is changed in place: their logits, float (r, V) (see `PolicyModule.step_rows`).

    Raises:
        InputError: If the policy's logits have another shape.
    """
    logits_rV, after = checked_step(policy, tokens_r, map_state(lambda part: part[rows], state))
    map_state(lambda whole, part: _put(whole, rows, part), state, after)
    return logits_rV


def checked_step(policy: Policy, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
    """`Policy.step`.

    Raises:
        InputError: If the policy's logits have another shape than (B, V): they might be broadcast.
    """
    logits_BV, after = policy.step(tokens_B, state)
    expected, found = (len(tokens_B), policy.vocab_size), tuple(logits_BV.shape)
    require(found == expected, f"the policy's logits must have shape (B, V)={expected}, found {found}")
    return logits_BV, after


def _put(whole: Tensor, rows: Tensor | slice, part: Tensor) -> Tensor:
    """Write some rows in place."""
    return whole[rows].copy_(part) if isinstance(rows, slice) else whole.index_copy_(0, rows, part)


def number_ranges(first_B: Tensor, end_B: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers from first to below end of each row, one row after the other: int64 rows (P,) and numbers (P,)."""
    count_B = end_B - first_B
    row_P = torch.arange(len(first_B), device=first_B.device).repeat_interleave(count_B)
    shift_B = first_B - (count_B.cumsum(0) - count_B)
    return row_P, torch.arange(len(row_P), device=first_B.device) + shift_B[row_P]


def draw_weights(module: nn.Module, scale: float) -> None:
    """Draw all weights of a network from N(0, scale), as SeqGAN's and LeakGAN's published code does."""
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, std=scale)
        # PyTorch's LSTM adds two biases a gate where the published one has one: the second stays 0.
        if "bias_hh" in name:
            nn.init.zeros_(parameter)
            parameter.requires_grad_(False)


@dataclass(frozen=True)
class Decoding:
    """How a policy turns its logits into the distribution it draws from.

    Truncation gives tokens the probability 0, so a text that holds one has infinite NLL.

    Args:
        temperature: What logits are divided by; below 1 gives safer text, above 1 more varied text.
        top_k: Keep the k most probable tokens only (ties: the smaller id). None keeps all.
        top_p: Keep the smallest set of most probable tokens whose mass reaches p (nucleus sampling, Holtzman et al.
            2020). None keeps all.
        deterministic: Generate the most probable token always (ties: the smaller id).

    Raises:
        InputError: If a number is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        advice = "" if self.temperature else ": deterministic=True (or top_k=1) writes the most probable token"
        finite = 0 < self.temperature <= sys.float_info.max
        require(finite, f"temperature must be above 0 and finite, found {self.temperature}{advice}")
        # A file may say a whole number of a hundred digits, which torch does not divide by.
        object.__setattr__(self, "temperature", float(self.temperature))
        require_at_least(1, top_k=self.top_k)
        require(self.top_p is None or 0 < self.top_p <= 1, f"top_p must be above 0 and at most 1, found {self.top_p}")

    @property
    def truncates(self) -> bool:
        """Whether some tokens that have a logit are never drawn, so that the temperature is not all that there is."""
        return self.deterministic or self.top_k is not None or self.top_p is not None

    def apply(self, logits_BV: Tensor) -> Tensor:
        """Logits of the distribution that is drawn from; -inf for what is never generated."""
        if self.deterministic:
            best_B1 = logits_BV.argmax(1, keepdim=True)
            return torch.full_like(logits_BV, -math.inf).scatter(1, best_B1, 0.0)
        if self.temperature != 1:
            logits_BV = logits_BV / self.temperature
        top_p = None if self.top_p == 1 else self.top_p  # rounding would cut the tail off
        if self.top_k is None and top_p is None:
            return logits_BV
        most = min(self.top_k or logits_BV.shape[1], logits_BV.shape[1])
        ordered_BK = _falling(logits_BV.detach())[:, :most]
        kept_B = torch.full_like(ordered_BK[:, 0], ordered_BK.shape[1], dtype=torch.int64)
        if top_p is not None:
            mass_BK = ordered_BK.softmax(1)
            # A token stays while the mass before it falls short of p: the first one always does.
            kept_B = (mass_BK.cumsum(1) - mass_BK < top_p).sum(1).clamp(min=1)
        return _only_highest(logits_BV, kept_B, lowest_B=ordered_BK.gather(1, kept_B[:, None] - 1)[:, 0])


def _falling(values_BV: Tensor) -> Tensor:
    """The values of each row, the highest first."""
    if values_BV.device.type == "cpu" and values_BV.dtype in (torch.float32, torch.float64):
        # numpy's sort is vectorised: 25 times as fast as torch's at V = 5,000.
        return torch.from_numpy(np.sort(values_BV.numpy(), axis=1)).flip(1)
    return values_BV.sort(dim=1, descending=True).values


def _only_highest(logits_BV: Tensor, kept_B: Tensor, lowest_B: Tensor) -> Tensor:
    """Logits, -inf but for so many of the highest in each row; of those equal to the lowest the smaller ids stay."""
    stays_BV = logits_BV >= lowest_B[:, None]
    if (stays_BV.sum(1) > kept_B).any():
        above_BV = logits_BV > lowest_B[:, None]
        room_B1 = (kept_B - above_BV.sum(1))[:, None]
        level_BV = stays_BV & ~above_BV
        stays_BV = above_BV | (level_BV & (level_BV.cumsum(1) <= room_B1))
    # NaN stays, and is found by the code that draws.
    return logits_BV.masked_fill(~(stays_BV | logits_BV.isnan()), -math.inf)


class PolicyModule(nn.Module):
    """Base of our policies: forbidden tokens, decoding, and `log_prob` by stepping.

    A subclass has `begin` and `raw_step`; one that can read whole texts at once overrides `log_prob`, too.

    Args:
        vocab_size: V.
        start_token: 0 to V.
        forbidden: Tokens that are never generated, such as UNK.

    Raises:
        InputError: If V is below 1, a token is out of range or named twice, or every token is forbidden.
    """

    kind: ClassVar[str]
    # Whether each text starts from a random state of its own: then log-probabilities are given that state.
    random_start = False
    # How far from 0 the highest logit of a row can be before decoding, dropout off.
    _furthest = math.inf

    def __init__(self, vocab_size: int, start_token: int, forbidden: Sequence[int] = ()) -> None:
        super().__init__()
        require_at_least(1, vocab_size=vocab_size)
        require(0 <= start_token <= vocab_size, f"start_token must be 0 to V={vocab_size}, found {start_token}")
        wrong = [token for token in forbidden if not 0 <= token < vocab_size]
        require(not wrong, f"forbidden tokens must be 0 to {vocab_size - 1}, found {wrong}")
        twice = len(forbidden) - len(set(forbidden))
        require(twice == 0, f"forbidden tokens must be named once each, found {twice} named again")
        require(len(forbidden) < vocab_size, f"all {vocab_size} tokens are forbidden, so nothing can be written")
        self.vocab_size, self.start_token = vocab_size, start_token
        self._settings: dict[str, Any] = {}
        self.decoding = Decoding()
        self.forbidden = nn.Buffer(torch.tensor(sorted(forbidden), dtype=torch.int64), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.forbidden.device

    @property
    def furthest_logit(self) -> float:
        """How far from 0 the highest logit of a row of `step` can be, dropout off; infinity where it is not known."""
        known = type(self).step is PolicyModule.step
        return self._furthest / self.decoding.temperature if known else math.inf

    def at_temperature(self, temperature: float) -> Self:
        """The same policy, sharing its weights, at another temperature and otherwise undisturbed."""
        return self.with_decoding(Decoding(temperature))

    def with_decoding(self, decoding: Decoding) -> Self:
        """The same policy, sharing its weights, that generates (and is scored) under another decoding."""
        view = copy.copy(self)
        view.decoding = decoding
        return view

    def for_texts(self, seed_B: Tensor, episode_B: Tensor) -> Self:
        """The same policy, sharing its weights, with the initial states of these texts; most policies have only one.

        Args:
            seed_B: int64; what each text's draws are keyed by, with
            episode_B: int64.
        """
        return self

    def for_rows(self, rows_R: Tensor) -> Self:
        """The same policy for some of B texts, int64 (R,) or bool (B,): most policies treat all texts alike."""
        return self

    def given(self, template_BT: Tensor, end_token: int | None = None) -> "PolicyModule":
        """The same policy, sharing its weights, that fills the blanks of templates: see `GivenPolicy`.

        Args:
            template_BT: int64, one row for each text or one for all: a token where it is given, -1
                (`textgan_env.policies.BLANK`, the number of no token) where it is not, PAD after the end.
            end_token: The token that ends a text early: forbidden at blanks that given tokens follow.

        Raises:
            InputError: If these are no templates.
        """
        from textgan_env.policies.given import GivenPolicy  # which is made of this class

        return GivenPolicy(self.reading(template_BT), template_BT, end_token)

    def reading(self, template_BT: Tensor) -> Self:
        """The same policy, told what stands on both sides of a blank; most policies see only what stands before it.

        Args:
            template_BT: int64; as `given` takes it.
        """
        return self

    def prepared(self) -> Self:
        """The same policy, ready for many steps without gradients while its weights stay as they are now.

        What follows from the weights alone may be worked out at once, and a step's logits stand where those of the step
        before stood.
        """
        return self

    def begin(self, batch_size: int) -> State:
        """The state of B empty prefixes."""
        raise NotImplementedError

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """`step` before forbidden tokens and decoding; the logits may be overwritten."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain data: with the weights, all that a checkpoint needs.

        A subclass keeps its own arguments as ``_settings``, but for the seed of the weights.
        """
        own = {"start_token": self.start_token, "forbidden": self.forbidden.tolist()}
        return {"vocab_size": self.vocab_size, **own, **self._settings}

    def require_sound(self, weights: Mapping[str, Tensor]) -> None:
        """Refuse weights, named as in ``state_dict``, that fit this policy's shapes but that it cannot generate with.

        Raises:
            InputError: If a number is not finite; the sentence names the tensor.
        """
        for name, values in weights.items():
            require(bool(torch.isfinite(values).all()), f"'{name}' holds numbers that are not finite")

    def reset_rows(self, state: State, mask_B: Tensor) -> State:
        """``state`` with the rows where the bool mask is True back at the empty prefix."""
        return where_rows(mask_B, self.begin(len(mask_B)), state)

    def step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token a row and say what may come next (see `Policy.step`)."""
        logits_BV, state = self.raw_step(tokens_B, state)
        return self.decoding.apply(self._forbid(logits_BV)), state

    def step_rows(self, tokens_r: Tensor, state: State, rows: Tensor | slice) -> Tensor:
        """`step` of some rows of a state, which is changed in place; without gradients.

        A policy whose state grows with the text writes what is new, and copies nothing else.

        Args:
            tokens_r: int64; the last token of each of these rows.
            state: Of all rows.
            rows: Their numbers, int64 (r,), each once; or a slice.

        Returns:
            Logits as of `step`, float (r, V).
        """
        return step_rows(self, tokens_r, state, rows)

    def log_prob(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Log-probability (nats) of each token, float (B, T), 0 where masked (see `Policy.log_prob`)."""
        state = self.begin(len(tokens_BT))
        read_BT = functional.pad(tokens_BT[:, :-1], (1, 0), value=self.start_token)
        logp_TB = []
        for read_B, tokens_B in zip(read_BT.unbind(1), tokens_BT.unbind(1), strict=True):
            logits_BV, state = self.step(read_B, state)
            written_B1 = tokens_B.clamp(max=self.vocab_size - 1)[:, None]
            logp_TB.append(logits_BV.log_softmax(1).gather(1, written_B1)[:, 0])
        return torch.stack(logp_TB, dim=1).masked_fill(~mask_BT, 0.0)

    def all_log_probs(self, tokens_BT: Tensor) -> Tensor:
        """Log-probability (nats) of every token at each prefix, under what `step` samples from; differentiable.

        At V = 5,000 64 texts of 20 tokens are 26 MB, and as much again in each array made of them: whoever adds up over
        V takes some rows at a time (`textgan_env.ops.tiles.tiled_sum`).

        Args:
            tokens_BT: int64, PAD after the end; the last token makes no difference.

        Returns:
            float (B, T, V): at t given the t tokens before it; -inf for what is never generated. After the end of a
            text it means nothing.
        """
        return self.all_logits(tokens_BT).log_softmax(2)

    def all_logits(self, tokens_BT: Tensor) -> Tensor:
        """What `step` gives at each prefix: `all_log_probs` but for a constant at each prefix, float (B, T, V)."""
        state = self.begin(len(tokens_BT))
        logits_TBV = []
        for read_B in functional.pad(tokens_BT[:, :-1], (1, 0), value=self.start_token).unbind(1):
            logits_BV, state = self.step(read_B, state)
            logits_TBV.append(logits_BV)
        return torch.stack(logits_TBV, dim=1)

    def _decoded(self, logits_BTV: Tensor) -> Tensor:
        """What `step` makes of raw logits of whole texts, float (B, T, V)."""
        return self.decoding.apply(self._forbid(logits_BTV.flatten(0, 1))).view_as(logits_BTV)

    def _forbid(self, logits_BV: Tensor) -> Tensor:
        """Minus infinity at tokens that are never generated, float (B, V); the logits given may be overwritten."""
        if not len(self.forbidden):
            return logits_BV
        fill = logits_BV.index_fill if logits_BV.requires_grad else logits_BV.index_fill_
        return fill(1, self.forbidden, -math.inf)
