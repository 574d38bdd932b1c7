"""Whether a converted model computes what its source computes: outputs, and layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.comparison import OutputParity, compare, worse
from onnxviz.analysis.layer_parity import LayerParity
from onnxviz.converters.base import Array, Conversion, seeded
from onnxviz.converters.layers import compare_layers
from onnxviz.errors import ConversionError, OnnxvizError, ParityError
from onnxviz.graph.model import summary_line
from onnxviz.runtime.precision import in_precision
from onnxviz.runtime.session import run_model

__all__ = ["Parity", "check_parity", "measure_parity", "parity_feeds"]


@dataclass(frozen=True)
class Parity:
    """The comparison of all outputs.

    Attributes:
        outputs: One entry an output.
        batches: The batch size of each input that was compared.
        layers: The comparison layer by layer, then the same after conversion to other precisions; empty where the
            layers of the source cannot be watched.
    """

    outputs: tuple[OutputParity, ...]
    batches: tuple[int, ...]
    layers: tuple[LayerParity, ...] = ()

    @property
    def passed(self) -> bool:
        """True where every output agrees."""
        return all(output.problem is None for output in self.outputs)

    @property
    def worst(self) -> OutputParity:
        """The output that fails first, else the one with the largest relative error."""
        return max(self.outputs, key=lambda o: (o.problem is not None, max(o.relative_l2, o.max_relative)))

    @property
    def constant(self) -> tuple[str, ...]:
        """Outputs that were the same for every input, so that their agreement proves little."""
        return tuple(output.name for output in self.outputs if not output.varies)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; a number that is not finite, as where shapes differ, is None."""
        outputs = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(output).items()}
            for output in self.outputs
        ]
        layers = [comparison.to_dict() for comparison in self.layers]
        return {"passed": self.passed, "batches": list(self.batches), "outputs": outputs, "layers": layers}

    def __str__(self) -> str:
        worst = self.worst
        batches = ", ".join(map(str, dict.fromkeys(self.batches)))
        return (
            f"{len(self.outputs)} output{'s' * (len(self.outputs) != 1)} agree{'s' * (len(self.outputs) == 1)} "
            f"on {len(self.batches)} inputs (batch {batches}): {worst.name} is within {worst.relative_l2:.1e} relative"
            if self.passed
            else f"output {worst.name!r} {worst.problem}"
        )


def parity_feeds(conversion: Conversion, batches: Sequence[int] = (1, 2, 5), seed: int = 0) -> list[dict[str, Array]]:
    """Draw seeded inputs: one a batch size where the batch axis is dynamic, else as many of the fixed size.

    Every axis that shares the batch's name has its size; others have that of the conversion's example. Integers lie in
    the example's range.
    """
    firsts = [v.shape[0] for v in conversion.model.graph.inputs if v.shape is not None and len(v.shape)]
    name = next((d.value for d in firsts if isinstance(d, ir.SymbolicDim) and d.value), None)
    feeds = []
    for index, batch in enumerate(batches):
        rng = np.random.default_rng([seed, index])
        feed = {}
        for value in conversion.model.graph.inputs:
            like = conversion.example[value.name or ""]
            shape = list(like.shape)
            for axis, size in enumerate(value.shape or ()):
                if isinstance(size, ir.SymbolicDim) and (axis == 0 or (name and size.value == name)):
                    shape[axis] = batch
            feed[value.name or ""] = seeded(shape, like.dtype, rng, like)
        feeds.append(feed)
    return feeds


