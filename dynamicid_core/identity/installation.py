"""The command that installs what finds faces, and disturbs nothing that is there.

insightface asks pip for `onnxruntime` and `opencv-python` by name. Their twins (`onnxruntime-gpu`,
`opencv-python-headless`, ...) bring the same modules, and pip would put the plain ones over them: the GPU is then gone.
"""

from importlib.metadata import distributions
from importlib.util import find_spec

_MODULES = {  # distribution that insightface needs, beside those two -> its module
    "numpy": "numpy", "onnx": "onnx", "tqdm": "tqdm", "requests": "requests", "scipy": "scipy",
    "scikit-image": "skimage",
}  # fmt: skip
_PLAIN = {"onnxruntime": "onnxruntime", "opencv-python": "cv2"}


def install_command() -> str:
    """Return what to type so that faces are found, with the Python that runs this."""
    pip = "python -m pip install"
    installed = {(one.metadata["Name"] or "").lower().replace("_", "-") for one in distributions()}
    families = ("onnxruntime", "opencv-")
    twins = {name for name in installed for family in families if name.startswith(family) and name not in _PLAIN}
    if not twins:
        return f"{pip} insightface onnxruntime"
    missing = [name for name, module in (_MODULES | _PLAIN).items() if find_spec(module) is None]
    others = f"{pip} {' '.join(missing)} && " if missing else ""
    return f"{others}{pip} --no-deps insightface"


def is_installed() -> bool:
    """Return whether faces can be found: insightface and an onnxruntime are there."""
    return all(find_spec(module) is not None for module in ("insightface", "onnxruntime"))
