"""Discriminators against hand-computed values and plain versions; fitting, scoring and reporting."""

import copy
import logging
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from conftest import PositionDiscriminator, assert_refused, global_rng_state
from textgan_env.discriminators import (
    EQUILIBRIUM_VALUE,
    ConvDiscriminator,
    DiscriminatorModule,
    DiscriminatorReport,
    PairDiscriminator,
    RecurrentDiscriminator,
    discriminator_report,
    fit_discriminator,
    make_discriminator,
    score_features,
    score_logits,
    score_token_logits,
)
from textgan_env.discriminators.fit import fit_step
from textgan_env.ops.sampling import evaluating, seeded
from textgan_env.utils.errors import InputError

V, T = 7, 6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_texts(rows: int, vocab_size: int = V, length: int = T, seed: int = 0) -> Tensor:
    """Random tokens, each text ending at a random place (at least one token)."""
    tokens_BT = torch.randint(vocab_size, (rows, length), generator=generator(seed))
    length_B1 = torch.randint(1, length + 1, (rows, 1), generator=generator(seed + 1))
    return tokens_BT.masked_fill(torch.arange(length) >= length_B1, vocab_size)


def small_conv(**options: object) -> ConvDiscriminator:
    arguments: dict[str, Any] = {"embed_size": 5, "widths": (1, 2, 4), "filters": (3, 4, 2), **options}
    return ConvDiscriminator(V, T, **arguments)


def small(kind: str) -> DiscriminatorModule:
    if kind == "recurrent":
        return RecurrentDiscriminator(V, T, embed_size=5, hidden_size=6, dropout=0.0)
    return small_conv() if kind == "conv" else PairDiscriminator(V, T, rank=3)


def falling_and_rising(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Texts that count up (real) and down (fake) modulo V from a random start: the pairs tell, single words do not."""
    start_B1 = torch.randint(V, (rows, 1), generator=generator(seed))
    return (start_B1 + torch.arange(T)) % V, (start_B1 - torch.arange(T)) % V


class TableDiscriminator(nn.Module):
    """The logit of a text is the table's entry for its first token; mode and RNG matter not."""

    vocab_size, max_length, feature_size = V, T, 1

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(logits))

    def features(self, tokens_BT: Tensor) -> Tensor:
        return self.table[tokens_BT[:, :1].clamp(max=len(self.table) - 1)]

    def logits(self, tokens_BT: Tensor) -> Tensor:
        return self.features(tokens_BT)[:, 0]


def starting_with(*tokens: int) -> Tensor:
    return torch.tensor([[token] * T for token in tokens])


# -- The pair judge ---------------------------------------------------------------------------------------------------
def hand_made_pair() -> PairDiscriminator:
    """V = 2 (PAD = 2), T = 3, rank 1, distances 1 and 2; left_1, right_1, left_2, right_2 and singles by hand."""
    judge = PairDiscriminator(2, 3, rank=1, distances=2)
    with torch.no_grad():
        judge.left.copy_(torch.tensor([[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]]))
        judge.right.copy_(torch.tensor([[1.0, 1.0], [10.0, 100.0], [1000.0, 10000.0]]))
        judge.single.copy_(torch.tensor([[0.5], [0.25], [0.125]]))
    return judge


@pytest.mark.parametrize(("text", "distance_1", "distance_2", "single"), [
    # Marked text: 2 0 1 0 2. Next to each other: 2-0, 0-1, 1-0, 0-2; two apart: 2-1, 0-0, 1-2.
    ([0, 1, 0], 7 * 1 + 1 * 10 + 3 * 1 + 1 * 1000, 11 * 100 + 2 * 1 + 5 * 10000, 0.5 + 0.25 + 0.5 + 0.125),
    # Marked text: 2 1 2, and filling that counts nowhere.
    ([1, 2, 2], 7 * 10 + 3 * 1000, 11 * 10000, 0.25 + 0.125),
    # The empty text is its two marks.
    ([2, 2, 2], 7 * 1000, 0.0, 0.125),
])  # fmt: skip
def test_pair_features_are_sums_over_the_marked_text(
    text: list[int], distance_1: float, distance_2: float, single: float
) -> None:
    judge = hand_made_pair()
    assert judge.features(torch.tensor([text])).tolist() == [[distance_1, distance_2, single]]
    # The head starts as all ones and no bias.
    assert judge.logits(torch.tensor([text])).item() == pytest.approx(distance_1 + distance_2 + single)


