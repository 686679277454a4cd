import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from conftest import assert_refused
from textgan_env.policies import LSTMPolicy
from textgan_env.utils.errors import InputError
from textgan_env.utils.reading import (
    MOST_JSON,
    check_weights,
    get_typed,
    most_weights,
    parse_json,
    preview,
    read_limited,
    read_typed,
)


def test_a_file_is_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    assert_refused(f"'{path}' has more than the 4 bytes", read_limited, path, 4)


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert_refused("is not an ordinary file", read_limited, path, 10)


def test_json_comes_back_as_python_writes_it() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": [1, -2.5, null, true, "\\ud800"]}', "it") == {
        "a": [1, -2.5, None, True, "\ud800"]
    }
    assert parse_json("[Infinity, -Infinity]", "it") == [float("inf"), -float("inf")]
    assert parse_json("9" * 100, "it") == int("9" * 100)


@pytest.mark.parametrize(("text", "sentence"), [
    ("[" * 100_000, "nested too deeply"),
    ('{"a": 1, "b": {"c": 1, "c": 2}}', "the name 'c' stands twice in one object"),
    ("9" * 101, "a whole number has 101 digits"),
    ("9" * 100_000, "a whole number has 100,000 digits"),
    ("[" + "[]," * 200_000 + "[]]", "more than 131,072 lists and objects"),
    ("[" + "0," * 600_000 + "0]", "more than 524,288 values"),
    (" " * (MOST_JSON + 1), "more than 8,388,608 bytes of JSON"),
    (b'"\xff"', "byte 2 is not UTF-8"),
    ("{", "is not JSON: Expecting property name"),
    ("", "is not JSON: Expecting value"),
])  # fmt: skip
def test_json_that_means_or_costs_more_than_it_seems_is_refused(text: str | bytes, sentence: str) -> None:
    assert_refused(f"^the thing .*{sentence}", parse_json, text, "the thing")


@pytest.mark.parametrize(("value", "kind"), [
    (1, int | None), (None, int | None), (1, float), ("cut", Literal["cut", "drop"]),
    (["a", "b"], Sequence[str]), ({"a": 1}, Mapping[str, float]), ("x", str | os.PathLike[str]),
    (Path("x"), str | os.PathLike[str]), ({"a": [None, {}]}, dict[str, Any]),
])  # fmt: skip
def test_a_value_of_the_type_comes_back_as_it_is(value: object, kind: Any) -> None:
    assert read_typed(kind, value, "it") == value


@pytest.mark.parametrize(("value", "kind", "found"), [
    (1.0, int, "1.0"), ("4", int, "'4'"), (True, int, "True"), (True, float, "True"),
    (1, Literal["cut", "drop"], "1"), (("a", 1), Sequence[str], "'1', found 1"),
    ("ab", Sequence[str], "cannot be read"), ([], Mapping[str, float], "a list"),
    ({"a": {"b": "x"}}, dict[str, dict[str, float]], "'a.b', found 'x'"),
    (1, str | os.PathLike[str], "found 1"), ({"a\x1b[2J": 1}, dict[str, str], r"'a\\x1b"),
    (["x"] * 10_000, list[int], "holds 10,000 values"),
])  # fmt: skip
def test_a_value_of_another_type_is_one_sentence_that_says_where_and_what(value: object, kind: Any, found: str) -> None:
    assert assert_refused(f"^it .*{found}", read_typed, kind, value, "it").isprintable()


@dataclass(frozen=True)
class Settings:
    """As a file holds it: lists for tuples, text for paths."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  pydantic's own name

    names: tuple[str, ...] = ()
    folder: Path | None = None
    best: float = 0.0


def test_a_dataclass_is_made_of_an_object() -> None:
    made = read_typed(Settings, {"names": ["a"], "folder": "x/y", "best": float("inf")}, "it")
    assert made == Settings(("a",), Path("x/y"), float("inf"))
    wrong: object
    for wrong in (
        {"names": "ab"},
        {"names": [1]},
        {"folder": 1},
        {"best": "1"},
        {"other": 1},
        {"folder": "\ud800"},
        [],
    ):
        assert_refused(r"^it ", read_typed, Settings, wrong, "it")


def test_a_member_is_of_the_type_that_was_asked_for() -> None:
    assert get_typed({"a": 3}, "a", int, "it") == 3
    for holder, kind in (({"b": 3}, int), ({"a": 3}, str), (["a"], int)):
        assert_refused("it ", get_typed, holder, "a", kind, "it")


def test_what_is_shown_of_a_value_is_short_and_steers_no_terminal() -> None:
    assert preview("a\n\x1b[2J") == "'a\\n\\x1b[2J'"
    assert len(preview("x" * 10**6)) == len(preview(10**90)) == 60
    pair: Any = ()
    for _ in range(100):
        pair = (pair, pair)
    assert preview(pair) == "a list"


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
