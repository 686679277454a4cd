import io
import os
import sys
from pathlib import Path

import pytest
import torch

from textgan_env.utils.errors import InputError, MissingDataError, friendly_errors, require_package
from textgan_env.utils.printing import say


def said(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and what stands on stderr."""
    with pytest.raises(SystemExit) as stop, friendly_errors():
        raise error
    found = capsys.readouterr().err
    assert found.count("\n") == 1
    return stop.value.code, found[:-1]  # type: ignore[return-value]


def test_a_mistake_is_one_line_that_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(InputError("no file 'a\n\x1b[2Jb'"), capsys) == (2, "error: no file 'a\\n\\x1b[2Jb'")
    code, line = said(InputError("x" * 10_000), capsys)
    assert (code, len(line)) == (2, 2003)


def test_a_line_is_one_write_so_that_the_lines_of_several_processes_stay_whole() -> None:
    class Stream(io.StringIO):
        writes: list[str] = []  # noqa: RUF012

        def write(self, text: str) -> int:
            self.writes.append(text)
            return len(text)

    say("stopped by SIGTERM", file=Stream())
    assert Stream.writes == ["stopped by SIGTERM\n"]


def test_a_package_that_is_not_installed_is_named_with_the_extra_that_brings_it() -> None:
    assert require_package("pytest", "dev", "it") == Path(pytest.__file__).parent
    with pytest.raises(MissingDataError, match=r"mode bpe needs the package no_such: pip install 'textgan-env\[bpe\]'"):
        require_package("no_such", "bpe", "mode bpe")


def test_sizes_without_memory_are_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(MemoryError(), capsys)[0] == 2
    try:
        torch.empty(2**60)
    except RuntimeError as error:
        code, line = said(error, capsys)
    assert code == 2
    assert line.startswith("error: there is not enough memory for these sizes")


def test_a_fault_of_ours_is_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    expected = "fault of textgan_env: KeyError: 'x'; to see where, run it again with --debug"
    assert said(KeyError("x"), capsys) == (1, expected)


def test_debug_among_the_words_or_in_the_environment_shows_every_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["textgan", "sample", "--debug"])
    with pytest.raises(KeyError), friendly_errors():
        raise KeyError("x")
    monkeypatch.setattr(sys, "argv", ["textgan"])
    monkeypatch.setitem(os.environ, "TEXTGAN_DEBUG", "1")
    with pytest.raises(InputError), friendly_errors():
        raise InputError("x")
