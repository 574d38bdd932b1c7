"""The handwritten digits that the bundled models are trained on: scikit-learn's copy of the UCI optical digits.

Every 8×8 digit becomes a 32×32 greyscale picture of ``uint8`` pixels, which is exactly what a sample PNG holds, so
that a PNG opened by onnxviz and a training picture go through the same arithmetic: resize with Pillow's bilinear
filter on ``uint8`` where the network wants another size, then divide by 255.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["SEED", "Digits", "Split", "load", "network_input", "picture"]

SEED = 7
TEST_SHARE = 0.25
PICTURE_SIZE = 32

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]


class Split(NamedTuple):
    """One part of the data.

    Attributes:
        pictures: (N, 32, 32) ``uint8``, 0 background, 255 ink.
        classes: (N,) ``int64``, 0-9.
        indices: (N,) ``int64``, positions in ``sklearn.datasets.load_digits()``.
    """

    pictures: ByteArray
    classes: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]


class Digits(NamedTuple):
    """The fixed split: ``train`` to learn from, ``test`` held out."""

    train: Split
    test: Split


def picture(digit: npt.NDArray[np.float64], size: int = PICTURE_SIZE) -> ByteArray:
    """Turn an (8, 8) digit with values 0-16 into a (size, size) ``uint8`` picture, with Pillow's bilinear filter."""
    pixels = np.rint(digit * (255 / 16)).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))


def network_input(pictures: ByteArray, size: int) -> FloatArray:
    """Return (N, size, size) ``float32`` in 0-1: each picture stretched to ``size`` on ``uint8``, divided by 255."""
    if pictures.shape[1:] != (size, size):
        stretched = [Image.fromarray(p).resize((size, size), Image.Resampling.BILINEAR) for p in pictures]
        pictures = np.stack([np.asarray(p) for p in stretched])
    return pictures.astype(np.float32) / np.float32(255)


def load() -> Digits:
    """Load the 1797 digits and split them, stratified by class and with a fixed seed: 1347 to learn, 450 held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, classes = load_digits(return_X_y=True)
    pictures = np.stack([picture(image) for image in images.reshape(-1, 8, 8)])
    train, test = train_test_split(
        np.arange(len(classes)), test_size=TEST_SHARE, random_state=SEED, stratify=classes, shuffle=True
    )
    return Digits(*(Split(pictures[part], classes[part].astype(np.int64), part) for part in (train, np.sort(test))))


def shifted(images: FloatArray, rng: np.random.Generator, reach: int = 2) -> FloatArray:
    """Return the (N, H, W) images each moved by up to ``reach`` pixels in both directions, zeros moving in."""
    height, width = images.shape[1:]
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach)))
    rows, columns = rng.integers(0, 2 * reach + 1, (2, len(images)))
    moved = [p[r : r + height, c : c + width] for p, r, c in zip(padded, rows, columns, strict=True)]
    return np.stack(moved)
