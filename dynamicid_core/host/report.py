"""What Load DynamicID has loaded, in a few lines: what it is, what it fits, what is missing and where that goes."""

from __future__ import annotations

from pathlib import Path

from ..identity.analyzer import missing_files, select_providers
from ..identity.encoder import FaceEncoder
from ..identity.encoding import DYNAMICID, FACEID_PLUS, FACEID_PLUS_V2
from ..identity.installation import install_command, is_installed
from ..messages import printable
from ..saa.adapter import Adapter
from ..tensor_file import open_tensors
from .blocks import known_base
from .models import DynamicID


def loaded_report(
    dynamicid: DynamicID,
    vision: Path | None,
    face_pack: Path | None,
    provider: str,
    kind: str | None = None,
    expression: Path | None = None,
) -> str:
    """Return the report, a line for each part.

    Args:
        vision, face_pack, expression: what was chosen; only looked at, nothing is loaded.
        kind: the adapter's, where the user chose it; None where it was told by the file.
    """
    parts = (
        _adapter(dynamicid.adapter, told_by_file=kind is None),
        _vision(dynamicid, vision),
        _faces(face_pack, provider),
        _motion(dynamicid),
        _expression(dynamicid, expression),
    )
    return "\n".join(filter(None, parts))


def base_of(adapter: Adapter) -> str:
    """Return the base model that an adapter was made for."""
    count = len(adapter.dims) // 2
    return known_base(adapter) or f"a UNet of {count} cross-attentions, text of {adapter.text_dim}"


def _adapter(adapter: Adapter, told_by_file: bool) -> str:
    kind, tokens = adapter.encoding.kind, "unknown" if adapter.tokens is None else adapter.tokens
    line = f"{kind} for {base_of(adapter)}: {tokens} tokens of {adapter.token_dim}, rank {adapter.rank}"
    if told_by_file and kind == FACEID_PLUS:
        line += f". {FACEID_PLUS_V2} looks the same but for plusv2 in its name: if this is one, choose it as kind."
    return line


def _vision(dynamicid: DynamicID, path: Path | None) -> str:
    weights = dynamicid.checkpoint.face_encoder
    if weights is None:
        return "Face encoder: missing in the adapter's file, so photographs can't be encoded."
    expected = FaceEncoder.shaped_like(weights).clip_dim
    if expected is None:
        return "CLIP vision: not needed, this kind reads the face's embedding alone."
    if path is None:
        return "CLIP vision: missing. Put CLIP ViT-H into models/clip_vision and choose it as clip_vision."
    try:
        with open_tensors(path) as file:
            norms = [
                tensor for name, tensor in file.tensors.items() if name.endswith(("layer_norm1.weight", "ln_1.weight"))
            ]
    except (ValueError, OSError) as error:
        return f"CLIP vision: {error}"
    dim, name = norms[0].shape[0] if norms else "unknown", printable(path.name)
    if dim != expected:
        return f"CLIP vision: {name} does not fit, its states are of {dim}, {expected} are read. Choose CLIP ViT-H."
    return f"CLIP vision: {name}"


def _faces(pack: Path | None, provider: str) -> str:
    if not is_installed():
        return (
            f"Faces: insightface or onnxruntime is not installed. In the Python that runs ComfyUI: {install_command()}"
        )
    if pack is None:
        return "Face pack: missing. Unpack buffalo_l into models/insightface/models and choose it as face_pack."
    if missing := missing_files(pack):
        return f"Face pack: {printable(pack.name)} lacks {', '.join(missing)}. Unpack buffalo_l again, all of it."
    return f"Face pack: {printable(pack.name)}, on {select_providers(provider)[0].removesuffix('ExecutionProvider')}"


def _motion(dynamicid: DynamicID) -> str:
    both = dynamicid.checkpoint.imr is not None and dynamicid.checkpoint.keypoint_encoder is not None
    if both:
        return "IMR: loaded, expressions and poses can be changed."
    if dynamicid.adapter.encoding.kind != DYNAMICID:
        return "IMR: none was trained for this kind, expressions and poses can't be changed."
    return "IMR: missing. Put the release's IMR and its keypoint encoder into models/dynamicid and choose it as imr."


def _expression(dynamicid: DynamicID, path: Path | None) -> str:
    """Return who reads a photograph's expression; nothing where there is no IMR, which alone asks."""
    if path is not None:
        return f"Expressions of photographs: read by {printable(path.name)}"
    if dynamicid.checkpoint.imr is None:
        return ""
    return "Expressions of photographs: not read, they count as neutral. An expression_model reads them."
