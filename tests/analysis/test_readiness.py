"""Readiness for float16 and int8: what was planted is found, and whole conversions are as onnxruntime's own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.conversion_effects import measure_readiness
from onnxviz.analysis.readiness import Readiness
from onnxviz.api import preprocessing, readiness
from onnxviz.errors import CheckError, InputError, SelectionError
from onnxviz.plots.readiness import plot_readiness
from onnxviz.runtime.capture import batches_of
from onnxviz.runtime.precision import in_precision
from onnxviz.runtime.session import run_model

HEAD = '<ir_version: 8, opset_import: ["": 17]> g '


def parsed(body: str, inputs: str = "float[2, 8] x", outputs: str = "float[2, 8] y", constants: str = "") -> ir.Model:
    return ir.from_onnx_text(f"{HEAD}({inputs}) => ({outputs}) {f'<{constants}>' if constants else ''} {{{body}}}")


def chain(count: int = 6, outlier: int | None = None, names: bool = True) -> ir.Model:
    """Layers of MatMul and Tanh with weights of their own; the input of one has a column that is 200 times larger."""
    body, weights, source = [], [], "x"
    for i in range(count):
        label = f"[fc{i}] " if names else ""
        weights.append(f"float[8, 8] w{i} = {{{', '.join(['0'] * 64)}}}")
        if i == outlier:
            weights.append(f"float[8] k = {{{', '.join(['200'] + ['1'] * 7)}}}")
            body.append(f"[wide] s = Mul({source}, k)")
            source = "s"
        body.append(f"{label}m{i} = MatMul({source}, w{i}) [act{i}] t{i} = Tanh(m{i})")
        source = f"t{i}"
    model = parsed(" ".join([*body, f"y = Neg({source})"]), constants=", ".join(weights))
    for i in range(count):
        array = np.random.default_rng(i).standard_normal((8, 8)).astype(np.float32) / 3
        if i == outlier:
            array[0] /= 200
        model.graph.initializers[f"w{i}"].const_value = ir.Tensor(array, name=f"w{i}")
    return model


X = np.random.default_rng(7).standard_normal((2, 8)).astype(np.float32)


def measured(
    model: ir.Model, to: str = "fp16", x: np.ndarray | dict[str, np.ndarray] = X, **options: object
) -> Readiness:
    feeds = x if isinstance(x, dict) else {"x": x}
    return measure_readiness(model, batches_of(model, feeds), to, **options)  # type: ignore[arg-type]


def test_the_planted_overflow_is_found_by_name() -> None:
    model = parsed(
        "[a] h = Exp(x) [big] s = Mul(h, k) [small] d = Div(s, k) y = Neg(d)", constants="float k = {100000}"
    )
    result = measured(model)
    assert [one.tensor for one in result.overflows] == ["s", "k"]
    assert not result.ready
    assert [one.name for one in result.ranking if one.changes] == ["big", "small"]
    assert result.keep == ("big", "small")
    assert "activation s (Mul) reaches" in str(result)
    assert measured(chain()).overflows == ()
    assert measured(chain()).ready


def test_the_planted_epsilon_is_found() -> None:
    model = parsed("a = Abs(x) s = Add(a, e) [inv] r = Div(x, s) y = Neg(r)", constants="float e = {1e-12}")
    result = measured(model)
    assert [one.tensor for one in result.underflows] == ["e"]
    assert result.underflows[0].vanishing == 1


def test_the_planted_sensitive_layer_is_ranked_first() -> None:
    result = measured(chain(8, outlier=4), "int8")
    assert result.ranking[0].name in ("wide", "fc4")
    assert result.ranking[0].relative > 3 * result.ranking[2].relative
    clean = measured(chain(8), "int8")
    assert clean.ranking[0].relative < 3 * clean.ranking[2].relative
    steps = {one.tensor: one.step for one in result.tensors}
    assert (steps["s"] or 0) > 20 * (steps["x"] or 0)
    assert steps["t7"] is None  # nothing has it in codes
    wide = next(one for one in result.tensors if one.tensor == "s")
    assert wide.values.peak > 2
    assert wide.vanishing > 0


def test_the_ranking_is_that_of_numpy() -> None:
    """Each MatMul alone in float16, computed by hand."""
    model = chain(5)
    weights = [model.graph.initializers[f"w{i}"].const_value.numpy() for i in range(5)]

    def half(array: np.ndarray) -> np.ndarray:
        return array.astype(np.float16).astype(np.float32)

    def run(converted: int | None) -> np.ndarray:
        t = X
        for i, w in enumerate(weights):
            m = half(half(t) @ half(w)) if i == converted else t @ w
            t = np.tanh(m)
        return t

    there = {f"fc{i}": np.linalg.norm(run(i) - run(None)) / np.linalg.norm(run(None)) for i in range(5)}
    result = measured(model, layers="op:MatMul")
    found = {one.name: one.relative for one in result.layers}
    assert found == pytest.approx(there, rel=1e-2)
    assert [one.name for one in result.ranking] == sorted(there, key=lambda name: -there[name])
    assert set(result.left_out.values()) == {"it was not asked for"}


def test_the_curve_ends_where_the_answer_changes() -> None:
    result = measured(chain(30, outlier=4), "int8", tolerance=0.02)
    assert not result.ready
    points = {point.layers: point for point in result.curve}
    assert points[result.safe].problem is None
    assert points[result.safe + 1].problem is not None  # looked at closely
    assert len(result.keep) == len(result.layers) - result.safe
    again = measured(chain(30, outlier=4), "int8", tolerance=0.02, layers=[f"!{name}" for name in result.keep])
    assert again.ready


@pytest.mark.parametrize(("to", "precision"), [("fp16", "float16"), ("int8", "int8")])
def test_all_together_is_near_what_onnxruntime_converts(small_cnn: ir.Model, to: str, precision: str) -> None:
    """A CPU keeps float32 between nodes of float16; codes are the same ones."""
    x = np.random.default_rng(3).standard_normal((16, 1, 8, 8)).astype(np.float32)
    there = run_model(in_precision(small_cnn, precision, [{"x": x}]), {"x": x})["y"]
    expected = run_model(small_cnn, {"x": x})["y"]
    own = measured(small_cnn, to, x).whole.relative
    theirs = float(np.linalg.norm(there - expected) / np.linalg.norm(expected))
    assert own == pytest.approx(theirs, rel=1e-5) if to == "int8" else 0.3 < own / theirs < 3
    assert 1e-5 < theirs < 0.1


def attention() -> ir.Model:
    """Skips, a Softmax, moves of codes, a join and an AveragePool that reads no codes: all that the codes depend on."""
    sizes = {"w": (8, 8), "v": (8, 8), "u": (16, 4), "k": (1, 1, 2, 8)}
    lists = ", ".join(
        f"float[{', '.join(map(str, s))}] {n} = {{{', '.join(['0'] * math.prod(s))}}}" for n, s in sizes.items()
    )
    model = parsed(
        """[q] a = MatMul(x, w) [soft] b = Softmax(a) [v] c = MatMul(b, v) [skip] d = Add(c, x) t = Transpose(d)
           r = Transpose(t) g = Gather<axis = 1>(r, i) [even] e = Mul(g, g) j = Concat<axis = 1>(e, d, c)
           [head] h = MatMul(j, u) [odd] o = Tanh(h) l = Unsqueeze(o, z) [pool] y = AveragePool<kernel_shape = [2]>(l)""",
        outputs="float[1, 2, 3] y",
        constants=f"{lists}, int64[1] z = {{0}}, int64[8] i = {{0, 2, 4, 6, 1, 1, 1, 1}}",
    )
    rng = np.random.default_rng(5)
    model.graph.initializers["u"].shape = ir.Shape((24, 4))
    for name, shape in (sizes | {"u": (24, 4)}).items():
        model.graph.initializers[name].const_value = ir.Tensor(rng.standard_normal(shape).astype(np.float32), name=name)
    return model


def test_each_layer_in_codes_is_as_onnxruntime_quantises_it(tmp_path: Path) -> None:
    """Every layer alone, and all together, against quantize_static with that node alone."""
    model = attention()
    result = measured(model, "int8")
    assert [one.name for one in result.layers] == ["q", "soft", "v", "skip", "even", "Concat of j", "head"]
    assert "where what it reads is" in result.left_out["pool"]
    for node in model.graph:
        node.name = node.name or f"{node.op_type} of {node.outputs[0].name}"
    expected = run_model(model, {"x": X})["y"]

    def theirs(names: list[str] | None) -> float:
        found = run_model(quantised(model, names, tmp_path), {"x": X})["y"]
        return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))

    own = {one.name: one.relative for one in result.layers}
    alone = {name: theirs([name]) for name in own}
    exact = [name for name in own if name not in ("v", "even")]  # they read what a Softmax or a Gather would change
    assert [own[name] for name in exact] == pytest.approx([alone[name] for name in exact], rel=1e-4)
    assert result.whole.relative == pytest.approx(theirs(None), rel=1e-4)
    assert result.whole.relative != pytest.approx(theirs(["q", "v", "head"]), rel=1e-2)


def quantised(model: ir.Model, names: list[str] | None, folder: Path) -> ir.Model:
    """Return a model as onnxruntime quantises it, in the form that readiness follows."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter([{"x": X}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    ir.save(model, folder / "float.onnx")
    quantize_static(
        folder / "float.onnx", folder / "codes.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_quantize=names,
    )  # fmt: skip
    return ir.load(folder / "codes.onnx")


