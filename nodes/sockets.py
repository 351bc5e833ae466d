"""The pack's own socket types, and inputs that several nodes share.

Widgets are optional: a graph in the API's format that was saved before a widget was there runs with its default.
"""

from collections.abc import Sequence

from comfy_api.latest import io

DynamicIDSocket = io.Custom("DYNAMICID")
IdentitySocket = io.Custom("DYNAMICID_IDENTITY")
PlacementsSocket = io.Custom("DYNAMICID_PLACEMENTS")

# The host grows the list of sockets up to this number.
MAX_PEOPLE = 50

PEOPLE_ALIASES = ["faceid", "ipadapter", "instantid", "pulid", "multi id", "two people", "face", "identity"]
REGION_ALIASES = ["region", "regional", "area", "mask", "box", "two people", "multi id", "layout"]


def number(
    name: str, default: float, tooltip: str, low: float = 0.0, high: float = 1.0, step: float = 0.01
) -> io.Float.Input:
    """Return a float widget; its range is a fraction's unless told otherwise."""
    return io.Float.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip, optional=True)


def choice(name: str, options: Sequence[str], tooltip: str) -> io.Combo.Input:
    """Return a combo widget whose default is its first option."""
    return io.Combo.Input(name, options=[*options], default=options[0], tooltip=tooltip, optional=True)


def people_input(person: io.Input) -> io.Autogrow.Input:
    """Return the growing list of sockets `people`, each of them like `person`.

    With an optional person the host ignores `min`, which still draws the first socket: any of them may be muted.
    """
    template = io.Autogrow.TemplatePrefix(person, prefix="person_", min=1, max=MAX_PEOPLE)
    return io.Autogrow.Input("people", template=template)


def person_or_placements(tooltip: str = "") -> io.MultiType.Input:
    """Return a socket that takes one person, or people with places."""
    words = f"A person (identity), or people with places (placements). {tooltip}".rstrip()
    return io.MultiType.Input("person", [IdentitySocket, PlacementsSocket], tooltip=words, optional=True)


def weight_input(tooltip: str) -> io.Float.Input:
    """Return the `weight` widget as all identity packs have it."""
    return number("weight", 1.0, tooltip, high=3.0, step=0.05)


def span_inputs(start: str, stop: str) -> list[io.Float.Input]:
    """Return the `start_at` and `end_at` widgets; the arguments say who starts and who stops there."""
    merged = "The LoRA is merged into the model and follows no schedule."
    return [
        number("start_at", 0.0, f"Fraction of sampling at which {start}: 0 is the first step. {merged}", step=0.001),
        number("end_at", 1.0, f"Fraction of sampling at which {stop}: 1 is the last step.", step=0.001),
    ]
