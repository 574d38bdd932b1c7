"""LSTM, GRU and RNN: all steps' gates at once from the outputs, then a short Scan back through time.

The forward node stays as it is. Its output Y holds the state that each step starts from, so the gates of all steps are
a few products of whole sequences; only the gradients that go from step to step need a Scan, and what they are
multiplied by is worked out before it. The gradients of the weights are products of whole sequences again. Formulas:
those of the operators, differentiated; z are the gates before their activations.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxviz.gradient.ops import Ops
from onnxviz.gradient.recurrence import Direction, Layer, Parts, scan
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.step import Step

Values = Sequence[ir.Value]


def _entering(d: Direction, ops: Ops, state: ir.Value, read: Values) -> ir.Value:
    """Return the gradient of a step's output: from the next step, and from Y, which is read last."""
    return state if d.dy is None else ops.Add(state, read[-1])


def _parts(
    d: Direction, dz: ir.Value, before: ir.Value, dh0: ir.Value, *, dr: ir.Value | None = None,
    dz_r: ir.Value | None = None, dc0: ir.Value | None = None, dp: ir.Value | None = None,
) -> Parts:  # fmt: skip
    """Return the gradients of one direction from those of the gates, ``(T, N, G H)``.

    Args:
        d: The direction.
        dz: On the side of W.
        before: The state that each step starts from.
        dh0: Gradient of the first state.
        dr: Of R, where it is not the product of ``dz_r`` and ``before``.
        dz_r: On the side of R, where it differs.
        dc0: Of the first cell.
        dp: Of the peepholes.
    """
    other = dz if dz_r is None else dz_r
    asked = d.asked
    db = None
    if "b" in asked:
        first = d.total(dz)
        db = d.ops.Concat(first, first if dz_r is None else d.total(other), axis=0)
    return Parts(
        d.ops.MatMul(dz, d.w) if "x" in asked else None,
        d.weights(dz, d.x) if "w" in asked else None,
        (d.weights(other, before) if dr is None else dr) if "r" in asked else None,
        db, dh0 if "h0" in asked else None, dc0 if "c0" in asked else None, dp if "p" in asked else None,
    )  # fmt: skip


def _sum(d: Direction, before: ir.Value) -> ir.Value:
    """Return ``X Wᵀ + H Rᵀ + biases``."""
    total = d.ops.Add(d.product(d.x, d.w), d.product(before, d.r))
    biases = d.biases()
    return total if biases is None else d.ops.Add(total, d.ops.Add(*biases))


@gradient("RNN", since=7)
def rnn(s: Step, *dys: ir.Value | None) -> Grads:
    layer = Layer(s, dys, ["tanh"])
    return layer.gradients([_rnn(d) for d in layer.directions()])


def _rnn(d: Direction) -> Parts:
    before = d.previous()
    slope = d.where(d.activations[0](d.ops, _sum(d, before))[1], 0)

    def body(ops: Ops, states: Values, read: Values) -> tuple[Values, Values]:
        dh = _entering(d, ops, states[0], read)
        dz = ops.Mul(dh, read[0])
        back = ops.MatMul(dz, d.r)
        if d.mask is not None:
            back = ops.Add(back, ops.Mul(dh, read[1]))
        return [back], [dz]

    sequences = [slope, *_behind(d, slope), *([d.dy] if d.dy is not None else [])]
    dh0, dz = scan(d.ops, [d.dh], sequences, body, backward=not d.backward, turn=d.turn)
    return _parts(d, dz, before, dh0)


def _behind(d: Direction, like: ir.Value) -> list[ir.Value]:
    """Return 1 behind the end of the sequences and 0 before, where lengths are given."""
    return [] if d.mask is None else [d.ops.cast(d.ops.Not(d.mask), like)]


@gradient("GRU", since=7)
def gru(s: Step, *dys: ir.Value | None) -> Grads:
    layer = Layer(s, dys, ["sigmoid", "tanh"])
    made = _gru_after if s.attr("linear_before_reset", 0) else _gru_before
    return layer.gradients([made(d) for d in layer.directions()])


