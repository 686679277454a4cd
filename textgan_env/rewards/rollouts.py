"""Monte-Carlo completions: every prefix of every text, N times, in one pass over time.

The prefixes of one text share their beginning, so the text is read once, token by token. When its first p tokens have
been read, the completions of that prefix join the rows that are being generated, starting from a copy of the state
reached; from then on every row is an independent text. SeqGAN's published code makes N x T passes instead, each from
the first token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textgan_env.ops.episodes import check_prefix
from textgan_env.ops.sampling import Stream, evaluating, keyed_uniform, sample_categorical
from textgan_env.ops.tiles import Tile
from textgan_env.policies.base import Policy, PolicyModule, State, map_state
from textgan_env.rewards.texts import Keys
from textgan_env.utils.errors import require, require_at_least

#: Rows stepped at once. Larger tiles push the logits out of the cache; tiles under 32 rows would take other code paths
#: in the matrix product and round differently, so that a draw could depend on how rows were grouped.
TILE = Tile(cpu=256, gpu=16_384)
_SMALLEST_TILE = 32


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
    """

    tokens_RT: Tensor
    lengths_R: Tensor
    row_R: Tensor
    prefix_R: Tensor
    rollout_R: Tensor


def complete(
    policy: Policy,
    tokens_BT: Tensor,
    wanted_BT: Tensor,
    *,
    keys: Keys,
    rollouts: int = 1,
    end_token: int | None = None,
    stream: Stream = Stream.ROLLOUT,
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
        tile: Rows stepped at once; changes memory and speed, never a draw. None: `TILE` of the device.

    Returns:
        `Completions`, ordered by prefix length, row and rollout.

    Raises:
        InputError: If N is below 1 or shapes do not fit.
    """
    tile = TILE.on(tokens_BT.device) if tile is None else tile
    _check_sizes(tokens_BT, wanted_BT, rollouts, tile)
    prefix_R, row_R = (part.repeat_interleave(rollouts) for part in wanted_BT.t().nonzero(as_tuple=True))
    is_given_RT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device) < prefix_R[:, None]
    texts = Completions(
        tokens_RT=tokens_BT[row_R].masked_fill(~is_given_RT, policy.vocab_size),
        lengths_R=torch.full_like(row_R, tokens_BT.shape[1]),
        row_R=row_R,
        prefix_R=prefix_R,
        rollout_R=torch.arange(rollouts, device=tokens_BT.device).repeat(len(prefix_R) // rollouts),
    )
    if len(row_R):
        how: Any = {"rollouts": rollouts, "end_token": end_token, "stream": stream, "tile": tile}
        with evaluating(policy), torch.inference_mode():
            _generate(for_texts(policy, keys), tokens_BT, wanted_BT, texts, keys_R=keys[row_R], **how)
    return texts


def _check_sizes(tokens_BT: Tensor, wanted_BT: Tensor, rollouts: int, tile: int) -> None:
    """Refuse shapes that do not fit, and numbers that are out of range."""
    require_at_least(1, rollouts=rollouts, tile=tile)
    shape, wanted = tuple(tokens_BT.shape), tuple(wanted_BT.shape)
    require(shape == wanted, f"tokens and wanted prefixes must have one shape, found {shape} and {wanted}")
    # Beyond these the keys of two draws would be one.
    require(tokens_BT.shape[1] < 2**16, f"a text has at most 65,535 tokens, found T={tokens_BT.shape[1]}")
    require(rollouts < 2**24, f"a prefix has at most 16,777,215 completions, found {rollouts}")


def generate(
    policy: Policy,
    keys: Keys,
    max_length: int,
    *,
    end_token: int | None = None,
    prefix: Sequence[int] = (),
    stream: Stream = Stream.TEXT,
    tile: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Generate one text for each key, from the first token on or from the end of a given prefix.

    Args:
        policy: Generates.
        keys: Of the draws, one a text.
        max_length: T.
        end_token: The token that ends a text before T tokens. None: every text has T tokens.
        prefix: Tokens that every text begins with.
        stream: What the draws are for.
        tile: Rows stepped at once; changes memory and speed, never a draw. None: `TILE` of the device.

    Returns:
        tokens_BT: int64, the prefix included, PAD after the end.
        lengths_B: int64.

    Raises:
        InputError: If T is below 1, or the prefix has no room in it or holds a token that may not stand there.
    """
    require(max_length >= 1, f"a text must have room for at least 1 token, found T={max_length}")
    check_prefix(np.array(prefix, dtype=np.int64), max_length, policy.vocab_size, end_token)
    tokens_BT = torch.full((len(keys.seed_B), max_length), policy.vocab_size, device=keys.seed_B.device)
    tokens_BT[:, : len(prefix)] = torch.tensor(prefix, dtype=torch.int64, device=tokens_BT.device)
    wanted_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
    wanted_BT[:, len(prefix)] = True
    texts = complete(policy, tokens_BT, wanted_BT, keys=keys, end_token=end_token, stream=stream, tile=tile)
    return texts.tokens_RT, texts.lengths_R


def _generate(
    policy: Policy,
    tokens_BT: Tensor,
    wanted_BT: Tensor,
    texts: Completions,
    *,
    keys_R: Keys,
    rollouts: int,
    end_token: int | None,
    stream: Stream,
    tile: int,
) -> None:
    """The pass over time; fills ``texts`` in place."""
    max_length = tokens_BT.shape[1]
    columns_T = torch.arange(max_length + 1, device=tokens_BT.device)
    longest_B = (wanted_BT * columns_T[1:]).amax(1) - 1  # the longest prefix each row is asked for; -1: none
    starts = torch.searchsorted(texts.prefix_R, columns_T).tolist()
    read = _Memory(policy, map_state(torch.clone, policy.begin(len(tokens_BT))))
    # Every row's own state comes from `step` or `put` before it is read.
    written = _Memory(policy, map_state(lambda part: part.new_zeros(len(texts.row_R), *part.shape[1:]), read.state))
    uniform_R = torch.empty(len(texts.row_R), dtype=torch.float64, device=tokens_BT.device)
    given_B = torch.full_like(tokens_BT[:, 0], policy.start_token)
    alive_R = texts.row_R[:0]

    for position in range(max_length):
        joining_R = torch.arange(starts[position], starts[position + 1], device=tokens_BT.device)
        writing_R = torch.cat([alive_R, joining_R])
        keys = keys_R[writing_R]
        of_R = {"prefix": texts.prefix_R[writing_R], "rollout": texts.rollout_R[writing_R]}
        uniform_R[writing_R] = keyed_uniform(keys.seed_B, keys.episode_B, position=position, stream=stream, **of_R)
        for rows_r in _tiles(alive_R, tile):
            logits_rV = written.step(texts.tokens_RT[:, position - 1], rows_r)
            texts.tokens_RT[rows_r, position] = sample_categorical(logits_rV, uniform_R[rows_r], overwrite=True)

        for rows_b in _tiles((longest_B >= position).nonzero()[:, 0], tile):
            logits_bV = read.step(given_B, rows_b)
            # All completions of a prefix draw their first token from one distribution and start from one state.
            chosen_b = wanted_BT[rows_b, position]
            rows_r, joining_R = joining_R.tensor_split([int(chosen_b.sum()) * rollouts])
            if len(rows_r):
                drawn_bN = sample_categorical(logits_bV[chosen_b], uniform_R[rows_r].view(-1, rollouts), overwrite=True)
                texts.tokens_RT[rows_r, position] = drawn_bN.flatten()
                written.put(rows_r, read.get(texts.row_R[rows_r]))
        given_B = tokens_BT[:, position]

        alive_R = writing_R
        if end_token is not None:
            ended_R = texts.tokens_RT[writing_R, position] == end_token
            texts.lengths_R[writing_R[ended_R]] = position + 1
            alive_R = writing_R[~ended_R]


def _tiles(rows_R: Tensor, tile: int) -> tuple[Tensor, ...]:
    """The rows, some at a time."""
    return rows_R.split(tile) if len(rows_R) else ()


class _Memory:
    """The policy's state of many rows, read and written some rows at a time."""

    def __init__(self, policy: Policy, state: State) -> None:
        self.policy = policy
        self.state = state

    def get(self, rows_r: Tensor) -> State:
        """The state of some rows."""
        return map_state(lambda part: part[rows_r], self.state)

    def put(self, rows_r: Tensor, state: State) -> None:
        """Set the state of some rows."""
        map_state(lambda whole, part: whole.index_copy_(0, rows_r, part), self.state, state)

    def step(self, last_R: Tensor, rows_r: Tensor) -> Tensor:
        """Step some rows of the policy on their last tokens; returns their logits (rows, V)."""
        count = len(rows_r)
        padded_r = torch.cat([rows_r, rows_r[-1:].expand(max(0, _SMALLEST_TILE - count))])
        logits_rV, state = self.policy.step(last_R[padded_r], self.get(padded_r))
        self.put(rows_r, map_state(lambda part: part[:count], state))
        return logits_rV[:count]
