"""When a discriminator helps: a map over training texts, size of the student and what the discriminator knows.

``python -m benchmarks.regimes`` works on a small oracle. In every cell the best maximum likelihood of that size is
searched on the valid split, once; then for each seed it is trained, and from it a student learns by a discriminator
that is fitted once: to the same texts (beside texts of the student, or crossed: each half beside those of a policy that
learnt the other half), to more texts, or the true log p / q itself; by SeqGAN, and by texts of its own
that are drawn again in proportion to exp(z), each beside its shuffled control. An ensemble of two of the largest
students is distilled into it, too, and so is the law: the same knowledge, but not as one number a text. Each result is
a file under --out: a command that was killed goes on where it was when it is started again, and a finished one is only
drawn.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.results import command, image_path, made_once, save, table, weights_once
from textgan_env.utils.errors import require

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.regime_arms import Scale
    from textgan_env.policies import LSTMPolicy
    from textgan_env.tasks import OracleTask

#: What the discriminator has learnt from.
KNOWS = ("same", "crossed", "more", "law")
#: Arms that learn by it -> what it knows; each has a shuffled control.
TAUGHT = {f"{knows}{way}": knows for way in ("", ", resampled") for knows in KNOWS}
#: Arms without a discriminator: taught by an ensemble of the same texts, and by the law.
DISTILLED = ("distilled", "law, distilled")
#: Students of the largest size whose ensemble teaches.
MEMBERS = 2


@dataclass(frozen=True)
class Options:
    """Map where a discriminator helps."""

    texts: tuple[int, ...] = (500, 2_000, 8_000)
    """Training texts."""
    students: tuple[int, ...] = (8, 32)
    """Widths of the student's embedding and LSTM."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of texts, weights and draws; the oracle is one."""
    small: bool = False
    """As small as it can be, to see that everything runs."""
    finished: bool = False
    """Make nothing more: only draw the finished cells."""
    out: Path = Path("runs/regimes")
    """Where every finished part is kept."""
    name: str = "regimes"
    """Of the result files and the picture."""


@command
def main(options: Options) -> None:
    """The command."""
    import torch

    from benchmarks.regime_arms import Scale

    torch.set_num_threads(1)
    least = min((*options.texts, *options.students, len(options.seeds)), default=0)
    require(least > 0, "numbers of texts, students and seeds must be above 0, and there must be some of each")
    tiny = Scale(8, 4, check=5, most_checks=3, more_texts=64, d_batches=2, g_steps=2, batch_size=16, distill_steps=2)
    scale = Scale(**asdict(tiny) | {"samples": 50}) if options.small else Scale()
    options.out.mkdir(parents=True, exist_ok=True)
    parts = _Parts(options, scale)
    for cell in product(options.seeds, options.texts, options.students):
        if not options.finished:
            parts.cell(*cell)
    report(options, scale)


