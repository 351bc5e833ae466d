"""ComfyUI, for what is taken from it in training: its tokenizer's files, its UNet's and its Flux's classes."""

import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks import FLUX, UNET


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


def flux() -> nn.Module:
    """Return the host's Flux in miniature, ready to be trained.

    As in DiT (arXiv 2212.09748, section 3.2, adaLN-Zero) modulation begins at zero, so blocks add nothing, and so does
    the prediction. What is added to streams is summed in float32 under autocast, too.
    """
    prepare()
    from comfy.ldm.flux.layers import Modulation
    from comfy.ldm.flux.model import Flux

    network = Flux(**FLUX, dtype=torch.float32, operations=_Layers)
    for name in ("img_in", "txt_in"):
        network.get_submodule(name).in_float32 = True
    last = [network.final_layer.linear, network.final_layer.adaLN_modulation[-1]]
    last += [module.lin for module in network.modules() if isinstance(module, Modulation)]
    for layer in last:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return network


class _Layers:
    """Layers for the host's Flux, as its `operations`: they may be trained while it adds to its streams in place."""

    class Linear(nn.Linear):
        in_float32 = False

        def forward(self, x: Tensor) -> Tensor:
            if not self.in_float32:
                return super().forward(x)
            with torch.autocast(x.device.type, enabled=False):
                return super().forward(x.float())

    class LayerNorm(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            # A copy, which the gradient needs: the host adds to x itself afterwards.
            kind = x.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
            return super().forward(x.to(dtype, copy=True))

    class RMSNorm(nn.RMSNorm):
        def forward(self, x: Tensor) -> Tensor:
            # (x, -x) has no mean, and x's mean square for its variance: torch's kernel for layers is twice as quick.
            normed = F.layer_norm(torch.cat([x, -x], dim=-1), (2 * x.shape[-1],), eps=1e-6)  # Flux's epsilon
            return normed[..., : x.shape[-1]] * self.weight.to(x.dtype)


def rotate(q: Tensor, k: Tensor, v: Tensor, pe: Tensor, **_: object) -> dict[str, Tensor | None]:
    """Rotate queries and keys (b, h, n, d) by positions, as the host's `attn1_patch`: its own way is slow on a CPU.

    Args:
        pe: (1 or b, 1, n, d / 2, 2, 2), rotations by position and pair of channels.
    """
    turn = torch.complex(pe[..., 0, 0], pe[..., 1, 0])  # cos + i sin: (b, 1, n, d / 2)
    pairs = (torch.view_as_complex(x.float().unflatten(-1, (-1, 2))) for x in (q, k))
    q, k = (torch.view_as_real(x * turn).flatten(-2).to(v.dtype) for x in pairs)
    return {"q": q, "k": k, "v": v, "pe": None}


def joint_attention(_: object, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: object, **options: object) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v of heads (b, h, n, d) as (b, n, h d): Flux's `optimized_attention_override`."""
    shares = (q @ (k * q.shape[-1] ** -0.5).transpose(2, 3)).softmax(-1)
    return (shares @ v).transpose(1, 2).flatten(2)
