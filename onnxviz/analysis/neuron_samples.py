"""What a sample looks like, small: its picture as the model sees it, its signal, its words, or its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.graph.layouts import input_layout, tensor_layouts
from onnxviz.graph.shapes import model_inputs, shape_list

__all__ = ["Look", "SampleView", "look_of", "sample_view"]

#: What tells samples apart at a glance.
Look = Literal["pictures", "signals", "words", "names"]

_MOST_WORDS = 64
_MOST_POINTS = 512
_MOST_LINES = 4


@dataclass(frozen=True, eq=False)
class SampleView:
    """One sample, small.

    Attributes:
        name: What it is called.
        picture: ``(H, W, 3)`` uint8 RGB, as the model sees it; None where it is none.
        signal: ``(lines, length)`` float32: the first channels of a signal; None where it is none.
        length: Number of points of the whole signal.
        words: The words of a text, or its token ids.
    """

    name: str
    picture: npt.NDArray[np.uint8] | None = None
    signal: npt.NDArray[np.float32] | None = None
    length: int = 0
    words: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The words in a line, without marks such as [CLS] and <pad>."""
        return " ".join(word for word in self.words if not (word[:1] in "[<" and word[-1:] in "]>"))


def look_of(views: Sequence[SampleView]) -> Look:
    """Return what samples are best told apart by: of one picture with many questions, the questions.

    >>> look_of([SampleView("a", words=("is", "it")), SampleView("b", words=("where",))])
    'words'
    """
    pictures = [view.picture for view in views if view.picture is not None]
    words = any(view.words for view in views)
    if pictures and not (words and all(np.array_equal(pictures[0], picture) for picture in pictures)):
        return "pictures"
    if any(view.signal is not None for view in views):
        return "signals"
    return "words" if words else "names"


def sample_view(
    model: ir.Model,
    name: str,
    feeds: Mapping[str, Any],
    row: int,
    picture: npt.NDArray[np.uint8] | None = None,
    words: Mapping[int, str] | None = None,
) -> SampleView:
    """Return what one sample of a batch looks like.

    Args:
        model: The model that is fed.
        name: What to call the sample.
        feeds: Input name -> the batch.
        row: The sample's place in the batch.
        picture: The picture, where the sample came from one.
        words: Token id -> word; None shows the ids.
    """
    layouts = tensor_layouts(model)
    signal, length = None, 0
    text: tuple[str, ...] = ()
    for value in model_inputs(model):
        array = feeds.get(str(value.name))
        if not isinstance(array, np.ndarray) or array.ndim < 2 or not array.size:
            continue
        one = array[row if len(array) > row else 0]
        if array.dtype.kind in "iu" and one.ndim == 1 and array.ndim == 2 and not text:
            text = _words(one, words)
        elif one.ndim == 3 and picture is None and array.dtype.kind in "fiu":
            picture = _picture(one, input_layout(model, value, layouts) or "NCHW")
        elif one.ndim <= 2 and array.dtype.kind in "fiu" and signal is None and one.size > 1:
            signal, length = _signal(one, layouts.get(str(value.name)), shape_list(value))
    return SampleView(name, picture, signal, length, text)


def _words(ids: npt.NDArray[Any], words: Mapping[int, str] | None) -> tuple[str, ...]:
    return tuple((words or {}).get(int(i), str(int(i))) for i in ids[:_MOST_WORDS])


def _picture(one: npt.NDArray[Any], layout: str) -> npt.NDArray[np.uint8] | None:
    """Return an array of one or three channels as a picture, its values stretched from the smallest to the largest."""
    pixels = np.asarray(one if layout.endswith("C") else np.moveaxis(one, 0, -1), np.float64)
    if pixels.shape[2] not in (1, 3):
        return None
    finite = pixels[np.isfinite(pixels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    level = np.where(np.isfinite(pixels), (pixels - low) / ((high - low) or 1.0), 0)
    found: npt.NDArray[np.uint8] = np.rint(255 * np.clip(level, 0, 1)).astype(np.uint8)
    return np.repeat(found, 3, axis=2) if found.shape[2] == 1 else found


def _signal(
    one: npt.NDArray[Any], layout: str | None, shape: Sequence[int | str | None] | None
) -> tuple[npt.NDArray[np.float32], int]:
    lines = np.asarray(one, np.float32)
    if lines.ndim == 1:
        lines = lines[None]
    elif layout != "NCHW" and lines.shape[0] > lines.shape[1]:
        lines = lines.T
    length = lines.shape[1]
    # Of a long signal, points at even distances: a drawing of an inch shows no more.
    step = np.linspace(0, length - 1, min(length, _MOST_POINTS)).round().astype(int)
    return np.ascontiguousarray(lines[:_MOST_LINES, step]), length
