"""The only state machine of episodes: where a text starts, grows and ends, for B texts side by side."""

import numpy as np
from numpy.typing import NDArray

from textgan_env.utils.errors import InputError, require, require_at_least

#: Arrays of bool.
Bools = NDArray[np.bool_]
#: Arrays of int64.
Ints = NDArray[np.int64]


class Episodes:
    """B texts being written.

    A text ends with its end token or with its T-th token. Row b counts its episodes from 0 after each `seed`; the pair
    (seed, episode) keys every random draw made for the text.

    Attributes:
        tokens_BT: int64; what is written, PAD = V elsewhere.
        lengths_B: int64; tokens written, the end token included.
        given_B: int64; how many of them were given as a prefix.
        started_B: bool; False before the first `begin`.
        ended_B: bool; True when nothing can be added any more.
        seed_B: int64.
        episode_B: int64; -1 before the first `begin`.

    Args:
        rows: B.
        max_length: T.
        vocab_size: V.
        end_token: The token that ends a text early, or None.
        forbidden: Tokens that may not be written.

    Raises:
        InputError: If B, T or V is below 1.
    """

    def __init__(
        self, rows: int, max_length: int, vocab_size: int, end_token: int | None, forbidden: tuple[int, ...] = ()
    ) -> None:
        require_at_least(1, **{"the number of texts": rows}, T=max_length, V=vocab_size)
        self.max_length, self.vocab_size, self.end_token = max_length, vocab_size, end_token
        self.writable_V: Bools = np.ones(vocab_size, dtype=np.bool_)
        self.writable_V[list(forbidden)] = False
        self.tokens_BT: Ints = np.full((rows, max_length), vocab_size, dtype=np.int64)
        self.lengths_B: Ints = np.zeros(rows, dtype=np.int64)
        self.given_B: Ints = np.zeros(rows, dtype=np.int64)
        self.started_B: Bools = np.zeros(rows, dtype=np.bool_)
        self.ended_B: Bools = np.zeros(rows, dtype=np.bool_)
        self.seed_B: Ints = np.zeros(rows, dtype=np.int64)
        self.episode_B: Ints = np.full(rows, -1, dtype=np.int64)

    def seed(self, rows_B: Bools, seeds: Ints) -> None:
        """Give some rows new seeds; their episodes count from 0 again."""
        self.seed_B[rows_B] = seeds
        self.episode_B[rows_B] = -1

    def begin(self, rows_B: Bools, prefix: Ints | None = None) -> None:
        """Start a new text in some rows.

        Args:
            rows_B: bool; which.
            prefix: int64 tokens that every new text starts with.

        Raises:
            InputError: If the prefix leaves no room to write or holds a token that may not stand in it.
        """
        prefix = np.empty(0, dtype=np.int64) if prefix is None else prefix
        check_prefix(prefix, self.max_length, self.vocab_size, self.end_token)
        self.episode_B[rows_B] += 1
        self.tokens_BT[rows_B] = self.vocab_size
        self.tokens_BT[rows_B, : len(prefix)] = prefix
        self.lengths_B[rows_B] = self.given_B[rows_B] = len(prefix)
        self.ended_B[rows_B] = False
        self.started_B[rows_B] = True

    def append(self, rows_B: Bools, tokens_B: Ints) -> None:
        """Write one token in some rows; nothing is written if any of them is refused.

        Args:
            rows_B: bool; which.
            tokens_B: int64 (B,); what, ignored elsewhere.

        Raises:
            InputError: If a row was not begun or has ended, or a token may not be written.
        """
        require(bool(self.started_B[rows_B].all()), "step was called before reset: call reset() first")
        require(not self.ended_B[rows_B].any(), "step was called after the end of a text: call reset() first")
        tokens = tokens_B[rows_B]
        wrong = tokens[(tokens < 0) | (tokens >= self.vocab_size)]
        require(not len(wrong), f"tokens must be 0 to {self.vocab_size - 1}, found {wrong[:1]}")
        barred = tokens[~self.writable_V[tokens]]
        require(not len(barred), f"a token that is never generated, such as UNK, was to be written: {barred[:1]}")

        self.tokens_BT[rows_B, self.lengths_B[rows_B]] = tokens
        self.lengths_B[rows_B] += 1
        self.ended_B[rows_B] = self.lengths_B[rows_B] == self.max_length
        if self.end_token is not None:
            self.ended_B[rows_B] |= tokens == self.end_token

    def fill(self, tokens_BT: Ints) -> None:
        """Take whole finished texts for all rows, each begun before; int64, PAD after the end."""
        self.tokens_BT[:] = tokens_BT
        self.lengths_B[:] = (tokens_BT != self.vocab_size).sum(1)
        self.ended_B[:] = True


def check_prefix(prefix: Ints, max_length: int, vocab_size: int, end_token: int | None) -> None:
    """Refuse what no text can begin with.

    Args:
        prefix: int64; the tokens.
        max_length: T.
        vocab_size: V.
        end_token: The token that ends a text early, or None.

    Raises:
        InputError: If the prefix leaves no room to write or holds a token that may not stand in it.
    """
    found = len(prefix) if prefix.ndim == 1 else f"an array of shape {prefix.shape}"
    fits = prefix.ndim == 1 and len(prefix) < max_length
    require(fits, f"a prefix must be a list of fewer than T={max_length} tokens, found {found}")
    for token in prefix.tolist():
        if not 0 <= token < vocab_size or token == end_token:
            raise InputError(f"a prefix may hold tokens from 0 to {vocab_size - 1} and no end token, found {token}")
