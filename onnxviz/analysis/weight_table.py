"""Statistics of every layer's weights as a table: sorted, as CSV, as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from onnxviz.analysis.threads import one_thread
from onnxviz.analysis.weight_filters import batchnorm_after, dead_rows, silenced_filters, similar_pairs
from onnxviz.analysis.weight_forms import values_of, weight_blocks
from onnxviz.analysis.weight_spectra import spectral_norm
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import InputError, ModelError, SelectionError, printable, spreadsheet_text
from onnxviz.graph.provenance import provenance_of

__all__ = ["COLUMNS", "WeightRow", "WeightTable", "weight_table"]

_LINEAR = ("(out, in)", "(out, in / groups, *kernel)")


@dataclass(frozen=True)
class WeightRow:
    """One learned tensor in numbers. What does not exist or could not be computed is None; ``note`` says why.

    Attributes:
        layer: The layer; other names as of :class:`onnxviz.analysis.weights.LayerWeights`.
        operator: Its operator.
        role: What the tensor is to it.
        tensor: Name of the stored tensor.
        shape: As stored.
        parameters: Elements as stored.
        dtype: Type as stored.
        bits: Bits of a stored value.
        quantization: How it is quantised, or None.
        values: What the numbers are of: ``"stored"``, ``"dequantised"`` or ``"codes"``.
        groups: Groups of a convolution, else 1.
        mean: Mean of the finite values.
        std: Population standard deviation.
        min: Smallest finite value.
        max: Largest finite value.
        l2: Square root of the sum of squares.
        zeros: Share of values that are exactly 0, 0 … 1.
        sparsity: ``(√n - l1 / l2) / (√n - 1)``, 0 where all magnitudes are equal, 1 for a single nonzero (Hoyer 2004).
        spectral_norm: Largest singular value of the layer's matrix; of the groups' matrices the largest.
        stable_rank: ``l2² / spectral_norm²``.
        filters: Rows of the matrix: outputs of the layer.
        dead: Filters whose L2 norm is at most 1/1000 of the largest.
        silenced: Filters that the BatchNormalization behind sets to a constant; None where none follows.
        near_duplicates: Filters that another one equals up to sign and scale (cosine ≥ 0.99).
        batchnorm: ``"follows"``: a BatchNormalization reads the layer's output. ``"folded"``: the file says that one
            was folded into the weights. ``"unknown"``: neither; a folded one leaves no other trace. Empty where none
            could.
        nan: Number of NaN.
        inf: Number of Inf.
        note: Why something is missing.
    """

    layer: str
    operator: str
    role: str
    tensor: str
    shape: tuple[int, ...]
    parameters: int
    dtype: str
    bits: int
    quantization: str | None
    groups: int
    values: str = "stored"
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    l2: float | None = None
    zeros: float | None = None
    sparsity: float | None = None
    spectral_norm: float | None = None
    stable_rank: float | None = None
    filters: int | None = None
    dead: int | None = None
    silenced: int | None = None
    near_duplicates: int | None = None
    batchnorm: str = ""
    nan: int = 0
    inf: int = 0
    note: str = ""


#: Names of the columns, in order.
COLUMNS = tuple(field.name for field in fields(WeightRow))


@dataclass(frozen=True)
class WeightTable:
    """The rows of a model: see :func:`weight_table`."""

    model_name: str
    rows: tuple[WeightRow, ...]

    def sorted_by(self, column: str | None) -> WeightTable:
        """Return the table sorted: numbers largest first, text from A to Z; ``-`` before the name turns it round.

        Rows without a value come last; equal ones keep the model's order.

        Raises:
            InputError: There is no such column.
        """
        if column is None:
            return self
        name = column.removeprefix("-")
        if name not in COLUMNS:
            raise InputError(f"there is no column {column!r}", hint=f"sort by {', '.join(COLUMNS)}")
        known = [row for row in self.rows if getattr(row, name) is not None]
        number = any(isinstance(getattr(row, name), (int, float)) for row in known)
        known.sort(key=lambda row: getattr(row, name), reverse=number != column.startswith("-"))
        return replace(self, rows=(*known, *(row for row in self.rows if getattr(row, name) is None)))

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain JSON types, numbers in full precision."""
        rows = [{name: _plain(getattr(row, name)) for name in COLUMNS} for row in self.rows]
        return {"format": "onnxviz.weight_table/1", "model": self.model_name, "rows": rows}

    def to_json(self) -> str:
        """Return :meth:`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        r"""Return the table as CSV, numbers in full precision; what is None is empty.

        Text that a spreadsheet would run as a formula (it begins with ``=``, ``+``, ``-``, ``@`` or a control
        character) gets an apostrophe in front; JSON has names as they are.

        >>> row = WeightRow("=1+1", "Conv", "weight", "w", (2, 3), 6, "float32", 32, None, 1)
        >>> WeightTable("m", (row,)).to_csv().splitlines()[1][:24]
        "'=1+1,Conv,weight,w,2x3,"
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_cell(getattr(row, name)) for name in COLUMNS] for row in self.rows)
        return text.getvalue()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, str):
        return spreadsheet_text(value)
    return repr(value)


