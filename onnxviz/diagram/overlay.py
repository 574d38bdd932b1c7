"""Numbers on the diagram: one a node, as the colour of its block, with a legend."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxviz.diagram.blocks import BODY
from onnxviz.diagram.elements import Element
from onnxviz.diagram.palette import INK, MUTED
from onnxviz.diagram.scene import Group, Item, Rect, Text
from onnxviz.diagram.text import text_width
from onnxviz.errors import InputError
from onnxviz.graph.cost import node_bytes, node_cost
from onnxviz.graph.shapes import infer_shapes
from onnxviz.graph.summary import batch_dims

__all__ = ["METRICS", "Overlay", "Scale", "legend_group", "metric_overlay", "read_overlay", "value_of"]

#: White to dark orange, light enough for black text, monotone in lightness (after ColorBrewer's Oranges).
_RAMP = ((255, 255, 255), (254, 230, 206), (253, 190, 133), (253, 162, 90), (250, 131, 50))
_UNKNOWN = "#eceff2"
_NOT_FINITE = "#c9a7e8"
_STEPS = 32
_WIDE = 160.0  # of the legend's bar, px
_LOG_FROM = 100.0  # ratio of largest and smallest from which the scale is logarithmic


@dataclass(frozen=True)
class Overlay:
    """A number a node.

    Attributes:
        title: What it is, for the legend, such as ``"MACs"``.
        values: Name of a node, or of its first tensor -> the number. Nodes without one stay grey.
        unit: Written behind numbers, such as ``"µs"``.
        total: A group's number is the sum of its nodes'; else the largest of them.
        paths: Ways through the graph that are drawn as strong lines: the tensors of each, one after the other.
    """

    title: str
    values: Mapping[str, float]
    unit: str = ""
    total: bool = True
    paths: tuple[tuple[str, ...], ...] = ()


def _parameters(node: ir.Node) -> float | None:
    return node_cost(node).parameters


def _macs(node: ir.Node) -> float | None:
    return node_cost(node).macs


def _bytes(node: ir.Node) -> float | None:
    return node_bytes(node).written


#: Metric -> what it is, its unit, and how it is read off a node of a model with inferred shapes.
METRICS: dict[str, tuple[str, str, Callable[[ir.Node], float | None]]] = {
    "parameters": ("parameters", "", _parameters),
    "macs": ("multiply-accumulates", "", _macs),
    "bytes": ("bytes written", "B", _bytes),
}


def metric_overlay(model: ir.Model, metric: str) -> Overlay:
    """Return a number of :data:`METRICS` for every node of a model, at a batch of 1 where the batch is open.

    Raises:
        InputError: There is no such metric.
    """
    if metric not in METRICS:
        raise InputError(f"there is no metric {metric!r}", hint=f"there are {', '.join(METRICS)}")
    title, unit, read = METRICS[metric]
    sizes = batch_dims(model)
    nodes = infer_shapes(model, sizes).graph if sizes else infer_shapes(model).graph
    found = {_key(node): value for node in nodes if (value := read(node)) is not None}
    at = ", ".join(f"{name} = {size}" for name, size in sizes.items()) if metric != "parameters" else ""
    return Overlay(f"{title} at {at}" if at else title, found, unit)


def read_overlay(path: str | os.PathLike[str]) -> Overlay:
    """Read numbers by the names of nodes or tensors from a JSON file; it is called after the file.

    Raises:
        InputError: The file is no JSON object of numbers.
    """
    file, hint = Path(path), 'write {"name": number, …}'
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no readable JSON: {error}", hint=hint) from error
    if not isinstance(held, dict) or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in held.values()):
        raise InputError(f"{file} holds no numbers by name", hint=hint)
    return Overlay(file.stem, {str(name): float(value) for name, value in held.items()}, total=False)


def _key(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), None) or node.name or ""


def value_of(overlay: Overlay, element: Element) -> float | None:
    """Return the number of a block; None where there is none, infinity where any is not finite."""
    nodes = (
        element.members.nodes if element.members is not None else (element.node,) if element.node is not None else ()
    )
    found = [overlay.values.get(_key(node), overlay.values.get(node.name or "")) for node in nodes]
    known = [float(value) for value in found if value is not None]
    if not all(map(math.isfinite, known)):
        return math.inf
    return None if not known else sum(known) if overlay.total else max(known)


@dataclass(frozen=True)
class Scale:
    """From a number to a colour, from 0 (or the smallest, where the scale is logarithmic) to the largest."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, values: list[float]) -> Scale:
        """Choose the scale for some numbers: logarithmic where the positive ones differ by a factor of 100 or more."""
        values = [value for value in values if math.isfinite(value)]
        positive = [value for value in values if value > 0]
        if len(positive) > 1 and min(values) >= 0 and max(positive) / min(positive) >= _LOG_FROM:
            return cls(min(positive), max(positive), True)
        return cls(min([0.0, *values]), max([0.0, *values]), False)

    def place(self, value: float) -> float:
        """Return where on the scale a number lies, from 0 to 1."""
        if self.high <= self.low:
            return 0.0
        if self.logarithmic:
            return 0.0 if value <= self.low else math.log(value / self.low) / math.log(self.high / self.low)
        return (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)  # their difference may be infinite

    def colour(self, value: float | None) -> str:
        """Return a number's colour; grey for None, one of its own for what is not finite."""
        if value is None:
            return _UNKNOWN
        return _ramp(self.place(value)) if math.isfinite(value) else _NOT_FINITE


