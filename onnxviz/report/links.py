"""The architecture on the page, and which block of it made which tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxviz.diagram.architecture import architecture
from onnxviz.diagram.elements import collect_elements

__all__ = ["Diagram", "draw_diagram"]

_LIMIT = 7_000_000  # bytes of the SVG
_BLOCKS = 12_000  # a block takes 600 bytes and more


@dataclass(frozen=True)
class Diagram:
    """The architecture as SVG, with the ids of its blocks.

    Attributes:
        svg: The drawing; empty where it is too large for the page.
        tensors: Block -> names of the tensors that its node writes, or of the input or output that it is.
        makers: Tensor name -> block of the node that writes it.
        layers: Layer name, as the weights have it -> block.
        note: Why there is no drawing; empty where there is one.
    """

    svg: str = field(repr=False)
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


def draw_diagram(model: ir.Model) -> Diagram:
    """Draw the architecture for the page.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[1, 2] x) => (float[1, 2] y) {y = Neg(x)}'
    ... )
    >>> draw_diagram(model).makers
    {'y': 'node-y'}
    """
    elements = collect_elements(model).elements
    if len(elements) > _BLOCKS:  # not worth the drawing: it could not be kept
        return Diagram(
            "", note=f"the architecture ({len(elements):,} blocks) is left out: draw it with `onnxviz graph`"
        )
    drawing = architecture(model)
    svg = drawing._repr_svg_()
    size = len(svg.encode()) / 1e6
    if size > _LIMIT / 1e6:
        return Diagram("", note=f"the architecture ({size:.1f} MB) is left out: draw it with `onnxviz graph`")
    groups = [group for group in drawing.scene.groups if group.box is not None]
    if [group.role for group in groups] != [element.role for element in elements]:
        return Diagram(svg)  # blocks stand for something else: better no link than a wrong one
    tensors: dict[str, list[str]] = {}
    makers: dict[str, str] = {}
    blocks: dict[ir.Node, str] = {}
    for group, element in zip(groups, elements, strict=True):
        if element.node is not None:
            blocks[element.node] = group.id
            tensors[group.id] = [str(value.name) for value in element.node.outputs if value.name]
            makers.update(dict.fromkeys(tensors[group.id], group.id))
        elif element.value is not None:
            tensors[group.id] = [str(element.value.name)]
    return Diagram(svg, tensors, makers, _layer_blocks(model, blocks))


def _layer_blocks(model: ir.Model, blocks: dict[ir.Node, str]) -> dict[str, str]:
    """Name the layers as the weights do; inlined functions would shift the positions of nodes without a name."""
    names = {
        node: node.name or ("" if model.functions else f"{node.op_type}_{position}")
        for position, node in enumerate(model.graph)
    }
    uses = Counter(names.values())
    return {name: blocks[node] for node, name in names.items() if name and uses[name] == 1 and node in blocks}
