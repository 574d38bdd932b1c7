from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, parser

from onnxviz.errors import ModelError
from onnxviz.graph.expose import expose
from onnxviz.graph.io import external_tensors, open_model, save_model
from onnxviz.graph.model import copy_model, from_proto, model_name, to_proto
from onnxviz.graph.shapes import dtype_name
from onnxviz.runtime.capture import capture

RELU = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Relu(x)}'


def external_model(path: Path, location: str, data: bytes | None, size: int = 4) -> Path:
    """Write y = x + w with w in ``location``."""
    proto = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[{size}] x) => (float[{size}] y) {{y = Add(x, w)}}'
    )
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[size], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    proto.graph.initializer.append(weight)
    path.write_bytes(proto.SerializeToString())
    if data is not None:
        (path.parent / location).write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "there is no file"),
        (b"", "is empty"),
        (b"\xff" * 4096, "is not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"<!doctype html><p>404", "is HTML"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x89HDF\r\n", "HDF5"),
        (b'{"irVersion": 8}', "is JSON"),
        (b"\x08\x08", "holds no graph"),
    ],
)
def test_what_is_not_a_model_is_said_in_one_line(tmp_path: Path, content: bytes | None, what: str) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=what) as caught:
        open_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(tmp_path: Path, models: Path, share: float) -> None:
    data = (models / "lenet5.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match="truncated"):
        open_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('<ir_version: 99, opset_import: ["": 17]>', "IR version 99, newer"),
        ('<ir_version: 8, opset_import: ["": 9999]>', "opset 9999, newer"),
        ('<ir_version: 8, opset_import: ["": 0]>', "opset 0, which does not exist"),
    ],
)
def test_versions_that_onnx_does_not_know(tmp_path: Path, text: str, what: str) -> None:
    body = " g (float[2] x) => (float[2] y) {y = Relu(x)}"
    (tmp_path / "m.onnx").write_bytes(parser.parse_model(text + body).SerializeToString())
    with pytest.raises(ModelError, match=what):
        open_model(tmp_path / "m.onnx")


def test_a_value_written_twice_is_a_damaged_model(tmp_path: Path) -> None:
    proto = parser.parse_model(RELU)
    proto.graph.node.append(helper.make_node("Abs", ["x"], ["y"]))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="damaged"):
        open_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "..", "", "C:\\w.bin", "..\\w.bin", "http://localhost/w.bin", "a\0b"]
)
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 16)
    with pytest.raises(ModelError):
        open_model(external_model(folder / "m.onnx", location, None))


def test_a_link_out_of_the_folder_is_refused_and_a_download_cache_is_not(tmp_path: Path) -> None:
    folder, blobs = tmp_path / "snapshots" / "1", tmp_path / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "weights").write_bytes(np.float32([1, 2, 3, 4]).tobytes())
    external_model(folder / "m.onnx", "w.bin", None)
    (folder / "w.bin").symlink_to(blobs / "weights")
    with pytest.raises(ModelError, match="link out"):
        open_model(folder / "m.onnx")
    (folder / "m.onnx").rename(blobs / "graph")
    (folder / "m.onnx").symlink_to(blobs / "graph")  # a cache: the model itself lies where its weights lie
    (_, tensor), *_ = external_tensors(open_model(folder / "m.onnx"))
    assert tensor.numpy().tolist() == [1, 2, 3, 4]


