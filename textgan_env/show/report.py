"""One page about one or several runs of a task: a file that opens from disk and asks nothing of any network.

`report_data` collects what there is to show as plain data, `write_report` puts it into the page in
``textgan_env/show/viewer``. The page draws; it computes no result.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack

import numpy as np
import torch

from textgan_env import __version__
from textgan_env.discriminators import score_features
from textgan_env.ops import metric_table
from textgan_env.ops.colours import DARK_SCALE, SCALE
from textgan_env.policies import PolicyModule
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import Row, read_metrics
from textgan_env.show.saved import SavedRun
from textgan_env.show.traces import Plane, RunDiscriminator, Trace, real_texts, write_traces
from textgan_env.tasks import Task
from textgan_env.utils import molecules
from textgan_env.utils.errors import InputError, require
from textgan_env.utils.files import write_safely

#: What the page shows, as JSON can hold it.
Data = dict[str, Any]
Item = TypeVar("Item")

_MOST_RUNS = 6
_DOTS = 300  # real texts drawn on the plane
_PARTS = 8  # of D's logit, the strongest
_POINTS = 300  # of a curve
_EVALUATIONS = 60
_TEXTS_OF_AN_EVALUATION = 8
_DIGITS = 4  # of a probability
_NOT_SHOWN = "(not shown: the run keeps no hash of its text, as in earlier versions)"


class ReportOptions(TypedDict, total=False):
    """Options of a page, as `report_data` explains them."""

    texts: int
    rollouts: int
    temperature: float | None
    seed: int
    discriminator: Literal["own", "default"]
    say: Callable[[str], None]


def write_report(runs: Sequence[str | Path], out: str | Path | None = None, **options: Unpack[ReportOptions]) -> Path:
    """Write the page; the same runs and options give the same file.

    Args:
        runs: Folders of runs of one task.
        out: The file; None: ``report.html`` in the folder of the first run.
        **options: As `report_data` takes them.

    Returns:
        The file.

    Raises:
        InputError: As `report_data`, or if the file cannot stand where it is asked for.
        OSError: If it cannot be written; an older one stays as it was.
    """
    require(len(runs) >= 1, "a report needs at least one run folder, found none")
    file = Path(runs[0]) / "report.html" if out is None else Path(out)
    if out is not None:
        require(not file.is_dir(), f"'{file}' is a folder, expected the name of the page's file")
        require(file.parent.is_dir(), f"there is no folder '{file.parent}' to write the page into")
    write_safely(file, page(report_data(runs, **options)))
    return file


def report_data(
    runs: Sequence[str | Path],
    *,
    texts: int = 6,
    rollouts: int = 16,
    temperature: float | None = None,
    seed: int = 0,
    discriminator: Literal["own", "default"] = "own",
    say: Callable[[str], None] = lambda _: None,
) -> Data:
    """All that the page shows, as JSON can hold it, rounded.

    Args:
        runs: Folders of runs of one task, at most 6.
        texts: How many texts each policy writes; they are the first of `textgan sample` with this seed.
        rollouts: N, completions behind each of their tokens.
        temperature: Of these texts and completions; None: that of each run.
        seed: Of their draws.
        discriminator: own: the D of each run where it has one that learnt, else the default one of the task; default:
            that one for all, so that Q of several runs compare.
        say: Is told what is being done.

    Raises:
        InputError: If a folder is not that of a run with a whole checkpoint, the runs are of several tasks, or a
            number is out of its range.
        MissingDataError: If the text of the task is not here any more.
    """
    require(1 <= len(runs) <= _MOST_RUNS, f"a report shows 1 to {_MOST_RUNS} runs, found {len(runs)}")
    require(1 <= texts <= 20, f"texts must be 1 to 20, found {texts}")
    require(1 <= rollouts <= 64, f"rollouts must be 1 to 64, found {rollouts}")
    if discriminator not in ("own", "default"):
        raise InputError(f"discriminator must be own or default, found '{discriminator}'")
    traced = []
    for run in _of_one_task([SavedRun.load(run) for run in runs]):
        own = discriminator == "own" and run.discriminator is not None
        what = "reading its discriminator" if own else "fitting the default discriminator (minutes on a large text)"
        say(f"{run.folder.path}: {what}")
        policy = run.decoded(temperature=temperature)
        judged = RunDiscriminator.of_run(run, own=own, policy=policy, seed=seed)
        say(f"{run.folder.path}: writing {texts} texts and {rollouts} completions behind each of their tokens")
        found = write_traces(policy, run.task, judged.network, texts, rollouts=rollouts, seed=seed)
        traced.append(_Traced(run, policy, judged, found))
    return {"version": __version__, "seed": seed, "rollouts": rollouts, **_shown(traced)}


@dataclass(frozen=True)
class _Traced:
    """A run, who judges it, and what it wrote for the page."""

    run: SavedRun
    policy: PolicyModule
    discriminator: RunDiscriminator
    traces: list[Trace]


def _shown(traced: Sequence[_Traced]) -> Data:
    """The runs, and what they share: words, colours, the task."""
    task = traced[0].run.task
    used = sorted({token for one in traced for each in one.traces for token in _tokens(each)})
    place = {token: index for index, token in enumerate(used)}
    return {
        "metrics": metric_table.documents(),
        "task": _task_data(task, traced[0].run.folder),
        "words": ["" if token == task.end_token else task.words([token])[0] for token in used],
        "end": None if task.end_token is None else place.get(task.end_token),
        "glue": " " if task.vocabulary is None else task.vocabulary.glue,
        "limits": [0.0, 1.0],  # the pale middle is .5: the discriminator does not know
        "scale": SCALE.astype(int).tolist(),
        "dark": DARK_SCALE.astype(int).tolist(),
        "runs": [
            _run_data(one.run, one.policy, {other.run.folder.path.resolve() for other in traced})
            | _traces_data(task, one.discriminator, one.traces, place)
            for one in traced
        ],
    }


def page(data: Data) -> str:
    """The page with some data in it: one HTML text that needs no other file.

    Whatever stands in the data is text to the page: no ``<`` of it reaches the HTML as it is, and the page's policy
    lets no script run but its own, whose hash it names.

    Args:
        data: As `report_data` gives it.
    """
    viewer = files("textgan_env") / "show" / "viewer"
    shared, style, script, template = (
        (viewer / name).read_text("utf-8") for name in ("style.css", "page.css", "page.js", "page.html")
    )
    style = shared + style
    inline = json.dumps(_finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    inline = inline.replace("<", "\\u003c")
    policy = f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
    policy += "base-uri 'none'; form-action 'none'"
    names = ", ".join(run["name"] for run in data["runs"])
    parts = {"title": html.escape(names), "policy": policy, "style": style, "script": script, "data": inline}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _finite(value: Any) -> Any:
    """Data without the numbers that JSON does not have: null stands for them."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _hash(text: str) -> str:
    """The hash of a script or style, as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _of_one_task(runs: list[SavedRun]) -> list[SavedRun]:
    """The runs with one task object for all: its default discriminator is fitted once."""
    first = runs[0]
    for run in runs[1:]:
        one, other = (f"task '{at.name}' with V={at.vocab_size} and T={at.max_length}" for at in (first.task, run.task))
        same, differ = one == other and first.task.vocabulary == run.task.vocabulary, ", but their words differ"
        found = f"'{run.folder.path}' is of {other}, '{first.folder.path}' of {one}{differ * (one == other)}"
        require(same, f"a report compares runs of one task: {found}")
    return [replace(run, task=first.task) for run in runs]


def _tokens(trace: Trace) -> list[int]:
    """Every token that the page shows of a text and its completions."""
    return [*trace.tokens, *(token for each in trace.completions for text in each for token in text.tokens)]


def _task_data(task: Task, folder: RunFolder) -> Data:
    """What the page says of the task."""
    about = folder.about["task"] or {}
    sizes = {"tokens": task.vocab_size, "length": task.max_length, "oracle": task.oracle is not None}
    return {"name": task.name, "about": str(about.get("about", task)), **sizes}


def _run_data(run: SavedRun, policy: PolicyModule, others: Collection[Path]) -> Data:
    """How the run was made, and how it learnt: its rounds come after those of the run that it began from."""
    folder, about = run.folder, run.folder.about
    before = _pretraining(folder)
    ahead = int(before[-1]["step"]) if before else 0
    rows: list[Row] = [row | {"step": int(row["step"]) + ahead} for row in read_metrics(folder.path)]
    if Path(str(about["config"].get("pretrained"))).resolve() in others:
        before = []  # that run draws them itself
    names = dict.fromkeys(name for row in [*before, *rows] for name in row if name not in ("step", "phase"))
    evaluations = _evenly(folder.samples(), _EVALUATIONS)
    command = [str(word) for word in about.get("command", [])]
    made = {"command": command, "source": about.get("source"), "python": about.get("python")}
    made |= {"versions": about.get("versions", {}), "machine": about.get("machine", {})}
    return {
        "name": folder.path.resolve().name,
        "made": made | {"seed": about.get("seed"), "config": about["config"]},
        "control": about["config"].get("control"),
        "decoding": asdict(policy.decoding),
        "evaluation": _evaluation(folder),
        "phases": _phases([*before, *rows]),
        "curves": {name: curve for name in names if (curve := _curve([*before, *rows], name))},
        "samples": [[step + ahead, texts[:_TEXTS_OF_AN_EVALUATION]] for step, texts in evaluations],
    }


def _pretraining(folder: RunFolder) -> list[Row]:
    """What the run measured that this one began from."""
    if not folder.pretraining_file.is_file():
        return []
    rows = read_metrics(folder.path, folder.pretraining_file.name)
    run = Path(str(folder.about["config"].get("pretrained"))).name
    return [row | {"phase": f"{row['phase']} in {run}"} for row in rows]


def _phases(rows: Sequence[Row]) -> list[Data]:
    """Where each phase begins and ends."""
    groups = [(name, [row["step"] for row in group]) for name, group in groupby(rows, key=lambda row: row["phase"])]
    return [{"name": name, "first": steps[0], "last": steps[-1]} for name, steps in groups]


def _curve(rows: Sequence[Row], name: str) -> list[list[float]]:
    """Steps and values of a measurement; [] where there is no finite number."""
    numbers = [(int(row["step"]), float(at)) for row in rows if isinstance(at := row.get(name), int | float)]
    points = _evenly([point for point in numbers if math.isfinite(point[1])], _POINTS)
    return [[step for step, _ in points], [_short(value, 6) for _, value in points]] if points else []


def _evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[at] for at in np.linspace(0, len(items) - 1, most).round().astype(int)]


def _evaluation(folder: RunFolder) -> Data | None:
    """What the run measured at its end; None where it has not ended."""
    found = folder.evaluation
    return found and found | {"values": {name: _short(value) for name, value in found["values"].items()}}


def _discriminator_data(discriminator: RunDiscriminator) -> Data:
    """Who scored the texts, and how well."""
    report, names = discriminator.report, ("auc", "accuracy", "accuracy_real", "accuracy_fake")
    found = {name: None if report is None else _short(getattr(report, name)) for name in names}
    kind, features = discriminator.network.kind, discriminator.network.feature_size
    return {"own": discriminator.own, "kind": kind, "features": features, "texts": discriminator.texts, **found}


def _traces_data(
    task: Task, discriminator: RunDiscriminator, traces: Sequence[Trace], place: Mapping[int, int]
) -> Data:
    """The texts, and where they lie among real ones."""
    split, real_BT = real_texts(task)
    features_BF = score_features(discriminator.network, real_BT)
    onto = Plane.through(features_BF)
    shown_dF = features_BF[:_DOTS]
    shown = task.text if task.proven else lambda _: _NOT_SHOWN
    return {
        "discriminator": _discriminator_data(discriminator),
        "variance": [_short(share) for share in onto.shares],
        "real_split": split,
        "real": _points(onto.project(shown_dF)),
        "real_texts": [shown(tokens) for tokens in real_BT[:_DOTS].tolist()],
        "texts": [_text_data(task, trace, place, onto, shown_dF) for trace in traces],
    }


def _text_data(task: Task, trace: Trace, place: Mapping[int, int], onto: Plane, real_dF: torch.Tensor) -> Data:
    """One text, its tokens as their places among the words of the page."""
    text = task.text(trace.tokens)
    return {
        "text": text,
        "picture": molecules.picture_address(text) if task.language == "molecules" else None,
        "tokens": [place[token] for token in trace.tokens],
        "q": [round(value, _DIGITS) for value in trace.q],
        "stopped": [round(value, _DIGITS) for value in trace.stopped],
        "completions": [
            [[round(one.score_real, _DIGITS), [place[token] for token in one.tokens]] for one in each]
            for each in trace.completions
        ],
        "parts": _parts(trace),
        "path": _points(onto.project(trace.features_SF)),
        "nearest": int(torch.cdist(trace.features_SF[-1:], real_dF).argmin()),
    }


def _parts(trace: Trace) -> Data:
    """The strongest parts of D's logit, and the sum of all others."""
    *parts, constant = trace.parts
    strongest = sorted(parts, key=lambda part: -abs(part.value))[:_PARTS]
    total = math.fsum(part.value for part in trace.parts)
    return {
        "logit": _short(total),
        "constant": _short(constant.value),
        "strongest": [[part.name, list(part.positions), _short(part.value)] for part in strongest],
        "others": len(parts) - len(strongest),
        "rest": _short(total - constant.value - math.fsum(part.value for part in strongest)),
    }


def _points(points_B2: torch.Tensor) -> list[list[float]]:
    """Points on the plane, rounded."""
    return [[_short(x), _short(y)] for x, y in points_B2.tolist()]


def _short(value: float, digits: int = 4) -> float:
    """As many digits as a page can show."""
    return float(f"{value:.{digits}g}")
