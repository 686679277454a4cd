"""A bad checkpoint is refused with one sentence through every door, runs nothing, and costs next to nothing.

Each bad file follows from its number. Those whose JSON or tensors are changed have a right checksum: whoever means harm
computes it, too. `make faults` tries a thousand; one of each kind is tried with the other tests.
"""

import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import textgan_env
from agents import cli, mle, seqgan
from faults.watching import Harm, Meter, nothing_happens, refusal
from textgan_env.ops.checksums import checksum
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.snapshot import CHECKSUM, HEADER
from textgan_env.training.launch import launch
from textgan_env.utils.errors import InputError

# The library that reads command lines draws from the global generators.
pytestmark = pytest.mark.moves_global_rng

MOST_SECONDS, MOST_MEMORY = 2.0, 200 * 2**20
NOUNS, VERBS = ("cat", "dog", "fox", "cow", "bee"), ("sat", "ran", "ate", "hid")
LINES = [f"{article} {noun} {verb}" for article in ("the", "a") for noun in NOUNS for verb in VERBS]
TINY = ["--preset", "smoke", "--show-samples", "0", "--threads", "1"]

# ------------------------------------------------------------------------------------------------ bad files

Bytes = Callable[[random.Random, bytes, bytes], bytes]


def forged(text: str, tensors: dict[str, Tensor]) -> bytes:
    """A checkpoint with any text as its JSON, and a right checksum."""
    return safetensors.torch.save(tensors, {HEADER: text, CHECKSUM: checksum(text, tensors)})


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file and its data."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def joined(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def absurd_tensor(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    """A shape, type or place that no tensor of this file has."""
    header, data = split(whole)
    tensor = header[rng.choice([name for name in header if name != "__metadata__"])]
    shapes = [[2**40, 2**40], [0, 2**64 - 1], [1] * 5000, [-1], ["4"], [1.5], None, [2**64], [0] * 40]
    places = [[0, 2**63], [5, 1], [-4, 0], [0, 0], [2**64 - 1, 2**64]]
    wrong: dict[str, list[Any]] = {
        "shape": shapes,
        "data_offsets": places,
        "dtype": ["F128", "", "C64", "F8_E4M3", 7, None, "I32", "BF16"],
    }
    name = rng.choice(list(wrong))
    tensor[name] = rng.choice(wrong[name])
    return joined(header, data)


MANY = {f"t{number}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for number in range(100_000)}
BYTES: dict[str, Bytes] = {
    "cut": lambda rng, whole, _: whole[: rng.randrange(len(whole))],
    "a flipped bit": lambda rng, whole, _: (
        whole[: (at := rng.randrange(len(whole)))] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
    ),
    "longer": lambda rng, whole, _: whole + rng.choice([b"\0", whole, rng.randbytes(100)]),
    "a page of zeros": lambda rng, whole, _: whole[: (at := rng.randrange(600))] + bytes(512) + whole[at + 512 :],
    "the end of another": lambda rng, whole, other: whole[: (at := rng.randrange(1, len(other) // 2))] + other[at:],
    "another model": lambda _, whole, other: other,
    "length of the header": lambda rng, whole, _: struct.pack("<Q", rng.choice([0, 1, 2**27, 2**63])) + whole[8:],
    "pickle": lambda rng, *_: pickle.dumps([Harm()], rng.randrange(6)),
    "absurd tensor": absurd_tensor,
    "many tensors": lambda _, whole, __: joined(split(whole)[0] | MANY, split(whole)[1]),
}

GONE = "gone"  # leave the name out
SIZES = [10**9, 10**12, 2**63, 10**80, -1, 0, "8", 1.5, None, [], {"a": 1}]
NO_NUMBER: list[Any] = ["x", None, [], True, -1, float("nan")]
START = {"vocab_size": 4, "start_token": 0}
#: Where it stands in the JSON -> what must be refused there; * is the first name of an object.
JSON: dict[str, list[Any]] = {
    "format": [2, 0, -1, "1", True, None, 1.5, 10**50, GONE],
    "document": [[], None, "x", {}],
    "modules": [None, [1], "policy", []],
    "optimizers": [None, []],
    "versions": [None, {"torch": 1}],
    "vocabulary": [{}, 1, "{", "[]", json.dumps({"tokens": []}), "[" * 50_000],
    "import": ["os"],
    "document.config": [None, [], "x", {}, {"task": "oracle"}, GONE],
    "document.agent": [None, "PPO", ["MLE"], GONE],
    "document.policy": [None, [], "x", {}, [[]], GONE],
    "document.policy.kind": ["ngram", "uniform", "os.system", "torch.load", "../lstm", None, ["lstm"]],
    "document.policy.module": ["discriminator", "", "tensors", "policy/lstm", None, 5],
    "document.policy.config": [{}, None, [], START, START | {"max_length": 10**9}],
    **{f"document.policy.config.{name}": SIZES for name in ("vocab_size", "embed_size", "hidden_size", "num_layers")},
    "document.policy.config.start_token": [10**9, 2**63, -1, "8", 1.5, None],
    "document.policy.config.dropout": ["x", 2, -1, None, float("nan")],
    "document.policy.config.forbidden": [[10**9], ["x"], [-1], [*range(50)], [0] * 20_000, 5],
    "document.policy.config.initial_state": ["ones", 1, None],
    "document.policy.config.import": ["os"],
    "document.task": [
        *(None, [], "x", 3, {}, {"name": 7}, {"name": None}, {"name": "os.system", "command": "mkdir harm"}, GONE),
        *({"name": "oracle", **wrong} for wrong in ({"vocab_size": 10**12}, {"max_length": 10**9}, {"seed": -1})),
        *({"name": "oracle", **wrong} for wrong in ({"hidden_size": 10**9}, {"test_size": 10**12})),
        *({"name": "toy", **wrong} for wrong in ({"max_length": 10**9}, {"size": 10**12}, {"import": "os"})),
        *({"name": "toy", "spread": float("nan")}, {"name": "toy", "vocab_size": 3}, {"name": "corpus"}),
        *({"name": "corpus", "path": path} for path in ("/dev/zero", "/dev/stdin", "/etc/passwd", "/", "x\0y", ["a"])),
        *({"name": "corpus", "texts": texts} for texts in (["a b", "c d", "e f", "g h"], "abc")),
        *({"name": "coco"}, {"name": "wordnet", "data_dir": "made-by-a-file"}, {"name": "seqgan-oracle"}),
        *({"name": "seqgan-oracle", "weights": weights} for weights in ("hostile.pkl", "/dev/zero")),
    ],
    # Only a run that is resumed reads these.
    "optimizers.*": [None, {}, [], {"kind": "os.system", "groups": [], "plain": {}}, {"kind": "Adam"}],
    "optimizers.*.groups.0.params": [5, [0.9], None, GONE],
    "optimizers.*.plain": [{"0": {"extra": 5}}, {"x": {}}, {"0": 7}, {"99": {"step": 1}}, []],
    "document.state": [None, [], "x", {}, GONE],
    "document.state.done": [10**60, "3", 1.5, GONE, *NO_NUMBER],
    "document.state.best": ["x", None, [], True],
    "document.state.best_round": NO_NUMBER,
    "document.state.values": [None, [], {"loss": 1}, {"loss": ["x"]}],
    "document.state.lows": [[], {"nll_valid": "x"}, None, 3],
    "document.state.stopped": [1, ["no"], None],
}
TEXTS: dict[str, Callable[[str], str]] = {
    "deep": lambda _: "[" * 100_000,
    "many lists": lambda _: "[" + "[]," * 400_000 + "[]]",
    "long number": lambda text: '{"big": ' + "9" * 5000 + ", " + text[1:],
    "a name twice": lambda text: '{"document": {}, ' + text[1:],
    "many values": lambda text: '{"a": [' + "0," * 2_000_000 + "0], " + text[1:],
    "many names": lambda text: "{" + "".join(f'"{number}":0,' for number in range(700_000)) + text[1:],
    "a long text": lambda text: '{"a": "' + "x" * 9_000_000 + '", ' + text[1:],
    "cut text": lambda text: text[:-1],
    "null": lambda _: "null",
}


KINDS = [*BYTES, *JSON, *TEXTS, "policy's tensors", "optimizer's tensors"]
RESUMED = ("optimizers.", "document.state", "optimizer's")


def put(document: Any, path: str, value: object) -> None:
    """Change one place of a JSON document."""
    *above, last = path.split(".")
    for name in above:
        at = next(iter(document)) if name == "*" else int(name) if name.isdecimal() else name
        document = document[at]
    last = next(iter(document)) if last == "*" else last
    if value == GONE:
        del document[last]
    else:
        document[last] = value


def wrong_tensors(rng: random.Random, tensors: dict[str, Tensor], folder: str) -> None:
    """A tensor of the policy or an optimizer is missing, too many, no number, or of another shape or type."""
    name = rng.choice([name for name in tensors if name.startswith(f"{folder}/") and tensors[name].ndim])
    values = tensors.pop(name)
    broken = values.clone()
    broken.view(-1)[rng.randrange(values.numel())] = rng.choice([float("nan"), float("inf"), -float("inf")])
    others = [{name: broken}, {}, {name: values[None]}, {name: values.to(torch.int64)}, {name: values.bool()}]
    others += [
        {name: values, f"{folder}/{more}": values.clone()} for more in ("99/x", "more", "x" * 300, "\n\x1b[2Jgone")
    ]
    tensors.update(rng.choice(others))


def corrupted(number: int, whole: Path, other: Path) -> tuple[str, bytes, bool]:
    """The bad file of a number: its kind, its bytes, and whether only a run that is resumed reads what is bad."""
    rng = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    only_resumed = kind.startswith(RESUMED)
    if kind in BYTES:
        return kind, BYTES[kind](rng, whole.read_bytes(), other.read_bytes()), False
    good = load_checkpoint(whole)
    header, tensors = good.header.model_dump(), dict(good.all_tensors)
    if kind in TEXTS:
        return kind, forged(TEXTS[kind](json.dumps(header)), tensors), False
    if kind in JSON:
        value = rng.choice(JSON[kind])
        put(header, kind, value)
        kind = f"{kind} = {value!r:.60}"
    else:
        optimizer = f"optimizer.{next(iter(header['optimizers']))}"
        wrong_tensors(rng, tensors, optimizer if only_resumed else header["document"]["policy"]["module"])
    return kind, forged(json.dumps(header), tensors), only_resumed


# ------------------------------------------------------------------------------------------------ doors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs: on words, with a discriminator on the toy task, and another model."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "my.txt").write_text("\n".join([*LINES, "the yak sang a song"]))
    text = ["--corpus", str(folder / "my.txt"), "--min-count", "2"]
    mle.main([*text, "--runs", str(folder), "--checkpoint-every", "0", *TINY])
    mle.main([*text, "--runs", str(folder / "other"), "--embed-size", "4", "--seed", "1", *TINY])
    seqgan.main(["--task", "toy", "--runs", str(folder), *TINY])
    return folder


def doors(run: Path, folder: Path) -> dict[str, Callable[[], object]]:
    """Every way in which a checkpoint of a run is read: --resume, load, sample, evaluate, report, --pretrained."""
    of_words = run.name.startswith("mle")
    text: dict[str, Any] = {"task": "corpus", "corpus": str(folder / "my.txt"), "min_count": 2} if of_words else {}
    begin = replace(seqgan.smoke("toy"), pretrained=run, runs=folder / "new", threads=1, show_samples=0, **text)
    agents: Any = (mle.MLEConfig, mle.MLE) if of_words else (seqgan.SeqGANConfig, seqgan.SeqGAN)
    return {
        "resume": lambda: launch(agents[0](resume=run, threads=1), agents[1]),
        "load": lambda: textgan_env.load(run),
        "sample": lambda: cli.sample(run, n=2),
        "evaluate": lambda: cli.evaluate(run, samples=10),
        "report": lambda: cli.report((run,), out=folder / "page.html"),
        "pretrained": lambda: launch(begin, seqgan.SeqGAN),
    }


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name[0] != "."}


def try_all(
    numbers: range, folder: Path, work: Path, monkeypatch: pytest.MonkeyPatch, through: tuple[str, ...]
) -> tuple[float, str]:
    """Put each bad file in the place of a good one and knock at every door; the seconds of the dearest refusal."""
    monkeypatch.chdir(work)
    monkeypatch.setenv("TEXTGAN_DATA", str(work / "data"))  # no named text is here
    (work / "hostile.pkl").write_bytes(pickle.dumps([Harm()]))
    checkpoint, worst = Path("checkpoints/last.safetensors"), (0.0, "")
    for number in numbers:
        name = ("mle-my-1", "seqgan-toy-1")[number // 2 % 2]
        run = work / name
        shutil.copytree(folder / name, run)
        kind, bad, only_resumed = corrupted(number, run / checkpoint, folder / "other" / "mle-my-1" / checkpoint)
        for path in (run / "checkpoints").iterdir():
            path.write_bytes(bad)
        before = contents(run)
        for door, enter in doors(run, folder).items():
            if (through and door not in through) or (only_resumed and door != "resume"):
                continue
            what = f"{kind} (number {number}) through {door}"
            with nothing_happens(), Meter() as meter:
                said = refusal(enter)
            assert said, f"{what} was not refused"
            assert len(said) < 1500, f"{what}: {said}"
            assert meter.memory < MOST_MEMORY, f"{what} took {meter.memory / 2**20:.0f} MB"
            worst = max(worst, (meter.seconds, what))
        assert contents(run) == before, f"{kind} (number {number}) changed the run"
        shutil.rmtree(run)
    for never in (work / "harm", work / "made-by-a-file", work / "data", folder / "new", folder / "page.html"):
        assert not never.exists()
    return worst


def test_good_checkpoints_open_every_door(folder: Path) -> None:
    for name in ("mle-my-1", "seqgan-toy-1"):
        for door, enter in doors(folder / name, folder).items():
            assert refusal(enter) == "", door
    shutil.rmtree(folder / "new")
    (folder / "page.html").unlink()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("numbers", "through"), [
    (range(50 * len(KINDS), 51 * len(KINDS)), ("resume", "load")),
    *(pytest.param(range(250 * at, 250 * (at + 1)), (), marks=pytest.mark.faults) for at in range(4)),
])  # fmt: skip
def test_bad_checkpoints_are_refused_at_every_door(
    numbers: range, through: tuple[str, ...], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, what = try_all(numbers, folder, tmp_path, monkeypatch, through)
    assert seconds < MOST_SECONDS, what


@pytest.mark.skipif(not hasattr(os, "SEEK_HOLE"), reason="file systems here have no files with holes")
@pytest.mark.parametrize("size", [2**28, 2**40])
def test_a_file_of_holes_is_refused_before_it_is_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(joined({"t": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}))
    os.truncate(path, path.stat().st_size + size)
    with Meter() as meter, pytest.raises(InputError, match="never written"):
        load_checkpoint(path)
    assert meter.memory < 2**24


def test_pipes_are_refused_and_links_in_a_folder_from_somebody_else_are_not_written_through(
    folder: Path, tmp_path: Path
) -> None:
    run, target = tmp_path / "mle-my-1", tmp_path / "precious.txt"
    shutil.copytree(folder / run.name, run)
    target.write_text("mine")
    for name in ("samples.txt", "metrics.jsonl", "metrics.csv", "evaluation.json", "final_samples.txt", "config.json"):
        (run / f".{name}.tmp").symlink_to(target)
    (run / "checkpoints" / ".last.safetensors.tmp").symlink_to(target)
    assert refusal(doors(run, folder)["resume"]) == ""
    assert target.read_text() == "mine"
    for name in ("checkpoints/best.safetensors", "config.json"):
        (run / name).unlink()
        os.mkfifo(run / name)
        assert refusal(lambda: textgan_env.load(run))
