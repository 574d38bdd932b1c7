"""From a model to the feature maps that a figure shows: what is a volume of its own, and what folds into another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxviz.diagram.elements import bodies
from onnxviz.diagram.volume_labels import work_text
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.kinds import CONTROL_FLOW, kind_of
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.shapes import model_inputs, symbolic_shape

__all__ = ["Extent", "Stage", "collect_stages"]

Dim = int | str | None


@dataclass(frozen=True, slots=True)
class Extent:
    """The sides of a feature map.

    Attributes:
        channels: How many channels, or features of a vector.
        spatial: The axes of positions: rows and columns, tokens, depth, rows and columns; empty for vectors.
        known: Whether the model tells the number of axes at all.
        tokens: Whether the positions are tokens, each with a vector of features.
    """

    channels: Dim = None
    spatial: tuple[Dim, ...] = ()
    known: bool = True
    tokens: bool = False

    @property
    def is_vector(self) -> bool:
        """Whether there is one position only."""
        return self.known and all(size == 1 for size in self.spatial)


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

    @property
    def nodes(self) -> list[ir.Node]:
        """Everything that is done in it."""
        return [*([self.node] if self.node is not None else []), *self.folded]


_STANDING = {"conv", "pool", "linear", "attention", "recurrent", "control", "function", "detection", "signal", "ml"}
_STANDING_OPS = {"Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "GridSample", "Col2Im", "OneHot"}
_SIGNS = {
    "Add": "+", "Sum": "+", "Sub": "−", "Mul": "×", "Div": "÷", "QLinearAdd": "+", "QLinearMul": "×", "AddRelu": "+",
    "BiasAdd": "+", "SkipLayerNormalization": "+", "SkipSimplifiedLayerNormalization": "+", "SkipGroupNorm": "+",
}  # fmt: skip


def collect_stages(model: ir.Model) -> list[Stage]:
    """Return the volumes of a model with inferred shapes, in its order; sources come before what reads them."""
    collector = _Collector(model)
    collector.collect()
    return _without_gates(collector.stages)


class _Collector:
    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.stages: list[Stage] = []
        self.home: dict[ir.Value, Stage] = {}
        self.layouts = tensor_layouts(model)
        self.functions = set(model.functions)
        shapes = [shape for value in model_inputs(model) if (shape := symbolic_shape(value))]
        self.batch: set[Dim] = {shape[0] for shape in shapes if len(shape) > 1} | {1}
        self.names = {size for size in self.batch if isinstance(size, str)}

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

    def _visit(self, node: ir.Node) -> None:
        """Make a stage of a node, or fold it; what depends on constants and shapes alone is neither."""
        if node.op_type in ("Shape", "Size") or not node.outputs:
            return
        sources: dict[Stage, ir.Value] = {}
        for value in (*node.inputs, *_captured(node)):
            if value is not None and value in self.home:
                sources.setdefault(self.home[value], value)
        kind = "function" if node.op_identifier() in self.functions else kind_of(node)
        if not sources:
            if kind in _STANDING and any(_dangles(value) for value in node.inputs):
                self._stand(node, kind, {})
            return
        extent = self.extent(node.outputs[0])
        if self._stands(node, kind, list(sources), extent):
            self._stand(node, kind, sources)
            return
        home = next(iter(sources))
        home.folded.append(node)
        self.home |= dict.fromkeys(node.outputs, home)

    def _stand(self, node: ir.Node, kind: str, sources: dict[Stage, ir.Value]) -> None:
        extent = self.extent(node.outputs[0])
        if kind == "reduce":
            kind = "pool"
        sign = _SIGNS.get(node.op_type, "")
        if not sign and len(sources) > 1 and kind in ("elementwise", "activation"):
            sign = "•"
        learned = any(value is not None and value not in self.home for value in node.inputs[:2])
        work, kernel = work_text(node, kind, extent.is_vector, learned)
        stage = Stage("node", node.outputs[0], extent, node, kind, work, kernel, sources, sign=sign)
        self._add(stage, list(node.outputs))

    def _stands(self, node: ir.Node, kind: str, sources: list[Stage], extent: Extent) -> bool:
        op, source = node.op_type, sources[0].extent
        if op in ("Reshape", "Expand", "Tile", "Slice", "Pad"):
            return False  # what else they read is a shape
        if len(sources) > 1 or kind in _STANDING or op in _STANDING_OPS or op in CONTROL_FLOW:
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

    def extent(self, value: ir.Value) -> Extent:
        shape = symbolic_shape(value)
        if shape is None:
            return Extent(known=False)
        made = value.producer()
        if made is not None and kind_of(made) == "recurrent" and len(shape) == 4 and value is made.outputs[0]:
            return Extent(shape[3], () if shape[0] == 1 else (shape[0],), tokens=shape[0] != 1)
        layout, rank = self.layouts.get(str(value.name)), len(shape)
        if layout == "NHWC" and rank > 2:
            return Extent(shape[-1], shape[1:-1])
        if rank > 3 or (rank == 3 and layout == "NCHW"):
            return Extent(shape[1], shape[2:5])
        if rank == 3:  # tokens × width, the batch first or second
            second = shape[1] in self.names and shape[0] not in self.names
            return Extent(shape[2], (shape[0] if second else shape[1],), tokens=True)
        if rank == 2:
            tokens = self._tokens(shape[0])
            return Extent(shape[1], (tokens,) if tokens else (), tokens=bool(tokens))
        return Extent(shape[0] if rank else 1)

    def _tokens(self, size: Dim) -> int | None:
        """Return how many positions of one example lie in the first axis of a matrix; None where it is the batch."""
        if size is None or size in self.batch:
            return None
        if isinstance(size, int):
            return size
        try:
            found = ir.SymbolicDim(size).evaluate(dict.fromkeys(self.names, 1))
        except (ValueError, KeyError, ZeroDivisionError, OverflowError):
            return None
        return found if isinstance(found, int) and found > 1 else None


def _captured(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what the bodies of a node read."""
    pending = bodies(node)
    while pending:
        body = pending.pop()
        yield from body.outputs
        for child in body:
            yield from (value for value in child.inputs if value is not None)
            pending.extend(bodies(child))


