"""Text of a probabilistic grammar, whose law and whose rules are known exactly."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgan_env.ops.sampling import derived_seed
from textgan_env.policies.automaton import AutomatonPolicy
from textgan_env.rewards import Keys, generate
from textgan_env.tasks.base import MOST_CELLS, Task
from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.text.grammars import GRAMMARS, Automaton, grammar_vocabulary
from textgan_env.text.vocabulary import Vocabulary
from textgan_env.utils.errors import require, require_at_least, require_known

_LONGEST = 100  # T


class GrammarTask(Task):
    """Text that a grammar generates, given that it has at most T tokens, of which the last is the end token.

    Both are known of any text: its exact probability (so cover and fit are), and whether it is one of the grammar's.
    The grammars are in `textgan_env.text.grammars`; a text is a line of characters that has one derivation.

    Args:
        name: ``arithmetic-grammar`` or ``json-grammar``.
        max_length: T; None: 24 and 32.
        seed: Of the texts.
        text_seed: The same under the name that other tasks have for it; None: ``seed``.
        train_size: Texts to learn from.
        valid_size: Further texts to choose by.
        test_size: Texts to measure on.

    Raises:
        InputError: If there is no such grammar, a size is below 1 or too large, or no text is as short as T.
    """

    oracle: AutomatonPolicy
    vocabulary: Vocabulary

    def __init__(
        self,
        name: str = "arithmetic-grammar",
        *,
        max_length: int | None = None,
        seed: int = 0,
        text_seed: int | None = None,
        train_size: int = 10_000,
        valid_size: int = 2_000,
        test_size: int = 10_000,
    ) -> None:
        super().__init__()
        require_known("grammar", name, GRAMMARS)
        grammar, usual, self._about = GRAMMARS[name]
        width = usual if max_length is None else max_length
        sizes = {"train": train_size, "valid": valid_size, "test": test_size}
        require_at_least(1, max_length=width, train_size=train_size, valid_size=valid_size, test_size=test_size)
        require_at_least(0, seed=seed, text_seed=text_seed)
        require(width <= _LONGEST, f"max_length of a grammar must be at most {_LONGEST}, found {width}")
        most = MOST_CELLS // width
        require(max(sizes.values()) <= most, f"a split has at most {most:,} texts, found {max(sizes.values()):,}")
        self.automaton = grammar.automaton(width)
        finishing_NS = self.automaton.finishing(width)
        self._log_mass = float(np.log(finishing_NS[-1, 0])) if finishing_NS[-1, 0] else -math.inf
        require(self._log_mass > -math.inf, f"task '{name}' has no text as short as max_length {width}")
        self.name, self.language = name, "grammar"
        self.vocabulary = grammar_vocabulary(self.automaton)
        self.vocab_size, self.max_length = self.vocabulary.size, width
        self.start_token, self.end_token = self.vocabulary.pad, self.vocabulary.eos
        self._settings = {"max_length": width, "seed": seed, **{f"{split}_size": n for split, n in sizes.items()}}
        self._settings |= {} if text_seed is None else {"text_seed": text_seed}
        self._text_seed, self._sizes = seed if text_seed is None else text_seed, sizes
        self.oracle = AutomatonPolicy(_law(self.automaton, finishing_NS), torch.from_numpy(self.automaton.next_SV))
        self.oracle.eval()

    def __str__(self) -> str:
        """One line for a person."""
        return f"Task '{self.name}': {self._about}, of at most {self.max_length} tokens out of {self.vocab_size}."

    def text_log_prob(self, text: str) -> float:
        """Log-probability (nats) of a text, its end counted; minus infinity where it is none of the grammar's."""
        state, total = 0, -self._log_mass
        if len(text) >= self.max_length:
            return -math.inf
        for token in [*(self.vocabulary.ids.get(character, -1) for character in text), 0]:
            share = float(self.automaton.share_SV[state, token]) if token >= 0 else 0.0
            if share == 0:
                return -math.inf
            total += math.log(share)
            state = int(self.automaton.next_SV[state, token])
        return total

    def parses(self, text: str) -> bool:
        """Whether a text is one of the grammar's, and short enough."""
        return self.text_log_prob(text) > -math.inf

    def _load(self, name: Split) -> TokenDataset:
        """Draw one split; each has draws of its own."""
        keys = Keys.counted(derived_seed(self._text_seed, "texts", name), self._sizes[name])
        tokens_BT, lengths_B = generate(self.oracle, keys, self.max_length, end_token=self.end_token)
        return TokenDataset(name, tokens_BT, lengths_B, pad=self.vocab_size)


def _law(automaton: Automaton, finishing_NS: NDArray[np.float64]) -> Tensor:
    """Log-probability of each next token given that the text ends in time, float64 (T, S, V).

    With n tokens left it is that of the grammar times the probability to end within the n - 1 after it, divided by that
    to end within n: Bayes. Where nothing can end in time, zeros.
    """
    then_TSV = automaton.share_SV * finishing_NS[:-1][:, automaton.next_SV]
    then_TSV[:, :, 0] = automaton.share_SV[:, 0]  # the end needs no more tokens
    now_TS1 = finishing_NS[1:, :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return torch.from_numpy(np.where(now_TS1 > 0, np.log(then_TSV) - np.log(now_TS1), 0.0))
