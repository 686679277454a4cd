"""Text VAE: its bound against the exact marginal, the importance estimate, whose z a completion has, what is learnt."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import textgan_env
from agents.vae import VAE, VAEConfig
from conftest import assert_refused, step_of
from exact import relative_error
from textgan_env.evaluation import evaluate, interpolate, near, nll
from textgan_env.ops.losses import gaussian_kl
from textgan_env.ops.tiles import Tile
from textgan_env.policies import Decoding, LatentPolicy, LSTMPolicy, PolicyModule, make_policy
from textgan_env.rewards import Keys, complete, generate, rollouts
from textgan_env.tasks import CorpusTask, ToyTask
from textgan_env.text.corpus import load_corpus
from textgan_env.training.launch import launch

TASK = ToyTask(vocab_size=3, max_length=3, size=200)
TINY = VAEConfig(
    preset="smoke", task="toy", epochs=2, anneal_epochs=0, latent_size=2, embed_size=4, hidden_size=4, batch_size=50,
    threads=1, show_samples=0, dropout=0.0,
)  # fmt: skip
EVERYWHERE = torch.ones_like(TASK.texts_ST, dtype=torch.bool)


def latent(latent_size: int = 1, **options: Any) -> LatentPolicy:
    """A policy whose texts depend on z; its encoder knows little, so that no weight of a sample is huge."""
    sizes: dict[str, Any] = {
        "embed_size": 4,
        "hidden_size": 5,
        "init_scale": 1.0,
        "latent_size": latent_size,
        "seed": 3,
    }
    policy = LatentPolicy(3, start_token=0, **{**sizes, **options}).eval().requires_grad_(False)
    for weights in policy.to_latent.parameters():
        weights.mul_(0.3)
    return policy


def nodes() -> tuple[Tensor, Tensor]:
    """Points and weights of an integral over N(0, 1)."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    return torch.tensor(points), torch.tensor(weights / math.sqrt(2 * math.pi))


def exact_log_prob(policy: LatentPolicy) -> Tensor:
    """Log G of every text of the toy task, z (one number) integrated out: float64 (S,)."""
    points_K, weight_K = nodes()
    rows = torch.ones(len(TASK.texts_ST), 1)
    logp_KS = torch.stack([TASK.text_log_prob(policy.with_latent(point * rows)).double() for point in points_K])
    return (logp_KS + weight_K.log()[:, None]).logsumexp(0)


def exact_bound(policy: LatentPolicy) -> Tensor:
    """The bound on it, its noise integrated out: float64 (S,)."""
    rows, total_S = torch.ones(len(TASK.texts_ST), 1), torch.zeros(len(TASK.texts_ST), dtype=torch.float64)
    for point, weight in zip(*nodes(), strict=True):
        logp_ST, kl_SZ = policy.autoencode(TASK.texts_ST, EVERYWHERE, point * rows)
        total_S += weight * (logp_ST.double().sum(1) - kl_SZ.double().sum(1))
    return total_S


def estimate(policy: LatentPolicy, draws: int, seed: int) -> Tensor:
    keys = Keys.counted(seed, len(TASK.texts_ST))
    return policy.text_log_prob(TASK.texts_ST, EVERYWHERE, seed_B=keys.seed_B, episode_B=keys.episode_B, draws=draws)


def test_the_kl_is_that_of_two_normal_distributions() -> None:
    mean_BZ, log_variance_BZ = torch.tensor([[0.0, 1.0, -2.0]]), torch.tensor([[0.0, 0.5, -1.0]])
    posterior = torch.distributions.Normal(mean_BZ, (log_variance_BZ / 2).exp())
    expected_BZ = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(gaussian_kl(mean_BZ, log_variance_BZ), expected_BZ)
    assert float(gaussian_kl(mean_BZ, log_variance_BZ)[0, 0]) == 0


def test_the_bound_lies_below_the_exact_marginal() -> None:
    policy = latent()
    exact_S = exact_log_prob(policy)
    assert float(exact_S.exp().sum()) == pytest.approx(1, abs=1e-6)
    gap_S = exact_S - exact_bound(policy)
    assert float(gap_S.min()) > 0
    assert float(gap_S.mean()) > 0.05


