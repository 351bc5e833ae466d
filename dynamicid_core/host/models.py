"""The DYNAMICID value that Load DynamicID hands to other nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from comfy.clip_vision import ClipVisionModel

from ..checkpoint import Checkpoint, load_checkpoint
from ..expression_classifier import ExpressionClassifier
from ..identity.analyzer import FaceAnalyzer
from ..identity.encoder import FaceEncoder
from ..identity.encoding import DYNAMICID
from ..imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from ..messages import printable
from ..saa.adapter import Adapter
from ..saa.bases import UNET
from .lora import IN_GROUPS, WHOLE_LORA, LoraStrength
from .managed import Managed
from .sampling_run import AttentionSettings

SDXL_TEXT_DIM, SDXL_SIZE = 2048, 1024

# The miniature, where this was measured, has SD1.5's layers. SDXL's deepest level has more blocks than the middle one.
FACEID_SDXL_LORA_IN_GROUPS = (LoraStrength(overall=0.5),)


@dataclass(frozen=True, eq=False)
class DynamicID:
    """The weights of one DynamicID, on the CPU as their files hold them, and what its identities are made with.

    Attributes:
        adapter: what Apply DynamicID patches a model with.
        checkpoint: all parts that the files held.
        load_vision, load_faces, load_expression: load the CLIP vision model, the face pack and the expression model,
            when they are first used; None when none was chosen.
        embeds_rgb: see `FaceAnalyzer`; the release's identities need it, FaceID's don't.
        layout_steps: length of the layout phase that suits these weights, for Apply DynamicID, which has no widget for
            it.
        lora_in_groups: strengths of the adapter's LoRA there for two people, three, ..., the last also for more; empty:
            all of it, as for one person.
        size: pixels a side of the images that the base model was trained with, at which Redraw People draws a face.
    """

    adapter: Adapter
    checkpoint: Checkpoint = field(repr=False)
    load_vision: Callable[[], ClipVisionModel] | None = field(default=None, repr=False)
    load_faces: Callable[[], FaceAnalyzer] | None = field(default=None, repr=False)
    embeds_rgb: bool = True
    layout_steps: int = AttentionSettings().layout_steps
    lora_in_groups: tuple[LoraStrength, ...] = field(default=(), repr=False)
    size: int = 512
    load_expression: Callable[[], ExpressionClassifier] | None = field(default=None, repr=False)

    def lora_for(self, people: int) -> LoraStrength:
        """Return the strength of the adapter's LoRA that suits so many people."""
        if people < 2 or not self.lora_in_groups:
            return WHOLE_LORA
        return self.lora_in_groups[min(people - 2, len(self.lora_in_groups) - 1)]

    @property
    def gate(self) -> bool:
        """Whether the weights were trained with the gate, as Apply DynamicID then draws, which has no widget for it."""
        return self.adapter.encoding.kind == DYNAMICID

    @cached_property
    def vision(self) -> ClipVisionModel:
        """Load the CLIP vision model once. Raises ValueError when none was chosen."""
        if self.load_vision is None:
            raise ValueError("No CLIP vision model: choose one as clip_vision in Load DynamicID, or connect one.")
        return self.load_vision()

    @cached_property
    def faces(self) -> FaceAnalyzer:
        """Load the face pack once. Raises ValueError when none was chosen."""
        if self.load_faces is None:
            raise ValueError("No face pack: choose buffalo_l as face_pack in Load DynamicID, or connect an analyzer.")
        return self.load_faces()

    @cached_property
    def expression_classifier(self) -> ExpressionClassifier | None:
        """Load the expression model once; None when none was chosen. Raises ValueError for a file that is none."""
        return None if self.load_expression is None else self.load_expression()

    @cached_property
    def face_encoder(self) -> Managed[FaceEncoder]:
        """Build the face encoder once. Raises ValueError when the files held none."""
        if self.checkpoint.face_encoder is None:
            raise ValueError("The adapter's file holds no face encoder (proj_module.*): choose the release's SAA.bin.")
        return Managed(FaceEncoder.from_weights(self.checkpoint.face_encoder))

    @cached_property
    def imr(self) -> tuple[Managed[IdentityMotionReconfigurator], Managed[KeypointEncoder]]:
        """Build IMR and its keypoint encoder once. Raises ValueError when the files held not both."""
        if self.checkpoint.imr is None or self.checkpoint.keypoint_encoder is None:
            if self.adapter.encoding.kind != DYNAMICID:
                raise ValueError(
                    f"No IMR changes expression or pose of {self.adapter.encoding.kind}'s identities: none was "
                    "trained on them. Draw them without Edit Facial Motion, or train one (docs/training.md)."
                )
            missing = "IMR" if self.checkpoint.imr is None else "its keypoint encoder"
            raise ValueError(
                f"{missing} is not loaded: choose the release's IMR file as imr in Load DynamicID (its keypoint "
                "encoder lies in the same folder), or one file that `python -m dynamicid_core.checkpoint convert` made."
            )
        return (
            Managed(IdentityMotionReconfigurator.from_weights(self.checkpoint.imr)),
            Managed(KeypointEncoder.from_weights(self.checkpoint.keypoint_encoder)),
        )


def load_dynamicid(
    saa: Path,
    imr: Path | None = None,
    load_vision: Callable[[], ClipVisionModel] | None = None,
    load_faces: Callable[..., FaceAnalyzer] | None = None,
    kind: str | None = None,
    load_expression: Callable[[], ExpressionClassifier] | None = None,
) -> DynamicID:
    """Load an adapter, and IMR from a second file if that is where it is.

    Args:
        load_faces: takes `embeds_rgb`.
        kind: see `load_checkpoint`.

    Raises:
        ValueError: a file is not one of DynamicID's, or the first holds no adapter.
    """
    files = [saa] if imr is None else [saa, imr, *_keypoint_encoder_beside(imr)]
    checkpoint = load_checkpoint(*files, kind=kind)
    if checkpoint.adapter is None:
        raise ValueError(
            f"{printable(saa.name)} holds no SAA weights (SAA_module.*). Choose the release's SAA.bin or a converted "
            "safetensors file as saa; IMR's file belongs in imr."
        )
    rgb = checkpoint.adapter.encoding.embeds_rgb
    load_faces = load_faces and partial(load_faces, embeds_rgb=rgb)
    is_large = checkpoint.adapter.base != UNET or checkpoint.adapter.text_dim == SDXL_TEXT_DIM
    size = SDXL_SIZE if is_large else DynamicID.size
    return DynamicID(
        checkpoint.adapter,
        checkpoint,
        load_vision,
        load_faces,
        embeds_rgb=rgb,
        lora_in_groups=_lora_in_groups(checkpoint.adapter.encoding.kind, is_large),
        size=size,
        load_expression=load_expression,
    )


def _lora_in_groups(kind: str, is_large: bool) -> tuple[LoraStrength, ...]:
    if kind == DYNAMICID:
        return ()
    return FACEID_SDXL_LORA_IN_GROUPS if is_large else IN_GROUPS


def _keypoint_encoder_beside(imr: Path) -> list[Path]:
    """Return the release's keypoint encoder, named as the IMR file but for `IMR`; [] when there is no such file."""
    names = {imr.name.replace("IMR", word) for word in ("key_point_encoder", "keypoint_encoder")} - {imr.name}
    return [path for path in (imr.with_name(name) for name in sorted(names)) if path.is_file()][:1]
