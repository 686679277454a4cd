"""How a discriminator of texts reads what a language model writes: words of its own, made of the real texts.

The model's own tokens are no good for it. A model writes "the" as one token or as "t" and "he", and real texts stand in
the tokenizer's first choice only: a discriminator would learn to tell these spellings and not the texts apart.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from textgan_env.text.dataset import SANE_LENGTH
from textgan_env.text.subwords import train_byte_pairs
from textgan_env.text.vocabulary import EOS, UNK, Vocabulary, one_line, prepare, tokenize
from textgan_env.utils.errors import InputError, require, require_at_least
from textgan_env.utils.text_options import Mode


@dataclass(frozen=True)
class Reading:
    """How texts become tokens for a discriminator.

    Attributes:
        mode: ``"word"``, ``"whitespace"``, ``"char"``, ``"smiles"`` as `textgan_env.text.vocabulary.tokenize` has them;
            ``"bpe"``: byte pairs, trained on the real texts, which know every text.
        lower: Whether text is made lower case first.
        min_count: Rarer words are unknown. With 2 the discriminator learns from real texts with unknown words: those
            seen once, about as many as other real texts have new words (Good and Turing). With 1 a new word would be
            a sure sign of a written text.
        vocab_size: Of mode bpe: most tokens.
        max_length: T; what is longer is cut. None: the longest real text and its end.
    """

    mode: Mode = "word"
    lower: bool = False
    min_count: int = 2
    vocab_size: int = 1000
    max_length: int | None = None

    def reader(self, texts: Sequence[str]) -> "TextReader":
        """Make the vocabulary of real texts.

        Args:
            texts: Those that the discriminator learns from, not those held out.

        Raises:
            InputError: If an option is refused, there are too few words, or texts are very long.
        """
        require_at_least(1, min_count=self.min_count, max_length=self.max_length)
        if self.mode == "bpe":
            lines = [prepare(one_line(text), "bpe", self.lower) for text in texts]
            pieces, merges = train_byte_pairs(lines, self.vocab_size - 1)
            vocabulary = Vocabulary((EOS, *pieces), mode="bpe", lower=self.lower, eos=0, merges=merges)
        else:
            words = [tokenize(one_line(text), self.mode, self.lower) for text in texts]
            counts = Counter(word for text in words for word in text if word != EOS)
            least = self.min_count
            vocabulary = Vocabulary.from_counts(counts, mode=self.mode, lower=self.lower, min_count=least, unk=True)
        longest = max(len(vocabulary.tokenize(text)) for text in texts) + 1
        sane = self.max_length is not None or longest <= SANE_LENGTH
        require(sane, f"the longest real text has {longest:,} tokens, which decides about time: set max_length")
        return TextReader(vocabulary, longest if self.max_length is None else self.max_length)


@dataclass(frozen=True)
class TextReader:
    """Texts to token ids.

    Attributes:
        vocabulary: V tokens, EOS among them, and UNK but for byte pairs.
        max_length: T.
    """

    vocabulary: Vocabulary
    max_length: int

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Token ids of texts: int64 (B, T), EOS after each that is not cut, then PAD."""
        vocabulary, rows = self.vocabulary, []
        for text in texts:
            # Who writes "<eos>" does not end the text.
            words = [UNK if word == EOS else word for word in self._words(text)[: self.max_length]]
            ids = [*vocabulary.encode(words), vocabulary.ids[EOS]][: self.max_length]
            rows.append(ids + [vocabulary.pad] * (self.max_length - len(ids)))
        return torch.tensor(rows, dtype=torch.int64).view(-1, self.max_length)

    def _words(self, text: str) -> list[str]:
        """The words of a text; a model must not end its own training by writing what is no writing."""
        try:
            return self.vocabulary.tokenize(text)
        except InputError:  # hundreds of accents on one letter
            return [UNK]
