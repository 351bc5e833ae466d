"""The face pack's stage: detector, landmarks and recognition, each on cuts as insightface makes them."""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..world.person import CHOICES
from ..world.world import Gallery, World
from .core import image_grid
from .face_crops import ALIGNED, around_box, enlarged, moved, similarity, warp
from .face_networks import ANCHORS, LANDMARK_CUT, RECOGNITION_CUT, STRIDES, Detector, FacePack, write_pack
from .judge import PictureMap, misnamed, supervised_contrastive, told_apart, true_kinds
from .pictures import Pictures, Truth, numbers_of, turns
from .stage import Stage, StageConfig, TrainContext

CANVAS = 320
LARGEST = (72.0, 144.0, 1e9)  # a face's side in pixels, for each of STRIDES
BETWEEN = 1.25  # times these limits, two levels share a face
Random = np.random.Generator


def as_seen(cuts: list[NDArray[np.uint8]], device: torch.device, divisor: float = 128.0) -> Tensor:
    """Return RGB cuts as insightface hands them to its networks: (n, 3, H, W), about [-1, 1]."""
    images = torch.from_numpy(np.stack(cuts)).to(device).permute(0, 3, 1, 2).float()
    return ((images - 127.5) / divisor).contiguous(memory_format=torch.channels_last)


def _worn(image: NDArray[np.uint8], rng: Random) -> NDArray[np.uint8]:
    """Return an image a little tinted and noisy: those to be analyzed are not the renderer's own."""
    shade = rng.uniform(0.92, 1.08) * image + rng.uniform(-8, 8, 3) + rng.uniform(0, 6) * rng.normal(size=image.shape)
    return np.clip(shade, 0, 255).astype(np.uint8)


