"""The text of a figure of volumes: labels, tooltips, what the scales are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxviz.diagram.details import count_text, settings, shape_text
from onnxviz.diagram.palette import INK, MUTED
from onnxviz.diagram.scene import Text
from onnxviz.diagram.text import ellipsize, fit_text, text_width
from onnxviz.diagram.volume_extents import Extent
from onnxviz.diagram.volume_gates import GATE
from onnxviz.diagram.volume_labels import extent_text, sides_text
from onnxviz.diagram.volume_scale import Axis, Scales
from onnxviz.diagram.volume_sizes import UNKNOWN
from onnxviz.diagram.volume_stages import Stage
from onnxviz.diagram.volume_units import Block, Unit
from onnxviz.graph.cost import node_cost
from onnxviz.graph.receptive_field import ReceptiveField

__all__ = ["caption_lines", "field_text", "stage_tooltip", "unit_label"]

_SIZE, _SMALL = 9.5, 9.0
_WIDEST = 130.0  # px of a label's line
_MOST_FOLDED = 12


def field_text(field: ReceptiveField | None) -> str:
    """Return a receptive field in a few characters: ``"RF 43"``, ``"RF 43×21"``, ``"RF all"``."""
    if field is None:
        return ""
    if all(field.whole):
        return "RF all"
    sizes = ["all" if whole else str(size) for size, whole in zip(field.size, field.whole, strict=True)]
    return "RF " + (sizes[0] if len(set(sizes)) == 1 else "×".join(sizes))


def unit_label(unit: Unit, scales: Scales, field: str) -> list[Text]:
    """Return the lines under a unit, none wider than it should be; their positions are set later."""
    first = unit.first
    if first.sign:
        named = first.node.op_type if first.sign == "•" and first.node is not None else ""
        return [_text(fit_text(text, _SMALL, _WIDEST)) for text in (named, *first.notes) if text]
    lines: list[Text] = []
    if first.role != "node":
        lines.append(_text(fit_text(first.value.name or first.role, _SIZE, 92.0, bold=True), bold=True))
        lines.append(_text(fit_text(extent_text(_named(first), scales.naming), _SMALL, _WIDEST)))
        return lines + [_text(note) for note in first.notes]
    size = extent_text(unit.last.extent, scales.naming)
    if not unit.uniform:
        size = sides_text(unit.last.extent.spatial, scales.naming)
    lines.append(_text(size, bold=True))
    done = unit.lines()
    if first.work == "matrix product" and any(node.op_type == "Softmax" for node in first.folded):
        done = ["attention map"]
    for line in done:
        lines += [_text(part) for part in _broken(line)]
    if field and field != "RF all":
        lines.append(_text(field, fill=MUTED))
    return lines


def _named(stage: Stage) -> Extent:
    """Return the sides of a terminal, an output's open ones by the names that the volume behind it has."""
    source = next(iter(stage.sources), None)
    extent = stage.extent
    if source is None or not source.extent.known or len(source.extent.spatial) != len(extent.spatial):
        return extent
    pairs = zip(extent.spatial, source.extent.spatial, strict=True)
    channels = extent.channels if isinstance(extent.channels, int) else source.extent.channels
    return replace(extent, channels=channels, spatial=tuple(a if isinstance(a, int) else b for a, b in pairs))


def _text(text: str, *, bold: bool = False, fill: str = INK) -> Text:
    return Text(0.0, 0.0, text, _SIZE if bold else _SMALL, fill, bold)


def _broken(line: str) -> list[str]:
    """Break a line at its commas so that no part is too wide."""
    parts = line.split(", ")
    found = [parts[0]]
    for part in parts[1:]:
        longer = f"{found[-1]}, {part}"
        if text_width(longer, _SMALL) <= 62.0:
            found[-1] = longer
        else:
            found[-1] += ","
            found.append(part)
    return [fit_text(part, _SMALL, _WIDEST) for part in found]


def stage_tooltip(stage: Stage, field: ReceptiveField | None, last: ReceptiveField | None = None) -> str:
    """Return everything that is known of a volume, line by line; ``last`` is the field in the last of equal blocks."""
    node = stage.node
    head = ellipsize(stage.value.name or stage.role, 120) if node is None else node.op_type
    lines = [head if node is None or not node.name else f"{head} · {ellipsize(node.name, 120)}"]
    lines.append(" → ".join(filter(None, (stage.work, shape_text(stage.value, usual=None)))))
    if node is not None:
        told = [part for part in settings(node) if not _says(stage.work, part)]
        parameters = sum(node_cost(n).parameters for n in stage.nodes)
        lines += [" · ".join(told)] if told else []
        lines += [f"{count_text(parameters)} parameters"] if parameters else []
    if stage.folded:
        names = [n.op_type for n in stage.folded]
        more = f", … {len(names) - _MOST_FOLDED} more" if len(names) > _MOST_FOLDED else ""
        lines.append("then " + ", ".join(names[:_MOST_FOLDED]) + more)
    if stage.repeats > 1:
        lines.append(f"in a block that stands {stage.repeats} times in a row; told is the first")
    if field is not None and stage.role == "node":
        lines.append(_field_line(field))
        if last is not None and last != field:
            lines.append(f"in the last block: {_field_line(last)}")
    return "\n".join(filter(None, lines))


