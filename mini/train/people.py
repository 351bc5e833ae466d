"""Drawn people for the method's stages: shards for anchoring, folders of pictures for the data builder."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import webdataset
from numpy.typing import NDArray

from ..world.world import World, training_pairs
from .ship import PACK

EACH = 1000  # pictures a shard
# Captions of photographs name clothes and places and seldom a face's motion: that is for the tokens to carry.
OMIT_PROB, OMIT_MOTION_PROB = 0.05, 0.7


def write_people(weights: Path, folder: Path, count: int, seed: int = 31) -> int:
    """Draw `count` portraits of the world's training people, and leave out those whose face the pack doesn't find.

    Args:
        weights: what shipped; its face pack makes the embeddings.

    Returns:
        How many were written.
    """
    from insightface.app import FaceAnalysis

    analysis = FaceAnalysis(
        name=str((weights / PACK).resolve()),
        providers=["CPUExecutionProvider"],
        allowed_modules=["detection", "recognition"],
    )
    analysis.prepare(ctx_id=-1, det_size=(512, 512))
    world, written = World(seed=seed, omit_prob=OMIT_PROB, omit_motion_prob=OMIT_MOTION_PROB), 0
    folder.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(folder / "people-%04d.tar"), maxcount=EACH, verbose=0, mtime=0) as writer:
        for number in range(count):
            sample = world.sample(number, 1)
            picture = sample.picture()
            found = analysis.get(picture.image[..., ::-1].copy())
            if len(found) != 1:
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
                    "embedding.npy": _npy(found[0].normed_embedding),
                    "json": json.dumps(told).encode(),
                }
            )
            written += 1
    return written


def write_sets(folder: Path, people: int, seed: int = 32) -> None:
    """Draw sets of pictures of one person each, as `dynamicid_core.data` takes them: `<person>/<number>.png`, `.txt`.

    A set shows one of the training people in every motion but the held-out pairs, in the same clothes and place.
    """
    world = World(seed=seed, pairs=training_pairs())
    for number in range(people):
        place = folder / f"{number:05}"
        place.mkdir(parents=True, exist_ok=True)
        for i, sample in enumerate(world.portraits_of(number)):
            cv2.imwrite(str(place / f"{i:02}.png"), cv2.cvtColor(sample.picture().image, cv2.COLOR_RGB2BGR))
            (place / f"{i:02}.txt").write_text(sample.caption + "\n", "utf-8")


def _npy(array: NDArray[np.float32]) -> bytes:
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()
