"""The verb that shows weights: as pictures and as a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from onnxviz.api.common import DATA, PICTURES, check_outputs, save_view, tell_refused, write_numbers
from onnxviz.graph.files import atomic_write
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from matplotlib.figure import Figure

    from onnxviz.analysis.weight_table import WeightTable
    from onnxviz.analysis.weights import LayerWeights

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["WeightView", "weight_table", "weights"]

WeightView = Literal["sheet", "kernels", "norms", "filters", "spectra"]


def weights(
    model: Model,
    layers: str | Sequence[str] | None = None,
    output: Path_ | None = None,
    *,
    view: WeightView = "sheet",
    raw: bool = False,
    data: Path_ | None = None,
    rows: int = 24,
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Figure:
    """Draw the weights, a row a layer.

    ``"sheet"``: kernels or matrix, histogram, range. ``"kernels"``: all kernels, or the matrix, of one layer.
    ``"norms"``: the L2 norm of each kernel, outputs × inputs. ``"filters"``: filters by PCA, with clusters,
    near-duplicates and dead ones. ``"spectra"``: singular values, ranks, the tail's power law.

    Args:
        model: A path or an opened model.
        layers: Names or globs of layers or weight tensors, ``op:TYPE``; by default all, biases and norms left out.
        output: ``.png``, ``.svg`` or ``.pdf``.
        view: Which picture.
        raw: Show the stored integers of quantised weights in place of what they stand for.
        data: ``.npz``: the numbers behind the picture.
        rows: Most weights to draw; beyond, an even spread is drawn and said so.
        seed: Of clustering and bootstrap.
        tell: Called with a line for each weight that was asked for and cannot be shown.
        progress: Called after each weight with how many are done and of how many.

    Raises:
        SelectionError: No weight matches, none can be shown, or ``"kernels"`` is asked of several.
        InputError: There is no such view.
    """
    from onnxviz.analysis.layers import select_weights
    from onnxviz.analysis.weights import layer_weights
    from onnxviz.errors import InputError
    from onnxviz.graph.model import model_name

    check_outputs((output, PICTURES), (data, DATA))
    if view not in get_args(WeightView):
        raise InputError(f"there is no view {view!r} of weights", hint=f"choose {', '.join(get_args(WeightView))}")
    opened = as_model(model)
    chosen = select_weights(layer_weights(opened), layers)
    chosen = [lw.codes() for lw in chosen] if raw else chosen
    name = model_name(opened)
    if view != "sheet":  # a layer's bias is left out beside its weight
        matrices = {lw.layer for lw in chosen if len(lw.shape) > 1}
        chosen = [lw for lw in chosen if len(lw.shape) > 1 or lw.layer not in matrices]
    if view in ("sheet", "kernels"):
        figure = _drawn(chosen, name, view, rows)
        if data is not None:
            from onnxviz.analysis.weight_data import weight_data

            write_numbers(data, *weight_data(chosen, name))
    else:
        figure = _studied(chosen, name, view, data, {"rows": rows, "seed": seed, "tell": tell, "progress": progress})
    save_view(figure, output)
    return figure


def _drawn(chosen: Sequence[LayerWeights], name: str, view: WeightView, rows: int) -> Figure:
    from onnxviz.analysis.weight_forms import has_kernels
    from onnxviz.errors import SelectionError
    from onnxviz.plots.weight_sheet import plot_weight_sheet
    from onnxviz.plots.weights import plot_kernels, plot_matrix

    if view == "sheet":
        return plot_weight_sheet(chosen, rows=rows, title=f"Weights of {name}")
    if len(chosen) > 1:
        raise SelectionError(
            f"the kernels of one layer are drawn, {len(chosen)} match",
            hint=f"name one with --layer, such as {chosen[0].layer}",
        )
    spatial = has_kernels(chosen[0]) and len(chosen[0].shape) <= 5
    return plot_kernels(chosen[0]) if spatial else plot_matrix(chosen[0])


def _studied(
    chosen: Sequence[LayerWeights], name: str, view: WeightView, data: Path_ | None, options: dict[str, Any]
) -> Figure:
    from onnxviz.analysis.weight_data import study_data
    from onnxviz.analysis.weight_forms import study_weights

    made: Any
    plot: Any
    if view == "norms":
        from onnxviz.analysis.weight_norms import kernel_norms as made
        from onnxviz.plots.weight_norms import plot_norms as plot
    elif view == "filters":
        from onnxviz.analysis.weight_filters import filter_study as made
        from onnxviz.plots.weight_filters import plot_filters as plot
    else:
        from onnxviz.analysis.weight_spectra import spectrum as made
        from onnxviz.plots.weight_spectra import plot_spectra as plot
    seeded = {} if view == "norms" else {"seed": options["seed"]}
    found = study_weights(
        chosen, lambda lw: made(lw, **seeded), name, most=options["rows"], progress=options["progress"]
    )
    tell_refused(options["tell"], found.not_drawn)
    if data is not None:
        write_numbers(data, *study_data(found))
    figure: Figure = plot(found)
    return figure


def weight_table(
    model: Model,
    layers: str | Sequence[str] | None = None,
    output: Path_ | None = None,
    *,
    sort: str | None = None,
    raw: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> WeightTable:
    """Return the statistics of every layer's weights: see :class:`onnxviz.analysis.weight_table.WeightRow`.

    Args:
        model: A path or an opened model.
        layers: As of :func:`weights`.
        output: ``.csv`` or ``.json``, numbers in full precision.
        sort: A column; numbers largest first, text from A to Z, ``-`` before it turns that round.
        raw: Statistics of the stored integers of quantised weights in place of what they stand for.
        progress: Called after each weight with how many are done and of how many.

    Raises:
        SelectionError: No weight matches.
        InputError: There is no such column.
    """
    from onnxviz.analysis.layers import select_weights
    from onnxviz.analysis.weight_table import WeightTable, weight_table
    from onnxviz.analysis.weights import layer_weights
    from onnxviz.graph.model import model_name

    check_outputs((output, (".csv", ".json")))
    WeightTable("", ()).sorted_by(sort)  # a column that does not exist is told before the work
    opened = as_model(model)
    chosen = select_weights(layer_weights(opened), layers)
    chosen = [lw.codes() for lw in chosen] if raw else chosen
    table = weight_table(chosen, model_name(opened), progress=progress).sorted_by(sort)
    if output is not None:
        as_json = os.fspath(output).lower().endswith(".json")
        atomic_write(output, table.to_json() if as_json else table.to_csv())
    return table
