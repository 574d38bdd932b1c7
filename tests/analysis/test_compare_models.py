"""Two models compared: pairs are right, the error is found where it was planted, and it is told from what is inherited."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.compare_models import compare_models
from onnxviz.analysis.model_comparison import ModelComparison
from onnxviz.api import compare
from onnxviz.errors import InputError
from onnxviz.graph.model import copy_model
from onnxviz.graph.twins import match_tensors
from onnxviz.plots.model_comparison import plot_comparison
from onnxviz.runtime.capture import batches_of

RNG = np.random.default_rng(0)


def layers(names: str = "abc", factor: float = 1.0, between: str = "") -> ir.Model:
    """Three layers with weights of their own; the second one's are off by a factor."""
    a, b, c = names
    source = f"""<ir_version: 8, opset_import: ["": 17]> g (float[n, 8] x) => (float[n, 8] y)
      <float[8, 8] w0 = {{0}}, float[8, 8] w1 = {{0}}, float[8, 8] w2 = {{0}}> {{
        {a}m = MatMul(x, w0) {a} = Relu({a}m) {b}m = MatMul({a}, w1) {b} = Tanh({b}m) {between}
        {c}m = MatMul({b}, w2) y = Relu({c}m) }}"""
    model = ir.from_onnx_text(source.replace("{0}", "{" + ", ".join(["0"] * 64) + "}"))
    for index in range(3):
        array = np.random.default_rng(index).standard_normal((8, 8)).astype(np.float32)
        value = model.graph.initializers[f"w{index}"]
        value.const_value = ir.Tensor(array * np.float32(factor if index == 1 else 1), name=value.name)
    return model


def compared(reference: ir.Model, model: ir.Model, x: np.ndarray | None = None) -> ModelComparison:
    feeds = {"x": RNG.standard_normal((2, 8)).astype(np.float32) if x is None else x}
    return compare_models(reference, model, batches_of(reference, feeds))


def test_a_model_agrees_with_itself() -> None:
    result = compared(layers(), layers())
    assert result.passed
    assert result.first is None
    assert [one.relative_l2 for one in result.tensors] == [0.0] * 6
    assert result.counts() == {"name": 6, "weights": 0, "structure": 0, "activations": 0}
    assert str(result).splitlines()[1] == "all agree"


def test_the_planted_error_is_found_and_what_follows_only_inherits_it() -> None:
    result = compared(layers(), layers(factor=1.1))
    assert result.first is not None
    assert result.first.tensor == "bm"
    assert result.first.made_here
    assert result.first.relative_l2 == pytest.approx(0.1, rel=1e-3)
    assert result.culprit == result.first
    after = [one for one in result.tensors if one.tensor in ("b", "cm", "y")]
    assert all(one.problem and not one.made_here for one in after)
    assert not result.passed


def test_other_names_are_matched_by_weights_then_by_structure() -> None:
    result = compared(layers(), layers("uvw"))
    assert {one.tensor: (one.reference, one.matched) for one in result.tensors} == {
        "um": ("am", "weights"), "u": ("a", "structure"), "vm": ("bm", "weights"), "v": ("b", "structure"),
        "wm": ("cm", "weights"), "y": ("y", "name"),
    }  # fmt: skip
    assert result.passed


def test_the_error_is_found_without_names_too() -> None:
    result = compared(layers(), layers("uvw", 1.1))
    assert result.first is not None
    assert result.first.tensor == "vm"


def test_numbers_are_no_names() -> None:
    one = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {val_1 = Exp(x) y = Neg(val_1)}'
    )
    other = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {val_1 = Neg(x) y = Exp(val_1)}'
    )
    assert match_tensors(one, one)["val_1"] == ("val_1", "name")
    assert "val_1" not in match_tensors(one, other)


def test_an_output_of_another_shape_differs_and_is_never_broadcast() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2, 1] x) => (float[%s] y) %s {y = %s}'
    one = ir.from_onnx_text(text % ("2, 1", "", "Neg(x)"))
    other = ir.from_onnx_text(text % ("2, 3", "<float[3] k = {-1, -1, -1}>", "Mul(x, k)"))
    result = compared(one, other, np.float32([[1], [2]]))
    assert result.first is not None
    assert "shape" in str(result.first.problem)


