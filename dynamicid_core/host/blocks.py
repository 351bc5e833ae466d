"""Names of a base model's transformer blocks, and of base models by their adapters' sizes."""

from ..saa.adapter import Adapter
from ..saa.bases import BASES, UNET

# The key of our wrappers, callbacks and attachment on a ModelPatcher.
KEY = "dynamicid"

MIDDLE = "middle"

Place = tuple[str, int]
"""A place of a UNet as the host names it, ("input", 4), or a block of a transformer, ("double", 4)."""

BlockKey = Place | tuple[str, int, int]
"""A transformer block: its place, and its number there where the place holds several, as SDXL's do."""


_BASES = {(16, 768): "SD1.5", (70, 2048): "SDXL"}  # by number of cross-attentions and channels of the text


def block_name(key: BlockKey) -> str:
    """Return a block's name for messages: "input 4", or "input 4.1" for the second block of a place."""
    return f"{key[0]} {'.'.join(map(str, key[1:]))}"


def known_base(adapter: Adapter) -> str | None:
    """Return the name of the base model that an adapter was made for; None where its sizes are no known UNet's."""
    if adapter.base != UNET:
        return BASES[adapter.base].title
    return _BASES.get((len(adapter.dims) // 2, adapter.text_dim or 0))
