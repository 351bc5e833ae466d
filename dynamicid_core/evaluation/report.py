"""What a run measured: estimates as JSON and as Markdown, runs beside each other, and images side by side.

settings.json   what two runs must share to be compared
values.json     benchmark -> variant -> image -> measure -> [value, whether a face is missing]
results.json    benchmark -> variant -> measure -> {mean, low, high, n, missing}
tables.md       the results as tables; report.html: the same as a page, with the grids of images beside it
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import TypeAdapter

from ..files import write_atomically
from ..image_grid import named_rows
from .bootstrap import LEVEL, RESAMPLES, SEED, Estimate, Value, estimate
from .config import EvaluationConfig, as_json
from .judges import FaceJudge, Judge
from .measuring import Row
from .page import html_page
from .run_folder import Job, RunFolder

Results = dict[str, dict[str, dict[str, Estimate]]]
"""benchmark -> variant -> measure -> estimate"""

SETTINGS, VALUES, RESULTS, MARKDOWN = "settings.json", "values.json", "results.json", "tables.md"
PAGE = "report.html"
_DIGITS = {"UNet calls": 1, "Pose error": 1, "Background difference": 2, "Background PSNR": 1, "ID-Conf": 1}
_UNITS = {"Pose error": " (degrees)", "Background PSNR": " (dB)"}
_NOTE = "Mean [95 % interval] n pictures; - m: in m of the row's pictures a face that is asked for was not found."
_MAX_IMAGES = 12  # in a row of a grid


def results_of(values: Mapping[str, Mapping[str, Row]]) -> Results:
    """Return the mean and the interval of every measure, over the images of a row that it is asked of."""
    return {
        benchmark: {variant: _estimates(row) for variant, row in rows.items()} for benchmark, rows in values.items()
    }


def _estimates(row: Row) -> dict[str, Estimate]:
    names = dict.fromkeys(name for values in row.values() for name in values)
    return {name: estimate([values[name] for values in row.values() if name in values]) for name in names}


def settings_of(config: EvaluationConfig, judge: Judge, node_judge: FaceJudge | None = None) -> dict[str, Any]:
    """Return all that numbers depend on but for the weights: what two runs must share to be compared.

    References and templates are named by their digests, as `run_folder.snapshot` names them; `files` are left out,
    since runs are made to compare them.
    """
    benchmarks = as_json(config)["benchmarks"]
    for benchmark in benchmarks:
        benchmark["template"] = Path(benchmark["template"]).stem
        for person in (person for sample in benchmark["samples"] for person in sample["people"]):
            for key in ("reference", "driver"):
                person[key] = person[key] and Path(person[key]).stem
        for sample in benchmark["samples"]:
            truth = sample.pop("ground_truth")  # left out where there is none, as in runs from before it was there
            sample |= {"ground_truth": Path(truth).stem} if truth else {}
        if not benchmark["grow"]:
            benchmark.pop("grow")  # likewise
        if benchmark["alike_from"] is None:
            benchmark.pop("alike_from")
        for variant in benchmark["variants"]:
            if not variant["may_equal"]:
                variant.pop("may_equal")
        for key in ("samples", "variants"):
            benchmark[key] = {part.pop("name"): part for part in benchmark[key]}
    return {
        "judge": {"kind": config.judge.kind, "fingerprint": judge.fingerprint},
        **(
            {"node_judge": {"kind": config.node_judge.kind, "fingerprint": node_judge.fingerprint}}
            if node_judge and config.node_judge
            else {}
        ),
        "interval": {"resamples": RESAMPLES, "level": LEVEL, "seed": SEED},
        "margin": config.margin,
        "gallery": [path.stem for path in config.gallery],
        "benchmarks": {benchmark.pop("name"): benchmark for benchmark in benchmarks},
    }


def write_report(
    folder: Path, settings: dict[str, Any], values: Mapping[str, Mapping[str, Row]], results: Results
) -> None:
    """Write what a run measured into its folder."""
    write_atomically(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
    write_atomically(folder / VALUES, json.dumps(values) + "\n")
    write_atomically(folder / RESULTS, json.dumps(results, indent=2, default=asdict) + "\n")
    write_atomically(folder / MARKDOWN, markdown(results))
    tables = {benchmark: _cells(rows) for benchmark, rows in results.items()}
    write_atomically(folder / PAGE, html_page(tables, _NOTE, settings))


def read_results(folder: Path) -> Results:
    """Read a run's results. Raises ValueError when it has not been measured."""
    if not (folder / RESULTS).is_file():
        raise ValueError(f"{folder} has not been measured: expected its {RESULTS}. Start `measure` on it first.")
    return TypeAdapter(Results).validate_json((folder / RESULTS).read_bytes())


