"""Which pictures there are, of whom, and whether they changed."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

logger = logging.getLogger("DynamicID")

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_TOGETHER = 32  # unsorted pictures that are looked at as one piece of work


@dataclass(frozen=True)
class Source:
    """A picture's file.

    Attributes:
        path: relative to the source folder, with /.
        stamp: tells a changed file, or its sidecar, from the one that was read.
    """

    path: str
    stamp: str


@dataclass(frozen=True)
class Unit:
    """Pictures that are looked at together: those of one person, or some of unknown people."""

    name: str
    sources: tuple[Source, ...]

    @property
    def digest(self) -> str:
        return sha256(repr(self).encode("utf-8", "backslashreplace")).hexdigest()


def list_people(root: Path) -> list[Unit]:
    """One unit for each folder of `root` that holds pictures, in it or below it, in the order of names.

    Raises ValueError when there is no such folder.
    """
    people = [Unit(folder.name, tuple(_pictures(folder, root))) for folder in _folders(root)]
    loose = sum(_is_picture(path) for path in _checked(root).iterdir())
    people = [person for person in people if person.sources]
    if not people:
        raise ValueError(
            f"{root}: expected one folder of pictures per person, found {loose} pictures and no folder with pictures. "
            + ("Give --unsorted, and people are told apart by their faces." if loose else "Is it the right folder?")
        )
    if loose:
        logger.warning("DynamicID: %d pictures lie beside the people's folders; they are left out.", loose)
    return people


def list_unsorted(root: Path) -> list[Unit]:
    """The pictures that lie in `root` itself, some in each unit, in the order of names.

    Raises ValueError when there are none.
    """
    names = sorted(path.name for path in _checked(root).iterdir() if _is_picture(path))
    if not names:
        raise ValueError(
            f"{root}: expected a folder with pictures ({', '.join(SUFFIXES)}), found none in it. For one folder per "
            "person, leave --unsorted out."
        )
    if _folders(root):
        logger.warning(
            "DynamicID: %d folders lie beside the unsorted pictures; they are left out.", len(_folders(root))
        )
    chunks = [names[i : i + _TOGETHER] for i in range(0, len(names), _TOGETHER)]
    return [
        Unit(f"part-{i:06d}", tuple(Source(name, _stamp(root / name)) for name in chunk))
        for i, chunk in enumerate(chunks)
    ]


def sidecar(picture: Path) -> Path:
    """Where a picture's face prompt lies."""
    return picture.with_suffix(".txt")


def listing_digest(units: Sequence[Unit]) -> str:
    """Another one when a picture came, went or changed."""
    found = sha256()
    for unit in units:
        found.update(unit.digest.encode())
    return found.hexdigest()


def _pictures(folder: Path, root: Path) -> Iterator[Source]:
    paths = []
    for place, folders, files in os.walk(folder):  # which follows no links to folders
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [path for path in map(Path(place).joinpath, files) if _is_picture(path)]
    named = sorted((path.relative_to(root).as_posix(), path) for path in paths)
    return (Source(name, _stamp(path)) for name, path in named)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in _checked(root).iterdir() if path.is_dir() and not path.name.startswith("."))


def _checked(root: Path) -> Path:
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder, there is none.")
    return root


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _stamp(path: Path) -> str:
    """Size and time of a file and of its sidecar."""
    stamps = []
    for file in (path, sidecar(path)):
        try:
            known = file.stat()
            stamps.append(f"{known.st_size} {known.st_mtime_ns}")
        except OSError:
            stamps.append("none")
    return "; ".join(stamps)
