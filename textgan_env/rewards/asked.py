"""An objective as a run asks it: once for each different text, counted, limited, and never the cause of a crash."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from textgan_env.objectives import Answer, Floats, ObjectiveLike, Workers, as_objective, ask
from textgan_env.ops.torchrun import from_first, is_first
from textgan_env.utils.errors import InputError, require, require_at_least
from textgan_env.utils.printing import say

#: Different texts whose values are remembered, 24 MB; further ones are asked again when they come again.
MOST_KEPT = 1_000_000
#: Texts of the first call that must not all fail.
_FIRST = 8


class BudgetSpentError(InputError):
    """The objective may not be asked about so many more texts: a run ends here, and not by a mistake."""


class AskedObjective(nn.Module):
    """An objective, and what is remembered of it: a run that is resumed asks, counts and pays as if never stopped.

    Args:
        objective: What texts are to be like.
        text_of: Tokens of a text -> the text, as `Task.text`.
        budget: Different texts that it may be asked about; None: any number.
        workers: Processes that ask it; 0: it is asked in this one, and there is no time-out.
        timeout: Seconds for a text, with workers.
        repeat_decay: What a text that comes for the n-th time is paid is multiplied by this n - 1 times: a diversity
            filter. Texts are the same where `Objective.group` says so.

    Raises:
        InputError: If a number is out of its range, or the objective cannot be asked so.
    """

    #: Tensors of `state_dict` that are as long in a checkpoint as there was to remember.
    growing = ("key_C2", "value_C", "group_G2", "seen_G")

    def __init__(
        self,
        objective: ObjectiveLike,
        text_of: Callable[[Sequence[int]], str],
        *,
        budget: int | None = None,
        workers: int = 0,
        timeout: float | None = None,
        repeat_decay: float = 1.0,
    ) -> None:
        super().__init__()
        require_at_least(1, budget=budget)
        require_at_least(0, objective_workers=workers)
        require(workers > 0 or timeout is None, "objective_timeout ends a process: it needs objective_workers of 1")
        require(0 <= repeat_decay <= 1, f"repeat_decay must be 0 to 1, found {repeat_decay}")
        self.objective, self.text_of, self.budget = as_objective(objective), text_of, budget
        self.repeat_decay = repeat_decay
        self._workers = Workers(self.objective, workers, timeout) if workers else None
        self._value: dict[bytes, float] = {}
        self._seen: dict[bytes, int] = {}
        self._counts = {"calls": 0.0, "failures": 0.0, "texts": 0.0, "sum": 0.0, "top": 0.0}
        self._told = False

    @classmethod
    def of(cls, objective: ObjectiveLike | Self, text_of: Callable[[Sequence[int]], str]) -> Self:
        """An objective that is asked and remembered already, as it is; any other from now on."""
        return objective if isinstance(objective, cls) else cls(objective, text_of)

    @property
    def calls(self) -> int:
        """Different texts that the objective was asked about."""
        return int(self._counts["calls"])

    @property
    def failures(self) -> int:
        """Those for which it gave no number of its range; they count as the worst."""
        return int(self._counts["failures"])

    @property
    def best_so_far(self) -> Floats:
        """The best value after each call, float64 (calls,), as far as they are remembered."""
        values_C: Floats = np.maximum.accumulate(np.fromiter(self._value.values(), np.float64))
        return values_C

    def values(self, texts: Sequence[str]) -> Floats:
        """What the objective says of some texts, float64 (B,); the worst where it fails.

        Raises:
            BudgetSpentError: If the budget is not enough for those that it was not asked about before; it is then asked
                about none.
            InputError: If it fails at all of the first texts that it is asked about.
        """
        key_B = [_digest(text) for text in texts]
        new = {key: text for key, text in zip(key_B, texts, strict=True) if key not in self._value}
        self._require_left(len(new))
        # One process asks, so that all learn from the same numbers.
        answers: list[Answer] = from_first(self._ask(list(new.values())) if is_first() else [])
        found = dict(zip(new, map(self._number, answers), strict=True))
        self._note(new, answers)
        room = MOST_KEPT - len(self._value)
        self._value |= found if len(found) <= room else dict(list(found.items())[: max(0, room)])
        value_B = np.array([found[key] if key in found else self._value[key] for key in key_B], dtype=np.float64)
        self._counts["texts"] += len(value_B)
        self._counts["sum"] += float(value_B.sum())
        self._counts["top"] += float((value_B >= self.objective.high).sum())
        return value_B

    def pays(self, tokens_BT: Tensor, *, repeats: bool = True) -> Tensor:
        """What texts are paid: shares of the range from 0 to 1, float64 (B,), on the CPU.

        Args:
            tokens_BT: int64; whole texts.
            repeats: Whether texts that come again are paid less (`repeat_decay`); such texts are counted.

        Raises:
            InputError: As `values`.
        """
        texts = [self.text_of(tokens) for tokens in tokens_BT.tolist()]
        share_B = self.objective.desirability(self.values(texts))
        if repeats and self.repeat_decay < 1:
            group = self.objective.group or str
            for row, text in enumerate(texts):
                key = _digest(group(text))
                before = self._seen.get(key, 0)
                share_B[row] *= self.repeat_decay**before
                self._seen[key] = before + 1
        return torch.from_numpy(share_B)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Inside, it is asked without being counted: to measure a policy is no part of its training."""
        counts = dict(self._counts)
        try:
            yield
        finally:
            self._counts = counts

    def round_numbers(self) -> dict[str, float]:
        """For the log: mean value and share at the top of what was scored since the last time, calls, failures."""
        counts = self._counts
        numbers = {"objective_calls": counts["calls"], "objective_failures": counts["failures"]}
        if counts["texts"]:
            numbers["objective"] = counts["sum"] / counts["texts"]
            numbers["objective_top"] = counts["top"] / counts["texts"]
        counts |= {"texts": 0.0, "sum": 0.0, "top": 0.0}
        return numbers

    def _require_left(self, new: int) -> None:
        left = self.budget is None or self.calls + new <= self.budget
        if not left:
            spent = f"the budget of {self.budget:,} calls of objective '{self.objective.name}' is spent"
            raise BudgetSpentError(f"{spent}: {self.calls:,} are used, and the next texts need {new:,}")

    def _ask(self, texts: list[str]) -> list[Answer]:
        return ask(self.objective, texts) if self._workers is None else self._workers.ask(texts)

    def _number(self, answer: Answer) -> float:
        return self.objective.low if isinstance(answer, str) else answer

    def _note(self, new: Mapping[bytes, str], answers: Sequence[Answer]) -> None:
        """Count calls and failures, and tell of the first one."""
        failed = [(text, why) for text, why in zip(new.values(), answers, strict=True) if isinstance(why, str)]
        raised = [why for _, why in failed if why.startswith("raised") or why.startswith("gave shape")]
        name, first = self.objective.name, not self._counts["calls"]
        if first and len(answers) >= _FIRST and len(raised) == len(answers):
            raise InputError(f"objective '{name}' fails at all of the first {len(answers)} texts: it {raised[0]}")
        self._counts["calls"] += len(answers)
        self._counts["failures"] += len(failed)
        if failed and not self._told:
            text, why = failed[0]
            worst = f"such texts get the worst value, {self.objective.low:g}, and are counted"
            say(f"warning: objective '{name}' {why} for the text {text[:60]!r}; {worst}", file=sys.stderr)
            self._told = True

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """What a checkpoint holds: the keys and values of texts, how often each came, and counts."""
        tensors = {
            "key_C2": _keys(self._value),
            "value_C": torch.tensor([*self._value.values()], dtype=torch.float64),
            "group_G2": _keys(self._seen),
            "seen_G": torch.tensor([*self._seen.values()], dtype=torch.int64),
            "counts_5": torch.tensor([*self._counts.values()], dtype=torch.float64),
        }
        destination.update({f"{prefix}{name}": tensor for name, tensor in tensors.items()})

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
        """Take what `_save_to_state_dict` gave.

        Raises:
            InputError: If it cannot be that.
        """
        own = {name: state_dict[f"{prefix}{name}"].cpu() for name in (*self.growing, "counts_5")}
        fits = len(own["key_C2"]) == len(own["value_C"]) and len(own["group_G2"]) == len(own["seen_G"])
        low, high = self.objective.low, self.objective.high
        fits &= bool(((own["value_C"] >= low) & (own["value_C"] <= high)).all() & (own["seen_G"] >= 0).all())
        fits &= bool(torch.isfinite(own["counts_5"]).all())
        require(fits, f"what a checkpoint remembers of objective '{self.objective.name}' does not fit it")
        self._value = dict(zip(_digests(own["key_C2"]), own["value_C"].tolist(), strict=True))
        self._seen = dict(zip(_digests(own["group_G2"]), own["seen_G"].tolist(), strict=True))
        self._counts = dict(zip(self._counts, own["counts_5"].tolist(), strict=True))


def _digest(text: str) -> bytes:
    """128 bits of a text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _keys(table: Mapping[bytes, object]) -> Tensor:
    """The keys of a table, int64 (C, 2)."""
    return torch.from_numpy(np.frombuffer(b"".join(table), dtype="<i8").reshape(-1, 2).astype(np.int64))


def _digests(key_C2: Tensor) -> list[bytes]:
    """What `_keys` was made of."""
    whole = key_C2.numpy().astype("<i8").tobytes()
    return [whole[at : at + 16] for at in range(0, len(whole), 16)]
