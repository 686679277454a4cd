"""What a job of the suite measures: the policies of an arm at temperature 1, and along their temperatures.

`BUILDS` makes policies without training, by the names that `benchmarks.arms.Arm.build` says: label -> policy.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from torch import Tensor

from benchmarks.text_scores import about, frechet_scores, lstm_scores
from textgan_env.evaluation import diversity, evaluate, likelihoods, nll, overlaps
from textgan_env.ops.sampling import derived_seed
from textgan_env.policies import Decoding, EnsemblePolicy, MemoriserPolicy, MixturePolicy, PolicyModule, UniformPolicy
from textgan_env.rewards import Keys, Texts, generate
from textgan_env.tasks import Task, fit_ngram

Point = dict[str, float]
Policies = dict[str, PolicyModule]

# Of the sweep: the ends, how far apart neighbours in the plane (cover, fit) may lie, and how many points at most.
HOTTEST, COLDEST, GAP, MOST_POINTS = 1.2, 0.5, 0.1, 40
# On text, where neither cover nor fit is known.
TEXT_TEMPERATURES = (1.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
COLD, COLD_SHARES = 0.4, (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Sizes:
    """How much is written to be measured.

    Attributes:
        samples: Texts at temperature 1.
        curve: Texts at every temperature of a sweep, written and real ones.
        bleu: Texts that BLEU, Self-BLEU and the Frechet distances are taken of.
        read: Texts that an LSTM of the language-model scores reads, at most.
        gap: Nats between neighbours on the curve.
    """

    samples: int
    curve: int
    bleu: int
    read: int
    gap: float = GAP


SIZES = {
    "smoke": Sizes(200, 100, 50, 50, gap=1.0),
    "fast": Sizes(10_000, 2_000, 2_000, 1_000),
    "paper": Sizes(10_000, 10_000, 2_000, 1_000),
}


# ----------------------------------------------------------------------------------------------------
# Policies without training
def _kind(task: Task) -> dict[str, Any]:
    """What a policy must know of its task."""
    return {"vocab_size": task.vocab_size, "start_token": task.start_token, "forbidden": task.forbidden}


def uniform(task: Task) -> UniformPolicy:
    """Every token alike."""
    return UniformPolicy(**_kind(task))


def plain_policies(task: Task) -> Policies:
    """What other policies are shown beside."""
    return {"uniform tokens": uniform(task), "unigram": fit_ngram(task, order=1), "bigram": fit_ngram(task, order=2)}


def top_k(task: Task, members: Sequence[PolicyModule]) -> Policies:
    """Some k."""
    return {f"k={k}": members[0].with_decoding(Decoding(top_k=k)) for k in (2, 10, 100, 1000) if k < task.vocab_size}


def nucleus(_: Task, members: Sequence[PolicyModule]) -> Policies:
    """Some p."""
    return {f"p={p}": members[0].with_decoding(Decoding(top_p=p)) for p in (0.5, 0.8, 0.95)}


def mixture(_: Task, members: Sequence[PolicyModule]) -> Policies:
    """Two temperatures, some shares of the cold one."""
    parts = [members[0].with_decoding(Decoding()), members[0].with_decoding(Decoding(COLD))]
    return {f"e={share}": MixturePolicy(parts, [1 - share, share]) for share in COLD_SHARES}


#: Name -> function of the task and of the trained policies that it builds from.
BUILDS: dict[str, Callable[[Task, Sequence[PolicyModule]], Policies]] = {
    "uniform": lambda task, _: {"": uniform(task)},
    "unigram": lambda task, _: {"": fit_ngram(task, order=1)},
    "ngram": lambda task, _: {"": fit_ngram(task, order=3)},
    "memoriser": lambda task, _: {"": MemoriserPolicy(task.writable("train"), **_kind(task))},
    "ensemble": lambda _, members: {"": EnsemblePolicy(members)},
    "top_k": top_k,
    "nucleus": nucleus,
    "mixture": mixture,
}


# ----------------------------------------------------------------------------------------------------
# Measures
def real_row(task: Task, sizes: Sizes, seed: int) -> dict[str, Any]:
    """The row of real text: the oracle's, or as many training texts as BLEU takes; others for another seed."""
    if task.oracle is not None:
        assert isinstance(task.oracle, PolicyModule)
        return row(task.oracle, task, sizes, seed)
    texts_BT = task.split("train").tokens_BT.roll(-seed * sizes.bleu, 0)[: sizes.bleu]
    values, missing, how = text_scores(texts_BT, task, sizes)
    values = overlaps(task, texts_BT, "test", sizes.bleu) | values
    # They are copies by the way they were chosen: no measure of a policy.
    shown = {name: value for name, value in values.items() if not name.startswith("copied")}
    return _row(shown, missing, how, task, texts_BT)


