"""Texts, run folders and words on the command line as nobody should give them: one sentence, or a correct run.

Everything is real up to the loop that trains, which is left out: words become a config, texts a task, the agent is
built, the run folder is made. Ten thousand inputs are tried by `make faults`, some hundreds with the other tests.
"""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agents import a2c, cli, dqn, leakgan, mle, ppo, seqgan
from faults.watching import Meter, refusal
from textgan_env.runs import folder
from textgan_env.runs.checkpointing import CheckpointManager
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import MetricLog
from textgan_env.tasks import CorpusTask
from textgan_env.text.corpus import load_corpus
from textgan_env.training import launch, loop
from textgan_env.utils.stopping import StopSignals

# The library that reads command lines draws from the global generators.
pytestmark = pytest.mark.moves_global_rng

AGENTS: dict[str, ModuleType] = {"mle": mle, "seqgan": seqgan, "leakgan": leakgan, "ppo": ppo, "a2c": a2c, "dqn": dqn}
MOST_MEMORY = 3 * 2**30  # a large batch that somebody asks for is a correct run


@pytest.fixture(autouse=True)
def no_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave out the loop that trains, what asks git, and the network."""

    def trained(agent: loop.Agent, run: RunFolder, config: Any) -> None:
        with StopSignals() as signals:
            CheckpointManager(agent, run, config, signals).resume()

    monkeypatch.setattr(loop, "train", trained)
    monkeypatch.setattr(folder, "source_state", lambda: None)
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("urllib.request.urlopen", _offline)
    monkeypatch.chdir(tmp_path)


def _offline(*_: object, **__: object) -> None:
    raise OSError("no network here")


def outcome(call: Callable[[], object], what: object) -> str:
    """ "refused" or "ran"; anything else fails."""
    with Meter() as meter:
        said = refusal(call)
    assert meter.memory < MOST_MEMORY, f"{what} took {meter.memory / 2**20:.0f} MB"
    return "refused" if said else "ran"


# ------------------------------------------------------------------------------------------------ texts

_PIECES = [
    *("the", "a", "cat", "sat", "Cat.", "don't", '"', "''", "``", "'", "...", "--", "u.s.a.", "3,000", "12:30"),
    *("<eos>", "<unk>", "<pad>", "\t", "\r", " ", "  ", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u00a0", "\ufeff"),
    *("\u200b", "e\u0301", "\u0301\u0316" * 40, "\u0130", "\u00df", "\ufb01", "\u5e8a\u524d\u660e\u6708\u5149"),
    *("\U0001f600", "\u05d0", "\x1b[2J", "\x07", "((((", "))))", ". " * 50, "'" * 50, ":" * 20, ",,," * 9, "x" * 300),
    *("cannot", "gonna", "1", "-1", "nan", "{}"),
]
_BYTES = [
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf5\x80\x80\x80",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\n",
    b"\r",
]


def odd_text(rng: random.Random) -> bytes:
    """The bytes of a text file: mostly lines of odd words, sometimes bytes that are no text."""
    lines = []
    known = _PIECES[: rng.choice([5, 5, 15, len(_PIECES)])]
    for _ in range(rng.choice([0, 1, 3, 12, 40, 40, 40])):
        words = [rng.choice(known) for _ in range(rng.choice([0, 1, 2, 4, 9]))]
        lines.append(rng.choice([" ", " ", ""]).join(words).encode())
    content = rng.choice([b"\n", b"\n", b"\r\n", b"\n\n"]).join(lines)
    for _ in range(rng.choice([0, 0, 0, 0, 1, 3])):
        at = rng.randrange(len(content) + 1)
        content = content[:at] + rng.choice(_BYTES) + content[at:]
    return content


def odd_reading(rng: random.Random) -> dict[str, Any]:
    """How the file is to be read."""
    numbers = [1, 2, 3, 5, 20, 20, 100, 0, -1, 10**6, 10**30]
    options = {
        "mode": ["word", "char", "whitespace", "", "Word"],
        "max_length": numbers,
        "min_count": numbers,
        "max_vocab": numbers,
        "longer": ["cut", "drop", "grow", "x"],
    }
    chosen = rng.sample(list(options), rng.choice([0, 0, 0, 1, 2, 5]))
    return {name: rng.choice(options[name]) for name in chosen}


def read_text(number: int, folder: Path) -> str:
    rng = random.Random(f"text {number}")
    path = folder / "odd.txt"
    path.write_bytes(odd_text(rng))
    given = odd_reading(rng)
    if number % 10 == 0:  # by the command; the others skip the reading of words
        words = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        return outcome(lambda: cli.main(["data", "inspect", str(path), *words]), (number, path.read_bytes(), given))

    def make() -> None:
        task = CorpusTask(load_corpus(path, **given))
        print(task, task.corpus.report.rows())
        for split in task.corpus.splits:
            tokens_BT = task.split(split).tokens_BT
            assert int(tokens_BT.max()) <= task.vocab_size
            assert len([task.text(row) for row in tokens_BT.tolist()]) == len(tokens_BT)

    return outcome(make, (number, path.read_bytes(), given))


# ------------------------------------------------------------------------------------------------ run folders

_VALUES: list[Any] = [
    *(None, True, "", "x", "toy", -1, 0, 1, 1.5, 10**6, 10**12, 10**30, 1e308, float("nan"), float("inf"), [], [1], {}),
    *("/dev/zero", "\x1b[2J", "\ud800", "a\nb", "cuda", "meta", "best"),
]


def odd_config(rng: random.Random, content: bytes) -> bytes:
    """A config.json: some settings of other kinds and sizes, or no longer JSON."""
    what = rng.randrange(10)
    if what == 0:
        return content[: rng.randrange(len(content))]
    if what == 1:
        broken = bytearray(content)
        broken[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        return bytes(broken)
    if what == 2:
        return rng.choice([b"", b"null", b"[]", b"{}", b"[" * 9999, b'{"config": {}}', b'{"config": 3}', b"\xff\xfe{}"])
    about = json.loads(content)
    for name in rng.sample(list(about["config"]), rng.choice([1, 1, 1, 2, 5])):
        if rng.random() < 0.1:
            del about["config"][name]
        else:
            about["config"][name] = rng.choice(_VALUES)
    if rng.random() < 0.1:
        about[rng.choice(list(about))] = rng.choice(_VALUES)
    return json.dumps(about).encode()


def odd_rows(rng: random.Random, content: bytes) -> bytes:
    """A metrics.jsonl or samples.txt that a crash or somebody has changed."""
    lines = content.split(b"\n")
    row = [
        b'{"step": 1',
        b"{}",
        b"[]",
        b'{"step": "1", "phase": ""}',
        b'{"step": 1, "phase": "x", "loss": [1]}',
        b"\xff",
    ]
    row += [
        b'{"step": ' + b"9" * 90 + b', "phase": "x"}',
        b'{"step": 1, "phase": "x", "a\\ud800": 1}',
        b"  x",
        b"step x",
    ]
    row += [
        b'{"step": 1, "phase": "x", "loss": 1e999}',
        b'{"step": 0, "step": 1, "phase": "x"}',
        b"step 99999999999999999999",
    ]
    for _ in range(rng.choice([1, 1, 3])):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(row))
    return b"\n".join(lines)


def open_run(number: int, good: Path, folder: Path) -> str:
    rng = random.Random(f"run {number}")
    run = folder / good.name
    shutil.copytree(good, run)
    try:
        name = rng.choice(["config.json", "config.json", "config.json", "metrics.jsonl", "samples.txt"])
        content = (run / name).read_bytes()
        bad = odd_config(rng, content) if name == "config.json" else odd_rows(rng, content)
        (run / name).write_bytes(bad)

        def go_on() -> None:
            if name == "config.json":
                doors = [
                    lambda: launch.launch(mle.MLEConfig(resume=run), mle.MLE),
                    lambda: cli.sample(run, n=1),
                ]
                doors[number % 2]()
            else:
                MetricLog(run, tensorboard=False, resume_at=1).close()
                RunFolder.open(run).rewind(1)

        return outcome(go_on, (number, name, bad[:3000]))
    finally:
        shutil.rmtree(run)


# ------------------------------------------------------------------------------------------------ words of a command

_WORDS = [
    *("0", "1", "2", "3", "-1", "10", "0.5", "1e-3", "1e308", "-1e308", "1e999", "nan", "inf", "-inf", "1000000000000"),
    *(
        "1" + "0" * 30,
        "9" * 5000,
        "1.5",
        "x",
        "",
        " ",
        "None",
        "True",
        "word",
        "char",
        "oracle",
        "toy",
        "corpus",
        "cut",
    ),
    *("best", "cuda", "meta", "cpu:9", "cuda:99", "/dev/null", "no-such-file", ".", "~", "\u00fc", "\udcff", "\x1b[2J"),
    *("a\nb", "--", "-", "="),
]


def odd_words(rng: random.Random, module: ModuleType, folder: Path) -> list[str]:
    """The words after an agent's name: its own options with values of every sort, and options it has not."""
    config = module.PRESETS["smoke"]("toy")
    names = [f"--{field.name.replace('_', '-')}" for field in fields(config)] + ["--colour", "-n", "--help-me"]
    words = rng.choice([*[["--preset", "smoke"]] * 8, ["--preset", rng.choice(_WORDS)], []])
    words = [*words, "--task", rng.choice([*["toy"] * 9, "corpus", "seqgan-oracle", "coco", rng.choice(_WORDS)])]
    for name in rng.sample(names, rng.choice([0, 1, 1, 2, 3, 6])):
        word = rng.choice(_WORDS[: rng.choice([4, 12, len(_WORDS)])])
        values = [] if rng.random() < 0.1 else [word] * rng.choice([1, 1, 1, 1, 1, 1, 1, 2])
        words += [f"{name}={values[0]}"] if values and rng.random() < 0.2 else [name, *values]
    if rng.random() < 0.1:
        words += ["--corpus", str(folder / "good.txt")]
    return [*words, "--runs", str(folder / "runs")] if rng.random() < 0.95 else words


