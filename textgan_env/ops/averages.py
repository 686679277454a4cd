"""A number that follows what it is shown."""

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """An exponential moving average of one number; a module, because what it remembers belongs in a checkpoint.

    Args:
        decay: Share of the old value that an update keeps, 0 to 1. The first update keeps nothing.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.value, self.updates = nn.Buffer(torch.zeros(())), nn.Buffer(torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, new: Tensor) -> Tensor:
        """Take in a number, float scalar; returns the average with it."""
        kept = self.decay * (self.updates > 0)
        self.value.copy_(kept * self.value + (1 - kept) * new)
        self.updates.add_(1)
        return self.value
