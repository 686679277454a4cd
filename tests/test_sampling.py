"""Keyed uniforms against published vectors, draws against the plain inverse distribution function."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import assert_refused, global_rng_state
from textgan_env.ops import exponentials
from textgan_env.ops.exponentials import proportional_exp_, shifted_exp_
from textgan_env.ops.sampling import (
    Stream,
    _from_all,
    _from_blocks,
    derived_generator,
    derived_seed,
    draw_seed,
    evaluating,
    keyed_uniform,
    philox,
    sample_categorical,
    sample_with_probability,
    seeded,
)

INF = math.inf
ALMOST_1 = 1 - 2.0**-53


def words(*values: int) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(value) for value in values)


def uniforms(count: int, seed: int = 0) -> Tensor:
    return keyed_uniform(torch.tensor(seed), torch.arange(count))


# -- Philox -----------------------------------------------------------------------------------------------------------


# Known answers that Salmon et al. publish with Random123 (kat_vectors, philox4x32 10).
@pytest.mark.parametrize(("counter", "key", "expected"), [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
], ids=["zeros", "ones", "pi"])  # fmt: skip
def test_philox_gives_the_published_words(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    found = philox(words(*counter), words(*key))  # type: ignore[arg-type]
    assert tuple(int(word) for word in found) == expected


def test_keyed_uniform_takes_53_bits_of_the_first_two_words() -> None:
    # Counter and key are all 0: the words are the first vector above.
    expected = ((0x6627E8D5 >> 5) * 2**26 + (0xE169C58D >> 6)) / 2**53
    assert keyed_uniform(torch.tensor(0), torch.tensor(0)).item() == expected


KEY = {"seed": 5, "episode": 7, "prefix": 3, "rollout": 2, "position": 9, "stream": 1}
CHANGES = {
    "seed": [6, 5 + 2**32, -5], "episode": [8, 7 + 2**32, -7], "prefix": [2, 9, 65_535], "rollout": [3, 16_777_215],
    "position": [3, 65_535], "stream": [0, 2],
}  # fmt: skip


def uniform_of(key: dict[str, int]) -> float:
    return keyed_uniform(
        torch.tensor(key["seed"]),
        torch.tensor(key["episode"]),
        prefix=key["prefix"],
        rollout=key["rollout"],
        position=key["position"],
        stream=Stream(key["stream"]),
    ).item()


def test_same_key_gives_the_same_number_and_any_changed_field_another() -> None:
    numbers = [uniform_of(KEY)]
    numbers += [uniform_of(KEY | {field: value}) for field, values in CHANGES.items() for value in values]
    assert uniform_of(KEY) == numbers[0]
    assert len(set(numbers)) == len(numbers)


def test_prefix_and_position_are_not_mixed_up() -> None:
    assert uniform_of(KEY | {"prefix": 1, "position": 2}) != uniform_of(KEY | {"prefix": 2, "position": 1})


def test_number_depends_on_its_key_alone_not_on_shape_or_order() -> None:
    rollout_N, episode_B = torch.arange(4), torch.arange(6)
    together_BN = keyed_uniform(torch.tensor(1), episode_B[:, None], rollout=rollout_N, position=2)
    turned_BN = keyed_uniform(torch.tensor(1), episode_B.flip(0)[:, None], rollout=rollout_N, position=2)
    alone = [
        [
            uniform_of(KEY | {"seed": 1, "episode": b, "prefix": 0, "rollout": n, "position": 2, "stream": 0})
            for n in range(4)
        ]
        for b in range(6)
    ]
    assert (together_BN.tolist(), turned_BN.flip(0).tolist()) == (alone, alone)


@pytest.mark.parametrize("field", ["seed", "episode", "rollout", "position"])
def test_uniforms_fill_the_unit_interval_evenly_along_each_field(field: str) -> None:
    count, bins = 60_000, 100
    running = torch.arange(count)
    key: dict[str, Any] = {"seed": torch.tensor(3), "episode": torch.tensor(4), field: running}
    numbers = keyed_uniform(**key)
    assert numbers.dtype == torch.float64
    assert 0 <= numbers.min() < numbers.max() < 1
    observed = np.bincount((numbers * bins).long().numpy(), minlength=bins)
    expected = count / bins
    chi_square = ((observed - expected) ** 2 / expected).sum()
    # 99 degrees of freedom: mean 99, standard deviation 14.1.
    assert 99 - 4 * 14.1 < chi_square < 99 + 4 * 14.1


def test_numbers_of_neighbouring_keys_are_uncorrelated() -> None:
    numbers = uniforms(50_000).numpy()
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 4 / math.sqrt(50_000)


# -- Draws ------------------------------------------------------------------------------------------------------------
def plain_draws(logits_BV: Tensor, uniform_B: Tensor) -> list[int]:
    """Inverse distribution function in float64: the first token whose cumulated weight is above u times the total."""
    tokens = []
    for logits_V, uniform in zip(logits_BV.double().numpy(), uniform_B.numpy(), strict=True):
        edges_V = np.cumsum(np.exp(logits_V - logits_V.max()))
        tokens.append(int(np.searchsorted(edges_V, uniform * edges_V[-1], side="right")))
    return tokens


@pytest.mark.parametrize("vocab_size", [1, 2, 3, 4, 97, 100, 5000])
def test_draws_equal_the_plain_inverse_distribution_function(vocab_size: int) -> None:
    rows = 400
    logits_BV = 2 * torch.randn(rows, vocab_size, generator=derived_generator(vocab_size))
    uniform_B = uniforms(rows)
    assert sample_categorical(logits_BV, uniform_B).tolist() == plain_draws(logits_BV, uniform_B)


@pytest.mark.parametrize("vocab_size", [1, 2, 3, 4, 97, 100, 5000])
def test_the_way_of_a_gpu_with_few_tokens_draws_the_same(vocab_size: int) -> None:
    logits_BV = 2 * torch.randn(400, vocab_size, generator=derived_generator(vocab_size))
    uniform_B = uniforms(400)
    tokens_B1, total_B1 = _from_all(logits_BV.softmax(1), uniform_B[:, None])
    assert tokens_B1[:, 0].tolist() == plain_draws(logits_BV, uniform_B)
    torch.testing.assert_close(total_B1, torch.ones_like(total_B1), atol=1e-5, rtol=0)


def test_the_last_uniform_number_draws_a_token_that_may_be_drawn() -> None:
    weights_BV = torch.tensor([[0.1, 0.7, 0.2, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0, 0.0], [1e-7, 1e7, 3e-7, 1e-30, 0.0]])
    last_B1 = torch.full((3, 1), 1 - 2.0**-53, dtype=torch.float64)
    assert _from_all(weights_BV, last_B1)[0].tolist() == [[2], [0], [2]]
    assert _from_blocks(weights_BV, last_B1)[0].tolist() == [[2], [0], [2]]


def test_several_draws_a_row_equal_single_draws() -> None:
    logits_BV = torch.randn(5, 97, generator=derived_generator(0))
    uniform_BN = uniforms(5 * 8).view(5, 8)
    tokens_BN = sample_categorical(logits_BV, uniform_BN)
    assert tokens_BN.shape == (5, 8)
    for draw in range(8):
        assert tokens_BN[:, draw].tolist() == sample_categorical(logits_BV, uniform_BN[:, draw]).tolist()


def test_no_rows_give_no_tokens() -> None:
    assert sample_categorical(torch.zeros(0, 7), torch.zeros(0, dtype=torch.float64)).shape == (0,)
    assert sample_categorical(torch.zeros(0, 7), torch.zeros(0, 3, dtype=torch.float64)).shape == (0, 3)


def test_frequencies_agree_with_the_probabilities() -> None:
    draws, classes = 200_000, 500
    logits_V = torch.randn(classes, generator=derived_generator(1))
    tokens = sample_categorical(logits_V[None], uniforms(draws)[None])[0]
    expected_V = draws * logits_V.double().softmax(0).numpy()
    assert expected_V.min() > 5  # what a chi-square test needs
    observed_V = np.bincount(tokens.numpy(), minlength=classes)
    chi_square = ((observed_V - expected_V) ** 2 / expected_V).sum()
    # 499 degrees of freedom: mean 499, standard deviation 31.6.
    assert 499 - 4 * 31.6 < chi_square < 499 + 4 * 31.6


def test_tokens_of_one_row_do_not_depend_on_the_scale_of_another() -> None:
    logits_BV = torch.randn(3, 50, generator=derived_generator(2))
    uniform_B = uniforms(3)
    shifted_BV = logits_BV + torch.tensor([[0.0], [1000.0], [-1000.0]])
    assert sample_categorical(shifted_BV, uniform_B).tolist() == sample_categorical(logits_BV, uniform_B).tolist()


# 10 tokens are worked on in blocks 0-2, 3-5, 6-8, 9.
MASKS = {
    "first": [0], "last": [9], "first block": [0, 1, 2], "last two blocks": [6, 7, 8, 9],
    "start of each block": [0, 3, 6, 9], "end of each block": [2, 5, 8], "all but one": [0, 1, 2, 3, 5, 6, 7, 8, 9],
}  # fmt: skip


@pytest.mark.parametrize("masked", MASKS.values(), ids=MASKS.keys())
def test_masked_token_is_never_drawn(masked: list[int]) -> None:
    logits_BV = torch.randn(1, 10, generator=derived_generator(3))
    logits_BV[:, masked] = -INF
    allowed = sorted(set(range(10)) - set(masked))
    uniform_BN = torch.cat([torch.tensor([0.0, 2.0**-53, 0.5, ALMOST_1], dtype=torch.float64), uniforms(5000)])
    tokens = sample_categorical(logits_BV, uniform_BN[None])[0]
    assert tokens[0] == allowed[0]
    assert tokens[3] == allowed[-1]
    assert tokens.unique().tolist() == allowed


@given(st.data())
def test_masked_token_is_never_drawn_whatever_the_logits(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 30))
    logit = st.floats(-90, 90, width=32) | st.just(-INF)
    logits_V = data.draw(st.lists(logit, min_size=size, max_size=size).filter(lambda row: max(row) > -INF))
    # Uniforms on the edges between tokens are where rounding can lead astray.
    weights_V = np.exp(np.array(logits_V) - max(logits_V))
    edges_V = np.cumsum(weights_V) / weights_V.sum()
    near = np.concatenate([edges_V, np.nextafter(edges_V, 0), np.nextafter(edges_V, 1), [0, ALMOST_1]])
    uniform_N = torch.from_numpy(near.clip(0, ALMOST_1))
    tokens_N = sample_categorical(torch.tensor([logits_V]), uniform_N[None])[0]
    assert all(logits_V[token] > -INF for token in tokens_N.tolist())


def test_target_that_rounding_puts_before_its_block_draws_no_masked_token() -> None:
    # Blocks (0, 1) and (2, 3), token 2 masked. The first block has weight 0.75 * 2**-52 and the second 1, so that the
    # last edge rounds up to 1 + 2**-52: seen from there, the second block begins at 2**-52. The target is below.
    logits_BV = torch.tensor([[math.log(0.75 * 2.0**-52), -INF, -INF, 0.0]])
    uniform_B = torch.tensor([0.9 * 2.0**-52], dtype=torch.float64)
    assert sample_categorical(logits_BV, uniform_B).tolist() == [3]


@pytest.mark.parametrize(
    "row", [[0.0, math.nan, 1.0, 2.0], [-INF] * 4, [INF, 0.0, 0.0, 0.0]], ids=["nan", "all masked", "infinite"]
)
def test_row_without_a_distribution_is_refused(row: list[float]) -> None:
    logits_BV = torch.tensor([[0.0] * 4, row])
    assert_refused("NaN", sample_categorical, logits_BV, uniforms(2))


def test_logits_are_kept_unless_they_may_be_overwritten() -> None:
    logits_BV = torch.randn(3, 11, generator=derived_generator(4))
    kept_BV, uniform_B = logits_BV.clone(), uniforms(3)
    tokens_B = sample_categorical(logits_BV, uniform_B)
    assert torch.equal(logits_BV, kept_BV)
    assert torch.equal(sample_categorical(logits_BV, uniform_B, overwrite=True), tokens_B)
    assert not torch.equal(logits_BV, kept_BV)


# -- Seeds and the global generator -----------------------------------------------------------------------------------
def test_derived_seed_is_the_same_on_every_machine_and_in_every_version() -> None:
    # The first 8 bytes of sha256(b"(1, 'mle', 2)"), read from the low end, without the lowest bit.
    assert derived_seed(1, "mle", 2) == 8_401_158_020_050_470_573


def test_derived_seeds_of_different_purposes_differ() -> None:
    names: list[tuple[Any, ...]] = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", "1"), (0, 1)]
    seeds = {derived_seed(*purpose) for purpose in names}
    assert len(seeds) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derived_generator_starts_from_the_derived_seed() -> None:
    expected = torch.rand(3, generator=torch.Generator().manual_seed(derived_seed(4, "x")))
    assert torch.equal(torch.rand(3, generator=derived_generator(4, "x")), expected)


def test_fold_gives_a_fresh_seed_each_time() -> None:
    generator = derived_generator(0)
    seeds = [draw_seed(generator) for _ in range(5)]
    assert len(set(seeds)) == 5
    assert seeds == [draw_seed(again) for again in [derived_generator(0)] for _ in range(5)]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeded_repeats_global_draws_and_leaves_the_global_state() -> None:
    before = global_rng_state()
    draws = []
    for seed in (1, 1, 2):
        with seeded(seed):
            draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert global_rng_state() == before


@pytest.mark.parametrize("used", [False, True])
def test_seeded_keeps_the_state_of_all_gpus_if_any_is_used_and_starts_none(
    used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: kept.append(device))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: kept.append(device))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with seeded(1):
            pass
    assert kept == ([0, 1, 0, 1] if used else [])


def test_seeded_leaves_the_global_state_after_an_error() -> None:
    def draw_and_fail() -> None:
        with seeded(1):
            torch.rand(4)
            raise KeyError

    before = global_rng_state()
    with pytest.raises(KeyError):
        draw_and_fail()
    assert global_rng_state() == before


def test_evaluating_gives_every_part_its_own_mode_back() -> None:
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    net.train()
    net[1].eval()
    before = [part.training for part in net.modules()]
    with evaluating(net):
        assert not any(part.training for part in net.modules())
    assert [part.training for part in net.modules()] == before == [True, True, False, False]
    with evaluating(object()):
        pass


@pytest.mark.parametrize("vocab_size", [3, 97, 5000])
@pytest.mark.parametrize("by_exp2", [False, True])
def test_exponentials_of_a_row_do_not_depend_on_the_rows_beside_it(
    vocab_size: int, by_exp2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exponentials, "_exp2_is_faster", lambda: by_exp2)
    logits_RV = 5 * torch.randn(45, vocab_size, generator=derived_generator(5))
    logits_RV[3] += 200  # beyond what exp can hold
    logits_RV[17] -= 200  # all would be 0
    logits_RV[:, 1] = -torch.inf
    whole_RV = logits_RV.clone()
    taken_R1 = shifted_exp_(whole_RV)
    parts_RV = logits_RV.clone()
    for part_rV in parts_RV.split(7):
        proportional_exp_(part_rV)
    assert torch.equal(parts_RV, whole_RV)
    known_RV = logits_RV[:3].clone()
    uniform_R = torch.rand(3, dtype=torch.float64, generator=derived_generator(6))
    drawn = sample_with_probability(known_RV, uniform_R)
    for one, other in zip(drawn, sample_with_probability(known_RV, uniform_R, furthest=59.0), strict=True):
        assert torch.equal(one, other)
    assert not shifted_exp_(known_RV, furthest=59.0).any()
    assert torch.equal(known_RV, whole_RV[:3])
    exact_RV = logits_RV.double().softmax(1).float()
    torch.testing.assert_close(whole_RV / whole_RV.sum(1, keepdim=True), exact_RV, rtol=5e-6, atol=0)
    torch.testing.assert_close(whole_RV, (logits_RV - taken_R1).double().exp().float(), rtol=5e-6, atol=1e-30)


def test_a_draw_comes_with_its_probability() -> None:
    logits_BV = torch.tensor([0.1, 0.2, 0.7]).log().expand(2, -1)
    tokens_B, share_B = sample_with_probability(logits_BV, torch.tensor([0.2, 0.9], dtype=torch.float64))
    assert tokens_B.tolist() == [1, 2]
    assert share_B.tolist() == pytest.approx([0.2, 0.7], rel=1e-6)
