"""Which expression a face shows: as the picture's text says, or its name, or a classifier; else neutral."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..box import Box
from ..identity.analyzer import select_providers
from ..image_inputs import CLASSIFIER_SIDE as SIDE
from ..image_inputs import Image, classifier_input
from ..imr.motion import EXPRESSIONS
from .optional import needed

CLASSES = ("happy", "surprise", "sad", "anger", "disgust", "fear", "neutral")  # in the order of a classifier's outputs
_WORDS = {name: name for name in EXPRESSIONS} | {  # and what data sets call them
    "happiness": "happy", "sadness": "sad", "angry": "anger", "surprised": "surprise", "disgusted": "disgust",
    "afraid": "fear", "fearful": "fear",
}  # fmt: skip
_SAID = re.compile(r"\bin an? ([a-z]+) expression\b|\bexpression is ([a-z]+)\b")
_LONGEST = 4096  # characters of a sidecar that are read


def sidecar_text(path: Path) -> str | None:
    """What a file says of its picture: its beginning, without blanks about it; None where there is no file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST).strip()
    except OSError:
        return None


def from_sidecar(path: Path) -> str | None:
    """One of EXPRESSIONS, as a face prompt in a file says it; None where there is no file or it says none."""
    text = sidecar_text(path)
    return None if text is None else from_prompt(text)


def from_prompt(prompt: str) -> str | None:
    """ "in a happy expression, ..." or "the expression is happy, ..." to one of EXPRESSIONS, or None."""
    found = _SAID.search(prompt.lower())
    return _WORDS.get(found[1] or found[2]) if found else None


def from_name(path: str) -> str | None:
    """The expression in a file's name, or else in the name of the nearest folder that has one.

    Args:
        path: with /, without the person's folder. A name with words of two expressions says none.
    """
    place = PurePosixPath(path)
    for name in (place.stem, *(folder for folder in reversed(place.parts[:-1]))):
        said = {_WORDS[word] for word in re.findall(r"[a-z]+", name.lower()) if word in _WORDS}
        if said:
            return said.pop() if len(said) == 1 else None
    return None


class Classifier:
    """A network in an ONNX file: (n, 3, 64, 64), grey in three equal channels, to scores of CLASSES (n, 7).

    Raises ValueError when the file holds none, or a network of other shapes.
    """

    def __init__(self, file: Path, provider: str = "auto"):
        onnxruntime = needed("onnxruntime")
        try:
            self._session: Any = onnxruntime.InferenceSession(str(file), providers=select_providers(provider))
        except Exception as error:  # onnxruntime's own kinds
            raise ValueError(f"{file}: the expression model can't be loaded: {error}. Export it again.") from error
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else None
        if shape is None or len(shape) != 4 or list(shape[1:]) != [3, SIDE, SIDE]:
            raise ValueError(
                f"{file}: expected an expression model with one input of shape (n, 3, {SIDE}, {SIDE}), got "
                f"{[given.shape for given in inputs]}. Export it with such an input."
            )
        self._input = inputs[0].name
        self._file = file

    def __call__(self, crop: Image, box: Box) -> str:
        """One of EXPRESSIONS for the face in a box of an image, in pixels."""
        scores = np.asarray(self._session.run(None, {self._input: classifier_input(crop, box)})[0])
        if scores.shape != (1, len(CLASSES)) or not np.isfinite(scores).all():
            raise ValueError(
                f"{self._file}: expected {len(CLASSES)} finite scores ({', '.join(CLASSES)}), got shape {scores.shape}."
            )
        return CLASSES[int(scores.argmax())]
