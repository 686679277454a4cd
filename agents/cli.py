"""The command `textgan`: train on your own text, generate texts with the result, evaluate it, inspect text files.

Each function in `COMMANDS` is a command: its arguments are the options, its docstring is the help.
``textgan train NAME`` is agents/NAME.py.
"""

import ast
import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import tee
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from textgan_env import __version__
from textgan_env.utils.errors import DEBUG, InputError, friendly_errors, require, require_known
from textgan_env.utils.kinds import LANGUAGE_MODELS
from textgan_env.utils.options import DRAWN, TaskOptions, read_words
from textgan_env.utils.printing import say, say_json

if TYPE_CHECKING:
    from textgan_env.evaluation import Evaluation
    from textgan_env.tasks import CorpusTask, Task

#: The folder of the agents.
HERE = Path(__file__).parent
#: Names that `textgan train` takes.
AGENTS = tuple(sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("__init__", "cli")))


@dataclass(frozen=True)
class _Decoding:
    """How tokens are chosen from a policy's distribution."""

    temperature: float | None = None
    """Below 1 generates safer text, above 1 more varied text; left out: that of the run."""
    top_k: int | None = None
    """Choose one of the k most probable tokens only; 1 chooses the most probable token always."""
    top_p: float | None = None
    """Choose one of the most probable tokens that together reach this probability only."""


@dataclass(frozen=True)
class _Reading(TaskOptions):
    """How the lines of a text become tokens; the text itself is another argument."""

    task: Annotated[str, tyro.conf.Suppress] = "corpus"
    corpus: Annotated[str | None, tyro.conf.Suppress] = None
    text_seed: Annotated[int | None, tyro.conf.Suppress] = None


def train(words: list[str]) -> None:
    """Train an agent on your text, or on a named one, and keep everything in a run folder."""
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        sources = {agent: ast.parse((HERE / f"{agent}.py").read_text("utf-8")) for agent in AGENTS}
        rows = [(agent, _first_line(ast.get_docstring(source))) for agent, source in sources.items()]
        say(f"usage: textgan train AGENT [--corpus FILE] [options]\n\n{train.__doc__}\n\n{_table(rows)}\n")
        say("For example: textgan train mle --corpus my.txt\nAll options: textgan train mle --help")
        return
    require_known("agent", name, AGENTS)
    module = importlib.import_module(f"{__package__}.{name}" if __package__ else name)
    command, sys.argv = sys.argv, [f"textgan train {name}", *words[1:]]  # its help and its run folder show this
    try:
        module.main(words[1:])
    finally:
        sys.argv = command


def suite(words: list[str]) -> None:
    """Compare many policies over tasks and seeds: the benchmark suite, killed and resumed as you like."""
    package = "textgan_env.benchmarks" if (HERE.parent / "show").is_dir() else "benchmarks"
    if package == "benchmarks":  # a checkout
        sys.path.insert(0, str(HERE.parent))
    importlib.import_module(f"{package}.suite").main(words, program="textgan suite")


def sample(
    run: Positional[Path],
    n: Annotated[int, arg(aliases=("-n",))] = 20,
    decoding: Annotated[_Decoding, arg(name="")] = _Decoding(),
    prefix: str = "",
    template: str | None = None,
    seed: int = 0,
    best_of: int = 1,
    objective: str | None = None,
    midi: Path | None = None,
    draw: Path | None = None,
    max_length: int | None = None,
) -> None:
    """Generate texts with the policy of a run, one a line.

    For example: textgan sample runs/mle-my-1 -n 5 --prefix "a man" --temperature 0.8
    or, with blanks to fill: textgan sample runs/maskgan-my-1 -n 5 --template "a ___ cat"

    Args:
        run: The run folder; wordnet or wordnet/seqgan: of the trained weights that `textgan weights` makes; or
            smollm2, a pretrained language model as it is, where no folder has that name.
        n: Number of texts.
        decoding: How tokens are chosen.
        prefix: What every text begins with, in words of the text that the run has learnt from.
        template: A whole text with ___ for each blank, one token each. A run of maskgan sees both sides of a blank, all
            others only what stands before it.
        seed: The same seed generates the same texts.
        best_of: Texts generated for each that is printed, the best of them by --objective.
        objective: NAME:ARGUMENT or FILE.py:NAME, as `textgan train seqgan` takes it.
        midi: A folder that gets every text as a MIDI file, too: for runs on task music, needs the extra music.
        draw: An SVG file of these molecules, those that are: for runs on molecules, needs the extra chem.
        max_length: Of smollm2: the most subwords of a text, its prefix counted [48].
    """
    from textgan_env import load, load_model

    model = str(run) in LANGUAGE_MODELS and not run.exists()
    require(model or max_length is None, "the length of a run's texts is the run's: leave out --max-length")
    saved = load_model(str(run), 48 if max_length is None else max_length) if model else load(run)
    require((objective is not None) == (best_of > 1), f"--best-of {best_of} and --objective go together")
    texts = saved.stream(n * best_of, prefix=prefix, template=template, seed=seed, **asdict(decoding))
    if objective is not None:
        from textgan_env.evaluation import stream_best
        from textgan_env.objectives import typed_objective

        texts = stream_best(texts, typed_objective(objective), best_of)
    if midi is not None:
        from textgan_env.text.music import write_midi

        texts, melodies = tee(texts)
        write_midi(melodies, midi)
    if draw is not None:
        from textgan_env.utils import molecules

        texts, drawn = tee(texts)
        molecules.draw(drawn, draw)
    for text in texts:
        say(text, flush=False)


