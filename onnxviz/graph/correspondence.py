"""Laying an optimised graph over the one that it was made from: which of its tensors hold which original ones."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.equality import Side, equal_constants, equality_classes, ints, is_copy, label
from onnxviz.graph.extract import bodies_of

__all__ = ["VIEWS", "Correspondence"]

_DEEPEST = 12  # nodes that one convolution may have absorbed
_BLOCK = 32  # channels of a blocked layout are padded to a multiple of at most this

#: What onnxruntime puts before the name of a tensor that it computes in float32 for want of a float16 kernel.
_WIDENED = "InsertedPrecisionFreeCast_"
#: Nodes that onnxruntime inserts to change the layout or type of a tensor.
VIEWS = frozenset({"ReorderInput", "ReorderOutput", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze"})
#: Op type in the optimised graph -> op types of the original that it may stand for, other than itself.
_CORES = {
    "FusedConv": {"Conv"}, "NhwcFusedConv": {"Conv"}, "NhwcConv": {"Conv"}, "QLinearConv": {"Conv"},
    "FusedGemm": {"Gemm", "MatMul"}, "Gemm": {"MatMul"}, "FusedMatMul": {"MatMul"}, "QLinearMatMul": {"MatMul"},
    "Upsample": {"Resize"}, "NhwcMaxPool": {"MaxPool"},
}  # fmt: skip
_ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "Tanh", "Sigmoid", "HardSigmoid", "HardSwish", "Clip", "Elu", "Selu", "Gelu", "Softplus"}
    | {"Softsign", "ThresholdedRelu"}
)
_ABSORBED = _ACTIVATIONS | {"BatchNormalization", "Mul", "Div", "Add", "Sub", "Sum", "Cast", "QuantizeLinear"}
_CONVS = frozenset({"Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "QLinearConv"})


class Correspondence:
    """Which tensor of the optimised graph holds which one of the original.

    Attributes:
        held: Tensor of the optimised graph -> the original tensor whose values it holds, perhaps in another layout or
            type. Those with the same name are the anchors; the others follow from them.
        rejected: Name that both graphs have -> why it does not mean the same in both.
        barred: Tensors of the optimised graph that cannot be told.
    """

    def __init__(self, original: Side, optimized: Side) -> None:
        self.original = original
        self.optimized = optimized
        self.rejected: dict[str, str] = {}
        self.barred: set[str] = set()
        self.classes = equality_classes(original)
        self.held: dict[str, str] = {}
        self.match()

    def match(self) -> None:
        """Find what every tensor of the optimised graph holds, from the anchors backwards."""
        self.held = {str(v.name): str(v.name) for v in self.optimized.graph.inputs}
        for name, node in self.optimized.producer.items():
            before = self.original.producer.get(name)
            if before is None or name in self.rejected:
                continue
            if (reason := _changed(before, node, name)) is not None:
                self.rejected[name] = reason
            else:
                self.held[name] = name
        for name in self.optimized.producer:
            narrow = name.removeprefix(_WIDENED)
            if name != narrow and narrow in self.original.producer and name not in self.held.keys() | self.barred:
                self.held[name] = narrow
        for node in reversed(list(self.optimized.graph)):
            for index, value in enumerate(node.outputs):
                if (holds := self.held.get(str(value.name))) is not None:
                    self._descend(node, index, holds)

    def same(self, one: str, other: str) -> bool:
        """Whether two original tensors always have the same values."""
        return one == other or (one in self.classes and self.classes[one] == self.classes.get(other))

    def _descend(self, node: ir.Node, index: int, name: str) -> None:
        """Tell what the inputs of a node hold from what its output holds."""
        sources = self.optimized.inputs(node)
        if all(source in self.held for source in sources):
            return
        before = self.original.producer.get(name)
        if _is_view(node, before):
            self._hold({sources[0]: _unturned(node, before) or name})
        elif before is not None:
            for pairs in (self._through_chain(node, name), self._directly(node, index, name)):
                if pairs and self._agrees(pairs):
                    self._hold(pairs)
                    return

    def _agrees(self, pairs: dict[str, str]) -> bool:
        for here, there in pairs.items():
            if here in self.held and not self.same(self.held[here], there):
                if here != self.held[here]:  # two ways lead to two answers: neither is shown
                    del self.held[here]
                    self.barred.add(here)
                return False
        return True

    def _hold(self, pairs: dict[str, str]) -> None:
        for here, there in pairs.items():
            known = here in self.held or here in self.barred or here in self.rejected
            if not known and here in self.optimized.producer:
                self.held[here] = there

    def _directly(self, node: ir.Node, index: int, name: str) -> dict[str, str]:
        """Pair the inputs of a node with those of the one original node of its type that it stands for."""
        before, name = self._past_copies(name)
        if before is None or before.op_type not in {node.op_type, *_CORES.get(node.op_type, ())}:
            return {}
        if node.op_type in _CONVS or before.outputs.index(_output(before, name)) != index:
            return {}
        here, there = self.optimized.inputs(node), self.original.inputs(before)
        if len(here) != len(there) or any(bodies_of(node)):
            return {}
        return dict(zip(here, there, strict=True))

    def _past_copies(self, name: str) -> tuple[ir.Node | None, str]:
        node = self.original.producer.get(name)
        while node is not None and is_copy(node):
            name = str(node.inputs[0].name) if node.inputs[0] is not None else name
            node = self.original.producer.get(name)
        return node, name

    def _through_chain(self, node: ir.Node, name: str) -> dict[str, str]:
        """Pair the inputs of a convolution with those of the original one, past what it has absorbed."""
        if node.op_type not in _CONVS:
            return {}
        added = str(node.inputs[3].name) if _adds(node) and node.inputs[3] is not None else None
        hint = (node.name or "").removesuffix("_nchwc").removeprefix(_WIDENED)
        found = []
        for way in self._ways(node, name, added, None, (name,)):
            passed = {self.original.producer[step].op_type for step in way[2]} | {_text(way[0], "activation") or ""}
            misled = hint in self.original.producer and hint not in way[2]
            if not misled and _fits(node, way[0]) and _activated(node, passed):
                found.append(way)
        if added in self.held:
            found = [way for way in found if way[1] is not None and self.same(self.held[str(added)], way[1])]
        if len({way[0] for way in found}) != 1:
            return {}
        core, addend, _ = found[0]
        pairs = {str(node.inputs[0].name): self._fed(node, core)} if node.inputs[0] is not None else {}
        if added is not None and addend is not None:
            pairs[added] = addend
        return pairs

    def _ways(
        self, node: ir.Node, name: str, added: str | None, addend: str | None, path: tuple[str, ...]
    ) -> Iterator[tuple[ir.Node, str | None, tuple[str, ...]]]:
        """Yield (original convolution, tensor added to it, tensors on the way) for every way up from a tensor."""
        before = self.original.producer.get(name)
        if before is None or len(path) > _DEEPEST:
            return
        if before.op_type in _CONVS:
            if _adds(before) and addend is None and before.inputs[3] is not None:
                addend = str(before.inputs[3].name)
            if (added is None) == (addend is None):
                yield before, addend, path
            return
        if before.op_type not in _ABSORBED and not is_copy(before):
            return
        sources = list(dict.fromkeys(self.original.inputs(before)))
        if len(sources) == 1:
            yield from self._ways(node, sources[0], added, addend, (*path, sources[0]))
        elif len(sources) == 2:
            for source, other in (sources, sources[::-1]):
                gate = self.original.producer.get(other)
                if gate is not None and gate.op_type in _ACTIVATIONS and self.original.inputs(gate) == [source]:
                    yield from self._ways(node, source, added, addend, (*path, source))
                elif before.op_type in {"Add", "Sum"} and added is not None and addend is None:
                    yield from self._ways(node, source, added, other, (*path, source))

    def _fed(self, node: ir.Node, core: ir.Node) -> str:
        """Return the original tensor that a convolution's first input holds: what precedes may be absorbed too."""
        name = str(core.inputs[0].name) if core.inputs[0] is not None else ""
        before, past = self._past_copies(name)
        if before is None or before.inputs[0] is None:
            return name
        padded = before.op_type == "Pad" and ints(node, "pads") != ints(core, "pads")
        dequantized = before.op_type == "DequantizeLinear" and node.op_type == "QLinearConv" != core.op_type
        return str(before.inputs[0].name) if padded or dequantized else past


