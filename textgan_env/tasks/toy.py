"""Text of a small table, whose law can be enumerated."""

import itertools

import numpy as np
import torch
from torch import Tensor

from textgan_env.policies.base import Policy
from textgan_env.policies.table import TablePolicy
from textgan_env.tasks.base import MOST_CELLS, Task
from textgan_env.tasks.oracle import draw_split
from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.utils.errors import require, require_at_least


class ToyTask(Task):
    """All V^T texts can be listed, so every expectation can be computed instead of estimated.

    Each text has a fixed random probability, proportional to ``exp(N(0, spread))``.

    Args:
        vocab_size: V.
        max_length: T.
        seed: Of the distribution, and of the texts drawn from it.
        text_seed: Of the texts alone: other texts of the same distribution. None: ``seed``.
        spread: Standard deviation of the log-probabilities (nats).
        size: Texts in each split.

    Raises:
        InputError: If V is below 2, another size below 1, the seed or the spread negative, or there are over a million
            texts.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 4,
        max_length: int = 4,
        seed: int = 0,
        text_seed: int | None = None,
        spread: float = 1.5,
        size: int = 1000,
    ) -> None:
        super().__init__()
        require_at_least(2, vocab_size=vocab_size)
        require_at_least(1, max_length=max_length, size=size)
        require_at_least(0, seed=seed)
        require(0 <= spread <= 100, f"spread must be 0 to 100 nats, found {spread}")
        # The power of absurd numbers would take for ever: 2^20 is too large already.
        few = max_length < 20 and vocab_size <= 10**6 and vocab_size**max_length <= 10**6
        require(few, f"a toy task has at most 1,000,000 texts, found {vocab_size}^{max_length}")
        require(size * max_length <= MOST_CELLS, f"size must be at most {MOST_CELLS // max_length:,}, found {size:,}")
        self.name = "toy"
        self.vocab_size, self.max_length, self.start_token = vocab_size, max_length, 0
        sizes = {"vocab_size": vocab_size, "max_length": max_length, "size": size}
        text_seeds = {} if text_seed is None else {"text_seed": text_seed}
        self._settings = {**sizes, "seed": seed, "spread": spread, **text_seeds}
        self._text_seed, self._size = seed if text_seed is None else text_seed, size
        rng = np.random.default_rng(seed)
        self.logp_S = torch.from_numpy(rng.normal(0, spread, vocab_size**max_length)).log_softmax(0)
        sure = TablePolicy.from_text_probabilities(self.logp_S.exp(), vocab_size=vocab_size, max_length=max_length)
        self.oracle: TablePolicy = sure.requires_grad_(False)

    @property
    def texts_ST(self) -> Tensor:
        """All S = V^T texts in lexical order, int64."""
        return torch.tensor(list(itertools.product(range(self.vocab_size), repeat=self.max_length)))

    def text_log_prob(self, policy: Policy) -> Tensor:
        """Log q of every text, in the order of `texts_ST`: float (S,), differentiable."""
        texts_ST = self.texts_ST
        return policy.log_prob(texts_ST, torch.ones_like(texts_ST, dtype=torch.bool)).sum(1)

    def divergences(self, policy: Policy) -> tuple[float, float]:
        """Cover, KL(p||q) / T, and fit, KL(q||p) / T, of a policy by listing all texts: nats per token."""
        with torch.no_grad():
            logq_S, logp_S = self.text_log_prob(policy).double(), self.logp_S
        cover = (logp_S.exp() * (logp_S - logq_S)).sum() / self.max_length
        return float(cover), float((logq_S.exp() * (logq_S - logp_S)).sum() / self.max_length)

    def exact_q(self, policy: Policy, reward_S: Tensor, gamma: float = 1.0) -> list[Tensor]:
        """Q of every prefix and token, by listing all texts.

        Args:
            policy: Completes the prefixes.
            reward_S: float; R of every text, in the order of `texts_ST`.
            gamma: Discount for each token after this one.

        Returns:
            For p = 0 to T-1, float64 (V^p, V): Q(prefix, token) of the prefixes of p tokens in lexical order.
        """
        texts_ST = self.texts_ST
        with torch.no_grad():
            logp_ST = policy.log_prob(texts_ST, torch.ones_like(texts_ST, dtype=torch.bool)).double()
        values = []
        for p in range(self.max_length):
            # What is left to draw once p + 1 tokens stand.
            weight_S = logp_ST[:, p + 1 :].sum(1).exp() * gamma ** (self.max_length - 1 - p)
            values.append((weight_S * reward_S.double()).view(self.vocab_size**p, self.vocab_size, -1).sum(2))
        return values

    def _load(self, name: Split) -> TokenDataset:
        """Generate one split with the known distribution."""
        return draw_split(self.oracle, name, self._size, self.max_length, seed=self._text_seed)
