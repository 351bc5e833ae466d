"""The training loop of both stages, on one process or many (accelerate), resumed to the bit from its last checkpoint.

What a step sees follows from seed, step and row, so a checkpoint holds weights, optimizer, average and step number.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from PIL import Image
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .config import TrainingConfig
from .stage import Say, Stage


def new_accelerator(recipe: TrainingConfig) -> Accelerator:
    """accelerate's view of this process; logs go to the recipe's output."""
    return Accelerator(
        mixed_precision=recipe.precision,
        gradient_accumulation_steps=recipe.accumulation,
        log_with="tensorboard",
        project_dir=str(recipe.output),
        step_scheduler_with_optimizer=False,
    )


class Training:
    """A stage on its way: goes on from the last checkpoint in the recipe's output, if there is one."""

    def __init__(self, stage: Stage, accelerator: Accelerator, say: Say = print) -> None:
        """Raises ValueError when the batch can't be shared out evenly."""
        recipe, processes = stage.recipe, accelerator.num_processes
        if stage.rows % (processes * recipe.accumulation):
            raise ValueError(
                f"{stage.rows} rows a step can't be shared by {processes} processes in {recipe.accumulation} parts: "
                "choose a batch that is a multiple of both together."
            )
        self.stage, self.accelerator, self.say = stage, accelerator, say
        set_seed(recipe.seed)
        self._own = [parameter for parameter in stage.module.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(self._own, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.module, self.optimizer = accelerator.prepare(stage.module, optimizer)
        self.average = AveragedModel(stage.trained, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True)
        self.average.requires_grad_(False)
        accelerator.register_for_checkpointing(self.average)
        accelerator.init_trackers(stage.name)
        self.step = 0
        self._resume()

    @property
    def folder(self) -> Path:
        return self.stage.recipe.output

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        checkpoint, old = self.folder / "checkpoint", self.folder / "checkpoint.old"
        if self.accelerator.is_main_process and old.exists() and not checkpoint.exists():
            old.rename(checkpoint)  # killed between two moves
        self.accelerator.wait_for_everyone()
        if not (checkpoint / "step.json").is_file():
            return
        self.accelerator.load_state(str(checkpoint))
        self.step = int(json.loads((checkpoint / "step.json").read_text("utf-8"))["step"])
        self.say(f"{self.stage.name}: going on from step {self.step}")

    def save(self) -> None:
        """Write a checkpoint, aside and moved: a kill leaves the last whole one."""
        part, last = self.folder / "checkpoint.part", self.folder / "checkpoint"
        if self.accelerator.is_main_process:
            shutil.rmtree(part, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(part))
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        (part / "step.json").write_text(json.dumps({"step": self.step}) + "\n", "utf-8")
        old = self.folder / "checkpoint.old"
        shutil.rmtree(old, ignore_errors=True)
        if last.exists():
            last.rename(old)
        part.rename(last)
        shutil.rmtree(old, ignore_errors=True)

    def write(self) -> Path:
        """Write the averaged weights as the pack's own file, where the main process does."""
        path = self.folder / f"{self.stage.name}.safetensors"
        if self.accelerator.is_main_process:
            trained = self.average.module if self.step else self.stage.trained
            assert isinstance(trained, torch.nn.ModuleDict)
            self.stage.write(trained, path)
        return path

    def show(self) -> None:
        """Draw samples with the averaged weights, into the log and into a file."""
        if not self.accelerator.is_main_process:
            return
        trained = self.average.module
        assert isinstance(trained, torch.nn.ModuleDict)
        picture = self.stage.samples(trained)
        if picture is None:
            return
        pixels = picture.permute(1, 2, 0).mul(255).round().byte().cpu().numpy()
        Image.fromarray(pixels).save(self.folder / f"samples-{self.step:06}.png")
        self.accelerator.get_tracker("tensorboard").log_images({"samples": pixels[None]}, self.step, dataformats="NHWC")

    # --- steps ------------------------------------------------------------------------------------------------------

    def _parts(self) -> Iterator[list[int]]:
        """This process's rows of a batch, in as many parts as they are taken in."""
        parts, processes = self.stage.recipe.accumulation, self.accelerator.num_processes
        rows = list(range(self.accelerator.process_index, self.stage.rows, processes))
        size = len(rows) // parts
        for part in range(parts):
            yield rows[part * size : (part + 1) * size]

    def one_step(self) -> dict[str, float]:
        """One step of all processes; the losses over all of them."""
        recipe, accelerator = self.stage.recipe, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate_at(recipe, self.step)
        found: dict[str, Tensor] = {}
        for rows in self._parts():
            with accelerator.accumulate(self.module):
                batch = self.stage.batch(self.step, rows, accelerator.device)
                with accelerator.autocast():
                    losses = self.module(batch)
                accelerator.backward(losses["loss"])
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self._own, recipe.clip)
                self.optimizer.step()
                self.optimizer.zero_grad()
            for name, loss in losses.items():
                found[name] = found.get(name, torch.zeros_like(loss)) + loss.detach() / recipe.accumulation
        self.step += 1
        self.average.update_parameters(self.stage.trained)
        return {name: float(accelerator.reduce(loss, "mean")) for name, loss in found.items()}

    def run(self, until: int | None = None) -> None:
        """Train to step `until`, the recipe's last one when None, and write the weights."""
        recipe, accelerator = self.stage.recipe, self.accelerator
        # Autoencoders overflow in fp16: SD1.5's range is bfloat16's.
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            self.stage.prepare(self.say, accelerator.process_index, accelerator.num_processes)
        accelerator.wait_for_everyone()
        last = recipe.steps if until is None else min(until, recipe.steps)
        with _Losses(self.folder / "losses.csv", self.step, accelerator.is_main_process) as losses:
            while self.step < last:
                found = self.one_step()
                losses.note(self.step, found)
                accelerator.log(found, self.step)
                if self.step % recipe.save_every == 0 and self.step < last:
                    self.save()
                if self.step % recipe.show_every == 0:
                    self.show()
                    self.write()
        self.save()
        path = self.write()
        self.say(f"{self.stage.name}: step {self.step}, weights in {path}")


class _Losses:
    """A table of every step's losses; what was noted from `step` on is taken out, for it is trained again."""

    def __init__(self, path: Path, step: int, writes: bool) -> None:
        self._path, self._step, self._writes = path, step, writes

    def __enter__(self) -> _Losses:
        if not self._writes:
            return self
        self._path.parent.mkdir(parents=True, exist_ok=True)
        kept: list[list[Any]] = []
        if self._path.is_file():
            with self._path.open(newline="") as file:
                kept = [row for row in csv.reader(file) if row and (row[0] == "step" or int(row[0]) <= self._step)]
        self._file = self._path.open("w", newline="")
        self._table = csv.writer(self._file)
        self._table.writerows(kept)
        self._headed = bool(kept)
        return self

    def note(self, step: int, losses: dict[str, float]) -> None:
        if not self._writes:
            return
        if not self._headed:
            self._table.writerow(["step", *losses])
            self._headed = True
        self._table.writerow([step, *(f"{loss:.8g}" for loss in losses.values())])
        self._file.flush()

    def __exit__(self, *error: object) -> None:
        if self._writes:
            self._file.close()


def rate_at(recipe: TrainingConfig, step: int) -> float:
    """The learning rate's factor at a step: up, level, down."""
    up = (step + 1) / recipe.warm_up if recipe.warm_up else 1.0
    falling = recipe.steps * recipe.cool_down
    down = (recipe.steps - step) / falling if falling else 1.0
    return max(0.0, min(1.0, up, down))
