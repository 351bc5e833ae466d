"""Whole runs against a server that draws what it is asked: known answers, resuming, measuring again, comparing."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from dynamicid_pack.dynamicid_core.configuration import ConfigModel
from dynamicid_pack.dynamicid_core.evaluation import __main__ as command
from dynamicid_pack.dynamicid_core.evaluation.client import ServerError
from dynamicid_pack.dynamicid_core.evaluation.config import (
    Benchmark,
    EvaluationConfig,
    JudgeConfig,
    PersonInputs,
    SampleInputs,
    SampleSpec,
    TargetPerson,
    Variant,
    write_config,
)
from dynamicid_pack.dynamicid_core.evaluation.generation import generate
from dynamicid_pack.dynamicid_core.evaluation.judges import FACE_PACK, Judge, load_face_judge
from dynamicid_pack.dynamicid_core.evaluation.measuring import measure
from dynamicid_pack.dynamicid_core.evaluation.report import (
    RESULTS,
    Results,
    compare,
    markdown,
    read_results,
    results_of,
    settings_of,
    write_report,
)
from dynamicid_pack.dynamicid_core.evaluation.run_folder import RunFolder, load_snapshot, snapshot
from dynamicid_pack.dynamicid_core.redraw.passes import PersonResult, report
from PIL import Image

from . import fakes
from .conftest import FACE_PACK as PACK
from .drawings import draw as drawn
from .drawings import stranger

pytestmark = pytest.mark.train  # judges of the pack are loaded

MINIATURE = "mini.train.judging:judge"
Known = dict[Path, Any]
NOBODY = Variant(name="without identity", ablate=("identity",))
Model = TypeVar("Model", bound=ConfigModel)


def replace(model: Model, **changes: Any) -> Model:
    return model.model_copy(update=changes)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """References of two people."""
    folder = tmp_path_factory.mktemp("references")
    people = {folder / f"{n}.png": stranger(n) for n in (3, 4)}
    for path, person in people.items():
        Image.fromarray(drawn([person], [("neutral", 0, 0)], 70).image).save(path)
    return people


@pytest.fixture(scope="module")
def config(known: Known, tmp_path_factory: pytest.TempPathFactory) -> EvaluationConfig:
    folder = tmp_path_factory.mktemp("templates")
    benchmarks = []
    for name, count, variants in (
        ("one", 1, (Variant(name="full"), Variant(name="without IMR", ablate=("imr",)), NOBODY)),
        ("two", 2, (Variant(name="full"), Variant(name="without regions", ablate=("regions",)))),
    ):
        template = folder / f"{name}.json"
        template.write_text(json.dumps(fakes.graph(count)))
        paths = list(known)[:count]
        people = tuple(
            TargetPerson(reference=path, expression=("happy", "sad")[i], yaw=0.0, pitch=0.0)
            for i, path in enumerate(paths)
        )
        refs = (PersonInputs(reference=(f"1{i}", "image"), expression=(f"2{i}", "expression")) for i in range(count))
        prompt = "a portrait of a person, in a happy expression"
        samples = (SampleSpec(name="room", prompt=prompt, seeds=(1, 2, 3), people=people),)
        inputs = SampleInputs(people=tuple(refs))
        benchmarks.append(Benchmark(name=name, template=template, samples=samples, variants=variants, inputs=inputs))
    others = [folder / f"{n}.png" for n in range(10, 15)]
    for path, n in zip(others, range(10, 15), strict=True):
        Image.fromarray(drawn([stranger(n)], [("neutral", 0, 0)], n).image).save(path)
    return EvaluationConfig(judge=JudgeConfig(kind=MINIATURE), benchmarks=tuple(benchmarks), gallery=(*others, *known))


def _measured(config: EvaluationConfig, folder: Path, judge: Judge) -> Results:
    values = measure(config, RunFolder(folder), judge)
    results = results_of(values)
    write_report(folder, settings_of(config, judge), values, results)
    return results


Drawn = Callable[..., tuple[EvaluationConfig, fakes.DrawingHost]]


@pytest.fixture(scope="module")
def run(config: EvaluationConfig, known: Known) -> Drawn:
    """Draws a configuration into a folder."""

    def run(
        folder: Path,
        asked: EvaluationConfig = config,
        host: fakes.DrawingHost | None = None,
        *others: fakes.DrawingHost,
    ) -> Any:
        host = host or fakes.DrawingHost(known)
        kept = snapshot(asked, folder)
        generate(kept, [host, *others], RunFolder(folder), 60, lambda message: None)
        return kept, host

    return run


@pytest.fixture(scope="module")
def whole(run: Drawn, judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    kept, host = run(folder)
    assert len(host.queued) == 3 * 3 + 2 * 3
    _measured(kept, folder, judge)
    return folder


def _means(folder: Path, table: str, row: str) -> dict[str, float]:
    measured = read_results(folder)[table][row]
    assert {(name, e.n, e.missing) for name, e in measured.items()} == {(name, 3, 0) for name in measured}
    means = {}
    for name, e in measured.items():
        assert e.low is not None and e.mean is not None and e.high is not None
        assert e.low - 1e-9 <= e.mean <= e.high + 1e-9
        means[name] = e.mean
    return means


def test_one_person_is_measured_as_they_were_drawn(whole: Path) -> None:
    full, no_imr, nobody = (_means(whole, "one", row) for row in ("full", "without IMR", "without identity"))
    assert (full["Expr"], no_imr["Expr"], nobody["Expr"]) == (1, 0, 0)
    assert full["Pose"] == no_imr["Pose"] == nobody["Pose"] == full["Pose near"] == 1
    assert (full["Identified"], no_imr["Identified"], nobody["Identified"]) == (1, 1, 0)
    assert full["Pose error"] < 6
    assert full["FaceSim"] > 0.8 > 0.5 > nobody["FaceSim"]
    assert full["Diversity"] > 0.1
    assert full["Background difference"] < 25 and full["Background PSNR"] > 15
    assert "Background PSNR" not in nobody and "Assignment" not in full


def test_two_people_are_assigned_right_but_for_those_who_changed_places(whole: Path) -> None:
    full, exchanged = (_means(whole, "two", row) for row in ("full", "without regions"))
    assert (full["Assignment"], exchanged["Assignment"]) == (1, 0)
    assert full["Count"] == exchanged["Count"] == 1
    assert full["Bleed"] < -0.4 and exchanged["Bleed"] > 0.4
    assert full["Similarity to others"] < 0.5 < 0.8 < exchanged["Similarity to others"]
    assert full["FaceSim"] > 0.8 and exchanged["FaceSim"] > 0.8, "whoever they are, wherever they stand"
    assert (full["Expr"], exchanged["Expr"]) == (1, 0), "an expression is asked of a person, not of a place"


def test_a_run_that_was_cut_short_goes_on_and_finds_the_same(
    run: Drawn, known: Known, judge: Judge, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="connection is lost"):
        run(tmp_path / "cut", host=fakes.DrawingHost(known, fails_after=4))
    # a kill between the pictures and their record, and one that lost a picture
    (tmp_path / "cut" / "pictures" / "one" / "full" / "room-1.json").unlink()
    (tmp_path / "cut" / "pictures" / "one" / "without IMR" / "room-1-0.png").unlink()
    kept, again = run(tmp_path / "cut")
    assert len(again.queued) == 15 - 4 + 2
    _measured(kept, tmp_path / "cut", judge)
    assert (tmp_path / "cut" / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()
    assert run(tmp_path / "cut")[1].queued == []


def test_servers_share_the_work_and_find_the_same(
    run: Drawn, config: EvaluationConfig, known: Known, judge: Judge, whole: Path, tmp_path: Path
) -> None:
    hosts = [fakes.DrawingHost(known) for _ in range(3)]
    kept, _ = run(tmp_path / "shared", config, *hosts)
    assert sum(len(host.queued) for host in hosts) == 15 and min(len(host.queued) for host in hosts) > 0
    _measured(kept, tmp_path / "shared", judge)
    assert (tmp_path / "shared" / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()


def test_when_one_of_two_servers_is_lost_what_is_drawn_is_kept(
    run: Drawn, config: EvaluationConfig, known: Known, tmp_path: Path
) -> None:
    one, other = fakes.DrawingHost(known, fails_after=2), fakes.DrawingHost(known)
    with pytest.raises(OSError, match="connection is lost"):
        run(tmp_path / "cut", config, one, other)
    drawn = 2 + len(other.queued)
    assert drawn < 15
    assert len(run(tmp_path / "cut")[1].queued) == 15 - drawn


def test_pictures_of_another_graph_or_other_weights_are_drawn_anew(
    run: Drawn, config: EvaluationConfig, tmp_path: Path
) -> None:
    one = replace(config, benchmarks=config.benchmarks[:1])
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"one")
    one = replace(one, files=(weights,))
    assert len(run(tmp_path / "run", one)[1].queued) == 9
    variants = (
        replace(one.benchmarks[0].variants[0], overrides={"DynamicIDApply": {"weight": 0.5}}),
        *one.benchmarks[0].variants[1:],
    )
    changed = replace(one, benchmarks=(replace(one.benchmarks[0], variants=variants),))
    queued = run(tmp_path / "run", changed)[1].queued
    assert [graph["3"]["inputs"]["weight"] for graph in queued] == [0.5] * 3
    assert run(tmp_path / "run", changed)[1].queued == []
    weights.write_bytes(b"two")
    assert len(run(tmp_path / "run", changed)[1].queued) == 9


def test_pictures_that_another_configuration_drew_are_never_measured_as_this_ones(
    run: Drawn, config: EvaluationConfig, known: Known, judge: Judge, tmp_path: Path
) -> None:
    one = replace(config, benchmarks=config.benchmarks[:1])
    run(tmp_path / "run", one)
    table = replace(one.benchmarks[0], overrides={"DynamicIDApply": {"weight": 0.5}})
    with pytest.raises(OSError, match="connection is lost"):
        run(tmp_path / "run", replace(one, benchmarks=(table,)), fakes.DrawingHost(known, fails_after=1))
    with pytest.raises(ValueError, match="has not been drawn"):
        measure(load_snapshot(tmp_path / "run"), RunFolder(tmp_path / "run"), judge)


def test_every_picture_is_kept_with_its_exact_graph(run: Drawn, known: Known, tmp_path: Path) -> None:
    host = fakes.DrawingHost(known)
    run(tmp_path / "run", host=host)
    place = tmp_path / "run" / "pictures" / "one" / "full"
    record = json.loads((place / "room-2.json").read_text())
    assert record["graph"] in host.queued and record["graph"]["4"]["inputs"]["seed"] == 2
    assert record["pictures"] == ["room-2-0.png"]
    assert len(record["digest"]) == 64
    assert Image.open(place / "room-2-0.png").size == (128, 128)


def test_kept_pictures_are_measured_again_with_the_same_numbers(
    whole: Path, judge: Judge, known: Known, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command, with a judge loaded anew and nothing but the folder."""
    before = (whole / RESULTS).read_bytes()
    (whole / RESULTS).unlink()
    monkeypatch.chdir(whole)
    assert command.main(["measure", "."]) == 0
    assert (whole / RESULTS).read_bytes() == before
    printed = capsys.readouterr().out
    assert "### one" in printed and "| full | " in printed
    assert (whole / "tables.md").read_text().strip() == printed.strip()
    assert Image.open(whole / "two.png").size == (3 * 256, 2 * 144)
    kept = load_snapshot(whole)
    references = {sample.people[0].reference for table in kept.benchmarks for sample in table.samples}
    assert {path and path.parent for path in references} == {whole.resolve() / "references"}


