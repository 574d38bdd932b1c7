"""The report: one HTML page that needs nothing but a browser."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2
import matplotlib
import numpy as np
import onnx_ir as ir
from markupsafe import Markup

from onnxviz._version import __version__
from onnxviz.analysis.attribution.result import Attribution
from onnxviz.analysis.gradient_statistics import GradientStatistics
from onnxviz.analysis.statistics import statistics
from onnxviz.analysis.weight_table import WeightTable, weight_table
from onnxviz.diagram.html import content_hash, page_environment, save_page
from onnxviz.diagram.interactive import SCRIPTS, STYLE
from onnxviz.diagram.interactive import asset as graph_asset
from onnxviz.graph.model import model_name
from onnxviz.graph.provenance import provenance_of
from onnxviz.graph.summary import inspect_model
from onnxviz.plots.style import DIVERGING, SEQUENTIAL
from onnxviz.report import formats
from onnxviz.report.budget import Panel, fill
from onnxviz.report.links import Diagram, draw_diagram
from onnxviz.report.overview import answers, fed_dims, in_words, model_facts, outputs, picture_url
from onnxviz.report.prepare import Prepared, prepare, without_extras
from onnxviz.report.sections import feature_panels, weight_panels
from onnxviz.report.view_activations import activation_section
from onnxviz.report.view_attention import attention_section
from onnxviz.report.view_attribution import attribution_section
from onnxviz.report.view_checks import checks_section
from onnxviz.report.view_flow import flow_section
from onnxviz.report.view_heat import heat_section
from onnxviz.report.view_pooling import pooling_section
from onnxviz.report.view_samples import neuron_section, projection_section
from onnxviz.report.views import Section, Seen, View, link_views, make_sections
from onnxviz.report.weight_rows import WEIGHT_COLUMNS, csv_url, weight_cells
from onnxviz.runtime.batches import Batches
from onnxviz.runtime.record import Capture

__all__ = ["VIEWS", "Report", "build_report"]

#: The views that have a section of their own, in the page's order.
VIEWS: tuple[View, ...] = (
    View("attribution", "Attribution", "attribution", attribution_section),
    View("heat", "Over the picture", "over the picture", heat_section),
    View("activations", "Activations", "activation", activation_section),
    View("pooling", "Pooling", "pooling", pooling_section),
    View("attention", "Attention", "attention", attention_section),
    View("neurons", "Neurons", "neurons", neuron_section),
    View("projection", "Projection", "projection", projection_section),
    View("flow", "Flow", "key path", flow_section),
    View("findings", "Findings", "finding", checks_section),
)

_BUDGET = 10_000_000  # bytes of a page
_SLACK, _PANEL_SLACK = 20_000, 900  # bytes kept for notes, and for a layer's captions and markup
_TABLE_ROWS = 3000  # most rows of any table
_WEIGHT_ROWS = 1000  # most rows of the table of weights, which has more columns


@dataclass(frozen=True)
class Report:
    """A finished page.

    Attributes:
        html: The page.
        capture: The run that it shows.
        answer: The best class in words, where the model is a classifier.
        notes: What was left out to keep the page small.
    """

    html: str = field(repr=False)
    capture: Capture = field(repr=False)
    answer: str = ""
    notes: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all.

        Raises:
            OutputError: The ending is not ``.html``, or the folder cannot be written.
        """
        save_page(self.html, path, "a report")


