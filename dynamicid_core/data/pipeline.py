"""Build a set: analyze images, group them by person, select the best, write them. Go on where it was interrupted.

    OUT/shard-000000.tar ...  index.parquet  dropped.parquet  dropped.csv  coverage.png
    OUT/.work/settings.json   what the set is built with
    OUT/.work/analyses/       what the images show, by a digest of the settings and the files
    OUT/.work/samples/        each person's samples, by a digest of the settings and the analyses
    OUT/.work/done.json       what was written, and from what

Every file is written aside and moved, so a run that is killed anywhere leaves only whole files, and the next one goes
on with them. The same images and settings make the same bytes, however often the build was interrupted, whatever
executes it. `.work` takes about as much room as the shards; with it, a later build works on new and changed images
alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from ..files import write_atomically
from .analysis import to_json
from .executors import Executor, Task
from .optional import require
from .people import People
from .samples import read_samples
from .settings import BuildJob
from .sources import list_people, list_unsorted, listing_digest
from .writing import COVERAGE, INDEX, REJECTED, REJECTED_CSV, SHARDS, write_set

_SETTINGS, _DONE = "settings.json", "done.json"


@dataclass(frozen=True)
class Summary:
    """What a set holds: images, people, shards, how many images were rejected by reason; `fresh`: written just now."""

    images: int
    people: int
    shards: int
    rejected: dict[str, int]
    fresh: bool = True


def build(job: BuildJob, out: Path, execute: Executor, rebuild: bool = False) -> Summary:
    """Build a set in a folder, or finish building it.

    Args:
        execute: does the stages' tasks, see `executors`.
        rebuild: remove what an earlier build left in the folder.

    Raises:
        ValueError: no images, a folder in the wrong place, another build's settings, a file that isn't what it should
            be.
        ModuleNotFoundError: a package is missing; the message says which extra brings it.
    """
    settings, work = job.settings, out / ".work"
    _check_folders(job.source, out, rebuild)
    units = list_unsorted(job.source) if settings.unsorted else list_people(job.source)
    if rebuild:
        _remove_set(out)
    if (work / _SETTINGS).is_file():
        settings.require_same((work / _SETTINGS).read_bytes())
    else:
        write_atomically(work / _SETTINGS, settings.model_dump_json(indent=1))

    digest = _digest(settings.digest, listing_digest(units))
    finished = _finished(out, digest)
    if finished:
        return finished
    _require_packages(job)

    analyses, samples = work / "analyses", work / "samples"
    names = [f"{_digest(settings.digest, unit.digest)}.json" for unit in units]
    tasks = (Task(name, to_json(unit)) for name, unit in zip(names, units, strict=True))
    _execute_missing(execute, "analyze", analyses, tasks, len(units))
    people = People(units, [analyses / name for name in names], settings.merge_distance if settings.unsorted else None)
    files: list[Path] = []

    def selections() -> Iterator[Task]:
        for person in people:
            content = to_json(person)
            files.append(samples / f"{_digest(settings.digest, content)}.safetensors")
            yield Task(files[-1].name, content)

    _execute_missing(execute, "select", samples, selections(), len(people))

    (work / _DONE).unlink(missing_ok=True)
    new = work / "new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    bar = require("tqdm").tqdm(files, desc="write", unit="person", disable=None)
    selected = (read_samples(file.read_bytes()) for file in bar)
    rows, reasons = write_set(selected, people.rejected, new, settings.per_shard)
    sizes = _move(new, out)
    shards = sum(name.endswith(".tar") for name in sizes)
    summary = Summary(len(rows), len({row["person"] for row in rows}), shards, reasons)
    # last, a note that everything is there
    write_atomically(work / _DONE, json.dumps({"digest": digest, "files": sizes, "summary": asdict(summary)}, indent=1))
    _remove_others(work, {_SETTINGS, _DONE})
    _remove_others(analyses, set(names))
    _remove_others(samples, {file.name for file in files})
    return summary


def _execute_missing(execute: Executor, stage: str, folder: Path, tasks: Iterator[Task], count: int) -> None:
    """Execute the tasks whose results a folder lacks, and store them in it."""
    with require("tqdm").tqdm(total=count, desc=stage, unit="part", disable=None) as bar:

        def missing() -> Iterator[Task]:
            for task in tasks:
                if (folder / task.name).is_file():
                    bar.update()
                else:
                    yield task

        for name, content in execute(stage, missing()):
            write_atomically(folder / name, content)
            bar.update()


def _move(new: Path, out: Path) -> dict[str, int]:
    """Move finished files to their places, in place of an earlier build's. Return their names and sizes in bytes."""
    sizes = {path.name: path.stat().st_size for path in sorted(new.iterdir())}
    for name in sizes:
        (new / name).replace(out / name)
    for path in out.glob(SHARDS):
        if path.name not in sizes:
            path.unlink()
    new.rmdir()
    return sizes


def _finished(out: Path, digest: str) -> Summary | None:
    """Return the summary of the set in a folder, if it was written from the same and is whole."""
    if not (out / ".work" / _DONE).is_file():
        return None
    note = json.loads((out / ".work" / _DONE).read_bytes())
    whole = all((out / name).is_file() and (out / name).stat().st_size == size for name, size in note["files"].items())
    return Summary(**note["summary"] | {"fresh": False}) if whole and note["digest"] == digest else None


def _remove_others(folder: Path, names: Set[str]) -> None:
    """Remove the files of other names: of images that changed, or of runs that were cut short."""
    for path in folder.glob("*"):
        if path.is_file() and path.name not in names:
            path.unlink()


def _require_packages(job: BuildJob) -> None:
    """Say what is missing before hours of work, not after them."""
    modules = ["tqdm", "imagehash", "insightface", "onnxruntime", "webdataset", "pyarrow", "pyarrow.parquet"]
    modules += ["scipy.cluster.hierarchy"] * job.settings.unsorted + ["transformers"] * (job.adapter is not None)
    for module in modules:
        require(module)


def _check_folders(source: Path, out: Path, rebuild: bool) -> None:
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise ValueError(f"{out}: expected a folder outside of the source {source}. What is written there is read.")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: expected a folder to write to, this is a file. Give another place.")
    shards = [path.name for path in out.glob(SHARDS)] if out.is_dir() else []
    if shards and not (out / ".work" / _SETTINGS).is_file() and not rebuild:
        raise ValueError(
            f"{out}: it holds shards ({min(shards)}), and not what a build needs to go on (.work). Give another "
            "folder, or --rebuild to replace them."
        )


def _remove_set(out: Path) -> None:
    """Remove what a build writes, and nothing else."""
    shutil.rmtree(out / ".work", ignore_errors=True)
    for path in [*out.glob(SHARDS), *(out / name for name in (INDEX, REJECTED, REJECTED_CSV, COVERAGE))]:
        path.unlink(missing_ok=True)


def _digest(*parts: str) -> str:
    return sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:32]
