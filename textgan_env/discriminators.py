"""Discriminators: text -> how real it looks; and the only place where one is fitted and reported on.

Axis letters: B texts, R texts to be scored (any number), T positions, V vocabulary, F features, E embedding.
A text is a row of T tokens 0..V-1, filled with PAD = V after its end. A logit is high for real text.
"""

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.errors import InputError, require
from textgan_env.loops import each, mean
from textgan_env.metrics import roc_auc
from textgan_env.parallel import backward
from textgan_env.reading import check_weights
from textgan_env.sampling import evaluating, fold
from textgan_env.tiles import Tile

__all__ = [
    "DISCRIMINATORS",
    "EQUILIBRIUM_VALUE",
    "SCORING_TILE",
    "ConvDiscriminator",
    "Discriminator",
    "DiscriminatorModule",
    "FitReport",
    "JudgeReport",
    "PairDiscriminator",
    "Part",
    "evaluating",
    "fit_discriminator",
    "judge_report",
    "make_discriminator",
    "score_features",
    "score_logits",
]

#: V(D, G) when nobody can tell real from fake: ln 1/2 + ln 1/2 (Goodfellow et al. 2014, theorem 1).
EQUILIBRIUM_VALUE = -2 * math.log(2)

#: Rows a scoring call works on. With the CNN on 2 cores 512 gain 7 %, 128 lose 10 %.
SCORING_TILE = Tile(cpu=256, gpu=1024)

_MOST_WIDTHS = 1000


class Discriminator(Protocol):
    """What judges text: anything with these five names."""

    @property
    def vocab_size(self) -> int:
        """V."""

    @property
    def max_length(self) -> int:
        """T."""

    @property
    def feature_size(self) -> int:
        """F."""

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """How real each text looks.

        Args:
            tokens_BT: int64 (B, T), PAD = V after the end.

        Returns:
            Logits, float (B,), high for real: ``sigmoid`` of one is the probability that the text is real.
        """

    def features(self, tokens_BT: Tensor) -> Tensor:
        """What the logit is computed from, float (B, F): LeakGAN leaks it to the generator."""


@dataclass(frozen=True)
class Part:
    """A summand of a logit.

    Attributes:
        name: What it is, for example "filter 7 of width 3".
        positions: Which tokens of the text it looks at, from 0; -1 is the mark before the first token, the length of
            the text is what follows the last one. Empty where a part cannot say.
        value: Logit units; above 0 speaks for real.
    """

    name: str
    positions: tuple[int, ...]
    value: float


