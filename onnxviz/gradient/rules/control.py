"""If, Loop and Scan: the bodies run again, backward, from a tape of what entered each iteration.

The forward node gets one more scan output for each state that the backward pass reads. The backward Loop or Scan
carries the gradients of the states, and sums those of what its body takes from around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.bodies import close, entry, pull_body, reach_forward
from onnxviz.gradient.ops import Ops, static_shape
from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.step import Step
from onnxviz.graph.extract import ancestors

_LEAST = int(np.iinfo(np.int64).min)


@gradient("If")
def branches(s: Step, *dys: ir.Value | None) -> Grads:
    """The gradient of the branch that is taken, which is computed again."""
    asked = [*s.outside, *s.inside]
    made = []
    for name in ("then_branch", "else_branch"):
        body, ops = s.node.attributes[name].as_graph(), s.ops.body(name)
        seeds = [(value, dy) for value, dy in zip(body.outputs, dys, strict=True) if dy is not None]
        made.append((name, ops, pull_body(s, ops, body, {}, seeds, asked)))
    led = [value for value in asked if any(value in found for _, _, found in made)]
    if not led:
        return None
    bodies = []
    for _, ops, found in made:
        outputs = [_typed(found[value] if value in found else _zeros(s, ops, value), value) for value in led]
        bodies.append(close(ops, [], outputs))
    grads = s.ops.nodes("If", len(led), s[0], then_branch=bodies[0], else_branch=bodies[1])
    for value, grad in zip(led, grads, strict=True):
        if value.shape is not None and value not in s.inside:  # a branch that is never taken may have other axes
            grad = s.ops.Reshape(grad, s.ops.Shape(value))
        s.found[value] = _typed(grad, value)
    return None


def _zeros(s: Step, ops: Ops, value: ir.Value) -> ir.Value:
    """Return the gradient of what the branch that is taken does not read."""
    sizes = static_shape(value)
    if value in s.inside and (sizes is None or None in sizes):
        raise s.refuse(f"the shape of {value.name!r}, which lies in one branch, is not known in the other")
    return ops.zeros_like(value)


def _typed(grad: ir.Value, value: ir.Value) -> ir.Value:
    grad.type = grad.type or value.type
    if grad.shape is None and value.shape is not None:
        grad.shape = value.shape.copy()
    return grad


@dataclass
class _Round:
    """A Loop or Scan that is gone through backward.

    Attributes:
        s: The forward node.
        dys: The gradients of its outputs.
        body: Its body; a state is the same input of the node and of the body.
        first: The place of the first state among the inputs.
        states: Number of states.
        lead: The place of the first state among the body's outputs.
        ops: Writes the backward body.
    """

    s: Step
    dys: tuple[ir.Value | None, ...]
    body: ir.Graph
    first: int
    states: int
    lead: int
    ops: Ops

    def state(self, place: int) -> tuple[ir.Value, ir.Value]:
        """Return a state as the body gets it and as it gives it on."""
        return self.body.inputs[self.first + place], self.body.outputs[self.lead + place]

    @property
    def asked(self) -> list[ir.Value]:
        return [*self.s.outside, *self.s.inside]

    def carried(self) -> list[int]:
        """Return the states that depend on what is asked for, and that the target depends on."""
        moved = {*self.asked, *(value for i, value in enumerate(self.body.inputs) if self.s.need(i))}
        needed = {self.body.outputs[self.lead + i] for i, dy in enumerate(self.dys) if dy is not None}
        size = -1
        while size != len(moved) + len(needed):
            size = len(moved) + len(needed)
            ahead, back = reach_forward(self.body, moved), ancestors(self.body, needed)
            for entered, left in map(self.state, range(self.states)):
                moved |= {entered} if left in ahead else set()
                needed |= {left} if entered in back else set()
        pairs = [self.state(place) for place in range(self.states)]
        return [i for i, (entered, left) in enumerate(pairs) if entered in moved and left in needed and _float(entered)]

    def last(self, place: int) -> ir.Value:
        """Return the gradient that enters the last value of a state."""
        dy = self.dys[place]
        return dy if dy is not None else self.s.ops.zeros_like(self.s.node.outputs[place])

    def tape(self, value: ir.Value) -> ir.Value:
        """Make the forward node gather a body's input, an entry an iteration, and return that."""
        ops, node = self.s.ops, self.s.node
        if not isinstance(value.type, ir.TensorType):
            raise self.s.refuse(f"its state {value.name!r} is no tensor")
        self.check_shape(value)
        copy = ir.node("Identity", [value], name=ops.name("Identity")).outputs[0]
        copy.name, copy.type, copy.shape = ops.name("tape"), value.type, value.shape
        self.body.append(_producer(copy))
        self.body.outputs.append(copy)
        node.resize_outputs(len(node.outputs) + 1)
        kept = node.outputs[-1]
        kept.name, kept.type = ops.name("tape"), value.type
        kept.shape = None if value.shape is None else ir.Shape([None, *value.shape])
        for name in ("scan_output_axes", "scan_output_directions"):
            if name in node.attributes:
                node.attributes[name] = ir.AttrInt64s(name, [*node.attributes[name].as_ints(), 0])
        return kept

    def check_shape(self, value: ir.Value) -> None:
        """Refuse a state whose shape is known to change: a tape has one."""
        place = list(self.body.inputs).index(value)
        left = self.body.outputs[place - self.first + self.lead] if place >= self.first else value
        outer = self.s.input(place) if place >= self.first else None
        shapes = [static_shape(v) for v in (value, left, outer) if v is not None]
        known = [shape for shape in shapes if shape is not None]
        if any(len(shape) != len(known[0]) for shape in known) or any(
            len(set(sizes) - {None}) > 1 for sizes in zip(*known, strict=False)
        ):
            raise self.s.refuse(f"the shape of its state {value.name!r} changes from iteration to iteration")


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _float(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType) and value.dtype is not None and value.dtype.is_floating_point()


