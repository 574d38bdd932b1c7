"""What made whole models fail: pads with axes, half precision, shapes that are declared wrongly, operators of old files."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.errors import GradientError
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.registry import standard_table
from onnxviz.graph.io import open_model
from onnxviz.runtime.inputs import load_inputs
from tests.gradient.rules_case import differences, grads, node_model, relative, run

RNG = np.random.default_rng(4)


def noise(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def text(graph: str, opset: int = 18) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": {opset}]> g {graph}')


SLICED = {
    "slice": "s = Slice(t, one, two, one)",
    "steps": "s = Slice(t, one, four, one, two)",
    "gather": "u = Gather<axis = 1>(t, i) s = Unsqueeze(u, one)",
    "dft": "a = Unsqueeze(t, last) f = DFT<axis = 1>(a, n) s = ReduceSum<keepdims = 0>(f, last)",
}


@pytest.mark.parametrize("form", sorted(SLICED))
def test_pads_between_transposes_keep_their_axes(form: str) -> None:
    """onnxruntime pushes transposes through a Pad and loses its axes there: none are written."""
    model = text(
        f"""(float[2, 6, 5] x, int64[1] one) => (float[a, b, c] y)
        <int64[1] two = {{2}}, int64[1] four = {{4}}, int64 i = {{1}}, int64[1] last = {{3}},
         int64 n = {{8}}>
        {{h = Tanh(x) t = Transpose<perm = [1, 2, 0]>(h) {SLICED[form]} e = Exp(s) y = Transpose<perm = [2, 0, 1]>(e)}}"""
    )
    feeds = {"x": noise(2, 6, 5), "one": np.array([1])}
    assert differences(model, feeds, ["x"])["x"] < 3e-3
    made = gradient_model(model, "y", ["x"])
    pads = [node for node in made.model.graph if node.op_type == "Pad" and str(node.name).startswith("grad")]
    assert all(len(node.inputs) < 4 for node in pads)


HALF: dict[str, tuple[str, dict[str, Any]]] = {
    "Gather": ("Gather", {"x": noise(4, 5), "i": np.array([[3, 0], [0, 1]])}),
    "GatherElements": ("GatherElements", {"x": noise(4, 5), "i": np.array([[3, 0], [0, 1]])}),
    "GatherND": ("GatherND", {"x": noise(4, 5), "i": np.array([[3, 0], [3, 0]])}),
    "TopK": ("TopK", {"x": noise(4, 5), "k": np.array([2])}),
    "MaxPool": ("MaxPool", {"x": noise(1, 2, 6, 6), "kernel_shape": [3, 3]}),
    "Slice": ("Slice", {"x": noise(8), "s": np.array([0]), "e": np.array([8]), "a": np.array([0]), "t": np.array([3])}),
    "ScatterElements": ("ScatterElements", {"x": noise(5), "i": np.array([1, 3]), "u": noise(2)}),
    "GridSample": ("GridSample", {"x": noise(1, 2, 5, 5), "grid": np.tanh(noise(1, 3, 3, 2))}),
    "Compress": ("Compress", {"x": noise(4, 3), "c": np.array([True, False, True, True]), "axis": 0}),
    "Pad": ("Pad", {"x": noise(4), "p": np.array([2, 1]), "mode": "reflect"}),
}  # fmt: skip


@pytest.mark.parametrize("form", sorted(HALF))
def test_half_precision_runs_and_agrees_with_single(form: str) -> None:
    op_type, given = HALF[form]
    feeds = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
    attributes = {name: value for name, value in given.items() if name not in feeds}
    outputs = 2 if op_type == "TopK" else 1
    constants = [name for name in feeds if name in ("k", "s", "e", "a", "t", "p")]
    half = {name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in feeds.items()}
    single = {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in half.items()}
    wrt, found = [name for name, a in half.items() if a.dtype == np.float16], []
    for arrays in (half, single):
        model = node_model(op_type, arrays, outputs=outputs, constants=constants, **attributes)
        seed = np.cos(np.arange(np.prod(shape := run(model, arrays)[0].shape))).reshape(shape)
        found.append(grads(model, arrays, wrt, seed.astype(arrays[wrt[0]].dtype))[0])
    for ours, wanted in zip(*found, strict=True):
        assert ours.dtype == np.float16
        assert relative(ours, wanted) < 4e-3


def test_many_small_numbers_of_half_precision_are_not_lost_in_their_sum() -> None:
    feeds = {"x": noise(2).astype(np.float16), "i": np.zeros(5000, np.int64)}
    (found,), _ = grads(node_model("Gather", feeds), feeds, ["x"], np.ones(5000, np.float16))
    assert found.tolist() == [5000, 0]  # 1 added to 2048 is 2048 in half precision


@pytest.mark.parametrize("declared", ["float y", "float[7, 4] y", "float[5] y", "float[n, 4] y", "float[m, 4] y"])
def test_what_a_model_declares_of_its_output_is_not_believed_against_what_follows(declared: str) -> None:
    model = text(f"(float[n, 4] x, float[4, 4] w) => ({declared}) {{p = MatMul(x, w) y = Add(p, w)}}")
    if declared == "float y":
        model.graph.outputs[0].shape = ir.Shape([])
    made = gradient_model(model, "y", ["x", "w"])
    feeds = {"x": noise(4, 4), "w": noise(4, 4), "y.grad": noise(4, 4)}
    found = run_unchecked(made.model, feeds, list(made.gradients.values()))
    np.testing.assert_allclose(found[0], feeds["y.grad"] @ feeds["w"].T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], feeds["x"].T @ feeds["y.grad"] + feeds["y.grad"], rtol=1e-5, atol=1e-6)


def run_unchecked(model: ir.Model, feeds: dict[str, np.ndarray], names: list[str]) -> list[Any]:
    import onnxruntime as ort

    from onnxviz.graph.model import to_proto

    session = ort.InferenceSession(to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(names, feeds))


def test_the_seed_of_a_tensor_of_unknown_rank_is_flat() -> None:
    model = text(
        """(float[2, 6] x, int64[k] s) => (float[2, 6] y) <int64[2] t = {2, 6}>
        {e = Exp(x) p = Reshape(e, s) y = Reshape(p, t)}"""
    )
    made = gradient_model(model, "p", ["x"])
    x, seed = noise(2, 6), noise(12)
    (found,) = run(made.model, {"x": x, "s": np.array([3, 2, 2]), "p.grad": seed}, ["x.grad"])
    np.testing.assert_allclose(found, np.exp(x) * seed.reshape(2, 6), rtol=1e-6)


OLD = """(float[1, 2, 8, 9] x) => (float[1, 2, 5, 6] y)
    {a = ImageScaler<scale = 2.0, bias = [1.0, 3.0]>(x) b = Crop<border = [1, 2, 2, 1]>(a) c = Relu(b)
     d = Affine<alpha = 0.5, beta = 1.0>(c) y = ScaledTanh<alpha = 2.0, beta = 0.3>(d)}"""


def test_operators_that_no_version_of_onnx_knows_any_more() -> None:
    x, seed = noise(1, 2, 8, 9), noise(1, 2, 5, 6)
    made = gradient_model(text(OLD, opset=7), "y", ["x"])
    (found,) = run_unchecked(made.model, {"x": x, "y.grad": seed}, ["x.grad"])
    import torch

    t = torch.tensor(x, requires_grad=True)
    scaled = 2 * t + torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1)
    y = 2 * torch.tanh(0.3 * (0.5 * torch.relu(scaled[:, :, 2:-1, 1:-2]) + 1))
    y.backward(torch.tensor(seed))
    assert relative(found, t.grad.numpy()) < 1e-6
    with pytest.raises(GradientError, match="its border is not of four numbers"):
        gradient_model(text(OLD.replace("[1, 2, 2, 1]", "[1, 2]"), opset=7), "y", ["x"])


@pytest.mark.corpus
@pytest.mark.parametrize(
    "path", ["misc_trained/polygraphy-residual_block.onnx", "superres/pytorch_super_resolution.onnx"]
)
def test_real_models_that_declare_less_or_other_than_they_are(corpus: Path, path: str) -> None:
    """Along the gradient the slope is its norm; the first declares a scalar where it returns feature maps."""
    model = open_model(corpus / "models" / path)
    of, entering = str(model.graph.outputs[0].name), str(load_inputs(model).records[0].name)
    x = load_inputs(model).feeds[entering]
    made = gradient_model(model, of, [entering])
    (y,) = run_unchecked(model, {entering: x}, [of])
    seed = noise(*y.shape)
    (grad,) = run_unchecked(made.model, {entering: x, str(made.seed): seed}, list(made.gradients.values()))
    unit = grad / np.abs(grad).max()
    sides = [
        run_unchecked(made.model, {entering: x + np.float32(s) * unit, str(made.seed): seed}, [of])[0]
        for s in (3e-4, -3e-4)
    ]
    measured = (seed.astype(np.float64) * (sides[0].astype(np.float64) - sides[1])).sum() / 6e-4
    assert abs(measured / float((grad.astype(np.float64) * unit).sum()) - 1) < 2e-2


def test_a_path_through_comparisons_alone_is_told_from_none() -> None:
    graph = "(float[2] x, float[2] z) => (float[2] y) {b = Less(x, z) y = Cast<to = 1>(b)}"
    with pytest.raises(
        GradientError, match="all that leads there are nodes such as Less at .b. .its result is of truth values"
    ):
        gradient_model(text(graph), "y", ["x"])
    with pytest.raises(GradientError, match="y does not depend on it"):
        gradient_model(text("(float[2] x, float[2] z) => (float[2] y) {y = Neg(z)}"), "y", ["x"])


def test_nothing_is_written_that_nothing_reads() -> None:
    made = gradient_model(text("(float[2, 3] x) => (float[2, 1] y) {y = ReduceMean<axes = [1]>(x)}", 13), "y", ["x"])
    used = {value for node in made.model.graph for value in node.inputs}
    for node in made.model.graph:
        assert any(value in used or value.is_graph_output() for value in node.outputs), node.op_type
    assert all(value in used for value in made.model.graph.initializers.values())


def test_the_collector_of_python_runs_again() -> None:
    assert gc.isenabled()
    with pytest.raises(GradientError):
        gradient_model(text("(float[2] x) => (float[2] y) {y = Floor(x)}"), "y", ["x"])
    assert gc.isenabled()


def test_a_half_precision_scatter_that_is_wrong_is_caught() -> None:
    feeds = {"x": noise(4, 5).astype(np.float16), "i": np.array([[3, 0], [0, 1]])}
    seed = noise(2, 2, 5).astype(np.float16)
    right = standard_table().rows["", "Gather"][0].rule
    wrong = standard_table().changed({("", "Gather"): lambda s, dy: s.ops.Mul(right(s, dy), s.ops.scalar(1.01, dy))})
    found = [grads(node_model("Gather", feeds), feeds, ["x"], seed, table)[0][0] for table in (None, wrong)]
    assert relative(found[1], found[0]) > 4e-3
