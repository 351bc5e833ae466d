"""Apply DynamicID, simple and advanced: the people of a scene into a model."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..dynamicid_core.host.apply import apply_scene
from ..dynamicid_core.host.lora import WHOLE_LORA, LoraStrength
from ..dynamicid_core.host.models import DynamicID
from ..dynamicid_core.host.sampling_run import AttentionSettings
from ..dynamicid_core.identity.identity import Identity
from ..dynamicid_core.saa.scene import Placement, adjusted, arrange
from .door import checked
from .notify import tell, warn
from .page import warn_of_lost_people
from .sockets import (
    PEOPLE_ALIASES,
    DynamicIDSocket,
    number,
    people_input,
    person_or_placements,
    span_inputs,
    weight_input,
)

People = Mapping[str, Identity | Sequence[Placement] | None]
METHOD = AttentionSettings()
"""The method's own settings."""


def _shared_inputs() -> list[io.Input]:
    columns = "People without places stand in equal columns from left to right; one alone has the whole picture."
    model = (
        "A model of the base that the adapter was trained for, before or after LoRA, ControlNet and IP-Adapter nodes."
    )
    return [
        io.Model.Input("model", tooltip=model),
        DynamicIDSocket.Input("dynamicid", tooltip="From Load DynamicID."),
        people_input(person_or_placements(columns)),
        weight_input("Strength of all people, multiplied by each person's own weight."),
    ]


def _model_output() -> io.Model.Output:
    return io.Model.Output(display_name="model", tooltip="The model that draws these people.")


class Apply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DynamicIDApply",
            display_name="Apply DynamicID",
            category="DynamicID/apply",
            description="Draws one or several people into a model's pictures. Connect its model to a KSampler.",
            search_aliases=PEOPLE_ALIASES,
            inputs=_shared_inputs(),
            outputs=[_model_output()],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    @checked
    def execute(cls, model: ModelPatcher, dynamicid: DynamicID, people: People, weight: float) -> io.NodeOutput:
        scene = present_people(cls, people, weight)
        if not scene or weight == 0:
            return io.NodeOutput(model)
        settings = AttentionSettings(layout_steps=dynamicid.layout_steps, gate=dynamicid.gate)
        lora = dynamicid.lora_for(len(scene))
        if not dynamicid.gate:
            kind = dynamicid.adapter.encoding.kind
            told = f"{kind} was trained without the gate, so it is off: people fill their region."
            if lora != WHOLE_LORA:
                told += (
                    f" Its LoRA is at {lora.overall:g}, in the UNet's middle block at {lora.overall * lora.middle:g}: "
                    "with more, groups have a face too many or too few."
                )
            tell(cls, told)
        patched = apply_scene(model, dynamicid.adapter, scene, settings, lora, partial(warn, cls))
        return io.NodeOutput(patched)


class ApplyAdvanced(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        scale = "How strongly the first steps press people into their regions. 0: not at all."
        steps = (
            "How long this pressure lasts, in steps of the release's 50: 3 ends it at the noise level of 3/50 of "
            "sampling, in however many steps and parts a run gets there. A run that starts below that level has none."
        )
        threshold = "Parts of the picture less face-like than this follow the prompt alone. 0: only the least do."
        return io.Schema(
            node_id="DynamicIDApplyAdvanced",
            display_name="Apply DynamicID (Advanced)",
            category="DynamicID/apply",
            description="Apply DynamicID with all of the method's settings. The defaults are the method's own.",
            search_aliases=PEOPLE_ALIASES,
            inputs=[
                *_shared_inputs(),
                *span_inputs("all people start", "all people stop"),
                number(
                    "lora_strength",
                    1.0,
                    "Strength of the adapter's LoRA. It is merged into the model, so it follows no schedule and stays "
                    "when weight is 0.",
                    high=3.0,
                    step=0.05,
                ),
                number("layout_scale", METHOD.layout_scale, scale, high=20.0, step=0.1),
                io.Int.Input(
                    "layout_steps", default=METHOD.layout_steps, min=0, max=1000, tooltip=steps, optional=True
                ),
                number("gate_threshold", METHOD.gate_threshold, threshold),
                io.Boolean.Input(
                    "gate",
                    default=METHOD.gate,
                    tooltip="Off: people are drawn equally into every part of their region (plain decoupled "
                    "attention), without a layout phase.",
                    optional=True,
                ),
                number(
                    "lora_middle",
                    1.0,
                    "Share of that LoRA in the UNet's middle block, where the number of faces is decided. 0 where "
                    "groups have a face too many.",
                    high=3.0,
                    step=0.05,
                ),
            ],
            outputs=[_model_output()],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: ModelPatcher,
        dynamicid: DynamicID,
        people: People,
        weight: float,
        start_at: float,
        end_at: float,
        lora_strength: float,
        lora_middle: float = 1.0,
        **settings: Any,  # named as the fields of AttentionSettings
    ) -> io.NodeOutput:
        scene = present_people(cls, people, weight, start_at, end_at)
        if not scene:
            return io.NodeOutput(model)
        method, lora = AttentionSettings(**settings), LoraStrength(lora_strength, lora_middle)
        return io.NodeOutput(apply_scene(model, dynamicid.adapter, scene, method, lora, partial(warn, cls)))


def present_people(
    node: type[io.ComfyNode],
    people: People,
    weight: float = 1.0,
    start_at: float = 0.0,
    end_at: float = 1.0,
    in_columns: bool = True,
    main_input: str = "model",
) -> tuple[Placement, ...]:
    """Return the people who can appear; a warning names how many can't. None is someone Encode Identity skipped.

    Args:
        in_columns: see `arrange`.
        main_input: what the node hands on where nobody can appear.
    """
    name = node.define_schema().display_name.removesuffix(" (Advanced)")
    if not people:
        raise ValueError(f"{name} needs at least one person: connect an identity or placements to people.")
    everybody = arrange([person for person in people.values() if person is not None], in_columns)
    present = adjusted(everybody, weight, start_at, end_at)
    left_out = len(everybody) - len(present)
    if not present:
        warn(node, f"nobody is left to draw; the {main_input} passes through unchanged.")
    elif left_out:
        warn(node, f"{left_out} of {len(everybody)} people have no place or time and are left out.")
    warn_of_lost_people(node)
    return present
