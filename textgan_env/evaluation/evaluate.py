"""How good is a policy: every measure that applies to a task, from one set of texts at one temperature."""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from textgan_env.evaluation.likelihood import LATENT_DRAWS, nll
from textgan_env.evaluation.protocols import PROTOCOLS, BleuProtocol
from textgan_env.evaluation.rules import fit_of_valid, rule_values, written_by_oracle
from textgan_env.objectives import ObjectiveLike
from textgan_env.ops import metrics
from textgan_env.ops.losses import masked_mean
from textgan_env.ops.metric_table import Need, evaluated, units_of, why_missing
from textgan_env.ops.metrics import Floats
from textgan_env.ops.sampling import derived_seed
from textgan_env.policies import LatentPolicy, Policy, PolicyModule
from textgan_env.rewards import AskedObjective, Keys, generate_scored
from textgan_env.tasks import Task
from textgan_env.tasks.base import MOST_CELLS
from textgan_env.utils.errors import require, require_known

#: Splits that no policy learns from.
HeldOut = Literal["valid", "test"]
#: Texts that BLEU and Self-BLEU are taken of.
BLEU_SAMPLES = 2_000
#: Texts that an objective is asked about.
OBJECTIVE_SAMPLES = 1_000
_N_GRAMS = range(2, 6)
_BY_ORACLE = ("nll_oracle", "nll_oracle_median", "fit")  # infinite where the oracle never writes a text of the policy


@dataclass(frozen=True)
class Evaluation:
    """What was measured, how, and what does not apply.

    Attributes:
        values: Name -> number. NLLs, ``cover`` and ``fit`` are in nats per token, the rest are shares from 0 to 1, but
            for what `textgan_env.ops.metric_table.METRICS` says another unit of.
        missing: Name -> why there is no such number.
        settings: Split, number of texts, seed, decoding, BLEU protocol (texts, references, smoothing, tokens).
        tokens_BT: int64; the texts that were measured.
        per_text: Name -> numerators and denominators, float64 (2, B), one of each text: the number is the ratio of
            their sums. Of measures that are such ratios, for `textgan_env.ops.confidence`.
    """

    values: Mapping[str, float]
    missing: Mapping[str, str]
    settings: Mapping[str, object]
    tokens_BT: Tensor = field(repr=False)
    per_text: Mapping[str, Floats] = field(repr=False, default_factory=dict)

    def table(self) -> str:
        """Rows of name and number; then, for each reason, the names that have none; then which are bounds."""
        width = max(map(len, self.values))
        rows = [f"{name:<{width}}  {value:.4f}" for name, value in self.values.items()]
        bounds = [str(self.settings["nll"])] if "nll" in self.settings else []
        return "\n".join([*rows, *missing_lines(self.missing), *bounds])

    @property
    def units(self) -> str:
        """What the numbers are in, for a person."""
        return units_of(self.values)

    def document(self) -> dict[str, Any]:
        """Values, what is missing and settings, as JSON can hold them."""
        return {"values": dict(self.values), "missing": dict(self.missing), "settings": dict(self.settings)}


def missing_lines(missing: Mapping[str, str]) -> list[str]:
    """For each reason a line with the names of the numbers that there are none of."""
    reasons = dict.fromkeys(missing.values())
    return [f"not {', '.join(name for name, why in missing.items() if why == reason)}: {reason}" for reason in reasons]


