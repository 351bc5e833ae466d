"""The results of the miniature's evaluation, kept beside it: numbers, tables and a grid of images for each table."""

import json
import re
from dataclasses import asdict
from pathlib import Path

from .core import RESULTS, markdown, read_results, write_atomically
from .figures import write_webp

TABLES = "<!-- made by `python -m mini results`: tables -->"
"""In RESULTS.md; what is above is written by hand, what is below by `keep_results`."""


def keep_results(run: Path, folder: Path) -> Path:
    """Keep a run's results in `folder`: results.json, the tables of RESULTS.md, pictures/results-<table>.webp.

    Tables that the run does not have stay as they were kept: benchmarks do not depend on each other, and may be drawn
    one after another.

    Args:
        run: what `python -m dynamicid_core.evaluation run --output` wrote.

    Returns RESULTS.md's path. Raises ValueError when the run has not been measured.
    """
    measured = read_results(run)
    for name in measured:
        picture = folder / _picture(name)
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_webp(run / f"{name}.png", picture)
    results = {**(read_results(folder) if (folder / RESULTS).is_file() else {}), **measured}
    write_atomically(folder / RESULTS, json.dumps(results, indent=2, default=asdict) + "\n")
    tables = markdown(results)
    for name in results:
        grid = f"![{name}: one row of pictures for each row of the table]({_picture(name).as_posix()})"
        tables = tables.replace(f"### {name}\n", f"### {name}\n\n{grid}\n", 1)
    path = folder / "RESULTS.md"
    above = path.read_text("utf-8").split(TABLES)[0] if path.exists() else "# Results\n\n"
    path.write_text(f"{above}{TABLES}\n\n{tables}", "utf-8")
    return path


def _picture(name: str) -> Path:
    """Return where a benchmark's grid is kept, from the miniature's folder."""
    slug = re.sub(r"\W+", "-", name).strip("-")
    return Path("pictures") / f"results-{slug}.webp"
