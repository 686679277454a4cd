"""Objectives that read a text as text: whether a parser takes it, a pattern matches it, words are in it."""

import ast
import json
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from textgan_env.objectives.base import Floats, Objective
from textgan_env.utils.errors import InputError, require

#: What arithmetic is made of, as the nodes of Python's syntax tree.
_ARITHMETIC = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.USub,
)  # fmt: skip
_ARITHMETIC_SIGNS = re.compile(r"[0-9+\-*/(). ]+")
#: What parsers raise at a text: it is wrong, holds a null character, or is nested too deeply.
_NOT_PARSED = (SyntaxError, ValueError, RecursionError, MemoryError)


def python(argument: str) -> Objective:
    """Whether Python's parser takes the text as a program; an empty text is none. Nothing is run."""
    return _yes_or_no("python", argument, _is_python)


def json_text(argument: str) -> Objective:
    """Whether the text is JSON (RFC 8259: no NaN, no infinity)."""
    return _yes_or_no("json", argument, _is_json)


def arithmetic(argument: str) -> Objective:
    """Whether the text is an expression of numbers, + - * /, and parentheses, as Python writes them."""
    return _yes_or_no("arithmetic", argument, _is_arithmetic)


def regex(argument: str) -> Objective:
    """``regex:^a``: whether Python's regular expression is found in the text."""
    require(bool(argument), "objective regex needs a regular expression, such as regex:^a")
    try:
        re.compile(argument)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"objective regex needs a regular expression, found '{argument}' ({error})") from None
    return Objective(f"regex:{argument}", partial(_share_of, partial(_matches, argument)))


def has(argument: str) -> Objective:
    """``has:red,blue``: whether at least one of the words is in the text; capitals and small letters are alike."""
    return Objective(f"has:{argument}", partial(_share_of, partial(_has_one, _words("has", argument))))


def lacks(argument: str) -> Objective:
    """``lacks:red,blue``: whether none of the words is in the text; capitals and small letters are alike."""
    return Objective(f"lacks:{argument}", partial(_share_of, partial(_has_none, _words("lacks", argument))))


def length(argument: str) -> Objective:
    """``length:12``: whether the text has 1 to 12 words; ``length:5-12``: 5 to 12. Words stand between blanks."""
    found = re.fullmatch(r"(?:(\d{1,9})-)?(\d{1,9})", argument)
    expected = "objective length needs the most words, such as length:12, or a range, such as length:5-12"
    require(found is not None, f"{expected}, found '{argument}'")
    least, most = (int(number or 1) for number in (found.groups() if found else ()))
    require(least <= most, f"{expected}, found '{argument}'")
    return Objective(f"length:{argument}", partial(_share_of, partial(_has_length, least, most)))


def product_of(objectives: Sequence[Objective]) -> Objective:
    """The product of several objectives, each as a share of its range: 1 where a text has reached all of them.

    What counts as the same text is what counts so for each of them, where they agree.
    """
    name = "product:" + ";".join(objective.name for objective in objectives)
    groups = {objective.group for objective in objectives}
    group = groups.pop() if len(groups) == 1 else None
    return Objective(name, partial(_product, tuple(objectives)), group=group)


def _yes_or_no(name: str, argument: str, test: Callable[[str], bool]) -> Objective:
    """An objective that takes no argument: 1 where the test says yes."""
    require(not argument, f"objective {name} takes no argument, found '{argument}'")
    return Objective(name, partial(_share_of, test))


def _share_of(test: Callable[[str], bool], texts: Sequence[str]) -> Floats:
    """1 for each text that passes a test, else 0, float64 (B,)."""
    return np.array([test(text) for text in texts], dtype=np.float64)


def _product(objectives: tuple[Objective, ...], texts: Sequence[str]) -> Floats:
    """The product of shares of ranges, float64 (B,)."""
    parts = [one.desirability(np.asarray(one(texts), dtype=np.float64)) for one in objectives]
    return np.prod(parts, axis=0)  # type: ignore[no-any-return]


def _is_python(text: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes
            return bool(ast.parse(text).body)
    except _NOT_PARSED:
        return False


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except _NOT_PARSED:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _is_arithmetic(text: str) -> bool:
    if not _ARITHMETIC_SIGNS.fullmatch(text):
        return False
    try:
        with warnings.catch_warnings(action="ignore"):
            return all(isinstance(node, _ARITHMETIC) for node in ast.walk(ast.parse(text.strip(), mode="eval")))
    except _NOT_PARSED:
        return False


def _matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None  # compiled once: Python keeps it


def _words(name: str, argument: str) -> frozenset[str]:
    """The words of an argument, in small letters."""
    words = frozenset(word.strip().lower() for word in argument.split(",") if word.strip())
    require(bool(words), f"objective {name} needs words, such as {name}:red,blue")
    return words


def _own_words(text: str) -> list[str]:
    """The words of a text, without the signs around them."""
    return re.findall(r"[\w'-]+", text.lower())


def _has_one(words: frozenset[str], text: str) -> bool:
    return not words.isdisjoint(_own_words(text))


def _has_none(words: frozenset[str], text: str) -> bool:
    return words.isdisjoint(_own_words(text))


def _has_length(least: int, most: int, text: str) -> bool:
    return least <= len(text.split()) <= most
