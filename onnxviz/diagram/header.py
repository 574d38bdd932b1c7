"""The lines above the diagram: what model it is, and what the colours mean."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnxviz.diagram.blocks import BODY, GLYPH
from onnxviz.diagram.details import count_text
from onnxviz.diagram.palette import INK, KIND_TITLES, MUTED, glyph, kind_style
from onnxviz.diagram.scene import Group, Item, Rect, Text
from onnxviz.diagram.text import ellipsize, fit_text, text_width

__all__ = ["header_groups", "model_line"]

_TITLE = 15.0
_SWATCH = 15.0


def model_line(model: ir.Model, parameters: int) -> str:
    """Return producer, opsets, IR version, parameters and number of nodes on one line."""
    producer = " ".join(part for part in (model.producer_name, model.producer_version) if part)
    parts = [ellipsize(producer, 40)] if producer else []
    opsets = model.graph.opset_imports
    main = opsets.get("", opsets.get("ai.onnx"))
    parts += [f"opset {main}"] if main is not None else []
    others = [f"{ellipsize(d, 30)} {v}" for d, v in sorted(opsets.items()) if d not in ("", "ai.onnx")]
    parts += others[:3] + ([f"{len(others) - 3} more domains"] if len(others) > 3 else [])
    if model.ir_version is not None:
        parts.append(f"IR {model.ir_version}")
    parts.append(f"{count_text(parameters)} parameter{'s' if parameters != 1 else ''}")
    nodes = sum(1 for _ in model.graph.all_nodes())
    parts.append(f"{nodes:,} node{'s' if nodes != 1 else ''}")
    return " · ".join(parts)


def header_groups(
    title: str, line: str, kinds: Iterable[str], x: float, y: float, width: float
) -> tuple[list[Group], float]:
    """Return title, model line and the legend of the kinds that occur within ``width`` px, and the y below them."""
    items: list[Item] = [
        Text(x, y + 14.0, fit_text(title, _TITLE, width, bold=True), _TITLE, INK, bold=True),
        Text(x, y + 31.0, fit_text(line, 10.0, width), 10.0, MUTED),
    ]
    groups = [Group("diagram-header", "header", f"{ellipsize(title, 600)}\n{line}", tuple(items))]
    occurring = set(kinds)
    legend: list[Item] = []
    left, top = x, y + 42.0
    for kind in (k for k in KIND_TITLES if k in occurring):
        wide = _SWATCH + 5.0 + text_width(KIND_TITLES[kind], BODY)
        if left > x and left + wide > x + width:
            left, top = x, top + _SWATCH + 5.0
        style = kind_style(kind)
        legend.append(Rect(left, top, _SWATCH, _SWATCH, style.fill, style.stroke, radius=3.0))
        legend.append(glyph(kind, left + (_SWATCH - GLYPH) / 2, top + (_SWATCH - GLYPH) / 2, GLYPH))
        legend.append(Text(left + _SWATCH + 5.0, top + 11.0, KIND_TITLES[kind], BODY, INK))
        left += wide + 14.0
    if not legend:
        return groups, y + 42.0
    groups.append(Group("diagram-legend", "legend", "", tuple(legend)))
    return groups, top + _SWATCH
