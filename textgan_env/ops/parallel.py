"""Data-parallel training: batches are cut into shards, and the processes that torchrun started share them out.

How many shards there are decides what is computed; how many processes there are only decides who computes which. Each
shard is computed by itself, what comes of it goes to all processes, and there it is put together, or added up, in the
order of the shards. So one process that computes all shards gives the same bits as several.

Nothing is cut outside of `sharded`, which a step of training runs in. Draws are keyed by row, so texts and their credit
do not depend on the cutting; dropout is seeded for each shard.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from itertools import accumulate, chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from textgan_env.ops.sampling import derived_seed, draw_seed, seeded
from textgan_env.ops.torchrun import all_reduce_max, broadcast, kept_memory, rank_and_size
from textgan_env.utils.errors import require, require_at_least

_shards: ContextVar[int] = ContextVar("shards", default=1)


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
    size = rank_and_size()[1]
    require(size <= shards, f"{size} processes cannot share out {told}")
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
    for parameter in parameters:
        parameter.grad = None
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
    learning, names, share_of = _shares(parameters, batch, objective, weights, [*chain(*pieces)], dropout)
    totals = _added_up([len(half) for half in pieces], share_of)
    *gradients, mean_K = [reduce(torch.add, parts) for parts in zip(*totals, strict=True)]
    for parameter, gradient in zip(learning, gradients, strict=True):
        parameter.grad = gradient.view_as(parameter)
    means = dict(zip(names, mean_K.unbind(), strict=True))
    return means, [torch.cat([part.flatten() for part in parts[:-1]]) for parts in totals] if halves else []


def _shares(
    parameters: Sequence[nn.Parameter],
    batch: Sequence[Tensor | None],
    objective: Callable[..., Mapping[str, Sum]],
    weights: Mapping[str, float],
    pieces: Sequence[slice],
    dropout: bool,
) -> tuple[list[nn.Parameter], list[str], Callable[[int], list[Tensor]]]:
    """What each piece adds to gradient and means.

    Returns:
        The parameters that have a gradient, known once a share is; the names of the K means; and a function: number of
        a piece -> its share of each gradient, then of the means, float (K,).
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

    def share_of(at: int) -> list[Tensor]:
        """The piece's share of gradients and means; what it was computed from is let go."""
        shares = {name: total / count for (name, (total, _)), count in zip(sums.pop(at).items(), count_K, strict=True)}
        gradients = zip(parameters, _gradients(weights, shares, parameters), strict=True)
        known = {parameter: gradient for parameter, gradient in gradients if gradient is not None}
        learning[:] = known
        share_K = torch.stack([share.detach() for share in shares.values()])
        return [*known.values(), share_K.to(next(iter(known.values())).dtype)]

    return learning, names, share_of


def _added_up(groups: Sequence[int], share_of: Callable[[int], list[Tensor]]) -> list[list[Tensor]]:
    """Sums over the pieces of each group, in their order, in all processes.

    Each process writes the shares of its pieces into memory that all see, or sends them where they do not, and each
    adds up all. On one machine that is cheaper than to add up a part each and to send the sums around.

    Args:
        groups: How many pieces each group has; they are numbered through.
        share_of: Number of a piece -> tensors, of the same shapes for each; called once for a number.

    Returns:
        For each group what the tensors add up to; its memory is shared with nothing.
    """
    edges = [0, *accumulate(groups)]
    numbers = [range(start, stop) for start, stop in pairwise(edges)]
    rank, size = rank_and_size()
    if size == 1:
        return [_in_order(share_of(at) for at in group) for group in numbers]
    owners = _owners(edges[-1])
    own = {at: share_of(at) for at, owner in enumerate(owners) if owner == rank}
    like = next(iter(own.values())) if own else share_of(0)
    sizes = [part.numel() for part in like]
    memory, seen_by_all = kept_memory(len(owners) * sum(sizes) * like[0].element_size(), like[0].device)
    rows_SP = memory.view(like[0].dtype).view(len(owners), -1)
    for at in list(own):
        torch.cat([part.flatten() for part in own.pop(at)], out=rows_SP[at])
    del like  # the sums take the memory of the gradients, part by part
    if seen_by_all:
        all_reduce_max(0)  # all have written
    else:
        broadcast([*zip(rows_SP, owners, strict=True)])
    totals = [_in_order(row_P.split(sizes) for row_P in rows_SP[group.start : group.stop]) for group in numbers]
    if seen_by_all:
        all_reduce_max(0)  # all have read
    return totals


def _in_order(shares: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """Sum of some lists of tensors, the first two first; of one list a copy."""
    rest = iter(shares)
    first, second = next(rest), next(rest, None)
    # What autograd gives may be one tensor for two parameters, or one number for many cells: it is never written to.
    total = [a.clone() for a in first] if second is None else [a + b for a, b in zip(first, second, strict=True)]
    for share in rest:
        for into, part in zip(total, share, strict=True):
            into.add_(part)
    return total


def _gradients(
    weights: Mapping[str, float], means: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]
) -> tuple[Tensor | None, ...]:
    """The gradient of the weighted sum of means; None for a parameter that has no part in it."""
    loss = sum(mean * weights[name] for name, mean in means.items() if name in weights)
    assert isinstance(loss, Tensor)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return tuple(map(_laid_out_as, parameters, gradients))


def _laid_out_as(parameter: nn.Parameter, gradient: Tensor | None) -> Tensor | None:
    """The gradient with the parameter's strides: fused Adam on a CPU takes both in the order of their memory."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _parts(first: int, end: int) -> list[slice]:
    """The rows of each shard; a batch of fewer rows than shards (the last of an epoch) is not cut."""
    rows = end - first
    shards = _shards.get() if rows >= _shards.get() else 1
    edges = [first + rows * shard // shards for shard in range(shards + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _owners(pieces: int) -> list[int]:
    """Which process computes each piece."""
    size = rank_and_size()[1]
    return [at * size // pieces for at in range(pieces)]


def _of_all(sizes: Sequence[int], compute: Callable[[int], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """What ``compute`` gives for each number of a shard, in order: tensors of so many rows, each from who owns it."""
    rank, owners = rank_and_size()[0], _owners(len(sizes))
    with sharded(1):
        own = {at: compute(at) for at, owner in enumerate(owners) if owner == rank}
        like = own[min(own)] if own else compute(0)
    found = []
    for at, rows in enumerate(sizes):
        mine = [part.detach().contiguous() for part in own[at]] if at in own else None
        found.append(tuple(mine or [part.new_empty(rows, *part.shape[1:]) for part in like]))
    broadcast([(part, owner) for parts, owner in zip(found, owners, strict=True) for part in parts])
    return found
