"""The network that reads a drawn face's expression, and its ONNX file: of the kind that the data builder takes."""

import copy
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from .core import CLASSIFIER_SIDE, EXPRESSION_CLASSES
from .face_networks import conv, in_bytes


class ExpressionNet(nn.Module):
    """`classifier_input` (n, 3, 64, 64) to scores (n, 7) of EXPRESSION_CLASSES."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(3, 24, 2, 5), conv(24, 40, 2), conv(40, 40), conv(40, 72, 2), conv(72, 72)]
        layers += [conv(72, 96, 2), conv(96, 40, size=1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(40 * 16, 64)]
        self.trunk = nn.Sequential(*layers, nn.BatchNorm1d(64), nn.ReLU())
        self.scores = nn.Linear(64, len(EXPRESSION_CLASSES))

    def forward(self, faces: Tensor) -> Tensor:
        return self.scores(self.trunk(faces))


def write_classifier(network: ExpressionNet, path: Path) -> None:
    """Write the network as an ONNX file, its larger weights a byte each, the classes' names in its metadata."""
    network = copy.deepcopy(network).cpu().float().eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is the older one, which needs no further package
        torch.onnx.export(
            network, (torch.zeros(1, 3, CLASSIFIER_SIDE, CLASSIFIER_SIDE),), path, input_names=["face"],
            output_names=["scores"], dynamic_axes={"face": {0: "n"}, "scores": {0: "n"}}, opset_version=17,
            dynamo=False,
        )  # fmt: skip
    path.write_bytes(in_bytes(path.read_bytes(), {"classes": json.dumps(EXPRESSION_CLASSES)}))
