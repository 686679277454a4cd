"""How many rows are worked on at once, and sums whose terms are too large to be held for all rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Tile:
    """Rows worked on at once, by device; it changes memory and speed only.

    On a CPU so few that what is worked on stays in its cache. On a GPU, where starting a kernel costs more than the
    cache saves, as many as fit well into its memory; these numbers were chosen by their size and never timed.

    Attributes:
        cpu: Rows, at least 1.
        gpu: Likewise, on any device but a CPU.
    """

    cpu: int
    gpu: int

    def on(self, device: torch.device) -> int:
        """The rows for a device."""
        return self.cpu if device.type == "cpu" else self.gpu


def numbers_of(mask_X: Tensor) -> Tensor:
    """Which cells of a mask to work on, int64 (R,): on a CPU the True ones; elsewhere all, as to count them would wait.

    Args:
        mask_X: bool, one axis.
    """
    return mask_X.nonzero()[:, 0] if mask_X.device.type == "cpu" else torch.arange(len(mask_X), device=mask_X.device)


def asked_length(mask_BT: Tensor) -> int:
    """The places up to the last that a mask asks for, at least 1; all T where it asks for none.

    Texts may end long before T. On other devices than a CPU it is T, as where they end would have to be waited for.

    Args:
        mask_BT: bool.
    """
    asked = mask_BT.device.type == "cpu" and mask_BT.any()
    return int(mask_BT.any(0).nonzero().amax()) + 1 if asked else mask_BT.shape[1]


def tiled_sum(
    value: Callable[..., Tensor], batch: Sequence[Tensor], parameters: Sequence[nn.Parameter], *, rows: int
) -> tuple[Tensor, Tensor]:
    """The sum of something over the rows of a batch, made with its gradient some rows at a time.

    Whatever the terms are made of (log-probabilities of all V tokens at each prefix) is there for a tile only, in the
    backward pass, too: the gradient of a sum is known as soon as its terms are.

    Args:
        value: Some rows of the batch -> float tensor with these rows as first axis, differentiable; one row must not
            depend on the others.
        batch: Tensors with the same B rows as first axis.
        parameters: What the gradient is for.
        rows: Rows of a tile; changes memory, speed and rounding.

    Returns:
        The sum, float scalar, differentiable once; and the values of all rows, without gradients.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad and torch.is_grad_enabled()]
    total, values = _TiledSum.apply(value, batch, rows, *learning)  # type: ignore[no-untyped-call]
    return total, values


class _TiledSum(torch.autograd.Function):
    """See `tiled_sum`."""

    @staticmethod
    def forward(
        ctx: Any, value: Callable[..., Tensor], batch: Sequence[Tensor], rows: int, *learning: nn.Parameter
    ) -> tuple[Tensor, Tensor]:
        """The sum, the values, and the gradient."""
        parts, ctx.gradients = [], [torch.zeros_like(parameter) for parameter in learning]
        for tile in zip(*(column.split(rows) for column in batch), strict=True):
            with torch.set_grad_enabled(bool(learning)):
                part = value(*tile)
                parts.append(part.detach())
                found = torch.autograd.grad(part.sum(), learning, allow_unused=True) if learning else ()
            for gradient, more in zip(ctx.gradients, found, strict=True):
                gradient += 0 if more is None else more
        values = torch.cat(parts)
        ctx.mark_non_differentiable(values)
        return values.sum(), values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient, as much of it as the sum counts."""
        return None, None, None, *(grad * gradient for gradient in ctx.gradients)
