"""What a base model is to SAA: one module for each way in which the host lets queries be read and a result be added."""

from comfy.model_patcher import ModelPatcher

from ...saa.adapter import Adapter
from ...saa.bases import BASES, UNET
from .architecture import Architecture
from .flux import FluxLike, Krea2
from .override import Anima, Lumina2, QwenImage, StableDiffusion3, Wan
from .unet import UNet

ARCHITECTURES: dict[str, Architecture] = {
    UNET: UNet(),
    "flux": FluxLike("flux"),
    "flux2": FluxLike("flux2"),
    "chroma": FluxLike("chroma"),
    "krea2": Krea2("krea2"),
    "qwen_image": QwenImage("qwen_image"),
    "lumina2": Lumina2("lumina2"),
    "sd3": StableDiffusion3("sd3"),
    "wan": Wan("wan"),
    "anima": Anima("anima"),
}
"""By the names that adapter files give them."""


def architecture_for(model: ModelPatcher, adapter: Adapter) -> Architecture:
    """Return the architecture that an adapter was made for.

    Raises:
        ValueError: the model is of another one, by name.
    """
    architecture = ARCHITECTURES[adapter.base]
    # a UNet's adapter is left to `match`, which says what it lacks
    if adapter.base != UNET and not architecture.is_of(model):
        is_of = (BASES[name].title for name, other in ARCHITECTURES.items() if other.is_of(model))
        name = next(is_of, type(model.model).__name__)
        raise ValueError(
            f"This adapter was made for {BASES[adapter.base].title}, but this model is {name}. Load a model of the "
            "adapter's kind, or an adapter that was trained for this one."
        )
    return architecture