def test_results_and_the_table_have_mean_interval_and_counts(whole: Path) -> None:
    said = json.loads((whole / RESULTS).read_text())
    assert said.keys() == {"one", "two"} and said["one"].keys() == {"full", "without IMR", "without identity"}
    expr = said["one"]["full"]["Expr"]
    assert expr == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 3, "missing": 0}
    lines = markdown(read_results(whole)).splitlines()
    header, row = (next(line for line in lines if line.startswith(start)) for start in ("| | CLIP-T", "| full"))
    cells = dict(zip(header.split("|"), row.split("|"), strict=True))
    assert cells[" Expr "] == " 1.000 [1.000, 1.000] 3 "


def test_a_picture_without_a_face_counts_and_defines_no_similarity(
    run: Drawn, config: EvaluationConfig, judge: Judge, tmp_path: Path
) -> None:
    kept, _ = run(tmp_path / "run", replace(config, benchmarks=config.benchmarks[:1]))
    empty = tmp_path / "run" / "pictures" / "one" / "full" / "room-1-0.png"
    Image.new("RGB", (128, 128), (90, 160, 90)).save(empty)
    measured = _measured(kept, tmp_path / "run", judge)["one"]["full"]
    assert (measured["Expr"].mean, measured["Expr"].n, measured["Expr"].missing) == (pytest.approx(2 / 3), 3, 1)
    assert (measured["Pose"].mean, measured["Pose"].n, measured["Pose"].missing) == (pytest.approx(2 / 3), 3, 1)
    assert (measured["FaceSim"].n, measured["FaceSim"].missing) == (2, 1)
    assert (measured["Pose error"].n, measured["Pose error"].missing) == (2, 1)
    assert (measured["CLIP-T"].n, measured["CLIP-T"].missing) == (3, 0)
    assert (measured["Background PSNR"].n, measured["Background PSNR"].missing) == (3, 1)
    assert " 2 - 1 |" in markdown({"one": {"full": measured}})


