"""Q at every k-th token alone: which tokens have a Q of their own, and what is known before and after the others."""

import torch
from torch import Tensor

from textgan_env.rewards.texts import Texts


def q_tokens(texts: Texts, interval: int) -> Tensor:
    """The tokens that have a Q of their own: every ``interval``-th of a text, and the last of a finished one.

    Returns:
        bool (B, T).
    """
    number_T = torch.arange(1, texts.tokens_BT.shape[1] + 1, device=texts.tokens_BT.device)
    return texts.mask_BT & (number_T % interval == 0) | texts.last_BT


def next_column(known_BT: Tensor) -> Tensor:
    """The column of the first True from each cell on, itself included; T where there is none; int64 (B, T)."""
    length = known_BT.shape[1]
    columns_T = torch.arange(length, device=known_BT.device)
    return torch.where(known_BT, columns_T, length).flip(1).cummin(1).values.flip(1)


def q_before(q_BT: Tensor, known_BT: Tensor, otherwise_BT: Tensor) -> Tensor:
    """The newest Q before each token. It knows nothing of that token, so it may be taken off its credit as a baseline.

    Args:
        q_BT: float.
        known_BT: bool; the tokens that have a Q of their own.
        otherwise_BT: float; for tokens before which there is none.

    Returns:
        float (B, T).
    """
    columns_T = torch.arange(known_BT.shape[1], device=known_BT.device)
    newest_BT = torch.where(known_BT, columns_T, -1).cummax(1).values.roll(1, dims=1)
    newest_BT[:, 0] = -1
    return torch.where(newest_BT < 0, otherwise_BT, q_BT.gather(1, newest_BT.clamp(min=0)))
