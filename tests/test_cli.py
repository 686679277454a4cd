"""The command `textgan` as a person types it: what it prints, what it refuses, and with which exit code."""

import hashlib
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import textgan_env
from agents import mle
from agents.cli import AGENTS, COMMANDS, main
from conftest import PROJECT
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.text.corpora import CORPORA, DataFile
from textgan_env.text.corpus import load_corpus

# The library that reads command lines draws from the global generators.
pytestmark = pytest.mark.moves_global_rng

NOUNS, VERBS = ("cat", "dog", "fox", "cow", "bee"), ("sat", "ran", "ate", "hid")
LINES = [f"{article} {noun} {verb}" for article in ("the", "a") for noun in NOUNS for verb in VERBS]
TINY = ["--preset", "smoke", "--show-samples", "0", "--threads", "1"]
EXECUTABLE = [sys.executable, "-m", "agents.cli"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text file."""
    file = tmp_path_factory.mktemp("text") / "my.txt"
    file.write_text("\n".join([*LINES, "the yak sang a song", "", *LINES[:2]]) + "\n")
    return file


@pytest.fixture(scope="module")
def run(text: Path) -> Path:
    """The folder of a run on that text."""
    main(["train", "mle", "--corpus", str(text), "--runs", str(text.parent / "runs"), "--min-count", "2", *TINY])
    return text.parent / "runs" / "mle-my-1"


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says when it refuses: one line on stderr, nothing on stdout, exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err.removeprefix("error: ").removesuffix("\n")


# -- Help -------------------------------------------------------------------------------------------------------------
def test_help_of_every_command_loads_no_torch_and_names_the_command() -> None:
    pages = [
        "", "--help", "train", "data",
        *(f"{name} --help" for name in (*COMMANDS, *(f"train {agent}" for agent in AGENTS))),
    ]  # fmt: skip
    code = f"""
import contextlib, io, json, sys
from agents.cli import main
found = {{}}
for words in {pages!r}:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            main(words.split())
        except SystemExit as leaving:
            assert not leaving.code, words
    found[words] = out.getvalue()
assert "torch" not in sys.modules
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    helps = json.loads(done.stdout)
    assert helps[""] == helps["--help"]
    assert all(f"  {name} " in helps[""] for name in COMMANDS)
    assert all(f"  {name} " in helps["train"] for name in AGENTS)
    assert "textgan train mle --corpus my.txt" in helps["train"]
    for page, said in helps.items():
        assert said.startswith(f"usage: textgan {page.removesuffix('--help')}".rstrip()), page
    assert all("--device" in helps[f"train {agent} --help"] for agent in AGENTS)
    assert "--temperature" in helps["sample --help"]


def test_every_agent_file_is_an_agent() -> None:
    files = {path.stem for path in (PROJECT / "agents").glob("*.py")} - {"__init__", "cli"}
    assert set(AGENTS) == files >= {"mle", "seqgan"}


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"textgan_env {textgan_env.__version__}\n"


# -- Training ---------------------------------------------------------------------------------------------------------
def test_training_by_command_is_the_agent_script(run: Path, text: Path, tmp_path: Path) -> None:
    mle.main(["--corpus", str(text), "--runs", str(tmp_path), "--min-count", "2", *TINY])
    one, two = (load_checkpoint(folder / "checkpoints" / "last.safetensors") for folder in (run, tmp_path / run.name))
    assert one.all_tensors.keys() == two.all_tensors.keys()
    assert all(torch.equal(one.all_tensors[name], two.all_tensors[name]) for name in one.all_tensors)
    assert json.loads((run / "config.json").read_text())["command"][:2] == ["textgan train mle", "--corpus"]


def test_training_says_what_it_read_what_may_disappoint_and_how_to_go_on(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["train", "mle", "--corpus", str(text), "--runs", str(tmp_path), *TINY])
    said = capsys.readouterr().out
    assert "lines: 44; changed: nothing; left out: blank 1" in said
    assert "note: few texts to learn from (33)" in said
    assert re.search(rf"more texts: (\S+/)?textgan sample {tmp_path / 'mle-my-1'} -n 20 --temperature 0.8\n", said)
    main(["train", "mle", "--corpus", str(text), "--runs", str(tmp_path), "--temperature", "0.2", *TINY])
    assert "-n 20 --temperature 0.16\n" in capsys.readouterr().out  # safer than the run's own


# -- Writing ----------------------------------------------------------------------------------------------------------
def test_sample_prints_the_texts_and_nothing_else(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    main(["sample", str(run), "-n", "7", "--temperature", "0.8", "--seed", "3", "--prefix", "the cat"])
    said = capsys.readouterr()
    expected = textgan_env.load(run).sample(7, temperature=0.8, seed=3, prefix="the cat")
    assert said.out.split("\n") == [*expected, ""]
    assert said.err == ""


def test_a_reader_that_goes_away_is_no_error(run: Path) -> None:
    command = [*EXECUTABLE, "sample", str(run), "-n", "100000"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        assert writer.stdout.readline()
        writer.stdout.close()
        assert writer.stderr.read() == b""
    assert writer.returncode == 141


def test_a_written_file_can_be_scored_from_a_pipe(run: Path, text: Path) -> None:
    texts = "".join(f"{line}\n" for line in textgan_env.load(run).sample(50))
    command = [*EXECUTABLE, "score", "-", "--corpus", str(text), "--json"]
    done = subprocess.run(command, cwd=PROJECT, input=texts, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    settings = json.loads(done.stdout)["settings"]
    assert settings["samples"] + settings["blank_lines"] == 50


# -- Measuring --------------------------------------------------------------------------------------------------------
def test_evaluate_prints_what_the_run_measured_at_its_end(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads((run / "evaluation.json").read_text())
    capsys.readouterr()
    main(["evaluate", str(run), "--json"])
    assert json.loads(capsys.readouterr().out) == {name: said[name] for name in ("values", "missing", "settings")}
    main(["evaluate", str(run), "--samples", "20", "--temperature", "0.5"])
    table = capsys.readouterr().out
    assert f"nll_test          {said['values']['nll_test']:.4f}" not in table
    assert "temperature=0.5" in table
    assert "nltk sentence BLEU, smoothing method 1" in table


def test_score_measures_the_training_texts_as_copies(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = load_corpus(text)
    file = tmp_path / "theirs.txt"
    rows = corpus.splits["train"].lists()
    file.write_text("\n".join(" ".join(corpus.vocabulary.decode(row)) for row in rows) + "\n\n")
    capsys.readouterr()
    main(["score", str(file), "--corpus", str(text), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["values"]["copied_texts"] == found["values"]["copied_2"] == found["values"]["unique"] == 1
    assert found["values"]["unknown_words"] == 0
    assert (found["settings"]["samples"], found["settings"]["blank_lines"]) == (len(rows), 1)
    assert found["settings"]["references"] == len(corpus.splits["test"])
    main(["score", str(file), "--corpus", str(text)])
    assert "copied_texts      1.0000" in capsys.readouterr().out


# -- Looking at texts -------------------------------------------------------------------------------------------------
def test_inspect_counts_what_training_would_see(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "inspect", str(text), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["lines"], found["blank"], found["duplicates"]) == (44, 1, 2)
    assert found["texts"] == {"train": 33, "valid": 4, "test": 4}
    assert found["lengths"] == {"shortest": 3, "median": 3, "99 %": 5, "longest": 5}
    assert set(found["frequent"][:2]) == {"the", "a"}
    assert "few texts to learn from (33)" in found["advice"][0]
    main(["data", "inspect", str(text), "--max-length", "4", "--min-count", "2"])
    said = capsys.readouterr().out
    assert "blank 1, copies 2, too long 1" in said
    assert "T = 3\n" in said  # what is left has 3 words, so texts need no end token


def test_list_tells_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path))
    for name in ("poems.txt", "coco_train.txt", "wordnet_phrases.txt", "wordnet_glosses.txt"):
        (tmp_path / name).touch()
    # Of derived files only whole ones count: others would be derived again.
    empty = {"train": DataFile("wordnet_phrases.txt", hashlib.sha256(b"").hexdigest())}
    monkeypatch.setitem(CORPORA, "wordnet", replace(CORPORA["wordnet"], files=empty))
    main(["data", "list", "--json"])
    here = {row["task"]: row["here"] for row in json.loads(capsys.readouterr().out)}
    assert [name for name, is_here in here.items() if is_here] == ["wordnet", "poems"]
    assert {"wordnet-glosses", "coco", "emnlp", "music"} < here.keys()
    main(["data", "list"])
    said = capsys.readouterr().out
    assert str(tmp_path) in said
    assert said.count(": not here yet") == len(here) - 2


def test_fetch_checks_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path))
    (tmp_path / "poems.txt").write_text("another file")
    assert "is not the published file" in refused(["data", "fetch", "poems"], capsys)
    assert "found sonnets" in refused(["data", "fetch", "poems", "sonnets"], capsys)
    assert "expected some of wordnet" in refused(["data", "fetch"], capsys)


# -- Mistakes ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("words", "named"), [
    (["sampel"], f"'sampel', expected one of: {', '.join(COMMANDS)}"),
    (["data", "lost"], "'data lost', expected one of: data list, data fetch, data inspect"),
    (["train", "mel"], f"'mel', expected one of: {', '.join(AGENTS)}"),
    (["train", "mle", "--epoch", "3"], "--epoch, 3 (did you mean --epochs?)"),
    (["train", "mle", "--epochs", "many"], "--epochs"),
    (["sample"], "RUN"),
    (["sample", "no-run", "-n", "x"], "-n/--n"),
    (["sample", "no-run"], "'no-run'"),
    (["evaluate", "no-run"], "'no-run'"),
    (["play", "no-run", "nor-this"], "'no-run'"),
    (["play", "no-run", "--port", "many"], "--port"),
    (["evaluate", "no-run", "--split", "train"], "'--split'"),
    (["score", "no-file", "--task", "toy"], "'no-file'"),
    (["score", __file__], "--corpus FILE"),
    (["score", __file__, "--task", "toy"], "'toy' are numbers"),
    (["score", __file__, "--task", "verse"], "task 'verse'"),
    (["data", "inspect", "coco", "--mode", "char"], "option mode"),
    (["data", "inspect", "oracle40"], "the texts of task 'oracle40' are drawn from a law that is known"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert named in refused(words, capsys)


def test_the_log_of_a_run_is_not_scored_as_if_its_headings_were_texts(
    run: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(["score", str(run / "samples.txt"), "--corpus", str(text)], capsys)
    assert said.endswith(f"measure the run itself, textgan evaluate {run}, or its final_samples.txt")
    main(["score", str(run / "final_samples.txt"), "--corpus", str(text)])
    elsewhere = tmp_path / "samples.txt"  # no run beside it
    elsewhere.write_text("the cat\nthe dog\n")
    main(["score", str(elsewhere), "--corpus", str(text)])


def test_a_prefix_of_unknown_words_is_one_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(["sample", str(run), "--prefix", "the zebra"], capsys)
    assert said.startswith("'zebra' is not among the ")
    assert said.endswith(" words of task 'corpus'")


FILES = {
    "empty": (b"", "is empty, expected one text a line"),
    "blank": (b"\n \n\n", "nothing but blank lines (3)"),
    "binary": (bytes(range(256)), "line 1 holds a NUL byte"),
    "latin": (b"ok\ncaf\xe9\n", "line 2 is not UTF-8: found byte 0xe9"),
    "one line": (b"only this\n", "too few different texts to split"),
    "strangers": (b"a b\nc d\ne f\n", "no word of the valid split is among those of the training part"),
    "long": (b"a b c d e\n" * 9, "every text is longer than max_length 3"),
    "a folder": (None, "is a folder, expected a text file"),
    "missing": (None, "there is no file"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_text_that_is_none_is_refused_by_every_command_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, sentence = FILES[name]
    file = tmp_path / "bad.txt"
    if content is not None:
        file.write_bytes(content)
    elif name == "a folder":
        file.mkdir()
    good = tmp_path / "good.txt"
    good.write_text("\n".join(LINES))
    short = ["--max-length", "3"] if name == "long" else []
    runs = tmp_path / "runs"
    commands = [["train", "mle", "--corpus", str(file), "--runs", str(runs), *TINY, *short]]
    commands += [["data", "inspect", str(file), *short]] if name != "strangers" else []
    commands += [["score", str(good), "--corpus", str(file), *short]]
    for words in commands:
        assert sentence in refused(words, capsys)
    if name not in ("strangers", "long"):  # which can be scored
        few = {"empty": "found 0", "blank": "found 0", "one line": "found 1"}
        assert few.get(name, sentence) in refused(["score", str(file), "--corpus", str(good)], capsys)
    assert not runs.exists()


def test_ctrl_c_ends_with_one_line_and_a_readable_run(tmp_path: Path) -> None:
    command = ["train", "mle", "--task", "toy", "--preset", "smoke", "--epochs", "100000", "--runs", str(tmp_path)]
    training = subprocess.Popen(
        [*EXECUTABLE, *command, "--checkpoint-every", "0", "--eval-every", "1"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background processes ignore the signal, and pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert training.stdout is not None
    # A run that ended by itself, for whatever reason, prints no more lines: the iterator ends, too.
    assert any("mle      3/100000" in line for line in training.stdout)
    training.send_signal(signal.SIGINT)
    _, said = training.communicate(timeout=100)
    assert training.returncode == 130
    *_, last = said.splitlines()
    assert re.fullmatch(r"stopped by Ctrl-C; .*--resume .*mle-toy-1", last)
    assert "Traceback" not in said
    assert len(textgan_env.load(tmp_path / "mle-toy-1").sample(3)) == 3