@dataclass
class _Backward:
    """A backward node in the making: what it carries, reads and returns.

    Attributes:
        initial: First values of what it carries.
        entered: The same as its body gets it.
        left: The same as its body gives it on.
        stacked: What its body returns of each iteration.
    """

    initial: list[ir.Value]
    entered: list[ir.Value]
    left: list[ir.Value]
    stacked: list[ir.Value]


def _pulled(
    r: _Round, given: dict[ir.Value, ir.Value], slices: dict[int, ir.Value], scanned: Sequence[ir.Value]
) -> tuple[_Backward, list[int], list[ir.Value], list[ir.Value]]:
    """Write the backward body.

    Args:
        r: The node.
        given: Inputs of the forward body -> what they are in the backward one.
        slices: Place of a scan output among the body's outputs -> the gradient that enters it in this iteration.
        scanned: Inputs of the body, besides the states, whose gradients are asked for.

    Returns:
        The backward node; the states it carries; the tensors around it whose gradients are summed; of ``scanned`` and
        the tensors inside, those whose gradients it stacks.
    """
    carried, ops = r.carried(), r.ops
    back = _Backward([r.last(place) for place in carried], [], [], [])
    back.entered = [entry(ops, "state", r.state(place)[0]) for place in carried]
    ends = [r.state(place)[1] for place in carried]
    seeds = [*zip(ends, back.entered, strict=True), *((r.body.outputs[i], dy) for i, dy in slices.items())]
    starts = [r.state(place)[0] for place in carried]
    found = pull_body(r.s, ops, r.body, given, seeds, [*starts, *scanned, *r.asked])
    for value in starts:
        back.left.append(_typed(found[value] if value in found else ops.zeros_like(given[value]), value))
    summed = [value for value in r.s.outside if value in found]
    for value in summed:
        total = entry(ops, "sum", value)
        back.initial.append(r.s.ops.zeros_like(value))
        back.entered.append(total)
        back.left.append(_typed(ops.Add(total, found[value]), value))
    stacked = [value for value in (*scanned, *r.s.inside) if value in found]
    back.stacked = [_typed(found[value], value) for value in stacked]
    return back, carried, summed, stacked


