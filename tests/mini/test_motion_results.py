"""The benchmarks of motions: what they ask for, and the tables of what came."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.evaluation.config import load_config
from dynamicid_pack.dynamicid_core.evaluation.judges import JudgedFace
from dynamicid_pack.dynamicid_core.imr.motion_text import motion_in
from dynamicid_pack.mini.__main__ import main
from dynamicid_pack.mini.train import experiments, motion_amounts, motion_results
from dynamicid_pack.mini.train.motion_experiments import (
    AMOUNTS,
    ANGLES,
    MIXED,
    MOTIONS,
    SHOWN,
    SOURCES,
    RequestedMotion,
    name_of_source,
)

pytestmark = pytest.mark.train  # references are drawn, and the judge's networks are imported

TURNED = "one person, turned by yaw"
EXPRESSIONS = ("neutral", *SHOWN)


def test_a_motion_is_written_as_the_node_reads_it() -> None:
    for name, draw in MOTIONS.items():
        for seed in range(20):
            requested = draw(random.Random(seed))
            assert RequestedMotion.of(requested.overrides) == requested
            turns = {angle: getattr(requested, angle) for angle in ANGLES}
            if name in (AMOUNTS, MIXED):
                assert not any(turns.values())
                spec = motion_in(requested.prompt)
                assert spec is not None
                shares = {expression: share for expression, share in spec.shares.items() if expression != "neutral"}
                assert shares == {name: amount for name, amount in requested.amounts.items() if amount}
            else:
                (angle,) = (angle for angle in ANGLES if name.endswith(angle))
                assert abs(turns.pop(angle)) <= ANGLES[angle] and not any(turns.values()) and not requested.prompt


def test_the_experiments_ask_one_thing_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "GALLERY", 2)
    names = (name_of_source("happy"), name_of_source("neutral"), *MOTIONS)
    config = load_config(experiments.write_experiments(tmp_path, 2, (), names))
    benchmarks = {benchmark.name: benchmark for benchmark in config.benchmarks}
    assert set(benchmarks) == set(names)
    for source in ("happy", "neutral"):
        benchmark = benchmarks[name_of_source(source)]
        told = [variant.overrides["edit_0"]["source_expression"] for variant in benchmark.variants]
        assert told == ["auto", "neutral", *([source] if source != "neutral" else [])]
        assert all(variant.may_equal for variant in benchmark.variants)
        for sample in benchmark.samples:
            (person,) = sample.people
            assert person.expression not in (None, source) and person.reference is not None
            assert person.reference.name.startswith(f"{source}-")
            assert sample.overrides["edit_0"]["expression"] == person.expression
    for name in MOTIONS:
        assert len(benchmarks[name].variants) == 1
        for sample in benchmarks[name].samples:
            assert RequestedMotion.of(sample.overrides["edit_0"]).overrides == sample.overrides["edit_0"]
    graph = json.loads(benchmarks[TURNED].template.read_text())
    assert graph["edit_0"]["class_type"] == "DynamicIDEditMotion"


def test_a_line_has_a_slope_and_tells_how_much_it_explains() -> None:
    x = np.arange(9.0)
    assert motion_results.line_through(x, 3 - 2 * x) == pytest.approx((-2, 1))
    assert motion_results.line_through(x, np.ones(9)) == (0, 0) == motion_results.line_through(np.ones(9), x)
    noisy = x + np.array([1.0, -1, 0] * 3)
    slope, explained = motion_results.line_through(x, noisy)
    assert explained == pytest.approx(np.corrcoef(x, noisy)[0, 1] ** 2) and 0.8 < slope < 1.1


class PixelJudge:
    """Reads a face's yaw, roll (half of it) and expression from the first pixel; of a black image no face."""

    fingerprint = "pixels"

    def faces(self, image: np.ndarray) -> Sequence[JudgedFace]:
        yaw, expression, there = (int(x) for x in image[0, 0])
        if not there:
            return []
        pose = (0.0, float(yaw - 100), (yaw - 100) / 2)
        return [JudgedFace(Box(0, 0, 8, 8), pose, np.ones(4), EXPRESSIONS[expression])]

    def expression_log_probs(self, image: np.ndarray) -> dict[str, float]:
        """The brighter the second pixel, the surer."""
        return {name: float(image[0, 1, 0]) * (name != "neutral") for name in EXPRESSIONS} if image.any() else {}

    def image_vector(self, image: np.ndarray) -> np.ndarray:
        return np.ones(4)

    def text_vector(self, text: str) -> np.ndarray:
        return np.ones(4)


