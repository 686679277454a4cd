"""A run made ready for others: weights without what only resuming needs, numbers, and a card of what they are worth."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from textgan_env import __version__
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.listing import agent_of
from textgan_env.runs.loading import finished_checkpoint
from textgan_env.runs.snapshot import take_snapshot
from textgan_env.runs.trained import MEMBERS
from textgan_env.show.compare import Finished, compare_runs
from textgan_env.show.saved import SavedRun
from textgan_env.show.tables import text_table
from textgan_env.text.fetch import cache_dir
from textgan_env.utils.errors import require
from textgan_env.utils.files import write_safely
from textgan_env.utils.printing import say


def share(run: str | Path, folder: str | Path, beside: Sequence[str | Path] = ()) -> Path:
    """Make a folder that can be given away, or pushed to a model hub: it is a run folder with a model card.

    Folders of a person do not leave the machine: of absolute paths the last name stays.

    Args:
        run: A finished run.
        folder: Where to; it must not be there, or be empty.
        beside: Finished runs whose numbers stand on the card, too: where it began, and its controls.

    Returns:
        The folder.

    Raises:
        InputError: If a run cannot be read or has not finished, they are not of one task, or the folder holds files.
        OSError: If a file cannot be written.
    """
    folder = Path(folder)
    require(not folder.is_file() and not (folder.is_dir() and any(folder.iterdir())), f"'{folder}' is not empty")
    parts = {**packed_run(run), "README.md": model_card(run, beside).encode()}
    for name, content in sorted(parts.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_safely(folder / name, content)
    return folder


def packed_run(run: str | Path) -> dict[str, bytes]:
    """What others need of a run, by its name in the folder; the same run gives the same bytes.

    Raises:
        InputError: If it cannot be read.
    """
    opened = RunFolder.open(run)
    there = [name for name in MEMBERS if "/" not in name and (opened.path / name).is_file()]
    parts = {name: (opened.path / name).read_bytes() for name in there}
    places = _places(opened.about)
    parts["config.json"] = json.dumps(_replaced(opened.about, places), indent=2).encode()
    checkpoint, saved = finished_checkpoint(opened), SavedRun.load(opened.path)
    modules: dict[str, nn.Module] = {checkpoint.document["policy"]["module"]: checkpoint.build_policy()}
    if saved.discriminator is not None:
        modules["discriminator"] = saved.discriminator
    document = _replaced(checkpoint.document, places)
    with TemporaryDirectory() as made:
        file = Path(made) / checkpoint.path.name
        take_snapshot(modules=modules, document=document, vocabulary=checkpoint.vocabulary).write(file)
        parts[f"checkpoints/{file.name}"] = _settled(file.read_bytes())
    return parts


def model_card(run: str | Path, beside: Sequence[str | Path] = ()) -> str:
    """What a run is, how it came about, and what was measured, in Markdown with the head that model hubs read.

    Args:
        run: A finished run.
        beside: Finished runs of the same task to compare it with; the first is the one that differences are to.

    Raises:
        InputError: As `share`.
    """
    opened = RunFolder.open(run)
    about, agent = opened.about, agent_of(opened.about)
    compared = measured([*beside[:1], run, *beside[1:]])
    return f"""---
library_name: textgan_env
pipeline_tag: text-generation
tags:
- textgan_env
- {agent}
---

# {opened.path.resolve().name}

A text generator trained by `{agent}` of textgan_env {__version__}. This folder is its run:

    textgan sample FOLDER -n 20
    textgan evaluate FOLDER

## Text

{about_text(opened)}

## How it was trained

{trained_by([opened, *map(RunFolder.open, beside)])}

## What was measured

```text
{compared}
```

{_control(about, [RunFolder.open(one).about for one in beside])}
"""


def trained_by(runs: Sequence[RunFolder]) -> str:
    """Commands and seeds of some runs, and the code and versions of the first."""
    first = runs[0].about
    lines = [
        " ".join(_replaced(run.about["command"], _places(run.about))) + f"  # seed {run.about.get('seed')}"
        for run in runs
    ]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    commit = (first["source"] or {}).get("commit", "not known")
    return "\n".join(f"    {line}" for line in lines) + f"\n\nCommit {commit}; {versions}; Python {first['python']}."


def measured(runs: Sequence[str | Path]) -> str:
    """The table of `textgan compare`; of one run its numbers."""
    if len(runs) == 1:
        return "\n".join(f"{name:<18}{value:8.4f}" for name, value in Finished.open(runs[0]).values.items())
    return text_table(replace(compare_runs(list(runs), say), task="")).strip()


def about_text(run: RunFolder) -> str:
    """What text a run learnt."""
    task = run.about.get("task")
    return str(_replaced(task["about"], _places(run.about))) if task else "Not known."


def _control(about: Mapping[str, Any], beside: Sequence[Mapping[str, Any]]) -> str:
    """What the numbers say of the discriminator, as far as a control tells."""
    if "control" not in about["config"]:
        return ""
    names = {one["config"].get("control") for one in beside} - {None}
    if names:
        return (
            f"Controls beside it: {', '.join(sorted(names))}. What they reach, too, the discriminator has not taught."
        )
    return "No control stands beside it, so these numbers do not tell what the discriminator's score has done."


def _places(about: Mapping[str, Any]) -> dict[str, str]:
    """Absolute paths that a run names -> what stands for them: of the data folder nothing, of others the last name."""
    words = [*about["config"].values(), *about["command"]]
    named = {word: Path(word).name for word in words if isinstance(word, str) and os.path.isabs(word)}
    found = {f"{cache_dir()}{os.sep}": ""} | named
    return {place: found[place] for place in sorted(found, key=len, reverse=True)}  # a file before its folder


def _replaced(value: Any, places: Mapping[str, str]) -> Any:
    """A document or a text in which other words stand for some."""
    if isinstance(value, Mapping):
        return {name: _replaced(one, places) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(one, places) for one in value]
    if isinstance(value, str):
        for place, name in places.items():
            value = value.replace(place, name)
    return value


def _settled(content: bytes) -> bytes:
    """The bytes of a checkpoint with its header in order: safetensors writes the metadata in a new order each time."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header + content[end:]
