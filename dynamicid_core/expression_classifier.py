"""Classify the expression of a face, when data is built and when images are judged."""

from pathlib import Path
from typing import Any

import numpy as np

from .box import Box
from .identity.analyzer import select_providers
from .image_inputs import CLASSIFIER_SIDE, Image, classifier_input
from .messages import printable, shown

CLASSES = ("happy", "surprise", "sad", "anger", "disgust", "fear", "neutral")
"""ResEmoteNet's, in the order of its outputs."""


class ExpressionClassifier:
    """A network in an ONNX file, from `image_inputs.classifier_input` (n, 3, 64, 64) to scores of CLASSES (n, 7).

    Raises:
        ValueError: the file doesn't hold a network, or one of other shapes.
        ModuleNotFoundError: onnxruntime is not installed.
    """

    def __init__(self, file: Path, provider: str = "auto"):
        import onnxruntime

        try:
            self._session: Any = onnxruntime.InferenceSession(str(file), providers=select_providers(provider))
        except Exception as error:  # onnxruntime's own kinds
            reason = printable(str(error))
            raise ValueError(
                f"{shown(file)}: the expression model can't be loaded: {reason}. Export it again."
            ) from error
        shape = [3, CLASSIFIER_SIDE, CLASSIFIER_SIDE]
        shapes = [node.shape for node in self._session.get_inputs()]
        if len(shapes) != 1 or list(shapes[0][1:]) != shape:
            raise ValueError(
                f"{file}: expected an expression model with one input of shape (n, {', '.join(map(str, shape))}), got "
                f"{shapes}. Export it with such an input."
            )
        self._input, self._file = self._session.get_inputs()[0].name, file
        self(np.zeros(shape[::-1], np.uint8), Box(0, 0, CLASSIFIER_SIDE, CLASSIFIER_SIDE))  # refuses other outputs now

    def __call__(self, image: Image, box: Box) -> str:
        """Return one of CLASSES for the face in a box of an image, in pixels.

        Raises ValueError for scores that aren't finite.
        """
        scores = np.asarray(self._session.run(None, {self._input: classifier_input(image, box)})[0])
        if scores.shape != (1, len(CLASSES)) or not np.isfinite(scores).all():
            raise ValueError(
                f"{self._file}: expected {len(CLASSES)} finite scores ({', '.join(CLASSES)}), got shape {scores.shape}."
            )
        return CLASSES[int(scores.argmax())]
