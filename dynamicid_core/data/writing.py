"""The set as it is read: WebDataset shards, an index of the samples in Parquet, a table of the rejected images."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .analysis import Rejected
from .coverage import coverage_image
from .optional import require
from .samples import Row, SelectedPerson
from .settings import REASONS
from .sources import printable

INDEX, REJECTED, REJECTED_CSV, COVERAGE = "index.parquet", "dropped.parquet", "dropped.csv", "coverage.png"
_SHARD, SHARDS = "shard-{:06d}.tar", "shard-*.tar"
_TEXTS = ("shard", "key", "person", "source", "prompt", "expression", "expression_from", "yaw_bin", "hash")
_NUMBERS = ("pitch", "yaw", "roll", "score", "face_side", "sharpness", "quality", "likeness")
_REJECTED_COLUMNS = ("person", "source", "reason", "detail")


def write_set(
    people: Iterable[SelectedPerson], rejected: Iterable[tuple[str, Rejected]], folder: Path, per_shard: int
) -> tuple[list[Row], dict[str, int]]:
    """Write all files of a set. The same people make the same bytes.

    A person is in one shard alone, so that one person's samples are read together. Keys are PERSON-IMAGE, both counted
    from 0.

    Args:
        rejected: (person, image) that no person says of itself.

    Returns:
        The index's rows, with `shard` and `key`, and how many images were rejected for each reason.
    """
    rows: list[Row] = []
    others = list(rejected)
    shard, held, number = -1, 0, 0  # the open shard, its samples, people that were written
    with ExitStack() as opened:
        for person in people:
            others += [(person.name, image) for image in person.rejected]
            if not person.rows:
                continue
            if shard < 0 or held + len(person.rows) > per_shard:
                opened.close()
                shard, held = shard + 1, 0
                stream = opened.enter_context((folder / _SHARD.format(shard)).open("wb"))
                # without the time and the user, which would make other bytes
                writer = require("webdataset").TarWriter(stream, encoder=False, mtime=0, user="", group="", mode=0o644)
                opened.enter_context(writer)
            for i, (row, files) in enumerate(zip(person.rows, person.files, strict=True)):
                key = f"{number:06d}-{i:05d}"
                writer.write({"__key__": key, **files})
                rows.append({"shard": _SHARD.format(shard), "key": key, **row})
            held, number = held + len(person.rows), number + 1
    _write_index(rows, folder / INDEX)
    _write_rejected(others, folder)
    coverage = Counter((row["expression"], row["yaw_bin"]) for row in rows)
    people_count = len({row["person"] for row in rows})
    coverage_image(coverage, f"{len(rows)} pictures of {people_count} people").save(folder / COVERAGE)
    counts = Counter(image.reason for _, image in others)
    return rows, {reason: counts[reason] for reason in REASONS if counts[reason]}


def _write_index(rows: Sequence[Row], path: Path) -> None:
    """Write one row for each sample, in the order of the shards."""
    pa = require("pyarrow")
    fields = [(name, pa.string()) for name in _TEXTS] + [(name, pa.float32()) for name in _NUMBERS]
    fields += [("box", pa.list_(pa.float32(), 4)), ("square", pa.list_(pa.int32(), 3))]
    _write_parquet(rows, pa.schema(fields), path)


def _write_rejected(rejected: Sequence[tuple[str, Rejected]], folder: Path) -> None:
    """Write one row for each rejected image: the person ("" where unknown), the source, the reason, a detail."""
    texts = sorted(((person, d.source, d.reason, d.detail) for person, d in rejected), key=lambda row: row[:2])
    rows = [dict(zip(_REJECTED_COLUMNS, map(printable, row), strict=True)) for row in texts]
    pa = require("pyarrow")
    _write_parquet(rows, pa.schema([(name, pa.string()) for name in _REJECTED_COLUMNS]), folder / REJECTED)
    with (folder / REJECTED_CSV).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, _REJECTED_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _write_parquet(rows: Sequence[Row], schema: Any, path: Path) -> None:
    pa = require("pyarrow")
    require("pyarrow.parquet").write_table(pa.Table.from_pylist(list(rows), schema), path)
