"""The page and the tables of a suite, from its raw results.

``python -m benchmarks.report runs/suite`` writes runs/suite/report.html, one file that needs no network, and
runs/suite/tables.md, tables.csv (every measure with its interval) and tables.tex (the first table of each task), also
while the suite runs. ``--keep NAME`` also keeps the raw results as benchmarks/results/NAME.json with its tables,
``--beside NAME ...`` with the rows of earlier ones beside them; ``--again NAME ...`` makes the tables of such results
again, and nothing else.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel
from tyro.conf import Positional

from benchmarks import charts, compare
from benchmarks.arms import BASELINE, BASELINES
from benchmarks.charts import Chart, Drawn, Point
from benchmarks.compare import Line, Results, baseline_nlls, best_baseline, cover_limits, lines_of, points_of
from benchmarks.jobs import Result, read_json
from benchmarks.results import RESULTS, cell, command, commit_of, kept, save, table
from textgan_env.ops.confidence import FEWEST_SEEDS, interval
from textgan_env.ops.metric_table import METRICS, SLACK, columns
from textgan_env.utils.errors import require, require_package
from textgan_env.utils.files import write_safely
from textgan_env.utils.options import DRAWN
from textgan_env.utils.reading import read_typed

HERE = Path(__file__).parent
#: Why a job has no result that may have one later.
NOT_FINISHED = "not finished"

SHARES = tuple(metric.name for metric in METRICS.values() if metric.unit == "share")
COSTS = tuple(metric.name for metric in METRICS.values() if metric.part == "Cost")

PRIMARY = (
    "Primary measure, named beforehand: the fit at no worse cover. It is the lowest fit at any temperature where cover "
    f"is at most that of {BASELINE} at temperature 1 plus {SLACK} nat. All other columns are exploratory."
)
NOTES = (
    "NLLs, cover, fit and scores by LSTMs in nats per token, at the arm's own temperature; the rest are shares, but "
    f"for distances. {'; '.join(f'{name}: {METRICS[name].about}' for name in ('lstm_forward', 'lstm_reverse'))}. "
    f"frechet: {METRICS['frechet_lstm'].about}. Nothing better than real text's own row is good news. "
    "Over seeds: the mean, in brackets its 95 % interval (Student's t, from 10 seeds on the studentised bootstrap; "
    f"none below {FEWEST_SEEDS} seeds, nor in the second table). gap: the baseline's primary measure less the "
    "arm's, paired by seed: above 0 the arm is better; its interval is that of these differences. P: share of pairs in "
    f"which a seed of the arm is better than one of {BASELINE}. tries: settings tried on SeqGAN's oracle before these, "
    "these included. A dash: it does not apply, or it is infinite. note: why a row cannot be compared as it stands."
)

RUNS = "{mle} stands for the run folder of the arm mle of the same seed, another name in such brackets likewise."


@dataclass(frozen=True)
class Options:
    """Write the page and the tables of a suite."""

    out: Positional[Path] = Path("runs/suite")
    """The suite's folder."""
    keep: str = ""
    """Name under which the raw results and the tables are kept in benchmarks/results; left out: nowhere."""
    beside: tuple[str, ...] = ()
    """Names of kept results of the same task whose rows join what is kept, where the suite has no such row."""
    again: tuple[str, ...] = ()
    """Names of kept results whose tables are made again from their raw results; the suite's folder is not read."""


@command
def main(options: Options) -> None:
    """The command."""
    for name in options.again:
        print(make_again(name))
    if options.again:
        return
    write_tables(options.out)
    print(write_page(options.out))
    if options.keep:
        print(keep(options.out, options.keep, options.beside))


class _Suite(BaseModel, extra="allow"):
    """What a suite writes of all its jobs."""

    options: dict[str, Any]
    failed: dict[str, str]
    results: list[Result]


def load(out: Path) -> dict[str, Any]:
    """The results of a suite, and texts of others that were scored into its folder.

    Raises:
        InputError: If there are none, or they are cut off.
    """
    path = out / "results.json"
    require(path.exists(), f"no results in '{out}': expected the file {path}, which python -m benchmarks.suite writes")
    document = read_json(path, _Suite)
    scored = [read_json(file, Result) for file in sorted((out / "scored").glob("*.json"))]
    return {**document, "results": [*document["results"], *scored]}


def tasks_of(results: Results) -> list[str]:
    """Names of tasks, in order."""
    return list(dict.fromkeys(result["config"]["task"] for result in results))


