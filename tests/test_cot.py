"""CoT: gradients against autograd of the listed divergences, its fixed point, what M learns from, its controls."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from agents.cot import CoT, CoTConfig
from conftest import assert_refused, step_of
from exact import autograd_of, expected_gradient, gradient_of_step, relative_error, table_policy
from textgan_env.ops.losses import categorical_kl
from textgan_env.policies import LSTMPolicy, MixturePolicy, PolicyModule, TablePolicy
from textgan_env.rewards import Keys, Texts
from textgan_env.tasks import ToyTask
from textgan_env.training import mle

V, T = 3, 2
TASK = ToyTask(vocab_size=V, max_length=T, size=100)
TINY = CoTConfig(
    preset="smoke", task="toy", mle_epochs=1, m_epochs=1, rounds=1, g_steps=2, batch_size=8, embed_size=4,
    hidden_size=4, m_embed_size=4, m_hidden_size=4, threads=1, show_samples=0, max_grad_norm=1e8,
)  # fmt: skip
Credit = Literal["step", "to-go"]
CREDITS: tuple[Credit, ...] = ("step", "to-go")


def learner(policy: PolicyModule, mediator: PolicyModule, **changes: Any) -> CoT:
    """The agent with a G and an M whose every probability is known."""
    agent = CoT(replace(TINY, **changes), TASK)
    agent.policy, agent.mediator = policy, mediator.requires_grad_(False)
    agent.g_optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    return agent


def gradient(agent: CoT, tokens_BT: Tensor) -> Tensor:
    """What a step of G follows when it has written these texts, float (P,)."""
    keys, lengths_B = Keys.counted(0, len(tokens_BT)), (tokens_BT != V).sum(1)
    agent.generated = lambda *_: Texts.finished(tokens_BT, lengths_B, keys, None)  # type: ignore[method-assign]
    return gradient_of_step(agent, "g_optimizer", tokens_BT)


def rows_of(probability_S: Tensor) -> Tensor:
    """Logits (1 + V, V) of a table for texts of two tokens, float64."""
    joint_VV = probability_S.view(V, V)
    first_V = joint_VV.sum(1)
    return torch.cat([first_V[None], joint_VV / first_V[:, None]]).log()


def mixture(policy: PolicyModule) -> TablePolicy:
    """(p + q) / 2, float64, p the law of the task."""
    with torch.no_grad():
        shares = [TASK.text_log_prob(one).double().exp() for one in (TASK.oracle, policy)]
    table = TablePolicy(V, max_length=T).double()
    table.logits_PV.data = rows_of((shares[0] + shares[1]) / 2)
    return table


def jensen_shannon(policy: PolicyModule, task: ToyTask = TASK) -> Tensor:
    """The divergence of whole texts from the law, by listing them; differentiable."""
    logp_S, logq_S = task.text_log_prob(task.oracle).double(), task.text_log_prob(policy)
    logm_S = ((logp_S.exp() + logq_S.exp()) / 2).log()
    return ((logp_S.exp() * (logp_S - logm_S)).sum() + (logq_S.exp() * (logq_S - logm_S)).sum()) / 2


def test_to_go_follows_the_gradient_of_the_jensen_shannon_divergence_of_texts() -> None:
    """Over all batches of two texts, the baseline of each from the other."""
    policy = table_policy(TASK)
    agent = learner(policy, mixture(policy), credit="to-go")
    expected_P = autograd_of(policy, lambda: jensen_shannon(policy) / T)
    found_P = expected_gradient(TASK, policy, 2, lambda tokens_BT: gradient(agent, tokens_BT))
    assert relative_error(found_P, expected_P) < 1e-6


def test_step_follows_the_sum_of_divergences_of_next_tokens_with_the_prefixes_held_fixed() -> None:
    policy = table_policy(TASK)
    agent = learner(policy, mixture(policy), credit="step")

    def held_fixed() -> Tensor:
        """Half of KL(q || M) at the empty prefix and at each first token, as often as it is met."""
        logq_PV, logm_PV = (one.logits_PV.log_softmax(1) for one in (policy, mixture(policy)))
        kl_P = (logq_PV.exp() * (logq_PV - logm_PV)).sum(1)
        met_P = torch.cat([torch.ones(1), logq_PV[0].exp().detach()])
        return (met_P * kl_P).sum() / (2 * T)

    expected_P = autograd_of(policy, held_fixed)
    found_P = expected_gradient(TASK, policy, 1, lambda tokens_BT: gradient(agent, tokens_BT))
    assert relative_error(found_P, expected_P) < 1e-6


@pytest.mark.parametrize(("share", "cosine"), [(0.0, 0.823), (0.5, 0.992), (0.9, 0.9999)])
def test_step_is_on_the_gradient_of_the_divergence_of_texts_near_the_law_only(share: float, cosine: float) -> None:
    """From uniform logits to those of the law, V = T = 4."""
    task = ToyTask()
    policy = TablePolicy(4, max_length=4, logits_PV=share * task.oracle.logits_PV)
    reference, mask_ST = MixturePolicy([task.oracle, policy], [0.5, 0.5]), task.texts_ST != 4

    def held_fixed() -> Tensor:
        logq_STV = policy.all_log_probs(task.texts_ST)
        kl_ST = categorical_kl(logq_STV, reference.all_log_probs(task.texts_ST).detach()).masked_fill(~mask_ST, 0.0)
        return (task.text_log_prob(policy).exp().detach() * kl_ST.sum(1)).sum()

    step_P = autograd_of(policy, held_fixed)
    true_P = autograd_of(policy, lambda: jensen_shannon(policy, task))
    assert float(torch.cosine_similarity(step_P, true_P, dim=0)) == pytest.approx(cosine, abs=6e-4)


@pytest.mark.parametrize("credit", CREDITS)
def test_where_g_is_right_no_text_moves_it(credit: Credit) -> None:
    policy = TablePolicy(V, max_length=T, logits_PV=TASK.oracle.logits_PV).double()
    agent = learner(policy, mixture(policy), credit=credit)
    assert float(gradient(agent, TASK.texts_ST[[0, 5, 7]]).abs().max()) < 1e-6


@pytest.mark.parametrize("credit", CREDITS)
def test_neither_pad_nor_the_order_of_the_texts_changes_a_step(credit: Credit) -> None:
    policy, mediator = (
        LSTMPolicy(V, start_token=V, embed_size=3, hidden_size=4, init_scale=1.0, seed=seed).double() for seed in (1, 2)
    )
    agent = learner(policy, mediator, credit=credit)
    short_BT, long_BT = torch.tensor([[0, 1], [2, 0], [1, 1]]), torch.tensor([[0, 1, V, V], [2, 0, V, V], [1, 1, V, V]])
    plain_P = gradient(agent, short_BT)
    assert float(plain_P.norm()) > 1e-3
    # The divergence is one for each of T places.
    torch.testing.assert_close(2 * gradient(agent, long_BT), plain_P, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient(agent, short_BT[[2, 0, 1]]), plain_P, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("follows", [True, False])
def test_with_the_best_mediator_g_comes_to_the_law_and_with_a_frozen_one_half_way(
    credit: Credit, follows: bool
) -> None:
    policy = table_policy(TASK, spread=2.0).float()
    first = mixture(policy).float()
    agent = learner(policy, first, credit=credit, batch_size=256)
    if follows:
        agent.mediator = MixturePolicy([TASK.oracle, policy], [0.5, 0.5])
    aim_S = TASK.text_log_prob(TASK.oracle if follows else first)
    other_S = TASK.text_log_prob(first if follows else TASK.oracle)
    for number in range(80):
        agent.g_step(step_of(0, "test", number))
    with torch.no_grad():
        logq_S = TASK.text_log_prob(policy)
        far, near = (float((logq_S.exp() * (logq_S - logp_S)).sum()) for logp_S in (other_S, aim_S))
    assert near < 0.02
    assert far > 5 * near


def learnt_by_m(control: Literal["real"] | None, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The texts of a step of M where all real ones are (2, 2) and G writes (0, 1)."""
    writes = TablePolicy.from_text_probabilities(torch.eye(V**T)[1], vocab_size=V, max_length=T)
    agent, seen = learner(writes, table_policy(TASK), control=control), list[Tensor]()

    def remember(*arguments: Any, **_: Any) -> Tensor:
        seen.append(arguments[3])
        return torch.tensor(0.0)

    real: Callable[..., Tensor] = lambda _, count, **__: torch.full((count, T), 2)  # noqa: E731
    monkeypatch.setattr(agent, "real_texts", real)
    monkeypatch.setattr(mle, "mle_step", remember)
    agent.m_step(step_of(0, "test"))
    return seen[0].tolist()


