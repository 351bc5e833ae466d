"""The standard face that ships in web/ is what its command writes."""

import json
from pathlib import Path

import numpy as np
from dynamicid_pack.dynamicid_core.imr.motion import EXPRESSIONS
from dynamicid_pack.mini.train.standard_face import write_standard_face

SHIPPED = Path(__file__).resolve().parents[2] / "web" / "standard_face.js"


def test_the_shipped_face_is_what_the_command_writes(tmp_path: Path) -> None:
    opening, shipped = SHIPPED.read_text("utf-8").split("export const STANDARD_FACE = ")
    again, written = write_standard_face(tmp_path / "face.js").read_text("utf-8").split("export const STANDARD_FACE = ")
    face, other = json.loads(shipped), json.loads(written)
    assert opening == again and face.keys() == other.keys()
    assert set(face["shapes"]) == set(EXPRESSIONS)
    for name in EXPRESSIONS:  # the last digit may differ between systems
        np.testing.assert_allclose(face["shapes"][name], other["shapes"][name], atol=1.5e-4)
    np.testing.assert_allclose(face["points"], face["shapes"]["neutral"], atol=1e-9)
