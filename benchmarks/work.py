"""What a piece of training is that `benchmarks.throughput` times, and how large."""

from collections.abc import Callable
from dataclasses import dataclass

Run = Callable[[int], object]
LETTERS = {"rows": "B", "rollouts": "N", "max_length": "T", "vocab_size": "V"}


@dataclass(frozen=True)
class Sizes:
    """How large the pieces are."""

    rows: int = 64
    """B, also the texts of a step of D (half real, half written) and of maximum likelihood."""
    rollouts: int = 16
    """N of SeqGAN's generator step."""
    leakgan_rollouts: int = 4
    """N of LeakGAN's step, which takes Q after every c-th token."""
    max_length: int = 20
    """T."""
    vocab_size: int = 5000
    """V."""
    hidden_size: int = 32
    """Of embedding and LSTM."""
    samples: int = 10_000
    """Texts that are written in one go."""
    envs: int = 1024
    """Environments side by side where their steps are counted."""
    device: str = "cpu"
    """cpu, cuda ..."""


@dataclass(frozen=True)
class Work:
    """One piece, ours and plain; both take the number of the turn, from which their draws follow.

    Attributes:
        ours: Does it our way.
        plain: Does it plainly, or None.
        count: How much ours deals with, in ``unit``.
        unit: For example "texts".
        sizes: Those that matter.
        plain_count: How much the plain one deals with, where that is less; the ratio is one of speeds.
    """

    ours: Run
    plain: Run | None
    count: int
    unit: str
    sizes: str
    plain_count: int | None = None
