"""How many threads a new run takes: measured at its start, kept when it is resumed, and without a trace in it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.mle import MLE, MLEConfig
from conftest import assert_same_training
from textgan_env.runs.folder import RunFolder
from textgan_env.tasks import Task
from textgan_env.training import threads
from textgan_env.training.launch import launch
from textgan_env.training.schedule import Phase, Schedule, Step, Steps
from textgan_env.utils.errors import InputError

TINY = MLEConfig(task="toy", epochs=2, embed_size=4, hidden_size=4, batch_size=100, show_samples=0)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch takes by itself on two cores; said only, as two real threads on a busy machine take minutes."""
    now = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: now.__setitem__(0, number))


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Says how many seconds a batch takes with one thread, and with two."""

    def take(one: float, two: float) -> None:
        now = 0.0

        def clock() -> float:
            nonlocal now
            now += one if torch.get_num_threads() == 1 else two
            return now

        monkeypatch.setattr(threads, "perf_counter", clock)

    return take


def never(*_: object) -> Any:
    pytest.fail("nothing was to be chosen")


@pytest.mark.parametrize(
    ("two", "chosen", "why"),
    [
        (0.013, 1, "a batch takes 1.30 times as long with 2 as with 1"),
        (0.009, 1, "a batch takes 0.90 times as long with 2 as with 1"),
        (0.005, 2, "a batch takes 0.50 times as long with 2 as with 1"),
        (0.0001, 1, "the first batches took too unlike times to tell"),  # two threads cannot save more than a half
    ],
)
def test_all_threads_are_taken_where_batches_are_clearly_faster(
    two: float, chosen: int, why: str, faked: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faked(0.01, two)
    run = launch(replace(TINY, runs=tmp_path), MLE)
    said = f"threads: {chosen}; {why} (--threads overrides)\n"
    assert capsys.readouterr().out.count(said) == 1
    assert (run.about["config"]["threads"], run.about["machine"]["threads"]) == (chosen, chosen)
    assert torch.get_num_threads() == 2  # what was chosen for one run is not the next one's


def test_a_slow_batch_is_measured_once(faked: Callable[..., None]) -> None:
    faked(30.0, 20.0)
    done = []
    agent: Any = Agent(lambda step: done.append(step.round))
    assert threads.choose_threads(lambda: agent, TINY) == 2
    assert done == [0, 1]


class Agent:
    """Does something in each of 99 rounds, and something else between."""

    def __init__(self, work: Callable[[Step], Any]) -> None:
        self.steps = (Steps(never, every=100, key="later"), Steps(work, key="work"), Steps(never, key="other"))

    def schedule(self) -> Schedule:
        return Schedule((Phase("a", 99, self.steps),))


def test_batches_of_one_kind_are_compared_and_no_global_generator_moves(faked: Callable[..., None]) -> None:
    faked(0.01, 0.01)
    seen = []

    def work(step: Step) -> dict[str, float]:
        seen.append((step.round, torch.get_num_threads()))
        torch.rand(3)
        return {}

    state = torch.get_rng_state()
    agent: Any = Agent(work)
    assert threads.choose_threads(lambda: agent, TINY) == 1
    assert seen == [(round_, 1 + round_ % 2) for round_ in range(12)]
    assert torch.equal(state, torch.get_rng_state())


def test_a_batch_that_is_refused_is_left_to_the_run() -> None:
    def work(_: Step) -> Any:
        raise InputError("the loss is nan")

    agent: Any = Agent(work)
    assert threads.choose_threads(lambda: agent, TINY) == 1
    assert torch.get_num_threads() == 2


def test_nothing_is_measured_where_threads_are_given_or_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_seconds", never)
    given = launch(replace(TINY, runs=tmp_path, threads=2), MLE)
    torch.set_num_threads(1)
    alone = launch(replace(TINY, runs=tmp_path), MLE)
    assert [run.about["config"]["threads"] for run in (given, alone)] == [2, 1]


@pytest.mark.parametrize(("two", "chosen"), [(0.013, 1), (0.005, 2)])
def test_a_run_that_chose_has_the_bits_of_one_that_was_told(
    two: float, chosen: int, faked: Callable[..., None], tmp_path: Path
) -> None:
    faked(0.01, two)
    config = replace(TINY, dropout=0.5, scheduled_sampling=0.5)
    chose = launch(replace(config, runs=tmp_path / "chose"), MLE)
    told = launch(replace(config, runs=tmp_path / "told", threads=chosen), MLE)
    assert_same_training(chose, told)


def test_a_resumed_run_keeps_what_was_chosen_whatever_the_machine_does(
    faked: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []

    class Watched(MLE):
        def __init__(self, config: MLEConfig, task: Task) -> None:
            used.append((config.threads, torch.get_num_threads()))
            super().__init__(config, task)

    faked(0.01, 0.013)
    run = launch(replace(TINY, runs=tmp_path), Watched)
    monkeypatch.setattr(threads, "_seconds", never)
    torch.set_num_threads(2)
    launch(MLEConfig(resume=run.path), Watched)
    assert used == [(None, 2), (1, 1), (1, 1)]  # measured, trained, resumed
    torch.set_num_threads(2)
    launch(MLEConfig(resume=run.path, threads=2, overrides=("threads",)), Watched)
    assert used[3:] == [(2, 2)]
    assert RunFolder.open(run.path).about["config"]["threads"] == 2