def play(runs: Positional[tuple[Path, ...]] = (Path("runs"),), host: str = "127.0.0.1", port: int = 7860) -> None:
    """Open a page on which runs generate token by token, each token on the colour of its score.

    Needs the extra demo (Gradio). For example: textgan play runs/mle-my-1 runs/seqgan-my-1

    Args:
        runs: Run folders, or folders with run folders in them.
        host: Who can open the page: 127.0.0.1 this machine only, 0.0.0.0 anyone who can reach it.
        port: Where the page listens.
    """
    from textgan_env.show.play_page import serve

    serve(runs, host, port)


def evaluate(
    run: Positional[Path],
    split: Literal["valid", "test"] = "test",
    samples: int | None = None,
    decoding: Annotated[_Decoding, arg(name="")] = _Decoding(),
    seed: int | None = None,
    objective: str | None = None,
    json: bool = False,
) -> None:
    """Measure the policy of a run: likelihoods, BLEU, Self-BLEU, what it copies.

    Without options this gives the run's own evaluation at its end, but for its objective. For example:
    textgan evaluate runs/mle-my-1 --temperature 0.8

    Args:
        run: The run folder.
        split: The real texts that those of the policy are compared with.
        samples: Number of texts that are generated and measured; left out: as many as the run measured.
        decoding: How tokens are chosen.
        seed: Seed of these texts; left out: that of the run.
        objective: Also measure it, NAME:ARGUMENT or FILE.py:NAME, as `textgan train seqgan` takes it.
        json: Print JSON.
    """
    from textgan_env import load
    from textgan_env.objectives import typed_objective

    goal = None if objective is None else typed_objective(objective)
    _show(load(run).evaluate(split=split, samples=samples, seed=seed, objective=goal, **asdict(decoding)), json)


def worth(
    run: Positional[Path],
    split: Literal["valid", "test"] = "test",
    samples: int | None = None,
    seed: int | None = None,
    json: bool = False,
) -> None:
    """Say what the discriminator of a run can be worth: a bound, and what weighing texts with its score wins.

    Asked about real texts that it has not learnt from and fresh texts of the policy, at temperature 1. For example:
    textgan worth runs/seqgan-oracle-1

    Args:
        run: The run folder of an adversarial run.
        split: The real texts.
        samples: Most real texts, and as many of the policy; left out: all of the split.
        seed: Seed of the policy's texts; left out: that of the run.
        json: Print JSON.
    """
    from textgan_env import load

    found = load(run).discriminator_worth(split=split, samples=samples, seed=seed)
    if json:
        say_json(asdict(found))
        return
    say(found.table())
    say("\nauc and effective_share are shares; bound, gains, gain_error and noise are in nats per token.")
    say(f"{found.sentence()[0].upper()}{found.sentence()[1:]}.")


def score(
    file: Positional[str],
    task: Annotated[TaskOptions, arg(name="")] = TaskOptions(task="corpus"),  # noqa: B008  frozen
    split: Literal["valid", "test"] = "test",
    json: bool = False,
) -> None:
    """Measure a file of texts of any origin: BLEU, Self-BLEU, what is copied.

    The texts are compared with the real text of --corpus FILE or --task NAME. For example:
    textgan score theirs.txt --task coco

    Args:
        file: The texts, one a line; - reads them from a pipe.
        task: The real text.
        split: Which part of it.
        json: Print JSON.
    """
    from textgan_env.evaluation import score_texts
    from textgan_env.runs.folder import RunFolder
    from textgan_env.text.files import TextFile

    place, name = os.path.split(file)
    log = os.path.isfile(os.path.join(place, "config.json")) and name == RunFolder(Path(place)).samples_file.name
    known = f"'{file}' is the log of a run, its texts of every evaluation below lines that name the step"
    require(not log, f"{known}: measure the run itself, textgan evaluate {place or '.'}, or its final_samples.txt")
    with _readable(file) as path:
        lines = list(TextFile(path))
    _show(score_texts(lines, _task(task), split=split), json)


