"""A make-believe GPU: its tensors live in CPU memory, and it refuses and counts what a GPU refuses and waits for.

`register` turns PyTorch's free place for a backend into the device ``fakegpu``. Every operation on it runs on the CPU,
by the same kernels, so results can be compared with the CPU's bit by bit. It raises where CUDA raises: tensors of two
devices in one operation, a CPU generator for a draw on the GPU, numpy made of a GPU tensor. And it counts kernel
launches and synchronisations, each by the line of the project that caused it.

What it cannot show: the rounding of a GPU's own kernels, its memory, its speed.

The renaming of the backend holds for the process and cannot be undone: use it in a process of its own.
"""

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils import _pytree, backend_registration

NAME = "fakegpu"
LAUNCHES: Counter[str] = Counter()
#: By "what @ file:line".
SYNCS: Counter[str] = Counter()

_PROJECT = str(Path(__file__).parent.parent)
# No kernel: another look at the same memory.
_VIEWS = {
    "view", "expand", "slice", "select", "transpose", "t", "permute", "unsqueeze", "squeeze", "as_strided", "detach",
    "alias", "unfold", "split", "unbind", "split_with_sizes", "_reshape_alias", "_unsafe_view", "diagonal", "empty",
    "empty_strided", "new_empty", "lift_fresh",
}  # fmt: skip
# How many elements they give depends on values, or a value goes to the host.
_WAITING = {
    "_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "repeat_interleave", "bincount",
}  # fmt: skip
_TRANSFERS = {"_to_copy", "copy_", "_copy_from", "_copy_from_and_resize"}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_CPU = torch.device("cpu")

#: The CPU tensor behind a fake one, by the address of the latter's storage: autograd gives tensors back as new objects.
_behind: dict[int, Tensor] = {}
_libraries: list[torch.library.Library] = []


class FakeTensor(Tensor):
    """A tensor on the fake GPU; ``raw`` holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    raw: Tensor

    def numpy(self, *_: Any, **__: Any) -> NoReturn:
        """Refused, as by CUDA."""
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        """Refused, as by CUDA."""
        self.numpy()


def reset() -> None:
    """Count from 0."""
    LAUNCHES.clear()
    SYNCS.clear()


def register() -> None:
    """Make the device known to PyTorch, once in a process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    every, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    _libraries.extend((every, aten))
    every.fallback(_run, "PrivateUse1")
    aten.impl("_copy_from", _copy_from, "PrivateUse1")
    # These have a kernel for all devices, which would be asked before the fallback.
    for name in torch._C._dispatch_get_all_op_names():
        plain, _, overload = name.removeprefix("aten::").partition(".")
        if not name.startswith("aten::") or plain in ("_copy_from", "item"):
            continue
        kinds = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
        if any(torch._C._dispatch_has_kernel_for_dispatch_key(name, kind) for kind in kinds):
            packet = getattr(torch.ops.aten, plain, None)
            operation = getattr(packet, overload or "default", None)
            if operation is not None:
                aten.impl(name.removeprefix("aten::"), _kernel(operation), "PrivateUse1")
    nn.LSTM.forward = _lstm  # type: ignore[method-assign,assignment]
    nn.Module._apply = _apply  # type: ignore[method-assign,assignment]
    torch.inference_mode = _inference_mode  # type: ignore[misc,assignment]


def _inference_mode(mode: bool = True) -> Any:
    """A backend in Python can make no inference tensors."""
    return torch.no_grad() if mode else nullcontext()


class _Backend:
    """What PyTorch asks a backend's module."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return []


def _is_fake(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == NAME


def _raw(tensor: Tensor) -> Tensor:
    """The CPU tensor behind a fake one."""
    if getattr(tensor, "raw", None) is None:
        raw = _behind[tensor.untyped_storage()._cdata]
        if type(tensor) is Tensor:
            tensor.__class__ = FakeTensor
        tensor.raw = raw  # type: ignore[attr-defined]
    return tensor.raw  # type: ignore[attr-defined,no-any-return]


def _fake(raw: Tensor) -> Tensor:
    """A fake tensor with these numbers."""
    tensor: Any = torch._C._acc.create_empty_tensor(tuple(raw.shape), raw.dtype)
    tensor.__class__, tensor.raw = FakeTensor, raw
    _behind[tensor.untyped_storage()._cdata] = raw
    return tensor  # type: ignore[no-any-return]


def _line() -> str:
    """The innermost line of the project that is running; backward passes have a thread of their own."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        path = frame.f_code.co_filename
        if path.startswith(_PROJECT) and not path.startswith((__file__, f"{_PROJECT}/.venv")):
            return f"{path[len(_PROJECT) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "backward"


def _kernel(operation: Any) -> Callable[..., Any]:
    return lambda *args, **options: _run(operation, *args, **options)


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _waits("transfer") if _is_fake(source) != _is_fake(target) else _launches("copy")
    (_raw(target) if _is_fake(target) else target).copy_(_raw(source) if _is_fake(source) else source)
    return target


def _launches(name: str) -> None:
    LAUNCHES[f"{name} @ {_line()}"] += 1


def _waits(name: str) -> None:
    SYNCS[f"{name} @ {_line()}"] += 1


