"""The rendered world: the same everywhere, and its truth true."""

import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dynamicid_pack.mini.world.caption import (
    PLACES,
    VIEWS,
    YAWS,
    CaptionSpec,
    PersonSpec,
    face_prompt,
    parse_caption,
    to_caption,
    view_of,
)
from dynamicid_pack.mini.world.composition import Figure, Scene, compose, describe
from dynamicid_pack.mini.world.head import CONTOUR, EXPRESSIONS, IBUG68, Head, Motion, rotation
from dynamicid_pack.mini.world.person import CHOICES, NUMBERS, draw_person
from dynamicid_pack.mini.world.render import render
from dynamicid_pack.mini.world.world import HELD_OUT_PAIRS, PAIRS, World, training_pairs
from dynamicid_pack.tests.mirror import MIRROR106

ROOT = Path(__file__).resolve().parents[2]
PLAIN = PLACES[0]


def portrait(person, motion=None, **changes):
    figure = Figure(person, motion or Motion(), "blue", "t-shirt", 64.0, 64.0, 26.0)
    return Scene(128, 128, PLAIN, (replace(figure, **changes),))


def samples(count, people):
    return [World().sample(i, people).picture() for i in range(count)]


# --- the same everywhere ---


def test_the_same_scene_is_the_same_picture_bit_for_bit():
    for people in (1, 2, 3):
        scene = World(seed=3).sample(11, people).scene
        assert np.array_equal(render(scene).image, render(scene).image)


def test_another_process_draws_the_same_picture():
    script = (
        "import hashlib; from mini.world.world import World;"
        "print(hashlib.sha256(World().sample(5, 2).picture().image.tobytes()).hexdigest())"
    )

    def drawn(hash_seed):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", script]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout

    assert drawn("1") == drawn("2") != ""


def test_drawing_needs_neither_torch_nor_the_host():
    script = "import sys, mini.world.world, mini.__main__; print(sorted({'torch', 'comfy'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# --- people ---


def test_a_person_has_at_least_eight_visible_factors_and_people_differ():
    people = [draw_person(1_000_000 + i) for i in range(300)]
    assert len(CHOICES) + len(NUMBERS) >= 8
    assert len({replace(p, seed=0) for p in people}) == 300
    pictures = [render(portrait(p)).image.astype(int) for p in people[:20]]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert np.abs(one - other).mean() > 1


@pytest.mark.parametrize("name", [*CHOICES, *NUMBERS])
def test_every_factor_changes_the_picture(name):
    person = replace(draw_person(4), glasses="round", hair="short", beard="none")
    options = CHOICES.get(name, (-1.0, 1.0))
    changes: list[dict[str, Any]] = [{name: option} for option in options]
    pictures = [render(portrait(replace(person, **change))).image for change in changes]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert (np.abs(one.astype(int) - other).max(-1) > 24).sum() >= 12


# --- the truth ---


@pytest.mark.parametrize(("count", "people"), [(60, 1), (20, 2), (20, 3)])
def test_truth_of_many_pictures(count, people):
    for picture in samples(count, people):
        height, width, _ = picture.image.shape
        assert (height, width) == (128, 128 if people == 1 else 256) and picture.image.dtype == np.uint8
        assert len(picture.faces) == people
        for face in picture.faces:
            x0, y0, x1, y1 = face.box
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
            assert x1 - x0 >= 40
            for points in (face.landmarks, face.keypoints):
                assert (points >= [x0 - 1e-3, y0 - 1e-3]).all() and (points <= [x1 + 1e-3, y1 + 1e-3]).all()
            assert (face.head_mask <= face.mask).all()
            inner = [33, 35, 40, 39, 88, 52, 61, 86, 80]
            if people == 1:  # in groups, one may stand before the other
                for x, y in face.landmarks[inner].astype(int):
                    assert face.head_mask[y - 1 : y + 2, x - 1 : x + 2].any()
        lefts = [face.keypoints[2, 0] for face in picture.faces]
        assert lefts == sorted(lefts)
        assert sum(face.mask.astype(int) for face in picture.faces).max() == 1


