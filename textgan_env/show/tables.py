"""A comparison of runs as text, CSV, LaTeX, a page, and a picture of quality and diversity."""

import base64
import csv
import html
import io
import re
import textwrap
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from textgan_env.evaluation.verdict import as_text, difference_text, explained
from textgan_env.ops.confidence import interval
from textgan_env.ops.metric_table import ARROWS, METRICS, units_of
from textgan_env.ops.plots import new_figure, plain_axes, plot_look, save_figure
from textgan_env.show.compare import Comparison, Difference, Group

_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
_TEX |= {">": r"\textgreater{}"} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
_COLUMNS = ("measure", "about", "unit", "better", "real_text", "baseline", "baseline_value", "runs", "value",
            "difference", "low", "high", "interval_over")  # fmt: skip


def label_of(name: str) -> str:
    """What a reader sees of a measure that stands in no part of a table."""
    metric = METRICS[name]
    return f"copied {metric.label}" if name.startswith("copied") else metric.label


def how_measured(found: Comparison) -> str:
    """How the numbers came about, in a sentence."""
    said, names = found.measured, found.groups[0].means(found.groups[0].seeds)
    samples, references = (f"{said[name]:,}" if name in said else "?" for name in ("samples", "references"))
    return f"{samples} texts a run against {references} of the {said.get('split')} split; {units_of(names)}."


def _interval_note(difference: Difference) -> str:
    """What the intervals are over."""
    if not difference.over:
        return "No intervals."
    texts = "texts" in difference.over
    kind = "paired bootstrap; other seeds can differ by more" if texts else "paired by seed"
    return f"95 % intervals over {difference.over} ({kind})."


def text_table(found: Comparison) -> str:
    """The comparison for a terminal."""
    parts = [found.task, f"Measured on {how_measured(found)}"]
    for one in found.differences:
        head = f"{_described(one.now)}, compared with {_described(one.before)}. {_interval_note(one)}"
        table = as_text(one.rows, one.before.name, one.now.name, explain=False)
        parts += [_wrapped(head), table, _wrapped(one.sentence)]
    if found.differences:
        parts.append(explained([row.name for row in found.differences[0].rows]))
    else:
        parts.append(_one_setting(found.groups[0]))
    return "\n\n".join(part for part in parts if part)


def _wrapped(text: str) -> str:
    """A sentence in lines for a terminal."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _described(group: Group) -> str:
    """A group with its seeds, and that it is a control, where its name does not say so."""
    control = group.runs[0].config.get("control")
    kind = f"control {control}, " if control and f"control={control}" not in group.name else ""
    seeds = " ".join(map(str, group.seeds))
    return f"{group.name} ({kind}seed{'s' if len(group.runs) > 1 else ''} {seeds})"


def _one_setting(group: Group) -> str:
    """Means and intervals over the seeds of one setting."""
    lines = [_described(group)]
    for name, mean in group.means(group.seeds).items():
        ends = interval([run.values[name] for run in group.runs])
        lines.append(f"{name:<18} {mean:.4f}" + (f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""))
    return "\n".join(lines)


def csv_table(found: Comparison) -> str:
    """The comparison as CSV, a line for each measure of each difference."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in found.differences:
        for row in one.rows:
            metric, ends = METRICS[row.name], row.ends or ("", "")
            about = (row.name, metric.about or metric.label, metric.unit, metric.better)
            values = (row.real, one.before.name, row.before, one.now.name, row.now, row.difference, *ends)
            writer.writerow(["" if cell is None else cell for cell in (*about, *values, one.over)])
    return text.getvalue()


def latex_table(found: Comparison) -> str:
    """The comparison as a LaTeX table that needs no package and fits a column of 12 cm: a part for each difference."""
    said = [f"Measured on {how_measured(found)}", *dict.fromkeys(map(_interval_note, found.differences))]
    parts = [part for one in found.differences for part in ("", *_latex_part(one))]
    return "\n".join([
        r"\begin{table}", r"\centering", r"\footnotesize", r"\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{tex(' '.join([*said, *(one.sentence for one in found.differences)]))}}}", *parts,
        r"\end{table}", "",
    ])  # fmt: skip


def _latex_part(one: Difference) -> list[str]:
    """The lines of one difference; names stand above, as they may be long."""
    lines = []
    for row in one.rows:
        label = f"{tex(label_of(row.name))} {_TEX_ARROWS[METRICS[row.name].better]}".strip()
        cells = [label, *map(_tex_number, (row.real, row.before, row.now))]
        cells.append(f"${difference_text(row)}$".replace(" [", r" \;["))
        lines.append(" & ".join(cells).replace("$-$", "--") + r" \\")
    head = r" & real text & before & now & difference \\"
    title = tex(f"Now: {_described(one.now)}; before: {_described(one.before)}.")
    return [
        rf"\medskip {title}\par\smallskip", r"\begin{tabular}{p{0.27\linewidth}rrrr}", r"\hline", head, r"\hline",
        *lines, r"\hline", r"\end{tabular}\par",
    ]  # fmt: skip


