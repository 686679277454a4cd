"""Every policy against a plain version of itself: dictionaries, numpy, one token at a time."""

import functools
import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import assert_refused
from textgan_env.discriminators import ConvDiscriminator
from textgan_env.evaluation import evaluate
from textgan_env.ops.sampling import derived_generator, seeded
from textgan_env.policies import (
    POLICIES,
    AdaptedPolicy,
    CausalLMPolicy,
    Decoding,
    InfillingPolicy,
    LaggedCopy,
    LatentPolicy,
    LeakedPolicy,
    LSTMPolicy,
    NGramPolicy,
    Policy,
    PolicyModule,
    RelationalPolicy,
    TablePolicy,
    TransformerPolicy,
    UniformPolicy,
    make_policy,
    map_state,
)
from textgan_env.policies.base import State
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import ToyTask
from textgan_env.utils.errors import InputError

INF = math.inf
V, T = 4, 3
PAD = V

# A small corpus, PAD after the end.
TEXTS = [[0, 1, 2], [0, 1, 1], [3, 0, 1], [1], [0, 1, 2], [2, 2]]


def padded(texts: Sequence[Sequence[int]], pad: int = PAD) -> tuple[Tensor, Tensor]:
    """Tokens and mask of texts."""
    width = max(map(len, texts))
    tokens_BT = torch.tensor([[*text, *[pad] * (width - len(text))] for text in texts])
    return tokens_BT, tokens_BT != pad


def uniform(forbidden: Sequence[int] = ()) -> UniformPolicy:
    return UniformPolicy(V, start_token=PAD, forbidden=forbidden)


def unigram(forbidden: Sequence[int] = ()) -> NGramPolicy:
    return NGramPolicy.fit(*padded(TEXTS), vocab_size=V, start_token=PAD, order=1, forbidden=forbidden)


def trigram(forbidden: Sequence[int] = ()) -> NGramPolicy:
    return NGramPolicy.fit(*padded(TEXTS), vocab_size=V, start_token=PAD, order=3, forbidden=forbidden)


def table(forbidden: Sequence[int] = ()) -> TablePolicy:
    logits_PV = torch.randn(1 + V + V**2, V, generator=derived_generator(0))
    return TablePolicy(V, max_length=T, forbidden=forbidden, logits_PV=logits_PV)


def lstm(forbidden: Sequence[int] = ()) -> LSTMPolicy:
    return LSTMPolicy(
        V, start_token=PAD, embed_size=3, hidden_size=5, num_layers=2, init_scale=1.0, forbidden=forbidden, seed=3
    )


def relational(forbidden: Sequence[int] = ()) -> RelationalPolicy:
    """With weights that are large enough for the memory to matter."""
    policy = RelationalPolicy(V, start_token=PAD, embed_size=3, hidden_size=6, num_slots=2, forbidden=forbidden, seed=3)
    for parameter in policy.parameters():
        nn.init.normal_(parameter, generator=derived_generator(parameter.numel()))
    return policy


def transformer(forbidden: Sequence[int] = ()) -> TransformerPolicy:
    """With weights that are large enough for what was read to matter; as drawn, its layers add nothing."""
    policy = TransformerPolicy(
        V, start_token=PAD, max_length=T, embed_size=3, hidden_size=8, num_heads=2, forbidden=forbidden, seed=3
    )
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=0.7, generator=derived_generator(parameter.numel()))
    return policy


def latent(forbidden: Sequence[int] = ()) -> LatentPolicy:
    """Without keys its z is 0; what z does is in test_vae."""
    return LatentPolicy(
        V, start_token=PAD, latent_size=2, embed_size=3, hidden_size=5, init_scale=1.0, forbidden=forbidden, seed=3
    )


def infilling(forbidden: Sequence[int] = ()) -> InfillingPolicy:
    """Without a template; with one it is in test_given."""
    return InfillingPolicy(
        V, start_token=PAD, max_length=T, embed_size=3, hidden_size=5, init_scale=1.0, forbidden=forbidden, seed=3
    )


def leaked(forbidden: Sequence[int] = ()) -> LeakedPolicy:
    judge = ConvDiscriminator(V, T, embed_size=2, widths=(1, 2), filters=(3, 3))
    return LeakedPolicy(
        V, start_token=PAD, discriminator=judge, embed_size=3, hidden_size=5, manager_size=4, goal_size=2,
        goal_steps=2, init_scale=1.0, forbidden=forbidden, seed=3,
    )  # fmt: skip


def causal_lm(forbidden: Sequence[int] = ()) -> CausalLMPolicy:
    """A GPT-2 of 9 tokens, of which the task has four in another order; token 8 begins a text."""
    config = {
        "model_type": "gpt2", "vocab_size": 9, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2,
        "initializer_range": 1.0, "bos_token_id": 8, "eos_token_id": 8,
        "embd_pdrop": 0, "attn_pdrop": 0, "resid_pdrop": 0,
    }  # fmt: skip
    return CausalLMPolicy(
        V, start_token=PAD, max_length=T, token_ids=[6, 0, 3, 1, 8], model=config, forbidden=forbidden
    )


@functools.cache
def _base() -> tempfile.TemporaryDirectory[str]:
    """A folder with the model of `causal_lm`; it goes when the tests end."""
    folder = tempfile.TemporaryDirectory()
    causal_lm().model.save_pretrained(folder.name)
    return folder