class _Parts:
    """The parts of the map, each made once and kept as a file."""

    def __init__(self, options: Options, scale: "Scale") -> None:
        self.options, self.scale = options, scale
        other = f"'{options.out}' holds a map of other sizes: give another folder with --out"
        require(self.kept("scale", lambda: asdict(scale)) == asdict(scale), other)

    def cell(self, seed: int, texts: int, size: int) -> None:
        """Every arm of a cell and a seed, or what is left of them."""
        from benchmarks import regime_arms as arms

        def of(name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
            """A part of the cell."""
            print(f"{texts:,} texts, student {size}, seed {seed}: {name}", flush=True)
            return self.kept(f"{name.replace(', ', '-')}-{seed}-{texts}-{size}", make)

        task = arms.make_task(self.scale, texts, seed)
        measure: Callable[[Any], Any] = partial(arms.curve, self.scale, task, seed=seed)
        start = self.likelihood(seed, texts, size, 0)

        def reinforced(knows: str) -> dict[str, Any]:
            """Against a discriminator, and against its shuffled scores."""
            found: dict[str, Any] = {"curves": {}}
            sides = self.sides(knows, task, start, seed, texts, size)
            for name, policy, worth in arms.reinforced(self.scale, task, start, knows, sides, seed):
                found["curves"][name], found["worth"] = measure(policy), asdict(worth)
            return found

        def distilled(name: str) -> dict[str, Any]:
            """Taught by an ensemble, or by the law."""
            largest = max(self.options.students)
            teachers: list[Any] = [task.oracle]
            if name == "distilled":
                teachers = [self.likelihood(seed, texts, largest, member) for member in range(MEMBERS)]
            return {"curves": {name: measure(arms.distilled(self.scale, task, start, teachers, seed))}}

        parts = [of("MLE", lambda: {"curves": {"MLE": measure(start)}})]
        parts += [of(knows, partial(reinforced, knows)) for knows in KNOWS]
        worths = {knows: part["worth"] for knows, part in zip(KNOWS, parts[1:], strict=True)}
        parts += [of(name, partial(distilled, name)) for name in DISTILLED]
        document: dict[str, Any] = {"texts": texts, "student": size, "seed": seed, "worths": worths}
        document["curves"] = {name: curve for part in parts for name, curve in part["curves"].items()}
        self.kept(f"cell-{seed}-{texts}-{size}", lambda: document | self.searched(texts, size))

    def kept(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What stands in the file of a part; it is made where there is none."""
        return made_once(self.options.out / f"{name}.json", make)

    def searched(self, texts: int, size: int) -> dict[str, Any]:
        """The best recipe of maximum likelihood for a number of texts and a size, by the texts of seed 0."""
        from benchmarks import regime_arms as arms

        task = arms.make_task(self.scale, texts, 0)
        return self.kept(f"search-{texts}-{size}", lambda: arms.search(self.scale, task, size))

    def likelihood(self, seed: int, texts: int, size: int, member: int) -> "LSTMPolicy":
        """The best maximum likelihood; members are further ones on the same texts."""
        from benchmarks import regime_arms as arms

        def make() -> "dict[str, Tensor]":
            """Train it."""
            recipe = self.searched(texts, size)["recipe"]
            task: OracleTask = arms.make_task(self.scale, texts, seed)
            return arms.best_likelihood(self.scale, task, size, recipe, seed + 100 * member)

        return self._student(f"mle-{seed}-{texts}-{size}-{member}", size, make)

    def sides(
        self, knows: str, task: "OracleTask", start: "LSTMPolicy", seed: int, texts: int, size: int
    ) -> "list[tuple[OracleTask, LSTMPolicy]]":
        """What D is fitted to: tasks whose real texts it reads, each with who wrote what it reads beside them."""
        from benchmarks import regime_arms as arms

        if knows == "law":
            return []
        if knows != "crossed":
            more = knows == "more"
            return [(arms.make_task(self.scale, self.scale.more_texts, seed + 1_000) if more else task, start)]
        recipe = self.searched(texts, size)["recipe"]
        first, second = arms.halves_of(task)
        found = []
        for number, (read, learnt) in enumerate(((first, second), (second, first))):
            make = partial(arms.best_likelihood, self.scale, learnt, size, recipe, seed)
            found.append((read, self._student(f"half-{seed}-{texts}-{size}-{number}", size, make)))
        return found

    def _student(self, name: str, size: int, make: "Callable[[], dict[str, Tensor]]") -> "LSTMPolicy":
        """The policy whose weights stand in a file; they are made where there is none."""
        from benchmarks import regime_arms as arms

        return arms.student(self.scale, size, weights_once(self.options.out / f"{name}.safetensors", make))


# ----------------------------------------------------------------------------------------------------
# What came of it
def report(options: Options, scale: "Scale") -> None:
    """The table, the result files and the picture of the finished cells."""
    cells = [json.loads(path.read_text("utf-8")) for path in sorted(options.out.glob("cell-*.json"))]
    require(bool(cells), f"no finished cell in '{options.out}'")
    rows = [row for group in _groups(cells) for row in rows_of(group)]
    from benchmarks.regime_arms import TEMPERATURES

    seeds = sorted({cell["seed"] for cell in cells})
    sizes = ", ".join(f"{field.name} {getattr(scale, field.name):,}" for field in fields(scale))
    notes = (
        f"A random LSTM oracle 32/32 ({sizes}); {len(seeds)} seed(s): {' '.join(map(str, seeds))}; intervals from 3 "
        "seeds on. Nats per token. The start is the best maximum likelihood of the size (epochs, dropout, decay and "
        "averaged weights by the valid split). gap: the start's fit at no worse cover (its cover at temperature 1 + "
        f".05, over temperatures {max(TEMPERATURES):g} to {min(TEMPERATURES):g}) less the arm's; above 0 is better, - "
        "covers so well at none. cover gain: the start's cover less the arm's, at temperature 1. same, crossed, more, "
        "law: SeqGAN with the KL of weight 1 to the start, by a D that knows this (crossed: the same texts, each half "
        "read beside texts of a policy that learnt the other); resampled: the start learns texts of its "
        "own, drawn again in proportion to exp(z); distilled: taught by an ensemble of the same texts, or by the law. "
        "bound and weights: d'^2/2 and what weighing texts of the start with exp(logit) wins, in cover."
    )
    pairs = [_pair(cell, knows) for cell in cells for knows in KNOWS]
    print(table(rows))
    print(save(options.name, rows, notes=notes, more={"cells": cells, "pairs": pairs}))
    draw(rows, pairs, image_path(options.name), f"{len(seeds)} seed(s)")


def draw_again(kept: Mapping[str, Any], path: Path) -> None:
    """Draw the picture of a kept result."""
    draw(kept["rows"], kept["pairs"], path, f"{len({cell['seed'] for cell in kept['cells']})} seed(s)")


def _groups(cells: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The cells of one number of texts and one student, by rising numbers."""
    for key in sorted({(cell["texts"], cell["student"]) for cell in cells}):
        yield [cell for cell in cells if (cell["texts"], cell["student"]) == key]


def gap(cell: Mapping[str, Any], arm: str, start: str = "MLE") -> float:
    """The start's fit at no worse cover less that of an arm, nats per token; minus infinity if it never covers so."""
    from benchmarks.compare import best_fit
    from textgan_env.ops.metric_table import SLACK

    curves = {name: [(at["cover"], at["fit"]) for at in cell["curves"][name]] for name in (start, arm)}
    most = at_one(cell, start)["cover"] + SLACK
    return best_fit(curves[start], most) - best_fit(curves[arm], most)


def cover_gain(cell: Mapping[str, Any], arm: str, start: str = "MLE") -> float:
    """The start's cover less that of an arm, at temperature 1."""
    return at_one(cell, start)["cover"] - at_one(cell, arm)["cover"]


def at_one(cell: Mapping[str, Any], arm: str) -> Mapping[str, float]:
    """Cover and fit of an arm at temperature 1."""
    found: Mapping[str, float] = next(at for at in cell["curves"][arm] if at["temperature"] == 1.0)
    return found


def rows_of(cells: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row an arm of some cells that differ by their seed: what knows, what it won, what its control won."""
    from benchmarks.report import over_seeds

    first = cells[0]
    shared: dict[str, Any] = {"texts": first["texts"], "student": first["student"], "seeds": len(cells)}
    start = {name: fmean(at_one(cell, "MLE")[name] for cell in cells) for name in ("cover", "fit")}
    recipe = "dropout {dropout:g}, decay {weight_decay:g}".format(**first["recipe"])
    recipe += f", {first['epochs']} epochs"
    for arm in (*TAUGHT, *DISTILLED):
        row = shared | {"start": f"{start['cover']:.3f}/{start['fit']:.3f}", "recipe": recipe, "arm": arm}
        row["gap"] = over_seeds(_gaps(cells, arm))
        if arm in TAUGHT:
            row["gap, shuffled"] = over_seeds(_gaps(cells, f"{arm}, shuffled"))
        row["cover gain"] = over_seeds(tuple(cover_gain(cell, arm) for cell in cells))
        if arm in TAUGHT:
            each = [cell["worths"][TAUGHT[arm]] for cell in cells]
            worth = {name: fmean(worth[name] for worth in each) for name in each[0]}
            row |= {"AUC": worth["auc"], "bound": worth["bound"], "weights": worth["scaled_gain"]}
            row["correlation"] = worth["correlation"]
        yield row


def _gaps(cells: Sequence[Mapping[str, Any]], arm: str) -> tuple[float, ...]:
    """One gap a seed."""
    return tuple(gap(cell, arm) for cell in cells)


def _pair(cell: Mapping[str, Any], knows: str) -> dict[str, Any]:
    """A point of the scatter: a policy and a discriminator."""
    worth = cell["worths"][knows]
    found = {name: cell[name] for name in ("texts", "student", "seed")} | {"knows": knows}
    found |= {name: worth[name] for name in ("auc", "bound", "gain", "scaled_gain", "effective_share", "correlation")}
    for arm in (arm for arm, known in TAUGHT.items() if known == knows):
        won = gap(cell, arm)
        found |= {f"cover gain of {arm}": cover_gain(cell, arm), f"gap of {arm}": won if math.isfinite(won) else None}
    return found


def draw(rows: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Left, a panel a student: the gap of each arm over texts; right: bound against what a D's students won."""
    from textgan_env.ops.plots import new_figure, plain_axes, save_figure

    students, texts = (sorted({row[key] for row in rows}) for key in ("student", "texts"))
    figure = new_figure(4.2 * (len(students) + 1) + 1.8, 3.8)
    panels = figure.subplots(1, len(students) + 1, squeeze=False)[0]
    for panel, student in zip(panels, students, strict=False):
        for arm in (*TAUGHT, *DISTILLED):
            here = [row for row in rows if (row["student"], row["arm"]) == (student, arm) and row["gap"] is not None]
            panel.plot([row["texts"] for row in here], [float(row["gap"].split()[0]) for row in here], **_look(arm))
        panel.axhline(0, color="#8a8e93", linewidth=1)
        panel.set(xscale="log", xlabel="training texts", title=f"student {student}")
        panel.set_xticks(texts, labels=[f"{count:,}" for count in texts], minor=False)
        panel.set_xticks([], minor=True)
        plain_axes(panel)
    panels[0].set_ylabel("gap in fit at no worse cover (nats a token)")
    scatter = panels[-1]
    for arm, knows in TAUGHT.items():
        here = [pair for pair in pairs if pair["knows"] == knows]
        gains = [pair[f"cover gain of {arm}"] for pair in here]
        scatter.plot([pair["bound"] for pair in here], gains, **_look(arm) | {"linestyle": "none"})
    most = max((pair["bound"] for pair in pairs), default=1.0)
    scatter.plot([0, most], [0, most], color="#8a8e93", linewidth=1)
    scatter.set(xlabel="bound d'^2/2 (nats a token)", ylabel="won in cover (nats a token)")
    plain_axes(scatter)
    named = panels[0].get_legend_handles_labels()
    scatter.legend(*named, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, path, title)


def _look(arm: str) -> dict[str, Any]:
    """One colour for what D knows; SeqGAN has open marks and dashes, what was resampled filled ones."""
    from textgan_env.ops.plots import plot_look

    if arm not in TAUGHT:
        return plot_look(len(KNOWS) + DISTILLED.index(arm)) | {"label": arm}
    is_seqgan = arm in KNOWS
    look = plot_look(KNOWS.index(TAUGHT[arm])) | {"label": f"{arm}, SeqGAN" if is_seqgan else arm}
    return look | ({"fillstyle": "none", "linestyle": "--"} if is_seqgan else {})


if __name__ == "__main__":
    main()
