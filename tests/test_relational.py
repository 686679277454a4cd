"""The relational memory: its update by plain loops, texts written in one pass, and the sizes that it refuses."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import assert_refused
from test_policies import PAD, TEXTS, V, padded, relational
from textgan_env.ops.sampling import keyed_uniform, sample_categorical
from textgan_env.policies import RelationalPolicy
from textgan_env.rewards import Keys, generate


def normed(values: list[float], weight: Tensor, bias: Tensor) -> list[float]:
    """Layer norm of one row."""
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values) + 1e-5)
    return [(v - mean) / deviation * float(w) + float(b) for v, w, b in zip(values, weight, bias, strict=True)]


def mapped(matrix: Tensor, values: list[float], bias: Tensor | None = None) -> list[float]:
    """A matrix times one row."""
    sums = [sum(float(w) * v for w, v in zip(row, values, strict=True)) for row in matrix]
    return sums if bias is None else [one + float(b) for one, b in zip(sums, bias, strict=True)]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@torch.no_grad()
def updated(policy: RelationalPolicy, memory: list[list[float]], token: int) -> list[list[float]]:
    """The memory after one more token, number by number."""
    width, heads = policy.hidden_size, policy.num_heads
    head = width // heads
    x = mapped(policy.read.weight, policy.embedding.weight[token].tolist(), policy.read.bias)
    norms: list[Any] = list(policy.norms)
    rows = [normed(mapped(policy.attention.weight, row), norms[0].weight, norms[0].bias) for row in [*memory, x]]
    after = []
    for slot, before in enumerate(memory):
        taken: list[float] = []
        for h in range(heads):
            query, keys, values = (
                [row[h * 3 * head + part * head :][:head] for row in ([rows[slot]] if part == 0 else rows)]
                for part in range(3)
            )
            weights = [
                math.exp(sum(q * k for q, k in zip(query[0], key, strict=True)) / math.sqrt(head)) for key in keys
            ]
            taken += [
                sum(w * value[at] for w, value in zip(weights, values, strict=True)) / sum(weights)
                for at in range(head)
            ]
        first = normed([m + a for m, a in zip(before, taken, strict=True)], norms[1].weight, norms[1].bias)
        hidden = first
        for layer in (policy.mlp[0], policy.mlp[2]):
            hidden = [max(0.0, value) for value in mapped(layer.weight, hidden, layer.bias)]  # type: ignore[arg-type]
        second = normed([m + a for m, a in zip(first, hidden, strict=True)], norms[2].weight, norms[2].bias)
        gates = [
            a + b
            for a, b in zip(
                mapped(policy.gates_of_token.weight, x),
                mapped(policy.gates_of_memory.weight, [math.tanh(m) for m in before]),
                strict=True,
            )
        ]
        after.append(
            [
                sigmoid(gates[at]) * math.tanh(second[at]) + sigmoid(gates[width + at] + 1) * before[at]
                for at in range(width)
            ]
        )
    return after


@torch.no_grad()
def test_its_memory_and_logits_are_those_of_a_plain_loop() -> None:
    policy = relational().double()
    tokens_BT, _ = padded([[0, 2, 3]])
    state, last = policy.begin(1), PAD
    memory = [[float(slot == at) for at in range(6)] for slot in range(2)]
    for token in tokens_BT[0].tolist():
        logits_BV, state = policy.step(torch.tensor([last]), state)
        memory = updated(policy, memory, last)
        expected = mapped(policy.projection.weight, [*memory[0], *memory[1]], policy.projection.bias)
        assert state[0].tolist() == [pytest.approx(slot) for slot in memory]
        assert logits_BV[0].tolist() == pytest.approx(expected)
        last = token


def test_texts_of_one_pass_are_those_of_stepping_to_the_bit() -> None:
    policy, keys = RelationalPolicy(50, start_token=50, embed_size=8, hidden_size=8, seed=1), Keys.counted(3, 40)
    tokens_BT, _ = generate(policy, keys, 6)
    state, last_B = policy.begin(40), torch.full((40,), 50)
    for position in range(6):
        with torch.no_grad():
            logits_BV, state = policy.step(last_B, state)
        last_B = sample_categorical(logits_BV, keyed_uniform(keys.seed_B, keys.episode_B, position=position))
        assert torch.equal(last_B, tokens_BT[:, position])


def test_dropout_works_in_training_and_only_there() -> None:
    policy = RelationalPolicy(V, start_token=PAD, dropout=0.5, seed=1)
    tokens_BT, mask_BT = padded(TEXTS)
    with torch.random.fork_rng():
        assert not torch.equal(policy.log_prob(tokens_BT, mask_BT), policy.log_prob(tokens_BT, mask_BT))
    policy.eval()
    assert torch.equal(policy.log_prob(tokens_BT, mask_BT), policy.log_prob(tokens_BT, mask_BT))


@pytest.mark.parametrize(("sizes", "sentence"), [
    ({"hidden_size": 7}, "hidden_size must be a multiple of num_heads=2, found 7"),
    ({"num_slots": 0}, "num_slots must be at least 1"),
    ({"num_slots": 65}, "num_slots must be at most 64"),
    ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ({"hidden_size": 10**6}, "a relational policy"),
])  # fmt: skip
def test_sizes_out_of_range_are_refused(sizes: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, RelationalPolicy, V, start_token=PAD, **sizes)
