"""How somebody's own text is read: the one list of options that the library and every command share. Loads no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: How a line becomes tokens, see `textgan_env.text.vocabulary.tokenize`.
Mode = Literal["word", "char", "whitespace", "bpe", "smiles"]
#: What blanks are in mode char, see `TextOptions`.
Blanks = Literal["auto", "keep", "apart", "line"]
#: What happens to lines that are longer than T: cut to T, left out, or T grows.
Longer = Literal["cut", "drop", "grow"]


@dataclass(frozen=True)
class TextOptions:
    """How your own text is read. None: what stands in brackets; only task corpus has these options."""

    mode: Mode | None = None
    """How the lines of your text become tokens: by word rules, one a character, between blanks, as byte pairs that are
    trained on the text, or, of molecules, atom by atom (smiles) [word]."""
    lower: bool = False
    """Make your text lower case; otherwise it keeps its case."""
    blanks: Blanks = "auto"
    """Of mode char. keep: a blank is a character like others. apart: blanks only part the characters, as in "a b c".
    auto: apart where the whole file is written so, else keep. line: apart or one blank a run, decided line by line, as
    earlier versions did."""
    column: str | None = None
    """The column of a table (CSV, TSV, JSON lines, Parquet) that holds the texts: its name, or, where the first line
    names no columns, its number from 1 [the only one with text]."""
    encoding: str | None = None
    """How your file is encoded, such as utf-16 or cp1252 [utf-8]."""
    tokenizer: Path | None = None
    """A folder with a Hugging Face tokenizer, or smollm2, whose subwords are then the tokens of your text, instead of
    --mode."""
    vocab_size: int | None = None
    """Tokens in the vocabulary of --mode bpe, the end token counted [1000]."""
    max_length: int | None = None
    """T, the most tokens of a text [what the task says; of your text at most 1,000]."""
    longer: Longer | None = None
    """What happens to longer lines of your text: cut to T, or left out (drop), or T grows with them [drop]."""
    min_count: int | None = None
    """Words of your text seen less often become unknown [1]."""
    max_vocab: int | None = None
    """Words of your text beyond the most frequent ones become unknown [no limit]."""
    valid_path: str | None = None
    """A file of your own to choose the best weights by, used as it is, instead of a part of your text."""
    test_path: str | None = None
    """Likewise a file to measure on."""
    valid_share: float | None = None
    """Share of the different texts that is held out to choose the best weights by [0.1]."""
    test_share: float | None = None
    """Likewise to measure on [0.1]."""
    eos: bool | None = None
    """Give texts an end token also where all have the same length."""