@one_thread()
def weight_table(
    layers: Sequence[LayerWeights],
    model_name: str,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> WeightTable:
    """Return the statistics of weights, a row each, in their order.

    Args:
        layers: From :func:`onnxviz.analysis.layers.select_weights`.
        model_name: What to call the model.
        progress: Called after each with how many are done and of how many.

    >>> from onnxviz.analysis.weights import layer_weights
    >>> import onnx_ir as ir
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {3, 0, 0, 4}> {y = MatMul(x, w)}''')
    >>> row = weight_table(layer_weights(model), "g").rows[0]
    >>> row.l2, row.spectral_norm, row.stable_rank, row.zeros
    (5.0, 4.0, 1.5625, 0.5)
    """
    rows = []
    for done, lw in enumerate(layers, start=1):
        rows.append(_row(lw))
        if progress is not None:
            progress(done, len(layers))
    return WeightTable(model_name, tuple(rows))


def _row(lw: LayerWeights) -> WeightRow:
    row = WeightRow(
        layer=lw.layer, operator=lw.op_type, role=lw.role, tensor=lw.tensor, shape=lw.shape, parameters=lw.parameters,
        dtype=lw.dtype, bits=lw.bits, quantization=lw.quantization, groups=lw.groups, batchnorm=_batchnorm(lw),
        values=values_of(lw),
    )  # fmt: skip
    try:
        found = lw.statistics
        row = replace(
            row, mean=found.mean, std=found.std, min=found.min, max=found.max, l2=found.l2, nan=found.nan,
            inf=found.inf, zeros=found.zero / found.size if found.size else None,
        )  # fmt: skip
        return replace(row, **_matrix_columns(lw, row))
    except ModelError as error:
        return replace(row, note=printable(error.message, 300))


def _matrix_columns(lw: LayerWeights, row: WeightRow) -> dict[str, Any]:
    try:
        values = weight_blocks(lw).values
    except SelectionError:
        return {"sparsity": None if row.nan or row.inf else _hoyer(lw.kernel)}  # a vector has no matrix
    rows = values.reshape(-1, values.shape[-1])
    if row.nan or row.inf:
        return {"filters": len(rows), "note": "NaN or Inf: no norms and no comparison of filters"}
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64, casting="unsafe"))
    dead = dead_rows(norms)
    silenced = silenced_filters(lw, len(rows))
    similar = similar_pairs(values, leave_out=dead)
    largest = max(spectral_norm(block) for block in values)
    return {
        "sparsity": _hoyer(rows), "spectral_norm": largest,
        "stable_rank": float(np.square(norms).sum() / largest**2) if largest > 0 else None,
        "filters": len(rows), "dead": len(dead), "silenced": None if silenced is None else len(silenced),
        "near_duplicates": None if similar.refused else similar.members, "note": similar.refused,
    }  # fmt: skip


def _hoyer(values: np.ndarray) -> float | None:
    """Return the sparsity of Hoyer 2004 ("Non-negative matrix factorization with sparseness constraints", section
    3.1)."""
    flat = values.reshape(-1)
    l2 = math.sqrt(float(np.einsum("i,i->", flat, flat, dtype=np.float64, casting="unsafe")))
    if values.size < 2 or l2 == 0:
        return None
    root = math.sqrt(values.size)
    return (root - float(np.abs(values).sum(dtype=np.float64)) / l2) / (root - 1)


def _batchnorm(lw: LayerWeights) -> str:
    if lw.role != "weight" or lw.orientation not in _LINEAR:
        return ""
    if batchnorm_after(lw) is not None:
        return "follows"
    source = provenance_of(lw.node)
    return "folded" if source is not None and any(_is_norm(layer) for layer in source.folded) else "unknown"


def _is_norm(layer: str) -> bool:
    name = layer.replace("/", ".").rpartition(".")[2].lower()
    return "bn" in name or "norm" in name