def test_the_importance_estimate_rises_from_the_bound_to_the_exact_marginal() -> None:
    policy = latent()
    exact = float(exact_log_prob(policy).mean())
    means = [float(torch.stack([estimate(policy, draws, seed) for seed in range(30)]).mean()) for draws in (1, 4, 20)]
    assert means[0] == pytest.approx(float(exact_bound(policy).mean()), abs=0.02)
    assert means[0] < means[1] - 0.02 < means[2] - 0.03 < exact - 0.03
    torch.testing.assert_close(estimate(policy, 400, 0), exact_log_prob(policy), atol=0.2, rtol=0)


def test_the_estimate_for_a_text_does_not_depend_on_the_texts_beside_it() -> None:
    policy, keys, order_S = latent(2), Keys.counted(7, len(TASK.texts_ST)), torch.arange(26, -1, -1)
    shuffled_S = policy.text_log_prob(
        TASK.texts_ST[order_S], EVERYWHERE, seed_B=keys.seed_B, episode_B=keys.episode_B[order_S], draws=3
    )
    torch.testing.assert_close(shuffled_S, estimate(policy, 3, 7)[order_S], atol=1e-5, rtol=0)


def test_without_weights_of_z_it_is_an_lstm_policy_bit_for_bit() -> None:
    policy = latent(4)
    plain = LSTMPolicy(3, start_token=0, embed_size=4, hidden_size=5).eval()
    plain.load_state_dict({name: policy.state_dict()[name] for name in plain.state_dict()})
    policy.from_latent.weight.zero_()
    keys = Keys.counted(0, 100)
    assert torch.equal(generate(policy, keys, 3)[0], generate(plain, keys, 3)[0])
    read = policy.for_texts(keys.seed_B[:27], keys.episode_B[:27])
    assert torch.equal(read.log_prob(TASK.texts_ST, EVERYWHERE), plain.log_prob(TASK.texts_ST, EVERYWHERE))


def test_stepping_scores_what_log_prob_does() -> None:
    keys = Keys.counted(5, len(TASK.texts_ST))
    policy = latent(3, num_layers=2).for_texts(keys.seed_B, keys.episode_B)
    stepped_ST = PolicyModule.log_prob(policy, TASK.texts_ST, EVERYWHERE)
    torch.testing.assert_close(policy.log_prob(TASK.texts_ST, EVERYWHERE), stepped_ST, atol=1e-5, rtol=0)
    other = policy.for_texts(keys.seed_B + 1, keys.episode_B)
    assert not torch.allclose(other.log_prob(TASK.texts_ST, EVERYWHERE), stepped_ST, atol=1e-2)


def test_z_is_normal_and_belongs_to_the_text() -> None:
    policy = latent(1)
    policy.from_latent.weight.fill_(1.0)
    keys = Keys.counted(7, 4000)
    hidden_BLH, _, added_BE = policy.for_texts(keys.seed_B, keys.episode_B).begin(4000)
    assert abs(float(added_BE[:, 0].mean())) < 0.03
    assert float(added_BE[:, 0].std()) == pytest.approx(1, abs=0.03)
    assert torch.equal(hidden_BLH[:, 0, 0], added_BE[:, 0])
    some = policy.for_texts(keys.seed_B[5:9], keys.episode_B[5:9])
    assert torch.equal(some.begin(4)[0], hidden_BLH[5:9])
    assert_refused("has the z of 4 texts, asked for 3", some.begin, 3)
    assert_refused(r"must have shape \(B, 1\)", policy.with_latent, torch.zeros(3, 2))


def test_completions_of_a_prefix_keep_its_z() -> None:
    policy = latent(2, init_scale=2.0).with_decoding(Decoding(deterministic=True))  # a text follows from its z
    keys = Keys.counted(1, 60)
    tokens_BT, _ = generate(policy, keys, 5)
    assert len(tokens_BT.unique(dim=0)) > 5
    wanted_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
    done = complete(policy, tokens_BT, wanted_BT, keys=keys, rollouts=2)
    assert torch.equal(done.tokens_RT, tokens_BT[done.row_R])
    others = complete(policy, tokens_BT, wanted_BT, keys=Keys.counted(2, 60))
    assert not torch.equal(others.tokens_RT, tokens_BT[others.row_R])