def test_what_a_table_gives_has_the_codes_of_the_table(tmp_path: Path) -> None:
    numbers = ", ".join(str(x) for x in [*np.linspace(-1, 1, 16).round(3), *[9] * 8])
    constants = f"float[3, 8] table = {{{numbers}}}, int64[2] i = {{0, 1}}"
    model = parsed("e = Gather(table, i) [skip] y = Mul(e, x)", constants=constants)
    found = run_model(quantised(model, None, tmp_path), {"x": X})["y"]
    expected = run_model(model, {"x": X})["y"]
    theirs = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    assert measured(model, "int8").whole.relative == pytest.approx(theirs, rel=1e-5)


def test_what_to_keep_is_what_onnxruntime_has_to_keep() -> None:
    """With its converter, which also keeps in float32 what lies between two such nodes; run as the graph says."""
    from onnx.reference import ReferenceEvaluator
    from onnxruntime.transformers.onnx_model import OnnxModel

    body = "[a] h = Exp(x) [big] s = Mul(h, k) [small] d = Div(s, m) y = Neg(d)"
    model = parsed(body, constants="float k = {60000}, float m = {60000}")
    result = measured(model)
    assert result.keep == ("big", "small")
    expected = run_model(model, {"x": X})["y"]
    for keep, good in ((list(result.keep), True), ([], False)):
        converted = OnnxModel(ir.to_proto(model))
        converted.convert_float_to_float16(use_symbolic_shape_infer=False, keep_io_types=True, node_block_list=keep)
        converted.topological_sort()
        with np.errstate(over="ignore"):
            (found,) = ReferenceEvaluator(converted.model).run(None, {"x": X})
        assert bool(np.allclose(found, expected, rtol=1e-2)) == good


