"""Tables of a run of the motions' benchmarks: edits by source expression, crosstalk of angles, amounts and mixtures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .core import CachedJudge, JudgedFace, read_image
from .judging import judge
from .motion_amounts import AmountScale
from .motion_experiments import AMOUNTS, ANGLES, MIXED, SHOWN, SOURCES, RequestedMotion, name_of_source

QUARTERS = ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.01))  # of an expression's amount
_POSE = ("pitch", "yaw", "roll")  # as a judged face has them
Results = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]
"""benchmark -> row -> measure -> mean and interval, as `results.json` holds them"""


@dataclass(frozen=True)
class Edited:
    """What one picture shows beside what was asked of it.

    Attributes:
        turned: degrees of pitch, yaw and roll beyond the reference's; None where no face was found.
        expression: the judge's; "" where no face was found.
        path: of the picture.
    """

    requested: RequestedMotion
    turned: NDArray[np.float64] | None
    expression: str
    path: Path


def write_motion_tables(run: Path, path: Path) -> Path:
    """Write the tables of a run's motion benchmarks as Markdown; return the path.

    Args:
        run: what `python -m dynamicid_core.evaluation run --output` wrote.

    Raises ValueError when the run has not been measured, or holds none of these benchmarks.
    """
    if not (run / "results.json").is_file():
        raise ValueError(f"{run} holds no results.json: measure it with python -m dynamicid_core.evaluation first.")
    results = json.loads((run / "results.json").read_text("utf-8"))
    edited = {name: list(_edited(run, name)) for name in _requesting(run)}
    amounts, mixed = edited.get(AMOUNTS, []), edited.get(MIXED, [])
    sections = [_sources(results), _crosstalk(edited), _amounts(amounts), _read(amounts), _mixed(mixed)]
    text = "\n\n".join(filter(None, sections))
    if not text:
        raise ValueError(f"{run} holds none of the motions' benchmarks: write them with --only, see mini experiments.")
    path.write_text(text + "\n", "utf-8")
    return path


def line_through(requested: ArrayLike, shown: ArrayLike) -> tuple[float, float]:
    """Return the slope of shown over requested (least squares, with an offset), and R^2; 0 where nothing varies.

    R^2 is the share of shown's variance that the line explains: the square of Pearson's correlation.
    """
    x, y = np.asarray(requested, np.float64), np.asarray(shown, np.float64)
    x, y = x - x.mean(), y - y.mean()
    across, along = float(x @ x), float(y @ y)
    if across == 0 or along == 0:
        return 0.0, 0.0
    return float(x @ y) / across, float(x @ y) ** 2 / (across * along)


def _requesting(run: Path) -> list[str]:
    """Return the names of a run's benchmarks whose samples ask for a written motion."""
    config = json.loads((run / "config.json").read_text("utf-8"))
    return [
        benchmark["name"]
        for benchmark in config["benchmarks"]
        if "prompt" in benchmark["samples"][0].get("overrides", {}).get("edit_0", {})
    ]


def _edited(run: Path, name: str) -> Iterator[Edited]:
    """Yield what each picture of a benchmark's first row shows."""
    config = json.loads((run / "config.json").read_text("utf-8"))
    (benchmark,) = (one for one in config["benchmarks"] if one["name"] == name)
    cached = CachedJudge(judge())
    for sample in benchmark["samples"]:
        requested = RequestedMotion.of(sample["overrides"]["edit_0"])
        own = cached.face(run / sample["people"][0]["reference"])
        for seed in sample["seeds"]:
            record = run / "pictures" / name / benchmark["variants"][0]["name"] / f"{sample['name']}-{seed}.json"
            for picture in json.loads(record.read_text("utf-8"))["pictures"]:
                path = record.with_name(picture)
                faces = cached.image(path).faces
                yield _shown(requested, own, max(faces, key=lambda face: face.box.area, default=None), path)


def _shown(requested: RequestedMotion, own: JudgedFace, face: JudgedFace | None, path: Path) -> Edited:
    if face is None:
        return Edited(requested, None, "", path)
    return Edited(requested, np.subtract(face.pose, own.pose), face.expression, path)


