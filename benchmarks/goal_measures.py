"""What is measured of the arms of `benchmarks.goals`: how far texts keep the rules, reach the goal, are like real ones.

Loads no torch when imported, so that the command's help is there at once.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.goal_arms import Arm, Scale

if TYPE_CHECKING:
    from textgan_env.objectives import Objective
    from textgan_env.policies import PolicyModule
    from textgan_env.show.saved import SavedRun
    from textgan_env.tasks import Task


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


def delivered(
    policy: "PolicyModule", arm: Arm, task: "Task", objective: "Objective", count: int, seed: int
) -> Iterator[str]:
    """Texts of an arm as a person would get them: of best-of-n the best of each n."""
    from textgan_env.evaluation import stream_best, stream_texts

    texts = stream_texts(policy, task, arm.best_of * count, seed)
    return stream_best(texts, chosen_by(arm, objective), arm.best_of)


def chosen_by(arm: Arm, objective: "Objective") -> "Objective":
    """What says which of n texts is the best; of an arm whose numbers are shuffled it calls all of them alike."""
    from textgan_env.objectives import Objective

    # Numbers that are shuffled over texts keep any of the n with equal probability: the first will do.
    return Objective("any", lambda texts: [0.0] * len(texts)) if arm.shuffled else objective


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