def picture(path: Path, yaw: int, expression: str = "neutral", there: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0] = (yaw + 100, EXPRESSIONS.index(expression), there)
    cv2.imwrite(str(path), pixels[..., ::-1])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run: heads turn by .8 of what is asked of them and tilt by half of that; one picture shows no face."""
    monkeypatch.setattr(motion_results, "judge", PixelJudge)
    monkeypatch.setattr(motion_amounts, "PEOPLE", 1)  # whose faces are rendered, which PixelJudge does not look at
    turns = [(RequestedMotion(yaw=yaw), 10 + round(0.8 * yaw), "neutral", yaw != 40) for yaw in range(-40, 41, 10)]
    amounts = [
        (RequestedMotion(amounts={"happy": 0.1}), 10, "neutral", True),
        (RequestedMotion(amounts={"happy": 0.9}), 10, "happy", True),
        (RequestedMotion(amounts={"sad": 1.0}), 14, "fear", True),
    ]
    mixed = [
        (RequestedMotion(amounts={"sad": 0.5, "fear": 0.5}), 10, name, True)
        for name in ("sad", "sad", "fear", "neutral", "disgust")
    ]
    benchmarks = []
    picture(tmp_path / "references" / "a.png", 10)
    for name, samples in ((TURNED, turns), (AMOUNTS, amounts), (MIXED, mixed)):
        listed = []
        for number, (requested, yaw, expression, there) in enumerate(samples):
            place = tmp_path / "pictures" / name / "DynamicID" / f"{number:03}-7"
            picture(place.with_name(f"{place.name}-0.png"), yaw, expression, there)
            place.with_name(f"{place.name}.json").write_text(json.dumps({"pictures": [f"{place.name}-0.png"]}))
            people = [{"reference": "references/a.png"}]
            listed.append(
                {
                    "name": f"{number:03}",
                    "seeds": [7],
                    "people": people,
                    "overrides": {"edit_0": requested.overrides},
                }
            )
        benchmarks.append({"name": name, "samples": listed, "variants": [{"name": "DynamicID"}]})
    plain = {"name": "one person", "samples": [{"name": "000", "seeds": [7], "people": []}], "variants": []}
    (tmp_path / "config.json").write_text(json.dumps({"benchmarks": [*benchmarks, plain]}))
    measured = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9, "missing": 0}
    rows = {"auto": {"Expr": measured, "FaceSim": measured | {"mean": 0.75}}}
    (tmp_path / "results.json").write_text(json.dumps({name_of_source(source): rows for source in SOURCES}))
    return tmp_path


def test_the_tables_say_what_moved_and_what_else_did(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["motion-tables", str(run), str(run / "motion.md")]) == 0
    text = (run / "motion.md").read_text()
    assert "| happy | auto | 0.500 [0.400, 0.600] 9 | 0.750 [0.400, 0.600] 9 |" in text
    assert text.count("| auto |") == len(SOURCES)
    assert "| yaw | 0.80 | 0.00 | 0.40 | 1.000 | 0.000 | 8 |" in text, "without the picture that shows no face"
    assert "| 0 to 0.25 | 0.000 | 0.000 | 0.0 | 1 |" in text and "| 0.75 to 1 | 0.500 | 0.500 | 2.0 | 2 |" in text
    assert "| fear + sad | 0.20 | 0.40 | 0.20 | 0.20 | 5 |" in text


def test_amounts_are_read_on_the_scale_of_rendered_faces(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendered faces whose second pixel is 100 times the amount; pictures drawn at .8 of what was asked."""

    def rendered(who: int, expression: str) -> list[np.ndarray]:
        images = np.zeros((len(motion_amounts.GRID), 8, 8, 3), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = 100, (100 * motion_amounts.GRID).round()[:, None]
        return list(images)

    monkeypatch.setattr(motion_amounts, "_rendered", rendered)
    requested = [(RequestedMotion(amounts={"happy": amount}), amount) for amount in (0.25, 0.5, 0.75, 1.0)]
    edited = []
    for number, (motion, amount) in enumerate(requested):
        path = run / f"{number}.png"
        pixels = np.zeros((8, 8, 3), np.uint8)
        pixels[0, 0], pixels[0, 1] = 100, round(80 * amount)
        cv2.imwrite(str(path), pixels)
        edited.append(motion_results.Edited(motion, np.zeros(3), "happy", path))
    table = motion_results._read(edited)
    assert "| happy | 0.80 | 1.000 | 4 |" in table and "| all, of rendered faces | 1.00 | 1.000 |" in table
    assert "| sad |" not in table


def test_rendered_faces_show_more_with_the_amount() -> None:
    least, *_, nearly, most = motion_amounts._rendered(0, "happy")
    again = next(motion_amounts._rendered(0, "happy"))
    assert np.array_equal(least, again)
    assert np.abs(least - most.astype(float)).sum() > np.abs(nearly - most.astype(float)).sum() > 0


def test_a_run_without_these_benchmarks_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "results.json").write_text("{}")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({"benchmarks": config["benchmarks"][-1:]}))
    assert main(["motion-tables", str(run), str(run / "motion.md")]) == 1
    assert "none of the motions' benchmarks" in capsys.readouterr().err
    (run / "results.json").unlink()
    assert main(["motion-tables", str(run), str(run / "motion.md")]) == 1
    assert "measure it with" in capsys.readouterr().err
