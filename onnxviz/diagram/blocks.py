"""The boxes of the diagram: what they say, how large they are, and how they look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxviz.diagram.details import attribute_text, body_text, count_text, settings, weights_text
from onnxviz.diagram.elements import Element, Members
from onnxviz.diagram.palette import INK, KIND_TITLES, MUTED, WARNING, glyph, kind_style
from onnxviz.diagram.scene import Item, Path, Rect, Text
from onnxviz.diagram.seen import Seen, ShapeKind, ShapeLabel, label_items
from onnxviz.diagram.text import ellipsize, fit_text, text_width
from onnxviz.diagram.thumbnails import Strip
from onnxviz.errors import printable
from onnxviz.graph.cost import node_cost
from onnxviz.graph.kinds import kind_of
from onnxviz.graph.provenance import provenance_of
from onnxviz.graph.scopes import Scope, scope_name

__all__ = ["Block", "annotated", "block_items", "make_block"]

HEADING = 11.0
BODY = 9.5
HEADER_HEIGHT = 20.0
LINE_HEIGHT = 13.0
PADDING = 8.0
GLYPH = 9.0
_INDENT = PADDING + GLYPH + 6.0
_MOST = 230.0  # widest line of a block, px
_TERMINAL = 34.0  # height of a terminal
_COMPACT = 120.0  # widest note beside the heading of a one-line block


@dataclass(frozen=True, slots=True)
class Block:
    """What a box says: heading, a note beside it, lines and perhaps a picture below it; its size in px.

    A block without lines or picture is drawn compact, as one line in the kind's colour. ``shape`` is the kind of the
    shape that a terminal's note says.
    """

    heading: str
    note: str
    lines: tuple[str, ...]
    tooltip: str
    width: float
    height: float
    shape: ShapeKind = "known"
    strip: Strip | None = None


def make_block(element: Element, seen: Seen | None = None) -> Block:
    """Choose the text of a box and its size."""
    seen = seen or Seen()
    if element.members is not None:
        return _group_block(element.members)
    if element.node is None:
        block = _terminal(element, seen)
        return block if element.role == "output" else _pictured(block, seen, element.value)
    return _pictured(_node_block(element.node, element.kind, seen), seen, *element.node.outputs)


def _pictured(block: Block, seen: Seen, *values: ir.Value | None) -> Block:
    """Return a block with room for the thumbnail of the first of its tensors that has one."""
    found = seen.strip(*values)
    if found is None:
        return block
    name, strip = found
    tooltip = "\n".join(filter(None, [block.tooltip, seen.describe(name)]))
    width = max(block.width, strip.width + 2 * PADDING)
    return replace(block, tooltip=tooltip, width=width, height=block.height + strip.height, strip=strip)


def annotated(block: Block, sign: str, notes: Sequence[str]) -> Block:
    """Return a block with a sign before its heading and further lines below the others."""
    heading = f"{sign}{block.heading}"
    fitted = tuple(fit_text(line, BODY, _MOST) for line in notes)
    lines = (*block.lines, *fitted)
    width = block.width + text_width(sign, HEADING, bold=True)
    width = max([width, *(text_width(line, BODY) + 2 * PADDING for line in fitted)])
    tooltip = "\n".join([block.tooltip, *notes])
    height = block.height
    if fitted:
        height = HEADER_HEIGHT + LINE_HEIGHT * len(lines) + 5.0 + (block.strip.height if block.strip else 0.0)
    return replace(block, heading=heading, lines=lines, tooltip=tooltip, width=width, height=height)


def _terminal(element: Element, seen: Seen) -> Block:
    value = element.value
    assert value is not None
    name = fit_text(value.name or "(unnamed)", HEADING, _MOST, bold=True)
    label, said = seen.label(value, usual=None, size=BODY, room=_MOST), seen.in_words(value) or "type unknown"
    note = label.text or "type unknown"
    if element.role == "missing":
        note = said = "nothing produces this tensor"
        label = ShapeLabel(note)
    note = fit_text(note, BODY, _MOST)
    width = max(text_width(name, HEADING, bold=True), text_width(note, BODY) + label.mark) + 2 * PADDING + 8.0
    what = {"input": "graph input", "output": "graph output", "constant": "constant", "missing": "missing tensor"}
    tooltip = f"{what[element.role]} {printable(value.name or '')}\n{said}"
    return Block(name, note, (), tooltip, width, _TERMINAL, label.kind)


def _group_block(members: Members) -> Block:
    """Say what is folded away: the group's name, how much it holds, and its most frequent operators."""
    scope = members.scope
    if len(scope) > 1 and " > " in scope[-2]:
        return _chain_block(members)
    title, differs = _group_title(scope)
    heading = fit_text(title, HEADING, _MOST - (30.0 if "×" in title else 80.0), bold=True)
    note = f"{count_text(members.parameters)} params" if members.parameters else ""
    order = list(KIND_TITLES)
    kinds = {
        node.op_type: order.index(kind) if (kind := kind_of(node)) in order else len(order) for node in members.nodes
    }
    counts = Counter(node.op_type for node in members.nodes)
    ops = sorted(counts.items(), key=lambda item: (kinds[item[0]], -item[1], item[0]))  # what computes comes first
    says = [f"{op} ×{count}" if count > 1 else op for op, count in ops]
    lines = [
        " · ".join(says[:3]) + (f" · {len(says) - 3} more" if len(says) > 3 else ""),
        f"{len(members.nodes):,} node{'s' if len(members.nodes) != 1 else ''}{differs}",
    ]
    fitted = tuple(fit_text(line, BODY, _MOST) for line in lines)
    width = _INDENT + text_width(heading, HEADING, bold=True) + 12.0 + text_width(note, BODY) + PADDING
    width = max([width, *(text_width(line, BODY) + 2 * PADDING for line in fitted)])
    tooltip = [printable(scope_name(scope), 300), f"{len(members.nodes):,} nodes, {members.parameters:,} parameters"]
    tooltip += [f"{printable(op)} ×{count}" for op, count in ops[:12]]
    return Block(heading, note, fitted, "\n".join(tooltip), width, HEADER_HEIGHT + LINE_HEIGHT * len(fitted) + 5.0)


