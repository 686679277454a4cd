"""DiscriminatorTraining: what it gathers, what it fits on, and who judges meanwhile."""

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

import textgan_env.envs.wrappers
from conftest import PositionDiscriminator, StubPolicy, assert_refused
from textgan_env.discriminators import DiscriminatorModule, discriminator_report, fit_discriminator, make_discriminator
from textgan_env.envs import TextGANEnv, TextGANVectorEnv
from textgan_env.envs.wrappers import DiscriminatorTraining, DiscriminatorVectorTraining
from textgan_env.tasks import CorpusTask, Task, ToyTask
from textgan_env.text.corpus import load_corpus

LINES = [
    f"{a} {b} {c} {d}" for a in ("the", "a") for b in ("big", "red") for c in ("cat", "dog") for d in ("ran", "sat")
]


@pytest.fixture(scope="module")
def toy() -> Task:
    return ToyTask(vocab_size=4, max_length=4, size=100)


@pytest.fixture(scope="module")
def words() -> Task:
    """Lines of four words with an end token, T = 8."""
    return CorpusTask(load_corpus(texts=LINES, max_length=8, eos=True))


def judge_of(task: Task, **options: Any) -> DiscriminatorModule:
    return make_discriminator("pair", vocab_size=task.vocab_size, max_length=task.max_length, seed=1, **options)


def single(task: Task, **settings: Any) -> DiscriminatorTraining:
    """Refits after 10 texts, of which the 5th and the 10th are held out."""
    env = TextGANEnv(task, reward="terminal", transform="logit", discriminator=judge_of(task))
    return DiscriminatorTraining(env, **{"every": 10, "buffer": 20, "steps": 3, "batch_size": 8, **settings})


def vector(task: Task, rows: int, mode: AutoresetMode, **settings: Any) -> DiscriminatorVectorTraining:
    envs = TextGANVectorEnv(
        rows, task, reward="terminal", transform="logit", discriminator=judge_of(task), autoreset_mode=mode
    )
    return DiscriminatorVectorTraining(envs, **{"every": 10, "steps": 3, "batch_size": 8, **settings})


