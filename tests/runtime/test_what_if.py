"""A model whose nodes round: as a second implementation, and the same however much is kept in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest

from onnxviz.analysis.precisions import CodeRounding, HalfRounding
from onnxviz.graph.conversions import code_layers, half_layers
from onnxviz.graph.shapes import infer_shapes
from onnxviz.runtime.session import run_model
from onnxviz.runtime.what_if import WhatIf

RNG = np.random.default_rng(0)
TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[2, 4] x) => (float[2, 4] y, float[2, 4] z)
  <float[4, 4] w, float[4, 4] v> {
    a = MatMul(x, w) b = Tanh(a) c = MatMul(b, v) d = Add(c, b) e = Exp(x) y = Mul(d, e) z = Neg(e) }"""


def branched() -> ir.Model:
    """Two branches that join, with a skip around a layer."""
    zeros = f"{{{', '.join(['0'] * 16)}}}"
    text = TEXT.replace("w, float[4, 4] v", f"w = {zeros}, float[4, 4] v = {zeros}")
    model = infer_shapes(ir.from_onnx_text(text))
    rng = np.random.default_rng(1)
    for name in ("w", "v"):
        array = rng.standard_normal((4, 4)).astype(np.float32)
        model.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    return model


X = RNG.standard_normal((2, 4)).astype(np.float32)
FLOATS = dict.fromkeys("xabcdeyz", "float32")
SIZES = dict.fromkeys("abcdeyz", 32)


@pytest.fixture
def halves() -> Iterator[tuple[ir.Model, WhatIf]]:
    model = branched()
    layers, _ = half_layers(model, FLOATS)
    changes = {node: change for layer in layers for node, change in layer.changes.items()}
    with WhatIf(model, changes, model.graph.outputs, HalfRounding(), sizes=SIZES) as run:
        yield model, run


def half(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)


def by_hand(model: ir.Model, converted: str) -> dict[str, np.ndarray]:
    """The same network in numpy; the node that gives ``converted`` rounds."""
    w, v = (model.graph.initializers[name].const_value.numpy() for name in "wv")

    def node(name: str, compute: object, *inputs: np.ndarray) -> np.ndarray:
        if name not in converted:
            return compute(*inputs)  # type: ignore[operator, no-any-return]
        return half(compute(*map(half, inputs)))  # type: ignore[operator]

    a = node("a", np.matmul, X, w)
    b = node("b", np.tanh, a)
    c = node("c", np.matmul, b, v)
    d = node("d", np.add, c, b)
    e = node("e", np.exp, X)
    return {"y": node("y", np.multiply, d, e), "z": -e}


def test_the_model_as_it_is(halves: tuple[ir.Model, WhatIf]) -> None:
    model, run = halves
    expected = run_model(model, {"x": X})
    found = run.baseline({"x": X})
    assert all(np.array_equal(found[name], expected[name]) for name in ("y", "z"))


def test_each_node_alone_is_as_in_numpy(halves: tuple[ir.Model, WhatIf]) -> None:
    model, run = halves
    nodes = {str(node.outputs[0].name): node for node in model.graph if node in run.nodes}
    assert list(nodes) == list("abcdey")  # Neg gives no new number
    expected = run.baseline({"x": X})
    order = list(nodes)
    for index, found, local in run.rounded([[nodes[name]] for name in order]):
        there = by_hand(model, order[index])
        for name in ("y", "z"):
            np.testing.assert_allclose(found[name], there[name], rtol=3e-7, atol=3e-7)
        assert local is not None
        assert not np.array_equal(*local)
        assert not np.array_equal(found["y"], expected["y"])


def test_another_rounding_is_told_apart(halves: tuple[ir.Model, WhatIf]) -> None:
    """The oracle above would see a node that forgets to round."""
    model, run = halves
    run.baseline({"x": X})
    ((_, found, _),) = run.rounded([[model.graph[0]]])
    assert np.abs(found["y"] - by_hand(model, "b")["y"]).max() > 1e-5


def test_groups_round_together(halves: tuple[ir.Model, WhatIf]) -> None:
    model, run = halves
    run.baseline({"x": X})
    ((_, found, _),) = run.rounded([list(run.nodes)])
    there = by_hand(model, "abcdey")
    np.testing.assert_allclose(found["y"], there["y"], rtol=2e-3)
    np.testing.assert_array_equal(found["z"], there["z"])


def test_nothing_kept_gives_the_same() -> None:
    results = []
    for kept in (0, 64, 1 << 20):
        model = branched()
        layers, _ = half_layers(model, FLOATS)
        changes = {node: change for layer in layers for node, change in layer.changes.items()}
        with WhatIf(model, changes, model.graph.outputs, HalfRounding(), sizes=SIZES, kept=kept) as run:
            first = run.baseline({"x": X})
            groups = [[node] for node in model.graph]
            found = {index: outputs for index, outputs, _ in run.rounded(groups)}
            found |= {9: next(outputs for _, outputs, _ in run.rounded([list(model.graph)])), 10: first}
        results.append(found)
    for other in results[1:]:
        assert list(other) == list(results[0])
        for index, outputs in other.items():
            for name, array in outputs.items():
                np.testing.assert_array_equal(array, results[0][index][name])


