"""Carries open dimensions through a model: onnx's own inference makes up new names (``unk__7``) where it must compute.

One pass in the nodes' order, over what is unknown after onnx's inference. Operators that compute sizes have rules of
their own here; all others are asked of onnx's inference again, a node at a time, with what is known by now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

import onnx
import onnx_ir as ir

from onnxviz.graph.contents import CONTENT_RULES, MALFORMED, Dims, Known, attribute, is_made_up
from onnxviz.graph.extract import bodies_of
from onnxviz.graph.shape_rules import SHAPE_RULES
from onnxviz.graph.symbolic import Expression, Size, symbol

__all__ = ["SYMBOLS", "propagate"]

#: ``value.meta`` key of a graph input: axis -> the name given to an open dimension that has none.
SYMBOLS = "onnxviz.symbols"

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_MOST_ASKED = 5_000  # nodes that onnx is asked about one by one
_DEEPEST = 16  # bodies within bodies
_REFUSED = (
    onnx.shape_inference.InferenceError,
    onnx.checker.ValidationError,
    onnx.defs.SchemaError,
    RuntimeError,
    *MALFORMED,
)


def propagate(model: ir.Model, declared: Collection[ir.Value] = ()) -> None:
    """Fill in sizes that are still open; what is known already, or declared under a name, stays as it is.

    Args:
        model: The model, after onnx's own inference; it is changed.
        declared: Outputs whose shapes the file states: these are never rewritten.
    """
    free = _names_of(model.graph.outputs) - _names_of(model.graph.inputs)
    nodes = (node for graph in model.graphs() for node in graph)
    if not free and not any(_is_doubted(node) or any(map(_is_open, node.outputs)) for node in nodes):
        return
    opsets = model.graph.opset_imports
    known = Known(opsets.get("", opsets.get("ai.onnx", 1)))
    _name_open_input(model, known)
    _Pass(model, known, free, declared).walk(model.graph, 0)


def _is_doubted(node: ir.Node) -> bool:
    return bool(attribute(node, "ceil_mode", 0)) or node.op_type in ("Resize", "Upsample")


def _is_open(value: ir.Value) -> bool:
    return value.shape is None or any(is_made_up(dim) for dim in value.shape)


def _name_open_input(model: ir.Model, known: Known) -> None:
    """Name the nameless dimensions of an input, where only one input has such: ``N``, ``H``, ``W`` of an image.

    Those of several inputs may or may not be the same: they stay unknown.
    """
    feeds = [v for v in model.graph.inputs if not v.is_initializer() and v.shape is not None]
    unnamed = [value for value in feeds if _is_open(value)]
    if len(unnamed) != 1:
        return
    value, taken = unnamed[0], _declared_names(model)
    sizes = list(known.shape(value) or ())
    dims = list(enumerate(zip(value.shape or (), _letters(sizes), strict=True)))
    # A letter that the file uses for a size of its own would say that the two are the same.
    names = {axis: f"{name}_in" if name in taken else name for axis, (dim, name) in dims if is_made_up(dim)}
    if taken & set(names.values()):
        return
    for axis, name in names.items():
        sizes[axis] = symbol(name)
    known.shapes[value] = tuple(sizes)
    value.meta[SYMBOLS] = names


def _declared_names(model: ir.Model) -> set[str]:
    """Return the names that stand for sizes anywhere in the model."""
    values = [*model.graph.inputs, *model.graph.outputs]
    return _names_of([*values, *(value for node in model.graph.all_nodes() for value in node.outputs)])


def _names_of(values: Iterable[ir.Value]) -> set[str]:
    found = (dim for value in values if value.shape is not None for dim in value.shape)
    return {str(dim.value) for dim in found if not isinstance(dim, int) and dim.value is not None}


def _letters(sizes: list[Size]) -> list[str]:
    if len(sizes) == 4 and sizes[1] in (1, 3, 4):
        return list("NCHW")
    if len(sizes) == 4 and sizes[3] in (1, 3, 4):
        return list("NHWC")
    return ["N", *(f"d{axis}" for axis in range(1, len(sizes)))][: len(sizes)]


class _Pass:
    def __init__(self, model: ir.Model, known: Known, free: set[str], declared: Collection[ir.Value]) -> None:
        self.known = known
        self.free = free
        self.declared = set(declared)
        self.functions = set(model.functions)
        ml = model.graph.opset_imports.get("ai.onnx.ml", 1)
        self.opsets = {"": known.opset, "ai.onnx": known.opset, "ai.onnx.ml": ml}
        self.asked = 0
        self.corrected: set[ir.Value | None] = set()

    def walk(self, graph: ir.Graph, depth: int) -> None:
        for node in graph:
            for body in bodies_of(node) if depth < _DEEPEST else ():
                self.walk(body, depth + 1)
            if node.domain not in _DOMAINS or node.op_identifier() in self.functions:
                continue
            # onnx counts a last pooling window that starts in the padding, rounds size × scale down from below it, and
            # passes the wrong size on.
            doubted = _is_doubted(node) or any(value in self.corrected for value in node.inputs)
            if doubted or any(_is_open(value) or self.is_freely_named(value) for value in node.outputs):
                for value, dims in zip(node.outputs, self.shapes(node), strict=False):
                    if dims is not None:
                        self.put(value, dims, doubted=bool(doubted))
            self.follow(node)

    def is_freely_named(self, value: ir.Value) -> bool:
        """Whether an output's size has a name that says nothing of the inputs, as exporters make them up."""
        return (
            bool(self.free)
            and value.is_graph_output()
            and value.shape is not None
            and any(not isinstance(dim, int) and dim.value in self.free for dim in value.shape)
        )

    def put(self, value: ir.Value, dims: Dims, *, doubted: bool) -> None:
        before = self.known.shape(value)
        self.set(value, dims, doubted=doubted)
        if doubted and before is not None and self.known.shape(value) != before:
            self.corrected.add(value)

    def follow(self, node: ir.Node) -> None:
        """Note what the first output holds, if that is a few whole numbers."""
        rule = CONTENT_RULES.get(node.op_type)
        if rule is None or not node.outputs:
            return
        dims = self.known.shape(node.outputs[0])
        if dims is not None and (len(dims) > 1 or (dims and isinstance(dims[0], int) and dims[0] > 64)):
            return
        try:
            content = rule(node, self.known)
        except MALFORMED:
            return
        if content is not None:
            self.known.contents[node.outputs[0]] = content

    def shapes(self, node: ir.Node) -> list[Dims | None]:
        if node.op_type == "If":
            return _agreed(node, self.known)
        if (rule := SHAPE_RULES.get(node.op_type)) is not None:
            try:
                return rule(node, self.known)
            except MALFORMED:
                return []
        if self.asked >= _MOST_ASKED or node.domain == "com.microsoft" or next(bodies_of(node), None) is not None:
            return []
        self.asked += 1
        return self.ask(node)

    def ask(self, node: ir.Node) -> list[Dims | None]:
        """Ask onnx's inference about one node."""
        names: dict[str, Expression] = {}
        types: dict[str, onnx.TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opsets[node.domain], node.domain)
            for value in node.inputs:
                if value is None:
                    continue
                dims, name = self.known.shape(value), str(value.name)
                if value.dtype is None or dims is None:
                    return []
                names |= {str(size): size for size in dims if isinstance(size, Expression)}
                shape = [str(size) if isinstance(size, Expression) else size for size in dims]
                types[name] = onnx.helper.make_tensor_type_proto(int(value.dtype), shape)
                content = self.known.content(value)
                if content is not None and value.dtype in (ir.DataType.INT64, ir.DataType.INT32):
                    numbers = [x for x in content.elements if isinstance(x, int)]
                    if len(numbers) == len(content.elements):
                        extent = [] if content.scalar else [len(numbers)]
                        data[name] = onnx.helper.make_tensor(name, int(value.dtype), extent, numbers)
            opset = [onnx.helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
            proto = ir.serde.serialize_node(node)
            found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=opset)
        except _REFUSED:
            return []
        return [_read(found.get(value.name or ""), names) for value in node.outputs]

    def set(self, value: ir.Value, dims: Dims, *, doubted: bool = False) -> None:
        """Merge what a rule found into what is known of a tensor; sizes that are ``doubted`` give way to it."""
        before = value.shape
        if before is not None and len(before) != len(dims):
            return
        old = self.known.shape(value) or (None,) * len(dims)
        new = tuple(
            b if isinstance(b, int) or a is None or (b is not None and str(a) in self.free) else a
            for a, b in zip(old, dims, strict=True)
        )
        self.known.shapes[value] = new
        if value in self.declared:
            # The declared interface of a model is not rewritten; a reader is told what a name of its own stands for.
            pairs = enumerate(zip(old, new, strict=True))
            told = {i: b if isinstance(b, int) else str(b) for i, (a, b) in pairs if str(a) in self.free and a != b}
            if told:
                value.meta[SYMBOLS] = told
            return
        kept: list[int | ir.SymbolicDim | None] = [None] * len(dims) if before is None else list(before)
        if doubted:
            kept = [size if isinstance(size, int) else dim for dim, size in zip(kept, new, strict=True)]
        value.shape = ir.Shape(
            dim if isinstance(dim, int) and dim >= 0 else _written(size, dim)
            for dim, size in zip(kept, new, strict=True)
        )


def _written(size: Size, before: int | ir.SymbolicDim | None) -> int | ir.SymbolicDim | None:
    if isinstance(size, int):
        return size if size >= 0 else before
    if size is None or (isinstance(before, ir.SymbolicDim) and not is_made_up(before)):
        return before
    return _open_dim(size)


@lru_cache(maxsize=4096)
def _open_dim(size: Expression) -> ir.SymbolicDim:
    return ir.SymbolicDim(str(size))


def _agreed(node: ir.Node, known: Known) -> list[Dims | None]:
    """Return what both branches of an If give alike."""
    made: list[Dims | None] = []
    for outputs in zip(*(body.outputs for body in bodies_of(node)), strict=False):
        shapes = [known.shape(value) for value in outputs]
        found = [shape for shape in shapes if shape is not None]
        if len(found) < 2 or len(found[0]) != len(found[1]):
            made.append(None)
        else:
            made.append(tuple(a if a == b else None for a, b in zip(*found, strict=True)))
    return made


def _read(kind: onnx.TypeProto | None, names: dict[str, Expression]) -> Dims | None:
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else names.get(dim.dim_param) for dim in dims)
