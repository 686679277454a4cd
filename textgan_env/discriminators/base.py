"""What every discriminator is: text -> how real it looks, and its features.

Axis letters: B texts, R texts to be scored (any number), T positions, V vocabulary, F features, E embedding.
A text is a row of T tokens 0..V-1, filled with PAD = V after its end. A logit is high for real text.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.ops.sampling import evaluating
from textgan_env.ops.tiles import Tile
from textgan_env.utils.errors import require, require_at_least
from textgan_env.utils.reading import check_weights

#: Rows a scoring call works on. With the CNN on 2 cores 512 gain 7 %, 128 lose 10 %.
SCORING_TILE = Tile(cpu=256, gpu=1024)


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

    def __init__(self, vocab_size: int, max_length: int, feature_size: int, dropout: float) -> None:
        super().__init__()
        require_at_least(1, vocab_size=vocab_size, max_length=max_length)
        require(0 <= dropout < 1, f"dropout must be at least 0 and below 1, found {dropout}")
        check_weights(feature_size + 1, "the head of a discriminator")
        self.vocab_size, self.max_length, self.feature_size = vocab_size, max_length, feature_size
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
            too_long = f"the discriminator reads texts of {self.max_length} tokens, and was given one more"
            require(int(length_B.max()) <= self.max_length, too_long)
        place_B1 = (length_B - 1).clamp(min=0)[:, None]
        held_B = state["tokens"].gather(1, place_B1)[:, 0]
        written_B = torch.where(length_B > state["length"].clamp(min=0), tokens_B, held_B)
        return {**state, "tokens": state["tokens"].scatter(1, place_B1, written_B[:, None]), "length": length_B}

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
    """Apply a function to texts in tiles of equal size, in eval mode and without gradients."""
    require(tokens_RT.dim() == 2, f"tokens must have shape (R, T), found {tuple(tokens_RT.shape)}")
    weight = next(discriminator.parameters(), None) if isinstance(discriminator, nn.Module) else None
    device = tokens_RT.device if weight is None else weight.device
    tile = SCORING_TILE.on(device) if tile is None else tile
    require_at_least(1, tile=tile)
    scored = []
    with evaluating(discriminator), torch.inference_mode():
        for part in tokens_RT.to(device).split(tile):
            filling = (0, 0, 0, tile - len(part))
            scored.append(function(functional.pad(part, filling, value=discriminator.vocab_size)))
    # A copy made outside of inference mode may take part in a loss.
    return torch.cat(scored)[: len(tokens_RT)].to(tokens_RT.device, copy=True)
