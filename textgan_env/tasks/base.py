"""What a task is: vocabulary, length, splits, and an oracle where one exists."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from textgan_env.policies.base import Policy
from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.text.vocabulary import Vocabulary
from textgan_env.utils.errors import require, require_known

#: Tokens of a split: 1 GiB of int64.
MOST_CELLS = 2**27


class Task(ABC):
    """One kind of real text.

    Attributes:
        name: As in `TASKS`.
        vocab_size: V, the tokens that can be written; V itself is PAD.
        max_length: T; the end token counts.
        start_token: What a policy is fed first: 0 to V.
        end_token: The token that ends a text early; None where every text has T tokens.
        forbidden: Tokens that stand in data but are never written (UNK).
        vocabulary: From tokens to words; None where tokens mean nothing.
        oracle: The true distribution; None where nobody knows it.
    """

    name: str
    vocab_size: int
    max_length: int
    start_token: int
    end_token: int | None = None
    forbidden: tuple[int, ...] = ()
    vocabulary: Vocabulary | None = None
    oracle: Policy | None = None

    def __init__(self) -> None:
        self._splits: dict[str, TokenDataset] = {}
        self._settings: Mapping[str, Any] = {}  # options of `make_task`

    def __str__(self) -> str:
        """One line for a person."""
        return f"Task '{self.name}': texts of {self.max_length} tokens out of {self.vocab_size:,}."

    def split(self, name: Split) -> TokenDataset:
        """The texts of one split, made when first asked for.

        Raises:
            InputError: If there is no such split.
        """
        require_known("split", name, get_args(Split))
        if name not in self._splits:
            self._splits[name] = self._load(name)
        return self._splits[name]

    @abstractmethod
    def _load(self, name: Split) -> TokenDataset:
        """Make one split."""

    def config(self) -> dict[str, Any]:
        """Plain data from which `make_task` makes the same task."""
        return {"name": self.name, **self._settings}

    def writable(self, name: Split) -> Tensor:
        """The texts of a split that a policy could have written, int64 (B, T): a discriminator is shown no others.

        Raises:
            InputError: If every text holds a forbidden token.
        """
        tokens_BT = self.split(name).tokens_BT
        if self.forbidden:
            tokens_BT = tokens_BT[~torch.isin(tokens_BT, torch.tensor(self.forbidden)).any(1)]
            require(len(tokens_BT) > 0, f"every text of the {name} split of task '{self.name}' holds an unknown word")
        return tokens_BT

    def scored(self, tokens_BT: Tensor) -> Tensor:
        """The tokens a likelihood is asked for, bool (B, T): not PAD, and not forbidden (no policy can write those)."""
        mask_BT = tokens_BT != self.vocab_size
        if self.forbidden:
            mask_BT &= ~torch.isin(tokens_BT, torch.tensor(self.forbidden, device=tokens_BT.device))
        return mask_BT

    def tokenize(self, text: str) -> list[str]:
        """Words of a piece of text; what stands between blanks where tokens mean nothing."""
        return text.split() if self.vocabulary is None else self.vocabulary.tokenize(text)

    @property
    def rules(self) -> str:
        """What tokens are, in a word or two."""
        return "numbers" if self.vocabulary is None else f"{self.vocabulary.mode} rules"

    def words(self, tokens_T: Sequence[int]) -> list[str]:
        """The words of one text, without end token and PAD; numbers where tokens mean nothing."""
        if self.vocabulary is not None:
            return self.vocabulary.decode(tokens_T)
        return [str(token) for token in tokens_T if token != self.vocab_size]

    def text(self, tokens_T: Sequence[int]) -> str:
        """One text as a person reads it."""
        words = self.words(tokens_T)
        return self.vocabulary.join(words) if self.vocabulary is not None else " ".join(words)

    def encode(self, text: str) -> list[int]:
        """Tokens of a piece of text, without end token; numbers between blanks where tokens mean nothing.

        Raises:
            InputError: If such a number is none of this task's, or a word is not in the vocabulary and there is no UNK.
        """
        if self.vocabulary is not None:
            return self.vocabulary.encode(self.tokenize(text))
        for part in text.split():
            fits = part.isdecimal() and len(part) < 19 and int(part) < self.vocab_size
            expected = f"tokens of task '{self.name}' are numbers without words, 0 to {self.vocab_size - 1}"
            require(fits, f"{expected}, found '{part[:20]}'")
        return [int(part) for part in text.split()]

    def encode_writable(self, text: str) -> list[int]:
        """Tokens of a piece of text that a policy could have written, as `encode` gives them.

        Raises:
            InputError: If there are others; the sentence names the first.
        """
        if self.vocabulary is not None:
            known = set(self.vocabulary.words)
            for word in self.tokenize(text):
                unknown = f"{self._seen(word)!r} is not among the {len(known):,} words of task '{self.name}'"
                require(word in known, unknown)
        return self.encode(text)

    def _seen(self, word: str) -> str:
        """A word of the vocabulary as a person sees it."""
        return word
