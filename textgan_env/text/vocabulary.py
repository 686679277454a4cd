"""From text to token ids and back, without torch."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Literal, Self, get_args

from textgan_env.text.smiles import split_smiles, without_name
from textgan_env.text.subwords import Subwords
from textgan_env.utils.errors import InputError, require, require_at_least, require_known
from textgan_env.utils.reading import parse_json, read_typed
from textgan_env.utils.text_options import Blanks, Mode

#: All modes, see `tokenize`.
MODES: tuple[str, ...] = get_args(Mode)
#: The end token, where texts may end early.
EOS = "<eos>"
#: The unknown word.
UNK = "<unk>"
_MOST_MARKS = 500  # on one letter
_JSON_FIELDS = ("mode", "lower", "eos", "unk", "tokens")
_BLANKS = ("keep", "apart", "line")
_LINE_END = re.compile("\r\n|[\r\n]")

# Characters that are always a token of their own: brackets, signs, curly and angular quotes, long dashes.
_ALONE = r"\[\](){}<>;@#$%&?!*\u00ab\u00bb\u2018\u2019\u201c\u201d\u201e\u2012-\u2015"
# What may follow the dot that ends a line: closing brackets and quotes.
_TO_THE_END = r"[\])}>'\u00bb\u2019\u201d\s]*$"
# The second of two commas or colons, which nltk leaves on the word behind it ("coffee,,and": coffee , ,and).
_SECOND = r"(?<=[^:,][:,])[:,]"
# A piece of a line is the first of these that fits.
_PIECE = re.compile(
    "|".join(
        (
            "<(?:unk|eos)>",
            r"\.{2,}|--|`+|''",
            rf"[{_ALONE}]",
            rf"(?!{_SECOND})[:,](?!\d)",  # before a digit they stay inside: 3,000 and 12:30
            rf"\.(?={_TO_THE_END})",  # other single dots stay inside: u.s.a and 3.14
            rf"(?:[^\s.,:\-'`{_ALONE}]|\.(?!\.|{_TO_THE_END})|{_SECOND}|[:,](?=\d)|-(?!-)|'(?!'))+",
        )
    )
)
_OPENING_DOUBLE = re.compile(r'(?:^|(?<=[\s(\[{<]))"')
_OPENING_SINGLE = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", re.IGNORECASE)
_SHORT_CLITIC = re.compile(r"(.*[^'])('[smd]?)", re.IGNORECASE)
_LONG_CLITIC = re.compile(r"(.*[^'])('ll|'re|'ve|n't)", re.IGNORECASE)
# Two words written as one, and the length of the first.
_WRITTEN_AS_ONE = {
    "cannot": 3, "d'ye": 1, "gimme": 3, "gonna": 3, "gotta": 3, "lemme": 3, "more'n": 4, "wanna": 3,
}  # fmt: skip


def prepare(line: str, mode: Mode = "word", lower: bool = False) -> str:
    """Bring one line into the form in which it is split: what `tokenize` does first.

    Args:
        line: The text.
        mode: The rules; ``"bpe"`` leaves every code point as it is, ``"smiles"`` leaves out what follows a blank.
        lower: Whether to make the text lower case.

    Raises:
        InputError: If a letter has hundreds of accents.
    """
    if mode == "smiles":
        line = without_name(line)
    if lower:
        line = line.lower()
    if mode != "bpe" and not line.isascii():
        _check_marks(line)
        line = unicodedata.normalize("NFC", line)  # after lower(), which takes some letters apart
    return line


def tokenize(line: str, mode: Mode = "word", lower: bool = False, blanks: Blanks = "keep") -> list[str]:
    """Split one line of text into tokens.

    The line is first brought to Unicode's composed form (NFC), so that two spellings of the same visible text ("é" as
    one code point, or as "e" and an accent) are the same token. Line ends around it are left out.

    - ``"word"``: the Penn Treebank's word rules as nltk's `NLTKWordTokenizer` has them (`nltk.word_tokenize`
      on one sentence): punctuation apart, ``don't`` as ``do n't``, straight double quotes as two backticks or
      two apostrophes. Equal to nltk on every line of the field's COCO and EMNLP files; on odd text it can
      differ, where nltk's rules trip over each other. ``<unk>`` and ``<eos>`` stay whole.
    - ``"char"``: one token a character (code point), blanks by ``blanks``.
    - ``"whitespace"``: what stands between blanks, untouched.
    - ``"smiles"``: of a molecule, atom by atom (`textgan_env.text.smiles.split_smiles`); a name behind it is left out.

    Byte pairs are a vocabulary's own: `Vocabulary.tokenize`.

    Args:
        line: The text.
        mode: The rules.
        lower: Whether to make the text lower case first.
        blanks: In mode char, ``"keep"``: every blank is a token; ``"apart"``: none is; ``"line"``: none in a line that
            is written as single characters apart ("a b c"), else one for each run.

    Returns:
        The tokens; none is empty. A line of blanks has none, unless blanks are tokens.

    Raises:
        InputError: If mode or blanks are unknown, or a letter has hundreds of accents.
    """
    line = prepare(line, mode, lower)
    if mode == "word":
        return _words(line)
    apart = line.split()
    if mode == "whitespace":
        return apart
    if mode == "smiles":
        return split_smiles(line)
    require_known("token mode", mode, [name for name in MODES if name != "bpe"])
    require_known("rule for blanks", blanks, _BLANKS)
    if blanks == "keep":
        return list(line.strip("\r\n"))
    if blanks == "line" and not written_apart(line):
        return list(" ".join(apart))
    return list("".join(apart))


def written_apart(line: str) -> bool:
    """Whether a line is written as single characters with blanks between them; so is a line of blanks."""
    return all(len(part) == 1 for part in line.split())


def one_line(text: str) -> str:
    """A text without the line ends around it, and with a blank for each inside it."""
    return _LINE_END.sub(" ", text.strip("\r\n"))


def _check_marks(line: str) -> None:
    """Refuse what is no writing: ordering the marks over one letter takes time that grows with their square."""
    if len(line) <= _MOST_MARKS:
        return
    runs = groupby(line, key=lambda character: unicodedata.combining(character) > 0)
    longest = max((sum(1 for _ in run) for is_mark, run in runs if is_mark), default=0)
    require(longest <= _MOST_MARKS, f"a letter has {longest:,} accents or other marks, expected at most {_MOST_MARKS}")


def _words(line: str) -> list[str]:
    """Words by the rules of the Penn Treebank."""
    if '"' in line:
        line = _OPENING_DOUBLE.sub(" `` ", line).replace('"', " '' ")
    words: list[str] = []
    for piece in _PIECE.findall(line):
        for word in _split_apostrophes(piece) if "'" in piece else (piece,):
            first = _WRITTEN_AS_ONE.get(word.lower())
            words += (word,) if first is None else (word[:first], word[first:])
    return words


def _split_apostrophes(piece: str) -> list[str]:
    """``'hello`` becomes ``' hello``, ``dogs'`` ``dogs '``, ``can't`` ``ca n't``."""
    words: list[str] = []
    for head in _OPENING_SINGLE.sub("' ", piece).split():
        tail: list[str] = []
        for pattern in (_SHORT_CLITIC, _LONG_CLITIC):
            if found := pattern.fullmatch(head):
                head = found[1]
                tail.insert(0, found[2])
        words += [head, *tail]
    return words


_CLOSING = r"[.,!?;:%)\]}]|\.{2,}|''|'(?:s|m|d|ll|re|ve)|n't"
_NO_BLANK_BEFORE = re.compile(rf" (?=(?:{_CLOSING})(?: |$))", re.IGNORECASE)
_NO_BLANK_AFTER = re.compile(r"(?:^|(?<= ))([(\[{$#]|``) ")


@dataclass(frozen=True)
class Vocabulary:
    """The V tokens that can be written, with ids 0..V-1; PAD = V fills what comes after the end of a text.

    Attributes:
        tokens: The V tokens; a token's place is its id. The place of the end of text holds ``"<eos>"``, that
            of the unknown word ``"<unk>"``.
        mode: How a line is split into tokens (`tokenize`); ``"bpe"``: into byte pairs, which are the tokens.
        lower: Whether text is made lower case.
        eos: The id of the end of text; None where every text has the same length and needs no end.
        unk: The id of the unknown word; None where every word is known.
        blanks: What blanks are in mode char, see `tokenize`.
        merges: Of mode bpe: which two byte pairs make a new one, see `Subwords.of_pairs`.

    Raises:
        InputError: If fewer than two words stand beside EOS and UNK, a token is empty or comes twice, an id
            is not that of its token, or mode or blanks are unknown.
    """

    tokens: tuple[str, ...]
    mode: Mode = "word"
    lower: bool = False
    eos: int | None = None
    unk: int | None = None
    blanks: Blanks = "keep"
    merges: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no vocabulary."""
        require_known("token mode", self.mode, MODES)
        require_known("rule for blanks", self.blanks, _BLANKS)
        for name, index, token in (("eos", self.eos, EOS), ("unk", self.unk, UNK)):
            if index is not None:
                here = self.tokens[index] if 0 <= index < self.size else None
                require(here == token, f"the vocabulary's {name} id {index} must be {token!r}, found {here!r}")
        words = self.size - (self.eos is not None) - (self.unk is not None)
        require(words >= 2, f"the vocabulary needs at least two different words, found {words}")
        require(all(self.tokens), "the vocabulary holds an empty token")
        if len(self.ids) < self.size:
            twice = Counter(self.tokens).most_common(1)[0][0]
            raise InputError(f"the vocabulary holds the token {twice!r} twice")

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[str, int],
        *,
        mode: Mode = "word",
        lower: bool = False,
        blanks: Blanks = "keep",
        min_count: int = 1,
        max_size: int | None = None,
        eos: bool = True,
        unk: bool | Literal["auto"] = "auto",
    ) -> Self:
        """Build the vocabulary of counted words.

        EOS and UNK, where there are any, get the first ids; then the words by falling count, equal counts in
        alphabetical order. A word ``<unk>`` in the text (some corpora come with it) counts as an unknown one.

        Args:
            counts: How often each word occurs.
            mode: How the words were split off (`tokenize`).
            lower: Whether they were made lower case.
            blanks: What blanks were in mode char.
            min_count: Rarer words are left out.
            max_size: At most this many tokens, V, with EOS and UNK among them; the rarest words are left out.
            eos: Whether there is an end of text.
            unk: Whether there is a token for unknown words; ``"auto"``: if some word is left out.

        Raises:
            InputError: If fewer than two words are left, a number is not positive, or the text holds the word
                ``<eos>`` which here means its end.
        """
        require_at_least(1, min_count=min_count, max_size=max_size)
        require(not (eos and EOS in counts), f"the text holds {EOS!r}, which stands for the end of a text")
        kept = [word for word in counts if counts[word] >= min_count and (word != UNK or unk is False)]
        kept.sort(key=lambda word: (-counts[word], word))
        room = len(kept) if max_size is None else max_size - eos
        some_left_out = min(len(kept), room) < len(counts)
        with_unk = some_left_out if unk == "auto" else unk
        if max_size is not None:
            kept = kept[: max(0, room - with_unk)]
        special = [EOS] * eos + [UNK] * with_unk
        eos_id, unk_id = (0 if eos else None), (int(eos) if with_unk else None)
        return cls((*special, *kept), mode=mode, lower=lower, eos=eos_id, unk=unk_id, blanks=blanks)

    @property
    def size(self) -> int:
        """V, the number of tokens that can be written."""
        return len(self.tokens)

    @property
    def pad(self) -> int:
        """The id after the end of a text, V; never an action."""
        return len(self.tokens)

    @property
    def words(self) -> tuple[str, ...]:
        """The tokens that are words (or characters): all but EOS and UNK, the most frequent first."""
        return tuple(token for index, token in enumerate(self.tokens) if index not in (self.eos, self.unk))

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token -> its id."""
        return {token: index for index, token in enumerate(self.tokens)}

    def tokenize(self, line: str) -> list[str]:
        """Split a line as this vocabulary's texts were split."""
        line = one_line(line)
        if self.mode == "bpe":
            return self.subwords.tokenize(prepare(line, self.mode, self.lower))
        return tokenize(line, self.mode, self.lower, self.blanks)

    @cached_property
    def subwords(self) -> Subwords:
        """What splits a line in mode bpe.

        Raises:
            MissingDataError: If the package tokenizers is not installed.
        """
        return Subwords.of_pairs(self.tokens if self.eos is None else self.tokens[1:], self.merges)

    @property
    def glue(self) -> str:
        """What stands between two tokens where a text is shown as its tokens."""
        return " " if self.mode in ("word", "whitespace") else ""

    def encode(self, words: Sequence[str]) -> list[int]:
        """Give the ids of some words; no EOS is added.

        Raises:
            InputError: If a word is unknown and there is no token for unknown words, or if one string is
                given in place of a list of words.
        """
        require(not isinstance(words, str), "encode expects a list of words, found a string: tokenize it first")
        ids = [self.ids.get(word, self.unk) for word in words]
        known = [index for index in ids if index is not None]
        if len(known) < len(ids):
            word = words[ids.index(None)]
            raise InputError(f"the word {word!r} is not in the vocabulary, which has no unknown-word token")
        return known

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Give the words of some ids up to the first EOS or PAD, which is left out.

        Raises:
            InputError: If an id before the end is not in 0..V.
        """
        words = []
        for index in map(int, ids):
            if index in (self.eos, self.pad):
                break
            require(0 <= index < self.size, f"expected token ids from 0 to {self.pad} (PAD), found {index}")
            words.append(self.tokens[index])
        return words

    def join(self, words: Sequence[str]) -> str:
        """Write words as readable text: punctuation close to its word, characters without blanks.

        Characters, byte pairs and atoms are the text letter for letter. Otherwise it is for people to read; splitting
        it again need not give the same words.
        """
        if self.mode == "bpe":
            return self.subwords.join(words)
        text = self.glue.join(words)
        if self.mode != "word":
            return text
        close = _NO_BLANK_AFTER.sub(r"\1", _NO_BLANK_BEFORE.sub("", text))
        return close.replace("``", '"').replace("''", '"')

    def to_json(self) -> str:
        """Write everything as JSON; `from_json` reads it."""
        fields = {name: getattr(self, name) for name in _JSON_FIELDS}
        # Only where they say something: vocabularies of earlier versions keep their fingerprints.
        if self.mode == "char" and self.blanks != "line":
            fields["blanks"] = self.blanks
        if self.mode == "bpe":
            fields["merges"] = self.merges
        return json.dumps(fields, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            InputError: If the text is not JSON, a field is missing, unknown or of another type, or what it
                says is not a vocabulary.
        """
        fields = read_typed(dict[str, Any], parse_json(text, "the vocabulary"), "the vocabulary")
        expected, found = [*_JSON_FIELDS], ", ".join(sorted(fields))[:200]
        if fields.get("mode") == "char":
            fields, expected = {"blanks": "line"} | fields, [*expected, "blanks"]
        if fields.get("mode") == "bpe":
            expected.append("merges")
        names = f"the vocabulary's JSON must have the fields {', '.join(sorted(expected))}, found {found}"
        require(sorted(fields) == sorted(expected), names)
        return read_typed(cls, fields, "the vocabulary")

    def fingerprint(self) -> str:
        """Give 16 hexadecimal digits that differ between vocabularies (of SHA-256)."""
        return hashlib.sha256(self.to_json().encode("utf-8", "surrogatepass")).hexdigest()[:16]
