"""A person's samples: all files that are written of the images that are kept."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from safetensors.numpy import load, save

from ..image_inputs import Image, face_crop
from ..imr.landmarks import keypoint_image
from ..imr.motion import face_prompt
from .analysis import FaceRecord, Rejected, to_json
from .expression import sidecar_text
from .images import RejectedError, read_image
from .people import Person
from .selection import select, yaw_bin
from .settings import BuildSettings
from .sources import printable, sidecar

MakeTokens = Callable[[Sequence[Image], NDArray[np.float32]], NDArray[np.float16]]
Row = dict[str, Any]
"""What the index and a sample's json say of it: text and numbers."""
_FACTS = "person.json"


@dataclass(frozen=True)
class SelectedPerson:
    """What is written of a person: a row and the files, by their ending, of each image that is kept, in one order."""

    name: str
    rows: list[Row]
    files: list[dict[str, bytes]]
    rejected: list[Rejected]


def select_samples(person: Person, root: Path, settings: BuildSettings, make_tokens: MakeTokens | None) -> bytes:
    """Choose a person's images and make their samples. `read_samples` reads what this returns.

    Raises ValueError when an image that was analyzed can't be read any more.
    """
    similarities, reasons = select(person.records, settings)
    chosen = [person.records[i] for i in similarities]
    rows = [_row(person.name, record, cosine) for record, cosine in zip(chosen, similarities.values(), strict=True)]
    rejected = [Rejected(printable(person.records[i].source), *reason) for i, reason in reasons.items()]
    facts = to_json({"name": person.name, "rows": rows, "rejected": rejected}).encode()

    crops = [_crop(record, root, settings) for record in chosen]
    embeddings = np.array([record.embedding for record in chosen], np.float32)  # (n, 512)
    tokens = make_tokens(crops, embeddings) if make_tokens and crops else None
    contents = {_FACTS: facts}
    for i, (record, row, crop) in enumerate(zip(chosen, rows, crops, strict=True)):
        files = _encode(record, row, crop) | {"embedding.npy": _npy(embeddings[i])}
        if tokens is not None:
            files["tokens.npy"] = _npy(tokens[i])
        caption = sidecar_text(sidecar(root / record.source))
        if caption:
            files["caption.txt"] = caption.encode()
        contents |= {f"{i:05d}.{ending}": content for ending, content in files.items()}
    return save({name: np.frombuffer(content, np.uint8) for name, content in contents.items()})


def read_samples(content: bytes) -> SelectedPerson:
    """Return what `select_samples` made."""
    contents = {name: array.tobytes() for name, array in load(content).items()}
    facts = json.loads(contents.pop(_FACTS))
    files: list[dict[str, bytes]] = [{} for _ in facts["rows"]]
    for name, data in contents.items():
        number, _, ending = name.partition(".")
        files[int(number)][ending] = data
    return SelectedPerson(facts["name"], facts["rows"], files, [Rejected(**image) for image in facts["rejected"]])


def _row(person: str, record: FaceRecord, cosine: float) -> Row:
    pitch, yaw, roll = record.pose
    numbers = {
        "pitch": pitch, "yaw": yaw, "roll": roll, "score": record.score, "face_side": record.side,
        "sharpness": record.sharpness, "quality": record.quality, "likeness": cosine,
    }  # fmt: skip
    return {
        "person": printable(person),
        "source": printable(record.source),
        "prompt": face_prompt(record.expression, pitch, yaw),
        "expression": record.expression,
        "expression_from": record.expression_from,
        "yaw_bin": yaw_bin(yaw),
        **{name: round(value, 4) for name, value in numbers.items()},
        "box": [round(edge, 2) for edge in record.box],
        "square": [record.crop.x, record.crop.y, record.crop.side],
        "hash": record.hash,
    }


def _encode(record: FaceRecord, row: Row, crop: Image) -> dict[str, bytes]:
    """Return the files that every sample has but the embedding, by their ending."""
    landmarks = np.array(record.landmarks, np.float32)  # (106, 2)
    return {
        "png": _png(crop),
        "txt": row["prompt"].encode(),
        "json": json.dumps(row, indent=1, ensure_ascii=False).encode(),
        "landmarks.npy": _npy(landmarks),
        "keypoints.png": _png(keypoint_image(landmarks.astype(np.float64))),
    }


def _crop(record: FaceRecord, root: Path, settings: BuildSettings) -> Image:
    """Make the analysis's crop again: keeping that of every image would take ten times the room."""
    try:
        return face_crop(read_image(root / record.source, settings.max_pixels), record.crop, settings.size)
    except RejectedError as error:
        name = printable(record.source)
        raise ValueError(f"{name}: it changed while the set was built ({error}). Build again.") from error


def _png(image: NDArray[np.uint8]) -> bytes:
    """Return the PNG of an image (H, W, 3) or (H, W)."""
    content = io.BytesIO()
    PillowImage.fromarray(image).save(content, "PNG")
    return content.getvalue()


def _npy(array: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()
