"""The transformer policy: a small decoder that attends to all tokens before, with a cache of what it has read."""

import copy
from collections.abc import Callable, Sequence
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

_MOST_LAYERS = 64
_ROTARY_BASE = 10_000.0

#: Number of a layer, and keys and values of the token read, float (r, 2, heads, width) -> those of all tokens so far,
#: float (r, S, 2, heads, width); of a shorter row the slots behind its last token hold anything.
_Keep = Callable[[int, Tensor], Tensor]


class TransformerPolicy(PolicyModule):
    """A decoder-only transformer (Vaswani et al. 2017), its norms before each part, its positions rotary.

    With x the embedding of a token, mapped to H units where its width is another, each layer does

        ``x = x + out(attention(norm(x)))``, ``x = x + mlp(norm(x))``

    and the logits are a linear map of ``norm(x)``. The MLP has 4 H units and ReLU. Queries and keys are turned by an
    angle that grows with the position (Su et al. 2021, RoFormer), so that attention sees distances; no position has
    weights. Two layers, and four heads where they leave each an even width, are ours; so is the start, at which each
    layer adds nothing. Dropout is on the embeddings and on what each part adds.

    The state is the cache: keys and values of each layer, float (B, T, 2, heads, width), and how many tokens each row
    has read, int64 (B,). A step of some of many rows (`step_rows`) adds to it in place. What a row computes has the
    same bits whatever the lengths of the rows beside it.

    Args:
        vocab_size: V.
        start_token: What `step` is fed before the first token. It is read as PAD, whichever it is: were it a token that
            may follow, a text of that token alone would look alike wherever it stands, as angles show distances only.
        max_length: T, the most tokens that are read of a text, the first input token among them.
        embed_size: Width of the embedding.
        hidden_size: Width of all else, H; an even number.
        num_layers: Layers.
        num_heads: Heads; each has an even share of H. None: 4, 2 or 1, the most that can have.
        dropout: Share of units that are set to 0 in training.
        forbidden: Tokens that are never generated, such as UNK.
        seed: What the initial weights follow from.

    Raises:
        InputError: If a size is below 1 or too large, a share out of its range, or the heads do not share out H.
    """

    kind: ClassVar[str] = "transformer"

    def __init__(
        self,
        vocab_size: int,
        *,
        start_token: int,
        max_length: int,
        embed_size: int = 32,
        hidden_size: int = 32,
        num_layers: int = 2,
        num_heads: int | None = None,
        dropout: float = 0.0,
        forbidden: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(vocab_size, start_token, forbidden)
        sizes = {"max_length": max_length, "embed_size": embed_size, "hidden_size": hidden_size}
        require_at_least(1, **sizes, num_layers=num_layers, num_heads=num_heads)
        require(num_layers <= _MOST_LAYERS, f"num_layers must be at most {_MOST_LAYERS}, found {num_layers}")
        require(hidden_size % 2 == 0, f"hidden_size must be an even number for a transformer, found {hidden_size}")
        if num_heads is None:
            num_heads = next(heads for heads in (4, 2, 1) if hidden_size % (2 * heads) == 0)
        shared = f"hidden_size must be a multiple of twice num_heads={num_heads}, found {hidden_size}"
        require(hidden_size % (2 * num_heads) == 0, shared)
        require(0 <= dropout < 1, f"dropout must be at least 0 and below 1, found {dropout}")
        tables = (vocab_size + 1) * embed_size + vocab_size * (hidden_size + 1) + embed_size * hidden_size
        layers = num_layers * hidden_size * (12 * hidden_size + 10)
        # The angles of a forged file are no larger than the file, either.
        check_weights(max(tables + layers, max_length * hidden_size), "a transformer policy")
        self._settings = {**sizes, "num_layers": num_layers, "num_heads": num_heads, "dropout": dropout}
        self.max_length, self.num_heads, self.dropout = max_length, num_heads, dropout
        self._head_shape = (num_heads, hidden_size // num_heads)
        self._projector: Projector | None = None
        self.turns = nn.Buffer(_turns(max_length, hidden_size // num_heads), persistent=False)
        with seeded(seed):
            # One row more than tokens: PAD, which doubles as the start of a text.
            self.embedding = nn.Embedding(vocab_size + 1, embed_size)
            nn.init.normal_(self.embedding.weight, std=0.1)
            same = embed_size == hidden_size
            self.read = nn.Identity() if same else nn.Linear(embed_size, hidden_size, bias=False)
            self.layers = nn.ModuleList(_Layer(hidden_size) for _ in range(num_layers))
            self.norm = nn.LayerNorm(hidden_size)
            self.projection = nn.Linear(hidden_size, vocab_size)

    def prepared(self) -> Self:
        """The same policy, whose projection to the vocabulary is laid out for many steps."""
        view = copy.copy(self)
        view._projector = Projector(self.projection.weight, self.projection.bias)
        return view

    def begin(self, batch_size: int) -> State:
        """An empty cache: ``layers``, float (B, T, 2, heads, width) each, and ``length``, int64 (B,)."""
        empty = self.projection.weight.new_zeros
        layers = tuple(empty(batch_size, self.max_length, 2, *self._head_shape) for _ in self.layers)
        return {"layers": layers, "length": torch.zeros(batch_size, dtype=torch.int64, device=self.device)}

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token a row; rows may have read different numbers of tokens.

        Raises:
            InputError: If a row has read T tokens (looked for on CPU only: it would stall a GPU).
        """
        length_B: Tensor = state["length"]
        layers: list[Tensor] = []
        place, slots = (torch.arange(len(length_B), device=length_B.device), length_B), self._slots(length_B)

        def keep(number: int, entry: Tensor) -> Tensor:
            layers.append(state["layers"][number].index_put(place, entry))
            return layers[-1][:, :slots]

        logits_BV = self._logits(tokens_B, length_B, keep)
        return logits_BV, {"layers": tuple(layers), "length": length_B + 1}

    def step_rows(self, tokens_r: Tensor, state: State, rows: Tensor | slice) -> Tensor:
        """Step some rows of a state, which is changed in place (see `PolicyModule.step_rows`).

        Only the token read is written, and of rows that stand side by side nothing is copied.
        """
        length_r = state["length"][rows]
        number_r = torch.arange(len(state["length"]), device=length_r.device)[rows]
        if self.device.type == "cpu" and bool((number_r.diff() == 1).all()):
            rows = slice(int(number_r[0]), int(number_r[-1]) + 1)
        slots = self._slots(length_r)

        def keep(number: int, entry: Tensor) -> Tensor:
            kept: Tensor = state["layers"][number]
            kept.index_put_((number_r, length_r), entry)
            return kept[:, :slots][rows]

        logits_rV = self._logits(tokens_r, length_r, keep)
        state["length"][rows] = length_r + 1
        return self.decoding.apply(self._forbid(logits_rV))

    def log_prob(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Log-probability (nats) of each token in one pass over the whole text (teacher forcing)."""
        if self.decoding.truncates:
            return super().log_prob(tokens_BT, mask_BT)
        length = mask_BT.shape[1]
        if mask_BT.device.type == "cpu" and mask_BT.any():  # elsewhere it would have to be waited for
            # What stands after the last token that is asked for changes nothing; texts may end long before T.
            length = int(mask_BT.any(0).nonzero().amax()) + 1
        texts_BT, asked_BT = tokens_BT[:, :length], mask_BT[:, :length]
        logp_BT = projected_log_prob(self, self.projection, self.hidden_states(texts_BT), texts_BT, asked_BT)
        return functional.pad(logp_BT, (0, mask_BT.shape[1] - length))

    def all_logits(self, tokens_BT: Tensor) -> Tensor:
        """What `step` gives at each prefix, float (B, T, V), in one pass over the whole text."""
        return self._decoded(self.projection(self.hidden_states(tokens_BT)))

    def hidden_states(self, tokens_BT: Tensor) -> Tensor:
        """What the logits at each prefix are made of, float (B, T, hidden_size): at t given the t tokens before it.

        Args:
            tokens_BT: int64.

        Raises:
            InputError: If the texts have more than ``max_length`` tokens.
        """
        length = tokens_BT.shape[1]
        require(length <= self.max_length, self._too_long(length))
        read_BT = functional.pad(tokens_BT[:, :-1], (1, 0), value=self.vocab_size)
        turns = self.turns[:length]
        hidden_BTH = self._embedded(read_BT)
        for layer in self._layers():
            query, key, value = layer.entries(hidden_BTH, self._head_shape, turns)
            query, key, value = (part.transpose(1, 2) for part in (query, key, value))
            taken = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            hidden_BTH = self._after(layer, hidden_BTH, taken.transpose(1, 2))
        output_BTH: Tensor = self.norm(hidden_BTH)
        return output_BTH

    def _logits(self, tokens_r: Tensor, length_r: Tensor, keep: _Keep) -> Tensor:
        """Logits after one more token, float (r, V)."""
        turns = self.turns[length_r]
        hidden_rH = self._embedded(tokens_r.masked_fill(length_r == 0, self.vocab_size))
        for number, layer in enumerate(self._layers()):
            query, key, value = layer.entries(hidden_rH, self._head_shape, turns)
            kept = keep(number, torch.stack([key, value], dim=1))
            seen_rS = torch.arange(kept.shape[1], device=kept.device) <= length_r[:, None]
            hidden_rH = self._after(layer, hidden_rH, _attended(query, kept, seen_rS))
        output_rH = self.norm(hidden_rH)
        if self._projector is not None:
            return self._projector(output_rH)
        return project(output_rH, self.projection.weight, self.projection.bias)

    def _embedded(self, tokens: Tensor) -> Tensor:
        """What the first layer reads: float, one axis more."""
        embedded: Tensor = self.read(self._drop(self.embedding(tokens)))
        return embedded

    def _after(self, layer: "_Layer", hidden: Tensor, taken: Tensor) -> Tensor:
        """The hidden units after a layer, given what its heads have taken from the text."""
        hidden = hidden + self._drop(layer.out(taken.flatten(-2)))
        return hidden + self._drop(layer.mlp(layer.mlp_norm(hidden)))

    def _layers(self) -> "list[_Layer]":
        """The layers, by their type."""
        return [layer for layer in self.layers if isinstance(layer, _Layer)]

    def _slots(self, length_B: Tensor) -> int:
        """How many slots of the cache a step looks at; on a GPU all, as to ask for the longest text would wait."""
        if length_B.device.type != "cpu" or not len(length_B):
            return self.max_length
        longest = int(length_B.max()) + 1
        require(longest <= self.max_length, self._too_long(longest))
        return longest

    def _too_long(self, length: int) -> str:
        """What is said of a text that is too long."""
        return f"this transformer reads texts of at most max_length={self.max_length} tokens, found {length}"

    def _drop(self, values: Tensor) -> Tensor:
        """The values, dropout applied in training mode."""
        return functional.dropout(values, self.dropout, self.training) if self.dropout else values


class _Layer(nn.Module):
    """The weights of a layer; at first it adds nothing."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.attention = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.out = nn.Linear(hidden_size, hidden_size, bias=False)
        self.mlp_norm = nn.LayerNorm(hidden_size)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size), nn.ReLU(), nn.Linear(4 * hidden_size, hidden_size)
        )
        for weight in (self.out.weight, *self.mlp[2].parameters()):
            nn.init.zeros_(weight)

    def entries(self, hidden: Tensor, head_shape: tuple[int, int], turns: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values of some tokens, float (..., heads, width) each; the first two are turned.

        Args:
            hidden: float (..., H).
            head_shape: Heads, and the width of each.
            turns: float (..., 2, width / 2); see `_turns`.
        """
        parts = self.attention(self.attention_norm(hidden)).unflatten(-1, (3, *head_shape))
        query, key, value = parts.unbind(-3)
        return _turned(query, turns), _turned(key, turns), value


def _turns(length: int, width: int) -> Tensor:
    """Cosine and sine of the angle of each pair of units at each position, float (T, 2, width / 2)."""
    rate = _ROTARY_BASE ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate
    return torch.stack([angle.cos(), angle.sin()], dim=1).float()


def _turned(values: Tensor, turns: Tensor) -> Tensor:
    """Rotary positions: unit i of the first half and of the second are turned as a pair."""
    (first, second), (cosine, sine) = values.chunk(2, dim=-1), turns[..., None, :, :].unbind(-2)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def _attended(query: Tensor, kept: Tensor, seen_rS: Tensor) -> Tensor:
    """What each head takes from the slots that a row sees, float (r, heads, width)."""
    key, value = kept.unbind(2)
    score_rSh = (query[:, None] * key).sum(3) * query.shape[2] ** -0.5
    share_rSh1 = score_rSh.masked_fill(~seen_rS[..., None], -torch.inf).softmax(1)[..., None]
    if kept.device.type != "cpu":  # there it is always as many slots
        whole: Tensor = (share_rSh1 * value).sum(1)
        return whole
    # Slot by slot, as no other sum promises its order: a row must not round by how many slots others look at. Those
    # that it does not see add exact zeros.
    taken = torch.zeros_like(query)
    for share_rh1, value_rhw in zip(share_rSh1.unbind(1), value.unbind(1), strict=True):
        taken.addcmul_(share_rh1, value_rhw)
    return taken
