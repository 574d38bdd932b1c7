"""See inside any ONNX model."""

from onnxviz._version import __version__
