"""The face pack's networks, and how they become the files that insightface loads."""

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..quantize import ROW_SCALE, quantize

STRIDES = (8, 16, 32)
ANCHORS = 2
# What a level's logits lose where the middle level is sure of a face: its neighbours are rather sure of it too.
YIELDS = (1.0, 0.0, 1.5)
LANDMARK_CROP, RECOGNITION_CROP = 192, 112
POINTS = 1103  # of the real 1k3d68, whose last 68 are used


def conv(inside: int, outside: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    """Return a convolution with batch norm and ReLU."""
    layer = nn.Conv2d(inside, outside, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outside), nn.ReLU())


class Detector(nn.Module):
    """SCRFD's interface: (1, 3, H, W), sides divisible by 32, to scores, boxes and keypoints at three strides.

    Boxes are distances from a cell's corner to the four sides, keypoints offsets from it, both in strides.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 2), conv(16, 24, 2))
        self.levels = nn.ModuleList(
            [
                nn.Sequential(conv(24, 48, 2), conv(48, 48)),
                nn.Sequential(conv(48, 96, 2), conv(96, 96)),
                nn.Sequential(conv(96, 128, 2), conv(128, 128), conv(128, 128), conv(128, 128)),
            ]
        )
        self.across = nn.ModuleList([nn.Conv2d(width, 64, 1) for width in (48, 96, 128)])
        self.head = conv(64, 64)
        self.said = nn.Conv2d(64, ANCHORS * 15, 1)  # the name of its weights in the shipped file
        with torch.no_grad():
            self.said.state_dict()["bias"].view(ANCHORS, 15)[:, 0] = -4.0  # hardly a cell is a face's

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return each level's (n, h, w, ANCHORS, 15): logit, 4 sides, 5 keypoints' x and y."""
        x, levels = self.stem(images), []
        for level in self.levels:
            x = level(x)
            levels.append(x)
        maps: list[Tensor] = []
        above: Tensor | None = None
        for across, level in zip(reversed(self.across), reversed(levels), strict=True):
            x = across(level)
            above = x if above is None else x + F.interpolate(above, scale_factor=2.0)
            maps.insert(0, self.said(self.head(above)).permute(0, 2, 3, 1).unflatten(-1, (ANCHORS, 15)))
        return maps

    @staticmethod
    def _yielding(logits: list[Tensor]) -> list[Tensor]:
        """Return each level's logits (n, h, w, ANCHORS), lower where the middle level detects the face."""
        fine, middle, coarse = logits
        near = F.max_pool2d(middle.amax(-1)[:, None].sigmoid(), 3, 1, 1)
        at_fine = F.interpolate(near, scale_factor=2.0)[:, 0, :, :, None]
        at_coarse = F.max_pool2d(near, 2)[:, 0, :, :, None]
        return [fine - YIELDS[0] * at_fine, middle, coarse - YIELDS[2] * at_coarse]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.maps(images)
        rows = [level.reshape(-1, 15) for level in maps]
        sure = [logits.reshape(-1, 1).sigmoid() for logits in self._yielding([level[..., 0] for level in maps])]
        return (*sure, *(r[:, 1:5] for r in rows), *(r[:, 5:] for r in rows))