def report(
    runs: Positional[tuple[Path, ...]],
    out: Annotated[Path | None, arg(aliases=("-o",))] = None,
    texts: int = 6,
    rollouts: int = 16,
    temperature: float | None = None,
    discriminator: Literal["own", "default"] = "own",
    seed: int = 0,
) -> None:
    """Make a page of one or several runs, one HTML file: texts scored token by token, and learning curves.

    The page opens from disk and needs no network. For example:
    textgan report runs/seqgan-coco-1 runs/mle-coco-1 -o page.html

    Args:
        runs: Run folders, of one task.
        out: The file to write; left out: report.html in the first run's folder.
        texts: Number of texts that each run generates for the page.
        rollouts: Completions behind each token's Q.
        temperature: Temperature of these texts and completions; left out: that of each run.
        discriminator: own: each run's own trained discriminator, where it has one, else the default one.
            default: the default one for all runs, so that their Q compare.
        seed: The same seed makes the same page.
    """
    from textgan_env.show.report import write_report

    told = functools.partial(say, file=sys.stderr)
    of_texts = functools.partial(write_report, texts=texts, rollouts=rollouts, temperature=temperature, seed=seed)
    file = of_texts(runs, out, discriminator=discriminator, say=told)
    say(f"{file} ({max(1, file.stat().st_size // 1000):,} kB): open it in a browser")


def demo(preset: Literal["fast", "smoke"] = "fast", runs: Path = Path("runs/demo")) -> None:
    """Train MLE, then SeqGAN and its control, on definitions of WordNet; ends with a verdict and a page.

    Started again after it was stopped, it goes on from there. Needs the extra wordnet.

    Args:
        preset: fast: some minutes. smoke: seconds, to see that everything runs.
        runs: Where the run folders and the page go.
    """
    from textgan_env.show.demo import PLANS, run_demo

    run_demo(train, PLANS[preset], runs)


def weights(runs: Path = Path("runs/weights"), out: Annotated[Path | None, arg(aliases=("-o",))] = None) -> None:
    """Train MLE and SeqGAN on definitions of WordNet, and pack them into one file: textgan sample wordnet.

    The control is trained, too, for the numbers of the card in the file. Started again after it was stopped, it goes on
    from there. Needs the extra wordnet.

    Args:
        runs: Where the run folders go.
        out: The file; left out: in the data folder, where the name wordnet finds it.
    """
    from textgan_env.show.demo import PLANS
    from textgan_env.show.weights import make_weights

    file = make_weights(train, PLANS["fast"], runs, out)
    say(f"{file} ({file.stat().st_size / 1e6:.1f} MB): textgan sample {'wordnet' if out is None else file}")


def compare(
    runs: Positional[tuple[Path, ...]],
    csv: bool = False,
    latex: bool = False,
    html: bool = False,
    out: Annotated[Path | None, arg(aliases=("-o",))] = None,
    picture: Path | None = None,
) -> None:
    """Compare finished runs of one task: a table with intervals, and a sentence that says gain, no gain or worse.

    Runs that differ in nothing but their seed count as one setting; all settings are compared with that of the first
    run. For example: textgan compare runs/mle-my-1 runs/seqgan-my-1

    Args:
        runs: Run folders.
        csv: Write CSV instead of a table for people.
        latex: Write a LaTeX table.
        html: Write a page, with the picture in it.
        out: The file to write; left out: the terminal.
        picture: A PNG file that gets the picture of quality and diversity.
    """
    require(csv + latex + html <= 1, "give one of --csv, --latex and --html, found several")
    from textgan_env.show.compare import compare_runs
    from textgan_env.show.tables import csv_table, draw_plane, html_page, latex_table, text_table
    from textgan_env.utils.files import write_safely

    found = compare_runs(runs, functools.partial(say, file=sys.stderr))
    text = (csv_table if csv else latex_table if latex else html_page if html else text_table)(found)
    if out is None:
        say(text.rstrip("\n"))
    else:
        require(out.parent.is_dir(), f"there is no folder '{out.parent}' to write into")
        write_safely(out, text.rstrip("\n") + "\n")
        say(out)
    if picture is not None:
        say(draw_plane(found, picture), file=sys.stderr)


