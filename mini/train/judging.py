"""The miniature's judge and encoders as a judge of `dynamicid_core.evaluation`: of images of drawn people."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import encoders
from . import judge as judges
from .autoencoder import as_input
from .core import Box, JudgedFace
from .pictures import NAMES
from .ship import as_shipped
from .stage import TrainContext
from .words import words

SHIPPED = Path(__file__).resolve().parents[1] / "weights"
HEIGHT = 128  # pixels of the pictures that the networks know
_CELLS = 16  # the scene network halves a picture so often that its sides are multiples of this


class Shipped(TrainContext):
    """A context whose stages hold what ships in its folder."""

    def stored(self, stage: str) -> dict[str, Tensor]:
        return as_shipped(self.folder, stage)


class MiniatureJudge:
    """A judge of drawn people in images (H, W, 3) uint8 RGB, which are resized to HEIGHT first.

    Its embeddings are the judge's own, not the face pack's that identities are made from.
    """

    def __init__(self, context: TrainContext, fingerprint: str):
        self._context, self.fingerprint = context, fingerprint
        self._judge = context.load("judge", judges.Judge())
        self._text, self._vision = encoders.load_text(context), encoders.load_vision(context)

    def faces(self, image: NDArray[np.uint8]) -> Sequence[JudgedFace]:
        """Return all faces, left to right: embeddings (96,)."""
        judged, faces = self._judged(image), []
        if judged is None:
            return []
        boxes, verdict = judged
        for i, box in enumerate(boxes):
            pitch, yaw, roll = (float(angle) for angle in verdict.pose[i])
            name = NAMES[verdict.kinds["expression"][i]]
            faces.append(JudgedFace(Box.of(box), (pitch, yaw, roll), verdict.embedding[i], name))
        return faces

    def expression_log_probs(self, image: NDArray[np.uint8]) -> dict[str, float]:
        """Return the log-probability of each expression on the largest face; empty without a face."""
        judged = self._judged(image)
        if judged is None:
            return {}
        boxes, verdict = judged
        largest = int(np.argmax((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))
        return dict(zip(NAMES, verdict.expressions[largest].tolist(), strict=True))

    def _judged(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], judges.Verdict] | None:
        """Return the boxes (k, 4) of all faces in pixels, left to right, and what the judge says of them; or None."""
        resized = _to_height(image)
        _, (boxes,) = judges.judge_scenes(self._judge, resized[None], self._context)
        if not len(boxes):
            return None
        verdict = judges.judge_faces(self._judge, np.repeat(resized[None], len(boxes), 0), boxes, self._context)
        scale = np.tile([image.shape[1] / resized.shape[1], image.shape[0] / resized.shape[0]], 2)
        return np.asarray(boxes.float().numpy() * scale, np.float32), verdict

    def image_vector(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the image's embedding (128,)."""
        with torch.no_grad():
            return np.asarray(encoders.see(self._vision, as_input(image[None], self._context.device))[1][0].numpy())

    def text_vector(self, text: str) -> NDArray[np.float32]:
        """Return the text's embedding (128,); words that no caption uses count as unknown."""
        with torch.no_grad():
            return np.asarray(encoders.read(self._text, words().batch([text]))[1][0].numpy())


def judge(weights: str = "") -> MiniatureJudge:
    """Load the judge from a folder of shipped weights, the pack's own by default.

    Raises ValueError when COMFYUI_PATH does not name ComfyUI's folder, whose tokenizer reads the prompts.
    """
    folder = Path(weights) if weights else SHIPPED
    return MiniatureJudge(Shipped(folder), _fingerprint(folder))


def _to_height(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    width = max(1, round(image.shape[1] * HEIGHT / image.shape[0] / _CELLS)) * _CELLS
    if image.shape[:2] == (HEIGHT, width):
        return image
    how = cv2.INTER_AREA if image.shape[0] > HEIGHT else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, HEIGHT), interpolation=how), np.uint8)


def _fingerprint(folder: Path) -> str:
    """Return the sha256 in hex of the weights that judge."""
    weights = [(folder / f"{name}.safetensors").read_bytes() for name in ("judge", "text", "vision")]
    return hashlib.sha256(b"".join(weights)).hexdigest()
