"""What a model does at other sizes: ``onnxviz.sweep``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxviz.api.common import PICTURES, batches_for, check_outputs, save_json, save_view
from onnxviz.errors import InputError
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxviz.analysis.sweep_result import Sweep
    from onnxviz.runtime.capture import Feed

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["sweep"]


def sweep(
    model: Model,
    inputs: Feed = None,
    output: Path_ | None = None,
    *,
    sizes: Mapping[str, Sequence[int]] | None = None,
    free: Sequence[str] = (),
    max_seconds: float = 120.0,
    max_memory: str | int = "4GB",
    **options: Any,
) -> Sweep:
    """Run a model at many sizes of its open dimensions: what works, what changes, what fails.

    See :func:`onnxviz.analysis.sweep.sweep_sizes`.

    Args:
        model: A path or an opened model.
        inputs: What to feed it at its usual sizes; None feeds seeded random numbers.
        output: ``.json``, or a picture: ``.png``, ``.svg`` or ``.pdf``.
        sizes: Dimension -> sizes to try; the others keep their usual size. None for all, with sizes chosen by the
            model's strides.
        free: Fixed axes to take for open, as ``"input:axis"`` or ``"input:axis=name"``; axes of one name go together.
        max_seconds: Time for the whole sweep; what is left then is told as not tried.
        max_memory: Most resident memory of the process that runs the model, in bytes or as ``"4GB"``.
        options: ``dims`` (usual sizes of dimensions), ``preprocessing``, ``seed``, ``op_library``, ``progress``.

    Raises:
        ModelError, InputError: The model does not open, or an input, a dimension or a limit is none.
        CheckError: The model has no open dimension, or does not run at its usual sizes.
        OutputError: The file cannot be written.

    >>> import onnx_ir as ir
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 4] x) => (float[n, 4] y) {y = Relu(x)}'
    >>> result = sweep(ir.from_onnx_text(text), sizes={"n": [1, 2, 5]})
    >>> result.passed, str(result.dimensions[0].rule), result.shape("y")
    (True, 'works at all 3 sizes from 1 to 5', ['n', '4'])
    """
    from onnxviz.analysis.sweep import sweep_sizes
    from onnxviz.runtime.plan import parse_bytes

    check_outputs((output, (*PICTURES, ".json")))
    opened = as_model(model)
    memory = parse_bytes(max_memory)
    if free:
        opened, before = _freed(opened, free)
        options["dims"] = before | dict(options.get("dims") or {})
    batches, run = batches_for(opened, inputs, None, options)
    result = sweep_sizes(opened, batches.first(), sizes=sizes, seconds=max_seconds, memory=memory, **run)
    if not save_json(result, output):
        from onnxviz.plots.sweep import plot_sweep

        save_view(plot_sweep(result), output)
    return result


def _freed(model: ir.Model, free: Sequence[str]) -> tuple[ir.Model, dict[str, int]]:
    """Return a copy with fixed axes opened, and the sizes that they had: those stay the usual ones.

    ``input:axis`` is the name of such a dimension, unless one is given. What outputs declare by name still has to be.
    """
    import onnx_ir as ir

    from onnxviz.graph.inline import inline_functions
    from onnxviz.graph.shapes import model_inputs, name_axes, shape_list

    names: dict[str, dict[int, str]] = {}
    for text in free:
        where, named, given = text.partition("=")
        tensor, _, axis = where.rpartition(":")
        if not tensor or not axis.isdigit() or (named and not given):
            raise InputError(f"{text!r} names no axis", hint="write --free INPUT:AXIS, such as --free x:0=batch")
        if known := names.setdefault(tensor, {}).get(int(axis)):
            raise InputError(f"--free {text!r} and {known!r} are one axis", hint="give it one name")
        names[tensor][int(axis)] = given or where
    inlined = inline_functions(model)
    opened = name_axes(inlined, names)
    for value, declared in zip(opened.graph.outputs, inlined.graph.outputs, strict=True):
        if declared.shape is not None and value.producer() is not None:
            value.shape = ir.Shape([None if isinstance(dim, int) else dim for dim in declared.shape])
    shapes = {str(value.name): shape_list(value) or [] for value in model_inputs(inlined)}
    sizes = {text: shapes[tensor][axis] for tensor, axes in names.items() for axis, text in axes.items()}
    return opened, {name: size for name, size in sizes.items() if isinstance(size, int)}
