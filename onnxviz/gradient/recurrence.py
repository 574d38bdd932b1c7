"""What the gradients of LSTM, GRU and RNN have in common: the layout, the directions, activations, scans over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.gradient.activation import NUMBERS, Activation
from onnxviz.gradient.bodies import close
from onnxviz.gradient.ops import Ops
from onnxviz.gradient.step import Step

__all__ = ["Direction", "Layer", "Parts", "scan"]

_LAST = 2**31 - 1


@dataclass(frozen=True)
class Parts:
    """Gradients of what one direction reads, each without the axis of the directions; None where not asked for."""

    x: ir.Value | None
    w: ir.Value | None
    r: ir.Value | None
    b: ir.Value | None
    h0: ir.Value | None
    c0: ir.Value | None = None
    p: ir.Value | None = None


Body = Callable[[Ops, Sequence[ir.Value], Sequence[ir.Value]], tuple[Sequence[ir.Value], Sequence[ir.Value]]]


def scan(
    ops: Ops,
    states: Sequence[ir.Value],
    sequences: Sequence[ir.Value],
    body: Body,
    *,
    backward: bool,
    turn: bool = False,
) -> Sequence[ir.Value]:
    """Append a Scan over the first axis of sequences ``(T, N, …)``.

    Args:
        ops: Where it goes.
        states: First values, ``(N, H)``.
        sequences: What is read.
        body: Writes an iteration: gets the states and the entries, returns the next states and the entries it makes.
        backward: Whether time runs from the end; what is made has the order of what is read all the same.
        turn: Turn the sequences around for that: onnx's evaluator has no Scan that runs from the end.

    Returns:
        The last states, then what was made.
    """
    if backward and turn:
        results = scan(ops, states, [_turned(ops, value) for value in sequences], body, backward=False)
        return [*results[: len(states)], *(_turned(ops, value) for value in results[len(states) :])]
    inner = ops.body("step")

    def entries(stem: str, values: Sequence[ir.Value]) -> list[ir.Value]:
        return [ir.Value(name=inner.name(stem), type=value.type, shape=ir.Shape([None, None])) for value in values]

    entered, read = entries("state", states), entries("entry", sequences)
    for mine, value in zip((*entered, *read), (*states, *sequences), strict=True):
        mine.type = value.type or states[0].type
    left, made = body(inner, entered, read)
    graph = close(inner, [*entered, *read], [*left, *made])
    way = int(backward)
    results = ops.nodes(
        "Scan", len(left) + len(made), *states, *sequences, body=graph, num_scan_inputs=len(sequences),
        scan_input_directions=[way] * len(sequences), scan_output_directions=[way] * len(made),
    )  # fmt: skip
    for value in results:
        value.type = states[0].type
    return results


def _turned(ops: Ops, value: ir.Value) -> ir.Value:
    return ops.Slice(value, ops.ints(-1), ops.ints(-_LAST), ops.ints(0), ops.ints(-1))


@dataclass(frozen=True)
class Direction:
    """One direction of a layer, its tensors without the axis of the directions.

    Attributes:
        ops: Writes the backward nodes.
        x: ``(T, N, I)``.
        w: ``(G H, I)`` for G gates.
        r: ``(G H, H)``.
        b: ``(2 G H,)``, or None.
        p: ``(3 H,)``, or None.
        h0: ``(N, H)``.
        c0: ``(N, H)``; None without cells.
        y: ``(T, N, H)``.
        dy: Gradient of y, ``(T, N, H)``, or None.
        dh: Gradient of the last state, ``(N, H)``.
        dc: Gradient of the last cell.
        mask: ``(T, N, 1)`` of bool, false behind the end of a sequence; None where all have one length.
        backward: Whether time runs from the end.
        activations: Of the gates, in the order of the operator.
        turn: Whether sequences are turned around where a Scan would run from the end.
        asked: Which gradients are asked for, by the names of :class:`Parts`.
    """

    ops: Ops
    x: ir.Value
    w: ir.Value
    r: ir.Value
    b: ir.Value | None
    p: ir.Value | None
    h0: ir.Value
    c0: ir.Value | None
    y: ir.Value
    dy: ir.Value | None
    dh: ir.Value
    dc: ir.Value | None
    mask: ir.Value | None
    backward: bool
    activations: tuple[Activation, ...]
    turn: bool
    asked: frozenset[str]

    def previous(self) -> ir.Value:
        """Return the state that each step starts from, ``(T, N, H)``: the outputs, shifted by one step."""
        ops = self.ops
        first = ops.Unsqueeze(self.h0, ops.ints(0))
        if not self.backward:
            return ops.Concat(first, self._cut(self.y, 0, -1), axis=0)
        shifted = ops.Concat(self._cut(self.y, 1, _LAST), first, axis=0)
        if self.mask is None:
            return shifted
        begun = self._cut(self.mask, 0, 1)
        follows = ops.Concat(self._cut(self.mask, 1, _LAST), ops.Xor(begun, begun), axis=0)
        return ops.Where(follows, shifted, first)

    def _cut(self, value: ir.Value, start: int, end: int) -> ir.Value:
        ops = self.ops
        return ops.Slice(value, ops.ints(start), ops.ints(end), ops.ints(0))

    def product(self, value: ir.Value, weights: ir.Value) -> ir.Value:
        """Return ``value · weightsᵀ`` for ``(T, N, …)``."""
        return self.ops.MatMul(value, self.ops.Transpose(weights, perm=[1, 0]))

    def biases(self) -> tuple[ir.Value, ir.Value] | None:
        """Return the biases of W and of R, ``(G H,)`` each."""
        if self.b is None:
            return None
        w, r = self.ops.nodes("Split", 2, self.b, axis=0, num_outputs=2)
        return w, r

    def split(self, value: ir.Value, parts: int, axis: int = -1) -> Sequence[ir.Value]:
        return self.ops.nodes("Split", parts, value, axis=axis, num_outputs=parts)

    def where(self, value: ir.Value, otherwise: float) -> ir.Value:
        """Return a value, and a number behind the end of the sequences."""
        if self.mask is None:
            return value
        return self.ops.Where(self.mask, value, self.ops.scalar(otherwise, value))

    def weights(self, grads: ir.Value, by: ir.Value) -> ir.Value:
        """Return the sum over steps and samples of ``gradsᵀ · by``, both ``(T, N, …)``."""
        ops = self.ops
        flat = [ops.Flatten(value, axis=2) for value in (grads, by)]
        return ops.Gemm(flat[0], flat[1], transA=1)

    def total(self, grads: ir.Value) -> ir.Value:
        """Return the sum over steps and samples."""
        return self.ops.sum(grads, (0, 1))


class Layer:
    """The node as directions, and their gradients as those of the node's inputs."""

    def __init__(self, s: Step, dys: Sequence[ir.Value | None], gates: Sequence[str], p: int | None = None) -> None:
        self.s, self.ops = s, s.ops
        self.batch_first = bool(s.attr("layout", 0))
        way = s.attr("direction", "forward")
        self.ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[way]
        self.dys = [*dys, None, None, None][:3]
        self.place_p = p
        self.names = ["x", "w", "r", "b", "", "h0", "c0", "p"][: 8 if p is not None else 6]
        self.activations = self._activations(gates)

    def _activations(self, defaults: Sequence[str]) -> list[Activation]:
        s = self.s
        names = [str(name).lower() for name in s.attr("activations", ())] or [*defaults] * len(self.ways)
        numbers = [list(s.attr(name, ())) for name in ("activation_alpha", "activation_beta")]
        made = []
        for name in names:
            if name not in NUMBERS:
                raise s.refuse(f"its attribute activations names {name!r}")
            alpha, beta = (
                None if default is None else float(given.pop(0)) if given else default
                for default, given in zip(NUMBERS[name], numbers, strict=True)
            )
            if alpha != alpha or beta != beta:
                raise s.refuse(f"{name} has no activation_alpha or activation_beta, and runtimes differ without it")
            made.append(Activation(name, alpha, beta, float(s.attr("clip", 0.0))))
        if len(made) != len(defaults) * len(self.ways):
            raise s.refuse(f"its attribute activations has {len(made)} entries")
        return made

    def turned(self, value: ir.Value | None, *perm: int) -> ir.Value | None:
        """Return a tensor in the layout of layout = 0, or of that in this."""
        if value is None or not self.batch_first:
            return value
        made = self.ops.Transpose(value, perm=list(perm))
        made.type = self.s[0].type
        return made

    def side(self, value: ir.Value | None, place: int, axis: int = 0) -> ir.Value | None:
        """Return the part of one direction."""
        if value is None:
            return None
        if len(self.ways) == 1:
            made = self.ops.Squeeze(value, self.ops.ints(axis))
        else:
            made = self.ops.Gather(value, self.ops.integer(place), axis=axis)
        made.type = self.s[0].type
        return made

    def lasting(self, grad: ir.Value | None) -> ir.Value | None:
        """Return the gradient of a last state; onnxruntime returns 0, not the first state, for no steps."""
        ops, lengths = self.ops, self.s.input(4)
        if grad is None or lengths is None:
            return grad
        some = ops.Greater(ops.Cast(lengths, to=int(ir.DataType.INT64)), ops.integer(0))
        return ops.Where(ops.Unsqueeze(some, ops.ints(1)), grad, ops.scalar(0, self.s[0]))

    def mask(self, x: ir.Value) -> ir.Value | None:
        ops, lengths = self.ops, self.s.input(4)
        if lengths is None:
            return None
        steps = ops.Range(ops.integer(0), ops.Squeeze(ops.dim(x, 0), ops.ints(0)), ops.integer(1))
        within = ops.Less(ops.Unsqueeze(steps, ops.ints(1)), ops.Cast(lengths, to=int(ir.DataType.INT64)))
        return ops.Unsqueeze(within, ops.ints(2))

    def directions(self) -> list[Direction]:
        """Return the directions."""
        s, ops = self.s, self.ops
        x, y = self.turned(s[0], 1, 0, 2), s.output(0)
        y.type = s[0].type
        turned_y, dy = self.turned(y, 1, 2, 0, 3), self.turned(self.dys[0], 1, 2, 0, 3)
        assert x is not None
        hidden = ops.ints(int(s.attr("hidden_size"))) if s.attr("hidden_size") else ops.dim(s[2], 2)
        empty = ops.filled(ops.Concat(ops.dim(x, 1), hidden, axis=0), 0.0, s[0])
        firsts = [self.turned(s.input(place) if place < len(self.names) else None, 1, 0, 2) for place in (5, 6)]
        lasts = [self.lasting(self.turned(grad, 1, 0, 2)) for grad in self.dys[1:]]
        mask, cells, count = self.mask(x), self.place_p is not None, len(self.activations) // len(self.ways)
        asked = frozenset(name for place, name in enumerate(self.names) if s.need(place))
        made = []
        for d, backward in enumerate(self.ways):
            part = self.side(dy, d, 1)
            if part is not None and mask is not None:
                part = ops.Where(mask, part, ops.scalar(0, part))
            w, r, out = self.side(s[1], d), self.side(s[2], d), self.side(turned_y, d, 1)
            assert w is not None
            assert r is not None
            assert out is not None
            made.append(Direction(
                ops, x, w, r, self.side(s.input(3), d), self.side(s.input(7) if cells else None, d),
                self.side(firsts[0], d) or empty, (self.side(firsts[1], d) or empty) if cells else None, out, part,
                self.side(lasts[0], d) or empty, (self.side(lasts[1], d) or empty) if cells else None, mask, backward,
                tuple(self.activations[d * count : (d + 1) * count]), self.batch_first, asked,
            ))  # fmt: skip
        return made

    def gradients(self, parts: Sequence[Parts]) -> tuple[ir.Value | None, ...]:
        """Return the gradients of the node's inputs from those of its directions."""
        ops = self.ops
        grads: list[ir.Value | None] = []
        for name in self.names:
            found = [value for value in (getattr(part, name) for part in parts if name) if value is not None]
            if not found:
                grads.append(None)
            elif name == "x":
                grads.append(self.turned(ops.add(found), 1, 0, 2))
            else:
                stacked = [ops.Unsqueeze(value, ops.ints(0)) for value in found]
                whole = stacked[0] if len(stacked) == 1 else ops.Concat(*stacked, axis=0)
                grads.append(self.turned(whole, 1, 0, 2) if name in ("h0", "c0") else whole)
        return tuple(grads[: len(self.s.node.inputs)])
