"""Where two models part: ``onnxviz.compare``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onnxviz.api.common import PICTURES, batches_for, check_outputs, save_json, save_view
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxviz.analysis.model_comparison import ModelComparison
    from onnxviz.runtime.capture import Feed

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["compare"]


def compare(
    reference: Model,
    model: Model,
    inputs: Feed = None,
    output: Path_ | None = None,
    *,
    tolerance: float | None = None,
    batch: int | None = None,
    model_providers: Sequence[str] | str | None = None,
    optimize: str | None = None,
    **options: Any,
) -> ModelComparison:
    """Compare a model with a reference tensor by tensor: where it first differs, where most, and where error is made.

    See :func:`onnxviz.analysis.compare_models.compare_models`.

    Args:
        reference: What is right: a path or an opened model.
        model: What is compared with it.
        inputs: What to feed both; None feeds seeded random numbers, and the result says so.
        output: ``.json``, or a picture: ``.png``, ``.svg`` or ``.pdf``.
        tolerance: Relative error that passes; None for what types and depth explain.
        batch: Samples a batch, where the model leaves that open.
        model_providers: Where the model runs, if elsewhere than the reference.
        optimize: ``"basic"``, ``"extended"``, ``"layout"`` or ``"all"``: compare what onnxruntime's optimiser makes of
            the model at that level, in place of the model; see :func:`onnxviz.runtime.production.optimized_model`.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``, ``progress``.

    Raises:
        ModelError, InputError, ExecutionError, OutputError: A model does not open or run, an input does not fit, or the
            file cannot be written.

    >>> import onnx_ir as ir
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = %s(x)}'
    >>> compare(ir.from_onnx_text(text % "Neg"), ir.from_onnx_text(text % "Neg")).passed
    True
    """
    from onnxviz.analysis.compare_models import compare_models

    check_outputs((output, (*PICTURES, ".json")))
    first, second = as_model(reference), as_model(model)
    batches, run = batches_for(first, inputs, batch, options)
    if optimize is not None:
        from onnxviz.runtime.production import optimized_model

        where = model_providers or run.get("providers", "cpu")
        second = optimized_model(second, where, op_library=run.get("op_library"), level=optimize)
    result = compare_models(first, second, batches, limit=tolerance, model_providers=model_providers, **run)
    if not save_json(result, output):
        from onnxviz.plots.model_comparison import plot_comparison

        save_view(plot_comparison(result), output)
    return result
