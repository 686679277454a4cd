"""The transformer: its steps beside whole passes and plain loops, its cache in completions, and what it learns."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import assert_refused
from test_policies import PAD, TEXTS, V, padded, transformer
from textgan_env.ops.sampling import derived_generator, keyed_uniform, sample_categorical, seeded
from textgan_env.ops.tiles import Tile
from textgan_env.policies import PolicyModule, TransformerPolicy, map_state
from textgan_env.policies.base import step_rows
from textgan_env.rewards import Keys, complete, generate, rollouts
from textgan_env.tasks import ToyTask


def large(length: int = 12, **options: Any) -> TransformerPolicy:
    """Of 50 tokens, two layers and four heads, with weights that matter."""
    sizes = {"embed_size": 16, "hidden_size": 24, **options}
    policy = TransformerPolicy(50, start_token=50, max_length=length, seed=1, **sizes).eval()
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=derived_generator(parameter.numel()))
    return policy


def some_texts(rows: int, length: int) -> Tensor:
    return torch.randint(50, (rows, length), generator=derived_generator(7))


# -- A second version, number by number -------------------------------------------------------------------------------
def normed(values: list[float], norm: Any) -> list[float]:
    """Layer norm of one row."""
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values) + 1e-5)
    pairs = zip(values, norm.weight.tolist(), norm.bias.tolist(), strict=True)
    return [(value - mean) / deviation * weight + bias for value, weight, bias in pairs]


def mapped(layer: Any, values: list[float]) -> list[float]:
    """A linear layer of one row."""
    sums = [sum(w * value for w, value in zip(row, values, strict=True)) for row in layer.weight.tolist()]
    return sums if layer.bias is None else [one + bias for one, bias in zip(sums, layer.bias.tolist(), strict=True)]


def turned(values: list[float], position: int) -> list[float]:
    """Unit i and unit i + width / 2 are a number of the plane, which is turned by position / 10,000^(2 i / width)."""
    half = len(values) // 2
    rotated = [
        complex(values[i], values[i + half]) * math.e ** (1j * position / 10_000 ** (2 * i / len(values)))
        for i in range(half)
    ]
    return [one.real for one in rotated] + [one.imag for one in rotated]


def added(one: list[float], other: list[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


def attended(rows: list[list[float]], at: int, heads: int) -> list[float]:
    """What a token takes from itself and those before; each row is queries, keys and values of all heads."""
    hidden = len(rows[0]) // 3
    width, taken = hidden // heads, []
    for head in range(heads):
        query, *_ = (rows[at][head * width : (head + 1) * width],)
        keys, values = ([row[part * hidden + head * width :][:width] for row in rows[: at + 1]] for part in (1, 2))
        query = turned(query, at)
        weights = [
            math.exp(sum(q * k for q, k in zip(query, turned(key, place), strict=True)) / math.sqrt(width))
            for place, key in enumerate(keys)
        ]
        taken += [
            sum(w * value[i] for w, value in zip(weights, values, strict=True)) / sum(weights) for i in range(width)
        ]
    return taken


def plain_logits(policy: TransformerPolicy, read: list[int]) -> list[list[float]]:
    """The logits after each token that is read."""
    rows = [policy.embedding.weight[token].tolist() for token in read]
    if isinstance(policy.read, torch.nn.Linear):
        rows = [mapped(policy.read, row) for row in rows]
    for layer in policy.layers:
        part: Any = layer
        entries = [mapped(part.attention, normed(row, part.attention_norm)) for row in rows]
        taken = [mapped(part.out, attended(entries, at, policy.num_heads)) for at in range(len(rows))]
        rows = [added(row, more) for row, more in zip(rows, taken, strict=True)]
        for at, row in enumerate(rows):
            inside = [max(0.0, value) for value in mapped(part.mlp[0], normed(row, part.mlp_norm))]
            rows[at] = added(row, mapped(part.mlp[2], inside))
    return [mapped(policy.projection, normed(row, policy.norm)) for row in rows]


@torch.no_grad()
@pytest.mark.parametrize("embed_size", [3, 8], ids=["another width of the embedding", "the same"])
def test_its_steps_and_its_whole_pass_are_those_of_plain_loops(embed_size: int) -> None:
    policy = TransformerPolicy(V, start_token=PAD, max_length=4, embed_size=embed_size, hidden_size=8, num_heads=2)
    for parameter in policy.double().parameters():
        torch.nn.init.normal_(parameter, std=0.7, generator=derived_generator(parameter.numel()))
    tokens_BT = torch.tensor([[2, 0, 3, 1], [1, 1, 0, 2]])
    state, whole_BTV = policy.begin(2), policy.all_log_probs(tokens_BT)
    for position in range(4):
        read_BP = torch.nn.functional.pad(tokens_BT[:, :position], (1, 0), value=PAD)
        logits_BV, state = policy.step(read_BP[:, -1], state)
        expected_BV = torch.tensor([plain_logits(policy, read_P)[-1] for read_P in read_BP.tolist()]).double()
        torch.testing.assert_close(logits_BV, expected_BV, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(whole_BTV[:, position], expected_BV.log_softmax(1), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_steps_with_the_cache_give_the_logits_of_a_whole_pass() -> None:
    policy, tokens_BT = large(), some_texts(40, 12)
    whole_BTV, state = policy.all_log_probs(tokens_BT), policy.begin(40)
    for position in range(12):
        last_B = tokens_BT[:, position - 1] if position else torch.full((40,), 50)
        logits_BV, state = policy.step(last_B, state)
        torch.testing.assert_close(logits_BV.log_softmax(1), whole_BTV[:, position], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_no_logit_depends_on_a_token_that_comes_later() -> None:
    policy, tokens_BT = large(), some_texts(3, 12)
    before_BTV = policy.all_log_probs(tokens_BT)
    for position in range(12):
        changed_BT = tokens_BT.clone()
        changed_BT[:, position:] = (changed_BT[:, position:] + 1) % 50
        after_BTV = policy.all_log_probs(changed_BT)
        # Logits at a position are those of its token: given the ones before it.
        assert torch.equal(after_BTV[:, : position + 1], before_BTV[:, : position + 1])
        assert position == 11 or not torch.allclose(after_BTV[:, position + 1], before_BTV[:, position + 1], atol=1e-3)


@torch.no_grad()
def test_what_it_says_depends_on_where_a_token_stood_and_on_the_first_one() -> None:
    policy = large()
    one_TV, other_TV = policy.all_log_probs(torch.tensor([[3, 4, 9, 9], [4, 3, 9, 9]]))
    assert not torch.allclose(one_TV[3], other_TV[3], atol=1e-3)


@torch.no_grad()
def test_the_first_token_is_known_from_the_same_token_later() -> None:
    # On oracle tasks a text starts from token 0, which may follow.
    policy = TransformerPolicy(V, start_token=0, max_length=3, hidden_size=8)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, generator=derived_generator(parameter.numel()))
    logp_TV = policy.all_log_probs(torch.tensor([[0, 0, 0]]))[0]
    state, last_B = policy.begin(1), torch.tensor([0])
    for position in range(3):
        logits_BV, state = policy.step(last_B, state)
        torch.testing.assert_close(logits_BV.log_softmax(1)[0], logp_TV[position], rtol=1e-4, atol=1e-4)
        assert all(not torch.allclose(logp_TV[position], logp_TV[at], atol=1e-3) for at in range(position))


def test_gradients_are_those_of_finite_differences() -> None:
    policy = transformer().double()
    tokens_BT, mask_BT = padded([[0, 1, 3], [2], [1, 1]])
    weights = list(policy.parameters())

    def nll() -> Tensor:
        return -policy.log_prob(tokens_BT, mask_BT).sum()

    slopes = torch.autograd.grad(nll(), weights)
    directions = [torch.randn(weight.shape, generator=derived_generator(9), dtype=torch.float64) for weight in weights]
    expected = math.fsum(float((slope * way).sum()) for slope, way in zip(slopes, directions, strict=True))
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for weight, way in zip(weights, directions, strict=True):
                weight.add_(way, alpha=step)
            values.append(float(nll()))
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(expected, rel=1e-5)


def test_steps_have_the_gradients_of_the_whole_pass() -> None:
    policy = transformer().double()
    tokens_BT, mask_BT = padded([[0, 1, 3], [2], [1, 1]])
    both = policy.log_prob(tokens_BT, mask_BT), PolicyModule.log_prob(policy, tokens_BT, mask_BT)
    slopes = [torch.autograd.grad((logp_BT * logp_BT.detach()).sum(), list(policy.parameters())) for logp_BT in both]
    torch.testing.assert_close(*slopes)


# -- The cache --------------------------------------------------------------------------------------------------------
@torch.no_grad()
def test_a_row_has_the_same_bits_beside_longer_and_shorter_ones_as_beside_its_like() -> None:
    # At least 32 rows, as completions are stepped: below that a matrix product may take another path.
    policy, tokens_BT, row_B = large(40), some_texts(64, 40), torch.arange(64)
    states, logits = [policy.begin(64)], []
    for position in range(40):
        logits_BV, state = policy.step(tokens_BT[:, position], states[-1])
        logits.append(logits_BV)
        states.append(state)
    length_B = 37 * row_B % 40
    mixed = map_state(lambda *parts: torch.stack(parts)[length_B, row_B], *states)
    together_BV, _ = policy.step(tokens_BT[row_B, length_B], mixed)
    assert torch.equal(together_BV, torch.stack(logits)[length_B, row_B])


@torch.no_grad()
@pytest.mark.parametrize("rows", [slice(0, 40), slice(5, 38), torch.arange(40).flip(0), torch.arange(0, 80, 2)])
def test_rows_stepped_in_place_have_the_bits_of_rows_that_are_copied(rows: Any) -> None:
    policy, tokens_BT = large(), some_texts(80, 12)
    in_place, copied = policy.begin(80), policy.begin(80)
    for position in range(12):
        read_r = tokens_BT[rows, position]
        assert torch.equal(policy.step_rows(read_r, in_place, rows), step_rows(policy, read_r, copied, rows))
    map_state(lambda one, other: torch.testing.assert_close(one, other, rtol=0, atol=0) or one, in_place, copied)


@torch.no_grad()
def test_a_step_leaves_the_state_that_it_is_given_as_it_was() -> None:
    policy, tokens_BT = large(), some_texts(33, 2)
    _, state = policy.step(tokens_BT[:, 0], policy.begin(33))
    before = map_state(torch.clone, state)
    one_BV, _ = policy.step(tokens_BT[:, 0], state)
    other_BV, _ = policy.step(tokens_BT[:, 1], state)
    assert torch.equal(policy.step(tokens_BT[:, 0], before)[0], one_BV)
    assert not torch.equal(one_BV, other_BV)


def test_texts_of_one_pass_are_those_of_stepping_to_the_bit() -> None:
    policy, keys = large(6), Keys.counted(3, 40)
    tokens_BT, _ = generate(policy, keys, 6)
    state, last_B = policy.begin(40), torch.full((40,), 50)
    for position in range(6):
        with torch.no_grad():
            logits_BV, state = policy.step(last_B, state)
        last_B = sample_categorical(logits_BV, keyed_uniform(keys.seed_B, keys.episode_B, position=position))
        assert torch.equal(last_B, tokens_BT[:, position])


def test_a_prefix_is_read_once_for_all_its_completions() -> None:
    read = []

    class Counting(TransformerPolicy):
        def _logits(self, tokens_r: Tensor, *rest: Any) -> Tensor:
            read.append(len(tokens_r))
            return super()._logits(tokens_r, *rest)

    policy = Counting(50, start_token=50, max_length=4, hidden_size=8)
    wanted_BT = torch.ones(40, 4, dtype=torch.bool)
    complete(policy, some_texts(40, 4), wanted_BT, keys=Keys.counted(0, 40), rollouts=3)
    # Four tokens of each text, the start among them; and of the 3 completions of p tokens those after their first.
    assert sum(read) == 40 * 4 + 40 * 3 * (3 + 2 + 1 + 0)


@pytest.mark.parametrize("end_token", [None, 7])
def test_completions_are_the_same_however_few_texts_fit_into_memory(
    end_token: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, wanted_BT = large(5), torch.rand(9, 5, generator=derived_generator(2)) < 0.7
    how: Any = {"keys": Keys.counted(4, 9), "rollouts": 3, "end_token": end_token, "scored": True}
    whole = complete(policy, some_texts(9, 5), wanted_BT, **how)
    monkeypatch.setattr(rollouts, "STATE_BYTES", Tile(cpu=200_000, gpu=200_000))
    parts = complete(policy, some_texts(9, 5), wanted_BT, **how)
    assert vars(whole).keys() == vars(parts).keys()
    for name, expected in vars(whole).items():
        assert torch.equal(getattr(parts, name), expected), name


# -- Learning, and what is refused ------------------------------------------------------------------------------------
def test_it_learns_the_next_number_of_a_sum_by_maximum_likelihood() -> None:
    # Token t is the sum of the two before it, modulo 4: only who sees both knows it. The first two cost log 4 each.
    policy = TransformerPolicy(4, start_token=4, max_length=6, embed_size=16, hidden_size=16, seed=1)
    first_B2 = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    texts = [*first_B2.unbind(1)]
    for _ in range(4):
        texts.append((texts[-1] + texts[-2]) % 4)
    tokens_BT = torch.stack(texts, dim=1)
    everywhere_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        (-policy.log_prob(tokens_BT, everywhere_BT).mean()).backward()
        optimizer.step()
    nll = -float(policy.log_prob(tokens_BT, everywhere_BT).detach().mean())
    assert 2 * math.log(4) / 6 - 1e-3 < nll < 2 * math.log(4) / 6 + 0.02


def test_it_learns_the_toy_law_by_maximum_likelihood() -> None:
    task = ToyTask(vocab_size=3, max_length=3, size=60)
    texts_ST = torch.cartesian_prod(*[torch.arange(3)] * 3)
    everywhere_ST = torch.ones_like(texts_ST, dtype=torch.bool)
    with torch.no_grad():
        true_S = task.oracle.log_prob(texts_ST, everywhere_ST).sum(1)
    policy = TransformerPolicy(3, start_token=task.start_token, max_length=3, embed_size=16, hidden_size=16, seed=1)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(80):
        divergence = (true_S.exp() * (true_S - policy.log_prob(texts_ST, everywhere_ST).sum(1))).sum()
        optimizer.zero_grad()
        divergence.backward()
        optimizer.step()
    # Nats a text, from .95 as drawn. Token 0 begins these texts: read as itself it would leave .03.
    assert float(divergence.detach()) < 0.015


def test_as_drawn_all_weights_have_a_gradient_or_get_one_after_a_step() -> None:
    policy = TransformerPolicy(V, start_token=PAD, max_length=3, seed=1)
    tokens_BT, mask_BT = padded(TEXTS)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        policy.log_prob(tokens_BT, mask_BT).sum().backward()
        optimizer.step()
    assert all(weight.grad is not None and weight.grad.any() for weight in policy.parameters())


def test_dropout_works_in_training_and_only_there() -> None:
    policy = TransformerPolicy(V, start_token=PAD, max_length=3, dropout=0.5, seed=1)
    tokens_BT, mask_BT = padded(TEXTS)
    with seeded(0):
        assert not torch.equal(policy.log_prob(tokens_BT, mask_BT), policy.log_prob(tokens_BT, mask_BT))
    policy.eval()
    assert torch.equal(policy.log_prob(tokens_BT, mask_BT), policy.log_prob(tokens_BT, mask_BT))


@pytest.mark.parametrize(("hidden_size", "heads"), [(2, 1), (4, 2), (6, 1), (8, 4), (12, 2), (128, 4)])
def test_heads_are_as_many_of_four_as_have_an_even_width(hidden_size: int, heads: int) -> None:
    policy = TransformerPolicy(V, start_token=PAD, max_length=3, hidden_size=hidden_size)
    assert policy.num_heads == policy.config()["num_heads"] == heads


@pytest.mark.parametrize(("sizes", "sentence"), [
    ({"hidden_size": 7}, "hidden_size must be an even number for a transformer, found 7"),
    ({"hidden_size": 12, "num_heads": 4}, "hidden_size must be a multiple of twice num_heads=4, found 12"),
    ({"num_heads": 0}, "num_heads must be at least 1"),
    ({"num_layers": 0}, "num_layers must be at least 1"),
    ({"num_layers": 65}, "num_layers must be at most 64"),
    ({"max_length": 0}, "max_length must be at least 1"),
    ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ({"hidden_size": 10**6}, "a transformer policy"),
    ({"max_length": 10**9}, "a transformer policy"),
])  # fmt: skip
def test_sizes_out_of_range_are_refused(sizes: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, TransformerPolicy, V, **{"start_token": PAD, "max_length": 3, **sizes})


def test_a_text_longer_than_it_reads_is_refused() -> None:
    policy, sentence = large(4), "at most max_length=4 tokens, found 5"
    assert_refused(sentence, policy.all_log_probs, some_texts(2, 5))
    assert_refused(sentence, generate, policy, Keys.counted(0, 2), 5)
