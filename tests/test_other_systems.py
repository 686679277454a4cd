"""What would break on Windows or macOS, imitated here: neither has been tried."""

import ast
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agents import cli
from conftest import PROJECT
from textgan_env.runs import folder
from textgan_env.utils import errors, files
from textgan_env.utils.errors import friendly_errors
from textgan_env.utils.files import write_safely


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the code asks to know that it runs on Windows; paths stay those of this machine."""
    for module in (errors, files):
        monkeypatch.setattr(module, "os", _Windows(os))
    monkeypatch.setattr("textgan_env.utils.files.time.sleep", lambda _: None)


class _Windows:
    """The module ``os``, as Windows has it."""

    name = "nt"

    def __init__(self, real: object) -> None:
        self.real = real

    def __getattr__(self, name: str) -> object:
        if name == "O_DIRECTORY":
            raise AttributeError(name)
        return getattr(self.real, name)


@pytest.mark.usefixtures("windows")
def test_a_file_that_a_virus_scanner_reads_is_replaced_when_it_has_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, refusals = os.replace, iter([True, True, False])

    def busy(*names: Path) -> None:
        if next(refusals, False):
            raise PermissionError(13, "Access is denied")
        replace(*names)

    monkeypatch.setattr(os, "replace", busy)
    write_safely(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.usefixtures("windows")
def test_a_file_that_stays_open_elsewhere_is_named_and_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("old")

    def denied(*_: Path) -> None:
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(os, "replace", denied)
    with pytest.raises(PermissionError) as refused:
        write_safely(tmp_path / "a.txt", "new")
    assert refused.value.filename == str(tmp_path / "a.txt")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a.txt": "old"}


@pytest.mark.usefixtures("windows")
def test_a_reader_that_goes_away_is_no_error_on_windows_either(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving, friendly_errors():
        raise OSError(22, "Invalid argument")
    assert (leaving.value.code, capsys.readouterr().err) == (141, "")


def test_the_same_number_from_a_file_is_an_error_here(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving, friendly_errors():
        raise OSError(22, "Invalid argument")
    assert leaving.value.code == 2
    assert "Invalid argument" in capsys.readouterr().err


def test_texts_come_through_a_pipe_where_pipes_have_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path != "/dev/stdin" and exists(path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("caf\u00e9\r\n".encode())))
    with cli._readable("-") as path:
        assert Path(path).read_bytes() == b"caf\xc3\xa9\r\n"
    assert not exists(path)


def test_the_answer_of_git_is_utf_8_whatever_the_code_page(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def run(command: list[str], **options: object) -> "subprocess.CompletedProcess[str]":
        asked.update(options)
        return subprocess.CompletedProcess(command, 0, stdout="/caf\u00e9\n", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    assert folder._git(Path(), "rev-parse") == "/caf\u00e9"
    assert asked["encoding"] == "utf-8"


def test_importing_asks_for_no_signal_that_windows_lacks() -> None:
    """SIGHUP, SIGKILL, SIGUSR1 and pthread_kill are not there; SIGBREAK is."""
    lacking = ["SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "pthread_kill"]
    code = f"""
import signal
for name in {[name for name in lacking if hasattr(signal, name)]}:
    delattr(signal, name)
signal.SIGBREAK = signal.SIGTERM
import textgan_env.utils.stopping as stopping, textgan_env.utils.errors, agents.cli
assert stopping._ASKING == [signal.SIGINT, signal.SIGTERM, signal.SIGBREAK]
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert hasattr(signal, "SIGINT")


def test_no_name_of_a_file_of_the_project_is_refused_by_windows() -> None:
    """Reserved characters and names, and names that differ in case only."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs git to know which files belong to the project")
    names = [name for name in done.stdout.split("\0") if name]
    reserved = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
    parts = [part for name in names for part in name.split("/")]
    assert [part for part in parts if set(part) & set('<>:"\\|?*') or part.split(".")[0].lower() in reserved] == []
    assert len({name.lower() for name in names}) == len(names)


def test_text_is_read_and_written_with_an_encoding_everywhere() -> None:
    """The code page of Windows is not UTF-8."""
    without = []
    for file in (*(PROJECT / "textgan_env").rglob("*.py"), *(PROJECT / "agents").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                given = {each.arg for each in node.keywords}
                read = name == "read_text" and not node.args
                written = name == "write_text" and len(node.args) < 2
                said = any(each.arg == "text" for each in node.keywords) and name in ("run", "Popen")
                if (read or written or said) and "encoding" not in given:
                    without.append(f"{file.name}:{node.lineno}")
    assert without == []
