"""Long loops inside a step of training, in the middle of which a checkpoint can stand.

A step is a method of an agent, and may take minutes: an epoch over the texts, a refit of D. Its loop goes through
`each`. Alone, `each` is a plain loop. In a run (`watched`), it tells after each item that the run could be saved here,
and a run that goes on from there calls the method again, which skips the items that are done.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor

from textgan_env.ops.sampling import seeded
from textgan_env.utils.errors import InputError

Item = TypeVar("Item")


class StepLoops:
    """How far the loops of one step have come.

    Args:
        boundary: Called after each item, where `saved` may be asked for.
        restored: What `saved` gave to the checkpoint that the run goes on from.
    """

    def __init__(self, boundary: Callable[[], None], restored: Mapping[str, Tensor] | None = None) -> None:
        self._boundary = boundary
        self._restored = dict(restored or {})
        self._random = {name: value for name, value in self._restored.items() if name.startswith("random.")}
        self._loops: list[_Loop] = []
        self._moved = False

    def saved(self) -> dict[str, Tensor]:
        """The numbers of all items so far, and the global generators inside the loop that runs, as tensors by name.

        Raises:
            InputError: If one of the numbers is not finite.
        """
        if not self._moved:
            return dict(self._restored)
        loops = {f"loop.{index}": loop.numbers() for index, loop in enumerate(self._loops)}
        return loops | _global_random_state()

    def run(self, loop: "_Loop", items: Iterable[Item], do: Callable[[Item], "Numbers"]) -> None:
        """Do what is left of the next loop."""
        before = self._restored.get(f"loop.{len(self._loops)}")
        goes_on = before is not None and f"loop.{len(self._loops) + 1}" not in self._restored
        self._loops.append(loop)
        if before is not None:
            loop.restored_NK = before
        done = len(loop.restored_NK)
        for number, item in enumerate(items):
            if number < done:
                continue
            if number == done and goes_on:
                _set_global_random_state(self._random)
            with watched(None):
                loop.new.append(do(item))
            self._moved = True
            self._boundary()


#: What one item of a loop gives: float scalars.
Numbers = Sequence[Tensor | float]

_watching: ContextVar[StepLoops | None] = ContextVar("watching", default=None)


@contextmanager
def watched(loops: StepLoops | None) -> Iterator[None]:
    """Let the loops inside report to ``loops``; to nobody where that is None."""
    token = _watching.set(loops)
    try:
        yield
    finally:
        _watching.reset(token)


def each(
    items: Iterable[Item], do: Callable[[Item], Numbers], names: Sequence[str], *, seed: int
) -> dict[str, list[float]]:
    """Do something with each item, from generators seeded for the loop; the loop may be stopped and gone on with.

    So that it can be, all that changes from item to item must be in the run's checkpoint (weights, optimizers) or in
    torch's global generators, and what the method does before the loop must be without effect the second time.
    ``items`` may draw from the method's own generator, ``do`` must not.

    Args:
        items: Gone through once, in the same order whenever the step is taken.
        do: Returns the item's numbers, float scalars.
        names: What they are.
        seed: Of dropout and whatever else in ``do`` has no generator argument.

    Returns:
        The numbers of all items by name, in order.

    Raises:
        InputError: If one is not finite; it names the number and the item.
    """
    watching = _watching.get()
    loop = _Loop(names)
    with seeded(seed):
        if watching is None:
            loop.new.extend(map(do, items))
        else:
            watching.run(loop, items, do)
    columns_KN = loop.numbers().t().tolist()
    return dict(zip(names, columns_KN, strict=True))


class _Loop:
    """The numbers of a loop: those of the run before, and those since, which may still be on an accelerator."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.restored_NK = torch.empty(0, len(names), dtype=torch.float64)
        self.new: list[Numbers] = []

    def numbers(self) -> Tensor:
        """All of them: float64 (N, K), on the CPU."""
        if self.new:
            columns = [
                torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in column])
                for column in zip(*self.new, strict=True)
            ]
            new_NK = torch.stack([column.cpu() for column in columns], dim=1)
            _require_finite(new_NK, self.names, first=len(self.restored_NK) + 1)
            self.restored_NK, self.new = torch.cat([self.restored_NK, new_NK]), []
        return self.restored_NK


def _require_finite(numbers_NK: Tensor, names: Sequence[str], first: int) -> None:
    wrong = (~torch.isfinite(numbers_NK)).nonzero()
    if len(wrong):
        row, column = wrong[0].tolist()
        value = float(numbers_NK[row, column])
        raise InputError(f"{names[column]} is {value} in batch {first + row}: try a smaller learning rate")


def mean(values: Sequence[float]) -> float:
    """The mean, exactly rounded, so that it is the same on every machine."""
    return math.fsum(values) / len(values)


def _global_random_state() -> dict[str, Tensor]:
    state = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state |= {f"random.cuda.{index}": value for index, value in enumerate(torch.cuda.get_rng_state_all())}
    return state


def _set_global_random_state(state: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(state["random.cpu"])
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if f"random.cuda.{index}" in state:
                torch.cuda.set_rng_state(state[f"random.cuda.{index}"], index)