def adapted(forbidden: Sequence[int] = ()) -> PolicyModule:
    """The model of `causal_lm`, with an adapter that matters; as drawn, it adds nothing."""
    policy = AdaptedPolicy(
        V, start_token=PAD, max_length=T, token_ids=[6, 0, 3, 1, 8], base=_base().name, forbidden=forbidden
    )
    for parameter in policy.parameters():
        nn.init.normal_(parameter, generator=derived_generator(parameter.numel()))
    return policy


MAKERS: list[Callable[..., PolicyModule]] = [
    uniform, unigram, trigram, table, lstm, relational, transformer, latent, infilling, leaked, causal_lm,
]  # fmt: skip
WITHOUT_PEFT = set() if find_spec("peft") else {"adapted"}
if not WITHOUT_PEFT:
    MAKERS.append(adapted)
each_policy = pytest.mark.parametrize("make", MAKERS)

DECODINGS = {
    "plain": Decoding(), "cold": Decoding(temperature=0.5), "hot": Decoding(temperature=3.0),
    "top_k": Decoding(top_k=2), "top_p": Decoding(top_p=0.7),
    "all three": Decoding(temperature=0.7, top_k=3, top_p=0.8), "deterministic": Decoding(deterministic=True),
}  # fmt: skip


def stepped_log_prob(policy: Policy, tokens_BT: Tensor) -> list[list[float]]:
    """log p of every cell, one row at a time, from a softmax written out."""
    rows = []
    for row in tokens_BT.tolist():
        state, last, cells = policy.begin(1), policy.start_token, []
        for token in row:
            logits_BV, state = policy.step(torch.tensor([last]), state)
            weights = [math.exp(logit) for logit in logits_BV[0].tolist()]
            share = weights[token] / sum(weights) if token < policy.vocab_size else 1.0
            cells.append(math.log(share) if share else -INF)
            last = token
        rows.append(cells)
    return rows


# -- What holds for every policy --------------------------------------------------------------------------------------
def test_every_kind_in_the_registry_is_tested_here() -> None:
    assert {make().kind for make in MAKERS} == set(POLICIES) - WITHOUT_PEFT


@each_policy
def test_policy_has_the_members_of_the_protocol(make: Callable[..., PolicyModule]) -> None:
    policy = make()
    assert isinstance(policy, Policy)
    assert policy.vocab_size == V
    assert policy.device == torch.device("cpu")


@each_policy
@pytest.mark.parametrize("decoding", DECODINGS.values(), ids=DECODINGS.keys())
@pytest.mark.parametrize("forbidden", [(), (2,)], ids=["all tokens", "one forbidden"])
def test_log_prob_equals_stepping_with_a_plain_softmax(
    make: Callable[..., PolicyModule], decoding: Decoding, forbidden: Sequence[int]
) -> None:
    policy = make(forbidden).with_decoding(decoding)
    tokens_BT, mask_BT = padded([[0, 1, 3], [3], [1, 1, 0], [0, 2], [2, 0, 0]])
    with torch.no_grad():
        logp_BT = policy.log_prob(tokens_BT, mask_BT)
        expected_BT = torch.tensor(stepped_log_prob(policy, tokens_BT))
    torch.testing.assert_close(logp_BT, expected_BT.masked_fill(~mask_BT, 0.0), rtol=1e-4, atol=1e-5)


@each_policy
@pytest.mark.parametrize("decoding", DECODINGS.values(), ids=DECODINGS.keys())
def test_all_log_probs_are_those_that_step_draws_from(make: Callable[..., PolicyModule], decoding: Decoding) -> None:
    policy = make((2,)).with_decoding(decoding)
    tokens_BT, mask_BT = padded([[0, 1, 3], [3], [1, 1, 0], [0, 3]])
    with torch.no_grad():
        logp_BTV = policy.all_log_probs(tokens_BT)
        state, last_B = policy.begin(4), torch.full((4,), PAD)
        for position in range(T):
            logits_BV, state = policy.step(last_B, state)
            weights_BV = logits_BV.double().exp()
            share_BV = weights_BV / weights_BV.sum(1, keepdim=True)
            asked_B = mask_BT[:, position]
            torch.testing.assert_close(logp_BTV[asked_B, position].double().exp(), share_BV[asked_B])
            last_B = tokens_BT[:, position]
    assert logp_BTV.shape == (4, T, V)
    assert (logp_BTV[..., 2] == -INF).all()


@pytest.mark.parametrize("make", [lstm, transformer, leaked, table, causal_lm])
def test_all_log_probs_have_the_gradient_of_log_prob(make: Callable[..., PolicyModule]) -> None:
    policy = make((2,))
    tokens_BT, mask_BT = padded([[0, 1, 3], [3], [1, 1, 0], [0, 3]])
    logp_BT = policy.log_prob(tokens_BT, mask_BT)
    chosen_BT1 = tokens_BT.clamp(max=V - 1)[..., None]
    same_BT = policy.all_log_probs(tokens_BT).gather(2, chosen_BT1)[..., 0].masked_fill(~mask_BT, 0.0)
    torch.testing.assert_close(same_BT, logp_BT)
    weights = [one for one in policy.parameters() if one.requires_grad]
    expected, found = (
        torch.autograd.grad((logp * logp.detach()).sum(), weights, allow_unused=True) for logp in (logp_BT, same_BT)
    )
    # The Manager of LeakGAN learns through no likelihood.
    pairs = [(one, other) for one, other in zip(expected, found, strict=True) if one is not None]
    assert pairs
    for one, other in pairs:
        assert other is not None
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


