"""Text of a corpus."""

from collections.abc import Sequence
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
            require(share < 1, f"{corpus.report.source}: {known}; more text is needed")
        self.name = name
        self.corpus = corpus
        self.vocabulary: Vocabulary = corpus.vocabulary
        self.vocab_size = corpus.vocabulary.size
        self.max_length = corpus.max_length
        self.start_token = corpus.vocabulary.pad
        self.end_token = corpus.vocabulary.eos
        self.forbidden = () if corpus.vocabulary.unk is None else (corpus.vocabulary.unk,)
        self._settings = settings or {}

    def __str__(self) -> str:
        """What became of every line of the corpus, and what may disappoint in it."""
        report = self.corpus.report
        return "\n".join([f"Task '{self.name}': {report}", *(f"note: {sentence}" for sentence in report.advice())])

    def tokenize(self, text: str) -> list[str]:
        """Words of a piece of text, or the numbers of its subwords."""
        return super().tokenize(text) if self.corpus.subwords is None else self.corpus.subwords.tokenize(text)

    @property
    def rules(self) -> str:
        """What tokens are."""
        return super().rules if self.corpus.subwords is None else "subwords of a tokenizer"

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

    def _load(self, name: Split) -> TokenDataset:
        """The split, as the corpus has it."""
        found = ", ".join(self.corpus.splits)
        require(name in self.corpus.splits, f"task '{self.name}' has no {name} split (its share was 0), only: {found}")
        return self.corpus.splits[name]
