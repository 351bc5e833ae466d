"""A build that is cut short anywhere goes on to the same bytes; one that is done does nothing; another is refused."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from dynamicid_pack.dynamicid_core.data.executors import Executor, local_executor
from dynamicid_pack.dynamicid_core.data.pipeline import build
from dynamicid_pack.dynamicid_core.data.settings import RENAMED, BuildSettings
from dynamicid_pack.tests.data.conftest import Built
from dynamicid_pack.tests.data.drawn import FACE_PACK, SETTINGS, built, changed, contents, counted, draw_person, job
from dynamicid_pack.tests.support import ROOT
from pyarrow import parquet

pytestmark = pytest.mark.train  # a build runs the miniature's networks for seconds


class Killed(BaseException):
    """As little handled as a kill."""


@pytest.fixture(scope="module")
def execute(finished: Built) -> Executor:
    """An executor whose networks are loaded once."""
    return local_executor(job(finished.source))


def _idle(stage: str, tasks: Iterator) -> Iterator:
    raise AssertionError(f"{stage} was asked for {[task.name for task in tasks]}")


WHEN = ("before the move", "in the middle of a write", "after the move")
FOLDERS = (("analyses", ".json"), ("samples", ".safetensors"))


def _build_with_kills(
    finished: Built, out: Path, execute: Executor, monkeypatch: pytest.MonkeyPatch, when: str, kills: Iterable[int]
) -> list[tuple[int, ...]]:
    """Build a set in several runs. Each is killed at a file that it brings to its place, until one is not.

    In order these are the settings, each person's analysis, each person's samples, each file of the set.

    Args:
        kills: for each run, which of its files it is killed at, counted from 1.

    Returns:
        How many analyses, people's samples and files of the set there are after each kill.
    """
    moved, allowed, replace_file = 0, 0, os.replace

    def fragile(source: Path, target: Path) -> None:
        nonlocal moved
        moved += 1
        if moved < allowed:
            return replace_file(source, target)
        if when == "in the middle of a write":
            half = Path(source).read_bytes()[: Path(source).stat().st_size // 2]
            for part in (source, f"{source}.part"):  # the second stays, as after a kill, which no `finally` follows
                Path(part).write_bytes(half)
        if when == "after the move":
            replace_file(source, target)
        raise Killed

    killed_at: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "replace", fragile)
    for allowed in kills:  # noqa: B007 (`fragile` reads it)
        moved = 0
        try:
            build(job(finished.source), out, execute)
            break
        except Killed:
            done = [len(list((out / ".work" / name).glob(f"*{ending}"))) for name, ending in FOLDERS]
            killed_at.append((*done, len(contents(out))))
    else:
        pytest.fail("never finished")
    monkeypatch.undo()
    assert contents(out) == contents(finished.out)
    assert not list((out / ".work").rglob("*.part"))
    return killed_at


def test_a_kill_in_the_middle_of_each_stage_and_another_run_give_the_same_bytes(
    finished: Built, tmp_path: Path, execute: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second analysis, the second of the samples, and a file of the set are cut short; the fourth run is not."""
    when, out = "in the middle of a write", tmp_path / "set"
    killed_at = _build_with_kills(finished, out, execute, monkeypatch, when, (3, 4, 5, 99))
    assert killed_at == [(1, 0, 0), (3, 1, 0), (3, 3, 2)]


