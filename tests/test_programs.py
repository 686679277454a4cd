"""Commands that are shown can be typed where they are read."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from textgan_env.utils.programs import typed_path, typed_program


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment in the working folder that is not active."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "textgan"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    return folder


def test_a_program_is_named_by_its_path_where_its_environment_is_not_active(environment: Path) -> None:
    assert typed_program("textgan") == ".venv/bin/textgan"
    assert typed_program("python") == ".venv/bin/python"


def test_a_program_is_named_alone_where_the_shell_finds_it(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(environment))
    assert (typed_program("textgan"), typed_program("python")) == ("textgan", "python")


def test_another_program_of_the_same_name_is_not_taken_for_ours(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "textgan").write_text("#!/bin/sh\n")
    (theirs / "textgan").chmod(0o755)
    monkeypatch.setenv("PATH", str(theirs))
    assert typed_program("textgan") == ".venv/bin/textgan"


def test_python_is_python_where_the_environment_calls_it_otherwise(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment / "python3").symlink_to(environment / "python")
    monkeypatch.setattr(sys, "executable", str(environment / "python3"))
    monkeypatch.setenv("PATH", str(environment))
    assert typed_program("python") == "python"


def test_a_program_that_is_not_beside_this_python_keeps_its_name(environment: Path) -> None:
    assert typed_program("torchrun") == "torchrun"


def test_a_program_of_windows_is_found_by_its_ending(environment: Path) -> None:
    (environment / "textgan").rename(environment / "textgan.exe")
    assert typed_program("textgan") == ".venv/bin/textgan.exe"


def test_a_path_is_short_below_the_working_folder_and_in_quotes_where_the_shell_would_cut_it(
    environment: Path, tmp_path: Path
) -> None:
    assert typed_path(tmp_path / "my runs" / "a-1") == "'my runs/a-1'"
    assert typed_path("/else where/run") == "'/else where/run'"
    assert shlex.split(typed_path("it's $HOME")) == ["it's $HOME"]


def test_a_path_is_quoted_as_the_shell_of_windows_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path.cwd()
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr("textgan_env.utils.programs.Path", type(here))  # the name decides which paths are made
    assert typed_path("my runs/a-1") == '"my runs/a-1"'
