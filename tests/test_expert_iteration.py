"""Expert iteration: what search draws by enumeration, rounds against the best discriminator, and rules that fail."""

import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.expert_iteration import ExpertIteration, ExpertIterationConfig
from conftest import assert_refused, step_of
from exact import autograd_of, best_discriminator, relative_error, table_policy
from textgan_env.ops.sampling import systematic_sample
from textgan_env.policies import PolicyModule, TablePolicy
from textgan_env.rewards import Keys, Texts, look_ahead, resample
from textgan_env.tasks import ToyTask

TASK = ToyTask(vocab_size=3, max_length=3, size=200)
TINY = ExpertIterationConfig(
    preset="smoke", task="toy", mle_epochs=1, d_pretraining=1, rounds=2, g_steps=1, batch_size=8, d_batch_size=250,
    embed_size=4, hidden_size=4, threads=1, show_samples=0, max_grad_norm=1e8, real_share=0.0,
)  # fmt: skip
SEARCHES: list[dict[str, Any]] = [
    {"search": "resample"},
    {"search": "smc", "resample_every": 1, "rollouts": 4},
    {"search": "smc", "resample_every": 2, "rollouts": 1},
    {"search": "smc", "resample_every": 1, "rollouts": 0, "discriminator": "recurrent"},
]


def learner(policy: TablePolicy, task: ToyTask = TASK, **changes: Any) -> ExpertIteration:
    """The agent with a tabular policy and the best discriminator against it as it is now."""
    agent = ExpertIteration(replace(TINY, **changes), task)
    agent.policy, agent.writer = policy, copy.deepcopy(policy)
    agent.g_optimizer = torch.optim.Adam(agent.policy.parameters(), lr=0.1)
    agent.discriminator = best_discriminator(task, policy)  # type: ignore[assignment]
    return agent


def number_of(tokens_BT: Tensor, task: ToyTask = TASK) -> Tensor:
    """Where each text stands in ``texts_ST``."""
    powers_T = task.vocab_size ** torch.arange(task.max_length - 1, -1, -1)
    return (tokens_BT * powers_T).sum(1)


def probabilities(policy: PolicyModule, task: ToyTask = TASK) -> Tensor:
    with torch.no_grad():
        return task.text_log_prob(policy).double().exp()


def chi_square(count_S: Tensor, expected_S: Tensor) -> float:
    """Pearson's statistic; of independent draws its mean is S - 1."""
    return float(((count_S - expected_S).square() / expected_S).sum())


def test_a_row_is_drawn_as_often_as_it_is_expected_to_be_but_for_less_than_one() -> None:
    weight_R = torch.tensor([0.0, 3.0, 1.0, 0.0, 0.5, 5.5, 0.0])
    for uniform in (0.0, 0.3, 0.999999):
        row_B = systematic_sample(weight_R, 7, torch.tensor(uniform, dtype=torch.float64))
        count_R = torch.bincount(row_B, minlength=7)
        assert bool(((count_R - 7 * weight_R / weight_R.sum()).abs() < 1).all())
        assert bool((count_R[weight_R == 0] == 0).all())


def test_over_many_random_numbers_a_row_is_drawn_in_proportion_to_its_weight() -> None:
    weight_R = torch.tensor([0.3, 1.0, 2.7])
    uniforms = (torch.arange(1000).double() + 0.5) / 1000
    count_R = sum(torch.bincount(systematic_sample(weight_R, 2, one), minlength=3) for one in uniforms)
    torch.testing.assert_close(count_R / 2000, weight_R / 4, atol=1e-3, rtol=0)


# With no completions alpha must be 1: then the logit of a prefix is the log of its expected weight.
@pytest.mark.parametrize(("options", "alpha"), [
    pytest.param(options, alpha, marks=[pytest.mark.slow] if options.get("rollouts") == 4 else [])
    for alpha, searches in ((1.0, SEARCHES), (0.5, SEARCHES[:3])) for options in searches
])  # fmt: skip
def test_with_many_proposals_it_draws_g_times_the_weight_of_the_discriminator(
    options: dict[str, Any], alpha: float
) -> None:
    """Of 26 degrees of freedom: one statistic in a thousand would be above 54.1."""
    policy = table_policy(TASK)
    agent = learner(policy, **options, alpha=alpha, batch_size=512, proposals=64)
    texts, numbers = agent.searched(torch.Generator().manual_seed(3))
    q_S, logit_S = probabilities(policy), best_discriminator(TASK, policy).logits(TASK.texts_ST).double()
    target_S = q_S * (alpha * logit_S).exp()
    target_S = target_S / target_S.sum()
    count_S = torch.bincount(number_of(texts.tokens_BT), minlength=27)
    assert chi_square(count_S, 512 * target_S) < 54.1
    assert chi_square(count_S, 512 * q_S) > 150  # it would notice
    assert 0 < numbers["effective_share"] <= 1


