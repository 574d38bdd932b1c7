"""Shapes of operators whose sizes are worked out with open dimensions, where onnx's inference leaves them unknown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxviz.graph.contents import Dims, Known, Shapes, attribute, integers, times
from onnxviz.graph.part_rules import PART_RULES
from onnxviz.graph.symbolic import Size, divide_product, largest
from onnxviz.graph.window_rules import WINDOW_RULES

__all__ = ["SHAPE_RULES"]


def _same(node: ir.Node, known: Known) -> Shapes:
    return [known.shape(node.inputs[0])]


def _broadcast_dim(a: Size, b: Size) -> Size:
    if a == 1 or a == b:
        return b
    if b == 1 or (isinstance(a, int) and a != 1):
        return a
    return b if isinstance(b, int) else largest(a, b)  # one of them is 1, or both are the same


def _broadcast(shapes: Sequence[Dims]) -> Dims:
    made: Dims = ()
    for shape in shapes:
        rank = max(len(made), len(shape))
        a, b = ((1,) * (rank - len(s)) + s for s in (made, shape))
        made = tuple(map(_broadcast_dim, a, b))
    return made


def _elementwise(*positions: int) -> Callable[[ir.Node, Known], Shapes]:
    def rule(node: ir.Node, known: Known) -> Shapes:
        values = [node.inputs[i] for i in positions] if positions else list(node.inputs)
        shapes = [known.shape(value) for value in values if value is not None]
        return [None if any(s is None for s in shapes) else _broadcast([s for s in shapes if s is not None])]

    return rule


def _reshape(node: ir.Node, known: Known) -> Shapes:
    data, target = known.shape(node.inputs[0]), known.content(node.inputs[1]) if len(node.inputs) > 1 else None
    wanted = tuple(attribute(node, "shape") or ()) if len(node.inputs) == 1 else target.elements if target else None
    if wanted is None or sum(size is None or size == -1 for size in wanted) > 1:
        return [None if wanted is None else tuple(None if size in (-1, 0) else size for size in wanted)]
    keep_zero = bool(attribute(node, "allowzero", 0))
    sizes: list[Size] = []
    for i, size in enumerate(wanted):
        copied = size == 0 and not keep_zero
        sizes.append((data[i] if data is not None else None) if copied else size)
    for i, size in enumerate(wanted):
        if size is None or size == -1:
            others = sizes[:i] + sizes[i + 1 :]
            sizes[i] = None if data is None else divide_product(data, others)
    return [tuple(sizes)]


def _flatten(node: ir.Node, known: Known) -> Shapes:
    data, axis = known.shape(node.inputs[0]), attribute(node, "axis", 1)
    if data is None:
        return [None]
    axis += len(data) if axis < 0 else 0
    return [(times(data[:axis]), times(data[axis:]))]


def _transpose(node: ir.Node, known: Known) -> Shapes:
    data = known.shape(node.inputs[0])
    perm = attribute(node, "perm") or range(len(data or ()))[::-1]
    return [None if data is None else tuple(data[i] for i in perm)]


def _squeeze(node: ir.Node, known: Known) -> Shapes:
    data = known.shape(node.inputs[0])
    try:
        axes = integers(node, known, "axes", 1)
    except LookupError:
        axes = (
            [i for i, d in enumerate(data or ()) if d == 1] if data and all(isinstance(d, int) for d in data) else None
        )
    if data is None or axes is None:
        return [None]
    gone = {axis % len(data) for axis in axes}
    return [tuple(d for i, d in enumerate(data) if i not in gone)]


def _unsqueeze(node: ir.Node, known: Known) -> Shapes:
    data, axes = known.shape(node.inputs[0]), integers(node, known, "axes", 1)
    if data is None or axes is None:
        return [None]
    rank = len(data) + len(axes)
    new, old = {axis % rank for axis in axes}, iter(data)
    return [tuple(1 if i in new else next(old) for i in range(rank))]


def _expand(node: ir.Node, known: Known) -> Shapes:
    data, target = known.shape(node.inputs[0]), known.content(node.inputs[1])
    return [None if data is None or target is None else _broadcast([data, target.elements])]


def _of_shape(node: ir.Node, known: Known) -> Shapes:
    content = known.content(node.inputs[0])
    return [None if content is None else content.elements]


def _matmul(first: int = 0, second: int = 1) -> Callable[[ir.Node, Known], Shapes]:
    def rule(node: ir.Node, known: Known) -> Shapes:
        a, b = known.shape(node.inputs[first]), known.shape(node.inputs[second])
        if not a or not b:
            return [None]
        rows, columns = a[-2:-1] if len(a) > 1 else (), b[-1:] if len(b) > 1 else ()
        return [(*_broadcast([a[:-2], b[:-2]]), *rows, *columns)]

    return rule


def _gemm(node: ir.Node, known: Known) -> Shapes:
    a, b = known.shape(node.inputs[0]), known.shape(node.inputs[1])
    rows = a[1 if attribute(node, "transA", 0) else 0] if a else None
    return [(rows, b[0 if attribute(node, "transB", 0) else 1] if b else None)]


def _reduce(node: ir.Node, known: Known) -> Shapes:
    data, keep = known.shape(node.inputs[0]), attribute(node, "keepdims", 1)
    try:
        axes = integers(node, known, "axes", 1)
    except LookupError:
        axes = []
    if data is None or axes is None:
        return [None if data is None or not keep else (None,) * len(data)]
    gone = {axis % len(data) for axis in axes} or (
        set() if attribute(node, "noop_with_empty_axes", 0) else set(range(len(data)))
    )
    return [tuple(1 if i in gone else d for i, d in enumerate(data) if keep or i not in gone)]


def _embedding(node: ir.Node, known: Known) -> Shapes:
    words, table = known.shape(node.inputs[0]), known.shape(node.inputs[2])
    if words is None or table is None:
        return [None]
    return [(*words, table[1]), words[:1]]


_SAME = [
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization", "BiasGelu", "Binarizer", "Cast",
    "CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "CumSum", "DequantizeLinear", "Dropout",
    "DynamicQuantizeLinear", "Elu", "Erf", "Exp", "FastGelu", "Floor", "Gelu", "GroupNorm", "GroupNormalization",
    "HardSigmoid", "HardSwish", "Hardmax", "Identity", "ImageScaler", "Imputer", "InstanceNormalization", "IsInf",
    "IsNaN", "LRN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "LabelEncoder",
    "MeanVarianceNormalization", "Mish", "Neg", "Normalizer", "Not", "PRelu", "QLinearLeakyRelu", "QLinearSigmoid",
    "QLinearSoftmax", "QuantizeLinear", "QuickGelu", "Reciprocal", "Relu", "Round", "Scaler", "ScatterElements",
    "ScatterND", "Selu", "Shrink", "Sigmoid", "Sign", "SimplifiedLayerNormalization", "Sin", "Sinh",
    "SkipLayerNormalization", "Softmax", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
    "Trilu",
]  # fmt: skip
_BROADCAST = [
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual",
    "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor",
]  # fmt: skip
_REDUCE = [
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
]  # fmt: skip

#: Operator -> the shapes of its outputs, as far as they are known.
SHAPE_RULES: dict[str, Callable[[ir.Node, Known], Shapes]] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_BROADCAST, _elementwise()),
    **dict.fromkeys(_REDUCE, _reduce),
    **dict.fromkeys(["QLinearAdd", "QLinearMul"], _elementwise(0, 3)),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "ConstantOfShape": _of_shape,
    **dict.fromkeys(["MatMul", "MatMulInteger"], _matmul()),
    "QLinearMatMul": _matmul(0, 3),
    **dict.fromkeys(["Gemm", "FusedGemm"], _gemm),
    "EmbedLayerNormalization": _embedding,
    **PART_RULES,
    **WINDOW_RULES,
}
