"""Run folders of strangers: every part of every document is forged, and files are links, devices, pipes, folders.

Each forged folder follows from its number. Through every door it gets one sentence or is read harmlessly: no file
outside the run is opened but the run's own text, none is changed, nothing raw reaches the terminal, and it costs next
to nothing. `make faults` tries two hundred; some are tried with the other tests.
"""

import copy
import json
import os
import random
import shutil
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import textgan_env
from agents import cli, mle, seqgan
from benchmarks import jobs
from conftest import PROJECT
from faults.test_corrupted_checkpoints import LINES, MOST_MEMORY, MOST_SECONDS, TINY, forged
from faults.watching import Meter, files_opened, nothing_happens, refusal
from textgan_env.runs.checkpointing import CheckpointManager
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import MetricLog
from textgan_env.text.fetch import data_folder
from textgan_env.training import launch
from textgan_env.utils.stopping import StopSignals

# The library that reads command lines draws from the global generators.
pytestmark = [pytest.mark.moves_global_rng, pytest.mark.timeout(7200)]

ESCAPES = "\x1b[2J\x1b]0;x\x07\x9b31m\r\u202eevil"
SECRET = "the secret of this machine"
#: What stands in place of a value; "@" is a folder with files of the reader.
VALUES: list[Any] = [
    *(None, True, 0, 1, -1, 3, 1.5, -2.5, 10**80, 2**63, 1e308, float("nan"), float("inf"), -float("inf"), "", "x"),
    *([], [1], ["x"], {}, {"a": 1}, {"name": "toy"}, [None] * 9, [[1]], "x" * 100_000, ESCAPES, {ESCAPES: 1}),
    *("/dev/zero", "/etc/passwd", "@/secret.txt", "@", "../secret/secret.txt", "a\0b", "\ud800", "~"),
]  # fmt: skip
JSON = ("config.json", "checkpoint", "metrics.jsonl", "evaluation.json", "pretraining.jsonl", "result.json")
TEXTS = ("samples.txt", "attempts", ".owner", "log.txt")
FILES = (
    *("config.json", "metrics.jsonl", "evaluation.json", "pretraining.jsonl", "result.json", "samples.txt", ".lock"),
    *(".owner", "attempts", "log.txt", "checkpoints", "tb", "metrics.csv", "checkpoints/last.safetensors"),
    *("checkpoints/best.safetensors", "checkpoints/previous.safetensors", "report.html", "job.json"),
)
CONTENTS = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"config":{},"code":1,"rows":[]}',
    b"NaN\n",
    b"9" * 5000,
]