def test_best_classes_are_counted_over_all_batches() -> None:
    model = parsed("y = Mul(x, k)", "float[n, 3] x", "float[n, 3] y", "float k = {1}")
    x = np.float32([[1, 2, 3], [1, 2.0001, 2.0002], [3, 2, 1], [5, 5.0001, 1]])
    result = measure_readiness(model, batches_of(model, {"x": x}, 1), "fp16")
    assert result.samples == (4, 4)
    (effect,) = result.layers[0].effects
    assert effect.top1 == 0.5
    assert "another best class in 2 of 4 samples" in str(effect.problem)
    assert result.curve[0].top1 == 1.0


def test_models_without_names_symbols_or_floats_at_the_input() -> None:
    model = parsed(
        "e = Gather(table, ids) m = Reshape(e, s) h = Tanh(m) y = MatMul(h, w)", "int64[n] ids", "float[1, 2] y",
        "float[3, 2] table = {0.1, 1, 2, 3, -1, 7}, int64[2] s = {1, 4}, float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}",
    )  # fmt: skip
    for to in ("fp16", "int8"):
        result = measured(model, to, {"ids": np.int64([0, 2])})
        assert "Gather of e" in [one.name for one in result.layers]
        assert result.layers[0].relative > 0


def test_a_detector_is_compared_before_it_chooses() -> None:
    model = parsed(
        "s = Sigmoid(x) v, i = TopK(s, k) y = Neg(v)",
        outputs="float[2, 3] y, int64[2, 3] i",
        constants="int64[1] k = {3}",
    )
    result = measured(model)
    assert result.compared == ("s",)
    assert any("lies before that" in note for note in result.notes)
    assert measured(model, tensors="y").compared == ("y",)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("h = Cast<to = 10>(x) m = Exp(h) y = Cast<to = 1>(m)", "16 bits already"),
        ("i = Cast<to = 7>(x) y = Neg(i)", "no node of the model computes"),
        ("y = Relu(x)", "no node of the model computes"),
    ],
)
def test_what_cannot_be_converted_is_one_line(body: str, reason: str) -> None:
    model = parsed(body, outputs="int64[2, 8] y" if "to = 7" in body else "float[2, 8] y")
    with pytest.raises(CheckError, match=reason):
        measured(model)


def test_what_nothing_depends_on_is_left_alone() -> None:
    model = parsed("h = Exp(x) d = Tanh(x) y = Neg(h)")
    assert [one.tensor for one in measured(model).layers] == ["h"]


def test_control_flow_is_run_and_stays() -> None:
    body = """a = Exp(x) [if] b = If(c) <then_branch = p () => (float[2, 8] u) {u = Sqrt(a)},
              else_branch = q () => (float[2, 8] v) {v = Log(a)}> y = Exp(b)"""
    model = parsed(body, "float[2, 8] x, bool c")
    result = measured(model, x={"x": X, "c": np.array(True)})
    assert [one.tensor for one in result.layers] == ["a", "y"]
    assert result.left_out == {"if": "it is control flow"}
    assert all(0 < one.relative < 1e-2 for one in result.layers)


