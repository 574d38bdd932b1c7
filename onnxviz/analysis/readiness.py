"""Whether a model is ready for float16 or int8: the result, and the numbers in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from onnxviz.analysis.comparison import decibels
from onnxviz.analysis.readiness_parts import By, CurvePoint, LayerEffect, Precision, TensorRange, sensitivity
from onnxviz.errors import counted, listed, printable

__all__ = ["Readiness", "reasons"]

_NAMES = {"fp16": "float16", "int8": "int8"}
_LISTED = 10


@dataclass(frozen=True)
class Readiness:
    """What float16 or int8 would do to a model.

    Attributes:
        model: Its name.
        to: ``"fp16"`` or ``"int8"``.
        by: What a layer is.
        layers: What each does alone, in the order of execution.
        tensors: The range of each floating-point tensor, in the order of execution, then of each weight.
        curve: Converting from the least to the most sensitive layer.
        left_out: Nodes that compute in float32 and stay so -> why.
        compared: The tensors on which the effect is measured.
        tolerance: Relative error from which an answer counts as changed.
        inputs: What it was fed, a line each.
        samples: Batches the ranges are from, and batches that the layers were tried on.
        notes: What a reader should know besides.
    """

    model: str
    to: Precision
    by: By
    layers: tuple[LayerEffect, ...]
    tensors: tuple[TensorRange, ...]
    curve: tuple[CurvePoint, ...]
    left_out: Mapping[str, str]
    compared: tuple[str, ...]
    tolerance: float
    inputs: tuple[str, ...]
    samples: tuple[int, int]
    notes: tuple[str, ...] = field(default=())

    @property
    def whole(self) -> CurvePoint:
        """All layers converted."""
        return self.curve[-1]

    @property
    def ready(self) -> bool:
        """Whether the answer stays the same with all layers converted."""
        return self.whole.problem is None

    @property
    def ranking(self) -> tuple[LayerEffect, ...]:
        """The layers, the most sensitive first: those that change the answer, then by error; those not tried last."""
        return tuple(sorted(self.layers, key=sensitivity))

    @property
    def safe(self) -> int:
        """How many layers, from the least sensitive on, can be converted before a tried number changes the answer."""
        if self.ready:
            return len(self.layers)
        bad = next((i for i, point in enumerate(self.curve) if point.problem), len(self.curve))
        return self.curve[bad - 1].layers if bad else 0

    @property
    def keep(self) -> tuple[str, ...]:
        """The nodes to leave in float32 so that the answer stays, the most sensitive first."""
        most = self.ranking[: len(self.layers) - self.safe]
        return tuple(node for layer in most for node in layer.nodes)

    @property
    def overflows(self) -> tuple[TensorRange, ...]:
        """The tensors and weights of which some numbers become Inf, the largest first."""
        return tuple(sorted((t for t in self.tensors if t.overflow), key=lambda one: -one.values.largest))

    @property
    def underflows(self) -> tuple[TensorRange, ...]:
        """The tensors and weights of which half or more becomes 0, or all is subnormal, the smallest first."""
        return tuple(sorted((t for t in self.tensors if t.flat), key=lambda one: one.values.largest))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "schema": 1, "model": self.model, "to": self.to, "by": self.by, "ready": self.ready,
            "tolerance": self.tolerance, "compared": list(self.compared), "inputs": list(self.inputs),
            "batches": {"ranges": self.samples[0], "layers": self.samples[1]},
            "ranking": [one.name for one in self.ranking], "safe": self.safe, "keep": list(self.keep),
            "overflow": [one.tensor for one in self.overflows], "underflow": [one.tensor for one in self.underflows],
            "layers": [one.to_dict() for one in self.layers], "curve": [one.to_dict() for one in self.curve],
            "tensors": [one.to_dict() for one in self.tensors], "left_out": dict(self.left_out),
            "notes": list(self.notes),
        }  # fmt: skip

    def __str__(self) -> str:
        return "\n".join(printable(line, 400) for line in self._lines())

    def _lines(self) -> list[str]:
        lines = [
            f"{self.model} in {_NAMES[self.to]}: {'ready' if self.ready else 'the answer changes'} with all "
            f"{counted(len(self.layers), self.by)} converted: {_in_words(self.whole.relative, self.whole.top1)}"
            + (f" ({self.whole.problem})" if self.whole.problem else "")
        ]
        if not self.ready:
            lines.append(
                f"the answer stays with the {self.safe} least sensitive of {len(self.layers)} converted; leave in "
                f"float32: {listed(self.keep, 8)}"
            )
        lines.append(f"compared: {listed(self.compared)}; an answer counts as changed {self._rule()}")
        lines += [*self._ranges(), "", f"most sensitive of {len(self.layers)}, each converted alone:"]
        lines += [f"  {i + 1:>2}  {_row(one)}" for i, one in enumerate(self.ranking[:_LISTED])]
        if self.left_out:
            lines.append(f"of the nodes that compute, {len(self.left_out)} stay as they are: {reasons(self.left_out)}")
        return [*lines, *self.notes]

    def _rule(self) -> str:
        classes = " where its best class is another, or" if self.whole.top1 is not None else ""
        return f"{classes.lstrip() + ' ' if classes else ''}from {self.tolerance:.2g} relative error on"

    def _ranges(self) -> list[str]:
        over, under = self.overflows, self.underflows
        lines = []
        if self.to == "fp16":
            head = f"overflow (65520 and more): {counted(len(over), 'tensor') if over else 'none'}"
            lines.append(head + "".join(f"; {_place(t)} reaches {t.values.largest:.3g}" for t in over[:5]))
        what = "half or more becomes 0, or all is subnormal" if self.to == "fp16" else "half or more becomes 0"
        lines.append(
            f"underflow ({what}): {counted(len(under), 'tensor') if under else 'none'}"
            + "".join(f"; {_place(t)} {f'{t.vanishing:.0%} to 0' if t.vanishing else 'subnormal'}" for t in under[:5])
        )
        return lines

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(printable(one.name))}</td><td>{escape(printable(one.op_type))}</td>"
            f"<td>{one.relative:.2e}</td><td>{escape(printable(', '.join(one.marks)))}</td></tr>"
            for one in self.ranking[:50]
        )
        caption = f"{self.model} in {_NAMES[self.to]}: {'ready' if self.ready else 'the answer changes'}"
        head = "<tr><th>layer</th><th>operator</th><th>relative error</th><th></th></tr>"
        return f"<table><caption>{escape(printable(caption))}</caption>{head}{rows}</table>"


def reasons(left_out: Mapping[str, str]) -> str:
    """Return why nodes are not converted, with how many for each reason.

    >>> reasons({"a": "it is control flow", "b": "it is control flow"})
    'it is control flow (2)'
    """
    return "; ".join(f"{why} ({count})" for why, count in Counter(left_out.values()).most_common())


def _in_words(relative: float, top1: float | None) -> str:
    """Return an error in words."""
    if not math.isfinite(relative):
        return "NaN, Inf or another shape"
    classes = "" if top1 is None else f", top-1 {top1:.0%} the same"
    return (
        f"{relative:.2g} relative ({round(decibels(relative))} dB){classes}" if relative else f"no difference{classes}"
    )


def _row(one: LayerEffect) -> str:
    label = one.name if one.name.startswith(f"{one.op_type} of ") else f"{one.name} ({one.op_type})"
    worst = one.worst
    marks = f"  {', '.join(one.marks)}" if one.marks else ""
    if worst is None:
        return f"{label}: not tried; its own error is {one.local or 0:.2g}{marks}"
    detail = (
        ""
        if not math.isfinite(worst.relative)
        else f", largest difference {worst.max_abs:.2g}, cosine {worst.cosine:.6f}"
    )
    changed = "  changes the answer" if one.changes else ""
    return f"{label}: {_in_words(one.relative, one.top1)}{detail}{changed}{marks}"


def _place(one: TensorRange) -> str:
    return f"{one.kind} {one.tensor}" + (f" ({one.op_type})" if one.op_type else "")
