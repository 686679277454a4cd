"""Texts of any origin measured as the suite measures its arms, so that other systems can stand in the same table.

``python -m benchmarks.score theirs.txt --task coco`` prints the numbers; with ``--into runs/suite --name theirs`` the
texts become a row of that suite's tables and page. What takes a policy and not only its texts stays a dash.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from benchmarks.report import load, tasks_of
from benchmarks.results import command, command_line, table
from textgan_env.utils.errors import require
from textgan_env.utils.files import write_safely
from textgan_env.utils.options import TaskOptions

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.tasks import Task


@dataclass(frozen=True)
class Options:
    """Measure a file of texts, one a line."""

    file: Positional[str]
    """The texts; - reads them from a pipe."""
    task: Annotated[TaskOptions, arg(name="")] = field(default_factory=TaskOptions)
    """What they are compared with."""
    into: Path | None = None
    """A suite's folder, in whose table they are to stand."""
    name: str = ""
    """What they are called there."""
    protocol: Literal["ours", "texygen", "leakgan"] = "ours"
    """How BLEU is measured: as here, or as another code base does it; texts in the table of a suite are measured as
    all others there."""


@command
def main(options: Options) -> None:
    """The command."""
    import torch

    from textgan_env.evaluation import missing_lines
    from textgan_env.text.files import TextFile

    torch.set_num_threads(1)  # as in the jobs of a suite: the LSTMs that read must be the same
    lines = list(TextFile("/dev/stdin" if options.file == "-" else options.file))
    comparable = options.into is None or options.protocol == "ours"
    require(comparable, f"texts in the table of a suite are measured by our own protocol, found {options.protocol}")
    name = options.name or Path(options.file).stem
    result = scored(lines, options.task, name, command_line(), options.protocol)
    (row,) = result["rows"]
    print(table([{"texts": result["label"], **row["values"]}]))
    print(*[f"{key}: {value}" for key, value in row["settings"].items()], *missing_lines(row["missing"]), sep="\n")
    if options.into is not None:
        print(f"kept: {put(result, options.into)}")


def scored(
    lines: Sequence[str], options: TaskOptions, name: str, command: str, protocol: str = "ours"
) -> dict[str, Any]:
    """The result of a file of texts, in the form that results of jobs have.

    Args:
        lines: The texts.
        options: The task.
        name: What they are called.
        command: How this was made.
        protocol: Of BLEU, see `textgan_env.evaluation.PROTOCOLS`.

    Raises:
        InputError: If the task or a text is refused.
    """
    from benchmarks.measure import SIZES, text_scores
    from textgan_env.evaluation import score_texts
    from textgan_env.tasks import make_task

    task = make_task(options.task, **options.task_options())
    found = score_texts(lines, task, protocol=protocol)
    scores, missing, how = text_scores(as_written(found.tokens_BT, task), task, SIZES["fast"])
    row = {
        "variant": "", "values": {**found.values, **scores}, "missing": {**found.missing, **missing},
        "settings": {**found.settings, **how}, "samples": [line for line in lines if line.strip()][:20],
    }  # fmt: skip
    config = {"arm": name, "task": options.task, "seed": 0, "member": 0, "task_options": options.task_options()}
    return {
        "label": name, "config": config, "group": "scored", "command": command, "rows": [row],
        "how": f"{found.settings['samples']:,} texts of a file", "tries": None, "other_code": False, "curve": [],
        "learning_curve": [], "seconds": {"training": None, "all": None}, "peak_memory_mb": None,
    }  # fmt: skip


def as_written(tokens_BT: "Tensor", task: "Task") -> "Tensor":
    """Texts of a file as a policy of the task would have written them.

    Args:
        tokens_BT: int64, as `textgan_env.evaluation.score_texts` gives them: numbers above V are words that the task
            does not have.
        task: Has an unknown word, or such words are left out; and may end its texts with a token.

    Returns:
        int64 (B, any length), PAD after the end.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    unknown, end = list(task.forbidden[:1]), [] if task.end_token is None else [task.end_token]
    rows = []
    for tokens in tokens_BT.tolist():
        words = [[token] if token < task.vocab_size else unknown for token in tokens if token != task.vocab_size]
        rows.append(torch.tensor([*chain.from_iterable(words), *end], dtype=torch.int64))
    return pad_sequence(rows, batch_first=True, padding_value=task.vocab_size)


def put(result: dict[str, Any], suite: Path) -> Path:
    """Add a result to a suite's folder; returns its file.

    Raises:
        InputError: If it is no suite's folder, or has no such task.
    """
    tasks = tasks_of([result for result in load(suite)["results"] if result["group"] != "scored"])
    task = result["config"]["task"]
    require(task in tasks, f"the suite in '{suite}' has no task '{task}', only: {', '.join(tasks)}")
    (suite / "scored").mkdir(exist_ok=True)
    path = suite / "scored" / f"{result['label']}.{task}.json"
    write_safely(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return path


if __name__ == "__main__":
    main()
