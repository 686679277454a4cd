import csv
import io
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import assert_refused
from textgan_env.runs.logs import MetricLog, Progress, clock_text, console_line, read_metrics


def plain_log(folder: Path, **arguments: Any) -> MetricLog:
    return MetricLog(folder, tensorboard=False, **arguments)


def csv_rows(folder: Path) -> list[list[str]]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_every_row_stands_in_json_lines_in_csv_and_in_memory(tmp_path: Path) -> None:
    log = plain_log(tmp_path)
    log.write(1, {"loss": 0.1 + 0.2, "note": 'a "quoted", one'}, phase="pretrain")
    log.write(2, {"loss": 2, "note": "月"}, phase="pretrain")
    expected = [
        {"step": 1, "phase": "pretrain", "loss": 0.1 + 0.2, "note": 'a "quoted", one'},
        {"step": 2, "phase": "pretrain", "loss": 2, "note": "月"},
    ]
    assert (log.rows, read_metrics(tmp_path)) == (expected, expected)
    assert csv_rows(tmp_path) == [
        ["step", "phase", "loss", "note"],
        ["1", "pretrain", repr(0.1 + 0.2), 'a "quoted", one'],
        ["2", "pretrain", "2", "月"],
    ]


def test_rows_are_on_disk_before_the_log_is_closed(tmp_path: Path) -> None:
    plain_log(tmp_path).write(1, {"loss": 1.0})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "phase": "", "loss": 1.0}\n'
    assert (tmp_path / "metrics.csv").read_text() == "step,phase,loss\n1,,1.0\n"


def test_a_new_kind_of_value_widens_the_csv_and_keeps_the_order_of_columns(tmp_path: Path) -> None:
    log = plain_log(tmp_path)
    log.write(1, {"loss": 1.0})
    log.write(2, {"nll_test": 7.0})
    log.write(3, {"nll_test": 6.0, "loss": 0.5})
    assert csv_rows(tmp_path) == [
        ["step", "phase", "loss", "nll_test"], ["1", "", "1.0", ""], ["2", "", "", "7.0"], ["3", "", "0.5", "6.0"],
    ]  # fmt: skip


def test_numbers_of_numpy_and_torch_become_plain_ones(tmp_path: Path) -> None:
    log = plain_log(tmp_path)
    log.write(1, {"a": np.float64(0.5), "b": np.float32(0.25), "c": np.int64(3), "d": torch.tensor(1.5)})
    assert log.rows == [{"step": 1, "phase": "", "a": 0.5, "b": 0.25, "c": 3, "d": 1.5}]
    assert [type(log.rows[0][key]) for key in "abcd"] == [float, float, int, float]
    assert csv_rows(tmp_path)[1] == ["1", "", "0.5", "0.25", "3", "1.5"]


def test_nan_and_infinity_are_valid_json_and_come_back_as_nan(tmp_path: Path) -> None:
    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    plain_log(tmp_path).write(1, {"loss": math.nan, "score": -math.inf})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=no_constant) == {"step": 1, "phase": "", "loss": None, "score": None}
    assert csv_rows(tmp_path)[1] == ["1", "", "nan", "-inf"]
    row = read_metrics(tmp_path)[0]
    assert math.isnan(float(row["loss"]))
    assert math.isnan(float(row["score"]))


def test_resume_keeps_rows_up_to_the_step_and_drops_later_ones(tmp_path: Path) -> None:
    log = plain_log(tmp_path)
    for step in range(1, 5):
        log.write(step, {"loss": float(step)})
        log.write(step, {"late" if step == 4 else "nll": float(step)})
    resumed = plain_log(tmp_path, resume_at=2)
    assert [row["step"] for row in resumed.rows] == [1, 1, 2, 2]
    for step in range(3, 5):
        resumed.write(step, {"loss": float(step)})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 1, 2, 2, 3, 4]
    assert [row[0] for row in csv_rows(tmp_path)] == ["step", "1", "1", "2", "2", "3", "4"]
    assert csv_rows(tmp_path)[0] == ["step", "phase", "loss", "nll"]


def test_resume_drops_a_row_that_a_kill_cut_off(tmp_path: Path) -> None:
    plain_log(tmp_path).write(1, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "pha')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]
    plain_log(tmp_path, resume_at=1).write(2, {"loss": 2.0})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]


def test_resume_refuses_metrics_that_end_too_early_and_cuts_nothing(tmp_path: Path) -> None:
    log = plain_log(tmp_path)
    for step in range(1, 4):
        log.write(step, {"loss": float(step)})
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "phase": "", "loss": 1.0}\n')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert_refused("ends after step 1, but the run goes on after step 3", plain_log, tmp_path, resume_at=3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert plain_log(tmp_path, resume_at=0).rows == []


def test_a_new_run_refuses_the_metrics_of_another(tmp_path: Path) -> None:
    plain_log(tmp_path).write(1, {})
    assert_refused("metrics", plain_log, tmp_path)
    assert len(read_metrics(tmp_path)) == 1


