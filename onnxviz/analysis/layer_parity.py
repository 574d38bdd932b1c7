"""The result of comparing a model with its source layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxviz.analysis.comparison import OutputParity, worse
from onnxviz.graph.provenance import Provenance

__all__ = ["LayerError", "LayerParity", "worse_layer"]


@dataclass(frozen=True)
class LayerError:
    """How far what one layer gives is from its source, the worst over all inputs.

    Attributes:
        layer: Path of the layer in the source network; ``"path (2)"`` is the second call of one that is called often.
        class_name: Its class.
        folded: Layers behind it that the exporter folded into it: what is compared is what the last of them gives.
        tensor: The ONNX tensor.
        layout: ``"channels first"`` where the ONNX tensor has its channels first and the source's last,
            ``"time first"`` where steps stand before samples, else ``""``.
        shape: The source's shape, on the last input.
        max_abs: Largest absolute difference of finite elements.
        max_relative: ``max_abs`` over the largest absolute source value.
        relative_l2: ``‖onnx - source‖₂ / ‖source‖₂``.
        cosine: Cosine similarity of the flattened tensors.
        problem: Why the layer differs; None where it agrees.
    """

    layer: str
    class_name: str
    folded: tuple[str, ...]
    tensor: str
    layout: str
    shape: tuple[int, ...]
    max_abs: float
    max_relative: float
    relative_l2: float
    cosine: float
    problem: str | None = None

    @property
    def relative(self) -> float:
        """The relative error that is told and drawn: ``relative_l2``."""
        return self.relative_l2

    @property
    def name(self) -> str:
        """The layer and those folded into it, without the path that they share: ``"block.conv1 + bn1"``."""
        return self._source.name

    @property
    def _source(self) -> Provenance:
        return Provenance(self.layer, self.class_name, "", self.folded)

    def __str__(self) -> str:
        return str(self._source)


@dataclass(frozen=True)
class LayerParity:
    """The comparison of all layers.

    Attributes:
        layers: One entry a call of a layer, in the order in which they ended.
        missing: Layer -> why no tensor of the ONNX model stands for it.
        precision: What the ONNX model computes in: ``"float32"``, or what it was converted to for the comparison.
        tolerance: ``relative_l2`` above which a layer differs; ``max_relative`` may be ten times as large.
        batches: Batch size of each input.
    """

    layers: tuple[LayerError, ...]
    missing: Mapping[str, str]
    precision: str
    tolerance: float
    batches: tuple[int, ...]

    @property
    def first(self) -> LayerError | None:
        """The first layer that differs; None where all agree."""
        return next((layer for layer in self.layers if layer.problem is not None), None)

    @property
    def worst(self) -> LayerError | None:
        """The layer with the largest relative error; None where there are no layers."""
        return max(self.layers, key=lambda layer: layer.relative, default=None)

    @property
    def passed(self) -> bool:
        """True where every layer that was compared agrees."""
        return self.first is None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; a number that is not finite is None."""
        layers = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(layer).items()}
            for layer in self.layers
        ]
        return {
            "precision": self.precision, "passed": self.passed, "tolerance": self.tolerance,
            "batches": list(self.batches),
            "first": None if self.first is None else self.first.layer,
            "worst": None if self.worst is None else self.worst.layer,
            "layers": layers, "missing": dict(self.missing),
        }  # fmt: skip

    def __str__(self) -> str:
        head = f"{self.precision}: " if self.precision != "float32" else ""
        if self.worst is None:
            return f"{head}no layer could be compared"
        worst = f"the worst is {self.worst}, {self.worst.relative:.1e} relative"
        if self.first is None:
            one = len(self.layers) == 1
            return f"{head}{len(self.layers)} {'layer agrees' if one else 'layers agree'}: {worst}"
        differing = sum(layer.problem is not None for layer in self.layers)
        return (
            f"{head}{differing} of {len(self.layers)} layers differ: the first is {self.first}, "
            f"{self.first.relative:.1e} relative; {worst}"
        )


def worse_layer(a: LayerError, b: LayerError) -> LayerError:
    """Return the worst figures of two comparisons of one layer."""
    first, second = (
        OutputParity(e.tensor, "", e.shape, e.max_abs, e.max_relative, e.relative_l2, e.cosine, 0.0, e.problem)
        for e in (a, b)
    )
    both = worse(first, second)
    further = a if a.relative >= b.relative else b
    return LayerError(
        a.layer, a.class_name, a.folded, further.tensor, further.layout, b.shape,
        both.max_abs, both.max_relative, both.relative_l2, both.cosine, both.problem,
    )  # fmt: skip