def compare(folders: Sequence[Path]) -> Results:
    """Return runs in one table, each row once for each run, named after the run's folder.

    Raises ValueError when the runs were made with different settings; it names what differs.
    """
    runs = [read_results(folder) for folder in folders]
    if len(folders) == 1:
        return runs[0]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    first, *others = (json.loads((folder / SETTINGS).read_text("utf-8")) for folder in folders)
    for name, other in zip(names[1:], others, strict=True):
        if lines := differences(first, other):
            raise ValueError(
                f"{names[0]} and {name} were made with different settings and can't be compared: {'; '.join(lines)}."
            )
    return {
        benchmark: {
            f"{variant}, {name}": run[benchmark][variant]
            for variant in rows
            for name, run in zip(names, runs, strict=True)
        }
        for benchmark, rows in runs[0].items()
    }


def against(folder: Path, row: str) -> Results:
    """Return by how much a run's rows differ from one, image by image: all rows draw the same samples and seeds.

    An image counts where both define the measure. What images differ in by themselves falls out, so these intervals
    tell rows apart whose own overlap.

    Raises ValueError when the run has not been measured, or no benchmark has the row.
    """
    read_results(folder)
    kept = json.loads((folder / VALUES).read_text("utf-8"))
    rows = {benchmark: variants for benchmark, variants in kept.items() if row in variants}
    if not rows:
        known = dict.fromkeys(variant for variants in kept.values() for variant in variants)
        raise ValueError(f"expected a row of {', '.join(map(repr, known))}, got {row!r}.")
    return {
        benchmark: {name: _estimates(_minus(images, variants[row])) for name, images in variants.items() if name != row}
        for benchmark, variants in rows.items()
    }


def _minus(row: Mapping[str, Mapping[str, Any]], other: Mapping[str, Mapping[str, Any]]) -> Row:
    """Return the differences of two rows of `values.json`, of the images and measures that both have."""
    differing: Row = {}
    for image in (image for image in row if image in other):
        differing[image] = {}
        for name in (name for name in row[image] if name in other[image]):
            one, two = Value(*row[image][name]), Value(*other[image][name])
            difference = None if one.value is None or two.value is None else one.value - two.value
            differing[image][name] = Value(difference, one.missing or two.missing)
    return differing


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return where two JSON values differ, each as `place: this, that`."""
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys([*one, *other])
        pairs = [(f"{where}.{key}".lstrip("."), one.get(key, "nothing"), other.get(key, "nothing")) for key in keys]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))]
    elif one != other:
        return [f"{where}: {_short(one)}, {_short(other)}"]
    return [line for place, a, b in pairs for line in differences(a, b, place)]


def markdown(results: Results) -> str:
    """Return a table for each benchmark: means, 95 % intervals and numbers of images."""
    return "\n".join(_markdown(benchmark, rows) for benchmark, rows in results.items())


def _markdown(benchmark: str, rows: Mapping[str, Mapping[str, Estimate]]) -> str:
    (_, *columns), *cells = _cells(rows)
    lines = [f"### {benchmark}", "", f"| | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(line)} |" for line in cells), "", _NOTE, ""])


def _cells(rows: Mapping[str, Mapping[str, Estimate]]) -> list[list[str]]:
    """Return a table's cells, the columns' names first."""
    names = list(dict.fromkeys(name for estimates in rows.values() for name in estimates))
    header = ["", *(name + _UNITS.get(name, "") for name in names)]
    return [header, *([row, *(_cell_text(n, estimates.get(n)) for n in names)] for row, estimates in rows.items())]


def _cell_text(name: str, value: Estimate | None) -> str:
    if value is None:
        return ""
    digits = _DIGITS.get(name, 3)
    missing = f" - {value.missing}" if value.missing else ""
    if value.mean is None:
        return f"undefined{missing}"
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}] {value.n}{missing}"


def write_grids(config: EvaluationConfig, folder: RunFolder) -> None:
    """Write `<benchmark>.png` for each: a line of images for each variant, in the same order of samples and seeds."""
    for benchmark in config.benchmarks:
        seeds = [(sample, seed) for sample in benchmark.samples for seed in sample.seeds]
        lines = []
        for variant in benchmark.variants:
            paths = [path for pair in seeds for path in folder.images(Job.of(benchmark, variant, *pair))]
            lines.append((variant.name, [Image.open(path) for path in paths[:_MAX_IMAGES]]))
        named_rows(lines).save(folder.folder / f"{benchmark.name}.png")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