def places(document: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where anything stands in a document."""
    parts = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document[:3])
        if isinstance(document, list)
        else ()
    )
    for name, part in parts:
        yield (*above, name)
        yield from places(part, (*above, name))


def spoil(rng: random.Random, document: Any, secret: Path) -> str:
    """Change one place of a document: another value, none, one too many, or another name."""
    place = rng.choice(list(places(document)))
    for name in place[:-1]:
        document = document[name]
    value = copy.deepcopy(rng.choice(VALUES))
    if isinstance(value, str):
        value = value.replace("@", str(secret))
    how = rng.choice(["value", "value", "value", "gone", "more", "renamed", "deep"])
    if how == "gone":
        del document[place[-1]]
    elif how == "more" and isinstance(document, dict):
        document[rng.choice(["more", "path", "valid_path", "data_dir", "weights", ESCAPES])] = value
    elif how == "renamed" and isinstance(document, dict):
        document[ESCAPES] = document.pop(place[-1])
    elif how == "deep":
        for _ in range(300):
            value = [value]
        document[place[-1]] = value
    else:
        document[place[-1]] = value
    return f"{'.'.join(map(str, place))}: {how} {value!r:.40}"


def forge_document(rng: random.Random, run: Path, secret: Path) -> str:
    """Forge a document of the run."""
    name = rng.choice(JSON)
    if name == "checkpoint":
        paths = list((run / "checkpoints").glob("*.safetensors"))
        whole = load_checkpoint(run / "checkpoints" / "last.safetensors")
        header = whole.header.model_dump()
        said = spoil(rng, header, secret)
        for path in paths:
            path.write_bytes(forged(json.dumps(header), whole.all_tensors))
        return f"{name}: {said}"
    path = run / name
    if name.endswith("jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        said = spoil(rng, rows, secret)
        path.write_bytes("".join(f"{json.dumps(row)}\n" for row in rows).encode())
    else:
        document = json.loads(path.read_text())
        said = spoil(rng, document, secret)
        path.write_bytes(json.dumps(document).encode())
    return f"{name}: {said}"


def forge_file(rng: random.Random, run: Path, secret: Path) -> str:
    """Put something else in the place of a file of the run."""
    path = run / rng.choice(FILES)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    how = rng.choice(
        ["/dev/zero", str(secret / "secret.txt"), str(secret), "nowhere", "pipe", "folder", "bytes", "holes"]
    )
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "bytes":
        path.write_bytes(rng.choice(CONTENTS))
    elif how == "holes":
        path.touch()
        os.truncate(path, 2**33)
    else:
        path.symlink_to(how)
    return f"{path.relative_to(run)} is {how}"


def forge_text(rng: random.Random, run: Path, secret: Path) -> str:
    """Escapes, no text, and no sense in a file of lines."""
    path, bad = (
        run / rng.choice(TEXTS),
        rng.choice([ESCAPES, "\udcff\udcfe", "step 99999999999999999999\n", "  \n", "x" * 10**6]),
    )
    path.write_bytes((bad + "\n").encode("utf-8", "surrogateescape") + rng.choice([b"", path.read_bytes()]))
    return f"{path.name} begins with {bad!r:.40}"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs on a text, the second begun with the policy of the first, and a job's result beside each."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "my.txt").write_text("\n".join([*LINES, "the yak sang a song"]))
    text = [
        "--corpus",
        str(folder / "my.txt"),
        "--min-count",
        "2",
        "--runs",
        str(folder),
        *TINY,
        "--checkpoint-every",
        "0",
    ]
    mle.main(text)
    seqgan.main([*text, "--pretrained", str(folder / "mle-my-1")])
    row = {"variant": "", "values": {"cover": 1.0, "nll_valid": None}, "missing": {"x": "why"}, "samples": ["a"]}
    result: dict[str, Any] = {"label": "mle.toy.s0", "command": "", "code": "0", "rows": [row], "peak_memory_mb": 1.0}
    result |= {
        "config": {"arm": "mle", "task": "toy", "seed": 0, "member": 0},
        "seconds": {"training": 1.0, "all": None},
    }
    result |= {
        "curve": [{"temperature": 1.0, "cover": 1.0}],
        "learning_curve": [{"step": 1, "phase": "mle", "nll": 2.0}],
    }
    for run in ("mle-my-1", "seqgan-my-1"):
        pretraining = folder / run / "pretraining.jsonl"
        if not pretraining.exists():
            shutil.copyfile(folder / run / "metrics.jsonl", pretraining)
        (folder / run / "result.json").write_text(json.dumps(result))
        for name, content in (
            ("attempts", "1\n"),
            ("log.txt", "run:  40 % (2/5), 00:01 left\n"),
            (".owner", "process 1\n"),
        ):
            (folder / run / name).write_text(content)
    return folder


@pytest.fixture(autouse=True)
def without_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is resumed is read, and its logs are opened, but it does not train."""

    def resumed(agent: Any, run: RunFolder, config: Any, checkpoint: Any) -> None:
        agent.schedule()
        with StopSignals() as signals:
            manager = CheckpointManager(agent, run, config, signals)
            manager.resume(checkpoint)
            MetricLog(run.path, resume_at=manager.state.done, tensorboard=False).close()
            run.rewind(manager.state.done)

    monkeypatch.setattr(launch, "train", resumed)


def doors(run: Path) -> dict[str, Callable[[], object]]:
    agent: Any = (mle.MLEConfig, mle.MLE) if run.name.startswith("mle") else (seqgan.SeqGANConfig, seqgan.SeqGAN)
    return {
        "load": lambda: textgan_env.load(run).sample(1),
        "sample": lambda: cli.sample(run, n=2),
        "evaluate": lambda: cli.evaluate(run, samples=10),
        "report": lambda: cli.report((run,), texts=1, rollouts=2),
        "suite": lambda: (jobs.result_of(run), jobs.progress_of(run)),
        "resume": lambda: launch.launch(agent[0](resume=run, threads=1), agent[1]),
    }


def own_files() -> list[str]:
    """Where Python, the libraries, this package and its data folder lie, and what they ask the machine."""
    paths = [*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, str(PROJECT), "/proc", "/sys", "/dev/null"]
    paths.append(str(data_folder(None)))
    paths += [path for path in sys.path if path.endswith("site-packages")]
    return [os.path.realpath(path) for path in paths]


def try_all(numbers: range, good: Path, work: Path, through: int | None) -> tuple[float, str, Counter[bool]]:
    """Forge a folder for each number and knock at its doors, at all of them or at one; the dearest."""
    secret, worst, refused = work / "secret", (0.0, ""), Counter[bool]()
    secret.mkdir()
    for name in ("secret.txt", "wordnet_phrases.txt", "metrics.jsonl", "config.json", "tokenizer.json"):
        (secret / name).write_text(f"{SECRET}\n" * 30)
    before = {path: path.read_bytes() for path in [*secret.iterdir(), good / "my.txt"]}
    allowed = [*own_files(), os.path.realpath(good / "my.txt")]
    for number in numbers:
        rng = random.Random(number)
        run = work / ("mle-my-1", "seqgan-my-1")[number % 2]
        shutil.copytree(good / run.name, run)
        how = rng.choices([forge_document, forge_file, forge_text], [6, 2, 1])[0](rng, run, secret)
        for at, (door, enter) in enumerate(doors(run).items()):
            if through is not None and at != number // 2 % 6:
                continue
            what = f"number {number} ({how}) through {door}"
            print(what)
            with nothing_happens(), files_opened() as opened, Meter() as meter:
                said = refusal(enter)
            refused[bool(said)] += 1
            real = {os.path.realpath(path) for path in opened}
            outside = [path for path in real if not path.startswith((*allowed, os.path.realpath(run)))]
            assert outside == [], what
            assert SECRET not in said, what
            assert len(said) < 1500, f"{what}: {said}"
            assert meter.memory < MOST_MEMORY, f"{what} took {meter.memory / 2**20:.0f} MB"
            page = run / "report.html"
            assert not (
                page.is_file() and not page.is_symlink() and SECRET in page.read_text("utf-8", "replace")[: 10**7]
            ), what
            worst = max(worst, (meter.seconds, what))
        assert {path: path.read_bytes() for path in before} == before, f"number {number} ({how}) changed a file"
        shutil.rmtree(run)
    return *worst, refused


def test_good_runs_pass_every_door(good: Path, tmp_path: Path) -> None:
    for name in ("mle-my-1", "seqgan-my-1"):
        shutil.copytree(good / name, tmp_path / name)
        assert {door: refusal(enter) for door, enter in doors(tmp_path / name).items()} == dict.fromkeys(
            doors(tmp_path / name), ""
        )


@pytest.mark.parametrize(("name", "content", "door"), [
    ("result.json", b'{"config":{},"code":1,"rows":[]}', "suite"),
    ("evaluation.json", b'{"values": {"a": "NaN"}, "missing": {}, "settings": {}}', "report"),
    ("evaluation.json", b'{"values": {"a": 1}, "missing": 3, "settings": {}}', "report"),
    ("config.json", b'{"config": {}, "name": "mle", "task": [1], "seed": 0}', "report"),
    ("config.json", b'{"config": {}, "name": "mle", "task": null, "seed": "x"}', "evaluate"),
])  # fmt: skip
def test_documents_of_another_type_are_refused_by_their_name(
    name: str, content: bytes, door: str, good: Path, tmp_path: Path
) -> None:
    run = tmp_path / "mle-my-1"
    shutil.copytree(good / run.name, run)
    (run / name).write_bytes(content)
    assert name in refusal(doors(run)[door])


def test_an_owner_that_is_no_text_is_shown_all_the_same(good: Path, tmp_path: Path) -> None:
    run = tmp_path / "mle-my-1"
    shutil.copytree(good / run.name, run)
    with RunFolder(run).locked():
        (run / ".owner").write_bytes(b"\xff\x1b[2Jprocess 7")
        assert "process 7: wait until that has ended" in refusal(doors(run)["resume"])


@pytest.mark.parametrize(("numbers", "through"), [
    (range(1000, 1036), 1),
    *(pytest.param(range(50 * at, 50 * (at + 1)), None, marks=pytest.mark.faults) for at in range(4)),
])  # fmt: skip
def test_forged_runs_are_refused_in_a_sentence_or_read_harmlessly(
    numbers: range, through: int | None, good: Path, tmp_path: Path
) -> None:
    seconds, what, refused = try_all(numbers, good, tmp_path, through)
    assert seconds < MOST_SECONDS, what
    assert len(refused) == 2, refused
