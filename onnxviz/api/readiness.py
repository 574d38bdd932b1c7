"""What float16 or int8 would do to a model: ``onnxviz.readiness``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnxviz.api.common import DATA, PICTURES, batches_for, check_outputs, save_json, save_view, write_numbers
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from onnxviz.analysis.readiness import Readiness
    from onnxviz.analysis.readiness_parts import By, Precision
    from onnxviz.runtime.capture import Feed

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["readiness"]


def readiness(
    model: Model,
    inputs: Feed = None,
    output: Path_ | None = None,
    *,
    to: Precision = "fp16",
    by: By = "node",
    layers: str | Sequence[str] = "*",
    tensors: str | Sequence[str] | None = None,
    most: int = 400,
    tolerance: float = 0.1,
    data: Path_ | None = None,
    batch: int | None = None,
    **options: Any,
) -> Readiness:
    """Measure what float16 or int8 would do: what overflows, which layers are sensitive, how many can be converted.

    See :func:`onnxviz.analysis.conversion_effects.measure_readiness`. Nothing is converted on disk.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; None feeds seeded random numbers, and the result says so.
        output: ``.json``, or a picture: ``.png``, ``.svg`` or ``.pdf``.
        to: ``"fp16"`` or ``"int8"``.
        by: ``"node"``, ``"block"`` or ``"op"``: what is converted at a time.
        layers: Which nodes may be converted; globs, ``op:Conv``, ``@norm``, ``!`` to leave some out.
        tensors: Where the effect is measured; the outputs by default.
        most: Layers that are tried alone; beyond them only those with the largest error of their own are.
        tolerance: Relative error from which an answer counts as changed.
        data: The numbers behind the picture, ``.npz``.
        batch: Samples a batch, where the model leaves that open.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``, ``progress``.

    Raises:
        ModelError, InputError, ExecutionError, OutputError: A model does not open or run, an input does not fit, or the
            file cannot be written.
        CheckError: Nothing computes in float32, or nothing that is compared depends on it.
        SelectionError: A pattern matches nothing.

    >>> import numpy as np, onnx_ir as ir
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) {h = Exp(x) y = Log(h)}''')
    >>> result = readiness(model, {"x": np.float32([1, 12])})
    >>> result.ready, result.overflows[0].tensor
    (False, 'h')
    """
    from onnxviz.analysis.conversion_effects import measure_readiness

    check_outputs((output, (*PICTURES, ".json")), (data, DATA))
    opened = as_model(model)
    progress = options.pop("progress", None)
    batches, run = batches_for(opened, inputs, batch, options)
    result = measure_readiness(
        opened, batches, to, by=by, layers=layers, tensors=tensors, most=most, tolerance=tolerance, progress=progress,
        **run,
    )  # fmt: skip
    if not save_json(result, output):
        from onnxviz.plots.readiness import plot_readiness

        save_view(plot_readiness(result), output)
    if data is not None:
        write_numbers(data, _arrays(result), result.to_dict())
    return result


def _arrays(result: Readiness) -> dict[str, np.ndarray]:
    """Return the numbers behind the picture: one place a layer, and one a point of the curve."""
    import numpy as np

    def layers(name: str) -> np.ndarray:
        found = [getattr(one, name) for one in result.layers]
        return np.array([np.nan if value is None else value for value in found], np.float64)

    effects = [{effect.tensor: effect.relative for effect in one.effects} for one in result.layers]
    return {
        "names": np.array([one.name for one in result.layers]),
        "relative": np.array([[own.get(t, np.nan) for t in result.compared] for own in effects], np.float64),
        "local": layers("local"),
        "overflow": np.array(["overflow" in one.marks for one in result.layers]),
        "underflow": np.array(["underflow" in one.marks for one in result.layers]),
        "curve_layers": np.array([point.layers for point in result.curve], np.int64),
        "curve_relative": np.array([point.relative for point in result.curve], np.float64),
        "curve_changed": np.array([point.problem is not None for point in result.curve]),
    }
