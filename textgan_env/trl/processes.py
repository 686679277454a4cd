"""What the processes that accelerate started tell each other; alone, a process talks to itself.

They have to come here together: the trainers call a reward function in all processes at once.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.distributed as dist

from textgan_env.utils.errors import InputError

Value = TypeVar("Value")


def several() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gathered(values: Sequence[Value]) -> tuple[list[Value], slice]:
    """The values of all processes in the order of these, and which of them are those of this one."""
    if not several():
        return list(values), slice(0, len(values))
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, list(values))
    start = sum(map(len, parts[: dist.get_rank()]))
    return [value for part in parts for value in part], slice(start, start + len(values))


def from_first(make: Callable[[], Value]) -> Value:
    """What the first process makes, in all of them; the others wait for it.

    Raises:
        InputError: In all of them, if it does in the first.
    """
    if not several():
        return make()
    said: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            said = [(make(), None)]
        except InputError as error:
            said = [(None, str(error))]
    dist.broadcast_object_list(said)
    value, refused = said[0]
    if refused is not None:
        raise InputError(refused)
    made: Value = value
    return made
