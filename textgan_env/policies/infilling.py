"""The policy that fills blanks and sees both sides of them: MaskGAN's generator."""

import copy
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

from textgan_env.ops.sampling import derived_seed, seeded
from textgan_env.ops.templates import BLANK, TemplateReader, check_template
from textgan_env.policies.base import State, draw_weights
from textgan_env.policies.lstm import LSTMPolicy
from textgan_env.utils.errors import require, require_at_least
from textgan_env.utils.reading import check_weights


class InfillingPolicy(LSTMPolicy):
    """An LSTM that writes from left to right and is told, at each place, what a template says on both sides of it.

    MaskGAN's generator (Fedus et al. 2018) is a sequence-to-sequence network whose decoder attends to the encoded
    template. Template and text have the same places, so here nothing needs to be looked for: the encoder, a
    bidirectional LSTM (`TemplateReader`), says something at each place, and that is added to the embedding of the token
    read before it.

    `given` makes it see a template. Without one all T places are blank, and it writes texts as any policy does.

    Args:
        vocab_size: V.
        start_token: First input token.
        max_length: T.
        embed_size: Width of both embeddings.
        hidden_size: Width of the decoder, and of the encoder in each direction.
        num_layers: Layers of the decoder; the encoder has one.
        dropout: Share of units of the decoder that are set to 0 in training.
        init_scale: Standard deviation of the initial weights.
        forbidden: Tokens that are never generated, such as UNK.
        seed: What the initial weights follow from.

    Raises:
        InputError: If a size is below 1 or too large, or a share out of its range.
    """

    kind: ClassVar[str] = "infilling"

    def __init__(
        self,
        vocab_size: int,
        *,
        start_token: int,
        max_length: int,
        embed_size: int = 32,
        hidden_size: int = 32,
        num_layers: int = 1,
        dropout: float = 0.0,
        init_scale: float = 0.1,
        forbidden: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        require_at_least(1, max_length=max_length)
        super().__init__(
            vocab_size, start_token=start_token, embed_size=embed_size, hidden_size=hidden_size, num_layers=num_layers,
            dropout=dropout, init_scale=init_scale, forbidden=forbidden, seed=seed,
        )  # fmt: skip
        del self._settings["initial_state"]
        self._settings["max_length"] = self.max_length = max_length
        decoder = sum(parameter.numel() for parameter in self.parameters())
        reader = TemplateReader.weights(vocab_size, embed_size, hidden_size)
        # A template of a forged file is no longer than the file, either.
        check_weights(max(decoder + reader, max_length), "an infilling policy")
        self._template_BT: Tensor | None = None
        with seeded(derived_seed(seed, "template")):
            self.reader = TemplateReader(vocab_size, embed_size, hidden_size)
            draw_weights(self.reader, init_scale)

    def reading(self, template_BT: Tensor) -> Self:
        """The same policy that reads these templates, int64 (B, T) or (1, T); `given` also keeps to them.

        Raises:
            InputError: If they are of another length than its texts, or hold other numbers.
        """
        check_template(template_BT, self.vocab_size)
        found = template_BT.shape[1]
        require(found == self.max_length, f"templates must have T={self.max_length} places, found {found}")
        view = copy.copy(self)
        view._template_BT = template_BT.to(self.device)
        return view

    def for_rows(self, rows_R: Tensor) -> Self:
        """The same policy with the templates of some texts."""
        if self._template_BT is None or len(self._template_BT) == 1:
            return self
        view = copy.copy(self)
        view._template_BT = self._template_BT[rows_R]
        return view

    def begin(self, batch_size: int) -> State:
        """Hidden and cell state, (B, layers, hidden_size), what the template says, (B, T, embed_size), and the place.

        Raises:
            InputError: If it reads templates of other texts.
        """
        template_BT = self._template_BT
        if template_BT is None:
            template_BT = torch.full((1, self.max_length), BLANK, device=self.device)
        have = len(template_BT)
        require(have in (1, batch_size), f"the policy reads templates of {have} texts, asked for {batch_size}")
        context_BTE: Tensor = self.reader(template_BT).expand(batch_size, -1, -1)
        return *super().begin(batch_size), context_BTE, torch.zeros(batch_size, dtype=torch.int64, device=self.device)

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """One LSTM step and the projection; then the next place."""
        logits_BV, (hidden, cell, context_BTE, place_B) = super().raw_step(tokens_B, state)
        return logits_BV, (hidden, cell, context_BTE, (place_B + 1).clamp(max=self.max_length - 1))

    def _inputs(self, embedded_BTE: Tensor, state: State) -> Tensor:
        """The embeddings, and what the template says at the places of the tokens that come next."""
        context_BTE: Tensor
        context_BTE, place_B = state[2:]
        places_BT = place_B[:, None] + torch.arange(embedded_BTE.shape[1], device=place_B.device)
        width = embedded_BTE.shape[2]
        return embedded_BTE + context_BTE.gather(1, places_BT[..., None].expand(-1, -1, width))
