"""The numbers of a measured readiness: what a conversion does to a layer, to a tensor, and to more and more layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from onnxviz.analysis.comparison import decibels
from onnxviz.analysis.precisions import LARGEST16, NORMAL16, ValueRange

__all__ = ["By", "CurvePoint", "Effect", "LayerEffect", "Precision", "TensorRange", "ordered", "sensitivity"]

Precision = Literal["fp16", "int8"]
By = Literal["node", "block", "op"]


@dataclass(frozen=True)
class Effect:
    """What a conversion does to one tensor that is compared, the worst over all batches.

    Attributes:
        tensor: Its name.
        relative: ``‖converted - float‖₂ / ‖float‖₂``; infinite where NaN, Inf or another shape came of it.
        max_abs: Largest absolute difference.
        max_relative: ``max_abs`` over the largest magnitude.
        cosine: Cosine similarity.
        top1: Share of samples with the same best class, for what has the form of class scores, ``(N, C)``; else None.
        topk: Mean share of the ``k`` best classes that both have, for the same.
        k: How many those are.
        problem: Why the answer counts as changed; None where it does not.
    """

    tensor: str
    relative: float
    max_abs: float
    max_relative: float
    cosine: float
    top1: float | None = None
    topk: float | None = None
    k: int = 0
    problem: str | None = None

    @property
    def sqnr(self) -> float:
        """Signal to quantisation noise in dB, ``-20·log₁₀(relative)``."""
        return decibels(self.relative)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; a number that is not finite is None."""
        return _plain({**asdict(self), "sqnr_db": self.sqnr})


@dataclass(frozen=True)
class LayerEffect:
    """What converting one layer alone does.

    Attributes:
        name: The node, or the group of nodes.
        op_type: Its operator, or how many nodes the group has.
        tensor: What it gives.
        place: Its place in the order of execution, from 0.
        nodes: Names of the nodes that are converted, for a list of exceptions; operator and tensor of nameless ones.
        local: Relative error of what it gives; None where that was not in memory any more.
        effects: What becomes of the compared tensors; empty where it was not tried, as its own error is small.
        marks: ``"overflow"`` and ``"underflow"``: of a tensor or weight that it reads or gives.
    """

    name: str
    op_type: str
    tensor: str
    place: int
    nodes: tuple[str, ...]
    local: float | None
    effects: tuple[Effect, ...]
    marks: tuple[str, ...] = ()

    @property
    def worst(self) -> Effect | None:
        """The compared tensor that suffers most; None where it was not tried."""
        return max(self.effects, key=lambda one: one.relative, default=None)

    @property
    def top1(self) -> float | None:
        """The lowest share of samples with the same best class; None where nothing has the form of class scores."""
        return min((one.top1 for one in self.effects if one.top1 is not None), default=None)

    @property
    def relative(self) -> float:
        """The largest relative error of a compared tensor; NaN where it was not tried."""
        return self.worst.relative if self.worst is not None else math.nan

    @property
    def changes(self) -> bool:
        """Whether this layer alone changes the answer."""
        return any(one.problem for one in self.effects)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        data = {k: v for k, v in asdict(self).items() if k != "effects"}
        own = {"relative": self.relative, "sqnr_db": decibels(self.relative) if self.effects else math.nan}
        return _plain({**data, **own}) | {"changes": self.changes, "effects": [one.to_dict() for one in self.effects]}


@dataclass(frozen=True)
class CurvePoint:
    """So many layers converted at once, the least sensitive first.

    Attributes:
        layers: How many.
        relative: The largest relative error of a compared tensor.
        top1: The lowest share of samples with the same best class; None where nothing has the form of class scores.
        problem: Why the answer counts as changed; None where it does not.
    """

    layers: int
    relative: float
    top1: float | None
    problem: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return _plain({**asdict(self), "sqnr_db": decibels(self.relative)})


@dataclass(frozen=True)
class TensorRange:
    """The numbers of one tensor, and what the conversion cannot hold of them.

    Attributes:
        tensor: Its name.
        kind: ``"input"``, ``"activation"`` or ``"weight"``.
        node: Who writes it; of a weight, who reads it; empty for an input.
        op_type: Of that node.
        values: Its range.
        vanishing: Share of the elements other than 0 that become 0.
        step: Scale of its codes in int8; None where it stays in float, and for weights, whose channels have their own.
        to: What it is converted to.
    """

    tensor: str
    kind: Literal["input", "activation", "weight"]
    node: str
    op_type: str
    values: ValueRange
    vanishing: float
    to: Precision
    step: float | None = None

    @property
    def overflow(self) -> float:
        """Share of the elements other than 0 that become Inf; nothing does in int8, whose range is that of the data."""
        return self.values.share(self.values.over) if self.to == "fp16" else 0.0

    @property
    def underflow(self) -> float:
        """Share of the elements other than 0 that become subnormal or 0; in int8, that become 0."""
        return self.values.share(self.values.subnormal) if self.to == "fp16" else self.vanishing

    @property
    def flat(self) -> bool:
        """Whether most of what it holds is lost below: half becomes 0, or all becomes subnormal."""
        lost = self.vanishing >= 0.5 or (self.to == "fp16" and 0 < self.values.largest < NORMAL16)
        return self.values.nonzero > 0 and lost

    @property
    def headroom(self) -> float:
        """How many times larger the numbers may become before the first is Inf in float16."""
        return LARGEST16 / self.values.largest if self.values.largest else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return _plain({
            "tensor": self.tensor, "kind": self.kind, "node": self.node, "op_type": self.op_type,
            **asdict(self.values), "largest": self.values.largest, "overflow": self.overflow,
            "underflow": self.underflow, "vanishing": self.vanishing, "peak_over_rms": self.values.peak,
            **({"headroom": self.headroom} if self.to == "fp16" else {"step": self.step}),
        })  # fmt: skip


def sensitivity(one: LayerEffect) -> tuple[Any, ...]:
    """Return what layers are sorted by, the most sensitive first."""
    if not one.effects:
        return (1, -(one.local or 0.0), one.place)
    return (0, not one.changes, -one.relative, 1.0 if one.top1 is None else one.top1, -(one.local or 0.0), one.place)


def ordered(layers: Sequence[LayerEffect]) -> list[LayerEffect]:
    """Return layers, the least sensitive first."""
    return sorted(layers, key=sensitivity)[::-1]


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """Return numbers that JSON has; one that is not finite is None."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in data.items()}
