"""A bad checkpoint is refused with one sentence through every door, runs nothing, and costs next to nothing.

The thousand of the full harness are those with the numbers 0 to 999 (`make faults`); some of each kind run with the
other tests. Time is the processor's, memory the peak of the process above where it stood, both for each door.
"""

import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import textgan_env
from agents import cli, mle, seqgan
from faults.corruptions import CORRUPTIONS, MARKER, OF_TRAINING, Harm, corrupted, write_holes
from faults.watching import Meter, nothing_happens, refusal
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.training.launch import launch
from textgan_env.utils.errors import InputError

# The library that reads command lines draws from the global generators.
pytestmark = pytest.mark.moves_global_rng

DOORS = ("resume", "load", "sample", "evaluate", "pretrained")
MOST_SECONDS, MOST_MEMORY = 2.0, 200 * 2**20
NOUNS, VERBS = ("cat", "dog", "fox", "cow", "bee"), ("sat", "ran", "ate", "hid")
LINES = [f"{article} {noun} {verb}" for article in ("the", "a") for noun in NOUNS for verb in VERBS]
TINY = ["--preset", "smoke", "--show-samples", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs: on words, with a discriminator on the toy task, and another model."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "my.txt").write_text("\n".join([*LINES, "the yak sang a song"]))
    text = ["--corpus", str(folder / "my.txt"), "--min-count", "2"]
    mle.main([*text, "--runs", str(folder), "--checkpoint-every", "0", *TINY])
    mle.main([*text, "--runs", str(folder / "other"), "--embed-size", "4", "--seed", "1", *TINY])
    seqgan.main(["--task", "toy", "--runs", str(folder), *TINY])
    return folder


def doors(run: Path, folder: Path) -> dict[str, Callable[[], object]]:
    """Every way in which a checkpoint of a run is read: --resume, load, sample, evaluate, --pretrained.

    The words of a command are read before the file is; here they stand already in the config or the arguments.
    """
    text = {"task": "corpus", "corpus": str(folder / "my.txt"), "min_count": 2}
    begin = replace(seqgan.smoke("toy"), pretrained=run, runs=folder / "new", threads=1, show_samples=0)
    begin = replace(begin, **(text if run.name.startswith("mle") else {}))
    goes_on: Callable[[], object] = lambda: launch(mle.MLEConfig(resume=run, threads=1), mle.MLE)  # noqa: E731
    if run.name.startswith("seqgan"):
        goes_on = lambda: launch(seqgan.SeqGANConfig(resume=run, threads=1), seqgan.SeqGAN)  # noqa: E731
    return {
        "resume": goes_on,
        "load": lambda: textgan_env.load(run),
        "sample": lambda: cli.sample(run, n=2),
        "evaluate": lambda: cli.evaluate(run, samples=10),
        "pretrained": lambda: launch(begin, seqgan.SeqGAN),
    }


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name[0] != "."}


class Worst:
    """The dearest refusals so far."""

    def __init__(self) -> None:
        self.seconds: tuple[float, str] = (0.0, "")
        self.memory: tuple[float, str] = (0.0, "")
        self.refused = 0

    def note(self, meter: Meter, what: str) -> None:
        self.refused += 1
        self.seconds = max(self.seconds, (meter.seconds, what))
        self.memory = max(self.memory, (meter.memory / 2**20, what))