def evaluate(
    policy: Policy,
    task: Task,
    *,
    split: HeldOut = "test",
    samples: int = 10_000,
    bleu_samples: int = BLEU_SAMPLES,
    references: int | None = None,
    seed: int = 0,
    latent_draws: int = LATENT_DRAWS,
    objective: ObjectiveLike | AskedObjective | None = None,
) -> Evaluation:
    """Measure a policy; the same call gives the same numbers and changes nothing.

    With p the oracle, q the policy, T tokens a text, all in nats per token: ``nll_oracle`` (p scores q's texts),
    ``nll_test`` or ``nll_valid`` (q scores real texts of that split), ``nll_self`` (q scores its own), and, because
    both distributions are known, the exact divergences ``cover`` = KL(p||q) / T and ``fit`` = KL(q||p) / T, each from
    one set of texts so that its noise cancels. The pair (nll_oracle, nll_test) can be gamed by mixing two temperatures;
    cover and fit cannot.

    BLEU-n and Self-BLEU-n are nltk's sentence BLEU with smoothing method 1, all texts of the split as references;
    Self-BLEU leaves the text itself out. Unknown words of real text count for nothing in NLLs (no policy can write
    them) and match nothing in BLEU, not even each other.

    Args:
        policy: What is measured, at its own temperature and truncation.
        task: Gives real text, and the oracle where there is one.
        split: Whose texts are the references; never the training texts.
        samples: Texts the policy writes.
        bleu_samples: How many of them BLEU and Self-BLEU are taken of.
        references: How many texts of the split are read and compared with, from the first on; None: all.
        seed: Of those texts.
        latent_draws: Importance samples of z for each text, where the policy has a latent vector (see `nll`).
        objective: Also measure it: its mean, and the share of texts that have its best value.

    Returns:
        The numbers, and what does not apply and why.

    Raises:
        InputError: If the split is the training split, a number is below 2, or the policy writes other tokens.
    """
    _check_protocol(split, min(samples, bleu_samples))
    ours, its = policy.vocab_size, task.vocab_size
    require(ours == its, f"the policy writes V={ours} tokens, task '{task.name}' has V={its}")
    keys = Keys.counted(derived_seed(seed, "evaluate"), samples, device=policy.device)
    texts = generate_scored(policy, keys, task.max_length, end_token=task.end_token)
    tokens_BT, real_BT = texts.tokens_RT.cpu(), task.split(split).tokens_BT[:references]
    values, per_text = _likelihoods(policy, task, real_BT, tokens_BT, split, texts.logp_RT, latent_draws)
    protocol = replace(PROTOCOLS["ours"], references=references)
    compared, compared_texts = _overlaps(task, tokens_BT, split, bleu_samples, protocol)
    goal, how = _reached(objective, task, tokens_BT)
    by_rules, why_not = rule_values(task, [task.text(tokens_T) for tokens_T in tokens_BT.tolist()], split)
    values, per_text = values | compared | goal | by_rules, per_text | compared_texts
    missing = _unmet(task, split, _has(task, policy)) | why_not
    settings = how | {"seed": seed, "decoding": str(getattr(policy, "decoding", "the policy's own"))}
    if "fixed start" not in _has(task, policy):
        latent = isinstance(policy, LatentPolicy)
        way = f"from {latent_draws} importance samples of z" if latent else "under one random initial state"
        bounds = (
            f"nll_{split} and cover are upper bounds" if task.oracle is not None else f"nll_{split} is an upper bound"
        )
        settings["nll"] = f"{bounds} in expectation, {way} a text"
    result = _evaluation(values, missing, settings, task, tokens_BT, split, bleu_samples, protocol)
    return replace(result, per_text={name: sums for name, sums in per_text.items() if name in result.values})


def _reached(
    objective: ObjectiveLike | AskedObjective | None, task: Task, tokens_BT: Tensor
) -> tuple[dict[str, float], dict[str, object]]:
    """What an objective says of texts, and how it was asked; nothing where there is none."""
    if objective is None:
        return {}, {}
    asked = AskedObjective.of(objective, task.text)
    value_B = asked.values([task.text(tokens) for tokens in tokens_BT[:OBJECTIVE_SAMPLES].tolist()])
    values = {"objective": float(value_B.mean()), "objective_top": float((value_B >= asked.objective.high).mean())}
    return values, {"objective": asked.objective.name, "objective_samples": len(value_B)}


