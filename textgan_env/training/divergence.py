"""The KL divergence of next tokens at every prefix of some texts, exact over all tokens."""

import torch
from torch import Tensor
from torch.nn import functional

from textgan_env.ops.losses import TILE, categorical_kl
from textgan_env.ops.tiles import asked_length, tiled_sum
from textgan_env.policies import PolicyModule
from textgan_env.training.mle import trained


def prefix_kl(
    policy: PolicyModule, reference: PolicyModule, tokens_BT: Tensor, mask_BT: Tensor, *, forward: bool = False
) -> tuple[Tensor, Tensor]:
    """KL(policy || reference) of the next token at each prefix; a few texts at a time are in memory.

    Args:
        policy: Learns. The prefixes are taken as given: that it may decide which are met is not in the gradient.
        reference: Stays as it is.
        tokens_BT: int64, PAD after the end.
        mask_BT: bool; the tokens whose prefixes count.
        forward: KL(reference || policy) instead.

    Returns:
        The sum over all prefixes in nats, float scalar with its gradient; and that of each, float (B, T), without
        gradients, 0 where masked.
    """

    def divergence(tokens_bT: Tensor, mask_bT: Tensor) -> Tensor:
        """That at each prefix of some texts, float (b, T)."""
        length = asked_length(mask_bT)
        with torch.no_grad():
            reference_btV = reference.all_log_probs(tokens_bT[:, :length])
        policy_btV = policy.all_log_probs(tokens_bT[:, :length])
        pair = (reference_btV, policy_btV) if forward else (policy_btV, reference_btV)
        kl_bt = categorical_kl(*pair).masked_fill(~mask_bT[:, :length], 0.0)
        return functional.pad(kl_bt, (0, mask_bT.shape[1] - length))

    length_B = mask_BT.sum(1)
    order_B = length_B.argsort(stable=True)  # texts of like length side by side, so that a tile ends early
    on_cpu = tokens_BT.device.type == "cpu"  # elsewhere the lengths would have to be waited for
    cells = max(1, int(length_B.sum())) if on_cpu else mask_BT.numel()
    rows = max(1, TILE.on(tokens_BT.device) * len(mask_BT) // cells)
    total, kl_BT = tiled_sum(divergence, (tokens_BT[order_B], mask_BT[order_B]), trained(policy), rows=rows)
    return total, kl_BT[order_B.argsort()]
