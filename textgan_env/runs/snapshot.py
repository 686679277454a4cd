"""Writing checkpoints: a snapshot of a run in memory, and the file that it becomes.

`textgan_env.runs.checkpoints` reads it and says what stands in it.
"""

import importlib.metadata
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import safetensors.torch
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.optim import Optimizer

from textgan_env.ops.checksums import checksum, shape_text
from textgan_env.text.vocabulary import Vocabulary
from textgan_env.utils.errors import InputError, require
from textgan_env.utils.files import write_safely
from textgan_env.utils.reading import MOST_JSON, check_json

#: Version of the form of a checkpoint; a file of a newer one is refused.
FORMAT = 1
#: Names of the two metadata of the file.
HEADER = "textgan_env"
#: The other one.
CHECKSUM = "sha256"
#: What a file may hold, see `Snapshot.require_readable`.
MOST_TENSORS = 10_000
#: Of a tensor's name.
LONGEST_NAME = 200
#: Of a tensor.
MOST_AXES = 8
#: Name in a file -> type.
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
#: A learning rate, a momentum and the like: none is negative, infinite or NaN.
Rate = Annotated[float, Field(ge=0, lt=math.inf)]


class Header(BaseModel, extra="forbid"):
    """The JSON of a checkpoint."""

    format: Annotated[int, Field(ge=1)]
    document: dict[str, Any]
    modules: list[str]
    optimizers: dict[str, Any]
    vocabulary: str | None = None
    versions: dict[str, str]


class SavedOptimizer(BaseModel, extra="forbid"):
    """How an optimizer stands in the JSON header: class, param groups, state that is not a tensor."""

    kind: str
    groups: list[dict[str, Any]]
    plain: dict[str, dict[str, Rate | None]]


def library_versions() -> dict[str, str]:
    """The versions of textgan_env and of what its numbers depend on.

    Returns:
        Version by package name; "not installed" for a package that is run from its source folder or missing.
    """
    versions = {}
    for package in ("textgan_env", "torch", "gymnasium", "numpy", "safetensors"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


@dataclass(frozen=True)
class Snapshot:
    """The content of a checkpoint that has not been written yet; what happens to the modules changes nothing in it.

    Attributes:
        tensors: Every tensor by its name in the file, on the CPU.
        header: The rest, but for the vocabulary's words.
        vocabulary: The words of the run.
    """

    tensors: Mapping[str, Tensor]
    header: Mapping[str, Any]
    vocabulary: Vocabulary | None

    def write(self, path: str | os.PathLike[str], keep: str | os.PathLike[str] | None = None) -> None:
        """Write it in place of the checkpoint at ``path``, which stays whole until the new one is.

        Args:
            path: The file to write; its folder must exist.
            keep: The name that the old checkpoint has from then on; ``None``: it is gone.

        Raises:
            InputError: If the vocabulary is too large to be read back.
            TypeError: If the document or an optimizer holds what JSON cannot; nothing is written then.
            OSError: If the file cannot be written; the old checkpoint is then as it was.
        """
        write_safely(path, pack(self._whole_header(), dict(self.tensors)), keep=keep)

    def require_readable(self) -> None:
        """Refuse what could be written, if at all, but not read back.

        Raises:
            InputError: If the vocabulary or the document is too large, or there are tensors that no checkpoint has.
            TypeError: If the document or an optimizer holds what JSON cannot.
        """
        _header_text(self._whole_header(), len(self.tensors))
        require(len(self.tensors) <= MOST_TENSORS, f"a checkpoint holds at most {MOST_TENSORS:,} tensors")
        for name, tensor in self.tensors.items():
            usual = len(name) <= LONGEST_NAME and tensor.ndim <= MOST_AXES and tensor.dtype in DTYPES.values()
            require(usual, f"tensor '{name[:LONGEST_NAME]}' is {shape_text(tensor)}, which a checkpoint cannot hold")

    def _whole_header(self) -> dict[str, Any]:
        """The JSON of the file."""
        words = None if self.vocabulary is None else self.vocabulary.to_json()
        return {"format": FORMAT, **self.header, "vocabulary": words, "versions": library_versions()}


def take_snapshot(
    *,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer] | None = None,
    document: Mapping[str, Any],
    vocabulary: Vocabulary | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> Snapshot:
    """Copy what a checkpoint holds, to be written later or never.

    Args:
        modules: What has weights, by name ("policy", "discriminator", "policy_average", ...).
        optimizers: Their optimizers, by name; Adam, AdamW, SGD or any whose state is tensors and plain numbers.
        document: What else is needed to resume, as JSON can hold it: config, task, schedule counters. Tuples come back
            as lists; NaN and infinities come back as they are. It must not be changed until the snapshot is written.
        vocabulary: The words of the run; ``None`` where there are none (an oracle task).
        tensors: Further tensors by name, any shape and dtype.

    Raises:
        InputError: If a name holds "/", starts with "optimizer" or is "tensors", which would blur the names inside the
            file.
    """
    for name in (*modules, *(optimizers or {})):
        clear = "/" not in name and not name.startswith("optimizer") and name != "tensors"
        require(clear, f"a name in a checkpoint has no '/' and is not 'tensors' nor 'optimizer...', found '{name}'")
    flat = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    flat |= {f"tensors/{name}": tensor for name, tensor in (tensors or {}).items()}
    described = {}
    for name, optimizer in (optimizers or {}).items():
        slots, described[name] = _flatten_optimizer(name, optimizer)
        flat |= slots
    header = {"document": dict(document), "modules": list(modules), "optimizers": described}
    # Own copies, because safetensors refuses tensors that share memory, as tied weights do.
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in flat.items()}
    return Snapshot(copies, header, vocabulary)


def _flatten_optimizer(name: str, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer as named tensors, and as the JSON that `SavedOptimizer` reads."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, slots in state["state"].items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{name}/{index}/{slot}"] = value
            else:
                plain.setdefault(str(index), {})[slot] = value
    groups = [
        {key: value.item() if isinstance(value, Tensor) else value for key, value in group.items()}
        for group in state["param_groups"]
    ]
    return tensors, {"kind": type(optimizer).__name__, "groups": groups, "plain": plain}


def pack(header: Mapping[str, Any], tensors: dict[str, Tensor]) -> bytes:
    """The bytes of a checkpoint file.

    Raises:
        InputError: If the vocabulary is too large to be read back.
    """
    text = _header_text(header, len(tensors))
    return safetensors.torch.save(tensors, {HEADER: text, CHECKSUM: checksum(text, tensors)})


def _header_text(header: Mapping[str, Any], tensors: int) -> str:
    """The JSON of a checkpoint with so many tensors; the errors are those of `pack`."""
    text = json.dumps(header)
    # Every backslash, of which a vocabulary has many, is written as two in the header of the file.
    size = len(text) + text.count("\\") + text.count('"') + 120 * tensors
    fewer = "set max_vocab or min_count"
    require(size <= MOST_JSON, f"a checkpoint has room for {MOST_JSON:,} bytes of words, found {size:,}: {fewer}")
    try:
        check_json(text, "the vocabulary of a checkpoint")
    except InputError as error:
        raise InputError(f"{error}: {fewer}") from None
    return text
