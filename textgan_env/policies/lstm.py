"""The LSTM policy: the generator of SeqGAN, and, with fixed random weights, the oracle."""

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.ops.losses import Projector, linear_log_prob, project
from textgan_env.ops.sampling import keyed_normal, seeded
from textgan_env.ops.tiles import asked_length, numbers_of
from textgan_env.policies.base import PolicyModule, State, draw_weights
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
        self._projector: Projector | None = None
        with seeded(seed):
            # One row more than tokens: PAD, which doubles as the start of a text.
            self.embedding = nn.Embedding(vocab_size + 1, embed_size)
            self.lstm = nn.LSTM(embed_size, hidden_size, num_layers, batch_first=True)
            self.projection = nn.Linear(hidden_size, vocab_size)
            draw_weights(self, init_scale)

    def for_texts(self, seed_B: Tensor, episode_B: Tensor) -> Self:
        """The same policy with the random initial states of these texts, if it has such."""
        if not self.random_start:
            return self
        shape = self.lstm.num_layers, self.lstm.hidden_size
        view = copy.copy(self)
        view._noise_BLH = keyed_normal(seed_B, episode_B, shape).to(self.projection.weight.dtype)
        return view

    def prepared(self) -> Self:
        """The same policy, whose projection to the vocabulary is laid out for many steps."""
        view = copy.copy(self)
        view._projector = Projector(self.projection.weight, self.projection.bias)
        # A GPU would have to be waited for, and a subclass may make other logits.
        if self.device.type == "cpu" and type(self).raw_step is LSTMPolicy.raw_step:
            # A hidden unit is a sigmoid times a tanh, between -1 and 1.
            furthest_V = self.projection.weight.abs().sum(1) + self.projection.bias.abs()
            view._furthest = float(furthest_V.amax())
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
        inputs_B1E = self._inputs(self._drop(self.embedding(tokens_B[:, None])), state)
        hidden_B1H, after = self.lstm(inputs_B1E, self._layers_first(state))
        hidden_BH = self._drop(hidden_B1H[:, 0])
        if self._projector is not None:
            logits_BV = self._projector(hidden_BH)
        else:
            logits_BV = project(hidden_BH, self.projection.weight, self.projection.bias)
        return logits_BV, (*(part.transpose(0, 1) for part in after), *state[2:])

    def log_prob(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Log-probability (nats) of each token in one pass over the whole text (teacher forcing)."""
        if self.decoding.truncates:
            return super().log_prob(tokens_BT, mask_BT)
        return self.log_prob_after(tokens_BT, tokens_BT, mask_BT)

    def log_prob_after(
        self, read_BT: Tensor, tokens_BT: Tensor, mask_BT: Tensor, *, barred: tuple[int, Tensor] | None = None
    ) -> Tensor:
        """Log-probability (nats) of each token given other tokens before it, without truncation.

        Args:
            read_BT: int64; what is read: token t is scored after the first t of them.
            tokens_BT: int64; what is scored.
            mask_BT: bool; the cells asked for.
            barred: A token, and where it is known not to stand, bool (B, T).

        Returns:
            float (B, T); 0 where the mask is False.
        """
        # What stands after the last token that is asked for changes nothing.
        hidden_BTH = self.hidden_states(read_BT, asked_length(mask_BT))
        # As long as T again and laid out as the LSTM does, so that dropout draws what it would have drawn.
        filling = (0, 0, 0, 0, 0, mask_BT.shape[1] - hidden_BTH.shape[1])
        hidden_BTH = functional.pad(hidden_BTH.transpose(0, 1), filling).transpose(0, 1)
        return projected_log_prob(self, self.projection, self._drop(hidden_BTH), tokens_BT, mask_BT, barred=barred)

    def all_logits(self, tokens_BT: Tensor) -> Tensor:
        """What `step` gives at each prefix, float (B, T, V), in one pass over the whole text."""
        hidden_BTH = self._drop(self.hidden_states(tokens_BT))
        # One matrix product, not one a text.
        return self._decoded(self.projection(hidden_BTH.flatten(0, 1)).view(*tokens_BT.shape, -1))

    def hidden_states(self, tokens_BT: Tensor, length: int | None = None) -> Tensor:
        """The LSTM's output at each prefix, float (B, length, hidden_size): at t given the t tokens before it.

        Args:
            tokens_BT: int64.
            length: Prefixes of each text, from the empty one on; None: T.
        """
        read_BT = functional.pad(tokens_BT[:, :-1], (1, 0), value=self.start_token)
        # Dropout is drawn for all of T, so that the draws after it do not depend on the length.
        inputs_BTE = self._drop(self.embedding(read_BT))[:, :length]
        state = self.begin(len(tokens_BT))
        hidden_BTH: Tensor = self.lstm(self._inputs(inputs_BTE, state), self._layers_first(state))[0]
        return hidden_BTH

    def _inputs(self, embedded_BTE: Tensor, state: State) -> Tensor:
        """What the LSTM is fed, given the embeddings of the tokens that it reads; here the embeddings."""
        return embedded_BTE

    @staticmethod
    def _layers_first(state: State) -> tuple[Tensor, ...]:
        """Hidden and cell state as `torch.nn.LSTM` takes them: axes layer, row, unit."""
        return tuple(part.transpose(0, 1).contiguous() for part in state[:2])

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


def projected_log_prob(
    policy: PolicyModule,
    projection: nn.Linear,
    hidden_BTH: Tensor,
    tokens_BT: Tensor,
    mask_BT: Tensor,
    *,
    barred: tuple[int, Tensor] | None = None,
) -> Tensor:
    """Log-probability (nats) of each token where logits are a linear map of hidden units, without truncation.

    Args:
        policy: Says temperature and forbidden tokens.
        projection: The map.
        hidden_BTH: float; the units at each place, dropout applied.
        tokens_BT: int64; what is scored.
        mask_BT: bool; the cells asked for.
        barred: A token, and where it is known not to stand, bool (B, T).

    Returns:
        float (B, T); 0 where the mask is False.
    """
    asked_R = numbers_of(mask_BT.flatten())
    hidden_RH = hidden_BTH.flatten(0, 1)[asked_R] / policy.decoding.temperature
    bias_V = projection.bias / policy.decoding.temperature
    if len(policy.forbidden):
        bias_V = bias_V.index_fill(0, policy.forbidden, -math.inf)
    # PAD stands in no cell that is asked for.
    tokens_R = tokens_BT.flatten()[asked_R].clamp(max=policy.vocab_size - 1)
    # Maximum likelihood learns in training mode, with dropout; policy gradient does not.
    score = partial(linear_log_prob, weight_VH=projection.weight, expect_alike=policy.training)
    if barred is None:
        logp_R = score(hidden_RH, bias_V=bias_V, tokens_R=tokens_R)
    else:
        token, barred_R = barred[0], barred[1].flatten()[asked_R]
        without_V, logp_R = bias_V.index_fill(0, tokens_R.new_tensor([token]), -math.inf), hidden_RH[:, 0]
        for rows_r, its_V in ((barred_R.nonzero()[:, 0], without_V), ((~barred_R).nonzero()[:, 0], bias_V)):
            if len(rows_r):
                logp_r = score(hidden_RH[rows_r], bias_V=its_V, tokens_R=tokens_R[rows_r])
                logp_R = logp_R.index_copy(0, rows_r, logp_r)
    logp_X = torch.zeros_like(mask_BT, dtype=logp_R.dtype).flatten().index_copy(0, asked_R, logp_R)
    return logp_X.view_as(mask_BT).masked_fill(~mask_BT, 0.0)
