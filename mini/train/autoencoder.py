"""The autoencoder stage: TAESD's architecture (github.com/madebyollin/taesd), under the names that ComfyUI loads it by.

A picture (3, H, W) in [0, 1] becomes a latent (4, H/8, W/8) of about unit variance, the scale that the UNet works at:
`vae_scale` in the file is SD1.5's factor, by which the host divides after encoding and multiplies before decoding.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..world.world import World
from .core import image_grid
from .pictures import Pictures, Truth
from .stage import Stage, StageConfig, TrainContext, channels_last

SD15_SCALE = 0.18215
WIDTH, CHANNELS = 64, 4
CROP = 64  # pixels: holds nearly a whole face


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class _Block(nn.Module):
    """Three convolutions and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


def _conv(inside: int = WIDTH, outside: int = WIDTH, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, stride, padding=1, bias=bias)


def _blocks(count: int) -> list[nn.Module]:
    return [_Block() for _ in range(count)]


class Autoencoder(nn.Module):
    """`taesd_encoder` and `taesd_decoder`: 2.4 M parameters together."""

    def __init__(self) -> None:
        super().__init__()
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for _ in range(3):
            down += [_conv(stride=2, bias=False), *_blocks(3)]
            up += [*_blocks(3), nn.Upsample(scale_factor=2), _conv(bias=False)]
        self.taesd_encoder = nn.Sequential(_conv(3), *_blocks(1), *down, _conv(outside=CHANNELS))
        self.taesd_decoder = nn.Sequential(_Clamp(), _conv(CHANNELS), nn.ReLU(), *up, *_blocks(1), _conv(outside=3))
        self.register_buffer("vae_scale", torch.tensor(SD15_SCALE))
        self.register_buffer("vae_shift", torch.tensor(0.0))

    def encode(self, images: Tensor) -> Tensor:
        """Return latents (n, 4, H/8, W/8) of images (n, 3, H, W) in [0, 1]."""
        return self.taesd_encoder(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images (n, 3, 8h, 8w), about in [0, 1], of latents (n, 4, h, w)."""
        return self.taesd_decoder(latents)


def as_input(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return images (n, H, W, 3) uint8 as (n, 3, H, W) in [0, 1]."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float().div(255)


def load(context: TrainContext) -> Autoencoder:
    """Load the trained autoencoder."""
    return channels_last(context.load("autoencoder", Autoencoder()), context.device)


def encode(network: Autoencoder, images: NDArray[np.uint8], context: TrainContext, size: int = 16) -> Tensor:
    """Return latents (n, 4, H/8, W/8), on the CPU, of images (n, H, W, 3) uint8, `size` at a time."""
    inputs = as_input(images, context.device).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), context.autocast():
        return torch.cat([network.encode(part).float().cpu() for part in inputs.split(size)])


def decode(network: Autoencoder, latents: Tensor, context: TrainContext, size: int = 16) -> NDArray[np.uint8]:
    """Return images (n, 8h, 8w, 3) uint8 of latents (n, 4, h, w), `size` at a time."""
    inputs = latents.to(context.device, memory_format=torch.channels_last)
    with torch.no_grad(), context.autocast():
        images = torch.cat([network.decode(part).float().cpu() for part in inputs.split(size)])
    return images.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()


def _edges(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[..., 1:, :] - images[..., :-1, :], images[..., :, 1:] - images[..., :, :-1]


def picture_loss(made: Tensor, true: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far images (n, 3, H, W) are from the true ones: in colors, and in edges at three scales.

    weight: (n, 1, H, W), how much each pixel counts.
    """
    colors = (weight * (made - true).abs()).mean()
    edges = made.new_zeros(())
    for _ in range(3):
        (down, right), (true_down, true_right) = _edges(made), _edges(true)
        edges = edges + (weight[..., 1:, :] * (down - true_down).abs()).mean()
        edges = edges + (weight[..., :, 1:] * (right - true_right).abs()).mean()
        made, true, weight = (F.avg_pool2d(x, 2) for x in (made, true, weight))
    return colors, edges


class AutoencoderStage(Stage[Autoencoder]):
    name = "autoencoder"
    config = StageConfig(steps=30_500, learning_rate=6e-4, decay_ratio=0.18, max_grad_norm=0.5)
    network = Autoencoder
    portraits, groups = 6, 2  # crops a step
    noise = 0.04  # on the latents: near ones must mean near pictures, since the UNet's are never exact
    face, hair = 5.0, 9.0  # how much more their pixels weigh

    def __init__(self, context: TrainContext, size: int = 30_000):
        super().__init__(context)
        world = World(seed=1)
        self.portrait_data = Pictures(context.folder, world, 1, size)
        self.group_data = Pictures(context.folder, world, 2, size // 2)
        self.held_out = Pictures(context.folder, World(seed=2, held_out_people=True), 1, 500)

    def _weight(self, truth: Truth, shape: tuple[int, int]) -> NDArray[np.float32]:
        """(n, 1, H, W): `face` in the face boxes, `hair` from their brows to half their height above, 1 elsewhere."""
        weight = np.ones((len(truth.box), 1, *shape), np.float32)
        for i, boxes in enumerate(truth.box.round().astype(int)):
            for x0, y0, x1, y1 in boxes:
                columns = slice(max(0, x0 - 3), x1 + 3)
                weight[i, 0, max(0, y0 - 3) : y1 + 3, columns] = self.face
                weight[i, 0, max(0, y0 - (y1 - y0) // 2) : y0 + (y1 - y0) // 8, columns] = self.hair
        return weight

    def _corner(self, box: NDArray[np.float32], shape: tuple[int, int], rng: torch.Generator) -> tuple[int, int]:
        """Return a crop's corner (y, x) on the latent's grid: half of the times about a face, else anywhere."""
        limit = np.array(shape) - CROP
        at = torch.rand(3, generator=rng).numpy()
        about_face = (box[[1, 0]] + box[[3, 2]] - CROP) / 2 + 32 * (at[:2] - 0.5)
        corner = about_face if at[2] < 0.5 else limit * at[:2]
        y, x = np.clip(np.round(corner / 8) * 8, 0, limit).astype(int)
        return int(y), int(x)

    def _crops(self, step: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return crops (n, 3, CROP, CROP) in [0, 1] and their weights."""
        images, weights = [], []
        for size, pictures in ((self.portraits, self.portrait_data), (self.groups, self.group_data)):
            drawn, truth = pictures.batch(step, size)
            shape = (drawn.shape[1], drawn.shape[2])
            weight = self._weight(truth, shape)
            for i in range(size):
                who = int(torch.randint(truth.box.shape[1], (), generator=rng))
                y, x = self._corner(truth.box[i, who], shape, rng)
                images.append(drawn[i, y : y + CROP, x : x + CROP])
                weights.append(weight[i, :, y : y + CROP, x : x + CROP])
        device = self.context.device
        return as_input(np.stack(images), device), torch.from_numpy(np.stack(weights)).to(device)

    def step_losses(self, network: Autoencoder, step: int, rng: torch.Generator) -> dict[str, Tensor]:
        true, weight = self._crops(step, rng)
        latents = network.encode(true.contiguous(memory_format=torch.channels_last)).float()
        noise = torch.randn(latents.shape, generator=rng).to(latents.device)
        made = network.decode(latents + self.noise * noise).float()
        colors, edges = picture_loss(made, true, weight)
        mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        scale = (mean.square() + (std - 1).square()).mean()
        far = F.relu(latents.abs() - 2.8).square().mean()  # the decoder's clamp flattens what lies beyond 3
        loss = 3 * colors + 0.5 * edges + 0.02 * scale + 0.05 * far
        return {"loss": loss, "colours": colors, "edges": edges, "scale": scale}

    def samples(self, network: Autoencoder) -> NDArray[np.uint8]:
        """Return held-out portraits above their round trips, and two groups."""
        rows = []
        portraits = self.held_out.take(np.arange(16))[0]
        groups = self.group_data.take(np.arange(4))[0]
        for true in (portraits[:8], portraits[8:], groups):
            made = decode(network, encode(network, true, self.context), self.context)
            rows += [np.concatenate(list(true), 1), np.concatenate(list(made), 1)]
        return image_grid(rows, 1)

    def measures(self, network: Autoencoder) -> dict[str, float]:
        true, truth = self.held_out.take(np.arange(min(200, self.held_out.size)))
        latents = encode(network, true, self.context)
        wrong = (decode(network, latents, self.context).astype(np.float32) - true) / 255
        inside = self._weight(truth, (128, 128))[:, 0, :, :, None] > 1
        psnr = -10 * np.log10(np.square(wrong).mean())
        faces = -10 * np.log10(np.square(wrong).mean(where=np.broadcast_to(inside, wrong.shape)))
        return {"psnr": float(psnr), "psnr_faces": float(faces), "latent_std": float(latents.std())}
