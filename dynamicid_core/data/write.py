"""The set as it is read: WebDataset shards, an index of the pictures in Parquet, a table of those left out."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .choose import Cell
from .coverage import coverage_picture
from .examine import Dropped
from .optional import needed
from .settings import REASONS
from .settle import Row, Settled, shown

INDEX, DROPPED, DROPPED_TEXT, COVERAGE, SHARD = (
    "index.parquet", "dropped.parquet", "dropped.csv", "coverage.png", "shard-{:06d}.tar",
)  # fmt: skip
SHARDS = "shard-*.tar"
_TEXTS = ("shard", "key", "person", "source", "prompt", "expression", "expression_from", "yaw_bin", "hash")
_NUMBERS = ("pitch", "yaw", "roll", "score", "face_side", "sharpness", "quality", "likeness")


def write_set(
    people: Iterable[Settled], dropped: Iterable[tuple[str, Dropped]], folder: Path, per_shard: int
) -> tuple[list[Row], list[Dropped]]:
    """Writes everything that a set is, and gives the index's rows and all pictures that were left out.

    Args:
        dropped: (person, picture) of those whom the people say nothing of.
    """
    rows: list[Row] = []
    others = list(dropped)

    def with_pictures() -> Iterator[Settled]:
        for person in people:
            others.extend((person.person, picture) for picture in person.dropped)
            if person.rows:
                yield person

    for written in write_shards(with_pictures(), folder, per_shard):
        rows += written
    others.sort(key=lambda known: (known[0], known[1].source))
    write_index(rows, folder / INDEX)
    write_dropped(others, folder)
    write_coverage(rows, folder / COVERAGE)
    return rows, [picture for _, picture in others]


def write_shards(people: Iterable[Settled], folder: Path, per_shard: int) -> Iterator[list[Row]]:
    """Writes people's pictures, and gives each person's rows with `shard` and `key` added.

    A person is in one shard alone, so that one person's set is read together. The same people make the same bytes.
    Keys are PERSON-PICTURE, both counted from 0.
    """
    shard, held = -1, 0
    with ExitStack() as opened:
        for number, person in enumerate(people):
            if shard < 0 or (held and held + len(person.files) > per_shard):
                opened.close()
                shard, held = shard + 1, 0
                # webdataset's writer, with nothing of the time or the user in what it writes
                stream = opened.enter_context((folder / SHARD.format(shard)).open("wb"))
                writer = needed("webdataset").TarWriter(stream, encoder=False, mtime=0, user="", group="", mode=0o644)
                opened.enter_context(writer)
            rows = []
            for i, (row, files) in enumerate(zip(person.rows, person.files, strict=True)):
                key = f"{number:06d}-{i:05d}"
                writer.write({"__key__": key, **files})
                rows.append({"shard": SHARD.format(shard), "key": key, **row})
            held += len(rows)
            yield rows


def write_index(rows: Sequence[Row], path: Path) -> None:
    """One row for each kept picture, in the order of the shards."""
    pa = needed("pyarrow")
    fields = [(name, pa.string()) for name in _TEXTS] + [(name, pa.float32()) for name in _NUMBERS]
    fields += [("box", pa.list_(pa.float32(), 4)), ("square", pa.list_(pa.int32(), 3))]
    _write_parquet(rows, pa.schema(fields), path)


def write_dropped(dropped: Sequence[tuple[str, Dropped]], folder: Path) -> None:
    """One row for each picture that was left out: the person ("" where unknown), the source, the reason, a detail."""
    rows = [
        {"person": shown(person), "source": shown(d.source), "reason": d.reason, "detail": shown(d.detail)}
        for person, d in dropped
    ]
    pa = needed("pyarrow")
    names = ("person", "source", "reason", "detail")
    _write_parquet(rows, pa.schema([(name, pa.string()) for name in names]), folder / DROPPED)
    with (folder / DROPPED_TEXT).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def write_coverage(rows: Sequence[Row], path: Path) -> None:
    """The picture of how many pictures show what."""
    counts: Counter[Cell] = Counter((row["expression"], row["yaw_bin"]) for row in rows)
    people = len({row["person"] for row in rows})
    coverage_picture(counts, f"{len(rows)} pictures of {people} people").save(path)


def by_reason(dropped: Iterable[Dropped]) -> dict[str, int]:
    """How many pictures were left out for each reason, in the order of REASONS, those that occur."""
    counts = Counter(d.reason for d in dropped)
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def _write_parquet(rows: Sequence[Row], schema: Any, path: Path) -> None:
    pa = needed("pyarrow")
    needed("pyarrow.parquet").write_table(pa.Table.from_pylist(list(rows), schema), path)
