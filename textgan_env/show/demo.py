"""The demonstration: MLE, then SeqGAN from it, beside the same SeqGAN whose rewards are shuffled between the texts.

What was done before is not done again: a part that is finished is kept, one that was stopped is resumed. It ends with
a table, what the table says, and one page of all three runs.
"""

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

from textgan_env.utils.errors import InputError
from textgan_env.utils.printing import say
from textgan_env.utils.programs import typed_path, typed_program

#: What trains an agent: the words of `textgan train`.
Train = Callable[[list[str]], None]

#: Columns of the table: heading, name of the number in a run's evaluation, digits.
_COLUMNS = (
    ("NLL-test", "nll_test", 3), ("BLEU-3", "bleu_3", 3), ("Self-BLEU-3", "self_bleu_3", 3),
    ("different texts", "unique", 3), ("copied texts", "copied_texts", 3),
)  # fmt: skip
_EXPLAINED = """\
NLL-test: how unlikely the policy finds real texts, in nats per token; lower is better. BLEU-3: how many of its word
triples are real. Self-BLEU-3: how much its texts have in common. Good is what is near the row of real text."""
_VISIBLE = 0.01  # nats per token: smaller differences are not worth a word


@dataclass(frozen=True)
class Plan:
    """What the demonstration trains.

    Attributes:
        text: Options that say which text, and how texts are generated; all parts have them.
        mle: Further options of maximum likelihood.
        seqgan: Further options of SeqGAN and of its control.
        texts: How many texts of each policy the page shows.
    """

    text: tuple[str, ...]
    mle: tuple[str, ...]
    seqgan: tuple[str, ...]
    texts: int


def _words(line: str) -> tuple[str, ...]:
    """A line of options, taken apart."""
    return tuple(line.split())


_GLOSSES = "--task wordnet-glosses --temperature 0.6"
#: By preset.
PLANS = {
    "fast": Plan(
        _words(f"{_GLOSSES} --max-length 10 --eval-samples 2000 --show-samples 2"),
        _words("--epochs 10 --eval-every 2"),
        _words("--d-pretraining 2 --rounds 4 --g-steps 5"),
        4,
    ),
    "smoke": Plan(_words(f"{_GLOSSES} --max-length 5 --preset smoke --show-samples 0"), (), (), 1),
}


def run_demo(train: Train, plan: Plan, runs: str | Path) -> Path:
    """Train what is not trained yet, then print the table and write the page.

    Args:
        train: Trains an agent.
        plan: What to train.
        runs: Where the run folders and the page go.

    Returns:
        The page.

    Raises:
        SystemExit, KeyboardInterrupt: When it is stopped, as they come; a sentence says how to go on.
        InputError: If a run or the text cannot be read.
    """
    runs = Path(runs)
    with _how_to_go_on():
        mle = _part("1 of 4", "maximum likelihood on real text", train, runs, ["mle", *plan.text, *plan.mle])
        options = [*plan.text, "--pretrained", str(mle), *plan.seqgan]
        about = "SeqGAN: a discriminator's score is the reward"
        seqgan = _part("2 of 4", about, train, runs, ["seqgan", *options])
        about = "its control: the same, with each text given the reward of another"
        control = _part("3 of 4", about, train, runs, ["seqgan", *options, "--control", "shuffled"])
        say("\n== 4 of 4: the page and the table")
        file = _page([seqgan, control, mle], runs / "report.html", plan.texts)
        _print_table({"MLE": mle, "SeqGAN": seqgan, "SeqGAN, shuffled reward": control})
    say(f"\npage of all three runs: {typed_path(file)} (open it in a browser)")
    say(f"more texts: {typed_program('textgan')} sample {typed_path(seqgan)} -n 20 --temperature 0.8")
    say(f"your own text: {typed_program('textgan')} train mle --corpus my.txt")
    say(f"{process_time() / 60:.1f} minutes of processor time, in this call")
    return file


