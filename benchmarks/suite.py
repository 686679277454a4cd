"""The benchmark suite: arms x tasks x seeds, each a process of its own, none run twice.

For example: python -m benchmarks.suite --agents mle seqgan-n4 controls --tasks seqgan-oracle --seeds 5; or everything
in minutes: python -m benchmarks.suite --agents all --tasks toy --seeds 2 --preset smoke.

Kill it at any moment and start it again: finished jobs stay, others resume from their last checkpoint. The page and
the tables, also while jobs run: python -m benchmarks.report runs/suite. Where the package is installed without its
checkout: textgan suite, and python -m textgan_env.benchmarks.report.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import rich
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from benchmarks.arms import chosen
from benchmarks.engines import LocalEngine, RayEngine
from benchmarks.jobs import Job, other_code, plan, progress_of, result_of, share_of, write_job
from benchmarks.report import NOT_FINISHED, load, summary, write_tables
from benchmarks.results import PACKAGE, command
from textgan_env.runs.logs import clock_text
from textgan_env.utils.errors import require, require_at_least, require_known
from textgan_env.utils.files import locked, write_safely

_LINE_EVERY = 30.0  # seconds between two lines on what runs, where there is no terminal


@dataclass(frozen=True)
class Options:
    """Compare policies."""

    agents: tuple[str, ...] = ("plain", "likelihood", "decoders", "adversarial", "controls", "hierarchical")
    """Arms or groups of arms, or all; maximum likelihood joins by itself. An unknown name lists them."""
    tasks: tuple[str, ...] = ("seqgan-oracle",)
    """Tasks, by name."""
    corpus: str | None = None
    """Your text file, for --tasks corpus."""
    seeds: int = 5
    """Seeds 0, 1, ...: each has its own training texts (on oracle tasks), the same for all arms."""
    preset: Literal["smoke", "fast", "paper"] = "fast"
    """smoke: seconds a job; fast: minutes; paper: the published settings, hours."""
    curves: bool = True
    """Whether policies are measured at several temperatures, too; on text that takes most of a job's time."""
    engine: Literal["local", "ray"] = "local"
    """Where jobs run."""
    address: str | None = None
    """Of a running Ray cluster; left out, one is started here."""
    parallel: int = max(1, (os.cpu_count() or 2) // 2)
    """Jobs at once, one thread each."""
    device: str = "cpu"
    """What jobs compute on."""
    out: Path = Path("runs/suite")
    """Where jobs and results lie; give the same folder to resume."""
    other_code: Literal["refuse", "keep", "redo"] = "refuse"
    """What becomes of results of the same settings that another version of the code made: keep marks them."""
    retries: int = 1
    """How often a job that was killed is resumed before the suite continues without it."""


@dataclass
class _State:
    """What the suite knows of its jobs."""

    jobs: list[Job]
    finished: dict[str, Path] = field(default_factory=dict)
    running: dict[str, tuple[Any, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def finish(self, job: Job, folder: Path, result: Mapping[str, Any]) -> None:
        """Note where a finished job lies, and how long it took, to say how long others will."""
        self.finished[job.id] = folder
        if result["seconds"]["all"] is not None:
            self.seconds.setdefault(job.arm.name, []).append(result["seconds"]["all"])

    def ready(self) -> list[Job]:
        """Jobs that can start now."""
        taken = {*self.finished, *self.running, *self.failed}
        return [job for job in self.jobs if job.id not in taken and all(need.id in self.finished for need in job.needs)]

    def blocked(self) -> dict[str, str]:
        """Jobs that can never start, as something that they need has failed."""
        lost: dict[str, str] = {}
        for job in self.jobs:
            culprit = next((need for need in job.needs if need.id in self.failed or need.id in lost), None)
            if culprit is not None and job.id not in self.finished:
                lost[job.id] = f"not started: it needs {culprit.label}, which failed"
        return lost

    def seconds_left(self, parallel: int, shares: Mapping[str, float] | None = None) -> float:
        """Expected seconds to the end, from jobs of the same arm, else of any, else from those that run.

        Args:
            parallel: Jobs at once.
            shares: Job that runs -> the share of it that is done, as far as it says so.
        """
        spent = {job: time.monotonic() - began for job, (_, began) in self.running.items()}
        foretold = [spent[job] / share for job, share in (shares or {}).items() if share > 0 and job in spent]
        known = [value for values in self.seconds.values() for value in values] or foretold
        if not known:
            return float("inf")
        total = 0.0
        for job in self.jobs:
            if job.id not in self.finished and job.id not in self.failed:
                own = self.seconds.get(job.arm.name) or known
                total += max(0.0, sum(own) / len(own) - spent.get(job.id, 0.0))
        return total / parallel


@command
def main(options: Options) -> None:
    """The command."""
    if run_suite(options):
        raise SystemExit(1)


def run_suite(options: Options) -> Mapping[str, str]:
    """Run what is not finished yet, write results.json and the tables.

    Returns:
        Label -> why, of jobs that failed.

    Raises:
        InputError: If an option, or a file in the suite's folder, is refused.
    """
    jobs = planned(options)
    options.out.mkdir(parents=True, exist_ok=True)
    another = f"another suite is running in '{options.out}': wait for it, or give another --out"
    with locked(options.out / ".lock", lambda: another):  # each would start the jobs of the other
        state = _found(jobs, options)
        try:
            _run(state, options)
        finally:  # a suite that is stopped leaves something to report, too
            failed = collect(state, options)
    for label, why in failed.items():
        print(f"failed: {label}: {why}", file=sys.stderr)
    print(f"\n{summary(load(options.out))}")
    write_tables(options.out)
    print(f"\nall tables: {options.out / 'tables.md'}\nthe page: python -m {PACKAGE}.report {options.out}")
    return failed


def planned(options: Options) -> list[Job]:
    """The jobs that the options ask for.

    Raises:
        InputError: If a name is unknown, there is no seed, or no task.
    """
    from textgan_env.tasks import TASKS

    require_at_least(1, **{"--seeds": options.seeds, "--parallel": options.parallel})
    for task in options.tasks:
        require_known("task", task, TASKS)
    require(bool(options.tasks), f"no tasks: expected some of: {', '.join(TASKS)}")
    arms = chosen(options.agents)
    jobs, left_out = plan(
        arms, options.tasks, range(options.seeds), options.preset, options.corpus, curves=options.curves
    )
    for sentence in left_out:
        print(f"left out: {sentence}")
    return jobs


def _found(jobs: list[Job], options: Options) -> _State:
    """Which jobs are finished already.

    Raises:
        InputError: If results of other code are there and nobody said what to do with them.
    """
    state = _State(jobs)
    old: dict[str, Path] = {}
    for job in jobs:
        folder = job.folder(options.out)
        result = result_of(folder)
        if result is None and options.other_code != "redo" and (earlier := other_code(job, options.out)):
            folder, result = old.setdefault(job.label, earlier), result_of(earlier)
        if result is not None:
            state.finish(job, folder, result)
    require(
        not old or options.other_code == "keep",
        f"{len(old)} results in '{options.out}' are of another version of the code (such as {next(iter(old), '')}): "
        "--other-code keep uses and marks them, --other-code redo runs them again",
    )
    print(f"{len(jobs)} jobs, {len(state.finished)} finished already", flush=True)
    return state


def _engine(options: Options) -> LocalEngine | RayEngine:
    """Where jobs run, as the options say."""
    gpus = int(options.device.startswith("cuda"))
    return RayEngine(options.address, options.parallel, gpus) if options.engine == "ray" else LocalEngine()


def _run(state: _State, options: Options) -> None:
    """Start what can start, wait, report what ends, until nothing is left to do."""
    if len(state.finished) == len(state.jobs):
        return
    # A cluster has its own queue; here only so many run as there is room for.
    room = len(state.jobs) if options.address else options.parallel
    with contextlib.closing(_engine(options)) as engine, _Screen(state, options) as screen:
        while True:
            for job in state.ready()[: max(0, room - len(state.running))]:
                needs = {f"{need.arm.name}.{need.config['member']}": state.finished[need.id] for need in job.needs}
                folder = write_job(job, options.out, needs, options.device)
                state.running[job.id] = engine.start(folder), time.monotonic()
                screen.say(f"started {job.label}")
            if not state.running:
                return
            time.sleep(0.2)
            for job in [job for job in state.jobs if job.id in state.running]:
                code = engine.ended(state.running[job.id][0])
                if code is not None:
                    _settle(state, job, code, options, screen)
            screen.refresh()


def _settle(state: _State, job: Job, code: int, options: Options, screen: "_Screen") -> None:
    """A job has ended: finished, to be resumed, or failed."""
    _, began = state.running.pop(job.id)
    took = clock_text(time.monotonic() - began)
    folder = job.folder(options.out)
    result = result_of(folder)
    if result is not None:
        state.finish(job, folder, result)
        collect(state, options)  # for a report before the end
        screen.say(f"finished {job.label} ({took})")
        return
    log = folder / "log.txt"
    if code < 0 and state.kills.get(job.id, 0) < options.retries:
        state.kills[job.id] = state.kills.get(job.id, 0) + 1
        screen.say(f"killed by signal {-code}: {job.label} after {took}; it is resumed (log: {log})")
        return
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
    why = f"killed by signal {-code}" if code < 0 else f"exit code {code}: {said[-1]}"
    state.failed[job.id] = f"{why} (log: {log})"
    screen.say(f"failed {job.label} after {took}: {state.failed[job.id]}")


def collect(state: _State, options: Options) -> dict[str, str]:
    """Write results.json: every finished job's result, raw, and what the suite was asked for.

    Returns:
        Label -> why, of jobs that are not finished.
    """
    why = state.failed | state.blocked()
    failed = {job.label: why.get(job.id, NOT_FINISHED) for job in state.jobs if job.id not in state.finished}
    results = [
        {**(result_of(folder) or {}), "other_code": folder != job.folder(options.out), "group": job.arm.group}
        for job in state.jobs
        if (folder := state.finished.get(job.id)) is not None
    ]
    document = {"options": asdict(options), "failed": failed, "results": results}
    write_safely(options.out / "results.json", json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n")
    return failed


class _Screen(contextlib.ExitStack):
    """What runs and how long is left: a live table on a terminal, plain lines elsewhere."""

    def __init__(self, state: _State, options: Options) -> None:
        super().__init__()
        self.state, self.options = state, options
        self.shown = time.monotonic()
        self.live: Live | None = None
        if sys.stdout.isatty():
            self.live = self.enter_context(Live(get_renderable=self.table, auto_refresh=False, transient=True))

    def say(self, line: str) -> None:
        """One line that stays."""
        rich.get_console().print(line, highlight=False, markup=False, soft_wrap=True)

    def refresh(self) -> None:
        """Show how far everything is; in lines only now and then."""
        if self.live is not None:
            self.live.refresh()
        elif time.monotonic() - self.shown >= _LINE_EVERY:
            self.shown = time.monotonic()
            self.say("\n".join([self.summary(), *("    " + "  ".join(cells) for cells in self.rows())]))

    def summary(self) -> str:
        """How many jobs are done, and how long the others will take."""
        state = self.state
        running = [job for job in state.jobs if job.id in state.running]
        shares = {job.id: share for job in running if (share := share_of(job.folder(self.options.out))) is not None}
        left = clock_text(state.seconds_left(self.options.parallel, shares))
        failed = f", {len(state.failed)} failed" if state.failed else ""
        done = f"{len(state.finished)} of {len(state.jobs)} jobs finished"
        return f"{done}, {len(state.running)} running{failed}, about {left} left"

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Job, for how long, how far: of all that run."""
        for job in self.state.jobs:
            if job.id in self.state.running:
                ran = clock_text(time.monotonic() - self.state.running[job.id][1])
                yield job.label, ran, progress_of(job.folder(self.options.out))

    def table(self) -> Group:
        """What stands on a terminal."""
        table = Table("job", "runs for", "how far", box=None, header_style="dim")
        for cells in self.rows():
            table.add_row(*map(Text, cells))
        return Group(Text(self.summary(), style="bold"), table)


if __name__ == "__main__":
    main()
