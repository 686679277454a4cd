"""Completions against a plain reference: one row, one prefix, one rollout at a time, each token from a fresh start."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import StubPolicy, assert_refused
from textgan_env.ops.sampling import Stream, derived_generator, keyed_uniform
from textgan_env.policies import (
    Decoding,
    LSTMPolicy,
    NGramPolicy,
    Policy,
    PolicyModule,
    State,
    TablePolicy,
    TransformerPolicy,
    UniformPolicy,
)
from textgan_env.rewards import Completions, Keys, complete, generate, generate_scored, rollouts
from textgan_env.rewards.rollouts import TILE

B, N, T, V = 5, 3, 6, 7
PAD = V
END = 2


class NestedPolicy(PolicyModule):
    """Its state has every nesting and two dtypes, and every part of it matters for what comes next."""

    kind = "nested"

    def __init__(self) -> None:
        super().__init__(V, PAD)
        self.weight_TV = torch.randn(2 * T, V, generator=derived_generator(5), dtype=torch.float64).float()

    def begin(self, batch_size: int) -> State:
        return {"read": torch.zeros(batch_size, dtype=torch.int64), "sums": [(torch.zeros(batch_size, V, 2),), ()]}

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        (sums_BV2,), _ = state["sums"]
        sums_BV2 = 0.7 * sums_BV2
        sums_BV2[torch.arange(len(tokens_B)), tokens_B % V, state["read"] % 2] += 1.0
        logits_BV = self.weight_TV[state["read"]] + sums_BV2[..., 0] - 2 * sums_BV2[..., 1]
        return logits_BV, {"read": state["read"] + 1, "sums": [(sums_BV2,), ()]}


def lstm() -> LSTMPolicy:
    return LSTMPolicy(V, start_token=PAD, num_layers=2, init_scale=0.8, dropout=0.5, forbidden=[3], seed=1)


def trigram() -> NGramPolicy:
    tokens_BT = torch.randint(V, (40, T), generator=derived_generator(2))
    return NGramPolicy.fit(tokens_BT, tokens_BT >= 0, vocab_size=V, start_token=0)


def nucleus() -> PolicyModule:
    return lstm().with_decoding(Decoding(temperature=1.5, top_k=6, top_p=0.9))


def transformer() -> TransformerPolicy:
    policy = TransformerPolicy(V, start_token=PAD, max_length=T, hidden_size=8, dropout=0.5, forbidden=[3], seed=1)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=derived_generator(parameter.numel()))
    return policy


MAKERS: list[Callable[[], Policy]] = [lstm, transformer, trigram, nucleus, NestedPolicy]
each_policy = pytest.mark.parametrize("make", MAKERS)


def given_texts() -> Tensor:
    return torch.randint(V, (B, T), generator=derived_generator(0))


def keys() -> Keys:
    return Keys(torch.tensor([4, 4, 9, -1, 2**40]), torch.tensor([0, 1, 0, 2**33, 7]))


ALL_BT = torch.ones(B, T, dtype=torch.bool)
SOME_BT = torch.rand(B, T, generator=derived_generator(1)) < 0.4


def plain_completion(
    policy: Policy, given: list[int], key: dict[str, int], *, stream: Stream, end_token: int | None
) -> list[int]:
    """Read the given tokens, then draw one token after the other from the distribution function in float64."""
    state, text, last = policy.begin(1), list(given), policy.start_token
    for token in given:
        _, state = policy.step(torch.tensor([last]), state)
        last = token
    while len(text) < T and (not text[len(given) :] or text[-1] != end_token):
        logits_1V, state = policy.step(torch.tensor([last]), state)
        logits_V = logits_1V[0].double().numpy()
        edges_V = np.cumsum(np.exp(logits_V - logits_V.max()))
        uniform = keyed_uniform(
            torch.tensor(key["seed"]),
            torch.tensor(key["episode"]),
            prefix=len(given),
            rollout=key["rollout"],
            position=len(text),
            stream=stream,
        ).item()
        last = int(np.searchsorted(edges_V, uniform * edges_V[-1], side="right"))
        text.append(last)
    return text


def plain_completions(
    policy: PolicyModule,
    tokens_BT: Tensor,
    wanted_BT: Tensor,
    keys_B: Keys,
    rollouts: int,
    end_token: int | None = None,
) -> list[tuple[int, int, int, list[int]]]:
    """(prefix, row, rollout, text) in this order."""
    policy.eval()
    found = []
    for prefix, row, rollout in product(range(T), range(len(tokens_BT)), range(rollouts)):
        if wanted_BT[row, prefix]:
            key = {"seed": int(keys_B.seed_B[row]), "episode": int(keys_B.episode_B[row]), "rollout": rollout}
            given = tokens_BT[row, :prefix].tolist()
            with torch.no_grad():
                text = plain_completion(policy, given, key, stream=Stream.ROLLOUT, end_token=end_token)
            found.append((prefix, row, rollout, text))
    return found


def as_list(texts: Completions) -> list[tuple[int, int, int, list[int]]]:
    """The same from `Completions`; checks that there is PAD, and only PAD, after the end."""
    found = []
    for tokens, length, prefix, row, rollout in zip(
        texts.tokens_RT.tolist(),
        texts.lengths_R.tolist(),
        texts.prefix_R.tolist(),
        texts.row_R.tolist(),
        texts.rollout_R.tolist(),
        strict=True,
    ):
        assert tokens[length:] == [PAD] * (T - length)
        assert PAD not in tokens[:length]
        found.append((prefix, row, rollout, tokens[:length]))
    return found


def by_key(texts: Completions) -> dict[tuple[int, int, int], list[int]]:
    return {(prefix, row, rollout): text for prefix, row, rollout, text in as_list(texts)}


@each_policy
@pytest.mark.parametrize("end_token", [None, END])
@pytest.mark.parametrize("wanted_BT", [ALL_BT, SOME_BT], ids=["all prefixes", "some prefixes"])
def test_one_pass_draws_what_single_passes_draw(
    make: Callable[[], PolicyModule], end_token: int | None, wanted_BT: Tensor
) -> None:
    policy = make()
    texts = complete(policy, given_texts(), wanted_BT, keys=keys(), rollouts=N, end_token=end_token)
    assert as_list(texts) == plain_completions(policy, given_texts(), wanted_BT, keys(), N, end_token)


@each_policy
@pytest.mark.parametrize("end_token", [None, END])
def test_tiles_of_any_size_draw_the_same(make: Callable[[], PolicyModule], end_token: int | None) -> None:
    policy = make()
    whole = complete(policy, given_texts(), ALL_BT, keys=keys(), rollouts=N, end_token=end_token)
    assert 33 < len(whole.row_R) < TILE.cpu
    for tile in (1, 7, 33):
        tiled = complete(policy, given_texts(), ALL_BT, keys=keys(), rollouts=N, end_token=end_token, tile=tile)
        assert torch.equal(tiled.tokens_RT, whole.tokens_RT)
        assert torch.equal(tiled.lengths_R, whole.lengths_R)


@each_policy
def test_permuted_rows_with_their_keys_give_permuted_completions(make: Callable[[], PolicyModule]) -> None:
    policy, order_B = make(), torch.tensor([3, 0, 4, 2, 1])
    straight = by_key(complete(policy, given_texts(), SOME_BT, keys=keys(), rollouts=N, end_token=END))
    permuted = complete(
        policy, given_texts()[order_B], SOME_BT[order_B], keys=keys()[order_B], rollouts=N, end_token=END
    )
    back = {(prefix, int(order_B[row]), n): text for (prefix, row, n), text in by_key(permuted).items()}
    assert back == straight


def test_a_prefix_has_the_same_completions_whatever_else_is_wanted() -> None:
    policy = lstm()
    everything = by_key(complete(policy, given_texts(), ALL_BT, keys=keys(), rollouts=N, end_token=END))
    for row, prefix in product(range(B), range(T)):
        wanted_BT = torch.zeros_like(ALL_BT)
        wanted_BT[row, prefix] = True
        alone = by_key(complete(policy, given_texts(), wanted_BT, keys=keys(), rollouts=N, end_token=END))
        assert alone == {(prefix, row, n): everything[prefix, row, n] for n in range(N)}


def test_fewer_rollouts_are_the_first_of_more() -> None:
    few = by_key(complete(lstm(), given_texts(), ALL_BT, keys=keys(), rollouts=2))
    many = by_key(complete(lstm(), given_texts(), ALL_BT, keys=keys(), rollouts=5))
    assert few == {key: text for key, text in many.items() if key[2] < 2}


def test_order_is_prefix_then_row_then_rollout() -> None:
    wanted_BT = torch.zeros_like(ALL_BT)
    wanted_BT[1, 2] = wanted_BT[3, 2] = wanted_BT[4, 0] = True
    texts = complete(lstm(), given_texts(), wanted_BT, keys=keys(), rollouts=2)
    assert (texts.prefix_R.tolist(), texts.row_R.tolist()) == ([0, 0, 2, 2, 2, 2], [4, 4, 1, 1, 3, 3])
    assert texts.rollout_R.tolist() == [0, 1] * 3


def test_given_tokens_are_kept() -> None:
    texts = complete(UniformPolicy(V, start_token=PAD), given_texts(), ALL_BT, keys=keys(), rollouts=N)
    for prefix, row, _, text in as_list(texts):
        assert text[:prefix] == given_texts()[row, :prefix].tolist()


def test_tokens_after_the_longest_wanted_prefix_do_not_matter() -> None:
    wanted_BT = torch.zeros_like(ALL_BT)
    wanted_BT[:, 3] = wanted_BT[:, 1] = True
    padded_BT = given_texts()
    padded_BT[:, 3:] = PAD
    texts, same = (complete(lstm(), given, wanted_BT, keys=keys(), rollouts=N) for given in (given_texts(), padded_BT))
    assert as_list(texts) == as_list(same)


def test_text_ends_with_its_end_token_which_counts() -> None:
    # The end comes next with certainty after the two given tokens, and T tokens never bring one otherwise.
    certain = StubPolicy([-math.inf, 0.0], start_token=0)
    wanted_BT = torch.tensor([[False, False, True, False]])
    one = Keys.counted(0, 1)
    texts = complete(certain, torch.tensor([[0, 0, 0, 0]]), wanted_BT, keys=one, end_token=1)
    assert (texts.tokens_RT.tolist(), texts.lengths_R.tolist()) == ([[0, 0, 1, 2]], [3])
    endless = complete(certain, torch.tensor([[0, 0, 0, 0]]), wanted_BT, keys=one, end_token=0)
    assert (endless.tokens_RT.tolist(), endless.lengths_R.tolist()) == ([[0, 0, 1, 1]], [4])


def test_ended_rows_are_not_stepped_any_more() -> None:
    class Counting(StubPolicy):
        rows = 0

        def step(self, tokens_B: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            self.rows += len(tokens_B)
            return super().step(tokens_B, state)

    policy = Counting([-math.inf, 0.0])
    tokens_BT, lengths_B = generate(policy, Keys.counted(0, 64), T, end_token=1)
    assert (policy.rows, lengths_B.tolist()) == (64, [1] * 64)
    assert (tokens_BT[:, 1:] == 2).all()


def test_nothing_wanted_gives_no_texts() -> None:
    texts = complete(lstm(), given_texts(), torch.zeros_like(ALL_BT), keys=keys(), rollouts=N)
    assert texts.tokens_RT.shape == (0, T)
    assert texts.lengths_R.shape == texts.row_R.shape == texts.prefix_R.shape == texts.rollout_R.shape == (0,)


def test_dropout_is_off_while_writing_and_back_on_afterwards() -> None:
    policy = lstm()
    policy.train()
    policy.lstm.eval()
    in_training = complete(policy, given_texts(), ALL_BT, keys=keys(), rollouts=N)
    assert [policy.training, policy.lstm.training, policy.embedding.training] == [True, False, True]
    policy.eval()
    in_eval = complete(policy, given_texts(), ALL_BT, keys=keys(), rollouts=N)
    assert torch.equal(in_training.tokens_RT, in_eval.tokens_RT)


def test_completing_leaves_texts_weights_and_gradients_alone() -> None:
    policy, tokens_BT, wanted_BT = lstm(), given_texts(), ALL_BT.clone()
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    complete(policy, tokens_BT, wanted_BT, keys=keys(), rollouts=N)
    assert torch.equal(tokens_BT, given_texts())
    assert torch.equal(wanted_BT, ALL_BT)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_completions_can_be_trained_on() -> None:
    # Tensors of inference mode could not be saved for a backward pass.
    policy = lstm().eval()
    texts = complete(policy, given_texts(), ALL_BT, keys=keys())
    policy.log_prob(texts.tokens_RT, texts.tokens_RT != PAD).sum().backward()
    assert policy.projection.weight.grad is not None


def test_completions_follow_the_policy() -> None:
    # Two tokens, T = 2, prefix a: P(second = a | a) = .8.
    table = TablePolicy.from_text_probabilities(torch.tensor([0.4, 0.1, 0.2, 0.3]), vocab_size=2, max_length=2)
    draws = 10_000
    texts = complete(
        table, torch.tensor([[0, 1]]), torch.tensor([[True, True]]), keys=Keys.counted(3, 1), rollouts=draws
    )
    whole, second = texts.tokens_RT[:draws], texts.tokens_RT[draws:]
    shares = (whole @ torch.tensor([2, 1])).bincount(minlength=4) / draws
    # 4 standard errors of a share of .4 of 10,000 draws are .02.
    assert shares.tolist() == pytest.approx([0.4, 0.1, 0.2, 0.3], abs=0.02)
    assert (second[:, 0] == 0).all()
    assert (second[:, 1] == 0).float().mean().item() == pytest.approx(0.8, abs=0.016)


# -- Whole texts ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("end_token", [None, END])
def test_written_texts_are_completions_of_the_empty_prefix(end_token: int | None) -> None:
    wanted_BT = torch.zeros_like(ALL_BT)
    wanted_BT[:, 0] = True
    texts = complete(lstm(), given_texts(), wanted_BT, keys=keys(), end_token=end_token, stream=Stream.TEXT)
    tokens_BT, lengths_B = generate(lstm(), keys(), T, end_token=end_token)
    assert torch.equal(tokens_BT, texts.tokens_RT)
    assert torch.equal(lengths_B, texts.lengths_R)


def test_text_depends_on_its_seed_and_episode_not_on_its_batch() -> None:
    together_BT, _ = generate(lstm(), Keys.counted(5, 10), T)
    later_BT, _ = generate(lstm(), Keys.counted(5, 4, first_episode=6), T)
    other_BT, _ = generate(lstm(), Keys.counted(6, 10), T)
    assert torch.equal(together_BT[6:], later_BT)
    assert not torch.equal(together_BT, other_BT)


def test_texts_and_rollouts_from_the_empty_prefix_differ() -> None:
    wanted_BT = torch.zeros_like(ALL_BT)
    wanted_BT[:, 0] = True
    rollouts = complete(lstm(), given_texts(), wanted_BT, keys=keys())
    assert not torch.equal(generate(lstm(), keys(), T)[0], rollouts.tokens_RT)


@pytest.mark.parametrize("end_token", [None, END])
def test_texts_written_from_a_prefix_are_the_plain_ones(end_token: int | None) -> None:
    policy, prefix, drawn = lstm().eval(), [4, 0], keys()
    tokens_BT, lengths_B = generate(policy, drawn, T, end_token=end_token, prefix=prefix)
    for row, (tokens, length) in enumerate(zip(tokens_BT.tolist(), lengths_B.tolist(), strict=True)):
        key = {"seed": int(drawn.seed_B[row]), "episode": int(drawn.episode_B[row]), "rollout": 0}
        with torch.no_grad():
            plain = plain_completion(policy, prefix, key, stream=Stream.TEXT, end_token=end_token)
        assert tokens == plain + [PAD] * (T - len(plain))
        assert length == len(plain)


@pytest.mark.parametrize("prefix", [[0] * T, [END], [PAD]])
def test_a_prefix_that_no_text_can_begin_with_is_refused(prefix: list[int]) -> None:
    assert_refused("prefix", generate, lstm(), keys(), T, end_token=END, prefix=prefix)


def test_no_keys_write_no_texts() -> None:
    tokens_BT, lengths_B = generate(lstm(), Keys.counted(0, 0), T)
    assert (tokens_BT.shape, lengths_B.shape) == ((0, T), (0,))


@pytest.mark.parametrize(("change", "field"), [
    ({"rollouts": 0}, "rollouts"), ({"rollouts": -2}, "rollouts"), ({"tile": 0}, "tile"),
    ({"wanted_BT": ALL_BT[:, 1:]}, "wanted prefixes"),
])  # fmt: skip
def test_impossible_request_is_refused(change: dict[str, object], field: str) -> None:
    arguments = {"tokens_BT": given_texts(), "wanted_BT": ALL_BT, "keys": keys(), **change}
    assert_refused(field, complete, lstm(), **arguments)


def test_text_without_room_is_refused() -> None:
    assert_refused("T=0", generate, lstm(), keys(), 0)


def test_policy_whose_logits_allow_no_token_or_have_another_shape_is_refused() -> None:
    assert_refused("NaN", generate, StubPolicy([-math.inf, -math.inf]), keys(), T)
    short = StubPolicy([0.0, 0.0])
    short.vocab_size = 3
    assert_refused(r"logits must have shape \(B, V\)=\(32, 3\), found \(32, 2\)", generate, short, keys(), T)


@pytest.mark.parametrize("make", [lstm, trigram, nucleus])
def test_the_log_probability_of_each_draw_is_what_the_policy_says_of_the_text(make: Callable[[], PolicyModule]) -> None:
    policy = make()
    texts = generate_scored(policy, Keys.counted(3, 40), T, end_token=END)
    mask_RT = texts.tokens_RT != PAD
    assert texts.logp_RT is not None
    with torch.no_grad():
        expected_RT = policy.eval().log_prob(texts.tokens_RT, mask_RT).double()
    torch.testing.assert_close(texts.logp_RT, expected_RT, atol=2e-6, rtol=0)


def test_a_prepared_policy_says_the_same_and_follows_new_weights_when_it_is_prepared_again() -> None:
    policy = lstm().eval()
    tokens_B = torch.arange(5)
    for _ in range(2):
        expected_BV, _ = policy.step(tokens_B, policy.begin(5))
        with torch.no_grad():
            found_BV, _ = policy.prepared().step(tokens_B, policy.begin(5))
            by_hand_BV, _ = policy.lstm(policy.embedding(tokens_B[:, None]))
            by_hand_BV = policy.projection(by_hand_BV[:, 0]).index_fill(1, policy.forbidden, -torch.inf)
            torch.testing.assert_close(found_BV, by_hand_BV, atol=1e-6, rtol=1e-6)
        assert torch.equal(found_BV, expected_BV)  # so texts that are stepped are those that are collected
        policy.projection.bias.data.mul_(-3)


@each_policy
@pytest.mark.parametrize("end_token", [None, END])
@pytest.mark.parametrize("tile", [3, 10_000])
def test_all_rows_side_by_side_as_on_a_gpu_draw_the_same(
    make: Callable[[], PolicyModule], end_token: int | None, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, how = make(), dict[str, Any](end_token=end_token)
    tokens_BT, wanted_BT = given_texts(), SOME_BT.clone()
    tokens_BT[1, 2:], wanted_BT[1, 3:] = PAD, False  # it has ended

    def all_texts(**tiles: Any) -> list[Tensor]:
        return [
            *vars(
                complete(policy, tokens_BT, wanted_BT, keys=keys(), rollouts=N, scored=True, **how, **tiles)
            ).values(),
            *generate(policy, keys(), T, prefix=[1, 0], **how, **tiles),
        ]

    def side_by_side(
        policy: Policy, state: State, tokens_BT: Tensor, _: Tensor, texts: Completions, **how: Any
    ) -> None:
        del how["rollouts"]
        rollouts._generate_side_by_side(policy, state, tokens_BT, texts, **how)

    expected = all_texts()
    monkeypatch.setattr(rollouts, "_generate", side_by_side)
    monkeypatch.setattr(rollouts, "_DRAWS", 2 * N * int(wanted_BT.sum()))  # of two positions at once
    for found, part in zip(all_texts(tile=tile), expected, strict=True):
        # So few rows, or rows in another order, round differently: log-probabilities by that much, tokens never.
        torch.testing.assert_close(found, part, rtol=0, atol=1e-5 if part.is_floating_point() else 0)
