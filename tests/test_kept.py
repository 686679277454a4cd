"""What takes seconds is made once on a machine: what is read is what would be made, or it is not read."""

import logging
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from textgan_env.discriminators import DiscriminatorModule
from textgan_env.envs import defaults
from textgan_env.tasks import CorpusTask, OracleTask, Task, ToyTask, kept, oracle
from textgan_env.text.corpus import load_corpus


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is kept; what this process knows already is forgotten, and fits are short."""
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path))
    monkeypatch.setattr(defaults, "DEFAULT_DISCRIMINATOR_STEPS", 3)
    defaults.default_discriminator.cache_clear()
    return tmp_path / "fitted"


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each fit."""
    counted: list[int] = []
    fit = defaults._fit

    def counting(*args: object, **options: int) -> None:
        counted.append(1)
        fit(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(defaults, "_fit", counting)
    return counted


def weights(task: Task, seed: int = 0) -> dict[str, Tensor]:
    """As a process that has just begun gets them."""
    defaults.default_discriminator.cache_clear()
    found = defaults.default_discriminator(task, seed)
    assert isinstance(found, DiscriminatorModule)
    assert not found.training
    assert not any(weight.requires_grad for weight in found.parameters())
    return found.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def corpus(*more: str) -> Task:
    lines = [f"{a} {b}" for a in ("the", "a", "my") for b in ("cat", "dog", "fox", "hen")]
    return CorpusTask(load_corpus(texts=[*lines, *more]))


def test_it_is_fitted_once_said_once_and_read_with_the_same_bits(
    folder: Path, fits: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    first = weights(ToyTask(size=40))
    (line,) = caplog.messages
    (record,) = caplog.records
    assert line.startswith("making the default discriminator of task 'toy'")
    assert (record.levelno, record.name.partition(".")[0]) == (logging.WARNING, "textgan_env")  # shown by default
    assert same(weights(ToyTask(size=40)), first)
    assert len(fits) == len(caplog.messages) == 1
    (path,) = folder.glob("*.safetensors")
    path.unlink()
    assert same(weights(ToyTask(size=40)), first)
    assert len(fits) == 2


def test_whatever_it_follows_from_makes_it_another(
    folder: Path, fits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights(ToyTask(size=40))
    others: list[Callable[[], object]] = [
        lambda: weights(ToyTask(size=40), seed=1),
        lambda: weights(ToyTask(size=41)),
        lambda: weights(ToyTask(size=40, text_seed=7)),
        lambda: weights(ToyTask(size=40, seed=7)),
        lambda: weights(corpus()),
        lambda: weights(corpus("the cat the dog", "a dog my cat")),
        lambda: monkeypatch.setattr(kept, "_code", lambda: "other code") or weights(ToyTask(size=40)),
        lambda: monkeypatch.setattr(torch, "__version__", "9.9") or weights(ToyTask(size=40)),
        lambda: monkeypatch.setattr(kept, "processor_name", lambda: "another") or weights(ToyTask(size=40)),
    ]
    for number, other in enumerate(others, start=2):
        other()
        assert len(fits) == len([*folder.glob("*.safetensors")]) == number


class Harm:
    """Unpickled it would write a file."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("harm"),)


def of_another_shape(whole: bytes) -> bytes:
    tensors = safetensors.torch.load(whole)
    return safetensors.torch.save({**tensors, "left": tensors["left"][:-1].contiguous()})


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "header only": lambda whole: whole[:200],
    "cut": lambda whole: whole[:-1],
    "flipped bit": lambda whole: whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:],
    "another shape": of_another_shape,
    "a tensor less": lambda whole: safetensors.torch.save({"left": safetensors.torch.load(whole)["left"]}),
    "too long": lambda whole: whole + bytes(2**17),
    "pickle": lambda whole: pickle.dumps(Harm()),
    "noise": lambda whole: b"\xff" * 99,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_or_foreign_file_is_fitted_again_and_replaced(
    broken: Callable[[bytes], bytes], folder: Path, fits: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = weights(ToyTask(size=40))
    (path,) = folder.glob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(broken(whole))
    assert same(weights(ToyTask(size=40)), first)
    assert len(fits) == 2
    assert path.read_bytes() == whole
    assert not Path("harm").exists()


def test_a_file_of_another_discriminator_of_the_same_shapes_is_not_taken(folder: Path, fits: list[int]) -> None:
    expected = weights(ToyTask(size=40))
    weights(ToyTask(size=40), seed=1)
    older, newer = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    older.write_bytes(newer.read_bytes())
    assert same(weights(ToyTask(size=40)), expected)
    assert len(fits) == 3


def test_where_nothing_can_be_kept_it_is_fitted_and_that_is_all(
    fits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = weights(ToyTask(size=40))
    monkeypatch.setenv("TEXTGAN_DATA", "/dev/null/folder")
    assert same(weights(ToyTask(size=40)), first)
    assert len(fits) == 2


def test_the_oldest_go_when_there_are_too_many(folder: Path, fits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    weights(ToyTask(size=40))
    (path,) = folder.glob("*.safetensors")
    monkeypatch.setattr(kept, "_MOST_KEPT", 2.5 * path.stat().st_size)
    for seed in range(1, 4):
        time.sleep(0.01)
        weights(ToyTask(size=40), seed)
    assert len([*folder.glob("*.safetensors")]) == 2
    weights(ToyTask(size=40), 3)
    assert len(fits) == 4
    weights(ToyTask(size=40), 0)
    assert len(fits) == 5


def test_an_oracle_draws_its_texts_once_and_others_for_whatever_they_follow_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small: dict[str, Any] = {
        "vocab_size": 9,
        "max_length": 3,
        "embed_size": 2,
        "hidden_size": 2,
        "train_size": 40,
        "test_size": 40,
    }
    drawn = OracleTask(**small).split("train")
    assert not folder.exists()  # not worth a file
    monkeypatch.setattr(oracle, "_QUICK", 0)
    for _ in range(2):
        found = OracleTask(**small).split("train")
        assert torch.equal(found.tokens_BT, drawn.tokens_BT)
        assert torch.equal(found.lengths_B, drawn.lengths_B)
    (line,) = caplog.messages
    assert line.startswith("making the 40 train texts of task 'oracle'")
    others = ({"seed": 1}, {"text_seed": 1}, {"max_length": 4}, {"train_size": 41}, {"hidden_size": 3})
    for changed in ({}, *others):
        task = OracleTask(**{**small, **changed})
        task.split("train")
        task.split("test")
    # The test split does not follow from how many training texts there are.
    assert len([*folder.glob("*.safetensors")]) == 2 * len([{}, *others]) - 1


DRAW = """
from textgan_env.ops.checksums import checksum
from textgan_env.tasks import OracleTask
print(checksum("", {"tokens": OracleTask(train_size=2_000).split("train").tokens_BT}))
"""


@pytest.mark.slow
def test_processes_that_want_the_same_at_once_make_it_once(folder: Path) -> None:
    pipe = subprocess.PIPE
    draw = [sys.executable, "-c", DRAW]
    at_once = [subprocess.Popen(draw, stdout=pipe, stderr=pipe, text=True) for _ in range(3)]
    said, complained = zip(*[process.communicate() for process in at_once], strict=True)
    assert [process.returncode for process in at_once] == [0, 0, 0]
    assert len(set(said)) == "".join(complained).count("making") == len([*folder.glob("*.safetensors")]) == 1


READY = """
import time, torch, gymnasium as gym, textgan_env.envs, numpy as np
begin = time.process_time()
env = gym.make("TextGAN-v0")
env.reset(seed=0)
reward, ended = 0.0, False
while not ended:
    _, reward, ended, _, _ = env.step(np.int64(0))
assert reward > 0
print(time.process_time() - begin)
"""


@pytest.mark.slow
def test_a_bare_environment_is_ready_within_a_second_the_second_time() -> None:
    """Processor time to make TextGAN-v0 and be paid for a text; importing torch is not counted."""
    runs = [subprocess.run([sys.executable, "-c", READY], check=True, capture_output=True, text=True) for _ in range(2)]
    assert ["making" in run.stderr for run in runs] == [True, False]
    assert float(runs[1].stdout) < 1
