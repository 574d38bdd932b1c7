"""BatchNorm layers of a Keras model: their parameters, and an export that leaves them in the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from onnxviz.graph.batchnorm import BatchNorm

__all__ = ["batchnorms_of", "keeping_batchnorm"]


def batchnorms_of(layers: Mapping[str, Any]) -> dict[str, BatchNorm]:
    """Return the parameters of the BatchNorm layers among some, by path."""
    import keras

    return {
        path: _parameters(layer)
        for path, layer in layers.items()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.built
    }


def _parameters(layer: Any) -> BatchNorm:
    import keras

    def array(variable: Any, size: int = 0, default: float = 0.0) -> Any:
        if variable is None:
            return np.full(size, default)
        return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)

    mean, variance = array(layer.moving_mean), array(layer.moving_variance)
    gamma, beta = array(layer.gamma, mean.size, 1.0), array(layer.beta, mean.size, 0.0)
    return BatchNorm(gamma, beta, mean, variance, float(layer.epsilon))


@contextmanager
def keeping_batchnorm(layers: Mapping[str, Any]) -> Iterator[None]:
    """Have TensorFlow trace the BatchNorm layers among some so that nobody folds them into the convolution before them.

    TensorFlow and tf2onnx look for a product of the convolution and a constant, in this order: one sees no convolution
    behind a StopGradient, the other none where the constant comes first.
    """
    import keras
    import tensorflow as tf

    original = keras.layers.BatchNormalization.call
    found = {id(layers[path]): norm.affine for path, norm in batchnorms_of(layers).items()}

    def call(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if id(self) not in found or not tf.inside_function():
            return original(self, inputs, *args, **kwargs)
        shape = [1] * len(inputs.shape)
        shape[self.axis] = -1
        scale, shift = (tf.constant(a.reshape(shape), inputs.dtype) for a in found[id(self)])
        return scale * tf.stop_gradient(inputs) + shift

    keras.layers.BatchNormalization.call = call
    try:
        yield
    finally:
        keras.layers.BatchNormalization.call = original
