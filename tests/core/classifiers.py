"""Small expression models in ONNX files, which tell gray values apart."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from dynamicid_pack.dynamicid_core.expression_classifier import CLASSES

SIZE = (1, 3, 64, 64)


def classifier_file(
    path: Path, shape: tuple = SIZE, classes: int = len(CLASSES), metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a network whose kth class is what is nearest to a mean (of what it sees) of k/2 - 1.5."""
    means = np.arange(classes) / 2 - 1.5
    channels = shape[1]
    slope = np.tile(2 * means / channels, (channels, 1)).astype(np.float32)
    make = onnx.helper
    nodes = [
        make.make_node("GlobalAveragePool", ["x"], ["mean"]),
        make.make_node("Flatten", ["mean"], ["flat"]),
        make.make_node("Gemm", ["flat", "slope", "offset"], ["scores"]),
    ]
    graph = make.make_graph(
        nodes, "classifier",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", *shape[1:]])],
        [make.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", classes])],
        [
            onnx.numpy_helper.from_array(slope, "slope"),
            onnx.numpy_helper.from_array(-(means**2).astype(np.float32), "offset"),
        ],
    )  # fmt: skip
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    if metadata:
        make.set_model_props(model, dict(metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def gray_for(number: int) -> int:
    """Return the gray value of an image that a classifier of three channels takes for its class `number`."""
    return round(255 * (0.449 + 0.226 * (number / 2 - 1.5)))