def test_left_is_the_pictures_left():
    points = Head(draw_person(1), Motion(), (64, 64), 26).landmarks()
    assert points[38, 0] < points[92, 0] and points[52, 0] < points[61, 0]  # pupils, corners of the mouth
    assert points[35, 0] < points[39, 0] < points[89, 0] < points[93, 0]  # corners of the eyes
    assert points[43, 0] < points[50, 0] < points[102, 0] < points[101, 0]  # ends of the brows
    assert points[1, 0] == points[:33, 0].min() and points[17, 0] == points[:33, 0].max()
    assert points[0, 1] == points[:, 1].max()
    order = points[list(CONTOUR)]
    assert (np.diff(order[:17, 1]) > 0).all() and (np.diff(order[16:, 1]) < 0).all()
    assert points[40, 1] < points[38, 1] < points[33, 1]  # top, pupil, bottom of an eye
    assert points[49, 1] < points[45, 1] < points[40, 1]  # brow's upper and lower edge, eye
    assert points[72, 1] < points[73, 1] < points[74, 1] < points[86, 1] < points[80, 1] < points[71, 1]
    assert points[71, 1] < points[62, 1] <= points[60, 1] < points[53, 1]  # down through the lips


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_mirrored_pose_mirrors_the_landmarks(expression):
    for seed in range(5):
        person = draw_person(seed)
        one = Head(person, Motion(expression, 35, 10, 5), (64, 64), 26)
        other = Head(person, Motion(expression, -35, 10, -5), (64, 64), 26)
        mirrored = other.landmarks()[MIRROR106] * [-1, 1] + [128, 0]
        assert np.allclose(one.landmarks(), mirrored, atol=1e-6)


def test_the_68_points_are_the_106_but_for_the_hidden_jaw():
    head = Head(draw_person(2), Motion("happy", 40), (64, 64), 26)
    assert np.allclose(head.points68()[17:, :2], head.landmarks()[list(IBUG68[17:])])
    level = Head(draw_person(2), Motion(), (64, 64), 26)
    assert np.allclose(level.points68()[:, :2], level.landmarks()[list(IBUG68)], atol=0.5)


def test_yaw_to_the_right_moves_the_nose_to_the_right_and_pitch_up_moves_it_up():
    def nose(**pose):
        return Head(draw_person(3), Motion(**pose), (64, 64), 26).landmarks()[86]

    assert nose(yaw=30)[0] > nose()[0] + 8 and nose(pitch=15)[1] < nose()[1] - 4
    tilted = Head(draw_person(3), Motion(roll=10), (64, 64), 26).landmarks()
    assert tilted[92, 1] > tilted[38, 1]


def test_the_far_eye_is_narrower():
    points = Head(draw_person(3), Motion(yaw=40), (64, 64), 26).landmarks()
    assert points[93, 0] - points[89, 0] < 0.75 * (points[39, 0] - points[35, 0])


def test_rotation_gives_back_its_angles():
    for pitch, yaw, roll in ((0, 0, 0), (10, -30, 5), (-20, 40, -8)):
        turn = rotation(pitch, yaw, roll)
        angles = (
            math.atan2(turn[2, 1], turn[2, 2]),
            math.atan2(-turn[2, 0], math.hypot(turn[0, 0], turn[1, 0])),
            math.atan2(turn[1, 0], turn[0, 0]),
        )
        assert np.allclose(np.degrees(angles), (pitch, yaw, roll)) and np.allclose(turn @ turn.T, np.eye(3))


def test_insightface_finds_the_pose_in_the_68_points():
    transform = pytest.importorskip("insightface.utils.transform")
    mean = pytest.importorskip("insightface.data").get_object("meanshape_68.pkl")
    errors = []
    for seed in range(12):
        for expression, yaw in PAIRS:
            motion = Motion(expression, yaw, (-15.0, 0.0, 15.0)[seed % 3], 4.0)
            points = Head(draw_person(seed), motion, (64, 64), 26).points68()
            _, turn, _ = transform.P2sRt(transform.estimate_affine_matrix_3d23d(mean, points))
            errors.append(np.subtract(transform.matrix2angle(turn), motion.pose))
    degrees = np.abs(errors)
    # Faces differ from the mean shape in more than pose, and it is itself some one degree off symmetry.
    assert (np.median(degrees, axis=0) < 2.5).all() and degrees.max() < 10


# --- captions ---


def test_captions_are_read_as_they_were_written():
    world = World(omit_prob=0.4)
    for i in range(300):
        sample = world.sample(i, 1 + i % 3)
        assert parse_caption(sample.caption) == sample.spec


