"""A run's rows by their differences from one of them, picture by picture."""

import json
from pathlib import Path

import pytest
from dynamicid_pack.dynamicid_core.evaluation.__main__ import main

VALUES = {
    "one person": {
        "plain": {"a": {"CLIP-T": [0.1, False]}, "b": {"CLIP-T": [0.9, False]}, "c": {"CLIP-T": [0.4, False]}},
        "ours": {"a": {"CLIP-T": [0.2, False]}, "b": {"CLIP-T": [1.0, True]}, "c": {"CLIP-T": [None, True]}},
    },
    "two people": {"ours": {"a": {"CLIP-T": [0.2, False]}}},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "values.json").write_text(json.dumps(VALUES))
    return tmp_path


def test_what_pictures_share_falls_out_of_the_interval(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is .1 more, however much pictures differ; one undefined in either row counts in neither."""
    assert main(["table", str(run), "--against", "plain"]) == 0
    table = capsys.readouterr().out
    assert "| ours | 0.100 [0.100, 0.100] 2 - 2 |" in table
    assert "| plain |" not in table and "two people" not in table


def test_a_row_that_no_table_has_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(run), "--against", "other"]) == 1
    assert "expected a row of 'plain', 'ours', got 'other'" in capsys.readouterr().err
    assert main(["table", str(run), str(run), "--against", "plain"]) == 1
    assert "Expected one folder with --against, got 2" in capsys.readouterr().err


def test_a_run_that_was_not_measured_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(tmp_path), "--against", "plain"]) == 1
    assert "has not been measured" in capsys.readouterr().err