def try_all(
    numbers: range, folder: Path, work: Path, monkeypatch: pytest.MonkeyPatch, through: tuple[str, ...] = DOORS
) -> Worst:
    """Put each bad file in the place of a good one and knock at every door."""
    monkeypatch.chdir(work)
    monkeypatch.setenv("TEXTGAN_DATA", str(work / "data"))  # no named text is here
    (work / "hostile.pkl").write_bytes(__import__("pickle").dumps([Harm()]))
    other = (folder / "other" / "mle-corpus-1" / "checkpoints" / "last.safetensors").read_bytes()
    worst = Worst()
    for number in numbers:
        name = ("mle-corpus-1", "seqgan-toy-1")[number // 2 % 2]
        run = work / name
        shutil.copytree(folder / name, run)
        whole = (run / "checkpoints" / "last.safetensors").read_bytes()
        kind, bad = corrupted(number, whole, other)
        for checkpoint in (run / "checkpoints").iterdir():
            checkpoint.write_bytes(bad)
        before = contents(run)
        for door, enter in doors(run, folder).items():
            if door not in through or (kind in OF_TRAINING and door != "resume"):
                continue
            what = f"{kind} (number {number}) through {door}"
            with nothing_happens(), Meter() as meter:
                said = refusal(enter)
            assert said, f"{what} was not refused"
            assert len(said) < 1500, f"{what}: {said}"
            assert meter.memory < MOST_MEMORY, f"{what} took {meter.memory / 2**20:.0f} MB"
            worst.note(meter, what)
        assert contents(run) == before, f"{kind} (number {number}) changed the run"
        shutil.rmtree(run)
    assert not (work / MARKER).exists()
    assert not (work / "made-by-a-file").exists()
    assert not (work / "data").exists()
    assert not (folder / "new").exists()
    return worst


def test_good_checkpoints_open_every_door(folder: Path) -> None:
    for name in ("mle-corpus-1", "seqgan-toy-1"):
        for door, enter in doors(folder / name, folder).items():
            assert refusal(enter) == "", door
    shutil.rmtree(folder / "new")


def test_a_bad_checkpoint_is_one_sentence_of_the_commands(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "mle-corpus-1"
    shutil.copytree(folder / run.name, run)
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.write_bytes(b"PK\x03\x04" + bytes(100))
    commands = [["sample", str(run)], ["evaluate", str(run)], ["train", "mle", "--resume", str(run)]]
    begin = ["train", "seqgan", "--corpus", str(folder / "my.txt"), "--runs", str(tmp_path / "new")]
    for words in [*commands, [*begin, "--pretrained", str(run), *TINY]]:
        assert "is not a whole checkpoint" in refusal(functools.partial(cli.main, words))
    assert not (tmp_path / "new").exists()


@pytest.mark.timeout(600)
def test_one_of_each_kind_of_bad_checkpoint_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = len(CORRUPTIONS | OF_TRAINING)
    worst = try_all(range(3000, 3000 + kinds), folder, tmp_path, monkeypatch, ("resume", "load"))
    assert worst.refused == 2 * len(CORRUPTIONS) + len(OF_TRAINING)


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(4))
def test_a_thousand_bad_checkpoints_are_refused_at_every_door(
    part: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worst = try_all(range(250 * part, 250 * (part + 1)), folder, tmp_path, monkeypatch)
    with capsys.disabled():
        seconds, memory = worst.seconds, worst.memory
        print(f"\n250 bad checkpoints, {worst.refused:,} refusals; the worst took {seconds[0]:.2f} s ({seconds[1]}),")
        print(f"and {memory[0]:.0f} MB ({memory[1]})")
    assert worst.seconds[0] < MOST_SECONDS


@pytest.mark.skipif(not hasattr(os, "SEEK_HOLE"), reason="file systems here have no files with holes")
@pytest.mark.parametrize("size", [2**28, 2**40])
def test_a_file_of_holes_is_refused_before_it_is_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "last.safetensors"
    write_holes(path, size)
    with Meter() as meter, pytest.raises(InputError, match="bytes were never written"):
        load_checkpoint(path)
    assert meter.memory < 2**24


def test_a_pipe_and_a_device_in_place_of_files_are_refused_at_once(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "mle-corpus-1"
    shutil.copytree(folder / run.name, run)
    for name, said in (("checkpoints/best.safetensors", "no checkpoint"), ("config.json", "no config.json")):
        (run / name).unlink()
        os.mkfifo(run / name)
        assert said in refusal(lambda: textgan_env.load(run))


def test_a_link_in_a_folder_from_somebody_else_is_not_written_through(folder: Path, tmp_path: Path) -> None:
    run, target = tmp_path / "mle-corpus-1", tmp_path / "precious.txt"
    shutil.copytree(folder / run.name, run)
    target.write_text("mine")
    for name in ("samples.txt", "metrics.jsonl", "metrics.csv", "evaluation.json", "final_samples.txt", "config.json"):
        (run / f".{name}.tmp").symlink_to(target)
    (run / "checkpoints" / ".last.safetensors.tmp").symlink_to(target)
    assert refusal(doors(run, folder)["resume"]) == ""
    assert target.read_text() == "mine"
