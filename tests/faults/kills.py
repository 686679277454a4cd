"""Kill training processes at random moments, go on with their runs, and compare the ends with uninterrupted runs.

    python tests/faults/kills.py --kills 100

Each process is the agent's own `main` on its smoke preset, forked from this one, which has loaded the libraries. One in
five is killed while it starts, the others while they train: at a random moment up to 0.6 of a whole training after
their first checkpoint. Its run is gone on with until it comes to its end. After each kill every file of the run must be
readable; at the end weights and optimizers, rows of the log, samples, events of TensorBoard and the final measurements
must be those of a run that nobody stopped, bit for bit.
"""

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

AT_THE_END = "after the last round"
STARTING = 0.2  # share of the kills that fall before a process has written its first checkpoint
AGENTS = ("seqgan", "leakgan")
TASKS = ("toy", "corpus")
WORDS = ["a", "the", "some", "cat", "dog", "bird", "sees", "likes", "hears", "finds", "tree", "house", "stone", "river"]


@dataclass
class Told:
    """What happened: how many processes were killed, where their runs stood, how long a signal took to end them."""

    runs: int = 0
    where: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """Processes killed."""
        return sum(self.where.values())


def write_corpus(path: Path) -> None:
    """A small corpus of made-up sentences of three to six words."""
    dice = random.Random(0)
    lines = {" ".join(dice.choices(WORDS, k=dice.randint(3, 6))) for _ in range(300)}
    path.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")


def command(task: str, folder: Path) -> list[str]:
    """The command line of a new run."""
    source = ["--corpus", str(folder / "corpus.txt")] if task == "corpus" else ["--task", task]
    return ["--preset", "smoke", *source, "--threads", "1", "--checkpoint-every", "0.1"]


def start(agent: str, words: list[str], output: Path) -> int:
    """Fork a process that runs an agent's command; its output is added to a file.

    Returns:
        Its number.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.argv = [f"{agent}.py", *words]
        importlib.import_module(f"agents.{agent}").main(words)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def ended(child: int, within: float) -> int | None:
    """The exit code of a process (minus the signal that ended it), or None if it still runs after some seconds."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def run_folder(runs: Path) -> Path | None:
    """The folder of the run that was begun, if it was."""
    found = sorted(runs.glob("*/config.json"))
    return found[0].parent if found else None


def where_it_stands(folder: Path | None, rounds: int) -> str:
    """From where a run will go on; reads every file of it, so that one that cannot be read ends the test."""
    from textgan_env.runs.checkpoints import load_checkpoint
    from textgan_env.runs.folder import RunFolder
    from textgan_env.runs.logs import read_metrics

    if folder is None:
        return "before there was a folder"
    run = RunFolder.open(folder)
    run.samples()
    if (folder / "metrics.jsonl").exists():
        read_metrics(folder)
    states = [
        load_checkpoint(path)
        for path in (run.last_checkpoint, run.previous_checkpoint, run.best_checkpoint)
        if path.exists()
    ]
    if not run.last_checkpoint.exists():
        return "before the first checkpoint"
    state = states[0].document["state"]
    if states[0].tensors:
        return "inside a step"
    if state["steps"]:
        return "between steps"
    return AT_THE_END if state["done"] == rounds else "between rounds"


def content(folder: Path) -> dict[str, Any]:
    """Everything that must be equal."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from textgan_env.runs.checkpoints import load_checkpoint
    from textgan_env.runs.folder import RunFolder

    run = RunFolder.open(folder)
    found: dict[str, Any] = {
        f"{path.stem}: {name}": (str(tensor.dtype), tuple(tensor.shape), tensor.numpy().tobytes())
        for path in (run.last_checkpoint, run.best_checkpoint)
        for name, tensor in load_checkpoint(path).all_tensors.items()
    }
    for name in ("metrics.jsonl", "metrics.csv", "samples.txt", "final_samples.txt", "evaluation.json"):
        found[name] = (folder / name).read_text(encoding="utf-8")
    events = EventAccumulator(str(folder / "tb"), size_guidance={"scalars": 0})
    events.Reload()
    found |= {
        f"tb: {tag}": repr([(event.step, event.value) for event in events.Scalars(tag)])
        for tag in events.Tags()["scalars"]
    }
    return found


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run.

    Attributes:
        content: What must come out.
        rounds: How many it has.
        starting: Seconds until it wrote its first checkpoint.
        training: Seconds from then to its last.
    """

    content: dict[str, Any]
    rounds: int
    starting: float
    training: float


def whole_run(agent: str, task: str, folder: Path) -> Whole:
    """Run an agent to its end."""
    runs, began = folder / f"{agent}-{task}-whole", time.time()
    child = start(agent, [*command(task, folder), "--runs", str(runs)], folder / "output.txt")
    code = until_saved(child, runs, began)
    first = saved_at(runs)
    code = ended(child, 3600) if code is None else code
    made = run_folder(runs)
    if code or made is None:
        raise SystemExit(f"{agent} on {task} failed by itself: {(folder / 'output.txt').read_text()[-2000:]}")
    rounds = len((made / "metrics.jsonl").read_text().splitlines())
    return Whole(content(made), rounds, first - began, saved_at(runs) - first)


