"""Which inputs of which operators are learned, what they are called, and how they are turned for a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

__all__ = ["GENERIC", "ROLES", "Slot", "orient", "orientation"]

Array = npt.NDArray[Any]


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
}

_ORIENTATION = {
    "conv": "(out, in / groups, *kernel)",
    "conv_transpose": "(out, in / groups, *kernel)",
    "rnn": "(directions, gates × units, in)",
    "rnn_transposed": "(directions, gates × units, in)",
    "rows": "(entries, features)",
    "gemm_a": "(out, in)",
    "gemm_b": "(out, in)",
    "matmul_a": "(out, in)",
    "matmul_b": "(out, in)",
    "nbits": "(out, in)",
}


def orientation(form: str) -> str:
    """Return what the axes are after :func:`orient`; empty where they are just those of the file.

    >>> orientation("gemm_b")
    '(out, in)'
    """
    return _ORIENTATION.get(form, "")


def orient(array: Array, form: str, node: ir.Node) -> Array:
    """Return a weight turned output-first, as pictures show it.

    A ConvTranspose's ``(in, out / groups, *kernel)`` becomes ``(out, in / groups, *kernel)``, group by group; the
    second factor of a matrix product becomes ``(out, in)``, its transpose flag honoured.

    >>> import numpy as np
    >>> orient(np.zeros((3, 5)), "matmul_b", ir.node("MatMul", inputs=[])).shape
    (5, 3)
    """
    if form == "conv_transpose" and array.ndim >= 2:
        groups = _flag(node, "group", 1)
        rest = array.shape[1:]
        split = array.reshape(groups, array.shape[0] // groups, *rest).swapaxes(1, 2)
        return split.reshape(groups * rest[0], array.shape[0] // groups, *rest[1:])
    if array.ndim < 2:
        return array
    # As the second factor (in, out) is turned; as the first factor (out, in) stays.
    turned = {
        "matmul_b": True,
        "rnn_transposed": True,
        "gemm_b": not _flag(node, "transB", 0),
        "gemm_a": bool(_flag(node, "transA", 0)),
    }
    return array.swapaxes(-1, -2) if turned.get(form, False) else array


def _flag(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None or attribute.is_ref() else int(attribute.as_int())
