"""What a budget of calls finds: screening against reinforcement learning, where each call of an objective is dear.

    python -m benchmarks.budget --pretrained runs/mle-moses-1 --seeds 1 2 3

Each arm begins as one policy of maximum likelihood, and may ask an objective about 10,000 different texts, as MolOpt
has it (Gao et al. 2022). Screening learns nothing: the policy writes, and the best are kept. What the calls of an arm
were about, and what was answered, is a file under --out for each goal and seed: a killed command goes on where it was;
--finished only draws what is there.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from statistics import fmean
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from agents import class_of
from benchmarks.goal_arms import ARMS, START, Arm, Scale, config_of
from benchmarks.goals import part_path
from benchmarks.results import command, image_path, made_once, save, table
from textgan_env.utils.errors import require, require_at_least, require_known

if TYPE_CHECKING:
    from textgan_env.objectives import Floats
    from textgan_env.show.saved import SavedRun
    from textgan_env.tasks import Task

#: Arm -> seed -> what was measured.
Found = Mapping[str, Mapping[int, Mapping[str, Any]]]

_CELECOXIB = "Cc1ccc(-c2cc(C(F)(F)F)nn2-c2ccc(S(N)(=O)=O)cc2)cc1"
_MELATONIN = "CC(=O)NCCc1c[nH]c2ccc(OC)cc12"
#: Name -> objective.
GOALS: Mapping[str, str] = {
    "QED": "qed",
    "celecoxib": f"similarity:{_CELECOXIB}",
    "melatonin, drug-like, easy to make": f"product:similarity:{_MELATONIN};qed;sa",
}
SCREENING, CONTROL = "screening", "REINVENT, objective shuffled"
_REINVENT = {"sigma": 60.0}
#: Name -> arm, those of `benchmarks.goal_arms` as far as they are there.
BUDGET_ARMS: Mapping[str, Arm] = {
    SCREENING: ARMS[START],
    "REINVENT": Arm("REINVENT", "reinvent", _REINVENT, CONTROL),
    "REINFORCE, repeat decay .5": ARMS["REINFORCE, repeat decay .5"],
    "best of 4, learnt in rounds": ARMS["best of 4, learnt in rounds"],
    CONTROL: Arm("control", "reinvent", _REINVENT | {"objective_control": "shuffled"}),
}
#: Of the means that are told: the best 1, 10 and 100.
TOPS = (1, 10, 100)
#: A policy that repeats itself asks little: after so many times the budget it has written enough.
_PATIENCE = 3
_POINTS = 100  # of a curve, in the picture and in the kept result


@dataclass(frozen=True)
class Options:
    """Spend a budget."""

    pretrained: Path
    """A run of maximum likelihood: all arms begin as its policy."""
    seeds: tuple[int, ...] = (1,)
    """Of the arms' draws."""
    goals: tuple[str, ...] = tuple(GOALS.values())
    """Objectives, NAME:ARGUMENT or FILE.py:NAME."""
    budget: int = 10_000
    """Different texts that the objective may be asked about."""
    batch_size: int = 64
    """Texts a g-step."""
    g_steps: int = 4
    """g-steps in a round: so long best of 4 learns from texts of one policy."""
    learning_rate: float = 1e-3
    """Of policy gradients."""
    only: tuple[str, ...] = ()
    """Arms to make; none: all."""
    small: bool = False
    """As small as it can be, to see that everything runs."""
    finished: bool = False
    """Make nothing more: only tables and picture of what is there."""
    out: Path = Path("runs/budget")
    """Where every finished part is kept."""
    name: str = "budget"
    """Of the result files and the picture."""


@command
def main(options: Options) -> None:
    """The command."""
    import torch

    from textgan_env import load

    torch.set_num_threads(1)
    require(bool(options.seeds and options.goals), "give at least one seed and one goal")
    require_at_least(1, budget=options.budget, batch_size=options.batch_size, g_steps=options.g_steps)
    for name in options.only:
        require_known("arm", name, BUDGET_ARMS)
    start = load(options.pretrained)
    parts = [Parts(options.out, scale_of(options, goal), start, budget_of(options)) for goal in options.goals]
    for seed in options.seeds if not options.finished else ():
        for part in parts:
            for name in options.only or BUDGET_ARMS:
                part.make(name, seed)
    report(options.name, {part.scale.objective: part.finished(options.seeds) for part in parts}, parts[0])


def budget_of(options: Options) -> int:
    """Calls of an objective."""
    return 60 if options.small else options.budget


