"""Apply DynamicID, simple and advanced: the people of a scene into a model."""

from collections.abc import Mapping, Sequence

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..dynamicid_core.host.apply import apply_scene
from ..dynamicid_core.host.models import DynamicID
from ..dynamicid_core.host.sampling_run import AttentionSettings
from ..dynamicid_core.identity.identity import Identity
from ..dynamicid_core.saa.scene import Placement, adjusted, arrange
from .notify import warn
from .sockets import (
    MAX_PEOPLE,
    PEOPLE_ALIASES,
    DynamicIDSocket,
    IdentitySocket,
    PlacementsSocket,
    span_inputs,
    weight_input,
)

People = Mapping[str, Identity | Sequence[Placement] | None]


def _shared_inputs() -> list[io.Input]:
    person = io.MultiType.Input(
        "person",
        [IdentitySocket, PlacementsSocket],
        tooltip="A person (identity), or people with places (placements). People without places stand in equal "
        "columns from left to right; one alone has the whole picture.",
    )
    return [
        io.Model.Input("model", tooltip="An SD1.5 model, before or after LoRA, ControlNet and IP-Adapter nodes."),
        DynamicIDSocket.Input("dynamicid", tooltip="From Load DynamicID."),
        io.Autogrow.Input(
            "people", template=io.Autogrow.TemplatePrefix(person, prefix="person_", min=1, max=MAX_PEOPLE)
        ),
        weight_input("Strength of all people, multiplied with each one's own."),
    ]


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
            outputs=[io.Model.Output(display_name="model")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, dynamicid: DynamicID, people: People, weight: float) -> io.NodeOutput:
        scene = _present(cls, people, weight, 0.0, 1.0)
        if not scene or weight == 0:
            return io.NodeOutput(model)
        settings = AttentionSettings(layout_steps=dynamicid.layout_steps)
        lora_strength = dynamicid.lora_in_groups if len(scene) > 1 else 1.0
        return io.NodeOutput(apply_scene(model, dynamicid.adapter, scene, settings, lora_strength))


class ApplyAdvanced(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        method = AttentionSettings()
        return io.Schema(
            node_id="DynamicIDApplyAdvanced",
            display_name="Apply DynamicID (Advanced)",
            category="DynamicID/apply",
            description="Apply DynamicID with all of the method's knobs. The defaults are the method's own.",
            search_aliases=PEOPLE_ALIASES,
            inputs=[
                *_shared_inputs(),
                *span_inputs("all people"),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Strength of the adapter's LoRA. It is merged into the model, so it follows no schedule "
                    "and stays when weight is 0.",
                ),
                io.Float.Input(
                    "layout_scale",
                    default=method.layout_scale,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="How hard the first steps press people into their regions. 0: not at all.",
                ),
                io.Int.Input(
                    "layout_steps",
                    default=method.layout_steps,
                    min=0,
                    max=1000,
                    tooltip="For how many of the first steps. A second pass that refines a picture has none.",
                ),
                io.Float.Input(
                    "gate_threshold",
                    default=method.gate_threshold,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Parts of the picture less face-like than this are left to the prompt. "
                    "0: only the least are.",
                ),
                io.Boolean.Input(
                    "gate",
                    default=method.gate,
                    tooltip="Off: people are drawn into every part of their region alike (plain decoupled "
                    "attention), without layout phase.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        dynamicid: DynamicID,
        people: People,
        weight: float,
        start_at: float,
        end_at: float,
        lora_strength: float,
        layout_scale: float,
        layout_steps: int,
        gate_threshold: float,
        gate: bool,
    ) -> io.NodeOutput:
        scene = _present(cls, people, weight, start_at, end_at)
        if not scene:
            return io.NodeOutput(model)
        settings = AttentionSettings(layout_scale, layout_steps, gate_threshold, gate)
        return io.NodeOutput(apply_scene(model, dynamicid.adapter, scene, settings, lora_strength))


def _present(
    node: type[io.ComfyNode], people: People, weight: float, start_at: float, end_at: float
) -> tuple[Placement, ...]:
    """The people who can appear, a warning tells who can't; None is someone whom Encode Identity was told to skip."""
    if not people:
        raise ValueError("Apply DynamicID needs at least one person: connect an identity or placements to people.")
    everybody = arrange([person for person in people.values() if person is not None])
    present = adjusted(everybody, weight, start_at, end_at)
    if not present:
        warn(node, "nobody is left to draw; the model passes through unchanged.")
    elif len(present) < len(everybody):
        warn(
            node, f"{len(everybody) - len(present)} of {len(everybody)} people have no place or time and are left out."
        )
    return present
