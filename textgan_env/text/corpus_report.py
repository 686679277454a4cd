"""What became of every line of a corpus."""

from collections.abc import Mapping
from dataclasses import dataclass

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

    def advice(self) -> list[str]:
        """What may disappoint in this corpus, a sentence each, and what to do about it; often nothing.

        The limits are rules of thumb.
        """
        median, common, longest = (self.lengths[name] for name in ("median", "99 %", "longest"))
        train, share = self.texts["train"], max(self.unknown.values())
        cases = [
            (train < 1000, f"few texts to learn from ({train:,}): what is written will copy them or be broken"),
            (median == 1, "most texts are one token: where no blanks stand between words, set mode to char"),
            (
                self.max_length > 2 * common + 20,
                f"one text is much longer than the rest ({longest:,} tokens; 99 % have at most {common:,}), and the "
                f"longest decides about time and memory: set max_length to {common + 1}",
            ),
            (
                median > 60,
                f"texts are long (half of them {median:,} tokens or more), which is slow and hard to learn: better one "
                "sentence a line, or a smaller max_length",
            ),
            (
                self.dropped > self.lines / 10,
                f"{self.dropped:,} texts are longer than max_length and dropped: to keep their beginnings, set longer "
                "to cut",
            ),
            (
                share > 0.1,
                f"{share:.0%} of the words in a split are unknown, as the training part does not have them: more text "
                "helps, or set mode to char",
            ),
        ]
        return [sentence for applies, sentence in cases if applies]

    def rows(self) -> list[tuple[str, str]]:
        """The same for a table: what it is, and how much."""
        splits = ", ".join(f"{name} {count:,}" for name, count in self.texts.items())
        unknown = ", ".join(f"{name} {share:.2%}" for name, share in self.unknown.items())
        left_out = {"blank": self.blank, "copies": self.duplicates, "too long": self.dropped}
        lengths = ", ".join(f"{name} {length:,}" for name, length in self.lengths.items())
        end = "" if self.fixed_length else " with the end token"
        return [
            ("lines", f"{self.lines:,}"),
            ("left out", ", ".join(f"{name} {count:,}" for name, count in left_out.items())),
            ("cut", f"{self.cut:,}"),
            ("texts", splits),
            ("tokens of a text", f"{lengths}; T = {self.max_length:,}{end}"),
            ("vocabulary", f"{self.vocabulary:,} tokens; of {self.words:,} words, {self.once:,} occur only once"),
            ("unknown words", unknown),
        ]

    def __str__(self) -> str:
        """The same as a few sentences."""
        too_long = f"{self.dropped:,} too long and dropped, {self.cut:,} too long and cut"
        losses = f"{self.blank:,} blank, {too_long}, {self.duplicates:,} copies left out"
        splits = (f"{name} {count:,} ({self.unknown[name]:.2%} unknown words)" for name, count in self.texts.items())
        length = f"exactly {self.max_length} tokens" if self.fixed_length else f"at most {self.max_length} tokens"
        overlap = f" {self.overlap:,} held-out texts also stand in the training part." if self.overlap else ""
        return (
            f"{self.source}: {self.lines:,} lines, {losses}. Texts of {length}: {', '.join(splits)}. "
            f"{self.vocabulary:,} tokens in the vocabulary ({self.words:,} words in the training part).{overlap}"
        )
