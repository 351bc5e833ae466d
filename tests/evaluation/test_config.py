"""Configurations: what is understood, and what is refused with its place."""

import json
from pathlib import Path
from typing import Any

import pytest
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.evaluation.config import (
    Benchmark,
    EvaluationConfig,
    JudgeConfig,
    SampleInputs,
    SampleSpec,
    TargetPerson,
    Variant,
    load_config,
    write_config,
)


def _said() -> dict[str, Any]:
    return {
        "judge": {"kind": "models", "options": {"face_pack": "pack", "provider": "CPU"}},
        "benchmarks": [
            {
                "name": "one person",
                "template": "graph.json",
                "inputs": {"seed": ["4", "seed"], "people": [{"reference": ["10", "image"]}]},
                "samples": [
                    {
                        "name": "park",
                        "prompt": "a person",
                        "seeds": [1, 2],
                        "people": [{"reference": "ann.png", "yaw": 20, "pitch": 0, "region": [0, 0, 0.5, 1]}],
                    }
                ],
                "variants": [{"name": "full"}, {"name": "plain", "ablate": ["gate"]}],
            }
        ],
        "gallery": ["ann.png"],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "graph.json").write_text("{}")
    (tmp_path / "ann.png").write_bytes(b"")
    (tmp_path / "truth.png").write_bytes(b"")
    return tmp_path


def _read(folder: Path, said: Any) -> EvaluationConfig:
    (folder / "run.json").write_text(json.dumps(said))
    return load_config(folder / "run.json")


def test_it_is_read_with_paths_from_its_folder_and_written_again(folder: Path) -> None:
    config = _read(folder, _changed([*SAMPLE, "ground_truth"], "truth.png"))
    (benchmark,) = config.benchmarks
    assert config.gallery == (folder / "ann.png",)
    assert config.judge == JudgeConfig(kind="models", options={"face_pack": str(folder / "pack"), "provider": "CPU"})
    person = TargetPerson(reference=folder / "ann.png", yaw=20.0, pitch=0.0, region=Box(0.0, 0.0, 0.5, 1.0))
    assert person.pose == (0.0, 20.0)
    sample = SampleSpec(
        name="park", prompt="a person", seeds=(1, 2), people=(person,), ground_truth=folder / "truth.png"
    )
    assert benchmark.samples == (sample,)
    assert benchmark.variants == (Variant(name="full"), Variant(name="plain", ablate=("gate",)))
    assert isinstance(benchmark, Benchmark) and benchmark.inputs.seed == ("4", "seed")
    assert benchmark.inputs.prompt == SampleInputs().prompt
    write_config(config, folder / "again.json")
    assert load_config(folder / "again.json") == config


def _changed(path: list[Any], value: Any) -> Any:
    said = _said()
    where: Any = said
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    return said


FIRST = ["benchmarks", 0]
SAMPLE = [*FIRST, "samples", 0]
PERSON = [*SAMPLE, "people", 0]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["benchmrks"], [], "benchmrks is unknown"),
        (["benchmarks"], {}, "benchmarks: Input should be a valid array"),
        (["gallery"], ["bob.png"], "gallery.0: .*there is no file .*bob.png"),
        (["judge"], {}, "judge.kind is missing"),
        (["judge", "options"], {"a": 1}, "judge.options.a: Input should be a valid string"),
        ([*FIRST, "name"], "../up", r"benchmarks.0.name: .*expected letters"),
        ([*FIRST, "name"], "ends.", r"benchmarks.0.name: .*expected letters"),
        ([*FIRST, "template"], "other.json", r"benchmarks.0.template: .*there is no file"),
        ([*FIRST, "variants"], [], r"benchmarks.0.variants: .*at least 1 item"),
        ([*FIRST, "variants", 1, "ablate"], ["gates"], r"variants.1.ablate.0: .*'gate', .*got 'gates'"),
        ([*FIRST, "variants", 1, "name"], "full", r"benchmarks.0.variants: .*'full' occurs twice"),
        (
            [*FIRST, "variants", 0, "overrides"],
            {"KSampler": 1},
            "overrides.KSampler: Input should be an object",
        ),
        ([*FIRST, "inputs", "seed"], ["4"], r"benchmarks.0.inputs.seed.1 is missing"),
        ([*FIRST, "inputs", "seed"], None, r"benchmarks.0.inputs.seed: Input should be a valid array"),
        ([*FIRST, "inputs", "prompt"], "text", r"benchmarks.0.inputs.prompt: Input should be a valid array"),
        ([*SAMPLE, "seeds"], [1.5], r"samples.0.seeds.0: .*valid integer"),
        ([*SAMPLE, "seeds"], [-1], r"samples.0.seeds.0: .*greater than or equal to 0"),
        ([*SAMPLE, "seeds"], [True], r"samples.0.seeds.0: .*valid integer"),
        ([*SAMPLE, "seeds"], [], r"samples.0.seeds: .*at least 1 item"),
        ([*FIRST, "variants", 1, "name"], "FULL", r"benchmarks.0.variants: .*'full' occurs twice"),
        ([*SAMPLE, "seeds"], [1, 1], r"samples.0.seeds: .*'1' occurs twice"),
        ([*SAMPLE, "people"], [], "inputs has 1 people, but the sample park has 0"),
        ([*PERSON, "expression"], "glad", r"people.0.expression: .*expected one of neutral, happy"),
        ([*PERSON, "pitch"], None, r"people.0: .*expected yaw and pitch, or neither"),
        ([*PERSON, "reference"], "x.png", r"people.0.reference: .*there is no file"),
        ([*PERSON, "driver"], "x.png", r"people.0.driver: .*there is no file"),
        ([*PERSON, "region"], [0, 0, 2, 1], r"people.0.region: .*expected x0 < x1"),
        ([*SAMPLE, "ground_truth"], "x.png", r"samples.0.ground_truth: .*there is no file"),
        (
            SAMPLE,
            {"name": "a", "prompt": "", "seeds": [1], "people": [{"yaw": 1, "pitch": 2}], "ground_truth": "ann.png"},
            "expected people with references beside a ground_truth",
        ),
        ([*SAMPLE, "people"], [{"region": [0, 0, 1, 1]}, {}], "a region for all people or for none"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(
    path: list[Any], value: Any, message: str, folder: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        _read(folder, _changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["tables"], [], "tables is called benchmarks now"),
        ([*FIRST, "cells"], [], "benchmarks.0.cells is called variants now"),
        ([*FIRST, "wires"], {}, "benchmarks.0.wires is called inputs now"),
        ([*FIRST, "set"], {}, "benchmarks.0.set is called overrides now"),
        ([*SAMPLE, "set"], {}, "samples.0.set is called overrides now"),
        ([*FIRST, "variants", 1, "set"], {}, "variants.1.set is called overrides now"),
        ([*FIRST, "variants", 1, "without"], [], "variants.1.without is called ablate now"),
    ],
)
def test_an_option_of_an_earlier_version_is_refused_with_its_new_name(
    path: list[Any], value: Any, message: str, folder: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        _read(folder, _changed(path, value))


def test_what_is_not_json_is_refused(folder: Path) -> None:
    (folder / "run.toml").write_text("a = 1")
    with pytest.raises(ValueError, match=r"run.toml: the file: Invalid JSON"):
        load_config(folder / "run.toml")
