"""Objectives by name: what `--objective NAME:ARGUMENT` and `objective="NAME:ARGUMENT"` stand for.

A new one is a function and a row here. A file can name a row of this table only; it never says what to import.
"""

from collections.abc import Callable

from textgan_env.objectives import chem, text
from textgan_env.objectives.base import Objective
from textgan_env.utils.errors import require, require_known


def named_objective(given: str) -> Objective:
    """The objective of a row of `OBJECTIVES`.

    Args:
        given: ``NAME`` or ``NAME:ARGUMENT``.

    Raises:
        InputError: If there is no such row, or it refuses the argument.
    """
    name, _, argument = given.partition(":")
    require_known("objective", name, OBJECTIVES)
    return OBJECTIVES[name](argument)


def product(argument: str) -> Objective:
    """``product:has:red;length:12``: the product of several, see `textgan_env.objectives.text.product_of`."""
    parts = [part for part in argument.split(";") if part.strip()]
    require(len(parts) > 1, f"objective product needs several, such as product:has:red;length:12, found '{argument}'")
    return text.product_of([named_objective(part.strip()) for part in parts])


#: Name -> what makes the objective of the text after the colon. Add a row to give your own function a name.
OBJECTIVES: dict[str, Callable[[str], Objective]] = {
    "python": text.python,
    "json": text.json_text,
    "arithmetic": text.arithmetic,
    "regex": text.regex,
    "has": text.has,
    "lacks": text.lacks,
    "length": text.length,
    "smiles": chem.valid,
    "qed": chem.qed,
    "sa": chem.easy_to_make,
    "logp": chem.log_p,
    "similarity": chem.similarity,
    "product": product,
}
