"""The miniature's judge and face pack, which know drawn people."""

import os

import pytest
from dynamicid_pack.dynamicid_core.evaluation.judges import Judge, load_judge
from dynamicid_pack.dynamicid_core.identity.analyzer import FaceAnalyzer, load_analyzer
from dynamicid_pack.tests.support import ROOT

FACE_PACK = ROOT / "mini" / "weights" / "face-pack"


@pytest.fixture(scope="session")
def judge() -> Judge:
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("needs a host's tokenizer: run `python dev.py test`, or set COMFYUI_PATH to ComfyUI's folder")
    return load_judge("mini.train.judging:judge", {})


@pytest.fixture(scope="session")
def analyzer() -> FaceAnalyzer:
    return load_analyzer(FACE_PACK, embeds_rgb=False)
