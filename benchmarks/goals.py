"""How far a goal is reached, and what it costs in text: rivals, reinforcement learning, guards, controls.

    python -m benchmarks.goals --pretrained runs/mle-moses-1 runs/mle-moses-2 --objective qed

Every arm begins as the policy of a run of maximum likelihood, one run for each seed, and takes as many g-steps of as
many texts (`benchmarks.goal_arms`). Each policy and each measurement is a file under --out: a killed command goes on
where it was when it is started again; --finished only draws what is there.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.goal_arms import ARMS, REALS, START, Scale
from benchmarks.results import command, made_once
from textgan_env.utils.errors import require, require_known
from textgan_env.utils.files import write_safely

if TYPE_CHECKING:
    from textgan_env.objectives import Objective
    from textgan_env.policies import PolicyModule
    from textgan_env.show.saved import SavedRun


@dataclass(frozen=True)
class Options:
    """Chase a goal with and without guards."""

    pretrained: tuple[Path, ...]
    """Runs of maximum likelihood on one task, one a seed: that of the run is the arms' seed, too."""
    objective: str
    """NAME:ARGUMENT, or FILE.py:NAME."""
    rounds: int = 4
    """Rounds: g-steps, then a d-step where D has a part."""
    g_steps: int = 10
    """g-steps in a round."""
    batch_size: int = 64
    """Texts a g-step."""
    learning_rate: float = 1e-3
    """Of g-steps of policy gradients."""
    d_share: float = 1.0
    """Share of the training texts that D learns from in a d-step."""
    longer: int = 2
    """Epochs that maximum likelihood goes on for in its longer arm."""
    strings: int = 2_000
    """Texts of each arm that are written."""
    samples: int = 1_000
    """How many of them, of molecules valid ones, are measured but for validity."""
    only: tuple[str, ...] = ()
    """Arms to make; none: all. Controls are named like the others."""
    small: bool = False
    """As small as it can be, to see that everything runs."""
    finished: bool = False
    """Make nothing more: only tables and picture of what is there."""
    out: Path = Path("runs/goals")
    """Where every finished part is kept."""
    name: str = "goals"
    """Of the result files and the picture."""


@command
def main(options: Options) -> None:
    """The command."""
    import torch

    from benchmarks.goal_report import report
    from textgan_env import load
    from textgan_env.objectives import typed_objective

    torch.set_num_threads(1)
    require(bool(options.pretrained), "pretrained must name at least one run")
    for name in options.only:
        require_known("arm", name, ARMS)
    runs = [load(path) for path in options.pretrained]
    require(len({run.task.name for run in runs}) == 1, "the pretrained runs must be of one task")
    seeds = [run.seed for run in runs]
    require(len({*seeds}) == len(seeds), f"the pretrained runs must have seeds of their own, found {seeds}")
    scale = scale_of(options)
    options.out.mkdir(parents=True, exist_ok=True)
    other = f"'{options.out}' holds arms of another scale or objective: give another folder with --out"
    require(made_once(options.out / "scale.json", partial(asdict, scale)) == asdict(scale), other)
    for run in runs:
        if not options.finished:
            Parts(options.out, scale, run, typed_objective(options.objective)).make(options.only or tuple(ARMS))
    rows = {seed: finished_rows(options.out, seed) for seed in seeds}
    report(options.name, runs[0].task, scale, {seed: found for seed, found in rows.items() if found})


def scale_of(options: Options) -> Scale:
    """How large everything is."""
    if options.small:
        return Scale(options.objective, 2, 1, 8, options.learning_rate, 0.1, 1, 24, 12)
    names = ("rounds", "g_steps", "batch_size", "learning_rate", "d_share", "longer", "strings", "samples")
    return Scale(options.objective, **{name: getattr(options, name) for name in names})


class Parts:
    """The arms of a seed, each learnt once and measured once, and kept as files.

    Args:
        out: The folder.
        scale: How large everything is.
        start: The run that all begin as.
        objective: The goal.
    """

    def __init__(self, out: Path, scale: Scale, start: "SavedRun", objective: "Objective") -> None:
        self.out, self.scale, self.start, self.objective = out, scale, start, objective

    def make(self, names: Sequence[str]) -> None:
        """What is left of some arms."""
        from benchmarks.goal_learning import real_texts
        from benchmarks.goal_measures import measure, of_texts

        task, samples = self.start.task, self.scale.samples
        for name, of in REALS.items():
            real = partial(real_texts, task, self.objective, of, samples)
            made_once(self.path(name), lambda real=real: of_texts(real(), task, self.objective, samples))  # type: ignore[misc]
        for name in names:
            if self.path(name).exists():
                continue
            print(f"{name}, seed {self.start.seed} ...", flush=True)
            policy, took = self.policy(name)
            how = (policy, ARMS[name], self.start, self.objective, self.scale)
            found = made_once(self.path(name), lambda how=how, took=took: took | measure(*how))  # type: ignore[misc]
            print({key: value for key, value in found.items() if isinstance(value, float)}, flush=True)

    def policy(self, name: str) -> tuple["PolicyModule", dict[str, Any]]:
        """The policy that writes an arm's texts, learnt where it is not there, and what learning it took."""
        import copy

        import safetensors.torch

        from benchmarks.goal_learning import learn

        arm = ARMS[name]
        if arm.writer:
            return self.policy(arm.writer)
        policy = copy.deepcopy(self.start.policy)
        if not arm.agent:
            return policy, {}
        weights, about = self.path(name, ".safetensors"), self.path(f"{name} learnt")
        if not weights.exists():
            learnt, took = learn(arm, self.start, self.scale)
            made_once(about, lambda: took)
            write_safely(weights, safetensors.torch.save(learnt.state_dict()))
        policy.load_state_dict(safetensors.torch.load(weights.read_bytes()))
        return policy.eval(), json.loads(about.read_text("utf-8"))

    def path(self, name: str, end: str = ".json") -> Path:
        """The file of a part."""
        return part_path(self.out, self.start.seed, name, end)


def part_path(out: Path, seed: int, name: str, end: str = ".json") -> Path:
    """The file of an arm of a seed."""
    return out / f"{seed}-{re.sub('[^a-z0-9=.]+', '-', name.lower())}{end}"


def finished_rows(out: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Arm -> what was measured of it with a seed; without those whose control is not there."""
    found: dict[str, dict[str, Any]] = {}
    for name in (*REALS, *ARMS):
        path = part_path(out, seed, name)
        if path.exists():
            found[name] = json.loads(path.read_text("utf-8"))
    return controlled(found) if START in found else {}


def controlled(rows: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those rows of a seed that stand beside their control, or need none."""
    return {name: row for name, row in rows.items() if name in REALS or ARMS[name].control in ("", *rows)}


if __name__ == "__main__":
    main()
