"""Identity-Motion Reconfigurator: identity tokens with their own motion taken out and another put in.

DisentangleNet, EntangleNet, and the keypoint encoder that describes a motion together with a text encoder (DynamicID,
arXiv 2503.06505, section 3). Axes: b batch, l latents, d dim.
"""

from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import Conv2d, LayerNorm, Linear

from ..identity.perceiver import PerceiverLayer
from ..state_dict import Weights, WeightsNetwork, check_shape, depth, size, stacked

MotionFeatures = tuple[Tensor, Tensor]
"""Expression and head pose, one per row: the keypoint encoder's output (B, K) and SD1.5's pooled text state (B, P)."""


class IdentityMotionReconfigurator(WeightsNetwork):
    """From identity tokens, the motion they show and target motions to identity tokens that show the targets.

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
        self.norm_in = LayerNorm(token_dim)
        self.proj_in = Linear(token_dim, dim)
        self.disentangleNet = nn.ModuleList(PerceiverLayer(dim, dim_head, self_attention=True) for _ in range(depth))
        self.entangleNet = nn.ModuleList(PerceiverLayer(dim, dim_head, self_attention=True) for _ in range(depth))
        self.feature_fusion = nn.Sequential(
            LayerNorm(motion_dim),
            Linear(motion_dim, dim),
            nn.GELU(),
            LayerNorm(dim),
            Linear(dim, latents * dim),
            nn.GELU(),
        )
        self.norm_out = LayerNorm(dim)
        self.proj_out = Linear(dim, token_dim)

    @classmethod
    def shaped_like(cls, weights: Weights, dim_head: int = 1) -> "IdentityMotionReconfigurator":
        dim = size(weights, "norm_out.weight", 0, axes=1)
        with torch.device("meta"):
            return cls(
                token_dim=size(weights, "norm_in.weight", 0, axes=1),
                motion_dim=size(weights, "feature_fusion.0.weight", 0, axes=1),
                dim=dim,
                latents=stacked(weights, "feature_fusion.4.weight", dim, "latent"),
                depth=depth(weights, "disentangleNet."),
                dim_head=dim_head,
            )

    def forward(self, tokens: Tensor, source: MotionFeatures, target: MotionFeatures) -> Tensor:
        """Return tokens (M, T, D) showing the `target`s, from tokens (B, T, D) of people who show the `source` motions.

        M is a multiple of B: with m = M / B targets each, rows i*m to (i+1)*m are person i's.
        """
        return self.entangle(self.disentangle(tokens, source), target)

    def disentangle(self, tokens: Tensor, source: MotionFeatures) -> Tensor:
        """Return identity without motion, (B, T, dim), from tokens (B, T, D) and the motions they show (B rows)."""
        check_shape("identity tokens", tokens, ("people", "tokens", self.token_dim))
        latents = self.fuse(source)
        if len(latents) != len(tokens):
            raise ValueError(
                f"expected one source motion for each of {len(tokens)} people's tokens, got {len(latents)}."
            )
        return _run(self.disentangleNet, self.proj_in(self.norm_in(tokens)), latents)

    def entangle(self, identity: Tensor, target: MotionFeatures) -> Tensor:
        """Return tokens (M, T, D) showing the `target` motions (M rows, a multiple of B), from identity (B, T, dim)."""
        latents = self.fuse(target)
        each, left = divmod(len(latents), len(identity))
        if left or not each:
            raise ValueError(
                f"expected as many target motions for each of {len(identity)} people, got {len(latents)} in all."
            )
        x = _run(self.entangleNet, identity.repeat_interleave(each, dim=0), latents)
        return self.proj_out(self.norm_out(x))

    def fuse(self, motion: MotionFeatures) -> Tensor:
        """Return the latents (B, L, dim) of motions: keypoints (B, K) and text (B, P)."""
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
        # (B, L * dim) to (B, L, dim)
        return rearrange(self.feature_fusion(features), "b (l d) -> b l d", l=self.latents)


class KeypointEncoder(WeightsNetwork):
    """Convolutions over a keypoint image; every stage between the first and the last halves it.

    Parameter names are those of the release's keypoint encoder file.
    """

    def __init__(
        self,
        dims: tuple[int, ...] = (16, 32, 64, 128, 256, 512),
        depths: tuple[int, ...] = (1, 3, 4, 3, 3, 2),
        output_dim: int = 768,
    ) -> None:
        """Build the stages.

        Args:
            dims, depths: channels and convolutions of the stages that keep or halve the image; one more makes it 1x1.
        """
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
    def shaped_like(cls, weights: Weights, dim_head: int = 1) -> "KeypointEncoder":
        """Return an encoder on the meta device; convolutions have no heads, so `dim_head` changes nothing."""
        last = depth(weights, "blocks.") - 1
        stages = range(max(1, last))
        with torch.device("meta"):
            return cls(
                dims=tuple(size(weights, f"blocks.{i}.0.conv_block.0.weight", 0, axes=4) for i in stages),
                depths=tuple(depth(weights, f"blocks.{i}.") for i in stages),
                output_dim=size(weights, f"blocks.{last}.1.conv_block.0.weight", 0, axes=4),
            )

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, 768) of keypoint images (B, 1, 96, 96) in [-1, 1] (points 1 on -1)."""
        side = self.image_side
        check_shape("keypoint pictures", images, ("pictures", 1, side, side))
        for stage in self.blocks:
            images = stage(images)
        return images.flatten(1)  # (B, D, 1, 1) to (B, D)


class ConvBlock(nn.Module):
    """Convolution and batch normalization, the input added where `residual`, then ReLU."""

    def __init__(
        self, before: int, after: int, kernel: int = 3, stride: int = 1, padding: int = 1, residual: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual
        self.conv_block = nn.Sequential(Conv2d(before, after, kernel, stride, padding), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, after, H / stride, W / stride) for (B, before, H, W)."""
        y = self.conv_block(x)
        return torch.relu(y + x if self.residual else y)


def _run(layers: nn.ModuleList, x: Tensor, latents: Tensor) -> Tensor:
    """Return x (B, T, dim) changed, layer after layer, by motion latents (B, L, dim)."""
    for layer in layers:
        x = layer(x, latents)
    return x
