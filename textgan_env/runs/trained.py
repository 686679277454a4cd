"""Trained weights in one file: where `textgan weights` puts it, and how a run is read out of it.

The file is a zip archive with the folders of some runs, as far as using them needs. Nothing of it says where anything
is written: only the members named here are read, each of limited size, and they go into a folder of their own, from
which the usual loaders read them (`textgan_env.runs.loading`; a checkpoint has a checksum, and nothing is unpickled).
"""

import zipfile
from pathlib import Path
from typing import BinaryIO

from textgan_env.text.fetch import cache_dir, keep_file
from textgan_env.utils.errors import InputError, MissingDataError, require
from textgan_env.utils.reading import file_hash, open_ordinary

#: What stands for the file in the data folder where a run is asked for.
NAME = "wordnet"
#: The runs in it; the first is the one that the name alone means.
RUNS = ("mle", "seqgan")
#: What the file is called, with the version.
PATTERN = "textgan-weights-{}.zip"
#: What is read of a run; its config comes last and says that all is there.
MEMBERS = (
    "evaluation.json", "start.json", "metrics.jsonl", "pretraining.jsonl", "samples.txt",
    "checkpoints/best.safetensors", "checkpoints/last.safetensors", "config.json",
)  # fmt: skip
_MOST = 2**28  # bytes of a member


def find_run(path: str | Path) -> Path:
    """Where a run lies: the path itself, or where a run of trained weights has been unpacked.

    Args:
        path: A run folder; or ``wordnet`` (``wordnet/seqgan``) for a run of the trained weights in the data folder; or
            the path of such a file, likewise. A folder that is there comes first.

    Returns:
        The folder; the path as it is where it means nothing else.

    Raises:
        MissingDataError: If the weights are not here, or cannot be unpacked.
        InputError: If the file is none of trained weights.
    """
    path = Path(path)
    named = path.name in RUNS and path.parent != Path()
    archive, run = (path.parent, path.name) if named else (path, RUNS[0])
    if path.exists() and not path.is_file():
        return path
    if archive == Path(NAME) and not archive.is_dir():
        archive = _in_data_folder()
    return _unpacked(archive, run) if archive.suffix == ".zip" and archive.is_file() else path


def _in_data_folder() -> Path:
    """The newest file of trained weights in the data folder."""
    found = sorted(cache_dir().glob(PATTERN.format("*")))
    if not found:
        raise MissingDataError(
            f"the trained weights '{NAME}' are not in '{cache_dir()}': make them with make weights (in a checkout; "
            f"minutes) or textgan weights, or put {PATTERN.format('VERSION')} there"
        )
    return found[-1]


def _unpacked(archive: Path, run: str) -> Path:
    """The folder of a run of the archive, in the data folder under the archive's hash; made where it is not there."""
    folder = cache_dir() / "weights" / file_hash(archive).sha256[:32] / run
    if (folder / MEMBERS[-1]).is_file():
        return folder
    try:
        with open_ordinary(archive) as file:
            _unpack(file, run, folder, archive)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputError(f"'{archive}' is no whole file of trained weights: {error}") from None
    except OSError as error:
        reason = error.strerror or error
        raise MissingDataError(f"the weights of '{archive}' cannot be unpacked into '{folder}': {reason}") from None
    return folder


def _unpack(file: BinaryIO, run: str, folder: Path, archive: Path) -> None:
    """Write the members of a run into a folder."""
    with zipfile.ZipFile(file) as zipped:
        there = set(zipped.namelist())
        missing = f"'{archive}' is no file of trained weights: it has no {run}/{MEMBERS[-1]}"
        require(f"{run}/{MEMBERS[-1]}" in there, missing)
        for member in MEMBERS:
            if (name := f"{run}/{member}") in there:
                with zipped.open(name) as content:
                    read = content.read(_MOST + 1)
                require(len(read) <= _MOST, f"'{name}' in '{archive}' has more than {_MOST:,} bytes")
                keep_file(folder / member, read)