@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize("kept", [0, 400, 1 << 20])
def test_pieces_of_many_nodes_run_as_the_nodes_would(kept: int, codes: bool) -> None:
    """A deep graph with skips, so that what lies behind a node is run in pieces; against single nodes throughout."""
    lines, last = [], "x"
    for i in range(90):
        other = f"t{i - 7}" if i % 5 == 0 and i > 7 else "x"
        op = ("Add", "Tanh", "Mul", "Sin", "Sub")[i % 5]
        lines.append(f"t{i} = {op}({last}{'' if op in ('Tanh', 'Sin') else f', {other}'})")
        last = f"t{i}"
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[2, 4] x) => (float[2, 4] y, float[2, 4] t50) {{{" ".join(lines)} y = Add({last}, t3)}}'
    model = infer_shapes(ir.from_onnx_text(text))
    names = [str(node.outputs[0].name) for node in model.graph]
    layers, _ = half_layers(model, dict.fromkeys(["x", *names], "float32"))
    changes = {node: change for layer in layers for node, change in layer.changes.items()}
    groups = [*([node] for node in model.graph), [model.graph[3], model.graph[70]], list(model.graph)]
    rounding = CodeRounding(dict.fromkeys(["x", *names], (-4.0, 4.0))) if codes else HalfRounding()
    found = []
    for single in (False, True):
        with WhatIf(model, changes, model.graph.outputs, rounding, sizes=dict.fromkeys(names, 32), kept=kept) as run:
            assert any(joined is not None for joined, _ in run._groups)
            if single:
                run._groups = [(None, members) for _, members in run._groups]
            run.baseline({"x": X})
            found.append({index: outputs for index, outputs, _ in run.rounded(groups)})
    assert sorted(found[0]) == list(range(93))
    for index, outputs in found[0].items():
        for name in ("y", "t50"):
            np.testing.assert_array_equal(outputs[name], found[1][index][name])


def test_codes_are_those_of_quantize_linear() -> None:
    """A layer in codes against QuantizeLinear and DequantizeLinear at its tensors, from which all read."""
    model = branched()
    values = run_model(_exposed(model), {"x": X})
    ranges = {name: (float(values[name].min()), float(values[name].max())) for name in "abcde"}
    layers, left = code_layers(model, FLOATS)
    assert [layer.tensor for layer in layers] == ["a", "c", "d", "y"]
    assert left == {"Tanh of b": left["Exp of e"], "Exp of e": left["Exp of e"]}
    changes = {node: change for layer in layers for node, change in layer.changes.items()}
    with WhatIf(model, changes, model.graph.outputs, CodeRounding(ranges), sizes=SIZES) as run:
        run.baseline({"x": X})
        ((_, found, _),) = run.rounded([layers[1].nodes])
    expected = run_model(_written(model, ranges), {"x": X})
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-5, atol=1e-6)
    own = CodeRounding(ranges)
    own.shared = False  # planted: the Add reads the tensor as it was
    with WhatIf(model, changes, model.graph.outputs, own, sizes=SIZES) as run:
        run.baseline({"x": X})
        ((_, found, _),) = run.rounded([layers[1].nodes])
    assert np.abs(found["y"] - expected["y"]).max() > 1e-3


def _exposed(model: ir.Model) -> ir.Model:
    copy = model.clone()
    copy.graph.outputs.extend(v for n in copy.graph for v in n.outputs if v not in copy.graph.outputs)
    return copy


def _written(model: ir.Model, ranges: dict[str, tuple[float, float]]) -> ir.Model:
    """The second MatMul with QuantizeLinear and DequantizeLinear pairs on input, output and weight."""
    v = model.graph.initializers["v"].const_value.numpy()
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[2, 4] x) => (float[2, 4] y)
      <float[4, 4] w = {%s}, float[4, 4] v = {%s}, float sb = {%r}, uint8 zb = {%d}, float sc = {%r}, uint8 zc = {%d},
       float[4] sv = {%s}, int8[4] zv = {0, 0, 0, 0}> {
        a = MatMul(x, w) b = Tanh(a) qb = QuantizeLinear(b, sb, zb) db = DequantizeLinear(qb, sb, zb)
        qv = QuantizeLinear<axis = 1>(v, sv, zv) dv = DequantizeLinear<axis = 1>(qv, sv, zv)
        c = MatMul(db, dv) qc = QuantizeLinear(c, sc, zc) dc = DequantizeLinear(qc, sc, zc)
        d = Add(dc, db) e = Exp(x) y = Mul(d, e) }"""
    w = model.graph.initializers["w"].const_value.numpy()
    scales = []
    for name in "bc":
        low, high = ranges[name]
        scale = float(np.float32((max(high, 0) - min(low, 0)) / 255))
        scales += [scale, round(-min(low, 0) / scale)]
    weights = (np.abs(v).max(axis=0) / 127).astype(np.float32)
    numbers = [", ".join(repr(float(x)) for x in array.reshape(-1)) for array in (w, v)]
    return ir.from_onnx_text(text % (*numbers, *scales, ", ".join(repr(float(x)) for x in weights)))
