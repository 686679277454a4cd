"""A policy that fills the blanks of a template, and writes what is given."""

import copy
import math
from typing import ClassVar, Self

import torch
from torch import Tensor

from textgan_env.ops.templates import check_template, followed_cells, given_cells
from textgan_env.policies.base import Decoding, PolicyModule, State
from textgan_env.policies.lstm import LSTMPolicy
from textgan_env.utils.errors import require


class GivenPolicy(PolicyModule):
    """A view of a policy that writes the tokens of a template where it holds some: what `PolicyModule.given` gives.

    There its logits are 0 for that token and minus infinity for all others, whatever the policy thinks, and its
    log-probability is 0 (of a text with another token minus infinity). At a blank they are those of the policy, given
    all tokens before it; but where a later token is given, the end token is forbidden: the text goes on. So stepping,
    completions and likelihoods need to know nothing of templates.

    Args:
        policy: Fills the blanks.
        template_BT: int64; a token, `BLANK` (-1, the number of no token), or PAD after the end. One row is the template
            of any number of texts.
        end_token: The token that ends a text early, or None.

    Raises:
        InputError: If these are no templates, or they hold a token that is none of the policy's.
    """

    kind: ClassVar[str] = "given"

    def __init__(self, policy: PolicyModule, template_BT: Tensor, end_token: int | None = None) -> None:
        check_template(template_BT, policy.vocab_size, end_token)
        super().__init__(policy.vocab_size, policy.start_token, policy.forbidden.tolist())
        self.policy, self.end_token = policy, end_token
        self._template_BT = template_BT.to(policy.device)
        self.decoding, self.random_start = policy.decoding, policy.random_start

    @property
    def device(self) -> torch.device:
        """Where the policy's tensors live."""
        return self.policy.device

    def with_decoding(self, decoding: Decoding) -> Self:
        """The same, whose blanks are filled under another decoding."""
        view = self._over(self.policy.with_decoding(decoding))
        view.decoding = decoding
        return view

    def for_texts(self, seed_B: Tensor, episode_B: Tensor) -> Self:
        """The same with the policy's initial states of these texts."""
        return self._over(self.policy.for_texts(seed_B, episode_B))

    def for_rows(self, rows_R: Tensor) -> Self:
        """The same for some of its texts: with their templates."""
        if len(self._template_BT) == 1:
            return self
        view = self._over(self.policy.for_rows(rows_R))
        view._template_BT = self._template_BT[rows_R]
        return view

    def prepared(self) -> Self:
        """The same with the policy prepared."""
        return self._over(self.policy.prepared())

    def begin(self, batch_size: int) -> State:
        """The policy's state, the template, and how many tokens each row has read (-1: not even the start)."""
        read_B = torch.full((batch_size,), -1, device=self.device)
        return {"policy": self.policy.begin(batch_size), "template": self._templates(batch_size), "read": read_B}

    def step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token a row; what is given next is certain (see `Policy.step`)."""
        logits_BV, inner = self.policy.raw_step(tokens_B, state["policy"])
        logits_BV, template_BT, read_B = self.policy._forbid(logits_BV), state["template"], state["read"] + 1
        here_B1 = read_B.clamp(max=template_BT.shape[1] - 1)[:, None]
        if self.end_token is not None:
            goes_on_B = followed_cells(template_BT, self.vocab_size).gather(1, here_B1)[:, 0]
            bars_V = torch.arange(self.vocab_size, device=self.device) == self.end_token
            logits_BV = logits_BV.masked_fill(goes_on_B[:, None] & bars_V, -math.inf)
        logits_BV = self.policy.decoding.apply(logits_BV)
        token_B1 = template_BT.gather(1, here_B1)
        certain_BV = torch.full_like(logits_BV, -math.inf).scatter(1, token_B1.clamp(0, self.vocab_size - 1), 0.0)
        logits_BV = torch.where(given_cells(token_B1, self.vocab_size), certain_BV, logits_BV)
        return logits_BV, {"policy": inner, "template": template_BT, "read": read_B}

    def log_prob(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Log-probability (nats) of each token, float (B, T): 0 where it is given (see `Policy.log_prob`)."""
        template_BT, length = self._templates(len(tokens_BT)), tokens_BT.shape[1]
        given_BT = given_cells(template_BT, self.vocab_size)[:, :length]
        asked_BT = mask_BT & ~given_BT
        goes_on_BT = followed_cells(template_BT, self.vocab_size)[:, :length]
        if self.end_token is None:
            logp_BT = self.policy.log_prob(tokens_BT, asked_BT)
        elif isinstance(self.policy, LSTMPolicy) and not self.policy.decoding.truncates:
            barred = self.end_token, goes_on_BT
            logp_BT = self.policy.log_prob_after(tokens_BT, tokens_BT, asked_BT, barred=barred)
        else:
            logp_BT = super().log_prob(tokens_BT, asked_BT)
        differs_BT = mask_BT & given_BT & (tokens_BT != template_BT[:, :length])
        return logp_BT.masked_fill(differs_BT, -math.inf)

    def _templates(self, rows: int) -> Tensor:
        """The template of each of so many texts, int64 (B, T)."""
        have = len(self._template_BT)
        require(have in (1, rows), f"the policy has templates of {have} texts, asked for {rows}")
        return self._template_BT.expand(rows, -1)

    def _over(self, policy: PolicyModule) -> Self:
        """The same view of another policy."""
        view = copy.copy(self)
        # `copy` shares the table of parts, and the view before keeps its own policy.
        view._modules = {**self._modules, "policy": policy}
        return view
