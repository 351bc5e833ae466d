"""Classify the expression of a face: of a photograph that is encoded, when data is built, when images are judged.

A classifier is an ONNX file with one input (n, channels, side, side) and scores (n, classes). Two kinds of input are
known, told apart by the channels:

- 3: `image_inputs.classifier_input`, as ResEmoteNet's (METHOD, face prompts), and the data builder's.
- 1: `image_inputs.gray_input`, as FER+'s (`emotion-ferplus-8.onnx` of ONNX's model zoo).

Classes are named in the file's metadata (`classes`: a JSON list, or names between commas) or in a JSON beside it, of
the same name: a list, or an object with `classes` or `id2label`. Where neither says, 7 classes of 3 channels are
ResEmoteNet's, 8 of one channel are FER+'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .box import Box
from .identity.analyzer import select_providers
from .image_inputs import CLASSIFIER_SIDE, Image, classifier_input, gray_input
from .imr.motion import EXPRESSION_WORDS, EXPRESSIONS
from .messages import about, printable, quoted, shown

CLASSES = ("happy", "surprise", "sad", "anger", "disgust", "fear", "neutral")
"""ResEmoteNet's, in the order of its outputs."""
FERPLUS_CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""FER+'s, in the order of its outputs."""
_NO_EXPRESSION = frozenset({"contempt"})
"""Classes that are none of EXPRESSIONS: what scores best beside them is said."""
_KNOWN: dict[tuple[int, int], Sequence[str]] = {(3, len(CLASSES)): CLASSES, (1, len(FERPLUS_CLASSES)): FERPLUS_CLASSES}
"""(channels, classes) -> the names, where a file tells none."""
_INPUTS = {3: classifier_input, 1: gray_input}
_SIDES = range(16, 513)
_LARGEST_NAMES = 100_000  # bytes of a JSON of names
_EXPECTED = f"Name each class as one of {', '.join(EXPRESSIONS)}"