class FacePackStage(Stage):
    name = "face-pack"
    config = StageConfig(steps=6_700, learning_rate=1.5e-3, weight_decay=0.02, max_grad_norm=10.0)
    canvases, people, views = 8, 10, 4
    temperature = 0.08  # sharp enough that people who are alike are told apart

    def __init__(self, context: TrainContext, size: int = 24_000):
        super().__init__(context)
        world = World(seed=1)
        self.gallery = Pictures(context.folder, Gallery(seed=11), 1, size)
        self.shown = [
            Pictures(context.folder, world, 1, size // 2), Pictures(context.folder, world, 2, size // 4),
            Pictures(context.folder, world, 3, size // 16),
        ]  # fmt: skip
        self.held_out = Pictures(context.folder, Gallery(seed=12, held_out_people=True), 1, 500)
        strangers = World(seed=13, held_out_people=True)
        self.held_out_groups = [Pictures(context.folder, strangers, count, 100) for count in (2, 3)]

    def network(self) -> nn.Module:
        pack = FacePack()
        # Only while training: naming what is seen teaches what to look at.
        pack.add_module("factors", nn.ModuleDict({k: nn.Linear(192, len(options)) for k, options in CHOICES.items()}))
        return pack

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in super().weights(network).items() if not name.startswith("factors.")}

    # --- what the networks see --------------------------------------------------------------------------------------

    def _canvas(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32], keypoints: NDArray[np.float32], rng: Random
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
        """Return an image randomly enlarged in the detector's frame, and the boxes and keypoints there."""
        zoom = float(np.exp(rng.uniform(np.log(0.8), np.log(5.2))))
        scale = np.array([zoom, zoom * (rng.uniform(1, 2) if rng.random() < 0.15 else 1.0)])
        shift = np.zeros(2)
        if rng.random() < 0.8:
            who = rng.integers(len(boxes))
            middle = scale * (boxes[who, :2] + boxes[who, 2:]) / 2
            shift = rng.uniform(0.25, 0.75, 2) * CANVAS - middle
        matrix = np.column_stack([np.diag(scale), shift])
        shown = np.column_stack([np.diag(scale), shift + 0.5 * scale - 0.5])
        corners = moved(boxes.reshape(-1, 2, 2), matrix)
        return _worn(warp(image, shown, CANVAS), rng), corners.reshape(-1, 4), moved(keypoints, matrix)

    def _faces(
        self, pictures: NDArray[np.uint8], truth: Truth, rng: Random
    ) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """Landmark cuts of all faces, their 106 points (106, 2) and their 68 (68, 3), as the networks are to say."""
        cuts, flat, deep = [], [], []
        half = LANDMARK_CUT / 2
        for image, boxes, landmarks, points in zip(pictures, truth.box, truth.landmarks, truth.points68, strict=True):
            for k, box in enumerate(boxes):
                side = (box[2:] - box[:2]).max()
                off = np.tile(rng.normal(0, 0.03, 2), 2) + np.array([-1, -1, 1, 1]) * rng.normal(0, 0.03)
                stretch = rng.uniform(1, 2) if rng.random() < 0.1 else 1.0
                matrix = around_box(box + side * off, LANDMARK_CUT, stretch)
                cuts.append(_worn(warp(image, enlarged(matrix, rng.choice([1, 2, 4])), LANDMARK_CUT), rng))
                flat.append(moved(landmarks[k], matrix) / half - 1)
                spot = moved(points[k, :, :2], matrix) / half - 1
                deep.append(np.column_stack([spot, points[k, :, 2] * matrix[0, 0] / half]))
        return cuts, flat, deep

    def _aligned(self, pictures: NDArray[np.uint8], truth: Truth, rng: Random) -> list[NDArray[np.uint8]]:
        cuts = []
        for image, (points,) in zip(pictures, truth.keypoints, strict=True):
            spread = np.ptp(points, axis=0).max()
            matrix = similarity(points + rng.normal(0, 0.02, points.shape) * spread, ALIGNED)
            cuts.append(_worn(warp(image, enlarged(matrix, rng.choice([1, 2, 4])), RECOGNITION_CUT), rng))
        return cuts

    # --- losses -----------------------------------------------------------------------------------------------------

    def step_losses(self, network: nn.Module, step: int, rng: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(network, FacePack)
        device = self.context.device
        chance = np.random.default_rng(rng.initial_seed())
        portraits, pairs, trios = self.shown
        half = self.canvases // 2
        three, turn = turns(step, 4)
        batches = [portraits.batch(step, half), (trios if three else pairs).batch(turn, self.canvases - half)]

        canvases = []
        cuts: list[NDArray[np.uint8]] = []
        flat: list[NDArray[np.float64]] = []
        deep: list[NDArray[np.float64]] = []
        for pictures, truth in batches:
            for row in zip(pictures, truth.box, truth.keypoints, strict=True):
                canvases.append(self._canvas(*row, chance))
            shown, points, deep_points = self._faces(pictures, truth, chance)
            cuts, flat, deep = cuts + shown, flat + points, deep + deep_points
        detection = self._detection(network.detector, canvases)
        said_flat, said_deep = network.landmarks(as_seen(cuts, device))
        wrong = [
            (said.float() - torch.from_numpy(np.stack(true)).float().flatten(1).to(device))
            for said, true in ((said_flat, flat), (said_deep, deep))
        ]
        landmarks = sum(
            (F.smooth_l1_loss(x, torch.zeros_like(x), beta=0.02) for x in wrong), torch.zeros((), device=device)
        )

        sets = numbers_of(step, self.people, self.gallery.size // self.views)
        pictures, truth = self.gallery.take((sets[:, None] * self.views + np.arange(self.views)).ravel())
        seen = network.recognition.trunk(as_seen(self._aligned(pictures, truth, chance), device, 127.5))
        vectors = F.normalize(network.recognition.embedding(seen).float(), dim=1)
        identity = supervised_contrastive(vectors, truth.persons[:, 0], self.temperature)
        factors = torch.zeros((), device=device)
        kinds, heads = true_kinds(truth), network.get_submodule("factors")
        assert isinstance(heads, nn.ModuleDict)
        for name, head in heads.items():
            target = torch.from_numpy(kinds[name]).to(device)
            factors = factors + misnamed(head(seen), target) / len(CHOICES)
        loss = detection + 30 * landmarks + identity + factors
        return {
            "loss": loss, "detection": detection, "landmarks": landmarks, "identity": identity, "factors": factors,
        }  # fmt: skip

    def _detection(
        self, detector: Detector, canvases: list[tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]]
    ) -> Tensor:
        device = self.context.device
        maps = detector.maps(as_seen([image for image, *_ in canvases], device))
        loss = torch.zeros((), device=device)
        total = 0
        for level, said in enumerate(maps):
            label, target = self._targets(level, [row[1:] for row in canvases])
            truth, asked = torch.from_numpy(label).to(device), torch.from_numpy(target).float().to(device)
            logits = said[..., 0].float()
            there = (truth == 1)[..., None].expand_as(logits)
            counted = (truth >= 0)[..., None].expand_as(logits)
            sure = logits.sigmoid()
            focus = torch.where(there, (1 - sure).square(), 3 * sure.square())
            cross = F.binary_cross_entropy_with_logits(logits, there.float(), reduction="none")
            loss = loss + (focus * cross * counted).sum()
            total += int(there.sum())
            rows = said[..., 1:].float()[there]
            true = asked[:, :, :, None].expand(-1, -1, -1, ANCHORS, -1)[there]
            side = (true[:, :2] + true[:, 2:4]).amax(1, keepdim=True)
            wrong = F.smooth_l1_loss(rows / side, true / side, beta=0.02, reduction="none")
            loss = loss + 2 * wrong[:, :4].sum() + wrong[:, 4:].sum()
        return loss / max(1, total)

    def _targets(
        self, level: int, faces: list[tuple[NDArray[np.float64], NDArray[np.float64]]]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """One level's truth: (n, h, w) 1 a face, 0 none, -1 not asked; (n, h, w, 14) sides and keypoints in strides."""
        stride, cells = STRIDES[level], CANVAS // STRIDES[level]
        smallest, largest = (0.0, *LARGEST)[level], LARGEST[level]
        y, x = np.mgrid[:cells, :cells] * float(stride)
        label = np.zeros((len(faces), cells, cells), np.int64)
        target = np.zeros((len(faces), cells, cells, 14))
        for i, (boxes, keypoints) in enumerate(faces):
            for box, points in zip(boxes, keypoints, strict=True):
                side = float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])))
                far = np.maximum(abs(x - (box[0] + box[2]) / 2), abs(y - (box[1] + box[3]) / 2))
                middle = (box[:2] + box[2:]) / 2
                whole = bool((middle > 0.1 * CANVAS).all() and (middle < 0.9 * CANVAS).all())
                here = far < max(0.55 * stride, 0.13 * side)
                # Of a face that is another level's, cells say no, lest it be found several times. Between two levels
                # both say the same box, of which one is left; about the middle of its faces a level is not asked.
                if not smallest / BETWEEN <= side < largest * BETWEEN:
                    continue
                label[i][(far < 0.4 * side) & (label[i] == 0)] = -1
                if not whole:
                    continue
                label[i][here] = 1
                sides = np.stack([x - box[0], y - box[1], box[2] - x, box[3] - y], -1)
                spots = (points - np.stack([x, y], -1)[..., None, :]).reshape(cells, cells, 10)
                target[i][here] = np.concatenate([sides, spots], -1)[here] / stride
        return label, target

    # --- how good it is ---------------------------------------------------------------------------------------------

    def report(self, folder: Path, again: PictureMap = lambda images: images) -> dict[str, float]:
        """Return what insightface's own FaceAnalysis finds with the pack in `folder`, on held-out people.

        Detection is the share of pictures in which each face is found once (half of it and what was found is common);
        errors are medians, of portraits.
        """
        from insightface.app import FaceAnalysis  # type: ignore[import-not-found, import-untyped, unused-ignore]

        analysis = FaceAnalysis(name=str(folder), providers=["CPUExecutionProvider"])
        analysis.prepare(ctx_id=-1, det_size=(512, 512))
        images, truth = self.held_out.take(np.arange(self.held_out.size))
        found, apart, turned, embeddings, rows = [], [], [], [], []
        for i, image in enumerate(again(images)):
            faces = analysis.get(image[..., ::-1].copy())
            found.append(len(faces) == 1 and _overlap(faces[0].bbox, truth.box[i, 0]) > 0.5)
            if not found[-1]:
                continue
            width = truth.box[i, 0, 2] - truth.box[i, 0, 0]
            off = np.linalg.norm(faces[0].landmark_2d_106 - truth.landmarks[i, 0], axis=1)
            apart.append(np.median(off) / width)
            turned.append(np.abs(np.asarray(faces[0].pose) - truth.pose[i, 0]))
            embeddings.append(faces[0].normed_embedding)
            rows.append(i)
        said = {"detection": float(np.mean(found))}
        for groups in self.held_out_groups:
            shown, drawn = groups.take(np.arange(groups.size))
            once = [
                _each_once([face.bbox for face in analysis.get(image[..., ::-1].copy())], boxes)
                for image, boxes in zip(again(shown), drawn.box, strict=True)
            ]
            said[f"detection_of_{groups.count}"] = float(np.mean(once))
        if len(rows) < 8:
            return said
        said["landmarks"] = float(np.median(apart))
        said |= {f"{k}_degrees": float(v) for k, v in zip(("pitch", "yaw", "roll"), np.median(turned, 0), strict=True)}
        said["person_of_100"] = told_apart(np.stack(embeddings), truth.persons[rows, 0])
        return said

    def measures(self, network: nn.Module) -> dict[str, float]:
        assert isinstance(network, FacePack)
        with tempfile.TemporaryDirectory() as folder:
            write_pack(network, Path(folder))
            return self.report(Path(folder))

    def samples(self, network: nn.Module) -> NDArray[np.uint8]:
        """Return held-out faces with their 106 predicted points."""
        assert isinstance(network, FacePack)
        images, truth = self.held_out.take(np.arange(0, 64, 4))
        cuts, *_ = self._faces(images, truth, np.random.default_rng(0))
        said = network.landmarks(as_seen(cuts, self.context.device))[0].float().cpu().numpy().reshape(-1, 106, 2)
        for cut, points in zip(cuts, said, strict=True):
            for x, y in np.clip((points + 1) * LANDMARK_CUT / 2, 0, LANDMARK_CUT - 1).astype(int):
                cut[y, x] = (255, 0, 0)
        return image_grid(cuts, 8)


def _each_once(found: list[NDArray[np.float32]], true: NDArray[np.float32]) -> bool:
    """Return whether as many boxes were found as there are, and one over each."""
    return len(found) == len(true) and all(any(_overlap(box, face) > 0.5 for box in found) for face in true)


def _overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the intersection over union of two boxes."""
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    both = float(sides.prod())
    return both / float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - both)


def load(context: TrainContext) -> FacePack:
    pack = FacePack()
    pack.load_state_dict(context.stored("face-pack"))
    return pack.eval().requires_grad_(False)
