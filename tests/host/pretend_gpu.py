"""A GPU, pretended: tensors that say they lie on another device and hold numbers, and a log of what a GPU waits for.

The device is called `meta`, the only one that PyTorch guards without a driver. Numbers are computed on the CPU; what a
GPU would refuse (tensors of two devices in one operator) is refused, and each crossing between the devices and each
number that Python reads back is logged with the place in the pack's code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import comfy.model_management as memory
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("meta")
CPU = torch.device("cpu")

TO_GPU, TO_CPU, READ_BACK = "copied to the GPU", "copied to the CPU", "read back"

_PACK = str(Path(__file__).parents[2]) + "/"
_FACTORIES = (torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor)
# They hand the second tensor's numbers, dtype or device to the first.
_COPIES = ("aten::copy_", "aten::to", "aten::_to_copy", "aten::_copy_from")
_METADATA = ("aten::is_pinned", "aten::is_same_size", "aten::size", "aten::is_complex", "aten::is_floating_point")


@dataclass(frozen=True)
class Event:
    """Something that a GPU waits for.

    Attributes:
        kind: TO_GPU, TO_CPU or READ_BACK.
        operator: the operator's name.
        size: number of elements.
        place: the file and the function that called PyTorch.
    """

    kind: str
    operator: str
    size: int
    place: str

    @property
    def ours(self) -> bool:
        """Whether the pack's own code did it."""
        return self.place.startswith(("dynamicid_core/", "nodes/"))


@dataclass
class Log:
    """What happened while a GPU was pretended; `operators` counts what was computed on it."""

    events: list[Event] = field(default_factory=list)
    operators: int = 0

    def note(self, kind: str, operator: str, size: int) -> None:
        self.events.append(Event(kind, operator, size, _place()))


class OnGpu(Tensor):
    """A tensor on the pretended GPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> OnGpu:
        made: OnGpu = Tensor._make_wrapper_subclass(
            cls, numbers.shape, strides=numbers.stride(), storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype, device=GPU,
        )  # fmt: skip
        made.numbers = numbers
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnGpu({tuple(self.shape)}, {self.dtype})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise AssertionError(f"{func} ran on the pretended GPU outside of it")


def on_gpu(tensor: Tensor) -> bool:
    return isinstance(tensor, OnGpu)


@contextmanager
def pretend_gpu(dtype: torch.dtype = torch.float32) -> Iterator[Log]:
    """Let GPU be the host's first choice, for networks in this dtype; yields what is logged."""
    log = Log()
    first_choice: Mapping[str, Callable[..., Any]] = {
        "get_torch_device": lambda: GPU,
        "text_encoder_device": lambda: GPU,
        "vae_device": lambda: GPU,
        "get_free_memory": lambda _=None, torch_free_too=False: (2**34, 2**34) if torch_free_too else 2**34,
        "get_total_memory": lambda _=None, torch_total_too=False: (2**34, 2**34) if torch_total_too else 2**34,
        "intermediate_device": lambda: CPU,
        "unet_dtype": lambda *_, **__: dtype,
        "unet_manual_cast": lambda *_, **__: None,
        "text_encoder_dtype": lambda *_, **__: dtype,
        "soft_empty_cache": lambda *_, **__: None,
    }
    before = {name: getattr(memory, name) for name in first_choice}
    for name, choice in first_choice.items():
        setattr(memory, name, choice)
    try:
        with _Made(log), _Dispatched(log):
            yield log
    finally:
        for name, choice in before.items():
            setattr(memory, name, choice)


