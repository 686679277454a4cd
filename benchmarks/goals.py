"""How far a goal is reached, and what it costs in text: rivals, reinforcement learning, guards, controls.

    python -m benchmarks.goals --pretrained runs/mle-coco-1 --objective "product:has:red,blue;length:12"

Every arm begins as the policy of one run of maximum likelihood, and takes as many g-steps of as many texts.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

from agents import class_of, module_of
from benchmarks.results import command, show

if TYPE_CHECKING:
    from textgan_env.objectives import Objective
    from textgan_env.policies import PolicyModule
    from textgan_env.tasks import Task

#: Arm -> module of the agent, and the options that make it what it is. The objective alone, unless something is said.
ARMS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "REINFORCE": ("seqgan", {"kl_coef": 0.0}),
    "REINFORCE, objective shuffled (control)": ("seqgan", {"kl_coef": 0.0, "objective_control": "shuffled"}),
    "guard: KL .05": ("seqgan", {"kl_coef": 0.05}),
    "guard: REINVENT, sigma 20": ("reinvent", {"sigma": 20.0}),
    "guard: a step of maximum likelihood a g-step": ("seqgan", {"kl_coef": 0.0, "mle_steps": 10}),
    "guard: the same at rate 5e-4": ("seqgan", {"kl_coef": 0.0, "mle_steps": 10, "mle_learning_rate": 5e-4}),
    "guard: repeat decay .5": ("seqgan", {"kl_coef": 0.0, "repeat_decay": 0.5}),
    "guard: D of weight .5 (ORGAN)": ("seqgan", {"kl_coef": 0.0, "objective_weight": 0.5}),
    "the same, D shuffled (control)": ("seqgan", {"kl_coef": 0.0, "objective_weight": 0.5, "control": "shuffled"}),
    "best of 4, learnt": ("expert_iteration", {"search": "best", "proposals": 4, "real_share": 0.0}),
    "best of 4, objective shuffled (control)": (
        "expert_iteration",
        {"search": "best", "proposals": 4, "real_share": 0.0, "objective_control": "shuffled"},
    ),
}


@dataclass(frozen=True)
class Options:
    """Chase a goal with and without guards."""

    pretrained: Path
    """A run of maximum likelihood that every arm begins as."""
    objective: str
    """NAME:ARGUMENT, or FILE.py:NAME."""
    rounds: int = 4
    """Rounds: g-steps, then a d-step where D has a part."""
    g_steps: int = 10
    """g-steps in a round."""
    batch_size: int = 64
    """Texts a g-step."""
    learning_rate: float = 1e-3
    """Of g-steps."""
    samples: int = 1000
    """Texts of each arm that are measured."""
    seeds: int = 1
    """Seeds of the draws; the pre-trained policy is the same."""
    only: tuple[str, ...] = ()
    """Arms; none: all."""
    name: str = "goals"
    """Of the result files."""


@command
def main(options: Options) -> None:
    """The command."""
    from textgan_env import load
    from textgan_env.objectives import typed_objective

    saved, objective = load(options.pretrained), typed_objective(options.objective)
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        if not options.only:
            rows.append({"arm": "maximum likelihood", **measure(saved.policy, saved.task, objective, options, seed)})
            rows.append({"arm": "best of 4", **measure(saved.policy, saved.task, objective, options, seed, best_of=4)})
        for name in options.only or ARMS:
            print(f"{name}, seed {seed} ...", flush=True)
            rows.append({"arm": name, **learn(name, saved.task, objective, options, seed)})
            print(rows[-1], flush=True)
    show(options.name, rows, notes=notes(options, saved.task))


def notes(options: Options, task: "Task") -> str:
    """How the table was made."""
    return (
        f"Objective {options.objective} on task '{task.name}', {options.seeds} seed(s): {options.rounds} rounds of "
        f"{options.g_steps} g-steps of {options.batch_size} texts at rate {options.learning_rate:g} from the same "
        f"policy of maximum likelihood; {options.samples} texts of each. mean, reached: of the objective; unique: "
        "share of different texts; commonest: share of the text that comes most often; NLL-valid: nats a token of real "
        "text; calls: different texts that the objective was asked about in training, and for 1,000 delivered texts; "
        "CPU s: of training."
    )


def learn(name: str, task: "Task", objective: "Objective", options: Options, seed: int) -> dict[str, Any]:
    """Train an arm, and measure it."""
    agent, changes = ARMS[name]
    config = module_of(agent).PRESETS["fast"](task.name)
    sizes = {"rounds": options.rounds, "g_steps": options.g_steps, "batch_size": options.batch_size}
    given = {"pretrained": options.pretrained, "objective": options.objective, "seed": seed, "device": "cpu"}
    if agent == "seqgan":
        given |= {"rollouts": 0, "transform": "prob"}
    rates = {"learning_rate": options.learning_rate, "d_pretraining": 1, "objective_weight": 1.0}
    learner = class_of(agent)(replace(config, **given, **sizes, **{**rates, **changes}), task)
    before = process_time()
    for current in learner.schedule().after(0):
        for steps, step in current.steps(seed):
            steps.run(step)
    spent = process_time() - before
    found = measure(learner.policy.eval(), task, objective, options, seed)
    return found | {"calls": learner.asked.calls, "CPU s": spent}


def measure(
    policy: "PolicyModule", task: "Task", objective: "Objective", options: Options, seed: int, *, best_of: int = 1
) -> dict[str, Any]:
    """What texts of a policy reach, and how they are; of best-of-n, those that are delivered."""
    import numpy as np

    from textgan_env.evaluation import nll, stream_best, stream_texts

    texts = list(stream_best(stream_texts(policy, task, best_of * options.samples, seed), objective, best_of))
    value_B, valid_BT = np.asarray(objective(texts), dtype=float), task.split("valid").tokens_BT
    found: dict[str, Any] = {
        "mean": float(value_B.mean()),
        "reached": float((value_B >= objective.high).mean()),
        "unique": len(set(texts)) / len(texts),
        "commonest": Counter(texts).most_common(1)[0][1] / len(texts),
        "NLL-valid": nll(policy, valid_BT, task.scored(valid_BT))[0] if best_of == 1 else None,
        "per 1,000": 0 if best_of == 1 else 1000 * best_of,
    }
    return found | {"texts": " / ".join(texts[:3])}


if __name__ == "__main__":
    main()
