"""Data-parallel training: batches are cut into shards, and the processes that torchrun started share them out.

How many shards there are decides what is computed; how many processes there are only decides who computes which. Each
shard is computed by itself, what comes of it goes to all processes, and there it is put together, or added up, in the
order of the shards. So one process that computes all shards gives the same bits as several.

Nothing is cut outside of `cut`, which a step of training runs in. Draws are keyed by row, so texts and their credit do
not depend on the cutting; dropout is seeded for each shard. Only several processes load torch.distributed.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from textgan_env.ops.sampling import derived_seed, draw_seed, seeded
from textgan_env.utils import errors
from textgan_env.utils.errors import InputError, require

Value = TypeVar("Value")

# For the first process, which looks at the policy alone; that a process has ended is noticed at once.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class _Place:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1


_here = _Place()
_shards: ContextVar[int] = ContextVar("shards", default=1)


def processes() -> int:
    """How many processes torchrun has started for this run; 1 without torchrun.

    Raises:
        InputError: If WORLD_SIZE asks for several, but it was not torchrun that started them.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return 1
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    asked = "several processes are started by torchrun --nproc-per-node N"
    require(size.isdigit() and not missing, f"{asked}, found WORLD_SIZE={size}, no {', '.join(missing) or 'number'}")
    return int(size)


