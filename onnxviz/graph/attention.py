"""Finding attention in a graph: which tensor holds the weights, and what its queries and keys stand for.

Attention is softmax(Q Kᵀ / √d) V (Vaswani et al. 2017, equation 1). In a graph it is a Softmax between two products of
activations, with scales, masks and reshapes between, or one operator that does it all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from onnxviz.errors import SelectionError, listed, printable
from onnxviz.graph.attention_sites import PRODUCTS, Site, softmax_ranks, softmax_site
from onnxviz.graph.fused_attention import FUSED, FusedSite, RefusedAttention, expand_fused
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import copy_model
from onnxviz.graph.node_attributes import node_label
from onnxviz.graph.scopes import scope_name, scopes
from onnxviz.graph.token_streams import TokenStream, data_inputs, is_fixed, token_stream, upwards

__all__ = ["AttentionGraph", "AttentionNode", "find_attention"]

_VIEWS = {"Reshape", "Transpose", "Identity", "Cast", "Flatten", "Squeeze", "Unsqueeze", "QuantizeLinear",
          "DequantizeLinear", "DynamicQuantizeLinear"}  # fmt: skip


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
        order: Place among all attention of the model, from 0, those that keep their weights counted.
        after: Places of the layers whose results enter the stream that its queries come from.
    """

    name: str
    tensor: str
    node: str
    op_type: str
    kind: Literal["self", "cross"]
    queries: TokenStream
    keys: TokenStream
    order: int
    after: tuple[int, ...]


@dataclass(frozen=True)
class AttentionGraph:
    """The attention of a model.

    Attributes:
        model: The model to run: functions inlined, and every fused operator made to give its weights.
        layers: In the graph's order.
        refused: Fused operators whose weights cannot be had, by their place among all attention.
    """

    model: ir.Model
    layers: tuple[AttentionNode, ...]
    refused: Mapping[int, RefusedAttention]

    def refusals(self) -> str:
        """Return how many layers keep their weights, which and why, in one line; empty where none does."""
        if not self.refused:
            return ""
        every = len(self.layers) + len(self.refused)
        why: dict[str, list[str]] = {}
        for one in self.refused.values():
            why.setdefault(one.reason, []).append(printable(node_label(one.node), 40))
        told = "; ".join(f"{listed(names, 2)} ({reason})" for reason, names in why.items())
        return f"{len(self.refused)} of {every} attention layers keep their weights: {told}"

    def tensors(self, layers: Iterable[AttentionNode] | None = None) -> list[str]:
        """Return the tensors to capture: weights, and those whose shapes lay out the tokens; each once."""
        names: dict[str, None] = {}
        for layer in self.layers if layers is None else layers:
            names[layer.tensor] = None
            names.update(dict.fromkeys((*layer.queries.tensors(), *layer.keys.tensors())))
        made = {str(v.name) for node in self.model.graph for v in node.outputs}
        return [name for name in names if name in made]


def find_attention(model: ir.Model) -> AttentionGraph:
    """Find every attention of the main graph.

    A Softmax over the last axis is attention where a product of two activations leads to it (through scales, masks,
    casts, reshapes) and its output is multiplied with an activation. The ONNX operator ``Attention`` (opset 23) is made
    to give its weights as its fourth output (``qk_matmul_output_mode = 3``), and com.microsoft ``Attention``,
    ``MultiHeadAttention`` and ``QAttention`` get nodes beside them that compute the weights; others are refused.

    Args:
        model: The model; it is not changed.

    Raises:
        SelectionError: There is none, or only such as keep their weights to themselves.
        ModelError: A node's attribute has a type that its operator does not know.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2, 5, 4] q, float[1, 2, 7, 4] m) => (float[1, 2, 5, 4] y) {
    ...     k = Transpose<perm = [0, 1, 3, 2]>(m) s = MatMul(q, k) w = Softmax<axis = -1>(s) y = MatMul(w, m)
    ...   }''')
    >>> [(layer.tensor, layer.kind) for layer in find_attention(model).layers]
    [('w', 'cross')]
    """
    flat = inline_functions(model)
    fused: list[FusedSite] = []
    refused: list[RefusedAttention] = []
    if any(node.op_type in FUSED for node in flat.graph):
        flat = copy_model(flat) if flat is model else flat
        fused, refused = expand_fused(flat)
    sites = [Site(f.weights, f.node, f.query, f.key, (f.node,)) for f in fused]
    order = {node: place for place, node in enumerate(flat.graph)}
    own = {f.maker for f in fused}
    ranks = softmax_ranks(flat)
    sites += [site for node in flat.graph if node not in own and (site := softmax_site(node, ranks)) is not None]
    if not sites:
        raise _nothing(flat, refused)
    sites.sort(key=lambda site: order[site.node])
    ends = {node: place for place, site in enumerate(sites) for node in site.ends}
    names = scopes(flat.graph)
    titles = _titles([(site.node, scope_name(names.get(site.node, ()))) for site in sites])
    ranked = sorted([order[site.node] for site in sites] + [order[one.node] for one in refused])
    places = {at: place for place, at in enumerate(ranked)}
    layers = []
    for site, title in zip(sites, titles, strict=True):
        before = {ends[node] for _, node in upwards(site.query, ends) if node in ends}
        after = tuple(sorted(places[order[sites[i].node]] for i in before))
        layers.append(_layer(site, title, ends, places[order[site.node]], after))
    return AttentionGraph(flat, tuple(layers), {places[order[one.node]]: one for one in refused})


def _nothing(model: ir.Model, refused: Sequence[RefusedAttention]) -> SelectionError:
    if refused:
        return SelectionError(
            refused[0].line + (f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""),
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
        own = own or node.name or str(node.outputs[0].name)
        titles.append(own if "/" in own or "." in own else scope or own)
    return [
        title if titles.count(title) == 1 else node.name or str(node.outputs[0].name)
        for title, (node, _) in zip(titles, found, strict=True)
    ]


def _layer(site: Site, title: str, ends: Collection[ir.Node], order: int, after: tuple[int, ...]) -> AttentionNode:
    query, key = (token_stream(value, ends) for value in (site.query, site.key))
    made_by = node_label(site.node)
    return AttentionNode(
        title, str(site.weights.name), made_by, site.node.op_type, _kind(site), query, key, order, after
    )


def _kind(site: Site) -> Literal["self", "cross"]:
    """Tell self- from cross-attention: the keys of the former are made of what the queries are projected from."""
    sources = _sources(site.query)
    if not sources:
        return "cross"
    return "self" if any(value in sources for value, _ in upwards(site.key, ())) else "cross"


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
            operands = data_inputs(node)
            if (node.op_type in PRODUCTS or node.op_type == "Conv") and any(is_fixed(v) for v in node.inputs[:4]):
                found |= {_unshaped(v) for v in operands}
                continue
            above += [v for v in operands if v not in seen]
            seen.update(above)
        row = above
    return found
