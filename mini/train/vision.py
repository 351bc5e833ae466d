"""The image encoder's stage: pictures and captions to nearby vectors, as CLIP's.

It also learns who is shown and how, by naming the person's factors, the expression and the head's pose from its
patches: what captions from the web say of people ("a bald man with glasses, laughing"), these captions leave out, or so
few of them say that they are told apart without it. The text encoder that it learns beside is not kept: `text` trains
another for it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..networks import VISION
from ..world.head import EXPRESSIONS
from ..world.person import CHOICES
from ..world.world import World
from .autoencoder import as_input
from .core_training import losses
from .encoders import read, see, text_model, vision_model
from .judge import misnamed, true_kinds
from .pictures import Pictures, Truth
from .stage import Stage, StageConfig, TrainContext
from .words import words

SHIFT = 8  # pixels that a batch may be moved by: patches would else know 12,000 pictures by heart
POSE_UNIT, POINT_UNIT = 5.0, 4.0  # degrees, pixels


class Reader(nn.Module):
    """Names factors and expressions and tells pose and points of a face, each by its own look at the patches."""

    def __init__(self) -> None:
        super().__init__()
        width, choices = VISION["hidden_size"], {**CHOICES, "expression": EXPRESSIONS}
        self.asks = nn.Parameter(torch.randn(len(choices) + 1, width) * 0.02)
        self.looks = nn.MultiheadAttention(width, VISION["num_attention_heads"], batch_first=True)
        self.names = nn.ModuleDict({name: nn.Linear(width, len(kinds)) for name, kinds in choices.items()})
        self.shape = nn.Linear(width, 3 + 2 * 68)

    def forward(self, states: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return logits by name, poses (n, 3) in degrees and points (n, 68, 2) from portraits' states (n, 65, W)."""
        patches = states[:, 1:]
        seen, _ = self.looks(self.asks.expand(len(patches), -1, -1), patches, patches, need_weights=False)
        named = {name: head(seen[:, i]) for i, (name, head) in enumerate(self.names.items())}
        pose, points = self.shape(seen[:, -1]).float().split([3, 2 * 68], 1)
        return named, pose * POSE_UNIT, points.unflatten(1, (68, 2)) * POINT_UNIT + VISION["image_size"] / 2


class Pupils(nn.Module):
    """Both encoders, and who asks the image encoder about faces."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.vision = text_model(), vision_model()
        self.logit_scale = nn.Parameter(torch.tensor(2.6))
        self.reader = Reader()


def contrastive_loss(logit_scale: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    """Return CLIP's loss of vectors (n, 128): each image's own caption among all, and each caption's image."""
    scale = logit_scale.clamp(max=4.6).exp()
    return losses.info_nce(scale * F.normalize(images.float(), dim=1) @ F.normalize(texts.float(), dim=1).T)


def _moved(images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images (n, 3, H, W) moved by the same few pixels, (x, y), their edges mirrored; and by how many."""
    height, width = images.shape[2:]
    x, y = torch.randint(2 * SHIFT + 1, (2,), generator=rng).tolist()
    moved = F.pad(images, (SHIFT,) * 4, mode="reflect")[:, :, y : y + height, x : x + width]
    return moved, torch.tensor([SHIFT - x, SHIFT - y], device=images.device)


def _points(truth: Truth) -> NDArray[np.float32]:
    """Return the 68 points (n, 68, 2) of portraits, in pixels."""
    return truth.points68[:, 0, :, :2]


class VisionStage(Stage[Pupils]):
    name = "vision"
    config = StageConfig(steps=9_000, learning_rate=1e-3, weight_decay=0.05)
    network = Pupils
    batch = 48

    def __init__(self, context: TrainContext, size: int = 12_000):
        super().__init__(context)
        world, held_out = World(seed=1), World(seed=2, held_out_people=True)
        self.portraits = Pictures(context.folder, world, 1, size)
        self.pairs = Pictures(context.folder, world, 2, size // 2)
        self.trios = Pictures(context.folder, world, 3, size // 6)
        self.held_out = Pictures(context.folder, held_out, 1, 500)

    def step_losses(self, network: Pupils, step: int, rng: torch.Generator) -> dict[str, Tensor]:
        device = self.context.device
        # Of sixteen steps one shows groups of two and one shows groups of three.
        data, turn = {1: (self.pairs, step // 16), 9: (self.trios, step // 16)}.get(step % 16, (self.portraits, step))
        images, truth = data.batch(turn, self.batch)
        seen, away = _moved(as_input(images, device), rng)
        states, image_vector = see(network.vision, seen)
        _, text_vector = read(network.text, words().batch(truth.caption.tolist()).to(device))
        alike = contrastive_loss(network.logit_scale, image_vector, text_vector)
        terms = {"loss": alike, "contrast": alike}
        if data is self.portraits:
            named, pose, points = network.reader(states)
            kinds = true_kinds(truth)
            missed = {k: misnamed(logits, torch.from_numpy(kinds[k]).to(device)) for k, logits in named.items()}
            expression = missed.pop("expression")
            factors = torch.stack(list(missed.values())).mean()
            true_pose, true_points = (torch.from_numpy(x).to(device) for x in (truth.pose[:, 0], _points(truth)))
            turned = F.smooth_l1_loss(pose / POSE_UNIT, true_pose / POSE_UNIT)
            placed = F.smooth_l1_loss(points / POINT_UNIT, (true_points + away) / POINT_UNIT)
            terms["loss"] = alike + factors + expression + turned + placed
            terms |= {"factors": factors, "expression": expression, "pose": turned, "points": placed}
        return terms

    def measures(self, network: Pupils) -> dict[str, float]:
        """Return shares named right, and how far pose and points are off: medians, in degrees and pixels."""
        images, truth = self.held_out.take(np.arange(min(200, self.held_out.size)))
        with torch.no_grad(), self.context.autocast():
            named, pose, points = network.reader(see(network.vision, as_input(images, self.context.device))[0])
        kinds = true_kinds(truth)
        guessed = {name: logits.argmax(1).cpu().numpy() for name, logits in named.items()}
        right = {name: float((guess == kinds[name])[kinds[name] >= 0].mean()) for name, guess in guessed.items()}
        pitch, yaw, _ = np.median(np.abs(pose.cpu().numpy() - truth.pose[:, 0]), axis=0)
        off = np.median(np.linalg.norm(points.cpu().numpy() - _points(truth), axis=2))
        return {**right, "pitch_degrees": float(pitch), "yaw_degrees": float(yaw), "points": float(off)}

    def kept(self, network: Pupils) -> nn.Module:
        return network.vision
