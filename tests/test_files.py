import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from conftest import disk_full
from textgan_env.utils.files import append_safely, write_safely


def test_new_content_replaces_the_old_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_safely(path, "old")
    write_safely(path, "new line\nünï")
    assert path.read_bytes() == "new line\nünï".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_file_and_removes_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    path = tmp_path / "a.txt"
    write_safely(path, b"old")
    monkeypatch.setattr(os, stage, disk_full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_safely(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["a.txt"])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
def test_a_kill_before_the_rename_keeps_the_old_file_and_the_next_write_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_safely(path, "old")
    program = (
        "import os, signal, sys; from textgan_env.utils.files import write_safely\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_safely(sys.argv[1], 'new')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=Path(__file__).parent.parent)
    assert (done.returncode, path.read_text(), len(os.listdir(tmp_path))) == (-signal.SIGKILL, "old", 2)
    write_safely(path, "newer")
    assert (path.read_text(), os.listdir(tmp_path)) == ("newer", ["a.txt"])


def test_the_old_file_is_kept_under_another_name(tmp_path: Path) -> None:
    path, kept = tmp_path / "last", tmp_path / "previous"
    for content in ("one", "two", "three"):
        write_safely(path, content, keep=kept)
    assert (path.read_text(), kept.read_text()) == ("three", "two")
    assert sorted(os.listdir(tmp_path)) == ["last", "previous"]


def test_the_old_file_is_kept_where_a_file_cannot_have_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> NoReturn:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    test_the_old_file_is_kept_under_another_name(tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_at_any_rename_leaves_a_last_file(tmp_path: Path, renames: int) -> None:
    path, kept = tmp_path / "last", tmp_path / "previous"
    write_safely(path, "one", keep=kept)
    write_safely(path, "two", keep=kept)
    program = (
        "import os, signal, sys; from textgan_env.utils.files import write_safely\n"
        "replace, done = os.replace, []\n"
        "def killed(*names):\n"
        f"    if len(done) == {renames}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    done.append(replace(*names))\n"
        "os.replace = killed\n"
        "write_safely(sys.argv[1], 'three', keep=sys.argv[2])"
    )
    words = [sys.executable, "-c", program, str(path), str(kept)]
    done = subprocess.run(words, cwd=Path(__file__).parent.parent)
    expected = {0: (-signal.SIGKILL, "two", "one"), 1: (-signal.SIGKILL, "two", "two"), 2: (0, "three", "two")}
    assert (done.returncode, path.read_text(), kept.read_text()) == expected[renames]


def test_appending_makes_the_file_and_adds_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    append_safely(path, "one\n")
    append_safely(path, "zwölf\n")
    assert path.read_text(encoding="utf-8") == "one\nzwölf\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_append_to_a_full_disk_names_the_file(tmp_path: Path) -> None:
    link = tmp_path / "metrics.jsonl"
    link.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        append_safely(link, "row\n")
    assert caught.value.filename == str(link)


def test_an_append_that_got_half_way_is_taken_back(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.txt"
    path.write_text("x" * 900)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file over the limit is an error, not a signal
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            append_safely(path, "y" * 500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_text() == "x" * 900
