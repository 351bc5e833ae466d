"""A set built: looked through, people told apart, chosen, written; where it was interrupted it goes on.

    OUT/shard-000000.tar ...  index.parquet  dropped.parquet  dropped.csv  coverage.png
    OUT/.work/settings.json   what the set is built with
    OUT/.work/seen/           what was seen in each person's pictures, by a digest of the settings and the files
    OUT/.work/people/         each person's chosen pictures, by a digest of what was seen
    OUT/.work/done.json       what was written, and from what

Every file is written aside and moved, so a run that is killed anywhere leaves only whole pieces, and the next one goes
on with them. The same pictures and settings make the same bytes, however often it was interrupted, whoever does the
work. `.work` takes about as much room as the shards; with it, a later build works on new and changed pictures alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from . import settle, write
from .optional import needed
from .people import People
from .settings import Job, Settings
from .sources import Unit, list_people, list_unsorted, listing_digest
from .store import Store
from .work import Task, Work

_SETTINGS, _DONE = "settings.json", "done.json"


@dataclass(frozen=True)
class Summary:
    """What a set holds: pictures, people, shards, how many were left out by reason; `fresh`: written just now."""

    pictures: int
    people: int
    shards: int
    dropped: dict[str, int]
    fresh: bool = True


def build(job: Job, out: Path, work: Work, rebuild: bool = False) -> Summary:
    """Builds, or finishes building, a set in a folder.

    Args:
        work: does the stages' tasks, see `work.own_hand` and `on_ray.hands_on_ray`.
        rebuild: throw away what an earlier build left in the folder.

    Raises:
        ValueError: no pictures, a folder in the wrong place, another build's settings, a file that isn't what it should
            be.
        ModuleNotFoundError: a package is missing; the message says which extra brings it.
    """
    root, kept = Path(job.source), Store(out / ".work")
    _check_places(root, out, kept, rebuild)
    units = list_unsorted(root) if job.settings.unsorted else list_people(root)
    if rebuild:
        _throw_away(out, kept)
    if kept.has(_SETTINGS):
        job.settings.refuse_others(kept.get(_SETTINGS).decode("utf-8", "replace"))
    else:
        kept.put(_SETTINGS, job.settings.text().encode())

    digest = _digest(job.settings.digest, listing_digest(units))
    before = _finished(out, kept, digest)
    if before:
        return before
    _check_packages(job)

    seen, settled = Store(kept.folder / "seen"), Store(kept.folder / "people")
    names = [f"{_digest(job.settings.digest, unit.digest)}.json" for unit in units]
    _fill(seen, work, "examine", map(_examination, units, names), len(units))
    people = People(units, seen, names, job.settings.apart if job.settings.unsorted else None)
    tasks: list[str] = []
    _fill(settled, work, "settle", _settling(people, job.settings, tasks), len(people))

    (kept.folder / _DONE).unlink(missing_ok=True)
    new = kept.folder / "new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    bar = needed("tqdm").tqdm(tasks, desc="write", unit="person", disable=None)
    persons = (settle.from_bytes(settled.get(name)) for name in bar)
    rows, dropped = write.write_set(persons, people.dropped, new, job.settings.per_shard)
    files = _move(new, out)
    shards = sum(name.endswith(".tar") for name in files)
    summary = Summary(len(rows), len({row["person"] for row in rows}), shards, write.by_reason(dropped))
    # last, a note that says that all is there
    note = {"digest": digest, "files": files, "summary": asdict(summary)}
    kept.put(_DONE, json.dumps(note, indent=1).encode())
    for store, wanted in ((kept, {_SETTINGS, _DONE}), (seen, set(names)), (settled, set(tasks))):
        store.keep_only(wanted)
    return summary


def _settling(people: People, settings: Settings, names: list[str]) -> Iterator[Task]:
    """A task for each person; its name is added to the list."""
    for person in people:
        content = json.dumps({"person": person.name, "seen": [asdict(picture) for picture in person.seen]})
        names.append(f"{_digest(settings.digest, content)}.tar")
        yield Task(names[-1], content)


def _examination(unit: Unit, name: str) -> Task:
    return Task(name, json.dumps({"sources": [asdict(source) for source in unit.sources]}))


def _fill(store: Store, work: Work, stage: str, tasks: Iterator[Task], count: int) -> None:
    """Has the tasks done whose outcome the store lacks."""
    with needed("tqdm").tqdm(total=count, desc=stage, unit="part", disable=None) as bar:

        def missing() -> Iterator[Task]:
            for task in tasks:
                if store.has(task.name):
                    bar.update()
                else:
                    yield task

        for name, content in work(stage, missing()):
            store.put(name, content)
            bar.update()


def _move(new: Path, out: Path) -> dict[str, int]:
    """Brings finished files to their places, in place of an earlier build's; their names and sizes."""
    files = {path.name: path.stat().st_size for path in sorted(new.iterdir())}
    for name in files:
        os.replace(new / name, out / name)
    for path in out.glob(write.SHARDS):
        if path.name not in files:
            path.unlink()
    new.rmdir()
    return files


def _finished(out: Path, kept: Store, digest: str) -> Summary | None:
    """The summary of what lies there, when it was written from the same and is whole."""
    if not kept.has(_DONE):
        return None
    note = json.loads(kept.get(_DONE))
    whole = all((out / name).is_file() and (out / name).stat().st_size == size for name, size in note["files"].items())
    if note["digest"] != digest or not whole:
        return None
    return Summary(**note["summary"] | {"fresh": False})


def _check_packages(job: Job) -> None:
    """Says what is missing before hours of work, not after them."""
    wanted = ["tqdm", "imagehash", "insightface", "onnxruntime", "webdataset", "pyarrow", "pyarrow.parquet"]
    wanted += ["scipy.cluster.hierarchy"] * job.settings.unsorted + ["transformers"] * bool(job.adapter)
    for name in wanted:
        needed(name)


def _check_places(root: Path, out: Path, kept: Store, rebuild: bool) -> None:
    if out.resolve() == root.resolve() or root.resolve() in out.resolve().parents:
        raise ValueError(f"{out}: expected a folder outside of the source {root}. What is written there would be read.")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: expected a folder to write to, this is a file. Give another place.")
    others = [path.name for path in out.glob(write.SHARDS)] if out.is_dir() else []
    if others and not kept.has(_SETTINGS) and not rebuild:
        raise ValueError(
            f"{out}: it holds shards ({min(others)}), and not what a build needs to go on (.work). Give another "
            "folder, or --rebuild to replace them."
        )


def _throw_away(out: Path, kept: Store) -> None:
    """Removes what a build writes, and nothing else."""
    shutil.rmtree(kept.folder, ignore_errors=True)
    for path in [*out.glob(write.SHARDS), *(out / n for n in (write.INDEX, write.DROPPED, write.DROPPED_TEXT))]:
        path.unlink(missing_ok=True)
    (out / write.COVERAGE).unlink(missing_ok=True)


def _digest(*parts: str) -> str:
    return sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:32]
