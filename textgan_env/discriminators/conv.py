"""SeqGAN's CNN over text, and the fast way through its convolutions."""

import logging
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.discriminators.base import DiscriminatorModule, Part
from textgan_env.utils.errors import require, require_at_least
from textgan_env.utils.reading import check_weights

_MOST_WIDTHS = 1000
# As published.
_WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20)
_FILTERS = (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160)


def leakgan_options(max_length: int) -> dict[str, Any]:
    """Options of the CNN in LeakGAN's published code for texts of T tokens.

    Neither dropout nor L2: its "keep" is 1, and its L2 is declared but never used. For 40 tokens and for captions it
    adds a width of 30 to the default ones, which reach 20.
    """
    wide = {"widths": (*_WIDTHS, 30), "filters": (*_FILTERS, 160)}
    return {"dropout": 0.0, "l2": 0.0, **(wide if max_length > 30 else {})}


class ConvDiscriminator(DiscriminatorModule):
    """SeqGAN's CNN: convolutions of many widths over embeddings, max over time, one highway layer.

    Source: Yu et al. 2017 (SeqGAN), the discriminative model, with the sizes and the initialisation of its
    published code: embedding U(-1, 1); convolutions truncated N(0, 0.1), biases 0.1; highway with ReLU,
    Glorot-uniform (weights and biases; no extra bias at the gate). F = 1,720; the features are what the highway
    layer gives, before dropout. It soon knows its training texts by heart: judge it on others.

    Where we differ: one logit instead of two. The head starts as the difference of two published columns
    (N(0, 0.1 sqrt 2), truncated at 2 deviations, bias 0), the published L2 of 0.2 on both is 0.1 on their difference,
    and a step of Adam moves one column where it moved two. PAD has an embedding of its own, trained like a
    word's, so D sees where a text ends.

    Args:
        vocab_size: V.
        max_length: T. Widths above T fit into no text: they are left out, and a warning is logged.
        embed_size: E.
        widths: Tokens a filter sees.
        filters: How many filters there are of each width.
        dropout: Share of features set to 0 in training (0.25: the published "keep .75").
        l2: Factor of ``(|w|^2 + b^2) / 2`` of the head in `penalty`.
        seed: Of the initial weights.

    Raises:
        InputError: If a size is below 1, a share out of range, or no width fits.
    """

    kind: ClassVar[str] = "conv"

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        *,
        embed_size: int = 64,
        widths: Sequence[int] = _WIDTHS,
        filters: Sequence[int] = _FILTERS,
        dropout: float = 0.25,
        l2: float = 0.1,
        seed: int = 0,
    ) -> None:
        found = f"found widths {list(widths)} and filters {list(filters)}"
        suit = len(set(widths)) == len(widths) == len(filters) and min([*widths, *filters], default=1) >= 1
        require(suit, f"widths must be different numbers of at least 1, and filters as many of at least 1, {found}")
        require(len(widths) <= _MOST_WIDTHS, f"there may be at most {_MOST_WIDTHS} widths, found {len(widths)}")
        require_at_least(1, embed_size=embed_size)
        require_at_least(0, l2=l2)
        fitting = {width: count for width, count in zip(widths, filters, strict=True) if width <= max_length}
        require(bool(fitting), f"one of the widths must be at most T={max_length}, found {list(widths)}")
        super().__init__(vocab_size, max_length, sum(fitting.values()), dropout)
        features, kernels = self.feature_size, sum(width * count * embed_size for width, count in fitting.items())
        check_weights((vocab_size + 1) * embed_size + kernels + 2 * features * (features + 2), "a conv discriminator")
        too_wide = [width for width in widths if width > max_length]
        if too_wide:
            logging.getLogger(__name__).warning("T is %d: convolutions of widths %s left out", max_length, too_wide)
        # Widths that were left out are in no checkpoint.
        self.embed_size, self.l2, self.widths, self.filters = embed_size, l2, list(fitting), list(fitting.values())
        self.embedding = nn.Parameter(torch.empty(vocab_size + 1, embed_size))
        # One row a filter: its `width` embeddings side by side, the first token's first.
        self.kernels = nn.ParameterList(torch.empty(count, width * embed_size) for width, count in fitting.items())
        self.bias = nn.Parameter(torch.empty(self.feature_size))
        # The first F outputs are the candidate, the rest the transform gate: one product for both.
        self.highway = nn.utils.skip_init(nn.Linear, self.feature_size, 2 * self.feature_size)
        self._initialise(seed)

    def _initialise(self, seed: int) -> None:
        """Draw the initial weights as the published code does."""
        generator = torch.Generator().manual_seed(seed)
        nn.init.uniform_(self.embedding, -1.0, 1.0, generator=generator)
        for kernel in self.kernels:
            nn.init.trunc_normal_(kernel, std=0.1, a=-0.2, b=0.2, generator=generator)
        nn.init.constant_(self.bias, 0.1)
        # Glorot of each F x F matrix, and of a vector of F as the published code's framework applies it.
        limit = math.sqrt(3 / self.feature_size)
        for parameter in self.highway.parameters():
            nn.init.uniform_(parameter, -limit, limit, generator=generator)
        std = 0.1 * math.sqrt(2)
        nn.init.trunc_normal_(self.output.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
        nn.init.zeros_(self.output.bias)

    def make_optimizer(self, learning_rate: float | None = None) -> torch.optim.Optimizer:
        """Adam, at the published rate 1e-4 unless another is given."""
        rate = 1e-4 if learning_rate is None else learning_rate
        return torch.optim.Adam(self.parameters(), lr=rate, fused=True)

    def penalty(self) -> Tensor:
        """L2 of the head: ``l2 * (|w|^2 + b^2) / 2``, scalar."""
        squares: Tensor = self.output.weight.square().sum() + self.output.bias.square().sum()
        return self.l2 / 2 * squares

    def features(self, tokens_BT: Tensor) -> Tensor:
        """What the highway layer gives, float (B, F)."""
        self._check(tokens_BT)
        embedded_BTE = functional.embedding(tokens_BT, self.embedding)
        if torch.is_grad_enabled() or embedded_BTE.is_cuda:
            best_BF: Tensor = _BestMatch.apply(embedded_BTE, *self.kernels)  # type: ignore[no-untyped-call]
        else:
            best_BF = _best_match(embedded_BTE, list(self.kernels))
        return self._through_highway(best_BF)

    def begin_features(self, batch_size: int) -> dict[str, Tensor]:
        """As the base, and ``closed`` float (B, F): each filter's best match with a window inside the prefix."""
        closed_BF = self.bias.new_full((batch_size, self.feature_size), -math.inf)
        return {**super().begin_features(batch_size), "closed": closed_BF}

    def step_features(self, tokens_B: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `DiscriminatorModule.step_features`: equal to `features` but for rounding, without gradients.

        A window that lies inside the prefix never changes again, so only its maximum is kept. A window that reaches
        into the padding is the inner product with the m tokens it sees, m below its width, plus a number that depends
        on m alone: these are computed again at each token.
        """
        state = self.append_tokens(tokens_B, state)
        length_B, closed_BF = state["length"], state["closed"].clone()
        best_BF = torch.empty_like(closed_BF)
        with torch.no_grad():
            embedded_BX = functional.embedding(state["tokens"], self.embedding).flatten(1)
            lengths = length_B.unique().tolist()
            for length in lengths:
                if len(lengths) == 1:
                    self._match_prefix(embedded_BX, length, closed_BF, best_BF)
                    continue
                rows_r = (length_B == length).nonzero()[:, 0]
                closed_rF, best_rF = closed_BF[rows_r], best_BF[rows_r]
                self._match_prefix(embedded_BX[rows_r], length, closed_rF, best_rF)
                closed_BF[rows_r], best_BF[rows_r] = closed_rF, best_rF
            return self._through_highway(best_BF), {**state, "closed": closed_BF}

    def _match_prefix(self, embedded_BX: Tensor, length: int, closed_BF: Tensor, best_BF: Tensor) -> None:
        """Bring ``closed_BF`` up to prefixes of this length, and fill ``best_BF``, the best match with any window."""
        embed_size, columns = self.embed_size, 0
        for width, kernel in zip(self.widths, self.kernels, strict=True):
            closed_Bf, best_Bf = (part[:, columns : columns + len(kernel)] for part in (closed_BF, best_BF))
            columns += len(kernel)
            if width <= length:
                last = embedded_BX[:, (length - width) * embed_size : length * embed_size]
                torch.maximum(closed_Bf, last @ kernel.t(), out=closed_Bf)
            best_Bf.copy_(closed_Bf)
            # What the padding adds to a window that sees m tokens before it, m = 0 to width - 1.
            padding_wf = (kernel.view(len(kernel), width, embed_size) @ self.embedding[-1]).t()
            padding_mf = padding_wf.flip(0).cumsum(0).flip(0)
            # A window starts at T - width at the latest, and not before the text does.
            for seen in range(max(0, length + width - self.max_length), min(width - 1, length) + 1):
                tail = embedded_BX[:, (length - seen) * embed_size : length * embed_size]
                match_Bf = torch.addmm(padding_mf[seen], tail, kernel[:, : seen * embed_size].t())
                torch.maximum(best_Bf, match_Bf, out=best_Bf)

    @torch.no_grad()
    def parts(self, tokens_T: Tensor) -> list[Part]:
        """Each feature times its weight, with the window in which its filter matched best.

        The highway layer mixes filters, so a feature is its filter's match only as far as its gate is shut.
        """
        length, places = int((tokens_T != self.vocab_size).sum()), []
        embedded_TE = functional.embedding(tokens_T, self.embedding)
        for width, kernel in zip(self.widths, self.kernels, strict=True):
            # (T - width + 1, width * E): the windows, then each one's product with every filter.
            windows_PX = embedded_TE.unfold(0, width, 1).transpose(1, 2).flatten(1)
            for number, start in enumerate((windows_PX @ kernel.t()).argmax(0).tolist(), start=1):
                seen = sorted({min(position, length) for position in range(start, start + width)})
                places.append((f"filter {number} of width {width}", tuple(seen)))
        return self._weighted(places, self.features(tokens_T[None])[0] * self.output.weight[0])

    def _through_highway(self, best_BF: Tensor) -> Tensor:
        """Features from the best match of each filter, float (B, F)."""
        # ReLU never swaps two values, so the maximum may come first: T times fewer of them.
        pooled_BF = (best_BF + self.bias).relu()
        candidate_BF, gate_BF = self.highway(pooled_BF).chunk(2, dim=1)
        return torch.lerp(pooled_BF, candidate_BF.relu(), gate_BF.sigmoid())


def _best_match(embedded_BTE: Tensor, kernels: list[Tensor]) -> Tensor:
    """Greatest inner product of each filter with any window of a text, float (B, F), without gradients.

    One matrix product for each width and position. Its operand is a strided view of the embeddings, so no window
    is ever copied, and the running maximum stays in the cache.
    """
    embed_size = embedded_BTE.shape[2]
    row_BX = embedded_BTE.flatten(1)
    best = []
    for kernel in kernels:
        last = row_BX.shape[1] - kernel.shape[1]
        best_Bf = row_BX[:, : kernel.shape[1]] @ kernel.t()
        match_Bf = torch.empty_like(best_Bf)
        for start in range(embed_size, last + 1, embed_size):
            torch.mm(row_BX[:, start : start + kernel.shape[1]], kernel.t(), out=match_Bf)
            torch.maximum(best_Bf, match_Bf, out=best_Bf)
        best.append(best_Bf)
    return torch.cat(best, dim=1)


class _BestMatch(torch.autograd.Function):
    """`_best_match` with gradients, and for GPUs, where few large products are faster: one product for each width.

    The widest window from every position is laid out once, positions first (X cells each). Then the windows of
    width w are a strided matrix in it: the first T - w + 1 positions are one block, of which w * E columns are
    read; cells beyond the last position never are. The backward pass is written out because autograd would make
    a gradient of the size of all windows for every width.
    """

    @staticmethod
    def forward(ctx: Any, embedded_BTE: Tensor, *kernels: Tensor) -> Tensor:
        """Best matches, float (B, F); keeps the windows and where each filter matched."""
        batch, length, embed_size = embedded_BTE.shape
        widest = max(kernel.shape[1] for kernel in kernels)
        embedded_TBE = embedded_BTE.transpose(0, 1)
        windows_TBX = embedded_BTE.new_empty(length, batch, widest)
        for offset in range(widest // embed_size):
            column = offset * embed_size
            windows_TBX[: length - offset, :, column : column + embed_size] = embedded_TBE[offset:]
        found = []
        for kernel in kernels:
            match = _windows(windows_TBX, kernel, embed_size) @ kernel.t()
            starts = length - kernel.shape[1] // embed_size + 1
            found.append(match.view(starts, batch, len(kernel)).max(0))
        ctx.embed_size = embed_size
        ctx.save_for_backward(windows_TBX, *kernels, *[place_Bf for _, place_Bf in found])
        return torch.cat([best_Bf for best_Bf, _ in found], dim=1)

    @staticmethod
    def backward(ctx: Any, grad_BF: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the embeddings and of each kernel."""
        windows_TBX, *rest = ctx.saved_tensors
        kernels, places = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        length, batch, widest = windows_TBX.shape
        grad_windows_TBX = torch.zeros_like(windows_TBX)
        grad_kernels = []
        grads = grad_BF.split([len(kernel) for kernel in kernels], dim=1)
        for grad_Bf, kernel, place_Bf in zip(grads, kernels, places, strict=True):
            starts = length - kernel.shape[1] // ctx.embed_size + 1
            # The gradient reaches the window that matched best, and no other.
            match = grad_Bf.new_zeros(starts, batch, len(kernel))
            match = match.scatter_(0, place_Bf[None], grad_Bf[None]).flatten(0, 1)
            grad_kernels.append(match.t() @ _windows(windows_TBX, kernel, ctx.embed_size))
            _windows(grad_windows_TBX, kernel, ctx.embed_size).addmm_(match, kernel)
        grad_TBE = windows_TBX.new_zeros(length, batch, ctx.embed_size)
        for offset in range(widest // ctx.embed_size):
            column = offset * ctx.embed_size
            grad_TBE[offset:] += grad_windows_TBX[: length - offset, :, column : column + ctx.embed_size]
        return grad_TBE.transpose(0, 1), *grad_kernels


def _windows(windows_TBX: Tensor, kernel: Tensor, embed_size: int) -> Tensor:
    """View of the windows that a filter of this width meets, (positions * B, width * E)."""
    length, _, widest = windows_TBX.shape
    starts = length - kernel.shape[1] // embed_size + 1
    return windows_TBX[:starts].view(-1, widest)[:, : kernel.shape[1]]
