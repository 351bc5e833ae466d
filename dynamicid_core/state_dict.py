"""State dicts: sizes read from shapes, names and shapes compared, a network filled without a second copy."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
Weights = Mapping[str, Tensor]

_LISTED = 5


def listed(names: Iterable[str]) -> str:
    """The first five names, sorted, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - _LISTED
    return ", ".join(ordered[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def size(weights: Weights, name: str, axis: int, axes: int = 2) -> int:
    """Length of one axis of a tensor that has `axes` of them; 1 where it is missing: `compare` names it then."""
    if name not in weights:
        return 1
    shape = tuple(weights[name].shape)
    if len(shape) != axes:
        raise ValueError(f"{name} has shape {shape}, expected {axes} axes.")
    return shape[axis]


def depth(weights: Weights, prefix: str) -> int:
    """How many different numbers follow `prefix` in the names: the number of layers, at least 1."""
    heads = {name[len(prefix) :].split(".", 1)[0] for name in weights if name.startswith(prefix)}
    return max(1, sum(head.isdecimal() for head in heads))


def parts(length: int, of: int, name: str, what: str) -> int:
    """`length / of`, for a tensor whose first axis stacks `what`s of size `of`."""
    if of < 1 or length < 1 or length % of:
        raise ValueError(f"{name} has {length} rows, expected a multiple of {of}: one block of {of} for each {what}.")
    return length // of


def compare(expected: Mapping[str, Sequence[int]], weights: Weights) -> None:
    """Raises ValueError when names differ (both lists are given), or else when shapes differ."""
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
        shown = "; ".join(
            f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(expected[name])}"
            for name in wrong[:_LISTED]
        )
        more = f"; and {len(wrong) - _LISTED} more of a wrong shape" if len(wrong) > _LISTED else ""
        raise ValueError(f"{shown}{more}. The weights are damaged, or those of another network or version.")


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's state dict."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def adopt(network: Network, weights: Weights) -> Network:
    """Puts weights that fit into a network built on the meta device, without copying, and switches it to evaluation.

    The network then shares memory with `weights` and keeps their dtype: clone them first if it is to be trained.
    """
    network.load_state_dict(dict(weights), assign=True)
    return network.eval()


def fingerprint(weights: Weights) -> str:
    """Sha256, in hex, over names (sorted), dtypes, shapes and raw bytes: equal for equal weights in any file format."""
    digest = sha256()
    for name in sorted(weights):
        tensor = weights[name].detach()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{dtype}\0{tuple(tensor.shape)}\0".encode())
        # as bytes, because numpy has no bfloat16; nothing is copied where the tensor is contiguous
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
