"""The result of comparing two models tensor by tensor, and the numbers in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from html import escape
from typing import Any, Literal

import numpy as np

from onnxviz.analysis.comparison import decibels
from onnxviz.analysis.error_metrics import ErrorMetrics
from onnxviz.errors import counted, printable

__all__ = ["ComparedTensor", "How", "ModelComparison"]

How = Literal["name", "weights", "structure", "activations"]


@dataclass(frozen=True)
class ComparedTensor:
    """One tensor of a model beside the one of the reference that it stands for, the worst over all inputs.

    Attributes:
        tensor: Of the model.
        reference: Of the reference.
        node: The node that writes it in the model; its operator where it has no name.
        op_type: Of that node.
        matched: How the two were paired.
        shape: In the model.
        dtype: In the model.
        transposed: The axes of the reference's tensor in the model's order; empty where they are the same.
        max_abs: Largest absolute difference of finite elements.
        max_relative: ``max_abs`` over the largest magnitude of the reference.
        relative_l2: ``‖own - reference‖₂ / ‖reference‖₂``.
        cosine: Cosine similarity.
        metrics: RMSE, PSNR and, for outputs, agreement of the largest elements.
        sqnr: ``20·log₁₀(‖reference‖₂ / ‖own - reference‖₂)`` in dB; infinite where they are equal.
        local: The relative error that is made here: ``relative_l2`` when the nodes since the nearest compared tensors
            read what the reference holds there. None where they could not be run.
        tolerance: What ``relative_l2`` may reach by rounding.
        problem: How it differs; None where it agrees.
        output: Whether it is an output of the model.
    """

    tensor: str
    reference: str
    node: str
    op_type: str
    matched: How
    shape: tuple[int, ...]
    dtype: str
    transposed: tuple[int, ...]
    max_abs: float
    max_relative: float
    relative_l2: float
    cosine: float
    metrics: ErrorMetrics
    local: float | None
    tolerance: float
    problem: str | None
    output: bool = False

    @property
    def sqnr(self) -> float:
        """Signal-to-noise ratio in dB, from ``relative_l2``."""
        return decibels(self.relative_l2)

    @property
    def made_here(self) -> bool:
        """Whether the error that these nodes make alone is beyond the tolerance."""
        return self.local is not None and self.local > self.tolerance

    @property
    def label(self) -> str:
        """The node, and its operator."""
        return f"{self.node} ({self.op_type})" if self.node != self.op_type else f"{self.op_type} of {self.tensor}"

    def worse(self, other: ComparedTensor) -> ComparedTensor:
        """Return the worst numbers of two batches."""
        locals_ = [each.local for each in (self, other) if each.local is not None]
        return replace(
            other, max_abs=max(self.max_abs, other.max_abs), max_relative=max(self.max_relative, other.max_relative),
            relative_l2=max(self.relative_l2, other.relative_l2), cosine=min(self.cosine, other.cosine),
            metrics=self.metrics.worse(other.metrics), local=max(locals_, default=None),
            problem=self.problem or other.problem,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; a number that is not finite is None."""
        data = {**asdict(self), **asdict(self.metrics), "sqnr": self.sqnr, "made_here": self.made_here}
        del data["metrics"]
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in data.items()}