def _group_title(scope: Scope) -> tuple[str, str]:
    """Return what to call a group, and what to say of blocks that repeat but not quite the same."""
    short = scope[-2:] if scope[-1].isdigit() else scope[-1:]  # a number alone says nothing
    name = short[0].removesuffix(" (varied)")
    if len(short) == 1:
        return name, " · blocks differ" if name != short[0] else ""
    kind, times, count = name.partition(" ×")
    return (f"{kind} {short[1]} of {count.partition(' ')[0]}" if times else "/".join(short)), ""


def _chain_block(members: Members) -> Block:
    """Say what a chain of operators does: their names, and the settings and weights of the first that has weights."""
    main = next((node for node in members.nodes if weights_text(node)), members.nodes[0])
    heading = fit_text(members.scope[-2].replace(" > ", " → "), HEADING, _MOST - 20.0, bold=True)
    note = f"{count_text(members.parameters)} params" if members.parameters else ""
    lines = [" · ".join(settings(main)[:4]), " · ".join(weights_text(main)[:3])]
    fitted = tuple(fit_text(line, BODY, _MOST) for line in lines if line)
    width = _INDENT + text_width(heading, HEADING, bold=True) + 12.0 + text_width(note, BODY) + PADDING
    width = max([width, *(text_width(line, BODY) + 2 * PADDING for line in fitted)])
    tooltip = [printable(scope_name(members.scope), 300), f"{members.parameters:,} parameters"]
    tooltip += [f"{printable(node.op_type)}  {printable(node.name or '')}".rstrip() for node in members.nodes]
    return Block(heading, note, fitted, "\n".join(tooltip), width, HEADER_HEIGHT + LINE_HEIGHT * len(fitted) + 5.0)


def _node_block(node: ir.Node, kind: str, seen: Seen) -> Block:
    parameters = node_cost(node).parameters
    facts, weights, bodies = settings(node), weights_text(node), body_text(node)
    heading = fit_text(node.op_type, HEADING, _MOST - 60.0, bold=True)
    brief = " · ".join(facts[:4])
    tooltip = _tooltip(node, facts, weights, parameters, seen)
    if not weights and not bodies and text_width(brief, BODY) <= _COMPACT:
        width = _INDENT + text_width(heading, HEADING, bold=True) + PADDING
        width += text_width(brief, BODY) + 8.0 if brief else 0.0
        return Block(heading, brief, (), tooltip, width, HEADER_HEIGHT)
    note = f"{count_text(parameters)} param{'s' if parameters != 1 else ''}" if parameters else ""
    if node.domain not in ("", "ai.onnx", "ai.onnx.ml", "com.microsoft") and not note:
        note = fit_text(node.domain, BODY, 90.0)
    lines = [line for line in (brief, " · ".join(bodies), " · ".join(weights[:3])) if line]
    fitted = tuple(fit_text(line, BODY, _MOST) for line in lines)
    width = _INDENT + text_width(heading, HEADING, bold=True) + 12.0 + text_width(note, BODY) + PADDING
    width = max([width, *(text_width(line, BODY) + 2 * PADDING for line in fitted)])
    return Block(heading, note, fitted, tooltip, width, HEADER_HEIGHT + LINE_HEIGHT * len(fitted) + 5.0)


