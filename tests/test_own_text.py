"""Somebody's own text: what goes in, what the vocabulary holds, what a run generates from it, and what is refused."""

import bz2
import gzip
import json
import lzma
import random
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textgan_env
from agents.cli import main
from agents.mle import MLE
from agents.mle import smoke as mle_smoke
from conftest import assert_refused, make_run
from textgan_env.envs import TextGANEnv
from textgan_env.tasks import CorpusTask, make_task, saved_task
from textgan_env.text.corpus import Corpus, load_corpus
from textgan_env.text.corpus_options import CorpusOptions
from textgan_env.text.files import TextFile
from textgan_env.text.vocabulary import Vocabulary
from textgan_env.training.launch import launch
from textgan_env.utils.errors import InputError
from textgan_env.utils.options import TaskOptions

pytestmark = pytest.mark.moves_global_rng  # the library that reads command lines draws from the global generators


def _texts(pieces: Sequence[str], least: int = 2, most: int = 6, glue: str = "") -> list[str]:
    """Sixty different texts of some pieces."""
    draw = random.Random(0)
    found: dict[str, None] = {}
    while len(found) < 60:
        text = glue.join(draw.choice(pieces) for _ in range(draw.randint(least, most)))
        if text.strip():
            found[text] = None
    return list(found)


@dataclass(frozen=True)
class Kind:
    """One kind of file: the texts in it, and how they are written down."""

    name: str
    texts: list[str]
    file: str = "my.txt"

    def write(self, folder: Path) -> Path:
        """Write the file."""
        path, lines = folder / self.file, "\n".join(self.texts) + "\n"
        if self.file.endswith(".csv"):
            rows = (f'{number},"{text.replace(chr(34), chr(34) * 2)}",new' for number, text in enumerate(self.texts))
            path.write_text("id,text,label\r\n" + "\r\n".join(rows), "utf-8", newline="")
        elif self.file.endswith(".jsonl"):
            path.write_text("".join(json.dumps({"id": 1, "body": text}) + "\n" for text in self.texts), "utf-8")
        elif self.file.endswith(".gz"):
            path.write_bytes(gzip.compress(lines.encode()))
        elif self.name == "CRLF with BOM":
            path.write_bytes(b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode())
        else:
            path.write_text(lines, "utf-8")
        return path


SENTENCES = _texts(["The", "cat", "Sat", "on", "a", "mat", "Dog"], glue=" ")
KINDS = [
    Kind("SMILES", _texts(["C", "c1ccccc1", "N", "(=O)", "Cl", "[nH]", "\\C=C/"]), "my.smi"),
    Kind("FASTA", [f">s{n}\n{text}" for n, text in enumerate(_texts("ACGT", 20, 30))], "my.fasta"),
    Kind("code", _texts(["    ", "x", " = ", "Foo(", ")", '"s"', "\t", "1"]), "my.py"),
    Kind("CSV with header", _texts(["The cat", ", ", '"so"', " sat"]), "my.csv"),
    Kind("JSON lines", _texts(["Zürich", " ", "\u2028", "x\\n", "{", "\U0001f600"]), "my.jsonl"),
    Kind("gzip", SENTENCES, "my.txt.gz"),
    Kind("CRLF with BOM", SENTENCES),
    Kind("Chinese", _texts("天地玄黄宇宙洪荒。", 4, 8)),
    Kind("Thai", _texts(["สวัส", "ดี", "ครับ", "ขอบ", "คุณ", "มาก", "น้ำ"])),
    Kind("Arabic", _texts(["السلام", "عليكم", "ورحمة", "الله", "١٢"], glue=" ")),
    Kind("emoji", _texts(["\U0001f600", "\U0001f469\u200d\U0001f4bb", "\U0001f1e9\U0001f1ea", "ok"])),
    Kind("passwords", _texts("aAbB  1!~", 4, 9)),
]  # fmt: skip


