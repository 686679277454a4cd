"""The discriminator that reads along: an LSTM with a logit for every prefix."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.discriminators.base import DiscriminatorModule, mean_rows
from textgan_env.ops.sampling import seeded
from textgan_env.utils.errors import require_at_least
from textgan_env.utils.reading import check_weights

_MOST_GATES = 2**22  # numbers that `next_logits` works on at once: 16 MiB


class RecurrentDiscriminator(DiscriminatorModule):
    """An LSTM over the text, with a logit after each token: how real the prefix looks so far.

    ScratchGAN's discriminator (de Masson d'Autume et al. 2019) without its pre-trained embeddings, layer norm and
    position channels. It is fitted on the logits of all prefixes, each text with as many cells as it has tokens, so the
    best logit of a prefix is log p(prefix) / q(prefix), p and q the probabilities that a text begins with it. The logit
    of a text is that of its last token; features are the LSTM's hidden state there, F = hidden_size, and 0 for the
    empty text.

    Args:
        vocab_size: V.
        max_length: T.
        embed_size: Width of the embedding.
        hidden_size: Width of the LSTM.
        dropout: Share of the embeddings and of the features that are set to 0 in training.
        seed: Of the initial weights.

    Raises:
        InputError: If a size is below 1 or a share out of range.
    """

    kind: ClassVar[str] = "recurrent"

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        *,
        embed_size: int = 64,
        hidden_size: int = 64,
        dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        require_at_least(1, embed_size=embed_size, hidden_size=hidden_size)
        check_weights(
            (vocab_size + 1) * embed_size + 4 * hidden_size * (embed_size + hidden_size + 2),
            "a recurrent discriminator",
        )
        super().__init__(vocab_size, max_length, hidden_size, dropout)
        self.embed_size, self.hidden_size = embed_size, hidden_size
        with seeded(seed):
            self.embedding = nn.Embedding(vocab_size + 1, embed_size)
            self.lstm = nn.LSTM(embed_size, hidden_size, batch_first=True)
            nn.init.normal_(self.embedding.weight, std=0.1)
            nn.init.normal_(self.output.weight, std=0.1)
            nn.init.zeros_(self.output.bias)

    def make_optimizer(self, learning_rate: float | None = None) -> torch.optim.Optimizer:
        """AdamW at rate 1e-3 unless another is given, weight decay 0.1."""
        rate = 1e-3 if learning_rate is None else learning_rate
        return torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=0.1, fused=True)

    def token_logits(self, tokens_BT: Tensor) -> Tensor:
        """How real each prefix looks, the token itself included: float (B, T), 0 after the end of a text."""
        logits_BT: Tensor = self.output(self.dropout(self._states(tokens_BT)))[..., 0]
        return logits_BT.masked_fill(tokens_BT == self.vocab_size, 0.0)

    @torch.no_grad()
    def next_logits(self, tokens_BT: Tensor) -> Tensor:
        """`token_logits` for every token that could come next, without dropout and gradients.

        An LSTM step for each of the V tokens at each prefix, some prefixes at a time: V times the work of reading.

        Args:
            tokens_BT: int64, PAD after the end; the last token makes no difference.

        Returns:
            float (B, T, V): at t of the t tokens before it and one more. After the end of a text it means nothing.
        """
        self._check(tokens_BT)
        state = (self.output.weight.new_zeros(1, len(tokens_BT), self.hidden_size),) * 2
        states = [state]
        for token_B in tokens_BT[:, :-1].unbind(1):
            state = self.lstm(self.embedding(token_B)[:, None], state)[1]
            states.append(state)
        hidden_CF, cell_CF = (torch.cat(part).transpose(0, 1).flatten(0, 1) for part in zip(*states, strict=True))
        lstm: Any = self.lstm
        read_VG = functional.linear(
            self.embedding.weight[: self.vocab_size], lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0
        )
        some, logits_CV = max(1, _MOST_GATES // read_VG.numel()), []
        for hidden_cF, cell_cF in zip(hidden_CF.split(some), cell_CF.split(some), strict=True):
            gates_cVG = read_VG + functional.linear(hidden_cF, lstm.weight_hh_l0)[:, None]
            takes, keeps, new, shows = gates_cVG.chunk(4, -1)  # torch's order: input, forget, cell, output
            after_cVF = keeps.sigmoid() * cell_cF[:, None] + takes.sigmoid() * new.tanh()
            logits_CV.append(self.output(shows.sigmoid() * after_cVF.tanh())[..., 0])
        return torch.cat(logits_CV).view(*tokens_BT.shape, -1)

    def fitted_logits(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Those of all prefixes, and which of them are no padding."""
        return self.token_logits(tokens_BT), tokens_BT != self.vocab_size

    def features(self, tokens_BT: Tensor) -> Tensor:
        """The hidden state after the last token, float (B, F)."""
        return self._last(self._states(tokens_BT), tokens_BT != self.vocab_size)

    def relaxed_features(self, soft_BTV: Tensor, mask_BT: Tensor) -> Tensor:
        """See `DiscriminatorModule.relaxed_features`: the LSTM reads mean embeddings."""
        self._check_relaxed(soft_BTV, mask_BT)
        embedded_BTE = mean_rows(soft_BTV, mask_BT, self.embedding.weight)
        return self._last(self.lstm(self.dropout(embedded_BTE))[0], mask_BT)

    @staticmethod
    def _last(states_BTF: Tensor, mask_BT: Tensor) -> Tensor:
        """The state after the last token, float (B, F)."""
        state_BTF = functional.pad(states_BTF, (0, 0, 1, 0))  # of the empty prefix: zeros
        length_B = mask_BT.sum(1)
        return state_BTF[torch.arange(len(length_B), device=length_B.device), length_B]

    def begin_features(self, batch_size: int) -> dict[str, Tensor]:
        """As the base, and ``hidden`` and ``cell``, float (B, F)."""
        zeros_BF = self.output.weight.new_zeros(batch_size, self.hidden_size)
        return {**super().begin_features(batch_size), "hidden": zeros_BF, "cell": zeros_BF}

    def step_features(self, tokens_B: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `DiscriminatorModule.step_features`: one step of the LSTM, equal to `features` but for rounding."""
        # The first step of a row reads no token, and PAD makes no prefix longer.
        grew_B1 = ((state["length"] >= 0) & (tokens_B != self.vocab_size))[:, None]
        state = self.append_tokens(tokens_B, state)
        before = state["hidden"][None].contiguous(), state["cell"][None].contiguous()
        with torch.no_grad():
            _, after = self.lstm(self.embedding(tokens_B)[:, None], before)
        hidden_BF, cell_BF = (
            torch.where(grew_B1, new_1BF[0], old_1BF[0]) for new_1BF, old_1BF in zip(after, before, strict=True)
        )
        return hidden_BF, {**state, "hidden": hidden_BF, "cell": cell_BF}

    def _states(self, tokens_BT: Tensor) -> Tensor:
        """Hidden states after each token, float (B, T, F)."""
        self._check(tokens_BT)
        states_BTF: Tensor = self.lstm(self.dropout(self.embedding(tokens_BT)))[0]
        return states_BTF
