"""Exponentials of logits: beside the product that makes the logits, the most of what a draw or a likelihood costs."""

import math

import torch
from torch import Tensor
from torch.nn import functional

_LOG2_E = math.log2(math.e)
# Where torch goes over an array, what is left behind its last whole vectors is computed in another way.
_VECTORS = 32


def proportional_exp_(logits_RV: Tensor) -> Tensor:
    """Overwrite logits with numbers in proportion to their exponentials, the largest of a row at most about 1.

    On one thread exp2 makes them, the fastest of the exponentials, in two thirds of the time of `torch.softmax`. What
    becomes of a row never depends on the rows beside it.

    Args:
        logits_RV: float, contiguous. A row that holds NaN or infinity, or nothing but -infinity, becomes NaN.

    Returns:
        The highest logit of each row, float (R, 1).
    """
    highest_R1 = logits_RV.amax(1, keepdim=True)
    if logits_RV.device.type != "cpu" or logits_RV.dtype != torch.float32 or torch.get_num_threads() > 1:
        # Several threads would cut the array at places that depend on R; softmax is shared out by rows.
        torch.softmax(logits_RV, 1, out=logits_RV)
        return highest_R1
    torch.add(highest_R1 * -_LOG2_E, logits_RV, alpha=_LOG2_E, out=logits_RV)
    flat = logits_RV.view(-1)
    last = flat[-_VECTORS:]
    last_as_vectors = functional.pad(last, (0, _VECTORS - len(last))).exp2_()[: len(last)]
    flat.exp2_()
    flat[-_VECTORS:] = last_as_vectors
    return highest_R1
