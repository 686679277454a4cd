"""The arms of `benchmarks.goals`: how each begins from the same policy, how it learns, and what is measured of it.

Loads no torch when imported, so that the command's help is there at once.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import process_time
from typing import TYPE_CHECKING, Any

from agents import class_of, module_of

if TYPE_CHECKING:
    from textgan_env.objectives import Objective
    from textgan_env.policies import PolicyModule
    from textgan_env.show.saved import SavedRun
    from textgan_env.tasks import Task

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
        shuffled: Of best-of-n: the objective's numbers are shuffled over the texts.
        writer: The arm whose policy writes; "": its own, or the start.
        rounds: In how many rounds it takes its g-steps; 0: in as many as the others.
        times: How many times as many g-steps it takes.
        real_steps: Whether a step of maximum likelihood follows each g-step.
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


def learn(arm: Arm, start: "SavedRun", scale: Scale) -> tuple["PolicyModule", dict[str, Any]]:
    """Train an arm from the start; returns its policy, in eval mode, and what that took."""
    agent = class_of(arm.agent)(config_of(arm, start, scale), start.task)
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
    found |= {"calls": 0 if asked is None else asked.calls, "CPU s": spent}
    if d_sees:
        found["D on validity"] = sees_validity(agent.discriminator, start)
    return (agent.average.policy if arm.agent == "mle" else agent.policy).eval(), found


def config_of(arm: Arm, start: "SavedRun", scale: Scale) -> Any:
    """The options of an arm's agent."""
    module, task = module_of(arm.agent), start.task
    shared = {"seed": start.seed, "device": "cpu", "task": task.name}
    if arm.agent == "mle":
        sizes = {name: start.policy.config()[name] for name in ("embed_size", "hidden_size")}
        how = {"epochs": scale.longer, "learning_rate": 2e-3, "lr_schedule": "cosine", "batch_size": 128}
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


def _generator(seed: int) -> Any:
    from textgan_env.ops.sampling import derived_generator

    return derived_generator(seed, "texts of D")


def sees_validity(discriminator: Any, start: "SavedRun", count: int = 1_000) -> float:
    """AUC of a discriminator's logit for texts of the start that keep the rules against those that do not.

    .5 where it cannot tell, or where all texts are of one kind.
    """
    import torch

    from textgan_env.evaluation import generate_texts
    from textgan_env.ops.metrics import roc_auc
    from textgan_env.ops.sampling import evaluating

    tokens_BT = generate_texts(start.policy, start.task, count, start.seed).tokens_BT
    valid_B = torch.tensor(keeps_rules(start.task, [start.task.text(tokens) for tokens in tokens_BT.tolist()]))
    with torch.no_grad(), evaluating(discriminator):
        logit_B = discriminator.logits(tokens_BT)
    return roc_auc(logit_B[valid_B], logit_B[~valid_B]) if 0 < int(valid_B.sum()) < count else 0.5


def keeps_rules(task: "Task", texts: Sequence[str]) -> list[bool]:
    """Which texts are molecules, or texts of the grammar; all of them where there are no rules."""
    from textgan_env.evaluation.molecules import valid_molecules
    from textgan_env.tasks import GrammarTask

    if isinstance(task, GrammarTask):
        return [task.parses(text) for text in texts]
    return valid_molecules(texts) if task.language == "molecules" else [True] * len(texts)


# ----------------------------------------------------------------------------------------------------
# What is measured
def measure(
    policy: "PolicyModule", arm: Arm, start: "SavedRun", objective: "Objective", scale: Scale
) -> dict[str, Any]:
    """What the delivered texts of an arm are, and how probable real text is to it."""
    from textgan_env.evaluation import nll

    task, writer = start.task, policy if arm.temperature == 1 else policy.at_temperature(arm.temperature)
    texts = list(delivered(writer, arm, task, objective, strings_of(arm, scale), start.seed))
    found = of_texts(texts, task, objective, scale.samples)
    if arm.best_of == 1:
        real_BT = task.split("test").tokens_BT
        found["NLL-test"] = nll(writer, real_BT, task.scored(real_BT))[0]
        found |= of_law(writer, task, scale.samples, start.seed)
    return found


def strings_of(arm: Arm, scale: Scale) -> int:
    """How many texts of an arm are delivered: fewer where each costs several calls, and nearly all are valid."""
    return scale.strings if arm.best_of == 1 or arm.shuffled else max(2, round(0.6 * scale.strings))


