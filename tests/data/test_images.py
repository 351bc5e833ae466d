"""Images read from files that may be broken or hostile, and measured."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.data.images import RejectedError, read_image
from dynamicid_pack.dynamicid_core.data.quality import hamming_distance, perceptual_hash, quality, sharpness
from dynamicid_pack.dynamicid_core.image_inputs import CropBox, crop_box, to_crop_coords
from dynamicid_pack.tests.data.drawn import bomb, portrait
from PIL import Image, ImageFile

MOST = 1_000_000


def _reason(path: Path, most: int = MOST) -> str:
    with pytest.raises(RejectedError) as caught:
        read_image(path, most)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_every_kind_of_picture_is_read(tmp_path: Path, kind: str) -> None:
    image = portrait(0, 0).image
    Image.fromarray(image).save(tmp_path / "a.png", kind, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
    read = read_image(tmp_path / "a.png", MOST)
    assert read.shape == image.shape and read.dtype == np.uint8
    assert np.abs(read.astype(int) - image).mean() < 4


def test_a_picture_is_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    image = portrait(0, 0).image[:, :100]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png", MOST), np.rot90(image, -1))


def test_what_is_transparent_lies_on_white_and_gray_becomes_color(tmp_path: Path) -> None:
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[:2] = (10, 20, 30, 255)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png", MOST)[[0, 3], 0].tolist() == [[10, 20, 30], [255, 255, 255]]
    Image.fromarray(np.full((4, 4), 90, np.uint8)).save(tmp_path / "gray.png")
    assert read_image(tmp_path / "gray.png", MOST)[0, 0].tolist() == [90, 90, 90]
    Image.fromarray(np.full((4, 4), 257 * 90, np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", MOST)[0, 0].tolist() == [90, 90, 90]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "unreadable"),
        (b"\x89PNG\r\n\x1a\n", "unreadable"),
        (b"\xff\xd8\xff\xe0nothing more", "unreadable"),
        (b"hello, I am text", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\n", "not a picture"),
        (b"\x80\x04\x95cos\nsystem\n", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    ],
)
def test_what_is_no_picture_has_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert _reason(tmp_path / "a.png") == reason


def test_a_picture_cut_short_anywhere_is_unreadable(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        Image.fromarray(portrait(0, 0).image).save(tmp_path / "whole", kind)
        whole = (tmp_path / "whole").read_bytes()
        for part in (0.1, 0.5, 0.9):
            (tmp_path / "a.png").write_bytes(whole[: int(len(whole) * part)])
            assert _reason(tmp_path / "a.png") == "unreadable", (kind, part)
    assert _reason(tmp_path / "missing.png") == "unreadable"


def test_a_picture_that_says_it_is_huge_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(bomb())
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
        assert _reason(tmp_path / "a.png") == "too many pixels"
    assert _reason(tmp_path / "a.png", 200_000_000) == "unreadable", "decoded, there are too few pixels"
    Image.fromarray(portrait(0, 0).image).save(tmp_path / "b.png")
    assert _reason(tmp_path / "b.png", 128 * 128 - 1) == "too many pixels"
    assert read_image(tmp_path / "b.png", 128 * 128).shape == (128, 128, 3)


@pytest.mark.parametrize("box", [(40, 40, 80, 90), (0, 0, 30, 30), (-10, 100, 60, 170), (0, 0, 200, 128)])
def test_the_square_holds_the_face_and_lies_within_the_picture(box: tuple) -> None:
    height, width = 128, 200
    square = crop_box(Box(*box), 0.5, (height, width))
    assert 0 <= square.x <= width - square.side and 0 <= square.y <= height - square.side
    longer = max(box[2] - box[0], box[3] - box[1])
    assert square.side == min(2 * longer, height)
    if 2 * longer <= height:
        assert square.x <= max(0, box[0]) and square.x + square.side >= min(width, box[2])
        assert square.y <= max(0, box[1]) and square.y + square.side >= min(height, box[3])


def test_a_crops_coordinates_do_not_follow_from_the_precision_of_the_points() -> None:
    """The last bit of a box moves the pose that is written."""
    points = np.random.default_rng(0).uniform(0, 500, (100, 2)).astype(np.float32)
    single, double = (to_crop_coords(points.astype(kind), CropBox(31, 17, 83), 128) for kind in ("f4", "f8"))
    assert np.array_equal(single, double) and single.dtype == double.dtype == np.float32


def test_sharpness_is_the_variance_of_the_laplacian_and_falls_with_blur() -> None:
    tiles = np.kron(np.indices((16, 16)).sum(0) % 2, np.ones((8, 8)))[..., None].repeat(3, 2).astype(np.uint8) * 200
    gray = tiles[..., 0].astype(float)
    padded = np.pad(gray, 1, mode="reflect")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * gray
    assert sharpness(tiles, Box(0, 0, 128, 128)) == pytest.approx(laplacian.var(), rel=1e-6)
    for view in range(6):
        picture = portrait(1, view)
        box = Box.of(picture.faces[0].box)
        steps: list[Any] = [cv2.GaussianBlur(picture.image, (0, 0), s) if s else picture.image for s in (0, 1, 2, 4)]
        values = [sharpness(step, box) for step in steps]
        assert values == sorted(values, reverse=True) and values[0] > 95 > values[2], view
    assert sharpness(tiles, Box(200, 200, 300, 300)) == 0 == sharpness(np.full((9, 9, 3), 7, np.uint8), Box(0, 0, 9, 9))


def test_saved_again_a_picture_keeps_its_hash_and_others_differ() -> None:
    images = [portrait(person, view).image for person in range(2) for view in range(6)]
    hashes = [perceptual_hash(image) for image in images]
    for image, original in zip(images, hashes, strict=True):
        smaller: Any = cv2.resize(cv2.resize(image, (100, 100), interpolation=cv2.INTER_AREA), (128, 128))
        brighter: Any = cv2.add(image, np.array([12.0, 12.0, 12.0, 0.0]))
        for again in (smaller, brighter):
            assert hamming_distance(original, perceptual_hash(again)) <= 16
    assert min(hamming_distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 32
    assert hamming_distance("f" * 64, "0" * 64) == 256


def test_quality_grows_with_what_is_good_and_stays_below_1() -> None:
    assert quality(0.9, 300, 200) > quality(0.8, 300, 200) > quality(0.8, 200, 200) > quality(0.8, 200, 100) > 0
    assert quality(1.0, 1e9, 1e9) == pytest.approx(1) and quality(1.0, 300, 0) == 0
