"""The judge: two residual networks that share nothing with what they judge.

`scene` looks at a whole picture: the place, and where faces are. `face` looks at one face and what is around it: every
factor of the person, the expression, the pose, the clothes, and an embedding that differs between people.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..world.caption import CLOTHES_COLORS, GARMENTS, PLACES
from ..world.head import EXPRESSIONS
from ..world.person import CHOICES, NUMBERS
from ..world.world import Gallery, World
from .autoencoder import as_input
from .core import image_grid
from .pictures import NAMES, Pictures, Truth, pairs_and_trios, turns
from .stage import Stage, StageConfig, TrainContext

CELL = 8  # pixels of a picture for each of the scene network's cells
CROP, AROUND = 96, 1.9  # a face's crop in pixels, and its side in lengths of the box's longer side
EMBEDDING = 96
POSE_SCALE = 30.0  # degrees
ANGLES = ("pitch", "yaw", "roll")
BATCH = 32  # images judged at a time
PictureMap = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
KINDS: dict[str, int] = {name: len(options) for name, options in CHOICES.items()} | {
    "expression": len(EXPRESSIONS),
    "colour": len(CLOTHES_COLORS),
    "garment": len(GARMENTS),
}


class _Residual(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut; `stride` 2 halves the picture."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        last = nn.BatchNorm2d(outside)
        nn.init.zeros_(last.weight)  # at first there is the shortcut alone
        self.norms = nn.ModuleList([nn.BatchNorm2d(outside), last])
        self.short: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.short = nn.Sequential(
                nn.AvgPool2d(stride), nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.short(x))


def _trunk(stem: int, widths: Sequence[int]) -> nn.Sequential:
    """Return layers from images to maps of an eighth of the size for three widths, a sixteenth for four."""
    layers: list[nn.Module] = [nn.Conv2d(3, stem, 5, 2, 2, bias=False), nn.BatchNorm2d(stem), nn.ReLU()]
    for i, (inside, outside) in enumerate(zip((stem, *widths), widths, strict=False)):
        layers += [_Residual(inside, outside, 2 if i else 1), _Residual(outside, outside, 1)]
    return nn.Sequential(*layers)


class SceneJudge(nn.Module):
    """(n, 3, H, W) in [0, 1] to places (n, 12) and cells (n, 5, H/8, W/8): a face's middle here, and its box."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _trunk(16, (24, 48, 96))
        self.place = nn.Linear(96, len(PLACES))
        self.cells = nn.Conv2d(96, 5, 1)
        with torch.no_grad():
            self.cells.weight.mul_(0.1)
            self.cells.state_dict()["bias"].fill_(-3.0)  # most cells hold none

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(images * 2 - 1)
        return self.place(x.mean((2, 3))), self.cells(x)


