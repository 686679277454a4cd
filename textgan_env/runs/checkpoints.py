"""One file that a run can resume from: weights, optimizer state and a JSON document, as safetensors.

Reading a checkpoint executes nothing that stands in it: safetensors holds numbers and one JSON text, and nothing is
unpickled. `textgan_env.runs.snapshot` writes it. What is in the file:

====================================  ==============================================================
``<module>/<parameter or buffer>``    the ``state_dict`` of a module
``optimizer.<name>/<index>/<slot>``   optimizer state of parameter ``index``, e.g. Adam's ``exp_avg``
``tensors/<name>``                    any other tensor
metadata ``textgan_env``              JSON: format, document, vocabulary, module names, optimizer
                                      hyper-parameters, library versions
metadata ``sha256``                   checksum over all of the above
====================================  ==============================================================
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from textgan_env.discriminators import DiscriminatorModule, make_discriminator
from textgan_env.ops.checksums import checksum, shape_text
from textgan_env.policies import PolicyModule, make_policy
from textgan_env.runs.snapshot import (
    CHECKSUM,
    DTYPES,
    FORMAT,
    HEADER,
    LONGEST_NAME,
    MOST_AXES,
    MOST_TENSORS,
    Header,
    SavedOptimizer,
)
from textgan_env.text.vocabulary import Vocabulary
from textgan_env.utils.errors import InputError, require
from textgan_env.utils.reading import (
    MOST_JSON,
    get_typed,
    most_weights,
    open_ordinary,
    parse_json,
    preview,
    read_typed,
    require_inside,
)

Network = TypeVar("Network", bound=nn.Module)


class _SavedPolicy(BaseModel, extra="forbid"):
    """How a document describes a policy that is built of it: under which name its weights stand, and how it is made."""

    module: str
    kind: str
    config: dict[str, Any]


def load_checkpoint(path: str | os.PathLike[str], *, inside: str | os.PathLike[str] | None = None) -> "Checkpoint":
    """Read a checkpoint.

    Args:
        path: A file that `textgan_env.runs.snapshot` wrote.
        inside: The folder that no link may lead out of; None: any link may.

    Returns:
        Its content, on the CPU, not yet put into any module.

    Raises:
        InputError: If there is no such file, it is not a whole checkpoint, or a newer version wrote it.
    """
    path = Path(path)
    require(path.is_file(), f"no checkpoint at '{path}'")
    if inside is not None:
        require_inside(path, inside)
    _check_size(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            header = _read_header(path, metadata.get(HEADER))
            _check_tensors(path, file)
            # Copies, because the originals may be views of the file, and files change.
            tensors = {name: file.get_tensor(name).clone() for name in list(file.keys())}
        found = checksum(metadata[HEADER], tensors)
    except InputError:
        raise
    # The library's own errors, and those of torch where a shape or a type is none.
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"'{path}' is not a whole checkpoint, the file is cut or of another kind ({error})") from None
    same = metadata.get(CHECKSUM) == found
    require(same, f"'{path}' is not a whole checkpoint, its checksum does not fit its content")
    return Checkpoint(path, header, tensors)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        path: Where it was read from.
        header: Its JSON.
        all_tensors: Every tensor by its name in the file, on the CPU.
    """

    path: Path
    header: Header
    all_tensors: dict[str, Tensor]

    @property
    def document(self) -> dict[str, Any]:
        """What the run stored as JSON: config, task, schedule counters."""
        return self.header.document

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words of the run, ``None`` where it has none (an oracle task).

        Raises:
            InputError: If the file holds a broken vocabulary.
        """
        saved = self.header.vocabulary
        return None if saved is None else Vocabulary.from_json(saved)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The further tensors that were given to `take_snapshot`, by name."""
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
        found = f"checkpoint '{self.path}' was trained with {_describe(saved)}"
        require(same, f"{found}, but this run has {_describe(vocabulary)}")

    def build_policy(self) -> PolicyModule:
        """The policy that the document describes under "policy", with its weights.

        What the file asks for is never larger than the file: a policy with more weights than it holds is not built.

        Returns:
            The policy on the CPU, in eval mode.

        Raises:
            InputError: If there is no such description, it is of another kind or size than the weights, or these are
                not finite.
        """
        saved = get_typed(self.document, "policy", _SavedPolicy, f"the document of checkpoint '{self.path}'")
        return self._built_policy(saved)

    def build_teachers(self) -> list[PolicyModule]:
        """The policies that the document describes under "teachers", with their weights; see `build_policy`."""
        document = f"the document of checkpoint '{self.path}'"
        saved = get_typed(self.document, "teachers", list[_SavedPolicy], document)
        twice = len(saved) - len({one.module for one in saved})
        require(twice == 0, f"{document} names {twice} teachers again")  # or a small file would make many networks
        return [self._built_policy(one) for one in saved]

    def _built_policy(self, saved: _SavedPolicy) -> PolicyModule:
        """A policy as it is described, with its weights."""
        return self._built("policy", saved.module, lambda: make_policy(saved.kind, saved.config))

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
        all_of_them = get_typed(self.document, "discriminators", dict[str, dict[str, Any]], document)
        described: dict[str, Any] = get_typed(all_of_them, name, dict, document)
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
        here, known = f"checkpoint '{self.path}'", ", ".join(self.header.modules) or "none"
        require(name in self.header.modules, f"{here} holds no module '{name}', only: {known}")
        expected, found = module.state_dict(), self._under(name)
        growing = getattr(module, "growing", ())  # what a module remembers: any number of rows
        weights = dict(module.named_parameters(remove_duplicate=False))
        for key, tensor in expected.items():
            require(key in found, f"{here} lacks tensor '{name}/{key}', expected {shape_text(tensor)}")
            axis = int(key in growing)
            same = found[key].dim() == tensor.dim() and found[key].shape[axis:] == tensor.shape[axis:]
            same &= found[key].dtype == tensor.dtype
            this = f"tensor '{name}/{key}' in {here} is {shape_text(found[key])}"
            require(same, f"{this}, but this run expects {shape_text(tensor)}")
        for key, tensor in found.items():
            require(key in expected, f"{here} holds tensor '{name}/{key}', which this run does not have")
            # Buffers may hold infinity: the best value so far begins there.
            sound = torch.isfinite(tensor) if key in weights else ~torch.isnan(tensor)
            require(bool(sound.all()), f"tensor '{name}/{key}' in {here} holds NaN or infinity")
        if isinstance(module, PolicyModule):
            try:
                module.require_sound(found)
            except InputError as error:
                raise InputError(f"module '{name}' in {here} cannot be used: {error}") from None
        module.load_state_dict(found)

    def restore_optimizer(self, name: str, optimizer: Optimizer) -> None:
        """Put saved state into an optimizer, in place; its hyper-parameters (rates, betas) stay as this run made it.

        Args:
            name: The name the optimizer was saved under.
            optimizer: An optimizer of the same class over parameters of the same shapes, in the same order.

        Raises:
            InputError: If the file has no such optimizer, or its class, its parameters or a tensor do not fit.
        """
        held = self.header.optimizers
        known = f"checkpoint '{self.path}' holds no optimizer '{name}', only: {', '.join(held) or 'none'}"
        require(name in held, known)
        where = f"optimizer '{name}' in checkpoint '{self.path}'"
        saved = read_typed(SavedOptimizer, held[name], where)
        kind = type(optimizer).__name__
        require(saved.kind == kind, f"{where} is {preview(saved.kind)}, but this run uses {kind}")
        sizes = [len(get_typed(group, "params", list, where)) for group in saved.groups]
        expected = [len(group["params"]) for group in optimizer.param_groups]
        require(sizes == expected, f"{where} has groups of sizes {sizes}, but this run has groups of {expected}")
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Any]] = {}
        for text, slots in saved.plain.items():
            state[_index_of(text, parameters, where)] = dict(slots)
        for key, tensor in self._under(f"optimizer.{name}").items():
            index, slot = _slot_of(key, tensor, parameters, where)
            state.setdefault(index, {})[slot] = tensor.clone()
        _check_state(kind, state, where)
        try:
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{where} does not fit: torch refuses its state ({error})") from None

    def _under(self, folder: str) -> dict[str, Tensor]:
        """The tensors whose names begin with a folder, without it."""
        start = f"{folder}/"
        return {key.removeprefix(start): value for key, value in self.all_tensors.items() if key.startswith(start)}


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
                good = value.is_floating_point() and bool(torch.isfinite(value).all())
                good = good and (slot != "step" or (value.ndim == 0 and bool(value >= 0)))
                require(good, f"{where} has no usable '{slot}' for its parameter {index}")


