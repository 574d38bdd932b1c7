"""Matrix products."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.gradient.ops import Ops
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.step import Step


@gradient("MatMul")
def matmul(s: Step, dy: ir.Value) -> Grads:
    """The other factor, turned; a factor that was used for a whole batch gets the sum over it."""
    rows, columns = s.rank(0), s.rank(1)
    if rows is None or columns is None:
        return _of_any_rank(s, dy)
    if rows == 1 or columns == 1:
        return _with_vector(s, dy, rows, columns)
    if columns == 2:
        return _by_matrix(s, dy, rows)
    da = s.ops.MatMul(dy, swap(s.ops, s[1], columns)) if s.need(0) else None
    db = s.ops.MatMul(swap(s.ops, s[0], rows), dy) if s.need(1) else None
    return _summed(s, da, db)


def _summed(s: Step, da: ir.Value | None, db: ir.Value | None) -> Grads:
    """The batch axes broadcast, the last two do not."""
    made = [None if grad is None else s.ops.sum_to(grad, s[place], s.y, inner=2) for place, grad in enumerate((da, db))]
    return made[0], made[1]


def _of_any_rank(s: Step, dy: ir.Value) -> Grads:
    """Two axes or more: what has one, the runtime refuses by the equation."""
    da = s.ops.Einsum(dy, s[1], equation="...ik,...jk->...ij") if s.need(0) else None
    db = s.ops.Einsum(s[0], dy, equation="...ji,...jk->...ik") if s.need(1) else None
    return _summed(s, da, db)


def _by_matrix(s: Step, dy: ir.Value, rows: int) -> Grads:
    """All rows of the batch are rows of one matrix, so that one Gemm does it without turning anything over."""
    a, b, ops = s[0], s[1], s.ops
    flat = dy if rows == 2 else ops.Reshape(dy, ops.Concat(ops.ints(-1), ops.dim(b, 1), axis=0), allowzero=0)
    da = db = None
    if s.need(0):
        da = ops.Gemm(flat, b, transB=1)
        da = da if rows == 2 else ops.Reshape(da, ops.shape(a), allowzero=1)
    if s.need(1):
        left = a if rows == 2 else ops.Reshape(a, ops.Concat(ops.ints(-1), ops.dim(b, 0), axis=0), allowzero=0)
        db = ops.Gemm(left, flat, transA=1)
    return da, db


def _with_vector(s: Step, dy: ir.Value, rows: int, columns: int) -> Grads:
    """Return gradients where one factor is a vector, a row on the left or a column on the right."""
    a, b, ops = s[0], s[1], s.ops
    if rows == columns == 1:
        return ops.Mul(dy, b), ops.Mul(dy, a)
    if columns == 1:
        column = ops.Unsqueeze(dy, ops.ints(-1))
        db = ops.sum(ops.Mul(column, a), range(rows - 1)) if s.need(1) else None
        return ops.Mul(column, b) if s.need(0) else None, db
    row = ops.Unsqueeze(dy, ops.ints(-2))
    da = ops.ReduceSum(ops.Mul(b, row), ops.ints(*range(columns - 2), columns - 1), keepdims=0) if s.need(0) else None
    return da, ops.Mul(ops.Unsqueeze(a, ops.ints(-1)), row) if s.need(1) else None


def swap(ops: Ops, value: ir.Value, rank: int) -> ir.Value:
    """Return a tensor with its last two axes swapped."""
    return ops.Transpose(value, perm=[*range(rank - 2), rank - 1, rank - 2])


@gradient("Gemm", since=7)
def gemm(s: Step, dy: ir.Value) -> Grads:
    """``α A' B' + β C``, where A' and B' may be turned."""
    a, b, ops = s[0], s[1], s.ops
    alpha, beta, turned_a, turned_b = (
        s.attr(name, default) for name, default in (("alpha", 1.0), ("beta", 1.0), ("transA", 0), ("transB", 0))
    )
    da = db = dc = None
    if s.need(0):
        first = (b, dy, turned_b, 1) if turned_a else (dy, b, 0, 1 - turned_b)
        da = ops.Gemm(*first[:2], alpha=alpha, transA=first[2], transB=first[3])
    if s.need(1):
        second = (dy, a, 1, turned_a) if turned_b else (a, dy, 1 - turned_a, 0)
        db = ops.Gemm(*second[:2], alpha=alpha, transA=second[2], transB=second[3])
    if s.need(2):
        dc = ops.sum_to(dy if beta == 1 else ops.Mul(dy, ops.scalar(beta, dy)), s[2], s.y)
    return da, db, dc
