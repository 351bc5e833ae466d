"""Faces in long and in large pictures, in which the detector finds none when it sees the whole."""

from itertools import pairwise

import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.host.miniature import load_miniature
from dynamicid_pack.dynamicid_core.identity.analyzer import FaceAnalyzer, _tiles
from dynamicid_pack.mini.world.world import World
from numpy.typing import NDArray
from PIL import Image

PORTRAIT = World(seed=9, held_out_people=True).sample(3, 1).picture()


@pytest.fixture(scope="module")
def analyzer() -> FaceAnalyzer:
    return load_miniature().dynamicid.faces


def scene(height: int, width: int, faces: dict[tuple[int, int], int]) -> NDArray[np.uint8]:
    """A noisy wall with a portrait about each point (x, y), the face's longer side of so many pixels."""
    image = np.random.default_rng(0).normal(120, 4, (height, width, 3)).clip(0, 255).astype(np.uint8)
    for (x, y), size in faces.items():
        box = Box.of(PORTRAIT.faces[0].box)
        scale = size / box.longer_side
        side = round(128 * scale)
        shown = np.asarray(Image.fromarray(PORTRAIT.image).resize((side, side), Image.Resampling.BICUBIC))
        left, top = round(x - box.center[0] * scale), round(y - box.center[1] * scale)
        shown = shown[max(0, -top) : height - top, max(0, -left) : width - left]
        image[max(0, top) :, max(0, left) :][: shown.shape[0], : shown.shape[1]] = shown
    return image


@pytest.mark.parametrize(
    ("height", "width", "place", "size"),
    [
        (400, 8000, (4100, 200), 150),
        (128, 1536, (1480, 66), 60),
        (1100, 1600, (1500, 300), 55),
        pytest.param(400, 8000, (100, 210), 150, marks=pytest.mark.full),
        pytest.param(8000, 400, (210, 7900), 150, marks=pytest.mark.full),
        pytest.param(400, 8000, (640, 200), 330, marks=pytest.mark.full),
        pytest.param(3000, 4000, (2000, 700), 120, marks=pytest.mark.full),
    ],
)
def test_a_face_is_found_where_the_whole_shows_none(
    analyzer: FaceAnalyzer, height: int, width: int, place: tuple[int, int], size: int
) -> None:
    image = scene(height, width, {place: size})
    (detection,) = analyzer.detect(image)
    assert np.abs(np.subtract(detection.box.center, place)).max() < 0.12 * size
    assert detection.box.longer_side == pytest.approx(size, rel=0.25)
    assert np.abs(detection.keypoints - place).max() < 0.5 * size
    landmarks = analyzer.describe(image, detection).landmarks
    assert landmarks is not None
    assert np.abs(landmarks.numpy() / 512 * [width, height] - place).max() < 0.7 * size


def test_several_faces_come_once_each(analyzer: FaceAnalyzer) -> None:
    """Half of each tile overlaps the next, so that most faces are seen twice or more."""
    places = [(640, 120), (960, 150), (2000, 180), (3555, 140)]
    detections = analyzer.detect(scene(300, 3900, dict.fromkeys(places, 130)))
    centers = sorted(detection.box.center for detection in detections)
    assert np.abs(np.subtract(centers, places)).max() < 20
    assert [one.score for one in detections] == sorted((one.score for one in detections), reverse=True)


def test_where_the_whole_shows_a_face_no_tile_is_looked_at(
    analyzer: FaceAnalyzer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    detect = analyzer.analysis.det_model.detect
    monkeypatch.setattr(analyzer.analysis.det_model, "detect", lambda canvas: asked.append(1) or detect(canvas))
    assert analyzer.detect(scene(400, 800, {(300, 200): 200}))
    assert len(asked) <= 6, "the six sizes of the whole"
    asked.clear()
    assert not analyzer.detect(scene(640, 640, {}))
    assert len(asked) == 6, "a small picture is one tile"


@pytest.mark.parametrize(
    "size", [(400, 8000), (8000, 400), (128, 1536), (641, 641), (4000, 6000), (640, 640), (1, 9000)]
)
def test_tiles_cover_the_picture_and_overlap_by_half(size: tuple[int, int]) -> None:
    tiles = _tiles(*size)
    assert len(tiles) <= 60
    for axis, length in ((0, size[1]), (1, size[0])):
        spans = sorted({(tile[axis], tile[axis + 2]) for tile in tiles})
        assert spans[0][0] == 0 and spans[-1][1] == length
        for (_, end), (start, _) in pairwise(spans):
            assert end - start >= 320, "a face of half a tile lies wholly in one"
