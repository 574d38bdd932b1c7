"""The architecture on the page, and which block of it made which tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxviz.analysis.weights import LayerWeights, weights_in_words
from onnxviz.diagram.interactive import GraphData, graph_data

__all__ = ["Diagram", "draw_diagram"]

_LIMIT = 5_000_000  # bytes of the graph, packed
_BLOCKS = 100_000


@dataclass(frozen=True)
class Diagram:
    """The architecture for the page's viewer, with the ids of its blocks.

    Attributes:
        graph: What the viewer needs; None where it is too large for the page.
        tensors: Block -> names of the tensors that its node writes, or of the input or output that it is.
        makers: Tensor name -> block of the node that writes it.
        layers: Layer name, as the weights have it -> block.
        note: Why there is no drawing; empty where there is one.
    """

    graph: GraphData | None = field(repr=False)
    tensors: dict[str, list[str]] = field(default_factory=dict)
    makers: dict[str, str] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def targets(self, maps: Mapping[str, str], rows: Mapping[str, str]) -> dict[str, str]:
        """Return where on the page each block leads: to its maps, else to its tensor's row, and inputs to what was fed.

        Args:
            maps: Tensor name -> id of its feature maps.
            rows: Tensor name -> id of its row in the table of tensors.
        """
        found = {}
        for block, names in self.tensors.items():
            known = [ids[name] for ids in (maps, rows) for name in names if name in ids]
            if known:
                found[block] = known[0]
            elif block.startswith("input-"):
                found[block] = "answer"
        return found

    def views(self, links: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, list[tuple[str, str]]]:
        """Return the views of what each block writes: what a link is called, and the id that it leads to.

        Args:
            links: Tensor name -> its views, as :func:`onnxviz.report.views.link_views` returns them.
        """
        found: dict[str, dict[str, str]] = {}
        for block, names in self.tensors.items():
            if not block.startswith("output-"):
                for what, where in (link for name in names for link in links.get(name, ())):
                    found.setdefault(block, {}).setdefault(what, where)
        return {block: list(known.items()) for block, known in found.items()}


def draw_diagram(model: ir.Model, weights: Sequence[LayerWeights] | None = None) -> Diagram:
    """Draw the architecture for the page.

    Args:
        model: The model.
        weights: Its weights, where they were found already.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[1, 2] x) => (float[1, 2] y) {y = Neg(x)}'
    ... )
    >>> draw_diagram(model).makers
    {'y': 'node-y'}
    """
    count = model.graph.num_nodes()
    if count > _BLOCKS:  # not worth the drawing: it could not be kept
        return Diagram(None, note=f"the architecture ({count:,} nodes) is left out: draw it with `onnxviz graph`")
    graph = graph_data(model, weights_in_words(model, weights))
    size = (len(graph.data) + len(graph.details)) / 1e6
    if size > _LIMIT / 1e6:
        return Diagram(None, note=f"the architecture ({size:.1f} MB) is left out: draw it with `onnxviz graph`")
    tensors: dict[str, list[str]] = {}
    makers: dict[str, str] = {}
    for block, element in zip(graph.ids, graph.elements, strict=True):
        if element.node is not None:
            tensors[block] = [str(value.name) for value in element.node.outputs if value.name]
            for name in tensors[block]:
                makers.setdefault(name, block)  # bodies, which come last, may use a name again
        elif element.value is not None:
            tensors[block] = [str(element.value.name)]
    return Diagram(graph, tensors, makers, _layer_blocks(model, makers))


def _layer_blocks(model: ir.Model, makers: dict[str, str]) -> dict[str, str]:
    """Name the layers as the weights do; inlined functions would shift the positions of nodes without a name."""
    names = {
        node: node.name or ("" if model.functions else f"{node.op_type}_{position}")
        for position, node in enumerate(model.graph)
    }
    uses = Counter(names.values())
    found = {}
    for node, name in names.items():
        block = next((makers[v.name] for v in node.outputs if v.name in makers), None)
        if name and uses[name] == 1 and block is not None:
            found[name] = block
    return found
