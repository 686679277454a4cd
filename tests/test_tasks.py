"""Tasks: splits, the oracle against published numbers, the toy task against plain enumeration, corpora."""

import inspect
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import assert_refused
from textgan_env import ENVIRONMENTS
from textgan_env.evaluation import nll
from textgan_env.policies import TablePolicy, UniformPolicy
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import (
    TASKS,
    CorpusTask,
    OracleTask,
    ToyTask,
    draw_oracle_weights,
    make_task,
    saved_task,
    shared_task,
)
from textgan_env.text.corpora import CORPORA
from textgan_env.text.corpus import load_corpus
from textgan_env.text.grammars import GRAMMARS
from textgan_env.utils import options
from textgan_env.utils.errors import MissingDataError
from textgan_env.utils.options import DRAWN, ORACLES

SMALL: dict[str, Any] = {"vocab_size": 30, "max_length": 5, "train_size": 40, "valid_size": 20, "test_size": 30}


def test_oracle_splits_have_their_sizes_and_share_no_random_numbers() -> None:
    task = OracleTask(**SMALL)
    splits = [task.split(name) for name in ("train", "valid", "test")]
    assert [len(split) for split in splits] == [40, 20, 30]
    assert not torch.equal(splits[0].tokens_BT[:20], splits[1].tokens_BT)
    assert all(int(split.tokens_BT.max()) < 30 for split in splits)
    assert task.split("train") is splits[0]


def test_an_oracle_task_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    one, same, other = OracleTask(**SMALL), OracleTask(**SMALL), OracleTask(**SMALL, seed=1)
    assert torch.equal(one.split("test").tokens_BT, same.split("test").tokens_BT)
    assert torch.equal(one.oracle.projection.weight, same.oracle.projection.weight)
    assert not torch.equal(one.oracle.projection.weight, other.oracle.projection.weight)


def test_oracle_weights_of_a_seed_are_fixed_numbers() -> None:
    weights = draw_oracle_weights(7, 3, 2, seed=5)
    expected = np.random.default_rng(5).standard_normal((7, 3), dtype=np.float32)
    assert np.array_equal(weights["embedding"], expected)
    shapes = {"W_i": (3, 2), "U_o": (2, 2), "b_c": (2,), "W_out": (2, 7), "b_out": (7,)}
    assert {name: weights[name].shape for name in shapes} == shapes


def test_the_texts_of_a_task_do_not_depend_on_the_number_of_threads() -> None:
    # Of these texts one came out different, where two threads rounded exponentials in their own way.
    sizes: dict[str, Any] = {"vocab_size": 2000, "max_length": 5, "embed_size": 4, "hidden_size": 4, "train_size": 200}
    texts = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            texts.append(OracleTask(**sizes, text_seed=51).split("train").tokens_BT)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)
    assert torch.equal(*texts)


def test_a_task_can_be_made_again_from_its_config() -> None:
    for task in (OracleTask(**SMALL), ToyTask(vocab_size=3, max_length=2, size=10)):
        config = task.config()
        again = make_task(config.pop("name"), **config)
        assert torch.equal(again.split("train").tokens_BT, task.split("train").tokens_BT)


@pytest.mark.parametrize(("name", "options", "sentence"), [
    ("nope", {}, "nope"),
    ("oracle", {"max_length": 0}, "max_length"),
    ("oracle", {"vocab_size": 1}, "vocab_size"),
    ("toy", {"vocab_size": 1}, "vocab_size"),
    ("toy", {"seed": -1}, "seed"),
    ("toy", {"spread": float("nan")}, "spread"),
    ("toy", {"texts": ["a b"]}, "texts"),
    ("seqgan-oracle", {"vocab_size": 7}, "vocab_size"),
    ("oracle", {"train_size": 0}, "train_size"),
    ("oracle", {"seed": -1}, "seed"),
    ("oracle", {"colour": 1}, "colour"),
    ("toy", {"vocab_size": 100, "max_length": 10}, "toy"),
    ("seqgan-oracle", {"weights": "no-such-file.npz"}, "no-such-file.npz"),
])  # fmt: skip
def test_what_a_task_refuses_is_one_sentence(name: str, options: dict[str, object], sentence: str) -> None:
    assert "\n" not in assert_refused(sentence, make_task, name, **options)


def test_unknown_split_is_named() -> None:
    assert_refused("dev", ToyTask().split, "dev")


def test_a_shared_task_is_made_once_and_taken_as_it_is() -> None:
    task = shared_task("toy", vocab_size=3, max_length=2)
    assert shared_task("toy", max_length=2, vocab_size=3) is task
    assert shared_task(task) is task
    assert_refused("vocab_size", shared_task, task, vocab_size=3)


