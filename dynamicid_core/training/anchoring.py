"""The anchoring stage: SAA and the face encoder learn to draw the person of a reference (DynamicID, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoint import Checkpoint, save_checkpoint
from ..identity.encoder import FaceEncoder
from ..saa.adapter import adapter_from_weights
from ..state_dict import fingerprint
from .base_model import BaseNetworks
from .config import AnchoringConfig
from .denoise import predict_noise, sample_images, side_by_side
from .latents import Latents
from .saa import SAA
from .shards import Shards, numbers_of
from .stage import Say, Stage, chance, draw

SHOWN = 4  # people in a sample picture


@dataclass(frozen=True, eq=False)
class AnchoringBatch:
    """Rows of pictures, noised, and who is in them.

    Attributes:
        noisy, noise: (n, 4, h, w).
        times: (n,)
        text: (n, 77, D) states; the empty prompt's where the text is dropped.
        embedding: (n, 512); zeros where the person is dropped.
        states: (n, N, W) CLIP's; of zero pixels where the person is dropped.
        weight: (n, 1, h, w) of a cell in the loss; a row's mean is its time's.
    """

    noisy: Tensor
    noise: Tensor
    times: Tensor
    text: Tensor
    embedding: Tensor
    states: Tensor
    weight: Tensor


class AnchoringLoss(nn.Module):
    """The squared error of the noise that the UNet predicts with SAA and the encoded person."""

    def __init__(self, base: BaseNetworks, trained: nn.ModuleDict, gate: bool, threshold: float) -> None:
        super().__init__()
        self.trained = trained
        self._base, self._gate, self._threshold = base, gate, threshold

    def forward(self, batch: AnchoringBatch) -> dict[str, Tensor]:
        tokens = self.trained["face_encoder"](batch.embedding, batch.states)
        said = predict_noise(self._base, batch.noisy, batch.times, batch.text, tokens, self._gate, self._threshold)
        return {"loss": (batch.weight * (said.float() - batch.noise).square()).mean()}


class Anchoring(Stage):
    name = "anchoring"
    recipe: AnchoringConfig

    def __init__(self, recipe: AnchoringConfig, base: BaseNetworks, shards: Shards) -> None:
        """Raises ValueError when base model and recipe don't fit each other."""
        if base.scheduler.config["prediction_type"] != "epsilon":
            raise ValueError(
                f"expected a base model that predicts noise, got {base.scheduler.config['prediction_type']!r}."
            )
        torch.manual_seed(chance(recipe.seed, -1).initial_seed() % 2**31)
        saa = SAA.of(base.unet, recipe.rank)
        encoder = FaceEncoder(
            hidden_dim=recipe.hidden_dim, clip_dim=base.image_encoder.config.hidden_size,
            dim=base.text_dim, tokens=recipe.tokens, depth=recipe.depth, dim_head=recipe.dim_head,
        )  # fmt: skip
        self.recipe, self._base, self._shards = recipe, base, shards
        self._latents = Latents(base, shards, recipe.size, recipe.latent_cache)
        self.rows = recipe.batch
        self.trained = nn.ModuleDict({"saa": saa, "face_encoder": encoder}).to(base.unet.device)
        saa.install(base.unet)
        if recipe.checkpointing:
            base.checkpoint_activations()
        self.module = AnchoringLoss(base, self.trained, recipe.gate, recipe.gate_threshold)
        self._blank = base.blank_states()

    def prepare(self, say: Say, process: int, processes: int) -> None:
        self._latents.encode(say, process, processes)

    # --- batches ----------------------------------------------------------------------------------------------------

    def batch(self, step: int, rows: Sequence[int], device: torch.device) -> AnchoringBatch:
        recipe, base, shards = self.recipe, self._base, self._shards
        numbers = numbers_of(step, recipe.batch, len(shards), recipe.seed)[list(rows)]
        chances = [chance(recipe.seed, step, row) for row in rows]
        faceless, wordless = zip(*(self._dropped(rng) for rng in chances), strict=True)
        references = [self._reference(int(number), rng) for number, rng in zip(numbers, chances, strict=True)]
        seen = torch.stack([shards.picture(number, recipe.size) for number in references]).to(device)
        latents = self._latents.draw([int(number) for number in numbers], chances)
        times = torch.stack([torch.randint(1000, (), generator=rng) for rng in chances]).to(device)
        noise = torch.stack([torch.randn(latents.shape[1:], generator=rng) for rng in chances]).to(device)
        without = torch.tensor(faceless, device=device)[:, None]
        embedding = torch.stack([torch.from_numpy(shards.array(n, "embedding")).float() for n in references])
        embedding = torch.where(without, 0.0, nn.functional.normalize(embedding.to(device), dim=1))
        states = torch.where(without[..., None], self._blank, base.image_states(seen))
        text, _ = base.text(["" if drop else shards.caption(int(n)) for drop, n in zip(wordless, numbers, strict=True)])
        noisy = base.noised(latents, noise, times)
        weight = torch.stack([self._weight(int(number), latents.shape[2:]) for number in numbers]).to(device)
        weight = weight * base.weight_of_times(times, recipe.darkest, recipe.clearest)[:, None, None, None]
        return AnchoringBatch(noisy, noise, times, text, embedding, states, weight)

    def _dropped(self, rng: torch.Generator) -> tuple[bool, bool]:
        """Whether person and text are left out of a row."""
        recipe = self.recipe
        at = float(torch.rand((), generator=rng))
        faceless = at < recipe.drop_identity + recipe.drop_both
        wordless = recipe.drop_identity <= at < recipe.drop_identity + recipe.drop_both + recipe.drop_text
        return faceless, wordless

    def _reference(self, number: int, rng: torch.Generator) -> int:
        """The sample that a picture's person is encoded from: itself, or another one of the same person."""
        drawn = draw(rng, 1 << 30)
        recipe = self.recipe
        if not recipe.other_reference:
            return number
        others = [n for n in self._shards.of_person[self._shards.persons[number]] if n != number]
        return others[drawn % len(others)] if others else number

    def _weight(self, number: int, grid: Sequence[int]) -> Tensor:
        """(1, h, w)"""
        recipe = self.recipe
        height, width = grid
        weight = torch.ones(1, height, width)
        if recipe.face == 1:
            return weight
        face = self._shards.json(number).get("face")
        if face is None:
            raise ValueError(
                f"the sample {self._shards.keys[number]} doesn't say where its face is (face: [x0, y0, x1, y1] in "
                "fractions of the picture). Set the recipe's face to 1, or build the data again."
            )
        x0, y0, x1, y1 = face
        y, x = ((torch.arange(size) + 0.5) / size for size in (height, width))
        above, beside = recipe.face_margin * (y1 - y0), recipe.face_margin * (x1 - x0)
        inside = ((y0 - above <= y) & (y <= y1 + above))[:, None] & ((x0 - beside <= x) & (x <= x1 + beside))[None]
        weight[:, inside] = recipe.face
        return weight / weight.mean()

    # --- results ----------------------------------------------------------------------------------------------------

    def write(self, trained: nn.ModuleDict, path: Path) -> None:
        encoder = {name: tensor.detach().cpu() for name, tensor in trained["face_encoder"].state_dict().items()}
        weights = {name: tensor.detach().cpu() for name, tensor in trained["saa"].state_dict().items()}
        adapter = adapter_from_weights(weights, fingerprint(encoder), self.recipe.tokens)
        save_checkpoint(Checkpoint(adapter, encoder, None, None), path)

    @torch.no_grad()
    def samples(self, trained: nn.ModuleDict) -> Tensor:
        """References above, below them pictures drawn from their people and their texts."""
        recipe, base, shards = self.recipe, self._base, self._shards
        device = base.unet.device
        numbers = list(range(0, len(shards), max(1, len(shards) // SHOWN)))[:SHOWN]
        images = torch.stack([shards.picture(number, recipe.size) for number in numbers]).to(device)
        embedding = torch.stack([torch.from_numpy(shards.array(n, "embedding")).float() for n in numbers]).to(device)
        encoder, saa = trained["face_encoder"], trained["saa"]
        assert isinstance(saa, SAA)
        tokens = encoder(nn.functional.normalize(embedding, dim=1), base.image_states(images))
        nobody = encoder(torch.zeros_like(embedding[:1]), self._blank).expand_as(tokens)
        prompts = [shards.caption(number) for number in numbers]
        with saa.installed(base.unet):
            drawn = sample_images(base, tokens, nobody, prompts, images.shape[2:], recipe.gate, recipe.gate_threshold)
        return torch.cat([side_by_side(images), side_by_side(drawn)], dim=1)