def _says(work: str, setting: str) -> bool:
    """Whether what an operator does tells a setting already."""
    return any(word == setting or word.endswith(f" {setting}") for word in work.split(", "))


def _field_line(field: ReceptiveField) -> str:
    if all(field.whole):
        return "receptive field: the whole input"
    sizes = "×".join("all" if w else str(s) for s, w in zip(field.size, field.whole, strict=True))
    jumps = "×".join("–" if jump is None else str(jump) for jump in field.jump)
    centres = ", ".join("–" if centre is None else f"{float(centre):g}" for centre in field.centre)
    return f"receptive field {sizes}, jump {jumps}, first centre at {centres}"


def caption_lines(
    units: Sequence[Unit], blocks: Sequence[Block], scales: Scales, width: float, fields: bool
) -> list[str]:
    """Return what the sides of the boxes mean, in lines that fit a width."""
    stages = [stage for unit in units for stage in unit.stages]
    maps = [s for s in stages if s.role != "output" and not s.sign and s.extent.known and not s.extent.is_vector]
    told: list[str] = []
    if maps:
        deep = any(len(s.extent.spatial) > 1 for s in maps)
        told.append(
            f"{'Height and depth: rows and columns' if deep else 'Height: positions'} of a map {_scale(scales.sides)}."
        )
        told.append(f"Thickness: channels {_scale(scales.channels)}.")
    if scales.folded and any(s.extent.tokens for s in maps):
        told.append("Tokens and lists: as high as a square map with as many positions.")
    if any(s.extent.is_vector and s.role != "output" and not s.sign for s in stages):
        told.append(f"Thin bars: vectors, as high as they are long {_scale(scales.bars)}.")
    told += _open_sizes(stages, scales)
    if any(" /" in line for unit in units for line in unit.lines()):
        told.append("/2: stride 2.")
    if any(len(s.extent.spatial) > 2 for s in maps):
        told.append("Of maps with three axes of positions the first (frames, slices) is not drawn.")
    if any(GATE in s.notes for s in stages):
        told.append(
            f"{GATE}: each channel is weighed by a factor computed from the whole map (squeeze-and-excitation); "
            "that path is not drawn."
        )
    if blocks:
        told.append(
            "Dashed frame: a block that stands so often in a row" + ("; its RF is that of the last." if fields else ".")
        )
    if fields:
        several = sum(s.role == "input" and len(s.extent.spatial) > 0 for s in stages) > 1
        told.append(f"RF: receptive field in positions of {'the input that is seen' if several else 'the input'}.")
    lines = [""]
    for word in " ".join(told).split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, _SMALL) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [fit_text(line, _SMALL, width) for line in lines if line]


def _open_sizes(stages: Sequence[Stage], scales: Scales) -> list[str]:
    """Return a sentence for every kind of size that is not the model's."""
    told = []
    naming, sizes = scales.naming, scales.sizes
    if naming.nominal:
        names = ", ".join(f"{naming.text(name)} as {size}" for name, size in naming.nominal.items())
        told.append(f"Open sizes are drawn as if fixed: {names}.")
    drawn = {s for s in stages if s.extent.known and not s.sign and s.role != "output"}
    if drawn & sizes.guessed - sizes.nominal:
        told.append("Dashed outline: a size that the model leaves open, drawn like its source's.")
    if drawn & sizes.nominal:
        told.append(f"Dashed outline where the source tells no size either: drawn as {UNKNOWN}.")
    if any(not s.extent.known for s in stages if s.role != "output" and not s.sign):
        told.append("Dashed boxes without sides: shape unknown, drawn at a nominal size.")
    return told


def _scale(axis: Axis) -> str:
    how = {"linear": "∝ size", "sqrt": "∝ √size", "log": "on a log scale"}[axis.how]
    how += ", the smallest enlarged" if axis.clamped else ""
    low, high = (f"{size:.0f}" if float(size).is_integer() else f"{size:.1f}" for size in (axis.smallest, axis.largest))
    return f"({how}, {low} to {high})" if axis.largest > axis.smallest else f"({high})"
