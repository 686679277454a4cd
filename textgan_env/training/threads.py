"""How many threads of the processor a new run takes, measured at its start."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from statistics import median
from time import perf_counter

import torch

from textgan_env.ops.parallel import sharded
from textgan_env.ops.sampling import seeded
from textgan_env.training.loop import Agent
from textgan_env.training.schedule import Schedule
from textgan_env.utils.errors import InputError
from textgan_env.utils.options import CommonConfig
from textgan_env.utils.printing import say

_TURNS = 5  # a batch with one thread and one with all, after a first turn that warms up
_SECONDS = 1.5  # after which no further turn begins
_CLEARLY = 0.8  # of the time with one thread; threads that gain less than this cost their processor time for little


def choose_threads(make_agent: Callable[[], Agent], config: CommonConfig) -> int:
    """All threads that torch would take, where the first batches of a run are clearly faster with them; else one.

    Threads wait for one another by spinning, so beside other busy programs they take processor time and save none. The
    batches are those of an agent that is made for this and thrown away: nothing of the run moves.

    Args:
        make_agent: Makes the agent as the run will.
        config: The run's options.

    Returns:
        How many; torch's own number is as it was.
    """
    every = torch.get_num_threads()
    if every == 1:
        return 1
    turns, began = [], perf_counter()
    try:
        # What is refused here is refused by the run, too, which says so and saves what it has.
        with seeded(0), sharded(getattr(config, "shards", None) or 1), suppress(InputError):
            agent = make_agent()
            batches = _first_batches(agent.schedule(), config.seed)
            began = perf_counter()
            for one, other in islice(zip(batches, batches, strict=False), 1 + _TURNS):
                turns.append((_seconds(one, 1), _seconds(other, every)))
                if perf_counter() - began > _SECONDS:
                    break
    finally:
        torch.set_num_threads(every)
    if not turns:
        return 1
    with_one, with_all = (median(seconds) for seconds in zip(*(turns[1:] or turns), strict=True))
    # More than so many threads can gain, another program has taken from the one: beside it, one is enough.
    disturbed = with_all < _CLEARLY * with_one / every
    chosen = every if with_all < _CLEARLY * with_one and not disturbed else 1
    found = f"a batch takes {with_all / with_one:.2f} times as long with {every} as with 1"
    why = "the first batches took too unlike times to tell" if disturbed else found
    say(f"threads: {chosen}; {why} (--threads overrides)")
    return chosen


def _first_batches(schedule: Schedule, seed: int) -> Iterator[Callable[[], object]]:
    """The first batch of a run, and those of the same kind after it."""
    kind = None
    for current in schedule.after(0):
        for steps, step in current.steps(seed):
            kind = kind or steps.name
            if steps.name == kind:
                yield partial(steps.run, step)


def _seconds(batch: Callable[[], object], threads: int) -> float:
    """How long a batch takes, by the clock."""
    torch.set_num_threads(threads)
    began = perf_counter()
    batch()
    return perf_counter() - began
