"""From a public benchmark's sample list and a user's own graph to a run's configuration."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..configuration import plain_errors
from .config import Benchmark, EvaluationConfig, InputRef, JudgeConfig, Overrides, SampleSpec, TargetPerson, Variant
from .judges import CachedJudge
from .sample_lists import read_sample_list


def list_config(
    kind: str,
    path: Path,
    template: Path,
    judge: JudgeConfig,
    images: Path | None = None,
    ablate: Sequence[str] = (),
    seeds: int = 1,
    first: int | None = None,
    overrides: Overrides | None = None,
    files: Sequence[Path] = (),
    inputs: Mapping[str, InputRef] | None = None,
) -> EvaluationConfig:
    """Return a configuration that draws a list's samples with a graph for one person, grown to each sample's people.

    Args:
        kind, path, images: see `sample_lists.read_sample_list`.
        template: a graph of ComfyUI's page, or one exported for its API, with the user's own weights.
        ablate: a row more for each, without it.
        seeds: so many images of each sample, with the seeds 0, 1, ...
        first: so many samples of the list; None: all.
        files: the weights, so that with others images are generated anew.
        inputs: where `seed` and `prompt` go, in a graph of several samplers or prompts.

    Raises as `read_sample_list`, and ValueError when an option has a wrong value.
    """
    if seeds < 1 or (first is not None and first < 1):
        raise ValueError(f"Expected at least one seed and one sample, got {seeds} and {first}.")
    samples = [
        SampleSpec(
            name=listed.name,
            prompt=listed.prompt,
            seeds=tuple(range(seeds)),
            people=tuple(TargetPerson(reference=image.resolve()) for image in listed.references),
            ground_truth=listed.ground_truth and listed.ground_truth.resolve(),
        )
        for listed in read_sample_list(kind, path, images)[:first]
    ]
    with plain_errors(f"{path}: "):
        benchmark = Benchmark.model_validate({
            "name": f"{kind} {path.stem}",
            "template": template.resolve(),
            "grow": True,
            "samples": tuple(samples),
            "variants": (Variant(name="full"), *({"name": f"without {name}", "ablate": (name,)} for name in ablate)),
            "overrides": overrides or {},
            "inputs": dict(inputs or {}),
        })  # fmt: skip
    return EvaluationConfig(judge=judge, benchmarks=(benchmark,), files=tuple(file.resolve() for file in files))


def parse_override(text: str) -> Overrides:
    """Return what `NODE.INPUT=VALUE` sets; VALUE is JSON, or else text. Raises ValueError for another form."""
    place, equals, value = text.partition("=")
    node, point, name = place.rpartition(".")
    if not (equals and point and node and name):
        raise ValueError(f"Expected NODE.INPUT=VALUE, for example KSampler.steps=30, got {text!r}.")
    parsed: Any = value
    with contextlib.suppress(ValueError):
        parsed = json.loads(value)
    return {node: {name: parsed}}


def parse_input(text: str) -> tuple[str, InputRef]:
    """Return the name and the place of `seed=NODE.INPUT` or `prompt=NODE.INPUT`. Raises ValueError for another form."""
    name, _, place = text.partition("=")
    node, _, socket = place.rpartition(".")
    if name not in ("seed", "prompt") or not (node and socket):
        raise ValueError(f"Expected seed=NODE.INPUT or prompt=NODE.INPUT, for example seed=11.seed, got {text!r}.")
    return name, (node, socket)


def parse_option(text: str) -> tuple[str, str]:
    """Return the name and the value of `NAME=VALUE`. Raises ValueError for another form."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"Expected NAME=VALUE, for example face_pack=models/buffalo_l, got {text!r}.")
    return name, value


def without_faceless(config: EvaluationConfig, judge: CachedJudge) -> tuple[EvaluationConfig, list[str]]:
    """Return a configuration without the samples in one of whose references the judge finds no face, and their names.

    Raises ValueError when that leaves a benchmark without samples.
    """
    benchmarks, names = [], []
    for benchmark in config.benchmarks:
        kept = [sample for sample in benchmark.samples if _has_faces(sample, judge)]
        if not kept:
            raise ValueError(f"{benchmark.name}: the judge finds no face in any sample's references.")
        names += [sample.name for sample in benchmark.samples if sample not in kept]
        benchmarks.append(benchmark.model_copy(update={"samples": tuple(kept)}))
    return config.model_copy(update={"benchmarks": tuple(benchmarks)}), names


def _has_faces(sample: SampleSpec, judge: CachedJudge) -> bool:
    return all(judge.image(person.reference).faces for person in sample.people if person.reference)
