"""A discriminator as a reward function, and the controls of any reward function; without TRL, which only calls them."""

import importlib
import random
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import assert_refused
from textgan_env.discriminators import score_logits
from textgan_env.ops.metrics import roc_auc
from textgan_env.trl import Controls, DiscriminatorReward, Reading, RewardFunction, controls
from textgan_env.trl import reward as reward_module
from textgan_env.trl.asked import text_of
from textgan_env.trl.processes import from_first, gathered
from textgan_env.utils.errors import InputError

SLOW = pytest.mark.slow
NOUNS, VERBS = ("cat", "dog", "fox"), ("sat", "ran")


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"the {rng.choice(NOUNS)} {rng.choice(VERBS)}" for _ in range(count)]


def babble(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choice(("the", *NOUNS, *VERBS)) for _ in range(3)) for _ in range(count)]


def call(reward: Callable[..., list[float | None]], texts: Sequence[Any], **columns: Any) -> list[float | None]:
    return reward(prompts=["go"] * len(texts), completions=texts, **columns)


def shown(reward: DiscriminatorReward, calls: int, *, rows: int = 16, first: int = 0) -> list[list[float | None]]:
    """What a reward answers to some batches of babble."""
    return [call(reward, babble(rows, seed=number)) for number in range(first, first + calls)]


# ----------------------------------------------------------------------------------------------------
# Reading.
def test_words_become_ids_with_an_end_and_what_is_too_long_is_cut_without_one() -> None:
    reader = Reading(min_count=1, max_length=4).reader(["b a a", "a b"])
    assert reader.vocabulary.tokens == ("<eos>", "<unk>", "a", "b")
    pad = 4
    assert reader.encode(["a b", "", "a a a a", "a new word", "a <eos> b"]).tolist() == [
        [2, 3, 0, pad],
        [0, pad, pad, pad],
        [2, 2, 2, 2],
        [2, 1, 1, 0],
        [2, 1, 3, 0],  # a text does not end because it says so
    ]
    assert reader.encode([]).shape == (0, 4)


def test_words_seen_once_are_unknown_so_that_real_texts_have_unknown_words_too() -> None:
    reader = Reading().reader(["a b", "a b", "a rare"])
    assert reader.vocabulary.tokens == ("<eos>", "<unk>", "a", "b")
    assert reader.max_length == 3
    assert reader.encode(["a rare"]).tolist() == [[2, 1, 0]]


def test_byte_pairs_know_every_text() -> None:
    pytest.importorskip("tokenizers", reason="needs the extra bpe")
    reader = Reading(mode="bpe", max_length=30).reader(sentences(50))
    text = "Un café\u2026"
    assert reader.vocabulary.unk is None
    assert reader.vocabulary.join(reader.vocabulary.decode(reader.encode([text])[0].tolist())) == text


def test_what_is_no_writing_is_unknown_and_ends_no_training() -> None:
    reader = Reading(min_count=1, max_length=4).reader(["b a a", "a b"])
    assert reader.encode(["a" + "\u0301" * 600]).tolist() == [[1, 0, 4, 4]]


def test_messages_are_read_as_their_contents() -> None:
    assert text_of("a b") == "a b"
    assert text_of([{"role": "assistant", "content": "a"}, {"role": "tool", "content": None}]) == "a\n"
    assert text_of([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}]) == "a"
    assert_refused("completion", text_of, 3)


# ----------------------------------------------------------------------------------------------------
# The reward.
def watched_fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """A list to which each refit adds real and written texts, instead of learning from them."""
    fits: list[tuple[Tensor, Tensor]] = []

    def watched(discriminator: Any, optimizer: Any, real_RT: Tensor, fake_RT: Tensor, **_: Any) -> dict[str, float]:
        fits.append((real_RT, fake_RT))
        return {"loss": 0.0}

    monkeypatch.setattr(reward_module, "fit_discriminator", watched)
    return fits


def test_a_completion_is_paid_the_logit_it_had_before_the_refit() -> None:
    reward, log = DiscriminatorReward(sentences(40)), dict[str, float]()
    texts = babble(12)
    before = deepcopy(reward.discriminator)
    logits_R = score_logits(before, reward.reader.encode(texts))
    assert call(reward, texts, log_metric=log.__setitem__) == logits_R.tolist()
    held_out_R = score_logits(before, reward.unseen_RT)
    assert log["discriminator/auc"] == roc_auc(held_out_R.numpy(), logits_R.numpy())
    assert log["discriminator/words"] == 3
    pairs = [pair for text in texts for pair in zip(text.split(), text.split()[1:], strict=False)]
    assert log["discriminator/distinct_2"] == len(set(pairs)) / len(pairs)
    assert not torch.equal(reward.logits(texts), logits_R)


