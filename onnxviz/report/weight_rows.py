"""The table of weights as the page prints it, and as the file that it gives away."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from onnxviz.analysis.weight_table import WeightRow, WeightTable
from onnxviz.report.formats import number, shape, short

__all__ = ["WEIGHT_COLUMNS", "csv_url", "weight_cells"]

_LARGEST_CSV = 500_000  # bytes, as they stand in the page
_NAME = 120  # characters of a name

#: Heading, whether it holds numbers, and what it means, for each column.
WEIGHT_COLUMNS: tuple[tuple[str, bool, str], ...] = (
    ("layer", False, "the node that uses it"),
    ("operator", False, "of the node"),
    ("role", False, "what it is to the node"),
    ("shape", False, "as stored"),
    ("type", False, "as stored, and how it is quantised"),
    ("parameters", True, "elements as stored"),
    ("min", True, "smallest finite value, dequantised"),
    ("max", True, "largest finite value, dequantised"),
    ("mean", True, "of the finite values"),
    ("std", True, "population standard deviation"),
    ("L2", True, "square root of the sum of squares"),
    ("zeros %", True, "share of values that are exactly 0"),
    ("sparsity", True, "Hoyer 2004: 0 where all magnitudes are equal, 1 for a single nonzero"),
    ("σ max", True, "largest singular value of the layer's matrix"),
    ("stable rank", True, "squared L2 by squared σ max"),
    ("filters", True, "rows of the matrix"),
    ("dead", True, "filters whose L2 norm is at most 1/1000 of the largest"),
    ("silenced", True, "filters that the BatchNormalization behind sets to a constant"),
    ("alike", True, "filters that another one equals up to sign and scale (cosine 0.99)"),
    ("BatchNorm", False, "whether one follows or was folded in"),
    ("NaN", True, "number of NaN"),
    ("Inf", True, "number of infinite values"),
)


def weight_cells(row: WeightRow) -> list[str]:
    """Return the cells of a row as text, in the order of :data:`WEIGHT_COLUMNS`, the layer's name left out.

    >>> weight_cells(WeightRow("c", "Conv", "weight", "w", (2, 3), 6, "float32", 32, None, 1, mean=0.5))[:8]
    ['Conv', 'weight', '2×3', 'float32', '6', '–', '–', '0.5']
    """
    zeros = None if row.zeros is None else 100 * row.zeros
    numbers = (row.min, row.max, row.mean, row.std, row.l2, zeros, row.sparsity, row.spectral_norm, row.stable_rank)
    counts = (row.filters, row.dead, row.silenced, row.near_duplicates)
    kind = row.dtype + (f", {short(row.quantization, 60)}" if row.quantization else "")
    return [
        short(row.operator, 40), row.role, shape(row.shape), kind, str(row.parameters),
        *(number(value) for value in numbers), *(_count(value) for value in counts), row.batchnorm or "–",
        str(row.nan), str(row.inf),
    ]  # fmt: skip


def _count(value: Any) -> str:
    return "–" if value is None else str(value)


def csv_url(table: WeightTable) -> str:
    """Return the table in full precision as a ``data:`` URL, longer names cut; empty where it is too large for the
    page."""
    rows = (replace(row, layer=short(row.layer, _NAME), tensor=short(row.tensor, _NAME)) for row in table.rows)
    packed = base64.b64encode(replace(table, rows=tuple(rows)).to_csv().encode()).decode("ascii")
    return f"data:text/csv;charset=utf-8;base64,{packed}" if len(packed) <= _LARGEST_CSV else ""
