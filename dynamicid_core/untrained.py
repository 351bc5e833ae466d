"""A DynamicID of the right shapes that has learnt nothing: a model patched with it draws what it drew before.

Identity keys are the text's own; identity values and low-rank changes are zero. Its IMR hands identities on as they
are, up to their tokens' normalisation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .adapter import adapter_from_weights
from .checkpoint import Checkpoint
from .face_encoder import FaceEncoder
from .imr import IdentityMotionReconfigurator, KeypointEncoder
from .weights import fingerprint

RANK = 8
KEYPOINT_WIDTHS, KEYPOINT_DEPTHS = (8, 16, 32, 64, 64, 128), (1, 1, 1, 1, 1, 1)  # of the keypoint encoder's stages


def untrained(text_keys: Sequence[Tensor], encoder: FaceEncoder) -> Checkpoint:
    """An adapter for a UNet, and the face encoder whose identities it takes.

    Args:
        text_keys: the UNet's `attn2.to_k` weights (layer width, text width), in diffusers' processor order.

    Raises ValueError when the encoder's tokens and the text's are not of one width.
    """
    weights: dict[str, Tensor] = {}
    for block, keys in enumerate(text_keys):
        width, text_width = keys.shape
        if text_width != encoder.width:
            raise ValueError(f"expected identity tokens as wide as the text's ({text_width}), got {encoder.width}.")
        for index, source in ((2 * block, width), (2 * block + 1, text_width)):
            for name in ("to_q", "to_k", "to_v", "to_out"):
                inside = source if name in ("to_k", "to_v") else width
                weights[f"{index}.{name}_lora.down.weight"] = torch.randn(RANK, inside) / RANK
                weights[f"{index}.{name}_lora.up.weight"] = torch.zeros(width, RANK)
        weights[f"{2 * block + 1}.to_k_ip.weight"] = keys.detach().float().cpu().clone()
        weights[f"{2 * block + 1}.to_v_ip.weight"] = torch.zeros(width, text_width)
    own = {name: tensor.detach() for name, tensor in encoder.state_dict().items()}
    adapter = adapter_from_weights(weights, fingerprint(own), encoder.tokens)
    return Checkpoint(adapter, own, *_untrained_imr(encoder.width))


def _untrained_imr(width: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """IMR for tokens and pooled text of this width, and its keypoint encoder."""
    keypoint_encoder = KeypointEncoder(KEYPOINT_WIDTHS, KEYPOINT_DEPTHS, output_width=width)
    imr = IdentityMotionReconfigurator(token_width=width, motion_width=2 * width, width=width)
    with torch.no_grad():
        for layer in (imr.proj_in, imr.proj_out):
            torch.nn.init.eye_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        for reading, among, feed_forward in (*imr.disentangleNet, *imr.entangleNet):
            for last in (reading.to_out, among.to_out, feed_forward[-1]):
                torch.nn.init.zeros_(last.weight)
    return imr.state_dict(), keypoint_encoder.state_dict()