def _run(operation: Any, *args: Any, **options: Any) -> Any:
    """An operation on fake tensors: refused, or counted and run on the CPU."""
    name = operation._schema.name.split("::")[-1]
    flat, spec = _pytree.tree_flatten((args, options))
    fakes = [value for value in flat if _is_fake(value)]
    others = [value for value in flat if isinstance(value, Tensor) and not _is_fake(value)]
    to_cpu = any(isinstance(value, torch.device) and value.type == "cpu" for value in flat)
    _refuse(name, flat, others)
    _count(name, args, fakes, others, to_cpu)
    on_cpu = [_raw(value) if _is_fake(value) else _CPU if isinstance(value, torch.device) else value for value in flat]
    cpu_args, cpu_options = _pytree.tree_unflatten(on_cpu, spec)
    cpu_options |= {"pin_memory": False} if "pin_memory" in cpu_options else {}
    operation = _dropout if name == "native_dropout" else operation
    if name.startswith("_fused_adam"):  # it takes memory as it lies
        cpu_args = (cpu_args[0], [gradient.contiguous() for gradient in cpu_args[1]], *cpu_args[2:])
    with torch.no_grad():
        # What a GPU lays out without gaps may have some here.
        found = cpu_args[0].reshape(cpu_args[1]) if name == "view" else operation(*cpu_args, **cpu_options)
    same = {id(_raw(value)): value for value in fakes} | {id(value): value for value in others}

    def back(value: Any) -> Any:
        """A result as the caller sees it: where it was an argument, that one."""
        if not isinstance(value, Tensor) or (to_cpu and name == "_to_copy"):
            return value
        return same[id(value)] if id(value) in same else _fake(value)

    return _pytree.tree_map(back, found)


def _dropout(values: Tensor, share: float, _: bool) -> tuple[Tensor, Tensor]:
    """Values and mask of `native_dropout`, from the draws that the CPU's dropout makes."""
    noise = torch.empty_like(values).bernoulli_(1 - share)
    return values * (noise / (1 - share)), noise.bool()


def _refuse(name: str, flat: list[Any], others: list[Tensor]) -> None:
    """Raise where CUDA does. A scalar tensor of the CPU may take part, and so may an index (it is copied)."""
    mixed = [tuple(value.shape) for value in others if value.dim()]
    if mixed and name not in _TRANSFERS | _INDEXING:
        found = f"found at least two devices, {NAME}:0 and cpu, in {name} of shapes {mixed}"
        raise RuntimeError(f"Expected all tensors to be on the same device, but {found}")
    for value in flat:
        if isinstance(value, torch.Generator) and value.device.type != NAME:
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{value.device.type}'")


def _count(name: str, args: tuple[Any, ...], fakes: list[Tensor], others: list[Tensor], to_cpu: bool) -> None:
    """Note a launch or a synchronisation."""
    transfer = name in _TRANSFERS and ((fakes and any(value.dim() for value in others)) or to_cpu)
    # A tensor of the host is made one of the GPU: `tensor.to(device)`.
    up = name == "_to_copy" and not fakes
    mask = name in _INDEXING and any(
        isinstance(value, Tensor) and value.dtype == torch.bool for value in _pytree.tree_leaves(args[1])
    )
    if transfer or up:
        _waits("transfer")
    elif mask:
        _waits(f"bool {name}")
    elif name in _INDEXING and any(value.dim() for value in others):
        _waits(f"index of the host in {name}")
    elif name in _WAITING:
        _waits(name)
    if name not in _VIEWS and name != "_local_scalar_dense":
        _launches(name)


_cpu_apply = nn.Module._apply


def _apply(module: nn.Module, *how: Any, **options: Any) -> nn.Module:
    """`module.to(device)` keeps its parameters, as between CPU and CUDA: an optimizer made before knows them still."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return _cpu_apply(module, *how, **options)  # type: ignore[no-any-return,no-untyped-call]
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


_cpu_lstm = nn.LSTM.forward


def _lstm(self: nn.LSTM, inputs_BTE: Tensor, state: Any = None) -> Any:
    """`torch.nn.LSTM` by the CPU's own kernel: one launch, as cuDNN's, and one backward."""
    if not _is_fake(inputs_BTE):
        return _cpu_lstm(self, inputs_BTE, state)
    if state is None:
        directions = 2 if self.bidirectional else 1
        zeros = inputs_BTE.new_zeros(directions * self.num_layers, len(inputs_BTE), self.hidden_size)
        state = (zeros, zeros)
    if not all(_is_fake(part) for part in (*state, *self._flat_weights)):
        raise RuntimeError("Input and hidden tensors are not at the same device")
    shape = (self.num_layers, self.bidirectional)
    hidden_BTH, *last = _Lstm.apply(shape, inputs_BTE, *state, *self._flat_weights)  # type: ignore[no-untyped-call]
    return hidden_BTH, tuple(last)


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shape: tuple[int, bool], *given: Tensor) -> tuple[Tensor, ...]:
        _launches("lstm")
        leaves = [_raw(part).detach().requires_grad_(part.requires_grad) for part in given]
        with torch.set_grad_enabled(any(ctx.needs_input_grad)):
            inputs_BTE, hidden, cell, *weights = leaves
            layers, both_ways = shape
            found = torch.lstm(inputs_BTE, [hidden, cell], weights, True, layers, 0.0, False, both_ways, True)
        ctx.leaves, ctx.found = leaves, found
        return tuple(_fake(part.detach()) for part in found)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        _launches("lstm")
        learning = [leaf for leaf in ctx.leaves if leaf.requires_grad]
        slopes_of = torch.autograd.grad(ctx.found, learning, [_raw(slope) for slope in slopes], allow_unused=True)
        by_leaf = dict(zip(map(id, learning), slopes_of, strict=True))
        gradients = (by_leaf.get(id(leaf)) for leaf in ctx.leaves)
        return None, *(None if gradient is None else _fake(gradient) for gradient in gradients)
