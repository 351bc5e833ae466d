"""A run's folder: pictures with the graph that drew each, and what was measured of them.

config.json                             what the run was told; references/ (the gallery's too), templates/: its copies
pictures/<table>/<row>/<sample>-<seed>-<k>.png
pictures/<table>/<row>/<sample>-<seed>.json     the exact API graph, its digest, the names of its pictures
settings.json, values.json, results.json, tables.md, <table>.png      see `report`
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .config import Cell, Config, Person, Sample, Table
from .config_file import read_config, write_config
from .fingerprints import digest, file_fingerprint
from .template import Graph

CONFIG = "config.json"


@dataclass(frozen=True)
class Record:
    """How the pictures of one graph came to be; `files` are fingerprints of the configuration's files by name."""

    digest: str
    pictures: tuple[str, ...]
    graph: Graph
    files: dict[str, str]


class Store:
    """The pictures under a run's folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def keep(
        self, table: str, cell: str, name: str, graph: Graph, files: dict[str, str], data: Sequence[bytes]
    ) -> None:
        """Keep the pictures that a graph drew, in place of what was kept under that name.

        The record is written last and whole, so that pictures whose drawing was cut short are none.
        """
        place = self._place(table, cell)
        place.mkdir(parents=True, exist_ok=True)
        for path in self.pictures(table, cell, name):
            path.unlink(missing_ok=True)
        names = [f"{name}-{k}.png" for k in range(len(data))]
        for picture, content in zip(names, data, strict=True):
            (place / picture).write_bytes(content)
        said = {"digest": graph_digest(graph, files), "pictures": names, "graph": graph, "files": files}
        write_whole(place / f"{name}.json", json.dumps(said, indent=2) + "\n")

    def drop(self, table: str, cell: str, name: str) -> None:
        """Forget pictures: without their record they are none."""
        (self._place(table, cell) / f"{name}.json").unlink(missing_ok=True)

    def keep_config(self, config: Config) -> None:
        """Keep what the run is told. Nothing that another configuration drew may be left under its names."""
        write_config(config, self.folder / CONFIG)

    def record(self, table: str, cell: str, name: str) -> Record | None:
        """What is known of kept pictures; None when there are none, or not all of them."""
        path = self._place(table, cell) / f"{name}.json"
        if not path.is_file():
            return None
        said: dict[str, Any] = json.loads(path.read_text("utf-8"))
        whole = all((path.parent / picture).is_file() for picture in said["pictures"])
        return Record(said["digest"], tuple(said["pictures"]), said["graph"], said["files"]) if whole else None

    def pictures(self, table: str, cell: str, name: str) -> list[Path]:
        """The kept pictures of one graph, in the order in which the server saved them; [] when there are none."""
        record = self.record(table, cell, name)
        return [] if record is None else [self._place(table, cell) / picture for picture in record.pictures]

    def _place(self, table: str, cell: str) -> Path:
        return self.folder / "pictures" / table / cell


def job_name(sample: Sample, seed: int) -> str:
    """What the pictures of a sample and a seed are called."""
    return f"{sample.name}-{seed}"


def jobs(table: Table) -> list[tuple[Cell, Sample, int]]:
    """All that a table draws: seed by seed, so that rows grow alike."""
    return [(cell, sample, seed) for sample in table.samples for seed in sample.seeds for cell in table.cells]


def graph_digest(graph: Graph, files: dict[str, str]) -> str:
    """64 hex digits of all that pictures follow from."""
    return digest({"graph": graph, "files": files})


def adopted(config: Config, folder: Path) -> Config:
    """The configuration with its references, gallery and templates copied into a run's folder, under their digests."""
    folder = folder.resolve()

    def copy(path: Path, where: str) -> Path:
        kept = folder / where / f"{file_fingerprint(path)[:16]}{path.suffix.lower()}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not kept.exists():
            shutil.copyfile(path, kept)
        return kept

    def person(said: Person) -> Person:
        reference, driver = (path and copy(path, "references") for path in (said.reference, said.driver))
        return replace(said, reference=reference, driver=driver)

    def sample(said: Sample) -> Sample:
        return replace(said, people=tuple(map(person, said.people)))

    tables = tuple(
        replace(table, template=copy(table.template, "templates"), samples=tuple(map(sample, table.samples)))
        for table in config.tables
    )
    return replace(config, tables=tables, gallery=tuple(copy(path, "references") for path in config.gallery))


def kept_config(folder: Path) -> Config:
    """The configuration of a run. Raises ValueError when the folder holds none."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no run: expected its {CONFIG}. Give the folder that `run --output` wrote to.")
    return read_config(folder / CONFIG)


def write_whole(path: Path, text: str) -> None:
    """Write a file aside and move it to its place: a kill leaves no half of it there."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(text, "utf-8")
    part.replace(path)
