"""A run's folder: images with the graph that drew each, and what was measured of them.

config.json     the run's configuration; references/ (the gallery's too), ground_truth/, templates/: its copies
pictures/<benchmark>/<variant>/<sample>-<seed>-<k>.png
pictures/<benchmark>/<variant>/<sample>-<seed>.json     the exact API graph, its digest, the names of its images
settings.json, values.json, results.json, tables.md, <benchmark>.png      see `report`
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ..files import atomic_path, sha256_of_file, write_atomically
from .config import Benchmark, EvaluationConfig, SampleSpec, Variant, load_config, write_config
from .fingerprints import digest
from .template import Graph

CONFIG = "config.json"


class Job(NamedTuple):
    """One graph to queue, by the names of its benchmark, its variant, and its sample and seed."""

    benchmark: str
    variant: str
    name: str

    @classmethod
    def of(cls, benchmark: Benchmark, variant: Variant, sample: SampleSpec, seed: int) -> "Job":
        return cls(benchmark.name, variant.name, f"{sample.name}-{seed}")

    def __str__(self) -> str:
        return ", ".join(self)


@dataclass(frozen=True)
class Record:
    """How the images of one graph came to be.

    Attributes:
        files: the digests of the configuration's files by name.
        texts: what nodes showed, by their ids; {} where an earlier version drew the images.
    """

    digest: str
    pictures: tuple[str, ...]
    graph: Graph
    files: dict[str, str]
    texts: dict[str, list[str]] = field(default_factory=dict)


class RunFolder:
    """The images under a run's folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def keep(
        self,
        job: Job,
        graph: Graph,
        files: dict[str, str],
        images: Sequence[bytes],
        texts: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        """Keep the images that a graph drew and what its nodes showed, replacing what was kept under that name.

        The record is written last and whole, so images whose drawing was cut short don't count.
        """
        record = self._record_path(job)
        record.parent.mkdir(parents=True, exist_ok=True)
        for path in self.images(job):
            path.unlink(missing_ok=True)
        kept_texts = {node: list(shown) for node, shown in texts.items()}
        names = tuple(f"{job.name}-{k}.png" for k in range(len(images)))
        for name, content in zip(names, images, strict=True):
            record.with_name(name).write_bytes(content)
        values = asdict(Record(graph_digest(graph, files), names, graph, files, kept_texts))
        write_atomically(record, json.dumps(values, indent=2) + "\n")

    def drop(self, job: Job) -> None:
        """Forget a job's images: without their record they don't count."""
        self._record_path(job).unlink(missing_ok=True)

    def keep_config(self, config: EvaluationConfig) -> None:
        """Keep the run's configuration. Nothing that another configuration drew may be left under its names."""
        write_config(config, self.folder / CONFIG)

    def record(self, job: Job) -> Record | None:
        """Return the record of a job's images; None when there are none, or not all of them."""
        path = self._record_path(job)
        if not path.is_file():
            return None
        record = Record(**json.loads(path.read_text("utf-8")))
        return record if all(path.with_name(name).is_file() for name in record.pictures) else None

    def digest(self, job: Job) -> str:
        """Return the digest of all that a job's images follow from; "" when there are none."""
        record = self.record(job)
        return "" if record is None else record.digest

    def images(self, job: Job) -> list[Path]:
        """Return a job's kept images, in the order in which the server saved them; [] when there are none."""
        record = self.record(job)
        return [] if record is None else [self._record_path(job).with_name(name) for name in record.pictures]

    def _record_path(self, job: Job) -> Path:
        return self.folder / "pictures" / job.benchmark / job.variant / f"{job.name}.json"


def graph_digest(graph: Graph, files: dict[str, str]) -> str:
    """Return the sha256 in hex of all that images follow from."""
    return digest({"graph": graph, "files": files})


def snapshot(config: EvaluationConfig, folder: Path) -> EvaluationConfig:
    """Copy a configuration's images and templates into a run's folder; return it with their new paths.

    The copies are named by their digests.
    """
    folder = folder.resolve()

    def copy(path: Path | None, subfolder: str = "references") -> Path | None:
        if path is None:
            return None
        kept = folder / subfolder / f"{sha256_of_file(path)[:16]}{path.suffix.lower()}"
        if not kept.exists():
            with atomic_path(kept) as part:
                shutil.copyfile(path, part)
        return kept

    benchmarks = []
    for benchmark in config.benchmarks:
        samples = []
        for sample in benchmark.samples:
            people = tuple(
                person.model_copy(update={"reference": copy(person.reference), "driver": copy(person.driver)})
                for person in sample.people
            )
            truth = copy(sample.ground_truth, "ground_truth")
            samples.append(sample.model_copy(update={"people": people, "ground_truth": truth}))
        changes = {"template": copy(benchmark.template, "templates"), "samples": tuple(samples)}
        benchmarks.append(benchmark.model_copy(update=changes))
    gallery = tuple(copy(path) for path in config.gallery)
    return config.model_copy(update={"benchmarks": tuple(benchmarks), "gallery": gallery})


def load_snapshot(folder: Path) -> EvaluationConfig:
    """Return the configuration of a run. Raises ValueError when the folder holds none."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no run: expected its {CONFIG}. Give the folder that `run --output` wrote to.")
    return load_config(folder / CONFIG)
