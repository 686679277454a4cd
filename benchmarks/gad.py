"""The exact test of GAD's claim: what a discriminator that learns along adds to learning a teacher's texts.

``python -m benchmarks.gad``. Teachers are LSTM oracles, whose probabilities are known; the student is a smaller network
that sees 2,000 of a teacher's texts. All arms begin from one warm-up, the best maximum likelihood on these texts:
GRPO on a discriminator that learns along (GAD) and its controls, and for as long, by the processor, more maximum
likelihood (SeqKD) and distillation of the teacher's probabilities. GRPO's settings are tuned on seed 0. Each result is
a file under --out: a command that was killed goes on where it was.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.bound import slug
from benchmarks.regimes import at_one, cover_gain, gap
from benchmarks.results import command, image_path, made_once, save, table, weights_once
from textgan_env.utils.errors import require, require_known
from textgan_env.utils.kinds import DiscriminatorNetworkKind, PolicyKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from benchmarks.gad_arms import Law

START, LONGER, BEST = "warm-up", "SeqKD, as long", "SeqKD, best valid"
#: As a table shows them; the last two are taught by the teacher's probabilities.
ARMS = (
    START, LONGER, BEST, "GAD", "GAD, published KL", "GAD, fixed", "GAD, shuffled", "GAD, random",
    "forward KL", "reverse KL",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Test what a discriminator adds to a teacher's texts."""

    laws: tuple[str, ...] = ()
    """Names of `benchmarks.gad_arms.LAWS` or ``SHORT``; none: all of the first."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Of texts, weights and draws; the teachers are the same. 0 is what was tuned on."""
    policy: PolicyKind = "lstm"
    """Kind of the student."""
    discriminator: DiscriminatorNetworkKind = "pair"
    """Kind of the discriminator."""
    small: bool = False
    """As small as it can be, to see that everything runs."""
    finished: bool = False
    """Make nothing more: only draw the finished cells."""
    out: Path = Path("runs/gad")
    """Where every finished part is kept."""
    name: str = "gad"
    """Of the result files and the picture."""


@command
def main(options: Options) -> None:
    """The command."""
    import torch

    from benchmarks.gad_arms import LAWS, SHORT, tiny

    for name in options.laws:
        require_known("law", name, LAWS | SHORT)
    require(len(options.seeds) > 0 and 0 not in options.seeds, "--seeds must be some, without 0: that was tuned on")
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    changes: dict[str, Any] = {"policy": options.policy, "discriminator": options.discriminator}
    laws = {name: replace((LAWS | SHORT)[name], **changes) for name in options.laws or LAWS}
    tests = [_Test(options.out, name, tiny(law) if options.small else law) for name, law in laws.items()]
    for seed in options.seeds:
        for test in tests:
            if not options.finished:
                test.cell(seed)
    report(options, {test.name: test.law for test in tests})


