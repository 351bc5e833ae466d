"""Second stage: select the images of a person that are kept.

Duplicates and other people's faces are rejected; the rest is stratified by expression and yaw.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .analysis import FaceRecord
from .quality import hamming_distance
from .settings import BuildSettings
from .sources import printable

YAWS = ("left", "half left", "front", "half right", "right")  # where the nose points, in the image
_YAW_EDGES = (-30.0, -10.0, 10.0, 30.0)  # degrees
_MIN_FACES = 3  # that can tell which of them is another person's

Cell = tuple[str, str]
"""(expression, yaw bin)"""


def select(
    records: Sequence[FaceRecord], settings: BuildSettings
) -> tuple[dict[int, float], dict[int, tuple[str, str]]]:
    """Choose among a person's images.

    Returns:
        By the image's number, ascending: the similarity (see `similarity`) of those that are kept; the reason, one of
        settings.REASONS, and a detail of those that are not.
    """
    rejected: dict[int, tuple[str, str]] = {}
    qualities = [record.quality for record in records]
    same = duplicates([record.hash for record in records], qualities, settings.duplicate_distance)
    rejected |= {i: ("duplicate", f"of {printable(records[better].source)}") for i, better in same.items()}

    left = [i for i in range(len(records)) if i not in rejected]
    embeddings = np.array([records[i].embedding for i in left], np.float32)
    cosines = dict(zip(left, similarity(embeddings).tolist(), strict=True))
    for i, cosine in cosines.items():
        if cosine < settings.min_similarity:
            rejected[i] = ("wrong person", f"a likeness of {cosine:.2f}, expected {settings.min_similarity:g}")

    left = [i for i in left if i not in rejected]
    if len(left) < settings.min_images:
        detail = f"{len(left)} pictures are left of this person, expected {settings.min_images}"
        rejected |= dict.fromkeys(left, ("too few", detail))
        left = []
    cells = [(records[i].expression, yaw_bin(records[i].pose[1])) for i in left]
    chosen = [left[k] for k in stratified_select(cells, [qualities[i] for i in left], settings.per_person)]
    rejected |= {i: ("not chosen", "others show more") for i in left if i not in chosen}
    return {i: cosines[i] for i in chosen}, dict(sorted(rejected.items()))


def yaw_bin(yaw: float) -> str:
    """Return one of YAWS for an angle in degrees."""
    return YAWS[bisect_left(_YAW_EDGES, yaw)]


def duplicates(hashes: Sequence[str], quality: Sequence[float], distance: int) -> dict[int, int]:
    """Return the number of each image that shows what a better one shows, and the better one's, which is kept.

    Images are visited from the best to the worst; one is a duplicate if its perceptual hash is within `distance` bits
    of one that was kept.
    """
    kept: list[int] = []
    better: dict[int, int] = {}
    for i in sorted(range(len(hashes)), key=lambda i: (-quality[i], i)):
        same = next((other for other in kept if hamming_distance(hashes[i], hashes[other]) <= distance), None)
        if same is None:
            kept.append(i)
        else:
            better[i] = same
    return better


def similarity(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine (n,) between each face (n, 512) and their median.

    The median, of each component, is the person's as long as most of the faces are. All are 1 for fewer than three
    faces, which can't tell.
    """
    if len(embeddings) < _MIN_FACES:
        return np.ones(len(embeddings))
    median = np.median(embeddings.astype(np.float64), 0)
    return np.asarray(embeddings @ median / max(float(np.linalg.norm(median)), 1e-12), np.float64)


def stratified_select(cells: Sequence[Cell], quality: Sequence[float], count: int) -> list[int]:
    """Return the numbers of at most `count` images, ascending, that show as many expressions and yaws as there are.

    Greedy: the next image is of the cell that has the fewest yet; among these, of the expression and yaw that have;
    among these, the best; among equals, the first.
    """
    in_cell: Counter[Cell] = Counter()
    in_row: Counter[str] = Counter()
    left = set(range(len(cells)))
    taken: list[int] = []
    while left and len(taken) < count:
        best = min(left, key=lambda i: (in_cell[cells[i]], in_row[cells[i][0]] + in_row[cells[i][1]], -quality[i], i))
        left.remove(best)
        taken.append(best)
        in_cell[cells[best]] += 1
        in_row.update(cells[best])
    return sorted(taken)
