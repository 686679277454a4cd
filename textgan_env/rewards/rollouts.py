"""Monte-Carlo completions: every prefix of every text, N times, in one pass over time.

The prefixes of one text share their beginning, so the text is read once, token by token. When its first p tokens have
been read, the completions of that prefix join the rows that are being generated, starting from a copy of the state
reached; from then on every row is an independent text. SeqGAN's published code makes N x T passes instead, each from
the first token.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from textgan_env.ops.episodes import check_prefix
from textgan_env.ops.sampling import Stream, evaluating, keyed_uniform, sample_categorical, sample_with_probability
from textgan_env.ops.tiles import Tile
from textgan_env.policies.base import Policy, PolicyModule, State, checked_step, map_state, step_rows
from textgan_env.rewards.texts import Keys
from textgan_env.utils.errors import require, require_at_least

#: Rows stepped at once. Larger tiles push the logits out of the cache; tiles under 32 rows would take other code paths
#: in the matrix product and round differently, so that a draw could depend on how rows were grouped.
TILE = Tile(cpu=256, gpu=16_384)
_SMALLEST_TILE = 32
#: Bytes that the states of all completions may take at once. A state that holds what was read, as a transformer's, can
#: need more: then some texts are completed after the others, which changes memory, never a draw.
STATE_BYTES = Tile(cpu=2**29, gpu=2**33)
# Uniform numbers made at once on a GPU: 128 MB, and about five times as much while they are made.
_DRAWS = 2**24


def for_texts(policy: Policy, keys: Keys) -> Policy:
    """The policy with the initial states of these texts, where it draws one for each (see `PolicyModule.for_texts`)."""
    return policy.for_texts(keys.seed_B, keys.episode_B) if isinstance(policy, PolicyModule) else policy


@dataclass(frozen=True)
class Completions:
    """R finished texts, and what each is a completion of.

    Attributes:
        tokens_RT: int64, PAD after the end.
        lengths_R: int64, tokens in each text (the end token counts).
        row_R: int64, the row of the batch.
        prefix_R: int64, how many tokens were given.
        rollout_R: int64, 0 to N-1.
        logp_RT: float64, log-probability (nats) of each token as it was drawn, 0 for those that were given and after
            the end; None where it was not asked for.
    """

    tokens_RT: Tensor
    lengths_R: Tensor
    row_R: Tensor
    prefix_R: Tensor
    rollout_R: Tensor
    logp_RT: Tensor | None = None


def complete(
    policy: Policy,
    tokens_BT: Tensor,
    wanted_BT: Tensor,
    *,
    keys: Keys,
    rollouts: int = 1,
    end_token: int | None = None,
    stream: Stream = Stream.ROLLOUT,
    scored: bool = False,
    tile: int | None = None,
) -> Completions:
    """Complete prefixes of each text N times with the policy, dropout off, without gradients.

    Args:
        policy: Generates the rest of each text.
        tokens_BT: int64; the texts. Tokens at and after the longest prefix that is wanted do not matter.
        wanted_BT: bool; column p asks for the prefix of p tokens, column 0 for whole new texts.
        keys: Of the rows' draws.
        rollouts: N, completions of each prefix.
        end_token: The token that ends a text before T tokens. None: every text has T tokens.
        stream: What the draws are for.
        scored: Whether to keep the log-probability of each draw, which is known from drawing it.
        tile: Rows stepped at once; changes memory and speed, never a draw. None: `TILE` of the device.

    Returns:
        `Completions`, ordered by prefix length, row and rollout.

    Raises:
        InputError: If N is below 1 or shapes do not fit.
    """
    tile = _tile(tile, tokens_BT.device)
    require_at_least(1, rollouts=rollouts)
    shape, wanted = tuple(tokens_BT.shape), tuple(wanted_BT.shape)
    require(shape == wanted, f"tokens and wanted prefixes must have one shape, found {shape} and {wanted}")
    # Beyond these the keys of two draws would be one.
    require(tokens_BT.shape[1] < 2**16, f"a text has at most 65,535 tokens, found T={tokens_BT.shape[1]}")
    require(rollouts < 2**24, f"a prefix has at most 16,777,215 completions, found {rollouts}")
    # On a GPU this is the one time that the host waits for it.
    joining_T = wanted_BT.sum(0).tolist()
    how: Any = {"rollouts": rollouts, "end_token": end_token, "stream": stream, "scored": scored, "tile": tile}
    return _complete(policy, tokens_BT, wanted_BT, joining_T, keys=keys, **how)


def _complete(
    policy: Policy,
    tokens_BT: Tensor,
    wanted_BT: Tensor,
    joining_T: list[int],
    *,
    keys: Keys,
    rollouts: int,
    end_token: int | None,
    stream: Stream,
    scored: bool,
    tile: int,
) -> Completions:
    """`complete` for whom knows how many prefixes of each length are wanted."""
    cells_C2 = torch.nonzero_static(wanted_BT.t(), size=sum(joining_T))
    prefix_R, row_R = cells_C2[:, None].expand(-1, rollouts, -1).flatten(0, 1).unbind(1)
    is_given_RT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device) < prefix_R[:, None]
    texts = Completions(
        tokens_RT=tokens_BT[row_R].masked_fill(~is_given_RT, policy.vocab_size),
        lengths_R=torch.full_like(row_R, tokens_BT.shape[1]),
        row_R=row_R,
        prefix_R=prefix_R,
        rollout_R=torch.arange(rollouts, device=tokens_BT.device).repeat(len(prefix_R) // rollouts),
        logp_RT=torch.zeros(is_given_RT.shape, dtype=torch.float64, device=tokens_BT.device) if scored else None,
    )
    if not len(row_R):
        return texts
    how: Any = {"stream": stream, "tile": tile, "end_token": end_token}
    with evaluating(policy), torch.inference_mode():
        steps = for_texts(policy, keys)
        steps = steps.prepared() if isinstance(steps, PolicyModule) else steps
        state = steps.begin(len(tokens_BT))
        parts = min(len(tokens_BT), _times_too_large(state, len(row_R) / len(tokens_BT)))
        if parts > 1:
            return _in_parts(parts, policy, tokens_BT, wanted_BT, keys, rollouts=rollouts, scored=scored, **how)
        how |= {"keys_R": keys[row_R], "starts": [0, *(rollouts * count for count in accumulate(joining_T))]}
        if tokens_BT.device.type == "cpu":
            _generate(steps, state, tokens_BT, wanted_BT, texts, rollouts=rollouts, **how)
        else:
            _generate_side_by_side(steps, state, tokens_BT, texts, **how)
    return texts


def _times_too_large(state: State, rows: float) -> int:
    """How many times the memory that they may take so many rows would need for each one that a state has."""
    parts: list[Tensor] = []

    def note(part: Tensor) -> Tensor:
        parts.append(part)
        return part

    map_state(note, state)
    most = STATE_BYTES.on(parts[0].device) if parts else 1
    return math.ceil(rows * sum(part.nbytes for part in parts) / most)


def _in_parts(parts: int, policy: Policy, tokens_BT: Tensor, wanted_BT: Tensor, keys: Keys, **how: Any) -> Completions:
    """The completions of some texts after those of others, put together."""
    found = []
    for rows_b in torch.arange(len(tokens_BT), device=tokens_BT.device).tensor_split(parts):
        its = policy.for_rows(rows_b) if isinstance(policy, PolicyModule) else policy
        wanted_bT = wanted_BT[rows_b]
        done = _complete(its, tokens_BT[rows_b], wanted_bT, wanted_bT.sum(0).tolist(), keys=keys[rows_b], **how)
        found.append(replace(done, row_R=rows_b[done.row_R]))
    # Stable, so that rows and rollouts stay in order.
    order_R = torch.cat([done.prefix_R for done in found]).argsort(stable=True)
    columns: dict[str, Any] = {}
    for name in (field.name for field in fields(Completions)):
        of_parts = [getattr(done, name) for done in found]
        columns[name] = None if of_parts[0] is None else torch.cat(of_parts)[order_R]
    return Completions(**columns)


def generate(
    policy: Policy,
    keys: Keys,
    max_length: int,
    *,
    end_token: int | None = None,
    prefix: Sequence[int] = (),
    tile: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Generate one text for each key, from the first token on or from the end of a given prefix.

    Args:
        policy: Generates.
        keys: Of the draws, one a text.
        max_length: T.
        end_token: The token that ends a text before T tokens. None: every text has T tokens.
        prefix: Tokens that every text begins with.
        tile: Rows stepped at once; changes memory and speed, never a draw. None: `TILE` of the device.

    Returns:
        tokens_BT: int64, the prefix included, PAD after the end.
        lengths_B: int64.

    Raises:
        InputError: If T is below 1, or the prefix has no room in it or holds a token that may not stand there.
    """
    texts = generate_scored(policy, keys, max_length, end_token=end_token, prefix=prefix, tile=tile, scored=False)
    return texts.tokens_RT, texts.lengths_R


