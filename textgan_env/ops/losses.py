"""Pure losses over padded batches: tensors in, one number or one number a token out."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from textgan_env.ops.exponentials import proportional_exp_, shifted_exp_
from textgan_env.ops.tiles import Tile
from textgan_env.utils.errors import require_at_least, require_known

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


def categorical_kl(logp_XV: Tensor, logq_XV: Tensor) -> Tensor:
    """KL(p || q) in nats, float (X,); what p never generates counts 0, infinite where q never generates what p does.

    Args:
        logp_XV: float; log-probabilities that add up to 1 over the last axis.
        logq_XV: float, same shape.
    """
    never_XV = logp_XV == -math.inf
    return (logp_XV.exp() * (logp_XV - logq_XV).masked_fill(never_XV, 0.0)).sum(-1)


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
        kind: ``none``: 0. ``leave-one-out``: the mean over the other texts that reach the position; 0 where there is
            none. Without bias. ``position``: the mean over all n that reach it, this one included. A token's own credit
            in its baseline biases the gradient: what position t adds to it is multiplied by 1 - 1/n_t. Where all texts
            are equally long that shrinks the gradient by 1/n and keeps its direction; where some end early, later
            positions shrink more, a text alone at its position learns nothing there, and the direction changes.
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


def group_baseline(kind: str, credit_BT: Tensor, mask_BT: Tensor, size: int) -> Tensor:
    """`baseline` within groups of texts that stand side by side: each text is compared with those of its group only.

    Args:
        kind: One of `BASELINES`.
        credit_BT: float.
        mask_BT: bool; the tokens of the text.
        size: N, texts in a group; a divisor of B.

    Returns:
        float (B, T).
    """
    groups = len(credit_BT) // size
    # Axes: member, then group and position; `baseline` compares along the first.
    credit_NX, mask_NX = (part.view(groups, size, -1).transpose(0, 1).flatten(1) for part in (credit_BT, mask_BT))
    baseline_NGT = baseline(kind, credit_NX, mask_NX).view(size, groups, -1)
    return baseline_NGT.transpose(0, 1).reshape(credit_BT.shape)


def normalised_weights(logits_B: Tensor, groups_B: Tensor | None = None, *, most: float | None = None) -> Tensor:
    """Importance weights exp(logit), divided by their mean over the batch, or over the group of each row.

    With D's logit, log p / q for the best D, a text of q counts as often as it would among texts of p (self-normalised
    importance sampling). Nothing overflows: only differences of logits are raised to the power of e.

    Args:
        logits_B: float; log of the weights up to a constant a group.
        groups_B: int64, 0 and above; the rows that are compared with each other. None: all of them.
        most: Weights above it are cut to it, then all are divided by their mean again. None: none is cut.

    Returns:
        float (B,), not negative, with the mean 1 in each group.

    Raises:
        InputError: If ``most`` is below 1, which would cut the mean itself.
    """
    require_at_least(1, most=most)
    groups_B = torch.zeros_like(logits_B, dtype=torch.int64) if groups_B is None else groups_B
    empty_G = logits_B.new_zeros(int(groups_B.max()) + 1) if len(groups_B) else logits_B
    highest_G = empty_G.scatter_reduce(0, groups_B, logits_B, "amax", include_self=False)
    weight_B = (logits_B - highest_G[groups_B]).exp()
    count_G = empty_G.index_add(0, groups_B, torch.ones_like(logits_B))

    def over_mean(weight_B: Tensor) -> Tensor:
        return weight_B / (empty_G.index_add(0, groups_B, weight_B) / count_G)[groups_B]

    weight_B = over_mean(weight_B)
    return weight_B if most is None else over_mean(weight_B.clamp(max=most))


def effective_sample_size(weights_B: Tensor) -> float:
    """How many texts of equal weight say as much as these: (sum w)^2 / sum w^2 (Kish 1965).

    Args:
        weights_B: float, not negative.

    Returns:
        1 where one text has all the weight, to B where all weigh alike.
    """
    return float(weights_B.sum().square() / weights_B.square().sum())


def group_advantage(reward_B: Tensor, size: int, *, std: bool = True) -> Tensor:
    """Rewards less the mean of their group, over its standard deviation (GRPO: Shao et al. 2024, section 4.1.2).

    A text's own reward is in the mean, so without ``std`` the expected gradient is that of the reward times
    1 - 1 / size (Dr. GRPO: Liu et al. 2025). With ``std`` it is another objective: a group on whose texts D hardly
    differs weighs as much as one where it is sure.

    Args:
        reward_B: float; groups stand side by side.
        size: Texts in a group; a divisor of B.
        std: Whether to divide.

    Returns:
        float (B,), of mean 0 in each group; 0 in a group of equal rewards.
    """
    centred_GN = reward_B.view(-1, size) - reward_B.view(-1, size).mean(1, keepdim=True)
    if std:
        centred_GN = centred_GN / (centred_GN.square().mean(1, keepdim=True).sqrt() + 1e-6)
    return centred_GN.flatten()


def gaussian_kl(mean_BZ: Tensor, log_variance_BZ: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) of each number, nats: float (B, Z), differentiable (Kingma and Welling 2014).

    Args:
        mean_BZ: float.
        log_variance_BZ: float.
    """
    return (mean_BZ.square() + log_variance_BZ.exp() - 1 - log_variance_BZ) / 2


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
        project, furthest = Projector(weight_VH, bias_V), _furthest(hidden_RH, weight_VH, bias_V)
        for rows in _tiles(hidden_RH):
            logits_rV, tokens_r1 = project(hidden_RH[rows]), tokens_R[rows, None]
            chosen_r1 = logits_rV.gather(1, tokens_r1)
            taken_r1 = shifted_exp_(logits_rV, furthest=furthest)
            total_r1 = logits_rV.sum(1, keepdim=True)
            logp_R[rows] = (chosen_r1 - taken_r1 - total_r1.log())[:, 0]
            if alike is not None:
                alike.add(rows, logits_rV, total_r1, tokens_r1, torch.ones_like(chosen_r1))
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
        project, furthest = Projector(weight_VH, bias_V), _furthest(hidden_RH, weight_VH, bias_V)
        for rows in _tiles(hidden_RH):
            weights_rV = project(hidden_RH[rows])
            proportional_exp_(weights_rV, furthest=furthest)
            total_r1 = weights_rV.sum(1, keepdim=True)
            gradients.add(rows, weights_rV, total_r1, tokens_R[rows, None], grad_R[rows, None])
        return *gradients.parts, None, None