@each_policy
def test_log_prob_is_zero_where_the_mask_is_false_and_unchanged_elsewhere(make: Callable[..., PolicyModule]) -> None:
    policy = make()
    tokens_BT, _ = padded([[0, 1, 3], [3, 2, 1]])
    everything_BT = torch.ones(2, 3, dtype=torch.bool)
    some_BT = torch.tensor([[False, True, False], [True, False, False]])
    expected_BT = policy.log_prob(tokens_BT, everything_BT).where(some_BT, torch.tensor(0.0))
    torch.testing.assert_close(policy.log_prob(tokens_BT, some_BT), expected_BT)
    nothing_BT = policy.log_prob(tokens_BT, torch.zeros_like(some_BT))
    assert nothing_BT.tolist() == [[0.0] * 3] * 2


@each_policy
def test_probabilities_of_all_texts_add_up_to_one(make: Callable[..., PolicyModule]) -> None:
    texts_ST = torch.tensor(list(product(range(V), repeat=T)))
    with torch.no_grad():
        logp_S = make((1,)).log_prob(texts_ST, torch.ones_like(texts_ST, dtype=torch.bool)).sum(1)
    assert logp_S.double().exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert (logp_S[(texts_ST == 1).any(1)] == -INF).all()


@each_policy
def test_policy_gives_permuted_rows_for_permuted_texts(make: Callable[..., PolicyModule]) -> None:
    policy = make()
    tokens_BT = torch.randint(V, (9, T), generator=derived_generator(1))
    mask_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
    order_B = torch.randperm(9, generator=derived_generator(2))
    with torch.no_grad():
        logp_BT = policy.log_prob(tokens_BT, mask_BT)
        torch.testing.assert_close(policy.log_prob(tokens_BT[order_B], mask_BT), logp_BT[order_B])


@each_policy
def test_reset_rows_are_at_the_empty_prefix_and_the_others_go_on(make: Callable[..., PolicyModule]) -> None:
    policy = make()
    start_B = torch.full((3,), policy.start_token)
    with torch.no_grad():
        first_BV, state = policy.step(start_B, policy.begin(3))
        first_BV = first_BV.clone()
        _, state = policy.step(torch.tensor([0, 1, 3]), state)
        going_BV, _ = policy.step(torch.tensor([1, 1, 1]), state)
        state = policy.reset_rows(state, torch.tensor([True, False, True]))
        mixed_BV, _ = policy.step(torch.tensor([policy.start_token, 1, policy.start_token]), state)
    torch.testing.assert_close(mixed_BV, torch.stack([first_BV[0], going_BV[1], first_BV[2]]))


@each_policy
def test_policy_is_the_same_again_from_config_and_tensors(make: Callable[..., PolicyModule]) -> None:
    policy = make((2,))
    again = make_policy(policy.kind, policy.config())
    again.load_state_dict(policy.state_dict())
    assert type(again) is type(policy)
    assert again.config() == policy.config()
    tokens_BT, mask_BT = padded(TEXTS)
    assert torch.equal(again.log_prob(tokens_BT, mask_BT), policy.log_prob(tokens_BT, mask_BT))


@each_policy
def test_with_decoding_shares_the_weights_and_leaves_the_policy_as_it_was(make: Callable[..., PolicyModule]) -> None:
    policy = make()
    cold = policy.with_decoding(Decoding(temperature=0.5))
    tokens_BT, mask_BT = padded(TEXTS)
    expected_BT = policy.log_prob(tokens_BT, mask_BT)
    assert policy.decoding == Decoding()
    assert [p.data_ptr() for p in cold.parameters()] == [p.data_ptr() for p in policy.parameters()]
    again = cold.with_decoding(Decoding())
    assert torch.equal(again.log_prob(tokens_BT, mask_BT), expected_BT)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(2)
    assert torch.equal(again.log_prob(tokens_BT, mask_BT), policy.log_prob(tokens_BT, mask_BT))


@each_policy
@pytest.mark.parametrize("decoding", DECODINGS.values(), ids=DECODINGS.keys())
@pytest.mark.parametrize("forbidden", [(), (2,)], ids=["all tokens", "one forbidden"])
def test_the_highest_logit_is_no_further_from_zero_than_the_policy_says(
    make: Callable[..., PolicyModule], decoding: Decoding, forbidden: Sequence[int]
) -> None:
    policy = make(forbidden).with_decoding(decoding)
    with torch.no_grad():
        for parameter in policy.parameters():  # units near 1 and -1
            parameter.mul_(20)
        prepared = policy.prepared()
        state, tokens_B = prepared.begin(4), torch.tensor([0, 1, 3, 3])
        for _ in range(3):
            logits_BV, state = prepared.step(tokens_B, state)
            assert logits_BV.amax(1).abs().amax() <= prepared.furthest_logit * 1.001
    known = make in (lstm, latent) or (make in (unigram, trigram) and not forbidden)
    assert math.isfinite(prepared.furthest_logit) == known


def test_a_subclass_that_makes_other_logits_is_drawn_from_as_it_says() -> None:
    class Stepped(LSTMPolicy):
        """Sure of token 1 by what it makes of the logits."""

        def step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
            logits_BV, state = super().step(tokens_B, state)
            return logits_BV - 300 + 20 * (torch.arange(V) == 1), state

    class Raw(LSTMPolicy):
        """The same, before decoding."""

        def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
            logits_BV, state = super().raw_step(tokens_B, state)
            return logits_BV - 300 + 20 * (torch.arange(V) == 1), state

    for kind in (Stepped, Raw):
        tokens_BT, _ = generate(kind(V, start_token=0, embed_size=4, hidden_size=4), Keys.counted(0, 20), T)
        assert (tokens_BT == 1).all()


