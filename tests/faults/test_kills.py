"""Training processes are killed at random moments and their runs resumed: the end is that of a run nobody stopped.

Weights and optimizers, rows, samples, TensorBoard's events and the final measurements must be equal, bit for bit, and
after each kill every file of the run must be readable. `make faults` kills a hundred.
"""

import itertools
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from agents import cli
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs fork and signals")]
WORDS = ["a", "the", "some", "cat", "dog", "bird", "sees", "likes", "hears", "finds", "tree", "house", "stone", "river"]
CASES = [("seqgan", "toy"), ("leakgan", "corpus"), ("seqgan", "corpus"), ("leakgan", "toy")]
# Processes are forked from a server that has loaded the libraries, which takes much longer than a small run.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["agents.cli", "agents.seqgan", "agents.leakgan", "textgan_env.training.launch"])


def start(agent: str, *words: str, runs: Path) -> BaseProcess:
    """Begin a run, or resume the one in the folder."""
    made = run_in(runs)
    words = ("--resume", str(made.path)) if made else (*words, "--runs", str(runs))
    process = SERVER.Process(target=cli.main, args=(["train", agent, *words, "--threads", "1"],))
    process.start()
    return process


def run_in(runs: Path) -> RunFolder | None:
    """The run in a folder, if it was begun; every file of it must be readable, whenever it was killed."""
    found = sorted(runs.glob("*/config.json"))
    if not found:
        return None
    run = RunFolder.open(found[0].parent)
    run.samples()
    if (run.path / "metrics.jsonl").exists():
        read_metrics(run.path)
    for path in (run.last_checkpoint, run.previous_checkpoint, run.best_checkpoint):
        if path.exists():
            load_checkpoint(path)
    return run


def stop(process: BaseProcess, kind: signal.Signals) -> bool:
    """Whether the signal ended the process, rather than its work."""
    if process.pid and process.is_alive():
        os.kill(process.pid, kind)
    process.join()
    # A process whose training has not begun is ended by the signal itself.
    assert process.exitcode in (0, -kind, 0 if kind == signal.SIGKILL else 128 + kind)
    return process.exitcode != 0


def content(run: RunFolder) -> dict[str, Any]:
    """Everything that must be equal."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    checkpoints = [load_checkpoint(path) for path in (run.last_checkpoint, run.best_checkpoint)]
    texts = ("metrics.jsonl", "metrics.csv", "samples.txt", "final_samples.txt", "evaluation.json")
    events = EventAccumulator(str(run.path / "tb"), size_guidance={"scalars": 0}).Reload()
    return {
        **{
            f"{checkpoint.path.stem}: {name}": (tensor.dtype, tensor.shape, tensor.numpy().tobytes())
            for checkpoint in checkpoints
            for name, tensor in checkpoint.all_tensors.items()
        },
        **{name: (run.path / name).read_text("utf-8") for name in texts},
        **{tag: repr([(one.step, one.value) for one in events.Scalars(tag)]) for tag in events.Tags()["scalars"]},
    }


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("kind", "kills"), [
    (signal.SIGKILL, 6), pytest.param(signal.SIGKILL, 100, marks=pytest.mark.faults),
    (signal.SIGTERM, 4), pytest.param(signal.SIGTERM, 20, marks=pytest.mark.faults),
])  # fmt: skip
def test_killed_runs_resume_to_the_same_end(kind: signal.Signals, kills: int, tmp_path: Path) -> None:
    rng, corpus, killed = random.Random(0), tmp_path / "corpus.txt", 0
    corpus.write_text("\n".join(sorted({" ".join(rng.choices(WORDS, k=rng.randint(3, 6))) for _ in range(300)})))
    whole: dict[tuple[str, str], tuple[dict[str, Any], float]] = {}
    for number in itertools.count():
        agent, task = CASES[number % len(CASES)]
        of_task = ("--corpus", str(corpus)) if task == "corpus" else ("--task", task)
        words = ("--preset", "smoke", *of_task, "--checkpoint-every", "0.1", "--show-samples", "1")
        if number < len(CASES):
            began = time.monotonic()
            start(agent, *words, runs=tmp_path / f"{agent}-{task}").join()
            finished = run_in(tmp_path / f"{agent}-{task}")
            assert finished
            whole[agent, task] = content(finished), time.monotonic() - began
        expected, seconds = whole[agent, task]
        runs = tmp_path / str(number)
        process = start(agent, *words, runs=runs)
        while process.join(rng.uniform(0, seconds)) or stop(process, kind):  # type: ignore[func-returns-value]
            killed += 1
            seconds *= 1.1  # a machine that got slower must not keep a run from ever coming to its end
            process = start(agent, *words, runs=runs)
        run = run_in(runs)
        assert run
        found = content(run)
        assert [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)] == []
        if killed >= kills:
            return


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("agent", "words"), [
    ("seqgan", "--mle-epochs 1 --d-pretraining 1 --d-steps 1 --d-epochs 1"),
    ("leakgan", "--pretrain-rounds 1 --pretrain-d-steps 1 --pretrain-epochs 1 --d-steps 1 --d-epochs 1"),
])  # fmt: skip
def test_heavy_runs_end_soon_after_a_signal(agent: str, words: str, kind: signal.Signals, tmp_path: Path) -> None:
    """Published sizes in short phases, so that the moments fall into all of them; each process resumes the run."""
    rng = random.Random(0)
    for _ in range(5):
        process = start(agent, "--preset", "paper", "--task", "oracle", *words.split(), runs=tmp_path)
        while not list(tmp_path.glob("*/config.json")):
            process.join(0.05)
        process.join(rng.uniform(5, 40))
        began = time.monotonic()
        assert stop(process, kind)
        assert time.monotonic() - began < 60
        assert run_in(tmp_path)
