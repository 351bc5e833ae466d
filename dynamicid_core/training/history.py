"""losses.csv, the losses of every step of a training, and their means over several steps."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from ..files import write_atomically

LOSSES = "losses.csv"
History = list[tuple[int, dict[str, float]]]
"""Steps and named losses: each a mean over the steps since the entry before."""


class LossTable:
    """losses.csv, to which each step adds a row. The first row's losses name the columns; a later row may lack some."""

    def __init__(self, path: Path, step: int) -> None:
        """Keep the rows up to `step`, written whole before anything is added: a kill loses none of them."""
        rows: list[list[str]] = []
        if path.is_file():
            with path.open(newline="") as file:
                rows = [row for row in csv.reader(file) if row and (row[0] == "step" or int(row[0]) <= step)]
        kept = io.StringIO()
        csv.writer(kept).writerows(rows)
        write_atomically(path, kept.getvalue())
        self._columns = rows[0] if rows else []
        self._file = path.open("a", newline="")

    def append(self, step: int, losses: Mapping[str, float]) -> None:
        writer = csv.writer(self._file)
        if not self._columns:
            self._columns = ["step", *losses]
            writer.writerow(self._columns)
        values = {"step": str(step), **{name: f"{loss:.8g}" for name, loss in losses.items()}}
        writer.writerow([values.get(name, "") for name in self._columns])
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_losses(path: Path, every: int) -> History:
    """Return mean losses over each `every` steps; steps at the end that are fewer are left out."""
    with path.open(newline="") as file:
        rows = [{name: float(loss) for name, loss in row.items() if loss} for row in csv.DictReader(file)]
    history: History = []
    for number, group in itertools.groupby(rows, lambda row: -(-int(row["step"]) // every)):
        window = list(group)
        if window[-1]["step"] == number * every:
            names = dict.fromkeys(name for row in window for name in row if name != "step")
            means = {name: fmean(row[name] for row in window if name in row) for name in names}
            history.append((number * every, means))
    return history
