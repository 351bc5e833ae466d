"""What a run is told: tables of pictures, each a template, its cells (the rows) and the samples that every cell draws.

    {
      "judge": {"kind": "models", "options": {"face_pack": "buffalo_l", "clip": "clip-vit", "expressions": "fer.onnx"}},
      "files": ["dynamicid.safetensors"],
      "tables": [{
        "name": "one person",
        "template": "../workflows/06_one_person_expression.json",
        "wires": {"seed": ["KSampler", "seed"], "prompt": ["Positive prompt", "text"],
                  "people": [{"reference": ["Encode Identity", "image"],
                              "expression": ["Edit Facial Motion", "expression"]}]},
        "set": {"KSampler": {"steps": 30}},
        "samples": [{"name": "park", "prompt": "a photo of a person in a park", "seeds": [1, 2], "people": [
            {"reference": "ann.png", "expression": "happy", "yaw": 0, "pitch": 0, "region": [0, 0, 1, 1]}]}],
        "cells": [{"name": "full"}, {"name": "no IMR", "without": ["imr"]}, {"name": "none", "without": ["identity"]}]
      }]
    }

Nodes are named by id, title, or class; paths start at the configuration's folder. `files` are those whose bytes the
pictures follow from beside the graph (weights): with others, pictures are drawn anew.
"""  # fmt: skip

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..box import Box

SWITCHES = ("gate", "regions", "imr", "layout", "identity")
"""What a cell can be without."""
Inputs = dict[str, dict[str, Any]]
"""node -> input -> value"""
Socket = tuple[str, str]
"""A node and one of its inputs."""


@dataclass(frozen=True)
class PersonWires:
    """Where a person's pictures and asked expression go; None: nowhere."""

    reference: Socket | None = None
    expression: Socket | None = None
    driver: Socket | None = None


@dataclass(frozen=True)
class Wires:
    """Where what a sample says goes."""

    seed: Socket = ("KSampler", "seed")
    prompt: Socket | None = ("Positive prompt", "text")
    people: tuple[PersonWires, ...] = ()


@dataclass(frozen=True)
class Person:
    """Who is asked for, and how; what is None is not measured.

    Attributes:
        reference: a picture of this person.
        yaw, pitch: degrees that the picture is to show; both or neither.
        region: (x0, y0, x1, y1) in fractions of the picture; None: of n people the n equal columns.
        driver: a picture whose motion drives this person's; nothing is measured of it.
    """

    reference: Path | None = None
    expression: str | None = None
    yaw: float | None = None
    pitch: float | None = None
    region: Box | None = None
    driver: Path | None = None

    @property
    def pictures(self) -> tuple[Path, ...]:
        """What the server is given of this person."""
        return tuple(path for path in (self.reference, self.driver) if path is not None)

    @property
    def pose(self) -> tuple[float, float] | None:
        """(pitch, yaw)"""
        return None if self.yaw is None or self.pitch is None else (self.pitch, self.yaw)


@dataclass(frozen=True)
class Sample:
    """What every cell draws, once for each seed: a prompt, people, and inputs that it changes, after the table's."""

    name: str
    prompt: str
    seeds: tuple[int, ...]
    people: tuple[Person, ...] = ()
    set: Inputs = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A row of a table: what it is without (of SWITCHES), and inputs that it changes, after all others.

    With the backgrounds of a cell that is without identity those of the others are compared: of the one that changes
    the same inputs, if there is one, else of the first.
    """

    name: str
    without: tuple[str, ...] = ()
    set: Inputs = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    name: str
    template: Path
    samples: tuple[Sample, ...]
    cells: tuple[Cell, ...]
    wires: Wires = field(default_factory=Wires)
    set: Inputs = field(default_factory=dict)


@dataclass(frozen=True)
class JudgeChoice:
    """See `judge.load_judge`; options of the judge `models` that name files are paths."""

    kind: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """
    Attributes:
        gallery: pictures, each of another person, among whom a face's own person is picked.
        margin: how far faces' boxes are grown where the background is measured, in lengths of their longer side.
    """

    judge: JudgeChoice
    tables: tuple[Table, ...]
    files: tuple[Path, ...] = ()
    gallery: tuple[Path, ...] = ()
    margin: float = 0.5


def as_json(config: Config, folder: Path = Path()) -> dict[str, Any]:
    """A configuration as JSON values; paths inside `folder` start there."""

    def text(path: Path) -> str:
        return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()

    said: dict[str, Any] = json.loads(json.dumps(asdict(config), default=text))
    return said
