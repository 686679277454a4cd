"""What became of every line of a corpus."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from textgan_env.text.dataset import Split


@dataclass(frozen=True)
class CorpusReport:
    """What became of every line.

    Attributes:
        source: The files (or "texts") the corpus was read from.
        lines: Lines read.
        blank: Lines without a token, skipped.
        dropped: Texts longer than T, left out.
        cut: Texts longer than T, cut to it; they carry no EOS, as their end is not there.
        duplicates: Copies of an earlier text of the main file, left out.
        overlap: Texts of files of their own that also stand in the training part; they stay.
        texts: Texts in each split.
        unknown: Share of the words of each split that are unknown, 0..1.
        words: Different words in the training part, before any limit.
        vocabulary: V, EOS and UNK counted.
        max_length: T, EOS counted.
        fixed_length: Whether every text has T tokens, so that there is no EOS.
        once: How many of these words occur only once there.
        lengths: Tokens of a text before any is dropped or cut, EOS not counted: "shortest", "median", "99 %" (as many
            texts have at most this many) and "longest".
        files: What each file was found to be.
        changed: What reading changed in lines -> in how many of them.
        hints: What is not sure about the text, see `textgan_env.text.hints`.
    """

    source: str
    lines: int
    blank: int
    dropped: int
    cut: int
    duplicates: int
    overlap: int
    texts: Mapping[Split, int]
    unknown: Mapping[Split, float]
    words: int
    vocabulary: int
    max_length: int
    fixed_length: bool
    once: int
    lengths: Mapping[str, int]
    files: tuple[str, ...] = ()
    changed: Mapping[str, int] = field(default_factory=dict)
    hints: tuple[str, ...] = ()

    def advice(self) -> list[str]:
        """What may disappoint in this corpus, a sentence each, and what to do about it; often nothing.

        The limits are rules of thumb.
        """
        median, common, longest = (self.lengths[name] for name in ("median", "99 %", "longest"))
        train, share = self.texts["train"], max(self.unknown.values())
        notes = list(self.hints)
        if train < 1000:
            notes.append(f"few texts to learn from ({train:,}): the policy will copy them or generate broken ones")
        if median == 1:
            notes.append("most texts are one token: if no blanks stand between words, set mode to char (--mode char)")
        if self.max_length > 2 * common + 20:
            rest = f"one text is much longer than the rest ({longest:,} tokens; 99 % have at most {common:,})"
            notes.append(f"{rest}, which costs time and memory: set max_length (--max-length {common + 1})")
        if median > 60:
            long = f"texts are long (half of them {median:,} tokens or more), which is slow and hard to learn"
            notes.append(f"{long}: better one sentence a line, or a smaller max_length (--max-length)")
        if self.dropped > self.lines / 10:
            dropped = f"{self.dropped:,} texts are longer than max_length and left out"
            notes.append(f"{dropped}: to keep their beginnings, set longer to cut (--longer cut)")
        if share > 0.1:
            unknown = f"{share:.0%} of the words in a split are unknown, as the training part does not have them"
            notes.append(f"{unknown}: more text helps, or set mode to char (--mode char)")
        return notes

    def rows(self) -> list[tuple[str, str]]:
        """The same for a table: what it is, and how much."""
        changed = ", ".join(f"{what} {count:,}" for what, count in self.changed.items())
        splits = ", ".join(f"{name} {count:,}" for name, count in self.texts.items())
        unknown = ", ".join(f"{name} {share:.2%}" for name, share in self.unknown.items())
        left_out = {"blank": self.blank, "copies": self.duplicates, "too long": self.dropped}
        lengths = ", ".join(f"{name} {length:,}" for name, length in self.lengths.items())
        overlap = f"{self.overlap:,} held-out texts also stand in the training part"
        end = "" if self.fixed_length else " with the end token"
        return [
            *(("file", file) for file in self.files),
            ("lines", f"{self.lines:,}"),
            ("changed", changed or "nothing"),
            ("left out", ", ".join(f"{name} {count:,}" for name, count in left_out.items())),
            ("cut to T tokens", f"{self.cut:,}"),
            ("texts", splits),
            ("tokens of a text", f"{lengths}; T = {self.max_length:,}{end}"),
            ("vocabulary", f"{self.vocabulary:,} tokens; of {self.words:,} in train texts, {self.once:,} occur once"),
            ("unknown words", unknown),
            *([("overlap", overlap)] if self.overlap else []),
        ]

    def __str__(self) -> str:
        """The same in one line."""
        return f"{self.source}: " + "; ".join(f"{name}: {said}" for name, said in self.rows() if name != "file")
