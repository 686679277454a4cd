"""Lines over an axis: learning curves of runs, REINFORCE on the toy task."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.pictures import Curve, Reinforce, called
from docs.examples.reinforce import Args, learn
from textgan_env.discriminators import score_logits
from textgan_env.envs import default_discriminator
from textgan_env.ops.plots import learning_curve
from textgan_env.policies import TablePolicy
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import ToyTask
from textgan_env.utils.errors import require


# ----------------------------------------------------------------------------------------------------
# Learning curves
def draw_curve(options: Curve) -> Path:
    """Write the picture; returns its path."""
    runs, measures = options.runs, options.measures
    names = called(options.names, [run.name for run in runs], "run", "runs")
    rows = of_settings(curve_rows(runs, measures, options.phase), measures, names)
    lines = {}
    for key in measures:
        unit = f"{key.replace('nll_', 'NLL-')} (nats per token)"
        lines[unit] = {f"{key} of {name}": name for name in dict.fromkeys(names)}
    phase = options.phase
    label = f"round of phase {phase}" if phase else "round (an epoch of MLE, or an adversarial round)"
    drawn = learning_curve(rows, options.path, lines=lines, x_label=label, title=options.title)
    logged = f"{', '.join(measures)} is logged in {', '.join(map(str, runs))}"
    require(drawn, f"none of {logged}: have these runs begun?")
    return options.path


def curve_rows(
    runs: Sequence[Path], measures: Sequence[str] = ("nll_valid", "nll_oracle"), phase: str = ""
) -> list[dict[str, Any]]:
    """Measures of runs as rows of one log: ``nll_valid 0`` is that of the first run.

    Args:
        runs: Run folders.
        measures: Names in their metrics.
        phase: Take this phase alone, counted from its own first round; "": the whole run, from where the run that it
            began from ends, if that is among them.

    Returns:
        The rows, with the phases of the first run that has several.

    Raises:
        InputError: If there is no run, or a folder is none.
    """
    require(bool(runs), "a curve needs at least one run folder")
    folders = [RunFolder.open(run) for run in runs]
    logs: list[list[dict[str, Any]]] = [[*read_metrics(folder.path)] for folder in folders]
    if phase:
        logs = [[row for row in log if row.get("phase") == phase] for log in logs]
        logs = [[{**row, "step": row["step"] - log[0]["step"] + 1} for row in log] for log in logs]
    last = {folder.path.name: log[-1]["step"] for folder, log in zip(folders, logs, strict=True) if log}
    phased = next((number for number, log in enumerate(logs) if len({row.get("phase") for row in log}) > 1), None)
    rows: list[dict[str, Any]] = []
    for number, (folder, log) in enumerate(zip(folders, logs, strict=True)):
        before = 0 if phase else last.get(Path(folder.about["config"].get("pretrained") or "").name, 0)
        for row in log:
            values = {f"{key} {number}": row[key] for key in measures if key in row}
            mark = {"phase": row["phase"]} if number == phased else {}
            rows.append({"step": before + row["step"], **mark, **values})
    return rows


def of_settings(
    rows: Sequence[Mapping[str, Any]], measures: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of settings from rows of runs: mean, lowest and highest of the runs of one name.

    Args:
        rows: Of `curve_rows`.
        measures: Names in the metrics.
        names: Of the settings, one a run.

    Returns:
        A row a step: ``nll_valid of NAME`` where every run of that name has a value, with `` low`` and `` high``
        where there are several runs; and the phase.
    """
    seen: dict[Any, dict[str, Any]] = {}
    for row in rows:
        at = seen.setdefault(row["step"], {})
        at |= row
    found = []
    for _, row in sorted(seen.items()):
        new: dict[str, Any] = {name: row[name] for name in ("step", "phase") if name in row}
        for measure, name in product(measures, dict.fromkeys(names)):
            keys = [f"{measure} {number}" for number, other in enumerate(names) if other == name]
            values = [row[key] for key in keys if key in row]
            if len(values) == len(keys):
                key = f"{measure} of {name}"
                new[key] = fmean(values)
                new |= {f"{key} low": min(values), f"{key} high": max(values)} if len(values) > 1 else {}
        found.append(new)
    return found


# ----------------------------------------------------------------------------------------------------
# REINFORCE
def draw_reinforce(options: Reinforce) -> Path:
    """Train the arms of docs/examples/reinforce.py and draw their exact values; returns the path of the picture."""
    common: dict[str, Any] = {"steps": options.steps, "seed": options.seed}
    arms = {
        "baseline and entropy bonus": Args(**common),
        "baseline, no bonus": Args(entropy=0.0, **common),
        "neither": Args(entropy=0.0, baseline="none", **common),
        "constant reward, neither": Args(control="constant", entropy=0.0, baseline="none", **common),
        "constant reward, baseline": Args(control="constant", entropy=0.0, **common),
    }
    task = ToyTask(seed=Args().task_seed)
    reward_S = score_logits(default_discriminator(task, seed=0), task.texts_ST).sigmoid()
    rows: list[dict[str, Any]] = [{"step": step} for step in range(options.steps + 1)]
    for name, args in arms.items():
        curve = learn(args, TablePolicy(task.vocab_size, max_length=task.max_length), task, reward_S)
        for row, (value, entropy) in zip(rows, curve, strict=True):
            row |= {f"value {name}": value, f"entropy {name}": entropy}
    values, entropies = {f"value {name}": name for name in arms}, {f"entropy {name}": name for name in arms}
    lines = {"expected R of a text": values, "entropy of texts, nats": entropies}
    levels = dict(zip(("best text", "second best"), reward_S.topk(2).values.tolist(), strict=True))
    learning_curve(rows, options.path, lines=lines, x_label="gradient step", levels=levels)
    return options.path
