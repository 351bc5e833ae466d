"""A contact sheet of what the world shows."""

from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image

from .caption import PLACES, YAWS, CaptionSpec, PersonSpec
from .composition import Figure, Scene, compose
from .head import EXPRESSIONS, Motion
from .person import draw_person
from .render import render


def write_sheet(path: Path) -> Path:
    """Draw 16 people, two people's expressions and poses, the places, and groups, in eight columns; return the path."""
    still = CaptionSpec((PersonSpec(expression="neutral", view="in front view"),))
    scenes = [compose(still, (draw_person(seed),), seed) for seed in range(16)]
    motions = [*(Motion(expression) for expression in EXPRESSIONS), Motion("happy", pitch=15.0)]
    motions += [Motion("neutral", yaw) for yaw in YAWS]
    motions += [Motion("happy", 40.0), Motion("sad", -20.0, -15.0), Motion("fear", 20.0, 15.0)]
    for seed in (3, 5):
        figures = [Figure(draw_person(seed), motion, "blue", "t-shirt", 64, 65, 26) for motion in motions]
        scenes += [Scene(128, 128, "on a plain yellow background", (figure,)) for figure in figures]
    for i, place in enumerate((*PLACES[5:], "on a plain green background")):
        scenes.append(compose(CaptionSpec((PersonSpec(),), place), (draw_person(40 + i),), i))
    for count in (2, 3):  # a group is as wide as two portraits
        for i in range(4):
            people = tuple(draw_person(60 + 3 * i + j) for j in range(count))
            scenes.append(compose(CaptionSpec((PersonSpec(),) * count), people, i))
    strip = np.concatenate([render(scene).image for scene in scenes], axis=1)
    Image.fromarray(rearrange(strip, "h (rows w) c -> (rows h) w c", w=1024)).save(path)
    return path
