"""The face pack's stage: detector, landmarks and recognition, each on cuts as insightface makes them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..world.person import CHOICES
from ..world.world import Gallery, World
from .core import image_grid
from .face_crops import ALIGNED, around_box, enlarged, similarity, to_crop_coords, warp
from .face_networks import ANCHORS, LANDMARK_CROP, RECOGNITION_CROP, STRIDES, Detector, FacePack, write_pack
from .judge import ANGLES, PictureMap, identified_share, misnamed, supervised_contrastive, true_kinds
from .pictures import Pictures, Truth, pairs_and_trios, turns
from .stage import Stage, StageConfig, TrainContext

CANVAS = 320
LARGEST = (72.0, 144.0, 1e9)  # a face's side in pixels, for each of STRIDES
BETWEEN = 1.25  # times these limits, two levels share a face
Random = np.random.Generator
Canvas = tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]
"""An image in the detector's frame, and the boxes and keypoints there."""
FaceCrop = tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]
"""A landmark crop, its 106 points (106, 2) and its 68 (68, 3) as the networks are to predict them."""


def to_input(crops: Sequence[NDArray[np.uint8]], device: torch.device, divisor: float = 128.0) -> Tensor:
    """Return RGB crops as insightface hands them to its networks: (n, 3, H, W), about [-1, 1]."""
    images = torch.from_numpy(np.stack(crops)).to(device).permute(0, 3, 1, 2).float()
    return ((images - 127.5) / divisor).contiguous(memory_format=torch.channels_last)


def _degraded(image: NDArray[np.uint8], rng: Random) -> NDArray[np.uint8]:
    """Return an image a little tinted and noisy: those to be analyzed are not the renderer's own."""
    shade = rng.uniform(0.92, 1.08) * image + rng.uniform(-8, 8, 3) + rng.uniform(0, 6) * rng.normal(size=image.shape)
    return np.clip(shade, 0, 255).astype(np.uint8)