@gradient("Scan", since=9)
def scan(s: Step, *dys: ir.Value | None) -> Grads:
    """A Scan in the opposite direction."""
    body, inputs = s.node.attributes["body"].as_graph(), len(s.node.inputs)
    scans = int(s.attr("num_scan_inputs"))
    states, outputs = inputs - scans, len(dys) - inputs + scans
    r = _Round(s, dys, body, 0, states, 0, s.ops.body("backward"))
    axes = s.attr("scan_input_axes", (0,) * scans)
    ways = s.attr("scan_input_directions", (0,) * scans)
    out_axes = s.attr("scan_output_axes", (0,) * outputs)
    out_ways = s.attr("scan_output_directions", (0,) * outputs)
    for place, value in enumerate(body.inputs):
        value.type = value.type or s[place].type
    given = {value: entry(r.ops, "input", value) for value in body.inputs}
    sides: list[tuple[ir.Value, ir.Value | None, int, int]]
    sides = [(given[body.inputs[i]], None, 0, 1) for i in range(states)]
    sides += [(given[body.inputs[states + i]], s[states + i], axes[i], 1 - ways[i]) for i in range(scans)]
    slices = {}
    for i in range(outputs):
        if (dy := dys[states + i]) is not None:
            slices[states + i] = entry(r.ops, "slice", body.outputs[states + i])
            sides.append((slices[states + i], dy, out_axes[i], 1 - out_ways[i]))
    asked = [body.inputs[i] for i in range(states, inputs) if s.need(i)]
    back, carried, summed, stacked = _pulled(r, given, slices, asked)
    graph = close(r.ops, back.entered, [*back.left, *back.stacked])
    tapes = {given[body.inputs[i]]: body.inputs[i] for i in range(states)}
    sides = [side for side in sides if side[0].uses()] or [side for side in sides if side[1] is not None][:1]
    graph.inputs.extend(side[0] for side in sides)
    read = [side[1] if side[1] is not None else r.tape(tapes[side[0]]) for side in sides]
    places = {value: i for i, value in enumerate(body.inputs)}
    scanned = [places.get(value) for value in stacked]
    sliced: dict[str, Any] = {
        "scan_input_axes": [side[2] for side in sides], "scan_input_directions": [side[3] for side in sides],
        "scan_output_axes": [0 if i is None else axes[i - states] for i in scanned],
        "scan_output_directions": [1 if i is None else 1 - ways[i - states] for i in scanned],
    }  # fmt: skip
    made = s.ops.nodes(
        "Scan", len(graph.outputs), *back.initial, *read, body=graph, num_scan_inputs=len(read),
        **{name: numbers for name, numbers in sliced.items() if numbers},
    )  # fmt: skip
    return _results(s, made, carried, summed, stacked, 0, places)


def _results(
    s: Step, made: Sequence[ir.Value], carried: list[int], summed: list[ir.Value], stacked: list[ir.Value], first: int,
    places: dict[ir.Value, int],
) -> Grads:  # fmt: skip
    """Return the outputs of a backward node as the gradients of the node's inputs, and store the others."""
    grads: list[ir.Value | None] = [None] * len(s.node.inputs)
    results = iter(made)
    for place in carried:
        grads[first + place] = _typed(next(results), s[first + place])
    for value in summed:
        s.found[value] = _typed(next(results), value)
    for value in stacked:
        grad = next(results)
        grad.type = value.type
        if value in places:
            grads[places[value]] = _typed(grad, s[places[value]])
        else:
            grad.shape = None if value.shape is None else ir.Shape([None, *value.shape])
            s.found[value] = grad
    return tuple(grads)


@gradient("Loop")
def loop(s: Step, *dys: ir.Value | None) -> Grads:
    """A Loop of as many iterations, which takes the last entries of the tapes first."""
    body, states = s.node.attributes["body"].as_graph(), len(s.node.inputs) - 2
    r = _Round(s, dys, body, 2, states, 1, s.ops.body("backward"))
    outer, ops = s.ops, r.ops
    for place, value in enumerate(body.inputs[2:], 2):
        value.type = value.type or s[place].type
    gathered = s.output(states) if len(dys) > states else r.tape(body.inputs[0])
    trips = outer.Squeeze(outer.Shape(gathered, start=0, end=1), outer.ints(0))
    final = outer.Sub(trips, outer.integer(1))
    number, going = (ir.Value(name=ops.name(stem), shape=ir.Shape([])) for stem in ("number", "going"))
    number.type, going.type = ir.TensorType(ir.DataType.INT64), ir.TensorType(ir.DataType.BOOL)
    now = ops.Sub(final, number)
    now.shape = ir.Shape([])
    tapes = {entry(ops, "tape", value, stacked=True): value for value in body.inputs[1:]}
    given = {value: _typed(ops.Gather(tape, now, axis=0), value) for tape, value in tapes.items()}
    rank = len(body.inputs[0].shape or ())  # a vector of one is allowed
    given[body.inputs[0]] = ops.Unsqueeze(now, ops.ints(0)) if rank else now
    slices = {}
    for place, dy in enumerate(dys[states:], states):
        if dy is not None:
            slices[place + 1] = _typed(ops.Gather(dy, now, axis=0), body.outputs[place + 1])
    back, carried, summed, stacked = _pulled(r, given, slices, [])
    graph = close(ops, [number, going, *back.entered], [going, *back.left, *back.stacked])
    for tape, value in tapes.items():
        if tape.uses():
            ir.convenience.replace_all_uses_with(tape, r.tape(value))
    made = s.ops.nodes("Loop", len(graph.outputs) - 1, trips, None, *back.initial, body=graph)
    kept = len(back.left)
    turned = [outer.Slice(v, outer.ints(-1), outer.ints(_LEAST), outer.ints(0), outer.ints(-1)) for v in made[kept:]]
    return _results(s, [*made[:kept], *turned], carried, summed, stacked, 2, {})
