"""The convolutions of the CNN: the best match of each filter with any window of a text."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def best_match(embedded_BTE: Tensor, kernels: Sequence[Tensor], longest: int) -> Tensor:
    """Greatest inner product of each filter with any window of a text, float (B, F), without gradients.

    One matrix product for each width and position. Its operand is a strided view of the embeddings, so no window
    is ever copied, and the running maximum stays in the cache.

    Args:
        embedded_BTE: float; the tokens' embeddings.
        kernels: For each width w, float (filters, w * E).
        longest: Tokens in the longest of the texts. A window that begins behind the last token holds PAD alone, so
            that at ``longest`` stands for all that follow: the results are the same bits without them.
    """
    embed_size = embedded_BTE.shape[2]
    row_BX = embedded_BTE.flatten(1)
    best = []
    for kernel in kernels:
        last = min(row_BX.shape[1] - kernel.shape[1], longest * embed_size)
        best_Bf = row_BX[:, : kernel.shape[1]] @ kernel.t()
        match_Bf = torch.empty_like(best_Bf)
        for start in range(embed_size, last + 1, embed_size):
            torch.mm(row_BX[:, start : start + kernel.shape[1]], kernel.t(), out=match_Bf)
            torch.maximum(best_Bf, match_Bf, out=best_Bf)
        best.append(best_Bf)
    return torch.cat(best, dim=1)


def best_match_of_completions(
    embedding_VE: Tensor, kernels: Sequence[Tensor], tokens_GNT: Tensor, given_G: Tensor
) -> Tensor:
    """`best_match` of N completions of each of G prefixes: what lies in a prefix is computed once, not N times.

    A window inside the prefix is the same for all N. Of one that begins in the prefix and ends behind it, the inner
    product is that of its first m tokens, the same for all N, plus that of the others. Prefixes need not be of one
    length: a window that a prefix is too short or too long for takes no part in that prefix's maximum.

    Args:
        embedding_VE: float (V + 1, E).
        kernels: For each width w, float (filters, w * E).
        tokens_GNT: int64.
        given_G: int64, ascending; how many tokens were given.

    Returns:
        float (G * N, F), equal to `best_match` but for rounding.
    """
    rollouts, max_length, embed_size = *tokens_GNT.shape[1:], embedding_VE.shape[1]
    given, widest = given_G.tolist(), max(kernel.shape[1] for kernel in kernels) // embed_size
    tokens_T = torch.arange(max_length)
    # The last tokens of the prefixes up to the right edge, and what follows them from the left edge. Cells beyond the
    # ends of a text hold any token: no window that takes part reaches there. All strides are the same in each call,
    # so that a library that compiles a product for its strides does so once.
    reach = min(max_length, widest) - 1
    columns_GT = (given_G[:, None] + tokens_T[:reach] - reach).clamp(min=0)
    ends_GT = tokens_GNT[:, 0].gather(1, columns_GT)
    columns_GT = (given_G[:, None] + tokens_T).clamp(max=max_length - 1)
    rest_RT = tokens_GNT.gather(2, columns_GT[:, None].expand(-1, rollouts, -1)).flatten(0, 1)
    longest = int(((tokens_GNT != len(embedding_VE) - 1).sum(2).amax(1) - given_G).max())
    parts = (tokens_GNT[:, 0], ends_GT, rest_RT)
    prefix_GX, end_GX, rest_RX = (functional.embedding(part, embedding_VE).flatten(1) for part in parts)
    best = []
    for kernel in kernels:
        width = kernel.shape[1] // embed_size
        best_Gf = prefix_GX.new_full((len(given), len(kernel)), -math.inf)
        for start in range(given[-1] - width + 1):
            match_Gf = prefix_GX[:, start * embed_size : (start + width) * embed_size] @ kernel.t()
            # Prefixes that end before this window does come first.
            _raise_to(best_Gf, match_Gf, slice(bisect_left(given, start + width), None))
        best_Rf = best_Gf.repeat_interleave(rollouts, dim=0)
        match_Rf = torch.empty_like(best_Rf)
        match_GNf = match_Rf.view(len(given), rollouts, -1)
        for seen in range(max(1, given[0] + width - max_length), min(width - 1, given[-1]) + 1):
            fitting = slice(bisect_left(given, seen), bisect_right(given, max_length - width + seen))
            inside, behind = kernel.tensor_split([seen * embed_size], dim=1)
            match_Gf = end_GX[:, (reach - seen) * embed_size :] @ inside.t()
            torch.mm(rest_RX[:, : behind.shape[1]], behind.t(), out=match_Rf)
            match_GNf += match_Gf[:, None]
            _raise_to(best_Rf, match_Rf, slice(fitting.start * rollouts, fitting.stop * rollouts))
        for start in range(min(max_length - width - given[0], longest) + 1):
            torch.mm(rest_RX[:, start * embed_size : (start + width) * embed_size], kernel.t(), out=match_Rf)
            fitting = slice(0, bisect_right(given, max_length - width - start))
            _raise_to(best_Rf, match_Rf, slice(0, fitting.stop * rollouts))
        best.append(best_Rf)
    return torch.cat(best, dim=1)


def _raise_to(best_Rf: Tensor, match_Rf: Tensor, rows: slice) -> None:
    """Raise the best match of some rows to another match where that is greater."""
    torch.maximum(best_Rf[rows], match_Rf[rows], out=best_Rf[rows])


class BestMatch(torch.autograd.Function):
    """`best_match` with gradients, and for GPUs, where few large products are faster: one product for each width.

    The widest window from every position is laid out once, positions first (X cells each). Then the windows of
    width w are a strided matrix in it: the first T - w + 1 positions are one block, of which w * E columns are
    read; cells beyond the last position never are. The backward pass is written out because autograd would make
    a gradient of the size of all windows for every width, and because a filter's gradient reaches one window of a
    text, the one that matched best: of P windows, P - 1 need no work.
    """

    @staticmethod
    def forward(ctx: Any, embedded_BTE: Tensor, longest: int, *kernels: Tensor) -> Tensor:
        """Best matches, float (B, F); keeps the windows and where each filter matched."""
        batch, length, embed_size = embedded_BTE.shape
        widest = max(kernel.shape[1] for kernel in kernels)
        # Each is a piece of the row of all embeddings; those at the end reach beyond it.
        starts = min(length, longest + 1)
        row_BX = functional.pad(embedded_BTE.flatten(1), (0, (starts - 1 - length) * embed_size + widest))
        windows_PBX = row_BX.unfold(1, widest, embed_size).transpose(0, 1).contiguous()
        found = []
        for kernel in kernels:
            starts = min(length - kernel.shape[1] // embed_size + 1, len(windows_PBX))
            match_RF = _windows(windows_PBX, kernel, starts) @ kernel.t()
            found.append(match_RF.view(starts, batch, len(kernel)).max(0))
        ctx.length, ctx.embed_size = length, embed_size
        ctx.save_for_backward(windows_PBX, *kernels, *[place_Bf for _, place_Bf in found])
        return torch.cat([best_Bf for best_Bf, _ in found], dim=1)

    @staticmethod
    def backward(ctx: Any, grad_BF: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the embeddings and of each kernel."""
        windows_PBX, *rest = ctx.saved_tensors
        kernels, places = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        grad_BTE = windows_PBX.new_zeros(windows_PBX.shape[1], ctx.length, ctx.embed_size)
        grad_kernels = []
        grads = grad_BF.split([len(kernel) for kernel in kernels], dim=1)
        for grad_Bf, kernel, place_Bf in zip(grads, kernels, places, strict=True):
            width = kernel.shape[1] // ctx.embed_size
            starts = min(ctx.length - width + 1, len(windows_PBX))
            windows_RX = _windows(windows_PBX, kernel, starts)
            back = _sparse_gradients if grad_BF.is_cpu and starts >= _SPARSE else _dense_gradients
            grad_kernel, grad_windows_BPX = back(grad_Bf, place_Bf, windows_RX, kernel)
            grad_kernels.append(grad_kernel)
            for offset, grad_BPE in enumerate(grad_windows_BPX.split(ctx.embed_size, dim=2)):
                grad_BTE[:, offset : offset + starts] += grad_BPE
        return grad_BTE, None, *grad_kernels


