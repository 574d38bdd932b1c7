"""What bounds the first output of each operator; see :mod:`onnxviz.checks.intervals`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxviz.checks.intervals import INF, UNBOUNDED, Bounds, Known, Rule
from onnxviz.checks.reading import read_array
from onnxviz.errors import CheckError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.equality import ints
from onnxviz.graph.shapes import shape_list

__all__ = ["INTERVAL_RULES", "constant_scalar", "exp", "less_its_maximum"]

_UNIT = Bounds(0.0, 1.0)
_NATURAL = Bounds(0.0, INF)
_SYMMETRIC = Bounds(-1.0, 1.0)
_TINY = 1e-45  # the smallest subnormal of float32: what is smaller becomes 0
_LARGEST_WEIGHT = 1 << 26  # elements of a weight up to which its rows are summed


def times(a: float, b: float) -> float:
    """Multiply bounds: nothing times an unbounded number is nothing, for the number itself is finite."""
    return 0.0 if a == 0 or b == 0 else a * b


def product(a: Bounds, b: Bounds) -> Bounds:
    """Return the bounds of the product of two numbers."""
    corners = [times(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return Bounds(min(corners), max(corners))


def quotient(a: Bounds, b: Bounds) -> Bounds:
    """Return the bounds of a quotient whose divisor is not 0."""
    if b.low > 0 or b.high < 0:
        return product(a, Bounds(1 / b.high, 1 / b.low))
    if b.low == 0:
        return product(a, _NATURAL)
    return product(a, Bounds(-INF, 0.0)) if b.high == 0 else UNBOUNDED


def exp(x: float) -> float:
    """Return e to a power, 0 and infinity where float64 ends."""
    return INF if x > 709 else 0.0 if x < -745 else math.exp(x)


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


def constant_scalar(value: ir.Value | None) -> float | None:
    """Return the number that a tensor of one element always holds; None where it holds others."""
    tensor = constant_tensor(value)
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    try:
        return float(read_array(tensor).reshape(-1)[0])
    except CheckError:
        return None


def _add(node: ir.Node, known: Known) -> Bounds:
    a, b = known.input(node, 0), known.input(node, 1)
    return Bounds(a.low + b.low, a.high + b.high)


def _subtract(node: ir.Node, known: Known) -> Bounds:
    a, b = known.input(node, 0), known.input(node, 1)
    high = min(a.high - b.low, 0.0) if less_its_maximum(node) else a.high - b.low
    return Bounds(a.low - b.high, high)


def less_its_maximum(node: ir.Node | None) -> bool:
    """Whether a node takes the maximum of a tensor, over some axes that it keeps, off the tensor itself."""
    if node is None or node.op_type != "Sub" or len(node.inputs) != 2 or node.inputs[1] is None:
        return False
    reduction = node.inputs[1].producer()
    if reduction is None or reduction.op_type != "ReduceMax" or reduction.inputs[0] is not node.inputs[0]:
        return False
    return reduction.attributes.get_int("keepdims", 1) == 1


def _multiply(node: ir.Node, known: Known) -> Bounds:
    a, b = known.input(node, 0), known.input(node, 1)
    if node.inputs[0] is node.inputs[1]:
        return _even_power(a, 2)
    return product(a, b)


def _divide(node: ir.Node, known: Known) -> Bounds:
    return quotient(known.input(node, 0), known.input(node, 1))


def _even_power(x: Bounds, power: float) -> Bounds:
    most = x.magnitude**power if x.magnitude < 1e150 else INF
    least = 0.0 if x.low <= 0 <= x.high else min(abs(x.low), abs(x.high))
    return Bounds(least**power if least < 1e150 else INF, most)


def _power(node: ir.Node, known: Known) -> Bounds | None:
    x, power = known.input(node), constant_scalar(node.inputs[1] if len(node.inputs) > 1 else None)
    if power is None:
        return _NATURAL if x.low >= 0 else None
    if power > 0 and power == int(power) and int(power) % 2 == 0:
        return _even_power(x, power)
    if x.low < 0:
        return None
    with np.errstate(all="ignore"):
        ends = sorted(float(np.float64(end) ** power) if end or power > 0 else INF for end in (x.low, x.high))
    return Bounds(ends[0], ends[1])


def _absolute(node: ir.Node, known: Known) -> Bounds:
    x = known.input(node)
    least = 0.0 if x.low <= 0 <= x.high else min(abs(x.low), abs(x.high))
    return Bounds(least, x.magnitude, x.nonzero)


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


def _count(node: ir.Node) -> tuple[float, float]:
    """Return the least and most elements that a reduction adds up."""
    shape = None if node.inputs[0] is None else shape_list(node.inputs[0])
    axes = _axes(node)
    if shape is None or axes is None:
        return 1.0, INF
    sizes = [shape[axis] for axis in axes if -len(shape) <= axis < len(shape)] if axes else shape
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return 1.0, INF
    count = float(math.prod(size for size in sizes if isinstance(size, int)))
    return count, count


def _axes(node: ir.Node) -> list[int] | None:
    """Return the axes of a reduction; empty for all, None where they are computed."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        tensor = constant_tensor(node.inputs[1])
        return None if tensor is None else [int(axis) for axis in read_array(tensor).reshape(-1)]
    return ints(node, "axes") or []