class FaceJudge(nn.Module):
    """Crops (n, 3, 96, 96) in [0, 1] to logits by kind, numbers (n, 4), pose (n, 3) and embedding (n, 96)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _trunk(32, (32, 64, 128, 192))
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.wide = nn.Sequential(nn.Linear(192 * 9, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU())
        self.kinds = nn.ModuleDict({name: nn.Linear(512, count) for name, count in KINDS.items()})
        self.numbers = nn.Linear(512, len(NUMBERS))
        self.pose = nn.Linear(512, 3)
        self.embedding = nn.Linear(512, EMBEDDING)

    def forward(self, crops: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        x = self.wide(self.pool(self.trunk(crops * 2 - 1)).flatten(1))
        kinds = {name: head(x) for name, head in self.kinds.items()}
        return kinds, self.numbers(x), self.pose(x), F.normalize(self.embedding(x).float(), dim=1)


class Judge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scene, self.face = SceneJudge(), FaceJudge()


def crop_faces(images: Tensor, boxes: Tensor) -> Tensor:
    """Return squares (n, 3, CROP, CROP) about faces: of images (n, 3, H, W), boxes (n, 4) in pixels, one each."""
    height, width = images.shape[2:]
    half = AROUND / 2 * torch.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    turn = torch.zeros(len(boxes), 2, 3, device=images.device)
    turn[:, 0, 0], turn[:, 0, 2] = 2 * half / width, 2 * x / width - 1
    turn[:, 1, 1], turn[:, 1, 2] = 2 * half / height, 2 * y / height - 1
    places = F.affine_grid(turn, [len(boxes), 3, CROP, CROP], align_corners=False)
    return F.grid_sample(images.float(), places, padding_mode="border", align_corners=False)


def _cells(boxes: NDArray[np.float32], height: int, width: int) -> tuple[Tensor, Tensor]:
    """Truth of the scene network's cells: a soft peak (n, h, w) at each face's middle; boxes (n, 4, h, w) in cells."""
    h, w = height // CELL, width // CELL
    y, x = np.mgrid[:h, :w] + 0.5
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 / CELL
    far = (x - centre[..., 0, None, None]) ** 2 + (y - centre[..., 1, None, None]) ** 2
    nearest = far.argmin(1)[:, None]
    sides = (np.broadcast_to(boxes[..., k, None, None] / CELL, far.shape) for k in range(4))
    near = np.stack([np.take_along_axis(side, nearest, 1)[:, 0] for side in sides], 1)
    offsets = near - np.stack([x, y, x, y])
    return torch.from_numpy(np.exp(-far.min(1) / 0.7)).float(), torch.from_numpy(offsets).float()


def find_faces(cells: Tensor, threshold: float = 0.4) -> list[Tensor]:
    """Return each image's boxes (k, 4) in pixels, left to right, from the scene network's cells (n, 5, h, w)."""
    peaks = torch.sigmoid(cells[:, 0].float())
    # A cell is a face's where none of those about it is more so: two faces' middles are at least 6 cells apart.
    highest = F.max_pool2d(peaks[:, None], 5, 1, 2)[:, 0]
    faces = []
    for peak, high, offsets in zip(peaks, highest, cells[:, 1:].float(), strict=True):
        y, x = torch.nonzero((peak == high) & (peak >= threshold), as_tuple=True)
        middle = torch.stack([x, y, x, y], 1) + 0.5
        boxes = (offsets[:, y, x].T + middle) * CELL
        faces.append(boxes[boxes[:, 0].argsort()])
    return faces


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the judge says of k faces, in order of the pictures, left to right; places in CHOICES, EXPRESSIONS, ...

    Attributes:
        kinds: by name, (k,) int64; numbers: (k, 4); pose: (k, 3) degrees; embedding: (k, 96), of length 1.
        expressions: (k, 7) log-probabilities of `pictures.NAMES`.
    """

    kinds: dict[str, NDArray[np.int64]]
    numbers: NDArray[np.float32]
    pose: NDArray[np.float32]
    embedding: NDArray[np.float32]
    expressions: NDArray[np.float32]


def judge_scenes(
    judge: Judge, images: NDArray[np.uint8], context: TrainContext
) -> tuple[NDArray[np.int64], list[Tensor]]:
    """Return places (n,) and face boxes (k, 4) in pixels, left to right, of images (n, H, W, 3)."""
    with torch.no_grad(), context.autocast():
        outputs = [judge.scene(part) for part in as_input(images, context.device).split(BATCH)]
    places, cells = (torch.cat(parts).cpu() for parts in zip(*outputs, strict=True))
    return places.argmax(1).numpy(), find_faces(cells)


def judge_faces(judge: Judge, images: NDArray[np.uint8], boxes: Tensor, context: TrainContext) -> Verdict:
    """Return what the judge says of faces: images (k, H, W, 3), one for each box (k, 4)."""
    parts = zip(as_input(images, context.device).split(BATCH), boxes.to(context.device).split(BATCH), strict=True)
    with torch.no_grad(), context.autocast():
        outputs = [judge.face(crop_faces(*part)) for part in parts]
    logits = {name: torch.cat([kind[name] for kind, *_ in outputs]) for name in KINDS}
    kinds = {name: logits[name].argmax(1).cpu().numpy() for name in KINDS}
    expressions = logits["expression"].float().log_softmax(1).cpu().numpy()
    numbers, pose, embedding = (torch.cat([row[k] for row in outputs]).float().cpu().numpy() for k in (1, 2, 3))
    return Verdict(kinds, numbers, np.float32(POSE_SCALE) * pose, embedding, expressions)


def true_kinds(truth: Truth) -> dict[str, NDArray[np.int64]]:
    """Return the truth of KINDS, by name: one for each face, (n * k,)."""
    people = truth.people()
    kinds = {name: np.array([CHOICES[name].index(getattr(p, name)) for p in people]) for name in CHOICES}
    # The colour of what isn't there can't be seen.
    kinds["glasses_colour"][kinds["glasses"] == 0] = -1
    kinds["hair_colour"][(kinds["hair"] == 0) & (kinds["beard"] == 0)] = -1
    for name in ("expression", "colour", "garment"):
        kinds[name] = getattr(truth, name).ravel()
    return kinds


