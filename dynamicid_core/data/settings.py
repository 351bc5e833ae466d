"""Options that decide what a build writes, and where it reads and writes."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from ..configuration import ConfigModel, plain_errors
from ..files import sha256_of_file

REASONS = (  # why an image of the source is not in the set
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
VERSION = 2  # of the stages: another version may write other bytes for the same options
RENAMED = {  # options of earlier versions, and their names now
    "least_face": "min_face",
    "least_sharpness": "min_sharpness",
    "least_alike": "min_similarity",
    "apart": "merge_distance",
    "least_pictures": "min_images",
    "most_pixels": "max_pixels",
    "names": "expression_from",
}


class BuildSettings(ConfigModel):
    """Everything that the written bytes follow from, besides the images.

    The descriptions are the help of the command line's flags of the same names.

    Attributes:
        embeds_rgb: see `identity.analyzer.FaceAnalyzer`.
        face_pack, expression_model, adapter, clip_vision: `fingerprint` of each file; "" where there is none.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    unsorted: bool = Field(False, description="SOURCE is one folder of pictures of unknown people")
    expression_from: Literal["sidecar", "name"] = Field(
        "sidecar", description="NAME.txt is always read first; name: then the names of the file and its folders"
    )
    size: int = Field(512, ge=32, description="pixels a side of the crops")
    margin: float = Field(0.6, ge=0, description="of the face's longer side, on each side of it in the crop")
    embeds_rgb: bool = True
    min_face: int = Field(112, ge=1, description="pixels of the face's longer side in the picture")
    min_sharpness: float = Field(40.0, ge=0, description="variance of the Laplacian of the face at 128 x 128")
    duplicate_distance: int = Field(
        16, ge=-1, description="bits of 256 in which the hashes of two pictures of a person must differ more than this"
    )
    min_similarity: float = Field(0.25, ge=-1, description="cosine of a face's embedding and its person's median")
    merge_distance: float = Field(
        0.6, ge=0, description="with --unsorted, cosine distance from which on two groups of faces are two people"
    )
    per_person: int = Field(35, ge=1, description="pictures kept of a person at most, spread over expressions and yaws")
    min_images: int = Field(1, ge=1, description="people of whom fewer pictures are left are left out")
    max_pixels: int = Field(64_000_000, ge=1, description="height times width; larger pictures are not decoded")
    per_shard: int = Field(1000, ge=1, description="pictures of a shard, as near as whole people make it")
    threads: int = Field(1, ge=1, description="of PyTorch on the CPU; another number may change the tokens' last bit")
    face_pack: str = ""
    expression_model: str = ""
    adapter: str = ""
    clip_vision: str = ""
    version: int = VERSION

    @property
    def digest(self) -> str:
        """sha256 of all options, in hex."""
        return sha256(self.model_dump_json().encode()).hexdigest()

    def require_same(self, stored: bytes) -> None:
        """Compare with the options that a build was begun with, as JSON.

        Raises:
            ValueError: some differ, which are named, or have names of an earlier version.
        """
        try:
            with plain_errors("stored settings: ", RENAMED):
                before = BuildSettings.model_validate_json(stored).model_dump()
        except ValueError as error:
            raise ValueError(f"{error}\nGive --rebuild to build anew.") from error
        now = self.model_dump()
        different = [f"{name} was {before[name]!r} and is {now[name]!r}" for name in now if before[name] != now[name]]
        if different:
            raise ValueError(
                f"This set was begun with other settings: {'; '.join(different)}. Build with the same as then, into "
                "another folder, or give --rebuild to throw away what is there."
            )


class BuildJob(ConfigModel):
    """Settings, and where on this machine the files are. It goes through JSON to workers on other machines."""

    settings: BuildSettings
    source: Path
    face_pack: Path
    expression_model: Path | None = None
    adapter: Path | None = None
    clip_vision: Path | None = None
    provider: str = "auto"
    device: str = "cpu"


def fingerprint(path: Path, pattern: str = "*") -> str:
    """Return the sha256, in hex, of a file, or of the names and contents of a folder's files that match a pattern.

    Raises ValueError when there is no such file.
    """
    if path.is_file():
        return sha256_of_file(path)
    files = {file.name: sha256_of_file(file) for file in sorted(path.glob(pattern)) if file.is_file()}
    if not files:
        raise ValueError(f"{path}: expected a file, or a folder with {pattern} in it, and there is none.")
    return sha256(json.dumps(files).encode()).hexdigest()
