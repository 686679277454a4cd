"""Credit: each cell is its own, of the right text and position, and equals what a plain loop or a hand finds."""

import itertools
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import PositionDiscriminator, StubPolicy, assert_refused
from textgan_env.discriminators import make_discriminator
from textgan_env.ops.reward_kinds import TRANSFORMS
from textgan_env.ops.sampling import Stream, keyed_uniform
from textgan_env.policies import LSTMPolicy, TablePolicy
from textgan_env.rewards import (
    ConstantCredit,
    DenseCredit,
    EntropyCredit,
    Estimate,
    Keys,
    KLCredit,
    RandomCredit,
    RolloutCredit,
    ShuffledCredit,
    TextCredit,
    Texts,
    complete,
    q_before,
    q_tokens,
    rank_rescaled,
)
from textgan_env.tasks import ToyTask

V, T, END = 3, 4, 1
PAD = V


def random_policy(vocab_size: int = V, max_length: int = T, seed: int = 0) -> TablePolicy:
    """A different distribution after every prefix."""
    prefixes = sum(vocab_size**length for length in range(max_length))
    logits_PV = torch.randn(prefixes, vocab_size, generator=torch.Generator().manual_seed(seed))
    return TablePolicy(vocab_size, max_length=max_length, logits_PV=logits_PV)


def finished(rows: list[list[int]], *, end_token: int | None = END, max_length: int = T, pad: int = PAD) -> Texts:
    """Finished texts with keys of their own, of seeds and episodes that do not follow each other."""
    lengths_B = torch.tensor([len(row) for row in rows])
    tokens_BT = torch.tensor([row + [pad] * (max_length - len(row)) for row in rows])
    counted_B = torch.arange(len(rows))
    keys = Keys(seed_B=counted_B * 7919 + 11, episode_B=counted_B * 13 + 5)
    return Texts(tokens_BT, lengths_B, torch.ones(len(rows), dtype=torch.bool), keys, end_token)


def permuted(texts: Texts, order_B: Tensor) -> Texts:
    tokens_BT, lengths_B, ended_B = (part[order_B] for part in (texts.tokens_BT, texts.lengths_B, texts.ended_B))
    return Texts(tokens_BT, lengths_B, ended_B, texts.keys[order_B], texts.end_token)


TEXTS = finished([[0, 2, 0, 2], [2, END], [2, 2, 2, END], [0, 0, END], [END], [0, 2, 0, 2]])


class ListedDiscriminator(nn.Module):
    """A logit of its own for each of the V**T texts."""

    def __init__(self, vocab_size: int, max_length: int, logits_S: Tensor) -> None:
        super().__init__()
        self.vocab_size, self.max_length, self.feature_size = vocab_size, max_length, 1
        self.logits_S = logits_S

    def features(self, tokens_BT: Tensor) -> Tensor:
        places_T = self.vocab_size ** torch.arange(self.max_length - 1, -1, -1)
        # Scoring fills its tiles up with empty texts: whatever those score.
        return self.logits_S[(tokens_BT % self.vocab_size * places_T).sum(1)][:, None]

    def logits(self, tokens_BT: Tensor) -> Tensor:
        return self.features(tokens_BT)[:, 0]


def written_by_hand(policy: TablePolicy, prefix: list[int], seed: int, episode: int, rollout: int) -> list[int]:
    """One completion, token by token: inversion of the distribution function, no tiles, no shared states."""
    tokens = list(prefix)
    while len(tokens) < T and tokens[-1] != END:
        state = policy.begin(1)
        logits_1V, state = policy.step(torch.tensor([policy.start_token]), state)
        for token in tokens:
            logits_1V, state = policy.step(torch.tensor([token]), state)
        uniform = keyed_uniform(
            torch.tensor(seed),
            torch.tensor(episode),
            prefix=len(prefix),
            rollout=rollout,
            position=len(tokens),
            stream=Stream.ROLLOUT,
        )
        edges = logits_1V[0].double().softmax(0).cumsum(0).tolist()
        tokens.append(next((token for token, edge in enumerate(edges) if uniform < edge), V - 1))
    return tokens + [PAD] * (T - len(tokens))


@torch.no_grad()
def credit_by_hand(texts: Texts, policy: TablePolicy, judge: PositionDiscriminator, rollouts: int) -> list[list[float]]:
    """Q of every cell by plain loops, R = the logit."""
    table = []
    for row, tokens in enumerate(texts.tokens_BT.tolist()):
        length, cells = int(texts.lengths_B[row]), [0.0] * T
        seed, episode = int(texts.keys.seed_B[row]), int(texts.keys.episode_B[row])
        for column in range(length):
            if column == length - 1:
                cells[column] = float(judge.logits(torch.tensor([tokens])))
                continue
            done = [written_by_hand(policy, tokens[: column + 1], seed, episode, number) for number in range(rollouts)]
            cells[column] = float(judge.logits(torch.tensor(done)).mean())
        table.append(cells)
    return table


