"""Toward a goal: what an objective pays in environments and agents, what is counted, and what a run remembers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from agents.expert_iteration import ExpertIteration, ExpertIterationConfig
from agents.reinvent import PRESETS as REINVENT
from agents.reinvent import Reinvent, ReinventConfig
from agents.seqgan import PRESETS as SEQGAN
from agents.seqgan import SeqGAN, SeqGANConfig
from conftest import PositionDiscriminator, StubPolicy, assert_refused, assert_same_training, interrupted, step_of
from exact import autograd_of, expected_gradient, gradient_of_step, relative_error, table_policy
from textgan_env.envs import TextGANEnv, TextGANVectorEnv
from textgan_env.evaluation import evaluate, stream_best
from textgan_env.objectives import OBJECTIVES, Objective
from textgan_env.policies import PolicyModule
from textgan_env.rewards import AskedObjective, BudgetSpentError, Keys, RewardSpec, best_of
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import ToyTask
from textgan_env.training.launch import launch
from textgan_env.utils.options import parse

TASK = ToyTask(vocab_size=3, max_length=3, size=200)
SMALL = ToyTask(vocab_size=2, max_length=2, size=50)
SIZES: dict[str, Any] = {
    "preset": "smoke", "task": "toy", "mle_epochs": 1, "d_pretraining": 1, "rounds": 2, "g_steps": 1, "batch_size": 8,
    "d_batch_size": 250, "embed_size": 4, "hidden_size": 4, "threads": 1, "show_samples": 0, "max_grad_norm": 1e8,
    "objective": "zeros", "objective_weight": 1.0,
}  # fmt: skip
BETA = 0.5


def zeros(texts: Sequence[str]) -> list[float]:
    """The share of tokens that are 0."""
    return [text.split().count("0") / len(text.split()) for text in texts]


def share_of_zeros(task: ToyTask) -> Tensor:
    return (task.texts_ST == 0).double().mean(1)


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "zeros", lambda _: Objective("zeros", zeros))


def tabular(agent: type[Any], config: Any, policy: PolicyModule, task: ToyTask) -> Any:
    """An agent whose G, and what it keeps of G's start, are a table."""
    learner = type(agent.__name__, (agent,), {"first_policy": lambda _: policy})(config, task)
    learner.g_optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    return learner


def tilted(task: ToyTask, prior: PolicyModule, nats: float) -> Tensor:
    """The law P(y) exp(nats O(y)) / Z, as log-probabilities, float64 (S,)."""
    with torch.no_grad():
        return (task.text_log_prob(prior).double() + nats * share_of_zeros(task)).log_softmax(0)


def kl_to(task: ToyTask, policy: PolicyModule, law_S: Tensor) -> Tensor:
    """KL of a policy to a law, nats a text."""
    logq_S = task.text_log_prob(policy).double()
    return (logq_S.exp() * (logq_S - law_S)).sum()


# --- asking ---------------------------------------------------------------------------------------------------------


def asked_about(score: Any, **options: Any) -> tuple[AskedObjective, list[str]]:
    """An objective, and the texts that it was asked about so far."""
    texts_asked: list[str] = []

    def remembered(texts: Sequence[str]) -> Any:
        texts_asked.extend(texts)
        return score(texts)

    return AskedObjective(Objective("own", remembered, -1, 3), str, **options), texts_asked


