"""How good is a policy: every measure that applies to a task, from one set of texts at one temperature."""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from textgan_env.ops import metrics
from textgan_env.ops.metric_table import Need, evaluated, why_missing
from textgan_env.ops.sampling import derived_seed, evaluating
from textgan_env.policies.base import Policy, PolicyModule
from textgan_env.rewards import Keys, for_texts, generate
from textgan_env.tasks import Task
from textgan_env.utils.errors import require, require_known

#: Splits that no policy learns from.
HeldOut = Literal["valid", "test"]
#: Texts that are scored at once.
TILE = 512
#: Texts that BLEU and Self-BLEU are taken of.
BLEU_SAMPLES = 2_000
_N_GRAMS = range(2, 6)


@dataclass(frozen=True)
class BleuProtocol:
    """How a code base measures BLEU: numbers compare within one protocol, and at equal word rules, only.

    Attributes:
        about: In a sentence, for those who read the numbers.
        texts: How many of the texts, from the first on, are scored; None: as many as is said beside.
        references: How many texts of the split are references, from the first on; None: all.
        self_texts: How many of the texts, from the first on, Self-BLEU compares; 0: there is no Self-BLEU.
        smoothing: Whether an order without a match counts a tenth of one, instead of making the score 0.
    """

    about: str
    texts: int | None
    references: int | None
    self_texts: int | None
    smoothing: bool


#: By name; `ours` is what this project measures with.
PROTOCOLS = {
    "ours": BleuProtocol("nltk sentence BLEU, smoothing method 1", None, None, None, True),
    "texygen": BleuProtocol(
        "as Texygen's code in its fast way: nltk sentence BLEU, smoothing method 1; all texts against the first 500 "
        "references; Self-BLEU of the first 500 texts", 10**9, 500, 500, True,
    ),
    "leakgan": BleuProtocol(
        "as LeakGAN's eval_bleu.py: nltk sentence BLEU without smoothing, 2,000 texts (ours: the first) against the "
        "whole split; it has no Self-BLEU", 2_000, None, 0, False,
    ),
}  # fmt: skip
_MOST_CELLS = 2**27  # 1 GiB of int64


@dataclass(frozen=True)
class Evaluation:
    """What was measured, how, and what does not apply.

    Attributes:
        values: Name -> number. NLLs, ``cover`` and ``fit`` are in nats per token, the rest are shares from 0 to 1.
        missing: Name -> why there is no such number.
        settings: Split, number of texts, seed, decoding, BLEU protocol (texts, references, smoothing, tokens).
        tokens_BT: int64; the texts that were measured.
    """

    values: Mapping[str, float]
    missing: Mapping[str, str]
    settings: Mapping[str, object]
    tokens_BT: Tensor = field(repr=False)

    def table(self) -> str:
        """Rows of name and number; then, for each reason, the names that have none."""
        width = max(map(len, self.values))
        rows = [f"{name:<{width}}  {value:.4f}" for name, value in self.values.items()]
        return "\n".join([*rows, *missing_lines(self.missing)])

    def document(self) -> dict[str, Any]:
        """Values, what is missing and settings, as JSON can hold them."""
        return {"values": dict(self.values), "missing": dict(self.missing), "settings": dict(self.settings)}


def missing_lines(missing: Mapping[str, str]) -> list[str]:
    """For each reason a line with the names of the numbers that there are none of."""
    reasons = dict.fromkeys(missing.values())
    return [f"not {', '.join(name for name, why in missing.items() if why == reason)}: {reason}" for reason in reasons]


