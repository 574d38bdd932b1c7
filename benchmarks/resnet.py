"""ResNet-18 and ResNet-50 shapes with random weights, BatchNorm folded as exporters do, written without a framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["resnet"]

_STAGES = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


class _Writer:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def node(self, op: str, inputs: list[str], **attributes: object) -> str:
        output = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{op}_{len(self.nodes)}", **attributes))
        return output

    def conv(self, x: str, channels: int, filters: int, kernel: int, stride: int = 1) -> str:
        name = f"w{len(self.weights)}"
        scale = np.sqrt(1.4 / (channels * kernel * kernel))
        weight = self.random.standard_normal((filters, channels, kernel, kernel), np.float32) * np.float32(scale)
        self.weights.append(numpy_helper.from_array(weight, name))
        self.weights.append(numpy_helper.from_array(np.zeros(filters, np.float32), f"{name}.bias"))
        pads = [kernel // 2] * 4
        shape = {"kernel_shape": [kernel, kernel], "strides": [stride, stride], "pads": pads}
        return self.node("Conv", [x, name, f"{name}.bias"], **shape)

    def block(self, x: str, channels: int, width: int, stride: int, bottleneck: bool) -> str:
        out = width * 4 if bottleneck else width
        skip = self.conv(x, channels, out, 1, stride) if stride != 1 or channels != out else x
        if bottleneck:
            y = self.node("Relu", [self.conv(x, channels, width, 1)])
            y = self.node("Relu", [self.conv(y, width, width, 3, stride)])
            y = self.conv(y, width, out, 1)
        else:
            y = self.node("Relu", [self.conv(x, channels, width, 3, stride)])
            y = self.conv(y, width, width, 3)
        return self.node("Relu", [self.node("Add", [y, skip])])


def resnet(depth: int, path: Path) -> Path:
    """Write the network of He et al., 2015, table 1, with 18 or 50 layers; input ``x`` is (N, 3, 224, 224) float32."""
    writer, bottleneck = _Writer(), depth >= 50
    x = writer.node("Relu", [writer.conv("x", 3, 64, 7, 2)])
    x = writer.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, count in enumerate(_STAGES[depth]):
        width = 64 << stage
        for position in range(count):
            x = writer.block(x, channels, width, 2 if stage and not position else 1, bottleneck)
            channels = width * 4 if bottleneck else width
    x = writer.node("Flatten", [writer.node("GlobalAveragePool", [x])])
    weight = writer.random.standard_normal((channels, 1000), np.float32) / np.float32(np.sqrt(channels))
    writer.weights += [
        numpy_helper.from_array(weight, "fc"),
        numpy_helper.from_array(np.zeros(1000, np.float32), "fc.bias"),
    ]
    writer.nodes.append(helper.make_node("Gemm", [x, "fc", "fc.bias"], ["y"], name="fc"))
    graph = helper.make_graph(
        writer.nodes,
        f"resnet{depth}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 224, 224])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1000])],
        writer.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path
