"""Which sequences of a model run over time."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.graph.kinds import KINDS

__all__ = ["time_tensors"]

_WORDS = frozenset({"time", "times", "timestep", "timesteps", "time_step", "time_steps", "frame", "frames",
                    "num_frames", "n_frames", "sequence_time"})  # fmt: skip
#: Operators that leave the steps of a sequence one behind the other, though they may be fewer.
_ALONG = KINDS["conv"] | KINDS["pool"] | KINDS["activation"] | KINDS["elementwise"] | KINDS["norm"] | {
    "Transpose", "Squeeze", "Unsqueeze", "Reshape", "Identity", "Cast", "Dropout", "Pad", "Concat", "Slice", "MatMul",
    "Gemm", "QuantizeLinear", "DequantizeLinear", "LSTM", "GRU", "RNN", "Softmax",
}  # fmt: skip
_RECURRENT = KINDS["recurrent"]


def time_tensors(model: ir.Model) -> frozenset[str]:
    """Return the tensors whose steps are steps in time: what a recurrence reads and writes, and what says so.

    From each recurrence its sequence is followed back to the input and on to the outputs through operators that keep
    the steps in their order; and a tensor with a dimension that is called time or frames is one.

    Args:
        model: A model with inferred shapes; it is not changed.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 1, 8] x, float[frames, 4] z) => (float[8, 1, 1, 2] y) <float[1, 8, 3] w, float[1, 8, 2] r>
    ...   {c = Relu(x) t = Transpose<perm = [2, 0, 1]>(c) y = LSTM<hidden_size = 2>(t, w, r)}''')
    >>> sorted(time_tensors(model))
    ['c', 't', 'x', 'y', 'z']
    """
    found: set[ir.Value] = set()
    for node in model.graph:
        if node.op_type in _RECURRENT:
            _follow(node.inputs[0] if node.inputs else None, found, back=True)
            _follow(node.outputs[0] if node.outputs else None, found, back=False)
    named = {str(value.name) for value in (*model.graph.inputs, *_made(model)) if _says_time(value)}
    return frozenset(named | {str(value.name) for value in found})


def _made(model: ir.Model) -> list[ir.Value]:
    return [value for node in model.graph for value in node.outputs]


def _follow(start: ir.Value | None, found: set[ir.Value], *, back: bool) -> None:
    row = [start]
    while row:
        value = row.pop()
        if value is None or value in found or value.is_initializer():
            continue
        found.add(value)
        if back:
            node = value.producer()
            if node is not None and node.op_type in _ALONG:
                row += [v for v in node.inputs if v is not None and v.const_value is None and _has_steps(v)]
        else:
            row += [v for n in value.consumers() if n.op_type in _ALONG for v in n.outputs[:1] if _has_steps(v)]


def _has_steps(value: ir.Value) -> bool:
    return value.shape is None or len(value.shape) >= 3


def _says_time(value: ir.Value) -> bool:
    dims = () if value.shape is None else value.shape
    return any(not isinstance(dim, int) and str(dim.value).lower() in _WORDS for dim in dims)