def nll(policy: Policy, tokens_BT: Tensor, mask_BT: Tensor, tile: int = TILE) -> tuple[float, Tensor]:
    """Negative log-likelihood of texts under a policy, dropout off, without gradients.

    Under a policy with a random initial state for each text: an upper bound in expectation, from one state a text.

    Args:
        policy: Scores at its own temperature.
        tokens_BT: int64.
        mask_BT: bool; the tokens that count.
        tile: Rows scored at once.

    Returns:
        Mean in nats per token (of all tokens, so long texts weigh more), and each text's own mean, float64 (B,).
    """
    sums, counts = [], mask_BT.sum(1)
    keys = Keys.counted(derived_seed(0, "nll"), len(tokens_BT), device=policy.device)
    with evaluating(policy), torch.no_grad():
        for rows in torch.arange(len(tokens_BT)).split(tile):
            given = for_texts(policy, keys[rows.to(policy.device)])
            logp_BT = given.log_prob(tokens_BT[rows].to(policy.device), mask_BT[rows].to(policy.device))
            sums.append(-logp_BT.double().sum(1).cpu())
    sum_B = torch.cat(sums)
    return float(sum_B.sum() / counts.sum()), sum_B / counts.clamp(min=1)


def evaluate(
    policy: Policy,
    task: Task,
    *,
    split: HeldOut = "test",
    samples: int = 10_000,
    bleu_samples: int = BLEU_SAMPLES,
    seed: int = 0,
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
        seed: Of those texts.

    Returns:
        The numbers, and what does not apply and why.

    Raises:
        InputError: If the split is the training split, a number is below 2, or the policy writes other tokens.
    """
    _check_protocol(split, min(samples, bleu_samples))
    ours, its = policy.vocab_size, task.vocab_size
    require(ours == its, f"the policy writes V={ours} tokens, task '{task.name}' has V={its}")
    keys = Keys.counted(derived_seed(seed, "evaluate"), samples, device=policy.device)
    tokens_BT = generate(policy, keys, task.max_length, end_token=task.end_token)[0].cpu()
    real_BT = task.split(split).tokens_BT
    values = likelihoods(policy, task, real_BT, tokens_BT, split) | overlaps(task, tokens_BT, split, bleu_samples)
    missing = _unmet(split, _has(task, policy))
    settings = {"seed": seed, "decoding": str(getattr(policy, "decoding", "the policy's own"))}
    if "fixed start" not in _has(task, policy):
        settings["nll"] = f"nll_{split} and cover are upper bounds, under one random initial state a text"
    return _evaluation(values, missing, settings, task, tokens_BT, split, bleu_samples)


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
    rows, blank, unknown = _tokens_of(lines, task)
    require(len(rows) >= 2, f"scores need at least 2 texts, found {len(rows)}")
    longest = max(map(len, rows))
    require(len(rows) * longest <= _MOST_CELLS, f"a text of {longest:,} tokens is too long among {len(rows):,} texts")
    tokens_BT = pad_sequence(list(map(torch.tensor, rows)), batch_first=True, padding_value=task.vocab_size)
    missing = _unmet(split, _has(task))
    values: dict[str, float] = {}
    if task.oracle is not None and tokens_BT.shape[1] == task.max_length and (tokens_BT != task.vocab_size).all():
        values |= _oracle_nll(task.oracle, tokens_BT, task.scored(tokens_BT))
    elif task.oracle is not None:
        why = f"the oracle writes texts of exactly {task.max_length} tokens"
        missing |= {"nll_oracle": why, "nll_oracle_median": why}
    values |= {"unknown_words": unknown} | overlaps(task, tokens_BT, split, bleu_samples, PROTOCOLS[protocol])
    found = {"blank_lines": blank}
    return _evaluation(values, missing, found, task, tokens_BT, split, bleu_samples, PROTOCOLS[protocol])


def _oracle_nll(oracle: Policy, tokens_BT: Tensor, mask_BT: Tensor) -> dict[str, float]:
    """What the oracle says of texts: the mean over tokens, and the median over texts."""
    mean, each_B = nll(oracle, tokens_BT, mask_BT)
    return {"nll_oracle": mean, "nll_oracle_median": float(each_B.median())}


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
    why_not = {True: "no text is long enough", False: "infinite: the policy never writes some of these tokens"}
    no_number = {name: why_not[math.isnan(value)] for name, value in values.items() if not math.isfinite(value)}
    missing = no_number | dict(missing)
    described: dict[str, object] = {"task": task.name, "split": split, "samples": len(tokens_BT)}
    described["bleu_samples"] = min(protocol.texts or bleu_samples, len(tokens_BT))
    described["references"] = len(task.split(split).tokens_BT[: protocol.references])
    described |= {"bleu": protocol.about, "tokens": task.rules}
    kept = {name: value for name, value in values.items() if name not in missing}
    return Evaluation(kept, missing, described | dict(settings), tokens_BT)


def likelihoods(policy: Policy, task: Task, real_BT: Tensor, tokens_BT: Tensor, split: HeldOut) -> dict[str, float]:
    """NLLs, cover and fit (see `evaluate`) of a policy from two sets of texts.

    Args:
        policy: What is measured.
        task: Says which tokens count, and has the oracle where there is one.
        real_BT: int64; real texts.
        tokens_BT: int64; texts of the policy.
        split: Where the real ones are from.

    Returns:
        Name -> nats per token; without what cannot be measured, see `textgan_env.ops.metric_table`.
    """
    real_mask_BT, mask_BT = task.scored(real_BT), task.scored(tokens_BT)
    values = {f"nll_{split}": nll(policy, real_BT, real_mask_BT)[0], "nll_self": nll(policy, tokens_BT, mask_BT)[0]}
    if task.oracle is not None:
        values |= _oracle_nll(task.oracle, tokens_BT, mask_BT)
        values["cover"] = values[f"nll_{split}"] - nll(task.oracle, real_BT, real_mask_BT)[0]
        values["fit"] = values["nll_oracle"] - values["nll_self"]
    has = _has(task, policy)
    return {name: value for name, value in values.items() if why_missing(name, has) is None}


def _has(task: Task, policy: Policy | None = None) -> set[Need]:
    """What there is to measure with: a policy, one that always begins in the same state, an oracle."""
    found: set[Need] = set() if task.oracle is None else {"oracle"}
    if policy is not None:
        found.add("policy")
        if not (isinstance(policy, PolicyModule) and policy.random_start):
            found.add("fixed start")
    return found


def _unmet(split: HeldOut, has: set[Need]) -> dict[str, str]:
    """Name -> why, of the metrics of an evaluation that cannot be measured."""
    return {name: why for name in evaluated(split) if (why := why_missing(name, has)) is not None}


def diversity(task: Task, tokens_BT: Tensor) -> dict[str, float]:
    """Share of different texts, and of tokens that repeat the one before.

    Args:
        task: Says what is no word.
        tokens_BT: int64; the texts.

    Returns:
        ``unique`` and ``adjacent_repeats``; the second is NaN where no text has two tokens.
    """
    texts = token_lists(tokens_BT, task)
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
    texts = token_lists(tokens_BT, task)
    references = token_lists(task.split(split).tokens_BT, task)
    training = token_lists(task.split("train").tokens_BT, task)
    scored, own = texts[: protocol.texts or bleu_samples], protocol.self_texts
    found = metrics.bleu(scored, references[: protocol.references], smoothing=protocol.smoothing)
    values = {f"bleu_{n}": value for n, value in found.items()}
    if own != 0:
        values |= {f"self_bleu_{n}": value for n, value in metrics.self_bleu(texts[: own or bleu_samples]).items()}
    values |= {f"distinct_{n}": metrics.distinct_n(texts, n) for n in (1, 2, 3)}
    values |= diversity(task, tokens_BT)
    values |= {f"copied_{n}": metrics.copied_share(texts, training, n) for n in _N_GRAMS}
    return values | {"copied_texts": metrics.copied_texts(texts, training)}


def token_lists(tokens_BT: Tensor, task: Task) -> list[list[Hashable]]:
    """Each text as a list of tokens, without end token and PAD; an unknown word is a token that equals no other."""
    left_out, unknown = {task.vocab_size, task.end_token}, set(task.forbidden)
    return [
        [object() if token in unknown else token for token in tokens if token not in left_out]
        for tokens in tokens_BT.tolist()
    ]