def test_a_probability_is_that_of_the_logit() -> None:
    texts = babble(5)
    logits = call(DiscriminatorReward(sentences(40)), texts)
    probabilities = call(DiscriminatorReward(sentences(40), paid="probability"), texts)
    assert probabilities == torch.tensor(logits).sigmoid().tolist()


@pytest.mark.parametrize(("kind", "objective"), [
    ("pair", "pairs"), pytest.param("pair", "cross-entropy", marks=SLOW),
    pytest.param("recurrent", "pairs", marks=SLOW), pytest.param("recurrent", "cross-entropy", marks=SLOW),
])  # fmt: skip
def test_it_learns_to_tell_texts_apart_that_it_has_not_seen(kind: str, objective: Any) -> None:
    reward = DiscriminatorReward(sentences(100), discriminator=kind, objective=objective, steps=20, learning_rate=1e-2)
    logs: list[dict[str, float]] = [{} for _ in range(6)]
    for number, log in enumerate(logs):
        call(reward, babble(32, seed=number), log_metric=log.__setitem__)
    assert logs[0]["discriminator/auc"] < 0.8
    assert logs[-1]["discriminator/auc"] > 0.95


def test_real_texts_held_out_are_never_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = watched_fits(monkeypatch)
    texts = [f"word{number} word{number}" for number in range(20)]
    reward = DiscriminatorReward(texts, held_out=0.25)
    shown(reward, 2)
    learnt = {text for text in texts if reward.reader.vocabulary.unk not in reward.reader.encode([text])[0].tolist()}
    assert len(learnt) == 15  # the words of the others are unknown
    expected = sorted(reward.reader.encode(sorted(learnt)).tolist())
    assert [sorted(real_RT.tolist()) for real_RT, _ in fits] == [expected, expected]
    assert len(reward.unseen_RT) == 5


def test_it_refits_at_every_kth_call_on_the_newest_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = watched_fits(monkeypatch)
    reward = DiscriminatorReward(sentences(40), refit_every=2, replay=12)
    shown(reward, 5, rows=4)
    batches = [reward.reader.encode(babble(4, seed=number)).tolist() for number in range(5)]
    assert [fake_RT.tolist() for _, fake_RT in fits] == [batches[0] + batches[1], batches[1] + batches[2] + batches[3]]
    assert reward.waiting_RT.tolist() == batches[4]


