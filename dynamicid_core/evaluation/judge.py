"""Who looks at the pictures: what a judge answers, and which there are."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..box import Box
from ..image_inputs import Image

MODELS = "models"
IN_THE_PACK = ("mini.train.judging:judge",)
"""Judges that a configuration may name: module:factory, from the pack's own folder. Nothing else is imported."""

_PACK = Path(__file__).resolve().parents[2]


class SeenFace(Protocol):
    """A face in a picture."""

    @property
    def box(self) -> Box:
        """(x0, y0, x1, y1) in pixels of the picture."""

    @property
    def pose(self) -> tuple[float, float, float]:
        """(pitch, yaw, roll) in degrees, as insightface's `face.pose`."""

    @property
    def embedding(self) -> NDArray[np.floating]:
        """(d,): faces of one person are near each other."""

    @property
    def expression(self) -> str:
        """One of `motion.EXPRESSIONS`."""


class Judge(Protocol):
    """Looks at pictures, (H, W, 3) uint8 RGB of any size."""

    @property
    def fingerprint(self) -> str:
        """Changes with whatever changes the judge's answers."""

    def faces(self, image: Image) -> Sequence[SeenFace]:
        """All faces of a picture, in any order; empty when there is none."""

    def image_vector(self, image: Image) -> NDArray[np.floating]:
        """(d,) the picture's embedding."""

    def text_vector(self, text: str) -> NDArray[np.floating]:
        """(d,) the text's embedding, near the embeddings of pictures that it describes."""


def load_judge(kind: str, options: Mapping[str, str]) -> Judge:
    """The judge that a configuration names, made with its options.

    Args:
        kind: MODELS or one of IN_THE_PACK.

    Raises:
        ValueError: another kind, options that it does not take, or files that don't fit.
        ModuleNotFoundError: a package is not installed.
    """
    if kind == MODELS:
        from .models_judge import ModelsJudge

        factory = ModelsJudge.load
    elif kind in IN_THE_PACK:
        factory = getattr(_module(kind.partition(":")[0]), kind.partition(":")[2])
    else:
        raise ValueError(f"Expected the judge {MODELS} or one of {', '.join(IN_THE_PACK)}, got {kind!r}.")
    try:
        return cast(Judge, factory(**options))
    except TypeError as error:
        raise ValueError(f"The judge {kind} can't be made with the options {sorted(options)}: {error}.") from error


def _module(name: str) -> object:
    """A module of the pack, which is either a package itself or the folder that Python runs in."""
    root = (__package__ or "").removesuffix("dynamicid_core.evaluation")
    try:
        module = importlib.import_module(root + name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The judge's {name} can't be imported: {error}. It comes with the repository, not with what the registry "
            "ships, and needs the extra training: run in the repository's folder, python -m pip install '.[training]'."
        ) from error
    if not Path(module.__file__ or "").resolve().is_relative_to(_PACK):
        raise ValueError(f"Expected the pack's own {name}, got {module.__file__}. Run in the pack's folder.")
    return module
