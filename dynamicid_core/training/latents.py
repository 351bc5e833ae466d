"""The pictures' latents: encoded when a step asks for them, or once and for all into a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..state_dict import fingerprint
from .base_model import BaseNetworks
from .shards import Shards

TOGETHER = 8  # pictures that are encoded at a time


class Latents:
    """Latents of a data set's pictures, by number.

    With a folder, `<shard>-<digest>.npy` in it holds a shard's (pictures, 1 or 2, 4, h, w) in half precision: the mean
    and, of a variational encoder, the standard deviation. The digest is of the encoder, the size and the shard.
    """

    def __init__(self, base: BaseNetworks, shards: Shards, size: int, folder: Path | None = None) -> None:
        """Args: size: as `Shards.picture` takes it."""
        self._base, self._shards, self._size, self._folder = base, shards, size, folder
        self._encoder = fingerprint(base.vae.state_dict()) if folder else ""
        self._open = lru_cache(maxsize=None)(self._opened)

    def encode(self, say: Callable[[str], None], process: int = 0, processes: int = 1) -> None:
        """Encode the shards that the folder lacks, this process's share of them; nothing without a folder.

        Raises ValueError when a shard's pictures differ in size.
        """
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        own = self._shards.paths[process::processes]  # whatever the other processes have written by now
        due = [shard for shard in own if not self._path(shard).exists()]
        for done, shard in enumerate(due):
            say(f"encoding {shard.name}, {done + 1} of {len(due)}")
            self._write(shard)

    def draw(self, numbers: Sequence[int], chances: Sequence[torch.Generator]) -> Tensor:
        """(n, 4, h, w) on the base model's device, of a variational encoder drawn by each picture's own chance."""
        base, device = self._base, self._base.unet.device
        if self._folder is None:
            images = (self._shards.picture(number, self._size)[None].to(device) for number in numbers)
            found = [base.moments(image) for image in images]
        else:
            kept = [torch.from_numpy(self._kept(number)).to(device).float() for number in numbers]
            found = [(x[:1], x[1:] if len(x) > 1 else None) for x in kept]
        return torch.cat([drawn(*moments, rng) for moments, rng in zip(found, chances, strict=True)])

    def _kept(self, number: int) -> NDArray[np.float16]:
        shard, place = self._shards.place(number)
        return np.array(self._open(shard)[place])

    def _opened(self, shard: Path) -> NDArray[np.float16]:
        return np.asarray(np.load(self._path(shard), mmap_mode="r"))

    def _path(self, shard: Path) -> Path:
        assert self._folder is not None
        stat = shard.stat()
        said = f"{self._encoder} {self._size} {stat.st_size} {stat.st_mtime_ns}"
        return self._folder / f"{shard.stem}-{hashlib.sha256(said.encode()).hexdigest()[:12]}.npy"

    def _write(self, shard: Path) -> None:
        numbers = self._shards.numbers_in(shard)
        found = []
        for start in range(0, len(numbers), TOGETHER):
            images = [self._shards.picture(number, self._size) for number in numbers[start : start + TOGETHER]]
            if len({image.shape for image in images}) > 1:
                raise ValueError(f"{shard}: pictures differ in size. Set the recipe's size, to which they are brought.")
            mean, spread = self._base.moments(torch.stack(images).to(self._base.unet.device))
            moments = [mean] if spread is None else [mean, spread]
            found.append(torch.stack(moments, dim=1).half().cpu().numpy())
        path = self._path(shard)
        part = path.with_suffix(f".{os.getpid()}")
        with part.open("wb") as file:
            np.save(file, np.concatenate(found))
        part.replace(path)


def drawn(mean: Tensor, spread: Tensor | None, rng: torch.Generator) -> Tensor:
    """A latent (1, 4, h, w) of its distribution; the mean where it has no spread."""
    if spread is None:
        return mean
    return mean + spread * torch.randn(mean.shape, generator=rng).to(mean)
