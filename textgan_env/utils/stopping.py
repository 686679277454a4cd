"""Ending in good order when a signal asks for it: at the next place where the run can be saved, or soon by force."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from textgan_env.utils.errors import Stopped

# SIGHUP comes when a terminal is closed or a connection is lost; SIGBREAK is Ctrl-Break of Windows.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
_ASKING = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
_PATIENCE = 1.0  # seconds that work may go on after it was asked to end


class StopSignals:
    """While it is entered, Ctrl-C, SIGTERM and SIGHUP ask the work to end.

    The work asks `check` wherever it could end. If it does not for a second (a step may take long), or the signal
    comes a second time, `Stopped` is raised in the middle of whatever runs. A signal that the process was told to
    ignore (``nohup``, a background job of a script) stays ignored. Outside of the main thread, which alone can hear
    signals, this does nothing.

    Attributes:
        requested: The signal that came, None while none has.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[int, Any] = {}
        self._held = False
        self._over = threading.Event()

    def check(self) -> None:
        """End here if it was asked for.

        Raises:
            Stopped: If so.
        """
        if self.requested is not None:
            raise Stopped(self.requested)

    def close(self) -> None:
        """From now on hear no signals: what is left to do is short and must be done."""
        self._over.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal is noted and raises nothing: this process waits for others, who must hear of it, too."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    @contextmanager
    def bounded(self, seconds: float, last_words: Callable[[int], None]) -> Iterator[None]:
        """Inside, a signal ends the process after so many seconds, if the work has not ended by then.

        For work that waits for other processes. Such a wait runs no Python code, so it hears no signal, and it may
        never end where another process stands still.

        Args:
            seconds: From the signal to the end; the work has ended when `close` was called, or the block is left.
            last_words: Called with the number of the signal, in another thread, just before the end.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        came, sent = socket.socketpair()
        sent.setblocking(False)
        # The interpreter writes the number of each signal there, whatever the main thread is doing.
        before = signal.set_wakeup_fd(sent.fileno(), warn_on_full_buffer=False)
        watching = threading.Thread(target=self._end_by_force, args=(came, seconds, last_words), daemon=True)
        watching.start()
        try:
            yield
        finally:
            self.close()
            signal.set_wakeup_fd(before)
            sent.close()
            # It holds what `last_words` holds. Were it the last to do so when the interpreter ends, it would free
            # tensors then, which aborts the process.
            watching.join()

    def _end_by_force(self, came: socket.socket, seconds: float, last_words: Callable[[int], None]) -> None:
        """Wait for a signal, then for the end of the work; end the process where that does not come."""
        with came:
            numbers = iter(lambda: came.recv(1), b"")  # until the other end is closed
            number = next((byte[0] for byte in numbers if byte[0] in self._before), None)
        if number is not None and not self._over.wait(seconds):
            last_words(number)
            os._exit(128 + number)

    def __enter__(self) -> Self:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            for number in _ASKING:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back to whoever had them."""
        self.close()
        for number, before in self._before.items():
            signal.signal(number, before)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self._over.is_set():
            return
        if self.requested is not None:
            if not self._held:
                raise Stopped(self.requested)
            return
        self.requested = number
        threading.Thread(target=self._insist, args=(number,), daemon=True).start()

    def _insist(self, number: int) -> None:
        """Send the signal again until the work has ended: one `Stopped` may be lost in a finaliser or a callback."""
        wait = _PATIENCE
        while not self._over.wait(wait):
            wait = 0.5
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident or 0, number)
            else:
                signal.raise_signal(number)
