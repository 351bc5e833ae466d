"""ComfyUI, for what is taken from it in training: its tokenizer's files and its UNet's class."""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from ..networks import UNET


def folder() -> Path:
    """Return ComfyUI's folder, named by COMFYUI_PATH. Raises ValueError when it is not there."""
    path = Path(os.environ.get("COMFYUI_PATH", ""))
    if not (path / "comfy").is_dir() or not os.environ.get("COMFYUI_PATH"):
        raise ValueError(f"expected ComfyUI's folder in the environment variable COMFYUI_PATH, got {str(path)!r}")
    return path


def prepare() -> None:
    """Make `import comfy` work, on the CPU: what is built there is moved by whoever trains it."""
    if str(folder()) not in sys.path:
        sys.path.insert(0, str(folder()))
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    comfy.cli_args.args.use_pytorch_cross_attention = True


def unet() -> nn.Module:
    """Return the host's SD1.5 UNet in miniature, its weights as torch's own layers start them.

    As in SD1.5, what each block adds begins at zero, and so does the prediction.
    """
    prepare()
    import comfy.ops
    from comfy.ldm.modules.attention import SpatialTransformer
    from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel

    network = UNetModel(**UNET, legacy=False, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    for module in network.modules():
        for kind in (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm):
            if isinstance(module, kind):
                kind.reset_parameters(module)  # type: ignore[arg-type]  # the host's own does nothing
    last = [network.out[-1]]
    last += [m.out_layers[-1] for m in network.modules() if isinstance(m, ResBlock)]
    last += [m.proj_out for m in network.modules() if isinstance(m, SpatialTransformer)]
    for layer in last:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return network.requires_grad_(True)


def attention(_: object, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: object, **options: object) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, written out: as the host's `optimized_attention_override`.

    torch's own is slow backwards on a CPU: half of a training step went there.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    shares = (q @ (k * q.shape[-1] ** -0.5).transpose(2, 3)).softmax(-1)
    return (shares @ v).transpose(1, 2).flatten(2)