def ended_texts_are_kept(policy: PolicyModule, every: int) -> Texts:
    """Texts that token 0 ends, drawn in proportion to e^length."""
    weight = lambda texts: texts.lengths_B.double()  # noqa: E731
    ahead = lambda texts: look_ahead(policy, texts, weight, 2)  # noqa: E731
    keys = Keys.counted(5, 60_000)
    return resample(policy, keys, 3, ahead, count=6000, every=every, end_token=0)[0]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_texts_that_end_early_are_weighed_as_whole_texts(every: int) -> None:
    """Uniform over three words, the first of which ends a text: lengths 1, 2, 3 have 1/3, 2/9, 4/9."""
    texts = ended_texts_are_kept(TablePolicy(3, max_length=3), every)
    target = torch.tensor([1 / 3, 2 / 9, 4 / 9]) * torch.tensor([1.0, 2.0, 3.0]).exp()
    found = torch.bincount(texts.lengths_B, minlength=4)[1:] / 6000
    torch.testing.assert_close(found, target / target.sum(), atol=0.01, rtol=0)
    for text, length in zip(texts.tokens_BT[::500].tolist(), texts.lengths_B[::500].tolist(), strict=True):
        assert text[length:] == [3] * (3 - length)
        assert 0 not in text[: length - 1]
        assert length == 3 or text[length - 1] == 0


def test_what_is_expected_of_a_prefix_is_the_mean_weight_of_its_completions() -> None:
    policy, task = table_policy(TASK), TASK
    weight_S = best_discriminator(task, policy).logits(task.texts_ST).exp()
    tokens_BT = torch.tensor([[0, 3, 3], [2, 1, 3], [1, 0, 2]])
    texts = Texts(tokens_BT, torch.tensor([1, 2, 3]), torch.tensor([False, False, True]), Keys.counted(1, 3), None)
    found = look_ahead(policy, texts, lambda whole: weight_S[number_of(whole.tokens_BT)].log(), 4000)
    q_S = probabilities(policy).float()
    one, two = slice(0, 9), slice(21, 24)
    exact = [(q_S[part] * weight_S[part]).sum() / q_S[part].sum() for part in (one, two)]
    torch.testing.assert_close(found.exp(), torch.stack([*exact, weight_S[11]]), atol=0, rtol=0.05)


def fitted(texts_BT: Tensor) -> TablePolicy:
    """The table that has learnt these texts to the end; what is not among them counts a thousandth of a text."""
    count_S = torch.bincount(number_of(texts_BT), minlength=27).double() + 1e-3
    return TablePolicy.from_text_probabilities(count_S, vocab_size=3, max_length=3)


@pytest.mark.parametrize("options", [SEARCHES[0], *(pytest.param(one, marks=pytest.mark.slow) for one in SEARCHES[1:])])
def test_a_table_that_learns_all_it_finds_halves_its_fit_in_each_round(options: dict[str, Any]) -> None:
    """Until what is left is the noise of finitely many texts."""
    policy, fits = table_policy(TASK, spread=2.0), []
    for number in range(4):
        agent = learner(policy, **options, batch_size=4096, proposals=4)
        fits.append(TASK.divergences(policy)[1])
        texts, _ = agent.searched(torch.Generator().manual_seed(number))
        policy = fitted(texts.tokens_BT)
    for before, after in pairwise(fits):
        assert after < max(before / 2, 5e-3)


def rounds(rule: Any, number: int, start: TablePolicy) -> list[float]:
    """Cover and fit, added up, before each exact round of a rule (log q, log p) -> log of the target."""
    logq_S, sums = probabilities(start).log(), []
    for _ in range(number):
        cover = (TASK.logp_S.exp() * (TASK.logp_S - logq_S)).sum() / TASK.max_length
        sums.append(float(cover + (logq_S.exp() * (logq_S - TASK.logp_S)).sum() / TASK.max_length))
        logq_S = rule(logq_S, TASK.logp_S).log_softmax(0)
    return sums


def best_quarter(logq_S: Tensor, logp_S: Tensor) -> Tensor:
    """Of G's texts only the quarter that the best discriminator likes most, or as near as whole texts come."""
    order_S = (logp_S - logq_S).argsort(descending=True)
    before_S = logq_S[order_S].exp().cumsum(0) - logq_S[order_S].exp()
    kept_S = torch.zeros_like(logq_S, dtype=torch.bool).index_fill(0, order_S[before_S < 0.25], True)
    return logq_S.masked_fill(~kept_S, -30.0)