def test_without_replay_it_learns_from_what_came_since_the_last_refit(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = watched_fits(monkeypatch)
    shown(DiscriminatorReward(sentences(40), replay=0), 3, rows=4)
    assert [len(fake_RT) for _, fake_RT in fits] == [4, 4, 4]


def test_at_most_a_thousand_texts_are_held_out_and_at_least_one() -> None:
    assert len(DiscriminatorReward(sentences(6000)).unseen_RT) == 1000
    assert len(DiscriminatorReward(["a b", "a b", "a b"], held_out=0.01).unseen_RT) == 1


def test_without_steps_it_stays_as_its_warm_up_left_it() -> None:
    reward = DiscriminatorReward(sentences(40), steps=0)
    reward.warm_up(babble(8), steps=3)
    before = reward.state_dict()
    shown(reward, 2)
    assert_same_state(before, reward.state_dict())


def test_what_does_not_learn_scores_and_stays_as_it_is() -> None:
    reward = DiscriminatorReward(sentences(40))
    reward.learns = False
    before = reward.state_dict()
    assert shown(reward, 2)[0] == reward.logits(babble(16)).tolist()
    assert_same_state(before, reward.state_dict())


def test_a_warm_up_is_a_refit_that_pays_nothing() -> None:
    reward = DiscriminatorReward(sentences(100))
    assert reward.warm_up(babble(64), steps=100) < 0.69
    real_R, fake_R = reward.logits(sentences(20, seed=9)), reward.logits(babble(20, seed=9))
    assert roc_auc(real_R.numpy(), fake_R.numpy()) > 0.9
    assert (reward.calls, reward.refits) == (0, 1)


def test_the_same_call_again_is_answered_without_learning() -> None:
    reward, texts = DiscriminatorReward(sentences(40)), babble(8)
    first = call(reward, texts)
    assert (call(reward, texts), reward.calls) == (first, 1)
    call(reward, list(texts))  # equal texts in another call are news
    assert reward.calls == 2


def test_conversations_are_judged_as_their_text_and_prompts_on_demand() -> None:
    texts = babble(4)
    messages = [[{"role": "assistant", "content": text}] for text in texts]
    reward = DiscriminatorReward(sentences(40))
    assert call(reward, messages) == call(DiscriminatorReward(sentences(40)), texts)
    whole = DiscriminatorReward(sentences(40), judge_prompts=True)
    assert whole.judged(["the "], ["cat sat"]) == ["the cat sat"]
    asked = [{"role": "user", "content": "the"}]
    assert whole.judged([asked], [[{"role": "assistant", "content": "cat sat"}]]) == ["the\ncat sat"]
    assert whole.reader.encode(["the\ncat sat"]).tolist() == whole.reader.encode(["the cat sat"]).tolist()


def assert_same_state(one: Any, other: Any) -> None:
    """Nested dicts of tensors and plain values, equal bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_state(one[key], other[key])
    elif isinstance(one, list):
        for mine, theirs in zip(one, other, strict=True):
            assert_same_state(mine, theirs)
    else:
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


@pytest.mark.parametrize("kind", ["pair", pytest.param("recurrent", marks=SLOW)])  # which has dropout
def test_it_goes_on_from_its_state_bit_for_bit(kind: str) -> None:
    through, stopped, resumed = (
        DiscriminatorReward(sentences(40), discriminator=kind, refit_every=2, replay=24) for _ in range(3)
    )
    expected = shown(through, 7)
    shown(stopped, 3)
    state = stopped.state_dict()
    shown(stopped, 1)  # which does not change the state that was taken
    resumed.load_state_dict(state)
    assert shown(resumed, 4, first=3) == expected[3:]
    assert_same_state(through.state_dict(), resumed.state_dict())


def test_a_state_of_other_texts_is_refused() -> None:
    state = DiscriminatorReward(sentences(40)).state_dict()
    assert_refused("real texts", DiscriminatorReward(sentences(40, seed=1)).load_state_dict, state)
    assert_refused("discriminator", DiscriminatorReward(sentences(40), options={"rank": 2}).load_state_dict, state)
    assert_refused("seed", DiscriminatorReward(sentences(40), seed=1).load_state_dict, state)


@pytest.mark.parametrize(
    ("match", "options"),
    [
        ("real texts", {"texts": []}),
        ("real texts", {"texts": ["one"]}),
        ("texts", {"texts": "one"}),
        ("text 2", {"texts": ["one", 2]}),
        ("words", {"texts": ["one", "two", "three"]}),
        ("discriminator", {"discriminator": "bleu"}),
        ("discriminator", {"options": {"ranks": 2}}),
        ("objective", {"objective": "ranking"}),
        ("reward", {"paid": "log"}),
        ("held_out", {"held_out": 1.0}),
        ("refit_every", {"refit_every": 0}),
        ("name", {"name": "../optimizer"}),
        ("max_length", {"reading": Reading(max_length=0)}),
        ("max_length", {"texts": ["a b " * 600] * 4}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_makes_no_sense_is_refused(match: str, options: dict[str, Any]) -> None:
    assert_refused(match, lambda: DiscriminatorReward(**{"texts": sentences(20), **options}))


def test_completions_without_prompts_and_empty_calls_are_refused() -> None:
    reward = DiscriminatorReward(sentences(40))
    assert_refused("prompt", lambda: reward(prompts=["go"], completions=["a", "b"]))
    assert_refused("completion", lambda: reward(prompts=[], completions=[]))


# ----------------------------------------------------------------------------------------------------
# Controls.
def lengths(prompts: Sequence[Any], completions: Sequence[str], **_: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def twins(arms: Controls) -> dict[str, RewardFunction]:
    return {name: getattr(arms, name) for name in ("shuffled", "shuffled_in_groups", "constant", "random")}


def test_a_reward_is_asked_once_whoever_asks_first() -> None:
    asked = []

    def dear(completions: Sequence[str], **_: Any) -> list[float]:
        asked.append(len(completions))
        return [float(len(text)) for text in completions]

    arms, texts = controls(dear), babble(6)
    for function in (arms.shuffled, arms.reward, arms.shuffled_in_groups, arms.reward):
        call(function, texts)
    assert asked == [6]


def test_a_twin_does_not_make_the_discriminator_learn_again() -> None:
    alone, beside = (DiscriminatorReward(sentences(40)) for _ in range(2))
    arms = controls(beside)
    for number in range(3):
        texts = babble(8, seed=number)
        call(alone, texts)
        for function in (arms.shuffled, beside, arms.untrained, *twins(arms).values()):
            call(function, texts)
    assert_same_state(alone.state_dict(), beside.state_dict())


def test_each_twin_has_a_name_of_its_own() -> None:
    arms = controls(lengths)
    names = [arms.reward.__name__, *(function.__name__ for function in twins(arms).values())]
    assert names == ["lengths", "shuffled_lengths", "shuffled_in_groups_lengths", "constant_lengths", "random_lengths"]
    assert controls(partial(lengths, unused=1)).reward.__name__ == "lengths"
    assert controls(DiscriminatorReward(sentences(40))).untrained.__name__ == "untrained_discriminator"


def test_shuffled_rewards_are_those_of_others_of_the_batch_or_the_group() -> None:
    texts = ["a" * length for length in range(1, 25)]
    prompts = [[{"role": "user", "content": number // 8}] for number in range(24)]
    arms = controls(lengths, seed=3)
    batch = arms.shuffled(prompts=prompts, completions=texts)
    groups = arms.shuffled_in_groups(prompts=prompts, completions=texts)
    for found in (batch, groups):
        assert sorted(found, key=float) == [float(length) for length in range(1, 25)]  # type: ignore[arg-type]
        assert found != [float(length) for length in range(1, 25)]
    for first in (0, 8, 16):
        assert set(groups[first : first + 8]) == set(map(float, range(first + 1, first + 9)))
    assert set(batch[:8]) != set(map(float, range(1, 9)))


def test_draws_follow_from_seed_step_and_texts() -> None:
    texts = babble(12)

    def drawn(seed: int, step: int, texts: list[str]) -> list[list[float | None]]:
        arms = controls(lengths, seed=seed)
        state = SimpleNamespace(global_step=step)
        return [call(arm, texts, trainer_state=state) for arm in (arms.shuffled, arms.random)]

    first = drawn(0, 5, list(texts))
    assert drawn(0, 5, list(texts)) == first
    for other in (drawn(1, 5, list(texts)), drawn(0, 6, list(texts)), drawn(0, 5, babble(12, seed=1))):
        assert other[1] != first[1]
    assert all(value is not None and 0 <= value < 1 for value in first[1])


def test_what_a_reward_does_not_apply_to_stays_without_one() -> None:
    def some(completions: Sequence[str], **_: Any) -> list[float | None]:
        return [None if number % 3 == 0 else float(number) for number in range(len(completions))]

    found = call(controls(some).shuffled, babble(9))
    assert [place for place, value in enumerate(found) if value is None] == [0, 3, 6]
    assert sorted(value for value in found if value is not None) == [1, 2, 4, 5, 7, 8]


def test_the_untrained_twin_is_the_discriminator_as_it_was() -> None:
    reward, texts = DiscriminatorReward(sentences(40), paid="probability"), babble(6)
    start = call(reward, texts)
    shown(reward, 3)
    assert call(controls(reward).untrained, list(texts)) == start
    assert call(controls(reward).constant, texts) == [1.0] * 6
    with pytest.raises(InputError, match="untrained"):
        _ = controls(lengths).untrained


@pytest.mark.parametrize(
    ("answer", "match"),
    [(None, "None"), ("12", "numbers"), ([1.0], "found 1"), ([1.0, float("nan")], "nan"), ([1.0, "x"], "completion 2"),
     ([float("inf"), 1.0], "inf"), (3.0, "numbers")],
    ids=str,
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(answer: Any, match: str) -> None:
    def broken(**_: Any) -> Any:
        return answer

    arms = controls(broken)
    for function in (arms.reward, arms.shuffled):
        assert "broken" in assert_refused(match, call, function, ["a", "b"])


def test_what_is_no_reward_function_has_no_controls() -> None:
    async def later(**_: Any) -> list[float]:
        return []

    assert_refused("asynchronous", controls, later)
    assert_refused("function", controls, "org/reward-model")
    assert_refused("Identity", controls, torch.nn.Identity())
    assert_refused("seed", lambda: controls(lengths, seed=-1))


# ----------------------------------------------------------------------------------------------------
# Around it.
def test_a_process_alone_talks_to_itself() -> None:
    assert gathered(("a", "b")) == (["a", "b"], slice(0, 2))
    assert from_first(lambda: 3) == 3


def test_without_transformers_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "textgan_env.trl.callbacks", raising=False)
    assert "textgan-env[trl]" in assert_refused("transformers", importlib.import_module, "textgan_env.trl.callbacks")