def runs(folder: Positional[Path] = Path("runs"), json: bool = False) -> None:
    """List the runs of a folder, the newest first: agent, text, seed, whether it runs, its last numbers.

    Args:
        folder: The folder of run folders.
        json: Print JSON.
    """
    from textgan_env.runs.listing import list_runs, table_of

    found = list_runs(folder)
    if json:
        say_json([run.document() for run in found])
        return
    require(bool(found), f"no run in '{folder}': train one first, with textgan train mle --corpus FILE")
    say(table_of(found))


def track(
    run: Positional[Path], to: Literal["trackio", "wandb"] = "trackio", project: str = "textgan", follow: bool = False
) -> None:
    """Send the numbers of a run to an experiment tracker: trackio, on this machine, or Weights & Biases.

    For example: textgan track runs/seqgan-my-1 --follow, then: trackio show

    Args:
        run: The run folder; it is only read.
        to: The tracker, a package and an extra of that name.
        project: What the tracker puts runs together under.
        follow: Wait for further rounds while the run trains.
    """
    from textgan_env.runs.folder import RunFolder
    from textgan_env.show.track import track as send

    sent = send(RunFolder.open(run), to, project, follow=follow)
    say(f"{sent} round{'s' * (sent != 1)} of '{run}' are in project '{project}' of {to}")


def share(run: Positional[Path], folder: Positional[Path], beside: tuple[Path, ...] = ()) -> None:
    """Make a folder of a finished run for others: weights, numbers and a model card, as model hubs take it.

    For example: textgan share runs/seqgan-my-1 my-model --beside runs/mle-my-1 runs/seqgan-my-2

    Args:
        run: The run folder.
        folder: The folder to make.
        beside: Finished runs whose numbers stand on the card, too: where it began, and its controls.
    """
    from textgan_env.show.share import share as make

    made = make(run, folder, beside)
    say(f"'{made}' has the weights and a card (README.md): read it, and say there under which licence the text stands")


def data_list(json: bool = False) -> None:
    """List the named texts, and whether their files are here already.

    Args:
        json: Print JSON.
    """
    from textgan_env.text.corpora import CORPORA
    from textgan_env.text.fetch import cache_dir
    from textgan_env.text.published import is_here

    here = {name: is_here(name) for name in CORPORA}
    if json:
        say_json([{"task": name, "text": CORPORA[name].about, "here": here[name]} for name in CORPORA])
        return
    say(_table((name, f"{row.about}: {'here' if here[name] else 'not here yet'}") for name, row in CORPORA.items()))
    say(f"\nFolder: {cache_dir()} (the environment variable TEXTGAN_DATA names another).")


def data_fetch(names: Positional[tuple[str, ...]]) -> None:
    """Fetch named texts, or make them, and check them; what is here already is only checked.

    For example: textgan data fetch coco poems

    Args:
        names: Names that `textgan data list` lists, or seqgan-oracle.
    """
    from textgan_env.tasks import make_task
    from textgan_env.text.corpora import CORPORA

    known = [*CORPORA, "seqgan-oracle"]
    unknown = [name for name in names if name not in known]
    require(bool(names) and not unknown, f"expected some of {', '.join(known)}, found {', '.join(unknown) or 'none'}")
    for name in names:
        say(make_task(name))


def data_inspect(
    text: Positional[str], reading: Annotated[_Reading, arg(name="")] = _Reading(), json: bool = False
) -> None:
    """Show what training would make of a text: what is read, changed and left out, splits, lengths, vocabulary, tokens.

    For example: textgan data inspect my.txt --max-length 30 --min-count 2

    Args:
        text: Your file, one text a line or a table, or a name that `textgan data list` lists.
        reading: How it is read.
        json: Print JSON.
    """
    from textgan_env.tasks import CorpusTask
    from textgan_env.text.corpora import CORPORA

    missing = not Path(text).exists()
    named = missing and text in CORPORA
    drawn = f"the texts of task '{text}' are drawn from a law that is known: there is no text file to inspect"
    require(not missing or text not in DRAWN, drawn)
    task = _task(replace(reading, task=text) if named else replace(reading, corpus=text))
    assert isinstance(task, CorpusTask)
    report, vocabulary = task.corpus.report, task.vocabulary
    frequent = task.words(vocabulary.encode(vocabulary.words[:20]))
    if json:
        say_json(asdict(report) | {"frequent": frequent, "advice": report.advice()})
        return
    rows_T = task.split("train").tokens_BT[:3].tolist()
    about = [("molecules", _molecules(task))] if task.language == "molecules" else []
    shown = {
        f"frequent {'tokens' if vocabulary.glue == '' else 'words'}": [_seen(frequent[:15])],
        "as it is learnt": [task.text(tokens) for tokens in rows_T],
        "as tokens": [_seen(task.words(tokens)) for tokens in rows_T],
    }
    rows = [*report.rows(), *about, *((name, _shortened(text)) for name, found in shown.items() for text in found)]
    say(_table(rows))
    for sentence in report.advice():
        say(f"note: {sentence}")


