"""Faces in pictures: found and described by insightface, put in order, one chosen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..box import Box
from ..image_inputs import Image
from ..imr.landmarks import FRAME

logger = logging.getLogger("DynamicID")

ORDERS = ("largest", "left to right", "centre")
PROVIDERS = {  # as the node names them: as onnxruntime does
    "CPU": "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "ROCm": "ROCMExecutionProvider",
    "DirectML": "DmlExecutionProvider",
    "OpenVINO": "OpenVINOExecutionProvider",
    "CoreML": "CoreMLExecutionProvider",
}
RECOGNITION = "w600k_r50"  # buffalo_l's recognition model, which the release's face encoder was trained with
_TASKS = {  # what an analyzer must do, and the file of buffalo_l that does it
    "detection": "det_10g.onnx",
    "recognition": "w600k_r50.onnx",
    "landmark_2d_106": "2d106det.onnx",
    "landmark_3d_68": "1k3d68.onnx",
}
_CANVAS = 640  # pixels a side of what the detector sees
_SIDES = range(_CANVAS, 319, -64)  # the picture's longer side on it: large faces are only found when they are smaller


@dataclass(frozen=True, eq=False)
class Face:
    """What is known of the face an identity was made from; None where it isn't.

    Attributes:
        embedding: (512,) float32, L2-normalised ArcFace embedding.
        landmarks: (106, 2) float32, insightface's 2-D landmarks, in the picture squashed to 512 x 512.
        points68: (68, 3) float32, iBUG's points in pixels of the picture, z towards the viewer.
        pose: (pitch, yaw, roll) in degrees, see `landmarks`.
        box: in pixels of the image.
        size: (height, width) of the picture.
        score: the detector's, 0..1.
    """

    embedding: Tensor | None = None
    landmarks: Tensor | None = None
    points68: Tensor | None = None
    pose: tuple[float, float, float] | None = None
    box: Box | None = None
    size: tuple[int, int] | None = None
    score: float | None = None


@dataclass(frozen=True, eq=False)
class Detection:
    """Where a face is: box (4,) and five keypoints (5, 2) in pixels, and how sure the detector is."""

    box: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    score: float

    @property
    def area(self) -> float:
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))

    @property
    def centre(self) -> NDArray[np.floating]:
        return (self.box[:2] + self.box[2:]) / 2


def in_order(found: Sequence[Detection], order: str, size: tuple[int, int]) -> list[Detection]:
    """Faces in one of ORDERS: by area, from the picture's left, or by distance from its centre.

    Args:
        size: (height, width) of the picture.
    """
    if order not in ORDERS:
        raise ValueError(f"Faces can be ordered by {', '.join(ORDERS)}, got {order!r}.")
    middle = np.array([size[1], size[0]]) / 2
    keys = {
        "largest": lambda face: -face.area,
        "left to right": lambda face: float(face.centre[0]),
        "centre": lambda face: float(np.linalg.norm(face.centre - middle)),
    }
    return sorted(found, key=keys[order])


class FaceAnalyzer:
    """insightface's FaceAnalysis, ours or another pack's, which is used and never changed.

    Args:
        analysis: has `det_model` and `models` by task.
        embeds_rgb: hand the recognition model pictures in RGB where insightface expects BGR, as the release does: its
            face encoder was trained on such embeddings.

    Raises ValueError when a model is missing or the recognition model is another one.
    """

    def __init__(self, analysis: Any, embeds_rgb: bool = True):
        models = getattr(analysis, "models", None)
        if not isinstance(models, dict):
            raise ValueError(
                f"Expected insightface's FaceAnalysis, got {type(analysis).__name__}. Connect an insightface loader, "
                "or leave it to Load DynamicID's face_pack."
            )
        missing = [f"{task} ({file})" for task, file in _TASKS.items() if task not in models]
        if missing:
            raise ValueError(
                f"The face pack lacks {', '.join(missing)}. Put all files of buffalo_l into its folder under "
                "models/insightface/models."
            )
        name = Path(str(getattr(models["recognition"], "model_file", ""))).stem
        if name != RECOGNITION:
            which = "antelopev2's" if name.startswith("glintr") else "another one's"
            raise ValueError(
                f"The recognition model is {name or 'unknown'} ({which}), and identities need buffalo_l's "
                f"{RECOGNITION}: embeddings of two models have nothing in common. Choose buffalo_l."
            )
        self.analysis, self._embeds_rgb = analysis, embeds_rgb

    def detect(self, image: Image) -> list[Detection]:
        """All faces of a picture, the surest first; [] when there is none.

        The picture is tried at several sizes on the canvas that the detector sees, which leaves the detector alone.
        """
        import cv2

        height, width = image.shape[:2]
        for side in _SIDES:
            scale = side / max(height, width)
            shape = (max(1, round(width * scale)), max(1, round(height * scale)))
            canvas = np.zeros((_CANVAS, _CANVAS, 3), np.uint8)
            canvas[: shape[1], : shape[0]] = cv2.resize(image[..., ::-1], shape, interpolation=cv2.INTER_LINEAR)
            boxes, keypoints = self.analysis.det_model.detect(canvas)
            if len(boxes):
                back = np.array([width / shape[0], height / shape[1]], np.float32)
                return [
                    Detection(box[:4] * np.tile(back, 2), points * back, float(box[4]))
                    for box, points in zip(boxes, keypoints, strict=True)
                ]
        return []

    def describe(self, image: Image, found: Detection) -> Face:
        """Embedding and pose from the picture as it is, landmarks from the picture squashed to a square."""
        import cv2

        bgr = np.ascontiguousarray(image[..., ::-1])
        size = (image.shape[0], image.shape[1])
        face = _insight_face(found)
        embedding = self._run("recognition", np.ascontiguousarray(image) if self._embeds_rgb else bgr, face)
        points68 = self._run("landmark_3d_68", bgr, face)

        squash = np.array([FRAME / size[1], FRAME / size[0]], np.float32)
        how = cv2.INTER_AREA if max(size) > FRAME else cv2.INTER_LINEAR
        square = cv2.resize(image, (FRAME, FRAME), interpolation=how).astype(np.uint8, copy=False)
        again = self.detect(square)
        if again:
            nearest = min(again, key=lambda other: float(np.linalg.norm(other.centre - found.centre * squash)))
            landmarks = self._run("landmark_2d_106", np.ascontiguousarray(square[..., ::-1]), _insight_face(nearest))
        else:  # squashed, it is no longer found
            landmarks = self._run("landmark_2d_106", bgr, face) * squash
        pitch, yaw, roll = (float(angle) for angle in face.pose)
        length = np.linalg.norm(embedding)
        return Face(
            embedding=torch.from_numpy(embedding / max(float(length), 1e-12)).float(),
            landmarks=torch.from_numpy(np.asarray(landmarks)).float(),
            points68=torch.from_numpy(np.asarray(points68)).float(),
            pose=(pitch, yaw, roll),
            box=Box.of(found.box),
            size=size,
            score=found.score,
        )

    def _run(self, task: str, picture: Image, face: Any) -> NDArray[np.float32]:
        """What a model says of a face in a BGR picture."""
        return np.array(self.analysis.models[task].get(picture, face), np.float32)


def _insight_face(found: Detection) -> Any:
    from insightface.app.common import Face as InsightFace

    return InsightFace(bbox=found.box, kps=found.keypoints, det_score=found.score)


def find_packs(folders: Sequence[Path]) -> dict[str, Path]:
    """Face packs (folders that hold ONNX files) by name, in insightface's folders or in their `models`.

    A pack that was unpacked one folder too deep (antelopev2/antelopev2) is found under its name.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for root in (folder / "models", folder):
            for pack in sorted(path for path in root.glob("*") if path.is_dir()):
                for place in (pack, pack / pack.name):
                    if any(place.glob("*.onnx")):
                        found.setdefault(pack.name, place)
    return found


