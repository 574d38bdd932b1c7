"""What pictures are made for: channels, neurons, classes and directions of a layer, dreams and caricatures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.attribution.scores import class_index
from onnxviz.analysis.maximize import Subject
from onnxviz.analysis.maximize_canvas import Canvas
from onnxviz.analysis.maximize_terms import Goal, Layer
from onnxviz.errors import InputError, SelectionError, listed, printable
from onnxviz.graph.select import select
from onnxviz.runtime.preprocess import picture_values

__all__ = [
    "caricature", "channel_subjects", "class_subjects", "direction_subjects", "dream", "neuron_subjects", "one_layer",
    "read_directions", "start_values",
]  # fmt: skip


def one_layer(model: ir.Model, pattern: str) -> str:
    """Return the one tensor that a pattern names.

    Raises:
        SelectionError: There is none, or several.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[1] x) => (float[1] z) {a1 = Relu(x) a2 = Neg(a1) z = Exp(a2)}''')
    >>> one_layer(model, "a*")
    Traceback (most recent call last):
    onnxviz.errors.SelectionError: 'a*' names 2 tensors; name one of a1, a2
    """
    found = [str(value.name) for value in select(model, pattern)]
    if len(found) != 1:
        raise SelectionError(f"{pattern!r} names {len(found)} tensors", hint=f"name one of {listed(found, 4)}")
    return found[0]


def channel_subjects(layer: Layer, channels: Sequence[int] | None, top: int) -> list[Subject]:
    """Return a subject a channel: the mean over its positions; by default of the first ``top`` channels.

    Raises:
        SelectionError: The layer has no such channel.
    """
    chosen = range(min(top, layer.channels)) if channels is None else dict.fromkeys(map(layer.checked, channels))
    return [Subject(f"channel {c}", (Goal(layer.name, channel=c),), c) for c in chosen]


def neuron_subjects(layer: Layer, neurons: Sequence[str | Sequence[int]]) -> list[Subject]:
    """Return a subject a neuron: ``"C"``, in the middle of the layer, or ``"C,Y,X"``.

    Raises:
        SelectionError: The layer has no such channel or position.

    >>> layer = Layer("conv", "Conv", "NCHW", 8, (5, 5))
    >>> neuron_subjects(layer, ["3", "3,0,4"])[1].label
    'neuron 3 at 0,4'
    """
    subjects = []
    for given in neurons:
        try:
            channel, *position = [int(part) for part in (given.split(",") if isinstance(given, str) else given)]
        except ValueError as error:
            raise SelectionError(f"{given!r} is no neuron", hint="write a channel, or C,Y,X") from error
        place = layer.place(tuple(position))
        goal = Goal(layer.name, channel=layer.checked(channel), position=place)
        where = f" at {','.join(map(str, place))}" if place else ""
        subjects.append(Subject(f"neuron {channel}{where}", (goal,), channel))
    return subjects


def class_subjects(
    layer: Layer, classes: Sequence[int | str] | None, labels: Sequence[str] | None, top: int
) -> list[Subject]:
    """Return a subject a class: its score, before the softmax; classes are numbers, or names among the labels.

    Raises:
        SelectionError: There is no such class.
        InputError: There are not as many labels as classes.
    """
    if labels is not None and len(labels) != layer.channels:
        raise InputError(
            f"{len(labels)} labels were given for {layer.channels} classes", hint="give one label a class, in order"
        )
    chosen = (
        range(min(top, layer.channels))
        if classes is None
        else [class_index(str(c).strip(), layer.channels, labels, layer.name) for c in classes]
    )
    return [
        Subject(f"class {c}" + (f": {printable(labels[c], 80)}" if labels else ""), (Goal(layer.name, channel=c),), c)
        for c in dict.fromkeys(chosen)
    ]


def read_directions(path: str | os.PathLike[str]) -> npt.NDArray[np.float32]:
    """Read an ``.npy`` file of directions, ``(C,)`` or ``(K, C)``, as ``(K, C)`` float32.

    Raises:
        InputError: It cannot be read or is none.
    """
    try:
        with Path(path).open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except Exception as error:
        raise InputError(f"{path} cannot be read as a numpy file") from error
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiub" or not array.size:
        raise InputError(f"{path} holds no directions", hint="save an array of shape (C,) or (K, C)")
    return np.atleast_2d(array.astype(np.float32))


def direction_subjects(layer: Layer, directions: npt.NDArray[np.floating], cosine: float) -> list[Subject]:
    """Return a subject a direction, ``(K, C)``: ``a · d · max(0.1, cos) ** cosine`` at each position, their mean.

    Raises:
        SelectionError: They are of another length than the layer has channels.
    """
    goals = [Goal(layer.name, direction=row, cosine=cosine) for row in np.atleast_2d(directions)]
    for goal in goals:
        goal.target(layer)
    return [Subject(f"direction {i}", (goal,)) for i, goal in enumerate(goals)]


def start_values(path: str | os.PathLike[str], canvas: Canvas, size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Read a picture, or a signal from an ``.npy`` file, as ``(C, ...)`` from 0 to 1 in the model's order.

    Raises:
        InputError: It cannot be read, or does not fit.
    """
    file = Path(path)
    if file.suffix.lower() != ".npy":
        if canvas.kind != "picture":
            raise InputError(f"input {canvas.name!r} takes no picture", hint="give an .npy array of its shape")
        height, width = size
        return picture_values(file, canvas.color, (height, width))
    array = _array(file)
    if array.ndim == len(canvas.order) - 1 and canvas.order.startswith("N"):
        array = array[None]
    letters = canvas.order
    if array.ndim != len(letters) or ("N" in letters and len(array) != 1):
        raise InputError(f"{path} is of shape {array.shape}, and one {letters} is needed")
    moved = array.transpose([letters.index(letter) for letter in canvas.letters if letter in letters])
    values = moved.reshape(canvas.channels, -1)
    level = (values - canvas.shift[:, None]) / canvas.scale[:, None]
    if level.size != canvas.channels * np.prod(size):
        raise InputError(f"{path} is of shape {array.shape}, and {canvas.shape(1)} is needed")
    return np.clip(level, 0, 1).reshape(canvas.channels, *size).astype(np.float32)


def _array(file: Path) -> npt.NDArray[np.float64]:
    try:
        with file.open("rb") as opened:
            return np.asarray(np.load(opened, allow_pickle=False), np.float64)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {file}") from error
    except Exception as error:
        raise InputError(f"{file} cannot be read as a numpy file") from error


def dream(layer: Layer, values: npt.NDArray[np.float32], channels: Sequence[int] | None = None) -> list[Subject]:
    """Return the subject of a deep dream: all squares of a layer, or some channels of it, from a picture on.

    Source: Mordvintsev, Olah and Tyka, "Inceptionism", Google Research 2015.
    """
    if channels is None:
        return [Subject("dream", (Goal(layer.name, "energy"),), start=values)]
    return [
        Subject(f"dream of channel {c}", (Goal(layer.name, channel=layer.checked(c)),), c, start=values)
        for c in dict.fromkeys(channels)
    ]


def caricature(layer: Layer, values: npt.NDArray[np.float32], cosine: float) -> list[Subject]:
    """Return the subject of a caricature: at each position what the layer holds for a picture, and more of it.

    Source: Olah et al., "The Building Blocks of Interpretability", Distill 2018; lucid's ``dot_compare``.

    Args:
        layer: The layer.
        values: The picture.
        cosine: Exponent of the cosine.
    """
    goal = Goal(layer.name, reference=True, cosine=cosine)
    return [Subject("caricature", (goal,), reference=values)]