class Projector:
    """A projection to the vocabulary, for many small arrays of rows and without gradients.

    Logits overwrite those before, as fresh memory can cost as much as the product; the bias is one more weight, of a
    unit that is always 1, as it would otherwise take another pass.

    Args:
        weight_VH: float; as it is now.
        bias_V: float.
    """

    def __init__(self, weight_VH: Tensor, bias_V: Tensor) -> None:
        self._weight_GV = _with_bias(weight_VH, bias_V)
        self._logits_RV = weight_VH.new_empty(0, len(weight_VH))

    def __call__(self, hidden_RH: Tensor) -> Tensor:
        """Logits, float (R, V)."""
        rows = len(hidden_RH)
        if rows > len(self._logits_RV):
            self._logits_RV = self._logits_RV.new_empty(rows, self._logits_RV.shape[1])
        return torch.mm(_with_one(hidden_RH), self._weight_GV, out=self._logits_RV[:rows])


def project(hidden_RH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> Tensor:
    """What a `Projector` gives, to the bit, once and with gradients: logits, float (R, V)."""
    return _with_one(hidden_RH) @ _with_bias(weight_VH, bias_V)


def _with_one(hidden_RH: Tensor) -> Tensor:
    """Hidden units, and one that is always 1."""
    return functional.pad(hidden_RH, (0, 1), value=1.0)


def _with_bias(weight_VH: Tensor, bias_V: Tensor) -> Tensor:
    """The weights of all units, the bias among them: float (H + 1, V)."""
    return torch.cat([weight_VH, bias_V[:, None]], dim=1).t()


# Up to so many units the gradients of weights and bias are faster as one product that lies as the logits do.
_NARROW = 64


class _LinearGradients:
    """The gradients of a weighted sum of log-probabilities, added up over tiles."""

    def __init__(self, hidden_RH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> None:
        self._hidden_RH, self._weight_VH = hidden_RH, weight_VH
        self._of_hidden_RH, self._narrow = torch.empty_like(hidden_RH), weight_VH.shape[1] <= _NARROW
        if self._narrow:
            self._both_GV = weight_VH.new_zeros(weight_VH.shape[1] + 1, len(weight_VH))
        else:
            self._of_weight_VH, self._of_bias_V = torch.zeros_like(weight_VH), torch.zeros_like(bias_V)

    def add(self, rows: slice, weights_rV: Tensor, total_r1: Tensor, tokens_r1: Tensor, slope_r1: Tensor) -> None:
        """Add a tile.

        Args:
            rows: Which.
            weights_rV: float; in proportion to the probabilities; overwritten.
            total_r1: float; their sums.
            tokens_r1: int64.
            slope_r1: float; of the sum in each log p.
        """
        # d logp / d logits = (1 at the token) - weights / total. A row's common factor is left to the small arrays.
        weights_rV.scatter_add_(1, tokens_r1, -total_r1)
        scale_r1 = -slope_r1 / total_r1
        torch.mm(weights_rV, self._weight_VH, out=self._of_hidden_RH[rows]).mul_(scale_r1)
        if self._narrow:
            self._both_GV.addmm_((_with_one(self._hidden_RH[rows]) * scale_r1).t(), weights_rV)
        else:
            self._of_weight_VH.addmm_(weights_rV.t(), self._hidden_RH[rows] * scale_r1)
            self._of_bias_V.addmv_(weights_rV.t(), scale_r1[:, 0])

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of hidden states (R, H), weights (V, H) and bias (V,), each as what it is the gradient of lies in memory."""
        if self._narrow:
            return self._of_hidden_RH, self._both_GV[:-1].t().contiguous(), self._both_GV[-1]
        return self._of_hidden_RH, self._of_weight_VH, self._of_bias_V


def _furthest(hidden_RH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> float:
    """How far from 0 a finite logit can be, by Cauchy and Schwarz; infinity where it would have to be waited for."""
    if hidden_RH.device.type != "cpu" or not hidden_RH.numel():
        return math.inf
    bias = bias_V.abs().masked_fill(bias_V == -math.inf, 0.0).amax()
    return float(hidden_RH.norm(dim=1).amax() * weight_VH.norm(dim=1).amax() + bias)


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


def gradient_snr(first_P: Tensor, second_P: Tensor) -> Tensor:
    """Signal-to-noise ratio of the gradient of a batch, from those of its two halves; below 1 noise prevails.

    The halves share the signal and nothing else: their inner product is in expectation the squared norm of the expected
    gradient, a quarter of the squared norm of their difference the variance of the batch's gradient.

    Args:
        first_P: float; gradient of the one half, flat.
        second_P: float; of the other.

    Returns:
        The ratio, float64 scalar, which can be negative; 0 without noise.
    """
    noise = (first_P - second_P).square().sum().double()
    return torch.where(noise == 0, noise, (4 * first_P @ second_P).double() / noise)


def credit_numbers(credit_BT: Tensor, mask_BT: Tensor) -> dict[str, Tensor]:
    """The mean of credits, and their spread over texts at a position, as the log has them; they stay on their device.

    Args:
        credit_BT: float.
        mask_BT: bool; the tokens that count.
    """
    centred_BT = credit_BT - baseline("position", credit_BT, mask_BT)
    spread = masked_mean(centred_BT**2, mask_BT).sqrt()
    return {"credit": masked_mean(credit_BT, mask_BT), "credit_spread": spread}
