"""From what a file stores to the values that an operator multiplies with: constant chains and quantisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.weight_roles import Slot
from onnxviz.graph.constants import constant_tensor

__all__ = ["Source", "apply_slot", "codes_of", "dequantize", "quantization_of", "trace"]

Array = npt.NDArray[Any]

_N_BITS = (("N", 0), ("K", 0), ("bits", 4), ("block_size", 32))
_MOST_STEPS = 256  # nodes between a stored tensor and its use; a chain of Concats could go on for ever


@dataclass(frozen=True)
class Source:
    """A stored constant and the nodes that turn it into an operator's input.

    Attributes:
        tensor: The stored tensor; the first of ``parts``.
        name: Its name; with the number of the others where several are joined.
        parts: Every stored tensor that goes into the value, through Concat.
        steps: The nodes in between, those nearest to the first tensor first.
        value: What the operator reads.
    """

    tensor: ir.TensorProtocol
    name: str
    parts: tuple[ir.TensorProtocol, ...]
    steps: tuple[ir.Node, ...]
    value: ir.Value

    def values(self, *, as_codes: bool = False) -> Array:
        """Read the tensors and run the steps on them; ``as_codes`` leaves out those that quantise and dequantise."""
        return _evaluate(self.value, lambda tensor: tensor.numpy(), as_codes)

    def stored(self) -> Array:
        """Read the tensor as the file stores it; where several are joined, what the steps make of them."""
        return self.values() if len(self.parts) > 1 else self.tensor.numpy()

    def shape(self) -> tuple[int, ...]:
        """Return the shape of :meth:`stored` without loading anything."""
        if len(self.parts) == 1:
            return tuple(int(size) for size in self.tensor.shape)  # type: ignore[arg-type]
        return tuple(_evaluate(self.value, _placeholder).shape)


def _placeholder(tensor: ir.TensorProtocol) -> Array:
    """Return zeros of a tensor's shape that take no memory."""
    return np.broadcast_to(np.zeros((), tensor.dtype.numpy()), tuple(tensor.shape))  # type: ignore[arg-type]


def trace(value: ir.Value | None) -> Source | None:
    """Return the constant behind a value, through DequantizeLinear, Cast, Transpose, Reshape and the like, or None.

    Concat, Slice and Split of constants are followed too: exporters store the gates of LSTM and GRU in another order.
    Nothing is loaded. The other inputs of such nodes (scales, shapes, axes) must be constant.
    """
    parts: list[tuple[ir.TensorProtocol, str]] = []
    steps: list[ir.Node] = []
    if value is None or not _collect(value, parts, steps):
        return None
    tensor, name = parts[0]
    distinct = {id(part): part for part, _ in parts}
    name = f"{name} + {len(distinct) - 1} more" if len(distinct) > 1 else name
    return Source(tensor, name, tuple(part for part, _ in parts), tuple(reversed(steps)), value)


def _collect(value: ir.Value, parts: list[tuple[ir.TensorProtocol, str]], steps: list[ir.Node]) -> bool:
    """Gather the constants behind a value, and say whether there is nothing else behind it."""
    tensor = constant_tensor(value)
    if tensor is not None:
        parts.append((tensor, tensor.name or value.name or ""))
        return True
    node = value.producer()
    if node is None or node.op_type not in _STEPS or not node.inputs or len(steps) >= _MOST_STEPS:
        return False
    steps.append(node)
    data = _data_inputs(node)
    if any(other is not None and constant_tensor(other) is None for other in node.inputs[len(data) :]):
        return False
    return all(item is not None and _collect(item, parts, steps) for item in data)


def _data_inputs(node: ir.Node) -> Sequence[ir.Value | None]:
    return node.inputs if node.op_type == "Concat" else node.inputs[:1]


def _evaluate(value: ir.Value, read: Callable[[ir.TensorProtocol], Array], as_codes: bool = False) -> Array:
    tensor = constant_tensor(value)
    if tensor is not None:
        return read(tensor)
    node = value.producer()
    if node is None:
        raise ValueError(f"{value.name} is not constant")
    arrays = [_evaluate(item, read, as_codes) for item in _data_inputs(node) if item is not None]
    if node.op_type == "Concat":
        return np.concatenate(arrays, axis=_int(node, "axis", 0))
    if node.op_type == "Split":
        return _split(arrays[0], node)[node.outputs.index(value)]
    if as_codes and node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast"):
        return arrays[0]
    return _STEPS[node.op_type](arrays[0], node)


def _constant(node: ir.Node, position: int) -> Array | None:
    tensor = constant_tensor(node.inputs[position]) if position < len(node.inputs) else None
    return None if tensor is None else np.asarray(tensor.numpy())


