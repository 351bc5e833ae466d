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
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from ..checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ..identity.encoder import FaceEncoder
from ..imr.landmarks import keypoint_image
from ..imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from ..saa.bases import BASES
from .base_networks import BaseNetworks
from .config import ReconfigurationConfig
from .denoise import predict_noise, sample_images, sheet
from .latents import Latents
from .losses import info_nce
from .rng import randint, seeded_generator
from .saa import SAA
from .shards import Shards, numbers_of
from .trainer import Log, Stage, cpu_weights


@dataclass(frozen=True, eq=False)
class Motions:
    """What n images show: tokens (n, T, D), keypoint images (n, 1, 96, 96), pooled face prompts (n, P)."""

    tokens: Tensor
    keypoints: Tensor
    text: Tensor


@dataclass(frozen=True, eq=False)
class ReconfigurationBatch:
    """p people's sources (p rows) and targets (p * m rows, person after person).

    Attributes:
        noisy, timesteps: the images of each person's first k targets, noised (p * k rows).
    """

    source: Motions
    target: Motions
    noisy: Tensor
    timesteps: Tensor


class ReconfigurationLoss(nn.Module):
    """Tokens as they should be, the same prediction by the base model, and the contrastive term where it weighs."""

    def __init__(self, base: BaseNetworks, trained: nn.ModuleDict, config: ReconfigurationConfig) -> None:
        super().__init__()
        self.trained = trained
        self._base, self._config = base, config
        self._text = base.text([config.text])

    def forward(self, batch: ReconfigurationBatch) -> dict[str, Tensor]:
        config, imr = self._config, self.trained["imr"]
        assert isinstance(imr, IdentityMotionReconfigurator)
        people = len(batch.source.tokens)
        # One pass, so that the normalizations see sources and targets together.
        keypoints = self.trained["keypoint_encoder"](torch.cat([batch.source.keypoints, batch.target.keypoints]))
        source, target = (keypoints[:people], batch.source.text), (keypoints[people:], batch.target.text)
        identity = imr.disentangle(batch.source.tokens, source)
        tokens = imr.entangle(identity, target)
        # L = || T - T* ||^2 + lambda || eps(T) - eps(T*) ||^2 + mu InfoNCE (DynamicID, section 3.4; the last is ours).
        losses = {"tokens": F.mse_loss(tokens.float(), batch.target.tokens)}
        loss = losses["tokens"]
        if config.consistency_weight:
            losses["consistency"] = self._consistency(batch, tokens)
            loss = loss + config.consistency_weight * losses["consistency"]
        if config.contrastive_weight:
            first = slice(0, None, len(batch.target.tokens) // people)
            other = imr.disentangle(batch.target.tokens[first], (target[0][first], target[1][first]))
            losses["contrast"] = contrastive(identity, other, config.temperature)
            loss = loss + config.contrastive_weight * losses["contrast"]
        return {"loss": loss, **losses}

    def _consistency(self, batch: ReconfigurationBatch, tokens: Tensor) -> Tensor:
        config, base, people = self._config, self._base, len(batch.source.tokens)
        each = len(batch.noisy) // people
        # (p m) t d -> (p k) t d: the first k targets of each person.
        true, edited = (
            rearrange(rearrange(x, "(p m) t d -> p m t d", p=people)[:, :each], "p k t d -> (p k) t d")
            for x in (batch.target.tokens, tokens)
        )
        inputs = (base, batch.noisy, batch.timesteps, self._text.expand(len(batch.noisy)))
        with torch.no_grad():
            true_noise = predict_noise(*inputs, true, config)
        noise = predict_noise(*inputs, edited, config)
        weight = base.timestep_weights(batch.timesteps, config)
        return (weight * (noise.float() - true_noise.float()).square().mean((1, 2, 3))).mean()


def contrastive(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE of identities (n, T, W): row i of both is one person's, in two motions; the rest are not."""
    first, second = (F.normalize(x.flatten(1).float(), dim=1) for x in (one, other))
    return info_nce(first @ second.T / temperature)


class Reconfiguration(Stage[nn.ModuleDict]):
    """The reconfiguration stage on a base model and shards of several images of each person."""

    name = "reconfiguration"
    config: ReconfigurationConfig

    def __init__(self, config: ReconfigurationConfig, base: BaseNetworks, shards: Shards, processes: int = 1) -> None:
        """Raises ValueError when the adapter, the base model, the data and the configuration don't fit one another."""
        if config.contrastive_weight and config.people < 2 * processes:
            raise ValueError(
                f"the contrastive term compares people: {config.people} a step on {processes} processes are too few. "
                f"Set people to {2 * processes} or more, or contrastive_weight to 0."
            )
        self._frozen = load_checkpoint(config.adapter)
        if self._frozen.adapter is None or self._frozen.face_encoder is None:
            raise ValueError(f"{config.adapter} holds no SAA and face encoder: train them first (anchor).")
        if self._frozen.adapter.base != base.base:
            raise ValueError(
                f"{config.adapter} was trained for {BASES[self._frozen.adapter.base].title}, and {config.base} is "
                f"{BASES[base.base].title}. Name the adapter's own base model."
            )
        base.check(config)
        self.config, self.folder, self.rows = config, config.output, config.people
        self._base, self._shards = base, shards
        self._latents = Latents(base, shards, config.size, config.latent_cache)
        device, adapter = base.device, self._frozen.adapter
        saa = SAA.of(base.network, adapter.rank, adapter.token_dim, adapter.identity_blocks)
        saa.load_state_dict({name: tensor.float() for name, tensor in adapter.weights.items()})
        saa.to(device).requires_grad_(False).install(base.network)
        torch.manual_seed(seeded_generator(config.seed, -1, -1).initial_seed() % 2**31)
        encoder = KeypointEncoder(config.keypoint_dims, config.keypoint_depths, config.keypoint_output)
        imr = IdentityMotionReconfigurator(
            adapter.token_dim, config.keypoint_output + base.pooled_dim, config.dim,
            config.latents, config.depth, config.dim_head,
        )  # fmt: skip
        self.trained = nn.ModuleDict({"imr": imr, "keypoint_encoder": encoder}).to(device)
        if config.gradient_checkpointing:
            base.checkpoint_activations()
        # Each alone, so that it is the same whatever came before.
        self._pooled = lru_cache(maxsize=4096)(lambda prompt: base.text([prompt]).pooled[0])
        self.module = ReconfigurationLoss(base, self.trained, config)

    def prepare(self, log: Log, process: int, processes: int) -> None:
        if self.config.consistency_weight:
            self._latents.encode(log, process, processes)

    def losses(self, module: nn.Module, step: int, rows: Sequence[int]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = module(self.batch(step, rows))
        return losses

    # --- batches ----------------------------------------------------------------------------------------------------

    @cached_property
    def _people(self) -> list[list[int]]:
        """The samples of each person, those with several."""
        people = [numbers for numbers in self._shards.of_person.values() if len(numbers) > 1]
        if not people:
            raise ValueError("expected people with several images each, found none. Build the data again.")
        return people

    def batch(self, step: int, rows: Sequence[int]) -> ReconfigurationBatch:
        """Return these people of a step's batch, which follow from seed, step and row alone."""
        config, base = self.config, self._base
        sources: list[int] = []
        targets: list[int] = []
        noised: list[int] = []
        generators: list[torch.Generator] = []
        for row, number in zip(
            rows, numbers_of(step, config.people, len(self._people), config.seed)[list(rows)], strict=True
        ):
            rng, samples = seeded_generator(config.seed, step, row), self._people[int(number)]
            sources.append(samples[randint(rng, len(samples))])
            drawn = [samples[randint(rng, len(samples))] for _ in range(config.targets)]
            targets += drawn
            noised += drawn[: config.consistency_targets or None]
            generators += [rng] * (len(noised) - len(generators))
        if config.consistency_weight:
            latents = self._latents.sample(noised, generators)
        else:
            latents = torch.zeros(len(noised), 4, 1, 1, device=base.device)
        noisy, _, timesteps = base.noise(latents, generators, config)
        return ReconfigurationBatch(self._motions(sources), self._motions(targets), noisy, timesteps)

    def _motions(self, numbers: Sequence[int]) -> Motions:
        shards, device = self._shards, self._base.device
        tokens = torch.stack([torch.from_numpy(shards.array(number, "tokens")).float() for number in numbers])
        landmarks = [shards.array(number, "landmarks").astype(np.float64) for number in numbers]
        images = torch.stack([torch.from_numpy(keypoint_image(points)).float() for points in landmarks])
        pooled = torch.stack([self._pooled(shards.text(number)) for number in numbers])
        return Motions(tokens.to(device), (images[:, None] / 127.5 - 1).to(device), pooled)

    # --- results ----------------------------------------------------------------------------------------------------

    def write(self, trained: nn.ModuleDict, step: int = 0, seconds: float = 0.0) -> Path:
        """Write one file with all parts: the frozen ones too."""
        imr, encoder = cpu_weights(trained["imr"]), cpu_weights(trained["keypoint_encoder"])
        path = self.folder / f"{self.name}.safetensors"
        save_checkpoint(Checkpoint(self._frozen.adapter, self._frozen.face_encoder, imr, encoder), path)
        return path

    @torch.no_grad()
    def samples(self, trained: nn.ModuleDict) -> NDArray[np.uint8]:
        """Return images of one person; drawn from their own tokens; drawn from tokens edited from the first's."""
        config, base = self.config, self._base
        device, numbers = base.device, self._people[0][: config.num_samples]
        motions = self._motions(numbers)
        imr = trained["imr"]
        assert isinstance(imr, IdentityMotionReconfigurator) and self._frozen.face_encoder is not None
        keypoints = trained["keypoint_encoder"].eval()(motions.keypoints)
        edited = imr(motions.tokens[:1], (keypoints[:1], motions.text[:1]), (keypoints, motions.text))
        encoder = FaceEncoder.from_weights(self._frozen.face_encoder, dim_head=config.dim_head).to(device)
        negative = encoder(torch.zeros(1, encoder.embedding_dim, device=device), base.negative_states())
        images = torch.stack([self._shards.image(number, config.size) for number in numbers]).to(device)
        prompts = [config.text] * len(numbers)
        drawn = [
            sample_images(base, tokens, negative, prompts, images.shape[2:], config)
            for tokens in (motions.tokens, edited)
        ]
        return sheet(images, *drawn)
