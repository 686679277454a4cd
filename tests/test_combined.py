"""Memoriser, ensemble, mixture: their laws against what can be listed by hand."""

import math

import pytest
import torch
from torch import Tensor

from conftest import assert_refused
from textgan_env.evaluation import evaluate, nll
from textgan_env.policies import (
    Decoding,
    EnsemblePolicy,
    LSTMPolicy,
    MemoriserPolicy,
    MixturePolicy,
    PolicyModule,
    RatioDiscriminator,
    TablePolicy,
    UniformPolicy,
)
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import ToyTask
from textgan_env.utils.kinds import MeanName

V, T = 3, 3
TOY = ToyTask(vocab_size=V, max_length=T, size=500)
ALL = torch.ones(V**T, T, dtype=torch.bool)


def lstm(seed: int) -> LSTMPolicy:
    return LSTMPolicy(V, start_token=0, embed_size=3, hidden_size=4, init_scale=1.0, seed=seed).eval()


def text_probabilities(policy: PolicyModule) -> Tensor:
    with torch.no_grad():
        return policy.log_prob(TOY.texts_ST, ALL).double().sum(1).exp()


def stepped(policy: PolicyModule) -> Tensor:
    """The same from the protocol's `step` alone."""
    with torch.no_grad():
        return PolicyModule.log_prob(policy, TOY.texts_ST, ALL).double().sum(1).exp()


def test_a_memoriser_writes_its_texts_as_often_as_it_was_given_them() -> None:
    texts_BT = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 2, 2], [2, 0, 0]])
    policy = MemoriserPolicy(texts_BT, vocab_size=V, start_token=0)
    probability_S = text_probabilities(policy)
    expected_S = torch.zeros(V**T, dtype=torch.float64)
    for text in texts_BT.tolist():
        expected_S[text[0] * 9 + text[1] * 3 + text[2]] += 1 / 4
    assert probability_S.tolist() == pytest.approx(expected_S.tolist())
    tokens_BT, _ = generate(policy, Keys.counted(0, 400), T)
    assert {tuple(text) for text in tokens_BT.tolist()} == {tuple(text) for text in texts_BT.tolist()}
    assert sum(text == [0, 1, 2] for text in tokens_BT.tolist()) / 400 == pytest.approx(0.5, abs=0.1)


def test_a_memoriser_ends_texts_where_they_ended() -> None:
    texts_BT = torch.tensor([[1, 2, 3], [0, 2, 3], [0, 1, 2]])  # 2 ends a text, PAD is 3
    policy = MemoriserPolicy(texts_BT, vocab_size=V, start_token=3)
    tokens_BT, lengths_B = generate(policy, Keys.counted(0, 50), T, end_token=2)
    assert {tuple(text) for text in tokens_BT.tolist()} == {(1, 2, 3), (0, 2, 3), (0, 1, 2)}
    assert set(lengths_B.tolist()) == {2, 3}
    mean, _ = nll(policy, texts_BT, texts_BT != 3)
    assert mean == pytest.approx(3 * math.log(3) / 7)


def test_what_a_memoriser_was_not_given_has_no_likelihood() -> None:
    policy = MemoriserPolicy(torch.tensor([[0, 1, 2]]), vocab_size=V, start_token=0)
    result = evaluate(policy, TOY, samples=20, bleu_samples=10)
    assert "nll_test" in result.missing
    assert result.values["nll_self"] == 0
    assert_refused("forbidden", MemoriserPolicy, torch.tensor([[0, 1, 2]]), vocab_size=V, start_token=0, forbidden=(1,))


def test_an_ensemble_is_the_mean_of_the_next_tokens() -> None:
    one, two = lstm(1), lstm(2)
    policy = EnsemblePolicy([one, two])
    tokens_BT = torch.tensor([[2, 0, 1]])
    mask_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
    with torch.no_grad():
        parts = [member.log_prob(tokens_BT, mask_BT).exp() for member in (one, two)]
        found = policy.log_prob(tokens_BT, mask_BT).exp()
    assert found[0].tolist() == pytest.approx(((parts[0] + parts[1]) / 2)[0].tolist(), abs=1e-6)
    assert float(text_probabilities(policy).sum()) == pytest.approx(1)


