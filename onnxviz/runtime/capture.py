"""Running a model and keeping its intermediate tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxviz.errors import ExecutionError
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.liveness import tensor_bytes
from onnxviz.graph.model import copy_model, model_name
from onnxviz.graph.select import all_tensors, select
from onnxviz.graph.shapes import infer_shapes, open_dims
from onnxviz.runtime.collect import Collector, Reduce
from onnxviz.runtime.inputs import Inputs, load_inputs
from onnxviz.runtime.nodewise import Engine
from onnxviz.runtime.preprocess import Preprocessing
from onnxviz.runtime.providers import short_name
from onnxviz.runtime.record import Capture

__all__ = ["capture"]


def capture(
    model: ir.Model,
    inputs: Inputs | Mapping[str, Any] | Sequence[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
    tensors: str | Sequence[str] = "*",
    *,
    keep: bool = True,
    reduce: Reduce | None = None,
    bodies: bool = True,
    iterations: int = 256,
    providers: str | Sequence[str] = "auto",
    preprocessing: Preprocessing | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    op_library: str | os.PathLike[str] | None = None,
) -> Capture:
    """Run a model once and return its intermediate tensors.

    The model runs piece by piece with nothing fused, so every tensor is what the graph in the file says, and what
    nothing reads any more is dropped: memory is that of the values alive at once plus what is kept. Functions are
    inlined. Only what the asked tensors depend on is computed.

    Args:
        model: The model; it is not changed.
        inputs: Arrays by name; a path or a list of sources as :func:`onnxviz.runtime.inputs.load_inputs` takes them;
            None feeds seeded random numbers.
        tensors: Which, as :func:`onnxviz.graph.select.select` takes them.
        keep: Keep the arrays. Without, the records have statistics only (see ``reduce``).
        reduce: A function that makes something mergeable of a tensor's name and array, such as
            :func:`onnxviz.analysis.statistics.summarize`; the records hold the result as ``statistics``.
        bodies: Record tensors in the bodies of If, Loop and Scan too, a record an iteration.
        iterations: Iterations of a Loop or Scan that are recorded; how many are left out is in ``not_captured``.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        preprocessing, dims, seed: As :func:`onnxviz.runtime.inputs.load_inputs` takes them.
        op_library: A shared library with custom operators.

    Raises:
        SelectionError, InputError, ProviderError, ExecutionError, ModelError: As the functions named above.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] z) {y = Neg(x) z = Relu(y)}'
    ... )
    >>> captured = capture(model, {"x": np.float32([1, -2])}, providers="cpu")
    >>> {name: record.array.tolist() for name, record in captured.items()}
    {'y': [-1.0, 2.0], 'z': [0.0, 2.0]}
    """
    if not isinstance(inputs, Inputs):
        sources = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs or ()
        inputs = load_inputs(model, sources, preprocessing=preprocessing, dims=dims, seed=seed)
    flat = inline_functions(model)
    flat = copy_model(flat) if flat is model else flat
    wanted = select(flat, tensors, bodies=bodies)
    names = {value: name for value, name in all_tensors(flat).items() if value in set(wanted)}
    collector = Collector(names, keep=keep, reduce=reduce, iterations=iterations)
    try:
        with Engine(
            flat,
            wanted,
            providers,
            op_library=op_library,
            keep=False,
            sizes=_sizes(flat, inputs.feeds),
        ) as engine:
            engine.run(inputs.feeds, collector)
            collector.commit(1)
    except ExecutionError as error:
        if inputs.assumed:
            sizes = ", ".join(f"{name}={size}" for name, size in inputs.assumed.items())
            error.hint = f"sizes were assumed ({sizes}): set them with --dim NAME=N, or give --input"
        raise
    finally:
        collector.close()
    records = collector.records("semantic")
    return Capture(
        records,
        inputs.records,
        model_name(model),
        tuple(short_name(p) for p in engine.requested),
        tuple(str(output.name) for output in model.graph.outputs),
        collector.missing,
    )


def _sizes(model: ir.Model, feeds: Mapping[str, Any]) -> dict[ir.Value, int | None]:
    """Return the bytes of every tensor, as far as they can be told from the shapes of what is fed."""
    dims = {
        name: feeds[value].shape[axis]
        for name, (value, axis) in open_dims(model).items()
        if isinstance(feeds.get(value), np.ndarray)
    }
    inferred = infer_shapes(model, dims)
    return {own: tensor_bytes(twin) for own, twin in zip(all_tensors(model), all_tensors(inferred), strict=True)} | {
        own: tensor_bytes(twin) for own, twin in zip(model.graph.inputs, inferred.graph.inputs, strict=True)
    }
