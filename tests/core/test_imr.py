"""The motion networks against what the reference computes, and how batches of people and targets go together."""

import json

import pytest
import torch
from dynamicid_pack.dynamicid_core.imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from dynamicid_pack.dynamicid_core.state_dict import shapes
from dynamicid_pack.tests.support import GOLDEN, generated_weights, relative_error
from safetensors import safe_open
from safetensors.torch import load_file

GOLDEN_IMR = {depth: load_file(GOLDEN / f"imr_depth{depth}.safetensors") for depth in (1, 2)}
TENSORS = GOLDEN_IMR[1]
SOURCE = (TENSORS["source_keypoints"], TENSORS["source_text"])
TARGET = (TENSORS["target_keypoints"], TENSORS["target_text"])


def _weights(depth: int) -> dict[str, torch.Tensor]:
    named = GOLDEN_IMR[depth].items()
    return {name[len("weights.") :]: tensor for name, tensor in named if name.startswith("weights.")}


@pytest.fixture(scope="module")
def imr() -> IdentityMotionReconfigurator:
    return IdentityMotionReconfigurator.from_weights(_weights(1), dim_head=16)


@pytest.mark.parametrize("depth", [1, 2])
@torch.no_grad()
def test_equals_the_reference(depth: int) -> None:
    golden = GOLDEN_IMR[depth]
    imr = IdentityMotionReconfigurator.from_weights(_weights(depth), dim_head=16)
    assert len(imr.disentangleNet) == len(imr.entangleNet) == depth
    ours = imr(
        golden["tokens"],
        (golden["source_keypoints"], golden["source_text"]),
        (golden["target_keypoints"], golden["target_text"]),
    )
    assert relative_error(ours, golden["output"]) < 1e-5


@torch.no_grad()
def test_one_target_alone_is_the_same_as_among_others(imr: IdentityMotionReconfigurator) -> None:
    alone = imr(TENSORS["tokens"], SOURCE, (TARGET[0][1:2], TARGET[1][1:2]))
    assert relative_error(alone, TENSORS["output"][1:2]) < 1e-5


@torch.no_grad()
def test_several_people_with_several_targets_each(imr: IdentityMotionReconfigurator) -> None:
    torch.manual_seed(0)
    tokens, source = torch.randn(2, 4, 48), (torch.randn(2, 48), torch.randn(2, 32))
    target = (torch.randn(6, 48), torch.randn(6, 32))
    together = imr(tokens, source, target)
    for person in range(2):
        one, rows = slice(person, person + 1), slice(3 * person, 3 * person + 3)
        alone = imr(tokens[one], (source[0][one], source[1][one]), (target[0][rows], target[1][rows]))
        assert relative_error(together[rows], alone) < 1e-5


@torch.no_grad()
def test_taking_motion_out_then_putting_one_in_is_the_whole(imr: IdentityMotionReconfigurator) -> None:
    identity = imr.disentangle(TENSORS["tokens"], SOURCE)
    assert identity.shape == (1, 4, 64)
    assert torch.equal(imr.entangle(identity, TARGET), imr(TENSORS["tokens"], SOURCE, TARGET))


def test_default_sizes_are_the_releases() -> None:
    with torch.device("meta"):
        release = shapes(IdentityMotionReconfigurator())
    assert release.keys() == _weights(1).keys()
    assert release["feature_fusion.4.weight"] == (4 * 1024, 1024)
    assert release["disentangleNet.0.0.to_kv.weight"] == (2 * 1024, 1024)
    assert release["proj_out.weight"] == (768, 1024)


def test_every_parameter_can_be_trained() -> None:
    imr = IdentityMotionReconfigurator(token_dim=6, motion_dim=7, dim=16, latents=3, depth=2, dim_head=8)
    imr(
        torch.randn(1, 4, 6), (torch.randn(1, 3), torch.randn(1, 4)), (torch.randn(2, 3), torch.randn(2, 4))
    ).sum().backward()
    assert all(parameter.grad is not None for parameter in imr.parameters())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"norm_out.weight": None}, "1 missing (norm_out.weight)"),
        ({"entangleNet.1.0.norm1.bias": torch.zeros(64)}, "1 not expected (entangleNet.1.0.norm1.bias)"),
        ({"proj_in.weight": torch.zeros(64, 47)}, "proj_in.weight has shape (64, 47), expected (64, 48)"),
        ({"feature_fusion.4.weight": torch.zeros(250, 64)}, "has 250 rows, expected a multiple of 64"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: dict[str, torch.Tensor | None], says: str) -> None:
    weights = {name: tensor for name, tensor in (_weights(1) | change).items() if tensor is not None}
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        IdentityMotionReconfigurator.from_weights(weights, dim_head=16)
    assert says in str(raised.value), str(raised.value)