def _tooltip(node: ir.Node, facts: list[str], weights: list[str], parameters: int, seen: Seen) -> str:
    domain = f"{printable(node.domain)}::" if node.domain not in ("", "ai.onnx") else ""
    lines = [f"{domain}{printable(node.op_type)}  {printable(node.name or '')}".rstrip()]
    lines += [f"in   {_value_line(v, seen)}" for v in node.inputs[:8] if v is not None]
    lines += [f"out  {_value_line(v, seen)}" for v in node.outputs[:8]]
    shown = [(name, a) for name, a in node.attributes.items() if not a.is_ref()][:16]
    lines += [f"{ellipsize(name, 40)} = {text}" for name, a in shown if (text := attribute_text(a))]
    if facts and not shown:
        lines.append(" · ".join(facts))
    if weights:
        lines.append("weights " + " · ".join(weights))
    if parameters:
        lines.append(f"{parameters:,} parameters")
    source = provenance_of(node)
    if source is not None:
        lines.append(f"from {printable(str(source), 300)}")
    return "\n".join(lines)


def _value_line(value: ir.Value, seen: Seen) -> str:
    return f"{printable(value.name or '', 200)} {seen.in_words(value)}".rstrip()


def block_items(
    element: Element, block: Block, x: float, y: float, width: float, fill: str | None = None
) -> tuple[Rect, tuple[Item, ...]]:
    """Return the outline and the drawing of a box whose top left corner is at (x, y).

    Args:
        element: What the box stands for.
        block: What it says.
        x, y, width: Where it stands.
        fill: Colour of a node's block; by default that of its kind.
    """
    if element.node is None and element.members is None:
        return _terminal_items(element, block, x, y, width)
    style = kind_style(element.kind)
    box = Rect(x, y, width, block.height, stroke=style.stroke, radius=4.0)
    items: list[Item] = [Rect(x, y, width, block.height, fill=fill or style.fill, radius=4.0)]
    if block.lines or block.strip:
        items.append(_lower_part(x, y + HEADER_HEIGHT, width, block.height - HEADER_HEIGHT))
    items.append(box)
    items.append(glyph(element.kind, x + PADDING, y + (HEADER_HEIGHT - GLYPH) / 2, GLYPH))
    items.append(Text(x + _INDENT, y + 14.0, block.heading, HEADING, INK, bold=True))
    if block.note:
        items.append(Text(x + width - PADDING, y + 14.0, block.note, BODY, INK, anchor="end"))
    for i, line in enumerate(block.lines):
        items.append(Text(x + PADDING, y + HEADER_HEIGHT + LINE_HEIGHT * (i + 1) - 2.0, line, BODY, INK))
    if block.strip:
        items += block.strip.items(x + width / 2, y + block.height - block.strip.height)
    return box, tuple(items)


def _terminal_items(element: Element, block: Block, x: float, y: float, width: float) -> tuple[Rect, tuple[Item, ...]]:
    missing = element.role == "missing"
    stroke = WARNING if missing else "#3c4043"
    fill = {"missing": "#fdecea", "constant": "#fbfbfb"}.get(element.role, "#eef1f4")
    box = Rect(x, y, width, block.height, fill, stroke, 1.2, _TERMINAL / 2, dashed=missing)
    middle = x + width / 2
    ink = WARNING if missing else MUTED
    note = label_items(ShapeLabel(block.note, block.shape), middle, y + 27.0, BODY, ink=ink, middle=True)
    strip = block.strip.items(middle, y + block.height - block.strip.height) if block.strip else ()
    return box, (
        box,
        Text(middle, y + 14.0, block.heading, HEADING, WARNING if missing else INK, bold=True, anchor="middle"),
        *note,
        *strip,
    )


def _lower_part(x: float, y: float, width: float, height: float) -> Path:
    """Return the white part of a block below its heading, round at its lower corners."""
    r, k = 4.0, 1.8  # k: distance of a circle's Bézier control points from the corner
    right, bottom = x + width, y + height
    points = [(x, y), (right, y), (right, bottom - r), (right, bottom - k), (right - k, bottom), (right - r, bottom)]
    points += [(x + r, bottom), (x + k, bottom), (x, bottom - k), (x, bottom - r), (x, y)]
    return Path(tuple(points), "MLLCCCLCCCZ", fill="#ffffff")
