"""One file that a run can go on from: weights, optimizer state and a JSON document, as safetensors.

Reading a checkpoint executes nothing that stands in it: safetensors holds numbers and one JSON text, and
nothing is unpickled. What is in the file:

====================================  ==============================================================
``<module>/<parameter or buffer>``    the ``state_dict`` of a module
``optimizer.<name>/<index>/<slot>``   optimizer state of parameter ``index``, e.g. Adam's ``exp_avg``
``tensors/<name>``                    any other tensor
metadata ``textgan_env``              JSON: format, document, vocabulary, module names, optimizer
                                      hyper-parameters, library versions
metadata ``sha256``                   checksum over all of the above
====================================  ==============================================================
"""

import hashlib
import importlib.metadata
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from textgan_env.discriminators import DiscriminatorModule, make_discriminator
from textgan_env.policies import PolicyModule, make_policy
from textgan_env.text.vocabulary import Vocabulary
from textgan_env.utils.errors import InputError, require
from textgan_env.utils.files import write_safely
from textgan_env.utils.reading import MOST_JSON, member, most_weights, parse_json, shown

Network = TypeVar("Network", bound=nn.Module)

#: Version of the form of a checkpoint; a file of another one is refused.
FORMAT = 1
_HEADER = "textgan_env"
_CHECKSUM = "sha256"
_LITTLE = 2**26  # bytes; below it nothing is large
_MOST_TENSORS = 10_000
_LONGEST_NAME = 200
_MOST_AXES = 8
_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
_HEADER_KEYS: Mapping[str, type] = {"document": dict, "modules": list, "optimizers": dict, "versions": dict}


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


def save_checkpoint(
    path: str | os.PathLike[str],
    *,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer] | None = None,
    document: Mapping[str, Any],
    vocabulary: Vocabulary | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint in place of the one at ``path``, which stays whole until the new one is.

    Args:
        path: The file to write; its folder must exist.
        modules: What has weights, by name ("policy", "discriminator", "policy_average", ...).
        optimizers: Their optimizers, by name; Adam, AdamW, SGD or any whose state is tensors and plain
            numbers.
        document: What else is needed to go on, as JSON can hold it: config, task, schedule counters. Tuples
            come back as lists; NaN and infinities come back as they are.
        vocabulary: The words of the run; ``None`` where there are none (an oracle task).
        tensors: Further tensors by name, any shape and dtype.

    Raises:
        InputError: If a name holds "/", starts with "optimizer" or is "tensors", which would blur the names
            inside the file.
        TypeError: If the document or an optimizer holds what JSON cannot; nothing is written then.
        OSError: If the file cannot be written; the old checkpoint is then as it was.
    """
    taken = take_snapshot(
        modules=modules, optimizers=optimizers, document=document, vocabulary=vocabulary, tensors=tensors
    )
    taken.write(path)


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
            TypeError: If the document or an optimizer holds what JSON cannot; nothing is written then.
            OSError: If the file cannot be written; the old checkpoint is then as it was.
        """
        words = None if self.vocabulary is None else self.vocabulary.to_json()
        header = {"format": FORMAT, **self.header, "vocabulary": words, "versions": library_versions()}
        write_safely(path, _pack(header, dict(self.tensors)), keep=keep)


def take_snapshot(
    *,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer] | None = None,
    document: Mapping[str, Any],
    vocabulary: Vocabulary | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> Snapshot:
    """What `save_checkpoint` would write now, to be written later or never.

    Args:
        modules: As there, and so for all arguments.
        optimizers: Of the modules.
        document: Must not be changed until the snapshot is written.
        vocabulary: The words.
        tensors: Further ones.

    Raises:
        InputError: If a name would blur the names inside the file.
    """
    for name in (*modules, *(optimizers or {})):
        require(
            "/" not in name and not name.startswith("optimizer") and name != "tensors",
            f"a name in a checkpoint has no '/' and is not 'tensors' nor 'optimizer...', got '{name}'",
        )
    flat = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    flat |= {f"tensors/{name}": tensor for name, tensor in (tensors or {}).items()}
    hyper = {}
    for name, optimizer in (optimizers or {}).items():
        slots, hyper[name] = _flatten_optimizer(name, optimizer)
        flat |= slots
    header = {"document": dict(document), "modules": list(modules), "optimizers": hyper}
    # Own copies, because safetensors refuses tensors that share memory, as tied weights do.
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in flat.items()}
    return Snapshot(copies, header, vocabulary)


