"""The runnable examples reach the answers that listing all texts gives; tests/test_docs.py has their page."""

import importlib.util
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from conftest import PROJECT, assert_refused
from textgan_env.discriminators import score_logits
from textgan_env.envs import default_discriminator
from textgan_env.policies import TablePolicy
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import ToyTask


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PROJECT / "docs" / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


q_learning, reinforce = load("q_learning"), load("reinforce")
TASK = ToyTask(seed=5)


@pytest.fixture(scope="module")
def reward_S() -> torch.Tensor:
    return score_logits(default_discriminator(TASK, seed=0), TASK.texts_ST).sigmoid()


@pytest.mark.slow
def test_q_learning_finds_the_best_text_that_listing_finds() -> None:
    """R of the best text is .793, of the second best .738; a uniform policy expects .451."""
    result = q_learning.main(q_learning.Args(texts=2000))
    assert result["reached"] == pytest.approx(result["optimum"], abs=1e-6)
    assert result["uniform"] < result["optimum"] - 0.3


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_the_learnt_table_is_the_discounted_reward_of_the_best_completion_everywhere(gamma: float) -> None:
    result = q_learning.main(q_learning.Args(epsilon=1.0, learning_rate=1.0, gamma=gamma))
    assert result["largest_error"] < 1e-6


@pytest.mark.slow
def test_without_exploring_q_learning_stays_at_its_first_text_unless_it_is_optimistic() -> None:
    stuck = q_learning.main(q_learning.Args(texts=800, epsilon=0.0))
    optimistic = q_learning.main(q_learning.Args(texts=800, epsilon=0.0, initial=1.0))
    assert stuck["reached"] < stuck["optimum"] - 0.3
    assert optimistic["reached"] == pytest.approx(optimistic["optimum"], abs=1e-6)


def test_the_enumerated_q_of_the_best_policy_is_q_star(reward_S: torch.Tensor) -> None:
    optimal = q_learning.optimal_q(TASK, reward_S, gamma=1.0)
    prefixes = [()] + [tuple(text) for p in (1, 2, 3) for text in TASK.texts_ST[:: 4 ** (4 - p), :p].tolist()]
    logits_PV = torch.full((85, 4), -math.inf)
    for row, prefix in enumerate(prefixes):
        logits_PV[row, int(optimal[prefix].argmax())] = 0.0
    q_of_lengths = TASK.exact_q(TablePolicy(4, max_length=4, logits_PV=logits_PV), reward_S)
    listed_PV = torch.cat(q_of_lengths)
    assert torch.allclose(listed_PV, torch.tensor([optimal[prefix].tolist() for prefix in prefixes]).double())


def test_adding_up_q_finds_another_text_best(reward_S: torch.Tensor) -> None:
    assert reward_S[q_learning.best_by_sum(TASK, reward_S)] < reward_S.max() - 0.01


@pytest.mark.slow
@pytest.mark.parametrize("mode", [{}, {"reward": "rollout", "gamma": 0.0}, {"reward": "difference"}])
def test_reinforce_comes_within_a_hundredth_of_the_best_text(mode: dict[str, object]) -> None:
    """The optimum is .793, the second best text .738, and the uniform policy it starts from expects .451."""
    result = reinforce.main(reinforce.Args(**mode))
    assert result["reached"] > result["optimum"] - 0.01
    assert result["uniform"] < result["optimum"] - 0.3


@pytest.mark.slow
@pytest.mark.parametrize("control", ["constant", "random", "shuffled"])
def test_reinforce_learns_nothing_from_a_reward_that_knows_nothing(control: str, reward_S: torch.Tensor) -> None:
    policy = TablePolicy(4, max_length=4)
    reached, _ = reinforce.learn(reinforce.Args(control=control, entropy=0.0), policy, TASK, reward_S)[-1]
    assert reached < reward_S.max() - 0.15


