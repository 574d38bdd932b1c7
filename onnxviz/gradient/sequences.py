"""Sequences whose length is known, as the tensors in them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxviz.gradient.fused import Made, Refused, Site, expansion
from onnxviz.gradient.ops import Ops, static_shape
from onnxviz.graph.constants import constant_tensor


@expansion("SequenceAt", domain="")
def sequence_at(s: Site) -> Made:
    return [_members(s.ops, s[0])[_position(s.input(1))]]


@expansion("ConcatFromSequence", domain="")
def concat_from_sequence(s: Site) -> Made:
    ops, axis = s.ops, int(s.attr("axis", 0))
    parts = _members(ops, s[0])
    if not parts:
        raise Refused("its sequence is empty")
    if s.attr("new_axis", 0):
        parts = [ops.Unsqueeze(part, ops.ints(axis)) for part in parts]
    return [ops.Concat(*parts, axis=axis)]


@expansion("OptionalGetElement", domain="")
def optional_get_element(s: Site) -> Made:
    """An optional tensor that is made in the model, or a tensor."""
    value = s[0]
    if isinstance(value.type, ir.TensorType):
        return [value]
    maker = value.producer()
    if maker is None or maker.op_type != "Optional" or not maker.inputs or maker.inputs[0] is None:
        raise Refused("what it takes is not made in the model")
    return [maker.inputs[0]]


def _position(value: ir.Value | None) -> int:
    tensor = constant_tensor(value)
    if tensor is None:
        raise Refused("its position in the sequence is known at run time only")
    return int(tensor.numpy().reshape(()))


def _members(ops: Ops, value: ir.Value) -> list[ir.Value]:
    """Return the tensors in a sequence."""
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        raise Refused("its sequence is not made in the graph that reads it")
    inputs: Sequence[ir.Value | None] = node.inputs
    kind, first = node.op_type, inputs[0] if inputs else None
    if kind == "SequenceConstruct":
        return [part for part in inputs if part is not None]
    if kind == "SequenceEmpty":
        return []
    if first is None or kind not in ("Identity", "SequenceInsert", "SequenceErase", "SplitToSequence"):
        raise Refused(f"its sequence is made by {kind}")
    if kind == "SplitToSequence":
        return _parts(ops, node, first)
    members = _members(ops, first)
    if kind == "SequenceInsert":
        place = _position(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else len(members)
        assert inputs[1] is not None
        members.insert(place, inputs[1])
    elif kind == "SequenceErase":
        del members[_position(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else -1]
    return members


def _parts(ops: Ops, node: ir.Node, x: ir.Value) -> list[ir.Value]:
    """Return the parts of a tensor, which is split anew: all lengths have to be known."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    sizes, given = static_shape(x), node.inputs[1] if len(node.inputs) > 1 else None
    keep = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    known = None if given is None else constant_tensor(given)
    if sizes is None or (size := sizes[axis]) is None or (given is not None and known is None):
        raise Refused("it is known at run time only how many parts a tensor is split into")
    if known is None:
        lengths = [1] * size
    elif known.shape.rank():
        lengths = [int(n) for n in known.numpy()]
    else:
        part = int(known.numpy().reshape(()))
        lengths = [part] * (size // part) + ([size % part] if size % part else [])
    parts = list(ops.nodes("Split", len(lengths), x, ops.ints(*lengths), axis=axis))
    return [ops.Squeeze(part, ops.ints(axis)) for part in parts] if given is None and not keep else parts
