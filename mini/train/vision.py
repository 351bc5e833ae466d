"""The image encoder's stage: pictures and captions to nearby vectors, as CLIP's.

It also learns who is shown, by naming the person's factors from its patches: what captions from the web say of people
("a bald man with glasses"), these captions leave out. The text encoder that it learns beside is not kept: `text` trains
another for it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks import VISION
from ..person import CHOICES
from ..world import World
from .autoencoder import as_input
from .encoders import Encoders, kept
from .judge import misnamed, true_kinds
from .loop import Stage, Workshop
from .pictures import Pictures
from .words import words


class Pupils(Encoders):
    """Both encoders, and the heads that name factors."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(2.6))
        self.factors = nn.ModuleDict({name: nn.Linear(VISION["hidden_size"], len(c)) for name, c in CHOICES.items()})


def contrast(scale: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    """CLIP's loss of vectors (n, 128): each picture's own caption among all, and each caption's picture."""
    near = scale.clamp(max=4.6).exp() * F.normalize(images.float(), dim=1) @ F.normalize(texts.float(), dim=1).T
    right = torch.arange(len(near), device=near.device)
    return (F.cross_entropy(near, right) + F.cross_entropy(near.T, right)) / 2


class VisionStage(Stage):
    name = "vision"
    steps = 4_200
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
        # Of eight steps two show groups of two and one shows groups of three.
        data, turn = self.portraits, step
        if step % 8 in (1, 5):
            data, turn = self.pairs, step // 4
        elif step % 8 == 3:
            data, turn = self.trios, step // 8
        images, truth = data.batch(turn, self.batch)
        states, image_vector = network.seen(as_input(images, device))
        _, text_vector = network.states(words().batch(truth.caption.tolist()).to(device))
        alike = contrast(network.logit_scale, image_vector, text_vector)
        factors = torch.zeros((), device=device)
        if data is self.portraits:
            patches = states[:, 1:].mean(1)
            kinds = true_kinds(truth)
            for name, head in network.factors.items():
                target = torch.from_numpy(kinds[name]).to(device)
                factors = factors + misnamed(head(patches), target) / len(CHOICES)
        return {"loss": alike + 0.5 * factors, "contrast": alike, "factors": factors}

    def measures(self, network: nn.Module) -> dict[str, float]:
        """Factors named right."""
        assert isinstance(network, Pupils)
        images, truth = self.held_out.take(np.arange(min(200, self.held_out.size)))
        with torch.no_grad(), self.workshop.autocast():
            patches = network.seen(as_input(images, self.workshop.device))[0][:, 1:].float().mean(1)
        kinds = true_kinds(truth)
        guessed = {name: head(patches).argmax(1).cpu().numpy() for name, head in network.factors.items()}
        return {name: float((guess == kinds[name])[kinds[name] >= 0].mean()) for name, guess in guessed.items()}

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """The image encoder's."""
        assert isinstance(network, Pupils)
        return kept(network.vision)

    def take(self, network: nn.Module, weights: dict[str, Tensor]) -> None:
        assert isinstance(network, Pupils)
        super().take(network.vision, weights)
