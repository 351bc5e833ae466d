"""The pack's own socket types and inputs that several nodes share."""

from comfy_api.latest import io

DynamicIDSocket = io.Custom("DYNAMICID")
IdentitySocket = io.Custom("DYNAMICID_IDENTITY")
PlacementsSocket = io.Custom("DYNAMICID_PLACEMENTS")

# The host grows the list of sockets up to this number.
MAX_PEOPLE = 50

PEOPLE_ALIASES = ["faceid", "ipadapter", "instantid", "pulid", "multi id", "two people", "face", "identity"]


def weight_input(tooltip: str) -> io.Float.Input:
    """The `weight` widget as all identity packs have it."""
    return io.Float.Input("weight", default=1.0, min=0.0, max=3.0, step=0.05, tooltip=tooltip)


def span_inputs(whom: str) -> list[io.Float.Input]:
    """The `start_at` and `end_at` widgets."""
    return [
        io.Float.Input(
            "start_at",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.001,
            tooltip=f"Part of sampling at which {whom} appear: 0 is the first step. "
            "The LoRA is merged into the model and follows no schedule.",
        ),
        io.Float.Input(
            "end_at",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.001,
            tooltip=f"Part of sampling at which {whom} stop: 1 is the last step.",
        ),
    ]
