"""The numbers that the batches of a round give to the log."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from textgan_env.utils.errors import InputError

#: What a step gives to the log: name -> number, a float or a float scalar (which may be on an accelerator).
Numbers = Mapping[str, float | Tensor]


class RoundNumbers:
    """The numbers that the steps of a round have given so far.

    Args:
        restored: Those of an earlier process: name -> numbers.
    """

    def __init__(self, restored: Mapping[str, Sequence[float]] | None = None) -> None:
        self._lists: dict[str, list[float | Tensor]] = {name: [*values] for name, values in (restored or {}).items()}

    def add(self, numbers: Numbers) -> None:
        """Take the numbers of one batch; those on an accelerator stay there until they are asked for."""
        for name, value in numbers.items():
            waiting = isinstance(value, Tensor) and value.device.type != "cpu"
            self._lists.setdefault(name, []).append(value if waiting else _finite_loss(name, float(value)))

    def lists(self) -> dict[str, list[float]]:
        """All of them: name -> numbers, in order.

        Raises:
            InputError: If a loss is not finite. (Other numbers may be: what SB3 explains of a constant is NaN.)
        """
        for name, values in self._lists.items():
            self._lists[name] = [_finite_loss(name, float(value)) for value in values]
        return {name: [float(value) for value in values] for name, values in self._lists.items()}

    def means(self) -> dict[str, float]:
        """The mean of each, exactly rounded, so that it is the same on every machine."""
        return {name: math.fsum(values) / len(values) for name, values in self.lists().items()}


def _finite_loss(name: str, value: float) -> float:
    """The value; a sentence where it is a loss that is not finite."""
    if "loss" in name and not math.isfinite(value):
        raise InputError(f"{name} is {value}: try a smaller learning rate")
    return value
