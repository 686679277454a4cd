"""The tabular policy: one row of logits for every prefix. Exact where all texts can be listed."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from textgan_env.policies.base import PolicyModule, State
from textgan_env.utils.errors import require, require_at_least
from textgan_env.utils.reading import check_weights

_MOST_LOGITS = 10_000_000


class TablePolicy(PolicyModule):
    """One row of logits for each of the P = 1 + V + ... + V^(T-1) prefixes, learnable, for tiny V^T.

    Prefixes are numbered by length, then in lexical order: the empty one is 0, and prefix i followed by token a is
    i V + 1 + a. It can hold any distribution over texts of T tokens.

    Args:
        vocab_size: V.
        max_length: T.
        start_token: 0 to V; makes no difference.
        forbidden: Tokens that are never generated.
        logits_PV: float (P, V); the logits to begin with, copied as float32. None: zeros, all texts alike.

    Raises:
        InputError: If a number or a token is out of range, the table is too large or the logits have another shape.
    """

    kind: ClassVar[str] = "table"

    def __init__(
        self,
        vocab_size: int,
        *,
        max_length: int,
        start_token: int = 0,
        forbidden: Sequence[int] = (),
        logits_PV: Tensor | None = None,
    ) -> None:
        super().__init__(vocab_size, start_token, forbidden)
        require_at_least(1, max_length=max_length)
        logits = 0
        for _ in range(max_length):
            logits = (logits + 1) * vocab_size
            # Said before the sum is complete: of absurd lengths it would never be.
            size = f"a table for {max_length} tokens out of {vocab_size}"
            require(logits <= _MOST_LOGITS, f"{size} needs more than {_MOST_LOGITS:,} logits")
        check_weights(logits, "a table")
        self.max_length, self._settings = max_length, {"max_length": max_length}
        shape = (logits // vocab_size, vocab_size)
        if logits_PV is None:
            logits_PV = torch.zeros(shape)
        require(logits_PV.shape == shape, f"logits must have shape {shape}, found {tuple(logits_PV.shape)}")
        self.logits_PV = nn.Parameter(logits_PV.detach().float().clone())

    @classmethod
    def from_text_probabilities(
        cls, probability_S: Tensor, *, vocab_size: int, max_length: int, start_token: int = 0
    ) -> Self:
        """The policy that generates each text with a given probability.

        Args:
            probability_S: float; of the S = V^T texts in lexical order, up to a common factor. What follows a prefix
                of probability 0 is uniform.
            vocab_size: V.
            max_length: T.
            start_token: 0 to V; makes no difference.

        Raises:
            InputError: If there are not V^T numbers, one is negative or not finite, or all are 0.
        """
        texts, shape = vocab_size**max_length, tuple(probability_S.shape)
        expected = f"{max_length} tokens out of {vocab_size} make {texts} texts"
        require(shape == (texts,), f"{expected}, found probabilities of shape {shape}")
        possible = torch.isfinite(probability_S).all() and (probability_S >= 0).all() and probability_S.any()
        require(bool(possible), "probabilities of texts must be finite, not negative and not all 0")
        rows = []
        for length in range(max_length):
            mass_pV = probability_S.double().view(vocab_size**length, vocab_size, -1).sum(2)
            rows.append((mass_pV / mass_pV.sum(1, keepdim=True)).log().nan_to_num(nan=0.0, neginf=-torch.inf))
        return cls(vocab_size, max_length=max_length, start_token=start_token, logits_PV=torch.cat(rows))

    def require_sound(self, weights: Mapping[str, Tensor]) -> None:
        """Refuse what any policy refuses, but a token may be impossible (minus infinity); not all after one prefix.

        Raises:
            InputError: If a row is no distribution.
        """
        best_P = weights["logits_PV"].amax(1)
        sound = torch.isfinite(best_P) & ~torch.isnan(weights["logits_PV"]).any(1)
        require(bool(sound.all()), "'logits_PV' holds rows that are no distribution")

    def begin(self, batch_size: int) -> State:
        """The number of the prefix, int64 (B,); -1 before the start token."""
        return torch.full((batch_size,), -1, device=self.device)

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """The row of the prefix. PAD, what is read after the end of a text, leaves a prefix as it is.

        Raises:
            InputError: If a row has been read to its end, T tokens.
        """
        after_B = torch.where(tokens_B == self.vocab_size, state, state * self.vocab_size + 1 + tokens_B)
        prefix_B = torch.where(state < 0, 0, after_B)
        known = bool((prefix_B < len(self.logits_PV)).all())
        require(known, f"this table knows texts of {self.max_length} tokens, and was asked for one more")
        return self.logits_PV[prefix_B], prefix_B