def generate_scored(
    policy: Policy,
    keys: Keys,
    max_length: int,
    *,
    end_token: int | None = None,
    prefix: Sequence[int] = (),
    tile: int | None = None,
    scored: bool = True,
) -> Completions:
    """The texts of `generate` with the log-probability of each draw, which costs next to nothing beside it."""
    require(max_length >= 1, f"a text must have room for at least 1 token, found T={max_length}")
    check_prefix(np.array(prefix, dtype=np.int64), max_length, policy.vocab_size, end_token)
    tokens_BT = torch.full((len(keys.seed_B), max_length), policy.vocab_size, device=keys.seed_B.device)
    for place, token in enumerate(prefix):
        tokens_BT[:, place] = token
    wanted_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
    wanted_BT[:, len(prefix)] = True
    joining_T = [len(tokens_BT) * (length == len(prefix)) for length in range(max_length)]
    how: Any = {"end_token": end_token, "stream": Stream.TEXT, "scored": scored}
    tile = _tile(tile, tokens_BT.device)
    return _complete(policy, tokens_BT, wanted_BT, joining_T, keys=keys, rollouts=1, tile=tile, **how)


def _generate(
    policy: Policy,
    state: State,
    tokens_BT: Tensor,
    wanted_BT: Tensor,
    texts: Completions,
    *,
    keys_R: Keys,
    starts: list[int],
    rollouts: int,
    end_token: int | None,
    stream: Stream,
    tile: int,
) -> None:
    """The pass over time on a CPU; fills ``texts`` in place. Completions of p tokens begin with row ``starts[p]``."""
    max_length = tokens_BT.shape[1]
    columns_T = torch.arange(max_length + 1, device=tokens_BT.device)
    longest_B = (wanted_BT * columns_T[1:]).amax(1) - 1  # the longest prefix each row is asked for; -1: none
    read = Memory(policy, map_state(torch.clone, state))
    # Every row's own state comes from `step` or `put` before it is read.
    written = Memory(policy, map_state(lambda part: part.new_zeros(len(texts.row_R), *part.shape[1:]), read.state))
    uniform_R = torch.empty(len(texts.row_R), dtype=torch.float64, device=tokens_BT.device)
    given_B = torch.full_like(tokens_BT[:, 0], policy.start_token)
    alive_R = texts.row_R[:0]
    draw = partial(_draw, texts, furthest=policy.furthest_logit if isinstance(policy, PolicyModule) else math.inf)

    for position in range(max_length):
        joining_R = torch.arange(starts[position], starts[position + 1], device=tokens_BT.device)
        writing_R = torch.cat([alive_R, joining_R])
        keys = keys_R[writing_R]
        of_R = {"prefix": texts.prefix_R[writing_R], "rollout": texts.rollout_R[writing_R]}
        uniform_R[writing_R] = keyed_uniform(keys.seed_B, keys.episode_B, position=position, stream=stream, **of_R)
        for rows_r in row_tiles(alive_R, tile):
            logits_rV = written.step(texts.tokens_RT[:, position - 1], rows_r)
            draw(rows_r, position, logits_rV, uniform_R[rows_r])

        for rows_b in row_tiles((longest_B >= position).nonzero()[:, 0], tile):
            logits_bV = read.step(given_B, rows_b)
            # All completions of a prefix draw their first token from one distribution and start from one state.
            chosen_b = wanted_BT[rows_b, position]
            rows_r, joining_R = joining_R.tensor_split([int(chosen_b.sum()) * rollouts])
            if len(rows_r):
                # Of a large array a copy costs as much as the draw.
                wanted_bV = logits_bV if len(rows_r) == len(rows_b) * rollouts else logits_bV[chosen_b]
                draw(rows_r, position, wanted_bV, uniform_R[rows_r].view(-1, rollouts))
                written.put(rows_r, read.get(texts.row_R[rows_r]))
        given_B = tokens_BT[:, position]

        alive_R = writing_R
        if end_token is not None:
            ended_R = texts.tokens_RT[writing_R, position] == end_token
            texts.lengths_R[writing_R[ended_R]] = position + 1
            alive_R = writing_R[~ended_R]


