"""List the images of a source folder, and tell whether they changed."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

logger = logging.getLogger("DynamicID")

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_CHUNK = 32  # unsorted images of one task


@dataclass(frozen=True)
class Source:
    """An image's file.

    Attributes:
        path: relative to the source folder, with /.
        stamp: sizes and times of the file and its sidecar, which tell whether they changed.
    """

    path: str
    stamp: str


@dataclass(frozen=True)
class Unit:
    """Images that are analyzed together: those of one person, or some of unknown people."""

    name: str
    sources: tuple[Source, ...]

    @property
    def digest(self) -> str:
        return sha256(repr(self).encode("utf-8", "backslashreplace")).hexdigest()


def list_people(root: Path) -> list[Unit]:
    """Return a unit for each folder of `root` that holds images, in it or below it, in the order of names.

    Raises ValueError when there is no such folder.
    """
    files, folders = _entries(root)
    people = [Unit(folder.name, _images_below(folder, root)) for folder in folders]
    people = [person for person in people if person.sources]
    if not people:
        raise ValueError(
            f"{root}: expected one folder of pictures per person, found {len(files)} pictures and no folder with "
            "pictures. "
            + ("Give --unsorted, and people are told apart by their faces." if files else "Is it the right folder?")
        )
    if files:
        logger.warning("DynamicID: %d pictures lie beside the people's folders; they are left out.", len(files))
    return people


def list_unsorted(root: Path) -> list[Unit]:
    """Return the images that lie in `root` itself, some in each unit, in the order of names.

    Raises ValueError when there are none.
    """
    files, folders = _entries(root)
    if not files:
        raise ValueError(
            f"{root}: expected a folder with pictures ({', '.join(SUFFIXES)}), found none in it. For one folder per "
            "person, leave --unsorted out."
        )
    if folders:
        logger.warning("DynamicID: %d folders lie beside the unsorted pictures; they are left out.", len(folders))
    sources = [_source(path, root) for path in files]
    starts = range(0, len(sources), _CHUNK)
    return [Unit(f"part-{i:06d}", tuple(sources[start : start + _CHUNK])) for i, start in enumerate(starts)]


def sidecar(image: Path) -> Path:
    """Return where an image's face prompt lies."""
    return image.with_suffix(".txt")


def listing_digest(units: Sequence[Unit]) -> str:
    """Return a sha256 in hex that changes when an image comes, goes or changes."""
    return sha256("".join(unit.digest for unit in units).encode()).hexdigest()


def printable(text: str) -> str:
    """Return text, a path's, with the bytes that are not UTF-8 written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _entries(root: Path) -> tuple[list[Path], list[Path]]:
    """Return the images and the folders of a folder, each in the order of names."""
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder, there is none.")
    entries = sorted(root.iterdir())
    folders = [path for path in entries if path.is_dir() and not path.name.startswith(".")]
    return [path for path in entries if _is_image(path)], folders


def _images_below(folder: Path, root: Path) -> tuple[Source, ...]:
    paths: list[Path] = []
    for place, folders, files in os.walk(folder):  # which follows no links to folders
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [path for path in map(Path(place).joinpath, files) if _is_image(path)]
    return tuple(sorted((_source(path, root) for path in paths), key=lambda source: source.path))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _source(path: Path, root: Path) -> Source:
    stamps = []
    for file in (path, sidecar(path)):
        try:
            status = file.stat()
            stamps.append(f"{status.st_size} {status.st_mtime_ns}")
        except OSError:
            stamps.append("none")
    return Source(path.relative_to(root).as_posix(), "; ".join(stamps))
