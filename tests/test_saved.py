"""A loaded run writes and is measured as the one that was saved."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import textgan_env
from agents.mle import MLE, PRESETS, MLEConfig
from conftest import assert_refused
from textgan_env.evaluation import evaluate, stream_texts
from textgan_env.policies import PolicyModule
from textgan_env.runs.folder import RunFolder
from textgan_env.show.saved import SavedRun
from textgan_env.tasks import Task, make_task
from textgan_env.training.launch import launch
from textgan_env.training.loop import train

NOUNS, VERBS = ("cat", "dog", "fox", "cow", "bee"), ("sat", "ran", "ate", "hid")
LINES = [f"{article} {noun} {verb}" for article in ("the", "a") for noun in NOUNS for verb in VERBS]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[PolicyModule, Task, Path]:
    """The policy still in memory, its task, and the folder it was saved in."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "my.txt").write_text("\n".join([*LINES, "a yak sang well"]))
    config = MLEConfig(
        task="corpus", epochs=2, embed_size=4, hidden_size=4, seed=5, device="cpu", select="last", show_samples=0
    )
    task = make_task("corpus", path=str(folder / "my.txt"))
    agent = MLE(config, task)
    run = RunFolder.create(folder, "mle", config=config.__dict__, task=task.config(), seed=config.seed)
    train(agent, run, config)
    return agent.average.policy, task, run.path


@pytest.fixture(scope="module")
def saved(trained: tuple[PolicyModule, Task, Path]) -> SavedRun:
    return textgan_env.load(trained[2])


def test_the_same_seed_writes_the_same_texts_before_saving_and_after_loading(
    trained: tuple[PolicyModule, Task, Path], saved: SavedRun
) -> None:
    policy, task, _ = trained
    assert saved.sample(50, seed=3) == list(stream_texts(policy, task, 50, seed=3))
    assert saved.sample(50, seed=3) != saved.sample(50, seed=4)


def test_the_loaded_run_measures_what_the_run_said_at_its_end(saved: SavedRun) -> None:
    said = json.loads((saved.folder.path / "evaluation.json").read_text())
    assert saved.evaluate().document() == {name: said[name] for name in ("values", "missing", "settings")}
    assert said["settings"]["seed"] == 5


def test_evaluating_otherwise_is_what_evaluate_says(saved: SavedRun) -> None:
    found = saved.evaluate(split="valid", samples=20, seed=1, temperature=0.5)
    expected = evaluate(saved.decoded(temperature=0.5), saved.task, split="valid", samples=20, seed=1)
    assert found.values == expected.values
    assert "temperature=0.5" in str(found.settings["decoding"])


def test_a_few_texts_are_the_first_of_many(saved: SavedRun) -> None:
    assert saved.sample(3) == saved.sample(1500)[:3]
    assert saved.sample(600)[510:] == saved.sample(1500)[510:600]


def test_every_text_begins_with_the_prefix_and_goes_on_in_its_own_way(saved: SavedRun) -> None:
    texts = saved.sample(40, prefix="the cat")
    assert all(text.startswith("the cat") for text in texts)
    assert len(set(texts)) > 1
    assert saved.sample(2, prefix="") == saved.sample(2)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"prefix": "the zebra"}, "zebra"), ({"prefix": "the cat " * 9}, "tokens"), ({"n": 0}, "texts"),
    ({"temperature": -1.0}, "temperature"), ({"top_k": 0}, "top_k"), ({"top_p": 1.5}, "top_p"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused(saved: SavedRun, options: dict[str, object], sentence: str) -> None:
    assert_refused(sentence, saved.sample, **options)


def test_other_decoding_leaves_the_run_as_it_is(saved: SavedRun) -> None:
    assert len(set(saved.sample(50, top_k=1))) == 1
    assert len(set(saved.sample(50))) > 1
    assert saved.decoded() is saved.policy
    assert saved.decoded(top_p=0.5).decoding.temperature == saved.policy.decoding.temperature


def test_a_run_whose_text_has_changed_says_so(trained: tuple[PolicyModule, Task, Path], tmp_path: Path) -> None:
    file = trained[2].parent / "my.txt"
    before = file.read_text()
    try:
        file.write_text(before + "\nsome quite new words")
        assert_refused("has changed", textgan_env.load, trained[2])
    finally:
        file.write_text(before)


def test_a_run_that_trained_no_discriminator_has_none(saved: SavedRun) -> None:
    assert saved.discriminator is None


def test_an_ensemble_of_runs_writes_and_is_measured_as_the_mean_of_their_policies(saved: SavedRun) -> None:
    run = saved.folder.path
    for mean in ("arithmetic", "geometric"):
        both = textgan_env.load_ensemble([run, run], mean)
        assert both.sample(5, seed=3) == saved.sample(5, seed=3)  # the mean of two alike is either
        expected, found = saved.evaluate(samples=50, seed=0).values, both.evaluate(samples=50).values
        assert found["nll_test"] == pytest.approx(expected["nll_test"], abs=1e-5)
    cold = both.decoded(temperature=0.5)
    assert cold.decoding.temperature == 0.5


def test_runs_that_make_no_ensemble_are_one_sentence(saved: SavedRun, tmp_path: Path) -> None:
    toy = launch(replace(PRESETS["smoke"]("toy"), runs=tmp_path, show_samples=0, threads=1), MLE).path
    assert_refused("at least one run", textgan_env.load_ensemble, [])
    assert_refused("the further run '.*' is of task 'toy'", textgan_env.load_ensemble, [saved.folder.path, toy])
    assert_refused("no run folder at 'nowhere'", textgan_env.load_ensemble, ["nowhere"])