@dataclass(frozen=True)
class ModelComparison:
    """Two models, compared on the same inputs.

    Attributes:
        reference: Name of the reference.
        model: Name of the model.
        tensors: What was compared, in the order in which the model computes it.
        unmatched: Tensors of the model that none of the reference stands for -> why.
        inputs: What both were fed, a line each.
        samples: Batches that were run.
        notes: What a reader should know besides.
    """

    reference: str
    model: str
    tensors: tuple[ComparedTensor, ...]
    unmatched: Mapping[str, str]
    inputs: tuple[str, ...]
    samples: int
    notes: tuple[str, ...] = field(default=())

    @property
    def first(self) -> ComparedTensor | None:
        """The first tensor that differs; None where all agree."""
        return next((one for one in self.tensors if one.problem), None)

    @property
    def worst(self) -> ComparedTensor | None:
        """The tensor that differs most; None where none was compared."""
        return max(self.tensors, key=lambda one: one.relative_l2, default=None)

    @property
    def culprit(self) -> ComparedTensor | None:
        """The tensor behind the nodes that make the largest error themselves, of those beyond the tolerance."""
        own = [one for one in self.tensors if one.made_here]
        return max(own, key=lambda one: one.local or 0.0, default=None)

    @property
    def passed(self) -> bool:
        """Whether everything that was compared agrees, outputs among it."""
        return self.first is None and any(one.output for one in self.tensors)

    def counts(self) -> dict[str, int]:
        """Return how many tensors were paired in which way."""
        ways: tuple[How, ...] = ("name", "weights", "structure", "activations")
        return {way: sum(one.matched == way for one in self.tensors) for way in ways}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "schema": 1, "reference": self.reference, "model": self.model, "passed": self.passed,
            "first": None if self.first is None else self.first.tensor,
            "worst": None if self.worst is None else self.worst.tensor,
            "culprit": None if self.culprit is None else self.culprit.tensor,
            "matched": self.counts(), "samples": self.samples, "inputs": list(self.inputs),
            "tensors": [one.to_dict() for one in self.tensors], "unmatched": dict(self.unmatched),
            "notes": list(self.notes),
        }  # fmt: skip

    def __str__(self) -> str:
        return "\n".join(printable(line, 300) for line in self._lines())

    def _lines(self) -> list[str]:
        ways = ", ".join(f"{count} by {way}" for way, count in self.counts().items() if count)
        found = f"{counted(len(self.tensors), 'tensor')} compared on {counted(self.samples, 'batch')}"
        lines = [f"{found}{f' ({ways})' if ways else ''}; {len(self.unmatched)} without a twin"]
        if self.tensors and all(one.output for one in self.tensors) and self.unmatched:
            lines.append("nothing but the outputs could be compared: no other tensor has a twin")
        if self.first is None:
            lines.append("all agree" if self.tensors else "nothing could be compared")
        else:
            differing = sum(one.problem is not None for one in self.tensors)
            lines.append(f"{differing} differ{'s' * (differing == 1)}")
            lines.append(f"first: {_told(self.first)}")
            if self.culprit is not None:
                lines.append(f"largest error of its own: {_told(self.culprit)}")
        if self.worst is not None and self.worst.relative_l2:
            lines.append(f"worst: {_told(self.worst)}")
        told = [f"output {o.tensor}: {_measures(o)}; {o.problem or 'agrees'}" for o in self.tensors if o.output]
        return [*lines, *told, *self.notes]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(printable(one.label))}</td><td>{one.relative_l2:.2e}</td>"
            f"<td>{'' if one.local is None else format(one.local, '.2e')}</td>"
            f"<td>{escape(printable(one.problem or ''))}</td></tr>"
            for one in self.tensors
        )
        head = "<tr><th>node</th><th>relative error</th><th>made here</th><th></th></tr>"
        return (
            f"<table><caption>{escape(printable(f'{self.reference} and {self.model}'))}</caption>{head}{rows}</table>"
        )


def _told(one: ComparedTensor) -> str:
    own = "" if one.local is None else f", {one.local:.2g} of it made here" if one.local else ", none of it made here"
    twin = "" if one.reference == one.tensor else f" ({one.reference} of the reference)"
    return f"{one.label}, tensor {one.tensor}{twin}: {_numbers(one)}{own}"


def _measures(one: ComparedTensor) -> str:
    """Return the numbers of an output, with those that are measured of outputs only."""
    found = one.metrics
    parts = [_numbers(one), f"RMSE {found.rmse:.2g}"]
    parts += [f"SQNR {one.sqnr:.1f} dB", f"PSNR {found.psnr:.1f} dB"] if math.isfinite(one.sqnr) else []
    ranks = (("largest", found.top1), ("five largest", found.top5))
    parts += [f"{name} the same in {share:.1%}" for name, share in ranks if share is not None]
    return ", ".join(parts)


def _numbers(one: ComparedTensor) -> str:
    return f"{one.relative_l2:.2g} relative, {one.max_abs:.2g} at most, cosine {one.cosine:.6f}"
