"""Train all stages, or one from what the others stored; write what becomes of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import ship
from .autoencoder import AutoencoderStage
from .core_training import trainer
from .expression import ExpressionStage
from .face_pack import FacePackStage
from .flux import FluxStage
from .judge import JudgeStage
from .stage import Stage, TrainContext, half_is_quicker
from .text import TextStage
from .unet import UNetStage
from .vision import VisionStage

STAGES: dict[str, Callable[[TrainContext], Stage[Any]]] = {
    stage.name: stage
    for stage in (
        AutoencoderStage,
        JudgeStage,
        VisionStage,
        TextStage,
        UNetStage,
        FluxStage,
        FacePackStage,
        ExpressionStage,
    )
}


def train(
    checkpoints: Path,
    stage: str | None,
    until: int | None,
    device: str | None,
    precision: str,
    threads: int | None,
    seed: int,
) -> bool:
    """Train a stage, or all of them, to their last step or to step `until`. Return False when told to stop.

    Raises ValueError when what a stage starts from is missing.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    half = precision == "bfloat16" or (precision == "auto" and half_is_quicker(place))
    context = TrainContext(checkpoints, seed, place, half)
    torch.set_num_threads(threads or torch.get_num_threads())
    kind = "bfloat16" if half else "float32"
    print(f"process {os.getpid()}, {place}, {kind}, {torch.get_num_threads()} threads, {checkpoints}", flush=True)
    for name in [stage] if stage else STAGES:
        training = trainer.Trainer(STAGES[name](context), log=lambda line: print(line, flush=True))
        with training.stopping_on_signals():
            training.run(until)
        if training.stopped:
            return False
    return True


def ship_all(checkpoints: Path, folder: Path, threads: int | None) -> Path:
    """Write the trained networks as they ship, their pictures and their model card, whose path is returned.

    Raises ValueError when a network has not been trained.
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    context, card = TrainContext(checkpoints), folder.parent / "MODEL_CARD.md"
    ship.ship(context, folder)
    ship.show(context, folder.parent / "pictures")
    card.write_text(ship.card(context, folder, ship.measure(context, folder)), "utf-8")
    return card
