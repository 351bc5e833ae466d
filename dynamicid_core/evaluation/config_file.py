"""Configurations as JSON files: every name and value is checked, and an error names the place."""

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..box import Box
from ..imr.motion import EXPRESSIONS
from .config import (
    SWITCHES,
    Cell,
    Config,
    Inputs,
    JudgeChoice,
    Person,
    PersonWires,
    Sample,
    Socket,
    Table,
    Wires,
    as_json,
)

_NAME = re.compile(r"[\w(][\w .,+()=-]*", re.ASCII)
_PATHS = ("face_pack", "clip", "expressions")  # options of a judge
_FREE = ("set", "wires", "options")  # their defaults are made anew


def read_config(path: Path) -> Config:
    """Read a configuration.

    Raises:
        ValueError: it is no JSON, or says something that is not understood; the text names the place.
        OSError: it can't be read.
    """
    try:
        said = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not JSON: {error}.") from error
    return _config(said, path.resolve().parent)


def write_config(config: Config, path: Path) -> None:
    """Write a configuration that `read_config` reads; paths inside the file's folder start there."""
    path.write_text(json.dumps(as_json(config, path.resolve().parent), indent=2) + "\n", "utf-8")


def _config(said: Any, folder: Path) -> Config:
    given = _given(Config, said, "the configuration")
    given["judge"] = _judge(given["judge"], folder)
    tables = _list(given["tables"], "tables")
    given["tables"] = tuple(_table(table, folder, f"tables[{i}]") for i, table in enumerate(tables))
    given["files"] = tuple(folder / str(name) for name in _list(given.get("files", []), "files"))
    _different([path.name for path in given["files"]], "files")
    given["gallery"] = tuple(folder / str(name) for name in _list(given.get("gallery", []), "gallery"))
    for path in given["gallery"]:
        if not path.is_file():
            raise ValueError(f"gallery: there is no picture {path}.")
    given["margin"] = _number(given.get("margin", 0.5), "margin")
    _different([table.name for table in given["tables"]], "tables")
    return Config(**given)


def _judge(said: Any, folder: Path) -> JudgeChoice:
    given = _given(JudgeChoice, said, "judge")
    options = given.get("options", {})
    if not isinstance(options, dict) or not all(isinstance(value, str) for value in options.values()):
        raise ValueError(f"judge: expected options as names and texts, got {options!r}.")
    return JudgeChoice(given["kind"], {k: str(folder / v) if k in _PATHS else v for k, v in options.items()})


def _table(said: Any, folder: Path, where: str) -> Table:
    given = _given(Table, said, where)
    given["name"] = _name(given["name"], where)
    given["template"] = folder / given["template"]
    if not given["template"].is_file():
        raise ValueError(f"{where}: there is no template {given['template']}.")
    given["wires"] = _wires(given.get("wires", {}), f"{where}.wires")
    given["set"] = _inputs(given.get("set", {}), f"{where}.set")
    for key, read in (("samples", _sample), ("cells", _cell)):
        rows = _list(given[key], f"{where}.{key}")
        if not rows:
            raise ValueError(f"{where}: expected at least one of {key}, got none.")
        given[key] = tuple(read(row, folder, f"{where}.{key}[{i}]") for i, row in enumerate(rows))
        _different([row.name for row in given[key]], f"{where}.{key}")
    wired = len(given["wires"].people)
    for sample in given["samples"]:
        if wired and len(sample.people) != wired:
            raise ValueError(
                f"{where}: {wired} people are wired, but the sample {sample.name} has {len(sample.people)}."
            )
    return Table(**given)


def _wires(said: Any, where: str) -> Wires:
    given = _given(Wires, said, where)
    for key in ("seed", "prompt"):
        if key in given:
            given[key] = _socket(given[key], f"{where}.{key}")
    if "seed" in given and given["seed"] is None:
        raise ValueError(f"{where}.seed: expected [node, input], got null.")
    people = []
    for i, person in enumerate(_list(given.get("people", []), f"{where}.people")):
        found = _given(PersonWires, person, f"{where}.people[{i}]")
        people.append(PersonWires(**{key: _socket(found[key], f"{where}.people[{i}].{key}") for key in found}))
    given["people"] = tuple(people)
    return Wires(**given)


