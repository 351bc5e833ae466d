"""losses.csv, the losses of every step of a training, and their means over several steps."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from ..files import write_atomically

LOSSES = "losses.csv"
History = Sequence[tuple[int, dict[str, float]]]
"""Steps and named losses: each a mean over the steps since the entry before."""


class LossTable:
    """losses.csv, to which each step adds a row. The first row's losses name the columns; a later row may lack some."""

    def __init__(self, path: Path, step: int, before: History = ()) -> None:
        """Keep the rows up to `step`, written whole before anything is added: a kill loses none of them.

        A row that a kill cut short is left out. Where no row is left, the table begins with `before`.
        """
        rows = _whole_rows(path)
        rows = rows[:1] + [row for row in rows[1:] if int(row[0]) <= step]
        if len(rows) < 2 and before:
            rows = [["step", *before[0][1]]]
            rows += [_row(rows[0], earlier, losses) for earlier, losses in before]
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
        writer.writerow(_row(self._columns, step, losses))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _row(columns: Sequence[str], step: int, losses: Mapping[str, float]) -> list[str]:
    values = {"step": str(step), **{name: f"{loss:.8g}" for name, loss in losses.items()}}
    return [values.get(name, "") for name in columns]


def _whole_rows(path: Path) -> list[list[str]]:
    """Return the columns' names and the rows that have all of them; nothing where there are none or no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.reader(line for line in file if line.endswith("\n")))
    columns = rows[0] if rows and rows[0][:1] == ["step"] else []
    return [columns, *(row for row in rows[1:] if len(row) == len(columns))] if columns else []


def read_losses(path: Path, every: int) -> History:
    """Return mean losses over each `every` steps; steps at the end that are fewer are left out."""
    with path.open(newline="") as file:
        rows = [{name: float(loss) for name, loss in row.items() if loss} for row in csv.DictReader(file)]
    history: list[tuple[int, dict[str, float]]] = []
    for number, group in itertools.groupby(rows, lambda row: -(-int(row["step"]) // every)):
        window = list(group)
        if window[-1]["step"] == number * every:
            names = dict.fromkeys(name for row in window for name in row if name != "step")
            means = {name: fmean(row[name] for row in window if name in row) for name in names}
            history.append((number * every, means))
    return history
