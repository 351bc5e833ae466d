"""Configuration files: every option that is not right is named on a line of its own."""

import json
from pathlib import Path

import pytest
from dynamicid_pack.dynamicid_core.configuration import ConfigModel, ConfigPath, read_config
from pydantic import Field, ValidationError


class Part(ConfigModel):
    scale: float = Field(default=1.0, gt=0)


class Whole(ConfigModel):
    data: ConfigPath
    steps: int
    part: Part = Part()


def write(folder: Path, content: object) -> Path:
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_options_are_read_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, {"data": "set", "steps": 3, "part": {"scale": 2.5}}), Whole)
    assert config == Whole(data=tmp_path / "set", steps=3, part=Part(scale=2.5))
    assert read_config(write(tmp_path, {"data": "/set", "steps": 3}), Whole).data == Path("/set")
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 4  # type: ignore[misc]


def test_each_wrong_option_has_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, {"stepps": 3, "times": 1, "steps": "three", "part": {"scale": -1, "length": 2}})
    with pytest.raises(ValueError, match="is missing") as raised:
        read_config(path, Whole, {"times": "timesteps"})
    lines = str(raised.value).splitlines()
    assert len(lines) == 6 and all(line.startswith(f"{path}: ") for line in lines)
    for expected in (
        "data is missing.",
        "steps: Input should be a valid integer, got 'three'.",
        "part.scale: Input should be greater than 0, got -1.",
        "part.length is unknown: remove it or correct its name.",
        "stepps is unknown: remove it or correct its name.",
        "times is called timesteps now: rename it.",
    ):
        assert f"{path}: {expected}" in lines


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json: the file: Invalid JSON"):
        read_config(write(tmp_path, "{not json"), Whole)
