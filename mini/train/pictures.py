"""Pictures drawn once and kept on disk with their truth, in shards that are drawn when first asked for."""

import hashlib
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..world.caption import CLOTHES_COLORS, GARMENTS, PLACES, CaptionSpec, PersonSpec
from ..world.composition import compose
from ..world.head import EXPRESSIONS
from ..world.person import Person, draw_person
from ..world.render import FaceGeometry, Picture, render
from ..world.world import World
from .core import atomic_path

SHARD = 500
NAMES = tuple(EXPRESSIONS)
person = lru_cache(maxsize=20_000)(draw_person)


@dataclass(frozen=True, eq=False, kw_only=True)
class Truth(FaceGeometry):
    """What is true of n pictures that show k people each; arrays, the first axis the picture's, the second the face's.

    Attributes:
        persons: (n, k) int64, the people's seeds.
        expression, colour, garment: (n, k) int64, places in EXPRESSIONS, CLOTHES_COLORS, GARMENTS.
        place: (n,) int64, in PLACES.
        caption: (n,) str.
    """

    persons: NDArray[np.int64]
    expression: NDArray[np.int64]
    colour: NDArray[np.int64]
    garment: NDArray[np.int64]
    place: NDArray[np.int64]
    caption: NDArray[np.str_]

    def people(self) -> list[Person]:
        """Return the n * k people, picture by picture."""
        return [person(int(seed)) for seed in self.persons.ravel()]


def _truth(drawn: list[tuple[str, Picture]]) -> dict[str, NDArray]:
    """Return Truth's arrays by name."""
    faces = [picture.faces for _, picture in drawn]
    figures = [picture.scene.figures for _, picture in drawn]
    truth: dict[str, NDArray] = {
        "persons": np.array([[face.person.seed for face in row] for row in faces]),
        "expression": np.array([[NAMES.index(face.motion.expression) for face in row] for row in faces]),
        "colour": np.array([[CLOTHES_COLORS.index(f.colour) for f in row] for row in figures]),
        "garment": np.array([[GARMENTS.index(f.garment) for f in row] for row in figures]),
        "place": np.array([PLACES.index(picture.scene.place) for _, picture in drawn]),
        "caption": np.array([caption for caption, _ in drawn]),
    }
    geometry = (part.name for part in fields(FaceGeometry))
    return truth | {name: np.array([[getattr(face, name) for face in row] for row in faces]) for name in geometry}


@lru_cache(maxsize=1)
def renderer_digest() -> str:
    """Return eight hex digits that change with the renderer, so that another's pictures are never taken for its."""
    specs = [
        (CaptionSpec((PersonSpec(),) * count, place), count)
        for count, place in ((1, PLACES[6]), (2, PLACES[9]), (3, None))
    ]
    digest = hashlib.sha256()
    for seed, (spec, count) in enumerate(specs):
        people = tuple(draw_person(10 * seed + i) for i in range(count))
        digest.update(render(compose(spec, people, seed)).image.tobytes())
    return digest.hexdigest()[:8]


class Pictures:
    """`size` pictures of a world that show `count` people each, kept under `folder`.

    A picture depends on its number alone, never on what was drawn before.
    """

    def __init__(self, folder: Path, world: World, count: int, size: int):
        whose = f"{type(world).__name__.lower()}-{'heldout' if world.held_out_people else 'training'}"
        self.folder = folder / f"pictures-{renderer_digest()}" / f"{whose}-{world.seed}-{count}"
        self.world, self.count, self.size = world, count, size
        self.shard = lru_cache(maxsize=64)(self._open)

    def _open(self, shard: int) -> tuple[NDArray[np.uint8], Truth]:
        """Return pictures shard * SHARD and on: (SHARD, H, W, 3), read when used, and their truth."""
        images, truth = self.folder / f"{shard:05}.npy", self.folder / f"{shard:05}.npz"
        if not images.exists():
            samples = [self.world.sample(shard * SHARD + i, self.count) for i in range(SHARD)]
            drawn = [(sample.caption, sample.picture()) for sample in samples]
            # The pictures last: a shard is whole or not there.
            with atomic_path(truth) as part, part.open("wb") as file:
                np.savez(file, **_truth(drawn))  # type: ignore[arg-type]
            with atomic_path(images) as part, part.open("wb") as file:
                np.save(file, np.stack([picture.image for _, picture in drawn]))
        with np.load(truth) as arrays:
            return np.load(images, mmap_mode="r"), Truth(**arrays)

    def take(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint8], Truth]:
        """Return (n, H, W, 3) uint8 RGB and the truth of the pictures with these numbers."""
        rows = [(self.shard(shard), i) for shard, i in places(numbers)]
        images = np.stack([shard[0][i] for shard, i in rows])
        names = vars(rows[0][0][1])
        return images, Truth(**{n: np.stack([getattr(shard[1], n)[i] for shard, i in rows]) for n in names})

    def all(self) -> tuple[NDArray[np.uint8], Truth]:
        """Return all pictures and their truth."""
        return self.take(np.arange(self.size))

    def batch(self, step: int, size: int) -> tuple[NDArray[np.uint8], Truth]:
        """Return batch `step` of an endless reading: in order first, then in another order each time round."""
        return self.take(numbers_of(step, size, self.size))

    def sets(self, step: int, people: int, views: int = 4) -> tuple[NDArray[np.uint8], Truth]:
        """Return batch `step` of a gallery: all `views` of so many people, person after person."""
        numbers = numbers_of(step, people, self.size // views)
        return self.take((numbers[:, None] * views + np.arange(views)).ravel())


def pairs_and_trios(folder: Path, world: World, pairs: int, trios: int) -> tuple[Pictures, Pictures]:
    """Return a world's pictures of two and of three people, so many of each."""
    return Pictures(folder, world, 2, pairs), Pictures(folder, world, 3, trios)


def places(numbers: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return each picture's shard, and which one of the shard's it is."""
    return [divmod(int(number), SHARD) for number in numbers]


def turns(step: int, every: int) -> tuple[bool, int]:
    """Whether this step shows the rarer of two sorts (each `every`th does), and how many of its sort came before it.

    So no batch is left out, and none is drawn in vain.
    """
    rare = step % every == every - 1
    return rare, step // every if rare else step - step // every


def numbers_of(step: int, batch: int, size: int) -> NDArray[np.int64]:
    """Return the numbers (batch,) below `size` that a step reads: each once in every turn, the first in order."""
    at = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
    turn, place = at // size, at % size
    return place * np.array([_stride(int(t), size) for t in turn], np.int64) % size


@lru_cache(maxsize=16)
def _stride(turn: int, size: int) -> int:
    """Going round with a stride that has no divisor in common with the size visits every place once."""
    if turn == 0:
        return 1
    rng = np.random.default_rng(turn)
    while True:
        stride = int(rng.integers(1, size + 1))
        if np.gcd(stride, size) == 1:
            return stride