# ----------------------------------------------------------------------------------------------------
# Markdown
def write_tables(out: Path) -> str:
    """Write tables.md, tables.csv and tables.tex into the suite's folder; returns the text of the first."""
    document = load(out)
    text = tables(document)
    write_safely(out / "tables.md", text)
    lines = lines_of(document["results"])
    write_safely(out / "tables.csv", csv_of(lines))
    write_safely(out / "tables.tex", "\n".join(latex_of(task, lines) for task in tasks_of(document["results"])))
    return text


def csv_of(lines: Sequence[Line]) -> str:
    """Every measure of every row: mean over seeds, and its 95 % interval where there is one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("task", "policy", "group", "seeds", "measure", "mean", "low", "high"))
    for line in lines:
        each = {**line.each, **({"fit at no worse cover": tuple(line.primary)} if line.primary else {})}
        for name, values in each.items():
            if all(map(math.isfinite, values)):
                ends = interval(values) or ("", "")
                writer.writerow((line.task, line.name, line.group, line.seeds, name, fmean(values), *ends))
    return text.getvalue()


def latex_of(task: str, lines: Sequence[Line]) -> str:
    """The first table of a task as LaTeX that needs no package."""
    from textgan_env.show.tables import tex

    rows = [
        {name: value for name, value in headline(line).items() if name != "note"} for line in lines if line.task == task
    ]
    columns_ = filled(rows)
    head, *body = [[tex(name) for name in columns_], *([tex(cell(row.get(name))) for name in columns_] for row in rows)]
    said = "mean over seeds, in brackets the 95 % interval" if any(line.seeds > 1 for line in lines) else "one seed"
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\caption{{{tex(task)}: {tex(said)}.}}",
        rf"\begin{{tabular}}{{l{'r' * (len(columns_) - 1)}}}", r"\hline", " & ".join(head) + r" \\", r"\hline",
        *(" & ".join(cells) + r" \\" for cells in body), r"\hline", r"\end{tabular}", r"\end{table}", "",
    ])  # fmt: skip


def tables(document: Mapping[str, Any]) -> str:
    """Every table as Markdown."""
    results = document["results"]
    lines = lines_of(results)
    parts = [f"# Policies compared, preset {document['options']['preset']}", PRIMARY, NOTES]
    for task in tasks_of(results):
        of_task = [line for line in lines if line.task == task]
        parts += [
            f"## {task}", _second(results, task), *protocol(results, task), table([headline(line) for line in of_task]),
            "Exploratory:", table([exploratory(line) for line in of_task]),
            f"How each row was made (seed 0). {RUNS}", table([made(line) for line in of_task]),
        ]  # fmt: skip
    waiting = [label for label, why in document["failed"].items() if why == NOT_FINISHED]
    parts += [f"Not finished yet, {len(waiting)} jobs: {', '.join(waiting)}"] * bool(waiting)
    parts += [f"Failed: {label}: {why}" for label, why in document["failed"].items() if why != NOT_FINISHED]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(document: Mapping[str, Any]) -> str:
    """The first table of each task with a few columns, for a terminal."""
    primary = ("fit at no worse cover", f"gap to {BASELINE}", "P")
    wanted = ["policy", "seeds", "nll_test", "cover", "fit", *primary]
    wanted += ["lstm_forward", "lstm_reverse", "bleu_4", "self_bleu_4", "note"]
    parts = [PRIMARY]
    lines = lines_of(document["results"])
    for task in tasks_of(document["results"]):
        rows = [headline(line, spread=False) for line in lines if line.task == task]
        shown = [column for column in wanted if column in filled(rows)]
        parts += [f"{task}:", table([{column: row.get(column) for column in shown} for row in rows])]
    return "\n\n".join(parts)


def _second(results: Results, task: str) -> str:
    """Which baselines a task has, in a sentence."""
    here = baseline_nlls(results, task)
    if len(here) < 2:
        return f"Baseline: {BASELINE}; no other baseline was run."
    name = best_baseline(results, task)
    return f"Baselines: {BASELINE}, and the one of {', '.join(here)} with the lowest NLL on the valid split: {name}."


def protocol(results: Results, task: str) -> list[str]:
    """How the measures of a task are taken, and why some of the first table stand nowhere, in sentences."""
    rows = [row for result in results if result["config"]["task"] == task for row in result["rows"]]
    said = next((row["settings"] for row in rows if "bleu_samples" in row.get("settings", {})), None)
    told = []
    if said is not None:
        told.append(
            f"Measured on {said['samples']:,} texts a policy against the {said['split']} split. BLEU and Self-BLEU: "
            f"{said['bleu']}, {said['bleu_samples']:,} texts, {said['references']:,} references, {said['tokens']}."
        )
        told += [f"{name}: {said[name]}." for name in ("lstm", "frechet") if name in said]
    if task not in DRAWN:
        told.append("All seeds have the same training texts: intervals are those of training and writing alone.")
    for column in columns("text"):
        reasons = dict.fromkeys(row["missing"][column] for row in rows if column in row["missing"])
        if reasons and not any(column in row["values"] for row in rows):
            told.append(f"No {column}: {'; '.join(reasons)}.")
    return told


def _first_columns(line: Line) -> tuple[str, ...]:
    """The metrics of the first table, which depend on whether the oracle is known."""
    return columns("oracle" if line.primary or "nll_oracle" in line.values else "text")


def headline(line: Line, *, spread: bool = True) -> dict[str, Any]:
    """The row of the first table; ``spread``: with intervals over seeds."""
    row: dict[str, Any] = {"policy": line.name, "seeds": line.seeds}
    for column in _first_columns(line):
        row[column] = over_seeds(line.each.get(column, ())) if spread else line.values.get(column)
    if "fit" in row:
        row["fit at no worse cover"] = over_seeds(tuple(line.primary))
        row[f"gap to {BASELINE}"] = None
        row |= {f"gap to {name}": with_interval(*gap) for name, gap in line.gaps.items()}
        row["P"] = None if math.isnan(line.improvement) else f"{line.improvement:.2f}"
    row["tries"] = line.tries
    row["note"] = "; ".join(line.marks) or None
    return row


@lru_cache(maxsize=4096)  # tables and page ask for the same, and the bootstrap takes its time
def over_seeds(values: tuple[float, ...]) -> str | None:
    """The mean and its interval; None where a number is missing or infinite."""
    if not values or not all(map(math.isfinite, values)):
        return None
    return with_interval(fmean(values), interval(values))


def with_interval(value: float, ends: tuple[float, float] | None) -> str:
    """A number and its interval, as a person reads them."""
    return f"{value:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def exploratory(line: Line) -> dict[str, Any]:
    """The row of the second table: what the first does not have."""
    row: dict[str, Any] = {"policy": line.name}
    shown = _first_columns(line)
    row |= {column: line.values.get(column) for column in SHARES if column not in shown}
    return row | {column: _rounded(line.values.get(column)) for column in COSTS}


def _rounded(value: float | None) -> str | None:
    """A cost in few digits."""
    return None if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def made(line: Line) -> dict[str, Any]:
    """The row of the third table."""
    return {"policy": line.name, "what": line.how, "command": f"`{line.commands[0]}`"}


def keep(out: Path, name: str, beside: Sequence[str] = ()) -> Path:
    """Keep raw results and tables beside the other results; returns the JSON file.

    Samples, and of learning curves all that no table shows, stay in the suite's folder and on the page.

    Args:
        out: The suite's folder.
        name: Of what is kept.
        beside: Names of kept results whose rows join, but for those of a job that the suite has, too; the first of
            several is taken. What other code made is marked in the tables.
    """
    document = load(out)

    def short(row: Mapping[str, Any]) -> dict[str, Any]:
        """A result, or a row of it, without what is left out."""
        return {key: value for key, value in row.items() if key not in ("learning_curve", "samples")}

    rows = []
    for result in document["results"]:
        ends = {name: row[name] for row in result["learning_curve"] for name in compare.OF_CURVE if name in row}
        rows.append(short(result) | {"rows": list(map(short, result["rows"])), "learning_curve": [ends]})
    for earlier in map(kept_suite, beside):
        known = {row["label"] for row in rows}
        rows += [row for row in earlier["results"] if row["label"] not in known]
    more = {"options": {"preset": document["options"]["preset"]}, "failed": document["failed"]}
    path = save(name, rows, notes=f"{PRIMARY} {NOTES}", more=more)
    make_again(name)
    return path


def make_again(name: str) -> Path:
    """Write the tables of kept results from their raw numbers; returns the Markdown file."""
    path = RESULTS / f"{name}.md"
    write_safely(path, tables(kept_suite(name)))
    return path


def kept_suite(name: str) -> dict[str, Any]:
    """A kept result of a suite, as `load` gives one.

    Raises:
        InputError: If there is none, or it is of something else.
    """
    raw = kept(name)
    document = {**raw, "results": raw["rows"]}
    read_typed(_Suite, document, f"the kept result '{name}'")
    return document


# ----------------------------------------------------------------------------------------------------
# The page
def write_page(out: Path) -> Path:
    """Write report.html; returns its path."""
    document = load(out)
    results = document["results"]
    lines = lines_of(results)
    sections = [_section(task, results, [line for line in lines if line.task == task]) for task in tasks_of(results)]
    machines = [(result["machine"], result["source"]) for result in results if "machine" in result]
    origins = [f"{where['cpu']}, {where['device']}; {commit_of(source)}" for where, source in machines]
    require_package("jinja2", "suite", "the page")
    import jinja2

    loader = jinja2.FileSystemLoader(HERE)
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.globals |= {"at": charts, "filled": filled, "hint": _hint, "cell": cell}
    page = pages.get_template("report.html").render(
        document=document, sections=sections, origins=dict.fromkeys(origins), baseline=BASELINE, primary=PRIMARY,
        notes=NOTES, runs=RUNS,
    )  # fmt: skip
    path = out / "report.html"
    write_safely(path, page)
    return path


def _section(task: str, results: Results, lines: Sequence[Line]) -> dict[str, Any]:
    """What the page shows of one task."""
    of_task = [result for result in results if result["config"]["task"] == task and not result["config"]["member"]]
    first = min((result["config"]["seed"] or 0 for result in of_task), default=0)
    oracle = bool(cover_limits(results, task))
    return {
        "task": task, "told": " ".join([_second(results, task), *protocol(results, task)]),
        "headlines": list(map(headline, lines)), "exploratory": list(map(exploratory, lines)), "lines": lines,
        "gaps": [line for line in lines if oracle and BASELINE in line.gaps],
        "names": _names(of_task), "planes": _planes(of_task, oracle), "learning": _learning(of_task),
        "seed": first, "first": [result for result in of_task if (result["config"]["seed"] or 0) == first],
    }  # fmt: skip


def filled(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the columns that some row fills."""
    names = dict.fromkeys(key for row in rows for key in row)
    return [name for name in names if any(row.get(name) is not None for row in rows)]


