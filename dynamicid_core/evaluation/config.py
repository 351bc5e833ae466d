"""A run's configuration: benchmarks of images, each a template, its variants (rows) and the samples that all draw.

    {
      "judge": {"kind": "models", "options": {"face_pack": "buffalo_l", "clip": "clip-vit", "expressions": "fer.onnx"}},
      "node_judge": {"kind": "face pack", "options": {"face_pack": "buffalo_l"}},
      "files": ["dynamicid.safetensors"],
      "benchmarks": [{
        "name": "one person",
        "template": "../workflows/06_one_person_expression.json",
        "inputs": {"seed": ["KSampler", "seed"], "prompt": ["Positive prompt", "text"],
                   "people": [{"reference": ["Encode Identity", "image"],
                               "expression": ["Edit Facial Motion", "expression"]}]},
        "overrides": {"KSampler": {"steps": 30}},
        "samples": [{"name": "park", "prompt": "a photo of a person in a park", "seeds": [1, 2], "people": [
            {"reference": "ann.png", "expression": "happy", "yaw": 0, "pitch": 0, "region": [0, 0, 1, 1]}]}],
        "variants": [{"name": "full"}, {"name": "no IMR", "ablate": ["imr"]}, {"name": "none", "ablate": ["identity"]}]
      }]
    }

Nodes are named by id, title, or class; paths start at the configuration's folder. `files` are those whose bytes the
images follow from beside the graph (weights): with others, images are generated anew. `node_judge` may be left out.
"""  # fmt: skip

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from ..box import Box
from ..configuration import ConfigModel, ConfigPath, read_config
from ..files import write_atomically
from ..imr.motion import EXPRESSIONS

RENAMED = {  # options of earlier versions, and their names now
    "tables": "benchmarks",
    "cells": "variants",
    "wires": "inputs",
    "set": "overrides",
    "without": "ablate",
}
_FOLDER_NAME = re.compile(r"[\w(][\w .,+()=-]*", re.ASCII)
_PATH_OPTIONS = ("face_pack", "clip", "expressions")  # of a judge

Ablation = Literal["gate", "regions", "imr", "layout", "identity"]
Overrides = dict[str, dict[str, Any]]
"""node -> input -> value"""
InputRef = tuple[str, str]
"""A node and one of its inputs."""


def _existing(path: Path, info: ValidationInfo) -> Path:
    if info.context and not path.is_file():
        raise ValueError(f"there is no file {path}")
    return path


def _folder_name(name: str) -> str:
    if not _FOLDER_NAME.fullmatch(name) or name.endswith((" ", ".")):
        raise ValueError("expected letters, digits, spaces and -_.,+()= and no space or point at the end")
    return name


def _distinct(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse names that are one folder on some systems: those that differ in their case alone."""
    names = [str(part if isinstance(part, int) else part.name).casefold() for part in parts]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{name!r} occurs twice")
    return parts


def _in_image(region: Box) -> Box:
    if not (0 <= region.x0 < region.x1 <= 1 and 0 <= region.y0 < region.y1 <= 1):
        raise ValueError("expected x0 < x1 and y0 < y1 in [0, 1] as [x0, y0, x1, y1]")
    return region


ExistingFile = Annotated[ConfigPath, AfterValidator(_existing)]
"""A file that must be there when the configuration is read from one."""
FolderName = Annotated[str, AfterValidator(_folder_name)]
"""A name that can be a folder's on every system."""
Distinct = AfterValidator(_distinct)


class PersonInputs(ConfigModel):
    """Where a person's images and requested expression go; None: nowhere."""

    reference: InputRef | None = None
    expression: InputRef | None = None
    driver: InputRef | None = None


class SampleInputs(ConfigModel):
    """Where a sample's values go."""

    seed: InputRef = ("KSampler", "seed")
    prompt: InputRef | None = ("Positive prompt", "text")
    people: tuple[PersonInputs, ...] = ()


class TargetPerson(ConfigModel):
    """Who is requested, and how; what is None is not measured.

    Attributes:
        reference: an image of this person.
        yaw, pitch: degrees that the image is to show; both or neither. 0 is level, or front view.
        region: in fractions of the image; None: of n people the n equal columns.
        driver: an image whose motion drives this person's; nothing is measured of it.
    """

    reference: ExistingFile | None = None
    expression: str | None = None
    yaw: float | None = None
    pitch: float | None = None
    region: Annotated[Box, AfterValidator(_in_image)] | None = None
    driver: ExistingFile | None = None

    @field_validator("expression")
    @classmethod
    def _known(cls, expression: str | None) -> str | None:
        if expression not in (None, *EXPRESSIONS):
            raise ValueError(f"expected one of {', '.join(EXPRESSIONS)}")
        return expression

    @model_validator(mode="after")
    def _whole_pose(self) -> TargetPerson:
        if (self.yaw is None) != (self.pitch is None):
            raise ValueError("expected yaw and pitch, or neither")
        return self

    @property
    def images(self) -> tuple[Path, ...]:
        """What the server is given of this person."""
        return tuple(path for path in (self.reference, self.driver) if path is not None)

    @property
    def pose(self) -> tuple[float, float] | None:
        """(pitch, yaw)"""
        return None if self.yaw is None or self.pitch is None else (self.pitch, self.yaw)


class SampleSpec(ConfigModel):
    """What every variant draws, once for each seed: a prompt, people, and overrides, after the benchmark's.

    Attributes:
        ground_truth: a true picture of what is requested: the same people in the requested motion. It is never given
            to the server; generated faces are compared with it.
    """

    name: FolderName
    prompt: str
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), Distinct]
    people: tuple[TargetPerson, ...] = ()
    overrides: Overrides = Field(default_factory=dict)
    ground_truth: ExistingFile | None = None

    @model_validator(mode="after")
    def _alike(self) -> SampleSpec:
        for key in ("reference", "region"):
            if len({getattr(person, key) is None for person in self.people}) > 1:
                raise ValueError(f"expected a {key} for all people or for none")
        if self.ground_truth is not None and not any(person.reference for person in self.people):
            raise ValueError("expected people with references beside a ground_truth, which is compared with them")
        return self


