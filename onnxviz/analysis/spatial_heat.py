"""The spatial heat map of a layer, its channels taken together, and where it lies on the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.feature_sheet import collect, sheet_names
from onnxviz.analysis.heat_values import Reduction, over_channels, resampled
from onnxviz.analysis.map_axes import RECURRENT, axis_letters, channels_first, numeric_array
from onnxviz.analysis.paired import NotDrawn
from onnxviz.analysis.placement import Placement, place
from onnxviz.analysis.scale import ColorScale, color_scale
from onnxviz.analysis.statistics import to_float
from onnxviz.analysis.surroundings import Surroundings
from onnxviz.errors import SelectionError, listed, printable
from onnxviz.graph.layouts import input_layout

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxviz.runtime.inputs import Inputs
    from onnxviz.runtime.record import Capture, TensorRecord

__all__ = ["Canvas", "HeatSheet", "Reduction", "SpatialHeat", "canvas_of", "over_channels", "overlay_data",
           "resampled", "spatial_heats"]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Canvas:
    """The input that heat maps are laid over.

    Attributes:
        name: Of the input.
        size: Its positions: height and width of a picture, or the length of a signal.
        picture: ``(H, W, 3)`` uint8 RGB, as the model sees it; None for a signal.
        signal: ``(C, L)`` float32; None for a picture.
        note: How the picture was made where nobody gave one.
    """

    name: str
    size: tuple[int, ...]
    picture: npt.NDArray[np.uint8] | None = None
    signal: npt.NDArray[np.float32] | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class SpatialHeat:
    """One number a position of a layer.

    Attributes:
        name, op_type, shape, dtype: Of the tensor.
        by: How its channels were taken together.
        heat: ``(h, w)`` float32, read-only; of a signal ``(1, steps)``; NaN where no channel is finite.
        placement: Where its cells lie on the input; of a signal one axis.
        channels: How many there are.
        scale: Of the heat, its full range; symmetric where a value is negative.
        nonfinite: Values of the sample, all channels, that are NaN or infinite and were left out.
        note: What else was done.
        batch: Samples in the tensor.
    """

    name: str
    op_type: str | None
    shape: tuple[int, ...]
    dtype: str
    by: Reduction
    heat: npt.NDArray[np.float32]
    placement: Placement
    channels: int
    scale: ColorScale
    nonfinite: int
    note: str = ""
    batch: int = 1

    def at(self, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return the heat at places of a picture, ``(len(rows), len(columns))``: see :func:`resampled`.

        Args:
            rows: In pixels of the input; whole numbers are the centres of pixels.
            columns: Likewise.
        """
        down, across = self.placement.axes
        return resampled(self.heat, down.cells(rows), across.cells(columns))


@dataclass(frozen=True, eq=False)
class HeatSheet:
    """Heat maps of several layers over one input.

    Attributes:
        model_name: Of the model.
        canvas: The input.
        heats: In the model's order.
        by: How channels were taken together.
        sample: Which sample, of ``batch``.
        batch: Samples in the batch.
        without: Names of layers that were left out because they have no such axes.
        not_drawn: Tensors that were asked for and are not drawn.
    """

    model_name: str
    canvas: Canvas
    heats: tuple[SpatialHeat, ...]
    by: Reduction
    sample: int = 0
    batch: int = 1
    without: tuple[str, ...] = ()
    not_drawn: tuple[NotDrawn, ...] = ()


def canvas_of(around: Surroundings, inputs: Inputs, sample: int = 0) -> Canvas:
    """Return the picture or signal that a model was fed: the picture as it sees it, or the tensor drawn as one.

    Args:
        around: What the model tells of its tensors.
        inputs: What it was fed.
        sample: Which sample of the batch.

    Raises:
        SelectionError: No input is a picture or a signal.
    """
    values = {str(value.name): value for value in around.model.graph.inputs}
    for record in sorted(inputs.records, key=lambda record: record.picture is None):
        if record.picture is not None and sample == 0:
            return Canvas(record.name, record.picture.shape[:2], record.picture)
        array = inputs.feeds.get(record.name)
        value = values.get(record.name)
        if value is None or not isinstance(array, np.ndarray) or array.dtype.kind not in "fiuV":
            continue
        found = _drawn(record.name, array, _layout(around, value, array.ndim), sample)
        if found is not None:
            return found
    raise SelectionError("no input of the model is a picture or a signal", hint="leave --overlay out")