def chosen_providers(wanted: str) -> list[str]:
    """onnxruntime's providers for "auto" (what it prefers itself) or one of PROVIDERS, the CPU always last."""
    import onnxruntime

    offered = onnxruntime.get_available_providers()
    if wanted == "auto":
        known = [provider for provider in offered if provider in PROVIDERS.values()]
    elif wanted not in PROVIDERS:
        raise ValueError(f"Expected auto or one of {', '.join(PROVIDERS)} as provider, got {wanted!r}.")
    else:
        known = [provider for provider in offered if provider == PROVIDERS[wanted]]
        if not known:
            logger.warning(
                "DynamicID: onnxruntime offers no %s here (it offers %s); faces are analysed on the CPU. For CUDA "
                "install onnxruntime-gpu alone: onnxruntime beside it hides it.", wanted, ", ".join(offered),
            )  # fmt: skip
    cpu = PROVIDERS["CPU"]
    return [*(provider for provider in known if provider != cpu), cpu]


def load_analyzer(pack: Path, provider: str = "auto", embeds_rgb: bool = True) -> FaceAnalyzer:
    """Load a face pack.

    Raises:
        ModuleNotFoundError: insightface or onnxruntime is not installed.
        ValueError: the folder lacks a model, or one can't be loaded.
    """
    missing = [file for file in _TASKS.values() if not (pack / file).is_file()]
    if missing:
        raise ValueError(f"The face pack {pack.name} lacks {', '.join(missing)}. Unpack buffalo_l again, all of it.")
    try:
        from insightface.app import FaceAnalysis
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed, which finds faces: python -m pip install insightface onnxruntime, "
            "with the Python that runs ComfyUI."
        ) from error

    providers = chosen_providers(provider)
    try:
        analysis = FaceAnalysis(name=str(pack.resolve()), allowed_modules=list(_TASKS), providers=providers)
    except Exception as error:  # onnxruntime's own kinds
        raise ValueError(f"The face pack {pack.name} can't be loaded: {error}. Unpack it again.") from error
    analysis.prepare(ctx_id=-1 if providers == [PROVIDERS["CPU"]] else 0, det_size=(_CANVAS, _CANVAS))
    return FaceAnalyzer(analysis, embeds_rgb)