def test_weights_that_are_inputs_too_are_weights() -> None:
    model = parsed("y = MatMul(x, w)", constants=f"float[8, 8] w = {{{', '.join(['0.1'] * 64)}}}")
    model.graph.inputs.append(model.graph.initializers["w"])
    result = measured(model, "int8")
    assert [(one.tensor, one.kind) for one in result.tensors] == [("x", "input"), ("y", "activation"), ("w", "weight")]


def test_groups_by_operator_and_by_block() -> None:
    by_op = measured(chain(4), by="op")
    assert [(one.name, one.op_type) for one in by_op.layers] == [("MatMul", "4 nodes"), ("Tanh", "4 nodes")]
    model = chain(4)
    for node in model.graph:
        node.name = f"/net/block{(node.name or 'x')[-1]}/{node.name}"
    by_block = measured(model, by="block")
    assert [one.name for one in by_block.layers][:4] == [f"net/block{i}" for i in range(4)]
    assert all(one.relative > 0 for one in by_block.layers)


def test_the_least_erring_are_not_tried_where_there_are_many() -> None:
    result = measured(chain(10, outlier=4), "int8", most=3)
    tried = [one for one in result.layers if one.effects]
    assert len(tried) == 3
    assert all(one.local is not None for one in result.layers)
    assert min(one.local or 0 for one in tried) >= max(one.local or 0 for one in result.layers if not one.effects)
    assert "tried alone: the 3" in str(result)
    assert math.isnan(result.ranking[-1].relative)
    json.dumps(result.to_dict(), allow_nan=False)


def test_wrong_arguments_say_what_would_work() -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        measured(chain(), tolerance=2)
    with pytest.raises(SelectionError):
        measured(chain(), layers="nothing")
    with pytest.raises(CheckError, match="none of the layers"):
        measured(parsed("[a] r = Relu(x) [b] y = Exp(r)"), layers="a")


def test_files_are_the_same_twice_and_say_where_numbers_are_made_up(tmp_path: Path) -> None:
    for name in ("one", "two"):
        for ending in ("json", "svg", "png"):
            result = readiness(chain(), None, tmp_path / f"{name}.{ending}", data=tmp_path / f"{name}.npz")
    assert any("random numbers: x" in note for note in result.notes)
    for ending in ("json", "svg", "png", "npz"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()
    told = json.loads((tmp_path / "one.json").read_text())
    assert (told["ready"], told["to"], len(told["layers"])) == (True, "fp16", 12)
    with np.load(tmp_path / "one.npz") as numbers:
        assert numbers["relative"].shape == (12, 1)
        assert numbers["names"][0] == "fc0"


def test_the_figure_shows_each_layer_and_marks_what_overflows() -> None:
    model = parsed(
        "[a] h = Exp(x) [big] s = Mul(h, k) [small] d = Div(s, k) y = Neg(d)", constants="float k = {100000}"
    )
    result = measured(model)
    figure = plot_readiness(result)
    bars, marks, curve, right = figure.axes[0], figure.axes[2], figure.axes[3], figure.axes[1]
    assert len(bars.patches) == 3
    assert [bool(bar.get_hatch()) for bar in bars.patches] == [not math.isfinite(one.relative) for one in result.layers]
    overflow, underflow = marks.collections
    assert [x for x, _ in overflow.get_offsets()] == [1.0, 2.0]
    assert len(underflow.get_offsets()) == 0
    assert len(curve.collections[0].get_offsets()) == 3
    assert right.get_ylabel() == "SQNR in dB"
    assert any("up to 1 the answer stays" in text.get_text() for text in curve.texts)


def test_names_that_are_hostile_are_drawn_as_they_are() -> None:
    model = chain(2)
    model.graph[0].name = "$\\frac{</script>\n‮" + "x" * 10_000
    result = measured(model)
    plot_readiness(result).canvas.draw()
    assert all(len(line) < 500 for line in str(result).splitlines())
    assert "</script>" not in result._repr_html_()


@pytest.mark.corpus
def test_a_trained_classifier_keeps_its_answer(corpus: Path) -> None:
    digits = sorted((corpus / "images" / "mnist").glob("*.png"))[:8]
    model = corpus / "models" / "classifier" / "mnist-8-cntk.onnx"
    result = readiness(model, digits, to="int8", preprocessing=preprocessing("raw"))
    assert result.ready
    assert result.samples == (8, 4)
    assert (len(result.layers), result.whole.top1) == (6, 1.0)
    assert result.notes == ()