def test_nan_where_the_reference_has_a_number_is_no_agreement() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {h = %s(x) y = Log(h)}'
    one, other = (ir.from_onnx_text(text % op) for op in ("Abs", "Identity"))
    result = compared(one, other, np.float32([1, -1]))
    (output,) = (tensor for tensor in result.tensors if tensor.output)
    assert "NaN" in str(output.problem)


def test_half_precision_is_within_what_its_type_explains() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 8] x) => (float[n, 8] y) {a = Exp(x) y = Neg(a)}'
    half = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 8] x) => (float[n, 8] y) {h = Cast<to = 10>(x) a = Exp(h) b = Neg(a) y = Cast<to = 1>(b)}'
    result = compared(ir.from_onnx_text(text), ir.from_onnx_text(half))
    assert result.passed
    assert 0 < max(one.relative_l2 for one in result.tensors) < 1e-2


def test_a_relu_that_became_the_range_of_codes_is_no_error() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[64] x) => (float[64] y) %s {%s}'
    one = ir.from_onnx_text(text % ("", "c = Tanh(x) relu_1 = Relu(c) y = Neg(relu_1)"))
    scale = "<float s = {0.00392157}, uint8 z = {0}>"
    codes = "relu_1 = Tanh(x) q = QuantizeLinear(relu_1, s, z) d = DequantizeLinear(q, s, z) y = Neg(d)"
    result = compared(one, ir.from_onnx_text(text % (scale, codes)), np.linspace(-1, 1, 64).astype(np.float32))
    assert result.passed, result
    assert {one.tensor for one in result.tensors} == {"relu_1", "y"}


def test_layouts_that_differ_are_turned() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[1, 2, 3, 4] x) => (float[1, 2, 3, 4] y) {%s}'
    one = ir.from_onnx_text(text % "h = Exp(x) y = Neg(h)")
    other = ir.from_onnx_text(
        text % "t = Transpose<perm = [0, 2, 3, 1]>(x) h = Exp(t) k = Neg(h) y = Transpose<perm = [0, 3, 1, 2]>(k)"
    )
    result = compared(one, other, RNG.standard_normal((1, 2, 3, 4)).astype(np.float32))
    turned = next(tensor for tensor in result.tensors if tensor.tensor == "h")
    assert turned.problem is None
    assert result.passed


@pytest.mark.parametrize(("end", "first"), [("Abs", None), ("Neg", "q")])
def test_values_that_are_alike_make_no_twins_where_what_reads_them_agrees(end: str, first: str | None) -> None:
    """The reference scales on the way and takes it back; its tensor has the direction of the model's, and twice the size."""
    head = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 8] x) => (float[n, 8] y)'
    reference = ir.from_onnx_text(head + " <float k = {2}> {p = Relu(x) s = Mul(p, k) y = Sub(s, p)}")
    model = ir.from_onnx_text(head + f" {{p = Relu(x) q = Abs(p) r = Abs(q) y = {end}(r)}}")
    result = compared(reference, model)
    assert (None if result.first is None else result.first.tensor) == first
    assert ("q" in result.unmatched) == (first is None)
    assert result.counts()["activations"] == (first is not None)


def test_a_reference_may_be_the_coarser_one() -> None:
    head = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 8] x) => (float[n, 8] y)'
    codes = (
        " <float s = {0.05}, uint8 z = {128}> {c = QuantizeLinear(x, s, z) d = DequantizeLinear(c, s, z) y = Neg(d)}"
    )
    one, other = ir.from_onnx_text(head + " {y = Neg(x)}"), ir.from_onnx_text(head + codes)
    assert compared(one, other).passed
    assert compared(other, one).passed


