"""What the tests of Redraw People share: the miniature, a picture of two people, few steps; and what is handed on.

The conftest offers the fixtures `kept`, `room`, `runs` and `handed` to every test of this folder.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.host.encode import Choice, encode
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.dynamicid_core.host.redraw import Redraw
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.mini.world.world import World
from dynamicid_pack.nodes.redraw import RedrawPeople
from torch import Tensor

import nodes as host_nodes

WORLD = World(seed=9, held_out_people=True)
PAIR, OTHERS = (WORLD.sample(number, 2).picture() for number in (1, 2))


@dataclass
class Room:
    """The miniature, two people of PAIR from its left, and the widgets of all tests: few steps, a large change."""

    mini: Miniature
    people: list[Identity]
    prompts: dict[str, Any]
    widgets: dict[str, Any] = field(
        default_factory=lambda: {
            "seed": 3, "steps": 2, "cfg": 4.0, "sampler_name": "ddim", "scheduler": "ddim_uniform", "denoise": 0.8,
            "size": 0, "margin": 0.4, "feather": 0.1, "only_below": 1.0, "passes": 1,
        }
    )  # fmt: skip

    def redraw(self, image: Tensor, people: list[Any] | None = None, **changed: Any) -> tuple[Tensor, str, Tensor]:
        wired = {f"person_{i}": person for i, person in enumerate(self.people if people is None else people)}
        given = {"model": self.mini.model, "dynamicid": self.mini.dynamicid, "vae": self.mini.vae, "people": wired}
        made: tuple[Tensor, str, Tensor] = RedrawPeople.execute(
            image=image, **{**given, **self.prompts, **self.widgets, **changed}
        ).result
        return made


def picture(drawn: Any) -> Tensor:
    return torch.from_numpy(drawn.image).float().div(255)[None]


def text(mini: Miniature, words: str) -> list[Any]:
    return mini.clip.encode_from_tokens_scheduled(mini.clip.tokenize(words))


@pytest.fixture(scope="module", name="kept")
def kept_for_all_tests() -> Room:
    mini = load_miniature()
    people = [
        replace(encode(picture(PAIR), mini.dynamicid, Choice("left to right", i)).identity, name=name)
        for i, name in enumerate(("ann", "ben"))
    ]
    prompts = {"positive": text(mini, "a portrait of a person"), "negative": text(mini, "")}
    return Room(mini, people, prompts)


@pytest.fixture(name="room")
def room_whose_drawings_are_all_kept(kept: Room, monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> Room:
    """Two steps draw no good faces: every drawing counts as better than the one before."""
    likeness = iter(range(2, 1000))
    monkeypatch.setattr(Redraw, "_look", lambda self, *_: (float(next(likeness)), 0))
    return kept


@pytest.fixture(name="runs")
def sampler_runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the host's sampler was given, run by run."""
    runs: list[dict[str, Any]] = []
    original = host_nodes.common_ksampler

    def noted(model: Any, seed: int, steps: int, *args: Any, **kwargs: Any) -> Any:
        runs.append({"seed": seed, "positive": args[3], "negative": args[4], "latent": args[5]})
        return original(model, seed, steps, *args, **kwargs)

    monkeypatch.setattr(host_nodes, "common_ksampler", noted)
    return runs


@pytest.fixture(name="handed")
def what_the_sampler_is_handed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The same, with the model, where nothing is sampled: latents come back as noise."""
    runs: list[dict[str, Any]] = []

    def sampler(
        model: Any, seed: int, steps: int, cfg: float, name: str, scheduler: str, positive: Any, negative: Any,
        latent: dict[str, Tensor], denoise: float,
    ) -> Any:  # fmt: skip
        given = {"steps": steps, "cfg": cfg, "sampler": name, "scheduler": scheduler, "denoise": denoise}
        runs.append(
            {"model": model, "seed": seed, "positive": positive, "negative": negative, "latent": latent} | given
        )
        generator = torch.Generator().manual_seed(seed)
        return ({"samples": torch.randn(latent["samples"].shape, generator=generator)},)

    monkeypatch.setattr(host_nodes, "common_ksampler", sampler)
    return runs


def changed(after: Tensor, before: Tensor) -> Tensor:
    """(W,) of the first picture: columns in which a pixel changed."""
    return (after[0] != before[0]).any(-1).any(0)


def rows(report: str) -> dict[str, list[str]]:
    """Name -> face, before, after, drawings of a report."""
    people = [line.split() for line in report.splitlines()[1:] if ": " not in line]
    return {name: cells for name, *cells in people}
