"""Objectives: what built-in ones say of texts, a person's own file, and asking that never crashes."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import assert_refused
from textgan_env.objectives import (
    OBJECTIVES,
    Objective,
    Workers,
    as_objective,
    ask,
    named_objective,
    names_code,
    typed_objective,
)


@pytest.mark.parametrize(("given", "good", "bad"), [
    ("python", ["x = 1", "def f(): pass", "1"], ["x =", "", "a b", "\0", "(" * 500]),
    ("json", ["{}", '[1, "a"]', "null", "1"], ["{", "", "NaN", "[1,]", "'a'", "[" * 100_000]),
    ("arithmetic", ["1 + 2", "(3 - 4) * 5 / 6", "-7", " 1"], ["1 +", "x", "2 ** 3", "1 // 2", "", "()", "1, 2", "007"]),
    ("regex:^a", ["a", "abc"], ["ba", "", "A"]),
    ("regex:a:b", ["xa:b"], ["a"]),
    ("has:red,blue", ["a red car", "Blue.", "red-ish red"], ["reddish", "", "a car"]),
    ("lacks:red,blue", ["reddish", "", "a car"], ["a red car", "Blue."]),
    ("length:3", ["a", "a b c"], ["", "a b c d"]),
    ("length:2-3", ["a b", "a b c"], ["a", "a b c d"]),
    ("product:has:red;length:2", ["red", "red car"], ["a red car", "car"]),
])  # fmt: skip
def test_a_built_in_objective_is_1_where_the_text_is_so_and_else_0(given: str, good: list[str], bad: list[str]) -> None:
    objective = named_objective(given)
    assert (objective.name, objective.low, objective.high) == (given, 0.0, 1.0)
    np.testing.assert_array_equal(np.asarray(objective(good + bad)), [1.0] * len(good) + [0.0] * len(bad))


@pytest.mark.parametrize(("given", "sentence"), [
    ("pyhton", "unknown objective 'pyhton', expected one of: python, json"), ("python:3", "takes no argument"),
    ("regex", "needs a regular expression"), ("regex:(", "needs a regular expression, found '\\('"),
    ("has:", "needs words"), ("lacks: ,", "needs words"), ("length:x", "needs the most words"),
    ("length:5-2", "needs the most words"), ("product:python", "needs several"), ("product:python;no", "unknown"),
])  # fmt: skip
def test_a_name_that_is_none_is_one_sentence(given: str, sentence: str) -> None:
    assert_refused(sentence, named_objective, given)


def test_a_product_multiplies_shares_of_ranges() -> None:
    from textgan_env.objectives.text import product_of

    objective = product_of(
        [Objective("a", lambda texts: [len(text) for text in texts], 2, 6), named_objective("has:b")]
    )
    np.testing.assert_allclose(objective(["b 2", "b 345", "xxxxx"]), [0.25, 0.75, 0.0])


def test_what_is_the_same_text_for_all_parts_of_a_product_is_so_for_the_product() -> None:
    from textgan_env.objectives.text import product_of

    first = [Objective(name, len, group=str.lower) for name in "ab"]
    assert product_of(first).group is str.lower
    assert product_of([*first, named_objective("has:b")]).group is None
    assert product_of([named_objective("has:b"), named_objective("length:3")]).group is None


def test_a_range_must_be_finite_and_rise() -> None:
    for low, high in ((1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))):
        assert_refused("low below high", Objective, "x", len, low, high)


def test_a_row_of_the_table_gives_a_function_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "mine", lambda argument: Objective(f"mine:{argument}", lambda texts: [0.5]))
    assert as_objective("mine:3").name == "mine:3"
    assert as_objective(len).name == "len"
    assert_refused("found int", as_objective, 3)


OWN = """
from textgan_env.objectives import Objective
def score(texts):
    return [len(text) / 10 for text in texts]
long = Objective("long", score, 0, 5)
number = 3
"""


def test_a_persons_own_file_is_run_where_it_is_typed_and_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "my.py"
    file.write_text(OWN)
    assert ask(typed_objective(f"{file}:score"), ["abc"]) == [0.3]
    assert (typed_objective(f"{file}:long").high, ask(typed_objective(f"{file}:long"), ["a" * 30])) == (5, [3.0])
    assert names_code("my.py:score")
    assert not any(names_code(given) for given in (None, "python", r"regex:\.py$", "has:my.py"))
    for call in (named_objective, as_objective):
        assert_refused("unknown objective", call, f"{file}:score")


@pytest.mark.parametrize(("text", "name", "sentence"), [
    (OWN, "other", "has no 'other'"), (OWN, "number", "must be a function of texts, found int"),
    ("1 / 0", "score", "cannot be run: ZeroDivisionError"), ("def", "score", "cannot be run: SyntaxError"),
])  # fmt: skip
def test_a_file_that_does_not_serve_is_one_sentence(text: str, name: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(text)
    assert_refused(sentence, typed_objective, f"{tmp_path}/own.py:{name}")
    assert_refused("no file", typed_objective, f"{tmp_path}/none.py:score")


def awkward(texts: Sequence[str]) -> Any:
    """Fails in every way, text by text."""
    if "shape" in texts:
        return np.zeros((len(texts), 2))
    if "raise" in texts:
        raise KeyError("no such thing")
    if "die" in texts:
        os._exit(3)
    if "sleep" in texts:
        time.sleep(60)
    return [{"nan": float("nan"), "much": 7.0, "words": 0.25}.get(text, 0.5) for text in texts]


EXPECTED = {
    "raise": "raised KeyError: 'no such thing'", "shape": "gave shape (1, 2) for 1 texts, expected (1,)",
    "nan": "gave nan, expected 0 to 1", "much": "gave 7, expected 0 to 1", "words": 0.25, "else": 0.5,
}  # fmt: skip


def test_what_goes_wrong_is_said_of_its_own_text() -> None:
    assert ask(Objective("awkward", awkward), list(EXPECTED)) == [*EXPECTED.values()]
    assert ask(Objective("text", lambda texts: "abc"), ["a"])[0].startswith("raised ValueError")  # type: ignore[union-attr]
    assert ask(Objective("near", lambda texts: [1 + 1e-9, -1e-9]), ["a", "b"]) == [1.0, 0.0]
    assert ask(Objective("none", awkward), []) == []


@pytest.mark.slow  # starts processes
def test_workers_answer_as_this_process_does_and_outlive_what_hangs_or_dies() -> None:
    workers = Workers(Objective("awkward", awkward), 2, timeout=1.0)
    texts = [*EXPECTED, "sleep", "die", *map(str, range(40))]
    assert workers.ask(texts) == [
        *EXPECTED.values(), "took more than 1 seconds", "ended its process", *[0.5] * 40,
    ]  # fmt: skip
    assert workers.ask(["words"]) == [0.25]
    workers.close()


@pytest.mark.slow  # starts processes
def test_a_worker_runs_a_persons_own_file_itself(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(OWN)
    workers = Workers(typed_objective(f"{tmp_path}/my.py:long"), 1)
    assert workers.ask(["a", "bb"]) == [0.1, 0.2]
    workers.close()


def test_what_cannot_be_sent_to_a_worker_is_one_sentence() -> None:
    assert_refused("cannot be sent to a process", Workers, Objective("local", lambda texts: [1.0]), 1)
    assert_refused("objective_timeout must be above 0", Workers, Objective("len", len), 1, 0.0)
    assert_refused("objective_workers must be at least 1", Workers, Objective("len", len), 0)