class Variant(ConfigModel):
    """A row of a benchmark: what it ablates, and its overrides, after all others.

    The backgrounds of the variants are compared with those of one that ablates identity: the one with the same
    overrides if there is one, else the first.

    Attributes:
        may_equal: all its images may be those of another variant, which else is refused as an override without effect.
    """

    name: FolderName
    ablate: tuple[Ablation, ...] = ()
    overrides: Overrides = Field(default_factory=dict)
    may_equal: bool = False


class Benchmark(ConfigModel):
    """A table of images: a row for each variant, a column for each sample and seed.

    Attributes:
        grow: the template is for one person and is grown to as many as each sample has, see `grow.grow`; `inputs` has
            no people then.
        alike_from: likeness of a face to its person from which on it counts as alike; None: nothing is counted.
    """

    name: FolderName
    template: ExistingFile
    samples: Annotated[tuple[SampleSpec, ...], Field(min_length=1), Distinct]
    variants: Annotated[tuple[Variant, ...], Field(min_length=1), Distinct]
    inputs: SampleInputs = SampleInputs()
    overrides: Overrides = Field(default_factory=dict)
    grow: bool = False
    alike_from: Annotated[float, Field(ge=-1, le=1)] | None = None

    @model_validator(mode="after")
    def _people_fit(self) -> Benchmark:
        count = len(self.inputs.people)
        if self.grow and count:
            raise ValueError("expected no people in inputs of a benchmark that grows its template: it has its own")
        if self.grow and not all(sample.people for sample in self.samples):
            raise ValueError("expected people in each sample of a benchmark that grows its template")
        for sample in self.samples:
            if count and len(sample.people) != count:
                raise ValueError(f"inputs has {count} people, but the sample {sample.name} has {len(sample.people)}")
        return self


class JudgeConfig(ConfigModel):
    """See `judges.load_judge`; options of the judge `models` that name files are paths."""

    kind: str
    options: dict[str, str] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _from_folder(cls, options: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        folder: Path = (info.context or {}).get("folder", Path())
        return {name: str(folder / text) if name in _PATH_OPTIONS else text for name, text in options.items()}


class EvaluationConfig(ConfigModel):
    """A whole run.

    Attributes:
        node_judge: whom nodes asked for likeness while they made the images (Redraw People its face pack); the share of
            images in which everybody is alike is told by this judge, too.
        gallery: images, each of another person, among whom a face's own person is picked.
        margin: how far faces' boxes are grown where the background is measured, in lengths of their longer side.
    """

    judge: JudgeConfig
    benchmarks: Annotated[tuple[Benchmark, ...], Distinct]
    files: Annotated[tuple[ConfigPath, ...], Distinct] = ()
    node_judge: JudgeConfig | None = None
    gallery: tuple[ExistingFile, ...] = ()
    margin: float = 0.5

    @property
    def people(self) -> list[TargetPerson]:
        """All people of all samples."""
        return [person for benchmark in self.benchmarks for sample in benchmark.samples for person in sample.people]


def load_config(path: Path) -> EvaluationConfig:
    """Read a configuration. Raises ValueError as `configuration.read_config`, OSError if it can't be read."""
    return read_config(path.resolve(), EvaluationConfig, RENAMED)


def write_config(config: EvaluationConfig, path: Path) -> None:
    """Write a configuration that `load_config` reads; paths inside the file's folder start there."""
    write_atomically(path, json.dumps(as_json(config, path.resolve().parent), indent=2) + "\n")


def as_json(config: EvaluationConfig, folder: Path = Path()) -> dict[str, Any]:
    """Return a configuration as JSON values; paths inside `folder` start there."""

    def text(path: Path) -> str:
        return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()

    values: dict[str, Any] = json.loads(json.dumps(config.model_dump(), default=text))
    return values
