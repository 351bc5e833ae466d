"""Configurations: what is understood, and what is refused with its place."""

import json
from pathlib import Path
from typing import Any

import pytest
from dynamicid_pack.dynamicid_core.evaluation.config import Cell, Config, JudgeChoice, Person, Sample, Table, Wires
from dynamicid_pack.dynamicid_core.evaluation.config_file import read_config, write_config


def _said() -> dict[str, Any]:
    return {
        "judge": {"kind": "models", "options": {"face_pack": "pack", "provider": "CPU"}},
        "tables": [
            {
                "name": "one person",
                "template": "graph.json",
                "wires": {"seed": ["4", "seed"], "people": [{"reference": ["10", "image"]}]},
                "samples": [
                    {
                        "name": "park",
                        "prompt": "a person",
                        "seeds": [1, 2],
                        "people": [{"reference": "ann.png", "yaw": 20, "pitch": 0, "region": [0, 0, 0.5, 1]}],
                    }
                ],
                "cells": [{"name": "full"}, {"name": "plain", "without": ["gate"]}],
            }
        ],
        "gallery": ["ann.png"],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "graph.json").write_text("{}")
    (tmp_path / "ann.png").write_bytes(b"")
    return tmp_path


def _read(folder: Path, said: Any) -> Config:
    (folder / "run.json").write_text(json.dumps(said))
    return read_config(folder / "run.json")


def test_it_is_read_with_paths_from_its_folder_and_written_again(folder: Path) -> None:
    config = _read(folder, _said())
    (table,) = config.tables
    assert config.gallery == (folder / "ann.png",)
    assert config.judge == JudgeChoice("models", {"face_pack": str(folder / "pack"), "provider": "CPU"})
    person = Person(folder / "ann.png", None, 20.0, 0.0, (0.0, 0.0, 0.5, 1.0))
    assert person.pose == (0.0, 20.0)
    assert table.samples == (Sample("park", "a person", (1, 2), (person,)),)
    assert table.cells == (Cell("full"), Cell("plain", ("gate",)))
    assert isinstance(table, Table) and table.wires.seed == ("4", "seed") and table.wires.prompt == Wires().prompt
    write_config(config, folder / "again.json")
    assert read_config(folder / "again.json") == config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["tabels"], [], "the configuration: 'tabels' is not known here; expected some of judge, tables"),
        (["tables"], {}, "tables: expected a list"),
        (["gallery"], ["bob.png"], "gallery: there is no picture .*bob.png"),
        (["judge"], {}, "judge: 'kind' is missing"),
        (["judge", "options"], {"a": 1}, "judge: expected options as names and texts"),
        (["tables", 0, "name"], "../up", r"tables\[0\].name: expected letters"),
        (["tables", 0, "name"], "ends.", r"tables\[0\].name: expected letters"),
        (["tables", 0, "template"], "other.json", r"tables\[0\]: there is no template"),
        (["tables", 0, "cells"], [], r"tables\[0\]: expected at least one of cells"),
        (["tables", 0, "cells", 1, "without"], ["gates"], r"cells\[1\].without: expected some of gate, .* got 'gates'"),
        (["tables", 0, "cells", 1, "name"], "full", r"tables\[0\].cells: 'full' occurs twice"),
        (["tables", 0, "cells", 0, "set"], {"KSampler": 1}, r"cells\[0\].set: expected nodes with inputs"),
        (["tables", 0, "wires", "seed"], None, r"wires.seed: expected \[node, input\], got null"),
        (["tables", 0, "wires", "prompt"], "text", r"wires.prompt: expected \[node, input\]"),
        (["tables", 0, "samples", 0, "seeds"], [1.5], r"samples\[0\].seeds: expected whole numbers from 0 on"),
        (["tables", 0, "samples", 0, "seeds"], [-1], r"samples\[0\].seeds: expected whole numbers from 0 on"),
        (["tables", 0, "cells", 1, "name"], "FULL", r"tables\[0\].cells: 'FULL' occurs twice"),
        (["tables", 0, "samples", 0, "seeds"], [1, 1], r"samples\[0\].seeds: 1 occurs twice"),
        (["tables", 0, "samples", 0, "people"], [], "1 people are wired, but the sample park has 0"),
        (
            ["tables", 0, "samples", 0, "people", 0, "expression"],
            "glad",
            r"people\[0\]: expected one of neutral, happy",
        ),
        (["tables", 0, "samples", 0, "people", 0, "pitch"], None, r"people\[0\]: expected yaw and pitch, or neither"),
        (["tables", 0, "samples", 0, "people", 0, "reference"], "x.png", r"people\[0\]: there is no reference"),
        (["tables", 0, "samples", 0, "people", 0, "driver"], "x.png", r"people\[0\]: there is no driver"),
        (["tables", 0, "samples", 0, "people", 0, "region"], [0, 0, 2, 1], r"people\[0\].region: expected x0 < x1"),
        (["tables", 0, "samples", 0, "people"], [{"region": [0, 0, 1, 1]}, {}], "a region for all people or for none"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(
    path: list[Any], value: Any, message: str, folder: Path
) -> None:
    said = _said()
    where: Any = said
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        _read(folder, said)


def test_what_is_not_json_is_refused(folder: Path) -> None:
    (folder / "run.toml").write_text("a = 1")
    with pytest.raises(ValueError, match=r"run.toml is not JSON"):
        read_config(folder / "run.toml")