def test_m_learns_half_real_and_half_written_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert learnt_by_m(None, monkeypatch) == [[2, 2]] * 4 + [[0, 1]] * 4


def test_under_the_control_real_m_learns_real_text_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert learnt_by_m("real", monkeypatch) == [[2, 2]] * 8


def test_m_comes_to_the_mixture() -> None:
    agent = CoT(replace(TINY, batch_size=200, m_hidden_size=16, m_dropout=0.0, m_learning_rate=0.03), TASK)
    agent.policy = table_policy(TASK, spread=2.0).float()
    logm_S = TASK.text_log_prob(mixture(agent.policy))

    def distance() -> float:
        with torch.no_grad():
            return float((logm_S.exp() * (logm_S - TASK.text_log_prob(agent.mediator))).sum())

    before = distance()
    for number in range(100):
        agent.m_step(step_of(0, "test", number))
    assert before > 0.1
    assert distance() < 0.02


@pytest.mark.parametrize("control", [None, "frozen", "real"])
def test_m_is_frozen_only_where_it_is_asked_for_and_no_step_of_g_moves_it(control: Any) -> None:
    agent = CoT(replace(TINY, control=control), TASK)
    before = [weight.clone() for weight in agent.mediator.parameters()]

    def same() -> bool:
        return all(map(torch.equal, before, agent.mediator.parameters()))

    agent.g_step(step_of(0, "g"))
    assert same()
    assert {"kl_to_m"} <= set(agent.turn(step_of(0, "turn")))
    assert same() == (control == "frozen")


@pytest.mark.parametrize(("options", "sentence"), [
    ({"m_steps": 0}, "m_steps must be at least 1"), ({"g_steps": 0}, "g_steps must be at least 1"),
    ({"batch_size": 1}, "batch_size must be at least 2"), ({"m_learning_rate": 0.0}, "m_learning_rate must be above 0"),
    ({"m_epochs": -1}, "m_epochs must be at least 0"), ({"m_hidden_size": 0}, "hidden_size must be at least 1"),
    ({"m_dropout": 1.0}, "dropout must be at least 0 and below 1"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, CoT, replace(TINY, **options), TASK)
