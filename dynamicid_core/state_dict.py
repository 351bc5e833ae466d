"""State dicts: sizes read from shapes, names and shapes compared, networks filled without a second copy."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import TypeVar

import torch
from torch import Tensor, nn

from .messages import printable

Network = TypeVar("Network", bound="WeightsNetwork")
Weights = Mapping[str, Tensor]

_LISTED = 5
_DEEPEST = 200  # layers that a network is built with: these here have a few, CLIP's largest 48


def listed(names: Iterable[str]) -> str:
    """Return the first five names, sorted and printable, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - _LISTED
    return printable(", ".join(ordered[:_LISTED])) + (f" and {more} more" if more > 0 else "")


def size(weights: Weights, name: str, axis: int, axes: int = 2) -> int:
    """Return the length of one axis of a tensor with `axes` of them; 1 where it is missing: `compare` then names it."""
    if name not in weights:
        return 1
    shape = tuple(weights[name].shape)
    if len(shape) != axes:
        raise ValueError(f"{name} has shape {shape}, expected {axes} axes.")
    return shape[axis]


def depth(weights: Weights, prefix: str) -> int:
    """Return how many different numbers follow `prefix` in the names: the number of layers, at least 1."""
    heads = {name[len(prefix) :].split(".", 1)[0] for name in weights if name.startswith(prefix)}
    layers = max(1, sum(head.isdecimal() for head in heads))
    if layers > _DEEPEST:
        raise ValueError(
            f"{prefix}* has {layers} layers, expected at most {_DEEPEST}. The weights are of no such network."
        )
    return layers


def stacked(weights: Weights, name: str, dim: int, what: str) -> int:
    """Return how many `what`s of size `dim` a tensor's first axis stacks; 1 where it is missing."""
    rows = size(weights, name, 0) if name in weights else dim
    if dim < 1 or rows < 1 or rows % dim:
        raise ValueError(f"{name} has {rows} rows, expected a multiple of {dim}: one block of {dim} for each {what}.")
    return rows // dim


def check_shape(what: str, tensor: Tensor, shape: Sequence[int | str], advice: str = "") -> None:
    """Raise ValueError unless a tensor has a shape; an axis given by its name may have any length."""
    fits = [isinstance(axis, str) or axis == length for axis, length in zip(shape, tensor.shape, strict=False)]
    if tensor.ndim != len(shape) or not all(fits):
        expected = ", ".join(map(str, shape))
        raise ValueError(f"expected {what} of shape ({expected}), got {tuple(tensor.shape)}.{advice}")


def compare(expected: Mapping[str, Sequence[int]], weights: Weights) -> None:
    """Raise ValueError when names differ (both lists are given), or else when shapes differ."""
    missing, extra = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    differences = []
    if missing:
        differences.append(f"{len(missing)} missing ({listed(missing)})")
    if extra:
        differences.append(f"{len(extra)} not expected ({listed(extra)})")
    if differences:
        raise ValueError(
            f"of {len(expected)} expected tensors: {'; '.join(differences)}. "
            "The weights are incomplete, or those of another network or version."
        )
    wrong = [name for name in expected if tuple(weights[name].shape) != tuple(expected[name])]
    if wrong:
        details = "; ".join(
            f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(expected[name])}"
            for name in wrong[:_LISTED]
        )
        more = f"; and {len(wrong) - _LISTED} more of a wrong shape" if len(wrong) > _LISTED else ""
        raise ValueError(f"{details}{more}. The weights are damaged, or those of another network or version.")


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a network's state dict."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


class WeightsNetwork(nn.Module):
    """A network whose sizes are read from the shapes in its state dict."""

    @classmethod
    def shaped_like(cls: type[Network], weights: Weights, dim_head: int = 1) -> Network:
        """Return a network on the meta device, every size but the head dim read from the shapes in a state dict."""
        raise NotImplementedError

    @classmethod
    def check(cls, weights: Weights) -> None:
        """Raise ValueError when tensors are missing, not expected or of a wrong shape, whatever the head dim."""
        compare(shapes(cls.shaped_like(weights)), weights)

    @classmethod
    def from_weights(cls: type[Network], weights: Weights, dim_head: int = 64) -> Network:
        """Return a network for evaluation that holds a state dict's own tensors. Raises ValueError as `check` does.

        It shares memory with `weights` and keeps their dtype: clone them first if it is to be trained.
        """
        cls.check(weights)
        network = cls.shaped_like(weights, dim_head)
        network.load_state_dict(dict(weights), assign=True)
        return network.eval()


def fingerprint(weights: Weights) -> str:
    """Return the sha256, in hex, of names (sorted), dtypes, shapes and raw bytes: the same in any file format."""
    digest = sha256()
    for name in sorted(weights):
        tensor = weights[name].detach()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{dtype}\0{tuple(tensor.shape)}\0".encode())
        # as bytes, because numpy has no bfloat16; nothing is copied where the tensor is contiguous
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
