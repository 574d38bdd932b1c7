"""Finding attention in a graph: which tensor holds the weights, and what its queries and keys stand for.

Attention is softmax(Q Kᵀ / √d) V (Vaswani et al. 2017, equation 1). In a graph it is a Softmax between two products of
activations, with scales, masks and reshapes between, or one operator that does it all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from onnxviz.errors import SelectionError, listed
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.fused_attention import FUSED, FusedSite, expand_fused, node_label
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import copy_model
from onnxviz.graph.scopes import scope_name, scopes

__all__ = ["AttentionGraph", "AttentionNode", "Join", "TokenStream", "find_attention"]

_PRODUCTS = {"MatMul": (0, 1), "Einsum": (0, 1), "FusedMatMul": (0, 1), "MatMulInteger": (0, 1), "Gemm": (0, 1),
             "QLinearMatMul": (0, 3)}  # fmt: skip
_BEFORE = {"Add", "Sub", "Mul", "Div", "Where", "Cast", "CastLike", "Reshape", "Identity", "Transpose", "Squeeze",
           "Unsqueeze", "Clip", "Max", "Min", "QuantizeLinear", "DequantizeLinear", "Tanh", "Dropout", "Expand",
           "Slice", "Flatten"}  # fmt: skip
_AFTER = {"Dropout", "Cast", "CastLike", "Identity", "Reshape", "Transpose", "Where", "Mul", "QuantizeLinear",
          "DequantizeLinear", "Squeeze", "Unsqueeze", "Expand", "Pad", "Slice", "DynamicQuantizeLinear",
          "Flatten"}  # fmt: skip
_FIRST_ONLY = {"Reshape", "Expand", "Tile", "Slice", "Squeeze", "Unsqueeze", "Pad", "Resize", "Upsample", "Split",
               "Clip", "QuantizeLinear", "DequantizeLinear", "Dropout", "CastLike", "Trilu", "ReduceMean",
               "ReduceSum", "TopK"}  # fmt: skip
_MAKES_NO_TOKENS = {"Shape", "Size", "ConstantOfShape", "Range", "RandomNormal", "RandomUniform", "OneHot", "EyeLike"}
_PLANES = {"Conv", "QLinearConv", "ConvInteger", "FusedConv", "MaxPool", "AveragePool"}
_VIEWS = {"Reshape", "Transpose", "Identity", "Cast", "Flatten", "Squeeze", "Unsqueeze", "QuantizeLinear",
          "DequantizeLinear", "DynamicQuantizeLinear"}  # fmt: skip
_FAR = 16  # steps between a product and the Softmax; masks of several terms take about 8


@dataclass(frozen=True)
class Join:
    """A Concat on the way of a token stream.

    Attributes:
        tensor: What it gives.
        axis: Along which.
        parts: Tensor and stream of each input.
        fixed: Shape of each input that is a constant, which no capture records; else None.
    """

    tensor: str
    axis: int
    parts: tuple[tuple[str, TokenStream], ...]
    fixed: tuple[tuple[int, ...] | None, ...] = ()


@dataclass(frozen=True)
class TokenStream:
    """Where a sequence of tokens comes from, followed backwards along the residual stream.

    Attributes:
        joins: Concats, the nearest first.
        planes: Outputs of convolutions and poolings, the nearest first: one of them has a cell a picture token.
        inputs: Graph inputs that the tokens come from, the nearest first; empty for learned tokens.
        tokens: Those of the inputs that are integers: token ids.
    """

    joins: tuple[Join, ...] = ()
    planes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["learned", "text", "image", "signal"]:
        """What the tokens are: by the inputs and by whether a convolution lies on the way."""
        if self.tokens:
            return "text"
        if not self.inputs:
            return "learned"
        return "image" if self.planes else "signal"

    def tensors(self) -> Iterator[str]:
        """Yield every tensor whose shape tells how the tokens are laid out."""
        yield from self.planes
        for join in self.joins:
            for name, stream in join.parts:
                yield name
                yield from stream.tensors()


@dataclass(frozen=True)
class AttentionNode:
    """One attention of a graph.

    Attributes:
        name: Of the layer: the scope of the node, or the node's own name.
        tensor: The tensor that holds the weights, ``(N, heads, Q, K)``, or ``(N * heads, Q, K)`` as some exporters
            write it; each row of K sums to 1.
        node: Label of the node that makes it.
        op_type: ``"Softmax"``, ``"Attention"``, or the fused operator that it was read out of.
        kind: ``"self"`` where keys and queries come from the same tokens, else ``"cross"``.
        queries: Where the queries come from.
        keys: Where the keys come from.
    """

    name: str
    tensor: str
    node: str
    op_type: str
    kind: Literal["self", "cross"]
    queries: TokenStream
    keys: TokenStream


@dataclass(frozen=True)
class AttentionGraph:
    """The attention of a model.

    Attributes:
        model: The model to run: functions inlined, and every fused operator made to give its weights.
        layers: In the graph's order.
        refused: A line for each fused operator whose weights cannot be had.
    """

    model: ir.Model
    layers: tuple[AttentionNode, ...]
    refused: tuple[str, ...]

    def tensors(self, layers: Iterable[AttentionNode] | None = None) -> list[str]:
        """Return the tensors to capture: weights, and those whose shapes lay out the tokens; each once."""
        names: dict[str, None] = {}
        for layer in self.layers if layers is None else layers:
            names[layer.tensor] = None
            names.update(dict.fromkeys((*layer.queries.tensors(), *layer.keys.tensors())))
        made = {str(v.name) for node in self.model.graph for v in node.outputs}
        return [name for name in names if name in made]


@dataclass(frozen=True)
class _Site:
    weights: ir.Value
    node: ir.Node
    query: ir.Value
    key: ir.Value
    ends: tuple[ir.Node, ...]


def find_attention(model: ir.Model) -> AttentionGraph:
    """Find every attention of the main graph.

    A Softmax over the last axis is attention where a product of two activations leads to it (through scales, masks,
    casts, reshapes) and its output is multiplied with an activation. The ONNX operator ``Attention`` (opset 23) is made
    to give its weights as its fourth output (``qk_matmul_output_mode = 3``), and com.microsoft ``Attention`` and
    ``MultiHeadAttention`` without masks get nodes beside them that compute the weights; others are refused by name.

    Args:
        model: The model; it is not changed.

    Raises:
        SelectionError: There is none, or only such as keep their weights to themselves.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2, 5, 4] q, float[1, 2, 7, 4] m) => (float[1, 2, 5, 4] y) {
    ...     k = Transpose<perm = [0, 1, 3, 2]>(m) s = MatMul(q, k) w = Softmax<axis = -1>(s) y = MatMul(w, m)
    ...   }''')
    >>> [(layer.tensor, layer.kind) for layer in find_attention(model).layers]
    [('w', 'cross')]
    """
    flat = inline_functions(model)
    fused: list[FusedSite] = []
    refused: list[str] = []
    if any(node.op_type in FUSED for node in flat.graph):
        flat = copy_model(flat) if flat is model else flat
        fused, refused = expand_fused(flat)
    sites = [_Site(f.weights, f.node, f.query, f.key, (f.node,)) for f in fused]
    order = {node: place for place, node in enumerate(flat.graph)}
    own = {f.maker for f in fused}
    sites += [site for node in flat.graph if node not in own and (site := _site(node)) is not None]
    if not sites:
        raise _nothing(flat, refused)
    sites.sort(key=lambda site: order[site.node])
    ends = {node for site in sites for node in site.ends}
    names = scopes(flat.graph)
    titles = _titles([(site.node, scope_name(names.get(site.node, ()))) for site in sites])
    layers = tuple(_layer(site, title, ends) for site, title in zip(sites, titles, strict=True))
    return AttentionGraph(flat, layers, tuple(refused))


def _nothing(model: ir.Model, refused: Sequence[str]) -> SelectionError:
    if refused:
        return SelectionError(
            refused[0] + (f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""),
            hint="give the model as it was before attention was fused (export it without optimisation)",
        )
    inside = sorted({
        node_label(node) for node in model.graph for a in node.attributes.values()
        if a.type == ir.AttributeType.GRAPH and not a.is_ref()
        and any(inner.op_type == "Softmax" or inner.op_type in FUSED for inner in a.as_graph().all_nodes())
    })  # fmt: skip
    if inside:
        return SelectionError(
            f"no attention in the main graph; the bodies of {listed(inside, 2)} hold Softmax or attention",
            hint="give the model of one step (encoder or decoder) as a file of its own",
        )
    found = sum(node.op_type == "Softmax" for node in model.graph)
    what = f"it has {found} Softmax, none between two products of activations" if found else "it has no Softmax"
    return SelectionError(f"no attention in the model: {what}", hint="onnxviz features shows convolutional layers")


def _titles(found: Sequence[tuple[ir.Node, str]]) -> list[str]:
    """Return a name a layer: its scope, or its own without the last word where that is an operator's; no two alike."""
    titles = []
    for node, scope in found:
        own = node.name or str(node.outputs[0].name)
        head = own.rstrip("0123456789_").lower()
        for ending in ("/softmax", ".softmax"):
            if head.endswith(ending):
                own = own[: len(ending) * -1 - (len(own) - len(head))]
        titles.append(own if "/" in own or "." in own else scope or own)
    return [
        title if titles.count(title) == 1 else node.name or str(node.outputs[0].name)
        for title, (node, _) in zip(titles, found, strict=True)
    ]


def _site(node: ir.Node) -> _Site | None:
    """Return what lies about a Softmax that is attention's."""
    if node.op_type != "Softmax" or node.domain not in ("", "ai.onnx") or not _over_the_last_axis(node):
        return None
    score = _score(node)
    ends = _ends(node.outputs[0])
    if score is None or not ends:
        return None
    first, second = (score.inputs[i] for i in _PRODUCTS[score.op_type])
    assert first is not None
    assert second is not None
    return _Site(_guarded(node.outputs[0]), node, first, second, tuple(ends))


def _over_the_last_axis(node: ir.Node) -> bool:
    attribute = node.attributes.get("axis")
    axis = attribute.as_int() if attribute is not None and not attribute.is_ref() else None
    version = node.version or (node.graph.opset_imports.get("", 13) if isinstance(node.graph, ir.Graph) else 13)
    axis = (-1 if version >= 13 else 1) if axis is None else axis
    value = node.outputs[0] if node.outputs[0].shape is not None else node.inputs[0]
    if axis == -1 or value is None or value.shape is None:
        return True
    return axis % max(len(value.shape), 1) == len(value.shape) - 1


def _is_fixed(value: ir.Value | None, depth: int = 6) -> bool:
    """Whether a value is the same whatever is fed: a constant, or made of constants."""
    if value is None or constant_tensor(value) is not None:
        return True
    node = value.producer()
    return depth > 0 and node is not None and all(_is_fixed(v, depth - 1) for v in node.inputs)


def _score(softmax: ir.Node) -> ir.Node | None:
    """Return the nearest product of two activations that leads to a Softmax; learned queries may stand on its left."""
    row: list[ir.Value] = [v for v in softmax.inputs if v is not None]
    seen = set(row)
    for _ in range(_FAR):
        above: list[ir.Value] = []
        for value in row:
            node = value.producer()
            if node is None:
                continue
            if node.op_type in _PRODUCTS:
                right = [node.inputs[i] for i in _PRODUCTS[node.op_type] if i < len(node.inputs)]
                if len(right) == 2 and right[0] is not None and not _is_fixed(right[1]):
                    return node
            elif node.op_type in _BEFORE:
                above += [v for v in _data_inputs(node) if v not in seen]
                seen.update(above)
        row = above
    return None


def _ends(weights: ir.Value) -> list[ir.Node]:
    """Return the products with an activation that the weights lead to."""
    row, seen, found = [weights], {weights}, []
    for _ in range(_FAR // 2):
        below = []
        for value in row:
            for user in value.consumers():
                if user.op_type in _PRODUCTS:
                    if all(not _is_fixed(user.inputs[i]) for i in _PRODUCTS[user.op_type]):
                        found.append(user)
                elif user.op_type in _AFTER:
                    below += [v for v in user.outputs if v not in seen]
                    seen.update(below)
        row = below
    return found


def _guarded(weights: ir.Value) -> ir.Value:
    """Return the weights after a guard against rows that are masked as a whole: Where(IsNaN(w), 0, w)."""
    for user in weights.consumers():
        condition = user.inputs[0].producer() if user.op_type == "Where" and user.inputs[0] is not None else None
        if condition is not None and condition.op_type == "IsNaN" and condition.inputs[0] is weights:
            return user.outputs[0]
    return weights


def _data_inputs(node: ir.Node) -> list[ir.Value]:
    """Return the inputs that a node's output is made of, those left out that only give shapes, indices or constants."""
    inputs: Sequence[ir.Value | None] = node.inputs
    if node.op_type in _MAKES_NO_TOKENS:
        return []
    if node.op_type in _FIRST_ONLY:
        inputs = inputs[:1]
    elif node.op_type == "Where":
        inputs = inputs[1:]
    elif node.op_type in ("Gather", "GatherND") and len(inputs) > 1:
        inputs = inputs[1:2] if _is_fixed(inputs[0]) else inputs[:1]
    return [v for v in inputs if v is not None and constant_tensor(v) is None]


def _layer(site: _Site, title: str, ends: Collection[ir.Node]) -> AttentionNode:
    query, key = (_stream(value, ends) for value in (site.query, site.key))
    return AttentionNode(
        title, str(site.weights.name), node_label(site.node), site.node.op_type, _kind(site), query, key
    )


def _upwards(start: ir.Value, ends: Collection[ir.Node]) -> Iterator[tuple[ir.Value, ir.Node | None]]:
    """Walk back from a value, the nearest first, not past the nodes in ``ends``."""
    row, seen = [start], {start}
    while row:
        above = []
        for value in row:
            node = value.producer()
            yield value, node
            if node is not None and node not in ends:
                for v in _data_inputs(node):
                    if v not in seen:
                        seen.add(v)
                        above.append(v)
        row = above


def _stream(start: ir.Value, ends: Collection[ir.Node], *, joins: bool = True) -> TokenStream:
    found: list[Join] = []
    planes, inputs, tokens = [], [], []
    for value, node in _upwards(start, ends):
        name = str(value.name)
        if node is None:
            if value.is_graph_input() and value.const_value is None:
                inputs.append(name)
                if value.dtype in (ir.DataType.INT32, ir.DataType.INT64):
                    tokens.append(name)
        elif node.op_type in _PLANES and value is node.outputs[0]:
            planes.append(name)
        elif node.op_type == "Concat" and joins:
            parts = tuple((str(v.name), _stream(v, ends, joins=False)) for v in node.inputs if v is not None)
            found.append(Join(name, node.attributes["axis"].as_int(), parts, tuple(map(_fixed_shape, node.inputs))))
    return TokenStream(tuple(found), tuple(planes), tuple(inputs), tuple(tokens))


def _fixed_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    tensor = constant_tensor(value)
    return None if tensor is None else tuple(int(size) for size in tensor.shape)


def _kind(site: _Site) -> Literal["self", "cross"]:
    """Tell self- from cross-attention: the keys of the former are made of what the queries are projected from."""
    sources = _sources(site.query)
    if not sources:
        return "cross"
    return "self" if any(value in sources for value, _ in _upwards(site.key, ())) else "cross"


def _unshaped(value: ir.Value) -> ir.Value:
    """Return what a value is a view of."""
    while (node := value.producer()) is not None and node.op_type in _VIEWS and node.inputs[0] is not None:
        value = node.inputs[0]
    return value


def _sources(query: ir.Value) -> set[ir.Value]:
    """Return what the queries are projected from: the inputs of the nearest products with constants."""
    found: set[ir.Value] = set()
    row, seen = [query], {query}
    while row:
        above: list[ir.Value] = []
        for value in row:
            node = value.producer()
            if node is None:
                found |= {value} if value.is_graph_input() else set()  # not projected at all
                continue
            operands = _data_inputs(node)
            if (node.op_type in _PRODUCTS or node.op_type == "Conv") and any(_is_fixed(v) for v in node.inputs[:4]):
                found |= {_unshaped(v) for v in operands}
                continue
            above += [v for v in operands if v not in seen]
            seen.update(above)
        row = above
    return found
