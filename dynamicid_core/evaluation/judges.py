"""Judges of images: what a judge answers, which judges there are, and one that judges each image once."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from ..box import Box
from ..image_inputs import Image

MODELS, FACE_PACK = "models", "face pack"
IN_THE_PACK = ("mini.train.judging:judge",)
"""Judges that a configuration may name: module:factory, from the pack's own folder. Nothing else is imported."""

_PACK = Path(__file__).resolve().parents[2]
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class JudgedFace:
    """A face in an image.

    Attributes:
        box: in pixels of the image.
        pose: (pitch, yaw, roll) in degrees, as insightface's `face.pose`.
        embedding: (d,); faces of one person are near each other.
        expression: one of `motion.EXPRESSIONS`.
    """

    box: Box
    pose: tuple[float, float, float] = field(repr=False)
    embedding: NDArray[np.floating] = field(repr=False)
    expression: str


class FaceJudge(Protocol):
    """Judges the faces of images, (H, W, 3) uint8 RGB of any size."""

    @property
    def fingerprint(self) -> str:
        """Text that changes with whatever changes the judge's answers."""

    def faces(self, image: Image) -> Sequence[JudgedFace]:
        """Return all faces of an image, in any order."""


class Judge(FaceJudge, Protocol):
    """Judges images and texts, too."""

    def image_vector(self, image: Image) -> NDArray[np.floating]:
        """Return the image's CLIP embedding (d,)."""

    def text_vector(self, text: str) -> NDArray[np.floating]:
        """Return the text's CLIP embedding (d,), near those of images that it describes."""


@dataclass(frozen=True, eq=False)
class JudgedImage:
    """An image as the judge sees it: faces, the image's embedding (d,), size (height, width)."""

    faces: Sequence[JudgedFace]
    vector: NDArray[np.floating] = field(repr=False)
    size: tuple[int, int]


class CachedFaces:
    """A judge that judges the faces of each image once."""

    def __init__(self, judge: FaceJudge):
        self._faces = lru_cache(maxsize=None)(lambda path: judge.faces(read_image(path)))

    def faces(self, path: Path) -> Sequence[JudgedFace]:
        return self._faces(path)

    def face(self, reference: Path) -> JudgedFace:
        """Return a reference's largest face. Raises ValueError when the judge finds none."""
        faces = self.faces(reference)
        if not faces:
            raise ValueError(f"The judge finds no face in the reference {reference.name}. Take another picture.")
        return max(faces, key=lambda face: face.box.area)

    def person(self, reference: Path) -> NDArray[np.floating]:
        """Return the embedding (d,) of a reference's largest face. Raises as `face`."""
        return self.face(reference).embedding


class CachedJudge(CachedFaces):
    """A judge that judges each image and text once, and knows the people of a gallery of images."""

    def __init__(self, judge: Judge, gallery: Sequence[Path] = ()):
        super().__init__(judge)
        self._judge, self._gallery = judge, gallery
        self.text = lru_cache(maxsize=None)(judge.text_vector)
        self.image = lru_cache(maxsize=None)(self._image)

    def _image(self, path: Path) -> JudgedImage:
        image = read_image(path)
        return JudgedImage(self._judge.faces(image), self._judge.image_vector(image), (image.shape[0], image.shape[1]))

    def faces(self, path: Path) -> Sequence[JudgedFace]:
        return self.image(path).faces

    def others(self, reference: Path) -> list[NDArray[np.floating]]:
        """Return the embeddings (d,) of the gallery's people but for the one of this image."""
        return [self.person(path) for path in self._gallery if path != reference]


def read_image(path: Path) -> Image:
    """Read a file as (H, W, 3) uint8 RGB."""
    with PillowImage.open(path) as image:
        return np.array(image.convert("RGB"))


def load_face_judge(kind: str, options: Mapping[str, str]) -> FaceJudge:
    """Make the judge of faces that a configuration names: FACE_PACK, or one of `load_judge`. Raises as it does."""
    if kind != FACE_PACK:
        return load_judge(kind, options)
    from .models_judge import FacePackJudge

    return _made(FacePackJudge.load, kind, options)


def load_judge(kind: str, options: Mapping[str, str]) -> Judge:
    """Make the judge that a configuration names, with its options.

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
    return cast(Judge, _made(factory, kind, options))


def _made(factory: Callable[..., Made], kind: str, options: Mapping[str, str]) -> Made:
    try:
        return factory(**options)
    except TypeError as error:
        raise ValueError(f"The judge {kind} can't be made with the options {sorted(options)}: {error}.") from error


def _module(name: str) -> object:
    """Import a module of the pack, which is either a package itself or the folder that Python runs in."""
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