class Landmarks(nn.Module):
    """Crops (n, 3, 192, 192) to 106 points (n, 212) and 68 3-D points (n, 204), in half crops from the middle."""

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 48, 96, 128)
        layers: list[nn.Module] = [nn.AvgPool2d(2), conv(3, 16, 2)]
        for inside, outside in zip((16, *widths), widths, strict=False):
            layers += [conv(inside, outside, 1 if outside == 24 else 2), conv(outside, outside)]
        layers += [conv(128, 56, size=1), nn.Flatten(), nn.Linear(56 * 36, 192), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.flat, self.deep = nn.Linear(192, 212), nn.Linear(192, 204)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(crops)
        return self.flat(x), self.deep(x)


class Flat(nn.Module):
    """2d106det's interface."""

    def __init__(self, landmarks: Landmarks):
        super().__init__()
        self.landmarks = landmarks

    def forward(self, crops: Tensor) -> Tensor:
        return self.landmarks.flat(self.landmarks.trunk(crops))


class Deep(Flat):
    """1k3d68's interface: all but the last 68 points are zeros."""

    def forward(self, crops: Tensor) -> Tensor:
        return F.pad(self.landmarks.deep(self.landmarks.trunk(crops)), (3 * (POINTS - 68), 0))


class Recognition(nn.Module):
    """Aligned crops (n, 3, 112, 112) to embeddings (n, 512)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(3, 24, 2, 5)]
        for inside, outside in ((24, 32), (32, 64), (64, 128), (128, 160)):
            layers += [conv(inside, outside, 1 if inside == 24 else 2), conv(outside, outside)]
        layers += [conv(160, 72, size=1), nn.Flatten(), nn.Linear(72 * 49, 192), nn.BatchNorm1d(192), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.embedding = nn.Linear(192, 512)

    def forward(self, crops: Tensor) -> Tensor:
        return self.embedding(self.trunk(crops))


class FacePack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.detector, self.landmarks, self.recognition = Detector(), Landmarks(), Recognition()


def in_bytes(data: bytes, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return an ONNX file whose larger weights take a byte each, with a scale for every row, as `quantize` does.

    Args:
        metadata: texts that the file is to hold, too.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(data)
    widened, scales = [], []
    for weight in model.graph.initializer:
        name, values = weight.name, numpy_helper.to_array(weight)
        if values.dtype != np.float32:
            continue
        tensors = quantize({name: torch.from_numpy(values.copy())})
        if tensors[name].dtype != torch.int8:
            continue
        weight.CopyFrom(numpy_helper.from_array(tensors[name].numpy(), f"{name}.bytes"))
        scales.append(numpy_helper.from_array(tensors[name + ROW_SCALE].float().numpy(), f"{name}.scale"))
        widened.append(helper.make_node("DequantizeLinear", [f"{name}.bytes", f"{name}.scale"], [name], axis=0))
    model.graph.initializer.extend(scales)
    nodes = [*widened, *model.graph.node]
    for i, node in enumerate(nodes):
        node.name = f"node_{i}"  # insightface takes early nodes called Sub and Mul for built-in preprocessing
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if metadata:
        helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_pack(pack: FacePack, folder: Path) -> None:
    """Write the pack's files as buffalo_l names them; the folder may then be given to insightface's FaceAnalysis."""
    folder.mkdir(parents=True, exist_ok=True)
    pack = copy.deepcopy(pack).cpu().eval()
    landmark, recognition = (torch.zeros(1, 3, side, side) for side in (LANDMARK_CROP, RECOGNITION_CROP))
    of_any_size = {2: "height", 3: "width"}
    outputs = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in STRIDES]
    files: dict[str, tuple[nn.Module, Tensor, list[str], dict[str, dict[int, str]]]] = {
        "det_10g": (
            pack.detector,
            torch.zeros(1, 3, 160, 160),
            outputs,
            {"image": of_any_size} | {name: {0: f"cells_{name}"} for name in outputs},
        ),
        "2d106det": (Flat(pack.landmarks), landmark, ["points"], {"image": {0: "n"}, "points": {0: "n"}}),
        "1k3d68": (Deep(pack.landmarks), landmark, ["points"], {"image": {0: "n"}, "points": {0: "n"}}),
        "w600k_r50": (pack.recognition, recognition, ["embedding"], {"image": {0: "n"}, "embedding": {0: "n"}}),
    }
    for name, (network, example, outputs, free) in files.items():
        path = folder / f"{name}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # this exporter is the older one, which needs no further package
            torch.onnx.export(
                network.eval(), (example,), path, input_names=["image"], output_names=outputs, dynamic_axes=free,
                opset_version=17, dynamo=False,
            )  # fmt: skip
        path.write_bytes(in_bytes(path.read_bytes()))
