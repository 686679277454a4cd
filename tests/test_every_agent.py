"""Every agent on every kind of text: its whole smoke preset runs, and a run that was stopped ends in the same bits."""

from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch

from agents import class_of, coldgan, cot, dgsan, distill, mle, module_of, seqgan
from conftest import PROJECT, assert_refused, step_of
from test_keeping import content, count_save_points
from textgan_env.runs.checkpointing import require_same_run
from textgan_env.tasks import ToyTask
from textgan_env.training.launch import launch, name_of

# The command lies beside the agents.
AGENTS = sorted(path.stem for path in (PROJECT / "agents").glob("[a-z]*.py") if path.stem != "cli")
# Texts of 2 to 6 words with an end token, and words that are seen once and so are unknown.
WORDS = ("the", "cat", "dog", "sees", "hears", "tree", "stone")
TEXTS = [" ".join(WORDS[(number * step) % 7] for step in range(1, 2 + number % 5)) for number in range(240)]


def parts_of(agent: str) -> tuple[ModuleType, Any]:
    """The module of an agent, and its class."""
    return module_of(agent), class_of(agent)


@pytest.fixture
def own_text(tmp_path: Path) -> Path:
    """A file of short texts, none of which stands twice."""
    path = tmp_path / "own.txt"
    lines = [f"{text} {WORDS[number % 7]} {WORDS[number // 7 % 7]}" for number, text in enumerate(TEXTS)]
    path.write_text("\n".join([*dict.fromkeys(lines), "the owl", "an ox"]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("agent", AGENTS)
def test_runs_are_called_as_the_agent_and_those_with_its_old_name_are_resumed(agent: str) -> None:
    _, learner = parts_of(agent)
    assert name_of(learner) == agent.replace("_", "-")
    config = {"task": "toy", "preset": "smoke", "seed": 0}
    checkpoint: Any = SimpleNamespace(path="last", document={"config": config, "agent": learner.__name__})
    for said in ({"agent": name_of(learner)}, {"name": f"{learner.__name__.lower()}-toy-1"}):
        require_same_run(checkpoint, cast(Any, SimpleNamespace(path="run", about={"config": config, **said})))
    run: Any = SimpleNamespace(path="run", about={"config": config, "name": "another-toy-1"})
    assert_refused(f"is of the agent '{learner.__name__}'", require_same_run, checkpoint, run)


@pytest.fixture(scope="module")
def random_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose policy begins each text from a random state."""
    config = replace(seqgan.PRESETS["smoke"]("toy"), initial_state="random", d_pretraining=0, rounds=0, threads=1)
    return launch(replace(config, runs=tmp_path_factory.mktemp("runs")), seqgan.SeqGAN).path


@pytest.mark.parametrize("learner", [cot.CoT, dgsan.DGSAN, distill.Distill, coldgan.ColdGAN])
def test_agents_that_know_no_random_start_refuse_a_policy_that_has_one(learner: Any, random_start: Path) -> None:
    config = replace(import_module(learner.__module__).PRESETS["smoke"]("toy"), pretrained=random_start)
    if learner is distill.Distill:
        teacher = replace(mle.PRESETS["smoke"]("toy"), threads=1, runs=random_start.parent)
        config = replace(config, teachers=(launch(teacher, mle.MLE).path,))
    sentence = assert_refused("found one of kind lstm with a random initial state", learner, config, ToyTask())
    assert sentence.startswith(f"{learner.__name__} learns only with")


@pytest.mark.parametrize("agent", [agent for agent in AGENTS if hasattr(parts_of(agent)[1], "g_step")])
def test_no_unit_of_g_is_dropped_while_it_generates_or_learns_from_rewards(agent: str) -> None:
    module, learner = parts_of(agent)
    config, task = replace(module.PRESETS["smoke"]("toy"), batch_size=8), ToyTask(size=100)
    learnt = []
    for dropout in (0.0, 0.9):
        taught = learner(replace(config, dropout=dropout), task)
        before = {name: value.clone() for name, value in taught.policy.state_dict().items()}
        taught.policy.train()  # as maximum likelihood leaves it
        taught.g_step(step_of(0, "test"))
        learnt.append(taught.policy.state_dict())
    same = [name for name, value in before.items() if torch.equal(value, learnt[0][name])]
    assert len(same) < len(before)
    assert [name for name in before if not torch.equal(learnt[0][name], learnt[1][name])] == []


@pytest.mark.slow
@pytest.mark.moves_global_rng  # importing SB3 does, once
@pytest.mark.parametrize(
    ("agent", "kind"), [*product(AGENTS, ("toy", "own text")), ("seqgan", "oracle"), ("ppo", "oracle")]
)
def test_smoke_runs_on_every_kind_of_text_and_is_resumed_bit_for_bit(
    agent: str, kind: str, own_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, learner = parts_of(agent)
    config = module.PRESETS["smoke"]("corpus" if kind == "own text" else kind)
    options: dict[str, Any] = {"own text": {"corpus": str(own_text), "min_count": 2}, "oracle": {"max_length": 6}}
    config = replace(config, threads=1, show_samples=0, **options.get(kind, {}))
    if agent == "distill":
        shared = {name: getattr(config, name) for name in ("task", "corpus", "min_count", "threads", "show_samples")}
        teacher = launch(replace(mle.PRESETS["smoke"](config.task), **shared, runs=tmp_path / "teachers"), mle.MLE)
        config = replace(config, teachers=(teacher.path,))
    with monkeypatch.context() as patch:
        save_points = count_save_points(patch)
        expected = content(launch(replace(config, runs=tmp_path / "whole"), learner))
    with monkeypatch.context() as patch:
        count_save_points(patch, max(1, 2 * len(save_points) // 3))
        with pytest.raises(KeyboardInterrupt):
            launch(replace(config, runs=tmp_path / "stopped", checkpoint_every=0.0), learner)
    (folder,) = (tmp_path / "stopped").iterdir()
    assert content(launch(replace(config, resume=folder), learner)) == expected
