"""A task whose text is not at hand, only its words: it can be generated, and nothing can be measured on real text."""

from collections.abc import Sequence
from typing import Any

from textgan_env.tasks.base import Task
from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.text.subwords import Subwords
from textgan_env.text.vocabulary import Vocabulary, one_line
from textgan_env.utils.errors import MissingDataError


class WordsTask(Task):
    """What a run knows of its text where the text itself is somewhere else.

    Args:
        vocabulary: The words.
        max_length: T.
        missing: Which text is not here, a sentence.
        settings: Plain data from which `make_task` makes the task where the text is.
    """

    def __init__(self, vocabulary: Vocabulary, max_length: int, missing: str, settings: dict[str, Any]) -> None:
        super().__init__()
        self.name = str(settings.get("name", "corpus"))
        self.vocabulary: Vocabulary = vocabulary
        self.vocab_size, self.max_length = vocabulary.size, max_length
        self.start_token, self.end_token = vocabulary.pad, vocabulary.eos
        self.forbidden = () if vocabulary.unk is None else (vocabulary.unk,)
        self.language = "molecules" if vocabulary.mode == "smiles" else ""
        self._missing, self._settings = missing, settings

    def __str__(self) -> str:
        """One line for a person."""
        return f"{super().__str__()} {self._missing}: it can be generated, but not measured."

    def _load(self, name: Split) -> TokenDataset:
        """No split is here.

        Raises:
            MissingDataError: Always.
        """
        raise MissingDataError(self._missing)


class SubwordsTask(Task):
    """All subwords of a language model: what it can write, measured on no text. Token i is the model's token i.

    Args:
        model: By name, or its folder, with a tokenizer.
        vocab_size: V, the tokens of the model.
        max_length: T.
        end_token: What the model ends a text with.

    Raises:
        InputError: If the model has no tokenizer.
        MissingDataError: If the package tokenizers is not installed, or the model is not here.
    """

    def __init__(self, model: str, vocab_size: int, max_length: int, end_token: int) -> None:
        super().__init__()
        self.name, self.vocab_size, self.max_length = model, vocab_size, max_length
        self.start_token, self.end_token = vocab_size, end_token
        self._subwords = Subwords.of_folder(model)
        self.forbidden = tuple(number for number in self._subwords.special if number not in (end_token, vocab_size))

    def _load(self, name: Split) -> TokenDataset:
        """A language model has no text.

        Raises:
            MissingDataError: Always.
        """
        raise MissingDataError(f"the language model '{self.name}' has no texts of its own to measure it on")

    def words(self, tokens_T: Sequence[int]) -> list[str]:
        """The subwords of one text, as the tokenizer spells them, without end token and PAD."""
        return [self._subwords.piece(str(token)) for token in self._written(tokens_T)]

    def text(self, tokens_T: Sequence[int]) -> str:
        """One text as a person reads it, on one line."""
        return one_line(self._subwords.join([str(token) for token in self._written(tokens_T)]))

    def tokenize(self, text: str) -> list[str]:
        """The subwords of a piece of text, by their numbers."""
        return self._subwords.tokenize(text)

    def encode(self, text: str) -> list[int]:
        """Tokens of a piece of text, without end token."""
        return self._subwords.numbers(text)

    def encode_writable(self, text: str) -> list[int]:
        """As `encode`: the model can write every text."""
        return self.encode(text)

    def _written(self, tokens_T: Sequence[int]) -> list[int]:
        """Without what stands for the end."""
        return [token for token in tokens_T if token not in (self.vocab_size, self.end_token)]
