"""The encoders' stage: text and pictures to nearby vectors, as CLIP's.

The pictures' encoder also learns who is shown, by naming the person's factors from its patches: what captions from the
web say of people ("a bald man with glasses"), these captions leave out. The text's encoder learns to keep at every word
which word it is and of whom it speaks: contrast alone is content with places and colours, and what a state does not
tell (a garment, an expression), no UNet can draw.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks import CONTEXT, ROW_IDS, TEXT, VISION, as_seen, parts
from ..person import CHOICES
from ..world import World
from .autoencoder import as_input
from .judge import misnamed, true_kinds
from .loop import Stage, Workshop
from .pictures import Pictures
from .words import SPOKEN_OF, Words, words

SHARPNESS = 7.0  # of the choice among words by their angles to a state


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
        self.word = nn.Linear(CONTEXT, len(said.ids) + 1, bias=False)
        self.whom = nn.Linear(CONTEXT, SPOKEN_OF, bias=False)

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Token numbers (n, 77) to the text's states (n, 77, 128) and its vector (n, 128)."""
        found = self.text(input_ids=tokens)
        return found.last_hidden_state, found.text_embeds

    def seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (n, 3, H, W) in [0, 1] to the penultimate states (n, 65, 192) and the vector (n, 128)."""
        found = self.vision(pixel_values=as_seen(images), output_hidden_states=True)
        return found.hidden_states[-2], found.image_embeds

    def take(self, weights: dict[str, Tensor]) -> None:
        """Load what the stage stored; the heads stay as they are."""
        text, vision = parts(weights)
        self.text.load_state_dict({name: tensor for name, tensor in text.items() if name != ROW_IDS})
        self.vision.load_state_dict(vision)

    def told(self, states: Tensor, tokens: Tensor) -> Tensor:
        """How badly the states (n, 77, 128) of these tokens (n, 77) tell their words and whom those speak of."""
        said = words()
        inner = (tokens != said.start) & (tokens != said.end)
        own = F.normalize(states[inner].float(), dim=1)
        wrong = torch.zeros((), device=states.device)
        for head, true in ((self.word, tokens), (self.whom, said.spoken_of(tokens))):
            # By angle alone: what is told must be a large part of the state, not one that large weights find in it.
            near = SHARPNESS * own @ F.normalize(head.weight.float(), dim=1).T
            wrong = wrong + F.cross_entropy(near, true[inner])
        return wrong


def load(workshop: Workshop) -> Encoders:
    network = Encoders(words())
    network.take(workshop.stored("encoders"))
    return network.to(workshop.device).eval().requires_grad_(False)


class EncodersStage(Stage):
    name = "encoders"
    steps = 3_600
    learning_rate = 1e-3
    weight_decay = 0.05
    batch = 48

    def __init__(self, workshop: Workshop, size: int = 12_000):
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
        tokens = tokens.to(device)
        text_states, text_vector = network.states(tokens)
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
        told = network.told(text_states, tokens)
        return {
            "loss": contrast + 0.5 * factors + 0.5 * told,
            "contrast": contrast,
            "factors": factors,
            "told": told,
        }

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
        """Text and image encoder together, their names apart; the heads are not kept."""
        assert isinstance(network, Encoders)
        state = {**network.text.state_dict(), **network.vision.state_dict()}
        kept = {
            name: tensor.detach().cpu().contiguous() for name, tensor in state.items() if "position_ids" not in name
        }
        return kept | {ROW_IDS: torch.tensor(words().ids)}

    def take(self, network: nn.Module, weights: dict[str, Tensor]) -> None:
        assert isinstance(network, Encoders)
        network.take(weights)
