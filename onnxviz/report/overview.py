"""The top of the page: what the model is, what it was fed, what it answered."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from PIL import Image

from onnxviz.analysis.classification import Classification, top_classes
from onnxviz.graph.kinds import KINDS
from onnxviz.graph.shapes import open_dims
from onnxviz.graph.summary import ModelSummary
from onnxviz.report.formats import number, short
from onnxviz.runtime.record import Capture

__all__ = ["answers", "fed_dims", "in_words", "model_facts", "outputs", "picture_url", "preview"]

_MOST_CLASSES = 50_000
_MOST_ANSWERS = 6
_MOST_OUTPUTS = 60
_PREVIEW = 8


def fed_dims(model: ir.Model, captured: Capture) -> dict[str, int]:
    """Return the sizes that the open dimensions had in the run."""
    fed = {record.name: record.shape for record in captured.inputs}
    return {
        name: int(fed[where][axis])
        for name, (where, axis) in open_dims(model).items()
        if where in fed and axis < len(fed[where])
    }


def model_facts(summary: ModelSummary, captured: Capture) -> list[tuple[str, str]]:
    """Return the rows of the model card."""
    macs = "unknown"
    if summary.macs is not None:
        macs = f"{summary.macs:,}"
        if summary.assumed:
            macs += " at " + ", ".join(f"{name} = {size}" for name, size in list(summary.assumed.items())[:8])
    if summary.macs_unknown:
        macs += f" · {summary.macs_unknown} node{'s' * (summary.macs_unknown != 1)} not counted"
    ops = list(summary.ops.items())
    more = f" and {len(ops) - 30} more" if len(ops) > 30 else ""
    return [
        ("Producer", summary.producer or "unknown"),
        ("Opset", ", ".join(f"{domain} {version}" for domain, version in summary.opsets.items()) or "none"),
        (
            "Nodes",
            f"{summary.nodes:,}" + (f" · {summary.body_nodes:,} of them in bodies" if summary.body_nodes else ""),
        ),
        ("Operators", (", ".join(f"{short(op, 40)} {count}" for op, count in ops[:30]) + more) or "none"),
        ("Parameters", f"{summary.parameters:,} ({_bytes(summary.parameter_bytes)})"),
        ("MACs", macs),
        ("Run on", f"{', '.join(captured.providers)}, nothing fused (semantic mode)"),
    ]


def _bytes(count: int) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def answers(captured: Capture, labels: Sequence[str] | None) -> list[dict[str, Any]]:
    """Rank the outputs that look like a classifier's; labels that do not fit in number are not used."""
    found = []
    for name in captured.outputs:
        record = captured.get(name)
        if record is None or record.array.size > _MOST_CLASSES:
            continue
        fitting = labels if labels is not None and len(labels) == record.array.size else None
        if fitting is None and (record.op_type in KINDS["norm"] or record.array.ndim == 3):
            continue  # an embedding; a score for each of many boxes or steps
        ranking: Classification | None = top_classes(record.array, fitting)
        if ranking is not None:
            chance = 1 / ranking.classes
            found.append(
                {
                    "output": name,
                    "found": ranking,
                    "labels_unused": labels is not None and fitting is None,
                    "guess": ranking.softmax and fitting is None,
                    "near_chance": ranking.classes >= 10 and ranking.best.probability < 2 * chance,
                }
            )
    return found[:_MOST_ANSWERS]


def in_words(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the best class as one line, where one output of the model is a classification."""
    if len(found) != 1:
        return ""
    best = found[0]["found"].best
    label = f" ({short(best.label)})" if best.label else ""
    return f"class {best.index}{label}, probability {best.probability:.3f}"


def outputs(captured: Capture, statistics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return type, statistics and first values of every output, or why it has none."""
    rows = []
    for name in captured.outputs[:_MOST_OUTPUTS]:
        record = captured.get(name)
        if record is None:
            why = captured.not_captured.get(name, "no node computes it, or it was not captured")
            rows.append({"name": name, "why": why})
        else:
            rows.append({**statistics[name], "why": "", "preview": preview(record.array)})
    return rows


def preview(array: np.ndarray, count: int = _PREVIEW) -> str:
    """Return the first values of an array, whatever it holds.

    >>> preview(np.array([[1.5, -2.0]])), preview(np.arange(12), 3), preview(np.zeros(0))
    ('1.5, −2', '0, 1, 2, …', 'empty')
    """
    if not array.size:
        return "empty"
    first = [array[index] for index in np.ndindex(array.shape)] if array.size <= count else array.reshape(-1)[:count]
    return ", ".join(_value(value) for value in first) + (", …" if array.size > count else "")


def _value(value: Any) -> str:
    if isinstance(value, (bool, np.bool_, int, np.integer)):
        return str(value).replace("-", "−")
    if isinstance(value, (str, bytes)):
        return short(value, 40)
    return number(float(value)) if np.isrealobj(value) else short(value, 40)


def picture_url(picture: np.ndarray | None) -> str:
    """Return a picture as a ``data:`` URL; empty for None."""
    if picture is None:
        return ""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