def run_words(number: int, folder: Path) -> str:
    rng = random.Random(f"words {number}")
    name = list(AGENTS)[number % len(AGENTS)]
    words = odd_words(rng, AGENTS[name], folder)
    if number % 5:
        return outcome(lambda: AGENTS[name].main(words), (number, name, words))
    command = rng.choice(
        ["sample", "evaluate", "score", "data inspect", "data list", "data fetch", "train", "data", "x", ""]
    )
    words = [*command.split(), *rng.sample([*_WORDS, *words, str(folder / "good.txt"), "-n", "--json", "--seed"], 3)]
    words = [word for word in words if word not in ("-", "/dev/stdin")]  # would wait for what is typed
    return outcome(lambda: cli.main(words), (number, words))


# ------------------------------------------------------------------------------------------------ how many


def try_texts(numbers: range, folder: Path) -> dict[str, int]:
    return _counted([read_text(number, folder) for number in numbers])


def try_runs(numbers: range, folder: Path, good: Path) -> dict[str, int]:
    return _counted([open_run(number, good, folder) for number in numbers])


def try_words(numbers: range, folder: Path) -> dict[str, int]:
    (folder / "good.txt").write_text("\n".join(f"{one} {two}" for one in "abcdef" for two in "ghijk"))
    found = []
    for number in numbers:
        found.append(run_words(number, folder))
        shutil.rmtree(folder / "runs", ignore_errors=True)
    return _counted(found)


