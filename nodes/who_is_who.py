"""Who Is Who: how similar a picture's faces are to the people they are meant to be."""

from comfy_api.latest import io, ui
from torch import Tensor

from ..dynamicid_core.host.models import DynamicID
from ..dynamicid_core.identity.assignment import NO_MATCH, embedded_otherwise
from ..dynamicid_core.identity.comparison import compare
from ..dynamicid_core.image_inputs import as_pixels
from ..dynamicid_core.saa.scene import arrange, names_of
from .apply import People
from .door import checked
from .notify import warn
from .page import warn_of_lost_people
from .preview import comparison_preview
from .sockets import DynamicIDSocket, people_input, person_or_placements


class WhoIsWho(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        worst = "The similarity of the least similar person; -1 where someone has no face."
        return io.Schema(
            node_id="DynamicIDWhoIsWho",
            display_name="Who Is Who",
            category="DynamicID/inspect",
            description="Compares the faces of a picture with the people they are meant to be, and tells who "
            "stands in another's place.",
            search_aliases=["similarity", "face similarity", "compare faces", "identity", "evaluate"],
            inputs=[
                io.Image.Input("image", tooltip="The finished picture; of a batch, every picture is compared."),
                people_input(person_or_placements()),
                DynamicIDSocket.Input("dynamicid", tooltip="From Load DynamicID: its face pack compares faces."),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="Similarities, -1 to 1; [ ] marks whose face it is."),
                io.Image.Output(display_name="annotated", tooltip="The pictures with each face's box and person."),
                io.Float.Output(display_name="worst match", tooltip=worst),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    @checked
    def execute(cls, image: Tensor, people: People, dynamicid: DynamicID) -> io.NodeOutput:
        warn_of_lost_people(cls)
        scene, images = arrange([person for person in people.values() if person is not None]), as_pixels(image)
        if note := embedded_otherwise([placement.identity for placement in scene], dynamicid.adapter.encoding):
            warn(cls, note)
        comparisons = compare(scene, images, dynamicid.faces)
        reports = [comparison.report for comparison in comparisons]
        if len(reports) > 1:
            reports = [f"picture {number}\n{report}" for number, report in enumerate(reports, start=1)]
        text = "\n\n".join(reports)
        worst = min((comparison.assignment.worst for comparison in comparisons), default=NO_MATCH)
        annotated = comparison_preview(images, comparisons, names_of(scene))
        return io.NodeOutput(text, annotated, worst, ui=ui.PreviewText(text))
