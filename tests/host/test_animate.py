"""Animate Motion on an IMR of random weights: each frame as Edit Facial Motion would make it alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.host.edit import edit_motion
from dynamicid_pack.dynamicid_core.host.miniature import Miniature
from dynamicid_pack.dynamicid_core.host.models import DynamicID
from dynamicid_pack.dynamicid_core.identity.faces import Face
from dynamicid_pack.dynamicid_core.identity.identity import Identity, load_identity, mix, save_identity
from dynamicid_pack.dynamicid_core.imr.keyframes import EASINGS, in_each_frame, parse_keyframes
from dynamicid_pack.dynamicid_core.imr.motion import source_motion, target_motion
from dynamicid_pack.dynamicid_core.imr.motion_text import written_motion
from dynamicid_pack.mini.world.head import Head, Motion
from dynamicid_pack.mini.world.person import draw_person
from dynamicid_pack.nodes.animate import PREVIEW, AnimateMotion
from dynamicid_pack.nodes.edit import EditFacialMotion
from torch import Tensor

from .test_edit import ASKED, WIDTH, dynamicid, miniature, person

__all__ = ["dynamicid", "miniature", "person"]

TURN = "0: neutral; 4: happy, yaw 20; 6: happy 0.5, roll -10"
DRIVEN = "dynamicid_pack.dynamicid_core.host.animation.face_of"


@pytest.fixture(autouse=True)
def notes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the node warns of: a test that expects notes takes them out."""
    told: list[str] = []
    monkeypatch.setattr("dynamicid_pack.nodes.animate.warn", lambda _, message: told.append(message))
    yield told
    assert not told


def animated(identity: Identity | None, miniature: Miniature, dynamicid: DynamicID, **changed: Any) -> Any:
    inputs = {"identity": identity, "dynamicid": dynamicid, "clip": miniature.clip, "frames": 7, "keyframes": TURN}
    return AnimateMotion.execute(**inputs | changed).result


def test_each_frame_is_what_edit_facial_motion_makes_of_it(
    miniature: Miniature, dynamicid: DynamicID, person: Identity, notes: list[str]
) -> None:
    two = mix(person, Identity(torch.randn(4, WIDTH), torch.randn(4, WIDTH)), 0.3)
    for one in (person, two):
        moving, preview = animated(one, miniature, dynamicid, strength=0.8)
        assert moving.frames == 7 and preview.shape == (7, PREVIEW, PREVIEW, 3)
        specs = in_each_frame(parse_keyframes(TURN), 7, EASINGS["linear"])
        for frame in (0, 3, 6):
            target = written_motion(one.face, specs[frame])
            alone = edit_motion(one, dynamicid, miniature.clip, source_motion(one.face), target, 0.8)
            assert torch.allclose(moving.at(frame).tokens, alone.tokens, atol=1e-5)
    assert "no 3-D points" in notes.pop()  # a mixed person has no face
    (still,), _ = EditFacialMotion.execute(
        person, dynamicid, miniature.clip, **ASKED | {"prompt": "happy, yaw 20, roll 0"}
    ).result
    assert torch.allclose(animated(person, miniature, dynamicid)[0].at(4).tokens, still.tokens, atol=1e-5)


def test_frames_with_one_motion_are_edited_once(miniature: Miniature, dynamicid: DynamicID, person: Identity) -> None:
    moving, _ = animated(person, miniature, dynamicid, keyframes="2: sad; 4: happy", easing="hold", frames=9)
    assert moving.curve.frames == (0, 0, 0, 0, 1, 1, 1, 1, 1) and len(moving.curve.tokens) == 2


def test_a_saved_person_keeps_the_motion(
    miniature: Miniature, dynamicid: DynamicID, person: Identity, tmp_path: Path
) -> None:
    moving, _ = animated(person, miniature, dynamicid)
    save_identity(moving, tmp_path / "ana.safetensors")
    loaded = load_identity(tmp_path / "ana.safetensors")
    assert loaded.curve is not None and loaded.curve.frames == moving.curve.frames
    assert torch.equal(loaded.curve.tokens, moving.curve.tokens) and torch.equal(loaded.tokens, moving.tokens)


def driver(motion: Motion) -> Face:
    head = Head(draw_person(7), motion, (256.0, 256.0), 90.0)
    landmarks, points68 = (torch.from_numpy(points).float() for points in (head.landmarks(), head.points68()))
    return Face(landmarks=landmarks, points68=points68, pose=motion.pose, size=(512, 512))


