"""Encode Identity on rendered people, with the miniature's face pack through insightface: truth is exact."""

from pathlib import Path

import insightface
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import skimage
import torch
from dynamicid_pack.dynamicid_core.host import encode as encoding
from dynamicid_pack.dynamicid_core.host.edit import edit_motion
from dynamicid_pack.dynamicid_core.host.encode import COMBINATIONS, Choice, NoFaceError, encode, face_of
from dynamicid_pack.dynamicid_core.host.lru_cache import LRUCache
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.dynamicid_core.identity.analyzer import FaceAnalyzer
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.imr.motion import source_motion, target_motion
from dynamicid_pack.mini.world.render import Picture
from dynamicid_pack.mini.world.world import World
from dynamicid_pack.nodes.encode import EncodeIdentity
from PIL import Image
from torch import Tensor

WORLD = World(seed=9, held_out_people=True)
ASKED = {"face": "largest", "index": 0, "crop": "whole picture", "combine": "average", "no_face": "error"}


@pytest.fixture(scope="module")
def miniature() -> Miniature:
    return load_miniature()


def drawn(index: int, count: int = 1) -> Picture:
    return WORLD.sample(index, count).picture()


def image(picture: Picture) -> Tensor:
    return torch.from_numpy(picture.image).float().div(255)[None]


def several(person: int, count: int = 4) -> Tensor:
    """(count, 128, 128, 3): one person in several motions."""
    samples = WORLD.portraits_of(person)
    return torch.cat([image(samples[i].picture()) for i in range(0, 8 * count, 8)])


def test_what_is_found_is_what_was_drawn(miniature: Miniature) -> None:
    off, turned = [], []
    for number in range(12):
        (true,) = drawn(number).faces
        face = encode(image(drawn(number)), miniature.dynamicid).identity.face
        assert face is not None and face.landmarks is not None and face.embedding is not None
        width = true.box[2] - true.box[0]
        off.append(np.median(np.linalg.norm(face.landmarks.numpy() / 4 - true.landmarks, axis=1)) / width)
        turned.append(np.abs(np.array(face.pose) - true.pose)[:2])
        assert face.size == (128, 128) and face.embedding.norm() == pytest.approx(1, abs=1e-4)
    assert np.median(off) < 0.03 and np.median(turned) < 6