def _same_axes(total: ir.Node, shifted: ir.Node) -> bool:
    """Whether a sum runs over the axes that the maximum was taken of, which ``shifted`` takes off."""
    maximum = None if shifted.inputs[1] is None else shifted.inputs[1].producer()
    axes = _axes(total)
    return maximum is not None and axes is not None and axes == _axes(maximum)


def _exactly(rule: Rule, reduce: Callable[..., np.ndarray]) -> Rule:
    """Return a rule for a reduction that works out what it makes of a constant, such as the norm of a weight."""

    def exact(node: ir.Node, known: Known) -> Bounds | None:
        tensor, axes = constant_tensor(node.inputs[0]), _axes(node)
        if tensor is None or axes is None or tensor.size == 0 or tensor.size > _LARGEST_WEIGHT:
            return rule(node, known)
        try:
            array = np.asarray(read_array(tensor), np.float64)
        except CheckError:
            return None
        found = reduce(array, axis=tuple(axes) or None)
        return Bounds(float(found.min()), float(found.max()), bool((found != 0).all()))

    return exact


def _sum(node: ir.Node, known: Known) -> Bounds:
    x, (least, most) = known.input(node), _count(node)
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if source is not None and source.op_type == "Exp" and source.inputs[0] is not None:
        shifted = source.inputs[0].producer()
        if shifted is not None and less_its_maximum(shifted) and _same_axes(node, shifted):
            return Bounds(1.0, most)  # the largest element gives e⁰
    ends = [times(end, count) for end in (x.low, x.high) for count in (least, most)]
    return Bounds(min(ends), max(ends))


def _sum_of_squares(node: ir.Node, known: Known) -> Bounds:
    x, (least, most) = _even_power(known.input(node), 2), _count(node)
    return Bounds(times(x.low, least), times(x.high, most))


def _norm2(node: ir.Node, known: Known) -> Bounds:
    squares = _sum_of_squares(node, known)
    return Bounds(math.sqrt(squares.low), math.sqrt(squares.high))


def _norm1(node: ir.Node, known: Known) -> Bounds:
    x, (least, most) = _absolute(node, known), _count(node)
    return Bounds(times(x.low, least), times(x.high, most))


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


def _linear(weight_at: int, bias_at: int | None, rows: Callable[[ir.Node, np.ndarray], np.ndarray]) -> Rule:
    """Return the rule of an operator that adds up its input times a constant weight."""

    def rule(node: ir.Node, known: Known) -> Bounds | None:
        x = known.input(node)
        tensor = constant_tensor(node.inputs[weight_at]) if weight_at < len(node.inputs) else None
        if x.magnitude == INF or tensor is None or tensor.size > _LARGEST_WEIGHT:
            return None
        try:
            weight = rows(node, np.asarray(read_array(tensor), np.float64))
        except CheckError:
            return None
        low, high = min(x.low, 0.0), max(x.high, 0.0)  # padding is 0
        up, down = np.maximum(weight, 0).sum(axis=1), np.minimum(weight, 0).sum(axis=1)
        bias = Bounds(0.0, 0.0)
        if bias_at is not None and bias_at < len(node.inputs) and node.inputs[bias_at] is not None:
            bias = known.input(node, bias_at)
        least, most = float((up * low + down * high).min()), float((up * high + down * low).max())
        return Bounds(least + bias.low, most + bias.high)

    return rule


def _filters(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    return weight.reshape(len(weight), -1)


def _columns(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    if weight.ndim < 2:
        return weight.reshape(1, -1)
    return np.swapaxes(weight, -1, -2).reshape(-1, weight.shape[-2])


def _gemm_rows(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    scaled = weight * node.attributes.get_float("alpha", 1.0)
    return scaled if node.attributes.get_int("transB", 0) else scaled.T


def _gemm(node: ir.Node, known: Known) -> Bounds | None:
    return _linear(1, 2, _gemm_rows)(node, known) if node.attributes.get_float("beta", 1.0) == 1.0 else None


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
    "Abs": _absolute,
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
    "ReduceSum": _exactly(_sum, np.sum),
    "ReduceSumSquare": _exactly(_sum_of_squares, lambda x, axis: np.sum(x * x, axis)),
    "ReduceL1": _exactly(_norm1, lambda x, axis: np.sum(np.abs(x), axis)),
    "ReduceL2": _exactly(_norm2, lambda x, axis: np.sqrt(np.sum(x * x, axis))),
    "ConstantOfShape": _filled,
    "Range": _range,
    "DequantizeLinear": _dequantized,
    "Conv": _linear(1, 2, _filters),
    "MatMul": _linear(1, None, _columns),
    "Gemm": _gemm,
    "LSTM": _lstm,
    "GRU": _gru,
}
