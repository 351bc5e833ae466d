"""Each stage from its recipe's file to its weights."""

from collections.abc import Callable
from pathlib import Path

from .anchoring import Anchoring
from .base_model import load_base_model
from .config import AnchoringConfig, ReconfigurationConfig, read_config
from .reconfiguration import Reconfiguration
from .shards import Shards
from .trainer import Training, new_accelerator


def anchor(config: Path, until: int | None = None) -> Training:
    """Train SAA and the face encoder. Raises ValueError when recipe, base model or data don't fit."""
    recipe = read_config(config, AnchoringConfig)
    accelerator = new_accelerator(recipe)
    stage = Anchoring(recipe, load_base_model(recipe.base, accelerator.device), Shards(recipe.data))
    return _trained(Training(stage, accelerator, accelerator.print), until)


def reconfigure(config: Path, until: int | None = None) -> Training:
    """Train IMR and its keypoint encoder. Raises ValueError when recipe, weights, base model or data don't fit."""
    recipe = read_config(config, ReconfigurationConfig)
    accelerator = new_accelerator(recipe)
    base = load_base_model(recipe.base, accelerator.device)
    stage = Reconfiguration(recipe, base, Shards(recipe.data), accelerator.num_processes)
    return _trained(Training(stage, accelerator, accelerator.print), until)


def _trained(training: Training, until: int | None) -> Training:
    training.run(until)
    training.accelerator.end_training()
    return training


STAGES: dict[str, Callable[[Path, int | None], Training]] = {"anchor": anchor, "reconfigure": reconfigure}
