"""What a discriminator is worth: against Gaussians, against all texts of a small law, and what is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents import cli, mle, rankgan, seqgan, textgan
from conftest import PositionDiscriminator, StubPolicy, assert_refused, global_rng_state, mistake_of
from exact import table_policy
from textgan_env import load
from textgan_env.discriminators import PairDiscriminator, RankDiscriminator
from textgan_env.evaluation import discriminator_worth, worth_of_logits
from textgan_env.ops.losses import normalised_weights
from textgan_env.policies import RatioDiscriminator
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import ToyTask
from textgan_env.training.launch import launch
from textgan_env.training.rewarded import OF_WORTH

TASK = ToyTask(vocab_size=3, max_length=3, size=4000)


def gaussian(mean: float, deviation: float, count: int = 20_000) -> Tensor:
    """The middles of so many equally probable parts of a Gaussian, float64."""
    normal_B: Tensor = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    return mean + deviation * normal_B


def sides(apart: float) -> tuple[Tensor, Tensor]:
    """Logits of the best D where log p / q is Gaussian: real texts, texts of the policy; halves alike."""
    return gaussian(apart**2 / 2, apart), gaussian(-(apart**2) / 2, apart)


class TableDiscriminator(nn.Module):
    """A logit of its own for each of the 27 texts."""

    feature_size = 1

    def __init__(self, logit_S: Tensor) -> None:
        super().__init__()
        self.vocab_size = self.max_length = 3
        self.logit_S = nn.Buffer(logit_S)

    def logits(self, tokens_BT: Tensor) -> Tensor:
        logit_B: Tensor = self.logit_S[(tokens_BT.clamp(max=2) * torch.tensor([9, 3, 1])).sum(1)]
        return logit_B

    def features(self, tokens_BT: Tensor) -> Tensor:
        return self.logits(tokens_BT)[:, None]


@pytest.mark.parametrize("apart", [0.3, 0.8, 1.2])
def test_a_gaussian_logit_gains_what_the_bound_says(apart: float) -> None:
    found = worth_of_logits(*sides(apart), tokens=10.0)
    half = apart**2 / 2 / 10
    assert found.auc == pytest.approx(0.5 * (1 + math.erf(apart / 2)), abs=1e-4)
    assert (found.bound, found.gain, found.scaled_gain) == pytest.approx((half, half, half), rel=5e-3)
    assert found.scale == pytest.approx(1.0, abs=5e-3)
    assert found.effective_share == pytest.approx(math.exp(-(apart**2)), rel=3e-2)  # 1 / E[w^2] of a lognormal


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    real_B, fake_B = sides(0.8)
    plain, moved = vars(worth_of_logits(real_B, fake_B)), vars(worth_of_logits(real_B + 300.0, fake_B + 300.0))
    assert moved == pytest.approx(plain)


def test_a_discriminator_that_is_too_sure_loses_and_its_scale_says_how_sure_it_may_be() -> None:
    real_B, fake_B = sides(0.8)
    right, sure = worth_of_logits(real_B, fake_B), worth_of_logits(4 * real_B, 4 * fake_B)
    assert (sure.auc, sure.bound) == (right.auc, right.bound)
    assert sure.gain < 0 < right.gain
    assert sure.scale == pytest.approx(right.scale / 4, rel=1e-3)
    assert sure.scaled_gain == pytest.approx(right.scaled_gain, rel=1e-3)


def test_the_bound_is_zero_for_what_cannot_tell_and_finite_for_what_always_can() -> None:
    real_B, fake_B = sides(0.8)
    assert worth_of_logits(fake_B, real_B).bound == 0.0
    assert 0 < worth_of_logits(real_B + 99, fake_B).bound < 50


def test_gains_are_those_of_the_whole_reweighted_law() -> None:
    """p, q and w as counts of all texts: each expectation is a sum, here and by their probabilities."""
    generator = torch.Generator().manual_seed(0)
    p_S, q_S = (torch.randint(1, 9, (12,), generator=generator).double() for _ in range(2))
    z_S = torch.randn(12, generator=generator, dtype=torch.float64)
    texts_S = torch.arange(12)
    real_B, fake_R = (texts_S.repeat_interleave(count_S.long()) for count_S in (p_S, q_S))
    p_S, q_S = p_S / p_S.sum(), q_S / q_S.sum()
    better_S = q_S * z_S.exp() / (q_S * z_S.exp()).sum()
    ratio_S = (p_S / q_S).log()
    found = worth_of_logits(z_S[real_B], z_S[fake_R], ratio_S[fake_R], tokens=2.0)

    def divergence(one_S: Tensor, other_S: Tensor) -> Tensor:
        return (one_S * (one_S / other_S).log()).sum()

    assert found.gain == pytest.approx(float(divergence(p_S, q_S) - divergence(p_S, better_S)) / 2)
    assert found.fit_gain == pytest.approx(float(divergence(q_S, p_S) - divergence(better_S, p_S)) / 2)
    centred_S, of_ratio_S = z_S - (q_S * z_S).sum(), ratio_S - (q_S * ratio_S).sum()
    variance = (q_S * centred_S**2).sum() * (q_S * of_ratio_S**2).sum()
    assert found.correlation == pytest.approx(float((q_S * centred_S * of_ratio_S).sum() / variance.sqrt()))
    assert found.effective_share == pytest.approx(float(1 / (better_S**2 / q_S).sum()))
    wins = (p_S[:, None] * q_S * ((z_S[:, None] > z_S).double() + (z_S[:, None] == z_S) / 2)).sum()
    assert found.auc == pytest.approx(float(wins))


def test_the_best_discriminator_is_worth_all_that_the_policy_lacks() -> None:
    policy = table_policy(TASK, spread=0.5)
    cover, fit = TASK.divergences(policy)
    found = discriminator_worth(RatioDiscriminator(TASK.oracle, policy, 3), policy, TASK)
    assert found.gain == pytest.approx(cover, abs=4 * found.gain_error)
    assert found.fit_gain == pytest.approx(fit, abs=0.1 * fit)
    assert found.correlation == pytest.approx(1.0)
    assert found.scale == pytest.approx(1.0, abs=0.1)
    assert (found.real_texts, found.fake_texts, found.left_out, found.tokens) == (4000, 4000, 0, 3.0)


def test_any_discriminator_gains_what_all_texts_say_that_it_does() -> None:
    policy = table_policy(TASK, spread=0.5)
    logit_S = torch.randn(27, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = discriminator_worth(TableDiscriminator(logit_S), policy, TASK)
    with torch.no_grad():
        q_S = TASK.text_log_prob(policy).double().exp()
    exact = float((TASK.logp_S.exp() * logit_S).sum() - (q_S * logit_S.exp()).sum().log()) / 3
    assert found.gain == pytest.approx(exact, abs=4 * found.gain_error)
    assert found.noise == pytest.approx(noise_of(q_S), rel=0.05)


def noise_of(q_S: Tensor) -> float:
    """Standard error of the NLL of 4,000 texts of the law under a policy, nats per token."""
    p_S, nll_S = TASK.logp_S.exp(), -q_S.log()
    mean = (p_S * nll_S).sum()
    return float((p_S * (nll_S - mean) ** 2).sum().sqrt()) / math.sqrt(4000) / 3


def test_the_same_call_gives_the_same_numbers_and_moves_nothing() -> None:
    policy, discriminator = table_policy(TASK), PairDiscriminator(3, 3).train()
    before = global_rng_state()
    first, again, other = (discriminator_worth(discriminator, policy, TASK, samples=50, seed=at) for at in (0, 0, 1))
    assert first == again != other
    assert (discriminator.training, global_rng_state()) == (True, before)


def test_without_an_oracle_or_a_formula_of_the_policy_nothing_is_said_of_the_truth() -> None:
    found = worth_of_logits(*sides(0.5))
    assert (found.correlation, found.fit_gain) == (None, None)
    assert not {"correlation", "fit_gain"} & set(found.table().split())


def test_texts_that_the_discriminator_has_learnt_from_are_left_out_and_counted() -> None:
    policy, test_BT = table_policy(TASK), TASK.split("test").tokens_BT
    known_RT = test_BT[:1]
    expected = int((test_BT == known_RT).all(1).sum())
    found = discriminator_worth(PairDiscriminator(3, 3), policy, TASK, fitted_on=known_RT)
    assert (found.left_out, found.real_texts) == (expected, 4000 - expected)


def test_a_small_bound_is_said_to_be_small() -> None:
    found = worth_of_logits(*sides(0.2), noise=1.0)
    assert found.small
    assert found.sentence().endswith("what it can gain does not show there")
    assert not replace(found, noise=0.001).small


def test_weighing_that_wins_more_than_the_bound_is_what_the_sentence_says() -> None:
    found = replace(worth_of_logits(*sides(0.5)), bound=0.01, scaled_gain=0.03, noise=0.02)
    assert found.best == 0.03
    assert not found.small
    assert "is worth 0.0300 nats a token (scaled_gain, which is above the bound 0.0100" in found.sentence()
    within = replace(found, scaled_gain=0.005)
    assert (within.best, within.small) == (0.01, True)
    assert "is worth 0.0100 nats a token, less than" in within.sentence()


def test_what_cannot_be_asked_is_refused_in_a_sentence() -> None:
    policy, discriminator, other = table_policy(TASK), PairDiscriminator(3, 3), ToyTask(vocab_size=3, max_length=2)
    test_BT = TASK.split("test").tokens_BT
    refused = (discriminator_worth, discriminator, policy, TASK)
    assert_refused("never about texts that it has learnt from: found 'train'", *refused, split="train")
    assert_refused(r"has 0 left \(4,000 stand among those", *refused, fitted_on=test_BT)
    assert_refused("samples must be at least 2, found 1", *refused, samples=1)
    assert_refused("reads V=3, T=3; task 'toy' has V=3, T=2", discriminator_worth, discriminator, policy, other)
    assert_refused("the policy writes V=2 tokens", discriminator_worth, discriminator, StubPolicy([0.0, 0.0]), TASK)
    ranker = RankDiscriminator(3, 3)
    assert_refused("its logit is no log p / q", discriminator_worth, ranker, policy, TASK)
    assert_refused("2 texts a side are needed, found 1 and 2", worth_of_logits, torch.zeros(1), torch.zeros(2))
    assert_refused("reads V=2, T=3", discriminator_worth, PositionDiscriminator(2, 3), policy, TASK)


@pytest.fixture(scope="module")
def seqgan_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A small run whose D has learnt."""
    config = replace(seqgan.PRESETS["smoke"]("toy"), threads=1, show_samples=0, rounds=1, max_length=3)
    return launch(replace(config, runs=tmp_path_factory.mktemp("runs")), seqgan.SeqGAN)


