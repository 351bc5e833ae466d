"""The page of a run: its tables and images, and what each column says."""

import inspect
import re

import pytest
from dynamicid_pack.dynamicid_core.evaluation.bootstrap import Estimate
from dynamicid_pack.dynamicid_core.evaluation.page import MEASURES, explain, html_page
from dynamicid_pack.dynamicid_core.evaluation.report import _cells, markdown
from dynamicid_pack.tests.support import ROOT

RESULTS = {
    "two <people>": {
        "full": {"FaceSim": Estimate(0.5, 0.4, 0.6, 9, 1), "Pose error": Estimate(3.0, 2.0, 4.0, 9, 0)},
        "plain": {"FaceSim": Estimate(None, None, None, 0, 9)},
    }
}


@pytest.mark.parametrize("name", list(MEASURES))
def test_each_column_has_a_formula_a_range_and_a_source(name: str) -> None:
    text, doc = explain(name), inspect.getdoc(MEASURES[name]) or ""
    assert doc.startswith("Return ") and name in doc.partition(": ")[0], doc
    assert "Source: " in text and re.search(r"-?\d to \d|0 or 1|0 is best|in dB", text), text
    assert not text.startswith("Return") and "Args" not in text


def test_columns_are_on_the_evaluations_page() -> None:
    docs = (ROOT / "docs" / "evaluation.md").read_text("utf-8")
    assert [name for name in MEASURES if f"| {name} |" not in docs] == []


def test_the_page_has_the_tables_cells_its_image_and_its_columns() -> None:
    tables = {name: _cells(rows) for name, rows in RESULTS.items()}
    page = html_page(tables, "Mean [interval] n", {"judge": {"kind": "models", "fingerprint": "abc" * 20}})
    assert "<h2>two &lt;people&gt;</h2>" in page and 'src="two%20%3Cpeople%3E.png"' in page
    for cell in ("0.500 [0.400, 0.600] 9 - 1", "3.0 [2.0, 4.0] 9", "undefined - 9", "Pose error (degrees)"):
        assert f">{cell}<" in page and cell in markdown(RESULTS)
    assert page.count("<dt>") == 2 and explain("Pose error")[:40] in page
    assert "models, abcabcabcabcabca;" in page


def test_a_column_of_another_version_needs_no_explanation() -> None:
    assert explain("Sharpness") == ""
    assert "Sharpness" in html_page({"a": [["", "Sharpness"], ["full", "1"]]}, "", {})
