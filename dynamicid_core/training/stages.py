"""Each stage of the method from its configuration file to its weights."""

from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

from ..configuration import read_config
from .anchoring import Anchoring
from .base_model import BaseNetworks, load_base_model
from .config import RENAMED, AnchoringConfig, ReconfigurationConfig, TrainingConfig
from .reconfiguration import Reconfiguration
from .shards import Shards
from .trainer import Trainer, new_accelerator


def anchor(path: Path, until: int | None = None) -> Trainer:
    """Train SAA and the face encoder. Raises ValueError when configuration, base model or data don't fit."""
    config = read_config(path, AnchoringConfig, RENAMED)
    accelerator = new_accelerator(config, config.output)
    stage = Anchoring(config, _base_model(config, accelerator), Shards(config.data))
    return _run(Trainer(stage, accelerator, accelerator.print), until)


def reconfigure(path: Path, until: int | None = None) -> Trainer:
    """Train IMR and its keypoint encoder. Raises ValueError when configuration, weights, base or data don't fit."""
    config = read_config(path, ReconfigurationConfig, RENAMED)
    accelerator = new_accelerator(config, config.output)
    base = _base_model(config, accelerator)
    stage = Reconfiguration(config, base, Shards(config.data), accelerator.num_processes)
    return _run(Trainer(stage, accelerator, accelerator.print), until)


def _base_model(config: TrainingConfig, accelerator: Accelerator) -> BaseNetworks:
    return load_base_model(config.base, accelerator.device, config.mixed_precision == "bf16")


def _run(trainer: Trainer, until: int | None) -> Trainer:
    with trainer.stopping_on_signals():
        trainer.run(until)
    trainer.accelerator.end_training()
    return trainer


STAGES: dict[str, Callable[[Path, int | None], Trainer]] = {"anchor": anchor, "reconfigure": reconfigure}