def test_a_run_logs_what_its_discriminator_is_worth_at_evaluations(seqgan_run: RunFolder) -> None:
    rows = read_metrics(seqgan_run.path)
    phases = [row["phase"] for row in rows if set(OF_WORTH) <= set(row)]
    assert phases == ["pretrain_d", "adversarial"]  # in maximum likelihood D has not learnt
    assert not [row for row in rows if row["phase"] == "mle" and set(OF_WORTH) & set(row)]


@pytest.mark.parametrize(
    ("module", "changes", "logs"),
    [
        (seqgan, {}, True),
        (seqgan, {"control": "shuffled"}, True),
        (seqgan, {"control": "random"}, False),
        (seqgan, {"discriminator": "bleu"}, False),
        (rankgan, {}, False),
        (textgan, {}, False),
    ],
)
def test_only_a_learning_discriminator_whose_logit_pays_has_a_worth(module: Any, changes: Any, logs: bool) -> None:
    config = replace(module.PRESETS["smoke"]("toy"), **changes)
    (kind,) = [one for name, one in vars(module).items() if name.lower() == module.__name__.split(".")[1]]
    agent = kind(config, ToyTask(size=300))
    assert agent.at_evaluation() == {}
    if agent.d_learns:
        agent.d_steps_of(1).alone(0)
    assert set(agent.at_evaluation()) == (set(OF_WORTH) if logs else set())


