"""A run is written under its own lock only, keeps to its text, and reads no file that a stranger names."""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import textgan_env
from agents import cli, mle, seqgan
from conftest import assert_refused
from faults.test_corrupted_checkpoints import LINES, TINY, forged
from textgan_env.runs.checkpointing import CheckpointManager
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import read_metrics
from textgan_env.show.report import write_report
from textgan_env.training.launch import launch
from textgan_env.utils.errors import InputError, MissingDataError
from textgan_env.utils.files import write_safely
from textgan_env.utils.printing import printable, say, say_json

# The library that reads command lines draws from the global generators.
pytestmark = pytest.mark.moves_global_rng

TOY = mle.MLEConfig(
    task="toy", epochs=3, embed_size=4, hidden_size=4, batch_size=100, threads=1, show_samples=1, checkpoint_every=0.0
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "my.txt"
    file.write_text("".join(f"{line}\n" for line in LINES))
    return file


@pytest.fixture
def run(text: Path) -> Path:
    """A finished run on a text."""
    mle.main(["--corpus", str(text), "--runs", str(text.parent), *TINY])
    return text.parent / "mle-my-1"


def forge(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the document of every checkpoint of a run, with a right checksum."""
    for path in (run / "checkpoints").iterdir():
        whole = load_checkpoint(path)
        header = whole.header.model_dump()
        change(header["document"])
        path.write_bytes(forged(json.dumps(header), whole.all_tensors))


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------ its own lock


def test_a_run_whose_folder_was_renamed_writes_nothing_under_the_old_name_and_is_resumed_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = launch(replace(TOY, runs=tmp_path / "whole"), mle.MLE)
    old, moved = tmp_path / "runs" / "mle-toy-1", tmp_path / "keep"
    save, calls = CheckpointManager.save_point, []

    def renamed(manager: CheckpointManager, *, write: bool = False) -> None:
        save(manager, write=write)
        calls.append(1)
        if len(calls) == 5:
            old.rename(moved)
            # As the process of another run does.
            (old / "checkpoints").mkdir(parents=True)
            for name in (".lock", "config.json", "metrics.jsonl", "samples.txt", "checkpoints/last.safetensors"):
                (old / name).write_text("another's")
            before.update(files_in(old))

    before: dict[str, bytes] = {}
    monkeypatch.setattr(CheckpointManager, "save_point", renamed)
    assert_refused("is not the one any more", launch, replace(TOY, runs=tmp_path / "runs"), mle.MLE)
    assert before
    assert files_in(old) == before
    monkeypatch.undo()
    found = launch(replace(TOY, resume=moved), mle.MLE)
    assert read_metrics(found.path) == read_metrics(expected.path)
    one, other = (load_checkpoint(each.last_checkpoint).all_tensors for each in (found, expected))
    assert all(one[name].equal(other[name]) for name in other)


def test_a_removed_lock_or_folder_ends_the_writing(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mle", config={})
    with run.locked():
        write_safely(run.path / "a.txt", "a")
        (run.path / ".lock").unlink()
        assert_refused("is not the one any more", write_safely, run.path / "a.txt", "b")
        assert_refused("is not the one any more", run.append_samples, 1, ["a"])
    assert (run.path / "a.txt").read_text() == "a"


@pytest.mark.parametrize("name", ["checkpoints", "tb"])
def test_a_folder_of_the_run_that_leads_elsewhere_is_not_written_to(name: str, tmp_path: Path) -> None:
    run = launch(replace(TOY, runs=tmp_path), mle.MLE)
    (run.path / name).rename(tmp_path / "elsewhere")
    (run.path / name).symlink_to(tmp_path / "elsewhere")
    before = files_in(tmp_path / "elsewhere")
    assert_refused("leads out of its folder", launch, mle.MLEConfig(resume=run.path), mle.MLE)
    assert files_in(tmp_path / "elsewhere") == before


# ------------------------------------------------------------------------------------------------ its own text


def test_a_text_whose_lines_are_in_another_order_is_refused_everywhere(run: Path, text: Path) -> None:
    content = text.read_text()
    text.write_text("".join(sorted(content.splitlines(keepends=True), reverse=True)))
    assert len(text.read_text()) == len(content)
    for enter in (textgan_env.load, cli.sample, cli.evaluate, lambda run: cli.report((run,))):
        assert_refused("has changed: put it back", enter, run)
    assert_refused("has changed: put it back", launch, mle.MLEConfig(resume=run), mle.MLE)
    text.write_text(content)
    textgan_env.load(run)


def test_files_that_a_checkpoint_names_without_their_hash_are_not_read(run: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret sat\n" * 9)
    named = {"valid_path": str(secret), "test_path": str(secret)}
    forge(run, lambda document: document["task"].update(named))
    assert_refused("without its hash", write_report, [run])
    forge(run, lambda document: document.pop("files"))
    assert_refused("without its hash", write_report, [run])
    size = {"bytes": secret.stat().st_size, "sha256": "0" * 64}
    forge(run, lambda document: document.update(files={"path": size, "valid_path": size, "test_path": size}))
    assert_refused("has changed", write_report, [run])


def test_a_run_without_hashes_loads_with_a_note_and_shows_no_text(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = write_report([run], texts=1, rollouts=1).read_text()
    assert "not shown" not in page
    forge(run, lambda document: document.pop("files"))
    capsys.readouterr()
    page = write_report([run], texts=1, rollouts=1).read_text()
    assert "keeps no hash of" in capsys.readouterr().err
    shown = page.partition('"real_texts":[')[2].partition("]")[0]
    assert set(shown.split(",")) == {'"(not shown: the run keeps no hash of its text', ' as in earlier versions)"'}


def test_a_named_text_is_not_derived_into_a_folder_that_a_checkpoint_names(run: Path, tmp_path: Path) -> None:
    (tmp_path / "wordnet_phrases.txt").write_text("mine")
    forge(run, lambda document: document.update(task={"name": "wordnet", "data_dir": str(tmp_path)}))
    loaded = textgan_env.load(run)  # it generates
    with pytest.raises(MissingDataError, match="textgan data fetch wordnet"):
        loaded.evaluate()
    assert (tmp_path / "wordnet_phrases.txt").read_text() == "mine"


def test_a_resumed_run_does_not_read_the_run_that_it_began_with(run: Path, text: Path, tmp_path: Path) -> None:
    words = ["--corpus", str(text), "--pretrained", str(run), *TINY, "--checkpoint-every", "0"]
    seqgan.main([*words, "--runs", str(tmp_path / "whole")])
    whole = RunFolder(tmp_path / "whole" / "seqgan-my-1")
    assert whole.pretraining_file.read_bytes() == (run / "metrics.jsonl").read_bytes()
    save, calls = CheckpointManager.save_point, []

    def stopped(manager: CheckpointManager, *, write: bool = False) -> None:
        save(manager, write=write)
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointManager, "save_point", stopped)
        with pytest.raises(SystemExit):
            seqgan.main([*words, "--runs", str(tmp_path / "stopped")])
    run.rename(tmp_path / "away")
    found = RunFolder(tmp_path / "stopped" / "seqgan-my-1")
    seqgan.main(["--resume", str(found.path), "--threads", "1"])
    one, other = (load_checkpoint(each.last_checkpoint).all_tensors for each in (found, whole))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in other)


def test_words_that_no_checkpoint_has_room_for_are_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text("".join(f"{letter * 60_000}{number} b\n" for number in range(20) for letter in "cdefghijkl"))
    words = ["--corpus", str(file), "--mode", "whitespace", "--runs", str(tmp_path / "runs"), *TINY]
    with pytest.raises(SystemExit):
        mle.main(words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "value"), [("task", [1]), ("seed", "x"), ("config", None)])
def test_a_config_of_another_type_is_refused(name: str, value: object, run: Path) -> None:
    about = json.loads((run / "config.json").read_text())
    about[name] = value if name != "config" else about["config"] | {"temperature": "hot"}
    (run / "config.json").write_text(json.dumps(about))
    with pytest.raises(InputError):
        textgan_env.load(run).evaluate(samples=10)


# ------------------------------------------------------------------------------------------------ what is printed


def test_what_would_steer_a_terminal_or_is_not_in_its_encoding_is_spelled_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printable("a\tb\n\x1b[2J\x9b\r\u202e\u4e00é") == "a\tb\n\\x1b[2J\\x9b\\r\\u202e\u4e00é"
    assert printable("a\n", line=True) == "a\\n"
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    say("\u0e01é\x1b")
    document = {"\u0e01\x9b": "é\x07"}
    say_json(document)
    assert raw.getvalue().startswith("\\u0e01é\\x1b\n".encode("cp1252"))
    assert json.loads(raw.getvalue().decode("cp1252").partition("\n")[2]) == document


def test_samples_with_control_characters_steer_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my.txt"
    file.write_text("".join(f"{one}\x1b[2J {two}\x9b31m\n" for one in "abcdef" for two in "ghijk"))
    mle.main(["--corpus", str(file), "--mode", "whitespace", "--runs", str(tmp_path), *TINY, "--show-samples", "3"])
    cli.sample(tmp_path / "mle-my-1", n=3)
    found = capsys.readouterr()
    assert "\\x1b[2" in found.out
    assert not [character for character in found.out + found.err if character < " " and character not in "\n\t"]
    assert "\x9b" not in found.out + found.err
