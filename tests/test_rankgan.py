"""RankGAN: ranks and losses by hand, both rules' expected gradients by enumeration, what a ranker can teach."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from agents.rankgan import ContestCredit, RankGAN, RankGANConfig
from conftest import assert_refused, step_of
from exact import autograd_of, expected_gradient, gradient_of_step, relative_error, table_policy
from textgan_env import load
from textgan_env.discriminators import PairDiscriminator, RankDiscriminator, score_logits
from textgan_env.discriminators.fit import fit_step
from textgan_env.policies import PolicyModule, TablePolicy
from textgan_env.rewards import Keys, Texts
from textgan_env.tasks import ToyTask
from textgan_env.training.launch import launch
from textgan_env.training.schedule import Step

V, T = 3, 3
TASK = ToyTask(vocab_size=V, max_length=T, size=200)
SMALL = ToyTask(vocab_size=2, max_length=2, size=50)
TINY = RankGANConfig(
    preset="smoke", task="toy", mle_epochs=1, d_pretraining=1, rounds=2, g_steps=1, batch_size=8, d_batch_size=250,
    embed_size=4, hidden_size=4, threads=1, show_samples=0, max_grad_norm=1e8, rollouts=0,
)  # fmt: skip
RULES = pytest.mark.parametrize("rule", ["paper", "reference"])


def ranker(task: ToyTask = TASK, **options: Any) -> RankDiscriminator:
    """Features of a small network that has learnt nothing, with references and a comparison set."""
    made = RankDiscriminator(
        task.vocab_size, task.max_length, **{"references": 4, "comparison": 5, "seed": 3} | options
    )
    made.draw(task.writable("train"), torch.Generator().manual_seed(5))
    return made.eval()


def learner(policy: PolicyModule | None = None, task: ToyTask = TASK, **changes: Any) -> RankGAN:
    """The agent with a tabular policy."""
    agent = RankGAN(replace(TINY, **changes), task)
    agent.policy = TablePolicy(task.vocab_size, max_length=task.max_length) if policy is None else policy
    agent.g_optimizer = torch.optim.Adam(agent.policy.parameters(), lr=0.05)
    return agent


def cosine(one_F: Tensor, other_F: Tensor) -> float:
    """As it is defined."""
    return float(one_F @ other_F) / math.sqrt(float(one_F @ one_F) * float(other_F @ other_F))


def plain_rank(of: RankDiscriminator, text_F: Tensor, others_CF: Tensor, references_RF: Tensor) -> float:
    """R by sums over cosines, one text at a time."""
    nearness = [[of.gamma * cosine(one_F, u_F) for u_F in references_RF] for one_F in (text_F, *others_CF)]
    if of.rule == "reference":
        nearness = [[sum(row)] for row in nearness]
    columns = [*zip(*nearness, strict=True)]
    return sum(math.exp(own) / sum(map(math.exp, (own, *rest))) for own, *rest in columns) / len(columns)


@RULES
def test_the_probability_is_the_rank_beside_the_comparison_set_by_hand(rule: str) -> None:
    of = ranker(rule=rule, gamma=2.0)
    with torch.no_grad():
        features_BF, others_CF, references_RF = map(of.features, (TASK.texts_ST, of.comparison_CT, of.references_RT))
        expected = [plain_rank(of, text_F, others_CF, references_RF) for text_F in features_BF]
        torch.testing.assert_close(of.score_real(TASK.texts_ST), torch.tensor(expected))
        torch.testing.assert_close(of.logits(TASK.texts_ST), of.head(features_BF))


@RULES
def test_the_ranks_of_a_set_beside_its_others_add_up_to_one(rule: str) -> None:
    of = ranker(rule=rule, gamma=3.0)
    with torch.no_grad():
        close_CR = of.closeness(of.features(TASK.texts_ST[:6]), of.features(of.references_RT))
    others = [torch.cat([close_CR[:row], close_CR[row + 1 :]]) for row in range(6)]
    ranks = [float(of.beside(close_CR[row : row + 1], others[row]).sigmoid()) for row in range(6)]
    assert sum(ranks) == pytest.approx(1.0, abs=1e-6)
    assert max(ranks) > 1.2 / 6


@RULES
def test_without_gamma_all_ranks_are_those_of_chance(rule: str) -> None:
    of = ranker(rule=rule, gamma=0.0)
    torch.testing.assert_close(of.score_real(TASK.texts_ST), torch.full((27,), 1 / 6))
    named = of.parts(TASK.texts_ST[4])
    assert [round(part.value, 5) for part in named] == [0.0, round(-math.log(5), 5)]


@RULES
def test_a_text_that_is_the_reference_ranks_first(rule: str) -> None:
    of = ranker(rule=rule, references=1)
    for number in (0, 13, 20):
        of.references_RT.copy_(TASK.texts_ST[number : number + 1])
        assert int(of.logits(TASK.texts_ST).argmax()) == number


@RULES
def test_the_order_of_references_comparisons_and_texts_does_not_matter(rule: str) -> None:
    of = ranker(rule=rule)
    before_S, order_S = score_logits(of, TASK.texts_ST), torch.randperm(27, generator=torch.Generator().manual_seed(1))
    assert torch.equal(score_logits(of, TASK.texts_ST[order_S]), before_S[order_S])
    of.references_RT.copy_(of.references_RT.flip(0))
    of.comparison_CT.copy_(of.comparison_CT.flip(0))
    torch.testing.assert_close(score_logits(of, TASK.texts_ST), before_S)


def test_the_papers_loss_is_that_of_both_sides_beside_each_other_by_hand() -> None:
    of = ranker(gamma=2.0)
    real_HT, fake_HT = TASK.texts_ST[:3], TASK.texts_ST[10:13]
    with torch.no_grad():
        loss_H, nearer_H = of.ranking_loss(real_HT, fake_HT)
        real_HF, fake_HF, references_RF = map(of.features, (real_HT, fake_HT, of.references_RT))
        real = [math.log(plain_rank(of, text_F, fake_HF, references_RF)) for text_F in real_HF]
        fake = [math.log(1 - plain_rank(of, text_F, real_HF, references_RF)) for text_F in fake_HF]
    torch.testing.assert_close(loss_H, -(torch.tensor(real) + torch.tensor(fake)) / 2)
    nearest = [2 * sum(cosine(text_F, u_F) for u_F in references_RF) for text_F in (real_HF[0], fake_HF[0])]
    assert float(nearer_H[0]) == pytest.approx(nearest[0] - nearest[1], rel=1e-4)


def test_the_published_loss_is_a_difference_of_mean_scores_as_its_softmax_drops_out() -> None:
    of = ranker(gamma=1.0, rule="reference")
    real_HT, fake_HT = TASK.texts_ST[:5], TASK.texts_ST[10:15]
    with torch.no_grad():
        loss = float(of.ranking_loss(real_HT, fake_HT)[0].mean())
        mixed_BF = functional.normalize(of.features(torch.cat([real_HT, fake_HT])), dim=1)
        score_B = (mixed_BF @ functional.normalize(of.features(of.references_RT), dim=1).t()).sum(1)
    log_rank_B = score_B.log_softmax(0)  # as it is written there: one softmax over real and written texts
    assert loss == pytest.approx(-float(log_rank_B[:5].mean() - log_rank_B[5:].mean()), abs=1e-5)
    assert loss == pytest.approx(float(score_B[5:].mean() - score_B[:5].mean()), abs=1e-5)


def some_texts(tokens: list[list[int]], end_token: int | None) -> Texts:
    tokens_BT = torch.tensor(tokens)
    return Texts.finished(tokens_BT, (tokens_BT != V).sum(1), Keys.counted(7, len(tokens)), end_token)


@pytest.mark.parametrize("rollouts", [0, 3])
def test_in_a_contest_the_mean_at_every_position_is_one_over_b(rollouts: int) -> None:
    texts = some_texts([[0, 1, 2], [2, 2, 1], [1, 1, 1], [0, 0, 1]], None)
    contest = ContestCredit(table_policy(TASK), ranker(rule="reference"), "prob", rollouts)
    credit_BT = contest.credit(texts, texts.mask_BT)
    torch.testing.assert_close(credit_BT.mean(0), torch.full((T,), 1 / 4), atol=1e-6, rtol=0)
    last_B = score_logits(contest.ranker, texts.tokens_BT).softmax(0)
    torch.testing.assert_close(credit_BT[:, -1], last_B)
    assert float((last_B - 0.25).abs().max()) > 0.1


def test_a_text_that_has_ended_still_competes_so_late_positions_are_not_paid_for_being_reached() -> None:
    texts = some_texts([[0, 1, 2], [2, V, V], [0, 0, 1]], 2)
    contest = ContestCredit(table_policy(TASK), ranker(rule="reference"), "prob", 2)
    credit_BT = contest.credit(texts, texts.mask_BT)
    assert credit_BT[1, 1:].eq(0).all()
    last_B = score_logits(contest.ranker, texts.tokens_BT).softmax(0)
    torch.testing.assert_close(credit_BT[[0, 2], -1], last_B[[0, 2]])  # and not renormalised: less than 1 together


@pytest.mark.parametrize("transform", ["prob", "logit", "log"])
def test_by_the_papers_rule_the_expected_gradient_is_that_of_the_rank(transform: str) -> None:
    policy = table_policy(SMALL)
    agent = learner(policy, SMALL, batch_size=2, transform=transform)
    agent.draw_sets(agent.discriminator, step_of(0, "exact").seed)  # as the step draws them
    logit_S = score_logits(agent.discriminator, SMALL.texts_ST)
    reward_S = {"prob": logit_S.sigmoid(), "logit": logit_S, "log": functional.logsigmoid(logit_S)}[transform]
    exact_P = autograd_of(policy, lambda: -(SMALL.text_log_prob(policy).exp() * reward_S).sum())
    found_P = expected_gradient(SMALL, policy, 2, partial(gradient_of_step, agent, "g_optimizer"))
    assert relative_error(found_P, exact_P) < 1e-6


def test_by_the_published_rule_it_follows_the_chance_to_win_against_its_own_texts() -> None:
    policy = table_policy(SMALL)
    agent = learner(policy, SMALL, batch_size=2, transform="prob", rule="reference", baseline="none")
    agent.draw_sets(agent.discriminator, step_of(0, "exact").seed)
    logit_S = score_logits(agent.discriminator, SMALL.texts_ST).double()
    with torch.no_grad():
        own_S = SMALL.text_log_prob(policy).exp()
    wins_S = ((logit_S[:, None] - logit_S).sigmoid() * own_S).sum(1)
    exact_P = autograd_of(policy, lambda: -(SMALL.text_log_prob(policy).exp() * wins_S).sum())
    found_P = expected_gradient(SMALL, policy, 2, partial(gradient_of_step, agent, "g_optimizer"))
    assert relative_error(found_P, exact_P) < 1e-6


@RULES
def test_a_ranker_that_tells_nothing_apart_moves_no_generator(rule: str) -> None:
    agent = learner(table_policy(TASK), rule=rule, gamma=0.0)
    before = agent.policy.logits_PV.detach().clone()
    agent.g_step(step_of(0))
    assert float((agent.policy.logits_PV.detach() - before).abs().max()) < 1e-6


def test_a_ranker_that_knows_every_text_pays_the_most_for_the_most_probable_one_even_where_g_is_right() -> None:
    """So the true distribution is no fixed point. One reference, one text beside; cosine 1 if equal, else 0."""
    of, p_S = ranker(SMALL, gamma=4.0), SMALL.logp_S.exp()
    same_SS = of.gamma * torch.eye(len(p_S), dtype=p_S.dtype)
    rank_S = torch.zeros_like(p_S)
    for reference, its in enumerate(p_S):
        for other, chance in enumerate(p_S):
            beside = of.beside(same_SS[:, reference, None], same_SS[other, reference].view(1, 1))
            rank_S += its * chance * beside.sigmoid()
    assert rank_S.argsort().tolist() == p_S.argsort().tolist()
    policy = TablePolicy(2, max_length=2, logits_PV=SMALL.oracle.logits_PV).double()
    gradient_P = autograd_of(policy, lambda: (SMALL.text_log_prob(policy).exp() * rank_S).sum())
    assert float(gradient_P.norm()) > 0.01


def test_references_and_comparisons_are_those_of_the_g_step_and_new_in_the_next() -> None:
    agent = learner(rollouts=2)
    seen: list[RankDiscriminator] = []
    for number in (0, 1, 0):
        agent.collect(step_of(0, "test", number))
        asked: Any = agent.envs.game.discriminator
        seen.append(asked)
    first, second, again = (torch.cat([one.references_RT, one.comparison_CT]) for one in seen)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    real = {tuple(text) for text in TASK.writable("train").tolist()}
    assert all(tuple(text) in real for text in first.tolist())


def left_after(agent: RankGAN, rounds: int) -> float:
    """Cover and fit after rounds of fitting the ranker, each followed by five g-steps; .41 before."""
    for number in range(rounds):
        if agent.d_learns:
            agent.d_steps_of(1).alone(100 + number)
        for repeat in range(5):
            agent.g_step(Step(seed=1000 * number + repeat, round=number))
    return sum(TASK.divergences(agent.policy))


@pytest.mark.slow
def test_what_the_ranker_learns_brings_g_nearer_to_the_law_and_shuffled_ranks_do_not() -> None:
    options: dict[str, Any] = {"batch_size": 128, "d_batch_size": 64, "d_epochs": 10, "rule": "reference", "gamma": 1.0}
    assert left_after(learner(**options), 3) < 0.27
    assert left_after(learner(**options, control="shuffled"), 3) > 0.3


@pytest.mark.slow
def test_by_the_papers_rule_too() -> None:
    options: dict[str, Any] = {"batch_size": 128, "d_batch_size": 64, "d_epochs": 10, "discriminator": "recurrent"}
    assert left_after(learner(**options), 4) < 0.27
    assert left_after(learner(**options, control="shuffled"), 4) > 0.3


@RULES
@pytest.mark.parametrize("control", ["constant", "random", "shuffled", "untrained"])
def test_every_control_runs_and_a_constant_reward_moves_no_bit(rule: str, control: str) -> None:
    agent = learner(control=control, rule=rule, rollouts=2)
    before = agent.policy.logits_PV.detach().clone()
    assert math.isfinite(float(agent.g_step(step_of(0, "test"))["credit"]))
    assert (float((agent.policy.logits_PV.detach() - before).abs().max()) > 1e-3) == (control != "constant")


def test_without_a_baseline_a_constant_reward_makes_its_own_texts_more_probable() -> None:
    agent = learner(table_policy(TASK), control="constant", rule="reference", baseline="none")
    agent.begin_texts(step_of(0, "test"))
    own = agent.envs.collect(agent.policy)
    before = float(agent.policy.log_prob(own.tokens_BT, own.mask_BT).detach().sum())
    agent.g_step(step_of(0, "test"))
    assert float(agent.policy.log_prob(own.tokens_BT, own.mask_BT).detach().sum()) > before + 0.1


def test_the_ranker_of_a_run_is_saved_with_its_references_and_has_no_accuracy(tmp_path: Path) -> None:
    run = launch(replace(TINY, runs=tmp_path, references=3, select="last"), RankGAN)
    saved = load(run.path).discriminator
    assert isinstance(saved, RankDiscriminator)
    assert (saved.network, saved.gamma, saved.rule, saved.references_RT.shape) == ("pair", 16.0, "paper", (3, 4))
    assert saved.references_RT.max() < saved.vocab_size
    header = (run.path / "metrics.csv").read_text().splitlines()[0]
    assert "d_auc" in header
    assert "d_accuracy" not in header


def test_only_a_ranker_is_fitted_to_rank() -> None:
    pair = PairDiscriminator(V, T)
    fit = partial(fit_step, pair, pair.make_optimizer(), TASK.texts_ST[:4], objective="ranking")
    assert_refused("ranking fits a RankDiscriminator, found a PairDiscriminator", fit)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"references": 0}, "references must be at least 1"), ({"comparison": 0}, "comparison must be at least 1"),
    ({"gamma": -1.0}, "gamma must be at least 0"), ({"rollouts": -1}, "rollouts must be at least 0"),
    ({"discriminator": "rank"}, "network"), ({"rule": "mine"}, "rule"),
    ({"discriminator": "lm"}, "network of a ranker 'lm', expected one of: pair, conv, recurrent"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, RankGAN, replace(TINY, **options), TASK)
