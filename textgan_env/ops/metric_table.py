"""Every metric that is measured, a row each: what tables, pages, charts and logs say of it comes from here.

A new column is one row here and the function that computes it. Loads no torch.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

#: What a metric needs to be measured, besides texts.
Need = Literal["policy", "fixed start", "oracle"]
#: Text with rules that a text can break: what is measured of it alone.
Language = Literal["", "grammar", "molecules"]
#: Whose first table in the suite has the column.
First = Literal["", "oracle", "text", "both"]

#: Why a metric is missing where a need is not met. The first unmet need in this order is the reason.
WHY_NOT: dict[Need, str] = {
    "policy": "they are measured on a policy, not on texts",
    "fixed start": "the initial state is random: the distribution of the texts has no formula",
    "oracle": "the true distribution of this text is not known",
}
#: Parts of a table of results that an evaluation fills, in order.
PARTS = ("Likelihood", "Overlap with real text", "Variety", "Copied from the training texts", "Rules", "Molecules")
#: The unit of likelihoods and divergences.
NATS = "nats per token"
#: Nats a token by which NLL-test, cover or fit may rise and still count as no worse; two seeds of tuned maximum
#: likelihood differed by 0.001 when this was chosen.
SLACK = 0.05
#: The direction that is good -> its sign.
ARROWS = {"lower": "\u2193", "higher": "\u2191", None: ""}


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: The key in logs, result files and columns.
        label: What a reader sees.
        unit: For example "nats per token" or "share"; "" for a plain number.
        better: The direction that is good, if everything else stays; None where there is none.
        about: What it is or means, in a few words; "" where the label says it.
        part: Which part of a table of results it belongs to, one of `PARTS` if an evaluation measures it.
        needs: What must be there to measure it.
        chart: The chart of a run that has it as a line; "" where none does.
        first: Whose first table in the suite has it.
        languages: The only texts that it is measured of; () for texts of all kinds.
    """

    name: str
    label: str
    unit: str
    better: Literal["lower", "higher"] | None
    about: str = ""
    part: str = ""
    needs: tuple[Need, ...] = ()
    chart: str = ""
    first: First = ""
    languages: tuple[Language, ...] = ()


def _nats(name: str, label: str, about: str, needs: tuple[Need, ...], chart: str = "", first: First = "") -> Metric:
    """A metric of likelihoods; only the policy's own entropy has no good direction."""
    better: Literal["lower"] | None = None if name == "nll_self" else "lower"
    return Metric(name, label, NATS, better, about, PARTS[0], needs, chart, first)


def _likelihoods() -> list[Metric]:
    """What the oracle and the policy say of each other's texts."""
    nll, divergence = f"NLL ({NATS})", f"divergence ({NATS})"
    reads = "the oracle reads the policy's texts; means nothing without NLL-test"
    test, valid = "the policy reads real texts", "the policy reads real texts of the valid split"
    own, median = "the policy reads its own texts: its entropy", "the same, median over texts instead of the mean"
    cover, fit = "KL(oracle || policy) / T; 0 is best", "KL(policy || oracle) / T; 0 is best"
    return [
        _nats("nll_oracle", "NLL-oracle", reads, ("oracle",), nll, "oracle"),
        _nats("nll_oracle_median", "NLL-oracle, median", median, ("oracle",), first="oracle"),
        _nats("nll_test", "NLL-test", test, ("policy",), first="both"),
        _nats("nll_valid", "NLL-valid", valid, ("policy",), nll),
        _nats("nll_self", "NLL-self", own, ("policy", "fixed start"), first="oracle"),
        _nats("cover", "cover", cover, ("policy", "oracle"), divergence, "oracle"),
        _nats("fit", "fit", fit, ("policy", "fixed start", "oracle"), divergence, "oracle"),
    ]


