"""The discriminator that knows what was given: MaskGAN's."""

import copy
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from textgan_env.discriminators.base import DiscriminatorModule
from textgan_env.discriminators.recurrent import RecurrentDiscriminator
from textgan_env.ops.sampling import derived_seed, seeded
from textgan_env.ops.templates import BLANK, TemplateReader, check_template, given_cells
from textgan_env.utils.errors import require
from textgan_env.utils.reading import check_weights


class InfillingDiscriminator(RecurrentDiscriminator):
    """A `RecurrentDiscriminator` that is told, at each token, what the template says on both sides of it.

    MaskGAN's discriminator (Fedus et al. 2018): without the template it could not know which of two words that do not
    fit was filled in. It is fitted on the logits at blanks, so the best logit at a blank is log p / q of the text up to
    there, p and q the probabilities that a real text with this template, or a filling of it, begins so.

    `given` makes it see templates. Without one all is blank, and every token counts.

    Args:
        vocab_size: V.
        max_length: T.
        embed_size: Width of both embeddings.
        hidden_size: Width of the LSTM, and of the template's in each direction.
        dropout: Share of the embeddings and of the features that are set to 0 in training.
        sees_template: False: it is told where the blanks are only in so far as no other logit is fitted, a control.
        seed: Of the initial weights.

    Raises:
        InputError: If a size is below 1 or a share out of range.
    """

    kind: ClassVar[str] = "infilling"

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        *,
        embed_size: int = 64,
        hidden_size: int = 64,
        dropout: float = 0.1,
        sees_template: bool = True,
        seed: int = 0,
    ) -> None:
        sizes = {"embed_size": embed_size, "hidden_size": hidden_size}
        super().__init__(vocab_size, max_length, **sizes, dropout=dropout, seed=seed)
        own = sum(parameter.numel() for parameter in self.parameters())
        check_weights(own + TemplateReader.weights(vocab_size, **sizes), "an infilling discriminator")
        self.sees_template = sees_template
        self._template_BT: Tensor | None = None
        with seeded(derived_seed(seed, "template")):
            self.reader = TemplateReader(vocab_size, **sizes)
            nn.init.normal_(self.reader.embedding.weight, std=0.1)

    def given(self, template_BT: Tensor) -> Self:
        """The same discriminator, sharing its weights, of texts with these templates.

        Args:
            template_BT: int64, a row for each text: a token, `BLANK` or PAD after the end.

        Raises:
            InputError: If these are no templates of T places.
        """
        check_template(template_BT, self.vocab_size)
        found = template_BT.shape[1]
        require(found == self.max_length, f"templates must have T={self.max_length} places, found {found}")
        view = copy.copy(self)
        view._template_BT = template_BT.to(self.output.weight.device)
        return view

    def fitted_logits(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of all prefixes, and which of them end with a token that was filled in."""
        logits_BT, counts_BT = super().fitted_logits(tokens_BT)
        if self._template_BT is not None:
            counts_BT = counts_BT & ~given_cells(self._template_BT, self.vocab_size)
        return logits_BT, counts_BT

    # The template is said at every place, so a prefix is read again with each token.
    begin_features = DiscriminatorModule.begin_features
    step_features = DiscriminatorModule.step_features

    def _states(self, tokens_BT: Tensor) -> Tensor:
        """Hidden states after each token, float (B, T, F)."""
        self._check(tokens_BT)
        template_BT = self._template_BT
        if template_BT is None or not self.sees_template:
            template_BT = torch.full((1, self.max_length), BLANK, device=tokens_BT.device)
        rows = len(tokens_BT)
        require(len(template_BT) in (1, rows), f"expected templates of {rows} texts, found {len(template_BT)}")
        inputs_BTE = self.embedding(tokens_BT) + self.reader(template_BT)
        states_BTF: Tensor = self.lstm(self.dropout(inputs_BTE))[0]
        return states_BTF