def _layout(around: Surroundings, value: ir.Value, rank: int) -> str | None:
    told = around.layouts.get(str(value.name))  # of rank 3: a signal, as the convolution that reads it says
    told = told or input_layout(around.model, value, around.layouts)
    if rank == 2 and any(node.op_type in ("Unsqueeze", "Reshape") for node in value.consumers()):
        return "NL"  # raw samples, to which the model itself adds an axis of channels
    return told if rank == 3 or (told is not None and len(told) == rank) else None


def _drawn(name: str, array: npt.NDArray[Any], layout: str | None, sample: int) -> Canvas | None:
    """Return an input tensor as a picture or a signal; None where its axes are neither's."""
    if layout == "NL" and array.dtype.kind == "f" and array.size and array.shape[1] > 1:
        return Canvas(name, array.shape[1:], signal=to_float(array[min(sample, len(array) - 1)][None]))
    if layout is None or array.ndim not in (3, 4) or not array.size:
        return None
    single = layout in ("CHW", "HWC")
    one = array if single else array[min(sample, len(array) - 1)]
    block = to_float(one if layout.endswith("CHW") else np.moveaxis(one, -1, 0))
    if block.ndim == 2:
        return Canvas(name, block.shape[1:], signal=block)
    if block.ndim != 3:
        return None
    shown = block if len(block) == 3 else over_channels(block, "mean")[None].repeat(3, axis=0)
    finite = shown[np.isfinite(shown)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    levels = (np.where(np.isfinite(shown), shown, low) - low) / ((high - low) or 1.0)
    picture = np.rint(255 * np.moveaxis(levels, 0, -1)).astype(np.uint8)
    how = "" if len(block) in (1, 3) else f", mean of {len(block)} channels"
    return Canvas(
        name, block.shape[1:], picture, note=f"input tensor from black ({low:.3g}) to white ({high:.3g}){how}"
    )


def spatial_heats(
    model: ir.Model,
    captured: Capture,
    canvas: Canvas,
    *,
    by: Reduction = "mean",
    every: bool = False,
    sample: int = 0,
    layout: str | None = None,
    around: Surroundings | None = None,
) -> HeatSheet:
    """Return the spatial heat maps of a capture over its input.

    A tensor has one where its positions are those of the input: the layout is known, or what its cells see, or its
    tokens are patches, or it is a sequence over time. Others, such as attention matrices, are told.

    Args:
        model: The model that was captured.
        captured: Its tensors.
        canvas: The input.
        by: How channels are taken together: ``"mean"``, ``"max"`` or ``"energy"`` (mean of ``x²``).
        every: Tell each tensor that has none; by default only layers and outputs are looked at, and those are counted.
        sample: Which sample of the batch.
        layout: As :func:`onnxviz.analysis.feature_maps.feature_maps` takes it.
        around: What the model tells of its tensors, where that is worked out already.

    Raises:
        SelectionError: No tensor has such axes; the text names those of the model that have.
    """
    if by not in get_args(Reduction):
        raise SelectionError(f"there is no overlay {by!r}", hint=f"choose {', '.join(get_args(Reduction))}")
    around = around or Surroundings(model, captured)
    fields, ungated = around.fields(canvas.name), around.fields(canvas.name, gates=False)

    def view(name: str) -> SpatialHeat:
        return _heat(captured[name], canvas, by, (sample, layout), around, (fields, ungated))

    names = sheet_names(captured, every=every)
    try:
        found, refused = collect(names, view)
    except SelectionError as error:
        having = [name for name in around.layouts if name in fields and name not in captured and name != canvas.name]
        having = [n for n in having if _is_map(around.shapes.get(n, ()), around.layouts[n], len(canvas.size))]
        if not every and not sample:
            raise SelectionError(
                "no layer of the model has a map whose positions are known to be the input's",
                hint="name a tensor with --tensor and its axes with --axes, or leave --overlay out",
            ) from error
        if not having or sample:
            raise
        hint = f"those that have are {listed([printable(n, 40) for n in having], 6)}"
        raise SelectionError(error.message, hint=hint) from error
    heats = list(found)
    batch = max(heat.batch for heat in heats)
    without = () if every else tuple(one.name for one in refused)
    return HeatSheet(
        captured.model_name, canvas, tuple(heats), by, sample, batch, without, tuple(refused) if every else ()
    )


def _is_map(shape: tuple[int, ...], layout: str, axes: int) -> bool:
    spatial = shape[1:-1] if layout == "NHWC" else shape[2:]
    return len(spatial) == axes and max(spatial) > 1


def _heat(
    record: TensorRecord, canvas: Canvas, by: Reduction, how: tuple[int, str | None], around: Surroundings,
    fields: tuple[dict[str, Any], dict[str, Any]],
) -> SpatialHeat:  # fmt: skip
    sample, layout = how
    record, said = around.in_numbers(record)
    array, name, op_type, dtype = numeric_array(record, None, "heat map")
    if fields[0] and name not in fields[0]:
        raise SelectionError(f"{name} does not depend on {canvas.name}, the input that is drawn")
    known = layout or around.letters(name)
    axes = axis_letters(array.shape, name, op_type, known)
    tokens = around.tokens(name) if layout is None and op_type not in RECURRENT else None
    block, _, _, batch = channels_first(array, axes, sample, name)
    note = said
    if tokens is not None and tokens.image is not None and len(canvas.size) == 2:
        patches = tokens.image
        block = block[:, patches.start : patches.stop].reshape(len(block), *(patches.grid or ()))
        rows, columns = patches.grid or (0, 0)
        note = f"{said} · " * bool(said) + f"tokens as {rows} × {columns} patches"
        if others := [one.name for one in tokens.blocks if one is not patches]:
            note += f", {', '.join(others[:3])} set aside"
    elif known is None and op_type not in RECURRENT and around.across(name, None) != "time" and name not in fields[0]:
        raise SelectionError(f"{name} of shape {record.shape}: nothing tells that its axes are positions of the input")
    shape = block.shape[1:]
    if len(shape) != len(canvas.size) or max(shape, default=1) == 1:
        what = (
            "no spatial axes"
            if max(shape, default=1) == 1
            else f"{len(shape)} spatial axes, the input {len(canvas.size)}"
        )
        raise SelectionError(f"{name} of shape {record.shape} has {what}")
    placement = place(name, shape, canvas.size, around, fields)
    if known is None and op_type not in RECURRENT and not placement.aligned and tokens is None:
        raise SelectionError(f"{name} of shape {record.shape}: nothing tells that its axes are positions of the input")
    heat = over_channels(block, by)
    heat = heat[None] if heat.ndim == 1 else heat
    heat.flags.writeable = False
    lost = int(block.size - np.count_nonzero(np.isfinite(block)))
    return SpatialHeat(
        name, op_type, tuple(record.shape), dtype, by, heat, placement, len(block), color_scale(heat, percentile=100.0),
        lost, note, batch,
    )  # fmt: skip


def overlay_data(sheet: HeatSheet) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of heat maps, named ``NUMBER/heat``, the input, and a manifest that tells which is which.

    ``centres`` of each row of the manifest holds, for each axis, the first centre and the step in pixels of the input.
    """
    arrays: dict[str, np.ndarray] = {f"{i}/heat": heat.heat for i, heat in enumerate(sheet.heats)}
    if sheet.canvas.picture is not None:
        arrays["picture"] = sheet.canvas.picture
    if sheet.canvas.signal is not None:
        arrays["signal"] = sheet.canvas.signal
    rows = [
        {
            "number": i, "name": heat.name, "op_type": heat.op_type, "shape": list(heat.shape), "dtype": heat.dtype,
            "channels": heat.channels, "centres": [[axis.first, axis.step] for axis in heat.placement.axes],
            "aligned": heat.placement.aligned, "scale": [heat.scale.vmin, heat.scale.vmax],
            "nonfinite": heat.nonfinite, "note": " · ".join(n for n in (heat.note, heat.placement.note) if n),
        }
        for i, heat in enumerate(sheet.heats)
    ]  # fmt: skip
    refused = [one.to_dict() for one in sheet.not_drawn]
    manifest = {"format": "onnxviz.overlay/1", "model": sheet.model_name, "input": sheet.canvas.name, "by": sheet.by,
                "sample": sheet.sample, "tensors": rows, "without_positions": list(sheet.without)}  # fmt: skip
    return arrays, {**manifest, "not_drawn": refused}
