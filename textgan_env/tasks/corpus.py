"""Text of a corpus."""

from collections.abc import Sequence, Set
from typing import Any

from textgan_env.tasks.base import Task
from textgan_env.text.corpus import Corpus
from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.text.vocabulary import Vocabulary
from textgan_env.utils.errors import require


class CorpusTask(Task):
    """Text from a file or a named corpus.

    Args:
        corpus: From `textgan_env.text.corpus.load_corpus` or `textgan_env.text.published.named_corpus`.
        name: Of the task.
        settings: Plain data from which `make_task` reads the same corpus again.

    Raises:
        InputError: If a split consists of unknown words only.
    """

    def __init__(self, corpus: Corpus, *, name: str = "corpus", settings: dict[str, Any] | None = None) -> None:
        super().__init__()
        for split, share in corpus.report.unknown.items():
            known = f"no word of the {split} split is among those of the training part, so nothing could be measured"
            advice = "more text is needed"
            if corpus.vocabulary.mode != "char":
                advice += ", or, where no blanks stand between words, mode char (--mode char)"
            require(share < 1, f"{corpus.report.source}: {known}; {advice}")
        self.name = name
        self.corpus = corpus
        self.vocabulary: Vocabulary = corpus.vocabulary
        self.vocab_size = corpus.vocabulary.size
        self.max_length = corpus.max_length
        self.start_token = corpus.vocabulary.pad
        self.end_token = corpus.vocabulary.eos
        self.forbidden = () if corpus.vocabulary.unk is None else (corpus.vocabulary.unk,)
        self.language = "molecules" if corpus.vocabulary.mode == "smiles" else ""
        self._settings = settings or {}

    def __str__(self) -> str:
        """What became of every line of the corpus, and what may disappoint in it."""
        report = self.corpus.report
        return "\n".join([f"Task '{self.name}': {report}", *(f"note: {sentence}" for sentence in report.advice())])

    def tokenize(self, text: str) -> list[str]:
        """Words of a piece of text, or its subwords as they are called in the vocabulary."""
        subwords = None if self.vocabulary.mode == "bpe" else self.corpus.subwords
        return super().tokenize(text) if subwords is None else subwords.tokenize(text)

    @property
    def _has_subwords(self) -> bool:
        """Whether tokens are pieces of words."""
        return self.corpus.subwords is not None or super()._has_subwords

    def _encode_part(self, text: str, *, inside: bool) -> list[int]:
        """Tokens of a part of a text in subwords; inside the text, a blank character that it begins with stays."""
        if self.vocabulary.mode == "bpe" or self.corpus.subwords is None:
            return super()._encode_part(text, inside=inside)
        words = self.corpus.subwords.tokenize(text, strip=not inside)
        self._require_writable(words)
        return self.vocabulary.encode(words)

    @property
    def rules(self) -> str:
        """What tokens are."""
        pairs = self.vocabulary.mode == "bpe" or self.corpus.subwords is None
        return super().rules if pairs else "subwords of a tokenizer"

    def words(self, tokens_T: Sequence[int]) -> list[str]:
        """The words or subwords of one text, without end token and PAD."""
        return [self._seen(word) for word in super().words(tokens_T)]

    def text(self, tokens_T: Sequence[int]) -> str:
        """One text as a person reads it."""
        if self.corpus.subwords is None:
            return super().text(tokens_T)
        return self.corpus.subwords.join(self.vocabulary.decode(tokens_T))

    def _seen(self, word: str) -> str:
        """A subword as its tokenizer spells it."""
        return word if self.corpus.subwords is None else self.corpus.subwords.piece(word)

    def _advice(self, word: str, known: Set[str]) -> str:
        """What may have been meant by a word that is not known."""
        if self.corpus.subwords is None:
            return super()._advice(word, known)
        return ": the training texts split these letters into other subwords, so begin with whole words of theirs"

    def _load(self, name: Split) -> TokenDataset:
        """The split, as the corpus has it."""
        found = ", ".join(self.corpus.splits)
        require(name in self.corpus.splits, f"task '{self.name}' has no {name} split (its share was 0), only: {found}")
        return self.corpus.splits[name]
