"""Gradients of a model as a model: the backward pass is built as ONNX nodes, from rules that are rows of a table."""
