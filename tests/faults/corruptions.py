"""Checkpoints as they come from broken disks, wrong folders and people who mean harm; each follows from its number.

`CORRUPTIONS` lists the kinds. A kind takes a `random.Random`, the bytes of a good checkpoint and those of another
model, and gives the bytes of the bad file. Those of `_forged` have a right checksum: whoever means harm computes it,
too.
"""

import gzip
import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from textgan_env.runs.checkpoints import _CHECKSUM, _HEADER, _checksum

Header = dict[str, Any]
Forge = Callable[[random.Random, Header, dict[str, Tensor]], None]
MARKER = "harm"  # what a hostile pickle would make in the working folder


class Harm:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (MARKER,)


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file and its data."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def taken_apart(content: bytes) -> tuple[Header, dict[str, Tensor]]:
    """The JSON document of a checkpoint and its tensors."""
    return json.loads(split(content)[0]["__metadata__"][_HEADER]), load(content)


_NAMES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.bool: "BOOL", torch.int8: "I8"}


def packed(text: str, tensors: dict[str, Tensor]) -> bytes:
    """A checkpoint whose checksum is right."""
    parts: dict[str, Any] = {"__metadata__": {_HEADER: text, _CHECKSUM: _checksum(text, tensors)}}
    data = io.BytesIO()
    for name, tensor in tensors.items():
        start = data.tell()
        data.write(tensor.contiguous().numpy().tobytes())
        place = [start, data.tell()]
        parts[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
    return joined(parts, data.getvalue())


# ------------------------------------------------------------------------------------------------ broken bytes


def cut(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    return whole[: rng.randrange(len(whole))]


def flipped(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    content = bytearray(whole)
    for _ in range(rng.choice([1, 1, 1, 8, 100])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content) if bytes(content) != whole else whole[:-1]


def longer(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    return whole + rng.choice([b"\0", whole, rng.randbytes(100)])


def hole(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    start = rng.randrange(len(whole) - 64)
    return whole[:start] + whole[start + rng.randrange(1, 64) :]


def zeroed(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    """A page that a crash left unwritten."""
    size = rng.choice([512, 4096])
    start = rng.randrange(0, len(whole) - size, 512)
    content = whole[:start] + bytes(size) + whole[start + size :]
    return content if content != whole else content[:-1]


def mixed(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    """The beginning of one file and the end of another."""
    at = rng.randrange(1, min(len(whole), len(other)))
    return whole[:at] + other[at:]


def header_length(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    length = int.from_bytes(whole[:8], "little")
    wrong = rng.choice([0, 1, length - 1, length + 1, 2**20, 2**27, 2**40, 2**63, 2**64 - 1])
    return struct.pack("<Q", wrong) + whole[8:]


def noise(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    return rng.choice([b"", b"\0" * 4096, rng.randbytes(rng.randrange(1, 10_000)), b"step 1\n", b"\x7fELF" * 99])


# ------------------------------------------------------------------------------------------------ other files


def hostile_pickle(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    return pickle.dumps([Harm()], rng.randrange(6))


def torch_file(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    """What torch.save writes: a zip with a pickle in it."""
    file = io.BytesIO()
    torch.save({"policy": Harm()}, file, _use_new_zipfile_serialization=rng.random() < 0.5)
    return file.getvalue()


def zip_bomb(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("policy.npy", bytes(30_000_000))
    return file.getvalue() if rng.random() < 0.5 else gzip.compress(bytes(10_000_000))


def another_model(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    return other


def somebody_elses(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    """A good safetensors file of another program."""
    return joined({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8))


# ------------------------------------------------------------------------------------------------ headers


def swapped_tensors(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    """Two tensors change names, and the checksum does not."""
    header, data = split(whole)
    names = [name for name in header if name != "__metadata__"]
    held = {name: data[slice(*header[name]["data_offsets"])] for name in names}
    one, two = rng.sample(names, 2)
    while held[one] == held[two]:  # the biases that stay 0
        one, two = rng.sample(names, 2)
    header[one], header[two] = header[two], header[one]
    return joined(header, data)


def absurd_shape(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    header, data = split(whole)
    name = rng.choice([name for name in header if name != "__metadata__"])
    wrong = [[2**40, 2**40], [0, 2**64 - 1], [0, 2**62], [1] * 5000, [-1], ["4"], [1.5], None, [2**64], [0] * 40]
    header[name]["shape"] = rng.choice(wrong)
    if rng.random() < 0.5:
        header[name]["data_offsets"] = rng.choice([[0, 2**63], [5, 1], [-4, 0], [0, 0], [2**64 - 1, 2**64]])
    return joined(header, data)


def absurd_type(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    header, data = split(whole)
    name = rng.choice([name for name in header if name != "__metadata__"])
    header[name]["dtype"] = rng.choice(["F128", "", "object", "C64", "F4", "F8_E4M3", 7, None, "I32", "BF16"])
    return joined(header, data)


def many_tensors(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    header, data = split(whole)
    count = rng.choice([20_000, 100_000])
    return joined(header | {f"t{n}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(count)}, data)


def long_name(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    name = rng.choice(["x" * 100_000, "\n\x1b[2Jgone", "a" * 300, ""])
    header, tensors = taken_apart(whole)
    module = header["document"]["policy"]["module"]
    return packed(json.dumps(header), tensors | {f"{module}/{name}": torch.zeros(1)})


def odd_json(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    """The document is JSON that costs or means more than it seems, under a right checksum."""
    header, tensors = taken_apart(whole)
    text = json.dumps(header)
    rest = text[1:]
    odd = rng.choice(
        [
            "[" * 100_000,
            '{"a":' * 50_000,
            "[" + "[]," * 400_000 + "[]]",
            '{"big": ' + "9" * 5000 + ", " + rest,
            '{"big": ' + "9" * 400 + ", " + rest,
            '{"document": {}, ' + rest,
            '{"format": 1, ' + rest,
            '{"a": [' + "0," * 2_000_000 + "0], " + rest,
            '{"a": "' + "x" * 9_000_000 + '", ' + rest,
            "",
            "null",
            text[:-1],
            text.replace('"format"', '"fromat"'),
        ]
    )
    return packed(odd, tensors)


def _forged(change: Forge) -> Callable[[random.Random, bytes, bytes], bytes]:
    def forge(rng: random.Random, whole: bytes, other: bytes) -> bytes:
        header, tensors = taken_apart(whole)
        change(rng, header, tensors)
        return packed(json.dumps(header), tensors)

    return forge


def header_field(rng: random.Random, header: Header, tensors: dict[str, Tensor]) -> None:
    wrong: dict[str, list[Any]] = {
        "format": [2, 0, -1, "1", True, None, 1.5, 10**50],
        "document": [[], None, "x", {}],
        "modules": [None, [1], "policy", []],
        "optimizers": [None, []],
        "versions": [None, {"torch": 1}],
        "vocabulary": [{}, 1, "{", "[]", json.dumps({"tokens": []})],
    }
    name = rng.choice(list(wrong))
    header[name] = rng.choice(wrong[name])


def document_field(rng: random.Random, header: Header, tensors: dict[str, Tensor]) -> None:
    name = rng.choice(["policy", "task", "config", "agent"])
    if rng.random() < 0.3:
        del header["document"][name]
    else:
        header["document"][name] = rng.choice([None, [], "x", 3, {}, [[]], {"name": 7}])


def policy_sizes(rng: random.Random, header: Header, tensors: dict[str, Tensor]) -> None:
    config, before = header["document"]["policy"]["config"], dict(header["document"]["policy"]["config"])
    wrong = [10**9, 10**12, 10**6, 2**31, 2**63, 10**80, -1, 0, "8", 1.5, None, [], [8], {"a": 1}]
    names = ["vocab_size", "embed_size", "hidden_size", "num_layers", "start_token"]
    while config == before:
        for name in rng.sample(names, rng.choice([1, 1, 2, 4])):
            config[name] = rng.choice(wrong)


def policy_options(rng: random.Random, header: Header, tensors: dict[str, Tensor]) -> None:
    saved = header["document"]["policy"]
    kinds = ["ngram", "table", "uniform", "unigram", "leaked", "os.system", "torch.load", "", "../lstm", None, ["lstm"]]
    config = saved["config"]
    V = config["vocab_size"]
    start = {"vocab_size": V, "start_token": config["start_token"]}
    pair = {"kind": "pair", "vocab_size": V, "max_length": 3, "rank": 10**10}
    conv = {"kind": "conv", "vocab_size": V, "max_length": 10**9, "widths": list(range(1, 9000)), "filters": [1] * 8999}
    changes: list[dict[str, Any]] = [
        {"kind": rng.choice(kinds)},
        {"module": rng.choice(["discriminator", "", "tensors", "policy/lstm", None, 5])},
        {"config": config | {"dropout": rng.choice(["x", 2, -1, None, float("nan")])}},
        {"config": config | {"forbidden": rng.choice([[10**9], ["x"], [-1], list(range(V)), [0] * 20_000, 5])}},
        {"config": config | {"init_scale": rng.choice(["x", -1, None])}},
        {"config": config | {"initial_state": rng.choice(["ones", 1, None])}},
        {"config": config | {"import": "os"}},
        {"config": {}},
        {"kind": "ngram", "config": start | {"order": 10**9}},
        {"kind": "ngram", "config": start | {"order": 2, "sizes": [[10**12, 10**12]]}},
        {"kind": "ngram", "config": start | {"order": 2, "sizes": [[1]]}},
        {"kind": "table", "config": start | {"max_length": 10**9}},
        {"kind": "table", "config": start | {"max_length": 5}},
        {"kind": "uniform", "config": start | {"vocab_size": 10**12}},
        {"kind": "unigram", "config": start | {"vocab_size": 10**10}},
        {"kind": "leaked", "config": start | {"discriminator": conv}},
        {"kind": "leaked", "config": start | {"discriminator": pair}},
        {"kind": "leaked", "config": start | {"discriminator": "os.system"}},
    ]  # fmt: skip
    saved.update(rng.choice(changes))


def task_options(rng: random.Random, header: Header, tensors: dict[str, Tensor]) -> None:
    wrong: list[dict[str, Any]] = [
        {"name": "oracle", "vocab_size": 10**12},
        {"name": "oracle", "hidden_size": 10**9},
        {"name": "oracle", "max_length": 10**9},
        {"name": "oracle", "test_size": 10**12},
        {"name": "oracle", "seed": -1},
        {"name": "oracle", "vocab_size": "5000"},
        {"name": "toy", "max_length": 10**9},
        {"name": "toy", "size": 10**12},
        {"name": "toy", "spread": float("nan")},
        {"name": "toy", "vocab_size": 3},
        {"name": "corpus"},
        {"name": "corpus", "path": "/dev/zero"},
        {"name": "corpus", "path": "/dev/stdin"},
        {"name": "corpus", "path": "/dev/tty"},
        {"name": "corpus", "path": "/etc/passwd"},
        {"name": "corpus", "path": "/"},
        {"name": "corpus", "path": "http://localhost/x.txt"},
        {"name": "corpus", "path": ["a"]},
        {"name": "corpus", "path": "x\0y"},
        {"name": "corpus", "texts": ["a b", "c d", "e f", "g h"]},
        {"name": "corpus", "texts": "abc"},
        {"name": "coco"},
        {"name": "emnlp", "data_dir": "made-by-a-file"},
        {"name": "wordnet", "data_dir": "made-by-a-file"},
        {"name": "seqgan-oracle"},
        {"name": "seqgan-oracle", "weights": "hostile.pkl"},
        {"name": "seqgan-oracle", "weights": "/dev/zero"},
        {"name": "os.system", "command": "mkdir harm"},
        {"name": None},
        {"name": "toy", "import": "os"},
    ]
    header["document"]["task"] = rng.choice(wrong)


def weights(rng: random.Random, header: Header, tensors: dict[str, Tensor]) -> None:
    """Of the policy: no numbers, none at all, too many, of another shape or type."""
    module = header["document"]["policy"]["module"]
    name = rng.choice([name for name in tensors if name.startswith(f"{module}/")])
    values = tensors[name].clone()
    what = rng.randrange(6)
    if what < 2:
        values.view(-1)[rng.randrange(values.numel())] = rng.choice([float("nan"), float("inf"), -float("inf")])
        tensors[name] = values
    elif what == 2:
        del tensors[name]
    elif what == 3:
        tensors[f"{name}_too"] = values
    elif what == 4:
        tensors[name] = values[None]
    else:
        tensors[name] = values.to(rng.choice([torch.float64, torch.int64, torch.bool]))


def words(rng: random.Random, header: Header, tensors: dict[str, Tensor]) -> None:
    """A vocabulary of other words, or none."""
    saved = header["vocabulary"]
    if saved is None:
        header["vocabulary"] = json.dumps(
            {"mode": "word", "lower": True, "eos": None, "unk": None, "tokens": ["a", "b"]}
        )
        return
    fields = json.loads(saved)
    fields["tokens"][-1] = rng.choice(["zebra", "\x1b[2J", "\ud800", fields["tokens"][-2], "", 7])
    text = json.dumps(fields)
    odd = [text, None, "[" * 50_000, text[:-1], '{"tokens": 1, ' + text[1:], json.dumps(fields | {"mode": ["word"]})]
    header["vocabulary"] = rng.choice(odd)


def optimizer_state(rng: random.Random, header: Header, tensors: dict[str, Tensor]) -> None:
    """Only a run that goes on reads it."""
    optimizers = header["optimizers"]
    name = rng.choice(list(optimizers))
    slots = [key for key in tensors if key.startswith(f"optimizer.{name}/")]
    what = rng.randrange(7) if slots else rng.randrange(3)
    if what == 0:
        optimizers[name] = rng.choice(
            [None, {}, {"kind": "os.system", "groups": [], "plain": {}}, [], {"kind": "Adam"}]
        )
    elif what == 1:
        group = rng.choice(optimizers[name]["groups"])
        group["lr"] = rng.choice(["x", None, float("nan"), float("inf"), -1, [1], True])
    elif what == 2:
        optimizers[name]["plain"] = rng.choice([{"0": {"extra": 5}}, {"x": {}}, {"0": 7}, {"99": {"step": 1}}, []])
    elif what == 3:
        del tensors[rng.choice(slots)]
    elif what == 4:
        key = rng.choice(slots)
        tensors[key] = torch.full_like(tensors[key], rng.choice([float("nan"), float("inf")]))
    elif what == 5:
        index = rng.choice(["99", "-1", "x", "", "9" * 30])
        tensors[f"optimizer.{name}/{index}/exp_avg"] = torch.zeros(3)
    else:
        key = rng.choice(slots)
        tensors[key] = rng.choice([torch.zeros(7, 7), tensors[key].long(), torch.zeros(2, 0)])


def loop_state(rng: random.Random, header: Header, tensors: dict[str, Tensor]) -> None:
    """Only a run that goes on reads it."""
    state = header["document"]["state"]
    name = rng.choice(list(state))
    wrong: dict[str, list[Any]] = {
        "done": [-1, 10**9, 10**60, "3", None, 1.5, True],
        "best": ["x", None, [], True],
        "best_round": [-1, "x", None, 0.5],
        "lows": [[], {"nll_valid": "x"}, None, 3],
        "looks_without_progress": [-1, "x", None],
        "stopped": [1, ["no"], None],
    }
    if rng.random() < 0.2:
        del state[name]
    elif name in wrong:
        state[name] = rng.choice(wrong[name])
    else:
        header["document"]["state"] = rng.choice([None, [], "x"])


Corruption = Callable[[random.Random, bytes, bytes], bytes]
CORRUPTIONS: dict[str, Corruption] = {
    kind.__name__: kind
    for kind in (
        *(cut, flipped, longer, hole, zeroed, mixed, header_length, noise),
        *(hostile_pickle, torch_file, zip_bomb, another_model, somebody_elses),
        *(swapped_tensors, absurd_shape, absurd_type, many_tensors, long_name, odd_json),
    )
} | {
    change.__name__: _forged(change)
    for change in (header_field, document_field, policy_sizes, policy_options, task_options, weights, words)
}
# What only a run that goes on reads.
OF_TRAINING: dict[str, Corruption] = {change.__name__: _forged(change) for change in (optimizer_state, loop_state)}


def corrupted(number: int, whole: bytes, other: bytes) -> tuple[str, bytes]:
    """The bad file of a number: its kind, and its bytes. All kinds come up in turn."""
    kinds = CORRUPTIONS | OF_TRAINING
    name = list(kinds)[number % len(kinds)]
    return name, kinds[name](random.Random(number), whole, other)


def write_holes(path: Path, size: int) -> None:
    """A file that says it is large and takes no room on the disk."""
    header = json.dumps({"t": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
