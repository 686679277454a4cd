"""Texts of mixtures: discriminators that read them, noise drawn given the token, and steps down their slope."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from conftest import assert_refused
from test_discriminators import T, V, random_texts, small, small_conv
from textgan_env.discriminators import DiscriminatorModule, PairDiscriminator, RankDiscriminator, fit_soft_step
from textgan_env.discriminators.fit import fit_step
from textgan_env.ops.relaxation import one_hot, race_noise, soft_tokens
from textgan_env.policies import RatioDiscriminator, TablePolicy
from textgan_env.tasks import ToyTask

KINDS = ("conv", "pair", "recurrent")
each_kind = pytest.mark.parametrize("kind", KINDS)


def mixtures(
    rows: int, length: int = T, vocab_size: int = V, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Random distributions over tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, length, vocab_size, generator=generator, dtype=dtype).softmax(2)


def taught(kind: str) -> DiscriminatorModule:
    """With weights that are all in use, in eval mode."""
    discriminator = small(kind).eval()
    for number, parameter in enumerate(discriminator.parameters()):
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(number))
    return discriminator


# -- Discriminators ---------------------------------------------------------------------------------------------------
@each_kind
@pytest.mark.parametrize("gradients", [True, False])
def test_mixtures_that_are_tokens_have_the_features_of_the_tokens_to_the_bit(kind: str, gradients: bool) -> None:
    discriminator, tokens_BT = taught(kind), random_texts(9)
    mask_BT = tokens_BT != V
    soft_BTV = one_hot(tokens_BT, V, torch.float32)
    with torch.set_grad_enabled(gradients):
        assert torch.equal(discriminator.relaxed_features(soft_BTV, mask_BT), discriminator.features(tokens_BT))
        assert torch.equal(discriminator.relaxed_logits(soft_BTV, mask_BT), discriminator.logits(tokens_BT))


@each_kind
def test_what_stands_after_the_end_counts_for_nothing_and_has_no_gradient(kind: str) -> None:
    discriminator, mask_BT = taught(kind), random_texts(9) != V
    soft_BTV = mixtures(9).requires_grad_()
    logits_B = discriminator.relaxed_logits(soft_BTV, mask_BT)
    other_BTV = torch.where(mask_BT[..., None], soft_BTV.detach(), mixtures(9, seed=1))
    assert torch.equal(discriminator.relaxed_logits(other_BTV, mask_BT), logits_B)
    (slope_BTV,) = torch.autograd.grad(logits_B.sum(), soft_BTV)
    assert slope_BTV[~mask_BT].eq(0).all()
    assert slope_BTV[mask_BT].ne(0).any(1).float().mean() > 0.5


@each_kind
def test_permuted_mixtures_have_permuted_logits_and_gradients(kind: str) -> None:
    discriminator, mask_BT, order_B = taught(kind), random_texts(5) != V, torch.tensor([3, 0, 4, 1, 2])
    found = []
    for rows_B in (torch.arange(5), order_B):
        soft_BTV = mixtures(5)[rows_B].requires_grad_()
        logits_B = discriminator.relaxed_logits(soft_BTV, mask_BT[rows_B])
        found.append((logits_B, *torch.autograd.grad(logits_B.sum(), soft_BTV)))
    for whole, permuted in zip(*found, strict=True):
        torch.testing.assert_close(permuted, whole[order_B])


def mean_logit(logits: Callable[[Tensor], Tensor], soft_TV: Tensor, length: int) -> float:
    """The mean over all texts of so many tokens, each drawn from its own distribution; by plain loops."""
    places, vocab_size = soft_TV.shape
    total = 0.0
    for text in itertools.product(range(vocab_size), repeat=length):
        share = float(torch.stack([soft_TV[place, token] for place, token in enumerate(text)]).prod())
        filled = [*text, *[vocab_size] * (places - length)]
        total += share * float(logits(torch.tensor([filled])).detach())
    return total


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_the_pair_discriminators_logit_is_the_mean_over_independent_tokens(length: int) -> None:
    pair = PairDiscriminator(3, 4, rank=2).double()
    for parameter in pair.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    soft_BTV = mixtures(2, 4, 3, dtype=torch.float64)
    found_B = pair.relaxed_logits(soft_BTV, torch.arange(4).expand(2, 4) < length)
    for row in range(2):
        assert float(found_B[row].detach()) == pytest.approx(mean_logit(pair.logits, soft_BTV[row], length), rel=1e-9)


def test_the_best_discriminators_logit_is_the_mean_over_independent_tokens() -> None:
    task = ToyTask(vocab_size=3, max_length=3, size=5)
    best = RatioDiscriminator(task.oracle, TablePolicy(3, max_length=3), 3)
    soft_BTV = mixtures(2, 3, 3, dtype=torch.float64)
    found_B = best.relaxed_logits(soft_BTV, torch.ones(2, 3, dtype=torch.bool))
    for row in range(2):
        assert float(found_B[row].detach()) == pytest.approx(mean_logit(best.logits, soft_BTV[row], 3), rel=1e-6)
    assert_refused("each of T tokens", best.relaxed_logits, soft_BTV, torch.zeros(2, 3, dtype=torch.bool))


def test_mixtures_that_cannot_be_read_are_refused() -> None:
    mask_BT = torch.ones(2, T, dtype=torch.bool)
    assert_refused(
        "a rank discriminator reads tokens only", RankDiscriminator(V, T).relaxed_features, mixtures(2), mask_BT
    )
    for kind in KINDS:
        read = small(kind).relaxed_features
        assert_refused(r"\(B, T=6, V=7\), found \(2, 5, 7\)", read, mixtures(2, T - 1), mask_BT)
        assert_refused(r"mask of soft texts must have shape \(2, 6\)", read, mixtures(2), mask_BT[:1])


@each_kind
def test_a_step_on_mixtures_that_are_tokens_is_the_step_on_the_tokens(kind: str) -> None:
    real_HT, fake_HT = random_texts(6, seed=1), random_texts(6, seed=3)
    found = []
    for soft in (False, True):
        discriminator = small_conv(dropout=0.0) if kind == "conv" else small(kind)
        optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1)
        if soft:
            soft_HTV = one_hot(fake_HT, V, torch.float32)
            numbers = fit_soft_step(discriminator, optimizer, real_HT, soft_HTV, fake_HT != V)
        else:
            numbers = fit_step(discriminator, optimizer, torch.cat([real_HT, fake_HT]), objective="pairs")
        found.append((numbers, discriminator.state_dict()))
    torch.testing.assert_close(found[1][0], found[0][0])
    for name, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], value, msg=name)


# -- Noise that is drawn after the token ------------------------------------------------------------------------------
LOGP_V = torch.tensor([0.55, 0.05, 0.3, 0.1], dtype=torch.float64).log()


def drawn(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens of one place drawn from a distribution, their log-probabilities and noise."""
    generator = torch.Generator().manual_seed(seed)
    tokens_R1 = torch.multinomial(LOGP_V.exp(), rows, replacement=True, generator=generator)[:, None]
    return LOGP_V.expand(rows, 1, 4), tokens_R1, race_noise(tokens_R1, 4, generator)


