"""Policies side by side: runs at several temperatures, beside real text, uniform tokens and n-grams.

For example ``python -m benchmarks.policies --runs runs/mle-seqgan-oracle-1 --temperatures 1 0.8 0.6``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents import module_of
from benchmarks.results import command, commit_of, show
from textgan_env.ops.metric_table import METRICS, PARTS
from textgan_env.utils.errors import require
from textgan_env.utils.options import SharedConfig, TaskOptions

if TYPE_CHECKING:
    from textgan_env.policies import PolicyModule
    from textgan_env.tasks import Task


@dataclass(frozen=True)
class Options(TaskOptions):
    """Policies side by side on one task."""

    task: str = "seqgan-oracle"
    """The task of the runs and of the rows that are no runs."""
    runs: tuple[Path, ...] = ()
    """Run folders of that task; each adds a row a temperature."""
    temperatures: tuple[float, ...] = (1.0,)
    """What a run's logits are divided by."""
    samples: int = 10_000
    """Texts a policy writes to be measured."""
    seed: int = 0
    """Of these texts."""
    name: str = "policies"
    """Of the result files."""


COLUMNS = [name for name, metric in METRICS.items() if metric.part in PARTS and name != "nll_valid"]


@command
def main(options: Options) -> None:
    """The command."""
    from textgan_env.evaluation import BLEU_SAMPLES

    shown = min(BLEU_SAMPLES, options.samples)
    notes = (
        f"Task {options.task}, {options.samples:,} texts a row against the test split, seed {options.seed}; "
        f"BLEU and Self-BLEU (nltk's sentence BLEU, smoothing method 1) of the first {shown:,} of them, the whole "
        "split as references. NLLs, cover and fit in nats per token. A dash: it does not apply, or it is infinite."
    )
    show(options.name, measure(options), notes=notes)


def policy_of(run: Path, task: "Task") -> "PolicyModule":
    """The finished policy of a run, which must be one of this task.

    Raises:
        InputError: If it is not.
    """
    from textgan_env.runs.loading import load_policy
    from textgan_env.tasks import PLACE_OPTIONS

    policy, of_run = load_policy(run)
    # What makes a task what it is; its files may lie elsewhere.
    found, expected = (
        {name: value for name, value in one.config().items() if name not in PLACE_OPTIONS} for one in (of_run, task)
    )
    same = found == expected and of_run.vocabulary == task.vocabulary
    require(same, f"run '{run}' is of another task ({found}), expected {expected}")
    return policy


def measure(options: Options) -> list[dict[str, Any]]:
    """One row a policy and temperature."""
    from benchmarks.measure import plain_policies
    from textgan_env.evaluation import BLEU_SAMPLES, evaluate, overlaps
    from textgan_env.runs.folder import RunFolder
    from textgan_env.runs.listing import agent_of
    from textgan_env.tasks import make_task

    task = make_task(options.task, **options.task_options())
    opened = [(policy_of(run, task), RunFolder.open(run).about) for run in options.runs]
    policies: list[tuple[str, int | None, str | None, Any]] = []
    if task.oracle is not None:
        policies.append(("real text (the oracle)", None, None, task.oracle))
    policies += [(name, None, None, policy) for name, policy in plain_policies(task).items()]
    for policy, about in opened:
        label = label_of(agent_of(about).replace("-", "_"), about["config"], policy)
        for temperature in options.temperatures:
            at_temperature = policy.with_decoding(replace(policy.decoding, temperature=temperature))
            policies.append((label, about["seed"], commit_of(about.get("source")), at_temperature))
    measured: list[tuple[dict[str, Any], Mapping[str, float]]] = []
    if task.oracle is None:
        values = overlaps(task, task.split("train").head(BLEU_SAMPLES).tokens_BT, "test", BLEU_SAMPLES)
        name = f"real text ({BLEU_SAMPLES:,} of training)"
        measured.append(({"policy": name, "seed": None, "temperature": None}, values))
    for name, seed, code, policy in policies:
        print(f"measuring {name} ...", flush=True)
        found = evaluate(policy, task, samples=options.samples, seed=options.seed)
        row = {"policy": name, "seed": seed, "temperature": policy.decoding.temperature, "trained by": code}
        measured.append((row, found.values))
    columns = [column for column in COLUMNS if any(column in values for _, values in measured)]
    rows = [row | {column: values.get(column) for column in columns} for row, values in measured]
    for row in rows:
        if uncontrolled(row, rows):
            row["note"] = "no control"
    return rows + over_seeds(rows)


def uncontrolled(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a discriminator's reward taught a policy, and none of its seed that a control taught stands beside it."""
    stem, _, reward = row["policy"].rpartition(", ")
    if reward != "real reward" or "rounds 0" in stem.split(", "):
        return False
    return not any(
        other["policy"].rpartition(", ")[0] == stem
        and other["policy"] != row["policy"]
        and other["seed"] == row["seed"]
        for other in rows
    )


def label_of(agent: str, config: Mapping[str, Any], policy: "PolicyModule") -> str:
    """What a run was: agent, preset, sizes, and every option of its own that is not the preset's."""
    usual = asdict(module_of(agent).PRESETS[config["preset"]](config["task"]))
    usual = {name: str(value) if isinstance(value, Path) else value for name, value in usual.items()}  # as in config
    common = {field.name for field in fields(SharedConfig)} | {"pretrained", "embed_size", "hidden_size", "control"}
    # An option that did not exist yet when the run was made cannot have been anything else.
    config = {**usual, **config}
    own = [f"{name} {config[name]}" for name in usual if name not in common and config[name] != usual[name]]
    if "control" in config:
        own.append(f"{config['control'] or 'real'} reward")
    sizes = policy.config()
    size = f"{sizes['embed_size']}/{sizes['hidden_size']}" if "hidden_size" in sizes else policy.kind
    return ", ".join([f"{agent} {config['preset']} {size}", *own])


def over_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each policy and temperature that has several seeds, a row of means, and one of largest less smallest."""
    groups: dict[tuple[str, float | None], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["policy"], row["temperature"]), []).append(row)
    found = []
    for (policy, temperature), group in groups.items():
        if len(group) < 2:
            continue
        columns = [column for column in COLUMNS if all(row.get(column) is not None for row in group)]
        seeds = " ".join(str(row["seed"]) for row in group)
        for name, summary in (("mean", np.mean), ("range", np.ptp)):
            told = {column: float(summary([row[column] for row in group])) for column in columns}
            found.append({"policy": policy, "seed": f"{name} of seeds {seeds}", "temperature": temperature, **told})
    return found


if __name__ == "__main__":
    main()
