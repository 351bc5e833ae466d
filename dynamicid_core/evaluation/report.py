"""What a run found: estimates as JSON and as Markdown, runs beside each other, and pictures side by side.

settings.json   what two runs must share to be compared
values.json     table -> row -> picture -> measure -> [value, whether a face is missing]
results.json    table -> row -> measure -> {mean, low, high, n, missing}
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from ..image_grid import named_rows
from .bootstrap import LEVEL, RESAMPLES, SEED, Estimate, Value, estimate
from .config import Config, as_json
from .judge import Judge
from .measuring import Row
from .store import Store, job_name, write_whole

Results = dict[str, dict[str, dict[str, Estimate]]]
"""table -> row -> measure -> estimate"""

SETTINGS, VALUES, RESULTS, MARKDOWN = "settings.json", "values.json", "results.json", "tables.md"
_DIGITS = {"Pose error": 1, "Background difference": 2, "Background PSNR": 1}
_UNITS = {"Pose error": " (degrees)", "Background PSNR": " (dB)"}
_MOST = 12  # images in a row of a grid


def results_of(values: Mapping[str, Mapping[str, Row]]) -> Results:
    """The mean and the interval of every measure, over the pictures of a row that it is asked of."""
    return {table: {row: _row(pictures) for row, pictures in rows.items()} for table, rows in values.items()}


def _row(pictures: Row) -> dict[str, Estimate]:
    by_measure: dict[str, list[Value]] = {}
    for said in pictures.values():
        for name, value in said.items():
            by_measure.setdefault(name, []).append(value)
    return {name: estimate(said) for name, said in by_measure.items()}


def settings_of(config: Config, judge: Judge) -> dict[str, Any]:
    """All that numbers depend on but for the weights: what two runs must share to be compared.

    References and templates are named by their digests, as `store.adopted` names them; `files` are left out, since
    runs are made to compare them.
    """
    said = as_json(config)
    for table in said["tables"]:
        table["template"] = Path(table["template"]).stem
        for sample in table["samples"]:
            for person in sample["people"]:
                for key in ("reference", "driver"):
                    person[key] = person[key] and Path(person[key]).stem
        for key in ("samples", "cells"):
            table[key] = {part.pop("name"): part for part in table[key]}
    return {
        "judge": {"kind": config.judge.kind, "fingerprint": judge.fingerprint},
        "interval": {"resamples": RESAMPLES, "level": LEVEL, "seed": SEED},
        "margin": config.margin,
        "gallery": [path.stem for path in config.gallery],
        "tables": {table.pop("name"): table for table in said["tables"]},
    }


def write_report(folder: Path, settings: dict[str, Any], values: dict[str, Any], results: Results) -> None:
    """Write what a run found into its folder."""
    write_whole(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
    write_whole(folder / VALUES, json.dumps(values) + "\n")
    plain = {
        table: {row: {name: asdict(found) for name, found in said.items()} for row, said in rows.items()}
        for table, rows in results.items()
    }
    write_whole(folder / RESULTS, json.dumps(plain, indent=2) + "\n")
    write_whole(folder / MARKDOWN, markdown(results))


def read_results(folder: Path) -> Results:
    """A run's results. Raises ValueError when it has not been measured."""
    if not (folder / RESULTS).is_file():
        raise ValueError(f"{folder} has not been measured: expected its {RESULTS}. Start `measure` on it first.")
    said = json.loads((folder / RESULTS).read_text("utf-8"))
    return {
        table: {row: {name: Estimate(**found) for name, found in row_said.items()} for row, row_said in rows.items()}
        for table, rows in said.items()
    }


def compared(folders: Sequence[Path]) -> Results:
    """Runs in one table, each row once for each run, named after the run's folder.

    Raises ValueError when the runs were made with different settings; it names what differs.
    """
    found = [read_results(folder) for folder in folders]
    if len(folders) == 1:
        return found[0]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    first, *others = (json.loads((folder / SETTINGS).read_text("utf-8")) for folder in folders)
    for name, other in zip(names[1:], others, strict=True):
        if apart := differences(first, other):
            raise ValueError(
                f"{names[0]} and {name} were made with different settings and can't be compared: {'; '.join(apart)}."
            )
    return {
        table: {
            f"{row}, {name}": run[table][row] for row in rows for name, run in zip(names, found, strict=True)
        }
        for table, rows in found[0].items()
    }  # fmt: skip


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two JSON values differ, each as `place: this, that`."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        return [
            line
            for key in keys
            for line in differences(one.get(key, "nothing"), other.get(key, "nothing"), f"{where}.{key}".lstrip("."))
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line for i, (a, b) in enumerate(zip(one, other, strict=True)) for line in differences(a, b, f"{where}[{i}]")
        ]
    return [] if one == other else [f"{where}: {_short(one)}, {_short(other)}"]


def markdown(results: Results) -> str:
    """A table for each table: means, 95 % intervals and numbers of pictures."""
    return "\n".join(_markdown(table, rows) for table, rows in results.items())


def _markdown(table: str, rows: Mapping[str, Mapping[str, Estimate]]) -> str:
    names = list(dict.fromkeys(name for said in rows.values() for name in said))
    lines = [f"### {table}", "", "| | " + " | ".join(name + _UNITS.get(name, "") for name in names) + " |"]
    lines.append("| --- " * (len(names) + 1) + "|")
    for row, said in rows.items():
        lines.append(f"| {row} | " + " | ".join(_shown(name, said.get(name)) for name in names) + " |")
    note = "Mean [95 % interval] n pictures; - m: in m of the row's pictures a face that is asked for was not found."
    return "\n".join([*lines, "", note, ""])


def _shown(name: str, found: Estimate | None) -> str:
    if found is None:
        return ""
    digits = _DIGITS.get(name, 3)
    lost = f" - {found.missing}" if found.missing else ""
    if found.mean is None or found.low is None or found.high is None:
        return f"undefined{lost}"
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}] {found.n}{lost}"


def write_grids(config: Config, store: Store, folder: Path) -> None:
    """Write `<table>.png` for each table: a line of pictures for each row, in the same order of samples and seeds."""
    for table in config.tables:
        lines = []
        for cell in table.cells:
            asked = [job_name(sample, seed) for sample in table.samples for seed in sample.seeds]
            paths = [path for name in asked for path in store.pictures(table.name, cell.name, name)]
            lines.append((cell.name, [Image.open(path) for path in paths[:_MOST]]))
        named_rows(lines).save(folder / f"{table.name}.png")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