# -- Monte-Carlo credit -----------------------------------------------------------------------------------------------
def test_every_cell_is_the_mean_reward_of_its_own_completions() -> None:
    policy, judge = random_policy(), PositionDiscriminator(V, T)
    credit_BT = RolloutCredit(policy, judge, "logit", rollouts=4).credit(TEXTS, TEXTS.mask_BT)
    assert credit_BT.dtype == torch.float32
    assert credit_BT.tolist() == credit_by_hand(TEXTS, policy, judge, rollouts=4)


def test_permuting_rows_permutes_credit() -> None:
    source = RolloutCredit(random_policy(), PositionDiscriminator(V, T), "logit", rollouts=3)
    order_B = torch.tensor([3, 0, 5, 4, 2, 1])
    moved = permuted(TEXTS, order_B)
    assert torch.equal(source.credit(moved, moved.mask_BT), source.credit(TEXTS, TEXTS.mask_BT)[order_B])


def test_equal_texts_of_other_keys_are_completed_in_other_ways() -> None:
    credit_BT = RolloutCredit(random_policy(), PositionDiscriminator(V, T), "logit", 5).credit(TEXTS, TEXTS.mask_BT)
    assert torch.equal(TEXTS.tokens_BT[0], TEXTS.tokens_BT[5])
    assert not torch.equal(credit_BT[0, :-1], credit_BT[5, :-1])
    assert credit_BT[0, -1] == credit_BT[5, -1]


@pytest.mark.parametrize("transform", [name for name in TRANSFORMS if name != "rank"])
def test_credit_of_the_last_token_is_the_reward_of_the_text_exactly(transform: str) -> None:
    judge = make_discriminator("pair", vocab_size=V, max_length=T, seed=3)
    rollout = RolloutCredit(random_policy(), judge, transform, rollouts=2).credit(TEXTS, TEXTS.mask_BT)
    whole = TextCredit(judge, transform).credit(TEXTS, TEXTS.mask_BT)
    rows_B, last_B = torch.arange(len(TEXTS.lengths_B)), TEXTS.lengths_B - 1
    assert torch.equal(rollout[rows_B, last_B], whole[rows_B, last_B])


def test_asking_for_some_cells_gives_those_cells_and_zero_elsewhere() -> None:
    source = RolloutCredit(random_policy(), PositionDiscriminator(V, T), "logit", rollouts=3)
    wanted_BT = TEXTS.mask_BT & (torch.rand(TEXTS.mask_BT.shape, generator=torch.Generator().manual_seed(1)) < 0.5)
    assert torch.equal(source.credit(TEXTS, wanted_BT), source.credit(TEXTS, TEXTS.mask_BT) * wanted_BT)


def test_an_unfinished_text_is_credited_as_far_as_it_goes() -> None:
    source = RolloutCredit(random_policy(), PositionDiscriminator(V, T), "logit", rollouts=3)
    whole = finished([[0, 2, 0, 2]])
    begun = Texts(torch.tensor([[0, 2, PAD, PAD]]), torch.tensor([2]), torch.tensor([False]), whole.keys, END)
    assert torch.equal(source.credit(begun, begun.mask_BT)[0, :2], source.credit(whole, whole.mask_BT)[0, :2])


def test_credit_after_the_end_is_zero() -> None:
    for source in (
        RolloutCredit(random_policy(), PositionDiscriminator(V, T), "logit", 2),
        TextCredit(PositionDiscriminator(V, T), "logit"),
        KLCredit(random_policy(), random_policy(seed=1), 0.5),
        ConstantCredit(),
        RandomCredit(),
        ShuffledCredit(TextCredit(PositionDiscriminator(V, T), "logit")),
    ):
        assert (source.credit(TEXTS, TEXTS.mask_BT)[~TEXTS.mask_BT] == 0).all(), source


@pytest.mark.parametrize("gamma", [1.0, 0.6])
def test_monte_carlo_agrees_with_listing_all_texts(gamma: float) -> None:
    task = ToyTask(vocab_size=4, max_length=4, seed=2)
    policy = random_policy(4, 4, seed=5)
    logits_S = torch.randn(4**4, generator=torch.Generator().manual_seed(6))
    reward_S = logits_S.sigmoid()
    mean, mean_of_squares = task.exact_q(policy, reward_S, gamma), task.exact_q(policy, reward_S**2, gamma**2)
    texts = finished([[0, 1, 2, 3], [3, 3, 3, 3], [2, 0, 1, 0], [1, 1, 0, 2]], end_token=None, pad=4)
    rollouts = 1000
    judge = ListedDiscriminator(4, 4, logits_S)
    credit_BT = RolloutCredit(policy, judge, "prob", rollouts, gamma).credit(texts, texts.mask_BT)
    for row, column in itertools.product(range(4), range(4)):
        tokens = texts.tokens_BT[row].tolist()
        prefix = sum(token * 4**place for place, token in enumerate(reversed(tokens[:column])))
        exact = mean[column][prefix, tokens[column]]
        variance = (mean_of_squares[column][prefix, tokens[column]] - exact**2).clamp(min=0)
        error = abs(float(credit_BT[row, column] - exact))
        assert error <= 4 * math.sqrt(variance / rollouts) + 1e-6, (row, column)


