"""Policies side by side: runs at several temperatures, beside real text, uniform tokens and n-grams.

For example ``python -m benchmarks.policies --runs runs/mle-seqgan-oracle-1 --temperatures 1 0.8 0.6``.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.results import command, show
from textgan_env.evaluation import BLEU_SAMPLES, evaluate, overlaps
from textgan_env.ops.metric_table import evaluated
from textgan_env.policies import PolicyModule, UniformPolicy
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.loading import load_policy
from textgan_env.tasks import PLACE_OPTIONS, Task, fit_ngram, make_task
from textgan_env.utils.errors import require
from textgan_env.utils.options import SharedConfig, path_option


@dataclass(frozen=True)
class Options:
    """Policies side by side on one task."""

    task: str = "seqgan-oracle"
    """Of the rows that are no runs."""
    corpus: str | None = None
    """The task's file, where it needs one that is not in the data folder."""
    max_length: int | None = None
    """T, where it is not what the task says."""
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


COLUMNS = evaluated("test")


@command
def main(options: Options) -> None:
    """The command."""
    shown = min(BLEU_SAMPLES, options.samples)
    notes = (
        f"Task {options.task}, {options.samples:,} texts a row against the test split, seed {options.seed}; "
        f"BLEU and Self-BLEU (nltk's sentence BLEU, smoothing method 1) of the first {shown:,} of them, the whole "
        "split as references. NLLs, cover and fit in nats per token. A dash: it does not apply, or it is infinite."
    )
    show(options.name, measure(options), module="benchmarks.policies", notes=notes)


def policy_of(run: Path, task: Task) -> PolicyModule:
    """The finished policy of a run, which must be one of this task.

    Raises:
        InputError: If it is not.
    """
    policy, of_run = load_policy(run)
    same = _settings(of_run) == _settings(task) and of_run.vocabulary == task.vocabulary
    require(same, f"run '{run}' is of another task ({_settings(of_run)}), expected {_settings(task)}")
    return policy


def _settings(task: Task) -> dict[str, Any]:
    """What makes a task what it is; its files may lie elsewhere."""
    return {name: value for name, value in task.config().items() if name not in PLACE_OPTIONS}


def measure(options: Options) -> list[dict[str, Any]]:
    """One row a policy and temperature."""
    given: dict[str, Any] = {} if options.corpus is None else {path_option(options.task): options.corpus}
    if options.max_length is not None:
        given["max_length"] = options.max_length
    task = make_task(options.task, **given)
    trained = [policy_of(run, task) for run in options.runs]
    policies: list[tuple[str, int | None, Any]] = []
    if task.oracle is not None:
        policies.append(("real text (the oracle)", None, task.oracle))
    uniform = UniformPolicy(task.vocab_size, start_token=task.start_token, forbidden=task.forbidden)
    policies.append(("uniform tokens", None, uniform))
    policies += [("unigram", None, fit_ngram(task, order=1)), ("bigram", None, fit_ngram(task, order=2))]
    for run, policy in zip(options.runs, trained, strict=True):
        about = RunFolder.open(run).about
        label = label_of(about["name"].split("-")[0], about["config"], policy)
        for temperature in options.temperatures:
            decoding = replace(policy.decoding, temperature=temperature)
            policies.append((label, about["seed"], policy.with_decoding(decoding)))
    measured: list[tuple[dict[str, Any], Mapping[str, float]]] = []
    if task.oracle is None:
        values = overlaps(task, task.split("train").head(BLEU_SAMPLES).tokens_BT, "test", BLEU_SAMPLES)
        name = f"real text ({BLEU_SAMPLES:,} of training)"
        measured.append(({"policy": name, "seed": None, "temperature": None}, values))
    for name, seed, policy in policies:
        print(f"measuring {name} ...", flush=True)
        found = evaluate(policy, task, samples=options.samples, seed=options.seed)
        measured.append(({"policy": name, "seed": seed, "temperature": policy.decoding.temperature}, found.values))
    columns = [column for column in COLUMNS if any(column in values for _, values in measured)]
    rows = [row | {column: values.get(column) for column in columns} for row, values in measured]
    return rows + over_seeds(rows)


def label_of(agent: str, config: Mapping[str, Any], policy: PolicyModule) -> str:
    """What a run was: agent, preset, sizes, and every option of its own that is not the preset's."""
    module = import_module(f"agents.{agent}")
    usual = asdict(module.PRESETS[config["preset"]](config["task"]))
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
        values = {column: [row[column] for row in group] for column in columns}
        for name in ("mean", "range"):
            told = {at: fmean(each) if name == "mean" else max(each) - min(each) for at, each in values.items()}
            seeds = f"{name} of {len(group)}"
            found.append({"policy": policy, "seed": seeds, "temperature": temperature, **told})
    return found


if __name__ == "__main__":
    main()
