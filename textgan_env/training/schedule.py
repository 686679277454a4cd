"""What a run does, in which order: named phases of counted rounds."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from textgan_env.utils.errors import require


@dataclass(frozen=True)
class Phase:
    """A named part of a schedule.

    Attributes:
        name: For example "mle" or "adversarial".
        rounds: How many rounds it has; checkpoints and log rows stand between rounds.
        steps: What one round does: (method of the agent, how many times), in order.
        last_step: A method of the agent that the last round ends with, or "".
    """

    name: str
    rounds: int
    steps: tuple[tuple[str, int], ...]
    last_step: str = ""

    def steps_of(self, index: int) -> tuple[tuple[str, int], ...]:
        """What round ``index`` does."""
        is_last = index == self.rounds - 1
        return (*self.steps, (self.last_step, 1)) if self.last_step and is_last else self.steps


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

    def steps(self) -> list[tuple[str, int]]:
        """(method of the agent, which time in the round, from 0), in order."""
        named = self.phase.steps_of(self.index)
        return [(name, repeat) for name, times in named for repeat in range(times)]

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

    def after(self, done: int) -> Iterator[Round]:
        """The rounds that are left when ``done`` rounds of the run are."""
        number = 0
        for phase in self.phases:
            for index in range(phase.rounds):
                number += 1
                if number > done:
                    yield Round(phase, index, number)


class Patience(nn.Module):
    """Says when a phase has stopped helping; its memory is in checkpoints like any module's weights.

    Args:
        rounds: Rounds without a better value after which it is over; 0: never.
    """

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.best: torch.Tensor
        self.rounds_since: torch.Tensor
        self.register_buffer("best", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("rounds_since", torch.tensor(0))

    def note(self, value: float) -> None:
        """Take the value of a round; lower is better."""
        better = value < float(self.best)
        self.rounds_since.copy_(torch.zeros_like(self.rounds_since) if better else self.rounds_since + 1)
        self.best.clamp_(max=value)

    @property
    def over(self) -> bool:
        """Whether the last rounds brought nothing."""
        return 0 < self.rounds <= int(self.rounds_since)
