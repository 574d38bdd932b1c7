"""Cases of the checks that do not run the model."""

from __future__ import annotations

from pathlib import Path

import onnx

from tests.checks.cases.given import Case, file, net, text


def _outside(location: str, data: str) -> object:
    def change(proto: onnx.ModelProto, folder: Path) -> None:
        target = folder / "model" / location if False else folder / data
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"\0" * 8)
        tensor = proto.graph.initializer[0]
        tensor.ClearField("float_data")
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="length", value="8")

    return change


_ADD = net("y = Add(x, w)", weights="float[2] w = {1, 2}")

CASES = {
    "G01": Case(
        file(net("y = Relu(x, x)")), file(net("y = Relu(x)")), "has input size 2 not in range"
    ),
    "G03": Case(
        text(net("[a] h = Relu(x) [a] y = Neg(h)")), text(net("[a] h = Relu(x) [b] y = Neg(h)")), "called the same",
        evidence={"nodes": 2},
    ),
    "X01": Case(
        file(_ADD, _outside("../w.bin", "w.bin")), file(_ADD, _outside("w.bin", "w.bin")), "outside the model's folder"
    ),
}  # fmt: skip
