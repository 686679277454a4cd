import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import assert_refused, disk_full
from textgan_env.runs import folder
from textgan_env.runs.folder import RunFolder, machine, source_state
from textgan_env.utils.errors import InputError


@dataclass(frozen=True)
class Settings:
    """A nested part of a config."""

    lr: float = 0.5
    folder: Path = Path("a/b")


def create(root: Path, name: str = "mle", **changes: Any) -> RunFolder:
    arguments: dict[str, Any] = {"config": {"epochs": 3}, "command": ["mle.py", "--epochs", "3"]}
    return RunFolder.create(root, name, **(arguments | changes))


def test_config_says_what_was_run_and_where(tmp_path: Path) -> None:
    config = {"epochs": 3, "optimizer": Settings(), "device": torch.device("cpu")}
    about = RunFolder.open(create(tmp_path / "runs", config=config, task={"name": "toy"}, seed=7).path).about
    assert about["name"] == "mle"
    assert about["config"] == {"epochs": 3, "optimizer": {"lr": 0.5, "folder": "a/b"}, "device": "cpu"}
    assert (about["task"], about["seed"]) == ({"name": "toy"}, 7)
    assert about["command"] == ["mle.py", "--epochs", "3"]
    assert set(about["versions"]) >= {"textgan_env", "torch", "gymnasium", "numpy"}
    assert set(about["machine"]) == {"system", "cpu", "cores", "threads", "device"}
    assert about["machine"]["threads"] == torch.get_num_threads()
    assert "source" in about


def test_the_command_line_is_that_of_the_process_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["seqgan.py", "--seed", "1"])
    assert create(tmp_path, command=None).about["command"] == ["seqgan.py", "--seed", "1"]


def test_runs_of_one_name_are_numbered_and_none_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mle-7").mkdir()
    (tmp_path / "mle-x").mkdir()
    (tmp_path / "mle.2-9").mkdir()
    paths = [create(tmp_path).path.name for _ in range(2)] + [create(tmp_path, "seqgan").path.name]
    assert (paths, os.listdir(tmp_path / "mle-7")) == (["mle-8", "mle-9", "seqgan-1"], [])


def test_a_number_taken_at_the_same_moment_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir

    def taken_before(self: Path, *arguments: Any, **options: Any) -> None:
        if self.name == "mle-1":
            mkdir(self, exist_ok=True)
        mkdir(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", taken_before)
    assert create(tmp_path).path.name == "mle-2"


def test_paths_lie_in_the_folder(tmp_path: Path) -> None:
    run = create(tmp_path)
    assert run.last_checkpoint == run.path / "checkpoints" / "last.safetensors"
    assert run.best_checkpoint == run.path / "checkpoints" / "best.safetensors"
    assert run.last_checkpoint.parent.is_dir()
    assert (run.samples_file.name, run.curve_file.name) == ("samples.txt", "curve.png")


@pytest.mark.parametrize("name", ["", "  ", "a/b", "..", ".", "a\\b", "a\x00b", "a\n", " mle", ".hidden"])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    assert_refused("name", create, tmp_path / "runs", name)
    assert os.listdir(tmp_path) == []


def test_a_file_in_place_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    assert_refused("runs", create, tmp_path / "runs")
    assert_refused("Not a directory", create, tmp_path / "runs" / "below")
    assert (tmp_path / "runs").read_text() == "mine"


def test_a_disk_that_is_full_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", disk_full)
    assert_refused("No space left", create, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_config_that_json_cannot_hold_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="config"):
        create(tmp_path / "runs", config={"x": object()})
    assert os.listdir(tmp_path) == []


def test_opening_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    assert_refused("no run folder at", RunFolder.open, tmp_path / "none")
    assert_refused(r"it has no config\.json", RunFolder.open, tmp_path)
    for content in (b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"{}", b'{"config": 3}'):
        (tmp_path / "config.json").write_bytes(content)
        assert_refused(r"config\.json", RunFolder.open, tmp_path)


def test_a_folder_that_holds_runs_names_one_of_them(tmp_path: Path) -> None:
    create(tmp_path, name="b")
    create(tmp_path, name="a")
    assert_refused(r"it has no config\.json; name the runs in it, such as '.*a-1'", RunFolder.open, tmp_path)


def test_samples_are_readable_and_come_back(tmp_path: Path) -> None:
    run = create(tmp_path)
    assert run.samples() == []
    run.append_samples(1, ["a man rides a horse .", "step 9", "  two blanks", "", "床前\n明月"])
    run.append_samples(12, [])
    run.append_samples(30, ["a cat ."])
    assert run.samples_file.read_text(encoding="utf-8").startswith("step 1\n  a man rides a horse .\n  step 9\n")
    assert run.samples() == [
        (1, ["a man rides a horse .", "step 9", "  two blanks", "", "床前 明月"]),
        (12, []),
        (30, ["a cat ."]),
    ]


def test_rewinding_drops_the_samples_that_will_be_written_again(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.rewind(3)
    for step in (1, 3, 5):
        run.append_samples(step, [f"text {step}"])
    before = run.samples_file.read_text().partition("step 5")[0]
    with run.samples_file.open("a") as file:
        file.write("step")  # a kill in the middle of a write
    run.rewind(3)
    assert (run.samples_file.read_text(), run.samples()) == (before, [(1, ["text 1"]), (3, ["text 3"])])


@pytest.mark.parametrize("line", [b"not ours", b"step x", b"step " + b"9" * 20, b"\xff", b" x"])
def test_a_spoilt_samples_file_is_named_by_its_line(tmp_path: Path, line: bytes) -> None:
    run = create(tmp_path)
    run.append_samples(1, ["a"])
    with run.samples_file.open("ab") as file:
        file.write(line + b"\n")
    assert_refused(r"^line 4 of", run.samples)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout with one commit, which the package is made to believe it lies in."""
    package = tmp_path / "textgan_env"
    package.mkdir()
    (package / "runs.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first", "--no-verify")
    monkeypatch.setattr(folder, "__file__", str(package / "runs" / "folder.py"))
    return tmp_path


def test_the_commit_of_the_source_tree_and_its_changes_are_known(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert source_state() == {"commit": commit, "dirty": False}
    (checkout / "runs.log").write_text("not part of the source")
    assert source_state() == {"commit": commit, "dirty": False}
    (checkout / "textgan_env" / "runs.py").write_text("changed")
    assert source_state() == {"commit": commit, "dirty": True}


def test_a_package_installed_inside_another_repository_has_no_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = checkout / "venv" / "textgan_env"
    inner.mkdir(parents=True)
    monkeypatch.setattr(folder, "__file__", str(inner / "runs" / "folder.py"))
    assert source_state() is None


def test_a_machine_without_git_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert source_state() is None


def test_the_machine_is_described_as_json() -> None:
    found = machine(torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["device"] == "cpu"
    assert found["cpu"]


def test_a_lock_that_is_a_link_is_not_opened(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "runs", "mle", config={})
    (tmp_path / "precious").write_text("kept")
    (run.path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="is a link"), run.locked():
        pass
    assert (tmp_path / "precious").read_text() == "kept"
