"""A run made ready for others: what is in its folder, what is not, and what works where its text is not."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from agents import cli
from conftest import assert_refused
from textgan_env import load
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.snapshot import take_snapshot
from textgan_env.show.share import share
from textgan_env.tasks import WordsTask
from textgan_env.utils.errors import MissingDataError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.moves_global_rng,  # the library that reads command lines does
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, MLE on it, SeqGAN from there, and its control; all named by absolute paths."""
    folder = tmp_path_factory.mktemp("owner")
    text = folder / "my.txt"
    text.write_text("".join(f"{a} {b} {c}\n" for a in ("the", "a") for b in "pqrstu" for c in "vwxyz"))
    shared = ["--corpus", str(text), "--preset", "smoke", "--threads", "1", "--runs", str(folder)]
    cli.main(["train", "mle", *shared])
    begun = [*shared, "--pretrained", str(folder / "mle-my-1")]
    cli.main(["train", "seqgan", *begun])
    cli.main(["train", "seqgan", *begun, "--control", "shuffled"])
    return folder


def test_a_shared_folder_is_the_run_without_the_folders_of_its_owner(runs: Path, tmp_path: Path) -> None:
    run, beside = runs / "seqgan-my-1", [runs / "mle-my-1", runs / "seqgan-my-2"]
    made = share(run, tmp_path / "made", beside)
    files = {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    assert {"README.md", "config.json", "evaluation.json", "checkpoints/last.safetensors"} <= set(files)
    assert [name for name, content in files.items() if str(runs).encode() in content] == []
    whole = (run / "checkpoints/last.safetensors").stat().st_size
    assert len(files["checkpoints/last.safetensors"]) < whole  # what only resuming needs stays behind
    card: Any = ModelCard(files["README.md"].decode())
    assert card.data.to_dict()["tags"] == ["textgan_env", "seqgan"]
    assert "--control shuffled" in card.text
    assert "seqgan-my-1 (seed 0), compared with mle-my-1 (seed 0)" in card.text
    assert "Controls beside it: shuffled." in card.text
    config = json.loads(files["config.json"])["config"]
    assert (config["corpus"], config["pretrained"]) == ("my.txt", "mle-my-1")
    alone = share(run, tmp_path / "alone") / "README.md"
    assert "No control stands beside it" in alone.read_text()
    assert_refused("is not empty", share, run, tmp_path / "made")


def test_where_the_text_is_not_it_writes_and_begins_runs_but_is_not_measured(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = share(runs / "mle-my-1", tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    there, here = load(runs / "mle-my-1"), load(made)
    assert isinstance(here.task, WordsTask)
    assert here.sample(20, seed=3) == there.sample(20, seed=3)
    assert all(text.startswith("the p") for text in here.sample(3, prefix="the p"))
    assert_refused("'zzz' is not among the 13 words", here.sample, 3, prefix="zzz")
    with pytest.raises(MissingDataError, match=r"was made from 'my.txt', which is not here"):
        here.evaluate()
    shared = ["--preset", "smoke", "--threads", "1", "--runs", str(tmp_path)]
    cli.main(["train", "seqgan", "--corpus", str(runs / "my.txt"), "--pretrained", str(made), *shared])
    # With the text it is a run as any other.
    (tmp_path / "my.txt").write_bytes((runs / "my.txt").read_bytes())
    assert load(made).evaluate().values == there.evaluate().values
    (tmp_path / "my.txt").write_text("another text\n")
    assert_refused("has changed", load, made)


@pytest.mark.parametrize("length", [0, -1, 2**17, 3.5, True, "3", None])
def test_a_forged_length_is_refused_in_a_sentence_and_without_one_the_text_is_asked_for(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: object
) -> None:
    made = share(runs / "mle-my-1", tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    (path,) = (made / "checkpoints").iterdir()
    checkpoint = load_checkpoint(path)
    modules = {checkpoint.document["policy"]["module"]: checkpoint.build_policy()}
    document = {**checkpoint.document, "max_length": length}
    take_snapshot(modules=modules, document=document, vocabulary=checkpoint.vocabulary).write(path)
    assert_refused("which is not here" if length is None else "max_length in '", load, made)
