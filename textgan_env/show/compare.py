"""Finished runs side by side: which are seeds of one setting, how they differ, and how sure that is."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from textgan_env.evaluation.verdict import Compared, compared, verdict
from textgan_env.ops.confidence import FEWEST_SEEDS, Ends, interval, intervals_over_texts
from textgan_env.ops.metrics import Floats
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.listing import agent_of
from textgan_env.runs.measured import kept_per_text
from textgan_env.show.saved import SavedRun
from textgan_env.tasks import PLACE_OPTIONS
from textgan_env.utils.errors import InputError, require
from textgan_env.utils.reading import get_typed

#: Options in which runs of one setting may differ: where they lie, and what does not change what is learnt.
_FREE = (
    "seed", "preset", "runs", "name", "resume", "overrides", "device", "threads", "checkpoint_every", "show_samples",
    "corpus", "valid_path", "test_path", "tokenizer", "config",
)  # fmt: skip
_MEASURED_BY = ("split", "samples", "bleu_samples", "references", "bleu", "tokens")


@dataclass(frozen=True)
class Finished:
    """A run that has ended.

    Attributes:
        folder: The run.
        agent: What trained it.
        seed: Its seed.
        config: The options that make its setting.
        evaluation: What it measured at its end.
    """

    folder: RunFolder
    agent: str
    seed: int
    config: Mapping[str, Any]
    evaluation: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.path.resolve().name

    @property
    def values(self) -> dict[str, float]:
        """What it measured."""
        return dict(self.evaluation["values"])

    @classmethod
    def open(cls, path: str | Path) -> "Finished":
        """Read a run.

        Raises:
            InputError: If it is none, or has not ended.
        """
        folder = RunFolder.open(path)
        about, evaluation = folder.about, folder.evaluation
        require(evaluation is not None, f"run '{path}' has not finished: resume it first")
        assert evaluation is not None
        seed = get_typed(about, "seed", int, f"the config of run '{path}'")
        config = {name: _stem(name, value) for name, value in about["config"].items() if name not in _FREE}
        return cls(folder, agent_of(about), seed, config, evaluation)

    def per_text(self, say: Callable[[str], None]) -> Mapping[str, Floats]:
        """The sums of each text; a run of an earlier version kept none, and is measured again."""
        kept = kept_per_text(self.folder, "end")
        if kept is not None:
            return kept
        say(f"{self.folder.path}: measuring it again, as it keeps no numbers of single texts")
        return SavedRun.load(self.folder.path).evaluate().per_text


def _stem(option: str, value: Any) -> Any:
    """An option; of other runs only what they are called, as each seed begins with a run of its own."""
    if option == "pretrained" and isinstance(value, str):
        return _without_number(Path(value).name)
    return [_without_number(Path(str(one)).name) for one in value] if option == "teachers" else value


def _without_number(name: str) -> str:
    """The name of a run without its number."""
    return re.sub(r"-\d+$", "", name)


@dataclass(frozen=True)
class Group:
    """Runs of one setting, one a seed.

    Attributes:
        name: What tables call it.
        runs: In the order of their seeds.
    """

    name: str
    runs: tuple[Finished, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Theirs."""
        return tuple(run.seed for run in self.runs)

    def means(self, seeds: Sequence[int]) -> dict[str, float]:
        """Means over runs of some seeds, of what each of them has."""
        found = [run.values for run in self.runs if run.seed in seeds]
        return {name: fmean([values[name] for values in found]) for name in found[0] if all(name in at for at in found)}


@dataclass(frozen=True)
class Difference:
    """A group beside the first one.

    Attributes:
        before: The first group.
        now: The other.
        rows: Measures.
        over: What the intervals are over, and of how many; "" where there are none.
        verdict: gain, no gain or worse; None: there are no intervals.
        sentence: The verdict in words.
    """

    before: Group
    now: Group
    rows: tuple[Compared, ...]
    over: str
    verdict: str | None
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """Runs of one task, side by side.

    Attributes:
        task: About the task.
        measured: How they were measured.
        groups: Settings; the others are compared with the first.
        real: What real text has.
        differences: One for each group but the first.
    """

    task: str
    measured: Mapping[str, Any]
    groups: tuple[Group, ...]
    real: Mapping[str, float]
    differences: tuple[Difference, ...]

    def only(self, measures: Collection[str]) -> "Comparison":
        """The same with fewer rows; verdicts stay those of all.

        Args:
            measures: Names of the rows that stay.
        """
        kept = ((one, tuple(row for row in one.rows if row.name in measures)) for one in self.differences)
        return replace(self, differences=tuple(replace(one, rows=rows) for one, rows in kept))


