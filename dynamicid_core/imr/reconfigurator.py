"""Identity-Motion Reconfigurator: identity tokens with their own motion taken out and another put in.

DynamicID, section 3: DisentangleNet, EntangleNet, and the keypoint encoder that describes a motion with a text encoder.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from ..identity.perceiver import PerceiverLayer
from ..state_dict import Weights, adopt, compare, depth, parts, shapes, size


class Motion(NamedTuple):
    """Expression and head pose, one per row."""

    keypoints: Tensor
    """(B, K), the keypoint encoder's output"""
    text: Tensor
    """(B, P), SD1.5's pooled text state of a face prompt"""


class IdentityMotionReconfigurator(nn.Module):
    """Identity tokens, the motion they show and the motions wanted, to identity tokens that show those.

    Parameter names are those of the release's IMR file, `disentangleNet` and `entangleNet` among them.
    """

    def __init__(
        self,
        token_dim: int = 768,
        motion_dim: int = 1536,
        dim: int = 1024,
        latents: int = 4,
        depth: int = 1,
        dim_head: int = 64,
    ) -> None:
        super().__init__()
        self.token_dim = token_dim
        self.motion_dim = motion_dim
        self.latents = latents
        self.norm_in = nn.LayerNorm(token_dim)
        self.proj_in = nn.Linear(token_dim, dim)
        self.disentangleNet = nn.ModuleList(PerceiverLayer(dim, dim_head, self_attention=True) for _ in range(depth))
        self.entangleNet = nn.ModuleList(PerceiverLayer(dim, dim_head, self_attention=True) for _ in range(depth))
        self.feature_fusion = nn.Sequential(
            nn.LayerNorm(motion_dim),
            nn.Linear(motion_dim, dim),
            nn.GELU(),
            nn.LayerNorm(dim),
            nn.Linear(dim, latents * dim),
            nn.GELU(),
        )
        self.norm_out = nn.LayerNorm(dim)
        self.proj_out = nn.Linear(dim, token_dim)

    @classmethod
    def shaped_like(cls, weights: Weights, dim_head: int = 1) -> "IdentityMotionReconfigurator":
        """A network on the meta device, every size but the head dim read from the shapes in a state dict."""
        dim = size(weights, "norm_out.weight", 0, axes=1)
        stacked = size(weights, "feature_fusion.4.weight", 0) if "feature_fusion.4.weight" in weights else dim
        with torch.device("meta"):
            return cls(
                token_dim=size(weights, "norm_in.weight", 0, axes=1),
                motion_dim=size(weights, "feature_fusion.0.weight", 0, axes=1),
                dim=dim,
                latents=parts(stacked, dim, "feature_fusion.4.weight", "latent"),
                depth=depth(weights, "disentangleNet."),
                dim_head=dim_head,
            )

    @classmethod
    def check(cls, weights: Weights) -> None:
        """Raises ValueError when tensors are missing, not expected or of a wrong shape, whatever the head dim."""
        compare(shapes(cls.shaped_like(weights)), weights)

    @classmethod
    def from_weights(cls, weights: Weights, dim_head: int = 64) -> "IdentityMotionReconfigurator":
        """A network for evaluation on a state dict's own memory and dtype; ValueError when it doesn't fit."""
        cls.check(weights)
        return adopt(cls.shaped_like(weights, dim_head), weights)

    def forward(self, tokens: Tensor, source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
        """Tokens (B, T, D) of B people who show the `source` motions (B rows) to (M, T, D) showing the `target`s.

        M is a multiple of B: with m = M / B targets each, rows i*m to (i+1)*m are person i's.
        """
        return self.entangle(self.disentangle(tokens, source), target)

    def disentangle(self, tokens: Tensor, source: tuple[Tensor, Tensor]) -> Tensor:
        """Identity without motion, (B, T, dim), from tokens (B, T, D) and the motions that they show (B rows)."""
        if tokens.ndim != 3 or tokens.shape[2] != self.token_dim:
            raise ValueError(
                f"expected identity tokens of shape (people, tokens, {self.token_dim}), got {tuple(tokens.shape)}."
            )
        latents = self.fuse(source)
        if len(latents) != len(tokens):
            raise ValueError(
                f"expected one source motion for each of {len(tokens)} people's tokens, got {len(latents)}."
            )
        return _run(self.disentangleNet, self.proj_in(self.norm_in(tokens)), latents)

    def entangle(self, identity: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        """Tokens (M, T, D) that show the `target` motions (M rows, a multiple of B), from identity (B, T, dim)."""
        latents = self.fuse(target)
        each, left = divmod(len(latents), len(identity))
        if left or not each:
            raise ValueError(
                f"expected as many target motions for each of {len(identity)} people, got {len(latents)} in all."
            )
        x = _run(self.entangleNet, identity.repeat_interleave(each, dim=0), latents)
        return self.proj_out(self.norm_out(x))

    def fuse(self, motion: tuple[Tensor, Tensor]) -> Tensor:
        """Keypoints (B, K) and text (B, P) of motions to latents (B, L, dim)."""
        keypoints, text = motion
        if keypoints.ndim != 2 or text.ndim != 2 or len(keypoints) != len(text):
            raise ValueError(
                "expected keypoint and text features with one row per motion, got "
                f"{tuple(keypoints.shape)} and {tuple(text.shape)}."
            )
        features = torch.cat((keypoints, text), dim=1)
        if features.shape[1] != self.motion_dim:
            raise ValueError(
                f"expected keypoint and text features of {self.motion_dim} together, got "
                f"{keypoints.shape[1]} + {text.shape[1]}."
            )
        return rearrange(self.feature_fusion(features), "b (l d) -> b l d", l=self.latents)


class KeypointEncoder(nn.Module):
    """Convolutions over a keypoint picture; every stage between the first and the last halves it.

    Parameter names are those of the release's keypoint encoder file.
    """

    def __init__(
        self,
        dims: tuple[int, ...] = (16, 32, 64, 128, 256, 512),
        depths: tuple[int, ...] = (1, 3, 4, 3, 3, 2),
        output_dim: int = 768,
    ) -> None:
        """`dims` and `depths` (convolutions) of the stages that keep or halve the picture; one more makes it 1x1."""
        super().__init__()
        stages = [[ConvBlock(1, dims[0], kernel=7, padding=3)]]
        stages += [[ConvBlock(before, after, stride=2)] for before, after in pairwise(dims)]
        for stage, dim, convolutions in zip(stages, dims, depths, strict=True):
            stage += [ConvBlock(dim, dim, residual=True) for _ in range(convolutions - 1)]
        stages.append([ConvBlock(dims[-1], dims[-1], padding=0), ConvBlock(dims[-1], output_dim, 1, padding=0)])
        self.blocks = nn.ModuleList(nn.Sequential(*stage) for stage in stages)
        self.output_dim = output_dim
        self.image_side = 3 * 2 ** (len(dims) - 1)

    @classmethod
    def shaped_like(cls, weights: Weights) -> "KeypointEncoder":
        """An encoder on the meta device, every size read from the shapes in a state dict."""
        last = depth(weights, "blocks.") - 1
        stages = range(max(1, last))
        with torch.device("meta"):
            return cls(
                dims=tuple(size(weights, f"blocks.{i}.0.conv_block.0.weight", 0, axes=4) for i in stages),
                depths=tuple(depth(weights, f"blocks.{i}.") for i in stages),
                output_dim=size(weights, f"blocks.{last}.1.conv_block.0.weight", 0, axes=4),
            )

    @classmethod
    def check(cls, weights: Weights) -> None:
        """Raises ValueError when tensors are missing, not expected or of a wrong shape."""
        compare(shapes(cls.shaped_like(weights)), weights)

    @classmethod
    def from_weights(cls, weights: Weights) -> "KeypointEncoder":
        """An encoder for evaluation on a state dict's own memory and dtype; ValueError when it doesn't fit."""
        cls.check(weights)
        return adopt(cls.shaped_like(weights), weights)

    def forward(self, pictures: Tensor) -> Tensor:
        """Keypoint pictures (B, 1, 96, 96) in [-1, 1] (points 1 on -1) to features (B, 768)."""
        side = self.image_side
        if pictures.ndim != 4 or pictures.shape[1:] != (1, side, side):
            shape = tuple(pictures.shape)
            raise ValueError(f"expected keypoint pictures of shape (pictures, 1, {side}, {side}), got {shape}.")
        for stage in self.blocks:
            pictures = stage(pictures)
        return pictures.flatten(1)


class ConvBlock(nn.Module):
    """Convolution and batch normalisation, the input added where `residual`, then ReLU."""

    def __init__(
        self, before: int, after: int, kernel: int = 3, stride: int = 1, padding: int = 1, residual: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual
        self.conv_block = nn.Sequential(nn.Conv2d(before, after, kernel, stride, padding), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, after, H / stride, W / stride)."""
        y = self.conv_block(x)
        return torch.relu(y + x if self.residual else y)


def _run(layers: nn.ModuleList, x: Tensor, latents: Tensor) -> Tensor:
    """x (B, T, dim) changed, layer after layer, by motion latents (B, L, dim)."""
    for layer in layers:
        x = layer(x, latents)
    return x
