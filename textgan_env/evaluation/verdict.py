"""Has a policy become better? A table of two policies beside real text, and one sentence: gain, no gain, or worse."""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from textgan_env.evaluation.evaluate import BLEU_SAMPLES, HeldOut, overlaps
from textgan_env.evaluation.likelihood import nll
from textgan_env.evaluation.protocols import PROTOCOLS
from textgan_env.ops.confidence import Ends
from textgan_env.ops.metric_table import ARROWS, METRICS, NATS, SLACK
from textgan_env.tasks import Task

#: What a comparison ends in.
Verdict = Literal["gain", "no gain", "worse"]
#: A smaller difference in nats per token (1 % of the perplexity) or in BLEU (one of 100 points) is called tiny.
TINY = 0.01
# Measures that another number of texts changes: real text has them for as many only.
_BY_NUMBER = ("unique", "distinct_1", "distinct_2", "distinct_3")
# What decides, on a task with an oracle and on text: all else is shown only.
_DECIDE = {"oracle": ("cover", "fit"), "text": ("nll_test", "bleu_4", "self_bleu_4")}


@dataclass(frozen=True)
class Compared:
    """One measure of two policies.

    Attributes:
        name: Of `textgan_env.ops.metric_table`.
        real: Of real text; None: it has none, or not of as many texts.
        before: Of the policy that is compared with; None: not measured.
        now: Of the policy.
        ends: 95 % interval of now less before; None: not known.
    """

    name: str
    real: float | None
    before: float | None
    now: float
    ends: Ends = None

    @property
    def difference(self) -> float | None:
        """Now less before."""
        return None if self.before is None else self.now - self.before

    @property
    def tiny(self) -> bool:
        """Whether the difference is smaller than `TINY`, however sure it is."""
        return self.difference is not None and round(abs(self.difference), 6) < TINY

    def worse_by(self) -> tuple[float, float] | None:
        """The interval, turned so that above 0 is worse; None: not known."""
        if self.ends is None:
            return None
        return self.ends if METRICS[self.name].better == "lower" else (-self.ends[1], -self.ends[0])


def real_values(
    task: Task, split: HeldOut, *, samples: int, bleu_samples: int = BLEU_SAMPLES, references: int | None = None
) -> dict[str, float]:
    """What real text has of the measures of `evaluate`, from as many texts.

    The texts are those of the training split, which are the most; of what is copied from there, those of the split that
    is not asked for. Likelihoods are the oracle's own.

    Args:
        task: Gives the texts.
        split: The references.
        samples: How many texts a policy writes to be measured.
        bleu_samples: How many of them BLEU and Self-BLEU are taken of.
        references: How many texts of the split are read and compared with; None: all.

    Returns:
        Name -> number; without what depends on the number of texts where there are fewer real ones.
    """
    protocol = replace(PROTOCOLS["ours"], references=references)
    real_BT = task.split("train").tokens_BT[:samples]
    held_out_BT = task.split("valid" if split == "test" else "test").tokens_BT[:samples]
    values = overlaps(task, real_BT, split, bleu_samples, protocol)
    fresh = overlaps(task, held_out_BT, split, 2, protocol) if len(held_out_BT) > 1 else {}
    values = {name: fresh.get(name, math.nan) if name.startswith("copied") else at for name, at in values.items()}
    too_few = {name for name in values if name in _BY_NUMBER and len(real_BT) < samples}
    if len(real_BT) < min(samples, bleu_samples):
        too_few |= {name for name in values if name.startswith("self_bleu")}
    if task.oracle is not None:
        read_BT = task.split(split).tokens_BT[:references]
        entropy, each_B = nll(task.oracle, read_BT, task.scored(read_BT))
        values |= dict.fromkeys((f"nll_{split}", "nll_oracle", "nll_self"), entropy)
        values |= {"nll_oracle_median": float(each_B.median()), "cover": 0.0, "fit": 0.0}
    return {name: at for name, at in values.items() if name not in too_few and math.isfinite(at)}


def compared(
    now: Mapping[str, float],
    before: Mapping[str, float] | None,
    real: Mapping[str, float],
    ends: Mapping[str, Ends],
) -> list[Compared]:
    """The rows of a table, in the order of the table of metrics.

    Args:
        now: Name -> number, of the policy.
        before: Of the policy that it is compared with; None: there is none.
        real: Of real text.
        ends: Intervals of the differences.
    """
    before = before or {}
    names = [name for name in METRICS if name in now]
    return [Compared(name, real.get(name), before.get(name), now[name], ends.get(name)) for name in names]