def build_report(
    model: ir.Model,
    captured: Capture,
    *,
    labels: Sequence[str] | None = None,
    prepared: Prepared | None = None,
    batches: Batches | None = None,
    sample_classes: str | os.PathLike[str] | None = None,
    backward: Callable[[], GradientStatistics] | None = None,
    attribute: Callable[[], Sequence[Attribution]] | None = None,
) -> Report:
    """Build the page of a model and one run of it.

    It holds what was fed, the answer, the model card, the architecture, the feature maps of every layer, the views of
    :data:`VIEWS`, the weights and the statistics of every tensor. Values are shipped, not pictures, so the reader can
    change scales. The page stays within 10 MB; what is left out is said on it and in ``notes``.

    Args:
        model: The model that was captured.
        captured: Its tensors.
        labels: Class names, for a classifier.
        prepared: What was run, where that was :func:`onnxviz.report.prepare.prepare` of the model: activation functions
            that read an input and fused attention can be shown only then.
        batches: What was fed, where it was several samples: neurons and projections are shown only then.
        sample_classes: A CSV file with the class of each sample; None takes their folders, where there are several.
        backward: Runs the model backward over the same inputs, so that the flow has gradients; called where the model
            is small enough.
        attribute: Explains the answer to the same inputs; called where a picture was fed and the model is small enough.

    Raises:
        ModelError: A function of the model calls itself, or weights that are joined do not fit together.

    >>> import onnx_ir as ir
    >>> from onnxviz.runtime.capture import capture
    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[1, 2] x) => (float[1, 2] y) {y = Neg(x)}'
    ... )
    >>> build_report(model, capture(model, providers="cpu")).html[:15]
    '<!doctype html>'
    """
    prepared = prepare(model) if prepared is None else prepared
    seen = Seen(model, prepared, captured, batches, sample_classes, backward, attribute)
    sections = make_sections(VIEWS, seen)
    captured = without_extras(captured, prepared.extras)
    summary = inspect_model(model, fed_dims(model, captured))
    diagram = draw_diagram(model, seen.weights)
    rows = {row.name: {**row.to_dict(distribution=False), "size": row.size} for row in statistics(captured)}
    features, feature_note = feature_panels(model, captured, rows)
    weights, studied = weight_panels(seen.weights)
    table = weight_table(seen.weights, model_name(model))
    _link(diagram, features, weights)
    views = link_views(VIEWS, sections, diagram.makers)
    sources = {value.name: str(provenance_of(node) or "") for node in model.graph for value in node.outputs}
    for panel in features:
        panel.row["source"] = sources.get(panel.row["name"], "")
        panel.row["views"] = views.get(panel.row["name"], [])
    found = answers(captured, labels)
    content = {
        "summary": summary,
        "facts": model_facts(summary, captured),
        "captured": captured,
        "picture": picture_url(captured.picture),
        "answers": found,
        "outputs": outputs(captured, rows),
        "diagram": diagram,
        "feature_note": feature_note,
        "sections": sections,
        "view_links": diagram.views(views),
        "weight_note": studied,
        "weight_columns": WEIGHT_COLUMNS,
        "weight_csv": csv_url(table),
    }
    tables: dict[str, list[Any]] = {
        "tensors": [
            _tensor_row(position, row, captured, diagram, sources) for position, row in enumerate(rows.values())
        ],
        "weight_rows": _weight_rows(weights, table),
        "layers": [{**asdict(layer), "block": diagram.makers.get(layer.output)} for layer in summary.layers],
        "missing": list(captured.not_captured.items()),
    }
    notes = [note for note in (diagram.note, feature_note if features else "") if note]
    if len(weights) > _WEIGHT_ROWS:
        notes.append(f"the table of weights shows {_WEIGHT_ROWS} of {len(weights)} rows")
    html, notes = _Composer(content, tables, features, weights, sections, notes).compose()
    return Report(html, captured, in_words(found), tuple(notes))


def _link(diagram: Diagram, features: Sequence[Panel], weights: Sequence[Panel]) -> None:
    """Tell layers and weights which block of the diagram is theirs, and layers which weights."""
    kernels: dict[str, str] = {}
    for panel in weights:
        panel.row["block"] = block = diagram.layers.get(panel.row["layer"])
        if block and panel.row["main"]:
            kernels.setdefault(block, panel.row["id"])
    for panel in features:
        panel.row["block"] = block = diagram.makers.get(panel.row["name"])
        panel.row["weights"] = kernels.get(block or "")


