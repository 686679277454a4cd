"""A discriminator that sees what a pretrained language model makes of a text; that model itself never learns."""

import os
from collections.abc import Sequence
from time import perf_counter
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.discriminators.base import DiscriminatorModule, RawLinear
from textgan_env.ops.sampling import seeded
from textgan_env.text.language_models import ends_of, read_causal_lm, weights_hash
from textgan_env.text.subwords import Subwords
from textgan_env.text.vocabulary import Vocabulary
from textgan_env.utils.errors import InputError, require, require_at_least
from textgan_env.utils.reading import check_weights

#: Texts that the language model reads at once, and subwords by which the longest of them is rounded up. Both are fixed,
#: as products of another number of rows round differently, and what a text gives must not depend on others.
ROWS, STEP = 16, 8
#: Fresh texts whose features are kept in memory: those of a d-step or two.
_MOST_FRESH = 2**15


class FrozenFeatures:
    """What the first layers of a language model make of texts: mean and last of the states of their subwords.

    The states are those after the last of these layers and the model's own final norm; that of the mark which every
    text begins with is left out. Copies of a discriminator share this: nothing of it changes but what it remembers.

    Args:
        model: The language model, by name or its folder.
        layers: How many of its layers.
        vocabulary: What tokens are.
        own_subwords: Whether its words are the numbers of the model's own subwords.

    Attributes:
        size: Numbers a text: twice the width of the model.

    Raises:
        InputError: If the model has fewer layers, or as `read_causal_lm`.
        MissingDataError: As `read_causal_lm`.
    """

    def __init__(self, model: str, layers: int, vocabulary: Vocabulary, own_subwords: bool) -> None:
        require_at_least(1, layers=layers)
        self._subwords = Subwords.of_folder(model)
        read: Any = read_causal_lm(model, layers=layers).requires_grad_(False)
        self._model: Any = read.base_model
        self._vocabulary, self._own = vocabulary, own_subwords
        self._start, _ = ends_of(read.config, model)
        self._most, self.size = len(read.get_input_embeddings().weight), 2 * int(read.config.hidden_size)
        self._real: dict[bytes, Tensor] = {}
        self._fresh: dict[bytes, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself."""
        return self

    @torch.no_grad()
    def forget(self, seed: int) -> None:
        """Draw the language model's weights at random, as untrained ones are drawn: the control of what it knows.

        Args:
            seed: Of the draws.
        """
        with seeded(seed):
            for weight in self._model.parameters():
                if weight.dim() > 1:
                    nn.init.normal_(weight, std=0.02)
                else:
                    nn.init.ones_(weight)
        self._real.clear()
        self._fresh.clear()

    def remember(self, tokens_RT: Tensor, features_RX: Tensor) -> None:
        """Keep the features of texts that are asked about again and again, those of the real side.

        Args:
            tokens_RT: int64, PAD after the end.
            features_RX: float; what `of` gave.
        """
        self._real.update(zip(_keys(tokens_RT), features_RX.unbind(0), strict=True))

    def of(self, tokens_BT: Tensor) -> Tensor:
        """The features of texts, float (B, X), on the CPU, without gradients; each text is read once.

        Args:
            tokens_BT: int64, PAD after the end.
        """
        keys = _keys(tokens_BT)
        new = {key: row for row, key in enumerate(keys) if key not in self._real and key not in self._fresh}
        if len(self._fresh) + len(new) > _MOST_FRESH:
            self._fresh.clear()
            new = {key: row for row, key in enumerate(keys) if key not in self._real}
        if new:
            read = self._read([self._numbers(tokens_BT[row].tolist()) for row in new.values()])
            self._fresh.update(zip(new, read, strict=True))
        rows = [self._real.get(key) if key in self._real else self._fresh[key] for key in keys]
        return torch.stack(rows) if rows else torch.zeros(0, self.size)  # type: ignore[arg-type]

    def seconds(self, tokens_RT: Tensor) -> float:
        """How long a text takes to read, by the clock: as many as are read at once, of which nothing is remembered.

        Args:
            tokens_RT: int64; at least one text.
        """
        numbers = [self._numbers(tokens_T) for tokens_T in tokens_RT[:ROWS].tolist()]
        began = perf_counter()
        self._read(numbers)
        return (perf_counter() - began) / len(numbers)

    def _numbers(self, tokens_T: Sequence[int]) -> list[int]:
        """A text as the language model reads it."""
        words = self._vocabulary.decode(tokens_T)
        text = self._subwords.join(words) if self._own else self._vocabulary.join(words)
        return [self._start, *self._subwords.numbers(text)]

    def _read(self, numbers: Sequence[Sequence[int]]) -> list[Tensor]:
        """The features of texts, which are sorted by length and read in tiles of a fixed size."""
        highest = max(map(max, numbers))
        require(highest < self._most, f"the tokenizer of the language model knows {highest}, the model does not")
        lengths = {row: -(-len(some) // STEP) * STEP for row, some in enumerate(numbers)}
        found: dict[int, Tensor] = {}
        for length in sorted(set(lengths.values())):
            rows = [row for row in lengths if lengths[row] == length]
            for first in range(0, len(rows), ROWS):
                some = rows[first : first + ROWS]
                found |= dict(zip(some, self._tile([numbers[row] for row in some], length), strict=False))
        return [found[row] for row in range(len(numbers))]

    @torch.no_grad()
    def _tile(self, numbers: Sequence[Sequence[int]], length: int) -> list[Tensor]:
        """The features of at most `ROWS` texts, filled up with texts of the first mark alone."""
        read_BL = torch.full((ROWS, length), self._start)
        ends_B = torch.ones(ROWS, dtype=torch.int64)
        for row, some in enumerate(numbers):
            read_BL[row, : len(some)] = torch.tensor(some)
            ends_B[row] = len(some)
        # Padding stands behind a text, and no subword sees what stands behind it.
        states_BLH = self._model(input_ids=read_BL, use_cache=False).last_hidden_state
        places_L = torch.arange(length)
        counts_BL = (places_L < ends_B[:, None]) & ((places_L > 0) | (ends_B[:, None] == 1))
        mean_BH = (states_BLH * counts_BL[..., None]).sum(1) / counts_BL.sum(1, keepdim=True)
        last_BH = states_BLH[torch.arange(ROWS), ends_B - 1]
        return list(torch.cat([mean_BH, last_BH], dim=1).unbind(0))


class LMDiscriminator(DiscriminatorModule):
    """A hidden layer on frozen features of a pretrained language model (`FrozenFeatures`), and a linear head.

    It judges finished texts: the features of a growing prefix would be those of other texts each time. Its checkpoints
    hold no weight of the language model, only which one it is.

    Args:
        vocab_size: V.
        max_length: T.
        vocabulary: `Vocabulary.to_json` of the task's words: tokens become text, which the model's tokenizer splits.
        own_subwords: Whether the task's words are the numbers of the model's own subwords.
        model: The language model, by name or its folder.
        model_hash: `weights_hash` of the model when D was made; "": it is made now.
        layers: How many of the model's layers: time is proportional to it.
        hidden_size: F.
        dropout: Of the features and of the hidden layer.
        seed: Of the weights.

    Raises:
        InputError: If a number is out of range, the vocabulary has not V words, or the model has other weights than
            when D was made.
        MissingDataError: As `read_causal_lm`.
    """

    kind: ClassVar[str] = "lm"
    costly: ClassVar[bool] = True

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        *,
        vocabulary: str = "",
        own_subwords: bool = False,
        model: str = "smollm2",
        model_hash: str = "",
        layers: int = 4,
        hidden_size: int = 64,
        dropout: float = 0.3,
        seed: int = 0,
    ) -> None:
        require_at_least(1, hidden_size=hidden_size)
        require(vocabulary != "", "discriminator lm reads words, and was given no vocabulary")
        words = Vocabulary.from_json(vocabulary)
        fits = words.size == vocab_size
        require(fits, f"the vocabulary must have V={vocab_size} words, found {words.size}")
        found = weights_hash(model)
        same = model_hash in ("", found)
        require(same, f"the discriminator was made for other weights than those of the language model '{model}'")
        super().__init__(vocab_size, max_length, hidden_size, dropout)
        self.vocabulary, self.own_subwords = vocabulary, own_subwords
        self.model, self.model_hash, self.layers, self.hidden_size = os.fspath(model), found, layers, hidden_size
        self.frozen = FrozenFeatures(model, layers, words, own_subwords)
        check_weights(self.frozen.size * hidden_size, "the hidden layer of a discriminator")
        self.mean_X, self.scale_X = nn.Buffer(torch.zeros(self.frozen.size)), nn.Buffer(torch.ones(self.frozen.size))
        self.hidden = RawLinear(self.frozen.size, hidden_size)
        with seeded(seed):
            self.hidden.reset_parameters()
            self.output.reset_parameters()

    def know(self, tokens_RT: Tensor, features_RX: Tensor) -> None:
        """Remember the features of real texts, and bring each number of a text to mean 0 and deviation 1 over them.

        Args:
            tokens_RT: int64, PAD after the end.
            features_RX: float; what ``frozen.of`` gave.

        Raises:
            InputError: If there is no text.
        """
        require(len(tokens_RT) > 0, "discriminator lm needs real texts, found none")
        self.frozen.remember(tokens_RT, features_RX)
        self.mean_X.copy_(features_RX.mean(0))
        self.scale_X.copy_(features_RX.std(0, correction=0).clamp(min=1e-3))

    def make_optimizer(self, learning_rate: float | None = None) -> torch.optim.Optimizer:
        """AdamW at rate 1e-3 unless another is given, weight decay 0.1."""
        rate = 1e-3 if learning_rate is None else learning_rate
        return torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=0.1, fused=True)

    def features(self, tokens_BT: Tensor) -> Tensor:
        """The hidden layer, float (B, F)."""
        self._check(tokens_BT)
        frozen_BX = self.frozen.of(tokens_BT).to(self.mean_X.device)
        return functional.gelu(self.hidden(self.dropout((frozen_BX - self.mean_X) / self.scale_X)))

    def begin_features(self, batch_size: int) -> dict[str, Tensor]:
        """Refused: prefixes are not judged.

        Raises:
            InputError: Always.
        """
        raise InputError("discriminator lm judges finished texts, it has no features of prefixes")

    def prefix_features(self, tokens_BT: Tensor) -> Tensor:
        """Refused, as `begin_features`.

        Raises:
            InputError: Always.
        """
        raise InputError("discriminator lm judges finished texts, it has no features of prefixes")


def _keys(tokens_RT: Tensor) -> list[bytes]:
    """What texts are remembered by."""
    return [row.tobytes() for row in tokens_RT.cpu().numpy()]
