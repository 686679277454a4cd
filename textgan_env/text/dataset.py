"""The texts of one split as token ids."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from textgan_env.utils.errors import require, require_at_least, require_known

#: The parts of a corpus: to learn from, to choose by, to measure on.
Split = Literal["train", "valid", "test"]
#: A file, as a string or a path.
PathLike = str | os.PathLike[str]

#: A table of token ids is held whole in memory: at most 8 GiB of int64.
MOST_CELLS = 2**30
#: T that nobody asked for is at most this.
SANE_LENGTH = 1000
# What no text needs, and memory of every kind grows with.
_LONGEST_TEXT = 2**16  # tokens


@dataclass(frozen=True, eq=False)
class TokenDataset:
    """The texts of one split as token ids.

    Attributes:
        split: Which one.
        tokens_BT: The texts, int64 [B, T], each filled up with PAD after its end.
        lengths_B: How many tokens each has, EOS counted, int64 [B].
        pad: The id PAD.

    Raises:
        InputError: If there is no text, shapes or types do not fit, or PAD does not stand just after the ends.
    """

    split: Split
    tokens_BT: Tensor
    lengths_B: Tensor
    pad: int

    def __post_init__(self) -> None:
        """Refuse tables that do not fit."""
        require_known("split", self.split, get_args(Split))
        for name, tensor, axes in (("tokens_BT", self.tokens_BT, 2), ("lengths_B", self.lengths_B, 1)):
            fits, found = tensor.dtype == torch.int64 and tensor.dim() == axes, f"{tensor.dtype} {tuple(tensor.shape)}"
            require(fits, f"{name} must be int64 with {axes} axes, found {found}")
        rows, width = self.tokens_BT.shape
        require(rows >= 1, f"the {self.split} split holds no text")
        require(len(self.lengths_B) == rows, f"expected {rows} lengths, found {len(self.lengths_B)}")
        shortest, longest = int(self.lengths_B.min()), int(self.lengths_B.max())
        require(shortest >= 1 and longest <= width, f"lengths must lie in 1..{width}, found {shortest}..{longest}")
        written = self.tokens_BT != self.pad
        require(torch.equal(written, self.mask_BT), f"PAD ({self.pad}) must stand after the end and only there")

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self.lengths_B)

    @property
    def mask_BT(self) -> Tensor:
        """True before the end of each text (EOS counted), bool [B, T]."""
        positions_T = torch.arange(self.tokens_BT.shape[1], device=self.tokens_BT.device)
        return positions_T < self.lengths_B[:, None]

    def lists(self) -> list[list[int]]:
        """Give the texts as lists of ids without PAD; EOS, where there is one, is the last id."""
        return [row[:length] for row, length in zip(self.tokens_BT.tolist(), self.lengths_B.tolist(), strict=True)]

    def head(self, n: int) -> Self:
        """Give the first ``n`` texts, or all if there are fewer."""
        require(n >= 1, f"the number of texts must be at least 1, found {n}")
        return type(self)(self.split, self.tokens_BT[:n], self.lengths_B[:n], self.pad)

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Go once through all texts in a fresh random order.

        Args:
            batch_size: B, texts a batch; the last one may be smaller.
            generator: Draws the order, at once.

        Returns:
            An iterator of (tokens_BT int64 [B, T], mask_BT bool [B, T]).

        Raises:
            InputError: If ``batch_size`` is not positive.
        """
        require_at_least(1, batch_size=batch_size)
        order_B = torch.randperm(len(self), generator=generator, device=generator.device).to(self.tokens_BT.device)
        mask_BT = self.mask_BT
        return ((self.tokens_BT[rows_B], mask_BT[rows_B]) for rows_B in order_B.split(batch_size))


def check_length(max_length: int) -> None:
    """Refuse a T that no text needs.

    Raises:
        InputError: If it is above 65,536.
    """
    require(max_length <= _LONGEST_TEXT, f"max_length must be at most {_LONGEST_TEXT:,}, found {max_length}")