def test_released_oracle_scores_its_own_texts_at_the_published_entropy(shared_data: Path) -> None:
    task = OracleTask(weights=shared_data / "oracle_seqgan.npz", test_size=2000)
    assert (task.vocab_size, task.max_length, task.name) == (5000, 20, "seqgan-oracle")
    real_BT = task.split("test").tokens_BT
    # 5.750 published; 2,000 texts have a standard error of about .011
    assert nll(task.oracle, real_BT, task.scored(real_BT))[0] == pytest.approx(5.75, abs=0.04)
    uniform_BT, _ = generate(UniformPolicy(5000, start_token=0), Keys.counted(0, 1000), 20)
    assert nll(task.oracle, uniform_BT, task.scored(uniform_BT))[0] == pytest.approx(11.4, abs=0.1)


@pytest.mark.parametrize("name", ["seqgan-oracle", "coco", "emnlp", "poems"])
def test_a_published_text_is_known_by_its_name_wherever_it_lies(
    name: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTGAN_DATA", str(shared_data))
    task = make_task(name)
    saved = json.loads(json.dumps(task.config()))
    assert str(shared_data) not in json.dumps(saved)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(shared_data)
    monkeypatch.setenv("TEXTGAN_DATA", str(elsewhere))
    again = saved_task(saved, "it", files=task.files, vocab_size=task.vocab_size)
    assert again.proven
    assert again.config() == task.config()


def test_toy_probabilities_add_up_and_its_oracle_knows_them() -> None:
    task = ToyTask(vocab_size=3, max_length=3)
    assert float(task.logp_S.exp().sum()) == pytest.approx(1)
    assert task.texts_ST.tolist() == [list(text) for text in itertools.product(range(3), repeat=3)]
    scored_ST = task.oracle.log_prob(task.texts_ST, torch.ones_like(task.texts_ST, dtype=torch.bool))
    assert torch.allclose(scored_ST.double().sum(1), task.logp_S, atol=1e-5)


def test_exact_q_is_the_plain_expectation_over_all_endings() -> None:
    task = ToyTask(vocab_size=2, max_length=3)
    policy = TablePolicy.from_text_probabilities(torch.arange(1.0, 9.0), vocab_size=2, max_length=3)
    reward_S = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0])
    values = task.exact_q(policy, reward_S)
    probability = {text: weight for text, weight in zip(itertools.product((0, 1), repeat=3), range(1, 9), strict=True)}
    reward = dict(zip(probability, reward_S.tolist(), strict=True))
    for p in range(3):
        for number, prefix in enumerate(itertools.product((0, 1), repeat=p)):
            for token in (0, 1):
                texts = [text for text in probability if text[: p + 1] == (*prefix, token)]
                mass = sum(probability[text] for text in texts)
                expected = sum(probability[text] * reward[text] for text in texts) / mass
                assert float(values[p][number, token]) == pytest.approx(expected, rel=1e-5)


def test_unknown_words_are_not_scored_not_written_and_not_shown_to_a_discriminator() -> None:
    lines = [f"the {noun} {verb}" for noun in ("cat", "dog", "cow") for verb in ("sat", "ran", "ate", "slept")]
    task = CorpusTask(load_corpus(texts=[*lines, "the yak sang", "an emu wept"], min_count=2))
    assert len(task.forbidden) == 1
    known, unknown = task.encode("the")[0], task.forbidden[0]
    row = torch.tensor([[unknown, known, unknown, *[task.vocab_size] * (task.max_length - 3)]])
    assert task.scored(row)[0].tolist() == [False, True] + [False] * (task.max_length - 2)
    train_BT = task.split("train").tokens_BT
    assert (train_BT == unknown).any()
    assert not (task.writable("train") == unknown).any()
    assert len(task.writable("train")) == int((~(train_BT == unknown).any(1)).sum())


def test_a_corpus_reads_back_as_a_person_wrote_it() -> None:
    lines = [
        f"{one} {two} ." for one in ("cats", "dogs", "cows", "bees") for two in ("sleep", "eat", "run", "play well")
    ]
    task = CorpusTask(load_corpus(texts=lines, valid_share=0.2, test_share=0.2, lower=True))
    for name in ("train", "valid", "test"):
        for tokens in task.split(name).tokens_BT.tolist():
            assert task.text(tokens).replace(" .", ".") in {line.replace(" .", ".") for line in lines}
    assert task.end_token is not None
    assert task.start_token == task.vocab_size
    assert task.encode("cats sleep.") == task.encode("Cats sleep .")


def test_numbers_are_the_words_of_tasks_without_words() -> None:
    task = ToyTask(vocab_size=12, max_length=2)
    assert task.encode(" 3  11 ") == task.encode_writable("3 11") == [3, 11]
    assert task.encode(task.text([3, 11])) == [3, 11]
    for wrong in ("12", "-1", "1.5", "cat", "9" * 5000):
        assert_refused(f"'{wrong[:20]}'", task.encode, wrong)


