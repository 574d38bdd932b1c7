"""Six Keras networks of the kinds that people export, small, with weights and statistics that let errors show.

Run as a program, it converts all of them on the backend that ``KERAS_BACKEND`` names, and the networks of
``keras.applications`` that it is given, and prints what came out as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import layers


def sequential() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((24, 20, 3), name="picture"),
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv1"),
            layers.BatchNormalization(name="bn1"),
            layers.ReLU(name="relu1"),
            layers.MaxPooling2D(name="pool1"),
            layers.DepthwiseConv2D(3, strides=2, padding="same", name="depthwise"),
            layers.BatchNormalization(name="bn2"),
            layers.Activation("gelu", name="gelu"),
            layers.Flatten(name="flatten"),
            layers.Dense(16, name="dense"),
            layers.BatchNormalization(name="bn3"),
            layers.Dropout(0.3, name="dropout"),
            layers.Dense(5, activation="softmax", name="classes"),
        ],
        name="sequential",
    )


def branches() -> keras.Model:
    """Two inputs, a nested model that is called twice, a squeeze-and-excitation branch, a skip connection."""
    picture, other = keras.Input((16, 16, 4), name="picture"), keras.Input((16, 16, 4), name="other")
    inner = keras.Sequential(
        [keras.Input((16, 16, 4)), layers.Conv2D(8, 3, padding="same", name="conv"), layers.LeakyReLU(name="leaky")],
        name="backbone",
    )
    left, right = inner(picture), inner(other)
    joined = layers.Concatenate(name="joined")([left, right])
    scale = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(joined)
    scale = layers.Conv2D(16, 1, activation="sigmoid", name="excite")(scale)
    scaled = layers.Multiply(name="scaled")([joined, scale])
    added = layers.Add(name="added")([scaled, layers.Conv2D(16, 1, name="shortcut")(picture)])
    up = layers.Conv2DTranspose(4, 2, strides=2, name="up")(added)
    score = layers.Dense(3, name="score")(layers.GlobalMaxPooling2D(name="pooled")(added))
    return keras.Model([picture, other], [up, score], name="branches")


class Block(layers.Layer):
    """A layer of the user's own, made of others; attributes have other names than the layers in them."""

    def __init__(self, width: int, name: str) -> None:
        super().__init__(name=name)
        self.fc_a = layers.Dense(width, name="expand")
        self.bn = layers.BatchNormalization(name="norm")
        self.fc_b = layers.Dense(8, name="shrink")

    def call(self, x: Any) -> Any:
        return x + self.fc_b(keras.ops.relu(self.bn(self.fc_a(x))))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.stem = layers.Conv1D(8, 5, padding="causal", name="first")
        self.norm = layers.BatchNormalization(name="norm")
        self.attend = layers.MultiHeadAttention(2, 4, name="attend")
        self.layer_norm = layers.LayerNormalization(name="layer_norm")
        self.blocks = [Block(16, f"block{number}") for number in range(2)]
        self.second = layers.Dense(4, name="second")

    def call(self, x: Any, training: bool = False) -> Any:
        x = keras.ops.relu(self.norm(self.stem(x), training=training))
        x = self.layer_norm(x + self.attend(x, x))
        for block in self.blocks:
            x = block(x)
        return self.second(keras.ops.mean(x, axis=1))


def subclassed() -> keras.Model:
    return Subclassed()


def mobilenet() -> keras.Model:
    return keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=7, name="mobilenet"
    )


def preprocessing() -> keras.Model:
    normal = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.05, 0.06, 0.04], name="normal")
    return keras.Sequential(
        [
            keras.Input((40, 36, 3), name="picture"),
            layers.Rescaling(1 / 4, offset=0.5, name="rescale"),
            layers.CenterCrop(32, 28, name="crop"),
            layers.Resizing(16, 16, name="resize"),
            normal,
            layers.Conv2D(6, 3, name="conv"),
            layers.PReLU(name="prelu"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(3, name="score"),
        ],
        name="preprocessing",
    )


def recurrent() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12, 5), name="signal"),
            layers.Conv1D(8, 3, padding="same", name="conv"),
            layers.Bidirectional(layers.LSTM(6, return_sequences=True), name="both"),
            layers.LSTM(5, name="lstm"),
            layers.Dense(2, name="score"),
        ],
        name="recurrent",
    )


NETS = (sequential, branches, subclassed, mobilenet, preprocessing, recurrent)