def row(policy: PolicyModule, task: Task, sizes: Sizes, seed: int) -> dict[str, Any]:
    """Every measure of a policy at its own decoding, with twenty texts as they came.

    Args:
        policy: What is measured.
        task: On which its references come from the test split.
        sizes: How many texts.
        seed: Of the texts.

    Returns:
        "values", "missing" (name -> why), "samples".
    """
    found = evaluate(policy, task, samples=sizes.samples, bleu_samples=sizes.bleu, seed=seed)
    valid_BT = task.split("valid").tokens_BT
    values = dict(found.values) | {"nll_valid": nll(policy, valid_BT, task.scored(valid_BT))[0]}
    scores, missing, how = text_scores(found.tokens_BT, task, sizes)
    values |= scores | {"tokens_per_second": writing_speed(policy, task, min(sizes.samples, 1000), seed)}
    return _row(values, {**found.missing, **missing}, {**found.settings, **how}, task, found.tokens_BT)


def _row(
    values: Mapping[str, float], missing: Mapping[str, str], settings: Mapping[str, object], task: Task,
    tokens_BT: Tensor,
) -> dict[str, Any]:  # fmt: skip
    """A row of finite values, the others are missing; with the first texts."""
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    missing = {name: "infinite or not defined" for name in values if name not in finite} | dict(missing)
    samples = [task.text(tokens) for tokens in tokens_BT[:20].tolist()]
    return {"values": finite, "missing": missing, "samples": samples, "settings": settings}


def text_scores(tokens_BT: Tensor, task: Task, sizes: Sizes) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
    """What `benchmarks.text_scores` says of texts of words: values, what is missing and why, and how they are measured.

    Texts without words have none of them, and nothing to be said about it.
    """
    if task.vocabulary is None:
        return {}, {}, {}
    values, missing = lstm_scores(task, tokens_BT, sizes.read)
    distances, none = frechet_scores(task, tokens_BT, sizes.bleu, sizes.read)
    return values | distances, missing | none, about(task, len(tokens_BT), sizes.bleu, sizes.read)


def writing_speed(policy: PolicyModule, task: Task, texts: int, seed: int) -> float:
    """Tokens a second that a policy writes, many texts side by side."""
    began = time.perf_counter()
    lengths_B = written(policy, task, texts, derived_seed(seed, "speed")).lengths_B
    return float(lengths_B.sum()) / (time.perf_counter() - began)


def written(policy: PolicyModule, task: Task, texts: int, seed: int) -> Texts:
    """Fresh texts of a policy, all side by side."""
    keys = Keys.counted(seed, texts, device=policy.device)
    tokens_BT, lengths_B = generate(policy, keys, task.max_length, end_token=task.end_token)
    return Texts.finished(tokens_BT, lengths_B, keys, task.end_token)


def point(policy: PolicyModule, task: Task, sizes: Sizes, seed: int) -> Point:
    """The measures of one point on a curve: likelihoods on an oracle task, language-model scores and BLEU on text."""
    if task.oracle is None:
        found = evaluate(policy, task, samples=sizes.curve, bleu_samples=min(sizes.curve, sizes.bleu), seed=seed)
        return dict(found.values) | lstm_scores(task, found.tokens_BT, sizes.read)[0]
    tokens_BT = written(policy, task, sizes.curve, derived_seed(seed, "curve")).tokens_BT.cpu()
    real_BT = task.split("test").head(sizes.curve).tokens_BT
    values = likelihoods(policy, task, real_BT, tokens_BT, "test") | diversity(task, tokens_BT)
    return {name: value for name, value in values.items() if math.isfinite(value)}


def sweep(measure: Callable[[float], Point], gap: float = GAP) -> list[Point]:
    """Points of a curve over temperatures, as many as it takes to bring neighbours within ``gap`` of each other.

    Args:
        measure: Temperature -> measures; where they have no cover or no fit, fixed temperatures are taken.
        gap: Nats in the plane of cover and fit.

    Returns:
        Points by falling temperature, each with its "temperature".
    """
    found = {temperature: measure(temperature) for temperature in (HOTTEST, 1.0, COLDEST)}
    if any(not {"cover", "fit"} <= set(values) for values in found.values()):
        found |= {temperature: measure(temperature) for temperature in TEXT_TEMPERATURES if temperature not in found}
    while len(found) < MOST_POINTS and all({"cover", "fit"} <= set(values) for values in found.values()):
        low, high = max(pairwise(sorted(found)), key=lambda pair: _distance(found[pair[0]], found[pair[1]]))
        middle = round(math.sqrt(low * high), 4)
        if _distance(found[low], found[high]) <= gap or middle in found:
            break
        found[middle] = measure(middle)
    return [{"temperature": temperature, **found[temperature]} for temperature in sorted(found, reverse=True)]


def _distance(one: Point, other: Point) -> float:
    """Nats between two points in the plane of cover and fit."""
    return math.hypot(one["cover"] - other["cover"], one["fit"] - other["fit"])


def curve(policy: PolicyModule, task: Task, sizes: Sizes, seed: int, say: Callable[[str], None]) -> list[Point]:
    """The sweep of a policy; temperatures are in units of its own (an agent may have been made to write at another)."""

    def measure(temperature: float) -> Point:
        """The point of a temperature."""
        say(f"measuring at temperature {temperature:g} ...")
        decoding = replace(policy.decoding, temperature=policy.decoding.temperature * temperature)
        return point(policy.with_decoding(decoding), task, sizes, seed)

    return sweep(measure, sizes.gap)
