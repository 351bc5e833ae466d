"""Drawn people for the anchoring stage: WebDataset shards of one person each, with captions and embeddings."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import webdataset
from numpy.typing import NDArray

from ...dynamicid_core.faces import FaceAnalyser, load_analyser
from ..world import World
from .ship import PACK

EACH = 1000  # pictures a shard


def write_people(weights: Path, folder: Path, count: int, seed: int = 31) -> int:
    """Draw `count` portraits of the world's training people, and leave out those whose face the pack doesn't find.

    Args:
        weights: what shipped; its face pack makes the embeddings.

    Returns:
        How many were written.
    """
    analyser = load_analyser(weights / PACK, "CPU", embeds_rgb=False)
    world, written = World(seed=seed), 0
    folder.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(folder / "people-%04d.tar"), maxcount=EACH, verbose=0, mtime=0) as writer:
        for number in range(count):
            sample = world.sample(number, 1)
            picture = sample.picture()
            embedding = _embedding(analyser, picture.image)
            if embedding is None:
                continue
            (face,) = picture.faces
            height, width = picture.image.shape[:2]
            where = [float(side) for side in np.asarray(face.box) / [width, height, width, height]]
            told = {"person": str(face.person.seed), "face": where}
            writer.write(
                {
                    "__key__": f"{number:06}",
                    "png": cv2.imencode(".png", cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR))[1].tobytes(),
                    "txt": sample.caption.encode(),
                    "embedding.npy": _npy(embedding),
                    "json": json.dumps(told).encode(),
                }
            )
            written += 1
    return written


def _embedding(analyser: FaceAnalyser, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """(512,) of the only face, or None."""
    found = analyser.detect(image)
    if len(found) != 1:
        return None
    embedding = analyser.describe(image, found[0]).embedding
    return None if embedding is None else embedding.numpy()


def _npy(array: NDArray[np.float32]) -> bytes:
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()