def _index_of(text: str, parameters: Sequence[Tensor], where: str) -> int:
    """The number of a parameter, as it stands in a name."""
    index = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
    known = 0 <= index < len(parameters)
    require(known, f"{where} has state of parameter {preview(text)}, but this run has {len(parameters)} parameters")
    return index


def _slot_of(key: str, tensor: Tensor, parameters: Sequence[Tensor], where: str) -> tuple[int, str]:
    """Split "3/exp_avg" into the index of a parameter and the name of its slot, and check the shape."""
    text, _, slot = key.partition("/")
    index = _index_of(text, parameters, where)
    expected = parameters[index]
    fits = bool(slot) and (tensor.ndim == 0 or tensor.shape == expected.shape)
    found = f"tensor '{key}' of {where} is {shape_text(tensor)}"
    require(fits, f"{found}, but its parameter is {shape_text(expected)}")
    return index, slot


def _check_size(path: Path) -> None:
    """Refuse what would take memory out of proportion: a long header, or a file that is mostly holes."""
    with open_ordinary(path) as file:
        start = file.read(8)
    length = int.from_bytes(start, "little")
    broken = f"'{path}' is not a whole checkpoint"
    plain = len(start) == 8 and length <= MOST_JSON
    require(plain, f"{broken}, the file is cut or of another kind (a header of {length:,} bytes)")


