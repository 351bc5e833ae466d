"""Drawn people as images in folders, and builds of them."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from dynamicid_pack.dynamicid_core.data.executors import Executor, Task, local_executor
from dynamicid_pack.dynamicid_core.data.pipeline import Summary, build
from dynamicid_pack.dynamicid_core.data.settings import BuildJob, BuildSettings
from dynamicid_pack.mini.world.render import Picture, render
from dynamicid_pack.mini.world.world import Gallery
from dynamicid_pack.tests.support import ROOT
from PIL import Image

FACE_PACK = ROOT / "mini" / "weights" / "face-pack"
# Drawn faces are some 60 pixels wide; two pictures of one are at 0.84 or nearer, of two people at 0.66 or farther.
SETTINGS = BuildSettings(
    size=128, embeds_rgb=False, min_face=40, min_sharpness=95, min_similarity=0.75, merge_distance=0.25,
    expression_from="name", per_shard=8,
)  # fmt: skip
_VIEWS = 12  # images of each person that there are
_GALLERY = Gallery(seed=5, held_out_people=True, views=_VIEWS)


def portrait(person: int, view: int) -> Picture:
    """Return one of 12 images of a person, each in another motion, clothes and place."""
    return _GALLERY.sample(person * _VIEWS + view).picture()


def name_of(picture: Picture, view: int) -> str:
    return f"{view:02d} {picture.faces[0].motion.expression}.png"


def draw_person(folder: Path, person: int, count: int) -> dict[str, Picture]:
    """Write images named after what they show. Return what is true of each, by its name."""
    folder.mkdir(parents=True)
    drawn = {}
    for view in range(count):
        picture = portrait(person, view)
        drawn[name_of(picture, view)] = picture
        Image.fromarray(picture.image).save(folder / name_of(picture, view))
    return drawn


def draw_defects(folder: Path) -> dict[str, str]:
    """Write an image for each reason to reject it, beside some of person 0's 12 views. Return the reasons by name."""
    first, other = portrait(0, 0), portrait(0, 11)
    blurred = cv2.GaussianBlur(other.image, (0, 0), 2.0)
    content = io.BytesIO()
    Image.fromarray(other.image).save(content, "PNG")
    pictures = {
        "blurred.png": (blurred, "blurred"),
        "saved again.jpg": (np.array(Image.fromarray(first.image).resize((104, 104))), "duplicate"),
        "stranger.png": (portrait(3, 0).image, "wrong person"),
        "place.png": (render(replace(other.scene, figures=())).image, "no face"),
        "far away.png": (np.array(Image.fromarray(other.image).resize((64, 64))), "too small"),
    }
    files = {
        "broken.png": (content.getvalue()[:-2000], "unreadable"),
        "empty.png": (b"", "unreadable"),
        "letter.png": (b"Dear reader, this is no picture.", "not a picture"),
        "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not a picture"),
        "bomb.png": (bomb(), "too many pixels"),
    }
    for name, (image, _) in pictures.items():
        options: dict[str, Any] = {"quality": 80} if name.endswith(".jpg") else {}
        Image.fromarray(image).save(folder / name, **options)
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: reason for name, (_, reason) in (pictures | files).items()}


def bomb() -> bytes:
    """Return a small PNG file that says that it is 10000 x 10000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def changed(**options: object) -> BuildSettings:
    """Return SETTINGS with other options."""
    return BuildSettings.model_validate(SETTINGS.model_dump() | options)


def job(source: Path, settings: BuildSettings = SETTINGS, **files: Any) -> BuildJob:
    return BuildJob(settings=settings, source=source, face_pack=FACE_PACK, provider="CPU", **files)


def built(source: Path, out: Path, settings: BuildSettings = SETTINGS, rebuild: bool = False) -> Summary:
    return build(job(source, settings), out, local_executor(job(source, settings)), rebuild)


def contents(out: Path) -> dict[str, bytes]:
    """Return all files of a finished set by name."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def counted(execute: Executor, done: list[str]) -> Executor:
    """Return the same executor; the stage of each task that it did is added to a list."""

    def counting(stage: str, tasks: Iterator[Task]) -> Iterator[tuple[str, bytes]]:
        for outcome in execute(stage, tasks):
            done.append(stage)
            yield outcome

    return counting
