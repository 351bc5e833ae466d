"""What decides what a build writes, and where it reads and writes."""

import json
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path

REASONS = (  # why a picture of the source is not in the set
    "unreadable",
    "not a picture",
    "too many pixels",
    "no face",
    "too small",
    "blurred",
    "duplicate",
    "wrong person",
    "too few",
    "not chosen",
)
VERSION = 1  # of the stages: another one makes other bytes of the same settings
_WHOLE, _SAMPLE = 2**26, 2**20  # bytes up to which a file is read whole for its fingerprint; of each sample beyond


@dataclass(frozen=True)
class Settings:
    """All that the written bytes follow from, beside the pictures.

    Attributes:
        unsorted: the source is one folder of pictures of unknown people.
        size: pixels a side of the crops.
        margin: of the face's longer side, on each side of it in a crop.
        embeds_rgb: see `faces.FaceAnalyzer`.
        least_face: pixels of the face's longer side in the source.
        least_sharpness: see `quality.sharpness`.
        duplicate_distance: bits of 256 in which two pictures of a person must differ more than this.
        least_alike: cosine between a face's embedding and its person's median.
        apart: cosine distance from which on two groups of faces are two people (unsorted).
        per_person: pictures that are kept of a person, at most.
        least_pictures: people of whom fewer are left are left out.
        names: an expression is also taken from the names of files and folders.
        most_pixels: of a picture, height times width; larger ones are not decoded.
        per_shard: pictures of a shard; a person is never parted, so a shard may hold fewer.
        threads: of PyTorch on the CPU: another number may change the last bit of the tokens.
        face_pack, expression_model, adapter, clip_vision: fingerprints of the files; "" where there is none.
    """

    unsorted: bool = False
    size: int = 512
    margin: float = 0.6
    embeds_rgb: bool = True
    least_face: int = 112
    least_sharpness: float = 40.0
    duplicate_distance: int = 16
    least_alike: float = 0.25
    apart: float = 0.6
    per_person: int = 35
    least_pictures: int = 1
    names: bool = False
    most_pixels: int = 64_000_000
    per_shard: int = 1000
    threads: int = 1
    face_pack: str = ""
    expression_model: str = ""
    adapter: str = ""
    clip_vision: str = ""
    version: int = VERSION

    def __post_init__(self) -> None:
        least = {
            "size": 32, "margin": 0, "least_face": 1, "least_sharpness": 0, "duplicate_distance": -1, "least_alike": -1,
            "apart": 0, "per_person": 1, "least_pictures": 1, "most_pixels": 1, "per_shard": 1, "threads": 1,
        }  # fmt: skip
        for name, bound in least.items():
            value = getattr(self, name)
            if not value >= bound:  # NaN is not
                raise ValueError(f"Expected {_option(name)} of at least {bound}, got {value}.")

    @property
    def digest(self) -> str:
        return sha256(self.text().encode()).hexdigest()

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    def refuse_others(self, stored: str) -> None:
        """Raises ValueError, naming what differs, when a build with other settings was begun."""
        try:
            before = json.loads(stored)
            if not isinstance(before, dict):
                raise ValueError("not an object")
        except ValueError:
            raise ValueError("The stored settings can't be read. Give --rebuild to build anew.") from None
        differing = [
            f"{_option(field.name)} was {before.get(field.name)!r} and is {getattr(self, field.name)!r}"
            for field in fields(self)
            if before.get(field.name) != getattr(self, field.name)
        ]
        if differing:
            raise ValueError(
                f"This set was begun with other settings: {'; '.join(differing)}. Build with the same as then, into "
                "another folder, or give --rebuild to throw away what is there."
            )


def _option(name: str) -> str:
    return name.replace("_", " ")


@dataclass(frozen=True)
class Job:
    """Settings, and where on this machine the things are. Paths are kept as text, so that a job goes through JSON."""

    settings: Settings
    source: str
    face_pack: str
    expression_model: str = ""
    adapter: str = ""
    clip_vision: str = ""
    provider: str = "auto"
    device: str = "cpu"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        values = json.loads(text)
        return cls(**values | {"settings": Settings(**values["settings"])})


def fingerprint(path: Path, pattern: str = "*") -> str:
    """sha256 of a file's content, or of the names and contents of a folder's files; of samples where a file is large.

    Raises ValueError when there is nothing.
    """
    files = sorted(file for file in path.glob(pattern) if file.is_file()) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise ValueError(f"{path}: expected a file, or a folder with {pattern} in it, and there is none.")
    found = sha256()
    for file in files:
        size = file.stat().st_size
        found.update(f"{file.name if path.is_dir() else ''} {size}\n".encode())
        with file.open("rb") as content:
            if size <= _WHOLE:
                found.update(content.read())
                continue
            for part in range(8):
                content.seek((size - _SAMPLE) * part // 7)
                found.update(content.read(_SAMPLE))
    return found.hexdigest()