@given(seed=st.integers(0, 10_000), distances=st.integers(1, 8), rank=st.integers(1, 3))
def test_pair_logits_equal_a_plain_loop_over_pairs(seed: int, distances: int, rank: int) -> None:
    judge = PairDiscriminator(V, T, rank=rank, distances=distances, seed=seed)
    for table in (judge.left, judge.right, judge.single):
        nn.init.normal_(table, generator=generator(seed))
    tokens_BT = random_texts(3, seed=seed)
    for text, logit in zip(tokens_BT.tolist(), judge.logits(tokens_BT).tolist(), strict=True):
        marked = [V, *[token for token in text if token != V], V]
        plain = sum(judge.single[token].item() for token in marked[1:])
        for distance in range(1, distances + 1):
            part = slice((distance - 1) * rank, distance * rank)
            for left, right in zip(marked, marked[distance:], strict=False):
                plain += (judge.left[left, part] @ judge.right[right, part]).item()
        assert logit == pytest.approx(plain, abs=1e-4)


def test_the_head_of_a_discriminator_is_0_without_a_draw_until_its_owner_draws_it() -> None:
    before = global_rng_state()
    discriminator = DiscriminatorModule(V, T, feature_size=50, dropout=0.0)
    assert global_rng_state() == before
    assert not any(weight.any() for weight in discriminator.output.parameters())
    with seeded(3):
        discriminator.output.reset_parameters()
    with seeded(3):
        plain = nn.Linear(50, 1)
    assert torch.equal(discriminator.output.weight, plain.weight)
    assert torch.equal(discriminator.output.bias, plain.bias)


def test_pair_optimizer_decays_the_tables_and_not_the_head() -> None:
    judge = PairDiscriminator(V, T)
    decay = {
        id(parameter): group["weight_decay"]
        for group in judge.make_optimizer().param_groups
        for parameter in group["params"]
    }
    assert decay.keys() == {id(parameter) for parameter in judge.parameters()}
    assert decay[id(judge.left)] == decay[id(judge.right)] == decay[id(judge.single)] == 2.0
    assert decay[id(judge.output.weight)] == decay[id(judge.output.bias)] == 0.0


# -- SeqGAN's CNN -----------------------------------------------------------------------------------------------------
def plain_conv_features(judge: ConvDiscriminator, tokens_BT: Tensor) -> Tensor:
    """The same network as it is usually written: Conv1d, ReLU, max over time, highway."""
    embedded_BET = judge.embedding[tokens_BT].transpose(1, 2)
    pooled = []
    biases = judge.bias.split(judge.filters)
    for width, kernel, bias in zip(judge.widths, judge.kernels, biases, strict=True):
        weight = kernel.view(len(kernel), width, -1).transpose(1, 2)
        pooled.append(functional.conv1d(embedded_BET, weight, bias).relu().amax(2))
    pooled_BF = torch.cat(pooled, dim=1)
    candidate_weight, gate_weight = judge.highway.weight.split(judge.feature_size)
    candidate_bias, gate_bias = judge.highway.bias.split(judge.feature_size)
    gate_BF: Tensor = (pooled_BF @ gate_weight.t() + gate_bias).sigmoid()
    candidate_BF: Tensor = (pooled_BF @ candidate_weight.t() + candidate_bias).relu()
    return gate_BF * candidate_BF + (1 - gate_BF) * pooled_BF


def published_conv() -> ConvDiscriminator:
    return ConvDiscriminator(50, 20)


def test_conv_has_the_published_size() -> None:
    judge = published_conv()
    assert (judge.feature_size, judge.widths) == (1720, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20])
    assert (judge.embedding.shape, sum(kernel.numel() for kernel in judge.kernels)) == ((51, 64), 12_500 * 64)


