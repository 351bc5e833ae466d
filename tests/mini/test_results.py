"""What an evaluation found is kept beside the miniature: numbers, tables, grids; what was written by hand stays."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from dynamicid_pack.mini.__main__ import main
from dynamicid_pack.mini.train.results import TABLES, keep_results
from PIL import Image

ESTIMATE = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9, "missing": 0}
FOUND = {"one person": {"DynamicID": {"FaceSim": ESTIMATE}}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(FOUND))
    cv2.imwrite(str(folder / "one person.png"), np.full((16, 32, 3), 200, np.uint8))
    return folder


def test_findings_are_kept_and_what_is_written_above_them_stays(run: Path, tmp_path: Path) -> None:
    kept = tmp_path / "mini"
    kept.mkdir()
    (kept / "RESULTS.md").write_text(f"# By hand\n\n{TABLES}\n\nold tables\n")
    assert main(["results", str(run), "--to", str(kept)]) == 0
    text = (kept / "RESULTS.md").read_text()
    assert (
        text.startswith("# By hand\n") and "| DynamicID | 0.500 [0.400, 0.600] 9 |" in text and "old tables" not in text
    )
    assert "(pictures/results-one-person.webp)" in text
    assert Image.open(kept / "pictures" / "results-one-person.webp").size == (32, 16)
    assert json.loads((kept / "results.json").read_text()) == FOUND
    keep_results(run, kept)
    assert (kept / "RESULTS.md").read_text() == text


def test_tables_of_an_earlier_run_stay_and_those_of_this_one_take_their_place(run: Path, tmp_path: Path) -> None:
    kept = tmp_path / "mini"
    keep_results(run, kept)
    later = {"two people": {"DynamicID": {"FaceSim": {**ESTIMATE, "mean": 0.7}}}}
    (run / "results.json").write_text(json.dumps(later))
    (run / "one person.png").rename(run / "two people.png")
    keep_results(run, kept)
    text = (kept / "RESULTS.md").read_text()
    assert "| DynamicID | 0.500 " in text and "| DynamicID | 0.700 " in text
    assert text.index("### one person\n") < text.index("### two people\n")
    assert json.loads((kept / "results.json").read_text()) == FOUND | later
    (run / "results.json").write_text(json.dumps({"two people": FOUND["one person"]}))
    keep_results(run, kept)
    assert "0.700" not in (kept / "RESULTS.md").read_text()


def test_a_run_that_was_not_measured_is_refused(run: Path, tmp_path: Path) -> None:
    (run / "results.json").unlink()
    with pytest.raises(ValueError, match="has not been measured"):
        keep_results(run, tmp_path)
