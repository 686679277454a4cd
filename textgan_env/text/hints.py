"""What a text looks like, where it may be read otherwise than it was meant."""

import re
from collections.abc import Sequence
from importlib.util import find_spec

from textgan_env.text.corpus_options import CorpusOptions
from textgan_env.utils.molecules import unreadable
from textgan_env.utils.text_options import Blanks

_MOSTLY = 0.9  # of lines
_TWO_CASES = 0.05  # of words
# Some atoms, and what no word has (a bond, a ring, a branch); a name may follow.
_SMILES = re.compile(
    r"(?=\S{4})(?=\S*[=#()0-9])(?=\S*[CNOcno])(?:\[[^\[\]]+\]|Br|Cl|[BCNOPSFIbcnops]|[-=#$/\\().:%0-9*])+(?:\s+\S+)?"
)
# First lines that are seldom a text.
_HEADERS = ("text", "texts", "sentence", "sentences", "line", "title", "caption", "name", "smiles", "sequence")


def hints(begin: Sequence[str], words: Sequence[str], asked: CorpusOptions, blanks: Blanks) -> list[str]:
    """What is not sure about a text, a sentence each, and which option to set; often nothing.

    The limits are rules of thumb.

    Args:
        begin: Its first lines, as they stand there.
        words: The different tokens of the training part.
        asked: How it is read.
        blanks: What blanks are in mode char.
    """
    lines = [line for line in begin if line.strip()]
    mark = None if asked.mode == "smiles" else _table_mark(lines)  # names may stand behind molecules
    cases = len(words) - len({word.lower() for word in words})
    by_words = asked.mode in ("word", "whitespace") and asked.tokenizer is None and not asked.lower
    # In FASTA a line of capital letters, the sequence, follows a name.
    sequences = sum(line.strip().isalpha() and line.isupper() for line in lines)
    named = any(line.startswith(">") for line in lines) and sequences >= len(lines) / 2
    objects = sum(line.strip().startswith("{") and line.strip().endswith("}") for line in lines)
    first = lines[0].strip() if lines else ""
    names = [line.split()[0] for line in lines]
    found = []
    if by_words and lines and sum(bool(_SMILES.fullmatch(line.strip())) for line in lines) > _MOSTLY * len(lines):
        found.append("the lines look like molecules as SMILES: set mode to smiles (--mode smiles)")
    if asked.mode == "smiles" and find_spec("rdkit") is not None and (bad := unreadable(names)):
        few = f"{len(bad):,} of the first {len(names):,} lines are no molecules for rdkit, the first is {bad[0]!r}"
        found.append(f"{few}: they are learnt like the others")
    if first.lower() in _HEADERS:
        found.append(f"the first line, '{first}', looks like the name of a column, but is learnt like a text")
    if objects >= max(2, _MOSTLY * len(lines)):
        found.append("the lines look like JSON: to read the texts in it, set column (--column text)")
    if mark is not None:
        found.append(f"the lines look like a table with {mark} between columns: set column (--column NAME) to read one")
    if named:
        found.append("lines that begin with '>' look like names in FASTA, but are learnt like texts: leave them out")
    if by_words and cases > max(5, _TWO_CASES * len(words)):
        found.append(f"{cases:,} of {len(words):,} words differ from another by case only: set lower (--lower) to join")
    if asked.mode == "char" and blanks == "apart" and asked.blanks == "auto":
        apart = "every line is single characters with blanks between them, and these blanks are left out"
        found.append(f"{apart}: to keep them, set blanks to keep (--blanks keep)")
    return found


def _table_mark(lines: Sequence[str]) -> str | None:
    """What stands between columns, if every line has the same number of tabs, or the same two or more other marks."""
    for mark, name, least in (("\t", "tabs", 1), (";", "semicolons", 2), (",", "commas", 2), ("|", "bars", 2)):
        numbers = {line.count(mark) for line in lines}
        if len(lines) > 2 and len(numbers) == 1 and min(numbers) >= least:
            return name
    return None
