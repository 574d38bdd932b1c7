"""Which tensors stand for the layers of a model, in which order, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from onnxviz.analysis.paired import NotDrawn
from onnxviz.analysis.weights import LayerWeights, layer_weights
from onnxviz.errors import SelectionError
from onnxviz.graph.activations import ActivationSite, activation_sites
from onnxviz.graph.calls import opened_calls
from onnxviz.graph.extract import bodies_of, reads
from onnxviz.graph.kinds import LAYER_KINDS, kind_of
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.quantised import quantisation
from onnxviz.graph.scopes import Scope, scopes
from onnxviz.graph.select import FLOAT_TYPES
from onnxviz.graph.shapes import infer_shapes

__all__ = ["FlowPlan", "Stage", "plan_flow"]

_JOINS = frozenset({"Add", "Sum", "QLinearAdd"})
_MAIN_ROLES = frozenset({"weight", "recurrence", "embedding"})


@dataclass(frozen=True)
class Stage:
    """One layer on the axis of depth.

    Attributes:
        name: The tensor that leaves it.
        layer: What it is called: the node's name, else the tensor's; a graph input has the input's name.
        op_type: The operator; ``"input"`` for a graph input.
        kind: Its kind, a key of :data:`onnxviz.graph.kinds.KINDS`, or ``"input"``.
        depth: Number of layers on the longest way from an input to it, itself included; inputs have 0.
        scope: The groups that it lies in, the outermost first.
        weighted: Whether it multiplies by a learned kernel, matrix, recurrence or embedding.
        head: Whether no such layer comes after it: what it says is the answer.
        varies: Whether it depends on the values that are fed, not only on their shapes.
    """

    name: str
    layer: str
    op_type: str
    kind: str
    depth: int
    scope: Scope
    weighted: bool
    head: bool
    varies: bool


@dataclass(frozen=True, eq=False)
class FlowPlan:
    """What to look at.

    Attributes:
        model: The model, functions inlined, as :func:`onnxviz.analysis.paired.observable` returns it.
        stages: The layers, by depth and then in the graph's order.
        nodes: The node of each stage.
        sites: Tensor that leaves an activation function -> the function.
        weights: The learned tensors, those of each stage's node.
        inferred: Tensor name -> its value with inferred type and shape.
        layouts: Tensor name -> layout, where the graph tells.
        varying: Tensors that depend on the values that are fed.
        not_drawn: Inputs that are no numbers to draw.
        notes: What a reader should know.
    """

    model: ir.Model
    stages: tuple[Stage, ...]
    nodes: tuple[ir.Node, ...]
    sites: dict[str, ActivationSite]
    weights: tuple[tuple[LayerWeights, ...], ...]
    inferred: dict[str, ir.Value]
    layouts: dict[str, str]
    varying: frozenset[ir.Value]
    not_drawn: tuple[NotDrawn, ...]
    notes: tuple[str, ...]

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Name of the tensor behind the Identity of a graph input -> the input's name."""
        return {
            str(node.outputs[0].name): str(node.inputs[0].name)
            for node in self.model.graph
            if _stands_for_input(node) and node.inputs[0] is not None
        }


def plan_flow(model: ir.Model) -> FlowPlan:
    """Choose the layers of a model.

    A layer is a node of the kinds convolution, linear, pooling, activation, normalisation, attention or recurrence, a
    node with a learned kernel, matrix or embedding, a sum in which branches meet, and what leaves the model. Functions
    that exporters write as patterns (GELU, SiLU) are one layer. Tensors of whole numbers (token ids) are none, unless
    they are codes of a quantised operator.

    Args:
        model: As ``onnxviz.analysis.paired.observable(model, lambda node: True)`` returns it.

    Raises:
        SelectionError: The model computes nothing that could be drawn.

    >>> from onnxviz.analysis.paired import observable
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 0, 0, 1}> {h = MatMul(x, w) y = Relu(h)}''')
    >>> [(stage.layer, stage.depth) for stage in plan_flow(observable(model, lambda node: True)).stages]
    [('x', 0), ('h', 1), ('y', 2)]
    """
    found = _Finder(model)
    if not found.stages:
        raise SelectionError(
            "the model has no layer whose values could be drawn", hint="onnxviz inspect tells its nodes"
        )
    return found.plan()


