"""Texts, run folders and words on the command line as nobody should give them: one sentence, or a correct run.

Everything is real up to the loop that trains, which is left out: words become a config, texts a task, the agent is
built, the run folder is made. `make faults` tries ten thousand inputs.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import a2c, cli, dqn, leakgan, mle, ppo, seqgan
from faults.watching import Meter, refusal
from textgan_env.runs import folder
from textgan_env.runs.checkpointing import CheckpointManager
from textgan_env.runs.checkpoints import Checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.tasks import CorpusTask
from textgan_env.text.corpus import load_corpus
from textgan_env.training import launch, loop
from textgan_env.utils.stopping import StopSignals

# The library that reads command lines draws from the global generators.
pytestmark = [pytest.mark.moves_global_rng, pytest.mark.timeout(7200)]
TIMES = int(os.environ.get("FAULTS", "1"))
MOST_MEMORY = 3 * 2**30  # a large batch that somebody asks for is a correct run


@pytest.fixture(autouse=True)
def no_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave out the loop that trains, what asks git, and the network."""

    def trained(agent: loop.Agent, run: RunFolder, config: Any, checkpoint: Checkpoint | None) -> None:
        with StopSignals() as signals:
            CheckpointManager(agent, run, config, signals).resume(checkpoint)

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(launch, "train", trained)
    monkeypatch.setattr(folder, "source_state", lambda: None)
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.chdir(tmp_path)


def all_refused_or_run(inputs: st.SearchStrategy[Any], times: int, use: Callable[..., Callable[[], object]]) -> None:
    """Use each input: one sentence, or a run, and both come up."""
    found: Counter[bool] = Counter()

    @settings(max_examples=times * TIMES, database=None)
    @given(inputs)
    def each(given_: tuple[Any, ...]) -> None:
        call = use(*given_)
        with Meter() as meter:
            found[refusal(call) == ""] += 1
        assert meter.memory < MOST_MEMORY, f"{given_} took {meter.memory / 2**20:.0f} MB"

    each()
    assert len(found) == 2, found


# ------------------------------------------------------------------------------------------------ texts

PIECES = ["the", "a", "cat", "Cat.", "don't", '"', "''", "...", "3,000", "<eos>", "<unk>", "\t", "\x1c", "\u2028"]
PIECES += ["\u0301\u0316" * 40, "\u0130", "\u5e8a\u524d", "\x1b[2J", "((((", ". " * 50, "'" * 50, ",,," * 9, "x" * 300]
NO_TEXT = [b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\r"]
LINES = st.lists(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=9).map(" ".join), max_size=40)
PLAIN = st.lists(st.sampled_from([f"{a} {b}" for a in PIECES[:5] for b in PIECES[:9]]), min_size=12, max_size=40)
SIZES = st.sampled_from([1, 2, 3, 5, 20, 20, 100, 0, -1, 10**6, 10**30])
READING = {
    "mode": st.sampled_from(["word", "char", "whitespace", "", "Word"]),
    "max_length": SIZES,
    "min_count": SIZES,
    "max_vocab": SIZES,
    "longer": st.sampled_from(["cut", "drop", "grow", "x"]),
}
HOW: Any = st.just({}) | st.fixed_dictionaries({}, optional=READING)


