"""A model in another precision, as deployment would have it: float16, or int8 with calibrated ranges."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnxviz.errors import ModelError
from onnxviz.graph.io import open_model, save_model
from onnxviz.graph.model import from_proto, summary_line, to_proto
from onnxviz.runtime.quiet import quiet

__all__ = ["PRECISIONS", "in_precision"]

Feed = Mapping[str, npt.NDArray[Any]]
PRECISIONS = ("float16", "int8")


def in_precision(model: ir.Model, precision: str, feeds: Iterable[Feed]) -> ir.Model:
    """Return a model converted with onnxruntime's own tools; tensors keep their names, inputs and outputs their types.

    ``float16`` stores weights and computes in float16, but for operators without such a kernel. ``int8`` is static
    quantisation in QDQ form, weights per channel, ranges of activations by minimum and maximum over ``feeds``.

    Args:
        model: The model, in float32; it is not changed.
        precision: One of :data:`PRECISIONS`.
        feeds: Inputs to calibrate on.

    Raises:
        ModelError: onnxruntime cannot convert the model.
    """
    try:
        with quiet():
            return _float16(model) if precision == "float16" else _int8(model, feeds)
    except Exception as error:
        raise ModelError(
            f"onnxruntime cannot convert the model to {precision}: {summary_line(error)}",
            hint="compare it in float32 only",
        ) from error


def _float16(model: ir.Model) -> ir.Model:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto: onnx.ModelProto = convert_float_to_float16(to_proto(model), keep_io_types=True)
    return from_proto(proto)


def _int8(model: ir.Model, feeds: Iterable[Feed]) -> ir.Model:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds: Iterator[Feed] = iter(feeds)

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            feed = next(self._feeds, None)
            return None if feed is None else {name: np.asarray(array) for name, array in feed.items()}

    with tempfile.TemporaryDirectory(prefix="onnxviz-") as folder:
        before, after = Path(folder, "model.onnx"), Path(folder, "int8.onnx")
        save_model(model, before)
        quantize_static(
            str(before), str(after), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return open_model(after)