def score_texts(
    lines: Iterable[str],
    task: Task,
    *,
    split: HeldOut = "test",
    bleu_samples: int = BLEU_SAMPLES,
    protocol: str = "ours",
) -> Evaluation:
    """Measure texts of any origin: what `evaluate` says of a policy, as far as it takes no more than the texts.

    A line is split into words as the task's text is. Words that the task does not have count as what they are: they
    match nothing real, but each other. (A policy's own texts, written down and split again, can differ by a few words
    from what it wrote, so numbers can differ from `evaluate`'s in the last digits.)

    Args:
        lines: The texts, as a person reads them; numbers between blanks where tokens mean nothing. Blank ones are left
            out.
        task: Gives real text, and the oracle where there is one.
        split: Whose texts are the references; never the training texts.
        bleu_samples: How many of the texts, from the first on, BLEU and Self-BLEU are taken of.
        protocol: How BLEU is measured, a key of `PROTOCOLS`; the others replace ``bleu_samples``.

    Returns:
        The numbers, and what does not apply and why. In ``tokens_BT`` numbers above V stand for words that the task
        does not have.

    Raises:
        InputError: If there are fewer than 2 texts or one is far too long, the split is the training split, or a
            number is no token.
    """
    _check_protocol(split, bleu_samples)
    require_known("protocol", protocol, PROTOCOLS)
    lines = list(lines)
    rows, blank, unknown = _tokens_of(lines, task)
    require(len(rows) >= 2, f"scores need at least 2 texts, found {len(rows)}")
    longest = max(map(len, rows))
    require(len(rows) * longest <= MOST_CELLS, f"a text of {longest:,} tokens is too long among {len(rows):,} texts")
    tokens_BT = pad_sequence(list(map(torch.tensor, rows)), batch_first=True, padding_value=task.vocab_size)
    found = list(filter(None, map(task.tokenize, lines))) if task.language else []
    values, why_not = rule_values(task, list(map("".join, found)), split)
    missing = _unmet(task, split, _has(task)) | why_not
    if task.oracle is not None:
        written_BT = written_by_oracle(task, tokens_BT)
        if written_BT is not None:
            values |= _oracle_nll(task.oracle, written_BT, task.scored(written_BT))[0]
        else:
            exactly = f"exactly {task.max_length} tokens" if task.end_token is None else f"its {task.language} only"
            missing |= dict.fromkeys(("nll_oracle", "nll_oracle_median"), f"the oracle writes texts of {exactly}")
    values |= {"unknown_words": unknown} | overlaps(task, tokens_BT, split, bleu_samples, PROTOCOLS[protocol])
    return _evaluation(
        values, missing, {"blank_lines": blank}, task, tokens_BT, split, bleu_samples, PROTOCOLS[protocol]
    )


def _oracle_nll(oracle: Policy, tokens_BT: Tensor, mask_BT: Tensor) -> tuple[dict[str, float], Tensor]:
    """What the oracle says of texts: the mean over tokens and the median over texts; each text's mean, (B,)."""
    mean, each_B = nll(oracle, tokens_BT, mask_BT)
    return {"nll_oracle": mean, "nll_oracle_median": float(each_B.median())}, each_B


def _tokens_of(lines: Iterable[str], task: Task) -> tuple[list[list[int]], int, float]:
    """Texts as tokens, words that the task does not have as numbers above V; blank lines; share of such words."""
    vocabulary = task.vocabulary
    texts = [task.tokenize(line) for line in lines]
    found = [text for text in texts if text]
    if vocabulary is None:
        return [task.encode(" ".join(text)) for text in found], len(texts) - len(found), 0.0
    ids = dict(zip(vocabulary.words, vocabulary.encode(vocabulary.words), strict=True))
    rows = [[ids.setdefault(word, len(ids) + task.vocab_size) for word in text] for text in found]
    words = list(chain.from_iterable(rows))
    unknown = sum(word > task.vocab_size for word in words) / max(1, len(words))
    return rows, len(texts) - len(found), unknown


def _check_protocol(split: str, bleu_samples: int) -> None:
    """Refuse references from the training split, and too few texts."""
    require(split in ("valid", "test"), f"references come from the valid or the test split, never from '{split}'")
    require(bleu_samples >= 2, f"evaluation needs at least 2 texts, found {bleu_samples}")


def _evaluation(
    values: Mapping[str, float], missing: Mapping[str, str], settings: Mapping[str, object], task: Task,
    tokens_BT: Tensor, split: HeldOut, bleu_samples: int, protocol: BleuProtocol = PROTOCOLS["ours"],
) -> Evaluation:  # fmt: skip
    """Set apart what is no number, and say how all was measured."""
    never = "infinite: the {} never writes some of these {}"
    no_number = {
        name: "no text is long enough, or valid" if math.isnan(value)
        else never.format("oracle", "texts") if name in _BY_ORACLE else never.format("policy", "tokens")
        for name, value in values.items() if not math.isfinite(value)
    }  # fmt: skip
    missing = no_number | dict(missing)
    described: dict[str, object] = {"task": task.name, "split": split, "samples": len(tokens_BT)}
    described["bleu_samples"] = min(protocol.texts or bleu_samples, len(tokens_BT))
    described["references"] = len(task.split(split).tokens_BT[: protocol.references])
    described |= {"bleu": protocol.about, "tokens": task.rules}
    kept = {name: value for name, value in values.items() if name not in missing}
    return Evaluation(kept, missing, described | dict(settings), tokens_BT)


