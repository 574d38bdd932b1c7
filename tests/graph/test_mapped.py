"""Weights that stay in the file: the same model, less memory, and an error where the file changes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxviz.errors import ModelError
from onnxviz.graph import mapped
from onnxviz.graph.io import open_model, save_model
from onnxviz.graph.model import to_proto
from onnxviz.runtime.session import Session

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing is mapped on Windows")


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mapped, "_SMALLEST_FILE", 1 << 10)
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((300, 200), np.float32),
        "h": random.standard_normal((200, 100)).astype(np.float16),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Cast", ["h"], ["hf"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["a", "hf"], ["b"]), helper.make_node("Add", ["b", "small"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [2, 300])], [helper.make_tensor_value_info("y", 1, [2, 100])],
        [*(numpy_helper.from_array(w, n) for n, w in weights.items()), numpy_helper.from_array(np.float32([1]), "small")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    proto.metadata_props.add(key="k", value="v")
    onnx.save(proto, tmp_path / "large.onnx")
    return tmp_path / "large.onnx"


def test_a_mapped_model_is_the_same_model(large: Path) -> None:
    model = open_model(large)
    lazy = [n for n, v in model.graph.initializers.items() if isinstance(v.const_value, ir.LazyTensor)]
    assert lazy == ["w"], "16-bit weights of 40 KB are below the limit"
    assert to_proto(model).SerializeToString(deterministic=True) == to_proto(
        ir.serde.deserialize_model(onnx.load(large))
    ).SerializeToString(deterministic=True)
    x = {"x": np.ones((2, 300), np.float32)}
    expected = Session(ir.serde.deserialize_model(onnx.load(large)), "cpu").run(x)["y"]
    np.testing.assert_array_equal(Session(model, "cpu").run(x)["y"], expected)


def test_a_copy_keeps_its_weights_inside(large: Path, tmp_path: Path) -> None:
    save_model(open_model(large), tmp_path / "copy.onnx")
    assert not (tmp_path / "copy.onnx.data").exists()
    np.testing.assert_array_equal(
        numpy_helper.to_array(onnx.load(tmp_path / "copy.onnx").graph.initializer[0]),
        numpy_helper.to_array(onnx.load(large).graph.initializer[0]),
    )


def test_a_file_replaced_is_still_read_and_one_overwritten_is_an_error(large: Path, tmp_path: Path) -> None:
    before = numpy_helper.to_array(onnx.load(large).graph.initializer[0])
    model = open_model(large)
    save_model(model, large)  # writes another file and moves it there
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), before)
    model = open_model(large)
    large.write_bytes(b"short")
    with pytest.raises(ModelError, match="changed after it was opened; open it again"):
        model.graph.initializers["w"].const_value.numpy()


def test_weights_that_do_not_fit_their_shape_are_read_as_ever(large: Path, tmp_path: Path) -> None:
    proto = onnx.load(large)
    proto.graph.initializer[0].dims[0] = 7
    onnx.save(proto, tmp_path / "odd.onnx")
    model = open_model(tmp_path / "odd.onnx")
    assert not any(isinstance(v.const_value, ir.LazyTensor) for v in model.graph.initializers.values())


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.999])
def test_truncated_files_are_refused_as_ever(large: Path, tmp_path: Path, cut: float) -> None:
    data = large.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(ModelError):
        open_model(tmp_path / "cut.onnx")


def test_reading_gives_its_memory_back(large: Path) -> None:
    model = open_model(large)
    first = model.graph.initializers["w"].const_value.numpy()
    again = model.graph.initializers["w"].const_value.numpy()
    np.testing.assert_array_equal(first, again)
    assert not first.flags.writeable