def of_texts(texts: Sequence[str], task: "Task", objective: "Objective", samples: int) -> dict[str, Any]:
    """How many texts keep the rules, what they reach, how near to real ones they are."""
    import numpy as np

    from textgan_env.evaluation.rules import rule_values

    kept = [text for text, valid in zip(texts, keeps_rules(task, texts), strict=True) if valid]
    some = (kept if task.language == "molecules" else list(texts))[:samples]
    found: dict[str, Any] = {"valid": len(kept) / len(texts)} if task.language else {}
    found |= {"measured": len(some), "texts": some[:3]}
    if not some:
        return found
    value_B = np.asarray(objective(some), dtype=float)
    found |= {"mean": float(value_B.mean()), "reached": float((value_B >= objective.high).mean())}
    found |= {"top 100": top(some, value_B.tolist(), 100)} | spread(some)
    if task.vocabulary is not None and not task.language and len(some) > 1:
        found |= of_words(some, task)
    if task.language == "molecules" and len(some) > 1:
        values, missing = rule_values(task, some, "test")
        found |= {name: value for name, value in values.items() if name != "valid"} | {"missing": missing}
        found |= {"unique_10k": unique(kept), "of": min(10_000, len(kept))}
    return found


def of_words(texts: Sequence[str], task: "Task") -> dict[str, float]:
    """How texts of words are like real ones, and like each other.

    The real ones are the test split; the Frechet distance is of sentence embeddings, where the extra embed is there.
    """
    from benchmarks.text_scores import embedding_distance
    from textgan_env.evaluation import score_texts
    from textgan_env.utils.errors import MissingDataError

    values = score_texts(texts, task).values
    found = {name: values[name] for name in ("bleu_4", "self_bleu_4")}
    try:
        return found | {"frechet": embedding_distance(task, texts)}
    except MissingDataError:
        return found


def real_texts(task: "Task", objective: "Objective", of: int, most: int) -> list[str]:
    """Real texts that no arm has learnt from, the best of each ``of`` that are far apart in the split.

    A file may be in some order, so neither the groups nor what stands in them are neighbours.

    Args:
        task: Gives them.
        objective: The goal.
        of: n of best-of-n.
        most: Texts at most.
    """
    from textgan_env.evaluation import stream_best

    tokens_BT = task.split("valid").tokens_BT
    tokens_BT = tokens_BT[:: max(1, len(tokens_BT) // (of * most))]
    groups = len(tokens_BT) // of
    spread_BT = tokens_BT[: groups * of].unflatten(0, (of, groups)).transpose(0, 1).flatten(0, 1)
    return list(stream_best(map(task.text, spread_BT.tolist()), objective, of))


def delivered(
    policy: "PolicyModule", arm: Arm, task: "Task", objective: "Objective", count: int, seed: int
) -> Iterator[str]:
    """Texts of an arm as a person would get them: of best-of-n the best of each n."""
    from textgan_env.evaluation import stream_best, stream_texts

    texts = stream_texts(policy, task, arm.best_of * count, seed)
    # Numbers that are shuffled over texts keep any of the n with equal probability: the first will do.
    return stream_best(texts, (lambda some: [0.0] * len(some)) if arm.shuffled else objective, arm.best_of)


def spread(texts: Sequence[str]) -> dict[str, float]:
    """Share of different texts, and of the one that comes most often."""
    return {"unique": len(set(texts)) / len(texts), "commonest": Counter(texts).most_common(1)[0][1] / len(texts)}


def unique(texts: Sequence[str]) -> float:
    """Share of different molecules among the first 10,000 valid ones, or among those that there are."""
    from textgan_env.evaluation.molecules import unique_at
    from textgan_env.utils import molecules

    return unique_at([molecules.canonical(mol) for mol in molecules.read_molecules(texts[:10_000])], 10_000)


def top(texts: Sequence[str], values: Sequence[float], count: int) -> float | None:
    """Mean of the best values of different texts, MolOpt's top-100; None where there are not as many."""
    best = sorted(dict(zip(texts, values, strict=False)).values(), reverse=True)[:count]
    return sum(best) / count if len(best) == count else None


def of_law(policy: "PolicyModule", task: "Task", samples: int, seed: int) -> dict[str, float]:
    """Cover, and fit given that a text is valid, where the law is known; nats a token."""
    from textgan_env.evaluation import generate_texts, likelihoods

    if task.oracle is None:
        return {}
    tokens_BT = generate_texts(policy, task, samples, seed).tokens_BT
    values = likelihoods(policy, task, task.split("test").tokens_BT, tokens_BT, "test")
    return {name: values[name] for name in ("cover", "fit_valid") if name in values}
