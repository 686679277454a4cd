"""What a run does, in which order: named phases of counted rounds, whose steps a run can be stopped after.

A step may have several batches. Each batch is one call of a method of the agent, and the unit that a run can be stopped
after and resumed from: all that the batches of a step share follows from the step's seed, and is made again.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from textgan_env.ops.sampling import derived_seed, seeded
from textgan_env.runs.numbers import Numbers, RoundNumbers
from textgan_env.utils.errors import require

Item = TypeVar("Item")


@dataclass
class Memory:
    """What the batches of one step share.

    Attributes:
        items: Gives each batch what it works on; None before the first batch that this process does.
        random: State of torch's global generators after the last batch, name -> uint8; the only part in checkpoints.
    """

    items: Iterator[Any] | None = None
    random: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """What a method of an agent is called with: one batch of a step.

    Attributes:
        seed: What all random draws of the step follow from.
        round: Which round of the phase, from 0.
        repeat: Which time in the round, from 0.
        batch: Which batch of the step, from 0.
        batches: How many batches it has.
        memory: What its batches share.
    """

    seed: int
    round: int = 0
    repeat: int = 0
    batch: int = 0
    batches: int = 1
    memory: Memory = field(default_factory=Memory)

    @cached_property
    def generator(self) -> torch.Generator:
        """A generator that begins with the step: the same numbers in each batch. `item` has one of its own."""
        return torch.Generator().manual_seed(self.seed)

    @property
    def is_last(self) -> bool:
        """Whether this is the last batch of the step."""
        return self.batch == self.batches - 1

    @property
    def done(self) -> int:
        """How many batches of such steps the phase had before this one, where a round has one such step."""
        return self.round * self.batches + self.batch

    def item(self, make: Callable[[torch.Generator], Iterator[Item]]) -> Item:
        """What this batch works on: the next of an iterator that all batches share.

        After a resume the iterator is made again and wound forward, so what it gives may follow from the generator, and
        from what the batches of the step leave as it is.

        Args:
            make: Makes the iterator; it may draw from the generator at any time.
        """
        memory = self.memory
        if memory.items is None:
            memory.items = islice(make(torch.Generator().manual_seed(self.seed)), self.batch, None)
        item: Item = next(memory.items)
        return item

    @contextmanager
    def dropout(self, seed: int | None) -> Iterator[None]:
        """Inside, torch's global generators are the step's own; dropout has no other. Outside they do not move.

        Args:
            seed: Where they begin; None: where the batch before left them.
        """
        with seeded(0 if seed is None else seed):
            if seed is None:
                _set_global_random_state(self.memory.random)
            yield
            self.memory.random = _global_random_state()


@dataclass(frozen=True)
class Steps:
    """Steps of one kind in a round.

    Attributes:
        run: A method of the agent: takes a `Step`, does one batch, and returns numbers to log.
        times: How many such steps.
        batches: How many batches each step has.
        every: Rounds from one to the next; with 2, every second round of the phase has them.
        key: What the random draws follow from, beside seed, phase, round and repeat; "": the method's name.
    """

    run: Callable[[Step], Numbers]
    times: int = 1
    batches: int = 1
    every: int = 1
    key: str = ""

    @property
    def name(self) -> str:
        """What it is called: its key, or the method's name."""
        return self.key or getattr(self.run, "__name__", "step")

    def alone(self, seed: int) -> dict[str, float]:
        """Do one step without a run around it; returns the means of its numbers."""
        numbers, memory = RoundNumbers(), Memory()
        for batch in range(self.batches):
            numbers.add(self.run(Step(seed, batch=batch, batches=self.batches, memory=memory)))
        return numbers.means()


