"""What a run must not lose: stopped anywhere, it goes on to the same end."""

import math
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from agents.leakgan import PRESETS as LEAKGAN
from agents.leakgan import LeakGAN
from agents.mle import MLE, MLEConfig
from agents.seqgan import PRESETS as SEQGAN
from agents.seqgan import SeqGAN
from conftest import PROJECT, assert_refused
from textgan_env.runs import checkpointing
from textgan_env.runs.checkpointing import CheckpointManager
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import read_metrics
from textgan_env.training import loop, mle
from textgan_env.training.launch import launch
from textgan_env.utils.errors import InputError, Stopped

TINY = MLEConfig(task="toy", epochs=3, embed_size=4, hidden_size=4, batch_size=100, threads=1, show_samples=1)
SMOKE_SEQGAN = replace(
    SEQGAN["smoke"]("toy"), rounds=1, g_steps=2, d_epochs=2, mle_steps=1, negatives="replayed", rollout_lag=0.5,
    threads=1,
)  # fmt: skip
SMOKE_LEAKGAN = replace(
    LEAKGAN["smoke"]("toy"), rounds=1, mle_interval=1, pretrain_epochs=2, batch_size=400, d_batch_size=400, threads=1
)
RUNS: dict[str, tuple[Any, Any]] = {
    "mle": (MLE, TINY), "seqgan": (SeqGAN, SMOKE_SEQGAN), "leakgan": (LeakGAN, SMOKE_LEAKGAN),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of a run that nothing stopped."""
    return content(launch(replace(TINY, runs=tmp_path_factory.mktemp("whole")), MLE))


def content(run: RunFolder) -> dict[str, Any]:
    """What must be equal in two runs, bit for bit."""
    return {
        "tensors": {
            name: tensor.numpy().tobytes() for name, tensor in load_checkpoint(run.last_checkpoint).all_tensors.items()
        },
        "rows": read_metrics(run.path),
        "table": (run.path / "metrics.csv").read_text(),
        "samples": run.samples(),
        "end": (run.path / "final_samples.txt").read_text(),
    }


def count_save_points(monkeypatch: pytest.MonkeyPatch, stop_at: int = 0, *, before: bool = False) -> list[int]:
    """Has a 1 for each place where a run may be gone on from; ends it at one, or just before it is saved there."""
    save, calls = CheckpointManager.save_point, []

    def counted(manager: CheckpointManager, *, write: bool = False) -> None:
        calls.append(1)
        if before and len(calls) == stop_at:
            raise KeyboardInterrupt
        save(manager, write=write)
        if len(calls) == stop_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointManager, "save_point", counted)
    return calls


def check_stops(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: int) -> None:
    agent, config = RUNS[name]
    with monkeypatch.context() as patch:
        save_points = count_save_points(patch)
        expected = content(launch(replace(config, runs=tmp_path / "whole"), agent))
    for number in random.Random(0).sample(range(1, len(save_points)), stops):
        runs = tmp_path / f"stopped-{number}"
        # Saved at each save point; or never, but for the snapshot in memory, which may be older.
        every = 0.0 if number % 2 else 1e9
        with monkeypatch.context() as patch:
            count_save_points(patch, number, before=bool(number % 3))
            with pytest.raises(KeyboardInterrupt):
                launch(replace(config, runs=runs, checkpoint_every=every), agent)
        (folder,) = runs.iterdir()
        assert content(launch(replace(config, resume=folder), agent)) == expected, number


def test_a_run_stopped_after_any_batch_goes_on_to_the_same_weights_rows_and_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_stops("mle", tmp_path, monkeypatch, stops=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seqgan", "leakgan"])
def test_adversarial_runs_stopped_inside_any_step_go_on_to_the_same_end(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_stops(name, tmp_path, monkeypatch, stops=12)


def test_numbers_of_a_librarys_own_kind_can_be_saved_in_the_middle_of_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = MLE.mle_batch
    monkeypatch.setattr(
        MLE, "mle_batch", lambda *given: {key: np.float32(value) for key, value in batch(*given).items()}
    )
    run = launch(replace(TINY, runs=tmp_path, epochs=1, checkpoint_every=0.0), MLE)
    assert isinstance(load_checkpoint(run.previous_checkpoint).document["state"]["values"]["loss"][0], float)


# -- The last checkpoint and the one before ---------------------------------------------------------------------------
def test_the_checkpoint_before_the_last_is_kept_and_gone_on_from_when_the_last_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = launch(replace(TINY, runs=tmp_path, checkpoint_every=0.0), MLE)
    expected = content(run)
    states = [load_checkpoint(path).document["state"] for path in (run.previous_checkpoint, run.last_checkpoint)]
    assert [state["done"] for state in states] == [2, 3]
    whole = run.last_checkpoint.read_bytes()
    run.last_checkpoint.write_bytes(whole[:-100])
    capsys.readouterr()
    assert content(launch(replace(TINY, resume=run.path), MLE)) == expected
    said = capsys.readouterr().out
    assert "is not a whole checkpoint" in said
    assert "resumes from 'previous.safetensors'" in said
    assert (run.last_checkpoint.parent / "unreadable.safetensors").read_bytes() == whole[:-100]


def test_a_missing_last_checkpoint_is_replaced_by_the_one_before(tmp_path: Path) -> None:
    run = launch(replace(TINY, runs=tmp_path, checkpoint_every=0.0), MLE)
    expected = content(run)
    run.last_checkpoint.unlink()
    assert content(launch(replace(TINY, resume=run.path), MLE)) == expected


def test_two_broken_checkpoints_are_both_named_and_left_alone(tmp_path: Path) -> None:
    run = launch(replace(TINY, runs=tmp_path, checkpoint_every=0.0), MLE)
    for path in (run.last_checkpoint, run.previous_checkpoint):
        path.write_bytes(b"no")
    with pytest.raises(InputError, match=r"last\.safetensors.*previous\.safetensors.*no checkpoint to resume from"):
        launch(replace(TINY, resume=run.path), MLE)
    assert run.last_checkpoint.read_bytes() == b"no"


# -- What is not finite -----------------------------------------------------------------------------------------------
def test_a_loss_that_is_not_finite_ends_the_run_with_the_state_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = mle.mle_step, []

    def turned_bad(*arguments: Any, **named: Any) -> torch.Tensor:
        calls.append(1)
        return step(*arguments, **named) * (math.nan if len(calls) == 15 else 1)

    monkeypatch.setattr(mle, "mle_step", turned_bad)
    with pytest.raises(InputError) as caught:
        launch(replace(TINY, runs=tmp_path, checkpoint_every=1e9), MLE)
    monkeypatch.undo()
    (folder,) = tmp_path.iterdir()
    said = str(caught.value)
    assert said.startswith("round 2 of 3 (mle), epoch 1, batch 5 of 10: loss is nan: try a smaller learning rate; ")
    assert said.endswith(f"--resume {folder}")
    checkpoint = load_checkpoint(RunFolder.open(folder).last_checkpoint)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in checkpoint.all_tensors.values())
    assert checkpoint.document["state"]["done"] <= 1
    launch(replace(TINY, resume=folder), MLE)
    assert len(read_metrics(folder)) == 3


def test_a_weight_that_is_not_finite_never_reaches_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointing, "_PAUSE", 0.0)
    step, calls = mle.mle_step, []

    def turned_bad(policy: Any, *arguments: Any, **named: Any) -> torch.Tensor:
        loss = step(policy, *arguments, **named)
        calls.append(1)
        if len(calls) == 15:
            policy.projection.bias.data[1] = math.inf
        return loss

    monkeypatch.setattr(mle, "mle_step", turned_bad)
    with pytest.raises(InputError, match=r"epoch 1, batch 5 of 10: weight 'policy/projection.bias'"):
        launch(replace(TINY, runs=tmp_path, checkpoint_every=0.0), MLE)
    (folder,) = tmp_path.iterdir()
    checkpoint = load_checkpoint(RunFolder.open(folder).last_checkpoint)
    assert checkpoint.document["state"]["done"] == 1
    assert checkpoint.document["state"]["batches"] == 4  # done when it was still well
    assert bool(torch.isfinite(checkpoint.all_tensors["policy/projection.bias"]).all())


def test_a_checkpoint_fits_wherever_its_texts_lie_but_with_no_other_task_or_policy() -> None:
    places = ("path", "valid_path", "test_path", "weights", "data_dir")
    task = {"name": "corpus", "max_length": 20, **dict.fromkeys(places, "here")}
    document = {"task": task, "policy": {"kind": "lstm", "hidden_size": 8}}
    for place in places:
        moved = SimpleNamespace(path="last.pt", document={**document, "task": {**task, place: "there"}})
        checkpointing._require_same_agent(moved, document)  # type: ignore[arg-type]
    for name, option in (("task", "max_length"), ("policy", "hidden_size")):
        other = SimpleNamespace(path="last.pt", document={**document, name: {**document[name], option: 9}})
        with pytest.raises(InputError, match=f"describes another {name} than this run's, by its {option}"):
            checkpointing._require_same_agent(other, document)  # type: ignore[arg-type]


def test_a_run_goes_on_with_other_options_of_its_optimizer_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        count_save_points(patch, 12)
        with pytest.raises(KeyboardInterrupt):
            launch(replace(TINY, runs=tmp_path, checkpoint_every=0.0), MLE)
    (folder,) = tmp_path.iterdir()
    asked = {"learning_rate": 1e-4, "weight_decay": 0.5}
    before = {name: getattr(TINY, name) for name in asked}
    run = launch(replace(TINY, resume=folder, overrides=tuple(asked), **asked), MLE)  # type: ignore[arg-type]
    assert "from here on: learning_rate 0.0001, was 0.01, weight_decay 0.5, was" in capsys.readouterr().out
    assert asked.items() <= run.about["config"].items()
    assert run.about["changes"] == [{"from": before, "to": asked}]
    (group,) = load_checkpoint(run.last_checkpoint).header.optimizers["policy"]["groups"]
    assert (group["lr"], group["weight_decay"]) == (1e-4, 0.5)


def test_a_collapsed_policy_stops_the_run_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look, calls = loop._evaluate, []

    def collapsed(agent: loop.Agent, texts: int) -> dict[str, float]:
        calls.append(1)
        return look(agent, texts) | ({"unique": 0.001} if len(calls) == 2 else {})

    monkeypatch.setattr(loop, "_evaluate", collapsed)
    run = launch(replace(TINY, runs=tmp_path / "asked", eval_every=1, stop_on_collapse=True), MLE)
    assert "stopped after round 2 of 3: the policy collapses: 0% of its texts" in capsys.readouterr().out
    assert len(read_metrics(run.path)) == 2
    assert (run.path / "evaluation.json").exists()
    calls.clear()
    run = launch(replace(TINY, runs=tmp_path / "not-asked", eval_every=1), MLE)
    assert "warning: the policy collapses: 0% of its texts" in capsys.readouterr().out
    assert len(read_metrics(run.path)) == 3


def test_what_goes_on_is_warned_of_once_and_again_when_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look, collapsed = loop._evaluate, iter([True, True, False, True])

    def now_and_then(agent: loop.Agent, texts: int) -> dict[str, float]:
        return look(agent, texts) | ({"unique": 0.001} if next(collapsed) else {})

    monkeypatch.setattr(loop, "_evaluate", now_and_then)
    launch(replace(TINY, runs=tmp_path, eval_every=1, epochs=4), MLE)
    assert capsys.readouterr().out.count("warning: the policy collapses") == 2


# -- Signals ----------------------------------------------------------------------------------------------------------
def test_a_signal_in_the_middle_of_an_epoch_is_met_after_its_batch(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = mle.mle_step, []

    def asked_to_end(*arguments: Any, **named: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 15:
            signal.raise_signal(signal.SIGTERM)
        return step(*arguments, **named)

    monkeypatch.setattr(mle, "mle_step", asked_to_end)
    with pytest.raises(Stopped) as caught:
        launch(replace(TINY, runs=tmp_path / "cut"), MLE)
    monkeypatch.undo()
    folder = tmp_path / "cut" / "mle-toy-1"
    assert str(caught.value).startswith("stopped by SIGTERM; to resume: ")
    assert str(caught.value).endswith(f" --resume {folder}")
    checkpoint = load_checkpoint(RunFolder.open(folder).last_checkpoint)
    assert checkpoint.document["state"]["done"] == 1
    assert checkpoint.document["state"]["batches"] == 5  # an epoch is ten batches: not one is lost
    assert content(launch(replace(TINY, resume=folder), MLE)) == whole


# -- Two processes, full disks ----------------------------------------------------------------------------------------
def test_a_folder_in_use_is_refused_and_names_who_uses_it(tmp_path: Path) -> None:
    run = launch(replace(TINY, runs=tmp_path, epochs=1), MLE)
    with run.locked(), pytest.raises(InputError, match=rf"is in use by process {os.getpid()} on .*: wait until"):
        launch(replace(TINY, resume=run.path), MLE)
    launch(replace(TINY, resume=run.path), MLE)


def test_the_lock_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    run = launch(replace(TINY, runs=tmp_path, epochs=1), MLE)
    program = (
        "import sys, time; from textgan_env.runs.folder import RunFolder\n"
        "with RunFolder.open(sys.argv[1]).locked():\n"
        "    print('locked', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run.path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        assert_refused(f"process {holder.pid} on", launch, replace(TINY, resume=run.path), MLE)
        holder.kill()
    launch(replace(TINY, resume=run.path), MLE)


@pytest.mark.parametrize("file", ["checkpoints/last.safetensors", "metrics.jsonl", "samples.txt"])
def test_a_full_disk_ends_the_run_with_the_last_checkpoint_whole(
    file: str, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file does not fit any more; tests/faults fills a real disk."""
    fsync, full = os.fsync, []

    def no_space(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if name.endswith((file, f"checkpoints/.{Path(file).name}.tmp")):
            full.append(name)
            if len(full) > 15:
                raise OSError(28, os.strerror(28))
        fsync(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        launch(replace(TINY, runs=tmp_path / "full", checkpoint_every=0.0), MLE)
    monkeypatch.undo()
    (folder,) = (tmp_path / "full").iterdir()
    load_checkpoint(RunFolder.open(folder).last_checkpoint)
    assert content(launch(replace(TINY, resume=folder), MLE)) == whole