def test_words_that_no_policy_can_write_are_named() -> None:
    lines = [f"the {noun} {verb}" for noun in ("cat", "dog", "cow") for verb in ("sat", "ran", "ate", "slept")]
    for limits in ({"min_count": 2}, {}):
        task = CorpusTask(load_corpus(texts=lines * 2, lower=True, **limits))  # type: ignore[arg-type]
        assert task.encode_writable("The CAT") == task.encode("the cat")
        assert_refused("zebra", task.encode_writable, "the zebra sat")


def test_a_split_of_unknown_words_only_is_refused() -> None:
    assert_refused("valid split", CorpusTask, load_corpus(texts=["a b", "c d", "e f"]))


def test_a_split_that_was_given_no_share_is_named() -> None:
    lines = [f"{one} {two}" for one in ("cats", "dogs", "cows", "bees") for two in ("sleep", "eat", "run", "play")]
    task = CorpusTask(load_corpus(texts=lines, valid_share=0.0, test_share=0.2))
    assert_refused("valid split", task.split, "valid")


@pytest.mark.parametrize(("options", "sentence"), [
    ({"name": "toy", "vocab_size": "4"}, "vocab_size"),
    ({"name": "toy", "max_length": 10**9}, "toy"),
    ({"name": "oracle", "max_length": 65_537}, "max_length"),
    ({"name": "oracle", "test_size": 10**9}, "test_size"),
    ({"name": "oracle", "hidden_size": 10**6}, "weights"),
    ({"name": "corpus", "texts": ["a", 1]}, "texts"),
])  # fmt: skip
def test_options_of_another_kind_or_size_are_refused_by_name(options: dict[str, object], sentence: str) -> None:
    assert_refused(sentence, make_task, **options)


def test_numbers_of_numpy_are_numbers() -> None:
    assert make_task("toy", vocab_size=np.int64(3), spread=np.float32(0.5)).vocab_size == 3


def test_a_task_from_a_file_is_the_same_task() -> None:
    task = OracleTask(**SMALL)
    same = saved_task(task.config(), "it", vocab_size=30)
    assert torch.equal(same.split("test").tokens_BT, task.split("test").tokens_BT)


def test_a_file_can_name_no_device_no_folder_to_write_to_and_nothing_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path / "cache"))
    assert_refused("/dev/zero", saved_task, {"name": "corpus", "path": "/dev/zero"}, "it")
    own = tmp_path / "own.txt"
    own.write_text("a b\nb a\n")
    for option in ("valid_path", "test_path"):
        assert_refused("/dev/zero", saved_task, {"name": "corpus", "path": str(own), option: "/dev/zero"}, "it")
    own.unlink()
    for described in ({"name": "coco"}, {"name": "wordnet", "data_dir": str(tmp_path / "theirs")}):
        with pytest.raises(MissingDataError, match=described["name"]):
            saved_task(described, "it")
    assert_refused("V=7", saved_task, {"name": "oracle", "vocab_size": 7}, "it", vocab_size=30)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [lambda **given: ToyTask(**given), lambda **given: OracleTask(**SMALL, **given)])
def test_another_text_seed_gives_other_texts_of_the_same_law(make: Any) -> None:
    task, other, named = make(), make(text_seed=5), make(text_seed=0)
    assert not torch.equal(task.split("train").tokens_BT, other.split("train").tokens_BT)
    assert torch.equal(task.split("train").tokens_BT, named.split("train").tokens_BT)
    texts_BT = task.split("test").tokens_BT[:5]
    mask_BT = torch.ones_like(texts_BT, dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(task.oracle.log_prob(texts_BT, mask_BT), other.oracle.log_prob(texts_BT, mask_BT))
    assert other.config()["text_seed"] == 5
    assert torch.equal(make_task(**other.config()).split("test").tokens_BT, other.split("test").tokens_BT)
    assert "text_seed" not in task.config()


def test_oracle40_is_the_oracle_of_the_environment_for_longer_texts() -> None:
    few: dict[str, Any] = {"train_size": 3, "valid_size": 1, "test_size": 1}
    short, spelled_out = make_task("oracle40", **few), OracleTask(max_length=40, embed_size=64, hidden_size=64, **few)
    assert short.config() == spelled_out.config()
    assert torch.equal(short.split("train").tokens_BT, spelled_out.split("train").tokens_BT)
    assert make_task("oracle40", hidden_size=8, vocab_size=9, **few).config()["hidden_size"] == 8


def test_tasks_environments_and_the_help_of_the_option_name_the_same_texts() -> None:
    assert {settings["task"] for settings in ENVIRONMENTS.values()} == set(TASKS)
    assert set(TASKS) == {*DRAWN, "corpus", *CORPORA}
    assert set(DRAWN) == {*ORACLES, *GRAMMARS}
    said = inspect.getsource(options).partition("class _Named")[2].partition('"""Your text file')[0]
    assert not [name for name in TASKS if not re.search(rf"[ \n\"]{name}[ ,.\n]", said)]
