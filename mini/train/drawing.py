"""What the base models' stages share: latents of portraits and groups with their captions, and what is measured.

A base model draws latents from captions, whatever its architecture and however it is noised.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..world.caption import CLOTHES_COLORS, GARMENTS, PLACES, PersonSpec, parse_caption, view_of
from ..world.world import World
from . import autoencoder, encoders, judge
from .core import atomic_path, image_grid, sha256_of_file
from .pictures import NAMES, Pictures, numbers_of, places, turns
from .stage import WEIGHTS, Stage, TrainContext

CELL = 8  # pixels of a picture for each of a latent's cells
LABELS = {"colour": CLOTHES_COLORS, "garment": GARMENTS, "expression": NAMES}  # by the judge's numbers


class Latents:
    """Pictures as latents, kept beside the pictures and encoded when first asked for."""

    def __init__(self, source: Pictures, network: autoencoder.Autoencoder, digest: str, context: TrainContext):
        self.source, self._network, self._context = source, network, context
        self.folder = source.folder / f"latents-{digest}"
        self._shard = lru_cache(maxsize=512)(self._open)

    def _open(self, shard: int) -> NDArray[np.float16]:
        path = self.folder / f"{shard:05}.npy"
        if not path.exists():
            images = np.array(self.source.shard(shard)[0])
            latents = autoencoder.encode(self._network, images, self._context).half().numpy()
            with atomic_path(path) as part, part.open("wb") as file:
                np.save(file, latents)
        return np.load(path)

    def batch(self, step: int, size: int) -> tuple[Tensor, list[str], NDArray[np.float32]]:
        """Return latents (size, 4, h, w) float32, captions, and the faces' boxes (size, people, 4) in cells."""
        at = places(numbers_of(step, size, self.source.size))
        latents = np.stack([self._shard(shard)[i] for shard, i in at]).astype(np.float32)
        truths = [(self.source.shard(shard)[1], i) for shard, i in at]
        boxes = np.stack([truth.box[i] for truth, i in truths]).astype(np.float32) / np.float32(CELL)
        return torch.from_numpy(latents), [str(truth.caption[i]) for truth, i in truths], boxes


def on_faces(boxes: NDArray[np.float32], height: int, width: int) -> Tensor:
    """Return where cells lie in one of the boxes (n, people, 4): (n, 1, height, width), 0 or 1."""
    y, x = np.mgrid[:height, :width] + 0.5
    left, top, right, bottom = (boxes[..., k, None, None] for k in range(4))
    inside = (left < x) & (x < right) & (top < y) & (y < bottom)
    return torch.from_numpy(inside.any(1)[:, None].astype(np.float32))


def in_columns(boxes: Tensor, count: int, width: int) -> list[int | None]:
    """Return the box (of n, 4) nearest the middle of each of `count` people's columns, left to right, or None."""
    middles = boxes[:, [0, 2]].float().mean(1).tolist()
    columns = []
    for person in range(count):
        middle, half = width * (person + 0.5) / count, width / count / 2
        near = [(abs(x - middle), i) for i, x in enumerate(middles) if abs(x - middle) <= half]
        columns.append(min(near)[1] if near else None)
    return columns


def as_specified(look: PersonSpec, verdict: judge.Verdict | None, i: int | None) -> dict[str, bool]:
    """Return which of a person's caption the judge confirms in face i; nothing where there is no such face."""
    if verdict is None or i is None:
        kinds, yaw = dict.fromkeys(LABELS, ""), float("nan")
    else:
        kinds = {kind: names[verdict.kinds[kind][i]] for kind, names in LABELS.items()}
        yaw = float(verdict.pose[i, 1])
    told = {"colour": kinds["colour"] == look.colour, "garment": kinds["garment"] == look.garment}
    told |= {"clothes": all(told.values()), "expression": kinds["expression"] == look.expression}
    if look.view:
        told["view"] = not np.isnan(yaw) and view_of(yaw, look.posed) == look.view
    return told