@pytest.mark.parametrize(("vocab_size", "start_token", "forbidden", "field"), [
    (0, 0, [], "vocab_size"), (3, 4, [], "start_token"), (3, -1, [], "start_token"),
    (3, 0, [1, 3], "forbidden"), (2, 0, [1, 0], "forbidden"), (4, 0, [1, 1], "forbidden"),
])  # fmt: skip
def test_policy_without_a_possible_token_or_start_is_refused(
    vocab_size: int, start_token: int, forbidden: list[int], field: str
) -> None:
    assert_refused(field, UniformPolicy, vocab_size, start_token=start_token, forbidden=forbidden)


@pytest.mark.parametrize(("kind", "config", "field"), [
    ("os.system", {}, "'os.system', expected one of: .*causal_lm"),
    ("uniform", {"vocab_size": 3}, "start_token"),
    ("uniform", {**uniform().config(), "width": 2}, "width"),
])  # fmt: skip
def test_unknown_kind_and_a_config_of_another_one_are_refused(kind: str, config: dict[str, Any], field: str) -> None:
    assert_refused(field, make_policy, kind, config)


def test_map_state_keeps_the_nesting() -> None:
    state = {"a": [torch.tensor([1]), ()], "b": (torch.tensor([2.0]),)}
    doubled = map_state(lambda part, other: part + other, state, state)
    assert doubled == {"a": [torch.tensor([2]), ()], "b": (torch.tensor([4.0]),)}
    assert_refused("tensors", map_state, lambda part: part, (1,))


# -- Decoding ---------------------------------------------------------------------------------------------------------

# Probabilities 0.1, 0.4, 0.2, 0.3.
ROW = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()


def probabilities(decoding: Decoding, logits_BV: Tensor) -> list[float]:
    return decoding.apply(logits_BV.clone()).softmax(1)[0].tolist()


