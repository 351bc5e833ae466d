"""Who Is Who: how like the people they are meant to be a picture's faces are."""

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..dynamicid_core.box import Box
from ..dynamicid_core.host.models import DynamicID
from ..dynamicid_core.identity.assignment import (
    NO_MATCH,
    FaceAssignment,
    assign_faces,
    reference_embedding,
    regions_of,
    report,
)
from ..dynamicid_core.identity.faces import in_order
from ..dynamicid_core.image_inputs import as_pixels
from ..dynamicid_core.saa.scene import arrange
from .preview import who_preview
from .sockets import MAX_PEOPLE, DynamicIDSocket, IdentitySocket, PlacementsSocket


class WhoIsWhoNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        person = io.MultiType.Input(
            "person",
            [IdentitySocket, PlacementsSocket],
            tooltip="A person (identity), or people with places (placements).",
        )
        return io.Schema(
            node_id="DynamicIDWhoIsWho",
            display_name="Who Is Who",
            category="DynamicID/inspect",
            description="Compares the faces of a picture with the people they are meant to be, and tells who "
            "stands in another's place.",
            search_aliases=["similarity", "face similarity", "compare faces", "identity", "evaluate"],
            inputs=[
                io.Image.Input("image", tooltip="The finished picture; of a batch every picture is looked at."),
                io.Autogrow.Input(
                    "people", template=io.Autogrow.TemplatePrefix(person, prefix="person_", min=1, max=MAX_PEOPLE)
                ),
                DynamicIDSocket.Input("dynamicid", tooltip="From Load DynamicID: its face pack compares faces."),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="Similarities, -1 to 1; [ ] marks whose face it is."),
                io.Image.Output(display_name="annotated"),
                io.Float.Output(
                    display_name="worst match", tooltip="The least similar person's; -1 where someone has no face."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, image: Tensor, people: dict[str, Any], dynamicid: DynamicID) -> io.NodeOutput:
        scene = arrange([person for person in people.values() if person is not None])
        if not scene:
            raise ValueError("Who Is Who needs at least one person: connect an identity or placements to people.")
        everybody = [placement.identity for placement in scene]
        wanted = [reference_embedding(person, number) for number, person in enumerate(everybody)]
        names = [person.name or f"person {number + 1}" for number, person in enumerate(everybody)]
        reports: list[str] = []
        found: list[tuple[list[Box], FaceAssignment]] = []
        pictures = as_pixels(image)
        for picture in pictures:
            faces = in_order(dynamicid.faces.detect(picture), "left to right", picture.shape[:2])
            known = [dynamicid.faces.describe(picture, face).embedding for face in faces]
            who = assign_faces(wanted, [embedding for embedding in known if embedding is not None])
            height, width = picture.shape[:2]
            middles = [face.box.to_fractions(width, height).center for face in faces]
            found.append(([face.box for face in faces], who))
            reports.append(report(names, who, regions_of(middles, [placement.region for placement in scene])))
        text = "\n\n".join(
            f"picture {number + 1}\n{said}" if len(reports) > 1 else said for number, said in enumerate(reports)
        )
        worst = min((who.worst for _, who in found), default=NO_MATCH)
        annotated = who_preview(pictures, found, names)
        return io.NodeOutput(text, annotated, worst, ui=ui.PreviewText(text))
