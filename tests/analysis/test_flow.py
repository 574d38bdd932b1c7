"""Tests of the flow through the depth: numbers against numpy, and planted nets against their healthy twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxviz
from onnxviz.analysis.flow import QUANTILE_ERROR, SHARES, Flow, Series
from onnxviz.analysis.flow_data import flow_data
from onnxviz.analysis.flow_marks import Thresholds, read_thresholds, trend_marks
from onnxviz.analysis.flow_tally import Sketch
from onnxviz.errors import InputError

Weights = Callable[[int], np.ndarray]
WIDE, DEEP = 48, 12


def mlp(weights: Weights, function: str = "Tanh", *, depth: int = DEEP, bias: float = 0.0) -> ir.Model:
    """Return ``depth`` layers of ``function(x W + b)`` and a last one without function; ``weights`` makes each W."""
    lines, before = [], "x"
    for i in range(depth):
        lines.append(f"m{i} = MatMul({before}, w{i})")
        lines.append(f"s{i} = Add(m{i}, b)")
        lines.append(f"a{i} = {function}(s{i})" if i < depth - 1 else f"y = Identity(s{i})")
        before = f"a{i}"
    given = ", ".join(f"float[{WIDE}, {WIDE}] w{i} = {{0}}" for i in range(depth))
    model = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17]> net (float[N, {WIDE}] x) => (float[N, {WIDE}] y) '
        f"<{given}, float[{WIDE}] b = {{0}}> {{{' '.join(lines)}}}"
    )
    filled = {f"w{i}": weights(i) for i in range(depth)} | {"b": np.full(WIDE, bias)}
    for name, array in filled.items():
        value = model.graph.initializers[name]
        value.const_value = ir.Tensor(array.astype(np.float32), name=name)
        value.shape = ir.Shape(array.shape)
    return model


def normal(gain: float) -> Weights:
    return lambda i: np.random.default_rng(i).standard_normal((WIDE, WIDE)) * gain / np.sqrt(WIDE)


def samples(count: int = 64) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(7).standard_normal((count, WIDE)).astype(np.float32)}


def numbers(model: ir.Model, feeds: Any = None, **options: Any) -> Flow:
    return onnxviz.flow_numbers(model, samples() if feeds is None else feeds, providers="cpu", **options)


def series(flow: Flow, name: str = "activations") -> Series:
    return next(one for one in flow.series if one.name == name)


def kinds(flow: Flow, name: str = "activations") -> set[str]:
    return {mark.kind for mark in series(flow, name).marks}


def outer(rows: int, columns: int) -> np.ndarray:
    return np.outer(np.random.default_rng(rows).standard_normal(WIDE), np.ones(columns)) / WIDE


@pytest.mark.parametrize(
    ("sick", "healthy", "kind"),
    [
        (mlp(normal(0.3)), mlp(normal(1.3)), "vanishing"),
        (mlp(normal(3.0), "Relu"), mlp(normal(1.45), "Relu"), "exploding"),
        (mlp(normal(40.0), "Sigmoid"), mlp(normal(3.0), "Sigmoid"), "saturated"),
        (mlp(normal(40.0)), mlp(normal(1.3)), "saturated"),
        (mlp(normal(1.4), "Relu", bias=-9.0), mlp(normal(1.45), "Relu"), "dead"),
        (mlp(normal(1.4), "Relu", bias=-9.0), mlp(normal(1.45), "Relu"), "silent"),
        (mlp(normal(0.02), "Sigmoid", bias=1.0), mlp(normal(6.0), "Sigmoid"), "constant"),
        (mlp(lambda i: outer(i, WIDE) if i == 4 else normal(1.3)(i)), mlp(normal(1.3)), "low rank"),
        (mlp(lambda i: normal(1.3)(i) * (np.nan if i == 6 else 1)), mlp(normal(1.3)), "not finite"),
        (mlp(lambda i: normal(1.3)(i) * (i != 6)), mlp(normal(1.3)), "zero"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_is_planted_is_marked_and_the_healthy_twin_is_not(sick: ir.Model, healthy: ir.Model, kind: str) -> None:
    assert kind in kinds(numbers(sick))
    assert kinds(numbers(healthy)) == set()


def test_marks_tell_where_and_how_much() -> None:
    found = numbers(mlp(lambda i: normal(1.3)(i) * (np.nan if i == 6 else 1)))
    mark = next(mark for mark in series(found).marks if mark.kind == "not finite")
    assert found.stages[mark.first].layer == "m6"
    assert mark.last == len(found.stages) - 1
    assert mark.value == 1.0
    vanishing = next(m for m in series(numbers(mlp(normal(0.3)))).marks if m.kind == "vanishing")
    assert 0 < vanishing.value < vanishing.threshold == 1e-3
    assert "layers" in vanishing.text
    assert kinds(numbers(mlp(normal(0.3)), thresholds=Thresholds(vanishing=1e-30))) == set()


def test_weights_that_are_not_finite_are_marked_without_a_run() -> None:
    found = numbers(mlp(lambda i: normal(1.3)(i) * (np.nan if i == 6 else 1)), on="weights")
    assert [one.name for one in found.series] == ["weights"]
    assert kinds(found, "weights") == {"not finite"}
    assert kinds(numbers(mlp(normal(1.0)), on="weights"), "weights") == set()


def by_hand(model: ir.Model, x: np.ndarray, last: int) -> np.ndarray:
    """Return what leaves the last function, in float64 by numpy."""
    for i in range(last + 1):
        tensor = model.graph.initializers[f"w{i}"].const_value
        assert tensor is not None
        x = np.tanh(x @ tensor.numpy().astype(np.float64))
    return x


def close_quantiles(found: tuple[float, ...], values: np.ndarray) -> bool:
    wanted = np.quantile(values, SHARES)
    return bool(np.all(np.abs(np.array(found) - wanted) <= QUANTILE_ERROR * np.abs(wanted) + 1e-4))


@pytest.mark.parametrize("batch", [64, 10])
def test_numbers_agree_with_numpy_however_samples_are_batched(batch: int) -> None:
    model = mlp(normal(1.3))
    found = numbers(model, batch=batch)
    place = [stage.layer for stage in found.stages].index("a3")
    row, values = series(found).layers[place], by_hand(model, samples()["x"].astype(np.float64), 3)
    assert row is not None
    assert row.rms is not None
    assert row.std is not None
    assert row.variation is not None
    assert close_quantiles(row.quantiles, values)
    assert not close_quantiles(row.quantiles, values * 1.2)  # the oracle sees a wrong scale
    assert not close_quantiles(row.quantiles, by_hand(model, samples()["x"].astype(np.float64), 4) ** 3)
    assert row.rms == pytest.approx(np.sqrt(np.square(values).mean()), rel=1e-5)
    assert row.std == pytest.approx(values.std(), rel=1e-5)
    own = values - values.mean(axis=0)
    assert row.variation == pytest.approx(np.sqrt(np.square(own).sum() / np.square(values).sum()), rel=1e-4)
    assert row.effective_rank == pytest.approx(entropy_rank(values), rel=1e-3)
    assert row.effective_rank != pytest.approx(entropy_rank(values.T), rel=1e-3)
    assert series(found).samples == 64


def entropy_rank(values: np.ndarray) -> float:
    """Return the effective rank by singular values of the centred samples: another way to the same."""
    squares = np.linalg.svd(values - values.mean(axis=0), compute_uv=False) ** 2
    shares = squares[squares > 1e-12 * squares[0]] / squares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def test_share_that_is_flat_is_that_of_the_formula() -> None:
    model = mlp(normal(5.0))
    found = numbers(model)
    place = [stage.layer for stage in found.stages].index("a2")
    row = series(found).layers[place]
    tensor = model.graph.initializers["w2"].const_value
    assert row is not None
    assert tensor is not None
    entering = by_hand(model, samples()["x"].astype(np.float64), 1) @ tensor.numpy()
    slope = 1 / np.cosh(entering) ** 2
    assert row.flat == pytest.approx((slope < 0.01).mean(), abs=0.01)
    assert row.flat != pytest.approx((slope < 0.1).mean(), abs=0.01)


def test_a_sketch_merges_and_refuses_other_sizes() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 500))
    whole, parts = Sketch.of(rows), Sketch.of(rows[:13]).merge(Sketch.of(rows[13:]))
    assert parts is not None
    assert parts.variation() == pytest.approx(whole.variation())
    assert parts.effective_rank() == pytest.approx(whole.effective_rank())
    assert Sketch.of(rows).merge(Sketch.of(rows[:, :7])) is None
    assert Sketch.of(rows[:1]).variation() is None
    assert Sketch.of(np.full((4, 3), np.nan)).variation() is None
    assert Sketch.of(np.full((4, 3), 2.0)).variation() == 0.0


def test_a_change_of_scale_in_one_layer_is_no_trend() -> None:
    by = Thresholds()
    assert trend_marks([(0, 120.0), (1, 0.01), (2, 0.01), (3, 0.012), (4, 0.01)], by) == ()
    assert trend_marks([(0, 1.0), (1, 0.1), (2, 0.01), (3, 0.2), (4, 0.1), (5, 1.0)], by) == ()
    (mark,) = trend_marks([(0, 1.0), (2, 1.0), (4, 0.05), (5, 0.004), (7, 0.0002), (8, 1.0)], by)
    assert (mark.kind, mark.first, mark.last) == ("vanishing", 2, 7) or (mark.first, mark.last) == (0, 7)


def test_tokens_that_become_the_same_are_marked() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N, 6, 4] x) => (float[N, 6, 4] y)
      <float[6, 6] mix = {0}, float[4, 4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}>
      {m = MatMul(mix, x) y = MatMul(m, w)}"""
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 6, 4)).astype(np.float32)}
    for mix, marked in ((np.full((6, 6), 1 / 6), True), (np.eye(6), False)):
        model = ir.from_onnx_text(text)
        model.graph.initializers["mix"].const_value = ir.Tensor(mix.astype(np.float32), name="mix")
        found = numbers(model, feeds)
        assert ("same tokens" in kinds(found)) is marked
        x = feeds["x"]
        row = series(found).layers[0]
        own = np.linalg.norm(x - x.mean(axis=1, keepdims=True)) / np.linalg.norm(x)
        assert row is not None
        assert row.token_spread == pytest.approx(own, rel=1e-5)


