"""What a kill leaves of a training's losses, samples and logs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.training.history import LossTable, read_losses
from dynamicid_pack.dynamicid_core.training.trainer import Trainer, new_accelerator
from dynamicid_pack.mini.train import stage as stages
from dynamicid_pack.mini.train.stage import StageConfig, TrainContext
from dynamicid_pack.tests.support import ROOT
from numpy.typing import NDArray
from torch import nn


class Killed(BaseException):
    """Stands in for the end of a process: nothing catches it."""


def quiet(_: str) -> None:
    """Take what a training tells."""


class Line(stages.Stage):
    """Finds the line through points, and shows its weight as a gray image: a stage that takes no time."""

    name = "line"
    config = StageConfig(steps=8, save_every=2, sample_every=2, learning_rate=0.05)

    def network(self) -> nn.Module:
        return nn.Linear(2, 1)

    def step_losses(self, network: nn.Module, step: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
        x = torch.randn(16, 2, generator=rng)
        return {"loss": (network(x)[:, 0] - x @ torch.tensor([2.0, -1.0])).square().mean()}

    def samples(self, trained: nn.Module) -> NDArray[np.uint8]:
        return np.full((4, 4, 3), int(128 + 100 * float(next(trained.parameters()).mean())), np.uint8)


def _write(path: Path, *steps: int) -> Path:
    table = LossTable(path, 0)
    for step in steps:
        table.append(step, {"loss": step / 8, "mse": float(step)})
    table.close()
    return path


@pytest.mark.parametrize("torn", ["1", "12", "12,0.", "12,0.5\r\n", "12,0.5,1", "", "\0\0\0"])
def test_a_row_that_a_kill_cut_short_is_left_out(tmp_path: Path, torn: str) -> None:
    path = _write(tmp_path / "losses.csv", *range(1, 12))
    whole = path.read_bytes()
    with path.open("a", newline="") as file:
        file.write(torn)
    LossTable(path, 12).close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("header", ["", "st", "step", "step,loss"])
def test_a_header_that_a_kill_cut_short_begins_anew(tmp_path: Path, header: str) -> None:
    path = tmp_path / "losses.csv"
    path.write_text(header)
    table = LossTable(path, 0)
    table.append(1, {"loss": 0.5})
    table.close()
    assert path.read_text() == "step,loss\n1,0.5\n"


def test_a_killed_process_leaves_every_row(tmp_path: Path) -> None:
    """A process that goes on from step 5 and is killed before its first step leaves the five rows."""
    path = _write(tmp_path / "losses.csv", *range(1, 8))
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from dynamicid_core.training.history import LossTable
table = LossTable(Path({str(path)!r}), 5)
import os, signal; os.kill(os.getpid(), signal.{"SIGTERM" if os.name == "nt" else "SIGKILL"})
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path)
    assert ended.returncode == -signal.SIGKILL
    assert [step for step, _ in read_losses(path, 1)] == [1, 2, 3, 4, 5]


def test_stored_weights_keep_the_losses_of_every_step(tmp_path: Path) -> None:
    """Killed after the first weights, before the first checkpoint: the rows stay, not their means alone."""
    context = TrainContext(tmp_path)
    Trainer(Line(context), log=quiet).run(until=4)
    path = tmp_path / "line" / "losses.csv"
    whole = path.read_bytes()
    shutil.rmtree(tmp_path / "line" / "checkpoint-00000004")
    assert Trainer(Line(context), log=quiet).step == 4
    assert path.read_bytes() == whole


@pytest.mark.parametrize("part", ["write", "save"])
def test_samples_are_there_after_a_kill_beside_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    whole, killed = TrainContext(tmp_path / "whole"), TrainContext(tmp_path / "killed")
    Trainer(Line(whole), log=quiet).run()

    def kill(_: object) -> None:
        raise Killed

    Trainer(Line(killed), log=quiet).run(until=2)
    training = Trainer(Line(killed), log=quiet)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, part, kill)
        with pytest.raises(Killed):
            training.run()
    Trainer(Line(killed), log=quiet).run()

    def left(context: TrainContext) -> dict[str, bytes]:
        files = (context.folder / "line").glob("*.*")
        return {f.name: f.read_bytes() for f in files if f.is_file() and f.name not in ("record.json", "curves.png")}

    assert left(killed) == left(whole) and {"samples-000004.png", "losses.csv"} <= left(whole).keys()


def test_what_was_logged_beyond_the_checkpoint_is_not_shown_twice(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def training() -> Trainer:
        return Trainer(Line(TrainContext(tmp_path)), new_accelerator(Line.config, tmp_path / "logs"), log=quiet)

    first = training()
    first.run(until=2)
    for step in (3, 4, 5):  # steps that no checkpoint holds
        first.accelerator.log({"loss": -1.0}, step)
    first.accelerator.end_training()
    time.sleep(1)  # files are read in the order of their names: by the second, then "10" before "9" of one process
    resumed = training()
    resumed.run()
    resumed.accelerator.end_training()
    shown = events.EventAccumulator(str(next((tmp_path / "logs").rglob("events*")).parent))
    shown.Reload()
    logged = shown.Scalars("loss")
    assert [event.step for event in logged] == list(range(1, 9)) and all(event.value >= 0 for event in logged)
