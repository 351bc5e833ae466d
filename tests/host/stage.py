"""What the tests of living together share: a small model, two people and the same sampling run for all.

The conftest offers the fixtures `stage`, `loaded` and `warnings` to every test of this folder.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.host.models import DynamicID, load_dynamicid
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.regions import Region
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from dynamicid_pack.nodes.apply import ApplyAdvanced
from safetensors.torch import save_file
from torch import Tensor

from ..support import generated_weights
from . import probe, reference, shapes, tiny

CONFIGS = {"SD1.5": shapes.TINY | {"model_channels": 32}, "SDXL": shapes.TINY_SDXL}
"""Base model -> its small UNet. SD1.5's is half as wide as the tiny model: these tests sample five hundred times."""
CONFIGS["one level"] = CONFIGS["SD1.5"] | {
    "num_res_blocks": [1],
    "channel_mult": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
}

TEXT_TOKENS = 7
BOXES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.25, 1.0, 1.0))

ABSENT = {"start_at": 0.2, "end_at": 0.21}
"""A span between two steps of a run: patched everywhere, nobody drawn at any step."""


def text(name: str) -> Tensor:
    """A text encoding (1, tokens, width) for the small model: p(ositive), n(egative), e(mpty), m(iddle), others."""
    seed = int.from_bytes(name.encode(), "big")
    return torch.randn((1, TEXT_TOKENS, tiny.WIDTH), generator=torch.Generator().manual_seed(seed))


def conditioning(name: str) -> list[Any]:
    """The host's CONDITIONING of such a text."""
    return probe.conditioning(text(name))


@dataclass
class Stage:
    """The small model and everything that is put on it.

    Attributes:
        negatives: texts that count as negative for the reference.
        sampling: keyword arguments of `probe.sample` for every run.
        known: results that several tests compare with.
    """

    model: Any
    dynamicid: DynamicID
    state: dict[str, Tensor]
    negatives: list[Tensor] = field(default_factory=lambda: [text("n"), text("e")])
    sampling: dict[str, Any] = field(default_factory=lambda: {"steps": 2, "size": (8, 12)})
    known: dict[str, Tensor] = field(default_factory=dict)

    @property
    def keys(self) -> list[reference.Key]:
        """The host's keys of all cross-attentions, as the reference finds them."""
        return [layer.block for layer in reference.layers(self.model, self.state)]

    def ours(self, model: Any = None, *, lora_strength: float = 0.0, weight: float = 1.0, **changed: Any) -> Any:
        """Apply DynamicID (Advanced) with the two people, by default without LoRA."""
        inputs: dict[str, Any] = {
            "start_at": 0.0,
            "end_at": 1.0,
            "layout_scale": reference.LAYOUT_SCALE,
            "layout_steps": reference.LAYOUT_STEPS,
            "gate_threshold": reference.THRESHOLD,
            "gate": True,
        }
        given = {"model": self.model if model is None else model, "dynamicid": self.dynamicid, "people": self.people()}
        inputs |= given | {"lora_strength": lora_strength, "weight": weight} | changed
        (patched,) = ApplyAdvanced.execute(**inputs).args
        return patched

    def people(self) -> dict[str, Any]:
        """The two people as the node gets them."""
        scene = [Placement(Identity(p.tokens, p.negative_tokens), Region(box=Box(*p.box))) for p in self.persons()]
        return {f"person_{number}": (placement,) for number, placement in enumerate(scene)}

    def persons(self) -> list[reference.Person]:
        """The two people as the reference gets them."""
        people = [tiny.identity_tensors(seed) for seed in (1, 2)]
        return [reference.Person(p["tokens"], p["negative_tokens"], box) for p, box in zip(people, BOXES, strict=True)]

    def reference(self, model: Any = None) -> Any:
        """The model with the same two people drawn by the reference."""
        return reference.apply(model or self.model, self.state, self.persons(), self.negatives)

    def sample(self, model: Any, **changed: Any) -> Tensor:
        """The same run for every model."""
        torch.manual_seed(0)  # some nodes draw from the global generator
        return probe.sample(model, text("p"), text("n"), **{**self.sampling, **changed})

    def alone(self, **changed: Any) -> Tensor:
        """The result of ours and nothing else."""
        return self.once("ours", lambda: self.sample(self.ours(), **changed), **changed)

    def nobody(self, **changed: Any) -> Tensor:
        """The result of the unpatched model."""
        return self.once("model", lambda: self.sample(self.model, **changed), **changed)

    def once(self, name: str, make: Callable[[], Tensor], **changed: Any) -> Tensor:
        """What has this name, sampled like this: made by the first test that asks."""
        key = f"{name} {sorted({**self.sampling, **changed}.items())}"
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]


def assert_same(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal up to float noise, as a part of the expected values' size."""
    assert torch.isfinite(actual).all()
    error = float((actual - expected).norm() / expected.norm())
    assert error < tolerance, f"differs by {error:.2e} of its size"


def assert_other(actual: Tensor, unexpected: Sequence[Tensor] | Tensor, by: float = 2e-3) -> None:
    """Different from each by much more than `assert_same` lets pass."""
    assert torch.isfinite(actual).all()
    for other in [unexpected] if torch.is_tensor(unexpected) else unexpected:
        error = float((actual - other).norm() / other.norm())
        assert error > by, f"differs by {error:.2e} of its size only"


@pytest.fixture(scope="module", name="loaded")
def loaded_for_all_tests_of_a_module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The small model and its adapter: what is put on clones never changes them. A module's BASE chooses another."""
    config = CONFIGS[getattr(request.module, "BASE", "SD1.5")]
    encoder = shapes.face_encoder(tiny.WIDTH, tokens=tiny.TOKENS, embedding=32, hidden=64, clip_dim=48)
    state = generated_weights(shapes.saa(config, 4) | encoder, 52)
    file = tmp_path_factory.mktemp("adapter") / "small.safetensors"
    save_file(state, file)
    return Stage(tiny.patcher(config, 51), load_dynamicid(file), state)


@pytest.fixture(name="stage")
def stage_for_one_test(loaded: Stage, warnings: list[str]) -> Stage:
    """The module's stage, with settings of this test's own; a warning that the test leaves in `warnings` fails it."""
    return Stage(loaded.model, loaded.dynamicid, loaded.state, known=loaded.known)


class _Taking(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(name="warnings")
def warnings_taken() -> Iterator[list[str]]:
    """What the pack warns of in a test: a test that expects warnings takes them out, all that are left are false."""
    handler, logger = _Taking(), logging.getLogger("DynamicID")
    logger.addHandler(handler)
    yield handler.messages
    logger.removeHandler(handler)
    assert not handler.messages, handler.messages
