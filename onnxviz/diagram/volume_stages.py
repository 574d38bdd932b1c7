"""From a model to the feature maps that a figure shows: what is a volume of its own, and what folds into another."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from onnxviz.diagram.volume_changes import change_of, factor_text
from onnxviz.diagram.volume_extents import Extent, Extents, Shape
from onnxviz.diagram.volume_labels import make_naming, sides_text, work_text
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import outer_values
from onnxviz.graph.kinds import CONTROL_FLOW, kind_of
from onnxviz.graph.shapes import model_inputs, symbolic_shape

__all__ = ["Stage", "collect_stages"]


@dataclass(eq=False)
class Stage:
    """One volume of the figure.

    Attributes:
        role: ``input``, ``node`` or ``output``.
        value: The tensor that it shows.
        extent: Its sides.
        node: What makes it; None for terminals.
        kind: The kind of that operator.
        work: What the operator does, in a few words.
        kernel: The window that it reads of its source, where it has one.
        sources: The stages that it reads, each with the tensor, in order.
        folded: What else is done to it before the next stage reads it.
        sign: ``+``, ``×``, … where it only joins others element by element.
        repeats: How often its block stands in a row.
        end: The same tensor in the last of these blocks; None where there is one only.
        done: Each operator with the shapes of its constants: what makes two stages alike.
        notes: What else a reader should know, a line each.
    """

    role: str
    value: ir.Value
    extent: Extent
    node: ir.Node | None = None
    kind: str = ""
    work: str = ""
    kernel: tuple[int, ...] = ()
    sources: dict[Stage, ir.Value] = field(default_factory=dict)
    folded: list[ir.Node] = field(default_factory=list)
    sign: str = ""
    repeats: int = 1
    end: ir.Value | None = None
    done: list[tuple[str, tuple[Shape, ...]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def last_value(self) -> ir.Value:
        """Its tensor in the last of equal blocks."""
        return self.value if self.end is None else self.end

    @property
    def op_type(self) -> str:
        """What its operator is called; empty for terminals."""
        return self.node.op_type if self.node is not None else ""

    @property
    def nodes(self) -> list[ir.Node]:
        """Everything that is done in it."""
        return [*([self.node] if self.node is not None else []), *self.folded]


_STANDING = {"conv", "pool", "linear", "attention", "recurrent", "control", "function", "detection", "signal", "ml"}
STANDING_OPS = {"Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "GridSample", "Col2Im", "OneHot"}
_LONGEST_NOTE = 12
_PASSING = ("Transpose", "Identity", "Cast", "QuantizeLinear", "DequantizeLinear")
_SIGNS = {
    "Add": "+", "Sum": "+", "Sub": "−", "Mul": "×", "Div": "÷", "QLinearAdd": "+", "QLinearMul": "×", "AddRelu": "+",
    "BiasAdd": "+", "SkipLayerNormalization": "+", "SkipSimplifiedLayerNormalization": "+", "SkipGroupNorm": "+",
}  # fmt: skip


def collect_stages(model: ir.Model) -> list[Stage]:
    """Return the volumes of a model with inferred shapes, in its order; sources come before what reads them."""
    collector = _Collector(model)
    collector.collect()
    return collector.stages


class _Collector:
    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.stages: list[Stage] = []
        self.home: dict[ir.Value, Stage] = {}
        self.functions = set(model.functions)
        self.extent = Extents(model)
        self.naming = make_naming(map(self.extent, model_inputs(model)))
        self.seen: dict[ir.Value, Extent] = {}

    def collect(self) -> None:
        for value in model_inputs(self.model):
            self._add(Stage("input", value, self.extent(value)), [value])
        for node in self.model.graph:
            self._visit(node)
        for value in self.model.graph.outputs:
            if value in self.home:
                stage = Stage("output", value, self.extent(value), sources={self.home[value]: value})
                self.stages.append(stage)

    def _add(self, stage: Stage, values: list[ir.Value]) -> None:
        self.stages.append(stage)
        self.home |= dict.fromkeys(values, stage)
        self.seen |= dict.fromkeys(values, stage.extent)

    def _visit(self, node: ir.Node) -> None:
        """Make a stage of a node, or fold it; what depends on constants and shapes alone is neither."""
        if node.op_type in ("Shape", "Size") or not node.outputs:
            return
        sources: dict[Stage, ir.Value] = {}
        for value in (*node.inputs, *outer_values(node)):
            if value is not None and value in self.home:
                sources.setdefault(self.home[value], value)
        kind = "function" if node.op_identifier() in self.functions else kind_of(node)
        if not sources:
            if kind in _STANDING and any(_dangles(value) for value in node.inputs):
                self._stand(node, kind, {})
            return
        extent = self.extent(node.outputs[0])
        change = self._change(node, sources, extent)
        if change and change not in ("pad", "crop"):
            self._stand(node, kind, sources, change)
        elif self._stands(node, kind, list(sources), extent):
            self._stand(node, kind, sources)
        else:
            self._fold(node, kind, sources, extent, change)

    def _change(self, node: ir.Node, sources: dict[Stage, ir.Value], extent: Extent) -> str:
        """Return what a rearrangement does to the sides of its map."""
        if kind_of(node) != "shape" or node.op_type in STANDING_OPS:
            return ""
        mine = [v for v in node.inputs if v is not None and v in self.seen]
        if not mine or _strided(node) or (len(sources) > 1 and node.op_type in ("Concat", "QLinearConcat")):
            return ""
        return change_of(node.op_type, self.seen[mine[0]], extent, self.naming)

    def _fold(self, node: ir.Node, kind: str, sources: dict[Stage, ir.Value], extent: Extent, change: str = "") -> None:
        home = next(iter(sources))
        made = node.outputs[0]
        if change and not _windows_only(made):
            told = sides_text(extent.spatial, self.naming)
            note = f"{change} to {told}" if len(told) <= _LONGEST_NOTE and "?" not in told else change
            home.notes += [note] if note not in home.notes else []
        before = next((self.seen[v] for v in node.inputs if v is not None and v in self.seen), extent)
        self.seen |= dict.fromkeys(node.outputs, extent if change else before)
        home.folded.append(node)
        self._note(home, node, kind)
        if not home.extent.known and kind in ("quantize", "activation", "norm"):
            home.extent = extent
        self.home |= dict.fromkeys(_carrying(node), home)

    def _note(self, stage: Stage, node: ir.Node, kind: str) -> None:
        """Remember what tells a stage from others; rearrangements, and taking a part for the next, say nothing."""
        if kind != "shape" and (kind != "embedding" or node is stage.node):
            shapes = [symbolic_shape(v) for v in node.inputs if v is not None and v not in self.home]
            stage.done.append((node.op_type, tuple(shape for shape in shapes if shape)))

    def _stand(self, node: ir.Node, kind: str, sources: dict[Stage, ir.Value], change: str = "") -> None:
        made = next((value for value in node.outputs if value.name and value.uses()), node.outputs[0])
        extent = self.extent(made)
        if kind == "reduce":
            kind = "pool"
        sign = _SIGNS.get(node.op_type, "")
        if not sign and len(sources) > 1 and kind in ("elementwise", "activation"):
            sign = "•"
        learned = any(value is not None and value not in self.home for value in node.inputs[:2])
        table = bool(node.inputs) and node.inputs[0] not in self.home
        work, kernel = work_text(node, kind, extent.is_vector, learned, table)
        if node.op_type in ("Resize", "Upsample", "DepthToSpace") and sources:
            work += factor_text(next(iter(sources)).extent, extent, self.naming)
        work = change or work
        stage = Stage("node", made, extent, node, kind, work, kernel, sources, sign=sign)
        self._note(stage, node, kind)
        self._add(stage, _carrying(node))

    def _stands(self, node: ir.Node, kind: str, sources: list[Stage], extent: Extent) -> bool:
        op, source = node.op_type, sources[0].extent
        if op in ("Reshape", "Expand", "Tile", "Slice", "Pad"):
            return False  # what else they read is a shape
        if len(sources) > 1 or kind in _STANDING or op in STANDING_OPS or op in CONTROL_FLOW:
            return True
        if kind in ("embedding", "other"):
            return op not in ("GatherND", "GatherElements") and (
                kind == "other" or constant_tensor(node.inputs[0]) is not None
            )
        if kind == "reduce":
            pooled = extent.is_vector and extent.known and not source.is_vector
            return op.startswith(("Reduce", "QLinearReduce")) and pooled and extent.channels == source.channels
        joins = op in ("Concat", "QLinearConcat") and not extent.is_vector and extent != source
        return joins and len({value for value in node.inputs if value in self.home}) > 1


def _carrying(node: ir.Node) -> list[ir.Value]:
    """Return the outputs that carry the map on; scales of a quantisation at run time do not."""
    return list(node.outputs[:1] if node.op_type == "DynamicQuantizeLinear" else node.outputs)


def _windows_only(value: ir.Value) -> bool:
    """Whether convolution and pooling alone read a tensor: what pads it for them needs no word."""
    readers = [use.node for use in value.uses()]
    return bool(readers) and all(
        _windows_only(node.outputs[0]) if node.op_type in _PASSING else kind_of(node) in ("conv", "pool")
        for node in readers
    )


def _strided(node: ir.Node) -> bool:
    """Whether a slice takes every second position or the like: one part of a space-to-depth."""
    steps = constant_tensor(node.inputs[4]) if node.op_type == "Slice" and len(node.inputs) > 4 else None
    return steps is not None and bool((abs(steps.numpy()) > 1).any())


def _dangles(value: ir.Value | None) -> bool:
    return value is not None and value.producer() is None and constant_tensor(value) is None