def likelihoods(
    policy: Policy,
    task: Task,
    real_BT: Tensor,
    tokens_BT: Tensor,
    split: HeldOut,
    logp_BT: Tensor | None = None,
    *,
    latent_draws: int = LATENT_DRAWS,
) -> dict[str, float]:
    """NLLs, cover and fit (see `evaluate`) of a policy from two sets of texts.

    Args:
        policy: What is measured.
        task: Says which tokens count, and has the oracle where there is one.
        real_BT: int64; real texts.
        tokens_BT: int64; texts of the policy.
        split: Where the real ones are from.
        logp_BT: float; log-probability of each token of the policy's texts, where it is known from drawing them. It is
            not used where that was given a random initial state.
        latent_draws: As in `nll`.

    Returns:
        Name -> nats per token; without what cannot be measured, see `textgan_env.ops.metric_table`.
    """
    return _likelihoods(policy, task, real_BT, tokens_BT, split, logp_BT, latent_draws)[0]


def _likelihoods(
    policy: Policy,
    task: Task,
    real_BT: Tensor,
    tokens_BT: Tensor,
    split: HeldOut,
    logp_BT: Tensor | None,
    latent_draws: int,
) -> tuple[dict[str, float], dict[str, Floats]]:
    """What `likelihoods` gives, and the sums of each text as `Evaluation.per_text` has them."""
    real_mask_BT, mask_BT, has = task.scored(real_BT), task.scored(tokens_BT), _has(task, policy)
    mean, each_B = nll(policy, real_BT, real_mask_BT, latent_draws=latent_draws)
    values, per_text = {f"nll_{split}": mean}, {f"nll_{split}": _sums(each_B, real_mask_BT)}
    if "fixed start" in has and logp_BT is not None:
        values["nll_self"] = -float(masked_mean(logp_BT.cpu(), mask_BT))
        own_B = -logp_BT.cpu().double().masked_fill(~mask_BT, 0).sum(1)
        per_text["nll_self"] = np.stack([own_B.numpy(), mask_BT.sum(1).double().numpy()])
    elif "fixed start" in has:
        values["nll_self"], each_B = nll(policy, tokens_BT, mask_BT)
        per_text["nll_self"] = _sums(each_B, mask_BT)
    if task.oracle is not None:
        found, each_B = _oracle_nll(task.oracle, tokens_BT, mask_BT)
        values |= found
        per_text["nll_oracle"] = _sums(each_B, mask_BT)
        least, each_B = nll(task.oracle, real_BT, real_mask_BT)
        values["cover"] = values[f"nll_{split}"] - least
        per_text["cover"] = _less(per_text[f"nll_{split}"], _sums(each_B, real_mask_BT))
        if "nll_self" in values:
            values["fit"] = values["nll_oracle"] - values["nll_self"]
            per_text["fit"] = _less(per_text["nll_oracle"], per_text["nll_self"])
            if task.language == "grammar":
                values["fit_valid"] = fit_of_valid(*map(torch.from_numpy, per_text["fit"]))
    return values, per_text


def _sums(mean_B: Tensor, mask_BT: Tensor) -> Floats:
    """Nats and tokens of each text, float64 (2, B)."""
    count_B = mask_BT.sum(1).double()
    return np.stack([(mean_B * count_B).numpy(), count_B.numpy()])


def _less(sums_2B: Floats, others_2B: Floats) -> Floats:
    """The difference of two measures of the same tokens."""
    return np.stack([sums_2B[0] - others_2B[0], sums_2B[1]])


def _has(task: Task, policy: Policy | None = None) -> set[Need]:
    """What there is to measure with: a policy, one that always begins in the same state, an oracle."""
    found: set[Need] = set() if task.oracle is None else {"oracle"}
    if policy is not None:
        found.add("policy")
        if not (isinstance(policy, PolicyModule) and policy.random_start):
            found.add("fixed start")
    return found