def _check_tensors(path: Path, file: Any) -> None:
    """Look at names, types and shapes before any tensor is read."""
    names = file.keys()
    require(len(names) <= MOST_TENSORS, f"checkpoint '{path}' holds more than {MOST_TENSORS:,} tensors")
    for name in names:
        about = file.get_slice(name)
        kind, axes = about.get_dtype(), len(about.get_shape())
        usual = len(name) <= LONGEST_NAME and axes <= MOST_AXES and kind in DTYPES
        odd = f"the tensor {preview(name)} of type {kind} with {axes} axes, which no network here has"
        require(usual, f"checkpoint '{path}' holds {odd}")


def _read_header(path: Path, text: str | None) -> Header:
    """Parse and check the JSON header.

    Raises:
        InputError: If it is missing, malformed, or of a newer format.
    """
    if text is None:
        raise InputError(f"'{path}' is a safetensors file, but not a checkpoint of textgan_env")
    where = f"the header of checkpoint '{path}'"
    found = parse_json(text, where)
    version = get_typed(found, "format", int, where)
    newer = f"has format {preview(version)}, written by a newer textgan_env; this one reads formats up to {FORMAT}"
    require(version <= FORMAT, f"checkpoint '{path}' {newer}")
    return read_typed(Header, found, where)


def _describe(vocabulary: Vocabulary | None) -> str:
    """A vocabulary as a sentence names it."""
    if vocabulary is None:
        return "no vocabulary (an oracle task)"
    return f"a vocabulary of {vocabulary.size:,} tokens (fingerprint {vocabulary.fingerprint()})"
