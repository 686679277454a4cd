"""Data-parallel training: batches are cut into shards, and the processes that torchrun started share them out.

How many shards there are decides what is computed; how many processes there are only decides who computes which. Each
shard is computed by itself, what comes of it goes to all processes, and there it is put together, or added up, in the
order of the shards. So one process that computes all shards gives the same bits as several.

Nothing is cut outside of `sharded`, which a step of training runs in. Draws are keyed by row, so texts and their credit
do not depend on the cutting; dropout is seeded for each shard. Only several processes load torch.distributed.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from textgan_env.ops.sampling import derived_seed, draw_seed, seeded
from textgan_env.utils.errors import REPORTS, InputError, require, require_at_least

Value = TypeVar("Value")

# For the first process, which evaluates the policy alone; that a process has ended is noticed at once.
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
def process_group() -> Iterator[None]:
    """Inside, the processes that torchrun started work together; all but the first print nothing, errors excepted.

    An error is reported by one of them: the first that comes to report it.

    Raises:
        InputError: If they cannot reach each other.
    """
    global _here
    if processes() == 1:
        yield
        return
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    store = None
    try:
        with _together():
            store, rank, size = next(rendezvous("env://", timeout=timedelta(minutes=5)))
            store.set_timeout(_PATIENCE)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
        _here = _Place(rank, size)
        with ExitStack() as silence:
            if not is_first():
                nowhere = silence.enter_context(open(os.devnull, "w"))
                silence.enter_context(redirect_stdout(nowhere))
                silence.enter_context(redirect_stderr(nowhere))
            yield
        dist.destroy_process_group()
    except BaseException as error:
        # torchrun ends all processes when one has ended, but this one may have something to say.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        setattr(error, REPORTS, store is None or _comes_first(store))
        raise
    finally:
        _here = _Place()


def _comes_first(store: Any) -> bool:
    """Whether no other process has reported an error."""
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
    """Whether this is the process that evaluates, prints, and writes the run folder; alone it is."""
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


def all_reduce_max(number: int) -> int:
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
    require_at_least(1, shards=shards)
    told = f"{shards} shard{'s' * (shards > 1)}, which is what --shards of this run says: start at most {shards}"
    require(_here.size <= shards, f"{_here.size} processes cannot share out {told}")
    small = [f"{name} {rows}" for name, rows in batch_sizes.items() if 1 <= rows < shards]
    require(not small, f"each batch is cut into {shards} shards and must have as many texts, found {', '.join(small)}")


@contextmanager
def sharded(shards: int) -> Iterator[None]:
    """Inside, batches are cut into so many shards; all processes do the same there."""
    token = _shards.set(shards)
    try:
        yield
    finally:
        _shards.reset(token)


def by_rows(compute: Callable[..., tuple[Tensor, ...]], *columns: Any) -> tuple[Tensor, ...]:
    """Compute something for each row of a batch, each process for the rows of its shards.

    Args:
        compute: Some rows of the columns -> tensors with these rows as first axis; one must not depend on the others.
        columns: Tensors, keys or texts, each with B rows.

    Returns:
        The tensors with all B rows; where the batch was cut, without gradients.

    Raises:
        InputError: If another process is gone.
    """
    if _shards.get() == 1:
        return compute(*columns)
    parts = _parts(0, len(columns[0]))
    sizes = [part.stop - part.start for part in parts]
    found = _of_all(sizes, lambda at: compute(*(column[parts[at]] for column in columns)))
    return tuple(torch.cat(column) for column in zip(*found, strict=True))


#: A sum over rows (float scalar), and the number that makes a mean of it.
Sum = tuple[Tensor, Tensor | float]


def backward(
    parameters: Sequence[nn.Parameter],
    batch: Sequence[Tensor | None],
    objective: Callable[..., Mapping[str, Sum]],
    *,
    minimise: Mapping[str, float] | None = None,
    halves: bool = False,
    dropout: bool = False,
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Leave the gradient of a mean over the rows of a batch in the parameters.

    The batch is computed in pieces (shards, and halves where asked for), each process its own. Sums and counts of all
    pieces are added up in order, so the result depends on how the batch is cut, never on who computes a piece.

    Args:
        parameters: Get the gradient, in place of what they had.
        batch: Tensors with the same B rows as first axis; None stays None.
        objective: The tensors of some rows -> name -> `Sum`.
        minimise: Name -> weight of its mean in what is minimised; None: ``loss`` alone, with weight 1.
        halves: Whether to give the gradients of the two halves of the batch, too.
        dropout: Whether the objective draws from the global generators, which must be seeded; each shard then has its
            own seed.

    Returns:
        The means by name, without gradients; and the flat gradients of both halves, or nothing.

    Raises:
        InputError: If another process is gone.
    """
    weights = {"loss": 1.0} if minimise is None else minimise
    rows = len(next(part for part in batch if part is not None))
    middle = -(-rows // 2)
    pieces = [_parts(0, middle), _parts(middle, rows)] if halves and rows > 1 else [_parts(0, rows)]
    if len(pieces) == len(pieces[0]) == 1:
        sums = objective(*batch)
        means = {name: total / count for name, (total, count) in sums.items()}
        for parameter, gradient in zip(parameters, _gradients(weights, means, parameters), strict=True):
            parameter.grad = gradient
        flat_P = torch.cat([one.grad.flatten() for one in parameters if one.grad is not None]) if halves else None
        return {name: mean.detach() for name, mean in means.items()}, [] if flat_P is None else [flat_P]
    learning, names, rows_P = _shares(parameters, batch, objective, weights, [*chain(*pieces)], dropout)
    first, second = rows_P[: len(pieces[0])], rows_P[len(pieces[0]) :]
    halves_P = [sum_in_order(half) for half in (first, second) if half]
    *gradients, mean_K = sum_in_order(halves_P).split([*(one.numel() for one in learning), len(names)])
    for parameter in parameters:
        parameter.grad = None
    for parameter, gradient_P in zip(learning, gradients, strict=True):
        parameter.grad = gradient_P.view_as(parameter)
    means = dict(zip(names, mean_K.unbind(), strict=True))
    return means, [half_P[: -len(names)] for half_P in halves_P] if halves else []


def _shares(
    parameters: Sequence[nn.Parameter],
    batch: Sequence[Tensor | None],
    objective: Callable[..., Mapping[str, Sum]],
    weights: Mapping[str, float],
    pieces: Sequence[slice],
    dropout: bool,
) -> tuple[list[nn.Parameter], list[str], list[Tensor]]:
    """What each piece adds to gradient and means.

    Returns:
        The P parameters that have a gradient, the names of the K means, and for each piece its share of both, end to
        end: float (P + K,).
    """
    seed = draw_seed(torch.default_generator) if dropout else 0
    sums: dict[int, Mapping[str, Sum]] = {}
    learning: list[nn.Parameter] = []

    def counts_of(at: int) -> tuple[Tensor]:
        """What the piece's sums are divided by: float64 (1, K)."""
        with seeded(derived_seed(seed, at)):
            sums[at] = objective(*(None if part is None else part[pieces[at]] for part in batch))
        return (torch.tensor([[float(count) for _, count in sums[at].values()]], dtype=torch.float64),)

    count_K = torch.cat([count_1K for (count_1K,) in _of_all([1] * len(pieces), counts_of)]).sum(0).tolist()
    names = list(next(iter(sums.values())))

    def share_of(at: int) -> tuple[Tensor]:
        """The piece's share of gradient and means: float (1, P + K)."""
        shares = {name: total / count for (name, (total, _)), count in zip(sums[at].items(), count_K, strict=True)}
        gradients = zip(parameters, _gradients(weights, shares, parameters), strict=True)
        known = {parameter: gradient for parameter, gradient in gradients if gradient is not None}
        learning[:] = known
        flat = [gradient.flatten() for gradient in known.values()]
        return (torch.cat([*flat, torch.stack([share.detach() for share in shares.values()])])[None],)

    rows_P = [row_1P[0] for (row_1P,) in _of_all([1] * len(pieces), share_of)]
    return learning, names, rows_P


def _gradients(
    weights: Mapping[str, float], means: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]
) -> tuple[Tensor | None, ...]:
    """The gradient of the weighted sum of means; None for a parameter that has no part in it."""
    loss = sum(mean * weights[name] for name, mean in means.items() if name in weights)
    assert isinstance(loss, Tensor)
    return torch.autograd.grad(loss, parameters, allow_unused=True)