@pytest.mark.parametrize("gradients", [False, True])
def test_conv_features_equal_conv1d(gradients: bool) -> None:
    judge, tokens_BT = published_conv(), random_texts(9, 50, 20)
    with torch.set_grad_enabled(gradients):
        ours_BF = judge.features(tokens_BT)
    assert ours_BF.requires_grad == gradients
    torch.testing.assert_close(ours_BF, plain_conv_features(judge, tokens_BT), atol=1e-5, rtol=0)


def test_conv_gradients_equal_those_of_conv1d() -> None:
    judge = published_conv()
    # No repeated word in a text: equal windows tie, and a tie may pass its gradient on in any proportion.
    tokens_BT = torch.stack([torch.randperm(51, generator=generator(row))[:20] for row in range(6)])
    upstream_BF = torch.randn(6, judge.feature_size, generator=generator())
    inner = [parameter for name, parameter in judge.named_parameters() if not name.startswith("output")]
    ours = torch.autograd.grad(judge.features(tokens_BT), inner, upstream_BF)
    plain = torch.autograd.grad(plain_conv_features(judge, tokens_BT), inner, upstream_BF)
    for found, expected in zip(ours, plain, strict=True):
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_conv_gradients_equal_finite_differences() -> None:
    judge = small_conv().double()
    tokens_BT = torch.tensor([[0, 1, 2, 3, 4, 5], [6, 5, 3, V, V, V]])
    names = [name for name, _ in judge.named_parameters()]

    def logits(*values: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(judge.eval(), dict(zip(names, values, strict=True)), (tokens_BT,))
        return found

    assert torch.autograd.gradcheck(logits, tuple(judge.parameters()))


def test_conv_starts_as_published() -> None:
    judge = ConvDiscriminator(2000, 20)
    assert judge.embedding.min() >= -1
    assert judge.embedding.max() <= 1
    assert judge.embedding.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.01)
    kernels = torch.cat([kernel.flatten() for kernel in judge.kernels])
    assert kernels.abs().max() <= 0.2
    assert kernels.std().item() == pytest.approx(0.088, abs=0.001)  # of N(0, 0.1) truncated at 2 deviations
    assert judge.bias.eq(0.1).all()
    assert judge.highway.weight.abs().max().item() == pytest.approx(math.sqrt(3 / 1720), rel=1e-3)
    assert judge.output.weight.abs().max() <= 0.2 * math.sqrt(2)
    assert judge.output.bias.item() == 0


def test_conv_penalty_is_l2_of_the_head() -> None:
    judge = small_conv(l2=0.5)
    with torch.no_grad():
        judge.output.weight.fill_(2.0)
        judge.output.bias.fill_(3.0)
    # 0.5 * (9 weights of 4, and 9) / 2
    assert judge.penalty().item() == pytest.approx(11.25)


def test_conv_leaves_widths_out_that_fit_into_no_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        judge = ConvDiscriminator(V, T)
    assert (judge.widths, judge.feature_size) == ([1, 2, 3, 4, 5, 6], 1000)
    assert "T is 6: convolutions of widths [7, 8, 9, 10, 15, 20] left out" in caplog.text


# -- The recurrent one ------------------------------------------------------------------------------------------------
def test_a_prefix_has_the_logit_of_the_text_that_ends_there() -> None:
    """So a logit knows nothing of later tokens, the last one sees the whole text, and PAD has none."""
    judge, tokens_BT = small("recurrent").eval(), random_texts(9)
    logits_BT = score_token_logits(judge, tokens_BT)
    for row, tokens_T in enumerate(tokens_BT):
        length = int((tokens_T != V).sum())
        for seen in range(1, length + 1):
            prefix_T = tokens_T.masked_fill(torch.arange(T) >= seen, V)
            torch.testing.assert_close(logits_BT[row, seen - 1], score_logits(judge, prefix_T[None])[0])
        assert logits_BT[row, length:].eq(0).all()
    assert len(logits_BT[logits_BT != 0].unique()) > 10


def test_features_followed_token_by_token_are_those_of_each_prefix() -> None:
    judge, tokens_BT = small("recurrent").eval(), random_texts(5)
    state = judge.begin_features(5)
    for seen in range(T + 1):
        read_B = tokens_BT[:, seen - 1] if seen else torch.full((5,), V)
        found_BF, state = judge.step_features(read_B, state)
        expected_BF = score_features(judge, tokens_BT.masked_fill(torch.arange(T) >= seen, V))
        torch.testing.assert_close(found_BF, expected_BF)
    assert judge.features(torch.full((1, T), V)).eq(0).all()