class _Test:
    """The parts of one law, each made once and kept as a file."""

    def __init__(self, out: Path, name: str, law: "Law") -> None:
        self.out, self.name, self.law = out, name, law
        settings = json.loads(json.dumps(asdict(law)))
        other = f"'{out}' holds a test of other sizes: give another folder with --out"
        require(self.kept("law", lambda: settings) == settings, other)

    def kept(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What stands in the file of a part; it is made where there is none."""

        def said() -> Mapping[str, Any]:
            """Make it, and say so."""
            print(f"{self.name}: {name}", flush=True)
            return make()

        return made_once(self.out / f"{slug(name, self.name)}.json", said)

    def weights(self, name: str, seed: int, make: "Callable[[], Mapping[str, Tensor]]") -> "dict[str, Tensor]":
        """Weights of a part."""
        return weights_once(self.out / f"{slug(name, seed, self.name)}.safetensors", make)

    def searched(self) -> dict[str, Any]:
        """The best recipe of maximum likelihood, and the rate to go on with."""
        from benchmarks.gad_arms import searched

        return self.kept("search", partial(searched, self.law))

    def start(self, seed: int) -> "dict[str, Tensor]":
        """The warm-up."""
        from benchmarks.gad_arms import warm_up

        recipe = self.searched()["recipe"]
        return self.weights("start", seed, lambda: warm_up(self.law, recipe, seed))

    def warm(self, seed: int) -> "dict[str, Tensor]":
        """The discriminator after its own warm-up."""
        from benchmarks.gad_arms import warm_discriminator

        return self.weights("discriminator", seed, lambda: warm_discriminator(self.law, self.start(seed), seed))

    def tuned(self) -> dict[str, Any]:
        """GRPO's learning rate and KL weight with the largest gap to the warm-up, on seed 0."""
        from benchmarks.gad_arms import GRID

        tried = [self.kept(f"tried {slug(*one.values())}", partial(self.adversarial, 0, one)) for one in GRID]
        curves = {START: self.kept("start 0", partial(self.begun, 0))["curve"]}
        gaps = [gap({"curves": curves | {"GAD": part["curve"]}}, "GAD", START) for part in tried]
        best = max(range(len(GRID)), key=lambda at: gaps[at])
        return self.kept(
            "tuned", lambda: {"best": GRID[best], "gaps": [one if math.isfinite(one) else None for one in gaps]}
        )

    def paced(self) -> dict[str, Any]:
        """Epochs that take as long as the adversarial stage."""
        from benchmarks.gad_arms import pace

        start, found = self.start(0), self.searched()
        return self.kept("pace", lambda: pace(self.law, start, found["recipe"], found["rate"]))

    def begun(self, seed: int) -> dict[str, Any]:
        """The warm-up, and what the discriminator knows of it after its own."""
        from benchmarks.gad_arms import adversary, known, measured, student

        start = student(self.law, self.start(seed))
        discriminator = adversary(self.law, self.start(seed), {}, seed).discriminator
        assert discriminator is not None
        discriminator.load_state_dict(self.warm(seed))
        worth = known(self.law, discriminator.eval(), start, seed)
        return {"curve": measured(self.law, start, seed), "worth": worth}

    def adversarial(self, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        """GRPO on a discriminator, or a control."""
        from benchmarks.gad_arms import adversarial, known, measured

        policy, discriminator, seconds = adversarial(self.law, self.start(seed), self.warm(seed), settings, seed)
        worth = known(self.law, discriminator, policy, seed)
        return {"curve": measured(self.law, policy, seed), "worth": worth, "seconds": seconds}

    def likelihood(self, seed: int) -> dict[str, Any]:
        """More maximum likelihood: the last weights, and those that the valid split chooses."""
        from benchmarks.gad_arms import gone_on, measured, student

        found, epochs = self.searched(), self.paced()["epochs"]["SeqKD"]
        done, seconds = timed(lambda: gone_on(self.law, self.start(seed), found["recipe"], found["rate"], epochs, seed))
        curves = {name: measured(self.law, student(self.law, done[name]), seed) for name in ("last", "best")}
        return {"curves": curves, "seconds": seconds}

    def distilled(self, seed: int, divergence: str) -> dict[str, Any]:
        """Taught by the teacher's probabilities."""
        from benchmarks.gad_arms import distilled, measured

        epochs = self.paced()["epochs"][divergence]
        policy, seconds = timed(lambda: distilled(self.law, self.start(seed), divergence, epochs, seed))
        return {"curve": measured(self.law, policy, seed), "seconds": seconds}

    def cell(self, seed: int) -> dict[str, Any]:
        """Every arm of a seed, or what is left of them."""
        from benchmarks.gad_arms import ADVERSARIAL, DISTILL_RATES

        tuned = self.tuned()["best"]
        parts = {START: self.kept(f"start {seed}", partial(self.begun, seed))}
        likely = self.kept(f"SeqKD {seed}", partial(self.likelihood, seed))
        for arm, which in ((LONGER, "last"), (BEST, "best")):
            parts[arm] = {"curve": likely["curves"][which], "seconds": likely["seconds"]}
        for arm, changes in ADVERSARIAL.items():
            parts[arm] = self.kept(f"{arm} {seed}", partial(self.adversarial, seed, {**tuned, **changes}))
        for divergence in DISTILL_RATES:
            make = partial(self.distilled, seed, divergence)
            parts[f"{divergence} KL"] = self.kept(f"{divergence} {seed}", make)
        cell = {"law": self.name, "seed": seed, "tuned": tuned, "epochs": self.paced()["epochs"]}
        for names, name in (("curves", "curve"), ("worths", "worth"), ("seconds", "seconds")):
            cell[names] = {arm: part[name] for arm, part in parts.items() if name in part}
        return self.kept(f"cell {seed}", lambda: cell)


def timed(do: Callable[[], Any]) -> tuple[Any, float]:
    """What a function gives, and the seconds of the processor that it took."""
    import time

    began = time.process_time()
    return do(), time.process_time() - began


# ----------------------------------------------------------------------------------------------------
# What came of it
def report(options: Options, laws: "Mapping[str, Law]") -> None:
    """The table, the result files and the picture of the finished cells."""
    from benchmarks.regime_arms import TEMPERATURES

    paths = [options.out / f"{slug('cell', seed, name)}.json" for name in laws for seed in options.seeds]
    cells = [json.loads(path.read_text("utf-8")) for path in paths if path.exists()]
    require(bool(cells), f"no finished cell in '{options.out}'")
    rows = list(rows_of(cells))
    first = next(iter(laws.values()))
    notes = (
        f"Teachers: LSTM oracles; students: {options.policy} of width {first.student}, which see {first.texts:,} "
        f"texts of the teacher, and {first.valid:,} more to choose by. Nats per token, {first.samples:,} texts a "
        "number; mean over seeds, intervals of 95 % from 3 seeds on, of differences paired by seed. warm-up: maximum "
        "likelihood, its length, dropout and decay by the valid split; the other arms begin from it. GAD and its "
        "controls take as many steps, the others as many seconds of the processor as GAD. cover, fit: KL(p||q), "
        "KL(q||p) at temperature 1. gap to an arm: its fit at no worse cover (than its own at temperature 1 + .05, "
        f"over temperatures {max(TEMPERATURES):g} to {min(TEMPERATURES):g}) less that of this one; above 0 is better, "
        f"- covers so well at none. cover gain: cover of {BEST} less that of this one, at temperature 1. AUC, what it "
        "is worth at most (bound, in cover), "
        f"and correlation with the true log p / q: of the {options.discriminator} discriminator, on texts that it has "
        "not learnt from, at the arm's end; of the warm-up after its own. GRPO's rate, KL weight and division are "
        "those of the largest gap on seed 0, which is in no row; published KL: weight .001, divided, rate .002. All "
        "laws: mean over laws, then over seeds."
    )
    more = {"cells": cells, "laws": {name: asdict(law) for name, law in laws.items()}}
    print(table(rows))
    print(save(options.name, rows, notes=notes, more=more))
    draw(cells, image_path(options.name))


def draw_again(kept: Mapping[str, Any], path: Path) -> None:
    """Draw the picture of a kept result."""
    draw(kept["cells"], path)


def rows_of(cells: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row each arm of each law, then of all laws, by the seeds that all of them have."""
    laws = {
        name: [cell for cell in cells if cell["law"] == name] for name in dict.fromkeys(cell["law"] for cell in cells)
    }
    for name, some in laws.items():
        yield from ({"law": name, **row(arm, [[cell] for cell in some])} for arm in ARMS)
    seeds = [{cell["seed"] for cell in some} for some in laws.values()]
    shared = [[cell for cell in cells if cell["seed"] == seed] for seed in sorted(set.intersection(*seeds))]
    if len(laws) > 1 and shared:
        yield from ({"law": "all", **row(arm, shared)} for arm in ARMS)


def row(arm: str, of_seeds: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The columns of an arm.

    Args:
        arm: One of `ARMS`.
        of_seeds: For each seed its cells, one a law, whose mean is the seed's number.
    """
    from benchmarks.report import over_seeds

    def each(number: Callable[[Mapping[str, Any]], float]) -> tuple[float, ...]:
        """One number a seed."""
        return tuple(fmean(map(number, cells)) for cells in of_seeds)

    found: dict[str, Any] = {"arm": arm, "seeds": len(of_seeds)}
    for name in ("cover", "fit"):
        found[name] = fmean(each(lambda cell, name=name: at_one(cell, arm)[name]))  # type: ignore[misc]
    for other in (START, BEST):
        found[f"gap to {other}"] = over_seeds(each(partial(gap, arm=arm, start=other))) if arm != other else None
    found["cover gain"] = over_seeds(each(partial(cover_gain, arm=arm, start=BEST))) if arm != BEST else None
    for column, name in (("AUC", "auc"), ("bound", "bound"), ("correlation", "correlation")):
        has = arm in of_seeds[0][0]["worths"] and arm != "GAD, random"
        found[column] = fmean(each(lambda cell, name=name: cell["worths"][arm][name])) if has else None  # type: ignore[misc]
    has = arm in of_seeds[0][0]["seconds"]
    return found | {"seconds": f"{fmean(each(lambda cell: cell['seconds'][arm])):.1f}" if has else None}


def draw(cells: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A column a law: cover against fit along temperatures, and each arm's gap to the best maximum likelihood."""
    from textgan_env.ops.plots import new_figure, plain_axes, save_figure

    laws = list(dict.fromkeys(cell["law"] for cell in cells))
    figure = new_figure(4.4 * len(laws) + 1.2, 7.6)
    panels = figure.subplots(2, len(laws), squeeze=False)
    for law, plane, gaps in zip(laws, *panels, strict=True):
        here = [cell for cell in cells if cell["law"] == law]
        _draw_plane(plane, here)
        _draw_gaps(gaps, here)
        plane.set(xlabel="cover (nats a token)", title=law)
        gaps.set_xlabel(f"gap in fit to {BEST} (nats a token)")
        for panel in (plane, gaps):
            plain_axes(panel)
    panels[0][0].set_ylabel("fit (nats a token)")
    panels[0][0].legend(frameon=False, fontsize=8)
    for panel in panels[1][1:]:
        panel.set_yticklabels([])
    seeds = " ".join(map(str, sorted({cell["seed"] for cell in cells})))
    save_figure(
        figure, path, f"The same time, other news; ring: temperature 1; a point a seed ({seeds}), a line the mean"
    )


def _look(arm: str) -> dict[str, Any]:
    """What a line's legend says, its colour and its marker: those that lie on each other share them."""
    from textgan_env.ops.plots import plot_look

    groups = {"warm-up": ("warm-up, SeqKD", 0), "SeqKD": ("warm-up, SeqKD", 0), "GAD": ("GAD", 1)}
    groups |= {"forward": ("forward KL", 2), "reverse": ("reverse KL", 3)}
    label, number = groups[arm.split(" ")[0].split(",")[0]]
    if arm.startswith("GAD, ") and arm != "GAD, published KL":
        label, number = "GAD's controls", 5
    return {"label": label, **plot_look(number)}


def _draw_plane(panel: "Axes", cells: Sequence[Mapping[str, Any]]) -> None:
    """Cover against fit of each arm along temperatures, mean over seeds."""
    known: set[str] = set()
    for arm in ARMS:
        points = list(zip(*(cell["curves"][arm] for cell in cells), strict=True))
        cover, fit = ([fmean(at[name] for at in of_seeds) for of_seeds in points] for name in ("cover", "fit"))
        look = _look(arm)
        look |= {"label": None} if look["label"] in known else {}
        panel.plot(cover, fit, markersize=3.5, linewidth=1.3, **look)
        one = (fmean(at_one(cell, arm)[name] for cell in cells) for name in ("cover", "fit"))
        panel.plot(*one, "o", color=look["color"], markersize=9, fillstyle="none")
        known.add(look["label"])


def _draw_gaps(panel: "Axes", cells: Sequence[Mapping[str, Any]]) -> None:
    """A line of points each arm, the first on top."""
    arms = [arm for arm in ARMS if arm != BEST]
    for height, arm in enumerate(reversed(arms)):
        found = [gap(cell, arm, BEST) for cell in cells]
        if all(map(math.isfinite, found)):
            look = _look(arm)
            panel.plot(found, [height] * len(found), markersize=5, alpha=0.7, **look | {"linestyle": "none"})
            panel.plot([fmean(found)] * 2, [height - 0.3, height + 0.3], color=look["color"], linewidth=2)
        else:
            panel.text(0, height, " never covers so well", fontsize=8, va="center")
    panel.axvline(0, color="#8a8e93", linewidth=1)
    panel.set(yticks=range(len(arms)), yticklabels=arms[::-1], ylim=(-0.6, len(arms) - 0.4))


if __name__ == "__main__":
    main()