def sum_in_order(parts: Sequence[Tensor]) -> Tensor:
    """The sum of some tensors, added up one after the other."""
    total, *others = parts
    for other in others:
        total = total + other
    return total


def _parts(first: int, end: int) -> list[slice]:
    """The rows of each shard; a batch of fewer rows than shards (the last of an epoch) is not cut."""
    rows = end - first
    shards = _shards.get() if rows >= _shards.get() else 1
    edges = [first + rows * shard // shards for shard in range(shards + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _of_all(sizes: Sequence[int], compute: Callable[[int], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """What ``compute`` gives for each number of a shard, in order: tensors of so many rows, each from who owns it."""
    owners = [at * _here.size // len(sizes) for at in range(len(sizes))]
    with sharded(1):
        own = {at: compute(at) for at, owner in enumerate(owners) if owner == _here.rank}
        like = own[min(own)] if own else compute(0)
    found = []
    for at, rows in enumerate(sizes):
        mine = [part.detach().clone(memory_format=torch.contiguous_format) for part in own[at]] if at in own else None
        found.append(tuple(mine or [part.new_empty(rows, *part.shape[1:]) for part in like]))
    if _here.size > 1:
        import torch.distributed as dist

        owned = [(part, owner) for parts, owner in zip(found, owners, strict=True) for part in parts]
        with _together():
            for work in [dist.broadcast(part, owner, async_op=True) for part, owner in owned]:
                work.wait()
    return found
