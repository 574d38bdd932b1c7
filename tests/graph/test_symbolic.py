"""Open dimensions: their arithmetic, their way through a model, and whether a run agrees."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxviz.errors import OnnxvizError
from onnxviz.graph import inference
from onnxviz.graph.io import open_model
from onnxviz.graph.select import all_tensors
from onnxviz.graph.shape_rules import SHAPE_RULES
from onnxviz.graph.shapes import infer_shapes, model_inputs, open_dims, shape_list, symbolic_shape
from onnxviz.graph.symbolic import (
    Size,
    add,
    ceil_divide,
    divide_product,
    floor_divide,
    largest,
    lower_bound,
    multiply,
    smallest,
    subtract,
    symbol,
)
from onnxviz.runtime.capture import capture
from onnxviz.runtime.session import run_model


def text(body: str, opset: int = 17) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": {opset}]> {body}')


def value_of(size: Size, names: dict[str, int]) -> int:
    """What a size is for given names; onnx_ir's own parser and sympy read the text."""
    result = ir.SymbolicDim(str(size)).evaluate(names) if not isinstance(size, int) else size
    assert isinstance(result, int), (size, result)
    return result


def test_arithmetic_is_that_of_numbers() -> None:
    rng = random.Random(0)
    names = [{"a": a, "b": b} for a, b in itertools.product((1, 2, 5, 8, 13), (1, 3, 4, 7))]
    rules = [
        (add, lambda x, y: x + y),
        (subtract, lambda x, y: x - y),
        (multiply, lambda x, y: x * y),
        (largest, max),
        (smallest, min),
        (lambda x, y: floor_divide(x, 2), lambda x, y: x // 2),
        (lambda x, y: floor_divide(x, 6), lambda x, y: x // 6),
        (lambda x, y: ceil_divide(x, 4), lambda x, y: -(-x // 4)),
    ]
    checked = 0
    for _ in range(120):
        pool: list[tuple[Size, list[int]]] = [
            (symbol("a"), [n["a"] for n in names]),
            (symbol("b"), [n["b"] for n in names]),
            *((k, [k] * len(names)) for k in (1, 2, 3, 7)),
        ]
        for _ in range(5):
            (x, xs), (y, ys) = rng.choice(pool), rng.choice(pool)
            ours, numbers = rng.choice(rules)
            made = ours(x, y)
            if made is not None:
                pool.append((made, [numbers(i, j) for i, j in zip(xs, ys, strict=True)]))
        for size, expected in pool[6:]:
            assert [value_of(size, n) for n in names] == expected, size
            bound = lower_bound(size)
            assert bound is None or bound <= min(expected), size
            checked += 1
    assert checked > 300


@pytest.mark.parametrize(
    ("size", "written"),
    [
        (floor_divide(ceil_divide(ceil_divide(symbol("H"), 2), 2), 2), "floor((H + 3)/8)"),
        (add(floor_divide(subtract(symbol("H"), 1), 2), 1), "floor((H + 1)/2)"),
        (subtract(add(symbol("a"), symbol("b")), symbol("a")), "b"),
        (multiply(add(symbol("past"), symbol("new")), 4), "4*new + 4*past"),
        (largest(symbol("a"), add(symbol("a"), 2), 1), "a + 2"),
        (smallest(symbol("a"), smallest(symbol("b"), 5)), "min(a, b, 5)"),
        (add(symbol("input-0 dim"), 1), "(input-0 dim) + 1"),
        (divide_product([symbol("n"), symbol("h"), 64], [symbol("h"), 8]), "8*n"),
    ],
)
def test_sizes_are_written_in_their_shortest_form(size: Size, written: str) -> None:
    assert str(size) == written


def test_sizes_that_nobody_could_read_are_unknown() -> None:
    names = [symbol(f"n{i}") for i in range(40)]
    total: Size = 0
    for name in names:
        total = add(total, name)
    assert total is None
    power: Size = 3
    for _ in range(50):
        power = multiply(power, power)
    assert power is None


CASES = [
    # what an exporter writes for x.view(x.size(0), -1)
    ("s = Shape(x) i = Gather(s, zero) u = Unsqueeze(i, at) t = Concat<axis = 0>(u, rest) y = Reshape(x, t)", "float[N, 4, H, W] x", ["N", "4*H*W"]),
    ("y = Flatten(x)", "float[N, 4, H, W] x", ["N", "4*H*W"]),
    ("y = Concat<axis = 1>(a, b)", "float[N, P, 8] a, float[N, T, 8] b", ["N", "P + T", 8]),
    ("y = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x, w)", "float[N, 4, H, W] x, float[8, 4, 3, 3] w", ["N", 8, "floor((H + 1)/2)", "floor((W + 1)/2)"]),
    ("y = Conv<strides = [2], auto_pad = \"SAME_UPPER\">(x, w)", "float[N, 4, L] x, float[8, 4, 5] w", ["N", 8, "floor((L + 1)/2)"]),
    ("y = ConvTranspose<strides = [2]>(x, w)", "float[N, 4, L] x, float[4, 6, 2] w", ["N", 6, "2*L"]),
    ("a = MaxPool<kernel_shape = [2], strides = [2]>(x) y = MaxPool<kernel_shape = [2], strides = [2]>(a)", "float[N, 4, L] x", ["N", 4, "floor(L/4)"]),
    ("y = AveragePool<kernel_shape = [3], strides = [2], ceil_mode = 1>(x)", "float[N, 4, L] x", ["N", 4, "floor(L/2)"]),
    ("y = Slice(x, zero1, minus1, at1)", "float[N, T] x", ["N", "T - 1"]),
    ("y = Slice(x, zero1, far, at1, two1)", "float[N, T] x", ["N", "floor((T + 1)/2)"]),
    ("y = Slice(x, minus1, far, at1)", "float[N, T] x", ["N", 1]),
    ("y = Slice(x, two1, far, at1)", "float[N, T] x", ["N", "max(T - 2, 0)"]),
    ("s = Shape(a) y = Expand(b, s)", "float[N, T] a, float[1, 1] b", ["N", "T"]),
    ("s = Size(a) y = Range(zero, s, one)", "float[N, T] a", ["N*T"]),
    ("s = Shape<start = 1>(a) y = ConstantOfShape(s)", "float[N, T] a", ["T"]),
    ("y = Add(a, b)", "float[N, T] a, float[N, S] b", ["N", "max(S, T)"]),
    ("y = Resize(x, , scales)", "float[N, 1, H, W] x", ["N", 1, "2*H", "2*W"]),
    ("y = Tile(x, two2)", "float[N, T] x", ["2*N", "2*T"]),
    ("a, y = Split<axis = 1>(x)", "float[N, T] x", ["N", "T - floor(T/2)"]),
    ("s = Shape(x) m = Equal(s, s) w = Where(m, s, s) y = Expand(one1, w)", "float[N, T] x", ["N", "T"]),
    ("y = Reshape(x, keep)", "float[N, 6] x", ["N", 2, 3]),
    ("s = Shape(x) g = Gather(s, at1) m = Mul(g, two1) t = Concat<axis = 0>(m, minus1) y = Reshape(x, t)", "float[N, T, 2] x", ["2*T", "N"]),
    ("y = If (c) <then_branch = a () => (float[?, ?] v) { v = Concat<axis = 0>(x, x) }, else_branch = b () => (float[?, ?] u) { u = Concat<axis = 0>(x, x) }>", "float[N, T] x, bool c", ["2*N", "T"]),
]  # fmt: skip
CONSTANTS = (
    "int64 zero = {0}, int64 one = {1}, int64[1] at = {0}, int64[1] rest = {-1}, int64[1] zero1 = {0}, "
    "int64[1] minus1 = {-1}, int64[1] at1 = {1}, int64[1] two1 = {2}, int64[2] two2 = {2, 2}, int64[3] keep = {0, 2, -1},"
    "int64[1] far = {9223372036854775807}, float[4] scales = {1, 1, 2, 2}, int64[1] one1 = {1}"
)


@pytest.mark.parametrize(("body", "inputs", "shape"), CASES)
def test_shapes_worked_out_by_hand(body: str, inputs: str, shape: list[int | str]) -> None:
    model = text(f"g ({inputs}) => (float z) <{CONSTANTS}> {{ {body} z = ReduceSum<keepdims = 0>(y) }}")
    inferred = infer_shapes(model)
    found = next(v for node in inferred.graph for v in node.outputs if v.name == "y")
    assert shape_list(found) == shape


def test_nameless_dimensions_of_one_image_get_letters_and_stay_as_declared() -> None:
    inferred = infer_shapes(text("g (float[?, 3, ?, ?] x) => (float[?, 3, ?, ?] y) { y = Relu(x) }"))
    assert open_dims(inferred) == {"x:0": ("x", 0), "x:2": ("x", 2), "x:3": ("x", 3)}
    model = text("g (float[?, 3, ?, ?] x) => (float y) { a = GlobalMaxPool(x) y = ReduceSum<keepdims = 0>(a) }")
    inferred = infer_shapes(model)
    assert symbolic_shape(inferred.graph.inputs[0]) == ("N", 3, "H", "W")
    assert symbolic_shape(inferred.graph.node(0).outputs[0]) == ("N", 3, 1, 1)


def test_nameless_dimensions_of_two_inputs_are_not_taken_for_the_same() -> None:
    inferred = infer_shapes(text("g (float[?, 3] x, float[?, 3] z) => (float[?, 3] o) { y = Add(x, z) o = Relu(y) }"))
    assert symbolic_shape(inferred.graph.node(0).outputs[0]) == (None, 3)


def test_malformed_nodes_stay_unknown() -> None:
    bodies = ["y = Conv(x, x)", "y = Conv<strides = [0, 0]>(x, w)", "y = Transpose<perm = [7]>(x)", "y = Concat(x, w)",
              "y = Flatten<axis = 99>(x)", "y = Slice(x, x)", "y = Split<axis = 9>(x)", "y = Gather<axis = 9>(x, x)",
              "y = MaxPool(x)", "y = Reshape(x)", "y = DepthToSpace<blocksize = 0>(x)", "y = Tile(x)", "y = Range(x)"]  # fmt: skip
    for body in bodies:
        infer_shapes(text(f"g (float[N, H] x, float[8, 4, 3, 3] w) => (float z) {{ {body} z = Relu(y) }}"))


def test_names_of_a_hostile_file_are_not_evaluated() -> None:
    model = text("g (float[N, 4, L] x) => (float z) { y = MaxPool<kernel_shape = [2], strides = [2]>(x) z = Relu(y) }")
    model.graph.inputs[0].shape = ir.Shape(["9**9**9**9**9", 4, "\u202e)(" + "q" * 10_000])
    shape = symbolic_shape(infer_shapes(model).graph.node(0).outputs[0])
    assert shape == ("9**9**9**9**9", 4, None)


def test_twice_inferred_is_once_inferred(small_cnn: ir.Model) -> None:
    once = infer_shapes(small_cnn)
    again = infer_shapes(once)
    for a, b in zip(once.graph, again.graph, strict=True):
        assert [shape_list(v) for v in a.outputs] == [shape_list(v) for v in b.outputs]


# --- the corpus ------------------------------------------------------------------------------------------------------


def contradictions(model: ir.Model, size: int) -> tuple[list[str], int]:
    """Name the tensors whose inferred shape a run contradicts, and count the symbolic sizes that were compared."""
    inferred = infer_shapes(model)
    run = capture(model, dims=dict.fromkeys(open_dims(model), size), providers="cpu", bodies=False)
    fed = {record.name: record.shape for record in run.inputs}
    names = {
        dim: n
        for value in model_inputs(inferred)
        for dim, n in zip(symbolic_shape(value) or (), fed.get(value.name or "", ()), strict=False)
        if isinstance(dim, str)
    }
    wrong, compared = [], 0
    for value in (v for node in inferred.graph for v in node.outputs if v.name in run):
        seen, told = run[str(value.name)].shape, symbolic_shape(value)
        if told is None:
            continue
        if len(told) != len(seen):
            wrong.append(f"{value.name}: {told} is {seen}")
            continue
        for dim, n in zip(told, seen, strict=True):
            expected = dim if isinstance(dim, int) else _evaluated(dim, names)
            compared += expected is not None and not isinstance(dim, int)
            if expected is not None and expected != n:
                wrong.append(f"{value.name}: {told} is {seen}")
    return wrong, compared


def _evaluated(dim: str | None, names: dict[str, int]) -> int | None:
    if dim is None or dim in names:
        return None if dim is None else names[dim]
    safe = dim
    for position, name in enumerate(sorted(names, key=len, reverse=True)):
        safe = safe.replace(name, f"d_{position}_") if not name.isidentifier() else safe
    try:
        result = ir.SymbolicDim(safe).evaluate(
            names | {f"d_{i}_": names[name] for i, name in enumerate(sorted(names, key=len, reverse=True))}
        )
    except ValueError:
        return None  # a name that the file declares for what it computes
    return result if isinstance(result, int) else None


RUN = [
    ("detector/mtcnn-pnet", (26, 35)),
    ("transformer/vespa-random_decoder", (3, 5)),
    ("transformer/TFBertForQuestionAnswering", (1, 3)),
    ("rnn/point_history_classifier_lstm", (1, 4)),
    ("ocr/ch_ppocr_mobile_v2.0_det_infer", (64, 96)),
    ("classifier/magika-fast_v2_1", (1, 2)),
    ("sklearn_ml/tract-lgbm_classifier", (1, 3)),
]


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "sizes"), RUN)
def test_runs_agree(corpus: Path, name: str, sizes: tuple[int, int]) -> None:
    model = open_model(corpus / "models" / f"{name}.onnx")
    for size in sizes:
        wrong, compared = contradictions(model, size)
        assert not wrong
        assert compared > 5


@pytest.mark.corpus
def test_a_wrong_rule_is_caught(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(node: ir.Node, known: object) -> list[tuple[Size, ...] | None]:
        found = rule(node, known)  # type: ignore[arg-type]
        return [None if s is None else (*s[:2], *(floor_divide(d, 2) if not isinstance(d, int) else d for d in s[2:])) for s in found]  # fmt: skip

    rule = SHAPE_RULES["MaxPool"]
    monkeypatch.setitem(SHAPE_RULES, "MaxPool", careless)
    assert contradictions(open_model(corpus / "models" / "detector" / "mtcnn-pnet.onnx"), 27)[0]


@pytest.mark.corpus
def test_nothing_becomes_less_known(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gained = 0
    for path in sorted(corpus.glob("models/*/*.onnx")):
        if path.name.startswith("big_") or path.stat().st_size > 8_000_000:
            continue
        try:
            model = open_model(path)
            with monkeypatch.context() as patch:
                patch.setattr(inference, "propagate", lambda model, declared: None)
                before = {name: shape_list(v) for v, name in all_tensors(infer_shapes(model)).items()}
            after = {name: shape_list(v) for v, name in all_tensors(infer_shapes(model)).items()}
        except OnnxvizError:
            continue
        for name, old in before.items():
            new = after[name]
            if old is None:
                gained += new is not None
                continue
            assert new is not None
            for a, b in zip(old, new, strict=True):
                made_up = a is None or str(a).startswith("unk__")
                assert made_up or b == a or isinstance(b, int), (path.name, name, old, new)
                gained += made_up and b != a
    assert gained > 3000


def test_onnx_names_are_what_this_rests_on() -> None:
    """onnx makes up ``unk__N`` for sizes that it cannot express."""
    model = text("g (float[N, 4, L] x) => (float z) { y = MaxPool<kernel_shape = [2]>(x) z = Relu(y) }")
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)
    shape = next(info for info in proto.graph.value_info if info.name == "y").type.tensor_type.shape
    assert shape.dim[2].dim_param.startswith("unk__")


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad"), [(7, 2, 3, 0), (6, 1, 2, 0), (6, 2, 4, 1), (8, 3, 2, 1), (5, 2, 2, 1)]
)
def test_pooling_that_rounds_up_has_the_size_of_a_run(size: int, kernel: int, stride: int, pad: int) -> None:
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["": 17]> g (float[n, 1, {size}, {size}] x) => (float[n, 1, a, b] y) {{
        p = MaxPool<kernel_shape = [{kernel}, {kernel}], strides = [{stride}, {stride}],
                    pads = [{pad}, {pad}, {pad}, {pad}], ceil_mode = 1>(x) q = Relu(p) y = Neg(q) }}"""
    )
    seen = next(iter(run_model(model, {"x": np.zeros((2, 1, size, size), np.float32)}).values())).shape
    inferred = infer_shapes(model).graph
    for node in inferred:
        assert symbolic_shape(node.outputs[0])[2:] == seen[2:], node.op_type  # type: ignore[index]


def test_letters_that_the_file_uses_are_not_made_up_again() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["": 17]> g (float[?, 3, ?, ?] x) => (float[N, 3, H, W] y) {
        y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) }"""
    )
    graph = infer_shapes(model).graph
    assert symbolic_shape(graph.inputs[0]) == ("N_in", 3, "H_in", "W_in")
    assert symbolic_shape(graph.outputs[0]) == ("N_in", 3, "floor(H_in/2)", "floor(W_in/2)")
    assert shape_list(graph.outputs[0]) == ["N", 3, "H", "W"]  # what the file declares stays


@pytest.mark.parametrize(("size", "scale"), [(40, 1.3), (40, 0.7), (20, 0.35), (7, 2.0), (9, 0.5)])
def test_resizing_has_the_size_of_a_run(size: int, scale: float) -> None:
    model = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["": 18]> g (float[1, 1, {size}, {size}] x) => (float[a, b, c, d] y)
        <float[4] s = {{1, 1, {scale}, {scale}}}> {{ r = Resize<mode = "nearest">(x, , s) y = Neg(r) }}"""
    )
    seen = next(iter(run_model(model, {"x": np.zeros((1, 1, size, size), np.float32)}).values())).shape
    assert symbolic_shape(infer_shapes(model).graph.node(0).outputs[0]) == seen
