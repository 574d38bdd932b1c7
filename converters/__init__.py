"""From PyTorch and Keras to ONNX, with the outputs compared.

>>> import torch
>>> from onnxviz.converters import convert
>>> convert(torch.nn.Linear(3, 2), input_shape=(1, 3)).parity.batches
(1, 2, 5)
"""

from __future__ import annotations

from onnxviz.analysis.comparison import OutputParity
from onnxviz.analysis.layer_parity import LayerError, LayerParity
from onnxviz.converters.base import Conversion, Converter, ConvertOptions, Source
from onnxviz.converters.parity import Parity, check_parity, measure_parity
from onnxviz.converters.registry import ConversionResult, convert, converters

__all__ = [
    "Conversion",
    "ConversionResult",
    "ConvertOptions",
    "Converter",
    "LayerError",
    "LayerParity",
    "OutputParity",
    "Parity",
    "Source",
    "check_parity",
    "convert",
    "converters",
    "measure_parity",
]
