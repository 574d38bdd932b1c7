"""What bounds the first output of each operator; see :mod:`onnxviz.checks.intervals`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxviz.checks.interval_arithmetic import (
    absolute,
    constant_scalar,
    even_power,
    exp,
    less_its_maximum,
    product,
    quotient,
    times,
)
from onnxviz.checks.interval_sums import SUM_RULES
from onnxviz.checks.intervals import INF, UNBOUNDED, Bounds, Known, Rule
from onnxviz.checks.reading import read_array
from onnxviz.graph.equality import ints
from onnxviz.graph.shapes import shape_list

__all__ = ["INTERVAL_RULES"]

_UNIT = Bounds(0.0, 1.0)
_NATURAL = Bounds(0.0, INF)
_SYMMETRIC = Bounds(-1.0, 1.0)
_TINY = 1e-45  # the smallest subnormal of float32: what is smaller becomes 0


def _first(node: ir.Node, known: Known) -> Bounds:
    return known.input(node)


def _fixed(bounds: Bounds) -> Rule:
    return lambda node, known: bounds


def _increasing(function: Callable[[float], float]) -> Rule:
    """Return the rule of a function that never falls."""

    def rule(node: ir.Node, known: Known) -> Bounds:
        x = known.input(node)
        return Bounds(function(x.low), function(x.high))

    return rule


def _add(node: ir.Node, known: Known) -> Bounds:
    a, b = known.input(node, 0), known.input(node, 1)
    return Bounds(a.low + b.low, a.high + b.high)


def _subtract(node: ir.Node, known: Known) -> Bounds:
    a, b = known.input(node, 0), known.input(node, 1)
    high = min(a.high - b.low, 0.0) if less_its_maximum(node) else a.high - b.low
    return Bounds(a.low - b.high, high)


def _multiply(node: ir.Node, known: Known) -> Bounds:
    a, b = known.input(node, 0), known.input(node, 1)
    if node.inputs[0] is node.inputs[1]:
        return even_power(a, 2)
    return product(a, b)


def _divide(node: ir.Node, known: Known) -> Bounds:
    return quotient(known.input(node, 0), known.input(node, 1))


def _power(node: ir.Node, known: Known) -> Bounds | None:
    x, power = known.input(node), constant_scalar(node.inputs[1] if len(node.inputs) > 1 else None)
    if power is None:
        return _NATURAL if x.low >= 0 else None
    if power > 0 and power == int(power) and int(power) % 2 == 0:
        return even_power(x, power)
    if x.low < 0:
        return None
    with np.errstate(all="ignore"):
        ends = sorted(float(np.float64(end) ** power) if end or power > 0 else INF for end in (x.low, x.high))
    return Bounds(ends[0], ends[1])


def _negative(node: ir.Node, known: Known) -> Bounds:
    x = known.input(node)
    return Bounds(-x.high, -x.low, x.nonzero)


def _exponential(node: ir.Node, known: Known) -> Bounds:
    x = known.input(node)
    low = exp(x.low)
    return Bounds(low if low > _TINY else 0.0, exp(x.high))


def _logarithm(node: ir.Node, known: Known) -> Bounds:
    x = known.input(node)
    return Bounds(math.log(x.low) if 0 < x.low < INF else -INF, math.log(x.high) if 0 < x.high < INF else INF)


def _root(node: ir.Node, known: Known) -> Bounds:
    x = known.input(node)
    return Bounds(math.sqrt(max(x.low, 0.0)), math.sqrt(max(x.high, 0.0)))


def _one(number: float) -> Bounds:
    return Bounds(number, number, number != 0)


def _clip(node: ir.Node, known: Known) -> Bounds:
    x = known.input(node)
    low, high = _limit(node, known, 1, "min").low, _limit(node, known, 2, "max").high
    return Bounds(min(max(x.low, low), high), max(min(x.high, high), low))


def _limit(node: ir.Node, known: Known, index: int, name: str) -> Bounds:
    """Return the bounds of a limit of Clip; up to opset 10 it is an attribute."""
    if name in node.attributes:
        return _one(node.attributes.get_float(name, 0.0))
    return known.input(node, index)


def _several(combine: Callable[[list[float]], float]) -> Rule:
    def rule(node: ir.Node, known: Known) -> Bounds:
        given = [known.of(value) for value in node.inputs]
        return Bounds(combine([b.low for b in given]), combine([b.high for b in given])) if given else UNBOUNDED

    return rule


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def _union(start: int = 0, end: int | None = None) -> Rule:
    """Return the rule of an operator that picks from several inputs."""

    def rule(node: ir.Node, known: Known) -> Bounds:
        given = [known.of(value) for value in node.inputs[start:end] if value is not None]
        if not given:
            return UNBOUNDED
        hull = given[0]
        for bounds in given[1:]:
            hull = hull.union(bounds)
        return hull

    return rule


def _where(node: ir.Node, known: Known) -> Bounds:
    yes, no = known.input(node, 1), known.input(node, 2)
    condition = node.inputs[0].producer() if node.inputs[0] is not None else None
    if condition is not None and condition.op_type == "Equal" and not yes.may_be_zero:
        zero = [index for index, value in enumerate(condition.inputs) if constant_scalar(value) == 0]
        if zero and condition.inputs[1 - zero[0]] is node.inputs[2]:  # where(x == 0, one, x)
            return Bounds(min(yes.low, no.low), max(yes.high, no.high), nonzero=True)
    return yes.union(no)


def _with_zero(node: ir.Node, known: Known) -> Bounds:
    x = known.input(node)
    return Bounds(min(x.low, 0.0), max(x.high, 0.0))


def _pad(node: ir.Node, known: Known) -> Bounds:
    x = known.input(node)
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    if mode != "constant":
        return x
    fill = known.input(node, 2) if len(node.inputs) > 2 and node.inputs[2] is not None else _one(0.0)
    if "value" in node.attributes:
        fill = _one(node.attributes.get_float("value", 0.0))
    return x.union(fill)


def _pool(node: ir.Node, known: Known) -> Bounds:
    counts = node.attributes.get_int("count_include_pad", 0)
    return _with_zero(node, known) if counts else known.input(node)


def _resize(node: ir.Node, known: Known) -> Bounds:
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "nearest"
    x = known.input(node)
    if mode == "cubic":
        return Bounds(-2 * x.magnitude, 2 * x.magnitude)  # the weights of a cubic kernel add up to less than 2
    return _with_zero(node, known) if "extrapolation_value" in node.attributes else x


def _leaky(node: ir.Node, known: Known) -> Bounds:
    slope = node.attributes.get_float("alpha", 0.01)
    x = known.input(node)
    ends = [end if end >= 0 else times(slope, end) for end in (x.low, x.high)]
    return Bounds(min(*ends, 0.0) if x.low < 0 < x.high else min(ends), max(ends))


def _saturating(floor: float) -> Rule:
    """Return the rule of an activation that is about x above 0 and never below a number."""

    def rule(node: ir.Node, known: Known) -> Bounds:
        x = known.input(node)
        return Bounds(floor if x.low < 0 else 0.0, max(x.high, 0.0))

    return rule


def _elu(node: ir.Node, known: Known) -> Bounds | None:
    floor = -abs(node.attributes.get_float("alpha", 1.0))
    return _saturating(floor)(node, known)


def _selu(node: ir.Node, known: Known) -> Bounds:
    alpha, gamma = node.attributes.get_float("alpha", 1.67326), node.attributes.get_float("gamma", 1.0507)
    x = known.input(node)
    return Bounds(-abs(alpha * gamma) if x.low < 0 else 0.0, abs(gamma) * max(x.high, 0.0))


def _dropout(node: ir.Node, known: Known) -> Bounds | None:
    """In training mode what is left is made larger."""
    return None if len(node.inputs) > 2 and node.inputs[2] is not None else known.input(node)


def _filled(node: ir.Node, known: Known) -> Bounds:
    if "value" not in node.attributes:
        return Bounds(0.0, 0.0)
    number = float(read_array(node.attributes["value"].as_tensor()).reshape(-1)[0])
    return _one(number)


def _range(node: ir.Node, known: Known) -> Bounds:
    return known.input(node, 0).union(known.input(node, 1))


def _sizes(node: ir.Node, known: Known) -> Bounds:
    shape = None if node.inputs[0] is None else shape_list(node.inputs[0])
    return Bounds(0.0 if shape is not None and 0 in shape else 1.0, INF)


def _cast(node: ir.Node, known: Known) -> Bounds:
    x, to = known.input(node), ints(node, "to")
    if to and to[0] == ir.DataType.BOOL:
        return _UNIT
    if node.op_type == "Cast" and to and ir.DataType(to[0]).is_integer():
        return Bounds(
            math.trunc(x.low) if abs(x.low) < INF else x.low, math.trunc(x.high) if abs(x.high) < INF else x.high
        )
    return x


def _dequantized(node: ir.Node, known: Known) -> Bounds | None:
    code = node.inputs[0]
    scale, zero = known.input(node, 1), Bounds(0.0, 0.0)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        zero = known.input(node, 2)
    codes = known.of(code)
    if code is not None and codes == UNBOUNDED and code.dtype is not None and code.dtype.is_integer():
        codes = Bounds(float(code.dtype.min), float(code.dtype.max))
    return product(Bounds(codes.low - zero.high, codes.high - zero.low), scale)


def _lstm(node: ir.Node, known: Known) -> Bounds | None:
    return _SYMMETRIC if "activations" not in node.attributes else None


def _gru(node: ir.Node, known: Known) -> Bounds | None:
    initial = known.input(node, 5) if len(node.inputs) > 5 and node.inputs[5] is not None else _SYMMETRIC
    return _SYMMETRIC.union(initial) if "activations" not in node.attributes else None


#: Operators that only move, choose or average what they are given.
_PASSED = (
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Split", "Gather",
    "GatherND", "GatherElements", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "MaxPool", "GlobalMaxPool",
    "GlobalAveragePool", "ReduceMean", "ReduceMax", "ReduceMin", "TopK", "ReverseSequence", "Compress", "MaxRoiPool",
    "Unique",
)  # fmt: skip


_LOGICAL = (
    "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Not", "Xor", "IsNaN", "IsInf",
)  # fmt: skip


#: Operator -> what bounds its first output.
INTERVAL_RULES: dict[str, Rule] = {
    **SUM_RULES,
    **dict.fromkeys(_PASSED, _first),
    **dict.fromkeys(["Sigmoid", "HardSigmoid", "Softmax", "Hardmax", "Bernoulli", *_LOGICAL], _fixed(_UNIT)),
    **dict.fromkeys(["Tanh", "Sin", "Cos", "Sign", "Erf", "Softsign"], _fixed(_SYMMETRIC)),
    **dict.fromkeys(["ArgMax", "ArgMin", "NonZero", "NonMaxSuppression", "Softplus"], _fixed(_NATURAL)),
    **dict.fromkeys(["Shape", "Size"], _sizes),
    **dict.fromkeys(["Cast", "CastLike"], _cast),
    "LogSoftmax": _fixed(Bounds(-INF, 0.0)),
    "Relu": _increasing(lambda x: max(x, 0.0)),
    "Floor": _increasing(lambda x: float(np.floor(x))),
    "Ceil": _increasing(lambda x: float(np.ceil(x))),
    "Round": _increasing(lambda x: float(np.rint(x))),
    "Atan": _fixed(Bounds(-math.pi / 2, math.pi / 2)),
    "Acos": _fixed(Bounds(0.0, math.pi)),
    "Asin": _fixed(Bounds(-math.pi / 2, math.pi / 2)),
    "Cosh": _fixed(Bounds(1.0, INF)),
    "Dropout": _dropout,
    "LeakyRelu": _leaky,
    "Elu": _elu,
    "Selu": _selu,
    "Gelu": _saturating(-0.17),
    "Mish": _saturating(-0.3089),
    "HardSwish": _saturating(-0.375),
    "Add": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
    "Pow": _power,
    "Abs": absolute,
    "Neg": _negative,
    "Exp": _exponential,
    "Log": _logarithm,
    "Sqrt": _root,
    "Reciprocal": lambda node, known: quotient(Bounds(1.0, 1.0), known.input(node)),
    "Clip": _clip,
    "Max": _several(max),
    "Min": _several(min),
    "Sum": _several(sum),
    "Mean": _several(_mean),
    "Concat": _union(),
    "Where": _where,
    "Pad": _pad,
    "AveragePool": _pool,
    "Resize": _resize,
    "Upsample": _first,
    "Trilu": _with_zero,
    "ConstantOfShape": _filled,
    "Range": _range,
    "DequantizeLinear": _dequantized,
    "LSTM": _lstm,
    "GRU": _gru,
}
