"""Previews of who stands where."""

import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.regions import Region
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from dynamicid_pack.nodes.preview import color, outline, scene_preview
from torch import Tensor

GREEN = torch.tensor([0, 255, 0], dtype=torch.uint8).expand(40, 40, 3)


def placed(box: Box, thumbnail: Tensor | None = None) -> Placement:
    return Placement(Identity(torch.zeros(4, 8), torch.zeros(4, 8), thumbnail=thumbnail), Region(box=box))


def test_an_outline_is_the_inner_edge() -> None:
    mask = torch.zeros(20, 20)
    mask[4:14, 5:20] = 1
    outlined = outline(mask)
    assert outlined[4, 10] and outlined[5, 10] and not outlined[6, 10] and not outlined[3, 10]
    assert outlined[8, 5] and outlined[8, 19] and not outlined[8, 12]
    assert not outline(torch.zeros(20, 20)).any()


def test_each_region_is_outlined_in_its_colour_and_shows_its_face() -> None:
    preview = scene_preview([placed(Box(0, 0, 0.5, 1), GREEN), placed(Box(0.5, 0, 1, 1))], 256, 256)[0]
    for number, left in enumerate((0, 128)):
        assert torch.allclose(preview[200, left], torch.tensor(color(number)) / 255, atol=0.01)
    green = torch.tensor([0.0, 1.0, 0.0])
    assert torch.allclose(preview[20, 20], green, atol=0.01)
    assert not torch.allclose(preview[20, 148], green, atol=0.3)


def test_the_picture_that_regions_were_found_in_lies_behind_them() -> None:
    backdrop = torch.zeros(64, 128, 3)
    backdrop[:, 64:] = 1
    preview = scene_preview([placed(Box(0, 0, 0.25, 0.25))], 256, 128, backdrop)[0]
    assert preview.shape == (128, 256, 3)
    assert preview[100, 240].min() > 0.95 and preview[100, 60].max() < 0.05


@pytest.mark.parametrize("box", [(0.2, 0.2, 0.2, 0.2), (0.0, 0.0, 0.02, 0.02)])
def test_a_region_without_room_shows_no_face(box: tuple[float, float, float, float]) -> None:
    preview = scene_preview([placed(Box(*box), GREEN)], 256, 256)[0]
    assert not ((preview[..., 1] > 0.99) & (preview[..., 0] < 0.01)).any()