def misnamed(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (n, k) whose truth (n,) can be seen, is not -1; 0 when none can."""
    return F.cross_entropy(logits.float(), target, ignore_index=-1, reduction="sum") / (target >= 0).sum().clamp(min=1)


def supervised_contrastive(embedding: Tensor, persons: NDArray[np.int64], temperature: float) -> Tensor:
    """Return the contrast of a batch's faces (n, D) of length 1: one person's near each other, different people's far.

    -1 / |P(i)| sum_p log(exp(z_i z_p / tau) / sum_a exp(z_i z_a / tau)) (arXiv 2004.11362, equation 2), over the faces
    whose person is there again.
    """
    who = torch.from_numpy(persons).to(embedding.device)
    itself = torch.eye(len(who), dtype=torch.bool, device=embedding.device)
    same = (who[:, None] == who) & ~itself
    log_shares = (embedding @ embedding.T / temperature).masked_fill(itself, -1e4).log_softmax(1)
    again = same.any(1)
    return -((log_shares * same).sum(1)[again] / same.sum(1)[again]).mean()


def identified_share(embedding: NDArray[np.float32], persons: NDArray[np.int64], crowd: int = 100) -> float:
    """Return how often the nearest of `crowd` people, each seen once in another image, is the right person."""
    names = list(dict.fromkeys(persons.tolist()))[:crowd]
    rows = [np.flatnonzero(persons == name) for name in names]
    gallery = embedding[[row[0] for row in rows]]
    return float(np.mean([(gallery @ embedding[k]).argmax() == i for i, row in enumerate(rows) for k in row[1:]]))


def similarity_ends(embedding: NDArray[np.float32], persons: NDArray[np.int64]) -> tuple[float, float]:
    """Return mean cosines of two images of one person, and of two people: the ends of a face's similarity."""
    same = persons[:, None] == persons
    cosine = embedding @ embedding.T
    others = ~same
    np.fill_diagonal(same, False)
    return float(cosine[same].mean()), float(cosine[others].mean())


class JudgeStage(Stage[Judge]):
    name = "judge"
    config = StageConfig(steps=4_500, learning_rate=2e-3, weight_decay=0.02, max_grad_norm=5.0)
    network = Judge
    people, groups = 10, 6  # a step: each person four times, groups of two
    temperature = 0.1

    def __init__(self, context: TrainContext, size: int = 24_000):
        super().__init__(context)
        self.gallery = Pictures(context.folder, Gallery(seed=11), 1, size)
        self.pairs, self.trios = pairs_and_trios(context.folder, World(seed=1), size // 4, size // 16)
        self.held_out = Pictures(context.folder, Gallery(seed=12, held_out_people=True), 1, 500)
        self.held_out_groups = pairs_and_trios(context.folder, World(seed=2, held_out_people=True), 100, 100)

    def _degraded(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Return images a little blurred, tinted or noisy: the judged ones are not the renderer's own."""
        count = len(images)
        small = F.interpolate(images, scale_factor=0.6, mode="area")
        blurred = F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)
        blur, tint, gain, noise = (
            torch.rand(count, k, 1, 1, generator=rng).to(images.device) for k in (1, 3, 1, 1)
        )  # fmt: skip
        images = torch.lerp(images, blurred, (blur * 1.8 - 0.8).clamp(0, 1))
        grain = torch.randn(images.shape, generator=rng).to(images.device)
        return (images * (0.94 + 0.12 * gain) + 0.06 * (tint - 0.5) + 0.03 * noise * grain).clamp(0, 1)

    def step_losses(self, network: Judge, step: int, rng: torch.Generator) -> dict[str, Tensor]:
        device, (three, turn) = self.context.device, turns(step, 4)
        groups = self.trios if three else self.pairs
        batches = [self.gallery.sets(step, self.people), groups.batch(turn, self.groups)]
        scene_loss, crops = torch.zeros((), device=device), []
        for pictures, truth in batches:
            images = self._degraded(as_input(pictures, device), rng)
            few = slice(0, 2 * self.groups)
            place, cells = network.scene(images[few])
            peak, boxes = (x.to(device) for x in _cells(truth.box[few], *pictures.shape[1:3]))
            there = peak > 0.3
            scene_loss = scene_loss + F.cross_entropy(place.float(), torch.from_numpy(truth.place[few]).to(device))
            scene_loss = scene_loss + 30 * F.binary_cross_entropy_with_logits(cells[:, 0].float(), peak)
            wrong = (cells[:, 1:].float() - boxes).abs().mean(1)
            scene_loss = scene_loss + (wrong * there).sum() / there.sum()
            people = truth.box.shape[1]
            around = torch.from_numpy(truth.box.reshape(-1, 4))
            # Detected boxes are a little off.
            length = (around[:, 2:] - around[:, :2]).max(1, keepdim=True).values
            around = around + length * 0.05 * torch.randn(around.shape, generator=rng)
            crops.append(crop_faces(images.repeat_interleave(people, 0), around.to(device)))
        kinds, numbers, pose, embedding = network.face(torch.cat(crops).contiguous(memory_format=torch.channels_last))

        truths = [true_kinds(truth) for _, truth in batches]
        kind_loss = torch.zeros((), device=device)
        for name, logits in kinds.items():
            target = torch.from_numpy(np.concatenate([true[name] for true in truths])).to(device)
            weight = 3.0 if name == "expression" else 1.0
            kind_loss = kind_loss + weight * misnamed(logits, target)
        true_numbers = [[getattr(p, name) for name in NUMBERS] for _, truth in batches for p in truth.people()]
        number_loss = F.smooth_l1_loss(numbers.float(), torch.tensor(true_numbers, device=device))
        true_pose = torch.from_numpy(np.concatenate([truth.pose.reshape(-1, 3) for _, truth in batches]))
        pose_loss = F.smooth_l1_loss(pose.float(), true_pose.to(device) / POSE_SCALE, beta=0.2)
        persons = np.concatenate([truth.persons.ravel() for _, truth in batches])
        identity = supervised_contrastive(embedding, persons, self.temperature)
        loss = scene_loss + 0.3 * kind_loss + 3 * number_loss + 3 * pose_loss + identity
        return {
            "loss": loss, "scene": scene_loss, "kinds": kind_loss, "numbers": number_loss, "pose": pose_loss,
            "identity": identity,
        }  # fmt: skip

    def measures(self, network: Judge, again: PictureMap = lambda images: images) -> dict[str, float]:
        """Return shares judged right on held-out people, after `again` was done to the images (a round trip, say)."""
        images, truth = self.held_out.all()
        images = again(images)
        verdict = judge_faces(network, images, torch.from_numpy(truth.box[:, 0]), self.context)
        labels = true_kinds(truth)
        measured = {name: float((verdict.kinds[name] == true)[true >= 0].mean()) for name, true in labels.items()}
        errors = np.median(np.abs(verdict.pose - truth.pose[:, 0]), axis=0)
        measured |= {f"{name}_degrees": float(error) for name, error in zip(ANGLES, errors, strict=True)}
        measured["person_of_100"] = identified_share(verdict.embedding, truth.persons[:, 0])
        ends = similarity_ends(verdict.embedding, truth.persons[:, 0])
        measured["likeness"], measured["likeness_of_others"] = ends
        right: list[tuple[bool, bool]] = []
        groups = [(again(pictures), drawn) for pictures, drawn in (group.all() for group in self.held_out_groups)]
        for pictures, drawn in [(images, truth), *groups]:
            places, boxes = judge_scenes(network, pictures, self.context)
            right += zip(places == drawn.place, [len(faces) == drawn.box.shape[1] for faces in boxes], strict=True)
        measured["place"], measured["count"] = (float(share) for share in np.mean(right, 0))
        return measured

    def samples(self, network: Judge) -> NDArray[np.uint8]:
        """Return held-out portraits with their boxes and what the judge says of them."""
        images = self.held_out.take(np.arange(0, 128, 4))[0].copy()
        _, boxes = judge_scenes(network, images, self.context)
        for image, faces in zip(images, boxes, strict=True):
            if not len(faces):
                continue
            verdict = judge_faces(network, image[None], faces[:1], self.context)
            x0, y0, x1, y1 = (round(float(x)) for x in faces[0])
            cv2.rectangle(image, (x0, y0), (x1, y1), (255, 0, 0), 1)
            text = f"{NAMES[verdict.kinds['expression'][0]]} {verdict.pose[0, 1]:.0f}"
            cv2.putText(image, text, (2, 124), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 3)
            cv2.putText(image, text, (2, 124), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1)
        return image_grid(images, 8)
