"""Trained weights in one file: what is packed, how a name finds it, and what is refused."""

import zipfile
from pathlib import Path

import pytest

from agents import cli
from conftest import assert_refused, mistake_of
from textgan_env import load
from textgan_env.runs import trained
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.trained import find_run
from textgan_env.show.demo import Plan
from textgan_env.show.play import find_runs
from textgan_env.show.weights import make_weights
from textgan_env.text.fetch import cache_dir

pytestmark = pytest.mark.moves_global_rng  # the library that reads command lines does


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own."""
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def archive(file: Path, members: dict[str, str]) -> Path:
    """A zip file with these members."""
    with zipfile.ZipFile(file, "w") as zipped:
        for name, text in members.items():
            zipped.writestr(name, text)
    return file


@pytest.mark.slow
def test_what_is_packed_generates_and_is_scored_as_the_runs_it_was_made_of(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real runs on some made sentences; packed twice, the file is the same to the byte."""
    pytest.importorskip("nltk")
    monkeypatch.chdir(tmp_path)  # what is packed names the text without its folder
    text = tmp_path / "my.txt"
    text.write_text("".join(f"{a} {b} {c}\n" for a in ("the", "a") for b in "pqrstu" for c in "vwxyz"))
    plan = Plan(("--corpus", str(text), "--preset", "smoke", "--threads", "1"), (), ("--rounds", "2"), 1)
    runs = tmp_path / "runs"
    file = make_weights(cli.train, plan, runs)
    assert file.parent == cache_dir() == data
    again = make_weights(cli.train, plan, runs, tmp_path / "again.zip")  # of the runs that are there
    assert again.read_bytes() == file.read_bytes()
    mle, seqgan = load(runs / "mle-1"), load(runs / "seqgan-1")
    assert load("wordnet").sample(9) == mle.sample(9)
    assert load("wordnet/seqgan").sample(9) == load(tmp_path / "again.zip" / "seqgan").sample(9) == seqgan.sample(9)
    packed = load("wordnet/seqgan")
    assert packed.discriminator is not None
    assert seqgan.discriminator is not None
    assert packed.discriminator_worth().auc == seqgan.discriminator_worth().auc
    assert RunFolder.open("wordnet").evaluation == RunFolder.open(runs / "mle-1").evaluation
    assert (
        packed.folder.last_checkpoint.stat().st_size < (runs / "seqgan-1/checkpoints/last.safetensors").stat().st_size
    )
    with zipfile.ZipFile(file) as zipped:
        names = zipped.namelist()
        card = next(zipped.read(name).decode() for name in names if name.startswith("CARD"))
        assert "Princeton University" in zipped.read("LICENSE-WordNet.txt").decode()
    assert not any("shuffled" in name or "previous" in name for name in names)
    assert "seqgan-shuffled-1 (control shuffled, seed 0), compared with mle-1" in card
    assert str(data) not in card


def test_without_the_file_a_sentence_says_what_makes_it(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "make them with make weights" in mistake_of(cli.main, ["sample", "wordnet"], capsys)
    assert str(data) in mistake_of(cli.main, ["evaluate", "wordnet/seqgan"], capsys)
    assert_refused("no run folder at 'nothing.zip'", RunFolder.open, "nothing.zip")


def test_a_name_finds_the_newest_file_and_a_folder_of_that_name_comes_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = '{"config": {}, "name": "mle", "task": null, "seed": %d}'
    archive(data / "textgan-weights-0.1.0.zip", {"mle/config.json": config % 1})
    archive(data / "textgan-weights-0.2.0.zip", {"mle/config.json": config % 2, "seqgan/config.json": config % 3})
    assert RunFolder.open("wordnet").about["seed"] == 2
    assert RunFolder.open(Path("wordnet/seqgan")).about["seed"] == 3
    assert RunFolder.open(data / "textgan-weights-0.1.0.zip").about["seed"] == 1
    assert list(find_runs([Path("wordnet"), Path("wordnet/seqgan")])) == ["mle", "seqgan"]
    assert_refused("it has no seqgan/config.json", find_run, data / "textgan-weights-0.1.0.zip" / "seqgan")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wordnet").mkdir()
    (tmp_path / "wordnet" / "config.json").write_text(config % 4)
    assert RunFolder.open("wordnet").about["seed"] == 4


def test_nothing_but_the_known_members_is_read_and_none_without_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {"../evil": "x", "mle/../../evil": "x", "/evil": "x", "mle/own.py": "x", "mle/config.json": "{}"}
    folder = find_run(archive(tmp_path / "a.zip", members))
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert not list(tmp_path.rglob("evil"))
    monkeypatch.setattr(trained, "_MOST", 10)
    large = archive(tmp_path / "b.zip", {"mle/metrics.jsonl": "x" * 11, "mle/config.json": "{}"})
    assert_refused("more than 10 bytes", find_run, large)
    assert_refused("more than 10 bytes", find_run, large)  # what was unpacked before is no run
    (tmp_path / "c.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:60])
    assert_refused("no whole file of trained weights", find_run, tmp_path / "c.zip")
