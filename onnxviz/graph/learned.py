"""Which inputs of which operators are learned: what counts as a parameter of a model.

A tensor is judged by what reads it, not by its name, rank or type alone. Shape arithmetic, axes, limits of Clip,
factors of Resize, epsilons, exponents, scales and zero points of a quantisation are constants of a formula, not
parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor, is_parameter

__all__ = ["GENERIC", "ROLES", "Slot", "learned_inputs", "learned_tensors"]


@dataclass(frozen=True)
class Slot:
    """One learned input of an operator.

    Attributes:
        position: Index of the input.
        role: What it is: ``"weight"``, ``"bias"``, ``"scale"``, ``"recurrence"``, ``"embedding"`` …
        form: How it is stored, the key of the turn that :func:`orient` makes; empty where it stays as it is.
        scale: Index of the input that holds its quantisation scale.
        zero: Index of the input that holds its zero point.
        times: Indices of inputs whose scales multiply its own, as an int32 bias needs.
        axis: Axis that a one-dimensional scale or zero point runs along.
    """

    position: int
    role: str
    form: str = ""
    scale: int | None = None
    zero: int | None = None
    times: tuple[int, ...] = ()
    axis: int = 0


def _slots(weight: Slot, *others: tuple[int, str]) -> tuple[Slot, ...]:
    return (weight, *(Slot(position, role) for position, role in others))


_CONV = _slots(Slot(1, "weight", "conv"), (2, "bias"))
_GEMM = (Slot(0, "weight", "gemm_a"), Slot(1, "weight", "gemm_b"), Slot(2, "bias"))
_MATMUL = (Slot(0, "weight", "matmul_a"), Slot(1, "weight", "matmul_b"))
_NORM = (Slot(1, "scale"), Slot(2, "bias"))
_RECURRENT = (Slot(1, "weight", "rnn"), Slot(2, "recurrence", "rnn"), Slot(3, "bias"))
_ATTENTION = _slots(Slot(1, "weight", "matmul_b"), (2, "bias"))
_EMBED = tuple(Slot(i, "embedding", "rows") for i in (2, 3, 4))  # words, positions, segments

#: Operator -> its learned inputs, whatever the domain.
ROLES: dict[str, tuple[Slot, ...]] = {
    "Conv": _CONV,
    "FusedConv": _CONV,
    "NhwcConv": _CONV,
    "NhwcFusedConv": _CONV,
    "CausalConvWithState": _CONV,
    "DeformConv": _slots(Slot(1, "weight", "conv"), (3, "bias")),
    "ConvTranspose": _slots(Slot(1, "weight", "conv_transpose"), (2, "bias")),
    "ConvTransposeWithDynamicPads": _slots(Slot(1, "weight", "conv_transpose"), (3, "bias")),
    "ConvInteger": (Slot(1, "weight", "conv", zero=3),),
    "QLinearConv": (Slot(3, "weight", "conv", scale=4, zero=5), Slot(8, "bias", scale=4, times=(1,))),
    "Gemm": _GEMM,
    "FusedGemm": _GEMM,
    "GemmFloat8": _GEMM,
    "GemmFastGelu": _slots(Slot(1, "weight", "matmul_b"), (2, "bias")),
    "QGemm": (
        Slot(0, "weight", "gemm_a", scale=1, zero=2, axis=-2),
        Slot(3, "weight", "gemm_b", scale=4, zero=5, axis=-1),
        Slot(6, "bias", scale=4, times=(1,)),
    ),
    "MatMul": _MATMUL,
    "FusedMatMul": (Slot(0, "weight", "gemm_a"), Slot(1, "weight", "gemm_b")),
    "TransposeMatMul": (Slot(0, "weight", "gemm_a"), Slot(1, "weight", "gemm_b")),
    "MatMulInteger": (Slot(0, "weight", "matmul_a", zero=2, axis=-2), Slot(1, "weight", "matmul_b", zero=3, axis=-1)),
    "QLinearMatMul": (
        Slot(0, "weight", "matmul_a", scale=1, zero=2, axis=-2),
        Slot(3, "weight", "matmul_b", scale=4, zero=5, axis=-1),
    ),
    "DynamicQuantizeMatMul": (Slot(1, "weight", "matmul_b", scale=2, zero=3, axis=-1), Slot(4, "bias")),
    "MatMulIntegerToFloat": (
        Slot(0, "weight", "matmul_a", scale=2, zero=4, axis=-2),
        Slot(1, "weight", "matmul_b", scale=3, zero=5, axis=-1),
        Slot(6, "bias"),
    ),
    "MatMulNBits": (Slot(1, "weight", "nbits"), Slot(5, "bias")),
    "Einsum": (Slot(0, "weight"), Slot(1, "weight"), Slot(2, "weight")),
    "LSTM": (*_RECURRENT, Slot(7, "peephole")),
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
    "AttnLSTM": (*_RECURRENT, Slot(7, "peephole")),
    "DynamicQuantizeLSTM": (
        Slot(1, "weight", "rnn_transposed", scale=8, zero=9),
        Slot(2, "recurrence", "rnn_transposed", scale=10, zero=11),
        Slot(3, "bias"),
        Slot(7, "peephole"),
    ),
    "BatchNormalization": (*_NORM, Slot(3, "mean"), Slot(4, "variance")),
    "InstanceNormalization": _NORM,
    "GroupNormalization": _NORM,
    "LayerNormalization": _NORM,
    "GroupNorm": _NORM,
    "RMSNormalization": (Slot(1, "scale"),),
    "SimplifiedLayerNormalization": (Slot(1, "scale"),),
    "SkipLayerNormalization": (Slot(2, "scale"), Slot(3, "bias"), Slot(4, "input bias")),
    "SkipSimplifiedLayerNormalization": (Slot(2, "scale"), Slot(3, "input bias")),
    "SkipGroupNorm": (Slot(1, "scale"), Slot(2, "bias"), Slot(4, "input bias")),
    "EmbedLayerNormalization": (*_EMBED, Slot(5, "scale"), Slot(6, "bias")),
    "QEmbedLayerNormalization": (
        *(Slot(s.position, s.role, s.form, scale=8 + i, zero=13 + i) for i, s in enumerate(_EMBED)),
        Slot(5, "scale", scale=11, zero=16),
        Slot(6, "bias", scale=12, zero=17),
    ),
    "Attention": _ATTENTION,  # com.microsoft; the inputs of ai.onnx's Attention are activations
    "PackedAttention": _ATTENTION,
    "LongformerAttention": (*_ATTENTION, Slot(4, "weight", "matmul_b"), Slot(5, "bias")),
    "QAttention": (Slot(1, "weight", "matmul_b", scale=4, zero=7, axis=-1), Slot(2, "bias")),
    "DecoderAttention": (Slot(2, "weight", "matmul_b"), Slot(3, "weight", "matmul_b"), Slot(4, "bias")),
    "MultiHeadAttention": (Slot(3, "bias"),),
    "DecoderMaskedMultiHeadAttention": (Slot(10, "bias"),),
    "RelativePositionBias": (Slot(0, "embedding", "rows"),),
    "Gather": (Slot(0, "embedding", "rows"),),
    "PRelu": (Slot(1, "slope"),),
    "BiasAdd": (Slot(1, "bias"),),
    "BiasGelu": (Slot(1, "bias"),),
    "BiasSplitGelu": (Slot(1, "bias"),),
    "FastGelu": (Slot(1, "bias"),),
}

#: Operators that take floating-point constants of more than one element as parameters at any input.
GENERIC: dict[str, str] = {
    "Add": "bias",
    "Sub": "bias",
    "Mul": "scale",
    "Div": "scale",
    "Concat": "parameter",
    "Expand": "parameter",
    "Tile": "parameter",
    "Slice": "parameter",
}

#: Operator -> inputs that set how it works, whatever their size.
_SETTINGS: dict[str, frozenset[int]] = {
    "Clip": frozenset({1, 2}),
    "Resize": frozenset({1, 2, 3}),
    "Upsample": frozenset({1}),
    "Pad": frozenset({1, 2, 3}),
    "Dropout": frozenset({1, 2}),
    "Pow": frozenset({1}),
    "CastLike": frozenset({1}),
    "OneHot": frozenset({1, 2}),
    "Range": frozenset({0, 1, 2}),
    "NonMaxSuppression": frozenset({2, 3, 4}),
    "QuantizeLinear": frozenset({1, 2}),
    "DequantizeLinear": frozenset({1, 2}),
    "MatMulNBits": frozenset({2, 3, 4}),
    # Lengths and initial states: exporters write zeros there; a state that was learned comes through Expand or Concat.
    "LSTM": frozenset({4, 5, 6}),
    "GRU": frozenset({4, 5}),
    "RNN": frozenset({4, 5}),
    "DynamicQuantizeLSTM": frozenset({4, 5, 6}),
}
#: Nodes that hand a constant on: what reads their result decides. Value: how many of their inputs are data.
_HANDED_ON = {
    "Identity": 1, "Cast": 1, "Reshape": 1, "Transpose": 1, "Squeeze": 1, "Unsqueeze": 1, "Flatten": 1, "Expand": 1,
    "QuantizeLinear": 1, "DequantizeLinear": 1,
}  # fmt: skip
_DEEPEST = 16
#: Nodes whose result still holds the integers that they read.
_KEEPING_CODES = frozenset(
    {"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Cast", "Slice", "Gather"}
)


def learned_inputs(node: ir.Node) -> list[int]:
    """Return the positions of a node's constant inputs that are parameters.

    Floats and quantised integers are, unless the operator takes them as a setting (limits, factors, scales, zero
    points, initial states) or they are a mask; 32-bit integers are where a quantised operator takes them as its bias. A
    single element is one only at an input that is learned by its operator (:data:`ROLES`: the bias of a layer with one
    output), not in elementwise arithmetic, where it is a constant of a formula. Moving mean and variance of
    BatchNormalization count, as in Keras; PyTorch calls them buffers. Nothing is loaded.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {1, 2, 3, 4}, float half = {0.5}>
    ...   {h = MatMul(x, w) y = Mul(h, half)}''')
    >>> [learned_inputs(node) for node in model.graph]
    [[1], []]
    """
    return [i for i, value in enumerate(node.inputs) if value is not None and _is_learned(value, node, i)]


def _is_learned(value: ir.Value, node: ir.Node, position: int) -> bool:
    tensor = constant_tensor(value)
    if tensor is None or node.op_type in ("Constant", "Shape", "Size", "ConstantOfShape"):
        return False
    slots = ROLES.get(node.op_type, ())
    if any(position in (slot.scale, slot.zero, *slot.times) for slot in slots):
        return False
    if position in _SETTINGS.get(node.op_type, ()):
        return False
    if tensor.dtype == ir.DataType.INT32:
        return _is_bias(node, position)
    if tensor.dtype.is_integer() and _is_mask(node, _DEEPEST):
        return False
    return is_parameter(tensor) and (tensor.size > 1 or _is_read_as_weight(node, position, _DEEPEST))


def _is_bias(node: ir.Node, position: int) -> bool:
    """Whether 32-bit integers at an input are the bias of a quantised layer."""
    if node.op_type == "DequantizeLinear":
        return position == 0
    return any(slot.position == position and slot.times for slot in ROLES.get(node.op_type, ()))


def _is_mask(node: ir.Node, depth: int) -> bool:
    """Whether integers at an input are nothing but yes and no: a causal mask that is cut to length."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Cast" and node.attributes.get_int("to", 0) == ir.DataType.BOOL:
        return True
    if node.op_type not in _KEEPING_CODES or not depth:
        return False
    readers = [reader for output in node.outputs for reader, _ in output.uses()]
    return bool(readers) and all(_is_mask(reader, depth - 1) for reader in readers)


def _is_read_as_weight(node: ir.Node, position: int, depth: int) -> bool:
    """Whether an input that holds a single element goes to where its operator takes something learned."""
    if position < _HANDED_ON.get(node.op_type, 0) and depth:
        uses = [use for output in node.outputs for use in output.uses()]
        return any(_is_read_as_weight(reader, index, depth - 1) for reader, index in uses)
    if node.op_type in ("Gather", "Einsum", "MatMul"):
        return False
    return any(slot.position == position for slot in ROLES.get(node.op_type, ()))


def learned_tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    """Return the parameters of a model whose functions are inlined, each once, bodies of If, Loop and Scan included."""
    found: dict[int, ir.TensorProtocol] = {}
    for node in model.graph.all_nodes():
        for position in learned_inputs(node):
            tensor = constant_tensor(node.inputs[position])
            if tensor is not None:
                found.setdefault(id(tensor), tensor)
    return list(found.values())
