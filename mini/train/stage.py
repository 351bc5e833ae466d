"""The miniature's stages as the core's trainer takes them, and where they keep what they learned.

All that a step draws (images, noise, what is left out) follows from the seed, the stage's name and the step's number.
Where there is no checkpoint but what a training stored (averaged weights and record), training goes on from there.
"""

import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..networks import ROW_IDS
from . import figures
from .core import atomic_path, write_atomically
from .core_training import Network, OptimizationConfig, history, seeded_generator, trainer

WEIGHTS, RECORD = "weights.safetensors", "record.json"  # of a stage, in its folder
NOTED = 25  # steps whose mean losses a record notes together


@dataclass(frozen=True)
class TrainContext:
    """Where and on what a training runs.

    Attributes:
        folder: holds every stage's checkpoints and the drawn images.
        half: compute in bfloat16 where that is safe (weights stay float32).
    """

    folder: Path
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    half: bool = False

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def stored(self, stage: str) -> dict[str, Tensor]:
        """Return a finished stage's weights by name. Raises ValueError when that stage has not been trained."""
        path = self.folder / stage / WEIGHTS
        if not path.exists():
            raise ValueError(f"expected {path} from the stage {stage!r}: train it first (--stage {stage})")
        return load_file(path)

    def load(self, stage: str, network: Network, ignore: str = "") -> Network:
        """Return a network with a finished stage's weights, but for one, frozen. Raises as `stored` does."""
        network.load_state_dict({name: tensor for name, tensor in self.stored(stage).items() if name != ignore})
        return network.to(self.device).eval().requires_grad_(False)


class StageConfig(OptimizationConfig):
    """How a stage of the miniature takes its steps, where it says nothing else."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 200
    decay_ratio: float = 0.3
    ema_warmup: bool = True
    save_every: int = 250


class Stage(trainer.Stage[Network]):
    """One network to train. Its `config` may be changed before it is trained (tests do, to be short).

    Attributes:
        network: makes what is trained, as it starts. Called with torch's seed set.
        channels_last: kernels are laid out so; convolutions are quicker with it.
    """

    network: Callable[[], Network]
    channels_last: bool = True

    def __init__(self, context: TrainContext):
        self.context, self.folder = context, context.folder / self.name

    @abstractmethod
    def step_losses(self, network: Network, step: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Return named losses of one step; `loss` is minimized."""

    def kept(self, network: Network) -> nn.Module:
        """Return the part of the network that is kept."""
        return network

    def weights(self, network: Network) -> dict[str, Tensor]:
        """Return what is kept of the averaged network, under the names that it is loaded by."""
        return trainer.cpu_weights(self.kept(network))

    # --- what the trainer asks for ----------------------------------------------------------------------------------

    @cached_property
    def trained(self) -> Network:  # type: ignore[override]
        torch.manual_seed(int(seeded_generator(self.context.seed, self.name, -1).initial_seed() % 2**31))
        network, device = self.network(), self.context.device
        return (channels_last(network, device) if self.channels_last else network.to(device)).train()

    @property
    def module(self) -> nn.Module:  # type: ignore[override]
        return self.trained

    def losses(self, module: Any, step: int, rows: Sequence[int]) -> dict[str, Tensor]:
        with self.context.autocast():
            return self.step_losses(module, step, seeded_generator(self.context.seed, self.name, step))

    def optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW, in which only matrices and kernels decay."""
        parameters = [p for p in self.trained.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.learning_rate, betas=(0.9, 0.99), fused=True)

    def begin(self) -> tuple[int, float]:
        """Take the stored weights and record, if there are any: the optimizer and the average begin anew.

        What is not kept stays as it is. Raises ValueError at names of something else.
        """
        record = read_record(self.folder / RECORD)
        if record is None:
            return 0, 0.0
        stored = self.context.stored(self.name)
        stored.pop(ROW_IDS, None)
        unknown = self.kept(self.trained).load_state_dict(stored, strict=False).unexpected_keys
        if unknown:
            raise ValueError(f"expected {self.name}'s weights, got others: {unknown[:3]}")
        history.LossTable(self.folder / history.LOSSES, record.step, record.history).close()
        return record.step, record.seconds

    def write(self, trained: Network, step: int, seconds: float) -> Path:
        """Write the weights, their record, and the loss curves."""
        path = self.folder / WEIGHTS
        noted = history.read_losses(self.folder / history.LOSSES, NOTED)
        with atomic_path(path) as part:
            save_file(self.weights(trained), part)
        write_record(self.folder / RECORD, Record(step, seconds, noted))
        figures.write_image(self.folder / "curves.png", figures.curves(noted))
        return path


@dataclass(frozen=True)
class Record:
    """How a stage's stored weights came to be.

    Attributes:
        seconds: that all steps took, on whatever machine.
        history: (step, mean losses since the entry before).
    """

    step: int
    seconds: float
    history: history.History


def read_record(path: Path) -> Record | None:
    """Return the record in a JSON file, or None where there is none."""
    if not path.exists():
        return None
    values = json.loads(path.read_text("utf-8"))
    return Record(values["step"], values["seconds"], [(step, losses) for step, losses in values["history"]])


def write_record(path: Path, record: Record) -> None:
    """Write a record, its numbers rounded."""
    rounded = [(step, {name: float(f"{x:.5g}") for name, x in losses.items()}) for step, losses in record.history]
    values = {"step": record.step, "seconds": round(record.seconds, 1), "history": rounded}
    write_atomically(path, json.dumps(values) + "\n")


def half_is_quicker(device: torch.device) -> bool:
    """Return whether bfloat16 pays on this device: a CPU that multiplies it is quicker by it, another far slower."""
    if device.type != "cpu":
        return True
    checks = [getattr(torch.cpu, f"_is_{kind}_supported", None) for kind in ("amx_tile", "avx512_bf16")]
    return any(check() for check in checks if check)


def channels_last(network: Network, device: torch.device) -> Network:
    """Return the network on the device, its kernels laid out channels last, which convolutions are quicker with."""
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