def _ints(node: ir.Node, name: str, position: int) -> list[int] | None:
    """Return a list that older opsets hold as an attribute and newer ones as an input."""
    attribute = node.attributes.get(name)
    if attribute is not None:
        return [int(i) for i in attribute.as_ints()]
    array = _constant(node, position)
    return None if array is None else [int(i) for i in array.reshape(-1)]


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def _transpose(array: Array, node: ir.Node) -> Array:
    return array.transpose(_ints(node, "perm", 99))


def _reshape(array: Array, node: ir.Node) -> Array:
    sizes = _ints(node, "shape", 1) or []
    if not _int(node, "allowzero", 0):
        sizes = [array.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return array.reshape(sizes)


def _squeeze(array: Array, node: ir.Node) -> Array:
    axes = _ints(node, "axes", 1)
    return array.squeeze() if axes is None else array.squeeze(tuple(axes))


def _unsqueeze(array: Array, node: ir.Node) -> Array:
    return np.expand_dims(array, tuple(_ints(node, "axes", 1) or ()))


def _flatten(array: Array, node: ir.Node) -> Array:
    axis = _int(node, "axis", 1)
    axis += array.ndim if axis < 0 else 0
    return array.reshape(int(np.prod(array.shape[:axis])), -1)


def _slice(array: Array, node: ir.Node) -> Array:
    starts, ends = _ints(node, "starts", 1) or [], _ints(node, "ends", 2) or []
    axes = _ints(node, "axes", 3) or list(range(len(starts)))
    steps = _ints(node, "steps", 4) or [1] * len(starts)
    cuts = [slice(None)] * array.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        to_the_front = step < 0 and end < -array.shape[axis]
        cuts[axis] = slice(start, None if to_the_front else end, step)
    return array[tuple(cuts)]


def _split(array: Array, node: ir.Node) -> list[Array]:
    axis = _int(node, "axis", 0)
    sizes = _ints(node, "split", 1)
    if sizes is None:
        size = -(-array.shape[axis] // len(node.outputs))
        sizes = [size] * (len(node.outputs) - 1)
        sizes.append(array.shape[axis] - sum(sizes))
    return np.split(array, np.cumsum(sizes)[:-1], axis=axis)


def _cast(array: Array, node: ir.Node) -> Array:
    return array.astype(ir.DataType(_int(node, "to", ir.DataType.FLOAT)).numpy())


def _spread(array: Array, like: Array, axis: int, block: int = 0) -> Array:
    """Return a scale or zero point in a shape that broadcasts against ``like``."""
    if array.size == 1:
        return array.reshape(())
    axis += like.ndim if axis < 0 else 0
    if block:
        repeated: Array = np.repeat(array, block, axis).take(np.arange(like.shape[axis]), axis)
        return repeated
    if array.ndim == 1:
        return array.reshape([-1 if i == axis else 1 for i in range(like.ndim)])
    return array


def dequantize(array: Array, scale: Array | None, zero: Array | None, axis: int = 0, block: int = 0) -> Array:
    """Return ``(array - zero) * scale`` as float32, as DequantizeLinear computes it.

    Args:
        array: Stored integers (or 8-bit floats) of any shape.
        scale: A scalar, a vector along ``axis``, or what broadcasts; None leaves integers.
        zero: As ``scale``; None is 0.
        axis: The axis of a per-axis scale.
        block: Elements that share a scale along ``axis``; 0 where scales are per axis or per tensor.

    >>> dequantize(np.array([[2], [4]], np.int8), np.array([0.5, 2.0], np.float32), None).tolist()
    [[1.0], [8.0]]
    """
    if zero is not None:
        wide = np.int64 if "int" in array.dtype.name else np.float32
        array = array.astype(wide) - _spread(zero, array, axis, block).astype(wide)
    result: Array = array.astype(np.float32)
    return result if scale is None else result * _spread(scale, array, axis, block).astype(np.float32)


def _dequantize_linear(array: Array, node: ir.Node) -> Array:
    axis, block = _int(node, "axis", 1), _int(node, "block_size", 0)
    return dequantize(array, _constant(node, 1), _constant(node, 2), axis, block)


def _quantize_linear(array: Array, node: ir.Node) -> Array:
    axis, block = _int(node, "axis", 1), _int(node, "block_size", 0)
    scale, zero = _constant(node, 1), _constant(node, 2)
    kind = _int(node, "output_dtype", 0)
    dtype = zero.dtype if zero is not None else ir.DataType(kind or ir.DataType.UINT8).numpy()
    scaled: Array = array.astype(np.float32)
    if scale is not None:
        scaled = scaled / _spread(scale, array, axis, block).astype(np.float32)
    if "int" not in dtype.name:
        return scaled.astype(dtype)
    rounded = np.rint(scaled)
    if zero is not None:
        rounded = rounded + _spread(zero, array, axis, block).astype(np.float32)
    bits = int("".join(c for c in dtype.name if c.isdigit()))
    low, high = (0, 2**bits - 1) if dtype.name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return np.clip(rounded, low, high).astype(np.int64).astype(dtype)


_STEPS: dict[str, Callable[[Array, ir.Node], Array]] = {
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Flatten": _flatten,
    "Cast": _cast,
    "Identity": lambda array, node: array,
    "Slice": _slice,
    "Concat": lambda array, node: array,
    "Split": lambda array, node: array,
    "DequantizeLinear": _dequantize_linear,
    "QuantizeLinear": _quantize_linear,
}


def apply_slot(array: Array, slot: Slot, node: ir.Node) -> Array:
    """Return the values behind the integers of an operator that takes its scales as inputs (QLinearConv and others)."""
    if slot.form == "nbits":
        return _n_bits(array, node)
    if (slot.scale is None and slot.zero is None) or not _is_quantized(array.dtype):
        return array
    scale = None if slot.scale is None else _constant(node, slot.scale)
    zero = None if slot.zero is None else _constant(node, slot.zero)
    for position in slot.times:
        factor = _constant(node, position)
        scale = None if scale is None or factor is None else scale * factor
    axis = 0 if slot.form == "gemm_b" and _int(node, "transB", 0) else slot.axis
    if (
        slot.form == "rnn_transposed"
    ):  # (directions, in, gates × units) with (directions,) or (directions, gates × units)
        scale, zero = (a if a is None or a.size == 1 else a.reshape(array.shape[0], 1, -1) for a in (scale, zero))
    return dequantize(array, scale, zero, axis)


def codes_of(array: Array, slot: Slot, node: ir.Node) -> Array:
    """Return stored integers in the axes of :func:`apply_slot`'s result: 4-bit codes are unpacked to ``(N, K)``."""
    if slot.form != "nbits":
        return array
    rows, columns, bits, block = (_int(node, name, default) for name, default in _N_BITS)
    codes: Array = _unpack(array.reshape(rows, -(-columns // block), -1), bits)[..., :block]
    return codes.reshape(rows, -1)[:, :columns]


def _is_quantized(dtype: np.dtype[Any]) -> bool:
    return "int" in dtype.name or "float8" in dtype.name or "float4" in dtype.name


def _n_bits(array: Array, node: ir.Node) -> Array:
    """Unpack com.microsoft MatMulNBits: ``(N, blocks, bytes)`` uint8, lowest bits first, to ``(N, K)`` float32."""
    rows, columns, bits, block = (_int(node, name, default) for name, default in _N_BITS)
    blocks = -(-columns // block)
    values = _unpack(array.reshape(rows, blocks, -1), bits)[..., :block].astype(np.float32)
    scales, zeros = _constant(node, 2), _constant(node, 3)
    if scales is None:
        raise ValueError("the scales of MatMulNBits are not constant")
    middle = float(2 ** (bits - 1))
    if zeros is None:
        offset: Array = np.full((rows, blocks), middle, np.float32)
    elif zeros.dtype == np.uint8:
        offset = _unpack(zeros.reshape(rows, -1), bits)[:, :blocks].astype(np.float32)
    else:
        offset = zeros.reshape(rows, blocks).astype(np.float32)
    real = (values - offset[..., None]) * scales.reshape(rows, blocks, 1).astype(np.float32)
    return real.reshape(rows, -1)[:, :columns]


def _unpack(packed: Array, bits: int) -> Array:
    if bits == 8:
        return packed
    parts = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(*packed.shape[:-1], -1)


def quantization_of(source: Source, slot: Slot, node: ir.Node) -> str | None:
    """Return how a weight is quantised, such as ``"int8, a scale per channel (64)"``, or None where it is not."""
    stored = str(source.tensor.dtype.numpy())
    for step in source.steps:
        if step.op_type == "DequantizeLinear":
            return f"{stored}, {_granularity(constant_tensor(step.inputs[1]), _int(step, 'block_size', 0))}"
    if slot.form == "nbits":
        return f"{_int(node, 'bits', 4)}-bit, a scale per block of {_int(node, 'block_size', 32)}"
    if not _is_quantized(source.tensor.dtype.numpy()):
        return None
    if slot.scale is None:
        return f"{stored}, scaled after the product" if slot.zero is not None else stored
    scales = [constant_tensor(node.inputs[p]) if p < len(node.inputs) else None for p in (slot.scale, *slot.times)]
    if any(scale is None for scale in scales):
        return f"{stored}, scale not constant"
    return f"{stored}, {_granularity(scales[0], 0)}"


def _granularity(scale: ir.TensorProtocol | None, block: int) -> str:
    size = 1 if scale is None else scale.size
    if block:
        return f"a scale per block of {block}"
    return "one scale" if size == 1 else f"a scale per channel ({size})"
