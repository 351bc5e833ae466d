"""Edit Facial Motion: a person's expression and pose, changed before sampling."""

from typing import Any

from comfy.sd import CLIP
from comfy_api.latest import io
from torch import Tensor

from ..dynamicid_core.host.edit import edit_motion
from ..dynamicid_core.host.encode import face_of
from ..dynamicid_core.host.models import DynamicID
from ..dynamicid_core.identity.faces import Face
from ..dynamicid_core.identity.identity import Identity
from ..dynamicid_core.imr import mediapipe
from ..dynamicid_core.imr.motion import EXPRESSIONS, source_motion, target_motion
from .notify import warn
from .preview import motion_preview
from .sockets import DynamicIDSocket, IdentitySocket

ALL = "all"


class EditFacialMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def degrees(name: str, tooltip: str) -> io.Float.Input:
            return io.Float.Input(name, default=0.0, min=-60.0, max=60.0, step=1.0, tooltip=tooltip)

        return io.Schema(
            node_id="DynamicIDEditMotion",
            display_name="Edit Facial Motion",
            category="DynamicID/identity",
            description="Gives a person another expression and head pose, before anything is drawn.",
            search_aliases=["expression", "emotion", "head pose", "liveportrait", "smile", "imr"],
            inputs=[
                IdentitySocket.Input("identity", tooltip="Who."),
                DynamicIDSocket.Input("dynamicid", tooltip="From Load DynamicID, with its imr."),
                io.Clip.Input("clip", tooltip="The text encoder of the SD1.5 checkpoint."),
                io.Combo.Input(
                    "expression",
                    options=[*EXPRESSIONS, ALL],
                    default="happy",
                    tooltip="The wanted expression. all: one person for each, and what follows runs once for each.",
                ),
                degrees("yaw", "Degrees to turn the head, beyond the reference's pose; + is to the picture's right."),
                degrees("pitch", "Degrees to raise the face, beyond the reference's pose; + is up."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="0: the person as they are, 1: as asked. Above 1 exaggerates.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="Words of your own, in place of those for expression and pose. Each line makes a person.",
                ),
                io.Combo.Input(
                    "source_expression",
                    options=list(EXPRESSIONS),
                    default="neutral",
                    tooltip="What the reference shows, so that it can be taken out.",
                ),
                io.String.Input("source_prompt", default="", tooltip="Words of your own for what the reference shows."),
                io.Float.Input(
                    "driving_strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How far the keypoints go towards the driving picture's.",
                ),
                io.Image.Input(
                    "driving_image", optional=True, tooltip="A face whose expression and pose are carried over."
                ),
                io.Custom("FACE_LANDMARKS").Input(
                    "landmarks",
                    optional=True,
                    tooltip="The same from Detect Face Landmarks (MediaPipe), in place of a driving picture.",
                ),
                io.Custom("FACE_LANDMARKS").Input(
                    "source_landmarks",
                    optional=True,
                    tooltip="The reference's own, from Detect Face Landmarks (MediaPipe): they tell what it shows, in "
                    "place of source_expression.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", is_output_list=True),
                io.Image.Output(display_name="keypoints", tooltip="Grey: the reference's. Coloured: the wanted ones."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        identity: Identity | None,
        dynamicid: DynamicID,
        clip: CLIP,
        expression: str,
        yaw: float,
        pitch: float,
        strength: float,
        prompt: str,
        source_expression: str,
        source_prompt: str,
        driving_strength: float,
        driving_image: Tensor | None = None,
        landmarks: dict[str, Any] | None = None,
        source_landmarks: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        if identity is None:  # skipped before
            return io.NodeOutput([None], motion_preview([]))
        face = identity.face
        driver = _driver(driving_image, landmarks, dynamicid)
        if (yaw or pitch or driver) and (face is None or face.points68 is None):
            warn(cls, "this identity remembers no 3-D points: the words alone tell the pose. Encode it again.")
        if source_landmarks is not None:
            source_expression = mediapipe.expression_from(source_landmarks)
        source = source_motion(face, source_expression, source_prompt.strip())
        prompts = [line.strip() for line in prompt.splitlines() if line.strip()]
        asked = [("", words) for words in prompts] or [
            (name, "") for name in (EXPRESSIONS if expression == ALL else (expression,))
        ]
        wanted = [target_motion(face, name, yaw, pitch, words, driver, driving_strength) for name, words in asked]
        edited = [edit_motion(identity, dynamicid, clip, source, target, strength) for target in wanted]
        return io.NodeOutput(edited, motion_preview([(source, target) for target in wanted]))


def _driver(image: Tensor | None, landmarks: dict[str, Any] | None, dynamicid: DynamicID) -> Face | None:
    if landmarks is not None:
        return mediapipe.face_from(landmarks)
    if image is None:
        return None
    try:
        return face_of(image, dynamicid.faces)
    except ValueError as error:
        raise ValueError(f"driving_image: {error}") from error