def scale_of(options: Options, goal: str) -> Scale:
    """How large everything is, as the arms of `benchmarks.goal_arms` take it."""
    batch_size = 8 if options.small else options.batch_size
    rounds = -(-_PATIENCE * budget_of(options) // (batch_size * options.g_steps))
    return Scale(goal, rounds, options.g_steps, batch_size, options.learning_rate, 1.0, 0, 0, 0)


class Parts:
    """What the arms have asked toward one goal, and were answered, kept as files in a folder of the goal.

    Args:
        out: Holds the folders.
        scale: How large everything is.
        start: The run that all begin as.
        budget: Calls of the objective.

    Raises:
        InputError: If the folder holds parts of another scale, run or budget.
    """

    def __init__(self, out: Path, scale: Scale, start: "SavedRun", budget: int) -> None:
        from textgan_env.objectives import typed_objective

        self.scale, self.start, self.budget, self.objective = scale, start, budget, typed_objective(scale.objective)
        self.folder = out / blake2b(scale.objective.encode(), digest_size=4).hexdigest()
        self.folder.mkdir(parents=True, exist_ok=True)
        own = asdict(scale) | {"budget": budget, "start": start.folder.path.name}
        other = f"'{self.folder}' holds arms of another scale, run or budget: give another folder with --out"
        require(made_once(self.folder / "scale.json", lambda: own) == own, other)

    def make(self, name: str, seed: int) -> None:
        """Let an arm spend its budget, unless it has done so."""
        path = part_path(self.folder, seed, name)
        if not path.exists():
            print(f"{self.scale.objective}: {name}, seed {seed} ...", flush=True)
            found = made_once(path, partial(self._spent, BUDGET_ARMS[name], seed))
            print(f"{len(found['texts']):,} calls, best {max(found['values']):.3f}, {found['CPU s']:.0f} s", flush=True)

    def _spent(self, arm: Arm, seed: int) -> dict[str, Any]:
        """What an arm asked and was answered, in order, and the processor seconds that it took."""
        before = process_time()
        value_of = self._answers(arm, seed)
        return {"CPU s": process_time() - before, "texts": list(value_of), "values": list(value_of.values())}

    def _answers(self, arm: Arm, seed: int) -> dict[str, float]:
        """Text -> value of all that an arm asks about, in order."""
        from textgan_env.evaluation import stream_texts
        from textgan_env.rewards import AskedObjective, BudgetSpentError

        value_of: dict[str, float] = {}

        def noted(texts: Sequence[str]) -> "Floats":
            """What the objective says of some texts, which is written down."""
            value_of.update(dict.fromkeys(texts, self.objective.low))  # where it raises, this counts
            value_B: Floats = self.objective.score(texts)
            value_of.update(zip(texts, map(float, value_B), strict=True))
            return value_B

        objective, task = replace(self.objective, score=noted), self.start.task
        with suppress(BudgetSpentError):
            if not arm.agent:
                asked = AskedObjective(objective, task.text, budget=self.budget)
                texts = stream_texts(self.start.policy, task, _PATIENCE * self.budget, seed)
                while some := list(islice(texts, self.scale.batch_size)):
                    asked.values(some)
                return value_of
            config = replace(config_of(arm, self.start, self.scale), seed=seed, budget=self.budget)
            agent = class_of(arm.agent)(config, task)
            agent.asked.objective = objective
            for current in agent.schedule().after(0):
                for steps, step in current.steps(seed):
                    steps.run(step)
        return value_of

    def finished(self, seeds: Sequence[int]) -> dict[str, dict[int, dict[str, Any]]]:
        """Arm -> seed -> what was measured, as far as it is there."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for name in BUDGET_ARMS:
            for seed in seeds:
                path = part_path(self.folder, seed, name)
                if path.exists():
                    made = json.loads(path.read_text("utf-8"))
                    share_C = self.objective.desirability(np.asarray(made["values"], dtype=np.float64))
                    measured = measure(made["texts"], share_C, self.start.task, self.budget)
                    found.setdefault(name, {})[seed] = measured | {"CPU s": made["CPU s"]}
        return found


def measure(texts: Sequence[str], share_C: "Floats", task: "Task", budget: int) -> dict[str, Any]:
    """What the calls of an arm have found.

    Args:
        texts: What each call was about.
        share_C: What it was answered, 0 to 1.
        task: Says whether texts are molecules: then those of one molecule count once.
        budget: Calls that there were.
    """
    from textgan_env.ops.top import area, of_different, top_means
    from textgan_env.utils import molecules

    names: list[str | None] = list(texts)
    if task.language == "molecules":
        names = [None if mol is None else molecules.canonical(mol) for mol in molecules.read_molecules(texts)]
    share_C = of_different(share_C, names)
    means = {count: top_means(share_C, count) for count in TOPS}
    found: dict[str, Any] = {f"top {count}": float(mean_C[-1]) for count, mean_C in means.items()}
    found |= {f"AUC top {count}": area(mean_C, budget) for count, mean_C in means.items()}
    best = [texts[call] for call in np.argsort(-share_C, kind="stable")[:3]]
    different = len({*names} - {None})
    found |= {"calls": len(texts), "valid": sum(name is not None for name in names) / len(names)}
    found |= {"different": different, "best": best}
    every = max(1, budget // _POINTS)
    height_C = means[10][every - 1 :: every].tolist()
    return found | {"curve": {str((point + 1) * every): height for point, height in enumerate(height_C)}}


# ----------------------------------------------------------------------------------------------------
# What is told
def report(name: str, found: Mapping[str, Found], part: Parts) -> None:
    """The table, the result files and the picture of the finished arms."""
    require(any(found.values()), "no arm is finished")
    rows = [row for goal, arms in found.items() for row in rows_of(goal, arms)]
    print(table(rows))
    more = {"task": part.start.task.name, "scale": asdict(part.scale) | {"budget": part.budget}, "goals": found}
    print(save(name, rows, notes=notes(part), more=more))
    draw(name, found)


def notes(part: Parts) -> str:
    """How the table was made, and what stands in it."""
    start, scale, epochs = part.start, part.scale, part.start.folder.about["config"].get("epochs")
    return (
        f"A budget of {part.budget:,} different texts that the objective may be asked about, those that are no "
        f"molecules counted; task '{start.task.name}', all arms from one run of maximum likelihood ({epochs} epochs, "
        f"seed {start.seed}); the seeds are of the arms' draws. {scale.batch_size} texts a g-step, rate "
        f"{scale.learning_rate:g}, sigma {_REINVENT['sigma']:g} in REINVENT; best of 4 is learnt at 2e-3 in rounds of "
        f"{scale.g_steps} g-steps. top 1, 10, 100: mean of the best different molecules after the budget; AUC: mean "
        "over all calls of what that was until then, 0 to 1; calls that were not made have the last height. Means "
        "over seeds, from three seeds on with a 95 % interval. valid: share of the calls; different: molecules that "
        "were asked about; CPU s: processor seconds. The picture's band is the range over seeds."
    )


def rows_of(goal: str, arms: Found) -> Iterator[dict[str, Any]]:
    """The lines of a goal in the table."""
    from benchmarks.report import over_seeds

    for arm, seeds in arms.items():
        made = list(seeds.values())
        row: dict[str, Any] = {"goal": called(goal), "arm": arm, "seeds": len(made)}
        for key in (*(f"AUC top {count}" for count in TOPS), *(f"top {count}" for count in TOPS)):
            row[key] = over_seeds(tuple(one[key] for one in made))
        row["valid"] = fmean(one["valid"] for one in made)
        for key in ("calls", "different", "CPU s"):
            row[key] = round(fmean(one[key] for one in made))
        yield row


def called(goal: str) -> str:
    """What tables call a goal."""
    return next((name for name, objective in GOALS.items() if objective == goal), goal)


def draw_again(kept: Mapping[str, Any], path: Path) -> None:
    """Draw the picture of a kept result."""
    draw(path.stem, kept["goals"])


def draw(name: str, found: Mapping[str, Mapping[str, Mapping[Any, Mapping[str, Any]]]]) -> None:
    """The mean of the best 10 over calls: a panel a goal, a line an arm, the range over seeds as a band."""
    from textgan_env.ops.plots import learning_curve

    points: dict[int, dict[str, float]] = {}
    for goal, arms in found.items():
        for arm, seeds in arms.items():
            for calls in {calls for one in seeds.values() for calls in one["curve"]}:
                # An arm that stopped early keeps what it had.
                heights = [one["curve"].get(calls, one["top 10"]) for one in seeds.values()]
                row, key = points.setdefault(int(calls), {"calls": int(calls)}), f"{goal} {arm}"
                row |= {key: fmean(heights), f"{key} low": min(heights), f"{key} high": max(heights)}
    lines = {called(goal): {f"{goal} {arm}": arm for arm in BUDGET_ARMS} for goal in found}
    rows = [points[calls] for calls in sorted(points)]
    title = "Mean of the best 10 different molecules so far"
    learning_curve(rows, image_path(name), lines=lines, x="calls", x_label="calls of the objective", title=title)


if __name__ == "__main__":
    main()