@dataclass(frozen=True)
class Phase:
    """A named part of a schedule.

    Attributes:
        name: For example "mle" or "adversarial".
        rounds: How many rounds it has at most; log rows stand between rounds.
        steps: What one round does, in order.
        at_end: What the last round does after them.
        until: Asked after each round: whether the phase is over before it has all its rounds.
    """

    name: str
    rounds: int
    steps: tuple[Steps, ...]
    at_end: tuple[Steps, ...] = ()
    until: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Round:
    """One round of a phase.

    Attributes:
        phase: The phase.
        index: Which round of the phase, from 0.
        number: Which round of the run, from 1.
    """

    phase: Phase
    index: int
    number: int

    @property
    def is_last(self) -> bool:
        """Whether the phase is over after it; known when the steps of the round are done."""
        return self.index == self.phase.rounds - 1 or self.phase.until()

    @property
    def batches(self) -> int:
        """How many batches it has; those that follow the last round of a phase are not counted."""
        return sum(steps.times * steps.batches for steps in self.phase.steps if (self.index + 1) % steps.every == 0)

    def steps(
        self, seed: int, done: int = 0, random: Mapping[str, Tensor] | None = None
    ) -> Iterator[tuple[Steps, Step]]:
        """The batches of the round, in order.

        Args:
            seed: The run's.
            done: How many batches are done.
            random: `Memory.random` of the step in whose middle the run was stopped.
        """
        number, memory = 0, Memory(random=dict(random or {}))
        for at_end in (False, True):
            if at_end and not (self.phase.at_end and self.is_last):
                return
            for steps in self.phase.at_end if at_end else self.phase.steps:
                is_due = at_end or (self.index + 1) % steps.every == 0
                for at in range(steps.times * steps.batches if is_due else 0):
                    repeat, batch = divmod(at, steps.batches)
                    number += 1
                    if number <= done:
                        continue
                    if batch == 0:
                        memory = Memory()
                    own = derived_seed(seed, self.phase.name, self.index, steps.name, repeat)
                    yield steps, Step(own, self.index, repeat, batch, steps.batches, memory)

    def __str__(self) -> str:
        return f"round {self.index + 1} of {self.phase.rounds} ({self.phase.name})"


class Schedule:
    """Phases one after the other, as rounds that are counted through the whole run.

    Args:
        phases: In order; a phase of 0 rounds is left out.

    Raises:
        InputError: If a phase has a negative number of rounds, two have one name (the name seeds its random numbers),
            or there is no round at all.
    """

    def __init__(self, phases: tuple[Phase, ...]) -> None:
        for phase in phases:
            require(phase.rounds >= 0, f"phase '{phase.name}' must have at least 0 rounds, found {phase.rounds}")
        names = [phase.name for phase in phases]
        require(len(set(names)) == len(names), f"phases must have different names, found {', '.join(names)}")
        self.phases = phases
        self.rounds = sum(phase.rounds for phase in phases)
        require(self.rounds >= 1, "nothing to do: every phase of the schedule has 0 rounds")
        # Those after it have no rounds: the run ends with this one, however many of its rounds it has.
        self.last_phase = [phase for phase in phases if phase.rounds][-1]

    def after(self, done: int) -> Iterator[Round]:
        """The rounds that are left when ``done`` rounds of the run are; those of a phase that is over are left out."""
        number = 0
        for phase in self.phases:
            for index in range(phase.rounds):
                number += 1
                if number > done and not (index and phase.until()):
                    yield Round(phase, index, number)


class Patience(nn.Module):
    """Says when a phase has stopped helping; its memory is in checkpoints like any module's weights.

    Args:
        rounds: Rounds without a better value after which it is over; 0: never.
    """

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.best = nn.Buffer(torch.tensor(math.inf, dtype=torch.float64))
        self.rounds_since = nn.Buffer(torch.tensor(0))

    def note(self, value: float) -> None:
        """Take the value of a round; lower is better."""
        better = value < float(self.best)
        self.rounds_since.copy_(torch.zeros_like(self.rounds_since) if better else self.rounds_since + 1)
        self.best.clamp_(max=value)

    def over(self) -> bool:
        """Whether the last rounds brought nothing."""
        return 0 < self.rounds <= int(self.rounds_since)


def _global_random_state() -> dict[str, Tensor]:
    """State of torch's global generators, by name."""
    state = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state |= {f"random.cuda.{index}": value for index, value in enumerate(torch.cuda.get_rng_state_all())}
    return state


def _set_global_random_state(state: Mapping[str, Tensor]) -> None:
    """Put back what `_global_random_state` gave."""
    torch.set_rng_state(state["random.cpu"])
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"random.cuda.{index}" in state:
            torch.cuda.set_rng_state(state[f"random.cuda.{index}"], index)