def verdict(rows: Sequence[Compared], names: tuple[str, str] | None = None) -> tuple[Verdict | None, str]:
    """What a comparison says.

    With an oracle cover and fit decide, on text NLL-test, BLEU-4 and Self-BLEU-4. Gain: one of them is better (its 95 %
    interval lies on the good side of 0) and none is worse. Worse: one is worse and none better. Else there is no gain:
    a better fit for less cover, or more BLEU for less variety, is what another temperature gives, too. On text a better
    NLL-test is a gain by itself, as it says how well all of real text is covered, and a better Self-BLEU alone is none.
    A difference below `TINY` is neither gain nor loss. Likelihoods and divergences count as worse from `SLACK` on; but
    more BLEU is no gain where another of the three is worse at all. An objective is told, and decides nothing.

    Args:
        rows: Of `compared`.
        names: Of the policy that is compared with, and of the policy; None: they are one run's, before and now.

    Returns:
        The verdict, None where there are no intervals; and a sentence.
    """
    by_name = {row.name: row for row in rows}
    known = {row.name: turned for row in rows if (turned := row.worse_by()) is not None}
    deciding = [name for name in _DECIDE["oracle" if "cover" in by_name else "text"] if name in known]
    if not deciding:
        return None, "No verdict: there is no interval of a measure that decides."
    better = [name for name in deciding if known[name][1] < 0 and not by_name[name].tiny]
    allowed = SLACK if "cover" in by_name else 0.0
    worse = [name for name in deciding if known[name][0] > (allowed if METRICS[name].unit == NATS else 0.0)]
    clearly = [
        name for name in worse if not by_name[name].tiny and (METRICS[name].unit != NATS or known[name][0] > SLACK)
    ]
    found: Verdict = "no gain"
    if "nll_test" in better or (better and not worse and better != ["self_bleu_4"]):
        found = "gain"
    elif clearly and not better:
        found = "worse"
    said = "; ".join(_said(by_name[name], names) for name in better + worse or deciding[:2])
    trade = ", which another temperature may give, too" if better and worse and found != "gain" else ""
    goal = by_name.get("objective")
    told = "" if goal is None or goal.before is None else f" The goal decides nothing here: {_said(goal, names)}."
    return found, f"{found.capitalize()}: {said}{trade}.{told}"


def _said(row: Compared, names: tuple[str, str] | None) -> str:
    """A measure, before and now."""
    assert row.before is not None
    turned, label = row.worse_by(), METRICS[row.name].label
    side = "" if turned is None else "better" if turned[1] < 0 else "worse" if turned[0] > 0 else "no different"
    side += ", but tiny" if row.tiny and side in ("better", "worse") else ""
    side = f" ({side})" if side else ""
    if names is None:
        return f"{label} began at {row.before:.3f} and is {row.now:.3f}{side}"
    return f"{label} of {names[1]} is {row.now:.3f}, of {names[0]} {row.before:.3f}{side}"


def from_nothing(rows: Sequence[Compared], tokens: int) -> tuple[Verdict, str]:
    """What can be said of a policy that began with weights drawn at random.

    Args:
        rows: Of `compared`.
        tokens: V less the tokens that are never written.
    """
    found = next((row for row in rows if row.name == "nll_test"), None)
    at_random = math.log(tokens)
    if found is None:
        return "no gain", "No gain: NLL-test is infinite."
    better = found.now < at_random - SLACK
    said = f"NLL-test is {found.now:.3f}, where tokens chosen at random have {at_random:.3f}"
    if better:
        return "gain", f"Gain: it began with nothing, and {said}."
    little = f" (better, but by less than {SLACK})" if found.now < at_random else ""
    return "no gain", f"No gain: {said}{little}."


def as_text(rows: Sequence[Compared], before: str = "began", now: str = "now", *, explain: bool = True) -> str:
    """The table for a terminal, and what its names mean.

    Args:
        rows: Of `compared`.
        before: Head of the column of the policy that is compared with.
        now: Head of the column of the policy.
        explain: Say what the names mean, below.
    """
    with_before = any(row.before is not None for row in rows)
    columns = ["", "", "real text", *([before] if with_before else []), now]
    lines = [[*columns, *(["difference, 95 % interval"] if with_before else [])]]
    for row in rows:
        numbers = [row.real, *([row.before] if with_before else []), row.now]
        cells = [row.name, ARROWS[METRICS[row.name].better], *("-" if at is None else f"{at:.4f}" for at in numbers)]
        lines.append([*cells, *([difference_text(row)] if with_before else [])])
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    last = len(widths) - 1 if with_before else len(widths)
    shown = [
        "  ".join(cell.rjust(width) if 2 <= at < last else cell.ljust(width)
                  for at, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    ]  # fmt: skip
    return "\n".join([*shown, *(["", explained([row.name for row in rows])] if explain else [])])


def difference_text(row: Compared) -> str:
    """A difference and its interval; "-" where there is none."""
    if row.difference is None:
        return "-"
    return f"{row.difference:+.4f}" + ("" if row.ends is None else f" [{row.ends[0]:+.4f}, {row.ends[1]:+.4f}]")


def explained(names: Sequence[str]) -> str:
    """What measures mean, in lines for a terminal; orders of one measure (bleu_2, bleu_3 ...) are explained once."""
    arrows = f"{ARROWS['lower']} lower is better, {ARROWS['higher']} higher is better, if all else stays."
    meanings: dict[str, str] = {}  # the first order of a measure says what all of them mean
    for name, metric in METRICS.items():
        meanings.setdefault(_any_order(name), metric.about or metric.label)
    about = {_any_order(name): meanings[_any_order(name)] for name in names}
    lines = [f"{name}: {said}" for name, said in about.items()]
    return textwrap.fill(f"{arrows} {'; '.join(lines)}.", 100, break_on_hyphens=False)


def _any_order(name: str) -> str:
    """The name of a measure without its order."""
    return re.sub(r"_\d$", "_n", name)