def test_what_stands_after_the_end_changes_nothing_that_the_encoder_says() -> None:
    policy = latent(2)
    short_BT = torch.tensor([[1, 2], [0, 3]])  # 3 is PAD
    longer_BT = torch.tensor([[1, 2, 3, 3], [0, 3, 3, 3]])
    for short_BZ, longer_BZ in zip(policy.encode(short_BT), policy.encode(longer_BT), strict=True):
        torch.testing.assert_close(short_BZ, longer_BZ)
    alone_1Z, _ = policy.encode(short_BT[1:, :1])
    torch.testing.assert_close(alone_1Z[0], policy.encode(short_BT)[0][1])


def test_it_is_made_again_from_its_config() -> None:
    policy = latent(2, dropout=0.1)
    again = make_policy(policy.kind, policy.config())
    again.load_state_dict(policy.state_dict())
    noise_SZ = torch.zeros(len(TASK.texts_ST), 2)
    assert isinstance(again, LatentPolicy)
    found, expected = (one.eval().autoencode(TASK.texts_ST, EVERYWHERE, noise_SZ) for one in (again, policy))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_the_nll_is_the_importance_estimate_and_the_evaluation_says_of_how_many_draws() -> None:
    policy = latent()
    result = evaluate(policy, TASK, samples=50, latent_draws=50)
    assert {name for name, why in result.missing.items() if "no formula" in why} == {"nll_self", "fit"}
    assert "50 importance samples" in str(result.settings["nll"])
    assert "50 importance samples" in result.table()
    test_BT = TASK.split("test").tokens_BT
    index_B = test_BT @ torch.tensor([9, 3, 1])
    exact = -float(exact_log_prob(policy)[index_B].mean()) / 3
    assert result.values["nll_test"] == pytest.approx(exact, abs=0.01)
    everywhere_BT = torch.ones_like(test_BT, dtype=torch.bool)
    assert nll(policy, test_BT, everywhere_BT, latent_draws=1)[0] > exact + 0.01


def batch_loss(agent: VAE, weight: float, **columns: Tensor) -> float:
    total, count = agent.objective(weight, **columns)["loss"]
    return float(total.detach()) / float(count)


@pytest.mark.parametrize("free_bits", [0.0, 100.0])
def test_the_loss_is_the_weighted_bound_over_the_tokens(free_bits: float) -> None:
    agent = VAE(replace(TINY, free_bits=free_bits), TASK)
    agent.policy.load_state_dict(latent(2, hidden_size=4).state_dict())
    texts_BT, noise_BZ = TASK.texts_ST[:10], torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    read_BT = texts_BT.masked_fill(texts_BT == 1, 3)
    columns = {"tokens_BT": texts_BT, "mask_BT": EVERYWHERE[:10], "noise_BZ": noise_BZ, "read_BT": read_BT}
    mean_BZ, log_variance_BZ = agent.policy.encode(texts_BT)
    decoder = agent.policy.with_latent(mean_BZ + (log_variance_BZ / 2).exp() * noise_BZ)
    likelihood = float(decoder.log_prob_after(read_BT, texts_BT, EVERYWHERE[:10]).sum().detach())
    kl = float(gaussian_kl(mean_BZ, log_variance_BZ).sum().detach()) if free_bits == 0 else 10 * 2 * free_bits
    assert batch_loss(agent, 0.7, **columns) == pytest.approx((0.7 * kl - likelihood) / 30, rel=1e-5)


