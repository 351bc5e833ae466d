"""Finished pieces of work in a folder: each is there as a whole, or not at all."""

import os
from collections.abc import Set
from pathlib import Path

_UNFINISHED = ".part"


class Store:
    """Files by name. The folder is made when something is put into it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def get(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def put(self, name: str, content: bytes) -> None:
        """Writes a file aside and moves it to its place, replacing what is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / f"{name}.{os.getpid()}{_UNFINISHED}"
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self.folder / name)

    def keep_only(self, names: Set[str]) -> None:
        """Removes every other file: of pictures that changed, or of runs that were cut short."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.is_file() and path.name not in names:
                    path.unlink()
