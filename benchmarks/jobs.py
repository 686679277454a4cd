"""Jobs of the suite: an arm on a task with a seed, in a folder of its own and a process of its own.

The folder's name ends in the job's id, a hash of all that the result depends on: the settings, and the code that makes
and measures the policy (comments and docstrings left out). So a finished job is found again, and a result of other
code is known as such. ``python -m benchmarks.jobs FOLDER`` is the process.
"""

import contextlib
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, JsonValue, model_validator

from agents import module_of
from benchmarks.arms import ARMS, BASELINE, RUN_OF, Arm, Preset
from benchmarks.code import code_version, short_hash
from benchmarks.results import origin, peak_memory_mb
from textgan_env.ops.metric_table import METRICS
from textgan_env.utils.errors import InputError, friendly_errors, require
from textgan_env.utils.files import write_safely
from textgan_env.utils.options import DRAWN, TaskOptions
from textgan_env.utils.reading import MOST_LOG, open_ordinary, parse_json, read_limited, read_typed

if TYPE_CHECKING:
    from textgan_env.policies import PolicyModule
    from textgan_env.tasks import Task

_MEMBER_SEEDS = 1_000  # between the seeds of two trainings on the same texts


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        arm: The arm.
        config: All settings, as JSON can hold them; those of the jobs it needs are in it.
        code: Hash of the code that its result depends on.
        needs: The jobs whose runs it is made from.
    """

    arm: Arm
    config: Mapping[str, Any]
    code: str
    needs: tuple["Job", ...]

    @property
    def id(self) -> str:
        """Ten hexadecimal digits."""
        return short_hash(json.dumps([self.config, self.code], sort_keys=True))

    @property
    def label(self) -> str:
        """What it is, for people and as the first part of its folder's name."""
        member = f".{self.config['member']}" if self.config["member"] else ""
        return f"{self.arm.name}{member}.{self.config['task']}.s{self.config['seed']}"

    def folder(self, out: Path) -> Path:
        """Where it lies."""
        return out / "jobs" / f"{self.label}.{self.id}"


# ----------------------------------------------------------------------------------------------------
# Which jobs
def plan(
    arms: Sequence[Arm],
    tasks: Sequence[str],
    seeds: Sequence[int],
    preset: Preset,
    corpus: str | None = None,
    *,
    curves: bool = True,
) -> tuple[list[Job], list[str]]:
    """Every job that a table takes: the arms, the maximum likelihood baseline, and what they are made from.

    Args:
        arms: What is asked for.
        tasks: Names of tasks.
        seeds: One table row is over all of them.
        preset: How large everything is.
        corpus: The file of a task that needs one.
        curves: Whether arms are measured at several temperatures, too.

    Returns:
        The jobs, each after those it needs; and a sentence for each arm that is left out.
    """
    jobs: dict[str, Job] = {}
    left_out = []
    file = None if corpus is None else str(Path(corpus).expanduser().absolute())

    def add(arm: Arm, task: str, seed: int, member: int = 0) -> Job:
        """Plan a job and those it needs; returns it."""
        needs = tuple(add(ARMS[need.arm], task, seed, need.member) for need in arm.needs(preset))
        config: dict[str, Any] = {"arm": arm.name, "agent": arm.agent, "build": arm.build, "words": arm.words(preset)}
        # Each seed has its own texts where the distribution is known.
        options = TaskOptions(task, file, text_seed=seed if task in DRAWN else None).task_options()
        config |= {"sweep": arm.sweep and curves, "task": task, "task_options": options}
        config |= {"seed": seed, "member": member, "preset": preset, "needs": [need.config for need in needs]}
        job = Job(arm, config, code_version(arm.agent), needs)
        return jobs.setdefault(job.id, job)

    for task in tasks:
        for arm in [ARMS[BASELINE], *(arm for arm in arms if arm.name != BASELINE)]:
            if arm.words(preset) is None:
                left_out.append(f"{arm.name} has no setting for --preset {preset}")
            elif not arm.suits(task):
                left_out.append(f"{arm.name} is not for task {task}")
            else:
                for seed in seeds:
                    add(arm, task, seed)
    return list(jobs.values()), list(dict.fromkeys(left_out))


# ----------------------------------------------------------------------------------------------------
# What lies in a folder
def result_of(folder: Path) -> dict[str, Any] | None:
    """The result of a finished job; None where it is not finished.

    Raises:
        InputError: If the file is not whole.
    """
    path = folder / "result.json"
    return read_json(path, Result) if path.exists() else None


class _Config(BaseModel, extra="allow"):
    """What the readers of a result ask of a job's settings."""

    arm: str
    task: str
    seed: int | None = None
    member: int = 0


