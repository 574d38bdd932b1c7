"""A graph as a sequence whose order and labels follow from its structure alone: no names, no weights' values.

The order is a depth-first one from the outputs back, so that branches stay together; what tensors of a long reach (a
mask that every layer reads) are computed from comes before all else, so that no layer has it in its midst.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Hashable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import bodies_of, outer_values

__all__ = ["IntArray", "Line", "canonical_line"]

IntArray = npt.NDArray[np.int64]

COMMUTATIVE = frozenset({"Add", "Mul", "Sum", "Max", "Min", "Mean", "And", "Or", "Xor", "Equal"})
#: Attributes that say how large, not what.
_SIZES = frozenset(
    {"auto_pad", "axis_sizes", "dilations", "group", "hidden_size", "kernel_shape", "num_heads", "output_padding"}
    | {"output_shape", "pads", "sizes", "split", "strides"}
)
_LONG = 256  # elements of an attribute beyond which it counts as weights
_MANY = 8  # inputs from which on looking one up in a list takes long
_FAR = 8  # a tensor read over an eighth of the model's depth has a long reach


@dataclass(frozen=True, eq=False)
class Line:
    """The nodes that compute something from the graph's inputs, one after the other.

    Attributes:
        nodes: In canonical order.
        exact: For each node a number that two nodes share if operator, attributes, constants' types and shapes, and the
            kinds of inputs and outputs are the same. Numbers are handed out by comparison, so no two collide.
        loose: The same without sizes: constants' shapes, kernels, strides, groups.
        first: Where the sources of each node begin in ``source``, and the end; one more than there are nodes.
        source: For each input that is not constant, the position of the node that makes it; negative for what comes
            from elsewhere, a number each tensor. Inputs of commutative operators come in the order of their sources.
        port: Which output of the source it is.
    """

    nodes: list[ir.Node]
    exact: IntArray
    loose: IntArray
    first: IntArray
    source: IntArray
    port: IntArray


def canonical_line(graph: ir.Graph, chosen: Iterable[ir.Node]) -> Line:
    """Return some nodes of a graph as a sequence; those that depend on constants alone are left out.

    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] z) {y = Neg(x) z = Relu(y)}'
    >>> graph = ir.from_onnx_text(text).graph
    >>> canonical_line(graph, graph).source.tolist()
    [-1, 0]
    """
    reads = _Reads.of(graph, set(chosen))
    order = _order(graph, reads)
    exact, loose = _labels(reads, order)
    return Line([reads.nodes[at] for at in order], exact, loose, *_wiring(reads, order))


@dataclass(frozen=True, eq=False)
class _Reads:
    """What nodes read that is not constant. Lists are flat: objects by the ten thousand cost more than what they hold.

    Attributes:
        nodes: Those that read anything of the kind, in the graph's order.
        index: Their places in it.
        first: Where what each node reads begins, and the end.
        values: What they read.
        makers: The place of the node that makes each of those; -1 for all others.
    """

    nodes: list[ir.Node]
    index: dict[ir.Node, int]
    first: list[int]
    values: list[ir.Value]
    makers: list[int]

    @classmethod
    def of(cls, graph: ir.Graph, wanted: Container[ir.Node]) -> _Reads:
        """Collect what some nodes of a graph read."""
        nodes: list[ir.Node] = []
        first = [0]
        values: list[ir.Value] = []
        fixed: set[ir.Value] = set()
        for node in graph:
            known = len(values)
            values += [v for v in node.inputs if v is not None and v.const_value is None and v not in fixed]
            if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
                outer = dict.fromkeys(outer_values(node))
                values += [v for v in outer if v.const_value is None and v not in fixed]
            if len(values) == known:
                fixed.update(node.outputs)
            elif node in wanted:
                nodes.append(node)
                first.append(len(values))
            else:
                del values[known:]
        index = {node: at for at, node in enumerate(nodes)}
        makers = [-1 if (made := value.producer()) is None else index.get(made, -1) for value in values]
        return cls(nodes, index, first, values, makers)


def _order(graph: ir.Graph, reads: _Reads) -> list[int]:
    count, first, makers = len(reads.nodes), reads.first, reads.makers
    level = [0] * count
    nearest = [count] * count  # the level of the first and of the last reader
    farthest = [0] * count
    for at in range(count):
        for source in makers[first[at] : first[at + 1]]:
            if source >= 0:
                level[at] = max(level[at], level[source] + 1)
    for at in range(count):
        for source in makers[first[at] : first[at + 1]]:
            if source >= 0:
                nearest[source] = min(nearest[source], level[at])
                farthest[source] = max(farthest[source], level[at])
    ways = list(makers)
    for at, node in enumerate(reads.nodes):
        here = slice(first[at], first[at + 1])
        if first[at + 1] - first[at] > 1 and node.op_type in COMMUTATIVE:
            ways[here] = sorted(ways[here], key=lambda source: -level[source] if source >= 0 else 1)
    least = max(8, max(level, default=0) // _FAR)
    far = [at for at in range(count) if farthest[at] - nearest[at] >= least]
    far.sort(key=lambda at: (nearest[at] - farthest[at], nearest[at]))
    makers_of_outputs = [value.producer() for value in graph.outputs]
    outputs = [reads.index[made] for made in makers_of_outputs if made is not None and made in reads.index]
    return _postorder(first, ways, [*far, *outputs, *range(count)])


def _postorder(first: list[int], ways: list[int], roots: Iterable[int]) -> list[int]:
    seen = [False] * (len(first) - 1)
    upcoming = list(first)
    order: list[int] = []
    for root in roots:
        if seen[root]:
            continue
        seen[root] = True
        trail = [root]
        while trail:
            at = trail[-1]
            step = upcoming[at]
            if step == first[at + 1]:
                trail.pop()
                order.append(at)
                continue
            upcoming[at] = step + 1
            source = ways[step]
            if source >= 0 and not seen[source]:
                seen[source] = True
                trail.append(source)
    return order


def _wiring(reads: _Reads, order: list[int]) -> tuple[IntArray, IntArray, IntArray]:
    place = [0] * len(order)
    for position, at in enumerate(order):
        place[at] = position
    first, source, port = [0], list[int](), list[int]()
    outside: dict[ir.Value, int] = {}
    for at in order:
        start = len(source)
        for slot in range(reads.first[at], reads.first[at + 1]):
            maker, value = reads.makers[slot], reads.values[slot]
            source.append(place[maker] if maker >= 0 else -1 - outside.setdefault(value, len(outside)))
            port.append(0 if maker < 0 else value.index() or 0)
        if len(source) - start > 1 and reads.nodes[at].op_type in COMMUTATIVE:
            slots = sorted(zip(source[start:], port[start:], strict=True), reverse=True)
            source[start:], port[start:] = ([slot[part] for slot in slots] for part in (0, 1))
        first.append(len(source))
    return np.array(first), np.array(source, np.int64), np.array(port, np.int64)


def _labels(reads: _Reads, order: list[int]) -> tuple[IntArray, IntArray]:
    exact: dict[Hashable, int] = {}
    loose: dict[Hashable, int] = {}
    found: list[int] = []
    rough_found: list[int] = []
    for at in order:
        moving = reads.values[reads.first[at] : reads.first[at + 1]]
        whole, rough = _keys(reads.nodes[at], moving if len(moving) < _MANY else set(moving))
        found.append(exact.setdefault(whole, len(exact)))
        rough_found.append(loose.setdefault(rough, len(loose)))
    return np.array(found, np.int64), np.array(rough_found, np.int64)


def _keys(node: ir.Node, moving: Collection[ir.Value]) -> tuple[Hashable, Hashable]:
    kinds: list[Hashable] = []
    sizes: list[Hashable] = []
    for value in node.inputs:
        if value is None:
            kinds.append(None)
        elif value in moving:
            kinds.append(True)
        else:
            tensor = _constant(value)
            kinds.append(False if tensor is None else tensor.dtype)
            sizes.append(None if tensor is None else tuple(tensor.shape))
    if len(kinds) > 1 and node.op_type in COMMUTATIVE:
        kinds.sort(key=str)
        sizes.sort(key=str)
    attributes: list[Hashable] = []
    measures: list[Hashable] = []
    if node.attributes:
        for name, attribute in node.attributes.items():
            (measures if name in _SIZES else attributes).append((name, attribute_key(attribute)))
        attributes.sort(key=_name_of)
        measures.sort(key=_name_of)
    rough = (
        node.op_type, node.domain, node.overload, len(node.outputs), len(moving), tuple(kinds), tuple(attributes),
    )  # fmt: skip
    return (rough, tuple(sizes), tuple(measures)), rough


def _constant(value: ir.Value) -> ir.TensorProtocol | None:
    if value.const_value is not None:
        return value.const_value
    made = value.producer()
    if made is not None and made.op_type == "Constant" and (attribute := made.attributes.get("value")) is not None:
        # As constant_tensor does, without its check of types, which takes longer than all else here.
        tensor: ir.TensorProtocol | None = None if attribute.is_ref() else attribute.value
        return tensor
    return constant_tensor(value)


def _name_of(entry: Hashable) -> str:
    return entry[0] if isinstance(entry, tuple) else ""


def attribute_key(attribute: ir.Attr) -> Hashable:
    """Return what two equal attributes share: values as they are, tensors by type and shape, graphs by structure."""
    if attribute.is_ref():
        return ("ref", attribute.ref_attr_name)
    value = attribute.value
    kind = attribute.type
    if kind == ir.AttributeType.GRAPH:
        return _graph_key(attribute.as_graph())
    if kind == ir.AttributeType.GRAPHS:
        return tuple(_graph_key(graph) for graph in attribute.as_graphs())
    if kind == ir.AttributeType.TENSOR:
        return (kind, value.dtype, tuple(value.shape))
    if isinstance(value, (list, tuple)):
        return (kind, len(value), repr(value) if len(value) <= _LONG else "")
    return (kind, repr(value))


def _graph_key(graph: ir.Graph) -> Hashable:
    """Return the structure of a body: each node's operator and attributes, and where its inputs come from."""
    numbers: dict[ir.Value, int] = {value: at for at, value in enumerate(graph.inputs)}
    outside: dict[ir.Value, int] = {}

    def role(value: ir.Value | None) -> Hashable:
        if value is None:
            return None
        if (tensor := constant_tensor(value)) is not None:
            return (tensor.dtype, tuple(tensor.shape))
        return numbers[value] if value in numbers else ("outside", outside.setdefault(value, len(outside)))

    lines: list[Hashable] = []
    for node in graph:
        attributes = tuple(sorted(((name, attribute_key(a)) for name, a in node.attributes.items()), key=_name_of))
        deep = [role(value) for value in dict.fromkeys(outer_values(node))] if any(bodies_of(node)) else []
        lines.append((node.op_type, node.domain, attributes, tuple(map(role, node.inputs)), tuple(deep)))
        for value in node.outputs:
            numbers[value] = len(numbers)
    return (tuple(lines), tuple(map(role, graph.outputs)))
