"""What is measured of texts that must keep the rules of a language: molecules, and the texts of a grammar."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor
from torch.nn import functional

from textgan_env.evaluation.molecules import molecule_values, valid_molecules
from textgan_env.tasks import GrammarTask, Task
from textgan_env.utils.errors import MissingDataError


def rule_values(
    task: Task, texts: Sequence[str], split: Literal["valid", "test"]
) -> tuple[dict[str, float], dict[str, str]]:
    """Measure texts by the rules of the task's language.

    Args:
        task: Says which rules; most tasks have none.
        texts: As a person reads them.
        split: Whose texts those of a molecule task are compared with.

    Returns:
        Name -> number, and name -> why there is none; nothing where there are no rules.
    """
    if isinstance(task, GrammarTask):
        return {"valid": float(np.mean(list(map(task.parses, texts))))}, {}
    return molecule_values(texts, task, split) if task.language == "molecules" else ({}, {})


def valid_share(task: Task, tokens_BT: Tensor) -> dict[str, float]:
    """``valid``, the share of texts that keep the rules; nothing where there are none, or no package that knows them.

    Args:
        task: Says which rules.
        tokens_BT: int64; the texts.
    """
    if not task.language:
        return {}
    texts = [task.text(tokens_T) for tokens_T in tokens_BT.tolist()]
    try:
        valid_B = list(map(task.parses, texts)) if isinstance(task, GrammarTask) else valid_molecules(texts)
    except MissingDataError:
        return {}
    return {"valid": float(np.mean(valid_B))}


def fit_of_valid(nats_B: Tensor, length_B: Tensor) -> float:
    """KL(q given that a text is valid || p) per token, of texts of q; NaN where none is valid.

    With v the probability of a valid text, q of one given that it is valid is q / v: its log is that of q less log v.

    Args:
        nats_B: float64; log q less log p of each text; infinite where p is 0.
        length_B: Tokens.
    """
    valid_B = nats_B.isfinite()
    of_valid_B = nats_B[valid_B] - valid_B.double().mean().log()
    return float(of_valid_B.sum() / length_B[valid_B].sum())


def written_by_oracle(task: Task, tokens_BT: Tensor) -> Tensor | None:
    """Texts, split from lines, as the oracle writes them; None where it cannot write them all."""
    kept_BT = tokens_BT != task.vocab_size
    if task.end_token is None:
        return tokens_BT if kept_BT.shape[1] == task.max_length and bool(kept_BT.all()) else None
    if kept_BT.shape[1] >= task.max_length or bool((tokens_BT > task.vocab_size).any()):
        return None
    ended_BT = functional.pad(tokens_BT, (0, 1), value=task.vocab_size)
    return ended_BT.scatter(1, kept_BT.sum(1, keepdim=True), task.end_token)
