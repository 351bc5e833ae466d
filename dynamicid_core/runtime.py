"""Which of the packages that analyze faces are installed, and what to do where they hide or lack one another.

Several packages hold the module `onnxruntime`, and several hold `cv2`: of two that are installed the later one has
overwritten the other's files, whatever pip lists.
"""

import logging
from collections.abc import Collection, Iterator
from importlib.metadata import distributions

logger = logging.getLogger("DynamicID")

_ONNX = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-rocm")
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


def advice(installed: Collection[str], cuda: bool) -> Iterator[tuple[int, str]]:
    """Yield what a user should know before their first photograph: level of logging, and a sentence with what to do.

    Args:
        installed: names of packages, as pip writes them.
        cuda: whether PyTorch has an NVIDIA GPU.
    """
    runtimes = [name for name in _ONNX if name in installed]
    missing = [
        name for name, there in (("insightface", "insightface" in installed), ("onnxruntime", runtimes)) if not there
    ]
    if missing:
        yield logging.INFO, (
            f"to make identities from photographs, install {' and '.join(missing)}: "
            f"python -m pip install {' '.join(missing)}"
        )  # fmt: skip
    if len(runtimes) > 1:
        accelerated = next(name for name in runtimes if name != "onnxruntime")
        yield logging.WARNING, (
            f"{' and '.join(runtimes)} are installed over one another, and one hides the other. Keep one: "
            f"python -m pip uninstall -y {' '.join(runtimes)}, then python -m pip install {accelerated}"
        )  # fmt: skip
    elif cuda and runtimes == ["onnxruntime"]:
        yield logging.INFO, (
            "faces are analyzed on the CPU, since onnxruntime is the build without CUDA. For the GPU: "
            "python -m pip uninstall -y onnxruntime, then python -m pip install onnxruntime-gpu"
        )  # fmt: skip
    twins = [name for name in _OPENCV if name in installed]
    if len(twins) > 1:
        yield logging.INFO, (
            f"{' and '.join(twins)} are installed over one another (insightface brings opencv-python). If cv2 fails: "
            f"python -m pip uninstall -y {' '.join(twins)}, then python -m pip install {twins[0]}"
        )  # fmt: skip


def tell(cuda: bool) -> None:
    """Log the advice for this Python."""
    installed = {(dist.metadata["Name"] or "").lower().replace("_", "-") for dist in distributions()}
    for level, words in advice(installed, cuda):
        logger.log(level, "DynamicID: %s", words)
