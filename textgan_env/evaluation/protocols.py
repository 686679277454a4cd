"""Ways of measuring BLEU."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BleuProtocol:
    """How a code base measures BLEU: numbers compare within one protocol, and at equal word rules, only.

    Attributes:
        about: In a sentence, for those who read the numbers.
        texts: How many of the texts, from the first on, are scored; None: as many as is said beside.
        references: How many texts of the split are references, from the first on; None: all.
        self_texts: How many of the texts, from the first on, Self-BLEU compares; 0: there is no Self-BLEU.
        smoothing: Whether an order without a match counts a tenth of one, instead of making the score 0.
    """

    about: str
    texts: int | None
    references: int | None
    self_texts: int | None
    smoothing: bool


#: By name; `ours` is what this project measures with.
PROTOCOLS = {
    "ours": BleuProtocol("nltk sentence BLEU, smoothing method 1", None, None, None, True),
    "texygen": BleuProtocol(
        "as Texygen's code in its fast way: nltk sentence BLEU, smoothing method 1; all texts against the first 500 "
        "references; Self-BLEU of the first 500 texts", 10**9, 500, 500, True,
    ),
    "leakgan": BleuProtocol(
        "as LeakGAN's eval_bleu.py: nltk sentence BLEU without smoothing, 2,000 texts (ours: the first) against the "
        "whole split; it has no Self-BLEU", 2_000, None, 0, False,
    ),
}  # fmt: skip
