"""The expression classifier's stage: faces cropped as Encode Identity crops them, named as one of seven expressions."""

import tempfile
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..world.world import World
from .core import (
    CLASSIFIER_SIDE,
    EXPRESSION_CLASSES,
    Box,
    ExpressionClassifier,
    classifier_input,
    image_grid,
    normalized_gray,
)
from .expression_network import ExpressionNet, write_classifier
from .face_crops import warp
from .judge import PictureMap
from .pictures import NAMES, Pictures, numbers_of, pairs_and_trios
from .stage import Stage, StageConfig, TrainContext

_ORDER = np.array([EXPRESSION_CLASSES.index(name) for name in NAMES])  # of the world's expressions, in the outputs
_MARGIN = 1.3  # sides of a kept crop in a face's own, so that it can be shifted and enlarged
_KEPT = round(_MARGIN * CLASSIFIER_SIDE)  # pixels a side of it
_SIDE_VIEW = 10.0  # degrees of yaw, from which on a head is seen from the side


class ExpressionStage(Stage[ExpressionNet]):
    name = "expression"
    config = StageConfig(steps=1_500, learning_rate=2e-3, weight_decay=0.05, max_grad_norm=5.0, warmup_steps=100)
    network = ExpressionNet
    batch = 64  # faces a step

    def __init__(self, context: TrainContext, size: int = 4_500):
        super().__init__(context)
        world = World(seed=1)
        self.portraits = Pictures(context.folder, world, 1, size)
        self.groups = pairs_and_trios(context.folder, world, size // 9, size // 9)
        self.held_out = Pictures(context.folder, World(seed=14, held_out_people=True), 1, 500)

    @cached_property
    def faces(self) -> tuple[Tensor, Tensor]:
        """All faces of training, gray with a margin: (n, _KEPT, _KEPT) uint8, and their classes (n,)."""
        faces, labels = [], []
        for pictures, truth in (collection.all() for collection in (self.portraits, *self.groups)):
            labels.append(_ORDER[truth.expression.ravel()])
            for image, boxes in zip(pictures, truth.box, strict=True):
                gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
                for box in boxes:
                    scale = CLASSIFIER_SIDE / (box[2:] - box[:2]).max()
                    shift = _KEPT / 2 - scale * (box[:2] + box[2:] - 1) / 2 - 0.5
                    faces.append(warp(gray, np.column_stack([np.eye(2) * scale, shift]), _KEPT))
        return torch.from_numpy(np.stack(faces)), torch.from_numpy(np.concatenate(labels))

    def _seen(self, faces: Tensor, rng: torch.Generator) -> Tensor:
        """Return what the classifier is shown of kept faces (n, _KEPT, _KEPT): (n, 3, 64, 64).

        Boxes are a little off, as detectors' are, half the faces are mirrored; images are a little blurred, brighter or
        darker, and noisy: drawn ones went through an autoencoder.
        """
        count = len(faces)
        off, blur, mirror, gain, bright, noise = (
            torch.rand(count, k, generator=rng) for k in (3, 1, 1, 1, 1, 1)
        )  # fmt: skip
        zoom = (0.92 + 0.16 * off[:, 2]) / _MARGIN
        turn = torch.zeros(count, 2, 3)
        turn[:, 0, 0], turn[:, 1, 1] = zoom * (1 - 2 * (mirror[:, 0] < 0.5).float()), zoom
        turn[:, :, 2] = 0.16 * (off[:, :2] - 0.5)
        images = faces[:, None].float() / 255
        small = F.interpolate(images, scale_factor=0.6, mode="area")
        blurred = F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)
        images = torch.lerp(images, blurred, (2 * blur - 0.8).clamp(0, 1)[..., None, None])
        places = F.affine_grid(turn, [count, 1, CLASSIFIER_SIDE, CLASSIFIER_SIDE], align_corners=False)
        images = F.grid_sample(images, places, padding_mode="border", align_corners=False)
        grain = torch.randn(images.shape, generator=rng)
        gain, bright, noise = (x[..., None, None] for x in (gain, bright, noise))
        images = images * (0.85 + 0.3 * gain) + 0.1 * (bright - 0.5) + 0.04 * noise * grain
        return normalized_gray(images.clamp(0, 1))

    def step_losses(self, network: ExpressionNet, step: int, rng: torch.Generator) -> dict[str, Tensor]:
        faces, labels = self.faces
        numbers = torch.from_numpy(numbers_of(step, self.batch, len(faces)))
        seen = self._seen(faces[numbers], rng).to(self.context.device, memory_format=torch.channels_last)
        target = labels[numbers].to(self.context.device)
        scores = network(seen).float()
        loss = F.cross_entropy(scores, target, label_smoothing=0.05)
        return {"loss": loss, "wrong": (scores.detach().argmax(1) != target).float().mean()}

    # --- how good it is ---------------------------------------------------------------------------------------------

    def report(self, file: Path, again: PictureMap = lambda images: images) -> dict[str, float]:
        """Return shares of held-out portraits of which the classifier in an ONNX file names the expression.

        Of all, of each expression, and of heads from the front and turned.
        """
        classify = ExpressionClassifier(file, "CPU")
        images, truth = self.held_out.all()
        boxes = [Box.of(box) for box in truth.box[:, 0]]
        true = np.array([NAMES[number] for number in truth.expression[:, 0]])
        predicted = np.array([classify(image, box) for image, box in zip(again(images), boxes, strict=True)])
        right, side = predicted == true, np.abs(truth.pose[:, 0, 1]) > _SIDE_VIEW
        measured = {"expression": float(right.mean())}
        measured |= {f"of_{name}": float(right[true == name].mean()) for name in NAMES if (true == name).any()}
        return measured | {
            name: float(right[rows].mean()) for name, rows in (("front", ~side), ("side", side)) if rows.any()
        }

    def measures(self, network: ExpressionNet) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "expression.onnx"
            write_classifier(network, file)
            return self.report(file)

    def samples(self, network: ExpressionNet) -> NDArray[np.uint8]:
        """Return held-out faces as the classifier sees them, with what it says."""
        images, truth = self.held_out.take(np.arange(0, 64, 2))
        faces = np.concatenate(
            [classifier_input(image, Box.of(box)) for image, box in zip(images, truth.box[:, 0], strict=True)]
        )
        predicted = network(torch.from_numpy(faces).to(self.context.device)).argmax(1).tolist()
        cells = []
        for face, number, true in zip(faces, predicted, truth.expression[:, 0], strict=True):
            gray = np.clip((face[0] * 0.229 + 0.485) * 255, 0, 255).astype(np.uint8)
            cell = np.asarray(cv2.resize(np.repeat(gray[..., None], 3, 2), None, fx=2, fy=2), np.uint8)
            color = (0, 120, 0) if EXPRESSION_CLASSES[number] == NAMES[true] else (200, 0, 0)
            cv2.putText(cell, EXPRESSION_CLASSES[number], (2, 2 * CLASSIFIER_SIDE - 4), 0, 0.4, (255, 255, 255), 3)
            cv2.putText(cell, EXPRESSION_CLASSES[number], (2, 2 * CLASSIFIER_SIDE - 4), 0, 0.4, color, 1)
            cells.append(cell)
        return image_grid(cells, 8)