def _draw(
    texts: Completions, rows_r: Tensor | slice, position: int, logits_bV: Tensor, uniform: Tensor, *, furthest: float
) -> None:
    """Draw the tokens of some rows at a position; logits are overwritten, the highest no further from 0 than that."""
    if texts.logp_RT is None:
        drawn = sample_categorical(logits_bV, uniform, overwrite=True, furthest=furthest)
    else:
        drawn, share = sample_with_probability(logits_bV, uniform, overwrite=True, furthest=furthest)
        texts.logp_RT[rows_r, position] = share.flatten().log_()
    texts.tokens_RT[rows_r, position] = drawn.flatten()


def _generate_side_by_side(
    policy: Policy,
    state: State,
    tokens_BT: Tensor,
    texts: Completions,
    *,
    keys_R: Keys,
    starts: list[int],
    end_token: int | None,
    stream: Stream,
    tile: int,
) -> None:
    """The pass over time where starting a kernel is dear; fills ``texts`` in place, as `_generate` does.

    All shapes are known beforehand, so the host never waits. The texts that are read come first, their completions
    after them in the order in which they join; at each position all of them are stepped and drawn together. What has
    ended is written on, and cut off at the end.
    """
    (batch, length), pad, count = tokens_BT.shape, policy.vocab_size, starts[-1]
    columns_T = torch.arange(length, device=tokens_BT.device)
    # What follows the end of a text that is read matters to nobody, but no policy need know how to read PAD.
    tokens_XT = torch.cat([tokens_BT.clamp(max=pad - 1), texts.tokens_RT])
    tokens_XS = functional.pad(tokens_XT, (1, 0), value=policy.start_token)
    rows, writing = _SideBySide(policy, state, batch, batch + count), replace(texts, tokens_RT=tokens_XS[batch:, 1:])
    at_once = max(1, _DRAWS // count)
    for position in range(length):
        if position % at_once == 0:
            places = columns_T[position : position + at_once]
            of_R = {"prefix": texts.prefix_R[:, None], "rollout": texts.rollout_R[:, None]}
            seed_R1, episode_R1 = keys_R.seed_B[:, None], keys_R.episode_B[:, None]
            uniform_RP = keyed_uniform(seed_R1, episode_R1, position=places, stream=stream, **of_R)
        rows.join(texts.row_R[starts[position] : starts[position + 1]])
        if starts[position + 1] == count:  # nothing is read any more
            rows.leave(batch)
        for start, logits_rV in rows.step(tokens_XS[:, position], tile):
            written = slice(max(0, start - batch), start + len(logits_rV) - batch)
            if written.start < written.stop:
                uniform_w = uniform_RP[written, position % at_once]
                _draw(writing, written, position, logits_rV[-len(uniform_w) :], uniform_w, furthest=math.inf)
    texts.tokens_RT.copy_(tokens_XS[batch:, 1:])
    if end_token is not None:
        ends_RT = (texts.tokens_RT == end_token) & (columns_T >= texts.prefix_R[:, None])
        texts.lengths_R.copy_(torch.where(ends_RT, columns_T + 1, length).amin(1))
        ended_RT = columns_T >= texts.lengths_R[:, None]
        texts.tokens_RT.masked_fill_(ended_RT, pad)
        if texts.logp_RT is not None:
            texts.logp_RT.masked_fill_(ended_RT, 0.0)


class _SideBySide:
    """The states of rows that stand side by side: rows join at the end, as copies of others, and leave in front.

    A policy that writes into its state, as a transformer does, finds room for all rows there. The others' states are
    made anew by each step, so nothing is copied.
    """

    def __init__(self, policy: Policy, state: State, batch: int, most: int) -> None:
        self.policy, self.state, self.first, self.end = policy, state, 0, batch
        self.writes = isinstance(policy, PolicyModule) and type(policy).step_rows is not PolicyModule.step_rows
        if self.writes:
            room = (0, most - self.end)
            self.state = map_state(lambda part: functional.pad(part, (0, 0) * (part.dim() - 1) + room), state)

    def join(self, row_J: Tensor) -> None:
        """Let copies of some rows join; none may have left."""
        if not len(row_J):
            return
        joining = slice(self.end, self.end + len(row_J))
        if self.writes:
            map_state(Tensor.copy_, _at(self.state, joining), _at(self.state, row_J))
        else:
            self.state = map_state(lambda part: torch.cat([part, part[row_J]]), self.state)
        self.end = joining.stop

    def leave(self, first: int) -> None:
        """Let the rows before ``first`` leave; the others keep their numbers."""
        if not self.writes:
            self.state = _at(self.state, slice(first - self.first, None))
        self.first = first

    def step(self, last_X: Tensor, tile: int) -> Iterator[tuple[int, Tensor]]:
        """Step all rows on their last tokens, some at a time: the number of the first of them, and their logits."""
        after = []
        for start in range(self.first, self.end, tile):
            rows = slice(start, min(start + tile, self.end))
            if self.writes:
                yield start, _step(self.policy, last_X[rows], self.state, rows)
            else:
                its = _at(self.state, slice(start - self.first, rows.stop - self.first))
                logits_rV, its = checked_step(self.policy, last_X[rows], its)
                after.append(its)
                yield start, logits_rV
        if after:
            self.state = after[0] if len(after) == 1 else map_state(lambda *parts: torch.cat(parts), *after)


def _at(state: State, rows: Tensor | slice) -> State:
    """The state of some rows; of a slice of them no copy but a view, in which it can be changed."""
    return map_state(lambda part: part[rows], state)


def _step(policy: Policy, tokens_r: Tensor, state: State, rows: Tensor | slice) -> Tensor:
    """Step some rows of a state in place; returns their logits, float (r, V)."""
    if isinstance(policy, PolicyModule):
        return policy.step_rows(tokens_r, state, rows)
    return step_rows(policy, tokens_r, state, rows)


def _tile(tile: int | None, device: torch.device) -> int:
    """The rows stepped at once."""
    require_at_least(1, tile=tile)
    return TILE.on(device) if tile is None else tile


def row_tiles(rows_R: Tensor, tile: int) -> tuple[Tensor, ...]:
    """The rows, some at a time."""
    return rows_R.split(tile) if len(rows_R) else ()


class Memory:
    """The policy's state of many rows, read and written some rows at a time."""

    def __init__(self, policy: Policy, state: State) -> None:
        self.policy = policy
        self.state = state

    def get(self, rows_r: Tensor) -> State:
        """The state of some rows."""
        return _at(self.state, rows_r)

    def put(self, rows_r: Tensor, state: State) -> None:
        """Set the state of some rows."""
        map_state(lambda whole, part: whole.index_copy_(0, rows_r, part), self.state, state)

    def step(self, last_R: Tensor, rows_r: Tensor) -> Tensor:
        """Step some rows of the policy on their last tokens; returns their logits (rows, V)."""
        count = len(rows_r)
        if count >= _SMALLEST_TILE:
            return _step(self.policy, last_R[rows_r], self.state, rows_r)
        padded_r = torch.cat([rows_r, rows_r[-1:].expand(_SMALLEST_TILE - count)])
        state = self.get(padded_r)
        logits_rV = _step(self.policy, last_R[padded_r], state, slice(0, _SMALLEST_TILE))
        self.put(rows_r, map_state(lambda part: part[:count], state))
        return logits_rV[:count]
