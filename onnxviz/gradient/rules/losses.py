"""Losses of class labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.rules.tracing import int64
from onnxviz.gradient.step import Step


@dataclass(frozen=True)
class _Labels:
    """Labels as indices, and how much each sample counts.

    Attributes:
        index: ``(N, 1, …)``, 0 where the sample is ignored.
        weight: ``(N, …)``.
        ignored: ``(N, …)``; None where no label is.
        entering: ``(N, …)`` or a scalar: the gradient of each sample's own loss, without its weight.
        total: Sum of weights where the loss is a mean, else None.
    """

    index: ir.Value
    weight: ir.Value
    ignored: ir.Value | None
    entering: ir.Value
    total: ir.Value | None


def _labels(s: Step, dy: ir.Value) -> _Labels:
    ops, labels, ignore, ignored = s.ops, s[1], s.attr("ignore_index"), None
    zero, one = ops.scalar(0, dy), ops.scalar(1, dy)
    if ignore is not None:
        kind = (labels.dtype or ir.DataType.INT64).numpy()
        ignored = ops.Equal(labels, ops.constant(np.array(ignore, kind)))
        labels = ops.Where(ignored, ops.constant(np.array(0, kind)), labels)
        ops.typed(labels, s[1])
    weights = s.input(2)
    weight = ops.Expand(one, ops.shape(s[1])) if weights is None else ops.Gather(weights, labels, axis=0)
    if ignored is not None:
        weight = ops.Where(ignored, zero, weight)
    total = ops.ReduceSum(weight, keepdims=0) if s.attr("reduction", "mean") == "mean" else None
    entering = dy if total is None else ops.Div(dy, total)
    return _Labels(ops.Unsqueeze(int64(ops, labels), ops.ints(1)), weight, ignored, entering, total)


def _weights_grad(s: Step, labels: _Labels, log_probability: ir.Value) -> ir.Value:
    """Return the gradient of the class weights; of a mean they weigh the divisor as well."""
    ops = s.ops
    own = ops.Neg(ops.Squeeze(ops.GatherElements(log_probability, labels.index, axis=1), ops.ints(1)))
    if labels.total is not None:
        own = ops.Sub(own, s.y)
    own = ops.Mul(own, labels.entering)
    if labels.ignored is not None:
        own = ops.Where(labels.ignored, ops.scalar(0, own), own)
    flat = [ops.Reshape(value, ops.ints(-1)) for value in (labels.index, own)]
    return ops.scatter_add(ops.shape(s[2]), flat[0], flat[1], 0)


@gradient("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood(s: Step, dy: ir.Value) -> Grads:
    ops, labels = s.ops, _labels(s, dy)
    each = ops.Unsqueeze(ops.Neg(ops.Mul(labels.weight, labels.entering)), ops.ints(1))
    dx = ops.ScatterElements(ops.zeros_like(s[0]), labels.index, each, axis=1) if s.need(0) else None
    return dx, None, _weights_grad(s, labels, s[0]) if s.need(2) else None


@gradient("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy(s: Step, dy: ir.Value | None, dlog: ir.Value | None = None) -> Grads:
    """``softmax - onehot``, weighed; the second output is the log-softmax."""
    ops, log_probability, parts, dw = s.ops, s.output(1), [], None
    if log_probability.dtype is None:
        ops.typed(log_probability, s[0]).shape = s[0].shape
    softmax = ops.Exp(log_probability)
    if dy is not None:
        labels = _labels(s, dy)
        each = ops.Unsqueeze(ops.Mul(labels.weight, labels.entering), ops.ints(1))
        parts.append(ops.Mul(softmax, each))
        parts.append(ops.ScatterElements(ops.zeros_like(s[0]), labels.index, ops.Neg(each), axis=1))
        dw = _weights_grad(s, labels, log_probability) if s.need(2) else None
    if dlog is not None:
        parts.append(ops.Sub(dlog, ops.Mul(softmax, ops.ReduceSum(dlog, ops.ints(1), keepdims=1))))
    return ops.add(parts), None, dw
