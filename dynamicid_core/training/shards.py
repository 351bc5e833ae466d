"""Images in WebDataset shards, read by number: what a step sees follows from its number alone.

A sample is `KEY.png` (or .jpg), `KEY.txt` (a face prompt), `KEY.caption.txt` where there is more to say of the image,
`KEY.embedding.npy`, `KEY.json` with `person`; the reconfiguration stage's also `KEY.tokens.npy`, `KEY.landmarks.npy`.
"""

from __future__ import annotations

import io
import json
import tarfile
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

_IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "webp")


class _FilePlace(NamedTuple):
    """Where one file lies in a shard, in bytes."""

    shard: Path
    offset: int
    size: int


class Shards:
    """All samples of a folder of shards, in the order of their keys.

    Attributes:
        numbers: of each shard's samples.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ValueError when there is no shard, or one that can't be read."""
        paths = sorted(folder.glob("*.tar"))
        if not paths:
            raise ValueError(f"{folder}: expected WebDataset shards (*.tar), found none.")
        self._samples: list[dict[str, _FilePlace]] = []
        self.keys: list[str] = []
        self.numbers: dict[Path, range] = {}
        for path in paths:
            first = len(self.keys)
            self._index(path)
            self.numbers[path] = range(first, len(self.keys))
        self._folder = folder

    def _index(self, path: Path) -> None:
        try:
            with tarfile.open(path) as tar:
                members = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
        except tarfile.TarError as error:
            raise ValueError(f"{path}: this shard can't be read ({error}). Build the data again.") from error
        for name, offset, size in members:
            folder, _, base = name.rpartition("/")
            stem, _, suffix = base.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            if not self.keys or self.keys[-1] != key:
                self.keys.append(key)
                self._samples.append({})
            self._samples[-1][suffix.lower()] = _FilePlace(path, offset, size)

    def __len__(self) -> int:
        return len(self._samples)

    def place(self, number: int) -> tuple[Path, int]:
        """Return the shard that a sample lies in, and which one of its samples it is."""
        shard = next(iter(self._samples[number].values())).shard
        return shard, number - self.numbers[shard].start

    @cached_property
    def persons(self) -> list[str]:
        """Who each sample shows."""
        return [str(self.json(number)["person"]) for number in range(len(self))]

    @cached_property
    def of_person(self) -> dict[str, list[int]]:
        """The samples of each person."""
        samples: dict[str, list[int]] = {}
        for number, person in enumerate(self.persons):
            samples.setdefault(person, []).append(number)
        return samples

    def file(self, number: int, suffix: str) -> bytes:
        """Return a file of a sample. Raises ValueError when it has none of this kind."""
        place = self._samples[number].get(suffix)
        if place is None:
            raise ValueError(f"{self._folder}: the sample {self.keys[number]} has no {suffix}. Build the data again.")
        with place.shard.open("rb") as file:
            file.seek(place.offset)
            return file.read(place.size)

    def json(self, number: int) -> dict[str, Any]:
        return dict(json.loads(self.file(number, "json")))

    def text(self, number: int) -> str:
        """Return the face prompt."""
        return self.file(number, "txt").decode("utf-8").strip()

    def caption(self, number: int) -> str:
        """Return what the image shows: its caption, or the face prompt where it has none."""
        if "caption.txt" in self._samples[number]:
            return self.file(number, "caption.txt").decode("utf-8").strip()
        return self.text(number)

    def array(self, number: int, name: str) -> NDArray[Any]:
        """Return `KEY.<name>.npy`, never unpickled."""
        values: NDArray[Any] = np.load(io.BytesIO(self.file(number, f"{name}.npy")), allow_pickle=False)
        return values

    def image(self, number: int, size: int = 0) -> Tensor:
        """Return (3, H, W) in [0, 1]: the whole image, or its middle square with `size` pixels a side."""
        suffix = next((kind for kind in _IMAGE_SUFFIXES if kind in self._samples[number]), _IMAGE_SUFFIXES[0])
        image = Image.open(io.BytesIO(self.file(number, suffix))).convert("RGB")
        if size and image.size != (size, size):
            scale = size / min(image.size)
            width, height = (max(size, round(side * scale)) for side in image.size)
            left, top = (width - size) // 2, (height - size) // 2
            image = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)


def numbers_of(step: int, batch: int, count: int, seed: int) -> NDArray[np.int64]:
    """Return the numbers (batch,) that a step sees: each once in every turn, each turn in an order of its own."""
    at = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
    return np.array(
        [_order(int(turn), count, seed)[place] for turn, place in zip(at // count, at % count, strict=True)]
    )


@lru_cache(maxsize=4)
def _order(turn: int, count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, turn]).permutation(count)