class _Finder:
    def __init__(self, model: ir.Model) -> None:
        self.model = model
        inferred = infer_shapes(model)
        self.layouts = tensor_layouts(inferred)
        self.inferred = {str(value.name): value for value in _all_values(inferred) if value.name}
        self.learned: dict[ir.Node, list[LayerWeights]] = {}
        for one in layer_weights(model):
            self.learned.setdefault(one.node, []).append(one)
        self.sites = {str(site.output.name): site for site in activation_sites(model)}
        self.varying = _varying(model.graph)
        self.refused: dict[str, NotDrawn] = {}
        chosen = self._chosen()
        depth = _depths(model.graph, chosen)
        before = _before_weights(model.graph, self._weighted)
        groups = _scopes(model)
        order = {node: place for place, node in enumerate(model.graph)}
        ranked = sorted(chosen, key=lambda node: (depth[node], order[node]))
        self.nodes = tuple(ranked)
        self.stages = tuple(self._stage(node, chosen[node], depth[node], before, groups) for node in ranked)

    def plan(self) -> FlowPlan:
        bodies = sum(1 for node in self.model.graph for body in bodies_of(node) for _ in body.all_nodes())
        owners = [node.op_type for node in self.model.graph if any(True for _ in bodies_of(node))]
        notes = (f"the {bodies:,} nodes in bodies of {', '.join(sorted(set(owners)))} are not shown",) if bodies else ()
        inputs = [str(value.name) for value in self.model.graph.inputs]
        weights = tuple(tuple(w for w in self.learned.get(n, ()) if w.role in _MAIN_ROLES) for n in self.nodes)
        return FlowPlan(
            self.model, self.stages, self.nodes, self.sites, weights, self.inferred, self.layouts,
            frozenset(self.varying), tuple(self.refused[n] for n in inputs if n in self.refused), notes,
        )  # fmt: skip

    def _chosen(self) -> dict[ir.Node, ir.Value]:
        """Return the nodes that are layers, and the tensor that stands for each."""
        inside = {node for site in self.sites.values() for node in site.nodes if node is not site.nodes[-1]}
        patterns = {site.nodes[-1] for site in self.sites.values()}
        outputs = set(self.model.graph.outputs)
        every: dict[ir.Node, ir.Value] = {}
        for node in self.model.graph:
            value = next((v for v in node.outputs if v.name and (v in outputs or any(v.consumers()))), None)
            if value is None or node in inside:
                continue
            ends = bool(outputs.intersection(node.outputs))
            layer = kind_of(node) in LAYER_KINDS or node in patterns or self._weighted(node) or self._joins(node)
            if (layer or ends or _stands_for_input(node)) and self._drawable(node, value):
                every[node] = value
        if not any(kind_of(node) in LAYER_KINDS for node in every):
            every |= {
                node: node.outputs[0]
                for node in self.model.graph
                if node.outputs and node.outputs[0].name and node.outputs[0] in self.varying
                and self._drawable(node, node.outputs[0])
            }  # fmt: skip
        return every

    def _weighted(self, node: ir.Node) -> bool:
        return any(one.role in _MAIN_ROLES for one in self.learned.get(node, ()))

    def _joins(self, node: ir.Node) -> bool:
        if node.op_type not in _JOINS:
            return False
        met = [v for v in node.inputs if v is not None and v in self.varying and self._is_on_the_scale(v)]
        return len(met) > 1

    def _is_on_the_scale(self, value: ir.Value) -> bool:
        """Whether a tensor holds floats, or codes that stand for some."""
        known = self.inferred.get(str(value.name))
        dtype = known.dtype if known is not None else value.dtype
        return dtype is None or dtype in FLOAT_TYPES or quantisation(value) is not None

    def _drawable(self, node: ir.Node, value: ir.Value) -> bool:
        if self._is_on_the_scale(value) or node.op_type in ("ConvInteger", "MatMulInteger"):
            return True
        if _stands_for_input(node) and node.inputs[0] is not None:
            known = self.inferred.get(str(value.name))
            kind = str(known.dtype).lower() if known is not None and known.dtype is not None else "no numbers"
            entry = str(node.inputs[0].name)
            self.refused[entry] = NotDrawn(entry, f"an input of {kind} has no place on the scale")
        return False

    def _stage(
        self, node: ir.Node, value: ir.Value, depth: int, before: set[ir.Node], groups: dict[str, Scope]
    ) -> Stage:
        name = str(value.name)
        entry = _stands_for_input(node)
        layer = str(node.inputs[0].name) if entry and node.inputs[0] is not None else node.name or name
        return Stage(
            name, layer, "input" if entry else node.op_type, "input" if entry else kind_of(node), 0 if entry else depth,
            groups.get(name, ()), self._weighted(node), node not in before, value in self.varying,
        )  # fmt: skip


def _stands_for_input(node: ir.Node) -> bool:
    """Whether a node is the Identity that ``observable`` put behind a graph input."""
    value = node.inputs[0] if node.op_type == "Identity" and len(node.inputs) == 1 else None
    return value is not None and value.producer() is None and str(node.outputs[0].name).startswith(f"{value.name} (")


def _all_values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _varying(graph: ir.Graph) -> set[ir.Value]:
    """Return what depends on the values of the inputs."""
    found = {value for value in graph.inputs if not value.is_initializer()}
    for node in graph:
        if node.op_type not in ("Shape", "Size") and found.intersection(reads(node)):
            found.update(node.outputs)
    return found


def _depths(graph: ir.Graph, chosen: dict[ir.Node, ir.Value]) -> dict[ir.Node, int]:
    depth: dict[ir.Node, int] = {}
    for node in graph:
        above = [depth.get(p, 0) for v in reads(node) if (p := v.producer()) is not None]
        depth[node] = max(above, default=0) + (node in chosen and not _stands_for_input(node))
    return depth


def _before_weights(graph: ir.Graph, weighted: Callable[[ir.Node], bool]) -> set[ir.Node]:
    """Return the nodes from which a weighted layer is reached."""
    found: set[ir.Node] = set()
    for node in reversed(graph):
        if weighted(node) or node in found:
            found.update(p for v in reads(node) if (p := v.producer()) is not None)
    return found


def _scopes(model: ir.Model) -> dict[str, Scope]:
    graph = opened_calls(model).graph
    return {str(v.name): path for node, path in scopes(graph).items() for v in node.outputs if v.name}