def load_checkpoint(path: str | os.PathLike[str]) -> "Checkpoint":
    """Read a checkpoint.

    Args:
        path: A file that `save_checkpoint` wrote.

    Returns:
        Its content, on the CPU, not yet put into any module.

    Raises:
        InputError: If there is no such file, it is not a whole checkpoint, or a newer version wrote it.
    """
    path = Path(path)
    require(path.is_file(), f"no checkpoint at '{path}'")
    _check_size(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            header = _read_header(path, metadata.get(_HEADER))
            _check_tensors(path, file)
            # Copies, because the originals may be views of the file, and files change.
            names = list(file.keys())
            tensors = {name: file.get_tensor(name).clone() for name in names}
        found = _checksum(metadata[_HEADER], tensors)
    except InputError:
        raise
    # The library's own errors, and those of torch where a shape or a type is none.
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"'{path}' is not a whole checkpoint, the file is cut or of another kind ({error})") from None
    require(
        metadata.get(_CHECKSUM) == found,
        f"'{path}' is not a whole checkpoint, its checksum does not fit its content",
    )
    return Checkpoint(path, header["document"], header["versions"], tensors, header)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        path: Where it was read from.
        document: What the run stored as JSON: config, task, schedule counters.
        versions: The library versions it was written with.
        all_tensors: Every tensor by its name in the file, on the CPU.
    """

    path: Path
    document: dict[str, Any]
    versions: dict[str, str]
    all_tensors: dict[str, Tensor]
    _header: dict[str, Any]

    @property
    def modules(self) -> tuple[str, ...]:
        """The names of the modules in the file."""
        return tuple(self._header["modules"])

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words of the run, ``None`` where it has none (an oracle task).

        Raises:
            InputError: If the file holds a broken vocabulary.
        """
        saved = self._header["vocabulary"]
        return None if saved is None else Vocabulary.from_json(saved)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The further tensors that were given to `save_checkpoint`, by name."""
        return self._under("tensors")

    def require_vocabulary(self, vocabulary: Vocabulary | None) -> None:
        """Refuse a checkpoint whose token ids stand for other words.

        Args:
            vocabulary: The words of this run, ``None`` where it has none.

        Raises:
            InputError: If the words or their order differ; the sentence names both sizes and fingerprints.
        """
        saved = self.vocabulary
        same = (saved and saved.fingerprint()) == (vocabulary and vocabulary.fingerprint())
        require(
            same,
            f"checkpoint '{self.path}' was trained with {_describe(saved)}, but this run has {_describe(vocabulary)}",
        )

    def build_policy(self) -> PolicyModule:
        """The policy that the document describes under "policy", with its weights.

        What the file asks for is never larger than the file: a policy with more weights than it holds is not built.

        Returns:
            The policy on the CPU, in eval mode.

        Raises:
            InputError: If there is no such description, it is of another kind or size than the weights, or these are
                not finite.
        """
        where = f"checkpoint '{self.path}'"
        saved = member(self.document, "policy", dict, f"the document of {where}")
        kind, module = (member(saved, name, str, f"the policy of {where}") for name in ("kind", "module"))
        config: dict[str, Any] = member(saved, "config", dict, f"the policy of {where}")
        return self._built("policy", module, lambda: make_policy(kind, config))

    def build_discriminator(self, name: str) -> DiscriminatorModule:
        """The D that the document describes under "discriminators", with its weights; see `build_policy`.

        Args:
            name: The name it was saved under.

        Returns:
            D on the CPU, in eval mode.

        Raises:
            InputError: As `build_policy`.
        """
        document = f"the document of checkpoint '{self.path}'"
        all_of_them = member(self.document, "discriminators", dict, document)
        described: dict[str, Any] = member(all_of_them, name, dict, document)
        return self._built("discriminator", name, lambda: make_discriminator(**described))

    def _built(self, what: str, name: str, make: Callable[[], Network]) -> Network:
        """A network as a description makes it, no larger than the file, with the weights of this name."""
        where = f"the {what} of checkpoint '{self.path}'"
        with most_weights(sum(tensor.numel() for tensor in self._under(name).values())):
            try:
                network = make()
            except InputError as error:
                raise InputError(f"{where} cannot be made: {error}") from None
            except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
                reason = str(error).partition("\n")[0][:200]
                raise InputError(f"{where} cannot be made of its config: {reason}") from None
        self.restore_module(name, network)
        return network.eval()

    def restore_module(self, name: str, module: nn.Module) -> None:
        """Put saved weights and buffers into a module, in place, whatever device it is on.

        Args:
            name: The name the module was saved under.
            module: A module of the same architecture.

        Raises:
            InputError: If the file has no such module, or a tensor is missing, left over, or of another shape
                or dtype, or not finite; the module is then as it was.
        """
        require(
            name in self.modules,
            f"checkpoint '{self.path}' holds no module '{name}', only: {', '.join(self.modules) or 'none'}",
        )
        expected, found = module.state_dict(), self._under(name)
        for key, tensor in expected.items():
            require(
                key in found,
                f"checkpoint '{self.path}' lacks tensor '{name}/{key}', expected {_shape_text(tensor)}",
            )
            require(
                found[key].shape == tensor.shape and found[key].dtype == tensor.dtype,
                f"tensor '{name}/{key}' in checkpoint '{self.path}' is {_shape_text(found[key])}, "
                f"but this run expects {_shape_text(tensor)}",
            )
        for key in found:
            require(
                key in expected,
                f"checkpoint '{self.path}' holds tensor '{name}/{key}', which this run does not have",
            )
            require(
                not bool(torch.isnan(found[key]).any()),
                f"tensor '{name}/{key}' in checkpoint '{self.path}' holds NaN, which is no number",
            )
        if isinstance(module, PolicyModule):
            try:
                module.require_sound(found)
            except InputError as error:
                raise InputError(f"module '{name}' in checkpoint '{self.path}' cannot be used: {error}") from None
        module.load_state_dict(found)

    def restore_optimizer(self, name: str, optimizer: Optimizer) -> None:
        """Put saved state and hyper-parameters (learning rate, betas, ...) into an optimizer, in place.

        A hyper-parameter that only the running torch version knows keeps its value.

        Args:
            name: The name the optimizer was saved under.
            optimizer: An optimizer of the same class over parameters of the same shapes, in the same order.

        Raises:
            InputError: If the file has no such optimizer, or its class, its parameters, a hyper-parameter or
                a tensor do not fit.
        """
        held = self._header["optimizers"]
        require(
            name in held,
            f"checkpoint '{self.path}' holds no optimizer '{name}', only: {', '.join(held) or 'none'}",
        )
        try:
            saved = _SavedOptimizer(**held[name])
            sizes = [len(group["params"]) for group in saved.groups]
            state: dict[int, dict[str, Any]] = {int(index): dict(slots) for index, slots in saved.plain.items()}
        except (TypeError, KeyError, ValueError, AttributeError):
            raise InputError(
                f"checkpoint '{self.path}' describes optimizer '{name}' in a way that cannot be read"
            ) from None
        where = f"optimizer '{name}' in checkpoint '{self.path}'"
        kind = type(optimizer).__name__
        require(saved.kind == kind, f"{where} is {saved.kind}, but this run uses {kind}")
        expected = [len(group["params"]) for group in optimizer.param_groups]
        require(
            sizes == expected,
            f"{where} has parameter groups of sizes {sizes}, but this run has groups of {expected}",
        )
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for key, tensor in self._under(f"optimizer.{name}").items():
            index, slot = _slot_of(key, tensor, parameters, where)
            state.setdefault(index, {})[slot] = tensor.clone()
        _check_state(kind, state, where)
        groups = [
            _merge(new, old, where)
            for new, old in zip(saved.groups, optimizer.state_dict()["param_groups"], strict=True)
        ]
        try:
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{where} does not fit: torch refuses its state ({error})") from None

    def _under(self, folder: str) -> dict[str, Tensor]:
        start = f"{folder}/"
        return {key.removeprefix(start): value for key, value in self.all_tensors.items() if key.startswith(start)}


@dataclass(frozen=True)
class _SavedOptimizer:
    """How an optimizer stands in the JSON header: class, param groups, state that is not a tensor."""

    kind: str
    groups: list[dict[str, Any]]
    plain: dict[str, dict[str, Any]]


def _flatten_optimizer(name: str, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer as named tensors and as JSON."""
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
    return tensors, vars(_SavedOptimizer(type(optimizer).__name__, groups, plain))


