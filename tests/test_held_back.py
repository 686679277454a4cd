"""--held-back: the discriminator learns from real texts that the policy never learnt from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents import class_of, module_of, seqgan
from conftest import assert_refused, assert_same_training, interrupted
from test_every_agent import AGENTS
from textgan_env.tasks import OracleTask
from textgan_env.text.dataset import Split, TokenDataset
from textgan_env.training import discriminator
from textgan_env.training.launch import launch
from textgan_env.training.rewarded import RewardedConfig
from textgan_env.utils.errors import InputError

ADVERSARIAL = [name for name in AGENTS if isinstance(module_of(name).PRESETS["smoke"]("toy"), RewardedConfig)]
TINY = replace(seqgan.PRESETS["smoke"]("toy"), threads=1, show_samples=0, max_length=3, held_back=0.25, rounds=1)


def small_task() -> OracleTask:
    """40 training texts, none of which stands twice."""
    return OracleTask(
        vocab_size=50, max_length=5, embed_size=4, hidden_size=4, train_size=40, valid_size=20, test_size=20
    )


def agent_of(name: str, task: OracleTask, **changes: Any) -> Any:
    config = module_of(name).PRESETS["smoke"]("oracle")
    return class_of(name)(replace(config, **{"held_back": 0.25, "d_batch_size": 16, **changes}), task)


def texts(tokens_BT: Tensor) -> set[tuple[int, ...]]:
    return {tuple(tokens) for tokens in tokens_BT.tolist()}


def test_the_parts_share_no_text_are_all_texts_and_follow_from_the_seed() -> None:
    task = small_task()
    parts = [agent_of("seqgan", task, seed=seed) for seed in (0, 0, 1)]
    learnt, judged = (texts(one.split("train").tokens_BT) for one in (parts[0].g_task, parts[0].d_task))
    assert (len(learnt), len(judged), len(learnt & judged)) == (30, 10, 0)
    assert learnt | judged == texts(task.split("train").tokens_BT)
    first, again, other = (agent.d_task.split("train").tokens_BT for agent in parts)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for agent in parts:
        for split in ("valid", "test"):
            assert torch.equal(agent.d_task.split(split).tokens_BT, task.split(split).tokens_BT)


def test_without_it_both_learn_from_all() -> None:
    task = small_task()
    agent = agent_of("seqgan", task, held_back=0.0)
    assert agent.g_task is agent.d_task is task


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.moves_global_rng  # importing SB3 does, once
def test_the_discriminator_learns_from_its_part_and_no_step_asks_for_all_texts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = small_task()
    agent = agent_of(name, task)
    shown: list[Tensor] = []

    def fit_step(*what: Any, **_: Any) -> dict[str, Tensor]:
        shown.append(what[2][: len(what[2]) // 2])
        return {"loss": torch.zeros(())}

    def split(of: Split) -> TokenDataset:
        assert of != "train", "all training texts were asked for"
        return OracleTask.split(task, of)

    monkeypatch.setattr(discriminator, "fit_step", fit_step)
    monkeypatch.setattr("textgan_env.discriminators.fit.fit_step", fit_step)
    monkeypatch.setattr(task, "split", split)
    for phase in agent.schedule().phases:
        for steps in phase.steps:
            if steps.times:
                steps.alone(1)
    assert shown
    assert texts(torch.cat(shown)) <= texts(agent.d_task.split("train").tokens_BT)


def test_a_run_keeps_its_share_and_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    whole = launch(replace(TINY, runs=tmp_path / "whole"), seqgan.SeqGAN)
    assert whole.about["config"]["held_back"] == 0.25
    with interrupted(seqgan.SeqGAN, "d_batch", lambda number, _: number == 2):
        launch(replace(TINY, runs=tmp_path / "stopped", checkpoint_every=0.0), seqgan.SeqGAN)
    (folder,) = (tmp_path / "stopped").iterdir()
    assert_same_training(whole, launch(replace(TINY, resume=folder), seqgan.SeqGAN))


def test_shares_that_leave_a_part_empty_and_policies_that_have_learnt_from_all_are_refused() -> None:
    task = small_task()
    for share in (-0.1, 1.0):
        assert_refused(
            f"held_back must be at least 0 and below 1, found {share}", agent_of, "seqgan", task, held_back=share
        )
    assert_refused("found 0 of 40 training texts held back", agent_of, "seqgan", task, held_back=0.01)
    with pytest.raises(InputError, match="--held-back cannot keep any from it"):
        agent_like(Path("run")).divided_task()


def agent_like(pretrained: Path) -> Any:
    """As much of an agent as is asked."""
    agent = agent_of("seqgan", small_task())
    agent.config = replace(agent.config, pretrained=pretrained)
    return agent