def trained(build: Any) -> keras.Model:
    """Return a network with weights that keep signals alive and BatchNorm statistics that are not 0 and 1."""
    keras.utils.set_random_seed(3)
    model = build()
    if not model.built:
        model(np.zeros((1, 20, 6), np.float32))
    rng = np.random.default_rng(11)
    for variable in model.variables:
        name, shape = variable.name, tuple(variable.shape)
        if name == "moving_mean":
            variable.assign(rng.uniform(-0.5, 0.5, shape).astype("float32"))
        elif name in ("moving_variance", "gamma"):
            variable.assign(rng.uniform(0.5, 1.5, shape).astype("float32"))
        elif name in ("beta", "bias"):
            variable.assign(rng.uniform(-0.3, 0.3, shape).astype("float32"))
        elif name == "kernel" and len(shape) > 1:
            fan = np.prod(shape[:-2]) if "depthwise" in variable.path else np.prod(shape[:-1])
            variable.assign((rng.standard_normal(shape) * np.sqrt(2 / fan)).astype("float32"))
    return model


ERRORS = {
    "one percent off": lambda w: w * np.float32(1.01),
    "transposed": lambda w: np.ascontiguousarray(w.swapaxes(0, 1)).reshape(w.shape),
}


def planted() -> dict[str, str]:
    """Return, for each error in one weight of the ONNX model, the layer at which it is found."""
    from onnxviz.converters.base import ConvertOptions, Source
    from onnxviz.converters.keras import KerasConverter
    from onnxviz.converters.parity import measure_parity
    from onnxviz.graph.provenance import provenance_of

    conversion = KerasConverter().convert(Source("net", network=trained(sequential)), ConvertOptions())
    found = {}
    for layer in ("conv1", "dense"):
        value = next(
            node.inputs[1]
            for node in conversion.model.graph
            if (source := provenance_of(node)) is not None
            and source.layer == layer
            and node.op_type in ("Conv", "Gemm", "MatMul")
        )
        right = value.const_value
        for how, error in ERRORS.items():
            value.const_value = ir.tensor(error(right.numpy()), name=value.name)
            first = measure_parity(conversion).layers[0].first
            found[f"{layer} {how}"] = "" if first is None else first.layer
        value.const_value = right
    assert measure_parity(conversion).layers[0].first is None, "without an error none is found"
    return found


def kept() -> dict[str, Any]:
    """Convert a network whose BatchNorms stay, and return what became of them."""
    from onnxviz.converters import convert

    result = convert(trained(sequential), keep_batchnorm=True)
    assert result.parity is not None
    (layered,) = result.parity.layers
    assert layered.worst is not None
    nodes = [node for node in result.model.graph if node.op_type == "BatchNormalization"]
    weights = [value.name for node in nodes for value in node.inputs[1:] if value is not None]
    return {"names": [node.name for node in nodes], "weights": weights[:4], "error": layered.worst.relative,
            "notes": result.notes}  # fmt: skip


def opened() -> dict[str, str]:
    """Convert networks whose time axis stays open; return the shapes of input and output, or the error."""
    from onnxviz.converters import convert
    from onnxviz.errors import ConversionError

    found = {}
    for name, layer in (("conv", layers.Conv1D(4, 3, name="conv")), ("lstm", layers.LSTM(4, name="lstm"))):
        model = keras.Sequential([keras.Input((None, 5), name="signal"), layer, layers.Dense(2, name="score")])
        try:
            graph = convert(model, input_shape=(1, 12, 5), dynamic={"signal": {1: "time"}}).model.graph
            found[name] = f"{graph.inputs[0].shape} -> {graph.outputs[0].shape}"
        except ConversionError as error:
            found[name] = str(error)
    return found


def main() -> None:
    from onnxviz.converters import convert
    from onnxviz.graph.provenance import provenance_of

    found = {}
    for build in NETS:
        shape = (1, 20, 6) if build is subclassed else None
        result = convert(trained(build), input_shape=shape)
        assert result.parity is not None
        (layered,) = result.parity.layers
        assert layered.worst is not None
        found[build.__name__] = {
            "exporter": result.exporter,
            "notes": result.notes,
            "batches": result.parity.batches,
            "output_error": result.parity.worst.relative_l2,
            "error": layered.worst.relative,
            "first": layered.first and str(layered.first),
            "layers": [layer.name for layer in layered.layers],
            "missing": dict(layered.missing),
            "nodes": result.model.graph.num_nodes(),
            "ops": sorted({node.op_type for node in result.model.graph}),
            "sourced": sum(bool((s := provenance_of(node)) and s.layer) for node in result.model.graph),
            "lines": sorted({s.line for node in result.model.graph if (s := provenance_of(node)) and s.line}),
            "axes": [str(value.shape[0]) for value in result.model.graph.inputs if value.shape is not None],
        }
    found |= {"planted": planted(), "kept": kept(), "opened": opened()}
    for name in sys.argv[1:]:
        network = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=4)
        found[name] = {"nodes": convert(network, parity=False).model.graph.num_nodes()}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
