"""Matrix products."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.gradient.ops import Ops, Step
from onnxviz.gradient.registry import Grads, gradient


@gradient("MatMul", broadcasts=True, inner=2)
def matmul(s: Step, dy: ir.Value) -> Grads:
    """Vectors are taken as matrices of one row or column, as MatMul itself does."""
    a, b, ops = s[0], s[1], s.ops
    rows, columns = s.rank(0), s.rank(1)
    if rows is None or columns is None:
        raise NotImplementedError
    if columns == 1:
        b, dy = ops.Unsqueeze(b, ops.ints(-1)), ops.Unsqueeze(dy, ops.ints(-1))
    if rows == 1:
        a, dy = ops.Unsqueeze(a, ops.ints(0)), ops.Unsqueeze(dy, ops.ints(-2))
    da = ops.MatMul(dy, swap(ops, b, columns)) if s.need(0) else None
    db = ops.MatMul(swap(ops, a, rows), dy) if s.need(1) else None
    if da is not None and rows == 1:
        da = ops.Reshape(ops.sum(da, range(max(columns, 2) - 1)), ops.shape(s[0]))
    if db is not None and columns == 1:
        db = ops.Reshape(ops.sum(db, range(max(rows, 2) - 2)), ops.shape(s[1]))
    return da, db


def swap(ops: Ops, value: ir.Value, rank: int) -> ir.Value:
    """Return a tensor with its last two axes swapped."""
    rank = max(rank, 2)
    return ops.Transpose(value, perm=[*range(rank - 2), rank - 1, rank - 2])