def test_each_completion_is_discounted_by_its_own_length() -> None:
    """After one token the stub ends with probability 1/2, after two all the more: R = 1 counts gamma^k, k tokens on."""
    policy = StubPolicy([0.0, 0.0], start_token=2)  # token 1 ends the text
    judge = ListedDiscriminator(2, 3, torch.full((8,), 1.0))
    texts = finished([[0, 0, 0]], max_length=3, pad=2)
    credit_BT = RolloutCredit(policy, judge, "logit", 4000, gamma=0.5).credit(texts, texts.mask_BT)
    # Prefix (0): ends after 1 more token with probability 1/2, else after 2: 1/2 * 1/2 + 1/2 * 1/4.
    assert credit_BT[0].tolist() == pytest.approx([0.375, 0.5, 1.0], abs=0.01)


@pytest.mark.parametrize("gamma", [-0.1, 1.1, math.nan])
def test_a_discount_outside_its_range_is_refused(gamma: float) -> None:
    judge, policy = PositionDiscriminator(V, T), random_policy()
    for make in (
        lambda: RolloutCredit(policy, judge, gamma=gamma),
        lambda: TextCredit(judge, gamma=gamma),
        lambda: KLCredit(policy, policy, 1.0, gamma),
        lambda: EntropyCredit(policy, 1.0, gamma),
    ):
        assert_refused("gamma", make)


def test_exact_q_is_what_trying_every_text_finds() -> None:
    task = ToyTask(vocab_size=3, max_length=3, size=1)
    policy = random_policy(3, 3)
    reward_S = torch.rand(27, generator=torch.Generator().manual_seed(0))
    reward = dict(zip(itertools.product(range(3), repeat=3), reward_S.tolist(), strict=True))

    def next_token(prefix: tuple[int, ...]) -> list[float]:
        state = policy.begin(1)
        logits_1V, state = policy.step(torch.tensor([policy.start_token]), state)
        for token in prefix:
            logits_1V, state = policy.step(torch.tensor([token]), state)
        return logits_1V[0].double().softmax(0).tolist()

    def value(prefix: tuple[int, ...]) -> float:
        if len(prefix) == 3:
            return float(reward[prefix])
        return math.fsum(p * value((*prefix, token)) for token, p in enumerate(next_token(prefix)))

    with torch.no_grad():
        found = task.exact_q(policy, reward_S)
        for length, q_pV in enumerate(found):
            expected = [
                [value((*prefix, token)) for token in range(3)] for prefix in itertools.product(range(3), repeat=length)
            ]
            torch.testing.assert_close(q_pV, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


# -- Q at every k-th token --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ExactCredit(RolloutCredit):
    """Q by listing all texts in place of completions; keeps what was asked."""

    exact: Sequence[Tensor] = ()
    asked: list[Tensor] = field(default_factory=list)

    def estimate(self, texts: Texts, wanted_BT: Tensor) -> Estimate:
        self.asked.append(wanted_BT)
        q_BT = torch.zeros(wanted_BT.shape)
        for row, column in wanted_BT.nonzero().tolist():
            tokens = texts.tokens_BT[row].tolist()
            prefix = sum(token * V**place for place, token in enumerate(tokens[:column][::-1]))
            q_BT[row, column] = self.exact[column][prefix, tokens[column]]
        return Estimate(
            q_BT, complete(self.policy, texts.tokens_BT, torch.zeros_like(wanted_BT), keys=texts.keys), q_BT
        )


#: All texts, and a reward for each.
TASK = ToyTask(vocab_size=V, max_length=T, seed=2)
REWARD_S = torch.rand(V**T, generator=torch.Generator().manual_seed(4))


def exact_credit(policy: TablePolicy, interval: int) -> ExactCredit:
    return ExactCredit(policy, PositionDiscriminator(V, T), interval=interval, exact=TASK.exact_q(policy, REWARD_S))


@pytest.mark.parametrize(("interval", "gamma"), [(2, 1.0), (2, 0.5), (3, 0.9), (9, 1.0)])
def test_between_two_q_a_token_is_given_the_next_one_discounted(interval: int, gamma: float) -> None:
    policy, judge = random_policy(), PositionDiscriminator(V, T)
    each_BT = RolloutCredit(policy, judge, "logit", 3, gamma).credit(TEXTS, TEXTS.mask_BT)
    found_BT = RolloutCredit(policy, judge, "logit", 3, gamma, interval).credit(TEXTS, TEXTS.mask_BT)
    for row, length in enumerate(TEXTS.lengths_B.tolist()):
        for column in range(length):
            after = next(at for at in range(column, T) if (at + 1) % interval == 0 or at == length - 1)
            assert float(found_BT[row, column]) == pytest.approx(gamma ** (after - column) * float(each_BT[row, after]))
    assert (found_BT[~TEXTS.mask_BT] == 0).all()


def test_only_every_kth_prefix_is_completed_and_only_where_it_is_needed() -> None:
    source = exact_credit(random_policy(), 2)
    source.credit(TEXTS, TEXTS.mask_BT)
    expected = [[0, 1, 0, 1], [0, 1, 0, 0], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 0], [0, 1, 0, 1]]
    assert source.asked[0].int().tolist() == expected
    wanted_BT = torch.zeros_like(TEXTS.mask_BT)
    wanted_BT[0, 2] = True  # is given the Q of the token behind it
    source.credit(TEXTS, wanted_BT)
    assert source.asked[1].nonzero().tolist() == [[0, 3]]


