"""Real full disks and read-only ones: small file systems in memory, which only root can mount."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import PROJECT
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import read_metrics

pytestmark = pytest.mark.slow
SMOKE = ["--preset", "smoke", "--task", "toy", "--threads", "1", "--checkpoint-every", "0.1"]


def seqgan(*words: str | Path) -> tuple[int, list[str]]:
    """The exit code, and what stands on stderr besides lines of progress."""
    command = [sys.executable, str(PROJECT / "agents" / "seqgan.py"), *map(str, words)]
    environment = {**os.environ, "TEXTGAN_DEBUG": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, [line for line in done.stderr.splitlines() if " % (" not in line]


def mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def run_in(folder: Path) -> RunFolder:
    (found,) = folder.glob("seqgan-*")
    return RunFolder.open(found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run on a disk with room."""
    runs = tmp_path_factory.mktemp("whole")
    assert seqgan(*SMOKE, "--runs", runs)[0] == 0
    return run_in(runs)


@pytest.mark.parametrize("size", [60, 150])
def test_a_disk_that_fills_ends_the_run_in_a_sentence_and_with_room_it_resumes(
    size: int, disk: Path, whole: RunFolder
) -> None:
    """A checkpoint takes 40 kB: the first disk has no room for a second beside it, the other none for all files."""
    mount("-o", f"remount,size={size}k", str(disk))
    code, (sentence,) = seqgan(*SMOKE, "--runs", disk)
    assert (code, "no space is left on the disk" in sentence) == (2, True)
    run = run_in(disk)
    for path in (run.last_checkpoint, run.previous_checkpoint, run.best_checkpoint):
        if path.exists():
            load_checkpoint(path)
    mount("-o", "remount,size=64m", str(disk))
    assert seqgan("--resume", run.path)[0] == 0
    expected, found = (load_checkpoint(one.last_checkpoint).all_tensors for one in (whole, run))
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)
    assert read_metrics(run.path) == read_metrics(whole.path)


def test_a_read_only_folder_is_refused_in_a_sentence(disk: Path) -> None:
    assert seqgan(*SMOKE, "--runs", disk)[0] == 0
    run = run_in(disk)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    mount("-o", "remount,ro", str(disk))
    for words in (["--resume", run.path], [*SMOKE, "--runs", disk]):
        code, (sentence,) = seqgan(*map(str, words))
        assert (code, "Read-only file system" in sentence) == (2, True)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