def test_a_run_that_can_gain_less_than_its_noise_says_so_when_its_last_phase_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = worth_of_logits(*sides(0.1), noise=1.0)
    monkeypatch.setattr(seqgan.SeqGAN, "worth", lambda _: small)
    config = replace(seqgan.PRESETS["smoke"]("toy"), threads=1, show_samples=0, mle_epochs=0, rounds=1, max_length=3)
    launch(replace(config, runs=tmp_path), seqgan.SeqGAN)
    lines = capsys.readouterr().out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if "this run can hardly gain" in line]
    assert lines[at] == f"warning: this run can hardly gain: {small.sentence()}"
    assert [lines[at + step].split()[0] for step in (-2, -1, 1)] == ["pretrain_d", "measuring", "adversarial"]


@pytest.mark.moves_global_rng  # reading the words does
def test_the_command_says_what_the_discriminator_of_a_run_is_worth(
    seqgan_run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    cli.main(["worth", str(seqgan_run.path), "--samples", "300"])
    said = capsys.readouterr().out
    found = load(seqgan_run.path).discriminator_worth(samples=300)
    assert found.table() in said
    assert said.endswith(f"{found.sentence()[1:]}.\n")
    cli.main(["worth", str(seqgan_run.path), "--samples", "300", "--json"])
    assert json.loads(capsys.readouterr().out) == vars(found)


@pytest.mark.moves_global_rng
def test_a_run_without_a_discriminator_has_no_worth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = replace(mle.PRESETS["smoke"]("toy"), threads=1, show_samples=0)
    run = launch(replace(config, runs=tmp_path), mle.MLE)
    said = mistake_of(cli.main, ["worth", str(run.path)], capsys)
    assert said == f"error: run '{run.path}' has no discriminator that has learnt: expected an adversarial run\n"


def test_a_scale_leaves_enough_texts_for_its_gain_to_be_believed() -> None:
    """Five standard deviations apart: of 400 texts hardly one has all the weight at scale 1."""
    real_B, fake_B = gaussian(12.5, 5.0, 400), gaussian(-12.5, 5.0, 400)
    found = worth_of_logits(real_B, fake_B)
    assert found.effective_share * 400 < 3
    assert float(normalised_weights(found.scale * fake_B).square().mean()) == pytest.approx(400 / 50, rel=1e-3)
    assert 0 < found.scaled_gain < 12.5
