"""The policy with a relational memory: RelGAN's generator."""

import copy
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.ops.losses import Projector, project
from textgan_env.ops.sampling import seeded
from textgan_env.policies.base import PolicyModule, State
from textgan_env.policies.lstm import projected_log_prob
from textgan_env.utils.errors import require, require_at_least
from textgan_env.utils.reading import check_weights

_MOST_SLOTS = 64


class RelationalPolicy(PolicyModule):
    """A memory of some slots, which at each token attend to each other and to the token (Santoro et al. 2018).

    With M the memory and x a linear map of the token's embedding, a step is

        ``M1 = norm(M + attention(M; M and x))``, ``M2 = norm(M1 + mlp(M1))``,
        ``M' = sigmoid(i) tanh(M2) + sigmoid(f + 1) M``, where ``(i, f) = A x + B tanh(M)``

    and the logits are a linear map of M', its slots side by side. Queries, keys and values are normalised together. One
    slot and two heads are RelGAN's generator (Nie et al. 2019; its published code: 512 hidden units).

    Where we differ from that code: a norm is of each slot by itself, not of all slots and the token together; a query
    is divided by the root of a head's width, not of three; initial weights are PyTorch's. Dropout is ours: on the
    embeddings and on what the logits are made of.

    Args:
        vocab_size: V.
        start_token: First input token.
        embed_size: Width of the embedding.
        hidden_size: Width of a slot, S: all heads together.
        num_heads: Heads; a divisor of S.
        num_slots: Slots, M.
        dropout: Share of units that are set to 0 in training.
        forbidden: Tokens that are never generated, such as UNK.
        seed: What the initial weights follow from.

    Raises:
        InputError: If a size is below 1 or too large, a share out of its range, or the heads do not share out a slot.
    """

    kind: ClassVar[str] = "relational"

    def __init__(
        self,
        vocab_size: int,
        *,
        start_token: int,
        embed_size: int = 32,
        hidden_size: int = 32,
        num_heads: int = 2,
        num_slots: int = 1,
        dropout: float = 0.0,
        forbidden: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(vocab_size, start_token, forbidden)
        sizes = {"embed_size": embed_size, "hidden_size": hidden_size, "num_heads": num_heads, "num_slots": num_slots}
        require_at_least(1, **sizes)
        require(num_slots <= _MOST_SLOTS, f"num_slots must be at most {_MOST_SLOTS}, found {num_slots}")
        shared = f"hidden_size must be a multiple of num_heads={num_heads}, found {hidden_size}"
        require(hidden_size % num_heads == 0, shared)
        require(0 <= dropout < 1, f"dropout must be at least 0 and below 1, found {dropout}")
        tables = (vocab_size + 1) * embed_size + vocab_size * (num_slots * hidden_size + 1)
        check_weights(tables + hidden_size * (embed_size + 9 * hidden_size + 15), "a relational policy")
        self._settings = {**sizes, "dropout": dropout}
        self.dropout, self.num_heads, self.num_slots, self.hidden_size = dropout, num_heads, num_slots, hidden_size
        self._projector: Projector | None = None
        with seeded(seed):
            # One row more than tokens: PAD, which doubles as the start of a text.
            self.embedding = nn.Embedding(vocab_size + 1, embed_size)
            nn.init.normal_(self.embedding.weight, std=0.1)
            self.read = nn.Linear(embed_size, hidden_size)
            self.attention = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
            self.norms = nn.ModuleList(nn.LayerNorm(size) for size in (3 * hidden_size, hidden_size, hidden_size))
            self.mlp = nn.Sequential(
                nn.Linear(hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, hidden_size), nn.ReLU()
            )
            self.gates_of_token = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
            self.gates_of_memory = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
            self.projection = nn.Linear(num_slots * hidden_size, vocab_size)

    def prepared(self) -> Self:
        """The same policy, whose projection to the vocabulary is laid out for many steps."""
        view = copy.copy(self)
        view._projector = Projector(self.projection.weight, self.projection.bias)
        return view

    def begin(self, batch_size: int) -> State:
        """The memory, float (B, M, S): slots that differ, each 1 at its own number."""
        slots_MS = torch.eye(self.num_slots, self.hidden_size, device=self.device, dtype=self.projection.weight.dtype)
        return slots_MS.repeat(batch_size, 1, 1)

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """One update of the memory and the projection."""
        state = self._update(self._drop(self.embedding(tokens_B)), state)
        output_BH = self._drop(state.flatten(1))
        if self._projector is not None:
            return self._projector(output_BH), state
        return project(output_BH, self.projection.weight, self.projection.bias), state

    def log_prob(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Log-probability (nats) of each token; all are projected at once."""
        if self.decoding.truncates:
            return super().log_prob(tokens_BT, mask_BT)
        return projected_log_prob(self, self.projection, self._outputs(tokens_BT), tokens_BT, mask_BT)

    def all_logits(self, tokens_BT: Tensor) -> Tensor:
        """What `step` gives at each prefix, float (B, T, V); all are projected at once."""
        return self._decoded(self.projection(self._outputs(tokens_BT)))

    def _outputs(self, tokens_BT: Tensor) -> Tensor:
        """What the logits of each place are made of, float (B, T, M * S)."""
        read_BT = functional.pad(tokens_BT[:, :-1], (1, 0), value=self.start_token)
        memory_BMS, outputs = self.begin(len(tokens_BT)), []
        for embedded_BE in self._drop(self.embedding(read_BT)).unbind(1):
            memory_BMS = self._update(embedded_BE, memory_BMS)
            outputs.append(memory_BMS.flatten(1))
        return self._drop(torch.stack(outputs, dim=1))

    def _update(self, embedded_BE: Tensor, memory_BMS: Tensor) -> Tensor:
        """The memory after one more token, float (B, M, S)."""
        token_B1S = self.read(embedded_BE)[:, None]
        normed: list[nn.Module] = list(self.norms)
        first_BMS = normed[1](memory_BMS + self._attended(memory_BMS, token_B1S))
        second_BMS = normed[2](first_BMS + self.mlp(first_BMS))
        gates_BMX = self.gates_of_token(token_B1S) + self.gates_of_memory(memory_BMS.tanh())
        input_BMS, forget_BMS = gates_BMX.chunk(2, dim=2)
        updated: Tensor = input_BMS.sigmoid() * second_BMS.tanh() + (forget_BMS + 1).sigmoid() * memory_BMS
        return updated

    def _attended(self, memory_BMS: Tensor, token_B1S: Tensor) -> Tensor:
        """What each slot takes from all slots and the token, float (B, M, S)."""
        rows_BNX = self.norms[0](self.attention(torch.cat([memory_BMS, token_B1S], dim=1)))
        query, key, value = rows_BNX.unflatten(2, (self.num_heads, -1)).chunk(3, dim=3)  # (B, N, heads, width)
        # No matrix products: slots are few, and a row must not round by how many rows there are.
        query = query[:, : self.num_slots, None] * query.shape[3] ** -0.5
        share_BMNh = (query * key[:, None]).sum(4).softmax(2)
        attended: Tensor = (share_BMNh[..., None] * value[:, None]).sum(2).flatten(2)
        return attended

    def _drop(self, values: Tensor) -> Tensor:
        """The values, dropout applied in training mode."""
        return functional.dropout(values, self.dropout, self.training) if self.dropout else values
