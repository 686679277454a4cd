"""Pure losses over padded batches: tensors in, one number or one number a token out."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from textgan_env.ops.tiles import Tile
from textgan_env.utils.errors import require_known

#: Names that `baseline` knows.
BASELINES = ("none", "position", "leave-one-out")

#: Rows worked on at once: 128 rows of 5,000 float32 logits are 2.5 MB and stay in the second-level cache.
TILE = Tile(cpu=128, gpu=16_384)


def masked_sum(values_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the cells where the mask is True, and how many there are.

    Args:
        values_BT: float.
        mask_BT: bool, same shape.

    Returns:
        float scalar, and an int64 scalar that is at least 1.
    """
    return (values_BT * mask_BT).sum(), mask_BT.sum().clamp(min=1)


def masked_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the cells where the mask is True, float scalar; 0 when there is none."""
    total, count = masked_sum(values_BT, mask_BT)
    return total / count


def nll_sum(logp_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood in nats, and the number of tokens: their quotient is the maximum-likelihood (MLE) loss.

    Args:
        logp_BT: float; log-probability of each token, 0 where masked.
        mask_BT: bool; True for tokens that count.

    Returns:
        float scalar, and an int64 scalar that is at least 1 (see `masked_sum`).
    """
    total, count = masked_sum(logp_BT, mask_BT)
    return -total, count


def policy_gradient_sum(logp_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, float]:
    """REINFORCE: the sum over texts of ``-sum_t advantage_t log G(y_t | s_t)``, and the number of texts.

    The credit in the advantage is a return to go, so it is not added up over time again. Source: Williams 1992; SeqGAN
    (Yu et al. 2017) eq. 6 and 7 with credit Q(s, y_t). The published code minimises the sum over the batch, we the
    mean: the learning rate then does not depend on the number of rows.

    Args:
        logp_BT: float; log-probability of each token, differentiable.
        advantage_BT: float; credit less baseline; no gradient flows into it.
        mask_BT: bool; True for tokens of the text.

    Returns:
        float scalar, and the number of rows.
    """
    return -(advantage_BT.detach() * logp_BT * mask_BT).sum(), float(len(logp_BT))


