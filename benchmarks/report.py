"""The page and the tables of a suite, from its raw results.

``python -m benchmarks.report runs/suite`` writes runs/suite/report.html, one file that needs no network, and
runs/suite/tables.md. ``--keep NAME`` also keeps the raw results as benchmarks/results/NAME.json with its tables.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from benchmarks import compare
from benchmarks.arms import BASELINE, BASELINES
from benchmarks.charts import Drawn, Interval, Point, chart, escaped, figure, intervals, legend
from benchmarks.compare import SLACK, Line, Results, best_of_any_size, cover_limits, lines_of, points_of
from benchmarks.jobs import read_json
from benchmarks.results import command, commit_of, save, table
from textgan_env.ops.metric_table import METRICS, columns
from textgan_env.utils.errors import require
from textgan_env.utils.files import write_safely
from textgan_env.utils.options import ORACLES

HERE = Path(__file__).parent

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
    "Over seeds: interquartile mean, in brackets the 95 % interval of the bootstrap over seeds; with one seed there is "
    "none, and in the second table there is none. gap: "
    "the baseline's primary measure less the arm's, paired by seed: above 0 the arm is better. P: probability that "
    f"a seed of the arm is better than one of {BASELINE}. tries: settings tried on SeqGAN's oracle before these, these "
    "included. A dash: it does not apply, or it is infinite."
)

RUNS = "{mle} stands for the run folder of the arm mle of the same seed, another name in such brackets likewise."


@dataclass(frozen=True)
class Options:
    """Write the page and the tables of a suite."""

    out: Positional[Path] = Path("runs/suite")
    """The suite's folder."""
    keep: str = ""
    """Name under which the raw results and the tables are kept in benchmarks/results; left out: nowhere."""


@command
def main(options: Options) -> None:
    """The command."""
    write_tables(options.out)
    print(write_page(options.out))
    if options.keep:
        print(keep(options.out, options.keep))


def load(out: Path) -> dict[str, Any]:
    """The results of a suite, and texts of others that were scored into its folder.

    Raises:
        InputError: If there are none, or they are cut off.
    """
    path = out / "results.json"
    require(path.exists(), f"no results in '{out}': expected the file {path}, which python -m benchmarks.suite writes")
    document = read_json(path, ("options", "failed", "results"))
    scored = [read_json(file, ("label", "rows")) for file in sorted((out / "scored").glob("*.json"))]
    return {**document, "results": [*document["results"], *scored]}


def tasks_of(results: Results) -> list[str]:
    """Names of tasks, in order."""
    return list(dict.fromkeys(result["config"]["task"] for result in results))


# ----------------------------------------------------------------------------------------------------
# Markdown
def write_tables(out: Path) -> str:
    """Write tables.md into the suite's folder; returns its text."""
    text = tables(load(out))
    write_safely(out / "tables.md", text)
    return text


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
    parts += [f"Failed: {label}: {why}" for label, why in document["failed"].items()]
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
        shown = [column for column in wanted if any(row.get(column) is not None for row in rows)]
        parts += [f"{task}:", table([{column: row.get(column) for column in shown} for row in rows])]
    return "\n\n".join(parts)


def _second(results: Results, task: str) -> str:
    """Which baselines a task has, in a sentence."""
    here = [arm for arm in BASELINES if any(result["config"]["arm"] == arm for result in results)]
    if len(here) < 2:
        return f"Baseline: {BASELINE}; no other size of maximum likelihood was run."
    name = best_of_any_size(results, task)
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
    if task not in ORACLES:
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
        row[column] = _over_seeds(line.each.get(column, ())) if spread else line.values.get(column)
    if "fit" in row:
        row["fit at no worse cover"] = _over_seeds(tuple(line.primary))
        row |= {f"gap to {name}": gap_text(line, name) for name in dict.fromkeys((BASELINE, *line.gaps))}
        row["P"] = None if math.isnan(line.improvement) else f"{line.improvement:.2f}"
    row["tries"] = line.tries
    row["note"] = "; ".join([*line.marks, *(["one seed"] if line.seeds == 1 else [])]) or None
    return row


@lru_cache(maxsize=4096)  # tables and page ask for the same, and the bootstrap takes its time
def _over_seeds(values: tuple[float, ...]) -> str | None:
    """Interquartile mean and its interval; None where a number is missing or infinite."""
    if not values or not all(map(math.isfinite, values)):
        return None
    return with_interval(compare.interquartile_mean(values), compare.interval([values]))