def _hint(name: str) -> str:
    """What a browser shows of a metric when its column is pointed at."""
    if name not in METRICS:
        return ""
    metric = METRICS[name]
    parts = (metric.label, metric.unit, metric.about, metric.better and f"{metric.better} is better")
    return "; ".join(part for part in parts if part)


def _names(of_task: Results) -> list[str]:
    """Arms, in order."""
    return list(dict.fromkeys(result["config"]["arm"] for result in of_task))


def _lines(of_task: Results, points: Callable[[Mapping[str, Any]], Sequence[Point]]) -> list[Drawn]:
    """A line for each result that has points; arms are numbered in the order in which they first stand there."""
    names = _names(of_task)
    arms = [(result["config"]["arm"], points(result)) for result in of_task]
    return [Drawn(arm, names.index(arm), found) for arm, found in arms if found]


def _planes(of_task: Results, oracle: bool) -> list[Chart]:
    """Every arm in planes of two measures, a line a seed."""
    planes = [
        ("lstm_reverse", "lstm_forward", "nats per token; lower left is better, down to real text"),
        ("self_bleu_4", "bleu_4", "real text itself lies on the curve of maximum likelihood"),
    ]
    if oracle:
        planes = [
            ("cover", "fit", "nats per token; lower left is better, one line a seed, along temperatures"),
            ("nll_test", "nll_oracle", "what used to be published; it can be gamed: see docs/benchmarks.md"),
        ]
    found = []
    for x, y, about in planes:
        lines = _lines(of_task, partial(points_of, x=x, y=y))
        # What is far from maximum likelihood (uniform tokens) may leave the picture: the rest can be told apart.
        seen = [line for line in lines if line.arm in BASELINES or (line.arm == "real" and not oracle)]
        found.append(Chart(f"{y} over {x}", about, x, y, lines, seen))
    return found


def _learning(of_task: Results) -> list[Chart]:
    """NLL-valid, cover and fit, and D's AUC over the rounds of each trained arm."""

    def seen(result: Mapping[str, Any], name: str) -> list[Point]:
        """Rounds and values of a metric in the log of a run."""
        return [(row["step"], row[name]) for row in result.get("learning_curve", []) if name in row]

    return [
        Chart(METRICS[name].label, METRICS[name].about, "round", name, _lines(of_task, partial(seen, name=name)))
        for name in ("nll_valid", "fit", "cover", "d_auc")
    ]


if __name__ == "__main__":
    main()
