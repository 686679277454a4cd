"""Whatever is given to an environment as an action."""

import copy
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from textgan_env.envs import TextGANEnv, TextGANVectorEnv
from textgan_env.utils.errors import InputError

ROWS, VOCAB = 3, 4
OPTIONS: dict[str, Any] = {"reward": "terminal", "control": "constant", "vocab_size": VOCAB, "max_length": 4}
NUMBERS = st.integers(-2, VOCAB + 1) | st.integers(-(2**70), 2**70) | st.floats() | st.booleans() | st.text(max_size=2)
ACTIONS = st.lists(st.integers(0, VOCAB - 1), min_size=ROWS, max_size=ROWS) | st.recursive(
    NUMBERS | st.none(), lambda inner: st.lists(inner, max_size=4), max_leaves=8
)


@given(actions=ACTIONS)
def test_any_actions_of_a_vector_env_are_a_step_or_refused_and_leave_it_as_it_was(actions: Any) -> None:
    envs = TextGANVectorEnv(ROWS, "toy", **OPTIONS)
    envs.reset(seed=0)
    before = copy.deepcopy(envs.game.episodes.tokens_BT)
    try:
        observation, reward_B, ended_B, _, _ = envs.step(actions)
    except InputError:
        assert np.array_equal(envs.game.episodes.tokens_BT, before)
        return
    assert np.array_equal(observation["tokens"][:, 0], np.asarray(actions, dtype=np.int64))
    assert reward_B.shape == (ROWS,)
    assert not ended_B.any()


@given(action=NUMBERS | st.none() | st.lists(NUMBERS, max_size=2))
def test_any_action_of_an_env_is_a_step_or_refused_and_leaves_it_as_it_was(action: Any) -> None:
    env = TextGANEnv("toy", **OPTIONS)
    env.reset(seed=0)
    try:
        observation = env.step(action)[0]
    except InputError:
        assert int(env.game.episodes.lengths_B[0]) == 0
        return
    assert observation["tokens"][0] == action
