"""The results of the miniature's evaluation, kept beside it: numbers, tables and a grid of images for each table."""

import json
import re
import shutil
from pathlib import Path

from .figures import write_webp

TABLES = "<!-- made by `python -m mini results`: tables -->"
"""In RESULTS.md; what is above is written by hand, what is below by `keep_results`."""


def keep_results(run: Path, folder: Path) -> Path:
    """Copy a run's results to `folder`: results.json, the tables of RESULTS.md, pictures/results-<table>.webp.

    Args:
        run: what `python -m dynamicid_core.evaluation run --output` wrote.

    Returns RESULTS.md's path. Raises ValueError when the run has not been measured.
    """
    if not (run / "results.json").is_file():
        raise ValueError(f"{run} holds no results.json: measure it with python -m dynamicid_core.evaluation first.")
    shutil.copyfile(run / "results.json", folder / "results.json")
    tables = (run / "tables.md").read_text("utf-8")
    for name in json.loads((run / "results.json").read_text("utf-8")):
        picture = Path("pictures") / f"results-{_slug(name)}.webp"
        (folder / picture).parent.mkdir(parents=True, exist_ok=True)
        write_webp(run / f"{name}.png", folder / picture)
        heading = f"### {name}\n\n![{name}: one row of pictures for each row of the table]({picture.as_posix()})\n"
        tables = tables.replace(f"### {name}\n", heading, 1)
    path = folder / "RESULTS.md"
    above = path.read_text("utf-8").split(TABLES)[0] if path.exists() else "# Results\n\n"
    path.write_text(f"{above}{TABLES}\n\n{tables}", "utf-8")
    return path


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-")
