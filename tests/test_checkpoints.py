import contextlib
import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from conftest import assert_refused, disk_full
from textgan_env.ops.sampling import seeded
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.snapshot import FORMAT, pack, take_snapshot
from textgan_env.text.vocabulary import Vocabulary
from textgan_env.utils.errors import InputError

MakeOptimizer = Callable[[Any], Optimizer]
OPTIMIZERS: dict[str, MakeOptimizer] = {
    "adam": lambda parameters: Adam(parameters, lr=0.03),
    "adamw-amsgrad": lambda parameters: AdamW(parameters, lr=0.03, betas=(0.8, 0.99), amsgrad=True),
    "sgd": lambda parameters: SGD(parameters, lr=0.1),
    "sgd-momentum": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
}


class TinyNet(nn.Module):
    """Two layers and a buffer; 3 features to 2."""

    calls: Tensor

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, width), nn.Linear(width, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x_BF: Tensor) -> Tensor:
        self.calls += 1
        found: Tensor = self.second(torch.tanh(self.first(x_BF)))
        return found


def tiny_net(seed: int = 0, width: int = 4) -> TinyNet:
    with seeded(seed):
        return TinyNet(width)


def words(*tokens: str) -> Vocabulary:
    return Vocabulary(tokens=tokens, mode="word", lower=True, eos=None, unk=None)