@pytest.mark.parametrize("interval", [1, 2, 3, 4])
@pytest.mark.parametrize("with_baseline", [False, True])
def test_by_listing_all_texts_the_gradient_has_no_bias_at_any_interval(interval: int, with_baseline: bool) -> None:
    policy = random_policy()
    texts = finished(TASK.texts_ST.tolist(), end_token=None)
    credit_ST = exact_credit(policy, interval).credit(texts, texts.mask_BT)
    if with_baseline:
        credit_ST = credit_ST - q_before(credit_ST, q_tokens(texts, interval), torch.full_like(credit_ST, 0.4))
    logp_ST = policy.log_prob(texts.tokens_BT, texts.mask_BT)
    chance_S = logp_ST.sum(1).exp()
    exact = torch.autograd.grad((chance_S * REWARD_S).sum(), policy.logits_PV, retain_graph=True)[0]
    found = torch.autograd.grad((chance_S.detach()[:, None] * credit_ST * logp_ST).sum(), policy.logits_PV)[0]
    torch.testing.assert_close(found, exact, atol=1e-6, rtol=1e-4)
    assert float(exact.abs().max()) > 1e-2


def test_interpolating_between_two_q_would_make_the_first_tokens_count_less() -> None:
    """By listing all texts: a share w of the next Q and 1 - w of the one before leave w of the gradient."""
    policy = random_policy()
    texts = finished(TASK.texts_ST.tolist(), end_token=None)
    next_ST = exact_credit(policy, 2).credit(texts, texts.mask_BT)
    before_ST = q_before(next_ST, q_tokens(texts, 2), torch.zeros_like(next_ST))
    logp_ST = policy.log_prob(texts.tokens_BT, texts.mask_BT)
    chance_S = logp_ST.sum(1).exp().detach()

    def at_third_token(credit_ST: Tensor) -> Tensor:
        chosen = (chance_S * credit_ST[:, 2] * logp_ST[:, 2]).sum()
        return torch.autograd.grad(chosen, policy.logits_PV, retain_graph=True)[0]

    assert float(at_third_token(next_ST).abs().max()) > 1e-2
    torch.testing.assert_close(at_third_token(0.5 * next_ST + 0.5 * before_ST), 0.5 * at_third_token(next_ST))


def test_rank_compares_what_tokens_are_given() -> None:
    policy, judge = random_policy(), PositionDiscriminator(V, T)
    given_BT = RolloutCredit(policy, judge, "prob", 3, interval=3).credit(TEXTS, TEXTS.mask_BT)
    ranked_BT = RolloutCredit(policy, judge, "rank", 3, interval=3).credit(TEXTS, TEXTS.mask_BT)
    assert torch.equal(ranked_BT, rank_rescaled(given_BT, TEXTS.mask_BT))


def test_the_newest_tokens_of_an_unfinished_text_wait_for_the_next_q() -> None:
    source = RolloutCredit(random_policy(), PositionDiscriminator(V, T), "logit", rollouts=3, interval=2)
    keys = Keys(torch.tensor([3]), torch.tensor([4]))
    begun = Texts(torch.tensor([[0, 2, 0, PAD]]), torch.tensor([3]), torch.tensor([False]), keys, END)
    assert_refused("have no Q yet", source.credit, begun, begun.mask_BT)
    known_BT = torch.tensor([[True, True, False, False]])
    credit = source.credit(begun, known_BT)[0].tolist()
    assert credit[0] == credit[1] != 0
    assert credit[2:] == [0, 0]


