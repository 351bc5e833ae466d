"""insightface's models as one analyzer: faces detected and described, packs and providers found."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..box import Box
from ..image_inputs import Image
from ..imr.landmarks import FRAME
from ..messages import printable
from .faces import Detection, Face, without_duplicates
from .installation import install_command

logger = logging.getLogger("DynamicID")

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
_SIDES = range(_CANVAS, 319, -64)  # the image's longer side on it: large faces are only detected when smaller
_SMALLEST = 8  # pixels of an image's shorter side, below which no eyes, nose and mouth lie apart
_TILE_SIDES = (_CANVAS, 320)  # the same for a tile


class Tile(NamedTuple):
    """A rectangle of an image, in whole pixels."""

    x0: int
    y0: int
    x1: int
    y1: int


class FaceAnalyzer:
    """insightface's FaceAnalysis, this pack's or another's; it is used and never changed.

    Args:
        analysis: has `det_model` and `models` by task.
        embeds_rgb: hand the recognition model images in RGB where insightface expects BGR, as the release does: its
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
        self.analysis, self.embeds_rgb = analysis, embeds_rgb

    def detect(self, image: Image, in_tiles: bool = True) -> list[Detection]:
        """Return all faces of an image, the highest score first; [] when there is none.

        The image is tried at several sizes on the canvas that the detector sees; a long or large one that shows no
        face so, in overlapping tiles, too. The shared detector's settings are never changed.

        Args:
            in_tiles: off leaves the tiles out, where a face that is small in its image is of no use.
        """
        if min(image.shape[:2]) < _SMALLEST:
            return []
        for side in _SIDES:
            if detections := self._detect_at(image, side):
                return detections
        tiles = _tiles(image.shape[0], image.shape[1]) if in_tiles else []
        for side in _TILE_SIDES if len(tiles) > 1 else ():
            detections = [
                detection.moved(tile.x0, tile.y0)
                for tile in tiles
                for detection in self._detect_at(image[tile.y0 : tile.y1, tile.x0 : tile.x1], side)
            ]
            if detections:
                return without_duplicates(detections)
        return []

    def _detect_at(self, image: Image, side: int) -> list[Detection]:
        """Return the faces that the detector sees when the image's longer side has so many pixels of the canvas."""
        import cv2

        height, width = image.shape[:2]
        scale = side / max(height, width)
        shape = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = np.zeros((_CANVAS, _CANVAS, 3), np.uint8)
        canvas[: shape[1], : shape[0]] = cv2.resize(image[..., ::-1], shape, interpolation=cv2.INTER_LINEAR)
        boxes, keypoints = self.analysis.det_model.detect(canvas)
        back = np.array([width / shape[0], height / shape[1]], np.float32)
        return [
            Detection(Box.of(box[:4] * np.tile(back, 2)), points * back, float(box[4]))
            for box, points in zip(boxes, keypoints if len(boxes) else (), strict=True)
        ]

    def embed(self, image: Image, detection: Detection) -> Tensor:
        """Return a face's L2-normalized embedding (512,), without the rest of what `describe` tells."""
        return self._embedding(image, _insight_face(detection))

    def _embedding(self, image: Image, face: Any) -> Tensor:
        seen = image if self.embeds_rgb else image[..., ::-1]
        embedding = self._run("recognition", np.ascontiguousarray(seen), face)
        return torch.from_numpy(embedding / max(float(np.linalg.norm(embedding)), 1e-12)).float()

    def describe(self, image: Image, detection: Detection) -> Face:
        """Return a face with embedding and pose from the image as it is, landmarks from it squashed to a square."""
        import cv2

        bgr = np.ascontiguousarray(image[..., ::-1])
        size = (image.shape[0], image.shape[1])
        face = _insight_face(detection)
        embedding = self._embedding(image, face)
        points68 = self._run("landmark_3d_68", bgr, face)

        squash = (FRAME / size[1], FRAME / size[0])
        how = cv2.INTER_AREA if max(size) > FRAME else cv2.INTER_LINEAR
        square = cv2.resize(image, (FRAME, FRAME), interpolation=how).astype(np.uint8, copy=False)
        again = self.detect(square)
        if again:
            center = detection.box.scaled(*squash).center
            nearest = min(again, key=lambda other: math.dist(other.box.center, center))
            landmarks = self._run("landmark_2d_106", np.ascontiguousarray(square[..., ::-1]), _insight_face(nearest))
        else:  # squashed, it is no longer found
            landmarks = self._run("landmark_2d_106", bgr, face) * np.array(squash, np.float32)
        pitch, yaw, roll = (float(angle) for angle in face.pose)  # set by landmark_3d_68, in degrees
        return Face(
            embedding=embedding,
            landmarks=torch.from_numpy(np.asarray(landmarks)).float(),
            points68=torch.from_numpy(np.asarray(points68)).float(),
            pose=(pitch, yaw, roll),
            box=detection.box,
            size=size,
            score=detection.score,
        )

    def _run(self, task: str, bgr: Image, face: Any) -> NDArray[np.float32]:
        """Return a model's output for a face in a BGR image."""
        return np.array(self.analysis.models[task].get(bgr, face), np.float32)


