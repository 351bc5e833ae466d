"""One training loop for every stage: seeded, and resumable from its last checkpoint at any kill.

All that a step draws (pictures, noise, what is left out) follows from the seed, the stage's name and the step's
number, so a checkpoint holds only what training changes: step, networks, optimizer, average, loss history.
Where there is no checkpoint but what a training stored (its averaged weights and its record), it goes on from there.
"""

import copy
import hashlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import figures

RECORD = "record.json"  # beside a stage's stored weights
Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainContext:
    """Where and on what a training runs.

    Attributes:
        folder: holds every stage's checkpoints and the drawn pictures.
        half: compute in bfloat16 where that is safe (weights stay float32).
    """

    folder: Path
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    half: bool = False

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def stored(self, stage: str) -> dict[str, Tensor]:
        """A finished stage's weights by name. Raises ValueError when that stage has not been trained."""
        path = self.folder / stage / "weights.safetensors"
        if not path.exists():
            raise ValueError(f"expected {path} from the stage {stage!r}: train it first (--stage {stage})")
        return load_file(path)


class Stage(ABC):
    """One thing to train. Class attributes are the recipe; an instance may change them (tests do, to be short)."""

    name: ClassVar[str]
    steps: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warm_up: int = 200  # steps until the full learning rate
    cool_down: float = 0.3  # last share of the steps, in which it falls to nothing
    average: float = 0.999  # decay of the weights' moving average, which is what is kept in the end
    clip: float = 1.0  # gradient norm
    channels_last: bool = True  # kernels are laid out so; convolutions are quicker with it

    def __init__(self, context: TrainContext):
        self.context = context

    @abstractmethod
    def network(self) -> nn.Module:
        """What is trained, as it starts. Called with torch's seed set."""

    @abstractmethod
    def losses(self, network: nn.Module, step: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Named losses of one step; `loss` is the one that is followed downhill."""

    def picture(self, network: nn.Module) -> NDArray[np.uint8] | None:
        """A picture (H, W, 3) that shows how good the averaged network is, or None."""
        return None

    def measures(self, network: nn.Module) -> dict[str, float]:
        """What the averaged network gets right on held-out people."""
        return {}

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """What is kept of the averaged network, under the names that it is loaded by."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}

    def take(self, network: nn.Module, weights: dict[str, Tensor]) -> None:
        """Give a network what `weights` kept; what is not kept stays. Raises ValueError at names of something else."""
        unknown = network.load_state_dict(weights, strict=False).unexpected_keys
        if unknown:
            raise ValueError(f"expected {self.name}'s weights, got others: {unknown[:3]}")


@dataclass(frozen=True)
class Record:
    """How a stage's stored weights came to be.

    Attributes:
        seconds: that all steps took, on whatever machine.
        history: (step, mean losses since the entry before).
    """

    step: int
    seconds: float
    history: list[tuple[int, dict[str, float]]]


def read_record(path: Path) -> Record | None:
    """The record in a JSON file, or None where there is none."""
    if not path.exists():
        return None
    said = json.loads(path.read_text("utf-8"))
    return Record(said["step"], said["seconds"], [(step, losses) for step, losses in said["history"]])


def write_record(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = [(step, {name: float(f"{x:.5g}") for name, x in losses.items()}) for step, losses in record.history]
    said = {"step": record.step, "seconds": round(record.seconds, 1), "history": rounded}
    path.write_text(json.dumps(said) + "\n", "utf-8")


def half_is_quicker(device: torch.device) -> bool:
    """Whether bfloat16 pays on this device: a CPU that multiplies it is quicker by it, another far slower."""
    if device.type != "cpu":
        return True
    known = [getattr(torch.cpu, f"_is_{kind}_supported", None) for kind in ("amx_tile", "avx512_bf16")]
    return any(ask() for ask in known if ask)


def generator(seed: int, stage: str, step: int) -> torch.Generator:
    """The chance of one step, on the CPU."""
    digest = hashlib.sha256(f"{seed} {stage} {step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def rate_at(stage: Stage, step: int) -> float:
    """The learning rate's factor at a step: up, level, down."""
    falling = max(1.0, stage.steps * stage.cool_down)
    return max(0.0, min(1.0, (step + 1) / stage.warm_up, (stage.steps - step) / falling))


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, its kernels laid out channels last, which convolutions are quicker with."""
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Training:
    """A stage on its way. `run` goes on from the last checkpoint, if there is one, to the stage's last step."""

    def __init__(self, stage: Stage, say: Say = print):
        self.stage, self.say = stage, say
        self.folder = stage.context.folder / stage.name
        self.folder.mkdir(parents=True, exist_ok=True)
        device = stage.context.device
        torch.manual_seed(int(generator(stage.context.seed, stage.name, -1).initial_seed() % 2**31))
        network = stage.network()
        self.network = (placed(network, device) if stage.channels_last else network.to(device)).train()
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        decayed, others = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": stage.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, 0.99), fused=True)
        self.step = 0
        self.seconds = 0.0  # that all steps took, on whatever machine
        self.history: list[tuple[int, dict[str, float]]] = []
        self.stopped = False
        self._restore()

    # --- checkpoints ------------------------------------------------------------------------------------------------

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _restore(self) -> None:
        if not self.checkpoint.exists():
            self._go_on_from_stored()
            return
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seconds = state.get("seconds", 0.0)
        self.step, self.history = state["step"], [(step, losses) for step, losses in state["history"]]
        self.say(f"{self.stage.name}: going on from step {self.step}")

    def _go_on_from_stored(self) -> None:
        """Take the stored weights and record, if there are any: the optimizer and the average begin anew."""
        record = read_record(self.folder / RECORD)
        if record is None:
            return
        stored = self.stage.context.stored(self.stage.name)
        for network in (self.network, self.averaged):
            self.stage.take(network, stored)
        self.step, self.seconds, self.history = record.step, record.seconds, record.history
        self.say(f"{self.stage.name}: going on from the weights of step {self.step}")

    def save(self) -> None:
        """Write a checkpoint, aside and moved: a kill leaves the last whole one."""
        state: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
        }
        part = self.checkpoint.with_suffix(f".{os.getpid()}")
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.checkpoint)

    def show(self) -> None:
        """Write the loss curves, the sample picture and the weights as they stand."""
        figures.write_image(self.folder / "curves.png", figures.curves(self.history))
        with torch.no_grad():
            picture = self.stage.picture(self.averaged)
        if picture is not None:
            figures.write_image(self.folder / "samples.png", picture)
        part = self.folder / f"weights.{os.getpid()}"
        save_file(self.stage.weights(self.averaged), part)
        part.replace(self.folder / "weights.safetensors")
        write_record(self.folder / RECORD, Record(self.step, self.seconds, self.history))

    # --- steps ------------------------------------------------------------------------------------------------------

    def one_step(self) -> dict[str, Tensor]:
        stage = self.stage
        rng = generator(stage.context.seed, stage.name, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = stage.learning_rate * rate_at(stage, self.step)
        with stage.context.autocast():
            losses = stage.losses(self.network, self.step, rng)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), stage.clip)
        # A step whose gradient is not finite is left out; the next has other pictures.
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        self._average(min(stage.average, (1 + self.step) / (10 + self.step)))
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        """Bring the averaged network nearer to the network; counters are taken over."""
        now, mean = self.network.state_dict(), self.averaged.state_dict()
        floats = [name for name, tensor in mean.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([mean[name] for name in floats], [now[name] for name in floats], 1 - decay)
        for name in mean.keys() - set(floats):
            mean[name].copy_(now[name])

    def stop(self, *signal: object) -> None:
        """End after the step that is under way, with a checkpoint; may be a signal's handler."""
        self.stopped = True

    def run(self, until: int | None = None, every: float = 240.0, show_every: float = 900.0, log: int = 25) -> None:
        """Train to step `until` (the stage's last one when None).

        Checkpoints are written every `every` seconds, pictures and weights every `show_every`; losses are noted as
        means over `log` steps.
        """
        stage = self.stage
        last = stage.steps if until is None else min(until, stage.steps)
        saved = shown = noted = time.monotonic()
        gathered: dict[str, Tensor] = {}
        while self.step < last and not self.stopped:
            begun = time.monotonic()
            for name, value in self.one_step().items():
                gathered[name] = gathered.get(name, torch.zeros_like(value)) + value
            self.seconds += time.monotonic() - begun
            if self.step % log == 0:
                means = {name: float(value) / log for name, value in gathered.items()}
                self.history.append((self.step, means))
                gathered, now = {}, time.monotonic()
                said = " ".join(f"{name} {value:.4f}" for name, value in means.items())
                self.say(f"{stage.name} {self.step}/{stage.steps} {(now - noted) / log:.2f} s/step {said}")
                noted = now
                if now - saved > every:
                    self.save()
                    saved = time.monotonic()
                if now - shown > show_every:
                    self.show()
                    shown = noted = time.monotonic()
        self.save()
        if self.stopped:
            self.say(f"{stage.name}: stopped at step {self.step}")
            return
        self.show()
        if self.step >= stage.steps:
            measured = stage.measures(self.averaged)
            (self.folder / "measures.json").write_text(json.dumps(measured, indent=2) + "\n")
            self.say(f"{stage.name} done: {json.dumps(measured)}")
