"""Regions on any grid."""

import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.saa.regions import Region, box_from_pixels, columns, grown, rasterize

GRIDS = [(1, 1), (1, 2), (2, 1), (3, 5), (8, 8), (8, 12), (17, 25), (64, 96)]


@pytest.mark.parametrize(
    ("box", "grid", "rows", "cols"),
    [
        ((0, 0, 1, 1), (8, 8), (0, 8), (0, 8)),
        ((0.5, 0, 1, 1), (8, 12), (0, 8), (6, 12)),
        ((0.05, 0.1, 0.3, 0.9), (16, 16), (1, 14), (0, 4)),
        ((1 / 3, 0, 2 / 3, 1), (8, 9), (0, 8), (3, 6)),
        ((0.29, 0, 0.57, 1), (1, 100), (0, 1), (29, 57)),  # 0.29 * 100 = 28.999...
    ],
)
def test_a_box_covers_the_papers_cells(box, grid, rows, cols) -> None:
    expected = torch.zeros(grid)
    expected[slice(*rows), slice(*cols)] = 1
    assert torch.equal(Region(box=box).rasterize(*grid), expected)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("box", [(0.5, 0.5, 0.501, 0.501), (0, 0, 1e-4, 1), (0.999, 0, 1, 1), (0.1, 0.999, 0.9, 1)])
def test_a_thin_box_keeps_a_cell_on_every_grid(box, grid) -> None:
    assert Region(box=box).rasterize(*grid).max() == 1


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (64, 64), (513, 300)])
def test_a_mask_with_one_pixel_keeps_a_cell_on_every_grid(shape, grid) -> None:
    mask = torch.zeros(shape)
    mask[shape[0] // 2, shape[1] // 2] = 0.8
    raster = Region(mask=mask).rasterize(*grid)
    assert raster.shape == grid
    assert raster.max() == pytest.approx(0.8) and raster.min() >= 0


@pytest.mark.parametrize("grid", GRIDS)
def test_a_full_mask_is_no_mask(grid) -> None:
    whole = Region().rasterize(*grid)
    assert torch.equal(Region(mask=torch.ones(40, 30)).rasterize(*grid), whole)
    assert torch.equal(Region(box=Box(0, 0, 1, 1)).rasterize(*grid), whole)


@pytest.mark.parametrize("region", [Region(mask=torch.zeros(9, 9)), Region(box=Box(0.5, 0, 0.5, 1))])
def test_empty_regions(region) -> None:
    assert region.is_empty
    assert torch.equal(region.rasterize(8, 8), torch.zeros(8, 8))


def test_a_moving_region_stays_where_it_ends() -> None:
    masks = torch.zeros(3, 4, 4)
    masks[0, 0], masks[2, :, 2] = 1, 0.5
    moving = Region(mask=masks)
    assert moving.frames == 3 and not moving.is_empty
    for frame in (0, 1, 2, 7):
        assert torch.equal(moving.at(frame).rasterize(4, 4), masks[min(frame, 2)])
    assert [moving.at(frame).is_empty for frame in range(3)] == [False, True, False]
    assert torch.equal(moving.rasterize(4, 4), masks[0])
    assert Region(mask=torch.zeros(3, 4, 4)).is_empty
    for still in (Region(), Region(box=Box(0, 0, 0.5, 1)), Region(mask=masks[0]), Region(mask=masks[:1])):
        assert still.frames == 1 and still.at(5) is still


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("width", [12, 13, 64, 97])
def test_columns_fill_the_picture_without_overlap(count, width) -> None:
    assert torch.equal(rasterize(columns(count), 4, width).sum(dim=0), torch.ones(4, width))


def test_more_columns_than_cells_still_give_everybody_one() -> None:
    assert (rasterize(columns(12), 8, 8).amax(dim=(1, 2)) == 1).all()


def test_growing_stops_at_the_edge() -> None:
    assert grown(Region(box=Box(0.4, 0.0, 0.6, 0.5)), 0.5).box == pytest.approx((0.3, 0.0, 0.7, 0.75))
    mask = Region(mask=torch.ones(2, 2))
    assert grown(mask, 0.5) is mask


def test_pixels_to_fractions() -> None:
    assert box_from_pixels(Box.from_xywh(128, 0, 256, 512), 512, 512) == (0.25, 0, 0.75, 1)
    assert box_from_pixels(Box.from_xywh(400, -10, 200, 522), 512, 512) == (0.78125, 0, 1, 1)
    with pytest.raises(ValueError, match="outside the 512 x 512 picture"):
        box_from_pixels(Box.from_xywh(600, 0, 100, 100), 512, 512)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"box": (0.7, 0, 1.2, 1)}, "x 0.7 to 1.2"),
        ({"box": (-0.1, 0, 1, 1)}, "x -0.1 to 1"),
        ({"box": (0.6, 0, 0.4, 1)}, "x 0.6 to 0.4"),
        ({"box": (0, 0, float("nan"), 1)}, "nan"),
        ({"box": (0, 0, 1)}, "got 3 numbers"),
        ({"mask": torch.zeros(1, 2, 3, 4)}, r"shape \(1, 2, 3, 4\)"),
        ({"mask": torch.zeros(0, 3, 4)}, r"shape \(0, 3, 4\)"),
        ({"mask": torch.zeros(4)}, r"shape \(4,\)"),
        ({"mask": torch.zeros(0, 4)}, r"shape \(0, 4\)"),
        ({"mask": torch.full((2, 2), float("nan"))}, "NaN"),
        ({"box": (0, 0, 1, 1), "mask": torch.ones(2, 2)}, "either a box or a mask"),
    ],
)
def test_bad_regions_say_what_came(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        Region(**arguments)