def test_one_picture_is_read_once(miniature: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    detect = FaceAnalyzer.detect
    monkeypatch.setattr(FaceAnalyzer, "detect", lambda self, picture: asked.append(1) or detect(self, picture))
    pictures = several(31)
    first = encode(pictures, miniature.dynamicid).identity
    once = len(asked)
    again = encode(pictures.clone(), miniature.dynamicid).identity
    assert len(asked) == once and torch.equal(first.tokens, again.tokens)
    encode(pictures.flip(2), miniature.dynamicid)
    assert len(asked) > once


def test_one_driving_picture_is_read_once(miniature: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    detect = FaceAnalyzer.detect
    monkeypatch.setattr(FaceAnalyzer, "detect", lambda self, picture: read.append(1) or detect(self, picture))
    driving = image(drawn(32))
    first = face_of(driving, miniature.dynamicid.faces)
    once = len(read)
    assert once and face_of(driving.clone(), miniature.dynamicid.faces) == first and len(read) == once
    assert face_of(driving.flip(2), miniature.dynamicid.faces) != first and len(read) > once


def test_a_driving_picture_is_read_again_for_embeddings_of_another_channel_order(miniature: Miniature) -> None:
    analyzer, driving = miniature.dynamicid.faces, image(drawn(33))
    (one, _), (other, _) = (face_of(driving, FaceAnalyzer(analyzer.analysis, order)) for order in (False, True))
    assert one.embedding is not None and other.embedding is not None
    assert one.box == other.box and not torch.allclose(one.embedding, other.embedding, atol=0.01)


@pytest.mark.parametrize("times", [6, pytest.param(100, marks=pytest.mark.full)])
def test_many_in_a_row_are_the_same_and_leave_memory_and_analyzer_alone(miniature: Miniature, times: int) -> None:
    """Encoded and edited, each time from the beginning."""
    detector = miniature.dynamicid.faces.analysis.det_model

    def settings() -> dict[str, str]:
        return {name: repr(value) for name, value in vars(detector).items() if name != "center_cache"}

    def encoded_and_edited() -> Identity:
        encoding._references = LRUCache(64)
        person = encode(image(drawn(5)), miniature.dynamicid).identity
        motion = target_motion(person.face, "happy", yaw=20.0)
        return edit_motion(person, miniature.dynamicid, miniature.clip, source_motion(person.face), motion)

    before, first, taken = settings(), encoded_and_edited(), 0
    for number in range(times):
        assert torch.equal(encoded_and_edited().tokens, first.tokens), number
        if number == times // 5:  # what is made once is made
            taken = psutil.Process().memory_info().rss
    assert psutil.Process().memory_info().rss - taken < 20 * 2**20
    assert settings() == before


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_several_references_make_one_person(miniature: Miniature, combine: str) -> None:
    pictures = several(32)
    alone = torch.stack([encode(p[None], miniature.dynamicid).identity.tokens for p in pictures])
    combined = encode(pictures, miniature.dynamicid, combine=combine).identity.tokens
    if combine == "average":
        assert torch.allclose(combined, alone.mean(0), atol=1e-5)
    elif combine == "best only":
        assert any(torch.equal(combined, tokens) for tokens in alone)
    else:
        assert torch.allclose(combined.norm(dim=-1), alone.norm(dim=-1).mean(0), rtol=1e-4)


def test_a_stranger_among_the_references_is_left_out_and_named(miniature: Miniature) -> None:
    pictures = several(33)
    encoded = encode(torch.cat([pictures[:2], several(34, 1), pictures[2:]]), miniature.dynamicid)
    assert encoded.notes == ["picture 3 seems to show another person, and was left out"]
    assert [face is None for face in encoded.faces] == [False, False, True, False, False]


@pytest.mark.parametrize(
    "picture",
    [
        torch.zeros(1, 16, 16, 3),
        torch.zeros(1, 128, 128, 3),
        torch.linspace(0, 1, 64).expand(1, 64, 64).unsqueeze(-1),
        torch.ones(1, 90, 300, 4),
    ],
    ids=["16x16", "black", "grey", "transparent"],
)
def test_without_a_face_it_stops_or_goes_on_as_chosen(miniature: Miniature, picture: Tensor) -> None:
    with pytest.raises(ValueError, match="no face was found"):
        EncodeIdentity.execute(picture, miniature.dynamicid, **ASKED)
    identity, shown = EncodeIdentity.execute(picture, miniature.dynamicid, **ASKED | {"no_face": "skip"}).result
    assert identity is None and shown.shape[:3] == picture.shape[:3]


def _photographs() -> list[Path]:
    """What scikit-image and insightface carry with them."""
    folders = [Path(skimage.__file__).parent / "data", Path(insightface.__file__).parent / "data" / "images"]
    return [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg", ".gif")]


@pytest.mark.parametrize("path", _photographs(), ids=lambda path: path.name)
def test_a_photograph_gives_a_person_or_says_that_it_has_no_face(miniature: Miniature, path: Path) -> None:
    """The miniature's face pack knows drawn faces only: what it makes of a photograph is not asked."""
    photograph = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).float().div(255)[None]
    identity, shown = EncodeIdentity.execute(photograph, miniature.dynamicid, **ASKED | {"no_face": "skip"}).result
    assert shown.shape == photograph.shape
    if identity is not None:
        assert identity.tokens.isfinite().all() and identity.face.landmarks.isfinite().all()


def test_a_face_at_the_border_is_a_person(miniature: Miniature) -> None:
    picture = drawn(7)
    x0, y0, x1, _ = picture.faces[0].box
    near = image(picture)[:, int(y0) + 1 :, int(x0) + 1 : int(x1) - 1]  # hair, chin and background are gone
    identity = encode(near, miniature.dynamicid).identity
    assert identity.face is not None and identity.face.landmarks is not None and identity.thumbnail is not None
    assert identity.face.landmarks.isfinite().all() and identity.thumbnail.shape == (128, 128, 3)


def test_pictures_without_a_face_are_left_out_of_a_batch(miniature: Miniature) -> None:
    batch = torch.cat([image(drawn(1)), torch.zeros(1, 128, 128, 3)])
    encoded = encode(batch, miniature.dynamicid)
    assert len(encoded.notes) == 1 and encoded.notes[0].startswith("picture 2 of 2: no face was found")


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.full((1, 64, 64, 3), float("nan")), "NaN"),
        (torch.zeros(64, 64, 3), "shape"),
        (torch.zeros(0, 64, 64, 3), "shape"),
    ],
)
def test_what_is_no_picture_is_refused(miniature: Miniature, picture: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(picture, miniature.dynamicid)


def test_an_index_beyond_the_faces_says_how_many_there_are(miniature: Miniature) -> None:
    with pytest.raises(NoFaceError, match="face number 7 was requested, but there are 1"):
        encode(image(drawn(2)), miniature.dynamicid, Choice("largest", 7))


def test_a_large_picture_is_found_as_a_small_one_in_bounded_memory(miniature: Miniature) -> None:
    resource = pytest.importorskip("resource", reason="Windows counts memory otherwise")
    small = image(drawn(4))
    face = encode(small, miniature.dynamicid).identity.face
    large = torch.nn.functional.interpolate(small.permute(0, 3, 1, 2), (4000, 6000)).permute(0, 2, 3, 1).contiguous()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tall = encode(large, miniature.dynamicid).identity.face
    assert tall is not None and tall.landmarks is not None and face is not None and face.landmarks is not None
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert more < 6 * large.nbytes
    assert np.abs(tall.landmarks.numpy() - face.landmarks.numpy()).mean() < 0.02 * 512


def test_a_face_crop_looks_closer(miniature: Miniature) -> None:
    whole, near = (encode(image(drawn(3)), miniature.dynamicid, crop=crop).identity for crop in encoding.CROPS[1:])
    assert not torch.equal(whole.tokens, near.tokens) and torch.equal(whole.negative_tokens, near.negative_tokens)


def test_the_preview_frames_the_face_that_was_used(miniature: Miniature) -> None:
    picture = image(drawn(6))
    identity, shown = EncodeIdentity.execute(picture, miniature.dynamicid, **ASKED).result
    changed = (shown - picture).abs().sum(-1)[0] > 0.05
    rows, columns = torch.nonzero(changed, as_tuple=True)
    box = identity.face.box
    assert (int(columns.min()), int(rows.min())) == pytest.approx(box[:2], abs=1.5)
    assert identity.thumbnail.shape == (128, 128, 3) and identity.face_prompt.startswith("in a neutral expression")


def _centre(face) -> np.ndarray:
    return (np.array(face.box[:2]) + face.box[2:]) / 2


@pytest.mark.parametrize("order", ["left to right", "centre"])
def test_of_a_group_the_right_face_is_picked(miniature: Miniature, order: str) -> None:
    sure = 0
    for number in range(8):
        picture = drawn(number, 3)
        centres = np.array([_centre(face) for face in picture.faces])
        keys = centres[:, 0] if order == "left to right" else np.linalg.norm(centres - [128, 64], axis=1)
        if np.diff(np.sort(keys)).min() < 2:
            continue  # a tie, but for what a detector's boxes differ by
        sure += 1
        for index, expected in enumerate(centres[np.argsort(keys)]):
            face = encode(image(picture), miniature.dynamicid, Choice(order, index)).identity.face
            assert np.linalg.norm(_centre(face) - expected) < 6, (number, index)
    assert sure >= 3


def test_of_faces_of_two_sizes_the_largest_is_the_first(miniature: Miniature) -> None:
    for number in range(4):
        group, portrait = image(drawn(number, 3)), image(drawn(number))
        for parts, left in (([group, portrait], 256), ([portrait, group], 0)):
            face = encode(torch.cat(parts, 2), miniature.dynamicid).identity.face
            true = _centre(drawn(number).faces[0]) + np.array([left, 0])
            assert np.linalg.norm(_centre(face) - true) < 8, (number, left)


def test_many_pictures_without_a_face_are_told_in_one_line(miniature: Miniature) -> None:
    with pytest.raises(NoFaceError, match=r"^in none of 40 pictures: no face was found\.") as caught:
        encode(torch.zeros(40, 5, 64, 3), miniature.dynamicid)
    assert len(str(caught.value)) < 200
