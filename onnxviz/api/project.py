"""The verb ``project``: samples, channels, filters or neurons of a layer, placed in a plane."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from onnxviz.api.common import DATA, PICTURES, check_outputs, save_view, tell_refused, write_numbers
from onnxviz.errors import InputError, SelectionError
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import onnx_ir as ir
    from matplotlib.figure import Figure

    from onnxviz.analysis.projection import Method, Projection
    from onnxviz.analysis.projection_points import Normalize, Of, Points
    from onnxviz.api.projection_sources import ActivationSource, FilterSource
    from onnxviz.runtime.capture import Feed

    Path_ = str | os.PathLike[str]

__all__ = ["Markers", "project", "projection"]

Markers = Literal["points", "thumbnails"]


def project(
    model: ir.Model | Path_,
    inputs: Feed = None,
    tensor: str | None = None,
    output: Path_ | None = None,
    *,
    markers: Markers = "points",
    color_by: Literal["auto", "labels", "clusters", "none"] = "auto",
    data: Path_ | None = None,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> Figure:
    """Place the samples, channels, filters or neurons of a layer in a plane and draw them.

    Args:
        model: A path or an opened model.
        inputs: What to feed it: a folder, a list, a long array; filters need none.
        tensor: The layer, by a tensor's name or ``op:TYPE`` where that names one; by default the last hidden layer.
        output: ``.png``, ``.svg`` or ``.pdf``.
        markers: ``"thumbnails"``: samples as their pictures, channels as their maps, filters as their kernels, where
            they do not overlap.
        color_by: What colours stand for; ``"auto"``: classes where there are some, else clusters.
        data: ``.npz``: the numbers behind the picture.
        tell: Called with a line for each thing that was asked for and cannot be shown.
        options: As :func:`projection` takes them.

    Raises:
        SelectionError, InputError: As :func:`projection`.
    """
    from onnxviz.analysis.projection import projection_data
    from onnxviz.plots.projection import plot_projection

    check_outputs((output, PICTURES), (data, DATA))
    if markers not in get_args(Markers):
        raise SelectionError(f"there are no markers {markers!r}", hint="choose points or thumbnails")
    found, pictures, showing = _projected(model, inputs, tensor, thumbnails=markers == "thumbnails", **options)
    tell_refused(tell, found.not_drawn)
    if data is not None:
        write_numbers(data, *projection_data(found))
    figure = plot_projection(found, pictures=pictures, showing=showing, color=color_by)
    save_view(figure, output)
    return figure


def projection(model: ir.Model | Path_, inputs: Feed = None, tensor: str | None = None, **options: Any) -> Projection:
    """Place the samples, channels, filters or neurons of a layer in a plane.

    Args:
        model: A path or an opened model.
        inputs: What to feed it; filters need none.
        tensor: The layer; by default the last hidden one.
        options: ``of`` (``"samples"``, ``"channels"``, ``"filters"``, ``"neurons"``), ``method`` (``"pca"``,
            ``"tsne"``, ``"umap"``), ``labels`` (``"folders"`` or a ``.csv``; by default the folders where there are
            several), ``clusters`` (``"kmeans"``, ``"kmeans:K"``, ``"hdbscan"``, ``"none"``), ``perplexity`` and
            ``neighbors`` (lists), ``over`` (``"flat"``, ``"mean"``, ``"max"``, ``"energy"``: what is made of the
            positions of a channel), ``sample`` (channels over the positions of this sample),
            ``tokens`` (a vocabulary, to show texts as words), ``normalize``
            (``"none"``, ``"standard"``, ``"unit"``), ``most`` points, ``batch``, ``progress``; and ``providers``,
            ``preprocessing``, ``dims``, ``seed``, ``op_library``.

    Returns:
        The projection; see :class:`onnxviz.analysis.projection.Projection`.

    Raises:
        SelectionError: The model has no such layer, or it has no such points.
        InputError: There are fewer than two points, or all are the same; labels cannot be read.
    """
    return _projected(model, inputs, tensor, thumbnails=False, **options)[0]


def _projected(
    model: ir.Model | Path_, inputs: Feed, tensor: str | None, *, thumbnails: bool, of: Of = "samples",
    method: Method = "pca", clusters: str = "kmeans", perplexity: Sequence[float] | None = None,
    neighbors: Sequence[int] | None = None, normalize: Normalize = "none", most: int = 2000, **options: Any,
) -> tuple[Projection, dict[int, Any] | None, str]:  # fmt: skip
    from onnxviz.analysis.projection import project_points
    from onnxviz.analysis.projection_points import Of as Kinds
    from onnxviz.analysis.projection_points import clean_points
    from onnxviz.api.projection_sources import ActivationSource, FilterSource
    from onnxviz.graph.inline import inline_functions
    from onnxviz.graph.model import model_name
    from onnxviz.graph.shapes import infer_shapes

    if of not in get_args(Kinds):
        raise SelectionError(f"there is no projection of {of!r}", hint=f"choose {', '.join(get_args(Kinds))}")
    if most < 2:
        raise InputError(f"{most} points are too few", hint="give --most 2 or more")
    opened = infer_shapes(inline_functions(as_model(model)))
    source = FilterSource(opened, tensor) if of == "filters" else ActivationSource(opened, inputs, tensor, of, options)
    seed = int(options.get("seed", 0))
    points = clean_points(source.points(), normalize=normalize, most=most, seed=seed)
    pictures = _pictures(source, points) if thumbnails else None
    found = project_points(
        points, method, clusters=clusters, perplexity=perplexity, neighbors=neighbors, seed=seed,
        model_name=model_name(opened), not_drawn=source.not_drawn,
    )  # fmt: skip
    return found, pictures, source.showing


def _pictures(source: FilterSource | ActivationSource, points: Points) -> dict[int, Any] | None:
    from onnxviz.analysis.paired import NotDrawn

    try:
        made = source.pictures([int(i) for i in points.numbers])
    except SelectionError as error:
        source.not_drawn.append(NotDrawn("thumbnails", str(error)))
        return None
    return {row: made[int(i)] for row, i in enumerate(points.numbers) if int(i) in made}
