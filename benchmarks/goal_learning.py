"""How the arms of `benchmarks.goals` learn, and which real texts reach the goal.

Loads no torch when imported, so that the command's help is there at once.
"""

from time import process_time
from typing import TYPE_CHECKING, Any

from agents import class_of
from benchmarks.goal_arms import Arm, Scale, config_of
from benchmarks.goal_measures import chosen_by, sees_validity

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.objectives import Objective
    from textgan_env.policies import PolicyModule
    from textgan_env.show.saved import SavedRun
    from textgan_env.tasks import Task


def learn(arm: Arm, start: "SavedRun", scale: Scale) -> tuple["PolicyModule", dict[str, Any]]:
    """Train an arm from the start; returns its policy, in eval mode, and what that took."""
    task = start.task if arm.selected == 1 else selected(arm, start.task, scale)
    agent = class_of(arm.agent)(config_of(arm, start, scale), task)
    if arm.agent == "mle":
        for policy in (agent.policy, agent.average.policy):
            policy.load_state_dict(start.policy.state_dict())
    elif scale.d_share < 1:
        agent.d_task = start.task.divided(scale.d_share, _generator(start.seed))[1]
    d_sees = getattr(agent, "d_learns", False) and start.task.language
    found: dict[str, Any] = {}
    spent = 0.0
    for current in agent.schedule().after(0):
        before = process_time()
        for steps, step in current.steps(start.seed):
            steps.run(step)
        spent += process_time() - before
        if d_sees and current.phase.name == "pretrain_d":
            found["D on validity before"] = sees_validity(agent.discriminator, start)
    asked = getattr(agent, "asked", None)
    calls = 0 if asked is None else asked.calls
    if arm.selected > 1 and not arm.shuffled:
        calls = len(start.task.split("train"))
    found |= {"calls": calls, "CPU s": spent}
    if d_sees:
        found["D on validity"] = sees_validity(agent.discriminator, start)
    return (agent.average.policy if arm.agent == "mle" else agent.policy).eval(), found


def _generator(seed: int) -> Any:
    from textgan_env.ops.sampling import derived_generator

    return derived_generator(seed, "texts of D")


# ----------------------------------------------------------------------------------------------------
# Real texts that reach the goal
def real_texts(task: "Task", objective: "Objective", of: int, most: int) -> list[str]:
    """Real texts that no arm has learnt from, the best of each ``of`` that are far apart in the split.

    Args:
        task: Gives them.
        objective: The goal.
        of: n of best-of-n.
        most: Texts at most, but for what a whole stride leaves over.
    """
    tokens_BT = task.split("valid").tokens_BT
    tokens_BT = tokens_BT[:: max(1, len(tokens_BT) // (of * most))]
    return [task.text(tokens) for tokens in tokens_BT[_best_rows(task, tokens_BT, objective, of)].tolist()]


def selected(arm: Arm, task: "Task", scale: Scale) -> "Task":
    """The task with the best of each so many training texts alone, or with any of them where numbers are shuffled."""
    from textgan_env.objectives import typed_objective

    objective = chosen_by(arm, typed_objective(scale.objective))
    return task.learnt_from(_best_rows(task, task.split("train").tokens_BT, objective, arm.selected))


def _best_rows(task: "Task", tokens_BT: "Tensor", objective: "Objective", of: int) -> "Tensor":
    """The rows of the best of each ``of`` texts, int64; a group's are far apart, since a file may be in order."""
    import torch

    from textgan_env.objectives import ask_values

    groups = len(tokens_BT) // of
    values = ask_values(objective, [task.text(tokens) for tokens in tokens_BT[: groups * of].tolist()])
    best_G = torch.tensor(values, dtype=torch.float64).view(of, groups).argmax(0)
    return best_G * groups + torch.arange(groups)
