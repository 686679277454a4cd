"""What can be asked of a corpus, checked."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from textgan_env.text.dataset import PathLike, Split, check_length
from textgan_env.text.vocabulary import MODES
from textgan_env.utils.errors import require, require_at_least, require_known
from textgan_env.utils.text_options import Blanks, Longer, Mode, TextOptions


@dataclass(frozen=True)
class CorpusOptions(TextOptions):
    """How a corpus is read: `textgan_env.utils.text_options.TextOptions`, which the commands have, and these.

    Attributes:
        path: The file; or give ``texts``.
        texts: The texts themselves: any sequence of strings, such as a column of a data frame.
        valid_share: Share of the different texts that becomes the validation split, 0..1; at least one text unless 0.
            Ignored when there is a ``valid_path``.
        test_share: Likewise for the test split and ``test_path``.
        valid_path: A validation file of its own, used as it is, copies included.
        test_path: Likewise a test file.
        seed: Decides which texts are held out.
        eos: Whether texts end with EOS; ``"auto"``: unless all have the same length, and always in mode bpe.

    Raises:
        InputError: If a value is refused; the sentence names it.
    """

    mode: Mode = "word"
    tokenizer: PathLike | None = None  # type: ignore[assignment]  # from Python a string will do, too
    longer: Longer = "drop"
    min_count: int = 1
    valid_path: PathLike | None = None  # type: ignore[assignment]
    test_path: PathLike | None = None  # type: ignore[assignment]
    valid_share: float = 0.1
    test_share: float = 0.1
    eos: bool | Literal["auto"] = "auto"  # type: ignore[assignment]
    path: PathLike | None = None
    texts: Sequence[str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        one_of_two = "a corpus needs a path (a text file, one text a line) or texts, one of the two"
        require((self.path is None) != (self.texts is None), one_of_two)
        one_file = f"path must be one file, found {type(self.path).__name__}: join several files, or give texts="
        require(isinstance(self.path, str | os.PathLike | None), one_file)
        self._check_tokens()
        require_known("choice for longer texts", self.longer, get_args(Longer))
        require_at_least(1, max_length=self.max_length, min_count=self.min_count, max_vocab=self.max_vocab)
        require_at_least(0, seed=self.seed)
        check_length(self.max_length or 1)
        for name, share in self.shares.items():
            require(0 <= share < 1, f"{name}_share must be at least 0 and below 1, found {share}")
        both = sum(self.shares.values())
        require(both < 1, f"valid_share and test_share together must be below 1, found {both:g}")

    def _check_tokens(self) -> None:
        """Refuse options that are for another kind of token, or another source."""
        require_known("token mode", self.mode, MODES)
        require_known("rule for blanks", self.blanks, get_args(Blanks))
        molecules = "mode smiles tells atoms apart by their case (C and c): leave out lower"
        require(self.mode != "smiles" or not self.lower, molecules)
        own_rules = "a tokenizer has rules of its own: leave out"
        require(self.tokenizer is None or self.mode == "word", f"{own_rules} mode, found '{self.mode}'")
        require(self.tokenizer is None or not self.lower, f"{own_rules} lower")
        of_char = f"blanks is for mode char, found '{self.blanks}' for mode {self.mode}"
        require(self.mode == "char" or self.blanks in ("auto", "line"), of_char)
        require(self.mode == "bpe" or self.vocab_size is None, f"vocab_size is for mode bpe, found mode {self.mode}")
        limited = self.min_count != 1 or self.max_vocab is not None
        of_bpe = "mode bpe knows every text: set vocab_size, not min_count or max_vocab"
        require(self.mode != "bpe" or not limited, of_bpe)
        of_files = "column and encoding are for files, texts are what they are"
        require(self.texts is None or (self.column is None and self.encoding is None), of_files)

    @property
    def files(self) -> dict[Split, PathLike]:
        """The splits that have files of their own."""
        paths: dict[Split, PathLike | None] = {"valid": self.valid_path, "test": self.test_path}
        return {split: path for split, path in paths.items() if path is not None}

    @property
    def shares(self) -> dict[Split, float]:
        """The share of the texts that is held out for each split that has no file."""
        shares: dict[Split, float] = {"valid": self.valid_share, "test": self.test_share}
        return {split: 0.0 if split in self.files else share for split, share in shares.items()}


def as_texts(given: Any) -> tuple[str, ...]:
    """Texts that were handed over: any sequence of strings, such as a column of a data frame or a numpy array.

    Raises:
        InputError: If they are none; the sentence says which text is none.
    """
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes | set | frozenset)
    require(several, f"texts must be a sequence of strings, found {type(given).__name__}")
    columns = next((getattr(given, name) for name in ("columns", "column_names") if hasattr(given, name)), None)
    table = columns is not None or isinstance(given, Mapping)
    named = ", ".join(map(str, list(given if columns is None else columns)[:10])) if table else ""
    require(not table, f"texts must be one column, found a table with {named}: take texts=table[NAME]")
    texts = []
    for number, text in enumerate(given, start=1):
        row = " (a row: take one column, texts=table[NAME])" if isinstance(text, Mapping) else ""
        require(isinstance(text, str), f"texts: text {number} must be a string, found {type(text).__name__}{row}")
        require("\0" not in text, f"texts: text {number} holds a NUL character")
        half = f"texts: text {number} holds half a character (a lone surrogate), which no file can hold"
        require(text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text), half)
        texts.append(str(text))
    return tuple(texts)