def test_the_expected_gradient_of_a_batch_is_that_of_the_bound_integrated_over_z() -> None:
    task = ToyTask(vocab_size=2, max_length=2, size=50)
    agent = VAE(replace(TINY, latent_size=1), task)
    policy = agent.policy.double()
    with torch.no_grad():
        for weights in policy.parameters():
            weights.mul_(5.0)
    texts_BT, (points_K, weight_K) = task.texts_ST, nodes()
    mask_BT = torch.ones_like(texts_BT, dtype=torch.bool)
    parameters = [weights for weights in policy.parameters() if weights.requires_grad]

    total = torch.zeros((), dtype=torch.float64)
    for point, weight in zip(points_K, weight_K, strict=True):
        columns = {"tokens_BT": texts_BT, "mask_BT": mask_BT, "noise_BZ": point * torch.ones(4, 1), "read_BT": texts_BT}
        total = total + weight * agent.objective(1.0, **columns)["loss"][0]
    found = torch.autograd.grad(total, parameters)

    # Without the noise of z and without the formula of the KL: a sum over a grid of z.
    mean_B1, log_variance_B1 = policy.encode(texts_BT)
    encoder = torch.distributions.Normal(mean_B1, (log_variance_B1 / 2).exp())
    z_K1 = torch.linspace(-9, 9, 1801, dtype=torch.float64)[:, None]
    log_e_BK = encoder.log_prob(z_K1[:, 0])
    decoder = policy.with_latent(z_K1.repeat(4, 1))
    logp_BK = decoder.log_prob(*(part.repeat_interleave(1801, 0) for part in (texts_BT, mask_BT))).sum(1).view(4, -1)
    log_joint_BK = logp_BK - z_K1[:, 0].square() / 2 - math.log(2 * math.pi) / 2
    bound = 0.01 * (log_e_BK.exp() * (log_joint_BK - log_e_BK)).sum()
    expected = torch.autograd.grad(-bound, parameters)
    assert float(total.detach()) == pytest.approx(-float(bound.detach()), rel=1e-6)
    assert relative_error(*(torch.cat([part.flatten() for part in parts]) for parts in (found, expected))) < 1e-6


def test_words_are_hidden_from_the_decoder_by_the_share_that_was_asked_for() -> None:
    for share in (0.0, 0.3, 1.0):
        agent = VAE(replace(TINY, word_dropout=share, batch_size=200), TASK)
        _, tokens_BT, noise_BZ, read_BT = next(agent.batches(torch.Generator().manual_seed(0)))
        hidden_BT = read_BT == TASK.vocab_size
        assert torch.equal(read_BT[~hidden_BT], tokens_BT[~hidden_BT])
        assert float(hidden_BT.float().mean()) == pytest.approx(share, abs=0.06)
        assert noise_BZ.shape == (200, 2)


def test_the_weight_of_the_kl_grows_in_a_straight_line_to_its_end() -> None:
    agent = VAE(replace(TINY, anneal_epochs=2, kl_coef=0.5), TASK)
    weights = [agent.kl_weight(replace(step_of(0, "x"), round=at, batches=4)) for at in range(4)]
    assert weights == [0, 0.25, 0.5, 0.5]
    assert VAE(TINY, TASK).kl_weight(step_of(0, "x")) == 1


def test_active_units_are_those_whose_mean_depends_on_the_text() -> None:
    agent = VAE(replace(TINY, ema_decay=0.0, latent_size=3), TASK)
    with torch.no_grad():
        agent.policy.to_latent.weight.zero_()
        agent.policy.to_latent.bias.zero_()
        agent.policy.to_latent.weight[1] = 50.0
    numbers = agent.measure_latent(step_of(0, "x"))
    assert numbers["active_units"] == 1
    mean_BZ = agent.policy.encode(TASK.split("valid").tokens_BT)[0].detach()
    assert float(numbers["kl_latent"]) == pytest.approx(float(mean_BZ.square().sum(1).mean()) / 2, rel=1e-4)


