"""What is told at load of packages that hide or lack one another."""

import logging

import pytest
from dynamicid_pack.dynamicid_core import runtime
from dynamicid_pack.dynamicid_core.runtime import advice

WHOLE = {"insightface", "onnxruntime", "opencv-python"}


def test_nothing_is_told_where_nothing_is_wrong() -> None:
    assert not list(advice(WHOLE, cuda=False))
    assert not list(advice({"insightface", "onnxruntime-gpu", "opencv-python-headless"}, cuda=True))


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        (set(), "pip install insightface onnxruntime"),
        ({"onnxruntime-gpu"}, "pip install insightface"),
        ({"insightface"}, "pip install onnxruntime"),
    ],
)
def test_what_photographs_need_is_named(installed: set[str], expected: str) -> None:
    ((level, words),) = advice(installed, cuda=True)
    assert level == logging.INFO and words.endswith(expected)


def test_a_hidden_runtime_is_a_warning_with_what_to_do() -> None:
    ((level, words),) = advice({*WHOLE, "onnxruntime-gpu"}, cuda=True)
    assert level == logging.WARNING
    assert "pip uninstall -y onnxruntime onnxruntime-gpu, then python -m pip install onnxruntime-gpu" in words


def test_a_runtime_without_the_gpu_is_told_where_there_is_one() -> None:
    ((level, words),) = advice(WHOLE, cuda=True)
    assert level == logging.INFO and "onnxruntime-gpu" in words


def test_two_opencvs_are_told() -> None:
    ((level, words),) = advice({*WHOLE, "opencv-python-headless"}, cuda=False)
    assert level == logging.INFO and "opencv-python and opencv-python-headless" in words


def test_it_is_logged_for_this_python(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Twin:
        def __init__(self, name: str) -> None:
            self.metadata = {"Name": name}

    monkeypatch.setattr(
        runtime, "distributions", lambda: [Twin("onnxruntime"), Twin("onnxruntime_gpu"), Twin("insightface")]
    )
    with caplog.at_level(logging.INFO, "DynamicID"):
        runtime.tell(cuda=False)
    assert "onnxruntime and onnxruntime-gpu are installed over one another" in caplog.text