def _shares() -> list[Metric]:
    """What is counted in texts."""
    _, overlap, variety, copied, *_ = PARTS
    near = "how much of their n-grams the real texts have; safe writing raises it"
    alike = "BLEU of each text against the others: how alike they are"
    families: list[tuple[str, str, Literal["lower", "higher"], str, str]] = [
        ("bleu", "BLEU", "higher", near, overlap),
        ("self_bleu", "Self-BLEU", "lower", alike, variety),
    ]
    grams = "n-grams that the training texts have, too; fresh real text has them, too"
    chart, orders = "variety (shares)", range(2, 6)
    return [
        *(
            Metric(f"{name}_{n}", f"{label}-{n}", "share", better, about if n == 2 else "", part, first="text")
            for name, label, better, about, part in families
            for n in orders
        ),
        Metric("unique", "different texts", "share", "higher", "texts without their repetitions", variety, (), chart),
        Metric("adjacent_repeats", "tokens that repeat the one before", "share", "lower", "", variety, (), chart),
        *(
            Metric(
                f"distinct_{n}", f"distinct-{n}", "share", "higher", "different n-grams among all" * (n == 1), variety
            )
            for n in (1, 2, 3)
        ),
        Metric("copied_texts", "whole texts", "share", "lower", "whole texts of the training split", copied),
        *(Metric(f"copied_{n}", f"{n}-grams", "share", "lower", grams * (n == 2), copied) for n in orders),
    ]


def _of_languages() -> list[Metric]:
    """What is measured of texts that must keep rules: a grammar's, or those of SMILES."""
    rules, part = PARTS[-2:]
    real = "compared with real molecules"
    rows: list[tuple[str, str, str, Literal["lower", "higher"] | None, str]] = [
        ("unique_1k", "unique@1k", "share", "higher", "different ones among the first 1,000 molecules"),
        ("unique_10k", "unique@10k", "share", "higher", "among the first 10,000"),
        ("novel", "novel", "share", "higher", "molecules that no training text is"),
        ("internal_diversity", "IntDiv", "share", "higher", "1 - mean Tanimoto similarity of all pairs"),
        ("scaffolds", "different scaffolds", "share", "higher", ""),
        ("scaffold_similarity", "Scaf", "share", "higher", f"cosine of scaffold counts, {real}"),
        ("snn", "SNN", "share", "higher", f"Tanimoto similarity to the nearest, {real}"),
        ("fcd", "FCD", "squared feature units", "lower", f"Frechet ChemNet distance, {real}"),
        ("qed", "QED", "share", "higher", "mean drug-likeness"),
        ("sa", "SA", "", "lower", "mean synthetic accessibility: 1 easy to 10 hard"),
        ("logp", "log P", "", None, "mean octanol-water partition coefficient"),
    ]
    chart = "valid (share)"
    return [
        Metric("fit_valid", "fit, valid texts", NATS, "lower", "KL(policy || oracle) / T given that a text is valid",
               PARTS[0], ("policy", "fixed start"), "", "", ("grammar",)),
        Metric("valid", "valid", "share", "higher", "texts that keep the rules of their language", rules, (), chart, "",
               ("grammar", "molecules")),
        *(Metric(*row, part, languages=("molecules",)) for row in rows),
    ]  # fmt: skip


