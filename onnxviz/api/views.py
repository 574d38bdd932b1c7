"""The verbs that draw views of what a model computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxviz.api.common import DATA, PICTURES, batches_for, check_outputs, save_view, tell_refused, write_numbers
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from matplotlib.figure import Figure

    from onnxviz.analysis.feature_maps import Score
    from onnxviz.runtime.capture import Feed

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["activations", "pooling"]


def activations(
    model: Model,
    inputs: Feed = None,
    tensors: str | Sequence[str] | None = None,
    output: Path_ | None = None,
    *,
    data: Path_ | None = None,
    top: int = 8,
    by: Score = "energy",
    sample: int = 0,
    batch: int | None = None,
    tell: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Figure:
    """Draw activation functions: the curve over what enters it, and maps before and after on one scale.

    Maps and the range of the histogram are of the first batch; what is zeroed, saturated and dead is counted over all.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; a folder or a list is run in batches; None feeds seeded random numbers.
        tensors: Which functions, by the tensors that leave them (names, ``op:TYPE``); by default all.
        output: ``.png``, ``.svg`` or ``.pdf``.
        data: ``.npz``: the numbers behind the picture.
        top: Most channels of a function.
        by: How channels are chosen, by what enters: ``"energy"``, ``"sparsity"`` or ``"index"``.
        sample: Which sample of the first batch is drawn.
        batch: Samples a batch, where the model leaves that open.
        tell: Called with a line for each tensor that was asked for and cannot be shown.
        progress: Called after each batch with the number of batches that are done and of all.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.

    Raises:
        SelectionError: The model has no such function, or none of those asked for can be shown.
    """
    from onnxviz.analysis.activations import activation_views, over_all, plan_activations
    from onnxviz.analysis.paired import observable
    from onnxviz.plots.activations import plot_activations
    from onnxviz.runtime.capture import capture

    check_outputs((output, PICTURES), (data, DATA))
    opened = observable(as_model(model), lambda node: True)
    plan = plan_activations(opened, tensors)
    batches, run = batches_for(opened, inputs, batch, options)
    first = capture(opened, batches.first(), plan.tensors, bodies=False, **run)
    found = activation_views(plan, first, top=top, by=by, sample=sample, more=len(batches) > 1)
    if len(batches) > 1:
        counted: dict[str, Any] = {"keep": False, "reduce": plan.reducer(found.views), "progress": progress}
        every = capture(opened, batches, plan.tensors, bodies=False, **counted, **run)
        found = over_all(found, every)
    tell_refused(tell, found.not_drawn)
    if data is not None:
        from onnxviz.analysis.view_data import activation_data

        write_numbers(data, *activation_data(found))
    figure = plot_activations(found)
    save_view(figure, output)
    return figure


def pooling(
    model: Model,
    inputs: Feed = None,
    tensors: str | Sequence[str] | None = None,
    output: Path_ | None = None,
    *,
    data: Path_ | None = None,
    top: int = 6,
    by: Score = "energy",
    sample: int = 0,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> Figure:
    """Draw pooling layers: maps before and after on one scale, with the pixels that survive and the windows marked.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; of several samples one is drawn; None feeds seeded random numbers.
        tensors: Which layers, by the tensors that leave them (names, ``op:TYPE``); by default all.
        output: ``.png``, ``.svg`` or ``.pdf``.
        data: ``.npz``: the numbers behind the picture.
        top: Most channels of a layer.
        by: How channels are chosen, by what enters: ``"energy"``, ``"sparsity"`` or ``"index"``.
        sample: Which sample is drawn, of all that are given.
        tell: Called with a line for each tensor that was asked for and cannot be shown.
        options: ``providers``, ``preprocessing``, ``dims``, ``seed``, ``op_library``.

    Raises:
        SelectionError: The model has no pooling layer, or none of those asked for can be shown.
    """
    from onnxviz.analysis.paired import observable
    from onnxviz.analysis.pooling import is_pool, plan_pooling, pool_views
    from onnxviz.plots.pooling import plot_pooling
    from onnxviz.runtime.capture import capture

    check_outputs((output, PICTURES), (data, DATA))
    opened = observable(as_model(model), is_pool)
    plan = plan_pooling(opened, tensors)
    batches, run = batches_for(opened, inputs, None, options)
    feed, place = batches.holding(sample) if len(batches) > 1 else (batches.first(), sample)
    first = capture(opened, feed, plan.tensors, bodies=False, **run)
    found = pool_views(plan, first, top=top, by=by, sample=place)
    if len(batches) > 1:
        found = replace(found, note=f"sample {sample} of {batches.samples} is shown")
    tell_refused(tell, found.not_drawn)
    if data is not None:
        from onnxviz.analysis.view_data import pooling_data

        write_numbers(data, *pooling_data(found))
    figure = plot_pooling(found)
    save_view(figure, output)
    return figure