@pytest.mark.parametrize(
    ("tokens", "source", "target", "says"),
    [
        ((1, 4, 47), ((1, 48), (1, 32)), ((3, 48), (3, 32)), r"\(people, tokens, 48\), got \(1, 4, 47\)"),
        ((2, 4, 48), ((1, 48), (1, 32)), ((2, 48), (2, 32)), "each of 2 people's tokens, got 1"),
        ((2, 4, 48), ((2, 48), (2, 32)), ((3, 48), (3, 32)), "each of 2 people, got 3"),
        ((1, 4, 48), ((1, 48), (1, 32)), ((0, 48), (0, 32)), "each of 1 people, got 0"),
        ((1, 4, 48), ((1, 48), (1, 31)), ((3, 48), (3, 32)), r"80 together, got 48 \+ 31"),
        ((1, 4, 48), ((1, 48), (2, 32)), ((3, 48), (3, 32)), "one row per motion"),
    ],
)
def test_inputs_that_do_not_go_together(
    imr: IdentityMotionReconfigurator,
    tokens: tuple[int, ...],
    source: tuple[tuple[int, ...], tuple[int, ...]],
    target: tuple[tuple[int, ...], tuple[int, ...]],
    says: str,
) -> None:
    with pytest.raises(ValueError, match=says):
        imr(torch.zeros(tokens), tuple(map(torch.zeros, source)), tuple(map(torch.zeros, target)))


@torch.no_grad()
def test_keypoint_encoder_equals_the_reference() -> None:
    with safe_open(GOLDEN / "keypoint_encoder.safetensors", framework="pt") as file:
        metadata = file.metadata()
        image, output = file.get_tensor("image"), file.get_tensor("output")
    named = json.loads(metadata["keys"])
    encoder = KeypointEncoder.from_weights(generated_weights(named, int(metadata["weights_seed"])))
    assert shapes(encoder) == {name: tuple(shape) for name, shape in named.items()}
    with torch.device("meta"):
        assert shapes(KeypointEncoder()) == shapes(encoder)
    assert encoder.image_side == 96
    assert relative_error(encoder(image), output.reshape(2, 768)) < 1e-5


def test_a_smaller_keypoint_encoder_is_read_and_trained() -> None:
    encoder = KeypointEncoder(dims=(4, 8), depths=(2, 3), output_dim=6)
    assert shapes(KeypointEncoder.shaped_like(encoder.state_dict())) == shapes(encoder)
    features = encoder(torch.randn(2, 1, 6, 6))
    assert features.shape == (2, 6)
    features.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize("shape", [(2, 3, 6, 6), (2, 1, 7, 6), (1, 6, 6)])
def test_keypoint_pictures_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    encoder = KeypointEncoder(dims=(4, 8), depths=(1, 1), output_dim=6)
    with pytest.raises(ValueError, match=r"expected keypoint pictures of shape \(pictures, 1, 6, 6\)"):
        encoder(torch.zeros(shape))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"blocks.1.1.conv_block.1.running_var": None}, "1 missing (blocks.1.1.conv_block.1.running_var)"),
        ({"blocks.0.0.conv_block.0.weight": torch.zeros(4, 1, 3, 3)}, "(4, 1, 3, 3), expected (4, 1, 7, 7)"),
        ({"blocks.1.0.conv_block.0.weight": torch.zeros(8, 4)}, "has shape (8, 4), expected 4 axes"),
    ],
)
def test_keypoint_weights_that_do_not_fit_are_named(change: dict[str, torch.Tensor | None], says: str) -> None:
    whole = KeypointEncoder(dims=(4, 8), depths=(1, 2), output_dim=6).state_dict()
    weights = {name: tensor for name, tensor in (whole | change).items() if tensor is not None}
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        KeypointEncoder.from_weights(weights)
    assert says in str(raised.value), str(raised.value)