@pytest.mark.full
@pytest.mark.parametrize("when", WHEN)
def test_a_kill_at_any_file_and_another_run_give_the_same_bytes(
    finished: Built, tmp_path: Path, execute: Executor, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Run k is killed at the kth file that it brings to its place."""
    out = tmp_path / "set"
    killed_at = _build_with_kills(finished, out, execute, monkeypatch, when, range(1, 40))
    stages = [("nothing analyzed", (0, 0)), ("analyzed in part", (1, 0)), ("all analyzed", (3, 0)), ("chosen", (3, 3))]
    for stage, (analyses, samples) in stages:
        assert any(a >= analyses and b >= samples for a, b, _ in killed_at), stage
    assert any(0 < files < len(contents(out)) for *_, files in killed_at), "killed while the set was brought out"


@pytest.mark.parametrize("stage", [pytest.param("analyze", marks=pytest.mark.full), "select"])
def test_a_kill_in_a_stage_loses_only_the_task_in_work(
    finished: Built, tmp_path: Path, execute: Executor, stage: str
) -> None:
    def dying(at: str, tasks: Iterator) -> Iterator:
        for i, outcome in enumerate(execute(at, tasks)):
            if at == stage and i == 2:
                raise Killed
            yield outcome

    with pytest.raises(Killed):
        build(job(finished.source), tmp_path / "set", dying)
    done: list[str] = []
    build(job(finished.source), tmp_path / "set", counted(execute, done))
    assert done == (["analyze", "select", "select", "select"] if stage == "analyze" else ["select"])
    assert contents(tmp_path / "set") == contents(finished.out)


@pytest.mark.full
@pytest.mark.full
def test_a_process_that_is_killed_goes_on_to_the_same_bytes(finished: Built, tmp_path: Path) -> None:
    out = tmp_path / "set"
    command = [sys.executable, "-m", "dynamicid_core.data", "build", str(finished.source), str(out), "--bgr"]
    command += ["--face-pack", str(FACE_PACK), "--provider", "CPU", "--expression-from", "name"]
    for name in ("size", "min_face", "min_sharpness", "min_similarity", "merge_distance", "per_shard"):
        command += [f"--{name.replace('_', '-')}", str(getattr(SETTINGS, name))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while not list((out / ".work" / "analyses").glob("*.json")) and time.monotonic() < end:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
    finally:
        process.kill()
    killed = -signal.SIGKILL if sys.platform != "win32" else 1
    assert process.wait() == killed and not (out / "index.parquet").exists()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "15 pictures of 3 people" in again.stdout
    assert contents(out) == contents(finished.out)


def test_a_finished_set_is_left_alone(finished: Built) -> None:
    times = {path: path.stat().st_mtime_ns for path in finished.out.rglob("*")}
    begun = time.monotonic()
    summary = build(job(finished.source), finished.out, _idle)
    assert time.monotonic() - begun < 0.5
    assert summary == replace(finished.summary, fresh=False)
    assert {path: path.stat().st_mtime_ns for path in finished.out.rglob("*")} == times


def test_what_was_lost_of_a_set_is_written_again_without_the_work(finished: Built, tmp_path: Path) -> None:
    out = shutil.copytree(finished.out, tmp_path / "set")
    (out / "shard-000001.tar").unlink()
    (out / "index.parquet").write_bytes(b"cut short")
    (out / "shard-000009.tar").write_bytes(b"of an earlier build")
    done: list[str] = []
    assert build(job(finished.source), out, counted(local_executor(job(finished.source)), done)).fresh
    assert done == [] and contents(out) == contents(finished.out)


def test_a_set_that_is_being_replaced_does_not_count_as_finished(
    finished: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(finished.out, tmp_path / "set")
    (out / "dropped.csv").unlink()

    def refuse(source: Path, target: Path) -> None:
        raise Killed

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(Killed):
        build(job(finished.source), out, local_executor(job(finished.source)))
    assert not (out / ".work" / "done.json").exists()


@pytest.mark.train
def test_a_new_picture_is_the_only_work(finished: Built, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "set"
    draw_person(source / "anna", 0, 2)
    draw_person(source / "bert", 1, 3)
    built(source, out)
    before = contents(out)
    hidden = next((source / "bert").glob("02*")).rename(tmp_path / "02 sad.png")
    done: list[str] = []
    execute = counted(local_executor(job(source)), done)
    assert build(job(source), out, execute).images == 4
    assert done == ["analyze", "select"]
    hidden.rename(source / "bert" / "02 sad.png")
    assert build(job(source), out, execute).images == 5
    (source / "bert" / "02 sad.txt").write_text("in a fear expression, in front view")
    assert build(job(source), out, execute).fresh, "a sidecar counts as a change"
    assert done == ["analyze", "select"] * 3 and contents(out)["index.parquet"] != before["index.parquet"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0.8}, "margin was 0.6 and is 0.8"),
        ({"per_person": 3}, "per_person was 35 and is 3"),
        ({"adapter": "ab12"}, "adapter was '' and is 'ab12'"),
        ({"version": 3}, "version was 2 and is 3"),
    ],
)
def test_other_settings_are_refused(finished: Built, options: dict, message: str) -> None:
    before = contents(finished.out)
    with pytest.raises(ValueError, match=f"other settings: {message}.*--rebuild"):
        build(job(finished.source, changed(**options)), finished.out, _idle)
    assert contents(finished.out) == before


def test_a_rebuild_replaces_a_set_and_touches_nothing_else(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "set"
    draw_person(source / "anna", 0, 2)
    built(source, out)
    (out / "notes.txt").write_text("mine")
    before = contents(out)
    fewer = changed(per_person=1)
    assert built(source, out, fewer, rebuild=True).images == 1
    assert (out / "notes.txt").read_text() == "mine"
    assert built(source, out, SETTINGS, rebuild=True).images == 2
    assert contents(out) == before


def _in_source(source: Path, out: Path) -> Path:
    return source / "set"


def _without_work(source: Path, out: Path) -> Path:
    out.mkdir()
    (out / "shard-000000.tar").write_bytes(b"another's")
    return out


def _a_file(source: Path, out: Path) -> Path:
    out.write_text("")
    return out


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (_in_source, "a folder outside of the source"),
        (_without_work, "holds shards .*--rebuild"),
        (_a_file, "expected a folder to write to"),
    ],
)
def test_a_set_is_not_written_where_it_would_do_harm(
    finished: Built, tmp_path: Path, place: Callable[[Path, Path], Path], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(job(finished.source), place(finished.source, tmp_path / "set"), _idle)
    assert not (finished.source / "set").exists()


@pytest.mark.parametrize("unsorted", [False, True])
def test_a_source_without_pictures_says_so(tmp_path: Path, unsorted: bool) -> None:
    (tmp_path / "source" / "anna").mkdir(parents=True)
    settings = changed(unsorted=unsorted)
    with pytest.raises(ValueError, match=r"expected (one folder of pictures per person|a folder with pictures)"):
        build(job(tmp_path / "source", settings), tmp_path / "set", _idle)
    with pytest.raises(ValueError, match="there is none"):
        build(job(tmp_path / "nowhere", settings), tmp_path / "set", _idle)


def test_a_loose_picture_beside_no_people_points_to_unsorted(tmp_path: Path) -> None:
    draw_person(tmp_path / "source", 0, 1)
    with pytest.raises(ValueError, match=r"found 1 pictures.*--unsorted"):
        build(job(tmp_path / "source"), tmp_path / "set", _idle)


def test_a_picture_that_vanishes_while_building_is_told(tmp_path: Path) -> None:
    source = tmp_path / "source"
    names = list(draw_person(source / "anna", 0, 2))

    def vanishing(stage: str, tasks: Iterator) -> Iterator:
        if stage == "select":
            (source / "anna" / names[1]).unlink()
        return local_executor(job(source))(stage, tasks)

    with pytest.raises(ValueError, match="it changed while the set was built"):
        build(job(source), tmp_path / "set", vanishing)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 8}, "greater than or equal to 32"),
        ({"margin": -1.0}, "greater than or equal to 0"),
        ({"merge_distance": float("nan")}, "finite number"),
        ({"per_person": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BuildSettings(**wrong)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_settings_of_an_earlier_version_name_the_new_options(
    finished: Built, tmp_path: Path, old: str, new: str
) -> None:
    out = tmp_path / "set"
    (out / ".work").mkdir(parents=True)
    (out / ".work" / "settings.json").write_text(f'{{"{old}": 1}}')
    with pytest.raises(ValueError, match=f"(?s)stored settings: {old} is called {new} now.*--rebuild"):
        build(job(finished.source), out, _idle)


def test_names_of_any_bytes_come_through(tmp_path: Path) -> None:
    source = tmp_path / "source"
    names = list(draw_person(source / "anna", 0, 2))
    odd = os.fsdecode(b"sad \xff,\n.png")
    try:
        (source / "anna" / names[0]).rename(source / "anna" / odd)
        (source / "anna" / os.fsdecode(b"text \xfe.png")).write_text("no picture")
        (source / "anna").rename(source / os.fsdecode(b"ann\xe9"))
    except OSError:
        pytest.skip("this file system takes no such names")
    summary = built(source, tmp_path / "set")
    assert summary.images == 2 and summary.rejected == {"not a picture": 1}
    rows = parquet.read_table(tmp_path / "set" / "index.parquet").to_pylist()
    assert {row["person"] for row in rows} == {"ann\\udce9"}
    assert "ann\\udce9/sad \\udcff,\n.png" in {row["source"] for row in rows}
    assert "text \\udcfe.png" in (tmp_path / "set" / "dropped.csv").read_text("utf-8")
