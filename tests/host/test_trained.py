"""The trained DynamicID of the miniature, a few pictures for each of its main rows on the real server.

Bounds are loose: they hold for any seeds, and fail where a part of the method does nothing. What it reaches, with
more pictures, is in mini/RESULTS.md.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from dynamicid_pack.dynamicid_core.evaluation import __main__ as evaluation
from dynamicid_pack.mini.train import experiments

from .server import Server

pytestmark = pytest.mark.timeout(900)

Means = dict[str, dict[str, dict[str, float]]]
"""table, row, measure"""
Drawn = Callable[[int, dict[str, tuple[str, ...]]], Means]


@pytest.fixture
def drawn(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Drawn:
    """Draws and measures so many samples of some rows of the experiments."""

    def drawn(count: int, rows: dict[str, tuple[str, ...]]) -> Means:
        # A smaller gallery is judged in a fifth of the time, and shows the same breaks.
        monkeypatch.setattr(experiments, "GALLERY", 100 if request.config.getoption("--full") else 20)
        path = experiments.write_experiments(tmp_path / "asked", count, ())
        said = json.loads(path.read_text())
        said["benchmarks"] = [table for table in said["benchmarks"] if table["name"] in rows]
        for table in said["benchmarks"]:
            table["variants"] = [row for row in table["variants"] if row["name"] in rows[table["name"]]]
            table["samples"] = [{**sample, "seeds": sample["seeds"][:1]} for sample in table["samples"]]
        path.write_text(json.dumps(said))
        run = ["run", "--config", str(path), "--output", str(tmp_path / "run"), "--server", server.url]
        assert evaluation.main(run) == 0, capsys.readouterr().err
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        return {
            table: {row: {name: said["mean"] for name, said in measured.items()} for row, measured in rows.items()}
            for table, rows in results.items()
        }

    return drawn


@pytest.mark.parametrize("count", [4, pytest.param(12, marks=pytest.mark.full)])
def test_people_are_who_they_should_be(drawn: Drawn, count: int) -> None:
    row = drawn(count, {"one person": ("DynamicID", "without identity")})["one person"]
    with_, without = row["DynamicID"], row["without identity"]
    assert with_["FaceSim"] > 0.5 > 0.3 > without["FaceSim"]
    assert with_["Identified"] >= 0.5 > 0.2 > without["Identified"]
    assert with_["CLIP-T"] > 0.9 * without["CLIP-T"]


@pytest.mark.full
def test_each_of_two_people_is_in_their_place(drawn: Drawn) -> None:
    row = drawn(8, {"two people": ("DynamicID", "without gate and regions", "without identity")})["two people"]
    assert row["DynamicID"]["Assignment"] >= 0.7 > 0.6 > row["without gate and regions"]["Assignment"]
    assert row["DynamicID"]["Identified"] > row["without identity"]["Identified"] + 0.2
    assert row["DynamicID"]["Count"] >= 0.8, "a face more, or less, than people"


@pytest.mark.full
def test_three_people_are_all_there(drawn: Drawn) -> None:
    measured = drawn(6, {"three people": ("DynamicID",)})["three people"]["DynamicID"]
    assert measured["Count"] >= 0.8 and measured["Assignment"] >= 0.7


@pytest.mark.full
def test_expressions_and_poses_are_those_asked_for(drawn: Drawn) -> None:
    row = drawn(12, {"one person, edited": ("DynamicID", "without IMR")})["one person, edited"]
    assert row["DynamicID"]["Expr"] >= 0.4 and row["DynamicID"]["Pose near"] >= 0.6  # words don't tell left from right
    assert row["DynamicID"]["Expr"] > row["without IMR"]["Expr"] + 0.1
    assert row["DynamicID"]["Pose near"] > row["without IMR"]["Pose near"] + 0.1