def baseline(kind: str, credit_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """What is taken off the credit of each token: a number that does not depend on that token.

    Args:
        kind: ``none``: 0. ``position``: the mean over the texts that reach the position (this one included, which
            shrinks the gradient by 1 / texts). ``leave-one-out``: the mean over the others; 0 where there is none.
        credit_BT: float.
        mask_BT: bool; the tokens of the text.

    Returns:
        float (B, T).

    Raises:
        InputError: If the kind is unknown.
    """
    require_known("baseline", kind, BASELINES)
    if kind == "none":
        return torch.zeros_like(credit_BT)
    total_T, count_T = (credit_BT * mask_BT).sum(0), mask_BT.sum(0)
    if kind == "position":
        return (total_T / count_T.clamp(min=1)).expand_as(credit_BT)
    return (total_T - credit_BT * mask_BT) / (count_T - mask_BT.long()).clamp(min=1)


class _LinearLogProb(torch.autograd.Function):
    """Projection to the vocabulary and log-softmax of the token that stands there in one, a tile of rows at a time.

    The (rows, V) array never exists as a whole, and what is worked on stays in the cache. The backward pass makes a
    tile's probabilities again. Where the loss is expected to weigh all rows alike, the forward pass makes its gradients
    while they are at hand, and the backward pass checks whether it does. Not on a GPU: it would have to wait for that.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_RH: Tensor, weight_VH: Tensor, bias_V: Tensor, tokens_R: Tensor, expect_alike: bool
    ) -> Tensor:
        """Log-probability of each token, float (R,)."""
        logp_R = torch.empty_like(hidden_RH[:, 0])
        made_now = expect_alike and any(ctx.needs_input_grad) and hidden_RH.device.type == "cpu"
        alike = _LinearGradients(hidden_RH, weight_VH, bias_V) if made_now else None
        for rows in _tiles(hidden_RH):
            logits_rV = torch.addmm(bias_V, hidden_RH[rows], weight_VH.t())
            highest_r, chosen_r = logits_rV.amax(1), logits_rV.gather(1, tokens_R[rows, None])[:, 0]
            share_rV = torch.softmax(logits_rV, 1, out=logits_rV)
            # The highest logit has the share exp(0) / sum, so the normaliser is known without another pass.
            logp_R[rows] = chosen_r - highest_r + share_rV.amax(1).log_()
            if alike is not None:
                alike.add(rows, share_rV, tokens_R[rows], torch.ones_like(chosen_r))
        ctx.alike = alike
        ctx.save_for_backward(hidden_RH, weight_VH, bias_V, tokens_R)
        return logp_R

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_R: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of hidden states, weights and bias."""
        hidden_RH, weight_VH, bias_V, tokens_R = ctx.saved_tensors
        if ctx.alike is not None and len(grad_R) and bool((grad_R == grad_R[0]).all()):
            return *(part * grad_R[0] for part in ctx.alike.parts), None, None
        gradients = _LinearGradients(hidden_RH, weight_VH, bias_V)
        for rows in _tiles(hidden_RH):
            logits_rV = torch.addmm(bias_V, hidden_RH[rows], weight_VH.t())
            share_rV = torch.softmax(logits_rV, 1, out=logits_rV)
            gradients.add(rows, share_rV, tokens_R[rows], grad_R[rows])
        return *gradients.parts, None, None


class _LinearGradients:
    """The gradients of a weighted sum of log-probabilities, added up over tiles."""

    def __init__(self, hidden_RH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> None:
        self.hidden_RH, self.weight_VH = hidden_RH, weight_VH
        self.parts = torch.empty_like(hidden_RH), torch.zeros_like(weight_VH), torch.zeros_like(bias_V)

    def add(self, rows: slice, share_rV: Tensor, tokens_r: Tensor, slope_r: Tensor) -> None:
        """Add a tile: its probabilities (overwritten), the tokens, the slope of the sum in each log p."""
        grad_hidden_RH, grad_weight_VH, grad_bias_V = self.parts
        # d logp / d logits = (1 at the token) - softmax
        slope_rV = share_rV.mul_(-slope_r[:, None]).scatter_add_(1, tokens_r[:, None], slope_r[:, None])
        torch.mm(slope_rV, self.weight_VH, out=grad_hidden_RH[rows])
        grad_weight_VH.addmm_(slope_rV.t(), self.hidden_RH[rows])
        grad_bias_V += slope_rV.sum(0)


def _tiles(rows_R: Tensor) -> list[slice]:
    """The rows, as many at once as the device's cache likes."""
    size = TILE.on(rows_R.device)
    return [slice(start, start + size) for start in range(0, len(rows_R), size)]


def linear_log_prob(
    hidden_RH: Tensor, weight_VH: Tensor, bias_V: Tensor, tokens_R: Tensor, *, expect_alike: bool = False
) -> Tensor:
    """Log-probability (nats) of one token a row under ``softmax(hidden @ weight.T + bias)``, differentiable.

    Equal to `torch.nn.functional.cross_entropy` with the sign turned, faster on CPU and without its (R, V) memory.

    Args:
        hidden_RH: float; the last hidden states of R rows.
        weight_VH: float; output embedding.
        bias_V: float; -inf bars a token.
        tokens_R: int64, 0 to V-1.
        expect_alike: Whether the loss is likely to weigh all rows alike, as maximum likelihood does and policy gradient
            does not. A wrong guess costs time, never exactness.

    Returns:
        float, shape (R,).
    """
    result: Tensor = _LinearLogProb.apply(hidden_RH, weight_VH, bias_V, tokens_R, expect_alike)  # type: ignore[no-untyped-call]
    return result


def gradient_snr(first_P: Tensor, second_P: Tensor) -> float:
    """Signal-to-noise ratio of the gradient of a batch, from those of its two halves; below 1 noise prevails.

    The halves share the signal and nothing else: their inner product is in expectation the squared norm of the expected
    gradient, a quarter of the squared norm of their difference the variance of the batch's gradient.

    Args:
        first_P: float; gradient of the one half, flat.
        second_P: float; of the other.

    Returns:
        The ratio, which can be negative; 0 without noise.
    """
    noise = float((first_P - second_P).square().sum())
    return float(4 * first_P @ second_P) / noise if noise else 0.0


def credit_numbers(credit_BT: Tensor, mask_BT: Tensor) -> dict[str, float]:
    """The mean of credits, and their spread over texts at a position, as the log has them.

    Args:
        credit_BT: float.
        mask_BT: bool; the tokens that count.
    """
    centred_BT = credit_BT - baseline("position", credit_BT, mask_BT)
    spread = masked_mean(centred_BT**2, mask_BT).sqrt()
    return {"credit": float(masked_mean(credit_BT, mask_BT)), "credit_spread": float(spread)}
