"""An identity's motion over time: which of several token sets each frame of a batch is drawn with."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

MAX_FRAMES = 4096


@dataclass(frozen=True, eq=False)
class Curve:
    """Token sets of one person who moves, and the set of each frame.

    Attributes:
        tokens: (sets, T, D), each as an identity's tokens.
        frames: number of its set, from 0, for each frame; the first frame's is 0.
    """

    tokens: Tensor = field(repr=False)
    frames: tuple[int, ...]

    def __post_init__(self) -> None:
        expected = "A motion over time has token sets (sets, tokens, dim) and, for each frame, the number of its set"
        if self.tokens.ndim != 3 or 0 in self.tokens.shape or not self.tokens.is_floating_point():
            raise ValueError(
                f"{expected}, got sets of shape {tuple(self.tokens.shape)} and {self.tokens.dtype}. Animate the person "
                "again."
            )
        sets = len(self.tokens)
        if not 0 < len(self.frames) <= MAX_FRAMES or not all(0 <= number < sets for number in self.frames):
            raise ValueError(
                f"{expected}, got {len(self.frames)} frames (1 to {MAX_FRAMES:,} are possible), with numbers that "
                f"aren't all of {sets} sets. Animate the person again."
            )
        if self.frames[0]:
            raise ValueError(f"{expected}, the first of which is 0, got {self.frames[0]}. Animate the person again.")
        object.__setattr__(self, "tokens", self.tokens.detach().to("cpu", torch.float32))
        if not bool(torch.isfinite(self.tokens).all()):
            raise ValueError(f"{expected}, but NaN or infinity came. Animate the person again.")

    def set_at(self, frame: int) -> int:
        """Return the number of a frame's token set, from 0; after the last frame it stays."""
        return self.frames[min(frame, len(self.frames) - 1)]

    def at(self, frame: int) -> Tensor:
        """Return a frame's tokens, (T, D)."""
        return self.tokens[self.set_at(frame)]


def curve_of(tokens: Sequence[Tensor]) -> Curve:
    """Return the curve of tokens (T, D) by frame; sets that are equal are kept once, in the order of their frames."""
    frames, firsts = numbered(one.contiguous().numpy().tobytes() for one in tokens)
    return Curve(torch.stack([tokens[first] for first in firsts]), frames)


def numbered(keys: Iterable[Hashable]) -> tuple[tuple[int, ...], list[int]]:
    """Return each key's number, from 0 as they first come, equal ones alike; and where each number first comes."""
    firsts: dict[Hashable, tuple[int, int]] = {}  # key -> number, place
    numbers = tuple(firsts.setdefault(key, (len(firsts), place))[0] for place, key in enumerate(keys))
    return numbers, [place for _, place in firsts.values()]
