"""Two checkouts beside each other: processor time of the pieces of training, in turns on one thread, and the ratio.

For example ``python -m benchmarks.versus ../before .``, or with ``--pieces "MLE step" evaluate`` for some of them. Each
checkout runs in a process of its own that waits while the other one works, so the ratio of a turn holds on a machine
that is busy with other things, too. Captions are read from the data folder (``$TEXTGAN_DATA``).
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from benchmarks.results import command, show, table
from benchmarks.versus_side import MISTAKE, PIECES
from textgan_env.utils.errors import require, require_known
from textgan_env.utils.options import at_least

NOTES = (
    "Processor time on one thread, median over turns (lowest - highest); the ratio is the median, over turns, of the "
    "time before by the time after."
)


@dataclass(frozen=True)
class Options:
    """Time the pieces of training in two checkouts."""

    before: Annotated[Path, Positional]
    """One checkout."""
    after: Annotated[Path, Positional]
    """The other."""
    pieces: tuple[str, ...] = ()
    """Which pieces; none: all."""
    repeats: int = 7
    """Turns that are timed, after one that is not."""
    name: str | None = None
    """Of the result files; none are written without."""


@command
def main(options: Options) -> None:
    """The command."""
    for piece in options.pieces:
        require_known("piece", piece, PIECES)
    at_least(1, options, "repeats")
    rows = []
    for piece in options.pieces or PIECES:
        rows.append(_row(piece, options))
        print({key: rows[-1][key] for key in ("piece", "ratio", "ratios")}, file=sys.stderr, flush=True)
    if options.name is None:
        print(table(rows))
    else:
        show(options.name, rows, notes=NOTES)


def _row(piece: str, options: Options) -> dict[str, Any]:
    """Time a piece: before and after in turn."""
    with _side(options.before, piece) as before, _side(options.after, piece) as after:
        turns = [(_turn(before, turn), _turn(after, turn)) for turn in range(options.repeats + 1)][1:]
    ratios = [slow / fast for slow, fast in turns]
    row: dict[str, Any] = {"piece": piece}
    for name, seconds in zip(("before", "after"), zip(*turns, strict=True), strict=True):
        row[name] = statistics.median(seconds)
        row[f"{name}, range"] = f"{min(seconds):.3f} - {max(seconds):.3f}"
    return row | {"ratio": statistics.median(ratios), "ratios": f"{min(ratios):.2f} - {max(ratios):.2f}"}


@contextmanager
def _side(checkout: Path, piece: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that does the piece with the code of a checkout, once for each line it is sent."""
    checkout = checkout.resolve()
    known = (checkout / "textgan_env").is_dir() and (checkout / "benchmarks").is_dir()
    require(known, f"'{checkout}' is no checkout of this project: it has no textgan_env/ and benchmarks/")
    line = [sys.executable, str(Path(__file__).with_name("versus_side.py")), piece]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    how: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, cwd=checkout, env=environment, **how) as side:
        try:
            yield side
        finally:
            side.kill()


def _turn(side: "subprocess.Popen[str]", turn: int) -> float:
    """Let a side do its piece once; the seconds of processor time that it took."""
    assert side.stdin is not None
    assert side.stdout is not None
    with suppress(BrokenPipeError):  # it ended already, and says why
        side.stdin.write(f"{turn}\n")
        side.stdin.flush()
    said = side.stdout.readline()
    require(not said.startswith(MISTAKE), said.removeprefix(MISTAKE).strip())
    require(bool(said), f"the side {side.args!r} ended early: its error stands above")
    return float(said)


if __name__ == "__main__":
    main()
