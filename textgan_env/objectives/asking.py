"""How an objective is asked: here or in worker processes; whatever goes wrong is said of the text, not raised.

An answer is a number, or a sentence that says why there is none. Loads no torch: a worker process starts at once.
"""

import multiprocessing
import pickle
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, TypeAlias

import numpy as np

from textgan_env.objectives.base import Objective
from textgan_env.utils.errors import InputError, require, require_at_least

#: What an objective says of a text: a number in its range, or why there is none.
Answer: TypeAlias = float | str
#: Texts that a worker is sent at once, at most.
_CHUNK = 16
#: Of a number that rounding has put outside the range.
_TOLERANCE = 1e-6


def ask(objective: Objective, texts: Sequence[str]) -> list[Answer]:
    """Ask in this process; where a batch fails, its texts are asked one by one."""
    if not texts:
        return []
    try:
        values = np.asarray(objective(list(texts)), dtype=np.float64)
        reason = f"gave shape {values.shape} for {len(texts)} texts, expected ({len(texts)},)"
        if values.shape == (len(texts),):
            return [_checked(objective, float(value)) for value in values]
    except Exception as error:  # whatever a person's function raises
        reason = f"raised {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return [reason] if len(texts) == 1 else [answer for text in texts for answer in ask(objective, [text])]


def ask_values(objective: Objective, texts: Sequence[str]) -> list[float]:
    """As `ask`; a text for which it fails has the worst value."""
    return [objective.low if isinstance(answer, str) else answer for answer in ask(objective, texts)]


def _checked(objective: Objective, value: float) -> Answer:
    """A number in the range, or what is wrong with it."""
    low, high = objective.low, objective.high
    slack = _TOLERANCE * (high - low)
    if low - slack <= value <= high + slack:
        return min(max(value, low), high)
    return f"gave {value:g}, expected {low:g} to {high:g}"


@dataclass(eq=False)
class _Worker:
    """A process, the line to it, and what it was asked when."""

    process: Any
    line: Connection
    asked: list[int]
    until: float = 0.0


class Workers:
    """Processes that ask an objective; one that takes too long is ended, and another begins in its place.

    Args:
        objective: Must be picklable.
        count: Processes.
        timeout: Seconds for each text; None: any.

    Raises:
        InputError: If a number is out of range, or the objective cannot be sent to a process.
    """

    def __init__(self, objective: Objective, count: int, timeout: float | None = None) -> None:
        require_at_least(1, objective_workers=count)
        require(timeout is None or timeout > 0, f"objective_timeout must be above 0, found {timeout}")
        self._objective, self._count, self._timeout = replace(objective, group=None), count, timeout
        try:
            pickle.dumps(self._objective)
        except Exception as error:  # each object has its own
            why = "it must be a function of a module or of a file"
            raise InputError(f"objective '{objective.name}' cannot be sent to a process ({error}): {why}") from None
        self._idle: list[_Worker] = []

    def ask(self, texts: Sequence[str]) -> list[Answer]:
        """What the objective says of each text, in their order, whichever process was asked."""
        answers: dict[int, Answer] = {}
        size = max(1, min(_CHUNK, -(-len(texts) // self._count)))
        waiting = deque([*range(start, min(start + size, len(texts)))] for start in range(0, len(texts), size))
        busy: list[_Worker] = []
        while waiting or busy:
            while waiting and len(busy) < self._count:
                busy.append(self._send(waiting.popleft(), texts))
            first = min(worker.until for worker in busy)
            wait([worker.line for worker in busy], None if self._timeout is None else max(0, first - time.monotonic()))
            for worker in list(busy):
                failed = self._received(worker, answers)
                if failed is None:
                    continue
                busy.remove(worker)
                if failed and len(worker.asked) == 1:
                    answers[worker.asked[0]] = failed
                elif failed:  # one of them did it: which one?
                    waiting.extend([number] for number in worker.asked)
        return [answers[number] for number in range(len(texts))]

    def _send(self, numbers: list[int], texts: Sequence[str]) -> _Worker:
        """Ask a process about some texts."""
        worker = self._idle.pop() if self._idle else self._begin()
        worker.asked = numbers
        try:
            worker.line.send([texts[number] for number in numbers])
        except OSError:  # it has ended while it was idle
            worker = self._begin()
            worker.asked = numbers
            worker.line.send([texts[number] for number in numbers])
        worker.until = time.monotonic() + (self._timeout or np.inf) * len(numbers)
        return worker

    def _received(self, worker: _Worker, answers: dict[int, Answer]) -> str | None:
        """Take what a process has answered.

        Returns:
            "" where it has answered, None where it may still, else why it will not.
        """
        try:
            if worker.line.poll():
                answers.update(zip(worker.asked, worker.line.recv(), strict=True))
                self._idle.append(worker)
                return ""
        except (EOFError, OSError):
            _end(worker)
            return "ended its process"
        if time.monotonic() < worker.until:
            return None
        _end(worker)
        return f"took more than {self._timeout:g} seconds"

    def _begin(self) -> _Worker:
        """Start a process, and wait until it is ready: its start is nobody's time."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self._objective), daemon=True)
        process.start()
        there.close()
        worker = _Worker(process, here, [])
        try:
            here.recv()
        except EOFError:
            name = self._objective.name
            raise InputError(f"objective '{name}': its worker process ended before it was asked") from None
        return worker

    def close(self) -> None:
        """End the processes."""
        while self._idle:
            _end(self._idle.pop())


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.line.close()


def _serve(line: Connection, objective: Objective) -> None:
    """What a worker process does: answer until the line is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides when it is over
    line.send(None)
    while True:
        try:
            texts = line.recv()
        except EOFError:
            return
        line.send(ask(objective, texts))
