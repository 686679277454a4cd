"""What an objective is: a number for each text, of a range that is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textgan_env.utils.errors import require

#: float64 (B,), a number for each text.
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Objective:
    """What texts are to be like: a function that gives each a number, the higher the better.

    Args:
        name: What tables and sentences call it.
        score: Takes B texts, returns B numbers; a text's number may depend on this text alone. To be asked in worker
            processes it must be picklable: a function of a module, or a `functools.partial` of one.
        low: The worst number; what a text gets for which the function fails.
        high: The best number; texts that have it have reached the goal.
        group: What counts as the same where texts that come again are paid less; None: the text itself.

    Raises:
        InputError: If ``low`` is not below ``high``.
    """

    name: str
    score: Callable[[Sequence[str]], Any]
    low: float = 0.0
    high: float = 1.0
    group: Callable[[str], str] | None = None

    def __post_init__(self) -> None:
        """Check the range."""
        require(
            -np.inf < self.low < self.high < np.inf,
            f"objective '{self.name}' needs a finite range with low below high, found {self.low} to {self.high}",
        )

    def __call__(self, texts: Sequence[str]) -> Any:
        """What the function says of some texts, as it comes."""
        return self.score(texts)

    def desirability(self, value_B: Floats) -> Floats:
        """Numbers as shares of the range: 0 at ``low``, 1 at ``high``, float64 (B,)."""
        return (value_B - self.low) / (self.high - self.low)
