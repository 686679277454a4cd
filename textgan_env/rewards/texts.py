"""Texts as tensors, from the first draw to the loss: tokens, lengths, and what their draws are keyed by."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from textgan_env.ops.episodes import Episodes


@dataclass(frozen=True)
class Keys:
    """What the draws of B rows are keyed by: the seed and the episode of each row, int64 (B,)."""

    seed_B: Tensor
    episode_B: Tensor

    @classmethod
    def counted(cls, seed: int, rows: int, *, first_episode: int = 0, device: torch.device | None = None) -> "Keys":
        """One seed for all rows, episodes counted on from ``first_episode``."""
        episode_B = torch.arange(first_episode, first_episode + rows, device=device)
        return cls(torch.full_like(episode_B, seed), episode_B)

    @classmethod
    def of(cls, episodes: Episodes, device: torch.device) -> "Keys":
        """Those of the texts that are being generated."""
        return cls(*torch.from_numpy(np.stack([episodes.seed_B, episodes.episode_B])).to(device).unbind())

    def __len__(self) -> int:
        """B."""
        return len(self.seed_B)

    def __getitem__(self, index_R: Tensor | slice) -> "Keys":
        """The keys of some rows."""
        return Keys(self.seed_B[index_R], self.episode_B[index_R])

    def to(self, device: torch.device) -> "Keys":
        """The same on a device."""
        return Keys(self.seed_B.to(device), self.episode_B.to(device))


def have_ended(tokens_BT: Tensor, lengths_B: Tensor, end_token: int | None) -> Tensor:
    """Which of some prefixes, of at least one token each, are whole texts: bool (B,)."""
    ended_B = lengths_B == tokens_BT.shape[1]
    if end_token is not None:
        ended_B |= tokens_BT.gather(1, lengths_B[:, None] - 1)[:, 0] == end_token
    return ended_B


@dataclass(frozen=True)
class Texts:
    """B texts, finished or still being generated.

    Attributes:
        tokens_BT: int64, PAD after the last token.
        lengths_B: int64.
        ended_B: bool; finished.
        keys: Of the draws made for each text.
        end_token: The token that ends a text early, or None.
    """

    tokens_BT: Tensor
    lengths_B: Tensor
    ended_B: Tensor
    keys: Keys
    end_token: int | None

    @classmethod
    def finished(cls, tokens_BT: Tensor, lengths_B: Tensor, keys: Keys, end_token: int | None) -> "Texts":
        """Texts that have all ended."""
        return cls(tokens_BT, lengths_B, torch.ones_like(lengths_B, dtype=torch.bool), keys, end_token)

    @classmethod
    def of(cls, episodes: Episodes, device: torch.device) -> "Texts":
        """The texts of an environment as far as they are generated."""
        arrays = (episodes.tokens_BT, episodes.lengths_B, episodes.ended_B)
        tokens_BT, lengths_B, ended_B = (torch.from_numpy(array.copy()).to(device) for array in arrays)
        return cls(tokens_BT, lengths_B, ended_B, Keys.of(episodes, device), episodes.end_token)

    def __len__(self) -> int:
        """B."""
        return len(self.tokens_BT)

    def __getitem__(self, rows: Tensor | slice) -> "Texts":
        """Some of the texts."""
        parts = (self.tokens_BT[rows], self.lengths_B[rows], self.ended_B[rows], self.keys[rows])
        return Texts(*parts, self.end_token)

    def joined(self, others: "Texts") -> "Texts":
        """These texts, then the others, of the same T and end token."""
        ours, theirs = (
            (one.tokens_BT, one.lengths_B, one.ended_B, one.keys.seed_B, one.keys.episode_B) for one in (self, others)
        )
        tokens_BT, lengths_B, ended_B, *keys = (torch.cat(pair) for pair in zip(ours, theirs, strict=True))
        return Texts(tokens_BT, lengths_B, ended_B, Keys(*keys), self.end_token)

    def to(self, device: torch.device) -> "Texts":
        """The same on a device."""
        parts = (self.tokens_BT.to(device), self.lengths_B.to(device), self.ended_B.to(device), self.keys.to(device))
        return Texts(*parts, self.end_token)

    @cached_property
    def mask_BT(self) -> Tensor:
        """The tokens generated, bool (B, T)."""
        return torch.arange(self.tokens_BT.shape[1], device=self.tokens_BT.device) < self.lengths_B[:, None]

    @property
    def last_BT(self) -> Tensor:
        """The last token of each finished text, bool (B, T)."""
        at_last_BT = torch.arange(self.tokens_BT.shape[1], device=self.tokens_BT.device) == self.lengths_B[:, None] - 1
        return at_last_BT & self.ended_B[:, None]
