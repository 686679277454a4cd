"""What takes seconds to make is made once on a machine: kept in the data folder by the hash of all it follows from."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import filelock
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from textgan_env.ops.checksums import checksum
from textgan_env.text.fetch import cache_dir, keep_file
from textgan_env.utils.errors import InputError, require
from textgan_env.utils.machine import processor_name
from textgan_env.utils.reading import read_limited

_LOGGER = logging.getLogger(__name__)
_CHECKSUM = "checksum"
_LONGEST_WAIT = 120  # seconds for another process that makes the same
_MOST_KEPT = 2**29  # bytes of all files
# What all that is kept follows from, besides the task: every line of these folders.
_CODE = ("discriminators", "envs", "ops", "policies", "rewards", "tasks", "text")


def fill_once(tensors: Mapping[str, Tensor], what: str, follows_from: str, fill: Callable[[], None]) -> None:
    """Fill tensors from the data folder, or make what they hold and keep it there.

    Who comes while another process makes the same waits for it. A file that is not whole, or of something else, is
    made anew and replaced; where nothing can be kept, the tensors are filled and that is all.

    Args:
        tensors: Are changed in place; on the CPU. Those of a network: its ``state_dict()``.
        what: What they are, for the log.
        follows_from: All that makes the values what they are, but for our code, torch and the processor.
        fill: Puts the values into them, in place.
    """
    processor = f"{torch.backends.cpu.get_cpu_capability()} {processor_name()}"
    about = f"{follows_from}\n{_code()} {torch.__version__} {processor}"
    key = hashlib.sha256(about.encode()).hexdigest()
    path = cache_dir() / "fitted" / f"{key[:32]}.safetensors"
    if _read(tensors, path, key):
        return
    with _alone(path):
        if _read(tensors, path, key):
            return
        # A warning, because Python shows a person nothing below it, and else nothing would say why it takes seconds.
        _LOGGER.warning("making %s: takes seconds to minutes, once on this machine if '%s' can be written", what, path)
        with one_thread():
            fill()
        _keep(tensors, path, key)


def _read(tensors: Mapping[str, Tensor], path: Path, key: str) -> bool:
    """Fill the tensors from a file, if it is whole and what was asked for."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    try:
        found = safetensors.torch.load(read_limited(path, size + 2**16))
        kept = bytes(found.pop(_CHECKSUM, torch.zeros(0)).to(torch.uint8).flatten()[:32].tolist())
        shapes = [{name: (one.dtype, one.shape) for name, one in some.items()} for some in (tensors, found)]
        whole = shapes[0] == shapes[1] and kept.hex() == checksum(key, found)
        require(whole, f"'{path}' is not what was kept")
    except FileNotFoundError:
        return False
    except (OSError, InputError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        _LOGGER.info("'%s' is not read: %s", path, error)
        return False
    for name, tensor in tensors.items():
        tensor.copy_(found[name])
    return True


def _keep(tensors: Mapping[str, Tensor], path: Path, key: str) -> None:
    """Write a file whole or not at all, and leave the oldest ones out where there are too many."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    digest = torch.tensor([*bytes.fromhex(checksum(key, tensors))], dtype=torch.uint8)
    try:
        keep_file(path, safetensors.torch.save({**tensors, _CHECKSUM: digest}))
        files = sorted(path.parent.glob("*.safetensors"), key=lambda one: one.stat().st_mtime, reverse=True)
        room = _MOST_KEPT
        for one in files:
            room -= one.stat().st_size
            if room < 0 and one != path:
                one.unlink()
                one.with_suffix(".lock").unlink(missing_ok=True)
    except OSError as error:
        _LOGGER.info("'%s' cannot be kept: %s", path, error.strerror or error)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes waiting that want the same file; where there can be no lock, do without one."""
    lock = filelock.FileLock(path.with_suffix(".lock"), timeout=_LONGEST_WAIT)
    with suppress(OSError, NotImplementedError):  # no folder can be made, it cannot be written, or they take too long
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes in one thread, so that what is made does not depend on how many there are.

    Several threads round exponentials differently (`textgan_env.ops.exponentials`): of some thousand texts one may come
    out different. The networks of tasks are small and gain nothing from threads, which wait for one another beside
    other programs.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _code() -> str:
    """SHA-256 of the code."""
    package = Path(__file__).parent.parent
    files = [path for folder in _CODE for path in sorted((package / folder).glob("*.py"))]
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()