def saved_at(runs: Path) -> float:
    """When the run that was begun wrote its last checkpoint; 0 if it has none."""
    made = run_folder(runs)
    try:
        return 0.0 if made is None else (made / "checkpoints" / "last.safetensors").stat().st_mtime
    except FileNotFoundError:  # not yet, or between two
        return 0.0


def until_saved(child: int, runs: Path, since: float) -> int | None:
    """Wait for a process's first checkpoint; the exit code if it ended first."""
    code = None
    while code is None and saved_at(runs) < since:
        code = ended(child, 0.02)
    return code


@dataclass
class Killer:
    """Kills processes at random moments.

    Attributes:
        kind: By which signal.
        dice: Says when.
        folder: Where the runs lie.
        told: What happened.
    """

    kind: signal.Signals
    dice: random.Random
    folder: Path
    told: Told = field(default_factory=Told)

    def run(self, agent: str, task: str, whole: Whole) -> None:
        """A run whose processes are killed until one comes to the end first, or only measures any more."""
        name = f"{agent}-{task}-{self.told.runs}"
        runs, output, where = self.folder / name, self.folder / f"{name}.txt", ""
        slower = 1.0
        while True:
            made, began = run_folder(runs), time.time()
            words = [*command(task, self.folder), "--runs", str(runs)] if made is None else ["--resume", str(made)]
            child = start(agent, words, output)
            if where == AT_THE_END:
                code = ended(child, 3600)
            elif self.dice.random() < STARTING:
                code = ended(child, self.dice.uniform(0, whole.starting * slower))
            else:
                code = until_saved(child, runs, began)
                code = ended(child, self.dice.uniform(0, 0.6 * whole.training * slower)) if code is None else code
            killed = code is None and self._kill(child)
            if killed:
                where = where_it_stands(run_folder(runs), whole.rounds)
                self.told.where[where] += 1
                slower *= 1.1  # a machine that got slower must not keep a run from ever coming to its end
            elif code:
                raise SystemExit(f"{name} ended with {code}: {output.read_text()[-2000:]}")
            else:
                break
        self.told.runs += 1
        found = content(run_folder(runs) or runs)
        both = whole.content.keys() | found.keys()
        different = sorted(key for key in both if whole.content.get(key) != found.get(key))
        if different:
            self.told.unequal.append(f"{name} differs in {', '.join(different[:5])}")
        shutil.rmtree(runs)

    def _kill(self, child: int) -> bool:
        """Whether the signal ended the process, rather than its work."""
        began = time.monotonic()
        os.kill(child, self.kind)
        code = ended(child, 3600)
        self.told.seconds.append(time.monotonic() - began)
        # A process whose training has not begun is ended by the signal itself.
        if code not in (0, -self.kind, 128 + self.kind if self.kind != signal.SIGKILL else 0):
            raise SystemExit(f"a process that got {self.kind.name} ended with {code}")
        return code != 0


def kill_runs(kills: int, seed: int, kind: signal.Signals, folder: Path) -> Iterator[Told]:
    """Kill until there were so many; gives the report after each run."""
    import matplotlib.pyplot  # noqa: F401  loaded before forking, as all that follows
    import torch
    import torch.utils.tensorboard

    torch.set_num_threads(1)
    write_corpus(folder / "corpus.txt")
    for agent in AGENTS:
        importlib.import_module(f"agents.{agent}")
    for name in ("training", "evaluation", "envs", "policies", "render", "data"):
        importlib.import_module(f"textgan_env.{name}")
    killer = Killer(kind, random.Random(seed), folder)
    cases = [(agent, task) for agent in AGENTS for task in TASKS]
    whole = {case: whole_run(*case, folder) for case in cases}
    while killer.told.kills < kills:
        case = cases[killer.told.runs % len(cases)]
        killer.run(*case, whole[case])
        yield killer.told


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--json", action="store_true", help="print the last line as JSON")
    options = parser.parse_args()
    kind = signal.Signals[f"SIG{options.signal}"]
    with tempfile.TemporaryDirectory() as folder:
        told = Told()
        for told in kill_runs(options.kills, options.seed, kind, Path(folder)):
            print(f"{told.kills} kills, {told.runs} runs, {len(told.unequal)} unequal", flush=True)
    summary = {
        "signal": kind.name,
        "kills": told.kills,
        "runs": told.runs,
        "where": dict(told.where),
        "most seconds to end": round(max(told.seconds, default=0.0), 2),
        "unequal": told.unequal,
    }
    print(json.dumps(summary) if options.json else "\n".join(f"{name}: {value}" for name, value in summary.items()))
    raise SystemExit(bool(told.unequal))


if __name__ == "__main__":
    main()
