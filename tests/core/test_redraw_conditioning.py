"""What a whole image's conditioning says of a crop: masks, areas, ControlNet hints, and what can't be cut."""

from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.redraw.conditioning import cut_conditioning, resample

HEIGHT, WIDTH = 64, 128
WINDOW, FACE = Box(0.0, 0.0, 0.5, 1.0), Box(0.1, 0.2, 0.4, 0.8)
"""The left half, and a face in it."""


class Control:
    """As the host's ControlNets carry a hint."""

    def __init__(self, hint: torch.Tensor | None, previous: "Control | None" = None) -> None:
        self.cond_hint_original, self.previous_controlnet = hint, previous
        self.extra_concat_orig: list[torch.Tensor] = []

    def copy(self) -> "Control":
        made = Control(self.cond_hint_original)
        made.extra_concat_orig = [*self.extra_concat_orig]
        return made

    def set_previous_controlnet(self, previous: "Control | None") -> "Control":
        self.previous_controlnet = previous
        return self


def entry(name: str, **options: Any) -> list[Any]:
    return [torch.full((1, 2, 4), float(ord(name))), {"pooled_output": None, **options}]


def half(left: bool) -> torch.Tensor:
    mask = torch.zeros(1, 8, 16)
    mask[..., :8] = float(left)
    mask[..., 8:] = float(not left)
    return mask


def names(entries: list[list[Any]]) -> str:
    return "".join(chr(int(text[0, 0, 0])) for text, _ in entries)


def cut(*entries: list[Any], window: Box = WINDOW, face: Box = FACE, **more: Any) -> Any:
    return cut_conditioning(list(entries), window, face, HEIGHT, WIDTH, **more)


def test_a_prompt_for_the_whole_image_stays_as_it_is() -> None:
    made = cut(entry("a"), entry("b", mask=torch.ones(1, 8, 16), strength=0.5))
    assert names(made.entries) == "ab" and made.left_out == set()
    assert made.entries[0][1] == {"pooled_output": None} and made.entries[1][1]["strength"] == 0.5


def test_a_masked_prompt_that_covers_the_face_goes_alone_and_without_its_mask() -> None:
    everybody = entry("a"), entry("l", mask=half(True), mask_strength=0.8), entry("r", mask=half(False))
    ((text, options),) = cut(*everybody).entries
    assert chr(int(text[0, 0, 0])) == "l" and options.keys() == {"pooled_output"}
    other = cut(*everybody, window=Box(0.5, 0.0, 1.0, 1.0), face=Box(0.6, 0.2, 0.9, 0.8))
    assert names(other.entries) == "r"
    assert everybody[1][1].keys() == {"pooled_output", "mask", "mask_strength"}, "the given entries stay"


def test_of_several_that_cover_the_face_the_smallest_go() -> None:
    large = torch.zeros(1, 8, 16)
    large[..., :12] = 1
    made = cut(entry("a", mask=large), entry("b", mask=half(True)), entry("c", area=(8, 8, 0, 0)))
    assert names(made.entries) == "bc", "an area in latent cells is a place too, and as small as the mask"
    assert all("area" not in options and "mask" not in options for _, options in made.entries)


def test_a_mask_of_one_frame_is_taken_by_the_images_number() -> None:
    moving = torch.cat([half(True), half(False)])
    assert names(cut(entry("a"), entry("m", mask=moving)).entries) == "m"
    assert names(cut(entry("a"), entry("m", mask=moving), frame=1).entries) == "a", "it has left"
    assert names(cut(entry("a"), entry("m", mask=moving), frame=7).entries) == "a", "and stays there"


def test_masks_and_areas_beside_the_face_are_cut_to_the_square() -> None:
    window = Box(0.25, 0.0, 0.75, 1.0)
    face = Box(0.26, 0.4, 0.74, 0.6)
    ground = torch.zeros(1, 8, 16)
    ground[:, 6:] = 1
    area = ("percentage", 0.25, 0.5, 0.75, 0.5)
    made = cut(entry("a"), entry("g", mask=ground), entry("p", area=area), window=window, face=face)
    assert names(made.entries) == "agp"
    mask = made.entries[1][1]["mask"]
    assert mask.shape[0] == 1 and mask.shape[1] == mask.shape[2]
    size = mask.shape[-1]
    assert float(mask[0, size // 2].max()) == 0 and float(mask[0, -1].min()) == 1
    assert made.entries[2][1]["area"][0] == "percentage"
    assert made.entries[2][1]["area"][1:] == pytest.approx((0.25, 0.5, 0.75, 0.5))


def test_an_area_that_holds_the_whole_square_is_none() -> None:
    face = Box(0.9, 0.9, 1.0, 1.0)  # elsewhere, so that nothing goes alone
    made = cut(entry("a"), entry("p", area=(8, 10, 0, 0)), face=face)
    assert names(made.entries) == "ap" and "area" not in made.entries[1][1]


def test_what_does_not_reach_into_the_square_is_gone_unless_nothing_else_is_left() -> None:
    right = entry("r", mask=half(False)), entry("s", area=(8, 8, 0, 8))
    assert names(cut(entry("a"), *right).entries) == "a"
    made = cut(*right)
    assert names(made.entries) == "rs" and all(options.keys() == {"pooled_output"} for _, options in made.entries)


def test_hints_are_cut_as_the_host_would_lay_them_over_the_image() -> None:
    hint = torch.linspace(0, 1, 32).expand(1, 3, 16, 32).clone()  # the image's aspect
    square = torch.linspace(0, 1, 32).expand(1, 1, 32, 32).clone()  # of which the host takes the middle rows
    before = Control(square)
    given = Control(hint, before)
    given.extra_concat_orig = [torch.ones(1, 1, 1, 1)]
    ((_, options),) = cut(entry("a", control=given, control_apply_to_uncond=True)).entries
    made = options["control"]
    assert made is not given and options["control_apply_to_uncond"]
    assert made.cond_hint_original.shape == (1, 3, 16, 16)
    assert torch.allclose(made.cond_hint_original, hint[..., :16], atol=1e-6)
    assert torch.allclose(made.previous_controlnet.cond_hint_original, square[:, :, 8:24, :16], atol=1e-6)
    assert float(made.extra_concat_orig[0].min()) == 1
    assert given.cond_hint_original is hint and given.previous_controlnet is before, "the given ones stay"


def test_what_cant_be_cut_is_left_out_and_named() -> None:
    given = entry("a", gligen=("position", None, []), concat_latent_image=torch.zeros(1), concat_mask=torch.zeros(1))
    made = cut(given, entry("b", control=Control(None, Control(torch.ones(1, 3, 8, 16)))), entry("c", area=(1,) * 6))
    assert made.left_out == {
        "GLIGEN", "an inpainting model's picture", "a ControlNet whose hint is not a picture", "an area of a film",
    }  # fmt: skip
    assert made.entries[0][1].keys() == {"pooled_output"} and "gligen" in given[1]
    assert made.entries[1][1]["control"].cond_hint_original.shape == (1, 3, 8, 8), "the one before it stays"
    ((_, options),) = cut(entry("b", control=Control(None))).entries
    assert "control" not in options


def test_a_window_is_resampled_to_its_own_pixels() -> None:
    images = torch.rand(2, 3, 16, 32)
    assert torch.allclose(resample(images, Box(0.25, 0.5, 0.5, 1.0), 8), images[:, :, 8:, 8:16], atol=1e-5)
