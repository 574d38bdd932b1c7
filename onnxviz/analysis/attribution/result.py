"""What an attribution is: the map, and all that is needed to read it and to make it again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from onnxviz.errors import printable

if TYPE_CHECKING:
    from onnxviz.analysis.attribution.layers import Layer
    from onnxviz.analysis.attribution.regions import Region
    from onnxviz.analysis.placement import Placement
    from onnxviz.analysis.spatial_heat import Canvas

__all__ = ["Attribution", "Certificate", "attribution_data"]

_MOST_ROWS = 50


class Certificate(Protocol):
    """What is known of how far a map can be trusted."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        ...

    def lines(self) -> tuple[str, ...]:
        """Return it for a reader, a fact a line."""
        ...


@dataclass(frozen=True, eq=False)
class Attribution:
    """How much each part of an input counts for a score, for N samples.

    Attributes:
        method: Name of the method, as in :data:`onnxviz.analysis.attribution.methods.METHODS`.
        maps: Attributed tensor -> float32 ``(N, …)`` of its shape; of a method that attributes to the positions of a
            layer, the layer -> ``(N, h, w)``, ``(N, steps)`` or ``(N, d, h, w)``. Read-only.
        inputs: Input -> what it was fed, samples along the first axis; an attributed inner tensor -> its value.
        target: What is explained, for each sample, in words.
        score: ``(N,)`` float64: the value of the target.
        parameters: All that the method was given, defaults and seed included; plain JSON types.
        classes: Index of the class for each sample; None where the target is none.
        layer: The layer whose positions are attributed; None for other methods.
        baseline_score: ``(N,)``: the score of the baseline, their mean where there are several; None without one.
        completeness: ``(N,)``: the sum of the map less (score − baseline score), where the method promises 0.
        cuts: Where gradients end, a line each.
        providers: Execution providers, in order of preference.
        notes: What a reader should know, a line each.
        model_name: Of the model.
        canvases: Picture or signal of each sample that a map is drawn over; None where it is neither.
        placement: Where the cells of the layer lie on the canvas.
        words: What the positions of a text stand for, for each sample.
        certificate: How far the map can be trusted, where that was examined.
        unit: What the numbers are measured in, such as ``"score / input"``; empty where nothing tells.
        axes: Attributed tensor -> a letter an axis of its map: N samples, C channels or features, others positions.
        regions: For each sample the part of the picture that the target is about; empty where it is about all of it.
        contrast: Whether the map is a difference of two, drawn around 0 whatever its sign.
    """

    method: str
    maps: Mapping[str, npt.NDArray[np.float32]]
    inputs: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    target: tuple[str, ...]
    score: npt.NDArray[np.float64]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[int, ...] | None = None
    layer: Layer | None = None
    baseline_score: npt.NDArray[np.float64] | None = None
    completeness: npt.NDArray[np.float64] | None = None
    cuts: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    model_name: str = "model"
    canvases: tuple[Canvas | None, ...] = field(default=(), repr=False)
    placement: Placement | None = None
    words: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    certificate: Certificate | None = None
    unit: str = ""
    axes: Mapping[str, str] = field(default_factory=dict)
    regions: tuple[Region | None, ...] = field(default=(), repr=False)
    contrast: bool = False

    @property
    def tensor(self) -> str:
        """The attributed tensor, the first where there are several."""
        return next(iter(self.maps))

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """The map of :attr:`tensor`."""
        return self.maps[self.tensor]

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.score)

    def describe(self, sample: int = 0) -> list[str]:
        """Return what stands under the picture of one sample, in parts: target, score, method, parameters, layer."""
        from onnxviz.analysis.scale import number

        parts = [f"target {self.target[sample]}", f"score {number(float(self.score[sample]))}"]
        if self.baseline_score is not None:
            parts.append(f"baseline {number(float(self.baseline_score[sample]))}")
        if self.completeness is not None:
            parts.append(f"completeness delta {number(float(self.completeness[sample]))}")
        parts += [f"{name} {value}" for name, value in self.parameters.items()]
        return [*parts, *([f"layer {self.layer.name}"] if self.layer is not None else [])]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{i}</td><td>{escape(printable(text))}</td><td>{float(score):.6g}</td></tr>"
            for i, (text, score) in enumerate(zip(self.target[:_MOST_ROWS], self.score, strict=False))
        )
        about = " · ".join(self.describe()[2:] if self.samples else [])
        caption = escape(printable(f"{self.method} of {self.model_name} at {self.tensor}, {self.values.shape} {about}"))
        return f"<table><caption>{caption}</caption><tr><th>sample</th><th>target</th><th>score</th></tr>{rows}</table>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the arrays and a manifest: see :func:`attribution_data`.

        Raises:
            OutputError: The ending is not ``.npz``, or the folder cannot be written.
        """
        from onnxviz.graph.files import check_output
        from onnxviz.runtime.storage import write_arrays

        check_output(path, (".npz",))
        write_arrays(os.fspath(path), *attribution_data([self]))


def attribution_data(found: list[Attribution]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of attributions, named ``NUMBER/WHAT``, and a manifest that tells which is which.

    ``NUMBER/map/PLACE`` is the map of the tensor at that place of the manifest's list; ``NUMBER/score``,
    ``NUMBER/baseline_score`` and ``NUMBER/completeness`` are ``(N,)``; ``input/NAME`` is what was fed.
    """
    arrays: dict[str, np.ndarray] = {}
    rows = []
    for place, one in enumerate(found):
        arrays |= {f"{place}/map/{i}": array for i, array in enumerate(one.maps.values())}
        numbers = {"score": one.score, "baseline_score": one.baseline_score, "completeness": one.completeness}
        arrays |= {f"{place}/{name}": array for name, array in numbers.items() if array is not None}
        arrays |= {f"input/{name}": array for name, array in one.inputs.items()}
        rows.append(_row(place, one))
    manifest = {"format": "onnxviz.attribution/1", "model": found[0].model_name, "attributions": rows}
    return arrays, manifest


def _row(place: int, one: Attribution) -> dict[str, Any]:
    centres = None if one.placement is None else [[axis.first, axis.step] for axis in one.placement.axes]
    return {
        "number": place, "method": one.method, "unit": one.unit, "tensors": list(one.maps), "axes": dict(one.axes),
        "parameters": dict(one.parameters),
        "target": list(one.target), "classes": None if one.classes is None else list(one.classes),
        "layer": None if one.layer is None else one.layer.name, "centres": centres, "cuts": list(one.cuts),
        "providers": list(one.providers), "notes": list(one.notes),
        "contrast": one.contrast, "regions": [None if r is None or r.box is None else list(r.box) for r in one.regions],
        "certificate": None if one.certificate is None else one.certificate.to_dict(),
    }  # fmt: skip
