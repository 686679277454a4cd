"""SeqGAN's CNN over text, and the fast way through its convolutions."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.discriminators.base import SCORING_TILE, DiscriminatorModule, Part, RawLinear, mean_rows
from textgan_env.discriminators.growing import GrowingMatches, SlidingMatches
from textgan_env.discriminators.windows import BestMatch, best_match, best_match_of_completions
from textgan_env.ops.reward_kinds import PrecisionName
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
    costly: ClassVar[bool] = True
    precisions: ClassVar[tuple[PrecisionName, ...]] = ("float32", "bf16")

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
        self.highway = RawLinear(self.feature_size, 2 * self.feature_size)
        self._growing: GrowingMatches | SlidingMatches | None = None
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
        return self._read(functional.embedding(tokens_BT, self.embedding), tokens_BT != self.vocab_size)

    def relaxed_features(self, soft_BTV: Tensor, mask_BT: Tensor) -> Tensor:
        """See `DiscriminatorModule.relaxed_features`: the filters go over mean embeddings."""
        self._check_relaxed(soft_BTV, mask_BT)
        return self._read(mean_rows(soft_BTV, mask_BT, self.embedding), mask_BT)

    def _read(self, embedded_BTE: Tensor, mask_BT: Tensor) -> Tensor:
        """Features, float (B, F), of embedded texts and which of their places have a token."""
        longest = self._longest(mask_BT)
        if torch.is_grad_enabled() or embedded_BTE.device.type != "cpu":
            best_BF: Tensor = BestMatch.apply(embedded_BTE, longest, *self.kernels)  # type: ignore[no-untyped-call]
        else:
            best_BF = best_match(embedded_BTE, list(self.kernels), longest)
        return self._through_highway(best_BF)

    def completion_scorer(self, precision: PrecisionName = "float32") -> Callable[[Tensor, Tensor], Tensor]:
        """As the base; on a CPU what lies in a prefix is computed once for its N completions.

        With bf16, embeddings, filters and highway weights are rounded to it, and so is what their products give; the
        highway's sums and the head are float32.
        """
        dtype = torch.bfloat16 if precision == "bf16" else self.bias.dtype
        embedding, kernels = self.embedding.to(dtype), [kernel.to(dtype) for kernel in self.kernels]
        highway = self.highway.weight.to(dtype)

        def logits(tokens_GNT: Tensor, given_G: Tensor) -> Tensor:
            tokens_RT = tokens_GNT.flatten(0, 1)
            self._check(tokens_RT)
            if tokens_GNT.is_cpu:
                best_RF = best_match_of_completions(embedding, kernels, tokens_GNT, given_G)
            else:  # few large products are faster there than few cells
                embedded_RTE = functional.embedding(tokens_RT, embedding)
                best_RF = BestMatch.apply(embedded_RTE, self.max_length, *kernels)  # type: ignore[no-untyped-call]
            return self.head(self._through_highway(best_RF, highway))

        return logits

    def _longest(self, mask_BT: Tensor) -> int:
        """Tokens in the longest text; T on a GPU, which would have to be waited for."""
        return int(mask_BT.sum(1).amax()) if mask_BT.is_cpu and len(mask_BT) else self.max_length

    def begin_features(self, batch_size: int) -> dict[str, Tensor]:
        """As the base, and what is known of the filters' matches (see `GrowingMatches`, on a GPU `SlidingMatches`).

        The weights are laid out here, so who changes them begins anew.
        """
        self._growing = None
        return {**super().begin_features(batch_size), **self._matches().begin(batch_size)}

    @torch.no_grad()
    def step_features(self, tokens_B: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `DiscriminatorModule.step_features`: equal to `features` but for rounding, without gradients."""
        longer = self.append_tokens(tokens_B, state)
        best_BF, matches = self._matches().read(tokens_B, state)
        return self._known_or_new(longer["tokens"], best_BF), {**longer, **matches}

    @torch.no_grad()
    def prefix_features(self, tokens_BT: Tensor) -> Tensor:
        """As the base; on a CPU token by token as far as the best matches, then many rows at once.

        After its end a text stays as it is, so nothing is computed there.
        """
        if self.bias.device.type != "cpu":
            return super().prefix_features(tokens_BT)
        length_B = (tokens_BT != self.vocab_size).sum(1)
        state, rows_b, tokens, best = self.begin_features(len(tokens_BT)), torch.arange(len(tokens_BT)), [], []
        for length in range(tokens_BT.shape[1] + 1):
            going_b = length_B[rows_b] >= length
            if not bool(going_b.all()):
                rows_b, state = rows_b[going_b], {name: part[going_b] for name, part in state.items()}
            token_b = tokens_BT[rows_b, max(0, length - 1)]
            best_bF, matches = self._matches().read(token_b, state)
            state = {**self.append_tokens(token_b, state), **matches}
            tokens.append(state["tokens"])
            best.append(best_bF)
        tiles = zip(*(torch.cat(parts).split(SCORING_TILE.cpu) for parts in (tokens, best)), strict=True)
        features_PF = torch.cat([self._known_or_new(*tile) for tile in tiles])
        # The rows above are the prefixes up to each text's end, the shortest first.
        lengths_S1 = torch.arange(len(best))[:, None]
        there_SB = lengths_S1 <= length_B
        number_SB = (there_SB.flatten().cumsum(0) - 1).view_as(there_SB).gather(0, lengths_S1.minimum(length_B))
        return features_PF[number_SB.t()]

    def _known_or_new(self, tokens_BT: Tensor, best_BF: Tensor) -> Tensor:
        """Features of prefixes, float (B, F), from their best matches unless they are known."""
        if self.known is None or not best_BF.is_cpu:
            return self._through_highway(best_BF)
        return self.known.get(tokens_BT, lambda: self._through_highway(best_BF))

    def _matches(self) -> GrowingMatches | SlidingMatches:
        """The filters as they are laid out for growing prefixes."""
        if self._growing is None:
            laid_out = GrowingMatches if self.bias.device.type == "cpu" else SlidingMatches
            # Tensors of inference mode could not be copied with the module.
            with torch.inference_mode(False), torch.no_grad():
                self._growing = laid_out(self.embedding, list(self.kernels), self.widths, self.max_length)
        return self._growing

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

    def _through_highway(self, best_BF: Tensor, weight: Tensor | None = None) -> Tensor:
        """Features from the best match of each filter, float (B, F); the layer's weight may be given in less bits."""
        # ReLU never swaps two values, so the maximum may come first: T times fewer of them.
        pooled_BF = (best_BF + self.bias).relu()
        if weight is None or weight.dtype == pooled_BF.dtype:
            mixed_BX = self.highway(pooled_BF)
        else:
            mixed_BX = functional.linear(pooled_BF.to(weight.dtype), weight) + self.highway.bias
        candidate_BF, gate_BF = mixed_BX.chunk(2, dim=1)
        return torch.lerp(pooled_BF, candidate_BF.relu(), gate_BF.sigmoid())
