"""Linear models and scalers of ai.onnx.ml; trees are constant between their steps."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.registry import Grads, gradient, no_gradient
from onnxviz.gradient.step import Step

_ML = "ai.onnx.ml"
no_gradient("it is constant between its steps", "Binarizer", "TreeEnsemble", "TreeEnsembleClassifier",
            "TreeEnsembleRegressor", domain=_ML)  # fmt: skip
no_gradient("it maps categories", "ArrayFeatureExtractor", "CategoryMapper", "DictVectorizer", "LabelEncoder",
            "OneHotEncoder", domain=_ML)  # fmt: skip


def _to_input(s: Step, dx: ir.Value) -> ir.Value:
    """Return a gradient in the type of the input: these operators compute in single precision."""
    return s.ops.cast(dx, s[0])


@gradient("Scaler", domain=_ML)
def scaler(s: Step, dy: ir.Value) -> Grads:
    """``(x - offset) · scale``, a pair for all or for each column."""
    scale = np.asarray(s.attr("scale", (1.0,)), np.float32)
    if scale.size > 1 and s.rank() not in (1, 2):
        raise s.refuse("its input is of more than two axes, or its rank is not known")
    return _to_input(s, s.ops.Mul(dy, s.ops.constant(scale if scale.size > 1 else scale.reshape(()))))


@gradient("Imputer", domain=_ML)
def imputer(s: Step, dy: ir.Value) -> Grads:
    """What was put in does not depend on the input."""
    ops, replaced = s.ops, float(s.attr("replaced_value_float", 0.0))
    missing = ops.IsNaN(s[0]) if np.isnan(replaced) else ops.Equal(s[0], ops.scalar(replaced, s[0]))
    return ops.Where(missing, ops.scalar(0, dy), dy)


@gradient("Normalizer", domain=_ML)
def normalizer(s: Step, dy: ir.Value) -> Grads:
    """``(dy - slope Σ y dy) / norm``, where slope is y for L2 and the sign of x for L1; 0 where the row is 0."""
    ops, norm = s.ops, s.attr("norm", "MAX")
    if norm == "MAX":
        raise s.refuse("norm = MAX")
    if s.rank() not in (1, 2):
        raise s.refuse("its input is of more than two axes, or its rank is not known")
    x = s[0] if s[0].dtype == ir.DataType.FLOAT else ops.Cast(s[0], to=int(ir.DataType.FLOAT))
    length = ops.node("ReduceL2" if norm == "L2" else "ReduceL1", x, ops.ints(-1), keepdims=1)
    slope = s.y if norm == "L2" else ops.Sign(x)
    none = ops.Equal(length, ops.scalar(0, length))
    along = ops.ReduceSum(ops.Mul(s.y, dy), ops.ints(-1), keepdims=1)
    back = ops.Div(ops.Sub(dy, ops.Mul(slope, along)), ops.Where(none, ops.scalar(1, length), length))
    return _to_input(s, ops.Where(none, ops.scalar(0, dy), back))


def _coefficients(s: Step, rows: int) -> ir.Value:
    return s.ops.constant(np.asarray(s.attr("coefficients"), np.float32).reshape(rows, -1))


@gradient("LinearRegressor", domain=_ML)
def linear_regressor(s: Step, dy: ir.Value) -> Grads:
    if s.attr("post_transform", "NONE") != "NONE":
        raise s.refuse(f"post_transform = {s.attr('post_transform')}")
    return _to_input(s, s.ops.reshape(s.ops.MatMul(dy, _coefficients(s, s.attr("targets", 1))), s[0]))


@gradient("LinearClassifier", domain=_ML)
def linear_classifier(s: Step, labels: ir.Value | None, dy: ir.Value | None = None) -> Grads:
    """Of the scores; the labels are the places of the largest."""
    if dy is None:
        return None
    ops, y, transform = s.ops, s.output(1), s.attr("post_transform", "NONE")
    classes = len(s.attr("classlabels_ints", ()) or s.attr("classlabels_strings", ()))
    if len(s.attr("intercepts", ())) != classes:
        raise s.refuse("it has one row of coefficients for two classes, or no intercepts")
    width = None if s[0].shape is None else s[0].shape[-1]
    if isinstance(width, int) and len(s.attr("coefficients", ())) != classes * width:
        raise s.refuse(f"its coefficients are not those of {width} features")
    ops.typed(y, dy)
    if transform == "LOGISTIC":
        dy = ops.Mul(dy, ops.Mul(y, ops.Sub(ops.scalar(1, dy), y)))
    elif transform == "SOFTMAX":
        dy = ops.Mul(y, ops.Sub(dy, ops.ReduceSum(ops.Mul(dy, y), ops.ints(-1), keepdims=1)))
    elif transform != "NONE":
        raise s.refuse(f"post_transform = {transform}")
    return _to_input(s, ops.reshape(ops.MatMul(dy, _coefficients(s, classes)), s[0]))
