from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxviz.errors import ModelError, SelectionError
from onnxviz.graph.expose import expose
from onnxviz.graph.io import open_model, save_model
from onnxviz.graph.model import to_proto
from onnxviz.graph.shapes import dtype_name, shape_list

FUNCTIONS = """<ir_version: 10, opset_import: ["": 18, "loc": 1]>
g (float[2] x) => (float[2] y) { t = loc.twice(x) y = loc.twice(t) }
<domain: "loc", opset_import: ["": 18]>
twice (a) => (b) { n = Neg(a) b = Sub(a, n) }"""


def test_originals_come_first_and_unchanged(small_cnn: ir.Model) -> None:
    before = to_proto(small_cnn)
    exposed, added = expose(small_cnn)
    after = to_proto(exposed)
    assert added == ("c", "r", "p", "f")
    assert list(after.graph.output)[:1] == list(before.graph.output)
    assert to_proto(small_cnn) == before, "the caller's model changed"
    assert [(dtype_name(o), shape_list(o)) for o in exposed.graph.outputs[1:]] == [
        ("float32", ["n", 2, 6, 6]),
        ("float32", ["n", 2, 6, 6]),
        ("float32", ["n", 2, 3, 3]),
        ("float32", ["n", 18]),
    ]
    onnx.checker.check_model(after, full_check=True)


def test_only_floats_by_default_and_what_was_asked_otherwise() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2, 3] x) => (float[2] y)'
        "{ a = Neg(x) i = ArgMax(a) b = Greater(a, x) h = Cast<to = 10>(a) y = ReduceSum<keepdims = 0>(h, axis) }".replace(
            "ReduceSum<keepdims = 0>(h, axis)", "ReduceMax<axes = [1], keepdims = 0>(a)"
        )
    )
    assert expose(model).changed == ("a", "h")
    assert expose(model, ["i", "b"]).changed == ("i", "b")


def test_what_is_an_output_already_is_not_added_twice(small_cnn: ir.Model) -> None:
    assert expose(small_cnn, "y").changed == ()
    with pytest.raises(SelectionError, match="nothing|no tensor"):
        expose(small_cnn, "nothing")


def test_functions_are_inlined_in_a_copy_and_their_tensors_can_be_named() -> None:
    model = ir.from_onnx_text(FUNCTIONS)
    exposed, added = expose(model)
    assert len(added) == 3
    assert len(model.functions) == 1
    values = ort.InferenceSession(to_proto(exposed).SerializeToString()).run(None, {"x": np.float32([1, 2])})
    assert values[0].tolist() == [4, 8]


def test_inlining_into_bodies_keeps_names_apart() -> None:
    """The function's n would shadow the n of the branches: onnxruntime refuses that."""
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 18, "loc": 1]>
        g (float[2] x, bool c) => (float[2] y)
        { t = loc.twice(x)
          y = If (c) <then_branch = a () => (float[2] n) { n = Neg(t) }, else_branch = e () => (float[2] m) { m = Abs(t) }> }
        <domain: "loc", opset_import: ["": 18]> twice (a) => (b) { n = Neg(a) b = Sub(a, n) }"""
    )
    exposed, _ = expose(model)
    session = ort.InferenceSession(to_proto(exposed).SerializeToString())
    assert session.run(["y"], {"x": np.float32([1, 2]), "c": np.array(True)})[0].tolist() == [-2, -4]


def test_a_function_that_calls_itself_is_refused() -> None:
    text = FUNCTIONS.replace("n = Neg(a)", "n = loc.twice(a)").replace(
        'opset_import: ["": 18]>\ntwice', 'opset_import: ["": 18, "loc": 1]>\ntwice'
    )
    with pytest.raises(ModelError, match="inlined"):
        expose(ir.from_onnx_text(text))


def test_contrib_operators_do_not_stop_types_and_shapes() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        g (float[1, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[1, 4, 6, 6] y)
        { c = com.microsoft.FusedConv<activation = "Relu">(x, w) y = Neg(c) }"""
    )
    exposed, added = expose(model)
    assert added == ("c",)
    assert shape_list(exposed.graph.outputs[1]) == [1, 4, 6, 6]


def mark_all(proto: onnx.ModelProto) -> bytes:
    """The usual way, written apart: every node output as an untyped graph output."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    present = {o.name for o in proto.graph.output}
    for node in proto.graph.node:
        for name in node.output:
            if name and name not in present:
                proto.graph.output.append(onnx.ValueInfoProto(name=name))
                present.add(name)
    return proto.SerializeToString()


REAL = [
    "classifier/cnn_mnist_pytorch", "classifier/mnist-8-cntk", "detector/blazeface_front_128", "detector/mtcnn-onet",
    "generated/hf_clip_vision_mini_dynamo", "generated/lstm_gru_dynamo", "generated/ort_resnet18_int8_qoperator",
    "landmark/mediapipe-hand_landmark", "rnn/keypoint_classifier", "superres/pytorch_super_resolution",
]  # fmt: skip


@pytest.mark.corpus
@pytest.mark.parametrize("name", REAL)
def test_exposed_values_are_those_of_marking_all(corpus: Path, tmp_path: Path, name: str) -> None:
    path = corpus / "models" / f"{name}.onnx"
    model = open_model(path)
    exposed, added = expose(model)
    save_model(exposed, tmp_path / "out.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    original, ours, theirs = (
        ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        for source in (str(path), str(tmp_path / "out.onnx"), mark_all(onnx.load(path)))
    )
    rng = np.random.default_rng(0)
    sizes = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    feeds = {
        i.name: rng.random([d if isinstance(d, int) else 1 for d in i.shape]).astype(sizes[i.type])
        for i in original.get_inputs()
    }
    names = [o.name for o in original.get_outputs()]
    assert [o.name for o in ours.get_outputs()][: len(names)] == names
    expected = dict(zip([o.name for o in theirs.get_outputs()], theirs.run(None, feeds), strict=True))
    results = dict(zip([o.name for o in ours.get_outputs()], ours.run(None, feeds), strict=True))
    floats = {n for n, v in expected.items() if v.dtype.kind == "f"}
    assert {*added, *names} >= floats
    for key in floats:
        np.testing.assert_array_equal(results[key], expected[key], err_msg=key)
    assert all(o.type is not None for o in exposed.graph.outputs)