def test_odd_texts_are_refused_in_a_sentence_or_read(tmp_path: Path) -> None:
    path = tmp_path / "odd.txt"

    def read(lines: list[str], end: str, bad: bytes, how: dict[str, Any]) -> Callable[[], object]:
        content = end.join(lines).encode("utf-8", "surrogatepass")
        path.write_bytes(content[: len(content) // 2] + bad + content[len(content) // 2 :])

        def make() -> None:
            task = CorpusTask(load_corpus(path, **how))
            print(task, task.corpus.report.rows())
            for split in task.corpus.splits:
                tokens_BT = task.split(split).tokens_BT
                assert int(tokens_BT.max()) <= task.vocab_size
                assert len([task.text(row) for row in tokens_BT.tolist()]) == len(tokens_BT)

        return make

    bad = st.sampled_from([*[b""] * 9, *NO_TEXT])
    all_refused_or_run(st.tuples(PLAIN | LINES, st.sampled_from(["\n", "\r\n", "\n\n"]), bad, HOW), 125, read)


# ------------------------------------------------------------------------------------------------ run folders

VALUES: Any = st.sampled_from([
    *(None, True, "", "x", "toy", -1, 0, 1, 1.5, 10**6, 10**12, 10**30, 1e308, float("nan"), float("inf"), [], [1], {}),
    *("/dev/zero", "\x1b[2J", "\ud800", "a\nb", "cuda", "meta", "best", "gone"),
])  # fmt: skip
NO_CONFIG = [b"", b"null", b"[]", b"{}", b"[" * 9999, b'{"config": {}}', b'{"config": 3}', b"\xff\xfe{}", b'{"config":']


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; made before the loop is left out, as a fixture of the module comes first."""
    folder = tmp_path_factory.mktemp("good")
    mle.main(["--task", "toy", "--preset", "smoke", "--show-samples", "1", "--threads", "1", "--runs", str(folder)])
    return folder / "mle-toy-1"


def test_odd_configs_of_a_run_are_refused_in_a_sentence_or_read(tmp_path: Path, good: Path) -> None:
    run, whole = tmp_path / good.name, (good / "config.json").read_bytes()
    names = list(json.loads(whole)["config"])

    def opened(changes: dict[str, Any] | bytes, resumed: bool) -> Callable[[], object]:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(good, run)
        about = json.loads(whole)
        if isinstance(changes, dict):
            settings = about["config"] | changes
            about["config"] = {name: value for name, value in settings.items() if value != "gone"}
        (run / "config.json").write_bytes(changes if isinstance(changes, bytes) else json.dumps(about).encode())
        return (lambda: launch.launch(mle.MLEConfig(resume=run), mle.MLE)) if resumed else lambda: cli.sample(run, n=1)

    changes = st.dictionaries(st.sampled_from(names), VALUES, min_size=1, max_size=5)
    cut = st.integers(0, len(whole) - 3).map(lambda size: whole[:size])
    all_refused_or_run(st.tuples(changes | changes | cut | st.sampled_from(NO_CONFIG), st.booleans()), 60, opened)


# ------------------------------------------------------------------------------------------------ words of a command

AGENTS = {"mle": mle, "seqgan": seqgan, "leakgan": leakgan, "ppo": ppo, "a2c": a2c, "dqn": dqn}
VALUE = st.one_of(
    st.sampled_from(["0", "1", "2", "3"]),
    st.sampled_from(["-1", "10", "0.5", "1e-3", "1e308", "1e999", "nan", "-inf", "1" + "0" * 30, "9" * 5000, "", "x"]),
    st.sampled_from(
        ["None", "True", "word", "corpus", "cuda", "meta", "cpu:9", "/dev/null", ".", "~", "\udcff", "\x1b[2J"]
    ),
    st.sampled_from(["a\nb", "--", "=", "no-such-file", "toy", "cut", "best"]),
)
TASK = st.sampled_from([*["toy"] * 9, "corpus", "seqgan-oracle", "coco", "", "x"])


def test_odd_options_of_an_agent_are_refused_in_a_sentence_or_run(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("\n".join(f"{one} {two}" for one in "abcdef" for two in "ghijk"))

    def begun(agent: str, task: str, options: list[tuple[int, list[str]]], own_text: bool) -> Callable[[], object]:
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        known = [field.name for field in fields(AGENTS[agent].PRESETS["smoke"]("toy"))]
        names = [f"--{name.replace('_', '-')}" for name in known] + ["--colour", "-n", "--help-me"]
        words = [word for at, values in options for word in (names[at % len(names)], *values)]
        text = ["--corpus", str(tmp_path / "good.txt")] if own_text else []
        return lambda: AGENTS[agent].main(["--preset", "smoke", "--task", task, *words, *text])

    values = st.lists(VALUE, max_size=2) | VALUE.map(lambda one: [one])
    options = st.lists(st.tuples(st.integers(0, 50), values), max_size=5)
    all_refused_or_run(st.tuples(st.sampled_from(list(AGENTS)), TASK, options, st.booleans()), 45, begun)


def test_odd_words_of_the_command_are_refused_in_a_sentence_or_run() -> None:
    def helped(*words: str) -> Callable[[], object]:
        def call() -> None:
            try:
                cli.main(list(words))
            except SystemExit as leaving:
                if leaving.code != 0 or "--help" not in words:
                    raise

        return call

    known = st.sampled_from(["data", "list", "inspect", "sample", "train", "mle", "--help", "-n", "--json", "--seed"])
    commands = st.sampled_from([("sample",), ("score",), ("data", "inspect"), ("data", "list"), ("train",), ()])
    rest = st.lists(known | VALUE | st.text(max_size=5), max_size=4)
    # A lone dash would wait for what is typed.
    words = st.builds(lambda command, more: (*command, *(word for word in more if word != "-")), commands, rest)
    all_refused_or_run(words, 50, helped)
