import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from textgan_env.policies import LSTMPolicy
from textgan_env.utils.errors import InputError
from textgan_env.utils.reading import (
    MOST_JSON,
    check_weights,
    fits,
    member,
    most_weights,
    parse_json,
    read_limited,
    shown,
)


def test_a_file_is_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    with pytest.raises(InputError, match=f"'{path}' has more than the 4 bytes"):
        read_limited(path, 4)


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="is not an ordinary file"):
            read_limited(path, 10)


def test_json_comes_back_as_python_writes_it() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": [1, -2.5, null, true, "\\ud800"]}', "it") == {
        "a": [1, -2.5, None, True, "\ud800"]
    }
    assert parse_json("[Infinity, -Infinity]", "it") == [float("inf"), -float("inf")]
    assert parse_json("9" * 100, "it") == int("9" * 100)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the name 'c' stands twice in one object"),
        ("9" * 101, "a whole number has 101 digits"),
        ("9" * 100_000, "a whole number has 100,000 digits"),
        ("[" + "[]," * 200_000 + "[]]", "more than 131,072 lists and objects"),
        (" " * (MOST_JSON + 1), "more than 8,388,608 bytes of JSON"),
        (b'"\xff"', "byte 2 is not UTF-8"),
        ("{", "is not JSON: Expecting property name"),
        ("", "is not JSON: Expecting value"),
    ],
)
def test_json_that_means_or_costs_more_than_it_seems_is_refused(text: str | bytes, sentence: str) -> None:
    with pytest.raises(InputError, match=f"^the thing .*{sentence}"):
        parse_json(text, "the thing")


def test_a_member_is_of_the_kind_that_was_asked_for() -> None:
    assert member({"a": 3}, "a", int, "it") == 3
    assert member({"a": 3}, "a", float, "it") == 3
    with pytest.raises(InputError, match=r"^it has no .b., expected a list there$"):
        member({"a": 3}, "b", list, "it")
    with pytest.raises(InputError, match=r"^it must have text as .a., found 3$"):
        member({"a": 3}, "a", str, "it")
    with pytest.raises(InputError, match=r"^it must have a whole number as .a., found True$"):
        member({"a": True}, "a", int, "it")
    with pytest.raises(InputError, match=r"^it has no .a."):
        member(["a"], "a", int, "it")


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, int | None, True),
        (None, int | None, True),
        (np.int64(1), int, True),
        (1.0, int, False),
        (np.float32(1), float, True),
        (True, float, False),
        ("cut", Literal["cut", "drop"], True),
        (1, Literal[True], False),
        (["a", "b"], Sequence[str], True),
        (("a", 1), Sequence[str], False),
        ("ab", Sequence[str], False),
        ({"a": 1}, Mapping[str, float], True),
        ([], Mapping[str, float], False),
        (Path("x"), str | os.PathLike[str], True),
        (1, str | os.PathLike[str], False),
        ("x", Path, True),
        (object(), Any, True),
    ],
)
def test_values_fit_their_annotated_types(value: object, annotation: Any, expected: bool) -> None:
    assert fits(value, annotation) is expected


def test_what_is_shown_of_a_value_is_short_and_steers_no_terminal() -> None:
    assert shown("a\n\x1b[2J") == "'a\\n\\x1b[2J'"
    assert len(shown("x" * 10**6)) == len(shown(10**90)) == 60
    pair: Any = ()
    for _ in range(100):
        pair = (pair, pair)
    assert shown(pair) == "a list"


def test_no_network_is_built_that_is_larger_than_was_allowed() -> None:
    policy = LSTMPolicy(5, start_token=5, embed_size=3, hidden_size=4, num_layers=2)
    held = sum(parameter.numel() for parameter in policy.parameters())
    with most_weights(held):
        LSTMPolicy(5, start_token=5, embed_size=3, hidden_size=4, num_layers=2)
    with (
        most_weights(held - 1),
        pytest.raises(InputError, match=f"would have {held} weights, expected at most {held - 1}"),
    ):
        LSTMPolicy(5, start_token=5, embed_size=3, hidden_size=4, num_layers=2)
    with most_weights(7), most_weights(9), pytest.raises(InputError, match="at most 7"):
        check_weights(8, "it")
    check_weights(8, "it")
