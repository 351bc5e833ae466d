"""The command that installs what finds faces, and disturbs nothing that is there.

insightface asks pip for `onnxruntime` and `opencv-python` by name. Their twins (`onnxruntime-gpu`,
`opencv-python-headless`, ...) bring the same modules, and pip would put the plain ones over them: the GPU is then gone.
The newest OpenCV and onnx would also raise NumPy and protobuf, which other packs need as they are: with these versions
in the command, pip takes an OpenCV and an onnx that go with them.
"""

from importlib.metadata import distributions
from importlib.util import find_spec

_MODULES = {  # distribution that insightface needs, beside those two -> its module
    "numpy": "numpy", "onnx": "onnx", "tqdm": "tqdm", "requests": "requests", "scipy": "scipy",
    "scikit-image": "skimage",
}  # fmt: skip
_PLAIN = {"onnxruntime": "onnxruntime", "opencv-python": "cv2"}
_KEPT = ("numpy", "protobuf")
"""Distributions whose version stays as it is."""


def install_command() -> str:
    """Return what to type so that faces are found, with the Python that runs this."""
    pip = "python -m pip install"
    installed = {(one.metadata["Name"] or "").lower().replace("_", "-"): one.version for one in distributions()}
    kept = [f"{name}=={installed[name]}" for name in _KEPT if name in installed]
    families = ("onnxruntime", "opencv-")
    twins = {name for name in installed for family in families if name.startswith(family) and name not in _PLAIN}
    if not twins:
        return " ".join([pip, "insightface", "onnxruntime", *kept])
    missing = [name for name, module in (_MODULES | _PLAIN).items() if find_spec(module) is None]
    others = [pip, *missing, *kept, "&&"] if missing else []
    return " ".join([*others, pip, "--no-deps", "insightface"])


def is_installed() -> bool:
    """Return whether faces can be found: insightface and an onnxruntime are there."""
    return all(find_spec(module) is not None for module in ("insightface", "onnxruntime"))