def test_codes_become_numbers() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]> g (uint8[N, 2] x) => (uint8[N, 2] y)
      <uint8[2, 2] w = {2, 0, 0, 2}, float s = {0.5}, uint8 z = {0}, float t = {0.25}, uint8 o = {10}>
      {y = QLinearMatMul(x, s, z, w, s, z, t, o)}""")
    found = numbers(model, {"x": np.uint8([[2, 4], [6, 8]])})
    row = series(found).layers[[stage.layer for stage in found.stages].index("y")]
    assert row is not None
    assert row.quantiles[-1] == 4.0
    assert any("codes" in note for note in found.notes)


def test_token_ids_and_bodies_are_told() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]> g (int64[N, 3] ids, bool c) => (float[N, 3, 2] y)
      <float[4, 2] table = {1, 2, 3, 4, 5, 6, 7, 8}>
      {e = Gather(table, ids)
       y = If(c)<then_branch = t () => (float[N, 3, 2] p) {p = Relu(e)},
                 else_branch = f () => (float[N, 3, 2] q) {q = Neg(e)}>}""")
    found = numbers(model, {"ids": np.int64([[0, 1, 2], [1, 2, 3]]), "c": np.array(True)})
    assert [stage.layer for stage in found.stages] == ["e", "y"]
    assert [one.name for one in found.not_drawn] == ["ids", "c"]
    assert found.notes[0] == "the 2 nodes in bodies of If are not shown"


def test_the_numbers_are_written_with_a_manifest() -> None:
    found = numbers(mlp(normal(0.3), depth=6))
    arrays, manifest = flow_data(found)
    count = len(found.stages)
    assert arrays["activations/quantiles"].shape == (count, 7)
    assert arrays["weights/rms"].shape == (count,)
    assert np.isnan(arrays["weights/rms"]).sum() == count - 6
    assert manifest["format"] == "onnxviz.flow/1"
    assert manifest["series"][0]["marks"][0]["kind"] == "vanishing"
    assert manifest["key_paths"]["paths"][0]["output"] == "y"


def test_thresholds_are_read_and_refused() -> None:
    assert read_thresholds(["steps=5", "saturated=0.9"]) == Thresholds(steps=5, saturated=0.9)
    for wrong in ("speed=3", "vanishing", "vanishing=-1", "vanishing=nan"):
        with pytest.raises(InputError, match="NAME=VALUE"):
            read_thresholds([wrong])
    with pytest.raises(InputError, match="no flow of"):
        numbers(mlp(normal(1.0)), on="kernels")
