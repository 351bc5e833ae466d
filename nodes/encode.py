"""Encode Identity: photographs of a person to an identity."""

from comfy.clip_vision import ClipVisionModel
from comfy_api.latest import io
from torch import Tensor

from ..dynamicid_core.host.encode import COMBINATIONS, CROPS, WHOLE, Choice, NoFaceError, encode
from ..dynamicid_core.host.models import DynamicID
from ..dynamicid_core.identity.analyzer import FaceAnalyzer
from ..dynamicid_core.identity.faces import ORDERS
from .door import checked
from .notify import warn
from .preview import faces_preview
from .sockets import PEOPLE_ALIASES, DynamicIDSocket, IdentitySocket, choice


class EncodeIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        pack = "Replaces Load DynamicID's face pack: another pack's insightface loader, with buffalo_l."
        return io.Schema(
            node_id="DynamicIDEncode",
            display_name="Encode Identity",
            category="DynamicID/identity",
            description="Makes a person out of a photograph, or out of several of the same person (a batch).",
            search_aliases=[*PEOPLE_ALIASES, "reference", "photo"],
            inputs=[
                io.Image.Input("image", tooltip="A photograph; a batch is several photographs of one person."),
                DynamicIDSocket.Input("dynamicid", tooltip="From Load DynamicID: its face encoder makes the identity."),
                choice(
                    "face",
                    ORDERS,
                    "The order in which a picture's faces are counted: by size, from the left, or from the picture's "
                    "center.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=99,
                    tooltip="Which face in that order; 0 is the first. The output faces shows it.",
                    optional=True,
                ),
                choice(
                    "crop",
                    CROPS,
                    "What CLIP sees: the whole picture, as the method does, or the face with a margin. auto: the whole "
                    "picture where it shows one face that is large enough, else the face. Not for FaceID, whose CLIP "
                    "sees the face turned upright, or nothing.",
                ),
                choice(
                    "combine",
                    COMBINATIONS,
                    "How several photographs become one person. best only: the photograph most like all the others.",
                ),
                choice(
                    "no_face",
                    ["error", "skip"],
                    "If no photograph shows the face: stop with an error, or go on without this person.",
                ),
                io.ClipVision.Input("clip_vision", optional=True, tooltip="Replaces Load DynamicID's: CLIP ViT-H."),
                io.MultiType.Input(
                    "face_analysis", [io.Custom("INSIGHTFACE"), io.Custom("FACEANALYSIS")], optional=True, tooltip=pack
                ),
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="The person; nothing where they are skipped."),
                io.Image.Output(
                    display_name="faces",
                    tooltip="The photographs; the face that was used has a frame. For FaceID Plus, what CLIP saw is "
                    "in the corner.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(
        cls,
        image: Tensor,
        dynamicid: DynamicID,
        face: str,
        index: int,
        combine: str,
        no_face: str,
        crop: str = WHOLE,  # what graphs mean that leave it out
        clip_vision: ClipVisionModel | None = None,
        face_analysis: object | None = None,
    ) -> io.NodeOutput:
        analyzer = None if face_analysis is None else FaceAnalyzer(face_analysis, dynamicid.embeds_rgb)
        try:
            encoded = encode(image, dynamicid, Choice(face, index), crop, combine, clip_vision, analyzer)
        except NoFaceError as error:
            if no_face == "error":
                raise ValueError(f"{error} Or set no_face to skip, and this person is left out.") from error
            warn(cls, f"this person is left out: {error}")
            return io.NodeOutput(None, image)
        if encoded.notes:  # together, since the node shows only the last words
            warn(cls, "; ".join(encoded.notes))
        return io.NodeOutput(encoded.identity, faces_preview(image, encoded.faces, encoded.aligned))