def _counted(found: list[str]) -> dict[str, int]:
    return {name: found.count(name) for name in ("refused", "ran")}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("good")
    mle.main(["--task", "toy", "--preset", "smoke", "--show-samples", "1", "--threads", "1", "--runs", str(folder)])
    return folder / "mle-toy-1"  # made before the loop is left out: a fixture of the module comes first


@pytest.mark.timeout(900)
def test_odd_texts_are_refused_in_a_sentence_or_read(tmp_path: Path) -> None:
    found = try_texts(range(20_000, 20_150), tmp_path)
    assert min(found.values()) > 20


@pytest.mark.timeout(900)
def test_odd_files_of_a_run_are_refused_in_a_sentence_or_read(tmp_path: Path, good: Path) -> None:
    found = try_runs(range(20_000, 20_060), tmp_path, good)
    assert min(found.values()) > 5


@pytest.mark.timeout(900)
def test_odd_words_are_refused_in_a_sentence_or_run(tmp_path: Path) -> None:
    found = try_words(range(20_000, 20_060), tmp_path)
    assert min(found.values()) > 3


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_ten_thousand_odd_inputs_are_refused_in_a_sentence_or_run(
    tmp_path: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {
        "texts": try_texts(range(5000), tmp_path),
        "run folders": try_runs(range(2500), tmp_path, good),
        "words": try_words(range(2500), tmp_path),
    }
    with capsys.disabled():
        print("\n10,000 odd inputs:", found)
