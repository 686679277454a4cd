"""The arms of `benchmarks.goals`: how each begins from the same policy, how it learns, and what is measured of it.

Loads no torch when imported, so that the command's help is there at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agents import module_of

if TYPE_CHECKING:
    from textgan_env.show.saved import SavedRun

#: The arm that all others begin as.
START = "maximum likelihood"
#: Real text that no arm has learnt from, measured in the same way: what is as near as can be.
REAL = "real text, valid split"
#: Real text, and the best of each n of it: what the goal costs where the text is as real as it can be. Row -> n.
REALS: Mapping[str, int] = {REAL: 1, f"{REAL}, best of 2": 2, f"{REAL}, best of 4": 4}
#: The arm that is made of the start's texts without another measurement: those that break no rule.
REJECTED = "maximum likelihood, invalid ones rejected"


@dataclass(frozen=True)
class Arm:
    """One way toward the goal.

    Attributes:
        family: The line of the picture that it is a point of.
        agent: Module of the agent that learns; "": the start writes as it is.
        changes: Options that make the arm what it is.
        control: The arm beside it whose reward knows nothing of the text; "": nothing paid it, or it is a control.
        best_of: Texts that are written for each that is delivered.
        temperature: At which it writes.
        shuffled: Of best-of-n and of what is selected: the objective's numbers are shuffled over the texts.
        writer: The arm whose policy writes; "": its own, or the start.
        rounds: In how many rounds it takes its g-steps; 0: in as many as the others.
        times: How many times as many g-steps it takes.
        real_steps: Whether a step of maximum likelihood follows each g-step.
        selected: Of maximum likelihood: it learns the best of each so many training texts alone.
    """

    family: str
    agent: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    control: str = ""
    best_of: int = 1
    temperature: float = 1.0
    shuffled: bool = False
    writer: str = ""
    rounds: int = 0
    times: int = 1
    real_steps: bool = False
    selected: int = 1


_ALONE = {"kl_coef": 0.0}
_WITH_D = {"kl_coef": 0.0, "objective_weight": 0.5}
_LEARNT = {"search": "best", "proposals": 4, "real_share": 0.0, "learning_rate": 2e-3}
_SLOWLY = {"learning_rate": 5e-4}
_RATE = {"learning_rate": 2e-4}
_NO_GOAL = {"objective_control": "shuffled"}
_NO_D = {"control": "shuffled"}
# Its critic reads token by token: to read each prefix anew would take many times as long.
_PPO = {"kind": "recurrent", "objective_weight": 1.0}
#: Name -> arm, what matters most first: a command that is killed has made those above the others.
ARMS: Mapping[str, Arm] = {
    START: Arm("temperature"),
    "best of 4": Arm("best of n", best_of=4, control="best of 4, objective shuffled"),
    "best of 4, objective shuffled": Arm("control", best_of=4, shuffled=True),
    "best of 4, learnt in rounds": Arm(
        "best of 4, learnt", "expert_iteration", _LEARNT, "best of 4, learnt in rounds, objective shuffled"
    ),
    "best of 4, learnt in rounds, objective shuffled": Arm("control", "expert_iteration", _LEARNT | _NO_GOAL),
    "best of 4, learnt once": Arm(
        "best of 4, learnt", "expert_iteration", _LEARNT,
        "best of 4, learnt in rounds, objective shuffled", rounds=1,
    ),
    "REINFORCE": Arm("KL", "seqgan", _ALONE, "REINFORCE, objective shuffled"),
    "REINFORCE, objective shuffled": Arm("control", "seqgan", _ALONE | _NO_GOAL),
    "KL .05": Arm("KL", "seqgan", {"kl_coef": 0.05}, "KL .05, objective shuffled"),
    "KL .05, objective shuffled": Arm("control", "seqgan", {"kl_coef": 0.05} | _NO_GOAL),
    "ORGAN, D .5": Arm("D", "seqgan", _WITH_D, "ORGAN, D .5, D shuffled"),
    "ORGAN, D .5, D shuffled": Arm("D shuffled", "seqgan", _WITH_D | _NO_D),
    "KL .02": Arm("KL", "seqgan", {"kl_coef": 0.02}, "KL .05, objective shuffled"),
    "KL .1": Arm("KL", "seqgan", {"kl_coef": 0.1}, "KL .05, objective shuffled"),
    "REINVENT, sigma 20": Arm("REINVENT", "reinvent", {"sigma": 20.0}, "REINVENT, sigma 20, objective shuffled"),
    "REINVENT, sigma 20, objective shuffled": Arm("control", "reinvent", {"sigma": 20.0} | _NO_GOAL),
    "PPO": Arm("PPO", "ppo", _PPO, "PPO, objective random"),
    # Stable-Baselines3 steps through texts of different lengths, whose numbers cannot be shuffled.
    "PPO, objective random": Arm("control", "ppo", _PPO | {"objective_control": "random"}),
    "ORGAN, D .5, objective shuffled": Arm("control", "seqgan", _WITH_D | _NO_GOAL),
    "SeqGAN: D alone": Arm("D", "seqgan", {"kl_coef": 0.0, "objective": None}, "SeqGAN: D alone, D shuffled"),
    "SeqGAN: D alone, D shuffled": Arm("D shuffled", "seqgan", {"kl_coef": 0.0, "objective": None} | _NO_D),
    "maximum likelihood, longer": Arm("longer", "mle"),
    "longer, on the best of 2 real texts": Arm(
        "selected", "mle", selected=2, control="longer, on any of 4 real texts"
    ),
    "longer, on the best of 4 real texts": Arm(
        "selected", "mle", selected=4, control="longer, on any of 4 real texts"
    ),
    "longer, on any of 4 real texts": Arm("control", "mle", selected=4, shuffled=True),
    "maximum likelihood, T=.8": Arm("temperature", temperature=0.8),
    "maximum likelihood, T=.6": Arm("temperature", temperature=0.6),
    "best of 2": Arm("best of n", best_of=2, control="best of 4, objective shuffled"),
    "best of 8": Arm("best of n", best_of=8, control="best of 4, objective shuffled"),
    "best of 4, learnt in rounds, T=.8": Arm(
        "best of 4, learnt", writer="best of 4, learnt in rounds", temperature=0.8,
        control="best of 4, learnt in rounds, objective shuffled, T=.8",
    ),
    "best of 4, learnt in rounds, objective shuffled, T=.8": Arm(
        "control", writer="best of 4, learnt in rounds, objective shuffled", temperature=0.8
    ),
    "best of 4, learnt once, rate 5e-4": Arm(
        "best of 4, learnt", "expert_iteration", _LEARNT | _SLOWLY,
        "best of 4, learnt once, rate 5e-4, objective shuffled", rounds=1,
    ),
    "best of 4, learnt once, rate 5e-4, objective shuffled": Arm(
        "control", "expert_iteration", _LEARNT | _SLOWLY | _NO_GOAL, rounds=1
    ),
    "best of 4, learnt once, rate 5e-4, 4 times as long": Arm(
        "best of 4, learnt", "expert_iteration", _LEARNT | _SLOWLY,
        "best of 4, learnt in 2 rounds, rate 5e-4, 4 times as long, objective shuffled", rounds=1, times=4,
    ),
    "best of 4, learnt in 2 rounds, rate 5e-4, 4 times as long": Arm(
        "best of 4, learnt", "expert_iteration", _LEARNT | _SLOWLY,
        "best of 4, learnt in 2 rounds, rate 5e-4, 4 times as long, objective shuffled", rounds=2, times=4,
    ),
    "best of 4, learnt in 2 rounds, rate 5e-4, 4 times as long, objective shuffled": Arm(
        "control", "expert_iteration", _LEARNT | _SLOWLY | _NO_GOAL, rounds=2, times=4
    ),
    "KL .05, rate 2e-4": Arm(
        "KL, slowly", "seqgan", _RATE | {"kl_coef": 0.05}, "KL .05, rate 2e-4, objective shuffled"
    ),
    "KL .05, rate 2e-4, objective shuffled": Arm("control", "seqgan", _RATE | {"kl_coef": 0.05} | _NO_GOAL),
    "REINFORCE, rate 2e-4": Arm("KL, slowly", "seqgan", _RATE | _ALONE, "KL .05, rate 2e-4, objective shuffled"),
    "ORGAN, D .5, rate 2e-4": Arm("D, slowly", "seqgan", _RATE | _WITH_D, "ORGAN, D .5, rate 2e-4, D shuffled"),
    "ORGAN, D .5, rate 2e-4, D shuffled": Arm("D shuffled, slowly", "seqgan", _RATE | _WITH_D | _NO_D),
    "ORGAN, D .5, conv": Arm("other D", "seqgan", _WITH_D | {"discriminator": "conv"}, "ORGAN, D .5, conv, D shuffled"),
    "ORGAN, D .5, conv, D shuffled": Arm("D shuffled", "seqgan", _WITH_D | {"discriminator": "conv"} | _NO_D),
    "ORGAN, D .5, recurrent": Arm(
        "other D", "seqgan", _WITH_D | {"discriminator": "recurrent"}, "ORGAN, D .5, recurrent, D shuffled"
    ),
    "ORGAN, D .5, recurrent, D shuffled": Arm(
        "D shuffled", "seqgan", _WITH_D | {"discriminator": "recurrent"} | _NO_D
    ),
    "ORGAN, D .3": Arm("D", "seqgan", {"kl_coef": 0.0, "objective_weight": 0.7}, "ORGAN, D .3, D shuffled"),
    "ORGAN, D .3, D shuffled": Arm("D shuffled", "seqgan", {"kl_coef": 0.0, "objective_weight": 0.7} | _NO_D),
    "ORGAN, D .7": Arm("D", "seqgan", {"kl_coef": 0.0, "objective_weight": 0.3}, "ORGAN, D .7, D shuffled"),
    "ORGAN, D .7, D shuffled": Arm("D shuffled", "seqgan", {"kl_coef": 0.0, "objective_weight": 0.3} | _NO_D),
    "REINFORCE, repeat decay .5": Arm(
        "repeat decay", "seqgan", _ALONE | {"repeat_decay": 0.5}, "REINFORCE, objective shuffled"
    ),
    "REINFORCE, a step of maximum likelihood a g-step": Arm(
        "real text", "seqgan", _ALONE, "REINFORCE, objective shuffled", real_steps=True
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """How large everything is; parts of another scale are other parts.

    Attributes:
        objective: NAME:ARGUMENT, or FILE.py:NAME.
        rounds: Rounds: g-steps, then a d-step where D has a part.
        g_steps: g-steps in a round.
        batch_size: Texts a g-step.
        learning_rate: Of g-steps.
        d_share: Share of the training texts that D learns from in a d-step, beside as many of G.
        longer: Epochs of maximum likelihood that the start is trained longer.
        strings: Texts of each arm that are delivered; six tenths as many with best-of-n.
        samples: Texts, of molecules valid ones, that everything but ``valid`` and ``unique_10k`` is measured of.
    """

    objective: str
    rounds: int
    g_steps: int
    batch_size: int
    learning_rate: float
    d_share: float
    longer: int
    strings: int
    samples: int


def config_of(arm: Arm, start: "SavedRun", scale: Scale) -> Any:
    """The options of an arm's agent."""
    module, task = module_of(arm.agent), start.task
    shared = {"seed": start.seed, "device": "cpu", "task": task.name}
    if arm.agent == "mle":
        sizes = {name: start.policy.config()[name] for name in ("embed_size", "hidden_size")}
        how = {"epochs": scale.longer * arm.selected, "learning_rate": 2e-3, "lr_schedule": "cosine", "batch_size": 128}
        return replace(module.PRESETS["fast"](task.name), **shared, **sizes, **how, dropout=0.1)
    rounds = arm.rounds or scale.rounds
    g_steps = scale.rounds * scale.g_steps * arm.times // rounds
    given: dict[str, Any] = {"pretrained": start.folder.path, "objective": scale.objective, "objective_weight": 1.0}
    steps, texts = ("learn_steps", "envs") if arm.agent == "ppo" else ("g_steps", "batch_size")
    given |= {"rounds": rounds, steps: g_steps, texts: scale.batch_size, "d_pretraining": 1}
    given |= {"rollouts": 0, "transform": "prob"} if arm.agent == "seqgan" else {}
    given |= {"mle_steps": g_steps, "mle_learning_rate": scale.learning_rate} if arm.real_steps else {}
    given["learning_rate"] = scale.learning_rate
    return replace(module.PRESETS["fast"](task.name), **{**shared, **given, **arm.changes})