def test_an_error_that_a_residual_drowns_is_told_all_the_same() -> None:
    """Its operator is another, so that its values alone pair it; with the reference's in its place the sum is right."""
    head = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 8] x) => (float[n, 8] y)'
    reference = ir.from_onnx_text(
        head + " <float k = {2}, float h = {1000}> {b = Mul(x, h) p = Relu(x) s = Mul(p, k) y = Add(b, s)}"
    )
    model = ir.from_onnx_text(
        head + " <float k = {0.505}, float h = {1000}> {b = Mul(x, h) p = Relu(x) q = Div(p, k) y = Add(b, q)}"
    )
    result = compared(reference, model)
    assert result.first is not None
    assert (result.first.tensor, result.first.reference, result.first.matched) == ("q", "s", "activations")
    assert [one.tensor for one in result.tensors if one.problem] == ["q"]


def test_models_with_other_inputs_are_refused() -> None:
    two = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n, 8] x, float[n, 8] z) => (float[n, 8] y) {y = Add(x, z)}'
    )
    with pytest.raises(InputError, match=r"the model has 2 inputs \(x, z\), and the reference 1 input \(x\)"):
        compared(layers(), two)


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ("int64[n, 8] x", "'x' is int64 \\['n', 8\\], and 'x' of the reference float32"),
        ("float[n, 9] x", "'x' is float32 \\['n', 9\\]"), ("float[n, 8, 1] x", "8, 1"),
    ],
)  # fmt: skip
def test_inputs_that_no_array_fits_are_told_before_anything_runs(declared: str, told: str) -> None:
    other = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17]> g ({declared}) => (float[m] y) {{h = Cast<to = 1>(x) y = Relu(h)}}'
    )
    with pytest.raises(InputError, match=told):
        compared(layers(), other)


def test_models_with_nothing_in_common_are_compared_by_their_outputs() -> None:
    other = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n, 8] in) => (float[n, 8] out) {h = Cos(in) out = Neg(h)}'
    )
    result = compared(layers(), other)
    assert [(one.tensor, one.reference, one.output) for one in result.tensors] == [("out", "y", True)]
    assert not result.passed
    assert "nothing but the outputs could be compared" in str(result)


def test_an_output_that_is_no_tensor_leaves_nothing_to_compare() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (seq(float[2]) y) {y = SequenceConstruct(x)}'
    result = compared(ir.from_onnx_text(text), ir.from_onnx_text(text), np.float32([1, 2]))
    assert not result.passed
    assert "nothing could be compared" in str(result)


def test_codes_are_compared_as_the_numbers_that_they_mean() -> None:
    head = '<ir_version: 8, opset_import: ["": 17]> g (float[1, 8] x) => (float[1, 2] y)'
    weights = ", ".join(str(n) for n in (1, -2, 3, 4, -5, 6, 7, -8, 2, 1, -3, 2, 5, -6, 4, 3))
    one = ir.from_onnx_text(f"{head} <float[8, 2] w = {{{weights}}}> {{h = MatMul(x, w) y = Neg(h)}}")
    other = ir.from_onnx_text(
        f"""{head} <float s = {{0.02}}, uint8 z = {{128}}, float t = {{1}}, int8 o = {{0}}, int8[8, 2] v = {{{weights}}},
          float u = {{0.3}}, uint8 k = {{128}}>
        {{q = QuantizeLinear(x, s, z) h_quantized = QLinearMatMul(q, s, z, v, t, o, u, k)
          h = DequantizeLinear(h_quantized, u, k) y = Neg(h)}}"""
    )
    x = np.float32([[1, -1.2, 0.9, 1.1, 0.3, -0.4, 0.8, -0.7]])
    result = compared(one, other, x)
    assert {tensor.tensor for tensor in result.tensors} >= {"h", "y"}
    assert result.passed
    assert all(tensor.relative_l2 < 0.02 for tensor in result.tensors)
    assert result.unmatched == {}


def test_a_model_in_float16_is_fed_in_float16() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (%s[n, 8] x) => (%s[n, 8] y) {a = Exp(x) y = Neg(a)}'
    result = compared(ir.from_onnx_text(text % ("float", "float")), ir.from_onnx_text(text % ("float16", "float16")))
    assert result.passed
    assert {one.dtype for one in result.tensors} == {"float16"}


