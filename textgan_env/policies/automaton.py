"""The law of a grammar as a policy: exact, and of any length up to T."""

import torch
from torch import Tensor, nn

from textgan_env.policies.base import PolicyModule, State
from textgan_env.utils.errors import require


class AutomatonPolicy(PolicyModule):
    """Next-token probabilities by the state of a finite automaton and the number of tokens that are left.

    It generates what a grammar generates given that a text ends within T tokens. The start token is PAD, V. Where a
    prefix has left the language any token is as likely as any other: its text has probability 0 already.

    Args:
        logits_TSV: float64 (T, S, V); log-probabilities with t + 1 tokens left, minus infinity for what cannot stand.
        next_SV: int64 (S, V); the state that each token leads to; state 0 is the empty prefix.

    Raises:
        InputError: If the shapes do not fit.
    """

    def __init__(self, logits_TSV: Tensor, next_SV: Tensor) -> None:
        _, states, tokens = logits_TSV.shape
        super().__init__(tokens, start_token=tokens)
        fits = next_SV.shape == (states, tokens)
        require(fits, f"next_SV must have shape {(states, tokens)}, found {tuple(next_SV.shape)}")
        self.logits_TSV, self.next_SV = nn.Buffer(logits_TSV), nn.Buffer(next_SV)

    def begin(self, batch_size: int) -> State:
        """State and number of tokens left, int64 (B, 2)."""
        return torch.tensor([0, len(self.logits_TSV)], device=self.device).repeat(batch_size, 1)

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """The row of the state; PAD, which is read first and after the end, changes nothing."""
        state_B, left_B = state.unbind(1)
        read_B = tokens_B < self.vocab_size
        after_B = self.next_SV[state_B, tokens_B.clamp(max=self.vocab_size - 1)]
        state_B, left_B = torch.where(read_B, after_B, state_B), (left_B - read_B.long()).clamp(min=0)
        # With no token left nothing can stand: the last state is the one from which nothing can be written.
        row_B = torch.where(left_B > 0, state_B, len(self.next_SV) - 1)
        return self.logits_TSV[left_B.clamp(min=1) - 1, row_B], torch.stack([state_B, left_B], dim=1)
