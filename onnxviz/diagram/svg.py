"""Writes a scene as SVG: text stays text, every string is escaped, no script, no reference to anything outside."""

from __future__ import annotations

import base64
import io
import re
from xml.sax.saxutils import escape

from onnxviz.diagram.scene import FONT_FAMILIES, Group, Image, Item, Path, Rect, Scene, Text
from onnxviz.errors import printable

__all__ = ["path_data", "png_address", "scene_to_svg"]

_PLAIN = re.compile(r"[\w .,:;/×·()\[\]=+-]*", re.ASCII)
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def scene_to_svg(scene: Scene, *, standalone: bool = True) -> str:
    """Return the SVG document of a scene; the same scene gives the same text.

    Args:
        scene: What to draw.
        standalone: Start with an XML declaration; False where the SVG is embedded in an HTML page.

    >>> scene_to_svg(Scene(10.0, 5.0, "a < b", ()), standalone=False).splitlines()[0][:60]
    '<svg xmlns="http://www.w3.org/2000/svg" class="onnxviz-diagr'
    """
    width, height = _number(scene.width), _number(scene.height)
    fonts = ", ".join(f"'{name}'" if " " in name else name for name in FONT_FAMILIES)
    lines = ['<?xml version="1.0" encoding="UTF-8"?>'] if standalone else []
    lines.append(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="onnxviz-diagram" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="{fonts}" role="img">'
    )
    lines.append(f"<title>{_text(scene.title)}</title>")
    lines.append(f'<rect width="{width}" height="{height}" fill="{scene.background}"/>')
    lines.extend(_group(group) for group in scene.groups)
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def _group(group: Group) -> str:
    kind = f" kind-{group.kind}" if group.kind else ""
    parts = [f'<g id="{_text(group.id)}" class="{_text(group.role)}{_text(kind)}">']
    if group.tooltip:
        parts.append(f"<title>{_text(group.tooltip)}</title>")
    parts.extend(_item(item) for item in group.items)
    parts.append("</g>")
    return "".join(parts)


def _item(item: Item) -> str:
    if isinstance(item, Text):
        weight = (' font-weight="bold"' if item.bold else "") + (' font-style="italic"' if item.italic else "")
        anchor = f' text-anchor="{item.anchor}"' if item.anchor != "start" else ""
        return (
            f'<text x="{_number(item.x)}" y="{_number(item.y)}" font-size="{_number(item.size)}"{weight}{anchor} '
            f'fill="{item.fill}">{_text(item.text)}</text>'
        )
    if isinstance(item, Image):
        return (
            f'<image x="{_number(item.x)}" y="{_number(item.y)}" width="{_number(item.width)}" '
            f'height="{_number(item.height)}" preserveAspectRatio="none" style="image-rendering:pixelated" '
            f'href="{png_address(item)}"/>'
        )
    dashed = ' stroke-dasharray="4 3"' if item.dashed else ""
    width = f' stroke-width="{_number(item.stroke_width)}"' if item.stroke and item.stroke_width != 1.0 else ""
    stroke = f' stroke="{item.stroke}"{width}{dashed}' if item.stroke else ""
    paint = f'fill="{item.fill or "none"}"{stroke}'
    if isinstance(item, Rect):
        radius = f' rx="{_number(item.radius)}"' if item.radius else ""
        return (
            f'<rect x="{_number(item.x)}" y="{_number(item.y)}" width="{_number(item.width)}" '
            f'height="{_number(item.height)}"{radius} {paint}/>'
        )
    return f'<path d="{path_data(item)}" {paint}/>'


def path_data(path: Path) -> str:
    """Return the ``d`` of a path element."""
    parts = []
    curve = 0
    for code, (x, y) in zip(path.codes, path.points, strict=True):
        if code == "Z":
            parts.append("Z")
            continue
        parts.append(f"{'' if code == 'C' and curve % 3 else code}{_number(x)},{_number(y)}")
        curve = curve + 1 if code == "C" else 0
    return " ".join(parts)


def png_address(image: Image) -> str:
    """Return a picture as a PNG in a data address."""
    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.frombytes("RGB", (image.columns, image.rows), image.rgb).save(buffer, "PNG", compress_level=9)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _number(value: float) -> str:
    text = f"{value:.2f}"
    if text[-1] == "0":
        text = text[:-3] if text[-2] == "0" else text[:-1]
    return text if text != "-0" else "0"


def _text(text: str) -> str:
    """Escape a string for XML text and attributes; what XML cannot hold at all is written as an escape sequence."""
    if _PLAIN.fullmatch(text):
        return text
    return escape(_NOT_XML.sub(lambda match: printable(match.group()), text), {'"': "&quot;"})