def function_with_external_weight(path: Path, location: str) -> Path:
    """Write a model whose local function holds a Constant with external data."""
    proto = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18, "loc": 1]> g (float[4] x) => (float[4] y) { y = loc.f(x) }
        <domain: "loc", opset_import: ["": 18]> f (a) => (b) { w = Constant<value = float[4] {0, 0, 0, 0}>() b = Add(a, w) }"""
    )
    tensor = proto.functions[0].node[0].attribute[0].t
    for field in ("float_data", "raw_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_in_functions_is_confined_too(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="outside the model's folder"):
        open_model(function_with_external_weight(tmp_path / "m.onnx", "../secret.bin"))


def test_external_data_in_attributes_comes_along(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.float32([1, 2, 3, 4]).tobytes())
    model = open_model(function_with_external_weight(tmp_path / "m.onnx", "w.bin"))
    (tmp_path / "other").mkdir()
    save_model(expose(model).model, tmp_path / "other" / "m.onnx")
    again = capture(open_model(tmp_path / "other" / "m.onnx"), {"x": np.zeros(4, np.float32)}, providers="cpu")
    assert again["y"].array.tolist() == [1, 2, 3, 4]


def test_missing_and_short_weights_are_named_when_they_are_needed(tmp_path: Path) -> None:
    model = open_model(external_model(tmp_path / "m.onnx", "w.bin", None))
    assert model.graph.num_nodes() == 1
    with pytest.raises(ModelError, match=r"no file w\.bin beside the model"):
        save_model(model, tmp_path / "copy.onnx")
    (tmp_path / "w.bin").write_bytes(b"\0" * 8)
    with pytest.raises(ModelError, match="too short"):
        save_model(model, tmp_path / "copy.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "w.bin"]


def test_external_weights_stay_where_they_are_in_their_folder_and_are_copied_elsewhere(tmp_path: Path) -> None:
    data = np.float32([1, 2, 3, 4]).tobytes() * 100
    model = open_model(external_model(tmp_path / "m.onnx", "w.bin", data, size=400))
    save_model(model, tmp_path / "beside.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["beside.onnx", "m.onnx", "w.bin"]
    (tmp_path / "other").mkdir()
    save_model(model, tmp_path / "other" / "m.onnx")
    assert sorted(p.name for p in (tmp_path / "other").iterdir()) == ["m.onnx", "m.onnx.data"]
    loaded = onnx.load(tmp_path / "other" / "m.onnx")
    assert onnx.numpy_helper.to_array(loaded.graph.initializer[0]).tobytes() == data
    assert next(iter(external_tensors(model)))[1].location == "w.bin", "the caller's model changed"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of its memory in /proc")
def test_over_2_gb_of_weights_are_neither_loaded_nor_copied(tmp_path: Path) -> None:
    size = 2_400_000_000 // 4
    path = external_model(tmp_path / "m.onnx", "w.bin", b"", size)
    os.truncate(tmp_path / "w.bin", size * 4)  # a hole: takes no room on the disk
    script = (
        "import re, sys; from onnxviz.graph.io import open_model, save_model; from onnxviz.graph.expose import expose; "
        "save_model(expose(open_model(sys.argv[1]), '*').model, sys.argv[2]); "
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path, tmp_path / "out.onnx"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 400e6
    assert (tmp_path / "out.onnx").stat().st_size < 10_000


def test_maps_and_sparse_weights_survive_a_round_trip(tmp_path: Path) -> None:
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    node = helper.make_node("ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", 1, [1, 2])], [helper.make_value_info("z", kind)]
    )
    values = helper.make_tensor("s", TensorProto.FLOAT, [2], [5, 7])
    graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [2], [1, 5]), [2, 3])
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8
    )
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    model = copy_model(open_model(tmp_path / "m.onnx"))
    assert to_proto(model).graph.output[0].type == kind
    assert dtype_name(model.graph.outputs[0]) == "sequence(map(int64, float32))"
    assert model.graph.initializers["s"].const_value.numpy().tolist() == [[0, 5, 0], [0, 0, 7]]


def test_nodes_in_any_order_are_sorted_and_a_cycle_is_kept_and_named() -> None:
    unsorted = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] z) {z = Neg(y) y = Relu(x)}'
    )
    assert [node.op_type for node in from_proto(unsorted).graph] == ["Relu", "Neg"]
    cyclic = from_proto(
        parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] z) {z = Add(x, z)}')
    )
    with pytest.raises(ModelError, match="cycle"):
        copy_model(cyclic)


def test_a_copy_shares_no_node(small_cnn: ir.Model) -> None:
    before = to_proto(small_cnn).SerializeToString(deterministic=True)
    copy = copy_model(small_cnn)
    copy.graph.node(0).outputs[0].name = "changed"
    copy.graph.inputs[0].shape = ir.Shape([7])
    assert to_proto(small_cnn).SerializeToString(deterministic=True) == before


def test_a_model_is_called_by_its_file(tmp_path: Path) -> None:
    save_model(ir.from_onnx_text(RELU), tmp_path / "net v2.onnx")
    assert model_name(open_model(tmp_path / "net v2.onnx")) == "net v2"


@pytest.mark.corpus
def test_every_file_of_the_corpus_opens_or_is_refused_in_one_line(corpus: Path) -> None:
    opened, refusals = 0, []
    for path in sorted(corpus.glob("models/*/*.onnx")):
        try:
            open_model(path)
            opened += 1
        except ModelError as error:
            refusals.append(str(error))
    assert opened > 100
    assert len(refusals) > 20
    assert not any("\n" in line for line in refusals)