@pytest.fixture
def driving(monkeypatch: pytest.MonkeyPatch, dynamicid: DynamicID) -> Tensor:
    """Five pictures, of which the second shows no face: each says in its first pixel which it is."""
    from dynamicid_pack.dynamicid_core.host.encode import NoFaceError

    faces = [driver(Motion(yaw=10.0 * number)) for number in range(5)]

    def face_of(image: Tensor, _: Any) -> tuple[Face, int]:
        number = int(image[0, 0, 0, 0] * 10)
        if number == 1:
            raise NoFaceError("no face was found")
        return faces[number], 0

    monkeypatch.setattr(DRIVEN, face_of)
    monkeypatch.setattr(DynamicID, "faces", None)
    return torch.arange(5).div(10).add(0.01)[:, None, None, None].expand(-1, 8, 8, 3)


def test_driving_pictures_turn_the_head_and_keyframes_tell_the_words(
    miniature: Miniature, dynamicid: DynamicID, person: Identity, driving: Tensor, notes: list[str]
) -> None:
    moving, _ = animated(person, miniature, dynamicid, driving_images=driving, frames=5, keyframes="0: happy")
    assert notes.pop().startswith("driving_images shows no face at 1 (from 0)") and not notes
    source = source_motion(person.face)
    for frame, yaw in ((0, 0.0), (1, 0.0), (4, 40.0)):
        target = target_motion(person.face, "happy", driver=driver(Motion(yaw=yaw)))
        expected = edit_motion(person, dynamicid, miniature.clip, source, target)
        assert torch.allclose(moving.at(frame).tokens, expected.tokens, atol=1e-5)


@pytest.mark.parametrize(("frames", "says"), [(4, "the others are not used"), (7, "the last one stays")])
def test_driving_pictures_fewer_and_more_than_frames_are_told(
    miniature: Miniature, dynamicid: DynamicID, person: Identity, driving: Tensor, notes: list[str], frames: int,
    says: str,
) -> None:  # fmt: skip
    moving, _ = animated(person, miniature, dynamicid, driving_images=driving, frames=frames, keyframes="")
    assert f"5 driving_images for {frames} frames: {says}" in notes.pop() and "no face at 1" in notes.pop()
    assert moving.frames == frames


def test_what_does_not_fit_is_told_or_refused(
    miniature: Miniature, dynamicid: DynamicID, person: Identity, driving: Tensor, notes: list[str]
) -> None:
    animated(person, miniature, dynamicid, frames=6)
    assert "keyframe 6 lies beyond the last frame, which is 5" in notes.pop()
    same, _ = animated(person, miniature, dynamicid, keyframes="0: sad")
    assert "nothing moves" in notes.pop() and same.curve is None
    animated(Identity(person.tokens, person.negative_tokens), miniature, dynamicid)
    assert "no 3-D points" in notes.pop()
    with pytest.raises(ValueError, match="4 comes after 8"):
        animated(person, miniature, dynamicid, keyframes="8: happy; 4: sad")
    with pytest.raises(ValueError, match="Nothing moves: write keyframes"):
        animated(person, miniature, dynamicid, keyframes="")
    with pytest.raises(ValueError, match="frames must be a number from 1 to 1024, got 0"):
        animated(person, miniature, dynamicid, frames=0)
    with pytest.raises(ValueError, match="no face was found in any picture"):
        animated(person, miniature, dynamicid, driving_images=driving[1:2])
    moving, _ = animated(person, miniature, dynamicid)
    for again in (lambda: animated(moving, miniature, dynamicid), lambda: edited(moving, miniature, dynamicid)):
        with pytest.raises(ValueError, match="changes by frame already"):
            again()


def edited(identity: Identity, miniature: Miniature, dynamicid: DynamicID) -> Any:
    return EditFacialMotion.execute(identity, dynamicid, miniature.clip, **ASKED).result


def test_strength_0_is_the_person_and_who_was_skipped_stays_absent(
    miniature: Miniature, dynamicid: DynamicID, person: Identity, notes: list[str]
) -> None:
    assert animated(person, miniature, dynamicid, strength=0.0)[0] is person
    assert "nothing moves" in notes.pop()
    assert animated(None, miniature, dynamicid)[0] is None