def _molecules(task: "CorpusTask") -> str:
    """How many texts rdkit reads of all splits, but for those with an unknown word."""
    from textgan_env.utils.molecules import said_of

    try:
        splits = [task.writable(split).tolist() for split in task.corpus.splits]
        return said_of([task.text(tokens) for rows in splits for tokens in rows])
    except InputError as error:
        return str(error)


#: Words after `textgan` -> the function that they call.
COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__.replace("_", " "): command
    for command in (
        *(demo, train, suite, runs, sample, play, evaluate, worth, compare, score, report, track, share, weights),
        *(data_list, data_fetch, data_inspect),
    )
}


def main(args: list[str] | None = None) -> None:
    """Run the command that the words name, or list the commands."""
    with friendly_errors():
        words = [word for word in (sys.argv[1:] if args is None else args) if word != DEBUG]
        name = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
        if name in ("train", "suite"):
            COMMANDS[name](words[1:])
        elif name is not None:
            given = words[len(name.split()) :]
            read_words(_kept(COMMANDS[name]), given, program=f"textgan {name}")()
        elif words[:1] == ["--version"]:
            say(f"textgan_env {__version__}")
        else:
            group = words[0] if words and any(name.startswith(f"{words[0]} ") for name in COMMANDS) else ""
            asked = words[1:] if group else words
            if asked and asked[0] not in ("-h", "--help"):
                known = ", ".join(name for name in COMMANDS if name.startswith(group))
                raise InputError(f"unknown command '{f'{group} {asked[0]}'.strip()}', expected one of: {known}")
            say(_overview(group))


def _overview(group: str) -> str:
    """The help of `textgan`, or of a group of its commands."""
    rows = [(name, _first_line(command.__doc__)) for name, command in COMMANDS.items() if name.startswith(group)]
    return (
        f"usage: textgan {group or 'COMMAND'} ...\n\n{_first_line(__doc__)}\n\n{_table(rows)}\n\n"
        "What a command takes: textgan COMMAND --help. With --debug, an error shows its traceback."
    )


def _first_line(text: str | None) -> str:
    """The first line of a docstring."""
    return (text or "").strip().partition("\n")[0]


def _shortened(text: str, width: int = 90) -> str:
    """A text that fits a line."""
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _seen(words: Iterable[str]) -> str:
    """Tokens side by side; a blank that belongs to one is shown as a sign."""
    return " ".join(word.replace(" ", "\u2423") for word in words)


def _table(rows: Iterable[tuple[str, object]]) -> str:
    """Names and descriptions in two columns."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {said}" for name, said in rows)


def _kept(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """A function that returns ``command`` with its arguments, not yet called: the words are read before it runs."""

    @functools.wraps(command)
    def keep(*values: Any, **named: Any) -> Callable[[], None]:
        return functools.partial(command, *values, **named)

    return keep


def _task(options: TaskOptions) -> "Task":
    """The task that the options name."""
    from textgan_env.tasks import make_task

    return make_task(options.task, **options.task_options())


@contextmanager
def _readable(file: str) -> Iterator[str]:
    """A file that can be opened by its name; what comes through a pipe is put into one where pipes have no name."""
    if file != "-" or os.path.exists("/dev/stdin"):
        yield "/dev/stdin" if file == "-" else file
        return
    with TemporaryDirectory() as folder:  # Windows
        path = Path(folder) / "stdin"
        path.write_bytes(sys.stdin.buffer.read())
        yield str(path)


def _show(result: "Evaluation", json: bool) -> None:
    """Print numbers and how they were measured."""
    if json:
        say_json(result.document())
        return
    say(result.table())
    say(f"\n{result.units[0].upper()}{result.units[1:]}. Measured with:")
    say(_table(result.settings.items()))


if __name__ == "__main__":
    main()
