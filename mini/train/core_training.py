"""What the stages use of the core's training, whichever way the checkout is imported (see `core`)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__ != "mini.train":
    from ...dynamicid_core.training import history, losses, trainer
    from ...dynamicid_core.training.config import OptimizationConfig
    from ...dynamicid_core.training.rng import seeded_generator
else:
    from dynamicid_core.training import history, losses, trainer
    from dynamicid_core.training.config import OptimizationConfig
    from dynamicid_core.training.rng import seeded_generator

__all__ = ["OptimizationConfig", "history", "losses", "seeded_generator", "trainer"]
