"""How large each volume is in numbers; a side that the model leaves open follows from what the volume is made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxviz.diagram.volume_attributes import ints_of, text_of
from onnxviz.diagram.volume_labels import NOMINAL, Naming
from onnxviz.diagram.volume_stages import Stage

__all__ = ["UNKNOWN", "Sizes", "resolve_sizes"]

#: What a side is drawn as of which nothing at all is known.
UNKNOWN = NOMINAL // 4


@dataclass(frozen=True)
class Sizes:
    """Channels and sides of the volumes of a figure as numbers.

    Attributes:
        channels: Volume -> channels.
        spatial: Volume -> sides, as many as its extent has.
        guessed: Volumes with a size that the model does not tell, taken from their source.
        nominal: Those of them whose source does not tell it either.
    """

    channels: Mapping[Stage, float] = field(default_factory=dict)
    spatial: Mapping[Stage, tuple[float, ...]] = field(default_factory=dict)
    guessed: frozenset[Stage] = frozenset()
    nominal: frozenset[Stage] = frozenset()


def resolve_sizes(stages: Sequence[Stage], naming: Naming) -> Sizes:
    """Return the sizes of stages; sources must come before what reads them."""
    channels: dict[Stage, float] = {}
    spatial: dict[Stage, tuple[float, ...]] = {}
    guessed, nominal = set(), set()
    for stage in stages:
        count = len(stage.extent.spatial)
        source = next((s for s in stage.sources if s in spatial and len(spatial[s]) == count), None)
        wide = naming.number(stage.extent.channels, 0.0)
        sides = [naming.number(size, 0.0) for size in stage.extent.spatial]
        if not wide or not all(sides):
            guessed.add(stage)
            keeps = source is not None and stage.kind not in ("conv", "linear", "recurrent")
            if source is None or (not wide and not keeps):
                nominal.add(stage)
            read = [channels[s] for s in stage.sources]
            wide = wide or (sum(read) if "Concat" in stage.op_type else read[0] if keeps else UNKNOWN)
            old = spatial[source] if source is not None else (0.0,) * count
            sides = [side or _side(stage, axis, old[axis]) for axis, side in enumerate(sides)]
        channels[stage], spatial[stage] = wide, tuple(sides)
    return Sizes(channels, spatial, frozenset(guessed), frozenset(nominal))


def _side(stage: Stage, axis: int, source: float) -> float:
    """Return what a window makes of a side; anything else is taken to keep it."""
    if not source:
        return float(UNKNOWN)
    node = stage.node
    if node is None or not stage.kernel or axis >= len(stage.kernel):
        return source
    count = len(stage.kernel)
    stride = max(ints_of(node, "strides", [1] * count)[axis], 1)
    if node.op_type == "ConvTranspose":
        return source * stride
    same = text_of(node, "auto_pad", "NOTSET").startswith("SAME")
    pads = ints_of(node, "pads", [0] * 2 * count)
    lost = 0 if same else stage.kernel[axis] - pads[axis] - pads[axis + count]
    return max(math.ceil(source / stride) if same else (source - lost) // stride + 1, 1.0)