def aligned_face(image: Image, keypoints: NDArray[np.float32], size: int) -> Image:
    """Return the face turned upright as ArcFace's crops are, by its five keypoints (5, 2): (size, size, 3)."""
    from insightface.utils.face_align import norm_crop

    return np.asarray(norm_crop(image, keypoints, size), np.uint8)


def _insight_face(detection: Detection) -> Any:
    from insightface.app.common import Face as InsightFace

    return InsightFace(bbox=np.array(detection.box, np.float32), kps=detection.keypoints, det_score=detection.score)


def _tiles(height: int, width: int) -> list[Tile]:
    """Return tiles that cover an image, each overlapping the next by half; one where the whole is hardly larger.

    A tile has the detector's resolution, but at least half the image's shorter side: a large image has few.
    """
    side = max(_CANVAS, min(height, width) // 2)
    rows, columns = (
        sorted({min(start, length - min(side, length)) for start in range(0, length, side // 2)})
        for length in (height, width)
    )
    return [Tile(x, y, min(x + side, width), min(y + side, height)) for y in rows for x in columns]


def find_packs(folders: Sequence[Path]) -> dict[str, Path]:
    """Return face packs (folders that hold ONNX files) by name, from insightface's folders or their `models`.

    A pack that was unpacked one folder too deep (antelopev2/antelopev2) has its own name.
    """
    packs: dict[str, Path] = {}
    for folder in folders:
        for root in (folder / "models", folder):
            for pack in sorted(path for path in root.glob("*") if path.is_dir()):
                for place in (pack, pack / pack.name):
                    if any(place.glob("*.onnx")):
                        packs.setdefault(pack.name, place)
    return packs


def missing_files(pack: Path) -> list[str]:
    """Return the models that a face pack lacks, by the names of their files."""
    return [file for file in _TASKS.values() if not (pack / file).is_file()]


def select_providers(provider: str) -> list[str]:
    """Return onnxruntime's providers for "auto" (its own preference) or one of PROVIDERS, the CPU always last."""
    import onnxruntime

    if provider != "auto" and provider not in PROVIDERS:
        raise ValueError(f"Expected auto or one of {', '.join(PROVIDERS)} as provider, got {provider!r}.")
    available = onnxruntime.get_available_providers()
    usable = PROVIDERS.values() if provider == "auto" else [PROVIDERS[provider]]
    selected = [name for name in available if name in usable]
    if not selected and provider != "auto":
        logger.warning(
            "DynamicID: onnxruntime offers no %s here (it offers %s); faces are analyzed on the CPU. For CUDA "
            "install onnxruntime-gpu alone: onnxruntime beside it hides it.", provider, ", ".join(available),
        )  # fmt: skip
    cpu = PROVIDERS["CPU"]
    return [*(name for name in selected if name != cpu), cpu]


def load_analyzer(pack: Path, provider: str = "auto", embeds_rgb: bool = True) -> FaceAnalyzer:
    """Load a face pack.

    Raises:
        ModuleNotFoundError: insightface or onnxruntime is not installed.
        ValueError: the folder lacks a model, or one can't be loaded.
    """
    if missing := missing_files(pack):
        raise ValueError(
            f"The face pack {printable(pack.name)} lacks {', '.join(missing)}. Unpack buffalo_l again, all of it."
        )
    try:
        from insightface.app import FaceAnalysis
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed, which finds faces. In the Python that runs ComfyUI: {install_command()}"
        ) from error

    providers = select_providers(provider)
    try:
        analysis = FaceAnalysis(name=str(pack.resolve()), allowed_modules=list(_TASKS), providers=providers)
    except Exception as error:  # onnxruntime's own kinds
        reason = printable(str(error))
        raise ValueError(f"The face pack {printable(pack.name)} can't be loaded: {reason}. Unpack it again.") from error
    analysis.prepare(ctx_id=-1 if providers == [PROVIDERS["CPU"]] else 0, det_size=(_CANVAS, _CANVAS))
    return FaceAnalyzer(analysis, embeds_rgb)
