"""Reward functions as TRL's trainers call them: asked once a call, and the answer looked at."""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

from textgan_env.utils.errors import InputError, require

#: A prompt or a completion: text, or the messages of a conversation.
Completion: TypeAlias = str | Sequence[dict[str, Any]]


class RewardFunction:
    """What a trainer of TRL takes for a reward function; it answers once.

    A trainer gives one list of completions to all its reward functions. Whoever gives the same list (the same object,
    not an equal one) again gets the same answer, and nothing is computed or learnt: so a control can stand beside the
    reward that it asks.

    Args:
        name: Under which TRL logs it.
    """

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self._last: tuple[Sequence[Completion], list[float | None]] | None = None

    def __call__(
        self, *, prompts: Sequence[Completion], completions: Sequence[Completion], **columns: Any
    ) -> list[float | None]:
        """A number for each completion, high for good ones; None where the reward does not apply.

        Args:
            prompts: As many as completions.
            completions: What the model wrote.
            **columns: What else TRL gives: ``completion_ids``, ``trainer_state``, ``log_metric``, columns of the data.

        Raises:
            InputError: If there are more or fewer prompts than completions, or the answer is none.
        """
        if self._last is None or self._last[0] is not completions:
            count = len(completions)
            require(len(prompts) == count, f"{self.__name__} needs a prompt each, found {len(prompts)} for {count}")
            rewards = self.rewards(prompts=prompts, completions=completions, **columns)
            self._last = (completions, checked(self.__name__, rewards, count))
        return list(self._last[1])

    def rewards(
        self, *, prompts: Sequence[Completion], completions: Sequence[Completion], **columns: Any
    ) -> Iterable[float | None]:
        """What `__call__` gives, computed."""
        raise NotImplementedError


class OnceAsked(RewardFunction):
    """Anybody's reward function, asked once a call.

    Args:
        function: The reward function.

    Raises:
        InputError: If it is no function, or an asynchronous one.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        found = f"a reward function is needed, found a {type(function).__name__}"
        require(callable(function) and not hasattr(function, "parameters"), f"{found}: wrap it in a function")
        inner = function
        while isinstance(inner, partial):
            inner = inner.func
        super().__init__(getattr(inner, "__name__", type(inner).__name__))
        waits = any(map(inspect.iscoroutinefunction, (inner, type(inner).__call__)))
        require(not waits, f"the reward function {self.__name__} is asynchronous, which has no controls")
        self.function = function

    def rewards(self, **call: Any) -> Iterable[float | None]:
        """The answer of the function."""
        answer: Iterable[float | None] = self.function(**call)
        return answer


def checked(name: str, rewards: Any, count: int) -> list[float | None]:
    """The answer of a reward function as a list of numbers, None where it does not apply.

    Raises:
        InputError: If it is not as many numbers as asked for.
    """
    expected = f"the reward function {name} must return {count} numbers"
    require(isinstance(rewards, Iterable) and not isinstance(rewards, str), f"{expected}, found {rewards!r}")
    found = list(rewards)
    require(len(found) == count, f"{expected}, found {len(found)}")
    numbers = []
    for place, reward in enumerate(found, start=1):
        try:
            number = None if reward is None else float(reward)
        except (TypeError, ValueError):
            raise InputError(f"{expected}, found {reward!r} for completion {place}") from None
        sound = number is None or math.isfinite(number)
        require(sound, f"{expected}, found {number} for completion {place} (None says that it does not apply)")
        numbers.append(number)
    return numbers


def text_of(completion: Completion) -> str:
    """The text of a prompt or a completion: what stands in messages, a line each; who says it is left out.

    Raises:
        InputError: If it is neither text nor messages.
    """
    if isinstance(completion, str):
        return completion
    wrong = f"a completion must be text or a list of messages, found {type(completion).__name__}"
    require(isinstance(completion, Sequence) and all(isinstance(each, dict) for each in completion), wrong)
    return "\n".join(_content(message.get("content")) for message in completion)


def _content(content: Any) -> str:
    """The text of one message: its content may be text, parts of several kinds, or missing."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content)
    return content or ""
