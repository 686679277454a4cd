"""The KL divergence of next tokens at every prefix of some texts, exact over all tokens."""

import torch
from torch import Tensor

from textgan_env.ops.losses import TILE, categorical_kl
from textgan_env.ops.tiles import tiled_sum
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
        with torch.no_grad():
            reference_bTV = reference.all_log_probs(tokens_bT)
        policy_bTV = policy.all_log_probs(tokens_bT)
        pair = (reference_bTV, policy_bTV) if forward else (policy_bTV, reference_bTV)
        return categorical_kl(*pair).masked_fill(~mask_bT, 0.0)

    rows = max(1, TILE.on(tokens_BT.device) // tokens_BT.shape[1])
    return tiled_sum(divergence, (tokens_BT, mask_BT), trained(policy), rows=rows)
