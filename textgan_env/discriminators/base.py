"""What every discriminator is: text -> how real it looks, and its features.

Axis letters: B texts, R texts to be scored (any number), T positions, V vocabulary, F features, E embedding.
A text is a row of T tokens 0..V-1, filled with PAD = V after its end. A logit is high for real text.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.discriminators.growing import KnownFeatures
from textgan_env.ops.reward_kinds import PrecisionName
from textgan_env.ops.tiles import Tile
from textgan_env.utils.errors import InputError, require, require_at_least
from textgan_env.utils.reading import check_weights

#: Rows a scoring call works on. With the CNN on 2 cores 512 gain 7 %, 128 lose 10 %. On a GPU half a tile is filled up
#: in the mean, so that larger tiles are no gain; the windows of this one take 420 MB at T=20 and E=64.
SCORING_TILE = Tile(cpu=256, gpu=4096)


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


class RawLinear(nn.Linear):
    """A linear layer that draws no weights when it is made: they are 0 until its owner draws them."""

    made = False

    def reset_parameters(self) -> None:
        """Weights of 0 when the layer is made; called again, drawn as those of any linear layer."""
        if self.made:
            super().reset_parameters()
            return
        self.made = True
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class DiscriminatorModule(nn.Module):
    """What our discriminators share: logits = head(dropout(features)), with a linear head.

    Dropout stands between features and head, so `features` has none and, in eval mode, ``logits`` is exactly
    ``head(features)``. A subclass gives `features` and `make_optimizer`.

    Args:
        vocab_size: V.
        max_length: T.
        feature_size: F.
        dropout: Share of the features that are set to 0 in training.

    Raises:
        InputError: If V or T is below 1 or the share is not in [0, 1).
    """

    kind: ClassVar[str]
    #: What `step_features` and `prefix_features` need not compute again, see `remembering`.
    known: KnownFeatures | None = None
    #: Whether a text takes so long to score that looking for equal ones pays.
    costly: ClassVar[bool] = False
    #: What it can score completions in, see `score_completions`.
    precisions: ClassVar[tuple[PrecisionName, ...]] = ("float32",)

    def __init__(self, vocab_size: int, max_length: int, feature_size: int, dropout: float) -> None:
        super().__init__()
        require_at_least(1, vocab_size=vocab_size, max_length=max_length)
        require(0 <= dropout < 1, f"dropout must be at least 0 and below 1, found {dropout}")
        check_weights(feature_size + 1, "the head of a discriminator")
        self.vocab_size, self.max_length, self.feature_size = vocab_size, max_length, feature_size
        self.dropout = nn.Dropout(dropout)
        self.output = RawLinear(feature_size, 1)

    def features(self, tokens_BT: Tensor) -> Tensor:
        """What the head reads, float (B, F)."""
        raise NotImplementedError

    def relaxed_features(self, soft_BTV: Tensor, mask_BT: Tensor) -> Tensor:
        """`features` of texts each of whose tokens is a mixture: the embedding read is the mean one; differentiable.

        Where each mixture is all on one token it is `features` of these tokens, bit for bit. Which places have a token
        is no mixture: after the end stands PAD, so that D reads a text's length as that of any other text.

        Args:
            soft_BTV: float; the probability of each token at each place; rows where the mask is False do not matter,
                and get no gradient.
            mask_BT: bool; True for tokens, False after the end.

        Returns:
            float (B, F).

        Raises:
            InputError: If this kind reads tokens only, or a shape does not fit.
        """
        raise InputError(f"a {self.kind} discriminator reads tokens only, no probabilities of tokens")

    def relaxed_logits(self, soft_BTV: Tensor, mask_BT: Tensor) -> Tensor:
        """`logits` of texts each of whose tokens is a mixture, float (B,): see `relaxed_features`."""
        return self.head(self.dropout(self.relaxed_features(soft_BTV, mask_BT)))

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

    @torch.no_grad()
    def prefix_features(self, tokens_BT: Tensor) -> Tensor:
        """What `features` says of each prefix of whole texts, filled up with PAD: f_0 to f_T, without gradients.

        Args:
            tokens_BT: int64, PAD after the end.

        Returns:
            float (B, T + 1, F).
        """
        rows, length = tokens_BT.shape
        places_T, given_S = (torch.arange(end, device=tokens_BT.device) for end in (self.max_length, length + 1))
        whole_BT = functional.pad(tokens_BT, (0, self.max_length - length), value=self.vocab_size)
        prefixes_BST = whole_BT[:, None].masked_fill(places_T >= given_S[:, None], self.vocab_size)
        parts = prefixes_BST.flatten(0, 1).split(SCORING_TILE.on(tokens_BT.device))
        return torch.cat([self.features(part_rT) for part_rT in parts]).view(rows, length + 1, self.feature_size)

    @contextmanager
    def remembering(self, most: int) -> Iterator[None]:
        """Inside, features of the first ``most`` prefixes are kept by who takes long to compute them.

        The weights must not change there.
        """
        self.known = KnownFeatures(most)
        try:
            yield
        finally:
            self.known = None

    def append_tokens(self, tokens_B: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The first half of `step_features`: the longer prefixes, when nobody asks for their features."""
        length_B = state["length"] + 1
        if length_B.device.type == "cpu":
            too_long = f"the discriminator reads texts of {self.max_length} tokens, and was given one more"
            # PAD after the last token makes no prefix longer.
            require(not bool(((length_B > self.max_length) & (tokens_B != self.vocab_size)).any()), too_long)
        # The first step of a row reads none: no place has the number -1.
        is_new_BT = torch.arange(self.max_length, device=length_B.device) == state["length"][:, None]
        tokens_BT = torch.where(is_new_BT, tokens_B[:, None], state["tokens"])
        return {**state, "tokens": tokens_BT, "length": length_B.clamp(max=self.max_length)}

    def config(self) -> dict[str, Any]:
        """The constructor's arguments but the seed, as plain data: with the weights, all that a checkpoint needs.

        Each argument is an attribute of the same name.
        """
        names = [name for name in inspect.signature(type(self)).parameters if name != "seed"]
        return {name: self.dropout.p if name == "dropout" else getattr(self, name) for name in names}

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

    def fitted_logits(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The logits that a fit teaches to tell real from fake: one a text, unless a subclass has one a prefix.

        Returns:
            float (B, X), and bool (B, X): those that count.
        """
        logits_B1 = self.logits(tokens_BT)[:, None]
        return logits_B1, torch.ones_like(logits_B1, dtype=torch.bool)

    def completion_scorer(self, precision: PrecisionName = "float32") -> Callable[[Tensor, Tensor], Tensor]:
        """What scores completions: a function of tokens_GNT, N completions of each of G prefixes, and given_G.

        It gives float (G * N,): `logits` but for rounding. Here each text is read whole; a subclass may compute what
        the completions of a prefix share once. G is ascending in ``given_G``, the numbers of tokens that were given.

        Args:
            precision: A name of ``precisions``.
        """
        return partial(read_whole, self)

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
        places = [(f"feature {f + 1}", ()) for f in range(self.feature_size)]
        return self._weighted(places, self.features(tokens_T[None])[0] * self.output.weight[0])

    def _weighted(self, places: Sequence[tuple[str, tuple[int, ...]]], values_R: Tensor) -> list[Part]:
        """Parts from names, positions and values, and the constant."""
        parts = [Part(*place, value) for place, value in zip(places, values_R.tolist(), strict=True)]
        return [*parts, Part("constant", (), float(self.output.bias))]

    def _check(self, tokens_BT: Tensor) -> None:
        """Refuse what is not a batch of texts; values are looked at on CPU only, as it would stall a GPU."""
        shape = tuple(tokens_BT.shape)
        require(shape[1:] == (self.max_length,), f"tokens must have shape (B, T={self.max_length}), found {shape}")
        require(tokens_BT.dtype == torch.int64, f"tokens must be int64, found {tokens_BT.dtype}")
        if tokens_BT.is_cpu and len(tokens_BT):
            low, high = (int(value) for value in torch.aminmax(tokens_BT))
            wrong = low if low < 0 else high
            require(0 <= wrong <= self.vocab_size, f"tokens must be 0 to V={self.vocab_size} (V is PAD), found {wrong}")

    def _check_relaxed(self, soft_BTV: Tensor, mask_BT: Tensor) -> None:
        """Refuse what is not a batch of mixtures of tokens with its mask."""
        shape, mask = tuple(soft_BTV.shape), tuple(mask_BT.shape)
        expected = f"(B, T={self.max_length}, V={self.vocab_size})"
        require(
            shape[1:] == (self.max_length, self.vocab_size), f"soft texts must have shape {expected}, found {shape}"
        )
        require(mask == shape[:2], f"the mask of soft texts must have shape {shape[:2]}, found {mask}")


def mean_rows(soft_BTV: Tensor, mask_BT: Tensor, table: Tensor) -> Tensor:
    """The mean row of a table under the probabilities of each place, that of PAD where no token is: float (B, T, X).

    Args:
        soft_BTV: float.
        mask_BT: bool.
        table: float (V + 1, X); PAD's row is the last.
    """
    return torch.where(mask_BT[..., None], soft_BTV @ table[:-1], table[-1])


def read_whole(discriminator: Discriminator, tokens_GNT: Tensor, _: Tensor) -> Tensor:
    """Logits of each text by itself, float (G * N,)."""
    return discriminator.logits(tokens_GNT.flatten(0, 1))
