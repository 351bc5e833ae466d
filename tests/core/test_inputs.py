"""The door: what is meant is taken, what is not clear is refused in one line."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.inputs import as_choice, as_images, as_masks, as_number, as_whole_number

NAN, INF = math.nan, math.inf
RGB = torch.rand(2, 5, 7, 3, generator=torch.Generator().manual_seed(1))
MASK = torch.rand(5, 7, generator=torch.Generator().manual_seed(2))


def assert_refused(take: Callable[..., Any], value: Any, *words: str) -> None:
    with pytest.raises(ValueError, match=r"^thing must be") as caught:
        take(value, "thing")
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400
    for word in words:
        assert word in message


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_and_masks_of_other_floats_are_the_same(dtype: torch.dtype) -> None:
    for take, values in ((as_images, RGB), (as_masks, MASK)):
        taken = take(values.to(dtype))
        assert taken.dtype == torch.float32
        assert torch.allclose(taken, values, atol=4e-3)


def test_bytes_are_divided_and_truth_is_0_and_1() -> None:
    pixels = (RGB * 255).round().byte()
    assert torch.equal(as_images(pixels), pixels / 255)
    assert torch.equal(as_images(RGB > 0.5), (RGB > 0.5).float())
    mask = (MASK * 255).round().byte()
    assert torch.equal(as_masks(mask), mask / 255)
    assert torch.equal(as_masks(MASK > 0.5), (MASK > 0.5).float())
    assert torch.equal(as_masks((MASK > 0.5).byte()), (MASK > 0.5).float()), "a mask of bytes that are 0 and 1"


def test_gray_has_three_channels_and_transparency_stands_on_white() -> None:
    gray, alpha = RGB[..., :1], RGB[..., 2:]
    assert torch.equal(as_images(gray), gray.expand(-1, -1, -1, 3))
    assert torch.allclose(as_images(torch.cat([RGB, torch.ones_like(alpha)], -1)), RGB, atol=1e-6)
    assert torch.equal(as_images(torch.cat([RGB, torch.zeros_like(alpha)], -1)), torch.ones_like(RGB))
    on_white = gray * alpha + 1 - alpha
    assert torch.equal(as_images(torch.cat([gray, alpha], -1)), on_white.expand(-1, -1, -1, 3))


def test_what_lies_beyond_0_and_1_is_cut_off_and_nothing_given_is_changed() -> None:
    bright = RGB * 3 - 1
    given = bright.clone()
    assert torch.equal(as_images(bright), bright.clamp(0, 1))
    taken = as_masks(MASK)
    taken.zero_()
    assert torch.equal(bright, given) and MASK.any()


NO_PIXELS: dict[str, Any] = {
    "nothing": None,
    "a text": "image.png",
    "a dict": {"samples": RGB},
    "an array": np.ones((1, 5, 7, 3), np.float32),
    "complex": RGB.to(torch.complex64),
    "int64": torch.ones(1, 5, 7, 3, dtype=torch.int64),
    "NaN": torch.full((1, 5, 7, 3), NAN),
    "infinity": torch.full((5, 7), INF),
    "infinity in half": torch.full((5, 7), 1e6).half(),
    "meta": torch.ones(1, 5, 7, 3, device="meta"),
    "sparse": torch.ones(5, 7).to_sparse(),
    "an empty batch": torch.ones(0, 5, 7),
    "no height": torch.ones(1, 0, 7),
    "one number": torch.tensor(1.0),
    "five dimensions": torch.ones(1, 1, 5, 7, 3),
}


@pytest.mark.parametrize("case", NO_PIXELS)
def test_what_holds_no_pixels_is_refused(case: str) -> None:
    for take in (as_images, as_masks):
        assert_refused(take, NO_PIXELS[case], "shape", "got")


@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 5, 7, 0), (1, 5, 7, 5), (1, 3, 5, 7), (0, 5, 7, 3), (1, 5, 0, 3)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    assert_refused(as_images, torch.zeros(shape), f"got shape {shape}", "Connect")


@pytest.mark.parametrize("shape", [(7,), (1, 1, 5, 7), (1, 5, 7, 3), (0, 7), (0, 5, 7)])
def test_masks_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    assert_refused(as_masks, torch.zeros(shape), f"got shape {shape}", "Connect")


@pytest.mark.parametrize("value", [2, 2.0, "2", " 2.0 ", True + 1, np.float32(2), torch.tensor(2), torch.tensor([2.0])])
def test_numbers_are_taken_from_whatever_is_one(value: Any) -> None:
    number = as_number(value, "thing", 0, 3)
    assert number == 2.0 and type(number) is float
    assert type(as_whole_number(value, "thing", 0, 3)) is int


@pytest.mark.parametrize(
    "value",
    [NAN, INF, -INF, 10**400, 10**5000, -0.001, 3.001, "many", "", "9" * 10**6, "a\nb\udc80" * 10**5, None, [],
     [1.0], {}, 1j, b"x", torch.ones(2), torch.tensor(NAN), torch.ones(1, device="meta")],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_number_of_the_range_is_refused(value: Any) -> None:
    assert_refused(lambda value, name: as_number(value, name, 0, 3), value, "a number from 0 to 3, got")


@pytest.mark.parametrize("value", [1.5, "0.5", NAN])
def test_parts_of_whole_numbers_are_refused(value: Any) -> None:
    assert_refused(lambda value, name: as_whole_number(value, name, 0, 3), value)


@pytest.mark.parametrize("value", ["c", "", None, 1, ["a"], "A", "x" * 10**6, "\x1b[2J"])
def test_what_is_no_choice_is_refused(value: Any) -> None:
    assert as_choice("a", "thing", ["a", "b"]) == "a"
    assert_refused(lambda value, name: as_choice(value, name, ["a", "b"]), value, "one of a, b; got")
