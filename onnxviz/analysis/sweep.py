"""A sweep over sizes: what works, what changes and what fails when the open dimensions of a model change."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxviz.analysis.axes import Dimension, batch_dimension, free_dimensions
from onnxviz.analysis.baked_sizes import named_nodes
from onnxviz.analysis.size_trials import MEMORY, SECONDS, SizeTrials
from onnxviz.analysis.sweep_result import Sweep
from onnxviz.analysis.sweep_run import SweepRun
from onnxviz.errors import CheckError, InputError, listed, printable
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import copy_model, model_name
from onnxviz.graph.shapes import model_inputs, shape_list

if TYPE_CHECKING:
    from onnxviz.runtime.inputs import Inputs

__all__ = ["sweep_sizes"]

_MOST_DIMENSIONS = 6


def sweep_sizes(
    model: ir.Model,
    inputs: Inputs,
    *,
    sizes: Mapping[str, Sequence[int]] | None = None,
    op_library: str | os.PathLike[str] | None = None,
    seconds: float = 120.0,
    memory: int = MEMORY,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Run a model at many sizes of its open dimensions, in a process of its own, nothing fused, on the CPU.

    Each dimension changes alone; then pairs of dimensions take a few of the sizes that work alone. Where sizes fail,
    the boundary and the step are searched for. Samples of a batch are compared with what each gives alone.

    Args:
        model: The model; it is not changed.
        inputs: What it is fed at its usual sizes. Other sizes cut this off, or begin it anew.
        sizes: Dimension -> the sizes to try; the others then keep their usual size. None for all, with sizes that
            :func:`onnxviz.analysis.size_plan.default_sizes` chooses.
        op_library: A shared library of custom operators.
        seconds: Seconds for the whole; what is left then is told as not tried.
        memory: Most resident memory of the process, in bytes.
        progress: Called with the number of sizes that were tried and that are planned.

    Raises:
        CheckError: The model has no open dimension, or does not run at its usual sizes.
        InputError: There is no such dimension, or a size is negative.

    >>> from onnxviz.runtime.inputs import load_inputs
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[n, 4] x) => (float[m, 4] y)'
    >>> model = ir.from_onnx_text(text + '<int64[2] s = {2, 4}> {y = Reshape(x, s)}')
    >>> result = sweep_sizes(model, load_inputs(model, dims={"n": 2}), sizes={"n": [1, 2, 3]})
    >>> str(result.dimensions[0].rule), result.failures[0].fixed
    ('works only at 2, of 3 sizes', "Reshape that writes 'y' has the constant [2, 4] where 'n' should decide")
    """
    dimensions = _chosen(model, sizes)
    inputs, notes = _sensible_masks(inputs)
    named = copy_model(inline_functions(model))
    named_nodes(named)
    samples = batch_dimension(model)
    counting = samples.name if samples is not None and samples in dimensions else None
    told: dict[str, int] = {"planned": 0}

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, max(told["planned"], done))

    every = free_dimensions(model)
    with SizeTrials(
        named, inputs.feeds, every, samples=counting, op_library=op_library,
        timeout=min(SECONDS, max(seconds / 3, 1.0)), memory=memory, seconds=seconds, tell=tell,
    ) as trials:  # fmt: skip
        run = SweepRun(named, trials, dimensions, counting, sizes, told, op_library)
        swept = run.swept(inputs.assumed)
        result = run.result(swept)
    notes = [*([f"fed random numbers: {listed(inputs.made_up)}"] if inputs.made_up else []), *notes, *run.notes]
    moved = {name for partners in run.tied.values() for name in partners}
    if left_out := [d.name for d in every if d not in dimensions and d.name not in moved]:
        notes.append(f"kept at their usual sizes: {listed(left_out)}")
    fed = tuple(map(str, inputs.records))
    return replace(result, model=model_name(model), inputs=fed, notes=tuple(notes))


def _chosen(model: ir.Model, sizes: Mapping[str, Sequence[int]] | None) -> list[Dimension]:
    """Return the dimensions to change."""
    every = free_dimensions(model)
    if not every:
        told = [f"{printable(v.name, 60)} {shape_list(v)}" for v in model_inputs(model)]
        raise CheckError(
            f"the model has no open dimension: {listed(told, 3) if told else 'it has no inputs'}",
            hint="free an axis with --free INPUT:AXIS, or export with dynamic axes",
        )
    if not sizes:
        return every[:_MOST_DIMENSIONS]
    known = {dimension.name: dimension for dimension in every}
    if unknown := [name for name in sizes if name not in known]:
        raise InputError(
            f"the model has no open dimension {unknown[0]!r}", hint=f"its open dimensions are {', '.join(known)}"
        )
    if negative := [size for each in sizes.values() for size in each if size < 0]:
        raise InputError(f"a dimension cannot be {negative[0]}", hint="give sizes of 0 or more")
    return [known[name] for name in sizes]


def _sensible_masks(inputs: Inputs) -> tuple[Inputs, list[str]]:
    """Fill masks that nobody gave with ones: a random one may hide all there is."""
    masks = [
        r.name for r in inputs.records
        if r.made_up and "mask" in r.name.lower() and np.asarray(inputs.feeds[r.name]).dtype.kind in "biuf"
    ]  # fmt: skip
    ones = {name: np.ones_like(np.asarray(inputs.feeds[name])) for name in masks}
    records = tuple(replace(r, source="ones", made_up=False) if r.name in ones else r for r in inputs.records)
    notes = [f"masks that nobody gave are all ones: {listed(masks)}"] if masks else []
    return replace(inputs, feeds={**inputs.feeds, **ones}, records=records), notes