class DiscriminatorModule(nn.Module):
    """What our discriminators share: logits = head(dropout(features)), with a linear head.

    Dropout stands between features and head, so `features` has none and, in eval mode, ``logits`` is exactly
    ``head(features)``. A subclass gives `features`, `config` and `make_optimizer`.

    Args:
        vocab_size: V.
        max_length: T.
        feature_size: F.
        dropout: Share of the features that are set to 0 in training.

    Raises:
        InputError: If V or T is below 1 or the share is not in [0, 1).
    """

    kind: ClassVar[str]

    def __init__(self, vocab_size: int, max_length: int, feature_size: int, dropout: float) -> None:
        super().__init__()
        require(vocab_size >= 1, f"vocab_size must be at least 1, found {vocab_size}")
        require(max_length >= 1, f"max_length must be at least 1, found {max_length}")
        require(0 <= dropout < 1, f"dropout must be at least 0 and below 1, found {dropout}")
        check_weights(feature_size + 1, "the head of a discriminator")
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.feature_size = feature_size
        self.dropout = nn.Dropout(dropout)
        self.output = nn.utils.skip_init(nn.Linear, feature_size, 1)

    def features(self, tokens_BT: Tensor) -> Tensor:
        """What the head reads, float (B, F)."""
        raise NotImplementedError

    def begin_features(self, batch_size: int) -> dict[str, Tensor]:
        """The state from which `step_features` follows B growing prefixes; axis B first.

        Returns:
            ``tokens`` int64 (B, T), the prefix and then PAD; ``length`` int64 (B,), -1 before the first step.
        """
        device = self.output.weight.device
        return {
            "tokens": torch.full((batch_size, self.max_length), self.vocab_size, device=device),
            "length": torch.full((batch_size,), -1, device=device),
        }

    def step_features(self, tokens_B: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Take the next token of each prefix, and say what `features` would of the prefix filled up with PAD.

        The first step of a row reads no token, as the first step of a policy reads the start token: it gives the
        features of the empty prefix.

        Args:
            tokens_B: int64.
            state: What the step before returned; it is left as it was.

        Returns:
            Features, float (B, F), and the state of the longer prefixes.

        Raises:
            InputError: If a prefix has T tokens already.
        """
        state = self.append_tokens(tokens_B, state)
        return self.features(state["tokens"]), state

    def append_tokens(self, tokens_B: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The first half of `step_features`: the longer prefixes, when nobody asks for their features."""
        length_B = state["length"] + 1
        # PAD after the last token makes no prefix longer.
        length_B = torch.where(tokens_B == self.vocab_size, length_B.clamp(max=self.max_length), length_B)
        if not length_B.is_cuda and len(length_B):
            require(
                int(length_B.max()) <= self.max_length,
                f"the discriminator reads texts of {self.max_length} tokens, and was given one more",
            )
        place_B1 = (length_B - 1).clamp(min=0)[:, None]
        held_B = state["tokens"].gather(1, place_B1)[:, 0]
        written_B = torch.where(length_B > state["length"].clamp(min=0), tokens_B, held_B)
        return {**state, "tokens": state["tokens"].scatter(1, place_B1, written_B[:, None]), "length": length_B}

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain data: with the weights, all that a checkpoint needs."""
        raise NotImplementedError

    def make_optimizer(self, learning_rate: float | None = None) -> torch.optim.Optimizer:
        """The optimizer it is fitted with; None: the learning rate it was published or tuned with."""
        raise NotImplementedError

    def penalty(self) -> Tensor:
        """Regularisation term that is added to the loss (nats): none unless a subclass has one."""
        return torch.zeros((), device=self.output.weight.device)

    def head(self, features_BF: Tensor) -> Tensor:
        """Logits, float (B,), from features, float (B, F)."""
        logits_B: Tensor = self.output(features_BF).squeeze(1)
        return logits_B

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """How real each text looks: float (B,), high for real (see `Discriminator.logits`)."""
        return self.head(self.dropout(self.features(tokens_BT)))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """The same as `logits`."""
        return self.logits(tokens_BT)

    def score_real(self, tokens_BT: Tensor) -> Tensor:
        """Probability that each text is real, float (B,)."""
        return self.logits(tokens_BT).sigmoid()

    @torch.no_grad()
    def parts(self, tokens_T: Tensor) -> list[Part]:
        """What the logit of one text is the sum of, in eval mode; the last part is the constant.

        Unless a subclass knows better: each feature times its weight.

        Args:
            tokens_T: int64, PAD after the end.
        """
        places: list[tuple[str, tuple[int, ...]]] = [(f"feature {f + 1}", ()) for f in range(self.feature_size)]
        return self._weighted(places, self.features(tokens_T[None])[0] * self.output.weight[0])

    def _weighted(self, places: Sequence[tuple[str, tuple[int, ...]]], values_R: Tensor) -> list[Part]:
        """Parts from names, positions and values, and the constant."""
        parts = [Part(*place, value) for place, value in zip(places, values_R.tolist(), strict=True)]
        return [*parts, Part("constant", (), float(self.output.bias))]

    def _check(self, tokens_BT: Tensor) -> None:
        """Refuse what is not a batch of texts; values are looked at on CPU only, as it would stall a GPU."""
        require(
            tokens_BT.dim() == 2 and tokens_BT.shape[1] == self.max_length,
            f"tokens must have shape (B, T={self.max_length}), found {tuple(tokens_BT.shape)}",
        )
        require(tokens_BT.dtype == torch.int64, f"tokens must be int64, found {tokens_BT.dtype}")
        if tokens_BT.is_cpu and len(tokens_BT):
            low, high = (int(value) for value in torch.aminmax(tokens_BT))
            require(
                low >= 0 and high <= self.vocab_size,
                f"tokens must be 0 to V={self.vocab_size} (V is PAD), found {low if low < 0 else high}",
            )


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
        widths: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20),
        filters: Sequence[int] = (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160),
        dropout: float = 0.25,
        l2: float = 0.1,
        seed: int = 0,
    ) -> None:
        require(
            len(set(widths)) == len(widths) == len(filters) and min([*widths, *filters], default=1) >= 1,
            f"widths must be different numbers of at least 1, and filters as many numbers of at least 1, "
            f"found widths {list(widths)} and filters {list(filters)}",
        )
        require(len(widths) <= _MOST_WIDTHS, f"there may be at most {_MOST_WIDTHS} widths, found {len(widths)}")
        require(embed_size >= 1, f"embed_size must be at least 1, found {embed_size}")
        require(l2 >= 0, f"l2 must be at least 0, found {l2}")
        fitting = {width: count for width, count in zip(widths, filters, strict=True) if width <= max_length}
        require(bool(fitting), f"one of the widths must be at most T={max_length}, found {list(widths)}")
        super().__init__(vocab_size, max_length, sum(fitting.values()), dropout)
        features, kernels = self.feature_size, sum(width * count * embed_size for width, count in fitting.items())
        check_weights((vocab_size + 1) * embed_size + kernels + 2 * features * (features + 2), "a conv discriminator")
        too_wide = [width for width in widths if width > max_length]
        if too_wide:
            logging.getLogger(__name__).warning("T is %d: convolutions of widths %s left out", max_length, too_wide)
        self.widths = list(fitting)
        self.filters = list(fitting.values())
        self.l2 = l2
        self.embedding = nn.Parameter(torch.empty(vocab_size + 1, embed_size))
        # One row a filter: its `width` embeddings side by side, the first token's first.
        self.kernels = nn.ParameterList(torch.empty(count, width * embed_size) for width, count in fitting.items())
        self.bias = nn.Parameter(torch.empty(self.feature_size))
        # The first F outputs are the candidate, the rest the transform gate: one product for both.
        self.highway = nn.utils.skip_init(nn.Linear, self.feature_size, 2 * self.feature_size)
        self._initialise(seed)

    def _initialise(self, seed: int) -> None:
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

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain data; without the widths that were left out."""
        return {
            "vocab_size": self.vocab_size,
            "max_length": self.max_length,
            "embed_size": self.embedding.shape[1],
            "widths": list(self.widths),
            "filters": list(self.filters),
            "dropout": self.dropout.p,
            "l2": self.l2,
        }

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
        on m alone: these are made anew at each token.
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
        embed_size = self.embedding.shape[1]
        columns = 0
        for width, kernel in zip(self.widths, self.kernels, strict=True):
            closed_Bf, best_Bf = (part[:, columns : columns + len(kernel)] for part in (closed_BF, best_BF))
            columns += len(kernel)
            if width <= length:
                last = embedded_BX[:, (length - width) * embed_size : length * embed_size]
                torch.maximum(closed_Bf, last @ kernel.t(), out=closed_Bf)
            best_Bf.copy_(closed_Bf)
            # What the padding adds to a window that sees m tokens before it, m = 0 to width - 1.
            padding_mf = (
                (kernel.view(len(kernel), width, embed_size) @ self.embedding[-1]).t().flip(0).cumsum(0).flip(0)
            )
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
        windows_TBX, *rest = ctx.saved_tensors
        kernels, places = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        length, batch, widest = windows_TBX.shape
        grad_windows_TBX = torch.zeros_like(windows_TBX)
        grad_kernels = []
        for grad_Bf, kernel, place_Bf in zip(
            grad_BF.split([len(kernel) for kernel in kernels], dim=1), kernels, places, strict=True
        ):
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


class PairDiscriminator(DiscriminatorModule):
    """A small judge that generalises: which words are usual, and which pairs of near words.

    A text is read between two marks, both PAD: one before its first token, one after its last. The logit is a sum over
    the text: each token (and the end mark) has a score of its own, and any two of them, marks included, that stand
    d = 1..D apart add <left_d, right_d>, an inner product of rank r: a low-rank table of all pairs of words.
    However much PAD follows the last token, the end mark counts once; a text of T tokens has one, too.

    Features, F = D * r + 1: for each distance the element-wise product of left and right, summed over the text,
    then the sum of single scores. Being sums, those of a growing text can be updated token by token. The head
    starts as all ones and is not decayed. The tables are, strongly: a plain one learns its training texts by heart.
    Measured on samples of SeqGAN's oracle, against LSTM, bigram and unigram texts: dropout lowered the held-out
    AUC where weight decay raised it, so it is off; distance 2 is what sees through bigram texts.

    Args:
        vocab_size: V.
        max_length: T.
        rank: r.
        distances: D.
        dropout: Share of features set to 0 in training.
        seed: Of the initial weights.

    Raises:
        InputError: If a size is below 1 or a share out of range.
    """

    kind: ClassVar[str] = "pair"

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        *,
        rank: int = 16,
        distances: int = 2,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        require(rank >= 1, f"rank must be at least 1, found {rank}")
        require(distances >= 1, f"distances must be at least 1, found {distances}")
        check_weights((vocab_size + 1) * (2 * distances * rank + 1), "a pair discriminator")
        super().__init__(vocab_size, max_length, distances * rank + 1, dropout)
        self.rank = rank
        self.distances = distances
        generator = torch.Generator().manual_seed(seed)
        # Small: what rare words start with is noise that fitting would first have to undo.
        self.left = nn.Parameter(0.03 * torch.randn(vocab_size + 1, distances * rank, generator=generator))
        self.right = nn.Parameter(0.03 * torch.randn(vocab_size + 1, distances * rank, generator=generator))
        self.single = nn.Parameter(torch.zeros(vocab_size + 1, 1))
        nn.init.ones_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain data."""
        return {
            "vocab_size": self.vocab_size,
            "max_length": self.max_length,
            "rank": self.rank,
            "distances": self.distances,
            "dropout": self.dropout.p,
        }

    def make_optimizer(self, learning_rate: float | None = None) -> torch.optim.Optimizer:
        """AdamW, weight decay 2 on the tables and 0 on the head, at rate 5e-3 unless another is given."""
        groups = [
            {"params": [self.left, self.right, self.single], "weight_decay": 2.0},
            {"params": list(self.output.parameters()), "weight_decay": 0.0},
        ]
        rate = 5e-3 if learning_rate is None else learning_rate
        return torch.optim.AdamW(groups, lr=rate, fused=True)

    def features(self, tokens_BT: Tensor) -> Tensor:
        """Sums over the text: the products of each distance, then the single scores; float (B, D * r + 1)."""
        self._check(tokens_BT)
        mark_B1 = tokens_BT.new_full((len(tokens_BT), 1), self.vocab_size)
        marked_BS = torch.cat([mark_B1, tokens_BT, mark_B1], dim=1)
        # What follows the start or a token is a token or the end mark; what follows that is filling.
        counts_BS = torch.cat([mark_B1 == self.vocab_size, tokens_BT != self.vocab_size], dim=1).to(self.left.dtype)
        left_BSX = functional.embedding(marked_BS, self.left)
        right_BSX = functional.embedding(marked_BS[:, 1:], self.right) * counts_BS[..., None]
        single_BS = functional.embedding(marked_BS[:, 1:], self.single)[..., 0] * counts_BS
        sums = []
        for distance in range(1, self.distances + 1):
            # Position s of `right` is position s + 1 of the marked text. No pair is left where d > T + 1.
            columns = slice((distance - 1) * self.rank, distance * self.rank)
            right_BPr = right_BSX[:, distance - 1 :, columns]
            sums.append((left_BSX[:, : right_BPr.shape[1], columns] * right_BPr).sum(1))
        return torch.cat([*sums, single_BS.sum(1, keepdim=True)], dim=1)

    @torch.no_grad()
    def parts(self, tokens_T: Tensor) -> list[Part]:
        """Each token's own score and that of each pair of near tokens (see `DiscriminatorModule.parts`)."""
        mark_1 = tokens_T.new_full((1,), self.vocab_size)
        marked_S = torch.cat([mark_1, tokens_T[tokens_T != self.vocab_size], mark_1])
        weight_F = self.output.weight[0]
        values = [self.single[marked_S[1:], 0] * weight_F[-1]]
        places: list[tuple[str, tuple[int, ...]]] = [("token", (at,)) for at in range(len(marked_S) - 1)]
        for distance in range(1, min(self.distances, len(marked_S) - 1) + 1):
            columns = slice((distance - 1) * self.rank, distance * self.rank)
            left_Pr, right_Pr = self.left[marked_S[:-distance], columns], self.right[marked_S[distance:], columns]
            values.append((left_Pr * right_Pr) @ weight_F[columns])
            # Place 0 is the mark before the first token.
            places += [(f"pair, {distance} apart", (at - 1, at - 1 + distance)) for at in range(len(left_Pr))]
        return self._weighted(places, torch.cat(values))


#: Fixed on purpose: what a file can name is listed here, it never says what to import.
DISCRIMINATORS: dict[str, type[DiscriminatorModule]] = {
    discriminator.kind: discriminator for discriminator in (ConvDiscriminator, PairDiscriminator)
}


def make_discriminator(
    kind: str, *, vocab_size: int, max_length: int, seed: int = 0, **options: Any
) -> DiscriminatorModule:
    """Build a discriminator by name, with the arguments that `DiscriminatorModule.config` gave, or others.

    Args:
        kind: A key of `DISCRIMINATORS`.
        vocab_size: V.
        max_length: T.
        seed: Of the initial weights.
        **options: More arguments of that class.

    Raises:
        InputError: If the name or an option is unknown, or a value is refused by the class.
    """
    kinds = ", ".join(DISCRIMINATORS)
    require(kind in DISCRIMINATORS, f"the kind of a discriminator must be one of {kinds}, found '{kind}'")
    known = inspect.signature(DISCRIMINATORS[kind]).parameters
    unknown = ", ".join(sorted(options.keys() - known.keys()))
    require(not unknown, f"the {kind} discriminator takes {', '.join(known)}, found {unknown}")
    arguments = {"vocab_size": vocab_size, "max_length": max_length, "seed": seed, **options}
    return DISCRIMINATORS[kind](**arguments)


def score_logits(discriminator: Discriminator, tokens_RT: Tensor, tile: int | None = None) -> Tensor:
    """Logits of any number of texts, in eval mode and without gradients; changes nothing in D or the global RNG.

    Always works on ``tile`` rows at once, filled up with empty texts: a matrix product of another number of rows
    rounds differently, and the score of a text must not depend on how many others are scored with it.

    Args:
        discriminator: D.
        tokens_RT: int64 (R, T), PAD = V after the end; R may be 0. They are brought to the device of D's weights.
        tile: Rows at once; None: `SCORING_TILE` of D's device. Bitwise equal scores need equal tiles (and threads); 32
            suits who always has few rows.

    Returns:
        Logits, float (R,), high for real, in the dtype that D gives, on the device of the tokens.

    Raises:
        InputError: If ``tile`` is below 1, or D refuses the tokens.
    """
    return _in_tiles(discriminator, discriminator.logits, tokens_RT, tile)


def score_features(discriminator: Discriminator, tokens_RT: Tensor, tile: int | None = None) -> Tensor:
    """Features of any number of texts, float (R, F): in all else as `score_logits`."""
    return _in_tiles(discriminator, discriminator.features, tokens_RT, tile)


def _in_tiles(
    discriminator: Discriminator, function: Callable[[Tensor], Tensor], tokens_RT: Tensor, tile: int | None
) -> Tensor:
    require(tokens_RT.dim() == 2, f"tokens must have shape (R, T), found {tuple(tokens_RT.shape)}")
    weight = next(discriminator.parameters(), None) if isinstance(discriminator, nn.Module) else None
    device = tokens_RT.device if weight is None else weight.device
    tile = SCORING_TILE.on(device) if tile is None else tile
    require(tile >= 1, f"tile must be at least 1, found {tile}")
    scored = []
    with evaluating(discriminator), torch.inference_mode():
        for part in tokens_RT.to(device).split(tile):
            filling = (0, 0, 0, tile - len(part))
            scored.append(function(functional.pad(part, filling, value=discriminator.vocab_size)))
    # A copy made outside of inference mode may take part in a loss.
    return torch.cat(scored)[: len(tokens_RT)].to(tokens_RT.device, copy=True)


class ReplayedTexts(nn.Module):
    """The written texts that D was last fitted against; half of them stay for the next fit (experience replay).

    A module, because what it remembers belongs in a checkpoint.

    Args:
        rows: How many texts.
        max_length: T.
        vocab_size: V.
    """

    def __init__(self, rows: int, max_length: int, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.register_buffer("tokens_RT", torch.full((rows, max_length), vocab_size))
        self.tokens_RT: Tensor

    def renew(self, fresh_RT: Tensor, generator: torch.Generator) -> Tensor:
        """Replace a random half of the texts, all of them at first.

        Args:
            fresh_RT: int64; as many texts as are remembered.
            generator: Of the choice.

        Returns:
            The texts now remembered, int64 (R, T).
        """
        stays_R = (torch.rand(len(fresh_RT), generator=generator) < 0.5).to(fresh_RT.device)
        stays_R &= self.tokens_RT[:, 0] != self.vocab_size
        self.tokens_RT.copy_(torch.where(stays_R[:, None], self.tokens_RT, fresh_RT))
        return self.tokens_RT.clone()


@dataclass(frozen=True)
class FitReport:
    """What a fit did: means over its steps, each batch looked at before its step and with dropout on.

    Not a judgement of D, which has seen these texts: that is `judge_report` on others. NaN after 0 steps.

    Attributes:
        steps: Steps done.
        loss: Cross entropy, nats a text.
        penalty: Regularisation term that was added to it, nats.
        accuracy: Share of texts on whose side of 0 the logit fell.
    """

    steps: int
    loss: float
    penalty: float
    accuracy: float

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """Name -> number, for a log."""
        return {f"{prefix}{name}": value for name, value in asdict(self).items()}


def fit_discriminator(
    discriminator: Discriminator,
    optimizer: torch.optim.Optimizer,
    real_BT: Tensor,
    fake_BT: Tensor,
    *,
    steps: int,
    batch_size: int = 64,
    generator: torch.Generator,
) -> FitReport:
    """Fit D to tell real from fake: cross entropy on the logit plus D's penalty, each step half real, half fake.

    Goodfellow et al. 2014 eq. 1 as a loss: -(E log D(real) + E log(1 - D(fake))) / 2. Both sides are gone through
    in fresh random orders, as often as the steps need; they may differ in size, and be smaller than a batch.
    The modes of D's parts are given back as they were, and the global RNG does not move.

    Args:
        discriminator: D, an ``nn.Module``; a `DiscriminatorModule` brings a penalty.
        optimizer: Of D's parameters; keep it for the next fit.
        real_BT: int64 (any number, T).
        fake_BT: int64 (any number, T).
        steps: Steps of the optimizer; may be 0.
        batch_size: Texts of each side in a step.
        generator: Of the orders and of dropout.

    Returns:
        Loss and accuracy while fitting.

    Raises:
        InputError: If a number is out of range, one side is empty, D cannot be trained, or the loss is not
            finite (then that step is not taken).
    """
    require(steps >= 0, f"steps must be at least 0, found {steps}")
    require(batch_size >= 1, f"batch_size must be at least 1, found {batch_size}")
    _check_sides(real_BT, fake_BT)
    if not isinstance(discriminator, nn.Module):
        raise InputError(f"only an nn.Module can be fitted, found a {type(discriminator).__name__}")
    weights = [parameter for parameter in discriminator.parameters() if parameter.requires_grad]
    require(
        bool(weights),
        "a discriminator without trainable weights cannot be fitted: fit a copy of it, after requires_grad_(True)",
    )
    orders = (_orders(len(side_BT), batch_size, generator) for side_BT in (real_BT, fake_BT))
    real_is_one_B = torch.tensor([1.0, 0.0], device=real_BT.device).repeat_interleave(batch_size)

    def fit_step(batch: tuple[int, Tensor, Tensor]) -> tuple[float, float, float]:
        _, real_B, fake_B = batch
        tokens_BT = torch.cat([real_BT[real_B.to(real_BT.device)], fake_BT[fake_B.to(fake_BT.device)]])
        return _fit_step(discriminator, weights, optimizer, tokens_BT, real_is_one_B)

    seed = fold(generator)
    # `evaluating` gives every part its own mode back, whatever it is switched to inside.
    with evaluating(discriminator), torch.enable_grad():
        discriminator.train()
        batches = zip(range(steps), *orders, strict=False)
        seen = each(batches, fit_step, ("loss", "penalty", "accuracy"), seed=seed)
    return FitReport(steps, **{name: mean(values) if steps else math.nan for name, values in seen.items()})


def _fit_step(
    discriminator: Discriminator,
    weights: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    tokens_BT: Tensor,
    real_is_one_B: Tensor,
) -> tuple[float, float, float]:
    """One step; returns cross entropy, penalty (nats) and accuracy before it."""

    def share_of(rows: slice) -> tuple[Tensor, ...]:
        real_is_one_b = real_is_one_B[rows]
        logits_b = discriminator.logits(tokens_BT[rows])
        cross_entropy = functional.binary_cross_entropy_with_logits(logits_b, real_is_one_b.to(logits_b.dtype))
        penalty = cross_entropy.new_zeros(())
        if isinstance(discriminator, DiscriminatorModule):
            penalty = discriminator.penalty()
        accuracy = ((logits_b > 0) == real_is_one_b.bool()).float().mean()
        share = len(logits_b) / len(tokens_BT)
        return tuple(share * number for number in (cross_entropy + penalty, cross_entropy, penalty, accuracy))

    optimizer.zero_grad()
    loss, cross_entropy, penalty, accuracy = backward(weights, len(tokens_BT), share_of, dropout=True)
    require(
        math.isfinite(loss.item()),
        f"the loss of the discriminator must be finite, found {loss.item()}: "
        "its learning rate is too high, or its weights were not finite before",
    )
    optimizer.step()
    return cross_entropy.item(), penalty.item(), accuracy.item()


def _orders(rows: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of row numbers without end: one random order of all rows after another, none left out between."""
    waiting = torch.empty(0, dtype=torch.int64, device=generator.device)
    while True:
        while len(waiting) < batch_size:
            order = torch.randperm(rows, generator=generator, device=generator.device)
            waiting = torch.cat([waiting, order])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def _check_sides(real_BT: Tensor, fake_BT: Tensor) -> None:
    require(
        real_BT.dim() == fake_BT.dim() == 2 and real_BT.shape[1] == fake_BT.shape[1],
        f"real and fake texts must have shapes (B, T) with the same T, "
        f"found {tuple(real_BT.shape)} and {tuple(fake_BT.shape)}",
    )
    require(
        len(real_BT) > 0 and len(fake_BT) > 0,
        f"at least one real and one fake text are needed, found {len(real_BT)} and {len(fake_BT)}",
    )


@dataclass(frozen=True)
class JudgeReport:
    """How well D tells real from fake; meaningful on texts that neither D nor the generator has seen.

    Both sides count the same, whatever their sizes. A logit of 0 or below says "fake".

    Attributes:
        loss: Cross entropy, nats a text: mean over real and mean over fake, halved; ln 2 for a D that knows nothing.
        accuracy: Mean of the next two.
        accuracy_real: Share of real texts called real.
        accuracy_fake: Share of fake texts called fake.
        auc: Probability that a real text scores above a fake one; 0.5 for a D that knows nothing.
        value: V(D, G) = E log D(real) + E log(1 - D(fake)), nats: -2 loss. `EQUILIBRIUM_VALUE` if none can tell.
    """

    loss: float
    accuracy: float
    accuracy_real: float
    accuracy_fake: float
    auc: float
    value: float

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """Name -> number, for a log."""
        return {f"{prefix}{name}": value for name, value in asdict(self).items()}


def judge_report(discriminator: Discriminator, real_BT: Tensor, fake_BT: Tensor) -> JudgeReport:
    """Measure D on texts of known origin, in eval mode; changes nothing.

    Args:
        discriminator: D.
        real_BT: int64 (any number, T).
        fake_BT: int64 (any number, T).

    Raises:
        InputError: If one side is empty, or a logit is NaN.
    """
    _check_sides(real_BT, fake_BT)
    real_B = score_logits(discriminator, real_BT).double().cpu()
    fake_B = score_logits(discriminator, fake_BT).double().cpu()
    value = float(functional.logsigmoid(real_B).mean() + functional.logsigmoid(-fake_B).mean())
    accuracy_real, accuracy_fake = float((real_B > 0).double().mean()), float((fake_B <= 0).double().mean())
    return JudgeReport(
        loss=-value / 2,
        accuracy=(accuracy_real + accuracy_fake) / 2,
        accuracy_real=accuracy_real,
        accuracy_fake=accuracy_fake,
        auc=roc_auc(real_B.numpy(), fake_B.numpy()),
        value=value,
    )
