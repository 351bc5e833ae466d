"""The text's stage: a text encoder for the image encoder that there is, whose states tell all that a caption says.

Contrast alone is content with what tells most pictures apart, places and colours. What the states leave out, a garment
or an expression, no UNet can draw and no reconfigurator can ask for. So every word's state learns to keep which word it
is and of whom it speaks, and the end's, with all that fill the row up behind it, the whole caption. The image encoder
stays as it is (locked-image tuning, arXiv 2111.07991).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks import CONTEXT_DIM, ROW_IDS
from ..world.world import World
from . import encoders
from .autoencoder import as_input
from .judge import misnamed
from .pictures import Pictures, numbers_of, places
from .stage import Stage, StageConfig, TrainContext
from .vision import contrastive_loss
from .words import SAYINGS, SPOKEN_OF, labels_of, words

WORD, END = 7.0, 20.0  # sharpness of choices by angle: a word's state tells two things, the end's up to seventeen


class Choice(nn.Module):
    """Directions of states, one for each thing that a state may tell; which it tells is read off the angles alone.

    So what is told must be a large part of a state, not one that large weights find in it.
    """

    def __init__(self, choices: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(choices, CONTEXT_DIM).uniform_(-1, 1) / CONTEXT_DIM**0.5)

    def forward(self, states: Tensor) -> Tensor:
        """Return cosines (n, choices) of states (n, 128)."""
        return F.normalize(states.float(), dim=1) @ F.normalize(self.weight.float(), dim=1).T

    def misread(self, states: Tensor, true: Tensor, sharpness: float) -> Tensor:
        """Return the cross entropy of the choice, where there is one to be made (`true` (n,) is not -1)."""
        return misnamed(sharpness * self(states), true)


class Reader(nn.Module):
    """A text encoder, and heads that read its states while it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.text = encoders.text_model()
        self.logit_scale = nn.Parameter(torch.tensor(2.6))
        self.word, self.whom = Choice(len(words().ids) + 1), Choice(SPOKEN_OF)
        self.sayings = nn.ModuleDict({name: Choice(len(choices)) for name, choices in SAYINGS.items()})

    def told(self, states: Tensor, tokens: Tensor, captions: Sequence[str], rng: torch.Generator) -> dict[str, Tensor]:
        """Return how badly the states (n, 77, 128) of tokens (n, 77) tell what they should.

        A word's: which word it is, and of whom it speaks. The end's, and one drawn of those behind it: everything.
        """
        vocabulary = words()
        inner = (tokens != vocabulary.start) & (tokens != vocabulary.end)
        kept = self.word.misread(states[inner], tokens[inner], WORD)
        kept = kept + self.whom.misread(states[inner], vocabulary.spoken_of(tokens)[inner], WORD)
        row, end = torch.arange(len(tokens), device=tokens.device), (tokens == vocabulary.end).int().argmax(1)
        later = end + (torch.rand(len(tokens), generator=rng).to(end.device) * (tokens.shape[1] - end)).long()
        labels = {name: label.to(tokens.device) for name, label in labels_of(captions).items()}
        wrong = [
            head.misread(own, labels[name], END)
            for own in (states[row, end], states[row, later])
            for name, head in self.sayings.items()
            if isinstance(head, Choice)
        ]
        return {"words": kept, "whole": torch.stack(wrong).sum() / len(self.sayings)}


class TextStage(Stage[Reader]):
    name = "text"
    config = StageConfig(steps=1_600, learning_rate=1e-3, weight_decay=0.02, ema_decay=0.995)
    network = Reader
    channels_last = False
    batch = 64

    def __init__(self, context: TrainContext, size: int = 12_000):
        super().__init__(context)
        self.vision = encoders.load_vision(context)
        world = World(seed=1)
        self.data = [Pictures(context.folder, world, count, size // share) for count, share in ((1, 1), (2, 2), (3, 6))]
        self.held_out = Pictures(context.folder, World(seed=2, held_out_people=True), 1, 500)
        self._seen = lru_cache(maxsize=512)(self._shard)

    def _shard(self, source: Pictures, shard: int) -> Tensor:
        """Return the image encoder's vectors (n, 128) of a shard's images."""
        images = np.array(source.shard(shard)[0])
        with torch.no_grad(), self.context.autocast():
            inputs = [as_input(images[i : i + 50], self.context.device) for i in range(0, len(images), 50)]
            return torch.cat([encoders.see(self.vision, part)[1] for part in inputs]).float()

    def step_losses(self, network: Reader, step: int, rng: torch.Generator) -> dict[str, Tensor]:
        # Of six steps three show portraits, two groups of two, one groups of three.
        kind = (0, 1, 0, 1, 0, 2)[step % 6]
        source, vocabulary = self.data[kind], words()
        at = places(numbers_of(step, self.batch, source.size))
        seen = torch.stack([self._seen(source, shard)[i] for shard, i in at])
        captions = [str(source.shard(shard)[1].caption[i]) for shard, i in at]
        tokens = vocabulary.batch(captions)
        # Words that no caption uses must do no harm: some of the known ones are made unknown.
        inner = (tokens != vocabulary.end) & (tokens != vocabulary.start)
        missed = (torch.rand(tokens.shape, generator=rng) < 0.02) & inner
        tokens = tokens.masked_fill(missed, vocabulary.unknown).to(self.context.device)
        states, vectors = encoders.read(network.text, tokens)
        alike = contrastive_loss(network.logit_scale, seen, vectors)
        told = network.told(states, tokens, captions, rng)
        return {"loss": 0.5 * alike + 0.5 * told["words"] + told["whole"], "contrast": alike, **told}

    def captions_told(self, text: nn.Module) -> dict[str, float]:
        """Return how often a held-out image's own caption is the nearest of 100."""
        images, truth = self.held_out.take(np.arange(min(200, self.held_out.size)))
        with torch.no_grad(), self.context.autocast():
            _, seen = encoders.see(self.vision, as_input(images, self.context.device))
            _, texts = encoders.read(text, words().batch(truth.caption.tolist()).to(self.context.device))
        near = F.normalize(seen.float(), dim=1) @ F.normalize(texts.float(), dim=1).T
        crowds = [near[i : i + 100, i : i + 100] for i in range(0, len(near), 100)]
        own = [crowd.argmax(1).cpu() == torch.arange(len(crowd)) for crowd in crowds]
        return {"caption_of_100": float(torch.cat(own).float().mean())}

    def measures(self, network: Reader) -> dict[str, float]:
        """Return how often captions are told apart, and what the heads read off the end's states of captions."""
        measured = self.captions_told(network.text)
        world = World(seed=2, held_out_people=True, omit_prob=0.0)
        for count in (1, 2, 3):
            captions = [world.sample(i, count).caption for i in range(200)]
            tokens = words().batch(captions).to(self.context.device)
            with torch.no_grad(), self.context.autocast():
                own = encoders.read(network.text, tokens)[0][:, -1].float()
            for name, true in labels_of(captions).items():
                if (true >= 0).any():
                    guess = network.sayings[name](own).argmax(1).cpu()
                    measured[f"{name} of {count}"] = float((guess == true)[true >= 0].float().mean())
        return measured

    def kept(self, network: Reader) -> nn.Module:
        return network.text

    def weights(self, network: Reader) -> dict[str, Tensor]:
        """Return the text encoder's weights and the numbers of its tokens; the heads are not kept."""
        return super().weights(network) | {ROW_IDS: torch.tensor(words().ids)}
