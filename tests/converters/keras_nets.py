"""Keras factories that the tests convert by path."""

from __future__ import annotations

import keras
from keras import layers


def sequential() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12, 12, 3), name="picture"),
            layers.Rescaling(1 / 127.5, offset=-1, name="scale"),
            layers.Conv2D(4, 3, padding="same", strides=2, use_bias=False, name="conv1"),
            layers.BatchNormalization(name="bn1"),
            layers.ReLU(name="relu1"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, activation="softmax", name="classes"),
        ]
    )


def branches() -> keras.Model:
    picture = keras.Input((8, 8, 2), name="picture")
    side = keras.Input((3,), name="side")
    left = layers.Conv2D(4, 3, padding="same", activation="gelu", name="left")(picture)
    right = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="right")(picture)
    inner = keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(4, 1, name="point")], name="inner")
    added = layers.Add(name="added")([inner(left), right])
    pooled = layers.GlobalAveragePooling2D(name="pooled")(added)
    joined = layers.Concatenate(name="joined")([pooled, side])
    return keras.Model([picture, side], {"score": layers.Dense(2, name="score")(joined), "map": added}, name="branches")


def never_built() -> keras.Model:
    return keras.Sequential([layers.Dense(3, name="first"), layers.Dense(2, name="second")])


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.first = layers.Dense(3, name="first")
        self.second = layers.Dense(2, name="second")

    def call(self, x: object) -> object:
        return self.second(keras.ops.tanh(self.first(x)))


def subclassed() -> keras.Model:
    return Subclassed()
