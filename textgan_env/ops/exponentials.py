"""Exponentials of logits: beside the product that makes the logits, the most of what a draw or a likelihood costs."""

import torch
from torch import Tensor
from torch.nn import functional

# A row whose highest logit lies here is not moved before it goes through exp: V of them do not overflow, and what
# becomes 0 is less probable than e^-67 times the highest.
_LOWEST, _HIGHEST = -20.0, 60.0
# Where torch goes over an array, what is left behind its last whole vectors is computed in another way.
_VECTORS = 32


def proportional_exp_(logits_RV: Tensor) -> Tensor:
    """Overwrite logits with numbers in proportion to their exponentials, whose sum is finite and not 0.

    On one thread a row is gone over twice, for its highest logit and for exp, in about half of the time of
    `torch.softmax`; only a row of very high or very low logits is moved before. What becomes of a row never depends on
    the rows beside it.

    Args:
        logits_RV: float, contiguous. A row that holds NaN or infinity, or nothing but -infinity, becomes NaN.

    Returns:
        What was taken off each row before exp, float (R, 1).
    """
    highest_R1 = logits_RV.amax(1, keepdim=True)
    if logits_RV.device.type != "cpu" or logits_RV.dtype != torch.float32 or torch.get_num_threads() > 1:
        # Several threads would cut the array at places that depend on R; softmax is shared out by rows.
        torch.softmax(logits_RV, 1, out=logits_RV)
        return highest_R1 - logits_RV.amax(1, keepdim=True).log_()
    as_it_is_R1 = (highest_R1 >= _LOWEST) & (highest_R1 <= _HIGHEST)
    taken_R1 = highest_R1.masked_fill_(as_it_is_R1, 0.0)
    if not as_it_is_R1.all():
        logits_RV.sub_(taken_R1)
    flat = logits_RV.view(-1)
    last = flat[-_VECTORS:]
    last_as_vectors = functional.pad(last, (0, _VECTORS - len(last))).exp_()[: len(last)]
    flat.exp_()
    flat[-_VECTORS:] = last_as_vectors
    return taken_R1