class DrawingStage(Stage[nn.Module]):
    """A base model on latents of portraits and groups with their captions.

    Attributes:
        portraits, groups: a step; faces in groups take longer to learn.
        text_dropout: probability that a row's caption is left out.
        face_loss_weight: of a face's cells: what expressions differ in is small.
    """

    channels_last = False
    portraits, groups = 6, 15
    text_dropout = 0.1
    face_loss_weight = 6.0

    def __init__(self, context: TrainContext, size: int = 12_000):
        super().__init__(context)
        digest = sha256_of_file(context.folder / "autoencoder" / WEIGHTS)[:8]
        self.autoencoder, self.reader = autoencoder.load(context), encoders.load_text(context)
        self.data = [
            Latents(Pictures(context.folder, World(seed=1), count, share), self.autoencoder, digest, context)
            for count, share in ((1, size), (2, size // 2), (3, size // 6))
        ]

    @abstractmethod
    def errors(
        self, network: nn.Module, true: Tensor, captions: Sequence[str], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Noise latents (n, 4, h, w). Return the prediction's squared errors in their shape, and rows' weights (n,)."""

    @abstractmethod
    def sampled(self, network: nn.Module, captions: Sequence[str], size: tuple[int, int], seed: int) -> Tensor:
        """Return latents (n, 4, *size) drawn from noise for captions."""

    def step_losses(self, network: nn.Module, step: int, rng: torch.Generator) -> dict[str, Tensor]:
        portraits, pairs, trios = self.data
        three, turn = turns(step, 3)
        terms = {}
        for name, latents, at, size in (
            ("portraits", portraits, step, self.portraits),
            ("groups", trios if three else pairs, turn, self.groups),
        ):
            true, captions, boxes = latents.batch(at, size)
            dropped = torch.rand(size, generator=rng) < self.text_dropout
            captions = ["" if drop else caption for drop, caption in zip(dropped, captions, strict=True)]
            errors, weights = self.errors(network, true.to(self.context.device), captions, rng)
            weight = 1 + (self.face_loss_weight - 1) * on_faces(boxes, *true.shape[2:]).to(errors)
            terms[name] = (weights * (weight * errors).mean((1, 2, 3)) / weight.mean((1, 2, 3))).mean()
        # Every picture weighs the same for its area.
        share = self.portraits / (self.portraits + 2 * self.groups)
        return {"loss": share * terms["portraits"] + (1 - share) * terms["groups"], **terms}

    def drawn(self, network: nn.Module, captions: Sequence[str], size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
        """Return images (n, H, W, 3) uint8 of the captions, by latents of this size."""
        latents = [self.sampled(network, captions[i : i + 20], size, seed + i) for i in range(0, len(captions), 20)]
        return autoencoder.decode(self.autoencoder, torch.cat(latents), self.context)

    def _captions(self, count: int, number: int) -> list[str]:
        world = World(seed=2, held_out_people=True, omit_prob=0.0)
        return [world.sample(i, count).caption for i in range(number)]

    def samples(self, network: nn.Module) -> NDArray[np.uint8]:
        """Return 16 portraits, four groups of two, four of three: of captions that training does not use."""
        portraits = self.drawn(network, self._captions(1, 16), (16, 16), 1)
        groups = [self.drawn(network, self._captions(count, 4), (16, 32), count) for count in (2, 3)]
        return np.concatenate([image_grid(portraits, 8), *(image_grid(images, 4) for images in groups)])

    def measures(self, network: nn.Module, numbers: tuple[int, int, int] = (200, 100, 100)) -> dict[str, float]:
        """Return how often the judge sees in images what their captions say; nothing while there is no judge.

        A person is looked for in their own column of the picture; one who is not there is wrong in everything.
        `_of_all` is over all pictures, each by the share of its people who are right.
        """
        if not (self.context.folder / "judge" / WEIGHTS).exists():
            return {}
        judging = self.context.load("judge", judge.Judge())
        right: defaultdict[str, list[float]] = defaultdict(list)

        for count, number in zip((1, 2, 3), numbers, strict=True):
            captions = self._captions(count, number)
            images = self.drawn(network, captions, (16, 16 if count == 1 else 32), 100 + count)
            judged_places, boxes = judge.judge_scenes(judging, images, self.context)
            for image, caption, place, faces in zip(images, captions, judged_places, boxes, strict=True):
                spec = parse_caption(caption)
                right["place"].append(PLACES[place] == spec.place)
                right["count"].append(len(faces) == count)
                verdict = None
                if len(faces):
                    verdict = judge.judge_faces(judging, np.stack([image] * len(faces)), faces, self.context)
                columns = in_columns(faces, count, image.shape[1])
                told = [as_specified(look, verdict, i) for look, i in zip(spec.people, columns, strict=True)]
                for name, is_right in (item for person in told for item in person.items()):
                    right[name if count == 1 else f"{name}_in_groups"].append(is_right)
                for name in ("clothes", "expression"):
                    right[f"{name}_of_all"].append(float(np.mean([person[name] for person in told])))
        return {name: float(np.mean(values)) for name, values in right.items()}