_TEX_ARROWS = {"lower": r"$\downarrow$", "higher": r"$\uparrow$", None: ""}


def tex(text: str) -> str:
    """Plain text as LaTeX shows it."""
    return re.sub(r"[\\~^<>&%$#_{}]", lambda sign: _TEX[sign[0]], text)


def _tex_number(value: float | None) -> str:
    """A number in a table; a dash where there is none."""
    return "--" if value is None else f"${value:.4f}$"


def html_page(found: Comparison) -> str:
    """The comparison as one page that needs no other file and runs no script."""
    viewer = files("textgan_env") / "show" / "viewer"
    style = "".join((viewer / f"{name}.css").read_text("utf-8") for name in ("style", "page", "compare"))
    with TemporaryDirectory() as folder:
        picture = draw_plane(found, Path(folder) / "plane.png").read_bytes()
    image = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    names = html.escape(", ".join(group.name for group in found.groups))
    parts = "".join(map(_html_part, found.differences)) or f"<pre>{html.escape(_one_setting(found.groups[0]))}</pre>"
    rows = found.differences[0].rows if found.differences else ()
    about = "".join(
        f"<dt>{html.escape(label_of(row.name))}</dt><dd>{html.escape(METRICS[row.name].about)}</dd>"
        for row in rows
        if METRICS[row.name].about
    )
    alt = "Each setting in the plane of quality and diversity"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{names} · textgan_env</title><style>{style}</style></head><body>
<header><div><p class="eyebrow">textgan_env comparison</p><h1>{names}</h1><p class="faint">
Measured on {html.escape(how_measured(found))}</p>
<details class="small faint"><summary>The text</summary>{html.escape(found.task)}</details></div></header>
<main>{parts}<section><h2>Quality and diversity</h2><img class="plane" src="{image}" alt="{alt}"></section>
<section><h2>What the names mean</h2><dl class="words">{about}</dl></section></main></body></html>
"""


def _html_part(one: Difference) -> str:
    """The table of one difference, with its verdict above."""
    lines = "".join(
        f"<tr><th scope='row'>{html.escape(label_of(row.name))} {ARROWS[METRICS[row.name].better]}</th>"
        + "".join(f"<td>{'-' if at is None else f'{at:.4f}'}</td>" for at in (row.real, row.before, row.now))
        + f"<td class='{_side(row.worse_by())}'>{html.escape(difference_text(row))}</td></tr>"
        for row in one.rows
    )
    heads = ("real text", one.before.name, one.now.name, "difference, 95 % interval")
    head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in heads)
    title = f"{_described(one.now)}, compared with {_described(one.before)}"
    return (
        f"<section><h2>{html.escape(title)}</h2><p class='verdict'>{html.escape(one.sentence)}</p>"
        f"<p class='faint'>{html.escape(_interval_note(one))}</p><div class='wide'><table><thead><tr><th></th>{head}"
        f"</tr></thead><tbody>{lines}</tbody></table></div></section>"
    )


def _side(turned: tuple[float, float] | None) -> str:
    """Whether a difference is for the better, as a class of the style sheet."""
    return "" if turned is None else "better" if turned[1] < 0 else "worse" if turned[0] > 0 else ""


def plane_of(groups: Sequence[Group]) -> tuple[str, str]:
    """Names of the two measures of the picture: diversity across, quality up; lower is better for both."""
    values = [run.values for group in groups for run in group.runs]
    return ("cover", "fit") if all({"cover", "fit"} <= set(at) for at in values) else ("self_bleu_4", "nll_test")


def draw_plane(found: Comparison, path: Path) -> Path:
    """Write the picture of quality and diversity, a PNG: a small dot a run, a large one a setting.

    Raises:
        OSError: If it cannot be written.
    """
    across, up = plane_of(found.groups)
    figure = new_figure(6.4, 4.4)
    panel = figure.subplots()
    for number, group in enumerate(found.groups):
        look = plot_look(number) | {"linestyle": "none"}
        points = [(at[across], at[up]) for run in group.runs if {across, up} <= (at := run.values).keys()]
        if points:
            x, y = zip(*points, strict=True)
            panel.plot(x, y, markersize=4, alpha=0.45, **look)
            panel.plot(sum(x) / len(x), sum(y) / len(y), markersize=9, label=group.name, **look)
    if up in found.real and across in found.real:
        panel.plot(found.real[across], found.real[up], "*", color="#787c82", markersize=12, label="real text")
    elif across in found.real:
        panel.axvline(found.real[across], color="#787c82", linestyle=(0, (4, 3)), label="real text")
    for axis, name in ((panel.set_xlabel, across), (panel.set_ylabel, up)):
        axis(f"{METRICS[name].label} ({METRICS[name].unit}), lower is better")
    plain_axes(panel)
    panel.margins(0.12)
    panel.legend(frameon=False, fontsize=9)
    save_figure(figure, path, "Diversity (across) and quality (up)")
    return path
