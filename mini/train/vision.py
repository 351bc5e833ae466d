"""The image encoder's stage: pictures and captions to nearby vectors, as CLIP's.

It also learns who is shown and how, by naming the person's factors, the expression and the head's pose from its
patches: what captions from the web say of people ("a bald man with glasses, laughing"), these captions leave out, or so
few of them say that they are told apart without it. The text encoder that it learns beside is not kept: `text` trains
another for it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..head import EXPRESSIONS
from ..networks import VISION
from ..person import CHOICES
from ..world import World
from .autoencoder import as_input
from .encoders import Encoders, kept
from .judge import misnamed, true_kinds
from .loop import Stage, Workshop
from .pictures import Pictures
from .words import words

SHIFT = 8  # pixels that a batch may be moved by: patches would else know 12,000 pictures by heart
POSE_UNIT = 20.0  # degrees


class Pupils(Encoders):
    """Both encoders, and the heads that name factors and expressions and tell the pose."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(2.6))
        width, choices = VISION["hidden_size"], {**CHOICES, "expression": EXPRESSIONS}
        self.named = nn.ModuleDict({name: nn.Linear(width, len(kinds)) for name, kinds in choices.items()})
        self.pose = nn.Linear(width, 3)  # pitch, yaw and roll in POSE_UNIT

    def told(self, states: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """States (n, 65, W) of portraits to logits by what they name, and poses (n, 3) in degrees."""
        patches = states[:, 1:].mean(1)
        return {name: head(patches) for name, head in self.named.items()}, self.pose(patches) * POSE_UNIT


def contrast(scale: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    """CLIP's loss of vectors (n, 128): each picture's own caption among all, and each caption's picture."""
    near = scale.clamp(max=4.6).exp() * F.normalize(images.float(), dim=1) @ F.normalize(texts.float(), dim=1).T
    right = torch.arange(len(near), device=near.device)
    return (F.cross_entropy(near, right) + F.cross_entropy(near.T, right)) / 2


def _moved(images: Tensor, rng: torch.Generator) -> Tensor:
    """Pictures (n, 3, H, W), all moved by the same few pixels; what that uncovers mirrors what is beside it."""
    height, width = images.shape[2:]
    y, x = torch.randint(2 * SHIFT + 1, (2,), generator=rng).tolist()
    return F.pad(images, (SHIFT,) * 4, mode="reflect")[:, :, y : y + height, x : x + width]


class VisionStage(Stage):
    name = "vision"
    steps = 5_800
    learning_rate = 1e-3
    weight_decay = 0.05
    batch = 48

    def __init__(self, workshop: Workshop, size: int = 12_000):
        super().__init__(workshop)
        world, held_out = World(seed=1), World(seed=2, held_out_people=True)
        self.portraits = Pictures(workshop.folder, world, 1, size)
        self.pairs = Pictures(workshop.folder, world, 2, size // 2)
        self.trios = Pictures(workshop.folder, world, 3, size // 6)
        self.held_out = Pictures(workshop.folder, held_out, 1, 500)

    def network(self) -> nn.Module:
        return Pupils()

    def losses(self, network: nn.Module, step: int, rng: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(network, Pupils)
        device = self.workshop.device
        # Of eight steps one shows groups of two and one shows groups of three.
        data, turn = {1: (self.pairs, step // 8), 5: (self.trios, step // 8)}.get(step % 8, (self.portraits, step))
        images, truth = data.batch(turn, self.batch)
        states, image_vector = network.seen(_moved(as_input(images, device), rng))
        _, text_vector = network.states(words().batch(truth.caption.tolist()).to(device))
        alike = contrast(network.logit_scale, image_vector, text_vector)
        losses = {"loss": alike, "contrast": alike}
        if data is self.portraits:
            named, pose = network.told(states)
            kinds = true_kinds(truth)
            missed = {name: misnamed(said, torch.from_numpy(kinds[name]).to(device)) for name, said in named.items()}
            expression = missed.pop("expression")
            factors = torch.stack(list(missed.values())).mean()
            away = F.smooth_l1_loss(pose.float() / POSE_UNIT, torch.from_numpy(truth.pose[:, 0]).to(device) / POSE_UNIT)
            losses["loss"] = alike + 0.5 * factors + expression + away
            losses |= {"factors": factors, "expression": expression, "pose": away}
        return losses

    def measures(self, network: nn.Module) -> dict[str, float]:
        """Factors and expressions named right, and how far the pose is off: the median, in degrees."""
        assert isinstance(network, Pupils)
        images, truth = self.held_out.take(np.arange(min(200, self.held_out.size)))
        with torch.no_grad(), self.workshop.autocast():
            named, pose = network.told(network.seen(as_input(images, self.workshop.device))[0])
        kinds = true_kinds(truth)
        guessed = {name: logits.argmax(1).cpu().numpy() for name, logits in named.items()}
        right = {name: float((guess == kinds[name])[kinds[name] >= 0].mean()) for name, guess in guessed.items()}
        pitch, yaw, _ = np.median(np.abs(pose.float().cpu().numpy() - truth.pose[:, 0]), axis=0)
        return {**right, "pitch_degrees": float(pitch), "yaw_degrees": float(yaw)}

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """The image encoder's."""
        assert isinstance(network, Pupils)
        return kept(network.vision)

    def take(self, network: nn.Module, weights: dict[str, Tensor]) -> None:
        assert isinstance(network, Pupils)
        super().take(network.vision, weights)
