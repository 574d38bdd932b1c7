"""Two tensors side by side: what enters a layer and what leaves it, with the same channels on the same scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.feature_maps import FeatureMaps, Score, axis_letters, feature_maps
from onnxviz.analysis.scale import PERCENTILE, color_scale
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.kinds import KINDS
from onnxviz.graph.model import copy_model
from onnxviz.graph.select import node_tensors, select
from onnxviz.runtime.record import Capture, TensorRecord

__all__ = ["NotDrawn", "asked_for", "missing", "observable", "paired_maps", "shared_axes"]

_BY_CHANNEL = {"BatchNormalization", "InstanceNormalization", "PRelu"}


@dataclass(frozen=True)
class NotDrawn:
    """A tensor that a sheet was asked for and does not show.

    Attributes:
        name: Of the tensor.
        reason: Why, and what would work; one line.
    """

    name: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """Return what a manifest tells of it."""
        return {"name": self.name, "reason": self.reason}


def observable(model: ir.Model, reads: Callable[[ir.Node], bool]) -> ir.Model:
    """Return a copy, functions inlined, in which no node of a kind reads a graph input: an Identity stands between.

    So what enters any such node is captured as the output of a node.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) {y = Relu(x)}''')
    >>> [node.op_type for node in observable(model, lambda node: node.op_type == "Relu").graph]
    ['Identity', 'Relu']
    """
    flat = inline_functions(model)
    flat = copy_model(flat) if flat is model else flat
    taken = {str(value.name) for value in (*flat.graph.inputs, *flat.graph.initializers.values(), *node_tensors(flat))}
    for value in flat.graph.inputs:
        readers = [node for node in dict.fromkeys(value.consumers()) if node.graph is flat.graph and reads(node)]
        if not readers or value.is_initializer():
            continue
        name = f"{value.name} (input)"
        while name in taken:
            name += "'"
        node = ir.node("Identity", [value], outputs=[ir.Value(name=name, type=value.type, shape=value.shape)])
        flat.graph.insert_before(flat.graph[0], node)
        for reader in readers:
            for index, read in enumerate(reader.inputs):
                if read is value:
                    reader.replace_input_with(index, node.outputs[0])
    return flat


def asked_for(model: ir.Model, tensors: Any) -> set[ir.Value] | None:
    """Return the tensors that patterns name, as :func:`onnxviz.graph.select.select` reads them; None for no pattern."""
    return None if tensors is None else set(select(model, tensors))


def paired_maps(
    before: npt.NDArray[Any], after: npt.NDArray[Any], records: tuple[TensorRecord, TensorRecord],
    *, layout: str | None, top: int | None, by: Score, sample: int,
) -> tuple[FeatureMaps, FeatureMaps]:  # fmt: skip
    """Return the maps of two tensors of the same channels, those of the first chosen, on one scale.

    Args:
        before: What enters.
        after: What leaves.
        records: Their records.
        layout, top, by, sample: As :func:`onnxviz.analysis.feature_maps.feature_maps` takes them.

    Raises:
        SelectionError: They have no maps.
    """
    first = _replaced(records[0], before)
    second = _replaced(records[1], after)
    if before.shape == after.shape:
        layout = shared_axes(records, before.shape, layout)
    elif layout is None and first.op_type != second.op_type and before.ndim == 3:
        layout = "NCHW" if _channels_second(first) or _channels_second(second) else None
    entering = feature_maps(first, layout=layout, top=top, by=by, sample=sample)
    leaving = feature_maps(second, layout=layout, top=None, by="index", sample=sample)
    if leaving.kind == "grid" and leaving.total == entering.total:
        leaving = _chosen(leaving, entering.channels)
    batch = layout.index("N") if layout is not None and "N" in layout else 0
    both = np.concatenate([_values(before, entering, batch), _values(after, leaving, batch)])
    scale = color_scale(both, percentile=100.0 if entering.kind == "vector" else PERCENTILE)
    return replace(entering, scale=scale), replace(leaving, scale=scale, by=entering.by)


def shared_axes(records: tuple[TensorRecord, TensorRecord], shape: tuple[int, ...], layout: str | None) -> str | None:
    """Return the axes of two tensors of one shape, a letter each, so that both are read alike.

    What made the first decides, such as an LSTM, whose batch is not its first axis; then what made the second.

    Args:
        records: What enters and what leaves.
        shape: Of both.
        layout: Where the graph tells; see :func:`onnxviz.analysis.feature_maps.axis_letters`.
    """
    if not shape or len(shape) > 5:
        return layout
    if layout is None and len(shape) == 3 and any(_channels_second(record) for record in records):
        layout = "NCHW"
    return axis_letters(shape, records[0].name, records[0].op_type, layout)


def _values(array: npt.NDArray[Any], fm: FeatureMaps, batch: int) -> npt.NDArray[Any]:
    """Return the values of the sample that maps show, those of channels not shown included."""
    one = array.take(fm.sample, axis=batch) if fm.batch > 1 and array.shape[batch] == fm.batch else array
    return np.asarray(one).reshape(-1).astype(np.float64)


def _chosen(fm: FeatureMaps, channels: tuple[int, ...]) -> FeatureMaps:
    """Return some of the channels of maps that hold all in order."""
    index = list(channels)
    maps = fm.maps[index]
    maps.flags.writeable = False
    return replace(
        fm, maps=maps, channels=channels, scores=fm.scores[index], ranges=fm.ranges[index],
        constant=tuple(fm.constant[i] for i in index),
    )  # fmt: skip


def _replaced(record: TensorRecord, array: npt.NDArray[Any]) -> TensorRecord:
    """Return a record with other values, such as dequantised ones."""
    return replace(record, kept=array, shape=tuple(array.shape))


def _channels_second(record: TensorRecord) -> bool:
    return record.op_type in KINDS["conv"] | KINDS["pool"] | _BY_CHANNEL


def missing(captured: Capture, *names: str) -> NotDrawn | None:
    """Return why one of the tensors has no values; None where all have."""
    for name in names:
        if name not in captured:
            return NotDrawn(names[-1], captured.not_captured.get(name, "it was not computed"))
    return None