class FacePackStage(Stage[FacePack]):
    name = "face-pack"
    config = StageConfig(steps=6_700, learning_rate=1.5e-3, weight_decay=0.02, max_grad_norm=10.0)
    canvases, people, views = 8, 10, 4
    temperature = 0.08  # sharp enough that people who are alike are told apart

    def __init__(self, context: TrainContext, size: int = 24_000):
        super().__init__(context)
        world = World(seed=1)
        self.gallery = Pictures(context.folder, Gallery(seed=11), 1, size)
        self.portraits = Pictures(context.folder, world, 1, size // 2)
        self.pairs, self.trios = pairs_and_trios(context.folder, world, size // 4, size // 16)
        self.held_out = Pictures(context.folder, Gallery(seed=12, held_out_people=True), 1, 500)
        self.held_out_groups = pairs_and_trios(context.folder, World(seed=13, held_out_people=True), 100, 100)

    def network(self) -> FacePack:
        pack = FacePack()
        # Only while training: naming what is seen teaches what to look at.
        pack.add_module("factors", nn.ModuleDict({k: nn.Linear(192, len(options)) for k, options in CHOICES.items()}))
        return pack

    def weights(self, network: FacePack) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in super().weights(network).items() if not name.startswith("factors.")}

    # --- what the networks see --------------------------------------------------------------------------------------

    def _canvas(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32], keypoints: NDArray[np.float32], rng: Random
    ) -> Canvas:
        """Return an image randomly enlarged in the detector's frame."""
        zoom = float(np.exp(rng.uniform(np.log(0.8), np.log(5.2))))
        scale = np.array([zoom, zoom * (rng.uniform(1, 2) if rng.random() < 0.15 else 1.0)])
        shift = np.zeros(2)
        if rng.random() < 0.8:
            who = rng.integers(len(boxes))
            middle = scale * (boxes[who, :2] + boxes[who, 2:]) / 2
            shift = rng.uniform(0.25, 0.75, 2) * CANVAS - middle
        matrix = np.column_stack([np.diag(scale), shift])
        warped = warp(image, np.column_stack([np.diag(scale), shift + 0.5 * scale - 0.5]), CANVAS)
        corners = to_crop_coords(boxes.reshape(-1, 2, 2), matrix)
        return _degraded(warped, rng), corners.reshape(-1, 4), to_crop_coords(keypoints, matrix)

    def _faces(self, pictures: NDArray[np.uint8], truth: Truth, rng: Random) -> list[FaceCrop]:
        faces = []
        half = LANDMARK_CROP / 2
        for image, boxes, landmarks, points in zip(pictures, truth.box, truth.landmarks, truth.points68, strict=True):
            for k, box in enumerate(boxes):
                side = (box[2:] - box[:2]).max()
                off = np.tile(rng.normal(0, 0.03, 2), 2) + np.array([-1, -1, 1, 1]) * rng.normal(0, 0.03)
                stretch = rng.uniform(1, 2) if rng.random() < 0.1 else 1.0
                matrix = around_box(box + side * off, LANDMARK_CROP, stretch)
                crop = _degraded(warp(image, enlarged(matrix, rng.choice([1, 2, 4])), LANDMARK_CROP), rng)
                spot = to_crop_coords(points[k, :, :2], matrix) / half - 1
                deep = np.column_stack([spot, points[k, :, 2] * matrix[0, 0] / half])
                faces.append((crop, to_crop_coords(landmarks[k], matrix) / half - 1, deep))
        return faces

    def _aligned(self, pictures: NDArray[np.uint8], truth: Truth, rng: Random) -> list[NDArray[np.uint8]]:
        crops = []
        for image, (points,) in zip(pictures, truth.keypoints, strict=True):
            extent = np.ptp(points, axis=0).max()
            matrix = similarity(points + rng.normal(0, 0.02, points.shape) * extent, ALIGNED)
            crops.append(_degraded(warp(image, enlarged(matrix, rng.choice([1, 2, 4])), RECOGNITION_CROP), rng))
        return crops

    # --- losses -----------------------------------------------------------------------------------------------------

    def step_losses(self, network: FacePack, step: int, rng: torch.Generator) -> dict[str, Tensor]:
        device = self.context.device
        numpy_rng = np.random.default_rng(rng.initial_seed())
        half = self.canvases // 2
        three, turn = turns(step, 4)
        groups = self.trios if three else self.pairs
        batches = [self.portraits.batch(step, half), groups.batch(turn, self.canvases - half)]

        canvases: list[Canvas] = []
        faces: list[FaceCrop] = []
        for pictures, truth in batches:
            rows = zip(pictures, truth.box, truth.keypoints, strict=True)
            canvases += [self._canvas(*row, numpy_rng) for row in rows]
            faces += self._faces(pictures, truth, numpy_rng)
        detection = self._detection(network.detector, canvases)
        crops, *targets = zip(*faces, strict=True)
        landmarks = torch.zeros((), device=device)
        for prediction, target in zip(network.landmarks(to_input(crops, device)), targets, strict=True):
            error = prediction.float() - torch.from_numpy(np.stack(target)).float().flatten(1).to(device)
            landmarks = landmarks + F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.02)

        pictures, truth = self.gallery.sets(step, self.people)
        features = network.recognition.trunk(to_input(self._aligned(pictures, truth, numpy_rng), device, 127.5))
        vectors = F.normalize(network.recognition.embedding(features).float(), dim=1)
        identity = supervised_contrastive(vectors, truth.persons[:, 0], self.temperature)
        factors = torch.zeros((), device=device)
        kinds, heads = true_kinds(truth), network.get_submodule("factors")
        assert isinstance(heads, nn.ModuleDict)
        for name, head in heads.items():
            label = torch.from_numpy(kinds[name]).to(device)
            factors = factors + misnamed(head(features), label) / len(CHOICES)
        loss = detection + 30 * landmarks + identity + factors
        return {
            "loss": loss, "detection": detection, "landmarks": landmarks, "identity": identity, "factors": factors,
        }  # fmt: skip

    def _detection(self, detector: Detector, canvases: list[Canvas]) -> Tensor:
        device = self.context.device
        maps = detector.maps(to_input([image for image, *_ in canvases], device))
        loss = torch.zeros((), device=device)
        total = 0
        for level, prediction in enumerate(maps):
            label, target = self._targets(level, [row[1:] for row in canvases])
            truth, offsets = torch.from_numpy(label).to(device), torch.from_numpy(target).float().to(device)
            logits = prediction[..., 0].float()
            there = (truth == 1)[..., None].expand_as(logits)
            counted = (truth >= 0)[..., None].expand_as(logits)
            sure = logits.sigmoid()
            focus = torch.where(there, (1 - sure).square(), 3 * sure.square())
            cross = F.binary_cross_entropy_with_logits(logits, there.float(), reduction="none")
            loss = loss + (focus * cross * counted).sum()
            total += int(there.sum())
            rows = prediction[..., 1:].float()[there]
            true = offsets[:, :, :, None].expand(-1, -1, -1, ANCHORS, -1)[there]
            side = (true[:, :2] + true[:, 2:4]).amax(1, keepdim=True)
            wrong = F.smooth_l1_loss(rows / side, true / side, beta=0.02, reduction="none")
            loss = loss + 2 * wrong[:, :4].sum() + wrong[:, 4:].sum()
        return loss / max(1, total)

    def _targets(
        self, level: int, faces: list[tuple[NDArray[np.float64], NDArray[np.float64]]]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return labels (n, h, w), 1 a face, 0 none, -1 neither; sides and keypoints (n, h, w, 14) in strides."""
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
                # Of a face that is another level's, cells say no, lest it be detected several times. Between two levels
                # both say the same box, of which one is left; about the middle of its faces a level is not counted.
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
        images, truth = self.held_out.all()
        detected, errors, angles, embeddings, rows = [], [], [], [], []
        for i, image in enumerate(again(images)):
            faces = analysis.get(image[..., ::-1].copy())
            detected.append(_each_once([face.bbox for face in faces], truth.box[i]))
            if not detected[-1]:
                continue
            off = np.linalg.norm(faces[0].landmark_2d_106 - truth.landmarks[i, 0], axis=1)
            errors.append(np.median(off) / (truth.box[i, 0, 2] - truth.box[i, 0, 0]))
            angles.append(np.abs(np.asarray(faces[0].pose) - truth.pose[i, 0]))
            embeddings.append(faces[0].normed_embedding)
            rows.append(i)
        measured = {"detection": float(np.mean(detected))}
        for groups in self.held_out_groups:
            pictures, drawn = groups.all()
            once = [
                _each_once([face.bbox for face in analysis.get(image[..., ::-1].copy())], boxes)
                for image, boxes in zip(again(pictures), drawn.box, strict=True)
            ]
            measured[f"detection_of_{groups.count}"] = float(np.mean(once))
        if len(rows) < 8:
            return measured
        measured["landmarks"] = float(np.median(errors))
        measured |= {f"{k}_degrees": float(v) for k, v in zip(ANGLES, np.median(angles, 0), strict=True)}
        measured["person_of_100"] = identified_share(np.stack(embeddings), truth.persons[rows, 0])
        return measured

    def measures(self, network: FacePack) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            write_pack(network, Path(folder))
            return self.report(Path(folder))

    def samples(self, network: FacePack) -> NDArray[np.uint8]:
        """Return held-out faces with their 106 predicted points."""
        faces = self._faces(*self.held_out.take(np.arange(0, 64, 4)), np.random.default_rng(0))
        crops = [crop for crop, *_ in faces]
        points = network.landmarks(to_input(crops, self.context.device))[0].float().cpu().numpy().reshape(-1, 106, 2)
        for crop, row in zip(crops, points, strict=True):
            for x, y in np.clip((row + 1) * LANDMARK_CROP / 2, 0, LANDMARK_CROP - 1).astype(int):
                crop[y, x] = (255, 0, 0)
        return image_grid(crops, 8)


def _each_once(detected: list[NDArray[np.float32]], true: NDArray[np.float32]) -> bool:
    """Return whether as many boxes were detected as there are, and one over each."""
    return len(detected) == len(true) and all(any(_overlap(box, face) > 0.5 for box in detected) for face in true)


def _overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the intersection over union of two boxes."""
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    both = float(sides.prod())
    return both / float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - both)
