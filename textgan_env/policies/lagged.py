"""A copy of a policy that follows it: the lagged rollout policy, and averages of weights over training."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import nn

from textgan_env.utils.errors import require

Module = TypeVar("Module", bound=nn.Module)


class LaggedCopy(Generic[Module]):
    """A copy whose weights are the exponential moving average of the original's.

    SeqGAN's published code means to roll out with such a copy (rate 0.8), but its sampling graph reads the live
    weights, so that the rollout policy there is the current one; the paper has no lag. Averaging the weights of an
    MLE run is the other use (rates of .99 and above).

    Args:
        policy: What is followed; the copy begins with its weights.
        rate: Share of the old weights that an update keeps, 0 to 1.

    Attributes:
        policy: The copy: without gradients, dropout off.

    Raises:
        InputError: If the rate is out of its range.
    """

    def __init__(self, policy: Module, rate: float) -> None:
        require(0 <= rate <= 1, f"the rate of a lagged copy must be 0 to 1, found {rate}")
        self.rate = rate
        self.policy = copy.deepcopy(policy).eval().requires_grad_(False)

    @contextmanager
    def applied(self, module: Module) -> Iterator[None]:
        """Inside, a module of the same architecture has the copy's weights."""
        own = copy.deepcopy(module.state_dict())
        module.load_state_dict(self.policy.state_dict())
        try:
            yield
        finally:
            module.load_state_dict(own)

    @torch.no_grad()
    def update(self, source: Module, *, step: int | None = None) -> None:
        """Move the weights: rate * old + (1 - rate) * new. What is not float (counts, keys) is copied.

        Args:
            source: The original, or a module of the same architecture.
            step: Which update this is, from 1: the first ones keep step / (step + 10) of the old at most, so that the
                random start is forgotten soon. None: all updates keep the same share.

        Raises:
            InputError: If its tensors have other names or shapes.
        """
        rate = self.rate if step is None else min(self.rate, step / (step + 10))
        new, old = source.state_dict(), self.policy.state_dict()
        theirs, ours = ({name: tensor.shape for name, tensor in state.items()} for state in (new, old))
        require(theirs == ours, "a lagged copy follows its own architecture only, found other names or shapes")
        for name, tensor in old.items():
            if tensor.is_floating_point():
                tensor.mul_(rate).add_(new[name], alpha=1 - rate)
            else:
                tensor.copy_(new[name])
