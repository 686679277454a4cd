"""The errors a person can cause, and how a command shows them."""

import atexit
import errno
import gc
import importlib.util
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from textgan_env.utils.printing import printable, say

#: The word that shows a traceback with every mistake.
DEBUG = "--debug"
_LONGEST = 2000  # characters of a sentence that is shown


#: Attribute of an error that says whether this process reports it: of several that work together one does.
REPORTS = "reports"


class InputError(ValueError):
    """Something a person gave is wrong; the message is one sentence: what it is, what was expected, what was found."""


class MissingDataError(InputError):
    """A file or an optional package is not here; the message says which one and where to put it."""


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end, and it does so in good order; the message says how to go on.

    Args:
        number: Of the signal.
        sentence: What to tell a person.
    """

    def __init__(self, number: int, sentence: str | None = None) -> None:
        self.number = number
        super().__init__(sentence or f"stopped by {signal_name(number)}; files written before are whole")


def signal_name(number: int) -> str:
    """Ctrl-C, SIGTERM ..."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def require(condition: bool, sentence: str) -> None:
    """Refuse bad input.

    Args:
        condition: What must hold.
        sentence: What to say when it does not: the thing, what was expected, what was found.

    Raises:
        InputError: If ``condition`` is false.
    """
    if not condition:
        raise InputError(sentence)


def require_at_least(least: float, **values: float | None) -> None:
    """Refuse numbers that are too small, each given by its name; None passes.

    Raises:
        InputError: If one is.
    """
    for name, value in values.items():
        require(value is None or value >= least, f"{name} must be at least {least:g}, found {value}")


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is none of those known.

    Raises:
        InputError: If it is not.
    """
    require(name in known, f"unknown {what} '{name}', expected one of: {', '.join(known)}")


def require_package(package: str, extra: str, what: str) -> Path:
    """Find an optional package, without importing it.

    Args:
        package: Its name.
        extra: The extra of textgan-env that installs it.
        what: What needs it, for the sentence.

    Returns:
        Its folder.

    Raises:
        MissingDataError: If it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise MissingDataError(f"{what} needs the package {package}: pip install 'textgan-env[{extra}]'")
    return Path(found.origin).parent


@contextmanager
def friendly_errors() -> Iterator[None]:
    """Show a person's mistake as one line on stderr instead of a traceback.

    Mistakes are `InputError`, files that cannot be read or written, sizes for which there is no memory, and Ctrl-C.
    Anything else is a fault of ours, and one line says so. ``--debug`` among the words of the command, or the
    environment variable ``TEXTGAN_DEBUG``, shows every traceback.

    Raises:
        SystemExit: 2 for a mistake, 1 for a fault of ours; 130 for Ctrl-C, 143 for SIGTERM in training (128 and the
            signal's number).
    """
    # The interpreter's last collection goes through all that torch has loaded, a second for nothing.
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    if os.environ.get("TEXTGAN_DEBUG") or DEBUG in sys.argv[1:]:
        yield
        return
    try:
        yield
        sys.stdout.flush()  # where a reader went away, it shows here and not at the interpreter's end
    except InputError as error:
        _leave(f"error: {error}", 2, error)
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        _leave(str(stopped), 128 + stopped.number, error)
    except BrokenPipeError:
        # The reader of our output (`head`, a pager) went away: not worth a message; stdout cannot be flushed any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if os.name == "nt" and error.errno == errno.EINVAL and error.filename is None:
            sys.exit(141)  # how Windows says that the reader of our output went away
        where = f" '{error.filename}'" if error.filename else ""
        if error.errno == errno.ENOSPC:
            _leave(f"error: no space is left on the disk{where}; files written before are whole", 2, error)
        _leave(f"error: cannot use{where or ' a file'}: {error.strerror or error}", 2, error)
    except UnicodeEncodeError as error:
        _leave(f"error: {error.object[:100]!r} cannot be written as {error.encoding}", 2, error)
    except Exception as error:
        reason = str(error).partition("\n")[0] or "no reason given"
        # torch's own error on the CPU is no MemoryError.
        if isinstance(error, MemoryError) or "not enough memory" in reason or "allocate memory" in reason:
            _leave(f"error: there is not enough memory for these sizes ({reason})", 2, error)
        fault = f"fault of textgan_env: {type(error).__name__}: {reason}"
        _leave(f"{fault}; to see where, run it again with {DEBUG}", 1, error)


def _leave(sentence: str, code: int, error: BaseException) -> None:
    """End the command with one line, whatever the names and words in it hold."""
    shown = printable(sentence[:_LONGEST], line=True)
    first = "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"  # of torchrun's processes
    if getattr(error, REPORTS, first):
        say(shown + ("..." if len(sentence) > _LONGEST else ""), file=sys.stderr)
    raise SystemExit(code)
