"""Tests of key nodes and key paths, against a search through every path."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

import onnxviz
from onnxviz.analysis.flow_paths import KeyPaths, key_paths, meeting_tensors
from onnxviz.analysis.flow_plan import FlowPlan, plan_flow
from onnxviz.analysis.paired import observable

DIAMONDS = """<ir_version: 8, opset_import: ["": 17]> g (float[N, 2] x) => (float[N, 2] y, float[N, 2] side)
  <float s = {3}, float t = {0.5}>
  {a = Relu(x) b = Mul(a, s) c = Mul(a, t) d = Add(b, c) e = Sigmoid(d) f = Mul(d, e) g1 = Neg(f)
   y = Add(g1, b) side = Abs(c)}"""


def plan(text: str) -> FlowPlan:
    return plan_flow(observable(ir.from_onnx_text(text), lambda node: True))


def every_path(found: FlowPlan, weight: dict[str, float], output: str) -> list[tuple[float, tuple[str, ...]]]:
    """Return the product of shares and the tensors of every way to an output, by walking all of them."""
    values = {str(v.name): v for node in found.model.graph for v in node.outputs}

    def walk(name: str) -> list[tuple[float, tuple[str, ...]]]:
        value = values.get(name)
        node = value.producer() if value is not None else None
        if node is None:
            return [(1.0, ())]
        met = [v for v in dict.fromkeys(node.inputs) if v is not None and v in found.varying]
        total = sum(weight[str(v.name)] for v in met) if node.op_type == "Add" else None
        ways = []
        for v in met:
            share = weight[str(v.name)] / total if total else 1 / len(met)
            ways += [(share * product, (*before, name)) for product, before in walk(str(v.name))]
        return ways

    return sorted(((p, ("x", *t[1:])) for p, t in walk(output)), reverse=True)


WEIGHT = {"a": 1.0, "b": 9.0, "c": 0.25, "d": 8.0, "e": 0.5, "f": 4.0, "g1": 4.0}


def traced(weight: dict[str, float] = WEIGHT) -> tuple[FlowPlan, KeyPaths]:
    found = plan(DIAMONDS)
    return found, key_paths(found, weight)


def test_key_path_is_the_best_of_all() -> None:
    found, paths = traced()
    for path in paths.paths:
        ways = every_path(found, WEIGHT, path.output)
        assert path.share == pytest.approx(ways[0][0])
        assert path.tensors == ways[0][1]
    wrong = every_path(found, {**WEIGHT, "g1": 400.0}, "y")[0]  # the oracle tells another weight
    assert wrong[1] != next(path for path in paths.paths if path.output == "y").tensors


def test_scores_are_the_sum_over_all_paths() -> None:
    found, paths = traced()
    ways = every_path(found, WEIGHT, "y"), every_path(found, WEIGHT, "side")
    for tensor, score in paths.scores.items():
        expected = sum(p for some in ways for p, tensors in some if tensor in tensors) / 2
        assert score == pytest.approx(expected), tensor
    assert paths.scores["x"] == pytest.approx(1.0)
    assert traced({**WEIGHT, "b": 1.0})[1].scores["b"] != pytest.approx(paths.scores["b"])


def test_only_sums_and_joins_need_energy() -> None:
    assert set(meeting_tensors(plan(DIAMONDS))) == {"b", "c", "g1"}


def test_energy_that_is_not_finite_gives_equal_shares_and_is_told() -> None:
    _, paths = traced({**WEIGHT, "b": math.nan})
    assert paths.notes
    assert paths.scores["x"] == pytest.approx(1.0)
    assert not traced()[1].notes


def test_energy_of_a_run_decides() -> None:
    model = ir.from_onnx_text(DIAMONDS)
    found = onnxviz.flow_numbers(model, {"x": np.ones((4, 2), np.float32)}, providers="cpu")
    assert found.paths is not None
    side = next(path for path in found.paths.paths if path.output == "side")
    assert side.tensors == ("x", "a", "c", "side")
    d = 3.5
    f = d / (1 + math.exp(-d))
    assert found.paths.scores["g1"] == pytest.approx(0.5 * f**2 / (f**2 + 9), rel=1e-5)


def test_shapes_and_indices_take_no_share() -> None:
    found = plan("""<ir_version: 8, opset_import: ["": 17]> g (float[N, 2] x) => (float[N, 2] y)
      {s = Shape(x) r = Relu(x) y = Reshape(r, s)}""")
    paths = key_paths(found, {})
    assert paths.paths[0].tensors == ("x", "r", "y")
    assert paths.paths[0].share == 1.0
    assert "s" not in paths.scores
