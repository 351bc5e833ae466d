"""A public benchmark's list on a real server: one command, one table, one page, of a graph for one person."""

import json
from pathlib import Path

import pytest
from dynamicid_pack.dynamicid_core.evaluation import __main__ as evaluation
from dynamicid_pack.dynamicid_core.evaluation.report import read_results
from dynamicid_pack.mini.world.world import World
from dynamicid_pack.tests.support import ROOT
from PIL import Image

from .server import Server

pytestmark = pytest.mark.timeout(600)
PROMPT = "a portrait of two people, in a park"


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Two pairs of people in a folder as WithAnyone's `infer_withanyone.py` leaves it."""
    world = World(seed=4, held_out_people=True, pairs=(("neutral", 0.0),))
    for number in range(2):
        folder = tmp_path / "samples" / f"{number:04}"
        folder.mkdir(parents=True)
        (folder / "meta.json").write_text(json.dumps({"prompt": PROMPT}))
        for i in range(2):
            Image.fromarray(world.sample(2 * number + i, 1).picture().image).save(folder / f"ref_{i}.jpg", quality=95)
        Image.fromarray(world.sample(10 + number, 2).picture().image).save(folder / "ori.jpg", quality=95)
    return tmp_path / "samples"


def test_one_command_draws_measures_and_shows_a_list(
    server: Server, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The graph for one person grows to two, with an identity each; without identity they are strangers."""
    template = ROOT / "workflows" / "mini_01_one_person_reference.json"
    typed = [
        "benchmark", "--list", "multiid-bench", str(samples), "--template", str(template),
        "--judge", "mini.train.judging:judge", "--ablate", "identity", "--server", server.url,
        "--input", "seed=11.seed", "--set", "11.steps=6", "--set", "10.width=256", "--output", str(tmp_path / "run"),
    ]  # fmt: skip
    assert evaluation.main(typed) == 0, capsys.readouterr().err
    ((_, rows),) = read_results(tmp_path / "run").items()
    full, without = rows["full"], rows["without identity"]
    assert full["Multi-ID similarity"].n == 2 and set(full) >= {"Sim(Ref)", "Sim(GT)", "Copy-Paste", "ID-Conf"}
    alike, strange = full["Multi-ID similarity"].mean, without["Multi-ID similarity"].mean
    assert alike is not None and strange is not None and alike > strange + 0.2
    page = (tmp_path / "run" / "report.html").read_text()
    assert "MultiID-Bench" in page and len(list((tmp_path / "run").glob("pictures/*/*/*.png"))) == 4
