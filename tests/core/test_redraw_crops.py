"""Crops about faces: squares within the image, masks that leave neighbors alone, pasting to the bit."""

import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.image_inputs import CropBox
from dynamicid_pack.dynamicid_core.redraw.crops import FaceCrop, cut, face_crops, paste

HEIGHT, WIDTH = 100, 160


def image(height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(1))


def pasted_where(crop: FaceCrop, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    """(H, W): how much of each pixel of the image is drawn."""
    black = torch.zeros(height, width, 3)
    return paste(black, torch.ones(*crop.mask.shape, 3), crop)[..., 0]


def test_a_square_lies_about_its_face_with_room_on_all_sides() -> None:
    (crop,) = face_crops([Box(60, 30, 80, 54)], HEIGHT, WIDTH, 0.5, 0.0)
    assert crop.square == CropBox(46, 18, 48) and crop.mask.shape == (48, 48)
    assert crop.window(HEIGHT, WIDTH) == pytest.approx((46 / 160, 18 / 100, 94 / 160, 66 / 100))
    drawn = pasted_where(crop)
    assert torch.equal(drawn[24:60, 55:85], torch.ones(36, 30)), "a face and a quarter of its size on each side"
    assert float(drawn.sum()) == 36 * 30


@pytest.mark.parametrize("box", [Box(-6, 30, 14, 50), Box(150, 85, 172, 108), Box(0, 0, 20, 20), Box(40, -10, 60, 30)])
def test_at_the_images_edge_the_square_moves_inside_and_has_no_feather_there(box: Box) -> None:
    (crop,) = face_crops([box], HEIGHT, WIDTH, 0.5, 0.05)
    square = crop.square
    assert square.x >= 0 and square.y >= 0 and square.x + square.side <= WIDTH and square.y + square.side <= HEIGHT
    drawn, inside = pasted_where(crop), Box(*box)
    x, y = (min(max(int(value), 0), size - 1) for value, size in zip(inside.center, (WIDTH, HEIGHT), strict=True))
    assert drawn[y, x] == 1
    if box.x0 <= 0:
        assert drawn[y, 0] == 1
    if box.y1 >= HEIGHT:
        assert drawn[HEIGHT - 1, x] == 1


def test_a_face_larger_than_the_image_gets_all_of_it() -> None:
    (crop,) = face_crops([Box(-20, -30, 180, 140)], HEIGHT, WIDTH, 0.5, 0.1)
    assert crop.square == CropBox(30, 0, 100) and bool((crop.mask == 1).all())


def test_overlapping_squares_are_pasted_into_their_own_half_alone() -> None:
    left, right = face_crops([Box(40, 30, 70, 60), Box(74, 30, 104, 60)], HEIGHT, WIDTH, 0.5, 0.1)
    assert left.square.x + left.square.side > 74, "the square reaches into the neighbor's face"
    one, other = pasted_where(left), pasted_where(right)
    assert bool((one[:, 72:] == 0).all()) and bool((other[:, :72] == 0).all())
    assert one[45, 55] == 1 and other[45, 89] == 1


def test_the_edge_is_as_soft_as_the_feather_is_wide() -> None:
    hard, soft = (face_crops([Box(60, 30, 80, 50)], HEIGHT, WIDTH, 0.5, feather)[0] for feather in (0.0, 0.25))
    assert set(hard.mask.unique().tolist()) == {0.0, 1.0}
    row = soft.mask[20]
    assert row[:5].max() == 0 and row[15:25].min() == 1
    assert row[5:15].tolist() == pytest.approx([(i + 0.5) / 10 for i in range(10)])


def test_outside_the_mask_the_image_stays_to_the_bit() -> None:
    before = image()
    for crop in face_crops([Box(40, 30, 70, 60), Box(74, 30, 104, 60)], HEIGHT, WIDTH, 0.5, 0.1):
        kept = before.clone()
        after = paste(before, torch.full((64, 64, 3), 0.5), crop)
        where = pasted_where(crop) > 0
        assert torch.equal(after[~where], before[~where]) and torch.equal(before, kept)
        assert float((after[where] - before[where]).abs().max()) > 0.2


def test_a_crop_that_comes_back_unchanged_changes_little_and_at_its_own_size_nothing() -> None:
    smooth = torch.nn.functional.interpolate(image(10, 16).movedim(-1, 0)[None], (HEIGHT, WIDTH), mode="bicubic")
    before = smooth[0].movedim(0, -1).clamp(0, 1)
    (crop,) = face_crops([Box(60, 30, 80, 54)], HEIGHT, WIDTH, 0.5, 0.1)
    assert cut(before, crop.square, 96).shape == (1, 96, 96, 3)
    assert float((paste(before, cut(before, crop.square, 96)[0], crop) - before).abs().max()) < 0.02
    assert torch.equal(paste(before, cut(before, crop.square, 48)[0], crop), before)