def test_its_loss_is_the_mean_over_the_written_tokens_of_both_sides() -> None:
    judge = small("recurrent").eval()
    real_BT, fake_BT = torch.tensor([[1, 2, 3, V, V, V]]), torch.tensor([[4, V, V, V, V, V]])
    logits = [float(logit) for logit in score_token_logits(judge, torch.cat([real_BT, fake_BT])).flatten() if logit]
    expected = sum(math.log1p(math.exp(-logit)) for logit in logits[:3]) + math.log1p(math.exp(logits[3]))
    found = fit_step(judge, sgd(judge, 0.1), torch.cat([real_BT, fake_BT]))
    assert float(found["loss"]) == pytest.approx(expected / 4, rel=1e-5)
    assert float(found["accuracy"]) == pytest.approx((sum(logit > 0 for logit in logits[:3]) + (logits[3] <= 0)) / 4)


def test_fitted_on_every_prefix_it_finds_how_much_more_probable_each_is_among_real_texts() -> None:
    """Real texts are 0 1 (half of them) and 1 end, fake ones 0 0 (a quarter), 0 1 (a quarter) and 1 end: by hand."""
    judge = RecurrentDiscriminator(2, 2, embed_size=8, hidden_size=8, dropout=0.0)
    real_BT = torch.tensor([[0, 1], [0, 1], [1, 2], [1, 2]])
    fake_BT = torch.tensor([[0, 0], [0, 1], [1, 2], [1, 2]])
    optimizer = torch.optim.Adam(judge.parameters(), lr=0.05)
    for _ in range(300):
        fit_step(judge, optimizer, torch.cat([real_BT, fake_BT]))
    logits_BT = score_token_logits(judge, torch.tensor([[0, 1], [0, 0], [1, 2]]))
    torch.testing.assert_close(logits_BT[:, 0], torch.zeros(3), atol=0.05, rtol=0)
    assert float(logits_BT[0, 1]) == pytest.approx(math.log(2), abs=0.05)
    assert float(logits_BT[1, 1]) < -3


# -- Pairs ------------------------------------------------------------------------------------------------------------
def test_pairs_compare_the_logits_of_a_real_and_a_fake_text_at_one_place() -> None:
    judge = TableDiscriminator([0.5, -1.0, 2.0, 0.0])
    tokens_BT = torch.tensor([[0], [1], [2], [3]]).expand(4, T).contiguous()
    found = fit_step(judge, sgd(judge, 1.0), tokens_BT, objective="pairs")
    margins = (0.5 - 2.0, -1.0 - 0.0)
    assert float(found["loss"]) == pytest.approx(sum(math.log1p(math.exp(-margin)) for margin in margins) / 2)
    assert float(found["accuracy"]) == 0.0
    slopes = [1 / (1 + math.exp(margin)) / 2 for margin in margins]
    expected = [0.5 + slopes[0], -1.0 + slopes[1], 2.0 - slopes[0], -slopes[1]]
    torch.testing.assert_close(judge.table.detach(), torch.tensor(expected))


# -- What both share --------------------------------------------------------------------------------------------------
@pytest.fixture(params=["conv", "pair", "recurrent"])
def judge(request: pytest.FixtureRequest) -> DiscriminatorModule:
    return small(request.param)


def test_logits_are_the_head_of_the_features(judge: DiscriminatorModule) -> None:
    judge.eval()
    tokens_BT = random_texts(5)
    features_BF = judge.features(tokens_BT)
    assert features_BF.shape == (5, judge.feature_size)
    assert judge.head(features_BF).equal(judge.logits(tokens_BT))
    assert judge(tokens_BT).equal(judge.logits(tokens_BT))
    torch.testing.assert_close(judge.score_real(tokens_BT), 1 / (1 + (-judge.logits(tokens_BT)).exp()))