@pytest.mark.parametrize("beta", [0.5, 2.0, 20.0])
def test_a_mixture_is_highest_at_its_token_and_distributed_as_if_the_noise_had_come_first(beta: float) -> None:
    rows = 40_000
    logp, tokens_R1, noise = drawn(rows)
    soft_RV = soft_tokens(logp, tokens_R1, noise, beta)[:, 0]
    assert torch.equal(soft_RV.argmax(1), tokens_R1[:, 0])
    gumbel_RV = -torch.empty(rows, 4).exponential_(generator=torch.Generator().manual_seed(9)).log()
    expected_RV = (beta * (LOGP_V + gumbel_RV)).softmax(1)
    # Each moment of each component, in standard errors of a difference of two means.
    for power in (1, 2):
        one, two = soft_RV**power, expected_RV**power
        error_V = ((one.var(0) + two.var(0)) / rows).sqrt()
        assert ((one.mean(0) - two.mean(0)).abs() / error_V).max() < 4
    together = (soft_RV[:, 0] * soft_RV[:, 2]).mean(), (expected_RV[:, 0] * expected_RV[:, 2]).mean()
    assert float(together[0]) == pytest.approx(float(together[1]), rel=0.1, abs=2e-3)


def test_a_mixture_becomes_its_token_and_never_holds_one_that_cannot_be() -> None:
    logp, tokens_R1, noise = drawn(500)
    nearly = soft_tokens(logp, tokens_R1, noise, 1e6)[:, 0]
    torch.testing.assert_close(nearly.mean(0), one_hot(tokens_R1, 4, torch.float64)[:, 0].mean(0), atol=0.01, rtol=0)
    logits_BTV = torch.tensor([[[0.0, 1.0, -torch.inf, 0.5]]], requires_grad=True)
    noise = race_noise(torch.tensor([[1]]), 4, torch.Generator().manual_seed(0))
    soft_BTV = soft_tokens(logits_BTV.log_softmax(2), torch.tensor([[1]]), noise, 2.0)
    assert float(soft_BTV[0, 0, 2].detach()) == 0
    (slope,) = torch.autograd.grad(soft_BTV[0, 0, 1], logits_BTV)
    assert torch.isfinite(slope).all()
    assert float(slope[0, 0, 2]) == 0


def test_the_gradient_of_a_mixture_is_that_of_a_softmax_whose_noise_is_fixed() -> None:
    logp, tokens_R1, noise = drawn(3)
    logp = logp.clone().requires_grad_()
    weight_RV = mixtures(3, 1, 4, seed=2, dtype=torch.float64)
    soft = soft_tokens(logp, tokens_R1, noise, 3.0)
    (found,) = torch.autograd.grad((soft * weight_RV).sum(), logp)
    fixed = soft.detach()
    torch.testing.assert_close(found, 3 * fixed * (weight_RV - (weight_RV * fixed).sum(2, keepdim=True)))
