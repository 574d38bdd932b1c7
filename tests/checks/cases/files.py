"""Cases of the checks of the file and of what lies beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx

from tests.checks.cases.given import Case, Given, file, net

_ADD = net("y = Add(x, w)", weights="float[2] w = {1, 2}")


def outside(location: str, data: str, size: int = 8, length: int = 8) -> Callable[[onnx.ModelProto, Path], None]:
    """Move the first weight to ``location``; ``data`` is the file that is written, of ``size`` bytes."""

    def change(proto: onnx.ModelProto, folder: Path) -> None:
        (folder / data).write_bytes(b"\0" * size)
        tensor = proto.graph.initializer[0]
        tensor.ClearField("float_data")
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="length", value=str(length))

    return change


def _trace(text: str) -> Callable[[onnx.ModelProto, Path], None]:
    def change(proto: onnx.ModelProto, folder: Path) -> None:
        proto.graph.node[0].metadata_props.add(key="stack_trace", value=text)

    return change


def _of_size(size: int) -> Callable[[Path], Given]:
    def make(folder: Path) -> Given:
        path = folder / f"{size}.onnx"
        with path.open("wb") as stream:
            os.truncate(stream.fileno(), size)  # a hole: it takes no room
        return Given(path)

    return make


CASES = {
    "X01": Case(
        file(_ADD, outside("../w.bin", "w.bin")), file(_ADD, outside("w.bin", "w.bin")), "outside the model's folder",
    ),
    "X02": Case(
        file(_ADD, outside("w.bin", "w.bin", size=7)), file(_ADD, outside("w.bin", "w.bin")),
        "it ends at byte 8 of 'w.bin', which has 7", evidence={"needed": 8, "file_bytes": 7},
    ),
    "X03": Case(_of_size(2**31), _of_size(2**20), "protobuf reads"),
    "X04": Case(
        file(net("y = Relu(x)"), _trace('File "/home/ann/net.py", line 3')),
        file(net("y = Relu(x)"), _trace('File "net.py", line 3; see https://example.org/home/ann')),
        "1 path of ann, such as /home/ann/net.py", evidence={"users": ["ann"]},
    ),
}  # fmt: skip
