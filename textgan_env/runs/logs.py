"""What a run measures: metrics.jsonl, metrics.csv, TensorBoard, and the lines and bars on the screen."""

import csv
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm

from textgan_env.utils.errors import InputError, require
from textgan_env.utils.files import append_safely, write_safely
from textgan_env.utils.printing import printable, say
from textgan_env.utils.reading import MOST_LOG, get_typed, parse_json, read_limited, read_typed

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: What a metric may be.
Value = float | int | str
#: The metrics of one round, by name.
Row = dict[str, Value]


class MetricLog(AbstractContextManager["MetricLog"]):
    """The measurements of a run, one row an event.

    Each row goes to ``metrics.jsonl`` (what is read back), ``metrics.csv`` (for spreadsheets; a new kind of
    value adds a column) and, where the package is installed, TensorBoard files in ``tb/``. All rows also stay
    in `rows`.

    ``step`` is a counter of the whole run that never falls: write the rows of a step, then the checkpoint of
    that step. A run that goes on from a checkpoint at step s passes ``resume_at=s``; rows after s, which the
    run is about to measure again, are dropped, so no event stands twice.

    Attributes:
        rows: The rows so far, oldest first: "step", "phase", then the values.
        files: metrics.jsonl and metrics.csv.
    """

    rows: list[Row]

    def __init__(
        self, folder: str | os.PathLike[str], *, tensorboard: bool = True, resume_at: int | None = None
    ) -> None:
        """Open the log of a run.

        Args:
            folder: The run folder; it must exist.
            tensorboard: Write TensorBoard files, too, if the package is installed.
            resume_at: Keep the rows up to this step and drop later ones; ``None`` for a new run.

        Raises:
            InputError: If a new run finds the metrics of another, or the old metrics cannot be read, or end before
                ``resume_at``; nothing is written then.
            OSError: If the files cannot be written.
        """
        folder = Path(folder)
        self._jsonl, self._csv = folder / "metrics.jsonl", folder / "metrics.csv"
        self.files = (self._jsonl, self._csv)
        self.rows = []
        if resume_at is None:
            used = f"'{folder}' already holds the metrics of a run; resume it or use a new folder"
            require(not self._jsonl.exists(), used)
        elif resume_at > 0:
            self.rows = [row for row in read_metrics(folder) if _step(row) <= resume_at]
            last = _step(self.rows[-1]) if self.rows else 0
            lost = f"'{self._jsonl}' ends after step {last}, but the run goes on after step {resume_at}"
            require(last == resume_at, f"{lost}: put the rows in between back, or begin a new run")
        self._columns = list(dict.fromkeys(["step", "phase", *(key for row in self.rows for key in row)]))
        write_safely(self._jsonl, "".join(map(_json_line, self.rows)))
        self._rewrite_csv()
        self._writer = _summary_writer(folder / "tb", resume_at) if tensorboard else None

    def write(self, step: int, values: Mapping[str, Any], phase: str = "") -> None:
        """Add a row.

        Args:
            step: Counter of the whole run, at least that of the row before.
            values: Numbers (Python's, numpy's, or tensors of one element) and text by name. JSON has no NaN
                and no infinities: they stand as null in metrics.jsonl, and as nan, inf in metrics.csv.
            phase: The part of the schedule, e.g. "pretrain".

        Raises:
            InputError: If the step falls, or a value is called "step" or "phase".
            OSError: If the row cannot be written, e.g. on a full disk; every file then ends at a whole row.
        """
        last = _step(self.rows[-1]) if self.rows else step
        require(step >= last, f"the step of a metrics row must not fall, got {step} after {last}")
        require("step" not in values and "phase" not in values, "a metric cannot be called 'step' or 'phase'")
        row: Row = {"step": step, "phase": phase}
        row |= {key: _plain(value) for key, value in values.items()}
        append_safely(self._jsonl, _json_line(row))
        self.rows.append(row)
        if new := [key for key in row if key not in self._columns]:
            self._columns += new
            self._rewrite_csv()
        else:
            append_safely(self._csv, _csv_text([row], self._columns))
        if self._writer is not None:
            for key in values:
                if not isinstance(row[key], str):
                    self._writer.add_scalar(key, row[key], step)
            self._writer.flush()

    def close(self) -> None:
        """Finish the TensorBoard files; the others are complete after every `write`."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __exit__(self, *_: object) -> None:
        """Close the log."""
        self.close()

    def _rewrite_csv(self) -> None:
        """Write the whole of metrics.csv, for new columns."""
        write_safely(self._csv, _csv_text(self.rows, self._columns, header=True))


def read_metrics(folder: str | os.PathLike[str], name: str = "metrics.jsonl") -> list[Row]:
    """Read the rows of a run, also of one that is still running or was killed.

    Args:
        folder: The run folder.
        name: Of the file in it.

    Returns:
        One dictionary a row, oldest first; a value that was NaN or infinite is NaN. A last row that a crash
        cut off is left out.

    Raises:
        InputError: If there are no metrics, or a row before the last is not what `MetricLog` writes; names
            the line.
    """
    path = Path(folder) / name
    require(path.is_file(), f"no metrics at '{path}'")
    # What follows the last line end is a row cut off, or nothing.
    lines = read_limited(path, MOST_LOG, inside=folder).split(b"\n")[:-1]
    return [_parse_row(line, f"line {number} of '{path}'") for number, line in enumerate(lines, start=1)]


def console_line(label: str, at: int, of: int, values: Mapping[str, Any], seconds_left: float | None = None) -> str:
    """One readable row of a table on the screen; rows with the same names stand in columns.

    Args:
        label: What is counted, e.g. "epoch".
        at: How many are done.
        of: How many there will be.
        values: Numbers and short text by name.
        seconds_left: Expected time to the end; ``None`` leaves it out.

    Returns:
        For example ``epoch 12/60  loss 5.123  nll_test 7.410  00:41 left``.
    """
    numbers = (f"{key} {_number(_plain(value))}" for key, value in values.items())
    end = () if seconds_left is None else (f"{clock_text(seconds_left)} left",)
    return "  ".join([f"{label} {at:>{len(str(of))}}/{of}", *numbers, *end])


def clock_text(seconds: float) -> str:
    """A duration as a clock shows it.

    Args:
        seconds: Duration in seconds.

    Returns:
        "00:41", "12:05", "3:07:00", or "--:--" where the duration is not known (NaN, infinite).
    """
    if not math.isfinite(seconds):
        return "--:--"
    return str(tqdm.format_interval(max(0, round(seconds))))


class Progress(AbstractContextManager["Progress"]):
    """How far a long piece of work is, with the time left.

    On a terminal this is a bar. Anywhere else (a file, a pipe, a CI log) it is a plain line every ten seconds
    and one at the end, such as ``pre-training:  40 % (48/120), 01:12 left``. A unit that takes long says by `within`
    how far it is.

    Example:
        >>> with Progress(3, "counting", stream=io.StringIO()) as bar:
        ...     for _ in range(3):
        ...         bar.update()
    """

    def __init__(
        self,
        total: int,
        description: str,
        *,
        initial: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        every: float = 10.0,
    ) -> None:
        """Start the clock.

        Args:
            total: Units of work in all.
            description: What the work is.
            initial: Units done before, by the run that this one goes on from.
            stream: Where to show it; standard error by default.
            clock: Seconds now, from any origin.
            every: Seconds between two plain lines.
        """
        self.total, self.done = total, initial
        self._description, self._initial = description, initial
        self._stream = sys.stderr if stream is None else stream
        self._clock, self._every = clock, every
        self._started = self._shown = clock()
        self._share = 0.0  # of the unit that is being worked on
        self._bar: Any = None
        if self._stream.isatty():
            look = {"bar_format": "{desc}: {percentage:3.0f} %|{bar}| {n:.4g}/{total_fmt}, {remaining} left"}
            work = {"total": total, "initial": initial, "desc": printable(description)}
            self._bar = tqdm(file=self._stream, dynamic_ncols=True, **work, **look)

    @property
    def seconds_left(self) -> float:
        """Expected seconds to the end at the pace so far; infinite before anything is done."""
        done = self.done + self._share
        own = done - self._initial
        return (self._clock() - self._started) / own * (self.total - done) if own else math.inf

    def update(self, units: int = 1) -> None:
        """Count work as done.

        Args:
            units: How many units.
        """
        self.done, self._share = self.done + units, 0.0
        self._show()

    def within(self, share: float) -> None:
        """Say how far the next unit is.

        Args:
            share: Of it, 0 to 1.
        """
        self._share = share
        self._show()

    def _show(self) -> None:
        """Move the bar, or print a line when the last one is old enough."""
        if self._bar is not None:
            self._bar.update(round(self.done + self._share, 2) - self._bar.n)
        elif self._clock() - self._shown >= self._every and self.done < self.total:
            self._shown = self._clock()
            self._say(f"{clock_text(self.seconds_left)} left")

    def print(self, line: str) -> None:
        """Write a line to standard output without tearing the bar.

        Args:
            line: The text, without its line end.
        """
        if self._bar is not None:
            self._bar.write(printable(line, sys.stdout.encoding or "utf-8"), file=sys.stdout)
        else:
            say(line)

    def close(self) -> None:
        """End the bar, or say in a plain line how far the work came and how long it took."""
        if self._bar is not None:
            self._bar.close()
        else:
            self._say(f"took {clock_text(self._clock() - self._started)}")

    def _say(self, end: str) -> None:
        """Print a plain line of progress."""
        share = int(100 * (self.done + self._share) / self.total) if self.total else 100
        count = f"{self.done:>{len(str(self.total))}}/{self.total}"
        say(f"{self._description}: {share:3d} % ({count}), {end}", file=self._stream)

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _parse_row(line: bytes, where: str) -> Row:
    """A row of metrics.jsonl.

    Raises:
        InputError: If it is not what `MetricLog` writes.
    """
    row = read_typed(dict[str, float | int | str | bool | None], parse_json(line, where), where)
    get_typed(row, "step", int, where)
    get_typed(row, "phase", str, where)
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} holds half a character, which could not be written again") from None
    return {key: math.nan if value is None else value for key, value in row.items()}


def _plain(value: Any) -> Value:
    """A Python number or text, from numpy's and torch's numbers, too."""
    if not isinstance(value, (float, int, str)):
        value = value.item()
    return float(value) if isinstance(value, float) else value  # numpy's float64 is a float that prints its type


def _step(row: Row) -> int:
    """The step of a row."""
    return int(row["step"])


def _json_line(row: Row) -> str:
    """A row as metrics.jsonl holds it: JSON has no NaN."""
    finite = {key: value if isinstance(value, str) or math.isfinite(value) else None for key, value in row.items()}
    return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"


def _csv_text(rows: Sequence[Row], columns: Sequence[str], header: bool = False) -> str:
    """Rows as metrics.csv holds them."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _number(value: Value) -> str:
    """A number as a person reads it: three decimals where they say something, else three digits."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 10_000 else f"{value:.2e}"


_EVENTS = "events.out.tfevents."  # then the time at which the file was begun, in seconds


def _put_before(files: Sequence[Path], new: str) -> None:
    """Name files of events so that they come before a new one.

    TensorBoard reads the files of a run in the order of their names, and a file hides what was read before it. Their
    names begin with the time, and a clock may have been set back since.
    """
    if any(file.name >= new for file in files):
        for number, file in enumerate(files, start=1):
            rest = file.name.removeprefix(_EVENTS).partition(".")[2]
            os.replace(file, file.with_name(f"{_EVENTS}{number:010d}.{rest}"))


def _summary_writer(folder: Path, resume_at: int | None) -> "SummaryWriter | None":
    """TensorBoard's writer, which hides events after ``resume_at``; ``None`` without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    _put_before(sorted(folder.glob(f"{_EVENTS}*")), f"{_EVENTS}{int(time.time()):010d}")
    return SummaryWriter(folder, purge_step=None if resume_at is None else resume_at + 1)
