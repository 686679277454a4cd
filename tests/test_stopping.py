"""Signals that ask a process to end, sent to real processes and to this one."""

import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from conftest import PROJECT
from textgan_env.utils import stopping
from textgan_env.utils.errors import Stopped
from textgan_env.utils.stopping import StopSignals

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def nothing_is_ignored() -> Iterator[None]:
    """Tests that nohup or a script in the background started ignore a signal, and so would `StopSignals`."""
    ignored = [number for number in stopping._ASKING if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_a_request_that_the_next_check_meets(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        signals.check()
        signal.raise_signal(number)
        with pytest.raises(Stopped) as caught:
            signals.check()
    assert caught.value.number == number
    assert signal.getsignal(number) is before


def test_a_second_signal_ends_at_once() -> None:
    with StopSignals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)


def test_work_that_never_checks_is_ended_by_force_even_if_it_swallows_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stopping, "_PATIENCE", 0.05)
    never = threading.Event()
    with StopSignals():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):  # which a finaliser or a callback might swallow, as here
            never.wait(60)
        with pytest.raises(Stopped):
            never.wait(60)


def test_while_others_are_waited_for_a_signal_is_noted_and_raises_nothing() -> None:
    with StopSignals() as signals:
        with signals.held():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        assert signals.requested == signal.SIGTERM
        with pytest.raises(Stopped):
            signals.check()


def test_closed_signals_are_not_heard() -> None:
    with StopSignals() as signals:
        signals.close()
        signal.raise_signal(signal.SIGTERM)
        signals.check()


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            signals.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_of_the_main_thread_nothing_is_touched() -> None:
    before, during = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with StopSignals() as signals:
            during.append(signal.getsignal(signal.SIGTERM))
            signals.check()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == [before]


BOUNDED = """
import ctypes, os, signal, sys, threading, time
from textgan_env.utils.stopping import StopSignals
with StopSignals() as signals, signals.bounded(0.3, lambda number: print("last words", number, flush=True)):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    {work}
print("ended", flush=True)
"""


@pytest.mark.parametrize(
    ("work", "code", "told"),
    [
        # A lock of C that the thread holds already: no signal gets through to Python.
        ("c, lock = ctypes.CDLL(None), ctypes.create_string_buffer(256); "
         "[c.pthread_mutex_lock(lock) for _ in (1, 2)]", 143, "last words 15"),
        ("time.sleep(0.3); signals.close(); time.sleep(0.5)", 0, "ended"),
        ("time.sleep(0.1); signals.close(); time.sleep(0.5)", 0, "ended"),
    ],
    ids=["stuck", "ends in time", "ended before"],
)  # fmt: skip
def test_bounded_work_that_hears_no_signal_is_ended_with_last_words(work: str, code: int, told: str) -> None:
    command = [sys.executable, "-c", BOUNDED.format(work=work)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=20)
    assert (done.returncode, done.stdout.strip()) == (code, told), done.stderr


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_bounded_work_leaves_no_thread_behind_and_nothing_that_one_held(number: signal.Signals | None) -> None:
    class Agent:
        def last_words(self, number: int) -> None: ...

    agent, before = Agent(), threading.enumerate()
    freed_by: list[threading.Thread] = []
    weakref.finalize(agent, lambda: freed_by.append(threading.current_thread()))
    with StopSignals() as signals:
        with signals.bounded(60, agent.last_words):
            if number is not None:
                signal.raise_signal(number)
        assert not [one for one in set(threading.enumerate()) - {*before} if one.name.endswith("(_end_by_force)")]
        del agent
        assert freed_by == [threading.main_thread()]


@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_command_that_is_stopped_says_so_in_a_line_and_in_its_exit_code(
    number: signal.Signals, code: int, name: str
) -> None:
    program = (
        "import os, time\n"
        "from textgan_env.utils.errors import friendly_errors\n"
        "from textgan_env.utils.stopping import StopSignals\n"
        "with friendly_errors(), StopSignals() as signals:\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    signals.check()\n"
    )
    environment = {**os.environ, "TEXTGAN_DEBUG": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stderr == f"stopped by {name}; files written before are whole\n"