def test_runs_with_the_same_settings_stand_beside_each_other(
    whole: Path, run: Drawn, config: EvaluationConfig, judge: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"others")
    kept, _ = run(tmp_path / "other", replace(config, files=(weights,)))
    _measured(kept, tmp_path / "other", judge)
    compared = compare([whole, tmp_path / "other"])
    assert list(compared["two"]) == ["full, whole", "full, other", "without regions, whole", "without regions, other"]
    assert command.main(["table", str(whole), str(tmp_path / "other")]) == 0
    assert "| full, other |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": 0.25}, r"margin: 0.5, 0.25"),
        ({"seeds": (1, 2)}, r"benchmarks.one.samples.room.seeds: \[1, 2, 3\], \[1, 2\]"),
        ({"more": True}, r"benchmarks.one.variants.more: .*nothing.*, .*ablate"),
        ({"steps": True}, r"benchmarks.one.overrides.KSampler: .*nothing.*, .*seed"),
    ],
)
def test_runs_with_other_settings_are_not_compared(
    change: dict[str, Any],
    message: str,
    whole: Path,
    run: Drawn,
    config: EvaluationConfig,
    judge: Judge,
    tmp_path: Path,
) -> None:
    (one, two), (sample,) = config.benchmarks, config.benchmarks[0].samples
    if "seeds" in change:
        one = replace(one, samples=(replace(sample, seeds=change["seeds"]),))
    if "more" in change:
        one = replace(one, variants=(*one.variants, Variant(name="more")))
    if "steps" in change:
        one = replace(one, overrides={"KSampler": {"seed": 1}})
    kept, _ = run(tmp_path / "run", replace(config, benchmarks=(one, two), margin=change.get("margin", 0.5)))
    _measured(kept, tmp_path / "run", judge)
    with pytest.raises(ValueError, match=f"whole and run were made with different settings.*{message}"):
        compare([whole, tmp_path / "run"])


