"""What a kill leaves beside a file that was being written: removed by whoever comes next, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dynamicid_pack.dynamicid_core.files import atomic_path, remove_stale_parts
from dynamicid_pack.tests.support import ROOT

_WRITE = """
import pathlib, sys, time
from dynamicid_core.files import atomic_path

with atomic_path(pathlib.Path(sys.argv[1])) as part:
    part.write_bytes(b"a face" * 100)
    print(part, flush=True)
    time.sleep(60)
"""


class Writer:
    """A process in the middle of a write."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", _WRITE, str(path)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.part = Path(self._process.stdout.readline().strip())
        assert self.part.read_bytes() == b"a face" * 100

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writing = Writer(tmp_path / "friends" / "ana.safetensors")
    yield writing
    writing.kill()


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_killed_writers_part_is_removed_and_a_living_ones_stays(writer: Writer, tmp_path: Path) -> None:
    remove_stale_parts(tmp_path, ".safetensors")
    assert writer.part.exists(), "it is still written to"
    writer.kill()
    assert writer.part.exists(), "a kill removes nothing"
    remove_stale_parts(tmp_path, ".safetensors")
    assert left(tmp_path) == set()


def test_what_is_not_ours_or_not_stale_stays(tmp_path: Path) -> None:
    names = ("ana.safetensors", "notes.part", "ana.part", "report.txt.12.part", "ana.safetensors.part")
    for name in names:
        (tmp_path / name).touch()
    elsewhere = tmp_path / "bob.safetensors.another-machine-12.part"
    elsewhere.touch()
    with atomic_path(tmp_path / "carl.safetensors") as part:
        part.touch()
        remove_stale_parts(tmp_path, ".safetensors")
        assert left(tmp_path) == {*names, elsewhere.name, part.name}
    remove_stale_parts(tmp_path / "missing", ".safetensors")


def test_parts_of_another_machine_or_version_go_after_a_day(tmp_path: Path) -> None:
    for name in ("bob.safetensors.another-machine-12.part", "carl.safetensors.12.part"):
        (tmp_path / name).touch()
        yesterday = (tmp_path / name).stat().st_mtime - 25 * 3600
        os.utime(tmp_path / name, (yesterday, yesterday))
    remove_stale_parts(tmp_path, ".safetensors")
    assert left(tmp_path) == set()


def test_in_a_container_the_number_is_the_same_after_a_restart(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "ana.safetensors") as part:
        part.write_bytes(b"a face")
    part.write_bytes(b"a face")  # as an earlier process of the same number left it
    remove_stale_parts(tmp_path, ".safetensors")
    assert left(tmp_path) == {"ana.safetensors"}