@pytest.mark.parametrize(("rule", "converges"), [
    (lambda q, p: q + (p - q), True), (lambda q, p: q + 0.5 * (p - q), True), (lambda q, p: q + 1.9 * (p - q), True),
    (lambda q, p: q + 2 * (p - q), False), (lambda q, p: q + 4 * (p - q), False), (best_quarter, False),
])  # fmt: skip
def test_exact_rounds_come_to_the_law_for_alpha_below_2_only_and_never_by_keeping_the_best(
    rule: Any, converges: bool
) -> None:
    sums = rounds(rule, 60, table_policy(TASK, spread=0.3))
    assert (sums[-1] < 0.01 * sums[0]) == converges


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "comes"), [(1.0, True), (4.0, False)])
def test_the_agent_comes_to_the_law_with_alpha_1_and_is_thrown_over_it_with_4(alpha: float, comes: bool) -> None:
    """In a round it takes ten steps towards one target, enough to reach it."""
    policy = TablePolicy(3, max_length=3)
    agent = learner(policy, alpha=alpha, batch_size=128, proposals=4)
    before = sum(TASK.divergences(policy))
    for number in range(60):
        if number % 10 == 0:
            agent.discriminator = best_discriminator(TASK, policy)  # type: ignore[assignment]
        agent.g_step(replace(step_of(0, "test", number), repeat=number % 10))
    assert (sum(TASK.divergences(policy)) < 0.1 * before) == comes


@pytest.mark.parametrize("options", SEARCHES)
def test_where_g_is_right_it_writes_as_it_wrote(options: dict[str, Any]) -> None:
    """All texts and all prefixes weigh alike: what is drawn is G's own, so the true distribution is a fixed point."""
    policy = TablePolicy(3, max_length=3, logits_PV=TASK.oracle.logits_PV).double()
    agent = learner(policy, **options, batch_size=512)
    texts, numbers = agent.searched(torch.Generator().manual_seed(3))
    assert float(numbers["effective_share"]) == pytest.approx(1.0, abs=1e-5)
    assert chi_square(torch.bincount(number_of(texts.tokens_BT), minlength=27), 512 * probabilities(policy)) < 54.1


def test_a_step_is_one_of_maximum_likelihood_on_what_was_found() -> None:
    policy = table_policy(TASK)
    agent = learner(policy, batch_size=8)
    step = step_of(0, "test")
    texts, _ = agent.searched(torch.Generator().manual_seed(step.seed))
    expected_P = autograd_of(policy, lambda: -TASK.text_log_prob(policy)[number_of(texts.tokens_BT)].mean())
    before_P = policy.logits_PV.detach().clone()
    agent.g_optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)  # type: ignore[assignment]
    agent.g_step(step)
    assert relative_error((before_P - policy.logits_PV.detach()).flatten(), expected_P) < 1e-6


def test_the_texts_of_a_round_are_written_by_g_as_it_was_when_the_round_began() -> None:
    agent = learner(table_policy(TASK), batch_size=64)
    before = agent.writer.logits_PV.clone()
    agent.g_step(step_of(0, "test"))
    agent.g_step(replace(step_of(0, "test"), repeat=1))
    assert torch.equal(agent.writer.logits_PV, before)
    agent.g_step(replace(step_of(0, "test"), round=1))
    assert not torch.equal(agent.writer.logits_PV, before)


def test_a_share_of_the_texts_learnt_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = learner(table_policy(TASK), batch_size=8, real_share=0.25)
    seen: dict[str, Any] = {}
    monkeypatch.setattr(agent, "ascend", lambda texts, advantage_BT: seen.update(of=advantage_BT, texts=texts) or {})
    monkeypatch.setattr(agent.task, "writable", lambda _: torch.tensor([[2, 2, 2]]))
    agent.policy.logits_PV.data[:, 2] = -50.0
    agent.g_step(step_of(0, "test"))
    assert (seen["texts"].tokens_BT == 2).all(1).tolist() == [False] * 6 + [True] * 2
    assert torch.equal(seen["of"], torch.ones(8, 3))


def test_search_for_likelihood_is_a_lower_temperature() -> None:
    """Whole texts at temperature 1 / (1 + alpha)."""
    policy = table_policy(TASK)
    agent = learner(policy, search_for="likelihood", batch_size=512, proposals=64)
    texts, _ = agent.searched(torch.Generator().manual_seed(3))
    target_S = probabilities(policy) ** 2
    target_S = target_S / target_S.sum()
    assert chi_square(torch.bincount(number_of(texts.tokens_BT), minlength=27), 512 * target_S) < 54.1


@pytest.mark.parametrize("search", ["resample", "smc"])
@pytest.mark.parametrize("control", ["constant", "random", "shuffled", "untrained"])
def test_every_control_runs_and_under_a_constant_reward_it_learns_its_own_texts(search: str, control: str) -> None:
    agent = ExpertIteration(replace(TINY, search=search, control=control, resample_every=1), TASK)  # type: ignore[arg-type]
    share = float(agent.g_step(step_of(0, "test"))["effective_share"])
    assert share == 1 if control == "constant" else 0 < share < 1


@pytest.mark.parametrize(("options", "sentence"), [
    ({"alpha": 0.0}, "alpha must be above 0"), ({"proposals": 0}, "proposals must be at least 1"),
    ({"real_share": -0.1}, "real_share must be at least 0"), ({"real_share": 1.0}, "leave room for texts"),
    ({"resample_every": 0}, "resample_every"), ({"rollouts": -1}, "rollouts"),
    ({"search": "smc", "rollouts": 0}, "must be recurrent, found pair"),
    ({"search_for": "likelihood", "control": "random"}, "no control of it, found random"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, ExpertIteration, replace(TINY, **options), TASK)