def test_true_pictures_are_copied_compared_with_and_part_of_what_runs_share(
    run: Drawn, whole: Path, config: EvaluationConfig, judge: Judge, known: Known, tmp_path: Path
) -> None:
    """Without them settings are what they were before there were any; with them no image is generated anew."""
    (sample,) = config.benchmarks[0].samples
    truth = tmp_path / "truth.png"
    Image.fromarray(drawn([stranger(3)], [("happy", 0, 0)], 9).image).save(truth)
    shutil.copytree(whole, tmp_path / "run")
    one = replace(config.benchmarks[0], samples=(replace(sample, ground_truth=truth),))
    _, host = run(tmp_path / "run", replace(config, benchmarks=(one, config.benchmarks[1])))
    assert host.queued == [] and not host.uploaded.keys() & {"dynamicid-truth.png"}
    truth.unlink()
    results = _measured(load_snapshot(tmp_path / "run"), tmp_path / "run", judge)
    full, nobody = results["one"]["full"], results["one"]["without identity"]
    assert full["Sim(Ref)"] == full["FaceSim"] and full["Sim(GT)"].n == 3
    assert (full["Sim(GT)"].mean or 0) > 0.8 > 0.5 > (nobody["Sim(GT)"].mean or 0)
    assert (full["Copy-Paste"].mean or 0) < 0 and "Sim(GT)" not in results["two"]["full"]
    before = json.loads((whole / "settings.json").read_text())
    assert "ground_truth" not in before["benchmarks"]["one"]["samples"]["room"]
    assert "grow" not in before["benchmarks"]["one"]
    with pytest.raises(ValueError, match=r"samples.room.ground_truth: .*nothing"):
        compare([whole, tmp_path / "run"])


