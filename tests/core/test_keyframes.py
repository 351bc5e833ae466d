"""Keyframes as people write them, and the motion of each frame."""

import re

import pytest
from dynamicid_pack.dynamicid_core.imr.keyframes import EASINGS, in_each_frame, parse_keyframes
from dynamicid_pack.dynamicid_core.imr.motion_text import MotionSpec, parse_motion

TEXT = "0: neutral; 8: happy, yaw 20\n\n16: surprise"


def test_keyframes_in_lines_and_after_semicolons() -> None:
    assert parse_keyframes(TEXT) == {
        0: MotionSpec(),
        8: MotionSpec({"happy": 1.0}, yaw=20.0),
        16: MotionSpec({"surprise": 1.0}),
    }
    assert parse_keyframes(" ;\n ") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("8: happy; 4: sad", "in order, each frame once, but 4 comes after 8"),
        ("8: happy; 8: sad", "8 comes after 8"),
        ("happy", "a colon and a motion, as in 8: happy, yaw 20. Got 'happy'"),
        ("first: happy", "Got 'first: happy'"),
        ("-1: happy", "Got '-1: happy'"),
        ("1.5: happy", "Got '1.5: happy'"),
        ("9999999: happy", "Got '9999999: happy'"),
        ("8:", "keyframe 8: A motion is written as"),
        ("8: hapy", "keyframe 8: A motion is written as expressions"),
        ("8: happy 3", "keyframe 8: The amount of happy"),
        ("\u0668: happy", "Got"),
        ("; ".join(f"{frame}: sad" for frame in range(1001)), "At most 1,000 keyframes"),
    ],
)
def test_nonsense_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        parse_keyframes(text)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 700


def test_motions_go_from_keyframe_to_keyframe() -> None:
    specs = in_each_frame(parse_keyframes(TEXT), 20, EASINGS["linear"])
    assert [spec.yaw for spec in specs[:9]] == pytest.approx([2.5 * frame for frame in range(9)])
    assert specs[4].shares == pytest.approx({"neutral": 0.5, "happy": 0.5})
    assert specs[12].shares == pytest.approx({"happy": 0.5, "surprise": 0.5}) and specs[12].yaw == 10
    assert specs[16] == specs[19] == parse_motion("surprise")
    late = in_each_frame({3: parse_motion("sad")}, 5, EASINGS["linear"])
    assert late == [parse_motion("sad")] * 5
    assert in_each_frame({}, 2, EASINGS["linear"]) == [MotionSpec()] * 2


@pytest.mark.parametrize("name", EASINGS)
def test_easings_start_and_end_where_they_should(name: str) -> None:
    easing = EASINGS[name]
    assert (easing(0.0), easing(1.0)) == (0.0, 1.0)
    way = [easing(i / 10) for i in range(11)]
    assert way == sorted(way)


def test_easings_differ_in_between() -> None:
    def yaw(easing: str) -> float:
        return in_each_frame(parse_keyframes("0: neutral; 4: yaw 16"), 5, EASINGS[easing])[1].yaw

    assert [yaw(name) for name in EASINGS] == pytest.approx([4, 2.5, 1, 7, 0])
