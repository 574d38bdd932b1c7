"""A small convolutional network in Keras 3, channels last, ending in global average pooling.

``digits_cnn()`` is the factory that ``onnxviz convert models/digits_cnn_keras.py:digits_cnn --trust`` calls. Run as a
script, it trains on scikit-learn's digits with a fixed seed and writes ``models/digits_cnn.onnx``::

    python models/digits_cnn_keras.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

EPOCHS = 40
BATCH = 64


def digits_cnn() -> keras.Model:
    """Return the untrained network: ``image`` (N, 28, 28, 1) ``float32`` in 0-1 to (N, 10) probabilities."""
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(16, 3, activation="relu", name="conv1")(image)
    x = layers.MaxPooling2D(name="pool1")(x)
    x = layers.Conv2D(32, 3, activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(name="pool2")(x)
    x = layers.Conv2D(64, 3, activation="relu", name="conv3")(x)
    x = layers.GlobalAveragePooling2D(name="pool3")(x)
    x = layers.Dense(32, activation="relu", name="fc1")(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="output")(x), name="digits_cnn")


def train(images: np.ndarray, classes: np.ndarray, seed: int) -> keras.Model:
    """Train on (N, 28, 28) images, each shifted by up to two pixels in every epoch."""
    from digits import shifted

    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = digits_cnn()
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(
        3e-4, steps, warmup_target=6e-3, warmup_steps=steps // 10, alpha=0.01
    )
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=0.01), "sparse_categorical_crossentropy", jit_compile=False
    )
    for _ in range(EPOCHS):
        moved = shifted(images, rng)
        order = rng.permutation(len(images))
        model.fit(moved[order, ..., None], classes[order], batch_size=BATCH, epochs=1, shuffle=False, verbose=0)
    return model


def main() -> None:
    """Train, convert, write ``digits_cnn.onnx`` and print the accuracy on the held-out digits."""
    import digits

    from onnxviz.converters import convert
    from onnxviz.graph.io import save_model

    data = digits.load()
    model = train(digits.network_input(data.train.pictures, 28), data.train.classes, digits.SEED)
    found = model.predict(digits.network_input(data.test.pictures, 28)[..., None], verbose=0).argmax(1)
    print(f"digits CNN: {np.sum(found == data.test.classes)} of {len(found)} held-out digits are right")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "digits_cnn.weights.h5")
        model.save_weights(weights)
        result = convert(f"{__file__}:digits_cnn", weights=weights, trust=True)
    save_model(result.model, Path(__file__).with_name("digits_cnn.onnx"))
    print(f"{result.exporter}: {result.parity}")


if __name__ == "__main__":
    main()