class _Made(TorchFunctionMode):
    """Tensors that Python makes of numbers: PyTorch's C++ would hand a plain one to the meta device."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _FACTORIES and kwargs.get("device") is not None and torch.device(kwargs["device"]) == GPU:
            made = func(*args, **kwargs | {"device": CPU})
            return made.to(GPU)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and on_gpu(args[0]):
            args = (args[0], _index(args[1]), *args[2:])
        if func is Tensor.tolist and on_gpu(args[0]):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


class _Dispatched(TorchDispatchMode):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat, _ = tree_flatten((args, kwargs))
        tensors = [value for value in flat if isinstance(value, Tensor)]
        devices = [value for value in flat if isinstance(value, torch.device)]
        here = [tensor for tensor in tensors if on_gpu(tensor)]
        if not here and GPU not in devices:
            return func(*args, **kwargs)

        name = func._schema.name
        leaked = [tuple(tensor.shape) for tensor in tensors if tensor.device == GPU and not on_gpu(tensor)]
        assert not leaked, f"{name} got tensors of shapes {leaked} that were made without numbers"
        if name == "aten::_has_compatible_shallow_copy_type":  # a parameter that moves becomes another object
            return False
        self._refuse_mixed(name, func, tensors)
        self._note_indices(name, args)
        out = func(*tree_map(_numbers, args), **tree_map(_numbers, kwargs))
        if func._schema.is_mutable and not func._schema.returns:
            return out
        if name == "aten::copy_":
            self._note_copy(name, args[1], on_gpu(args[0]))
            return args[0]
        if func._schema.is_mutable:
            return _the_changed(out, args, kwargs)
        moved_to = devices[-1] if devices else None
        if name in _COPIES and moved_to is None and len(tensors) == 2:  # to(other)
            moved_to = GPU if on_gpu(tensors[1]) else CPU
        stays_here = moved_to == GPU if moved_to is not None else bool(here)
        if tensors and moved_to is not None and name in _COPIES:
            self._note_copy(name, tensors[0], stays_here)
            if stays_here and here and out is _numbers(tensors[0]):
                return tensors[0]
            if stays_here != bool(here) and out is _numbers(tensors[0]):
                out = out.clone()  # across devices nothing is shared
        self.log.operators += stays_here
        if (
            here
            and name not in _METADATA
            and any(isinstance(value, (bool, int, float)) for value in tree_flatten(out)[0])
        ):
            self.log.note(READ_BACK, name, here[0].numel())
        return tree_map(lambda value: OnGpu(value) if isinstance(value, Tensor) and stays_here else value, out)

    def _note_copy(self, name: str, source: Tensor, to_gpu: bool) -> None:
        if on_gpu(source) != to_gpu:
            self.log.note(TO_GPU if to_gpu else TO_CPU, name, source.numel())

    def _note_indices(self, name: str, args: Any) -> None:
        """Lists and tensors of numbers cross, as a GPU's index must; the size that a mask selects is read back."""
        if name in ("aten::index", "aten::index_put", "aten::index_put_") and on_gpu(args[0]):
            for index in args[1]:
                if index is not None and index.dtype == torch.bool:
                    self.log.note(READ_BACK, name, index.numel())
                elif index is not None and not on_gpu(index):
                    self.log.note(TO_GPU, name, index.numel())
        elif name in ("aten::nonzero", "aten::masked_select", "aten::repeat_interleave", "aten::_unique2"):
            self.log.note(READ_BACK, name, 1)

    def _refuse_mixed(self, name: str, func: Any, tensors: list[Tensor]) -> None:
        if name in _COPIES or name.startswith("aten::index") or not any(map(on_gpu, tensors)):
            return
        # A number in a tensor without axes goes with the launch.
        elsewhere = [tuple(tensor.shape) for tensor in tensors if not on_gpu(tensor) and tensor.ndim]
        if elsewhere:
            raise RuntimeError(f"Expected all tensors to be on the same device: {func} got {elsewhere} on the CPU.")


def _index(index: Any) -> Any:
    """An index whose lists are tensors on the GPU."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return torch.tensor(index).to(GPU) if isinstance(index, list) else index


def _numbers(value: Any) -> Any:
    if isinstance(value, torch.device):
        return CPU
    return value.numbers if isinstance(value, OnGpu) else value


def _the_changed(out: Any, args: Any, kwargs: Any) -> Any:
    """The tensors among the arguments whose numbers an operator has changed and returned."""
    known = {id(value.numbers): value for value in tree_flatten((args, kwargs))[0] if isinstance(value, OnGpu)}
    return tree_map(lambda value: known.get(id(value), value), out)


def _place() -> str:
    """Return the file and the function that called PyTorch: of the pack's product code from its folder on."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if "/torch/" not in file and file != __file__:
            return f"{file.removeprefix(_PACK)}:{frame.f_code.co_name}"
        frame = frame.f_back
    return ""