def stepwise(policy: PolicyModule) -> Tensor:
    """Probabilities of the next token at each prefix of every text, one token after another: float64 (S, T, V)."""
    with torch.no_grad():
        return PolicyModule.all_logits(policy, TOY.texts_ST).double().softmax(2)


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(0.5), Decoding(top_k=2)])
def test_a_geometric_mean_is_the_normalised_root_of_the_product(decoding: Decoding) -> None:
    members = [lstm(1), lstm(2), lstm(3).with_decoding(Decoding(0.7))]
    one_STV, two_STV, three_STV = map(stepwise, members)
    product_STV = (one_STV * two_STV * three_STV) ** (1 / 3 / decoding.temperature)
    if decoding.top_k:
        product_STV *= product_STV >= product_STV.sort(2).values[..., 1:2]
    expected_STV = product_STV / product_STV.sum(2, keepdim=True)
    policy = EnsemblePolicy(members, mean="geometric").with_decoding(decoding)
    torch.testing.assert_close(stepwise(policy), expected_STV, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        found_STV = policy.all_log_probs(TOY.texts_ST).double().exp()
    torch.testing.assert_close(found_STV, expected_STV, rtol=1e-5, atol=1e-7)
    chosen_ST = expected_STV.gather(2, TOY.texts_ST[..., None])[..., 0]
    torch.testing.assert_close(text_probabilities(policy), chosen_ST.prod(1), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_a_prepared_ensemble_steps_its_members_prepared_and_says_the_same(mean: MeanName) -> None:
    policy = EnsemblePolicy([lstm(1), lstm(2)], mean)
    with torch.no_grad():
        ready, tokens_B = policy.prepared(), torch.arange(V)
        expected, found = policy.begin(V), ready.begin(V)
        for _ in range(2):  # a prepared member writes its logits where those of the step before stood
            expected_BV, expected = policy.step(tokens_B, expected)
            found_BV, found = ready.step(tokens_B, found)
            assert torch.equal(found_BV, expected_BV)
    assert all(one is not another for one, another in zip(ready.policies, policy.policies, strict=True))
    assert ready.state_dict().keys() == policy.state_dict().keys()


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(0.5)])
def test_an_arithmetic_mean_read_at_once_is_that_of_its_steps(decoding: Decoding) -> None:
    members = [lstm(1), lstm(2)]
    mean_STV = (sum(map(stepwise, members)) / 2) ** (1 / decoding.temperature)
    policy = EnsemblePolicy(members).with_decoding(decoding)
    expected_STV = mean_STV / mean_STV.sum(2, keepdim=True)
    with torch.no_grad():
        found_STV = policy.all_log_probs(TOY.texts_ST).double().exp()
    torch.testing.assert_close(found_STV, expected_STV, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(stepwise(policy), expected_STV, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(text_probabilities(policy), stepped(policy), rtol=1e-5, atol=1e-7)


def test_of_what_one_policy_never_generates_half_stays_in_one_mean_and_nothing_in_the_other() -> None:
    one = UniformPolicy(V, start_token=0, forbidden=(1,))
    members = [one, UniformPolicy(V, start_token=0)]
    with torch.no_grad():
        arithmetic_V, geometric_V = (
            EnsemblePolicy(members, mean).all_log_probs(TOY.texts_ST[:1])[0, 0].exp()
            for mean in ("arithmetic", "geometric")
        )
    assert arithmetic_V.tolist() == pytest.approx([5 / 12, 1 / 6, 5 / 12])
    assert geometric_V.tolist() == pytest.approx([1 / 2, 0, 1 / 2])


def test_an_unknown_mean_and_an_ensemble_of_none_are_refused() -> None:
    assert_refused("unknown mean 'median'", EnsemblePolicy, [lstm(1)], mean="median")
    assert_refused("at least one policy", EnsemblePolicy, [])


@pytest.mark.parametrize("weights", [(0.7, 0.3), (0.05, 0.95)])
def test_a_mixture_has_the_weighted_law_of_whole_texts(weights: tuple[float, float]) -> None:
    cold = lstm(1).with_decoding(Decoding(0.3))
    policy = MixturePolicy([lstm(1), cold], weights)
    expected_S = weights[0] * text_probabilities(lstm(1)) + weights[1] * text_probabilities(cold)
    assert text_probabilities(policy).tolist() == pytest.approx(expected_S.tolist(), abs=1e-6)
    assert stepped(policy).tolist() == pytest.approx(expected_S.tolist(), abs=1e-6)


def test_a_mixture_writes_what_it_is_said_to_write() -> None:
    table = TablePolicy.from_text_probabilities(torch.arange(1.0, 28.0), vocab_size=V, max_length=T)
    policy = MixturePolicy([table, UniformPolicy(V, start_token=0)], [0.5, 0.5])
    tokens_BT, _ = generate(policy, Keys.counted(3, 4000), T)
    times_S = (tokens_BT @ torch.tensor([9, 3, 1])).bincount(minlength=27)
    expected_S = 4000 * text_probabilities(policy)
    assert float(((times_S - expected_S) ** 2 / expected_S).sum()) < 54  # chi-square, 26 degrees: 99.9 % point


def test_rows_of_a_mixture_can_begin_again() -> None:
    policy = MixturePolicy([lstm(1), lstm(2)], [0.5, 0.5])
    with torch.no_grad():
        state = policy.begin(2)
        first_BV, state = policy.step(torch.tensor([0, 0]), state)
        _, state = policy.step(torch.tensor([1, 2]), state)
        state = policy.reset_rows(state, torch.tensor([True, False]))
        again_BV, _ = policy.step(torch.tensor([0, 1]), state)
    assert again_BV[0].tolist() == pytest.approx(first_BV[0].tolist(), abs=1e-6)
    assert again_BV[1].tolist() != pytest.approx(first_BV[1].tolist(), abs=1e-3)


def test_mixing_a_policy_with_its_cold_self_costs_at_most_the_news_of_which_it_is() -> None:
    # NLL of a text under the mixture is at most its NLL under a part plus -log of the part's weight.
    hot = lstm(1)
    policy = MixturePolicy([hot, hot.with_decoding(Decoding(0.4))], [0.8, 0.2])
    texts_BT = TOY.split("test").tokens_BT
    mask_BT = torch.ones_like(texts_BT, dtype=torch.bool)
    assert nll(policy, texts_BT, mask_BT)[0] <= nll(hot, texts_BT, mask_BT)[0] - math.log(0.8) / T + 1e-9


@pytest.mark.parametrize(("policies", "weights", "sentence"), [
    ([lstm(1), UniformPolicy(4, start_token=0)], (0.5, 0.5), "one task"),
    ([lstm(1), lstm(2)], (0.5, 0.6), "add up to 1"),
    ([lstm(1), lstm(2)], (1.0, 0.0), "above 0"),
    ([lstm(1)], (0.5, 0.5), "weight"),
])  # fmt: skip
def test_policies_that_do_not_fit_together_are_refused(
    policies: list[PolicyModule], weights: tuple[float, ...], sentence: str
) -> None:
    assert_refused(sentence, MixturePolicy, policies, weights)


def test_policies_with_random_states_are_not_combined() -> None:
    assert_refused("initial state", EnsemblePolicy, [LSTMPolicy(V, start_token=0, initial_state="random")])


def test_the_best_discriminator_has_the_log_ratio_of_each_text_and_of_each_prefix() -> None:
    """By listing: a prefix is as probable as all texts that begin with it; half a text is a prefix, too."""
    policy = TablePolicy(V, max_length=T, logits_PV=torch.randn(13, V, generator=torch.Generator().manual_seed(0)))
    judge = RatioDiscriminator(TOY.oracle, policy, T)
    real_S, own_S = TOY.logp_S.exp(), text_probabilities(policy)
    expected_ST = torch.stack(
        [(real_S.view(V**seen, -1).sum(1) / own_S.view(V**seen, -1).sum(1)).log().repeat_interleave(V ** (T - seen))
         for seen in range(1, T + 1)], dim=1
    )  # fmt: skip
    torch.testing.assert_close(judge.token_logits(TOY.texts_ST).double(), expected_ST, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(judge.logits(TOY.texts_ST).double(), expected_ST[:, -1], atol=1e-5, rtol=1e-5)
    cut_ST = TOY.texts_ST.clone()
    cut_ST[:, 2:] = V
    assert judge.token_logits(cut_ST)[:, 2].eq(0).all()
    torch.testing.assert_close(judge.logits(cut_ST).double(), expected_ST[:, 1], atol=1e-5, rtol=1e-5)
    assert_refused(
        "one vocabulary, found V=3 and V=4", RatioDiscriminator, TOY.oracle, UniformPolicy(4, start_token=0), T
    )