def _tensor_row(
    position: int, row: dict[str, Any], captured: Capture, diagram: Diagram, sources: Mapping[str | None, str]
) -> dict[str, Any]:
    name = row["name"]
    return {
        **row,
        "id": f"tensor-{position}",
        "op_type": captured[name].op_type or "",
        "block": diagram.makers.get(name),
        "source": sources.get(name, ""),
    }


def _weight_rows(panels: Sequence[Panel], table: WeightTable) -> list[dict[str, Any]]:
    """Return the first rows of the table of weights; each links to the panel of its weight."""
    shown = list(zip(panels, table.rows, strict=True))[:_WEIGHT_ROWS]
    return [
        {
            "id": panel.row["id"] if panel.row["main"] else "",
            "layer": row.layer,
            "cells": weight_cells(row),
            "note": row.note,
        }
        for panel, row in shown
    ]


class _Composer:
    """Renders the page twice: once without pictures, to see how much room they have."""

    def __init__(
        self,
        content: dict[str, Any],
        tables: dict[str, list[Any]],
        features: list[Panel],
        weights: list[Panel],
        sections: list[Section],
        notes: list[str],
    ) -> None:
        self.content, self.tables, self.notes = content, tables, notes
        self.features, self.weights = features, weights
        norms = [panel.row["norms"] for panel in weights if panel.row["norms"] is not None]
        self.panels = [*features, *weights, *norms, *(panel for section in sections for panel in section.panels)]
        self.most = _TABLE_ROWS

    def compose(self) -> tuple[str, list[str]]:
        """Return the page, and notes on what it leaves out."""
        text = self._render()
        while len(text.encode()) + _SLACK > _BUDGET and self.most > 10:
            self.most //= 2
            text = self._render()
        for what, rows in zip(("tensors", "weights", "layers", "reasons"), self.tables.values(), strict=True):
            if len(rows) > self.most:
                self.notes.append(f"the table of {what} shows {self.most} of {len(rows)} rows")
        room = _BUDGET - len(text.encode()) - _SLACK - _PANEL_SLACK * len(self.panels)
        self.notes += fill(self.panels, room)
        return self._render(), self.notes

    def _render(self) -> str:
        style = _asset("page.css") + graph_asset(STYLE)
        scripts = [_asset(name) for name in ("viewer.js", "links.js")]
        scripts += [graph_asset(name) for name in SCRIPTS] if self.content["diagram"].graph is not None else []
        tables = {name: rows[: self.most] for name, rows in self.tables.items()}
        maps = {panel.row["name"]: panel.row["id"] for panel in self.features}
        rows = {row["name"]: row["id"] for row in tables["tensors"]}
        data = {
            "luts": {name: _lut(name) for name in (SEQUENTIAL, DIVERGING)},
            "sequential": SEQUENTIAL,
            "diverging": DIVERGING,
            "atlases": {panel.row["id"]: panel.picture for panel in self.panels if panel.picture is not None},
            "blocks": self.content["diagram"].targets(maps, rows),
            "views": self.content["view_links"],
        }
        return _template().render(
            **self.content,
            **tables,
            version=__version__,
            features=self.features,
            weights=self.weights,
            notes=self.notes,
            maps=maps,
            data=Markup(formats.embedded(data)),
            style=Markup(style),
            scripts=[Markup(script) for script in scripts],
            style_hash=content_hash(style),
            script_hashes=[content_hash(script) for script in scripts],
        )


def _lut(name: str) -> str:
    colors = matplotlib.colormaps[name](np.linspace(0, 1, 256), bytes=True)[:, :3]
    return base64.b64encode(np.ascontiguousarray(colors, np.uint8).tobytes()).decode("ascii")


def _asset(name: str) -> str:
    return resources.files("onnxviz.report").joinpath(name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = page_environment("onnxviz.report")
    environment.filters.update(
        name=formats.name, number=formats.number, percent=formats.percent, shape=formats.shape, short=formats.short
    )
    environment.globals["share"] = formats.share
    return environment.get_template("page.html.j2")