@pytest.mark.parametrize("level", ["basic", "extended", "all"])
def test_what_the_optimiser_makes_of_a_model_is_compared(level: str) -> None:
    result = compare(layers(), layers(), {"x": np.ones((1, 8), np.float32)}, optimize=level)
    assert result.passed
    assert {one.tensor for one in result.tensors} >= {"y"}


def test_there_are_levels_and_no_others() -> None:
    with pytest.raises(InputError, match="no optimisation level"):
        compare(layers(), layers(), optimize="most")


def test_measures_of_outputs() -> None:
    result = compared(layers(), layers(factor=1.1))
    (output,) = (one for one in result.tensors if one.output)
    assert output.metrics.top1 is not None
    assert 0 <= output.metrics.top1 <= 1
    assert output.to_dict()["rmse"] == output.metrics.rmse > 0
    assert "RMSE" in str(result)
    assert "largest the same in" in str(result)
    assert all(one.metrics.top1 is None for one in result.tensors if not one.output)


def test_several_batches_tell_the_worst() -> None:
    x = np.concatenate([np.zeros((1, 8)), np.ones((1, 8))]).astype(np.float32)
    result = compare_models(layers(), layers(factor=1.1), batches_of(layers(), {"x": x}, 1))
    assert result.samples == 2
    assert result.first is not None
    assert result.first.relative_l2 == pytest.approx(0.1, rel=1e-3)


def test_files_are_written_and_the_same_twice(tmp_path: Path) -> None:
    for name in ("one", "two"):
        compare(layers(), layers(factor=1.1), {"x": np.ones((1, 8), np.float32)}, tmp_path / f"{name}.json")
    text = (tmp_path / "one.json").read_text()
    assert text == (tmp_path / "two.json").read_text()
    told = json.loads(text)
    assert (told["first"], told["culprit"], told["passed"]) == ("bm", "bm", False)
    assert compare(layers(), layers(), None, tmp_path / "same.png").notes == ("fed random numbers: x",)
    assert (tmp_path / "same.png").stat().st_size > 1000


def test_the_figure_marks_what_is_beyond_the_tolerance() -> None:
    result = compared(layers(), layers(factor=1.1))
    axes = plot_comparison(result).axes[-1]
    dots, diamonds = axes.collections
    assert len(dots.get_offsets()) == 6
    colors = [tuple(np.round(color[:3], 2)) for color in dots.get_facecolors()]
    assert colors[:2] == [colors[0]] * 2
    assert colors[2:] == [colors[2]] * 4 != [colors[0]] * 4
    assert [float(height) for _, height in diamonds.get_offsets()][3:] == [1e-5] * 3, "a decade below the tolerance"
    assert any("first: MatMul of bm" in text.get_text() for text in axes.texts)


def test_sizes_that_are_equal_are_not_drawn() -> None:
    one, other = (layers(factor=f, between="s = Shape(am) r = Size(b)") for f in (1.0, 1.1))
    for model in (one, other):
        for node in (n for n in list(model.graph) if n.op_type in ("Shape", "Size")):
            model.graph.outputs.append(node.outputs[0])
    figure = plot_comparison(compared(one, other))
    assert len(figure.axes[-1].collections[0].get_offsets()) == 6
    assert any("2 of whole numbers, all equal, not drawn" in text.get_text() for text in figure.texts)
    assert any("first: MatMul of bm" in text.get_text() for text in figure.axes[-1].texts)


def test_names_of_a_model_do_not_reach_the_terminal_as_they_are() -> None:
    model = copy_model(layers(factor=1.1))
    node = next(n for n in model.graph if n.outputs[0].name == "bm")
    node.name = "evil\x1b[31m\n$\\frac$"
    result = compared(layers(), model)
    assert "\x1b" not in str(result)
    assert plot_comparison(result).axes


def test_progress_is_told_over_all_batches() -> None:
    told: list[tuple[int, int]] = []
    feeds = {"x": np.ones((2, 8), np.float32)}
    batches = batches_of(layers(), feeds, batch=1)
    compare_models(layers(), layers(), batches, progress=lambda *counted: told.append(counted))
    assert told == [(done, 12) for done in range(1, 13)]
