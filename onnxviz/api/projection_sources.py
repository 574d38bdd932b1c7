"""Where the points of a projection come from: the weights of a layer, or what a tensor holds for samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from onnxviz.api.common import batches_for
from onnxviz.errors import InputError, SelectionError, listed, printable

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from onnxviz.analysis.feature_maps import FeatureMaps
    from onnxviz.analysis.paired import NotDrawn
    from onnxviz.analysis.projection_points import Of, Points
    from onnxviz.analysis.sample_labels import SampleLabels
    from onnxviz.analysis.unit_values import Over, UnitValues
    from onnxviz.analysis.weights import LayerWeights
    from onnxviz.runtime.batches import Batches
    from onnxviz.runtime.capture import Feed

__all__ = ["ActivationSource", "FilterSource"]

_One = TypeVar("_One")
_ENOUGH = 1 << 28  # values of all samples: beyond, positions are averaged


class FilterSource:
    """The filters of a layer as points."""

    def __init__(self, model: ir.Model, tensor: str | None) -> None:
        self.not_drawn: list[NotDrawn] = []
        self.showing = "pictures"
        self._weights = _weights_of(model, tensor)

    def points(self) -> Points:
        from onnxviz.analysis.projection_points import filter_points

        return filter_points(self._weights)

    def pictures(self, wanted: Sequence[int]) -> dict[int, Any]:
        import numpy as np

        from onnxviz.analysis.feature_maps import feature_maps
        from onnxviz.plots.projection_marks import channel_pictures
        from onnxviz.plots.weights import kernel_stack

        kernels, note = kernel_stack(self._weights)
        self.showing = f"kernels in RGB, grey is 0{', ' + note if note else ''}"
        if kernels.shape[1] == 3:
            reach = float(np.abs(kernels).max()) or 1.0
            colors = np.rint(127.5 + 127.5 * np.moveaxis(kernels, 1, -1) / reach).astype(np.uint8)
            return {i: colors[i] for i in wanted}
        which = "of the input channel that weighs most, " if kernels.shape[1] > 1 else ""
        self.showing = f"kernels {which}red above 0, blue below{', ' + note if note else ''}"
        norms = np.square(kernels, dtype=np.float64).sum(axis=(2, 3))
        strongest = kernels[np.arange(len(kernels)), norms.argmax(axis=1)]
        shown = channel_pictures(feature_maps(strongest[None], layout="NCHW", top=None, by="index"))
        return {i: shown[i] for i in wanted}


def _weights_of(model: ir.Model, tensor: str | None) -> LayerWeights:
    """Return the weights that a name means, or those of the layer that makes a tensor."""
    from onnxviz.analysis.layers import select_weights
    from onnxviz.analysis.weights import layer_weights
    from onnxviz.graph.last_hidden import last_hidden, upstream
    from onnxviz.graph.select import select

    every = [lw for lw in layer_weights(model) if lw.role in ("weight", "recurrence", "embedding")]
    if not every:
        raise SelectionError("the model has no filters", hint="its weights may be inputs")
    if tensor is not None:
        try:
            named = select_weights(every, tensor)
        except SelectionError:
            values = select(model, tensor)
        else:
            return _only(named, tensor, [lw.layer for lw in named])
        value = _only(values, tensor, [str(v.name) for v in values])
    else:
        value, _ = last_hidden(model)
    places = {node: position for position, node in enumerate(model.graph)}
    by_layer: dict[str, LayerWeights] = {}
    for lw in every:
        by_layer.setdefault(lw.layer, lw)
    for node in upstream(model, value):
        made = by_layer.get(node.name or f"{node.op_type}_{places.get(node)}")
        if made is not None:
            return made
    raise SelectionError(
        f"no layer with weights leads to {value.name}", hint=f"the layers are {listed(list(by_layer), 8)}"
    )


def _only(found: Sequence[_One], pattern: str, names: Sequence[str]) -> _One:
    if len(found) > 1:
        shown = [printable(name, 40) for name in names]
        raise SelectionError(f"{pattern!r} names {len(found)} layers: {listed(shown, 4)}", hint="name one of them")
    return found[0]


class ActivationSource:
    """Samples, channels or neurons of a tensor as points."""

    def __init__(self, model: ir.Model, inputs: Feed, tensor: str | None, of: Of, options: Mapping[str, Any]) -> None:
        from onnxviz.graph.last_hidden import last_hidden
        from onnxviz.graph.layouts import tensor_layouts
        from onnxviz.graph.quantised import codes_to_numbers
        from onnxviz.graph.select import select

        known = {"labels", "over", "sample", "tokens", "batch", "progress"}
        self._own = {name: options[name] for name in known if options.get(name) is not None}
        values = [last_hidden(model)[0]] if tensor is None else select(model, tensor)
        value = _only(values, str(tensor), [str(v.name) for v in values])
        self.not_drawn: list[NotDrawn] = []
        self.showing = "pictures"
        self._done: int | None = None
        self._model, self._of, self._name = model, of, str(value.name)
        node = value.producer()
        self._op_type = None if node is None else node.op_type
        self._decode = codes_to_numbers(value)
        self._layout = tensor_layouts(model).get(self._name)
        others = {name: value for name, value in options.items() if name not in known}
        self._batches: Batches
        self._batches, self._run = batches_for(model, inputs, self._own.get("batch"), others)

    def points(self) -> Points:
        from dataclasses import replace

        from onnxviz.analysis.projection_points import channel_points, neuron_points, sample_points
        from onnxviz.analysis.sample_views import sample_names

        if self._of == "channels" and (self._batches.samples == 1 or "sample" in self._own):
            return self._of_one_sample()
        values, notes = self._values()
        names = sample_names(self._batches)
        labels = self._labels(names)
        if self._done is not None:  # interrupted: what is complete is placed
            names, labels = names[: self._done], None if labels is None else labels.first(self._done)
        if self._batches.names and values.samples != len(names):
            raise SelectionError(
                f"{self._name}, of shape {values.shape}, gives {values.samples} rows for {len(names)} samples: its "
                "first axis is no batch",
                hint="choose another tensor",
            )
        if self._of == "samples":
            points = sample_points(values, self._op_type, names, labels)
        else:
            make = neuron_points if self._of == "neurons" else channel_points
            points = make(values, self._op_type, labels)
        return replace(points, notes=(*points.notes, *notes))

    def _values(self) -> tuple[UnitValues, list[str]]:
        """Run the model and return what the units hold for all samples."""
        from onnxviz.analysis.unit_values import unit_values
        from onnxviz.runtime.capture import capture

        asked: Over = self._own.get("over") or ("mean" if self._of == "channels" else "flat")
        count, notes = self._batches.samples, list[str]()

        def keep(name: str, array: np.ndarray) -> UnitValues:
            array, over = array if self._decode is None else self._decode(array), asked
            if "over" not in self._own and over == "flat" and array.size // max(len(array), 1) * count > _ENOUGH:
                over = "mean"
            return unit_values(array, name, over=over, op_type=self._op_type, layout=self._layout)

        captured = capture(
            self._model, self._batches, [self._name], bodies=False, keep=False, reduce=keep,
            progress=self._own.get("progress"), **self._run,
        )  # fmt: skip
        if self._name not in captured:
            reason = captured.not_captured.get(self._name, "it was not computed")
            raise SelectionError(f"{self._name} has no values: {reason}")
        made: UnitValues = captured[self._name].statistics
        dtype = captured[self._name].dtype
        if self._decode is not None:
            notes.append(f"dequantised from {dtype}")
        elif dtype in ("uint8", "int8"):
            notes.append(f"values are {dtype} codes, not dequantised")
        if made.over != asked:
            notes.append("positions averaged: every value of every sample is more than is kept")
        if captured.interrupted:
            self._done = captured.samples
            notes.append(f"interrupted after {captured.samples} of {count} samples")
        notes += [f"random numbers for {printable(r.name, 40)}" for r in captured.inputs if r.made_up]
        return made, [*notes, *captured.notes]

    def _of_one_sample(self) -> Points:
        from dataclasses import replace

        from onnxviz.analysis.projection_points import map_points

        sample = int(self._own.get("sample", 0))
        points = map_points(self._maps(sample))
        return replace(points, what=f"a channel, as its {points.matrix.shape[1]:,} positions for sample {sample}")

    def _maps(self, sample: int) -> FeatureMaps:
        """Return all channels of the layer for one sample."""
        from dataclasses import replace

        import numpy as np

        from onnxviz.analysis.feature_maps import feature_maps
        from onnxviz.runtime.capture import capture

        start = 0
        for inputs, count in self._batches:
            if sample < start + count:
                captured = capture(self._model, inputs, [self._name], bodies=False, **self._run)
                record = captured[self._name]
                if self._decode is not None and record.kept is not None:
                    record = replace(record, kept=self._decode(record.kept).astype(np.float32))
                return feature_maps(record, layout=self._layout, top=None, by="index", sample=sample - start)
            start += count
        raise SelectionError(f"there is no sample {sample}", hint=f"there are {start}, counted from 0")

    def _labels(self, names: Sequence[str]) -> SampleLabels | None:
        from onnxviz.analysis.paired import NotDrawn
        from onnxviz.analysis.sample_labels import sample_labels

        given = self._own.get("labels")
        try:
            return sample_labels(names, given)
        except InputError as error:
            if given is None or (given != "folders" and not Path(given).is_file()):
                raise
            self.not_drawn.append(NotDrawn("labels", str(error)))
            return None

    def pictures(self, wanted: Sequence[int]) -> dict[int, Any]:
        from onnxviz.plots.projection_marks import channel_pictures

        if self._of == "samples":
            return self._of_samples(wanted)
        if self._of == "neurons":
            raise SelectionError("a neuron has no picture", hint="--of channels or filters has")
        sample = int(self._own.get("sample", 0))
        maps = self._maps(sample)
        if maps.kind == "vector":
            raise SelectionError(f"the channels of {self._name} have one value each: no pictures")
        self.showing = f"maps for sample {sample}, one scale"
        shown = channel_pictures(maps)
        return {i: shown[i] for i in wanted if i < len(shown)}

    def _of_samples(self, wanted: Sequence[int]) -> dict[int, Any]:
        from onnxviz.analysis.neuron_samples import look_of
        from onnxviz.analysis.sample_views import sample_views
        from onnxviz.plots.projection_marks import sample_marks
        from onnxviz.runtime.words import read_vocabulary

        tokens = self._own.get("tokens")
        words = None if tokens is None else read_vocabulary(tokens)
        views = sample_views(self._model, self._batches, [i for i in wanted if i < self._batches.samples], words)
        look = look_of(list(views.values()))
        if look == "names":
            raise SelectionError("the samples are neither pictures, signals nor texts")
        self.showing = {"signals": "signals, each over its own range"}.get(look, look)
        return sample_marks(views, look)