def with_interval(value: float, ends: tuple[float, float] | None) -> str:
    """A number and its interval, as a person reads them."""
    return f"{value:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def gap_text(line: Line, name: str) -> str | None:
    """The gap to a baseline; None where there is none."""
    return with_interval(*line.gaps[name]) if name in line.gaps else None


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


def keep(out: Path, name: str) -> Path:
    """Keep raw results and tables beside the other results; returns the JSON file.

    Learning curves and samples stay in the suite's folder and on the page.
    """
    document = load(out)

    def short(row: Mapping[str, Any]) -> dict[str, Any]:
        """A result, or a row of it, without what is left out."""
        return {key: value for key, value in row.items() if key not in ("learning_curve", "samples", "settings")}

    rows = [short(result) | {"rows": list(map(short, result["rows"]))} for result in document["results"]]
    path = save(name, rows, module="benchmarks.report", notes=f"{PRIMARY} {NOTES}")
    write_safely(path.with_suffix(".md"), tables(document))
    return path


# ----------------------------------------------------------------------------------------------------
# The page
def write_page(out: Path) -> Path:
    """Write report.html; returns its path."""
    document = load(out)
    results = document["results"]
    lines = lines_of(results)
    body = [
        "<header><h1>Policies compared</h1>",
        f"<p>Preset {escaped(document['options']['preset'])}. {escaped(PRIMARY)}</p>",
        _failed(document["failed"]), "</header>",
        *(_task_section(task, results, [line for line in lines if line.task == task]) for task in tasks_of(results)),
        f"<footer><p>{escaped(NOTES)}</p>{_origin(results)}</footer>",
    ]  # fmt: skip
    style, script = ((HERE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Policies compared</title>'
        f"<style>{style}</style></head><body>{''.join(body)}<script>{script}</script></body></html>\n"
    )
    path = out / "report.html"
    write_safely(path, page)
    return path


def _failed(failed: Mapping[str, str]) -> str:
    """The jobs that failed, and why."""
    rows = "".join(f"<li><b>{escaped(label)}</b>: {escaped(why)}</li>" for label, why in failed.items())
    return f'<div class="failed"><b>Not all jobs finished:</b><ul>{rows}</ul></div>' if rows else ""


def _task_section(task: str, results: Results, lines: Sequence[Line]) -> str:
    """Everything about one task."""
    of_task = [result for result in results if result["config"]["task"] == task and not result["config"]["member"]]
    oracle = bool(cover_limits(results, task))
    planes = [("cover", "fit", "nats per token; lower left is better, one line a seed, along temperatures")]
    planes += [("nll_test", "nll_oracle", "what used to be published; it can be gamed: see docs/benchmarks.md")]
    if not oracle:
        planes = [("lstm_reverse", "lstm_forward", "nats per token; lower left is better, down to real text")]
        planes += [("self_bleu_4", "bleu_4", "real text itself lies on the curve of maximum likelihood")]
    seen = BASELINES if oracle else (*BASELINES, "real")
    charts = "".join(figure(f"{y} over {x}", about, _plane(of_task, x, y, seen)) for x, y, about in planes)
    told = " ".join([_second(results, task), *protocol(results, task)])
    return "".join([
        f'<section><h2>{escaped(task)}</h2><p class="note">{escaped(told)}</p>', _table(list(map(headline, lines))),
        f"<h3>Curves</h3>{legend(_names(of_task))}<div class=charts>{charts}</div>",
        _gaps(lines) if oracle else "",
        f"<h3>While they learnt</h3><div class=charts>{_learning(of_task)}</div>",
        f"<h3>Texts, side by side</h3><p class=note>The first of seed 0, as they came.</p>{_samples(of_task)}",
        "<details><summary>Exploratory measures</summary>", _table(list(map(exploratory, lines))), "</details>",
        f"<details open><summary>How each row was made</summary><p class=note>{escaped(RUNS)}</p>", _made(lines),
        "</details></section>",
    ])  # fmt: skip


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table, without columns that no row fills; what a metric is stands behind its name."""
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if any(row.get(name) for row in rows)]
    head = "".join(f"<th{_hint(name)}>{escaped(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_cell(row.get(name)) for name in names)}</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _hint(name: str) -> str:
    """What a browser shows of a metric when its column is pointed at."""
    if name not in METRICS:
        return ""
    metric = METRICS[name]
    parts = (metric.label, metric.unit, metric.about, metric.better and f"{metric.better} is better")
    return f' title="{escaped("; ".join(part for part in parts if part))}"'


def _cell(value: Any) -> str:
    """One value in a table."""
    if value is None:
        return "<td>-</td>"
    return f"<td>{value:.3f}</td>" if isinstance(value, float) else f"<td>{escaped(value)}</td>"


def _made(lines: Sequence[Line]) -> str:
    """How each row was made."""
    rows = []
    for line in lines:
        commands = "".join(f"<code>{escaped(command)}</code>" for command in dict.fromkeys(line.commands))
        tries = "tries not counted" if line.tries is None else f"{line.tries} tries"
        note = "".join(f" <b>{escaped(mark)}</b>" for mark in line.marks)
        rows.append(f"<dt>{escaped(line.name)}</dt><dd>{escaped(line.how)}; {tries}.{note}{commands}</dd>")
    return f"<dl>{''.join(rows)}</dl>"


def _origin(results: Results) -> str:
    """Machines and commits, each once."""
    found: dict[str, None] = {}
    for result in results:
        if "machine" in result:
            where = result["machine"]
            found[f"{where['cpu']}, {where['device']}; {commit_of(result['source'])}"] = None
    return "".join(f"<p>{escaped(line)}</p>" for line in found)


def _samples(of_task: Results) -> str:
    """Texts of each arm, side by side."""
    first = min((result["config"]["seed"] or 0 for result in of_task), default=0)
    cards = []
    for result in [result for result in of_task if (result["config"]["seed"] or 0) == first]:
        for row in result["rows"]:
            texts = "".join(f"<li>{escaped(text)}</li>" for text in row["samples"][:6])
            name = f"{result['config']['arm']} {row['variant']}".strip()
            cards.append(f"<article><h4>{escaped(name)}</h4><ol>{texts}</ol></article>")
    return f"<div class=cards>{''.join(cards)}</div>"


def _lines(of_task: Results, points: Callable[[Mapping[str, Any]], Sequence[Point]]) -> list[Drawn]:
    """A line for each result that has points; arms are numbered in the order in which they first stand there."""
    names = _names(of_task)
    arms = [(result["config"]["arm"], points(result)) for result in of_task]
    return [Drawn(arm, names.index(arm), found) for arm, found in arms if found]


def _names(of_task: Results) -> list[str]:
    """Arms, in order."""
    return list(dict.fromkeys(result["config"]["arm"] for result in of_task))


def _plane(of_task: Results, x: str, y: str, seen: Iterable[str]) -> str:
    """Every arm in the plane of two measures, a line a seed; those of ``seen`` whole."""
    lines = _lines(of_task, lambda result: points_of(result, x, y))
    # What is far from maximum likelihood (uniform tokens) may leave the picture, so that the rest can be told apart.
    return chart(lines, x, y, seen=[line for line in lines if line.arm in seen])


def _learning(of_task: Results) -> str:
    """NLL-valid, cover and fit, and D's AUC over the rounds of each trained arm."""

    def seen(result: Mapping[str, Any], name: str) -> list[Point]:
        """Rounds and values of a metric in the log of a run."""
        return [(row["step"], row[name]) for row in result.get("learning_curve", []) if name in row]

    found = []
    for name in ("nll_valid", "fit", "cover", "d_auc"):
        svg = chart(_lines(of_task, lambda result, name=name: seen(result, name)), "round", name)  # type: ignore[misc]
        found.append(figure(METRICS[name].label, METRICS[name].about, svg))
    return "".join(found)


def _gaps(lines: Sequence[Line]) -> str:
    """Gap to the baseline with its interval: a line for each arm, the controls beside what they are controls of."""
    known = [line for line in lines if BASELINE in line.gaps]
    rows = [Interval(line.name, *line.gaps[BASELINE], hollow=line.group.endswith("controls")) for line in known]
    about = f"{BASELINE}'s fit at no worse cover less the arm's, paired by seed; right of 0 is better; hollow: controls"
    drawn = figure("gap", about, intervals(rows))
    return drawn and f"<h3>Gap to {BASELINE}</h3><div class=charts>{drawn}</div>"


if __name__ == "__main__":
    main()
