"""The images' latents: encoded when a step needs them, or once and for all into a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files import atomic_path
from ..state_dict import fingerprint
from .base_networks import BaseNetworks
from .shards import Shards
from .trainer import Log

BATCH = 8  # images that are encoded at a time


class Latents:
    """Latents of a data set's images, by number.

    With a folder, `<shard>-<digest>.npy` in it holds a shard's (images, 1 or 2, C, h, w) in half precision: the mean
    and, of a variational encoder, the standard deviation. The digest is of the encoder, the size and the shard.
    """

    def __init__(self, base: BaseNetworks, shards: Shards, size: int, folder: Path | None = None) -> None:
        """Args: size: as `Shards.image` takes it."""
        self._base, self._shards, self._size, self._folder = base, shards, size, folder
        self._encoder = fingerprint(base.vae.state_dict()) if folder else ""
        self._open = lru_cache(maxsize=None)(lambda shard: np.load(self._path(shard), mmap_mode="r"))

    def encode(self, log: Log, process: int = 0, processes: int = 1) -> None:
        """Encode the shards that the folder lacks, this process's share of them; nothing without a folder.

        Raises ValueError when a shard's images differ in size.
        """
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        share = list(self._shards.numbers)[process::processes]  # whatever the other processes have written by now
        due = [shard for shard in share if not self._path(shard).exists()]
        for done, shard in enumerate(due):
            log(f"encoding {shard.name}, {done + 1} of {len(due)}")
            self._write(shard)

    def sample(self, numbers: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
        """Return latents (n, C, h, w) on the base model's device.

        Those of a variational encoder are drawn from their distributions, each by its image's own generator.
        """
        device = self._base.device
        latents = []
        for number, rng in zip(numbers, generators, strict=True):
            if self._folder is None:
                mean, std = self._base.moments(self._shards.image(number, self._size)[None].to(device))
            else:
                shard, place = self._shards.place(number)
                cached = torch.from_numpy(np.array(self._open(shard)[place])).to(device).float()  # (1 or 2, C, h, w)
                mean, std = cached[:1], cached[1:] if len(cached) > 1 else None
            latents.append(mean if std is None else mean + std * torch.randn(mean.shape, generator=rng).to(mean))
        return torch.cat(latents)

    def _path(self, shard: Path) -> Path:
        assert self._folder is not None
        stat = shard.stat()
        key = f"{self._encoder} {self._size} {stat.st_size} {stat.st_mtime_ns}"
        return self._folder / f"{shard.stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npy"

    def _write(self, shard: Path) -> None:
        numbers = self._shards.numbers[shard]
        moments = []
        for start in range(0, len(numbers), BATCH):
            images = [self._shards.image(number, self._size) for number in numbers[start : start + BATCH]]
            if len({image.shape for image in images}) > 1:
                raise ValueError(f"{shard}: images differ in size. Set size in the configuration.")
            mean, std = self._base.moments(torch.stack(images).to(self._base.device))
            moments.append(torch.stack([mean] if std is None else [mean, std], dim=1).half().cpu().numpy())
        with atomic_path(self._path(shard)) as part, part.open("wb") as file:
            np.save(file, np.concatenate(moments))
