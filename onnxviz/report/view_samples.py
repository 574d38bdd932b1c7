"""The sections that need several samples: what units answer to them, and where they lie in a plane."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.neuron_answers import NeuronAnswers, answer_reducer
from onnxviz.analysis.neurons import Neurons, neuron_layer
from onnxviz.analysis.paired import missing
from onnxviz.analysis.projection import project_points
from onnxviz.analysis.projection_points import clean_points, sample_points
from onnxviz.analysis.sample_labels import SampleLabels, sample_labels
from onnxviz.analysis.sample_views import sample_views
from onnxviz.errors import MissingDependencyError, SelectionError
from onnxviz.graph.last_hidden import last_hidden
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.model import model_name
from onnxviz.graph.quantised import decoders
from onnxviz.graph.shapes import infer_shapes
from onnxviz.report.charts import figure_image
from onnxviz.report.formats import shape, short
from onnxviz.report.views import Card, Section, Seen
from onnxviz.runtime.batches import Batches

__all__ = ["neuron_section", "projection_section"]

_UNITS, _EXTREMES = 32, 8
_THUMBNAILS = 120  # samples that are drawn as their pictures
_NEURONS = (
    "What the units of the last hidden layer answer to each sample: the answers of all units, their distribution, and "
    "the samples that the best units answer most and least. Other layers: onnxviz neurons --tensor."
)
_PROJECTION = (
    "Each sample as its values in the last hidden layer, placed by PCA; how far the picture can be trusted stands "
    "beside it. t-SNE, UMAP and other layers: onnxviz project."
)


@dataclass(frozen=True, eq=False)
class _Answers:
    """What a layer's units answered to the samples of a run."""

    model: ir.Model
    name: str
    op_type: str | None
    shape: tuple[int, ...]
    role: str
    answers: NeuronAnswers
    names: tuple[str, ...]
    labels: SampleLabels | None


def _answered(seen: Seen, batches: Batches) -> _Answers:
    """Return the answers of the last hidden layer.

    Raises:
        SelectionError: It has none, or not one for each sample.
        InputError: The labels cannot be read.
    """
    model = infer_shapes(seen.prepared.model)
    value, role = last_hidden(model)
    name = str(value.name)
    absent = missing(seen.captured, name)
    if absent is not None:
        raise SelectionError(f"{short(name)}: {absent.reason}")
    record = seen.captured[name]
    reduce = answer_reducer({name: record.op_type}, tensor_layouts(model), decode=decoders([value]))
    outcome = reduce(name, record.array)
    if outcome.answers is None:
        raise SelectionError(f"{short(name)}: {outcome.reason}")
    rows = outcome.answers.values.samples
    if rows != len(batches.names):
        raise SelectionError(
            f"{short(name)} of shape {shape(record.shape)} has {rows} rows for {len(batches.names)} samples: its first "
            "axis is no batch"
        )
    labels = sample_labels(batches.names, seen.labels)
    return _Answers(model, name, record.op_type, record.shape, role, outcome.answers, batches.names, labels)


def neuron_section(seen: Seen) -> Section | None:
    """Return the units of the last hidden layer over the samples; None for one sample."""
    if seen.batches is None:
        return None
    found = _answered(seen, seen.batches)
    layer = neuron_layer(
        found.answers, found.labels, op_type=found.op_type, role=found.role, top=_UNITS, pictures=_EXTREMES
    )
    neurons = Neurons(model_name(seen.model), (layer,), found.names, found.labels)
    neurons = replace(neurons, views=sample_views(found.model, seen.batches, neurons.wanted))
    from onnxviz.plots.neurons import plot_neurons

    chart = figure_image(plot_neurons(neurons), f"Neurons of {found.name} over {len(found.names)} samples")
    size = f"{shape(found.shape)}, {len(found.names)} samples"
    return Section(_NEURONS, [Card(found.name, found.role, size, (found.name,), chart=chart)])


def projection_section(seen: Seen) -> Section | None:
    """Return the samples in a plane; None for one sample."""
    if seen.batches is None:
        return None
    found = _answered(seen, seen.batches)
    points = clean_points(sample_points(found.answers.values, found.op_type, found.names, found.labels))
    name = model_name(seen.model)
    notes = []
    try:
        projected = project_points(points, clusters="kmeans", model_name=name)
    except MissingDependencyError as error:
        notes.append(str(error))
        projected = project_points(points, model_name=name)
    from onnxviz.plots.projection import plot_projection

    chart = figure_image(
        plot_projection(projected, pictures=_thumbnails(seen.batches, points.numbers)),
        f"{len(points.numbers)} samples by PCA of {found.name}",
    )
    notes += [f"not drawn: {one.name}: {one.reason}" for one in projected.not_drawn]
    size = f"{len(points.numbers)} samples, {projected.columns} values each"
    return Section(_PROJECTION, [Card(found.name, "PCA", size, (found.name,), chart=chart)], notes)


def _thumbnails(batches: Batches, samples: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.uint8]] | None:
    """Return row -> picture of the samples; None where they are none, or too many."""
    if len(samples) > _THUMBNAILS:
        return None
    found = {row: batches.picture(int(sample)) for row, sample in enumerate(samples)}
    return {row: picture for row, picture in found.items() if picture is not None} or None