def by_lines(kind: Kind) -> list[str]:
    """What a reader sees as texts: FASTA has two lines an entry."""
    return [line for text in kind.texts for line in text.split("\n")]


def task_of(path: Path, **options: Any) -> CorpusTask:
    task = make_task("corpus", path=str(path), **options)
    assert isinstance(task, CorpusTask)
    return task


def all_texts(task: CorpusTask) -> list[str]:
    splits = ("train", "valid", "test")
    return [task.text(tokens) for split in splits for tokens in task.split(split).tokens_BT.tolist()]  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["char", "bpe"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_characters_and_byte_pairs_give_every_text_back_letter_for_letter(
    kind: Kind, mode: str, tmp_path: Path
) -> None:
    task = task_of(kind.write(tmp_path), mode=mode)
    assert sorted(all_texts(task)) == sorted(by_lines(kind))
    train = [task.text(tokens) for tokens in task.split("train").tokens_BT.tolist()]
    if mode == "char":
        assert set(task.vocabulary.words) == set("".join(train))
    else:
        assert task.vocabulary.unk is None
        assert "".join(task.words(task.encode(train[0]))) == train[0]
    for prefix in (train[0], train[0][:3], train[1][:1]):
        tokens = task.encode_writable(prefix)
        assert task.vocabulary.join(task.vocabulary.decode(tokens)) == prefix


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_a_run_generates_begins_with_the_prefix_letter_for_letter(
    kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From file to sample by the commands alone."""
    file, prefix = kind.write(tmp_path), next(text for text in by_lines(kind) if len(text) > 3)[:3]
    tiny = ["--preset", "smoke", "--threads", "1", "--show-samples", "0", "--runs", str(tmp_path / "runs")]
    for number, tokens in enumerate((["--mode", "char"], ["--mode", "bpe", "--vocab-size", "300"]), start=1):
        main(["train", "mle", "--corpus", str(file), *tokens, *tiny])
        run = tmp_path / "runs" / f"mle-{file.name.partition('.')[0]}-{number}"
        assert json.loads((run / "evaluation.json").read_text())["values"]["nll_test"] > 0
        capsys.readouterr()
        main(["sample", str(run), "-n", "5", "--prefix", prefix])
        texts = capsys.readouterr().out.split("\n")[:-1]
        assert len(texts) == 5
        assert [text for text in texts if not text.startswith(prefix)] == []
        main(["data", "inspect", str(file), *tokens, "--json"])
        assert json.loads(capsys.readouterr().out)["lines"] == len(by_lines(kind))


# -- Case and blanks --------------------------------------------------------------------------------------------------
def test_own_text_keeps_its_case_unless_asked_and_the_command_says_what_it_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.txt"
    file.write_text("".join(f"{text}\n" for text in SENTENCES))
    assert "The" in load_corpus(file).vocabulary.words
    main(["data", "inspect", str(file), "--lower", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert "changed: made lower case " in str(load_corpus(file, lower=True).report)
    assert found["changed"] == {"made lower case": sum(text != text.lower() for text in SENTENCES)}
    main(["data", "inspect", str(file)])
    assert "changed           nothing" in capsys.readouterr().out


@pytest.mark.parametrize(("lines", "blanks", "texts"), [
    (["x = 1", "x = 10", "y  = 2"], "auto", ["x = 1", "x = 10", "y  = 2"]),
    (["a b c", "b a", "c c a"], "auto", ["abc", "ba", "cca"]),
    (["a b c", "b a", "c c a"], "keep", ["a b c", "b a", "c c a"]),
    (["a", "b", "c"], "auto", ["a", "b", "c"]),
    (["x = 1", "x = 10", "y  = 2"], "line", ["x=1", "x = 10", "y=2"]),
])  # fmt: skip
def test_what_blanks_are_is_decided_once_for_a_file(lines: list[str], blanks: str, texts: list[str]) -> None:
    corpus = load_corpus(texts=lines, mode="char", blanks=blanks, valid_share=0, test_share=0)
    rows = corpus.splits["train"].lists()
    assert [corpus.vocabulary.join(corpus.vocabulary.decode(row)) for row in rows] == texts
    assert Vocabulary.from_json(corpus.vocabulary.to_json()) == corpus.vocabulary


def test_a_saved_task_of_an_earlier_version_is_read_as_it_was(tmp_path: Path) -> None:
    """It says nothing of case and blanks."""
    file = tmp_path / "my.txt"
    file.write_text("X = 1\nY = 12\nx = 10\nA = B\n")
    task = saved_task({"name": "corpus", "path": str(file), "mode": "char", "valid_share": 0, "test_share": 0}, "it")
    assert [task.text(tokens) for tokens in task.split("train").tokens_BT.tolist()] == [
        "x=1",
        "y = 12",
        "x = 10",
        "a=b",
    ]
    assert task.config().keys() == {"name", "path", "mode", "valid_share", "test_share"}


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Such a run says nothing of case and blanks; it made all lower case, and looked at blanks line by line."""
    file = tmp_path / "my.txt"
    file.write_text("".join(f"{a} = {b}{c}\n" for a in "XYab" for b in "12" for c in ("", "0", "5")))
    run = make_run(MLE, mle_smoke, file, mode="char", lower=True, blanks="line")
    about = json.loads(run.config_file.read_text())
    for name in ("lower", "blanks", "column", "encoding", "vocab_size"):
        del about["config"][name]
    assert not {"lower", "blanks"} & about["task"].keys()
    run.config_file.write_text(json.dumps(about))
    saved = textgan_env.load(run.path)
    assert (saved.task.vocabulary.lower, saved.task.vocabulary.blanks) == (True, "line")  # type: ignore[union-attr]
    assert all(text.startswith("x=1") for text in saved.sample(5, prefix="X = 1"))
    resumed = launch(mle_smoke("corpus").__class__(**{**mle_smoke("corpus").__dict__, "resume": run.path}), MLE)
    assert resumed.path == run.path
    fields = {"mode": "char", "lower": True, "eos": None, "unk": None, "tokens": ["a", "b"]}
    old = Vocabulary.from_json(json.dumps(fields))
    assert old.to_json() == json.dumps(fields)
    assert old.tokenize("A b") == ["a", "b"]


def test_what_the_text_decided_is_kept_with_the_task(tmp_path: Path) -> None:
    file = tmp_path / "my.csv"
    file.write_text("n,words\n" + "".join(f"{n},{text}\n" for n, text in enumerate(SENTENCES)))
    for options in ({}, {"mode": "char"}, {"mode": "bpe", "vocab_size": 5000}, {"lower": True}):
        task = task_of(file, **options)
        again = saved_task(json.loads(json.dumps(task.config())), "it")
        assert again.config() == task.config()
        assert again.vocabulary == task.vocabulary
        assert task.config()["column"] == "words"
    assert task_of(file, mode="bpe", vocab_size=5000).config()["vocab_size"] < 5000


def test_the_command_line_can_ask_for_whatever_the_library_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every option of a corpus but its texts is read from the words of a command."""
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{text}\n" for text in SENTENCES))
    asked: dict[str, Any] = {"valid_path": str(tmp_path / "valid.txt"), "test_share": 0.5, "seed": 3, "lower": True}
    words = ["--valid-path", asked["valid_path"], "--test-share", "0.5", "--split-seed", "3", "--lower"]
    main(["data", "inspect", str(tmp_path / "train.txt"), *words, "--json"])
    report = load_corpus(tmp_path / "train.txt", **asked).report
    found = json.loads(capsys.readouterr().out)
    assert (found["texts"], found["unknown"]) == (report.texts, report.unknown)
    assert report.texts["valid"] == 60
    (tmp_path / "equal.txt").write_text("a b\nb a\na a\nb b\n")
    for more, fixed in ([], True), (["--eos"], False):
        main(["data", "inspect", str(tmp_path / "equal.txt"), *more, "--json"])
        assert json.loads(capsys.readouterr().out)["fixed_length"] is fixed
    known = {field.name for field in fields(TaskOptions)} | {"path", "texts", "seed"}
    assert {field.name for field in fields(CorpusOptions)} <= known
    assert_refused("--split-seed", TaskOptions(task="toy", split_seed=1).task_options)


# -- Byte pairs -------------------------------------------------------------------------------------------------------
def test_byte_pairs_are_learnt_from_the_training_texts_only_and_cover_every_text() -> None:
    texts = [f"train {n} words" for n in range(80)]
    corpus = load_corpus(texts=texts, mode="bpe", vocab_size=250, valid_share=0, test_share=0)
    assert (corpus.vocabulary.size, corpus.vocabulary.unk, len(corpus.vocabulary.merges)) == (250, None, 9)
    for text in ("zebra  zebra ", "Ω ☃ \U0001f600", " ", "<eos>"):  # whatever a text holds, it has a spelling
        words = corpus.vocabulary.tokenize(text)
        assert corpus.vocabulary.join(corpus.vocabulary.decode(corpus.vocabulary.encode(words))) == text
    first = load_corpus(texts=texts, mode="bpe", vocab_size=400)
    valid = {first.vocabulary.join(first.vocabulary.decode(row)) for row in first.splits["valid"].lists()}
    changed = [text.upper() if text in valid else text for text in texts]
    assert load_corpus(texts=changed, mode="bpe", vocab_size=400).vocabulary.merges == first.vocabulary.merges
    assert load_corpus(texts=texts, mode="bpe", vocab_size=400).vocabulary == first.vocabulary
    assert load_corpus(texts=[text.upper() for text in texts], mode="bpe").vocabulary.merges != first.vocabulary.merges


def test_texts_that_byte_pairs_make_too_long_leave_every_split_with_its_own_texts() -> None:
    texts = [f"{'a' * (n % 7)}{n} b" for n in range(60)]
    corpus = load_corpus(texts=[*texts, *texts[:5], ""], mode="bpe", vocab_size=260, max_length=5, longer="cut")
    report = corpus.report
    assert (report.lines, report.blank) == (66, 1)
    assert sum(report.texts.values()) + report.duplicates + report.blank + report.dropped == report.lines
    rows = [tuple(row) for split in corpus.splits.values() for row in split.lists()]
    assert len(set(rows)) == len(rows)


def test_a_vocabulary_whose_byte_pairs_do_not_fit_is_refused() -> None:
    fields = {"mode": "bpe", "lower": False, "eos": None, "unk": None, "tokens": ["a", "b", "ab"], "merges": ["a b"]}
    assert Vocabulary.from_json(json.dumps(fields)).tokenize("abb") == ["ab", "b"]
    for merges in (["a c"], ["a"], ["b a"]):
        broken = Vocabulary.from_json(json.dumps(fields | {"merges": merges}))
        assert_refused("byte pairs", broken.tokenize, "ab")
    assert_refused("merges", Vocabulary.from_json, json.dumps(fields | {"merges": [1]}))


# -- Files ------------------------------------------------------------------------------------------------------------
TABLE = 'id;text\n1;one\n\n2;"two; ""more""\n lines"\n3;\n'
ROWS = ["one", 'two; "more"\n lines', ""]


@pytest.mark.parametrize(("name", "content", "options", "texts", "found"), [
    ("a.txt", b"a b\n\nc", {}, ["a b", "", "c"], []),
    ("a.txt.gz", gzip.compress(b"a\nb\n", mtime=0), {}, ["a", "b"], ["gzip"]),
    ("no-name-for-it", bz2.compress(b"a\nb\n"), {}, ["a", "b"], ["bzip2"]),
    ("a.xz", lzma.compress(b"a\nb"), {}, ["a", "b"], ["xz"]),
    ("a.csv", TABLE.encode(), {}, ROWS, ["CSV, column 'text' of id, text"]),
    ("a.csv.gz", gzip.compress(TABLE.encode(), mtime=0), {}, ROWS, ["gzip", "CSV, column 'text' of id, text"]),
    ("a.tsv", b"x\ty\nB 1\tb\nB 2\tb\nC 3\tb", {"column": "y"}, ["b", "b", "b"], ["TSV, column 'y' of x, y"]),
    ("a.csv", b"1,C\n2,D\n", {"column": "2"}, ["C", "D"], ["CSV, column '2' of 1, 2"]),
    ("a.txt", b"x,y\n1,C\n", {"column": "y"}, ["C"], ["CSV, column 'y' of x, y"]),
    ("a.txt", b'{"t": "A"}\n{"t": null}\n{}', {"column": "t"}, ["A", "", ""], ["JSON lines, column 't'"]),
    ("a.jsonl", b'"A"\n"B"\n', {}, ["A", "B"], ["JSON lines"]),
    ("a.txt", "é\nü".encode("cp1252"), {"encoding": "cp1252"}, ["é", "ü"], []),
    ("a.txt", "é\r\nü\r\n".encode("utf-16"), {"encoding": "utf-16"}, ["é", "ü"], [r"lines end in \r\n"]),
    ("a.txt", b"\xef\xbb\xbfa\r\nb\n", {}, ["a", "b"], ["byte order mark", r"lines end in \r\n"]),
    ("a.txt", b"a\rb\r", {}, ["a", "b"], [r"lines end in \r"]),
    ("a.txt", "a\u2028b".encode(), {}, ["a", "b"], ["lines end in U+2028"]),
    ("a.txt", "a\u2028b\nc\rd\n".encode(), {}, ["a\u2028b", "c\rd"], []),
], ids=str)  # fmt: skip
def test_texts_are_read_from_every_kind_of_file(
    name: str, content: bytes, options: dict[str, Any], texts: list[str], found: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    file = TextFile(tmp_path / name, **options)
    assert (list(file), file.found) == (texts, found)
    assert list(file) == texts  # again


def test_an_archive_and_parquet_are_read_too(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from pyarrow import table

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/a.csv", TABLE)
    assert list(TextFile(tmp_path / "a.zip")) == ROWS
    parquet.write_table(table({"n": [1, 2, 3], "s": ["one", None, "two\nlines"]}), tmp_path / "a.parquet")
    file = TextFile(tmp_path / "a.parquet")
    assert (list(file), file.found) == (["one", "", "two\nlines"], ["Parquet, column 's' of n, s"])
    assert_refused("column 'n' holds|expected a text, found int", list, TextFile(tmp_path / "a.parquet", column="n"))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:50])
    assert_refused("no whole Parquet file", list, TextFile(tmp_path / "b.parquet"))


@pytest.mark.parametrize(("name", "content", "options", "sentence"), [
    ("a.txt.gz", gzip.compress(b"a\nb\n" * 99, mtime=0)[:-9], {}, "no whole gzip file"),
    ("a.xz", lzma.compress(b"a" * 999)[:-20], {}, "no whole xz file"),
    ("a.zip", b"PK\x03\x04 and no more", {}, "no whole zip archive"),
    ("a.csv", b"\n\n", {}, "is empty"),
    ("a.txt", b"a\nb\n", {"encoding": "utf-16"}, "is not UTF-16: "),
    ("a.zst", b"(\xb5/\xfd....", {}, "zstd"),
    ("a.csv", b"text,b\nI came, I saw,1\n", {}, "line 2 has 3 fields, the first line 2: .*quotes"),
    ("a.csv", b'text,b\n"open,1\n', {}, "line 2 is no row of a table"),
    ("a.csv", b"who,what\nAnn,ate it\nBob,ran home\n", {}, r"not sure: set column \(--column\) to one of who, what"),
    ("a.csv", b"a,b\n1,2\n", {}, "one of a, b"),
    ("a.csv", b"a,b\n1,2\n", {"column": "c"}, "no column 'c', only: a, b"),
    ("a.jsonl", b'{"a": "x y"}\n{"a": 3}\n', {}, "expected a text, found int"),
    ("a.jsonl", b'{"a": "x y"}\nplain\n', {}, "line 2 is not JSON"),
    ("a.json", b'[\n{"a": "x y"},\n', {}, "line 1 is not JSON.*one list"),
    ("a.txt", b"ok\ncaf\xe9 noir\n", {}, r"line 2 .* 0xe9 at place 4 .*'café noir'.* cp1252 \(--encoding cp1252\)"),
    ("a.txt", "é b".encode() + b"\xff\n", {}, "0xff at place 4 of the line"),  # characters, as a person counts
    ("a.txt", "a\nb\n".encode("utf-16"), {}, r"mark of UTF-16.*\(--encoding utf-16\)"),
    ("a.txt", "a\nb\n".encode("utf-16-le"), {}, r"line 1 holds a NUL byte.*utf-16-le"),
    ("a.txt", b"a\nb\n", {"encoding": "utf-99"}, "unknown encoding 'utf-99'"),
    ("a.txt", b"a\nb\n", {"encoding": "hex"}, "unknown encoding 'hex'"),
])  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused_with_what_to_do(
    name: str, content: bytes, options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert_refused(rf"(?s){sentence}", load_corpus, tmp_path / name, **options)


# -- What is asked of a person ----------------------------------------------------------------------------------------
def test_text_without_blanks_is_refused_by_word_rules_with_the_mode_that_reads_it() -> None:
    texts = _texts("天地玄黄宇宙洪荒", 4, 8)
    assert_refused(r"\(--mode char\)", make_task, "corpus", texts=texts)


def test_one_very_long_text_is_not_taken_for_t_without_being_asked() -> None:
    texts = [*_texts("abcdefgh", 7, 7, " "), *_texts("hijklmno", 6, 6, " "), "long " * 1500]
    advice = r"1,500 tokens \(99 % .* 7\).*--max-length 8 leaves out .*--max-length 1501 takes all"
    assert_refused(advice, load_corpus, texts=texts)
    assert load_corpus(texts=texts, max_length=8).report.dropped == 1
    assert load_corpus(texts=texts, max_length=1501).max_length == 1501
    assert_refused("max_length", load_corpus, texts=texts, max_length=8, longer="grow")


@pytest.mark.parametrize(("texts", "options", "hint"), [
    ([json.dumps({"text": text}) for text in SENTENCES], {}, "JSON: .*--column text"),
    ([text.replace(" ", "\t", 1) for text in SENTENCES if " " in text], {}, "table with tabs"),
    ([text for n, seq in enumerate(_texts("ACGT", 9, 9)) for text in (f">s{n}", seq)], {"mode": "char"}, "FASTA"),
    ([*SENTENCES, *(text.upper() for text in SENTENCES)], {}, r"differ .* by case only: .*\(--lower\)"),
    (["a b c", "b a d", "c c a", "d a"], {"mode": "char"}, "single characters with blanks between.*--blanks keep"),
    (["Text", *SENTENCES], {}, "'Text', looks like the name of a column"),
    (SENTENCES, {}, None), (SENTENCES, {"mode": "char"}, None),
])  # fmt: skip
def test_where_the_text_may_be_meant_otherwise_a_note_names_the_option(
    texts: list[str], options: dict[str, Any], hint: str | None
) -> None:
    report = load_corpus(texts=texts, **options).report
    assert report.hints == () if hint is None else assert_hint(report.advice(), hint)


def assert_hint(advice: list[str], hint: str) -> bool:
    return any(re.search(hint, sentence) for sentence in advice)


# -- Texts that are handed over ---------------------------------------------------------------------------------------
def test_any_sequence_of_strings_is_a_corpus() -> None:
    expected = same_corpus(load_corpus(texts=SENTENCES))
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(SENTENCES, index=range(5, 65))
    for texts in (tuple(SENTENCES), iter(SENTENCES), np.array(SENTENCES), series, series.to_numpy()):
        assert same_corpus(load_corpus(texts=texts)) == expected
    for texts in (series, np.array(SENTENCES)):
        task = make_task("corpus", texts=texts)
        assert isinstance(task, CorpusTask)
        assert same_corpus(task.corpus) == expected
        assert TextGANEnv("corpus", texts=texts, control="constant").task.vocab_size == task.vocab_size


def same_corpus(corpus: Corpus) -> tuple[str, list[list[int]]]:
    return corpus.vocabulary.to_json(), corpus.splits["train"].lists()


def test_what_is_no_sequence_of_strings_is_one_sentence() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"text": SENTENCES, "n": 1})
    for make in (load_corpus, lambda **given: make_task("corpus", **given)):
        assert_refused("one column, found a table with text, n", make, texts=table)
        assert_refused("text 1 must be a string, found dict", make, texts=table.to_dict("records"))
        assert_refused("text 2 must be a string, found float", make, texts=pandas.Series(["a", None]))
        assert_refused("found set", make, texts=set(SENTENCES))
        assert_refused("half a character", make, texts=["a b", "\ud83d"])
        assert_refused("path", make, path=["a.txt", "b.txt"])


@pytest.mark.parametrize(("options", "sentence"), [
    ({"blanks": "keep"}, "blanks is for mode char"), ({"mode": "char", "blanks": "some"}, "rule for blanks 'some'"),
    ({"vocab_size": 300}, "vocab_size is for mode bpe"), ({"mode": "bpe", "min_count": 2}, "set vocab_size"),
    ({"mode": "bpe", "vocab_size": 99}, "at least 2"), ({"column": "a"}, "for files"), ({"encoding": "x"}, "for files"),
    ({"tokenizer": "folder", "lower": True}, "leave out lower"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, load_corpus, texts=SENTENCES, **options)


def test_a_broken_file_gives_texts_or_one_sentence(tmp_path: Path) -> None:
    """Some bytes of every kind of file are changed, left out or put in."""
    draw = random.Random(0)
    lines = "".join(f"{text}\n" for text in SENTENCES).encode()
    table = "id,text\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(SENTENCES))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", table)
    whole = [table.encode(), gzip.compress(lines, mtime=0), bz2.compress(lines), lzma.compress(table.encode())]
    whole += [lines.decode().encode("utf-16"), (tmp_path / "a.zip").read_bytes(), b'{"text": "a b"}\n' * 9]
    refused = 0
    for number in range(400):
        broken = bytearray(draw.choice(whole))
        for _ in range(draw.choice((1, 1, 3, 20))):
            at, put = draw.randrange(len(broken) + 1), draw.choices(b'"\n\r,;{}[]\\\0\xffa1', k=draw.randrange(5))
            broken[at : at + draw.choice((0, 1, 30))] = bytes(put)
        file = tmp_path / f"{number}{draw.choice(('.csv', '.jsonl', '.txt.gz', '.csv.gz', '.zip', '.txt'))}"
        file.write_bytes(bytes(broken))
        options = draw.choice(({}, {}, {"column": "text"}, {"encoding": draw.choice(("utf-16", "cp1252", "punycode"))}))
        try:
            assert all(isinstance(text, str) for text in TextFile(file, **options))
        except InputError as sentence:
            refused += str(sentence).startswith(f"'{file}'")
    assert 100 < refused < 400
