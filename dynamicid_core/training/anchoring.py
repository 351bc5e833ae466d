"""The anchoring stage: SAA and the face encoder learn to draw the person of a reference (DynamicID, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..box import Box
from ..checkpoint import Checkpoint, save_checkpoint
from ..identity.encoder import FaceEncoder
from ..saa.adapter import adapter_from_weights
from ..state_dict import fingerprint
from .base_networks import BaseNetworks, TextStates
from .config import AnchoringConfig
from .denoise import predict_noise, sample_images, sheet
from .latents import Latents
from .rng import randint, seeded_generator
from .saa import SAA
from .shards import Shards, numbers_of
from .trainer import Log, Stage, cpu_weights


@dataclass(frozen=True, eq=False)
class AnchoringBatch:
    """Rows of images, noised, and who is in them.

    Attributes:
        noisy, target: (n, C, h, w); the target is what is to be predicted.
        timesteps: (n,)
        text: the empty prompt's where the text is dropped.
        embedding: (n, 512); zeros where the person is dropped.
        states: (n, N, W) CLIP's; of zero pixels where the person is dropped.
        weight: (n, 1, h, w) of a cell in the loss; a row's mean is its timestep's.
    """

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    text: TextStates
    embedding: Tensor
    states: Tensor
    weight: Tensor


class AnchoringLoss(nn.Module):
    """The squared error of what the base model predicts with SAA and the encoded person."""

    def __init__(self, base: BaseNetworks, trained: nn.ModuleDict, config: AnchoringConfig) -> None:
        super().__init__()
        self.trained = trained
        self._base, self._config = base, config

    def forward(self, batch: AnchoringBatch) -> dict[str, Tensor]:
        tokens = self.trained["face_encoder"](batch.embedding, batch.states)
        prediction = predict_noise(self._base, batch.noisy, batch.timesteps, batch.text, tokens, self._config)
        # E || eps - eps_theta(z_t, t, text, tokens) ||^2, by cell and timestep; of a flow, eps - z for eps.
        return {"loss": (batch.weight * (prediction.float() - batch.target).square()).mean()}


class Anchoring(Stage[nn.ModuleDict]):
    """The anchoring stage on a base model and shards of images of one person each."""

    name = "anchoring"
    config: AnchoringConfig

    def __init__(self, config: AnchoringConfig, base: BaseNetworks, shards: Shards) -> None:
        """Raises ValueError when base model and configuration don't fit each other."""
        base.check(config)
        torch.manual_seed(seeded_generator(config.seed, -1, -1).initial_seed() % 2**31)
        saa = SAA.of(base.network, config.rank, base.token_dim, config.identity_blocks)
        encoder = FaceEncoder(
            hidden_dim=config.hidden_dim, clip_dim=base.image_encoder.config.hidden_size,
            dim=base.token_dim, tokens=config.tokens, depth=config.depth, dim_head=config.dim_head,
        )  # fmt: skip
        self.config, self.folder, self.rows = config, config.output, config.batch
        self._base, self._shards = base, shards
        self._latents = Latents(base, shards, config.size, config.latent_cache)
        self.trained = nn.ModuleDict({"saa": saa, "face_encoder": encoder}).to(base.device)
        saa.install(base.network)
        if config.gradient_checkpointing:
            base.checkpoint_activations()
        self.module = AnchoringLoss(base, self.trained, config)
        self._negative_states = base.negative_states()

    def prepare(self, log: Log, process: int, processes: int) -> None:
        self._latents.encode(log, process, processes)

    def losses(self, module: nn.Module, step: int, rows: Sequence[int]) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = module(self.batch(step, rows))
        return losses

    # --- batches ----------------------------------------------------------------------------------------------------

    def batch(self, step: int, rows: Sequence[int]) -> AnchoringBatch:
        """Return these rows of a step's batch, which follow from seed, step and row alone."""
        config, base, shards = self.config, self._base, self._shards
        device = base.device
        numbers = [int(number) for number in numbers_of(step, config.batch, len(shards), config.seed)[list(rows)]]
        generators = [seeded_generator(config.seed, step, row) for row in rows]
        no_person, no_text = zip(*(self._dropped(rng) for rng in generators), strict=True)
        references = [self._reference(number, rng) for number, rng in zip(numbers, generators, strict=True)]
        latents = self._latents.sample(numbers, generators)
        noisy, target, timesteps = base.noise(latents, generators, config)
        embedding, images = self._faces(references)
        dropped = torch.tensor(no_person, device=device)[:, None]
        embedding = torch.where(dropped, 0.0, embedding)
        states = torch.where(dropped[..., None], self._negative_states, base.image_states(images))
        captions = [shards.caption(number) for number in numbers]
        text = base.text(["" if drop else caption for drop, caption in zip(no_text, captions, strict=True)])
        weight = torch.stack([self._face_weight(number, latents.shape[2:]) for number in numbers]).to(device)
        weight = weight * base.timestep_weights(timesteps, config)[:, None, None, None]
        return AnchoringBatch(noisy, target, timesteps, text, embedding, states, weight)

    def _faces(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return normalized embeddings (n, 512) and images (n, 3, H, W) of samples."""
        shards, device = self._shards, self._base.device
        embedding = torch.stack([torch.from_numpy(shards.array(number, "embedding")).float() for number in numbers])
        images = torch.stack([shards.image(number, self.config.size) for number in numbers])
        return F.normalize(embedding.to(device), dim=1), images.to(device)

    def _dropped(self, rng: torch.Generator) -> tuple[bool, bool]:
        """Return whether person and text are left out of a row."""
        config = self.config
        at = float(torch.rand((), generator=rng))
        no_person = at < config.identity_dropout + config.joint_dropout
        no_text = config.identity_dropout <= at < config.identity_dropout + config.joint_dropout + config.text_dropout
        return no_person, no_text

    def _reference(self, number: int, rng: torch.Generator) -> int:
        """Return the sample that an image's person is encoded from: itself, or another one of the same person."""
        drawn = randint(rng, 1 << 30)
        if not self.config.other_reference:
            return number
        others = [n for n in self._shards.of_person[self._shards.persons[number]] if n != number]
        return others[drawn % len(others)] if others else number

    def _face_weight(self, number: int, grid: Sequence[int]) -> Tensor:
        """Return how much the cells (1, h, w) of an image weigh, 1 on average."""
        config = self.config
        height, width = grid
        weight = torch.ones(1, height, width)
        if config.face_loss_weight == 1:
            return weight
        face = self._shards.json(number).get("face")
        if face is None:
            raise ValueError(
                f"the sample {self._shards.keys[number]} doesn't say where its face is (face: [x0, y0, x1, y1] in "
                "fractions of the image). Set face_loss_weight to 1, or build the data again."
            )
        box = Box.of(face)
        x0, y0, x1, y1 = box.grown(config.face_loss_margin * box.width, config.face_loss_margin * box.height)
        y, x = ((torch.arange(size) + 0.5) / size for size in (height, width))
        weight[:, ((y0 <= y) & (y <= y1))[:, None] & ((x0 <= x) & (x <= x1))[None]] = config.face_loss_weight
        return weight / weight.mean()

    # --- results ----------------------------------------------------------------------------------------------------

    def write(self, trained: nn.ModuleDict, step: int = 0, seconds: float = 0.0) -> Path:
        """Write SAA and the face encoder as the pack's own file."""
        encoder = cpu_weights(trained["face_encoder"])
        path = self.folder / f"{self.name}.safetensors"
        adapter = adapter_from_weights(
            cpu_weights(trained["saa"]), fingerprint(encoder), self.config.tokens,
            base=self._base.base, identity_blocks=self.config.identity_blocks,
        )  # fmt: skip
        save_checkpoint(Checkpoint(adapter, encoder, None, None), path)
        return path

    @torch.no_grad()
    def samples(self, trained: nn.ModuleDict) -> NDArray[np.uint8]:
        """Return references above, below them images drawn from their people and their captions."""
        base, shards = self._base, self._shards
        numbers = list(range(0, len(shards), max(1, len(shards) // self.config.num_samples)))[: self.config.num_samples]
        embedding, images = self._faces(numbers)
        encoder, saa = trained["face_encoder"], trained["saa"]
        assert isinstance(saa, SAA)
        tokens = encoder(embedding, base.image_states(images))
        negative = encoder(torch.zeros_like(embedding[:1]), self._negative_states)
        prompts = [shards.caption(number) for number in numbers]
        with saa.installed(base.network):
            drawn = sample_images(base, tokens, negative, prompts, images.shape[2:], self.config)
        return sheet(images, drawn)
