"""What the evaluation imports before it is asked to judge."""

import subprocess
import sys

import pytest
from dynamicid_pack.tests.support import ROOT

pytestmark = pytest.mark.train  # another Python imports torch

LATER = ("insightface", "onnxruntime", "transformers", "cv2", "comfy", "mini", "nodes")


def test_models_packages_and_the_host_are_not_imported_with_the_command() -> None:
    code = f"import dynamicid_core.evaluation.__main__, sys; print([m for m in {LATER} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
