"""Exponentials of logits: beside the product that makes the logits, the most of what a draw or a likelihood costs."""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from textgan_env.utils.machine import processor_name

# A row whose highest logit is no further from 0 is not moved before it goes through exp: V of them do not overflow, and
# what becomes 0 is less probable than e^-27 times the highest, which float32 does not see beside it.
_FURTHEST = 60.0
# Where torch goes over an array, what is left behind its last whole vectors is computed in another way.
_VECTORS = 32
_LOG2_E = math.log2(math.e)


def proportional_exp_(logits_RV: Tensor, *, furthest: float = math.inf) -> None:
    """Overwrite logits with numbers in proportion to their exponentials, as `shifted_exp_` does.

    Where softmax makes them, nobody asks what was taken off: on a GPU that would be three kernels more.

    Args:
        logits_RV: float, contiguous.
        furthest: See `shifted_exp_`.
    """
    if _by_softmax(logits_RV):
        torch.softmax(logits_RV, 1, out=logits_RV)
    else:
        shifted_exp_(logits_RV, furthest=furthest)


def shifted_exp_(logits_RV: Tensor, *, furthest: float = math.inf) -> Tensor:
    """Overwrite logits with exp of what is left when something is taken off each row, so that its sum is finite, not 0.

    On one thread a row is gone over twice, for its highest logit and for exp, in about half of the time of
    `torch.softmax`; only a row of very high or very low logits is moved before. What becomes of a row never depends on
    the rows beside it, nor on what is known of it.

    Args:
        logits_RV: float, contiguous. A row that holds NaN or infinity, or nothing but -infinity, becomes NaN.
        furthest: How far from 0 the highest logit of a row can be, if that is known: below 59 it is not looked for.

    Returns:
        What was taken off, float (R, 1).
    """
    if _by_softmax(logits_RV):
        highest_R1 = logits_RV.amax(1, keepdim=True)
        torch.softmax(logits_RV, 1, out=logits_RV)
        return highest_R1 - logits_RV.amax(1, keepdim=True).log_()
    if furthest < _FURTHEST * 0.99:  # logits are rounded
        taken_R1 = logits_RV.new_zeros(len(logits_RV), 1)
    else:
        highest_R1 = logits_RV.amax(1, keepdim=True)
        as_it_is_R1 = highest_R1.abs() <= _FURTHEST
        taken_R1 = highest_R1.masked_fill_(as_it_is_R1, 0.0)
        if not as_it_is_R1.all():
            logits_RV.sub_(taken_R1)
    flat = logits_RV.view(-1)
    last = flat[-_VECTORS:]
    last_as_vectors = _exp_(functional.pad(last, (0, _VECTORS - len(last))))[: len(last)]
    _exp_(flat)
    flat[-_VECTORS:] = last_as_vectors
    return taken_R1


def _exp_(values: Tensor) -> Tensor:
    """The exponentials of numbers, in their place."""
    return values.mul_(_LOG2_E).exp2_() if _exp2_is_faster() else values.exp_()


@cache
def _exp2_is_faster() -> bool:
    """Whether exp is that of Intel's library, which on AMD's processors takes three times as long as torch's exp2."""
    return torch.backends.mkl.is_available() and "AMD" in processor_name()


def _by_softmax(logits_RV: Tensor) -> bool:
    """Several threads would cut the array at places that depend on R; softmax is shared out by rows."""
    return logits_RV.device.type != "cpu" or logits_RV.dtype != torch.float32 or torch.get_num_threads() > 1
