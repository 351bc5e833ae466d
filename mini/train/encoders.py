"""The encoders' stage: text and pictures to nearby vectors, as CLIP's.

The pictures' encoder also learns who is shown, by naming the person's factors from its patches: what captions from the
web say of people ("a bald man with glasses"), these captions leave out.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks import ROW_IDS, TEXT, VISION, as_seen, parts
from ..person import CHOICES
from ..world import World
from .autoencoder import as_input
from .judge import misnamed, true_kinds
from .loop import Stage, Workshop
from .pictures import Pictures
from .words import Words, words


class Encoders(nn.Module):
    """Text and image encoder in transformers' classes, whose names for weights are the host's."""

    def __init__(self, said: Words):
        super().__init__()
        from transformers import (
            CLIPTextConfig,
            CLIPTextModelWithProjection,
            CLIPVisionConfig,
            CLIPVisionModelWithProjection,
        )

        own = {"vocab_size": len(said.ids) + 1, "eos_token_id": said.end, "bos_token_id": said.start}
        self.text = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT | own, pad_token_id=said.end))
        self.vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION))
        self.logit_scale = nn.Parameter(torch.tensor(2.6))
        self.factors = nn.ModuleDict({name: nn.Linear(VISION["hidden_size"], len(c)) for name, c in CHOICES.items()})

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Token numbers (n, 77) to the text's states (n, 77, 128) and its vector (n, 128)."""
        found = self.text(input_ids=tokens)
        return found.last_hidden_state, found.text_embeds

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (n, 3, H, W) in [0, 1] to the penultimate states (n, 65, 192) and the vector (n, 128)."""
        found = self.vision(pixel_values=as_seen(images), output_hidden_states=True)
        return found.hidden_states[-2], found.image_embeds


def load(workshop: Workshop) -> Encoders:
    network = Encoders(words())
    text, vision = parts(workshop.stored("encoders"))
    network.text.load_state_dict({name: tensor for name, tensor in text.items() if name != ROW_IDS})
    network.vision.load_state_dict(vision)
    return network.to(workshop.device).eval().requires_grad_(False)


class EncodersStage(Stage):
    name = "encoders"
    steps = 2_500
    learning_rate = 1e-3
    weight_decay = 0.05
    batch = 48

    def __init__(self, workshop: Workshop, size: int = 30_000):
        super().__init__(workshop)
        world, held_out = World(seed=1), World(seed=2, held_out_people=True)
        self.portraits = Pictures(workshop.folder, world, 1, size)
        self.pairs = Pictures(workshop.folder, world, 2, size // 2)
        self.trios = Pictures(workshop.folder, world, 3, size // 12)
        self.held_out = Pictures(workshop.folder, held_out, 1, 500)

    def network(self) -> nn.Module:
        return Encoders(words())

    def losses(self, network: nn.Module, step: int, rng: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(network, Encoders)
        device = self.workshop.device
        # Of eight steps two show groups of two and one shows groups of three.
        data, turn = self.portraits, step
        if step % 8 in (1, 5):
            data, turn = self.pairs, step // 4
        elif step % 8 == 3:
            data, turn = self.trios, step // 8
        images, truth = data.batch(turn, self.batch)
        said = words()
        tokens = said.batch(truth.caption.tolist())
        # Words that no caption uses must do no harm: some of the known ones are made unknown.
        missed = (torch.rand(tokens.shape, generator=rng) < 0.02) & (tokens != said.end) & (tokens != said.start)
        tokens = tokens.masked_fill(missed, said.unknown)
        states, image_vector = network.seen(as_input(images, device))
        _, text_vector = network.states(tokens.to(device))
        scale = network.logit_scale.clamp(max=4.6).exp()
        near = scale * F.normalize(image_vector.float(), dim=1) @ F.normalize(text_vector.float(), dim=1).T
        right = torch.arange(len(near), device=device)
        contrast = (F.cross_entropy(near, right) + F.cross_entropy(near.T, right)) / 2
        factors = torch.zeros((), device=device)
        if data is self.portraits:
            patches = states[:, 1:].mean(1)
            kinds = true_kinds(truth)
            for name, head in network.factors.items():
                target = torch.from_numpy(kinds[name]).to(device)
                factors = factors + misnamed(head(patches), target) / len(CHOICES)
        return {"loss": contrast + 0.5 * factors, "contrast": contrast, "factors": factors}

    def captions_told(self, network: Encoders) -> dict[str, float]:
        """How often a held-out picture's own caption is the nearest of 100."""
        images, truth = self.held_out.take(np.arange(min(200, self.held_out.size)))
        with torch.no_grad(), self.workshop.autocast():
            _, pictures = network.seen(as_input(images, self.workshop.device))
            _, texts = network.states(words().batch(truth.caption.tolist()).to(self.workshop.device))
        near = F.normalize(pictures.float(), dim=1) @ F.normalize(texts.float(), dim=1).T
        crowds = [near[i : i + 100, i : i + 100] for i in range(0, len(near), 100)]
        own = [crowd.argmax(1).cpu() == torch.arange(len(crowd)) for crowd in crowds]
        return {"caption_of_100": float(torch.cat(own).float().mean())}

    def measures(self, network: nn.Module) -> dict[str, float]:
        """Captions told apart, and factors named right."""
        assert isinstance(network, Encoders)
        measured = self.captions_told(network)
        images, truth = self.held_out.take(np.arange(min(200, self.held_out.size)))
        with torch.no_grad(), self.workshop.autocast():
            patches = network.seen(as_input(images, self.workshop.device))[0][:, 1:].float().mean(1)
        kinds = true_kinds(truth)
        for name, head in network.factors.items():
            guessed = head(patches).argmax(1).cpu().numpy()
            measured[name] = float((guessed == kinds[name])[kinds[name] >= 0].mean())
        return measured

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """Text and image encoder together, their names apart; the factors' heads are not kept."""
        assert isinstance(network, Encoders)
        state = {**network.text.state_dict(), **network.vision.state_dict()}
        kept = {
            name: tensor.detach().cpu().contiguous() for name, tensor in state.items() if "position_ids" not in name
        }
        return kept | {ROW_IDS: torch.tensor(words().ids)}