def test_runs_judged_by_another_are_not_compared(whole: Path, judge: Judge, tmp_path: Path) -> None:
    for name in (RESULTS, "settings.json"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    settings = json.loads((whole / "settings.json").read_text())
    assert settings["judge"] == {"kind": MINIATURE, "fingerprint": judge.fingerprint} and judge.fingerprint
    settings["judge"]["fingerprint"] = "another"
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert command.main(["table", str(whole), str(tmp_path)]) == 1
    with pytest.raises(ValueError, match=r"judge.fingerprint: .*another"):
        compare([whole, tmp_path])


def test_what_cannot_be_measured_is_told(
    run: Drawn, config: EvaluationConfig, judge: Judge, known: Known, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, _ = run(tmp_path / "run", replace(config, benchmarks=config.benchmarks[:1], gallery=()))
    (tmp_path / "run" / "pictures" / "one" / "full" / "room-3.json").unlink()
    with pytest.raises(ValueError, match="one, full: room-3 has not been drawn"):
        measure(kept, RunFolder(tmp_path / "run"), judge)
    (reference,) = (tmp_path / "run" / "references").iterdir()
    Image.new("RGB", (128, 128)).save(reference)
    with pytest.raises(ValueError, match="no face in the reference"):
        measure(kept, RunFolder(tmp_path / "run"), judge)
    assert command.main(["measure", str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err


def test_a_variant_whose_override_has_no_effect_is_told(
    run: Drawn, config: EvaluationConfig, judge: Judge, tmp_path: Path
) -> None:
    """As of a layout phase that never begins: the row would equal its neighbor and be read as a result."""
    half = Variant(name="half", overrides={"Edit 0": {"strength": 0.5}})  # the host draws it like the whole
    same, light = Variant(name="again"), Variant(name="light", overrides={"DynamicIDApply": {"weight": 0.1}})

    def measured(*more: Variant) -> None:
        benchmark = config.benchmarks[0]
        benchmark = replace(benchmark, variants=(*benchmark.variants, *more))
        kept, _ = run(tmp_path / "run", replace(config, benchmarks=(benchmark,)))
        measure(kept, RunFolder(tmp_path / "run"), judge)

    measured(same, light)
    with pytest.raises(ValueError, match="one: 'half' and 'full' have the same images"):
        measured(same, light, half)
    with pytest.raises(ValueError, match="'light, half' and 'light' have the same images"):
        measured(light, replace(half, name="light, half", overrides={**half.overrides, **light.overrides}))


def test_a_graph_that_saves_nothing_is_told(
    run: Drawn, known: Known, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fakes.DrawingHost, "outputs", lambda self, graph, timeout: {"5": {"images": []}})
    with pytest.raises(ServerError, match="one, full, room-1 saved no picture"):
        run(tmp_path / "run")


def test_backgrounds_are_compared_with_the_variant_that_changes_the_same_inputs(
    run: Drawn, config: EvaluationConfig, judge: Judge, tmp_path: Path
) -> None:
    """Another seed draws another place: with the wrong one, differences are large."""
    later = {"KSampler": {"seed": 5}}
    variants = (
        Variant(name="full"), Variant(name="full later", overrides=later),
        Variant(name="plain", ablate=("identity",)),
        Variant(name="plain later", ablate=("identity",), overrides=later),
        Variant(name="half", overrides={"DynamicIDApply": {"weight": 0.5}}),
    )  # fmt: skip
    table = replace(config.benchmarks[0], variants=variants)
    kept, _ = run(tmp_path / "run", replace(config, benchmarks=(table,)))
    rows = _measured(kept, tmp_path / "run", judge)["one"]
    differences = {name: row["Background difference"].mean for name, row in rows.items() if "plain" not in name}
    assert all(mean is not None and mean < 25 for mean in differences.values()), differences


def test_a_server_that_does_not_start_is_told(
    config: EvaluationConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(config, tmp_path / "run.json")
    server = [sys.executable, "-c", "print('no such model')"]
    asked = ["run", "--config", str(tmp_path / "run.json"), "--output", str(tmp_path / "run")]
    assert command.main([*asked, "--", *server]) == 1
    assert "no such model" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.json").exists(), "nothing was drawn"


def test_the_command_wants_one_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["run", "--config", "c.json", "--output", str(tmp_path)]
    for server in ([], ["--server", "http://127.0.0.1:1", "--", "python"]):
        assert command.main([*asked, *server]) == 1
        assert "Expected a server" in capsys.readouterr().err


def test_who_reaches_a_likeness_is_told_by_the_judge_and_by_whom_nodes_asked_and_what_it_cost(
    run: Drawn, config: EvaluationConfig, known: Known, judge: Judge, tmp_path: Path
) -> None:
    """The host draws right people with Apply DynamicID and strangers without; one report tells of three drawings."""
    graph = fakes.graph(2)
    graph["4"]["inputs"]["steps"] = 10
    graph["6"] = {"class_type": fakes.REDRAW, "inputs": {"image": ["4", 0], "denoise": 0.8}}
    graph["5"]["inputs"]["images"] = ["6", 0]
    template = tmp_path / "redrawn.json"
    template.write_text(json.dumps(graph))
    benchmark = replace(
        config.benchmarks[1], template=template, alike_from=0.6, variants=(Variant(name="full"), NOBODY)
    )
    node_judge = JudgeConfig(kind=FACE_PACK, options={"face_pack": str(PACK)})
    host = fakes.DrawingHost(known)
    host.report = report([PersonResult("ann", 0, 0.1, 0.7, 3)], 0, 8)
    kept, _ = run(tmp_path / "run", replace(config, benchmarks=(benchmark,), node_judge=node_judge), host)
    pack = load_face_judge(node_judge.kind, node_judge.options)
    rows = measure(kept, RunFolder(tmp_path / "run"), judge, pack)["two"]
    means = {
        row: {name: e.mean for name, e in columns.items()} for row, columns in results_of({"two": rows})["two"].items()
    }
    for name in ("All alike", "All alike (node)"):
        assert (means["full"][name], means["without identity"][name]) == (1, 0)
    assert means["full"]["UNet calls"] == 10 + 3 * 8
    settings = settings_of(kept, judge, pack)
    assert (
        settings["node_judge"]["fingerprint"] == pack.fingerprint and settings["benchmarks"]["two"]["alike_from"] == 0.6
    )
    assert "All alike (node)" not in measure(kept, RunFolder(tmp_path / "run"), judge)["two"]["full"]["room-1-0"]
    plain = settings_of(config, judge)
    assert "node_judge" not in plain and "alike_from" not in plain["benchmarks"]["two"], "as in runs from before"
