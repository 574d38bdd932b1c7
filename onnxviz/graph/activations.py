"""The activation functions of a graph: single operators, and the small patterns that exporters write for others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.select import FLOAT_TYPES

__all__ = ["POINTWISE", "ActivationSite", "activation_sites"]

#: Operators that map each value by itself, whatever lies around it.
POINTWISE = frozenset(
    {
        "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Sigmoid",
        "HardSigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Mish", "Swish", "ThresholdedRelu", "Clip",
        "Shrink", "ScaledTanh", "ParametricSoftplus", "QLinearSigmoid", "QLinearLeakyRelu", "Erf",
    }
)  # fmt: skip
_ELEMENTWISE = POINTWISE | {"Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Neg", "Min", "Max", "Identity", "Cast"}
_DEEP = 6  # nodes from a function's input to the operator that gives it its shape
_MOST_READERS = 16  # of the tensor that a pattern starts from
_SCALED = {"Erf": 0.5, "Tanh": 0.5, "Clip": 1 / 6}  # patterns that may end in a product with this number


@dataclass(frozen=True, eq=False)
class ActivationSite:
    """One activation function in a graph.

    Attributes:
        source: What enters it.
        output: What leaves it.
        nodes: Its nodes, in the graph's order; several where an exporter wrote it as a pattern.
        op_type: Of the operator that gives the function its shape, such as ``"Sigmoid"`` in ``x · sigmoid(x)``.
    """

    source: ir.Value
    output: ir.Value
    nodes: tuple[ir.Node, ...]
    op_type: str


def activation_sites(model: ir.Model) -> list[ActivationSite]:
    """Find the activation functions of the main graph that map each value by itself.

    A pattern is a product in which both factors depend on the same tensor alone, one of them through an activation
    operator: ``x · sigmoid(x)`` (SiLU), ``x · clip(x + 3, 0, 6) / 6`` (hard swish), ``x · (1 + erf(x / √2)) / 2``
    (GELU). Softmax and its like mix a whole axis and are none.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] z) {y = Neg(x) s = Sigmoid(y) z = Mul(y, s)}''')
    >>> [(site.source.name, site.output.name, site.op_type) for site in activation_sites(model)]
    [('y', 'z', 'Sigmoid')]
    """
    order = {node: position for position, node in enumerate(model.graph)}
    readers = Counter(value for node in order for value in set(node.inputs) if value is not None)
    sites: list[ActivationSite] = []
    used: set[ir.Node] = set()
    for node in order:
        if (node.op_type not in POINTWISE and not _is_maximum(node)) or node in used:
            continue
        site = _pattern(node, order, readers)
        if site is None or used.intersection(site.nodes):  # what another function has is not taken from it
            site = _single(node) if node.op_type != "Erf" else None
        if site is not None and not used.intersection(site.nodes):
            used.update(site.nodes)
            sites.append(site)
    return sites


def _is_maximum(node: ir.Node) -> bool:
    """Whether a node is ReLU written as the larger of a tensor and 0."""
    if node.op_type != "Max" or len(node.inputs) != 2 or any(value is None for value in node.inputs):
        return False
    numbers = [tensor for value in node.inputs if (tensor := constant_tensor(value)) is not None]
    if len(numbers) != 1 or math.prod(numbers[0].shape.numpy()) != 1 or numbers[0].dtype not in FLOAT_TYPES:
        return False
    return not numbers[0].numpy().reshape(-1)[0]


def _single(node: ir.Node) -> ActivationSite | None:
    """Return an operator by itself, where everything but its first input is constant."""
    if _is_maximum(node):
        source = next(value for value in node.inputs if value is not None and constant_tensor(value) is None)
        return ActivationSite(source, node.outputs[0], (node,), node.op_type)
    if not node.inputs or node.inputs[0] is None or constant_tensor(node.inputs[0]) is not None:
        return None
    if any(value is not None and constant_tensor(value) is None for value in node.inputs[1:]):
        return None
    return ActivationSite(node.inputs[0], node.outputs[0], (node,), node.op_type)


def _pattern(seed: ir.Node, order: dict[ir.Node, int], readers: Counter[ir.Value]) -> ActivationSite | None:
    """Return the pattern that an operator is part of: the one whose input is nearest."""
    if not seed.inputs or seed.inputs[0] is None or len(seed.outputs) != 1:
        return None
    for source in _ancestors(seed, readers):
        known = {source}
        inside: list[ir.Node] = []
        behind: set[ir.Value] = set()  # what depends on the source through the seed
        for node in _reached(source, order):
            if not _fits(node, known):
                continue
            known.add(node.outputs[0])
            inside.append(node)
            if node is seed or behind.intersection(node.inputs):
                behind.add(node.outputs[0])
            if node.op_type == "Mul" and behind.intersection(node.inputs) and _joins(node, known, behind):
                return _site(source, node, seed, inside, order)
    return None


def _ancestors(seed: ir.Node, readers: Counter[ir.Value]) -> Iterator[ir.Value]:
    """Yield the tensors that a seed may be a function of, the nearest first, where several nodes read them."""
    value = seed.inputs[0]
    for _ in range(_DEEP):
        if value is None:
            return
        if 1 < readers[value] <= _MOST_READERS:
            yield value
        node = value.producer()
        if node is None or node.op_type not in _ELEMENTWISE:
            return
        varying = [v for v in node.inputs if v is not None and not _is_scalar(v)]
        value = varying[0] if varying else None


def _reached(source: ir.Value, order: dict[ir.Node, int]) -> list[ir.Node]:
    """Return the elementwise nodes that follow a tensor within a few steps, in the graph's order."""
    found: set[ir.Node] = set()
    front = [source]
    for _ in range(_DEEP + 3):
        nodes = {n for v in front for n in v.consumers() if n in order and n.op_type in _ELEMENTWISE} - found
        if len(found) + len(nodes) > 64:
            break
        found |= nodes
        front = [output for node in nodes for output in node.outputs]
    return sorted(found, key=order.__getitem__)


def _fits(node: ir.Node, known: set[ir.Value]) -> bool:
    inputs = [value for value in node.inputs if value is not None]
    return bool(known.intersection(inputs)) and all(value in known or _is_scalar(value) for value in inputs)


def _joins(node: ir.Node, known: set[ir.Value], behind: set[ir.Value]) -> bool:
    first, second = node.inputs[:2]
    return first in known and second in known and (first in behind) != (second in behind)


def _is_scalar(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and math.prod(tensor.shape.numpy()) == 1


def _ends_it(seed: ir.Node, product: ir.Node, after: ir.Node) -> bool:
    """Whether a product with a number belongs to a function: the half of GELU, the sixth of hard swish.

    Any other number is a scale of its own, as that of a layer.
    """
    others = [value for value in after.inputs if value is not None and value is not product.outputs[0]]
    if after.op_type not in ("Mul", "Div") or len(others) != 1 or not _is_scalar(others[0]):
        return False
    if seed.op_type != "Clip" and seed.outputs[0] in product.inputs:  # x · tanh(x), without the 1 +
        return False
    tensor = constant_tensor(others[0])
    assert tensor is not None
    number = float(tensor.numpy().reshape(-1)[0])
    if after.op_type == "Div":
        number = 1 / number if number and others[0] is after.inputs[1] else math.nan
    return abs(number - _SCALED[seed.op_type]) < 1e-3


def _site(
    source: ir.Value, last: ir.Node, seed: ir.Node, inside: list[ir.Node], order: dict[ir.Node, int]
) -> ActivationSite | None:
    """Return the nodes between a source and a product, and a number that the product is multiplied by."""
    readers = list(last.outputs[0].consumers())
    if seed.op_type in _SCALED and len(readers) == 1 and readers[0] in order and _ends_it(seed, last, readers[0]):
        inside, last = [*inside, readers[0]], readers[0]
    needed: set[ir.Node] = set()
    pending = [last]
    members = set(inside)
    while pending:
        node = pending.pop()
        if node in members and node not in needed:
            needed.add(node)
            pending.extend(p for v in node.inputs if v is not None and v is not source and (p := v.producer()))
    if seed not in needed:
        return None
    return ActivationSite(source, last.outputs[0], tuple(sorted(needed, key=order.__getitem__)), seed.op_type)