def lengths(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def test_each_different_text_is_asked_about_once() -> None:
    asked, texts = asked_about(lengths)
    np.testing.assert_array_equal(asked.values(["a", "bb", "a"]), [1, 2, 1])
    np.testing.assert_array_equal(asked.values(["bb", "ccc"]), [2, 3])
    assert (texts, asked.calls, asked.failures) == (["a", "bb", "ccc"], 3, 0)
    np.testing.assert_array_equal(asked.best_so_far, [1, 2, 3])
    assert asked.round_numbers() == {
        "objective_calls": 3, "objective_failures": 0, "objective": 9 / 5, "objective_top": 1 / 5,
    }  # fmt: skip
    assert asked.round_numbers() == {"objective_calls": 3, "objective_failures": 0}


def test_a_failure_is_the_worst_value_counted_and_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    asked, _ = asked_about(lambda texts: [float("nan") if text == "x" else {"y": 9}.get(text, 1) for text in texts])
    np.testing.assert_array_equal(asked.values(["a", "x", "y"]), [1, -1, -1])
    asked.values(["x", "z"])
    told = capsys.readouterr().err
    assert told == (
        "warning: objective 'own' gave nan, expected -1 to 3 for the text 'x'; such texts get the worst value, -1, and "
        "are counted\n"
    )
    assert (asked.calls, asked.failures) == (4, 2)


def test_a_function_that_fails_at_everything_is_refused_at_once() -> None:
    asked, _ = asked_about(lambda texts: texts.no_such_method())
    assert_refused("fails at all of the first 9 texts: it raised AttributeError", asked.values, list("abcdefghi"))


def test_a_budget_is_never_overdrawn_and_repeated_texts_cost_nothing() -> None:
    asked, texts = asked_about(lengths, budget=3)
    asked.values(["a", "b"])
    with pytest.raises(BudgetSpentError, match=r"budget of 3 calls .* is spent: 2 are used, and the next texts need 2"):
        asked.values(["a", "c", "d"])
    np.testing.assert_array_equal(asked.values(["a", "b", "c"]), [1, 1, 1])
    assert texts == ["a", "b", "c"]


@pytest.mark.parametrize(("options", "sentence"), [
    ({"budget": 0}, "budget must be at least 1"), ({"workers": -1}, "objective_workers must be at least 0"),
    ({"timeout": 1.0}, "needs objective_workers"), ({"repeat_decay": 1.5}, "repeat_decay must be 0 to 1"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, AskedObjective, "python", str, **options)


def test_a_text_pays_less_each_time_it_comes_again_by_what_counts_as_the_same() -> None:
    # Tokens 0 to 4 are worth (length of their name + 1) / 4; texts of the same first letter are of one group.
    objective = Objective("own", lengths, -1, 3, group=lambda text: text[:1])
    asked = AskedObjective(objective, lambda tokens: ["a", "ab", "b", "c", "a"][tokens[0]], repeat_decay=0.5)
    paid_B = asked.pays(torch.tensor([[0], [1], [2], [0]]))
    np.testing.assert_allclose(paid_B, [0.5, 0.75 / 2, 0.5, 0.5 / 4])
    np.testing.assert_allclose(asked.pays(torch.tensor([[4], [3]]), repeats=False), [0.5, 0.5])
    np.testing.assert_allclose(asked.pays(torch.tensor([[4], [3]])), [0.5 / 8, 0.5])


def test_what_is_remembered_goes_through_a_checkpoint() -> None:
    asked, _ = asked_about(lengths, repeat_decay=0.5)
    other, texts = asked_about(lengths, repeat_decay=0.5)
    asked.pays(torch.tensor([[1], [2], [1]]))
    other.load_state_dict(asked.state_dict())
    assert (other.calls, other.round_numbers()) == (2, asked.round_numbers())
    assert torch.equal(other.pays(torch.tensor([[1], [3]])), asked.pays(torch.tensor([[1], [3]])))
    assert texts == ["[3]"]
    for name, value in (("value_C", [1.0, 9.0, 1.0]), ("value_C", [1.0]), ("counts_5", [float("inf")] * 5)):
        forged = asked.state_dict() | {name: torch.tensor(value, dtype=torch.float64)}
        assert_refused("does not fit it", other.load_state_dict, forged)


# --- environments ---------------------------------------------------------------------------------------------------


def options_for(**options: Any) -> dict[str, Any]:
    discriminator = PositionDiscriminator(3, 3)
    usual = {"task": TASK, "discriminator": discriminator, "transform": "prob", "objective": zeros}
    return {**usual, **options}


def test_a_text_is_paid_the_weighted_sum_of_both_stepped_or_collected() -> None:
    envs = TextGANVectorEnv(6, **options_for(objective_weight=0.75))
    envs.reset(seed=1)
    batch = envs.collect(table_policy(TASK))
    d_B = envs.game.discriminator.logits(batch.tokens_BT).sigmoid()
    o_B = (batch.tokens_BT == 0).double().mean(1)
    torch.testing.assert_close(batch.reward_BT[:, -1].double(), 0.25 * d_B + 0.75 * o_B, atol=1e-6, rtol=0)
    stepped = TextGANVectorEnv(6, **options_for(objective_weight=0.75))
    stepped.reset(seed=1)
    paid = [stepped.step(token_B)[1] for token_B in batch.tokens_BT.T.numpy()]
    np.testing.assert_allclose(np.stack(paid, 1), batch.reward_BT, atol=1e-6)


def test_gymnasium_makes_one_by_name_and_without_a_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textgan_env.envs.game.default_discriminator", None)  # would be called
    env = gym.make("TextGAN-v0", task="toy", objective="has:3", objective_weight=1.0)
    env.reset(seed=0)
    for tokens, reward in (([3, 0, 0, 0], 1.0), ([0, 0, 0, 0], 0.0)):
        env.reset()
        found = [env.step(np.int64(token)) for token in tokens]
        assert [step[1] for step in found] == [0, 0, 0, reward]
        assert "score_real" not in found[-1][4]
    assert_refused("the objective alone has no use", env.unwrapped.game.queue_discriminator, None)  # type: ignore[attr-defined]


def test_an_objective_of_another_range_is_paid_as_a_share_of_it() -> None:
    env = TextGANEnv(TASK, objective=Objective("own", lambda texts: [3.0] * len(texts), 1, 5), objective_weight=1.0)
    env.reset(seed=0)
    assert [env.step(np.int64(0))[1] for _ in range(3)] == [0, 0, 0.5]


def test_with_completions_a_token_is_paid_the_mean_over_them() -> None:
    only_zeros, options = StubPolicy([0.0, -1e9, -1e9], start_token=0), options_for(objective_weight=1.0)
    envs = TextGANVectorEnv(4, **options, reward="rollout", rollouts=2, rollout_policy=only_zeros)
    envs.reset(seed=0)
    batch = envs.collect(table_policy(TASK))
    expected_BT = torch.stack([1 - (batch.tokens_BT[:, : t + 1] != 0).sum(1) / 3 for t in range(3)], 1)
    torch.testing.assert_close(batch.credit_BT, expected_BT)
    steps = TextGANVectorEnv(4, **options, reward="difference", rollouts=2, rollout_policy=only_zeros)
    steps.reset(seed=0)
    paid_BT = np.stack([steps.step(token_B)[1] for token_B in batch.tokens_BT.T.numpy()], 1)
    np.testing.assert_allclose(paid_BT.sum(1), expected_BT[:, -1], atol=1e-6)


def test_each_control_replaces_its_own_part() -> None:
    def credit(**options: Any) -> Tensor:
        envs = TextGANVectorEnv(32, **options_for(objective_weight=0.5, **options))
        envs.reset(seed=0)
        return envs.collect(table_policy(TASK)).credit_BT[:, 0]

    plain_B, ones_B = credit(), credit(control="constant")
    o_B = 2 * ones_B - 1  # (1 + O) / 2
    d_B = 2 * plain_B - o_B
    torch.testing.assert_close(credit(objective_control="constant"), (1 + d_B) / 2)
    shuffled_B = 2 * credit(objective_control="shuffled") - d_B
    torch.testing.assert_close(shuffled_B.sort().values, o_B.sort().values)
    assert not torch.allclose(shuffled_B, o_B)
    random_B = 2 * credit(objective_control="random") - d_B
    assert len(random_B.unique()) == 32
    torch.testing.assert_close(credit(control="constant", objective_control="constant"), torch.ones(32))


@pytest.mark.parametrize(("options", "sentence"), [
    ({"objective_weight": 0.0}, "objective_weight must be above 0"), ({"objective_weight": 1.5}, "at most 1"),
    ({"objective_weight": 1.0, "control": "random"}, "leaves the discriminator out"),
    ({"objective": None, "objective_control": "random"}, "needs an objective"),
    ({"objective_control": "best"}, "unknown control"), ({"objective": 3}, "found int"),
    ({"objective": "my.py:score"}, "unknown objective 'my.py'"),
    ({"objective": AskedObjective(zeros, str, repeat_decay=0.5), "reward": "rollout"}, "repeat_decay counts"),
])  # fmt: skip
def test_what_makes_no_reward_together_is_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, TextGANVectorEnv, 2, **options_for(**options))


def test_a_dense_reward_with_an_objective_is_paid_in_collect_only() -> None:
    assert_refused("with an objective works in collect only", RewardSpec(
        reward="dense", objective=AskedObjective(zeros, str)).check_steps)  # fmt: skip


# --- learning -------------------------------------------------------------------------------------------------------


def test_the_expected_gradient_of_seqgan_is_that_of_the_objective_and_the_kl() -> None:
    policy, config = table_policy(SMALL), SeqGANConfig(**SIZES | {"batch_size": 2}, rollouts=0, kl_coef=BETA)
    agent, law_S = tabular(SeqGAN, config, policy, SMALL), tilted(SMALL, policy, 1 / BETA)
    with torch.no_grad():
        policy.logits_PV.add_(0.5 * torch.arange(2))
    # E[O] - beta KL(G || P) = beta log Z - beta KL(G || P exp(O / beta) / Z)
    exact_P = autograd_of(policy, lambda: BETA * kl_to(SMALL, policy, law_S))
    one_batch = partial(gradient_of_step, agent, "g_optimizer")
    assert relative_error(expected_gradient(SMALL, policy, 2, one_batch), exact_P) < 1e-5


@pytest.mark.parametrize("baseline", ["none", "leave-one-out"])
def test_the_expected_gradient_of_reinvent_is_twice_that_of_the_kl_to_its_optimum(baseline: Any) -> None:
    policy = table_policy(SMALL)
    config = ReinventConfig(**SIZES | {"batch_size": 2}, sigma=3.0, baseline=baseline)
    agent, law_S = tabular(Reinvent, config, policy, SMALL), tilted(SMALL, policy, 3.0)
    with torch.no_grad():
        policy.logits_PV.add_(0.5 * torch.arange(2))
    exact_P = autograd_of(policy, lambda: 2 * kl_to(SMALL, policy, law_S))
    one_batch = partial(gradient_of_step, agent, "g_optimizer")
    assert relative_error(expected_gradient(SMALL, policy, 2, one_batch), exact_P) < 1e-5


def test_without_a_baseline_reinvent_follows_the_square_of_the_published_loss() -> None:
    policy, config = table_policy(SMALL), ReinventConfig(**SIZES | {"batch_size": 4}, sigma=3.0, baseline="none")
    agent = tabular(Reinvent, config, policy, SMALL)
    prior_S = SMALL.text_log_prob(policy).detach()
    with torch.no_grad():
        policy.logits_PV.add_(0.5 * torch.arange(2))
    augmented_S = prior_S + 3 * share_of_zeros(SMALL)
    exact_P = autograd_of(policy, lambda: (augmented_S - SMALL.text_log_prob(policy)).square().mean())
    found_P = gradient_of_step(agent, "g_optimizer", SMALL.texts_ST)
    assert relative_error(found_P, exact_P) < 1e-5


ARMS: dict[str, tuple[type[Any], Any]] = {
    "seqgan": (SeqGAN, SeqGANConfig(**SIZES | {"batch_size": 256}, rollouts=0, kl_coef=BETA)),
    "reinvent": (Reinvent, ReinventConfig(**SIZES | {"batch_size": 256}, sigma=1 / BETA)),
    "resample": (ExpertIteration, ExpertIterationConfig(**SIZES | {"batch_size": 256}, real_share=0, alpha=1 / BETA)),
}


@pytest.mark.parametrize("name", ARMS)
def test_learning_ends_at_the_prior_tilted_by_the_objective(name: str) -> None:
    """KL to p exp(O / beta) / Z, .0765 nats where G begins as p."""
    policy = table_policy(TASK)
    law_S = tilted(TASK, policy, 1 / BETA)
    agent = tabular(*ARMS[name], policy, TASK)
    before = kl_to(TASK, policy, law_S).item()
    for repeat in range(40):
        agent.g_step(replace(step_of(0, "test", repeat), repeat=repeat))
    assert before > 0.05
    assert kl_to(TASK, policy, law_S).item() < 0.1 * before


@pytest.mark.parametrize("control", ["shuffled", "random", "constant"])
def test_what_knows_nothing_of_the_text_does_not_raise_the_objective(control: Any) -> None:
    def mean(policy: PolicyModule) -> float:
        with torch.no_grad():
            return float((TASK.text_log_prob(policy).exp() * share_of_zeros(TASK)).sum())

    gained = []
    for objective_control in (control, None):
        policy, config = table_policy(TASK), SeqGANConfig(**SIZES | {"batch_size": 128}, rollouts=0, kl_coef=BETA)
        agent = tabular(SeqGAN, replace(config, objective_control=objective_control), policy, TASK)
        before = mean(policy)
        for number in range(12):
            agent.g_step(step_of(0, "test", number))
        gained.append(mean(policy) - before)
    assert abs(gained[0]) < 0.04 < 0.08 < gained[1]


def test_best_of_n_keeps_the_first_of_the_best_of_each_group() -> None:
    policy, keys = table_policy(TASK), Keys.counted(0, 12)
    from textgan_env.rewards import generate

    tokens_RT = generate(policy, keys, 3)[0]
    found = best_of(policy, keys, 3, lambda texts: (texts.tokens_BT == 0).sum(1).float(), proposals=4)
    count_R = (tokens_RT == 0).sum(1).tolist()
    rows = [4 * group + count_R[4 * group : 4 * group + 4].index(max(count_R[4 * group : 4 * group + 4]))
            for group in range(3)]  # fmt: skip
    assert torch.equal(found.tokens_BT, tokens_RT[rows])
    assert list(stream_best(iter(["a", "bb", "cc", "d", "e"]), Objective("n", lengths, 0, 9), 2)) == ["bb", "cc", "e"]
    assert_refused("best_of must be at least 1", list, stream_best(iter("ab"), "python", 0))


def test_expert_iteration_learns_the_best_of_its_proposals() -> None:
    agent = ExpertIteration(ExpertIterationConfig(**SIZES, search="best", proposals=4, real_share=0), TASK)
    texts, _ = agent.searched(torch.Generator().manual_seed(0))
    assert len(texts) == 8
    assert float((texts.tokens_BT == 0).double().mean()) > 0.5  # .33 of the untrained policy's own


def test_an_evaluation_says_how_much_of_the_goal_is_reached() -> None:
    result = evaluate(TASK.oracle, TASK, samples=400, objective=zeros)
    texts = [TASK.text(tokens) for tokens in result.tokens_BT.tolist()]
    assert result.values["objective"] == pytest.approx(np.mean(zeros(texts)))
    assert result.values["objective_top"] == np.mean([text == "0 0 0" for text in texts])
    assert (result.settings["objective"], result.settings["objective_samples"]) == ("zeros", 400)


# --- runs -----------------------------------------------------------------------------------------------------------

RUN = replace(
    REINVENT["smoke"]("toy"), threads=1, show_samples=0, objective="zeros", repeat_decay=0.5, g_steps=2,
    checkpoint_every=0.0, objective_weight=0.5, batch_size=32, d_batch_size=500,
)  # fmt: skip


@pytest.mark.slow
def test_a_run_that_is_stopped_remembers_and_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole = launch(replace(RUN, runs=tmp_path / "whole"), Reinvent)
    with interrupted(Reinvent, "g_step", lambda number, _: number == 3):
        launch(replace(RUN, runs=tmp_path / "stopped"), Reinvent)
    (folder,) = (tmp_path / "stopped").iterdir()
    resumed = launch(replace(RUN, resume=folder), Reinvent)
    assert_same_training(whole, resumed)
    rows = [row for row in read_metrics(whole.path) if "objective" in row]
    calls = [float(row["objective_calls"]) for row in rows]
    assert 0 < calls[0] < calls[-1] <= 4**4
    values = json.loads((resumed.path / "evaluation.json").read_text())["values"]
    assert values["objective_calls"] == calls[-1]
    assert {"objective", "objective_top"} <= values.keys()


@pytest.mark.slow
def test_a_spent_budget_ends_the_run_in_good_order_and_a_larger_one_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(RUN, runs=tmp_path, budget=60, rounds=3, objective_weight=1.0)
    run = launch(config, Reinvent)
    said = capsys.readouterr()
    assert "the budget of 60 calls of objective 'zeros' is spent" in said.out + said.err
    values = json.loads((run.path / "evaluation.json").read_text())["values"]
    assert 0 < values["objective_calls"] <= 60
    assert "objective" not in values  # measuring it would take calls that nobody allowed
    more = launch(replace(config, resume=run.path, budget=10_000, overrides=("budget",)), Reinvent)
    assert len(read_metrics(more.path)) == 4
    values = json.loads((more.path / "evaluation.json").read_text())["values"]
    assert values["objective_calls"] > 60


def test_a_run_folder_never_says_what_code_is_run(tmp_path: Path) -> None:
    own, mark = tmp_path / "my.py", tmp_path / "was-run"
    own.write_text("def score(texts):\n    return [len(text) / 100 for text in texts]\n")
    config = replace(RUN, runs=tmp_path / "runs", objective=f"{own}:score")
    run = launch(config, Reinvent)
    resumed = partial(launch, replace(config, resume=run.path, overrides=()), Reinvent)
    assert_refused("give --objective FILE.py:NAME again", resumed)
    launch(replace(config, resume=run.path, overrides=("objective",)), Reinvent)
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(mark)!r}, 'w')\ndef score(texts): return [1.0] * len(texts)\n")
    about = json.loads((run.path / "config.json").read_text())
    about["config"] |= {"objective": f"{evil}:score", "overrides": ["objective"], "resume": str(run.path)}
    (run.path / "config.json").write_text(json.dumps(about))
    assert_refused("give --objective FILE.py:NAME again", resumed)
    assert not mark.exists()


@pytest.mark.moves_global_rng  # reading a command line does
@pytest.mark.parametrize(("given", "typed"), [("zeros", "python"), (None, "zeros"), ("zeros", "my.py:score")])
def test_a_resumed_run_keeps_its_objective(given: str | None, typed: str, tmp_path: Path) -> None:
    config = replace(RUN, objective=given, repeat_decay=1.0, runs=tmp_path, rounds=0)
    run = launch(config, Reinvent)
    words = ["--resume", str(run.path), "--objective", typed, "--threads", "1"]
    assert_refused("a resumed run keeps its objective", launch, parse(REINVENT, "", words), Reinvent)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"objective": None, "budget": 3}, "budget need an objective"),
    ({"control": "untrained"}, "leaves the discriminator out"),
    ({"objective": "nothing"}, "unknown objective"), ({"objective": "no.py:score"}, "no file"),
    ({"objective_timeout": 1.0}, "needs objective_workers"), ({"repeat_decay": 0.5, "rollouts": 2}, "repeat_decay"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    config = replace(SEQGAN["smoke"]("toy"), objective="zeros", objective_weight=1.0, threads=1)
    assert_refused(sentence, SeqGAN, replace(config, **options), TASK)
