"""Group the faces of unsorted images by person."""

import numpy as np
from numpy.typing import NDArray

from .optional import require

MAX_FACES = 20_000  # whose distances fit into memory: 1.6 GB


def cluster_faces(embeddings: NDArray[np.float32], merge_distance: float) -> list[list[int]]:
    """Group faces by person: average linkage clustering on the cosine distance.

    The two groups with the smallest mean distance between their faces are merged, until that is `merge_distance`.

    Args:
        embeddings: (n, 512) of length 1.

    Returns:
        The numbers of each person's faces, ascending; people by their first face.

    Raises ValueError for more than MAX_FACES faces.
    """
    if len(embeddings) > MAX_FACES:
        raise ValueError(
            f"Expected at most {MAX_FACES} unsorted faces, got {len(embeddings)}: all their distances don't fit into "
            "memory. Sort them into folders, or build parts of them apart."
        )
    if len(embeddings) < 2:
        return [[i] for i in range(len(embeddings))]
    hierarchy = require("scipy.cluster.hierarchy")
    tree = hierarchy.linkage(embeddings.astype(np.float64), method="average", metric="cosine")
    groups: dict[int, list[int]] = {}
    for i, group in enumerate(hierarchy.fcluster(tree, merge_distance, criterion="distance").tolist()):
        groups.setdefault(group, []).append(i)
    return sorted(groups.values())
