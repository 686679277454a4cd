"""Distillation: gradients against autograd of the listed divergence, whole runs, and what is refused."""

import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from agents.distill import PRESETS, Distill, DistillConfig
from agents.mle import MLE, MLEConfig
from conftest import assert_refused, assert_same_training, interrupted, step_of
from exact import autograd_of, expected_gradient, relative_error, table_policy
from textgan_env import load
from textgan_env.policies import Decoding, LSTMPolicy, PolicyModule, TablePolicy
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.loading import resuming, teacher_policies
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import ToyTask
from textgan_env.training.divergence import prefix_kl
from textgan_env.training.launch import launch
from textgan_env.training.mle import trained

V, T = 3, 2
TASK = ToyTask(vocab_size=V, max_length=T, size=100)
TINY = MLEConfig(
    preset="smoke", task="toy", epochs=1, embed_size=4, hidden_size=4, batch_size=250, threads=1, show_samples=0
)
Divergence = Literal["forward", "reverse"]
DIVERGENCES: tuple[Divergence, ...] = ("forward", "reverse")


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Two finished runs of maximum likelihood."""
    folder = tmp_path_factory.mktemp("teachers")
    return tuple(launch(replace(TINY, runs=folder, seed=seed), MLE).path for seed in (1, 2))


def tiny(teachers: tuple[Path, ...], **changes: Any) -> DistillConfig:
    config = replace(PRESETS["smoke"]("toy"), teachers=teachers, embed_size=5, hidden_size=5, threads=1, show_samples=0)
    return replace(config, **changes)


def table(seed: int) -> TablePolicy:
    return table_policy(TASK, seed=seed)


def learner(teachers: tuple[Path, ...], teacher: PolicyModule, student: PolicyModule, **changes: Any) -> Distill:
    """The agent with a teacher and a student whose every probability is known."""
    agent = Distill(tiny(teachers, **changes), ToyTask())
    agent.task, agent.teacher, agent.policy = TASK, teacher.requires_grad_(False), student
    return agent


def divergence(first: PolicyModule, second: PolicyModule) -> Tensor:
    """KL(first || second) of whole texts, by listing them; differentiable."""
    logp_S, logq_S = TASK.text_log_prob(first), TASK.text_log_prob(second)
    return (logp_S.exp() * (logp_S - logq_S)).sum()


def loss(agent: Distill, tokens_BT: Tensor) -> Tensor:
    """What the agent minimises on these texts."""
    total, count = agent.objective(tokens_BT, tokens_BT != V)["loss"]
    return total / count


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_the_expected_gradient_is_that_of_the_divergence_of_whole_texts(
    kind: Divergence, teachers: tuple[Path, ...]
) -> None:
    """Over all batches of two texts, the baseline of each from the other; float64."""
    teacher, student = table(1), table(2)
    agent = learner(teachers, teacher, student, divergence=kind)
    author, pair = (teacher, (teacher, student)) if kind == "forward" else (student, (student, teacher))
    expected = autograd_of(student, lambda: divergence(*pair) / T)
    slope = expected_gradient(TASK, author, 2, lambda tokens_BT: autograd_of(student, lambda: loss(agent, tokens_BT)))
    value = expected_gradient(TASK, author, 2, lambda tokens_BT: loss(agent, tokens_BT).detach())
    assert float(value) == pytest.approx(float(divergence(*pair).detach()) / T, rel=1e-6)
    assert relative_error(slope, expected) < 1e-6


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_a_student_that_is_the_teacher_has_no_gradient(kind: Divergence, teachers: tuple[Path, ...]) -> None:
    agent = learner(teachers, table(1), table(1), divergence=kind)
    assert float(loss(agent, TASK.texts_ST).detach()) == pytest.approx(0, abs=1e-12)
    assert float(autograd_of(agent.policy, lambda: loss(agent, TASK.texts_ST)).abs().max()) < 1e-12


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_one_step_lowers_the_divergence(kind: Divergence, teachers: tuple[Path, ...]) -> None:
    teacher, student = table(1).float(), table(2).float()
    agent = learner(teachers, teacher, student, divergence=kind, batch_size=64, ema_decay=0.0)
    agent.mle_optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    pair = (teacher, student) if kind == "forward" else (student, teacher)
    before = float(divergence(*pair).detach())
    numbers = agent.distill(step_of(0))
    assert float(divergence(*pair).detach()) < before
    assert 0 < float(numbers["loss"]) < before


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_what_stands_behind_the_end_of_a_text_changes_nothing(kind: Divergence, teachers: tuple[Path, ...]) -> None:
    teacher, student = (
        LSTMPolicy(V, start_token=V, embed_size=3, hidden_size=4, init_scale=1.0, seed=seed) for seed in (1, 2)
    )
    agent = learner(teachers, teacher, student, divergence=kind)
    short_BT, long_BT = torch.tensor([[0, 1], [2, 0]]), torch.tensor([[0, 1, V, V], [2, 0, V, V]])
    short_P = autograd_of(student, lambda: loss(agent, short_BT))
    long_P = autograd_of(student, lambda: loss(agent, long_BT))
    # The reverse divergence is one for each of T places.
    torch.testing.assert_close(long_P * (2 if kind == "reverse" else 1), short_P)


@pytest.mark.parametrize("forward", [True, False])
def test_the_divergence_of_texts_of_many_lengths_is_that_of_each_text_alone(forward: bool) -> None:
    teacher, student = (LSTMPolicy(V, start_token=V, embed_size=3, hidden_size=4, seed=seed) for seed in (1, 2))
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(V, (length,), generator=generator) for length in [30, 1, 17, 2, 2, 0, 29, 5, 40, 1] * 3]
    tokens_BT = pad_sequence(texts, batch_first=True, padding_value=V)
    mask_BT = tokens_BT != V
    total, kl_BT = prefix_kl(student, teacher, tokens_BT, mask_BT, forward=forward)

    def alone(text_T: Tensor) -> Tensor:
        """One token after another, over all that could come next: float (T,)."""
        states, before, parts = [teacher.begin(1), student.begin(1)], torch.tensor([V]), []
        for token in text_T:
            (logp_1V, first), (logq_1V, second) = teacher.step(before, states[0]), student.step(before, states[1])
            states, before = [first, second], token[None]
            logp_V, logq_V = logp_1V[0].log_softmax(0), logq_1V[0].log_softmax(0)
            pair = (logp_V, logq_V) if forward else (logq_V, logp_V)
            parts.append((pair[0].exp() * (pair[0] - pair[1])).sum())
        return torch.stack(parts) if parts else torch.zeros(0)

    expected = [alone(text_T) for text_T in texts]
    for kl_T, expected_T in zip(kl_BT, expected, strict=True):
        torch.testing.assert_close(kl_T[: len(expected_T)], expected_T.detach(), rtol=1e-4, atol=1e-6)
        assert not kl_T[len(expected_T) :].any()
    weights = trained(student)
    gradients = torch.autograd.grad(total, weights)
    torch.testing.assert_close(gradients, torch.autograd.grad(torch.cat(expected).sum(), weights), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("changes", "expected"), [
    ({}, [0, 1]), ({"divergence": "reverse"}, [1, 2]), ({"texts": "real"}, [2, 2]),
])  # fmt: skip
def test_prefixes_are_those_of_whom_they_are_said_to_be(
    changes: dict[str, Any], expected: list[int], teachers: tuple[Path, ...]
) -> None:
    teacher, student = (
        TablePolicy.from_text_probabilities(torch.eye(V**T)[at], vocab_size=V, max_length=T) for at in (1, 5)
    )
    agent = learner(teachers, teacher, student, **changes)
    assert agent.texts(0, torch.tensor([[2, 2]] * 4)).tolist() == [expected] * 4


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_the_teacher_is_the_ensemble_of_the_runs_at_its_temperature(mean: str, teachers: tuple[Path, ...]) -> None:
    agent = Distill(tiny(teachers, mean=mean, teacher_temperature=0.5), ToyTask())
    tokens_BT = torch.tensor([[0, 1, 2, 3], [3, 3, 0, 0]])
    shares = [load(run).policy.all_log_probs(tokens_BT).double().exp().detach() for run in teachers]
    mean_BTV = (shares[0] + shares[1]) / 2 if mean == "arithmetic" else (shares[0] * shares[1]).sqrt()
    cold_BTV = mean_BTV**2 / (mean_BTV**2).sum(2, keepdim=True)
    torch.testing.assert_close(agent.teacher.all_log_probs(tokens_BT).double().exp(), cold_BTV, rtol=1e-5, atol=1e-7)


def test_policies_that_are_given_teach_as_the_runs_do_that_hold_them(teachers: tuple[Path, ...]) -> None:
    of_runs = Distill(tiny(teachers), ToyTask())
    given = Distill(tiny(()), ToyTask(), [load(run).policy for run in teachers])
    tokens_BT = torch.tensor([[0, 1, 2, 3], [3, 3, 0, 0]])
    said = [agent.teacher.all_log_probs(tokens_BT) for agent in (of_runs, given)]
    assert torch.equal(*said)
    assert sorted(given.modules) == sorted(of_runs.modules)


@pytest.mark.parametrize("changes", [
    pytest.param({}, marks=pytest.mark.slow), {"texts": "real", "dropout": 0.2},
    pytest.param({"divergence": "reverse"}, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_run_is_resumed_to_the_same_bits_without_its_teachers(
    changes: dict[str, Any], teachers: tuple[Path, ...], tmp_path: Path
) -> None:
    config = tiny(teachers, batch_size=250, epochs=2, **changes)
    whole = launch(replace(config, runs=tmp_path / "whole"), Distill)
    copies = tuple(Path(shutil.copytree(run, tmp_path / f"teacher-{at}")) for at, run in enumerate(teachers))
    with interrupted(Distill, "distill", lambda _, step: (step.round, step.batch) == (1, 2)):
        launch(replace(config, teachers=copies, runs=tmp_path / "cut", checkpoint_every=0.0), Distill)
    for copy in copies:
        shutil.rmtree(copy)
    cut = launch(replace(config, resume=tmp_path / "cut" / "distill-toy-1"), Distill)
    assert_same_training(whole, cut)
    assert [row["phase"] for row in read_metrics(whole.path)] == ["distill"] * 2


def test_a_student_begins_as_the_policy_of_a_run(teachers: tuple[Path, ...]) -> None:
    agent = Distill(tiny(teachers[:1], pretrained=teachers[1]), ToyTask())
    expected = load(teachers[1]).policy.state_dict()
    assert all(torch.equal(expected[name], found) for name, found in agent.policy.state_dict().items())


def test_a_cold_run_teaches_at_temperature_one(tmp_path: Path) -> None:
    cold = launch(replace(TINY, runs=tmp_path, temperature=0.5), MLE).path
    agent = Distill(tiny((cold,)), ToyTask())
    assert agent.modules["teacher.0"].decoding == Decoding()


def test_a_checkpoint_that_names_teachers_twice_or_of_another_task_is_refused(
    teachers: tuple[Path, ...], tmp_path: Path
) -> None:
    run = launch(tiny(teachers, runs=tmp_path), Distill)
    checkpoint = load_checkpoint(run.last_checkpoint)
    with resuming(checkpoint):
        assert [policy.kind for policy in teacher_policies((), ToyTask())] == ["lstm", "lstm"]
        assert_refused("of another vocabulary than task 'toy'", teacher_policies, (), ToyTask(vocab_size=5))
    checkpoint.document["teachers"] *= 2
    assert_refused("names 2 teachers again", checkpoint.build_teachers)


def test_teachers_that_do_not_fit_are_one_sentence(teachers: tuple[Path, ...], tmp_path: Path) -> None:
    def sentence(match: str, config: DistillConfig, task: ToyTask | None = None) -> None:
        assert_refused(match, Distill, config, task or ToyTask())

    sentence("no teacher: give --teachers RUN", tiny(()))
    sentence("no run folder at 'nowhere'", tiny((Path("nowhere"),)))
    sentence(
        "the teacher run '.*' is of task 'toy', V=4, T=4; expected task 'toy', V=5, T=4",
        tiny(teachers),
        ToyTask(vocab_size=5),
    )
    sentence("V=4, T=4; expected task 'toy', V=4, T=3", tiny(teachers), ToyTask(max_length=3))
    sentence("leave out --texts real", tiny(teachers, divergence="reverse", texts="real"))
    sentence("teacher_temperature must be above 0", tiny(teachers, teacher_temperature=0.0))
    stopped = launch(replace(TINY, runs=tmp_path), MLE).path
    RunFolder.open(stopped).evaluation_file.unlink()
    sentence("the teacher run '.*' has not finished: resume it first", tiny((*teachers, stopped)))


def test_teachers_of_a_text_with_other_words_are_refused(tmp_path: Path) -> None:
    runs = []
    for name, words in (("one", "abcdef"), ("two", "ghijkl")):
        text = tmp_path / f"{name}.txt"
        text.write_text("".join(f"{' '.join(three)}\n" for three in product(words, repeat=3)))
        config = replace(TINY, task="corpus", corpus=str(text), runs=tmp_path / "runs")
        runs.append(launch(config, MLE).path)
    task = load(runs[1]).task
    assert_refused("has learnt from a text with other words", Distill, tiny(tuple(runs)), task)