def _gru_after(d: Direction) -> Parts:
    """The reset gate applies after the product: ``n = g(x_n + r (R_n h + b_n))``."""
    ops, before, biases = d.ops, d.previous(), d.biases()
    left, right = d.product(d.x, d.w), d.product(before, d.r)
    if biases is not None:
        left, right = ops.Add(left, biases[0]), ops.Add(right, biases[1])
    (zz, zr, zn), (hz, hr, hn) = d.split(left, 3), d.split(right, 3)
    f, g = d.activations
    (z, z1), (r, r1) = f(ops, ops.Add(zz, hz)), f(ops, ops.Add(zr, hr))
    n, n1 = g(ops, ops.Add(zn, ops.Mul(r, hn)))
    by_n = ops.Mul(ops.Sub(ops.scalar(1, z), z), n1)
    by_z, by_r = ops.Mul(ops.Sub(before, n), z1), ops.Mul(ops.Mul(by_n, hn), r1)
    outer = d.where(ops.Concat(by_z, by_r, by_n, axis=-1), 0)
    inner = d.where(ops.Concat(by_z, by_r, ops.Mul(by_n, r), axis=-1), 0)

    def body(ops: Ops, states: Values, read: Values) -> tuple[Values, Values]:
        dh = _entering(d, ops, states[0], read)
        dz = ops.Mul(ops.Concat(dh, dh, dh, axis=-1), read[0])
        return [ops.Add(ops.MatMul(dz, d.r), ops.Mul(dh, read[1]))], [dh]

    sequences = [inner, d.where(z, 1), *([d.dy] if d.dy is not None else [])]
    dh0, dh = scan(ops, [d.dh], sequences, body, backward=not d.backward, turn=d.turn)
    wide = ops.Concat(dh, dh, dh, axis=-1)
    return _parts(d, ops.Mul(wide, outer), before, dh0, dz_r=ops.Mul(wide, inner))


def _gru_before(d: Direction) -> Parts:
    """The reset gate applies before the product: ``n = g(x_n + R_n (r h) + b_n)``."""
    ops, before, biases = d.ops, d.previous(), d.biases()
    left = d.product(d.x, d.w)
    if biases is not None:
        left = ops.Add(left, ops.Add(*biases))
    (zz, zr, zn), (rz, rr, rn) = d.split(left, 3), d.split(d.r, 3, 0)
    f, g = d.activations
    z, z1 = f(ops, ops.Add(zz, d.product(before, rz)))
    r, r1 = f(ops, ops.Add(zr, d.product(before, rr)))
    reset = ops.Mul(r, before)
    n, n1 = g(ops, ops.Add(zn, d.product(reset, rn)))
    by_n = d.where(ops.Mul(ops.Sub(ops.scalar(1, z), z), n1), 0)
    by_zr = ops.Concat(d.where(ops.Mul(ops.Sub(before, n), z1), 0), ops.Mul(before, r1), axis=-1)
    gates = ops.Concat(rz, rr, axis=0)

    def body(ops: Ops, states: Values, read: Values) -> tuple[Values, Values]:
        dh = _entering(d, ops, states[0], read)
        dn = ops.Mul(dh, read[0])
        dreset = ops.MatMul(dn, rn)
        dzr = ops.Mul(ops.Concat(dh, dreset, axis=-1), read[1])
        back = ops.Add(ops.MatMul(dzr, gates), ops.Add(ops.Mul(dreset, read[2]), ops.Mul(dh, read[3])))
        return [back], [ops.Concat(dzr, dn, axis=-1)]

    sequences = [by_n, by_zr, r, d.where(z, 1), *([d.dy] if d.dy is not None else [])]
    dh0, dz = scan(ops, [d.dh], sequences, body, backward=not d.backward, turn=d.turn)
    dr = None
    if "r" in d.asked:
        d_z, d_r, d_n = d.split(dz, 3)
        both = d.weights(ops.Concat(d_z, d_r, axis=-1), before)
        dr = ops.Concat(both, d.weights(d_n, reset), axis=0)
    return _parts(d, dz, before, dh0, dr=dr)


@gradient("LSTM", since=7)
def lstm(s: Step, *dys: ir.Value | None) -> Grads:
    layer = Layer(s, dys, ["sigmoid", "tanh", "tanh"], p=7)
    coupled = bool(s.attr("input_forget", 0))
    return layer.gradients([_lstm(d, coupled) for d in layer.directions()])


