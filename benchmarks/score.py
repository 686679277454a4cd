"""Texts of any origin measured as the suite measures its arms, so that other systems can stand in the same table.

``python -m benchmarks.score theirs.txt --task coco`` prints the numbers; with ``--into runs/suite --name theirs`` the
texts become a row of that suite's tables and page. What takes a policy and not only its texts stays a dash.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tyro.conf import Positional, arg

from benchmarks.measure import SIZES, text_scores
from benchmarks.report import load, tasks_of
from benchmarks.results import table
from textgan_env.evaluation import missing_lines, score_texts
from textgan_env.tasks import Task, make_task
from textgan_env.text.corpus import read_lines
from textgan_env.utils.errors import friendly_errors, require
from textgan_env.utils.files import write_safely
from textgan_env.utils.options import TaskOptions, read_words


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


def main(args: list[str] | None = None) -> None:
    """The command."""
    with friendly_errors():
        words = sys.argv[1:] if args is None else args
        options = read_words(Options, words, description=__doc__, program="python -m benchmarks.score")
        torch.set_num_threads(1)  # as in the jobs of a suite: the LSTMs that read must be the same
        lines = list(read_lines("/dev/stdin" if options.file == "-" else options.file))
        command = f"python -m benchmarks.score {shlex.join(words)}"
        leave_out = f"leave out --protocol {options.protocol}"
        comparable = options.into is None or options.protocol == "ours"
        require(comparable, f"texts in the table of a suite are measured as its arms are: {leave_out}")
        name = options.name or Path(options.file).stem
        result = scored(lines, options.task, name, command, options.protocol)
        print(table([{"texts": result["label"], **result["rows"][0]["values"]}]))
        told = [f"{key}: {value}" for key, value in result["rows"][0]["settings"].items()]
        print("\n".join([*told, *missing_lines(result["rows"][0]["missing"])]))
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
    task = make_task(options.task, **options.task_options())
    found = score_texts(lines, task, protocol=protocol)
    values, missing, settings = dict(found.values), dict(found.missing), dict(found.settings)
    if task.vocabulary is not None:
        scores, none, how = text_scores(as_written(found.tokens_BT, task), task, SIZES["fast"])
        values, missing, settings = values | scores, missing | none, settings | how
    samples = [line for line in lines if line.strip()][:20]
    row = {"variant": "", "values": values, "missing": missing, "settings": settings, "samples": samples}
    config = {"arm": name, "task": options.task, "seed": 0, "member": 0, "task_options": options.task_options()}
    about = f"{found.settings['samples']:,} texts of a file"
    nothing = {"tries": None, "seconds": {"training": None, "all": None}, "peak_memory_mb": None, "other_code": False}
    made = {"label": name, "config": config, "group": "scored", "how": about, "command": command}
    return {**made, **nothing, "rows": [row], "curve": [], "learning_curve": []}


def as_written(tokens_BT: Tensor, task: Task) -> Tensor:
    """Texts of a file as a policy of the task would have written them.

    Args:
        tokens_BT: int64, as `textgan_env.evaluation.score_texts` gives them: numbers above V are words that the task
            does not have.
        task: Has an unknown word, or such words are left out; and may end its texts with a token.

    Returns:
        int64 (B, any length), PAD after the end.
    """
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