@pytest.mark.parametrize("kind", ["conv", "pair", "recurrent"])
def test_the_end_of_a_text_is_seen(kind: str) -> None:
    whole, cut = torch.tensor([[1, 2, 3, 1, 2, 3]]), torch.tensor([[1, 2, 3, 1, 2, V]])
    judge = small(kind)
    assert not judge.features(whole).equal(judge.features(cut))


@pytest.mark.parametrize("kind", ["conv", "pair", "recurrent"])
def test_equal_seeds_start_equal_and_others_differ(kind: str) -> None:
    first, second, other = (
        make_discriminator(kind, vocab_size=V, max_length=20, seed=seed).state_dict() for seed in (3, 3, 4)
    )
    assert all(first[name].equal(second[name]) for name in first)
    assert any(not first[name].equal(other[name]) for name in first)


def test_config_and_weights_restore_a_discriminator(judge: DiscriminatorModule) -> None:
    twin = make_discriminator(judge.kind, seed=99, **judge.config())
    assert twin.config() == judge.config()
    twin.load_state_dict(judge.state_dict())
    assert score_logits(twin, random_texts(4)).equal(score_logits(judge, random_texts(4)))


@pytest.mark.parametrize(("tokens_BT", "field"), [
    (torch.zeros(2, T + 1, dtype=torch.int64), "shape"), (torch.zeros(T, dtype=torch.int64), "shape"),
    (torch.zeros(2, T), "int64"), (torch.full((2, T), V + 1), "found 8"), (torch.full((2, T), -1), "found -1"),
])  # fmt: skip
def test_wrong_tokens_are_refused(judge: DiscriminatorModule, tokens_BT: Tensor, field: str) -> None:
    assert_refused(field, judge.logits, tokens_BT)


def test_no_text_has_no_logit(judge: DiscriminatorModule) -> None:
    assert judge.logits(random_texts(0)).shape == (0,)


@pytest.mark.parametrize(("kind", "options", "field"), [
    ("rnn", {}, "'rnn', expected one of: pair, conv, recurrent"),
    ("bleu", {}, "'bleu', expected one of: pair, conv, recurrent"),  # it is made from a task
    ("pair", {"widths": [2]}, "widths"),
    *(("pair", {name: 0}, name) for name in ("rank", "distances", "vocab_size", "max_length")),
    ("pair", {"dropout": 1.0}, "dropout"),
    *(
        ("conv", {"widths": widths, "filters": filters}, "widths")
        for widths, filters in (([9], [1]), ([1, 2], [1]), ([2, 2], [1, 1]))
    ),
    ("conv", {"embed_size": 0}, "embed_size"),
    ("conv", {"l2": -1.0}, "l2"),
])  # fmt: skip
def test_wrong_construction_is_refused_in_one_sentence(kind: str, options: dict[str, object], field: str) -> None:
    assert "\n" not in assert_refused(field, make_discriminator, kind, **{"vocab_size": V, "max_length": T, **options})


# -- Scoring ----------------------------------------------------------------------------------------------------------
def test_scoring_twice_is_equal_and_changes_nothing() -> None:
    judge = small_conv(dropout=0.5)
    judge.output.eval()  # a part in another mode than the rest keeps its own
    tokens_BT = random_texts(9)
    before, rng = copy.deepcopy(judge.state_dict()), global_rng_state()
    first_B = score_logits(judge, tokens_BT)
    assert score_logits(judge, tokens_BT).equal(first_B)
    torch.testing.assert_close(first_B, copy.deepcopy(judge).eval().logits(tokens_BT))
    assert all(before[name].equal(value) for name, value in judge.state_dict().items())
    assert judge.training
    assert not judge.output.training
    assert global_rng_state() == rng


def test_every_part_gets_its_own_mode_back_even_after_an_error() -> None:
    judge = small_conv()
    judge.dropout.eval()
    with evaluating(judge):
        assert not any(part.training for part in judge.modules())
    with pytest.raises(InputError):
        score_logits(judge, torch.zeros(1, T + 1, dtype=torch.int64))
    assert judge.training
    assert not judge.dropout.training


