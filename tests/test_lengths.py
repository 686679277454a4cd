"""Texts with an end token stay as long as they were: a reward that pays for length would show here."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import class_of, module_of
from test_every_agent import AGENTS, TEXTS, WORDS
from test_every_option import choices
from textgan_env.ops.sampling import seeded
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import Task, make_task

#: Agents without steps of their own on what they generate.
OTHERS = ("mle", "vae", "distill", "ppo", "a2c", "dqn")
G_STEPS = 50
#: Of each agent that has them.
SIZES: dict[str, Any] = {
    "mle_epochs": 25, "mle_batch_size": 32, "ema_decay": 0.0, "embed_size": 16, "hidden_size": 16, "batch_size": 32,
    "d_pretraining": 5, "d_batch_size": 64, "rounds": G_STEPS // 10, "g_steps": 10, "threads": 1, "select": "last",
    "pretrain_rounds": 1, "pretrain_epochs": 20, "pretrain_d_steps": 1, "m_epochs": 2,
}  # fmt: skip
#: (agent, control) -> the mean length before and after 50 g-steps, where that is more than a fifth apart.
KNOWN: dict[tuple[str, str | None], tuple[float, float]] = {
    ("maskgan", None): (5.81, 2.02),
    ("maskgan", "untrained"): (5.81, 1.91),
    ("relgan", None): (5.93, 3.51),
    ("relgan", "shuffled"): (5.93, 3.84),
    ("relgan", "untrained"): (5.93, 3.82),
}


def pairs() -> Iterator[Any]:
    """Each agent with each of its controls, and with none."""
    for agent in AGENTS:
        if agent not in OTHERS:
            for control in (None, *choices(agent)["control"]):
                before_after = KNOWN.get((agent, control))  # type: ignore[arg-type]
                reason = "mean length {:.2f} before, {:.2f} after: see its page".format(*before_after or (0, 0))
                marks = [pytest.mark.xfail(reason=reason, strict=True)] if before_after else []
                yield pytest.param(agent, control, marks=marks)


def mean_length(agent: Any, task: Task) -> float:
    """Tokens in a text of G, the end token included; the mean of 2,000 texts."""
    lengths_B = generate(agent.policy, Keys.counted(5, 2000), task.max_length, end_token=task.end_token)[1]
    return float(lengths_B.double().mean())


def lengths(name: str, control: str | None, path: Path) -> tuple[float, float]:
    """The mean length of texts before an agent's last phase and after 50 g-steps of it."""
    lines = [f"{text} {WORDS[number % 7]} {WORDS[number // 7 % 7]}" for number, text in enumerate(TEXTS)]
    path.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
    task, kind = make_task("corpus", path=str(path)), class_of(name)
    config = module_of(name).PRESETS["smoke"]("corpus")
    known = {field.name for field in fields(config)}
    agent = kind(replace(config, control=control, **{key: size for key, size in SIZES.items() if key in known}), task)
    schedule, before = agent.schedule(), 0.0
    with seeded(0):
        for round_ in schedule.after(0):
            if round_.phase is schedule.last_phase and round_.index == 0:
                before = mean_length(agent, task)
            for steps, step in round_.steps(seed=1):
                steps.run(step)
    return before, mean_length(agent, task)


@pytest.mark.slow
@pytest.mark.parametrize(("agent", "control"), [*pairs()])
def test_after_50_g_steps_texts_are_as_long_as_before_to_a_fifth(
    agent: str, control: str | None, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    before, after = lengths(agent, control, tmp_path / "own.txt")
    assert after == pytest.approx(before, rel=0.2)