@contextmanager
def _how_to_go_on() -> Iterator[None]:
    """Say how the whole demonstration is gone on with, where it is stopped."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as leaving:
        if isinstance(leaving, KeyboardInterrupt) or (isinstance(leaving.code, int) and leaving.code > 128):
            again = "make demo" if "MAKELEVEL" in os.environ else f"{typed_program('textgan')} demo"
            say(f"the demo goes on from there with: {again}", file=sys.stderr)
        raise


def _part(number: str, about: str, train: Train, runs: Path, words: Sequence[str]) -> Path:
    """Train one run, or go on with it; returns its folder."""
    say(f"\n== {number}: {about}")
    found = _newest(runs, words)
    if found is not None and found.evaluation is not None:
        say(f"already there: {typed_path(found.path)}")
        return Path(found.path)
    if found is not None and (found.last_checkpoint.exists() or found.previous_checkpoint.exists()):
        train([words[0], "--resume", str(found.path)])
        return Path(found.path)
    train([*words, "--runs", str(runs)])
    made = _newest(runs, words)
    assert made is not None, "a run that has trained is found by its command"
    return Path(made.path)


def _newest(runs: Path, words: Sequence[str]) -> Any:
    """The newest `RunFolder` that these words have made; None: there is none."""
    from textgan_env.runs.folder import RunFolder

    command, found = [f"textgan train {words[0]}", *words[1:], "--runs", str(runs)], []
    for folder in runs.glob(f"{words[0]}-*"):
        try:
            run = RunFolder.open(folder)
            if run.about.get("command") == command:
                found.append(run)
        except InputError:  # a folder of somebody else, or one that a crash left half made
            continue
    return max(found, key=lambda run: run.config_file.stat().st_mtime, default=None)


def _page(folders: Sequence[Path], file: Path, texts: int) -> Path:
    """Write the page, if it is not there already."""
    import torch

    from textgan_env.runs.folder import RunFolder
    from textgan_env.show.report import write_report

    ends = [RunFolder(folder).evaluation_file.stat().st_mtime for folder in folders]
    if file.is_file() and file.stat().st_mtime > max(ends):
        return file
    torch.set_num_threads(1)  # texts one by one: further threads would wait for one another
    return write_report(folders, file, texts=texts, rollouts=8, say=say)


def _print_table(runs: dict[str, Path]) -> None:
    """Print one row a policy below that of real text, what the columns are, and what the numbers say."""
    from textgan_env.evaluation import score_texts
    from textgan_env.runs.folder import RunFolder
    from textgan_env.show.saved import SavedRun
    from textgan_env.tasks import Task

    found = {name: RunFolder.open(folder).evaluation for name, folder in runs.items()}
    values: dict[str, dict[str, float]] = {name: each["values"] for name, each in found.items() if each is not None}
    task: Task = SavedRun.load(next(iter(runs.values()))).task
    real = score_texts([task.text(tokens) for tokens in task.split("valid").tokens_BT.tolist()], task).values
    say("\n" + table({"real text (valid split)": dict(real), **values}))
    say(f"\n{_EXPLAINED}\n\n{verdict(*(values[name]['nll_test'] for name in runs))}")


def table(rows: dict[str, dict[str, float]]) -> str:
    """Numbers in columns, one row a policy.

    Args:
        rows: Name of the policy -> name of the number -> number; one that is not there stays empty.
    """
    shown = {
        name: [f"{values[key]:.{digits}f}" if key in values else "" for _, key, digits in _COLUMNS]
        for name, values in rows.items()
    }
    width = max(map(len, shown))
    heads = [head for head, _, _ in _COLUMNS]
    lines = [" " * width + "".join(f"  {head}" for head in heads)]
    for name, cells in shown.items():
        aligned = (f"  {cell:>{len(head)}}" for cell, head in zip(cells, heads, strict=True))
        lines.append(f"{name:<{width}}" + "".join(aligned))
    return "\n".join(lines)


def verdict(mle: float, seqgan: float, control: float) -> str:
    """What NLL-test of the three runs says of the discriminator, in a sentence or two.

    Args:
        mle: Of maximum likelihood, nats per token.
        seqgan: Of SeqGAN, which began there.
        control: Of SeqGAN with shuffled rewards, which began there, too.
    """
    gain, gain_control = mle - seqgan, mle - control
    moved = f"SeqGAN changed NLL-test by {seqgan - mle:+.3f}, its control by {control - mle:+.3f}"
    if not all(map(math.isfinite, (gain, gain_control))):
        return "No comparison: a policy gives a real text no probability at all."
    if gain < _VISIBLE:
        rest = "adversarial training gained nothing that can be seen here"
    elif gain < gain_control + _VISIBLE:
        rest = "the control gained as much, so the discriminator's score is not the reason"
    else:
        rest = "the difference may be due to the discriminator; one seed is no proof, so try others (--seed)"
    return f"{moved}: {rest}."
