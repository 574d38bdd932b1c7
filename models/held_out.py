"""What each bundled model was never shown: the feeds of its inputs, and the classes that are right."""

from __future__ import annotations

from functools import cache
from typing import Any

import digits
import numpy as np
import numpy.typing as npt
import questions
import signals

__all__ = ["DATA", "of"]

Feeds = dict[str, npt.NDArray[Any]]

#: What data each bundled model is made for.
DATA = {
    "lenet5.onnx": "digits",
    "digits_cnn.onnx": "digits",
    "vit_digits.onnx": "digits",
    "signal_cnn_lstm.onnx": "signals",
    "picture_question.onnx": "questions",
}
_SIZES = {"lenet5.onnx": 32}
_NHWC = ("digits_cnn.onnx",)


@cache
def _digits() -> digits.Split:
    return digits.load().test


def _images(file: str) -> digits.FloatArray:
    """Return the held-out digits as a model takes them: (N, 1, H, W), or (N, H, W, 1)."""
    images = digits.network_input(_digits().pictures, _SIZES.get(file, 28))
    return images[..., None] if file in _NHWC else images[:, None]


def of(file: str) -> tuple[Feeds, npt.NDArray[np.int64]]:
    """Return a model's held-out feeds, by input, and the (N,) classes of its output."""
    match DATA[file]:
        case "digits":
            return {"image": _images(file)}, _digits().classes
        case "signals":
            test = signals.load().test
            return {"signal": test.signals}, test.classes
        case _:
            pairs = questions.all_pairs(_digits().classes)
            return {"image": _images(file)[pairs.pictures], "tokens": pairs.tokens}, pairs.answers
