"""The results as text tables and as JSON."""

import json
import os
import platform
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .counting import FLOPS, VIEWS, Tally, computing
from .timing import Comparison, Quartiles

Row = dict[str, Any]
Counts = Counter[str]

_COUNT_HEADS = ("GFLOP without", "with", "ratio", "calls without", "added", "views without", "added")


def machine(host_version: str, dtype: torch.dtype) -> Row:
    """What the results depend on."""
    on_gpu = torch.cuda.is_available()
    return {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "comfyui": host_version,
    }


def device_name(facts: Row) -> str:
    """A file name for results of this machine's kind."""
    name = facts["gpu"] or f"cpu-{facts['threads']}-threads"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def time_row(size: str, people: int, comparison: Comparison) -> Row:
    ratio = comparison.ratio
    return {
        "size": size,
        "people": people,
        "seconds_without": Quartiles.of(comparison.base).median,
        "seconds_with": Quartiles.of(comparison.other).median,
        "ratio": ratio.median,
        "ratio_low_quartile": ratio.low,
        "ratio_high_quartile": ratio.high,
        "pairs_seconds": list(zip(comparison.base, comparison.other, strict=True)),
    }


def count_row(size: str, people: int, flops: tuple[Tally, Tally], calls: tuple[Tally, Tally]) -> Row:
    """Counts of one step; each pair of tallies is without people, with people."""
    totals = _counts(*(tally.total for tally in (*flops, *calls)))
    layers = [
        {"layer": name, "queries": layer.queries, "width": layer.width}
        | _counts(*(tally.layers[name].counts for tally in (*flops, *calls)))
        for name, layer in flops[0].layers.items()
    ]
    return {"size": size, "people": people, **totals, "layers": layers}


def _counts(flops: Counts, flops_with: Counts, calls: Counts, calls_with: Counts) -> Row:
    return {
        "flops_without": flops[FLOPS],
        "flops_with": flops_with[FLOPS],
        "calls_without": computing(calls),
        "calls_with": computing(calls_with),
        "views_without": calls[VIEWS],
        "views_with": calls_with[VIEWS],
    }


def text(results: Row) -> str:
    """Everything as tables."""
    facts = results["machine"]
    parts = [
        ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None),
        _title("Time of a step (one call of the UNet, guidance's two halves in one batch)"),
        "Ratio: median of the pairs, quartiles in brackets. 0 people: the unpatched model against itself, the noise.",
        _time_table(results["times"]),
        _title("Counted in a step"),
        "Calls: PyTorch operators that compute something; views: those that only reshape.",
        _count_table(results["counts"]),
        _title("Counted in each cross-attention layer"),
        _layer_table(results["counts"]),
        _title("Peak memory on the GPU during a step"),
        _memory_table(results["memory"]) if results["memory"] else "Skipped: PyTorch sees no CUDA GPU here.",
    ]
    return "\n".join(parts)


def write(results: Row, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _time_table(rows: Sequence[Row]) -> str:
    return _table(
        ("size", "people", "without", "with", "ratio"),
        [
            (
                row["size"],
                row["people"],
                _duration(row["seconds_without"]),
                _duration(row["seconds_with"]),
                f"{row['ratio']:.3f} [{row['ratio_low_quartile']:.3f}, {row['ratio_high_quartile']:.3f}]",
            )
            for row in rows
        ],
    )


def _count_table(rows: Sequence[Row]) -> str:
    return _table(
        ("size", "people", *_COUNT_HEADS),
        [(row["size"], row["people"], *_count_cells(row)) for row in rows],
    )


def _layer_table(rows: Sequence[Row]) -> str:
    """Layers of the same grid and width have the same counts, and share a line."""
    lines = []
    for row in rows:
        alike = Counter((layer["queries"], layer["width"], *_count_cells(layer)) for layer in row["layers"])
        lines += [(row["size"], row["people"], times, *cells) for cells, times in alike.items()]
    return _table(("size", "people", "layers", "queries", "width", *_COUNT_HEADS), lines)


def _count_cells(counts: Row) -> tuple[Any, ...]:
    return (
        f"{counts['flops_without'] / 1e9:.3f}",
        f"{counts['flops_with'] / 1e9:.3f}",
        f"{counts['flops_with'] / counts['flops_without']:.5f}",
        counts["calls_without"],
        counts["calls_with"] - counts["calls_without"],
        counts["views_without"],
        counts["views_with"] - counts["views_without"],
    )


def _memory_table(rows: Sequence[Row]) -> str:
    return _table(
        ("size", "people", "MiB without", "MiB with", "MiB added"),
        [
            (
                row["size"],
                row["people"],
                *(f"{size / 2**20:.2f}" for size in (row["without"], row["with"], row["with"] - row["without"])),
            )
            for row in rows
        ],
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [[str(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _title(words: str) -> str:
    return f"\n{words}\n{'-' * len(words)}"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms"


def _cpu_name() -> str:
    """The processor's model where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return f"{found[1]} ({os.cpu_count()} logical cores)"
    return f"{platform.processor() or platform.machine()} ({os.cpu_count()} logical cores)"