@pytest.mark.parametrize("kind", ["conv", "pair", "recurrent"])
@pytest.mark.parametrize("rows", [1, 5, 31, 33, 63, 64, 65, 130])
def test_a_score_is_bitwise_the_same_whatever_is_scored_with_it(kind: str, rows: int) -> None:
    judge = make_discriminator(kind, vocab_size=50, max_length=20)
    tokens_RT = random_texts(150, 50, 20)
    all_R = score_logits(judge, tokens_RT, tile=64)
    assert score_logits(judge, tokens_RT[:rows], tile=64).equal(all_R[:rows])
    order_R = torch.randperm(150, generator=generator())
    assert score_logits(judge, tokens_RT[order_R], tile=64).equal(all_R[order_R])


def test_tiles_keep_rows_in_place_and_the_dtype_of_the_judge() -> None:
    judge = PositionDiscriminator(vocab_size=4, max_length=3)
    tokens_RT = random_texts(10, 4, 3)
    logits_R = score_logits(judge, tokens_RT, tile=4)
    assert logits_R.dtype == torch.float64
    assert judge.decode(logits_R).equal(tokens_RT)
    assert score_logits(judge, tokens_RT[:0], tile=4).shape == (0,)


def test_scores_may_take_part_in_a_loss() -> None:
    score_R = score_logits(small_conv(), random_texts(3))
    assert not score_R.requires_grad
    weight = torch.ones((), requires_grad=True)
    (weight * score_R).sum().backward()
    assert weight.grad is not None


class Saying(nn.Module):
    """A discriminator that says what it is told to, of any texts: logits or features."""

    vocab_size, max_length, feature_size = V, T, 2

    def __init__(self, said: Callable[[int], Tensor]) -> None:
        super().__init__()
        self.said = said

    def logits(self, tokens_BT: Tensor) -> Tensor:
        return self.said(len(tokens_BT))

    features = logits


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_where_the_discriminator_says_it(value: float) -> None:
    said_R = torch.tensor([0.0, value, 1.0, 2.0])
    sentence = f"logits must be finite, found {value} for text 2 of 3"
    assert_refused(sentence, score_logits, Saying(lambda rows: said_R), random_texts(3), tile=4)
    features_RF = torch.stack([torch.zeros(4), said_R], dim=1)
    sentence = f"features must be finite, found {value} for text 2 of 3"
    assert_refused(sentence, score_features, Saying(lambda rows: features_RF), random_texts(3), tile=4)
    # What is said of the empty texts that fill a tile up does not matter.
    assert score_logits(Saying(lambda rows: said_R), random_texts(1), tile=4).tolist() == [0.0]


@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 1), (1, 4)])
def test_another_number_of_logits_than_texts_is_refused(shape: tuple[int, ...]) -> None:
    judge = Saying(lambda rows: torch.zeros(shape))
    found = re.escape(f"logits of 4 texts must have shape (4,), found {shape}")
    assert_refused(found, score_logits, judge, random_texts(3), tile=4)
    assert_refused(re.escape(f"(4, 2), found {shape}"), score_features, judge, random_texts(3), tile=4)


def test_wrong_scoring_arguments_are_refused() -> None:
    assert_refused("tile", score_logits, small_conv(), random_texts(3), tile=0)
    assert_refused("shape", score_logits, small_conv(), random_texts(3)[0])


# -- Fitting ----------------------------------------------------------------------------------------------------------
def fit(
    judge: nn.Module,
    sides: tuple[Tensor, Tensor],
    steps: int = 1,
    batch_size: int = 8,
    seed: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, float]:
    """Fit to a real and a fake side; with the discriminator's own optimizer unless another is given."""
    learner: Any = judge
    optimizer = learner.make_optimizer() if optimizer is None else optimizer
    return fit_discriminator(learner, optimizer, *sides, steps=steps, batch_size=batch_size, generator=generator(seed))


