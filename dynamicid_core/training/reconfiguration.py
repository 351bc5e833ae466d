"""The reconfiguration stage: IMR learns to change the motion in identity tokens (DynamicID, section 3.4).

SAA and the face encoder are frozen; tokens come from the data, where the face encoder's were cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ..identity.encoder import FaceEncoder
from ..imr.landmarks import keypoint_image
from ..imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from .base_model import BaseNetworks
from .config import ReconfigurationConfig
from .denoise import predict_noise, sample_images, side_by_side
from .latents import Latents
from .saa import SAA
from .shards import Shards, numbers_of
from .stage import Say, Stage, chance, draw

SHOWN = 4  # wanted motions in a sample picture


@dataclass(frozen=True, eq=False)
class Motions:
    """What n pictures show: tokens (n, T, D), keypoint pictures (n, 1, 96, 96), pooled face prompts (n, P)."""

    tokens: Tensor
    keypoints: Tensor
    text: Tensor


@dataclass(frozen=True, eq=False)
class ReconfigurationBatch:
    """p people's sources (p rows) and targets (p * m rows, person after person).

    Attributes:
        noisy, times: the pictures of each person's first k targets, noised (p * k rows).
    """

    source: Motions
    target: Motions
    noisy: Tensor
    times: Tensor


class ReconfigurationLoss(nn.Module):
    """Tokens as they should be, the same prediction by the frozen UNet, and the contrastive term where asked for."""

    def __init__(self, base: BaseNetworks, trained: nn.ModuleDict, text: Tensor, recipe: ReconfigurationConfig) -> None:
        super().__init__()
        self.trained = trained
        self._base, self._text, self._recipe = base, text, recipe

    def forward(self, batch: ReconfigurationBatch) -> dict[str, Tensor]:
        recipe, imr = self._recipe, self.trained["imr"]
        assert isinstance(imr, IdentityMotionReconfigurator)
        people = len(batch.source.tokens)
        # One pass, so that the normalisations see sources and targets together.
        keypoints = self.trained["keypoint_encoder"](torch.cat([batch.source.keypoints, batch.target.keypoints]))
        source, target = (keypoints[:people], batch.source.text), (keypoints[people:], batch.target.text)
        identity = imr.disentangle(batch.source.tokens, source)
        found = imr.entangle(identity, target)
        losses = {"tokens": F.mse_loss(found.float(), batch.target.tokens)}
        loss = losses["tokens"]
        if recipe.consistency:
            losses["consistency"] = self._consistency(batch, found)
            loss = loss + recipe.consistency * losses["consistency"]
        if recipe.contrast:
            every = len(batch.target.tokens) // people
            first = slice(0, None, every)
            other = imr.disentangle(batch.target.tokens[first], (target[0][first], target[1][first]))
            losses["contrast"] = contrastive(identity, other, recipe.temperature)
            loss = loss + recipe.contrast * losses["contrast"]
        return {"loss": loss, **losses}

    def _consistency(self, batch: ReconfigurationBatch, found: Tensor) -> Tensor:
        recipe, base = self._recipe, self._base
        people = len(batch.source.tokens)
        asked, said = (_first(tokens, people, len(batch.noisy) // people) for tokens in (batch.target.tokens, found))
        text = self._text.expand(len(batch.noisy), -1, -1)
        given = (base, batch.noisy, batch.times, text)
        with torch.no_grad():
            true = predict_noise(*given, asked, recipe.gate, recipe.gate_threshold)
        noise = predict_noise(*given, said, recipe.gate, recipe.gate_threshold)
        weight = base.weight_of_times(batch.times, recipe.darkest, recipe.clearest)
        return (weight * (noise.float() - true.float()).square().mean((1, 2, 3))).mean()


def _first(rows: Tensor, people: int, count: int) -> Tensor:
    """The first `count` rows of each of so many people, whose rows follow each other."""
    return rows.unflatten(0, (people, -1))[:, :count].flatten(0, 1)


def contrastive(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """InfoNCE both ways: row i of `one` and of `other` (n, T, W) are one person's, in two motions; the rest are not."""
    first, second = (F.normalize(x.flatten(1).float(), dim=1) for x in (one, other))
    alike = first @ second.T / temperature
    same = torch.arange(len(alike), device=alike.device)
    return (F.cross_entropy(alike, same) + F.cross_entropy(alike.T, same)) / 2