class _Row(BaseModel, extra="allow"):
    """What a policy measured."""

    variant: str
    values: dict[str, float | None]
    missing: dict[str, str]


class Result(BaseModel, extra="allow"):
    """What a job writes."""

    label: str
    config: _Config
    code: str = ""
    command: str
    rows: list[_Row]
    curve: list[dict[str, float | None]]
    learning_curve: list[dict[str, JsonValue]]
    seconds: dict[str, float | None]
    peak_memory_mb: float | None

    @model_validator(mode="after")
    def _measured_unless_a_member(self) -> Self:
        """Nothing is measured of further members of an ensemble."""
        if not self.rows and not self.config.member:
            raise ValueError("rows must hold at least one row, found none")
        return self


def read_json(path: Path, kind: type[Any] = dict) -> dict[str, Any]:
    """Read a file of ours, a JSON object, which must be of a type.

    Raises:
        InputError: If it cannot be read, is cut off, or something else.
    """
    again = "delete it, and the suite makes it again when it is started again"
    try:
        document = parse_json(read_limited(path, MOST_LOG, inside=path.parent), f"'{path}'", most=MOST_LOG)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from None
    except InputError as error:
        raise InputError(f"{error}: {again}") from None
    read_typed(kind, document, f"'{path}'")
    return dict(document)


def other_code(job: Job, out: Path) -> Path | None:
    """The newest finished job of the same settings that other code made."""
    others = [folder for folder in (out / "jobs").glob(f"{job.label}.*") if folder != job.folder(out)]
    found = [folder for folder in others if (result := result_of(folder)) and result["config"] == job.config]
    return max(found, key=lambda folder: (folder / "result.json").stat().st_mtime, default=None)


def progress_of(folder: Path) -> str:
    """What the last line of a job's log says of how far it is; "" before it says anything."""
    try:
        with open_ordinary(folder / "log.txt") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except (OSError, InputError):
        return ""
    for line in reversed(lines):
        if line.startswith("measuring"):
            return line
        bar = re.search(r"(\d+ %) \(\d+/\d+\), (?:(\S+) left|took)", line)
        if bar:
            return f"{bar[1]}, {bar[2]} left" if bar[2] else bar[1]
    return ""


def share_of(folder: Path) -> float | None:
    """Which share of a job is done, 0 to 1, by its log; None before it says so."""
    said = progress_of(folder)
    share = re.match(r"(\d+) %", said)
    return 1.0 if said.startswith("measuring") else int(share[1]) / 100 if share else None


# ----------------------------------------------------------------------------------------------------
# The process of a job
def write_job(job: Job, out: Path, needs: Mapping[str, Path], device: str) -> Path:
    """Make the folder of a job that is to run.

    Args:
        job: The job.
        out: The suite's folder.
        needs: Arm.member of each job it needs -> its folder.
        device: Where it computes.

    Returns:
        The folder.
    """
    folder = job.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: os.path.relpath(path, folder) for name, path in needs.items()}
    document = {"config": job.config, "code": job.code, "device": device, "needs": paths}
    write_safely(folder / "job.json", json.dumps(document, indent=1) + "\n")
    return folder


def run(folder: Path) -> None:
    """Do a job, or what is left of it, and write its result.

    Raises:
        InputError: If something that it needs is refused.
    """
    import torch

    from textgan_env.tasks import make_task

    torch.set_num_threads(1)
    document = read_json(folder / "job.json")
    config = document["config"]
    attempts = folder / "attempts"
    attempt = 1 + (int(read_limited(attempts, 20)) if attempts.exists() else 0)
    write_safely(attempts, f"{attempt}\n")
    began = time.monotonic()
    needed = {name: trained_run((folder / path).resolve()) for name, path in document["needs"].items()}
    trained = _train(folder, config, needed, document["device"]) if config["agent"] else None
    trained_for = time.monotonic() - began
    task = make_task(config["task"], **config["task_options"])
    rows, curve = _measured(config, task, trained, list(needed.values()), document["device"])
    # Of a job that was interrupted nobody knows how long the first part took.
    known = {"training": trained_for if trained else None, "all": time.monotonic() - began}
    seconds = known if attempt == 1 else dict.fromkeys(known)
    arm = ARMS[config["arm"]]
    result = document | {"label": folder.name.rpartition(".")[0], "how": arm.how, "tries": arm.tries}
    result |= {"command": command_of(config), **origin(document["device"]), "seconds": seconds, "attempts": attempt}
    result |= {"peak_memory_mb": peak_memory_mb(), "rows": rows, "curve": curve}
    result["learning_curve"] = learning_curve(trained) if trained else []
    result["run"] = os.path.relpath(trained, folder) if trained else None
    write_safely(folder / "result.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def _measured(
    config: Mapping[str, Any], task: "Task", trained: Path | None, needed: Sequence[Path], device: str
) -> tuple[list[dict[str, Any]], list[dict[str, float]]]:
    """Rows and curve of the policies of an arm; none of further members of an ensemble."""
    from benchmarks import measure
    from textgan_env.runs.loading import load_policy

    if config["member"]:
        return [], []  # no table has a line for it
    say = partial(print, flush=True)
    seed, sizes = config["seed"], measure.SIZES[config["preset"]]
    if config["build"] == "real":
        say("measuring real text ...")
        return [{"variant": "", **measure.real_row(task, sizes, seed)}], []
    if trained is not None:
        policies: dict[str, PolicyModule] = {"": load_policy(trained)[0]}
    else:
        policies = measure.BUILDS[config["build"]](task, [load_policy(run)[0] for run in needed])
    policies = {variant: policy.to(device) for variant, policy in policies.items()}
    rows = []
    for variant, policy in policies.items():
        say(f"measuring {variant or 'the policy'} ...")
        rows.append({"variant": variant, **measure.row(policy, task, sizes, seed)})
    if config["sweep"]:
        return rows, measure.curve(policies[""], task, sizes, seed, say)
    return rows, []


