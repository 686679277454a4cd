"""The demonstration: MLE, then SeqGAN from it, beside the same SeqGAN whose rewards are shuffled between the texts.

What was done before is not done again: a part that is finished is kept, one that was stopped is resumed. It ends with
what `textgan compare` says of the three runs, and one page of them.
"""

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

#: Measures of the table; `textgan compare` has all.
_MEASURES = ("nll_test", "bleu_4", "self_bleu_4", "unique", "copied_texts")


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
    mle, seqgan, control = train_runs(train, plan, runs, "demo")
    with _how_to_go_on("demo"):
        say("\n== 4 of 4: the page and the table")
        file = _page([seqgan, control, mle], runs / "report.html", plan.texts)
        _compare(mle, seqgan, control)
    say(f"\npage of all three runs: {typed_path(file)} (open it in a browser)")
    say(f"more texts: {typed_program('textgan')} sample {typed_path(seqgan)} -n 20 --temperature 0.8")
    say(f"your own text: {typed_program('textgan')} train mle --corpus my.txt")
    say(f"{process_time() / 60:.1f} minutes of processor time, in this call")
    return file


def train_runs(train: Train, plan: Plan, runs: str | Path, command: str) -> tuple[Path, Path, Path]:
    """Train what is not trained yet: three parts of the four of a command.

    Args:
        train: Trains an agent.
        plan: What to train.
        runs: Where the run folders go.
        command: Of `textgan` and of make, which goes on where it was stopped.

    Returns:
        The folders of maximum likelihood, of SeqGAN, and of its control.

    Raises:
        SystemExit, KeyboardInterrupt: When it is stopped, as they come; a sentence says how to go on.
    """
    runs = Path(runs)
    with _how_to_go_on(command):
        mle = _part("1 of 4", "maximum likelihood on real text", train, runs, "mle", ["mle", *plan.text, *plan.mle])
        options = ["seqgan", *plan.text, "--pretrained", str(mle), *plan.seqgan]
        about = "SeqGAN: a discriminator's score is the reward"
        seqgan = _part("2 of 4", about, train, runs, "seqgan", options)
        about = "its control: the same, with each text given the reward of another"
        control = _part("3 of 4", about, train, runs, "seqgan-shuffled", [*options, "--control", "shuffled"])
    return mle, seqgan, control


@contextmanager
def _how_to_go_on(command: str) -> Iterator[None]:
    """Say how the whole command is gone on with, where it is stopped."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as leaving:
        if isinstance(leaving, KeyboardInterrupt) or (isinstance(leaving.code, int) and leaving.code > 128):
            again = f"make {command}" if "MAKELEVEL" in os.environ else f"{typed_program('textgan')} {command}"
            say(f"all of it goes on from there with: {again}", file=sys.stderr)
        raise


def _part(number: str, about: str, train: Train, runs: Path, name: str, words: Sequence[str]) -> Path:
    """Train one run, or go on with it; returns its folder."""
    say(f"\n== {number}: {about}")
    words = [*words, "--name", name]
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


def _compare(mle: Path, seqgan: Path, control: Path) -> None:
    """Print both runs beside the one that they began with, and what the two verdicts say of the discriminator."""
    from textgan_env.show.compare import compare_runs
    from textgan_env.show.tables import text_table

    found = compare_runs([mle, seqgan, control], say)
    say("\n" + text_table(found.only(_MEASURES)))
    say("\n" + conclusion(*(one.verdict for one in found.differences)))


def conclusion(seqgan: str | None, control: str | None) -> str:
    """What the verdicts on two runs say of the discriminator, in a sentence.

    Args:
        seqgan: On SeqGAN beside maximum likelihood, which it began with: gain, no gain, worse, or None, not known.
        control: On SeqGAN with shuffled rewards, likewise.
    """
    if seqgan is None or control is None:
        return "So nothing can be said of the discriminator here."
    if seqgan != "gain":
        return "So the discriminator's score brought no gain that can be seen here."
    if control == "gain":
        return "So its control, whose rewards are those of other texts, gained, too: the score need not be the reason."
    return "So the gain may be due to the discriminator's score; one seed is no proof, so try others (--seed)."