def test_a_scene_shows_what_its_caption_asks():
    rng = random.Random(0)
    for i in range(100):
        spec = parse_caption(World().sample(i, 1 + i % 3).caption)
        people = tuple(draw_person(rng.randrange(1000)) for _ in spec.people)
        scene = compose(spec, people, i)
        for posed in (False, True):
            told = describe(scene, posed)
            assert spec.place in (None, told.place)
            for wished, shown in zip(spec.people, told.people, strict=True):
                assert wished.colour in (None, shown.colour) and wished.expression in (None, shown.expression)
                if wished.posed == posed:
                    assert wished.view in (None, shown.view) and (wished.tilt in (None, shown.tilt) or posed)


def test_what_captions_say():
    look = PersonSpec("red", "hoodie", "happy", "facing up", "in side view")
    told = "a portrait of a person in a red hoodie, at the beach, in a happy expression, facing up, in side view"
    assert to_caption(CaptionSpec((look,), "at the beach")) == told
    assert to_caption(CaptionSpec((PersonSpec(),))) == "a portrait of a person"
    assert face_prompt("sad", -40) == "in a sad expression, in side view"
    assert face_prompt("fear", 21, posed=True) == "the expression is afraid, the face is slightly turned to the right"
    assert [view_of(y, posed=True) for y in YAWS] == [v for v, yaws in VIEWS.items() if len(yaws) == 1 and v[0] == "t"]
    with pytest.raises(ValueError, match="a green dog"):
        parse_caption("two people, with a green dog")
    with pytest.raises(ValueError, match="1 to 3"):
        to_caption(CaptionSpec(()))


@pytest.mark.parametrize("place", PLACES)
def test_places_differ(place):
    def background(name):
        return render(Scene(128, 128, name, (), 1)).image.astype(int)

    assert all(np.abs(background(place) - background(other)).mean() > 5 for other in PLACES if other != place)


def test_expressions_and_yaws_change_the_face_plainly():
    person = draw_person(12)
    shown = [render(portrait(person, Motion(e))) for e in EXPRESSIONS]
    shown += [render(portrait(person, Motion("neutral", y))) for y in YAWS if y]
    x0, y0, x1, y1 = (int(v) for v in shown[0].faces[0].box)
    crops = [s.image[y0:y1, x0:x1].astype(int) for s in shown]
    for i, one in enumerate(crops):
        for other in crops[:i]:
            assert np.abs(one - other).mean() > 3


# --- training and held-out ---


def test_held_out_people_and_pairs_are_never_in_training():
    trained, tested = World(pairs=training_pairs()), World(held_out_people=True, pairs=HELD_OUT_PAIRS)
    seen = [f for i in range(150) for f in trained.sample(i, 1 + i % 3).scene.figures]
    new = [f for i in range(50) for f in tested.sample(i, 1 + i % 3).scene.figures]
    assert not {f.person.seed for f in seen} & {f.person.seed for f in new}

    def pair(figure):
        return figure.motion.expression, min(YAWS, key=lambda yaw: abs(yaw - figure.motion.yaw))

    assert {pair(f) for f in new} == set(HELD_OUT_PAIRS)
    assert not {pair(f) for f in seen} & set(HELD_OUT_PAIRS)
    assert {e for e, _ in HELD_OUT_PAIRS} == set(EXPRESSIONS) - {"neutral"}


def test_a_persons_portraits_differ_by_motion_alone():
    portraits = World().portraits_of(7)
    assert len(portraits) == 35 and len({s.scene.figures[0].person for s in portraits}) == 1
    assert len({(s.scene.place, s.scene.seed, s.scene.figures[0].colour) for s in portraits}) == 1
    assert len({(s.scene.figures[0].motion.expression, s.caption) for s in portraits}) == 35


def test_no_two_of_a_group_are_the_same_person():
    for i in range(100):
        figures = World().sample(i, 3).scene.figures
        assert len({f.person.seed for f in figures}) == 3
        assert all(a.x < b.x for a, b in pairwise(figures))


def test_the_contact_sheet_is_drawn(tmp_path):
    from dynamicid_pack.mini.__main__ import main

    assert main(["sheet", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").stat().st_size > 100_000