def train(net: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        x_BF = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(x_BF).square().sum().backward()
        optimizer.step()


def saved(tmp_path: Path, **changes: Any) -> Path:
    """A checkpoint of a tiny net called "policy", trained for two steps."""
    path = tmp_path / "last.safetensors"
    net = tiny_net()
    optimizer = Adam(net.parameters(), lr=0.03)
    train(net, optimizer, range(2))
    arguments: dict[str, Any] = {
        "modules": {"policy": net},
        "optimizers": {"policy": optimizer},
        "document": {"step": 2},
    }
    take_snapshot(**(arguments | changes)).write(path)
    return path


def with_header(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The same checkpoint with another JSON header."""
    checkpoint = load_checkpoint(path)
    header = checkpoint.header.model_dump()
    change(header)
    path.write_bytes(pack(header, checkpoint.all_tensors))
    return path


def equal_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_training_goes_on_bit_for_bit_as_if_it_had_not_stopped(tmp_path: Path, make: MakeOptimizer) -> None:
    straight = tiny_net()
    straight_optimizer = make(straight.parameters())
    train(straight, straight_optimizer, range(10))

    first = tiny_net()
    first_optimizer = make(first.parameters())
    train(first, first_optimizer, range(6))
    path = tmp_path / "last.safetensors"
    take_snapshot(modules={"policy": first}, optimizers={"policy": first_optimizer}, document={}).write(path)

    second = tiny_net(seed=99)
    second_optimizer = make(second.parameters())
    checkpoint = load_checkpoint(path)
    checkpoint.restore_module("policy", second)
    checkpoint.restore_optimizer("policy", second_optimizer)
    train(second, second_optimizer, range(6, 10))

    assert int(second.calls) == 10
    for key, value in straight.state_dict().items():
        assert equal_bits(second.state_dict()[key], value), key
    expected, found = straight_optimizer.state_dict(), second_optimizer.state_dict()
    assert found["param_groups"] == expected["param_groups"]
    assert found["state"].keys() == expected["state"].keys()
    for index, slots in expected["state"].items():
        for slot, value in slots.items():
            other = found["state"][index][slot]
            assert equal_bits(other, value) if isinstance(value, Tensor) else other == value


def test_document_vocabulary_versions_and_further_tensors_come_back(tmp_path: Path) -> None:
    tensors = {
        "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "flag": torch.tensor(True),
        "none": torch.zeros(0, 3),
        "turned": torch.arange(6, dtype=torch.int64).view(2, 3).T,
        "average/deep": torch.tensor(2**60),
    }
    document = {"config": {"lr": 0.1 + 0.2, "name": "床前明月光 \ud800"}, "best": float("inf"), "step": 7}
    path = saved(tmp_path, document=document, vocabulary=words("a", "b"), tensors=tensors)
    checkpoint = load_checkpoint(path)
    assert checkpoint.document == document
    assert checkpoint.vocabulary == words("a", "b")
    assert checkpoint.header.versions["torch"].startswith(torch.__version__.split("+")[0])
    assert checkpoint.header.modules == ["policy"]
    assert checkpoint.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        found = checkpoint.tensors[name]
        assert found.dtype == tensor.dtype
        assert torch.equal(found.float().nan_to_num(-1), tensor.float().nan_to_num(-1))


def test_tied_weights_are_saved_and_restored(tmp_path: Path) -> None:
    def tied(seed: int) -> nn.Module:
        with seeded(seed):
            net = nn.ModuleDict({"embed": nn.Linear(3, 3), "head": nn.Linear(3, 3)})
        net["head"].weight = net["embed"].weight
        return net

    net: Any = tied(0)
    other: Any = tied(1)
    take_snapshot(modules={"net": net}, document={}).write(tmp_path / "tied.safetensors")
    load_checkpoint(tmp_path / "tied.safetensors").restore_module("net", other)
    assert other["head"].weight is other["embed"].weight
    assert torch.equal(other["head"].weight, net["embed"].weight)


def test_a_module_without_weights_can_be_saved(tmp_path: Path) -> None:
    path = saved(tmp_path, modules={"policy": nn.Tanh()}, optimizers={})
    load_checkpoint(path).restore_module("policy", nn.Tanh())


def test_training_after_a_restore_does_not_change_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path))
    before = {name: tensor.clone() for name, tensor in checkpoint.all_tensors.items()}
    net = tiny_net()
    optimizer = Adam(net.parameters())
    checkpoint.restore_module("policy", net)
    checkpoint.restore_optimizer("policy", optimizer)
    train(net, optimizer, range(2))
    assert all(equal_bits(checkpoint.all_tensors[name], tensor) for name, tensor in before.items())


def test_a_disk_that_is_full_leaves_the_old_checkpoint_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path, document={"step": 99})
    assert load_checkpoint(path).document == {"step": 2}
    assert os.listdir(tmp_path) == [path.name]


def test_a_document_that_json_cannot_hold_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(TypeError):
        saved(tmp_path, document={"step": object()})
    assert load_checkpoint(path).document == {"step": 2}


@pytest.mark.parametrize("name", ["a/b", "optimizer.policy", "tensors"])
def test_names_that_would_blur_the_file_are_refused(tmp_path: Path, name: str) -> None:
    assert_refused(name, take_snapshot, modules={name: tiny_net()}, document={})
    assert os.listdir(tmp_path) == []


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    assert_refused(r"none\.safetensors", load_checkpoint, tmp_path / "none.safetensors")


CLAIM = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()


@pytest.mark.parametrize("content", [
    *(b"", b"\x80\x04.", b"PK\x03\x04" + bytes(100), b"\xff" * 4096, b"{}" * 50),
    struct.pack("<Q", len(CLAIM)) + CLAIM,
    safetensors.torch.save({"weight": torch.zeros(2)}),
    *(safetensors.torch.save({}, {"textgan_env": text}) for text in ("{", "[]", "null", "[" * 100_000)),
])  # fmt: skip
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert_refused(str(path), load_checkpoint, path)


def test_a_checkpoint_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        assert_refused("whole", load_checkpoint, path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_a_changed_byte_is_refused_wherever_it_matters(tmp_path: Path, data: st.DataObject) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    before = load_checkpoint(path)
    path.write_bytes(content)
    with contextlib.suppress(InputError):  # anything else fails the test
        checkpoint = load_checkpoint(path)
        assert checkpoint.header == before.header
        assert checkpoint.all_tensors.keys() == before.all_tensors.keys()
        assert all(equal_bits(checkpoint.all_tensors[name], it) for name, it in before.all_tensors.items())


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    path = with_header(saved(tmp_path), lambda header: header.update(format=FORMAT + 1))
    assert_refused(f"format {FORMAT + 1}", load_checkpoint, path)


@pytest.mark.parametrize(
    "change",
    [{"format": "one"}, {"format": 0}, {"document": []}, {"modules": [1]}, {"optimizers": None}, {"vocabulary": {}}],
)
def test_a_malformed_header_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = with_header(saved(tmp_path), lambda header: header.update(change))
    assert_refused(next(iter(change)), load_checkpoint, path)


def test_another_vocabulary_is_refused_by_size_and_fingerprint(tmp_path: Path) -> None:
    mine, other = words("a", "b"), words("a", "b", "c")
    checkpoint = load_checkpoint(saved(tmp_path, vocabulary=mine))
    checkpoint.require_vocabulary(words("a", "b"))
    said = assert_refused("2 tokens", checkpoint.require_vocabulary, other)
    for part in (mine.fingerprint(), "3 tokens", other.fingerprint()):
        assert part in said
    assert_refused("no vocabulary", checkpoint.require_vocabulary, None)


def test_an_oracle_checkpoint_fits_an_oracle_run_only(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path))
    assert checkpoint.vocabulary is None
    checkpoint.require_vocabulary(None)
    assert_refused("no vocabulary", checkpoint.require_vocabulary, words("a", "b"))


def test_another_architecture_is_named_and_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path))
    net = tiny_net(seed=5, width=6)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    expected = r"'policy/first.weight' .* is float32 \(4, 3\), but this run expects float32 \(6, 3\)"
    assert_refused(expected, checkpoint.restore_module, "policy", net)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())


def test_another_dtype_is_named(tmp_path: Path) -> None:
    assert_refused("float64", load_checkpoint(saved(tmp_path)).restore_module, "policy", tiny_net().double())


def test_missing_and_left_over_tensors_are_named(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path))
    bigger = tiny_net()
    bigger.third = nn.LayerNorm(1)
    assert_refused(r"policy/third.weight", checkpoint.restore_module, "policy", bigger)
    smaller = tiny_net()
    del smaller.second
    assert_refused(r"policy/second", checkpoint.restore_module, "policy", smaller)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_refused_and_the_module_is_as_it_was(tmp_path: Path, value: float) -> None:
    broken, net = tiny_net(), tiny_net()
    with torch.no_grad():
        broken.second.bias[1] = value
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    checkpoint = load_checkpoint(saved(tmp_path, modules={"policy": broken}, optimizers={}))
    assert_refused("second.bias.*NaN or infinity", checkpoint.restore_module, "policy", net)
    assert all(equal_bits(net.state_dict()[key], tensor) for key, tensor in before.items())


def test_unknown_names_say_what_there_is(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path))
    assert_refused("discriminator", checkpoint.restore_module, "discriminator", tiny_net())
    assert_refused("discriminator", checkpoint.restore_optimizer, "discriminator", Adam(tiny_net().parameters()))


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path))
    assert_refused("SGD", checkpoint.restore_optimizer, "policy", SGD(tiny_net().parameters(), lr=0.1))
    assert_refused("groups", checkpoint.restore_optimizer, "policy", Adam(tiny_net().first.parameters()))
    assert_refused("0/exp_avg", checkpoint.restore_optimizer, "policy", Adam(tiny_net(width=6).parameters()))


@pytest.mark.parametrize("change", [
    {"kind": 3}, {"groups": 7}, {"groups": [{}]}, {"groups": [3]}, {"plain": []}, {"plain": {"x": {}}},
    {"plain": {"0": 5}}, {"more": 1},
])  # fmt: skip
def test_a_malformed_optimizer_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = with_header(saved(tmp_path), lambda header: header["optimizers"]["policy"].update(change))
    with pytest.raises(InputError, match="optimizer 'policy'"):
        load_checkpoint(path).restore_optimizer("policy", Adam(tiny_net().parameters()))


@pytest.mark.parametrize("saved_group", [{"lr": "fast"}, {"betas": 5}, {"weight_decay": 0.5, "foreach": True}])
def test_hyper_parameters_are_those_of_the_run_and_none_that_a_file_holds(
    tmp_path: Path, saved_group: dict[str, Any]
) -> None:
    path = with_header(saved(tmp_path), lambda header: header["optimizers"]["policy"]["groups"][0].update(saved_group))
    optimizer = Adam(tiny_net().parameters(), lr=0.5, betas=(0.8, 0.9))
    before = optimizer.state_dict()["param_groups"]
    load_checkpoint(path).restore_optimizer("policy", optimizer)
    assert optimizer.state_dict()["param_groups"] == before


def test_optimizer_state_of_a_parameter_that_is_not_there_is_refused(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path))
    checkpoint.all_tensors["optimizer.policy/9/exp_avg"] = torch.zeros(2)
    assert_refused("parameter '9'", checkpoint.restore_optimizer, "policy", Adam(tiny_net().parameters()))


def test_optimizer_state_that_a_step_would_stumble_over_is_refused_in_a_sentence(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path))
    step = checkpoint.all_tensors.pop("optimizer.policy/1/step")
    assert_refused("step", checkpoint.restore_optimizer, "policy", Adam(tiny_net().parameters()))
    checkpoint.all_tensors["optimizer.policy/1/step"] = -step
    assert_refused("step", checkpoint.restore_optimizer, "policy", Adam(tiny_net().parameters()))


def test_a_single_wrong_bit_in_a_weight_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert_refused("checksum", load_checkpoint, path)


def test_an_adam_that_was_saved_plain_is_continued_fused(tmp_path: Path) -> None:
    path, net = saved(tmp_path), tiny_net()
    checkpoint = load_checkpoint(path)
    checkpoint.restore_module("policy", net)
    optimizer = Adam(net.parameters(), lr=0.03, fused=True)
    checkpoint.restore_optimizer("policy", optimizer)
    train(net, optimizer, range(2, 4))
    expected = tiny_net()
    train(expected, Adam(expected.parameters(), lr=0.03), range(4))
    for found, plain in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, plain, atol=1e-6, rtol=0)
