"""The processes that torchrun started for a run: which one this is, how they wait for each other, what they share."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from textgan_env.utils.errors import REPORTS, InputError, Stopped, require

Value = TypeVar("Value")

# For the first process, which evaluates the policy alone; that a process has ended is noticed at once.
_PATIENCE = timedelta(days=1)

# Which of how many processes this is.
_rank, _size = 0, 1

# Where memory is shared by name. What `kept_memory` keeps: bytes, and whether all processes see them.
_SHARED_MEMORY = "/dev/shm"
_kept: tuple[Tensor, bool] | None = None


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
    global _rank, _size, _kept
    if processes() == 1:
        yield
        return
    # Its functions take the group of their first import as a default argument. Imported later, they would keep the
    # group and its threads alive when it is destroyed, and those abort the process if the interpreter ends before them.
    import torch.distributed.nn
    from torch.distributed.rendezvous import rendezvous

    store = None
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with _together():
            store, rank, size = next(rendezvous("env://", timeout=timedelta(minutes=5)))
            store.set_timeout(_PATIENCE)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
        _rank, _size = rank, size
        with ExitStack() as silence:
            if not is_first():
                nowhere = silence.enter_context(open(os.devnull, "w"))
                silence.enter_context(redirect_stdout(nowhere))
                silence.enter_context(redirect_stderr(nowhere))
            yield
        dist.destroy_process_group()
        signal.signal(signal.SIGTERM, before)
    except BaseException as error:
        # torchrun ends all processes when one has ended, but this one may have something to say.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        setattr(error, REPORTS, store is None or _comes_first(store))
        raise
    finally:
        _rank, _size, _kept = 0, 1, None


def _stop(number: int, _: FrameType | None) -> None:
    """End the process in good order, unless it is on its way out, with an error that must be told."""
    if sys.exception() is None:
        raise Stopped(number)


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


def rank_and_size() -> tuple[int, int]:
    """Which of how many processes this is."""
    return _rank, _size


def own_device(device: str) -> str:
    """The device of this process: of several on one machine, each takes a GPU of its own.

    Args:
        device: What was asked for.

    Raises:
        InputError: If there are fewer GPUs than processes, or one is asked for by its number.
    """
    if _size == 1 or not device.startswith("cuda"):
        return device
    require(device == "cuda", f"several processes take a GPU each: give --device cuda, found --device {device}")
    found, needed = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", _size))
    require(found >= needed, f"{needed} processes need as many GPUs on --device cuda, found {found}")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return f"cuda:{os.environ['LOCAL_RANK']}"


def is_first() -> bool:
    """Whether this is the process that evaluates, prints, and writes the run folder; alone it is."""
    return _rank == 0


def from_first(value: Value) -> Value:
    """What the first process says, in all of them; they wait for it.

    Args:
        value: What this process would say: None, a text or a number.

    Raises:
        InputError: If one of them is gone.
    """
    said = [value]
    if _size > 1:
        with _together():
            dist.broadcast_object_list(said, device=torch.device("cpu"))
    return said[0]


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
    found = torch.tensor(number)
    if _size > 1:
        with _together():
            dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def broadcast(owned: Sequence[tuple[Tensor, int]]) -> None:
    """Give all processes what the owner of each tensor has in it.

    Raises:
        InputError: If one of them is gone.
    """
    if _size > 1:
        with _together():
            for work in [dist.broadcast(part, owner, async_op=True) for part, owner in owned]:
                work.wait()


def kept_memory(size: int, device: torch.device) -> tuple[Tensor, bool]:
    """Memory that is used again by whoever asks next, as fresh memory costs more than what is written to it.

    All processes ask together, for the same.

    Args:
        size: Bytes.
        device: Where.

    Returns:
        uint8 (size,), with anything in it; and whether all processes see the same, or else each has its own.

    Raises:
        InputError: If one of them is gone.
    """
    global _kept
    if _kept is None or len(_kept[0]) < size or _kept[0].device != device:
        _kept = None  # the old one is let go first
        shared = _shared_memory(size) if device.type == "cpu" else None
        _kept = torch.empty(size, dtype=torch.uint8, device=device) if shared is None else shared, shared is not None
    return _kept[0][:size], _kept[1]


def _shared_memory(size: int) -> Tensor | None:
    """Bytes that all processes see; None where they do not run on one machine, or it has not so much to share."""
    made = _file_in_memory(size) if is_first() and os.environ.get("LOCAL_WORLD_SIZE") == str(_size) else None
    try:
        name = from_first(made)
        if name is None:
            return None
        with _together():
            memory = torch.from_file(name, shared=True, size=size, dtype=torch.uint8)
        all_reduce_max(0)
        return memory
    finally:
        if made is not None:
            os.unlink(made)  # all have it open; so it goes when the last of them ends, however that ends


def _file_in_memory(size: int) -> str | None:
    """Name of a file of so many bytes that lies in memory; None where there is no such folder, or no room in it."""
    try:
        file, name = tempfile.mkstemp(prefix="textgan-", dir=_SHARED_MEMORY)
    except OSError:
        return None
    try:
        os.posix_fallocate(file, 0, size)  # a process that writes where there is no room would be killed for it
    except OSError:
        os.unlink(name)
        return None
    finally:
        os.close(file)
    return name
