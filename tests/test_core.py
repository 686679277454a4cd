"""Episodes: how a text starts, grows and ends, row by row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import assert_refused
from textgan_env.ops.episodes import Episodes

V, T, END, UNK = 5, 4, 1, 3
PAD = V


def rows(*chosen: bool) -> np.ndarray:
    return np.array(chosen, dtype=np.bool_)


def started(count: int = 2, end_token: int | None = END) -> Episodes:
    episodes = Episodes(count, T, V, end_token, forbidden=(UNK,))
    episodes.seed(np.ones(count, dtype=np.bool_), np.arange(count) + 100)
    episodes.begin(np.ones(count, dtype=np.bool_))
    return episodes


def test_a_text_grows_by_one_token_a_step_and_is_pad_behind() -> None:
    episodes = started()
    episodes.append(rows(True, True), np.array([2, 4]))
    episodes.append(rows(True, False), np.array([0, 99]))
    assert episodes.tokens_BT.tolist() == [[2, 0, PAD, PAD], [4, PAD, PAD, PAD]]
    assert episodes.lengths_B.tolist() == [2, 1]
    assert not episodes.ended_B.any()


def test_a_text_ends_with_its_end_token_or_with_its_last_position() -> None:
    episodes = started()
    for token_0, token_1 in ((0, 0), (0, END), (0, 0), (0, 0)):
        episodes.append(~episodes.ended_B, np.array([token_0, token_1]))
    assert episodes.ended_B.tolist() == [True, True]
    assert episodes.tokens_BT.tolist() == [[0, 0, 0, 0], [0, END, PAD, PAD]]
    assert episodes.lengths_B.tolist() == [4, 2]


def test_without_an_end_token_every_text_has_t_tokens() -> None:
    episodes = started(1, end_token=None)
    for step in range(T):
        assert not episodes.ended_B[0], step
        episodes.append(rows(True), np.array([END]))
    assert episodes.ended_B[0]


def test_partial_reset_leaves_the_other_rows_alone() -> None:
    episodes = started()
    episodes.append(rows(True, True), np.array([2, 4]))
    episodes.begin(rows(False, True))
    assert episodes.tokens_BT.tolist() == [[2, PAD, PAD, PAD], [PAD] * T]
    assert (episodes.lengths_B.tolist(), episodes.episode_B.tolist()) == ([1, 0], [0, 1])


def test_a_new_seed_counts_episodes_from_zero_again() -> None:
    episodes = started()
    episodes.begin(rows(True, True))
    episodes.seed(rows(True, False), np.array([7]))
    episodes.begin(rows(True, True))
    assert (episodes.seed_B.tolist(), episodes.episode_B.tolist()) == ([7, 101], [0, 2])


def test_a_prefix_stands_at_the_beginning_and_counts() -> None:
    episodes = started()
    episodes.begin(rows(True, False), np.array([2, UNK, 4]))
    assert (episodes.tokens_BT[0].tolist(), episodes.lengths_B.tolist()) == ([2, UNK, 4, PAD], [3, 0])
    episodes.append(rows(True, True), np.array([0, 0]))
    assert episodes.ended_B.tolist() == [True, False]


def test_whole_texts_can_be_filled_in() -> None:
    episodes = started()
    episodes.fill(np.array([[0, 2, 0, 2], [END, PAD, PAD, PAD]]))
    assert episodes.ended_B.all()
    assert episodes.lengths_B.tolist() == [4, 1]
    assert_refused("after the end", episodes.append, rows(True, False), np.array([0, 0]))


@pytest.mark.parametrize("prefix", [
    [0, 0, 0, 0], [[0, 0]], [0, END], [PAD], [-1],
], ids=["too long", "not a list", "holds the end", "holds PAD", "negative"])  # fmt: skip
def test_a_prefix_that_does_not_fit_is_refused_and_starts_nothing(prefix: list[int]) -> None:
    episodes = started()
    episodes.append(rows(True, True), np.array([2, 4]))
    assert_refused("prefix", episodes.begin, rows(True, True), np.array(prefix))
    assert (episodes.lengths_B.tolist(), episodes.episode_B.tolist()) == ([1, 1], [0, 0])


@pytest.mark.parametrize("token", [-1, PAD, 2**40], ids=["negative", "PAD", "huge"])
def test_a_token_outside_the_vocabulary_is_refused(token: int) -> None:
    assert_refused("tokens must be 0 to 4", started().append, rows(True, True), np.array([0, token]))


def test_a_forbidden_token_is_refused_and_nothing_is_written() -> None:
    episodes = started()
    assert_refused("never generated", episodes.append, rows(True, True), np.array([0, UNK]))
    assert episodes.lengths_B.tolist() == [0, 0]
    assert (episodes.tokens_BT == PAD).all()
    assert episodes.writable_V.tolist() == [True, True, True, False, True]


def test_writing_before_the_first_begin_is_refused() -> None:
    assert_refused("before reset", Episodes(1, T, V, END).append, rows(True), np.array([0]))


@pytest.mark.parametrize(("sizes", "field"), [
    ((0, T, V), "number of texts"), ((1, 0, V), "^T "), ((1, T, 0), "^V "),
], ids=["B=0", "T=0", "V=0"])  # fmt: skip
def test_sizes_below_one_are_refused(sizes: tuple[int, int, int], field: str) -> None:
    assert_refused(field, Episodes, *sizes, end_token=None)


@given(st.lists(st.lists(st.sampled_from([0, END, 2, 4]), min_size=3, max_size=3), min_size=1, max_size=12))
def test_rows_never_touch_each_other(steps: list[list[int]]) -> None:
    """Three rows side by side, each begun again after its end, hold what three machines of one row hold."""
    together = started(3)
    alone = [started(1) for _ in range(3)]
    for tokens in steps:
        together.begin(together.ended_B.copy())
        together.append(rows(True, True, True), np.array(tokens))
        for row, episodes in enumerate(alone):
            episodes.begin(episodes.ended_B.copy())
            episodes.append(rows(True), np.array([tokens[row]]))
            assert together.tokens_BT[row].tolist() == episodes.tokens_BT[0].tolist()
            assert together.lengths_B[row] == episodes.lengths_B[0]
            assert together.ended_B[row] == episodes.ended_B[0]
            assert together.episode_B[row] == episodes.episode_B[0]
