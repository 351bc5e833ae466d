"""Which pictures of a person are kept: no duplicates, nobody else's, spread over expressions and yaws."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .quality import bits_apart

YAWS = ("left", "half left", "front", "half right", "right")  # where the nose points, in the picture
_EDGES = (-30.0, -10.0, 10.0, 30.0)  # degrees
_FEWEST = 3  # faces that can tell which of them is another person's

Cell = tuple[str, str]
"""(expression, yaw bin)"""


def yaw_bin(yaw: float) -> str:
    """One of YAWS for an angle in degrees."""
    return YAWS[bisect_left(_EDGES, yaw)]


def duplicates(hashes: Sequence[str], quality: Sequence[float], distance: int) -> dict[int, int]:
    """Pictures that show what a better one shows: the place of each, and of the better one, which is kept.

    Args:
        hashes: see `quality.perceptual_hash`; two are the same picture up to `distance` bits.
    """
    kept: list[int] = []
    found: dict[int, int] = {}
    for i in sorted(range(len(hashes)), key=lambda i: (-quality[i], i)):
        same = next((other for other in kept if bits_apart(hashes[i], hashes[other]) <= distance), None)
        if same is None:
            kept.append(i)
        else:
            found[i] = same
    return found


def likeness(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) cosines between faces (n, 512) and their median, which is the person's as long as most of them are.

    All are 1 where fewer than three faces can't tell.
    """
    if len(embeddings) < _FEWEST:
        return np.ones(len(embeddings))
    median = np.median(embeddings.astype(np.float64), 0)
    return np.asarray(embeddings @ median / max(float(np.linalg.norm(median)), 1e-12), np.float64)


def spread(cells: Sequence[Cell], quality: Sequence[float], count: int) -> list[int]:
    """Places of at most `count` pictures, ascending, that show as many different expressions and yaws as there are.

    One after the other, the picture is taken whose cell has the fewest yet; among these, whose expression and yaw
    have; among these, the best; among equals, the first.
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
