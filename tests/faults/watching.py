"""What the fault harness watches: what a file makes the process do, what it costs, and what a user is told."""

import contextlib
import io
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from textgan_env.utils.errors import friendly_errors

# What no reading of a file may do. (`resource` is left alone: it is how the harness keeps the machine.)
FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.", "pickle.", "ctypes.")
_watched: list[str] | None = None
_opened: list[str] | None = None
# What steers a terminal: control characters but line end and tab.
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and event.startswith(FORBIDDEN):
        _watched.append(f"{event} {arguments!r:.80}")
    if _opened is not None and event == "open" and isinstance(arguments[0], str | bytes):
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_watch)


@contextlib.contextmanager
def nothing_happens() -> Iterator[None]:
    """Fail if a file's content started a process, reached for the network or was unpickled."""
    global _watched
    _watched = []
    try:
        yield
    finally:
        seen, _watched = _watched, None
    assert seen == [], seen


@contextlib.contextmanager
def files_opened() -> Iterator[list[str]]:
    """The paths of all files that are opened inside."""
    global _opened
    found: list[str] = []
    _opened = found
    try:
        yield found
    finally:
        _opened = None


class Harm:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, ("harm",)


def status(name: str) -> int:
    """A number of /proc/self/status in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


class Meter:
    """Processor seconds and peak memory of a ``with`` block; 2 GB more than before are refused."""

    seconds = 0.0
    memory = 0

    def __enter__(self) -> "Meter":
        self._can = os.access("/proc/self/clear_refs", os.W_OK)
        self._limits = resource.getrlimit(resource.RLIMIT_AS)
        if self._can:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here
            self._before = status("VmRSS")
            resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + 2**31, self._limits[1]))
        self._started = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.process_time() - self._started
        resource.setrlimit(resource.RLIMIT_AS, self._limits)
        if self._can:
            self.memory = status("VmHWM") - self._before


def refusal(door: Callable[[], object]) -> str:
    """The sentence with which a door stays shut; "" if it opens. Any other error fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with friendly_errors():
                door()
        except SystemExit as leaving:
            *before, said = err.getvalue().splitlines()
            assert leaving.code == 2, said  # noqa: PT017  some doors raise it, others do not
            assert said.startswith("error: "), said
            assert not [line for line in before if line.startswith(("error: ", "Traceback", "  "))], before
            return said.removeprefix("error: ").strip()
        finally:
            assert not RAW.search(out.getvalue() + err.getvalue())
    return ""
