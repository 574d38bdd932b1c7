"""The verbs that draw architectures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from onnxviz.api.common import check_outputs, reducer
from onnxviz.graph.files import atomic_write
from onnxviz.graph.io import as_model

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxviz.diagram.architecture import Architecture
    from onnxviz.diagram.interactive import GraphPage
    from onnxviz.diagram.overlay import Overlay
    from onnxviz.graph.diff import GraphDiff
    from onnxviz.runtime.inputs import Inputs

    Model = ir.Model | str | os.PathLike[str]
    Path_ = str | os.PathLike[str]

__all__ = ["graph", "graph_diff"]

_PAGES = (".html", ".htm")


def graph(
    model: Model,
    output: Path_ | None = None,
    *,
    style: Literal["graph", "volumes"] = "graph",
    color_by: str | Overlay | None = None,
    inputs: Inputs | Mapping[str, Any] | Sequence[Path_] | Path_ | None = None,
    thumbnails: bool = False,
    **options: Any,
) -> Architecture | GraphPage:
    """Draw the architecture: see :func:`onnxviz.diagram.architecture.architecture`, which takes ``options``.

    ``style="volumes"`` draws a convolutional network as boxes to scale, as papers do: see
    :func:`onnxviz.diagram.volumes.volumes`.

    ``color_by`` may also be what a run tells: ``"time"`` (nothing fused), ``"zeros"`` (share of zeros, in %) or
    ``"range"`` (largest magnitude) on ``inputs`` (seeded random numbers by default), or a ``.json`` file with a number
    a node or tensor by name.

    With ``inputs`` the model is run once, and shapes that the file leaves open are drawn as they were seen;
    ``thumbnails`` draws small pictures of the feature maps on the blocks that make them (of ``inputs``, or of seeded
    random numbers).

    ``output`` ends in ``.svg``, ``.png``, ``.pdf``, ``.html`` (the interactive page, see
    :func:`onnxviz.diagram.interactive.interactive`), ``.dot``, ``.mmd`` (Mermaid), ``.graphml`` or ``.json``. What a
    reader of the file should know, such as that a huge PNG was scaled down, is in the result's ``note``.
    """
    from onnxviz.diagram.architecture import FORMATS, architecture
    from onnxviz.errors import InputError

    check_outputs((output, (*FORMATS, *_PAGES)))
    opened = as_model(model)
    if style == "volumes":
        return _volumes(opened, output, options, ran=bool(color_by or thumbnails or inputs is not None))
    if style != "graph":
        raise InputError(f"there is no style {style!r}", hint="the styles are graph and volumes")
    if thumbnails or inputs is not None:
        options |= _seen(opened, inputs, pictures=thumbnails)
    options["color_by"] = _overlay(opened, color_by, inputs)
    if _is_page(output):
        from onnxviz.analysis.weights import weights_in_words
        from onnxviz.diagram.interactive import interactive

        page = interactive(opened, weights=weights_in_words(opened), **options)
        assert output is not None
        page.save(output)
        return page
    drawing = architecture(opened, **options)
    return drawing if output is None else drawing.save(output)


def _volumes(model: ir.Model, output: Path_ | None, options: dict[str, Any], *, ran: bool) -> Architecture:
    from onnxviz.diagram.volumes import volumes
    from onnxviz.errors import InputError

    if _is_page(output):
        raise InputError("volumes are a figure, not a page", hint="write .svg, .pdf or .png, or leave out --style")
    given = [name for name, value in options.items() if name not in ("title", "theme") and value not in (None, (), [])]
    if given or ran:
        raise InputError("volumes take a title and a theme only", hint="leave the other options to --style graph")
    drawing = volumes(model, **{name: options[name] for name in ("title", "theme") if name in options})
    return drawing if output is None else drawing.save(output)


def _seen(
    model: ir.Model, inputs: Inputs | Mapping[str, Any] | Sequence[Path_] | Path_ | None, *, pictures: bool
) -> dict[str, Any]:
    """Return what a run shows of each tensor: its shape, and a small picture."""
    from onnxviz.runtime.capture import capture as run

    captured = run(model, inputs, keep=pictures, bodies=False)
    shapes = {name: record.shape for name, record in captured.items()}
    shapes |= {record.name: record.shape for record in captured.inputs}
    if not pictures:
        return {"observed": shapes}
    from onnxviz.plots.thumbnails import thumbnails

    return {"observed": shapes, "thumbnails": thumbnails(model, captured)}


def graph_diff(
    before: Model, after: Model, output: Path_ | None = None, **options: Any
) -> tuple[Architecture | GraphPage, GraphDiff]:
    """Draw what differs between two models: see :func:`onnxviz.diagram.architecture.architecture_diff`.

    ``output`` ends as for :func:`graph`; ``.json`` holds the difference itself.
    """
    from onnxviz.diagram.architecture import FORMATS, architecture_diff

    check_outputs((output, (*FORMATS, *_PAGES)))
    if _is_page(output):
        from onnxviz.diagram.interactive import interactive_diff

        page, diff = interactive_diff(as_model(before), as_model(after), **options)
        assert output is not None
        page.save(output)
        return page, diff
    drawing, diff = architecture_diff(as_model(before), as_model(after), **options)
    if output is not None and os.fspath(output).lower().endswith(".json"):
        atomic_write(output, json.dumps(diff.to_dict(), indent=1) + "\n")
    elif output is not None:
        drawing = drawing.save(output)
    return drawing, diff


def _is_page(output: Path_ | None) -> bool:
    return output is not None and os.fspath(output).lower().endswith(_PAGES)


def _overlay(
    model: ir.Model,
    color_by: str | Overlay | None,
    inputs: Inputs | Mapping[str, Any] | Sequence[Path_] | Path_ | None,
) -> str | Overlay | None:
    """Return what colours the blocks: a run is made for what only a run tells."""
    from onnxviz.diagram.overlay import METRICS, Overlay, read_overlay
    from onnxviz.errors import InputError

    if color_by is None or isinstance(color_by, Overlay) or color_by in METRICS:
        return color_by
    if color_by.lower().endswith(".json"):
        return read_overlay(color_by)
    if color_by == "time":
        from onnxviz.runtime.profile import profile as profile_model

        nodes = profile_model(model, inputs, mode="semantic").rows
        return Overlay("time", {node.outputs[0]: 1e6 * node.seconds for node in nodes if node.outputs}, "µs")
    if color_by not in ("zeros", "range"):
        known = ", ".join((*METRICS, "time", "zeros", "range"))
        raise InputError(
            f"there is no metric {color_by!r}", hint=f"there are {known}, or a .json file of numbers by name"
        )
    from onnxviz.analysis.statistics import statistics
    from onnxviz.runtime.capture import capture as run

    rows = statistics(run(model, inputs, keep=False, reduce=reducer(model, per_channel=False), bodies=False))
    if color_by == "zeros":
        return Overlay("zeros", {row.name: 100 * row.zero / row.size for row in rows if row.size}, "%", total=False)
    found = {row.name: max(abs(row.min), abs(row.max)) for row in rows if row.min is not None and row.max is not None}
    found |= dict.fromkeys((row.name for row in rows if row.nan or row.inf), float("inf"))
    return Overlay("largest magnitude", found, total=False)
