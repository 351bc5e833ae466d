"""The evaluation on a real server and the miniature; how good its pictures are is not asked here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.evaluation import __main__ as evaluation
from dynamicid_pack.dynamicid_core.evaluation import config
from dynamicid_pack.dynamicid_core.evaluation.client import Client
from dynamicid_pack.dynamicid_core.evaluation.template import api_graph
from dynamicid_pack.dynamicid_core.evaluation.variants import build_graph, read_template
from dynamicid_pack.mini.train.experiments import write_experiments
from dynamicid_pack.tests.support import ROOT
from PIL import Image

from .conftest import portrait
from .graphs import MINIATURE
from .server import Server, link
from .templates import at_hand

pytestmark = pytest.mark.timeout(900)
JUDGE = {"kind": "mini.train.judging:judge"}


def _config(path: Path, *tables: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"judge": JUDGE, "benchmarks": tables}))
    return path


def _run(asked: Path, folder: Path, server: Server) -> int:
    return evaluation.main(["run", "--config", str(asked), "--output", str(folder), "--server", server.url])


def _pixels(folder: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in folder.rglob("*.png")}


def test_two_variants_of_a_template_are_drawn_and_measured(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """mini_01_one_person: two variants of two pictures each, saved by the server."""
    table = {
        "name": "one person",
        "template": str(ROOT / "workflows" / "mini_01_one_person.json"),
        "overrides": {"EmptyLatentImage": {"batch_size": 2}, "KSampler": {"steps": 4}},
        "samples": [
            {
                "name": "beach",
                "prompt": "a portrait of a person in a red hoodie, at the beach, in a happy expression, in front view",
                "seeds": [3],
                "people": [{"expression": "happy", "yaw": 0, "pitch": 0}],
            }
        ],
        "variants": [{"name": "cfg 4"}, {"name": "cfg 1", "overrides": {"KSampler": {"cfg": 1.0}}}],
    }
    asked = _config(tmp_path / "run.json", table)
    assert _run(asked, tmp_path / "run", server) == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["one person"].keys() == {"cfg 4", "cfg 1"}
    for row in results["one person"].values():
        assert row.keys() == {"CLIP-T", "Count", "Expr", "Pose", "Pose near", "Pose error", "Diversity"}
        assert -1 <= row["CLIP-T"]["low"] <= row["CLIP-T"]["mean"] <= row["CLIP-T"]["high"] <= 1
        assert row["CLIP-T"]["n"] == row["Expr"]["n"] == 2
        assert row["Expr"]["missing"] + row["Pose error"]["n"] == 2
    pictures = _pixels(tmp_path / "run" / "pictures")
    assert len(pictures) == 4 and {picture.shape for picture in pictures.values()} == {(128, 128, 3)}
    assert len({picture.tobytes() for picture in pictures.values()}) == 4

    # the kept graph draws the kept picture again, alone and byte for byte
    record = json.loads((tmp_path / "run" / "pictures" / "one person" / "cfg 1" / "beach-3.json").read_text())
    client = Client(server.url)
    saved = client.run(record["graph"])
    kept = tmp_path / "run" / "pictures" / "one person" / "cfg 1"
    assert [client.fetch(picture) for picture in saved] == [(kept / name).read_bytes() for name in record["pictures"]]

    # the command, as it is typed in the pack's folder
    before = (tmp_path / "run" / "results.json").read_bytes()
    (tmp_path / "run" / "results.json").unlink()
    typed = [sys.executable, "-m", "dynamicid_core.evaluation", "measure", str(tmp_path / "run")]
    done = subprocess.run(typed, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "### one person" in done.stdout
    assert (tmp_path / "run" / "results.json").read_bytes() == before

    # what is there is not drawn again; a folder of its own has the same pictures, though the server kept its results
    def refuse(*_: object) -> None:
        raise AssertionError("a graph was queued")

    with monkeypatch.context() as patch:
        patch.setattr(Client, "run", refuse)
        assert _run(asked, tmp_path / "run", server) == 0
        assert evaluation.main(["measure", str(tmp_path / "run")]) == 0
    assert _run(asked, tmp_path / "again", server) == 0
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    assert (tmp_path / "again" / "results.json").read_bytes() == before
    assert evaluation.main(["table", str(tmp_path / "run"), str(tmp_path / "again")]) == 0
    assert "| cfg 1, again |" in capsys.readouterr().out


def test_the_documented_example_fits_its_template(server: Server, tmp_path: Path) -> None:
    said = json.loads("{" + (config.__doc__ or "").partition("{")[2].rpartition("}")[0] + "}")
    link(ROOT / "workflows", tmp_path / "workflows")
    (tmp_path / "here").mkdir()
    portrait(tmp_path / "here" / "ann.png", 0)
    (tmp_path / "here" / "run.json").write_text(json.dumps(said))
    (table,) = config.load_config(tmp_path / "here" / "run.json").benchmarks
    nodes, (sample,) = server.get("/object_info"), table.samples
    template = read_template(table.template, nodes)
    references = {path: "ann.png" for person in sample.people if (path := person.reference)}
    graphs = [build_graph(template, nodes, table, variant, sample, 2, references) for variant in table.variants]
    assert len(graphs) == 3
    edits = [node for node in graphs[1].values() if node["class_type"] == "DynamicIDEditMotion"]
    assert [(edit["inputs"]["expression"], edit["inputs"]["strength"]) for edit in edits] == [("happy", 0)]
    assert [node["inputs"]["steps"] for node in graphs[0].values() if node["class_type"] == "KSampler"] == [30]


def test_every_ablation_changes_the_picture(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """07_two_people_expressions with references of its own: whatever is ablated, another picture comes of it."""
    for number in range(2):
        portrait(tmp_path / f"{number}.png", number)
    nodes = server.get("/object_info")
    graph = at_hand(api_graph(ROOT / "workflows" / "07_two_people_expressions.json", nodes), MINIATURE)
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    encoders, edits = (
        [name for name, node in graph.items() if node["class_type"] == kind]
        for kind in ("DynamicIDEncode", "DynamicIDEditMotion")
    )
    (prompt,) = (node["inputs"]["positive"][0] for node in graph.values() if node["class_type"] == "KSampler")
    people = [
        {"reference": [encoder, "image"], "expression": [edit, "expression"]}
        for encoder, edit in zip(encoders, edits, strict=True)
    ]
    ablations = ["gate", "regions", "imr", "layout", "identity"]
    table: dict[str, Any] = {
        "name": "two people",
        "template": "graph.json",
        "inputs": {"prompt": [prompt, "text"], "people": people},
        "samples": [
            {
                "name": "park",
                "prompt": "two people, in a park",
                "seeds": [1],
                "people": [{"reference": f"{n}.png", "expression": ("happy", "sad")[n]} for n in range(2)],
            }
        ],
        "variants": [{"name": "full"}, *({"name": f"without {name}", "ablate": [name]} for name in ablations)],
    }
    folder = tmp_path / "run"
    assert _run(_config(tmp_path / "run.json", table), folder, server) == 0, capsys.readouterr().err
    drawn = {
        variant["name"]: next(iter(_pixels(folder / "pictures" / "two people" / variant["name"]).values())).astype(int)
        for variant in table["variants"]
    }
    for name in ablations:
        assert np.abs(drawn[f"without {name}"] - drawn["full"]).max() > 1, name
    rows = json.loads((folder / "results.json").read_text())["two people"]
    assert rows.keys() == drawn.keys()
    for name, row in rows.items():
        assert {"CLIP-T", "FaceSim", "Expr", "Assignment", "Bleed"} <= row.keys()
        assert ("Background PSNR" in row) == (name != "without identity")
    assert Image.open(folder / "two people.png").size == (256, 6 * 144)


@pytest.mark.full
def test_the_miniatures_experiments_run(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every table and row, with a picture or two each: what they show is in mini/RESULTS.md."""
    asked = write_experiments(tmp_path / "asked", 1, ())
    said = json.loads(asked.read_text())
    assert _run(asked, tmp_path / "run", server) == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [list(rows) for rows in results.values()] == [
        [variant["name"] for variant in benchmark["variants"]] for benchmark in said["benchmarks"]
    ]
    for table, rows in results.items():
        for row in rows.values():
            assert {"CLIP-T", "FaceSim", "Identified"} <= row.keys()
            assert {"Expr", "Pose near"} <= row.keys() or "edit" not in table
            assert "Assignment" in row or "two" not in table
