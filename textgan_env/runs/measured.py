"""What a run measured of single texts: of the policy that it began with, and of the finished one."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from textgan_env.ops.metrics import Floats
from textgan_env.runs.folder import RunFolder
from textgan_env.utils.errors import InputError, require
from textgan_env.utils.files import write_safely
from textgan_env.utils.reading import read_limited

#: When a policy was measured: where it began to learn what the run is about, and at the end.
When = Literal["start", "end"]
_MOST = 2**28  # bytes


def keep_per_text(run: RunFolder, when: When, per_text: Mapping[str, Floats]) -> None:
    """Keep the sums of each text (`textgan_env.evaluation.Evaluation.per_text`), with those kept before.

    Raises:
        InputError: If what was kept before cannot be read.
        OSError: If it cannot be written.
    """
    others = {name: sums for name, sums in _read(run).items() if not name.startswith(f"{when}.")}
    tensors = others | {f"{when}.{name}": np.ascontiguousarray(sums) for name, sums in per_text.items()}
    write_safely(run.per_text_file, safetensors.numpy.save(tensors))


def kept_per_text(run: RunFolder, when: When) -> dict[str, Floats] | None:
    """Name of a measure -> numerators and denominators of its texts, float64 (2, B); None where none were kept.

    Raises:
        InputError: If the file cannot be read, or holds something else.
    """
    found = {name.partition(".")[2]: sums for name, sums in _read(run).items() if name.startswith(f"{when}.")}
    return found or None


def keep_start(run: RunFolder, document: Mapping[str, Any], per_text: Mapping[str, Floats]) -> None:
    """Keep the evaluation of the policy that a run begins with, before its last phase.

    Raises:
        OSError: If it cannot be written.
    """
    keep_per_text(run, "start", per_text)
    write_safely(run.start_file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _read(run: RunFolder) -> dict[str, Floats]:
    """All that is kept; {} where there is nothing."""
    path = run.per_text_file
    if not path.is_file():
        return {}
    try:
        found = safetensors.numpy.load(read_limited(path, _MOST, inside=run.path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"'{path}' cannot be read: {error}") from None
    for name, sums in found.items():
        fits = sums.dtype == np.float64 and sums.ndim == 2 and sums.shape[0] == 2 and sums.shape[1] >= 1
        fits = fits and bool(np.isfinite(sums).all())
        require(fits, f"'{path}' must hold finite float64 numbers (2, texts), found '{name[:40]}' of {sums.shape}")
    return found
