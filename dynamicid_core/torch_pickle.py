"""The pickle in a file of `torch.save`, stepped through without running anything.

The interpreter knows dicts, lists, numbers, texts and where tensors lie. It calls nothing and imports nothing: a
function that the file names is a name. Those that make tensors are recognized, those of plain values leave a
placeholder, any other refuses the file.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .messages import printable, quoted

_STEPS = 500_000  # opcodes of a pickle; a tensor takes some 40
AGAIN = "Download or copy it again."

_STORAGES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip
_DTYPES = {
    f"torch.{name}": dtype
    for name in (
        *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"),
        *("complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64"),
    )
    if (dtype := getattr(torch, name, None)) is not None
}
_KINDS = {
    **{f"{module}.{name}Storage": dtype for module in ("torch", "torch.cuda") for name, dtype in _STORAGES.items()},
    "torch.storage.UntypedStorage": torch.uint8,
}
_PLAIN = {
    "torch.Size", "torch.Tensor", "torch.device", "torch.nn.parameter.Parameter", "torch.serialization._get_layout",
    "collections.Counter", "builtins.set", "builtins.complex", "builtins.bytearray", "_codecs.encode", *_DTYPES,
}  # fmt: skip
"""Names of what a file may hold beside its tensors; none is called."""

_DICT = "collections.OrderedDict"
_REBUILD = {f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3")}
_PARAMETER = {f"torch._utils._rebuild_parameter{kind}" for kind in ("", "_with_state")}
_TYPED = "torch._tensor._rebuild_from_type_v2"
_KNOWN = {*_KINDS, *_PLAIN, _DICT, *_REBUILD, *_PARAMETER, _TYPED}


@dataclass(frozen=True)
class View:
    """A tensor's place in a storage.

    Attributes:
        storage: its name.
        offset, strides: in elements.
    """

    storage: str
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def contiguous(cls, storage: str, dtype: torch.dtype, shape: Sequence[int]) -> View:
        """Return a tensor that is all of a storage."""
        strides = [1] * len(shape)
        for axis in range(len(shape) - 1, 0, -1):
            strides[axis - 1] = strides[axis] * max(shape[axis], 1)
        return cls(storage, dtype, 0, tuple(shape), tuple(strides))

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class _Name:
    """A function or class that a pickle names, or what calling it would give; never looked up."""

    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype


class _RefusedError(ValueError):
    """What a pickle asks for is not what weights are made of."""


class Interpreter:
    """Steps through pickles of protocol 2.

    Attributes:
        dtypes: of the storages that were named so far.
    """

    def __init__(self) -> None:
        self.dtypes: dict[str, torch.dtype] = {}
        self._steps = 0

    def load(self, data: io.BytesIO) -> Any:
        """Return the next object, made of dicts, lists, tuples, numbers, texts and Views."""
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        try:
            for opcode, argument, _ in pickletools.genops(data):
                self._steps += 1
                if self._steps > _STEPS:
                    raise _RefusedError(f"its pickle takes more than {_STEPS:,} steps. Is it another model?")
                if opcode.name == "STOP":
                    break
                self._step(opcode.name, argument)
            return self._stack.pop()
        except _RefusedError:
            raise
        except ValueError as error:
            raise damaged(error) from error
        except (IndexError, KeyError, TypeError, AttributeError) as error:
            raise damaged("its pickle makes no sense") from error

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO":
                if argument != 2:
                    raise ValueError(f"pickle protocol {argument}, expected 2")
            case "MARK":
                self._marks.append(stack)
                self._stack = []
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case (
                "BINUNICODE" | "SHORT_BINSTRING" | "BINSTRING" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT"
            ):
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_SET":
                stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": (), "EMPTY_SET": _Name("set")}[name])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                self._to_mark().append(tuple(stack))
            case "APPEND":
                self._put([stack.pop()])
            case "APPENDS":
                self._to_mark()
                self._put(stack)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._put([key, value])
            case "SETITEMS":
                self._to_mark()
                self._put(stack)
            case "GLOBAL":
                stack.append(_named(argument))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(_called(stack.pop(), arguments))
            case "BUILD":  # attributes, such as a state dict's versions
                stack.pop()
            case _:
                raise ValueError(f"it holds {name}")

    def _to_mark(self) -> list[Any]:
        """Go back to the stack below the last mark, and return it."""
        self._stack = self._marks.pop()
        return self._stack

    def _put(self, items: list[Any]) -> None:
        """Put items into the list or dict on the stack; into anything else, such as a set, nothing needs to go."""
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, dict):
            # tensors lie under texts and numbers; other keys could be made to collide
            pairs = zip(items[::2], items[1::2], strict=True)
            target.update((key, value) for key, value in pairs if type(key) is str or _is_short(key))

    def _storage(self, identity: Any) -> _Storage | None:
        """Return the storage that a persistent id names, None for the source code of a module."""
        if identity[0] != "storage":
            return None
        _, kind, key, _, numel, *view = identity
        dtype = _KINDS.get(kind.name)
        if dtype is None or type(key) is not str or type(numel) is not int or any(view):
            raise ValueError("a storage of an unknown kind")
        self.dtypes[key] = dtype
        return _Storage(key, dtype)


def _named(argument: str) -> _Name:
    module, _, attribute = argument.partition(" ")
    name = f"{module.replace('__builtin__', 'builtins')}.{attribute}"
    if name not in _KNOWN:
        raise _RefusedError(
            f"the file asks for {printable(name)}, expected tensors only. It was refused and nothing in it was run. "
            "Get the weights from a source that you trust."
        )
    return _Name(name)


def _called(function: Any, arguments: tuple[Any, ...]) -> Any:
    """Return what a function's result stands for: a tensor's place, a dict, or a placeholder."""
    name = function.name
    if name == _TYPED:  # (function, type, arguments, state)
        if arguments[0].name == _TYPED:
            raise ValueError("a tensor's type of a type")
        return _called(arguments[0], arguments[2])
    if name in _PARAMETER:
        return arguments[0]
    if name == _DICT:
        return {}
    if name not in _REBUILD:
        return function
    storage, offset, shape, strides = arguments[:4]
    dtype = _DTYPES[arguments[6].name] if name.endswith("v3") else storage.dtype
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or not all(map(_is_short, numbers)) or min(numbers) < 0:
        raise ValueError(f"a tensor of shape {quoted(shape)} and strides {quoted(strides)}")
    return View(storage.key, dtype, offset, tuple(shape), tuple(strides))


def _is_short(number: object) -> bool:
    return type(number) is int and -(2**62) < number < 2**62


def damaged(reason: object) -> ValueError:
    """Return the error of a file that is not whole."""
    words = printable(str(reason)) or type(reason).__name__
    return ValueError(f"the PyTorch file is truncated, damaged or not made by torch.save ({words}). {AGAIN}")