#: From so many windows a text on, summing up rows is faster on a CPU than a product with a matrix of mostly zeros.
_SPARSE = 4


def _sparse_gradients(grad_Bf: Tensor, place_Bf: Tensor, windows_RX: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a kernel, float (f, X), and of the windows, float (B, P, X): weighted sums of rows."""
    batch = len(grad_Bf)
    rows_fB = (place_Bf * batch + torch.arange(batch)[:, None]).t().contiguous()
    grad_kernel = functional.embedding_bag(rows_fB, windows_RX, per_sample_weights=grad_Bf.t().contiguous(), mode="sum")
    # Each window's filters: a radix sort of small integers, which torch has not.
    order_Bf = torch.from_numpy(place_Bf.numpy().astype(np.uint16).argsort(axis=1, kind="stable"))
    count_BP = torch.zeros(batch, len(windows_RX) // batch, dtype=torch.int64)
    count_R = count_BP.scatter_add_(1, place_Bf, torch.ones_like(place_Bf)).flatten()
    weight_X = grad_Bf.gather(1, order_Bf).flatten()
    start_R = count_R.cumsum(0) - count_R
    grad_windows_RX = functional.embedding_bag(
        order_Bf.flatten(), kernel, start_R, mode="sum", per_sample_weights=weight_X
    )
    return grad_kernel, grad_windows_RX.view(*count_BP.shape, -1)


def _dense_gradients(grad_Bf: Tensor, place_Bf: Tensor, windows_RX: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """As `_sparse_gradients`, by two products."""
    match_PBf = grad_Bf.new_zeros(len(windows_RX) // len(grad_Bf), *grad_Bf.shape)
    match_PBf.scatter_(0, place_Bf[None], grad_Bf[None])
    return match_PBf.flatten(0, 1).t() @ windows_RX, (match_PBf @ kernel).transpose(0, 1)


def _windows(windows_PBX: Tensor, kernel: Tensor, starts: int) -> Tensor:
    """View of the windows that a filter of this width meets, (positions * B, width * E)."""
    return windows_PBX[:starts].view(-1, windows_PBX.shape[2])[:, : kernel.shape[1]]
