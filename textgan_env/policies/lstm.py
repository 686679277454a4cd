"""The LSTM policy: the generator of SeqGAN, and, with fixed random weights, the oracle."""

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.ops.losses import linear_log_prob
from textgan_env.ops.sampling import Stream, keyed_uniform, seeded
from textgan_env.policies.base import PolicyModule, State
from textgan_env.utils.errors import require, require_at_least
from textgan_env.utils.reading import check_weights

_MOST_LAYERS = 64


class LSTMPolicy(PolicyModule):
    """Embedding, LSTM, projection to the vocabulary.

    SeqGAN's generator (Yu et al. 2017, section 3 "The generative model"; sizes and initialisation of its published
    code: 32/32, all weights N(0, 0.1)). Dropout is ours: on the embeddings and on the LSTM's output.

    Args:
        vocab_size: V.
        start_token: First input token; V (the row of PAD) for text corpora, 0 on SeqGAN's oracle task.
        embed_size: Width of the embedding.
        hidden_size: Width of the LSTM.
        num_layers: LSTM layers.
        dropout: Share of units that are set to 0 in training.
        init_scale: Standard deviation of the initial weights.
        forbidden: Tokens that are never generated, such as UNK.
        initial_state: ``zeros``, or ``random``: a hidden state from N(0, 1) for each text, fixed by its keys
            (`for_texts`), so that its completions start from the same one. Without keys: fresh states in training,
            zeros otherwise. A text's log-probability is then given its state, and the mean of -log G an upper bound
            of the NLL.
        seed: What the initial weights follow from.

    Raises:
        InputError: If a size is below 1 or too large, a share out of its range, or the initial state unknown.
    """

    kind: ClassVar[str] = "lstm"

    def __init__(
        self,
        vocab_size: int,
        *,
        start_token: int,
        embed_size: int = 32,
        hidden_size: int = 32,
        num_layers: int = 1,
        dropout: float = 0.0,
        init_scale: float = 0.1,
        forbidden: Sequence[int] = (),
        initial_state: str = "zeros",
        seed: int = 0,
    ) -> None:
        super().__init__(vocab_size, start_token, forbidden)
        require_at_least(1, embed_size=embed_size, hidden_size=hidden_size, num_layers=num_layers)
        require_at_least(0, init_scale=init_scale)
        require(num_layers <= _MOST_LAYERS, f"num_layers must be at most {_MOST_LAYERS}, found {num_layers}")
        gates = 4 * hidden_size * (embed_size + hidden_size + 2 + (num_layers - 1) * (2 * hidden_size + 2))
        tables = (vocab_size + 1) * embed_size + vocab_size * (hidden_size + 1)
        check_weights(tables + gates, "an LSTM policy")
        require(0 <= dropout < 1, f"dropout must be at least 0 and below 1, found {dropout}")
        require(initial_state in ("zeros", "random"), f"initial_state must be zeros or random, found '{initial_state}'")
        sizes = {"embed_size": embed_size, "hidden_size": hidden_size, "num_layers": num_layers}
        self._settings = {**sizes, "dropout": dropout, "init_scale": init_scale, "initial_state": initial_state}
        self.dropout, self.random_start = dropout, initial_state == "random"
        self._noise_BLH: Tensor | None = None
        with seeded(seed):
            # One row more than tokens: PAD, which doubles as the start of a text.
            self.embedding = nn.Embedding(vocab_size + 1, embed_size)
            self.lstm = nn.LSTM(embed_size, hidden_size, num_layers, batch_first=True)
            self.projection = nn.Linear(hidden_size, vocab_size)
            for parameter in self.parameters():
                nn.init.normal_(parameter, std=init_scale)
        # PyTorch's LSTM adds two biases a gate where the published one has one: the second stays 0.
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_hh"):
                nn.init.zeros_(parameter)
                parameter.requires_grad_(False)

    def for_texts(self, seed_B: Tensor, episode_B: Tensor) -> Self:
        """The same policy with the random initial states of these texts, if it has such."""
        if not self.random_start:
            return self
        shape = self.lstm.num_layers, self.lstm.hidden_size
        number_LH = torch.arange(math.prod(shape), device=seed_B.device).view(shape)
        uniform_BLH = keyed_uniform(
            seed_B[:, None, None], episode_B[:, None, None], position=number_LH, stream=Stream.STATE
        )
        view = copy.copy(self)
        # 0 would be minus infinity; it is drawn once in 2^53 times.
        view._noise_BLH = torch.special.ndtri(uniform_BLH.clamp(min=2.0**-54)).to(self.projection.weight.dtype)
        return view

    def begin(self, batch_size: int) -> State:
        """Hidden and cell state, each of shape (B, layers, hidden_size); the cell's is zeros."""
        zeros = self.projection.weight.new_zeros(batch_size, self.lstm.num_layers, self.lstm.hidden_size)
        if self._noise_BLH is not None:
            given = len(self._noise_BLH)
            require(given == batch_size, f"the policy has initial states of {given} texts, asked for {batch_size}")
            return self._noise_BLH.clone(), zeros
        return torch.randn_like(zeros) if self.random_start and self.training else zeros.clone(), zeros

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """One LSTM step and the projection."""
        hidden_B1H, after = self.lstm(self._embed(tokens_B[:, None]), self._layers_first(state))
        logits_BV = self.projection(self._drop(hidden_B1H[:, 0]))
        return logits_BV, tuple(part.transpose(0, 1) for part in after)

    def log_prob(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Log-probability (nats) of each token in one pass over the whole text (teacher forcing)."""
        if self.decoding.deterministic or self.decoding.top_k is not None or self.decoding.top_p is not None:
            return super().log_prob(tokens_BT, mask_BT)
        return self.log_prob_after(tokens_BT, tokens_BT, mask_BT)

    def log_prob_after(self, read_BT: Tensor, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Log-probability (nats) of each token given other tokens before it, without truncation.

        Args:
            read_BT: int64; what is read: token t is scored after the first t of them.
            tokens_BT: int64; what is scored.
            mask_BT: bool; the cells asked for.

        Returns:
            float (B, T); 0 where the mask is False.
        """
        start_B1 = torch.full_like(read_BT[:, :1], self.start_token)
        inputs_BTE = self._embed(torch.cat([start_B1, read_BT[:, :-1]], dim=1))
        hidden_BTH, _ = self.lstm(inputs_BTE, self._layers_first(self.begin(len(tokens_BT))))
        asked_R = mask_BT.flatten().nonzero()[:, 0]
        hidden_RH = self._drop(hidden_BTH).flatten(0, 1)[asked_R] / self.decoding.temperature
        bias_V = self.projection.bias / self.decoding.temperature
        if len(self.forbidden):
            bias_V = bias_V.index_fill(0, self.forbidden, -math.inf)
        # Maximum likelihood learns in training mode, with dropout; policy gradient does not.
        logp_R = linear_log_prob(
            hidden_RH, self.projection.weight, bias_V, tokens_BT.flatten()[asked_R], expect_alike=self.training
        )
        return torch.zeros_like(mask_BT, dtype=logp_R.dtype).flatten().index_copy(0, asked_R, logp_R).view_as(mask_BT)

    @staticmethod
    def _layers_first(state: State) -> tuple[Tensor, ...]:
        """The state as `torch.nn.LSTM` takes it: axes layer, row, unit."""
        return tuple(part.transpose(0, 1).contiguous() for part in state)

    def _embed(self, tokens: Tensor) -> Tensor:
        """Embeddings of tokens, dropout applied."""
        return self._drop(self.embedding(tokens))

    def _drop(self, values: Tensor) -> Tensor:
        """The values, dropout applied in training mode."""
        return functional.dropout(values, self.dropout, self.training) if self.dropout else values

    def load_gates(self, weights: dict[str, Any]) -> None:
        """Take the weights of SeqGAN's published oracle.

        Args:
            weights: numpy arrays: ``embedding`` (V, E), ``W_g`` (E, H), ``U_g`` (H, H), ``b_g`` (H,) for the gates g in
                i (input), f (forget), o (output), c (candidate), ``W_out`` (H, V), ``b_out`` (V,).
        """
        with torch.no_grad():
            for name, part in (("weight_ih_l0", "W"), ("weight_hh_l0", "U"), ("bias_ih_l0", "b")):
                gates = [torch.as_tensor(weights[f"{part}_{gate}"]).t() for gate in "ifco"]  # PyTorch's order
                cast(Tensor, getattr(self.lstm, name)).copy_(torch.cat(gates))
            self.embedding.weight[: self.vocab_size].copy_(torch.as_tensor(weights["embedding"]))
            self.projection.weight.copy_(torch.as_tensor(weights["W_out"]).t())
            self.projection.bias.copy_(torch.as_tensor(weights["b_out"]))
