"""Motions over time: keyframes as people write them, and the motion of each frame between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from ..messages import quoted
from .motion_text import MotionSpec, parse_motion

EASINGS: Mapping[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "ease in and out": lambda t: t * t * (3 - 2 * t),
    "ease in": lambda t: t * t,
    "ease out": lambda t: t * (2 - t),
    "hold": lambda t: float(t >= 1),
}
"""How a motion goes from one keyframe to the next: the part of the time that has passed -> the part of the way."""

Keyframes = Mapping[int, MotionSpec]
"""Frame, from 0 and rising -> its motion."""

_KEYFRAME = re.compile(r"(?P<frame>[^:]*):(?P<motion>.*)", re.DOTALL)
_MAX_KEYFRAMES, _MAX_FRAME = 1000, 1_000_000


def parse_keyframes(text: str) -> Keyframes:
    """Return keyframes written as `0: neutral; 8: happy, yaw 20; 16: surprise`, or each in a line of its own.

    A keyframe tells the whole motion: what it leaves out is neutral, or not turned. A text without any is {}.

    Raises:
        ValueError: a keyframe without a frame or with one that is none, frames out of order, or see `parse_motion`.
    """
    keyframes: dict[int, MotionSpec] = {}
    last = -1
    for part in filter(None, (part.strip() for part in re.split(r"[;\n]", text))):
        match = _KEYFRAME.fullmatch(part)
        frame = _frame(match["frame"].strip()) if match else None
        if match is None or frame is None:
            raise ValueError(
                "A keyframe is a frame's number, counted from 0, a colon and a motion, as in 8: happy, yaw 20. Got "
                f"{quoted(part)}."
            )
        if frame <= last:
            raise ValueError(f"Keyframes must come in order, each frame once, but {frame} comes after {last}.")
        if len(keyframes) == _MAX_KEYFRAMES:
            raise ValueError(f"At most {_MAX_KEYFRAMES:,} keyframes are possible. Leave some out.")
        try:
            keyframes[frame] = parse_motion(match["motion"].strip())
        except ValueError as error:
            raise ValueError(f"keyframe {frame}: {error}") from error
        last = frame
    return keyframes


def in_each_frame(keyframes: Keyframes, frames: int, easing: Callable[[float], float]) -> list[MotionSpec]:
    """Return the motion of each of so many frames: before the first keyframe and after the last it stands still.

    Args:
        keyframes: without any, every frame is neutral and not turned.
        easing: one of EASINGS' values.
    """
    return [_at(keyframes, [*keyframes], frame, easing) for frame in range(frames)]


def _at(keyframes: Keyframes, places: Sequence[int], frame: int, easing: Callable[[float], float]) -> MotionSpec:
    before = [place for place in places if place <= frame]
    after = [place for place in places if place > frame]
    if not before or not after:
        ends = before[-1:] or after[:1]
        return keyframes[ends[0]] if ends else MotionSpec()
    part = (frame - before[-1]) / (after[0] - before[-1])
    return keyframes[before[-1]].between(keyframes[after[0]], easing(part))


def _frame(text: str) -> int | None:
    """Return the number of a frame; None where a text is none."""
    number = int(text) if re.fullmatch(r"[0-9]{1,7}", text) else -1
    return number if 0 <= number <= _MAX_FRAME else None