@pytest.mark.parametrize(("decoding", "expected"), [
    (Decoding(), [0.1, 0.4, 0.2, 0.3]),
    # Squares: .01 .16 .04 .09, sum .3.
    (Decoding(temperature=0.5), [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
    (Decoding(top_k=1), [0, 1, 0, 0]),
    (Decoding(top_k=2), [0, 4 / 7, 0, 3 / 7]),
    (Decoding(top_k=4), [0.1, 0.4, 0.2, 0.3]),
    (Decoding(top_k=9), [0.1, 0.4, 0.2, 0.3]),
    (Decoding(top_k=2**70), [0.1, 0.4, 0.2, 0.3]),
    (Decoding(temperature=10**30), [0.25] * 4),
    (Decoding(top_p=0.39), [0, 1, 0, 0]),
    (Decoding(top_p=0.41), [0, 4 / 7, 0, 3 / 7]),
    (Decoding(top_p=0.69), [0, 4 / 7, 0, 3 / 7]),
    (Decoding(top_p=0.71), [0, 4 / 9, 2 / 9, 3 / 9]),
    (Decoding(top_p=1.0), [0.1, 0.4, 0.2, 0.3]),
    (Decoding(top_p=1e-9), [0, 1, 0, 0]),
    # Of the two that top_k leaves, the first has 4/7 = .571 of the mass.
    (Decoding(top_k=2, top_p=0.57), [0, 1, 0, 0]),
    (Decoding(top_k=2, top_p=0.58), [0, 4 / 7, 0, 3 / 7]),
    # Temperature comes first: the two best have 16/30 and 25/30.
    (Decoding(temperature=0.5, top_p=0.8), [0, 16 / 25, 0, 9 / 25]),
    (Decoding(deterministic=True), [0, 1, 0, 0]),
    (Decoding(deterministic=True, temperature=5.0, top_k=3), [0, 1, 0, 0]),
])  # fmt: skip
def test_decoding_by_hand(decoding: Decoding, expected: list[float]) -> None:
    assert probabilities(decoding, ROW) == pytest.approx(expected, abs=1e-6)
    assert sum(probabilities(decoding, ROW)) == pytest.approx(1)


@pytest.mark.parametrize(("decoding", "kept"), [
    (Decoding(deterministic=True), [1]), (Decoding(top_k=1), [1]), (Decoding(top_k=2), [1, 2]),
    (Decoding(top_k=4), [0, 1, 2, 4]), (Decoding(top_p=0.2), [1]), (Decoding(top_p=0.7), [1, 2, 4]),
])  # fmt: skip
def test_ties_go_to_the_smaller_token(decoding: Decoding, kept: list[int]) -> None:
    # Probabilities 1/11, 3/11, 3/11, 1/11, 3/11 ... the ties among 1, 2, 4 and among 0, 3.
    shares = probabilities(decoding, torch.tensor([[1.0, 3.0, 3.0, 1.0, 3.0]]).log())
    assert [token for token, share in enumerate(shares) if share > 0] == kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decoding", [Decoding(top_k=7), Decoding(top_p=0.6), Decoding(top_k=90, top_p=0.8)])
def test_truncation_is_that_of_a_plain_loop_over_tokens_in_order(decoding: Decoding, dtype: torch.dtype) -> None:
    # Rounded, so that many are equal, at the edges, too.
    logits_BV = (2 * torch.randn(40, 200, generator=derived_generator(0))).round(decimals=1).to(dtype)
    found_BV = decoding.apply(logits_BV)
    for logits_V, found_V in zip(logits_BV, found_BV, strict=True):
        order = sorted(range(200), key=lambda token: (-logits_V[token].item(), token))[: decoding.top_k]
        share_K = logits_V[order].softmax(0)
        before_K = share_K.cumsum(0) - share_K
        kept = {token for token, before in zip(order, before_K, strict=True) if before < (decoding.top_p or 2)}
        assert set(torch.isfinite(found_V).nonzero()[:, 0].tolist()) == kept
        assert torch.equal(found_V[sorted(kept)], logits_V[sorted(kept)])


@pytest.mark.parametrize("decoding", [Decoding(top_k=2), Decoding(top_p=0.5), Decoding(top_k=3, top_p=0.5)])
def test_truncation_hides_no_logit_that_is_not_a_number(decoding: Decoding) -> None:
    logits_BV = torch.tensor([[0.0, math.nan, 1.0, 2.0], [0.0, 3.0, 1.0, 2.0]])
    assert decoding.apply(logits_BV).isnan().any(1).tolist() == [True, False]


def test_decoding_treats_each_row_alone_and_keeps_its_input() -> None:
    logits_BV = torch.randn(6, 11, generator=derived_generator(0))
    for decoding in DECODINGS.values():
        kept_BV = logits_BV.clone()
        together_BV = decoding.apply(logits_BV)
        alone_BV = torch.cat([decoding.apply(logits_BV[row : row + 1]) for row in range(6)])
        torch.testing.assert_close(together_BV, alone_BV)
        assert torch.equal(logits_BV, kept_BV)


def test_forbidden_tokens_stay_out_of_every_decoding() -> None:
    for decoding in DECODINGS.values():
        assert probabilities(decoding, ROW.index_fill(1, torch.tensor([1]), -INF))[1] == 0


def test_top_p_of_one_keeps_the_longest_tail() -> None:
    # 5,000 float32 probabilities add up to 1 before the last of them has been added.
    logits_BV = 3 * torch.randn(4, 5000, generator=derived_generator(0))
    assert torch.isfinite(Decoding(top_p=1.0).apply(logits_BV)).all()
    assert torch.isfinite(Decoding(top_k=4000, top_p=1.0).apply(logits_BV)).sum(1).tolist() == [4000] * 4


@pytest.mark.parametrize(
    ("field", "values"),
    [("temperature", [0, -1.0, math.nan, INF]), ("top_k", [0, -3]), ("top_p", [0.0, 1.1, math.nan])],
)
def test_decoding_outside_its_range_is_refused(field: str, values: list[float]) -> None:
    for value in values:
        assert_refused(field, Decoding, **{field: value})


# -- LSTM -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
@pytest.mark.parametrize("forbidden", [(), (0, 5)], ids=["all tokens", "two forbidden"])
def test_fast_log_prob_of_the_lstm_equals_the_generic_one_with_its_gradients(
    layers: int, temperature: float, forbidden: Sequence[int]
) -> None:
    policy = LSTMPolicy(
        9, start_token=9, embed_size=4, hidden_size=6, num_layers=layers, init_scale=0.7, forbidden=forbidden
    ).double()
    policy.decoding = Decoding(temperature=temperature)
    tokens_BT, mask_BT = padded([[1, 2, 3, 4, 8], [7], [3, 3, 6]], pad=9)
    weights = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    fast_BT, generic_BT = policy.log_prob(tokens_BT, mask_BT), PolicyModule.log_prob(policy, tokens_BT, mask_BT)
    torch.testing.assert_close(fast_BT, generic_BT)
    slope_BT = torch.linspace(-1, 1, 15, dtype=torch.float64).view(3, 5)
    gradients = [torch.autograd.grad((logp * slope_BT).sum(), weights) for logp in (fast_BT, generic_BT)]
    torch.testing.assert_close(*gradients)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def numpy_lstm_log_prob(w: dict[str, np.ndarray], tokens: Sequence[int], start_token: int) -> list[float]:
    """SeqGAN's generator (section 3 of the paper), written out for one text."""
    hidden, cell = np.zeros(w["U_i"].shape[0]), np.zeros(w["U_i"].shape[0])
    cells, last = [], start_token
    for token in tokens:
        x = w["embedding"][last]
        gate = {g: x @ w[f"W_{g}"] + hidden @ w[f"U_{g}"] + w[f"b_{g}"] for g in "ifoc"}
        cell = sigmoid(gate["f"]) * cell + sigmoid(gate["i"]) * np.tanh(gate["c"])
        hidden = sigmoid(gate["o"]) * np.tanh(cell)
        logits = hidden @ w["W_out"] + w["b_out"]
        cells.append(logits[token] - np.log(np.exp(logits).sum()))
        last = token
    return cells


def test_published_gates_give_the_lstm_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    vocab_size, embed, hidden = 6, 4, 3
    shapes = {"embedding": (vocab_size, embed), "W_out": (hidden, vocab_size), "b_out": (vocab_size,)}
    for gate in "ifoc":
        shapes |= {f"W_{gate}": (embed, hidden), f"U_{gate}": (hidden, hidden), f"b_{gate}": (hidden,)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    policy = LSTMPolicy(vocab_size, start_token=0, embed_size=embed, hidden_size=hidden)
    policy.load_gates(weights)
    texts = [[1, 2, 3, 0], [5, 5, 4, 0], [0, 1, 0, 2]]
    found_BT = policy.log_prob(torch.tensor(texts), torch.ones(3, 4, dtype=torch.bool))
    expected_BT = torch.tensor([numpy_lstm_log_prob(weights, text, 0) for text in texts])
    torch.testing.assert_close(found_BT, expected_BT, check_dtype=False)


def test_initial_weights_come_from_the_seed_with_the_scale_asked_for() -> None:
    def make(seed: int) -> LSTMPolicy:
        return LSTMPolicy(50, start_token=50, init_scale=0.3, seed=seed)

    first, again, other = make(1), make(1), make(2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.projection.weight, other.projection.weight)
    weights = torch.cat([p.flatten() for p in first.parameters() if p.requires_grad])
    assert weights.std().item() == pytest.approx(0.3, rel=0.03)


def random_start(**options: Any) -> LSTMPolicy:
    return LSTMPolicy(
        4, start_token=4, embed_size=3, hidden_size=5, init_scale=1.0, initial_state="random", **options
    ).eval()


def test_random_initial_states_are_normal_and_belong_to_the_texts() -> None:
    policy = random_start()
    seed_B, episode_B = torch.full((4000,), 7), torch.arange(4000)
    hidden_BLH, cell_BLH = policy.for_texts(seed_B, episode_B).begin(4000)
    assert (cell_BLH == 0).all()
    assert abs(float(hidden_BLH.mean())) < 0.03
    assert float(hidden_BLH.std()) == pytest.approx(1, abs=0.03)
    assert torch.equal(policy.for_texts(seed_B[5:9], episode_B[5:9]).begin(4)[0], hidden_BLH[5:9])
    assert_refused("initial states", policy.for_texts(seed_B[:4], episode_B[:4]).begin, 3)


def test_with_a_random_initial_state_stepping_scores_what_log_prob_does() -> None:
    keys = Keys.counted(3, 6)
    policy = random_start().for_texts(keys.seed_B, keys.episode_B)
    tokens_BT = torch.randint(4, (6, 5), generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones_like(tokens_BT, dtype=torch.bool)
    stepped = PolicyModule.log_prob(policy, tokens_BT, everywhere)
    torch.testing.assert_close(policy.log_prob(tokens_BT, everywhere), stepped, atol=1e-5, rtol=0)
    assert not torch.allclose(random_start().log_prob(tokens_BT, everywhere), stepped, atol=1e-2)


def test_the_nll_of_a_policy_with_random_initial_states_is_an_upper_bound_and_says_so() -> None:
    task, policy = ToyTask(vocab_size=4, max_length=3, size=400), random_start()
    result = evaluate(policy, task, samples=50)
    assert {"nll_self", "fit"} <= set(result.missing)
    assert "upper bound" in str(result.settings["nll"])
    tokens_BT = task.split("test").tokens_BT
    everywhere = torch.ones_like(tokens_BT, dtype=torch.bool)
    with torch.no_grad():
        logp_ZB = torch.stack(
            [
                policy.for_texts(keys.seed_B, keys.episode_B).log_prob(tokens_BT, everywhere).sum(1)
                for keys in (Keys.counted(seed, len(tokens_BT)) for seed in range(200))
            ]
        )
    exact = -float(logp_ZB.logsumexp(0).sub(math.log(200)).mean()) / 3
    assert result.values["nll_test"] > exact + 0.01
    assert result.values["nll_test"] == pytest.approx(-float(logp_ZB.mean()) / 3, abs=0.1)


def test_lstm_has_one_bias_a_gate() -> None:
    for name, parameter in lstm().lstm.named_parameters():
        if name.startswith("bias_hh"):
            assert not parameter.requires_grad
            assert parameter.count_nonzero() == 0


def test_dropout_works_in_training_and_only_there() -> None:
    policy = LSTMPolicy(V, start_token=PAD, dropout=0.5, init_scale=1.0)
    tokens_BT, mask_BT = padded(TEXTS)
    with seeded(0):
        first_BT, second_BT = policy.log_prob(tokens_BT, mask_BT), policy.log_prob(tokens_BT, mask_BT)
    assert not torch.equal(first_BT, second_BT)
    policy.eval()
    assert torch.equal(policy.log_prob(tokens_BT, mask_BT), policy.log_prob(tokens_BT, mask_BT))


@pytest.mark.parametrize(
    ("field", "value"),
    [("embed_size", 0), ("hidden_size", 0), ("num_layers", 0), ("dropout", 1.0), ("init_scale", -0.1)],
)
def test_lstm_size_outside_its_range_is_refused(field: str, value: float) -> None:
    assert_refused(field, LSTMPolicy, V, start_token=PAD, **{field: value})


# -- Uniform and n-gram -----------------------------------------------------------------------------------------------
def test_uniform_policy_scores_log_v_a_token() -> None:
    tokens_BT, mask_BT = padded(TEXTS)
    assert uniform().log_prob(tokens_BT, mask_BT)[mask_BT].tolist() == pytest.approx([-math.log(4)] * 15)
    assert uniform((3,)).log_prob(*padded([[0, 1]])).tolist()[0] == pytest.approx([-math.log(3)] * 2)


class PlainNGram:
    """Interpolated Witten-Bell smoothing from dictionaries, by recursion."""

    def __init__(self, texts: Sequence[Sequence[int]], order: int, vocab_size: int, start_token: int) -> None:
        self.order, self.vocab_size, self.start_token = order, vocab_size, start_token
        self.counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for text in texts:
            history = [vocab_size] * (order - 1) + [start_token]
            for token in text:
                for length in range(order):
                    self.counts[tuple(history[len(history) - length :])][token] += 1
                history.append(token)

    def probability(self, token: int, context: tuple[int, ...]) -> float:
        shorter = self.probability(token, context[1:]) if context else 1 / self.vocab_size
        counts = self.counts.get(context)
        if counts is None:
            return shorter
        return (counts[token] + len(counts) * shorter) / (counts.total() + len(counts))

    def log_prob(self, text: Sequence[int]) -> list[float]:
        history, cells = [self.vocab_size] * (self.order - 1) + [self.start_token], []
        for token in text:
            context = tuple(history[len(history) - self.order + 1 :])
            cells.append(math.log(self.probability(token, context)))
            history.append(token)
        return cells


def test_plain_ngram_by_hand() -> None:
    # Tokens a b a b a c; after "a": b twice, c once. u = 2, c = 3. Unigram: a 3, b 2, c 1, so (6 + 3) is below.
    plain = PlainNGram([[0, 1, 0, 1, 0, 2]], order=2, vocab_size=4, start_token=4)
    unigram_b, unigram_d = (2 + 3 / 4) / 9, (0 + 3 / 4) / 9
    assert plain.probability(1, ()) == pytest.approx(unigram_b)
    assert plain.probability(3, ()) == pytest.approx(unigram_d)
    assert plain.probability(1, (0,)) == pytest.approx((2 + 2 * unigram_b) / 5)
    assert plain.probability(3, (0,)) == pytest.approx((0 + 2 * unigram_d) / 5)
    assert plain.probability(3, (3,)) == pytest.approx(unigram_d)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("start_token", [0, 7])
def test_ngram_equals_the_plain_implementation(order: int, start_token: int) -> None:
    vocab_size = 7
    rng = np.random.default_rng(order)
    draw = [rng.choice(6, size=rng.integers(1, 9), p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05]).tolist() for _ in range(80)]
    seen, fresh = draw[:40], [*draw[40:], [6, 6, 6], [0, 6, 0]]
    policy = NGramPolicy.fit(*padded(seen, 7), vocab_size=vocab_size, start_token=start_token, order=order)
    plain = PlainNGram(seen, order, vocab_size, start_token)
    tokens_BT, mask_BT = padded(fresh, 7)
    expected = [cell for text in fresh for cell in plain.log_prob(text)]
    assert policy.log_prob(tokens_BT, mask_BT)[mask_BT].tolist() == pytest.approx(expected, rel=1e-5)
    assert math.isfinite(min(expected))


def test_ngram_logits_are_normalised_log_probabilities() -> None:
    policy = trigram()
    contexts = list(product(range(V + 1), repeat=2))
    state = torch.tensor([[PAD, first] for first, _ in contexts])
    logits_BV, _ = policy.raw_step(torch.tensor([second for _, second in contexts]), state)
    assert torch.isfinite(logits_BV).all()
    torch.testing.assert_close(logits_BV.double().exp().sum(1), torch.ones(25, dtype=torch.float64))


def test_masked_tokens_are_not_counted_but_are_context() -> None:
    tokens_BT = torch.tensor([[3, 0, 3], [3, 1, 3]])
    mask_BT = torch.tensor([[False, True, False], [False, True, False]])
    policy = NGramPolicy.fit(tokens_BT, mask_BT, vocab_size=V, start_token=PAD, order=2)
    # Unigram of one 0 and one 1: (1 + 2/4) / 4 each; after 3: one 0 and one 1 again.
    expected = (1 + 2 * 1.5 / 4) / 4
    logits_BV, _ = policy.raw_step(torch.tensor([3]), policy.begin(1))
    assert logits_BV.exp()[0, :2].tolist() == pytest.approx([expected] * 2)


def test_unfitted_ngram_is_uniform() -> None:
    policy = NGramPolicy(V, start_token=PAD, order=3)
    tokens_BT, mask_BT = padded(TEXTS)
    assert policy.log_prob(tokens_BT, mask_BT)[mask_BT].tolist() == pytest.approx([-math.log(4)] * 15)


@pytest.mark.parametrize(("change", "sentence"), [
    ({"order": 0}, "order"),
    ({"order": 40}, "63 bits"),
    ({"mask_BT": torch.zeros(2, 2, dtype=torch.bool)}, "token to count"),
    ({"mask_BT": torch.ones(2, 3, dtype=torch.bool)}, "shape"),
    ({"tokens_BT": torch.tensor([[0, 4], [0, 0]])}, "tokens to count .* 4"),
    ({"tokens_BT": torch.tensor([[0, -1], [0, 4]])}, "tokens to count .* -1"),
])  # fmt: skip
def test_corpus_that_cannot_be_counted_is_refused(change: dict[str, Any], sentence: str) -> None:
    arguments = {"tokens_BT": torch.zeros(2, 2, dtype=torch.int64), "mask_BT": torch.ones(2, 2, dtype=torch.bool)}
    assert_refused(sentence, NGramPolicy.fit, **{**arguments, "vocab_size": V, "start_token": PAD, **change})


# -- Table ------------------------------------------------------------------------------------------------------------
def test_table_of_text_probabilities_has_exactly_these() -> None:
    texts_ST = torch.tensor(list(product(range(V), repeat=T)))
    probability_S = torch.rand(V**T, generator=derived_generator(0), dtype=torch.float64)
    probability_S[:16] = 0  # no text begins with 0
    probability_S[17] = 0
    policy = TablePolicy.from_text_probabilities(3 * probability_S, vocab_size=V, max_length=T)
    with torch.no_grad():
        logp_S = policy.log_prob(texts_ST, torch.ones_like(texts_ST, dtype=torch.bool)).sum(1)
    torch.testing.assert_close(logp_S.exp().double(), probability_S / probability_S.sum(), rtol=1e-5, atol=0)


def test_conditionals_of_a_table_by_hand() -> None:
    # Texts aa, ab, ba, bb.
    probability_S = torch.tensor([0.1, 0.3, 0.6, 0.0])
    policy = TablePolicy.from_text_probabilities(probability_S, vocab_size=2, max_length=2)
    assert policy.logits_PV.exp().flatten().tolist() == pytest.approx([0.4, 0.6, 0.25, 0.75, 1.0, 0.0])


def test_table_learns_each_prefix_by_itself() -> None:
    policy = TablePolicy(2, max_length=2)
    policy.log_prob(torch.tensor([[1, 0]]), torch.tensor([[True, True]])).sum().backward()
    assert policy.logits_PV.grad is not None
    # Prefixes: none, 0, 1. The gradient of log p(token) is (1 at the token) - 1/2.
    assert policy.logits_PV.grad.tolist() == [[-0.5, 0.5], [0.0, 0.0], [0.5, -0.5]]


def test_pad_leaves_the_prefix_of_a_table_as_it_was() -> None:
    policy = TablePolicy(2, max_length=2)
    _, state = policy.step(torch.tensor([0]), policy.begin(1))
    _, state = policy.step(torch.tensor([1]), state)
    for _ in range(5):
        _, state = policy.step(torch.tensor([2]), state)
    assert state.tolist() == [2]


def test_table_refuses_to_go_past_the_end() -> None:
    policy = TablePolicy(2, max_length=2)
    _, state = policy.step(torch.tensor([0]), policy.begin(1))
    _, state = policy.step(torch.tensor([1]), state)
    assert_refused("texts of 2 tokens", policy.step, torch.tensor([1]), state)


@pytest.mark.parametrize(("arguments", "sentence"), [
    ({"max_length": 0}, "max_length"),
    ({"max_length": 20}, "logits"),
    ({"max_length": 2, "logits_PV": torch.zeros(4, 4)}, "logits"),
])  # fmt: skip
def test_table_of_a_wrong_size_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, TablePolicy, V, **arguments)


@pytest.mark.parametrize("probabilities", [[1.0] * 3, [1.0, -0.1, 0.0, 0.0], [1.0, math.nan, 0.0, 0.0], [0.0] * 4])
def test_what_is_no_distribution_over_texts_is_refused(probabilities: list[float]) -> None:
    with pytest.raises(InputError, match="probabilities"):
        TablePolicy.from_text_probabilities(torch.tensor(probabilities), vocab_size=2, max_length=2)


# -- Lagged copy ------------------------------------------------------------------------------------------------------
def test_lagged_copy_moves_by_its_rate() -> None:
    policy = TablePolicy(1, max_length=2, logits_PV=torch.tensor([[1.0], [2.0]]))
    lagged = LaggedCopy(policy, rate=0.8)
    with torch.no_grad():
        policy.logits_PV.copy_(torch.tensor([[11.0], [-8.0]]))
    assert lagged.policy.logits_PV.flatten().tolist() == [1.0, 2.0]
    lagged.update(policy)
    # .8 * 1 + .2 * 11 and .8 * 2 - .2 * 8
    assert lagged.policy.logits_PV.flatten().tolist() == pytest.approx([3.0, 0.0])
    assert policy.logits_PV.flatten().tolist() == [11.0, -8.0]


@pytest.mark.parametrize(("rate", "follows"), [(0.0, True), (1.0, False)])
def test_rate_zero_is_the_original_and_rate_one_never_moves(rate: float, follows: bool) -> None:
    first, second = lstm(), LSTMPolicy(**{**lstm().config(), "seed": 9})
    lagged = LaggedCopy(first, rate)
    lagged.update(second)
    expected = second if follows else first
    tokens_BT, mask_BT = padded(TEXTS)
    assert torch.equal(lagged.policy.log_prob(tokens_BT, mask_BT), expected.log_prob(tokens_BT, mask_BT))


def test_lagged_copy_has_no_gradients_and_no_dropout_and_leaves_the_original_training() -> None:
    policy = LSTMPolicy(V, start_token=PAD, dropout=0.5)
    lagged = LaggedCopy(policy, 0.8)
    lagged.update(policy)
    assert not any(parameter.requires_grad for parameter in lagged.policy.parameters())
    assert not lagged.policy.training
    assert policy.training
    assert policy.projection.weight.requires_grad


def test_whole_numbers_are_copied_not_averaged() -> None:
    norm = nn.BatchNorm1d(1)
    lagged = LaggedCopy(norm, rate=0.5)
    norm(torch.tensor([[1.0], [3.0]]))
    lagged.update(norm)
    assert lagged.policy.num_batches_tracked == 1
    assert lagged.policy.running_mean is not None
    # One batch of mean 2 with momentum .1 moved the original from 0 to .2.
    assert lagged.policy.running_mean.item() == pytest.approx(0.1)


def test_lagged_copy_of_something_else_is_refused() -> None:
    lagged: LaggedCopy[PolicyModule] = LaggedCopy(lstm(), 0.8)
    assert_refused("architecture", lagged.update, table())
    assert_refused("rate", LaggedCopy, lstm(), 1.2)
