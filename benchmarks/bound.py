"""Bound against gain: what d'^2/2 says that a discriminator is worth, and what weighing texts with it wins.

``python -m benchmarks.bound`` trains policies on laws that are known: undertrained, narrow, good and overfitted ones.
It fits discriminators to each: small and large, briefly and for long, to more texts than the policy had, to too few.
Then it asks `textgan_env.evaluation.discriminator_worth` about every pair. The upper end is the true log p / q itself.
Each policy and each pair is a file under --out: a killed command goes on where it was when it is started again.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

from benchmarks.results import command, image_path, made_once, save, table, weights_once
from textgan_env.utils.errors import require, require_known

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from benchmarks.bound_arms import Law
    from textgan_env.policies import LSTMPolicy

#: First word of a discriminator's name -> how a picture calls the kind.
KINDS = {
    "pair": "pair",
    "conv": "conv",
    "recurrent": "recurrent",
    "log": "log ratio of two policies",
    "the": "the true log p / q",
}


@dataclass(frozen=True)
class Options:
    """Measure pairs of a policy and a discriminator."""

    laws: tuple[str, ...] = ()
    """Names of `benchmarks.bound_arms.LAWS`; none: all."""
    seed: int = 0
    """Of texts, weights and draws."""
    few: int = 1_000
    """Texts of each side of a small measurement, as a run makes it at its evaluations."""
    repeats: int = 8
    """Small measurements of a pair."""
    small: bool = False
    """As small as it can be, to see that everything runs."""
    finished: bool = False
    """Make nothing more: only draw the finished pairs."""
    out: Path = Path("runs/bound")
    """Where every finished part is kept."""
    name: str = "bound"
    """Of the result files and the picture."""


@command
def main(options: Options) -> None:
    """The command."""
    import torch

    from benchmarks.bound_arms import LAWS, tiny

    for name in options.laws:
        require_known("law", name, LAWS)
    require(options.few >= 2 <= options.repeats, "--few and --repeats must be at least 2")
    torch.set_num_threads(1)
    laws = {name: tiny(LAWS[name]) if options.small else LAWS[name] for name in options.laws or LAWS}
    options.out.mkdir(parents=True, exist_ok=True)
    for name, law in laws.items():
        settings = json.loads(json.dumps({**asdict(law), "few": options.few, "repeats": options.repeats}))
        other = f"'{options.out}' holds pairs of other settings: give another folder with --out"
        path = options.out / f"{slug(name, options.seed)}.json"
        require(made_once(path, lambda settings=settings: settings) == settings, other)  # type: ignore[misc]
        if not options.finished:
            measure(options, name, law)
    report(options, laws)


def slug(*parts: object) -> str:
    """A file's name."""
    return re.sub("[^a-z0-9=.]+", "-", " ".join(map(str, parts)).lower())


def pair_path(options: Options, *names: str) -> Path:
    """The file of a law's policy and a discriminator."""
    return options.out / f"pair-{slug(*names, options.seed)}.json"


def measure(options: Options, name: str, law: "Law") -> None:
    """Every pair of a law, or what is left of them."""
    from benchmarks.bound_arms import Measured

    for label, recipe in law.policies.items():
        missing = [fit for fit in law.fits if not pair_path(options, name, label, fit).exists()]
        if not missing:
            continue
        asked = any(fit.kind == "policy" for fit in law.fits.values())
        good = policy(options, name, law, "good", 1) if asked else None
        measured = Measured(law, recipe, policy(options, name, law, label, 0), good, options.seed)
        for fit in missing:
            print(f"{name}, {label}: {fit}", flush=True)
            made_once(
                pair_path(options, name, label, fit),
                partial(measured.pair, law.fits[fit], options.few, options.repeats),
            )


def policy(options: Options, name: str, law: "Law", label: str, member: int) -> "LSTMPolicy":
    """A policy of maximum likelihood, trained once; members are others on the same texts."""
    from benchmarks.bound_arms import likelihood, policy_of

    def make() -> "dict[str, Tensor]":
        """Train it."""
        print(f"{name}: maximum likelihood, {label}", flush=True)
        return likelihood(law, law.policies[label], options.seed, member)

    path = options.out / f"mle-{slug(name, label, options.seed, member)}.safetensors"
    return policy_of(law, law.policies[label], weights_once(path, make))


# ----------------------------------------------------------------------------------------------------
# What came of it
def report(options: Options, laws: Mapping[str, "Law"]) -> None:
    """The tables, the result files and the picture of the finished pairs."""
    rows = [row for name, law in laws.items() for row in rows_of(options, name, law)]
    require(bool(rows), f"no finished pair in '{options.out}'")
    kinds = list(by_discriminator(rows))
    notes = (
        f"{len(rows)} pairs, seed {options.seed}. Nats per token. p: the law, q: the policy; cover, fit: KL(p||q), "
        "KL(q||p), what there is to win. bound: d'^2/2 of the AUC. gain, +-: in cover, by weighing texts of q with "
        "exp(z), z the logit, and its standard error; fit gain: that in fit. scale, scaled: the best multiple of z, "
        "and what it wins. any use: what the best function of z wins (40 cells of a histogram, which cannot show more "
        "than about half a nat a token at T=10). share: effective share of the weighed texts; correlation: of z with "
        f"log p / q over texts of q. skew, spreads: of z over texts of q (0: Gaussian), its standard deviation over "
        f"real texts by that over texts of q (1: one variance). few, its spread: gain by {options.few:,} texts of each "
        f"side, mean and standard deviation of {options.repeats} measurements with other texts of q."
    )
    print(table(kinds))
    print(save(options.name, rows, notes=notes, more={"by discriminator": kinds, "options": asdict(options)}))
    draw(rows, image_path(options.name), options.few)


