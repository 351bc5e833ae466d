"""One page of a run for a browser: tables, images, and what each column says, by its function's own words."""

import inspect
import re
from collections.abc import Callable, Mapping
from html import escape
from typing import Any
from urllib.parse import quote

from . import identity_measures, measures
from .spent import unet_calls

MEASURES: dict[str, Callable[..., Any]] = {
    "CLIP-T": measures.clip_t,
    "Count": measures.count_share,
    "FaceSim": measures.face_similarity,
    "Multi-ID similarity": identity_measures.multi_id_similarity,
    "ID-Conf": identity_measures.id_conf,
    "Sim(Ref)": identity_measures.matched_similarity,
    "Sim(GT)": identity_measures.matched_similarity,
    "Copy-Paste": identity_measures.copy_paste,
    "Identified": measures.identified_share,
    "Expr": measures.expression_share,
    "Pose": measures.pose_share,
    "Pose near": measures.pose_near_share,
    "Pose error": measures.pose_error,
    "Motion Copy-Paste (pose)": identity_measures.pose_copy_paste,
    "Motion Copy-Paste (expression)": identity_measures.expression_copy_paste,
    "Assignment": measures.assignment_share,
    "Similarity to others": measures.other_similarity,
    "Bleed": measures.bleed,
    "All alike": measures.all_alike_share,
    "All alike (node)": measures.all_alike_share,
    "UNet calls": unet_calls,
    "Background difference": measures.background_difference,
    "Background PSNR": measures.background_psnr,
    "Diversity": measures.diversity,
}
"""Column -> the function whose docstring has its formula, range and source."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 100em; padding: 0 1em; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border: 1px solid #ccc; padding: .2em .6em; text-align: left; white-space: nowrap; }
td + td { font-variant-numeric: tabular-nums; }
img { max-width: 100%; }
"""


def explain(column: str) -> str:
    """Return a column's formula, range and source in a sentence or two; "" for one that has no function here."""
    function = MEASURES.get(column)
    if function is None:
        return ""
    text = " ".join((inspect.getdoc(function) or "").partition("\n\nArgs:")[0].partition("\n\nRaises")[0].split())
    return re.sub(r"^Return [^:]*: ", "", text)


def html_page(tables: Mapping[str, list[list[str]]], note: str, settings: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        tables: benchmark -> rows of cells, the columns' names first; its images lie beside the page as
            `<benchmark>.png`.
        note: how a cell is read.
        settings: see `report.settings_of`.
    """
    parts = [
        "<!doctype html>", '<html lang="en">', '<meta charset="utf-8">', "<title>Evaluation</title>",
        f"<style>{_STYLE}</style>", "<h1>Evaluation</h1>", f"<p>{escape(note)}</p>",
    ]  # fmt: skip
    for name, (header, *rows) in tables.items():
        parts += [f"<h2>{escape(name)}</h2>", "<table>", _row("th", header), *(_row("td", row) for row in rows)]
        alt = escape(f"{name}: a line of pictures for each row of the table", quote=True)
        parts += ["</table>", f'<p><img src="{quote(name)}.png" alt="{alt}"></p>']
    columns = dict.fromkeys(re.sub(r" \((degrees|dB)\)$", "", cell) for rows in tables.values() for cell in rows[0][1:])
    parts += ["<h2>Columns</h2>", "<dl>"]
    parts += [f"<dt><b>{escape(name)}</b></dt><dd>{escape(explain(name))}</dd>" for name in columns if explain(name)]
    judge = settings.get("judge", {})
    made = f"Judged by {judge.get('kind')}, {str(judge.get('fingerprint'))[:16]}; no other judge's numbers compare."
    return "\n".join([*parts, "</dl>", f"<p>{escape(made)}</p>", "</html>", ""])


def _row(kind: str, cells: list[str]) -> str:
    return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"