def _ramp(place: float) -> str:
    at = min(max(place, 0.0), 1.0) * (len(_RAMP) - 1)
    index = min(int(at), len(_RAMP) - 2)
    low, high = _RAMP[index], _RAMP[index + 1]
    return "#" + "".join(f"{round(a + (b - a) * (at - index)):02x}" for a, b in zip(low, high, strict=True))


def legend_group(
    overlay: Overlay, scale: Scale, x: float, y: float, values: Sequence[float | None]
) -> tuple[Group, float]:
    """Return the bar of colours with its ends named, beside it what no colour stands for, and the y below it.

    Args:
        overlay: What the numbers are.
        scale: Their colours.
        x, y: Where it stands.
        values: The number of each block.
    """
    step = _WIDE / _STEPS
    items: list[Item] = [
        Rect(x + index * step, y, step + 0.5, 10.0, fill=_ramp(index / (_STEPS - 1))) for index in range(_STEPS)
    ]
    items.append(Rect(x, y, _WIDE, 10.0, stroke=MUTED, stroke_width=0.7))
    low, high = (number_text(value, overlay.unit) for value in (scale.low, scale.high))
    if scale.logarithmic and any(value == 0 for value in values):
        low = f"0, {low}"
    items.append(Text(x, y + 21.0, low, BODY, INK))
    items.append(Text(x + _WIDE, y + 21.0, high, BODY, INK, anchor="end"))
    says = f"{overlay.title}{', logarithmic' if scale.logarithmic else ''}"
    items.append(Text(x + _WIDE + 10.0, y + 9.0, says, BODY, INK))
    left = x + _WIDE + 24.0 + text_width(says, BODY)
    aside = [("unknown", _UNKNOWN)] if any(value is None for value in values) else []
    aside += [("NaN or infinite", _NOT_FINITE)] if any(v is not None and not math.isfinite(v) for v in values) else []
    for title, colour in aside:
        items.append(Rect(left, y, 10.0, 10.0, fill=colour, stroke=MUTED, stroke_width=0.7))
        items.append(Text(left + 15.0, y + 9.0, title, BODY, INK))
        left += 30.0 + text_width(title, BODY)
    return Group("diagram-legend", "legend", "", tuple(items)), y + 24.0


def number_text(value: float, unit: str = "") -> str:
    """Return a number with three digits and an SI prefix.

    >>> number_text(1234567), number_text(0.25, "%"), number_text(0)
    ('1.23M', '0.25 %', '0')
    """
    if not math.isfinite(value):
        return "NaN or infinite"
    prefix, size = "", abs(value)
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= factor:
            value, prefix = value / factor, letter
            break
    text = f"{value:.3g}"
    return f"{text}{prefix}" if not unit else f"{text} {prefix}{unit}"
