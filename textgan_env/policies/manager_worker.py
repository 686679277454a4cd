"""The two networks of LeakGAN's generator: a Manager that sets goals, a Worker that generates toward them.

Guo et al. 2018, *Long Text Generation via Adversarial Training with Leaked Information*. A goal is a direction in the
space of the discriminator's features; what the Worker is given of the goals, their embedding, is a vector of k numbers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.policies.base import draw_weights

#: h and c, float (B, H) each.
LSTMState = tuple[Tensor, Tensor]


class _Recurrent(nn.Module):
    """An LSTM whose state has axis B first, two tensors (B, H)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden_size, batch_first=True)

    def begin(self, batch_size: int) -> LSTMState:
        """Hidden and cell state of B empty prefixes: zeros (B, H)."""
        zeros = torch.zeros(batch_size, self.lstm.hidden_size, device=next(self.lstm.parameters()).device)
        return zeros, zeros.clone()

    def _run(self, inputs_BTX: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Hidden states at all positions, float (B, T, H), and the last state."""
        hidden_BTH, (hidden, cell) = self.lstm(inputs_BTX, (state[0][None], state[1][None]))
        return hidden_BTH, (hidden[0], cell[0])


class Manager(_Recurrent):
    """Features of the prefixes so far -> the goal, a unit vector in the space of features.

    Args:
        feature_size: F.
        hidden_size: Width of its LSTM.
        init_scale: Standard deviation of the initial weights.
    """

    def __init__(self, feature_size: int, hidden_size: int, init_scale: float) -> None:
        super().__init__(feature_size, hidden_size)
        self.output = nn.Linear(hidden_size, feature_size)
        draw_weights(self, init_scale)

    def forward(self, features_BTF: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Goals g_t, float (B, T, F), of the features f_t; no gradient flows back into the features."""
        hidden_BTH, state = self._run(features_BTF.detach(), state)
        return functional.normalize(self.output(hidden_BTH), dim=2), state


class Worker(_Recurrent):
    """Tokens so far and an embedded goal -> logits of the next token.

    The paper's O_t w_t, with O_t = reshape(U h_t + b) of shape (V, k), is one linear map of the k (H + 1) products of
    w_t with (h_t, 1): logits = `output` @ vec(w_t (h_t, 1)^T). So O_t is never made, and the projection to the
    vocabulary is like any other policy's.

    Args:
        vocab_size: V.
        feature_size: F.
        embed_size: E.
        hidden_size: H.
        goal_size: k.
        init_scale: Standard deviation of the initial weights.
        dropout: Share of units of embedding and LSTM set to 0 in training.
    """

    def __init__(
        self,
        vocab_size: int,
        feature_size: int,
        *,
        embed_size: int,
        hidden_size: int,
        goal_size: int,
        init_scale: float,
        dropout: float,
    ) -> None:
        super().__init__(embed_size, hidden_size)
        # One row more than tokens: PAD, which doubles as the start of a text.
        self.embedding = nn.Embedding(vocab_size + 1, embed_size)
        self.psi = nn.Linear(feature_size, goal_size, bias=False)
        self.first_goal = nn.Parameter(torch.empty(feature_size))
        self.output = nn.Parameter(torch.empty(vocab_size, goal_size * (hidden_size + 1)))
        self.dropout = nn.Dropout(dropout)
        draw_weights(self, init_scale)

    def goal_before(self) -> Tensor:
        """The learnt goal that stands for those before the first token: a unit vector like the others, float (F,)."""
        return functional.normalize(self.first_goal, dim=0)

    def first(self) -> Tensor:
        """Its embedding, float (k,)."""
        embedded_k: Tensor = self.psi(self.goal_before())
        return embedded_k

    def goal_embedding(self, goals: Tensor) -> Tensor:
        """psi(goals), float (..., k), of goals (..., F); no gradient flows back into the goals."""
        embedded: Tensor = self.psi(goals.detach())
        return embedded

    def read(self, tokens_BT: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Hidden states, float (B, T, H), after each token."""
        hidden_BTH, state = self._run(self.dropout(self.embedding(tokens_BT)), state)
        return self.dropout(hidden_BTH), state


def outer_product(hidden: Tensor, goal: Tensor) -> Tensor:
    """All products of an embedded goal (..., k) with a hidden state and 1 (..., H + 1), float (..., k (H + 1))."""
    return (goal[..., :, None] * functional.pad(hidden, (0, 1), value=1.0)[..., None, :]).flatten(-2)


def sliding_sum(goals_BTX: Tensor, first_X: Tensor, steps: int) -> Tensor:
    """For each position t the sum of the last c goals before it, g_{t-c} to g_{t-1}, as in the paper.

    Args:
        goals_BTX: float; g_0 to g_{T-1}, or their embeddings.
        first_X: float; stands for every goal before g_0.
        steps: c.

    Returns:
        float (B, T, X).
    """
    before_BcX = first_X.expand(len(goals_BTX), steps, -1)
    windows_BTXc = torch.cat([before_BcX, goals_BTX], dim=1).unfold(1, steps, 1)
    return windows_BTXc.sum(3)[:, : goals_BTX.shape[1]]


def block_sum(goals_BTX: Tensor, first_X: Tensor, steps: int, late: int = 0) -> Tensor:
    """For each position the sum of the goals of the block of c positions before its own: LeakGAN's published code.

    Args:
        goals_BTX: float; g_0 to g_{T-1}, or their embeddings.
        first_X: float; stands for the sum before the first block.
        steps: c.
        late: 1 takes each block one position late, as the published code does where it scores texts, but not where it
            generates them.

    Returns:
        float (B, T, X).
    """
    rows, length, size = goals_BTX.shape
    blocks = -(-length // steps) - 1
    sums_BKX = goals_BTX[:, late : late + blocks * steps].reshape(rows, blocks, steps, size).sum(2)
    held_BKX = torch.cat([first_X.expand(rows, 1, -1), sums_BKX], dim=1)
    return held_BKX.repeat_interleave(steps, dim=1)[:, :length]


def manager_cosines(features_BSF: Tensor, goals_BTF: Tensor, steps: int) -> Tensor:
    """cos(f_{t+c} - f_t, g_t) for t = 0 to T - c, float (B, T - c + 1): how well goals point to where texts went.

    Times Q(s_t, g_t) it is what the Manager maximises in the paper, times 1 in pre-training on real text.

    Args:
        features_BSF: float; f_0 to f_T.
        goals_BTF: float; g_0 to g_{T-1}.
        steps: c.
    """
    moved_BTF = features_BSF[:, steps:] - features_BSF[:, :-steps]
    return functional.cosine_similarity(moved_BTF, goals_BTF[:, : moved_BTF.shape[1]], dim=2)


def intrinsic_reward(features_BSF: Tensor, goals_BTF: Tensor, steps: int) -> Tensor:
    """What the Worker is paid for each token, float (B, T), as in the paper.

    For the token that makes s_t, the mean over i = 1 to min(c, t) of cos(f_t - f_{t-i}, g_{t-i}): from -1 to 1.

    Args:
        features_BSF: float; f_0 to f_T.
        goals_BTF: float; g_0 to g_{T-1}.
        steps: c.
    """
    length = goals_BTF.shape[1]
    sum_BT = goals_BTF.new_zeros(goals_BTF.shape[:2])
    for back in range(1, steps + 1):
        sum_BT[:, back - 1 :] += manager_cosines(features_BSF, goals_BTF, back).detach()
    return sum_BT / torch.arange(1, length + 1, device=sum_BT.device).clamp(max=steps)


def block_cosines(features_BSF: Tensor, sums_BTF: Tensor, steps: int) -> Tensor:
    """The published code's `manager_cosines`: a block's move against the sum of goals held in it, float (B, T // c).

    Args:
        features_BSF: float; f_0 to f_T.
        sums_BTF: float; `block_sum` of the goals.
        steps: c.
    """
    starts_BKF = features_BSF[:, ::steps]
    moved_BKF = starts_BKF[:, 1:] - starts_BKF[:, :-1]
    return functional.cosine_similarity(moved_BKF, sums_BTF[:, ::steps][:, : moved_BKF.shape[1]], dim=2)


def block_reward(features_BSF: Tensor, sums_BTF: Tensor, steps: int) -> Tensor:
    """The published code's `intrinsic_reward`: the move since the block began against the sum held, float (B, T).

    Args:
        features_BSF: float; f_0 to f_T.
        sums_BTF: float; `block_sum` of the goals.
        steps: c.
    """
    length = sums_BTF.shape[1]
    start_BTF = features_BSF[:, ::steps].repeat_interleave(steps, dim=1)[:, :length]
    return functional.cosine_similarity(features_BSF[:, 1:] - start_BTF, sums_BTF, dim=2).detach()
