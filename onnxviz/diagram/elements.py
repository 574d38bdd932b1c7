"""From a model to what is drawn: the blocks, the terminals and the wires between them. No sizes, no positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import outer_values
from onnxviz.graph.kinds import kind_of
from onnxviz.graph.scopes import Scope
from onnxviz.graph.shapes import model_inputs

__all__ = ["Element", "Elements", "Members", "Use", "Wire", "collect_body", "collect_elements", "is_hidden"]


@dataclass(frozen=True, eq=False)
class Members:
    """What is folded into one block.

    Attributes:
        scope: Path of the group, the outermost first.
        nodes: Its nodes, in the model's order.
        parameters: Learned elements that they hold; shared ones count once.
    """

    scope: Scope
    nodes: tuple[ir.Node, ...]
    parameters: int


@dataclass(frozen=True, eq=False)
class Element:
    """One box of the drawing.

    Attributes:
        role: ``node``, ``group`` (many nodes), ``input``, ``output``, ``constant`` (a constant that is a graph output)
            or ``missing`` (a name that nothing produces).
        kind: The kind of operator of a node; empty for terminals.
        node: The node of a block.
        value: The tensor of a terminal.
        members: What is folded into a group's block.
    """

    role: str
    kind: str = ""
    node: ir.Node | None = None
    value: ir.Value | None = None
    members: Members | None = None


@dataclass(frozen=True, eq=False)
class Wire:
    """A tensor on its way from one element to another.

    Attributes:
        source: Index of the element that produces the tensor.
        target: Index of the element that uses it.
        port: Which output of the source it is.
        value: The tensor.
        outer: Whether only a body of the target (If, Loop, Scan) uses it.
    """

    source: int
    target: int
    port: int
    value: ir.Value
    outer: bool = False


@dataclass(frozen=True)
class Elements:
    """All boxes, in the model's order, and all wires."""

    elements: list[Element] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Use:
    """A tensor of the outside that an element reads.

    Attributes:
        value: The tensor.
        target: Index of the element.
        outer: Whether only a body of the element reads it.
    """

    value: ir.Value
    target: int
    outer: bool = False


def is_hidden(node: ir.Node) -> bool:
    """Whether a node only names a constant: then it appears in its consumers and is no block."""
    if node.op_type not in ("Constant", "Identity") or len(node.outputs) != 1:
        return False
    return constant_tensor(node.outputs[0]) is not None and not node.outputs[0].is_graph_output()


def collect_elements(model: ir.Model) -> Elements:
    """Return the blocks of a model's main graph, its inputs and outputs, and how they are wired."""
    return _Collector(model).collect(model.graph, model_inputs(model)).result


def collect_body(model: ir.Model, body: ir.Graph) -> tuple[Elements, list[Use]]:
    """Return the blocks of a body (of If, Loop or Scan), and what they read of the graphs around it."""
    found = _Collector(model, body).collect(body, list(body.inputs))
    return found.result, found.uses


class _Collector:
    def __init__(self, model: ir.Model, body: ir.Graph | None = None) -> None:
        self.result = Elements()
        self.uses: list[Use] = []
        self._body = body
        self.nodes: list[tuple[ir.Node, int]] = []
        self._made: dict[ir.Value, tuple[int, int]] = {}  # tensor -> its element and port
        self._wired: set[tuple[ir.Value, int]] = set()
        self._functions = set(model.functions)

    def collect(self, graph: ir.Graph, inputs: list[ir.Value]) -> _Collector:
        for value in inputs:
            self.add_source(value, Element("input", value=value))
        for node in graph:
            if not is_hidden(node):
                self.add_node(node)
        for node, index in self.nodes:
            for value, outer in _uses(node):
                self.wire(value, index, outer)
        for value in graph.outputs:
            self.result.elements.append(Element("output", value=value))
            self.wire(value, len(self.result.elements) - 1, outer=False, constants=True)
        return self

    def add_source(self, value: ir.Value, element: Element) -> None:
        self._made[value] = (len(self.result.elements), 0)
        self.result.elements.append(element)

    def add_node(self, node: ir.Node) -> None:
        index = len(self.result.elements)
        kind = "function" if node.op_identifier() in self._functions else kind_of(node)
        self.result.elements.append(Element("node", kind, node))
        self.nodes.append((node, index))
        for port, value in enumerate(node.outputs):
            self._made[value] = (index, port)

    def wire(self, value: ir.Value, target: int, outer: bool, constants: bool = False) -> None:
        """Lead a tensor to an element; a tensor that nothing makes gets a terminal that says so."""
        if (value, target) in self._wired:
            return
        self._wired.add((value, target))
        if value not in self._made:
            constant = constant_tensor(value) is not None
            if constant and not constants:
                return
            if not constant and self._body is not None and _home(value) not in (None, self._body):
                self.uses.append(Use(value, target, outer))
                return
            self.add_source(value, Element("constant" if constant else "missing", value=value))
        source, port = self._made[value]
        self.result.wires.append(Wire(source, target, port, value, outer))


def _uses(node: ir.Node) -> Iterator[tuple[ir.Value, bool]]:
    """Yield the tensors that a node reads, and those of the outer graph that its bodies read."""
    for value in node.inputs:
        if value is not None:
            yield value, False
    for value in outer_values(node):
        yield value, True


def _home(value: ir.Value) -> ir.Graph | ir.Function | None:
    producer = value.producer()
    return producer.graph if producer is not None else value.graph