def test_the_measured_bound_lies_below_the_exact_likelihood_of_the_valid_split() -> None:
    agent = VAE(replace(TINY, ema_decay=0.0, latent_size=1), TASK)
    agent.policy.load_state_dict(latent(1, hidden_size=4).state_dict())
    index_B = TASK.split("valid").tokens_BT @ torch.tensor([9, 3, 1])
    with torch.no_grad():
        exact = -float(exact_log_prob(agent.policy)[index_B].mean()) / 3
    assert float(agent.measure_latent(step_of(0, "x"))["bound_valid"]) > exact + 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("options", "active", "kl"), [
    ({"word_dropout": 0.0}, 0, 0.0), ({"word_dropout": 1.0}, 1, 0.36), ({"word_dropout": 0.0, "free_bits": 0.3}, 2, 0.6)
])  # fmt: skip
def test_a_decoder_that_reads_every_word_ignores_z_and_one_that_reads_none_uses_it(
    options: dict[str, Any], active: int, kl: float
) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "embed_size": 8,
        "learning_rate": 2e-2,
        "weight_decay": 0.0,
        "batch_size": 100,
    }
    agent = VAE(replace(TINY, **sizes, **options), ToyTask())
    for epoch in range(20):
        agent.mle_steps_of("epoch").alone(epoch)
    numbers = agent.measure_latent(step_of(0, "x"))
    assert numbers["active_units"] == active
    assert float(numbers["kl_latent"]) == pytest.approx(kl, abs=0.05)


def test_a_run_learns_the_toy_law_and_is_loaded(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "embed_size": 8,
        "learning_rate": 2e-2,
        "weight_decay": 0.0,
        "batch_size": 100,
    }
    config = replace(TINY, epochs=20, eval_every=20, word_dropout=0.0, runs=tmp_path, **sizes)
    run = textgan_env.load(launch(config, VAE).path)
    assert isinstance(run.policy, LatentPolicy)
    assert 0 < run.evaluate(samples=100).values["cover"] < 0.08
    assert len(run.sample(3)) == 3
    assert len(run.interpolate("0 1 2 3", "3 3 3 3", 4)) == len(run.near("0 1 2 3", 4)) == 4


def test_a_run_can_interpolate_and_write_near_a_text() -> None:
    lines = [f"the {noun} {verb}" for noun in ("cat", "dog", "bird", "cow") for verb in ("sits", "runs", "eats", "is")]
    task = CorpusTask(load_corpus(texts=lines * 3, valid_share=0.2, test_share=0.2))
    options: dict[str, Any] = {"start_token": task.start_token, "forbidden": task.forbidden}
    policy = LatentPolicy(task.vocab_size, latent_size=2, init_scale=1.5, **options).eval()
    texts = interpolate(policy, task, "the cat sits", "the dog runs", 5)
    assert len(texts) == 5
    back = interpolate(policy, task, "the dog runs", "the cat sits", 5)
    assert texts == back[::-1]
    assert near(policy, task, "the cat sits", 4, seed=1) == near(policy, task, "the cat sits", 6, seed=1)[:4]
    assert_refused("count must be at least 2", interpolate, policy, task, "the cat", "the dog", 1)
    assert_refused("1 to 3 tokens", near, policy, task, "")
    assert_refused("1 to 3 tokens", near, policy, task, "the cat sits the dog")
    plain = LSTMPolicy(task.vocab_size, **options)
    assert_refused("textgan train vae", near, plain, task, "the cat")


@pytest.mark.parametrize(("options", "sentence"), [
    ({"latent_size": 0}, "latent_size must be at least 1"), ({"latent_size": 10**6}, "latent_size must be at most"),
    ({"word_dropout": 1.5}, "word_dropout must be at most 1"), ({"free_bits": -1.0}, "free_bits"),
    ({"kl_coef": -1.0}, "kl_coef"), ({"anneal_epochs": -1}, "anneal_epochs"), ({"word_dropout": -0.1}, "word_dropout"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, VAE, replace(TINY, **options), TASK)


def test_completions_in_parts_keep_the_z_that_was_given_to_each_text(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = latent().with_latent(torch.linspace(-3, 3, 8)[:, None])
    tokens_BT = torch.zeros(8, 3, dtype=torch.int64)
    how: Any = {"keys": Keys.counted(1, 8), "rollouts": 4}
    whole = complete(policy, tokens_BT, torch.ones_like(tokens_BT, dtype=torch.bool), **how)
    monkeypatch.setattr(rollouts, "STATE_BYTES", Tile(cpu=2_000, gpu=2_000))
    parts = complete(policy, tokens_BT, torch.ones_like(tokens_BT, dtype=torch.bool), **how)
    assert torch.equal(parts.tokens_RT, whole.tokens_RT)
    assert torch.equal(parts.row_R, whole.row_R)