def test_the_q_before_a_token_by_hand() -> None:
    q_BT = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    known_BT = torch.tensor([[False, True, False, True], [True, True, False, False]])
    found = q_before(q_BT, known_BT, torch.full_like(q_BT, -1.0))
    assert found.tolist() == [[-1, -1, 2, 2], [-1, 5, 6, 6]]


# -- Transforms -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("transform", "at_three_quarters", "at_one_half"), [
    ("prob", 0.75, 0.5), ("logit", math.log(3), 0.0), ("log", math.log(0.75), math.log(0.5)),
    ("minimax", -math.log(0.25), math.log(2)), ("2p-1", 0.5, 0.0), ("rank", 0.75, 0.5),
])  # fmt: skip
def test_transforms_by_hand(transform: str, at_three_quarters: float, at_one_half: float) -> None:
    # A text that is three times as likely real as written has the logit log 3.
    values = TRANSFORMS[transform](torch.tensor([math.log(3), 0.0], dtype=torch.float64))
    assert values.tolist() == pytest.approx([at_three_quarters, at_one_half], abs=1e-12)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_grow_with_the_logit_and_stay_finite(transform: str) -> None:
    values = TRANSFORMS[transform](torch.tensor([-200.0, -5.0, 0.0, 5.0, 200.0]))
    assert torch.isfinite(values).all()
    assert (values.diff() > 0).all()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_limits_of_a_transform_are_where_it_ends(transform: str) -> None:
    lowest, highest = TRANSFORMS[transform](torch.tensor([-200.0, 200.0])).tolist()
    limits = TRANSFORMS[transform].limits
    assert (lowest, highest) == pytest.approx(limits) if limits else max(abs(lowest), abs(highest)) == 200


@pytest.mark.parametrize(("transform", "logit", "value"), [("log", -200.0, -200.0), ("minimax", 200.0, 200.0)])
def test_transforms_do_not_round_through_the_probability(transform: str, logit: float, value: float) -> None:
    assert float(TRANSFORMS[transform](torch.tensor(logit))) == value


