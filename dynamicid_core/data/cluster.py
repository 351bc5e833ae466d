"""Who is who in unsorted pictures."""

import numpy as np
from numpy.typing import NDArray

from .optional import needed

MOST = 20_000  # faces whose distances fit into memory: 1.6 GB


def same_people(embeddings: NDArray[np.float32], apart: float) -> list[list[int]]:
    """Faces (n, 512) of length 1 to people, each the places of its faces in ascending order, by the first of them.

    Agglomerative clustering: the two groups with the least mean cosine distance become one, until it reaches `apart`.

    Raises ValueError for more than MOST faces.
    """
    if len(embeddings) > MOST:
        raise ValueError(
            f"Expected at most {MOST} unsorted faces, got {len(embeddings)}: all their distances don't fit into "
            "memory. Sort them into folders, or build parts of them apart."
        )
    if len(embeddings) < 2:
        return [[i] for i in range(len(embeddings))]
    hierarchy = needed("scipy.cluster.hierarchy")
    tree = hierarchy.linkage(embeddings.astype(np.float64), method="average", metric="cosine")
    groups: dict[int, list[int]] = {}
    for i, group in enumerate(hierarchy.fcluster(tree, apart, criterion="distance").tolist()):
        groups.setdefault(group, []).append(i)
    return sorted(groups.values())
