"""Random numbers that follow from a key alone: the same on any number of processes, and after a kill."""

import hashlib

import torch


def seeded_generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator seeded by the key, such as (seed, step, row)."""
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def randint(generator: torch.Generator, high: int) -> int:
    """Return a random integer from 0 to high - 1."""
    return int(torch.randint(high, (1,), generator=generator))
