"""Redraw People: every face of a finished picture once more, each person alone and at full strength."""

from functools import partial
from typing import Any

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_api.latest import io, ui
from torch import Tensor

from ..dynamicid_core.host.models import DynamicID
from ..dynamicid_core.host.redraw import Redraw, Redrawn, RedrawSettings, Sampling
from ..dynamicid_core.redraw.passes import report
from .apply import People, present_people
from .door import checked
from .notify import warn
from .preview import redraw_preview
from .sockets import PEOPLE_ALIASES, DynamicIDSocket, number, people_input, person_or_placements

_MAX_SEED = 2**64 - 1
_UNCHANGED = "denoise 0: nobody was redrawn"


class RedrawPeople(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        whose = (
            "Who has a place gets the face in it, the others the face that is like them, whoever is left the largest "
            "that are left, from left to right."
        )
        prompt = "What a face and its surroundings are like: a prompt for one person. "
        cut = "Masks, areas and ControlNet pictures are cut to each face; a mask or area that covers a face goes alone."
        passes = (
            "How often whoever is below only_below is redrawn at most, each time with another seed and from the best "
            "so far, which is kept."
        )
        return io.Schema(
            node_id="DynamicIDRedraw",
            display_name="Redraw People",
            category="DynamicID/apply",
            description="Redraws the faces of a finished picture one by one, each with its own person alone. Makes "
            "people in groups more alike, and puts people into pictures that exist.",
            search_aliases=[*PEOPLE_ALIASES, "face detailer", "detailer", "inpaint", "face swap", "fix faces"],
            inputs=[
                io.Image.Input("image", tooltip="The picture whose people are redrawn; of a batch, every picture."),
                people_input(person_or_placements(whose)),
                io.Model.Input(
                    "model", tooltip="The model from before Apply DynamicID: this node draws each person itself."
                ),
                DynamicIDSocket.Input(
                    "dynamicid", tooltip="From Load DynamicID: its face pack finds and compares faces."
                ),
                io.Conditioning.Input("positive", tooltip=prompt + cut),
                io.Conditioning.Input("negative", tooltip="What faces should not be like."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=_MAX_SEED,
                    control_after_generate=True,
                    tooltip="Of the first pass over the first picture; each other one has the next.",
                    optional=True,
                ),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Steps for each face.", optional=True),
                number("cfg", 5.0, "Guidance: how strictly the prompt is followed.", high=100.0, step=0.1),
                io.Combo.Input(
                    "sampler_name",
                    options=[*comfy.samplers.KSampler.SAMPLERS],
                    default="euler",
                    tooltip="As in KSampler.",
                    optional=True,
                ),
                io.Combo.Input(
                    "scheduler",
                    options=[*comfy.samplers.KSampler.SCHEDULERS],
                    default="normal",
                    tooltip="As in KSampler.",
                    optional=True,
                ),
                number(
                    "denoise",
                    0.8,
                    "How much of a face is new: 0 leaves the picture alone, 1 keeps nothing of the face. More makes "
                    "people more alike; to put other people into a picture, begin at 0.8.",
                ),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=4096,
                    step=8,
                    tooltip="Pixels a side at which the square about a face is drawn. 0: the base model's own, 512 "
                    "for SD1.5, 1024 for SDXL.",
                    optional=True,
                ),
                number(
                    "margin",
                    0.75,
                    "How far the square reaches beyond the face on each side, in faces: what the model sees around it. "
                    "Half of it is pasted back.",
                    high=4.0,
                    step=0.05,
                ),
                number(
                    "feather",
                    0.1,
                    "Width of the soft edge by which a redrawn face is pasted, as a fraction of its square.",
                    high=0.5,
                ),
                number(
                    "only_below",
                    1.0,
                    "Redraw who is less alike than this, on Who Is Who's scale. 1: everybody. What good values are "
                    "depends on the face pack.",
                ),
                io.Int.Input("passes", default=1, min=1, max=20, tooltip=passes, optional=True),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures; outside the faces' squares unchanged."),
                io.String.Output(display_name="report", tooltip="How alike everybody was and is; who was left alone."),
                io.Image.Output(display_name="before and after", tooltip="Both, with everybody's name and likeness."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    @checked
    def execute(
        cls,
        image: Tensor,
        people: People,
        model: ModelPatcher,
        dynamicid: DynamicID,
        positive: list[Any],
        negative: list[Any],
        vae: VAE,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        **settings: Any,  # named as the fields of RedrawSettings
    ) -> io.NodeOutput:
        scene = present_people(cls, people, in_columns=False, main_input="picture")
        results = [Redrawn(one, (), ()) for one in image]
        if scene and denoise:
            sampling = Sampling(positive, negative, seed, steps, cfg, sampler_name, scheduler, denoise)
            redraw = Redraw(model, vae, dynamicid, scene, sampling, RedrawSettings(**settings), partial(warn, cls))
            results = [redraw(one, picture) for picture, one in enumerate(image)]
            _warn_of_what_is_missing(cls, results)
        texts = [report(one.people, one.strangers, steps) if one.faces else "No face was found." for one in results]
        if not (scene and denoise):
            texts = [_UNCHANGED if scene else "Nobody is left to redraw."]
        elif len(texts) > 1:
            texts = [f"picture {picture}\n{text}" for picture, text in enumerate(texts, start=1)]
        text = "\n\n".join(texts)
        images = torch.stack([one.image for one in results])
        return io.NodeOutput(images, text, redraw_preview(image, results), ui=ui.PreviewText(text))


def _warn_of_what_is_missing(node: type[io.ComfyNode], results: list[Redrawn]) -> None:
    """Warn of people without a face, and of what no crop could have of the conditioning."""
    missing = {person.name for result in results for person in result.people if person.face is None}
    if missing:
        warn(node, f"no face is left for {', '.join(sorted(missing))}.")
    left_out = sorted(set().union(*(result.left_out for result in results)))
    if left_out:
        warn(node, f"{', '.join(left_out)} can't be cut to a face and is left out.")
