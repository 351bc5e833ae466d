"""The door of all nodes: what comes in, checked against a node's own schema before the node sees it."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any

from comfy_api.latest import io

from ..dynamicid_core.host.models import DynamicID
from ..dynamicid_core.identity.identity import Identity
from ..dynamicid_core.inputs import (
    as_choice,
    as_conditioning,
    as_images,
    as_latent,
    as_masks,
    as_number,
    as_whole_number,
    kind_of,
)
from ..dynamicid_core.saa.scene import Placement
from .sockets import DynamicIDSocket, IdentitySocket, PlacementsSocket

Execute = Callable[..., io.NodeOutput]
Check = Callable[[Any, Any, str], Any]
"""(input of the schema, value, name) -> the value as the node takes it; raises ValueError."""


def checked(execute: Execute) -> Execute:
    """Decorate a node's `execute`: it gets inputs as its schema has them, or the user an error that names the input.

    An optional widget that a graph leaves out gets the schema's default, as on the page, unless `execute` has another:
    a graph that was saved before the widget was there runs.
    """
    signature = inspect.signature(execute)
    own_defaults = {name for name, one in signature.parameters.items() if one.default is not one.empty}

    @wraps(execute)
    def at_the_door(cls: type[io.ComfyNode], *args: Any, **kwargs: Any) -> io.NodeOutput:
        arguments = signature.bind_partial(cls, *args, **kwargs).arguments
        del arguments["cls"]
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments |= arguments.pop(name, {})
        return execute(cls, **arguments | dict(_checked(cls.define_schema().inputs, arguments, own_defaults)))

    return at_the_door


def _checked(
    inputs: Sequence[io.Input], values: Mapping[str, Any], own_defaults: set[str] | frozenset[str] = frozenset()
) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each input that has a value, or a default that stands in for it."""
    for one in inputs:
        if one.id in values:
            yield one.id, _value(one, values[one.id], one.id)
        elif not one.optional:
            options = [option.key for option in getattr(one, "options", ()) if hasattr(option, "key")]
            unknown = f" or unknown: choose one of {', '.join(options)}" if options else ": connect it or give a value"
            raise ValueError(f"{one.id} is missing{unknown}.")
        elif one.id not in own_defaults and getattr(one, "default", None) is not None:
            yield one.id, one.default


def _value(one: io.Input, value: Any, name: str) -> Any:
    """Return the value of an input of the schema, as the node takes it; sockets of other kinds take what comes."""
    if value is None and one.optional:
        return getattr(one, "default", None)
    check = _CHECKS.get(one.get_io_type())
    return value if check is None else check(one, value, name)


def _range(one: io.Input) -> tuple[float, float]:
    return (-math.inf if one.min is None else one.min), (math.inf if one.max is None else one.max)


def _people(one: io.Autogrow.Input, value: Any, name: str) -> dict[str, Any]:
    return {socket: _value(one.template.input, person, socket) for socket, person in value.items()}


def _option(one: io.DynamicCombo.Input, value: Any, name: str) -> dict[str, Any]:
    """Return what was chosen, under the input's name, and its own inputs."""
    inputs = {option.key: option.inputs for option in one.options}
    chosen = as_choice(value.get(name) if isinstance(value, Mapping) else value, name, [*inputs])
    return {name: chosen, **dict(_checked(inputs[chosen], value))}


def _dynamicid(one: io.Input, value: Any, name: str) -> DynamicID:
    if not isinstance(value, DynamicID):
        raise ValueError(f"{name} must come from Load DynamicID or Load DynamicID Mini, got {kind_of(value)}.")
    return value


def _person(one: io.Input, value: Any, name: str) -> Identity | None:
    """None is somebody whom Encode Identity skipped."""
    if value is not None and not isinstance(value, Identity):
        raise ValueError(f"{name} must be a person, from Encode Identity or Load Identity, got {kind_of(value)}.")
    return value


def _placements(one: io.Input, value: Any, name: str) -> tuple[Placement, ...]:
    if not isinstance(value, (tuple, list)) or not all(isinstance(placed, Placement) for placed in value):
        raise ValueError(f"{name} must be people with places, from Place Identity or Auto Layout; got {kind_of(value)}")
    return tuple(value)


def _person_or_placements(one: io.Input, value: Any, name: str) -> Identity | tuple[Placement, ...] | None:
    return _placements(one, value, name) if isinstance(value, (tuple, list)) else _person(one, value, name)


def _loaded(one: io.Input, value: Any, name: str) -> Any:
    if value is None:
        raise ValueError(f"{name} is nothing: the file that its node loaded holds none. Connect another loader.")
    return value


def _instance(kind: type, words: str) -> Check:
    """Return the check of a widget whose values have one class."""

    def check(one: io.Input, value: Any, name: str) -> Any:
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be {words}, got {kind_of(value)}. Give another.")
        return value

    return check


_CHECKS: dict[str, Check] = {
    "FLOAT": lambda one, value, name: as_number(value, name, *_range(one)),
    "INT": lambda one, value, name: as_whole_number(value, name, *_range(one)),
    "BOOLEAN": _instance(bool, "on or off"),
    "STRING": _instance(str, "a text"),
    "COMBO": lambda one, value, name: as_choice(value, name, one.options),
    "IMAGE": lambda one, value, name: as_images(value, name),
    "MASK": lambda one, value, name: as_masks(value, name),
    "MODEL": _loaded,
    "CLIP": _loaded,
    "LATENT": lambda one, value, name: as_latent(value, name),
    "CONDITIONING": lambda one, value, name: as_conditioning(value, name),
    io.Autogrow.io_type: _people,
    io.DynamicCombo.io_type: _option,
    DynamicIDSocket.io_type: _dynamicid,
    IdentitySocket.io_type: _person,
    PlacementsSocket.io_type: _placements,
    f"{IdentitySocket.io_type},{PlacementsSocket.io_type}": _person_or_placements,
}