def measure_parity(
    conversion: Conversion,
    feeds: Iterable[Mapping[str, Array]] | None = None,
    *,
    tolerance: float | None = None,
    precisions: Sequence[str] = (),
    seed: int = 0,
) -> Parity:
    """Run the source network and the ONNX model on the same inputs and compare every output, and every layer.

    Args:
        conversion: What a converter returned.
        feeds: Inputs by name; by default :func:`parity_feeds`.
        tolerance: Accepted relative error for every output; by default by dtype (``float32``: 1e-4).
        precisions: Compare the layers after conversion to these too, of :data:`onnxviz.runtime.precision.PRECISIONS`.
        seed: Seed of the default inputs.

    Returns:
        The worst figures of each output over all inputs; a failing output has its ``problem`` set.

    Raises:
        ConversionError: The source network or the ONNX model does not run on one of the inputs, or they have different
            numbers of outputs.
    """
    chosen = list(parity_feeds(conversion, seed=seed) if feeds is None else feeds)
    if not chosen:
        raise ConversionError("there is nothing to compare on", hint="give at least one input")
    names = [value.name or "" for value in conversion.model.graph.outputs]
    worst: dict[str, OutputParity] = {}
    first_row: dict[str, Array] = {}
    varying: set[str] = set()
    batches = []
    for feed in chosen:
        first = next((a for a in feed.values() if a.ndim), None)
        batches.append(1 if first is None else len(first))
        expected = _run_source(conversion, feed, batches[-1])
        got = _run_onnx(conversion, feed, batches[-1])
        if len(expected) != len(names):
            raise ConversionError(f"the ONNX model has {len(names)} outputs, its source {len(expected)}")
        for name, source in zip(names, expected, strict=True):
            one = compare(name, source, got[name], tolerance)
            worst[name] = worse(worst[name], one) if name in worst else one
            rows = source if source.ndim and len(source) == batches[-1] else source[None]
            reference = first_row.setdefault(name, rows[0] if len(rows) else rows)
            if any(_content(row) != _content(reference) for row in rows):
                varying.add(name)
    outputs = tuple(replace(o, varies=o.name in varying) for o in worst.values())
    models = {precision: in_precision(conversion.model, precision, chosen) for precision in precisions}
    return Parity(outputs, tuple(batches), tuple(compare_layers(conversion, chosen, models=models)))


def _content(row: Any) -> object:
    """Return what tells one row from another; strings (dtype object) have no bytes of their own."""
    plain = isinstance(row, (np.ndarray, np.generic)) and row.dtype != object
    return row.tobytes() if plain else np.asarray(row).tolist()


def _run_source(conversion: Conversion, feed: Mapping[str, Array], batch: int) -> list[Array]:
    try:
        return conversion.reference(feed)
    except Exception as error:
        raise ConversionError(
            f"the source network does not run at batch size {batch}: {summary_line(error)}",
            hint="convert it with --static if its batch size is fixed",
        ) from error


def _run_onnx(conversion: Conversion, feed: Mapping[str, Array], batch: int) -> dict[str, Array]:
    try:
        return run_model(conversion.model, feed)
    except OnnxvizError as error:
        if not _runs(conversion):
            raise ConversionError(
                f"the converted model does not run, so nothing can be compared: {error.message}",
                hint="convert the network in float32 where onnxruntime lacks a type, or add --no-parity",
            ) from error
        raise ConversionError(
            f"the converted model does not run at batch size {batch}: {error.message}",
            hint="convert it with --static, or keep the shapes in the network free of constants",
        ) from error


def _runs(conversion: Conversion) -> bool:
    try:
        run_model(conversion.model, conversion.example)
    except OnnxvizError:
        return False
    return True


def check_parity(
    conversion: Conversion,
    feeds: Iterable[Mapping[str, Array]] | None = None,
    *,
    tolerance: float | None = None,
    precisions: Sequence[str] = (),
    seed: int = 0,
) -> Parity:
    """As :func:`measure_parity`, but an output that differs is an error.

    Raises:
        ParityError: An output differs; the message names it, its error and the tolerance, and the exception's
            ``parity`` holds the whole comparison.
        ConversionError: As :func:`measure_parity`.
    """
    parity = measure_parity(conversion, feeds, tolerance=tolerance, precisions=precisions, seed=seed)
    if not parity.passed:
        first = parity.layers[0].first if parity.layers else None
        where = f"; the first layer that differs is {first}" if first is not None else ""
        error = ParityError(
            f"the converted model differs from its source: output {parity.worst.name!r} {parity.worst.problem}{where}",
            hint=_advice(conversion),
        )
        vars(error)["parity"] = parity
        raise error
    return parity


def _advice(conversion: Conversion) -> str:
    if conversion.exporter.startswith("TorchScript (fallback"):
        return (
            f"it was written by {conversion.exporter}: a branch on the data is fixed to one side; write it "
            "with torch.cond or torch.where"
        )
    if _is_random(conversion):
        return "the source network gives something else each time it runs, so add --no-parity"
    return f"it was written by {conversion.exporter}; do not use it"


def _is_random(conversion: Conversion) -> bool:
    first, second = (conversion.reference(conversion.example) for _ in range(2))
    return any(a.tobytes() != b.tobytes() for a, b in zip(first, second, strict=True))
