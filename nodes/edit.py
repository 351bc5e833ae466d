"""Edit Facial Motion: a person's expression and pose, changed before sampling."""

from collections.abc import Mapping
from typing import Any

import torch
from comfy.sd import CLIP
from comfy_api.latest import io

from ..dynamicid_core.host.edit import ALL, AUTO, MotionRequest, edit_motion
from ..dynamicid_core.host.layout import CANVAS
from ..dynamicid_core.host.models import DynamicID
from ..dynamicid_core.identity.identity import Identity
from ..dynamicid_core.imr.motion import EXPRESSIONS, NEUTRAL, turnable
from .door import checked
from .notify import warn
from .preview import motion_preview
from .sockets import DynamicIDSocket, IdentitySocket, choice, number

SOURCE_EXPRESSION = (
    "The expression that the reference shows. It is removed. auto: as Load DynamicID's expression_model read it when "
    "the person was encoded."
)
_FaceLandmarks = io.Custom("FACE_LANDMARKS")


class EditFacialMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        yaw = "Degrees to turn the head beyond the reference's pose; + is to the picture's right."
        pitch = "Degrees to raise the face beyond the reference's pose; + is up."
        strength = "0: the person unchanged; 1: as requested. Above 1 exaggerates."
        roll = "Degrees to tilt the head beyond the reference's pose; + is clockwise. Keypoints alone tell of it."
        driving = "How far the keypoints move towards those of the driving picture."
        degrees = {"low": -60.0, "high": 60.0, "step": 1.0}
        return io.Schema(
            node_id="DynamicIDEditMotion",
            display_name="Edit Facial Motion",
            category="DynamicID/identity",
            description="Gives a person another expression and head pose, before anything is drawn.",
            search_aliases=["expression", "emotion", "head pose", "liveportrait", "smile", "imr"],
            inputs=[
                IdentitySocket.Input("identity", tooltip="The person to edit."),
                DynamicIDSocket.Input("dynamicid", tooltip="From Load DynamicID, with its imr."),
                io.Clip.Input("clip", tooltip="The text encoder of the SD1.5 checkpoint."),
                io.Combo.Input(
                    "expression",
                    options=[*EXPRESSIONS, ALL],
                    default="happy",
                    optional=True,
                    tooltip="The wanted expression. all: one person for each expression; the nodes that follow run "
                    "once for each person.",
                ),
                number("yaw", 0.0, yaw, **degrees),
                number("pitch", 0.0, pitch, **degrees),
                number("strength", 1.0, strength, high=2.0, step=0.05),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Your own words, in place of those for expression and pose; or amounts and degrees, as in "
                    "happy 0.7, surprise 0.3, yaw 20. Each line makes a person.",
                ),
                choice("source_expression", [AUTO, *EXPRESSIONS], SOURCE_EXPRESSION),
                io.String.Input(
                    "source_prompt", default="", tooltip="Your own words for what the reference shows.", optional=True
                ),
                number("driving_strength", 1.0, driving, step=0.05),
                io.Image.Input("driving_image", optional=True, tooltip="A face whose expression and pose are copied."),
                _FaceLandmarks.Input(
                    "landmarks",
                    optional=True,
                    tooltip="The driving face from Detect Face Landmarks (MediaPipe), in place of driving_image.",
                ),
                _FaceLandmarks.Input(
                    "source_landmarks",
                    optional=True,
                    tooltip="The reference's own, from Detect Face Landmarks (MediaPipe). They tell its expression, "
                    "in place of source_expression.",
                ),
                number("roll", 0.0, roll, **degrees),
            ],
            outputs=[
                IdentitySocket.Output(
                    display_name="identity", is_output_list=True, tooltip="The person with the new expression: a list."
                ),
                io.Image.Output(display_name="keypoints", tooltip="Gray: the reference's. Colored: the wanted ones."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(
        cls,
        identity: Identity | None,
        dynamicid: DynamicID,
        clip: CLIP,
        strength: float,
        source_expression: str = NEUTRAL,  # what graphs mean that leave it out
        **request: Any,
    ) -> io.NodeOutput:
        if identity is None:  # Encode Identity skipped this person
            return io.NodeOutput([None], torch.zeros(1, CANVAS, CANVAS, 3))
        motion, face = MotionRequest(source_expression=source_expression, **request), identity.face
        driver, others = motion.driving_face(dynamicid)
        (source, note), targets = motion.source(identity), motion.targets(face, driver)
        notes = [note] if note else []
        if motion.moves_keypoints and (face is None or face.points68 is None):
            notes.append("this identity remembers no 3-D points: the words alone tell the pose. Encode it again.")
        if others:
            notes.append(f"{others + 1} faces are in driving_image: the largest drives.")
        if notes:  # together, since the node shows only the last words
            warn(cls, " ".join(notes))
        edited = [edit_motion(identity, dynamicid, clip, source, target, strength) for target in targets]
        told = {
            "face": turnable(face, driver),
            "inputs": plain(request | {"source_expression": source_expression}),
            "shown": source.expression,
        }
        return io.NodeOutput(edited, motion_preview(source, targets), ui={"dynamicid_motion": [told]})


def plain(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page's panel needs of the inputs: those that are plain numbers and words."""
    return {name: value for name, value in request.items() if isinstance(value, str | int | float)}
