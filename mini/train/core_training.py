"""What the stages use of the core's training, whichever way the checkout is imported (see `core`)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__ != "mini.train":
    from ...dynamicid_core.training import history, losses, trainer
    from ...dynamicid_core.training.config import OptimizationConfig
    from ...dynamicid_core.training.rng import seeded_generator
    from ...dynamicid_core.training.trainer import Network
else:
    from dynamicid_core.training import history, losses, trainer
    from dynamicid_core.training.config import OptimizationConfig
    from dynamicid_core.training.rng import seeded_generator
    from dynamicid_core.training.trainer import Network

__all__ = ["Network", "OptimizationConfig", "history", "losses", "seeded_generator", "trainer"]
