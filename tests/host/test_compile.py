"""Models that another node compiles: with people they are right beside those without, in whatever order."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict
from torch import Tensor

from .stage import Stage, assert_other, assert_same

BASE = "one level"
"""Of the stage's UNets the one that is compiled quickest."""


BLOCK = "diffusion_model.middle_block.1.transformer_blocks.0"


def compiled(model: Any, part: str = BLOCK) -> Any:
    """What the host's TorchCompileModel gives, by the quickest of torch's backends."""
    clone = model.clone()
    set_torch_compile_wrapper(clone, "eager", {"guard_filter_fn": skip_torch_compile_dict}, keys=[part])
    return clone


def taken(warnings: list[str]) -> str:
    """What was warned of since the last time."""
    said = " ".join(warnings)
    warnings.clear()
    return said


@pytest.fixture(autouse=True)
def _forgets_what_was_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def check(stage: Stage, model: Any, people: bool, warnings: list[str], **changed: Any) -> None:
    """Sample; with people they are there and the node says that it isn't compiled, without it says nothing."""
    image = stage.sample(model, **changed)
    expected, other = stage.alone(**changed), stage.nobody(**changed)
    assert_same(image, expected if people else other)
    assert_other(image, other if people else expected)
    said = taken(warnings)
    assert ("Apply DynamicID (Advanced): another node compiles this model" in said) == people
    assert "replaced" not in said


@pytest.mark.parametrize("order", ["plain first", "people first"])
@pytest.mark.parametrize("part", [BLOCK, pytest.param("diffusion_model", marks=pytest.mark.full)])
def test_two_clones(stage: Stage, part: str, order: str, warnings: list[str]) -> None:
    models = [(compiled(stage.model, part), False), (compiled(stage.ours(), part), True)]
    for model, people in (models if order == "plain first" else models[::-1]) * 2:
        check(stage, model, people, warnings)


@pytest.mark.full
def test_weights_spans_and_sizes_after_the_plain_model(stage: Stage, warnings: list[str]) -> None:
    """One graph, run again with other values: weight 0 hands on the plain model, which is compiled."""

    def draws(size: tuple[int, int], **changed: Any) -> Tensor:
        image = stage.sample(compiled(stage.ours(**changed)), size=size, steps=4)
        assert_same(image, stage.sample(stage.ours(**changed), size=size, steps=4))
        taken(warnings)
        return image

    for size in ((8, 12), (12, 8), (8, 12)):
        plain = draws(size, weight=0.0)
        assert torch.equal(plain, stage.nobody(size=size, steps=4))
        images = [draws(size), draws(size, weight=0.5), draws(size, start_at=0.3), draws(size, end_at=0.3)]
        for number, image in enumerate(images):
            assert_other(image, [plain, *images[:number]])


def test_the_node_that_compiles_comes_before(stage: Stage, warnings: list[str]) -> None:
    plain = compiled(stage.model)
    check(stage, plain, False, warnings)
    check(stage, stage.ours(plain), True, warnings)


def _object_patch(model: Any, backend: Any) -> None:
    model.add_object_patch("diffusion_model", torch.compile(model.model.diffusion_model, backend=backend))


def _part_in_place(model: Any, backend: Any) -> None:
    model.model.diffusion_model.out.compile(backend=backend)


def _forward(model: Any, backend: Any) -> None:
    out = model.model.diffusion_model.out
    model.add_object_patch("diffusion_model.out.forward", torch.compile(out.forward, backend=backend))


@pytest.mark.parametrize("compiles", [_object_patch, _part_in_place, _forward])
def test_other_packs_that_compile(stage: Stage, compiles: Any, warnings: list[str], monkeypatch: Any) -> None:
    """Whatever is compiled, and how: nothing of it runs with people."""
    monkeypatch.setattr(stage.model.model.diffusion_model.out, "_compiled_call_impl", None)  # put back afterwards
    model, backend = stage.ours(), torch._dynamo.testing.CompileCounter()
    compiles(model, backend)
    check(stage, model, True, warnings)
    assert backend.frame_count == 0
    model.unpatch_model()


@pytest.mark.full
def test_torch_that_can_only_compile(stage: Stage, warnings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 2.6: people are missing, and what is said before names why, not another node."""
    monkeypatch.delattr(torch.compiler, "set_stance")
    stage.sample(compiled(stage.model))
    image = stage.sample(compiled(stage.ours()))
    said = taken(warnings)
    assert "people may be missing" in said and "compiles" in said and "replaced" not in said
    assert_other(image, stage.alone())
