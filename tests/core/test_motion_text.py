"""Motions written with amounts and degrees: what they mean, what is a prompt instead, and what is refused."""

import re

import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.imr.motion import source_motion, target_motion
from dynamicid_pack.dynamicid_core.imr.motion_text import MotionSpec, described_motion, motion_in, parse_motion
from dynamicid_pack.mini.world.head import Motion

from .test_motion import face, landmarks_of, off


@pytest.mark.parametrize(
    ("text", "shares", "angles"),
    [
        ("happy", {"happy": 1.0}, (0, 0, 0)),
        ("happy 0.7, surprise 0.3", {"happy": 0.7, "surprise": 0.3}, (0, 0, 0)),
        ("Happy .5", {"neutral": 0.5, "happy": 0.5}, (0, 0, 0)),
        ("neutral 0.4, sad 0.6", {"neutral": 0.4, "sad": 0.6}, (0, 0, 0)),
        ("fear 1.5", {"neutral": -0.5, "fear": 1.5}, (0, 0, 0)),
        ("happy 0", {"neutral": 1.0}, (0, 0, 0)),
        ("yaw 20", {"neutral": 1.0}, (20, 0, 0)),
        ("happy, roll -5,  pitch 7.5", {"happy": 1.0}, (0, 7.5, -5)),
    ],
)
def test_amounts_and_degrees(text: str, shares: dict[str, float], angles: tuple[float, float, float]) -> None:
    spec = parse_motion(text)
    assert spec.shares == pytest.approx(shares) and (spec.yaw, spec.pitch, spec.roll) == angles


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hapy 0.7, surprise 0.3", "'hapy'"),
        ("happy 0.7 and more", "'happy 0.7 and more'"),
        ("happy, , sad", "Got '' in"),
        ("happy twice", "amount of happy must be a number from 0 to 2, got 'twice'"),
        ("happy -1", "from 0 to 2, got -1"),
        ("happy nan", "got nan"),
        ("happy 1.5, sad 1", "add up to 2.5"),
        ("neutral 0.5, happy 0.7", "add up to 1.2"),
        ("neutral 0.5", "add up to 0.5"),
        ("happy, happy", "happy stands twice"),
        ("yaw 3, yaw 3", "yaw stands twice"),
        ("yaw", "yaw needs degrees"),
        ("yaw 91", "from -90 to 90, got 91"),
        ("\x1b[2J", r"'\x1b[2J'"),
    ],
)
def test_nonsense_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        parse_motion(text)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "prompt",
    ["happy", "happy, sad", "winking", "in a happy expression, in front view", "a man of 40, yaw 20", "happy, yaw"],
)
def test_prompts_without_amounts_stay_prompts(prompt: str) -> None:
    assert motion_in(prompt) is None


def test_a_name_that_is_misspelled_among_amounts_is_no_prompt() -> None:
    with pytest.raises(ValueError, match="hapy"):
        motion_in("hapy 0.7, surprise 0.3")


def test_a_mixture_is_told_by_a_prompt_for_each_and_its_share() -> None:
    motion = described_motion(face(1, Motion()), "happy 0.7, surprise 0.3, yaw 20")
    assert motion.shares == (
        ("in a happy expression, in side view", 0.7), ("in a surprise expression, in side view", 0.3)
    )  # fmt: skip
    assert motion.prompt == "in a 0.7 happy + 0.3 surprise expression, in side view"


def test_one_whole_expression_is_the_word_itself() -> None:
    reference = face(1, Motion())
    written, chosen = described_motion(reference, "happy 1"), target_motion(reference, "happy")
    assert written.prompt == chosen.prompt and written.texts == chosen.texts == ((chosen.prompt, 1.0),)
    assert described_motion(reference, "amused").prompt == "in a amused expression, in front view"
    assert described_motion(reference, "laughing out loud").prompt == "laughing out loud"


@pytest.mark.parametrize("roll", [-25.0, 15.0])
def test_roll_moves_the_landmarks_where_truth_has_them(roll: float) -> None:
    reference, true = face(2, Motion()), face(2, Motion(roll=roll))
    result = described_motion(reference, f"neutral, roll {roll}")
    assert off(landmarks_of(result), true) < 0.03 < off(landmarks_of(source_motion(reference)), true)
    assert result.prompt == "in a neutral expression, in front view"
    widget = target_motion(reference, roll=roll)
    assert np.array_equal(landmarks_of(widget), landmarks_of(result))


def test_between_two_motions() -> None:
    start, end = parse_motion("neutral"), parse_motion("happy 0.8, yaw 20, roll 10")
    half = start.between(end, 0.5)
    assert half.shares == pytest.approx({"neutral": 0.6, "happy": 0.4}) and (half.yaw, half.roll) == (10, 5)
    assert start.between(end, 0.0) == MotionSpec() and start.between(end, 1.0) == end
    assert sum(half.shares.values()) == pytest.approx(1)