def _dangles(value: ir.Value | None) -> bool:
    return value is not None and value.producer() is None and constant_tensor(value) is None


def _without_gates(stages: list[Stage]) -> list[Stage]:
    """Fold side paths of vectors that scale or shift the map that they come from: squeeze-and-excitation and the like.

    Such a path starts at one map, holds vectors alone, and ends where it meets the same map again.
    """
    readers: dict[Stage, list[Stage]] = {stage: [] for stage in stages}
    for stage in stages:
        for source in stage.sources:
            readers[source].append(stage)
    into: dict[Stage, Stage] = {}
    for join in stages:
        main = next((s for s in join.sources if not s.extent.is_vector), None) if join.sign else None
        if main is None or join.extent.spatial != main.extent.spatial:
            continue
        path = _side_path(join, main, into)
        if path is None or any(r is not join and r not in path for stage in path for r in readers[stage]):
            continue
        home = into.get(main, main)
        for stage in (*sorted(path, key=stages.index), join):
            home.folded += stage.nodes
            into[stage] = home
    kept = [stage for stage in stages if stage not in into]
    for stage in kept:
        stage.sources = {into.get(source, source): value for source, value in reversed(stage.sources.items())}
        stage.sources = dict(reversed(stage.sources.items()))
    return kept


def _side_path(join: Stage, main: Stage, into: dict[Stage, Stage]) -> set[Stage] | None:
    """Return the vectors between a map and the join that meets it again; None where anything else takes part."""
    pending = [source for source in join.sources if source is not main]
    home = into.get(main, main)
    path: set[Stage] = set()
    while pending:
        stage = pending.pop()
        if stage is main or into.get(stage, stage) is home or stage in path:
            continue
        if not stage.extent.is_vector or stage.role != "node" or not stage.sources or len(path) > 16:
            return None
        path.add(stage)
        pending += stage.sources
    return path or None