def _merge(saved: Mapping[str, Any], current: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Saved hyper-parameters in the types of the current ones: JSON knows no tuples (betas), no tensors."""
    merged = dict(current)
    for key in (saved.keys() & current.keys()) - {"params"}:
        now, value = current[key], saved[key]
        if isinstance(now, tuple):
            good = isinstance(value, list) and len(value) == len(now) and all(map(_is_number, value))
        elif isinstance(now, bool | None):
            good = isinstance(value, bool | None)
        elif isinstance(now, int | float | Tensor):
            good = _is_number(value)
        else:
            good = type(value) is type(now)
        require(good, f"{where} has {shown(value)} as its '{key}', but this run has {now!r}")
        if isinstance(now, tuple):
            value = tuple(value)
        elif isinstance(now, Tensor):
            value = torch.as_tensor(value, dtype=now.dtype, device=now.device)
        merged[key] = value
    return merged


def _is_number(value: object) -> bool:
    """Whether it is a rate, a moment or the like: none is negative or infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


# What each optimizer remembers of a parameter; the names in brackets are there with some of its options only.
_ADAM = ({"step", "exp_avg", "exp_avg_sq"}, {"max_exp_avg_sq"})
_SLOTS: Mapping[str, tuple[set[str], set[str]]] = {"Adam": _ADAM, "AdamW": _ADAM, "SGD": (set(), {"momentum_buffer"})}


def _check_state(kind: str, state: Mapping[int, Mapping[str, Any]], where: str) -> None:
    """Refuse state that the optimizer would only stumble over at its next step."""
    always, sometimes = _SLOTS.get(kind, (set(), None))
    for index, slots in state.items():
        unknown = set() if sometimes is None else slots.keys() - always - sometimes
        odd = ", ".join(sorted((always - slots.keys()) | unknown))
        require(not odd, f"{where} lacks or should not have, for its parameter {index}: {odd[:200]}")
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                good = bool(torch.isfinite(value).all()) and (slot != "step" or (value.ndim == 0 and bool(value >= 0)))
            else:
                good = value is None or _is_number(value)
            require(bool(good), f"{where} has no usable '{slot}' for its parameter {index}")
            is_table = not isinstance(value, Tensor) or value.is_floating_point()
            require(is_table, f"{where} has a '{slot}' of whole numbers for its parameter {index}")


def _slot_of(key: str, tensor: Tensor, parameters: Sequence[Tensor], where: str) -> tuple[int, str]:
    """Split "3/exp_avg" into the index of a parameter and the name of its slot, and check the shape."""
    text, _, slot = key.partition("/")
    index = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
    require(
        0 <= index < len(parameters) and bool(slot),
        f"{where} has a tensor '{key}', but this run has {len(parameters)} parameters",
    )
    require(
        tensor.ndim == 0 or tensor.shape == parameters[index].shape,
        f"tensor '{key}' of {where} is {_shape_text(tensor)}, but its parameter is {_shape_text(parameters[index])}",
    )
    return index, slot


def _check_size(path: Path) -> None:
    """Refuse what would take memory out of proportion: a long header, or a file that is mostly holes."""
    about = path.stat()
    with path.open("rb") as file:
        start = file.read(8)
    length = int.from_bytes(start, "little")
    require(
        len(start) == 8 and length <= MOST_JSON,
        f"'{path}' is not a whole checkpoint, the file is cut or of another kind (a header of {length:,} bytes)",
    )
    # A file of terabytes can be made without writing any; the weights of a network are no zeros.
    written = getattr(about, "st_blocks", about.st_size) * 512
    require(
        about.st_size <= _LITTLE or 2 * written >= about.st_size,
        f"'{path}' is not a whole checkpoint, most of its {about.st_size:,} bytes were never written",
    )


def _check_tensors(path: Path, file: Any) -> None:
    """Look at names, types and shapes before any tensor is read."""
    names = file.keys()
    require(
        len(names) <= _MOST_TENSORS, f"checkpoint '{path}' holds {len(names):,} tensors, more than {_MOST_TENSORS:,}"
    )
    for name in names:
        about = file.get_slice(name)
        require(
            len(name) <= _LONGEST_NAME and len(about.get_shape()) <= _MOST_AXES and about.get_dtype() in _DTYPES,
            f"checkpoint '{path}' holds the tensor {shown(name)} of type {about.get_dtype()} with "
            f"{len(about.get_shape())} axes, which no network here has",
        )


def _pack(header: Mapping[str, Any], tensors: dict[str, Tensor]) -> bytes:
    """The bytes of a checkpoint file.

    Raises:
        InputError: If the vocabulary is too large to be read back.
    """
    text = json.dumps(header)
    # Every backslash, of which a vocabulary has many, is written as two in the header of the file.
    size = len(text) + text.count("\\") + text.count('"') + 120 * len(tensors)
    require(
        size <= MOST_JSON,
        f"a checkpoint has room for {MOST_JSON:,} bytes of words and settings, and this one needs {size:,}: set "
        "max_vocab or min_count",
    )
    return safetensors.torch.save(tensors, {_HEADER: text, _CHECKSUM: _checksum(text, tensors)})


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the header and of each tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {_shape_text(tensor)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_header(path: Path, text: str | None) -> dict[str, Any]:
    """Parse and check the JSON header.

    Raises:
        InputError: If it is missing, malformed, or of a newer format.
    """
    if text is None:
        raise InputError(f"'{path}' is a safetensors file, but not a checkpoint of textgan_env")
    try:
        header = parse_json(text, "it")
        version: Any = member(header, "format", object, "it")
    except InputError as error:
        sentence = f"'{path}' is not a checkpoint of textgan_env: its JSON header cannot be read"
        raise InputError(f"{sentence} ({error})") from None
    require(
        isinstance(version, int) and not isinstance(version, bool) and version >= 1,
        f"checkpoint '{path}' gives its format as {shown(version)}, not a number",
    )
    require(
        version <= FORMAT,
        f"checkpoint '{path}' has format {version}, written by a newer textgan_env; "
        f"this one reads formats up to {FORMAT}",
    )
    unknown = header.keys() - _HEADER_KEYS.keys() - {"format", "vocabulary"}
    require(
        not unknown, f"the header of checkpoint '{path}' has a part {shown(min(unknown, default=''))}, which is unknown"
    )
    for key, kind in _HEADER_KEYS.items():
        require(
            isinstance(header.get(key), kind),
            f"the header of checkpoint '{path}' has no {kind.__name__} '{key}'",
        )
    require(
        isinstance(header.get("vocabulary", 0), str | None),
        f"the header of checkpoint '{path}' has no text or null as 'vocabulary'",
    )
    require(
        _all_text(header["versions"].values()),
        f"the header of checkpoint '{path}' has a version that is not text",
    )
    require(_all_text(header["modules"]), f"the header of checkpoint '{path}' has a module name that is not text")
    return dict(header)


def _all_text(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _describe(vocabulary: Vocabulary | None) -> str:
    if vocabulary is None:
        return "no vocabulary (an oracle task)"
    return f"a vocabulary of {vocabulary.size:,} tokens (fingerprint {vocabulary.fingerprint()})"


def _shape_text(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
