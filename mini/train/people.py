"""Drawn people for the method's stages: shards for anchoring, folders of pictures for the data builder."""

from pathlib import Path

import webdataset

from ..world.world import World, training_pairs
from .figures import write_image
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
            faces = analysis.get(picture.image[..., ::-1].copy())
            if len(faces) != 1:
                continue
            (face,) = picture.faces
            height, width = picture.image.shape[:2]
            box = (face.box / [width, height, width, height]).tolist()  # x0, y0, x1, y1 as fractions
            writer.write(
                {
                    "__key__": f"{number:06}",
                    "png": picture.image,
                    "txt": sample.caption,
                    "embedding.npy": faces[0].normed_embedding,
                    "json": {"person": str(face.person.seed), "face": box},
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
            write_image(place / f"{i:02}.png", sample.picture().image)
            (place / f"{i:02}.txt").write_text(sample.caption + "\n", "utf-8")