def _lstm(d: Direction, coupled: bool) -> Parts:
    ops, before = d.ops, d.previous()
    peeps = None if d.p is None else d.split(d.p, 3, 0)
    zi, zo, zf, zg = d.split(_sum(d, before), 4)
    f, g, h = d.activations
    one = ops.scalar(1, zi)
    new, new1 = g(ops, zg)
    cells = _cells(d, zi, zf, new, peeps, coupled)
    if peeps is not None:
        zi, zf = ops.Add(zi, ops.Mul(peeps[0], cells)), ops.Add(zf, ops.Mul(peeps[2], cells))
    i, i1 = f(ops, zi)
    keep, keep1 = (ops.Sub(one, i), None) if coupled else f(ops, zf)
    cell = ops.Add(ops.Mul(keep, cells), ops.Mul(i, new))
    o, o1 = f(ops, zo if peeps is None else ops.Add(zo, ops.Mul(peeps[1], cell)))
    out, out1 = h.plain(ops, cell)  # clip is of the gates alone
    by_i = ops.Mul(ops.Sub(new, cells) if coupled else new, i1)
    by_f = ops.Mul(cells, keep1) if keep1 is not None else ops.zeros_like(by_i)
    by_o, by_c, along = ops.Mul(out, o1), ops.Mul(o, out1), keep
    if peeps is not None:  # the peepholes' share of the cells' gradients joins the others'
        by_c = ops.Add(by_c, ops.Mul(by_o, peeps[1]))
        along = ops.Add(along, ops.Add(ops.Mul(by_i, peeps[0]), ops.Mul(by_f, peeps[2])))
    by = d.where(ops.Concat(by_i, by_o, by_f, ops.Mul(i, new1), axis=-1), 0)

    def body(ops: Ops, states: Values, read: Values) -> tuple[Values, Values]:
        dh = _entering(d, ops, states[0], read)
        dc = ops.Add(states[1], ops.Mul(dh, read[0]))
        dz = ops.Mul(ops.Concat(dc, dh, dc, dc, axis=-1), read[2])
        back = ops.MatMul(dz, d.r)
        if d.mask is not None:
            back = ops.Add(back, ops.Mul(dh, read[3]))
        return [back, ops.Mul(dc, read[1])], [dz]

    assert d.dc is not None
    sequences = [d.where(by_c, 0), d.where(along, 1), by, *_behind(d, by), *([d.dy] if d.dy is not None else [])]
    dh0, dc0, dz = scan(ops, [d.dh, d.dc], sequences, body, backward=not d.backward, turn=d.turn)
    dp = None
    if "p" in d.asked:
        di, do, df, _ = d.split(dz, 4)
        dp = ops.Concat(*(d.total(ops.Mul(a, b)) for a, b in ((di, cells), (do, cell), (df, cells))), axis=0)
    return _parts(d, dz, before, dh0, dc0=dc0, dp=dp)


def _cells(d: Direction, zi: ir.Value, zf: ir.Value, new: ir.Value, peeps: Values | None, coupled: bool) -> ir.Value:
    """Return the cell that each step starts from, ``(T, N, H)``: LSTM returns the last one alone."""
    f = d.activations[0]
    assert d.c0 is not None

    def gates(ops: Ops, zi: ir.Value, zf: ir.Value) -> tuple[ir.Value, ir.Value]:
        i = f(ops, zi)[0]
        return i, ops.Sub(ops.scalar(1, i), i) if coupled else f(ops, zf)[0]

    def plain(ops: Ops, states: Values, read: Values) -> tuple[Values, Values]:
        return [ops.Add(ops.Mul(states[0], read[0]), read[1])], [states[0]]

    def peeping(ops: Ops, states: Values, read: Values) -> tuple[Values, Values]:
        assert peeps is not None
        cell = states[0]
        i, keep = gates(ops, ops.Add(read[0], ops.Mul(peeps[0], cell)), ops.Add(read[1], ops.Mul(peeps[2], cell)))
        after = ops.Add(ops.Mul(keep, cell), ops.Mul(i, read[2]))
        if d.mask is not None:
            after = ops.Add(cell, ops.Mul(read[3], ops.Sub(after, cell)))
        return [after], [cell]

    if peeps is not None:
        within = [] if d.mask is None else [d.ops.cast(d.mask, zi)]
        return scan(d.ops, [d.c0], [zi, zf, new, *within], peeping, backward=d.backward, turn=d.turn)[1]
    i, keep = gates(d.ops, zi, zf)
    return scan(
        d.ops, [d.c0], [d.where(keep, 1), d.where(d.ops.Mul(i, new), 0)], plain, backward=d.backward, turn=d.turn
    )[1]
