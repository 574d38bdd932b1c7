"""Operators of ai.onnx.ml, against differences of what onnxruntime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxviz.errors import GradientError
from onnxviz.gradient.model import gradient_model
from onnxviz.gradient.registry import standard_table
from tests.gradient.rules_case import differences

RNG = np.random.default_rng(6)
X = RNG.normal(size=(4, 3)).astype(np.float32)
LINEAR = {"coefficients": RNG.normal(size=6).tolist(), "intercepts": [0.1, -0.2]}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "Scaler": ("Scaler", {"offset": [0.5, 1.0, -1.0], "scale": [2.0, -3.0, 0.1]}),
    "Scaler of one": ("Scaler", {"offset": [0.5], "scale": [2.0]}),
    "Normalizer L1": ("Normalizer", {"norm": "L1"}),
    "Normalizer L2": ("Normalizer", {"norm": "L2"}),
    "LinearRegressor": ("LinearRegressor", {"targets": 2, **LINEAR}),
    "LinearClassifier": ("LinearClassifier", {"classlabels_ints": [0, 1], **LINEAR}),
    "LinearClassifier logistic": (
        "LinearClassifier", {"classlabels_strings": ["a", "b"], "post_transform": "LOGISTIC", **LINEAR}
    ),
    "LinearClassifier softmax": (
        "LinearClassifier", {"classlabels_ints": [0, 1], "post_transform": "SOFTMAX", **LINEAR}
    ),
    "Imputer": ("Imputer", {"imputed_value_floats": [7.0, 8.0, 9.0], "replaced_value_float": float(X[1, 1])}),
}  # fmt: skip


def model(op_type: str, attributes: dict[str, Any]) -> ir.Model:
    helper = onnx.helper
    outputs = ["label", "y"] if op_type == "LinearClassifier" else ["y"]
    inner = helper.make_node(op_type, ["h"], outputs, domain="ai.onnx.ml", **attributes)
    nodes = [helper.make_node("Identity", ["x"], ["h"]), inner]
    ends = [helper.make_tensor_value_info(name, 1, ["n", "c"]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=9))


@pytest.mark.parametrize("case", sorted(CASES))
def test_gradients_of_linear_models_and_scalers(case: str) -> None:
    op_type, attributes = CASES[case]
    made, exact = model(op_type, attributes), X.copy()
    if op_type == "Imputer":
        made.graph.node(1).attributes["replaced_value_float"] = ir.AttrFloat32("replaced_value_float", 0.125)
        exact[1, 1] = np.float32(0.125)
        grads = gradient_model(made, "y", ["x"])
        from tests.gradient.rules_case import run

        (found,) = run(grads.model, {"x": exact, "y.grad": np.ones_like(exact)}, ["x.grad"])
        assert found.tolist() == (exact != 0.125).astype(float).tolist()
        return
    assert differences(made, {"x": exact}, ["x"])["x"] < 1e-3
    right = standard_table().rows["ai.onnx.ml", op_type][0].rule
    off = standard_table().changed(
        {("ai.onnx.ml", op_type): lambda s, *dys: s.ops.Mul(right(s, *dys), s.ops.scalar(1.1, s[0]))}
    )
    assert differences(made, {"x": exact}, ["x"], off)["x"] > 3e-3


def test_what_is_refused_and_what_has_none() -> None:
    for op_type, attributes, message in (
        ("Normalizer", {"norm": "MAX"}, "no gradient of Normalizer-1 at 'y': norm = MAX"),
        ("LinearRegressor", {**LINEAR, "post_transform": "PROBIT"}, "post_transform = PROBIT"),
        ("LinearClassifier", {"classlabels_ints": [0, 1], **LINEAR, "intercepts": [1.0]}, "one row of coefficients"),
        ("Binarizer", {"threshold": 0.5}, "it is constant between its steps"),
    ):
        with pytest.raises(GradientError, match=message):
            gradient_model(model(op_type, attributes), "y", ["x"])


def test_coefficients_of_other_features_are_refused() -> None:
    """onnxruntime runs such a model, and reads the first of them."""
    attributes = {"classlabels_ints": [0, 1], **LINEAR, "coefficients": [1.0] * 8}
    made = model("LinearClassifier", attributes)
    made.graph.inputs[0].shape = ir.Shape(["n", 3])
    with pytest.raises(GradientError, match="its coefficients are not those of 3 features"):
        gradient_model(made, target="sum(y)", wrt=["x"])