class Reconfiguration(Stage):
    name = "reconfiguration"
    recipe: ReconfigurationConfig

    def __init__(self, recipe: ReconfigurationConfig, base: BaseNetworks, shards: Shards, processes: int = 1) -> None:
        """Raises ValueError when the adapter, the base model, the data and the recipe don't fit one another."""
        if recipe.contrast and recipe.people < 2 * processes:
            raise ValueError(
                f"the contrastive term compares people: {recipe.people} a step on {processes} processes are too few. "
                f"Set people to {2 * processes} or more, or contrast to 0."
            )
        self._frozen = load_checkpoint(recipe.adapter)
        if self._frozen.adapter is None or self._frozen.face_encoder is None:
            raise ValueError(f"{recipe.adapter} holds no SAA and face encoder: train them first (anchor).")
        self.recipe, self._base, self._shards = recipe, base, shards
        self._latents = Latents(base, shards, recipe.size, recipe.latent_cache)
        self.rows = recipe.people
        device, adapter = base.unet.device, self._frozen.adapter
        saa = SAA.of(base.unet, adapter.rank, adapter.token_dim)
        saa.load_state_dict({name: tensor.float() for name, tensor in adapter.weights.items()})
        saa.to(device).requires_grad_(False).install(base.unet)
        torch.manual_seed(chance(recipe.seed, -1).initial_seed() % 2**31)
        encoder = KeypointEncoder(recipe.keypoint_widths, recipe.keypoint_depths, recipe.keypoint_output)
        imr = IdentityMotionReconfigurator(
            adapter.token_dim, recipe.keypoint_output + base.text_encoder.config.hidden_size, recipe.width,
            recipe.latents, recipe.depth, recipe.dim_head,
        )  # fmt: skip
        self.trained = nn.ModuleDict({"imr": imr, "keypoint_encoder": encoder}).to(device)
        if recipe.checkpointing:
            base.checkpoint_activations()
        # Each alone, so that it is the same whatever was asked before.
        self._pooled = lru_cache(maxsize=4096)(lambda prompt: base.text([prompt])[1][0])
        self.module = ReconfigurationLoss(base, self.trained, base.text([recipe.text])[0], recipe)

    def prepare(self, say: Say, process: int, processes: int) -> None:
        if self.recipe.consistency:
            self._latents.encode(say, process, processes)

    # --- batches ----------------------------------------------------------------------------------------------------

    @cached_property
    def _people(self) -> list[list[int]]:
        """The samples of each person, those with several."""
        found = [numbers for numbers in self._shards.of_person.values() if len(numbers) > 1]
        if not found:
            raise ValueError("expected people with several pictures each, found none. Build the data again.")
        return found

    def batch(self, step: int, rows: Sequence[int], device: torch.device) -> ReconfigurationBatch:
        recipe, base = self.recipe, self._base
        whose = numbers_of(step, recipe.people, len(self._people), recipe.seed)[list(rows)]
        sources: list[int] = []
        targets: list[int] = []
        noised: list[int] = []
        chances = [chance(recipe.seed, step, row) for row in rows]
        for who, rng in zip(whose, chances, strict=True):
            own = self._people[int(who)]
            sources.append(own[draw(rng, len(own))])
            drawn = [own[draw(rng, len(own))] for _ in range(recipe.targets)]
            targets += drawn
            noised += drawn[: recipe.consistent or None]
        repeated = [rng for rng in chances for _ in range(len(noised) // len(chances))]
        if recipe.consistency:
            latents = self._latents.draw(noised, repeated)
        else:
            latents = torch.zeros(len(noised), 4, 1, 1, device=device)
        times = torch.stack([torch.randint(1000, (), generator=rng) for rng in repeated]).to(device)
        noise = torch.stack([torch.randn(latents.shape[1:], generator=rng) for rng in repeated]).to(device)
        noisy = base.noised(latents, noise, times)
        return ReconfigurationBatch(self._motions(sources, device), self._motions(targets, device), noisy, times)

    def _motions(self, numbers: Sequence[int], device: torch.device) -> Motions:
        shards = self._shards
        tokens = torch.stack([torch.from_numpy(shards.array(number, "tokens")).float() for number in numbers])
        landmarks = [shards.array(number, "landmarks").astype(np.float64) for number in numbers]
        pictures = torch.stack([torch.from_numpy(keypoint_image(points)).float() for points in landmarks])
        pooled = torch.stack([self._pooled(shards.text(number)) for number in numbers])
        return Motions(tokens.to(device), (pictures[:, None] / 127.5 - 1).to(device), pooled)

    # --- results ----------------------------------------------------------------------------------------------------

    def write(self, trained: nn.ModuleDict, path: Path) -> None:
        """One file with all parts: the frozen ones too."""
        imr, encoder = (
            {name: tensor.detach().cpu() for name, tensor in trained[part].state_dict().items()}
            for part in ("imr", "keypoint_encoder")
        )
        save_checkpoint(Checkpoint(self._frozen.adapter, self._frozen.face_encoder, imr, encoder), path)

    @torch.no_grad()
    def samples(self, trained: nn.ModuleDict) -> Tensor:
        """Pictures of one person; drawn from their own tokens; drawn from tokens edited from the first's."""
        recipe, base = self.recipe, self._base
        device, numbers = base.unet.device, self._people[0][:SHOWN]
        shown = self._motions(numbers, device)
        imr = trained["imr"]
        assert isinstance(imr, IdentityMotionReconfigurator) and self._frozen.face_encoder is not None
        keypoints = trained["keypoint_encoder"].eval()(shown.keypoints)
        edited = imr(shown.tokens[:1], (keypoints[:1], shown.text[:1]), (keypoints, shown.text))
        encoder = FaceEncoder.from_weights(self._frozen.face_encoder, dim_head=recipe.dim_head).to(device)
        nobody = encoder(torch.zeros(1, encoder.embedding_dim, device=device), base.blank_states())
        images = torch.stack([self._shards.picture(number, recipe.size) for number in numbers]).to(device)
        prompts = [recipe.text] * len(numbers)
        drawn = [
            sample_images(base, tokens, nobody, prompts, images.shape[2:], recipe.gate, recipe.gate_threshold)
            for tokens in (shown.tokens, edited)
        ]
        return torch.cat([side_by_side(row) for row in (images, *drawn)], dim=1)