@contextmanager
def joined() -> Iterator[None]:
    """Inside, the processes that torchrun started work together; all but the first say nothing, errors excepted.

    Whatever ends them is told by one: the first that comes to tell it.

    Raises:
        InputError: If they cannot reach each other.
    """
    global _here
    if processes() == 1:
        yield
        return
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    with _together():
        store, rank, size = next(rendezvous("env://", timeout=timedelta(minutes=5)))
        store.set_timeout(_PATIENCE)
        errors.may_tell = lambda: _comes_first(store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    _here = _Place(rank, size)
    try:
        if is_first():
            yield
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
        dist.destroy_process_group()
    except BaseException:
        # torchrun ends all when one has ended, but this one has something to say.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    finally:
        _here = _Place()


def _comes_first(store: Any) -> bool:
    """Whether no other process has told what went wrong."""
    try:
        return bool(store.add("told", 1) == 1)
    except RuntimeError:  # torchrun, which holds the store, is gone
        return True


@contextmanager
def _together() -> Iterator[None]:
    """Inside, processes wait for each other.

    Raises:
        InputError: If one is gone.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].split("] ", 1)[-1].partition(". ")[0]
        raise InputError(f"another process of this run has ended, or cannot be reached ({reason})") from None


def own_device(device: str) -> str:
    """The device of this process: of several on one machine, each takes a GPU of its own.

    Args:
        device: What was asked for.

    Raises:
        InputError: If there are fewer GPUs than processes, or one is asked for by its number.
    """
    if _here.size == 1 or not device.startswith("cuda"):
        return device
    require(device == "cuda", f"several processes take a GPU each: give --device cuda, found --device {device}")
    found, needed = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", _here.size))
    require(found >= needed, f"{needed} processes need as many GPUs on --device cuda, found {found}")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return f"cuda:{os.environ['LOCAL_RANK']}"


def is_first() -> bool:
    """Whether this is the process that looks, prints, and writes the run folder; alone it is."""
    return _here.rank == 0


def from_first(value: Value) -> Value:
    """What the first process says, in all of them; they wait for it.

    Args:
        value: What this process would say: None, a text or a number.

    Raises:
        InputError: If one of them is gone.
    """
    if _here.size == 1:
        return value
    import torch.distributed as dist

    content = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
    length = torch.tensor(len(content))
    with _together():
        dist.broadcast(length, 0)
        content = content if is_first() else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(content, 0)
    said: Value = json.loads(bytes(content.tolist()))
    return said


@contextmanager
def first_before_others() -> Iterator[None]:
    """What is inside is done by the first process, then by the others, which find what it has left.

    Raises:
        InputError: If it has ended instead.
    """
    if not is_first():
        from_first(None)
    yield
    if is_first():
        from_first(None)


def highest(number: int) -> int:
    """The highest of the numbers of all processes.

    Raises:
        InputError: If one of them is gone.
    """
    if _here.size == 1:
        return number
    import torch.distributed as dist

    found = torch.tensor(number)
    with _together():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def require_shards(shards: int, batch_sizes: dict[str, int]) -> None:
    """Refuse a number of shards that processes or batches do not suit.

    Args:
        shards: S.
        batch_sizes: Name -> rows of a batch.

    Raises:
        InputError: If it is below 1, below the number of processes, or above the rows of a batch.
    """
    require(shards >= 1, f"shards must be at least 1, found {shards}")
    require(
        _here.size <= shards,
        f"{_here.size} processes cannot share out {shards} shard{'s' * (shards > 1)}, which is what --shards of this "
        f"run says: start at most {shards}",
    )
    small = [f"{name} {rows}" for name, rows in batch_sizes.items() if 1 <= rows < shards]
    require(not small, f"each batch is cut into {shards} shards and must have as many texts, found {', '.join(small)}")


@contextmanager
def cut(shards: int) -> Iterator[None]:
    """Inside, batches are cut into so many shards; all processes do the same there."""
    token = _shards.set(shards)
    try:
        yield
    finally:
        _shards.reset(token)


def by_rows(rows: int, compute: Callable[[slice], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Compute something for each row of a batch, each process for the rows of its shards.

    Args:
        rows: B.
        compute: Some rows -> tensors with these rows as their first axis; one row must not depend on the others.

    Returns:
        The tensors with all B rows; where the batch was cut, without gradients.

    Raises:
        InputError: If another process is gone.
    """
    if _shards.get() == 1:
        return compute(slice(0, rows))
    parts = _parts(rows)
    found = _of_all([part.stop - part.start for part in parts], lambda at: compute(parts[at]))
    return tuple(torch.cat(column) for column in zip(*found, strict=True))


def backward(
    parameters: Sequence[nn.Parameter],
    rows: int,
    share_of: Callable[[slice], tuple[Tensor, ...]],
    *,
    dropout: bool = False,
) -> tuple[Tensor, ...]:
    """As ``loss.backward()``, for a loss that is a sum over the rows of a batch, each process for its shards' rows.

    Args:
        parameters: Whose ``grad`` is added to.
        rows: B.
        share_of: Some rows -> their share of the loss, then shares of other numbers to be told; all float scalars. A
            mean over the batch is shared by its sum over the rows, divided by what the whole batch is divided by.
        dropout: Whether it draws from the global generators, which must be seeded; each shard then has its own seed.

    Returns:
        The loss and the other numbers of the whole batch, without gradients.

    Raises:
        InputError: If another process is gone.
    """
    if _shards.get() == 1:
        numbers = share_of(slice(0, rows))
        numbers[0].backward()
        return tuple(number.detach() for number in numbers)
    parts = _parts(rows)
    seed = draw_seed(torch.default_generator) if dropout else 0
    learning: list[nn.Parameter] = []

    def row_of(at: int) -> tuple[Tensor]:
        """Gradient and numbers of a shard, end to end: (1, P + K)."""
        with seeded(derived_seed(seed, at)):
            numbers = share_of(parts[at])
        gradients = torch.autograd.grad(numbers[0], parameters, allow_unused=True)
        pairs = [(one, gradient) for one, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
        learning[:] = [one for one, _ in pairs]
        flat = [gradient.flatten() for _, gradient in pairs]
        return (torch.cat([*flat, torch.stack([number.detach() for number in numbers])])[None],)

    total_P, *others = [row_1P[0] for (row_1P,) in _of_all([1] * len(parts), row_of)]
    for other_P in others:
        total_P += other_P
    sizes = [one.numel() for one in learning]
    *gradients, numbers_K = total_P.split([*sizes, len(total_P) - sum(sizes)])
    for one, gradient in zip(learning, gradients, strict=True):
        one.grad = gradient.view_as(one) if one.grad is None else one.grad + gradient.view_as(one)
    return tuple(numbers_K.unbind())


def _parts(rows: int) -> list[slice]:
    """The rows of each shard; a batch of fewer rows than shards (the last of an epoch) is not cut."""
    shards = _shards.get() if rows >= _shards.get() else 1
    edges = [rows * shard // shards for shard in range(shards + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _of_all(sizes: Sequence[int], compute: Callable[[int], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """What ``compute`` gives for each number of a shard, in order: tensors of so many rows, each from who owns it."""
    owners = [at * _here.size // len(sizes) for at in range(len(sizes))]
    with cut(1):
        own = {at: compute(at) for at, owner in enumerate(owners) if owner == _here.rank}
        like = own[min(own)] if own else compute(0)
    found = []
    for at, rows in enumerate(sizes):
        mine = [part.detach().clone(memory_format=torch.contiguous_format) for part in own[at]] if at in own else None
        found.append(tuple(mine or [part.new_empty(rows, *part.shape[1:]) for part in like]))
    if _here.size > 1:
        import torch.distributed as dist

        with _together():
            sent = [
                dist.broadcast(part, owner, async_op=True)
                for parts, owner in zip(found, owners, strict=True)
                for part in parts
            ]
            for work in sent:
                work.wait()
    return found


def backward_into(
    optimizers: Sequence[torch.optim.Optimizer],
    rows: int,
    share_of: Callable[[slice], tuple[Tensor, ...]],
    *,
    dropout: bool = False,
) -> tuple[Tensor, ...]:
    """`backward` into the weights of several optimizers, whose gradients were nothing before."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    weights = [weight for optimizer in optimizers for weight in optimizer.param_groups[0]["params"]]
    return backward(weights, rows, share_of, dropout=dropout)
