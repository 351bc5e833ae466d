"""The trainer of every stage, the method's and the miniature's: one process or many (accelerate).

What a step sees follows from seed, step and row, so a checkpoint holds weights, optimizer, average and step number, and
a training goes on from its last checkpoint to the bit.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..files import write_atomically
from .config import OptimizationConfig
from .history import LOSSES, LossTable

Log = Callable[[str], None]
Network = TypeVar("Network", bound=nn.Module)


class Stage(ABC, Generic[Network]):
    """What a trainer trains.

    Attributes:
        folder: where weights, checkpoints, logs and sample images go.
        trained: the networks that are trained, of whose weights a moving average is kept.
        module: given to `losses`, made ready for several processes; it holds `trained`.
        rows: of a step's batch, over all processes.
    """

    name: str
    config: OptimizationConfig
    folder: Path
    trained: Network
    module: nn.Module
    rows: int = 1

    @abstractmethod
    def losses(self, module: nn.Module, step: int, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return named losses of these rows of a step, means over them; `loss` is minimized."""

    @abstractmethod
    def write(self, trained: Network, step: int, seconds: float) -> Path:
        """Write the weights after so many steps, which took so long, into `folder`. Return the file's path."""

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of what is trained."""
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(parameters, lr=self.config.learning_rate, weight_decay=self.config.weight_decay)

    def prepare(self, log: Log, process: int, processes: int) -> None:
        """Do what is done once before the first step, shared by the processes."""
        return

    def begin(self) -> tuple[int, float]:
        """Give the networks their first weights, where there is no checkpoint. Return their steps and seconds."""
        return 0, 0.0

    def samples(self, trained: Network) -> NDArray[np.uint8] | None:
        """Return an image (H, W, 3) of what these weights do, or None."""
        return None

    def measures(self, trained: Network) -> dict[str, float]:
        """Return what these weights do well on held-out data, at the end of the training."""
        return {}


def new_accelerator(config: OptimizationConfig, logs: Path | None = None) -> Accelerator:
    """Return accelerate's view of this process. Stages place their own networks; TensorBoard's logs go to `logs`."""
    return Accelerator(
        device_placement=False,
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        log_with="tensorboard" if logs else None,
        project_dir=logs,
    )


class Trainer:
    """A stage in training. It goes on from the last checkpoint in the stage's folder, if there is one.

    Attributes:
        step: steps taken. seconds: that they took, on whatever machine.
        ema: the moving average of the trained weights.
        stopped: whether the training was told to stop.
    """

    def __init__(self, stage: Stage[Any], accelerator: Accelerator | None = None, log: Log = print) -> None:
        """Raises ValueError when the batch can't be shared out evenly."""
        config = stage.config
        accelerator = accelerator or new_accelerator(config)
        parts = accelerator.num_processes * config.gradient_accumulation_steps
        if stage.rows % parts:
            raise ValueError(
                f"{stage.rows} rows a step can't be shared by {accelerator.num_processes} processes in "
                f"{config.gradient_accumulation_steps} parts: choose a batch that is a multiple of {parts}."
            )
        self.stage, self.accelerator, self._log = stage, accelerator, log
        self.stopped = False
        checkpoint = max(stage.folder.glob("checkpoint-*"), default=None)
        self.step, self.seconds = (0, 0.0) if checkpoint else stage.begin()
        self.ema = AveragedModel(stage.trained, multi_avg_fn=self._update_ema, use_buffers=True).eval()
        self.ema.requires_grad_(False)
        if config.ema_warmup:
            self.ema.n_averaged.fill_(self.step + 1)  # the weights so far are averaged already
        self.module, self.optimizer = accelerator.prepare(stage.module, stage.optimizer())
        accelerator.register_for_checkpointing(self)
        if checkpoint:
            accelerator.load_state(str(checkpoint))
        # what a killed run logged beyond its checkpoint comes again
        accelerator.init_trackers(stage.name, init_kwargs={"tensorboard": {"purge_step": self.step + 1}})
        if self.step:
            log(f"{stage.name}: going on from step {self.step}")

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the module's and the optimizer's state."""
        return {"step": self.step, "seconds": self.seconds, "ema": self.ema.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.ema.load_state_dict(state["ema"])

    def save(self) -> None:
        """Write a checkpoint aside, move it to its place, then remove those before it: a kill leaves a whole one."""
        part, checkpoint = self.stage.folder / "part", self.stage.folder / f"checkpoint-{self.step:08}"
        if checkpoint.exists():  # this step's, to the bit
            return
        if self.accelerator.is_main_process:
            shutil.rmtree(part, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(part))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            part.rename(checkpoint)
            for older in set(self.stage.folder.glob("checkpoint-*")) - {checkpoint}:
                shutil.rmtree(older)

    @torch.no_grad()
    def write(self) -> None:
        """Write the averaged weights and draw samples with them, in the main process."""
        if not self.accelerator.is_main_process:
            return
        path = self.stage.write(self.ema.module, self.step, self.seconds)
        self._log(f"{self.stage.name}: step {self.step}, weights in {path}")
        image = self.stage.samples(self.ema.module)
        if image is not None:
            Image.fromarray(image).save(self.stage.folder / f"samples-{self.step:06}.png")
            for tracker in self.accelerator.trackers:
                tracker.log_images({"samples": image[None]}, self.step, dataformats="NHWC")

    # --- steps ------------------------------------------------------------------------------------------------------

    def _microbatches(self) -> Iterator[list[int]]:
        """Yield this process's rows of a step, in as many parts as gradients are accumulated over."""
        rows = range(self.accelerator.process_index, self.stage.rows, self.accelerator.num_processes)
        size = len(rows) // self.stage.config.gradient_accumulation_steps
        for start in range(0, len(rows), size):
            yield list(rows[start : start + size])

    def one_step(self) -> dict[str, float]:
        """Take one step of all processes. Return the losses over all of them."""
        config, accelerator = self.stage.config, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(config, self.step)
        totals: dict[str, Tensor] = {}
        for rows in self._microbatches():
            with accelerator.accumulate(self.module):
                losses = self.stage.losses(self.module, self.step, rows)
                accelerator.backward(losses["loss"])
                if accelerator.sync_gradients:
                    self._optimize()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach() / config.gradient_accumulation_steps
        self.step += 1
        self.ema.update_parameters(self.stage.trained)
        return {name: float(accelerator.reduce(loss, "mean")) for name, loss in totals.items()}

    def _optimize(self) -> None:
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), self.stage.config.max_grad_norm)
        # A step whose gradient isn't finite is left out. In fp16 the loss scaler does that, and lowers its scale then.
        if self.accelerator.scaler is not None or bool(torch.isfinite(norm)):
            self.optimizer.step()
        self.optimizer.zero_grad()

    def _update_ema(self, averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        """Bring the moving average nearer to the weights: a := d a + (1 - d) w. Counters are copied."""
        config, n = self.stage.config, int(count)
        decay = min(config.ema_decay, (1 + n) / (10 + n)) if config.ema_warmup else config.ema_decay
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(weights), 1 - decay)
        else:
            torch._foreach_copy_(list(averages), list(weights))

    def stop(self, *_: object) -> None:
        """End after the step that is under way, with a checkpoint; may be a signal's handler."""
        self.stopped = True

    @contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """Stop when the process is interrupted or terminated, as long as this context lasts."""
        before = {kind: signal.signal(kind, self.stop) for kind in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _told_to_stop(self) -> bool:
        """Whether any process was told to, so that all of them stop at the same step."""
        flag = torch.tensor(float(self.stopped), device=self.accelerator.device)
        self.stopped = float(self.accelerator.reduce(flag, "sum")) > 0
        return self.stopped

    def run(self, until: int | None = None) -> None:
        """Train to step `until`, the last one when None; write the weights, and measure them after the last one."""
        config, accelerator, stage = self.stage.config, self.accelerator, self.stage
        # Autoencoders overflow in fp16: SD1.5's range is bfloat16's.
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.mixed_precision == "bf16"):
            stage.prepare(self._log, accelerator.process_index, accelerator.num_processes)
        accelerator.wait_for_everyone()
        last = config.steps if until is None else min(until, config.steps)
        table = LossTable(stage.folder / LOSSES, self.step) if accelerator.is_main_process else None
        while self.step < last and not self._told_to_stop():
            begun = time.monotonic()
            losses = self.one_step()
            self.seconds += time.monotonic() - begun
            if table is not None:
                table.append(self.step, losses)
            accelerator.log(losses, self.step)
            if self.step % config.log_every == 0:
                values = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
                self._log(f"{stage.name} {self.step}/{config.steps} {time.monotonic() - begun:.2f} s/step {values}")
            if self.step % config.sample_every == 0 and self.step < last:
                self.write()  # before the checkpoint: after a kill in between, this step comes again
            if self.step % config.save_every == 0 and self.step < last:
                self.save()
        if table is not None:
            table.close()
        self.save()
        if self.stopped:
            self._log(f"{stage.name}: stopped at step {self.step}")
            return
        self.write()
        if self.step >= config.steps and accelerator.is_main_process:
            measured = json.dumps(stage.measures(self.ema.module), indent=2)
            write_atomically(stage.folder / "measures.json", measured + "\n")
            self._log(f"{stage.name} done: {measured}")


def cpu_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's weights by name, ready to be written."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def learning_rate_factor(config: OptimizationConfig, step: int) -> float:
    """Return the learning rate's factor at a step: it rises, stays, and falls, each linearly."""
    rise = (step + 1) / config.warmup_steps if config.warmup_steps else 1.0
    falling = config.steps * config.decay_ratio
    fall = (config.steps - step) / falling if falling else 1.0
    return max(0.0, min(1.0, rise, fall))