class ExpressionClassifier:
    """A network in an ONNX file that says which of EXPRESSIONS a face shows.

    Attributes:
        classes: names of its classes, in the order of its outputs.

    Raises:
        ValueError: the file doesn't hold a network, or one of other shapes or classes.
        ModuleNotFoundError: onnxruntime is not installed.
    """

    def __init__(self, file: Path, provider: str = "auto"):
        import onnxruntime

        self._file = file
        try:
            self._session: Any = onnxruntime.InferenceSession(str(file), providers=select_providers(provider))
        except Exception as error:  # onnxruntime's own kinds
            reason = printable(str(error))
            raise ValueError(
                f"{shown(file)}: the expression model can't be loaded: {reason}. Export it again."
            ) from error
        self._channels, self._side = self._input_size()
        self._input = self._session.get_inputs()[0].name
        count = self._scores(np.zeros((self._side, self._side, 3), np.uint8), Box(0, 0, self._side, self._side)).size
        self.classes = self._names(count)
        self._expressions = [EXPRESSION_WORDS.get(name.lower(), "") for name in self.classes]

    def __call__(self, image: Image, box: Box) -> str:
        """Return one of EXPRESSIONS for the face in a box of an image, in pixels.

        Raises ValueError for scores that aren't finite.
        """
        scores = self._scores(image, box)
        if scores.shape != (len(self.classes),):
            raise ValueError(
                f"{shown(self._file)}: expected {len(self.classes)} finite scores ({', '.join(self.classes)}), got "
                f"{scores.size}. Export the expression model again."
            )
        _, best = max((float(score), name) for score, name in zip(scores, self._expressions, strict=True) if name)
        return best

    def _scores(self, image: Image, box: Box) -> NDArray[np.floating]:
        """Return the network's scores of a face, (classes,)."""
        seen = _INPUTS[self._channels](image, box, self._side)
        try:
            scores = np.asarray(self._session.run(None, {self._input: seen})[0])
        except Exception as error:  # onnxruntime's own kinds
            raise ValueError(
                f"{shown(self._file)}: the expression model can't be run: {printable(str(error))}. Export it again."
            ) from error
        if scores.ndim != 2 or len(scores) != 1 or not np.isfinite(scores).all():
            raise ValueError(
                f"{shown(self._file)}: expected finite scores of shape (1, classes) from the expression model, got "
                f"shape {scores.shape}{'' if np.isfinite(scores).all() else ' with NaN or infinity'}. Export it again."
            )
        return np.asarray(scores[0], np.float64)

    def _input_size(self) -> tuple[int, int]:
        """Return the channels and the side of what the network takes. Raises ValueError where that is of no kind."""
        shapes = [list(one.shape) for one in self._session.get_inputs()]
        if len(shapes) == 1 and len(shapes[0]) == 4:
            _, channels, height, width = shapes[0]
            if channels in _INPUTS and height == width and height in _SIDES:
                return channels, height
        sides = f"sides from {_SIDES[0]} to {_SIDES[-1]}"
        raise ValueError(
            f"{shown(self._file)}: expected an expression model with one input of shape (n, 3, {CLASSIFIER_SIDE}, "
            f"{CLASSIFIER_SIDE}), or of one channel as FER+'s, {sides}, got {quoted(shapes)}. Export it with such an "
            "input."
        )

    def _names(self, count: int) -> tuple[str, ...]:
        """Return the classes' names. Raises ValueError where they are unknown, or not so many."""
        names = self._told_names() or _KNOWN.get((self._channels, count))
        if names is None:
            known = "; ".join(f"{len(names)} of {channels}" for (channels, _), names in _KNOWN.items())
            raise ValueError(
                f"{shown(self._file)}: expected the names of its {count} classes in the expression model's metadata "
                f"(`classes`) or in {printable(self._file.stem)}.json beside it: without names, classes of channels "
                f"are known for {known} alone. {_EXPECTED}."
            )
        words = [name.lower() for name in names]
        unknown = [name for name in words if name not in EXPRESSION_WORDS and name not in _NO_EXPRESSION]
        expressions = [EXPRESSION_WORDS[name] for name in words if name in EXPRESSION_WORDS]
        if len(names) != count or unknown or len(set(expressions)) < max(2, len(expressions)):
            raise ValueError(
                f"{shown(self._file)}: expected {count} names of expressions for as many classes, each once, got "
                f"{quoted(', '.join(names))}. {_EXPECTED}."
            )
        return tuple(names)

    def _told_names(self) -> list[str] | None:
        """Return the names that the file's metadata or the JSON beside it tells; None where neither does."""
        told = self._session.get_modelmeta().custom_metadata_map.get("classes")
        if told:
            try:
                return _listed(json.loads(told))
            except ValueError:
                return [name.strip() for name in re.split("[,\n]", told) if name.strip()]
        beside = self._file.with_suffix(".json")
        if not beside.is_file():
            return None
        with about(beside):
            if beside.stat().st_size > _LARGEST_NAMES:
                raise ValueError(f"expected the names of classes, at most {_LARGEST_NAMES:,} bytes of JSON.")
            try:
                return _listed(json.loads(beside.read_text("utf-8")))
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    "expected a JSON list of the names of the expression model's classes, or an object with "
                    f"`classes` or `id2label`: {printable(str(error))}. {_EXPECTED}."
                ) from error


def _listed(told: Any) -> list[str]:
    """Return the names in what JSON told. Raises ValueError for anything else."""
    if isinstance(told, dict):
        told = told.get("classes", told.get("id2label"))
    if isinstance(told, dict) and set(told) == set(map(str, range(len(told)))):
        told = [told[str(number)] for number in range(len(told))]
    if not isinstance(told, list) or not told or not all(isinstance(name, str) for name in told):
        raise ValueError(f"these are no names: {quoted(told)}")
    return told
