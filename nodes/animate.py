"""Animate Motion: a person whose expression and pose change from frame to frame."""

from typing import Any

import torch
from comfy.sd import CLIP
from comfy_api.latest import io

from ..dynamicid_core.host.animation import AnimationRequest
from ..dynamicid_core.host.edit import AUTO, animate, shown_motion
from ..dynamicid_core.host.models import DynamicID
from ..dynamicid_core.identity.identity import Identity
from ..dynamicid_core.imr.keyframes import EASINGS
from ..dynamicid_core.imr.motion import EXPRESSIONS, NEUTRAL
from .door import checked
from .edit import SOURCE_EXPRESSION
from .notify import warn
from .preview import motion_preview
from .sockets import DynamicIDSocket, IdentitySocket, choice, number

MAX_FRAMES = 1024
PREVIEW = 256  # pixels a side of a frame's preview


class AnimateMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        strength = "0: the person unchanged; 1: as requested. Above 1 exaggerates."
        driving = "How far the keypoints move towards those of the driving pictures."
        return io.Schema(
            node_id="DynamicIDAnimate",
            display_name="Animate Motion",
            category="DynamicID/identity",
            description="Gives a person an expression and head pose for each frame of a batch, by keyframes or a "
            "video's frames.",
            search_aliases=[
                "video",
                "animation",
                "animatediff",
                "keyframes",
                "expression",
                "head pose",
                "liveportrait",
            ],
            inputs=[
                IdentitySocket.Input("identity", tooltip="The person to animate."),
                DynamicIDSocket.Input("dynamicid", tooltip="From Load DynamicID, with its imr."),
                io.Clip.Input("clip", tooltip="The text encoder of the SD1.5 checkpoint."),
                io.String.Input(
                    "keyframes",
                    default="0: neutral\n8: happy, yaw 20\n15: surprise",
                    multiline=True,
                    optional=True,
                    tooltip="The motion at some frames, counted from 0, each in a line of its own or after a ;. "
                    "Expressions may have amounts, as in 8: happy 0.7, sad 0.3, yaw 20, pitch 5, roll -5.",
                ),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=1,
                    max=MAX_FRAMES,
                    optional=True,
                    tooltip="How many frames: as many as the batch of the empty latent.",
                ),
                choice("easing", [*EASINGS], "How the motion goes from one keyframe to the next."),
                number("strength", 1.0, strength, high=2.0, step=0.05),
                choice("source_expression", [AUTO, *EXPRESSIONS], SOURCE_EXPRESSION),
                number("driving_strength", 1.0, driving, step=0.05),
                io.Image.Input(
                    "driving_images",
                    optional=True,
                    tooltip="A video's frames: the head pose and the keypoints of the face in each are copied. Words "
                    "for the expression come from keyframes.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    display_name="identity", tooltip="The person, whose motion differs by frame, for Apply DynamicID."
                ),
                io.Image.Output(
                    display_name="keypoints",
                    tooltip="Each frame. Gray: the reference's. Colored: the wanted ones.",
                ),
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
            return io.NodeOutput(None, torch.zeros(1, PREVIEW, PREVIEW, 3))
        source, note = shown_motion(identity, source_expression)
        targets, notes = AnimationRequest(**request).targets(identity.face, dynamicid)
        notes += [note] if note else []
        animated = animate(identity, dynamicid, clip, source, targets, strength) if strength else identity
        if animated.curve is None and len(targets) > 1:
            notes.append("the motion is the same in all frames: nothing moves.")
        for note in notes:
            warn(cls, note)
        return io.NodeOutput(animated, motion_preview(source, targets, PREVIEW))