def _others() -> list[Metric]:
    """What training logs and the suite measure besides."""
    goal = "Goal"
    readers, of_d, cost = "Language models", "D on unseen texts", "Cost"
    forward = "an LSTM that read real text which no policy learnt from reads the policy's texts (quality)"
    reverse = "one that read the policy's texts reads the test split (diversity)"
    worth, spread = f"worth of D ({NATS})", "effective sample size of exp(logit)"
    far, squared = "squared distance to the test split on the features named behind it", "squared feature units"
    return [
        Metric("lstm_forward", "LSTM forward", NATS, "lower", forward, readers, first="text"),
        Metric("lstm_reverse", "LSTM reverse", NATS, "lower", reverse, readers, first="text"),
        Metric("frechet_lstm", "Frechet, LSTM", squared, "lower", far, readers, first="text"),
        Metric("frechet_minilm", "Frechet, MiniLM", squared, "lower", far, readers, first="text"),
        Metric("unknown_words", "unknown words", "share", "lower", "words that the task does not have"),
        Metric("loss", "training", NATS, "lower", chart=f"NLL ({NATS})"),
        Metric("credit", "mean", "", None, chart="credit"),
        Metric("credit_spread", "spread over texts", "", None, chart="credit"),
        Metric("objective", "objective", "its own units", "higher", "mean over texts", goal, (), goal),
        Metric(
            "objective_top",
            "reach the goal",
            "share",
            "higher",
            "texts with the objective's best value",
            goal,
            (),
            goal,
        ),
        Metric("objective_calls", "calls of the objective", "texts", None, "different texts it was asked about", goal),
        Metric("objective_failures", "failed calls", "texts", None, "texts for which it gave no number", goal),
        Metric("reward", "mean of a text", "", None, chart="reward"),
        Metric("d_auc", "AUC", "share", None, "D on texts that it and the policy have not seen", of_d, (), of_d),
        Metric("d_accuracy", "accuracy", "share", None, "D on the same texts", of_d, (), of_d),
        Metric("d_correlation", "correlation with log p/q", "", "higher", "of its logit, texts of G", of_d, (), of_d),
        Metric("d_effective_share", "texts left by weights exp(logit)", "share", None, spread, of_d, (), of_d),
        Metric(
            "d_bound", "bound", NATS, None, "what the best use of a discriminator of this AUC wins", of_d, (), worth
        ),
        Metric(
            "d_gain",
            "by weights exp(logit)",
            NATS,
            None,
            "what weighing texts of G with exp(logit) wins",
            of_d,
            (),
            worth,
        ),
        Metric("gradient_snr", "signal to noise", "", None, chart="gradient"),
        Metric("kl", "KL to the pre-trained policy", "nats a text", None, chart="kl"),
        Metric("nll_blanks", "of blanks, valid", NATS, "lower", chart=f"NLL ({NATS})"),
        Metric("bound_valid", "bound on NLL-valid", NATS, "lower", chart=f"NLL ({NATS})"),
        Metric("kl_latent", "KL of z to its prior", "nats a text", None, chart="KL of z (nats a text)"),
        Metric("active_units", "active units of z", "", None, chart="active units"),
        Metric("effective_share", "texts that the weighted ones are worth", "", None, chart="share"),
        Metric("squared_mmd", "of features", "", "lower", "without bias: can be negative", chart="squared discrepancy"),
        Metric("clipped", "tokens whose gradient is cut", "", None, chart="share"),
        Metric("manager_cosine", "moves and goals", "", None, chart="cosine"),
        Metric("intrinsic_reward", "the Worker's reward", "", None, chart="cosine"),
        Metric("training_minutes", "training", "minutes", "lower", "", cost),
        Metric("tokens_per_second", "generating", "tokens a second", "higher", "", cost),
        Metric("peak_memory_mb", "peak memory", "MiB", "lower", "", cost),
    ]


#: Every metric by name, in the order of tables.
METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (*_likelihoods(), *_shares(), *_of_languages(), *_others())
}


def why_missing(name: str, has: Collection[Need]) -> str | None:
    """Why a metric cannot be measured with what there is; None where it can."""
    needs = METRICS[name].needs
    return next((why for need, why in WHY_NOT.items() if need in needs and need not in has), None)


def units_of(names: Collection[str]) -> str:
    """What numbers of an evaluation are in, for a person."""
    by_unit = {name: METRICS[name].unit for name in names}
    others = ", ".join(name for name, unit in by_unit.items() if unit not in (NATS, "share"))
    shares = f"{f' but {others}' if others else ''} are shares"
    divergences = ", cover and fit" if "cover" in by_unit else ""
    return f"NLLs{divergences} in {NATS}, the rest{shares}" if NATS in by_unit.values() else f"all numbers{shares}"


def evaluated(split: Literal["valid", "test"], language: Language = "") -> list[str]:
    """Names of what an evaluation against a split measures of texts of a language."""
    other = {"valid": "nll_test", "test": "nll_valid"}[split]
    fits = {name for name, metric in METRICS.items() if not metric.languages or language in metric.languages}
    return [name for name, metric in METRICS.items() if metric.part in PARTS and name in fits and name != other]


def columns(first: First) -> tuple[str, ...]:
    """Names of the columns that the first table of a task has in the suite."""
    return tuple(name for name, metric in METRICS.items() if metric.first in (first, "both"))


def charts(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Charts of a run that have these metrics as lines: title with the unit -> name -> name of the line."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        found.setdefault(METRICS[name].chart, {})[name] = METRICS[name].label
    return found


def documents() -> list[dict[str, str | None]]:
    """What pages say of each metric, as JSON can hold it."""
    said = ("name", "label", "unit", "better", "about", "part", "chart")
    return [{field: getattr(metric, field) for field in said} for metric in METRICS.values()]
