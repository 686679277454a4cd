"""Trainers of TRL with a discriminator as reward: a tiny Llama on the CPU, nothing fetched."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import PROJECT, assert_refused

pytest.importorskip("trl", reason="needs the extra trl")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.moves_global_rng,  # trainers seed and draw
    pytest.mark.filterwarnings("ignore"),  # of TRL and its libraries
]

from transformers import TrainerCallback  # noqa: E402
from trl import RLOOConfig, RLOOTrainer  # noqa: E402

import tiny_lm  # noqa: E402
from textgan_env.trl import controls  # noqa: E402
from textgan_env.trl.callbacks import DiscriminatorCallback  # noqa: E402
from tiny_lm import digest, tiny_reward, trainer_of  # noqa: E402


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def logged(trainer: Any, name: str) -> list[float]:
    return [row[name] for row in trainer.state.log_history if name in row]


RLOO = (RLOOTrainer, RLOOConfig)


class StopsAt(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Ctrl-C after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_the_discriminator_learns_along_with_controls_beside_it(tmp_path: Path) -> None:
    """An untrained model writes words at random: after a refit D tells texts that it has not seen from real ones."""
    reward = tiny_reward()
    arms = controls(reward)
    beside = [arms.shuffled, arms.shuffled_in_groups, arms.constant, arms.random, arms.untrained]
    trainer = trainer_of(tmp_path, reward, beside, learning_rate=0.0)
    trainer.train()
    aucs = logged(trainer, "discriminator/auc")
    assert len(aucs) == 6
    assert aucs[0] < 0.75
    assert min(aucs[2:]) > 0.85
    assert (reward.calls, reward.refits) == (6, 6)
    for twin in ("shuffled_discriminator", "shuffled_in_groups_discriminator"):
        one, other = (logged(trainer, f"rewards/{name}/mean") for name in ("discriminator", twin))
        assert one == pytest.approx(other, abs=1e-5)
    assert logged(trainer, "rewards/constant_discriminator/std") == [0.0] * 6
    assert logged(trainer, "reward") == pytest.approx(logged(trainer, "rewards/discriminator/mean"), abs=1e-5)
    assert {"discriminator/loss", "discriminator/words", "discriminator/distinct_2"} <= trainer.state.log_history[
        0
    ].keys()


def test_the_model_learns_what_the_discriminator_pays(tmp_path: Path) -> None:
    """8 of the 1,000 and more texts that the untrained model can write are real ones."""
    reward = tiny_reward()
    trainer = trainer_of(tmp_path, reward, max_steps=60, learning_rate=1e-2, per_device_train_batch_size=32)
    trainer.train()
    aucs = logged(trainer, "discriminator/auc")
    assert max(aucs) > 0.98
    assert sum(aucs[-5:]) / 5 < 0.93
    real = set(tiny_lm.real_texts())
    texts = reward.reader.vocabulary
    written = [" ".join(texts.decode(row)) for row in reward.replayed_RT.tolist()]
    assert len(written) == 64
    assert sum(text in real for text in written) > 8


def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    often: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    through, stopped, resumed = (tiny_reward(refit_every=2) for _ in range(3))
    whole = trainer_of(tmp_path / "whole", through, **often)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path / "killed", stopped, callbacks=[StopsAt(5)], **often).train()
    arms = controls(resumed)
    trainer = trainer_of(tmp_path / "killed", resumed, [arms.shuffled], **often)
    trainer.train(resume_from_checkpoint=True)
    assert resumed.refits == 3
    assert logged(trainer, "discriminator/auc") == logged(whole, "discriminator/auc")
    assert digest(resumed.state_dict()) == digest(through.state_dict())
    for one, other in zip(whole.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_without_a_discriminator_is_refused(tmp_path: Path) -> None:
    reward = tiny_reward()
    trainer_of(tmp_path, reward, max_steps=2, save_strategy="steps", save_steps=2).train()
    file = tmp_path / "checkpoint-2" / "reward_discriminator.pt"
    file.write_bytes(file.read_bytes()[:1000])
    assert_refused("whole", trainer_of(tmp_path, tiny_reward()).train, resume_from_checkpoint=True)
    file.unlink()
    assert_refused("no discriminator", trainer_of(tmp_path, tiny_reward()).train, resume_from_checkpoint=True)
    elsewhere = DiscriminatorCallback(reward, resume_from=tmp_path / "elsewhere")
    assert elsewhere.resume_from == tmp_path / "elsewhere"


def test_evaluation_teaches_the_discriminator_nothing(tmp_path: Path) -> None:
    reward = tiny_reward()
    trainer = trainer_of(tmp_path, reward, max_steps=2, eval_strategy="steps", eval_steps=1, eval_on_start=True)
    trainer.train()
    assert reward.calls == 2
    assert len(logged(trainer, "eval_discriminator/auc")) == 3


def test_conversations_and_rloo(tmp_path: Path) -> None:
    """The same model, asked in a conversation, is paid for the text of its answer."""
    reward = tiny_reward()
    trainer = trainer_of(tmp_path, reward, [controls(reward).shuffled], kind=RLOO, chat=True, beta=0.0)
    trainer.train()
    aucs = logged(trainer, "discriminator/auc")
    assert aucs[0] < 0.75
    assert aucs[-1] > 0.85


def test_two_processes_agree_with_each_other_and_with_one(tmp_path: Path) -> None:
    """Given the same texts, shared out unevenly, two processes pay what one does, and hold the same discriminator.

    In training they write other texts than one process would, as TRL seeds each process for itself.
    """
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    script = [str(PROJECT / "tests" / "tiny_lm.py"), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *launch, *script], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"found-{rank}.pt", weights_only=True) for rank in (0, 1))
    alone, expected = tiny_reward(), []
    shuffled = controls(alone).shuffled_in_groups
    for batch in tiny_lm.batches_of_texts():
        expected += [function(prompts=["go"] * 16, completions=batch) for function in (alone, shuffled)]
    assert [one + other for one, other in zip(first[0], second[0], strict=True)] == expected
    assert {digest(alone.state_dict()), digest(first[1]), digest(second[1])} == {digest(alone.state_dict())}
    assert digest(first[2]) == digest(second[2])
    assert first[2]["calls"] == 6
    assert first[3] == second[3]
    assert first[4] == second[4] == 0  # threads of gloo: none is left to race with the end of the interpreter
    assert [path.name for path in tmp_path.rglob("*discriminator*")] == ["reward_discriminator.pt"]
