"""The face encoder against what the reference computes, and what it says of weights and inputs that don't fit."""

import pytest
import torch
from dynamicid_pack.dynamicid_core.identity.encoder import FaceEncoder
from dynamicid_pack.dynamicid_core.state_dict import shapes
from dynamicid_pack.tests.support import GOLDEN, relative_error
from safetensors.torch import load_file

TENSORS = load_file(GOLDEN / "face_encoder.safetensors")
WEIGHTS = {name[len("weights.") :]: tensor for name, tensor in TENSORS.items() if name.startswith("weights.")}


@pytest.fixture(scope="module")
def encoder() -> FaceEncoder:
    return FaceEncoder.from_weights(WEIGHTS)


@pytest.mark.parametrize(
    ("output", "embedding_scale", "shortcut"),
    [("output", 1, None), ("output_shortcut_0.5", 1, 0.5), ("output_zero", 0, None)],
)
@torch.no_grad()
def test_equals_the_reference(
    encoder: FaceEncoder, output: str, embedding_scale: float, shortcut: float | None
) -> None:
    ours = encoder(TENSORS["face_embedding"] * embedding_scale, TENSORS["clip_hidden"], shortcut)
    assert relative_error(ours, TENSORS[output]) < 1e-5


def test_sizes_come_from_the_weights(encoder: FaceEncoder) -> None:
    sizes = encoder.embedding_dim, encoder.clip_dim, encoder.dim, encoder.tokens
    assert sizes == (32, 40, 64, 4)
    assert len(encoder.perceiver_resampler.layers) == 4
    assert not encoder.training


def test_takes_the_weights_without_a_copy(encoder: FaceEncoder) -> None:
    held = encoder.state_dict()
    assert all(held[name].data_ptr() == tensor.data_ptr() for name, tensor in WEIGHTS.items())


def test_default_sizes_are_the_releases() -> None:
    with torch.device("meta"):
        release = shapes(FaceEncoder())
    assert release.keys() == WEIGHTS.keys()
    assert release["proj.0.weight"] == (1024, 512)
    assert release["proj.2.weight"] == (4 * 768, 1024)
    assert release["perceiver_resampler.proj_in.weight"] == (768, 1280)
    assert release["perceiver_resampler.layers.3.1.1.weight"] == (4 * 768, 768)


def test_every_parameter_can_be_trained() -> None:
    encoder = FaceEncoder(embedding_dim=6, hidden_dim=8, clip_dim=10, dim=16, tokens=3, depth=2, dim_head=8)
    tokens = encoder(torch.randn(2, 6), torch.randn(2, 5, 10))
    assert tokens.shape == (2, 3, 16)
    tokens.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"norm.bias": None}, ["1 missing (norm.bias)"]),
        ({"proj.2.weight": None}, ["1 missing (proj.2.weight)"]),
        ({"surplus": torch.zeros(1)}, ["1 not expected (surplus)"]),
        ({"norm.bias": None, "surplus": torch.zeros(1)}, ["1 missing (norm.bias); 1 not expected (surplus)"]),
        (dict.fromkeys(WEIGHTS), ["23 missing (norm.bias, norm.weight, ", "and 18 more)"]),
        (
            {"perceiver_resampler.norm_out.bias": torch.zeros(63)},
            ["perceiver_resampler.norm_out.bias has shape (63,), expected (64,)"],
        ),
        ({"perceiver_resampler.proj_in.weight": torch.zeros(64)}, ["proj_in.weight has shape (64,), expected 2 axes"]),
        ({"proj.2.weight": torch.zeros(250, 64)}, ["proj.2.weight has 250 rows, expected a multiple of 64"]),
        ({"norm.weight": torch.zeros(0)}, ["multiple of 0"]),
    ],
)
def test_weights_that_do_not_fit_are_named(change: dict[str, torch.Tensor | None], says: list[str]) -> None:
    weights = {name: tensor for name, tensor in (WEIGHTS | change).items() if tensor is not None}
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        FaceEncoder.from_weights(weights)
    assert all(part in str(raised.value) for part in says), str(raised.value)


def test_a_layer_left_out_is_named() -> None:
    weights = {name: tensor for name, tensor in WEIGHTS.items() if ".layers.1." not in name}
    with pytest.raises(ValueError, match=r"11 missing \(perceiver_resampler\.layers\.1\..* and 6 more\)"):
        FaceEncoder.from_weights(weights)


def test_a_head_width_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match="a dim of 64 cannot be split into heads of 48"):
        FaceEncoder.from_weights(WEIGHTS, dim_head=48)


@pytest.mark.parametrize(
    ("embedding", "clip_states", "says"),
    [
        ((1, 33), (1, 17, 40), r"face embeddings of shape \(people, 32\), got \(1, 33\)"),
        ((32,), (1, 17, 40), r"got \(32,\)"),
        ((2, 32), (2, 17, 41), r"CLIP hidden states of shape \(2, tokens, 40\), got \(2, 17, 41\)"),
        ((2, 32), (1, 17, 40), r"got \(1, 17, 40\)"),
        ((2, 32), (2, 40), r"got \(2, 40\)"),
    ],
)
def test_inputs_of_a_wrong_shape(
    encoder: FaceEncoder, embedding: tuple[int, ...], clip_states: tuple[int, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        encoder(torch.zeros(embedding), torch.zeros(clip_states))