def compare_runs(runs: Sequence[str | Path], say: Callable[[str], None] = lambda _: None) -> Comparison:
    """Compare finished runs of one task with the first of them, each setting over its seeds.

    Runs that differ only in their seed are one setting. Intervals are over the texts of one run a side (paired
    bootstrap), or, from 3 seeds on that both settings have, over these seeds (see `textgan_env.ops.confidence`).

    Args:
        runs: Their folders.
        say: Is told what takes a while.

    Raises:
        InputError: If one is no finished run, they are of several tasks or texts or measured differently, two are the
            same setting and seed, or settings have no seed in common.
    """
    require(len(runs) >= 2, f"a comparison needs at least two run folders, found {len(runs)}")
    found = [Finished.open(run) for run in runs]
    for run in found[1:]:
        _require_comparable(found[0], run)
    groups = _groups(found)
    first, measured = found[0], found[0].evaluation["settings"]
    real: Mapping[str, float] = next((run.evaluation["real"] for run in found if run.evaluation.get("real")), {})
    if len(groups) == 1:
        say("These runs are one setting with several seeds: there is no other to compare it with.")
    differences = tuple(_difference(groups[0], group, real, say) for group in groups[1:])
    about = str((first.folder.about["task"] or {}).get("about", ""))
    return Comparison(about, measured, tuple(groups), real, differences)


def _require_comparable(one: Finished, other: Finished) -> None:
    """Refuse runs of other texts, or that were measured otherwise."""
    first, second = (dict(run.folder.about["task"] or {}) for run in (one, other))
    names = f"'{one.folder.path}' and '{other.folder.path}'"
    of, also = first.get("name"), second.get("name")
    require(of == also, f"runs of one task can be compared: {names} are of task '{of}' and '{also}'")
    left_out = {"about", *PLACE_OPTIONS}
    differ = sorted(
        name for name in first.keys() | second.keys() if name not in left_out and first.get(name) != second.get(name)
    )
    require(not differ, f"runs of the same texts can be compared: those of {names} differ in {', '.join(differ)}")
    by = [
        name for name in _MEASURED_BY if one.evaluation["settings"].get(name) != other.evaluation["settings"].get(name)
    ]
    if by:
        numbers = [run.evaluation["settings"].get(by[0]) for run in (one, other)]
        raise InputError(f"{names} were measured differently: {by[0]} is {numbers[0]} and {numbers[1]}")


def _groups(runs: Sequence[Finished]) -> list[Group]:
    """Runs by their settings, in the order in which those first appear."""
    found: list[list[Finished]] = []
    for run in runs:
        same = next((g for g in found if (g[0].agent, g[0].config) == (run.agent, run.config)), None)
        found.append([run]) if same is None else same.append(run)
    for group in found:
        by_seed: dict[int, Finished] = {}
        for run in group:
            twice = by_seed.setdefault(run.seed, run)
            both = f"'{twice.folder.path}' and '{run.folder.path}'"
            require(twice is run, f"{both} are one setting with one seed ({run.seed}): leave one of them out")
    plain = [group[0].name if len(group) == 1 else _without_number(group[0].name) for group in found]
    names = list(plain)
    for at, group in enumerate(found):
        if plain.count(plain[at]) > 1:
            others = [other[0] for other in found if other is not group]
            names[at] += f" ({_what_differs(group[0], others)})"
    pairs = zip(names, found, strict=True)
    return [Group(name, tuple(sorted(group, key=lambda run: run.seed))) for name, group in pairs]


def _what_differs(run: Finished, others: Sequence[Finished]) -> str:
    """The options in which a run is not as some others."""
    names = [name for name, value in run.config.items() if any(other.config.get(name) != value for other in others)]
    return ", ".join(f"{name}={run.config[name]}" for name in names[:3]) or run.name


def _difference(before: Group, now: Group, real: Mapping[str, float], say: Callable[[str], None]) -> Difference:
    """A group beside the first one, on the seeds that both have."""
    both = [seed for seed in now.seeds if seed in before.seeds]
    alone = len(before.runs) == len(now.runs) == 1
    require(
        bool(both) or alone,
        f"'{before.name}' has the seeds {before.seeds}, '{now.name}' {now.seeds}: only the same seeds can be compared",
    )
    sides = [[run for run in group.runs if alone or run.seed in both] for group in (before, now)]
    values = [group.means([run.seed for run in side]) for group, side in zip((before, now), sides, strict=True)]
    ends: dict[str, Ends] = {}
    over = ""
    if len(sides[0]) == 1:
        ends = intervals_over_texts(sides[1][0].per_text(say), sides[0][0].per_text(say))
        over = "the texts of one run each"
    elif len(both) >= FEWEST_SEEDS:
        pairs = list(zip(*sides, strict=True))
        shared = [name for name in values[1] if name in values[0]]
        ends = {name: interval([one.values[name] - other.values[name] for other, one in pairs]) for name in shared}
        over = f"{len(both)} seeds"
    rows = compared(values[1], values[0], real, ends)
    found, sentence = verdict(rows, (before.name, now.name))
    if found is None:
        sentence = f"No verdict on {now.name}: two seeds have no interval; {FEWEST_SEEDS} have one."
    return Difference(before, now, tuple(rows), over, found, sentence)