def _sample(said: Any, folder: Path, where: str) -> Sample:
    given = _given(Sample, said, where)
    given["name"] = _name(given["name"], where)
    given["seeds"] = tuple(_list(given["seeds"], f"{where}.seeds"))
    if not given["seeds"] or not all(type(seed) is int and seed >= 0 for seed in given["seeds"]):
        raise ValueError(f"{where}.seeds: expected whole numbers from 0 on, at least one, got {list(given['seeds'])}.")
    _different(given["seeds"], f"{where}.seeds")
    people = _list(given.get("people", []), f"{where}.people")
    given["people"] = tuple(_person(person, folder, f"{where}.people[{i}]") for i, person in enumerate(people))
    given["set"] = _inputs(given.get("set", {}), f"{where}.set")
    for key in ("reference", "region"):
        if len({getattr(person, key) is None for person in given["people"]}) > 1:
            raise ValueError(f"{where}.people: expected a {key} for all people or for none.")
    return Sample(**given)


def _person(said: Any, folder: Path, where: str) -> Person:
    given = _given(Person, said, where)
    for key in ("reference", "driver"):
        if given.get(key) is not None:
            given[key] = folder / given[key]
            if not given[key].is_file():
                raise ValueError(f"{where}: there is no {key} {given[key]}.")
    if given.get("expression") not in (None, *EXPRESSIONS):
        raise ValueError(f"{where}: expected one of {', '.join(EXPRESSIONS)}, got {given['expression']!r}.")
    for key in ("yaw", "pitch"):
        if given.get(key) is not None:
            given[key] = _number(given[key], f"{where}.{key}")
    if (given.get("yaw") is None) != (given.get("pitch") is None):
        raise ValueError(f"{where}: expected yaw and pitch, or neither. 0 is level, or front view.")
    if given.get("region") is not None:
        region = tuple(_number(side, f"{where}.region") for side in _list(given["region"], f"{where}.region"))
        if len(region) != 4 or not (0 <= region[0] < region[2] <= 1 and 0 <= region[1] < region[3] <= 1):
            raise ValueError(
                f"{where}.region: expected x0 < x1 and y0 < y1 in [0, 1] as [x0, y0, x1, y1], got {region}."
            )
        given["region"] = Box.of(region)
    return Person(**given)


def _cell(said: Any, folder: Path, where: str) -> Cell:
    given = _given(Cell, said, where)
    given["name"] = _name(given["name"], where)
    given["without"] = tuple(_list(given.get("without", []), f"{where}.without"))
    unknown = [name for name in given["without"] if name not in SWITCHES]
    if unknown:
        raise ValueError(f"{where}.without: expected some of {', '.join(SWITCHES)}, got {unknown[0]!r}.")
    given["set"] = _inputs(given.get("set", {}), f"{where}.set")
    return Cell(**given)


def _given(kind: type, said: Any, where: str) -> dict[str, Any]:
    """A JSON object whose names are a dataclass's fields, those without a default among them."""
    if not isinstance(said, dict):
        raise ValueError(f"{where}: expected a JSON object, got {said!r}.")
    known = {f.name: f for f in fields(kind)}
    unknown = [name for name in said if name not in known]
    if unknown:
        raise ValueError(f"{where}: {unknown[0]!r} is not known here; expected some of {', '.join(known)}.")
    lacking = [name for name in known if name not in said and not hasattr(kind, name) and name not in _FREE]
    if lacking:
        raise ValueError(f"{where}: {lacking[0]!r} is missing.")
    return dict(said)


def _list(said: Any, where: str) -> list[Any]:
    if not isinstance(said, list):
        raise ValueError(f"{where}: expected a list, got {said!r}.")
    return said


def _number(said: Any, where: str) -> float:
    if isinstance(said, bool) or not isinstance(said, (int, float)):
        raise ValueError(f"{where}: expected a number, got {said!r}.")
    return float(said)


def _name(said: Any, where: str) -> str:
    """A name that can be a folder's on every system."""
    if not isinstance(said, str) or not _NAME.fullmatch(said) or said.endswith((" ", ".")):
        raise ValueError(f"{where}.name: expected letters, digits, spaces and -_.,+()=, got {said!r}.")
    return said


def _different(names: Sequence[Any], where: str) -> None:
    """Names that differ in their case alone are one folder's on some systems."""
    plain = [str(name).casefold() for name in names]
    twice = [name for i, name in enumerate(names) if plain[i] in plain[:i]]
    if twice:
        raise ValueError(f"{where}: {twice[0]!r} occurs twice.")


def _socket(said: Any, where: str) -> Socket | None:
    if said is None:
        return None
    if not isinstance(said, list) or len(said) != 2 or not all(isinstance(name, str) for name in said):
        raise ValueError(f"{where}: expected [node, input], got {said!r}.")
    return said[0], said[1]


def _inputs(said: Any, where: str) -> Inputs:
    if not isinstance(said, dict) or not all(isinstance(inputs, dict) for inputs in said.values()):
        raise ValueError(f"{where}: expected nodes with inputs with values, got {said!r}.")
    return said