@pytest.mark.parametrize("line", [
    *(b"nonsense", b"[]", b"{}", b'{"step": 1', b'{"step": "1", "phase": ""}', b'{"step": 1}', b"\xff", b"step 1"),
    *(
        b'{"step": 1, "phase": "", "a": []}',
        b'{"step": 1, "phase": "x", "a\\ud800": 1}',
        b'{"step": true, "phase": ""}',
    ),
    *(b'{"step": ' + b"9" * 101 + b', "phase": ""}', b'{"step": 0, "step": 1, "phase": "x"}'),
])  # fmt: skip
def test_a_spoilt_row_is_named_by_its_line(tmp_path: Path, line: bytes) -> None:
    rows = (b'{"step": 1, "phase": ""}', line, b'{"step": 3, "phase": ""}')
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(row + b"\n" for row in rows))
    assert_refused("line 2", read_metrics, tmp_path)
    assert_refused("line 2", plain_log, tmp_path, resume_at=9)


def test_missing_metrics_are_said_to_be_missing(tmp_path: Path) -> None:
    assert_refused("metrics", read_metrics, tmp_path)


def test_a_falling_step_and_reserved_names_are_refused(tmp_path: Path) -> None:
    log = plain_log(tmp_path)
    log.write(5, {})
    assert_refused("step", log.write, 4, {})
    assert_refused("phase", log.write, 6, {"phase": 1})
    assert len(read_metrics(tmp_path)) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_row_that_does_not_fit_on_the_disk_is_in_no_file(tmp_path: Path) -> None:
    log = plain_log(tmp_path)
    log.write(1, {"loss": 1.0})
    before = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        log.write(2, {"loss": 2.0})
    assert (len(log.rows), (tmp_path / "metrics.csv").read_text()) == (1, before)


def test_tensorboard_gets_every_number_and_forgets_what_a_resume_drops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricLog(tmp_path) as log:
        for step in range(1, 5):
            log.write(step, {"loss": step / 2, "note": "text"})
    # TensorBoard reads the files by name, which begins with the time: of a clock that is set back in between.
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    with MetricLog(tmp_path, resume_at=2) as log:
        log.write(3, {"loss": 100.0})
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 1.0), (3, 100.0)]


def test_a_missing_tensorboard_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with MetricLog(tmp_path) as log:
        log.write(1, {"loss": 1.0})
    assert not (tmp_path / "tb").exists()
    assert len(read_metrics(tmp_path)) == 1


def test_a_console_line_reads_like_a_row_of_a_table() -> None:
    values = {"loss": 5.1234, "nll_test": np.float32(7.41), "n": 3, "grad": 1e-5, "worst": math.nan, "preset": "fast"}
    line = console_line("epoch", 2, 60, values, seconds_left=41.2)
    assert line == "epoch  2/60  loss 5.123  nll_test 7.410  n 3  grad 1.00e-05  worst nan  preset fast  00:41 left"
    assert console_line("epoch", 60, 60, {}) == "epoch 60/60"


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "00:00"), (41.4, "00:41"), (59.6, "01:00"), (725, "12:05"), (11220, "3:07:00"), (-1, "00:00"),
    (math.inf, "--:--"),
])  # fmt: skip
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


class FakeClock:
    """A clock that is set by hand, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_without_a_terminal_a_plain_line_comes_every_ten_seconds_and_at_the_end() -> None:
    clock, stream = FakeClock(), io.StringIO()
    with Progress(120, "pre-training", stream=stream, clock=clock) as bar:
        for _ in range(120):
            clock.now += 0.25
            bar.update()
    assert stream.getvalue().splitlines() == [
        "pre-training:  33 % ( 40/120), 00:20 left",
        "pre-training:  66 % ( 80/120), 00:10 left",
        "pre-training: 100 % (120/120), took 00:30",
    ]


def test_time_left_counts_only_what_this_run_did() -> None:
    clock = FakeClock()
    bar = Progress(100, "x", initial=80, stream=io.StringIO(), clock=clock)
    assert bar.seconds_left == math.inf
    clock.now = 30.0
    bar.update(10)
    assert (bar.done, bar.seconds_left) == (90, 30.0)


def test_a_unit_that_takes_long_is_told_while_it_lasts() -> None:
    clock, stream = FakeClock(), io.StringIO()
    bar = Progress(4, "epochs", stream=stream, clock=clock)
    for batch in range(1, 9):
        clock.now += 5.0
        bar.within(batch / 10)
    bar.update()
    clock.now += 10.0
    bar.within(0.5)
    assert stream.getvalue().splitlines() == [
        "epochs:   5 % (0/4), 03:10 left",
        "epochs:  10 % (0/4), 03:00 left",
        "epochs:  15 % (0/4), 02:50 left",
        "epochs:  20 % (0/4), 02:40 left",
        "epochs:  37 % (1/4), 01:23 left",
    ]


def test_work_of_no_steps_is_done() -> None:
    stream = io.StringIO()
    Progress(0, "nothing", stream=stream, clock=FakeClock()).close()
    assert stream.getvalue() == "nothing: 100 % (0/0), took 00:00\n"


def test_on_a_terminal_a_bar_is_drawn_and_lines_stand_above_it(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Terminal()
    with Progress(4, "pre-training", stream=stream) as bar:
        bar.update(2)
        bar.print("epoch 1/2  loss 5.000")
        bar.update(2)
    assert "pre-training: 100 %|" in stream.getvalue()
    assert "took" not in stream.getvalue()
    assert capsys.readouterr().out == "epoch 1/2  loss 5.000\n"


def test_lines_beside_a_plain_progress_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(1, "x") as bar:
        bar.print("epoch 1/2")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("epoch 1/2\n", "x:   0 % (0/1), took 00:00\n")