def test_the_names_of_transforms_are_known_without_torch() -> None:
    program = """
import sys, typing
from textgan_env.ops.reward_kinds import TRANSFORMS, TransformName
assert typing.get_args(TransformName) == tuple(TRANSFORMS)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "False"


def test_the_transform_is_taken_before_the_mean() -> None:
    # Two texts of one token more: logits 0 and log 3, equally likely.
    judge = ListedDiscriminator(2, 2, torch.tensor([0.0, math.log(3), 0.0, math.log(3)]))
    texts = finished([[0, 0]], end_token=None, max_length=2, pad=2)
    rollouts = 64
    policy = StubPolicy([0.0, 0.0])
    logits = RolloutCredit(policy, judge, "logit", rollouts).credit(texts, texts.mask_BT)[0, 0]
    share = float(logits) / math.log(3)  # of completions that end with 1
    assert 0 < share < 1
    credit = RolloutCredit(policy, judge, "prob", rollouts).credit(texts, texts.mask_BT)[0, 0]
    assert float(credit) == pytest.approx(share * 0.75 + (1 - share) * 0.5, abs=1e-6)


def test_an_unknown_transform_is_refused_with_the_known_ones() -> None:
    judge = PositionDiscriminator(V, T)
    for make in (lambda: TextCredit(judge, "square"), lambda: RolloutCredit(random_policy(), judge, "square")):
        assert_refused("reward transform", make)


def test_the_completions_behind_q_have_it_as_their_mean() -> None:
    gamma, rollouts = 0.9, 3
    source = RolloutCredit(random_policy(), PositionDiscriminator(V, T), "logit", rollouts, gamma)
    found = source.estimate(TEXTS, TEXTS.mask_BT)
    done = found.completions
    for row, column in (TEXTS.mask_BT & ~TEXTS.last_BT).nonzero().tolist():
        behind = [
            float(reward) * gamma ** int(length - column - 1)
            for reward, length, of, prefix in zip(
                found.reward_R, done.lengths_R, done.row_R, done.prefix_R, strict=True
            )
            if (int(of), int(prefix)) == (row, column + 1)
        ]
        assert len(behind) == rollouts
        assert float(found.q_BT[row, column]) == pytest.approx(sum(behind) / rollouts, rel=1e-5)
    assert torch.equal(found.q_BT, source.credit(TEXTS, TEXTS.mask_BT))


# -- Rank rescaling ---------------------------------------------------------------------------------------------------
def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_rank_rescaling_by_hand() -> None:
    credit_BT = torch.tensor([[0.9, 0.1], [0.2, 0.3], [0.5, 0.2], [0.1, 0.4]])
    ranks = [[1, 4], [3, 2], [2, 3], [4, 1]]
    found = rank_rescaled(credit_BT, torch.ones(4, 2, dtype=torch.bool), delta=16)
    # (rank - 1/2) / n is 1/8, 3/8, 5/8, 7/8.
    expected = [[sigmoid(16 * (0.5 - (2 * rank - 1) / 8)) for rank in row] for row in ranks]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_ties_share_the_mean_of_the_values_at_their_ranks() -> None:
    credit_B1 = torch.tensor([[0.5], [0.7], [0.5], [0.1]])
    found = rank_rescaled(credit_B1, torch.ones(4, 1, dtype=torch.bool))[:, 0].tolist()
    assert found == pytest.approx([0.5, sigmoid(6), 0.5, sigmoid(-6)], abs=1e-6)  # sigmoid(2) and sigmoid(-2) share
    low = rank_rescaled(torch.tensor([[0.1], [0.7], [0.1]]), torch.ones(3, 1, dtype=torch.bool))[:, 0].tolist()
    shared = (0.5 + sigmoid(-16 / 3)) / 2
    assert low == pytest.approx([shared, sigmoid(16 / 3), shared], abs=1e-6)


@pytest.mark.parametrize("texts", [1, 2, 3, 4, 16, 64])
def test_the_mean_rank_is_one_half_however_many_texts_get_there(texts: int) -> None:
    mask_B1 = (torch.arange(64) < texts)[:, None]
    random_B1 = torch.rand(64, 1, generator=torch.Generator().manual_seed(0))
    for credit_B1 in (random_B1, (random_B1 * 3).round(), torch.ones(64, 1)):  # no ties, some, nothing else
        assert float(rank_rescaled(credit_B1, mask_B1).sum()) / texts == pytest.approx(0.5, abs=1e-6)


def test_ended_texts_have_no_rank() -> None:
    credit_BT = torch.tensor([[0.9, 0.0], [0.2, -3.0], [0.5, -2.0]])
    mask_BT = torch.tensor([[True, False], [True, True], [True, True]])
    found = rank_rescaled(credit_BT, mask_BT)
    expected = [0.0, sigmoid(-4), sigmoid(4)]
    assert found[:, 1].tolist() == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=9))
def test_rank_rescaling_keeps_the_order_and_knows_nothing_else(values: list[float]) -> None:
    credit_B1 = torch.tensor(values)[:, None]
    mask_B1 = torch.ones_like(credit_B1, dtype=torch.bool)
    found = rank_rescaled(credit_B1, mask_B1)
    assert ((found >= found.T) | ~(credit_B1 > credit_B1.T)).all()
    assert torch.equal(found, rank_rescaled(credit_B1.double() ** 3, mask_B1))


def test_rank_credit_is_the_rank_of_the_probabilities() -> None:
    policy, judge = random_policy(), make_discriminator("pair", vocab_size=V, max_length=T, seed=1)
    prob = RolloutCredit(policy, judge, "prob", 3).credit(TEXTS, TEXTS.mask_BT)
    rank = RolloutCredit(policy, judge, "rank", 3).credit(TEXTS, TEXTS.mask_BT)
    assert torch.equal(rank, rank_rescaled(prob, TEXTS.mask_BT))


def test_one_row_has_no_rank() -> None:
    assert_refused("rank transform", rank_rescaled, torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool))


# -- Whole texts, KL --------------------------------------------------------------------------------------------------
def test_text_credit_is_the_reward_at_every_token() -> None:
    judge = PositionDiscriminator(V, T)
    expected = judge.logits(TEXTS.tokens_BT)[:, None] * TEXTS.mask_BT
    assert TextCredit(judge, "logit").credit(TEXTS, TEXTS.mask_BT).tolist() == expected.tolist()


def test_a_discounted_reward_counts_less_the_more_tokens_follow() -> None:
    texts = finished([[0, 2, 0, 2], [2, END]])
    credit_BT = TextCredit(ListedDiscriminator(V, T, torch.ones(V**T)), "logit", 0.5).credit(texts, texts.mask_BT)
    assert credit_BT.tolist() == [[0.125, 0.25, 0.5, 1.0], [0.5, 1.0, 0.0, 0.0]]


def test_an_unfinished_text_has_no_reward_yet() -> None:
    begun = Texts(TEXTS.tokens_BT, TEXTS.lengths_B, ~TEXTS.ended_B, TEXTS.keys, END)
    kl = KLCredit(random_policy(), random_policy(seed=1), 1.0)
    for source in (TextCredit(PositionDiscriminator(V, T)), kl, EntropyCredit(random_policy(), 1.0)):
        assert_refused("before the text has ended", source.credit, begun, begun.mask_BT)


def test_kl_to_go_by_hand() -> None:
    policy, reference = StubPolicy([0.0, math.log(2), 0.0]), StubPolicy([0.0, 0.0, math.log(2)])
    texts = finished([[0, 2, 0, 2], [2, END]])
    # Token 0 has probability 1/4 under both; token 1 (END) 1/2 against 1/4; token 2 1/4 against 1/2.
    two = math.log(2)
    expected = [[0.5 * 2 * two, 0.5 * 2 * two, 0.5 * two, 0.5 * two], [0.0, -0.5 * two, 0.0, 0.0]]
    found = KLCredit(policy, reference, weight=0.5).credit(texts, texts.mask_BT)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_discounted_kl_and_entropy_to_go_by_hand() -> None:
    policy, reference = StubPolicy([0.0, math.log(2), 0.0]), StubPolicy([0.0, 0.0, math.log(2)])
    texts, two = finished([[0, 2, 0, 2], [2, END]]), math.log(2)
    found = KLCredit(policy, reference, 1.0, gamma=0.5).credit(texts, texts.mask_BT)
    # Tokens 2 pay log 2, tokens 0 nothing, END minus log 2.
    expected = [[0.5 * two + 0.125 * two, two + 0.25 * two, 0.5 * two, two], [0.5 * two, -two, 0.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)
    entropy = EntropyCredit(policy, 2.0, gamma=0.5).credit(texts, texts.mask_BT)
    # Each token pays twice its -log G: 4 log 2 for tokens 0 and 2, 2 log 2 for END.
    expected = [[7.5 * two, 7 * two, 6 * two, 4 * two], [5 * two, 2 * two, 0.0, 0.0]]
    torch.testing.assert_close(entropy, torch.tensor(expected), atol=1e-6, rtol=0)


def test_kl_to_itself_is_zero_and_carries_no_gradient() -> None:
    policy = LSTMPolicy(V, start_token=V, embed_size=4, hidden_size=4)
    credit_BT = KLCredit(policy, policy, 1.0).credit(TEXTS, TEXTS.mask_BT)
    assert (credit_BT == 0).all()
    assert not credit_BT.requires_grad
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_kl_refuses_a_reference_at_another_temperature() -> None:
    policy, reference = (LSTMPolicy(V, start_token=V, embed_size=4, hidden_size=4, seed=seed) for seed in (0, 1))
    said = assert_refused("one temperature", KLCredit, policy.at_temperature(1.5), reference, 1.0)
    assert "[1.5, 1.0]" in said
    KLCredit(policy.at_temperature(1.5), reference.at_temperature(1.5), 1.0)
    KLCredit(
        policy.at_temperature(1.5), StubPolicy([0.0] * V), 1.0
    )  # what has no temperature of ours is taken as it is


def test_kl_refuses_a_negative_weight_and_another_vocabulary() -> None:
    assert_refused("weight", KLCredit, random_policy(), random_policy(), -1)
    assert_refused("one vocabulary", KLCredit, random_policy(), random_policy(2), 1)


# -- Controls ---------------------------------------------------------------------------------------------------------
def test_the_constant_control_pays_one_a_token() -> None:
    assert torch.equal(ConstantCredit().credit(TEXTS, TEXTS.mask_BT), TEXTS.mask_BT.float())


def test_the_random_control_is_uniform_and_belongs_to_seed_episode_and_position() -> None:
    texts = finished([[0] * T] * 1000)
    credit_BT = RandomCredit().credit(texts, texts.mask_BT)
    assert (credit_BT >= 0).all()
    assert (credit_BT < 1).all()
    assert len(credit_BT.unique()) > 3990
    assert float(credit_BT.mean()) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / credit_BT.numel()))
    order_B = torch.arange(1000).flip(0)
    moved = permuted(texts, order_B)
    assert torch.equal(RandomCredit().credit(moved, moved.mask_BT), credit_BT[order_B])


def test_the_shuffled_control_is_one_permutation_of_whole_rows() -> None:
    source = RolloutCredit(random_policy(), PositionDiscriminator(V, T), "logit", 2)
    texts = finished(
        [list(tokens) for tokens in itertools.islice(itertools.product((0, 2), repeat=T), 8)], end_token=None
    )
    plain, shuffled = source.credit(texts, texts.mask_BT), ShuffledCredit(source).credit(texts, texts.mask_BT)
    assert not torch.equal(plain, shuffled)
    assert sorted(plain.tolist()) == sorted(shuffled.tolist())
    assert torch.equal(ShuffledCredit(source).credit(texts, texts.mask_BT), shuffled)


def test_a_longer_text_keeps_the_last_credit_of_the_shorter_one_it_is_given() -> None:
    """Otherwise the control would punish length."""
    source = TextCredit(PositionDiscriminator(V, T), "logit")
    plain, shuffled = source.credit(TEXTS, TEXTS.mask_BT), ShuffledCredit(source).credit(TEXTS, TEXTS.mask_BT)
    rows_B, last_B = torch.arange(len(plain)), TEXTS.lengths_B - 1
    assert sorted(shuffled[rows_B, last_B].tolist()) == sorted(plain[rows_B, last_B].tolist())
    assert (shuffled.gather(1, last_B[:, None]) == shuffled)[TEXTS.mask_BT].all()
    assert (shuffled[~TEXTS.mask_BT] == 0).all()


def test_the_last_wanted_credit_of_a_shorter_text_goes_on_to_the_end_of_a_longer_one() -> None:
    """Wanted at positions 1 and 3: 10 times the row, plus the position. The permutation of these keys is 3 1 2 4 0.

    Nothing is wanted of row 2, so it gives nothing: the rows are given those of 3 1 4 0 3.
    """

    class Counted:
        def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
            return (10.0 * torch.arange(5)[:, None] + torch.arange(T)) * wanted_BT

    texts = finished([[0] * length for length in (4, 2, 1, 3, 4)])
    wanted_BT = texts.mask_BT & torch.tensor([False, True, False, True])
    shuffled = ShuffledCredit(Counted()).credit(texts, wanted_BT)
    expected = [[0, 31, 0, 31], [0, 11, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 31, 0, 31]]
    assert shuffled.tolist() == expected
    nothing_BT = torch.zeros_like(wanted_BT)
    assert not ShuffledCredit(Counted()).credit(texts, nothing_BT).any()


def test_the_shuffled_control_needs_two_rows() -> None:
    texts = finished([[0, 2, 0, 2]])
    assert_refused("shuffled control", ShuffledCredit(ConstantCredit()).credit, texts, texts.mask_BT)


# -- Nothing is moved -------------------------------------------------------------------------------------------------
def test_scoring_twice_gives_equal_numbers_and_moves_neither_weights_nor_modes() -> None:
    policy = LSTMPolicy(V, start_token=V, embed_size=4, hidden_size=4, dropout=0.5).train()
    policy.projection.eval()
    judge = make_discriminator("conv", vocab_size=V, max_length=T, widths=(1, 2), filters=(3, 3)).train()
    modules = [*policy.modules(), *judge.modules()]
    modes = [module.training for module in modules]
    weights = [tensor.clone() for tensor in (*policy.state_dict().values(), *judge.state_dict().values())]
    sources = (RolloutCredit(policy, judge, "logit", 2), TextCredit(judge), KLCredit(policy, random_policy(), 1.0))
    for source in sources:
        first, second = (source.credit(TEXTS, TEXTS.mask_BT) for _ in range(2))
        assert torch.equal(first, second), source
        assert not first.requires_grad
    assert [module.training for module in modules] == modes
    after = (*policy.state_dict().values(), *judge.state_dict().values())
    assert all(torch.equal(old, new) for old, new in zip(weights, after, strict=True))
    assert all(parameter.grad is None for parameter in (*policy.parameters(), *judge.parameters()))


@pytest.mark.parametrize("rollouts", [0, -1])
def test_rollouts_below_one_are_refused(rollouts: int) -> None:
    assert_refused("rollouts", RolloutCredit, random_policy(), PositionDiscriminator(V, T), rollouts=rollouts)


def test_policy_and_discriminator_must_speak_of_one_vocabulary() -> None:
    assert_refused("rollout policy", RolloutCredit, random_policy(2), PositionDiscriminator(V, T))


# -- Dense ------------------------------------------------------------------------------------------------------------
class PrefixTable:
    """The logit of a prefix is a number of its row and length, so that every cell tells which one it is."""

    vocab_size, max_length, feature_size = V, T, 1

    def token_logits(self, tokens_BT: Tensor) -> Tensor:
        return (tokens_BT[:, :1] + 1.0) * torch.arange(1.0, T + 1) * (tokens_BT != PAD)


@pytest.mark.parametrize("gamma", [0.0, 0.23, 1.0])
def test_dense_credit_is_the_discounted_sum_of_what_this_and_later_tokens_are_paid(gamma: float) -> None:
    credit_BT = DenseCredit(PrefixTable(), "2p-1", gamma).credit(TEXTS, TEXTS.mask_BT)  # type: ignore[arg-type]
    for row, length in enumerate(TEXTS.lengths_B.tolist()):
        first = int(TEXTS.tokens_BT[row, 0]) + 1
        paid = [math.tanh(first * seen / 2) for seen in range(1, length + 1)]
        expected = [sum(gamma ** (s - t) * paid[s] for s in range(t, length)) for t in range(length)]
        assert credit_BT[row].tolist() == pytest.approx(expected + [0.0] * (T - length))
