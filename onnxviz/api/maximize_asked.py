"""What the words of ``maximize`` mean in a model: layers, terms, and what pictures are made for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from onnxviz.analysis.maximize import Subject
    from onnxviz.analysis.maximize_canvas import Canvas
    from onnxviz.analysis.maximize_terms import Goal, Layer

    Path_ = str | os.PathLike[str]

__all__ = ["Asked"]

_COSINE = 2.0  # of a caricature


@dataclass(frozen=True, eq=False)
class Asked:
    """What the words of a command mean in a model.

    Attributes:
        model: The model, functions inlined, shapes inferred.
        canvas: The input that is made up.
        dims: Sizes of open dimensions.
        name: The layer, as it was written; None for the class scores.
        cosine: Exponent of the cosine, where it was given.
        top: How many channels or classes, where none are named.
    """

    model: ir.Model
    canvas: Canvas
    dims: Mapping[str, int]
    name: str | None
    cosine: float | None
    top: int

    def layer(self, name: str) -> Layer:
        """Return a tensor as channels over positions."""
        from onnxviz.analysis.maximize_model import bound_model
        from onnxviz.analysis.maximize_terms import layer_of
        from onnxviz.errors import SelectionError
        from onnxviz.graph.layouts import tensor_layouts
        from onnxviz.graph.select import all_tensors

        batch = self.canvas.batch or 1
        bound = bound_model(self.model, self.canvas, batch, self.dims, [name])
        value = next((value for value, found in all_tensors(bound).items() if found == name), None)
        if value is None:
            raise SelectionError(f"{name} is not there once the model is prepared", hint="name another tensor")
        return layer_of(value, batch, tensor_layouts(bound).get(name))

    def goal(self, text: str) -> Goal:
        """Read ``LAYER:CHANNEL*WEIGHT``."""
        from onnxviz.analysis.maximize_subjects import one_layer
        from onnxviz.analysis.maximize_terms import Goal
        from onnxviz.errors import SelectionError

        start, _, weight = text.rpartition("*") if "*" in text.rpartition(":")[2] else (text, "", "1")
        name, _, channel = start.rpartition(":")
        try:
            unit, factor = int(channel), float(weight)
        except ValueError as error:
            raise SelectionError(f"{text!r} is no term", hint="write LAYER:CHANNEL or LAYER:CHANNEL*WEIGHT") from error
        found = Goal(one_layer(self.model, name), channel=unit, weight=factor)
        self.layer(found.layer).checked(unit)
        return found

    def subjects(
        self,
        channels: Sequence[int] | None,
        neurons: Sequence[str] | None,
        classes: Sequence[int | str] | None,
        direction: Path_ | np.ndarray | None,
        dream: Path_ | None,
        source: np.ndarray | None,
        labels: Sequence[str] | Path_ | None,
    ) -> tuple[list[Subject], str]:
        """Return what pictures are made for, and that in words."""
        from onnxviz.analysis import maximize_subjects as made
        from onnxviz.analysis.classification import load_labels
        from onnxviz.errors import InputError
        from onnxviz.graph.class_scores import class_scores

        ways = {"--neuron": neurons, "--class": classes, "--direction": direction}
        if source is None or dream is None:
            ways["--channel"] = channels
        if source is not None:
            ways["--dream" if dream is not None else "--caricature"] = source
        given = [way for way, value in ways.items() if value is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} are different things", hint="ask for one of them")
        if self.name is None and (given[:1] != ["--class"] and given):
            raise InputError(f"{given[0]} is of a layer", hint="name it with --layer")
        scores = self.name is None or classes is not None
        if scores and self.name is None:
            name = str(class_scores(self.model).name)
        else:
            name = made.one_layer(self.model, str(self.name))
        layer = self.layer(name)
        cosine = self.cosine
        if neurons is not None:
            return made.neuron_subjects(layer, neurons), "neurons"
        if direction is not None:
            rows = made.read_directions(direction) if isinstance(direction, (str, os.PathLike)) else direction
            return made.direction_subjects(layer, rows, cosine or 0.0), "directions"
        if source is not None and dream is not None:
            return made.dream(layer, source, channels), "deep dream"
        if source is not None:
            return made.caricature(layer, source, _COSINE if cosine is None else cosine), "caricature"
        if scores:
            names = load_labels(labels) if isinstance(labels, (str, os.PathLike)) else labels
            if classes is not None or names is not None or len(layer.places) == 0 or layer.positions == 1:
                return made.class_subjects(layer, classes, names, self.top), "class scores"
        return made.channel_subjects(layer, channels, self.top), "channels"
