"""Text files to named splits of token ids.

Three rules hold for every corpus. A text stands in one split only: copies in the main file are dropped before it is
split (a published test file stays as it is; how many of its texts also stand in the training part is reported).
The vocabulary is that of the training part; what else the other splits hold is the unknown word. Nothing is dropped,
cut or replaced without being counted in the `CorpusReport`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from textgan_env.text.corpus_options import CorpusOptions, as_texts
from textgan_env.text.corpus_report import CorpusReport
from textgan_env.text.dataset import MOST_CELLS, SANE_LENGTH, PathLike, Split, TokenDataset
from textgan_env.text.hints import hints
from textgan_env.text.parts import Parts, read_parts, split_rows
from textgan_env.text.subwords import Subwords
from textgan_env.text.token_texts import TokenTexts
from textgan_env.text.vocabulary import EOS, Vocabulary
from textgan_env.utils.errors import InputError, require

_QUANTILES = {"shortest": 0.0, "median": 0.5, "99 %": 0.99, "longest": 1.0}  # of the lengths of texts


@dataclass(frozen=True, eq=False)
class Corpus:
    """A vocabulary and the splits written in it.

    Attributes:
        vocabulary: Built from the training part.
        splits: "train", and "valid" and "test" unless their share is 0.
        max_length: T, EOS counted where there is one.
        report: What became of every line.
        subwords: What the tokens are subwords of; None: words as they stand in the vocabulary.
        decided: Options of `load_corpus` that were left to the text: blanks, column, vocab_size.
    """

    vocabulary: Vocabulary
    splits: Mapping[Split, TokenDataset]
    max_length: int
    report: CorpusReport
    subwords: Subwords | None = None
    decided: Mapping[str, Any] = field(default_factory=dict)


def load_corpus(path: PathLike | None = None, **options: Any) -> Corpus:
    """Read a corpus: one text a line, or one a row of a table; the file may be packed (gzip, bzip2, xz, zip).

    The same options give the same corpus. A text that is cut ends at T without EOS: its end is not there.

    Args:
        path: The file; or give ``texts``.
        options: The other fields of `CorpusOptions`.

    Returns:
        The corpus; ``print(corpus.report)`` says what became of every line.

    Raises:
        InputError: If an option or a file is not as described; the sentence names it (and the line).
        MissingDataError: If a file is not there, or a package that reads it.
    """
    if options.get("texts") is not None:
        options["texts"] = as_texts(options["texts"])
    asked = CorpusOptions(path=path, **options)
    parts = read_parts(asked)
    width, with_eos = _width(parts.all, asked)
    fitted = [part.fit(width, with_eos, asked.longer) for part in parts.all]
    _check_memory(fitted, width)
    seen: set[bytes] = set()
    unique = [part.unique(seen) for part in fitted[: len(parts.main)]]
    if asked.mode == "bpe":
        found = dict(zip(parts.main, unique, strict=True))
    else:
        rows = split_rows(len(unique[0]), unique[0].source, asked)
        found = {split: unique[0].take(rows_B) for split, rows_B in rows.items()}
    found |= dict(zip(parts.own, fitted[len(parts.main) :], strict=True))
    by_split = {split: found[split] for split in get_args(Split) if split in found}
    vocabulary, ids = _vocabulary(parts, by_split, asked, with_eos)
    copies = parts.copies + sum(map(len, fitted[: len(parts.main)])) - sum(map(len, unique))
    report = _report(parts, fitted, by_split, vocabulary, ids, asked, width=width, with_eos=with_eos, copies=copies)
    splits = {split: part.dataset(split, ids, width, vocabulary) for split, part in by_split.items()}
    decided = {
        "column": parts.column,
        "blanks": vocabulary.blanks if asked.mode == "char" else None,
        "vocab_size": vocabulary.size if asked.mode == "bpe" else None,
    }
    return Corpus(
        vocabulary, splits, width, report, parts.subwords, {k: v for k, v in decided.items() if v is not None}
    )


def _report(
    parts: Parts, fitted: Sequence[TokenTexts], by_split: Mapping[Split, TokenTexts], vocabulary: Vocabulary,
    ids: NDArray[np.int64], asked: CorpusOptions, *, width: int, with_eos: bool, copies: int,
) -> CorpusReport:  # fmt: skip
    """What became of every line."""
    lengths = np.concatenate([part.lengths for part in parts.all])
    counts = np.bincount(by_split["train"].flat, minlength=len(parts.reader.words))
    words = [word for word, count in zip(parts.reader.words, counts.tolist(), strict=True) if count]
    return CorpusReport(
        source=" and ".join(dict.fromkeys(part.source for part in parts.all)),
        lines=sum(part.lines for part in parts.all) + parts.copies,
        blank=sum(part.lines - len(part) for part in parts.all),
        dropped=sum(len(part) - len(kept) for part, kept in zip(parts.all, fitted, strict=True)),
        cut=sum(kept.cut for kept in fitted),
        duplicates=copies,
        overlap=sum(by_split[split].copies_from(by_split["train"]) for split in asked.files),
        texts={split: len(part) for split, part in by_split.items()},
        unknown={split: part.share_of(ids, vocabulary.unk) for split, part in by_split.items()},
        words=len(words),
        once=int((counts == 1).sum()),
        lengths={name: int(np.quantile(lengths, share, method="higher")) for name, share in _QUANTILES.items()},
        vocabulary=vocabulary.size,
        max_length=width,
        fixed_length=not with_eos,
        files=tuple(parts.files),
        changed={what: count for what, count in parts.reader.changed.items() if count},
        hints=tuple(hints(parts.begin, words, asked, vocabulary.blanks)),
    )


def _width(parts: Sequence[TokenTexts], asked: CorpusOptions) -> tuple[int, bool]:
    """Decide T and whether texts end with EOS."""
    max_length, longer, eos = asked.max_length, asked.longer, asked.eos
    found = lengths = np.concatenate([part.lengths for part in parts])
    longest = int(found.max())
    if max_length is not None and longer == "cut":
        lengths = np.minimum(found, max_length)
    elif max_length is not None and longer == "drop":
        lengths = found[found <= max_length]
        require(len(lengths) > 0, parts[0].none_fits(max_length, with_eos=False))
    low, high = int(lengths.min()), int(lengths.max())
    with_eos = (low < high or asked.mode == "bpe") if eos == "auto" else eos
    if not with_eos:
        require(low == high, f"eos=False needs texts of one length, found {low} to {high} tokens")
    width = high + with_eos
    if with_eos and max_length is not None:
        width = max(max_length, longest + 1) if longer == "grow" else max_length
    if width > max(SANE_LENGTH, max_length or 0):
        common = int(np.quantile(found, 0.99))
        long = f"{parts[0].source}: the longest text has {longest:,} tokens (99 % have at most {common:,})"
        advice = f"set max_length (--max-length {common + 1} leaves out longer ones, --max-length {width} takes all)"
        raise InputError(f"{long}, and the longest decides about time and memory: {advice}")
    return width, with_eos


def _check_memory(parts: Sequence[TokenTexts], width: int) -> None:
    """Refuse a table that one very long line blows up."""
    rows = sum(len(part) for part in parts)
    common = int(np.quantile(np.concatenate([part.lengths for part in parts]), 0.99))
    need = f"{rows:,} texts of up to {width:,} tokens need more than {MOST_CELLS * 8 / 2**30:.0f} GiB"
    advice = f"set max_length (99 % of the texts have at most {common:,} words)"
    require(rows * width <= MOST_CELLS, f"{parts[0].source}: {need}: {advice}")


def _vocabulary(
    parts: Parts, by_split: Mapping[Split, TokenTexts], asked: CorpusOptions, with_eos: bool
) -> tuple[Vocabulary, NDArray[np.int64]]:
    """Build the vocabulary of the training part, and the table from reading ids to its ids."""
    words = parts.reader.words
    counted = np.bincount(by_split["train"].flat, minlength=len(words)).tolist()
    source = by_split["train"].source
    # Looked for in every split: in a test file, too, it would end a text in its middle.
    holds = f"{source}: the text holds {EOS!r}, which stands for the end of a text"
    require(not (with_eos and EOS in words), f"{holds}: leave it out, a line end says the same")
    if asked.mode == "bpe":  # every byte is a token, whether it occurs or not
        pieces = sorted(words, key=lambda piece: (-counted[words[piece]], piece))
        tokens = (*[EOS] * with_eos, *pieces)
        eos = 0 if with_eos else None
        vocabulary = Vocabulary(tokens, mode="bpe", lower=asked.lower, eos=eos, merges=parts.merges)
        return vocabulary, _ids_of(words, vocabulary)
    counts = {word: counted[index] for word, index in words.items() if counted[index]}
    used = np.unique(np.concatenate([part.flat for part in by_split.values()]))
    rules: dict[str, Any] = {"mode": asked.mode, "lower": asked.lower}
    if asked.mode == "char":
        rules["blanks"] = parts.blanks
    if parts.subwords is not None:
        rules = {"mode": "whitespace", "lower": False}

    def build(unk: bool | Literal["auto"]) -> tuple[Vocabulary, NDArray[np.int64]]:
        """With or without an unknown word."""
        limits: dict[str, Any] = {"min_count": asked.min_count, "max_size": asked.max_vocab}
        try:
            vocabulary = Vocabulary.from_counts(counts, eos=with_eos, unk=unk, **limits, **rules)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        return vocabulary, _ids_of(words, vocabulary)

    vocabulary, ids = build("auto")
    return build(True) if (ids[used] < 0).any() else (vocabulary, ids)


def _ids_of(words: Mapping[str, int], vocabulary: Vocabulary) -> NDArray[np.int64]:
    """The ids of words in a vocabulary; -1 where a word is unknown and there is no UNK."""
    unknown = -1 if vocabulary.unk is None else vocabulary.unk
    return np.array([vocabulary.ids.get(word, unknown) for word in words], dtype=np.int64)
