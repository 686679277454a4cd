"""Numbers of a run at a tracker: a package with the three calls stands in for it."""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agents import cli
from conftest import assert_refused
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import MetricLog
from textgan_env.show.track import track

TRACKER = """
import json, pathlib
file = pathlib.Path(__file__).with_name("calls.jsonl")
def note(*call):
    with file.open("a") as out:
        out.write(json.dumps(call) + chr(10))
def init(**what): note("init", what)
def log(numbers, step): note("log", numbers, step)
def finish(): note("finish")
"""


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package called trackio."""
    package = tmp_path / "packages" / "trackio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(TRACKER)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    return package


def calls(tracker: Path) -> list[Any]:
    return [json.loads(line) for line in (tracker / "calls.jsonl").read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", "mle-toy", config={"epochs": 2}, seed=7)


def measure(run: RunFolder, *rounds: int) -> None:
    with MetricLog(run.path, tensorboard=False, resume_at=min(rounds) - 1 or None) as log:
        for number in rounds:
            log.write(number, {"loss": number / 2, "note": "text is not drawn"}, "mle")


def test_rounds_and_the_end_of_a_run_are_sent_with_its_options(run: RunFolder, tracker: Path) -> None:
    measure(run, 1, 2)
    values = {"nll_test": 1.5}
    run.evaluation_file.write_text(json.dumps({"values": values, "missing": {}, "settings": {}}))
    assert track(run, project="mine") == 2
    (_, asked), *rest = calls(tracker)
    assert (asked["project"], asked["name"]) == ("mine", run.path.name)
    assert (asked["config"]["epochs"], asked["config"]["seed"], asked["config"]["agent"]) == (2, 7, "mle")
    first, second, end = ["log", {"loss": 0.5}, 1], ["log", {"loss": 1.0}, 2], ["log", {"end/nll_test": 1.5}, 2]
    assert rest == [first, second, end, ["finish"]]


def test_a_run_that_trains_is_followed_until_it_ends_and_no_round_is_sent_twice(run: RunFolder, tracker: Path) -> None:
    with ExitStack() as training:
        training.enter_context(run.locked())
        looks: Iterator[Callable[[], None]] = iter(
            [partial(measure, run, 1), partial(measure, run, 2, 3), lambda: training.pop_all().close()]
        )
        assert track(run, follow=True, wait=lambda _: next(looks)()) == 3
    assert [call[2] for call in calls(tracker) if call[0] == "log"] == [1, 2, 3]


def test_a_tracker_is_told_of_the_end_where_the_run_cannot_be_read(run: RunFolder, tracker: Path) -> None:
    (run.path / "metrics.jsonl").write_text("nonsense\nnonsense\n")
    assert_refused("line 1", track, run)
    assert calls(tracker)[-1] == ["finish"]


def test_what_cannot_be_tracked_is_said_in_a_sentence(
    run: RunFolder, tracker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused("has measured nothing yet: give --follow to wait for it", track, run)
    assert_refused("unknown tracker 'mlflow'", track, run, "mlflow")
    assert not (tracker / "calls.jsonl").exists()
    measure(run, 1)
    cli.main(["track", str(run.path)])
    assert capsys.readouterr().out == f"1 round of '{run.path}' are in project 'textgan' of trackio\n"


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="needs an environment without wandb")
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(run: RunFolder) -> None:
    measure(run, 1)
    assert_refused(
        r"tracking by wandb needs the package wandb: pip install 'textgan-env\[wandb\]'", track, run, "wandb"
    )