def draw_again(kept: Mapping[str, Any], path: Path) -> None:
    """Draw the picture of a kept result."""
    draw(kept["rows"], path, kept["options"]["few"])


def rows_of(options: Options, name: str, law: "Law") -> Iterator[dict[str, Any]]:
    """A row a finished pair of a law."""
    for label in law.policies:
        for fit in law.fits:
            path = pair_path(options, name, label, fit)
            if path.exists():
                yield {"law": name, "policy": label, "discriminator": fit, **_row(json.loads(path.read_text("utf-8")))}


def _row(pair: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a pair."""
    worth, few = pair["worth"], pair["few"]
    named = {
        "AUC": "auc", "bound": "bound", "gain": "gain", "+-": "gain_error", "fit gain": "fit_gain", "scale": "scale",
        "scaled": "scaled_gain", "share": "effective_share", "correlation": "correlation",
    }  # fmt: skip
    row = {"cover": pair["cover"], "fit": pair["fit"]} | {name: worth[key] for name, key in named.items()}
    row |= {"any use": pair["any_use"], "skew": pair["skew"], "spreads": pair["spread_real"] / pair["spread_fake"]}
    return row | {"few": fmean(few["gains"]) + few["real_less"], "its spread": stdev(few["gains"])}


def by_discriminator(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """For each discriminator, how its gains compare with the bound over laws and policies."""
    for name in dict.fromkeys(row["discriminator"] for row in rows):
        here = [row for row in rows if row["discriminator"] == name]
        # A bound of a thousandth of a nat is as good as none: a quotient by it says nothing.
        some = [row for row in here if row["bound"] >= 1e-3]
        found: dict[str, Any] = {"discriminator": name, "pairs": len(here)}
        found |= {key: _range([row[key] for row in here]) for key in ("AUC", "bound", "gain", "scale", "correlation")}
        found["bound above .001"] = len(some)
        for key in ("gain", "scaled", "any use"):
            found[f"{key} / bound"] = _range([row[key] / row["bound"] for row in some])
        yield found


def _range(values: Sequence[float]) -> str | None:
    """Median, smallest and largest."""
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})" if values else None


def draw(rows: Sequence[Mapping[str, Any]], path: Path, few: int) -> None:
    """Bound against what the best multiple of the logit and the logit as it is win, and how well few texts say it."""
    from textgan_env.ops.plots import new_figure, plain_axes, save_figure

    figure = new_figure(13.2, 4.2)
    best, plain, safe = figure.subplots(1, 3)
    most, least = max(row["bound"] for row in rows) * 1.3, 1e-3
    for panel, key in ((best, "scaled"), (plain, "gain")):
        panel.plot([least, most], [least, most], color="#8a8e93", linewidth=1)
        _points(panel, [(row, row["bound"], row[key]) for row in rows])
        panel.set(xscale="log", xlim=(least, most), xlabel="bound d'^2/2 (nats a token)")
    best.set(yscale="log", ylim=(least, most), title="best multiple of D's logit", ylabel="won in cover (nats a token)")
    plain.set_yscale("symlog", linthresh=1e-2)
    lowest = min(-1e-2, *(row["gain"] for row in rows)) * 1.5
    highest = max(most, *(row["gain"] for row in rows)) * 1.3
    plain.set(title="D's logit as it is", ylabel="won in cover (nats a token)", ylim=(lowest, highest))
    plain.axhline(0, color="#8a8e93", linewidth=1)
    _points(safe, [(row, few * row["share"], _off(row)) for row in rows])
    safe.set(xscale="log", yscale="log", xlabel=f"texts that {few:,} weighed ones are worth")
    safe.set(title=f"the same from {few:,} texts", ylabel="error of the gain (nats a token)")
    best.legend(frameon=False, fontsize=8)
    for panel in (best, plain, safe):
        plain_axes(panel)
    save_figure(figure, path, "What a discriminator is worth: bound and measured gain")


def _off(row: Mapping[str, Any]) -> float:
    """How far a gain by few texts is off that by many, in the root mean square, nats a token."""
    return math.hypot(row["few"] - row["gain"], row["its spread"])


def _points(panel: "Axes", points: Sequence[tuple[Mapping[str, Any], float, float]]) -> None:
    """Points of a panel, a colour and a sign for each kind of discriminator."""
    from textgan_env.ops.plots import plot_look

    for number, (word, label) in enumerate(KINDS.items()):
        here = [(x, y) for row, x, y in points if row["discriminator"].split(",")[0].split()[0] == word]
        if here:
            look = plot_look(number) | {"linestyle": "none", "markersize": 5, "alpha": 0.8, "label": label}
            panel.plot(*zip(*here, strict=True), **look)


if __name__ == "__main__":
    main()