def numbered(number: int) -> list[int]:
    """The toy's text number so and so: no two are alike."""
    return [number // 4**place % 4 for place in range(4)]


def play(env: gym.Env[Any, Any], numbers: range) -> None:
    for number in numbers:
        env.reset(seed=number)
        for token in numbered(number):
            env.step(np.int64(token))


def weights_of(discriminator: Any) -> list[Tensor]:
    return [tensor.clone() for tensor in discriminator.state_dict().values()]


def logit_of(discriminator: Any, tokens: list[int]) -> float:
    with torch.no_grad():
        padded = tokens + [discriminator.vocab_size] * (discriminator.max_length - len(tokens))
        return float(discriminator.logits(torch.tensor([padded])))


# -- When, on what, and who judges ------------------------------------------------------------------------------------
def test_every_so_many_texts_a_copy_is_refitted_and_the_old_judge_is_left_alone(toy: Task) -> None:
    env = single(toy)
    game = env.trainer.game
    old, old_weights = game.discriminator, weights_of(game.discriminator)
    play(env, range(9))
    assert env.stats == {}
    assert game.discriminator is old
    play(env, range(9, 10))
    new: Any = game.discriminator
    new_weights = weights_of(new)
    assert new is not old
    assert all(torch.equal(*pair) for pair in zip(weights_of(old), old_weights, strict=True))
    assert not all(torch.equal(*pair) for pair in zip(new_weights, old_weights, strict=True))
    assert not new.training
    assert not any(parameter.requires_grad for parameter in new.parameters())
    play(env, range(10, 29))
    assert [row["texts"] for row in env.history] == [10, 20]
    assert [row["refits"] for row in env.history] == [1, 2]
    assert game.discriminator is not new
    assert all(torch.equal(*pair) for pair in zip(weights_of(new), new_weights, strict=True))


def test_the_frozen_default_judge_is_never_changed(toy: Task) -> None:
    env = DiscriminatorTraining(TextGANEnv(toy, reward="terminal"), every=5, steps=2)
    default = env.trainer.game.discriminator
    before = weights_of(default)
    play(env, range(10))
    assert len(env.history) == 2
    assert all(torch.equal(*pair) for pair in zip(weights_of(default), before, strict=True))
    assert TextGANEnv(toy).game.discriminator is default


def test_held_out_texts_are_never_fitted_on_and_old_ones_are_forgotten(
    toy: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[dict[str, list[list[int]]]] = []

    def recorded(discriminator: Any, optimizer: Any, real_BT: Tensor, fake_BT: Tensor, **options: Any) -> Any:
        fits.append({"real": real_BT.tolist(), "fake": fake_BT.tolist()})
        return fit_discriminator(discriminator, optimizer, real_BT, fake_BT, **options)

    monkeypatch.setattr(textgan_env.envs.wrappers, "fit_discriminator", recorded)
    play(single(toy, every=10, hold_out=5, buffer=20), range(40))
    # The 1st text is number 0: the 5th, 10th ... are numbers 4, 9 ...
    expected = [[numbered(n) for n in range(max(0, end - 20), end) if n % 5 != 4] for end in (10, 20, 30, 40)]
    assert [fit["fake"] for fit in fits] == expected
    assert all(fit["real"] == toy.split("train").tokens_BT.tolist() for fit in fits)


def test_statistics_are_those_of_the_judge_that_was_queued(toy: Task) -> None:
    env = single(toy)
    play(env, range(20))
    names = ["accuracy", "accuracy_fake", "accuracy_real", "auc", "loss", "value"]
    keys = [
        "equilibrium", *(f"fit/{name}" for name in names), *(f"held_out/{name}" for name in names), "refits",
        "texts",
    ]  # fmt: skip
    assert sorted(env.stats) == keys
    assert env.stats["equilibrium"] == pytest.approx(-2 * math.log(2))
    assert env.history[-1] == env.stats
    held_out = torch.tensor([numbered(number) for number in (4, 9, 14, 19)])
    report = discriminator_report(env.trainer.game.discriminator, toy.split("valid").tokens_BT, held_out)
    assert {name: env.stats[f"held_out/{name}"] for name in names} == pytest.approx(report.as_dict())


def test_the_judge_learns_to_tell_what_is_written(toy: Task) -> None:
    env = single(toy, steps=30)
    for _ in range(40):
        env.reset()
        for token in (3, 3, 0, 0):
            env.step(np.int64(token))
    assert env.history[-1]["held_out/auc"] > 0.9
    assert env.history[-1]["held_out/loss"] < math.log(2) / 2
    assert env.history[-1]["held_out/value"] > env.stats["equilibrium"]


def test_the_optimizer_goes_on_where_the_last_refit_stopped(toy: Task) -> None:
    env = single(toy, steps=3)
    play(env, range(30))
    assert {int(state["step"]) for state in env.trainer._optimizer.state.values()} == {9}


def test_a_text_keeps_its_judge_and_a_refit_waits_for_the_slowest_row(words: Task) -> None:
    """Row 0 ends a text at every step, row 1 writes eight tokens under the first D."""
    envs = vector(words, 2, AutoresetMode.SAME_STEP, every=2, hold_out=2)
    game, end = envs.trainer.game, words.end_token
    assert end is not None
    slow = (end + 1) % words.vocab_size
    judges = [game.discriminator]
    envs.reset(seed=0)
    paid, refits = [], []
    for _ in range(11):
        _, reward_B, *_ = envs.step(np.array([end, slow]))
        paid.append(reward_B.tolist())
        refits.append(len(envs.history))
        if game.discriminator is not judges[-1]:
            judges.append(game.discriminator)
    # Refits after steps 2 and 4; the second waits until row 1 has ended, at step 8, and only then comes a third.
    assert refits == [0, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3]
    first, second, third, *_ = judges
    # Row 0: the text that step 2 began had the first D, and so on.
    expected = [first] * 3 + [second] * 6 + [third] * 2
    assert [row[0] for row in paid] == pytest.approx([logit_of(judge, [end]) for judge in expected], abs=1e-5)
    assert [row[1] for row in paid[:7]] == [0] * 7
    assert paid[7][1] == pytest.approx(logit_of(first, [slow] * 8), abs=1e-5)


@pytest.mark.parametrize("setting", [{}, {"seed": 1}], ids=["same seed", "another seed"])
def test_the_seed_decides_everything(toy: Task, setting: dict[str, int]) -> None:
    histories = []
    for settings in ({}, setting):
        judge = judge_of(toy, dropout=0.5)
        env = DiscriminatorTraining(TextGANEnv(toy, discriminator=judge, rollouts=1), every=10, steps=3, **settings)
        play(env, range(20))
        histories.append(env.history)
    assert (histories[0] == histories[1]) == (not setting)


# -- Which texts count ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.value)
def test_every_finished_text_is_gathered_once_in_each_autoreset_mode(words: Task, mode: AutoresetMode) -> None:
    envs = vector(words, 3, mode)
    gathered: list[list[int]] = []
    add = envs.trainer.add

    def recorded(tokens_BT: Any) -> None:
        gathered.extend(tokens_BT.tolist())
        add(tokens_BT)

    envs.trainer.add = recorded  # type: ignore[method-assign]
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    rows: list[list[int]] = [[], [], []]
    expected, over = [], [False] * 3
    for _ in range(40):
        actions = rng.integers(words.vocab_size, size=3)
        _, _, ended_B, _, _ = envs.step(actions)
        for row, token in enumerate(actions.tolist()):
            if over[row]:  # next-step autoreset: this action began the new text and was not written
                over[row] = False
                continue
            rows[row].append(token)
            if token == words.end_token or len(rows[row]) == 8:
                assert ended_B[row]
                expected.append(rows[row] + [words.vocab_size] * (8 - len(rows[row])))
                rows[row], over[row] = [], mode == AutoresetMode.NEXT_STEP
        if mode == AutoresetMode.DISABLED and ended_B.any():
            envs.reset(options={"reset_mask": ended_B})
    assert gathered == expected
    assert len(expected) >= 12
    assert len(envs.history) == len(expected) // 10


def test_collected_batches_count_when_they_are_collected_through_the_wrapper(toy: Task) -> None:
    envs = vector(toy, 6, AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    policy = StubPolicy([0.0] * 4)
    assert envs.collect(policy).tokens_BT.shape == (6, 4)
    envs.unwrapped.collect(policy)  # type: ignore[attr-defined]
    assert len(envs.history) == 0
    envs.collect(policy)
    assert [row["texts"] for row in envs.history] == [12]


def test_other_wrappers_may_stand_on_either_side(toy: Task) -> None:
    env = gym.make("TextGAN/Toy-v0", size=100, reward="terminal")
    env = gym.wrappers.FlattenObservation(gym.wrappers.RecordEpisodeStatistics(env))
    training = DiscriminatorTraining(env, every=10)
    env = gym.wrappers.TransformReward(training, lambda reward: -float(reward))
    play(env, range(20))
    assert len(training.history) == 2
    envs = gym.make_vec("TextGAN/Toy-v0", num_envs=5, size=100, reward="terminal")
    batched = DiscriminatorVectorTraining(gym.wrappers.vector.RecordEpisodeStatistics(envs), every=10)
    stepped = gym.wrappers.vector.DictInfoToList(batched)
    stepped.reset(seed=0)
    for _ in range(16):
        stepped.step(np.arange(5) % 4)
    assert [row["texts"] for row in batched.history] == [10, 20]


def test_a_wrapper_inside_that_hides_the_final_observations_hides_no_text(toy: Task) -> None:
    plain, inside = (TextGANVectorEnv(5, toy, reward="terminal", discriminator=judge_of(toy)) for _ in range(2))
    seen = DiscriminatorVectorTraining(plain, every=10)
    hidden = DiscriminatorVectorTraining(gym.wrappers.vector.DictInfoToList(inside), every=10)
    for envs in (seen, hidden):
        envs.reset(seed=0)
        for number in range(16):
            envs.step((np.arange(5) + number) % 4)
    assert seen.history == hidden.history
    assert [row["texts"] for row in hidden.history] == [10, 20]


def test_texts_that_a_time_limit_cuts_off_do_not_count(toy: Task) -> None:
    env = TextGANEnv(toy, reward="terminal", discriminator=judge_of(toy))
    training = DiscriminatorTraining(gym.wrappers.TimeLimit(env, 3), every=10)
    for _ in range(12):
        training.reset(seed=0)
        for token in (0, 1, 2):
            *_, truncated, _ = training.step(np.int64(token))
        assert truncated
    assert training.history == []


def test_nothing_about_the_judge_is_put_into_infos(toy: Task) -> None:
    env = single(toy)
    infos = []
    for number in range(10):
        env.reset(seed=number)
        infos += [env.step(np.int64(token))[4] for token in numbered(number)]
    assert len(env.history) == 1
    assert {key for info in infos for key in info} == {"action_mask", "score_real"}


# -- Specs and refusals -----------------------------------------------------------------------------------------------
def test_a_wrapped_env_is_made_again_from_its_spec() -> None:
    env = DiscriminatorTraining(gym.make("TextGAN/Toy-v0", size=100, reward="terminal"), every=10, steps=2, seed=4)
    assert env.spec is not None
    again = gym.make(env.spec)
    assert isinstance(again, DiscriminatorTraining)
    play(env, range(10))
    play(again, range(10))
    assert env.history == again.history != []


def loop_and_wrapper(toy: Task) -> None:
    env = single(toy)
    play(env, range(3))
    assert env.trainer.game.queue_discriminator(judge_of(toy))
    play(env, range(3, 4))


@pytest.mark.parametrize(("act", "names"), [
    (loop_and_wrapper, "changed the discriminator"),
    (lambda toy: play(DiscriminatorTraining(single(toy), every=5), range(10)), "changed the discriminator"),
    (lambda toy: DiscriminatorTraining(TextGANEnv(toy, control="constant")), "'constant' control"),
    (lambda toy: DiscriminatorTraining(TextGANEnv(toy, control="random")), "'random' control"),
    (
        lambda toy: DiscriminatorTraining(TextGANEnv(toy, discriminator=PositionDiscriminator(4, 4))),
        "make_optimizer",
    ),
    (lambda _: DiscriminatorTraining(gym.make("CartPole-v1")), "CartPoleEnv"),
    (
        lambda toy: DiscriminatorTraining(TextGANVectorEnv(2, toy, control="constant")),  # type: ignore[arg-type]
        "take DiscriminatorVectorTraining",
    ),
    (
        lambda toy: DiscriminatorVectorTraining(TextGANEnv(toy, control="constant")),  # type: ignore[arg-type]
        "take DiscriminatorTraining",
    ),
    (
        lambda toy: DiscriminatorVectorTraining(SyncVectorEnv([lambda: TextGANEnv(toy, control="constant")])),
        "SyncVectorEnv",
    ),
    (lambda toy: single(toy, hold_out=1), "hold_out"),
    (lambda toy: single(toy, every=4, hold_out=5), "every"),
    (lambda toy: single(toy, every=30, buffer=20), "buffer"),
    (lambda toy: single(toy, steps=0), "steps"),
    (lambda toy: single(toy, batch_size=0), "batch_size"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_what_cannot_work_is_refused(toy: Task, act: Callable[[Task], Any], names: str) -> None:
    assert_refused(names, act, toy)


def test_the_smallest_settings_work(toy: Task) -> None:
    env = single(toy, every=2, hold_out=2, buffer=2, steps=1, batch_size=1)
    play(env, range(4))
    assert len(env.history) == 2


def test_a_refit_logs_a_line_with_its_held_out_numbers(caplog: pytest.LogCaptureFixture) -> None:
    env = DiscriminatorTraining(gym.make("TextGAN/Toy-v0"), every=10, steps=2)
    caplog.clear()  # that the default discriminator was fitted
    with caplog.at_level("INFO", logger="textgan_env.envs.wrappers"):
        for episode in range(10):
            env.reset(seed=episode)
            for _ in range(4):
                env.step(np.int64(episode % 4))
    assert len(caplog.messages) == 1, caplog.messages
    assert f"AUC {env.stats['held_out/auc']:.3f}" in caplog.messages[0]
    assert "refit 1 after 10 texts" in caplog.messages[0]