def _sources(results: Results) -> str:
    """Return the table of edits by the reference's expression: Expr and FaceSim by who says which it is."""
    rows = []
    for source in SOURCES:
        for row, measured in results.get(name_of_source(source), {}).items():
            cells = [_interval(measured[measure]) for measure in ("Expr", "FaceSim")]
            rows.append(f"| {source} | {row} | {' | '.join(cells)} |")
    return _table("Edits by the reference's expression", ("reference", "source_expression", "Expr", "FaceSim"), rows)


def _interval(measured: Mapping[str, Any]) -> str:
    return f"{measured['mean']:.3f} [{measured['low']:.3f}, {measured['high']:.3f}] {measured['n']}"


def _crosstalk(edited: Mapping[str, Sequence[Edited]]) -> str:
    """Return the matrix of degrees shown for each degree requested, beside R^2 of the angle that was requested."""
    rows = []
    for angle in ANGLES:
        shown = [one for one in edited.get(f"one person, turned by {angle}", []) if one.turned is not None]
        if len(shown) < 3:
            continue
        requested = [getattr(one.requested, angle) for one in shown]
        lines = {name: line_through(requested, [one.turned[i] for one in shown]) for i, name in enumerate(_POSE)}  # type: ignore[index]
        changed = np.mean([one.expression != "neutral" for one in shown])
        slopes = " | ".join(f"{lines[name][0]:.2f}" for name in ANGLES)
        rows.append(f"| {angle} | {slopes} | {lines[angle][1]:.3f} | {changed:.3f} | {len(shown)} |")
    columns = ("asked", *(f"{name} shown" for name in ANGLES), "R^2", "expression not neutral", "pictures")
    return _table("Degrees shown for each degree that is asked", columns, rows)


def _amounts(edited: Sequence[Edited]) -> str:
    """Return how often an expression is seen, and how far the head moves by itself, by the amount that is requested."""
    rows = []
    for low, high in QUARTERS:
        shown = [one for one in edited if low <= sum(one.requested.amounts.values()) < high]
        if not shown:
            continue
        seen = np.mean([one.expression in one.requested.amounts for one in shown])
        others = np.mean([one.expression not in (*one.requested.amounts, "neutral", "") for one in shown])
        moved = np.median([np.abs(one.turned).max() for one in shown if one.turned is not None] or [np.nan])
        rows.append(f"| {low:g} to {min(high, 1):g} | {seen:.3f} | {others:.3f} | {moved:.1f} | {len(shown)} |")
    columns = ("amount", "the expression is seen", "another one is", "the head moves by (median degrees)", "pictures")
    return _table("Expressions by amount", columns, rows)


def _read(edited: Sequence[Edited]) -> str:
    """Return how an expression's amount, read on the scale of `motion_amounts`, follows the one that is requested."""
    if not edited:
        return ""
    scale = AmountScale(judge())
    read: dict[str, list[tuple[float, float]]] = {name: [] for name in SHOWN}
    for one in edited:
        ((name, amount),) = one.requested.amounts.items()
        shown = scale.amount(read_image(one.path), name)
        if not np.isnan(shown):
            read[name].append((amount, shown))
    drawn, rendered = [pair for pairs in read.values() for pair in pairs], list(scale.of_rendered())
    rows = []
    for name, pairs in {**read, "all": drawn, "all, of rendered faces": rendered}.items():
        if len(pairs) > 2:
            slope, explained = line_through(*zip(*pairs, strict=True))
            rows.append(f"| {name} | {slope:.2f} | {explained:.3f} | {len(pairs)} |")
    return _table("Amount shown for each amount that is asked", ("expression", "slope", "R^2", "pictures"), rows)


def _mixed(edited: Sequence[Edited]) -> str:
    """Return what is seen of two expressions that were asked for at once."""
    rows = []
    for pair in sorted({tuple(sorted(one.requested.amounts)) for one in edited}):
        seen = [one.expression for one in edited if tuple(sorted(one.requested.amounts)) == pair]
        shares = [float(np.mean([name == expected for name in seen])) for expected in (*pair, "neutral")]
        shares.append(1 - sum(shares))
        rows.append(f"| {pair[0]} + {pair[1]} | {' | '.join(f'{share:.2f}' for share in shares)} | {len(seen)} |")
    return _table(
        "Two expressions at once, half of each", ("asked", "the first", "the second", "neutral", "other", "n"), rows
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[str]) -> str:
    if not rows:
        return ""
    return "\n".join(
        [f"### {title}", "", f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |", *rows]
    )
