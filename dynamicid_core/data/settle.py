"""The second stage: which pictures of a person are kept, and all that is written of them."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from ..image_inputs import Image, face_crop
from ..imr.landmarks import keypoint_picture
from ..imr.motion import face_prompt
from .choose import duplicates, likeness, spread, yaw_bin
from .examine import Dropped, Seen, square_of
from .expression import sidecar_text
from .picture import DroppedError, read_picture
from .settings import Settings
from .sources import sidecar

MakeTokens = Callable[[Sequence[Image], NDArray[np.float32]], NDArray[np.float16]]
Row = dict[str, Any]
"""What the index and a picture's json say of it: text and numbers."""
_FACTS = "person.json"


@dataclass(frozen=True)
class Settled:
    """What is written of a person: a row for each picture, and each one's files by their ending, in the same order."""

    person: str
    rows: list[Row]
    files: list[dict[str, bytes]]
    dropped: list[Dropped]


def settle(person: str, seen: Sequence[Seen], root: Path, settings: Settings, make_tokens: MakeTokens | None) -> bytes:
    """A person's pictures chosen and cut out, as a tar that `from_bytes` reads.

    Raises ValueError when a picture that was seen can't be read any more.
    """
    alike = [float("nan")] * len(seen)
    dropped: dict[int, tuple[str, str]] = {}

    same = duplicates([s.hash for s in seen], [s.quality for s in seen], settings.duplicate_distance)
    dropped.update({i: ("duplicate", f"of {shown(seen[other].source)}") for i, other in same.items()})

    left = [i for i in range(len(seen)) if i not in dropped]
    for i, cosine in zip(left, likeness(_embeddings([seen[i] for i in left])).tolist(), strict=True):
        alike[i] = cosine
        if cosine < settings.least_alike:
            dropped[i] = ("wrong person", f"a likeness of {cosine:.2f}, expected {settings.least_alike:g}")

    left = [i for i in left if i not in dropped]
    if len(left) < settings.least_pictures:
        few = f"{len(left)} pictures are left of this person, expected {settings.least_pictures}"
        dropped.update(dict.fromkeys(left, ("too few", few)))
        left = []
    cells = [(seen[i].expression, yaw_bin(seen[i].pose[1])) for i in left]
    chosen = {left[place] for place in spread(cells, [seen[i].quality for i in left], settings.per_person)}
    dropped.update({i: ("not chosen", "others show more") for i in left if i not in chosen})

    rows = [_row(person, seen[i], alike[i]) for i in sorted(chosen)]
    files = _files([seen[i] for i in sorted(chosen)], rows, root, settings, make_tokens)
    reasons = [(shown(seen[i].source), *dropped[i]) for i in sorted(dropped)]
    facts = {"person": person, "rows": rows, "dropped": reasons}
    return _tar([(_FACTS, json.dumps(facts).encode()), *files])


def from_bytes(content: bytes) -> Settled:
    """What `settle` wrote."""
    files: list[dict[str, bytes]] = []
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            if member.name == _FACTS:
                facts = json.loads(file.read())
                files = [{} for _ in facts["rows"]]
                continue
            number, _, ending = member.name.partition(".")
            files[int(number)][ending] = file.read()
    return Settled(facts["person"], facts["rows"], files, [Dropped(*values) for values in facts["dropped"]])


def shown(path: str) -> str:
    """A path as text that can be written, whatever bytes its name is made of."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _row(person: str, seen: Seen, alike: float) -> Row:
    pitch, yaw, roll = seen.pose
    numbers = {
        "pitch": pitch, "yaw": yaw, "roll": roll, "score": seen.score, "face_side": seen.side,
        "sharpness": seen.sharpness, "quality": seen.quality, "likeness": alike,
    }  # fmt: skip
    return {
        "person": shown(person),
        "source": shown(seen.source),
        "prompt": face_prompt(seen.expression, pitch, yaw),
        "expression": seen.expression,
        "expression_from": seen.expression_from,
        "yaw_bin": yaw_bin(yaw),
        **{name: round(value, 4) for name, value in numbers.items()},
        "box": [round(side, 2) for side in seen.box],
        "square": list(seen.square),
        "hash": seen.hash,
    }


def _files(
    chosen: Sequence[Seen], rows: Sequence[Row], root: Path, settings: Settings, make_tokens: MakeTokens | None
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all files of the chosen pictures."""
    crops = [_crop(seen, root, settings) for seen in chosen]
    embeddings = _embeddings(chosen)
    tokens = make_tokens(crops, embeddings) if make_tokens and crops else None
    for i, (seen, row, crop) in enumerate(zip(chosen, rows, crops, strict=True)):
        landmarks = np.array(seen.landmarks, np.float32)
        files = {
            "png": _png(crop),
            "txt": row["prompt"].encode(),
            "json": json.dumps(row, indent=1, ensure_ascii=False).encode(),
            "landmarks.npy": _npy(landmarks),
            "keypoints.png": _png(keypoint_picture(landmarks.astype(np.float64))),
            "embedding.npy": _npy(embeddings[i]),
        }
        caption = sidecar_text(sidecar(root / seen.source))
        if caption:
            files["caption.txt"] = caption.encode()
        if tokens is not None:
            files["tokens.npy"] = _npy(tokens[i])
        for ending in sorted(files):
            yield f"{i:05d}.{ending}", files[ending]


def _crop(seen: Seen, root: Path, settings: Settings) -> Image:
    """The same cut as the first stage made: keeping that of every picture would take ten times the room."""
    try:
        return face_crop(read_picture(root / seen.source, settings.most_pixels), square_of(seen), settings.size)
    except DroppedError as error:
        raise ValueError(f"{shown(seen.source)}: it changed while the set was built ({error}). Build again.") from error


def _embeddings(seen: Sequence[Seen]) -> NDArray[np.float32]:
    return np.array([s.embedding for s in seen], np.float32).reshape(len(seen), len(seen[0].embedding) if seen else 0)


def _png(picture: NDArray[np.uint8]) -> bytes:
    """A PNG of (H, W, 3) or (H, W)."""
    content = io.BytesIO()
    Pillow.fromarray(picture).save(content, "PNG")
    return content.getvalue()


def _npy(array: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def _tar(files: Sequence[tuple[str, bytes]]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)  # its time and owner are 0
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()
