"""A task whose text is not at hand, only its words: it can be generated, and nothing can be measured on real text."""

from typing import Any

from textgan_env.tasks.base import Task
from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.text.vocabulary import Vocabulary
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
