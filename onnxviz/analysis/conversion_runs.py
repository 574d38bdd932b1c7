"""Running a model with some of its layers converted, and what that does to the tensors that are compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.comparison import OutputParity, compare, worse
from onnxviz.analysis.readiness_parts import CurvePoint, Effect, LayerEffect, ordered
from onnxviz.analysis.top_agreement import TopAgreement, top_agreement
from onnxviz.errors import counted
from onnxviz.graph.conversions import Layer, label_of

if TYPE_CHECKING:
    from onnxviz.runtime.batches import Batches
    from onnxviz.runtime.what_if import WhatIf

__all__ = ["MOST_BATCHES", "ConversionRuns"]

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
#: Batches that conversions are tried on.
MOST_BATCHES = 4
_POINTS = 20


@dataclass
class _Tally:
    """The effect of one conversion on each compared tensor, over the batches so far."""

    answers: Collection[str]
    parities: dict[str, OutputParity] = field(default_factory=dict)
    tops: dict[str, TopAgreement] = field(default_factory=dict)
    local: float | None = None

    def add(self, expected: Mapping[str, Array], found: Mapping[str, Array], tolerance: float) -> None:
        for name, there in expected.items():
            here = found[name]
            one = compare(name, there, here, tolerance, peak=1e300)
            self.parities[name] = worse(self.parities[name], one) if name in self.parities else one
            if name in self.answers and (top := top_agreement(there, here)) is not None:
                self.tops[name] = self.tops[name].merge(top) if name in self.tops else top

    def add_local(self, local: tuple[Array, Array] | None) -> None:
        if local is not None:
            error = compare("", *local, 1.0).relative_l2
            self.local = error if self.local is None else max(self.local, error)

    def effects(self) -> tuple[Effect, ...]:
        found = []
        for name, one in self.parities.items():
            top = self.tops.get(name)
            problem = one.problem
            if problem is None and top is not None and top.first < top.samples:
                problem = f"has another best class in {top.samples - top.first} of {counted(top.samples, 'sample')}"
            found.append(
                Effect(
                    name, one.relative_l2, one.max_abs, one.max_relative, one.cosine,
                    None if top is None else top.top1, None if top is None else top.topk, 0 if top is None else top.k,
                    None if problem is None else f"{name} {problem}",
                )
            )  # fmt: skip
        return tuple(found)

    def point(self, layers: int) -> CurvePoint:
        effects = self.effects()
        problem = next((one.problem for one in effects if one.problem), None)
        top1 = min((one.top1 for one in effects if one.top1 is not None), default=None)
        return CurvePoint(layers, max((one.relative for one in effects), default=0.0), top1, problem)


class ConversionRuns:
    """Runs of one model on some batches, with layers converted alone and together.

    Args:
        run: The model.
        layers: Its layers, in the order of execution.
        batches: What it is fed; the first :data:`MOST_BATCHES` are used.
        tolerance: Relative error from which an answer counts as changed.
        most: Layers that are tried alone.
        steps: The scale of the codes of a tensor; the numbers that become 0 are counted for these.
        answers: The compared tensors whose best class is looked at.
        progress: Called with the number of runs that are done and of all.
    """

    def __init__(
        self, run: WhatIf, layers: Sequence[Layer], batches: Batches, *, tolerance: float, most: int,
        steps: Mapping[str, float], answers: Collection[str], progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.untried = max(0, len(layers) - most)
        self._run, self._layers, self._batches = run, layers, batches
        self._tolerance, self._most, self._steps, self._progress = tolerance, most, steps, progress
        self._answers = answers
        self._places = range(min(len(batches), MOST_BATCHES))
        self._last: tuple[int, dict[str, Array]] | None = None
        self._counted: set[int] = set()
        self._vanished: dict[str, tuple[int, int]] = {}

    def alone(self) -> list[LayerEffect]:
        """Convert each layer alone; beyond ``most`` layers only those with the largest error of their own."""
        tallies = [_Tally(self._answers) for _ in self._layers]
        groups: list[Collection[ir.Node]] = [layer.nodes for layer in self._layers]
        if self.untried:
            self._baseline(0)
            for index, _, local in self._run.rounded(groups, ahead=False):
                tallies[index].add_local(local)
            order = sorted(range(len(groups)), key=lambda i: (-(tallies[i].local or 0.0), i))
            tried = set(order[: self._most])
            groups = [group if index in tried else () for index, group in enumerate(groups)]
        self._convert(groups, tallies, self._progress)
        return [
            LayerEffect(
                layer.name, layer.op_type, layer.tensor, place, tuple(map(label_of, layer.nodes)), tally.local,
                tally.effects(),
            )
            for place, (layer, tally) in enumerate(zip(self._layers, tallies, strict=True))
        ]  # fmt: skip

    def together(self, effects: Sequence[LayerEffect]) -> tuple[CurvePoint, ...]:
        """Convert more and more layers, the least sensitive first, and look closer at where the answer changes."""
        order = [self._layers[one.place] for one in ordered(effects)]
        count = len(order)
        tried = sorted({-(-count * i // _POINTS) for i in range(1, _POINTS + 1)})
        points = self._points(order, tried)
        while True:
            numbers = sorted(points)
            bad = next((i for i, number in enumerate(numbers) if points[number].problem), None)
            before = numbers[bad - 1] if bad else 0
            if bad is None or points[count].problem is None or numbers[bad] - before <= 1:
                break
            points |= self._points(order, [(numbers[bad] + before) // 2])
        points[0] = CurvePoint(0, 0.0, None if points[count].top1 is None else 1.0, None)
        return tuple(points[number] for number in sorted(points))

    def _points(self, order: Sequence[Layer], numbers: Sequence[int]) -> dict[int, CurvePoint]:
        tallies = [_Tally(self._answers) for _ in numbers]
        self._convert([[node for layer in order[:number] for node in layer.nodes] for number in numbers], tallies)
        return {number: tally.point(number) for number, tally in zip(numbers, tallies, strict=True)}

    def _convert(
        self, groups: Sequence[Collection[ir.Node]], tallies: Sequence[_Tally], progress: Progress | None = None
    ) -> None:
        """Convert each group by itself, on all batches."""
        total, done = sum(map(bool, groups)) * len(self._places), 0
        for place in self._places:
            expected = self._baseline(place)
            for index, found, local in self._run.rounded(groups):
                tallies[index].add(expected, found, self._tolerance)
                tallies[index].add_local(local)
                done += 1
                if progress is not None:
                    progress(done, total)

    def _baseline(self, place: int) -> dict[str, Array]:
        """Return what is compared, of a batch; it runs again only where another batch ran last."""
        if self._last is None or self._last[0] != place:
            feeds = self._batches.batch(place).feeds
            count = self._count if self._steps and place not in self._counted else None
            self._counted.add(place)
            if count is not None:
                for name, array in feeds.items():
                    count(name, array)
            self._last = (place, self._run.baseline(feeds, count))
        return self._last[1]

    def _count(self, name: str, array: Any) -> None:
        """Count the numbers that become 0 in codes."""
        step = self._steps.get(name)
        if step is not None and isinstance(array, np.ndarray) and array.dtype.kind == "f":
            nonzero = int(np.count_nonzero(array))
            lost = int((np.abs(array) <= step / 2).sum()) - (array.size - nonzero)
            known = self._vanished.get(name, (0, 0))
            self._vanished[name] = (known[0] + lost, known[1] + nonzero)

    def vanishing(self) -> dict[str, float]:
        """Return the share of each tensor's numbers other than 0 that become 0 in codes."""
        return {name: lost / nonzero for name, (lost, nonzero) in self._vanished.items() if nonzero}
