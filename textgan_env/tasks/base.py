"""What a task is: vocabulary, length, splits, and an oracle where one exists."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from itertools import chain
from typing import Any, Self, get_args

import torch
from torch import Tensor

from textgan_env.ops.metric_table import Language
from textgan_env.ops.templates import BLANK
from textgan_env.policies.base import Policy
from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.text.vocabulary import Vocabulary
from textgan_env.utils.errors import InputError, require, require_known
from textgan_env.utils.reading import FileHash

#: Tokens of a split: 1 GiB of int64.
MOST_CELLS = 2**27
#: A blank in a template as a user writes it.
BLANK_MARK = "___"
_HOLE = "\ue000"  # takes its place while words are split: a letter of no script


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
        files: Option of `make_task` that names a file -> what the file was known by when the task was made; None where
            `make_task` did not make it.
        language: What texts must keep the rules of: "grammar", "molecules"; "" where any text is as good.
        proven: Whether a saved task is known to have the text that it had when it was saved; others are.
    """

    name: str
    vocab_size: int
    max_length: int
    start_token: int
    end_token: int | None = None
    forbidden: tuple[int, ...] = ()
    vocabulary: Vocabulary | None = None
    oracle: Policy | None = None
    files: Mapping[str, FileHash] | None = None
    language: Language = ""
    proven: bool = True

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

    def divided(self, share: float, generator: torch.Generator) -> tuple[Self, Self]:
        """The task twice, each with a random part of the training texts: no text is in both, every other split is.

        Args:
            share: Of the training texts that the second has, rounded to whole texts.
            generator: Of the choice.

        Raises:
            InputError: If a part would have no text.
        """
        train = self.split("train")
        second = round(share * len(train))
        parts = f"{second:,} of {len(train):,} training texts"
        require(0 < second < len(train), f"both parts of the training texts need some, found {parts} held back")
        order_B = torch.randperm(len(train), generator=generator)
        self.split("valid")  # made once for both
        return self.learnt_from(order_B[second:]), self.learnt_from(order_B[:second])

    def learnt_from(self, rows_B: Tensor) -> Self:
        """The task with some of its training texts alone; every other split is the same.

        Args:
            rows_B: Which of them, int64, in this order.

        Raises:
            InputError: If there is none.
        """
        train = self.split("train")
        some = copy.copy(self)
        part = TokenDataset("train", train.tokens_BT[rows_B], train.lengths_B[rows_B], train.pad)
        some._splits = {**self._splits, "train": part}
        return some

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
        if self.vocabulary is None:
            return self.encode(text)
        words = self.tokenize(text)
        self._require_writable(words)
        return self.vocabulary.encode(words)

    def encode_template(self, text: str) -> list[int]:
        """Tokens of a piece of text with blanks, as `encode_writable` gives them; `BLANK` (-1) at each ``___``.

        A blank is one token: a word in modes word and whitespace, a character in mode char (blank characters beside it
        stand for themselves), an atom or a sign in mode smiles, a subword in mode bpe and with a tokenizer. A subword
        brings the blank character before it along, so that one in front of ``___`` is left out.

        Raises:
            InputError: If there is no blank, or a word that no policy can write; the sentence names the first.
        """
        expected = f"a template needs at least one blank, written as {BLANK_MARK}"
        require(BLANK_MARK in text, f"{expected}, found '{text[:60]}'")
        if self._has_subwords:
            *before, last = text.split(BLANK_MARK)
            parts = [*(part.removesuffix(" ") for part in before), last]
            rows = [self._encode_part(part, inside=number > 0) for number, part in enumerate(parts)]
            return [*rows[0], *chain.from_iterable((BLANK, *row) for row in rows[1:])]
        apart = self.vocabulary is None or self.vocabulary.mode not in ("char", "smiles")
        words = self.tokenize(text.replace(BLANK_MARK, f" {_HOLE} " if apart else _HOLE))
        if self.vocabulary is None:
            return [BLANK if word == _HOLE else self.encode(word)[0] for word in words]
        self._require_writable([word for word in words if word != _HOLE])
        return [BLANK if word == _HOLE else self.vocabulary.ids[word] for word in words]

    @property
    def _has_subwords(self) -> bool:
        """Whether tokens are pieces of words."""
        return self.vocabulary is not None and self.vocabulary.mode == "bpe"

    def _encode_part(self, text: str, *, inside: bool) -> list[int]:
        """Tokens of a part of a text in subwords; inside the text, a blank character that it begins with stays."""
        return self.encode_writable(text)

    def _require_writable(self, words: Sequence[str]) -> None:
        """Refuse a word that no policy can write; the sentence names the first."""
        assert self.vocabulary is not None
        known = set(self.vocabulary.words)
        for word in words:
            if word not in known:
                units = "tokens" if self.vocabulary.mode in ("smiles", "bpe") else "words"
                unknown = f"{self._seen(word)!r} is not among the {len(known):,} {units} of task '{self.name}'"
                raise InputError(f"{unknown}{self._advice(word, known)}")

    def _advice(self, word: str, known: Set[str]) -> str:
        """What may have been meant by a word that is not known."""
        meant = next((other for other in sorted(known) if other.casefold() == word.casefold()), None)
        return "" if meant is None else f", but {meant!r} is"

    def _seen(self, word: str) -> str:
        """A word of the vocabulary as a person sees it."""
        return word
