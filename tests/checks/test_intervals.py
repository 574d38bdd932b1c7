"""Bounds hold: on ONNX's own node tests, on whole models, and where relations are known."""

from __future__ import annotations

import math
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxviz.checks.interval_rules import INTERVAL_RULES
from onnxviz.checks.intervals import UNBOUNDED, Bounds, Known, Rule, tensor_bounds, value_bounds
from onnxviz.graph.shapes import infer_shapes
from onnxviz.runtime.capture import capture
from tests.checks.cases.given import net


@cache
def node_cases() -> dict[str, list[Any]]:
    """ONNX's node tests of one node, by operator."""
    from onnx.backend.test.case.node import collect_testcases

    found: dict[str, list[Any]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in collect_testcases(None):
            nodes = case.model.graph.node if case.model is not None else ()
            if len(nodes) == 1 and not nodes[0].domain and case.data_sets:
                found.setdefault(nodes[0].op_type, []).append(case)
    return found


def escapes(case: Any, rule: Rule) -> str:
    """Return how the expected output of a case leaves its bounds; empty if it does not."""
    model = infer_shapes(ir.serde.deserialize_model(case.model))
    feeds, expected = case.data_sets[0]
    known = Known()
    for value, array in zip(model.graph.inputs, feeds, strict=False):
        if isinstance(array, np.ndarray) and array.size and array.dtype.kind in "fiub":
            known.set(value, Bounds(float(array.min()), float(array.max()), bool((array != 0).all())))
    found = rule(model.graph[0], known)
    output = expected[0]
    if found is None or not isinstance(output, np.ndarray) or output.dtype.kind not in "fiub" or not output.size:
        return ""
    numbers = output.astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return ""
    slack = 1e-5 * max(1.0, float(np.abs(numbers).max()))
    if numbers.min() < found.low - slack or numbers.max() > found.high + slack:
        return f"{case.name}: [{numbers.min()}, {numbers.max()}] is outside of [{found.low}, {found.high}]"
    return f"{case.name}: it has a 0" if found.nonzero and (numbers == 0).any() else ""


@pytest.mark.parametrize("op", sorted(INTERVAL_RULES))
def test_bounds_hold_on_the_node_tests(op: str) -> None:
    cases = node_cases().get(op, [])
    assert cases or op in {"Upsample", "MaxRoiPool"}, "an operator without a node test"
    assert [text for case in cases if (text := escapes(case, INTERVAL_RULES[op]))] == []


@pytest.mark.parametrize(
    ("op", "wrong"),
    [
        ("Relu", lambda node, known: Bounds(0.5, 1.0)), ("Add", lambda node, known: known.input(node)),
        ("Sigmoid", lambda node, known: Bounds(0.6, 1.0)), ("Sub", INTERVAL_RULES["Add"]), ("Exp", INTERVAL_RULES["Log"]),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_caught(op: str, wrong: Rule) -> None:
    assert [text for case in node_cases()[op] if (text := escapes(case, wrong))]


def bounds_of(body: str, name: str = "y", **given: Any) -> Bounds:
    model = infer_shapes(ir.from_onnx_text(net(body, **given)))
    found = value_bounds(model.graph, INTERVAL_RULES, lambda node, known: None)
    return found.of(next(v for n in model.graph for v in n.outputs if v.name == name))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Mul(x, x)", (0, math.inf)),
        ("r = Relu(x) y = Neg(r)", (-math.inf, 0)),
        ("m = ReduceMax<axes = [0]>(x) s = Sub(x, m) e = Exp(s) y = ReduceSum(e, a)", (1, 2)),
        ("m = ReduceMax<axes = [0]>(x) s = Sub(x, m) e = Exp(s) y = Neg(e)", (-1, 0)),
        ("c = Equal(x, z) y = Where(c, o, x)", (-math.inf, math.inf)),
        ("s = Sigmoid(x) y = Sub(o, s)", (0, 1)),
        ("s = Sigmoid(x) t = Reshape(s, n) y = MatMul(t, w)", (-2, 3)),
        ("s = Shape(x) y = Cast<to = 1>(s)", (1, math.inf)),
        ("s = Sigmoid(x) b = Mul(s, h) y = Pow(b, p)", (0, math.inf)),
        ("y = acme.Frob(x)", (-math.inf, math.inf)),
    ],
)
def test_what_is_known(body: str, expected: tuple[float, float]) -> None:
    weights = "int64[1] a = {0}, float z = {0}, float o = {1}, int64[2] n = {1, 2}, float[2, 1] w = {3, -2}, float h = {1e30}, float p = {12}"
    found = bounds_of(body, weights=weights, opset=17, head=', "acme": 1')
    assert (found.low, found.high) == pytest.approx(expected)


def test_a_guarded_divisor_is_not_zero() -> None:
    weights = "float z = {0}, float o = {1}"
    assert bounds_of("c = Equal(x, z) y = Where(c, o, x)", weights=weights).nonzero
    assert not bounds_of("c = Equal(x, z) y = Where(c, x, o)", weights=weights).nonzero


def test_a_branch_may_be_either() -> None:
    body = (
        "y = If(c) <then_branch = a () => (float[2] p) {p = Sigmoid(x)}, "
        "else_branch = b () => (float[2] q) {r = Relu(x) q = Neg(r)}>"
    )
    assert bounds_of(body, inputs="bool c, float[2] x") == Bounds(-math.inf, 1.0)


def test_constants() -> None:
    assert tensor_bounds(ir.Tensor(np.array([np.nan, 1], np.float32))) == UNBOUNDED
    assert tensor_bounds(ir.Tensor(np.array([], np.float32))) == UNBOUNDED
    assert tensor_bounds(ir.Tensor(np.array([0.0, 2.0]))) == Bounds(0.0, 2.0)


@pytest.mark.parametrize("name", ["lenet5.onnx", "digits_cnn.onnx", "vit_digits.onnx"])
def test_bounds_hold_on_whole_models(models: Path, name: str) -> None:
    if not (models / name).exists():
        pytest.skip(f"there is no {name}")
    model = ir.load(models / name)
    inferred = infer_shapes(model)
    found = value_bounds(inferred.graph, INTERVAL_RULES, lambda node, known: None)
    bounds = {v.name: found.of(v) for n in inferred.graph for v in n.outputs}
    captured = capture(model, providers="cpu", bodies=False)
    bounded = 0
    for tensor, record in captured.items():
        array = record.array
        if array is None or tensor not in bounds or array.dtype.kind != "f":
            continue
        slack = 1e-5 * max(1.0, float(np.abs(array).max()))
        assert bounds[tensor].low - slack <= array.min()
        assert array.max() <= bounds[tensor].high + slack
        bounded += bounds[tensor] != UNBOUNDED
    assert bounded


def test_onnx_has_its_cases() -> None:
    assert len(node_cases()) > 100, onnx.__version__