def _output(node: ir.Node, name: str) -> ir.Value:
    return next(value for value in node.outputs if value.name == name)


def _is_view(node: ir.Node, before: ir.Node | None) -> bool:
    """Whether a node was inserted to change the layout or type of what it reads."""
    if node.op_type not in VIEWS or (node.op_type == "Cast" and before is not None and before.op_type == "Cast"):
        return False
    return before is None or before.op_type != node.op_type or (before.name or "") != (node.name or "")


def _unturned(node: ir.Node, before: ir.Node | None) -> str | None:
    """Return what a Transpose read that is now part of leaving the blocked layout."""
    if node.op_type != "ReorderOutput" or ints(node, "channels_last") != [1]:
        return None
    if before is None or before.op_type != "Transpose" or before.inputs[0] is None:
        return None
    return str(before.inputs[0].name)


def _adds(node: ir.Node) -> bool:
    return node.op_type != "QLinearConv" and len(node.inputs) > 3 and node.inputs[3] is not None


def _text(node: ir.Node, name: str) -> str | None:
    attribute = node.attributes.get(name)
    return None if attribute is None or attribute.is_ref() else attribute.as_string()


def _fits(node: ir.Node, core: ir.Node) -> bool:
    """Whether a convolution can stand for the original one, by its attributes and the shape of its weights."""
    for name in ("strides", "dilations"):
        one, other = ([n for n in ints(each, name) or () if n != 1] for each in (node, core))
        if one != other:
            return False
    groups, before = ((ints(each, "group") or [1])[0] for each in (node, core))
    if groups != before and not 1 < before < groups < before + _BLOCK:
        return False
    if node.op_type == "QLinearConv":
        return True
    weights, original = (constant_tensor(each.inputs[1]) for each in (node, core))
    if weights is None or original is None:
        return True
    here, there = weights.shape.numpy(), original.shape.numpy()
    return here[2:] == there[2:] and there[0] <= here[0] < there[0] + _BLOCK


def _activated(node: ir.Node, passed: set[str]) -> bool:
    """Whether the activation that a convolution applies is the one among the op types that it has absorbed."""
    if node.op_type == "QLinearConv":
        return True  # a Relu or Clip may be the range of the quantised type
    activation = _text(node, "activation")
    if activation is None:
        return not passed & _ACTIVATIONS
    return activation in passed or (activation == "HardSwish" and "Mul" in passed)


def _changed(before: ir.Node, node: ir.Node, name: str) -> str | None:
    """Return why a tensor cannot be what it was, though its name is the same; None where nothing speaks against it."""
    if before.op_type in {"Conv", "Gemm", "MatMul"} and (activation := _text(node, "activation")) is not None:
        return f"its name is now that of its {activation}, written by {label(node)!r} ({node.op_type})"
    if before.op_type == node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
        for one, other in zip(before.inputs[1:], node.inputs[1:], strict=False):
            if not equal_constants(constant_tensor(one), constant_tensor(other)):
                return f"{label(node)!r} ({node.op_type}) writes it with another scale or zero point"
    types = {value.dtype for each in (before, node) for value in each.outputs if value.name == name} - {None}
    if len(types) > 1:
        return f"{label(node)!r} ({node.op_type}) writes it as another type"
    return None