def _unmet(task: Task, split: HeldOut, has: set[Need]) -> dict[str, str]:
    """Name -> why, of the metrics of an evaluation that cannot be measured."""
    return {name: why for name in evaluated(split, task.language) if (why := why_missing(name, has)) is not None}


def diversity(task: Task, tokens_BT: Tensor) -> dict[str, float]:
    """Share of different texts, and of tokens that repeat the one before.

    Args:
        task: Says what is no word.
        tokens_BT: int64; the texts.

    Returns:
        ``unique`` and ``adjacent_repeats``; the second is NaN where no text has two tokens.
    """
    (texts,) = _numbered(task, tokens_BT)
    return {"unique": metrics.unique_share(texts), "adjacent_repeats": metrics.adjacent_repeats(texts)}


def overlaps(
    task: Task, tokens_BT: Tensor, split: HeldOut, bleu_samples: int, protocol: BleuProtocol = PROTOCOLS["ours"]
) -> dict[str, float]:
    """What can be said of texts by comparing them with each other, with a split and with the training texts.

    Args:
        task: Gives the other texts.
        tokens_BT: int64; the texts.
        split: References of BLEU.
        bleu_samples: How many of the texts, from the first on, BLEU and Self-BLEU are taken of.
        protocol: How BLEU is measured.

    Returns:
        Name -> share; NaN where no text is long enough.
    """
    return _overlaps(task, tokens_BT, split, bleu_samples, protocol)[0]


def _overlaps(
    task: Task, tokens_BT: Tensor, split: HeldOut, bleu_samples: int, protocol: BleuProtocol
) -> tuple[dict[str, float], dict[str, Floats]]:
    """What `overlaps` gives, and the sums of each text as `Evaluation.per_text` has them."""
    splits_BT = (task.split(split).tokens_BT, task.split("train").tokens_BT)
    texts, references, training = _numbered(task, tokens_BT, *splits_BT)
    scored, own = texts.first(protocol.texts or bleu_samples), protocol.self_texts
    of_real = metrics.BleuReferences(references.first(protocol.references), max(_N_GRAMS))
    scores = {"bleu": of_real.scores(scored, smoothing=protocol.smoothing)}
    if own != 0:
        scores["self_bleu"] = metrics.self_scores(texts.first(own or bleu_samples))
    values = {f"{name}_{n}": mean for name, found in scores.items() for n, mean in metrics.means(found).items()}
    each = {f"{name}_{n}": found[:, n - 1] for name, found in scores.items() for n in _N_GRAMS}
    values |= {f"distinct_{n}": value for n, value in metrics.distinct_shares(texts, 3).items()}
    values |= diversity(task, tokens_BT)
    copied = metrics.copied_shares(texts, training, max(_N_GRAMS))
    values |= {f"copied_{n}": copied[n] for n in _N_GRAMS}
    each["copied_texts"] = metrics.are_copied(texts, training)
    values["copied_texts"] = float(each["copied_texts"].mean())
    return values, {name: np.stack([each_B, np.ones(len(each_B))]) for name, each_B in each.items()}


def _numbered(task: Task, *sets_BT: Tensor) -> list[metrics.NumberedTexts]:
    """What `token_lists` says of each set, numbered alike: token ids; each unknown word has a number of its own."""
    found, free = [], 1 + max(int(tokens_BT.max()) for tokens_BT in sets_BT)
    for tokens_BT in sets_BT:
        kept_BT = tokens_BT != task.vocab_size
        if task.end_token is not None:
            kept_BT &= tokens_BT != task.end_token
        tokens = tokens_BT[kept_BT].numpy()
        unknown = np.flatnonzero(np.isin(tokens, task.forbidden))
        tokens[unknown] = free + np.arange(len(unknown))
        free += len(unknown)
        found.append(metrics.NumberedTexts(tokens, kept_BT.sum(1).numpy()))
    return found


def token_lists(tokens_BT: Tensor, task: Task) -> list[list[Hashable]]:
    """Each text as a list of tokens, without end token and PAD; an unknown word is a token that equals no other."""
    left_out, unknown = {task.vocab_size, task.end_token}, set(task.forbidden)
    return [
        [object() if token in unknown else token for token in tokens if token not in left_out]
        for tokens in tokens_BT.tolist()
    ]
