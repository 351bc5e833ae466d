"""What the training loop asks of a stage."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .config import TrainingConfig

Say = Callable[[str], None]


class Stage(ABC):
    """One of the method's two trainings.

    Attributes:
        trained: what is trained, by name.
        module: called with a batch it gives named losses, means over the batch's rows; `loss` is followed downhill.
        rows: of a step's batch, over all processes.
    """

    name: str
    recipe: TrainingConfig
    trained: nn.ModuleDict
    module: nn.Module
    rows: int

    @abstractmethod
    def prepare(self, say: Say, process: int, processes: int) -> None:
        """What is done once before the first step, shared by the processes."""

    @abstractmethod
    def batch(self, step: int, rows: Sequence[int], device: torch.device) -> Any:
        """These rows of a step's batch, which follow from seed, step and row alone."""

    @abstractmethod
    def write(self, trained: nn.ModuleDict, path: Path) -> None:
        """Write weights as the pack's own file."""

    def samples(self, trained: nn.ModuleDict) -> Tensor | None:
        """A picture (3, H, W) in [0, 1] of what these weights do, or None."""
        return None


def chance(seed: int, step: int, row: int = -1) -> torch.Generator:
    """The chance of one row of a step, or of the step itself, on the CPU: the same on any number of processes."""
    digest = hashlib.sha256(f"{seed} {step} {row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def draw(rng: torch.Generator, below: int) -> int:
    """A number from 0 to below - 1."""
    return int(torch.randint(below, (1,), generator=rng))