def sgd(judge: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(judge.parameters(), lr=rate)


@pytest.mark.parametrize(("kind", "rate", "steps"), [("conv", 1e-2, 60), ("pair", 3e-2, 150), ("recurrent", 1e-2, 100)])
def test_fitting_learns_which_side_is_real(kind: str, rate: float, steps: int) -> None:
    judge = small(kind)
    optimizer, sides, fresh = (
        judge.make_optimizer(rate),
        falling_and_rising(200, seed=0),
        falling_and_rising(300, seed=9),
    )
    before = discriminator_report(judge, *fresh)
    first = fit(judge, sides, steps=5, batch_size=32, optimizer=optimizer)
    last = fit(judge, sides, steps=steps, batch_size=32, seed=1, optimizer=optimizer)
    after = discriminator_report(judge, *fresh)
    assert last["loss"] < first["loss"]
    assert after.loss < before.loss
    assert after.accuracy > 0.9
    assert score_logits(judge, fresh[0]).mean() > score_logits(judge, fresh[1]).mean()


@pytest.mark.parametrize("kind", ["conv", "pair", "recurrent"])
def test_one_step_lowers_the_loss_of_its_own_batch(kind: str) -> None:
    judge = small(kind).eval()
    sides = falling_and_rising(16, seed=0)
    before = discriminator_report(judge, *sides)
    fit(judge, sides, batch_size=16, optimizer=sgd(judge, 1e-3))
    assert discriminator_report(judge, *sides).loss < before.loss


def test_fit_reports_cross_entropy_penalty_and_accuracy_before_the_step() -> None:
    judge = small_conv(dropout=0.0)
    sides = falling_and_rising(8, seed=0)
    expected, penalty = discriminator_report(judge, *sides), judge.penalty().item()
    report = fit(judge, sides)
    assert report["loss"] == pytest.approx(expected.loss, abs=1e-5)
    assert report["penalty"] == pytest.approx(penalty, rel=1e-5)
    assert report["accuracy"] == pytest.approx(expected.accuracy)


def test_the_penalty_is_part_of_what_is_minimised() -> None:
    judge = small_conv(l2=100.0)
    with torch.no_grad():
        judge.output.weight.fill_(1.0)
    before = judge.penalty().item()
    fit(judge, falling_and_rising(8, 0), steps=5, optimizer=judge.make_optimizer(1e-2))
    assert judge.penalty().item() < before


def test_a_fit_is_repeatable_and_leaves_modes_and_the_global_rng_alone() -> None:
    twins = [small_conv(dropout=0.5).eval() for _ in range(2)]
    twins[1].highway.train()
    rng = global_rng_state()
    for twin in twins:
        fit(twin, falling_and_rising(20, 0), steps=5, seed=7)
    assert global_rng_state() == rng
    assert [part.training for part in twins[1].modules()].count(True) == 1
    assert all(value.equal(twins[1].state_dict()[name]) for name, value in twins[0].state_dict().items())


def test_dropout_is_on_while_fitting() -> None:
    one, other = (fit(small_conv(dropout=dropout).eval(), falling_and_rising(8, 0)) for dropout in (0.0, 0.9))
    assert one["loss"] != other["loss"]


class Recording(TableDiscriminator):
    """Keeps the first token of every text that it was asked to judge."""

    def __init__(self) -> None:
        super().__init__([0.0] * V)
        self.seen: list[list[int]] = []

    def logits(self, tokens_BT: Tensor) -> Tensor:
        self.seen.append(tokens_BT[:, 0].tolist())
        return super().logits(tokens_BT)


def test_each_side_is_gone_through_in_random_orders_without_gaps() -> None:
    judge = Recording()
    sides = starting_with(0, 1, 2, 3), starting_with(4, 5, 6)
    fit(judge, sides, steps=12, batch_size=2, optimizer=sgd(judge, 0.1))
    assert [len(batch) for batch in judge.seen] == [4] * 12
    real = [token for batch in judge.seen for token in batch[:2]]
    fake = [token for batch in judge.seen for token in batch[2:]]
    real_epochs = [real[i : i + 4] for i in range(0, 24, 4)]
    fake_epochs = [fake[i : i + 3] for i in range(0, 24, 3)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in real_epochs)
    assert all(sorted(epoch) == [4, 5, 6] for epoch in fake_epochs)
    assert len({tuple(epoch) for epoch in real_epochs}) > 1


def test_fewer_texts_than_a_batch_are_repeated_to_fill_it() -> None:
    judge = Recording()
    fit(judge, (starting_with(0), starting_with(1, 2)), batch_size=4, optimizer=sgd(judge, 0.1))
    assert (judge.seen[0][:4], sorted(judge.seen[0][4:])) == ([0, 0, 0, 0], [1, 1, 2, 2])


def test_no_steps_change_nothing() -> None:
    judge = small_conv()
    before = copy.deepcopy(judge.state_dict())
    report = fit(judge, falling_and_rising(4, 0), steps=0)
    assert math.isnan(report["loss"])
    assert all(before[name].equal(value) for name, value in judge.state_dict().items())


def test_a_loss_that_is_not_finite_is_refused_before_the_step() -> None:
    judge = small_conv()
    with torch.no_grad():
        judge.bias.fill_(math.nan)
    before = judge.embedding.clone()
    assert_refused("loss", fit, judge, falling_and_rising(4, 0))
    assert judge.embedding.equal(before)


@pytest.mark.parametrize(("change", "sentence"), [
    ({"steps": -1}, "steps"), ({"batch_size": 0}, "batch_size"), ({"real_BT": random_texts(0)}, "text"),
    ({"fake_BT": random_texts(4, V, T + 1)}, "T"), ({"discriminator": object()}, "Module"),
    ({"discriminator": small_conv().requires_grad_(False)}, "weights"),
])  # fmt: skip
def test_wrong_arguments_of_a_fit_are_refused(change: dict[str, Any], sentence: str) -> None:
    judge = small_conv()
    arguments = {
        "discriminator": judge,
        "optimizer": judge.make_optimizer(),
        "real_BT": random_texts(4),
        "fake_BT": random_texts(4),
        "steps": 1,
        "generator": generator(),
        **change,
    }
    assert_refused(sentence, fit_discriminator, **arguments)


# -- Reports ----------------------------------------------------------------------------------------------------------
def test_judge_report_equals_values_computed_by_hand() -> None:
    # Probabilities of real: 3/4, 1/2, 1/4 for the tokens 0, 1, 2.
    judge = TableDiscriminator([math.log(3), 0.0, -math.log(3)])
    report = discriminator_report(judge, starting_with(0, 0, 1, 2), starting_with(0, 2))
    real = (2 * math.log(3 / 4) + math.log(1 / 2) + math.log(1 / 4)) / 4
    fake = (math.log(1 / 4) + math.log(3 / 4)) / 2
    assert report.value == pytest.approx(real + fake)
    assert report.loss == pytest.approx(-(real + fake) / 2)
    assert report.accuracy_real == 0.5  # a logit of 0 does not say "real"
    assert (report.accuracy_fake, report.accuracy) == (0.5, 0.5)
    # Real 0, 0, 1, 2 against fake 0 and 2, a tie half a win: (1/2 + 1) + (1/2 + 1) + (0 + 1) + (0 + 1/2) of 8.
    assert report.auc == pytest.approx(4.5 / 8)


def test_a_judge_that_knows_nothing_is_at_the_equilibrium() -> None:
    report = discriminator_report(TableDiscriminator([0.0]), starting_with(1, 2), starting_with(3))
    assert report.value == pytest.approx(EQUILIBRIUM_VALUE)
    assert report.loss == pytest.approx(math.log(2))
    assert (report.auc, report.accuracy) == (0.5, 0.5)


def test_sure_judges_have_finite_reports() -> None:
    report = discriminator_report(TableDiscriminator([200.0, -200.0]), starting_with(0), starting_with(1))
    sure = DiscriminatorReport(loss=0.0, accuracy=1.0, accuracy_real=1.0, accuracy_fake=1.0, auc=1.0, value=0.0)
    assert asdict(report) == pytest.approx(asdict(sure))
    wrong = discriminator_report(TableDiscriminator([-200.0, 200.0]), starting_with(0), starting_with(1))
    assert wrong.value == pytest.approx(-400.0)
    assert wrong.auc == 0.0


def test_report_as_dict_has_the_prefix() -> None:
    report = discriminator_report(TableDiscriminator([0.0]), starting_with(1), starting_with(3))
    assert list(report.as_dict("d_valid/")) == [
        f"d_valid/{name}" for name in ("loss", "accuracy", "accuracy_real", "accuracy_fake", "auc", "value")
    ]


def test_report_needs_both_sides() -> None:
    assert_refused("text", discriminator_report, TableDiscriminator([0.0]), starting_with(1), starting_with(1)[:0])
