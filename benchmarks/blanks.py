"""How well runs fill the blanks of real texts, and twenty templates filled by each.

    python -m benchmarks.blanks --runs runs/maskgan-coco-1 runs/maskgan-coco-2 runs/mle-coco-1

The runs are of one task. A policy that is no MaskGAN sees only what stands before a blank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.results import RESULTS, command, show
from textgan_env.utils.errors import require
from textgan_env.utils.files import write_safely

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.show.saved import SavedRun
    from textgan_env.tasks import Task

RATES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Options:
    """Compare how runs fill blanks."""

    runs: tuple[Path, ...]
    """Finished runs of one task."""
    templates: int = 20
    """Templates that are shown with what each run fills in: the first texts of the test split, half of each blank."""
    seed: int = 0
    """Of the places of blanks, and of what is filled in."""
    name: str = "blanks"
    """Of the result files."""


@command
def main(options: Options) -> None:
    """The command."""
    import torch

    from textgan_env import load

    torch.set_num_threads(1)
    require(bool(options.runs), "runs must name at least one run")
    require(options.templates >= 1, f"templates must be at least 1, found {options.templates}")
    runs = [load(path) for path in options.runs]
    names = sorted({run.task.name for run in runs})
    require(len(names) == 1, f"runs must be of one task, found {', '.join(names)}")
    task, (shown, filled) = runs[0].task, fillings(runs, options.templates, options.seed)
    lines = [f"template  {template}\n" + "".join(f"  {text}\n" for text in texts) for template, *texts in shown]
    heads = [f"{number} {run.folder.path.name}" for number, run in enumerate(runs, start=1)]
    write_safely(RESULTS / f"{options.name}_samples.txt", "\n".join(["\n".join(heads) + "\n", *lines]))
    notes = (
        f"Task '{task.name}', test split. Blank NLL: of the true words of blanks side by side, nats per blank, "
        "where so much of each text is blank, given the words before and the template (a run of maskgan) or the words "
        f"before alone; the same places for all runs (seed {options.seed}). true words: share of blanks at .5 that one "
        "filling of each text gives the true word. NLL-test: of texts without a template, nats per token. Some "
        f"templates, and what each run makes of them: {options.name}_samples.txt."
    )
    show(options.name, [row_of(run, right, options.seed) for run, right in zip(runs, filled, strict=True)], notes=notes)


def row_of(run: "SavedRun", right: float, seed: int) -> dict[str, Any]:
    """The numbers of a run."""
    from textgan_env.evaluation import nll

    about = run.folder.about["config"]
    tokens_BT = run.task.split("test").tokens_BT
    row: dict[str, Any] = {"run": run.folder.path.name, "control": about.get("control")}
    row |= {f"blank NLL, {rate:g}": run.blank_nll(mask_rate=rate, seed=seed) for rate in RATES}
    return row | {"true words": right, "NLL-test": nll(run.policy, tokens_BT, run.task.scored(tokens_BT))[0]}


def fillings(runs: Sequence["SavedRun"], count: int, seed: int) -> tuple[list[list[str]], list[float]]:
    """Some templates, each followed by the text that each run makes of it; and the share of true words of each run."""
    import torch

    from textgan_env.ops.sampling import derived_generator, derived_seed
    from textgan_env.ops.templates import draw_templates, given_cells
    from textgan_env.rewards import Keys, generate

    task = runs[0].task
    real_BT = task.writable("test")
    half_B, places = torch.full((len(real_BT),), 0.5), derived_generator(seed, "templates")
    template_BT = draw_templates(real_BT, task.vocab_size, half_B, places, contiguous=True)
    blank_BT = ~given_cells(template_BT, task.vocab_size) & (real_BT != task.vocab_size)
    shown, right = [[template_text(task, row)] for row in template_BT[:count]], []
    for run in runs:
        policy = run.policy.given(template_BT, task.end_token)
        keys = Keys.counted(derived_seed(seed, "fill"), len(real_BT))
        written_BT = generate(policy, keys, task.max_length, end_token=task.end_token)[0]
        right.append(float((written_BT == real_BT)[blank_BT].double().mean()))
        for line, tokens_T in zip(shown, written_BT[:count].tolist(), strict=False):
            line.append(task.text(tokens_T))
    return shown, right


def template_text(task: "Task", template_T: "Tensor") -> str:
    """A template as a person writes it."""
    from textgan_env.ops.templates import BLANK
    from textgan_env.tasks.base import BLANK_MARK

    tokens = [token for token in template_T.tolist() if token not in (task.vocab_size, task.end_token)]
    return " ".join(BLANK_MARK if token == BLANK else "".join(task.words([token])) for token in tokens)


if __name__ == "__main__":
    main()