def test_a_constant_reward_moves_nothing_with_a_baseline_and_sharpens_without(reward_S: torch.Tensor) -> None:
    ends = {}
    for baseline in ("leave-one-out", "none"):
        args = reinforce.Args(control="constant", entropy=0.0, baseline=baseline, steps=30)
        policy = TablePolicy(4, max_length=4)
        ends[baseline] = reinforce.learn(args, policy, TASK, reward_S)[-1][1]
        assert policy.logits_PV.any() == (baseline == "none")
    assert ends["leave-one-out"] == pytest.approx(math.log(256), abs=1e-5)
    assert ends["none"] < ends["leave-one-out"] - 0.2


def test_returns_to_go_by_hand() -> None:
    reward_BT = torch.tensor([[1.0, 2.0, 4.0]])
    assert reinforce.returns_to_go(reward_BT, 1.0).tolist() == [[7.0, 6.0, 4.0]]
    assert reinforce.returns_to_go(reward_BT, 0.5).tolist() == [[3.0, 4.0, 4.0]]
    assert reinforce.returns_to_go(reward_BT, 0.0).tolist() == [[1.0, 2.0, 4.0]]


@pytest.mark.parametrize(
    ("reward", "gamma", "unbiased"),
    [("terminal", 1.0, True), ("difference", 1.0, True), ("rollout", 0.0, True), ("rollout", 1.0, False)],
)
def test_the_estimate_is_unbiased_where_a_return_is_counted_once(
    reward: str, gamma: float, unbiased: bool, reward_S: torch.Tensor
) -> None:
    """Independent errors shrink by sqrt(64) = 8 in the mean of 64 batches; a bias does not."""
    args = reinforce.Args(reward=reward, gamma=gamma)
    one, mean = reinforce.gradient_errors(args, TASK, reward_S, batches=64)
    assert (mean < 1.5 * one / 8) == unbiased


def test_a_baseline_and_completions_make_the_gradient_less_noisy(reward_S: torch.Tensor) -> None:
    plain = reinforce.Args(baseline="none")
    based = replace(plain, baseline="leave-one-out")
    rollouts = replace(based, reward="rollout", gamma=0.0)
    errors = [reinforce.gradient_errors(args, TASK, reward_S, batches=32)[0] for args in (plain, based, rollouts)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(
    ("module", "field", "value"), [(q_learning, "texts", 5), (reinforce, "steps", 0), (reinforce, "batch_size", 1)]
)
def test_a_number_out_of_range_is_refused(module: ModuleType, field: str, value: int) -> None:
    assert_refused(f"{field} .* found {value}", module.main, module.Args(**{field: value}))


def run_example(name: str, *words: str) -> str:
    """What an example prints, in a process of its own: the libraries that it shows warn and log as they like."""
    command = [sys.executable, "-W", "ignore", f"docs/examples/{name}.py", *words]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torchrl") is None, reason="needs torchrl")
def test_ppo_by_torchrl_learns_what_the_environment_pays() -> None:
    """The best text is paid .79, a uniform policy .32 to .45; see above."""
    first, last = map(float, re.findall(r"(\.\d+|0\.\d+)", run_example("ppo_torchrl", "--batches", "60"))[:2])
    assert last > first + 0.1


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="needs optuna")
def test_a_search_by_optuna_goes_on_where_it_stopped_and_names_its_best_run(tmp_path: Path) -> None:
    words = ("--preset", "smoke", "--folder", str(tmp_path))
    run_example("tune_with_optuna", *words, "--trials", "2")
    told = run_example("tune_with_optuna", *words, "--trials", "3")
    assert len([*tmp_path.glob("mle-toy-*")]) == 3
    (best,) = re.findall(r"best of 3: NLL of the valid split ([\d.]+)", told)
    (run,) = re.findall(r"its run: (.+)", told)
    runs = [min(row["nll_valid"] for row in read_metrics(path)) for path in tmp_path.glob("mle-toy-*")]
    assert float(best) == pytest.approx(min(runs), abs=5e-4)
    assert min(row["nll_valid"] for row in read_metrics(run)) == min(runs)
