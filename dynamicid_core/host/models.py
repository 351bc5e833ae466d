"""The DYNAMICID value that Load DynamicID hands to other nodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..adapter import Adapter
from ..checkpoint import Checkpoint, load_checkpoint


@dataclass(frozen=True, eq=False)
class DynamicID:
    """The weights of one DynamicID, on the CPU as their files hold them.

    Attributes:
        adapter: what Apply DynamicID patches a model with.
        checkpoint: all parts that the files held.
    """

    adapter: Adapter
    checkpoint: Checkpoint


def load_dynamicid(saa: Path, imr: Path | None = None) -> DynamicID:
    """Load an adapter, and IMR from a second file if that is where it is.

    Raises:
        ValueError: a file is none of DynamicID's, or the first holds no adapter.
    """
    checkpoint = load_checkpoint(saa) if imr is None else load_checkpoint(saa, imr)
    if checkpoint.adapter is None:
        raise ValueError(
            f"{saa.name} holds no SAA weights (SAA_module.*). Choose the release's SAA.bin or a converted "
            "safetensors file as saa; IMR's file belongs in imr."
        )
    return DynamicID(checkpoint.adapter, checkpoint)