def _train(folder: Path, config: Mapping[str, Any], needed: Mapping[str, Path], device: str) -> Path:
    """Train the agent, or resume its run; returns the run folder."""
    runs = folder / "run"
    for unborn in runs.glob("*"):
        # Killed while the folder was made, or before the first checkpoint.
        if not ((unborn / "config.json").exists() and (unborn / "checkpoints" / "last.safetensors").exists()):
            shutil.rmtree(unborn)
    done = next(runs.glob("*/config.json"), None)
    main = module_of(config["agent"]).main
    if done is None:
        paths = {name.removesuffix(".0"): str(path) for name, path in needed.items()}
        words = agent_words(config, paths)
        own = ["--runs", str(runs), "--threads", "1", "--device", device, "--checkpoint-every", "15"]
        main([*words, *own, "--show-samples", "1"])
    elif not (done.parent / "evaluation.json").exists():
        print(f"resuming {done.parent}", flush=True)
        main(["--resume", str(done.parent), "--threads", "1", "--device", device])
    return trained_run(folder)


def agent_words(config: Mapping[str, Any], runs: Mapping[str, str]) -> list[str]:
    """The command line of the agent, without where its run goes and what computes it."""
    words = [RUN_OF.sub(lambda named: runs.get(named[0][1:-1], named[0]), word) for word in config["words"]]
    words += ["--task", config["task"], "--seed", str(config["seed"] + _MEMBER_SEEDS * config["member"])]
    for name, value in config["task_options"].items():
        words += ["--text-seed" if name == "text_seed" else "--corpus", str(value)]
    return words


def command_of(config: Mapping[str, Any]) -> str:
    """The command that makes a row's policy again, for people."""
    if not config["agent"]:
        return f"benchmarks/measure.py, {config['build']}"
    return " ".join([f"python agents/{config['agent']}.py", *agent_words(config, {})])


def trained_run(folder: Path) -> Path:
    """The run folder of a job that trained something.

    Raises:
        InputError: If there is none.
    """
    found = sorted((folder / "run").glob("*/config.json"))
    require(bool(found), f"'{folder}' holds no trained run")
    return found[0].parent


def learning_curve(run: Path) -> list[dict[str, Any]]:
    """Step, phase and the metrics that charts of a run show, of each evaluation."""
    from textgan_env.runs.logs import read_metrics

    shown = [name for name, metric in METRICS.items() if metric.chart]
    # NaN is no point.
    rows = [(row, [name for name in shown if name in row and row[name] == row[name]]) for row in read_metrics(run)]
    return [{name: row[name] for name in ("step", "phase", *known)} for row, known in rows if known]


def end_with_parent() -> None:
    """Leave as soon as who started this process is gone: the end of our standard input tells.

    A killed suite must not leave jobs behind that a new one starts again beside them.
    """

    def wait() -> None:
        """Read until the pipe is closed, then end the process."""
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        os._exit(143)

    threading.Thread(target=wait, daemon=True).start()


def main(args: list[str] | None = None) -> None:
    """The process of one job."""
    words = sys.argv[1:] if args is None else args
    with friendly_errors():
        require(len(words) == 1, "usage: python -m benchmarks.jobs FOLDER")
        run(Path(words[0]))


if __name__ == "__main__":
    end_with_parent()
    main()
