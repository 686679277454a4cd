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


def seqgan(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROJECT / "agents" / "seqgan.py"), *words],
        capture_output=True, text=True, check=False, env={**os.environ, "TEXTGAN_DEBUG": ""},
    )  # fmt: skip


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


def the_run(disk: Path) -> RunFolder:
    (folder,) = disk.glob("seqgan-*")
    return RunFolder.open(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run on a disk with room."""
    runs = tmp_path_factory.mktemp("whole")
    assert seqgan(*SMOKE, "--runs", str(runs)).returncode == 0
    return the_run(runs)


def errors_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What stands on stderr besides lines of progress."""
    return [line for line in done.stderr.splitlines() if " % (" not in line]


@pytest.mark.parametrize("size", [60, 150])
def test_a_disk_that_fills_ends_the_run_in_a_sentence_and_with_room_it_goes_on(
    size: int, disk: Path, whole: RunFolder
) -> None:
    """A checkpoint takes 40 kB: the first disk has no room for a second beside it, the other none for all files."""
    mount("-o", f"remount,size={size}k", str(disk))
    full = seqgan(*SMOKE, "--runs", str(disk))
    assert full.returncode == 2, full.stderr
    (sentence,) = errors_of(full)
    assert sentence.startswith("error: no space is left on the disk")
    run = the_run(disk)
    for path in (run.last_checkpoint, run.previous_checkpoint, run.best_checkpoint):
        if path.exists():
            load_checkpoint(path)
    mount("-o", "remount,size=64m", str(disk))
    assert seqgan("--resume", str(run.path)).returncode == 0
    expected, found = (load_checkpoint(one.last_checkpoint).all_tensors for one in (whole, run))
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)
    assert read_metrics(run.path) == read_metrics(whole.path)


def test_a_read_only_folder_is_refused_in_a_sentence(disk: Path) -> None:
    assert seqgan(*SMOKE, "--runs", str(disk)).returncode == 0
    run = the_run(disk)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    mount("-o", "remount,ro", str(disk))
    for words in (["--resume", str(run.path)], [*SMOKE, "--runs", str(disk)]):
        done = seqgan(*words)
        assert done.returncode == 2, done.stderr
        (sentence,) = errors_of(done)
        assert "Read-only file system" in sentence
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    mount("-o", "remount,rw", str(disk))
